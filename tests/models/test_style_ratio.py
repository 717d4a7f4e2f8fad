"""Accuracy and attribution against how much of a graph is style: each figure by hand on a small encoder."""

import pytest
import scipy.stats
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from models import style_ratio
from models.content_style import content_style
from models.graph_cl import GraphEncoder
from models.style_ratio import ENCODERS, RATIOS, Sizes, Span, measured, section

SMALL = Sizes(graphs=60, epochs=2, hidden=8, layers=2, views=2, attributed=3)


def test_the_figures_of_an_untrained_encoder_by_hand(tmp_path):
    state = torch.random.get_rng_state()
    found = measured(2.0, "untrained", 3, SMALL, folder=tmp_path)
    assert torch.equal(torch.random.get_rng_state(), state)
    graphs = content_style(60, 2.0, seed=3)
    torch.manual_seed(3)
    net = GraphEncoder(10, hidden=8, layers=2)
    for norm in net.norms:
        norm.momentum = 1.0  # what it met last, which was all of them
    with torch.no_grad():
        net(graphs)
        h = net.eval()(graphs).numpy()
    y = [int(graph.y) for graph in graphs]
    known, held = train_test_split(range(60), train_size=0.8, stratify=y, random_state=3)
    scaler = StandardScaler().fit(h[known])
    probe = LogisticRegression(max_iter=1000).fit(scaler.transform(h[known]), [y[i] for i in known])
    assert found["accuracy"] == pytest.approx(probe.score(scaler.transform(h[held]), [y[i] for i in held]))
    shares = []
    for graph in graphs[:3]:
        turned = torch.zeros(graph.num_edges)
        for pair in range(0, graph.num_edges, 2):
            stay = torch.ones(graph.num_edges, dtype=torch.bool)
            stay[pair : pair + 2] = False
            with torch.no_grad():
                a, b = net([graph, graph.clone().update({"edge_index": graph.edge_index[:, stay]})])
            turned[pair : pair + 2] = 1 - torch.cosine_similarity(a, b, dim=0)
        shares.append(float(turned[graph.content].sum() / turned.sum()))
    assert found["share"] == pytest.approx(sum(shares) / 3, rel=1e-3)
    assert found["even"] == pytest.approx(sum(float(g.content.double().mean()) for g in graphs[:3]) / 3)


def test_what_is_measured_is_kept_and_another_encoder_is_another(tmp_path, monkeypatch):
    found = {name: measured(1.0, name, 0, SMALL, folder=tmp_path) for name in ENCODERS}
    assert len({fact["share"] for fact in found.values()}) == 3
    assert all(found["untrained"][name] != found["generic"][name] for name in ("invariance_style", "separability"))
    monkeypatch.setattr(style_ratio, "pretrain", None)  # nothing is trained again
    assert measured(1.0, "generic", 0, SMALL, folder=tmp_path) == found["generic"]
    with pytest.raises(ValueError, match="untrained, generic, content-aware, got 'best'"):
        measured(1.0, "best", 0, SMALL, folder=tmp_path)


def test_differences_are_taken_seed_by_seed():
    def facts(ratio, encoder, seed):
        gain = {"untrained": 0.0, "generic": -0.01 * ratio, "content-aware": 0.1}[encoder]
        rest = dict.fromkeys(("style", "any", "share", "even", "separability"), 0.5)
        rest |= {"invariance_style": 0.9, "invariance_any": 0.8, "cpu_seconds": 1.25}
        return {"accuracy": 0.5 + 0.1 * seed + gain, **rest}

    lines = section(facts, seeds=3).splitlines()
    assert len(lines) == 2 + 3 * len(RATIOS) + 1 + 2 + 9
    assert lines[2].startswith("| 1 | untrained | 60.0 ± 10.0 | 50.0 ± 0.0 |")
    assert lines[2].endswith("| 0.900 | 0.800 | 0.500 | 4 |")
    (gap,) = [line for line in lines if line.startswith("| accuracy: content-aware less generic")]
    cells = gap.split(" | ")[1:]  # the spread of the seeds is not in it: both have it
    assert cells[0] == "+11.0 (+11.0 to +11.0, above)"
    assert cells[-1] == "+7.0 (+7.0 to +7.0, above) |"
    assert sum("generic less untrained" in line and "-8.0 (-8.0 to -8.0, below)" in line for line in lines) == 1


def test_an_interval_on_both_sides_of_nothing_is_open():
    found = Span.of([1.0, 2.0, -1.0])
    low, high = scipy.stats.t.interval(0.95, 2, loc=2 / 3, scale=scipy.stats.sem([1.0, 2.0, -1.0]))
    assert (found.low, found.high, found.sign) == (pytest.approx(low), pytest.approx(high), "open")
    assert Span.of([-1.0, -1.1, -0.9]).sign == "below"
