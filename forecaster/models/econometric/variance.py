"""Models of the variance itself: its forecast is the aim, and a scale for quantiles comes with it."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from forecaster import features
from forecaster.errors import NotFittedError
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.quantiles import QuantileForecast, Tails
from forecaster.windows import Universe, Windows

__all__ = ["HarLogForecaster", "QlikeForecaster"]

Array = NDArray[np.float64]

GLM_PENALTY = 1e-4
"""Weight of the squared coefficients of the GLM, over standardised regressors."""

SMALLEST_RATIO = 0.01
"""Smallest outcome over its EWMA variance that coefficients are fitted to: below it lies chance, such as a
price that did not move, whose log would rule a regression; and a gamma distribution has no zero."""


class _VarianceForecaster:
    """What the variance models share: a log-linear fit by horizon, its mean put right, quantiles by FHS."""

    def __init__(self) -> None:
        self.universe = Universe()
        self.coefficients: Array | None = None
        self.factors = np.empty(0)
        self.residuals = ResidualQuantiles(by_symbol=False)

    @property
    def parameters(self) -> int:
        """Number of coefficients, factors and quantiles."""
        coefficients = 0 if self.coefficients is None else self.coefficients.size
        return coefficients + self.factors.size + self.residuals.parameters

    def regressors(self, windows: Windows) -> Array:
        """Give the regressors with a constant first, shape (n_origins, n_regressors)."""
        raise NotImplementedError

    def ewma(self, windows: Windows) -> Array:
        """Give the EWMA of the daily variances times h, shape (n_origins, n_horizons)."""
        return np.exp(_log_ewma(windows))[:, None] * np.array(windows.horizons, dtype=np.float64)

    def _base(self, windows: Windows) -> Array:
        """Give the variance that the log-linear fit multiplies, shape (n_origins, n_horizons)."""
        raise NotImplementedError

    def _estimate(self, regressors: Array, ratio: Array) -> Array:
        """Give the coefficients of the log of an outcome over its base, shape (n_regressors,)."""
        raise NotImplementedError

    def fit(self, windows: Windows) -> Self:
        """Fit each horizon, put the mean of the forecast right, then take the residual quantiles."""
        windows = windows.pooled
        targets = known_targets(windows)
        self.universe = windows.panel.universe
        outcomes, regressors = windows.realised_variance, self.regressors(windows)
        held = np.maximum(outcomes, SMALLEST_RATIO * self.ewma(windows)) / self._base(windows)
        self.coefficients = np.stack([self._estimate(regressors, ratio) for ratio in held.T], axis=0)
        self.factors = np.ones(len(windows.horizons))
        fitted = self.variance(windows, regressors)
        # Without this an exponential of a fitted log is a median, not a mean (Duan, Journal of the American
        # Statistical Association 78, 1983), and every rival looks good.
        self.factors = (outcomes / fitted).mean(axis=0)
        self.residuals.fit(windows, targets / np.sqrt(fitted * self.factors))
        return self

    def variance(self, windows: Windows, regressors: Array | None = None) -> Array:
        """Forecast the variance over each horizon.

        Parameters
        ----------
        windows : Windows
        regressors : ndarray, optional
            Those of the windows, where the caller has them already.

        Returns
        -------
        ndarray of shape (n_origins, n_horizons)
        """
        if self.coefficients is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        regressors = self.regressors(windows) if regressors is None else regressors
        # Not a matrix product: its rounding depends on how many rows there are.
        logs = np.stack([(regressors * row).sum(axis=1) for row in self.coefficients], axis=1)
        variance: Array = np.exp(logs) * self._base(windows) * self.factors
        return variance

    def predict(self, windows: Windows) -> QuantileForecast:
        """State the variance, and stretch the pooled quantiles by its root."""
        variance = self.variance(windows)
        forecast = self.residuals.forecast(windows, np.sqrt(variance))
        assert forecast.tails is not None
        tails = Tails(forecast.tails.low, forecast.tails.high, variance)
        return QuantileForecast(forecast.values, windows.horizons, tails)

    def save(self, folder: Path) -> None:
        """Write the coefficients, the factors, the universe and the quantiles."""
        if self.coefficients is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        arrays = {
            "coefficients": self.coefficients,
            "factors": self.factors,
            "members": np.array(self.universe.members, dtype=np.str_),
            "market": np.array(self.universe.market or "", dtype=np.str_),
        }
        save_arrays(folder, arrays | self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        arrays = load_arrays(folder)
        self.coefficients = arrays["coefficients"].astype(np.float64)
        self.factors = arrays["factors"].astype(np.float64)
        members = tuple(str(member) for member in arrays["members"])
        self.universe = Universe(members, str(arrays["market"]) or None)
        self.residuals.restore(arrays)
        return self


class HarLogForecaster(_VarianceForecaster):
    """Heterogeneous autoregression of the log variance, pooled over symbols.

    The log of the variance over the next h sessions on the logs of its daily means over past windows, by
    least squares; the forecast is exp(fit) times the mean of outcome / exp(fit) in training.

    Parameters
    ----------
    windows : tuple of int
        Sessions of the means.

    Notes
    -----
    Corsi, "A Simple Approximate Long-Memory Model of Realized Volatility", Journal of Financial Econometrics
    7 (2009), section 2.3, in logs. He takes a day, a week and a month of intraday variances; squared daily
    returns are so much noisier that without a quarter and a year the model falls behind EWMA.
    """

    def __init__(self, windows: tuple[int, ...] = features.HARX_WINDOWS) -> None:
        super().__init__()
        self.windows = windows

    def regressors(self, windows: Windows) -> Array:
        """Give a constant and the logs of the means, shape (n_origins, 1 + n_windows)."""
        panel = windows.panel
        variances = panel.variances
        result = np.ones((len(windows), 1 + len(self.windows)))
        for part, mine in windows.by_series():
            place = windows.rows[mine] - part.start
            for column, window in enumerate(self.windows, start=1):
                mean = features.running_mean(variances[part], window)
                result[mine, column] = features.log_variance(mean[place])
        return result

    def _base(self, windows: Windows) -> Array:
        return np.ones((len(windows), len(windows.horizons)))

    def _estimate(self, regressors: Array, ratio: Array) -> Array:
        coefficients = np.linalg.lstsq(regressors, np.log(ratio), rcond=None)[0]
        return np.asarray(coefficients, dtype=np.float64)


class QlikeForecaster(_VarianceForecaster):
    """Log-linear model of the variance that minimises QLIKE, pooled over symbols: a gamma GLM.

    QLIKE is the deviance of a gamma distribution, so that a generalised linear model with a log link
    minimises it. The regressors, with v the daily variance, w its EWMA and r the return: logs of the mean v
    over 1, 5, 22, 66 and 250 sessions over w; log w; r, its negative part and the sum of negative r over five
    sessions, over the root of w; log |r| over the root of w; and the mean over the members of log v and of
    log w, less the symbol's own log w. The fit multiplies w times h.

    Notes
    -----
    Patton, "Volatility Forecast Comparison Using Imperfect Volatility Proxies", Journal of Econometrics 160
    (2011), on QLIKE.
    """

    regressor_count = 8 + len(features.HARX_WINDOWS)
    """Columns of `regressors`."""

    def _base(self, windows: Windows) -> Array:
        return self.ewma(windows)

    def regressors(self, windows: Windows) -> Array:
        """Give the regressors with a constant first, shape (n_origins, regressor_count)."""
        panel, ewma = windows.panel, _log_ewma(windows)
        cross = panel.cross_variance(self.universe)
        result = np.empty((len(windows), self.regressor_count))
        for part, mine in windows.by_series():
            rows, log_ewma = windows.rows[mine], ewma[mine]
            place, root = rows - part.start, np.exp(log_ewma / 2.0)
            variances, returns = panel.variances[part], panel.returns[part]
            means = [features.running_mean(variances, window)[place] for window in features.HARX_WINDOWS]
            scaled = returns[place] / root
            losses = 5.0 * features.running_mean(np.minimum(returns, 0.0), 5)[place] / root
            clip = features.CLIP
            columns = [
                np.ones(len(rows)),
                *[features.log_variance(mean) - log_ewma for mean in means],
                log_ewma,
                np.clip(scaled, -clip, clip),
                np.clip(scaled, -clip, 0.0),
                np.maximum(losses, -clip),
                np.log(np.clip(np.abs(scaled), 0.05, clip)),
                *[mean.seen(panel.closed[rows], mean.values, log_ewma) - log_ewma for mean in cross],
            ]
            result[mine] = np.stack(columns, axis=1)
        return result

    def _estimate(self, regressors: Array, ratio: Array) -> Array:
        from sklearn.linear_model import GammaRegressor

        varying = regressors[:, 1:]
        mean, deviation = varying.mean(axis=0), varying.std(axis=0)
        deviation = np.where(deviation > 1e-9, deviation, 1.0)
        glm = GammaRegressor(alpha=GLM_PENALTY, max_iter=1000)
        glm.fit((varying - mean) / deviation, ratio)
        slopes = glm.coef_ / deviation
        return np.concatenate([[glm.intercept_ - (slopes * mean).sum()], slopes])


def _log_ewma(windows: Windows) -> Array:
    """Compute the log of the EWMA of the daily variances at each origin, shape (n_origins,)."""
    variances, result = windows.panel.variances, np.empty(len(windows))
    for part, mine in windows.by_series():
        logs = features.log_ewma_variance(variances[part])
        result[mine] = logs[windows.rows[mine] - part.start]
    return result
