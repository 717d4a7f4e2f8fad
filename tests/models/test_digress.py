"""A network of DiGress' type: its cycle features against networkx, and that it learns what a graph is made of."""

from functools import partial

import networkx as nx
import pytest
import torch

import explain
from models.communities import communities
from models.digress import DiGress, Recipe, generate, on_communities, padded, symmetric
from models.digress_features import SCALES, cycles, spectrum
from models.digress_results import bound_by_step, section
from models.digress_told import PARTS, SIZES, found_parts, on_parts


def test_cycles_through_each_node_are_those_of_networkx():
    upper = (torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5).float().triu(1)
    A = upper + upper.transpose(1, 2)
    expected = torch.zeros(4, 8, 3)
    for row, graph in enumerate(A):
        for cycle in nx.simple_cycles(nx.from_numpy_array(graph.numpy()), length_bound=5):
            expected[row, cycle, len(cycle) - 3] += 1
    assert torch.equal(cycles(A), expected)
    assert expected.sum() > 100


def test_the_spectrum_is_that_of_networkx_and_heat_that_of_the_exponential():
    upper = (torch.rand(6, 7, 7, generator=torch.Generator().manual_seed(0)) < 0.25).double().triu(1)
    A = torch.nn.functional.pad(upper + upper.mT, (0, 2, 0, 2))
    real = torch.arange(9) < 7
    found = spectrum(A, real.expand(6, -1))
    parts = set()
    for row, padded_graph in enumerate(A):
        graph = nx.from_numpy_array(padded_graph[:7, :7].numpy())
        parts.add(nx.number_connected_components(graph))
        assert found.whole[row, 0] * 7 == pytest.approx(nx.number_connected_components(graph))
        L = torch.from_numpy(nx.normalized_laplacian_matrix(graph).toarray())
        values = [value for value in nx.normalized_laplacian_spectrum(graph) if value > 1e-4][:5]
        assert found.whole[row, 1:].tolist() == pytest.approx(values + [0.0] * (5 - len(values)))
        for scale, heat in zip(SCALES, found.heat[row].unbind(-1), strict=True):
            torch.testing.assert_close(heat[:7, :7], torch.matrix_exp(-scale * L))
            assert not heat[7:].any()
    assert len(parts) > 2


def test_padding_and_the_order_of_nodes_change_nothing():
    torch.manual_seed(0)
    net = DiGress(steps=10).double().eval()
    small, large = sorted(communities(2, seed=1), key=len)
    assert len(small) < len(large)
    classes, real = padded([small, large])
    E = torch.nn.functional.one_hot(classes, 2).double()
    t = torch.tensor([4, 4])
    together = net(E, t, real)
    for row, graph in enumerate((small, large)):
        n = len(graph)
        alone = net(E[row : row + 1, :n, :n], t[:1])
        torch.testing.assert_close(together[row, :n, :n], alone[0])
    order = torch.randperm(len(large), generator=torch.Generator().manual_seed(1))
    own = E[1:, : len(large), : len(large)]
    turned = net(own[:, order][:, :, order], t[:1])
    torch.testing.assert_close(turned, net(own, t[:1])[:, order][:, :, order])
    torch.testing.assert_close(turned, turned.transpose(1, 2))


def test_after_a_little_training_it_knows_more_than_the_limit_and_is_explained(tmp_path):
    before = torch.get_rng_state()
    recipe = Recipe(updates=40, batch=8, steps=8)
    found, noise = on_communities(0, recipe, 16, folder=tmp_path, progress=False)
    again, _ = on_communities(0, recipe, 16, folder=tmp_path, progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert again.cached
    assert again.facts == found.facts
    assert found.facts["loss"] < 0.9 * found.facts["nats_of_the_limit"]  # of the clean pairs, at all steps alike
    terms = bound_by_step(found.module, noise)
    assert terms.shape == (9,)
    assert float(terms.sum()) == pytest.approx(found.facts["nats"])
    lines = section(lambda _: (found, noise)).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    for row, whose in zip(rows[2:5], ("generated", "real", "limit"), strict=True):
        values = [f"{found.facts[whose][name]:.3f}" for name in ("degree", "clustering", "modularity")]
        assert row[:4] == [whose, *values]
    *spans, total = map(float, rows[-1][1:])
    assert sum(spans) == pytest.approx(total, abs=5e-4)
    assert total == pytest.approx(found.facts["nats"], abs=1e-4)
    assert 0 < found.facts["nats"] < 1
    assert abs(found.facts["limit"]["degree"] - found.facts["real"]["degree"]) < 1
    model = explain.wrap(found.module, process=noise, time="step")
    assert model.assumed["arguments"] == "E = one-hot pairs, t = the time; at their defaults: real"
    graph = communities(1, seed=3)[0]
    asked = model.step(graph, t=3, edge=(0, 1), draws=2)
    why = explain.Occlusion("nodes").explain(asked)
    assert why.value == pytest.approx(asked.value())
    assert int(why.scores.abs().argmax()) in (0, 1)  # its ends hold the pair itself
    run = model.trajectory(8, payoff=lambda pairs: pairs.sum((1, 2)).double(), draws=3)
    ends = generate(found.module, noise.edges, 8, 3, torch.Generator().manual_seed(0))
    for graphs in (ends, run.graphs()):
        assert torch.equal(graphs, graphs.transpose(1, 2))
        assert not graphs.diagonal(dim1=1, dim2=2).any()


def test_noise_of_a_pair_is_that_of_both_directions():
    noise = symmetric(torch.rand(2, 5, 5, 3))
    assert torch.equal(noise, noise.transpose(1, 2))


def test_told_how_many_communities_there_are_it_makes_other_graphs_and_says_so_to_the_toolkit(tmp_path):
    recipe = Recipe(updates=10, batch=8, steps=3)
    found, noise = on_parts(0, recipe, 16, judged=4, folder=tmp_path, progress=False)
    assert found.facts["real"] >= 0.75
    assert set(found.facts["weights"]) == {"0", "1", "2", "4"}
    net, nodes, told, weight = found.module.double(), SIZES[0], 1, 3.0
    assert PARTS[told] == 3
    model = explain.wrap(net, process=noise, time="step", null=net.null)
    assert "condition = the condition" in model.assumed["arguments"]
    run = model.trajectory(nodes, payoff=lambda p: p.sum((1, 2)).double(), condition=told, guidance=weight, draws=2)
    other = model.trajectory(nodes, payoff=lambda p: p.sum((1, 2)).double(), condition=told, draws=2)
    assert not torch.equal(run.graphs(), other.graphs())
    E = run.start.pairs
    t = torch.full((2,), recipe.steps)
    u, c = net(E, t), net(E, t, condition=torch.full((2,), told))
    first = next(iter(run.turns(run.everybody()))).foreseen.pairs
    torch.testing.assert_close(first, (u + weight * (c - u)).softmax(-1))
    by_hand = partial(generate, net.float(), noise.edges, nodes, 2)
    untold = by_hand(torch.Generator().manual_seed(0))
    assert torch.equal(by_hand(torch.Generator().manual_seed(0), told, 0.0), untold)
    assert not torch.equal(by_hand(torch.Generator().manual_seed(0), told, weight), untold)


def test_the_judge_counts_communities():
    for parts in PARTS:
        found = found_parts(communities(20, SIZES, seed=1, parts=parts))
        assert found.count(parts) >= 18  # greedy search splits one now and then
    assert found_parts([torch.zeros(6, 6).long()]) == [0]
