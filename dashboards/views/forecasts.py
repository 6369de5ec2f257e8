"""Forecasts: one symbol closely, models side by side, all symbols at once, and files to take away."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import streamlit as st

from dashboards import elements, sources
from dashboards.sources import Place
from forecaster.exports import to_csv, to_xlsx
from forecaster.report import charts
from forecaster.report.style import percent, price, signed_percent

__all__ = ["file_name", "forecast_rows", "overview_table", "show"]

COLUMNS = [
    "horizon", "median", "80% interval", "median price", "80% prices", "rises", "base rate", "VaR 5%",
    "VaR 1%", "ES 5%",
]  # fmt: skip


def forecast_rows(table: pd.DataFrame, base_rates: dict[int, float]) -> list[list[str]]:
    """Write the forecasts of one symbol and model, a row a horizon.

    Parameters
    ----------
    table : DataFrame
        Rows of `forecaster.exports.export_table`.
    base_rates : dict of int to float
        Share of rises in the backtest by horizon.
    """
    return [
        [
            charts.sessions(row["horizon"]), signed_percent(row["median_return"]),
            f"{signed_percent(row['low_80_return'])} to {signed_percent(row['high_80_return'])}",
            price(row["median_price"]), f"{price(row['low_80_price'])} to {price(row['high_80_price'])}",
            percent(row["probability_of_rise"], 1), percent(base_rates.get(row["horizon"]), 1),
            percent(row["value_at_risk_5"]), percent(row["value_at_risk_1"]),
            percent(row["expected_shortfall_5"]),
        ]
        for row in table.sort_values("horizon").to_dict("records")
    ]  # fmt: skip


def overview_table(table: pd.DataFrame, model: str, horizon: int) -> pd.DataFrame:
    """Give all symbols at one model and horizon, in percent, as a grid shows them."""
    rows = table[(table["model"] == model) & (table["horizon"] == horizon)]
    percents = {
        "median_return": "median %", "low_80_return": "80% from %", "high_80_return": "80% to %",
        "probability_of_rise": "rises %", "value_at_risk_5": "VaR 5%", "value_at_risk_1": "VaR 1%",
        "expected_shortfall_5": "ES 5%",
    }  # fmt: skip
    shown = rows[["symbol", "origin", "close", *percents]].rename(columns=percents)
    shown[list(percents.values())] = 100.0 * shown[list(percents.values())]
    # A model that states no tails has no expected shortfall.
    shown = shown.dropna(axis="columns", how="all")
    shown["origin"] = shown["origin"].dt.strftime("%Y-%m-%d")
    return shown.sort_values("symbol", ignore_index=True)


def file_name(job: str, origin: pd.Timestamp, ending: str) -> str:
    """Name a file to take away: the job's name, without what a file system or a browser may misread."""
    safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", job).strip("._-") or "forecasts"
    return f"{safe}-{origin:%Y-%m-%d}.{ending}"


def show(place: Place) -> None:
    """Show the page."""
    elements.page("Forecasts", "What comes next: the whole distribution of the return, not a point.")
    why = sources.first_error(place)
    if why:
        elements.note(why, bad=True)
        return
    found, table = sources.newest(place), sources.overview(place)
    elements.note(f"{elements.counted(len(table), 'forecast')}, {found.source}.")
    if late := sources.late_words(table):
        elements.note(late, bad=True)
    symbols = sorted(table["symbol"].unique())
    # Plain text: an option is not read as Markdown.
    symbol = str(st.selectbox("Symbol (type to search)", symbols, key="forecasts-symbol"))
    mine = found.table[found.table["symbol"] == symbol]
    _one_symbol(place, symbol, sources.quantiles_known(mine), table[table["symbol"] == symbol])
    if len(sources.quantiles_known(mine)) < len(mine):
        elements.note("Forecasts with a quantile that is no number are left out of the charts.")
    _all_symbols(place, table)


def _one_symbol(place: Place, symbol: str, drawable: pd.DataFrame, written: pd.DataFrame) -> None:
    if drawable.empty:
        elements.note("There is no forecast of this symbol that can be drawn.")
        return
    results = sources.results_of(place)
    closes = sources.closes_of(place)
    closes = closes[closes["symbol"] == symbol]
    base_rates: dict[str, dict[int, float]] = {}
    if results is not None:
        rates = results.scores[
            (results.scores["symbol"] == symbol) & (results.scores["metric"] == "direction_base_rate")
        ]
        for row in rates.to_dict("records"):
            base_rates.setdefault(row["model"], {})[row["horizon"]] = row["value"]
    models = sorted(drawable["model"].unique())
    model = str(st.selectbox("Model", models, key="forecasts-model")) if len(models) > 1 else models[0]
    rows = drawable[drawable["model"] == model]
    close = float(rows["close"].iloc[0])
    elements.section(f"{symbol}: {model}, after {rows['origin'].iloc[0]:%Y-%m-%d}")
    if np.isfinite(close) and close > 0:
        elements.chart(charts.fan(rows, closes), "forecasts-fan", legend=True)
    else:
        elements.note("The close is not known, so prices cannot be drawn; returns stand below.")
    elements.table(
        f"Close {price(close)}; returns are simple ones over the horizon",
        COLUMNS,
        forecast_rows(written[written["model"] == model], base_rates.get(model, {})),
        numbers=COLUMNS[1:],
    )
    if len(models) > 1:
        elements.section("Models side by side")
        chosen = st.radio(
            "Horizon", sorted(drawable["horizon"].unique()), key="forecasts-compare", horizontal=True,
            format_func=charts.sessions,
        )  # fmt: skip
        elements.chart(
            charts.intervals(drawable[drawable["horizon"] == chosen]), "forecasts-models", legend=True
        )


def _all_symbols(place: Place, table: pd.DataFrame) -> None:
    elements.section("All symbols", "Click a head to sort. The files hold every model, horizon and quantile.")
    left, right = st.columns(2)
    model = str(left.selectbox("Model", sorted(table["model"].unique()), key="overview-model"))
    horizons = sorted(table.loc[table["model"] == model, "horizon"].unique())
    horizon = int(right.selectbox("Horizon", horizons, key="overview-horizon", format_func=charts.sessions))
    shown = overview_table(table, model, horizon)
    numbers = {
        name: st.column_config.NumberColumn(format="%.2f") for name in shown.columns if name.endswith("%")
    }
    st.dataframe(
        shown,
        hide_index=True,
        height=min(420, 38 + 35 * max(len(shown), 1)),
        column_config={**numbers, "close": st.column_config.NumberColumn(format="localized")},
        alt=f"{len(shown)} symbols by {model} over {charts.sessions(horizon)}",
    )
    origin = table["origin"].max()
    about = {"job": place.job.name, "source": sources.newest(place).source}
    left, right = st.columns(2)
    # Made when asked for: a workbook of a thousand symbols takes seconds.
    left.download_button(
        "Download CSV", lambda: to_csv(table), file_name(place.job.name, origin, "csv"), "text/csv",
        key="download-csv", on_click="ignore",
    )  # fmt: skip
    right.download_button(
        "Download XLSX", lambda: to_xlsx(table, about), file_name(place.job.name, origin, "xlsx"),
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", key="download-xlsx",
        on_click="ignore",
    )  # fmt: skip
