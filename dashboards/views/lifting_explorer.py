"""Lifting explorer: a window of a series under a 2D kernel, and the 1D kernels that do the same."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import streamlit as st

from dashboards import elements, sources
from dashboards.lifting import (
    AGGREGATES,
    KERNELS,
    STRATEGIES,
    Aggregate,
    Exploration,
    Setting,
    explore,
    parse_kernel,
    parse_lags,
    responses,
    same_maps,
    tap_table,
)
from dashboards.sources import Place
from forecaster.errors import ParameterError
from forecaster.kernels import Boundary, Mode
from forecaster.report import charts
from forecaster.report.charts import Chart
from forecaster.report.style import LIGHT

__all__ = ["show", "window_chart"]

GOLDEN = "1, 2, ..., 64 (no market)"
LINES = 5
"""Kernels that one chart can tell apart."""
EDGES = {"fill": "zeros", "wrap": "around", "symm": "mirrored"}
CONVENTIONS = {"correlation": "as in Keras", "convolution": "flipped, as in scipy"}


def window_chart(series: pd.Series, history: int) -> Chart:
    """Draw the sessions that the kernel sees, the history for lags paler."""
    values = series.to_numpy(dtype=float)
    days = [str(label) for label in series.index]
    colours = [LIGHT.band_50] * history + [LIGHT.blue] * (len(values) - history)
    figure = go.Figure()
    figure.add_bar(x=list(range(len(values))), y=values.tolist(), marker={"color": colours}, hoverinfo="text",
                   hovertext=[f"{day}<br>{value:.5g}" for day, value in zip(days, values, strict=True)],
                   textposition="none", showlegend=False)  # fmt: skip
    step = -(-len(days) // 4)
    figure.update_layout(
        height=200,
        xaxis={"tickvals": list(range(0, len(days), step)), "ticktext": days[::step], "tickangle": 0,
               "showgrid": False},
        yaxis={"nticks": 5, "tickformat": ".3~g"},
    )  # fmt: skip
    plain = figure.to_plotly_json()
    plain["layout"].pop("template", None)
    before = f", and {history} before it that lags reach (paler)" if history else ""
    return Chart(
        plain,
        f"{len(values) - history} sessions up to {days[-1]}{before}; "
        f"from {values.min():.4g} to {values.max():.4g}.",
        shows="the numbers that the kernel sees, one bar a session, the newest to the right",
        hides="anything after the origin: no strategy reads it",
    )


def show(place: Place) -> None:
    """Show the page."""
    elements.page(
        "Lifting explorer",
        "A 2D kernel meets a 1D series by lifting a window to two dimensions. Change what you like.",
    )
    series = _series(place)
    kernel_text, setting, lookback = _settings(place)
    try:
        kernel = parse_kernel(kernel_text)
        chosen = _setting(setting)
        end, lookback = _origin(series, lookback)
        seen = explore(series.to_numpy(dtype=float)[:end], chosen, kernel, lookback)
    except ParameterError as error:
        elements.note(str(error), bad=True)
        return
    labels = [str(label) for label in series.index[end - len(seen.window) : end]]
    elements.section("1. The window")
    elements.chart(window_chart(pd.Series(seen.window, index=labels), seen.history), "explorer-window")
    _lifted(seen, kernel)
    _folded(seen)
    elements.section("5. The output")
    rows = [f"row {number + 1}" for number in range(len(seen.output))]
    columns = [str(number) for number in range(1, seen.output.shape[1] + 1)]
    elements.chart(
        charts.matrix(seen.output, rows, columns, title="output column, the newest last"), "explorer-output"
    )
    _same(chosen, kernel, lookback)


def _series(place: Place) -> pd.Series:
    """Choose the series: a symbol's, or plain numbers that can be checked by hand."""
    left, right = st.columns(2)
    symbols = sources.symbols_of([sources.closes_of(place)])
    symbol = str(left.selectbox("Symbol (type to search)", [*symbols, GOLDEN], key="explorer-symbol"))
    kind = str(right.selectbox("Series", list(sources.SERIES), key="explorer-series"))
    if symbol == GOLDEN:
        return pd.Series(np.arange(1.0, 65.0), index=[str(number) for number in range(1, 65)])
    found = sources.series_of(sources.returns_of(place, symbol), kind)
    return pd.Series(found.to_numpy(), index=[f"{day:%Y-%m-%d}" for day in found.index])


def _settings(place: Place) -> tuple[str, dict[str, str], int]:
    """Ask for strategy and kernel; what a strategy does not use is not asked."""
    left, right = st.columns(2)
    chosen: dict[str, str] = {}
    with left:
        strategy = str(st.selectbox("Strategy", list(STRATEGIES), index=3, key="explorer-strategy"))
        chosen["strategy"] = strategy
        if strategy == "lagged rows":
            chosen["lags"] = st.text_input("Lags of the rows, sessions", "0, 1, 5, 21", key="explorer-lags")
        elif strategy == "identical rows":
            chosen["rows"] = str(st.slider("Rows", 1, 12, 3, key="explorer-rows"))
        elif strategy == "calendar fold":
            chosen["period"] = str(st.slider("Sessions a row", 2, 63, 5, key="explorer-period"))
        elif strategy == "spectrogram":
            chosen["segment"] = str(st.slider("Sessions a spectrum", 2, 63, 16, key="explorer-segment"))
        elif strategy.startswith("parallel"):
            chosen["aggregate"] = str(st.selectbox("Outputs are", AGGREGATES, key="explorer-aggregate"))
        lookback = max(4, min(place.job.lookback, 126))
        lookback = int(st.slider("Sessions of a window", 4, 126, lookback, key="explorer-lookback"))
        chosen["mode"] = _radio("Size of the output", {mode: mode for mode in ("same", "valid", "full")})
        chosen["boundary"] = _radio("Beyond the edges", EDGES)
    with right:
        preset = str(st.selectbox("Begin with a kernel", list(KERNELS), key="explorer-preset"))
        text = st.text_area(
            "Kernel, a row a line", KERNELS[preset], key=f"explorer-kernel-{preset}", height=128
        )
        chosen["convention"] = _radio("The kernel is applied", CONVENTIONS)
    return text, chosen, lookback


def _radio(label: str, options: dict[str, str]) -> str:
    """Ask for one of a few options, each with its words."""
    names = list(options)
    return str(
        st.radio(label, names, format_func=options.__getitem__, horizontal=True, key=f"explorer-{label}")
    )


def _setting(chosen: dict[str, str]) -> Setting:
    return Setting(
        strategy=chosen["strategy"],
        rows=int(chosen.get("rows", "3")),
        lags=parse_lags(chosen["lags"]) if "lags" in chosen else Setting.lags,
        period=int(chosen.get("period", "5")),
        segment=int(chosen.get("segment", "16")),
        aggregate=cast("Aggregate", chosen.get("aggregate", "concatenate")),
        mode=cast("Mode", chosen["mode"]),
        boundary=cast("Boundary", chosen["boundary"]),
        convention="convolution" if chosen["convention"] == "convolution" else "correlation",
    )


def _origin(series: pd.Series, lookback: int) -> tuple[int, int]:
    """Ask for the origin; gives how many sessions lie up to it."""
    if len(series) <= lookback:
        raise ParameterError(
            f"a window of {lookback} sessions needs more of them. Received: {len(series)} in the results; "
            "take a shorter window or another symbol"
        )
    labels = list(series.index)
    origin = st.select_slider("Origin: the newest session of the window", labels[lookback - 1 :],
                              value=labels[-1], key="explorer-origin")  # fmt: skip
    return labels.index(origin) + 1, lookback


def _lifted(seen: Exploration, kernel: np.ndarray) -> None:
    left, right = st.columns([2, 1])
    back = [str(number) for number in range(seen.lifted.shape[1] - 1, -1, -1)]
    with left:
        elements.section("2. The lifted window")
        drawn = charts.matrix(
            seen.lifted, seen.row_names, back, title="sessions back from the end of the row"
        )
        elements.chart(drawn, "explorer-lifted")
    with right:
        elements.section("3. The kernel")
        rows = [f"row {row + 1}" for row in range(len(kernel))]
        elements.chart(
            charts.matrix(kernel, rows, [str(one + 1) for one in range(kernel.shape[1])]), "explorer-kernel"
        )


def _folded(seen: Exploration) -> None:
    elements.section("4. Folded: the 1D kernels that do the same on the series")
    if seen.folding is None:
        elements.note(seen.why_not)
        return
    taps = tap_table(seen.folding)
    names = list(dict.fromkeys(taps["name"]))
    outputs = seen.folding.shape[0] * seen.folding.filters
    elements.note(
        f"{outputs} output rows need {len(names)} distinct 1D kernels away from the edges of the window"
        f" ({len(seen.folding.kernels)} with those that the edges cut). "
        f"The 2D result and the folded 1D result differ by at most {seen.difference:.1e}."
    )
    if not names:
        elements.note("Every output touches an edge of the window: there is no kernel away from the edges.")
        return
    name = str(st.selectbox("Folded kernel", names, key="explorer-folded")) if len(names) > 1 else names[0]
    elements.section("", "Lag 0 is the newest session that the kernel reads.")
    left, right = st.columns(2)
    with left:
        elements.chart(charts.lag_weights(taps.loc[taps["name"] == name, ["lag", "weight"]]), "explorer-taps")
    with right:
        elements.chart(
            charts.frequency_response(responses(seen.folding, LINES)), "explorer-response", legend=True
        )


def _same(setting: Setting, kernel: np.ndarray, lookback: int) -> None:
    elements.section(
        "6. Which strategies are the same map",
        "Those with one letter apply the same 1D kernels to the series, away from the edges of the window.",
    )
    table = same_maps(setting, kernel, lookback)
    maps = table[table["group"] != ""].sort_values(["group", "strategy", "mode"])
    together = [
        f"{group}: {', '.join(dict.fromkeys(names))}"
        for group, names in maps.groupby("group")["strategy"]
        if names.nunique() > 1
    ]
    if together:
        elements.note(f"The same map of the series: {'; '.join(together)}.")
    else:
        elements.note("With this kernel no two strategies are the same map of the series.")
    elements.table(
        "Strategies with this kernel",
        ["map", "strategy", "size", "output rows", "output columns", "distinct 1D kernels"],
        [
            [*(str(row[name]) for name in ("group", "strategy", "mode", "rows", "columns", "kernels"))]
            for row in maps.to_dict("records")
        ],
        numbers=["output rows", "output columns", "distinct 1D kernels"],
    )  # fmt: skip
    others = table[table["group"] == ""]
    for why, names in others.groupby("note", sort=False):
        told = [f"{row['strategy']} ({row['mode']})" for row in names.to_dict("records")]
        elements.section("", f"{str(why).capitalize()}: {'; '.join(told)}.")
