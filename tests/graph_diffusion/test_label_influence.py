"""Which training labels and tokens are behind a step: the loss by hand, and trained again without each."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader
from torch_geometric.data import Data

import explain
from explain import Influence, Unsupported
from explain.diffusion.categorical import Categorical

N, C, T, DRAWS, DECAY = 5, 3, 4, 6, 0.05
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 4], [1, 0, 2, 1, 3, 2, 4, 3]])
KNOWN = torch.tensor([True, False, True, False, False])
BETAS = torch.tensor([0.1, 0.2, 0.3, 0.4]).double()
KEPT = (1 - BETAS).cumprod(0)
TOKENS = Categorical.absorbing(torch.full((T,), 0.3), C)
STATES = torch.tensor([[0, 1, 0, 1, 0], [1, 0, 1, 0, 1], [0, 0, 1, 1, 0], [1, 1, 0, 1, 0]])


X = torch.randn(N, 2, generator=torch.Generator().manual_seed(5)).double()


def graph():
    return Data(x=X, edge_index=EDGES, y=STATES[0], train_mask=KNOWN)


class Linear(nn.Module):
    """Linear in a node's features and noised labels, and in those of its neighbours: the loss is convex."""

    def __init__(self):
        super().__init__()
        self.of = nn.Linear(2 + 2 * C + 1, C).double()

    def about(self, x, y_t, t, edge_index):
        heard = torch.zeros_like(y_t).index_add(0, edge_index[1], y_t[edge_index[0]])
        return torch.cat([x, y_t, heard, t.view(-1, 1).to(x).expand(len(x), 1) / T], 1)

    def forward(self, x, y_t, t, edge_index):
        return self.of(self.about(x, y_t, t, edge_index))


def noised_by_hand(states, gaussian):
    """Of each draw and each state what the network sees, ``[n, .]``, and what it should have said, ``[n, C]``."""
    generator, found = torch.Generator().manual_seed(0), []
    draw = torch.randn if gaussian else torch.rand
    noise = draw(DRAWS, N, C, generator=generator, dtype=torch.float64)
    for k in range(DRAWS):
        t = int((k + 0.5) / DRAWS * T) + (0 if gaussian else 1)
        rows = []
        for state in states:
            Y = F.one_hot(state, C).double()
            if gaussian:
                rows.append((KEPT[t].sqrt() * Y + (1 - KEPT[t]).sqrt() * noise[k], noise[k], t))
                continue
            kept = 0.7**t
            gumbel = -(-noise[k].log()).log()
            p = kept * Y + (1 - kept) * F.one_hot(torch.tensor(C - 1), C)
            rows.append((F.one_hot((p.log() + gumbel).argmax(1), C).double(), Y, t))
        found.append(rows)
    return found


def shares(kind):
    halves = torch.tensor([1 / 2, 1 / 3, 1 / 2, 1 / 3, 1 / 3], dtype=torch.float64)
    return halves if kind == "known_and_others" else torch.full((N,), 1 / N, dtype=torch.float64)


def losses_by_hand(net, params, noised, kind, gaussian, of_nodes):
    """The loss of each state, or of each node of the one; what the network sees is the same for all parameters."""
    about = [[net.about(X, seen, torch.tensor([t]), EDGES) for seen, _, t in rows] for rows in noised]
    wanted = torch.stack([torch.stack([wanted for _, wanted, _ in rows]) for rows in noised])
    answers = torch.stack([torch.stack(rows) for rows in about]) @ params["of.weight"].T + params["of.bias"]
    own = (answers - wanted).square().mean(-1) if gaussian else -(wanted * answers.log_softmax(-1)).sum(-1)
    total = (own * shares(kind)).mean(0)
    return total[0] * N if of_nodes else total.sum(1)


def solved(states, kind, gaussian, of_nodes, weights=None):
    """The minimum of the weighted loss by Newton's method from zero, by name."""
    net, noised = Linear(), noised_by_hand(states, gaussian)
    shapes = {name: p.shape for name, p in net.named_parameters()}
    sizes = [shape.numel() for shape in shapes.values()]
    weights = torch.ones(N if of_nodes else len(states)).double() if weights is None else weights

    def named(theta):
        parts = zip(shapes.items(), theta.split(sizes), strict=True)
        return {name: part.view(shape) for (name, shape), part in parts}

    def total(theta):
        losses = losses_by_hand(net, named(theta), noised, kind, gaussian, of_nodes)
        return (weights * losses).mean() + DECAY / 2 * theta.square().sum()

    theta = torch.zeros(sum(sizes)).double()
    while (slope := torch.func.grad(total)(theta)).norm() > 1e-10:
        theta = theta - torch.linalg.solve(torch.func.hessian(total)(theta), slope)
    return named(theta)


def wrapped(net, gaussian, **more):
    noise = {"betas": BETAS, "prediction_type": "epsilon", "scale": "0/1"} if gaussian else {"process": TOKENS}
    return explain.wrap(net, graph(), time="step", classes=C, weight_decay=DECAY, draws=DRAWS, **noise, **more)


def asked(model, gaussian):
    return model.step(STATES[0], t=2, node=2, label=1, draws=3, payoff="x0" if gaussian else "log_probability")


@pytest.mark.parametrize(
    ("gaussian", "kind", "of_nodes"),
    [
        (True, "nodes", False),
        (True, "known_and_others", True),
        (False, "known_and_others", False),
        (False, "nodes", True),
    ],
)
def test_influence_is_training_again_by_hand(gaussian, kind, of_nodes):
    states = STATES[:1] if of_nodes else STATES
    net = Linear()
    net.load_state_dict(solved(states, kind, gaussian, of_nodes))
    target = asked(wrapped(net, gaussian, loss=kind), gaussian)
    train = states[0] if of_nodes else states
    why = Influence(train=train, solver="exact", curvature="hessian", damping=0.0).explain(target)
    assert why.checks["gradient_norm"] < 1e-8
    losses = losses_by_hand(
        net, dict(net.named_parameters()), noised_by_hand(states, gaussian), kind, gaussian, of_nodes
    )
    torch.testing.assert_close(why.parts["self_loss"], losses.detach(), rtol=1e-9, atol=1e-12)
    count, h, slopes, fallen = len(losses), 1e-4, [], []
    other = Linear()
    again = asked(wrapped(other, gaussian), gaussian)

    def value(i, weight):
        weights = torch.ones(count).double().index_fill(0, torch.tensor(i), weight)
        other.load_state_dict(solved(states, kind, gaussian, of_nodes, weights))
        return again.value()

    for i in range(count):
        slopes.append((value(i, 1 + h) - value(i, 1 - h)) / (2 * h))
        fallen.append(why.value - value(i, 0.0))
    assert why.scores.tolist() == pytest.approx(slopes, rel=1e-5, abs=1e-9)
    assert max(map(abs, slopes)) > 1e-3
    if gaussian:  # of squares the step of Newton is training again
        newton = Influence(train=train, newton=True, solver="exact", curvature="hessian", damping=0.0).explain(target)
        assert newton.scores.tolist() == pytest.approx(fallen, rel=1e-6)
    assert why.target["assumed"]["noise"].startswith("6 draws of step and noise")
    assert why.players.names[1] == ("node 1" if of_nodes else "labels 1")
    assert ("still seen by the others" in why.target["assumed"].get("removal", "")) == of_nodes


def late(prediction, wanted, noised, t):
    """A loss of one's own: masked tokens alone, the late steps counting more."""
    entropy = F.cross_entropy(prediction.transpose(1, 2), wanted.argmax(-1), reduction="none")
    return entropy * noised[..., -1] * t[:, None]


def test_a_loss_of_ones_own_and_training_sets_of_any_form():
    torch.manual_seed(0)
    net = Linear()
    target = asked(wrapped(net, False, loss=late), False)
    objective = target.objective(STATES)
    assert not objective.convex
    expected = torch.zeros(4).double()
    for rows in noised_by_hand(STATES, False):
        for at, (seen, wanted, t) in enumerate(rows):
            answer = net(X, seen, torch.tensor([t]), EDGES).log_softmax(1)
            for node in range(N):
                if seen[node, C - 1]:
                    expected[at] -= answer[node, wanted[node].argmax()].item() * t / N / DRAWS
    losses = objective.train_loss(objective.params, torch.tensor([2, 0, 1, 3]))
    torch.testing.assert_close(losses.detach(), expected[[2, 0, 1, 3]])
    of_nodes = target.objective(STATES[3])
    own = of_nodes.train_loss(of_nodes.params, torch.tensor([3, 0, 1, 2, 4]))
    assert own.mean().item() == pytest.approx(expected[3].item())
    for other in (list(STATES), DataLoader(STATES)):
        torch.testing.assert_close(
            target.objective(other).train_loss(objective.params, torch.arange(4)).detach(), expected
        )
    assert target.objective(torch.utils.data.Subset(STATES, [3, 0])).players.index.tolist() == [0, 1]


class Whole(Linear):
    """One that answers a graph of its own size alone, not copies side by side."""

    def forward(self, x, y_t, t, edge_index):
        return super().forward(x[:N], y_t, t, edge_index) + 0 * y_t.sum()


def test_one_that_takes_a_graph_by_itself_has_the_same_losses():
    torch.manual_seed(0)
    net, alone = Linear(), Whole()
    alone.load_state_dict(net.state_dict())
    found = []
    for each in (net, alone):
        model = wrapped(each, True, loss="nodes")
        objective = asked(model, True).objective(STATES)
        found.append(objective.train_loss(objective.params, torch.arange(4)).detach())
    assert not model.batched
    torch.testing.assert_close(*found)


def test_what_was_trained_is_asked_for():
    bare = asked(wrapped(Linear(), False), False)
    with pytest.raises(Unsupported, match=r"how was this denoiser trained\?.*loss='nodes'"):
        Influence(train=STATES).explain(bare)
    target = asked(wrapped(Linear(), False, loss="nodes"), False)
    for train, message in (
        (None, "which labels was the model trained on"),
        (STATES[:, :4], r"int64 \[m, 5\] or \[5\], got \[4, 4\]"),
        (STATES - 1, "classes from 0 to 2 of every node, got -1 to 0"),
        (STATES.double(), "must be classes"),
    ):
        with pytest.raises(ValueError, match=message):
            target.objective(train)
    with pytest.raises(ValueError, match='remove must be "labels"'):
        target.objective(STATES, "edges")
    for own, message in (
        (lambda p, y, x, t: late(p, y, x, t).sum(1), r"one number a node of each noised state, \[4, 5\], got \[4\]"),
        (lambda p, y, x, t: late(p, y, x, t) / t.double().mean(), "the loss looks across rows"),
        (lambda p, y, x, t: late(p, y, x, t) / x[..., -1].sum(1, keepdim=True).clamp_min(1), "the loss looks across"),
        (lambda p, y, x, t: late(p, y, x, t) * torch.rand(()), "the loss is random"),
    ):
        with pytest.raises(ValueError, match=message):
            asked(wrapped(Linear(), False, loss=own), False).objective(STATES)
    for options, message in (({"loss": "mse"}, "the loss must be given as"), ({"loss": "nodes", "draws": 0}, "draws")):
        with pytest.raises(ValueError, match=message):
            explain.wrap(Linear(), graph(), process=TOKENS, time="step", classes=C, **options)
    run = wrapped(Linear(), False, loss="nodes").trajectory(2, 1, draws=1)
    with pytest.raises(Unsupported, match=r"not through a run whose steps draw: ask model.step"):
        Influence(train=STATES).explain(run)
    with pytest.raises(Unsupported, match="input and target"):
        target.objective(STATES).relabelled(torch.arange(4))
