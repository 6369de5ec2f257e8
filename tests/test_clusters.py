"""The engines Dask and Ray, on clusters of separate processes on loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import engine_tasks
import pytest
from clusters import dask_cluster, ray_cluster

from forecaster.engine import Engine, Failure, Task
from forecaster.errors import JobError, ParameterError

pytestmark = pytest.mark.skipif(
    find_spec("distributed") is None or find_spec("ray") is None, reason="needs the extra `cluster`"
)


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    with dask_cluster() as address:
        yield address


@pytest.fixture(scope="module")
def ray() -> Iterator[str]:
    with ray_cluster() as address:
        yield address


@pytest.fixture(params=["dask", "ray"])
def cluster(request: pytest.FixtureRequest) -> tuple[Any, str]:
    return request.param, request.getfixturevalue(request.param)


def test_tasks_run_on_the_cluster(cluster: tuple[Any, str], tmp_path: Path) -> None:
    """One connection for all: that costs seconds."""
    kind, address = cluster
    with Engine(kind, 1, address, threads=1) as engine:
        pids = {pid for _, pid in engine.run([Task("pid", engine_tasks.process, (0.3,))] * 4)}
        assert os.getpid() not in pids
        assert len(pids) == 2
        threads = dict(engine.run([Task("threads", engine_tasks.threads)]))
        assert threads[0]["blas"] == 1
        with pytest.warns(UserWarning, match="no prices of XY"):
            list(engine.run([Task("warn", engine_tasks.warn, ("no prices of XY",))]))
        # One fails twice, one always, and one is killed once: the others do not suffer.
        tasks = [
            Task(f"task {n}", engine_tasks.fail_until, (str(tmp_path), {1: 2, 3: 9}.get(n, 0), n))
            for n in range(6)
        ]
        done = dict(engine.run(tasks))
    assert done == {0: 0, 1: 1, 2: 2, 3: Failure("task 3", "OSError: [Errno 28] no room for 3"), 4: 4, 5: 5}
    with Engine(kind, 1, address) as engine, pytest.raises(ParameterError, match="numbers are not two"):
        list(engine.run([Task("two", engine_tasks.break_rule, (2,))]))


@pytest.mark.parametrize("kind", ["dask", "ray"])
def test_a_killed_worker_loses_nothing(kind: Any, tmp_path: Path) -> None:
    """Clusters of their own: they are short of a worker afterwards."""
    start = {"dask": dask_cluster, "ray": ray_cluster}[kind]
    tasks = [Task(f"task {n}", engine_tasks.die_until, (str(tmp_path), n == 2, n)) for n in range(8)]
    with start() as address, Engine(kind, 1, address) as engine:
        assert dict(engine.run(tasks)) == {n: n for n in range(8)}


@pytest.mark.parametrize("kind", ["dask", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_task_that_fails_is_done_by_a_worker_where_it_does_not(kind: Any) -> None:
    start = {"dask": dask_cluster, "ray": ray_cluster}[kind]
    tasks = [Task(f"task {n}", engine_tasks.fail_where, ("FULL_DISK", n)) for n in range(12)]
    with start(FULL_DISK="1") as address:
        if kind == "dask":
            from distributed import Client

            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=60)
        with Engine(kind, 1, address) as engine:
            assert dict(engine.run(tasks)) == {n: n for n in range(12)}


@pytest.mark.parametrize(("kind", "what"), [("dask", "a Dask scheduler"), ("ray", "a Ray cluster")])
def test_no_cluster_is_one_clear_line(kind: Any, what: str) -> None:
    address = {"dask": "tcp://127.0.0.1:9", "ray": "127.0.0.1:9"}[kind]
    with Engine(kind, 1, address) as engine, pytest.raises(JobError, match=f"^{what}.*Received: {address}"):
        list(engine.run([Task("one", engine_tasks.square, (1,))]))
