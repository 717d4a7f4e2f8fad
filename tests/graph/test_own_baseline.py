"""Values of your own for absent features: the game, its gradients and its influence are those of features put there."""

import pytest
import torch
from graph_cases import network, random_graph

from explain import Gradient, Influence, Shapley
from explain.graph.model import GraphModel
from explain.types import Unsupported

OWN = torch.tensor([0.5, -1.0, 2.0, 0.0, 0.25])


def model():
    torch.manual_seed(0)
    return GraphModel(network("gcn"), random_graph(), weight_decay=0.01)


def test_absent_columns_and_entries_have_these_values():
    asked = model().node(4, label=2, baseline=OWN)
    data, net = asked.model.data, asked.module
    why = Shapley("features").explain(asked)
    assert why.target["baseline"] == OWN.tolist()
    with torch.no_grad():
        empty = net(OWN.expand_as(data.x), data.edge_index)[4, 2]
    assert why.base == pytest.approx(float(empty), abs=1e-6)
    game, players = asked.game("features"), asked.players("features")
    for column in range(len(players)):
        present = torch.ones(1, len(players), dtype=torch.bool).index_fill(1, torch.tensor([column]), False)
        x = data.x.clone()
        x[:, column] = OWN[column]
        with torch.no_grad():
            assert float(game(present)) == pytest.approx(float(net(x, data.edge_index)[4, 2]), abs=1e-6)
    path = Gradient("features", seed=0).explain(asked)
    assert float(path.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-2)
    same = Shapley("features").explain(model().node(4, label=2, baseline=data.x.mean(0).tolist()))
    torch.testing.assert_close(
        same.scores, Shapley("features").explain(model().node(4, label=2, baseline="mean")).scores, rtol=0, atol=1e-6
    )


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_a_removed_feature_has_it_too():
    asked = model().node(4, label=2, baseline=OWN)
    why = Influence(remove="features", curvature="ggn", damping=0.1).explain(asked)
    x = asked.model.data.x.clone()
    x[:, 1] = OWN[1]
    with torch.no_grad():
        without = asked.module(x, asked.model.data.edge_index)[4, 2]
    assert float(why.parts["structural"][1]) == pytest.approx(why.value - float(without), abs=1e-5)


def test_values_that_do_not_fit():
    for given, match in (
        (OWN[:3], r"each of 5 features, got \[3\]"),
        (OWN * float("nan"), "finite"),
        ({}, "values, got"),
    ):
        with pytest.raises(ValueError, match=match):
            model().node(4, baseline=given)
    data = random_graph()
    data.x = data.x.round().long()
    with pytest.raises(ValueError, match="whose values are whole"):
        GraphModel(network("gcn"), data, call=lambda net, d: net(d.x.float(), d.edge_index)).node(4, baseline=OWN)
    with pytest.raises(Unsupported, match="are of node features"):
        model().node(4, baseline=OWN).players("edge_features")
