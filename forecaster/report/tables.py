"""The numbers of the page, taken from the result files and not yet written as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from forecaster.quantiles import expected_shortfall, probability_below, quantile_columns
from forecaster.report.results import Results
from forecaster.scores import COVERAGES

__all__ = [
    "ForecastRow",
    "HorizonVerdict",
    "LeaderboardCell",
    "LeaderboardRow",
    "Outlook",
    "RestatedSymbol",
    "Seen",
    "TrackRow",
    "horizon_verdicts",
    "leaderboard",
    "outlooks",
    "restated_symbols",
    "scores_of",
    "seen_lags",
    "seen_periods",
    "seen_side_by_side",
    "track_record",
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
    confidence_set: str
    mcs_p_value: float
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
    expected_shortfall_5, expected_shortfall_1 : float
        The mean log return of the worst 5% and 1%, as such a loss; NaN where the forecast states no tails.
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
    expected_shortfall_5: float
    expected_shortfall_1: float


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


@dataclass(frozen=True)
class TrackRow:
    """The record of issued forecasts, of one model at one horizon, beside what the backtest promised.

    Parameters
    ----------
    model : str
    horizon : int
    forecasts : int
        Issued in time and scored, over all symbols and origins.
    first, last : Timestamp
        Origins.
    crps, backtest_crps : float
        Mean, in log return; NaN where the backtest did not score the model.
    coverage, backtest_coverage : tuple of float
        Shares of outcomes inside the 50, 80 and 95% intervals.
    hits, backtest_hits : tuple of float
        Shares of outcomes below the 5% and the 1% quantile; NaN where the ledger does not say.
    """

    model: str
    horizon: int
    forecasts: int
    first: pd.Timestamp
    last: pd.Timestamp
    crps: float
    backtest_crps: float
    coverage: tuple[float, ...]
    backtest_coverage: tuple[float, ...]
    hits: tuple[float, ...]
    backtest_hits: tuple[float, ...]


@dataclass(frozen=True)
class RestatedSymbol:
    """What a source changed in the history of one symbol.

    Parameters
    ----------
    symbol : str
    sessions, numbers : int
        How many sessions, and how many numbers in them.
    first, last : Timestamp
        The first and the last of the sessions.
    largest : float
        Largest relative change; NaN where nothing positive was changed.
    fetched : str
        When the last change was seen, in UTC.
    """

    symbol: str
    sessions: int
    numbers: int
    first: pd.Timestamp
    last: pd.Timestamp
    largest: float
    fetched: str


@dataclass(frozen=True)
class Seen:
    """A network with a 2D kernel and its control; ``""`` where there is none."""

    model: str
    control: str


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
                    confidence_set=verdict.get("confidence_set", ""),
                    mcs_p_value=verdict.get("mcs_p_value", NAN),
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
        low_tail = rows["tail_low"].to_numpy(dtype=np.float64)
        worst = [expected_shortfall(quantiles, low_tail, level) for level in (0.05, 0.01)]
        for values, horizon, rise, worst_5, worst_1 in zip(
            quantiles, rows["horizon"], rises, *worst, strict=True
        ):
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
                    expected_shortfall_5=1.0 - _exp(worst_5),
                    expected_shortfall_1=1.0 - _exp(worst_1),
                )
            )
        found.append(Outlook(str(symbol), rows["origin"].iloc[0], close, tuple(forecast_rows), rows))
    return found


COVERAGE_METRICS = tuple(f"coverage_{round(100 * coverage)}" for coverage in COVERAGES)
HIT_METRICS = ("hit_rate_0.05", "hit_rate_0.01")


def track_record(results: Results) -> list[TrackRow]:
    """Average the record since issue by model and horizon; every forecast counts the same.

    Origins without a score, or without forecasts, are left out.
    """
    table = results.track_record
    if table is None:
        return []
    pooled = scores_of(results)
    table = table[(table["forecasts"] > 0) & table["crps"].notna() & table["origin"].notna()]
    rows = []
    for (model, horizon), part in table.groupby(["model", "horizon"]):
        weights = part["forecasts"].to_numpy(dtype=np.float64)
        metrics = ("crps", *COVERAGE_METRICS, *HIT_METRICS)
        means = {name: float(np.average(part[name].to_numpy(), weights=weights)) for name in metrics}
        promised = {name: pooled.get((str(model), int(str(horizon)), name), NAN) for name in metrics}
        rows.append(
            TrackRow(
                model=str(model),
                horizon=int(str(horizon)),
                forecasts=int(weights.sum()),
                first=part["origin"].min(),
                last=part["origin"].max(),
                crps=means["crps"],
                backtest_crps=promised["crps"],
                coverage=tuple(means[name] for name in COVERAGE_METRICS),
                backtest_coverage=tuple(promised[name] for name in COVERAGE_METRICS),
                hits=tuple(means[name] for name in HIT_METRICS),
                backtest_hits=tuple(promised[name] for name in HIT_METRICS),
            )
        )
    # What is in use first: the champion, then the best baselines.
    first = {name: place for place, name in enumerate([results.champion, *results.baselines.values()][::-1])}
    return sorted(rows, key=lambda row: (-first.get(row.model, -1), row.model, row.horizon))


def restated_symbols(results: Results) -> list[RestatedSymbol]:
    """Sum up restatements by symbol, the most sessions first."""
    if results.restatements is None:
        return []
    rows = [
        RestatedSymbol(
            symbol=str(symbol),
            sessions=part["session"].nunique(),
            numbers=len(part),
            first=part["session"].min(),
            last=part["session"].max(),
            largest=float((part["new"] / part["old"] - 1.0).abs().where(part["old"] > 0).max()),
            fetched=str(part["new_fetched_at"].max())[:19],
        )
        for symbol, part in results.restatements.groupby("symbol")
    ]
    return sorted(rows, key=lambda row: (-row.sessions, row.symbol))


def seen_side_by_side(results: Results) -> Seen:
    """Choose the 2D kernel to show, the champion's or that of the lowest CRPS, and the first control."""
    seen = set(results.kernel_weights["model"])
    ranked = [row.model for row in leaderboard(results) if row.model in seen]
    ranked = [name for name in (results.champion, *ranked) if name in seen]
    return Seen(
        next((name for name in ranked if name not in results.controls), ""),
        next((name for name in ranked if name in results.controls), ""),
    )


def seen_lags(weights: pd.DataFrame, model: str) -> pd.DataFrame:
    """Root mean square over filters of a model's weights, by channel and lag: ``channel, lag, size``."""
    part = weights[(weights["model"] == model) & weights["weight"].notna() & weights["lag"].notna()]
    squares = part.assign(size=np.square(part["weight"])).groupby(["channel", "lag"], sort=False)["size"]
    return pd.DataFrame(np.sqrt(squares.mean()).reset_index())


def seen_periods(responses: pd.DataFrame, models: Sequence[str]) -> pd.DataFrame:
    """Root mean square over channels and filters of responses, over the largest of each model.

    Returns
    -------
    DataFrame
        ``name, period, magnitude``: what `forecaster.report.charts.frequency_response` draws.
    """
    frames = []
    for model in models:
        part = responses[(responses["model"] == model) & responses["magnitude"].notna()]
        squares = part.assign(magnitude=np.square(part["magnitude"])).groupby("period")["magnitude"].mean()
        size = np.sqrt(squares)
        top = float(size.max()) if len(size) else NAN
        frames.append((size / top if top > 0 else size).reset_index().assign(name=model))
    columns = ["name", "period", "magnitude"]
    return pd.concat(frames, ignore_index=True)[columns] if frames else pd.DataFrame(columns=columns)
