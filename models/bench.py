"""``python -m models.bench graph``: every explainer on graphs in which it is known what matters."""

from __future__ import annotations

import functools
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import torch
import typer
from torch import nn
from tqdm.auto import tqdm

import explain
from explain import Explainer, Explanation, Target, metrics
from models import motif_nets, motifs
from models.motifs import Benchmark
from models.planted import CYCLE, HOUSE, Planted, planted
from models.threads import one_thread

BENCHMARKS: dict[str, Callable[[], Benchmark]] = {
    "planted": lambda: planted(HOUSE),
    "planted_cycle": lambda: planted(CYCLE, name="planted_cycle"),
    "ba_shapes": motifs.ba_shapes,
    "ba_community": motifs.ba_community,
    "tree_cycles": motifs.tree_cycles,
    "tree_grid": motifs.tree_grid,
    "ba_2motif": motifs.ba_2motif,
    "mutag": motifs.mutag,
    "alkane_carbonyl": motifs.alkane_carbonyl,
}
SHORT = {  # what the printed table calls the columns of the written one, so that it fits a terminal
    "auroc of size": "|auroc|",
    "fidelity+": "fid+",
    "fidelity-": "fid-",
    "characterisation": "char",
    "label fidelity+": "label+",
    "label fidelity-": "label-",
    "unfaithfulness": "unfaith",
    "infidelity": "infid",
    "randomised": "sanity",
}
app = typer.Typer(help="Benchmarks with ground truth.", add_completion=False)


@app.callback()
def benchmarks() -> None:
    """Benchmarks with ground truth."""


@app.command()
def graph(
    data: Annotated[list[str] | None, typer.Option(help=f"some of {', '.join(BENCHMARKS)}; all when left out")] = None,
    targets: Annotated[int, typer.Option(min=1, help="explained nodes or graphs of each")] = 10,
    methods: Annotated[list[str] | None, typer.Option(help="some explainers; all when left out")] = None,
    seed: Annotated[int, typer.Option(help="of training and explainers")] = 0,
    out: Annotated[Path, typer.Option(help="folder for the table")] = Path("bench"),
) -> None:
    """Print and write one table a data set: ground truth, fidelity, stability and seconds of every explainer.

    A network is trained on each; then 10 to 20 seconds of one core a target of the smallest, "planted", more of others.

    Raises:
        BadParameter: no such data.
    """
    started = time.perf_counter()
    out.mkdir(parents=True, exist_ok=True)
    for name in data or BENCHMARKS:
        if name not in BENCHMARKS:
            raise typer.BadParameter(f"one of {', '.join(BENCHMARKS)}, got {name}", param_hint="--data")
        try:
            benchmark = BENCHMARKS[name]()
        except FileNotFoundError as error:
            print(f"{name} is left out: {error}")
            continue
        with one_thread():
            found, introduction = measured(benchmark, targets, methods, seed)
        found.to_csv(out / f"graph-{name}.csv")
        print(f"\n{introduction}\n{found.round(3).rename(columns=SHORT).to_string(na_rep='')}", flush=True)
    said = ", ".join(f"{short} is {name}" for name, short in SHORT.items())
    print(f"\n{textwrap.fill(said, 110)}\n{out} holds the tables · {time.perf_counter() - started:.0f} s")


def measured(
    benchmark: Benchmark, count: int, methods: list[str] | None = None, seed: int = 0
) -> tuple[pd.DataFrame, str]:
    """The mean over targets of every measure, one row an explainer, and what was asked in words.

    Raises:
        BadParameter: no such explainer.
    """
    net, facts = _network(benchmark, seed)
    asked = _targets(benchmark, net, count)
    explainers = _explainers(benchmark, [target for target, _ in asked])
    if unknown := set(methods or ()) - set(explainers):
        raise typer.BadParameter(f"some of {', '.join(explainers)}, got {', '.join(unknown)}", param_hint="--methods")
    explainers = {name: found for name, found in explainers.items() if not methods or name in methods}
    tables = []
    for target, atoms in tqdm(asked, desc=benchmark.name, leave=False):
        players = target.players(benchmark.players)
        truth = metrics.truth_of(players, atoms)
        tables.append(_one(target, truth, explainers, seed))
    together = pd.concat(tables)
    rows = together.groupby(level=0, sort=False).mean()
    what = f"{benchmark.name}: {len(asked)} {'nodes' if benchmark.task == 'node' else 'graphs'}, {benchmark.players}"
    return rows, f"{what}; {type(net).__name__} {facts}"


def _one(target: Target, truth: torch.Tensor, explainers: dict[str, Any], seed: int) -> pd.DataFrame:
    """Every measure of one target."""
    explanations, stable = {}, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is doubtful about one of many answers shows in the measures
        for name, explainer in explainers.items():
            started = time.perf_counter()
            explanations[name] = _explained(explainer, target, seed)
            seconds = time.perf_counter() - started
            again = [explanations[name], _explained(explainer, target, seed + 1)]
            randomised = _randomised(explainer(seed), target)
            stable[name] = {"seeds": _spearman(again), "randomised": randomised, "seconds": seconds}
        found = metrics.table(explanations, target, truth=truth).drop(columns=["seconds"])
        sizes = metrics.ground_truth(explanations, truth, absolute=True)
    found.insert(1, "auroc of size", sizes["auroc"])
    return found.join(pd.DataFrame.from_dict(stable, orient="index"))


def _explained(explainer: Any, target: Target, seed: int) -> Explanation:
    return explainer(seed).explain(target)


def _spearman(pair: list[Explanation]) -> float:
    first, second = (pd.Series(why.scores.numpy()) for why in pair)
    if first.nunique() < 2 or second.nunique() < 2:
        return 1.0 if first.equals(second) else 0.0
    return float(first.corr(second, method="spearman"))


def _randomised(explainer: Explainer, target: Target) -> float | None:
    """Rank correlation with the explanation of a network that has learned nothing; None for one fitted to another."""
    if isinstance(explainer, explain.FittedMask):
        return None
    return metrics.randomisation(explainer, target, repeats=1).spearman


def _network(benchmark: Benchmark, seed: int) -> tuple[nn.Module, str]:
    if benchmark.name.startswith("planted"):
        return Planted(CYCLE if benchmark.name.endswith("cycle") else HOUSE), "set by hand"
    found = motif_nets.trained(benchmark, seed=seed)
    return found.module, f"{found.facts['test_accuracy']:.1%} right on held-out ones"


def _targets(benchmark: Benchmark, net: nn.Module, count: int) -> list[tuple[Any, torch.Tensor]]:
    """Targets that the network gets right and whose truth distinguishes somebody, evenly spread; and their truths."""
    model = explain.wrap(net, benchmark.data, task=benchmark.task, outputs="logits")
    found: list[tuple[Any, torch.Tensor]] = []
    step = max(1, len(benchmark.targets) // (3 * count))
    for position in benchmark.targets[::step]:
        if benchmark.task == "node":
            target, label = model.node(position), int(benchmark.data.y[position])  # type: ignore[union-attr]
        else:
            target, label = model.graph(position), int(benchmark.data[position].y)
        atoms = benchmark.truth(position)
        players = target.players(benchmark.players)
        truth = metrics.truth_of(players, atoms)
        if target.label == label and truth.any() and not truth.all(-1).all():
            found.append((target, atoms))
        if len(found) == count:
            break
    return found


def _explainers(benchmark: Benchmark, targets: list[Any]) -> dict[str, Callable[[int], Explainer]]:
    """Explainers by name, each made from a seed."""
    kind = benchmark.players
    most = max(len(target.players(kind)) for target in targets)
    samples = max(2048, 8 * most)
    made: dict[str, Callable[[int], Explainer]] = {
        "Shapley": lambda seed: explain.Shapley(kind, samples=samples, seed=seed),
        "Banzhaf": lambda seed: explain.Banzhaf(kind, samples=samples, seed=seed),
        "Lime": lambda seed: explain.Lime(kind, samples=samples, seed=seed),
        "Occlusion": lambda seed: explain.Occlusion(kind),
        "Saliency": lambda seed: explain.Gradient(kind, method="saliency"),
        "IntegratedGradients": lambda seed: explain.Gradient(kind, steps=32),
        "GNNExplainer": lambda seed: explain.Mask(kind, epochs=100, repeats=1, seed=seed),
    }
    if kind == "edges":
        made["PGExplainer"] = functools.cache(
            lambda seed: explain.Mask("edges", method="pg_explainer", epochs=20, lr=0.003, repeats=1, seed=seed).fit(
                targets
            )
        )
        made["Counterfactual"] = lambda seed: explain.Counterfactual("edges", budget=2000, limit=6)
    else:
        made["SubgraphX"] = lambda seed: explain.SubgraphX(size=6, samples=32, rollouts=10, hops=3, seed=seed)
    return made


if __name__ == "__main__":
    app()
