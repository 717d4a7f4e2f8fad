"""Learned masks on heterogeneous graphs: each meets the messages, rows and columns of its own type."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data, HeteroData
from torch_geometric.explain.algorithm.utils import set_masks
from torch_geometric.nn import RGATConv, RGCNConv
from typed_cases import NETWORKS, library, typed_network

import explain
from explain.graph.model import GraphModel
from explain.mask.messages import aligned_masks
from explain.types import Unsupported


def target_of(net, data=None, **asked):
    return GraphModel(net, data or library()).node(("paper", 3), label=1, **asked)


def masked_number(target, masks):
    """The number of the copied module under these edge masks, as torch_geometric lays them."""
    call = target.module_copy()
    with torch.no_grad(), aligned_masks(call.module, call.edge_index, call.columns):
        set_masks(call.module, masks, call.edge_index, apply_sigmoid=True)
        return float(call.module(call.x, call.edge_index)[call.row, call.label])


@pytest.mark.parametrize("name", NETWORKS)
def test_masks_multiply_the_messages_that_gradients_and_the_game_do(name):
    target = target_of(typed_network(name), removal="message")
    call = target.module_copy()
    with torch.no_grad():
        assert float(call.module(call.x, call.edge_index)[call.row, call.label]) == target.value()
        masks = torch.randn(call.edge_index.size(1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        masks = torch.nn.Parameter(masks)
        by_amounts = float(target.numbers(target.node_place, 1, amounts=masks.sigmoid()[None]))
    assert masked_number(target, masks) == pytest.approx(by_amounts, abs=1e-12)
    players = target.players("edges")
    only = torch.arange(len(players)) % 2 == 0
    owner = torch.full((call.edge_index.size(1),), 20.0, dtype=torch.float64)
    for player, atoms in enumerate(call.atoms(players)):
        owner[atoms] = 800.0 if only[player] else -800.0  # sigmoids of 1 and 0
    found = masked_number(target, torch.nn.Parameter(torch.where(owner == 20, 800.0, owner)))
    assert found == pytest.approx(float(target.game(players)(only[None])), abs=1e-12)


def test_features_of_each_type_have_rows_and_columns_of_their_own():
    target, data = target_of(typed_network("gats")), library()
    call = target.module_copy()
    assert call.x.shape == (9, 7)
    assert call.x.count_nonzero() == 4 * 3 + 5 * 4
    for row, node in zip(call.x, call.nodes.tolist(), strict=True):
        if node < 0:  # stands for all that are too far away
            continue
        own = data["author"].x[node] if node < 4 else data["paper"].x[node - 4]
        assert torch.equal(row, torch.cat([own, own.new_zeros(4)] if node < 4 else [own.new_zeros(3), own]))
    nodes, columns = target.players("nodes"), target.players("features")
    assert [int(call.nodes[atoms]) for atoms in call.atoms(nodes)] == nodes.geometry["node"].tolist()
    by_hand = [3 * kind + column for kind, column in columns.index.tolist()]
    assert [int(atoms) for atoms in call.atoms(columns)] == by_hand


class Planted(nn.Module):
    """A paper's class hangs on its authors' first column through "writes" alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = NETWORKS["gats"]().double()
        with torch.no_grad():
            for name, part in self.net.named_parameters():
                if "bias" in name or "<author___writes" not in name:
                    part.zero_()
        self.scale = 8.0

    def forward(self, x_dict: dict, edge_index_dict: dict) -> torch.Tensor:
        heard = self.net.convs[0](x_dict, edge_index_dict)["paper"]
        return self.scale * torch.stack([heard.sum(1), -heard.sum(1)], 1)


def test_a_planted_relation_is_found_and_the_others_have_no_gradient():
    target = GraphModel(Planted().eval(), library()).node(("paper", 2))
    why = explain.Mask("edges", epochs=40, repeats=2, seed=0).explain(target)
    relations = [library().edge_types[kind][1] for kind, _ in why.players.index.tolist()]
    assert {"writes", "reads"} <= {*relations}
    for relation, score in zip(relations, why.scores.tolist(), strict=True):
        assert (score > 0) == (relation == "writes")
    assert why.checks["unmasked"] == 0
    assert why.checks["removal"] == "message"
    seen = explain.Mask("nodes", epochs=20, repeats=1, seed=0).explain(target)
    assert {seen.players.names[i] for i in seen.scores.nonzero().view(-1).tolist()} == {"author 2", "author 0"}


@pytest.mark.parametrize("conv", [RGCNConv, RGATConv])
def test_parallel_edges_of_two_relations_have_masks_of_their_own(conv):
    class Relational(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = conv(3, 3, 2)

        def forward(self, x, edge_index, edge_type):
            return self.conv(x, edge_index, edge_type)

    torch.manual_seed(0)
    ends = torch.tensor([[0, 1, 2, 0], [1, 2, 1, 1]])  # 0→1 in both relations
    data = Data(x=torch.randn(3, 3).double(), edge_index=ends, edge_type=torch.tensor([0, 0, 0, 1]))
    target = GraphModel(Relational().double().eval(), data).node(1, label=0, removal="message")
    masks = torch.tensor([9.0, 9.0, 9.0, -900.0], dtype=torch.float64)
    with torch.no_grad():
        expected = float(target.numbers(target.stage, 1, amounts=masks.sigmoid()[None]))
    assert masked_number(target, nn.Parameter(masks)) == pytest.approx(expected, abs=1e-12)
    assert expected != pytest.approx(target.value(), abs=1e-3)


def test_what_cannot_be_masked_is_refused_with_the_remedy():
    target = target_of(typed_network("gats"))
    with pytest.raises(Unsupported, match="use gnn_explainer on typed graphs"):
        explain.Mask(method="pg_explainer", epochs=1).fit([target])
    with pytest.raises(Unsupported, match="use gnn_explainer where edges have types"):
        explain.Mask(method="graph_mask", epochs=1).explain(target)
    data = HeteroData()
    data["author"].x, data["paper"].x = torch.arange(4)[:, None], torch.randn(5, 4).double()
    data["author", "writes", "paper"].edge_index = library()["author", "writes", "paper"].edge_index

    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.of_authors, self.of_papers = nn.Embedding(4, 3), nn.Linear(4, 3)

        def forward(self, x_dict: dict, edge_index_dict: dict) -> torch.Tensor:
            source, target = edge_index_dict["author", "writes", "paper"]
            heard = self.of_authors(x_dict["author"].view(-1))[source]
            return self.of_papers(x_dict["paper"]).tanh().index_add(0, target, heard)

    with pytest.raises(Unsupported, match=r"x of author is torch\.int64: use edges, or Shapley"):
        explain.Mask("nodes", epochs=1).explain(target_of(Embedded().double(), data))
