"""The number: from a model's outputs ``[rows, outputs]`` to one number a row."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar, cast, get_args

import numpy as np
import torch
from torch import Tensor, nn

from explain.guard import other_random_states
from explain.outputs import Meaning, PayoffName
from explain.spelling import came

PROBED = 4  # rows that a callable is tried on
Payoff: TypeAlias = PayoffName | Callable[[Tensor], Tensor]
NAMES: tuple[str, ...] = get_args(PayoffName)
_Asked = TypeVar("_Asked")


def payoff_function(payoff: Payoff, label: int | None, meaning: Meaning) -> Callable[[Tensor], Tensor]:
    """``[rows, outputs] -> [rows]``: a class's logit, probability, log-probability or loss, or the model's own number.

    "value" is the model's own number for the class. Of a model that answers probabilities or their logarithms the
    "logit" is the log-odds ``log p - log(1 - p)``, and no softmax is taken twice. One output of a classifier is that of
    class 1: class 0 reads a logit ``z`` as ``-z``, a probability ``p`` as ``1 - p``. Where classes do not exclude one
    another, the "probability" of each is its own sigmoid. "loss" is ``-log p(label)``.

    >>> payoff_function("probability", 1, Meaning("logits", 4))(torch.zeros(1, 4))
    tensor([0.2500])

    Raises:
        ValueError: an unknown payoff, or one that needs classes where the outputs are values.
    """
    if callable(payoff):
        return _checked(payoff)
    if payoff not in NAMES:
        raise ValueError(f"payoff must be one of {', '.join(NAMES)} or a callable, {came(payoff, NAMES)}")
    if meaning.kind == "values":
        if payoff not in ("logit", "value"):
            raise ValueError(
                f"payoff={payoff!r} needs classes; a regression target has 'value' or 'logit', its "
                "output, or a callable, such as lambda outputs: (outputs[:, 0] - truth) ** 2"
            )
        return lambda outputs: meaning.own(outputs, label)
    assert label is not None  # of classes one is always meant
    return {
        "value": lambda outputs: meaning.own(outputs, label),
        "logit": lambda outputs: meaning.log_odds(outputs, label),
        "probability": lambda outputs: _probability(outputs, label, meaning),
        "log_probability": lambda outputs: meaning.log_probability(outputs, label),
        "loss": lambda outputs: -meaning.log_probability(outputs, label),
    }[payoff]


def _probability(outputs: Tensor, label: int, meaning: Meaning) -> Tensor:
    if meaning.kind == "probabilities":
        return meaning.own(outputs, label)
    return meaning.log_probability(outputs, label).exp()


def checked_label(label: Any, row: Tensor, meaning: Meaning, payoff: Payoff | None = None) -> int | None:
    """``label`` if it is a class of this row ``[outputs]``, the predicted class when it is None.

    Of values, which output is meant: None where there is but one, or where a callable reads all.

    Raises:
        ValueError: no such class or output, or several outputs and none named.
    """
    found = None if label is None else whole_number(label)
    if meaning.kind == "values":
        if label is None and (meaning.count == 1 or callable(payoff)):
            return None
        if found is None or not 0 <= found < meaning.count:
            raise ValueError(
                f"label must say which of the regressor's {meaning.count} outputs is meant, 0 to {meaning.count - 1}, "
                f"got {label!r}; of a classifier say explain.wrap(..., outputs='logits')"
            )
        return found if meaning.count > 1 else None
    if label is None:
        return meaning.predicted(row)
    if found is None or not 0 <= found < meaning.classes:
        raise ValueError(f"label must be a class from 0 to {meaning.classes - 1}, got {label!r}")
    return found


def probed(payoff: Callable[[Tensor], Tensor], rows: Tensor) -> None:
    """Check that a payoff is a function of each row alone: asked twice, and of each row by itself.

    Args:
        payoff: ``[rows, ...] -> [rows]``.
        rows: what it may be given; a single row is joined by others made of it.

    Raises:
        ValueError: it is random, looks at other rows, or does not give one number a row.
    """
    rows = rows.detach()[:PROBED]
    if len(rows) < PROBED:  # the same numbers elsewhere, and less of them: within any bounds that they keep
        turned = rows[:1].flatten(1).flip(1).reshape(rows[:1].shape)
        rows = torch.cat([rows, turned, rows[:1] * 0.5, turned * 0.75])[:PROBED]

    by_themselves("payoff", lambda at: _checked(payoff)(rows[at].clone()), len(rows))


def by_themselves(what: str, number: Callable[[slice], Tensor], count: int) -> None:
    """Check that a payoff or a loss answers each of ``count`` rows as it does alone, and again the same.

    Raises:
        ValueError: it is random, or looks at other rows.
    """

    def asked(at: slice, seed: int) -> Tensor:
        with torch.no_grad(), other_random_states(seed):
            return number(at).detach().double()

    together = asked(slice(count), 0)
    if not _same(together, asked(slice(count), 1)):
        raise ValueError(
            f"the {what} is random: two calls on the same rows differ. Seed it inside, or put its network into eval "
            "mode"
        )
    alone = torch.cat([asked(slice(at, at + 1), 0) for at in range(count)])
    if not _same(together, alone):
        raise ValueError(
            f"the {what} looks across rows: together they get {_few(together)}, each alone {_few(alone)}. {_WHY[what]}"
        )


_WHY = {
    "payoff": "Rows are coalitions and draws, answered in batches of any size: it must read each row by itself (no "
    "mean, max, argmax or normalisation over dimension 0)",
    "loss": "It must be that of each example by itself: outputs [n, 1] and labels [n] broadcast to [n, n], so take "
    "outputs[:, 0]; no mean or normalisation over dimension 0",
}


def _same(one: Tensor, other: Tensor) -> bool:
    finite = one[one.isfinite()].abs()
    scale = float(finite.max()) if len(finite) else 1.0
    return torch.allclose(one, other, rtol=1e-3, atol=1e-4 * max(scale, 1e-12), equal_nan=True)


def _few(values: Tensor) -> str:
    return ", ".join(f"{value:.3g}" for value in values.tolist())


def one_a_row(values: Any, count: int, row: str = "row", what: str = "payoff") -> Tensor:
    """What a callable ``what`` answered, ``[count]``; ``row`` says in a word what it was given.

    Raises:
        ValueError: it is not one number a row.
    """
    if not isinstance(values, Tensor) or values.shape != (count,):
        got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"{what} must give one number a {row}, a tensor [{count}], got {got}")
    return values


def payoff_name(payoff: str | Callable[..., Any]) -> str:
    """As it is written into answers; a function without a name is "payoff"."""
    name = payoff if isinstance(payoff, str) else getattr(payoff, "__name__", "payoff")
    return "payoff" if name == "<lambda>" else name


def named(payoff: _Asked, name: str | None) -> _Asked:
    """A function that is called ``name`` in titles, pages and files; what it was given where that is None.

    Raises:
        TypeError: a name that is no text.
        ValueError: an empty name, that of another payoff, or one for a payoff that is no function.

    >>> payoff_name(named(lambda outputs: outputs[:, 0] - outputs[:, 2], "owl over cat"))
    'owl over cat'
    """
    if name is None:
        return payoff
    if not isinstance(name, str):
        raise TypeError(f"payoff_name must be a text, got {type(name).__name__}")
    if not callable(payoff):
        said = "without payoff=" if payoff is None else f"payoff={payoff!r:.40}"
        raise ValueError(f"payoff_name={name!r:.60} names a function, payoff=lambda ...: ..., got it {said}")
    if not name.strip() or name in NAMES:
        raise ValueError(f"payoff_name must be a name of your own, other than {', '.join(NAMES)}; got {name!r}")
    return cast(_Asked, _Named(payoff, name))


class _Named:
    """A function under another name."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self.function, self.__name__ = function, name

    def __call__(self, *rows: Any) -> Any:
        return self.function(*rows)


def whole_number(given: Any) -> int | None:
    """An int, also out of NumPy or a torch scalar; None for anything else, True and 1.0 included.

    >>> whole_number(torch.tensor(3)), whole_number(1.0), whole_number(True)
    (3, None, None)
    """
    if isinstance(given, (bool, np.bool_)) or (isinstance(given, Tensor) and given.dtype == torch.bool):
        return None
    try:
        return operator.index(given)
    except TypeError:
        return None


def shuffled(module: nn.Module, generator: torch.Generator) -> None:
    """Shuffle the entries of each parameter in place: the same values, and nothing that was learned.

    Raises:
        ValueError: there is nothing to shuffle.
    """
    parameters = [p for p in module.parameters() if p.numel() > 1]
    if not parameters:
        raise ValueError("the model has no parameters to randomise")
    with torch.no_grad():
        for p in parameters:
            order = torch.randperm(p.numel(), generator=generator).to(p.device)
            p.copy_(p.detach().reshape(-1)[order].reshape(p.shape))


def _checked(payoff: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def number(outputs: Tensor) -> Tensor:
        return one_a_row(payoff(outputs.clone()), len(outputs))  # it may work in place

    return number
