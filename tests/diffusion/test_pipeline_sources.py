"""Parts of the clean picture that a run starts from or is led by, beside the pipeline called on each filled picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from pipeline_calls import asked, built, ink, own, worth
from tiny_pipelines import picture

import explain
from explain.types import Unsupported


def halves(mask, source, dim=-1):
    """The picture whose left or right half is its mean colour."""
    mean = source.mean((-2, -1), keepdim=True).expand_as(source)
    width = source.shape[dim] // 2
    left = torch.arange(source.shape[dim]) < width
    present = torch.where(left, torch.tensor(mask[0]), torch.tensor(mask[1]))
    return torch.where(present, source, mean)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("img2img", "image"),
        ("sd3 img2img", "image"),
        ("inpaint", "image"),
        ("inpaint of 9 channels", "image"),
        ("controlnet", "image"),
        ("controlnet img2img", "control_image"),
        ("pix2pix", "image"),
        ("upscale", "image"),
        ("super resolution", "image"),
    ],
)
def test_coalitions_of_patches_are_the_pipeline_called_on_the_filled_picture(name, argument):
    run = explain.wrap(built(name)).trajectory(**asked(name, payoff=ink))
    source = asked(name)[argument]
    size = source.shape[-1]
    players = run.players("patches", of=argument, size=(size, size // 2))
    masks = [[True, False], [False, True], [False, False], [True, True]]
    values = run.game(players)(torch.tensor(masks))
    wanted = [worth(own(name, **{argument: halves(mask, source)})) for mask in masks]
    assert values.tolist() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("form", ["PIL", "array", "list", "tensor of 3"])
def test_the_filled_picture_has_the_form_that_was_given(form):
    array = (picture()[0].movedim(0, -1).numpy() * 255).round().astype(np.uint8)
    of = {
        "PIL": Image.fromarray(array),
        "array": array.astype(np.float32) / 255,
        "list": [Image.fromarray(array)],
        "tensor of 3": picture()[0],
    }[form]
    run = explain.wrap(built("img2img")).trajectory(**asked("img2img", payoff=ink, image=of))
    players = run.players("patches", of="image", size=(16, 8))
    (value,) = run.game(players)(torch.tensor([[False, True]])).tolist()
    plain = picture()[0] if form == "tensor of 3" else torch.from_numpy(array).movedim(-1, 0).float() / 255
    wanted = halves([False, True], plain[None])
    if form in ("PIL", "list"):
        wanted = (wanted * 255).round() / 255
    assert value == pytest.approx(worth(own("img2img", image=wanted)), rel=1e-5)


def test_superpixels_are_credited_and_what_was_filled_is_said():
    run = explain.wrap(built("img2img")).trajectory(**asked("img2img", payoff=ink, fill="blur"))
    why = explain.Occlusion("superpixels").explain(run)
    assert why.checks["removal"] == "blur of image"
    assert why.players.geometry["image"].equal(picture()[0])
    assert (why.scores.abs() > 0).all()


def test_what_cannot_play_is_said():
    run = explain.wrap(built("controlnet img2img")).trajectory(**asked("controlnet img2img", payoff=ink))
    with pytest.raises(ValueError, match="given image and control_image: say of='image'"):
        run.game("superpixels")
    with pytest.raises(ValueError, match="of must be a picture that this call is given, image or control_image"):
        run.players("patches", of="mask_image")
    made = run.players("patches")
    with pytest.raises(Unsupported, match="they are for reading attention"):
        explain.wrap(built("img2img")).trajectory(**asked("img2img", payoff=ink)).game(made)
    with pytest.raises(Unsupported, match="given no picture whose parts could play"):
        explain.wrap(built("sd")).trajectory(**asked("sd", payoff=ink)).game("superpixels")
    with pytest.raises(ValueError, match="fill must be one of mean, blur, grey"):
        explain.wrap(built("img2img")).trajectory(**asked("img2img", fill="noise"))
