"""Charts of what is forecast: the fan of one symbol, and models side by side."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.report.charts.base import (
    CLOSES_SHOWN,
    Chart,
    Figure,
    interval_ends,
    named_rows,
    rounded,
    sessions,
    upright,
)
from forecaster.report.style import LIGHT, percent, plotly_text, price, signed_percent
from forecaster.scores import COVERAGES

__all__ = ["fan", "intervals"]

MEDIAN = LEVELS.index(0.5)
BANDS = (LIGHT.band_50, LIGHT.band_80, LIGHT.band_95)


def _prices(close: float, log_returns: np.ndarray) -> np.ndarray:
    # A broken model's quantile may be beyond what exp can hold: that end is a gap, not a warning.
    with np.errstate(over="ignore"):
        prices: np.ndarray = close * np.exp(log_returns)
    return prices


def fan(forecasts: pd.DataFrame, closes: pd.DataFrame) -> Chart:
    """Draw the last closes and the 50, 80 and 95% intervals of the price after them.

    Parameters
    ----------
    forecasts : DataFrame
        One symbol's forecasts by one model at one origin, at least one row: ``origin, horizon, close`` and
        the 23 quantiles of the log return; the close is finite and positive.
    closes : DataFrame
        Columns ``session, close`` of this symbol; sessions after the origin are not drawn.
    """
    rows = forecasts.sort_values("horizon")
    origin, close = pd.Timestamp(rows["origin"].iloc[0]), float(rows["close"].iloc[0])
    horizons = [int(horizon) for horizon in rows["horizon"]]
    quantiles = rows[quantile_columns()].to_numpy(dtype=np.float64)
    # One row a point of the fan, the first being the last close itself.
    prices = _prices(close, np.vstack([np.zeros(len(LEVELS)), quantiles]))
    past = closes[["session", "close"]]
    past = past[past["session"] <= origin].dropna().sort_values("session").tail(CLOSES_SHOWN)
    if past.empty or past["session"].iloc[-1] < origin:
        last = pd.DataFrame({"session": [origin], "close": [close]})
        past = last if past.empty else pd.concat([past, last], ignore_index=True)
    past_x = list(range(1 - len(past), 1))
    x = [0, *horizons]
    figure = Figure()
    for coverage, colour in zip(reversed(COVERAGES), reversed(BANDS), strict=True):
        for end, fill in zip(interval_ends(coverage), (None, "tonexty"), strict=True):
            figure.add(
                "scatter", x=x, y=rounded(prices[:, end]), mode="lines", line={"width": 0, "color": colour},
                fill=fill, fillcolor=colour, hoverinfo="skip", name=f"{percent(coverage, 0)} interval",
                showlegend=fill is not None,
            )  # fmt: skip
    hover = [
        f"{day:%Y-%m-%d}<br>close {price(float(value))}"
        for day, value in zip(past["session"], past["close"], strict=True)
    ]
    figure.add(
        "scatter", x=past_x, y=rounded(past["close"].to_numpy(dtype=float)), mode="lines", name="close",
        line={"color": LIGHT.ink, "width": 1.6}, hovertext=hover, hoverinfo="text",
    )  # fmt: skip
    hover = [""]
    for horizon, log_returns, at in zip(horizons, quantiles, prices[1:], strict=True):
        lines = [
            f"{sessions(horizon)} ahead",
            f"median {price(float(at[MEDIAN]))} ({signed_percent(_simple(log_returns[MEDIAN]))})",
        ]
        for coverage in COVERAGES:
            low, high = (float(at[end]) for end in interval_ends(coverage))
            lines.append(f"{percent(coverage, 0)}: {price(low)} to {price(high)}")
        hover.append("<br>".join(lines))
    figure.add(
        "scatter", x=x, y=rounded(prices[:, MEDIAN]), mode="lines+markers", name="median",
        line={"color": LIGHT.blue, "width": 1.8}, hovertext=hover, hoverinfo="text",
        marker={"size": [0, *([6] * len(horizons))], "color": LIGHT.blue},
    )  # fmt: skip
    figure.arrange(
        height=270,
        xaxis=_dated(past["session"].dt.strftime("%Y-%m-%d").tolist(), past_x, x[-1]),
        yaxis={"tickformat": ",.6~g", "nticks": 6},
        shapes=[upright(0, LIGHT.line, dash="dot")],
    )
    if _crowded(len(past), x[-1]):
        figure.arrange(margin={"r": 40})
    low, high = (float(prices[-1, end]) for end in interval_ends(0.8))
    median = float(prices[-1, MEDIAN])
    return Chart(
        figure.plain(),
        f"{sessions(horizons[-1])} ahead: median {price(median)} "
        f"({signed_percent(_simple(quantiles[-1, MEDIAN]))}), 80% between {price(low)} and {price(high)}.",
        shows="the price interval that should hold the close after each horizon (dots) with the stated "
        "probability",
        hides="a path: only the dots are forecast, the lines between them guide the eye, and the price may "
        "leave the fan on the way",
    )


def _simple(log_return: float) -> float:
    return math.exp(log_return) - 1.0 if log_return < 50 else math.nan


def _crowded(past: int, ahead: int) -> bool:
    """Whether the label of the last horizon would touch that of the origin."""
    return ahead < 0.12 * (ahead + past)


def _dated(dates: list[str], past_x: list[int], ahead: int) -> dict[str, Any]:
    ticks = {ahead: f"+{ahead}", 0: dates[-1]}
    # Labels that would touch are left out: the origin's stays.
    if _crowded(len(dates), ahead):
        del ticks[ahead]
    if len(dates) >= 30:
        ticks |= {past_x[index]: dates[index] for index in (0, len(dates) // 2)}
    return {
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "tickangle": 0,
        "range": [past_x[0] - 1, ahead + 1.5],
        "showgrid": False,
        "ticks": "outside",
    }


def intervals(forecasts: pd.DataFrame) -> Chart:
    """Draw the 50, 80 and 95% intervals of several models for the same symbol and horizon, one below another.

    Parameters
    ----------
    forecasts : DataFrame
        At least one row, one a model, in the order to be drawn: ``model, horizon`` and the 23 quantiles.
    """
    names = [str(name) for name in forecasts["model"]]
    with np.errstate(over="ignore"):
        values = np.expm1(forecasts[quantile_columns()].to_numpy(dtype=np.float64))
    figure = Figure()
    for coverage, colour, width in zip(reversed(COVERAGES), reversed(BANDS), (6, 10, 14), strict=True):
        low, high = interval_ends(coverage)
        for position, at in enumerate(values):
            figure.add(
                "scatter", x=rounded([at[low], at[high]]), y=[position, position], mode="lines",
                hoverinfo="skip", line={"color": colour, "width": width},
                name=f"{percent(coverage, 0)} interval", showlegend=position == 0,
            )  # fmt: skip
    hover = []
    for name, at in zip(names, values, strict=True):
        lines = [plotly_text(name), f"median {signed_percent(float(at[MEDIAN]))}"]
        for coverage in COVERAGES:
            low_end, high_end = (signed_percent(float(at[end])) for end in interval_ends(coverage))
            lines.append(f"{percent(coverage, 0)}: {low_end} to {high_end}")
        hover.append("<br>".join(lines))
    figure.add(
        "scatter", x=rounded(values[:, MEDIAN]), y=list(range(len(names))), mode="markers", name="median",
        marker={"size": 8, "color": LIGHT.ink, "symbol": "line-ns-open", "line": {"width": 2}},
        hovertext=hover, hoverinfo="text",
    )  # fmt: skip
    figure.arrange(
        height=80 + 26 * max(len(names), 2),
        xaxis={"tickformat": "+.1~%", "nticks": 6},
        yaxis=named_rows(names),
        shapes=[upright(0, LIGHT.muted)],
    )
    low, high = interval_ends(0.8)
    widths = values[:, high] - values[:, low]
    order = np.argsort(np.where(np.isfinite(widths), widths, np.inf))
    narrow, wide = (f"{names[k]} ({percent(float(widths[k]))})" for k in (order[0], order[-1]))
    words = f"The 80% interval of {names[0]} is {percent(float(widths[0]))} of the price wide."
    if len(names) > 1:
        words = f"The 80% interval is narrowest for {narrow} and widest for {wide}."
    return Chart(
        figure.plain(),
        words,
        shows=f"the simple return over {sessions(int(forecasts['horizon'].iloc[0]))} as each model sees it",
        hides="which model is right: a narrow interval is better only if outcomes stay inside it as often as "
        "it says",
    )
