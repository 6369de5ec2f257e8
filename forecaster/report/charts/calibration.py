"""Charts of whether forecasts meant what they said: PIT, coverage, gains by year, the record since issue."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from forecaster.report.backtest import COVERAGE_COLUMNS, PIT_EDGES
from forecaster.report.charts.base import INTERVAL_MARKS, Chart, Figure, level, rounded
from forecaster.report.style import LIGHT, count, percent, plotly_text, ratio
from forecaster.scores import COVERAGES

__all__ = ["coverage", "coverage_by_year", "crps_ratio_by_year", "pit_histogram", "track_record"]

WINDOW_ROWS = 21
"""Origins over which the record since issue averages."""


def pit_histogram(densities: np.ndarray) -> Chart:
    """Draw the density of outcomes over the forecast's own quantiles; 1 everywhere is perfect calibration.

    Parameters
    ----------
    densities : ndarray of shape (20,)
        Share of outcomes in each bin of `forecaster.report.backtest.PIT_EDGES` over the bin's width.
    """
    edges = np.array(PIT_EDGES)
    hover = [
        f"between the {percent(low, 0)} and {percent(high, 0)} quantiles"
        f"<br>{percent(density * (high - low))} of outcomes, {percent(high - low)} ideal"
        for low, high, density in zip(edges[:-1], edges[1:], densities, strict=True)
    ]
    figure = Figure()
    figure.add(
        "bar", x=rounded((edges[1:] + edges[:-1]) / 2), y=rounded(densities),
        width=rounded(np.diff(edges) * 0.9), marker={"color": LIGHT.blue},
        hovertext=hover, hoverinfo="text", textposition="none", name="outcomes", showlegend=False,
    )  # fmt: skip
    figure.arrange(
        height=230,
        xaxis={"range": [-0.03, 1.03], "tickformat": ".0%", "tickvals": [0, 0.25, 0.5, 0.75, 1],
               "showgrid": False, "title": {"text": "where in the forecast the outcome fell"}},
        yaxis={"rangemode": "tozero", "nticks": 5, "tickformat": ".2~f"},
        shapes=[{"type": "line", "x0": 0, "x1": 1, "y0": 1, "y1": 1,
                 "line": {"color": LIGHT.ink, "width": 1.2, "dash": "dash"}}],
    )  # fmt: skip
    tails = (densities[0] + densities[-1]) / 2
    words = (
        "as often as they should be"
        if 0.9 <= tails <= 1.1
        else f"{tails:.2f} times as often as they should be"
    )
    return Chart(
        figure.plain(),
        f"The outer 5% tails were hit {words}; the fullest bin has {densities.max():.2f} times its share.",
        shows="how often the outcome fell into each twentieth of its forecast; flat at 1 (dashed) is ideal, "
        "high ends mean tails that are too thin, a hump means intervals that are too wide",
        hides="chance: symbols move together and horizons overlap, so neighbouring outcomes are not "
        "independent",
    )


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


def _coverage_lines(
    table: pd.DataFrame, x: list[Any], labels: list[str], mode: str = "lines+markers"
) -> Figure:
    """Draw the three coverages over ``x`` and a dashed line at each nominal one."""
    figure = Figure()
    shapes = []
    lowest = COVERAGES[0]
    for name, nominal, (colour, symbol) in zip(COVERAGE_COLUMNS, COVERAGES, INTERVAL_MARKS, strict=True):
        shares = table[name].to_numpy(dtype=float)
        lowest = float(np.nanmin([lowest, *shares]))
        hover = [
            f"{label}<br>{percent(nominal, 0)} interval held {percent(float(share))}"
            f"<br>{count(rows)} forecasts"
            for label, share, rows in zip(labels, shares, table["rows"], strict=True)
        ]
        figure.add(
            "scatter", x=x, y=rounded(shares), mode=mode, hovertext=hover, hoverinfo="text",
            line={"color": colour, "width": 1.8}, marker={"size": 7, "color": colour, "symbol": symbol},
            name=f"{percent(nominal, 0)} interval",
        )  # fmt: skip
        shapes.append({**level(nominal, LIGHT.muted, dash="dash"), "layer": "below"})
    figure.arrange(
        height=250,
        yaxis={"range": [min(0.4, lowest - 0.05), 1.02], "tickformat": ".0%", "tickvals": list(COVERAGES),
               "showgrid": False},
        shapes=shapes,
    )  # fmt: skip
    return figure


def coverage_by_year(table: pd.DataFrame) -> Chart:
    """Draw the share of outcomes inside the 50, 80 and 95% intervals in each year against the nominal one.

    Parameters
    ----------
    table : DataFrame
        ``year, rows, coverage_50, coverage_80, coverage_95`` of one model and horizon, at least one row.
    """
    years = [int(year) for year in table["year"]]
    figure = _coverage_lines(table, years, [str(year) for year in years])
    figure.arrange(xaxis=_year_axis(years))
    low, high = float(table["coverage_80"].min()), float(table["coverage_80"].max())
    return Chart(
        figure.plain(),
        f"The 80% interval held {percent(low)} to {percent(high)} of a year's outcomes.",
        shows="in which years the intervals were too narrow (below the dashed line) or too wide",
        hides="single symbols. A first or last year may hold few days",
    )


def coverage(table: pd.DataFrame) -> Chart:
    """Draw the share of outcomes inside the 50, 80 and 95% intervals in groups that have names.

    Parameters
    ----------
    table : DataFrame
        ``group`` (text, in the order to be drawn), ``rows, coverage_50, coverage_80, coverage_95`` of one
        model and horizon, at least one row.
    """
    names = [str(name) for name in table["group"]]
    figure = _coverage_lines(table, list(range(len(names))), [plotly_text(name) for name in names], "markers")
    figure.arrange(
        xaxis={
            "tickvals": list(range(len(names))),
            "ticktext": [plotly_text(name) for name in names],
            "range": [-0.6, len(names) - 0.4],
            "tickangle": 0,
            "showgrid": False,
        }
    )
    said = [
        f"{percent(float(share))} ({name})" for name, share in zip(names, table["coverage_80"], strict=True)
    ]
    return Chart(
        figure.plain(),
        f"The 80% interval held {', '.join(said)}.",
        shows="whether intervals that hold on average also hold when markets are calm and when they are not",
        hides="whether a difference is more than chance: turbulent days come in few spells",
    )


def crps_ratio_by_year(table: pd.DataFrame, baseline: str, limits: tuple[float, float]) -> Chart:
    """Draw one minus the CRPS ratio of each year as percent gained on the baseline: up is better.

    Parameters
    ----------
    table : DataFrame
        Columns ``year, rows, crps_ratio`` of one horizon, at least one row.
    baseline : str
        Name of the baseline.
    limits : tuple of float
        Lowest and highest ratio of all horizons, so that their charts share one scale.
    """
    years = [int(year) for year in table["year"]]
    ratios = table["crps_ratio"].to_numpy(dtype=float)
    gains = 100.0 * (1.0 - ratios)
    hover = [
        f"{year}<br>CRPS ratio {ratio(float(value))}<br>{count(rows)} forecasts"
        for year, value, rows in zip(years, ratios, table["rows"], strict=True)
    ]
    low, high = (100.0 * (1.0 - limit) for limit in reversed(limits))
    margin = 0.08 * max(high - low, 0.5)
    figure = Figure()
    figure.add(
        "bar", x=years, y=rounded(gains), width=0.7, hovertext=hover, hoverinfo="text", textposition="none",
        marker={"color": [LIGHT.blue if gain >= 0 else LIGHT.vermillion for gain in gains]},
        name="CRPS gained", showlegend=False,
    )  # fmt: skip
    figure.arrange(
        height=230,
        xaxis=_year_axis(years),
        yaxis={"range": [min(low, -0.1) - margin, max(high, 0.1) + margin], "ticksuffix": "%", "nticks": 5},
        shapes=[level(0, LIGHT.ink)],
    )  # fmt: skip
    best, worst = (f"{years[k]} ({ratio(float(ratios[k]))})" for k in (ratios.argmin(), ratios.argmax()))
    return Chart(
        figure.plain(),
        f"Lower CRPS than {baseline} in {int((ratios < 1).sum())} of {len(years)} years; best {best}, "
        f"worst {worst}.",
        shows="on one scale by how many percent the CRPS of a year's forecasts is below the baseline's; up "
        "is better",
        hides="whether one year's gain is more than chance: a year is a small sample",
    )


def track_record(table: pd.DataFrame) -> Chart:
    """Draw the coverage of forecasts as they were issued, averaged over the last 21 origins.

    Parameters
    ----------
    table : DataFrame
        ``origin, forecasts, coverage_50, coverage_80, coverage_95`` of one model and horizon, a row an
        origin, at least one row: what `forecaster.ledger.Ledger.track_record` gives by origin.
    """
    ordered = table.sort_values("origin")
    weights = ordered["forecasts"].astype(float)
    rows = weights.rolling(WINDOW_ROWS, min_periods=1).sum()
    shares = {
        name: (ordered[name].astype(float) * weights).rolling(WINDOW_ROWS, min_periods=1).sum() / rows
        for name in COVERAGE_COLUMNS
    }
    dates = [f"{day:%Y-%m-%d}" for day in pd.to_datetime(ordered["origin"])]
    mode = "lines" if len(dates) > 60 else "lines+markers"
    figure = _coverage_lines(pd.DataFrame({**shares, "rows": rows}), dates, dates, mode)
    figure.arrange(xaxis={"type": "date", "nticks": 4, "tickangle": 0, "showgrid": False})
    whole = float((ordered["coverage_80"].astype(float) * weights).sum() / weights.sum())
    return Chart(
        figure.plain(),
        f"Since {dates[0]} the 80% interval held {percent(whole)} of {count(float(weights.sum()))} outcomes.",
        shows=f"how often outcomes fell inside the intervals as issued, over the last {WINDOW_ROWS} evenings "
        "(fewer at the start), against what was promised (dashed)",
        hides="whether a distance from the dashed line is more than chance: a short window moves a lot",
    )
