"""The registered model: prices in, quantiles out.

MLflow runs this file when it loads the model ("models from code"), so it ends by naming the model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import pandas as pd

from forecaster.errors import SymbolError
from forecaster.job.panel import lay_out
from forecaster.prices.base import load_prices, price_table
from forecaster.tracking.saved import read_model
from forecaster.walkforward import latest_table
from forecaster.windows import Windows

__all__ = ["ServedModel"]


class _Given:
    """Prices that the caller gives, as a source."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._tables = {
            str(symbol): rows.set_index("session") for symbol, rows in table.groupby("symbol", sort=True)
        }

    def symbols(self) -> tuple[str, ...]:
        return tuple(self._tables)

    def load(self, symbol: str) -> pd.DataFrame:
        return price_table(self._tables[symbol])


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
            Columns ``symbol, session, close``, for prices as traded ``dividend`` and ``split`` and, where the
            job takes the variance from the range, ``open, high, low``; one row a session, an empty close for
            a holiday. The market, the covariates and the members of portfolios are among the symbols. The
            whole history that is known should be given: expanding averages are taken over it.
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
        DataError
            If a covariate has no prices.

        Warns
        -----
        UserWarning
            If a portfolio cannot be made of the prices of its members; it is then left out.
        """
        del context, params
        job = self.saved.job
        source = _Given(model_input)
        prices = load_prices(source, source.symbols(), job.warm_up + 1, covariates=job.covariates)
        for symbol, reason in prices.failures.items():
            raise SymbolError(symbol, reason)
        panel, failures = lay_out(job, prices.frames, job.warm_up + 1)
        for portfolio, reason in failures.items():
            warnings.warn(f"the portfolio {portfolio} is left out: {reason}", stacklevel=2)
        windows = Windows(panel, panel.last_rows(), job.horizons)
        return latest_table(self.saved.name, windows, self.saved.model.predict(windows))


mlflow.models.set_model(ServedModel())
