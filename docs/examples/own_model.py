"""A model of one's own: anything with `fit` and `predict`, held against those that are here."""

from __future__ import annotations

from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from forecaster import (
    Panel,
    QuantileForecast,
    ResidualQuantiles,
    SampleSource,
    Windows,
    backtest,
    daily_losses,
    folds,
    forecast_table,
    known_targets,
    load_prices,
    row_scores,
    verdicts,
)
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.naive import HistoricalForecaster


class TwoSpeedForecaster:
    """The width of tomorrow is half what this month says, and half what the last months say."""

    def __init__(self) -> None:
        self.residuals = ResidualQuantiles(by_symbol=False)

    @property
    def parameters(self) -> int:
        """Number of quantiles held."""
        return self.residuals.parameters

    def _scales(self, windows: Windows) -> npt.NDArray[np.float64]:
        """Mean absolute return over 22 and 120 sessions that end at the origin; none looks further."""
        sizes = np.abs(windows.panel.returns)
        recent, past = (
            sizes[windows.rows[:, None] - np.arange(sessions)].mean(axis=1) for sessions in (22, 120)
        )
        horizons = np.sqrt(np.array(windows.horizons, dtype=np.float64))
        scales: npt.NDArray[np.float64] = (0.5 * (recent + past))[:, None] * horizons
        return scales

    def fit(self, windows: Windows) -> Self:
        """Take the quantiles of past outcomes over their scale."""
        self.residuals.fit(windows, known_targets(windows) / self._scales(windows))
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Stretch the quantiles by each origin's scale."""
        return self.residuals.forecast(windows, self._scales(windows))


panel = Panel.from_prices(load_prices(SampleSource(("SP500", "NASDAQ")), (), 400).frames)
over = folds(panel, (1, 5), np.datetime64("2012-01-01"), None, 504, warm_up=120)
models = {"historical": HistoricalForecaster, "ewma": EwmaForecaster, "two_speed": TwoSpeedForecaster}
table = pd.concat(forecast_table(one.model, one.fold.test, one.forecast) for one in backtest(models, over))
losses = daily_losses(table.assign(crps=row_scores(table)["crps"]).dropna(subset="crps"))
columns = ["model", "horizon", "crps_ratio", "p_value", "verdict", "skill"]
print(verdicts(losses, "ewma", "historical")[columns].round(3).to_string(index=False))
