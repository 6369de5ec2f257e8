"""Tasks for the tests of engines: functions of a module, so that other processes can import them."""

from __future__ import annotations

import os
import signal
import time
import warnings
from pathlib import Path

from forecaster.errors import ParameterError, SymbolError
from forecaster.threads import thread_counts


def square(number: int) -> int:
    return number * number


def process(pause: float) -> int:
    time.sleep(pause)
    return os.getpid()


def threads() -> dict[str, int]:
    import numpy as np

    np.ones((4, 4)) @ np.ones((4, 4))
    return thread_counts()


def warn(text: str) -> str:
    warnings.warn(text, stacklevel=1)
    return text


def break_rule(number: int) -> int:
    if number == 2:
        raise ParameterError("numbers are not two. Received: 2")
    return number


def break_symbol() -> None:
    raise SymbolError("AAPL", "it has no prices")


def fail_until(folder: str, times: int, result: int) -> int:
    """Fail a few times, whichever process does it."""
    for attempt in range(times):
        try:
            (Path(folder) / f"{result}-{attempt}").touch(exist_ok=False)
        except FileExistsError:
            continue
        raise OSError(28, f"no room for {result}")
    return result


def fail_where(name: str, result: int) -> int:
    """Fail on every worker that has a variable in its environment: a machine whose disk is full."""
    if name in os.environ:
        raise OSError(28, f"no room for {result}")
    return result


def die_until(folder: str, times: int, result: int) -> int:
    """Die as a process that the system kills, a few times."""
    for attempt in range(times):
        try:
            (Path(folder) / f"{result}-{attempt}").touch(exist_ok=False)
        except FileExistsError:
            continue
        os.kill(os.getpid(), signal.SIGKILL)
    return result


def wait_for(folder: str, number: int) -> int:
    """Say who works, and work until a file is there."""
    (Path(folder) / f"{number}.pid").write_text(str(os.getpid()))
    for _ in range(6000):
        if (Path(folder) / "go").exists():
            return number
        time.sleep(0.01)
    raise TimeoutError("nobody said go")


_held: list[bytearray] = []


def grow(megabytes: int) -> int:
    """Hold more and more memory, as a worker that loads TensorFlow after its first task."""
    _held.append(bytearray(b"x") * (megabytes << 20))
    time.sleep(1.1)  # loky looks once a second
    return os.getpid()
