"""Panels of denoisers of graphs: of networks of any weights, coalitions are as the paper's own sampler says by hand."""

import matplotlib.pyplot as plt
import torch

from models import digress, dpm_snc
from models.checkpoints import Trained
from models.communities import communities
from models.ladder import ladder
from models.panels import graph_diffusion
from models.panels.tokens import letters


def test_known_labels_are_those_of_runs_by_hand(monkeypatch):
    def untrained(seed, columns, recipe, steps, progress):
        torch.manual_seed(seed)
        net = dpm_snc.DPMSNC(1, 2, hidden=4, layers=1).eval()
        return Trained(net, {"one_run": 0.5, "features_alone": 0.25}, False)

    monkeypatch.setattr(graph_diffusion, "RUNGS", 6)
    monkeypatch.setattr(graph_diffusion, "T", 5)
    monkeypatch.setattr(dpm_snc, "on_ladder", untrained)
    finding = graph_diffusion.known_labels()
    known = [text.get_text() for text in finding.picture.texts]
    plt.close(finding.figure())
    assert "all 16 coalitions" in finding.proof["by hand"]
    assert finding.proof["ladder"] == "50% of the test nodes right; of features alone 25%"
    data = ladder(6)
    assert sorted(known) == sorted([*map(str, data.y[data.train_mask].tolist()), "?"])


def test_nodes_of_a_noised_graph_are_those_of_the_network_by_hand(monkeypatch):
    def untrained(graphs, recipe, seed, progress):
        torch.manual_seed(seed)
        process = digress.Categorical(digress.cosine_kept(recipe.steps), torch.tensor([0.6, 0.4]))
        return digress.Fitted(digress.DiGress(recipe.steps, layers=1).eval(), process, 0.0)

    monkeypatch.setattr(digress, "train", untrained)
    monkeypatch.setattr(graph_diffusion, "communities", lambda count, sizes, seed=0: communities(count, (4, 4), seed))
    finding = graph_diffusion.pairs()
    plt.close(finding.figure())
    assert "all 16 coalitions" in finding.proof["by hand"]
    assert {name for name, _ in finding.strongest[:2]} == {"0", "1"}


def test_a_masked_letter_of_a_palindrome_is_told_by_its_mirror_image():
    finding = letters()
    plt.close(finding.figure())
    assert "all 128 coalitions" in finding.proof["by hand"]
    assert {name.split()[-1] for name, _ in finding.strongest[:2]} == {"2", "6"}
    credit = [abs(float(score.replace("−", "-"))) for _, score in finding.strongest]
    assert min(credit[:2]) > 10 * credit[2]
