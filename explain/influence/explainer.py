"""Which training examples are behind a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer
from explain.influence.checks import column_checks, curvature_checks, errors, score_bounds, warn
from explain.influence.chosen import TRAINABLE, Choice, checked_choice
from explain.influence.edited_graphs import removal_parts
from explain.influence.example_gradients import per_example
from explain.influence.newton import newton_parts
from explain.influence.proximal import proximal_parts
from explain.influence.scores import (
    along_and_norms,
    directional,
    example_losses,
    training_gradient,
)
from explain.influence.shards import Shards, Solved
from explain.influence.solvers.choice import CURVATURES, SOLVERS, choose_curvature, choose_solver
from explain.influence.solvers.exact import Exact
from explain.influence.solvers.solution import Solution, Solver
from explain.influence.through.answers import Through, answers_through
from explain.influence.together import Together, asked_of, is_damping
from explain.influence.workers import on_workers
from explain.spelling import came
from explain.types import NonFinite, Objective, Players, Target

Known: TypeAlias = tuple[Tensor, Tensor | None]  # grad loss_i . x [n, k], and |grad loss_i| [n]
ABSENT_EDGES = "absent_edges"  # the kind of players that are added
FEW_STEPS = 10  # of a proximal response, as most take
EDGE_EDITS = "edge_edits"  # and of those that add edges, take some out, or both
REMOVE = ("labels", "nodes", "edges", "features", "node_features", "relations", "motifs")


@dataclass(frozen=True)
class Influence(Together, Explainer):
    """``score_i = f(theta) - f(theta_without_i) ~= -(1/n) grad f^T A^-1 grad loss_i`` (Koh and Liang 2017).

    How much the number falls if training example ``i`` had been left out, in the number's own units: positive pushes
    it up. ``n`` is kept fixed; ``A`` is the curvature of the trained loss, penalty included. First order: it
    understates large effects.

    Not for: models far from a minimum; large groups or strong effects, where first order understates: see
    ``proximal`` and `group_influence`.

    Args:
        train: ``(inputs, labels)``, a Dataset or a DataLoader, where it is not the model's own training set.
        remove: "labels": the example's loss is taken away. On graphs also "nodes", "edges", "features",
            "node_features", "relations", "motifs", or such ``Players``: the training losses that change with them, and
            the number, are those of the edited graph. Or edges by their ends, ``[2, k]``, a list of such groups.
        add: edges that the graph does not have, ``[2, k]``, or a list of such groups, or ``Players`` of
            ``target.players("absent_edges", ends=..., edge_weight=...)`` where edges have fields: ``score = f(theta
            with) - f(theta)``, how much the number rises if they had been there, in training and now. Both directions
            where the graph has both of all its edges; the answer says which. Beside ``remove=`` of as many edges or
            groups each pair is one edit, which adds the one and takes out the other (with fields:
            ``target.players("edge_edits", add=..., remove=..., edge_weight=...)``).
        solver: its name, or one with settings, such as ``Lissa(repeats=16)``; "auto" goes by the number of parameters,
            of numbers asked about, and what is known of the curvature, and says why.
        curvature: "hessian", "ggn" (Gauss-Newton), or "auto": the Hessian where it is positive definite or nearly, else
            the Gauss-Newton matrix, with a warning; that alone for K-FAC and EK-FAC, which approximate it.
        damping: added to the diagonal; "auto" adds none to a positive definite Hessian, about the penalty to one that
            is so but for what a training left unfinished, and to a Gauss-Newton matrix as much as makes the curvature
            of half of the examples foretell that of the others best (of fewer than 12 examples, and for a Hessian that
            was asked for, what leaves the smallest eigenvalue at a thousandth of the largest).
        parameters: which are differentiated; the others are constants, so that the answer is what leaving an example
            out does to training these alone, in memory and time of their number: a name or a pattern such as "*lora*",
            "mid_block" or "up_blocks.3.*", several of these, parameters themselves (``unet.mid_block.parameters()``), a
            function ``(name, parameter) -> bool``, or "trainable", those with ``requires_grad``. What is named may be
            frozen, as a pipeline's network is after training. ``why.target["assumed"]["parameters"]`` says what it was.
        newton: one Newton step on the edited objective for each player, with its own curvature: more exact, and as many
            solutions as there are players. ``parts["first_order"]`` then holds the learned part without it.
        proximal: the most steps of each player's proximal response (Bae et al. 2022): down the edited objective from
            where the parameters are, in the metric of their curvature, until it comes to rest; 0: none. To first order
            is its start; at a minimum it ends where training on the edited graph from these parameters does. For
            groups and strong edits, where first order and one Newton step fall short; about ten gradients a player.
        shards: a folder in which the solution and the scores, shard by shard, are kept as they are found: for large
            training sets, resumed after any end; where it names a cluster, products with the curvature and the scores
            are made there. For labels only.
        through: the training itself, an `explain.Training` or what `explain.recorded` wrote down: instead of a
            curvature at the end, the derivative of all its steps (MAGIC, Ilyas and Engstrom 2025), which is exact to
            first order at no minimum too. ``score_i = d f(theta_T) / d w_i``, where ``w_i`` weighs the example's loss
            in every batch; ``parts["steps"] [spans, n]`` says when in the training it came about. The training is taken
            again, and must end where it ended. For labels only, without ``solver``, ``curvature`` and ``damping``.
        seed: of the eigenvalue search and of LiSSA's batches; of the direction of the smoothness check of ``through``.
        progress: a bar where it takes more than five seconds.

    The answer has ``parts["structural"]``, what the edit alone does to the number (zero for labels), ``["learned"]``,
    the rest, and beside them ``["self_loss"]``, each example's own loss, or, where no labels are removed,
    ``["learned_unedited"]`` and ``["own"]`` of `removal_parts`; and ``checks`` with the true residual of the solution,
    both ends of the spectrum, how second derivatives were taken, whether the gradients of single examples were taken
    together or, where the model is outside of ``vmap``, one by one, and the gradient of the trained loss. ``error`` is
    LiSSA's, of its sampling and of the steps not taken; None for the others and where no labels are removed.

    Raises:
        ValueError: an unknown setting.
        Indefinite: the curvature asked for is not positive definite; the message has the damping that would do.
        Diverged: LiSSA's scale is too small.
        Unsupported: the target has no training objective, or the model no second derivative.
        Stale: the folder of the shards is that of another question.
        ClusterLost: the cluster of the shards is gone; what was finished is kept.

    Warns:
        UserWarning: the Hessian was not used, the solution is loose, or the model is far from a minimum.
    """

    train: Any = None
    remove: Any = "labels"
    add: Any = None
    solver: str | Solver = "auto"
    curvature: str = "auto"
    damping: str | float = "auto"
    parameters: Choice = TRAINABLE
    newton: bool = False
    proximal: int = 0
    shards: Shards | None = None
    through: Through | None = None
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", checked_choice(self.parameters))
        self._check_edit()
        if isinstance(self.solver, str) and self.solver not in ("auto", *SOLVERS):
            own = (
                "; explain.Trak and explain.DTrak are explainers of their own" if "trak" in self.solver.lower() else ""
            )
            raise ValueError(
                f"solver must be auto, {', '.join(SOLVERS)} or one with settings, {came(self.solver, SOLVERS)}{own}"
            )
        if isinstance(self.solver, type) or not (isinstance(self.solver, str) or hasattr(self.solver, "solve")):
            raise TypeError(f"solver must be a name or have a solve method, as Lissa() has, got {self.solver!r}")
        if self.curvature not in ("auto", *CURVATURES):
            raise ValueError(f"curvature must be auto, {' or '.join(CURVATURES)}, {came(self.curvature, CURVATURES)}")
        if not is_damping(self.damping):
            raise ValueError(f"damping must be auto or a number of at least 0, got {self.damping!r}")
        if not isinstance(self.newton, bool) or (self.newton and self.shards is not None):
            raise ValueError(f"newton must be True or False, and False with shards, got {self.newton!r}")
        steps = self.proximal
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0 or (steps and self._beside):
            raise ValueError(
                f"proximal must be a whole number of steps, without newton, shards and through, got {steps!r}"
            )
        if self.shards is not None and not isinstance(self.shards, Shards):
            raise TypeError(f"shards must be Shards(folder) or None, got {type(self.shards).__name__}")
        if self.through is not None:
            self._check_through()
        if self.shards is not None and self._edits_graph:
            raise ValueError(
                f"shards are of training examples: with remove='labels' only, got {self.remove!r}: leave them out"
            )

    @property
    def _beside(self) -> bool:
        """Whether something is asked for that the proximal response does not go with."""
        return self.newton or self.shards is not None or self.through is not None

    @property
    def _edits_graph(self) -> bool:
        """Whether something else is edited than labels taken away."""
        return self.add is not None or self._removes

    def _check_edit(self) -> None:
        """Check that ``add`` and ``remove`` say one thing, each of its own kind.

        Raises:
            ValueError: they do not.
        """
        if isinstance(self.remove, str) and self.remove not in REMOVE:
            raise ValueError(
                f"remove must be one of {', '.join(REMOVE)}, Players or ends of edges, {came(self.remove, REMOVE)}"
            )
        if not isinstance(self.remove, str | Players | Tensor | Sequence):
            raise ValueError(
                f"remove must be one of {', '.join(REMOVE)}, Players or ends of edges, got {type(self.remove).__name__}"
            )
        if self.add is not None:
            if self.shards is not None:
                raise ValueError("add= is of edges that are not there, without shards=: leave them out")
            pairs = not isinstance(self.remove, str | Players) and not isinstance(self.add, Players)
            if self._removes and not pairs:
                raise ValueError(
                    "add= beside remove= takes the ends of edges in both, [2, k] or as many groups, which are one edit "
                    "each: ask for anything else by itself"
                )
        if isinstance(self.add, Players) and self.add.kind not in (ABSENT_EDGES, EDGE_EDITS):
            raise ValueError(f"add= takes edges that are not there, got {self.add.kind}, which are: say remove=")
        if isinstance(self.remove, Players) and self.remove.kind == ABSENT_EDGES:
            raise ValueError("remove= takes what is there, got edges that are not: say add=")

    @property
    def _removes(self) -> bool:
        return not (isinstance(self.remove, str) and self.remove == "labels")

    def _check_through(self) -> None:
        """Check that nothing is asked for that the derivative of a training has no use for.

        Raises:
            TypeError: no training.
            ValueError: a setting of curvature and its inverse, or other players than training examples.
        """
        if not hasattr(self.through, "course"):
            raise TypeError(
                "through must be explain.Training(...) or the run of explain.recorded(...), got "
                f"{type(self.through).__name__}"
            )
        inverse = {"solver": "auto", "curvature": "auto", "damping": "auto", "newton": False, "shards": None}
        given = [name for name, default in inverse.items() if getattr(self, name) != default]
        if given:
            raise ValueError(f"through= follows the training itself and inverts nothing: leave out {', '.join(given)}")
        if self._edits_graph:
            raise ValueError(f"through= is of training examples: with remove='labels' only, got {self.remove!r}")

    def _answers(self, targets: Sequence[Target], generator: torch.Generator) -> list[Answer]:
        apart = self.newton or self.proximal > 0 or self.through is not None
        objectives, values, b = asked_of(targets, self.train, self._edit(targets[0]), apart, self.parameters)
        if self.through is not None:
            return answers_through(self.through, objectives, values, b, generator, self.progress)
        objective = objectives[0]
        losses = example_losses(objective)
        for what, found in (("number's gradient", b), ("training losses", losses)):
            if not found.isfinite().all():
                raise NonFinite(f"the {what} hold NaN or infinity: check the inputs and the training data")

        def solve() -> Solved:
            with on_workers(objective, self.shards):
                return self._solved(objective, b, generator)

        if self.shards is None:
            solved, along = solve(), partial(directional, objective)
            known = along_and_norms(objective, solved.solution.x) if objective.local else None
        else:
            settings = {name: getattr(self, name) for name in ("solver", "curvature", "damping", "seed")}
            question = self.shards.question(objective, targets[0].module, settings, values, b)
            solved, along = question.solved(solve), partial(question.directional, progress=self.progress)
            known = question.along_and_norms(solved.solution.x, self.progress)
        parts = self._parts(objectives, solved, known, losses)
        if self.newton:
            parts = self._stepped(objectives, solved, parts, generator)
        if self.proximal:
            parts = self._responded(objectives, solved, parts)
        if self.add is not None:  # what is added is worth what its absence costs
            parts = [{name: -part for name, part in each.items()} for each in parts]
        spread = errors(along, solved.solution, objective.size) if objective.local else None
        A = solved.A if self.shards is None else None  # a solution from disk has none
        smallest = solved.checks["lambda_min"]
        bounds = score_bounds(solved.checks["each"], A, known[1], smallest) if known else [None] * len(values)
        shared = {name: value for name, value in solved.checks.items() if name != "each"}
        answers = [
            Answer(
                scores=part["structural"] + part["learned"],
                players=own.players,
                value=value,
                base=None,
                error=None if spread is None else spread[:, k],
                parts=part,
                checks={**shared, **per_example(objective), **solved.checks["each"][k], "score_bound": bounds[k]},
                calls=solved.products if solved.A is None else solved.A.products,
            )
            for k, (own, part, value) in enumerate(zip(objectives, parts, values, strict=True))
        ]
        warn(answers, objective, known[1] if known else None)
        return answers

    def _edit(self, target: Target) -> str | Players:
        """What an edit takes away, or the edges that it adds."""
        if isinstance(self.add, Players):
            return self.add
        ends = None if isinstance(self.remove, str | Players) else self.remove
        if ends is not None:
            return target.players(EDGE_EDITS, add=self.add, remove=ends)
        return self.remove if self.add is None else target.players(ABSENT_EDGES, ends=self.add)

    def _solved(self, objective: Objective, b: Tensor, generator: torch.Generator) -> Solved:
        chosen = choose_curvature(objective, self.curvature, self.damping, generator, self.solver, self.progress)
        solver, why = choose_solver(self.solver, chosen.A, b.size(1), chosen.spectrum)

        def inverse(b: Tensor) -> Solution:
            return solver.solve(chosen.A, b, chosen.spectrum, generator, self.progress)

        solution = inverse(b)
        training = training_gradient(objective)
        checks = {
            "solver": solver.name,
            "why_solver": why,
            **curvature_checks(chosen),
            "gradient_norm": float(training.norm()),
            "each": [column_checks(chosen, solution.column(k), b[:, k], training) for k in range(b.size(1))],
        }
        return Solved(solution, checks, chosen.A.products, chosen.A, inverse)

    def _parts(
        self, objectives: Sequence[Objective], solved: Solved, known: Known | None, losses: Tensor
    ) -> list[dict[str, Tensor]]:
        """What the scores of each number are the sum of, and what is shown beside."""
        x, inverse = solved.solution.x, solved.inverse
        if known is not None:
            each = (-known[0] / objectives[0].size).unbind(1)
            return [{"learned": one, "structural": torch.zeros_like(one), "self_loss": losses} for one in each]
        assert inverse is not None  # what is kept on disk is of labels only
        return [
            removal_parts(objective, lambda b: inverse(b).x, x[:, k], self.progress)._asdict()
            for k, objective in enumerate(objectives)
        ]

    def _stepped(
        self, objectives: Sequence[Objective], solved: Solved, parts: list[dict[str, Tensor]], g: torch.Generator
    ) -> list[dict[str, Tensor]]:
        """The parts after a Newton step for each player; what is said of it goes into the checks."""
        assert solved.A is not None
        solver = choose_solver(self.solver, solved.A, 1)[0]
        made = []
        for objective, part, checks in zip(objectives, parts, solved.checks["each"], strict=True):
            found, told = newton_parts(
                objective,
                solved.A,
                solved.checks["lambda_min"],
                part,
                lambda A, spectrum, b: solver.solve(A, b, spectrum, g).x,
                g,
                self.progress,
            )
            checks.update(told)
            made.append(found)
        return made

    def _responded(
        self, objectives: Sequence[Objective], solved: Solved, parts: list[dict[str, Tensor]]
    ) -> list[dict[str, Tensor]]:
        """The parts after each player's proximal response; what is said of it goes into the checks."""
        assert solved.A is not None
        metric = self._metric(solved, len(objectives[0].players))
        made, told = proximal_parts(objectives, solved.A.damping, parts, metric, self.proximal, self.progress)
        for checks in solved.checks["each"]:
            checks.update(told)
        return made

    def _metric(self, solved: Solved, responses: int) -> Callable[[Tensor], Tensor]:
        """``A^-1 g`` at every step of so many responses: factorised once where the whole matrix is had or worth it."""
        A, inverse = solved.A, solved.inverse
        assert A is not None
        assert inverse is not None
        wanted = choose_solver(self.solver, A, blocks=FEW_STEPS * responses)[0]
        if not (A.has_matrix or isinstance(wanted, Exact)):
            return lambda g: inverse(g).x
        factor = torch.linalg.cholesky(A.dense(self.progress))
        return lambda g: torch.cholesky_solve(g[:, None], factor)[:, 0]
