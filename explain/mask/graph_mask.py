"""torch_geometric's GraphMask (Schlichtkrull et al. 2021), kept to a copy, its gates read on the right edges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.explain import Explanation, GraphMaskExplainer
from torch_geometric.nn import MessagePassing

from explain.mask.algorithms import atoms_of, connected
from explain.mask.messages import columns_of
from explain.types import Call, Players, Unsupported


class GraphMask(GraphMaskExplainer):
    """GraphMask that remembers its loss, shows its progress, and finds its gates' edges by their ends.

    torch_geometric's rectifies and normalises every message while it trains, which moves the prediction before any gate
    closes; ``moved`` says by how much, in the explained class's probability.
    """

    def __init__(self, epochs: int, lr: float, coefficients: Mapping[str, Any], layers: int, bar: Any) -> None:
        super().__init__(layers, epochs, lr, log=False)  # its keywords would change the coefficients of the class
        self.coeffs = dict(GraphMaskExplainer.coeffs) | dict(coefficients)
        self.bar, self.loss, self.moved = bar, float("nan"), float("nan")

    def forward(
        self, model: nn.Module, x: Tensor, edge_index: Tensor, *, target: Tensor, index: int, **kwargs: Any
    ) -> Explanation:
        """The mean gate of each edge over the layers, ``edge_mask [edges]``."""
        seen: list[Tensor] = []
        handles = [
            layer.register_propagate_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
            for layer in model.modules()
            if isinstance(layer, MessagePassing)
        ]
        before = _probability(model(x, edge_index, **kwargs), target, index)
        self._train_explainer(model, x, edge_index, target=target, index=index, **kwargs)
        self.moved = abs(_probability(model(x, edge_index, **kwargs), target, index) - before)
        gates = self._explain(model, index=index)
        for handle in handles:
            handle.remove()
        places = columns_of(seen[-1], edge_index)
        mask = torch.zeros(edge_index.size(1), device=gates.device)
        mask[places[places >= 0]] = gates[places >= 0]
        return Explanation(edge_mask=mask)

    def _loss(self, y_hat: Tensor, y: Tensor, penalty: float) -> Tensor:
        loss = super()._loss(y_hat, y, penalty)
        self.loss = float(loss.detach())
        self.bar.update()
        return loss


def gated(call: Call, algorithm: GraphMask, players: Players) -> Tensor:
    """The mean gate of each edge player, float64 ``[P]``.

    Raises:
        Unsupported: layers whose messages torch_geometric's gates do not fit.
    """
    labels, explainer = connected(call, algorithm, None)
    try:
        with torch.enable_grad():
            found = explainer(call.x, call.edge_index, target=labels, index=call.row, **call.kwargs)
    except (RuntimeError, AttributeError, TypeError, IndexError, ValueError) as error:
        raise Unsupported(
            f"torch_geometric's GraphMask cannot gate the messages of {type(call.module).__name__} ({error}): use "
            "method='gnn_explainer', Shapley or Lime"
        ) from error
    values = found.edge_mask.detach().double().cpu()
    return torch.stack([values[atoms].mean() for atoms in atoms_of(players, call)])


def _probability(outputs: Tensor, target: Tensor, index: int) -> float:
    """Of the explained class; of a regressor its value."""
    row = outputs[index].detach().reshape(-1)
    if target.is_floating_point():
        return float(row)
    label = int(target[index].reshape(-1)[0])
    if row.numel() == 1:
        return float(row.sigmoid() if label == 1 else (-row).sigmoid())
    return float(row.softmax(-1)[label])
