"""Chunks of consecutive origins: the unit in which networks are trained and scored; no TensorFlow.

Neighbouring windows overlap in all but one session, so an origin costs least beside its neighbours. A chunk
is ``length`` consecutive rows of the panel, some of which are counted: each origin is counted by one chunk of
an epoch, and by no other.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster.errors import ParameterError

__all__ = [
    "FEWEST_CHUNKS",
    "LONGEST_CHUNK",
    "MOST_ROWS",
    "SHORTEST_CHUNK",
    "check_runs",
    "cut_chunks",
    "find_blocks",
    "runs_of",
]

Rows = npt.NDArray[np.int64]

SHORTEST_CHUNK = 64
"""Below, most of the work is the sessions before the first origin."""
FEWEST_CHUNKS = 4
"""Chunks of a step, below which its origins resemble each other too much."""
LONGEST_CHUNK = 256
"""Beyond, the origins of one step resemble each other too much, and nothing is gained."""
MOST_ROWS = 2**31 - 2**12
"""Rows of a panel: compiled programs count them, and some beyond a chunk or a block, in 32 bits."""


def runs_of(rows: Rows, offsets: Rows) -> Rows:
    """Find the runs of consecutive rows within a series.

    Parameters
    ----------
    rows : ndarray of shape (n_origins,)
        Flat rows of the panel, in any order.
    offsets : ndarray of shape (n_series + 1,)
        Series i occupies the rows ``offsets[i]`` to ``offsets[i + 1]``.

    Returns
    -------
    ndarray of shape (n_runs, 2)
        First and last row of each run, both included, in order.

    Raises
    ------
    ParameterError
        When a row is there twice or lies in no series.
    """
    ordered = np.sort(np.asarray(rows, dtype=np.int64))
    if not len(ordered):
        return np.empty((0, 2), dtype=np.int64)
    if ordered[0] < offsets[0] or ordered[-1] >= offsets[-1]:
        raise ParameterError(
            f"origins are rows of the panel, from {offsets[0]} to {offsets[-1] - 1}. Received: rows from "
            f"{ordered[0]} to {ordered[-1]}."
        )
    steps = np.diff(ordered)
    if (steps == 0).any():
        raise ParameterError(
            f"every origin is there once; drop the doubles. Received: row {ordered[1:][steps == 0][0]} twice."
        )
    series = np.searchsorted(offsets, ordered, side="right")
    breaks = (steps > 1) | (np.diff(series) > 0)
    first = ordered[np.concatenate([[True], breaks])]
    last = ordered[np.concatenate([breaks, [True]])]
    return np.stack([first, last], axis=1)


def _require_countable(rows: int) -> None:
    """Refuse rows that would wrap around to others, without a word, where they are counted in 32 bits."""
    if rows > MOST_ROWS:
        raise ParameterError(
            f"a panel that networks run over has at most {MOST_ROWS} rows; split it. Received: {rows}."
        )


def check_runs(runs: Rows, offsets: Rows, sessions: int) -> None:
    """Refuse runs that cross a series, or whose windows begin before their series does.

    Raises
    ------
    ParameterError
        With the first such run.
    """
    series = np.searchsorted(offsets, runs[:, 0], side="right") - 1
    inside = (series >= 0) & (series < len(offsets) - 1)
    number = np.where(inside, series, 0)
    crossing = ~inside | (runs[:, 1] >= offsets[number + 1]) | (runs[:, 1] < runs[:, 0])
    if crossing.any():
        raise ParameterError(
            "a run of origins lies within one series, its first row before its last. Received: rows "
            f"{runs[crossing][0].tolist()}."
        )
    early = runs[:, 0] - sessions + 1 < offsets[number]
    if early.any():
        raise ParameterError(
            f"every origin needs {sessions} sessions up to it; start later or look back less. Received: an "
            f"origin with {int((runs[:, 0] - offsets[number] + 1)[early][0])}."
        )


def cut_chunks(
    runs: Rows, length: int, per_step: int, generator: np.random.Generator
) -> npt.NDArray[np.int32]:
    """Cut runs of origins into the chunks of one epoch, in random order.

    Each run is cut at multiples of ``length`` from a random start, so that an origin meets other neighbours
    in each epoch.

    Parameters
    ----------
    runs : ndarray of shape (n_runs, 2)
        First and last row of each run, both included.
    length : int
        Origins of a chunk.
    per_step : int
        Chunks of a step.
    generator : Generator
        Where the starts and the order come from.

    Returns
    -------
    ndarray of shape (n_steps, per_step, 3), int32
        First row of each chunk, and its first and last counted row; the first row of the chunk may lie before
        its run, and even before the panel. The last step is filled with chunks that count nothing: their last
        counted row lies before the first.

    Raises
    ------
    ParameterError
        For rows beyond `MOST_ROWS`.
    """
    if not len(runs):
        return np.empty((0, per_step, 3), dtype=np.int32)
    _require_countable(int(runs[:, 1].max()) + 1)
    first, last = runs[:, 0], runs[:, 1]
    start = first - generator.integers(0, length, len(runs))
    pieces = (last - start) // length + 1
    run = np.repeat(np.arange(len(runs)), pieces)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    begin = start[run] + within * length
    chunks = np.stack(
        [begin, np.maximum(begin, first[run]), np.minimum(begin + length - 1, last[run])], axis=1
    )
    chunks = chunks[generator.permutation(len(chunks))]
    missing = -len(chunks) % per_step
    filling = np.repeat(chunks[:1], missing, axis=0)
    filling[:, 2] = filling[:, 1] - 1
    return np.concatenate([chunks, filling]).reshape(-1, per_step, 3).astype(np.int32)


def find_blocks(rows: Rows, offsets: Rows, sessions: int, length: int) -> tuple[Rows, Rows]:
    """Find the blocks that origins lie in: each series is cut at multiples of a length from its start.

    Parameters
    ----------
    rows : ndarray of shape (n_origins,)
        In order.
    offsets : ndarray of shape (n_series + 1,)
    sessions, length : int
        Of a window, and of a block.

    Returns
    -------
    begins : ndarray of shape (n_blocks,)
        First row of each block that holds an origin.
    cuts : ndarray of shape (n_blocks + 1,)
        Block k holds the origins from ``cuts[k]`` to ``cuts[k + 1]``, the latter left out.

    Raises
    ------
    ParameterError
        When a row lies in no series or has too few sessions up to it, or the panel has more than `MOST_ROWS`.
    """
    if not len(rows):
        return np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    _require_countable(int(offsets[-1]))
    number = -(-np.diff(offsets) // length)
    series = np.repeat(np.arange(len(number)), number)
    within = np.arange(number.sum()) - np.repeat(np.cumsum(number) - number, number)
    begins = offsets[series] + within * length
    cuts = np.searchsorted(rows, np.append(begins, offsets[-1]))
    used = np.flatnonzero(np.diff(cuts))
    firsts = rows[cuts[used]]
    # The rows outside of all series, if there are any, and the first of each block.
    suspects = np.concatenate([rows[: cuts[0]], firsts, rows[cuts[-1] :]])
    check_runs(np.stack([suspects, suspects], axis=1), offsets, sessions)
    return begins[used], np.append(cuts[used], cuts[-1])
