"""What a backtest leaves in the tracking store: runs, a challenger, and whether that becomes the champion."""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from forecaster.job import Job
from forecaster.models.base import Forecaster
from forecaster.scores import row_scores
from forecaster.significance import choose_champion, daily_losses
from forecaster.tracking.saved import SavedModel, write_model
from pipelines.backtest import BacktestResult
from pipelines.loading import JobData
from pipelines.provenance import code_version
from pipelines.train import fit_model

if TYPE_CHECKING:
    from forecaster.tracking import Registry, Tracker, Version

__all__ = [
    "Challenge",
    "Verdict",
    "challenge",
    "judge",
    "record_backtest",
    "record_params",
    "record_tags",
    "spec_hash",
    "tried_on",
]

INTERVAL_TOLERANCE = 0.1
"""How far from 80% the coverage of the 80% intervals may be, at any horizon, for a model to be promoted."""


@dataclass(frozen=True)
class Verdict:
    """Whether the challenger of a backtest becomes the champion.

    Parameters
    ----------
    promote : bool
    refit : str or None
        Model of the champion that stays, to be fitted anew on what has come since; None where nothing is
        fitted anew.
    reason : str
    """

    promote: bool
    refit: str | None
    reason: str


@dataclass(frozen=True, eq=False)
class Challenge:
    """What became of a challenger.

    Parameters
    ----------
    challenger, baseline : Version
        The registered challenger, and the best baseline beside it (the same, where that is the best).
    champion : Version or None
        The version that is in use afterwards.
    verdict : Verdict
    models : dict of str to Forecaster
        Fitted on everything: the challenger and the best baseline.
    """

    challenger: Version
    baseline: Version
    champion: Version | None
    verdict: Verdict
    models: dict[str, Forecaster]


def record_tags(job: Job) -> dict[str, str]:
    """Tags of every run of a job."""
    return {"forecaster.job_hash": job.hash, "forecaster.code_version": code_version()}


def record_params(job: Job, data: JobData) -> dict[str, object]:
    """Parameters of the run of a job."""
    return {
        "data_version": data.data_version,
        "known_at": data.known.mark.isoformat() if data.known else "",
        "symbols": ",".join(data.panel.symbols),
        "horizons": ",".join(map(str, job.horizons)),
        "lookback": job.lookback,
        "seed": job.seed,
        **{f"backtest.{key}": value for key, value in job.backtest.model_dump(mode="json").items()},
    }


def tried_on(result: BacktestResult) -> tuple[str, str, str]:
    """Mark of the symbols that are forecast, and the first and last test origin."""
    symbols = json.dumps(result.data.panel.symbols)
    return (hashlib.sha256(symbols.encode()).hexdigest(), *result.span)


def record_backtest(
    tracker: Tracker, run_id: str, job: Job, result: BacktestResult, tags: dict[str, str]
) -> dict[str, str]:
    """Record a run for each model and refit; give the run of each model."""
    pooled = result.scores[result.scores["symbol"] == "*"]
    runs: dict[str, str] = {}
    universe, start, end = tried_on(result)
    spanned = {
        "forecaster.universe": universe,
        "forecaster.test_start": start,
        "forecaster.test_end": end,
    }
    for spec in (spec for spec in job.models if spec.name not in result.failed):
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
        about_it = {"forecaster.model": spec.name, "forecaster.configuration": job.configuration(spec.name)}
        child = tracker.record(run_id, spec.name, settings, metrics, {**tags, **spanned, **about_it})
        runs[spec.name] = child
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
    return runs


def judge(job: Job, result: BacktestResult, champion: Version | None) -> Verdict:
    """Decide whether the challenger of a backtest becomes the champion.

    The champion's model and the challenger's were walked over the same rows of the same prices. The
    challenger must be better, by a Diebold-Mariano test and the confidence set; where both are the same
    model, the newer fit replaces the older. Nothing is promoted that succeeded for too few symbols, or whose
    intervals held far from what they promise; a first champion has nothing to be worse than.

    Parameters
    ----------
    job : Job
    result : BacktestResult
    champion : Version or None
        The registered champion until now.
    """
    name = result.champion.model
    if result.data.coverage < job.minimum_coverage:
        return Verdict(False, None, "the champion stays, for too few symbols succeeded")
    if champion is None:
        return Verdict(True, None, f"the first champion: {result.champion.reason}")
    refusal = _coverage_refusal(result, name)
    spec = spec_hash(job, champion.model)
    if spec is None or champion.tags.get("forecaster.spec") != spec:
        if refusal:
            return Verdict(False, None, f"the champion stays, for {refusal}")
        return Verdict(True, None, f"the job no longer holds the champion's model: {result.champion.reason}")
    if champion.model == name:
        if refusal:
            return Verdict(False, None, f"the champion stays, for {refusal}")
        return Verdict(True, None, f"fitted anew on newer prices: {result.champion.reason}")
    old = champion.model
    refit = None if _coverage_refusal(result, old) else old
    if refusal:
        return Verdict(False, refit, f"{old} stays, for {refusal}")
    # Those of all models may be larger than memory.
    rows = pd.read_parquet(result.forecasts_file, filters=[("model", "in", [old, name])])
    rows = rows[rows["y"].notna()].reset_index(drop=True)
    keys = rows[["model", "symbol", "origin", "horizon"]]
    losses = daily_losses(keys.assign(crps=row_scores(rows)["crps"].to_numpy()))
    found = choose_champion(losses[[old, name]], [old, name], old)
    if found.model == name:
        return Verdict(True, None, f"better than the champion {old}: {found.reason}")
    return Verdict(False, refit, f"{old} stays: {found.reason}")


def _coverage_refusal(result: BacktestResult, model: str) -> str:
    """Say where intervals of a model held far from what they promise; empty where none did."""
    scores = result.scores
    mine = scores[
        (scores["symbol"] == "*") & (scores["metric"] == "coverage_80") & (scores["model"] == model)
    ]
    for horizon, value in zip(mine["horizon"], mine["value"], strict=True):
        if abs(value - 0.8) > INTERVAL_TOLERANCE:
            return f"the 80% intervals of {model} held {value:.0%} of outcomes at {horizon} sessions"
    return ""


def spec_hash(job: Job, name: str) -> str | None:
    """Hash of what makes a model what it is in a job; None where the job does not have it."""
    if name not in [spec.name for spec in job.models]:
        return None
    settings = job.model_dump(mode="json")
    shared = ("horizons", "lookback", "returns", "market", "variance", "covariates", "portfolios", "seed")
    kept = {key: settings[key] for key in shared}
    wanted = {spec.name: spec.model_dump(mode="json") for spec in job.with_members([name])}
    return hashlib.sha256(json.dumps([kept, wanted], sort_keys=True).encode()).hexdigest()


def challenge(
    registry: Registry, runs: dict[str, str], job: Job, result: BacktestResult, tags: dict[str, str]
) -> Challenge:
    """Fit the best model of a backtest on everything, register it, and let the verdict decide.

    Registered beside it is the best baseline, which is there when the champion's files are damaged or its
    intervals break.

    Parameters
    ----------
    registry : Registry
    runs : dict of str to str
        Run of each model, as `record_backtest` gives them.
    job : Job
    result : BacktestResult
    tags : dict of str to str
        As `record_tags` gives them.
    """
    from forecaster.tracking.registry import BASELINE, CHALLENGER, CHAMPION

    data = result.data
    champion = registry.aliased(CHAMPION)
    verdict = judge(job, result, champion)
    name, session = result.champion.model, data.panel.calendar[-1]
    fitted: dict[str, Forecaster] = {}

    def register(model: str, alias: str, reason: str, promoted: bool) -> Version:
        fitted[model] = fit_model(job, model, data.panel, np.datetime64(session, "D"), result.calibrated)
        about = {
            **tags,
            "forecaster.model": model,
            "forecaster.data_version": data.data_version,
            "forecaster.fitted_until": str(session),
            "forecaster.training_hash": job.training_hash,
            "forecaster.spec": spec_hash(job, model) or "",
            "forecaster.baseline": result.baseline,
            "forecaster.role": alias,
            "forecaster.promoted": str(promoted).lower(),
            "forecaster.verdict": reason[:5000],
        }
        with tempfile.TemporaryDirectory(prefix="forecaster-") as folder:
            saved = Path(folder) / "model"
            write_model(saved, SavedModel(job, model, fitted[model]))
            return registry.register(runs[model], saved, _example(job, data), about, alias)

    challenger = register(name, CHALLENGER, verdict.reason, verdict.promote)
    if result.baseline == name:
        baseline = challenger
        registry.set_alias(BASELINE, baseline.number)
    else:
        baseline = register(result.baseline, BASELINE, "the best baseline", False)
    if verdict.promote:
        champion = challenger
    elif verdict.refit is not None:
        champion = register(verdict.refit, CHALLENGER, verdict.reason, True)
        registry.set_alias(CHALLENGER, challenger.number)
    if champion is not None and (verdict.promote or verdict.refit is not None):
        registry.promote(champion.number)
    return Challenge(challenger, baseline, champion, verdict, fitted)


def _example(job: Job, data: JobData) -> pd.DataFrame:
    """Give the last prices of each symbol, as an example of what the registered model takes."""
    panel, sessions = data.panel, job.warm_up + 1
    # A portfolio has the sessions that its members share, and may reach further back for as many.
    first = pd.Timestamp(min(panel.sessions[max(part.start, part.stop - sessions)] for part in panel.parts))
    ranges = ["open", "high", "low"] if job.variance == "range" else []
    columns = [*ranges, "close", "dividend", "split"]
    parts = []
    for symbol, frame in data.prices.frames.items():
        if symbol in panel.every.symbols or symbol in panel.covariates:
            rows = max(sessions, int((frame.index >= first).sum()) + 1)
            parts.append(frame[columns].tail(rows).reset_index().assign(symbol=symbol))
    table = pd.concat(parts, ignore_index=True)[["symbol", "session", *columns]]
    return table.astype({"session": "datetime64[ns]"})


def _flat(settings: dict[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
