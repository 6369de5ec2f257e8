"""Which evenings a job has: by real calendars, with early closes, holidays and clocks that change."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from forecaster.errors import JobError, ParameterError
from forecaster.job import Job, parse_job
from forecaster.ledger import Ledger
from pipelines.daily import STEPS
from pipelines.evening import evening_of
from pipelines.schedule import Evenings, evenings_of, unfinished
from pipelines.serve import SessionTrigger


def job_of(prices: str, more: str = "") -> Job:
    return parse_job(
        f"name: us\nprices: {{{prices}}}\nbacktest: {{start: 2008-01-01}}\nmodels: [{{kind: zero}}]\n{more}",
        "job.yaml",
    )


def new_york(more: str = "") -> Job:
    return job_of("kind: sample", f"schedule: {{calendar: XNYS{more}}}")


def utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC)


def day(text: str) -> datetime.date:
    return datetime.date.fromisoformat(text)


@pytest.mark.parametrize(
    ("now", "session", "begins"),
    [
        ("2024-01-10 12:00", "2024-01-10", "2024-01-10 21:45"),
        ("2024-01-10 21:45", "2024-01-11", "2024-01-11 21:45"),
        ("2024-07-10 12:00", "2024-07-10", "2024-07-10 20:45"),  # summer time
        ("2024-03-08 23:00", "2024-03-11", "2024-03-11 20:45"),  # over a weekend on which the clock changes
        ("2024-11-27 23:00", "2024-11-29", "2024-11-29 18:45"),  # Thanksgiving, then an early close
        ("2023-12-22 23:00", "2023-12-26", "2023-12-26 21:45"),  # Christmas on a Monday
        ("2001-09-10 21:00", "2001-09-17", "2001-09-17 20:45"),  # closed for four sessions
    ],
)
def test_an_evening_begins_after_the_close(now: str, session: str, begins: str) -> None:
    assert evenings_of(new_york()).next_after(utc(now)) == (day(session), utc(begins))


def test_minutes_after_the_close_are_those_of_the_job() -> None:
    found = evenings_of(new_york(", minutes_after_close: 600")).next_after(utc("2024-01-10 12:00"))
    # Ten hours after a close lie on the next day in UTC, and before them lies the evening of the day before.
    assert found == (day("2024-01-10"), utc("2024-01-11 07:00"))
    assert evenings_of(new_york(", minutes_after_close: 600")).next_after(utc("2024-01-10 06:00")) == (
        day("2024-01-09"),
        utc("2024-01-10 07:00"),
    )


def test_the_last_of_several_exchanges_counts() -> None:
    job = job_of("kind: yahoo, symbols: [AAPL, MSFT, 7203.T, SAP.DE]")
    evenings = evenings_of(job)
    assert set(evenings.zones) == {"America/New_York", "Asia/Tokyo", "Europe/Berlin"}
    assert evenings.next_after(utc("2024-01-10 01:00")) == (day("2024-01-10"), utc("2024-01-10 21:45"))
    # New York has a holiday and Tokyo and Frankfurt have a session: Frankfurt closes last.
    assert evenings.next_after(utc("2024-07-04 01:00")) == (day("2024-07-04"), utc("2024-07-04 16:15"))


def test_the_trigger_fires_at_every_evening_once() -> None:
    trigger = SessionTrigger(evenings_of(new_york()))
    now, fired, before = utc("2024-11-25 00:00"), [], None
    for _ in range(4):
        before = trigger.get_next_fire_time(before, now)
        assert before is not None
        fired.append(f"{before:%m-%d %H:%M}")
        now = before
    assert fired == ["11-25 21:45", "11-26 21:45", "11-27 21:45", "11-29 18:45"]
    # After a sleep nothing that is over is fired again.
    assert trigger.get_next_fire_time(utc("2024-11-25 21:45"), utc("2024-11-30 09:00")) == utc(
        "2024-12-02 21:45"
    )


def test_a_calendar_that_ends_has_no_next_evening() -> None:
    evenings = evenings_of(new_york())
    assert evenings.next_after(utc("2049-12-31 23:59")) is None
    assert SessionTrigger(evenings).get_next_fire_time(None, utc("2049-12-31 23:59")) is None


def test_evenings_that_have_begun_are_the_last_sessions() -> None:
    evenings = evenings_of(new_york())
    before = evenings.begun(utc("2024-01-16 21:44"), 3)
    assert before == [day("2024-01-10"), day("2024-01-11"), day("2024-01-12")]  # the 15th is a holiday
    assert evenings.begun(utc("2024-01-16 21:45"), 3) == [*before[1:], day("2024-01-16")]


def test_a_job_without_a_calendar_says_what_to_name() -> None:
    with pytest.raises(
        JobError, match=r"us: a schedule follows the sessions .* `schedule: \{calendar: XNYS\}`"
    ):
        evenings_of(job_of("kind: sample"))
    with pytest.raises(ParameterError, match="a calendar must be one that exchange_calendars knows"):
        evenings_of(job_of("kind: sample", "schedule: {calendar: NYSE2}"))


# --- what is still to be done ----------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


def do(ledger: Ledger, as_of: str, fail: str | None = None, pending: str | None = None) -> None:
    run = ledger.start_run("us", job_hash="h", yaml="name: us", as_of=day(as_of), steps=tuple(STEPS))
    for name in STEPS:
        if name == pending:
            return
        with run.step(name, code_version="c") as step:
            if step is None:
                continue
            if name == fail:
                step.fail("some symbols")
            elif name == "ingest":
                step.skip("nothing to do")


NOW = utc("2024-01-12 22:00")


def left(ledger: Ledger, now: datetime.datetime = NOW, job: Job | None = None) -> list[str]:
    job = job or new_york()
    return [str(session) for session in unfinished(job, ledger, evenings_of(job), now)]


def test_a_new_job_begins_with_the_last_session(ledger: Ledger) -> None:
    assert left(ledger) == ["2024-01-12"]
    assert left(ledger, utc("2024-01-12 21:00")) == ["2024-01-11"]


def test_missed_evenings_are_done_and_those_that_are_done_are_not(ledger: Ledger) -> None:
    do(ledger, "2024-01-08")
    do(ledger, "2024-01-10")
    assert left(ledger) == ["2024-01-09", "2024-01-11", "2024-01-12"]
    do(ledger, "2024-01-12")
    assert left(ledger) == ["2024-01-09", "2024-01-11"]


def test_an_evening_that_failed_or_was_not_finished_is_to_be_done(ledger: Ledger) -> None:
    do(ledger, "2024-01-10")
    do(ledger, "2024-01-11", fail="forecast")
    do(ledger, "2024-01-12", pending="score")
    assert left(ledger) == ["2024-01-11", "2024-01-12"]
    do(ledger, "2024-01-11")
    do(ledger, "2024-01-12")
    assert left(ledger) == []


def test_nothing_is_done_before_the_first_evening_nor_too_long_ago(ledger: Ledger) -> None:
    do(ledger, "2024-01-11")
    assert left(ledger) == ["2024-01-12"]
    do(ledger, "2023-11-01")
    assert left(ledger) == ["2024-01-08", "2024-01-09", "2024-01-10", "2024-01-12"]
    assert left(ledger, job=new_york(", catch_up: 1")) == ["2024-01-12"]


def test_a_part_of_an_evening_that_was_asked_for_is_no_evening(ledger: Ledger) -> None:
    do(ledger, "2024-01-11")
    for part in (("ingest",), ("forecast", "score")):
        run = ledger.start_run("us", job_hash="h", yaml="name: us", as_of=day("2024-01-12"), steps=part)
        for name in part:
            with run.step(name, code_version="c"):
                pass
        assert left(ledger) == ["2024-01-12"]


def test_the_evening_of_a_moment_is_a_session_also_where_only_calendars_name_symbols() -> None:
    saturday = utc("2024-01-13 12:00")
    files = job_of("kind: files, path: prices.csv", "calendars: {SP500: XNYS}")
    assert evening_of(files, saturday) == day("2024-01-12")
    assert evening_of(job_of("kind: files, path: prices.csv"), saturday) == day("2024-01-13")


def test_evenings_keep_to_the_sessions_of_their_calendars() -> None:
    from forecaster.calendars import Calendars

    evenings = Evenings(Calendars({"XNYS": "XNYS"}), ("XNYS",), 30)
    found = evenings.between(day("2024-01-01"), day("2024-01-31"))
    assert [session for session, _ in found] == [
        stamp.date() for stamp in Calendars().sessions("AAPL", day("2024-01-01"), day("2024-01-31"))
    ]
    assert all(pd.Timestamp(begin).tzinfo is not None for _, begin in found)
