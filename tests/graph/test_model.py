"""Every way in: signatures, outputs, tasks, typed graphs."""

import pytest
import torch
from graph_cases import network, random_graph
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.nn import (
    GCN,
    GATConv,
    GCNConv,
    GINConv,
    HeteroConv,
    NNConv,
    RGCNConv,
    SAGEConv,
    Sequential,
    global_max_pool,
    global_mean_pool,
)

from explain.graph.model import GraphModel
from explain.shapley import Shapley


class _Plain(nn.Module):
    """A plain-torch graph network: no message-passing layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x, edge_index):
        return self._sum(self.second(self._sum(self.first(x), edge_index).relu()), edge_index)

    @staticmethod
    def _sum(h, edge_index):
        return h + torch.zeros_like(h).index_add(0, edge_index[1], h[edge_index[0]])


class _Dense(_Plain):
    def forward(self, x, adj):
        adj = adj.t() + torch.eye(len(x))
        return adj @ self.second((adj @ self.first(x)).relu())


class _FromData(_Plain):
    def forward(self, data):
        return super().forward(data.x, data.edge_index)


class _Tuple(_Plain):
    def forward(self, x, edge_index):
        out = super().forward(x, edge_index)
        return out, out.exp()


class _Dictionary(_Plain):
    def forward(self, feats, edge_index):
        return {"hidden": feats, "logits": super().forward(feats, edge_index)}


@pytest.mark.parametrize("make", [_Dense, _FromData, _Tuple, _Dictionary])
def test_all_signatures_and_outputs_give_the_same_game(make):
    torch.manual_seed(0)
    data = random_graph()
    plain = _Plain()
    other = make()
    other.load_state_dict(plain.state_dict())
    expected = GraphModel(plain, data).node(4, label=2)
    found = GraphModel(other, data, output=0 if make is _Tuple else None).node(4, label=2)
    assert found.value() == pytest.approx(expected.value(), rel=1e-5)
    players = expected.players("edges")
    masks = torch.rand(6, len(players)) < 0.5
    torch.testing.assert_close(found.game(players)(masks), expected.game(players)(masks), rtol=1e-5, atol=1e-5)


def test_dense_adjacency_in_the_data():
    torch.manual_seed(0)
    data = random_graph()
    adjacency = torch.zeros(24, 24).index_put((data.edge_index[0], data.edge_index[1]), torch.ones(1))
    net = _Dense()
    expected = GraphModel(net, data).node(4, label=2)
    found = GraphModel(net, Data(x=data.x, adj=adjacency)).node(4, label=2)
    assert found.value() == pytest.approx(expected.value(), rel=1e-6)
    assert set(found.players("edges").names) == set(expected.players("edges").names)


def test_sources_can_be_named():
    data = random_graph()
    data.extra = data.x * 2
    target = GraphModel(network("gcn"), data, inputs={"x": "extra"}).node(4, label=0)
    doubled = Data(x=data.x * 2, edge_index=data.edge_index)
    assert target.value() == pytest.approx(GraphModel(network("gcn"), doubled).node(4, label=0).value(), rel=1e-6)


def test_pyg_sequential():
    data = random_graph()
    torch.manual_seed(0)
    net = Sequential("x, edge_index", [(GCNConv(5, 8), "x, edge_index -> x"), nn.ReLU(), nn.Linear(8, 3)])
    target = GraphModel(net, data).node(4)
    into = (data.edge_index[1] == 4).nonzero().view(-1)
    assert target.players("edges", degrees=False).index.tolist() == into.tolist()
    near = torch.cat([data.edge_index[0, into], torch.tensor([4])])  # edges into these change their degrees
    assert target.players("edges").index.tolist() == torch.isin(data.edge_index[1], near).nonzero().view(-1).tolist()


class _EdgeFeatures(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = NNConv(5, 6, nn.Linear(2, 30))
        self.second = GATConv(6, 3, edge_dim=2)

    def forward(self, x, edge_index, edge_attr):
        return self.second(self.first(x, edge_index, edge_attr).relu(), edge_index, edge_attr)


def test_edge_attributes_travel_with_their_edges():
    torch.manual_seed(0)
    data = random_graph()
    data.edge_attr = torch.randn(data.num_edges, 2)
    net = _EdgeFeatures().eval()
    game = GraphModel(net, data).node(4, label=1).game("edges")
    assert game.checks["computation"] == "cut"
    mask = torch.rand(1, len(game.players)) < 0.5
    keep = torch.ones(data.num_edges, dtype=torch.bool)
    keep[game.players.index] = mask[0]
    expected = net(data.x, data.edge_index[:, keep], data.edge_attr[keep])[4, 1]
    torch.testing.assert_close(game(mask)[0], expected.double(), rtol=1e-5, atol=1e-6)


class _Relational(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = RGCNConv(5, 8, 3), RGCNConv(8, 3, 3)

    def forward(self, x, edge_index, edge_type):
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


@pytest.mark.parametrize("removal", ["delete", "message"])
def test_relational(removal):
    torch.manual_seed(0)
    data = random_graph()
    data.edge_type = torch.randint(3, (data.num_edges,))
    net = _Relational().eval()
    game = GraphModel(net, data).node(4, label=1, removal=removal).game("edges")
    masks = torch.rand(3, len(game.players)) < 0.5
    if removal == "delete":
        keep = torch.ones(data.num_edges, dtype=torch.bool)
        keep[game.players.index] = masks[0]
        expected = net(data.x, data.edge_index[:, keep], data.edge_type[keep])[4, 1]
        torch.testing.assert_close(game(masks)[0], expected.double(), rtol=1e-5, atol=1e-6)
    else:
        assert len(game(masks).unique()) > 1
    assert game.ends()[1] == pytest.approx(float(net(data.x, data.edge_index, data.edge_type)[4, 1].detach()), rel=1e-5)


class _Hetero(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = HeteroConv(
            {
                ("author", "writes", "paper"): SAGEConv((4, 5), 6),
                ("paper", "cites", "paper"): GCNConv(5, 6),
                ("paper", "by", "author"): SAGEConv((5, 4), 6),
            }
        )
        self.again = HeteroConv(
            {
                ("author", "writes", "paper"): SAGEConv((6, 6), 3),
                ("paper", "cites", "paper"): GCNConv(6, 3),
                ("paper", "by", "author"): SAGEConv((6, 6), 3),
            }
        )

    def forward(self, x_dict, edge_index_dict):
        h = {kind: x.relu() for kind, x in self.conv(x_dict, edge_index_dict).items()}
        return self.again(h, edge_index_dict)


@pytest.fixture
def papers():
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.randn(6, 4, generator=generator), torch.randn(9, 5, generator=generator)
    data["author", "writes", "paper"].edge_index = torch.stack(
        [torch.randint(6, (12,), generator=generator), torch.randint(9, (12,), generator=generator)]
    )
    data["paper", "cites", "paper"].edge_index = torch.randint(9, (2, 10), generator=generator)
    data["paper", "by", "author"].edge_index = data["author", "writes", "paper"].edge_index.flip(0)
    return data


@pytest.mark.parametrize("kind", ["edges", "nodes", "features"])
def test_heterogeneous(papers, kind):
    torch.manual_seed(0)
    net = _Hetero().eval()
    target = GraphModel(net, papers).node(("paper", 4), label=1)
    game = target.game(kind)
    assert game.checks["batching"] == "together"
    assert len(game.players.index[0]) == 2
    mask = torch.rand(1, len(game.players)) < 0.5
    edited = papers.clone()
    absent = game.players.index[~mask[0]].tolist()
    nodes, relations = list(papers.node_types), list(papers.edge_types)
    if kind == "edges":
        for number, relation in enumerate(relations):
            keep = torch.ones(papers[relation].num_edges, dtype=torch.bool)
            keep[[i for r, i in absent if r == number]] = False
            edited[relation].edge_index = papers[relation].edge_index[:, keep]
    elif kind == "nodes":
        for number, node in enumerate(nodes):
            edited[node].x[[i for t, i in absent if t == number]] = 0
        for relation in relations:
            gone = [[i for t, i in absent if nodes[t] == end] for end in (relation[0], relation[2])]
            index = papers[relation].edge_index
            touched = torch.isin(index[0], torch.tensor(gone[0])) | torch.isin(index[1], torch.tensor(gone[1]))
            edited[relation].edge_index = index[:, ~touched]
    else:
        for number, node in enumerate(nodes):
            edited[node].x[:, [i for t, i in absent if t == number]] = 0
    expected = net(edited.x_dict, edited.edge_index_dict)["paper"][4, 1].double()
    torch.testing.assert_close(game(mask)[0], expected.detach(), rtol=1e-5, atol=1e-6)


class _Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.gcn = GCN(5, 8, 2, 4)

    def encode(self, x, edge_index):
        return self.gcn(x, edge_index)

    def decode(self, z, edge_label_index):
        return (z[edge_label_index[0]] * z[edge_label_index[1]]).sum(1)


class _Direct(_Encoder):
    def forward(self, x, edge_index, edge_label_index):
        return self.decode(self.encode(x, edge_index), edge_label_index)


class _Embeddings(_Encoder):
    decode = None

    def forward(self, x, edge_index):
        return self.encode(x, edge_index)


@pytest.mark.parametrize("style", ["encode and decode", "forward", "decoder"])
def test_links(style):
    torch.manual_seed(0)
    data = random_graph()
    net = {"encode and decode": _Encoder, "forward": _Direct, "decoder": _Embeddings}[style]().eval()
    decoder = (lambda z, pairs: (z[pairs[0]] * z[pairs[1]]).sum(1)) if style == "decoder" else None
    target = GraphModel(net, data, task="edge", decoder=decoder).edge(3, 7, label=1)
    z = net.gcn(data.x, data.edge_index)
    assert target.value() == pytest.approx(float((z[3] @ z[7]).detach()), rel=1e-5)
    game = target.game("edges")
    masks = torch.rand(3, len(game.players)) < 0.5
    for mask, value in zip(masks, game(masks), strict=True):
        keep = torch.ones(data.num_edges, dtype=torch.bool)
        keep[game.players.index] = mask
        z = net.gcn(data.x, data.edge_index[:, keep])
        assert float(value) == pytest.approx(float((z[3] @ z[7]).detach()), rel=1e-4, abs=1e-6)
    negative = GraphModel(net, data, task="edge", decoder=decoder).edge(3, 7, label=0)
    assert negative.value() == pytest.approx(-target.value(), rel=1e-6)


class _Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.conv, self.out, self.pool = GINConv(nn.Linear(5, 8)), nn.Linear(8, 3), pool

    def forward(self, x, edge_index, batch):
        return self.out(self.pool(self.conv(x, edge_index).relu(), batch))


class _PooledAlone(_Pooled):
    def forward(self, x, edge_index):
        return super().forward(x, edge_index, torch.zeros(len(x), dtype=torch.long))


@pytest.mark.parametrize("pool", [global_mean_pool, global_max_pool])
@pytest.mark.parametrize("make", [_Pooled, _PooledAlone])
def test_graphs(pool, make):
    torch.manual_seed(0)
    graphs = [random_graph(nodes=8, edges=9, seed=s) for s in range(3)]
    net = make(pool).eval()
    model = GraphModel(net, graphs)
    target = model.graph(1, label=2)
    assert target.place.together is (make is _Pooled)
    game = target.game("nodes")
    assert len(game.players) == 8
    masks = torch.rand(5, 8) < 0.5
    masks[-1] = torch.tensor([True] * 3 + [False] * 5)
    data = graphs[1]
    for mask, value in zip(masks, game(masks), strict=True):
        part = data.subgraph(mask)
        batch = torch.zeros(len(part.x), dtype=torch.long)
        expected = net(part.x, part.edge_index, batch) if make is _Pooled else net(part.x, part.edge_index)
        assert float(value) == pytest.approx(float(expected[0, 2].detach()), rel=1e-4, abs=1e-6)


def test_the_empty_graph_pools_to_nothing():
    torch.manual_seed(0)
    net = _Pooled(global_mean_pool).eval()
    why = Shapley("nodes").explain(GraphModel(net, [random_graph(nodes=6, edges=6)]).graph(0, label=1))
    assert why.base == pytest.approx(float(net.out.bias[1].detach()), rel=1e-5)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-6)


def test_fixed_pooling_denominator_with_feature_removal():
    torch.manual_seed(0)
    data = random_graph(nodes=6, edges=6)
    net = _Pooled(global_mean_pool).eval()
    game = GraphModel(net, [data]).graph(0, label=1, removal="features").game("nodes")
    mask = torch.tensor([[True, False, True, True, False, True]])
    x = torch.where(mask[0][:, None], data.x, 0)
    expected = net(x, data.edge_index, torch.zeros(6, dtype=torch.long))[0, 1].double()
    torch.testing.assert_close(game(mask)[0], expected.detach(), rtol=1e-5, atol=1e-6)


def test_featureless_networks_play_on_the_whole_graph():
    class Embedded(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.conv = nn.Embedding(24, 5), GCNConv(5, 3)

        def forward(self, edge_index):
            return self.conv(self.table.weight, edge_index)

    torch.manual_seed(0)
    data = random_graph()
    net = Embedded()
    target = GraphModel(net, Data(edge_index=data.edge_index, num_nodes=24)).node(4, label=0)
    game = target.game("edges")
    assert game.checks["computation"] == "whole graph"
    assert game.checks["batching"] == "one by one"
    assert game.ends()[1] == pytest.approx(target.value(), rel=1e-6)


@pytest.mark.parametrize("payoff", ["logit", "probability", "log_probability", "loss"])
def test_payoffs(payoff):
    data = random_graph()
    net = network("gcn")
    logits = net(data.x, data.edge_index)[4].detach().double()
    expected = {
        "logit": logits[1],
        "probability": logits.softmax(0)[1],
        "log_probability": logits.log_softmax(0)[1],
        "loss": -logits.log_softmax(0)[1],
    }[payoff]
    assert GraphModel(net, data).node(4, label=1, payoff=payoff).value() == pytest.approx(float(expected), rel=1e-6)


def test_the_predicted_class_is_the_default():
    data = random_graph()
    net = network("gcn")
    target = GraphModel(net, data).node(4)
    assert target.label == int(net(data.x, data.edge_index)[4].argmax())
    assert target.describe()["label"] == target.label
