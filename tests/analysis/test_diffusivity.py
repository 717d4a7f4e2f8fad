"""S of each layer against its closed form, and what is said where there is none."""

import pytest
import torch
from torch import nn
from torch_geometric.nn import ChebConv, GATConv, GCNConv, GINConv, SAGEConv
from torch_geometric.utils import to_dense_adj

from explain.analysis import diffusivity
from models.convolutions import GPS, RGCN, SGFormer
from models.difformer import DIFFormer
from models.gcn import GCN

NODES = 40


def graph(nodes=NODES, seed=0):
    """Undirected edges at random; the last node has none."""
    generator = torch.Generator().manual_seed(seed)
    upper = (torch.rand(nodes, nodes, generator=generator) < 0.15).triu(1)
    upper[:, -1] = False
    edge_index = (upper | upper.T).nonzero().T
    return torch.randn(nodes, 6, generator=generator), edge_index, torch.arange(nodes) % 3


X, EDGES, LABELS = graph()
A = to_dense_adj(EDGES, max_num_nodes=NODES)[0].double()


@pytest.fixture(autouse=True)
def _weights():
    torch.manual_seed(0)


def normalised(S):
    return S / S.sum(1, keepdim=True)


def test_of_a_gcn_it_is_the_normalised_adjacency():
    degree = (A + torch.eye(NODES)).sum(1)
    symmetric = (A + torch.eye(NODES)) / (degree[:, None] * degree).sqrt()
    found = diffusivity(GCN(6, 3).eval(), X, EDGES, labels=LABELS)
    assert [(layer.layer, layer.kind) for layer in found] == [("conv1", "propagation"), ("conv2", "propagation")]
    for layer in found:
        assert torch.allclose(layer.factor, symmetric.sum(1), atol=1e-6)
        assert torch.allclose(layer.S, normalised(symmetric), atol=1e-6)
        assert layer.gap < 1e-5
        assert layer.uniform is None
        assert 0 <= layer.value <= 1
        assert "rows were divided by their sums" in layer.said[0]
        assert "not made uniform" in layer.said[1]


def test_of_graphsage_it_is_the_mean_over_neighbours_and_a_lonely_node_hears_itself():
    (layer,) = diffusivity(SAGEConv(6, 3), X, EDGES)
    assert torch.allclose(layer.S[:-1], normalised(A)[:-1], atol=1e-6)
    assert layer.S[-1, -1] == 1
    assert layer.factor[-1] == 0
    assert layer.said == ("nodes that hear nobody, and have themselves for a row: 1",)


def test_of_a_gat_it_is_alpha():
    net = GATConv(6, 4, heads=2)
    _, (edges, alpha) = net(X, EDGES, return_attention_weights=True)
    (layer,) = diffusivity(net, X, EDGES, labels=LABELS)
    dense = torch.zeros(NODES, NODES, dtype=torch.float64)
    dense[edges[1], edges[0]] = alpha.detach().double().mean(1)
    assert layer.kind == "attention"
    assert torch.allclose(layer.S, dense, atol=1e-6)
    assert layer.uniform is not None


def test_of_layers_that_mix_no_nodes_it_is_the_identity():
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 3))
    found = diffusivity(net, X, EDGES, call=lambda net: net(X))
    assert [layer.layer for layer in found] == ["0", "3"]
    assert all(torch.equal(layer.S, torch.eye(NODES).double()) for layer in found)


@pytest.mark.parametrize(("kernel", "norm"), [("s", "rows"), ("s", "tensor"), ("a", "tensor")])
def test_of_difformer_it_is_the_kernel_with_the_uniform_step_beside_it(kernel, norm):
    net = DIFFormer(6, 3, hidden=4, layers=2, kernel=kernel, norm=norm, graph=False).eval()
    told = {"pairs.*": lambda layer, z: layer.weights(z)}
    first, *steps, last = diffusivity(net, X, EDGES, labels=LABELS, attention=told)
    assert (first.kind, last.kind) == ("none", "none")
    assert [step.kind for step in steps] == ["kernel"] * 2
    for step in steps:
        assert step.gap < 1e-4
        assert torch.allclose(step.S.sum(1), torch.ones(NODES).double())
        assert step.uniform is not None
        assert step.after.everywhere < step.before.everywhere
        assert step.said == ()


def test_weights_that_are_not_the_layers_own_are_said_to_be_no_function_of_it():
    net = DIFFormer(6, 3, hidden=4, layers=1, kernel="a", graph=False).eval()
    told = {"pairs.0": lambda layer, z: torch.softmax(z @ z.T, -1)}
    _, step, _ = diffusivity(net, X, EDGES, attention=told)
    assert step.gap > 0.01
    assert "it adds something else, or S is not its own" in step.said[0]


def test_where_all_hear_the_same_rounding_is_not_taken_for_another_function():
    net = DIFFormer(6, 3, hidden=4, layers=1, graph=False).eval()
    torch.nn.init.constant_(net.pairs[0].query.weight, 1e-5)
    _, step, _ = diffusivity(net, X, EDGES, attention={"pairs.0": lambda layer, z: layer.weights(z)})
    assert step.deviation < 0.1
    assert step.said == ()


def test_of_sgformer_it_is_the_linear_attention_beside_the_gcn():
    found = diffusivity(SGFormer(6, 3, hidden=4).eval(), X, EDGES)
    attentions = [layer for layer in found if layer.kind == "kernel"]
    assert len(attentions) == 2
    for layer in attentions:
        assert layer.gap < 1e-4
        assert float(layer.S.diagonal().min()) > 0.5  # N v_i is added to what all say
    assert sum(layer.kind == "propagation" for layer in found) == 3


def test_of_gps_both_halves_of_a_layer_are_told():
    kinds = {layer.layer: layer.kind for layer in diffusivity(GPS(6, 3, hidden=4).eval(), X, EDGES)}
    assert kinds["layers.0.conv"] == "propagation"
    assert kinds["layers.0.attn"] == "attention"
    assert kinds["out"] == "none"


def test_class_means_and_strongest_pairs_read_the_excess():
    (layer,) = diffusivity(SAGEConv(6, 3), X, EDGES, labels=LABELS)
    means, excess = layer.class_means(), layer.excess
    assert float(means[0, 1]) == pytest.approx(float((excess + 1)[LABELS == 0][:, LABELS == 1].mean()))
    assert layer.strongest(3) == []  # it hears its neighbours alone
    (hears, heard, most), *_ = layer.strongest(5, edges=True)
    assert A[hears, heard] == 1
    assert most == pytest.approx(float(excess[:-1].max()))
    assert layer.deviation == pytest.approx(NODES - 1)


@pytest.mark.parametrize("layer", [SAGEConv(6, 3, aggr="max"), GINConv(nn.Linear(6, 3), aggr="max")])
def test_what_is_not_linear_in_its_states_has_no_s(layer):
    (found,) = diffusivity(layer, X, EDGES)
    assert (found.kind, found.S) == ("unknown", None)
    with pytest.raises(ValueError, match="is no S times its states"):
        _ = found.deviation


def test_rows_of_a_laplacian_are_no_diffusivity():
    first, *_ = diffusivity(ChebConv(6, 3, K=2), X, EDGES)
    assert (first.kind, first.S) == ("unknown", None)
    assert first.gap < 1e-5
    assert "differences of neighbours" in first.said[0]


class Dense(nn.Module):
    """Averages by a matrix of its own."""

    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(6, 3)

    def forward(self, x, edge_index):
        return A.float() @ self.lin(x)


def test_a_layer_that_mixes_in_its_own_way_is_not_left_out():
    lin, whole = diffusivity(Dense(), X, EDGES)
    assert (lin.kind, whole.layer, whole.kind) == ("none", "Dense", "unknown")
    assert "say its S" in whole.said[0]
    (told,) = diffusivity(Dense(), X, EDGES, attention={"Dense": lambda layer, x, edge_index: A})
    assert told.gap < 1e-4


def test_a_layer_that_propagates_by_relation_has_an_s_for_each():
    kinds = torch.arange(EDGES.size(1)) % 2
    net = RGCN(6, 3, relations=2, hidden=4)
    found = diffusivity(net, X, EDGES, call=lambda net: net(X, EDGES, kinds))
    named = [layer for layer in found if layer.kind == "propagation"]
    assert len(named) == 4
    part = torch.zeros(NODES, NODES, dtype=torch.float64)
    part[EDGES[1, kinds == 0], EDGES[0, kinds == 0]] = 1
    heard = part.any(1)
    assert torch.allclose(named[0].S[heard], normalised(part[heard]), atol=1e-6)


def test_the_network_is_as_it_was_and_a_wrong_name_is_named():
    net = GCN(6, 3).train()
    before = net(X, EDGES).shape
    with pytest.warns(UserWarning, match="training mode"):
        diffusivity(net, X, EDGES)
    assert net.training
    assert all(not part._forward_hooks for part in net.modules())
    assert net(X, EDGES).shape == before
    with pytest.raises(ValueError, match="no module of GCN"):
        diffusivity(GCNConv(6, 3), X, EDGES, attention={"nowhere": lambda layer, x: x})
