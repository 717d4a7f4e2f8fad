"""Explanations made by other libraries, as answers here, to be compared with ours: torch_geometric, captum, shap.

Another library gives credit to entries of what a model was given. Whose entries they are is the target's to say, and is
proved: shapes, ends of edges and names must agree, and credit of what is no player is told.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import torch
from torch import Tensor

from explain.credit import Credit
from explain.doubts import doubt, kept
from explain.types import Players, Target, Unsupported

if TYPE_CHECKING:
    import shap
    import torch_geometric.explain

Kind = TypeVar("Kind", bound=Credit)
_ON_NODES = ("nodes", "features", "node_features")
COMPLETE, ROUNDED = 1e-3, 1e-5  # of two changes of a number that are taken for one; of the numbers themselves


class Said(NamedTuple):
    """What a user says of attributions: their class, captum's ``delta``, and from which baseline they lead."""

    label: int | None = None
    delta: float | Tensor | None = None
    baseline: float | Tensor = 0.0


def from_shap(found: shap.Explanation, target: Target | None, players: str | Players, kind: type[Kind]) -> Kind:
    """One row of shap values; `explain.Explanation.from_shap` says the rest.

    Raises:
        ValueError: several rows or outputs, another number of players than the target's, or neither base nor target.
    """
    scores = torch.as_tensor(found.values, dtype=torch.float64)
    base = torch.as_tensor(found.base_values, dtype=torch.float64)
    if scores.dim() != 1 or base.numel() != 1:
        raise ValueError(
            f"one row of one output was expected, values [features], got {list(scores.shape)} with {base.numel()} base "
            "values: give found[0], or found[0, :, label] where there are several outputs"
        )
    total = float(base) + float(scores.sum())
    unknown = bool(base.isnan())
    if target is None:
        if unknown:
            raise ValueError("without a base the values do not tell the number that they lead to: give the target")
        names = tuple(map(str, found.feature_names)) if found.feature_names is not None else ()
        played, value, asked = Players("features", torch.arange(len(scores)), names), total, {}
    else:
        played, value, asked = _players(target, players), target.value(), target.describe()
    if len(played) != len(scores):
        raise ValueError(f"{len(scores)} values were given, and the target has {len(played)} {played.kind}")
    checks = {"made_by": "shap", **({} if target is None or unknown else {"efficiency_gap": abs(value - total)})}
    known = None if unknown else float(base)
    return kind(scores, played, value, known, method="SHAP", target=asked, checks=checks)


def from_captum(
    attributions: Tensor, target: Target, players: str | Players, method: str, said: Said, kind: type[Kind]
) -> Kind:
    """Attributions of one input; `explain.Explanation.from_captum` says the rest.

    Raises:
        TypeError: no tensor.
        ValueError: of another shape than the input that is explained, of another class, or not complete as was said.
    """
    if not isinstance(attributions, Tensor):
        raise TypeError(
            f"a tensor was expected, the attributions of one input, got {type(attributions).__name__}: of a tuple give "
            "the one of the input whose entries play"
        )
    played = _players(target, players)
    credit = attributions.detach().to("cpu", torch.float64)
    if "edge_index" in played.geometry or target.describe().get("family") == "graph":
        scores, left = _of_nodes(credit, played)
        with kept() as doubts:
            proofs = _of_this_number(float(credit.sum()), target, played, said)
        return _answer(scores, left, played, target, method, "captum", kind, proofs, doubts)
    owner = target.differentiable(played).owner.cpu()
    if credit.shape not in (owner.shape, (1, *owner.shape)):
        raise ValueError(
            f"attributions of the input that the target explains were expected, {list(owner.shape)}, got "
            f"{list(credit.shape)}"
        )
    sums = credit.new_zeros(len(played) + 1).index_add_(0, owner.reshape(-1) + 1, credit.reshape(-1))
    with kept() as doubts:
        proofs = _of_this_number(float(credit.sum()), target, played, said)
    return _answer(sums[1:], float(sums[0]), played, target, method, "captum", kind, proofs, doubts)


def _of_this_number(total: float, target: Target, players: Players, said: Said) -> dict[str, float]:
    """How far attributions with this sum are from what the target's number changes by from the baseline to the input.

    Where they agree the attributions are of this very number; where they should and do not they are of another. Where
    neither is known they may be of any class: that is doubted, unless the class is said or there is but one.

    Raises:
        ValueError: of another class than the target's, or not complete though ``delta`` was given.
    """
    asked = target.describe().get("label")
    if asked is not None and said.label is not None and said.label != asked:
        raise ValueError(f"attributions of class {said.label} were given, and the target asks about class {asked}")
    ends = _ends(target, players, said.baseline)
    if ends is not None:
        change = ends[0] - ends[1]
        missing = 0.0 if said.delta is None else float(torch.as_tensor(said.delta).detach())
        gap = abs(total - missing - change)
        if gap <= max(COMPLETE * max(abs(total), abs(change)), ROUNDED * max(map(abs, ends))):
            return {"completeness_gap": gap}
        if said.delta is not None:
            raise ValueError(
                f"the attributions less delta={missing:.4g} sum to {total - missing:.4g}, and the number changes by "
                f"{change:.4g} from the baseline to the input: they are of another class or number, or from another "
                "baseline=; ask about theirs, wrap(...).example(x, label=, payoff='logit')"
            )
    if said.label is None and asked is not None:
        doubt(
            f"nothing tells that these attributions are of class {asked}, which the target asks about: say label=, the "
            "target= that captum was given, or delta=, which it returns with return_convergence_delta=True"
        )
    return {}


def _ends(target: Target, players: Players, baseline: float | Tensor) -> tuple[float, float] | None:
    """The number of the input and of a baseline; None where it cannot be asked of one.

    Raises:
        ValueError: a baseline that is not like the input.
    """
    try:
        f = target.differentiable(players)
    except Unsupported:
        return None
    absent = torch.as_tensor(baseline, dtype=f.inputs.dtype, device=f.inputs.device)
    if absent.dim() and absent.shape not in (f.inputs.shape, f.inputs.shape[1:]):
        raise ValueError(
            f"baseline must be a number or like the input, {list(f.inputs.shape[1:])}, got {list(absent.shape)}"
        )
    with torch.no_grad():
        full, empty = f.f(torch.cat([f.inputs, absent.expand_as(f.inputs)])).tolist()
    return full, empty


def from_pyg(
    found: torch_geometric.explain.Explanation,
    target: Target,
    players: str | Players,
    method: str,
    kind: type[Kind],
) -> Kind:
    """Masks of one graph; `explain.Explanation.from_pyg` says the rest.

    Raises:
        ValueError: the players' mask is missing, or of another graph, node or class.
    """
    played = _players(target, players)
    _check_asked(found, target, played)
    name = "edge_mask" if played.kind == "edges" else "node_mask"
    if found.get(name) is None:
        held = ", ".join(found.available_explanations) or "no mask"
        raise ValueError(f"credit of {played.kind} is read from {name}, and this explanation has {held}")
    credit = found[name].detach().to("cpu", torch.float64)
    if played.kind == "edges":
        scores, left = _of_edges(credit, found, played)
    else:
        scores, left = _of_nodes(_at_home(credit, found), played)
    return _answer(scores, left, played, target, method, "torch_geometric", kind)


def _check_asked(found: torch_geometric.explain.Explanation, target: Target, players: Players) -> None:
    """Check that the node and class that torch_geometric says it explains are the target's.

    Raises:
        ValueError: they are others.
    """
    index, classes, asked = found.get("index"), found.get("target"), target.describe()
    focus = players.geometry.get("focus")
    at = 0
    if asked.get("task") == "node" and "node_type" not in found:
        if index is None or index.numel() != 1 or focus is None or focus.numel() != 1:
            return
        at = int(index)
        node = int(found.node_id[at]) if "node_id" in found else at
        if node != int(focus):
            raise ValueError(f"an explanation of node {node} was given, and the target asks about node {int(focus)}")
    elif asked.get("task") != "graph" or classes is None or classes.numel() != 1:
        return
    if classes is None or classes.is_floating_point() or not at < classes.numel() or asked.get("label") is None:
        return
    if (label := int(classes.reshape(-1)[at])) != asked["label"]:
        raise ValueError(f"an explanation of class {label} was given, and the target asks about class {asked['label']}")


def _players(target: Target, players: str | Players) -> Players:
    if not isinstance(target, Target):
        raise TypeError(f"a target such as explain.wrap(model, data).node(3) was expected, got {type(target).__name__}")
    return target.players(players) if isinstance(players, str) else players


def _answer(
    scores: Tensor, left: float, players: Players, target: Target, method: str, library: str, kind: type[Kind],
    proofs: Mapping[str, float] = MappingProxyType({}), doubted: Sequence[str] = (),
) -> Kind:  # fmt: skip
    with kept() as doubts:
        if abs(left) > 1e-6 * float(scores.abs().sum()):
            doubt(f"credit of {left:.4g} is of what is no player of this target; it is left out")
    checks = {"made_by": library, "left_out": left, **proofs}
    told = (*doubted, *doubts)
    return kind(scores, players, target.value(), method=method, target=target.describe(), checks=checks, doubts=told)


def _at_home(credit: Tensor, found: torch_geometric.explain.Explanation) -> Tensor:
    """Rows by the nodes' numbers in the whole graph, where the explanation is of a part that knows them."""
    if "node_id" not in found or credit.size(0) != len(found.node_id):
        return credit
    whole = credit.new_zeros(int(found.node_id.max()) + 1 if len(found.node_id) else 0, *credit.shape[1:])
    whole[found.node_id.cpu()] = credit
    return whole


def _of_nodes(credit: Tensor, players: Players) -> tuple[Tensor, float]:
    """Sums over rows (nodes), columns (features), or entries of ``[nodes, features]``, and what is left of all.

    Raises:
        ValueError: players that such a mask does not tell apart, or a mask too small for them.
    """
    if players.kind not in _ON_NODES:
        raise ValueError(
            f"a mask over nodes gives credit to {', '.join(_ON_NODES)}, got players {players.kind!r}: of edges "
            "Explanation.from_pyg takes an explanation with its edge_index, which says which edges they are"
        )
    entries = players.kind == "node_features"
    if players.groups is not None or players.index.dim() != 1 + entries:
        raise ValueError("groups, windows and nodes of several types are not read from a mask of another library")
    credit = credit[0] if credit.dim() == 3 and len(credit) == 1 else credit
    if credit.dim() != 2:
        raise ValueError(f"a mask [nodes, features] was expected, got {list(credit.shape)}")
    at = players.index.cpu()
    if entries:
        sums, place = credit, tuple(at.unbind(1))
    else:
        sums, place = credit.sum(1 if players.kind == "nodes" else 0), (at,)
    if any(len(at) and int(each.max()) >= size for each, size in zip(place, sums.shape, strict=True)):
        raise ValueError(
            f"a mask [nodes, features] with an entry for each of the players' {players.kind} was expected, up to "
            f"{[int(each.max()) for each in place]}, got {list(credit.shape)}"
        )
    return sums[place], float(credit.sum() - sums[place].sum())


def _of_edges(credit: Tensor, found: torch_geometric.explain.Explanation, players: Players) -> tuple[Tensor, float]:
    """Credit of each player's edges, found by their ends, parallel ones in order, and of all that nobody owns.

    Both directions of a pair are summed; but where `to_pyg` wrote the pair's credit at both, it is read once.

    Raises:
        ValueError: not one number an edge, or a player whose edge is not there.
    """
    ends = found.edge_index.cpu()
    if "node_id" in found:
        ends = found.node_id.cpu()[ends]
    if credit.shape != ends.shape[1:]:
        raise ValueError(f"edge_mask must have one number an edge, [{ends.size(1)}], got {list(credit.shape)}")
    waiting: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for column, (source, end) in enumerate(ends.t().tolist()):
        waiting[source, end].append(column)
    left, scores = credit.clone(), []
    both = players.groups is not None
    for name, (a, b) in zip(players.names, players.geometry["ends"].t().tolist(), strict=True):
        pairs = [(a, b), (b, a)] if both and a != b else [(a, b)]
        columns = [waiting[pair].pop(0) for pair in pairs if waiting[pair]]
        if not columns:
            raise ValueError(f"{name} plays, and the explanation's edge_index does not have it")
        scores.append(float(credit[columns[:1] if "player_id" in found else columns].sum()))
        left[columns] = 0
    return torch.tensor(scores, dtype=torch.float64), float(left.sum())
