"""The report of an evening: what was issued, judged by the champion's backtest and by the ledger."""

from __future__ import annotations

import datetime
import json
import math
import shutil
from html import unescape
from pathlib import Path

import pandas as pd
import pytest

from forecaster.job import load_job
from forecaster.ledger import Ledger
from forecaster.report import write_report
from pipelines.daily import daily_job

JOB = """
name: eve
prices: {{kind: sample, symbols: [SP500, NASDAQ]}}
calendars: {{SP500: XNYS, NASDAQ: XNYS}}
workspace: {folder}/workspace
horizons: [1, 5]
lookback: 8
train_every: 200
backtest: {{start: 2016-06-01, refit_every: 504, rolling: 500}}
models: [{{kind: historical}}, {{kind: ewma_fhs}}]
"""
DAYS = [datetime.date(2018, 6, day) for day in (4, 5, 6, 7)]


def evening(path: Path, day: datetime.date) -> None:
    now = datetime.datetime.combine(day, datetime.time(22), datetime.UTC)
    night = daily_job(load_job(path), path, day, lambda *_: None, clock=lambda: now)
    assert night.steps["report"] == "done"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evenings")
    path = folder / "job.yaml"
    path.write_text(JOB.format(folder=folder), encoding="utf-8")
    for day in (*DAYS[:2], DAYS[3], DAYS[2]):
        evening(path, day)
    return folder / "workspace"


def test_the_newest_evening_has_the_report(workspace: Path) -> None:
    evenings = workspace / "eve" / "evenings"
    page = (evenings / "report.html").read_text("utf-8")
    # 7 June; the 6th was done after it.
    assert "on 2018-06-07" in page
    assert "<b>Champion: ewma_<wbr>fhs.</b>" in page
    assert f"forecaster daily {workspace.parent / 'job.yaml'} --as-of 2018-06-07" in page
    assert "A model beats" in page or "No model is shown" in page
    assert "No verdict" not in page
    assert not list(evenings.glob("*/report.html"))


def test_its_numbers_are_those_of_the_ledger(workspace: Path, tmp_path: Path) -> None:
    day = workspace / "eve" / "evenings" / str(DAYS[3])
    with Ledger.open(workspace / "ledger.db") as ledger:
        scores, issued = ledger.scores("eve"), ledger.forecasts("eve", start=DAYS[3], end=DAYS[3])
    page = write_report(day, tmp_path / "report.html").read_text("utf-8")
    assert page == (workspace / "eve" / "evenings" / "report.html").read_text("utf-8")
    mine = (scores["model"] == "ewma_fhs") & (scores["horizon"] == 1)
    part = scores[mine & (scores["origin"] < "2018-06-06")]
    assert f"<td>{len(part)}<small><span>2018-06-04</span> <span>2018-06-05</span></small></td>" in page
    assert f'<td class="begin">{100 * part["crps"].mean():.3f}%<small>' in page
    for row in issued[issued["model"] == "ewma_fhs"].to_dict("records"):
        assert f"<td>{row['close'] * math.exp(row['q0.5']):,.2f}</td>" in page


def test_it_is_the_same_where_the_workspace_is_moved(workspace: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(workspace, tmp_path / "moved"))
    day = moved / "eve" / "evenings" / str(DAYS[3])
    told = json.loads((day / "summary.json").read_text("utf-8"))["backtest_folder"]
    assert told == f"../../trainings/{DAYS[0]}"
    page = write_report(day, tmp_path / "report.html").read_text("utf-8")
    assert page == (workspace / "eve" / "evenings" / "report.html").read_text("utf-8")


def test_the_dashboard_of_a_job_that_only_ran_evenings(workspace: Path, tmp_path: Path) -> None:
    pytest.importorskip("streamlit", reason="the dashboard is an extra")
    from streamlit.testing.v1 import AppTest

    from dashboards import sources
    from dashboards.app import PAGES

    def script(config: str, name: str) -> None:
        from pathlib import Path

        from dashboards.app import PAGES, show

        show(PAGES[name][1], Path(config), None)

    def text(config: Path) -> dict[str, str]:
        found = {}
        for name in PAGES:
            page = AppTest.from_function(script, args=(str(config), name), default_timeout=60).run()
            assert not page.exception, name
            found[name] = unescape("".join(part.proto.body for part in page.get("html")))
        return found

    config = workspace.parent / "job.yaml"
    place = sources.place_of(config)
    told = text(config)
    with Ledger.open(place.ledger) as ledger:
        record, issued = ledger.track_record("eve"), ledger.latest("eve")
    assert record["forecasts"].sum() > 0
    for row in record.to_dict("records"):
        assert f"{100 * row['crps']:.3f}%" in told["track-record"]
    assert "forecasts are late" not in told["forecasts"] + told["today"]
    assert "These forecasts are old: the last origin is 2018-06-07" in told["today"]
    assert "sessions ago" in told["today"]
    # The backtest is that of the evening's training.
    assert "Champion ★ ewma_fhs" in told["leaderboard"]
    assert "Coverage by year" in told["calibration"]
    # The fan begins with the closes of the evening, the last of which is the one forecast from.
    closes = sources.closes_of(place)
    last = closes[closes["symbol"] == "SP500"].iloc[-1]
    assert len(closes) == 2 * 130
    assert str(last["session"].date()) == str(DAYS[3])
    assert last["close"] == pytest.approx(issued.loc[issued["symbol"] == "SP500", "close"].iloc[0], rel=1e-6)
    # Returns go on before them, from the outcomes that the backtest was scored on, without a gap.
    returns = sources.returns_of(place, "SP500")
    assert len(returns) > 400
    assert returns.index[-1] == last["session"]
    assert returns.index.is_unique
    assert pd.Series(returns.index).diff().dt.days.max() <= 5

    # Without the ledger the record is that of the newest evening's folder, up to that evening.
    Path(shutil.copytree(workspace, tmp_path / "workspace") / "ledger.db").unlink()
    alone = tmp_path / "job.yaml"
    alone.write_text(JOB.format(folder=tmp_path), encoding="utf-8")
    told = text(alone)
    assert "There is no ledger yet" in told["track-record"]
    for row in record.to_dict("records"):
        assert f"{100 * row['crps']:.3f}%" in told["track-record"]


def test_late_forecasts_are_said(workspace: Path, tmp_path: Path) -> None:
    pytest.importorskip("streamlit", reason="the dashboard is an extra")
    from dashboards.sources import late_words, newest, place_of
    from dashboards.views.track_record import nothing_scored

    assert late_words(newest(place_of(workspace.parent / "job.yaml")).table) == ""
    Path(shutil.copytree(workspace, tmp_path / "workspace") / "ledger.db").unlink()
    config = tmp_path / "job.yaml"
    config.write_text(JOB.format(folder=tmp_path), encoding="utf-8")
    # Done today: years after the session that it forecasts.
    night = daily_job(load_job(config), config, datetime.date(2018, 6, 8), lambda *_: None)
    assert night.steps["forecast"] == "done"
    place = place_of(config)
    count = len(newest(place).table)
    assert late_words(newest(place).table).startswith(f"{count} of these {count} forecasts are late: issued")
    assert "are all late" in nothing_scored(place)
