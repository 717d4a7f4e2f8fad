"""The proximal response of networks of attention, Chebyshev filters and convolutions to groups of edits: retraining."""

import copy

import numpy as np
import pytest
import torch
from graph_cases import DECAY as RIDGE
from graph_cases import doubled, graph_ridge, random_graph, squared
from torch import nn
from torch_geometric.utils import to_undirected

import explain
from explain import Influence
from explain.influence.proximal import Edited, descended
from explain.influence.scores import training_gradient
from explain.influence.solvers import choice
from models.removal.networks import Deep


def trained(net, data, count, decay):
    """Training of a copy from where it is to the nearest minimum, by torch's own L-BFGS."""
    made = copy.deepcopy(net)
    options = {"max_iter": 500, "tolerance_grad": 1e-9, "tolerance_change": 0, "history_size": 50}

    def loss():
        optimizer.zero_grad()
        outputs = made(data.x, data.edge_index)[data.train_mask]
        total = nn.functional.cross_entropy(outputs, data.y[data.train_mask], reduction="sum") / count
        total = total + decay / 2 * sum(p.square().sum() for p in made.parameters())
        total.backward()
        return total

    for _ in range(10):  # its line search gives up at times
        optimizer = torch.optim.LBFGS(made.parameters(), line_search_fn="strong_wolfe", **options)
        optimizer.step(loss)
        if max(float(p.grad.abs().max()) for p in made.parameters()) < 1e-8:
            return made
    raise AssertionError("no minimum")


def edited(data, add, remove):
    made, gone = copy.copy(data), {*map(tuple, torch.cat([remove, remove.flip(0)], 1).T.tolist())}
    kept = [edge for edge in data.edge_index.T.tolist() if tuple(edge) not in gone]
    made.edge_index = torch.cat([torch.tensor(kept).T, add, add.flip(0)], 1)
    return made


@pytest.mark.parametrize(("kind", "layers", "decay"), [("GCN", 3, 0.05), ("GAT", 2, 0.1), ("ChebNet", 2, 0.05)])
def test_groups_of_edits_as_training_again_has_them(kind, layers, decay):
    data = doubled(random_graph(nodes=20, edges=30))
    data.edge_index, data.y = to_undirected(data.edge_index), (data.x[:, 0] > 0).long() + (data.x[:, 1] > 0.5)
    torch.manual_seed(0)
    count = int(data.train_mask.sum())
    net = trained(Deep(kind, 5, 3, 4, layers).double(), data, count, decay).eval()
    target = explain.wrap(net, data, weight_decay=decay).node(4)
    generator = torch.Generator().manual_seed(0)
    here = data.edge_index[:, data.edge_index[0] < data.edge_index[1]]
    free = torch.ones(20, 20).triu(1).index_put((here[0], here[1]), torch.tensor(0.0)).nonzero().T
    drawn = [
        [pairs[:, torch.randperm(pairs.size(1), generator=generator)[:2]] for pairs in (free, here)] for _ in range(3)
    ]
    add, remove = map(list, zip(*drawn, strict=True))
    before = {name: p.clone() for name, p in net.state_dict().items()}
    found = Influence(add=add, remove=remove, proximal=100, seed=0, progress=False).explain(target)
    again = [trained(net, edited(data, *both), count, decay) for both in drawn]
    with torch.no_grad():
        outputs = [
            other(edit.x, edit.edge_index)[4]
            for other, edit in zip(again, (edited(data, *b) for b in drawn), strict=True)
        ]
    rises = torch.stack(outputs)[:, target.describe()["label"]] - found.value
    torch.testing.assert_close(found.scores, rises, rtol=0, atol=1e-5)
    assert found.checks["proximal_left"] < 1e-2
    first = found.parts["structural"] + found.parts["first_order"]
    off = (first - rises).abs().max()
    assert off > 100 * (found.scores - rises).abs().max()
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())


def unfinished():
    data = doubled(random_graph(nodes=12, edges=16))
    torch.manual_seed(1)
    return explain.wrap(Deep("GAT", 5, 3, 4, 2).double().eval(), data, weight_decay=0.01).node(4)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_training_that_was_not_finished_is_left_so_and_few_steps_are_said():
    target = unfinished()
    objective = target.objective()
    theta = torch.cat([p.reshape(-1) for p in objective.params.values()])
    rest = descended(Edited(objective, theta, training_gradient(objective), 0.1), lambda g: g, 50)
    assert rest.theta.equal(theta)  # nothing is edited: nothing moves, though the loss has a slope
    assert rest.steps == 0
    with pytest.warns(UserWarning, match=r"has not come to rest after 1 steps: with more \(proximal=\)"):
        found = Influence(remove="edges", proximal=1, damping=1e-4, curvature="ggn", seed=0).explain(target)
    assert max(found.checks["proximal_steps"]) == 1
    assert found.checks["proximal_left"] > 1e-2


@pytest.mark.parametrize("bad", [{"proximal": -1}, {"proximal": True}, {"proximal": 5, "newton": True}])
def test_what_does_not_go_together_is_said(bad):
    with pytest.raises(ValueError, match="proximal must be a whole number of steps, without newton"):
        Influence(**bad)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_one_response_serves_many_numbers_and_training_labels_too():
    target = unfinished()
    others = [target, target.model.node(7, label=1)]
    edges = target.model.data.edge_index[:, :2]
    asked = Influence(remove=edges, proximal=60, damping=1.0, curvature="ggn", seed=0)
    for one, other in zip(asked.explain_all(others), others, strict=True):
        torch.testing.assert_close(one.scores, asked.explain(other).scores)
    labels = Influence(proximal=60, damping=1.0, curvature="ggn", seed=0).explain(target)
    assert np.corrcoef(labels.scores, labels.parts["first_order"])[0, 1] > 0.9
    assert labels.checks["proximal_left"] < 1e-2


def test_single_precision_comes_as_far_as_it_goes():
    """An edge that hardly matters moves the loss by less than its rounding: slopes still say where to."""
    scores = {}
    for dtype in (torch.float64, torch.float32):
        data = random_graph(nodes=16, edges=24)
        data.x = data.x.to(dtype)
        net = graph_ridge(doubled(data), int(data.train_mask.sum())).to(dtype)
        target = explain.wrap(net, data, weight_decay=RIDGE, loss=squared).node(4, label=0)
        found = Influence(remove=data.edge_index[:, 20:24], proximal=20, damping=0.0, seed=0).explain(target)
        scores[dtype] = found.parts["learned"].double()
    assert (scores[torch.float64] != 0).sum() >= 2
    torch.testing.assert_close(scores[torch.float32], scores[torch.float64], rtol=0.01, atol=1e-5)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum")
def test_the_whole_matrix_is_made_where_many_responses_are_worth_it(monkeypatch):
    target = unfinished()
    edges = target.model.data.edge_index
    monkeypatch.setattr(choice, "DIRECT", 0)  # one solution is not worth it
    asked = {"remove": edges, "proximal": 30, "damping": 1.0, "curvature": "ggn", "seed": 0}
    one, other = (Influence(**asked, solver=solver).explain(target) for solver in ("auto", "cg"))
    assert one.checks["solver"] == other.checks["solver"] == "cg"
    torch.testing.assert_close(one.scores, other.scores, rtol=1e-4, atol=1e-6)
    assert one.calls < other.calls / 4
