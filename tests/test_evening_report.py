"""The report of an evening: what was issued, judged by the champion's backtest and by the ledger."""

from __future__ import annotations

import datetime
import math
from pathlib import Path

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
