"""What it costs to see attention, beside what others do, in one process and one thread.

``python -m tests.benchmarks.attention [--quick]`` prints, for a small conditional UNet of diffusers (self- and
cross-attention at two resolutions, two rows of 77 text tokens) at latents of several sizes, the median processor
seconds of a pass and its peak memory above what was resident, each as a multiple of the plain pass:

- idle: ``capture`` is open and nothing is asked for.
- word maps: what every place of the picture puts onto each of six words, in every cross-attention.
- self-attention: every weight of every self-attention, a few rows at a time; what all places together look at is kept.

Beside them the processor that DAAM and its kin put in: attention written out with all probabilities kept, and the same
by hand with only the words kept. Then a single attention of 4,096 tokens and two heads, all of its weights kept, beside
its softmax by hand. Runs alternate, so that a busy machine is busy for all. Peak memory is that of a fork of its own.
The outputs under ``capture`` must be equal to the last bit, in bfloat16 too.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional as F

from explain.attention import AttentionMap, capture
from tests.benchmarks.record import record

WORDS = [torch.tensor([1 + 2 * word, 2 + 2 * word]) for word in range(6)]
GOALS = {  # times the plain pass: time, memory; and megabytes
    "idle": (1.05, None, None),
    "word maps": (1.5, 2.0, None),
    "self-attention": (5.0, None, 300.0),
    "one map": (5.0, None, 300.0),
}
Run = Callable[[], object]


def unet() -> UNet2DConditionModel:
    """Two heads of 16 and 32 at the full and half resolution."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=64, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32, attention_head_dim=2,
        down_block_types=("CrossAttnDownBlock2D",) * 2, up_block_types=("CrossAttnUpBlock2D",) * 2,
    ).eval()  # fmt: skip


def passes(size: int) -> dict[str, Run]:
    """A pass of the network at ``size x size`` latents, for each way of looking on."""
    net, generator = unet(), torch.Generator().manual_seed(1)
    x, text = (torch.randn(2, *shape, generator=generator) for shape in ((4, size, size), (77, 32)))

    def plain() -> Tensor:
        return net(x, 500, text).sample

    def seen(reduce: Callable[[AttentionMap], Any], **filters: Any) -> Run:
        def run() -> list[Any]:
            with capture(net, reduce, **filters) as found:
                plain()
            return found

        return run

    def processor(words_only: bool) -> Run:
        def run() -> list[Tensor]:
            with processors(net, words_only) as found:
                plain()
            return found

        return run

    for dtype in (torch.bfloat16, torch.float32):
        net, x, text = net.to(dtype), x.to(dtype), text.to(dtype)
        before = plain()
        with capture(net, words):
            assert torch.equal(before, plain()), f"capture changed the output in {dtype}"
    return {
        "plain": plain,
        "idle": seen(lambda attention: None),
        "word maps": seen(words, modules="*attn2"),
        "self-attention": seen(looked_at, modules="*attn1"),
        "DAAM-style processor": processor(False),
        "by hand, words": processor(True),
    }


def words(attention: AttentionMap) -> Tensor:
    """Kept of each cross-attention: ``[queries, words]``, the mean over rows and heads."""
    return attention.columns(WORDS).mean((0, 1))


def looked_at(attention: AttentionMap) -> Tensor:
    """Kept of each self-attention: ``[keys]``, the mean over rows, heads and queries."""
    return attention.pull(torch.full((attention.queries,), 1 / attention.queries))


@contextmanager
def processors(net: nn.Module, words_only: bool) -> Iterator[list[Tensor]]:
    """Every cross-attention written out, as DAAM and its kin do."""
    found: list[Tensor] = []

    class WrittenOut:
        def __call__(self, layer: Any, x: Tensor, encoder_hidden_states: Tensor, **_: Any) -> Tensor:
            query = layer.head_to_batch_dim(layer.to_q(x))
            key = layer.head_to_batch_dim(layer.to_k(encoder_hidden_states))
            value = layer.head_to_batch_dim(layer.to_v(encoder_hidden_states))
            weights = layer.get_attention_scores(query, key)
            if words_only:
                found.append(torch.stack([weights[..., word].sum(-1) for word in WORDS], -1).mean(0))
            else:
                found.append(weights)
            return layer.to_out[1](layer.to_out[0](layer.batch_to_head_dim(weights @ value)))

    before = net.attn_processors
    mixed = {name: WrittenOut() if "attn2" in name else own for name, own in before.items()}
    net.set_attn_processor(mixed)
    try:
        yield found
    finally:
        net.set_attn_processor(before)


class One(nn.Module):
    """A single attention."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, value)


def one_map(tokens: int) -> dict[str, Run]:
    """All weights of one attention of two heads."""
    generator = torch.Generator().manual_seed(2)
    query, key, value = (torch.randn(1, 2, tokens, 16, generator=generator) for _ in range(3))
    net = One()

    def kept() -> Tensor:
        with capture(net) as maps:
            net(query, key, value)
        return maps[0].weights

    return {
        "plain": lambda: net(query, key, value),
        "one map": kept,
        "softmax by hand": lambda: (net(query, key, value), (query @ key.mT / 4).softmax(-1)),
    }


@torch.no_grad()
def measured(runs: dict[str, Run], times: int) -> list[dict[str, Any]]:
    """Median seconds and peak megabytes of each, and as multiples of the plain one."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for repeat in range(times + 1):
        for name, run in runs.items():
            gc.collect()
            started = time.process_time()
            run()
            if repeat:  # the first warms up
                seconds[name].append(time.process_time() - started)
    rows = []
    for name, run in runs.items():
        rows.append({"method": name, "seconds": statistics.median(seconds[name]), "megabytes": peak(run)})
    for row in rows:
        row["times"] = row["seconds"] / rows[0]["seconds"]
        row["memory"] = row["megabytes"] / rows[0]["megabytes"]
        row["goals"] = reached(row)
    return rows


def reached(row: dict[str, Any]) -> str:
    """Which goals a row has, and whether it reached them."""
    named = zip(("times", "memory", "megabytes"), GOALS.get(row["method"], ()), strict=False)
    said = [f"{name} {goal:g}: {'reached' if row[name] <= goal else 'missed'}" for name, goal in named if goal]
    return ", ".join(said)


def peak(run: Run) -> float:
    """Megabytes of a run above what was resident before, measured in a fork of this process."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
        kept = run()
        os.write(writer, str(_status("VmHWM") - before).encode())
        del kept
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as said:
        found = said.read()
    os.waitpid(child, 0)
    return float(found)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def main() -> None:
    """Print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="latents of 16 and 32, 1,024 tokens, three runs each")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found = []
    sizes, tokens, times = ((16, 32), 1024, 3) if quick else ((16, 32, 48, 64), 4096, 7)
    problems = [(f"latents {size} x {size}", passes, size) for size in sizes]
    for name, build, size in [*problems, (f"one attention of {tokens:,} tokens", one_map, tokens)]:
        rows = measured(build(size), times)
        print(f"\n{name:<34}{'seconds':>9}{'times':>8}{'MB':>8}{'times':>8}")
        for row in rows:
            numbers = f"{row['seconds']:>9.3f}{row['times']:>8.2f}{row['megabytes']:>8.0f}{row['memory']:>8.2f}"
            print(f"{row['method']:<34}{numbers}  {row['goals']}")
        found += [{"problem": name, **row} for row in rows]
    record(f"attention{'-quick' * quick}", found, {"runs": times, "words": len(WORDS), "quick": quick})


if __name__ == "__main__":
    main()
