"""What influence through a training costs, in trainings: seconds and peak memory, for one number and for many.

``python -m tests.benchmarks.training [sgd momentum adam] [--steps 100 10000] [--hidden 32] [--quick]`` trains a
network of 2,410 parameters, or of more hidden units, on 400 digits, batches of 100, in one thread, and prints for every
optimizer and number of steps the processor seconds of

- the training, as its user writes it, and recorded;
- the derivative of one number by all examples' weights: the training again, then backwards;
- the whole answer to one number, with the two trainings that its smoothness check takes;
- the whole answers to many numbers together, each;

in units of that training, with the megabytes that the peak of resident memory rises by. The aim is four trainings for
one number's derivative, and states that grow with the root of the number of steps once they are 64 MB: how many are
kept is printed too. `notebooks/pages/speed.md` has what was measured.
"""

from __future__ import annotations

import argparse
import gc
import os
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import explain
from explain.influence.through import Recording
from explain.influence.through.backwards import metagradient, replayed
from explain.types import Target
from tests.benchmarks.memory import peak, reset_peak
from tests.benchmarks.record import record

T = TypeVar("T")
SIZE, BATCH, DECAY = 400, 100, 1e-3
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda params: torch.optim.SGD(params, lr=0.03, weight_decay=DECAY),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.03, momentum=0.9, weight_decay=DECAY),
    "adam": lambda params: torch.optim.Adam(params, lr=1e-3, weight_decay=DECAY),
}


@dataclass(frozen=True)
class Cost:
    """Processor seconds, and the megabytes that the peak rose by."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Row:
    """One optimizer and number of steps: what each thing took. ``kept``: states held at once, beside ``every``-th."""

    optimizer: str
    steps: int
    numbers: int
    kept: int
    training: Cost
    recorded: Cost
    derivative: Cost
    one: Cost
    many: Cost

    def line(self) -> str:
        """As the table has it."""
        unit = self.training.seconds
        alone = [f"{cost.seconds / unit:.1f} ({cost.megabytes:.0f})" for cost in (self.derivative, self.one)]
        each = f"{self.many.seconds / unit / self.numbers:.2f} ({self.many.megabytes:.0f})"
        first = f"{self.optimizer:<10}{self.steps:>7}{unit:>12.2f}{self.recorded.seconds / unit:>10.1f}"
        return first + "".join(f"{cell:>18}" for cell in alone) + f"{each:>19}{self.kept:>8}"


HEAD = (
    f"{'optimizer':<10}{'steps':>7}{'training s':>12}{'recorded':>10}{'derivative (MB)':>18}{'one number (MB)':>18}"
    f"{'each of many (MB)':>19}{'states':>8}"
)


@cache
def data() -> tuple[Tensor, Tensor]:
    """All digits, pixels from 0 to 1."""
    found = load_digits()
    return torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)


def network(hidden: int = 32) -> nn.Module:
    """2,410 parameters with 32 units, the same each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))


def order(steps: int) -> list[Tensor]:
    """Positions of each step."""
    generator = torch.Generator().manual_seed(0)
    passes = (torch.randperm(SIZE, generator=generator).split(BATCH) for _ in range(0, steps, SIZE // BATCH))
    return [at for each in passes for at in each][:steps]


def trained(make: Callable[[Any], torch.optim.Optimizer], steps: int, hidden: int = 32) -> nn.Module:
    """As a user trains it."""
    (x, y), net = data(), network(hidden)
    optimizer = make(net.parameters())
    for at in order(steps):
        optimizer.zero_grad()
        F.cross_entropy(net(x[at]), y[at]).backward()
        optimizer.step()
    return net


def recorded(make: Callable[[Any], torch.optim.Optimizer], steps: int, hidden: int = 32) -> tuple[nn.Module, Recording]:
    """The same, recorded."""
    (x, y), net = data(), network(hidden)
    optimizer = make(net.parameters())
    with explain.recorded(optimizer, net) as run:
        for at in order(steps):
            optimizer.zero_grad()
            run.loss(at, lambda at: F.cross_entropy(net(x[at]), y[at], reduction="none")).backward()
            optimizer.step()
    return net, run


def targets(net: nn.Module, count: int) -> list[Target]:
    """The log-probabilities of held-out digits' own classes."""
    x, y = data()
    model = explain.wrap(net, task="classification", train=(x[:SIZE], y[:SIZE]), weight_decay=DECAY)
    asked = range(SIZE, SIZE + count)
    return [model.example(x[i], label=int(y[i]), payoff="log_probability") for i in asked]


def derivative(run: Recording, target: Target) -> Tensor:
    """Of one number by every example's weight, ``[n]``: nothing but the training again and the way back."""
    objective = target.objective()
    course = run.course(objective)
    replay = replayed(course, *run.ended(objective))
    by_end = torch.autograd.functional.vjp(  # the number at the end by the parameters there
        lambda theta: objective.measurement(course.params(theta)), replay.end
    )[1]
    return metagradient(course, replay, by_end[None]).spans.sum(1)[0]


def cost(call: Callable[[], T], times: int = 1) -> tuple[Cost, T]:
    """Processor seconds, the least of several, and the rise of the peak."""
    seconds, megabytes = float("inf"), 0.0
    for _ in range(times):
        gc.collect()
        before, started = reset_peak(), time.process_time()
        found = call()
        seconds, megabytes = min(seconds, time.process_time() - started), max(megabytes, peak() - before)
    return Cost(seconds, megabytes), found


def measured(optimizer: str, steps: int, numbers: int, hidden: int = 32) -> Row:
    """Everything of one optimizer, after a few steps that set operations up."""
    make, times = OPTIMIZERS[optimizer], 3 if steps <= 1000 else 1
    net, run = recorded(make, 3, hidden)
    explain.Influence(through=run, seed=0).explain_all(targets(net, 2))
    training, _ = cost(lambda: trained(make, steps, hidden), times)
    recording, (net, run) = cost(lambda: recorded(make, steps, hidden), times)
    few = targets(net, numbers)
    engine = explain.Influence(through=run, seed=0, progress=False)
    alone, found = cost(lambda: derivative(run, few[0]), times)
    one, why = cost(lambda: engine.explain(few[0]), times)
    assert torch.allclose(found, why.scores, rtol=1e-3, atol=1e-3 * float(why.scores.abs().max()))
    many, _ = cost(lambda: engine.explain_all(few), times)
    return Row(optimizer, steps, numbers, why.checks["states_kept"], training, recording, alone, one, many)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("optimizers", nargs="*", default=list(OPTIMIZERS), help=f"of {', '.join(OPTIMIZERS)}")
    parser.add_argument("--steps", type=int, nargs="+", default=[100, 10_000])
    parser.add_argument("--numbers", type=int, default=20, help="asked about together")
    parser.add_argument("--hidden", type=int, default=32, help="units")
    parser.add_argument("--quick", action="store_true", help="20 and 100 steps, 5 numbers")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    steps, numbers = ([20, 100], 5) if given.quick else (given.steps, given.numbers)
    print(f"in units of the training, {numbers} numbers together\n{HEAD}")
    rows = []
    for optimizer in given.optimizers:
        for count in steps:
            rows.append(measured(optimizer, count, numbers, given.hidden))
            print(rows[-1].line(), flush=True)
    name = f"training{'-quick' * given.quick}{f'-{given.hidden}-hidden' * (given.hidden != 32)}"
    record(name, [asdict(row) for row in rows], {"steps": steps, "numbers": numbers, "hidden": given.hidden})


if __name__ == "__main__":
    main()
