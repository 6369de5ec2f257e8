"""Where tasks run: in this process, in others of this machine, or on a Dask or Ray cluster.

One seam for the whole application. `joblib.Parallel` is not it, although loky comes with joblib: its backend
for Ray gives nothing before everything is done, and that for Dask waits for ever for a task whose worker was
killed. All four kinds of engine here give futures, so that what is done counts, whatever happens to the rest.
"""

from __future__ import annotations

import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Literal, Self

from forecaster.errors import (
    DataError,
    ForecasterError,
    JobError,
    NotFittedError,
    ParameterError,
    SourceError,
    TrackingError,
)
from forecaster.threads import limit_threads

__all__ = ["Engine", "Failure", "Task"]

Kind = Literal["loky", "threading", "dask", "ray"]

ATTEMPTS = 3
"""How often a task is started whose worker dies or that fails for a reason outside of the rules."""
AHEAD = 2
"""Tasks that wait for each worker, so that none is idle and little is lost when one dies."""
LIVELY = 0.5
"""Seconds between two looks at whether the user wants to stop; waiting itself costs nothing."""
CONNECT = 10.0
"""Seconds to find a cluster and one worker of it."""


@dataclass(frozen=True)
class Task:
    """One piece of work, which should take seconds.

    Parameters
    ----------
    name : str
        What a failure calls it.
    function : callable
        A function of a module, so that other processes can import it.
    arguments : tuple
        What it is given; small: places and versions of data, not the data.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Failure:
    """A task that could not be done, on any worker.

    Parameters
    ----------
    name : str
        Of the task.
    reason : str
        What happened at its last attempt, in one line.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class _Done:
    """What a task gave, in a form that travels: an exception may not."""

    value: Any = None
    broken_rule: ForecasterError | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()
    place: str = ""
    """Which worker or machine of a cluster did it."""


_RULES = (SourceError, DataError, JobError, ParameterError, NotFittedError, TrackingError)


def _in_one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _portable(error: ForecasterError) -> ForecasterError:
    """Make an error that other processes can read: some of ours take more than a text."""
    for kind in _RULES:
        if isinstance(error, kind):
            return kind(str(error))
    return ForecasterError(str(error))


def _perform(function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Done:
    """Do a task, and turn whatever happens into something to send back."""
    try:
        return _Done(function(*arguments))
    except ForecasterError as error:
        return _Done(broken_rule=_portable(error))
    except Exception as error:  # one task must not end the others
        return _Done(reason=_in_one_line(error))


def _perform_away(threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Done:
    """Do a task in a process of its own, with the threads of the job, and bring its warnings home."""
    limit_threads(threads)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        done = _perform(function, arguments)
    texts = dict.fromkeys(str(each.message) for each in said if each.category is UserWarning)
    return replace(done, warnings=tuple(texts))


def _perform_on_dask(threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Done:
    from distributed import get_worker

    return replace(_perform_away(threads, function, arguments), place=get_worker().address)


def _perform_on_ray(threads: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> _Done:
    import ray

    return replace(_perform_away(threads, function, arguments), place=ray.get_runtime_context().get_node_id())


def _begin_worker(threads: int) -> None:
    from joblib.externals.loky import process_executor

    # Ctrl-C on a terminal reaches every process of it: the one that started the others ends them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit_threads(threads)
    # A worker that grows by 300 MB after its first task would be replaced as leaking: TensorFlow takes twice
    # that, and seconds to load again. loky has no setting for it.
    process_executor._USE_PSUTIL = False


class Engine:
    """Runs tasks; use it in a ``with`` block, which leaves no process behind.

    Parameters
    ----------
    kind : {"loky", "threading", "dask", "ray"}
        Processes or threads of this machine, or a cluster.
    workers : int
        Tasks at once, at least 1. One of ``loky`` or ``threading`` is this process itself. A cluster has its
        own workers; this many tasks a worker's core are kept going there at most.
    address : str, optional
        Of the cluster: ``tcp://host:8786`` of a Dask scheduler, ``host:6379`` or ``auto`` of Ray.
    threads : int
        Threads of TensorFlow, OpenMP and BLAS in each worker.

    Raises
    ------
    JobError
        When a cluster's library is not installed, or no address is given for it, or one where none belongs.

    Notes
    -----
    The result of a task must depend on its arguments alone: then the bits do not depend on the engine.
    """

    def __init__(
        self, kind: Kind = "loky", workers: int = 1, address: str | None = None, threads: int = 1
    ) -> None:
        if workers < 1:
            raise ParameterError(f"an engine has at least one worker. Received: {workers}")
        local = kind in ("loky", "threading")
        if local and address is not None:
            raise JobError(
                f"an address belongs to a cluster (dask, ray); {kind} runs here. Received: {address}"
            )
        if not local and address is None:
            raise JobError(f"the engine {kind} needs the address of its cluster. Received: none")
        if not local and find_spec({"dask": "distributed"}.get(kind, kind)) is None:
            raise JobError(
                f"the engine {kind} needs its library. Received: none; install forecaster[cluster]"
            )
        self.kind, self.workers, self.address, self.threads = kind, workers, address, threads
        self._pool: _Pool | None = None

    @property
    def inline(self) -> bool:
        """Whether tasks run in this process, one after the other."""
        return self.kind in ("loky", "threading") and self.workers == 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close(at_once=error is not None)

    def _close(self, *, at_once: bool) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(at_once)

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        """Do tasks, and give what each gave as soon as it is there.

        A task whose worker dies, or that fails by anything but a broken rule, is started again, on a worker
        of Dask and a machine of Ray where it has not failed as long as there is one, and at last given as a
        `Failure`; the others go on. When the caller stops early, is interrupted or an error is raised,
        nothing goes on.

        Parameters
        ----------
        tasks : sequence of Task

        Yields
        ------
        position : int
            Of the task, in the order in which they end; of one worker, in their own order.
        result : object
            What its function returned, or a `Failure`.

        Raises
        ------
        ForecasterError
            The first one that a task raises: a rule that is broken here is broken everywhere.
        JobError
            If the cluster cannot be reached.
        """
        if self.inline:
            for position, task in enumerate(tasks):
                yield position, self._alone(task)
            return
        finished = False
        try:
            yield from self._spread(tasks)
            finished = True
        finally:
            if not finished:
                self._close(at_once=True)

    @staticmethod
    def _alone(task: Task) -> Any:
        reason = ""
        for _ in range(ATTEMPTS):
            done = _perform(task.function, task.arguments)
            if done.broken_rule is not None:
                raise done.broken_rule
            if not done.reason:
                return done.value
            reason = done.reason
        return Failure(task.name, reason)

    def _spread(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Any]]:
        waiting = list(range(len(tasks)))[::-1]
        failed = [0] * len(tasks)
        failed_at: list[set[str]] = [set() for _ in tasks]
        running: dict[Future[_Done], tuple[int, _Pool]] = {}
        while waiting or running:
            pool = self._pool = self._pool or _POOLS[self.kind](self)
            # After a worker died, what was going on in it is done one by one: who kills workers is found.
            alone = bool(waiting) and failed[waiting[-1]] > 1
            most = 1 if alone else AHEAD * pool.size
            while waiting and len(running) < most and (alone or failed[waiting[-1]] < 2):
                position = waiting.pop()
                try:
                    future = pool.submit(tasks[position], failed_at[position])
                except BrokenExecutor:
                    waiting.append(position)
                    self._close(at_once=True)
                    break
                running[future] = position, pool
                if alone:
                    break
            done, _ = wait(running, LIVELY, FIRST_COMPLETED)
            for future in done:
                position, of = running.pop(future)
                task = tasks[position]
                try:
                    result = future.result()
                except Exception as error:  # of the engine: a worker is gone
                    result = _Done(reason=f"its worker was lost ({_in_one_line(error)})")
                    if isinstance(error, BrokenExecutor) and of is self._pool:
                        # All that ran in the pool is lost, and who broke it cannot be told.
                        self._close(at_once=True)
                for text in result.warnings:
                    warnings.warn(text, stacklevel=2)
                if result.broken_rule is not None:
                    raise result.broken_rule
                if not result.reason:
                    yield position, result.value
                    continue
                failed[position] += 1
                failed_at[position] |= {result.place} - {""}
                if failed[position] == ATTEMPTS:
                    yield position, Failure(task.name, result.reason)
                else:
                    # Behind those that have not failed: the last in line is the next to start.
                    waiting.insert(0, position)


# ------------------------------------------------------------------------------------------------- pools


class _Pool:
    """Where futures come from."""

    size: int

    def submit(self, task: Task, avoid: Set[str]) -> Future[_Done]:
        """Start a task, elsewhere than at the places to avoid if there is an elsewhere."""
        raise NotImplementedError

    def close(self, at_once: bool) -> None:
        raise NotImplementedError


class _Processes(_Pool):
    def __init__(self, engine: Engine) -> None:
        from joblib.externals.loky import ProcessPoolExecutor

        self.size, self._threads = engine.workers, engine.threads
        # Not the reusable one of joblib: it outlives this block, and is broken or resized by others.
        self._executor = ProcessPoolExecutor(
            engine.workers, initializer=_begin_worker, initargs=(engine.threads,), timeout=None
        )

    def submit(self, task: Task, avoid: Set[str]) -> Future[_Done]:
        future: Future[_Done] = self._executor.submit(
            _perform_away, self._threads, task.function, task.arguments
        )
        return future

    def close(self, at_once: bool) -> None:
        self._executor.shutdown(wait=True, kill_workers=at_once)


class _Threads(_Pool):
    def __init__(self, engine: Engine) -> None:
        self.size = engine.workers
        self._executor = ThreadPoolExecutor(engine.workers, thread_name_prefix="forecaster")

    def submit(self, task: Task, avoid: Set[str]) -> Future[_Done]:
        return self._executor.submit(_perform, task.function, task.arguments)

    def close(self, at_once: bool) -> None:
        # A thread cannot be stopped: what runs is waited for, seconds, and what waits is not begun.
        self._executor.shutdown(wait=True, cancel_futures=at_once)


class _Dask(_Pool):
    def __init__(self, engine: Engine) -> None:
        from distributed import Client

        self._threads, what, address = engine.threads, "a Dask scheduler with a worker", str(engine.address)
        _knock(what, address)
        try:
            self._client = Client(address, timeout=CONNECT, set_as_default=False)
            self._client.wait_for_workers(1, timeout=CONNECT)
        except (OSError, TimeoutError, ValueError) as error:
            raise _unreachable(what, address, error) from None
        self.size = engine.workers * max(sum(self._client.nthreads().values()), 1)
        # The same task of two jobs is not the same: what it reads from disk may differ.
        self._executor = self._client.get_executor(pure=False)

    def submit(self, task: Task, avoid: Set[str]) -> Future[_Done]:
        others = [worker for worker in self._client.nthreads() if worker not in avoid] if avoid else []
        # Others may have it all the same when these are gone, or it would wait for ever.
        where = {"workers": others, "allow_other_workers": True} if others else {}
        future: Future[_Done] = self._executor.submit(
            _perform_on_dask, self._threads, task.function, task.arguments, **where
        )
        return future

    def close(self, at_once: bool) -> None:
        self._executor.shutdown(wait=not at_once)
        self._client.close()


class _Ray(_Pool):
    def __init__(self, engine: Engine) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        _knock("a Ray cluster", str(engine.address))
        try:
            ray.init(address=engine.address, log_to_driver=False, logging_level="error")
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise _unreachable("a Ray cluster", str(engine.address), error) from None
        self._ray, self._threads = ray, engine.threads
        self.size = engine.workers * max(int(ray.cluster_resources().get("CPU", 1)), 1)
        # A worker that dies is counted here, as on every engine.
        self._perform = ray.remote(num_cpus=1, max_retries=0)(_perform_on_ray)
        self._references: dict[Future[_Done], Any] = {}

    def submit(self, task: Task, avoid: Set[str]) -> Future[_Done]:
        perform = self._perform
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]] if avoid else []
        others = [node for node in nodes if node not in avoid]
        if others:
            from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

            perform = perform.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(others[0], soft=True)
            )
        reference = perform.remote(self._threads, task.function, task.arguments)
        future: Future[_Done] = reference.future()
        self._references[future] = reference
        future.add_done_callback(lambda done: self._references.pop(done, None))
        return future

    def close(self, at_once: bool) -> None:
        if at_once:
            for reference in list(self._references.values()):
                self._ray.cancel(reference, force=True)
        self._ray.shutdown()


def _knock(what: str, address: str) -> None:
    """See that somebody listens: Ray would look for five minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT).close()
        except OSError as error:
            raise _unreachable(what, address, error) from None


def _unreachable(what: str, address: str, error: BaseException) -> JobError:
    return JobError(
        f"{what} answers at the address of the engine. Received: {address}, {_in_one_line(error)}; "
        "start it, or correct `address`"
    )


_POOLS: dict[str, type[Any]] = {"loky": _Processes, "threading": _Threads, "dask": _Dask, "ray": _Ray}
