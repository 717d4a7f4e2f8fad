"""Denoisers of graphs that are told a condition: guidance and what is told, played with, are the run by hand."""

import functools
import itertools
import math

import matplotlib.pyplot as plt
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import explain
from explain import Influence, Shapley, Unsupported, plot
from explain.diffusion.categorical import Categorical, drawn
from explain.graph_diffusion.graph_states import GraphNoise, State

T, N, RUNS, W = 4, 5, 3, 2.5
NOISE = GraphNoise(Categorical.marginal(torch.full((T,), 0.3), torch.tensor([6, 4])))
GRAPH = torch.tensor([[0, 1, 1, 0, 0], [1, 0, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]])
PROPERTIES, NONE = torch.tensor([1.0, -0.5]).double(), torch.zeros(2).double()


class Told(nn.Module):
    """Edges close triangles, the more so the larger the first property; the second one is for edges at all."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.8).double(), requires_grad=False)

    def forward(self, E, t, y):
        A = E[..., 1]
        many, late = y[:, 1, None, None], (1 + 0.1 * t).view(-1, 1, 1)
        common = A @ A * self.weight * (0.5 + y[:, 0, None, None]) / late
        return 1.5 * E + torch.stack([torch.zeros_like(A), common + many - 0.5], -1)


def guided(x, t, told, weight):
    """``p(G_0 | G_t)``, by the logits with what is told and with nothing."""
    c, u = (Told()(x, torch.tensor([t]), each[None]) for each in (told, NONE))
    return (u + weight * (c - u)).softmax(-1)


def noises(seed, count):
    generator = torch.Generator().manual_seed(seed)
    return [NOISE.draw(N, generator, torch.zeros(()).double()) for _ in range(count)]


def triangles(pairs):
    A = (pairs > 0).double()
    return (A @ A @ A).diagonal(dim1=1, dim2=2).sum(1) / 6 + 0.1 * A.sum((1, 2))


def by_hand(told=PROPERTIES, weights=(W,) * T):
    total = 0.0
    for seed in range(4, 4 + RUNS):
        first, *draws = noises(seed, 1 + T)
        x = NOISE.absent(first).pairs
        for weight, t, noise in zip(weights, range(T, 0, -1), draws, strict=True):
            x = drawn(NOISE.edges.reverse(x, guided(x, t, told, weight), t), noise.pairs)
            x[0, range(N), range(N)] = torch.tensor([1.0, 0.0]).double()
        total += float(triangles(x.argmax(-1))) / RUNS
    return total


def told(mask):
    return torch.where(mask, PROPERTIES, NONE)


@pytest.fixture(scope="module")
def model():
    return explain.wrap(Told(), process=NOISE, time="step", null=NONE)


@pytest.fixture(scope="module")
def run(model):
    return model.trajectory(N, payoff=triangles, condition=PROPERTIES, guidance=W, draws=RUNS, seed=4)


def exact(worth, count):
    """Shapley values of all orders."""
    credit = torch.zeros(count).double()
    for order in itertools.permutations(range(count)):
        there = torch.zeros(count, dtype=torch.bool)
        for player in order:
            before, there[player] = worth(there), True
            credit[player] += (worth(there) - before) / math.factorial(count)
    return credit


def test_guidance_of_each_step_is_the_run_with_that_weight_by_hand(run):
    assert run.value() == pytest.approx(by_hand())
    by_weights = functools.cache(lambda weights: by_hand(weights=weights))
    why = Shapley("guidance").explain(run)
    expected = exact(lambda there: by_weights(tuple(torch.where(there, W, 1.0).tolist())), T)
    assert why.scores.tolist() == pytest.approx(expected.tolist())
    assert why.base == pytest.approx(by_hand(weights=(1.0,) * T))
    assert float(why.scores.abs().max()) > 0.05
    assert why.checks["removal"] == "no guidance, the condition alone"
    assert why.players.names == ("t=4", "t=3", "t=2", "t=1")


def test_what_is_told_plays_entry_by_entry(model, run):
    why = Shapley("conditions").explain(run)
    assert why.players.names == ("y 0", "y 1")
    assert why.scores.tolist() == pytest.approx(exact(lambda there: by_hand(told(there)), 2).tolist())
    assert why.base == pytest.approx(by_hand(weights=(0.0,) * T))  # told nothing, guided or not
    assert float(why.scores.abs().min()) > 0.05
    step = model.step(GRAPH, t=2, edge=(0, 3), condition=PROPERTIES, guidance=W, draws=1, seed=4)
    x = NOISE.noised(State(torch.ones(1, N, 1).double(), F.one_hot(GRAPH, 2).double()[None]), noises(4, 1)[0], 2).pairs
    masks = torch.tensor([[False, True], [True, False], [True, True]])
    expected = [guided(x, 2, told(mask), W)[0, 0, 3, 0].log().item() for mask in masks]
    assert step.game("conditions")(masks).tolist() == pytest.approx(expected)
    assert step.value() == pytest.approx(expected[-1])
    assert step.describe()["condition"] == PROPERTIES.tolist()


def test_weights_are_swept_and_an_answer_is_the_same_in_any_batch(model, run):
    found = run.sweep([3.0, 0.0, 1.0])
    assert found.weights == [0.0, 1.0, 3.0]
    assert found.numbers.tolist() == pytest.approx([by_hand(weights=(weight,) * T) for weight in found.weights])
    assert found.images.shape == (3, 1, N, N)
    assert run.value() == pytest.approx(by_hand())  # as it was asked
    plt.close(plot.sweep(**found._asdict()).figure)
    one = model.trajectory(N, payoff=triangles, condition=PROPERTIES, guidance=W, draws=RUNS, seed=4, batch_size=1)
    for kind in ("guidance", "conditions", "pairs", "steps"):
        masks = torch.rand(5, len(run.players(kind)), generator=torch.Generator().manual_seed(0)) < 0.5
        torch.testing.assert_close(one.game(kind)(masks), run.game(kind)(masks), rtol=1e-9, atol=1e-9)


def test_without_a_condition_it_is_asked_with_the_null(model):
    without = model.trajectory(N, payoff=triangles, draws=RUNS, seed=4)
    assert without.value() == pytest.approx(by_hand(weights=(0.0,) * T))
    assert without.kinds == ("steps", "pairs", "nodes")
    assert "with null" in without.describe()["condition"]
    for kind, why in (("guidance", "without a condition"), ("conditions", "give condition=")):
        with pytest.raises(ValueError, match=why):
            without.players(kind)
    terms = model.bound(GRAPH, condition=PROPERTIES, draws=1)
    own = model.step(GRAPH, t=2, edge=(0, 1), condition=PROPERTIES, draws=1).bound_terms()[1]
    assert float(own.triu(1).sum()) == pytest.approx(float(terms[1]))
    assert abs(float(terms.sum() - model.bound(GRAPH, draws=1).sum())) > 0.01


def test_a_class_by_an_own_call_and_without_a_null():
    table = nn.Embedding(3, 1).double().requires_grad_(False)

    def call(net, X, E, t, kind):
        return E * (1 + net(kind)[..., None, None].square())

    model = explain.wrap(table, process=NOISE, call=call)
    asked = model.step(GRAPH, t=1, edge=(0, 1), condition=2, draws=2)
    assert asked.value() > -math.log(2)
    assert asked.kinds == ("pairs", "edges", "nodes")
    for question, error, message in (
        (lambda: model.step(GRAPH, t=1, edge=(0, 1)), ValueError, "cannot do without kind: give condition="),
        (lambda: model.step(GRAPH, t=1, edge=(0, 1), condition=7), ValueError, r"cannot be called .* kind torch.int64"),
        (lambda: model.step(GRAPH, t=1, edge=(0, 1), condition="a"), TypeError, "a class, a number or a tensor"),
        (lambda: model.step(GRAPH, t=1, edge=(0, 1), condition=1, guidance=2), ValueError, r"say what stands for no"),
        (lambda: asked.players("conditions"), ValueError, r"what stands for no condition.*null="),
        (lambda: asked.players("guidance"), ValueError, "ask 'guidance' of a run"),
        (lambda: asked.objective([GRAPH]), Unsupported, "takes a condition, kind"),
    ):
        with pytest.raises(error, match=message):
            question()


class Across(Told):
    """Every row hears what the others are told."""

    def forward(self, E, t, y):
        return super().forward(E, t, y.mean(0, keepdim=True).expand_as(y))


def test_conditions_that_cannot_be_are_refused_with_the_reason(model):
    plain = explain.wrap(lambda E, t: E, process=NOISE, time="step")
    across = explain.wrap(Across(), process=NOISE, time="step", null=NONE)
    step = {"t": 1, "edge": (0, 1)}
    for question, error, message in (
        (lambda: plain.step(GRAPH, **step, condition=1), ValueError, "takes no condition: name its argument"),
        (lambda: plain.step(GRAPH, **step, guidance=2), ValueError, "towards a condition: give condition="),
        (lambda: model.step(GRAPH, **step, condition=1.0), ValueError, "condition and null must be alike"),
        (lambda: model.step(GRAPH, **step, condition=NONE, guidance=math.nan), ValueError, "must be a finite number"),
        (lambda: explain.wrap(lambda E, t: E, process=NOISE, time="step", null=0), TypeError, "takes no condition"),
        (lambda: explain.wrap(Told(), process=NOISE, time="step", condition="z"), TypeError, "no argument 'z'"),
        (lambda: across.step(GRAPH, **step, condition=PROPERTIES), ValueError, "a row of a batch otherwise than alone"),
        (lambda: Influence(train=[GRAPH]).explain(model.step(GRAPH, **step)), Unsupported, "how often without"),
    ):
        with pytest.raises(error, match=message):
            question()
