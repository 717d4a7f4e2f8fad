"""The explainers themselves, each where what it should say is known otherwise."""

from __future__ import annotations

import torch
from sklearn.datasets import load_diabetes
from torch import nn

import explain
from explain.attention import uniform
from models import translation
from models.koh_liang.data import ones_and_sevens, worst
from models.linear import Linear
from models.optimum import fit, fit_without, fitted
from models.panels.by_hand import held, shapley
from models.panels.panel import Finding, panel
from models.panels.pictures import beside, in_units

DECAY = 0.01


@panel(
    "SHAP",
    "Lundberg and Lee, NIPS 2017",
    conclude="How each measurement moves the forecast away from the mean over the background; two implementations "
    "agree.",
    beware="That changing a measurement would change the course of the disease: the credit is about the network.",
)
def shapley_values() -> Finding:
    """All coalitions of ten columns; an absent one takes the values of the background, and the answers are averaged."""
    import shap  # seconds of import, for this alone

    table = load_diabetes()
    x, y = torch.tensor(table.data) * 20, torch.tensor(table.target)[:, None] / 100
    net = fit(_network(10, 8, 1), x, y, weight_decay=DECAY, loss=lambda out, y: (out - y).square().sum(1), slope=1e-4)
    model = explain.wrap(net, x[:20], task="regression", feature_names=tuple(table.feature_names))
    why = in_units(explain.Shapley("features", seed=0).explain(model.example(x[100])), "progression, hundreds")
    present = (torch.arange(1024)[:, None] >> torch.arange(10)) % 2 == 1
    with torch.no_grad():
        worth = net(torch.where(present[:, None], x[100], x[:20]))[..., 0].mean(1)
        peer = shap.KernelExplainer(lambda rows: net(torch.tensor(rows))[:, 0].numpy(), x[:20].numpy())
        theirs = torch.tensor(peer.shap_values(x[100].numpy(), nsamples=1024, silent=True))
    return Finding.of(
        why,
        "Which measurements make a small network foresee this course of diabetes?",
        "progression after a year, in hundreds",
        by_hand=held("the scores", "Shapley's formula over all 1024 coalitions by hand", shapley(worth), why.scores),
        shap=held("the scores", "the library shap, of as many coalitions", theirs, why.scores),
    )


@panel(
    "LIME",
    "Ribeiro et al., KDD 2016",
    conclude="Which patches a straight line weighs most that was fitted to the network near this image.",
    beware="Shares of the logit. The weights do not add up to it, and another kernel width gives others.",
)
def surrogate() -> Finding:
    """All coalitions of 16 patches, weighted by how near they are to the whole image."""
    split = ones_and_sevens("digits")
    net = fit(_network(64, 8, 2), split.x, split.y, weight_decay=DECAY, slope=1e-4)
    logits = net(split.test_x).detach()
    image = split.test_x[int((logits[:, 1] - logits[:, 0]).argmax())]
    target = explain.wrap(net, task="classification").example(image, label=1)
    why = explain.Lime(target.players("patches", size=2), samples=1 << 16, seed=0).explain(target)
    z = (torch.arange(1 << 16)[:, None] >> torch.arange(16)) % 2 == 1
    with torch.no_grad():
        shown = z.view(-1, 1, 4, 4).repeat_interleave(2, 2).repeat_interleave(2, 3)
        worth = net(image * shown)[:, 1]
    near = torch.exp(-((1 - (z.sum(1) / 16).double().sqrt()) ** 2) / why.settings["kernel_width"] ** 2).sqrt().sqrt()
    columns = torch.cat([torch.ones(len(z), 1), z], 1).double()
    fitted_by_hand = torch.linalg.lstsq(near[:, None] * columns, (near * worth)[:, None]).solution[1:, 0]
    return Finding.of(
        why,
        "Which patches of this digit make a small network read a 7 and not a 1?",
        "logit of 7",
        beside(why),
        by_hand=held("the scores", "least squares over all 65536 coalitions by hand", fitted_by_hand, why.scores),
    )


@panel(
    "Attention",
    "Bahdanau et al., ICLR 2015",
    conclude="That the translator looks where the words come from, and cannot do without: uniform looks ruin its "
    "sentences.",
    beware="This of every network with attention. Read the last line first: where uniform looks change nothing, a map "
    "says nothing.",
)
def alignment() -> Finding:
    """The source and target words of a sentence never seen, in a language whose alignment is known."""
    pairs = translation.pairs()
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    net = translation.train([pairs[i] for i in order[:600]], iterations=200, progress=False)
    held_out = [pairs[i] for i in order[600:640]]
    pair = max(held_out, key=lambda pair: len(set(pair.source)))
    weights = translation.alignment(net, pair)
    hits = torch.cat([translation.alignment(net, one).argmax(1) == torch.tensor(one.alignment) for one in held_out])
    with uniform(net):
        blind = sum(translation.translated(net, one.source) == one.target for one in held_out)
    right = sum(translation.translated(net, one.source) == one.target for one in held_out)
    most, at = weights.max(1)
    words = [f"{said} looks at {pair.source[i]}" for said, i in zip(pair.target, at.tolist(), strict=True)]
    return Finding(
        f"Which word does a translator look at when it writes each word of “{' '.join(pair.target)}”?",
        "attention of a target word over the source, which sums to 1",
        explain.plot.attention(weights, names=pair.source, rows=pair.target),
        tuple((words[i], f"{most[i]:.3f}") for i in most.topk(3).indices.tolist()),
        {
            "true alignment": f"{int(hits.sum())} of {len(hits)} words of new sentences look at their own source",
            "without it": f"{right} of {len(held_out)} sentences right, {blind} when every look is made uniform",
        },
    )


@panel(
    "Influence",
    "Koh and Liang, ICML 2017",
    conclude="By how much the loss would change if a training image had been left out; the strongest were, and it did.",
    beware="As much of many images at once, or of a network that stopped short of a minimum: it is of first order.",
)
def training_images() -> Finding:
    """Helpful and harmful training images; the strongest are really left out, and the network trained again."""
    split = ones_and_sevens("digits")
    net = fitted(Linear(64), split.x, split.y, weight_decay=DECAY)
    loss = nn.functional.softplus((1 - 2 * split.test_y) * net(split.test_x).detach()[:, 0])
    asked = worst(loss, split.test_y, 1)
    model = explain.wrap(net, train=(split.x, split.y), task="classification", weight_decay=DECAY)
    why = explain.Influence(solver="exact", seed=0).explain(model.example(split.test_x[asked], 1, payoff="loss"))
    removed = why.order()[:8].tolist()
    without = [fit_without(net, one, split.x, split.y, weight_decay=DECAY) for one in removed]
    after = torch.stack([nn.functional.softplus(-again(split.test_x[asked][None])).detach()[0, 0] for again in without])
    fell = loss[asked] - after
    return Finding.of(
        why,
        "Which training images help, and which harm, the 7 that logistic regression is least sure of?",
        "loss of the test image",
        retraining=_foretold(why.scores[removed], fell),
    )


def _foretold(predicted: torch.Tensor, actual: torch.Tensor) -> str:
    """Predicted changes beside those of retraining.

    Raises:
        RuntimeError: they part.
    """
    r = float(torch.corrcoef(torch.stack([predicted, actual]))[0, 1])
    if not r > 0.95:
        raise RuntimeError(f"influence does not foretell retraining: r {r:.3f}")
    slope = float((predicted * actual).sum() / predicted.square().sum())
    return f"{len(actual)} of the strongest left out and trained again: r {r:.3f}, actual is {slope:.2f} of predicted"


def _network(features: int, hidden: int, outputs: int) -> nn.Module:
    """Two smooth layers of the flattened input, float64, of fixed first weights."""
    torch.manual_seed(0)
    layers = nn.Linear(features, hidden), nn.Softplus(), nn.Linear(hidden, outputs)
    return (nn.Sequential(*layers) if outputs == 1 else nn.Sequential(nn.Flatten(), *layers)).double().eval()
