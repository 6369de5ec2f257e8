"""Make an issued forecast again, to the bit, from what the ledger says about it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from forecaster.errors import DataError, LedgerError
from forecaster.job import Job, parse_job
from forecaster.quantiles import TAIL_COLUMNS, quantile_columns
from forecaster.threads import limit_threads
from forecaster.windows import Windows
from pipelines.champion import ADAPTIVE, FITTED, InUse, adaptively, fit_baseline, load_version
from pipelines.evening import open_registry
from pipelines.loading import load_data
from pipelines.provenance import code_version

if TYPE_CHECKING:
    from forecaster.ledger import Ledger
    from forecaster.windows import Panel

__all__ = ["Reproduced", "reproduce_forecast"]

NUMBERS = ("close", *quantile_columns(), *TAIL_COLUMNS)


@dataclass(frozen=True, eq=False)
class Reproduced:
    """A forecast as it was issued, and as it was made again.

    Parameters
    ----------
    issued : Series
        A row of `forecaster.ledger.Ledger.forecasts`.
    again : Series
        The same numbers, made again.
    differing : tuple of str
        Names of the numbers that are not the same to the bit.
    code_version : str
        The code that made it again.
    """

    issued: pd.Series[Any]
    again: pd.Series[Any]
    differing: tuple[str, ...]
    code_version: str


def reproduce_forecast(ledger: Ledger, forecast_id: int, folder: Path) -> Reproduced:
    """Make an issued forecast again.

    The job is the one that the ledger kept, the prices are those that the store knew then, and the model is
    the registered version, or fitted again where it was fitted for the evening.

    Parameters
    ----------
    ledger : Ledger
    forecast_id : int
    folder : Path
        Folder that paths of a job without a price store are relative to.

    Raises
    ------
    LedgerError
        If the ledger has no such forecast.
    DataError
        If the prices are not those that the forecast saw.
    TrackingError
        If the model version is gone or damaged.
    """
    issued = ledger.forecast(forecast_id)
    text = ledger.job_file(str(issued["job"]), str(issued["job_hash"]))
    job = parse_job(text, f"the job {issued['job']} in the ledger")
    limit_threads(job.threads)
    known_at = None if pd.isna(issued["known_at"]) else issued["known_at"].to_pydatetime()
    data = load_data(job, folder, job.warm_up + 1, issued["as_of"].date(), known_at)
    if data.data_version != issued["data_version"]:
        source = "the store, as known then," if known_at else "the job, which has no price store,"
        raise DataError(
            f"forecast {forecast_id} saw prices of version {str(issued['data_version'])[:12]}. Received from "
            f"{source} {data.data_version[:12]}: they were changed since, so it cannot be made again"
        )
    panel = data.panel
    model = _model(job, panel, str(issued["model"]), str(issued["model_version"]))
    origins = Windows(panel, panel.last_rows(), job.horizons)
    again = _row(origins, model, str(issued["symbol"]), issued["origin"], int(issued["horizon"]))
    differing = tuple(
        name
        for name in NUMBERS
        if not (again[name] == issued[name] or (np.isnan(again[name]) and np.isnan(issued[name])))
    )
    return Reproduced(issued, again, differing, code_version())


def _model(job: Job, panel: Panel, name: str, version: str) -> InUse:
    if version.startswith(FITTED):
        return fit_baseline(job, panel, name)
    registry = open_registry(job)
    registered = registry.version(int(version.removesuffix(ADAPTIVE)))
    use = load_version(job, registry, registered)
    return adaptively(job, panel, use, registered.fitted_until) if version.endswith(ADAPTIVE) else use


def _row(origins: Windows, use: InUse, symbol: str, origin: pd.Timestamp, horizon: int) -> pd.Series[Any]:
    """Forecast all symbols, as the evening did, and take one row."""
    forecast = use.model.predict(origins)
    wanted = (origins.symbols == symbol) & (origins.sessions == np.datetime64(origin.date(), "D"))
    if not wanted.any():
        raise LedgerError(
            f"{symbol} has no origin {origin.date()} among the last sessions of these prices; the forecast "
            "was not made by an evening's job"
        )
    row, column = int(np.flatnonzero(wanted)[0]), origins.horizons.index(horizon)
    stated = [np.nan] * len(TAIL_COLUMNS)
    if (tails := forecast.tails) is not None:
        stated = [each[row, column] for each in (tails.low, tails.high, tails.variance)]
    close = origins.panel.closes[origins.rows[row]]
    # The ledger knows no negative zero.
    numbers = np.array([close, *forecast.values[row, column], *stated]) + 0.0
    return pd.Series(numbers, index=list(NUMBERS))
