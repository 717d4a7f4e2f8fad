"""The numbers of many nodes, or pairs of nodes, out of one pass over their graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from explain.graph.number import GraphNumber
from explain.graph.tensors.structure import copies
from explain.guard import evaluating
from explain.types import Parameters, Questions


def questions(number: GraphNumber, others: Sequence[Any]) -> Questions | None:
    """These numbers, where all are of nodes of one type, or of pairs, on one graph."""
    asked = [each for each in others if isinstance(each, GraphNumber) and _alike(each, number)]
    if not number.focus or len(asked) < len(others):
        return None
    model, made, kind = number.model, copies(number.graph, 1), number.focus[0][0]
    numbers_of = torch.tensor([[node for _, node in each.focus] for each in asked]).to(_device(number))

    def outputs(params: Parameters, positions: Tensor) -> Tensor:
        with evaluating(model.module):
            if len(number.focus) == 1:
                return model.outputs(made, None, kind, params)[numbers_of[positions, 0]]
            return model.outputs(made, numbers_of[positions].T, None, params)

    def numbers(rows: Tensor) -> Tensor:
        return torch.cat([each.read(row) for each, row in zip(asked, rows.double().split(1), strict=True)])

    return Questions(outputs, numbers, len(asked), apart=False)


def _alike(one: GraphNumber, other: GraphNumber) -> bool:
    kinds = [kind for kind, _ in one.focus]
    return one.model is other.model and one.graph is other.graph and kinds == [kind for kind, _ in other.focus]


def _device(number: GraphNumber) -> torch.device:
    return next(iter(number.module.parameters())).device
