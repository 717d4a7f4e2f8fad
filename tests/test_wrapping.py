"""wrap() asks the right family, and says what it accepts."""

import io
from pathlib import Path

import pytest
import torch
import torch_geometric.loader
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    UNet2DModel,
)
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_geometric.data import Data, HeteroData
from torch_geometric.datasets import KarateClub
from torch_geometric.nn import GCN

import explain
from explain.diffusion.model import DiffusionModel
from explain.diffusion.pipelines.model import PipelineModel
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


@pytest.mark.parametrize("outputs", ["values", "logits", "probabilities", "log_probabilities"])
@pytest.mark.parametrize("data", [None, (X, Y), X])
def test_the_task_follows_from_outputs(outputs, data):
    model = explain.wrap(nn.Linear(3, 2), data, outputs=outputs)
    assert isinstance(model, SupervisedModel)
    assert model.task == ("regression" if outputs == "values" else "classification")
    with pytest.raises(ValueError, match="task=None and data of type None"):  # its inputs are no table
        explain.wrap(GCN(3, 4, num_layers=1), outputs=outputs)
    with pytest.raises(ValueError, match="outputs must be"):
        explain.wrap(nn.Linear(3, 2), data, outputs="scores")


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


def unet():
    return UNet2DModel(8, 1, 1, block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1,
                       down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2)  # fmt: skip


def dit():
    return DiTTransformer2DModel(
        2, 4, in_channels=2, num_layers=1, norm_num_groups=2, sample_size=8, num_embeds_ada_norm=10
    )


BETAS = torch.linspace(1e-4, 0.02, 10)


@pytest.mark.parametrize("pipeline", [DDPMPipeline, DDIMPipeline])
def test_a_pipeline_brings_its_network_and_its_schedule(pipeline):
    made = pipeline(unet(), DDPMScheduler(20))
    model = explain.wrap(made)
    assert isinstance(model, PipelineModel)
    assert model.module is made.unet
    assert model.inside.denoiser.net is made.unet
    assert model.inside.scheduler is made.scheduler
    assert model.inside.shape == (1, 8, 8)
    assert model.step(torch.zeros(1, 8, 8), t=5, draws=1).value() < 0
    assert model.trajectory(steps=2, payoff=lambda x: x.mean((1, 2, 3))).run().shape == (1, 1, 8, 8)
    other = DDIMScheduler(30)
    assert explain.wrap(made, scheduler=other).inside.scheduler is other


def test_a_dit_pipeline():
    made = DiTPipeline(
        dit(), AutoencoderKL(block_out_channels=(4,), norm_num_groups=4, latent_channels=2), DDIMScheduler()
    )
    model = explain.wrap(made, null=10)
    assert model.inside.denoiser.net is made.transformer
    step = model.step(torch.zeros(2, 8, 8), t=5, label=3, draws=1, guidance=2.0)
    assert step.run().shape == (1, 2, 8, 8)
    assert len(step.players("patches")) == 16


def test_a_module_or_a_function_with_a_schedule_is_a_denoiser():
    scheduler = DDIMScheduler(10)
    net = unet()
    model = explain.wrap(net, scheduler=scheduler, weight_decay=0.1)
    assert (type(model), model.scheduler, model.weight_decay) == (DiffusionModel, scheduler, 0.1)
    assert model.denoiser.net is net
    model = explain.wrap(lambda x, t: 0 * x, time="step", betas=BETAS, shape=(1, 4, 4))
    assert model.process.steps == 10
    assert model.step(torch.ones(1, 4, 4), t=5, payoff="norm").value() == 0


def test_a_loader_of_graphs_is_told_to_give_them():
    graph = KarateClub()[0]
    with pytest.raises(
        TypeError, match=r"got a .*DataLoader: give what it loads, explain\.wrap\(model, loader\.dataset"
    ):
        explain.wrap(GCN(34, 8, 2, 4), torch_geometric.loader.DataLoader([graph, graph]))
    whole = torch_geometric.loader.RandomNodeLoader(graph, num_parts=2)
    with pytest.raises(TypeError, match=r"got a .*RandomNodeLoader: give what it loads, .*loader\.data\)"):
        explain.wrap(GCN(34, 8, 2, 4), whole, task="node")
    assert explain.wrap(GCN(34, 8, 2, 4), whole.data, task="node").task == "node"


@pytest.mark.parametrize(
    "stored",
    ["model.safetensors", Path("model.pt"), b"\x80\x04", io.BytesIO(b"\x80\x04"), unet().state_dict()],
    ids=["string", "path", "bytes", "file", "state dict"],
)
@pytest.mark.parametrize("options", [{}, {"betas": BETAS}, {"task": "classification"}])
def test_stored_weights_are_refused_with_the_way_to_load_them(stored, options):
    with pytest.raises(TypeError, match=r"a pickle may run code .*safetensors\.torch\.load_file"):
        explain.wrap(stored, **options)


class Timed(torch.nn.Module):
    def forward(self, x, timesteps):
        return x


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (unet(), {}, TypeError, r"looks like a denoiser .* give scheduler= \(diffusers"),
        (Timed(), {}, TypeError, r"Timed looks like a denoiser and comes without its noise schedule: give scheduler="),
        (unet(), {"betas": BETAS, "draw": 3}, TypeError, "wrap has no setting 'draw': did you mean 'draws'"),
        (3, {"betas": BETAS}, TypeError, "for a denoiser .* got a model of type builtins.int"),
        (UNet2DModel, {"betas": BETAS}, TypeError, "got a model of type builtins.type"),
        (unet(), {"betas": BETAS, "scheduler": DDIMScheduler()}, TypeError, "the noise schedule once"),
        (unet(), {"betas": BETAS, "task": "classification"}, ValueError, "a denoiser has no task"),
        (unet(), {"betas": BETAS, "data": X}, TypeError, r"Influence\(train=\(images, labels\)\)"),
        (unet(), {"scheduler": "ddpm"}, TypeError, "must be a diffusers scheduler .* got str"),
        (unet(), {"scheduler": DDIMScheduler}, TypeError, "got the class DDIMScheduler"),
    ],
)
def test_what_a_denoiser_needs_is_said(model, options, error, message):
    with pytest.raises(error, match=message):
        explain.wrap(model, **options)


def test_targets_and_players_are_shown_in_one_line():
    target = explain.wrap(torch.nn.Linear(9, 2), torch.zeros(50, 9), task="classification").example(torch.ones(9))
    assert repr(target).startswith("ExampleTarget: family supervised, model Linear")
    assert len(repr(target)) < 200
    assert repr(target.players("features")) == (
        "Players: 9 features: feature 0, feature 1, feature 2, feature 3, feature 4, …"
    )
