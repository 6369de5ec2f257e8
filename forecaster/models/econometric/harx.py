"""Pooled linear models of the size of the coming return: one regression for all symbols."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from forecaster import features
from forecaster.errors import NotFittedError
from forecaster.features import CLIP, HARX_WINDOWS, LEVERAGE_WINDOWS, MARKET_WINDOWS, har_terms
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, save_arrays
from forecaster.models.econometric.garch import GarchForecaster, fit_each, horizon_scales, last_known
from forecaster.quantiles import QuantileForecast
from forecaster.returns import forward_returns
from forecaster.windows import Universe, Windows

__all__ = ["HarxForecaster", "regressor_names"]

Array = NDArray[np.float64]

PENALTY = 1e-3
"""Added to the diagonal of the normal equations: it keeps collinear regressors apart and shrinks nothing."""

SCALE_FLOOR = 0.25
"""Smallest forecast scale, as a share of the EWMA one."""

_MARKET_TERMS = [
    *(HARX_WINDOWS.index(window) for window in MARKET_WINDOWS),
    *range(len(HARX_WINDOWS), len(HARX_WINDOWS) + len(LEVERAGE_WINDOWS)),
]
"""Of a symbol's own terms, those that stand in for the market's."""

INVERSE_UNIT = 0.01
"""A daily volatility of one percent: the regressor 0.01 / volatility lets the scale revert to a level."""


def regressor_names(cross_section: bool) -> tuple[str, ...]:
    """Name the regressors, in their order."""
    own = [f"abs_{window}" for window in HARX_WINDOWS] + [f"negative_{window}" for window in LEVERAGE_WINDOWS]
    market = [f"market_abs_{window}" for window in MARKET_WINDOWS]
    market += [f"market_negative_{window}" for window in LEVERAGE_WINDOWS]
    cross = [f"cross_abs_{window}" for window in MARKET_WINDOWS] if cross_section else []
    return (*own, *market, "abs_expanding", "inverse_volatility", "constant", *cross, "gjr", "market_gjr")


class HarxForecaster:
    """Heterogeneous autoregression of absolute returns with leverage, the market and GJR volatility.

    For each horizon h one least-squares fit over all symbols and training origins: the size of the coming
    return over its EWMA scale, on means of past sizes over the EWMA volatility. The scale of the forecast is
    the fit times the EWMA scale; its quantiles are those of all past outcomes over their scale.

    Parameters
    ----------
    cross_section : bool
        Whether means of the members' relative sizes are regressors too.
    target : {"total", "daily"}
        The size that is fitted: of the return over h sessions, or the mean of the daily ones among them.

    Notes
    -----
    With EWMA volatility s, return r, market return m and c the cross-section of
    `forecaster.windows.Panel.cross_section`, the regressors are, over s: mean absolute r over 1, 5, 22, 66
    and 250 sessions and since the start; mean negative r over 1 and 5; mean absolute m over 1, 5, 22 and 66;
    mean negative m over 1 and 5; 0.01; mean c over 1, 5, 22 and 66 times the mean absolute r since the
    start; and over s times the root of h: the GJR volatility over h sessions, own and the market's; and a
    constant. The target is clipped at 8. Where no session of the market has closed yet, the symbol's own
    figures stand in for it.

    After Corsi, Journal of Financial Econometrics 7 (2009), and Ghysels, Santa-Clara and Valkanov, Journal of
    Econometrics 131 (2006), on absolute returns as regressors.
    """

    def __init__(self, cross_section: bool = False, target: Literal["total", "daily"] = "total") -> None:
        self.cross_section = cross_section
        self.target = target
        self.garch = GarchForecaster(asymmetric=True)
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.universe = Universe()
        self.market_estimates: Array | None = None
        self.coefficients: Array | None = None

    @property
    def parameters(self) -> int:
        """Number of coefficients, GARCH estimates and quantiles."""
        if self.coefficients is None or self.market_estimates is None:
            return 0
        estimates = [self.garch.estimates, self.market_estimates]
        garch = sum(int(np.isfinite(values).sum()) for values in estimates)
        return self.coefficients.size + garch + self.residuals.parameters

    def fit(self, windows: Windows) -> Self:
        """Fit GJR volatility, then the regression, then the residual quantiles."""
        learned = windows.pooled
        targets = known_targets(learned)
        self.universe = windows.panel.universe
        self.garch.estimate(windows)
        self.market_estimates = fit_each([self._known_market(windows)], asymmetric=True)[0]
        sizes = self._sizes(learned, targets)
        names = regressor_names(self.cross_section)
        gram = np.zeros((len(windows.horizons), len(names), len(names)))
        moment = np.zeros((len(windows.horizons), len(names)))
        for mine, regressors in self.regressors(learned):
            for horizon, columns in enumerate(regressors):
                gram[horizon] += columns.T @ columns
                moment[horizon] += columns.T @ sizes[mine, horizon]
        penalty = PENALTY * np.eye(len(names))
        self.coefficients = np.stack(
            [solve(g + penalty, m, assume_a="pos") for g, m in zip(gram, moment, strict=True)]
        )
        self.residuals.fit(learned, targets / self.scales(learned))
        return self

    def _known_market(self, windows: Windows) -> Array:
        market = windows.panel.market(windows.panel.universe)
        return market.values[market.closings <= last_known(windows)]

    def garch_fits(self, windows: Windows) -> list[tuple[Array, bool]]:
        """Return the series that a `fit` estimates GARCH on, and whether with asymmetry."""
        return [*self.garch.garch_fits(windows), (self._known_market(windows), True)]

    def _sizes(self, windows: Windows, targets: Array) -> Array:
        """Compute what is regressed, over the EWMA scale and clipped, shape (n_origins, n_horizons)."""
        if self.target == "total":
            return np.minimum(np.abs(targets) / windows.scales, CLIP)
        panel, ahead = windows.panel, windows.horizons
        sizes = np.empty_like(targets)
        for part, mine in windows.by_series():
            sums = forward_returns(np.abs(panel.returns[part]), ahead)
            sizes[mine] = sums[windows.rows[mine] - part.start] / np.array(ahead)
        return np.minimum(sizes / windows.volatility[:, None], CLIP)

    def regressors(self, windows: Windows) -> Iterator[tuple[NDArray[np.int64], list[Array]]]:
        """Compute the regressors of one series after the other, in the order of `regressor_names`.

        Yields
        ------
        mine : ndarray of int
            Positions of the origins of the series.
        regressors : list of ndarray of shape (n, n_regressors)
            One for each horizon.
        """
        panel, ahead = windows.panel, windows.horizons
        roots = np.sqrt(np.array(ahead, dtype=np.float64))
        market = panel.market(self.universe)
        market_terms = har_terms(market.values, MARKET_WINDOWS)
        assert self.market_estimates is not None
        market_scales = horizon_scales(market.values, self.market_estimates, ahead)
        cross = panel.cross_section(self.universe)
        cross_terms = np.stack([features.running_mean(cross.values, w) for w in MARKET_WINDOWS], axis=-1)
        own_scales = self.garch.scales(windows)
        for part, mine in windows.by_series():
            rows = windows.rows[mine]
            returns, place = panel.returns[part], rows - part.start
            volatility = panel.volatility[rows][:, None]
            closed = panel.closed[rows]
            own = har_terms(returns, HARX_WINDOWS, place)
            usual = features.expanding_mean(np.abs(returns))[place][:, None]
            stand_in = own[:, _MARKET_TERMS]
            of_market = market.seen(closed, market_terms, stand_in)
            blocks = [own, of_market, usual, np.full_like(usual, INVERSE_UNIT)]
            blocks = [block / volatility for block in blocks] + [np.ones_like(usual)]
            if self.cross_section:
                ones = np.ones((len(rows), len(MARKET_WINDOWS)))
                relative = cross.seen(closed, cross_terms, ones)
                blocks.append(relative * np.maximum(usual, features.VOLATILITY_FLOOR) / volatility)
            garch = own_scales[mine] / (volatility * roots)
            market_garch = market.seen(closed, market_scales, own_scales[mine]) / (volatility * roots)
            base = np.concatenate(blocks, axis=1)
            yield (
                mine,
                [
                    np.column_stack([base, garch[:, horizon], market_garch[:, horizon]])
                    for horizon in range(len(ahead))
                ],
            )

    def scales(self, windows: Windows) -> Array:
        """Scale of the return over each horizon, shape (n_origins, n_horizons)."""
        if self.coefficients is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        scales = windows.scales
        for mine, regressors in self.regressors(windows):
            scales[mine] *= self.stretch(regressors)
        return scales

    def stretch(self, regressors: list[Array]) -> Array:
        """Scale over the EWMA one, shape (n, n_horizons), from the regressors of one series."""
        if self.coefficients is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        # Not a matrix product: its rounding depends on how many rows there are.
        fitted = np.stack(
            [
                (columns * coefficients).sum(axis=1)
                for columns, coefficients in zip(regressors, self.coefficients, strict=True)
            ],
            axis=1,
        )
        stretch: Array = np.maximum(fitted, SCALE_FLOOR)
        return stretch

    def predict(self, windows: Windows) -> QuantileForecast:
        """Stretch the pooled quantiles by each origin's scale; say which members have no prices."""
        windows.panel.warn_of_missing(self.universe, "the market and the cross-section are")
        return self.residuals.forecast(windows, self.scales(windows))

    def save(self, folder: Path) -> None:
        """Write the coefficients, the estimates, the universe and the quantiles."""
        if self.coefficients is None or self.market_estimates is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        arrays = {
            "coefficients": self.coefficients,
            "market_estimates": self.market_estimates,
            "members": np.array(self.universe.members, dtype=np.str_),
            "market": np.array(self.universe.market or "", dtype=np.str_),
        }
        save_arrays(folder, arrays | self.garch.state() | self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        arrays = load_arrays(folder)
        self.coefficients = arrays["coefficients"].astype(np.float64)
        self.market_estimates = arrays["market_estimates"].astype(np.float64)
        members = tuple(str(member) for member in arrays["members"])
        self.universe = Universe(members, str(arrays["market"]) or None)
        self.garch.restore(arrays)
        self.residuals.restore(arrays)
        return self
