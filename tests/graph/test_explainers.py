"""Every explainer on graph targets: they run, agree where theory says so, and leave the model as it was."""

import copy

import pytest
import torch
import torch.nn.functional as F
from graph_cases import doubled, network, random_graph
from torch_geometric.data import Data
from torch_geometric.nn import GAT, GCN, SimpleConv

from explain.attention import Attention
from explain.gradient import Gradient
from explain.graph.model import GraphModel
from explain.influence import Influence
from explain.lime import Lime
from explain.mask import Mask
from explain.shapley import Shapley


@pytest.fixture(scope="module")
def trained():
    torch.manual_seed(0)
    data = random_graph()
    net = GAT(5, 8, 2, 3, heads=2)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.02, weight_decay=0.01)
    for _ in range(60):
        optimiser.zero_grad()
        F.cross_entropy(net(data.x, data.edge_index)[data.train_mask], data.y[data.train_mask]).backward()
        optimiser.step()
    optimiser.zero_grad()
    return net.eval(), data


EXPLAINERS = [
    Shapley("edges", samples=256, seed=0),
    Shapley("nodes", samples=256, estimator="permutation", seed=0),
    Lime("edges", samples=200, seed=0),
    Gradient("edges"),
    Gradient("nodes", method="saliency"),
    Gradient("features", method="input_x_gradient"),
    Mask("edges", epochs=5, seed=0),
    Attention(),
    Influence(solver="lissa", curvature="ggn", seed=0),
]


@pytest.mark.filterwarnings(
    "ignore:the model is not at:UserWarning"
)  # sixty steps are not an optimum; not the point here
@pytest.mark.parametrize("explainer", EXPLAINERS, ids=lambda e: f"{type(e).__name__}")
def test_every_explainer_answers_reproducibly_and_leaves_no_trace(trained, explainer):
    net, data = trained
    state, random_state = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    attributes = [set(vars(part)) for part in net.modules()]
    target = GraphModel(net, data, weight_decay=0.01).node(4)
    first, again = explainer.explain(target), explainer.explain(target)
    assert torch.equal(first.scores, again.scores)
    assert len(first.players) > 2
    assert first.scores.abs().max() > 0
    assert first.value == pytest.approx(target.value(), rel=1e-5)
    assert first.calls > 0
    assert first.checks
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert [set(vars(part)) for part in net.modules()] == attributes
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class _Linear(torch.nn.Module):
    """Sums of sums: linear in features, and in the messages of one layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.linear = SimpleConv(aggr="sum"), torch.nn.Linear(5, 3, dtype=torch.float64)

    def forward(self, x, edge_index):
        return self.linear(self.conv(x, edge_index))


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_on_a_linear_network_all_methods_agree(kind):
    torch.manual_seed(0)
    target = GraphModel(_Linear(), doubled(random_graph())).node(4, label=0, removal="message")
    shapley = Shapley(kind).explain(target).scores
    for explainer in (Lime(kind, seed=0), Gradient(kind), Gradient(kind, method="input_x_gradient")):
        torch.testing.assert_close(explainer.explain(target).scores, shapley, rtol=1e-3, atol=1e-6)


def test_gradients_are_those_of_autograd():
    data = doubled(random_graph())
    net = network("gcn", double=True)
    target = GraphModel(net, data).node(4, label=1)
    why = Gradient("nodes", method="input_x_gradient").explain(target)
    x = data.x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(net(x, data.edge_index)[4, 1], x)
    torch.testing.assert_close(why.scores, (gradient * data.x).sum(1)[why.players.index], rtol=1e-9, atol=1e-12)


def test_attention_credits_the_edges_of_the_whole_graph(trained):
    net, data = trained
    why = Attention().explain(GraphModel(net, data).node(4))
    assert why.players.kind == "edges"
    assert (why.scores >= 0).all()
    into = why.players.geometry["ends"][1] == 4
    assert why.scores[into].sum() > 0


def test_mask_on_the_edges_that_matter():
    """One of the edges carries everything: the learned mask finds it."""
    torch.manual_seed(0)
    x = torch.zeros(6, 5)
    x[1] = 5.0
    edge_index = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 0, 0, 0]])
    net = GCN(5, 8, 1, 2).eval()
    why = Mask("edges", epochs=150, seed=0).explain(GraphModel(net, Data(x=x, edge_index=edge_index)).node(0))
    assert int(why.scores.argmax()) == 0
