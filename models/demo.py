"""``make demo``: ask why by every method, of a graph network and of a denoiser, compare, and write it all down."""

from __future__ import annotations

import time
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import typer

import explain
from models import demo_graph
from models.answers import Answer, Picture, compare_all, table, write
from models.datasets import cora, karate_club
from models.demo_graph import NAMES, Dataset
from models.threads import one_thread


class Family(StrEnum):
    """Which models are asked."""

    ALL = "all"
    GRAPH = "graph"
    DIGITS = "digits"
    PROMPTS = "prompts"


TOLD = {Family.DIGITS: "models.demo_digits", Family.PROMPTS: "models.demo_prompts"}


def main(
    data: Annotated[Dataset, typer.Option(help="karate: inside torch_geometric; cora: from EXPLAIN_DATA")] = (
        Dataset.KARATE
    ),
    family: Annotated[Family, typer.Option(help="graph networks, the denoiser of digits, words, or all")] = Family.ALL,
    node: Annotated[int | None, typer.Option(help="the explained node; a bridge between classes when left out")] = None,
    seed: Annotated[int, typer.Option(help="of the training and of every explainer")] = 0,
    out: Annotated[Path, typer.Option(help="folder for explanations, pictures and report.html")] = Path("demo"),
    fresh: Annotated[bool, typer.Option("--fresh", help="train again, whatever the cache holds")] = False,
) -> None:
    """Explain a node of a GAT and a GCN, a step and a run of a DDPM, and a prompt; write it all down."""
    started = time.perf_counter()
    mpl.use("agg")
    answers: list[Answer] = []
    pictures: list[Picture] = []
    titles, runs = [], []
    curves: list[explain.Target] = []
    if family in (Family.ALL, Family.GRAPH):
        title, curves = _graph(data, node, seed, fresh, answers, pictures)
        titles.append(title)
    for part, by in TOLD.items():
        if family in (Family.ALL, part):
            title, of_part, asked_again = _told(by, seed, fresh, answers, pictures)
            titles.append(title)
            runs += of_part
            curves += asked_again
    write(answers, compare_all(answers), pictures, out, " ".join(titles), runs, curves)
    print(table(answers))
    print(f"\n{out / 'report.html'} tells it all · {time.perf_counter() - started:.0f} s")


def _graph(
    data: Dataset, node: int | None, seed: int, fresh: bool, answers: list[Answer], pictures: list[Picture]
) -> tuple[str, list[explain.Target]]:
    """The graph half; its title, and what is asked again with fewer players.

    Raises:
        BadParameter: no such node, or the data are not at hand.
    """
    try:
        graph = karate_club(labelled=3) if data is Dataset.KARATE else cora()
    except FileNotFoundError as error:
        raise typer.BadParameter(str(error), param_hint="--data") from error
    if node is not None and not 0 <= node < graph.num_nodes:
        raise typer.BadParameter(f"a node from 0 to {graph.num_nodes - 1}, got {node}", param_hint="--node")
    with one_thread():
        nets = demo_graph.train_both(graph, data, seed, fresh)
        chosen = demo_graph.bridge(graph, nets) if node is None else node
        print(demo_graph.introduction(graph, data, nets, chosen))
        found = list(demo_graph.answers(nets, graph, chosen, seed))
        story = demo_graph.story(nets, graph, chosen, found)
        curves = demo_graph.curves(nets, graph, chosen)
    print(f"\n{story}\n")
    answers += found
    pictures.append(demo_graph.overview(found, compare_all(found), story))
    return f"Why class {demo_graph.label(nets, graph, chosen)}? Node {chosen} of {NAMES[data]}.", curves


def _told(
    by: str, seed: int, fresh: bool, answers: list[Answer], pictures: list[Picture]
) -> tuple[str, list[explain.Target], list[explain.Target]]:
    """A part as its module tells it; its title, what is shown step by step, what is asked again."""
    part = import_module(by)  # diffusers and transformers take seconds to import
    with one_thread():
        told = part.story(seed, fresh)
        print(part.introduction(told))
        found = list(part.answers(told, seed))
        answers += found
        pictures += part.pictures(told, found)
    return part.title(told), part.runs(told), part.curves(told)


if __name__ == "__main__":
    typer.run(main)
