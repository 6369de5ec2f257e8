"""What every side of `make bench` shares: its data, its clock, its memory, and the one line that it prints.

`speed.py` starts each side with one thread, and with the clock that was chosen.
"""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CLOCK",
    "HORIZON",
    "LOOKBACK",
    "ROWS",
    "SESSIONS",
    "TRAINED_SESSIONS",
    "peak_megabytes",
    "rate",
    "real_series",
    "report",
    "reset_peak",
    "resident_megabytes",
    "seconds",
    "synthetic_returns",
    "time_to_loss",
    "validation_windows",
]

Array = NDArray[np.float32]

LOOKBACK, HORIZON, ROWS = 64, 5, 8
"""Sessions of a window, returns that follow it, and rows that it is lifted to."""
SESSIONS, TRAINED_SESSIONS = 8000, 6400
"""Of each real series, and how many of them, the oldest, are trained on."""
VALIDATION_STEP = 8
"""Sessions between two origins of validation."""
CLOCK = {"wall": time.perf_counter, "processor": time.process_time}[os.environ.get("BENCHMARK_CLOCK", "wall")]
"""Seconds that pass, or those that this process spends on a processor: the same on an idle machine, as every
side has one thread; the latter where others work on it too."""
STATUS, PEAK_RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def synthetic_returns(series: int, sessions: int, seed: int = 0) -> Array:
    """Simulate returns with a short linear memory, one product of past returns, and clustered volatility.

    Parameters
    ----------
    series, sessions : int
        Shape of the result.
    seed : int
        Of the shocks.

    Returns
    -------
    ndarray of shape (series, sessions), float32
        Returns in units of about one, independent between series.
    """
    shocks = np.random.default_rng(seed).standard_normal((sessions, series), dtype=np.float32)
    returns = np.zeros((sessions, series), dtype=np.float32)
    variance = np.ones(series, dtype=np.float32)
    for day in range(sessions):
        # GARCH(1, 1) of unit mean; the shocks come first, so that the memory cannot make it explode.
        returns[day] = np.sqrt(variance) * shocks[day]
        variance = 0.05 + 0.9 * variance + 0.05 * np.square(returns[day])
        if day >= 22:
            linear = 0.15 * returns[day - 1] - 0.1 * returns[day - 5] + 0.1 * returns[day - 21]
            returns[day] += linear + 0.1 * np.tanh(returns[day - 3] * returns[day - 10])
    return np.ascontiguousarray(returns.T)


def real_series(folder: Path) -> tuple[Array, float]:
    """Read what `real_series.py` wrote: series of shape (series, sessions), and the loss to reach."""
    with np.load(folder / "real.npz") as archive:
        return archive["series"], float(archive["target"])


def validation_windows(series: Array, lookback: int = LOOKBACK) -> tuple[Array, Array]:
    """Cut windows whose outcomes lie in the sessions of validation.

    Parameters
    ----------
    series : ndarray of shape (series, sessions)
    lookback : int
        Sessions of a window; more than `LOOKBACK` where a network reaches back to more.

    Returns
    -------
    windows : ndarray of shape (n, lookback), float32
    outcomes : ndarray of shape (n, HORIZON), float32
        The same whatever the lookback.
    """
    validation = series[:, TRAINED_SESSIONS - lookback :]
    view = np.lib.stride_tricks.sliding_window_view(validation, lookback + HORIZON, axis=1)
    drawn = view[:, ::VALIDATION_STEP].reshape(-1, lookback + HORIZON)
    return drawn[:, :lookback].copy(), drawn[:, lookback:].copy()


def time_to_loss(
    train: Callable[[], Any], loss: Callable[[], float], target: float, limit: int
) -> tuple[float, int, float]:
    """Train until a loss is reached; the clock stands still while it is computed.

    Parameters
    ----------
    train : callable
        Goes on with the training by some steps.
    loss : callable
        Gives the validation loss.
    target : float
        The loss to reach.
    limit : int
        Calls of ``train`` after which the target counts as missed.

    Returns
    -------
    tuple of (float, int, float)
        Seconds of training, calls of ``train``, and the loss that was reached.

    Raises
    ------
    RuntimeError
        When the target is missed.
    """
    taken = 0.0
    for calls in range(1, limit + 1):
        taken += seconds(train)
        reached = loss()
        if reached <= target:
            return taken, calls, reached
    raise RuntimeError(
        f"the validation loss is to reach {target:.4f} within {limit} calls. Received: {reached:.4f}"
    )


def seconds(action: Callable[[], Any], repeats: int = 1) -> float:
    """Time a call; with several repeats, the median of theirs."""
    taken = []
    for _ in range(repeats):
        start = CLOCK()
        action()
        taken.append(CLOCK() - start)
    return statistics.median(taken)


def rate(fit: Callable[[int], float], short: int, long: int, windows_a_step: int) -> float:
    """Give windows per second from the difference of a long and a short fit: neither start-up nor tracing.

    Parameters
    ----------
    fit : callable
        Takes the number of steps and gives the seconds that they took, with any start-up.
    short, long : int
        Steps of the two fits.
    windows_a_step : int
        Windows that a step trains on.
    """
    first = fit(short)
    return (long - short) * windows_a_step / (fit(long) - first)


def resident_megabytes() -> float:
    """Memory of this process that is resident now, in MB."""
    return _status("VmRSS")


def peak_megabytes() -> float:
    """Most memory of this process that was resident since its start or `reset_peak`, in MB."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Forget the peak of the past (Linux, proc(5): `5` in clear_refs)."""
    PEAK_RESET.write_text("5", encoding="ascii")


def _status(name: str) -> float:
    # Not getrusage: its peak is inherited from the process that started this one.
    lines = STATUS.read_text(encoding="ascii").splitlines()
    return next(float(line.split()[1]) / 1024.0 for line in lines if line.startswith(f"{name}:"))


def report(**measured: float | int | str | None) -> None:
    """Print what a side measured as its last line."""
    print(json.dumps(measured), flush=True)
