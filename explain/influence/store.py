"""A gradient store: the projected gradients of a training set on disk, opened once and then asked number by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer, seeded
from explain.explanation import Explanation
from explain.guard import untouched
from explain.influence.chosen import choose, chosen_objective
from explain.influence.scores import measured_gradients
from explain.influence.together import Together, objectives_of
from explain.influence.trak import Trak
from explain.parallel import Stale, fingerprint
from explain.types import Target


class GradientStore(Together):
    """The answers of a `Trak` or `DTrak` with ``shards``, without reading the training set again for each.

        phi_i = P^T grad F_i  [dimensions]        kept, a file a shard of examples, mapped into memory
        K = (1/n) sum_i phi_i phi_i^T             kept, summed in the order of the shards
        score_i = (1/n) phi_f^T (K + damping I)^-1 phi_i w_i

    A number costs its own gradient, its projection, and one product with the rows on disk. What is not in the folder is
    made when the store is opened, on the cluster of the shards where they name one; a process that is killed leaves
    whole shards only, and the next one goes on from there to the same bytes. Opening compares the training set with
    what the folder is of and proves each file against its checksum; a question compares the model.

    Of examples that are read by position, as those of a map-style Dataset above 256 MiB, a worker holds one batch; of
    those that are held in memory it is sent all.

    Args:
        explainer: with ``shards`` and a seed.
        target: any number of the model, such as the first that is asked: it says the training set and its loss.

    Raises:
        TypeError: another explainer, or no target.
        ValueError: an explainer without ``shards``, and what `Trak` raises.
        Stale: the folder is of another model, training set, seed or other features: nothing in it is touched.
        ClusterLost: the cluster of the shards is gone; what was finished is kept.

    >>> import tempfile
    >>> from torch import nn
    >>> import explain
    >>> from explain.influence import Shards
    >>> x, y = torch.eye(3), torch.tensor([0, 1, 0])
    >>> model = explain.wrap(nn.Linear(3, 2), (x, y), task="classification")
    >>> trak = Trak(dimensions=4, shards=Shards(tempfile.mkdtemp()), seed=0)
    >>> store = GradientStore(trak, model.example(x[0], label=0))
    >>> store
    GradientStore: 3 training examples in 4 dimensions
    >>> store.explain(model.example(x[1], label=1)).method
    'Trak'
    """

    def __init__(self, explainer: Trak, target: Target) -> None:
        if not isinstance(explainer, Trak):
            raise TypeError(f"a gradient store is that of a Trak or a DTrak, got {type(explainer).__name__}")
        if explainer.shards is None:
            raise ValueError("a gradient store needs a folder: give its explainer shards=Shards(folder)")
        if not isinstance(target, Target):
            raise TypeError(f"a gradient store is opened with a target of its model, got {type(target).__name__}")
        self.explainer, self.seed = explainer, explainer.seed
        with untouched(target.module, target.trained):
            target.forget()
            self._objective = chosen_objective(target, explainer.train, parameters=explainer.parameters)
            self._bases = explainer.bases(self._objective, target.module, seeded(explainer.seed)[1])
            self._of = _model(target)
            self._told, self._state = dict(target.told), self._fingerprint(target)

    def explain(self, target: Target) -> Explanation:
        """What the explainer would say.

        Raises:
            TypeError: no target.
            ValueError: one of another model.
            Stale: the model has changed since the store was opened.
        """
        if not isinstance(target, Target):
            raise TypeError(f"a gradient store is asked a target, got {type(target).__name__}")
        return self.explain_all([target])[0]

    def _answers(self, targets: Sequence[Target], generator: torch.Generator) -> list[Answer]:
        self.explainer.check(targets)
        for target in targets:
            if _model(target) is not self._of:
                raise ValueError("this store is of another wrapped model: ask it about the one that it was opened with")
        choose(targets[0].trained, self.explainer.parameters)
        if self._fingerprint(targets[0]) != self._state:
            raise Stale("the model has changed since its gradient store was opened: open it again, in another folder")
        numbers, columns = self._asked(targets)
        players = [self._objective.players] * len(targets)
        return self.explainer.answers(self._bases, targets, players, numbers, columns)

    def _asked(self, targets: Sequence[Target]) -> tuple[list[float], list[Tensor]]:
        """As `Trak.asked`: in one pass that needs no training set, where the model's family offers it."""
        trak = self.explainer
        questions = targets[0].questions(targets) if trak.of_the_number and trak.checkpoints is None else None
        if questions is None:
            known = getattr(self._objective, "train", None)
            train = trak.train if known is None else known
            return trak.asked(self._bases, objectives_of(targets, train, parameters=trak.parameters))
        for target in targets:
            target.tell(self._told)
        numbers, gradients = measured_gradients(self._objective.params, questions)
        return numbers, [gradients]

    def _explanation(self, *given: Any) -> Explanation:
        return Explainer._explanation(self.explainer, *given)

    def _fingerprint(self, target: Target) -> str:
        return fingerprint(target.module, self._objective.params)

    def __repr__(self) -> str:
        basis = self._bases[0]
        return f"GradientStore: {len(basis.weights)} training examples in {len(basis.factor)} dimensions"


def _model(target: Target) -> Any:
    """What a target is asked of: the wrapped model, or the module where there is none."""
    return getattr(target, "model", target.module)
