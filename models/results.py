"""Every network held to its paper: ``python -m models.results`` trains what is missing and writes ``RESULTS.md``.

Each seed's network is a checkpoint (`models.checkpoints`), so a run that was killed goes on where it was.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import scipy.stats
import typer
from torch import nn
from torch_geometric.data import Data

from models import (
    cascaded_diffusion,
    classifier_guidance,
    cold_diffusion,
    convolutions,
    dcnn,
    difformer,
    digress,
    digress_results,
    dpm_snc,
    gat,
    gcn,
    graph_bert,
    nodeformer,
    pooling,
    style_ratio,
)
from models.checkpoints import trained
from models.datasets import cora
from models.folds import without_fold
from models.lds import settings as lds_settings
from models.lds.experiment import section as lds_section
from models.motif_nets import Schedule
from models.motifs import mutag
from models.splits import per_class, shares
from models.training import Recipe

PAGE = Path(__file__).with_name("RESULTS.md")
HEAD = """# What the models reach

Written by `make models` (`python -m models.results`), a row when its last seed is trained. Accuracies of what is held
out, in percent: mean ± standard deviation, the 95 % interval of the mean (Student's t), each. "To hold" is the least
that counts as the published system; for MUTAG, where none is published, the share of the larger class. Rows that say
"by how much" or "in points" are differences, in percent too, and 0 is to be passed. CPU seconds are
those of all trainings of the row. On Cora the weights are those that did best on the validation nodes, on MUTAG the
last: what is tested chose nothing.

| system | data and split | published | to hold | measured | seeds | CPU s | |
|---|---|---|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """A system, what it is held to, and how it is measured.

    Args:
        name: as in its paper.
        split: data and split in words.
        published: the figure and where it stands.
        hold: the least accuracy in percent that passes.
        measure: ``seed -> facts`` with ``test_accuracy`` and ``cpu_seconds``.
        seeds: how many.
        of: what they are where they are not seeds: "folds ".
    """

    name: str
    split: str
    published: str
    hold: float
    measure: Callable[[int], dict[str, Any]]
    seeds: int = 3
    of: str = ""

    def line(self) -> str:
        """The measured row of the page; trains what is missing."""
        facts = [self.measure(seed) for seed in range(self.seeds)]
        found = [100 * fact["test_accuracy"] for fact in facts]
        mean = statistics.mean(found)
        cells = (
            self.name,
            self.split,
            self.published,
            f"{self.hold:.1f}",
            f"{mean:.2f}" + _spread(found),
            f"{self.of}0–{self.seeds - 1}" if self.seeds > 1 else "0",
            f"{math.fsum(fact['cpu_seconds'] for fact in facts):.0f}",
            "pass" if mean >= self.hold else "short",
        )
        return f"| {' | '.join(cells)} |"


def _spread(found: Sequence[float]) -> str:
    """How far apart the seeds are, and each; nothing is known of it from one."""
    if len(found) == 1:
        return ""
    mean, spread = statistics.mean(found), statistics.stdev(found)
    reach = float(scipy.stats.t.ppf(0.975, len(found) - 1)) * spread / math.sqrt(len(found))
    each = ", ".join(f"{part:.1f}" for part in found)
    return f" ± {spread:.2f}, {mean - reach:.1f}–{mean + reach:.1f} ({each})"


Split = Callable[[Data, int], Data]


def _public(data: Data, seed: int) -> Data:
    return data


def _one_random(data: Data, seed: int) -> Data:
    """One split for all seeds, the one that DIFFormer reports on: they differ in their first weights."""
    return per_class(data, seed=123)


def _words(train: float, validation: float, data: Data, seed: int) -> Data:
    """These shares at random, the rest to test; a word is there or not, as in the papers before rows summed to one."""
    return _there_or_not(shares(data, seed, train, validation), seed)


def _there_or_not(data: Data, seed: int) -> Data:
    data = copy.copy(data)
    data.x = (data.x > 0).to(data.x.dtype)
    return data


def on_cora(kind: type[nn.Module], recipe: Recipe, split: Split, seed: int, **sizes: Any) -> dict[str, Any]:
    """Facts of one network trained on Cora."""
    return trained(kind, split(cora(), seed), recipe, seed=seed, **sizes).facts


def on_mutag(kind: type[nn.Module], fold: int) -> dict[str, Any]:
    """Facts of one network trained on nine tenths of MUTAG."""
    graphs = mutag().data
    assert isinstance(graphs, list)
    return without_fold(kind, graphs, fold, Schedule(epochs=100, lr=1e-3, batch_size=32)).facts


def _joint_gain(seed: int) -> dict[str, Any]:
    """By how much denoising all labels together gets more subgraphs right than its mean field."""
    facts = dpm_snc.on_cora(seed, cora()).facts
    return facts | {"test_accuracy": facts["subgraph_accuracy"] - facts["subgraph_alone"]}


def _judged(facts: dict[str, Any]) -> dict[str, Any]:
    return facts | {"test_accuracy": facts["class_accuracy"]}


def _improved_gain(seed: int) -> dict[str, Any]:
    """The share of the naive runs' distance to clean digits that improved runs do not have."""
    facts = cold_diffusion.load_or_train("blur", seed=seed).facts
    return facts | {"test_accuracy": 1 - facts["improved"]["distance"] / facts["naive"]["distance"]}


def _way_to_the_real(seed: int) -> dict[str, Any]:
    """How much of the way from draws of the limit to real graphs the generated ones have gone, by clustering."""
    facts = digress.on_communities(seed)[0].facts
    made, real, limit = (facts[whose]["clustering"] for whose in ("generated", "real", "limit"))
    return facts | {"test_accuracy": 1 - abs(made - real) / abs(limit - real)}


_PUBLIC = "Cora, public split"
_RANDOM = "Cora, 20 a class, 500, 1000 at random (the authors' split, seed 123)"
ROWS = [
    Row(
        "DPM-SNC",
        "two-row ladder, 2 x 100, 30 % known (other splits than settings were chosen on)",
        "solved, where features alone are at 50 (Jang et al. 2023)",
        99.0,
        lambda seed: dpm_snc.on_ladder(seed, split=1 + seed).facts,
    ),
    Row(
        "DPM-SNC less its mean field",
        "Cora, words 0 or 1, public split: a node and all its neighbours right, in points",
        "better (Jang et al. 2023)",
        0.0,
        _joint_gain,
    ),
    Row("GCN", _PUBLIC, "81.5 (Kipf and Welling 2017)", 81.0, partial(on_cora, gcn.GCN, gcn.PAPER, _public)),
    Row("GAT", _PUBLIC, "83.0 (Veličković et al. 2018)", 82.0, partial(on_cora, gat.GAT, gat.PAPER, _public)),
    Row(
        "ChebNet",
        _PUBLIC,
        "81.2 (Kipf and Welling 2017, K = 2)",
        79.0,
        partial(on_cora, convolutions.ChebNet, convolutions.CHEBNET, _public),
    ),
    Row(
        "MoNet",
        _PUBLIC,
        "81.7 (Monti et al. 2017)",
        80.0,
        partial(on_cora, convolutions.MoNet, convolutions.MONET, _public),
    ),
    Row(
        "JK-concat",
        "Cora, words 0 or 1, 60/20/20 at random by seed",
        "89.1 (Xu et al. 2018)",
        87.1,
        partial(on_cora, convolutions.JK, convolutions.JK_CORA, partial(_words, 0.6, 0.2)),
    ),
    Row(
        "DIFFormer-s",
        _RANDOM,
        "85.9 (Wu et al. 2023)",
        84.5,
        partial(on_cora, difformer.DIFFormer, difformer.CORA_S, _one_random),
    ),
    Row(
        "DCNN",
        "Cora, words 0 or 1, thirds at random by seed",
        "86.8 (Atwood and Towsley 2016)",
        84.8,
        partial(on_cora, dcnn.DCNN, dcnn.CORA, partial(_words, 1 / 3, 1 / 3)),
    ),
    Row(
        "Graph-BERT type",
        "Cora, words 0 or 1, public split",
        "84.3 (Zhang et al. 2020; pre-trained, best epoch on the test nodes)",
        80.0,
        partial(on_cora, graph_bert.GraphBert, graph_bert.CORA, _there_or_not),
    ),
    *(
        Row(kind.__name__, "MUTAG, 10 folds", published, 66.5, partial(on_mutag, kind), seeds=10, of="folds ")
        for kind, published in (
            (pooling.DiffPool, "none (Ying et al. 2018)"),
            (pooling.SAGPool, "none (Lee et al. 2019)"),
        )
    ),
    Row(
        "NodeFormer",
        _RANDOM,
        "83.4 (Wu et al. 2023)",
        82.0,
        partial(on_cora, nodeformer.NodeFormer, nodeformer.CORA, _one_random),
    ),
    Row(
        "DIFFormer-a",
        _RANDOM,
        "84.1 (Wu et al. 2023)",
        83.0,
        partial(on_cora, difformer.DIFFormer, difformer.CORA_A, _one_random, kernel="a", dropout=0.0),
    ),
    Row(
        "Classifier guidance",
        "digits, 500 guided samples, those that the judge takes for what was asked",
        "none (Dhariwal and Nichol 2021)",
        95.0,
        lambda seed: _judged(classifier_guidance.load_or_train(seed=seed).facts),
        seeds=1,
    ),
    Row(
        "Cascade",
        "digits, 500 samples of both stages, those that the judge takes for what was asked",
        "none (Ho et al. 2022)",
        95.0,
        lambda seed: _judged(cascaded_diffusion.load_or_train(seed=seed).facts),
        seeds=1,
    ),
    Row(
        "Cold diffusion",
        "digits, 599 blurred ones restored: by how much improved runs are nearer to clean ones than naive (Fréchet)",
        "better (Bansal et al. 2022)",
        0.0,
        _improved_gain,
        seeds=1,
    ),
    Row(
        "DiGress type",
        "graphs of two communities: clustering of generated ones, from the limit's (0) to that of real ones (100)",
        "none (Vignac et al. 2023)",
        50.0,
        _way_to_the_real,
        seeds=1,
    ),
]


@dataclass(frozen=True)
class Section:
    """A table of its own below that of the systems.

    Args:
        name: its title.
        said: what is measured, and how to read it.
        measure: the table, trains what is missing.
    """

    name: str
    said: str
    measure: Callable[[], str]

    def text(self) -> str:
        """The measured section of the page, without its title."""
        return f"{self.said}\n\n{self.measure()}"


FORETOLD = """The linear datamodelling score of every method (`python -m models.lds`), for 20 held-out questions:
Spearman's correlation, over networks trained again on random halves, on 95 % of the examples, and without one of them,
of what scores foretell with what these say, with the bootstrap's 95 % interval. Scores are those of one run, held first
to that very run without the examples (same first weights, batches and noise), then, for halves, to the mean of several
seeds, beside the ceiling that seeds leave. No method is tuned by what is foretold; trainings were tried on other
questions."""

SECTIONS = [
    Section(
        "GraphCL against the style ratio",
        """Graphs of six motifs, the content, in random trees, the style, of 1 to 8 times their size. GraphCL encoders
are pre-trained on all of them, without labels, with edges dropped at random (generic) or those of style alone
(content-aware); untrained ones have their first weights. Five seeds, of the graphs too. Accuracies are those of a
linear probe, in percent: on held-out graphs, then on those with edges dropped. Attribution is the share of
1 − cosine without an edge that is on edges of the motif, beside their share of the edges. Mean ± standard deviation;
below, differences with 95 % intervals (Student's t). Trivedi et al. (2022) report that generic augmentation gains
little over first weights, and that content-aware augmentation keeps its accuracy as style grows.""",
        style_ratio.section,
    ),
    Section(
        "What DiGress has learned",
        """Of the row "DiGress type": means over 32 generated graphs of 16 nodes, as many real ones that were not
trained on, and draws of the limit, where the noise ends. Nats are those of a pair of nodes in four real graphs: the
bound on −log p under the network, and the entropy of the limit, which knows only how often edges occur. Below,
what each span of steps has in that bound: step 1 draws the clean graph, the others are KL divergences, the last
that of the limit.""",
        digress_results.section,
    ),
    *(
        Section(f"Foretelling retraining: {name}", FORETOLD, partial(lds_section, [name]))
        for name in lds_settings.SETTINGS
    ),
]


def written(rows: Sequence[Row | Section], page: Path = PAGE) -> None:
    """Measure these rows and sections, and put each into its place on the page as soon as it is known."""
    for row in rows:
        found = row.text() if isinstance(row, Section) else row.line()
        lines, sections = _known(page)
        (sections if isinstance(row, Section) else lines)[row.name] = found
        text = HEAD + "".join(f"{line}\n" for line in _ordered(lines, [*ROWS, *rows]))
        titled = {name: f"\n## {name}\n\n{body.strip()}\n" for name, body in sections.items()}
        page.write_text(text + "".join(_ordered(titled, [*SECTIONS, *rows])), encoding="utf-8")


def _ordered(known: dict[str, str], order: Sequence[Row | Section]) -> list[str]:
    return [known[name] for name in dict.fromkeys(each.name for each in order) if name in known]


def _known(page: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The rows that are on the page, and the sections below them, by name."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    table, *below = text.split("\n## ")
    found = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith("| system")]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in found}
    return lines, dict(part.split("\n", 1) for part in below)


def main(only: list[str] = typer.Argument(None, help="systems or sections; all when none is named")) -> None:  # noqa: B008
    """Train what is missing, one network after the other, and write `models/RESULTS.md`.

    Raises:
        BadParameter: a system that is not in the table.
    """
    every: list[Row | Section] = [*ROWS, *SECTIONS]
    names = [row.name for row in every]
    if unknown := [name for name in only or [] if name not in names]:
        raise typer.BadParameter(f"{', '.join(unknown)}: one of {', '.join(names)}")
    written([row for row in every if not only or row.name in only])


if __name__ == "__main__":
    typer.run(main)
