"""GraphDiffusionModel: a trained denoiser of whole graphs, ready to be asked about a step or a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from explain.diffusion.settings import checked_batch_size, checked_count, checked_seed
from explain.graph_diffusion.conditions import Conditioning
from explain.graph_diffusion.graph_losses import GraphLoss, OwnLoss
from explain.graph_diffusion.graph_network import GraphDenoiser
from explain.graph_diffusion.graph_states import read_graph
from explain.graph_diffusion.graph_targets import GraphRunTarget, GraphStepTarget
from explain.guard import usual_modes
from explain.introduction import introduced
from explain.payoffs import named
from explain.spelling import spelled


class GraphDiffusionModel(GraphDenoiser):
    """A denoiser of graphs (DiGress): the class of every pair of nodes, and of every node, given noised ones.

    Args:
        net: the network, ``(E [rows, n, n, b], t [rows])`` or ``(X [rows, n, a], E, t)`` by these or like names, to
            logits of the clean pairs, or of nodes and pairs. It may take a condition (``y``, ``condition``, ...).
        process: `GraphNoise`, of ``explain.graph_diffusion.graph_states``.
        time: the unit that it takes its time in: "step" (1 to ``T``), "unit" (``t / T``), or a function of the steps.
        call: how you call it, ``(net, X, E, t) -> logits``, or ``(net, X, E, t, condition)`` where it takes one.
        condition: the argument that takes a condition, where its name does not say.
        null: what stands for no condition, as it was trained: a class, a number or a tensor, of one graph.
        loss: what it was trained with, for `Influence`: "entries", the cross-entropy as a mean over the entries of all
            graphs, as DiGress takes it in a batch, "graphs", a mean in each graph first, or your own function
            ``(logits, clean, t [rows]) -> [rows]`` of states with ``nodes [rows, n, a]`` and ``pairs [rows, n, n, b]``.
        pairs_weight: what pairs weigh in it where types of nodes weigh 1; 5 in DiGress.
        weight_decay: as in ``torch.optim.SGD``.
        draws: of step and noise that stand for all that training drew, the same for every graph.

    Raises:
        TypeError: another process, arguments or a unit of time that cannot be told, null where there is no condition.
        ValueError: no such loss, a network that is not deterministic, or whose rows or directions of a pair differ.

    ``assumed`` says what was taken to be so without being told; it is written into every answer.

    >>> import torch
    >>> from explain.diffusion.categorical import Categorical
    >>> from explain.graph_diffusion.graph_states import GraphNoise
    >>> noise = GraphNoise(Categorical.uniform(torch.full((4,), 0.3), 2))
    >>> model = GraphDiffusionModel(lambda E, t: 5 * E, process=noise, time="step")
    >>> path = torch.tensor([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
    >>> model.step(path, t=1, edge=(0, 1), payoff="probability", draws=64).value() > 0.8
    True
    """

    def __init__(
        self,
        net: Any,
        *,
        process: Any,
        time: str | Callable[[Tensor], Tensor] | None = None,
        call: Callable[..., Any] | None = None,
        condition: str | None = None,
        null: Any = None,
        loss: str | OwnLoss | None = None,
        pairs_weight: float | None = None,
        weight_decay: float = 0.0,
        draws: int = 16,
    ) -> None:
        trained = GraphLoss(loss, pairs_weight, weight_decay, draws)
        super().__init__(net, process, time, call, trained, condition, null)

    def __repr__(self) -> str:
        return introduced(self, self.net, "", "step(graph, t=, edge=), trajectory(nodes, payoff=)", self.assumed)

    @spelled
    def step(
        self,
        graph: Any,
        *,
        t: int,
        node: int | None = None,
        edge: tuple[int, int] | None = None,
        label: int | None = None,
        condition: Any = None,
        guidance: float = 1.0,
        payoff: str | Callable[..., Tensor] = "log_probability",
        payoff_name: str | None = None,
        seed: int = 0,
        draws: int = 8,
        batch_size: int | None = None,
    ) -> GraphStepTarget:
        """What the network says of an entry of the clean graph, once that is noised to step ``t``.

        Args:
            graph: the clean graph, see `read_graph`.
            t: the step, from 1 to ``T``.
            node: whose type is asked about, or
            edge: which pair.
            label: the class; that of the clean graph when None.
            condition: what the network is asked with, of one graph: a class, a number or a tensor; none when None.
            guidance: the weight ``w`` of ``u + w (c - u)``, logits with the condition and without; 1 is none.
            payoff: "log_probability" or "probability" of the class, or a function of what is foreseen,
                ``(nodes [m, n, a], pairs [m, n, n, b]) -> [m]``.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            seed: of the noise, which every coalition meets, entry by entry.
            draws: of the noise that the number is a mean of.
            batch_size: coalitions in one forward pass.

        Raises:
            TypeError: no graph.
            ValueError: no such step, entry, class or payoff; a condition that the network does not take, or needs.
        """
        step = self.process.edges.checked_step(t)
        clean = read_graph(graph, self.process.classes, self.like)
        settings = (checked_seed(seed), checked_count(draws, "draws"), checked_batch_size(batch_size))
        with usual_modes():
            asked = self._conditioned(condition, guidance)
            return GraphStepTarget(self, clean, step, node, edge, label, named(payoff, payoff_name), *settings, asked)

    @spelled
    def trajectory(
        self,
        nodes: int,
        *,
        payoff: Callable[..., Tensor],
        payoff_name: str | None = None,
        condition: Any = None,
        guidance: float = 1.0,
        seed: int = 0,
        draws: int = 8,
        batch_size: int | None = None,
    ) -> GraphRunTarget:
        """What a function says of the graphs that whole runs end in.

        Args:
            nodes: how many the graphs have.
            payoff: a function of the classes of pairs, ``int64 [m, n, n] -> [m]``; where nodes have types, of
                ``(types [m, n], pairs)``.
            payoff_name: what a function is called, in titles, pages and files; by its own name when None.
            condition: what the network is asked with, of one graph: a class, a number or a tensor; none when None.
            guidance: the weight ``w`` of ``u + w (c - u)``, logits with the condition and without; 1 is none.
            seed: of the noise.
            draws: runs that the number is a mean of.
            batch_size: coalitions in one forward pass.

        Raises:
            ValueError: no nodes, a payoff that is no function of each graph by itself; a condition that the network
                does not take, or needs.
        """
        if not callable(payoff):
            raise ValueError(f"payoff must be a function of the graphs, pairs [m, n, n] -> [m], got {payoff!r}")
        settings = (checked_seed(seed), checked_count(draws, "draws"), checked_batch_size(batch_size))
        with usual_modes():
            asked = self._conditioned(condition, guidance)
            return GraphRunTarget(self, checked_count(nodes, "nodes"), named(payoff, payoff_name), *settings, asked)

    def _conditioned(self, condition: Any, guidance: float) -> Conditioning:
        """The condition of a question, once the network has been tried with it.

        Raises:
            ValueError: a network that takes none, or cannot do without.
        """
        if condition is not None and self.condition is None:
            raise ValueError(
                "this denoiser takes no condition: name its argument, explain.wrap(..., condition=), or give your own "
                "call=lambda net, X, E, t, condition: ..."
            )
        asked = Conditioning(condition, self.null, guidance, self.like)
        if condition is None and self.null is None and self.needs_condition:
            raise ValueError(f"this denoiser cannot do without {self.condition}: give condition=")
        if condition is not None:
            self.tried(asked.condition, asked.null)
        return asked

    def bound(self, graph: Any, *, condition: Any = None, seed: int = 0, draws: int = 4) -> Tensor:
        """The terms ``L_0, ..., L_{T-1}, L_T`` of the bound ``-log p(graph) <= sum`` in nats, float64 ``[T + 1]``.

        Args:
            graph: the clean graph.
            condition: what the network is asked with; the bound is then that of ``p(graph | condition)``.
            seed: of the noise.
            draws: of the noise at each step.
        """

        def whole(nodes: Tensor, pairs: Tensor) -> float:
            return float(nodes.double().sum() + pairs.double().triu(1).sum())

        terms = []
        for t in range(1, self.process.steps + 1):
            asked = self.step(graph, t=t, condition=condition, payoff=_nothing, seed=seed, draws=draws)
            terms.append(whole(*asked.bound_terms()))
        clean = read_graph(graph, self.process.classes, self.like)
        nodes, pairs = self.process.prior_divergence(clean)
        return pairs.new_tensor([*terms, whole(nodes[0], pairs[0])]).double()


def _nothing(nodes: Tensor, pairs: Tensor) -> Tensor:
    return pairs.new_zeros(len(pairs))
