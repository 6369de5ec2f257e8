"""The figures of the page, drawn in light mode; the page recolours them for the dark one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from forecaster.quantiles import LEVELS
from forecaster.report.backtest import COVERAGE_COLUMNS, PIT_EDGES
from forecaster.report.style import (
    LIGHT,
    VERDICT_MARKS,
    p_value,
    percent,
    plotly_text,
    price,
    ratio,
    signed_percent,
)
from forecaster.report.tables import LeaderboardRow, Outlook
from forecaster.scores import COVERAGES

__all__ = ["SERIES", "coverage_by_year", "crps_ratio_by_year", "fan", "pit_histogram", "ratio_dots"]

SERIES = ((LIGHT.blue, "circle"), (LIGHT.vermillion, "square"), (LIGHT.green, "diamond"))
"""Colour and marker of the 50%, 80% and 95% lines."""
CLOSES_SHOWN = 60
RATIO_CAP = 1.025
"""Ratios above this are drawn at the edge: the naive models must not flatten the differences that matter."""


def _plain(figure: go.Figure) -> dict[str, Any]:
    """Make a figure plain data without a template: the page holds one for all."""
    plain: dict[str, Any] = figure.to_plotly_json()
    plain["layout"].pop("template", None)
    return plain


def _rounded(values: Sequence[float] | np.ndarray, digits: int = 6) -> list[float | None]:
    """Round to significant digits, which keeps the file small; what is not finite becomes a gap."""
    return [float(f"{value:.{digits}g}") if math.isfinite(value) else None for value in values]


def sessions(horizon: int) -> str:
    """Write a number of sessions."""
    return f"{horizon:,} session" + ("" if horizon == 1 else "s")


def _prices(outlook: Outlook, log_returns: Sequence[float] | np.ndarray) -> np.ndarray:
    # A broken model's quantile may be beyond what exp can hold: that end is a gap, not a warning.
    with np.errstate(over="ignore"):
        prices: np.ndarray = outlook.close * np.exp(np.asarray(log_returns, dtype=float))
    return prices


def fan(outlook: Outlook, closes: pd.DataFrame) -> dict[str, Any]:
    """Draw the last closes and the 50, 80 and 95% intervals of the price after them.

    Parameters
    ----------
    outlook : Outlook
        With a finite close.
    closes : DataFrame
        Columns ``session, close`` of this symbol; sessions after the origin are not drawn.
    """
    past = closes[closes["session"] <= outlook.origin].dropna().sort_values("session").tail(CLOSES_SHOWN)
    if past.empty or past["session"].iloc[-1] < outlook.origin:
        last = pd.DataFrame({"session": [outlook.origin], "close": [outlook.close]})
        past = last if past.empty else pd.concat([past, last], ignore_index=True)
    past_x = list(range(1 - len(past), 1))
    x = [0, *(row.horizon for row in outlook.rows)]
    figure = go.Figure()
    for coverage, colour in zip(
        reversed(COVERAGES), (LIGHT.band_95, LIGHT.band_80, LIGHT.band_50), strict=True
    ):
        ends = [LEVELS.index(round((1 + sign * coverage) / 2, 6)) for sign in (-1, 1)]
        for end, fill in zip(ends, (None, "tonexty"), strict=True):
            y = _prices(outlook, [0.0, *(row.quantiles[end] for row in outlook.rows)])
            line = {"width": 0, "color": colour}
            figure.add_scatter(
                x=x, y=_rounded(y), mode="lines", line=line, fill=fill, fillcolor=colour, hoverinfo="skip"
            )
    hover = [
        f"{day:%Y-%m-%d}<br>close {price(float(close))}"
        for day, close in zip(past["session"], past["close"], strict=True)
    ]
    figure.add_scatter(
        x=past_x,
        y=_rounded(past["close"].to_numpy(dtype=float)),
        mode="lines",
        line={"color": LIGHT.ink, "width": 1.6},
        hovertext=hover,
        hoverinfo="text",
    )
    hover = [""]
    for row in outlook.rows:
        lines = [
            f"{sessions(row.horizon)} ahead",
            f"median {price(row.median_price)} ({signed_percent(row.median)})",
        ]
        for coverage in COVERAGES:
            ends = [LEVELS.index(round((1 + sign * coverage) / 2, 6)) for sign in (-1, 1)]
            low, high = (float(end) for end in _prices(outlook, row.quantiles[ends]))
            lines.append(f"{percent(coverage, 0)}: {price(low)} to {price(high)}")
        hover.append("<br>".join(lines))
    figure.add_scatter(
        x=x,
        y=_rounded([outlook.close, *(row.median_price for row in outlook.rows)]),
        mode="lines+markers",
        line={"color": LIGHT.blue, "width": 1.8},
        marker={"size": [0, *([6] * len(outlook.rows))], "color": LIGHT.blue},
        hovertext=hover,
        hoverinfo="text",
    )
    dates = past["session"].dt.strftime("%Y-%m-%d").tolist()
    ticks = {x[-1]: f"+{x[-1]}", 0: dates[-1]}
    # Labels that would touch are left out: the origin's stays.
    crowded = x[-1] < 0.12 * (x[-1] + len(past))
    if crowded:
        del ticks[x[-1]]
    if len(past) >= 30:
        ticks |= {past_x[index]: dates[index] for index in (0, len(past) // 2)}
    figure.update_layout(
        height=270,
        margin={"r": 40} if crowded else {},
        xaxis={
            "tickvals": list(ticks),
            "ticktext": list(ticks.values()),
            "tickangle": 0,
            "range": [past_x[0] - 1, x[-1] + 1.5],
            "showgrid": False,
            "ticks": "outside",
        },
        yaxis={"tickformat": ",.6~g", "nticks": 6},
        shapes=[{"type": "line", "x0": 0, "x1": 0, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
                 "line": {"color": LIGHT.line, "width": 1, "dash": "dot"}}],
    )  # fmt: skip
    return _plain(figure)


def ratio_dots(rows: Sequence[LeaderboardRow], index: int) -> dict[str, Any]:
    """Draw each model's CRPS ratio at one horizon with its approximate 95% interval.

    The interval is ratio ± 0.70 times the smallest detectable difference: that difference is 1.96 + 0.84
    standard errors (a two-sided test at 5% with a power of 80%).

    Parameters
    ----------
    rows : sequence of LeaderboardRow
        The best first; rows without a ratio are left out.
    index : int
        Which horizon.
    """
    shown = [row for row in rows if math.isfinite(row.cells[index].crps_ratio)]
    figure = go.Figure()
    cells = [row.cells[index] for row in shown]
    x = [min(cell.crps_ratio, RATIO_CAP) for cell in cells]
    spread = [
        cell.smallest_detectable * 1.96 / (1.96 + 0.84)
        if math.isfinite(cell.smallest_detectable) and cell.crps_ratio <= RATIO_CAP
        else 0.0
        for cell in cells
    ]
    colours = [LIGHT.verdict(cell.verdict) for cell in cells]
    for position, (value, half, colour) in enumerate(zip(x, spread, colours, strict=True)):
        figure.add_scatter(
            x=_rounded([value - half, min(value + half, RATIO_CAP)]), y=[position, position], mode="lines",
            line={"color": colour, "width": 2}, hoverinfo="skip",
        )  # fmt: skip
    hover = [
        f"{plotly_text(row.model)}<br>CRPS ratio {ratio(cell.crps_ratio)}"
        f"<br>{plotly_text(cell.verdict or 'no verdict')}"
        + (f", p = {p_value(cell.p_value)}" if math.isfinite(cell.p_value) else "")
        for row, cell in zip(shown, cells, strict=True)
    ]
    symbols = [
        "triangle-right"
        if cell.crps_ratio > RATIO_CAP
        else VERDICT_MARKS.get(cell.verdict, ("", "circle"))[1]
        for cell in cells
    ]
    figure.add_scatter(
        x=_rounded(x), y=list(range(len(x))), mode="markers", hovertext=hover, hoverinfo="text",
        marker={"size": 11, "color": colours, "symbol": symbols, "line": {"width": 1, "color": LIGHT.paper}},
    )  # fmt: skip
    names = [plotly_text(row.model if len(row.model) <= 24 else row.model[:23] + "…") for row in shown]
    left = min([0.995, *(value - half for value, half in zip(x, spread, strict=True))])
    right = max([1.005, *(min(value + half, RATIO_CAP) for value, half in zip(x, spread, strict=True))])
    figure.update_layout(
        height=70 + 24 * max(len(shown), 3),
        xaxis={"tickformat": ".2f", "nticks": 6, "range": [left - 0.001, right + 0.0015]},
        yaxis={
            "tickvals": list(range(len(shown))),
            "ticktext": names,
            "range": [len(shown) - 0.4, -0.6],
            "showgrid": False,
            "tickfont": {"size": 12, "color": LIGHT.ink},
        },
        shapes=[{"type": "line", "x0": 1, "x1": 1, "y0": 0, "y1": 1, "yref": "paper", "layer": "below",
                 "line": {"color": LIGHT.muted, "width": 1}}],
    )  # fmt: skip
    return _plain(figure)


def pit_histogram(densities: np.ndarray) -> dict[str, Any]:
    """Draw the density of outcomes over the forecast's own quantiles; 1 everywhere is perfect calibration."""
    edges = np.array(PIT_EDGES)
    hover = [
        f"between the {percent(low, 0)} and {percent(high, 0)} quantiles"
        f"<br>{percent(density * (high - low))} of outcomes, {percent(high - low)} ideal"
        for low, high, density in zip(edges[:-1], edges[1:], densities, strict=True)
    ]
    figure = go.Figure()
    figure.add_bar(
        x=_rounded((edges[1:] + edges[:-1]) / 2), y=_rounded(densities), width=_rounded(np.diff(edges) * 0.9),
        marker={"color": LIGHT.blue}, hovertext=hover, hoverinfo="text", textposition="none",
    )  # fmt: skip
    figure.update_layout(
        height=230,
        xaxis={"range": [-0.03, 1.03], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1],
               "showgrid": False, "title": {"text": "where in the forecast the outcome fell"}},
        yaxis={"rangemode": "tozero", "nticks": 5, "tickformat": ".2~f"},
        shapes=[{"type": "line", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
                 "line": {"color": LIGHT.ink, "width": 1.2, "dash": "dash"}}],
    )  # fmt: skip
    return _plain(figure)


def _year_axis(years: Sequence[int]) -> dict[str, Any]:
    """Make an axis of at least five years' width, so that a single year is not one huge bar."""
    shown = list(range(min(years), max(years) + 1))
    side = max(0.6, (5 - len(shown)) / 2 + 0.1)
    return {
        "tickvals": shown[:: math.ceil(len(shown) / 6)],
        "tickformat": "d",
        "tickangle": 0,
        "showgrid": False,
        "range": [shown[0] - side, shown[-1] + side],
        "ticks": "outside",
    }


def coverage_by_year(table: pd.DataFrame) -> dict[str, Any]:
    """Draw the share of outcomes inside the 50, 80 and 95% intervals in each year against the nominal one."""
    years = [int(year) for year in table["year"]]
    figure = go.Figure()
    shapes = []
    for name, nominal, (colour, symbol) in zip(COVERAGE_COLUMNS, COVERAGES, SERIES, strict=True):
        shares = table[name].to_numpy(dtype=float)
        hover = [
            f"{year}<br>{percent(nominal, 0)} interval held {percent(share)}<br>{rows:,} forecasts"
            for year, share, rows in zip(years, shares, table["rows"], strict=True)
        ]
        figure.add_scatter(
            x=years, y=_rounded(shares), mode="lines+markers", hovertext=hover, hoverinfo="text",
            line={"color": colour, "width": 1.8}, marker={"size": 7, "color": colour, "symbol": symbol},
        )  # fmt: skip
        shapes.append(
            {"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": nominal, "y1": nominal,
             "layer": "below", "line": {"color": LIGHT.muted, "width": 1, "dash": "dash"}}
        )  # fmt: skip
    lowest = float(np.nanmin(table[COVERAGE_COLUMNS[0]].to_numpy(dtype=float)))
    figure.update_layout(
        height=250,
        xaxis=_year_axis(years),
        yaxis={"range": [min(0.4, lowest - 0.05), 1.02], "tickformat": ".0%", "tickvals": list(COVERAGES),
               "showgrid": False},
        shapes=shapes,
    )  # fmt: skip
    return _plain(figure)


def crps_ratio_by_year(table: pd.DataFrame, limits: tuple[float, float]) -> dict[str, Any]:
    """Draw one minus the CRPS ratio of each year as percent gained on the baseline: up is better.

    Parameters
    ----------
    table : DataFrame
        Columns ``year, rows, crps_ratio`` of one horizon.
    limits : tuple of float
        Lowest and highest ratio of all horizons, so that their charts share one scale.
    """
    years = [int(year) for year in table["year"]]
    gains = 100.0 * (1.0 - table["crps_ratio"].to_numpy(dtype=float))
    hover = [
        f"{year}<br>CRPS ratio {ratio(float(value))}<br>{rows:,} forecasts"
        for year, value, rows in zip(years, table["crps_ratio"], table["rows"], strict=True)
    ]
    low, high = (100.0 * (1.0 - limit) for limit in reversed(limits))
    margin = 0.08 * max(high - low, 0.5)
    figure = go.Figure()
    figure.add_bar(
        x=years, y=_rounded(gains), width=0.7, hovertext=hover, hoverinfo="text", textposition="none",
        marker={"color": [LIGHT.blue if gain >= 0 else LIGHT.vermillion for gain in gains]},
    )  # fmt: skip
    figure.update_layout(
        height=230,
        xaxis=_year_axis(years),
        yaxis={"range": [min(low, -0.1) - margin, max(high, 0.1) + margin], "ticksuffix": "%", "nticks": 5},
        shapes=[{"type": "line", "x0": 0, "x1": 1, "xref": "paper", "y0": 0, "y1": 0,
                 "line": {"color": LIGHT.ink, "width": 1}}],
    )  # fmt: skip
    return _plain(figure)
