"""TRAK: influence in a random projection of the gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

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
from explain.types import NonFinite, Objective, Target

FEATURES: dict[str, Feature | None] = {
    "loss": None,
    "margin": lambda outputs, losses: -losses.double().expm1().log(),
    "norm": lambda outputs, losses: outputs.square().flatten(1).mean(1),
}
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
        objectives = objectives_of(targets, self.train, parameters=self.parameters)
        states: Sequence[Checkpoint | None] = self.checkpoints or [None]
        stores = self._stores(objectives[0], targets[0].module, states)
        found: list[_Found] = []
        for state, store in zip(in_sight(states, desc="checkpoints", progress=self.progress), stores, strict=True):
            points = [at_checkpoint(objective, state) for objective in objectives]
            found.append(self._at(points, int(torch.randint(2**48, (1,), generator=generator)), store))
        weights = torch.stack([one.weights for one in found]).mean(0)
        scores = torch.stack([one.products for one in found]).mean(0) * weights[:, None]
        answers = []
        for k, objective in enumerate(objectives):
            with torch.no_grad():
                value = float(objective.measurement(objective.params))
            checks = {
                "dimensions": found[0].dimensions,
                "damping": [one.damping for one in found],
                "distortion": [one.distortion[k] for one in found],
            }
            answers.append(
                Answer(
                    scores=scores[:, k],
                    players=objective.players,
                    value=value,
                    base=None,
                    checks=checks,
                    calls=len(states) * (2 * objective.size + 1),
                )
            )
        return answers

    def _stores(
        self, objective: Objective, module: nn.Module, states: Sequence[Checkpoint | None]
    ) -> list[Store[Tensors] | None]:
        """Where the features at each checkpoint are kept, if anywhere.

        Raises:
            Stale: the folder is of another run.
        """
        if self.shards is None:
            return [None] * len(states)
        settings = {name: getattr(self, name) for name in ("dimensions", "features", "seed")}
        key = self.shards.key(objective, module, settings)
        points = (at_checkpoint(objective, state) for state in states)
        key["checkpoints"] = [fingerprint(point.params, point.constants) for point in points]
        return [Store(self.shards.folder, key, name=f"features-{t}") for t in range(len(states))]

    def _at(self, points: Sequence[At], seed: int, store: Store[Tensors] | None) -> _Found:
        """The scores of one checkpoint.

        Raises:
            NonFinite: NaN or infinity in a gradient.
            ValueError: a singular kernel.
        """
        own = points[0]
        plain = getattr(own.objective, "unlinked", own.objective)  # features are of the model's own outputs
        featured = replace(own, objective=plain, feature=self._feature())
        gradients = torch.stack([measured_gradient(self._question(point))[1] for point in points], 1)
        size = len(gradients)
        projection = Projection(size, size if self.dimensions is None else self.dimensions, seed)
        asked = projection.down(gradients.T).T
        features = Features(own, featured, projection)
        if self.shards is not None and store is not None:
            features = KeptFeatures(own, featured, projection, self.shards, store, self.progress)
        kernel = features.gram()
        if not (kernel.isfinite().all() and asked.isfinite().all()):
            raise NonFinite("a gradient holds NaN or infinity: check the training data, or use features='loss'")
        largest = float(torch.linalg.eigvalsh(kernel)[-1]) if self.damping == "auto" else 0.0
        damping = FLOOR * largest if self.damping == "auto" else float(self.damping)
        kernel.diagonal().add_(damping)
        factor, failed = torch.linalg.cholesky_ex(kernel)
        if failed:
            raise ValueError(
                f"the kernel of {own.size} gradients in {len(kernel)} dimensions is singular: give damping='auto' or "
                "above 0, or fewer dimensions than examples"
            )
        products = features.along(torch.cholesky_solve(asked, factor)) / own.size
        weights = -torch.ones(own.size, dtype=torch.float64, device=products.device)
        if self.features == "margin":
            weights = -(-features.losses()).expm1()  # 1 - p
        distortion = (asked.norm(dim=0) / gradients.norm(dim=0).clamp_min(1e-300) - 1).abs().tolist()
        return _Found(products, weights, damping, distortion, len(asked))

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
class _Found:
    """``products [n, k]`` of examples and numbers, ``weights [n]``, and what was measured on the way."""

    products: Tensor
    weights: Tensor
    damping: float
    distortion: list[float]
    dimensions: int
