"""Panels of diffusion: of denoisers of any weights, what they say is what the model's own loop says by hand."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch
from diffusers import UNet2DModel

from explain.guard import random_states_kept
from models import ddpm
from models.datasets import digits
from models.panels import diffusion, relatives, small_digits

TINY = replace(small_digits.RECIPE, attention=(False, False), iterations=1)


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Denoisers that have learned nothing yet, runs of two steps, and the brightness of one corner for a judge."""

    def little(name, code, build, train, recipe):
        with random_states_kept():
            torch.manual_seed(0)
            net = build().eval()
        for part in net.modules():
            if isinstance(part, UNet2DModel):
                part.class_embedding.weight.data *= 10  # so that the label is heard
        return net

    def denoiser():
        return little("DDPM", ddpm, lambda: ddpm.unet(TINY), None, TINY), ddpm.ddim(TINY)

    monkeypatch.setattr(relatives, "little", little)
    for room in (diffusion, relatives):
        monkeypatch.setattr(room, "denoiser", denoiser)
        monkeypatch.setattr(room, "STEPS", 2)
        monkeypatch.setattr(room, "readable", lambda: lambda samples: samples[:, 0, :4, :4].mean((1, 2)))
        monkeypatch.setattr(room, "read", lambda samples: "unread")


PANELS = [
    *(diffusion.one_step, diffusion.run, diffusion.guided),
    *(relatives.steered, relatives.cascade, relatives.cold),
]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel.name)
def test_the_answer_is_what_coalitions_say_by_hand(panel):
    state = torch.get_rng_state()
    finding = panel()
    plt.close(finding.figure())
    assert "coalitions by hand" in finding.proof["by hand"]
    assert max(abs(float(score.replace("−", "-"))) for _, score in finding.strongest) > 1e-3
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_is_trained_once_for_each_recipe(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    trained = []

    def train(data):
        trained.append(len(data.images))
        return torch.nn.Linear(2, 1)

    nets = [small_digits.little("Line", ddpm, lambda: torch.nn.Linear(2, 1), train, recipe) for recipe in (TINY, TINY)]
    assert torch.equal(nets[0].weight, nets[1].weight)
    small_digits.little("Line", ddpm, lambda: torch.nn.Linear(2, 1), train, replace(TINY, iterations=2))
    assert trained == [len(digits()[0].images)] * 2
