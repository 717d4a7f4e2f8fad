"""Graphs whose nodes have types and whose edges have classes: steps and coalitions by hand, entry by entry."""

import itertools
import math

import pytest
import torch
from torch import nn

import explain
from explain import Interactions, Shapley
from explain.diffusion.categorical import Categorical
from explain.graph_diffusion.graph_states import GraphNoise

T, N, RUNS = 4, 4, 3
EDGES, TYPES = [0.5, 0.3, 0.2], [0.6, 0.4]
NOISE = GraphNoise(
    Categorical.marginal(torch.full((T,), 0.3), torch.tensor(EDGES)),
    Categorical.marginal(torch.full((T,), 0.2), torch.tensor(TYPES)),
)
GRAPH = torch.tensor([0, 1, 1, 0]), torch.tensor([[0, 1, 2, 0], [1, 0, 0, 2], [2, 0, 0, 1], [0, 2, 1, 0]])


class Bonds(nn.Module):
    """A pair by the types of its ends and the edges that both have; a type by the classes of its node's edges."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.4).double(), requires_grad=False)

    def forward(self, X, E, t):
        ends, late = X @ X.mT, (1 + 0.2 * t).view(-1, 1, 1)
        double, single = E[..., 2], E[..., 1]
        pairs = torch.stack([0.3 - ends, single @ single - 0.2 * double, double + 0.5 * ends], -1) / late[..., None]
        return (X + torch.stack([double.sum(2), single.sum(2)], -1) * self.weight) / late, E + pairs


def gumbel(p, uniform):
    """The class that the noise picks; a class of no share is never picked."""
    both = zip(p, uniform, strict=True)
    scores = [math.log(share) - math.log(-math.log(u)) if share > 0 else -math.inf for share, u in both]
    return scores.index(max(scores))


def uniforms(generator):
    """Noise of each type and of each pair, in plain numbers."""
    nodes = torch.rand(1, N, 2, generator=generator, dtype=torch.float64)[0].tolist()
    pairs = torch.rand(1, N, N, 3, generator=generator, dtype=torch.float64)[0].tolist()
    return nodes, {(i, j): pairs[i][j] for i, j in itertools.combinations(range(N), 2)}


def kept(rate, t):
    return (1 - rate) ** t


def share(limit, rate, t, now, clean):
    """``q(x_t = now | x_0 = clean)``."""
    return kept(rate, t) * (now == clean) + (1 - kept(rate, t)) * limit[now]


def before(limit, rate, t, now, foreseen):
    """``p(x_{t-1} | x_t)``, by Bayes' rule over each clean class."""
    found = [0.0] * len(limit)
    for clean, p in enumerate(foreseen):
        for last in range(len(limit)):
            one_step = (1 - rate) * (now == last) + rate * limit[now]
            found[last] += p * one_step * share(limit, rate, t - 1, last, clean) / share(limit, rate, t, now, clean)
    return found


def asked(types, pairs, t):
    """The network's probabilities of a graph in plain numbers."""
    X, E = torch.zeros(1, N, 2).double(), torch.zeros(1, N, N, 3).double()
    for i in range(N):
        X[0, i, types[i]] = 1
        for j in range(N):
            E[0, i, j, pairs[min(i, j), max(i, j)] if i != j else 0] = 1
    return [part.softmax(-1)[0].tolist() for part in Bonds()(X, E, torch.tensor([t]))]


def limited(noise, among=EDGES):
    nodes, pairs = noise
    return [gumbel(TYPES, u) for u in nodes], {pair: gumbel(among, u) for pair, u in pairs.items()}


def edited(own, other, types_there, pairs_there, classes_there):
    """The graph ``own`` with what is absent drawn from the limit by the noise ``other``."""
    types, pairs = limited(other)
    _, classes = limited(other, [0.0, *EDGES[1:]])
    found = {pair: own[1][pair] if pair in pairs_there else pairs[pair] for pair in pairs}
    found = {p: classes[p] if held and p not in classes_there else held for p, held in found.items()}
    return [own[0][i] if i in types_there else types[i] for i in range(N)], found


def run_of(seed, *there):
    """The graphs at the start and after each step."""
    generator = torch.Generator().manual_seed(seed)
    other = uniforms(torch.Generator().manual_seed((7 ^ 0x2545F4914F6CDD1D) + seed - 7))
    states = [edited(limited(uniforms(generator)), other, *there)]
    for t in range(T, 0, -1):
        (types, pairs), (p_nodes, p_pairs) = states[-1], asked(*states[-1], t)
        nodes, of_pairs = uniforms(generator)
        last = {(i, j): before(EDGES, 0.3, t, k, p_pairs[i][j]) for (i, j), k in pairs.items()}
        types = [gumbel(before(TYPES, 0.2, t, types[i], p_nodes[i]), nodes[i]) for i in range(N)]
        states.append((types, {pair: gumbel(p, of_pairs[pair]) for pair, p in last.items()}))
    return states


PAIRS = list(itertools.combinations(range(N), 2))
EVERY = (set(range(N)), set(PAIRS), set(PAIRS))


def molecule(types, pairs):
    """Double bonds, and types joined to others."""
    apart = (types[:, :, None] != types[:, None]) & (pairs > 0)
    return (pairs == 2).double().sum((1, 2)) + 0.3 * apart.double().sum((1, 2)) + types.double()[:, 0]


def read(types, pairs):
    apart = sum(types[i] != types[j] for (i, j), k in pairs.items() if k)
    return 2 * sum(k == 2 for k in pairs.values()) + 0.6 * apart + types[0]


@pytest.fixture(scope="module")
def model():
    return explain.wrap(Bonds(), process=NOISE, time="step")


@pytest.fixture(scope="module")
def run(model):
    return model.trajectory(N, payoff=molecule, seed=7, draws=RUNS)


def there(kind, players, mask):
    present = {players.index[i] if players.index.dim() == 1 else tuple(players.index[i].tolist()) for i in mask}
    own = {int(one) if kind in ("types", "nodes") else one for one in present}
    types, pairs, classes = EVERY
    if kind == "nodes":
        return own, {pair for pair in pairs if set(pair) <= own}, classes
    return {"types": (own, pairs, classes), "pairs": (types, own, classes), "edge_types": (types, pairs, own)}[kind]


def coalitions(count, few, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(few, count, generator=generator) < 0.5


def test_edits_and_settling_of_types_and_pairs_are_those_of_a_loop(run):
    states = [run_of(7 + draw, *EVERY) for draw in range(RUNS)]
    assert run.value() == pytest.approx(sum(read(*each[-1]) for each in states) / RUNS)
    edits, settled = run.edits(), run.commit_times()
    for draw, each in enumerate(states):
        assert run.types()[draw].tolist() == each[-1][0]
        for (i, j), k in each[-1][1].items():
            assert run.graphs()[draw, i, j] == run.graphs()[draw, j, i] == k
        for step, ((types, pairs), (types_after, pairs_after)) in enumerate(itertools.pairwise(each)):
            changes = [(pairs[pair], pairs_after[pair]) for pair in PAIRS]
            assert edits.added[step, draw] == sum(a == 0 and b > 0 for a, b in changes)
            assert edits.removed[step, draw] == sum(a > 0 and b == 0 for a, b in changes)
            assert edits.retyped[step, draw] == sum(a > 0 and b > 0 and a != b for a, b in changes)
            assert edits.nodes[step, draw] == sum(a != b for a, b in zip(types, types_after, strict=True))
        for i in range(N):
            same = [state[0][i] == each[-1][0][i] for state in each[1:]]
            assert settled.nodes[draw, i] == next(k for k in range(T) if all(same[k:]))
        for i, j in PAIRS:
            same = [state[1][i, j] == each[-1][1][i, j] for state in each[1:]]
            assert settled.pairs[draw, i, j] == settled.pairs[draw, j, i] == next(k for k in range(T) if all(same[k:]))
    assert all(int(part.sum()) > 0 for part in (*edits, *settled))  # each of them happens in these runs


@pytest.mark.parametrize("kind", ["types", "edge_types", "pairs", "nodes"])
def test_runs_without_some_of_their_start(run, kind):
    players = run.players(kind)
    masks = coalitions(len(players), 5)
    expected = []
    for mask in masks:
        held = there(kind, players, mask.nonzero()[:, 0])
        expected.append(sum(read(*run_of(7 + draw, *held)[-1]) for draw in range(RUNS)) / RUNS)
    assert run.game(kind)(masks).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["types", "edge_types", "pairs", "nodes"])
def test_credit_for_a_step_is_that_of_all_coalitions_by_hand(model, kind):
    step = model.step(GRAPH, t=2, edge=(0, 1), draws=2, seed=7)
    generator = torch.Generator().manual_seed(7)
    draws = [(uniforms(generator), uniforms(generator)) for _ in range(2)]
    clean = GRAPH[0].tolist(), {(i, j): int(GRAPH[1][i, j]) for i, j in PAIRS}

    def log_p(held):
        total = 0.0
        for (nodes, pairs), other in draws:
            own = (
                [gumbel([share(TYPES, 0.2, 2, k, clean[0][i]) for k in range(2)], nodes[i]) for i in range(N)],
                {p: gumbel([share(EDGES, 0.3, 2, k, clean[1][p]) for k in range(3)], pairs[p]) for p in PAIRS},
            )
            total += math.log(asked(*edited(own, other, *held), 2)[1][0][1][1])
        return total / 2

    players = step.players(kind)
    count = len(players)
    values = {
        own: log_p(there(kind, players, own))
        for size in range(count + 1)
        for own in itertools.combinations(range(count), size)
    }
    credit = [0.0] * count
    for own, value in values.items():
        for player in range(count):
            size = len(own)
            if player in own:
                credit[player] += value / (count * math.comb(count - 1, size - 1))
            else:
                credit[player] -= value / (count * math.comb(count - 1, size))
    why = Shapley(kind).explain(step)
    assert why.scores.tolist() == pytest.approx(credit, abs=1e-12)
    assert max(map(abs, credit)) > 1e-3
    assert (why.value, why.base) == pytest.approx((values[tuple(range(count))], values[()]))
    assert why.checks["removal"].startswith("another class" if kind == "edge_types" else "a draw of the limit")


def test_types_play_where_there_are_some(model, run):
    assert model.step(GRAPH, t=1, node=0).kinds == ("pairs", "edges", "nodes", "types", "edge_types")
    assert run.kinds == ("steps", "pairs", "nodes", "types", "edge_types")
    pairs = Interactions("types", index="shapley").explain(run).parts["interactions"]
    assert pairs.shape == (N, N)
    alike = explain.wrap(lambda E, t: E, process=GraphNoise(NOISE.edges), time="step")
    plain = alike.trajectory(3, payoff=lambda pairs: pairs.sum((1, 2)).float())
    assert plain.kinds == ("steps", "pairs", "nodes", "edge_types")
