"""Makes the result files of a finished run from returns whose true volatility is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from forecaster.quantiles import LEVELS, TAIL_COLUMNS, quantile_columns
from forecaster.scores import row_scores, score_table
from forecaster.significance import daily_losses, verdicts

# Name, kind, description, parameters; log standard deviation and bias of its volatility about the truth.
MODELS = (
    ("average", "combination", "Equal-weight quantile average of convolution and harx-fhs", 7_391, 0.08, 0.0),
    ("convolution", "convolution", "Two short convolutions on lagged rows beside HAR", 7_203, 0.12, 0.01),
    ("control", "convolution", "A plain Conv1D of the same size", 7_180, 0.12, 0.012),
    ("mlp", "learned", "The convolution's network without the convolution", 6_914, 0.13, 0.01),
    (
        "harx-fhs",
        "econometric",
        "Pooled HAR regression of absolute returns, filtered residuals",
        24,
        0.22,
        0.0,
    ),
    ("lin", "learned", "The linear rival with the same information", 31, 0.20, 0.01),
    ("hgb-scale", "learned", "Gradient boosting of the scale, filtered residuals", 4_800, 0.26, 0.0),
    ("gjr-t", "econometric", "GJR-GARCH with Student t residuals, pooled", 6, 0.30, 0.02),
    ("ewma-fhs", "econometric", "EWMA volatility 0.94 with filtered residuals", 1, 0.32, 0.0),
    ("rolling-250", "naive", "Quantiles of the last 250 sessions", 0, 0.42, 0.04),
    ("historical", "naive", "Quantiles of all past returns", 0, 0.52, 0.06),
    ("zero", "naive", "Unconditional quantiles, centred at zero", 0, 0.53, 0.08),
)
BASELINE = "harx-fhs"
CHAMPION = "average"
DRIFT = 0.0003
KERNEL, CONTROL = "convolution", "control"
JOB = """\
name: quickstart
prices: {{kind: sample, symbols: [SP500]}}
horizons: {horizons}
backtest: {{start: 2008-01-01}}
models:
  - {{kind: convolution, name: convolution, strategy: {{kind: lagged, lags: [0, 1, 5, 21]}}}}
  - {{kind: convolution, name: control, strategy: {{kind: control, rows: 4}}}}
"""
TAIL = 5
"""Degrees of freedom of the returns."""


def _forecasts(symbol: str, horizons: Sequence[int], sessions: int, rng: np.random.Generator) -> pd.DataFrame:
    """Forecasts of all models for one symbol with their outcomes and the close of each origin."""
    n = sessions + max(horizons)
    days = pd.bdate_range("2008-01-02", periods=n).as_unit("us")
    log_variance = np.zeros(n)
    for t, shock in enumerate(rng.normal(0, 0.18, n - 1), start=1):
        log_variance[t] = 0.975 * log_variance[t - 1] + shock
    crisis = 1.1 * np.exp(-((np.arange(n) - 190) ** 2) / 6_000)
    sigma = 0.009 * np.exp(log_variance / 2 + crisis)
    returns = DRIFT + sigma * rng.standard_t(TAIL, n) / np.sqrt(TAIL / (TAIL - 2))
    path = np.cumsum(returns)
    close = 1_000 * rng.uniform(0.05, 2.5) * np.exp(path)
    shape = stats.t.ppf(LEVELS, TAIL) / np.sqrt(TAIL / (TAIL - 2))
    # Mean of a Student variable below its 1% quantile q: -pdf(q) (5 + q**2) / (5 - 1) / 0.01.
    q = stats.t.ppf(LEVELS[0], TAIL)
    mean_below = -stats.t.pdf(q, TAIL) * (TAIL + q**2) / (TAIL - 1) / LEVELS[0]
    worst = mean_below / np.sqrt(TAIL / (TAIL - 2))
    frames = []
    for h in horizons:
        y = np.where(np.arange(sessions) < sessions - h, path[h : sessions + h] - path[:sessions], np.nan)
        for name, *_, error, bias in MODELS:
            noise = pd.Series(rng.normal(0, 1.8 * error, sessions)).rolling(10, min_periods=1).mean()
            known = 0.0125 if name in ("historical", "zero") else sigma[:sessions]
            scale = (
                known * np.exp(noise.to_numpy() * (name not in ("historical", "zero")) + bias) * np.sqrt(h)
            )
            location = 0.0 if name == "zero" else DRIFT * h
            values = location + scale[:, None] * shape
            low_tail = location + scale * worst
            frame = pd.DataFrame(values, columns=quantile_columns())
            keys = {"model": name, "symbol": symbol, "origin": days[:sessions], "horizon": h, "y": y}
            frame = frame.assign(
                close=close[:sessions],
                tail_low=low_tail,
                tail_high=2 * location - low_tail,
                variance=np.square(scale),
            )
            frames.append(pd.concat([pd.DataFrame(keys), frame], axis=1))
    return pd.concat(frames, ignore_index=True)


def _write_kernels(directory: Path, rng: np.random.Generator) -> None:
    periods = np.geomspace(2, 252, 24)
    weights, responses = [], []
    for model, lags in ((KERNEL, (0, 1, 5, 21)), (CONTROL, range(8))):
        for channel in ("z", "abs_z"):
            for number in range(3):
                taps = rng.normal(size=len(lags)) / (1 + np.arange(len(lags)))
                keys = {"model": model, "channel": channel, "filter": number}
                weights.append(pd.DataFrame({**keys, "lag": list(lags), "weight": taps}))
                waves = np.exp(-2j * np.pi * np.array(list(lags)) / periods[:, None]) @ taps
                response = {"period": periods, "magnitude": np.abs(waves), "phase": np.angle(waves)}
                responses.append(pd.DataFrame({**keys, **response}))
    pd.concat(weights).to_csv(directory / "kernel_weights.csv", index=False)
    pd.concat(responses).to_csv(directory / "kernel_responses.csv", index=False)


def _write_quality(directory: Path) -> None:
    sessions = ["2013-07-03", "2013-07-05"]
    quarantine = {"symbol": "WTI", "session": sessions, "close": [-36.98, 12.0], "codes": "not-positive"}
    pd.DataFrame(quarantine).to_csv(directory / "quarantine.csv", index=False)
    restated = {
        "symbol": ["SPX", "SPX", "WTI"],
        "session": ["2017-03-01", "2017-03-02", "2018-01-05"],
        "column": ["close", "close", "open"],
        "old": [2_395.96, 2_381.0, 61.0],
        "new": [2_396.96, 2_381.92, 61.61],
        "old_fetched_at": "2018-12-01 22:00:00+00:00",
        "new_fetched_at": "2018-12-15 22:00:00+00:00",
    }
    pd.DataFrame(restated).to_csv(directory / "restatements.csv", index=False)


def write_results(
    directory: Path,
    symbols: Sequence[str] = ("SPX", "NDX", "WTI"),
    horizons: Sequence[int] = (1, 5, 21),
    sessions: int = 2_700,
) -> Path:
    """Write all files of a run."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    forecasts = pd.concat([_forecasts(name, horizons, sessions, rng) for name in symbols], ignore_index=True)
    last = forecasts["origin"].max()
    forecasts[forecasts["origin"] == last].to_parquet(directory / "latest.parquet")
    closes = forecasts[(forecasts["model"] == CHAMPION) & (forecasts["horizon"] == horizons[0])]
    closes = closes.groupby("symbol", sort=False).tail(130).rename(columns={"origin": "session"})
    closes[["symbol", "session", "close"]].to_parquet(directory / "recent_prices.parquet")
    forecasts = forecasts.drop(columns=["close", *TAIL_COLUMNS])
    # Several row groups, as a large run has.
    forecasts.to_parquet(directory / "forecasts.parquet", row_group_size=20_000)
    score_table(forecasts).to_csv(directory / "scores.csv", index=False)
    known = forecasts[forecasts["y"].notna()]
    rows = known[["model", "symbol", "origin", "horizon"]].assign(crps=row_scores(known)["crps"])
    verdicts(daily_losses(rows), BASELINE, "historical").to_csv(directory / "verdict.csv", index=False)
    models = pd.DataFrame(
        [model[:4] for model in MODELS], columns=["model", "kind", "description", "parameters"]
    )
    models["fit_seconds"] = (0.2 + models["parameters"] / 120).round(3)
    models["predict_seconds"] = (0.1 + models["parameters"] / 4_000).round(3)
    models.to_csv(directory / "models.csv", index=False)
    findings = [
        ("SPX", "open_equals_previous_close", "warning", 1_742, "1999-01-05",
         "the open equals the previous close", "range estimators fall back to Parkinson on these days"),
        ("WTI", "stale_run", "notice", 4, "2013-07-03", "4 sessions with the same close", "kept"),
    ]  # fmt: skip
    columns = ["symbol", "code", "severity", "sessions", "first_session", "message", "action"]
    pd.DataFrame(findings, columns=columns).to_csv(directory / "findings.csv", index=False)
    reason = "212 sessions, fewer than the 1,000 that the first fold needs: lengthen the history or drop it"
    pd.DataFrame({"symbol": ["OLD"], "reason": [reason]}).to_csv(directory / "failures.csv", index=False)
    _write_kernels(directory, rng)
    _write_quality(directory)
    summary = {
        "job": "quickstart",
        "horizons": list(horizons),
        "symbols": list(symbols),
        "champion": CHAMPION,
        "champion_reason": f"{CHAMPION} has the lowest CRPS and is better than every simpler model",
        "best_baseline": BASELINE,
        "backtest": {"start": "2008-01-02", "end": f"{last:%Y-%m-%d}", "refits": 11, "origins": sessions},
        "data_version": "9f2c4a7be01d5583",
        "code_version": "0.1.0",
        "job_hash": "51c0de77aa90",
        "created_at": "2018-12-31T22:15:04+00:00",
        "versions": {"python": "3.11.9", "numpy": "2.4.6", "tensorflow": "2.21.0", "keras": "3.15.0"},
        "seed": 7,
        "job_yaml": JOB.format(horizons=list(horizons)),
        "configurations": {"tried": 34, "runs": 3, "counted": "distinct settings in the tracking store"},
        "data": {
            "first_session": "1999-01-04",
            "last_session": f"{last:%Y-%m-%d}",
            "store": {
                "known_at": "2018-12-31T22:10:00+00:00",
                "point_in_time": False,
                "sessions_behind": 2,
            },
        },
        "command": "forecaster run configs/quickstart.yaml",
        "mlflow": {
            "tracking_uri": "sqlite:///workspace/mlflow.db",
            "experiment": "forecaster/quickstart/daily",
            "run_id": "0d6b1c",
            "registered_model": "quickstart",
            "version": "3",
        },
        "elapsed_seconds": 182.4,
    }
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return directory
