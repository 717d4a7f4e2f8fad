"""A gradient store that is killed while it is built, again and again; what is left on disk, as one hash."""

import hashlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from torch import nn

import explain
from explain import Trak
from explain.influence import GradientStore, Shards

SIZE = 64


def model(count, features=16, outputs=3, hidden=8, dtype=torch.float32):
    """A wrapped network beside its training set, drawn from a seed."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, outputs)).to(dtype)
    x = torch.randn(count, features, generator=generator, dtype=dtype)
    return explain.wrap(net, (x, x[:, :outputs].argmax(1)), task="classification")


def opened(of, folder, client=None, size=SIZE, **settings):
    """The store of this model, made where it is not there."""
    trak = Trak(**{"dimensions": 12, "seed": 0, "progress": False, **settings}, shards=Shards(folder, size, client))
    return GradientStore(trak, of.example(torch.ones(of.train[0].size(1)).to(of.train[0]), label=0))


def content(folder):
    """SHA-256 over the names and bytes of all files, but of those that a killed process had not put in their place."""
    digest = hashlib.sha256()
    for path in sorted(Path(folder).iterdir()):
        if not path.name.startswith("."):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def killed(build, folder, times, shards, seed=0):
    """Builds in processes of their own, ``kill -9`` at a random moment for each but the last.

    How many files there were each time, of ``shards`` and one more.
    """
    draws, found = random.Random(seed), []
    for target in sorted(draws.sample(range(1, shards), times)):
        child = _forked(build, folder)
        while len(list(folder.glob("*.safetensors"))) < target:
            time.sleep(0.001)
        time.sleep(0.01 * draws.random())
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found.append(len(list(folder.glob("*.safetensors"))))
    child = _forked(build, folder)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return found


def _forked(build, folder):
    child = os.fork()
    if not child:
        code = 1
        try:
            build(folder)
            code = 0
        finally:
            os._exit(code)
    return child


if __name__ == "__main__":
    torch.set_num_threads(1)
    of, place, shards = model(24 * SIZE), Path(sys.argv[1]), 24
    opened(of, place / "whole")  # what is imported on the way need not be imported in every child
    counts = killed(lambda folder: opened(of, folder), place / "killed", 3, shards)
    print(json.dumps([counts, *(content(place / name) for name in ("whole", "killed"))]))
