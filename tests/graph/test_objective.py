"""The training loss of graph networks: the same as the user's own, and influence through it predicts retraining."""

import copy

import pytest
import torch
import torch.nn.functional as F
from graph_cases import Sgc, doubled, network, random_graph
from torch import nn
from torch_geometric.data import Batch
from torch_geometric.nn import GCN, GCNConv, global_mean_pool

from explain.graph.model import GraphModel
from explain.influence import Influence

DECAY = 0.01


def _fit(net, loss, steps=60):
    optimiser = torch.optim.LBFGS(
        net.parameters(), lr=1, max_iter=50, tolerance_grad=1e-11, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        value = loss(net) + DECAY / 2 * sum((p**2).sum() for p in net.parameters())
        value.backward()
        return value

    for _ in range(steps // 20):
        optimiser.step(closure)
    return net


def _node_loss(data, left_out=None):
    nodes = data.train_mask.nonzero().view(-1)

    def loss(net):
        losses = F.cross_entropy(net(data.x, data.edge_index)[nodes], data.y[nodes], reduction="none")
        return (losses if left_out is None else losses[nodes != left_out]).sum() / len(nodes)

    return loss


def test_the_loss_of_each_training_node():
    data = random_graph()
    net = network("gat")
    objective = GraphModel(net, data, weight_decay=DECAY).node(4, label=0).objective()
    expected = F.cross_entropy(net(data.x, data.edge_index), data.y, reduction="none")[data.train_mask]
    (batch,) = objective.batches()
    torch.testing.assert_close(objective.train_loss(objective.params, batch), expected)
    assert objective.players.index.tolist() == data.train_mask.nonzero().view(-1).tolist()
    assert objective.weight_decay == DECAY
    assert float(objective.measurement(objective.params)) == pytest.approx(
        float(net(data.x, data.edge_index)[4, 0].detach()), rel=1e-6
    )


def test_influence_of_labels_predicts_retraining():
    torch.manual_seed(0)
    data = doubled(random_graph(nodes=30, edges=50))
    net = _fit(Sgc(5, 3).double(), _node_loss(data))
    model = GraphModel(net, data, weight_decay=DECAY)
    target = model.node(4, label=1)
    why = Influence(solver="exact").explain(target)
    changes = []
    for node in why.players.index.tolist():
        again = _fit(copy.deepcopy(net), _node_loss(data, left_out=node))
        changes.append(target.value() - GraphModel(again, data).node(4, label=1).value())
    pearson = torch.corrcoef(torch.stack([why.scores, torch.tensor(changes).double()]))[0, 1]
    assert pearson > 0.99
    lissa = Influence(solver="lissa", seed=0).explain(target)
    assert float((lissa.scores - why.scores).norm() / why.scores.norm()) <= 0.02


def test_other_training_nodes_can_be_named():
    data = random_graph()
    target = GraphModel(network("gcn"), data, weight_decay=DECAY).node(4, label=0)
    chosen = torch.tensor([1, 5, 7])
    mask = torch.zeros(24, dtype=torch.bool)
    mask[chosen] = True
    for train in (chosen, mask):
        assert target.objective(train).players.index.tolist() == [1, 5, 7]
    del data.train_mask
    with pytest.raises(ValueError, match="which nodes were trained on"):
        target.objective()
    with pytest.raises(ValueError, match='remove must be "labels"'):
        target.objective(chosen, remove="colours")


def test_training_graphs():
    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = GCNConv(5, 4), nn.Linear(4, 2)

        def forward(self, x, edge_index, batch):
            return self.out(global_mean_pool(self.conv(x, edge_index).relu(), batch))

    torch.manual_seed(0)
    graphs = [random_graph(nodes=8, edges=9, seed=s) for s in range(6)]
    for graph in graphs:
        graph.y, graph.train_mask = torch.randint(2, (1,)), None
    net = Pooled()
    objective = GraphModel(net, graphs).graph(1, label=1).objective()
    together = Batch.from_data_list(graphs)
    expected = F.cross_entropy(net(together.x, together.edge_index, together.batch), together.y, reduction="none")
    torch.testing.assert_close(objective.train_loss(objective.params, torch.arange(6)), expected)
    torch.testing.assert_close(objective.train_loss(objective.params, torch.tensor([4, 2])), expected[[4, 2]])


def test_training_pairs():
    class Link(nn.Module):
        def __init__(self):
            super().__init__()
            self.gcn = GCN(5, 8, 2, 4)

        def encode(self, x, edge_index):
            return self.gcn(x, edge_index)

        def decode(self, z, pairs):
            return (z[pairs[0]] * z[pairs[1]]).sum(1)

    torch.manual_seed(0)
    data = random_graph()
    pairs, labels = torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([1.0, 0.0, 1.0])
    net = Link().eval()
    objective = GraphModel(net, data, task="edge").edge(0, 3, label=1).objective((pairs, labels))
    expected = F.binary_cross_entropy_with_logits(
        net.decode(net.encode(data.x, data.edge_index), pairs), labels, reduction="none"
    )
    torch.testing.assert_close(objective.train_loss(objective.params, torch.arange(3)), expected)
