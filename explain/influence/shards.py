"""Influence over training sets of any size: one solution, then scores shard by shard, kept on disk."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from explain.doubts import doubt
from explain.influence.curvature import Curvature
from explain.influence.scores import SHARED, along_and_norms, directional, separate
from explain.influence.solvers.solution import Solution
from explain.parallel import Store, fingerprint, run
from explain.parallel.digest import Digest, shown
from explain.parallel.store import Tensors, load_record, save_tensors
from explain.types import Objective, Parameters, Players
from explain.versions import versions

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Shards:
    """Where what is computed of a large training set is kept, how many examples a file, and who computes it.

    Nothing is computed twice: after any end, ``kill -9`` included, the same question goes on from the folder. It is
    that of one question: another model, training set, measurement or setting is refused.

    Args:
        folder: made where it is missing; one a question.
        size: examples a shard. Only a batch of them is in memory at a time.
        client: a ``distributed.Client`` (the extra ``cluster``), best with one thread a worker; this process when None.

    Raises:
        ValueError: a size below 1.
        TypeError: no folder.
    """

    folder: str | os.PathLike[str]
    size: int = 4096
    client: Client | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not isinstance(self.folder, (str, os.PathLike)):
            raise TypeError(f"folder must be a path, got {type(self.folder).__name__}")
        if isinstance(self.size, bool) or not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"size must be an int of at least 1, got {self.size!r}")

    def question(
        self, objective: Objective, module: nn.Module, settings: Mapping[str, Any], values: Sequence[float], b: Tensor
    ) -> Question:
        """What the folder holds for this model, training set, settings and numbers, with their gradients ``b [p, k]``.

        Raises:
            Stale: the folder is that of another question.
            Undigestable: something that the answer hangs on has no content to compare.
        """
        near = {"the number's value": values, "the number's gradient": _sketch(b)}
        key = {**self.key(objective, module, settings), "the number": _asked(objective)}
        return Question(objective, self, key, near)

    def key(self, objective: Objective, module: nn.Module, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What shards depend on, whatever number is asked: model, training set, loss, settings and libraries."""
        return {
            "model": fingerprint(module, objective.params),
            "training set": training_set(objective),
            "weight decay": objective.weight_decay,
            "loss": fingerprint(getattr(objective, "loss_of", None), getattr(objective, "link", None)),
            "outputs": _asked(getattr(objective, "predict", None)),
            "versions": versions(),
            "settings": shown({**settings, "size": self.size}),
        }


class Solved(NamedTuple):
    """A solution, what is said about it and the products that it took; with the means to go on where it is fresh.

    ``doubts`` are the warnings that were given on the way.
    """

    solution: Solution
    checks: dict[str, Any]
    products: int
    A: Curvature | None = None
    inverse: Callable[[Tensor], Solution] | None = None
    doubts: tuple[str, ...] = ()


class Question:
    """One question to a training set, and what was already found for it on disk."""

    def __init__(
        self, objective: Objective, shards: Shards, key: Mapping[str, Any], near: Mapping[str, Sequence[float]]
    ) -> None:
        self.objective, self.shards, self.key, self.near = objective, shards, key, near
        self.solutions = Store(shards.folder, key, near, name="solution", save=_save, load=_load)

    def solved(self, solve: Callable[[], Solved]) -> Solved:
        """The solution on disk, or the one that ``solve`` finds, which is put there; its warnings are said again."""
        found = run(lambda _: _heard(solve), [0], store=self.solutions)[0]
        for said in found.doubts:
            doubt(said)
        device = next(iter(self.objective.params.values())).device
        tensors: dict[str, Any] = {name: value.to(device) for name, value in _tensors(found.solution).items()}
        return found._replace(solution=dataclasses.replace(found.solution, **tensors))

    def directional(self, directions: Tensor, progress: bool = False) -> Tensor:
        """As `scores.directional`, ``[p]`` or ``[p, k] -> [n]`` or ``[n, k]``, shard by shard."""
        return self._scored(Scored(self.objective, directions, self.shards.size), progress)[0]

    def along_and_norms(self, directions: Tensor, progress: bool = False) -> tuple[Tensor, Tensor | None]:
        """As `scores.along_and_norms`, shard by shard."""
        return self._scored(Scored(self.objective, directions, self.shards.size, norms=True), progress)

    def _scored(self, task: Scored, progress: bool) -> tuple[Tensor, Tensor | None]:
        name = fingerprint(task.directions, task.norms)[:8]
        store: Store[Tensors] = Store(self.shards.folder, self.key, self.near, name=name)
        starts = range(0, self.objective.size, self.shards.size)
        found = run(
            task, starts, store=store, client=self.shards.client, progress=progress, description="shards of scores"
        )
        along, norms = (
            torch.cat([part[what] for part in found]).to(task.directions.device) if what in found[0] else None
            for what in ("along", "norms")
        )
        assert along is not None  # every shard has it
        return along, norms


@dataclass(frozen=True, eq=False)
class Scored:
    """The task of one shard: ``grad loss_i . d`` of the examples from ``start`` on, ``{"along": [m] or [m, k]}``.

    With ``norms`` also ``|grad loss_i|``, ``{"norms": [m]}``, where the whole has them.
    """

    objective: Objective
    directions: Tensor
    size: int
    norms: bool = False

    def __call__(self, start: int) -> Tensors:
        """One shard's."""
        part = Part(self.objective, start, min(start + self.size, self.objective.size))
        if self.norms and (self.objective.size <= SHARED or separate(self.objective)):
            along, norms = along_and_norms(part, self.directions)
            if norms is not None:
                return {"along": along.cpu(), "norms": norms.cpu()}
        return {"along": directional(part, self.directions).cpu()}


@dataclass(frozen=True, eq=False)
class Part:
    """An objective of which only the examples from ``start`` to ``stop`` are passed through; it is an Objective too."""

    whole: Objective
    start: int
    stop: int

    @property
    def params(self) -> Parameters:
        """Of the whole."""
        return self.whole.params

    @property
    def players(self) -> Players:
        """Of the whole."""
        return self.whole.players

    @property
    def weight_decay(self) -> float:
        """Of the whole."""
        return self.whole.weight_decay

    @property
    def convex(self) -> bool:
        """Of the whole."""
        return self.whole.convex

    @property
    def local(self) -> bool:
        """Of the whole."""
        return self.whole.local

    @property
    def size(self) -> int:
        """Examples of this part."""
        return self.stop - self.start

    def batches(self, batch_size: int | None = None, generator: torch.Generator | None = None) -> Iterator[Tensor]:
        """Positions in the whole, no more at a time than it takes together."""
        first = next(iter(self.whole.batches(batch_size)))
        order = torch.arange(self.size) if generator is None else torch.randperm(self.size, generator=generator)
        yield from (order + self.start).to(first.device).split(len(first))

    def outputs(self, params: Parameters, batch: Tensor) -> Tensor:
        """Of the whole."""
        return self.whole.outputs(params, batch)

    def loss(self, outputs: Tensor, batch: Tensor) -> Tensor:
        """Of the whole."""
        return self.whole.loss(outputs, batch)

    def train_loss(self, params: Parameters, batch: Tensor) -> Tensor:
        """Of the whole."""
        return self.whole.train_loss(params, batch)

    def measurement(self, params: Parameters) -> Tensor:
        """Of the whole."""
        return self.whole.measurement(params)

    def edited(self, player: int) -> Objective:
        """The whole without a player."""
        return self.whole.edited(player)


def training_set(objective: Objective) -> str:
    """The fingerprint of the training examples; of an objective that cannot say, that of its outputs and losses."""
    digest = Digest()
    content = getattr(objective, "content", None)
    pieces = content() if content is not None else _measured(objective)
    digest.add(objective.size)
    for piece in pieces:
        digest.add(piece)
    return digest.hex()


def _asked(thing: Any) -> str:
    """A fingerprint without the data sets, which `training_set` has read."""
    digest = Digest(beside=(Dataset, DataLoader))
    digest.add(thing)
    return digest.hex()


def _measured(objective: Objective) -> Iterator[Tensor]:
    with torch.no_grad():
        for batch in objective.batches():
            outputs = objective.outputs(objective.params, batch)
            yield from (outputs, objective.loss(outputs, batch))


def _sketch(gradients: Tensor) -> list[float]:
    """A few numbers that no two gradients share: their norms and four fixed projections of each."""
    generator = torch.Generator().manual_seed(0)
    columns = gradients.detach().cpu().double().reshape(len(gradients), -1)
    directions = torch.randn(len(columns), 4, generator=generator, dtype=torch.float64)
    return [*columns.norm(dim=0).tolist(), *(directions.T @ columns).reshape(-1).tolist()]


def _heard(solve: Callable[[], Solved]) -> Solved:
    """What ``solve`` finds, with what it warned of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = solve()
    return found._replace(doubts=tuple(str(one.message) for one in said if issubclass(one.category, UserWarning)))


def _tensors(solution: Solution) -> dict[str, Tensor]:
    fields = {f.name: getattr(solution, f.name) for f in dataclasses.fields(solution)}
    return {name: value for name, value in fields.items() if isinstance(value, Tensor)}


def _save(solved: Solved, path: Path) -> None:
    tensors = _tensors(solved.solution)
    names = {f.name for f in dataclasses.fields(solved.solution)} - set(tensors)
    rest = {name: getattr(solved.solution, name) for name in sorted(names)}
    save_tensors(
        tensors, path, {"solution": rest, "checks": solved.checks, "products": solved.products, "doubts": solved.doubts}
    )


def _load(path: Path) -> Solved:
    tensors, record = load_record(path)
    fields: dict[str, Any] = {**tensors, **record["solution"]}
    return Solved(Solution(**fields), record["checks"], record["products"], doubts=tuple(record["doubts"]))
