"""Fields that follow from the edges, and that edited graphs hold as they are on the whole graph: found, and said."""

from __future__ import annotations

import torch
from torch_geometric.data import Data

from explain.graph.number import GraphNumber
from explain.graph.players.kinds import ATOMS
from explain.graph.tensors.agreement import relative, tolerance
from explain.graph.tensors.cuts import whole
from explain.graph.tensors.derived import Derived, derived_fields
from explain.graph.tensors.recomputed import spots
from explain.graph.tensors.structure import EDGE, copies
from explain.guard import random_states_kept, usual_modes


def held_fields(number: GraphNumber, kind: str) -> list[Derived]:
    """The fields, as the data calls them, that stay as on the whole graph though the absence of players changes them.

    Edges that are deleted change all that follows from edges, features that are replaced what follows from features.
    ``removal="message"`` asks of the layers' messages alone: it keeps the edges, and degrees with them.
    """
    atoms = ATOMS.get(kind, kind)
    deletes = number.removal == "delete" and atoms in ("edges", "nodes")
    replaces = atoms in ("nodes", "features", "node_features")
    own = number.model.inputs.own
    found = [each for each in _derived(number) if deletes or (replaces and each.of_features)]
    return [each._replace(field=own.get(each.field, each.field)) for each in found]


def said_of(held: list[Derived]) -> str:
    """A doubt in words."""
    fields = "; ".join(f"data.{each.field} follows from the edges, {each.equals}" for each in held)
    return (
        f"{fields}; what was computed stays as on the whole graph, and what is absent is gone for the layers alone. "
        f"explain.wrap(..., recompute={{{held[0].field!r}: transform}}) computes it again in each coalition"
    )


def _derived(number: GraphNumber) -> tuple[Derived, ...]:
    """The derived fields that the answer hangs on; looked for once for each graph."""
    findings = number.model.findings
    if findings.derived is None or findings.derived[0] is not number.graph:
        findings.derived = (number.graph, _looked_for(number))
    return findings.derived[1]


def _looked_for(number: GraphNumber) -> tuple[Derived, ...]:
    again = number.model.inputs.recomputed
    found = derived_fields(number.graph, _weights(number))
    left = [each for each in found if again is None or each.field not in again.functions]
    if not number.model.inputs.whole:
        given = {*number.model.inputs.sources.values()}
        return tuple(each for each in left if each.field in given)
    return tuple(each for each in left if _reads(number, each.field))


def _weights(number: GraphNumber) -> torch.Tensor | None:
    """Weights of the edges that the data holds, and forward may not be given."""
    model = number.model
    data = model.data if model.single else model.data[number.index or 0]
    edges, weights = (data.get("edge_index"), data.get("edge_weight")) if isinstance(data, Data) else (None, None)
    if not isinstance(edges, torch.Tensor) or not isinstance(weights, torch.Tensor):
        return None
    return weights if torch.equal(edges, number.graph.edges[EDGE]) else None


def _reads(number: GraphNumber, name: str) -> bool:
    """Whether another value of a field of the data object changes the answer."""
    spot = next(spots(number.graph, name))
    turned = spot.fields(number.graph)[name].flip(0)  # its rows in another order
    place = whole(spot.within(number.graph, name, turned), number.focus)
    try:
        with usual_modes(), torch.no_grad(), random_states_kept():
            answer = number.answers(place, copies(place.graph, 1))[0]
    except Exception:  # whatever a user's forward raises of other values: it reads them
        return True
    return not relative(answer, number.answer) <= tolerance(number.answer)
