"""TRAK: influence in a random projection of the gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from explain.explainer import Answer, Explainer
from explain.influence.checkpoints import At, Checkpoint, Feature, at_checkpoint, checked_checkpoints
from explain.influence.chosen import TRAINABLE, Choice, checked_choice
from explain.influence.features import Features, KeptFeatures
from explain.influence.projection import Projection
from explain.influence.scores import measured_gradient
from explain.influence.shards import Shards
from explain.influence.together import Together, is_damping, objectives_of
from explain.parallel import Store, fingerprint
from explain.parallel.store import Tensors
from explain.progress import in_sight
from explain.spelling import came
from explain.types import NonFinite, Objective, Players, Target

FEATURES: dict[str, Feature | None] = {
    "loss": None,
    "margin": lambda outputs, losses: -losses.double().expm1().log(),
    "norm": lambda outputs, losses: outputs.square().flatten(1).mean(1),
}
KEPT = ("features", "gram")  # by their names in a folder
FLOOR = 1e-3  # of the largest eigenvalue: what "auto" damps with


@dataclass(frozen=True)
class Trak(Together, Explainer):
    """``score_i = (1/n) phi_f^T (K + damping I)^-1 phi_i w_i`` (Park et al. 2023).


        phi_f = P^T grad f,   phi_i = P^T grad F_i,   K = (1/n) sum_i phi_i phi_i^T   [dimensions, dimensions]

    ``P`` is a random projection, which is never stored, and ``F_i`` says what the gradients are of. Two passes over the
    training set, of which no more than a batch of gradients is held. Over several checkpoints, models trained alike
    from other seeds as a rule, ``w_i`` and the rest are averaged each by itself, with a projection of their own.

    Not for: amounts that must hold: the projection and a single checkpoint leave noise, which more of either
    lowers.

    Args:
        dimensions: of the projection; None, or no fewer than the parameters, for none.
        checkpoints: states of the model, as for `TracIn`; the model as it is when None.
        features: "loss", each example's loss with ``w_i = -1``: influence with the empirical Fisher matrix; "margin",
            ``log p/(1 - p)`` of a cross-entropy ``-log p`` with ``w_i = 1 - p``, the paper's for classifiers; "norm",
            the mean square of the outputs, ``w_i = -1``; or a function of the outputs, ``[examples, ...] ->
            [examples]``. D-TRAK is an explainer of its own, `DTrak`.
        damping: added to ``K``; "auto" is a thousandth of its largest eigenvalue.
        train: as for `Influence`.
        parameters: as for `Influence`.
        shards: a folder in which the projected gradients are kept as they are made, shard by shard, in the model's
            precision: for large training sets, on a cluster where it names one, resumed after any end. Other numbers
            and dampings are answered from there without a gradient of any training example. It needs a seed.
        seed: of the projections.
        progress: a bar where it takes more than five seconds.

    ``checks`` have the dimensions, the damping of each checkpoint, and ``distortion``: by how much the projection
    changed the length of the number's gradient, relative.

    Raises:
        ValueError: unknown settings, checkpoints of another model, or a singular ``K`` without damping.
        TypeError: checkpoints that are neither state dictionaries nor paths.
        NonFinite: NaN or infinity in a gradient, as the margin of an example of probability 1 has.
        Stale: the folder of the shards is of another model, training set, seed, or other features.
        ClusterLost: the cluster of the shards is gone; what was finished is kept.
    """

    dimensions: int | None = 1024
    checkpoints: Sequence[Checkpoint] | None = None
    features: str | Callable[[Tensor], Tensor] = "loss"
    damping: str | float = "auto"
    train: Any = None
    parameters: Choice = TRAINABLE
    shards: Shards | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True

    of_the_number: ClassVar[bool] = True  # the gradient asked for is that of the number itself

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", checked_choice(self.parameters))
        checked_checkpoints(self.checkpoints)
        if self.dimensions is not None and self.dimensions < 1:
            raise ValueError(f"dimensions must be at least 1 or None, got {self.dimensions}")
        if not callable(self.features) and self.features not in FEATURES:
            raise ValueError(
                f"features must be one of {', '.join(FEATURES)} or a function, {came(self.features, FEATURES)}"
            )
        if not is_damping(self.damping):
            raise ValueError(f"damping must be auto or a number of at least 0, got {self.damping!r}")
        if self.shards is not None and not isinstance(self.shards, Shards):
            raise TypeError(f"shards must be Shards(folder) or None, got {type(self.shards).__name__}")
        if self.shards is not None and not isinstance(self.seed, int):
            raise ValueError("shards need a seed, such as seed=0: all of them share one projection")

    def _answers(self, targets: Sequence[Target], generator: torch.Generator) -> list[Answer]:
        self.check(targets)
        objectives = objectives_of(targets, self.train, parameters=self.parameters)
        bases = self.bases(objectives[0], targets[0].module, generator)
        numbers, columns = self.asked(bases, objectives)
        return self.answers(bases, targets, [one.players for one in objectives], numbers, columns)

    def check(self, targets: Sequence[Target]) -> None:
        """Check that these numbers may be asked; any may."""

    def bases(self, objective: Objective, module: nn.Module, generator: torch.Generator) -> list[Basis]:
        """All that is known of the training set, whatever number is asked, for each checkpoint.

        Raises:
            Stale: the folder is of another run.
            NonFinite: NaN or infinity in a gradient.
            ValueError: a singular kernel.
        """
        states: Sequence[Checkpoint | None] = self.checkpoints or [None]
        key = None if self.shards is None else self._key(objective, module, states)
        found = []
        for t, state in enumerate(in_sight(states, desc="checkpoints", progress=self.progress)):
            seed = int(torch.randint(2**48, (1,), generator=generator))
            found.append(self._basis(objective, state, seed, None if key is None else (key, t)))
        return found

    def asked(self, bases: Sequence[Basis], objectives: Sequence[Objective]) -> tuple[list[float], list[Tensor]]:
        """The numbers, and the gradients ``[p, k]`` of what stands for them, at each checkpoint."""
        points = [[at_checkpoint(objective, basis.state) for objective in objectives] for basis in bases]
        columns = [torch.stack([measured_gradient(self._question(one))[1] for one in each], 1) for each in points]
        with torch.no_grad():
            return [float(objective.measurement(objective.params)) for objective in objectives], columns

    def answers(
        self,
        bases: Sequence[Basis],
        targets: Sequence[Target],
        players: Sequence[Players],
        numbers: Sequence[float],
        columns: Sequence[Tensor],
    ) -> list[Answer]:
        """The scores for each number, with its gradients ``[p, k]`` at each checkpoint.

        Raises:
            NonFinite: NaN or infinity in a gradient.
        """
        found = [basis.along(each) for basis, each in zip(bases, columns, strict=True)]
        weights = torch.stack([basis.weights for basis in bases]).mean(0)
        scores = torch.stack([products for products, _ in found]).mean(0) * weights[:, None]
        size = len(weights)
        return [
            Answer(
                scores=scores[:, k],
                players=own,
                value=number,
                base=None,
                checks={
                    "dimensions": len(bases[0].factor),
                    "damping": [basis.damping for basis in bases],
                    "distortion": [distortion[k] for _, distortion in found],
                },
                calls=len(bases) * (2 * size + 1),
            )
            for k, (own, number) in enumerate(zip(players, numbers, strict=True))
        ]

    def _key(self, objective: Objective, module: nn.Module, states: Sequence[Checkpoint | None]) -> dict[str, Any]:
        """What a folder of features is of."""
        assert self.shards is not None
        settings = {name: getattr(self, name) for name in ("dimensions", "features", "seed")}
        key = self.shards.key(objective, module, settings)
        points = (at_checkpoint(objective, state) for state in states)
        key["checkpoints"] = [fingerprint(point.params, point.constants) for point in points]
        return key | {"examples": objective.size, "kept as": str(next(iter(objective.params.values())).dtype)}

    def _basis(
        self, objective: Objective, state: Checkpoint | None, seed: int, kept: tuple[dict[str, Any], int] | None
    ) -> Basis:
        """One checkpoint's.

        Raises:
            NonFinite: NaN or infinity in a gradient.
            ValueError: a singular kernel.
        """
        own = at_checkpoint(objective, state)
        plain = getattr(objective, "unlinked", objective)  # features are of the model's own outputs
        featured = replace(own, objective=plain, feature=self._feature())
        size = sum(p.numel() for p in own.params.values())
        projection = Projection(size, size if self.dimensions is None else self.dimensions, seed)
        features = Features(own, featured, projection)
        if self.shards is not None and kept is not None:
            rows, gram = (Store[Tensors](self.shards.folder, kept[0], name=f"{what}-{kept[1]}") for what in KEPT)
            features = KeptFeatures(own, featured, projection, self.shards, rows, gram, self.progress)
        kernel = features.gram()
        if not kernel.isfinite().all():
            raise NonFinite("a gradient holds NaN or infinity: check the training data, or use features='loss'")
        damping = FLOOR * float(torch.linalg.eigvalsh(kernel)[-1]) if self.damping == "auto" else float(self.damping)
        kernel.diagonal().add_(damping)
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if failed:
            raise ValueError(
                f"the kernel of {own.size} gradients in {len(kernel)} dimensions is singular: give damping='auto' or "
                "above 0, or fewer dimensions than examples"
            )
        weights = -torch.ones(own.size, dtype=torch.float64, device=kernel.device)
        if self.features == "margin":
            weights = -(-features.losses()).expm1()  # 1 - p
        return Basis(state, features, factor, damping, weights)

    def _question(self, point: At) -> At:
        """The objective whose number is explained."""
        return point

    def _feature(self) -> Feature | None:
        if isinstance(self.features, str):
            return FEATURES[self.features]
        given = self.features

        def feature(outputs: Tensor, losses: Tensor) -> Tensor:
            found = given(outputs)
            if not isinstance(found, Tensor) or found.shape != losses.shape:
                got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise ValueError(f"features must give one number an example, [{len(losses)}], got {got}")
            return found

        return feature


@dataclass(frozen=True, eq=False)
class Basis:
    """One checkpoint: the features of the training set, the factor of ``K + damping I``, and the weights ``w [n]``."""

    state: Checkpoint | None
    features: Features
    factor: Tensor
    damping: float
    weights: Tensor

    def along(self, gradients: Tensor) -> tuple[Tensor, list[float]]:
        """``(1/n) phi_f^T (K + damping I)^-1 phi_i`` for ``gradients [p, k]``, ``[n, k]``, and each one's distortion.

        Raises:
            NonFinite: NaN or infinity in a gradient.
        """
        asked = self.features.projection.down(gradients.T).T
        if not asked.isfinite().all():
            raise NonFinite("the gradient of the number holds NaN or infinity: check what is asked")
        products = self.features.along(torch.cholesky_solve(asked, self.factor)) / len(self.weights)
        distortion = (asked.norm(dim=0) / gradients.norm(dim=0).clamp_min(1e-300) - 1).abs()
        return products, distortion.tolist()
