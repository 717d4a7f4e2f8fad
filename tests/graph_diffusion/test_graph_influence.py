"""Which training graphs are behind a step of a denoiser of graphs: the loss by hand, and trained again without each."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torch_geometric.data import Data

import explain
from explain import Influence, Unsupported
from explain.diffusion.categorical import Categorical
from explain.graph_diffusion.graph_states import GraphNoise, State

T, DRAWS, DECAY = 4, 4, 0.02
EDGES = Categorical.marginal(torch.full((T,), 0.3), torch.tensor([6, 4]))
NODES = Categorical.uniform(torch.full((T,), 0.2), 2)
PLAIN, TYPED = GraphNoise(EDGES), GraphNoise(EDGES, NODES)


class Linear(nn.Module):
    """Logits linear in what is counted around a pair, and around a node: the loss is convex in the weights."""

    def __init__(self, typed):
        super().__init__()
        self.of_pairs = nn.Linear(4, 2).double()
        self.of_nodes = nn.Linear(3, 2).double() if typed else None

    def forward(self, X, E, t):
        A, late = E[..., 1], t.view(-1, 1, 1).to(E) / T
        ends = A.sum(2, keepdim=True) + A.sum(1, keepdim=True)
        about = torch.stack([A, A @ A / 3, ends / 6, late.expand_as(A)], -1)
        if self.of_nodes is None:
            return self.of_pairs(about)
        about_nodes = torch.cat([X, A.sum(2, keepdim=True) / 3], -1)
        return self.of_nodes(about_nodes), self.of_pairs(about)


def drawn_graphs(sizes, seed=0):
    generator, found = torch.Generator().manual_seed(seed), []
    for n in sizes:
        pairs = (torch.rand(n, n, generator=generator) < 0.45).long().triu(1)
        found.append((torch.randint(0, 2, (n,), generator=generator), pairs + pairs.T))
    return found


def noised_by_hand(graphs, typed):
    """Of each graph the clean types and pairs, and each draw: its step and the noised state."""
    process, largest = TYPED if typed else PLAIN, max(len(pairs) for _, pairs in graphs)
    generator, found = torch.Generator().manual_seed(0), [(*graph, []) for graph in graphs]
    for draw in range(DRAWS):
        noise, t = process.draw(largest, generator, torch.zeros(()).double()), int((draw + 0.5) / DRAWS * T) + 1
        for types, pairs, draws in found:
            n = len(pairs)
            nodes = F.one_hot(types, 2).double() if typed else torch.ones(n, 1).double()
            clean = State(nodes[None], F.one_hot(pairs, 2).double()[None])
            draws.append((process.noised(clean, State(noise.nodes[:, :n], noise.pairs[:, :n, :n]), t), t))
    return found


def losses_by_hand(net, params, noised, kind, weight):
    """The loss of each graph, every draw after the other."""
    all_nodes = sum(len(pairs) for _, pairs, _ in noised) / len(noised)
    all_pairs = sum(len(pairs) * (len(pairs) - 1) / 2 for _, pairs, _ in noised) / len(noised)
    found = []
    for types, pairs, draws in noised:
        n, total = len(pairs), 0.0
        i, j = torch.triu_indices(n, n, 1)
        nodes, edges = (all_nodes, all_pairs) if kind == "entries" else (n, len(i))
        for state, t in draws:
            answer = torch.func.functional_call(net, params, (*state, torch.tensor([t])))
            of_nodes, of_pairs = answer if isinstance(answer, tuple) else (None, answer)
            total = total + weight * F.cross_entropy(of_pairs[0, i, j], pairs[i, j], reduction="sum") / edges / DRAWS
            if of_nodes is not None:
                total = total + F.cross_entropy(of_nodes[0], types, reduction="sum") / nodes / DRAWS
        found.append(total)
    return torch.stack(found)


def solved(graphs, kind, weight, typed, weights=None, start=None):
    """The minimum of the weighted loss by Newton's method, by name and as one vector."""
    net, noised = Linear(typed), noised_by_hand(graphs, typed)
    names, shapes = zip(*((name, p.shape) for name, p in net.named_parameters()), strict=True)
    sizes = [shape.numel() for shape in shapes]
    weights = torch.ones(len(graphs)).double() if weights is None else weights

    def named(theta):
        return {name: part.view(shape) for name, part, shape in zip(names, theta.split(sizes), shapes, strict=True)}

    def total(theta):
        losses = losses_by_hand(net, named(theta), noised, kind, weight)
        return (weights * losses).mean() + DECAY / 2 * theta.square().sum()

    theta = torch.zeros(sum(sizes)).double() if start is None else start
    curved = None
    while (slope := torch.func.grad(total)(theta)).norm() > 1e-10:
        if curved is None or start is None:  # near a minimum its curvature does
            curved = torch.func.hessian(total)(theta)
        theta = theta - torch.linalg.solve(curved, slope)
    return named(theta), theta


def trained(graphs, kind, weight, typed, **more):
    net = Linear(typed)
    params, theta = solved(graphs, kind, weight, typed)
    net.load_state_dict(params)
    more = {"loss": kind, "pairs_weight": weight if typed else None, **more}
    noise = TYPED if typed else PLAIN
    return explain.wrap(net, process=noise, time="step", weight_decay=DECAY, draws=DRAWS, **more), theta


@pytest.mark.parametrize(
    ("kind", "sizes", "typed"),
    [("entries", (3, 4, 3, 5), False), ("graphs", (3, 4, 3), True), ("entries", (4, 4, 4), True)],
)
def test_influence_is_the_slope_of_training_again_by_hand(kind, sizes, typed):
    graphs, weight = drawn_graphs(sizes), 3.0 if typed else 1.0
    model, theta = trained(graphs, kind, weight, typed)
    train = graphs if typed else [pairs for _, pairs in graphs]
    why = Influence(train=train, solver="exact", curvature="hessian", damping=0.0).explain(
        model.step(train[0], t=2, edge=(0, 1), draws=3)
    )
    assert why.checks["gradient_norm"] < 1e-8
    losses = losses_by_hand(model.net, dict(model.net.named_parameters()), noised_by_hand(graphs, typed), kind, weight)
    torch.testing.assert_close(why.parts["self_loss"], losses.detach(), rtol=1e-9, atol=1e-12)
    h, net, slopes = 1e-4, Linear(typed), []
    again = explain.wrap(net, process=model.process, time="step").step(train[0], t=2, edge=(0, 1), draws=3)
    for i in range(len(graphs)):
        ends = []
        for change in (h, -h):
            weights = torch.ones(len(graphs)).double().index_fill(0, torch.tensor(i), 1 + change)
            net.load_state_dict(solved(graphs, kind, weight, typed, weights, theta)[0])
            ends.append(again.value())
        slopes.append((ends[0] - ends[1]) / (2 * h))
    assert why.scores.tolist() == pytest.approx(slopes, rel=1e-5, abs=1e-9)
    assert why.players.names == tuple(f"graph {i}" for i in range(len(graphs)))
    assert why.target["assumed"]["noise"].startswith("4 draws of step and noise")


def test_one_step_of_newton_foretells_what_a_graph_left_out_does():
    graphs = drawn_graphs((4,) * 4, seed=1)
    model, theta = trained(graphs, "entries", 1.0, False)
    asked, train = model.step(graphs[2][1], t=3, edge=(1, 3), draws=3), torch.stack([pairs for _, pairs in graphs])
    why = Influence(train=train, newton=True).explain(asked)
    net, fallen = Linear(False), []
    again = explain.wrap(net, process=PLAIN, time="step").step(graphs[2][1], t=3, edge=(1, 3), draws=3)
    for i in range(len(graphs)):
        weights = torch.ones(len(graphs)).double().index_fill(0, torch.tensor(i), 0.0)
        net.load_state_dict(solved(graphs, "entries", 1.0, False, weights, theta)[0])
        fallen.append(why.value - again.value())
    assert why.checks["curvature"] == "hessian"
    torch.testing.assert_close(why.scores, torch.tensor(fallen).double(), rtol=0.05, atol=0.02 * max(map(abs, fallen)))


def squared(logits, clean, t):
    """A loss of one's own: squares, the late steps counting more."""
    off = 1 - torch.eye(clean.pairs.size(1)).to(clean.pairs)
    return ((logits.pairs - clean.pairs).square().sum(-1) * off).sum((1, 2)) * (1 + t) / 10


def test_a_loss_of_ones_own_is_the_one_that_is_taken():
    graphs = [pairs for _, pairs in drawn_graphs((3, 4, 4), seed=2)]
    net = Linear(False)
    model = explain.wrap(net, process=PLAIN, time="step", loss=squared, draws=DRAWS)
    objective = model.step(graphs[0], t=1, edge=(0, 1)).objective(graphs)
    losses = objective.train_loss(objective.params, torch.tensor([2, 0]))
    generator, expected = torch.Generator().manual_seed(0), torch.zeros(2).double()
    for draw in range(DRAWS):
        noise, t = PLAIN.draw(4, generator, torch.zeros(()).double()), int((draw + 0.5) / DRAWS * T) + 1
        for at, pairs in enumerate((graphs[2], graphs[0])):
            n = len(pairs)
            clean = State(torch.ones(1, n, 1).double(), F.one_hot(pairs, 2).double()[None])
            x = PLAIN.noised(clean, State(noise.nodes[:, :n], noise.pairs[:, :n, :n]), t)
            answer = net(*x, torch.tensor([t])).detach()
            for i in range(n):
                for j in range(n):
                    if i != j:
                        each = (answer[0, i, j] - clean.pairs[0, i, j]).square().sum()
                        expected[at] += each * (1 + t) / 10 / DRAWS
    torch.testing.assert_close(losses.detach(), expected)
    assert not objective.convex
    for own, words in (
        (lambda p, y, t: squared(p, y, t) / t.double().mean(), "the loss looks across rows"),
        (lambda p, y, t: squared(p, y, t).sum(), r"loss must give one number a noised graph, a tensor \[4\], got \[\]"),
    ):
        asked = explain.wrap(net, process=PLAIN, time="step", loss=own).step(graphs[0], t=1, edge=(0, 1))
        with pytest.raises(ValueError, match=words):
            asked.objective(graphs)


class Turning(Dataset):
    """Another graph each time."""

    def __len__(self):
        return 3

    def __getitem__(self, at):
        pairs = (torch.rand(4, 4) < 0.5).long().triu(1)
        return pairs + pairs.T


def test_training_sets_are_read_in_any_form_and_their_positions_kept():
    graphs = [pairs for _, pairs in drawn_graphs((4, 4, 4), seed=3)]
    model = explain.wrap(Linear(False), process=PLAIN, time="step", loss="graphs", draws=2)
    asked = model.step(graphs[0], t=1, edge=(0, 1))
    data = [Data(edge_index=pairs.nonzero().T, num_nodes=4) for pairs in graphs]
    whole = asked.objective(graphs)
    at = torch.arange(3)
    for other in (data, torch.stack(graphs), DataLoader(data, collate_fn=list)):
        torch.testing.assert_close(
            asked.objective(other).train_loss(whole.params, at), whole.train_loss(whole.params, at)
        )
    some = asked.objective(torch.utils.data.Subset(graphs, [2, 0]))
    assert some.players.index.tolist() == [0, 1]
    with pytest.raises(ValueError, match="gives another graph each time"):
        asked.objective(Turning())
    with pytest.raises(ValueError, match=r"training graph 1 cannot be read: .* no node an edge to itself"):
        asked.objective([graphs[0], torch.ones(4, 4).long()])
    with pytest.raises(ValueError, match="which graphs was the model trained on"):
        asked.objective()
    with pytest.raises(ValueError, match='remove must be "labels"'):
        asked.objective(graphs, "edges")


def test_what_was_trained_is_asked_for():
    graphs = drawn_graphs((3, 3))
    with pytest.raises(Unsupported, match="how was this denoiser trained"):
        explain.wrap(Linear(False), process=PLAIN, time="step").step(graphs[0][1], t=1, edge=(0, 1)).objective(graphs)
    typed = explain.wrap(Linear(True), process=TYPED, time="step", loss="entries")
    with pytest.raises(Unsupported, match="how much did pairs weigh"):
        typed.step(graphs[0], t=1, edge=(0, 1)).objective(graphs)
    for options, words in (
        ({"loss": "mse"}, "the loss must be given as"),
        ({"loss": squared, "pairs_weight": 2.0}, "weigh the pairs in your own"),
        ({"loss": "graphs", "pairs_weight": 0}, "a number above 0"),
        ({"loss": "graphs", "weight_decay": -1.0}, "weight_decay"),
    ):
        with pytest.raises(ValueError, match=words):
            explain.wrap(Linear(False), process=PLAIN, time="step", **options)
    run = typed.trajectory(3, payoff=lambda types, pairs: types.sum(1).double())
    with pytest.raises(Unsupported, match="no derivative follows graphs that are drawn"):
        Influence(train=graphs).explain(run)
