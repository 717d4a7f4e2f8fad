"""What a folder keeps belongs to one question: whatever an answer hangs on, changed, refuses it; nothing else does."""

import functools
import os
import subprocess
import sys
import threading
import types

import pytest
import torch
from diffusers import DDIMScheduler
from digest_cases import asked
from torch import nn
from torch.utils.data import Dataset
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import explain
from explain import Influence, Shapley
from explain.influence import Shards
from explain.parallel import Stale, Undigestable, explain_many, fingerprint

FACTOR = 1.0


def scaled(rows):
    return FACTOR * rows[:, 0]


class Table:
    """One question to a small regressor, of which everything can be changed."""

    def __init__(self, **changed):
        draw = torch.Generator().manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
        for parameter in self.net.parameters():
            parameter.data = torch.randn(parameter.shape, generator=draw)
        self.background = torch.randn(5, 3, generator=draw)
        self.baseline = None
        self.x = torch.randn(3, generator=draw)
        self.train = torch.randn(12, 3, generator=draw), torch.randn(12, 1, generator=draw)
        self.options = {"weight_decay": 0.1}
        self.payoff = "logit"
        for name, value in changed.items():
            setattr(self, name, value(self))

    def asked(self):
        model = explain.wrap(self.net, task="regression", background=self.background, train=self.train, **self.options)
        return model.example(self.x, payoff=self.payoff, baseline=self.baseline)


def other(tensor):
    """The same tensor with one number a little off: less than any tolerance of a number measured again."""
    found = tensor.clone()
    found.view(-1)[0] += 1e-5
    return found


def with_net(change):
    def changed(table):
        with torch.no_grad():
            change(table.net)
        return table.net

    return {"net": changed}


def huber(outputs, labels):
    return nn.functional.huber_loss(outputs, labels, reduction="none").sum(1)


def payoff_of(power):
    return lambda rows: rows[:, 0] ** power


CHANGES = {
    "a background": {"background": lambda t: other(t.background)},
    "a baseline": {"baseline": lambda t: torch.full((3,), 1e-5)},
    "an input": {"x": lambda t: other(t.x)},
    "training inputs": {"train": lambda t: (other(t.train[0]), t.train[1])},
    "labels": {"train": lambda t: (t.train[0], other(t.train[1]))},
    "a loss": {"options": lambda t: {**t.options, "loss": huber}},
    "weight decay": {"options": lambda t: {"weight_decay": 0.1 + 1e-7}},
    "names": {"options": lambda t: {**t.options, "feature_names": ("a", "b", "c")}},
    "a payoff": {"payoff": lambda t: payoff_of(1)},
    "a parameter": with_net(lambda net: net[0].weight[0, 0].add_(1e-6)),
    "a buffer": with_net(lambda net: net[2].running_var[0].add_(1e-6)),
    "a setting of a layer": with_net(lambda net: setattr(net[2], "eps", 1.1e-5)),
    "a hook": with_net(lambda net: net[1].register_forward_hook(lambda m, i, out: out)),
    "a frozen parameter": with_net(lambda net: net[0].weight.requires_grad_(False)),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_answers_of_another_question_never_come_back_from_a_folder(tmp_path, kind):
    explainer = Shapley("features", seed=0)
    explain_many(explainer, [Table().asked()], tmp_path)
    explain_many(explainer, [Table().asked()], tmp_path)
    with pytest.raises(Stale):
        explain_many(explainer, [Table(**CHANGES[kind]).asked()], tmp_path)


@pytest.mark.filterwarnings("ignore:the model is not at a minimum", "ignore:the Hessian")
def test_nor_from_shards(tmp_path):
    influence = Influence(seed=0, curvature="ggn", damping=1.0, shards=Shards(tmp_path, size=5))
    first = influence.explain(Table().asked())
    assert torch.equal(influence.explain(Table().asked()).scores, first.scores)
    for change in CHANGES.values():
        with pytest.raises(Stale):
            influence.explain(Table(**change).asked())


def test_the_predicted_label_is_one_question_said_or_not():
    torch.manual_seed(0)
    graph = Data(torch.randn(4, 3), torch.tensor([[0, 1, 2], [1, 2, 3]]))
    node = explain.wrap(GCNConv(3, 2).eval(), graph).node
    table = explain.wrap(nn.Linear(3, 2), task="classification").example
    for ask, what in ((node, 2), (table, torch.randn(3))):
        label = ask(what).label
        assert fingerprint(ask(what)) == fingerprint(ask(what, label=label)) != fingerprint(ask(what, label=1 - label))


@pytest.mark.parametrize("change", ["x", "edge_index", "y", "aggr"])
def test_a_graphs_data_and_layers_are_part_of_the_question(tmp_path, change):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(2, 2)

        def forward(self, x, edge_index):
            return self.conv(x, edge_index)

    def asked(changed=None):
        torch.manual_seed(0)
        net, data = Net(), Data(torch.eye(3, 2), torch.tensor([[0, 1, 2], [1, 2, 0]]), y=torch.tensor([0, 1, 0]))
        if changed in ("x", "y"):
            data[changed][2] += 1
        elif changed == "edge_index":
            data.edge_index = data.edge_index.flip(1)
        elif changed == "aggr":
            net.conv.add_self_loops = False
        return explain.wrap(net, data).node(1, label=0)

    explain_many(Shapley("edges", seed=0), [asked()], tmp_path)
    used = asked()
    Shapley("edges", seed=0).explain(used)  # what a target finds out for itself is not part of the question
    explain_many(Shapley("edges", seed=0), [used], tmp_path)
    with pytest.raises(Stale, match="differs"):
        explain_many(Shapley("edges", seed=0), [asked(change)], tmp_path)


def test_a_function_is_its_code_closure_defaults_and_globals(monkeypatch):
    assert fingerprint(payoff_of(2)) == fingerprint(payoff_of(2)) != fingerprint(payoff_of(3))
    assert fingerprint(lambda x: x + 1) != fingerprint(lambda x: x + 2)
    assert fingerprint(lambda x, a=1: x) != fingerprint(lambda x, a=2: x)
    assert fingerprint(lambda x: [a for a in x if a > 1]) != fingerprint(lambda x: [a for a in x if a > 2])
    assert fingerprint(functools.partial(max, 1)) != fingerprint(functools.partial(max, 2))
    assert fingerprint(nn.functional.relu) != fingerprint(nn.functional.elu)
    before = fingerprint(scaled)
    monkeypatch.setitem(globals(), "FACTOR", 2.0)
    assert fingerprint(scaled) != before
    own = types.ModuleType("helpers_of_a_user")
    own.power = 2
    monkeypatch.setitem(sys.modules, own.__name__, own)
    monkeypatch.setitem(globals(), "own", own)
    reader = eval("lambda x: x ** own.power", globals())
    before = fingerprint(reader)
    own.power = 3
    assert fingerprint(reader) != before


def test_a_class_is_its_methods():
    def made(sign):
        class Payoff:
            def __call__(self, rows):
                return rows[:, 0] + 1 if sign else rows[:, 0]

        class Other:
            def __call__(self, rows):
                return rows[:, 0]

        Other.__qualname__ = Payoff.__qualname__
        return Payoff() if sign is not None else Other()

    assert fingerprint(made(1)) == fingerprint(made(1)) != fingerprint(made(2))
    assert fingerprint(made(1)) != fingerprint(made(None))


def test_a_data_set_is_its_examples():
    class Examples(Dataset):
        def __init__(self, shift=0.0):
            self.shift, self.read = shift, 0

        def __len__(self):
            return 3

        def __getitem__(self, i):
            self.read += 1
            return torch.tensor([i + (self.shift if i == 2 else 0)]), i

    assert fingerprint(Examples()) == fingerprint(Examples()) != fingerprint(Examples(1e-3))


@pytest.mark.parametrize("held", [threading.Lock, lambda: (i for i in range(3)), lambda: sys.__stderr__])
def test_what_has_no_content_refuses_the_folder_in_words(tmp_path, held):
    thing = held()
    table = Table(payoff=lambda t: lambda rows: rows[:, 0] * bool(thing))
    with pytest.raises(Undigestable, match=r"payoff\..*thing has no content to compare.*leave the folder out"):
        explain_many(Shapley("features", seed=0), [table.asked()], tmp_path)
    assert len(explain_many(Shapley("features", seed=0), [table.asked()])) == 1


def test_the_same_in_another_process():
    """Where sets have another order."""
    code = "from digest_cases import asked; from explain.parallel import fingerprint; print(fingerprint(asked()))"
    env = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == fingerprint(asked())


def test_a_scheduler_is_its_settings():
    """Of which it lists those that were left alone in the order of a set."""
    scheduler, same = DDIMScheduler(20), DDIMScheduler(20)
    left_alone = same.config["_use_default_values"][::-1]
    same._internal_dict = type(same.config)({**same.config, "_use_default_values": left_alone})
    assert scheduler.config["_use_default_values"] != left_alone
    assert fingerprint(same) == fingerprint(scheduler) != fingerprint(DDIMScheduler(21))


def test_tokens_of_one_process_do_not_count():
    net = nn.Linear(2, 1)
    before = fingerprint(net)
    net.register_forward_hook(lambda m, i, out: out).remove()  # handles count through the process
    net.train(), net(torch.ones(2)), net.eval()
    assert fingerprint(net) == before
