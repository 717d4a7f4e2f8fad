"""Training examples of a data set too large for memory: read by position, a batch at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate

from explain.guard import other_random_states, random_states_kept
from explain.loaders import positions_of

Columns: TypeAlias = tuple[Tensor, ...]  # each [m, ...], one row an example
HELD = 2**28  # bytes of a data set that are simply kept in memory
READ = 2**25  # bytes of one batch, about
STREAMED = 2**18  # examples of a stream, which may have no end
PROBED = 4  # examples that are read twice, to see that a data set gives the same each time


def pair(batch: Any) -> Columns:
    """Inputs and labels of a collated batch.

    Raises:
        TypeError: it is no pair of tensors.
    """
    if isinstance(batch, (tuple, list)):
        check_parts(batch)
    if not isinstance(batch, (tuple, list)) or len(batch) < 2 or not all(isinstance(p, Tensor) for p in batch):
        raise TypeError(f"a training set gives pairs (input, label) of tensors or numbers, got {_no_pair(batch)}")
    return batch[0], batch[1]


def _no_pair(batch: Any) -> str:
    """What came instead of a pair; of rows with names, how a pair is made of each."""
    if isinstance(batch, Mapping):
        names = [*map(repr, batch), *(["..."] if len(batch) < 2 else [])]
        return (
            f"a mapping of {', '.join(map(str, batch))}: say which is which, DataLoader(dataset, collate_fn=lambda "
            f"rows: torch.utils.data.default_collate([(row[{names[0]}], row[{names[-1]}]) for row in rows]))"
        )
    if isinstance(batch, Tensor):
        return f"a tensor {list(batch.shape)}, inputs without labels: give (inputs, labels)"
    if isinstance(batch, (tuple, list)):
        return f"{type(batch).__name__} of {[type(part).__name__ for part in batch][:4]}"
    return type(batch).__name__


def check_parts(batch: Sequence[Any]) -> None:
    """Check that an example is a pair at most: what a third part would do in the loss is not for us to guess.

    Raises:
        TypeError: it has more parts; with the remedy.
    """
    if len(batch) > 2:
        raise TypeError(
            f"a training set gives pairs (input, label), and each example of this one has {len(batch)} parts: if the "
            "third is its weight in the loss, give it as a column of the label, with a loss=lambda outputs, labels: "
            "... that uses it; else leave it out"
        )


class Examples:
    """A map-style data set, read and collated at the positions that are asked for.

    Args:
        dataset: has a length, and an example for each position; ``__getitems__`` is used where it has one, as
            DataLoader does.
        collate: from a list of examples to a batch.
        columns: from a batch to its tensors, each with one row an example.
        positions: int64 ``[n]``, which of its examples, all when None; ``read`` counts through these.

    Raises:
        ValueError: it is empty, or gives another example when asked again, as random augmentation does, or when
            collated with others.
        TypeError: its batches have no such columns.
    """

    found = ("_last",)  # follows from the rest

    def __init__(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any] = default_collate,
        columns: Callable[[Any], Columns] = pair,
        positions: Tensor | None = None,
    ) -> None:
        self.dataset, self.collate, self.columns, self.positions = dataset, collate, columns, positions
        self._last: tuple[list[int], Columns] | None = None
        if not len(self):
            raise ValueError("the training set is empty")
        first = self._probed()
        self.row_bytes = sum(part[0].nbytes for part in first)
        self.width = len(first)

    def _probed(self) -> Columns:
        """A few examples, the same when asked again and when each is read alone.

        Raises:
            ValueError: they are not.
        """
        probed = list(range(min(PROBED, len(self))))
        with random_states_kept():
            first, alone = self._fetch(probed), [self._fetch([at]) for at in probed]
        with other_random_states(1):
            again = self._fetch(probed)
        if not all(torch.equal(a, b) for a, b in zip(first, again, strict=True)):
            raise ValueError(
                "the training set gives another example each time it is asked: turn its random augmentation off, as "
                "influence is that of fixed examples"
            )
        if not all(torch.equal(a[at : at + 1], b) for at in probed for a, b in zip(first, alone[at], strict=True)):
            raise ValueError(
                "collate_fn gives an example another form beside others than alone (padded, sorted, packed or cut): "
                "pad all to one length, and let it give one row an example in their order"
            )
        return first

    def __len__(self) -> int:
        return len(self.dataset) if self.positions is None else len(self.positions)

    def read(self, positions: Sequence[int]) -> Columns:
        """The columns at these positions; the last batch is remembered, as it is asked for again and again."""
        wanted, last = list(positions), self._last
        if last is None or last[0] != wanted:
            with random_states_kept():
                last = self._last = (wanted, self._fetch(wanted))
        return last[1]

    def batches(self) -> Iterator[Columns]:
        """Everything once, in order, a batch at a time."""
        rows = max(1, READ // max(self.row_bytes, 1))
        for start in range(0, len(self), rows):
            yield self.read(range(start, min(start + rows, len(self))))

    def _fetch(self, positions: list[int]) -> Columns:
        if self.positions is not None:
            positions = self.positions[positions].tolist()
        many = getattr(self.dataset, "__getitems__", None)
        batch = self.collate(many(positions) if many else [self.dataset[at] for at in positions])
        return tuple(part.detach() for part in self.columns(batch))

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

    def __init__(self, examples: Examples, column: int) -> None:
        self.examples, self.column = examples, column
        first = examples.read([0])[column]
        self.dtype, self.device = first.dtype, first.device
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

    def to(self, device: torch.device, dtype: torch.dtype) -> Rows:
        """The same rows, brought there as they are read."""
        other = self.clone()
        other.device, other.dtype = device, dtype
        return other

    def __getitem__(self, positions: Tensor | slice | int) -> Tensor:
        if isinstance(positions, int):
            return self.at([positions])[0]
        if isinstance(positions, slice):
            wanted = range(*positions.indices(len(self)))
            step = max(1, READ // max(1, self.examples.row_bytes))  # other columns are read along
            return torch.cat([self.at(list(wanted[i : i + step])) for i in range(0, max(1, len(wanted)), step)])
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
                found[i] = self._set[positions[i]].to(found)
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


def pieces(rows: Tensor | Rows) -> Iterator[Tensor]:
    """All rows, in order, as many at a time as memory may hold; equal rows come in equal pieces.

    >>> list(pieces(torch.arange(3)))
    [tensor([0, 1, 2])]
    """
    if isinstance(rows, Tensor) and (rows.layout != torch.strided or not rows.numel() or not rows.dim()):
        yield rows
        return
    size = READ // max(1, rows[0].nbytes) + 1
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class Read(NamedTuple):
    """A training set as it was read: its columns, one row an example, or how to read them; and where these stand.

    ``positions``: int64 ``[n]``, in the data set that was given.
    """

    columns: Examples | tuple[Any, ...]
    positions: Tensor


def examples_of(train: Any, columns: Callable[[Any], Columns] = pair) -> Read:
    """A data set, or what a loader gives of it, in its own order: whole where it is small, else read by position.

    Raises:
        ValueError: empty, not repeatable, or larger than memory may hold and not map-style; see `positions_of` too.
        TypeError: batches without such columns.
    """
    loader = train if isinstance(train, DataLoader) else None
    dataset: Any = train if loader is None else loader.dataset
    if isinstance(dataset, IterableDataset):
        return _all(_streamed(DataLoader(train, batch_size=256) if loader is None else loader, columns))
    positions = torch.arange(len(dataset)) if loader is None else positions_of(loader)
    if loader is not None and loader.batch_sampler is None and loader.batch_size is None:  # items are batches
        return _all(columns(loader.collate_fn(dataset[at])) for at in positions.tolist())
    examples = Examples(dataset, default_collate if loader is None else loader.collate_fn, columns, positions)
    if len(examples) * examples.row_bytes > HELD:
        return Read(examples, positions)
    return Read(_collated(examples.batches()), positions)


def _all(batches: Iterator[Columns]) -> Read:
    found = _collated(batches)
    return Read(found, torch.arange(len(found[0])))


def _streamed(batches: DataLoader[Any], columns: Callable[[Any], Columns]) -> Iterator[Columns]:
    """What can only be read from end to end, as long as it stays small.

    Raises:
        ValueError: more than is kept in memory.
    """
    size = count = 0
    with random_states_kept():  # a DataLoader draws a seed even where it does not shuffle
        for batch in batches:
            found = columns(batch)
            size += sum(part.nbytes for part in found)
            count += len(found[0])
            if size > HELD or count > STREAMED:
                raise ValueError(
                    f"an IterableDataset has no positions to come back to, so it must fit in memory ({HELD >> 20} MiB "
                    f"and {STREAMED} examples at most), and this one does not end before: give a map-style Dataset "
                    "(__len__ and __getitem__), or tensors"
                )
            yield found


def _collated(batches: Iterator[Columns]) -> Columns:
    found = list(batches)
    if not found:
        raise ValueError("the training set is empty")
    if not all(part.dim() for part in found[0]):
        raise ValueError(
            "the batches of this DataLoader (batch_size=None: items as they are) have no rows, one an example: give "
            "the data set itself"
        )
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))
