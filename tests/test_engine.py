"""Engines do every task, lose none with a worker, and leave no process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import engine_tasks
import pytest

from forecaster.engine import Engine, Failure, Task
from forecaster.errors import DataError, JobError, ParameterError

LOCAL = [("loky", 1), ("loky", 2), ("threading", 1), ("threading", 2)]


def squares(count: int) -> list[Task]:
    return [Task(f"square {number}", engine_tasks.square, (number,)) for number in range(count)]


def wait_until(holds: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize(("kind", "workers"), LOCAL)
def test_every_task_is_done_once(kind: str, workers: int) -> None:
    with Engine(kind, workers) as engine:  # type: ignore[arg-type]
        done = list(engine.run(squares(9)))
        again = dict(engine.run(squares(2)))
    assert sorted(done) == [(number, number * number) for number in range(9)]
    assert again == {0: 0, 1: 1}
    if workers == 1:
        assert done == sorted(done)


def test_nothing_to_do_is_done() -> None:
    with Engine("loky", 2) as engine:
        assert list(engine.run([])) == []


def test_processes_are_others_and_end_with_the_block() -> None:
    with Engine("loky", 2) as engine:
        pids = {pid for _, pid in engine.run([Task("pid", engine_tasks.process, (0.2,))] * 4)}
    assert os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)


def test_a_worker_that_grows_stays() -> None:
    tasks = [Task("grow", engine_tasks.grow, (megabytes,)) for megabytes in (0, 0, 400, 400, 0, 0)]
    with Engine("loky", 2) as engine:
        assert len({pid for _, pid in engine.run(tasks)}) == 2


def test_workers_have_the_threads_of_the_job() -> None:
    with Engine("loky", 2, threads=2) as engine:
        counts = [count for _, count in engine.run([Task("threads", engine_tasks.threads)] * 2)]
    assert all(count["blas"] == 2 for count in counts)


@pytest.mark.parametrize(("kind", "workers"), [("loky", 2), ("threading", 1)])
def test_warnings_come_home(kind: str, workers: int) -> None:
    with Engine(kind, workers) as engine, pytest.warns(UserWarning, match="no prices of XY"):  # type: ignore[arg-type]
        assert dict(engine.run([Task("warn", engine_tasks.warn, ("no prices of XY",))])) == {
            0: "no prices of XY"
        }


@pytest.mark.parametrize(("kind", "workers"), LOCAL)
def test_a_broken_rule_ends_all(kind: str, workers: int) -> None:
    tasks = [Task(f"{number}", engine_tasks.break_rule, (number,)) for number in range(4)]
    with Engine(kind, workers) as engine:  # type: ignore[arg-type]
        with pytest.raises(ParameterError, match=r"^numbers are not two\. Received: 2$"):
            list(engine.run(tasks))
        assert dict(engine.run(squares(2))) == {0: 0, 1: 1}


def test_an_error_with_arguments_of_its_own_travels() -> None:
    with Engine("loky", 2) as engine, pytest.raises(DataError, match=r"^AAPL: it has no prices$"):
        list(engine.run([Task("one", engine_tasks.break_symbol)]))


@pytest.mark.parametrize(("kind", "workers"), LOCAL)
def test_a_task_that_fails_now_and_then_is_done_in_the_end(kind: str, workers: int, tmp_path: Path) -> None:
    tasks = [Task(f"task {n}", engine_tasks.fail_until, (str(tmp_path), 2 * (n == 1), n)) for n in range(4)]
    with Engine(kind, workers) as engine:  # type: ignore[arg-type]
        assert dict(engine.run(tasks)) == {n: n for n in range(4)}


@pytest.mark.parametrize(("kind", "workers"), LOCAL)
def test_a_task_that_always_fails_is_named_and_the_rest_goes_on(
    kind: str, workers: int, tmp_path: Path
) -> None:
    tasks = [Task(f"task {n}", engine_tasks.fail_until, (str(tmp_path), 9 * (n == 1), n)) for n in range(4)]
    with Engine(kind, workers) as engine:  # type: ignore[arg-type]
        done = dict(engine.run(tasks))
    assert {n: done[n] for n in (0, 2, 3)} == {0: 0, 2: 2, 3: 3}
    assert done[1] == Failure("task 1", "OSError: [Errno 28] no room for 1")


def test_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    tasks = [Task(f"task {n}", engine_tasks.die_until, (str(tmp_path), n == 2, n)) for n in range(8)]
    with Engine("loky", 2) as engine:
        assert dict(engine.run(tasks)) == {n: n for n in range(8)}


def test_a_task_that_kills_every_worker_is_named_alone(tmp_path: Path) -> None:
    tasks = [Task(f"task {n}", engine_tasks.die_until, (str(tmp_path), 9 * (n == 2), n)) for n in range(6)]
    with Engine("loky", 2) as engine:
        done = dict(engine.run(tasks))
    assert {n: done[n] for n in done if n != 2} == {n: n for n in (0, 1, 3, 4, 5)}
    assert isinstance(done[2], Failure)
    assert done[2].name == "task 2"
    assert "its worker was lost" in done[2].reason


INTERRUPTED = """
import sys
from pathlib import Path
import engine_tasks
from forecaster.engine import Engine, Task

folder = sys.argv[1]
try:
    with Engine("loky", 2) as engine:
        list(engine.run([Task(f"{n}", engine_tasks.wait_for, (folder, n)) for n in range(6)]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("whom", ["the process", "all of the terminal"])
def test_ctrl_c_leaves_no_process(whom: str, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True
    ) as main:
        wait_until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        wait_until(lambda: all(path.read_text() for path in tmp_path.glob("*.pid")))
        pids = [int(path.read_text()) for path in tmp_path.glob("*.pid")]
        if whom == "the process":
            main.send_signal(signal.SIGINT)
        else:
            os.killpg(main.pid, signal.SIGINT)
        _, said = main.communicate(timeout=60)
    assert main.returncode == 130
    assert "Traceback" not in said
    wait_until(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("loky", 1, "tcp://127.0.0.1:1"), "an address belongs to a cluster"),
        (("dask", 1), "the engine dask needs the address of its cluster. Received: none"),
        (("ray", 1), "the engine ray needs the address of its cluster. Received: none"),
        (("loky", 0), "at least one worker. Received: 0"),
    ],
)
def test_what_makes_no_engine_is_refused(arguments: tuple[object, ...], text: str) -> None:
    with pytest.raises((JobError, ParameterError), match=text):
        Engine(*arguments)  # type: ignore[arg-type]
