"""The sentences of the page: what the numbers of a run say in words."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from forecaster.report import style
from forecaster.report.charts.base import sessions
from forecaster.report.results import Results
from forecaster.report.tables import HorizonVerdict, LeaderboardRow, Outlook, Seen

__all__ = [
    "alarms",
    "champion",
    "control",
    "facts",
    "headline",
    "prices",
    "tried",
    "unforecast",
    "verdict_card",
]

DIRECTION_ALARM = 0.015
"""A daily direction accuracy this far above a constant call is more likely a fault than a finding."""


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def headline(verdicts: list[HorizonVerdict]) -> str:
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


def verdict_card(verdict: HorizonVerdict) -> dict[str, Any]:
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


def champion(results: Results, verdicts: list[HorizonVerdict]) -> str:
    """Say why the champion was chosen and how it stands to the best baseline."""
    reason = results.summary.text("champion_reason").rstrip(" .")
    names = {results.champion, *results.verdict["model"], *results.models["model"]}
    if reason.partition(" ")[0] not in names:  # a name is written as it is
        reason = reason[:1].upper() + reason[1:]
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


def control(seen: Seen, rows: list[LeaderboardRow]) -> list[str]:
    """Say how the CRPS of the 2D kernel compares with that of its control, and how their sizes do."""
    by_name = {row.model: row for row in rows}
    if seen.model not in by_name or seen.control not in by_name:
        return []
    mine, control = by_name[seen.model], by_name[seen.control]
    words = []
    for cell, other in zip(mine.cells, control.cells, strict=True):
        quotient = cell.crps_ratio / other.crps_ratio if other.crps_ratio > 0 else math.nan
        if not math.isfinite(quotient):
            continue
        side = "lower" if quotient <= 1 else "higher"
        text = (
            f"{sessions(cell.horizon)} ahead, the CRPS of {mine.model} is {style.percent(abs(1 - quotient))} "
            f"{side} than that of {control.model}"
        )
        sets = (cell.confidence_set, other.confidence_set)
        if sets == ("in", "in"):
            text += "; both are in the 90% confidence set, so the data do not tell them apart"
        elif sets == ("in", "out"):
            text += "; it is in the 90% confidence set and the control is not"
        elif sets == ("out", "in"):
            text += "; the control is in the 90% confidence set and it is not"
        elif sets == ("out", "out"):
            text += "; neither is in the 90% confidence set"
        words.append(f"{text}.")
    sizes = (mine.parameters, control.parameters)
    if all(math.isfinite(size) and size > 0 for size in sizes):
        text = f"Parameters: {style.count(sizes[0])} and {style.count(sizes[1])}."
        if not 0.9 <= sizes[0] / sizes[1] <= 1.1:
            text += (
                " The two differ in size, so a difference in CRPS may come from that and not from the kernel."
            )
        words.append(text)
    return words


def tried(results: Results, rows: list[LeaderboardRow]) -> str:
    """Say of how many configurations the best is the best."""
    compared = f"The best of {style.count(len(rows))} models of this run"
    number = results.summary.number("configurations", "tried")
    if number is None:
        return (
            f"{compared}; the results do not say how many configurations were tried on this test span before."
        )
    words = f"{compared}; {style.count(number)} configuration" + ("s were" if number != 1 else " was")
    words += " tried on this test span"
    runs = results.summary.number("configurations", "runs")
    if runs is not None:
        words += f" in {style.count(runs)} run" + ("s" if runs != 1 else "")
    return f"{words}. The more were tried, the better the best looks by luck."


def prices(results: Results) -> list[str]:
    """Say what is known of the prices as a whole."""
    summary = results.summary
    words = []
    first, last = summary.text("data", "first_session"), summary.text("data", "last_session")
    if first or last:
        words.append(f"Prices from {first or '?'} to {last or '?'}.")
    known = summary.text("data", "store", "known_at")
    if known:
        words.append(f"As the price store knew them at {known}.")
        behind = summary.number("data", "store", "sessions_behind") or 0
        if behind:
            unit = "session" if behind == 1 else "sessions"
            words.append(f"Stale: some symbol lies {style.count(behind)} {unit} behind its exchange.")
        if summary.text("data", "store", "point_in_time") == "False":
            words.append(
                "Not point-in-time: history before a symbol's first fetch is history as it looked then, with "
                "later corrections in it."
            )
    elif first or last:
        words.append("Read from the source directly, without a price store: restatements are not tracked.")
    return words


def facts(results: Results, found: list[Outlook]) -> list[tuple[str, str]]:
    """Key facts of the header."""
    summary = results.summary
    symbols = summary.texts("symbols") or [outlook.symbol for outlook in found]
    origins = sorted({outlook.origin for outlook in found})
    start, end = summary.text("backtest", "start"), summary.text("backtest", "end")
    count, refits = summary.number("backtest", "origins"), summary.number("backtest", "refits")
    judged = results.backtest.sums["origin"]
    if not start and len(judged):
        start, end = f"{judged.min():%Y-%m-%d}", f"{judged.max():%Y-%m-%d}"
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


def alarms(rows: list[LeaderboardRow]) -> list[str]:
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


def unforecast(results: Results, found: list[Outlook]) -> str:
    """Say which of the job's symbols have no forecast and are not among those left out."""
    told = {outlook.symbol for outlook in found} | set(results.failures["symbol"])
    silent = [symbol for symbol in results.summary.texts("symbols") if symbol not in told]
    if not silent or not found:
        return ""
    more = f" and {len(silent) - 10:,} more" if len(silent) > 10 else ""
    return f"There is no forecast for {', '.join(silent[:10])}{more} in the results (latest.parquet)."
