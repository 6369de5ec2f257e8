"""The chart that sets every model against the best baseline."""

from __future__ import annotations

import math

import pandas as pd

from forecaster.report.charts.base import Chart, Figure, named_rows, rounded, upright
from forecaster.report.style import LIGHT, VERDICT_MARKS, p_value, plotly_text, ratio

__all__ = ["RATIO_CAP", "leaderboard"]

RATIO_CAP = 1.025
"""Ratios above this are drawn at the edge: the naive models must not flatten the differences that matter."""


def leaderboard(verdict: pd.DataFrame) -> Chart:
    """Draw each model's CRPS ratio at one horizon with its approximate 95% interval.

    The interval is ratio ± 0.70 times the smallest detectable difference: that difference is 1.96 + 0.84
    standard errors (a two-sided test at 5% with a power of 80%).

    Parameters
    ----------
    verdict : DataFrame
        ``model, baseline, crps_ratio, p_value, verdict, smallest_detectable`` of one horizon, at least one
        finite ratio, in the order to be drawn; rows without a ratio are left out.
    """
    shown = verdict[verdict["crps_ratio"].map(math.isfinite)]
    rows = shown.to_dict("records")
    figure = Figure()
    x = [min(row["crps_ratio"], RATIO_CAP) for row in rows]
    spread = [
        row["smallest_detectable"] * 1.96 / (1.96 + 0.84)
        if math.isfinite(row["smallest_detectable"]) and row["crps_ratio"] <= RATIO_CAP
        else 0.0
        for row in rows
    ]
    colours = [LIGHT.verdict(row["verdict"]) for row in rows]
    for position, (value, half, colour) in enumerate(zip(x, spread, colours, strict=True)):
        figure.add(
            "scatter", x=rounded([value - half, min(value + half, RATIO_CAP)]), y=[position, position],
            mode="lines", line={"color": colour, "width": 2}, hoverinfo="skip", showlegend=False,
        )  # fmt: skip
    hover = [
        f"{plotly_text(row['model'])}<br>CRPS ratio {ratio(row['crps_ratio'])}"
        f"<br>{plotly_text(row['verdict'] or 'no verdict')}"
        + (f", p = {p_value(row['p_value'])}" if math.isfinite(row["p_value"]) else "")
        for row in rows
    ]
    symbols = [
        "triangle-right"
        if row["crps_ratio"] > RATIO_CAP
        else VERDICT_MARKS.get(row["verdict"], ("", "circle"))[1]
        for row in rows
    ]
    figure.add(
        "scatter", x=rounded(x), y=list(range(len(x))), mode="markers", hovertext=hover, hoverinfo="text",
        marker={"size": 11, "color": colours, "symbol": symbols, "line": {"width": 1, "color": LIGHT.paper}},
        showlegend=False,
    )  # fmt: skip
    left = min([0.995, *(value - half for value, half in zip(x, spread, strict=True))])
    right = max([1.005, *(min(value + half, RATIO_CAP) for value, half in zip(x, spread, strict=True))])
    figure.arrange(
        height=70 + 24 * max(len(rows), 3),
        xaxis={"tickformat": ".2f", "nticks": 6, "range": [left - 0.001, right + 0.0015]},
        yaxis=named_rows([str(row["model"]) for row in rows]),
        shapes=[upright(1, LIGHT.muted)],
    )
    baseline = str(shown["baseline"].iloc[0]) or "the baseline"
    lower = sum(row["crps_ratio"] < 1 for row in rows if row["model"] != baseline)
    beyond = sum(row["crps_ratio"] > RATIO_CAP for row in rows)
    lie = "lies" if beyond == 1 else "lie"
    edge = f", {beyond} {lie} beyond the right edge (▶)." if beyond else "."
    return Chart(
        figure.plain(),
        f"{lower} of {len(rows)} models have a lower CRPS than {baseline}{edge}",
        shows="the CRPS ratio over the whole backtest; left of the line at 1 is better. The bar through a "
        "mark is its approximate 95% interval",
        hides="how the gain is spread over time, nor the chance that the best of several models looks good "
        "by luck",
    )
