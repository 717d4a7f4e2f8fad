"""Which examples a DataLoader trains on: those that its sampler and its batches give in one epoch, and in every one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, DistributedSampler

from explain.guard import other_random_states

_GIVE = "Give those that were trained on: (inputs, labels), or torch.utils.data.Subset(dataset, positions)"


def positions_of(loader: DataLoader[Any]) -> Tensor:
    """Positions in the data set of one epoch, int64 ``[n]``, in ascending order.

    Read from the sampler and its batches as training reads them, twice with other random states. These, and those of
    the sampler's own generators, are put back.

    >>> from torch.utils.data import SubsetRandomSampler, TensorDataset
    >>> data = TensorDataset(torch.arange(9))
    >>> positions_of(DataLoader(data, batch_size=2, sampler=SubsetRandomSampler([5, 3, 8])))
    tensor([3, 5, 8])

    Raises:
        ValueError: the examples are others in the next epoch, as with a random ``drop_last``; one comes more than once
            in an epoch; or they are a part of what several processes train on.
        TypeError: a sampler that gives something else than positions.
    """
    if isinstance(loader.sampler, DistributedSampler) and loader.sampler.num_replicas > 1:
        raise ValueError(
            f"this DataLoader gives the part of one process of {loader.sampler.num_replicas}, and the model was "
            "trained on those of all: give the data set itself"
        )
    if getattr(loader.sampler, "replacement", False):
        raise ValueError(f"this DataLoader draws with replacement: others in every epoch, some more than once. {_GIVE}")
    with _as_before(loader, loader.sampler, loader.batch_sampler):
        first, again = (_epoch(loader, seed) for seed in range(2))
    if len(first.unique()) < len(first):
        raise ValueError(
            "this DataLoader gives an example more than once in an epoch (a sampler with replacement, with repeats or "
            f"without an end), so that its weight in the loss is not that of the others. {_GIVE}"
        )
    if not torch.equal(first.sort().values, again.sort().values):
        raise ValueError(
            "this DataLoader gives other examples in every epoch (drop_last of a shuffled set, or a random sampler of "
            f"a part). {_GIVE}"
        )
    return first.sort().values


def _epoch(loader: DataLoader[Any], seed: int) -> Tensor:
    sampler: Any = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    with other_random_states(seed):
        given = iter(sampler) if loader.batch_sampler is None else chain.from_iterable(sampler)
        found = list(islice(given, len(loader.dataset) + 1))  # type: ignore[arg-type]
    if not all(isinstance(at, int) or (isinstance(at, Tensor) and not at.dim()) for at in found):
        raise TypeError(
            "the sampler of a training set gives whole numbers, positions in it, got "
            f"{type(found[0]).__name__}. {_GIVE}"
        )
    return torch.tensor([int(at) for at in found], dtype=torch.long)


@contextmanager
def _as_before(*parts: Any) -> Iterator[None]:
    """After: the attributes of these, and the states of the generators among them, as before."""
    held = [(part, dict(vars(part))) for part in parts if hasattr(part, "__dict__")]
    generators = [value for _, own in held for value in own.values() if isinstance(value, torch.Generator)]
    states = [generator.get_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
        for part, own in held:
            vars(part).clear()
            vars(part).update(own)
