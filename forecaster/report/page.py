"""Puts the numbers, the words and the figures together into one HTML page."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from dataclasses import dataclass
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
LIST_ROWS_SHOWN = 200
TEXT_SHOWN = 60_000
"""Characters of the job's YAML on the page."""
DIRECTION_ALARM = 0.015
"""A daily direction accuracy this far above always-up is more likely a fault than a finding."""


@dataclass(frozen=True)
class Chart:
    """One chart of the page: a title in words, a line that sums it up, and the figure's key."""

    title: str
    summary: str
    key: str


class _Figures:
    """Collects figures under short keys, to be embedded once."""

    def __init__(self) -> None:
        self.plain: dict[str, dict[str, Any]] = {}

    def add(self, title: str, summary: str, figure: dict[str, Any]) -> Chart:
        key = f"figure-{len(self.plain) + 1}"
        self.plain[key] = figure
        return Chart(title, summary, key)


def _script_json(value: object) -> Markup:
    """Write JSON for a ``<script>`` block: no ``<`` is left that could end it. NaN is refused."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), ensure_ascii=True)
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _headline(verdicts: list[HorizonVerdict]) -> str:
    """Say in one sentence at which horizons a model is better than the best baseline."""
    known = [verdict for verdict in verdicts if verdict.word]
    if not known:
        return "No verdict: the results do not say how the models compare"
    yes = [f"{v.horizon}" for v in known if v.better]
    no = [f"{v.horizon}" for v in known if not v.better]
    unit = "session" if (yes or no) == ["1"] else "sessions"
    if not no:
        where = "every horizon" if len(yes) > 1 else f"{yes[0]} {unit}"
        return f"A model forecasts better than the best baseline at {where}"
    if not yes:
        where = "any horizon" if len(no) > 1 else f"{no[0]} {unit}"
        return f"No model is shown to forecast better than the best baseline at {where}"
    return f"A model forecasts better than the best baseline at {_join(yes)} {unit}, none is shown to at {_join(no)}"


def _verdict_card(verdict: HorizonVerdict) -> dict[str, Any]:
    """Words of one horizon's card."""
    v = verdict
    known = math.isfinite(v.crps_ratio)
    difference = f"{style.percent(abs(1 - v.crps_ratio))} {'lower' if v.crps_ratio <= 1 else 'higher'}"
    if not known:
        title, text = "No verdict", "The results hold no comparison with a baseline at this horizon."
    elif v.word == "better":
        title = f"Better: {v.model}"
        text = f"Its CRPS is {difference} than that of {v.baseline}, the best baseline."
        if v.better > 1:
            text += f" {v.better} models are judged better."
    else:
        title = {
            "as good as": "None better; one as good",
            "cannot tell": "Cannot tell",
            "worse": "None better: all worse",
        }.get(v.word, "No verdict")
        text = f"The nearest model to {v.baseline or 'the best baseline'}, the best baseline, is {v.model}: its CRPS is {difference}."
    sure = (
        f"p = {style.p_value(v.p_value)}".replace("= <", "<")
        if math.isfinite(v.p_value)
        else "no test result"
    )
    if math.isfinite(v.smallest_detectable):
        sure += f"; the test could show a difference of {style.percent(v.smallest_detectable)} or more"
    if not v.judged:
        skill = "Skill against the unconditional history was not judged."
    elif not v.skilled:
        skill = "No skill: no model forecasts better than the unconditional history."
    elif v.skilled == v.judged:
        skill = f"Skill: all {v.judged} models forecast better than the unconditional history."
    else:
        skill = f"Skill: {v.skilled} of {v.judged} models forecast better than the unconditional history."
    return {"verdict": v, "title": title, "text": text, "sure": sure if known else "", "skill": skill}


def _fan_charts(results: Results, found: list[Outlook], figures: _Figures) -> list[Chart]:
    shown = []
    closes = dict(list(results.recent_prices.groupby("symbol")))
    nothing = results.recent_prices.iloc[:0]
    for outlook in [outlook for outlook in found if math.isfinite(outlook.close)][:FANS_SHOWN]:
        last = outlook.rows[-1]
        summary = (
            f"{sessions(last.horizon)} ahead: median {style.price(last.median_price)} "
            f"({style.signed_percent(last.median)}), 80% between {style.price(last.low_price)} "
            f"and {style.price(last.high_price)}."
        )
        shown.append(
            figures.add(outlook.symbol, summary, charts.fan(outlook, closes.get(outlook.symbol, nothing)))
        )
    return shown


def _ratio_charts(results: Results, rows: list[LeaderboardRow], figures: _Figures) -> list[Chart]:
    shown = []
    for index, horizon in enumerate(results.horizons):
        known = [row for row in rows if math.isfinite(row.cells[index].crps_ratio)]
        if not known:
            continue
        lower = sum(
            row.cells[index].crps_ratio < 1 for row in known if row.model != results.baselines.get(horizon)
        )
        summary = f"{lower} of {len(known)} models have a lower CRPS than {results.baselines.get(horizon, 'the baseline')}"
        beyond = sum(row.cells[index].crps_ratio > charts.RATIO_CAP for row in known)
        summary += f"; {beyond} lie beyond the right edge." if beyond else "."
        shown.append(figures.add(sessions(horizon), summary, charts.ratio_dots(rows, index)))
    return shown


def _pit_charts(results: Results, model: str, figures: _Figures) -> list[Chart]:
    shown = []
    for horizon, densities in results.backtest.pit(model).iterrows():
        values = densities.to_numpy(dtype=float)
        tails = (values[0] + values[-1]) / 2
        words = (
            "as often as it should"
            if 0.9 <= tails <= 1.1
            else f"{style.ratio(tails)} times as often as it should"
        )
        summary = f"The outcome fell in the outer 5% tails {words}; the fullest bin has {values.max():.2f} times its share."
        shown.append(figures.add(sessions(int(str(horizon))), summary, charts.pit_histogram(values)))
    return shown


def _coverage_charts(table: pd.DataFrame, figures: _Figures) -> list[Chart]:
    shown = []
    for horizon, part in table.groupby("horizon"):
        low, high = part["coverage_80"].min(), part["coverage_80"].max()
        summary = f"The 80% interval held between {style.percent(low)} and {style.percent(high)} of outcomes a year."
        shown.append(figures.add(sessions(int(str(horizon))), summary, charts.coverage_by_year(part)))
    return shown


def _gain_charts(table: pd.DataFrame, baselines: dict[int, str], figures: _Figures) -> list[Chart]:
    shown = []
    for horizon, part in table.groupby("horizon"):
        gained = int((part["crps_ratio"] < 1).sum())
        best, worst = part.loc[part["crps_ratio"].idxmin()], part.loc[part["crps_ratio"].idxmax()]
        summary = (
            f"Lower CRPS than {baselines[int(str(horizon))]} in {gained} of {len(part)} years; best "
            f"{int(best['year'])} ({style.ratio(float(best['crps_ratio']))}), worst {int(worst['year'])} "
            f"({style.ratio(float(worst['crps_ratio']))})."
        )
        shown.append(figures.add(sessions(int(str(horizon))), summary, charts.crps_ratio_by_year(part)))
    return shown


def _by_year(table: pd.DataFrame, columns: list[str]) -> list[dict[str, Any]]:
    """Turn a long table by horizon and year into one row a year with the values of all horizons."""
    rows = []
    for year, part in table.groupby("year"):
        at = part.set_index("horizon")
        values = {h: [float(at.loc[h, name]) for name in columns] for h in at.index}  # type: ignore[arg-type]
        rows.append({"year": int(str(year)), "values": values})
    return rows


def _facts(results: Results, found: list[Outlook], model: str) -> list[tuple[str, str]]:
    """Key facts of the header."""
    summary = results.summary
    symbols = summary.texts("symbols") or [outlook.symbol for outlook in found]
    origins = sorted({outlook.origin for outlook in found})
    start, end = summary.text("backtest", "start"), summary.text("backtest", "end")
    count, refits = summary.number("backtest", "origins"), summary.number("backtest", "refits")
    backtest = f"{start or '?'} to {end or '?'}" if start or end else "not stated"
    named = _join(symbols) if 0 < len(symbols) <= 4 else f"{len(symbols):,}"
    facts = [
        ("Symbols", named),
        (
            "Horizons",
            ", ".join(str(h) for h in results.horizons) + " sessions" if results.horizons else "none",
        ),
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
    """Daily direction accuracies too good to be true."""
    return [
        f"{row.model} calls the direction of one session right in {style.percent(cell.direction)} of cases, more than "
        f"1.5 points above always-up ({style.percent(cell.direction_base_rate)}). Daily direction is hardly "
        "forecastable: treat this as a fault in the data or the model until it is explained."
        for row in rows
        for cell in row.cells
        if cell.horizon == 1 and cell.direction > cell.direction_base_rate + DIRECTION_ALARM
    ]


def _short(text: str, limit: int = 300) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sentence(text: str) -> str:
    """Begin with the text as it is and end with one full stop."""
    return text.rstrip(" .") + "."


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
    environment.filters |= {"sessions": sessions, "short": _short, "sentence": _sentence}
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
    forecaster = results.champion if results.champion in in_latest else next(iter(in_latest), "")
    found = outlooks(results, forecaster)
    row_count = np.cumsum([len(outlook.rows) for outlook in found])
    listed = found[: int((row_count <= FORECAST_ROWS_SHOWN).sum())]

    challenger = results.challenger()
    known_models = set(results.backtest.sums["model"])
    calibrated = results.champion if results.champion in known_models else challenger
    coverage = results.backtest.coverage_by_year(calibrated)
    gains = results.backtest.crps_ratio_by_year(challenger, results.baselines)
    pooled = scores_of(results)
    coverage_rows = [
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
        "facts": _facts(results, found, forecaster),
        "headline": _headline(verdicts),
        "cards": [_verdict_card(verdict) for verdict in verdicts],
        "alarms": _alarms(rows),
        "rows": rows,
        "marks": {word: glyph for word, (glyph, _) in style.VERDICT_MARKS.items()},
        "forecaster": forecaster,
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
        "css": Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704
        "light": Markup(style.css_variables(style.LIGHT)),  # noqa: S704
        "dark": Markup(style.css_variables(style.DARK)),  # noqa: S704
        "plotly_script": Markup(plotly_script),  # noqa: S704
        "page_script": Markup(page_script),  # noqa: S704
        "script_digests": [_digest(plotly_script), _digest(page_script)],
        "figures": _script_json(
            {"figures": figures.plain, "template": style.template(style.LIGHT), "dark": style.dark_of_light()}
        ),
    }
    return _environment().get_template("report.html.j2").render(context)
