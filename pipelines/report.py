"""The folder of an evening: its forecasts, the track record and what was done, for people and other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.results import staged, write_json, write_table

if TYPE_CHECKING:
    from forecaster.ledger import Step
    from pipelines.evening import Evening

__all__ = ["evening_folder", "report_step"]


def evening_folder(evening: Evening) -> Path:
    """Give the folder of an evening's tables."""
    return evening.workspace / evening.job.name / "evenings" / str(evening.as_of)


def report_step(evening: Evening, step: Step) -> None:
    """Write what was issued on an evening, the track record up to then and the steps, whole or not at all.

    The folder holds ``forecasts.parquet`` (the ledger's rows of the evening), ``track_record.csv``,
    ``status.csv`` and ``provenance.json``. An evening that issued nothing has the last forecasts before it.
    """
    job, ledger = evening.job, evening.ledger
    folder = evening_folder(evening)
    with staged(folder) as staging:
        write_table(ledger.latest(job.name), staging / "forecasts.parquet")
        write_table(ledger.track_record(job.name, end=evening.as_of), staging / "track_record.csv")
        write_table(ledger.status(job.name, evenings=1), staging / "status.csv")
        write_json(evening.data.provenance(job), staging / "provenance.json")
    step.note(data_version=evening.data.data_version, reason=str(folder))
