"""GARCH(1,1) and GJR-GARCH(1,1,1) with Student t shocks, one fit a symbol, by ``arch``.

The variance of the next session, made at session t, is

    v[t] = omega + (alpha + gamma * 1[e[t] < 0]) * e[t]^2 + beta * v[t-1],    e[t] = r[t] - mean

(Bollerslev, Journal of Econometrics 31, 1986; Glosten, Jagannathan and Runkle, Journal of Finance 48, 1993).
The parameters are estimated at a refit from what is known then; the recursion runs on with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

from forecaster import features
from forecaster.errors import NotFittedError
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows

__all__ = [
    "PARAMETERS",
    "PERSISTENCE_CAP",
    "FitsGarch",
    "GarchForecaster",
    "fit_each",
    "fit_garch",
    "horizon_scales",
    "last_known",
    "load_fits",
    "next_variance",
    "remember",
    "save_fits",
    "unknown_fits",
]

Array = NDArray[np.float64]

PARAMETERS = ("mean", "omega", "alpha", "gamma", "beta", "degrees_of_freedom", "start")
"""What a fit gives, in units of a daily return; ``start`` is the variance of the first session."""

MINIMUM = 250
"""Returns that a fit needs; a symbol with fewer has EWMA volatility."""

PERSISTENCE_CAP = 0.9995
"""Largest persistence in the variance over h sessions: a third of the fits to stocks come out above 0.999,
and one above 1 would let the variance grow without end."""

SCALE_FLOOR = 1e-5
"""Smallest standard deviation over any horizon: a tenth of a basis point, so low that the variance is that of
the fit. Where prices hardly move it does fall this far, and outcomes over it are in the hundreds."""

PERCENT = 0.01
"""Unit of the returns that the optimiser sees: its tolerances are made for numbers about 1."""

# A second start, over the variance of the sample, beside the grid that `arch` searches: from either alone the
# optimiser ends now and then in a worse optimum.
_START = {"alpha": 0.05, "gamma": 0.05, "beta": 0.9, "degrees_of_freedom": 8.0}

_KEPT = 20_000
_fits: dict[tuple[bytes, bool], Array] = {}


def fit_garch(returns: Array, asymmetric: bool) -> Array:
    """Estimate the parameters of one series by maximum likelihood, from two starting points.

    Parameters
    ----------
    returns : ndarray of shape (n_sessions,)
        Daily log returns without NaN.
    asymmetric : bool
        Whether a loss moves the variance more than a gain (GJR); else gamma is 0.

    Returns
    -------
    ndarray of shape (len(PARAMETERS),)
        The better of the two optima; NaN everywhere where the series has fewer than `MINIMUM` returns, does
        not move, or no optimum is finite.
    """
    from arch import arch_model

    none = np.full(len(PARAMETERS), np.nan)
    if len(returns) < MINIMUM or np.sqrt(np.mean(np.square(returns))) < features.VOLATILITY_FLOOR:
        return none
    scaled = returns / PERCENT
    model = arch_model(scaled, mean="Constant", p=1, o=int(asymmetric), q=1, dist="t", rescale=False)
    start = dict(_START) if asymmetric else dict(_START) | {"gamma": 0.0}
    left = 1.0 - start["alpha"] - start["gamma"] / 2.0 - start["beta"]
    second = [scaled.mean(), left * scaled.var(), start["alpha"], *[start["gamma"]] * asymmetric]
    second += [start["beta"], start["degrees_of_freedom"]]
    best, likelihood = none, -np.inf
    for values in (None, np.array(second)):
        result = model.fit(disp="off", show_warning=False, starting_values=values)
        if result.loglikelihood > likelihood and np.isfinite(result.params).all():
            mean, omega, alpha, *gamma, beta, degrees = result.params
            first = result.conditional_volatility[0] ** 2
            likelihood = result.loglikelihood
            best = np.array(
                [
                    mean * PERCENT,
                    omega * PERCENT**2,
                    alpha,
                    *(gamma or [0.0]),
                    beta,
                    degrees,
                    first * PERCENT**2,
                ]
            )
    return best


def fit_each(series: Sequence[Array], asymmetric: bool) -> Array:
    """Estimate the parameters of many series.

    Returns
    -------
    ndarray of shape (n_series, len(PARAMETERS))
        As `fit_garch` gives them. A fit that this process has made before is not made again: in one backtest
        several models need the same.
    """
    keys = [_key(values, asymmetric) for values in series]
    for key, values in zip(keys, series, strict=True):
        if key not in _fits:
            _fits[key] = fit_garch(values, asymmetric)
    result = np.array([_fits[key] for key in keys]).reshape(-1, len(PARAMETERS))
    for key in list(_fits)[: max(len(_fits) - _KEPT, 0)]:
        _fits.pop(key, None)
    return result


def _key(returns: Array, asymmetric: bool) -> tuple[bytes, bool]:
    return hashlib.blake2b(returns.tobytes()).digest(), asymmetric


def remember(series: Sequence[Array], asymmetric: bool, estimates: Array) -> None:
    """Take estimates that `fit_garch` made in another process, so that this one need not make them.

    Parameters
    ----------
    series : sequence of ndarray
    asymmetric : bool
    estimates : ndarray of shape (n_series, len(PARAMETERS))
    """
    keys = [_key(values, asymmetric) for values in series]
    _fits.update(zip(keys, estimates, strict=True))


def unknown_fits(wanted: Sequence[tuple[Array, bool]]) -> list[tuple[Array, bool]]:
    """Leave out what this process has estimated before, and what is there twice."""
    keys = [_key(*each) for each in wanted]
    return list({key: each for key, each in zip(keys, wanted, strict=True) if key not in _fits}.values())


def save_fits(path: Path) -> None:
    """Write all estimates that this process knows, for others to `load_fits`."""
    arrays = {
        "digests": np.frombuffer(b"".join(digest for digest, _ in _fits), dtype=np.uint8).reshape(-1, 64),
        "asymmetric": np.array([asymmetric for _, asymmetric in _fits], dtype=bool),
        "estimates": np.array(list(_fits.values())).reshape(-1, len(PARAMETERS)),
    }
    np.savez(path, allow_pickle=False, **arrays)


def load_fits(path: Path) -> None:
    """Take the estimates that another process wrote by `save_fits`."""
    with np.load(path, allow_pickle=False) as archive:
        for digest, asymmetric, estimates in zip(
            archive["digests"], archive["asymmetric"], archive["estimates"], strict=True
        ):
            _fits[digest.tobytes(), bool(asymmetric)] = estimates


def next_variance(returns: Array, parameters: Array) -> Array:
    """Variance of the next session's return, made at each session with that session's return included.

    Parameters
    ----------
    returns : ndarray of shape (n_sessions,)
        Daily log returns from the first session that the parameters were estimated on.
    parameters : ndarray of shape (len(PARAMETERS),)

    Returns
    -------
    ndarray of shape (n_sessions,)
    """
    mean, omega, alpha, gamma, beta, _, start = parameters
    shocks = returns - mean
    moves = omega + (alpha + gamma * (shocks < 0)) * np.square(shocks)
    variance: Array = lfilter([1.0], [1.0, -beta], moves, zi=[beta * start])[0]
    return variance


def horizon_scales(returns: Array, parameters: Array, horizons: tuple[int, ...]) -> Array:
    """Forecast, at each session, the standard deviation of the return over the next h sessions.

    The variance of the session k ahead reverts to its mean level by the persistence, alpha + gamma / 2 +
    beta for symmetric shocks, capped at `PERSISTENCE_CAP`; that over h sessions is the sum.

    Parameters
    ----------
    returns : ndarray of shape (n_sessions,)
    parameters : ndarray of shape (len(PARAMETERS),)
        Where they are NaN, the scale is the EWMA volatility times the root of h.
    horizons : tuple of int

    Returns
    -------
    ndarray of shape (n_sessions, n_horizons)
        At least `SCALE_FLOOR`.
    """
    ahead = np.array(horizons, dtype=np.float64)
    if np.isnan(parameters).any():
        return features.ewma_volatility(returns)[:, None] * np.sqrt(ahead)
    _, omega, alpha, gamma, beta, _, _ = parameters
    persistence = min(alpha + gamma / 2.0 + beta, PERSISTENCE_CAP)
    level = omega / (1.0 - persistence)
    fading = (1.0 - persistence**ahead) / (1.0 - persistence)
    excess = next_variance(returns, parameters) - level
    variance = ahead * level + excess[:, None] * fading
    scales: Array = np.maximum(np.sqrt(np.maximum(variance, 0.0)), SCALE_FLOOR)
    return scales


@runtime_checkable
class FitsGarch(Protocol):
    """A model whose `fit` estimates GARCH, which takes seconds a block of series and can be done ahead."""

    def garch_fits(self, windows: Windows) -> list[tuple[Array, bool]]:
        """Return the series that a `fit` estimates GARCH on, and whether with asymmetry."""
        ...


def last_known(windows: Windows) -> np.datetime64:
    """Time by which every outcome of training origins was known: what closed by then may be learned from."""
    panel = windows.panel
    ends = [
        min(int(windows.rows[mine].max()) + max(windows.horizons), part.stop - 1)
        for part, mine in windows.by_series()
    ]
    evening: np.datetime64 = panel.closed[ends].max()
    return evening


class GarchForecaster:
    """GARCH-t or GJR-GARCH-t by symbol, times quantiles of past outcomes over their scale.

    Parameters
    ----------
    asymmetric : bool
        GJR: a loss moves the variance more than a gain.
    by_symbol : bool
        Whether the standardised outcomes of each symbol give its own quantiles, or all are pooled.
    window : int, optional
        Estimate on the last so many returns of a symbol, on all of them where not given. The variance always
        runs from the first.

    Notes
    -----
    A symbol that was not there to learn from, or had fewer than 250 returns, has EWMA volatility.
    """

    def __init__(self, asymmetric: bool = True, by_symbol: bool = True, window: int | None = None) -> None:
        self.asymmetric = asymmetric
        self.window = window
        self.residuals = ResidualQuantiles(by_symbol)
        self.symbols: tuple[str, ...] | None = None
        self.estimates = np.empty((0, len(PARAMETERS)))

    @property
    def parameters(self) -> int:
        """Number of estimates and quantiles."""
        return int(np.isfinite(self.estimates).sum()) + self.residuals.parameters

    def fit(self, windows: Windows) -> Self:
        """Estimate on each symbol's returns up to the last outcome, then take the residual quantiles."""
        learned = windows if self.residuals.by_symbol else windows.pooled
        targets = known_targets(learned)
        self.estimate(windows)
        self.residuals.fit(learned, targets / self.scales(learned))
        return self

    def estimate(self, windows: Windows) -> None:
        """Estimate the parameters of every series of the panel, from what training origins may know."""
        self.symbols = windows.panel.symbols
        self.estimates = fit_each(self._known(windows), self.asymmetric)

    def _known(self, windows: Windows) -> list[Array]:
        panel, evening = windows.panel, last_known(windows)
        return [
            panel.returns[part][panel.closed[part] <= evening][-(self.window or 0) :] for part in panel.parts
        ]

    def garch_fits(self, windows: Windows) -> list[tuple[Array, bool]]:
        """Return the series that a `fit` estimates GARCH on, and whether with asymmetry."""
        return [(values, self.asymmetric) for values in self._known(windows)]

    def scales(self, windows: Windows) -> Array:
        """Forecast the standard deviation over each horizon, shape (n_origins, n_horizons)."""
        if self.symbols is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        panel, place = windows.panel, {symbol: index for index, symbol in enumerate(self.symbols)}
        result = np.empty((len(windows), len(windows.horizons)))
        for part, mine in windows.by_series():
            index = place.get(panel.symbols[int(panel.series_of(part.start))])
            estimates = np.full(len(PARAMETERS), np.nan) if index is None else self.estimates[index]
            scales = horizon_scales(panel.returns[part], estimates, windows.horizons)
            result[mine] = scales[windows.rows[mine] - part.start]
        return result

    def predict(self, windows: Windows) -> QuantileForecast:
        """Scale the quantiles by each origin's volatility."""
        return self.residuals.forecast(windows, self.scales(windows))

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays of the estimates, to save."""
        if self.symbols is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        return {"garch_symbols": np.array(self.symbols, dtype=np.str_), "garch_estimates": self.estimates}

    def restore(self, state: dict[str, NDArray[np.generic]]) -> Self:
        """Take back what `state` gave."""
        self.symbols = tuple(str(symbol) for symbol in state["garch_symbols"])
        self.estimates = state["garch_estimates"].astype(np.float64)
        return self

    def save(self, folder: Path) -> None:
        """Write the estimates and the quantiles."""
        save_arrays(folder, self.state() | self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read the estimates and the quantiles."""
        arrays = load_arrays(folder)
        self.residuals.restore(arrays)
        return self.restore(arrays)
