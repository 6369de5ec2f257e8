"""The backtest of a job: forecasts of every model on the same origins, their scores and the verdict."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.job import Job
from forecaster.models.calibrated import Calibrated
from forecaster.monitoring import promise_table
from forecaster.quantiles import TAIL_COLUMNS, QuantileForecast, quantile_columns
from forecaster.scores import row_scores, score_table
from forecaster.significance import Champion, choose_champion, daily_losses, mean_ratios, verdicts
from forecaster.walkforward import Fold, FoldForecast, forecast_table, tail_table, with_combinations
from forecaster.windows import Windows
from pipelines.loading import JobData, without
from pipelines.results import TableStream, TemporaryFolder, write_json, write_quality, write_table
from pipelines.tasks import Progress, SeenKernels, job_folds, walked

__all__ = ["BacktestResult", "Progress", "backtest_job", "write_backtest"]

LAG_COLUMNS = ["model", "channel", "filter", "lag", "weight"]
FORECASTS = "forecasts.parquet"
KEYS = ["model", "symbol", "origin", "horizon"]
RESPONSE_COLUMNS = ["model", "channel", "filter", "period", "magnitude", "phase"]


@dataclass(frozen=True, eq=False)
class BacktestResult:
    """What a backtest found.

    Parameters
    ----------
    data : JobData
        The prices, without the symbols that had nothing to test.
    folds : list of Fold
    files : TemporaryFolder
        Holds ``forecasts.parquet`` as long as this result is there: written model by model, as the forecasts
        may be larger than memory.
    tails : DataFrame
        Tail means and variance of those of these forecasts that state them: ``model, symbol, origin,
        horizon, tail_low, tail_high, variance``.
    scores : DataFrame
        ``model, symbol, horizon, metric, value``.
    models : DataFrame
        ``model, kind, description, parameters, fit_seconds, predict_seconds``; seconds are the mean of a
        refit.
    fold_scores : DataFrame
        ``model, fold, horizon, crps, fit_seconds``.
    verdicts : DataFrame
        As `forecaster.significance.verdicts` gives them.
    variance_verdicts : DataFrame
        The same on the QLIKE of the variance, among the models that state one; empty where none does.
    champion : Champion
    baseline : str
        The best baseline.
    promise : DataFrame
        What the monitoring holds a model to: `forecaster.monitoring.promise_table`.
    calibrated : dict of str to Calibrated
        Calibrations as the last refit left them, for a later fit to go on from.
    lag_weights, frequency_responses : DataFrame
        What the first kernel of each convolution sees after the last refit: ``model`` and the columns of
        `forecaster.models.base.SeesKernels`. A spectrogram has no kernel on the series and no rows.
    failed : dict of str to str
        Models that no worker could do, and why; nothing else here knows them.
    """

    data: JobData
    folds: list[Fold]
    files: TemporaryFolder
    tails: pd.DataFrame
    scores: pd.DataFrame
    models: pd.DataFrame
    fold_scores: pd.DataFrame
    verdicts: pd.DataFrame
    variance_verdicts: pd.DataFrame
    champion: Champion
    baseline: str
    promise: pd.DataFrame
    calibrated: dict[str, Calibrated]
    lag_weights: pd.DataFrame
    frequency_responses: pd.DataFrame
    failed: dict[str, str]

    @property
    def span(self) -> tuple[str, str]:
        """First and last test origin, YYYY-MM-DD."""
        sessions = [fold.test.sessions for fold in self.folds if len(fold.test)]
        return str(min(days.min() for days in sessions)), str(max(days.max() for days in sessions))

    @property
    def forecasts(self) -> pd.DataFrame:
        """One row a model, symbol, origin and horizon; read from disk each time."""
        return pd.read_parquet(self.forecasts_file)

    @property
    def forecasts_file(self) -> Path:
        """Where the forecasts are."""
        return self.files.path / FORECASTS


def _untested(job: Job, data: JobData) -> dict[str, str]:
    """Symbols without any origin in the test span, and why."""
    panel, start = data.panel, np.datetime64(job.backtest.start, "D")
    end = np.datetime64(job.backtest.end, "D") if job.backtest.end else panel.calendar[-1]
    failures = {}
    for symbol, part in zip(panel.symbols, panel.parts, strict=True):
        sessions = panel.sessions[part][job.warm_up - 1 :]
        if not ((sessions >= start) & (sessions <= end)).any():
            failures[symbol] = (
                f"the test span {start} to {end} holds no origin of it: it can be forecast from "
                f"{sessions[0]} to {sessions[-1]}; choose other dates"
            )
    return failures


def backtest_job(job: Job, data: JobData, progress: Progress) -> BacktestResult:
    """Run the walk-forward backtest of a job.

    Parameters
    ----------
    job : Job
    data : JobData
    progress : callable
        Told of every model and refit.
    """
    data = without(data, _untested(job, data))
    over = job_folds(job, data.panel)
    if not any(np.isfinite(fold.test.targets).any() for fold in over):
        raise ParameterError(
            "a backtest needs at least one outcome that is known. Received: none, for origins from "
            f"{job.backtest.start} on and prices until {data.panel.calendar[-1]}; start earlier"
        )
    fold_rows, daily, kernels, parameters = [], [], [], {}
    naive_errors = _naive_errors(over[0].train)
    combinations, calibrations = job.combinations, job.calibrations
    calibrated: dict[str, Calibrated] = {}
    failed: dict[str, str] = {}
    tables: dict[str, list[pd.DataFrame]] = {}
    scores: dict[str, pd.DataFrame] = {}
    tails: dict[str, pd.DataFrame] = {}
    known: dict[str, pd.DataFrame] = {}
    files = TemporaryFolder(Path(job.workspace), ".backtest-")
    with (
        job.engine.build(job.threads) as engine,
        TableStream(files.path / FORECASTS) as stream,
    ):
        alone = walked(engine, job, data, over, failed, progress)
        for result in with_combinations(alone, over, combinations, calibrations, job.warm_up):
            table = forecast_table(result.model, result.fold.test, result.forecast)
            extra = _beside(result.fold.test, result.forecast, naive_errors)
            table = pd.concat([table, extra], axis=1)
            rows = row_scores(table)
            table["crps"], table["qlike"] = rows["crps"], rows.get("qlike", np.nan)
            daily.append(_daily(table, rows))
            fold_rows.append(_fold_rows(result, table))
            parameters[result.model] = result.fitted.parameters
            if isinstance(result.fitted, SeenKernels):
                kernels.append(_kernel_views(result.model, result.fitted))
            if result.layer is not None:
                calibrated[result.model] = result.layer
            tables.setdefault(result.model, []).append(table)
            if len(tables[result.model]) < len(over):
                continue
            # A model is whole: what only its scores need is let go, and its forecasts are on disk.
            whole = pd.concat(tables.pop(result.model), ignore_index=True)
            known[result.model] = whole.loc[whole["crps"].notna(), [*KEYS, "crps", "qlike"]]
            scores[result.model] = score_table(whole.drop(columns=["crps", "qlike"]))
            if whole["variance"].notna().any():
                tails[result.model] = whole[[*KEYS, *TAIL_COLUMNS]]
            stream.write(whole[[*KEYS, "y", *quantile_columns()]])
    for name, members in combinations.items():
        absent = next((member for member in members if member in failed), None)
        if absent is not None:
            failed[name] = f"its member {absent} failed"
    job = job.model_copy(update={"models": tuple(spec for spec in job.models if spec.name not in failed)})
    fold_scores = pd.concat(fold_rows, ignore_index=True)
    promise = promise_table(pd.concat(daily, ignore_index=True))
    names = [spec.name for spec in job.models]
    rows = pd.concat([known[name] for name in names], ignore_index=True)
    losses = daily_losses(rows)
    by_complexity = sorted(
        names,
        key=lambda name: (job.models[names.index(name)].complexity, parameters[name], names.index(name)),
    )
    historical = next((spec.name for spec in job.models if spec.kind == "historical"), None)
    champion = choose_champion(losses[names], by_complexity, historical or by_complexity[0])
    baselines = [spec.name for spec in job.models if spec.baseline] or by_complexity[:1]
    baseline = min(baselines, key=lambda name: champion.mean_ratios[name])
    return BacktestResult(
        data=data,
        folds=over,
        files=files,
        tails=_stack([tails[name] for name in names if name in tails], [*KEYS, *TAIL_COLUMNS]),
        scores=pd.concat([scores[name] for name in names], ignore_index=True),
        models=_models(job, fold_scores, parameters),
        fold_scores=fold_scores,
        verdicts=verdicts(losses[names], baseline, historical),
        variance_verdicts=_variance_verdicts(job, rows, historical),
        champion=champion,
        baseline=baseline,
        promise=promise,
        calibrated=calibrated,
        lag_weights=_stack([weights for weights, _ in kernels], LAG_COLUMNS),
        frequency_responses=_stack([responses for _, responses in kernels], RESPONSE_COLUMNS),
        failed=failed,
    )


def _daily(table: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Average the scores that are watched over the symbols of each origin."""
    watched = ["crps", "coverage_80", "coverage_95"]
    keys = ["model", "horizon", "origin"]
    return pd.concat([table[keys], rows[watched]], axis=1).groupby(keys, as_index=False)[watched].mean()


def _naive_errors(train: Windows) -> dict[str, NDArray[np.float64]]:
    """Mean absolute outcome of each symbol over the first training origins, at each horizon."""
    sizes = np.abs(train.targets)
    return {
        train.panel.symbols[train.series[mine[0]]]: sizes[mine].mean(axis=0) for _, mine in train.by_series()
    }


def _beside(
    windows: Windows, forecast: QuantileForecast, naive_errors: dict[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """Columns that scores need beside the forecasts, in the rows of `forecast_table`; NaN where unknown."""
    unknown = np.full(len(windows.horizons), np.nan)
    of_symbol = np.array([naive_errors.get(symbol, unknown) for symbol in windows.panel.symbols])
    columns = {
        "scale": windows.scales,
        "naive_error": of_symbol[windows.series],
        "realised_variance": windows.realised_variance,  # of returns or of the range, as the job says
    }
    beside = pd.DataFrame({name: values.ravel() for name, values in columns.items()})
    return pd.concat([beside, tail_table(forecast)], axis=1)


def _variance_verdicts(job: Job, rows: pd.DataFrame, historical: str | None) -> pd.DataFrame:
    """Judge the variances, against the baseline whose QLIKE is the lowest over all horizons."""
    stated = rows.dropna(subset="qlike")
    names = [spec.name for spec in job.models if (stated["model"] == spec.name).any()]
    baselines = [spec.name for spec in job.models if spec.baseline and spec.name in names]
    if not baselines:
        return pd.DataFrame()
    losses = daily_losses(stated, "qlike")[names]
    ratios = mean_ratios(losses, baselines[0])
    reference = historical if historical in names else None
    return verdicts(losses, min(baselines, key=lambda name: ratios[name]), reference, "qlike")


def _kernel_views(name: str, model: SeenKernels) -> tuple[pd.DataFrame, pd.DataFrame]:
    return model.weights.assign(model=name), model.responses.assign(model=name)


def _stack(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    kept = [part for part in parts if len(part)]
    return pd.concat(kept, ignore_index=True)[columns] if kept else pd.DataFrame(columns=columns)


def _fold_rows(result: FoldForecast, table: pd.DataFrame) -> pd.DataFrame:
    rows = table.groupby("horizon")["crps"].mean().rename("crps").reset_index()
    rows.insert(0, "model", result.model)
    rows.insert(1, "fold", result.fold.number)
    return rows.assign(fit_seconds=result.fit_seconds, predict_seconds=result.predict_seconds)


def _models(job: Job, fold_scores: pd.DataFrame, parameters: dict[str, int]) -> pd.DataFrame:
    each = fold_scores.drop_duplicates(["model", "fold"]).groupby("model")
    fit, predict = each["fit_seconds"].mean().to_dict(), each["predict_seconds"].mean().to_dict()
    rows = [
        {
            "model": spec.name,
            "kind": spec.kind,
            "description": spec.description,
            "parameters": parameters[spec.name],
            "fit_seconds": round(fit[spec.name], 3),
            "predict_seconds": round(predict[spec.name], 3),
        }
        for spec in job.models
    ]
    return pd.DataFrame(rows)


def write_backtest(job: Job, result: BacktestResult, folder: Path) -> None:
    """Write the tables of a backtest into a folder."""
    shutil.copyfile(result.forecasts_file, folder / FORECASTS)
    write_table(result.scores, folder / "scores.csv")
    write_table(result.models, folder / "models.csv")
    write_table(result.verdicts, folder / "verdict.csv")
    write_table(result.promise, folder / "promise.csv")
    if len(result.tails):
        write_table(result.tails, folder / "tails.parquet")
    if len(result.variance_verdicts):
        write_table(result.variance_verdicts, folder / "verdict_variance.csv")
    write_table(result.lag_weights, folder / "kernel_weights.csv")
    write_table(result.frequency_responses, folder / "kernel_responses.csv")
    if result.failed:
        rows = pd.DataFrame(list(result.failed.items()), columns=["model", "reason"])
        write_table(rows, folder / "failed_models.csv")
    write_quality(result.data.prices, folder)
    write_json(result.data.provenance(job), folder / "provenance.json")
