"""Panels of networks in which everybody hears everybody: what they say is what the layers compute."""

import matplotlib.pyplot as plt
import pytest

from models.panels.all_pairs import contrast, falling, intimate, looking

PROOFS = {falling: "squared distances from the mean", contrast: "the weights times its values",
          looking: "softmax of queries and keys", intimate: "all 64 coalitions"}  # fmt: skip


@pytest.fixture(scope="module")
def findings():
    found = {panel: panel() for panel in PROOFS}
    for one in found.values():
        plt.close(one.figure())
    return found


@pytest.mark.parametrize("panel", PROOFS, ids=lambda panel: panel.name)
def test_the_answer_is_held_to_the_layer_or_to_every_coalition(panel, findings):
    assert PROOFS[panel] in findings[panel].proof["by hand"]


def test_each_diffusion_lowers_the_energy(findings):
    falls = [float(fall.removeprefix("× ")) for _, fall in findings[falling].strongest]
    assert len(falls) == 4
    assert max(falls) < 1


def test_a_kernel_with_signs_is_no_share_of_attention(findings):
    said = findings[contrast].proof["signs"].split()
    below, own, other = float(said[0].rstrip("%")), float(said[-8].rstrip(",")), float(said[-1])
    assert below > 5
    assert own > 3 * other
    assert any(mean.startswith("−") for _, mean in findings[contrast].strongest)


def test_where_it_is_looked_hardly_matters(findings):
    uniform = float(findings[looking].proof["uniform"].split()[-1])
    value = float(findings[looking].number.split()[-1])
    assert uniform == pytest.approx(value, abs=0.05 * abs(value))
    assert uniform != value


def test_a_list_of_intimates_changes_with_a_link(findings):
    assert int(findings[intimate].proof["list"].split()[2]) >= 1
