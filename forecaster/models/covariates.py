"""What every model that looks at covariates sees of them; the one place that scales and dates them."""

from __future__ import annotations

from typing import Self

import numpy as np
from numpy.typing import NDArray

from forecaster import features
from forecaster.errors import ParameterError
from forecaster.features import CLIP
from forecaster.windows import Covariate, Panel, Windows

__all__ = ["COVARIATE_WINDOWS", "STALE", "CovariateInputs"]

Array = NDArray[np.float64]

COVARIATE_WINDOWS = (1, 5, 22)
"""Values of a covariate over which its inputs are means: the last one, a week and a month."""

STALE = np.timedelta64(14, "D")
"""Age from which the last value of a covariate counts as not known: longer than nearly all holidays."""


class CovariateInputs:
    """Values of the covariates of a panel, standardised by what was seen in training.

    A session sees the last value that was known when it closed. Where there is none, or it is older than
    `STALE`, the input is 0, its mean in training. Inputs are clipped at 8 standard deviations; one that did
    not move in training is always 0.
    """

    def __init__(self) -> None:
        self.names: tuple[str, ...] = ()
        self.statistics = np.empty((2, 0, len(COVARIATE_WINDOWS)))

    @property
    def width(self) -> int:
        """Columns of the inputs of an origin."""
        return len(self.names) * len(COVARIATE_WINDOWS)

    def fit(self, windows: Windows) -> Self:
        """Record the covariates of the panel, and their means and deviations at the training origins."""
        panel = windows.panel
        self.names = tuple(panel.covariates)
        self.statistics = np.empty((2, len(self.names), len(COVARIATE_WINDOWS)))
        for number, name in enumerate(self.names):
            seen = _seen(panel.covariates[name], panel.closed[windows.rows])
            known = seen[np.isfinite(seen).all(axis=1)]
            # In units of the largest, so that no square overflows or vanishes.
            unit = np.maximum(np.abs(known).max(axis=0, initial=0.0), np.finfo(float).tiny)
            mean = (known / unit).mean(axis=0) if len(known) else np.zeros(len(COVARIATE_WINDOWS))
            deviation = (known / unit).std(axis=0) if len(known) else np.zeros(len(COVARIATE_WINDOWS))
            moves = deviation > 1e-9
            self.statistics[:, number] = mean * unit, np.where(moves, deviation * unit, np.inf)
        return self

    def __call__(self, windows: Windows) -> NDArray[np.float32]:
        """Compute the inputs of origins.

        Returns
        -------
        ndarray of shape (n_origins, width), float32
            Of each covariate the last known value, and the means of the last 5 and 22 values.

        Raises
        ------
        ParameterError
            If the panel lacks a covariate that the model was fitted with.
        """
        return self._standardised(windows.panel, windows.panel.closed[windows.rows], len(COVARIATE_WINDOWS))

    def channels(self, panel: Panel) -> NDArray[np.float32]:
        """Compute what a network sees at every session: the last known value of each covariate.

        Returns
        -------
        ndarray of shape (total, n_covariates), float32

        Raises
        ------
        ParameterError
            As calling it.
        """
        return self._standardised(panel, panel.closed, 1)

    def _standardised(self, panel: Panel, closed: NDArray[np.datetime64], count: int) -> NDArray[np.float32]:
        parts = [np.empty((len(closed), 0))]
        for name, mean, deviation in zip(self.names, *self.statistics, strict=True):
            if name not in panel.covariates:
                raise ParameterError(
                    "a model is given the covariates that it was fitted with. Received: prices without "
                    f"{name}; there are {', '.join(panel.covariates) or 'none'}"
                )
            seen = _seen(panel.covariates[name], closed)[:, :count]
            scaled = np.clip((seen - mean[:count]) / deviation[:count], -CLIP, CLIP)
            parts.append(np.where(np.isfinite(scaled), scaled, 0.0))
        return np.concatenate(parts, axis=1).astype(np.float32)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save."""
        return {
            "covariate_names": np.array(self.names, dtype=np.str_),
            "covariate_statistics": self.statistics,
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> Self:
        """Take back what `state` gave."""
        self.names = tuple(str(name) for name in state["covariate_names"])
        self.statistics = state["covariate_statistics"].astype(np.float64)
        return self


def _seen(covariate: Covariate, closed: NDArray[np.datetime64]) -> Array:
    """Means over `COVARIATE_WINDOWS` as known at some times, one row each; NaN where nothing is known."""
    values = covariate.values
    if not len(values):
        return np.full((len(closed), len(COVARIATE_WINDOWS)), np.nan)
    means = [values, *(features.running_mean(values, window) for window in COVARIATE_WINDOWS[1:])]
    position = covariate.last_known(closed)
    known = (position >= 0) & (closed - covariate.closings[position] <= STALE)
    terms = np.stack(means, axis=-1)
    seen: Array = np.where(known[:, None], terms[position], np.nan)
    return seen
