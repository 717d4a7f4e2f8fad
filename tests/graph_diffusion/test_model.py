"""What a denoiser of labels is given and what it answers: proved, said, or asked for; and the user's own sampler."""

import pytest
import torch
from diffusers import DDPMScheduler
from label_denoisers import BETAS, Colouring, T, by_hand, small_ladder
from torch import nn
from torch_geometric.data import Data, HeteroData

import explain
from explain import Shapley
from explain.diffusion.categorical import Categorical, drawn
from explain.graph_diffusion.readings import readings, settled
from explain.types import NonFinite, Unsupported
from models.dpm_snc import sample


@pytest.fixture(scope="module")
def data():
    return small_ladder()


# --- what the answer means ---


@pytest.mark.parametrize("answers", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("low", [0.0, -1.0])
def test_how_the_answer_is_read_is_found_out_on_known_labels(data, answers, low):
    model = explain.wrap(Colouring(answers=answers, low=low), data, betas=BETAS, time="step")
    assert (model.process.process.prediction, model.process.low) == (answers, low)
    assert model.assumed["prediction"].startswith(f"{answers}, of one-hot labels {'0/1' if low == 0 else '-1/1'}: ")
    assert model.trajectory(4, int(data.y[4]), draws=8).value() > 0.6


def test_a_network_that_knows_nothing_is_asked_about(data):
    class Blank(nn.Module):
        def forward(self, x, y_t, t, edge_index):
            return 0 * y_t

    with pytest.raises(ValueError, match=r"cannot be told from the labels .*say prediction_type='epsilon'"):
        explain.wrap(Blank(), data, betas=BETAS, time="step")
    said = explain.wrap(Blank(), data, betas=BETAS, time="step", prediction_type="epsilon", scale="0/1")
    assert "prediction" not in said.assumed
    judged = torch.ones(2).bool()
    best = settled(readings(lambda y, t: y * 0, BETAS, torch.eye(2).double(), judged, ("sample",), ("0/1",)))
    assert (best.prediction, best.scale) == ("sample", "0/1")


def test_the_noise_of_a_scheduler_and_what_its_steps_are_not(data):
    scheduler = DDPMScheduler(T, trained_betas=BETAS.numpy())
    model = explain.wrap(Colouring(), data, scheduler=scheduler, time="step")
    assert (
        "ancestral, of the noise of DDPMScheduler; for its own step() give your loop as sampler="
        in (model.assumed["steps"])
    )
    assert model.process.process.prediction == "epsilon"


# --- what forward is given ---


@pytest.mark.parametrize("form", ["one a node", "a number"])
def test_the_time_is_given_as_the_network_takes_it(data, form):
    class Own(Colouring):
        def forward(self, h, noisy_labels, timestep, edge_index, extra=None):
            want = {"one a node": (len(h),), "a number": ()}[form]
            if tuple(timestep.shape) != want:
                raise RuntimeError(f"time of shape {list(timestep.shape)}")
            return super().forward(h, noisy_labels, timestep, edge_index)

    model = explain.wrap(Own(), data, betas=BETAS, time="step")
    assert model.network.rows == form
    assert model.assumed["arguments"] == (
        "noisy_labels = the noised labels, timestep = the time, h = x, edge_index = edge_index; "
        "at their defaults: extra"
    )
    assert model.trajectory(4, 0, draws=1).value() == by_hand(Colouring(), data, data.train_mask, 4, 0, 1)


class ByGraph(Colouring):
    """Looks its time up by graph."""

    def forward(self, x, y_t, t, edge_index, batch):
        return super().forward(x, y_t, t[batch], edge_index)


class Embedded(Colouring):
    """Has something learned of each node, and so a fixed number of them."""

    def __init__(self):
        super().__init__()
        self.own = nn.Parameter(torch.linspace(-0.1, 0.1, 10)[:, None].double())

    def forward(self, x, y_t, t, edge_index):
        return super().forward(x, y_t, t, edge_index) + self.own


def test_times_by_graph_and_networks_of_a_fixed_number_of_nodes(data):
    by_graph = explain.wrap(ByGraph(), data, betas=BETAS, time="step")
    assert (by_graph.network.rows, by_graph.batched) == ("one a graph", True)
    plain = explain.wrap(Colouring(), data, betas=BETAS, time="step").trajectory(4, 0, payoff="state", draws=2)
    assert by_graph.trajectory(4, 0, payoff="state", draws=2).value() == pytest.approx(plain.value(), abs=1e-9)
    fixed = explain.wrap(Embedded(), data, betas=BETAS, time="step")
    assert not fixed.batched
    asked = fixed.trajectory(4, 0, draws=2)
    assert asked.value() == by_hand(Embedded(), data, data.train_mask, 4, 0, 2)


def test_edges_that_are_held_elsewhere_are_not_taken_away_in_silence(data):
    class Holding(Colouring):
        def forward(self, x, y_t, t):
            return super().forward(x, y_t, t, data.edge_index)

    class Dense(Colouring):
        def forward(self, x, y_t, t, adj):
            return super().forward(x, y_t, t, adj.nonzero().T)

    held = explain.wrap(Holding(), data, betas=BETAS, time="step")
    assert "reads no edge_index" in held.assumed["edges"]
    with pytest.raises(ValueError, match="the network answers the same without any edge"):
        held.trajectory(4, 0, draws=1).players("edges")
    doubled = data.clone()
    doubled.adj = torch.zeros(10, 10).index_put(tuple(data.edge_index), torch.tensor(1.0))
    with pytest.raises(TypeError, match="'adj' holds the edges again"):
        explain.wrap(Dense(), doubled, betas=BETAS, time="step")
    square = data.clone()
    square.x = torch.eye(10).double() * 0.5 + 0.5  # as many features as nodes are no adjacency
    assert explain.wrap(Colouring(), square, betas=BETAS, time="step").reads_edges
    halves = data.clone()
    halves.y = data.y + 0.5
    with pytest.raises(ValueError, match="labels must be classes, whole numbers"):
        explain.wrap(Colouring(), halves, betas=BETAS, time="step", classes=2)


def test_your_own_call_and_other_units_of_time(data):
    class Odd(Colouring):
        def forward(self, stacked, where, share):
            return super().forward(stacked[:, :1], stacked[:, 1:], (share * T).round().long(), where)

    with pytest.raises(TypeError, match=r"which of Odd's arguments \(stacked, where, share\) takes the noised labels"):
        explain.wrap(Odd(), data, betas=BETAS, time="unit")

    def call(net, graph, y, t):
        return net(torch.cat([graph.x, y], 1), graph.edge_index, t / T)

    model = explain.wrap(Odd(), data, betas=BETAS, call=call)
    plain = explain.wrap(Colouring(), data, betas=BETAS, time="step")

    class Unit(Colouring):
        def forward(self, x, y_t, t, edge_index):
            return super().forward(x, y_t, (t * T).round().long(), edge_index)

    share = explain.wrap(Unit(), data, betas=BETAS, time="unit")
    function = explain.wrap(Unit(), data, betas=BETAS, time=lambda t: t.double() / T)
    asked = [each.trajectory(4, 0, payoff="state", draws=1).value() for each in (plain, model, share, function)]
    assert asked == pytest.approx([asked[0]] * 4, abs=1e-12)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"betas": None}, TypeError, r"sampled: betas= .* got none"),
        ({"sampler": print}, TypeError, r"got betas, sampler"),
        ({"time": None}, TypeError, r"in which unit does Colouring take its time"),
        ({"time": "sigma"}, ValueError, "time must be one of step, unit"),
        ({"known": torch.ones(3).bool()}, ValueError, r"known must be bool \[10\]"),
        ({"classes": 1}, ValueError, "classes must be a whole number of at least 2"),
        ({"scale": "0-1"}, ValueError, "scale must be one of 0/1, -1/1"),
        ({"prediction_type": "noise"}, ValueError, "prediction_type must be"),
        ({"process": Categorical.uniform(BETAS, 3), "betas": None}, ValueError, "3 classes and the labels 2"),
        ({"tme": "step"}, TypeError, "did you mean 'time'"),
        ({"task": "node"}, ValueError, "a denoiser of labels has no task"),
        ({"rule": "joint"}, TypeError, "rule= is of Categorical"),
        (
            {"process": Categorical.uniform(BETAS, 2), "betas": None, "scale": "0/1"},
            TypeError,
            "scale= are of Gaussian",
        ),
        ({"sampler": print, "betas": None}, TypeError, "time= are of our sampler"),
        ({"label": "x"}, ValueError, r"one class a node, graph.x int64 \[n\]"),
    ],
)
def test_what_does_not_go_together_is_told_so(data, change, error, message):
    options = {"betas": BETAS, "time": "step"} | change
    with pytest.raises(error, match=message):
        explain.wrap(Colouring(), data, **{name: given for name, given in options.items() if given is not None})


def test_graphs_that_cannot_be_asked_about(data):
    with pytest.raises(TypeError, match="one torch_geometric Data with edge_index, got HeteroData"):
        explain.wrap(Colouring(), HeteroData(), betas=BETAS, time="step")
    nobody = Data(x=data.x, edge_index=data.edge_index, y=data.y)
    with pytest.raises(ValueError, match=r"whose label is known\? Give known=bool \[10\]"):
        explain.wrap(Colouring(), nobody, betas=BETAS, time="step")
    broken = data.clone()
    broken.y = torch.where(data.train_mask, 5, data.y)
    with pytest.raises(ValueError, match="known labels must be classes from 0 to 1, got 5"):
        explain.wrap(Colouring(), broken, betas=BETAS, time="step", classes=2)

    class Far(Colouring):
        def forward(self, x, y_t, t, edge_index):
            return y_t / 0

    with pytest.raises(NonFinite, match="NaN or infinity"):
        explain.wrap(Far(), data, betas=BETAS, time="step")

    class Wrong(Colouring):
        def forward(self, x, y_t, t, edge_index):
            return y_t.sum()

    with pytest.raises(ValueError, match=r"cannot be called with y_t \[10, 2\] .*one row a node"):
        explain.wrap(Wrong(), data, betas=BETAS, time="step")

    class Random(Colouring):
        def forward(self, x, y_t, t, edge_index):
            return y_t + torch.randn_like(y_t)

    class Seeded(Colouring):
        def forward(self, x, y_t, t, edge_index):
            torch.manual_seed(int(y_t.abs().sum() * 1e6))
            return y_t + torch.randn_like(y_t)

    for net, message in ((Random(), "not deterministic"), (Seeded(), "from a seed that its input makes")):
        with pytest.raises(ValueError, match=message):
            explain.wrap(net, data, betas=BETAS, time="step", prediction_type="epsilon", scale="0/1")


def test_nobody_known_and_features_that_are_none(data):
    bare = Data(edge_index=data.edge_index, y=data.y, num_nodes=10)
    options = {"betas": BETAS, "prediction_type": "epsilon", "scale": "0/1", "known": torch.zeros(10).bool()}
    ones = torch.ones(10, 1).double()
    model = explain.wrap(
        Colouring(),
        bare,
        call=lambda net, graph, y, t: net(ones.repeat(len(y) // 10, 1), y, t, graph.edge_index),
        **options,
    )
    assert model.labels.dtype == torch.float64  # the network's, where the graph has no features
    asked = model.trajectory(4, 1, draws=2)
    assert asked.value() == by_hand(Colouring(), data, torch.zeros(10).bool(), 4, 1, 2)
    with pytest.raises(ValueError, match="no label is known here"):
        asked.players("known_labels")
    with pytest.raises(ValueError, match="the graph has no features x"):
        asked.players("features")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"node": 10}, "node must be from 0 to 9"),
        ({"node": 4, "label": 2}, "label must be a class from 0 to 1"),
        ({"node": 4, "payoff": "logit"}, "payoff must be one of probability, state"),
        ({}, "payoff='probability' is of a node's label: give node="),
        ({"node": 4, "steps": T + 1}, f"steps must be whole, from 1 to {T}"),
        ({"node": 4, "temperature": -1}, "temperature"),
        ({"node": 4, "baseline": "noise"}, "baseline must be one of zeros, mean"),
        ({"node": 4, "draws": 0}, "draws must be"),
    ],
)
def test_questions_that_are_none(data, given, message):
    model = explain.wrap(Colouring(), data, betas=BETAS, time="step")
    with pytest.raises(ValueError, match=message):
        model.trajectory(**given)


def test_unknown_labels_reach_neither_network_nor_sampler(data):
    seen = []

    def spying(net, graph, y, t):
        seen.append((graph.y.clone(), graph.train_mask.clone()))
        return net(graph.x, y, t, graph.edge_index)

    explain.wrap(Colouring(), data, betas=BETAS, call=spying).trajectory(4, 0, draws=1, steps=2).value()
    for labels, known in seen:
        assert bool((labels[~known] == -1).all())
        assert torch.equal(labels[:10][known[:10]], data.y[known[:10]])


# --- the user's own sampler ---


def paper(network, graph, known, generator):
    return sample(network, graph, known, generator, BETAS, 2)


def test_your_own_sampler_is_run_as_it_is_on_changed_graphs(data):
    own = explain.wrap(Colouring(), data, sampler=paper)
    ours = explain.wrap(Colouring(), data, betas=BETAS, time="step")
    one, other = own.trajectory(4, 0, draws=2), ours.trajectory(4, 0, draws=2)
    for kind in ("known_labels", "edges", "nodes"):
        players = one.players(kind)
        masks = torch.rand(3, len(players), generator=torch.Generator().manual_seed(0)) < 0.6
        assert torch.equal(one.game(players)(masks), other.game(players)(masks))
    state, expected = own.trajectory(4, 0, payoff="state", draws=2), ours.trajectory(4, 0, payoff="state", draws=2)
    assert state.value() == pytest.approx(expected.value(), abs=1e-9)
    assert torch.equal(one.run().argmax(1), other.run().argmax(1))
    assert one.describe()["sampler"] == "your own"
    with pytest.raises(Unsupported, match="your own sampler, whose steps are not seen"):
        one.players("steps")
    with pytest.raises(Unsupported, match="has no steps to ask about"):
        own.step(t=3, node=4)
    with pytest.raises(ValueError, match="temperature are of our sampler"):
        own.trajectory(4, temperature=0.1)


def test_a_sampler_may_draw_from_the_global_generator_and_return_classes(data):
    def flips(network, graph, known, generator):  # the majority of what neighbours are not, ties by a coin
        turned = torch.where(known >= 0, 1 - 2 * known, 0)[graph.edge_index[0]]
        heard = torch.zeros(10).index_add(0, graph.edge_index[1], turned.float())
        coin = torch.rand(10, generator=generator) - 0.5
        return torch.where(known >= 0, known, (heard + coin > 0).long())

    why = Shapley("known_labels").explain(explain.wrap(Colouring(), data, sampler=flips).trajectory(4, draws=4))
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base)

    def hidden(network, graph, known, generator):
        return torch.randint(2, (10,))

    with pytest.raises(ValueError, match="random beyond the generator"):
        explain.wrap(Colouring(), data, sampler=hidden).trajectory(4)

    def broken(network, graph, known, generator):
        return known[:3]

    with pytest.raises(ValueError, match=r"classes int64 \[10\] or scores \[10, 2\], got torch.int64 \[3\]"):
        explain.wrap(Colouring(), data, sampler=broken).trajectory(4)

    def strict(network, graph, known, generator):
        return nn.functional.one_hot(graph.y, 2).float()

    with pytest.raises(ValueError, match=r"failed on this graph with 4 known labels .*-1 where not"):
        explain.wrap(Colouring(), data, sampler=strict).trajectory(4)


# --- steps, and classes that are drawn ---


class Guessing(nn.Module):
    """Logits of each node's class: what it shows itself, and three times what its neighbours do not."""

    def forward(self, x, y_t, t, edge_index):
        heard = torch.zeros_like(y_t).index_add(0, edge_index[1], y_t.flip(-1)[edge_index[0]])
        return y_t + 3 * x * heard / (1 + 0.1 * t)


@pytest.fixture(scope="module")
def drawn_model(data):
    process = Categorical.uniform(torch.full((5,), 0.3), 2)
    return explain.wrap(Guessing(), data, process=process, time="step")


@pytest.mark.parametrize("rule", ["mixture", "joint"])
def test_a_run_of_drawn_classes_step_by_step(data, rule):
    process = Categorical.uniform(torch.full((5,), 0.3), 2)
    asked = explain.wrap(Guessing(), data, process=process, time="step", rule=rule).trajectory(4, 1, draws=3)
    share, Y = 0.0, nn.functional.one_hot(data.y, 2).double()
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)

        def noise(generator=generator):
            return torch.rand(10, 2, generator=generator, dtype=torch.float64)

        y = drawn(torch.full((10, 2), 0.5).double(), noise())
        for t in range(5, 0, -1):
            p = Guessing()(data.x, y, torch.tensor([t]), data.edge_index).softmax(-1)
            turned = process.reverse(y, p, t) if rule == "mixture" else process.posterior(y, p, t)
            y, clamped = drawn(turned, noise()), process.noised(Y, noise(), t - 1)
            y = torch.where(data.train_mask[:, None], clamped, y)
        share += float(y[4, 1]) / 3
    assert asked.value() == share
    why = Shapley("known_labels").explain(asked)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base)
    with pytest.raises(ValueError, match="temperature and constrained are of Gaussian labels"):
        explain.wrap(Guessing(), data, process=process, time="step").trajectory(4, temperature=0.5)


def test_log_p_of_a_label_at_a_step_and_who_it_hangs_on(drawn_model, data):
    asked = drawn_model.step(t=3, node=4, label=int(data.y[4]), draws=5, seed=1)
    generator = torch.Generator().manual_seed(1)
    noise, other = (torch.rand(5, 10, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    Y, process = nn.functional.one_hot(data.y, 2).double(), drawn_model.process.process
    y = process.noised(Y.expand(5, 10, 2), noise, 3)

    def log_p(states):
        rows = [Guessing()(data.x, one, torch.tensor([3]), data.edge_index).log_softmax(-1) for one in states]
        return float(torch.stack(rows)[:, 4, int(data.y[4])].mean())

    assert asked.value() == pytest.approx(log_p(y))
    players = asked.players("labels")
    assert len(players) == 10
    mask = torch.ones(1, 10).bool().index_fill(1, torch.tensor([3, 9]), False)
    gone = y.clone()
    gone[:, [3, 9]] = process.absent(other)[:, [3, 9]]
    assert asked.game(players)(mask).item() == pytest.approx(log_p(gone))
    why = Shapley("labels").explain(asked)
    near = torch.isin(why.players.index, torch.tensor([3, 4, 9]))
    assert why.scores[~near].abs().max() < 1e-12
    terms = asked.bound_terms()
    assert terms.shape == (10,)
    p = asked.foreseen(asked.whole, None)
    assert torch.allclose(terms, process.divergence(y, Y.expand(5, 10, 2), p, 3).mean(0))


def test_a_step_of_gaussian_labels_foresees_and_has_a_gradient(data):
    model = explain.wrap(Colouring(), data, betas=BETAS, time="step")
    asked = model.step(t=5, node=4, draws=3)
    assert 0 < asked.value() < 1
    assert asked.describe()["t"] == [5]
    why = explain.Gradient("features").explain(asked)
    assert why.checks["completeness_gap"] < 0.01
    empty, full = asked.game("labels").ends()
    assert full == pytest.approx(asked.value())
    assert empty != pytest.approx(full)
    with pytest.raises(ValueError, match="payoff must be one of x0"):
        model.step(t=5, node=4, payoff="log_probability")
    with pytest.raises(Unsupported, match="of classes that are drawn"):
        asked.bound_terms()
    with pytest.raises(ValueError, match="state must be the class of each node"):
        model.step(torch.zeros(3).long(), t=5, node=4)
    with pytest.raises(ValueError, match="t must be a step of the schedule"):
        model.step(t=T, node=4)


class Looking(nn.Module):
    """Logits by attention along the edges, which `Attention` sees."""

    def __init__(self):
        super().__init__()
        from torch_geometric.nn import GATConv

        torch.manual_seed(0)
        self.conv = GATConv(3, 2).double()

    def forward(self, x, y_t, t, edge_index):
        return self.conv(torch.cat([x, y_t], 1), edge_index)


def test_attention_along_edges_of_a_step_and_of_a_run(data):
    model = explain.wrap(Looking(), data, process=Categorical.uniform(torch.full((3,), 0.3), 2), time="step")
    for asked in (model.step(t=2, node=4), model.trajectory(4, 0, draws=1)):
        why = explain.Attention("edges", aggregate="mean").explain(asked)
        assert why.checks["row_sum_error"] < 1e-6
        assert len(why.scores) == 26
        assert why.checks["unseen"] == 0
