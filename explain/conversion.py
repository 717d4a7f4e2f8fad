"""An explanation as other libraries know it: pandas, networkx, torch_geometric, shap."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from explain.credit import Credit

if TYPE_CHECKING:
    import networkx as nx
    import pandas as pd
    import shap
    import torch_geometric.explain

Node: TypeAlias = int | tuple[str, int]  # a node as its user knows it: a number, with its type where there are types


def named_nodes(explanation: Credit, nodes: Iterable[int]) -> list[Node]:
    """Nodes by their numbers in the geometry, which counts through all types, as the user knows them."""
    sizes: dict[str, int] = explanation.target.get("node_types", {})
    if not sizes:
        return list(nodes)
    types, starts = list(sizes), list(accumulate(sizes.values(), initial=0))[:-1]
    found = [(node, bisect_right(starts, node) - 1) for node in nodes]
    return [(types[kind], node - starts[kind]) for node, kind in found]


def node_labels(explanation: Credit, nodes: Iterable[int]) -> list[str]:
    """What nodes are called in a picture of them: their names, else their numbers within their types."""
    names: list[str] | None = explanation.target.get("node_names")
    if names is not None:
        return [names[node] for node in nodes]
    return [str(node[1] if isinstance(node, tuple) else node) for node in named_nodes(explanation, nodes)]


def to_pandas(explanation: Credit) -> pd.DataFrame:
    """Index: names. Columns: ``score``, ``error`` (NaN where unknown), ``rank`` (1 = largest absolute score), then ids:
    ``id``, or ``id_0, id_1, ...`` for an index ``[P, k]``, and ``source``, ``target`` for edges (in a heterogeneous
    graph ``(type, number)``).
    """
    import pandas as pd

    players = explanation.players
    unknown = torch.full_like(explanation.scores, float("nan"))
    error = unknown if explanation.error is None else explanation.error
    columns = {"score": explanation.scores, "error": error, "rank": explanation.order().argsort() + 1}
    if players.index.dim() == 1:
        columns["id"] = players.index
    else:
        columns |= {f"id_{i}": column for i, column in enumerate(players.index.unbind(1))}
    table: dict[str, Any] = {name: column.cpu().numpy() for name, column in columns.items()}
    if "ends" in players.geometry:
        source, target = players.geometry["ends"].tolist()
        table |= {"source": named_nodes(explanation, source), "target": named_nodes(explanation, target)}
    return pd.DataFrame(table, index=pd.Index(players.names, dtype=object))


def context(explanation: Credit) -> tuple[Tensor, list[int]]:
    """The drawn graph, ``edge_index [2, C]`` in node ids, and for each of its columns the edge player or -1.

    Parallel edges get their players in order. Where a player owns both directions, both columns are its own.

    Raises:
        ValueError: the players do not live on a graph.
    """
    players = explanation.players
    if "edge_index" not in players.geometry:
        raise ValueError(
            f"{players.kind} have no graph to show; nodes, edges and training nodes have one: use to_pandas()"
        )
    edge_index = players.geometry["edge_index"].cpu()
    if "owner" in players.geometry:  # players that own several edges
        return edge_index, players.geometry["owner"].tolist()
    waiting = _waiting(explanation)
    owner = [waiting[pair].pop(0) if waiting[pair] else -1 for pair in _pairs(edge_index)]
    drawn = set(owner)
    left = [(pair, player) for pair, queue in waiting.items() for player in queue]
    extra = [(pair, player) for pair, player in left if player not in drawn]  # shown even where the context lacks them
    if extra:
        edge_index = torch.cat([edge_index, torch.tensor([pair for pair, _ in extra]).t()], 1)
        owner += [player for _, player in extra]
    return edge_index, owner


def undirected(explanation: Credit) -> bool:
    """Whether a player owns both directions of its edge."""
    return explanation.players.kind == "edges" and explanation.players.groups is not None


def node_players(explanation: Credit) -> Tensor | None:
    """The node id of each player, ``[P]``, where players are nodes."""
    players = explanation.players
    if players.kind == "node_features":  # several players in a node
        return None
    found = players.geometry.get("node", players.index if players.kind == "nodes" else None)
    return None if found is None or found.dim() != 1 else found.cpu()


def node_ids(explanation: Credit, edge_index: Tensor) -> Tensor:
    """Every node of the picture: the context's, the explained ones and the players', sorted."""
    focus = explanation.players.geometry.get("focus", torch.zeros(0, dtype=torch.int64)).cpu()
    nodes = node_players(explanation)
    return torch.cat([edge_index.flatten(), focus.flatten(), *([] if nodes is None else [nodes])]).unique()


def to_networkx(explanation: Credit) -> nx.MultiDiGraph:
    """The graph context in global node ids, ``(type, number)`` in a heterogeneous graph; parallel edges are kept.

    Players carry ``player`` (name), ``score`` and, where known, ``error``; explained nodes carry ``focus=True``, nodes
    that have names ``name``. Where a player owns both directions of an edge, both carry its score.

    Raises:
        ValueError: the players do not live on a graph.
    """
    import networkx as nx

    edge_index, owner = context(explanation)
    focus = set(explanation.players.geometry.get("focus", torch.zeros(0)).flatten().tolist())
    graph = nx.MultiDiGraph(method=explanation.method, value=explanation.value)
    ids = node_ids(explanation, edge_index).tolist()
    names = dict(zip(ids, named_nodes(explanation, ids), strict=True))
    graph.add_nodes_from((names[node], {"focus": node in focus}) for node in ids)
    if "node_names" in explanation.target:
        for node, label in zip(ids, node_labels(explanation, ids), strict=True):
            graph.nodes[names[node]]["name"] = label
    for (source, target), player in zip(_pairs(edge_index), owner, strict=True):
        graph.add_edge(names[source], names[target], **(_attributes(explanation, player) if player >= 0 else {}))
    nodes = node_players(explanation)
    if nodes is not None:
        for player, node in enumerate(nodes.tolist()):
            graph.nodes[names[node]].update(_attributes(explanation, player))
    return graph


def to_pyg(explanation: Credit) -> torch_geometric.explain.Explanation:
    """The graph context relabelled from 0, ``node_id`` holding the global ids, ``player_id`` the players' index.

    In a heterogeneous graph ``node_id`` is the number within the type, and ``node_type`` the type by its position in
    ``node_type_names``.

    Edge players give ``edge_mask [edges]``, node players ``node_mask [nodes, 1]``, feature players ``node_mask [1,
    features]``; what is no player has 0. Scores keep their sign.

    Raises:
        ValueError: the players live neither on a graph nor on features.
    """
    import torch_geometric.explain

    players = explanation.players
    common = {"player_id": players.index, "value": explanation.value, "method": explanation.method}
    if players.kind == "features":
        ids = players.index if players.index.dim() == 1 else torch.arange(len(players))
        mask = torch.zeros(1, int(ids.max()) + 1 if len(ids) else 0)
        mask[0, ids] = explanation.scores.float()
        return torch_geometric.explain.Explanation(
            node_mask=mask, edge_index=torch.zeros(2, 0, dtype=torch.int64), num_nodes=1, **common
        )
    edge_index, owner = context(explanation)
    ids = node_ids(explanation, edge_index)
    made = torch_geometric.explain.Explanation(
        edge_index=torch.searchsorted(ids, edge_index.contiguous()), node_id=ids, num_nodes=len(ids), **common
    )
    if types := list(explanation.target.get("node_types", {})):
        named = named_nodes(explanation, ids.tolist())
        made.node_type = torch.tensor([types.index(node[0]) for node in named if isinstance(node, tuple)])
        made.node_id = torch.tensor([node[1] for node in named if isinstance(node, tuple)])
        made.node_type_names = types
    focus = players.geometry.get("focus")
    if focus is not None:
        made.index = torch.searchsorted(ids, focus.cpu().flatten())
    nodes = node_players(explanation)
    if nodes is not None:
        made.node_mask = torch.zeros(len(ids), 1)
        made.node_mask[torch.searchsorted(ids, nodes), 0] = explanation.scores.float()
    else:
        padded = torch.cat([explanation.scores.float(), torch.zeros(1)])  # -1: no player
        made.edge_mask = padded[torch.tensor(owner, dtype=torch.int64)]
    return made


def to_shap(*explanations: Credit) -> shap.Explanation:
    """One row of ``shap`` values, accepted by ``shap.plots.bar`` and ``shap.plots.waterfall``; of several explanations
    over the same players a row each, accepted by ``shap.plots.beeswarm``.

    ``base_values`` is ``base``, and NaN where the method has none: its scores lead from nowhere, which a waterfall
    asks for, and bars do not. ``data`` is what each feature is, where players are features of a table.

    Raises:
        ValueError: no explanations, or of other players than the first.
    """
    import shap

    if not explanations or any(one.players.names != explanations[0].players.names for one in explanations):
        raise ValueError("shap's rows are explanations over the same players: give one or more with the same names")
    values = np.stack([one.scores.numpy() for one in explanations])
    bases = [math.nan if one.base is None else one.base for one in explanations]
    data = None
    if all("values" in one.players.geometry for one in explanations):
        data = np.stack([one.players.geometry["values"].numpy() for one in explanations])
    single = len(explanations) == 1
    return shap.Explanation(
        values=values[0] if single else values,
        base_values=bases[0] if single else np.array(bases),
        data=data[0] if single and data is not None else data,
        feature_names=list(explanations[0].players.names),
    )


def _waiting(explanation: Credit) -> defaultdict[tuple[int, int], list[int]]:
    """The edge players of each pair of nodes, in order."""
    waiting: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    ends = explanation.players.geometry.get("ends")
    if ends is None:
        return waiting
    both = undirected(explanation)
    for player, (source, target) in enumerate(_pairs(ends)):
        waiting[source, target].append(player)
        if both and source != target:
            waiting[target, source].append(player)
    return waiting


def _pairs(edge_index: Tensor) -> list[tuple[int, int]]:
    return [(source, target) for source, target in edge_index.t().tolist()]


def _attributes(explanation: Credit, player: int) -> dict[str, Any]:
    found = {"player": explanation.players.names[player], "score": float(explanation.scores[player])}
    return found if explanation.error is None else found | {"error": float(explanation.error[player])}
