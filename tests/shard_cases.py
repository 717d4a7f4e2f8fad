"""A training set that is generated as it is read, a small cluster, and a process that dies at work."""

import json
import os
import resource
import signal
import sys
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

import explain
from explain import examples
from explain.influence import ConjugateGradient, Influence, Shards, Trak, curvature, example_gradients
from explain.influence.solvers import principal
from explain.parallel import store
from explain.supervised import objective

FEATURES = 16384  # 64 KiB an example
SIZE = 16


class Generated(Dataset):
    """``count`` rows that no memory holds; ``reads`` counts those that were made, ``shift`` changes one of them."""

    def __init__(self, count, features=FEATURES, shift=None):
        self.count, self.shift, self.reads = count, shift, 0
        self.base = torch.linspace(-1, 1, features)

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        self.reads += 1
        x = self.base.roll(37 * i) * (1 + i % 5) + (1e-4 if i == self.shift else 0)
        return x, i % 2


def asked(features=FEATURES):
    torch.manual_seed(0)
    net = nn.Linear(features, 2)
    nn.init.normal_(net.weight, std=0.1 / features**0.5)
    return explain.wrap(net, task="classification", weight_decay=0.1).example(torch.ones(features), label=1)


def influence(data, folder=None, client=None, **settings):
    """A few steps on a Gauss-Newton matrix: what is tested is where things are kept, not how exact they are."""
    shards = None if folder is None else Shards(folder, SIZE, client)
    solver = ConjugateGradient(max_iterations=3)
    return Influence(train=data, solver=solver, curvature="ggn", damping=5.0, shards=shards, seed=0, **settings)


def projected(data, folder):
    """As above, kept to be asked other numbers."""
    return Trak(dimensions=8, train=data, shards=Shards(folder, SIZE), seed=0)


def bounded(monkey=setattr):
    """Every bound of memory, which are of hundreds of megabytes, brought down to what a test can exceed."""
    monkey(examples, "HELD", 2**20)
    monkey(examples, "READ", 2**20)
    monkey(objective, "READ", 2**20)
    monkey(curvature, "MEMORY", 2**20)
    monkey(example_gradients, "MEMORY", 2**22)
    monkey(principal, "MEMORY", 2**22)


@contextmanager
def in_threads(workers=1, threads=1):
    """A client of a cluster within this process: quick to start, and to close."""
    import pytest

    distributed = pytest.importorskip("distributed", reason="needs the extra 'cluster'")
    with (
        distributed.LocalCluster(
            n_workers=workers, threads_per_worker=threads, processes=False, dashboard_address=":0", silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def peak():
    """The most memory that this process has held so far, MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would be that of the process which started this one
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def dies_at(number):
    """``kill -9`` with half of this file written, in place of an atomic write."""
    real, written = store.write_atomically, []

    def half(path, data):
        written.append(path)
        if len(written) == number:
            (path.parent / ".half.tmp").write_bytes(data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        real(path, data)

    store.write_atomically = half


if __name__ == "__main__":
    import warnings

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # a model that was never trained, a solver that was stopped
    target, folder = asked(), sys.argv[1]
    bounded()
    found = []
    for count in (100, 500):
        influence(Generated(count), f"{folder}/memory{count}").explain(target)
        found.append(peak())
    examples.HELD = 2**28
    influence(Generated(500)).explain(target)
    print(json.dumps([*found, peak()]), flush=True)
    bounded()
    child = os.fork()
    if not child:
        dies_at(5)  # manifest, three shards, and half of the fourth
        projected(Generated(100), f"{folder}/projected").explain(target)
    os.waitpid(child, 0)
    dies_at(6)  # one more: the solution
    influence(Generated(100), f"{folder}/killed").explain(target)
