"""Every explainer by its defaults on every task: an answer about the user's own number, or a refusal that is known."""

import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, global_add_pool

import explain
from explain.attention import NothingCaptured

PLAYERS = {"graph": "edges", "supervised": "features", "diffusion": "patches"}
EXPLAINERS = {
    **{
        made.__name__: lambda target, made=made: made(PLAYERS[target.describe()["family"]])
        for made in (
            *(explain.Shapley, explain.Banzhaf, explain.Interactions, explain.Lime, explain.Occlusion),
            *(explain.Gradient, explain.Counterfactual),
        )
    },
    "Mask": lambda target: explain.Mask(epochs=5),  # 200 of them say nothing more about the question
    "Attention": lambda target: explain.Attention(),
    "GraphLime": lambda target: explain.GraphLime(),
    "SubgraphX": lambda target: explain.SubgraphX(),
    "Influence": lambda target: explain.Influence(train=trained_on(target)),
    "SelfInfluence": lambda target: explain.SelfInfluence(explain.Influence(train=trained_on(target))),
}

pytestmark = pytest.mark.filterwarnings(
    # nothing is trained here, and what each method says of that has tests of its own
    "ignore:the model is not at:UserWarning",
    "ignore:the Hessian:UserWarning",
    "ignore:no .* or fewer:UserWarning",
    "ignore:the surrogate:UserWarning",
    "ignore:the loss is not convex:UserWarning",
    "ignore:the standard errors are over half:UserWarning",
)


class OnNodes(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.conv, self.out = GATConv(3, 4), nn.Linear(4, outputs)

    def forward(self, x, edge_index):
        return self.out(self.conv(x, edge_index).tanh())


class OnPairs(OnNodes):
    def forward(self, x, edge_index, edge_label_index):
        h = self.conv(x, edge_index).tanh()
        return self.out(h[edge_label_index[0]] * h[edge_label_index[1]])


class OnGraphs(OnNodes):
    def forward(self, x, edge_index, batch):
        return self.out(global_add_pool(self.conv(x, edge_index).tanh(), batch))


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x, t, label):
        return self.conv(x) * (1 + 0.01 * t[:, None, None, None]) + 0.1 * label[:, None, None, None]


def seeded(make, *given):
    torch.manual_seed(0)
    return make(*given).eval()


def graph(labels=None, seed=0, **fields):
    edge_index = torch.tensor([[0, 1, 1, 2, 2, 3, 3, 0], [1, 0, 2, 1, 3, 2, 0, 3]])
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(seed))
    return Data(x=x, edge_index=edge_index, y=labels, train_mask=torch.ones(4).bool(), **fields)


def on_nodes(outputs, labels, **said):
    net, data = seeded(OnNodes, outputs), graph(labels)
    return explain.wrap(net, data, weight_decay=0.5, **said).node(1), net(data.x, data.edge_index)[1].detach()


def on_pairs(outputs, labels, **said):
    pairs = torch.tensor([[0, 1, 2], [2, 3, 0]])
    net, data = seeded(OnPairs, outputs), graph(edge_label_index=pairs, edge_label=labels)
    own = net(data.x, data.edge_index, pairs)[0].detach()
    return explain.wrap(net, data, task="edge", weight_decay=0.5, **said).edge(0, 2), own


def on_graphs(outputs, labels, **said):
    net, data = seeded(OnGraphs, outputs), [graph(y[None], seed) for seed, y in enumerate(labels)]
    own = net(data[0].x, data[0].edge_index, torch.zeros(4).long())[0].detach()
    return explain.wrap(net, data, weight_decay=0.5, **said).graph(0), own


def on_tables(outputs, labels, task):
    net, x = seeded(nn.Linear, 3, outputs), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    return explain.wrap(net, (x, labels), task=task, weight_decay=0.5).example(x[0]), net(x[0]).detach()


def on_steps():
    net, image = seeded(Denoiser), torch.rand(1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = explain.wrap(
        net,
        betas=torch.linspace(1e-3, 0.1, 10),
        prediction_type="epsilon",
        time="step",
        weight_decay=0.5,
        null=3,
        draws=2,
    )
    return model.step(image, 4, label=1), None


IMAGES = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 2 - 1
REALS = torch.tensor([0.5, -1.5, 2.5, 0.25, -0.75, 1.5])
CLASSES = torch.tensor([0, 1, 2, 1, 0, 2])
YES = torch.tensor([0, 1, 1, 0, 1, 0])
TASKS = {
    "node classes": lambda: on_nodes(3, CLASSES[:4]),
    "node yes or no": lambda: on_nodes(1, YES[:4].float()),
    "node values": lambda: on_nodes(1, REALS[:4]),
    "pair classes": lambda: on_pairs(3, CLASSES[:3]),
    "pair yes or no": lambda: on_pairs(1, YES[:3].float()),
    "pair values": lambda: on_pairs(1, REALS[:3]),
    "graph classes": lambda: on_graphs(3, CLASSES),
    "graph yes or no": lambda: on_graphs(1, YES.float()),
    "graph values": lambda: on_graphs(1, REALS),
    "table classes": lambda: on_tables(3, CLASSES, "classification"),
    "table yes or no": lambda: on_tables(1, YES.float(), "classification"),
    "table values": lambda: on_tables(1, REALS, "regression"),
    "denoiser": on_steps,
}


def trained_on(target):
    """Training examples are named where the model does not know them."""
    return (IMAGES, torch.arange(3)) if target.describe()["family"] == "diffusion" else None


def refused(task):
    """Who cannot answer: whatever else there is must."""
    if task == "denoiser":
        return {"Mask", "Attention", "GraphLime", "SubgraphX", "Counterfactual"}
    classless = {"Counterfactual"} if "values" in task else set()
    if "table" in task:
        return classless | {"Mask", "Attention", "GraphLime", "SubgraphX"}
    return classless if "node" in task else classless | {"GraphLime"}


@pytest.mark.parametrize("task", TASKS)
def test_the_answer_is_about_the_users_own_number_or_refused(task):
    target, own = TASKS[task]()
    if own is not None:  # one output says yes: its number is minus that where the answer is no
        chosen = own.max() if len(own) > 1 else own[0].abs() if "yes" in task else own[0]
        assert target.value() == pytest.approx(float(chosen), rel=1e-5)
    found = set()
    for name, made in EXPLAINERS.items():
        try:
            why = made(target).explain(target)
        except (explain.Unsupported, NothingCaptured):
            found.add(name)
            continue
        assert why.scores.isfinite().all()
        if name != "SelfInfluence":  # which is about its own examples' losses
            assert why.value == pytest.approx(target.value(), rel=1e-5), name
    assert found == refused(task)
