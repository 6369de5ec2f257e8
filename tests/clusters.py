"""Clusters on loopback, of separate processes, for the tests of engines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HOST = "127.0.0.1"


def wait_until(holds: Callable[[], bool], seconds: float = 90.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def environment() -> dict[str, str]:
    """What a worker needs to import the tasks of the tests."""
    here = Path(__file__).parent
    paths = [str(here), str(here.parent), *os.environ.get("PYTHONPATH", "").split(":")]
    return os.environ | {
        "PYTHONPATH": ":".join(filter(None, paths)),
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def _started(*command: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a group of its own, and end the group."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment() | variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        # Nothing of these clusters is worth an orderly end, for which Ray takes a quarter of a minute.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@contextlib.contextmanager
def dask_cluster(workers: int = 2, **of_the_first: str) -> Iterator[str]:
    """Start a scheduler and some workers, and give the scheduler's address.

    The first worker has further variables in its environment.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dask-")))
        place = folder / "scheduler.json"
        module = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--no-dashboard"]
        stack.enter_context(
            _started(
                *module, "--host", HOST, "--port", "0", "--scheduler-file", str(place), log=folder / "log"
            )
        )
        wait_until(lambda: place.exists() and place.stat().st_size > 0)
        address = str(json.loads(place.read_text())["address"])
        for number in range(workers):
            stack.enter_context(
                _started(
                    *(sys.executable, "-m", "distributed.cli.dask_worker", address, "--no-nanny"),
                    *("--nthreads", "1", "--no-dashboard", "--host", HOST),
                    *("--local-directory", str(folder / str(number))),
                    log=folder / f"worker-{number}.log",
                    **({} if number else of_the_first),
                )
            )
        yield address


def _free_port() -> int:
    with socket.socket() as found:
        found.bind((HOST, 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def ray_cluster(workers: int = 2, **of_the_first: str) -> Iterator[str]:
    """Start Ray as a user does, by ``ray start``, and give its address.

    With further variables for the environment of its first node there is a second one, of one worker.
    """
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as name:
        folder, port = Path(name), _free_port()
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", "--head", "--block", "--node-ip-address", HOST, "--port", str(port)]
        command += ["--num-cpus", str(workers), "--include-dashboard", "false", "--disable-usage-stats"]
        command += ["--object-store-memory", str(100 << 20), "--temp-dir", str(folder / "ray")]
        with contextlib.ExitStack() as stack:
            stack.enter_context(_started(*command, log=folder / "log", **of_the_first))
            wait_until(lambda: "Ray runtime started" in (folder / "log").read_text())
            if of_the_first:
                command = [ray, "start", "--block", "--address", f"{HOST}:{port}", "--num-cpus", "1"]
                command += ["--object-store-memory", str(100 << 20), "--disable-usage-stats"]
                stack.enter_context(_started(*command, log=folder / "second"))
                wait_until(lambda: "Ray runtime started" in (folder / "second").read_text())
            yield f"{HOST}:{port}"
