"""Denoisers of whole graphs: each coalition is the step or the run by hand, with the limit where an entry is absent."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_geometric.data import Data

import explain
from explain import Gradient, Lime, Mask, Shapley, Unsupported
from explain.diffusion.categorical import Categorical, drawn
from explain.graph_diffusion.graph_states import GraphNoise, State

T = 5
NOISE = GraphNoise(Categorical.marginal(torch.full((T,), 0.3), torch.tensor([6, 4])))
TYPED = GraphNoise(
    Categorical.marginal(torch.full((T,), 0.3), torch.tensor([5, 3, 2])), Categorical.uniform(torch.full((T,), 0.2), 2)
)
GRAPH = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]])


class Closing(nn.Module):
    """A pair is an edge where it is one now, and the more so the more neighbours both have in common."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.8).double(), requires_grad=False)

    def forward(self, E, t):
        A = E[..., 1]
        common = A @ A / (1 + 0.1 * t).view(-1, 1, 1)
        return 1.5 * E + torch.stack([torch.zeros_like(A), self.weight * common - 0.5], -1)


def typed(net, X, E, t):
    """Pairs by the types of their ends, and types by how many edges there are."""
    return X + E[..., 1:].sum((2, 3))[..., None] * 0.1 * torch.tensor([1.0, -1.0]), E + (X @ X.mT)[
        ..., None
    ] * net.weight


def seeded(E, t):
    """Weighted by what is drawn from a seed of each row."""
    seeds = [int(1e6 * row.square().sum()) for row in E]
    drawn = [torch.rand((), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return E * torch.stack(drawn).view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def model():
    return explain.wrap(Closing(), process=NOISE, time="step")


def noises(seed, count, n=5, noise=NOISE):
    generator = torch.Generator().manual_seed(seed)
    return [noise.draw(n, generator, torch.zeros(()).double()) for _ in range(count)]


def clean():
    return F.one_hot(GRAPH, 2).double()[None]


def test_noise_is_the_same_both_ways_and_nobody_meets_itself():
    for draw in noises(0, 3):
        state = NOISE.noised(State(torch.ones(1, 5, 1).double(), clean()), draw, 3)
        assert torch.equal(state.pairs, state.pairs.transpose(1, 2))
        assert bool((state.pairs[0].diagonal()[0] == 1).all())
        assert torch.equal(NOISE.absent(draw).pairs, NOISE.absent(draw).pairs.transpose(1, 2))


def test_log_p_of_a_pair_with_some_of_the_graph_drawn_from_the_limit(model):
    asked = model.step(GRAPH, t=3, edge=(0, 1), draws=2, seed=4)
    assert asked.label == 1
    own, other, own2, other2 = noises(4, 4)

    def by_hand(held):
        total = 0.0
        for noise, absent in ((own, other), (own2, other2)):
            x = NOISE.noised(State(torch.ones(1, 5, 1).double(), clean()), noise, 3).pairs
            x = torch.where(held[None, ..., None], x, NOISE.absent(absent).pairs)
            total += Closing()(x, torch.tensor([3])).log_softmax(-1)[0, 0, 1, 1].item() / 2
        return total

    assert asked.value() == pytest.approx(by_hand(torch.ones(5, 5).bool()))
    edges, pairs, nodes = (asked.players(kind) for kind in ("edges", "pairs", "nodes"))
    assert (len(edges), len(pairs), len(nodes)) == (5, 10, 5)
    assert edges.names == ("0–1", "0–2", "1–2", "2–3", "3–4")
    masks = torch.rand(4, 10, generator=torch.Generator().manual_seed(0)) < 0.5
    expected = []
    for mask in masks:
        held = torch.ones(5, 5).bool()
        for (i, j), there in zip(pairs.index.tolist(), mask.tolist(), strict=True):
            held[i, j] = held[j, i] = there
        expected.append(by_hand(held))
    assert asked.game(pairs)(masks).tolist() == pytest.approx(expected)
    held = torch.ones(5, 5).bool()
    held[2] = held[:, 2] = False
    without = asked.game(nodes)(torch.tensor([[True, True, False, True, True]]))
    assert without.item() == pytest.approx(by_hand(held))
    why = Shapley("pairs").explain(asked)
    assert why.checks["removal"] == "a draw of the limit distribution"
    far = torch.tensor([i not in (0, 1) and j not in (0, 1) for i, j in pairs.index.tolist()])
    assert why.scores[far].abs().max() < 1e-12  # neither ends at the pair nor at a neighbour that both may share
    assert Lime("pairs", seed=0).explain(asked).value == pytest.approx(why.value)


def test_a_run_step_by_step_and_steps_that_do_not_look(model):
    def triangles(pairs):
        A = (pairs > 0).double()
        return (A @ A @ A).diagonal(dim1=1, dim2=2).sum(1) / 6

    asked = model.trajectory(5, payoff=triangles, draws=3, seed=7)

    def by_hand(looks):
        total = 0.0
        for seed in (7, 8, 9):
            draws = noises(seed, 1 + T)
            x, p = NOISE.absent(draws[0]).pairs, NOISE.edges.limit.expand(1, 5, 5, 2)
            for look, t, noise in zip(looks, range(T, 0, -1), draws[1:], strict=True):
                if look:
                    p = Closing()(x, torch.tensor([t])).softmax(-1)
                x = drawn(NOISE.edges.reverse(x, p, t), noise.pairs)
                x[0, range(5), range(5)] = torch.tensor([1.0, 0.0]).double()
            total += float(triangles(x.argmax(-1))) / 3
        return total

    assert asked.value() == pytest.approx(by_hand([True] * T))
    masks = torch.rand(3, T, generator=torch.Generator().manual_seed(1)) < 0.5
    assert asked.game("steps")(masks).tolist() == pytest.approx([by_hand(mask.tolist()) for mask in masks])
    with pytest.raises(ValueError, match="looks across rows"):
        model.trajectory(5, payoff=lambda pairs: pairs.sum((1, 2)) / pairs.double().mean())


def test_edits_and_settling_tell_the_run(model):
    asked = model.trajectory(6, payoff=lambda pairs: pairs.sum((1, 2)).double(), draws=2)
    edits, ends, start = asked.edits(), asked.graphs(), asked.start.pairs.argmax(-1)
    change = (edits.added - edits.removed).sum(0)
    assert change.tolist() == ((ends > 0).sum((1, 2)) - (start > 0).sum((1, 2))).div(2).tolist()
    assert not edits.retyped.any()
    nodes, times = asked.commit_times()
    assert (times.shape, int(times.max()) < T, int(times.min())) == ((2, 6, 6), True, 0)
    assert [int(part.sum()) for part in (nodes, edits.nodes, asked.types())] == [0, 0, 0]  # all nodes are alike
    assert asked.value() == pytest.approx(float(ends.sum((1, 2)).double().mean()))
    none, every = asked.game("nodes").ends()
    assert every == pytest.approx(asked.value())
    assert not torch.equal(asked.absent_start.entries.pairs, asked.start.pairs)
    assert none != every


def test_values_are_the_same_in_batches_of_any_size(model):
    steps = [model.step(GRAPH, t=2, edge=(0, 2), draws=3, batch_size=size) for size in (1, 64)]
    runs = [model.trajectory(4, payoff=lambda p: p.sum((1, 2)).double(), draws=2, batch_size=size) for size in (1, 64)]
    for (one, many), kind in ((steps, "pairs"), (steps, "nodes"), (runs, "steps"), (runs, "pairs")):
        masks = torch.rand(6, len(one.players(kind)), generator=torch.Generator().manual_seed(2)) < 0.5
        torch.testing.assert_close(one.game(kind)(masks), many.game(kind)(masks), rtol=1e-9, atol=1e-9)


def test_the_bound_by_its_terms(model):
    terms = model.bound(GRAPH, draws=2, seed=3)
    assert terms.shape == (T + 1,)
    nodes, pairs = model.step(GRAPH, t=4, edge=(0, 1), draws=2, seed=3).bound_terms()
    assert not nodes.any()
    assert float(pairs.triu(1).sum()) == pytest.approx(float(terms[3]))
    expected = 0.0
    for noise in noises(3, 4)[::2]:
        x = NOISE.noised(State(torch.ones(1, 5, 1).double(), clean()), noise, 4).pairs
        p = Closing()(x, torch.tensor([4])).softmax(-1)
        expected += float(NOISE.edges.divergence(x, clean(), p, 4)[0].triu(1).sum()) / 2
    assert float(terms[3]) == pytest.approx(expected)
    assert float(terms[-1]) == pytest.approx(float(NOISE.edges.prior_divergence(clean())[0].triu(1).sum()))


def test_types_of_nodes_and_classes_of_edges():
    net = nn.Module()
    net.weight = nn.Parameter(torch.tensor(0.3))
    model = explain.wrap(net, process=TYPED, call=typed)
    graph = Data(
        x=torch.tensor([[1, 0], [0, 1], [1, 0]]),
        edge_index=torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]),
        edge_attr=torch.tensor([2, 2, 1, 1]),
    )
    assert model.step(graph, t=1, node=1).label == 1
    bond = model.step(graph, t=2, edge=(0, 1))
    assert (bond.label, bond.describe()["entry"]) == (2, [0, 1])
    foreseen = bond.run()
    torch.testing.assert_close(foreseen.sum(-1), torch.ones(3, 3))
    why = Shapley("nodes").explain(bond)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, abs=1e-6)
    both = model.trajectory(3, payoff=lambda types, pairs: types.sum(1) + pairs.sum((1, 2)).float(), draws=2)
    assert both.value() >= 0
    nodes, pairs = bond.bound_terms()
    assert bool((nodes >= 0).all() and (pairs >= -1e-6).all())
    assert float(model.bound(graph).sum()) > 0


class OneWay(nn.Module):
    def forward(self, E, t):
        return E.triu() if E.dim() == 2 else E * torch.arange(E.size(1)).view(1, -1, 1, 1)


class Mixing(nn.Module):
    def forward(self, E, t):
        return E + E.mean(0)


@pytest.mark.parametrize(
    ("net", "options", "error", "message"),
    [
        (Closing(), {"process": NOISE}, TypeError, "in which unit does the network take its time"),
        (Closing(), {"process": NOISE.edges, "time": "step"}, TypeError, r"needs process=GraphNoise\(edges="),
        (Closing(), {"process": NOISE, "time": "sigma"}, ValueError, "time must be one of step, unit"),
        (lambda a, b: a, {"process": NOISE, "time": "step"}, TypeError, r"the arguments \(a, b\) .* cannot be told"),
        (lambda E, t: E[..., 0], {"process": NOISE, "time": "step"}, ValueError, "must answer logits of pairs"),
        (OneWay(), {"process": NOISE, "time": "step"}, ValueError, r"about \(i, j\) than about \(j, i\)"),
        (Mixing(), {"process": NOISE, "time": "step"}, ValueError, "a row of a batch otherwise than alone"),
        (lambda E, t: torch.rand_like(E), {"process": NOISE, "time": "step"}, ValueError, "not deterministic"),
        (seeded, {"process": NOISE, "time": "step"}, ValueError, "from a seed that its input makes"),
        (Closing(), {"process": NOISE, "time": "step", "task": "graph"}, ValueError, "has no task"),
    ],
)
def test_what_cannot_be_told_is_asked_for(net, options, error, message):
    with pytest.raises(error, match=message):
        explain.wrap(net, **options)


def test_questions_that_are_none(model):
    for asked, error, message in [
        (
            lambda: model.step(GRAPH, t=0, edge=(0, 1)),
            ValueError,
            "t must be a step of the schedule, whole, from 1 to 5",
        ),
        (lambda: model.step(GRAPH, t=1), ValueError, "ask about one entry of the clean graph"),
        (lambda: model.step(GRAPH, t=1, edge=(1, 1)), ValueError, "two different nodes"),
        (lambda: model.step(GRAPH, t=1, edge=(1, 7)), ValueError, "node must be from 0 to 4"),
        (lambda: model.step(GRAPH.triu(), t=1, edge=(0, 1)), ValueError, "pairs must be undirected"),
        (lambda: model.step(GRAPH * 2, t=1, edge=(0, 1)), ValueError, "classes of pairs must be from 0 to 1"),
        (lambda: model.step("graph", t=1, edge=(0, 1)), TypeError, "a graph is a torch_geometric Data"),
        (lambda: model.trajectory(4, payoff="edges"), ValueError, "payoff must be a function of the graphs"),
        (lambda: model.step(GRAPH, t=1, edge=(0, 1)).players("steps"), ValueError, "plays with pairs, edges, nodes"),
        (lambda: GraphNoise(NOISE.edges, Categorical.uniform(torch.ones(2) / 2, 2)), ValueError, "the same steps"),
    ]:
        with pytest.raises(error, match=message):
            asked()
    step = model.step(GRAPH, t=1, edge=(0, 1))
    with pytest.raises(Unsupported, match="does not offer differentiable"):
        Gradient("pairs").explain(step)
    with pytest.raises(Unsupported, match="learned masks"):
        Mask("edges").explain(step)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("features", "have a type.*no features: ask 'types', 'nodes'"),
        ("types", "nodes are all alike.*ask 'nodes'"),
        ("edge_types", "edges are all alike.*ask 'pairs'"),
        ("guidance", "without a condition.*'steps'"),
    ],
)
def test_players_of_other_denoisers_are_refused_with_the_reason(model, kind, why):
    asked = model.step(GRAPH, t=3, edge=(0, 1), draws=1)
    for question in (asked, model.trajectory(5, payoff=lambda pairs: pairs.sum((1, 2)).double(), draws=1)):
        with pytest.raises(ValueError, match=rf"a denoised graph plays with .*got '{kind}': .*{why}"):
            question.players(kind)
    with pytest.raises(Unsupported, match=why):
        asked.game(explain.Players(kind, torch.arange(2)))
    with pytest.raises(ValueError, match=r"plays with pairs, edges, nodes; got 'pixels'$"):
        asked.players("pixels")
