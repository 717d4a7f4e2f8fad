"""A function that is asked about goes by its own name, or by `payoff_name=`: in titles, pages and files."""

import matplotlib as mpl

mpl.use("Agg")

import pytest
import torch
from label_denoisers import BETAS, Colouring, small_ladder
from tiny_pipelines import PROMPT, stable_diffusion
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCN, global_add_pool

import explain
from explain.diffusion.categorical import Categorical
from explain.explanation import Explanation
from explain.graph_diffusion.graph_states import GraphNoise
from explain.payoffs import named, payoff_name

NAME = "owl over cat"
RING = torch.tensor([[0, 1, 1, 2, 2, 0], [1, 0, 2, 1, 0, 2]])
NOISE = GraphNoise(Categorical.marginal(torch.full((5,), 0.3), torch.tensor([6, 4])))


def net(seed=0):
    torch.manual_seed(seed)
    return GCN(2, 4, num_layers=1, out_channels=2)


def linear():
    torch.manual_seed(0)
    return nn.Linear(2, 2)


def over(outputs):
    return outputs.flatten(1)[:, 0] - outputs.flatten(1)[:, 1]


def ends(rows, pairs):
    return rows[pairs[0]] + rows[pairs[1]]


def pooled(module, data):
    return global_add_pool(module(data.x, data.edge_index), data.batch)


def graph():
    return Data(x=torch.eye(3)[:, :2], edge_index=RING, y=torch.tensor([0, 1, 0]))


def denoiser():
    return explain.wrap(lambda x, t: 0.1 * x, betas=torch.linspace(1e-4, 0.02, 10), time="step")


def labels():
    return explain.wrap(Colouring(), small_ladder(), betas=BETAS, time="step")


def graphs():
    return explain.wrap(lambda E, t: 1.5 * E, process=NOISE, time="step")


ASKED = {
    "node": lambda **said: explain.wrap(net(), graph()).node(1, payoff=over, **said),
    "edge": lambda **said: explain.wrap(net(), graph(), task="edge", decoder=ends).edge(0, 2, payoff=over, **said),
    "graph": lambda **said: explain.wrap(net(), [graph()], task="graph", call=pooled).graph(payoff=over, **said),
    "example": lambda **said: explain.wrap(linear(), task="classification").example(torch.ones(2), payoff=over, **said),
    "step": lambda **said: denoiser().step(torch.ones(1, 4, 4), t=5, payoff=over, **said),
    "trajectory": lambda **said: denoiser().trajectory(payoff=over, shape=(1, 4, 4), steps=3, **said),
    "inverted": lambda **said: denoiser().invert(torch.ones(1, 4, 4), payoff=over, steps=5, **said),
    "labels' step": lambda **said: labels().step(t=3, payoff=over, **said),
    "labels' run": lambda **said: labels().trajectory(payoff=over, draws=2, **said),
    "graph's step": lambda **said: graphs().step(
        torch.eye(4, dtype=torch.long).flip(0), t=2, payoff=lambda nodes, pairs: over(pairs[..., 0]), **said
    ),
    "graph's run": lambda **said: graphs().trajectory(4, payoff=lambda pairs: over(pairs).double(), draws=2, **said),
    "pipeline": lambda **said: explain.wrap(stable_diffusion()).trajectory(PROMPT, payoff=over, steps=1, **said),
}


@pytest.mark.parametrize("kind", ASKED)
def test_a_payoff_goes_by_the_name_it_is_given_and_is_the_same_number(kind):
    plain, called = ASKED[kind](), ASKED[kind](payoff_name=NAME)
    assert plain.describe()["payoff"] != NAME
    assert called.describe() == {**plain.describe(), "payoff": NAME}
    assert called.value() == plain.value()


def test_the_name_stands_in_the_title_the_units_the_page_and_the_file(tmp_path):
    why = explain.Occlusion("nodes").explain(ASKED["node"](payoff_name=NAME))
    why.save(tmp_path / "why.safetensors")
    read = Explanation.load(tmp_path / "why.safetensors")
    ax = explain.plot.bars(read)
    assert f"{NAME}\xa0=" in ax.get_title("left").replace("\n", " ")
    assert ax.get_xlabel() == f"credit [{NAME}]"
    explain.report.write([read], tmp_path / "page.html")
    assert f"What is behind the {NAME} that GCN gives node 1?" in (tmp_path / "page.html").read_text("utf-8")
    with_lambda = explain.wrap(net(), graph()).node(1, payoff=lambda rows: over(rows))
    assert with_lambda.describe()["payoff"] == "payoff"


def test_an_inverted_run_without_a_payoff_has_none_to_name():
    with pytest.raises(ValueError, match=r"names a function, .* got it without payoff="):
        denoiser().invert(torch.ones(1, 4, 4), payoff_name=NAME)


@pytest.mark.parametrize(
    ("payoff", "name", "error", "message"),
    [
        (over, 3, TypeError, "payoff_name must be a text, got int"),
        (over, " ", ValueError, "a name of your own, other than logit, .*; got ' '"),
        (over, "loss", ValueError, "a name of your own, other than .*; got 'loss'"),
        ("logit", NAME, ValueError, "names a function, .* got it payoff='logit'"),
    ],
)
def test_what_is_no_name_of_a_function(payoff, name, error, message):
    with pytest.raises(error, match=message):
        named(payoff, name)
    assert payoff_name(named(over, None)) == "over"
