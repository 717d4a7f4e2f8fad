"""Names that users give stand wherever a number would: players, titles, tables and graphs; wrong ones are refused."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Batch, Data, HeteroData
from torch_geometric.nn import GCN, HeteroConv, SAGEConv

import explain
from explain import Occlusion
from explain.conversion import node_labels

PEOPLE = ["Ann Veronica", "Bert", "Cy", "$Dee^2"]
EDGES = torch.tensor([[0, 1, 1, 2, 2, 3], [1, 0, 2, 1, 3, 2]])


def graph(**own):
    return Data(x=torch.eye(4), edge_index=EDGES, y=torch.tensor([0, 1, 0, 1]), **own)


def gcn():
    torch.manual_seed(0)
    return GCN(4, 8, num_layers=2, out_channels=2)


@pytest.mark.parametrize("own", [False, True])
def test_nodes_edges_features_and_classes_go_by_their_names(own):
    names = {
        "node_names": PEOPLE,
        "feature_names": ["a", "b", "c", "d"],
        "class_names": ["no", "yes"],
    }
    model = explain.wrap(gcn(), graph(**names)) if own else explain.wrap(gcn(), graph(), **names)
    target = model.node(1, label=1)
    assert target.players("nodes").names == ("Ann Veronica", "Cy", "$Dee^2")
    assert "Ann Veronica→Bert" in target.players("edges").names
    assert "Bert–Cy" in target.players("edges", undirected=True).names
    assert target.players("features").names == ("a", "b", "c", "d")
    assert "Ann Veronica a" in target.players("node_features").names
    why = Occlusion("nodes").explain(target)
    assert why.target["node"] == "Bert"
    assert why.target["class_name"] == "yes"
    assert "label 1 (yes)" in repr(why)
    assert node_labels(why, [0, 3]) == ["Ann Veronica", "$Dee^2"]
    assert why.to_networkx().nodes[2] | {"score": 0, "player": ""} == {
        "focus": False, "name": "Cy", "score": 0, "player": "",
    }  # fmt: skip


def test_a_window_of_columns_is_called_by_its_first_and_last():
    data = Data(x=torch.ones(4, 4), edge_index=EDGES, node_names=PEOPLE)
    for names, window in ((["lag 3", "lag 2", "lag 1", "trend"], "lag 3–1"), (["a", "b", "c", "d"], "a–c")):
        target = explain.wrap(gcn(), data, feature_names=names).node(1)
        assert target.players("features", size=3).names[0] == window
        assert f"Bert {window}" in target.players("node_features", size=3).names


def test_a_node_is_asked_about_by_its_name():
    model = explain.wrap(gcn(), graph(), node_names=PEOPLE)
    assert model.node("Bert").value() == model.node(1).value()
    with pytest.raises(ValueError, match="no nodes are called 'Bret': did you mean 'Bert'"):
        model.node("Bret")
    with pytest.raises(ValueError, match="nodes have no names"):
        explain.wrap(gcn(), graph()).node("Bert")
    with pytest.raises(ValueError, match="2 nodes are called 'Ann': give its number"):
        explain.wrap(gcn(), graph(), node_names=["Ann", "Bert", "Ann", "Cy"]).node("Ann")


def test_an_edge_has_its_own_name_where_it_is_given():
    target = explain.wrap(gcn(), graph(), edge_names=[f"bond {i}" for i in range(6)]).node(1)
    assert set(target.players("edges").names) <= {f"bond {i}" for i in range(6)}
    assert "bond 0" in target.players("edges", undirected=True).names


def test_training_nodes_have_names():
    data = graph(node_names=PEOPLE, train_mask=torch.tensor([True, False, True, False]))
    players = explain.wrap(gcn(), data).node(1).objective().players
    assert players.names == ("Ann Veronica", "Cy")


def test_nodes_of_many_graphs_are_named_by_each_graph_or_by_a_function_of_it():
    graphs = [Data(x=torch.eye(4)[:n], edge_index=EDGES[:, : 2 * n - 2]) for n in (3, 4)]

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = gcn()

        def forward(self, x, edge_index, batch):
            return torch.zeros(int(batch.max()) + 1, 2).index_add(0, batch, self.net(x, edge_index))

    atoms = ["C", "N", "O", "F"]
    found = [
        explain.wrap(Pooled(), graphs, node_names=given).graph(1).players("nodes").names
        for given in ([atoms[:3], atoms], lambda data: [atoms[i] for i in data.x.argmax(1)])
    ]
    assert found == [("C", "N", "O", "F")] * 2
    with pytest.raises(ValueError, match="a list for each, or a function of a graph"):
        explain.wrap(Pooled(), graphs, node_names=atoms).graph(0)
    for one in graphs:
        one.node_names = atoms[: one.num_nodes]
    batched = explain.wrap(Pooled(), Batch.from_data_list(graphs), task="graph").graph(1)
    assert batched.players("nodes").names == ("C", "N", "O", "F")


def shop() -> HeteroData:
    data = HeteroData()
    data["user"].x, data["item"].x = torch.eye(3), torch.eye(2)
    data["user", "buys", "item"].edge_index = torch.tensor([[0, 1, 2], [0, 0, 1]])
    data["item", "of", "user"].edge_index = torch.tensor([[0, 0, 1], [0, 1, 2]])
    return data


class Shop(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        sizes = {("user", "buys", "item"): (3, 2), ("item", "of", "user"): (2, 3)}
        self.conv = HeteroConv({kind: SAGEConv(size, 2) for kind, size in sizes.items()})

    def forward(self, x_dict, edge_index_dict):
        return self.conv(x_dict, edge_index_dict)["user"]


def test_typed_nodes_are_named_by_type_and_keep_their_numbers_elsewhere():
    target = explain.wrap(Shop(), shop(), node_names={"item": ["tea", "ham"]}).node(("user", 2))
    assert set(target.players("nodes").names) <= {"item tea", "item ham", "user 0", "user 1"}
    assert "item ham→user 2" in target.players("edges").names
    why = Occlusion("edges").explain(target)
    assert node_labels(why, [2, 3, 4]) == ["2", "tea", "ham"]
    assert why.to_networkx().nodes["item", 1]["name"] == "ham"


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ({"node_names": ["a"]}, ValueError, r"node_names must be 4 texts, one for each node, got 1"),
        ({"feature_names": list("abcde")}, ValueError, r"feature_names must be 4 texts, one for each feature, got 5"),
        ({"edge_names": ["a"]}, ValueError, r"edge_names must be 6 texts, one for each edge, got 1"),
        ({"node_names": [1, 2, 3, 4]}, TypeError, "list of texts"),
        ({"node_names": "abcd"}, TypeError, "list of texts"),
        ({"node_names": {"user": ["a"]}}, ValueError, "no such type"),
        ({"class_names": ["a"]}, ValueError, r"class_names must be 2 texts, one for each class, got 1"),
    ],
)
def test_wrong_names_are_refused(names, error, message):
    with pytest.raises(error, match=message):
        explain.wrap(gcn(), graph(), **names).node(0)


def test_names_in_the_data_that_do_not_fit_are_refused_and_other_things_are_no_names():
    with pytest.raises(ValueError, match="node_names must be 4 texts"):
        explain.wrap(gcn(), graph(node_names=["a"]))
    assert explain.wrap(gcn(), graph(node_names=7)).node(0).players("nodes").names[0] == "1"
    with pytest.raises(ValueError, match="by type"):
        explain.wrap(Shop(), shop(), node_names=["a", "b"])


def test_classes_of_a_classifier_of_rows_have_names():
    model = explain.wrap(nn.Linear(2, 3), task="classification", class_names=["cat", "dog", "owl"])
    why = Occlusion("features").explain(model.example(torch.ones(2), label=2))
    assert why.target["class_name"] == "owl"
    with pytest.raises(ValueError, match="3 texts, one for each class, got 2"):
        explain.wrap(nn.Linear(2, 3), task="classification", class_names=["cat", "dog"]).example(torch.ones(2))
