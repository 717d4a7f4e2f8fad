"""Mistakes that graph explainers have been seen to make, each held here against the definition."""

import itertools
import math

import pytest
import torch
from graph_cases import Typed, doubled, network, random_graph
from torch import nn
from torch_geometric.data import HeteroData
from torch_geometric.nn import RGCNConv

import explain
from explain import Shapley


def by_definition(value, players):
    """Shapley's formula over a table of all coalitions, ``value(mask) -> number``."""
    table = {bits: value(bits) for bits in itertools.product((False, True), repeat=players)}
    scores = []
    for player in range(players):
        total = 0.0
        for bits, number in table.items():
            if bits[player]:
                size = sum(bits)
                weight = math.factorial(size - 1) * math.factorial(players - size) / math.factorial(players)
                total += weight * (number - table[(*bits[:player], False, *bits[player + 1 :])])
        scores.append(total)
    return scores


class Relational(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = RGCNConv(5, 8, 3, num_bases=2), RGCNConv(8, 3, 3, num_bases=2)

    def forward(self, x, edge_index, edge_type):
        return self.second(self.first(x, edge_index, edge_type).relu(), edge_index, edge_type)


def test_edges_of_a_relational_network_are_those_of_the_definition():
    data = doubled(random_graph(nodes=12, edges=10))
    data.edge_type = torch.randint(3, (data.num_edges,), generator=torch.Generator().manual_seed(0))
    net = Relational().double().eval()
    model = explain.wrap(net, data)
    target = next(t for t in map(model.node, range(12)) if 4 <= len(t.players("edges")) <= 10)
    why = Shapley("edges").explain(target)
    node = target.focus[0][1]

    def value(present):
        keep = torch.ones(data.num_edges).bool()
        keep[why.players.index] = torch.tensor(present)
        with torch.no_grad():
            return float(net(data.x, data.edge_index[:, keep], data.edge_type[keep])[node, target.label])

    expected = by_definition(value, len(why.players))
    assert why.scores.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def _check_typed_names(why):
    """Other libraries and pictures know typed nodes by type and number, not by a count through all types."""
    drawn = why.to_networkx()
    assert drawn.nodes["paper", 0]["focus"]
    shown = {" ".join(map(str, node)) for node in drawn.nodes} - {"paper 0"}
    if why.players.kind == "nodes":
        assert shown == set(why.players.names)
        assert drawn.nodes["author", 0]["player"] == "author 0"
    else:
        assert {f"{source[0]} {source[1]}→{to[0]} {to[1]}" for source, to in drawn.edges()} == set(why.players.names)
        assert [f"{s[0]} {s[1]}" for s in why.to_pandas()["source"]] == [n.split("→")[0] for n in why.players.names]
    pyg = why.to_pyg()
    types, numbers = pyg.node_type.tolist(), pyg.node_id.tolist()
    assert {(pyg.node_type_names[kind], number) for kind, number in zip(types, numbers, strict=True)} == set(
        drawn.nodes
    )
    texts = {text.get_text() for text in why.plot().texts}
    assert "0" in texts


@pytest.mark.parametrize("kind", ["edges", "nodes"])
def test_players_of_a_heterogeneous_network_are_those_of_the_definition(kind):
    generator = torch.Generator().manual_seed(0)
    data = HeteroData()
    data["author"].x = torch.randn(4, 3, generator=generator).double()
    data["paper"].x = torch.randn(6, 4, generator=generator).double()
    data["author", "writes", "paper"].edge_index = torch.tensor([[0, 1, 2, 3, 0], [0, 0, 1, 2, 5]])
    data["paper", "cites", "paper"].edge_index = torch.tensor([[1, 2, 3, 4, 5], [0, 0, 1, 2, 4]])
    net = Typed().double().eval()
    target = explain.wrap(net, data).node(("paper", 0), label=1)
    why = Shapley(kind).explain(target)
    assert 4 <= len(why.players) <= 12
    _check_typed_names(why)

    def value(present):
        x, edges = dict(data.x_dict), dict(data.edge_index_dict)
        gone = [row for row, here in zip(why.players.index.tolist(), present, strict=True) if not here]
        if kind == "edges":
            for number, name in enumerate(edges):
                keep = torch.ones(edges[name].size(1)).bool()
                keep[[edge for type_, edge in gone if type_ == number]] = False
                edges[name] = edges[name][:, keep]
        else:
            absent = {name: [node for type_, node in gone if type_ == number] for number, name in enumerate(x)}
            for name, nodes in absent.items():
                x[name] = x[name].index_fill(0, torch.tensor(nodes, dtype=torch.long), 0.0)
            for name, index in edges.items():
                touched = torch.isin(index[0], torch.tensor(absent[name[0]], dtype=torch.long))
                touched |= torch.isin(index[1], torch.tensor(absent[name[2]], dtype=torch.long))
                edges[name] = index[:, ~touched]
        with torch.no_grad():
            return float(net(x, edges)["paper"][0, 1])

    expected = by_definition(value, len(why.players))
    assert why.scores.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_edges_may_be_numbered_in_int32():
    data = random_graph()
    small = random_graph()
    small.edge_index = small.edge_index.int()
    answers = [Shapley("edges", seed=0).explain(explain.wrap(network("gcn"), d).node(4)) for d in (data, small)]
    assert torch.equal(answers[0].scores, answers[1].scores)


def test_a_target_that_no_player_reaches_has_an_empty_answer():
    data = random_graph(undirected=False)
    data.edge_index = data.edge_index[:, data.edge_index[1] != 4]
    for kind in ("edges", "motifs"):
        why = Shapley(kind, seed=0).explain(explain.wrap(network("sage"), data).node(4))
        assert len(why.scores) == 0
        assert why.value == pytest.approx(why.base)


def test_every_run_of_one_seed_is_the_same_and_seeds_differ_within_their_errors():
    target = explain.wrap(network("gat"), random_graph()).node(4)
    first, again, other = (Shapley("edges", samples=600, seed=seed).explain(target) for seed in (1, 1, 2))
    assert torch.equal(first.scores, again.scores)
    apart = (first.scores - other.scores).abs() / (first.error**2 + other.error**2).sqrt().clamp_min(1e-9)
    assert float(apart.median()) < 2
