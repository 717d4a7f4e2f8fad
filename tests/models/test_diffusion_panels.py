"""Panels of diffusion: of denoisers of any weights, what they say is what the model's own loop says by hand."""

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest
import torch

from explain.guard import random_states_kept
from models import ddpm
from models.datasets import digits
from models.panels import diffusion, small_digits

TINY = replace(small_digits.RECIPE, attention=(False, False), iterations=1)


@pytest.fixture(autouse=True)
def untrained(monkeypatch):
    """Denoisers that have learned nothing yet, runs of two steps, and the brightness of one corner for a judge."""
    with random_states_kept():
        torch.manual_seed(0)
        net = ddpm.unet(TINY).eval()
    net.class_embedding.weight.data *= 10  # so that the label is heard
    monkeypatch.setattr(diffusion, "denoiser", lambda: (net, ddpm.ddim(TINY)))
    monkeypatch.setattr(diffusion, "STEPS", 2)
    monkeypatch.setattr(diffusion, "readable", lambda: lambda samples: samples[:, 0, :4, :4].mean((1, 2)))
    monkeypatch.setattr(diffusion, "read", lambda samples: "unread")


@pytest.mark.parametrize("panel", [diffusion.one_step, diffusion.run, diffusion.guided], ids=lambda panel: panel.name)
def test_the_answer_is_what_coalitions_say_by_hand(panel):
    state = torch.get_rng_state()
    finding = panel()
    plt.close(finding.figure())
    assert "coalitions by hand" in finding.proof["by hand"]
    assert max(abs(float(score.replace("−", "-"))) for _, score in finding.strongest) > 0.01
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_is_trained_once_for_each_recipe(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPLAIN_CACHE", str(tmp_path))
    trained = []

    def train(data):
        trained.append(len(data.images))
        return torch.nn.Linear(2, 1)

    nets = [small_digits.little("Line", lambda: torch.nn.Linear(2, 1), train, recipe) for recipe in (TINY, TINY)]
    assert torch.equal(nets[0].weight, nets[1].weight)
    small_digits.little("Line", lambda: torch.nn.Linear(2, 1), train, replace(TINY, iterations=2))
    assert trained == [len(digits()[0].images)] * 2
