"""SubgraphX: Monte Carlo tree search for the connected subgraph that matters most."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field

import torch
from torch import Tensor

from explain.explainer import Answer, Explainer
from explain.progress import in_sight
from explain.types import Game, Players, Target, Unsupported, expect_graph

Nodes = frozenset[int]  # players of a subgraph
_STEERING = 4  # how many times fewer coalitions for subgraphs too large to be the answer: three times faster


@dataclass(frozen=True)
class SubgraphX(Explainer):
    """The connected subgraph ``S`` of at most ``size`` nodes with the largest Shapley value (Yuan et al. 2021).

    The reward of ``S`` is its Shapley value as *one* player among the nodes ``R`` within ``hops`` of it,
    ``phi(S) = E_T [v(T + S) - v(T)]`` over coalitions ``T`` of ``R``, everyone further away being present. A state of
    the search is a connected subgraph (holding the explained node, where there is one); an action takes a node away and
    keeps what is still connected. Actions are chosen by ``Q + c * reward * sqrt(sum N) / (1 + N)``. All children of a
    state are evaluated in one batch, and every subgraph once.

    The subgraph's value is shared equally among its nodes; every other node has zero.

    Not for: the credit of single nodes: all of the subgraph get the same, and all others nothing.

    Args:
        size: the most nodes of the answer, the explained one not counted.
        players: "nodes", or `Players` of that kind.
        rollouts: paths from the whole down to a leaf.
        samples: coalitions ``T`` for each subgraph that may be the answer, at least 2, and a quarter as many for larger
            ones, which only steer the search; all of them where there are not more.
        hops: how far the neighbours reach that a subgraph is played against: the receptive field of the network.
        children: the most actions of a state, nodes with the fewest connections first.
        explore: ``c`` above.
        seed: of the coalitions.
        progress: a bar where it takes more than five seconds.

    ``checks``: ``value`` (the subgraph's Shapley value), ``value_error`` (its standard error, None where exact),
    ``subgraphs`` (evaluated), ``nodes`` (in the answer). ``parts["subgraph"]`` says who.

    Raises:
        ValueError: a setting out of range.
        Unsupported: players that are not the nodes of a graph.

    >>> SubgraphX(size=4, seed=0).rollouts
    20
    """

    size: int = 5
    players: str | Players = "nodes"
    rollouts: int = 20
    samples: int = 64
    hops: int = 2
    children: int = 12
    explore: float = 10.0
    seed: int | torch.Generator | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("size", 1), ("rollouts", 1), ("samples", 2), ("hops", 1), ("children", 1)):
            number = getattr(self, name)
            if isinstance(number, bool) or not isinstance(number, int) or number < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, got {number!r}")
        if not (self.explore >= 0 and math.isfinite(self.explore)):
            raise ValueError(f"explore must be 0 or more, got {self.explore}")

    def _answer(self, target: Target, generator: torch.Generator) -> Answer:
        expect_graph(target, "neighbourhood", "SubgraphX plays with the nodes of a graph")
        game = target.game(self.players)
        base, value = game.ends()
        rewards = Rewards(game, Neighbours(game.players), self.samples, self.size, self.hops, generator)
        best = _search(self, rewards) if len(game.players) else frozenset()
        members = torch.zeros(len(game.players), dtype=torch.bool)
        members[list(best)] = True
        found = rewards.found.get(best, (0.0, None))
        return Answer(
            scores=members.double() * found[0] / max(len(best), 1),
            players=game.players,
            value=value,
            base=base,
            parts={"subgraph": members},
            checks={
                **game.checks,
                "value": found[0],
                "value_error": found[1],
                "subgraphs": len(rewards.found),
                "nodes": len(best),
            },
            calls=game.calls,
        )


class Neighbours:
    """Who is connected to whom among the players; the explained node, if any, is ``P``.

    Raises:
        Unsupported: players that are not nodes of a graph.
    """

    def __init__(self, players: Players) -> None:
        geometry = players.geometry
        if players.kind != "nodes" or not {"node", "edge_index", "focus"} <= set(geometry):
            raise Unsupported(f'SubgraphX plays with the nodes of a graph, players "nodes"; got {players.kind!r}')
        number = {node: i for i, node in enumerate(geometry["node"].tolist())}
        focus = [node for node in geometry["focus"].tolist() if node not in number]
        self.count, self.rooted = len(number), bool(focus)
        number |= dict.fromkeys(focus, self.count)
        self.of: list[set[int]] = [set() for _ in range(self.count + 1)]
        for source, target in geometry["edge_index"].t().tolist():
            if source in number and target in number and number[source] != number[target]:
                self.of[number[source]].add(number[target])
                self.of[number[target]].add(number[source])

    def connected(self, nodes: Nodes) -> Nodes:
        """The component of these players that holds the explained node; the largest where none is explained."""
        if self.rooted:
            return self._reach(self.count, nodes)
        left, best = set(nodes), frozenset[int]()
        while left:
            part = self._reach(min(left), nodes)
            left -= part
            best = max(best, part, key=len)
        return best

    def around(self, nodes: Nodes, hops: int) -> Nodes:
        """Players within so many hops of these, themselves left out."""
        reached = set(nodes)
        for _ in range(hops):
            reached |= {other for node in reached for other in self.of[node]}
        return frozenset(reached - nodes - {self.count})

    def degree(self, node: int, nodes: Nodes) -> int:
        """Connections of a player into these."""
        return len(self.of[node] & nodes)

    def _reach(self, start: int, nodes: Nodes) -> Nodes:
        seen, queue = {start}, deque([start])
        while queue:
            for other in self.of[queue.popleft()]:
                if other in nodes and other not in seen:
                    seen.add(other)
                    queue.append(other)
        return frozenset(seen - {self.count})


@dataclass
class Rewards:
    """Shapley values of subgraphs, each measured once: ``found[S]`` is the value and its standard error."""

    game: Game
    neighbours: Neighbours
    samples: int
    size: int
    hops: int
    generator: torch.Generator
    found: dict[Nodes, tuple[float, float | None]] = field(default_factory=dict)

    def measure(self, subgraphs: list[Nodes]) -> None:
        """Evaluate those that are new, all in one batch."""
        new = [each for each in dict.fromkeys(subgraphs) if each not in self.found]
        if not new:
            return
        drawn = [self._coalitions(each) for each in new]
        values = self.game(torch.cat([masks for masks, _ in drawn]))
        for each, (_, weights), part in zip(new, drawn, values.split([len(masks) for masks, _ in drawn]), strict=True):
            joined, alone = part.chunk(2)
            gains = joined - alone
            mean = float(gains @ weights) if weights is not None else float(gains.mean())
            error = None if weights is not None else float(gains.std() / len(gains) ** 0.5)
            self.found[each] = (mean, error)

    def _coalitions(self, nodes: Nodes) -> tuple[Tensor, Tensor | None]:
        """Masks with the subgraph, then without, over coalitions of its neighbours; weights where they are all."""
        around, players = sorted(self.neighbours.around(nodes, self.hops)), len(self.game.players)
        others = len(around)
        samples = self.samples if len(nodes) <= self.size else max(2, self.samples // _STEERING)
        if 2**others <= samples:
            present = (torch.arange(2**others)[:, None] >> torch.arange(others) & 1).bool()
            sizes = present.sum(1)
            shares = [1 / ((others + 1) * math.comb(others, s)) for s in sizes.tolist()]
            weights = torch.tensor(shares, dtype=torch.float64)
        else:  # the size uniformly, then who: as the Shapley value weighs them
            sizes = torch.randint(others + 1, (samples, 1), generator=self.generator)
            ranks = torch.rand(samples, others, generator=self.generator).argsort(1).argsort(1)
            present, weights = ranks < sizes, None
        without = torch.ones(len(present), players, dtype=torch.bool)
        without[:, around] = present
        without[:, list(nodes)] = False
        joined = without.clone()
        joined[:, list(nodes)] = True
        return torch.cat([joined, without]), weights


@dataclass
class _State:
    """A subgraph in the tree: its reward ``prior``, visits, their total, and its children."""

    nodes: Nodes
    prior: float
    visits: int = 0
    total: float = 0.0
    children: list[_State] | None = None


def _search(settings: SubgraphX, rewards: Rewards) -> Nodes:
    """The best subgraph of at most ``size`` nodes that a rollout came by."""
    everyone = rewards.neighbours.connected(frozenset(range(rewards.neighbours.count)))
    rewards.measure([everyone])
    root = _State(everyone, rewards.found[everyone][0])
    states = {everyone: root}
    for _ in in_sight(range(settings.rollouts), desc="rollouts", progress=settings.progress):
        _rollout(root, settings, rewards, states)
    small = [nodes for nodes in rewards.found if 0 < len(nodes) <= settings.size]
    return max(small, key=lambda nodes: rewards.found[nodes][0], default=frozenset())


def _rollout(root: _State, settings: SubgraphX, rewards: Rewards, states: dict[Nodes, _State]) -> None:
    """Walk from the whole to a subgraph of one node, and tell every state on the way the best small reward met."""
    path = [root]
    while len(path[-1].nodes) > 1:
        if path[-1].children is None:
            path[-1].children = _expanded(path[-1].nodes, settings, rewards, states)
        if not path[-1].children:
            break
        path.append(_most_promising(path[-1].children, settings.explore))
    small = [state.prior for state in path if len(state.nodes) <= settings.size]
    reward = max(small, default=path[-1].prior)
    for state in path:
        state.visits += 1
        state.total += reward


def _most_promising(children: list[_State], explore: float) -> _State:
    """By ``Q + c * reward * sqrt(sum N) / (1 + N)``; where rewards are negative, those above the least of them.

    A negative reward would hold back the subgraphs that nobody has seen, and the search would go one way for ever.
    """
    visited = math.sqrt(max(1, sum(child.visits for child in children)))
    least = min(0.0, *(child.prior for child in children))

    def promise(child: _State) -> float:
        known = child.total / child.visits if child.visits else 0.0
        return known + explore * visited * (child.prior - least) / (1 + child.visits)

    return max(children, key=promise)


def _expanded(nodes: Nodes, settings: SubgraphX, rewards: Rewards, states: dict[Nodes, _State]) -> list[_State]:
    """What is left of a subgraph without each of its nodes, the least connected first."""
    neighbours = rewards.neighbours
    order = sorted(nodes, key=lambda node: (neighbours.degree(node, nodes), node))[: settings.children]
    left = list(dict.fromkeys(neighbours.connected(nodes - {node}) for node in order))
    left = [each for each in left if each]
    rewards.measure(left)
    for each in left:
        states.setdefault(each, _State(each, rewards.found[each][0]))
    return [states[each] for each in left]
