"""A wrapped model says in a few words whose it is, how it is asked, and what was taken for granted."""

import pytest
import torch

from explain import Target
from models.matrix.kinds import KINDS

SAID = {
    "table": ("SupervisedModel of Sequential, classification: ask example(x)", "example"),
    "GCN": ("GraphModel of GCN, task node, one graph: ask node(number)", "node"),
    "DDPM step": ("DiffusionModel of", "step"),
    "DiGress step": ("GraphDiffusionModel of DiGress: ask step(", "step"),
    "DPM-SNC run": ("LabelDiffusionModel of", "trajectory"),
}


@pytest.mark.parametrize("kind", SAID)
def test_a_model_says_how_it_is_asked(kind):
    torch.manual_seed(0)
    model = KINDS[kind]().target.model
    said, verb = SAID[kind]
    lines = repr(model).splitlines()
    assert lines[0].startswith(said)
    assert f"{verb}(" in lines[0]
    assert callable(getattr(model, verb))
    assumed = getattr(model, "assumed", {})
    assert lines[1:] == [f"  assumed {name}: {why}" for name, why in assumed.items()]
    assert not isinstance(model, Target)
