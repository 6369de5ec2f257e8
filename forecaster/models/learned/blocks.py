"""Blocks of sessions: residuals on the rows that a flexible model was fitted on are too narrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from forecaster.models.base import ResidualQuantiles
from forecaster.windows import Windows

__all__ = ["BLOCKS", "SCALE_FLOOR", "Block", "out_of_sample", "session_blocks"]

Array = NDArray[np.float64]

BLOCKS = 4
"""Blocks of consecutive sessions in which residuals are made out of sample."""

SCALE_FLOOR = 0.25
"""Smallest forecast scale, as a share of the EWMA one."""


@dataclass(frozen=True)
class Block:
    """Consecutive sessions of the panel's calendar, and those too near to learn from.

    Parameters
    ----------
    first, last : int
        First and last session of the block, as places in the calendar.
    near_first, near_last : int
        Sessions between these two, both included, have outcomes in common with the block.
    """

    first: int
    last: int
    near_first: int
    near_last: int

    def inside(self, place: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which origins lie in the block, by the places of their sessions in the calendar."""
        return (place >= self.first) & (place <= self.last)

    def apart(self, place: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which origins have no outcome in common with the block."""
        return (place < self.near_first) | (place > self.near_last)


def session_blocks(windows: Windows) -> tuple[NDArray[np.int64], list[Block]]:
    """Cut the sessions of the origins into `BLOCKS` blocks of consecutive ones.

    Returns
    -------
    place : ndarray of shape (n_origins,)
        Place of each origin's session in the calendar.
    blocks : list of Block
        Fewer than `BLOCKS` where there are fewer sessions.
    """
    place = np.searchsorted(windows.panel.calendar, windows.sessions).astype(np.int64)
    # A series that misses sessions reaches further along the calendar than h sessions of it.
    reach = 2 * max(windows.horizons)
    parts = [part for part in np.array_split(np.unique(place), BLOCKS) if part.size]
    ends = [(int(part[0]), int(part[-1])) for part in parts]
    return place, [Block(first, last, first - reach, last + reach) for first, last in ends]


def out_of_sample(estimator: Any, inputs: NDArray[np.float32], outcomes: Array, windows: Windows) -> Array:
    """Predict each training origin by an estimator that was fitted on other blocks of sessions.

    Each block is predicted from the rest without the origins whose outcomes, or whose own outcomes, overlap
    with it.

    Parameters
    ----------
    estimator : scikit-learn regressor
        Cloned for each block.
    inputs : ndarray of shape (n_origins, n_features)
    outcomes : ndarray of shape (n_origins, n_horizons)
    windows : Windows
        The training origins.

    Returns
    -------
    ndarray of shape (n_origins, n_horizons)
        NaN where a block has nothing else to learn from.
    """
    predicted = np.full_like(outcomes, np.nan)
    place, blocks = session_blocks(windows)
    for block in blocks:
        inside, apart = block.inside(place), block.apart(place)
        if apart.sum() >= ResidualQuantiles.minimum:
            fitted = clone(estimator).fit(inputs[apart], outcomes[apart])
            predicted[inside] = fitted.predict(inputs[inside]).reshape(-1, outcomes.shape[1])
    return predicted
