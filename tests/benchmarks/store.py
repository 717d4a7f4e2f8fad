"""How long a gradient store takes to build, what it holds in memory, and how long a new number then takes.

``python -m tests.benchmarks.store [--rows 1000000] [--dimensions 128] [--workers 2] [--quick]`` draws a training set
into a file, builds the store of a network of 10,064 parameters on a Dask cluster of so many processes of one thread (0:
in this process), opens it with the files out of the system's cache and with them in it, and asks it numbers. A smaller
one is killed ten times with ``kill -9`` while it is built and compared byte by byte with one that was not; its scores
and seconds stand beside those of `Trak` without a store, which makes the gradients again for every number.

No other library that is installed keeps projected gradients; TRAK's own wants a card. Measured on two cores, a million
rows of 128 dimensions: built in 107 seconds, the start of the workers included, 900 MB a worker at most, 496 MB on
disk; opened out of the system's cache in 2.0 seconds, the first question .95, later ones .089 seconds. At 6,000 rows
a question takes .0086 seconds, without a store .558. Of the gradients alone (64 inputs, one core): by ``vmap`` 20,000
a second, by the outer products of each layer's inputs and errors 56,000, while the projection goes through 12,000:
outer products would save a fifth.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import explain
from explain import Trak
from explain.influence import GradientStore, Shards
from tests.benchmarks.record import record
from tests.store_cases import content, killed

FEATURES, CLASSES = 128, 10
KILLS = 10


class Drawn(Dataset[Any]):
    """Rows of a file of float32 numbers, mapped where they are read; the class is that of the largest of the first."""

    found = ("_rows",)  # follows from the path

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = str(path), count
        self._rows: np.ndarray[Any, Any] | None = None
        if not path.exists():
            draws = np.random.default_rng(0)
            with open(path, "wb") as file:
                for start in range(0, count, 2**16):
                    draws.standard_normal((min(2**16, count - start), FEATURES), np.float32).tofile(file)

    def __len__(self) -> int:
        return self.count

    def __getitems__(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        if self._rows is None:
            self._rows = np.memmap(self.path, np.float32, "r", shape=(self.count, FEATURES))
        rows = torch.from_numpy(np.array(self._rows[list(positions)]))
        return rows, rows[:, :CLASSES].argmax(1)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_rows": None}


def loaded(data: Drawn) -> DataLoader[Any]:
    """As a training set whose batches are read as batches."""
    return DataLoader(data, batch_size=1024, collate_fn=as_it_is)


def as_it_is(batch: Any) -> Any:
    """The batch."""
    return batch


def network() -> nn.Module:
    """10,064 parameters, a little trained, so that gradients differ."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(FEATURES, 66), nn.GELU(), nn.Linear(66, 20), nn.GELU(), nn.Linear(20, CLASSES))
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(100):
        x = torch.randn(256, FEATURES)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), x[:, :CLASSES].argmax(1)).backward()
        optimizer.step()
    return net


@contextmanager
def cluster(workers: int) -> Iterator[Any]:
    """A client of so many processes of one thread; None for none."""
    if not workers:
        yield None
        return
    import distributed

    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=1, processes=True, dashboard_address=":0", silence_logs=50
        ) as made,
        distributed.Client(made) as client,
    ):
        yield client


def peak() -> float:
    """The most memory that this process has held so far, mapped pages included, MiB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) / 2**10


def forgotten(folder: Path) -> None:
    """Takes the files of a folder out of the system's cache."""
    for path in folder.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def built(data: Drawn, folder: Path, dimensions: int, workers: int) -> dict[str, Any]:
    """Builds a store, opens it again and asks it numbers; what each took."""
    model = explain.wrap(network(), task="classification")
    asked = [model.example(torch.randn(FEATURES, generator=seeded(k)), label=k % CLASSES) for k in range(12)]
    with cluster(workers) as client:
        trak = Trak(dimensions=dimensions, train=loaded(data), shards=Shards(folder, client=client), seed=0)
        began = time.process_time()
        seconds = {"build": timed(lambda: GradientStore(trak, asked[0]))}
        seconds["build, processor, here"] = time.process_time() - began
        if client:
            seconds["build, processor, workers"] = sum(client.run(time.process_time).values())
        memory = max(client.run(peak).values()) if client else peak()
    alone = Trak(dimensions=dimensions, train=loaded(data), shards=Shards(folder), seed=0, progress=False)
    forgotten(folder)
    seconds["open, cold"] = timed(lambda: GradientStore(alone, asked[0]))
    store: list[GradientStore] = []
    seconds["open, warm"] = timed(lambda: store.append(GradientStore(alone, asked[0])))
    each = [timed(lambda k=k: store[0].explain(asked[k])) for k in range(1, 12)]  # type: ignore[misc]
    seconds |= {"first question": each[0], "question": statistics.median(each[1:]), "slowest": max(each[1:])}
    size = sum(path.stat().st_size for path in folder.iterdir()) / 2**20
    return {
        "rows": len(data),
        "dimensions": dimensions,
        "workers": workers,
        "seconds": seconds,
        "running beside": os.getloadavg()[0],
        "peak MiB a worker": memory,
        "MiB on disk": size,
    }


def beside(data: Drawn, folder: Path, dimensions: int) -> dict[str, Any]:
    """The same number with and without a store."""
    model = explain.wrap(network(), task="classification")
    first, asked = (model.example(torch.randn(FEATURES, generator=seeded(k)), label=k) for k in (0, 1))
    settings: dict[str, Any] = {"dimensions": dimensions, "train": loaded(data), "seed": 0, "progress": False}
    store = GradientStore(Trak(**settings, shards=Shards(folder)), first)
    found: list[Tensor] = []
    seconds = {
        "store": timed(lambda: found.append(store.explain(asked).scores)),
        "Trak": timed(lambda: found.append(Trak(**settings).explain(asked).scores)),
    }
    gap = float((found[0] - found[1]).abs().max() / found[1].abs().max())
    return {"rows": len(data), "dimensions": dimensions, "seconds": seconds, "largest gap": gap}


def after_kills(data: Drawn, folder: Path, dimensions: int) -> dict[str, Any]:
    """Whether a store that was killed ten times holds the same bytes as one that was not."""
    model = explain.wrap(network(), task="classification")
    asked, size = model.example(torch.ones(FEATURES), label=0), 256

    def build(place: Path) -> None:
        trak = Trak(dimensions=dimensions, train=loaded(data), shards=Shards(place, size), seed=0, progress=False)
        GradientStore(trak, asked)

    build(folder / "whole")
    shards = -(-len(data) // size)
    alike = []
    for run in range(KILLS):
        place = folder / f"killed {run}"
        counts = killed(build, place, 1, shards, seed=run)
        alike.append({"files when killed": counts[0], "identical": content(place) == content(folder / "whole")})
    place = folder / "killed again and again"
    counts = killed(build, place, KILLS, shards)
    alike.append({"files when killed": counts, "identical": content(place) == content(folder / "whole")})
    return {"rows": len(data), "dimensions": dimensions, "kills": alike}


def alone(call: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """In a new process of one thread: a fork of one that has had several waits for them in vain."""
    with multiprocessing.get_context("spawn").Pool(1, torch.set_num_threads, (1,)) as pool:
        return pool.apply(call, given)


def said(row: dict[str, Any]) -> dict[str, Any]:
    """The row, printed."""
    print(row, flush=True)
    return row


def seeded(seed: int) -> torch.Generator:
    """A generator of its own."""
    return torch.Generator().manual_seed(seed)


def timed(call: Any) -> float:
    """Seconds by the clock."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def main() -> None:
    """Prints what was measured, and keeps it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="20,000 rows, nothing kept")
    given = parser.parse_args()
    count = 20_000 if given.quick else given.rows
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        small = Drawn(folder / "small.f32", 6_000)
        whole = Drawn(folder / "rows.f32", count)
        rows = [
            said(built(whole, folder / "store", given.dimensions, given.workers)),
            said(beside(small, folder / "beside", given.dimensions)),
            said(alone(after_kills, small, folder, given.dimensions)),
        ]
    if not given.quick:
        print(record("store", rows, vars(given)))


if __name__ == "__main__":
    main()
