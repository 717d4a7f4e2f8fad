"""The example models learn, to an optimum where they are asked to, and leave the global random state alone."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch_geometric.data import Data

from models import gat, gcn
from models.datasets import karate_club
from models.layers import dropout, once
from models.training import Recipe, accuracy, gradient_norm, objective, train


@pytest.fixture(scope="module")
def club():
    return karate_club(labelled=3)


@pytest.mark.parametrize(("kind", "recipe"), [(gcn.GCN, gcn.KARATE), (gat.GAT, gat.KARATE)])
def test_training_ends_at_an_optimum_that_generalises(club, kind, recipe):
    net = train(kind(34, 4, dropout=0.0), club, recipe, seed=0, progress=False)
    assert not net.training
    assert accuracy(net, club, club.train_mask) == 1
    assert accuracy(net, club, club.test_mask) >= 0.68  # the largest community is 38 % of the nodes
    untrained = train(kind(34, 4, dropout=0.0), club, replace(recipe, epochs=0, polish=0), seed=0, progress=False)
    assert gradient_norm(net, club, recipe.weight_decay) < 0.01 * gradient_norm(untrained, club, recipe.weight_decay)
    adam = train(kind(34, 4, dropout=0.0), club, replace(recipe, polish=0), seed=0, progress=False)
    assert objective(net, club, recipe.weight_decay) < objective(adam, club, recipe.weight_decay)


def test_the_objective_is_the_mean_loss_and_the_penalty_of_sgd(club):
    net = gcn.GCN(34, 4, dropout=0.0)
    loss = F.cross_entropy(net(club.x, club.edge_index)[club.train_mask], club.y[club.train_mask])
    loss.backward()
    decayed = [p.grad + 0.3 * p.detach() for p in net.parameters()]  # what torch.optim.SGD steps along
    ours = torch.autograd.grad(objective(net, club, 0.3), list(net.parameters()))
    for expected, found in zip(decayed, ours, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_seed_decides_everything_and_the_global_generator_is_kept(club):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    recipe = Recipe(epochs=5, lr=0.01, weight_decay=5e-4)
    first, second, third = (train(gat.GAT(34, 4), club, recipe, seed=s, progress=False) for s in (1, 1, 2))
    same = [torch.equal(p, q) for p, q in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert not torch.equal(first.conv1.lin.weight, third.conv1.lin.weight)
    torch.manual_seed(5)
    gat.GAT(34, 4)  # building a model draws from the global generator, training must not
    torch.manual_seed(5)
    train(first, club, recipe, seed=3, progress=False)
    assert torch.equal(torch.rand(3), expected)


def _noise(nodes: int = 40) -> Data:
    """Random labels: validation nodes cannot be learned, so training must stop by itself."""
    generator = torch.Generator().manual_seed(0)
    edges = torch.randint(nodes, (2, 120), generator=generator)
    mask = torch.arange(nodes) < nodes // 2
    return Data(
        x=torch.rand(nodes, 5, generator=generator),
        edge_index=edges,
        y=torch.randint(3, (nodes,), generator=generator),
        train_mask=mask,
        val_mask=~mask,
        test_mask=~mask,
    )


def test_patience_ends_training_and_the_best_weights_come_back():
    data = _noise()
    seen = []

    class Watched(gcn.GCN):
        def forward(self, x, edge_index):
            logits = super().forward(x, edge_index)
            if not self.training:
                right = (logits.argmax(1) == data.y)[data.val_mask].float().mean().item()
                seen.append((right, -F.cross_entropy(logits[data.val_mask], data.y[data.val_mask]).item()))
            return logits

    recipe = Recipe(epochs=500, lr=0.05, weight_decay=0.0, patience=10)
    net = train(Watched(5, 3), data, recipe, seed=0, progress=False)
    history = list(seen)
    assert 10 < len(history) < 500
    with torch.no_grad():
        net(data.x, data.edge_index)
    assert seen[-1][0] == max(right for right, _ in history)
    assert math.isclose(seen[-1][1], max(loss for right, loss in history if right == seen[-1][0]), rel_tol=1e-6)


def test_sparse_dropout_keeps_the_expected_value_and_the_zeros():
    torch.manual_seed(0)
    x = torch.eye(2000)
    dropped = dropout(x.to_sparse(), 0.5, True)
    assert dropped.layout == torch.sparse_coo
    dense = dropped.to_dense()
    assert (dense - torch.diag(dense.diagonal())).abs().max() == 0
    assert set(dense.diagonal().tolist()) == {0.0, 2.0}
    assert abs(dense.diagonal().mean() - 1) < 0.1
    assert torch.equal(dropout(x.to_sparse(), 0.5, False).to_dense(), x)


@pytest.mark.parametrize("kind", [gcn.GCN, gat.GAT])
def test_sparse_features_give_the_same_logits(kind, club):
    net = kind(34, 4).eval()
    torch.testing.assert_close(net(club.x.to_sparse(), club.edge_index), net(club.x, club.edge_index))


def test_the_validation_nodes_are_looked_at_as_often_as_the_recipe_says():
    data, looks = _noise(), []

    class Watched(gcn.GCN):
        def forward(self, x, edge_index):
            looks.append(self.training)
            return super().forward(x, edge_index)

    train(Watched(5, 3), data, Recipe(epochs=9, lr=0.05, weight_decay=0.0, every=3), seed=0, progress=False)
    assert looks == 3 * [True, True, True, False]


def test_what_a_paper_adds_to_the_loss_is_added_in_training_alone(club):
    class Added(gcn.GCN):
        def regulariser(self):
            return 3 * self.conv1.bias.sum() + 2

    net = Added(34, 4, dropout=0.0)
    net.conv1.bias.data.fill_(0.1)
    plain = objective(net.eval(), club, 0.0)
    torch.testing.assert_close(objective(net.train(), club, 0.0), plain + 3 * 1.6 + 2)


def test_what_follows_from_the_data_alone_is_computed_once_in_a_training(club):
    calls = []

    class Counting(gcn.GCN):
        def forward(self, x, edge_index):
            once(self.told, x)
            return super().forward(x, edge_index)

        def told(self, x):
            calls.append(len(x))

    net = train(Counting(34, 4), club, Recipe(epochs=5, lr=0.01, weight_decay=0.0), seed=0, progress=False)
    assert calls == [34]
    net(club.x, club.edge_index)
    net(club.x, club.edge_index)
    assert len(calls) == 3  # outside of a training the data may change
