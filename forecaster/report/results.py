"""Reads the files of a finished run; what is missing becomes a sentence, never an exception."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecaster.errors import ForecasterError, ParameterError
from forecaster.job.convolution import ConvolutionModel
from forecaster.job.reading import parse_job
from forecaster.quantiles import quantile_columns
from forecaster.report.backtest import Backtest, summarise

__all__ = ["Results", "Summary", "read_results"]

VERDICT = ("model", "horizon", "baseline", "crps_ratio", "p_value", "verdict", "smallest_detectable", "skill")
CONFIDENCE = ("confidence_set", "mcs_p_value")
SCORES = ("model", "symbol", "horizon", "metric", "value")
MODELS = ("model", "kind", "description", "parameters", "fit_seconds", "predict_seconds")
FINDINGS = ("symbol", "code", "severity", "sessions", "first_session", "message", "action")
FAILURES = ("symbol", "reason")
LATEST = ("model", "symbol", "origin", "horizon", "close", *quantile_columns())
TAILS = ("tail_low", "tail_high", "late")
PRICES = ("symbol", "session", "close")
QUARANTINE = ("symbol", "session", "close", "codes")
RESTATEMENTS = ("symbol", "session", "column", "old", "new", "old_fetched_at", "new_fetched_at")
TRACK = ("model", "horizon", "origin", "forecasts", "crps", *(f"coverage_{c}" for c in (50, 80, 95)))
HITS = ("hit_rate_0.01", "hit_rate_0.05")
WEIGHTS = ("model", "channel", "filter", "lag", "weight")
RESPONSES = ("model", "channel", "filter", "period", "magnitude")
NUMBERS = {
    "crps_ratio",
    "p_value",
    "smallest_detectable",
    "value",
    "parameters",
    "fit_seconds",
    "predict_seconds",
    "sessions",
    "close",
    "mcs_p_value",
    "old",
    "new",
    "forecasts",
    "crps",
    *TRACK[5:],
    *HITS,
    "lag",
    "weight",
    "period",
    "magnitude",
    "tail_low",
    "tail_high",
    *quantile_columns(),
}
DATES = {"origin", "session"}


@dataclass(frozen=True)
class Summary:
    """What ``summary.json`` says; empty where it says nothing."""

    values: dict[str, Any] = field(default_factory=dict)

    def text(self, *path: str) -> str:
        """Return the text at a path of keys, ``""`` where there is none."""
        value: Any = self.values
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        return "" if value is None or isinstance(value, dict | list) else str(value)

    def number(self, *path: str) -> float | None:
        """Return the number at a path of keys, None where there is none."""
        try:
            return float(self.text(*path))
        except ValueError:
            return None

    def texts(self, key: str) -> list[str]:
        """Return the list of texts under a key, empty where there is none."""
        value = self.values.get(key)
        return [str(item) for item in value] if isinstance(value, list) else []

    def mapping(self, key: str) -> dict[str, str]:
        """Return the texts by name under a key, empty where there are none."""
        value = self.values.get(key)
        return {str(name): str(item) for name, item in value.items()} if isinstance(value, dict) else {}


@dataclass(frozen=True)
class Results:
    """A finished run, as its files tell it.

    Parameters
    ----------
    directory : Path
        Where the files lie.
    summary : Summary
    verdict, scores, models, latest, recent_prices, findings, failures, quarantine : DataFrame
        The tables of the same names with their stated columns; empty where the file is missing or unusable.
        Text is text (a symbol NA stays NA), numbers are floats (NaN where a cell is no number), horizons are
        ints, dates are timestamps.
    track_record : DataFrame or None
        The record since issue by model, horizon and origin, as the ledger gives it; None where the results
        have none.
    restatements : DataFrame or None
        What sources changed in history; None where the results do not say.
    kernel_weights, kernel_responses : DataFrame
        What the first layers of networks see; empty where there is none.
    controls : frozenset of str
        Models that the job gives as controls without a 2D kernel.
    champion : str
        The model that the scheduled job uses, ``""`` where none is named.
    baselines : dict of int to str
        The best baseline at each horizon.
    horizons : tuple of int
        All horizons, ascending.
    backtest : Backtest
        Sums over ``forecasts.parquet`` of the backtest; of nothing where they were not asked for.
    judged : Path
        Folder of that backtest: the results' own or, of an evening, the one that it names.
    missing : tuple of str
        One sentence for each file that could not be used.
    """

    directory: Path
    summary: Summary
    verdict: pd.DataFrame
    scores: pd.DataFrame
    models: pd.DataFrame
    latest: pd.DataFrame
    recent_prices: pd.DataFrame
    findings: pd.DataFrame
    failures: pd.DataFrame
    quarantine: pd.DataFrame
    track_record: pd.DataFrame | None
    restatements: pd.DataFrame | None
    kernel_weights: pd.DataFrame
    kernel_responses: pd.DataFrame
    controls: frozenset[str]
    champion: str
    baselines: dict[int, str]
    horizons: tuple[int, ...]
    backtest: Backtest
    judged: Path
    missing: tuple[str, ...]

    def trouble(self, file: str) -> str:
        """Give the sentence that says why a file could not be used, ``""`` where it could."""
        return next((text for text in self.missing if text.startswith(f"{file} ")), "")

    def challenger(self) -> str:
        """Name the model whose gains the report shows in detail.

        The champion; where that is the best baseline at every horizon, the other model of the lowest average
        CRPS ratio is set against it. ``""`` where there is neither.
        """
        if self.champion and any(self.champion != name for name in self.baselines.values()):
            return self.champion
        others = self.verdict[~self.verdict["model"].isin({*self.baselines.values(), self.champion})]
        means = others.groupby("model")["crps_ratio"].mean().dropna()
        return str(means.idxmin()) if len(means) else ""


def _tidy(frame: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    tidy: dict[str, pd.Series[Any]] = {}
    absent = pd.Series(np.nan, index=frame.index, dtype=object)
    for name in columns:
        column = frame.get(name, absent)
        if name in NUMBERS:
            tidy[name] = pd.to_numeric(column, errors="coerce").astype(np.float64)
        elif name == "horizon":
            tidy[name] = pd.to_numeric(column, errors="coerce")
        elif name in DATES:
            tidy[name] = pd.to_datetime(column, errors="coerce")
        else:
            tidy[name] = column.astype(object).where(column.notna(), "").astype(str)
    result = pd.DataFrame(tidy, columns=list(columns))
    if "horizon" in columns:
        result = result[result["horizon"].notna()].astype({"horizon": int})
    return result.reset_index(drop=True)


def _empty(columns: Sequence[str]) -> pd.DataFrame:
    return _tidy(pd.DataFrame({name: pd.Series(dtype=object) for name in columns}), columns)


def _read_table(
    path: Path,
    columns: Sequence[str],
    missing: list[str],
    may_be_empty: bool = False,
    optional: Sequence[str] = (),
) -> pd.DataFrame:
    """Read a table; ``optional`` columns are NaN, or ``""`` for text, where the file has none."""
    whole = [*columns, *optional]
    empty = _empty(whole)
    if not path.is_file():
        missing.append(f"{path.name} is missing.")
        return empty
    try:
        if path.suffix == ".csv":
            # NA and TRUE are tickers: nothing is guessed, numbers are made by column.
            frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        else:
            frame = pd.read_parquet(path)
    except pd.errors.EmptyDataError:
        frame = pd.DataFrame()
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}.")
        return empty
    lacking = [name for name in columns if name not in frame.columns]
    if lacking and len(frame.columns):
        missing.append(f"{path.name} lacks the columns {', '.join(lacking)}.")
        return empty
    if frame.empty:
        if not may_be_empty:
            missing.append(f"{path.name} is empty.")
        return empty
    return _tidy(frame, whole)


def _read_where_there(
    path: Path, columns: Sequence[str], missing: list[str], optional: Sequence[str] = ()
) -> pd.DataFrame | None:
    """Read a table that not every run has; None where there is none, or none that can be used."""
    before = len(missing)
    table = _read_table(path, columns, missing, True, optional) if path.is_file() else None
    return table if len(missing) == before else None


def _read_summary(path: Path, missing: list[str]) -> Summary:
    if not path.is_file():
        missing.append(f"{path.name} is missing.")
        return Summary()
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        missing.append(f"{path.name} cannot be read: {error}.")
        return Summary()
    if not isinstance(values, dict):
        missing.append(f"{path.name} holds no object.")
        return Summary()
    return Summary(values)


def _ratios_from_scores(scores: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Leaderboard rows without a verdict: CRPS ratios from the pooled scores."""
    pooled = scores[(scores["symbol"] == "*") & (scores["metric"] == "crps")]
    wide = pooled.pivot_table(index="horizon", columns="model", values="value", aggfunc="first", sort=False)
    wide = wide.div(wide[baseline], axis=0) if baseline in wide.columns else wide * np.nan
    long = wide.reset_index().melt("horizon", var_name="model", value_name="crps_ratio")
    long = long.assign(baseline=baseline, p_value=np.nan, smallest_detectable=np.nan, verdict="", skill="")
    return _tidy(long, [*VERDICT, *CONFIDENCE])


def _controls(summary: Summary) -> frozenset[str]:
    """Models of the job that are controls without a 2D kernel; none where the job cannot be read."""
    try:
        job = parse_job(summary.text("job_yaml"), "summary.json")
    except ForecasterError:
        return frozenset()
    return frozenset(
        spec.name
        for spec in job.models
        if isinstance(spec, ConvolutionModel) and spec.strategy.kind == "control"
    )


def read_results(directory: Path, *, sums: bool = True) -> Results:
    """Read the files of a finished run.

    Parameters
    ----------
    directory : Path
        See `forecaster.report.write_report`.
    sums : bool
        Whether to sum up the forecasts of the backtest, which of thousands of symbols takes a minute.

    Raises
    ------
    ParameterError
        If ``directory`` is not a directory.
    """
    if not directory.is_dir():
        raise ParameterError(
            f"a report is made from a folder of finished results. Received: {directory}; "
            "`forecaster run` makes one"
        )
    missing: list[str] = []
    summary = _read_summary(directory / "summary.json", missing)
    # An evening names the backtest of its champion; the forecasts that lie with it are those issued.
    # A relative path begins at the evening's own folder; an absolute one is taken as it is.
    judged = directory / summary.text("backtest_folder")
    issued = "forecasts.parquet" if "backtest_folder" in summary.values else "latest.parquet"
    # A stand-in that was fitted for the evening was not judged: said once, not file by file.
    unjudged = summary.values.get("backtest_folder") == ""
    if unjudged:
        missing.append(
            "No registered model could be used on this evening, so no backtest judges its forecasts."
        )
    lacking: list[str] = [] if unjudged else missing
    verdict = _read_table(judged / "verdict.csv", VERDICT, lacking, optional=CONFIDENCE)
    scores = _read_table(judged / "scores.csv", SCORES, lacking)
    models = _read_table(judged / "models.csv", MODELS, lacking)
    latest = _read_table(directory / issued, LATEST, missing, optional=TAILS)
    recent_prices = _read_table(directory / "recent_prices.parquet", PRICES, missing)
    findings = _read_table(directory / "findings.csv", FINDINGS, missing, may_be_empty=True)
    failures = _read_table(directory / "failures.csv", FAILURES, missing, may_be_empty=True)
    quarantine = _read_where_there(directory / "quarantine.csv", QUARANTINE, missing)
    weights = _read_where_there(judged / "kernel_weights.csv", WEIGHTS, missing)
    responses = _read_where_there(judged / "kernel_responses.csv", RESPONSES, missing)

    best_baseline = summary.text("best_baseline")
    if verdict.empty and len(scores):
        verdict = _ratios_from_scores(scores, best_baseline)
    horizons = {int(text) for text in summary.texts("horizons") if text.isdigit()}
    horizons |= {int(h) for frame in (verdict, latest) for h in frame["horizon"].unique()}
    baselines = {h: best_baseline for h in horizons if best_baseline}
    baselines |= {
        int(h): str(name)
        for h, name in zip(verdict["horizon"], verdict["baseline"], strict=True)
        if name  # the verdict knows its baseline best
    }
    results = Results(
        directory=directory,
        summary=summary,
        verdict=verdict,
        scores=scores,
        models=models,
        latest=latest,
        recent_prices=recent_prices,
        findings=findings,
        failures=failures,
        quarantine=_empty(QUARANTINE) if quarantine is None else quarantine,
        track_record=_read_where_there(directory / "track_record.parquet", TRACK, missing, HITS),
        restatements=_read_where_there(directory / "restatements.csv", RESTATEMENTS, missing),
        kernel_weights=_empty(WEIGHTS) if weights is None else weights,
        kernel_responses=_empty(RESPONSES) if responses is None else responses,
        controls=_controls(summary),
        champion=summary.text("champion"),
        baselines=baselines,
        horizons=tuple(sorted(horizons)),
        backtest=Backtest.empty(),
        judged=judged,
        missing=(),
    )
    if sums:
        wanted = {results.champion, results.challenger(), *baselines.values()} - {""}
        backtest = summarise(judged / "forecasts.parquet", sorted(wanted), lacking)
        results = replace(results, backtest=backtest)
    return replace(results, missing=tuple(missing))
