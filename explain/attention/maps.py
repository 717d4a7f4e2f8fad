"""AttentionMap: one attention distribution a query row, dense or along edges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from explain.attention.recomputed import Recomputed, Whole


class Closed(RuntimeError):
    """Weights were asked for after the network went on: what they are computed from may be gone or overwritten."""


@dataclass(frozen=True, eq=False)
class AttentionMap:
    """What one call of one attention layer weighed: ``weights >= 0``, each query row summing to 1.

    Dense: ``weights [batch, heads, queries, keys]``. Along edges: ``weights [E', heads]`` with ``edge_index [2, E']``,
    the columns that were really propagated (self-loops added by the layer included), where the rows are the receiving
    ends. Readings average over heads, and over the batch of a dense map, where they do not keep them.

    A dense map that `capture` hands to ``reduce`` has not been computed yet. ``weights`` computes it, ``O(queries x
    keys)`` in time and memory. The rest answers without it: `columns` and ``attention @ values``, what all rows put
    onto a few groups of keys, are one more call of the layer's own kernel; `pull` and `looked_at` compute the rows that
    look alone; `blocks`, `mean`, `deviation` and what else needs all rows take a few at a time.

    Args:
        weights: the attention weights, at least float32.
        module: name of the layer inside the network.
        edge_index: node ids as propagated, or None for a dense map.
        size: ``(keys, queries)``: how many nodes send and receive; a dense map knows it from its weights.
        flow: "source_to_target" when messages go from ``edge_index[0]`` to ``edge_index[1]``, as in torch_geometric.
        step: the timestep that the network was called with, one for each row where they differ, or None.
        branch: the guidance branch, "cond" or "uncond", one for each row where they differ, or None where it is not
            told.

    >>> attention = AttentionMap(torch.tensor([[0.25], [0.75]]), "conv", torch.tensor([[0, 1], [0, 0]]), (2, 2))
    >>> attention.dense().squeeze()
    tensor([[0.2500, 0.7500],
            [0.0000, 0.0000]])
    """

    weights: Tensor
    module: str
    edge_index: Tensor | None = None
    size: tuple[int, int] = (0, 0)
    flow: str = "source_to_target"
    step: float | tuple[float, ...] | None = None
    branch: str | tuple[str | None, ...] | None = None
    _source: Recomputed | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.edge_index is None:
            weights = self.weights
            batch, heads, queries, keys = weights.shape
            self._set(_source=Whole(lambda: weights, (batch, heads, queries, keys)), size=(keys, queries))

    @classmethod
    def recomputed(
        cls,
        source: Recomputed,
        module: str,
        step: float | tuple[float, ...] | None = None,
        branch: str | tuple[str | None, ...] | None = None,
    ) -> AttentionMap:
        """A dense map whose weights are computed when they are first read."""
        attention: AttentionMap = object.__new__(cls)
        size = source.shape[3], source.shape[2]
        attention._set(
            module=module, edge_index=None, size=size, flow="source_to_target", step=step, branch=branch, _source=source
        )
        return attention

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Tensor:
            if name != "weights" or "_source" not in self.__dict__:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
            self._settle()
            return self.weights

    def __getstate__(self) -> dict[str, Any]:
        """The fields alone, computed, as copies and files have them."""
        self._settle()
        return {name: value for name, value in self.__dict__.items() if name not in ("_source", "_rows")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set(_source=None, **state)
        self.__post_init__()

    def _set(self, **values: object) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _settle(self) -> None:
        """Compute the weights where they are not yet, and let go of what they come from."""
        if self.edge_index is None and "weights" not in self.__dict__:
            output = self._behind.output
            self._set(weights=self._behind.whole())
            self.__post_init__()
            self._behind.output = output

    def _close(self) -> None:
        """Let go of what the layer has: its output, and what weights come from that were not read, are gone."""
        if self.edge_index is None and "weights" not in self.__dict__:
            self._set(_source=None)
        elif self._source is not None:
            self._source.output = None

    @property
    def _behind(self) -> Recomputed:
        if self._source is None:
            raise Closed(
                f"the map of {self.module} was not read while its layer ran, and what it comes from may have changed "
                "since: return it from reduce, or read what you need of it there"
            )
        return self._source

    @property
    def keys(self) -> int:
        """How many positions can be looked at."""
        return self.size[0]

    @property
    def queries(self) -> int:
        """How many positions look."""
        return self.size[1]

    @property
    def batch(self) -> int:
        """How many rows of a batch a dense map has; 1 along edges."""
        return self._behind.shape[0] if self.edge_index is None else 1

    @property
    def heads(self) -> int:
        """How many heads."""
        return self._behind.shape[1] if self.edge_index is None else self.weights.size(1)

    def ends(self) -> tuple[Tensor, Tensor]:
        """Sender and receiver of each edge, ``([E'], [E'])``.

        Raises:
            ValueError: the map is dense.
        """
        if self.edge_index is None:
            raise ValueError(f"the map of {self.module} is dense: it has no edges")
        source, target = self.edge_index if self.flow == "source_to_target" else self.edge_index.flip(0)
        return source, target

    def mean(self) -> Tensor:
        """Weights averaged over heads (and batch): float64 ``[queries, keys]``, or ``[E']`` along edges."""
        if self.edge_index is not None:
            return self.weights.double().mean(1)
        return torch.cat([weights.double().mean((0, 1)) for _, weights in self.blocks()])

    def blocks(self) -> Iterator[tuple[slice, Tensor]]:
        """A dense map a few rows at a time, never whole: which queries, and theirs ``[batch, heads, rows, keys]``.

        Raises:
            ValueError: the map runs along edges.
        """
        if self.edge_index is not None:
            raise ValueError(f"the map of {self.module} runs along edges: its weights are [edges, heads]")
        return self._behind.blocks()

    def dense(self) -> Tensor:
        """``[batch, heads, queries, keys]``; parallel edges are added up."""
        if self.edge_index is None:
            return self.weights
        source, target = self.ends()
        full = self.weights.new_zeros(self.queries, self.keys, self.weights.size(1))
        full.index_put_((target, source), self.weights, accumulate=True)
        return full.permute(2, 0, 1).unsqueeze(0)

    def __matmul__(self, values: Tensor) -> Tensor:
        """``weights @ values`` for ``values [keys, d]`` or ``[batch, keys, d]``: ``[batch, heads, queries, d]``.

        Raises:
            ValueError: values of another number of keys.
        """
        if values.dim() not in (2, 3) or values.size(-2) != self.keys:
            raise ValueError(
                f"values must be [keys, d] or [batch, keys, d] with the {self.keys} keys of the map of {self.module}, "
                f"got {list(values.shape)}"
            )
        if self.edge_index is None:
            return self._behind.times(values)
        return self.dense() @ (values[:, None] if values.dim() == 3 else values).to(self.weights)

    @property
    def output(self) -> Tensor:
        """What the layer made of the weights, ``weights @ V`` before heads are joined: ``[batch, heads, queries, d]``.

        Known while the layer runs, in ``reduce``, of `F.scaled_dot_product_attention`.

        Raises:
            ValueError: it is not known.
        """
        if self.edge_index is not None or self._behind.output is None:
            raise ValueError(f"what {self.module} made of its weights is not known: it calls no scaled dot product")
        return self._behind.output

    def columns(self, groups: Sequence[Tensor]) -> Tensor:
        """What each row puts onto each group of keys, ``sum_{k in group} w(q <- k)``.

        One call of the attention kernel for as many groups as a head is wide, with values that mark the groups.

        Args:
            groups: int64 positions of keys, one tensor a group; they may overlap, leave keys out, or be empty.

        Returns:
            ``[batch, heads, queries, groups]``, at least float32.

        Raises:
            ValueError: a position that the map does not have.

        >>> attention = AttentionMap(torch.tensor([[[[0.5, 0.3, 0.2]]]]), "layer")
        >>> attention.columns([torch.tensor([0]), torch.tensor([1, 2])])
        tensor([[[[0.5000, 0.5000]]]])
        """
        return self @ self._marks(groups)

    def chance(self, groups: Sequence[Tensor]) -> Tensor:
        """What `columns` would be if each row looked at all it may alike, ``|group and allowed| / |allowed|``, float64.

        Raises:
            ValueError: a position that the map does not have; a map along edges.
        """
        if self.edge_index is not None:
            raise ValueError(f"the map of {self.module} runs along edges: it has no groups of keys")
        return self._behind.chance(self._marks(groups))

    def _marks(self, groups: Sequence[Tensor]) -> Tensor:
        """``[keys, groups]``, 1 where a key is of a group.

        Raises:
            ValueError: a position that the map does not have.
        """
        marks = torch.zeros(self.keys, len(groups))
        for i, group in enumerate(groups):
            if len(group) and not 0 <= int(group.min()) <= int(group.max()) < self.keys:
                raise ValueError(
                    f"groups must hold positions of keys of the map of {self.module}, 0 to {self.keys - 1}, "
                    f"got {group.tolist()}"
                )
            marks[group, i] = 1.0
        return marks

    def looked_at(self, reach: Tensor) -> Tensor:
        """``reach @ weights`` in each row of the batch and each head: where ``reach [queries]`` looks.

        Float64 ``[batch, heads, keys]``; only rows of a reach that is not zero are computed.
        """
        if self.edge_index is not None:
            source, target = self.ends()
            passed = reach.to(self.weights.device).double()[target, None] * self.weights
            return passed.new_zeros(self.keys, self.heads).index_add_(0, source, passed).T[None]
        places = reach.nonzero().view(-1)
        found = [
            reach[places[some]].to(weights.device).double() @ weights.double()
            for some, weights in self._behind.part(queries=places).blocks()
        ]
        return torch.stack(found).sum(0)

    def flow_from(self, reach: Tensor) -> Tensor:
        """How much passes through each weight when ``reach [queries]`` looks back: ``reach[q] * weight(q <- k)``.

        Float64 ``[queries, keys]``, or ``[E']`` along edges.
        """
        reach = reach.to(self.weights.device)
        return reach[:, None] * self.mean() if self.edge_index is None else reach[self.ends()[1]] * self.mean()

    def pull(self, reach: Tensor) -> Tensor:
        """``reach @ weights``: where ``reach [queries]`` looks, float64 ``[keys]``; never builds a matrix of edges."""
        return self.looked_at(reach).mean((0, 1))

    def part(
        self,
        rows: Sequence[int] | None = None,
        heads: Sequence[int] | None = None,
        queries: Sequence[int] | None = None,
    ) -> AttentionMap:
        """The map of these rows of the batch, heads and queries alone, in this order; None for all of them.

        Raises:
            ValueError: one that the map does not have; rows or queries of a map along edges.
        """
        sizes = {"rows": (rows, self.batch), "heads": (heads, self.heads), "queries": (queries, self.queries)}
        for what, (asked, there) in sizes.items():
            if asked is not None and not (asked and all(0 <= place < there for place in asked)):
                raise ValueError(
                    f"{what} of the map of {self.module} must be some of 0 to {there - 1}, got {list(asked)}"
                )
        if self.edge_index is not None:
            if rows is not None or queries is not None:
                raise ValueError(f"the map of {self.module} runs along edges: heads alone can be chosen")
            weights = self.weights if heads is None else self.weights[:, list(heads)]
            return AttentionMap(weights, self.module, self.edge_index, self.size, self.flow, self.step, self.branch)
        if rows is None and heads is None and queries is None:
            return self
        source = self._behind.part(rows, heads, None if queries is None else torch.tensor(queries))
        return AttentionMap.recomputed(source, self.module, _of_rows(self.step, rows), _of_rows(self.branch, rows))

    def branches(self) -> dict[str | None, list[int] | None]:
        """The rows of the batch that belong to each guidance branch, in order; None for all of them.

        Raises:
            ValueError: branches of a batch with other rows, as where a layer looks within parts of an image.
        """
        if not isinstance(self.branch, tuple):
            return {self.branch: None}
        if len(self.branch) != self.batch:
            raise ValueError(
                f"the map of {self.module} has {self.batch} rows, and the branch is told of {len(self.branch)}"
            )
        return {
            branch: [row for row, own in enumerate(self.branch) if own == branch]
            for branch in dict.fromkeys(self.branch)
        }

    def row_sums(self) -> Tensor:
        """What each row of each head sums to, flat; rows that may look at nothing are left out."""
        return self._rows.sums[self._rows.counts > 0]

    def deviation(self) -> float:
        """Largest ``|n w - 1|``, ``n`` the number of keys that the row looks at: 0 for uniform attention."""
        rows = self._rows
        some = rows.counts > 0
        ratios = torch.stack([rows.most[some], rows.least[some]]) * rows.counts[some] - 1
        return float(ratios.abs().max()) if ratios.numel() else 0.0

    def widest(self) -> int:
        """The most keys that any row looks at; rows of one key have nothing to choose."""
        count = self._rows.counts
        return int(count.max()) if count.numel() else 0

    @cached_property
    def _rows(self) -> _Rows:
        """Of every row, from one pass over the weights."""
        if self.edge_index is not None:
            return self._rows_of_edges()
        found = [_rows_of(weights) for _, weights in self.blocks()]
        return _Rows(*(torch.cat(parts, -1) for parts in zip(*found, strict=True)))

    def _rows_of_edges(self) -> _Rows:
        weights = self.weights.double()
        target = self.ends()[1]
        rows = target[:, None].expand_as(weights)
        empty = weights.new_zeros(self.queries, weights.size(1))
        return _Rows(
            empty.index_add(0, target, weights),
            empty.index_add(0, target, torch.ones_like(weights)),
            empty.scatter_reduce(0, rows, weights, "amax", include_self=False),
            empty.scatter_reduce(0, rows, weights, "amin", include_self=False),
        )


class _Rows(NamedTuple):
    """Of each row: its sum, the number of keys that it looks at, the largest and the smallest weight; float64."""

    sums: Tensor
    counts: Tensor
    most: Tensor
    least: Tensor


def _rows_of(weights: Tensor) -> _Rows:
    if not weights.size(-1):
        return _Rows(*[weights.new_zeros(weights.shape[:-1]).double()] * 4)
    looked = weights > 0
    least = weights.masked_fill(~looked, torch.inf).amin(-1).double()
    return _Rows(weights.sum(-1, dtype=torch.float64), looked.sum(-1).double(), weights.amax(-1).double(), least)


def _of_rows(told: Any, rows: Sequence[int] | None) -> Any:
    """A label of these rows: one where they agree."""
    if rows is None or not isinstance(told, tuple):
        return told
    some = tuple(told[row] for row in rows)
    return some[0] if len(set(some)) == 1 else some
