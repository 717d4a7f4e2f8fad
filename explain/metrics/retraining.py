"""Models trained again without some of their examples, and what they say: the truth that `lds` holds scores to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from explain.guard import random_states_kept, untouched
from explain.parallel import Store, fingerprint, run
from explain.parallel.tasks import stream
from explain.types import NonFinite, Parameters, Target, Unsupported

if TYPE_CHECKING:
    from distributed import Client

Train: TypeAlias = Callable[[Tensor, int], Parameters]
SAME = 1e-3  # how far two trainings of one subset may end apart, relative to the largest parameter
ASKED = 64  # questions a shard


def subsets(examples: int, models: int, keep: float = 0.5, *, seed: int = 0) -> Tensor:
    """Random subsets of one size, bool ``[models, examples]``, True where an example is trained on.

    Args:
        examples: in the training set.
        models: how many subsets.
        keep: the share of examples in each.
        seed: of the choice.

    Raises:
        ValueError: a share that keeps none, or all.

    >>> subsets(6, 2).sum(1)
    tensor([3, 3])
    """
    count = round(keep * examples)
    if not 0 < count < examples:
        raise ValueError(f"keep must leave out some of {examples} examples and keep some, got {keep!r}")
    order = torch.rand(models, examples, generator=torch.Generator().manual_seed(seed)).argsort(1)
    return order.argsort(1) < count


def one_out(examples: int, models: int | None = None, *, seed: int = 0) -> Tensor:
    """All examples but one, bool ``[models, examples]``: `lds` over these is the leave-one-out correlation.

    Args:
        examples: in the training set.
        models: how many are left out, one each, at random; every one when None.
        seed: of the choice.

    Raises:
        ValueError: more models than examples.

    >>> one_out(3).sum(1)
    tensor([2, 2, 2])
    """
    models = examples if models is None else models
    if not 0 < models <= examples:
        raise ValueError(f"of {examples} examples between 1 and all are left out, got {models}")
    chosen = torch.randperm(examples, generator=torch.Generator().manual_seed(seed))[:models]
    return ~torch.nn.functional.one_hot(chosen, examples).bool()


class _Shard(NamedTuple):
    """Some subsets, and the seed that they are trained with."""

    first: int
    kept: Tensor
    seed: int


@dataclass(frozen=True, eq=False)
class Retrainings:
    """A model trained again on each subset with each seed: in shards, once, wherever they are computed.

    After any end, ``kill -9`` included, the same call goes on from the folder; that of other subsets or of another
    training is refused. One subset is trained twice, in a shard and by itself, to see that it is deterministic.

    Args:
        train: ``(kept bool [examples], seed) -> parameters by name``, of a model trained on those examples alone; with
            ``together`` above 1 ``(kept [k, examples], seed) -> parameters [k, ...]``, of ``k`` at once. Pure: the
            same each time.
        subsets: bool ``[models, examples]``, see `subsets` and `one_out`.
        seeds: trainings of each subset, with seeds from 0 on: how far they agree says how well any score can do.
        together: models a shard.
        folder: where models and numbers are kept; in memory when None.
        client: a ``distributed.Client`` (the extra ``cluster``); this process when None.
        progress: a bar with the time left, where it takes more than five seconds.

    Raises:
        ValueError: subsets of another shape or none, or counts below 1.

    >>> x, y = torch.arange(6.0)[:, None], torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 9.0])[:, None]
    >>> def train(kept, seed):
    ...     w = (x[kept] * y[kept]).sum() / (x[kept] ** 2).sum()
    ...     return {"weight": w.view(1, 1)}
    >>> again = Retrainings(train, subsets(6, 4))
    >>> import explain
    >>> asked = explain.wrap(torch.nn.Linear(1, 1, bias=False), task="regression", train=(x, y)).example(torch.ones(1))
    >>> again.outcomes([asked]).shape
    torch.Size([1, 4, 1])
    """

    train: Train
    subsets: Tensor
    seeds: int = 1
    together: int = 1
    folder: str | os.PathLike[str] | None = None
    client: Client | None = field(default=None, repr=False)
    progress: bool = True

    def __post_init__(self) -> None:
        kept = self.subsets
        if not isinstance(kept, Tensor) or kept.dtype != torch.bool or kept.dim() != 2 or not kept.any(1).all():
            got = f"{kept.dtype} {list(kept.shape)}" if isinstance(kept, Tensor) else type(kept).__name__
            raise ValueError(f"subsets must be bool [models, examples] with some examples in each, got {got}")
        for name in ("seeds", "together"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")

    def outcomes(self, targets: Sequence[Target], train: Any = None) -> Tensor:
        """What every model says, float64 ``[seeds, models, questions]``; trains those that are not there yet.

        Args:
            targets: the numbers in question, of one model, which stays as it is.
            train: as for `explain.Influence`, where it is not the model's own training set.

        Raises:
            ValueError: parameters of another model.
            Unsupported: two trainings of one subset end apart.
            NonFinite: a training diverged.
            Stale: the folder is that of other trainings.
        """
        measure = _Measure(tuple(targets), train)
        models = self._models()
        store: Store[dict[str, Tensor]] | None = None
        if self.folder is not None:
            about = fingerprint([target.describe() for target in targets], targets)
            store = Store(Path(self.folder, f"numbers-{about[:12]}"), {**self._key, "questions": about})
        tasks = _Tasks(models, range(0, len(targets), ASKED))
        with untouched(targets[0].module, targets[0].trained):
            found = run(measure, tasks, store=store, client=self.client, progress=self.progress, description="asking")
        rows = [torch.cat([part["numbers"] for part in found[at : at + tasks.chunks]], 1) for at in tasks.starts]
        return torch.cat(rows).view(self.seeds, len(self.subsets), len(targets))

    @cached_property
    def _key(self) -> dict[str, Any]:
        return {
            "training": fingerprint(self.train),
            "subsets": fingerprint(self.subsets),
            "seeds": self.seeds,
            "together": self.together,
        }

    def _models(self) -> Sequence[Parameters]:
        """The parameters of every shard, read from disk one at a time where there is a folder."""
        if "_known" not in vars(self):
            object.__setattr__(self, "_known", self._trained())
        return vars(self)["_known"]

    def _trained(self) -> Sequence[Parameters]:
        shards = [
            _Shard(first, kept, seed)
            for seed in range(self.seeds)
            for first, kept in zip(
                range(0, len(self.subsets), self.together), self.subsets.split(self.together), strict=True
            )
        ]
        store = None if self.folder is None else Store[Parameters](self.folder, self._key, name="models")
        task = _Trained(self.train, self.together > 1)
        fresh = store is None or store.read(0) is None
        found: dict[int, Parameters] = {}
        with closing(
            stream(task, shards, store=store, client=self.client, progress=self.progress, description="retraining")
        ) as parts:
            for number, params in parts:
                if fresh and number == 0:
                    self._check_same(params)
                if store is None:
                    found[number] = params
        return _Read(store, len(shards)) if store is not None else [found[number] for number in range(len(shards))]

    def _check_same(self, params: Parameters) -> None:
        """Train the first subset again, by itself.

        Raises:
            Unsupported: it ends elsewhere.
        """
        again = _Trained(self.train, self.together > 1)(_Shard(0, self.subsets[:1], 0))
        largest = max(float(value[0].abs().max()) for value in params.values())
        gap = max(float((again[name][0] - value[0]).abs().max()) for name, value in params.items())
        if not gap <= SAME * largest:
            raise Unsupported(
                f"two trainings of one subset end apart, by {gap:.2g} where parameters reach {largest:.2g}: train must "
                "hang on its arguments alone, with generators made from the seed within it"
            )


@dataclass(frozen=True, eq=False)
class _Trained:
    """The task of a shard: ``parameters [k, ...]``."""

    train: Train
    at_once: bool

    def __call__(self, shard: _Shard) -> Parameters:
        with random_states_kept():
            if self.at_once:
                found = dict(self.train(shard.kept, shard.seed))
            else:
                each = [self.train(kept, shard.seed) for kept in shard.kept]
                found = {name: torch.stack([one[name] for one in each]) for name in each[0]}
        for name, value in found.items():
            if len(value) != len(shard.kept):
                raise ValueError(
                    f"train was given {len(shard.kept)} subsets together and gave {name} {list(value.shape)}: a row "
                    "each, or together=1"
                )
            bad = (~value.detach().flatten(1).isfinite().all(1)).nonzero().view(-1)
            if len(bad):
                raise NonFinite(
                    f"the training of subset {shard.first + int(bad[0])} with seed {shard.seed} diverged: {name} holds "
                    "NaN or infinity"
                )
        return {name: value.detach().cpu() for name, value in found.items()}


@dataclass(frozen=True, eq=False)
class _Read(Sequence[Parameters]):
    """Shards of a store, read when they are asked for."""

    store: Store[Parameters]
    shards: int

    def __len__(self) -> int:
        return self.shards

    def __getitem__(self, number: Any) -> Any:
        found = self.store.read(number)
        if found is None:
            raise OSError(f"shard {number} of the retrained models was lost from {self.store.folder}: call again")
        return found


@dataclass(frozen=True, eq=False)
class _Tasks(Sequence[tuple[Parameters, range]]):
    """Every shard of models with every shard of questions."""

    models: Sequence[Parameters]
    questions: range

    @property
    def chunks(self) -> int:
        """Shards of questions."""
        return len(self.questions)

    @property
    def starts(self) -> range:
        """The first task of each shard of models."""
        return range(0, len(self), self.chunks)

    def __len__(self) -> int:
        return len(self.models) * self.chunks

    def __getitem__(self, number: Any) -> Any:
        start = self.questions[number % self.chunks]
        return self.models[number // self.chunks], range(start, min(start + ASKED, self.questions.stop))


@dataclass(frozen=True, eq=False)
class _Measure:
    """The task of a shard of models and questions: ``{"numbers": [k, q]}``."""

    targets: tuple[Target, ...]
    train: Any

    def __call__(self, task: tuple[Parameters, range]) -> dict[str, Tensor]:
        models, asked = task
        with torch.no_grad():
            own = self._objectives[0].params
            rows = [self._numbers(_named(one, own), asked) for one in _each(models)]
        return {"numbers": torch.stack(rows)}

    @cached_property
    def _objectives(self) -> list[Any]:
        first = self.targets[0].objective(self.train)
        known = getattr(first, "train", None)
        others = self.targets[1:]
        return [first, *(target.objective(self.train if known is None else known) for target in others)]

    def _numbers(self, params: Parameters, asked: range) -> Tensor:
        found = [self._objectives[j].measurement(params).double().cpu() for j in asked]
        return torch.stack(found)


def _each(models: Parameters) -> Iterator[Parameters]:
    for row in range(len(next(iter(models.values())))):
        yield {name: value[row] for name, value in models.items()}


def _named(found: Parameters, own: Parameters) -> Parameters:
    """Parameters by the names that the question has for them, which may stand behind those of the user's module.

    Raises:
        ValueError: they are not those of the model.
    """
    made = {}
    for name, like in own.items():
        known = [each for each in found if name == each or name.endswith(f".{each}")]
        value = found[max(known, key=len)] if known else None
        if value is None or value.shape != like.shape:
            got = "nothing" if value is None else list(value.shape)
            raise ValueError(f"train must give {name} {list(like.shape)} of the model that is asked about, got {got}")
        made[name] = value.to(like)
    return made
