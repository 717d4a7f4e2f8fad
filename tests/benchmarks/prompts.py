"""What a game of prompt words costs, beside what its user would write by hand, in one process and one thread.

``python -m tests.benchmarks.prompts [--quick]`` prints, for a tiny Stable Diffusion (8 words, 4 steps, guided), the
median processor seconds of 256 coalitions:

- ours: the game of the words, as an explainer asks it.
- one by one: the pipeline called once a coalition (a part of them, scaled up).
- by hand: one call of the pipeline with all 256 prompts, generators and negative prompts.

Runs alternate, so that a busy machine is busy for all. The numbers must be equal to those of one call each.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import explain
from tests.benchmarks.record import record

sys.path.insert(0, str(Path(__file__).parents[1]))  # the tests' own helpers

PROMPT, NEGATIVE = "a red fox in deep snow at night", "blurry"
SETTINGS: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 7.5, "output_type": "pt"}
SINGLE = 16  # calls that stand for all 256


def brightness(pictures: Tensor) -> Tensor:
    """The mean of a picture."""
    return pictures.mean((1, 2, 3))


def generator() -> torch.Generator:
    """The same start for all."""
    return torch.Generator().manual_seed(3)


def games(pipeline: Any) -> dict[str, Callable[[], Tensor]]:
    """Every way to the numbers of all coalitions."""
    run = explain.wrap(pipeline).trajectory(PROMPT, negative=NEGATIVE, steps=4, guidance=7.5, seed=3, payoff=brightness)
    words = PROMPT.split()
    masks = torch.tensor(list(itertools.product([False, True], repeat=len(words))))
    texts = [" ".join(itertools.compress(words, mask)) for mask in masks.tolist()]
    game = run.game(run.players("words", negative=False))

    def one_by_one() -> Tensor:
        every = texts[:: len(texts) // SINGLE]
        pictures = [pipeline(t, negative_prompt=NEGATIVE, generator=generator(), **SETTINGS).images for t in every]
        return brightness(torch.cat(pictures))

    def by_hand() -> Tensor:
        many = {"negative_prompt": [NEGATIVE] * len(texts), "generator": [generator() for _ in texts]}
        return brightness(pipeline(texts, **many, **SETTINGS).images)

    return {"ours": lambda: game(masks), "one by one": one_by_one, "by hand": by_hand}


def measured(ways: dict[str, Callable[[], Tensor]], repeats: int) -> list[dict[str, Any]]:
    """Median processor seconds of each, and how far its numbers lie from those of one call each."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, Tensor] = {}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.process_time()
            found[name] = way().double()
            seconds[name].append(time.process_time() - started)
    every = len(found["ours"]) // SINGLE
    truth, rows = found["one by one"], []
    for name, values in found.items():
        scale = every if name == "one by one" else 1
        at = values if name == "one by one" else values[::every]
        spread = float(truth.max() - truth.min())
        taken = statistics.median(seconds[name]) * scale
        rows.append({"way": name, "seconds": taken, "error": float((at - truth).abs().max()) / spread})
    return rows


def main() -> None:
    """Measure, print and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="three repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    import tiny_networks
    import tiny_pipelines

    net = tiny_networks.unet(block_out_channels=(32, 64), layers_per_block=1, sample_size=16)
    rows = []
    for size, pipeline in {
        "latents 8 x 8": tiny_pipelines.CASES["sd"].build(),
        "latents 16 x 16": tiny_pipelines.stable_diffusion(net=net),
    }.items():
        rows += [{"pipeline": size, **row} for row in measured(games(pipeline), 3 if quick else 7)]
    ours = {row["pipeline"]: row["seconds"] for row in rows if row["way"] == "ours"}
    print(f"{'pipeline':16} {'way':12} {'seconds':>8} {'times ours':>11} {'error':>9}")
    for row in rows:
        row["times_ours"] = row["seconds"] / ours[row["pipeline"]]
        print(
            f"{row['pipeline']:16} {row['way']:12} {row['seconds']:8.2f} {row['times_ours']:11.2f} {row['error']:9.1e}"
        )
    record("prompts-quick" if quick else "prompts", rows, {"prompt": PROMPT, "coalitions": 256, "steps": 4})


if __name__ == "__main__":
    main()
