"""What a graph network's outputs mean, read off its answers on the whole data and the labels there."""

from __future__ import annotations

import torch
from torch import Tensor

from explain.graph.network import GraphNetwork
from explain.graph.number import GraphNumber
from explain.graph.tensors.cuts import whole
from explain.graph.tensors.data_object import pair_store
from explain.graph.tensors.labels import labels_of
from explain.graph.tensors.structure import copies
from explain.guard import evaluating, random_states_kept, usual_modes
from explain.outputs import LastOperation, Meaning, meaning_of, redrawn, unsettled

MORE = 64  # graphs, or pairs, that are asked about where one leaves it open


def meaning_of_number(number: GraphNumber) -> Meaning:
    """What the outputs mean that a number is read from; found once for each state of the model."""
    kind = number.focus[0][0] if number.focus else None
    findings = number.model.findings
    if kind not in findings.meanings or number.state != findings.state:
        findings.meanings[kind] = _found(number, kind)
    return findings.meanings[kind]


def _found(number: GraphNumber, kind: str | None) -> Meaning:
    """See `meaning_of`: nodes are all asked in one pass, of pairs and graphs several where that leaves it open."""
    model = number.model
    with usual_modes(), torch.no_grad(), random_states_kept(), LastOperation() as last:
        rows = number.everyone()
        operation = last.of(rows)
    if unsettled(rows) and model.given_outputs is None:
        rows = torch.cat([rows, *_others(model, number)])
    labels = labels_of(model.data, model.task, kind)

    def elsewhere() -> Tensor | None:
        params = {name: p.detach() for name, p in model.net.named_parameters()}
        with usual_modes(), torch.no_grad(), random_states_kept():
            return redrawn(params, number.everyone)

    return meaning_of(rows, operation, labels, given=model.given_outputs, loss=model.loss, elsewhere=elsewhere)


def _others(model: GraphNetwork, number: GraphNumber) -> list[Tensor]:
    """Answers for other pairs of the graph, or other graphs of the data."""
    with usual_modes(), torch.no_grad(), random_states_kept(), evaluating(model.module):
        if model.task == "edge" and len(number.graph.counts) == 1:
            given = pair_store(model.data).get("edge_label_index")
            pairs = given if isinstance(given, Tensor) else number.graph.flat_edges
            return [model.outputs(copies(number.graph, 1), pairs[:, :MORE])] if pairs.numel() else []
        if model.task == "graph" and not model.single:
            graphs = [model.structure(i) for i in range(min(len(model.data), MORE))]
            return [model.outputs(copies(whole(graph, ()).graph, 1)) for graph in graphs]
    return []
