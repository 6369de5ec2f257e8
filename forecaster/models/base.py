"""What every model is: fitted on windows, predicting quantiles, saved without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import NotFittedError, ParameterError
from forecaster.quantiles import LEVELS, QuantileForecast
from forecaster.windows import Windows

__all__ = ["Forecaster", "ResidualQuantiles", "SeesKernels", "known_targets", "load_arrays", "save_arrays"]

Array = NDArray[np.float64]

STATE = "state.npz"


class Forecaster(Protocol):
    """The seam that every model stands behind.

    A model is made from its settings alone, so that it can be made again from a job file; what it learned is
    arrays (and, for a learned model, the library's own safe format), so that loading executes nothing.
    """

    @property
    def parameters(self) -> int:
        """Number of fitted numbers, for the leaderboard; known after `fit`."""
        ...

    def fit(self, windows: Windows) -> Self:
        """Learn from the origins of ``windows``, all of whose targets must be known."""
        ...

    def predict(self, windows: Windows) -> QuantileForecast:
        """Forecast at each origin of ``windows``, from sessions up to it and nothing else."""
        ...

    def save(self, folder: Path) -> None:
        """Write what was learned into an existing, empty folder."""
        ...

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote; the model must have the same settings."""
        ...


@runtime_checkable
class SeesKernels(Protocol):
    """A model whose first layer is a kernel on the series, and can be looked at."""

    def lag_weights(self) -> pd.DataFrame:
        """Impulse response: ``channel, filter, lag`` (sessions before the newest) and ``weight``."""
        ...

    def frequency_responses(self) -> pd.DataFrame:
        """Frequency response: ``channel, filter, period`` (sessions), ``magnitude`` and ``phase``."""
        ...


def known_targets(windows: Windows) -> Array:
    """Targets to fit on.

    Returns
    -------
    ndarray of shape (n_origins, n_horizons)

    Raises
    ------
    ParameterError
        If there is no origin, or a target is not known yet.
    """
    if not len(windows):
        raise ParameterError(
            "a model is fitted on at least one origin. Received: none; start the backtest later"
        )
    targets = windows.targets
    unknown = ~np.isfinite(targets).all(axis=1)
    if unknown.any():
        raise ParameterError(
            "a model is fitted on origins whose outcomes are known. Received: "
            f"{int(unknown.sum())} that are not, the first at {windows.sessions[unknown][0]}"
        )
    return targets


class ResidualQuantiles:
    """Empirical quantiles of standardised outcomes, pooled or by symbol: filtered historical simulation.

    Parameters
    ----------
    by_symbol : bool
        Whether each symbol has quantiles of its own. A symbol that was not there to learn from, or had fewer
        than `minimum` outcomes, takes the pooled ones.

    Notes
    -----
    Barone-Adesi, Giannopoulos and Vosper, "VaR without Correlations for Portfolios of Derivative Securities",
    Journal of Futures Markets 19 (1999).
    """

    minimum = 100

    def __init__(self, by_symbol: bool) -> None:
        self.by_symbol = by_symbol
        self.symbols: NDArray[np.str_] | None = None
        self.values: Array | None = None

    def fit(self, windows: Windows, standardised: Array) -> Self:
        """Learn from standardised outcomes.

        Parameters
        ----------
        windows : Windows
            The origins of the outcomes.
        standardised : ndarray of shape (n_origins, n_horizons)
            Outcomes over their forecast scale; rows with NaN are left out.
        """
        usable = np.isfinite(standardised).all(axis=1)
        pooled = np.quantile(standardised[usable], LEVELS, axis=0).T
        names, tables = [""], [pooled]
        if self.by_symbol:
            series = windows.series
            for number in np.unique(series):
                mine = usable & (series == number)
                if mine.sum() >= self.minimum:
                    names.append(windows.panel.symbols[number])
                    tables.append(np.quantile(standardised[mine], LEVELS, axis=0).T)
        self.symbols, self.values = np.array(names), np.stack(tables)
        return self

    def predict(self, windows: Windows) -> Array:
        """Quantiles of the standardised outcome for each origin, shape (n_origins, n_horizons, n_levels)."""
        if self.symbols is None or self.values is None:
            raise NotFittedError("residual quantiles are fitted before they are used; call fit first")
        place = {str(name): index for index, name in enumerate(self.symbols)}
        of_series = np.array([place.get(symbol, 0) for symbol in windows.panel.symbols])
        result: Array = self.values[of_series[windows.series]]
        return result

    @property
    def parameters(self) -> int:
        """Number of quantiles held."""
        return 0 if self.values is None else int(self.values.size)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save."""
        if self.symbols is None or self.values is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        return {"residual_symbols": self.symbols, "residual_values": self.values}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> Self:
        """Take back what `state` gave."""
        self.symbols = state["residual_symbols"].astype(np.str_)
        self.values = state["residual_values"].astype(np.float64)
        return self


def save_arrays(folder: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write arrays to ``state.npz`` in a folder."""
    np.savez(folder / STATE, **arrays)  # type: ignore[arg-type]


def load_arrays(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Read arrays from ``state.npz`` in a folder; nothing in it is executed."""
    with np.load(folder / STATE, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
