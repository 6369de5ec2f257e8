"""Makes the result files of a finished run, small or large, from returns whose true distribution is known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.scores import row_scores, score_table
from forecaster.significance import daily_losses, verdicts

# Name, kind, description, parameters, and how far (log standard deviation, bias) its volatility is from the truth.
MODELS = (
    (
        "average",
        "combination",
        "Equal-weight quantile average of convolution and harx-fhs",
        7_391,
        0.08,
        0.00,
    ),
    (
        "convolution",
        "convolution",
        "Two short convolutions on lagged rows beside HAR features",
        7_203,
        0.12,
        0.01,
    ),
    ("mlp", "learned", "The convolution's network without the convolution", 6_914, 0.13, 0.01),
    (
        "harx-fhs",
        "econometric",
        "Pooled HAR regression of absolute returns with filtered residuals",
        24,
        0.22,
        0.00,
    ),
    ("lin", "learned", "The linear rival with the same information", 31, 0.20, 0.01),
    ("hgb-scale", "learned", "Gradient boosting of the scale, filtered residuals", 4_800, 0.26, 0.00),
    ("gjr-t", "econometric", "GJR-GARCH with Student t residuals, pooled filtered residuals", 6, 0.30, 0.02),
    ("ewma-fhs", "econometric", "EWMA volatility 0.94 with filtered residuals", 1, 0.32, 0.00),
    ("rolling-250", "naive", "Quantiles of the last 250 sessions", 0, 0.42, 0.04),
    ("historical", "naive", "Quantiles of all past returns", 0, 0.52, 0.06),
    ("zero", "naive", "Unconditional quantiles, centred at zero", 0, 0.53, 0.08),
)
BASELINE = "harx-fhs"


def _quantiles(sigma: np.ndarray, drift: float) -> np.ndarray:
    shape = stats.t.ppf(LEVELS, 5) / np.sqrt(5 / 3)
    return np.sort(drift + sigma[:, None] * shape, axis=1)


def write_results(
    directory: Path,
    symbols: Sequence[str] = ("SPX", "NDX", "WTI"),
    models: int = len(MODELS),
    horizons: Sequence[int] = (1, 5, 21),
    start: str = "2008-01-02",
    sessions: int = 2_700,
    champion: str = "average",
    forecast_symbols: Sequence[str] | None = None,
) -> Path:
    """Write all files of a run; `forecast_symbols` are forecast but not backtested (default: `symbols`)."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    days = pd.bdate_range(start, periods=sessions + max(horizons)).as_unit("us")
    chosen = MODELS[:models]
    frames, latest, prices = [], [], []
    for symbol in forecast_symbols or symbols:
        n = len(days) if symbol in symbols else 130 + max(horizons)
        log_variance = np.zeros(n)
        shocks = rng.normal(0, 0.18, n)
        for t in range(1, n):
            log_variance[t] = 0.975 * log_variance[t - 1] + shocks[t]
        crisis = 1.1 * np.exp(-((np.arange(n) - 190) ** 2) / 6_000) if n > 1_000 else 0.0
        sigma = 0.009 * np.exp(log_variance / 2 + crisis)
        returns = 0.0003 + sigma * rng.standard_t(5, n) / np.sqrt(5 / 3)
        close = 1_000 * rng.uniform(0.05, 2.5) * np.exp(np.cumsum(returns))
        tail = days[-n:]
        last = n - max(horizons) - 1
        prices.append(
            pd.DataFrame({"symbol": symbol, "session": tail[: last + 1], "close": close[: last + 1]}).tail(
                130
            )
        )
        cumulative = np.concatenate([[0.0], np.cumsum(returns)])
        for h in horizons:
            origins = np.arange(0, last + 1) if symbol in symbols else np.arange(last, last + 1)
            y = cumulative[origins + h + 1] - cumulative[origins + 1]
            y[-h:] = np.nan
            for name, *_, error, bias in chosen:
                level = np.exp(rng.normal(0, 0.02) + bias)
                noise = pd.Series(rng.normal(0, error * 0.6, n)).rolling(10, min_periods=1).mean() * 3.0
                guess = sigma * np.exp(noise.to_numpy()) * level
                if name in ("historical", "zero"):
                    guess = np.full(n, 0.0125) * level
                values = _quantiles(guess[origins] * np.sqrt(h), 0.0 if name == "zero" else 0.0003 * h)
                frame = pd.DataFrame(values, columns=quantile_columns())
                frame.insert(0, "model", name)
                frame.insert(1, "symbol", symbol)
                frame.insert(2, "origin", tail[origins])
                frame.insert(3, "horizon", h)
                frame.insert(4, "y", y)
                if symbol in symbols:
                    frames.append(frame)
                latest.append(frame.tail(1).assign(close=close[last]))
    forecasts = pd.concat(frames, ignore_index=True)
    forecasts.to_parquet(directory / "forecasts.parquet")
    pd.concat(latest, ignore_index=True).to_parquet(directory / "latest.parquet")
    pd.concat(prices, ignore_index=True).to_parquet(directory / "recent_prices.parquet")
    score_table(forecasts).to_csv(directory / "scores.csv", index=False)
    known = forecasts[forecasts["y"].notna()]
    losses = daily_losses(
        known[["model", "symbol", "origin", "horizon"]].assign(crps=row_scores(known)["crps"]),
    )
    names = [name for name, *_ in chosen]
    baseline = BASELINE if BASELINE in names else names[-1]
    reference = "historical" if "historical" in names else None
    verdicts(losses, baseline, reference).to_csv(directory / "verdict.csv", index=False)
    pd.DataFrame(
        [
            {
                "model": name, "kind": kind, "description": text, "parameters": parameters,
                "fit_seconds": round(0.2 + parameters / 120, 3), "predict_seconds": round(0.1 + parameters / 4_000, 3),
            }
            for name, kind, text, parameters, *_ in chosen
        ]
    ).to_csv(directory / "models.csv", index=False)  # fmt: skip
    pd.DataFrame(
        [
            ["SPX", "open_equals_previous_close", "warning", 1_742, "1999-01-05",
             "the open equals the previous close", "range estimators fall back to Parkinson on these days"],
            ["WTI", "stale_run", "notice", 4, "2013-07-03", "4 sessions with the same close", "kept"],
        ],
        columns=["symbol", "code", "severity", "sessions", "first_session", "message", "action"],
    ).to_csv(directory / "findings.csv", index=False)  # fmt: skip
    pd.DataFrame(
        [
            [
                "OLD",
                "212 sessions, fewer than the 1,000 that the first fold needs: lengthen the history or drop it",
            ]
        ],
        columns=["symbol", "reason"],
    ).to_csv(directory / "failures.csv", index=False)
    summary = {
        "job": "quickstart",
        "horizons": list(horizons),
        "symbols": list(forecast_symbols or symbols),
        "champion": champion,
        "champion_reason": f"{champion} has the lowest CRPS over all horizons and is better than every simpler model",
        "best_baseline": baseline,
        "backtest": {
            "start": str(days[0].date()), "end": str(days[sessions - 1].date()), "refits": 11, "origins": sessions,
        },
        "data_version": "9f2c4a7be01d5583",
        "code_version": "0.1.0",
        "job_hash": "51c0de77aa90",
        "created_at": "2018-12-31T22:15:04+00:00",
        "versions": {"python": "3.11.9", "numpy": "2.4.6", "tensorflow": "2.21.0", "keras": "3.15.0"},
        "seed": 7,
        "job_yaml": "name: quickstart\nhorizons: [1, 5, 21]\nsymbols: [" + ", ".join(forecast_symbols or symbols) + "]\n",
        "command": "forecaster run configs/quickstart.yaml",
        "mlflow": {
            "tracking_uri": "sqlite:///workspace/mlflow.db", "experiment": "forecaster/quickstart/daily",
            "run_id": "0d6b1c", "registered_model": "quickstart", "version": "3",
        },
        "elapsed_seconds": 182.4,
    }  # fmt: skip
    (directory / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    return directory
