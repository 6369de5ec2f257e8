"""Puts the numbers, the words and the figures together into one HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import pkgutil
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from forecaster.errors import ReportError
from forecaster.redaction import redact
from forecaster.report import charts, style, words
from forecaster.report.backtest import REGIME_ORIGINS
from forecaster.report.charts import sessions
from forecaster.report.results import Results
from forecaster.report.tables import (
    LeaderboardRow,
    Outlook,
    Seen,
    horizon_verdicts,
    leaderboard,
    outlooks,
    restated_symbols,
    scores_of,
    seen_lags,
    seen_periods,
    seen_side_by_side,
    track_record,
)
from forecaster.scores import COVERAGES

__all__ = ["FANS_SHOWN", "FORECAST_ROWS_SHOWN", "render"]

TEMPLATES = Path(__file__).parent / "templates"
FANS_SHOWN = 12
FORECAST_ROWS_SHOWN = 2400
RESPONSES_SHOWN = 5
LIST_ROWS_SHOWN = 100
TEXT_SHOWN = 40_000
"""Characters of the job's YAML on the page."""


@dataclass(frozen=True)
class Placed:
    """A chart of the page: its title, its words and the key of its figure."""

    title: str
    chart: charts.Chart
    key: str


class _Figures:
    """Collects figures under short keys, to be embedded once."""

    def __init__(self) -> None:
        self.plain: dict[str, dict[str, Any]] = {}

    def add(self, title: str, chart: charts.Chart) -> Placed:
        key = f"figure-{len(self.plain) + 1}"
        self.plain[key] = chart.figure
        return Placed(title, chart, key)


def _script_json(value: object) -> Markup:
    """Write JSON for a ``<script>`` block: no ``<`` is left that could end it. NaN is refused."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # nosec B704


@cache
def _plotly_script() -> str:
    # As `plotly.offline.get_plotlyjs` does, without importing all of Plotly.
    data = pkgutil.get_data("plotly", "package_data/plotly.min.js")
    if data is None:
        raise ReportError("plotly is installed without plotly.min.js, which the report needs; reinstall it")
    return data.decode().replace("\r\n", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _fan_charts(results: Results, found: list[Outlook], figures: _Figures) -> list[tuple[Placed, Outlook]]:
    closes = dict(list(results.recent_prices.groupby("symbol")))
    nothing = results.recent_prices.iloc[:0]
    drawn = [outlook for outlook in found if math.isfinite(outlook.close)][:FANS_SHOWN]
    return [
        (figures.add(outlook.symbol, charts.fan(outlook.table, closes.get(outlook.symbol, nothing))), outlook)
        for outlook in drawn
    ]


def _ratio_charts(results: Results, rows: list[LeaderboardRow], figures: _Figures) -> list[Placed]:
    shown = []
    order = {row.model: position for position, row in enumerate(rows)}
    for horizon in results.horizons:
        part = results.verdict[results.verdict["horizon"] == horizon]
        if part["crps_ratio"].notna().any():
            part = part.sort_values("model", key=lambda names: names.map(order))
            shown.append(figures.add(sessions(horizon), charts.leaderboard(part)))
    return shown


def _pit_charts(results: Results, model: str, figures: _Figures) -> list[Placed]:
    return [
        figures.add(sessions(int(str(horizon))), charts.pit_histogram(densities.to_numpy(dtype=float)))
        for horizon, densities in results.backtest.pit(model).iterrows()
    ]


def _coverage_charts(table: pd.DataFrame, figures: _Figures) -> list[Placed]:
    return [
        figures.add(sessions(int(str(horizon))), charts.coverage_by_year(part))
        for horizon, part in table.groupby("horizon")
    ]


def _gain_charts(table: pd.DataFrame, baselines: dict[int, str], figures: _Figures) -> list[Placed]:
    limits = (float(table["crps_ratio"].min()), float(table["crps_ratio"].max()))
    return [
        figures.add(
            sessions(int(str(horizon))),
            charts.crps_ratio_by_year(part, baselines[int(str(horizon))], limits),
        )
        for horizon, part in table.groupby("horizon")
    ]


def _regime_charts(table: pd.DataFrame, figures: _Figures) -> list[Placed]:
    return [
        figures.add(sessions(int(str(horizon))), charts.coverage(part))
        for horizon, part in table.groupby("horizon")
    ]


def _track_charts(results: Results, model: str, figures: _Figures) -> list[Placed]:
    if results.track_record is None:
        return []
    table = results.track_record
    table = table[(table["model"] == model) & (table["forecasts"] > 0) & table["crps"].notna()]
    return [
        figures.add(sessions(int(str(horizon))), charts.track_record(part))
        for horizon, part in table.dropna(subset="origin").groupby("horizon")
    ]


def _lag_charts(results: Results, seen: Seen, figures: _Figures) -> list[Placed]:
    shown = []
    for name, what in ((seen.model, "2D kernel"), (seen.control, "control")):
        sizes = seen_lags(results.kernel_weights, name) if name else pd.DataFrame()
        if len(sizes):
            shown.append(figures.add(f"{name} ({what})", charts.lag_map(sizes)))
    return shown


def _response_chart(
    results: Results, seen: Seen, rows: list[LeaderboardRow], figures: _Figures
) -> list[Placed]:
    there = set(results.kernel_responses["model"])
    names = [seen.model, seen.control, *(row.model for row in rows if row.model in there)]
    names = [name for name in dict.fromkeys(names) if name in there][:RESPONSES_SHOWN]
    table = seen_periods(results.kernel_responses, names)
    return (
        [figures.add("Cycles that pass the first layer", charts.frequency_response(table))]
        if len(table)
        else []
    )


def _breakable(text: object) -> Markup:
    """Let a name break after its own separators, and only there, where its column is narrow."""
    return Markup(re.sub(r"([_\-./:])(?=[^_\-./:])", r"\1<wbr>", str(escape(text))))  # nosec B704  # escaped


def _by_year(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Turn a long table by horizon and year into one row a year with the values of all horizons."""
    rows: dict[int, dict[int, list[float]]] = {}
    for record in table.sort_values("year").to_dict("records"):
        values = [float(record[name]) for name in columns]
        rows.setdefault(int(record["year"]), {})[int(record["horizon"])] = values
    return [{"year": year, "values": values} for year, values in rows.items()]


def _short(text: str, limit: int = 240) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    formats = (
        style.percent,
        style.signed_percent,
        style.ratio,
        style.price,
        style.count,
        style.day,
        style.seconds,
        style.p_value,
    )
    environment.filters |= {function.__name__: function for function in formats}
    environment.filters |= {"sessions": sessions, "short": _short, "breakable": _breakable}
    environment.tests["finite"] = lambda value: isinstance(value, int | float) and math.isfinite(value)
    return environment


def render(results: Results) -> str:
    """Render the page.

    Parameters
    ----------
    results : Results
        As `forecaster.report.results.read_results` gives them.

    Returns
    -------
    str
        A complete HTML document that refers to nothing outside itself.
    """
    figures = _Figures()
    rows = leaderboard(results)
    verdicts = horizon_verdicts(results)
    in_latest = list(dict.fromkeys(results.latest["model"]))
    forecast_by = results.champion if results.champion in in_latest else next(iter(in_latest), "")
    found = outlooks(results, forecast_by)
    row_count = np.cumsum([len(outlook.rows) for outlook in found])
    listed = found[: int((row_count <= FORECAST_ROWS_SHOWN).sum())]

    challenger = results.challenger()
    known_models = set(results.backtest.sums["model"])
    calibrated = results.champion if results.champion in known_models else challenger
    coverage = results.backtest.coverage_by_year(calibrated)
    regimes = results.backtest.coverage_by_regime(calibrated)
    tracked = track_record(results)
    tracked_model = tracked[0].model if tracked else ""
    seen = seen_side_by_side(results)
    restated = restated_symbols(results)
    gains = results.backtest.crps_ratio_by_year(challenger, results.baselines)
    pooled = scores_of(results)
    coverage_rows: list[dict[str, Any]] = [
        {
            "horizon": h,
            "values": [
                pooled.get((calibrated, h, f"coverage_{round(100 * c)}"), float("nan")) for c in COVERAGES
            ],
        }
        for h in results.horizons
    ]
    plotly_script = _plotly_script()
    page_script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    job_yaml = redact(results.summary.text("job_yaml"))
    context = {
        "results": results,
        "summary": results.summary,
        "job": results.summary.text("job") or "unnamed job",
        "facts": words.facts(results, found),
        "headline": words.headline(verdicts),
        "cards": [words.verdict_card(verdict) for verdict in verdicts],
        "champion_words": words.champion(results, verdicts),
        "alarms": words.alarms(rows),
        "rows": rows,
        "marks": {word: glyph for word, (glyph, _) in style.VERDICT_MARKS.items()},
        "forecast_by": forecast_by,
        "late": int((results.latest["model"].eq(forecast_by) & results.latest["late"].eq("True")).sum()),
        "unforecast": words.unforecast(results, found),
        "outlooks": listed,
        "outlook_count": len(found),
        "priceless": sum(not math.isfinite(outlook.close) for outlook in found),
        "fans": _fan_charts(results, found, figures),
        "fans_shown": FANS_SHOWN,
        "closes_shown": charts.CLOSES_SHOWN,
        "no_shortfall": any(not math.isfinite(row.expected_shortfall_5) for one in found for row in one.rows),
        "style": style,
        "regime_origins": REGIME_ORIGINS,
        "ratio_charts": _ratio_charts(results, rows, figures),
        "calibrated": calibrated,
        "pit_charts": _pit_charts(results, calibrated, figures),
        "coverages": COVERAGES,
        "coverage_rows": [
            row for row in coverage_rows if any(math.isfinite(value) for value in row["values"])
        ],
        "coverage_charts": _coverage_charts(coverage, figures),
        "coverage_years": _by_year(coverage, [f"coverage_{round(100 * c)}" for c in COVERAGES]),
        "regime_charts": _regime_charts(regimes, figures),
        "regime_rows": [
            {"horizon": h, "groups": part.to_dict("records")} for h, part in regimes.groupby("horizon")
        ],
        "tried": words.tried(results, rows) if rows else "",
        "counted": results.summary.text("configurations", "counted").replace("`", "").rstrip(" ."),
        "tracked": tracked,
        "tracked_model": tracked_model,
        "track_charts": _track_charts(results, tracked_model, figures),
        "seen": seen,
        "lag_charts": _lag_charts(results, seen, figures),
        "response_charts": _response_chart(results, seen, rows, figures),
        "control_words": words.control(seen, rows),
        "prices_words": words.prices(results),
        "restated": restated[:LIST_ROWS_SHOWN],
        "restated_count": len(restated),
        "quarantine": results.quarantine.head(LIST_ROWS_SHOWN).to_dict("records"),
        "quarantine_count": len(results.quarantine),
        "mlflow": {name: redact(value) for name, value in results.summary.mapping("mlflow").items()},
        "all_drawn": len(found) <= FANS_SHOWN and all(math.isfinite(outlook.close) for outlook in found),
        "challenger": challenger,
        "gain_charts": _gain_charts(gains, results.baselines, figures),
        "gain_years": _by_year(gains, ["crps_ratio"]),
        "findings": results.findings.head(LIST_ROWS_SHOWN).to_dict("records"),
        "finding_count": len(results.findings),
        "failures": results.failures.head(LIST_ROWS_SHOWN).to_dict("records"),
        "failure_count": len(results.failures),
        "job_yaml": job_yaml[:TEXT_SHOWN],
        "job_yaml_cut": len(job_yaml) > TEXT_SHOWN,
        "nan": float("nan"),
        "css": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # nosec B704
        "light": Markup(style.css_variables(style.LIGHT)),  # nosec B704
        "dark": Markup(style.css_variables(style.DARK)),  # nosec B704
        "plotly_script": Markup(plotly_script),  # nosec B704
        "page_script": Markup(page_script),  # nosec B704
        "script_digests": [_digest(plotly_script), _digest(page_script)],
        "figures": _script_json(
            {"figures": figures.plain, "template": style.template(style.LIGHT), "dark": style.dark_of_light()}
        ),
    }
    return _environment().get_template("report.html.j2").render(context)
