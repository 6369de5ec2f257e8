"""Forecasts of what comes after the last session, by every model of a job."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from forecaster.job import Job
from forecaster.walkforward import forecast_table
from forecaster.windows import Windows
from pipelines.backtest import Progress
from pipelines.loading import JobData, load_data
from pipelines.results import staged, write_json, write_quality, write_table
from pipelines.train import fit_model

__all__ = ["forecast_job"]


def forecast_job(
    job: Job,
    folder: Path,
    as_of: date | None,
    output: Path,
    progress: Progress,
    known_at: datetime | None = None,
) -> JobData:
    """Fit every model on the evening of ``as_of`` and write its forecasts.

    Nothing after ``as_of`` is used: the prices are cut there before they are checked, and the outcomes in the
    table are unknown (NaN).

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the job file.
    as_of : date or None
        The evening; the last session there is where it is None. Each symbol is forecast from its last session
        up to then.
    output : Path
        Folder for ``forecasts.parquet``, ``provenance.json`` and what was found about the prices.
    progress : callable
        Told of every model.
    known_at : datetime, optional
        Use what the price store knew at that time; all that it knows by default.
    """
    data = load_data(job, folder, job.warm_up + 1, as_of, known_at)
    panel = data.panel
    origins = Windows(panel, panel.last_rows(), job.horizons)
    session = panel.calendar[-1]
    tables = []
    with staged(output) as staging:
        for number, spec in enumerate(job.models):
            progress(spec.name, number, len(job.models))
            model = fit_model(job, spec.name, panel, np.datetime64(session, "D"))
            tables.append(forecast_table(spec.name, origins, model.predict(origins)))
        progress("done", len(job.models), len(job.models))
        write_table(pd.concat(tables, ignore_index=True), staging / "forecasts.parquet")
        write_quality(data.prices, staging)
        write_json(data.provenance(job), staging / "provenance.json")
    return data
