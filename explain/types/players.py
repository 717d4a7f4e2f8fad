"""Players: whatever may deserve credit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from torch import Tensor

from explain.types.errors import check_text


@lru_cache(maxsize=32)
def _named(stem: str, labels: tuple[int | str, ...]) -> tuple[str, ...]:
    """Remembered: every question about one training set has the same thousands of names."""
    return tuple([f"{stem} {label}" for label in labels])


@dataclass(frozen=True, eq=False)
class Players:
    """Who may deserve credit: ``P`` groups of atoms.

    Args:
        kind: "nodes", "edges", "features", "patches", "train", ...
        index: int64 ``[P]`` or ``[P, k]``: node ids, positions in ``edge_index``, feature columns, ...
        names: one label a player; made from ``kind`` and ``index`` when left out.
        groups: the atoms each player owns, where it owns more than ``index`` says (``int64`` tensors).
        geometry: what pictures need. Graphs: ``edge_index [2, C]`` (the drawn context, node ids), ``focus [f]`` (the
            explained nodes), for edges ``ends [2, P]``, for nodes and training nodes ``node [P]``. Images: ``labels
            [H, W]`` (the player of each pixel, -1 for none), ``image [C, H, W]``; points, signals, videos likewise.

    >>> import torch
    >>> players = Players("features", torch.arange(3))
    >>> len(players), players.names
    (3, ('feature 0', 'feature 1', 'feature 2'))
    """

    kind: str
    index: Tensor
    names: tuple[str, ...] = ()
    groups: tuple[Tensor, ...] | None = None
    geometry: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.names:
            rows = self.index.tolist()
            labels = rows if self.index.dim() == 1 else ["-".join(map(str, row)) for row in rows]
            object.__setattr__(self, "names", _named(self.stem, tuple(labels)))
        elif strange := next((name for name in self.names if not isinstance(name, str)), None):
            raise TypeError(f"names must be text, got {strange!r} of type {type(strange).__name__}")
        else:
            check_text("".join(self.names), "names")
        check_text("".join((self.kind, *self.geometry)), "kind and geometry")
        for what, found in (("names", self.names), ("groups", self.groups)):
            if found is not None and len(found) != len(self.index):
                raise ValueError(f"{len(self.index)} players need {len(self.index)} {what}, got {len(found)}")

    def __len__(self) -> int:
        return len(self.index)

    @property
    def stem(self) -> str:
        """What one of them is: "edge" of "edges"."""
        return self.kind.removesuffix("es" if self.kind.endswith("ches") else "s")

    def __repr__(self) -> str:
        named = ", ".join(self.names[:5]) + (", …" if len(self) > 5 else "")
        return f"Players: {len(self)} {self.kind}" + (f": {named}" if len(self) else "")
