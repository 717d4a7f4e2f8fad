"""`parameters=`: the answer in some of the parameters is that of the block, and costs what the block does."""

from functools import partial

import pytest
import torch
from diffusion_cases import digits_like, tiny_unet
from influence_cases import ObjectiveTarget, digits, half_trained
from reference import influence as reference
from tiny_pipelines import stable_diffusion
from torch import nn
from torch_geometric.data import Data
from torch_geometric.nn import GCNConv

import explain
from explain import DTrak, Influence, SelfInfluence, TracIn, Trak
from explain.influence import Ekfac, Kfac, group_influence
from explain.influence.chosen import choose, chosen_objective
from explain.influence.linear_maps import Bytes
from explain.influence.scores import training_gradient

pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{said}")
    for said in ("the model is not at a minimum", "the inverse is loose", "one Newton step")  # these are first weights
]
DAMPING = 2.0


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 4)).double()


def asked(net=None, **settings):
    """The target of a test digit, and the examples."""
    x, y, others, _ = digits(30)
    return explain.wrap(net or network(), (x, y), task="classification", **settings).example(others[0], label=1)


def block_of(objective, names):
    """Positions in the flat vector of all parameters."""
    sizes = [p.numel() for p in objective.params.values()]
    rows = torch.arange(sum(sizes)).split(sizes)
    return torch.cat([row for name, row in zip(objective.params, rows, strict=True) if name in names])


def by_the_block(names):
    """``-(1/n) g_B^T (H_BB + damping I)^-1 grad_B loss_i`` out of the whole Hessian."""
    objective = asked(weight_decay=0.01).objective()
    rows = block_of(objective, names)
    H = reference.hessian(objective)[rows][:, rows] + DAMPING * torch.eye(len(rows), dtype=torch.float64)
    params, theta = reference.flat_function(objective)
    t = theta.clone().requires_grad_()
    g = torch.autograd.grad(objective.measurement(params(t)), t)[0][rows]
    gradients = reference.loss_gradients(objective)[:, rows]
    return -gradients @ torch.linalg.solve(H, g) / objective.size


@pytest.mark.parametrize("solver", ["exact", "cg", "nystrom", "lissa"])
@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ("4.*", ("4.weight", "4.bias")),
        ("2", ("2.weight", "2.bias")),
        ("*.weight", ("0.weight", "2.weight", "4.weight")),
    ],
)
def test_it_is_the_answer_of_the_block(parameters, names, solver):
    target = asked(weight_decay=0.01)
    engine = Influence(solver=solver, curvature="hessian", damping=DAMPING, parameters=parameters, seed=0)
    found = engine.explain(target)
    torch.testing.assert_close(found.scores, by_the_block(names), rtol=2e-2, atol=2e-5)
    numbers = sum(dict(target.module.named_parameters())[name].numel() for name in names)
    assert found.checks["parameters"] == numbers
    said = f"'{parameters}': {len(names)} of 6 tensors, {numbers} of 129 numbers; the others held fixed"
    assert found.target["assumed"]["parameters"] == said
    assert all(p.requires_grad for p in target.module.parameters())  # as before


@pytest.mark.parametrize("solver", ["kfac", "ekfac", "dot", "arnoldi"])
def test_approximate_solvers_see_these_parameters_alone(solver):
    engine = Influence(solver=solver, curvature="ggn", damping=DAMPING, parameters="4.*", seed=0)
    head = nn.Linear(4, 4).double()
    head.load_state_dict(network()[4].state_dict())
    x, y, others, _ = digits(30)
    with torch.no_grad():
        below = network()[:4]
        x, others = below(x), below(others)
    alone = explain.wrap(head, (x, y), task="classification").example(others[0], label=1)
    same = Influence(solver=solver, curvature="ggn", damping=DAMPING, seed=0).explain(alone)
    torch.testing.assert_close(engine.explain(asked()).scores, same.scores)


@pytest.mark.parametrize("solver", [Kfac(), Ekfac()])
def test_a_weight_whose_bias_is_frozen_is_a_layer_still(solver):
    found = Influence(solver=solver, curvature="ggn", damping=DAMPING, parameters="*.weight", seed=0).explain(asked())
    assert found.checks["layers"] == 3
    assert found.checks["diagonal_parameters"] == 0
    exact = Influence(solver="exact", curvature="ggn", damping=DAMPING, parameters="*.weight", seed=0).explain(asked())
    assert torch.corrcoef(torch.stack([found.scores, exact.scores]))[0, 1] > 0.95


@pytest.mark.parametrize(
    "explainer",
    [
        lambda chosen: Trak(None, damping=0.1, parameters=chosen, seed=0),
        lambda chosen: TracIn(parameters=chosen),
        lambda chosen: SelfInfluence(Influence(parameters=chosen, curvature="ggn", damping=1.0, seed=0)),
    ],
)
def test_others_take_them_too(explainer):
    """All ways to name the last layer give one answer, another than that of all parameters."""
    net = network()
    chosen = [
        "4.*",
        "4",
        ("4.weight", "4.bias"),
        lambda name, p: name.startswith("4"),
        net[4].parameters(),
        net[4],
        [net[4]],
    ]
    first, *others = [explainer(one).explain(asked(net)) for one in chosen]
    for other in others:
        torch.testing.assert_close(other.scores, first.scores, rtol=0, atol=0)
        assert "2 of 6 tensors, 20 of 129 numbers" in other.target["assumed"]["parameters"]
    everything = explainer("trainable").explain(asked(net))
    assert not torch.allclose(everything.scores, first.scores)
    assert "parameters" not in everything.target.get("assumed", {})


def test_frozen_ones_are_left_out_with_a_word_and_taken_where_they_are_named():
    net = network().requires_grad_(False)
    with pytest.raises(ValueError, match=r"or name them, Influence\(parameters=...\)"):
        Influence(damping=1.0).explain(asked(net))
    named = Influence(curvature="ggn", damping=1.0, parameters="4", seed=0).explain(asked(net))
    assert not any(p.requires_grad for p in net.parameters())
    net[4].requires_grad_(True)
    flagged = Influence(curvature="ggn", damping=1.0, seed=0).explain(asked(net))
    torch.testing.assert_close(flagged.scores, named.scores)
    assert flagged.target["assumed"]["parameters"].startswith("those with requires_grad=True: 2 of 6 tensors")
    group = group_influence(asked(net), [0, 3], Influence(curvature="ggn", damping=1.0, parameters="4.bias", seed=0))
    assert list(group.change) == ["4.bias"]


class Lora(nn.Module):
    """A frozen linear layer with a trained update of low rank beside it (Hu et al. 2021)."""

    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_down = nn.Linear(base.in_features, rank, bias=False).to(base.weight)
        self.lora_up = nn.Linear(rank, base.out_features, bias=False).to(base.weight)

    def forward(self, x):
        return self.base(x) + self.lora_up(self.lora_down(x))


def with_lora():
    net = tiny_unet().double()
    torch.manual_seed(1)
    for part in list(net.modules()):
        for name in ("to_q", "to_v"):
            if hasattr(part, name):
                setattr(part, name, Lora(getattr(part, name)))
    return net


@pytest.fixture(scope="module")
def denoised():
    """Of a diffusers UNet with low-rank layers: a model, training images, one that is asked about."""
    model = explain.wrap(with_lora(), betas=torch.linspace(1e-3, 0.1, 100), null=10, draws=2)
    train = digits_like(4, seed=1).double(), torch.arange(4)
    return model, train, model.step(digits_like()[0].double(), t=20, label=3)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("*lora*", lambda name: "lora" in name),
        ("mid_block.attentions.*.to_out", lambda name: "mid_block" in name and "to_out" in name),
        (["up_blocks.1", "conv_out"], lambda name: name.startswith(("up_blocks.1.", "conv_out."))),
    ],
)
def test_layers_of_a_unet_by_its_own_names(denoised, parameters, expected):
    _, train, step = denoised
    found = Influence(train, solver="cg", curvature="ggn", damping=1.0, parameters=parameters, seed=0).explain(step)
    whole = chosen_objective(step, train, parameters="*")
    step.trained.requires_grad_(True)
    rows = block_of(whole, [name for name in whole.params if expected(name.removeprefix("net."))])
    assert found.checks["parameters"] == len(rows) > 0
    assert found.checks["gradient_norm"] == pytest.approx(float(training_gradient(whole)[rows].norm()))


@pytest.mark.parametrize("explainer", [partial(Influence, solver="cg", curvature="ggn", damping=1.0), DTrak])
def test_training_pictures_of_a_pipeline_whose_network_was_frozen(explainer):
    """As after ``load_lora_weights``: the question is about the low-rank layers, by the network's own names."""
    pipeline = stable_diffusion()
    attention = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    attention.to_q = Lora(attention.to_q)
    nn.init.normal_(attention.to_q.lora_up.weight, generator=torch.Generator().manual_seed(0))
    pipeline.unet.requires_grad_(False)
    prompt = "a red fox in deep snow"
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    train = torch.stack([picture, 1 - picture, picture.flip(1)]), [prompt, "deep snow", "a fox"]
    step = explain.wrap(pipeline).step(picture, [500, 100], prompt)
    found = explainer(train=train, parameters="*lora*", seed=0).explain(step)
    numbers = sum(p.numel() for name, p in pipeline.unet.named_parameters() if "lora" in name)
    assert f"'*lora*': 2 of 210 tensors, {numbers:,} of" in found.target["assumed"]["parameters"]
    assert found.scores.argmax() == 0  # the picture itself, under its own caption
    assert not any(p.requires_grad for p in pipeline.unet.parameters())


def test_a_pass_back_through_the_last_block_makes_less(denoised):
    """What is kept for derivatives and what is computed of them is that of the block."""
    _, train, step = denoised

    def made(parameters):
        before = [p.requires_grad for p in step.trained.parameters()]
        try:
            objective = chosen_objective(step, train, parameters=parameters)
            with Bytes() as count:
                training_gradient(objective)
        finally:
            for p, flag in zip(step.trained.parameters(), before, strict=True):
                p.requires_grad_(flag)
        return count.total

    assert made("conv_out") < 0.6 * made("*")


class Scores(nn.Module):
    """A decoder with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3, dtype=torch.float64))

    def forward(self, z, pairs):
        return (z[pairs[0]] * self.weight * z[pairs[1]]).sum(1)


def test_a_decoder_beside_the_graph_network_is_held_fixed_and_left_as_it_was():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net, decoder = GCNConv(4, 3).double(), Scores()
    edges = torch.tensor([[0, 1, 2, 3, 4, 0], [1, 2, 3, 4, 0, 2]])
    data = Data(x=torch.randn(5, 4, generator=generator, dtype=torch.float64), edge_index=edges)
    data.edge_label_index, data.edge_label = edges, torch.tensor([1.0, 0, 1, 0, 1, 1])
    pair = explain.wrap(net, data, task="edge", decoder=decoder).edge(0, 1)
    for chosen, numbers in (("*", 18), ("lin.weight", 12), ("decode", 3)):
        found = Influence(curvature="ggn", damping=1.0, parameters=chosen, seed=0).explain(pair)
        assert found.checks["parameters"] == numbers
        assert all(p.requires_grad for part in (net, decoder) for p in part.parameters())


def test_names_within_wrappers_and_of_tied_weights():
    net = nn.DataParallel(network())
    assert choose(net, "4.weight") == "'4.weight': 1 of 6 tensors, 16 of 129 numbers; the others held fixed"
    tied = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5)})
    tied["head"].weight = tied["embed"].weight
    assert choose(tied, "head.weight").startswith("'head.weight': 1 of 2 tensors, 15 of 20 numbers")


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ("mid_blok.*", ValueError, r"no parameter of UNet2DModel is called 'mid_blok.*': did you mean 'mid_block'"),
        ("*.to_kv.*", ValueError, "did you mean 'to_[kv]' or 'to_[kv]'"),
        ("zzzz", ValueError, r"is called 'zzzz'\. It has .*conv_in.weight"),
        ((), ValueError, "parameters is empty"),
        (lambda name, p: False, ValueError, "leaves nothing to differentiate: it chose none"),
        (lambda name, p: p, TypeError, "answers .* with True or False"),
        ((3,), TypeError, "parameters must be 'trainable', a name or a pattern"),
        (nn.Linear(2, 2), ValueError, r"\[2, 2\] was given that is none of UNet2DModel's"),
    ],
)
def test_what_cannot_be_chosen(denoised, parameters, error, message):
    _, train, step = denoised
    before = [p.requires_grad for p in step.trained.parameters()]
    with pytest.raises(error, match=message):
        Influence(train, parameters=parameters).explain(step)
    assert [p.requires_grad for p in step.trained.parameters()] == before


def test_buffers_and_objectives_of_ones_own():
    net = nn.Sequential(nn.Linear(16, 4), nn.BatchNorm1d(4)).double().eval()
    with pytest.raises(ValueError, match=r"'1.running_mean' names a buffer"):
        Influence(parameters="1.running_mean").explain(asked(net))
    target = ObjectiveTarget(half_trained(), network())
    with pytest.raises(Exception, match="has parameters of its own, which are not those of the module"):
        Influence(parameters="4").explain(target)
