"""NodeFormer: random features written out, a projection that stays, and what it learns."""

import pytest
import torch
from graph_cases import random_graph
from reference.networks import nodeformer, nodeformer_weights

import explain
from models.datasets import karate_club
from models.nodeformer import KernelAttention, NodeFormer, orthogonal
from models.training import Recipe, accuracy, train


def network(**sizes):
    torch.manual_seed(0)
    return NodeFormer(5, 3, hidden=6, heads=2, projections=8, **sizes).double().eval()


@pytest.mark.parametrize("orders", [1, 3])
def test_it_is_the_paper_s_sum_over_random_features(orders):
    net, data = network(orders=orders), random_graph(nodes=9, edges=10)
    expected = nodeformer(net, data.x.double(), data.edge_index)
    torch.testing.assert_close(net(data.x.double(), data.edge_index).detach(), expected, rtol=1e-9, atol=1e-12)


def test_its_weights_are_what_it_applies():
    layer, z = network().layers[0], torch.randn(7, 6, generator=torch.Generator().manual_seed(0)).double()
    weights = layer.weights(z).detach()
    torch.testing.assert_close(weights.detach(), nodeformer_weights(layer, z))
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 7).double())
    edges = torch.tensor([[0, 3, 5], [1, 1, 6]])
    torch.testing.assert_close(layer.along(z, edges).detach(), weights[:, edges[1], edges[0]])


def test_many_random_features_are_softmax_and_few_are_not():
    z = 0.3 * torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    off = {}
    for count in (30, 6000):
        torch.manual_seed(0)
        layer = KernelAttention(6, heads=1, orders=1, projections=count, samples=1, tau=0.25)
        with torch.no_grad():
            exact = (layer.query(z) @ layer.key(z).T / (0.25 * 6**0.5)).softmax(1)
            off[count] = float((layer.weights(z)[0] / exact - 1).abs().max())
    assert off[6000] < 0.25 < off[30]


def test_projections_are_orthogonal_by_block_and_as_long_as_normal_vectors():
    torch.manual_seed(0)
    rows = orthogonal(64, 16)
    for block in rows.split(16):
        gram = block @ block.T
        assert float((gram - gram.diagonal().diag()).abs().max()) < 1e-4
    assert abs(float(rows.square().sum(1).mean()) / 16 - 1) < 0.15


def test_the_projection_stays_in_eval_mode_and_moves_in_training():
    net, data = network(), random_graph(nodes=9, edges=10)
    kept, random = net.layers[0].projection.clone(), torch.get_rng_state()
    net(data.x.double(), data.edge_index)
    net(2 * data.x.double(), data.edge_index)
    assert torch.equal(net.layers[0].projection, kept)
    assert torch.equal(torch.get_rng_state(), random)
    net.train()(data.x.double(), data.edge_index)
    assert not torch.equal(net.layers[0].projection, kept)


def test_what_is_frozen_stands_in_the_answer_and_the_authors_seed_is_refused():
    class Theirs(NodeFormer):
        """The projection of each layer drawn from a seed of its input, by the global generator."""

        def forward(self, x, edge_index):
            for layer in self.layers:
                torch.manual_seed(int((self.first(x).sum().abs() * 1e8).ceil()))
                layer.projection = orthogonal(*layer.projection.shape).to(x)
            return super().forward(x, edge_index)

    data = random_graph(nodes=9, edges=10)
    ours = explain.wrap(NodeFormer(5, 3, hidden=6).eval(), data).node(2)
    assert "kept with the weights" in explain.Occlusion("nodes").explain(ours).target["assumed"]["projection"]
    with pytest.raises(ValueError, match="from a seed that its input makes"):
        explain.wrap(Theirs(5, 3, hidden=6).eval(), data).node(2).value()


def test_it_learns_and_its_loss_gives_edges_weight_by_which_it_generalises():
    club = karate_club(labelled=3)
    recipe, found = Recipe(epochs=40, lr=0.02, weight_decay=5e-4), {}
    for edges in (0.0, 1.0):
        net = NodeFormer(34, 4, hidden=16, heads=2, orders=2, samples=3, edges=edges)
        train(net, club, recipe, seed=0, progress=False)
        assert accuracy(net, club, club.train_mask) == 1
        with torch.no_grad():
            z = torch.nn.functional.elu(net.norms[0](net.first(club.x)))
            found[edges] = float(net.layers[0].along(z, club.edge_index).log().mean())
    assert found[1.0] > found[0.0]
    assert accuracy(net, club, club.test_mask) >= 0.45  # the largest community is 38 % of the nodes
