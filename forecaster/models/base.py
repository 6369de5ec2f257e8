"""What every model is: fitted on windows, predicting quantiles, saved without pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import NotFittedError, ParameterError
from forecaster.quantiles import LEVELS, QuantileForecast, Tails
from forecaster.windows import Windows

__all__ = [
    "Forecaster",
    "ResidualQuantiles",
    "SeesKernels",
    "known_targets",
    "load_arrays",
    "row_by_row",
    "save_arrays",
]

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
    The means of the outcomes at or beyond the outermost quantiles, and the variance of all of them, state the
    tails of a forecast.

    Barone-Adesi, Giannopoulos and Vosper, "VaR without Correlations for Portfolios of Derivative Securities",
    Journal of Futures Markets 19 (1999).
    """

    minimum = 100

    def __init__(self, by_symbol: bool) -> None:
        self.by_symbol = by_symbol
        self.symbols: NDArray[np.str_] | None = None
        self.values: Array | None = None
        self.tails: Array | None = None

    def fit(self, windows: Windows, standardised: Array) -> Self:
        """Learn from standardised outcomes.

        Parameters
        ----------
        windows : Windows
            The origins of the outcomes.
        standardised : ndarray of shape (n_origins, n_horizons)
            Outcomes over their forecast scale; rows with NaN are left out.
        """
        usable = np.asarray(np.isfinite(standardised).all(axis=1))
        names, tables = [""], [_quantiles_and_tails(standardised[usable])]
        if self.by_symbol:
            for part, mine in windows.by_series():
                own = standardised[mine[usable[mine]]]
                if len(own) >= self.minimum:
                    names.append(windows.panel.symbols[int(windows.panel.series_of(part.start))])
                    tables.append(_quantiles_and_tails(own))
        self.symbols = np.array(names)
        self.values = np.stack([quantiles for quantiles, _ in tables])
        self.tails = np.stack([tails for _, tails in tables])
        return self

    def predict(self, windows: Windows) -> Array:
        """Quantiles of the standardised outcome for each origin, shape (n_origins, n_horizons, n_levels)."""
        if self.values is None:
            raise NotFittedError("residual quantiles are fitted before they are used; call fit first")
        result: Array = self.values[self._table(windows)]
        return result

    def forecast(self, windows: Windows, scale: Array, location: Array | None = None) -> QuantileForecast:
        """Stretch the quantiles and the tails by each origin's scale, and place them.

        Parameters
        ----------
        windows : Windows
        scale : ndarray of shape (n_origins, n_horizons)
            Positive.
        location : ndarray of shape (n_origins, n_horizons), optional
            Zero where it is not given.
        """
        if self.values is None or self.tails is None:
            raise NotFittedError("residual quantiles are fitted before they are used; call fit first")
        table = self._table(windows)
        place = np.zeros_like(scale) if location is None else location
        values = place[:, :, None] + scale[:, :, None] * self.values[table]
        low, high, variance = np.moveaxis(self.tails[table], -1, 0)
        # No rounding may put the mean beyond a quantile inside it.
        tails = Tails(
            np.minimum(place + scale * low, values[:, :, 0]),
            np.maximum(place + scale * high, values[:, :, -1]),
            np.square(scale) * variance,
        )
        return QuantileForecast(values, windows.horizons, tails)

    def _table(self, windows: Windows) -> NDArray[np.int64]:
        """Which table each origin takes: that of its symbol, or the pooled one."""
        if self.symbols is None:
            raise NotFittedError("residual quantiles are fitted before they are used; call fit first")
        place = {str(name): index for index, name in enumerate(self.symbols)}
        of_series = np.array([place.get(symbol, 0) for symbol in windows.panel.symbols])
        return of_series[windows.series]

    @property
    def parameters(self) -> int:
        """Number of quantiles held."""
        return 0 if self.values is None else int(self.values.size)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save."""
        if self.symbols is None or self.values is None or self.tails is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        return {
            "residual_symbols": self.symbols,
            "residual_values": self.values,
            "residual_tails": self.tails,
        }

    def restore(self, state: dict[str, NDArray[np.generic]]) -> Self:
        """Take back what `state` gave."""
        self.symbols = state["residual_symbols"].astype(np.str_)
        self.values = state["residual_values"].astype(np.float64)
        self.tails = state["residual_tails"].astype(np.float64)
        return self


def _quantiles_and_tails(standardised: Array) -> tuple[Array, Array]:
    """Take the quantiles (n_horizons, n_levels), and the two tail means and the variance (n_horizons, 3)."""
    quantiles: Array = np.quantile(standardised, LEVELS, axis=0).T
    beyond = [
        [
            column[column <= levels[0]].mean(),
            column[column >= levels[-1]].mean(),
            column.var(),
        ]
        for column, levels in zip(standardised.T, quantiles, strict=True)
    ]
    return quantiles, np.array(beyond)


def row_by_row(inputs: Array, coefficients: Array) -> Array:
    """Multiply inputs by coefficients, so that the bits of a row do not depend on which others there are.

    BLAS adds in another order for another number of rows, and the bits of a forecast must not depend on what
    else is forecast.

    Parameters
    ----------
    inputs : ndarray of shape (n_rows, n_inputs)
    coefficients : ndarray of shape (n_inputs, n_outputs)

    Returns
    -------
    ndarray of shape (n_rows, n_outputs)
        ``inputs @ coefficients``, added up input by input.
    """
    total = np.zeros((len(inputs), coefficients.shape[1]))
    for values, weights in zip(inputs.T, coefficients, strict=True):
        total += values[:, None] * weights
    return total


def save_arrays(folder: Path, arrays: dict[str, NDArray[np.generic]]) -> None:
    """Write arrays to ``state.npz`` in a folder."""
    np.savez(folder / STATE, **arrays)  # type: ignore[arg-type]


def load_arrays(folder: Path) -> dict[str, NDArray[np.generic]]:
    """Read arrays from ``state.npz`` in a folder; nothing in it is executed."""
    with np.load(folder / STATE, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
