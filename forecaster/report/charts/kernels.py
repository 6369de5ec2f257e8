"""Charts of what a kernel sees: weights by lag, response by period, and matrices as images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from forecaster.report.charts.base import Chart, Figure, labelled_columns, labelled_rows, level, rounded
from forecaster.report.style import LIGHT, plotly_text

__all__ = ["frequency_response", "lag_map", "lag_weights", "matrix"]

LINES = (
    (LIGHT.blue, "solid"),
    (LIGHT.vermillion, "dash"),
    (LIGHT.green, "dot"),
    (LIGHT.purple, "dashdot"),
    (LIGHT.grey, "longdash"),
)
"""Colour and dash of each line, so that none is told by its colour alone."""
SIZES = [[0.0, LIGHT.paper], [0.34, LIGHT.band_95], [0.67, LIGHT.band_50], [1.0, LIGHT.blue]]
SIGNED = [[0.0, LIGHT.vermillion], [0.5, LIGHT.paper], [1.0, LIGHT.blue]]


def lag_weights(weights: pd.DataFrame) -> Chart:
    """Draw one folded kernel: its weight on each session before the origin.

    Parameters
    ----------
    weights : DataFrame
        ``lag, weight``, one row a lag, at least one row; lag 0 is the origin.
    """
    lags = weights["lag"].to_numpy(dtype=int)
    values = weights["weight"].to_numpy(dtype=float)
    figure = Figure()
    figure.add(
        "bar", x=lags.tolist(), y=rounded(values), textposition="none", hoverinfo="text", showlegend=False,
        hovertext=[f"{lag} sessions before the origin<br>weight {value:.4g}"
                   for lag, value in zip(lags, values, strict=True)],
        marker={"color": [LIGHT.blue if value >= 0 else LIGHT.vermillion for value in values]},
    )  # fmt: skip
    figure.arrange(
        height=230,
        xaxis={"autorange": "reversed", "tickformat": "d", "showgrid": False,
               "title": {"text": "sessions before the origin"}},
        yaxis={"nticks": 5, "tickformat": ".3~g"},
        shapes=[level(0, LIGHT.ink)],
    )  # fmt: skip
    heaviest = int(np.nanargmax(np.abs(values))) if np.isfinite(values).any() else 0
    return Chart(
        figure.plain(),
        f"{int(np.count_nonzero(values))} of {len(values)} sessions have a weight; the largest is "
        f"{values[heaviest]:.4g} at lag {lags[heaviest]}.",
        shows="how much each session of the past counts in the newest output of the kernel, and with which "
        "sign",
        hides="what later layers make of it",
    )


def lag_map(sizes: pd.DataFrame) -> Chart:
    """Draw how heavily the first layer of a network weighs each channel at each lag.

    Parameters
    ----------
    sizes : DataFrame
        ``channel, lag, size``, at least one row: the root mean square over filters of the weights; channels
        are drawn in the order of their first row.
    """
    channels = list(dict.fromkeys(str(name) for name in sizes["channel"]))
    table = sizes.pivot_table(index="channel", columns="lag", values="size", sort=True).reindex(channels)
    values = table.to_numpy(dtype=float)
    lags = [int(lag) for lag in table.columns]
    figure = Figure()
    figure.add(
        "heatmap", # Positions, not lags: a set of lags with gaps would stretch its cells.
        x=list(range(len(lags))), y=list(range(len(channels))), z=[rounded(row, 4) for row in values],
        colorscale=SIZES, zmin=0.0, xgap=1, ygap=1, showscale=False, hoverinfo="text",
        text=[[f"{plotly_text(channel)}, lag {lag}<br>size {value:.4g}"
               for lag, value in zip(lags, row, strict=True)]
              for channel, row in zip(channels, values, strict=True)],
    )  # fmt: skip
    columns = labelled_columns([str(lag) for lag in lags], 10, "sessions before the origin")
    figure.arrange(
        height=90 + 19 * max(len(channels), 3),
        xaxis={**columns, "autorange": "reversed"},
        yaxis=labelled_rows([name.replace("_", " ") for name in channels]),
    )
    total = np.nansum(np.square(values))
    by_channel = np.nansum(np.square(values), axis=1) / total if total > 0 else np.zeros(len(channels))
    newest = float(np.nansum(np.square(values[:, 0])) / total) if total > 0 else 0.0
    largest = int(by_channel.argmax())
    return Chart(
        figure.plain(),
        f"Reaches {lags[-1]} sessions back; {100 * newest:.0f}% of the squared weight is on lag {lags[0]}, "
        f"{100 * by_channel[largest]:.0f}% on the channel {channels[largest].replace('_', ' ')}.",
        shows="the size of the first layer's weights by input channel and lag, the stronger the colour the "
        "heavier, averaged over its filters",
        hides="what later layers make of it, signs, or importance: a large weight on an input that hardly "
        "moves matters little",
    )


def frequency_response(responses: pd.DataFrame) -> Chart:
    """Draw how strongly cycles of each length pass through kernels.

    Parameters
    ----------
    responses : DataFrame
        ``name, period, magnitude``, at least one row; periods in sessions, at most five names, drawn in the
        order of their first row.
    """
    figure = Figure()
    names = list(dict.fromkeys(str(name) for name in responses["name"]))
    peaks = []
    for name, (colour, dash) in zip(names, LINES, strict=False):
        part = responses[responses["name"] == name].sort_values("period")
        periods = part["period"].to_numpy(dtype=float)
        values = part["magnitude"].to_numpy(dtype=float)
        figure.add(
            "scatter", x=rounded(periods, 4), y=rounded(values, 4), mode="lines", name=plotly_text(name),
            line={"color": colour, "width": 1.9, "dash": dash}, hoverinfo="text",
            hovertext=[f"{plotly_text(name)}<br>period {period:.3g} sessions<br>magnitude {value:.3g}"
                       for period, value in zip(periods, values, strict=True)],
        )  # fmt: skip
        if np.isfinite(values).any():
            peaks.append(f"{name} at {periods[int(np.nanargmax(values))]:.3g}")
    figure.arrange(
        height=280,
        xaxis={"type": "log", "range": [0.28, 2.45], "tickvals": [2, 5, 10, 21, 63, 252],
               "tickformat": "d", "tickangle": 0,
               "title": {"text": "length of the cycle, sessions"}},
        yaxis={"rangemode": "tozero", "nticks": 5, "tickformat": ".2~g"},
        # The names are of models, not of intervals: a page can't write this legend for all its charts.
        showlegend=True, margin={"l": 8, "r": 8, "t": 36, "b": 8},
    )  # fmt: skip
    return Chart(
        figure.plain(),
        f"Strongest response, in sessions: {', '.join(peaks)}." if peaks else "No finite response.",
        shows="how strongly cycles of each length in the input pass, from two sessions to a year",
        hides="that such cycles exist or repay: it describes the kernel, not the market",
    )


def matrix(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], *, signed: bool = True, title: str = ""
) -> Chart:
    """Draw a matrix as an image: a lifted window, a kernel, an output.

    Parameters
    ----------
    values : ndarray of shape (n_rows, n_columns)
        NaN is drawn as a gap.
    rows, columns : sequence of str
        Labels, the first row on top.
    signed : bool
        Whether zero is the middle of the colours; otherwise it is their pale end.
    title : str
        Of the horizontal axis.
    """
    values = np.asarray(values, dtype=float)
    finite = np.abs(values[np.isfinite(values)])
    top = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    figure = Figure()
    figure.add(
        "heatmap", z=[rounded(row, 5) for row in values], colorscale=SIGNED if signed else SIZES,
        zmin=-top if signed else 0.0, zmax=top, xgap=1, ygap=1, hoverinfo="text",
        colorbar={"thickness": 10, "outlinewidth": 0, "nticks": 5, "tickformat": ".2~g"},
        text=[[f"{plotly_text(name)}, {plotly_text(column)}<br>{value:.5g}"
               for column, value in zip(columns, row, strict=True)]
              for name, row in zip(rows, values, strict=True)],
    )  # fmt: skip
    figure.arrange(
        height=90 + 22 * max(values.shape[0], 3),
        xaxis=labelled_columns(columns, 8, title),
        yaxis=labelled_rows(rows),
    )
    span = f"values from {values[np.isfinite(values)].min():.4g} to {values[np.isfinite(values)].max():.4g}"
    return Chart(
        figure.plain(),
        f"{values.shape[0]} rows by {values.shape[1]} columns, {span if finite.size else 'no finite value'}.",
        shows="each number as a colour"
        + (": blue is above zero, vermillion below" if signed else ": the stronger, the larger"),
        hides="exact numbers: point at a cell for them",
    )
