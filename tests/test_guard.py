"""Nothing of the user's changes: what a forward writes is put back, and threads wait for one another."""

import collections
import random
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GATConv, GCNConv

import explain
from explain import Attention, Gradient, Influence, Mask, Occlusion, Shapley
from explain.guard import evaluating, untouched
from explain.threads import alone, found_alone, released


class Counting(nn.Module):
    """Notes every call in every way that a module has."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("wide", torch.zeros(1, 2).expand(3, 2))  # one place for three rows
        self.seen, self.history, self.nested = 0, [], {"inner": {"list": [0]}, "pair": ([], "x")}
        self.last, self.array = torch.zeros(2), np.zeros(2)
        self.stats = SimpleNamespace(calls=0, inner=SimpleNamespace(names=[]))
        self.queue, self.kinds, self.counts = collections.deque(maxlen=3), set(), collections.Counter()
        self.generator = torch.Generator().manual_seed(0)
        self.numpy_generator, self.python_generator = np.random.default_rng(0), random.Random(0)
        self.table = nn.Embedding(3, 2, max_norm=1.0)
        nn.init.constant_(self.table.weight, 5.0)

    def forward(self, x):
        return self.answer(x)

    def answer(self, x, *rest):
        self.calls += 1
        self.seen += 1
        self.history.append(len(x))
        self.nested["inner"]["list"].append(self.seen)
        self.nested["inner"][self.seen] = True
        self.nested["pair"][0].append(1)
        self.last.add_(1)
        self.array += 1
        self.stats.calls += 1
        self.stats.inner.names.append("again")
        self.queue.append(self.seen)
        self.kinds.add(self.seen)
        self.counts["calls"] += 1
        self.new = True
        torch.rand(1, generator=self.generator), self.numpy_generator.random(), self.python_generator.random()
        return self.layer(x, *rest) + self.table(torch.tensor([0])).sum() * 0

    def state(self):
        return repr(
            (
                *(self.calls, self.seen, self.history, self.nested, self.last, self.array, self.stats, self.queue),
                *(self.kinds, self.counts, self.generator.get_state().sum(), self.numpy_generator.bit_generator.state),
                *(self.python_generator.getstate(), self.table.weight, hasattr(self, "new"), self.training),
            )
        )


class CountingGraph(Counting):
    def forward(self, x, edge_index):
        return self.answer(x, edge_index)


class CountingDenoiser(Counting):
    def forward(self, x, t):
        return self.answer(x)


def ring(nodes=5):
    source = torch.arange(nodes)
    torch.manual_seed(0)
    index = torch.stack([source, source.roll(-1)])
    return Data(torch.randn(nodes, 3), index, y=source % 2, train_mask=torch.ones(nodes, dtype=torch.bool))


def table_target(net):
    inputs = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    model = explain.wrap(net, (inputs, torch.arange(8) % 2), task="classification", weight_decay=0.1)
    return model.example(inputs[0])


def graph_target(net):
    return explain.wrap(net, ring(), weight_decay=0.1).node(1)


def denoiser_target(net):
    betas = torch.linspace(1e-4, 0.02, 10)
    return explain.wrap(net, betas=betas, shape=(1, 4, 4), time="step").step(torch.zeros(1, 4, 4), t=5, seed=0)


FAMILIES = {
    "table": (lambda: Counting(nn.Linear(3, 2)), table_target, "features"),
    "graph": (lambda: CountingGraph(GCNConv(3, 2)), graph_target, "edges"),
    "denoiser": (lambda: CountingDenoiser(nn.Conv2d(1, 1, 3, padding=1)), denoiser_target, "patches"),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_forward_changes_is_put_back(family):
    made, ask, players = FAMILIES[family]
    net = made()
    before = net.state()
    target = ask(net)
    assert net.state() == before, "while the target was made"
    target.value(), target.run(), target.players(players)
    assert net.state() == before, "while it was asked"
    game = target.game(players)
    game(torch.ones(2, len(game.players), dtype=torch.bool))
    assert net.state() == before, "by a game"
    Shapley(players, seed=0, samples=None if len(game.players) < 10 else 96).explain(target)
    Gradient(players, method="saliency").explain(target)
    assert net.state() == before


def test_it_is_put_back_after_an_exception_too():
    net = Counting(nn.Linear(3, 2))
    before = net.state()
    target = table_target(net)

    def fails(outputs):
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"), untouched(net):
        fails(net(torch.zeros(1, 3)))
    with pytest.raises(RuntimeError, match="no more"):
        target.asking(fails)
    assert net.state() == before


def test_every_call_meets_the_same_buffers():
    """A graph network whose answer hangs on a counter answers as its first call does, whatever was asked before."""

    class Drifting(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = GCNConv(3, 2)
            self.register_buffer("calls", torch.ones(()))

        def forward(self, x, edge_index):
            out = self.conv(x, edge_index) * self.calls
            self.calls += 1
            return out

    net, data = Drifting().eval(), ring()
    with torch.no_grad():
        own = float(net.conv(data.x, data.edge_index)[1, 0])
    why = Shapley("edges").explain(explain.wrap(net, data).node(1, label=0))
    assert why.value == pytest.approx(own, abs=1e-6)
    assert float(why.scores.sum()) + why.base == pytest.approx(own, abs=1e-6)


def test_large_buffers_are_copied_once(monkeypatch):
    net = nn.BatchNorm1d(3).eval()
    net.register_buffer("large", torch.zeros(1000))
    copied = []
    clone = torch.Tensor.clone
    monkeypatch.setattr(torch.Tensor, "clone", lambda self, **k: copied.append(self.numel()) or clone(self, **k))
    with untouched(net):
        for _ in range(5):
            with evaluating(net):
                net.large += 1
            assert not net.large.any()
    assert copied.count(1000) == 1


def test_what_is_equal_and_not_the_same_is_put_back():
    net = nn.Linear(2, 1)
    net.flag, net.kept, net.pair, net.renamed = 1, [1], [1, 2], 5
    kept = net.kept
    with evaluating(net):
        net.flag, net.kept, net.pair[0] = True, [1], True
        del net.renamed
        net.other = 5
        net._parameters["bias"] = nn.Parameter(net.bias.detach().clone())
    assert (type(net.flag), net.kept is kept, type(net.pair[0])) == (int, True, int)
    assert net.renamed == 5
    assert not hasattr(net, "other")
    weights = dict(net.named_parameters())
    with evaluating(net):
        net._parameters["weight"], net._parameters["bias"] = net.bias, net.weight
        net.weight.data.fill_(9.0)
    assert all(found is weights[name] for name, found in net.named_parameters())
    assert not (net.bias == 9).any()


def test_buffers_of_inference_tensors():
    with torch.inference_mode():
        net = nn.Linear(2, 1)
        net.register_buffer("calls", torch.zeros(()))
    with torch.inference_mode(), evaluating(net):
        net.calls += 1
    assert not net.calls


def test_training_mode_is_warned_of_once_a_model():
    net = nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5))
    with pytest.warns(UserWarning, match="training mode"):
        target = table_target(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Shapley("features").explain(target)
        Occlusion("features").explain(table_target(net))
    with pytest.warns(UserWarning, match="training mode"):
        table_target(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.5)))


# --- threads ---


def in_threads(work, count=4):
    """What each of several threads raised or returned."""
    found = [None] * count

    def run(number):
        try:
            found[number] = work(number)
        except Exception as error:  # handed to the test, which fails by it
            found[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads), "threads wait for one another forever"
    return found


class Net(nn.Module):
    def __init__(self, shared=None):
        super().__init__()
        self.shared = shared or GATConv(3, 4, heads=2)
        self.drop = nn.Dropout(0.5)
        self.head = GCNConv(8, 2)

    def forward(self, x, edge_index):
        return self.head(self.drop(torch.relu(self.shared(x, edge_index))), edge_index)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of training mode, and of a network that was not trained
@pytest.mark.parametrize(
    "explainer",
    [
        Gradient("edges", steps=8),
        Gradient("features", method="smooth_grad", steps=8, seed=0),
        Attention("edges"),
        Shapley("edges", seed=0),
        Mask("edges", epochs=3, seed=0),
        Influence(damping=0.1, curvature="ggn", seed=0),
    ],
    ids=lambda explainer: type(explainer).__name__,
)
def test_threads_on_one_model_get_the_scores_of_one_thread(explainer):
    """Two networks that share a layer, two wrappers of one of them, targets of its own in each thread."""
    torch.manual_seed(0)
    one, data = Net(), ring()
    two = Net(one.shared)
    models = [explain.wrap(net, data, weight_decay=0.1) for net in (one, one, two, two)]
    asked = [(k, v) for k in range(4) for v in (1, 3)]
    expected = {(k, v): explainer.explain(models[k].node(v, label=0)).scores for k, v in asked}
    torch.manual_seed(7), np.random.seed(7), random.seed(7)  # noqa: NPY002 - the global state is what is kept
    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())  # noqa: NPY002

    def work(number):
        return {v: explainer.explain(models[number].node(v, label=0)).scores for v in (1, 3)}

    found = in_threads(work)
    for k, v in asked:
        assert not isinstance(found[k], Exception), found[k]
        assert torch.allclose(found[k][v], expected[k, v], atol=1e-6)
    after = (torch.get_rng_state(), np.random.get_state()[1], random.getstate())  # noqa: NPY002
    assert torch.equal(before[0], after[0])
    assert (before[1] == after[1]).all()
    assert before[2] == after[2]
    for net in (one, two):
        assert all(part.training for part in net.modules())
        assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
        assert all(p.requires_grad and p.grad is None for p in net.parameters())


def test_properties_that_ask_wait_for_the_lock_before_their_own():
    """One thread explains and looks at the property, the other looks at it first and then asks the model."""

    class Asked:
        @found_alone
        def answer(self):
            with alone():
                return 1

    inside, waits = threading.Event(), threading.Event()

    def work(number):
        if number:
            inside.wait(10)
            waits.set()
            return Asked().answer
        with alone():
            inside.set()
            waits.wait(10)
            return Asked().answer

    assert in_threads(work, 2) == [1, 1]


def asks(done):
    with alone():
        done.append(1)


def test_who_waits_for_a_cluster_in_this_process_lets_its_workers_ask():
    net = nn.Linear(2, 1)
    with untouched(net):
        with released():
            assert all(
                isinstance(value, float) for value in in_threads(lambda _: table_target(nn.Linear(3, 2)).value(), 2)
            )
        assert not net.training
        done = []
        thread = threading.Thread(target=lambda: asks(done), daemon=True)
        thread.start()
        thread.join(0.05)
        assert not done, "the lock is held again"
    thread.join(10)
    assert done
