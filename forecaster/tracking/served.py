"""The registered model: prices in, quantiles out.

MLflow runs this file when it loads the model ("models from code"), so it ends by naming the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import pandas as pd

from forecaster.prices.base import price_table
from forecaster.prices.checks import check
from forecaster.tracking.saved import read_model
from forecaster.walkforward import latest_table
from forecaster.windows import Panel, Windows

__all__ = ["ServedModel"]


class ServedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """Forecasts at the last session of each symbol, from a table of its prices."""

    def load_context(self, context: Any) -> None:
        """Make the model again from the saved folder."""
        self.saved = read_model(Path(context.artifacts["model"]))

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """Forecast from prices.

        Parameters
        ----------
        context : PythonModelContext
        model_input : DataFrame
            Columns ``symbol, session, close`` and, for prices as traded, ``dividend`` and ``split``; one row
            a session, an empty close for a holiday. The whole history that is known should be given:
            expanding averages are taken over it.
        params : None
            There are none.

        Returns
        -------
        DataFrame
            As `forecaster.walkforward.latest_table` gives it.

        Raises
        ------
        SymbolError
            If the prices of a symbol fail the checks that every job makes: too few, twice the same session,
            too many that cannot be true.
        """
        del context, params
        job = self.saved.job
        frames = {
            str(symbol): check(str(symbol), price_table(rows.set_index("session")), job.warm_up + 1)[0]
            for symbol, rows in model_input.groupby("symbol", sort=True)
        }
        panel = Panel.from_prices(frames, job.returns, job.market, variance=job.variance)
        windows = Windows(panel, panel.last_rows(), job.horizons)
        return latest_table(self.saved.name, windows, self.saved.model.predict(windows))


mlflow.models.set_model(ServedModel())
