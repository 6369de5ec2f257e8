"""The report: its numbers against the input files, hostile and missing input, and the page in a browser."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from axe_playwright_python.base import AxeResults
from browser import ARGUMENTS, chromium
from hypothesis import given
from hypothesis import strategies as st
from report_results import BASELINE, CHAMPION, CONTROL, KERNEL, MODELS, write_results

from forecaster.errors import ParameterError
from forecaster.ledger import Ledger
from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.report import style, write_report
from forecaster.report.pdf import write_pdf
from forecaster.scores import row_scores

ROOT = Path(__file__).parents[1]
HORIZONS = (1, 5, 21)
SIZE_LIMIT = 6_000_000
HOSTILE = (
    "<script>alert(1)</script>",
    "../../x",
    "=cmd()",
    "</script><img src=x onerror=alert(1)>",
    "%{x} $a$ {{ 7*7 }}",
)
FILES = (
    "summary.json",
    "verdict.csv",
    "scores.csv",
    "models.csv",
    "forecasts.parquet",
    "latest.parquet",
    "recent_prices.parquet",
    "findings.csv",
    "failures.csv",
)


LEADERBOARD = "CRPS ratio to the best baseline, its test, and coverage by horizon"
FORECASTS = "Forecast by symbol and horizon"
GAINS = "CRPS of average over that of the best baseline, by year of the forecast"
YEARS = "Share of outcomes inside the interval, by year of the forecast"
REGIME = "Share of outcomes inside the interval, by regime of volatility at the forecast"
RECORD = "What issued forecasts scored, above what the backtest promised"
TRACED = {
    *("SPX", "WTI", LEADERBOARD, FORECASTS, GAINS, YEARS, REGIME, RECORD),
    "Share of outcomes inside the interval, by horizon",
    "Share of moves whose direction was called right",
    "Models",
    "Symbols left out, and why",
    "What the price checks found, and what was done",
    "Sessions that are not used",
    "Restated: numbers that a source changed after they were first read",
}
"""Captions of all tables of the page: each is held against the files by a test below."""


class Page(HTMLParser):
    """What a browser would find on the page, by the standard library's parser."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.scopes: list[str | None] = []
        self.captions = 0
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.text = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self._inside: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag in ("script", "style", "caption", "th", "td", "b"):
            self._inside.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
            if tag == "th":
                self.scopes.append(dict(attrs).get("scope"))
        elif tag == "script":
            self.scripts.append((dict(attrs), ""))
        elif tag == "small" and self._rows:
            self._rows[-1][-1] += " "

    def handle_endtag(self, tag: str) -> None:
        if self._inside and self._inside[-1] == tag:
            self._inside.pop()
        if tag == "table":
            self.captions += bool(self._caption)
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        if "script" in self._inside:
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif "style" not in self._inside:
            self.text += data
            if self._inside[-2:] == ["caption", "b"]:
                self._caption += data
            elif "td" in self._inside or "th" in self._inside:
                self._rows[-1][-1] += data

    def figures(self) -> dict[str, dict]:
        (text,) = (text for attributes, text in self.scripts if attributes.get("id") == "figures")
        return json.loads(text)["figures"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(tmp_path_factory.mktemp("results") / "run", ("SPX", "WTI"), HORIZONS, 700)


@pytest.fixture(scope="module")
def html(results: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_report(results, tmp_path_factory.mktemp("page") / "new" / "report.html").read_text("utf-8")


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture
def copy(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "copy"))


def render(directory: Path) -> str:
    return write_report(directory, directory / "report.html").read_text("utf-8")


def change_summary(directory: Path, **values: object) -> None:
    path = directory / "summary.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), encoding="utf-8")


def change_verdict(directory: Path, **columns: object) -> None:
    table = pd.read_csv(directory / "verdict.csv")
    others = table["model"] != BASELINE
    for name, value in columns.items():
        table[name] = table[name].where(~others, value)
    table.to_csv(directory / "verdict.csv", index=False)


# The numbers


def test_every_number_of_the_leaderboard_is_in_the_input(results: Path, page: Page) -> None:
    verdict = pd.read_csv(results / "verdict.csv").set_index(["model", "horizon"])
    scores = pd.read_csv(results / "scores.csv")
    scores = scores[scores["symbol"] == "*"].set_index(["model", "horizon", "metric"])["value"].sort_index()
    models = pd.read_csv(results / "models.csv").set_index("model")
    rows = page.tables[LEADERBOARD][2:]
    names = verdict["crps_ratio"].groupby("model").mean().sort_values().index.tolist()
    assert [re.split(" (?:champion|best)", row[0])[0] for row in rows] == names
    for name, row in zip(names, rows, strict=True):
        expected = []
        for h in HORIZONS:
            v, s = verdict.loc[name, h], scores[name, h]
            p, mcs = (
                "–" if math.isnan(v[name]) else f"{v[name]:.4f}".replace("0.0000", "< 0.0001")
                for name in ("p_value", "mcs_p_value")
            )
            detects = v["smallest_detectable"]
            skill = " no skill" if v["skill"] == "no skill" else ""
            expected += [
                f"{v['crps_ratio']:.4f} {v['verdict']}{skill}",
                f"{p} {'–' if math.isnan(detects) else f'{100 * detects:.2f}%'}",
                f"{v['confidence_set']} {mcs}",
                f"{100 * s['coverage_80']:.2f}% {100 * s['coverage_95']:.2f}%",
            ]
        expected += [f"{models.loc[name, 'parameters']:,}", f"{models.loc[name, 'fit_seconds']:.1f}"]
        assert [re.sub("[▲●◆▼■] ", "", cell) for cell in row[1:]] == expected


def shortfall(forecast: pd.Series, level: float) -> float:
    """Loss at the mean log return of the worst outcomes, summed by hand."""
    total = LEVELS[0] * forecast["tail_low"]
    inside = [one for one in LEVELS if one <= level]
    for low, high in itertools.pairwise(inside):
        total += (high - low) * (forecast[f"q{low!r}"] + forecast[f"q{high!r}"]) / 2
    return 1 - math.exp(total / level)


def test_the_table_under_a_fan_is_that_of_all_symbols(page: Page) -> None:
    # Quantities down and horizons across, against the table of all symbols that the test below holds.
    rows = page.tables[FORECASTS][2:]
    for place, symbol in enumerate(("SPX", "WTI")):
        of_all = [row[-13:] for row in rows[3 * place : 3 * place + 3]]
        order = (4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 11, 12)
        under = page.tables[symbol]
        assert under[0] == ["Sessions ahead", *(row[0] for row in of_all)]
        assert [row[1:] for row in under[1:]] == [[row[k] for row in of_all] for k in order]


def test_every_number_of_the_forecast_table_is_in_the_input(results: Path, page: Page) -> None:
    latest = pd.read_parquet(results / "latest.parquet")
    latest = latest[latest["model"] == CHAMPION].set_index(["symbol", "horizon"])
    scores = pd.read_csv(results / "scores.csv").set_index(["model", "symbol", "horizon", "metric"])["value"]
    rows = iter(page.tables[FORECASTS][2:])
    for symbol in ("SPX", "WTI"):
        for h in HORIZONS:
            forecast = latest.loc[symbol, h]
            close = forecast["close"]
            change = {level: math.exp(forecast[f"q{level!r}"]) - 1 for level in LEVELS}
            quantiles = forecast[quantile_columns()].to_numpy(dtype=float)
            rise = 1 - np.interp(0.0, quantiles, LEVELS)
            expected = [
                str(h),
                *(f"{100 * change[level]:+.2f}%" for level in (0.5, 0.1, 0.9)),
                *(f"{close * (1 + change[level]):,.2f}" for level in (0.5, 0.1, 0.9)),
                f"{100 * rise:.2f}%",
                f"{100 * scores[CHAMPION, symbol, h, 'direction_base_rate']:.2f}%",
                *(f"{-100 * change[level]:.2f}%" for level in (0.05, 0.01)),
                *(f"{100 * shortfall(forecast, level):.2f}%" for level in (0.05, 0.01)),
            ]
            row = next(rows)
            if h == HORIZONS[0]:
                assert row.pop(0) == f"{symbol} {close:,.2f} on {forecast['origin']:%Y-%m-%d}"
            assert row == expected
    assert next(rows, None) is None


def test_numbers_by_year_are_those_of_the_rows(results: Path, page: Page) -> None:
    rows = pd.read_parquet(results / "forecasts.parquet")
    rows = rows[rows["model"].isin([CHAMPION, BASELINE]) & rows["y"].notna()]
    rows = rows.assign(year=rows["origin"].dt.year, **row_scores(rows))
    means = rows.groupby(["model", "year", "horizon"])[
        ["crps", "coverage_50", "coverage_80", "coverage_95"]
    ].mean()
    mine, base = means.loc[CHAMPION], means.loc[BASELINE]
    years = sorted(rows["year"].unique())
    table = page.tables[GAINS]
    for year, row in zip(years, table[1:], strict=True):
        ratios = [mine["crps"][year, h] / base["crps"][year, h] for h in HORIZONS]
        assert row == [str(year), *(f"{ratio:.4f}" for ratio in ratios)]
    table = page.tables[YEARS]
    for year, row in zip(years, table[2:], strict=True):
        shares = [mine.loc[(year, h), f"coverage_{c}"] for h in HORIZONS for c in (50, 80, 95)]
        assert row == [str(year), *(f"{100 * share:.2f}%" for share in shares)]
    # Regimes: the thirds of the origins by the last 22 outcomes at horizon 1, known one session later.
    table = iter(page.tables[REGIME][1:])
    mine = rows[rows["model"] == CHAMPION]
    sizes = mine[mine["horizon"] == 1].groupby("origin")["y"].agg(lambda y: y.abs().mean()).sort_index()
    known = {day: sizes.iloc[k - 22 : k].mean() for k, day in enumerate(sizes.index) if k >= 22}
    low, high = np.quantile(list(known.values()), [1 / 3, 2 / 3])
    for h in HORIZONS:
        for number, name in enumerate(("calm", "middle", "turbulent")):
            days = {day for day, size in known.items() if np.searchsorted([low, high], size) == number}
            part = mine[(mine["horizon"] == h) & mine["origin"].isin(days)]
            row = next(table)
            assert row[number == 0 :] == [
                name,
                f"{len(part):,}",
                *(f"{100 * part[f'coverage_{c}'].mean():.2f}%" for c in (50, 80, 95)),
            ]
    # The PIT histogram: outcomes between neighbouring twentieths of their own forecast.
    edges = [f"q{level!r}" for level in LEVELS if round(20 * level, 9).is_integer()]
    histograms = [
        figure["data"][0]["y"]
        for figure in page.figures().values()
        if len(figure["data"][0].get("y", [])) == 20
    ]
    for h, drawn in zip(HORIZONS, histograms, strict=True):
        part = rows[(rows["model"] == CHAMPION) & (rows["horizon"] == h)]
        places = (part[edges].to_numpy() < part["y"].to_numpy()[:, None]).sum(axis=1)
        np.testing.assert_allclose(drawn, 20 * np.bincount(places, minlength=20) / len(part), rtol=1e-5)


def test_small_tables_hold_the_rows_of_their_files(results: Path, page: Page) -> None:
    scores = pd.read_csv(results / "scores.csv")
    scores = scores[scores["symbol"] == "*"].set_index(["model", "horizon", "metric"])["value"].sort_index()
    table = page.tables["Share of outcomes inside the interval, by horizon"][1:]
    assert table == [
        [str(h), *(f"{100 * scores[CHAMPION, h, f'coverage_{c}']:.2f}%" for c in (50, 80, 95))]
        for h in HORIZONS
    ]
    for row in page.tables["Share of moves whose direction was called right"][1:]:
        metrics = [scores[row[0], h] for h in HORIZONS]
        assert row[1:] == [
            f"{100 * m['direction']:.2f}% {100 * m['direction_base_rate']:.2f}%" for m in metrics
        ]
    models = pd.read_csv(results / "models.csv").set_index("model")
    for row in page.tables["Models"][1:]:
        about = models.loc[row[0]]
        seconds = [f"{about[name]:.1f}" for name in ("fit_seconds", "predict_seconds")]
        assert row[1:] == [about["kind"], about["description"], f"{about['parameters']:,}", *seconds]
    findings = pd.read_csv(results / "findings.csv", dtype=str)
    findings = findings[["symbol", "severity", "code", "sessions", "first_session", "message", "action"]]
    table = page.tables["What the price checks found, and what was done"][1:]
    assert [[cell.replace(",", "") for cell in row] for row in table] == [
        [cell.replace(",", "") for cell in row] for row in findings.to_numpy().tolist()
    ]
    failures = pd.read_csv(results / "failures.csv").to_numpy().tolist()
    assert page.tables["Symbols left out, and why"][1:] == failures
    assert page.tables["Sessions that are not used"][1:] == [
        ["WTI", "2013-07-03", "-36.98", "not-positive"],
        ["WTI", "2013-07-05", "12.00", "not-positive"],
    ]
    caption = "Restated: numbers that a source changed after they were first read"
    assert page.tables[caption][1:] == [
        ["SPX", "2", "2", "2017-03-01", "2017-03-02", "0.04%", "2018-12-15 22:00:00"],
        ["WTI", "1", "1", "2018-01-05", "2018-01-05", "1.00%", "2018-12-15 22:00:00"],
    ]


def test_sentences_hold_the_numbers_of_the_files(results: Path, page: Page) -> None:
    verdict = pd.read_csv(results / "verdict.csv")
    for h in HORIZONS:
        others = verdict[(verdict["horizon"] == h) & (verdict["model"] != BASELINE)].sort_values("crps_ratio")
        best = others[others["verdict"] == "better"].head(1)
        best = (best if len(best) else others.head(1)).iloc[0]
        p = "< 0.0001" if best["p_value"] < 0.00005 else f"{best['p_value']:.4f}"
        detects = f"smallest detectable difference {100 * best['smallest_detectable']:.2f}%"
        assert f"CRPS ratio {best['crps_ratio']:.4f} · p {p}; {detects}" in page.text
        ratios = verdict[verdict["horizon"] == h].set_index("model")["crps_ratio"]
        gain = 100 * (1 - ratios[KERNEL] / ratios[CONTROL])
        side = "lower" if gain >= 0 else "higher"
        assert f"the CRPS of {KERNEL} is {abs(gain):.2f}% {side} than that of {CONTROL}" in page.text
    assert "Parameters: 7,203 and 7,180." in page.text
    tried = f"The best of {len(MODELS)} models of this run; 34 configurations were tried on this test span"
    tried += " in 3 runs."
    assert "Configurations tried: distinct settings in the tracking store." in page.text
    assert page.text.count(tried) == 2
    for words in (
        "Stale: some symbol lies 2 sessions behind its exchange.",
        "Not point-in-time: history before",
        "As the price store knew them at 2018-12-31T22:10:00+00:00.",
    ):
        assert words in page.text


def test_what_kernels_see_is_in_the_files(results: Path, page: Page) -> None:
    weights = pd.read_csv(results / "kernel_weights.csv")
    responses = pd.read_csv(results / "kernel_responses.csv")
    figures = page.figures()
    maps = [one["data"][0] for one in figures.values() if one["data"][0]["type"] == "heatmap"]
    for image, model in zip(maps, (KERNEL, CONTROL), strict=True):
        part = weights[weights["model"] == model]
        for channel, drawn in zip(("z", "abs_z"), image["z"], strict=True):
            of_lag = part[part["channel"] == channel].groupby("lag")["weight"]
            np.testing.assert_allclose(drawn, [np.sqrt(np.mean(w**2)) for _, w in of_lag], rtol=1e-3)
    lines = next(one["data"] for one in figures.values() if one["data"][0].get("name") == KERNEL)
    assert [line["name"] for line in lines] == [KERNEL, CONTROL]
    for line in lines:
        part = responses[responses["model"] == line["name"]].groupby("period")["magnitude"]
        size = np.array([np.sqrt(np.mean(m**2)) for _, m in part])
        np.testing.assert_allclose(line["y"], size / size.max(), rtol=1e-3)


def with_track_record(directory: Path, evenings: int = 30) -> pd.DataFrame:
    """Issue the last forecasts of a run into a ledger; gives the scores there, a row each."""
    rows = pd.read_parquet(directory / "forecasts.parquet")
    rows = rows[rows["model"].isin([CHAMPION, BASELINE])]
    rows = rows[rows["origin"].isin(sorted(rows["origin"].unique())[-evenings - 21 :])]
    last = rows["origin"].max().date()
    with Ledger.open(directory / "ledger.db") as ledger:
        run = ledger.start_run("quickstart", job_hash="h", yaml="name: quickstart\n", as_of=last)
        table = rows.drop(columns="y").assign(model_version="3", close=100.0, late=False)
        # A late one never counts.
        late = (table["symbol"] == "WTI") & (table["origin"] == table["origin"].min())
        table["late"] = late
        ledger.issue(run, table, data_version="d", known_at=None, code_version="c")
        keys = ["symbol", "origin", "horizon"]
        known = rows[rows["y"].notna()].drop_duplicates(keys)[[*keys, "y"]]
        known["target"] = known["origin"] + pd.to_timedelta(2 * known["horizon"], unit="D")
        ledger.record_outcomes("quickstart", known, data_version="d")
        ledger.track_record("quickstart", by_origin=True).to_parquet(directory / "track_record.parquet")
        return ledger.scores("quickstart")


def test_the_record_since_issue_is_that_of_the_ledger(copy: Path) -> None:
    scored = with_track_record(copy)
    pooled = pd.read_csv(copy / "scores.csv")
    pooled = pooled[pooled["symbol"] == "*"].set_index(["model", "horizon", "metric"])["value"].sort_index()
    page = Page(render(copy))
    assert set(page.tables) == TRACED
    rows = iter(page.tables[RECORD][1:])
    metrics = ("coverage_50", "coverage_80", "coverage_95", "hit_rate_0.05", "hit_rate_0.01")
    for model in (CHAMPION, BASELINE):
        for h in HORIZONS:
            part = scored[(scored["model"] == model) & (scored["horizon"] == h)]
            promised = pooled[model, h]
            assert next(rows) == [
                model,
                str(h),
                f"{len(part)} {part['origin'].min():%Y-%m-%d} {part['origin'].max():%Y-%m-%d}",
                f"{100 * part['crps'].mean():.3f}% {100 * promised['crps']:.3f}%",
                *(f"{100 * part[m].mean():.2f}% {100 * promised[m]:.2f}%" for m in metrics),
            ]
    assert next(rows, None) is None
    assert f"Coverage of {CHAMPION} since issue" in page.text
    mean = scored[(scored["model"] == CHAMPION) & (scored["horizon"] == 1)]
    words = f"the 80% interval held {100 * mean['coverage_80'].mean():.2f}% of {len(mean)} outcomes."
    assert words in page.text


def test_an_empty_ledger_and_none_are_told_apart(copy: Path) -> None:
    assert "These results hold no record of issued forecasts" in Page(render(copy)).text
    with Ledger.open(copy / "ledger.db") as ledger:
        table = ledger.track_record("quickstart", by_origin=True)
    table.to_parquet(copy / "track_record.parquet")
    assert "No forecast that was issued in time has met its outcome yet." in Page(render(copy)).text
    (copy / "track_record.parquet").write_text("no parquet", encoding="utf-8")
    text = Page(render(copy)).text
    assert "track_record.parquet cannot be read" in text
    assert "These results hold no record of issued forecasts" in text


def test_kernels_without_a_control_and_no_kernels(copy: Path) -> None:
    change_summary(copy, job_yaml="")
    text = Page(render(copy)).text
    assert "The job has no control of equal size" in text
    assert "The job's YAML is not in the results" in text
    (copy / "kernel_weights.csv").unlink()
    (copy / "kernel_responses.csv").unlink()
    assert "No model of these results has a kernel on the series" in Page(render(copy)).text


def test_a_short_backtest_has_no_regimes(copy: Path) -> None:
    rows = pd.read_parquet(copy / "forecasts.parquet")
    rows[rows["origin"] < "2008-03-01"].to_parquet(copy / "forecasts.parquet")
    page = Page(render(copy))
    assert "The backtest is too short to tell calm from turbulent markets." in page.text
    assert REGIME not in page.tables


def test_fan_charts_hold_prices(results: Path, page: Page) -> None:
    latest = pd.read_parquet(results / "latest.parquet")
    latest = latest[(latest["model"] == CHAMPION) & (latest["symbol"] == "SPX")].set_index("horizon")
    closes = pd.read_parquet(results / "recent_prices.parquet")
    closes = closes[closes["symbol"] == "SPX"].sort_values("session")["close"].to_numpy()[-60:]
    lines = page.figures()["figure-1"]["data"]
    assert [line["x"] for line in lines[:6]] == [[0, *HORIZONS]] * 6
    for line, level in zip(lines[:6], (0.025, 0.975, 0.1, 0.9, 0.25, 0.75), strict=True):
        prices = [closes[-1], *(closes[-1] * np.exp(latest.loc[h, f"q{level!r}"]) for h in HORIZONS)]
        np.testing.assert_allclose(line["y"], prices, rtol=1e-5)
    np.testing.assert_allclose(lines[6]["y"], closes, rtol=1e-5)
    assert lines[6]["x"] == list(range(-59, 1))


# The words


NOT_SHOWN = "No model is shown to beat the best baseline at any horizon."


@pytest.mark.parametrize(
    ("word", "headline", "card"),
    [
        ("better", "A model beats the best baseline at every horizon.", "▲ Better"),
        ("as good as", NOT_SHOWN, "● None better, nearest as good"),
        ("cannot tell", NOT_SHOWN, "◆ Cannot tell"),
        ("worse", NOT_SHOWN, "▼ None better, all worse"),
        ("", "No verdict: the results do not say how the models compare.", "No verdict"),
    ],
)
def test_verdicts_in_words(copy: Path, word: str, headline: str, card: str) -> None:
    change_verdict(copy, verdict=word)
    text = Page(render(copy)).text
    assert headline in text
    assert text.count(f"\n{card}\n") == len(HORIZONS)


def test_no_skill_is_said_plainly(copy: Path) -> None:
    table = pd.read_csv(copy / "verdict.csv")
    table.assign(skill="no skill").to_csv(copy / "verdict.csv", index=False)
    text = Page(render(copy)).text
    assert text.count("No skill: no model forecasts better than the unconditional history.") == len(HORIZONS)
    table.assign(skill="").to_csv(copy / "verdict.csv", index=False)
    text = Page(render(copy)).text
    assert text.count("Skill against the unconditional history was not judged.") == len(HORIZONS)


def test_verdicts_that_differ_by_horizon(copy: Path) -> None:
    table = pd.read_csv(copy / "verdict.csv")
    table["verdict"] = "worse"
    table.loc[(table["model"] == "mlp") & (table["horizon"] == 5), ["verdict", "crps_ratio", "p_value"]] = [
        "better", 0.98765, 0.0123,
    ]  # fmt: skip
    table.to_csv(copy / "verdict.csv", index=False)
    text = Page(render(copy)).text
    assert "A model beats the best baseline at 5 sessions; at 1 and 21 none is shown to." in text
    assert "The CRPS of mlp is 1.23% lower than that of harx-fhs, the best baseline." in text
    assert "CRPS ratio 0.9877 · p 0.0123" in text


def test_champion_and_reason(page: Page, results: Path) -> None:
    reason = json.loads((results / "summary.json").read_text("utf-8"))["champion_reason"]
    assert f"Champion: {CHAMPION}. {reason}. Its CRPS ratio to the best baseline is " in page.text
    ratios = pd.read_csv(results / "verdict.csv").set_index(["model", "horizon"])["crps_ratio"][CHAMPION]
    assert f" is {ratios[1]:.4f} at 1, {ratios[5]:.4f} at 5 and {ratios[21]:.4f} at 21 sessions." in page.text


def test_a_reason_begins_a_sentence(copy: Path) -> None:
    change_summary(copy, champion_reason="too few days to tell models apart")
    assert f"Champion: {CHAMPION}. Too few days to tell models apart." in Page(render(copy)).text


def test_a_champion_that_is_the_best_baseline_is_set_against_the_nearest_model(copy: Path) -> None:
    change_summary(copy, champion=BASELINE)
    ratios = pd.read_csv(copy / "verdict.csv").groupby("model")["crps_ratio"].mean().drop(BASELINE)
    found = Page(render(copy))
    assert "The champion is itself the best baseline, so the nearest other model is shown." in found.text
    assert (
        f"CRPS of {ratios.idxmin()} over that of the best baseline, by year of the forecast" in found.tables
    )
    assert f"This is the champion, {BASELINE}." in found.text


def test_a_direction_too_good_is_called_a_fault(copy: Path) -> None:
    scores = pd.read_csv(copy / "scores.csv")
    pooled = (scores["symbol"] == "*") & (scores["metric"] == "direction") & (scores["model"] == "mlp")
    base = scores[(scores["symbol"] == "*") & (scores["metric"] == "direction_base_rate")]["value"].iloc[0]
    base = max(base, 1 - base)
    scores.loc[pooled, "value"] = base + 0.014
    scores.to_csv(copy / "scores.csv", index=False)
    assert "treat this as a fault" not in render(copy)
    scores.loc[pooled & (scores["horizon"] == 1), "value"] = base + 0.016
    scores.to_csv(copy / "scores.csv", index=False)
    assert "mlp calls the direction of one session right in" in render(copy)


def test_limits_and_reproduction(page: Page) -> None:
    for words in (
        "The mean and the direction of daily returns are hardly forecastable from prices.",
        "This is not advice",
        "forecaster run configs/quickstart.yaml",
        "9f2c4a7be01d5583",
        "51c0de77aa90",
        "name: quickstart",
        "2.21.0",
        "sqlite:///workspace/mlflow.db",
        "212 sessions, fewer than the 1,000",
        "range estimators fall back to Parkinson",
    ):
        assert words in page.text


# The form


def test_the_page_asks_nothing_of_the_network(html: str, page: Page) -> None:
    for tag, name, value in page.attributes:
        assert name not in ("src", "srcset", "action", "background", "poster", "data"), (tag, name, value)
        assert name != "href" or (value or "").startswith("#"), (tag, value)
        assert not name.startswith("on"), (tag, name, value)
    assert "@import" not in html[: html.index("</style>")]
    assert "url(" not in html[: html.index("</style>")]
    policy = next(
        value for _, name, value in page.attributes if name == "content" and "default-src" in str(value)
    )
    assert "default-src 'none'" in str(policy)
    code = [text for attributes, text in page.scripts if "type" not in attributes]
    assert len(code) == 2
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in code]
    assert re.findall("'sha256-([^']+)'", str(policy)) == digests


def test_tables_and_charts_say_what_they_are(page: Page) -> None:
    assert page.captions == len(page.tables)
    assert set(page.tables) == TRACED - {RECORD}
    assert set(page.scopes) == {"col", "colgroup", "row", "rowgroup"}
    ids = {value for _, name, value in page.attributes if name == "id"}
    charts = {value for _, name, value in page.attributes if name == "data-figure"}
    assert charts == set(page.figures())
    assert len(charts) == 2 + 5 * len(HORIZONS) + 3
    for chart in charts:
        assert {f"{chart}-title", f"{chart}-text"} <= ids
    assert "role" in {name for tag, name, value in page.attributes if tag == "div" and value == "img"}
    assert page.text.count("Does not show") == 8


def test_the_same_results_give_the_same_page(results: Path, html: str, tmp_path: Path) -> None:
    again = write_report(results, tmp_path / "again.html")
    assert again.read_text("utf-8") == html
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_importing_is_cheap_and_rendering_loads_no_model_library(results: Path, tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from forecaster.report import write_report
assert not {{"plotly", "pandas", "jinja2"}} & set(sys.modules), sorted(sys.modules)
write_report(Path({str(results)!r}), Path({str(tmp_path / "page.html")!r}))
assert not {{"tensorflow", "keras", "mlflow", "sqlalchemy"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", script], check=True)


# Hostile, missing and large input


def repeated(table: pd.DataFrame, symbols: list[str]) -> pd.DataFrame:
    rows = table.iloc[np.tile(np.arange(len(table)), len(symbols))]
    return rows.assign(symbol=np.repeat(np.array(symbols, dtype=object), len(table)))


def with_symbols(directory: Path, symbols: list[str]) -> None:
    """Rewrite a run as if it were about other symbols."""
    for name in ("latest.parquet", "recent_prices.parquet"):
        table = pd.read_parquet(directory / name)
        one = table[table["symbol"] == "SPX"]
        if name == "latest.parquet":
            one = one[one["model"] == CHAMPION]
        repeated(one, symbols).to_parquet(directory / name)
    scores = pd.read_csv(directory / "scores.csv")
    rates = scores[(scores["symbol"] == "SPX") & (scores["metric"] == "direction_base_rate")]
    pooled = scores[scores["symbol"] == "*"]
    pd.concat([pooled, repeated(rates, symbols)]).to_csv(directory / "scores.csv", index=False)
    change_summary(directory, symbols=symbols, job_yaml="symbols: " + json.dumps(symbols))


def with_hostile_names(directory: Path, *others: str) -> Path:
    with_symbols(directory, [*HOSTILE, *others])
    renamed = {CHAMPION: HOSTILE[0], "mlp": HOSTILE[3], BASELINE: "<b>&amp;</b>", KERNEL: HOSTILE[4]}
    renamed |= {"z": HOSTILE[3]}
    for path in directory.glob("*.csv"):
        table = pd.read_csv(path, dtype=str, keep_default_na=False).replace(renamed)
        for name in ("message", "action", "reason", "description", "code", "kind"):
            if name in table:
                table[name] = HOSTILE[0]
        table.to_csv(path, index=False)
    for name in ("latest.parquet", "forecasts.parquet"):
        pd.read_parquet(directory / name).replace({"model": renamed}).to_parquet(directory / name)
    texts = ("job", "champion_reason", "data_version", "code_version", "command", "created_at", "seed")
    change_summary(
        directory, champion=HOSTILE[0], best_baseline="<b>&amp;</b>", **dict.fromkeys(texts, HOSTILE[3])
    )
    change_summary(directory, versions={HOSTILE[0]: HOSTILE[3]}, mlflow={HOSTILE[3]: HOSTILE[0]})
    return directory


def test_hostile_names_are_text(copy: Path) -> None:
    html = render(with_hostile_names(copy))
    outside = re.sub(r"(?s)<script>/\*\*.*?</script>", "", html)
    assert "<script>alert" not in html
    assert "<img" not in outside
    page = Page(html)
    assert len(page.scripts) == 3
    assert {tag for tag, _, _ in page.attributes}.isdisjoint({"img", "iframe", "object"})
    rows = page.tables[FORECASTS][2:]
    assert [row[0].rsplit(" ", 3)[0] for row in rows[::3]] == list(HOSTILE)
    models = [row[0] for row in page.tables[LEADERBOARD]]
    assert {f"{HOSTILE[0]} champion", HOSTILE[3], "<b>&amp;</b> best baseline"} <= set(models)
    assert all("<" not in text for attributes, text in page.scripts if attributes.get("id") == "figures")
    drawn = json.dumps(page.figures())
    assert "&lt;script&gt;" in drawn
    assert "<script" not in drawn
    assert "<img" not in drawn


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    text = Page(render(copy)).text
    assert f"{name} is missing." in text
    assert "Limits" in text


@pytest.mark.parametrize("name", FILES)
def test_an_empty_or_broken_file_still_gives_a_page(copy: Path, name: str) -> None:
    path = copy / name
    if path.suffix == ".parquet":
        pd.read_parquet(path).iloc[:0].to_parquet(path)
    elif path.suffix == ".csv":
        path.write_text(path.read_text("utf-8").splitlines()[0] + "\n", encoding="utf-8")
    else:
        path.write_text("{}", encoding="utf-8")
    assert "Limits" in render(copy)
    path.write_text("", encoding="utf-8")
    text = Page(render(copy)).text
    assert "Limits" in text
    if name not in ("findings.csv", "failures.csv"):
        assert re.search(f"{name} (is empty|cannot be read)", text)
    if path.suffix == ".csv":
        path.write_text("other\n1\n", encoding="utf-8")
        text = Page(render(copy)).text
        assert f"{name} lacks the columns" in text
        # What cannot be read says nothing, least of all that all is well.
        if name == "failures.csv":
            assert "Whether symbols were left out is not known: failures.csv lacks the columns" in text
        if name == "findings.csv":
            assert "What the price checks found is not known: findings.csv lacks the columns" in text


def test_no_file_at_all_still_gives_a_page(tmp_path: Path) -> None:
    page = Page(render(tmp_path))
    for name in FILES:
        assert f"{name} is missing." in page.text
    assert "No verdict" in page.text
    assert "No champion is named in the results." in page.text
    assert page.figures() == {}


def test_a_directory_is_needed(tmp_path: Path) -> None:
    message = "a report is made from a folder of finished results. Received: .*nowhere"
    with pytest.raises(ParameterError, match=message):
        write_report(tmp_path / "nowhere", tmp_path / "report.html")


def test_scores_of_nan_are_gaps(copy: Path) -> None:
    for name in ("scores.csv", "verdict.csv"):
        table = pd.read_csv(copy / name)
        for column in {"value", "crps_ratio", "p_value", "smallest_detectable"} & set(table):
            table[column] = float("nan")
        table.to_csv(copy / name, index=False)
    latest = pd.read_parquet(copy / "latest.parquet").assign(close=float("nan"))
    latest.loc[latest["symbol"] == "WTI", "q0.5"] = float("nan")
    latest.to_parquet(copy / "latest.parquet")
    forecasts = pd.read_parquet(copy / "forecasts.parquet")
    forecasts.assign(y=float("nan")).to_parquet(copy / "forecasts.parquet")
    page = Page(render(copy))
    assert "nan" not in page.text.lower().replace("finance", "")
    assert "No CRPS ratio is known" in page.text
    assert "holds no known outcome of" in page.text
    assert "1 symbol has no last close: returns are shown, prices are not." in page.text
    assert "There is no forecast for WTI in the results" in page.text


def test_a_model_without_forecasts_is_listed_and_missed(copy: Path) -> None:
    models = pd.read_csv(copy / "models.csv")
    idle = models.head(1).assign(model="idle", description="Made no forecast")
    pd.concat([models, idle]).to_csv(copy / "models.csv", index=False)
    latest = pd.read_parquet(copy / "latest.parquet")
    latest[latest["model"] != CHAMPION].to_parquet(copy / "latest.parquet")
    forecasts = pd.read_parquet(copy / "forecasts.parquet")
    forecasts[forecasts["model"] != CHAMPION].to_parquet(copy / "forecasts.parquet")
    page = Page(render(copy))
    row = page.tables[LEADERBOARD][-1]
    assert row[:5] == ["idle", "– no verdict", "– –", "– –", "– –"]
    assert "The champion's forecasts are not in the results; these are made by" in page.text
    assert f"The forecasts of {CHAMPION} and of the best baseline are not both in the results" in page.text


def test_one_symbol_and_one_horizon(tmp_path: Path) -> None:
    directory = write_results(tmp_path / "one", ("SPX",), (5,), 300)
    page = Page(render(directory))
    assert [row[0] for row in page.tables["SPX"]][:2] == ["Sessions ahead", "Price, median"]
    assert all(len(row) == 2 for row in page.tables["SPX"])
    assert "at 5 sessions" in page.text
    assert len(page.tables[FORECASTS]) == 3


def test_verdict_missing_leaves_ratios_from_scores(copy: Path, results: Path) -> None:
    (copy / "verdict.csv").unlink()
    rows = Page(render(copy)).tables[LEADERBOARD][2:]
    verdict = pd.read_csv(results / "verdict.csv").set_index(["model", "horizon"])["crps_ratio"]
    for row in rows:
        name = re.split(" (?:champion|best)", row[0])[0]
        assert [cell.split(" ", 1) for cell in row[1:13:4]] == [
            [f"{verdict[name, h]:.4f}", "no verdict"] for h in HORIZONS
        ]


def test_tickers_that_look_like_values_stay_text(copy: Path) -> None:
    symbols = ["NA", "TRUE", "0700", "null"]
    with_symbols(copy, symbols)
    pd.DataFrame({"symbol": ["NaN"], "reason": ["None"]}).to_csv(copy / "failures.csv", index=False)
    page = Page(render(copy))
    rows = page.tables[FORECASTS][2:]
    assert [row[0].rsplit(" ", 3)[0] for row in rows[::3]] == symbols
    assert page.tables["Symbols left out, and why"][1:] == [["NaN", "None"]]
    assert not any(row[8] == style.MISSING for row in rows)


def test_a_thousand_symbols_stay_small(copy: Path) -> None:
    symbols = [f"SYMBOL-{index:04d}" for index in range(1_100)]
    with_symbols(copy, symbols)
    findings = pd.read_csv(copy / "findings.csv").head(1)
    pd.concat([findings.assign(symbol=symbol) for symbol in symbols]).to_csv(
        copy / "findings.csv", index=False
    )
    html = render(copy)
    assert len(html.encode()) < 0.97 * SIZE_LIMIT
    page = Page(html)
    rows = page.tables[FORECASTS][2:]
    assert len(rows) == 2_400
    assert [row[0][:11] for row in rows[::3]] == symbols[:800]
    assert "The first 800 of 1,100 symbols; all are in latest.parquet." in page.text
    assert "12 of 1,100 symbols are drawn, the first 12 of the job; all others are in the table." in page.text
    assert "The first 100 of 1,100; all are in findings.csv." in page.text


def test_one_broken_model_and_one_broken_quantile(copy: Path) -> None:
    verdict = pd.read_csv(copy / "verdict.csv")
    verdict.loc[verdict["model"] == "zero", "crps_ratio"] = 5_000.0
    verdict.to_csv(copy / "verdict.csv", index=False)
    latest = pd.read_parquet(copy / "latest.parquet")
    latest["q0.99"] = latest["q0.975"] = 2_000.0
    latest.to_parquet(copy / "latest.parquet")
    page = Page(render(copy))
    assert "5,000.0000" in page.text
    assert "lie beyond the right edge" in page.text
    assert page.figures()["figure-1"]["data"][1]["y"][1:] == [None] * 3


# The style

FINITE = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)


@given(FINITE)
def test_written_numbers_read_back(value: float) -> None:
    def read(text: str) -> float:
        return float(text.replace(",", "").rstrip("%"))

    assert abs(read(style.percent(value)) / 100 - value) <= 0.5000001e-4 + 1e-12 * abs(value)
    assert abs(read(style.signed_percent(value)) / 100 - value) <= 0.5000001e-4 + 1e-12 * abs(value)
    assert abs(read(style.ratio(value)) - value) <= 0.5000001e-4 + 1e-12 * abs(value)
    # Two decimals from one upwards; below it four significant digits, at most ten decimals.
    price_error = 0.005 if abs(value) >= 1 else max(0.0005 * abs(value), 0.5e-10)
    assert abs(read(style.price(value)) - value) <= 1.000001 * price_error
    for text in (style.percent(value), style.signed_percent(value), style.ratio(value)):
        assert text.startswith("-") == (value < 0 and read(text) != 0)
    assert style.signed_percent(value).startswith("+") == (read(style.percent(value)) > 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), None])
def test_what_is_no_number_is_a_dash(value: float | None) -> None:
    functions = (
        style.percent,
        style.signed_percent,
        style.ratio,
        style.price,
        style.count,
        style.seconds,
        style.p_value,
    )
    assert {function(value) for function in functions} == {style.MISSING}


def test_examples_of_numbers() -> None:
    assert style.percent(0.012345) == "1.23%"
    assert style.signed_percent(0.012345) == "+1.23%"
    assert style.signed_percent(-1e-9) == "0.00%"
    assert style.ratio(0.98765) == "0.9877"
    assert style.price(1234567.891) == "1,234,567.89"
    assert style.price(0.00123456) == "0.001235"
    assert style.p_value(1e-7) == "< 0.0001"
    assert style.p_value(0.05) == "0.0500"
    assert style.count(7391.0) == "7,391"
    assert style.seconds(61.84) == "61.8"
    assert style.seconds(1834.2) == "1,834"


@given(st.text())
def test_plotly_text_holds_no_markup(text: str) -> None:
    escaped = style.plotly_text(text)
    assert "<" not in escaped
    assert ">" not in escaped


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [style.LIGHT, style.DARK], ids=["light", "dark"])
def test_colours_are_readable(palette: style.Palette) -> None:
    for ground in (palette.page, palette.paper):
        assert contrast(palette.ink, ground) >= 7
        assert contrast(palette.muted, ground) >= 4.5
        assert contrast(palette.blue, ground) >= 4.5
        for mark in (palette.vermillion, palette.green, palette.grey):
            assert contrast(mark, ground) >= 3
    # In grey the bands still change towards the middle, and the close stands out of the innermost.
    steps = [contrast(band, palette.paper) for band in (palette.band_95, palette.band_80, palette.band_50)]
    assert steps[0] >= 1.15
    assert steps[1] >= 1.25 * steps[0]
    assert steps[2] >= 1.25 * steps[1]
    assert contrast(palette.ink, palette.band_50) >= 3


def test_every_light_colour_has_one_dark_one() -> None:
    assert len(style.dark_of_light()) == len(asdict(style.LIGHT))
    assert set(VERDICTS) == set(style.VERDICT_MARKS)
    assert len({glyph for glyph, _ in style.VERDICT_MARKS.values()}) == len(VERDICTS)


VERDICTS = ("better", "as good as", "cannot tell", "worse", "best baseline")


# The browser


def serious(found: AxeResults) -> list[str]:
    """Violations that shut readers out: the rule and where it is broken."""
    return [
        f"{violation['id']}: {node['target']}"
        for violation in found.response["violations"]
        if violation["impact"] in ("serious", "critical")
        for node in violation["nodes"]
    ]


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt-get install chromium")
@pytest.mark.parametrize(
    ("kind", "widths"), [("plain", (1440, 390)), ("hostile", (390,)), ("nothing", (1440,))]
)
def test_a_browser_shows_it_whole(kind: str, widths: tuple[int, ...], copy: Path, tmp_path: Path) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import Request, sync_playwright

    if kind == "plain":
        with_track_record(copy)
    if kind == "hostile":
        with_hostile_names(copy, *(f"S_{number}.L" for number in range(10)))
    if kind == "nothing":
        shutil.rmtree(copy)
        copy.mkdir()
    address = write_report(copy, tmp_path / "report.html").as_uri()
    faults: list[str] = []

    def note_request(request: Request) -> None:
        if not request.url.startswith(("file:", "data:", "blob:")):
            faults.append(f"request: {request.url}")

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=list(ARGUMENTS))
        for width in widths:
            view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme="light")
            view.on("console", lambda message: faults.append(f"console {message.type}: {message.text}"))
            view.on("pageerror", lambda error: faults.append(f"error: {error}"))
            view.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
            view.on("request", note_request)
            view.goto(address)
            charts = view.locator("[data-figure]")
            for mode, colours in (("light", style.LIGHT), ("dark", style.DARK)):
                view.emulate_media(color_scheme=mode)
                if charts.count():
                    view.locator("[data-drawn] .main-svg").nth(3 * charts.count() - 1).wait_for(
                        state="attached"
                    )
                assert view.locator("[data-drawn]").count() == charts.count()
                assert view.evaluate("document.documentElement.scrollWidth") == width
                page_colour = view.evaluate("getComputedStyle(document.body).backgroundColor")
                assert page_colour == "rgb({}, {}, {})".format(*bytes.fromhex(colours.page[1:]))
                papers = view.locator(".main-svg:first-child").evaluate_all(
                    "all => all.map(svg => svg.style.background)"
                )
                assert set(papers) <= {"rgb({}, {}, {})".format(*bytes.fromhex(colours.paper[1:]))}
                view.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
                # Each mode once, each width once: the check takes as long as all else together.
                if (mode == "light") == (width == max(widths)):
                    assert serious(Axe().run(view)) == []
            if kind == "hostile":
                ticks = {tick.rstrip("…") for tick in view.locator(".ytick text").all_text_contents()}
                assert HOSTILE[0][:23] in ticks
                # By keyboard alone: what is typed chooses the symbols of the table.
                view.locator("#filter").press_sequentially("s_")
                assert view.locator("#filter-status").text_content() == "10 of 15 symbols"
                view.locator("#filter").press_sequentially("7.l")
                assert view.locator("#forecast-table tbody:visible th").all_text_contents()[0][:5] == "S_7.L"
            if kind == "plain":
                # The reader's choice wins over the system's.
                view.get_by_role("button", name="Light mode").click()
                assert view.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
            view.close()
        browser.close()
    assert faults == []


@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt-get install chromium")
def test_a_pdf_is_printed(copy: Path) -> None:
    html = write_report(copy, copy / "page" / "report.html")
    pdf = write_pdf(html, copy / "new" / "report.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 8
    assert [path.name for path in (copy / "new").iterdir()] == ["report.pdf"]
    # The charts are there: without its script the same page has far fewer strokes.
    html.write_text(re.sub("(?s)<script>.*?</script>", "", html.read_text("utf-8")), encoding="utf-8")
    assert len(pdf) > 1.5 * len(write_pdf(html, copy / "report.pdf").read_bytes())


def without_browser(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_without_a_browser_the_pdf_is_refused_and_the_page_is_there(copy: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    script = f"from pipelines.cli import app; app(['report', {str(copy)!r}, '--pdf'])"
    run = without_browser(script, bare)
    assert run.returncode == 1
    assert run.stdout == f"Report: {copy / 'report.html'}\n"
    assert run.stderr == (
        "forecaster: a PDF needs Chromium, Chrome or Edge on the path. Received: none; install one, or print "
        f"{copy / 'report.html'} from any browser\n"
    )


def test_a_browser_that_does_not_print_is_said(copy: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "chromium").write_text("#!/bin/sh\necho no display >&2\nexit 7\n", encoding="utf-8")
    (bare / "chromium").chmod(0o755)
    (copy / "report.pdf").write_bytes(b"older")
    run = without_browser(f"from pipelines.cli import app; app(['report', {str(copy)!r}, '--pdf'])", bare)
    assert run.returncode == 1
    assert "(exit code 7): no display; print it from any browser" in run.stderr
    assert (copy / "report.pdf").read_bytes() == b"older"
    assert not list(copy.glob("*.part"))


def test_an_evening_is_judged_by_the_backtest_of_its_champion(results: Path, tmp_path: Path) -> None:
    evening = tmp_path / "evening"
    evening.mkdir()
    latest = pd.read_parquet(results / "latest.parquet")
    latest["late"] = latest["symbol"] == "WTI"
    # The evening's own rows, as the ledger gives them, are no backtest.
    latest.to_parquet(evening / "forecasts.parquet")
    summary = {"champion": CHAMPION, "best_baseline": BASELINE, "backtest_folder": str(results)}
    (evening / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    page = Page(render(evening))
    whole = Page(render(Path(shutil.copytree(results, tmp_path / "whole"))))
    for caption in (LEADERBOARD, FORECASTS, YEARS, REGIME):
        assert page.tables[caption] == whole.tables[caption]
    assert (
        f"{len(HORIZONS)} forecasts were issued after the first session to be forecast had opened"
        in page.text
    )
    assert "Backtest2008-01-02 to" in page.text.replace("\n", "")
    # A stand-in, fitted for the evening because no version could be used, has no backtest.
    (evening / "summary.json").write_text(json.dumps({"backtest_folder": ""}), encoding="utf-8")
    text = Page(render(evening)).text
    assert "No registered model could be used on this evening, so no backtest judges its forecasts." in text
    assert "cannot be read" not in text
    assert "verdict.csv is missing" not in text


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="no Chromium is installed: apt-get install chromium")
def test_pictures_of_the_documentation_are_taken_by_its_command(copy: Path, tmp_path: Path) -> None:
    script = ROOT / "docs" / "make_pictures.py"
    code = f"import runpy; from pathlib import Path; run = runpy.run_path({str(script)!r})['main']; "
    code += f"run(Path({str(copy)!r}), Path({str(tmp_path / 'pictures')!r}))"
    subprocess.run([sys.executable, "-c", code], check=True)
    taken = {path.name for path in (tmp_path / "pictures").iterdir()}
    kept = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    page = (ROOT / "docs" / "report.md").read_text("utf-8")
    # Each is told in words of some length too.
    shown = re.findall(r"!\[[^\]]{40,}\]\(pictures/([^)]+)\)", page)
    assert taken == kept.keys() == set(shown)
    assert max(kept.values()) < 300_000
    assert "python docs/make_pictures.py workspace/quickstart" in page


@pytest.mark.slow
def test_a_run_of_full_length(tmp_path: Path) -> None:
    html = render(write_results(tmp_path / "full"))
    assert len(html.encode()) < SIZE_LIMIT
    page = Page(html)
    assert len(page.tables[LEADERBOARD]) == 2 + len(MODELS)
    assert len(page.figures()) == 3 + 5 * len(HORIZONS) + 3
