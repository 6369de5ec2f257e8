"""Threads of TensorFlow, OpenMP and BLAS, set and read in one place.

Two things hang on their number. Workers that each start a thread a core fight over the cores: *w* workers on
*c* cores then run *w x c* threads. And sums are added in another order, so that results are the same to the
bit at equal threads alone.

One thread is the default: the networks and regressions here are too small to gain from more, and whoever has
more cores gains by more workers. Nothing heavy is imported here, least of all TensorFlow.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from threadpoolctl import threadpool_info, threadpool_limits

from forecaster.errors import ParameterError

__all__ = ["limit_threads", "limited_threads", "tensorflow_threads", "thread_counts"]

_POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Read by OpenMP and BLAS when they are loaded, and handed to its workers by joblib."""

_TENSORFLOW = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")
"""Read by TensorFlow when its devices start, in this process and in those that it starts."""


def limit_threads(count: int = 1) -> None:
    """Set the threads of this process and of the processes that it starts.

    Libraries that are not loaded yet take the number from the environment, those that are loaded are told.
    Call it first, before TensorFlow starts.

    Parameters
    ----------
    count : int
        Threads of each library, at least 1. What the environment said before is replaced, so that a job gives
        the same bits in every shell.

    Raises
    ------
    ParameterError
        If the count is not a whole number of at least 1, or TensorFlow has started with another one, which it
        keeps until the process ends.
    """
    _require_count(count)
    threading = _tensorflow_config()
    if threading is not None:
        # TensorFlow refuses a change, and takes an equal number, once its devices have started.
        try:
            threading.set_intra_op_parallelism_threads(count)
            threading.set_inter_op_parallelism_threads(count)
        except RuntimeError:
            within, across = _tensorflow_counts()
            if (within, across) != (count, count):
                raise ParameterError(
                    f"threads are set before TensorFlow starts. Received: {count}, while it has started with "
                    f"{within} in an operation and {across} across operations (0 is one a core); call "
                    "limit_threads first, or start a new process"
                ) from None
    os.environ.update(dict.fromkeys((*_POOLS, *_TENSORFLOW), str(count)))
    threadpool_limits(limits=count)


@contextmanager
def limited_threads(count: int = 1) -> Iterator[None]:
    """Limit BLAS and OpenMP inside a ``with`` block, and in the workers that joblib starts there.

    Put it around a `joblib.Parallel` on this machine (its processes take the number from the environment, as
    ``inner_max_num_threads`` would give it to them), or into the task itself, which holds on every backend,
    threads and clusters included.

    Parameters
    ----------
    count : int
        Threads of each library, at least 1.

    Raises
    ------
    ParameterError
        If the count is not a whole number of at least 1.
    """
    _require_count(count)
    before = {name: os.environ.get(name) for name in _POOLS}
    os.environ.update(dict.fromkeys(_POOLS, str(count)))
    try:
        with threadpool_limits(limits=count):
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def tensorflow_threads() -> tuple[int, int]:
    """Threads that TensorFlow shall start with, within one operation and across operations.

    Returns
    -------
    tuple of two ints
        What `limit_threads` set or the environment says (``TF_NUM_INTRAOP_THREADS``,
        ``TF_NUM_INTEROP_THREADS``), else 1.
    """
    within, across = (_positive(os.environ.get(name)) for name in _TENSORFLOW)
    return within, across


def thread_counts() -> dict[str, int]:
    """Threads in effect now, for the record beside a result.

    Returns
    -------
    dict of str to int
        ``blas`` and ``openmp``, where such a library is loaded (the most of any, should several differ), and
        ``tensorflow_within`` and ``tensorflow_across`` operations, where TensorFlow is (0 is one a core).
    """
    counts: dict[str, int] = {}
    for pool in threadpool_info():
        counts[pool["user_api"]] = max(counts.get(pool["user_api"], 0), int(pool["num_threads"]))
    if _tensorflow_config() is not None:
        counts["tensorflow_within"], counts["tensorflow_across"] = _tensorflow_counts()
    return dict(sorted(counts.items()))


def _require_count(count: int) -> None:
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ParameterError(f"threads are a whole number of at least 1. Received: {count!r}")


def _positive(text: str | None) -> int:
    """Read a number as TensorFlow does, which takes none for one that it cannot read."""
    return max(int(text), 1) if text is not None and text.strip().isdecimal() else 1


def _tensorflow_config() -> Any:
    """`tensorflow.config.threading` where TensorFlow is loaded; it is never loaded for this."""
    tensorflow = sys.modules.get("tensorflow")
    return None if tensorflow is None else tensorflow.config.threading


def _tensorflow_counts() -> tuple[int, int]:
    threading = _tensorflow_config()
    counts = (threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads())
    # What was not set (0) TensorFlow took from the environment when it started.
    said = (_positive(os.environ[name]) if name in os.environ else 0 for name in _TENSORFLOW)
    within, across = (int(count) or other for count, other in zip(counts, said, strict=True))
    return within, across
