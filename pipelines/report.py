"""The folder of an evening: its forecasts, the track record, what was done, and the report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from pipelines.results import staged, write_json, write_quality, write_table

if TYPE_CHECKING:
    from forecaster.ledger import Step
    from pipelines.evening import Evening

__all__ = ["evening_folder", "report_step"]


def evening_folder(evening: Evening) -> Path:
    """Give the folder of an evening's tables."""
    return evening.workspace / evening.job.name / "evenings" / str(evening.as_of)


def report_step(evening: Evening, step: Step) -> None:
    """Write what was issued on an evening, the track record up to then and the report, whole or not at all.

    The folder holds ``forecasts.parquet`` (the ledger's rows of the evening), ``track_record.csv``,
    ``status.csv`` and ``provenance.json``, and what a report is made from: it judges by the backtest of the
    model in use. An evening that issued nothing has the last forecasts before it. The report itself, five
    megabytes, is written once beside the folders of all evenings, for the newest of them;
    ``forecaster report`` makes that of any other.
    """
    from forecaster.report import write_report
    from pipelines.data import write_restatements
    from pipelines.loading import SHOWN_SESSIONS, recent_prices

    job, ledger = evening.job, evening.ledger
    folder = evening_folder(evening)
    by_origin = ledger.track_record(job.name, end=evening.as_of, by_origin=True)
    # Of this evening, which may have been missed and be done after later ones.
    issued = ledger.latest(job.name, evening.as_of)
    status = ledger.status(job.name, evenings=1, as_of=evening.as_of)
    with staged(folder) as staging:
        write_table(issued, staging / "forecasts.parquet")
        write_table(ledger.track_record(job.name, end=evening.as_of), staging / "track_record.csv")
        write_table(status, staging / "status.csv")
        write_json(evening.data.provenance(job), staging / "provenance.json")
        write_table(by_origin, staging / "track_record.parquet")
        write_table(recent_prices(evening.data.panel, SHOWN_SESSIONS), staging / "recent_prices.parquet")
        write_quality(evening.data.prices, staging)
        failures = {**evening.data.prices.failures, **evening.failures}
        write_table(pd.DataFrame(failures.items(), columns=["symbol", "reason"]), staging / "failures.csv")
        write_restatements(job, evening.data, staging)
        write_json(_summary(evening), staging / "summary.json")
    if folder.name == max(path.name for path in folder.parent.iterdir() if path.is_dir()):
        write_report(folder, folder.parent / "report.html")
    written = folder.relative_to(evening.workspace).as_posix()
    step.note(data_version=evening.data.data_version, reason=f"{written} in the workspace")


def _beside(folder: Path, start: Path) -> str:
    """Give the way from a folder to another one: it holds when the workspace is moved."""
    return Path(os.path.relpath(folder.resolve(), start.resolve())).as_posix()


def _summary(evening: Evening) -> dict[str, Any]:
    """Say what the report's head and its last section need."""
    from pipelines.champion import in_use
    from pipelines.provenance import code_version, package_versions

    job = evening.job
    model, version, baseline, judged = in_use(evening)
    events = evening.ledger.model_events(job.name)
    why = events.loc[(events["model"] == model) & (events["version"].astype(str) == version), "reason"]
    return {
        "job": job.name,
        "horizons": list(job.horizons),
        "symbols": list(evening.data.panel.symbols),
        "champion": model,
        "champion_reason": str(why.iloc[-1]) if len(why) else "",
        "best_baseline": baseline or model,
        "backtest_folder": _beside(judged, evening_folder(evening)) if judged is not None else "",
        "data_version": evening.data.data_version,
        "data": evening.data.provenance(job),
        "code_version": code_version(),
        "job_hash": job.hash,
        "created_at": evening.clock().isoformat(timespec="seconds"),
        "versions": package_versions(),
        "seed": job.seed,
        "job_yaml": evening.path.read_text(encoding="utf-8"),
        "command": f"forecaster daily {evening.path.as_posix()} --as-of {evening.as_of}",
        "mlflow": {"version": version},
    }
