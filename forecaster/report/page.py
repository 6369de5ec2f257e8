"""Puts the numbers, the words and the figures together into one HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.offline
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from forecaster.report import charts, style
from forecaster.report.charts import sessions
from forecaster.report.results import Results
from forecaster.report.tables import (
    HorizonVerdict,
    LeaderboardRow,
    Outlook,
    horizon_verdicts,
    leaderboard,
    outlooks,
    scores_of,
)
from forecaster.scores import COVERAGES

__all__ = ["FANS_SHOWN", "FORECAST_ROWS_SHOWN", "render"]

TEMPLATES = Path(__file__).parent / "templates"
FANS_SHOWN = 12
FORECAST_ROWS_SHOWN = 3000
LIST_ROWS_SHOWN = 100
TEXT_SHOWN = 40_000
"""Characters of the job's YAML on the page."""
DIRECTION_ALARM = 0.015
"""A daily direction accuracy this far above a constant call is more likely a fault than a finding."""


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
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _headline(verdicts: list[HorizonVerdict]) -> str:
    """Say in one sentence at which horizons a model is better than the best baseline."""
    known = [verdict for verdict in verdicts if verdict.word]
    yes = [str(verdict.horizon) for verdict in known if verdict.better]
    no = [str(verdict.horizon) for verdict in known if not verdict.better]
    unit = "session" if (yes or no) == ["1"] else "sessions"
    if not known:
        return "No verdict: the results do not say how the models compare"
    if not no:
        where = "every horizon" if len(yes) > 1 else f"{yes[0]} {unit}"
        return f"A model beats the best baseline at {where}"
    if not yes:
        where = "any horizon" if len(no) > 1 else f"{no[0]} {unit}"
        return f"No model is shown to beat the best baseline at {where}"
    return f"A model beats the best baseline at {_join(yes)} {unit}; at {_join(no)} none is shown to"


def _bold(text: str) -> Markup:
    """Set a model's name apart from the prose: `average` is a name as well as a word."""
    return Markup("<b>{}</b>").format(text)


def _verdict_card(verdict: HorizonVerdict) -> dict[str, Any]:
    """Find the words of one horizon's card."""
    known = math.isfinite(verdict.crps_ratio)
    difference = style.percent(abs(1 - verdict.crps_ratio))
    difference += " lower" if verdict.crps_ratio <= 1 else " higher"
    baseline = _bold(verdict.baseline) if verdict.baseline else "an unnamed model"
    title = {
        "better": "Better",
        "as good as": "None better, nearest as good",
        "cannot tell": "Cannot tell",
        "worse": "None better, all worse",
    }.get(verdict.word, "No verdict")
    if not known:
        text = Markup("The results hold no comparison with a baseline at this horizon.")
    elif verdict.word == "better":
        text = Markup("The CRPS of {} is {} than that of {}, the best baseline.").format(
            _bold(verdict.model), difference, baseline
        )
        if verdict.better > 1:
            text += f" {verdict.better} models are judged better; this one has the lowest CRPS."
    else:
        text = Markup("The nearest model to {}, the best baseline, is {}: its CRPS is {}.").format(
            baseline, _bold(verdict.model), difference
        )
    sure = "no test result"
    if math.isfinite(verdict.p_value):
        sure = f"p {style.p_value(verdict.p_value)}"
    if math.isfinite(verdict.smallest_detectable):
        sure += f"; smallest detectable difference {style.percent(verdict.smallest_detectable)}"
    if not verdict.judged:
        skill = "Skill against the unconditional history was not judged."
    elif not verdict.skilled:
        skill = "No skill: no model forecasts better than the unconditional history."
    else:
        counts = f"{verdict.skilled} of {verdict.judged}" if verdict.judged > verdict.skilled else "all"
        skill = f"Skill: {counts} models forecast better than the unconditional history."
    return {"verdict": verdict, "title": title, "text": text, "sure": sure if known else "", "skill": skill}


def _champion_words(results: Results, verdicts: list[HorizonVerdict]) -> str:
    """Say why the champion was chosen and how it stands to the best baseline."""
    reason = results.summary.text("champion_reason").rstrip(" .")
    words = f"{reason}." if reason else "The results do not say why."
    if results.champion in results.baselines.values():
        return f"{words} It is a baseline itself."
    ratios = [
        f"{style.ratio(verdict.champion_ratio)} at {verdict.horizon}"
        for verdict in verdicts
        if math.isfinite(verdict.champion_ratio)
    ]
    if ratios:
        unit = "session" if ratios[-1].endswith(" at 1") else "sessions"
        words += f" Its CRPS ratio to the best baseline is {_join(ratios)} {unit}."
    return words


def _fan_charts(results: Results, found: list[Outlook], figures: _Figures) -> list[Placed]:
    closes = dict(list(results.recent_prices.groupby("symbol")))
    nothing = results.recent_prices.iloc[:0]
    drawn = [outlook for outlook in found if math.isfinite(outlook.close)][:FANS_SHOWN]
    return [
        figures.add(outlook.symbol, charts.fan(outlook.table, closes.get(outlook.symbol, nothing)))
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


def _by_year(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Turn a long table by horizon and year into one row a year with the values of all horizons."""
    rows: dict[int, dict[int, list[float]]] = {}
    for record in table.sort_values("year").to_dict("records"):
        values = [float(record[name]) for name in columns]
        rows.setdefault(int(record["year"]), {})[int(record["horizon"])] = values
    return [{"year": year, "values": values} for year, values in rows.items()]


def _facts(results: Results, found: list[Outlook]) -> list[tuple[str, str]]:
    """Key facts of the header."""
    summary = results.summary
    symbols = summary.texts("symbols") or [outlook.symbol for outlook in found]
    origins = sorted({outlook.origin for outlook in found})
    start, end = summary.text("backtest", "start"), summary.text("backtest", "end")
    count, refits = summary.number("backtest", "origins"), summary.number("backtest", "refits")
    backtest = f"{start or '?'} to {end or '?'}" if start or end else "not stated"
    named = _join(symbols) if 0 < len(symbols) <= 4 else style.count(len(symbols))
    unit = "session" if results.horizons == (1,) else "sessions"
    facts = [
        ("Symbols", named if symbols else "none named"),
        ("Horizons", f"{', '.join(map(str, results.horizons))} {unit}" if results.horizons else "none named"),
        ("Backtest", backtest),
        ("Champion", results.champion or "none named"),
        (
            "Best baseline",
            _join(sorted(set(results.baselines.values()))) if results.baselines else "none named",
        ),
    ]
    if count is not None:
        days = f"{style.count(count)}" + (f", {style.count(refits)} refits" if refits is not None else "")
        facts.insert(3, ("Origins", days))
    if origins:
        after = f"{origins[-1]:%Y-%m-%d}"
        facts.insert(
            0, ("Forecasts after", after if len(origins) == 1 else f"{origins[0]:%Y-%m-%d} to {after}")
        )
    return facts


def _alarms(rows: list[LeaderboardRow]) -> list[str]:
    """Name the daily direction accuracies that are too good to be true."""
    alarms = []
    for row in rows:
        for cell in row.cells:
            constant = max(cell.direction_base_rate, 1.0 - cell.direction_base_rate)
            if cell.horizon == 1 and cell.direction > constant + DIRECTION_ALARM:
                alarms.append(
                    f"{row.model} calls the direction of one session right in "
                    f"{style.percent(cell.direction)} of cases, more than 1.5 points above what one and the "
                    "same call every day scores "
                    f"({style.percent(constant)}). Daily direction is hardly forecastable: treat this as a "
                    "fault in the data or the model until it is explained."
                )
    return alarms


def _unforecast(results: Results, found: list[Outlook]) -> str:
    """Say which of the job's symbols have no forecast and are not among those left out."""
    told = {outlook.symbol for outlook in found} | set(results.failures["symbol"])
    silent = [symbol for symbol in results.summary.texts("symbols") if symbol not in told]
    if not silent or not found:
        return ""
    more = f" and {len(silent) - 10:,} more" if len(silent) > 10 else ""
    return f"There is no forecast for {', '.join(silent[:10])}{more} in the results (latest.parquet)."


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
        style.seconds,
        style.p_value,
    )
    environment.filters |= {function.__name__: function for function in formats}
    environment.filters |= {"sessions": sessions, "short": _short}
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
    plotly_script = plotly.offline.get_plotlyjs().replace("\r\n", "\n")
    page_script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    job_yaml = results.summary.text("job_yaml")
    context = {
        "results": results,
        "summary": results.summary,
        "job": results.summary.text("job") or "unnamed job",
        "facts": _facts(results, found),
        "headline": _headline(verdicts),
        "cards": [_verdict_card(verdict) for verdict in verdicts],
        "champion_words": _champion_words(results, verdicts),
        "alarms": _alarms(rows),
        "rows": rows,
        "marks": {word: glyph for word, (glyph, _) in style.VERDICT_MARKS.items()},
        "forecast_by": forecast_by,
        "unforecast": _unforecast(results, found),
        "outlooks": listed,
        "outlook_count": len(found),
        "priceless": sum(not math.isfinite(outlook.close) for outlook in found),
        "fans": _fan_charts(results, found, figures),
        "fans_shown": FANS_SHOWN,
        "ratio_charts": _ratio_charts(results, rows, figures),
        "calibrated": calibrated,
        "pit_charts": _pit_charts(results, calibrated, figures),
        "coverages": COVERAGES,
        "coverage_rows": [
            row for row in coverage_rows if any(math.isfinite(value) for value in row["values"])
        ],
        "coverage_charts": _coverage_charts(coverage, figures),
        "coverage_years": _by_year(coverage, [f"coverage_{round(100 * c)}" for c in COVERAGES]),
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
        "css": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),
        "light": Markup(style.css_variables(style.LIGHT)),
        "dark": Markup(style.css_variables(style.DARK)),
        "plotly_script": Markup(plotly_script),
        "page_script": Markup(page_script),
        "script_digests": [_digest(plotly_script), _digest(page_script)],
        "figures": _script_json(
            {"figures": figures.plain, "template": style.template(style.LIGHT), "dark": style.dark_of_light()}
        ),
    }
    return _environment().get_template("report.html.j2").render(context)
