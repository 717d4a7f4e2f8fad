"""What absence means: ``v(S) = mean_m number(fill_m(x, S))``, where ``fill`` keeps the present atoms of ``x``.

==============  ==================================================================  =================
`Reference`     absent atoms take one reference's values                            one draw
`Background`    absent atoms take a background row's values (interventional SHAP)   one draw a row
`Conditional`   absent atoms are drawn from the Gaussian ``x_absent | x_present``   ``samples`` draws
==============  ==================================================================  =================
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from explain.spelling import came
from explain.supervised.conditional import Conditional
from explain.types import NonFinite

NAMES = ("zeros", "mean", "background", "conditional")


class Baseline(Protocol):
    """How absent atoms are filled; ``removal`` names it in every Explanation, ``formula`` in the game's checks."""

    removal: ClassVar[str]
    formula: ClassVar[str]

    @property
    def name(self) -> str:
        """What stands for absence, in a word."""

    @property
    def shape(self) -> torch.Size:
        """The shape of one example."""

    @property
    def draws(self) -> int:
        """How many filled copies of the example one coalition costs."""

    @property
    def reference(self) -> Tensor:
        """One example with everything absent, ``[*shape]``: where gradients start from."""

    def fill(self, x: Tensor, present: Tensor) -> Tensor:
        """``x [*shape]``, ``present`` bool ``[coalitions, *shape]`` -> ``[coalitions, draws, *shape]``."""

    def checks(self, number: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """What there is to know of it, as plain JSON values; ``number``: ``[rows, *shape] -> [rows]``."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Absent atoms take the values of one reference ``[*shape]``.

    >>> Reference(torch.zeros(2)).fill(torch.tensor([3.0, 4.0]), torch.tensor([[True, False]]))
    tensor([[[3., 0.]]])
    """

    reference: Tensor
    name: str = "reference"
    removal: ClassVar[str] = "features"
    formula: ClassVar[str] = "v(S) = f(x_S, reference)"
    draws: ClassVar[int] = 1

    @property
    def shape(self) -> torch.Size:
        """The shape of one example."""
        return self.reference.shape

    def fill(self, x: Tensor, present: Tensor) -> Tensor:
        """``[coalitions, 1, *shape]``."""
        return torch.where(present, x, self.reference)[:, None]

    def checks(self, number: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """Nothing to add."""
        return {}


@dataclass(frozen=True, eq=False)
class Background:
    """Absent atoms take the values of each background row ``[m, *shape]`` in turn, and the number is averaged.

    The interventional value function of Lundberg & Lee (2017) and Janzing et al. (2020): ``v(S) = E_b f(x_S, b_rest)``.

    >>> Background(torch.tensor([[0.0, 0.0], [1.0, 1.0]])).fill(torch.tensor([3.0, 4.0]), torch.tensor([[True, False]]))
    tensor([[[3., 0.],
             [3., 1.]]])
    """

    rows: Tensor
    name: ClassVar[str] = "background"
    removal: ClassVar[str] = "interventional"
    formula: ClassVar[str] = "v(S) = mean_b f(x_S, b), interventional"

    @property
    def shape(self) -> torch.Size:
        """The shape of one example."""
        return self.rows.shape[1:]

    @property
    def draws(self) -> int:
        """The background's rows."""
        return len(self.rows)

    @property
    def reference(self) -> Tensor:
        """The mean row; of whole numbers, which have none, the first."""
        return self.rows.mean(0) if self.rows.is_floating_point() else self.rows[0]

    def fill(self, x: Tensor, present: Tensor) -> Tensor:
        """``[coalitions, m, *shape]``."""
        return torch.where(present[:, None], x, self.rows)

    def checks(self, number: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The size of the background."""
        return {"background": len(self.rows)}


def chosen(baseline: Any, x: Tensor, background: Tensor | None) -> Baseline:
    """The baseline that was asked for: see `SupervisedModel.example`.

    Raises:
        ValueError: an unknown name, a name that needs a background where there is none, or another shape.
        TypeError: neither a name, a tensor nor a baseline.
        NonFinite: NaN or infinity in a tensor.
    """
    if baseline is None:
        baseline = "zeros" if background is None else "background"
    if isinstance(baseline, Tensor):
        found = _from_tensor(baseline, x)
    elif isinstance(baseline, str):
        found = _from_name(baseline, x, background)
    elif isinstance(baseline, (Reference, Background, Conditional)):
        found = baseline
    else:
        raise TypeError(f"baseline must be a name, a tensor or a baseline, got {type(baseline).__name__}")
    if found.shape != x.shape:
        raise ValueError(f"the baseline must be for examples {list(x.shape)}, got {list(found.shape)}")
    if (found.reference.dtype, found.reference.device) != (x.dtype, x.device):
        raise ValueError(
            f"the baseline must be {x.dtype} on {x.device} as the example is, got {found.reference.dtype} on "
            f"{found.reference.device}"
        )
    return found


def _from_tensor(baseline: Tensor, x: Tensor) -> Baseline:
    if not baseline.isfinite().all():
        raise NonFinite("the baseline holds NaN or infinity")
    if baseline.shape[1:] == x.shape and len(baseline):
        return Background(baseline.detach().to(x))
    return Reference(baseline.detach().to(x))


def _from_name(name: str, x: Tensor, background: Tensor | None) -> Baseline:
    if name not in NAMES:
        raise ValueError(
            f"baseline must be 'zeros', 'mean', 'background', 'conditional', a tensor {list(x.shape)} or a background "
            f"[m, *{list(x.shape)}], {came(name, NAMES)}"
        )
    if name == "zeros":
        return Reference(torch.zeros_like(x), name)
    if background is None:
        raise ValueError(f"baseline={name!r} needs a background: explain.wrap(model, background=rows)")
    if name != "background" and not x.is_floating_point():
        raise ValueError(
            f"token ids have no {name} baseline: give 'background', or the id of a mask token, a tensor like x"
        )
    if name == "mean":
        return Reference(background.mean(0), name)
    return Background(background) if name == "background" else Conditional(background)
