"""The benchmark whose content is known, and what its augmentations teach an encoder."""

from functools import partial

import networkx as nx
import pytest
import torch
from torch_geometric.data import Batch
from torch_geometric.utils import to_networkx

from explain.analysis import content_share, invariance, turned_by_edges
from models.content_style import MOTIFS, content_style, without_any, without_style
from models.graph_cl import GraphEncoder, contrast, pretrain


def test_motifs_are_six_and_differ():
    graphs = [nx.Graph(edges) for edges in MOTIFS.values()]
    assert all(6 <= len(graph) <= 8 and 7 <= graph.number_of_edges() <= 13 for graph in graphs)
    assert not any(nx.is_isomorphic(a, b) for i, a in enumerate(graphs) for b in graphs[:i])


@pytest.mark.parametrize("ratio", [1.0, 4.0])
def test_content_edges_are_copies_of_the_motif_and_style_is_a_tree(ratio):
    for graph in content_style(24, ratio, seed=1):
        motif = nx.Graph(list(MOTIFS.values())[int(graph.y)])
        whole = to_networkx(graph, to_undirected=True)
        assert nx.is_connected(whole)
        content = nx.Graph(graph.edge_index[:, graph.content].T.tolist())
        copies = content.number_of_edges() // motif.number_of_edges()
        expected = nx.disjoint_union_all([motif] * copies)
        shared = len(expected) - len(content)  # hosts are distinct, so copies share no node
        assert shared == 0
        assert nx.is_isomorphic(content, expected)
        style = nx.Graph(graph.edge_index[:, ~graph.content].T.tolist())
        assert nx.is_tree(style)
        size = int(copies * (len(motif) - 1) * ratio)
        assert max(2, size - 2) <= len(style) <= max(2, size + 1)
        assert set(graph.content_nodes.nonzero().view(-1).tolist()) == set(content)


def test_content_aware_augmentation_leaves_content_alone():
    batch = Batch.from_data_list(content_style(20, 2.0))
    aware = without_style(batch, torch.Generator().manual_seed(0), rate=0.5)
    assert int(aware.content.sum()) == int(batch.content.sum())
    assert int((~aware.content).sum()) == pytest.approx(0.5 * int((~batch.content).sum()), rel=0.2)
    generic = without_any(batch, torch.Generator().manual_seed(0), rate=0.2)
    assert int(generic.content.sum()) == pytest.approx(0.8 * int(batch.content.sum()), rel=0.1)
    assert generic.is_undirected()
    assert aware.is_undirected()


def test_views_that_agree_with_their_own_alone_have_the_least_contrast():
    h = torch.eye(5)
    assert float(contrast(h, h)) < float(contrast(h, h.roll(1, 0)))


def test_content_aware_training_looks_at_content_and_past_style():
    """Against generic augmentation where style is four times content (Trivedi et al. 2022)."""
    graphs = content_style(60, 4.0, motifs=("A", "C", "E"))
    generator, found = torch.Generator().manual_seed(9), {}
    for name, augmentation in (("generic", without_any), ("aware", partial(without_style, rate=0.5))):
        torch.manual_seed(0)
        encoder = pretrain(graphs, augmentation, GraphEncoder(10, hidden=16, layers=3), epochs=40, lr=5e-3)
        with torch.no_grad():
            batch = Batch.from_data_list(graphs)
            style = torch.stack([encoder(without_style(batch, generator)) for _ in range(3)])
            looks = float(invariance(encoder(batch), style).mean())
        lifts = [content_share(turned_by_edges(encoder, graph), graph.content).lift for graph in graphs[:12]]
        found[name] = looks, sum(lifts) / len(lifts)
    assert found["aware"][0] > found["generic"][0]
    assert found["aware"][1] > found["generic"][1] > 1
