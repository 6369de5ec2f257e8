"""How many configurations were tried on a test span: each once, whatever it was called and however often."""

from __future__ import annotations

from pathlib import Path

from forecaster.job import Job, parse_job

JOB = """
name: {name}
prices: {{kind: sample}}
lookback: {lookback}
backtest: {{start: {start}, refit_every: 252}}
models:
  - {{kind: ewma_fhs, decay: {decay}}}
  - {{kind: historical}}
  - {{kind: combination, name: {both}, members: [ewma_fhs, historical]}}
seed: {seed}
"""
USUAL = {"name": "a", "lookback": 32, "start": "2010-01-01", "decay": 0.94, "both": "both", "seed": 7}


def job_of(**changed: object) -> Job:
    return parse_job(JOB.format(**(USUAL | changed)), "job.yaml")


def test_a_configuration_is_what_makes_the_model_and_not_its_name() -> None:
    usual = job_of()
    for same in ({"name": "b"}, {"start": "2012-01-01"}):
        assert job_of(**same).configuration("ewma_fhs") == usual.configuration("ewma_fhs")
    assert job_of(both="mean").configuration("mean") == usual.configuration("both")
    assert len({usual.configuration(model.name) for model in usual.models}) == 3
    for other in ({"decay": 0.97}, {"lookback": 40}, {"seed": 8}):
        assert job_of(**other).configuration("ewma_fhs") != usual.configuration("ewma_fhs")
        # A combination is another one with any of its members.
        assert job_of(**other).configuration("both") != usual.configuration("both")
    assert job_of(decay=0.97).configuration("historical") == usual.configuration("historical")
    # By which close a covariate counts as known makes another forecast of it.
    closes = parse_job(JOB.format(**USUAL) + "calendars: {SP500: XNYS, NASDAQ: XNYS, WTI: CMES}", "job.yaml")
    assert closes.configuration("ewma_fhs") != usual.configuration("ewma_fhs")


def test_the_tracking_store_counts_them(tmp_path: Path) -> None:
    from forecaster.tracking import Tracker

    trackers = {
        name: Tracker(tmp_path, f"forecaster/{name}") for name in ("us/backtest", "us/train", "eu/backtest")
    }

    def run(where: str, universe: str, start: str, end: str, *configurations: str) -> None:
        with trackers[where].run("job", {}, {}) as run_id:
            for one in configurations:
                tags = {
                    "forecaster.universe": universe,
                    "forecaster.test_start": start,
                    "forecaster.test_end": end,
                    "forecaster.configuration": one,
                }
                child = trackers[where].record(run_id, one, {}, {}, tags)
                trackers[where].record(child, "a refit", {}, {}, {})

    assert trackers["us/backtest"].tried("U", "2005-01-01", "2006-01-01").configurations == 0
    run("us/backtest", "U", "2005-01-03", "2010-12-31", "one", "two")
    run("us/train", "U", "2009-01-01", "2012-12-31", "two", "three")
    run("eu/backtest", "U", "2012-12-31", "2013-12-31", "four")
    run("us/backtest", "other", "2005-01-03", "2010-12-31", "five")
    for start, end, expected in (
        ("2005-01-01", "2006-01-01", (2, 1)),
        ("2010-12-31", "2011-01-31", (3, 2)),
        ("2012-12-31", "2012-12-31", (3, 2)),
        ("2001-01-01", "2020-01-01", (4, 3)),
        ("2014-01-01", "2020-01-01", (0, 0)),
    ):
        counted = {tracker.tried("U", start, end) for tracker in trackers.values()}
        assert [(found.configurations, found.runs) for found in counted] == [expected]


def test_every_page_of_the_store_is_counted() -> None:
    from forecaster.tracking.tracker import _pages

    class Page(list[int]):
        token: str | None = None

    def search(page_token: str | None) -> Page:
        start = int(page_token or 0)
        page = Page(range(start, start + 3))
        page.token = str(start + 3) if start < 6 else None
        return page

    assert list(_pages(search)) == list(range(9))
