"""How long influence scores take to a given accuracy, beside other libraries, in one process.

``python -m tests.benchmarks.influence [--problem logistic] [--quick]`` prints, for each problem, the processor seconds
and the peak memory that every method takes to 10, 2 and 0.5 % relative error of the whole score matrix ``[n, q]``
against the exact solution, and how many times ours that is: LiSSA beside our LiSSA, the rest beside our fastest. Of a
method with settings the fastest of those tried counts; one that takes longer than the cap is stopped and listed as
slower than that. Scores of peers may differ by a factor: the one that fits best is taken out. All runs are kept with
what they were measured on, see ``record.py``. Libraries that are not installed are left out. captum is there, dattri
comes with the extra ``bench``; pyDVL asks for numpy<2 and kronfluence for a torchvision built for CUDA, though neither
needs it::

    pip install --no-deps pyDVL more-itertools zarr donfig google-crc32c numcodecs pyDeprecate
    pip install --no-deps kronfluence accelerate einops einconv opt-einsum

Put them into an environment of their own.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from itertools import zip_longest

import torch
from torch import Tensor

from explain.influence import ConjugateGradient, Influence, Lissa
from explain.influence.scores import training_gradient
from explain.influence.solvers.choice import CURVATURES
from explain.influence.solvers.solution import Solver
from tests.benchmarks.influence_peers import peers
from tests.benchmarks.influence_problems import PROBLEMS, Problem
from tests.benchmarks.memory import peak, reset_peak
from tests.benchmarks.record import record

ACCURACIES = (0.1, 0.02, 0.005)
CAP = 60.0  # processor seconds of one setting
TRIED = (0.3, 0.1, 0.03, 0.01)  # tolerances of ours


@dataclass(frozen=True)
class Run:
    """One method with one setting: what it took and how far off it was."""

    method: str
    setting: str
    seconds: float
    megabytes: float
    error: float


class Stopped(BaseException):
    """The cap is over: no library's own handling of errors may catch it."""


@contextmanager
def capped(seconds: float) -> Iterator[None]:
    """Raises `Stopped` after so many processor seconds."""

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def ours(problem: Problem, solver: str | Solver) -> Tensor:
    """Scores ``[n, q]`` of all questions, from the targets as a user has them."""
    engine = Influence(problem.train, solver=solver, curvature=problem.curvature, damping=problem.damping, seed=0)
    return torch.stack([found.scores for found in engine.explain_all(problem.targets)], 1)


def by_default(problem: Problem, solver: str) -> Tensor:
    """Scores ``[n, q]`` with curvature and damping as they are found where nothing is said."""
    found = Influence(problem.train, solver=solver, seed=0).explain_all(problem.targets)
    return torch.stack([each.scores for each in found], 1)


def methods(problem: Problem) -> dict[str, Callable[[Problem], Tensor]]:
    """Ours, by method and setting."""
    found: dict[str, Callable[[Problem], Tensor]] = {"explain auto": partial(ours, solver="auto")}
    if problem.name == "UNet":
        return found | {f"explain {name}": partial(by_default, solver=name) for name in ("kfac", "ekfac")}
    if problem.name.startswith("logistic"):
        found["explain exact"] = partial(ours, solver="exact")
    for tolerance in TRIED:
        found[f"explain block CG {tolerance:g}"] = partial(ours, solver=ConjugateGradient(tolerance))
        found[f"explain LiSSA {tolerance:g}"] = partial(ours, solver=Lissa(tolerance=tolerance))
    return found


def measured(
    name: str, run: Callable[[Problem], Tensor], problem: Problem, exact: Tensor, cap: float = CAP, times: int = 3
) -> Run | None:
    """What one setting takes, the best of three if it is quick; None where it fails or is not installed."""
    method, setting = _split(name)
    seconds, most, scores = [], 0.0, exact
    for _ in range(times):
        gc.collect()
        before, started = reset_peak(), time.process_time()
        try:
            with capped(cap):
                scores = run(problem)
        except Stopped:
            print(f"  {name}: stopped after {cap:.0f} s", flush=True)
            return Run(method, setting, cap, peak() - before, float("inf"))
        except ImportError as error:
            print(f"  {name}: not installed ({error})")
            return None
        except Exception as error:  # a benchmark reports what a peer cannot do and goes on
            print(f"  {name}: {type(error).__name__}: {str(error)[:100]}")
            return None
        seconds.append(time.process_time() - started)
        most = max(most, peak() - before)
        if seconds[0] > 2:
            break
    return Run(method, setting, min(seconds), most, _error(scores.double(), exact))


def table(problem: Problem, runs: list[Run]) -> str:
    """Processor seconds and peak megabytes to each accuracy, one line a method, the quickest to 2 % first."""
    lines = [
        f"\n{problem.name}: {problem.curvature}, ridge {problem.ridge:g}, {len(problem.labels)} training examples, "
    ]
    lines[0] += f"{len(problem.targets)} questions. Processor seconds (peak MB) [setting] to a relative error of"
    lines.append(f"{'method':<24}" + "".join(f"{f'{100 * a:g} %':>31}" for a in ACCURACIES) + f"{'best error':>14}")
    order = sorted({r.method for r in runs}, key=lambda m: _seconds(_best(runs, m, 0.02)))
    for method in order:
        cells = [_cell(runs, method, accuracy) for accuracy in ACCURACIES]
        closest = min((r for r in runs if r.method == method), key=lambda r: r.error)
        lines.append(
            f"{method:<24}" + "".join(f"{c:>31}" for c in cells) + f"{closest.error:>9.2g} ({closest.seconds:.1f} s)"
        )
    return "\n".join(lines)


def products(problem: Problem) -> str:
    """What one Hessian-vector product costs, in gradients of the training loss."""
    objective = problem.targets[0].objective(problem.train)
    gradient = _least(lambda: training_gradient(objective))
    found = []
    for name, kind in CURVATURES.items():
        A = kind(objective)
        one, block = torch.ones(A.size), torch.randn(A.size, 32, generator=torch.Generator().manual_seed(0))
        single, together = _least(lambda A=A, v=one: A @ v), _least(lambda A=A, v=block: A @ v) / 32
        found.append(f"{name} {single / gradient:.2f} alone, {together / gradient:.2f} in a block of 32")
    return f"one product in gradients ({1e3 * gradient:.1f} ms): " + "; ".join(found)


def benchmark(name: str, with_peers: bool = True, quick: bool = False, cap: float = CAP) -> tuple[Problem, list[Run]]:
    """Every method on one problem; quick: with a tenth of the questions and one run each."""
    problem = PROBLEMS[name](questions=5 if quick else 50)
    tight = {"logistic": "exact", "unet": ConjugateGradient(1e-2)}.get(name, ConjugateGradient(1e-5))
    exact = ours(problem, tight).double()
    runs = methods(problem) | (peers(problem) if with_peers and name != "unet" else {})
    found = []
    for method, run in _alternating(runs):
        one = measured(method, run, problem, exact, cap, 1 if quick else 3)
        if one is not None:
            print(f"  {method}: {one.seconds:.2f} s, {one.megabytes:.0f} MB, error {one.error:.3g}", flush=True)
            found.append(one)
    return problem, found


def _error(scores: Tensor, exact: Tensor) -> float:
    if not scores.isfinite().all():
        return float("inf")
    factor = (scores * exact).sum() / scores.square().sum()
    return float((factor * scores - exact).norm() / exact.norm())


def _best(runs: list[Run], method: str, accuracy: float) -> Run | None:
    enough = [r for r in runs if r.method == method and r.error <= accuracy]
    return min(enough, key=lambda r: r.seconds, default=None)


def _alternating(runs: dict[str, Callable[[Problem], Tensor]]) -> list[tuple[str, Callable[[Problem], Tensor]]]:
    """Ours and theirs by turns: other work on the machine comes and goes."""
    own = [pair for pair in runs.items() if pair[0].startswith("explain")]
    others = [pair for pair in runs.items() if not pair[0].startswith("explain")]
    both = [pair for two in zip_longest(own, others) for pair in two]
    return [pair for pair in both if pair is not None]


def _reference(runs: list[Run], method: str, accuracy: float) -> float:
    """What ours takes: LiSSA beside LiSSA, the fastest beside all others."""
    own = {run.method for run in runs if run.method.startswith("explain")}
    compared = {name for name in own if "LiSSA" in name} if "LiSSA" in method else own
    return min((_seconds(_best(runs, name, accuracy)) for name in compared), default=float("inf"))


def _seconds(run: Run | None) -> float:
    return float("inf") if run is None else run.seconds


def _cell(runs: list[Run], method: str, accuracy: float) -> str:
    best, own = _best(runs, method, accuracy), _reference(runs, method, accuracy)
    if best is not None:
        times = f" {best.seconds / own:.1f}x" if 0 < own < float("inf") else ""
        return f"{best.seconds:.2f}{times} ({best.megabytes:.0f}) [{best.setting}]"
    longest = max(run.seconds for run in runs if run.method == method)
    return f"> {longest / own:.0f}x ({longest:.0f} s)" if 0 < own < longest else "not reached"


def _split(name: str) -> tuple[str, str]:
    words = name.split()
    digits = next((k for k, word in enumerate(words) if word[0].isdigit()), len(words))
    return " ".join(words[:digits]), " ".join(words[digits:])


def _least(call: Callable[[], object], times: int = 5, ticks: float = 0.02) -> float:
    """Processor seconds of one call, the least of several; each is repeated until the clock can tell."""
    call()
    found = []
    for _ in range(times):
        started, calls = time.process_time(), 0
        while (took := time.process_time() - started) < ticks:
            call()
            calls += 1
        found.append(took / calls)
    return min(found)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("problems", nargs="*", default=list(PROBLEMS), help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--problem", action="append", choices=list(PROBLEMS), help="the same, one by one")
    parser.add_argument("--alone", action="store_true", help="without peers")
    parser.add_argument("--quick", action="store_true", help="five questions, one run of each method")
    parser.add_argument("--cap", type=float, default=CAP, help="processor seconds of one method at most")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    os.environ["TQDM_DISABLE"] = "1"
    logging.disable(logging.WARNING)
    for name in arguments.problem or arguments.problems:
        problem, runs = benchmark(name, not arguments.alone, arguments.quick, arguments.cap)
        print(table(problem, runs))
        print(products(problem))
        settings = {"questions": len(problem.targets), "quick": arguments.quick, "cap": arguments.cap}
        record(f"influence-{name}{'-quick' * arguments.quick}", [asdict(run) for run in runs], settings)


if __name__ == "__main__":
    main()
