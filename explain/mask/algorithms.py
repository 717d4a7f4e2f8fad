"""torch_geometric's GNNExplainer and PGExplainer, kept to copies and to what they are asked."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch_geometric.explain import Explainer as PyGExplainer
from torch_geometric.explain import GNNExplainer, GraphMaskExplainer, PGExplainer
from torch_geometric.explain.algorithm import ExplainerAlgorithm

from explain.guard import copied
from explain.mask.messages import aligned_masks
from explain.types import Call, Players

NODE_MASKS = {"edges": None, "nodes": "object", "features": "common_attributes"}
COEFFICIENTS = {
    "gnn_explainer": dict(GNNExplainer.default_coeffs),
    "pg_explainer": dict(PGExplainer.coeffs),
    "graph_mask": dict(GraphMaskExplainer.coeffs),
}


_NEARLY_WHOLE = 4.0  # a mask of .98, whose sigmoid still lets gradients through


class GNN(GNNExplainer):
    """GNNExplainer that remembers its loss and shows its progress.

    Masks that no gradient reaches are left out, as by torch_geometric, who asks at the random start alone. There every
    unit may be dead that is awake on the whole graph, so here masks are asked near the whole graph too. What is left
    out has the score 0, and is learned beside as 0, not as it started.
    """

    def __init__(self, epochs: int, lr: float, coefficients: Mapping[str, Any], bar: Any) -> None:
        super().__init__(epochs, lr, **coefficients)
        self.bar, self.loss = bar, float("nan")

    def _train(self, model: Any, x: Any, edge_index: Any, *, target: Tensor, index: Any = None, **inputs: Any) -> None:
        def unregularised() -> Tensor:
            said = self._forward_with_masks(model, x, edge_index, **inputs)
            return GNNExplainer._loss(self, *((said, target) if index is None else (said[index], target[index])))

        self.unregularised = unregularised
        super()._train(model, x, edge_index, target=target, index=index, **inputs)

    def _collect_gradients(self) -> None:
        near_whole = self._gradients_near_whole()
        super()._collect_gradients()
        hard = [*_tensors(self.hard_node_mask), *_tensors(self.hard_edge_mask)]
        for reached, gradient in zip(hard, near_whole, strict=True):
            reached |= gradient != 0
        if not any(bool(reached.any()) for reached in hard):
            raise ValueError("Could not compute gradients: all are zero")
        for mask, reached in zip(self._masks(), hard, strict=True):
            mask.data.masked_fill_(~reached, -torch.inf)

    def _gradients_near_whole(self) -> list[Tensor]:
        masks = self._masks()
        start = [mask.detach().clone() for mask in masks]
        try:
            for mask in masks:
                mask.data.fill_(_NEARLY_WHOLE)
            found = torch.autograd.grad(self.unregularised(), masks, allow_unused=True)
        finally:
            for mask, before in zip(masks, start, strict=True):
                mask.data.copy_(before)
        return [mask.new_zeros(()) if each is None else each for mask, each in zip(masks, found, strict=True)]

    def _masks(self) -> list[Tensor]:
        return [*_tensors(self.node_mask), *_tensors(self.edge_mask)]

    def _loss(self, y_hat: Tensor, y: Tensor) -> Tensor:
        loss = super()._loss(y_hat, y)
        self.loss = float(loss.detach())
        self.bar.update()
        return loss


def _tensors(masks: Tensor | Mapping[Any, Tensor | None] | None) -> list[Tensor]:
    """Those that there are, of one type or of each."""
    each = masks.values() if isinstance(masks, Mapping) else [masks]
    return [mask for mask in each if mask is not None]


class Lesson(NamedTuple):
    """A target of PGExplainer: its call, a copy of the module, labels, the explained row and the edges that play."""

    call: Call
    module: torch.nn.Module
    labels: Tensor
    row: Tensor
    reachable: Tensor


class PG(PGExplainer):
    """PGExplainer with coefficients of its own and a computation graph that is known, not counted in layers."""

    def __init__(self, epochs: int, lr: float, coefficients: Mapping[str, Any]) -> None:
        super().__init__(epochs, lr)  # its keywords would change the coefficients of the class
        self.coeffs = COEFFICIENTS["pg_explainer"] | dict(coefficients)
        self.reachable = torch.zeros(0, dtype=torch.bool)

    def _get_hard_masks(self, *_: Any, **__: Any) -> tuple[None, Tensor]:
        return None, self.reachable

    def lesson(self, call: Call, players: Players) -> Lesson:
        """What it learns from one target, made once for all epochs."""
        labels, explainer = connected(call, self, None)
        return Lesson(
            call, explainer.model, labels, torch.tensor([call.row], device=call.x.device), among(players, call)
        )

    def learn(self, epoch: int, lesson: Lesson) -> float:
        """One step of its network on one target; the loss."""
        call, self.reachable = lesson.call, lesson.reachable
        with aligned_masks(lesson.module, call.edge_index, call.columns), warnings.catch_warnings():
            # torch warns of the float() of a differentiable loss with which train() ends
            warnings.filterwarnings("ignore", "Converting a tensor with requires_grad=True to a scalar")
            asked = {"target": lesson.labels, "index": lesson.row, **call.kwargs}
            return self.train(epoch, lesson.module, call.x, call.edge_index, **asked)


@contextmanager
def in_dtype_of(call: Call) -> Iterator[None]:
    """Within: torch's default dtype is that of the model's inputs, as torch_geometric makes its masks and layers in it.

    After: as before.
    """
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(call.x.dtype if call.x.is_floating_point() else before)
        yield
    finally:
        torch.set_default_dtype(before)


def masked(call: Call, algorithm: ExplainerAlgorithm, players: Players) -> tuple[Tensor, int]:
    """The mask of each player, float64 ``[P]``, and how many edges of the model no mask reached.

    Raises:
        ValueError: the model's answer does not hang on what is masked.
    """
    labels, explainer = connected(call, algorithm, NODE_MASKS[players.kind])
    with torch.enable_grad(), aligned_masks(explainer.model, call.edge_index, call.columns) as unmasked:
        try:
            found = explainer(call.x, call.edge_index, target=labels, index=call.row, **call.kwargs)
        except ValueError as error:
            if "Could not compute gradients" not in str(error):
                raise
            raise ValueError(
                f"no mask of {players.kind} can be learned: no gradient reaches it; features must be read, and edges "
                "carry messages through torch_geometric's layers. Use Shapley or Lime"
            ) from error
    values = found.edge_mask if players.kind == "edges" else found.node_mask
    values = values.detach().double().cpu().reshape(-1)
    return torch.stack([values[atoms].mean() for atoms in atoms_of(players, call)]), max(unmasked.values(), default=0)


def connected(call: Call, algorithm: ExplainerAlgorithm, node_mask: str | None) -> tuple[Tensor, PyGExplainer]:
    """torch_geometric's Explainer on a fresh copy of the module, and the label or value it explains, of every row.

    Raises:
        ValueError: the module's answer cannot be differentiated.
    """
    module = copied(call.module).eval()
    x = call.x.detach().clone().requires_grad_(call.x.is_floating_point())
    with torch.enable_grad():
        outputs = module(x, call.edge_index, **call.kwargs)
    if x.requires_grad and not outputs.requires_grad:
        raise ValueError(
            "no mask can be learned: no gradient leaves the model's answer (a detach, a rounding or a no_grad inside "
            "the model?); use Shapley or Lime"
        )
    outputs = outputs.detach()
    single = outputs.dim() == 1 or outputs.size(1) == 1
    mode = "binary_classification" if single else "multiclass_classification"
    explainer = PyGExplainer(
        model=module,
        algorithm=algorithm,
        explanation_type="phenomenon",  # of the label in question, predicted or not
        node_mask_type=node_mask,
        edge_mask_type="object" if node_mask is None else None,
        model_config={
            "mode": "regression" if call.label is None else mode,
            "task_level": call.task,
            "return_type": "raw",
        },
    )
    if call.label is None:
        return outputs, explainer
    return torch.full((len(outputs),), call.label, dtype=torch.int64, device=outputs.device), explainer


def atoms_of(players: Players, call: Call) -> list[Tensor]:
    """Where each player's edges, nodes or feature columns stand in the call, int64.

    Raises:
        ValueError: a player that is not in the call's part of the graph.
    """
    if call.atoms is not None:
        return call.atoms(players)
    owned = players.groups or tuple(players.index.view(-1, 1))
    if players.kind == "features":
        return [atoms.cpu() for atoms in owned]
    numbers = (call.edges if players.kind == "edges" else call.nodes).cpu()
    order = numbers.argsort()
    found = []
    for atoms in owned:
        place = order[torch.searchsorted(numbers[order], atoms.cpu()).clamp(max=len(numbers) - 1)]
        if not torch.equal(numbers[place], atoms.cpu()):
            raise ValueError(f"{players.kind} {atoms.tolist()} are outside this target's computation graph")
        found.append(place)
    return found


def among(players: Players, call: Call) -> Tensor:
    """The columns of the call's ``edge_index`` that edge players own, bool ``[E]``."""
    columns = torch.zeros(call.edge_index.size(1), dtype=torch.bool)
    for atoms in atoms_of(players, call):
        columns[atoms] = True
    return columns.to(call.edge_index.device)
