"""Training examples of a data set too large for memory: read by position, a batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from explain.guard import other_random_states, random_states_kept

HELD = 2**28  # bytes of a data set that are simply kept in memory
READ = 2**25  # bytes of one batch, about
PROBED = 4  # examples that are read twice, to see that a data set gives the same each time


class Examples:
    """A map-style data set of pairs (input, label), read and collated at the positions that are asked for.

    Args:
        dataset: has a length, and a pair for each position; ``__getitems__`` is used where it has one, as DataLoader
            does.
        collate: from a list of pairs to a batch ``(inputs [m, *shape], labels [m, ...])``.

    Raises:
        ValueError: it is empty, or gives another example when asked again, as random augmentation does.
        TypeError: its items are no pairs of tensors or numbers.
    """

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any] = default_collate) -> None:
        self.dataset, self.collate = dataset, collate
        self._last: tuple[list[int], tuple[Tensor, Tensor]] | None = None
        if not len(self):
            raise ValueError("the training set is empty")
        probed = list(range(min(PROBED, len(self))))
        with random_states_kept():
            first = self._fetch(probed)
        with other_random_states(1):
            again = self._fetch(probed)
        if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
            raise ValueError(
                "the training set gives another example each time it is asked: turn its random augmentation off, as "
                "influence is that of fixed examples"
            )
        self.row_bytes = sum(part[0].nbytes for part in first)

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs and labels at these positions; the last batch is remembered, as it is asked for again and again."""
        wanted = list(positions)
        if self._last is None or self._last[0] != wanted:
            with random_states_kept():
                self._last = (wanted, self._fetch(wanted))
        return self._last[1]

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Everything once, in order, a batch at a time."""
        rows = max(1, READ // max(self.row_bytes, 1))
        for start in range(0, len(self), rows):
            yield self.read(range(start, min(start + rows, len(self))))

    def _fetch(self, positions: list[int]) -> tuple[Tensor, Tensor]:
        many = getattr(self.dataset, "__getitems__", None)
        batch = self.collate(many(positions) if many else [self.dataset[at] for at in positions])
        if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not all(isinstance(p, Tensor) for p in batch[:2]):
            raise TypeError(
                f"a training set gives pairs (input, label) of tensors or numbers, got {type(batch).__name__} of "
                f"{[type(part).__name__ for part in batch][:4] if isinstance(batch, (tuple, list)) else batch!r:.60}"
            )
        return batch[0].detach(), batch[1].detach()

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_last": None}


class Rows:
    """One column of `Examples` that reads like a tensor ``[n, *shape]`` at rows, and holds none of them.

    ``rows[positions]`` may be asked within ``torch.func`` transforms, also where ``vmap`` runs over the positions. Rows
    that are set stand in a copy's own memory: ``clone()``, then ``rows[positions] = ...``.

    >>> from torch.utils.data import TensorDataset
    >>> rows = Rows(Examples(TensorDataset(torch.eye(3), torch.tensor([4, 5, 6]))), 1)
    >>> rows.shape, rows[torch.tensor([2, 0])], len(rows)
    (torch.Size([3]), tensor([6, 4]), 3)
    """

    def __init__(self, examples: Examples, column: int, like: Tensor | None = None) -> None:
        self.examples, self.column = examples, column
        first = examples.read([0])[column]
        self.dtype = first.dtype if like is None else like.dtype
        self.device = first.device if like is None else like.device
        self.shape = torch.Size([len(examples), *first.shape[1:]])
        self._set: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.examples)

    def dim(self) -> int:
        """Dimensions, that of the examples included."""
        return len(self.shape)

    def is_floating_point(self) -> bool:
        """Whether these are real numbers."""
        return self.dtype.is_floating_point

    def __getitem__(self, positions: Tensor | int) -> Tensor:
        if isinstance(positions, int):
            return self.at([positions])[0]
        if positions.dtype == torch.bool:
            positions = positions.nonzero().view(-1)
        return _Read.apply(positions, self)

    def __setitem__(self, positions: Tensor, rows: Tensor) -> None:
        self._set.update(zip(positions.tolist(), rows.to(self.device, self.dtype), strict=True))

    def at(self, positions: list[int]) -> Tensor:
        """The rows at these positions, ``[m, *shape]``, on the model's device."""
        found = self.examples.read(positions)[self.column].to(self.device, self.dtype)
        changed = [i for i, position in enumerate(positions) if position in self._set]
        if changed:
            found = found.clone()
            for i in changed:
                found[i] = self._set[positions[i]]
        return found

    def clone(self) -> Rows:
        """The same rows, of which some may be set."""
        other = copy.copy(self)
        other._set = dict(self._set)
        return other


class _Read(torch.autograd.Function):
    """Positions to rows: constant, and known to ``vmap``, which a loop over positions could not enter."""

    @staticmethod
    def forward(positions: Tensor, rows: Rows) -> Tensor:
        found = rows.at(positions.reshape(-1).tolist())
        return found.reshape(*positions.shape, *found.shape[1:])

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], positions: Tensor, rows: Rows) -> tuple[Tensor, int]:
        assert in_dims[0] is not None  # vmap calls this for batched positions only
        return _Read.apply(positions.movedim(in_dims[0], 0), rows), 0


def examples_of(train: Dataset[Any] | DataLoader[Any]) -> Examples | tuple[Tensor, Tensor]:
    """A data set, or that of a loader, in its own order: collated whole where it is small, else read by position.

    Raises:
        ValueError: empty, not repeatable, or larger than memory may hold and not map-style.
        TypeError: items that are no pairs.
    """
    dataset = train.dataset if isinstance(train, DataLoader) else train
    if isinstance(dataset, IterableDataset):
        return _collated(_pairs(train if isinstance(train, DataLoader) else DataLoader(train, batch_size=256)))
    collate = train.collate_fn if isinstance(train, DataLoader) else default_collate
    examples = Examples(dataset, collate)
    if len(examples) * examples.row_bytes > HELD:
        return examples
    return _collated(examples.batches())


def _pairs(batches: DataLoader[Any]) -> Iterator[tuple[Tensor, Tensor]]:
    """What can only be read from end to end, as long as it stays small.

    Raises:
        ValueError: more than is kept in memory.
    """
    size = 0
    with random_states_kept():  # a DataLoader draws a seed even where it does not shuffle
        for batch in batches:
            size += batch[0].nbytes + batch[1].nbytes
            if size > HELD:
                raise ValueError(
                    f"an IterableDataset has no positions to come back to, so it must fit in memory ({HELD >> 20} MiB "
                    "at most), and this one does not: give a map-style Dataset (__len__ and __getitem__), or tensors"
                )
            yield batch[0], batch[1]


def _collated(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    pairs = list(batches)
    if not pairs:
        raise ValueError("the training set is empty")
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
