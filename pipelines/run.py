"""The main job: backtest, verdict, champion, tracking, the next forecasts, and the report."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from forecaster.job import Job
from forecaster.redaction import redact
from forecaster.report import write_report
from forecaster.threads import thread_counts
from forecaster.tracking.saved import registered_name
from forecaster.walkforward import latest_table
from forecaster.windows import Panel, Windows
from pipelines.backtest import BacktestResult, Progress, backtest_job, write_backtest
from pipelines.challenge import challenge, record_backtest, record_params, record_tags, tried_on
from pipelines.data import write_restatements
from pipelines.loading import SHOWN_SESSIONS, load_data, recent_prices
from pipelines.provenance import code_version, package_versions
from pipelines.results import staged, write_json, write_table

__all__ = ["RunResult", "run_job"]

COUNTED = (
    "counted in the tracking store: settings of a model that differ, by runs and trainings of any job on the "
    "same symbols whose test span overlaps; `forecaster backtest` leaves no trace there"
)


@dataclass(frozen=True, eq=False)
class RunResult:
    """What the main job made.

    Parameters
    ----------
    backtest : BacktestResult
    registered : str
        Address of the champion in the registry.
    report : Path
        The HTML file.
    tried : int
        Configurations of models that were tried on the test span until now, these included.
    """

    backtest: BacktestResult
    registered: str
    report: Path
    tried: int


def run_job(
    job: Job, path: Path, output: Path, progress: Progress, known_at: datetime | None = None
) -> RunResult:
    """Run the main job from prices to report.

    Parameters
    ----------
    job : Job
    path : Path
        The job file.
    output : Path
        Folder of the results; written whole or left as it was.
    progress : callable
        Told of every model and refit, and of what follows.
    known_at : datetime, optional
        Use what the price store knew at that time; all that it knows by default.
    """
    begin = time.perf_counter()
    data = load_data(job, path.parent, job.minimum_sessions, known_at=known_at)
    # MLflow takes seconds to import; only here is it needed.
    from forecaster.tracking import Registry, Tracker

    tracker = Tracker(Path(job.workspace), f"forecaster/{job.name}/backtest")
    registry = Registry(Path(job.workspace), registered_name(job))
    tags = record_tags(job)
    # The output outside, so that it changes only when all is done, the tracking too.
    with staged(output) as staging, tracker.run(job.name, record_params(job, data), tags) as run_id:
        result = backtest_job(job, data, progress)
        steps = 5
        progress("results", 0, steps)
        write_backtest(job, result, staging)
        write_restatements(job, data, staging)
        progress("tracking", 1, steps)
        runs = record_backtest(tracker, run_id, job, result, tags)
        tried = tracker.tried(*tried_on(result))
        progress(f"champion {result.champion.model}", 2, steps)
        outcome = challenge(registry, runs, job, result, tags)
        panel = result.data.panel
        origins = Windows(panel, panel.last_rows(), job.horizons)
        tables = [
            latest_table(name, origins, outcome.models[name].predict(origins))
            for name in dict.fromkeys((result.champion.model, result.baseline))
        ]
        progress("report", 3, steps)
        summary = _summary(job, path, result, begin) | {
            "configurations": {
                "tried": tried.configurations,
                "runs": tried.runs,
                "counted": COUNTED,
            },
            "mlflow": {
                "tracking_uri": redact(tracker.uri),
                "experiment": tracker.experiment,
                "run_id": run_id,
                "registered_model": registry.name,
                "version": outcome.challenger.number,
                "promoted": outcome.verdict.promote,
                "verdict": outcome.verdict.reason,
            },
        }
        write_table(pd.concat(tables, ignore_index=True), staging / "latest.parquet")
        write_table(recent_prices(result.data.panel, SHOWN_SESSIONS), staging / "recent_prices.parquet")
        write_json(summary, staging / "summary.json")
        write_report(staging, staging / "report.html")
        progress("artifacts", 4, steps)
        names = (
            "scores.csv",
            "verdict.csv",
            "models.csv",
            "forecasts.parquet",
            "summary.json",
            "report.html",
        )
        tracker.log_files(run_id, [staging / name for name in names])
        progress("done", steps, steps)
    address, number = f"models:/{registry.name}", outcome.challenger.number
    if outcome.verdict.promote:
        registered_as = f"{address}@champion (version {number})"
    else:
        registered_as = f"{address}/{number}; {outcome.verdict.reason}"
    return RunResult(result, registered_as, output / "report.html", tried.configurations)


def _summary(job: Job, path: Path, result: BacktestResult, begin: float) -> dict[str, object]:
    panel: Panel = result.data.panel
    start, end = result.span
    return {
        "job": job.name,
        "horizons": list(job.horizons),
        "symbols": list(panel.symbols),
        "champion": result.champion.model,
        "champion_reason": result.champion.reason,
        "best_baseline": result.baseline,
        "backtest": {
            "start": start,
            "end": end,
            "refits": len(result.folds),
            "origins": int(sum(len(fold.test) for fold in result.folds)),
        },
        "data_version": result.data.data_version,
        "data": result.data.provenance(job),
        "code_version": code_version(),
        "job_hash": job.hash,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": package_versions(),
        "seed": job.seed,
        "threads": thread_counts(),
        "job_yaml": path.read_text(encoding="utf-8"),
        "command": f"forecaster run {path.as_posix()}",
        "elapsed_seconds": round(time.perf_counter() - begin, 1),
    }
