"""Series that other symbols look at, each value with the time from which it is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.returns import log_returns

__all__ = ["Covariate", "Transform", "covariate_of", "seconds_of"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Sessions = NDArray[np.datetime64]

Transform = Literal["return", "level", "difference"]
"""What is looked at of a covariate: its log return, its close as given, or the change of its close."""


@dataclass(frozen=True, eq=False)
class Covariate:
    """One series that other symbols look at, with the time from which each value is known.

    Parameters
    ----------
    closings : ndarray of shape (n_sessions,), datetime64[s]
        When each value became known, in UTC, non-decreasing.
    values : ndarray of shape (n_sessions,)
        Without NaN.
    """

    closings: Sessions
    values: Array

    def last_known(self, closings: Sessions) -> Rows:
        """Position of the last value known at each of some times, -1 where none was."""
        return np.searchsorted(self.closings, closings, side="right") - 1

    def seen(self, closings: Sessions, terms: Array, stand_in: Array) -> Array:
        """Give what was known at some times of terms of the values; the stand-in's rows where nothing was.

        Parameters
        ----------
        closings : ndarray of shape (n,), datetime64[s]
        terms : ndarray of shape (n_sessions, ...)
            One row for each value.
        stand_in : ndarray of shape (n, ...)
        """
        if not len(terms):
            return stand_in
        rows = self.last_known(closings)
        nothing = (rows < 0).reshape(-1, *(1,) * (terms.ndim - 1))
        return np.where(nothing, stand_in, terms[rows])


def seconds_of(times: Sessions) -> Sessions:
    """Count times in seconds, as closings are."""
    return np.asarray(times, dtype="datetime64[s]")


def covariate_of(
    symbol: str,
    frame: pd.DataFrame,
    transform: Transform,
    returns: Literal["total", "price"],
    closings: Mapping[str, Sessions] | None,
) -> Covariate:
    """Lay out what is looked at of a symbol, and when it was known."""
    closed = seconds_of(frame.index.to_numpy() if closings is None else closings[symbol])
    closes = frame["close"].to_numpy(dtype=np.float64)
    if not np.isfinite(closes).all():
        raise ParameterError(
            f"every close of a covariate is a finite number. Received: {int((~np.isfinite(closes)).sum())} "
            f"that are not, of {symbol}; leave these sessions out"
        )
    if transform == "level":
        return Covariate(closed, closes)
    if transform == "difference":
        return Covariate(closed[1:], np.diff(closes))
    return Covariate(closed[1:], log_returns(frame, kind=returns)[1:])
