"""One function over many tasks: here, or on a Dask client, which may lose workers but no work."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from explain.parallel.store import Store
from explain.progress import in_sight
from explain.threads import alone, released

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T")
R = TypeVar("R")
PATIENCE = 300.0  # seconds that a cluster may be without any worker
ANSWER = 60.0  # seconds in which its scheduler answers
LOOK = 5.0  # seconds between two looks at it while nothing finishes
AHEAD = 3  # tasks a thread that wait on the cluster: none stands idle, and no results pile up here


class ClusterLost(RuntimeError):
    """The cluster is gone, or a task takes its workers with it; finished tasks are kept where there is a store."""


def run(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    store: Store[R] | None = None,
    client: Client | None = None,
    progress: bool = True,
    description: str = "shards",
) -> list[R]:
    """``[function(task) for task in tasks]``, without those that the store already has.

    Each result is written as soon as it is there, by this process: workers need no common disk. An interrupt or an
    exception ends the run and cancels what the cluster has not begun; the same call goes on from there. Of a worker
    that dies, its tasks are given to the others.

    Args:
        function: pure; with a client it is pickled once (closures too), and its results are sent back.
        tasks: what it is called with; with a client small.
        store: where finished results are kept; ``tasks`` must follow from its key.
        client: a ``distributed.Client`` of workers with one thread each, since those of one wait for one another (torch
            brings its own); in this process if None.
        progress: a bar with the time left, where it takes more than five seconds.
        description: of the bar.

    Raises:
        ClusterLost: the cluster closed, stood without a worker for five minutes, or lost several to one task.
        OSError: the disk is full.
        TypeError: ``client`` is no Dask client, or the function cannot be pickled for one.

    >>> run(lambda task: task**2, [1, 2, 3])
    [1, 4, 9]
    """
    found = stream(function, tasks, store=store, client=client, progress=progress, description=description)
    with closing(found):
        results = dict(found)
    return [results[number] for number in range(len(tasks))]


def stream(
    function: Callable[[T], R],
    tasks: Sequence[T],
    *,
    store: Store[R] | None = None,
    client: Client | None = None,
    progress: bool = True,
    description: str = "shards",
) -> Generator[tuple[int, R], None, None]:
    """The numbers and results of `run`, one at a time: first what the store has, then the others as they finish.

    >>> list(stream(lambda task: task**2, [3, 4]))
    [(0, 9), (1, 16)]
    """
    missing = []
    for number in range(len(tasks)):
        known = None if store is None else store.read(number)
        if known is None:
            missing.append(number)
        else:
            yield number, known
    if client is None:
        answers: Generator[tuple[int, R], None, None] = ((number, function(tasks[number])) for number in missing)
    else:
        answers = _on_cluster(client, function, tasks, missing)
    done = len(tasks) - len(missing)
    with (
        closing(answers),
        in_sight(total=len(tasks), initial=done, desc=description, progress=progress) as bar,
    ):
        for number, result in answers:
            if store is not None:
                store.write(number, result)
            bar.update()
            yield number, result


class Given(Generic[T, R]):
    """A function that a cluster was given once and that is called again and again, within ``with``.

    Args:
        client: a ``distributed.Client``.
        function: pure; pickled once, sent to the workers that call it.

    Raises:
        TypeError: the client is none, or the function cannot be pickled.
        ClusterLost: the cluster is gone, or a task takes its workers with it.
    """

    def __init__(self, client: Client, function: Callable[[T], R]) -> None:
        if not callable(getattr(client, "submit", None)) or not hasattr(client, "nthreads"):
            raise TypeError(f"client must be a distributed.Client or None, got {type(client).__name__}")
        self.client, self._sent = client, _pickled(function)
        self._function: Future[Callable[[T], R]] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._function is not None:
            self._function.release()  # asks nothing of the scheduler, which may be gone

    def _there(self) -> Future[Callable[[T], R]]:
        """The function on a worker, from which others have it."""
        if self._function is None:
            with warnings.catch_warnings():  # of models of some size; sent once, and a scattered one could be lost:
                warnings.filterwarnings("ignore", "Sending large graph")
                # a task's result is made again when the workers that hold it have died
                self._function = self.client.submit(pickle.loads, self._sent, pure=False)
        return self._function

    def finished(self, tasks: Sequence[T], numbers: Sequence[int]) -> Generator[tuple[int, R], None, None]:
        """Of the tasks at these ``numbers``, numbers and results in the order in which they finish."""
        ahead = iter(numbers)
        waiting: dict[Future[R], int] = {}
        with _Watch(self.client, len(numbers)) as watch:
            function = self._there()
            try:
                while True:
                    for number in ahead:
                        waiting[self.client.submit(_call, function, tasks[number], pure=False)] = number
                        if len(waiting) >= AHEAD * watch.threads:
                            break
                    if not waiting:
                        return
                    with released():
                        finished = watch.finished(list(waiting))
                    for future in finished:
                        number = waiting.pop(future)
                        with released():
                            result = watch.result(future)
                        watch.done += 1
                        yield number, result
            finally:
                for future in waiting:
                    future.release()

    def results(self, tasks: Sequence[T]) -> list[R]:
        """Of all tasks, in their order."""
        with closing(self.finished(tasks, range(len(tasks)))) as finished:
            found = dict(finished)
        return [found[number] for number in range(len(tasks))]


def _on_cluster(
    client: Client, function: Callable[[T], R], tasks: Sequence[T], missing: Sequence[int]
) -> Generator[tuple[int, R], None, None]:
    """Numbers and results in the order in which they finish."""
    if missing:
        with Given(client, function) as there, closing(there.finished(tasks, missing)) as finished:
            yield from finished


def _pickled(function: Callable[[T], R]) -> bytes:
    from distributed.protocol.pickle import dumps

    try:
        return dumps(function)
    except Exception as error:  # whatever an object raises
        raise TypeError(
            f"a cluster gets the model, the data and every function (payoff, loss, call) by pickle, which fails here: "
            f"{error}. Open files, locks, connections and generators must be made inside the function that uses them; "
            "or leave client out, to go on in this process"
        ) from error


def _call(function: Callable[[T], R], task: T) -> R:
    with alone():  # threads of one worker share the function, and with it the model
        return function(task)


class _Watch:
    """Turns what a dying cluster does to its client into one clear error."""

    def __init__(self, client: Client, total: int) -> None:
        self.client, self.total, self.done = client, total, 0
        self.threads = 1
        self.seen = time.monotonic()

    def __enter__(self) -> Self:
        self._look()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        from distributed import KilledWorker

        if isinstance(error, KilledWorker):
            raise ClusterLost(
                f"a task took {error.allowed_failures + 1} workers with it, probably for want of memory: use smaller "
                f"shards or a smaller batch. {self._kept()}"
            ) from error
        if isinstance(error, Exception) and (self.client.status != "running" or isinstance(error, CancelledError)):
            raise self._gone() from error

    def finished(self, futures: list[Future[R]]) -> list[Future[R]]:
        """Those that have finished, at least one."""
        from distributed import wait

        while True:
            with suppress(TimeoutError):
                return list(wait(futures, timeout=LOOK, return_when="FIRST_COMPLETED").done)
            self._look()

    def result(self, future: Future[R]) -> R:
        """What it gave, fetched from its worker, which may be gone meanwhile: then it is made again.

        Raises:
            TimeoutError: the task itself ran out of a time of its own.
        """
        while True:
            try:
                return future.result(timeout=LOOK)
            except TimeoutError:
                if future.status == "error":  # the task's own
                    raise
            self._look()

    def _look(self) -> None:
        scheduler = self.client.scheduler
        if self.client.status != "running" or scheduler is None:
            raise self._gone()
        try:
            threads = sum(self.client.sync(scheduler.ncores, callback_timeout=ANSWER).values())
        except (OSError, TimeoutError) as error:
            raise self._gone() from error
        if threads:
            self.threads, self.seen = threads, time.monotonic()
        elif time.monotonic() - self.seen > PATIENCE:
            raise ClusterLost(f"the Dask cluster has had no worker for {PATIENCE:.0f} s. {self._kept()}")

    def _gone(self) -> ClusterLost:
        return ClusterLost(f"the Dask cluster is gone (its client is {self.client.status}). {self._kept()}")

    def _kept(self) -> str:
        return (
            f"{self.done} of {self.total} tasks were finished and are kept where they are written to a folder: call "
            "again with a living client, or with client=None to go on in this process"
        )
