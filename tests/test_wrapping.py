"""wrap() asks the right family, and says what it accepts."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.data import Data, HeteroData
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GCN

import explain
from explain.graph.model import GraphModel
from explain.supervised import SupervisedModel

X, Y = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 0, 1, 0, 1])
DATASET = TensorDataset(X, Y)


def test_graphs_go_to_the_graph_family():
    karate = KarateClub()
    net = GCN(34, 4, num_layers=2, out_channels=4)
    for data, task in [(karate[0], "node"), ([karate[0], karate[0]], "graph"), (karate, "graph")]:
        model = explain.wrap(net, data)
        assert isinstance(model, GraphModel)
        assert model.task == task
    assert explain.wrap(net, karate[0], weight_decay=5e-4).weight_decay == 5e-4


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_anything_else_with_a_task_is_supervised(task):
    model = explain.wrap(nn.Linear(3, 2), task=task)
    assert isinstance(model, SupervisedModel)
    assert (model.task, model.background, model.train) == (task, None, None)


@pytest.mark.parametrize("data", [(X, Y), [X, Y], DATASET, DataLoader(DATASET)])
def test_examples_are_what_it_was_trained_on(data):
    model = explain.wrap(nn.Linear(3, 2), data, task="classification", weight_decay=0.1)
    assert model.train is data
    assert len(model.example(X[0]).objective().players) == 6


def test_one_tensor_is_the_background():
    model = explain.wrap(nn.Linear(3, 2), X, task="classification", feature_names=["a", "b", "c"])
    assert model.background is X
    assert model.example(X[0]).describe()["removal"] == "interventional"


def test_both_can_be_given():
    model = explain.wrap(nn.Linear(3, 2), DATASET, task="classification", background=X[:2])
    assert (model.train, len(model.background)) == (DATASET, 2)


@pytest.mark.parametrize(
    ("model", "data", "task", "error", "got"),
    [
        (LogisticRegression(), None, "classification", TypeError, "a model of type sklearn.linear_model"),
        (lambda x: x, None, "regression", TypeError, "a model of type builtins.function"),
        (nn.Linear, None, "regression", TypeError, "a model of type builtins.type"),
        (None, None, None, TypeError, "a model of type None"),
        (nn.Linear(3, 2), X.numpy(), "classification", TypeError, "data of type numpy.ndarray"),
        (nn.Linear(3, 2), [[1.0, 2.0, 3.0]], "classification", TypeError, "data of type builtins.list"),
        (nn.Linear(3, 2), (X, Y, Y), "classification", TypeError, "data of type builtins.tuple"),
        (nn.Linear(3, 2), None, None, ValueError, "task=None and data of type None"),
        (nn.Linear(3, 2), (X, Y), None, ValueError, "task=None and data of type builtins.tuple"),
        (nn.Linear(3, 2), X, "node", ValueError, "task='node' and data of type torch.Tensor"),
        (nn.Linear(3, 2), [], None, ValueError, "data of type builtins.list"),
        (nn.Linear(3, 2), [Data(), X], None, ValueError, "data of type builtins.list"),
    ],
)
def test_anything_else_is_told_what_is_accepted(model, data, task, error, got):
    with pytest.raises(error, match=r"explain\.wrap takes a torch\.nn\.Module") as raised:
        explain.wrap(model, data, task=task)
    assert got in str(raised.value)


@pytest.mark.parametrize("data", [Data(x=X, edge_index=torch.zeros(2, 0).long()), HeteroData()])
def test_graphs_have_their_own_tasks(data):
    with pytest.raises(ValueError, match="these graphs have 'node', 'edge' or 'graph'"):
        explain.wrap(nn.Linear(3, 2), data, task="classification")
