"""How often Yahoo is asked, by however many threads and processes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from forecaster.errors import ParameterError, SourceError

__all__ = ["Politeness", "RateLimit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Politeness:
    """How Yahoo is asked; all times in seconds.

    Parameters
    ----------
    interval : float, default 0.5
        Between the starts of two requests, over all threads and processes that share a state folder.
    timeout : float, default 20
        How long one request may take.
    attempts : int, default 5
        How often one answer is asked for when Yahoo is busy (429), broken (500 to 599), cut or garbled.
    backoff : float, default 1
        The wait before the second attempt; it doubles from there, and up to as much again is added by chance.
    longest_backoff : float, default 60
        The most that it doubles to.
    longest_wait : float, default 300
        How long a ``retry-after`` is waited for; when Yahoo asks for more, the source stops instead.
    stop_after : int, default 5
        Symbols in a row that Yahoo refuses, after which the source as a whole stops.

    Raises
    ------
    ParameterError
        If a time is negative or not a number, or a count is below 1.
    """

    interval: float = 0.5
    timeout: float = 20.0
    attempts: int = 5
    backoff: float = 1.0
    longest_backoff: float = 60.0
    longest_wait: float = 300.0
    stop_after: int = 5

    def __post_init__(self) -> None:
        for name in ("interval", "timeout", "backoff", "longest_backoff", "longest_wait"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name == "timeout" and value == 0):
                raise ParameterError(f"`{name}` must be a number of seconds. Received: {value!r}")
        for name in ("attempts", "stop_after"):
            if getattr(self, name) < 1:
                raise ParameterError(f"`{name}` must be at least 1. Received: {getattr(self, name)!r}")


class RateLimit:
    """A turn for each request, no closer together than an interval.

    Parameters
    ----------
    politeness : Politeness
        The interval, and how long `hold` may hold everyone up.
    folder : Path or None
        Where the time of the next free turn is kept, in a small file under a lock, so that processes share
        it. None for the threads of this process alone.

    Raises
    ------
    SourceError
        If the folder cannot be written.

    Notes
    -----
    A turn is taken first and waited for afterwards, so waiting holds no lock. A process that dies leaves a
    turn unused and nothing else: the system releases its lock. A time that cannot be read, or that lies
    farther ahead than it can (the clock was set back), counts as none.
    """

    def __init__(self, politeness: Politeness, folder: Path | None) -> None:
        self._interval = politeness.interval
        self._farthest = politeness.longest_wait + 1000 * politeness.interval
        self._times = (0.0, 0.0)
        self._folder = folder
        self._lock: AbstractContextManager[object] = threading.Lock()
        if folder is not None:
            self._lock = FileLock(folder / "next-request.lock")
            with self._alone():
                self._write(*self._read(time.time()))

    def wait(self) -> None:
        """Return when it is the caller's turn.

        Raises
        ------
        SourceError
            If the folder cannot be written.
        """
        while True:
            with self._alone():
                now = time.time()
                following, held = self._read(now)
                turn = max(now, following, held)
                self._write(turn + self._interval, held)
            time.sleep(turn - now)
            with self._alone():
                if self._read(time.time())[1] <= turn:
                    return
            # Meanwhile everyone was told to wait longer: take another turn, behind that.

    def hold(self, seconds: float) -> None:
        """Give nobody a turn for some seconds, as Yahoo asks with ``retry-after``.

        Raises
        ------
        SourceError
            If the folder cannot be written.
        """
        with self._alone():
            now = time.time()
            following, held = self._read(now)
            self._write(following, max(held, now + seconds))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes out for a moment."""
        try:
            if self._folder is not None:
                self._folder.mkdir(parents=True, exist_ok=True)
            with self._lock:
                yield
        except OSError as error:
            raise SourceError(
                f"the folder that keeps the rate limit must be writable. Received: {self._folder} "
                f"({error.strerror or error}); allow writing there or name another"
            ) from error

    def _read(self, now: float) -> tuple[float, float]:
        """Return when the next turn is free, and until when there is none."""
        following, held = self._times
        if self._folder is not None:
            try:
                words = (self._folder / "next-request").read_text("ascii").split()
                following, held = (float(word) for word in words)
            except (FileNotFoundError, ValueError):
                return 0.0, 0.0
        farthest = now + self._farthest
        return following if following <= farthest else 0.0, held if held <= farthest else 0.0

    def _write(self, following: float, held: float) -> None:
        self._times = (following, held)
        if self._folder is not None:
            (self._folder / "next-request").write_text(f"{following!r} {held!r}\n", "ascii")
