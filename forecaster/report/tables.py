"""The numbers of the page, taken from the result files and not yet written as text."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from forecaster.quantiles import probability_below, quantile_columns
from forecaster.report.results import Results

__all__ = [
    "ForecastRow",
    "HorizonVerdict",
    "LeaderboardCell",
    "LeaderboardRow",
    "Outlook",
    "horizon_verdicts",
    "leaderboard",
    "outlooks",
    "scores_of",
]

NAN = float("nan")
POOLED = "*"


@dataclass(frozen=True)
class HorizonVerdict:
    """What the backtest says at one horizon.

    Parameters
    ----------
    horizon : int
    baseline : str
        The best baseline, ``""`` where none is named.
    model : str
        The best of the models judged better; where there is none, the other model of the lowest CRPS. ``""``
        where no ratio is known.
    word : str
        The verdict on ``model``.
    crps_ratio, p_value, smallest_detectable : float
        Of ``model`` against ``baseline``; NaN where unknown.
    better : int
        Models judged better than the baseline.
    skilled, judged : int
        Models with skill against the unconditional history, of how many that were judged.
    champion_ratio : float
        CRPS ratio of the champion, NaN where unknown.
    champion_word : str
        The verdict on the champion.
    """

    horizon: int
    baseline: str
    model: str
    word: str
    crps_ratio: float
    p_value: float
    smallest_detectable: float
    better: int
    skilled: int
    judged: int
    champion_ratio: float
    champion_word: str


@dataclass(frozen=True)
class LeaderboardCell:
    """One model at one horizon; NaN or ``""`` where the files say nothing. Shares are fractions of one."""

    horizon: int
    crps_ratio: float
    verdict: str
    p_value: float
    smallest_detectable: float
    skill: str
    coverage_80: float
    coverage_95: float
    direction: float
    direction_base_rate: float


@dataclass(frozen=True)
class LeaderboardRow:
    """One model at all horizons."""

    model: str
    kind: str
    description: str
    parameters: float
    fit_seconds: float
    predict_seconds: float
    mean_ratio: float
    cells: tuple[LeaderboardCell, ...]


@dataclass(frozen=True)
class ForecastRow:
    """The forecast for one symbol and horizon.

    Parameters
    ----------
    horizon : int
    quantiles : ndarray of shape (n_levels,)
        Cumulative log return.
    median, low, high : float
        Simple return at the median and at the ends of the 80% interval: ``exp(log return) - 1``.
    median_price, low_price, high_price : float
        ``close * exp(log return)``; NaN without a close.
    probability_of_rise : float
        From the quantiles, interpolated at zero.
    base_rate : float
        Share of rises in the backtest, NaN where unknown.
    value_at_risk_5, value_at_risk_1 : float
        Loss, as a positive fraction of the price, that is exceeded with a probability of 5% and 1%.
    """

    horizon: int
    quantiles: np.ndarray
    median: float
    low: float
    high: float
    median_price: float
    low_price: float
    high_price: float
    probability_of_rise: float
    base_rate: float
    value_at_risk_5: float
    value_at_risk_1: float


@dataclass(frozen=True)
class Outlook:
    """All that is forecast for one symbol after its last session.

    ``table`` holds the rows of ``latest.parquet`` that ``rows`` tells.
    """

    symbol: str
    origin: pd.Timestamp
    close: float
    rows: tuple[ForecastRow, ...]
    table: pd.DataFrame


def scores_of(results: Results, symbol: str = POOLED) -> dict[tuple[str, int, str], float]:
    """Scores of one symbol (``*``: pooled) by model, horizon and metric."""
    part = results.scores[results.scores["symbol"] == symbol]
    return {
        (model, int(horizon), metric): float(value)
        for model, horizon, metric, value in zip(
            part["model"], part["horizon"], part["metric"], part["value"], strict=True
        )
    }


def _verdict_of(record: dict[Any, Any] | None) -> dict[str, Any]:
    if record is None:
        return {"model": "", "word": "", "crps_ratio": NAN, "p_value": NAN, "smallest_detectable": NAN}
    numbers = ("crps_ratio", "p_value", "smallest_detectable")
    return {"model": record["model"], "word": record["verdict"]} | {name: record[name] for name in numbers}


def horizon_verdicts(results: Results) -> list[HorizonVerdict]:
    """Sum up the verdicts of each horizon."""
    verdicts = []
    for horizon in results.horizons:
        baseline = results.baselines.get(horizon, "")
        at = results.verdict[results.verdict["horizon"] == horizon]
        others = (
            at[at["model"] != baseline].dropna(subset="crps_ratio").sort_values("crps_ratio", kind="stable")
        )
        better = others[others["verdict"] == "better"]
        best = (better if len(better) else others).head(1).to_dict("records")
        champion = at[at["model"] == results.champion]
        judged = at[at["skill"].isin(["skill", "no skill"])]
        verdicts.append(
            HorizonVerdict(
                horizon=horizon,
                baseline=baseline,
                **_verdict_of(best[0] if best else None),
                better=len(better),
                skilled=int((judged["skill"] == "skill").sum()),
                judged=len(judged),
                champion_ratio=float(champion["crps_ratio"].iloc[0]) if len(champion) else NAN,
                champion_word=str(champion["verdict"].iloc[0]) if len(champion) else "",
            )
        )
    return verdicts


def leaderboard(results: Results) -> list[LeaderboardRow]:
    """All models, the lowest average CRPS ratio first; those without a ratio last, by name."""
    pooled = scores_of(results)
    verdicts = {(row["model"], row["horizon"]): row for row in results.verdict.to_dict("records")}
    about = {row["model"]: row for row in results.models.to_dict("records")}
    names = {*about, *(model for model, _ in verdicts), *(model for model, _, _ in pooled)}
    rows = []
    for model in names:
        cells = []
        for horizon in results.horizons:
            verdict = verdicts.get((model, horizon), {})
            score = {
                metric: pooled.get((model, horizon, metric), NAN)
                for metric in ("coverage_80", "coverage_95", "direction", "direction_base_rate")
            }
            cells.append(
                LeaderboardCell(
                    horizon=horizon,
                    crps_ratio=verdict.get("crps_ratio", NAN),
                    verdict=verdict.get("verdict", ""),
                    p_value=verdict.get("p_value", NAN),
                    smallest_detectable=verdict.get("smallest_detectable", NAN),
                    skill=verdict.get("skill", ""),
                    **score,
                )
            )
        ratios = [cell.crps_ratio for cell in cells if math.isfinite(cell.crps_ratio)]
        row = about.get(model, {})
        rows.append(
            LeaderboardRow(
                model=model,
                kind=row.get("kind", ""),
                description=row.get("description", ""),
                parameters=row.get("parameters", NAN),
                fit_seconds=row.get("fit_seconds", NAN),
                predict_seconds=row.get("predict_seconds", NAN),
                mean_ratio=sum(ratios) / len(ratios) if ratios else math.inf,
                cells=tuple(cells),
            )
        )
    return sorted(rows, key=lambda row: (row.mean_ratio, row.model))


def _exp(log_return: float) -> float:
    return math.exp(log_return) if log_return < 50 else NAN


def outlooks(results: Results, model: str) -> list[Outlook]:
    """Forecasts of one model after each symbol's last session, in the order of the file.

    Rows with a NaN quantile are left out; of several origins the last one counts.
    """
    part = results.latest[results.latest["model"] == model]
    values = part[quantile_columns()].to_numpy(dtype=np.float64)
    part = part[np.isfinite(values).all(axis=1) & part["origin"].notna().to_numpy()]
    part = part[part["origin"] == part.groupby("symbol")["origin"].transform("max")]
    base_rates = results.scores[results.scores["metric"] == "direction_base_rate"]
    base_rates = base_rates[base_rates["model"] == model].drop_duplicates(["symbol", "horizon"])
    base_rate = base_rates.set_index(["symbol", "horizon"])["value"].to_dict()
    found = []
    for symbol, rows in part.groupby("symbol", sort=False):
        rows = rows.drop_duplicates("horizon").sort_values("horizon")
        close = float(rows["close"].iloc[0])
        close = close if math.isfinite(close) and close > 0 else NAN
        quantiles = rows[quantile_columns()].to_numpy(dtype=np.float64)
        rises = 1.0 - probability_below(quantiles, np.zeros(len(rows)))
        forecast_rows = []
        for values, horizon, rise in zip(quantiles, rows["horizon"], rises, strict=True):
            q = dict(zip(quantile_columns(), (float(value) for value in values), strict=True))
            growth = {name: _exp(q[name]) for name in ("q0.01", "q0.05", "q0.1", "q0.5", "q0.9")}
            forecast_rows.append(
                ForecastRow(
                    horizon=int(horizon),
                    quantiles=values,
                    median=growth["q0.5"] - 1.0,
                    low=growth["q0.1"] - 1.0,
                    high=growth["q0.9"] - 1.0,
                    median_price=close * growth["q0.5"],
                    low_price=close * growth["q0.1"],
                    high_price=close * growth["q0.9"],
                    probability_of_rise=float(rise),
                    base_rate=base_rate.get((symbol, int(horizon)), NAN),
                    value_at_risk_5=1.0 - growth["q0.05"],
                    value_at_risk_1=1.0 - growth["q0.01"],
                )
            )
        found.append(Outlook(str(symbol), rows["origin"].iloc[0], close, tuple(forecast_rows), rows))
    return found
