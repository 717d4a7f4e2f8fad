"""Panels of the explainers: what they say is held to what is known otherwise; proof that parts is refused."""

import matplotlib.pyplot as plt
import pytest
import torch

from models.panels.explainers import _foretold, shapley_values, surrogate, training_images


@pytest.mark.parametrize(
    ("panel", "proof"),
    [(shapley_values, "the library shap"), (surrogate, "all 65536"), (training_images, "trained again")],
    ids=["SHAP", "LIME", "Influence"],
)
def test_the_answer_is_what_is_known_otherwise(panel, proof):
    state = torch.get_rng_state()
    finding = panel()
    plt.close(finding.figure())
    assert any(proof in said for said in finding.proof.values())
    assert len(finding.strongest) == 3
    assert torch.equal(torch.get_rng_state(), state)


def test_influence_that_foretells_nothing_is_refused():
    predicted = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert "r 1.000, actual is 2.00" in _foretold(predicted, 2 * predicted)
    with pytest.raises(RuntimeError, match="does not foretell"):
        _foretold(predicted, predicted.flip(0))
