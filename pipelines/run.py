"""The main job: backtest, verdict, champion, tracking, the next forecasts, and the report."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from forecaster.job import Job
from forecaster.report import write_report
from forecaster.threads import thread_counts
from forecaster.walkforward import latest_table
from forecaster.windows import Panel, Windows
from pipelines.backtest import BacktestResult, Progress, backtest_job, write_backtest
from pipelines.loading import JobData, load_data, recent_prices
from pipelines.provenance import code_version
from pipelines.results import staged, write_json, write_table
from pipelines.train import fit_model

if TYPE_CHECKING:
    from forecaster.threads import thread_counts
from forecaster.tracking import Tracker

__all__ = ["RunResult", "run_job"]

PACKAGES = ("arch", "keras", "mlflow", "numpy", "pandas", "scikit-learn", "scipy", "tensorflow")
SHOWN_SESSIONS = 130


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
    """

    backtest: BacktestResult
    registered: str
    report: Path


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
    from forecaster.tracking import Tracker

    tracker = Tracker(Path(job.workspace), f"forecaster/{job.name}/backtest")
    tags = {"forecaster.job_hash": job.hash, "forecaster.code_version": code_version()}
    params = {
        "data_version": data.data_version,
        "known_at": data.known.mark.isoformat() if data.known else "",
        "symbols": ",".join(data.panel.symbols),
        "horizons": ",".join(map(str, job.horizons)),
        "lookback": job.lookback,
        "seed": job.seed,
        **{f"backtest.{key}": value for key, value in job.backtest.model_dump(mode="json").items()},
    }
    # The output outside, so that it changes only when all is done, the tracking too.
    with staged(output) as staging, tracker.run(job.name, params, tags) as run_id:
        result = backtest_job(job, data, progress)
        steps = 5
        progress("results", 0, steps)
        write_backtest(job, result, staging)
        progress("tracking", 1, steps)
        champion_run = _record(tracker, run_id, job, result, tags)
        progress(f"champion {result.champion.model}", 2, steps)
        registered, latest = _champion(tracker, champion_run, job, result, tags)
        progress("report", 3, steps)
        summary = _summary(job, path, result, begin) | {
            "mlflow": {
                "tracking_uri": tracker.uri,
                "experiment": tracker.experiment,
                "run_id": run_id,
                "registered_model": f"forecaster-{job.name}",
                "version": registered,
            }
        }
        write_table(latest, staging / "latest.parquet")
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
    address = f"models:/forecaster-{job.name}"
    if result.data.coverage >= job.minimum_coverage:
        registered_as = f"{address}@champion (version {registered})"
    else:
        registered_as = f"{address}/{registered}; the champion stays, for too few symbols succeeded"
    return RunResult(result, registered_as, output / "report.html")


def _record(tracker: Tracker, run_id: str, job: Job, result: BacktestResult, tags: dict[str, str]) -> str:
    """Record a run for each model and refit; give the run of the champion."""
    pooled = result.scores[result.scores["symbol"] == "*"]
    champion_run = ""
    for spec in job.models:
        mine = pooled[pooled["model"] == spec.name]
        metrics = {
            f"{metric}_h{horizon}": value
            for metric, horizon, value in zip(mine["metric"], mine["horizon"], mine["value"], strict=True)
        }
        verdict = result.verdicts[result.verdicts["model"] == spec.name]
        metrics |= {
            f"crps_ratio_h{horizon}": ratio
            for horizon, ratio in zip(verdict["horizon"], verdict["crps_ratio"], strict=True)
        }
        costs = ["parameters", "fit_seconds", "predict_seconds"]
        row = result.models.loc[result.models["model"] == spec.name, costs].to_numpy(dtype=float)[0]
        metrics |= dict(zip(costs, row.tolist(), strict=True))
        settings = _flat(spec.model_dump(mode="json"))
        child = tracker.record(run_id, spec.name, settings, metrics, {**tags, "forecaster.model": spec.name})
        if spec.name == result.champion.model:
            champion_run = child
        folds = result.fold_scores[result.fold_scores["model"] == spec.name]
        for number, rows in folds.groupby("fold"):
            fold = next(one for one in result.folds if one.number == number)
            scores = {f"crps_h{h}": crps for h, crps in zip(rows["horizon"], rows["crps"], strict=True)}
            scores["fit_seconds"] = float(rows["fit_seconds"].iloc[0])
            about = {
                "refit": fold.refit,
                "train_origins": len(fold.train),
                "test_origins": len(fold.test),
            }
            tracker.record(child, f"{spec.name} {fold.refit}", about, scores, tags)
    best = {"mean_crps_ratio": min(result.champion.mean_ratios.values())}
    tracker.log_metrics(run_id, best | {"models": len(job.models), "refits": len(result.folds)})
    return champion_run


def _champion(
    tracker: Tracker, run_id: str, job: Job, result: BacktestResult, tags: dict[str, str]
) -> tuple[int, pd.DataFrame]:
    """Fit the champion on everything, register it, and forecast by it and by the best baseline."""
    from forecaster.tracking.saved import SavedModel, write_model

    data, name = result.data, result.champion.model
    panel, session = data.panel, data.panel.calendar[-1]
    origins = Windows(panel, panel.last_rows(), job.horizons)
    tables = []
    version_number = 0
    for model_name in dict.fromkeys((name, result.baseline)):
        model = fit_model(job, model_name, panel, session)
        tables.append(latest_table(model_name, origins, model.predict(origins)))
        if model_name == name:
            with tempfile.TemporaryDirectory(prefix="forecaster-") as folder:
                saved = Path(folder) / "model"
                write_model(saved, SavedModel(job, name, model))
                about = {
                    **tags,
                    "forecaster.model": name,
                    "forecaster.data_version": data.data_version,
                    "forecaster.fitted_until": str(session),
                }
                example = _example(data, job.warm_up + 1)
                version_number = tracker.register(
                    run_id,
                    f"forecaster-{job.name}",
                    saved,
                    example,
                    about,
                    data.coverage >= job.minimum_coverage,
                )
    return version_number, pd.concat(tables, ignore_index=True)


def _example(data: JobData, sessions: int) -> pd.DataFrame:
    """Give the last prices of each symbol, as an example of what the registered model takes."""
    parts = [
        frame[["close", "dividend", "split"]].tail(sessions).reset_index().assign(symbol=symbol)
        for symbol, frame in data.prices.frames.items()
    ]
    table = pd.concat(parts, ignore_index=True)[["symbol", "session", "close", "dividend", "split"]]
    return table.astype({"session": "datetime64[ns]"})


def _flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _summary(job: Job, path: Path, result: BacktestResult, begin: float) -> dict[str, object]:
    panel: Panel = result.data.panel
    origins = result.forecasts["origin"]
    return {
        "job": job.name,
        "horizons": list(job.horizons),
        "symbols": list(panel.symbols),
        "champion": result.champion.model,
        "champion_reason": result.champion.reason,
        "best_baseline": result.baseline,
        "backtest": {
            "start": str(origins.min().date()),
            "end": str(origins.max().date()),
            "refits": len(result.folds),
            "origins": int(sum(len(fold.test) for fold in result.folds)),
        },
        "data_version": result.data.data_version,
        "data": result.data.provenance(job),
        "code_version": code_version(),
        "job_hash": job.hash,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {package: version(package) for package in PACKAGES},
        "seed": job.seed,
        "threads": thread_counts(),
        "job_yaml": path.read_text(encoding="utf-8"),
        "command": f"forecaster run {path.as_posix()}",
        "elapsed_seconds": round(time.perf_counter() - begin, 1),
    }
