"""Every way in, and every wrong question."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMPipeline,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from diffusion_cases import STEPS, digits_like, tiny_unet, unet_model
from torch import nn

from explain.diffusion.model import DiffusionModel
from explain.diffusion.schedules import gaussian_of
from explain.gradient import Gradient
from explain.shapley import Shapley
from explain.types import NonFinite, Unsupported


@pytest.mark.parametrize("make", [DDPMPipeline, DDIMPipeline])
def test_pipelines(make):
    scheduler = DDIMScheduler if make is DDIMPipeline else DDPMScheduler
    pipeline = make(tiny_unet(), scheduler(num_train_timesteps=STEPS))
    model = DiffusionModel(pipeline, null=10)
    assert model.shape == (1, 8, 8)
    expected = DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(STEPS), null=10).step(digits_like()[0], t=9, label=2)
    assert model.step(digits_like()[0], t=9, label=2).value() == pytest.approx(expected.value(), rel=1e-5)


@pytest.mark.parametrize("returns", ["tensor", "tuple", "dictionary"])
def test_functions_with_betas(returns):
    def net(x, t, label):
        out = x * 0.5 + label.view(-1, 1, 1, 1).to(x.dtype) * 0.1
        return {"tensor": out, "tuple": (out, t), "dictionary": {"sample": out}}[returns]

    model = DiffusionModel(net, time="step", betas=torch.linspace(1e-3, 0.05, 20), null=0, shape=(1, 8, 8))
    step = model.step(digits_like()[0], t=10, label=4, payoff="norm")
    labels = Shapley("labels").explain(step)
    assert labels.value == pytest.approx(float(((step.noised * 0.5 + 0.4) ** 2).sum((1, 2, 3)).mean()), rel=1e-5)
    assert labels.base == pytest.approx(float(((step.noised * 0.5) ** 2).sum((1, 2, 3)).mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (lambda out: (out.square().mean(), out), "part 1 of 2: the only one of the image's shape"),
        (lambda out: (out.repeat(1, 6, 1, 1), out), "part 1 of 2: the only one of the image's shape"),
        (lambda out: SimpleNamespace(hidden=out.flatten(1), eps=out), "part 'eps' of 2: the only one of the image's"),
        (lambda out: {"sample": out, "other": -out}, "part 'sample' of 2"),
        (lambda out: (out,), None),
    ],
)
def test_the_prediction_among_other_answers_is_found_and_said(returns, said):
    model = DiffusionModel(lambda x, t: returns(x * 0.5), time="step", betas=[0.1] * 5, shape=(1, 8, 8))
    step = model.step(digits_like()[0], t=3, payoff="norm")
    assert step.value() == pytest.approx(float(((step.noised * 0.5) ** 2).sum((1, 2, 3)).mean()), rel=1e-5)
    assert step.describe()["assumed"].get("output", "none").startswith(said or "none")


def test_predictions_that_cannot_be_told_apart_are_asked_about():
    model = DiffusionModel(lambda x, t: (x, -x), time="step", betas=[0.1] * 5, shape=(1, 8, 8))
    with pytest.raises(TypeError, match=r"2 that may be it \(0: \[1, 1, 8, 8\], 1: .* put a module around it"):
        model.step(digits_like()[0], t=3)


def test_conditional_unet_on_rectangles():
    torch.manual_seed(0)
    net = UNet2DConditionModel(
        sample_size=(8, 16), in_channels=2, out_channels=2, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, attention_head_dim=4, cross_attention_dim=6,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    ).eval()  # fmt: skip
    null, prompt = torch.zeros(1, 3, 6), torch.randn(1, 3, 6)
    model = DiffusionModel(net, scheduler=DDIMScheduler(STEPS), null={"encoder_hidden_states": null})
    step = model.step(torch.randn(2, 8, 16), t=30, label={"encoder_hidden_states": prompt}, guidance=3.0, draws=1)
    why = Shapley(step.players("patches", size=4)).explain(step)
    assert why.players.geometry["labels"].shape == (8, 16)
    assert len(why.players) == 8
    run = model.trajectory(prompt[0], steps=3, guidance=2.0, payoff=lambda x: x.mean((1, 2, 3)))
    assert len(Shapley("guidance").explain(run).players) == 3


def test_transformers():
    torch.manual_seed(0)
    dit = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=2, out_channels=4, num_layers=1, sample_size=8,
        patch_size=2, num_embeds_ada_norm=10, norm_num_groups=1,
    ).eval()  # fmt: skip
    model = DiffusionModel(dit, scheduler=DDIMScheduler(STEPS), null=10)
    step = model.step(torch.randn(2, 8, 8), t=30, label=3, payoff="evidence", draws=1)  # learned variance is left out
    assert step.value() != 0
    sd3 = SD3Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=2, out_channels=2, num_layers=1, attention_head_dim=4,
        num_attention_heads=2, joint_attention_dim=6, caption_projection_dim=8, pooled_projection_dim=5,
        pos_embed_max_size=8,
    ).eval()  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(1000)
    prompt = {"encoder_hidden_states": torch.randn(1, 3, 6), "pooled_projections": torch.randn(1, 5)}
    null = {name: torch.zeros_like(value) for name, value in prompt.items()}
    model = DiffusionModel(sd3, scheduler=scheduler, null=null)
    step = model.step(torch.randn(2, 8, 8), t=500.0, label=prompt, guidance=2.0, draws=1)
    assert len(Gradient("patches", method="input_x_gradient").explain(step).players) == 16
    run = model.trajectory(prompt, steps=3, guidance=2.0, payoff=lambda x: x.mean((1, 2, 3)))
    why = Shapley("steps").explain(run)
    assert float(why.scores.sum()) == pytest.approx(why.value - why.base, rel=1e-4)


def test_gradients_are_those_of_autograd():
    model = unet_model()
    step = model.step(digits_like()[0], t=30, label=3, draws=1, payoff="norm")
    why = Gradient("patches", method="input_x_gradient").explain(step)
    x = step.noised.clone().requires_grad_()
    number = model.denoiser.net(x, 30, torch.tensor([3])).sample.square().sum()
    (gradient,) = torch.autograd.grad(number, x)
    expected = (gradient * x).detach().sum((0, 1)).double()
    labels = why.players.geometry["labels"]
    sums = torch.zeros(len(why.players), dtype=torch.float64).index_add(0, labels.reshape(-1), expected.reshape(-1))
    torch.testing.assert_close(why.scores, sums, rtol=1e-4, atol=1e-5)


def test_the_schedule_is_given_once():
    with pytest.raises(TypeError, match="give the noise schedule once"):
        DiffusionModel(tiny_unet())
    with pytest.raises(TypeError, match="give the noise schedule once"):
        DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(10), betas=torch.full((10,), 0.1))
    with pytest.raises(ValueError, match="betas must be"):
        DiffusionModel(tiny_unet(), betas=torch.tensor([0.1, 2.0]))


def test_the_prediction_types_must_agree():
    with pytest.raises(ValueError, match="the model predicts 'v_prediction'"):
        DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(STEPS), prediction_type="v_prediction")


@pytest.mark.parametrize("t", [-1, STEPS, 3.5])
def test_timesteps_outside_the_schedule(t):
    with pytest.raises(ValueError, match="t must be a step of the schedule"):
        unet_model().step(digits_like()[0], t=t, label=3)


def test_wrong_images():
    model = unet_model()
    with pytest.raises(ValueError, match=r"x0 must be \[1, 8, 8\]"):
        model.step(torch.zeros(1, 9, 8), t=3, label=3)
    with pytest.raises(ValueError, match="one image"):
        model.step(torch.zeros(2, 1, 8, 8), t=3, label=3)
    with pytest.raises(NonFinite, match="NaN"):
        model.step(torch.full((1, 8, 8), float("nan")), t=3, label=3)
    with pytest.raises(ValueError, match="reference must be images"):
        model.step(digits_like()[0], t=3, label=3, fill="reference", reference=torch.zeros(2, 1, 4, 4))
    step = model.step(digits_like()[0], t=3, label=3, fill="reference")
    with pytest.raises(ValueError, match="needs images to take patches from"):
        step.game("patches").ends()


def test_superpixels_that_collapse():
    step = unet_model().step(torch.zeros(1, 8, 8), t=3, label=3)
    with pytest.raises(ValueError, match="collapse to one segment"):
        step.players("superpixels", segments=2, compactness=1e-9)
    with pytest.raises(ValueError, match="segments must be at least 2"):
        step.players("superpixels", segments=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"payoff": "loss"}, "payoff must be one of"),
        ({"fill": "blur"}, "fill must be one of"),
        ({"draws": 0}, "draws must be a whole number, at least 1, got 0"),
        ({"region": torch.zeros(8, 8)}, "at least one pixel"),
    ],
)
def test_unknown_settings(options, message):
    with pytest.raises(ValueError, match=message):
        unet_model().step(digits_like()[0], t=3, label=3, **options)


def test_without_a_null_condition():
    model = DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(STEPS))
    for question in ({"guidance": 2.0}, {"payoff": "evidence"}):
        with pytest.raises(ValueError, match="null condition that the model was trained with"):
            model.step(digits_like()[0], t=3, label=3, **question)
    with pytest.raises(ValueError, match="null condition"):
        model.step(digits_like()[0], t=3, label=3).game("labels")


def test_runs_that_cannot_be():
    model = unet_model()
    with pytest.raises(ValueError, match=f"steps must be whole, from 1 to {STEPS}"):
        model.trajectory(label=3, steps=STEPS + 1, payoff=lambda x: x.mean((1, 2, 3)))
    with pytest.raises(ValueError, match="payoff must be a function"):
        model.trajectory(label=3, payoff="loss")
    with pytest.raises(ValueError, match="one number a row"):
        model.trajectory(label=3, steps=2, payoff=lambda x: x.mean()).value()
    with pytest.raises(ValueError, match="guidance=1 is no guidance"):
        model.trajectory(label=3, steps=2, payoff=lambda x: x.mean((1, 2, 3))).game("guidance")
    with pytest.raises(ValueError, match="image size is not known"):
        DiffusionModel(lambda x, t: x, time="step", betas=[0.1]).trajectory(steps=1, payoff=lambda x: x.mean((1, 2, 3)))


def test_a_denoiser_that_answers_something_else():
    model = DiffusionModel(lambda x, t: x[:, :, :4], time="step", betas=[0.1] * 5, shape=(1, 8, 8))
    with pytest.raises(ValueError, match="the denoiser must answer with the shape of x_t"):
        model.step(digits_like()[0], t=3)
    with pytest.raises(NonFinite, match="answers NaN or infinity"):
        DiffusionModel(lambda x, t: x / 0, time="step", betas=[0.1] * 5, shape=(1, 8, 8)).step(digits_like()[0], t=3)
    with pytest.raises(TypeError, match="takes no label"):
        DiffusionModel(lambda x, t: x, time="step", betas=[0.1] * 5, shape=(1, 8, 8)).step(
            digits_like()[0], t=3, label=2
        )


@pytest.mark.parametrize("kind", [AssertionError, KeyError, ZeroDivisionError])
def test_a_forward_that_fails_says_what_was_asked(kind):
    class Fails(nn.Module):
        def forward(self, x, t):
            raise kind("no")

    said = r"explain.wrap\(Fails, .*with x_t \[1, 1, 8, 8\] and t \[1\]: " + kind.__name__
    with pytest.raises(ValueError, match=said) as told:
        DiffusionModel(Fails(), time="step", betas=[0.1] * 5).step(digits_like()[0], t=3)
    assert isinstance(told.value.__cause__, kind)


def test_hidden_randomness():
    class Noisy(nn.Module):
        def forward(self, x, timestep):
            return x + torch.randn_like(x)

    with pytest.raises(ValueError, match="not deterministic"):
        DiffusionModel(Noisy(), time="step", betas=[0.1] * 5).step(digits_like()[0], t=3)


def test_half_precision_that_overflows():
    class Steep(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1, dtype=torch.float16))

        def forward(self, x, timestep):
            return (x * 200 * self.weight).clamp(-300, 300)

    step = DiffusionModel(Steep(), time="step", betas=[0.1] * 5).step(
        digits_like()[0] * 0.01, t=3, draws=1, payoff="norm"
    )
    with pytest.raises(NonFinite, match=r"half precision.*float"):
        Gradient("patches", method="input_x_gradient").explain(step)


@pytest.mark.parametrize("t", [np.int64(5), torch.tensor(5), torch.tensor([5]), [5], (5.0,), range(5, 6)])
def test_ways_to_give_a_step(t):
    model, x0 = unet_model(), digits_like()[0]
    found = model.step(x0, t=t, label=3)
    assert found.times.tolist() == [5] * 4
    assert not found.times.is_floating_point()
    assert found.value() == model.step(x0, t=5, label=3).value()


@pytest.mark.parametrize(
    ("net", "label"),
    [
        (lambda x, t, k: x * 0 + k.view(-1, 1, 1, 1), 2),
        (lambda a, b, k=None: a * 0 + k.view(-1, 1, 1, 1), {"k": 2}),
        (lambda x, t, context: x * 0 + context.mean(1).view(-1, 1, 1, 1), torch.tensor([1.0, 3.0])),
        (lambda x, t, context: x * 0 + context.mean((1, 2)).view(-1, 1, 1, 1), torch.tensor([[1.0, 3.0]])),
        (lambda x, t, y: (x * 0 + y.view(-1, 1, 1, 1)).double(), torch.tensor([2])),
        (lambda x, t, y: x * 0 + y.view(-1, 1, 1, 1), {"y": torch.tensor(2.0, dtype=torch.float64)}),
    ],
)
def test_functions_name_their_label_as_they_like(net, label):
    model = DiffusionModel(net, time="step", betas=[0.1] * 5, shape=(1, 8, 8))
    assert model.step(digits_like()[0], t=3, label=label, payoff="norm").value() == pytest.approx(4 * 64)


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [
        ("three", TypeError, "label must be a class or a tensor, got the text 'three'"),
        (torch.tensor([1, 2]), ValueError, r"class_labels must be one condition, \[1, ...\], got \[2\]"),
        ({"class_labels": torch.tensor([1, 2])}, ValueError, "must be one condition"),
        ({"class_labels": {}}, TypeError, "got dict"),
        (11, ValueError, "knows the labels 0 to 10, got 11"),
        (-1, ValueError, "knows the labels 0 to 10, got -1"),
    ],
)
def test_labels_that_are_none(label, error, message):
    with pytest.raises(error, match=message):
        unet_model().step(digits_like()[0], t=3, label=label)


def test_a_class_for_a_network_that_reads_prompts():
    def net(sample, timestep, encoder_hidden_states):
        return sample + encoder_hidden_states.mean()

    model = DiffusionModel(net, time="step", betas=[0.1] * 5, shape=(1, 8, 8))
    assert model.step(digits_like()[0], t=3, label=torch.ones(4, 6)).value() < 0
    for label in (3, torch.ones(6)):
        with pytest.raises(TypeError, match=r"must be an embedding \[tokens, width\]"):
            model.step(digits_like()[0], t=3, label=label)


def test_a_schedule_of_betas_is_no_flow():
    with pytest.raises(ValueError, match="DDIMScheduler does not run flow matching"):
        DiffusionModel(tiny_unet(), betas=[0.1] * 5, prediction_type="flow_prediction")
    flow = UniPCMultistepScheduler(1000, prediction_type="flow_prediction", use_flow_sigmas=True)
    assert gaussian_of(flow, "flow_prediction").signal is None


def test_learned_variances_are_refused_for_runs():
    model = DiffusionModel(tiny_unet(), scheduler=DDPMScheduler(STEPS, variance_type="learned_range"), null=10)
    assert model.step(digits_like()[0], t=3, label=3).value() < 0
    with pytest.raises(ValueError, match='variance_type="fixed_small"'):
        model.trajectory(3, steps=2, payoff=lambda x: x.mean((1, 2, 3)))


@pytest.mark.parametrize("size", [2.5, 0, 9])
def test_patches_of_no_size(size):
    with pytest.raises(ValueError, match="size must be whole, from 1 to 8 pixels"):
        unet_model().step(digits_like()[0], t=3, label=3).players("patches", size=size)


@pytest.mark.parametrize("payoff", ["error", "norm"])
def test_half_precision_sums_many_squares(payoff):
    """More than float16 can hold: a large image."""
    image = digits_like(size=512)[0]
    steps = [
        DiffusionModel(lambda x, t: 0.1 * x, time="step", betas=[0.1] * 5, shape=(1, 512, 512)),
        DiffusionModel(_Half(), time="step", betas=[0.1] * 5, shape=(1, 512, 512)),
    ]
    single, half = (model.step(image, t=3, draws=1, payoff=payoff).value() for model in steps)
    assert half == pytest.approx(single, rel=2e-3)


class _Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.full((1,), 0.1, dtype=torch.float16))

    def forward(self, x, t):
        return self.weight * x


def test_a_number_that_is_none():
    x0 = digits_like()[0]
    model = DiffusionModel(tiny_unet(), scheduler=DDIMScheduler(STEPS, rescale_betas_zero_snr=True), null=10)
    with pytest.raises(NonFinite, match="zero terminal SNR"):
        model.step(x0, t=STEPS - 1, label=3, payoff="x0").value()
    with pytest.raises(NonFinite, match="check the payoff"):
        unet_model().trajectory(3, steps=2, payoff=lambda x: x.mean((1, 2, 3)) / 0).value()


def test_edges_are_not_on_an_image():
    with pytest.raises(Unsupported):
        unet_model().step(digits_like()[0], t=3, label=3).module_copy()
