"""Prices through the store, by the commands as a user types them: nothing lost, doubled, or said wrongly."""

from __future__ import annotations

import contextlib
import datetime
import importlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest_processes import forked, run_command
from typer.testing import CliRunner, Result
from yahoo_server import Bar, Fault, Listing, YahooServer

from forecaster.calendars import Calendars
from forecaster.prices.base import price_table
from forecaster.prices.store import Fetch, PriceStore
from pipelines.cli import app
from pipelines.data import forecasts_that_saw

TOTALS = ["symbols", "fetched", "fresh", "failed", "added", "changed", "removed", "quarantined", "released"]
JOB = """
name: desk
prices: {prices}
store: {folder}/store
workspace: {folder}/workspace
horizons: [1]
lookback: 8
backtest: {{start: 2024-03-01, refit_every: 30}}
models: [{{kind: zero}}, {{kind: historical}}]
{more}
"""


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object, code: int = 0) -> str:
    """Run a command, see that it ends with this code and without a traceback, and give what it printed."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.stdout


def complaint(*arguments: object, code: int = 2) -> str:
    """Run a command that fails, and give the one line that says why."""
    result = call(*arguments)
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    return line.removeprefix("forecaster: ")


def totals(printed: str) -> dict[str, int]:
    """Numbers of the summary of an ingest, but for those that are zero."""
    lines = printed.splitlines()
    place = next(number for number, line in enumerate(lines) if line.split() == TOTALS)
    numbers = [int(word.replace(",", "")) for word in lines[place + 1].split()]
    return {name: number for name, number in zip(TOTALS, numbers, strict=True) if number}


def write_job(folder: Path, prices: str = "{kind: files, path: prices.csv}", more: str = "") -> Path:
    path = folder / "job.yaml"
    path.write_text(JOB.format(prices=prices, folder=folder, more=more))
    return path


def history(symbol: str, sessions: int = 120, seed: int = 0) -> pd.DataFrame:
    generator = np.random.default_rng([seed, *symbol.encode()])
    close = 50 * np.exp(np.cumsum(generator.normal(0, 0.01, sessions)))
    days = pd.bdate_range("2024-01-01", periods=sessions).strftime("%Y-%m-%d")
    return pd.DataFrame({"symbol": symbol, "session": days, "close": close.round(2)})


def write_prices(folder: Path, *tables: pd.DataFrame) -> None:
    pd.concat(tables).to_csv(folder / "prices.csv", index=False)


def stored(folder: Path) -> dict[str, pd.DataFrame]:
    return PriceStore(str(folder / "store")).read().frames


def test_a_restated_file_is_a_diff_a_quarantine_and_a_decision(tmp_path: Path) -> None:
    """The life of a store: two fetches, what changed, what waits, what was settled, what was known."""
    job, tables = write_job(tmp_path), [history("NO"), history("0700")]
    write_prices(tmp_path, *tables)
    first = done("ingest", job)
    assert totals(first) == {"symbols": 2, "fetched": 2, "added": 240}
    assert first.splitlines()[0] == f"Price store: {tmp_path}/store"
    assert totals(done("ingest", job)) == {"symbols": 2, "fetched": 2}
    done("forecast", job, "--output", tmp_path / "then")
    known_at = json.loads((tmp_path / "then" / "provenance.json").read_text())["store"]["known_at"]

    tables[0].loc[50, "close"] += 1
    tables[0].loc[60, "close"] = -36.98
    tables[1].loc[119, "close"] *= 100
    tables[1] = tables[1].drop(index=70)
    tables.append(history("LATE"))
    write_prices(tmp_path, *tables)
    second = done("ingest", job)
    assert totals(second) == {
        "symbols": 3, "fetched": 3, "added": 120, "changed": 3, "removed": 1, "quarantined": 2,
    }  # fmt: skip
    assert "quarantined NO 2024-03-25: non-positive-price" in second
    assert "quarantined 0700 2024-06-14: unit-slip" in second
    assert "restated sessions: 0700 2, NO 2; `forecaster data diff` shows them" in second

    done("data", "diff", job, "--output", tmp_path / "diff.csv")
    diff = pd.read_csv(tmp_path / "diff.csv", dtype={"symbol": str}).set_index(["symbol", "session"])
    assert set(diff.index) == {
        ("NO", "2024-03-11"), ("NO", "2024-03-25"), ("0700", "2024-06-14"), ("0700", "2024-04-08"),
    }  # fmt: skip
    assert diff.loc[("NO", "2024-03-11"), "new"].item() == tables[0].loc[50, "close"]
    seen = done("data", "diff", job, "--symbols", "NO", "--results", tmp_path / "then")
    assert f"{tmp_path}/then: 1 forecasts of NO saw old values, of origins 2024-06-14 to 2024-06-14" in seen
    # Results that say they were made from another store: it may be this one by another path, or not.
    shutil.copytree(tmp_path / "then", tmp_path / "other")
    record = json.loads((tmp_path / "other" / "provenance.json").read_text())
    record["store"]["url"] = "/mnt/prices"
    (tmp_path / "other" / "provenance.json").write_text(json.dumps(record))
    told = call("data", "diff", job, "--results", tmp_path / "then", "--results", tmp_path / "other").stderr
    assert told == (
        f"warning: {tmp_path}/other: its forecasts were made from the store /mnt/prices, this is "
        f"{tmp_path}/store; what follows of them is true if both are the same\n"
    )

    waiting = done("data", "quarantine", job)
    assert re.search(r"NO +2024-03-25 +-36.98 .* non-positive-price", waiting)
    assert complaint("data", "accept", job, "NO", "2024-03-25") == (
        "NO 2024-03-25 cannot be accepted, for no return can be taken of it (non-positive-price); reject it, "
        "or correct it at the source and ingest again"
    )
    assert done("data", "reject", job, "NO", "2024-03-25") == "NO 2024-03-25: rejected\n"
    assert (
        done("data", "accept", job, "0700", "2024-06-14", "--reason", "pence")
        == "0700 2024-06-14: accepted\n"
    )
    assert done("data", "accept", job, "0700", "2024-06-14") == "0700 2024-06-14: was already accepted\n"
    # A decision stands when the same comes again.
    assert totals(done("ingest", job)) == {"symbols": 3, "fetched": 3}
    frames = stored(tmp_path)
    assert frames["0700"]["close"].iloc[-1] == tables[1]["close"].iloc[-1]
    assert pd.Timestamp("2024-03-25") not in frames["NO"].index
    assert pd.Timestamp("2024-04-08") not in frames["0700"].index
    status = done("data", "status", job)
    assert re.search(r"NO +119 2024-01-01 2024-06-14 .* 0 +2 *\n", status)

    # What was known then is still known, compacted or not, and gives the same forecasts bit for bit.
    assert "files became" in done("data", "compact", job)
    done("forecast", job, "--output", tmp_path / "again", "--known-at", known_at)
    for name in ("forecasts.parquet", "findings.csv", "failures.csv", "quarantine.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "then" / name).read_bytes()
    provenances = [
        json.loads((tmp_path / name / "provenance.json").read_text()) for name in ("then", "again")
    ]
    assert provenances[0]["data_version"] == provenances[1]["data_version"]
    assert provenances[1]["store"]["known_at"] == known_at


def test_a_quarantined_session_is_left_out_and_said(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    table = history("WTI")
    table.loc[60, "close"] = -36.98
    write_prices(tmp_path, table, history("B"))
    done("ingest", job)
    by_store = call("forecast", job, "--output", tmp_path / "by-store")
    direct = tmp_path / "direct.yaml"
    direct.write_text(job.read_text().replace(f"store: {tmp_path}/store", ""))
    by_file = call("forecast", direct, "--output", tmp_path / "by-file")
    for result, name in ((by_store, "by-store"), (by_file, "by-file")):
        assert result.exit_code == 0
        (line,) = [line for line in result.stderr.splitlines() if "warning: WTI: " in line]
        assert "2024-03-25" in line
        assert "non-positive-price" in line or "it is -36.98" in line
        held = pd.read_csv(tmp_path / name / "quarantine.csv")
        assert held[["symbol", "session", "close", "codes"]].to_numpy().tolist() == [
            ["WTI", "2024-03-25", -36.98, "non-positive-price"]
        ]
        assert json.loads((tmp_path / name / "provenance.json").read_text())["quarantined"] == 1
    forecasts = [(tmp_path / name / "forecasts.parquet").read_bytes() for name in ("by-store", "by-file")]
    assert forecasts[0] == forecasts[1]
    assert "warning: sessions before the first fetch" in by_store.stderr
    assert "warning: sessions before the first fetch" not in by_file.stderr


def test_what_was_held_back_is_read_again_as_it_was_known(tmp_path: Path) -> None:
    """A true split on a session without a usable close, and a split that never was."""
    job, table = write_job(tmp_path), history("A")
    table["split"], table["dividend"] = 1.0, 0.0
    table.loc[60:, "close"] /= 2
    table.loc[60, "split"], table.loc[80, "split"] = 2.0, 4.0
    right = table.loc[60, "close"]
    table.loc[60, "close"] = -1.0
    write_prices(tmp_path, table)

    def forecast(name: str, *more: str) -> bytes:
        done("forecast", job, "--output", tmp_path / name, *more)
        codes = set(pd.read_csv(tmp_path / name / "findings.csv")["code"])
        assert not {"jump-without-action", "jump-with-action", "split-missing"} & codes
        return (tmp_path / name / "forecasts.parquet").read_bytes()

    assert totals(done("ingest", job))["quarantined"] == 2
    first = forecast("first")
    known_at = json.loads((tmp_path / "first" / "provenance.json").read_text())["store"]["known_at"]
    for session in ("2024-03-25", "2024-04-22"):
        done("data", "reject", job, "A", session, "--reason", "seen, and wrong")
    assert forecast("rejected") == first
    codes = pd.read_csv(tmp_path / "rejected" / "quarantine.csv")["codes"].tolist()
    assert codes == ["non-positive-price,seen, and wrong", "split-mismatch,seen, and wrong"]
    table.loc[60, "close"], table.loc[80, "split"] = right, 1.0
    write_prices(tmp_path, table)
    assert totals(done("ingest", job))["changed"] == 2
    corrected = forecast("corrected")
    assert corrected != first
    assert forecast("again", "--known-at", known_at) == first
    assert (tmp_path / "again" / "quarantine.csv").read_bytes() == (
        tmp_path / "first" / "quarantine.csv"
    ).read_bytes()


def test_later_sessions_change_no_forecast_of_an_evening(tmp_path: Path) -> None:
    job, table = write_job(tmp_path), history("A", 150)
    write_prices(tmp_path, table.iloc[:120])
    done("ingest", job)
    evening = table["session"].iloc[119]
    done("forecast", job, "--output", tmp_path / "before", "--as-of", evening)
    table.loc[120:, "close"] *= 7
    write_prices(tmp_path, table)
    assert totals(done("ingest", job))["added"] == 30
    done("forecast", job, "--output", tmp_path / "after", "--as-of", evening)
    for name in ("forecasts.parquet", "findings.csv"):
        assert (tmp_path / "after" / name).read_bytes() == (tmp_path / "before" / name).read_bytes()


def test_samples_are_ingested_too(tmp_path: Path) -> None:
    job = write_job(tmp_path, "{kind: sample, symbols: [SP500, NOPE]}", "minimum_coverage: 0.5")
    result = call("ingest", job)
    assert result.exit_code == 3
    assert totals(result.stdout) == {"symbols": 2, "fetched": 1, "failed": 1, "added": 5031}
    assert "forecaster: failed NOPE: no sample has this name" in result.stderr
    below = write_job(tmp_path, "{kind: sample, symbols: [SP500, NOPE]}", "minimum_coverage: 0.6")
    result = call("ingest", below)
    assert result.exit_code == 1
    assert "only 50% of the symbols succeeded, below the minimum coverage of 60%" in result.stderr


def test_a_file_that_lost_its_history_removes_nothing(tmp_path: Path) -> None:
    job, table = write_job(tmp_path), history("A")
    write_prices(tmp_path, table, history("B"))
    done("ingest", job)
    # Later months alone are a supplement; a history with a hole is a mistake.
    write_prices(tmp_path, table.iloc[100:], history("B").drop(index=range(20, 40)))
    result = call("ingest", job)
    assert result.exit_code == 3
    assert (
        "forecaster: failed B: a source may lack 5% of what it had; 20 of 120 sessions are gone, the first "
        "2024-01-29; nothing of it is written" in result.stderr
    )
    assert {symbol: len(frame) for symbol, frame in stored(tmp_path).items()} == {"A": 120, "B": 120}


def test_some_symbols_and_some_sessions_alone(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    write_prices(tmp_path, history("A"), history("B"))
    assert totals(done("ingest", job, "--symbols", "B", "--since", "2024-06-01")) == {
        "symbols": 1, "fetched": 1, "added": 10,
    }  # fmt: skip
    assert totals(done("ingest", job)) == {"symbols": 2, "fetched": 2, "added": 230}


def test_a_rejected_session_that_changes_is_judged_again(tmp_path: Path) -> None:
    """A decision is about the numbers that were looked at; others are judged like any that come."""
    job, table = write_job(tmp_path), history("A")
    right = table["close"].copy()
    table.loc[50, "close"], table.loc[60, "close"] = -36.98, 100 * right[60]
    write_prices(tmp_path, table)
    done("ingest", job)
    for row in (50, 60, 70):
        done("data", "reject", job, "A", table.loc[row, "session"])
    # Another impossible number, another slip, and a change in the ninth digit of what a person rejected.
    table.loc[50, "close"], table.loc[60, "close"] = -37.0, 100 * right[60] + 1
    table.loc[70, "close"] = right[70] * (1 + 2e-7)
    write_prices(tmp_path, table)
    second = done("ingest", job)
    assert totals(second) == {"symbols": 1, "fetched": 1, "changed": 3, "quarantined": 2}
    assert "quarantined A 2024-03-11: non-positive-price" in second
    assert "quarantined A 2024-03-25: unit-slip" in second
    table.loc[50, "close"], table.loc[60, "close"] = right[50], right[60]
    write_prices(tmp_path, table)
    assert totals(done("ingest", job)) == {"symbols": 1, "fetched": 1, "changed": 2}
    assert stored(tmp_path)["A"]["close"].tolist() == table["close"].tolist()


def test_tidying_keeps_what_forecasts_saw_without_being_told(tmp_path: Path) -> None:
    job, table = write_job(tmp_path), history("A")
    write_prices(tmp_path, table)
    done("ingest", job)
    results = tmp_path / "workspace" / "desk"
    done("forecast", job, "--output", results)
    provenance = json.loads((results / "provenance.json").read_text())
    known_at = provenance["store"]["known_at"]
    # The same store is elsewhere for another machine.
    provenance["store"]["url"] = "/mnt/store"
    (results / "provenance.json").write_text(json.dumps(provenance))
    for step in (1, 2):
        table.loc[50, "close"] += step
        write_prices(tmp_path, table)
        done("ingest", job)
    now = datetime.datetime.now(datetime.UTC)
    # A day begins with its first moment: nothing of today is dropped, and all of it is listed.
    assert "; 0 rows dropped" in done("data", "compact", job, "--before", f"{now:%Y-%m-%d}")
    assert done("data", "diff", job, "--since", f"{now:%Y-%m-%d}").count("2024-03-11") == 2
    tidied = done("data", "compact", job, "--before", now.isoformat())
    assert "; 1 rows dropped" in tidied
    assert "kept what forecasts of 1 earlier times saw" in tidied
    done("forecast", job, "--output", tmp_path / "again", "--known-at", known_at)
    name = "forecasts.parquet"
    assert (tmp_path / "again" / name).read_bytes() == (results / name).read_bytes()
    # What is left can be listed without knowing since when.
    assert "2024-03-11" not in done("data", "diff", job)
    (results / "provenance.json").write_text("{")
    assert "what its forecasts saw is to be kept, and cannot be read" in complaint(
        "data", "compact", job, "--before", now.isoformat()
    )


def test_an_evening_before_the_prices_is_said_once(tmp_path: Path) -> None:
    names = [f"S{number}" for number in range(7)]
    job = write_job(tmp_path, f"{{kind: files, path: prices.csv, symbols: [{', '.join(names)}]}}")
    write_prices(tmp_path, *(history(name) for name in names))
    done("ingest", job)
    assert complaint("forecast", job, "--output", tmp_path / "out", "--as-of", "2020-01-01") == (
        f"no symbol can be used: S0, S1, S2, S3, S4 and 2 others: the price store {tmp_path}/store had no "
        "session of it up to 2020-01-01"
    )


def test_tables_name_every_symbol_and_no_stranger(tmp_path: Path) -> None:
    names = ["S" * 200, "../x", "=cmd()", "<b>", "[red]", "aapl"]
    job = write_job(tmp_path)
    write_prices(tmp_path, *(history(name) for name in names))
    done("ingest", job)
    status = done("data", "status", job)
    for name in names[1:]:
        assert re.search(rf"^{re.escape(name)} +120 2024-01-01 2024-06-14 ", status, re.MULTILINE)
    # The name takes several lines, and the numbers beside it stay whole.
    assert status.count("S") == 200
    assert status.count(" 2024-01-01 2024-06-14 ") == len(names)
    for command in ("status", "diff", "quarantine"):
        assert complaint("data", command, job, "--symbols", "AAPL") == (
            "--symbols names symbols of the store or the job; 'AAPL' is none (did you mean 'aapl'?)"
        )


def test_bad_input_is_said_in_one_line(tmp_path: Path) -> None:
    job = write_job(tmp_path)
    write_prices(tmp_path, history("A"))
    assert "there is no price store at" in complaint("data", "status", job)
    assert "there is no price store at" in complaint("forecast", job, "--output", tmp_path / "out")
    assert "--symbols names symbols of the job; 'a' is none (did you mean 'A'?)" in complaint(
        "ingest", job, "--symbols", "a"
    )
    assert "--since is a date written YYYY-MM-DD. Received: 'May'" in complaint(
        "ingest", job, "--since", "May"
    )
    direct = tmp_path / "direct.yaml"
    direct.write_text(job.read_text().replace(f"store: {tmp_path}/store", ""))
    assert "the job desk has no price store; name one" in complaint("ingest", direct)
    known = ("--known-at", "2024-01-01")
    assert "and the job desk has none; name a `store`" in complaint(
        "forecast", direct, "--output", tmp_path / "out", *known
    )
    done("ingest", job)
    assert "--known-at is a moment written" in complaint(
        "forecast", job, "--output", tmp_path / "out", "--known-at", "yesterday"
    )
    assert "no symbol can be used" in complaint("forecast", job, "--output", tmp_path / "out", *known)
    assert "SESSION is a date written YYYY-MM-DD" in complaint("data", "accept", job, "A", "today")
    assert "A 1999-01-01 is not in the store" in complaint("data", "accept", job, "A", "1999-01-01")
    assert "there are no finished results" in complaint("data", "diff", job, "--results", tmp_path)
    done("forecast", job, "--output", tmp_path / "out")
    assert "give --before too" in complaint("data", "compact", job, "--results", tmp_path / "out")
    (tmp_path / "prices.csv").unlink()
    assert "there is no such file or folder" in complaint("ingest", job)
    (tmp_path / "blocked").write_text("")
    blocked = tmp_path / "blocked.yaml"
    blocked.write_text(job.read_text().replace(f"store: {tmp_path}/store", f"store: {tmp_path}/blocked"))
    write_prices(tmp_path, history("A"))
    assert "is a file; give another `store`" in complaint("ingest", blocked)


MOMENTS = st.datetimes(
    datetime.datetime(2024, 1, 1), datetime.datetime(2024, 1, 12), timezones=st.just(datetime.UTC)
)
DAYS = st.dates(datetime.date(2023, 12, 28), datetime.date(2024, 1, 4)).map(pd.Timestamp)


@settings(max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), DAYS, MOMENTS, MOMENTS, st.sampled_from(["accepted", "removed"]))
    ),
    st.lists(st.tuples(st.sampled_from("ABC"), DAYS, MOMENTS), max_size=8),
)
def test_which_forecasts_saw_old_values(
    changed: list[tuple[str, pd.Timestamp, datetime.datetime, datetime.datetime, str]],
    made: list[tuple[str, pd.Timestamp, datetime.datetime]],
) -> None:
    columns = ["symbol", "session", "old_fetched_at", "new_fetched_at", "old_status"]
    restatements = pd.DataFrame(changed, columns=columns).drop_duplicates(
        ["symbol", "session", "new_fetched_at"]
    )
    issued = pd.DataFrame(made, columns=["symbol", "origin", "known_at"])
    found = forecasts_that_saw(restatements, issued)
    expected = {}
    for place, (symbol, origin, known_at) in enumerate(made):
        sessions = {
            row.session
            for row in restatements.itertuples()
            if (row.symbol, row.old_status) == (symbol, "accepted")
            and row.session <= origin
            and row.old_fetched_at <= known_at < row.new_fetched_at
        }
        if sessions:
            expected[place] = (len(sessions), min(sessions))
    told = found[["restated", "first_restated"]].itertuples(index=True, name=None)
    assert {place: (count, first) for place, count, first in told} == expected


# ------------------------------------------------------------------------------------------------ Yahoo

TODAY = datetime.datetime.now(datetime.UTC)
CALENDARS = Calendars()
LAST = CALENDARS.last_finished_session("AAPL", TODAY)
SESSIONS = [day.date() for day in CALENDARS.sessions("AAPL", LAST - datetime.timedelta(days=200), LAST)]


def bars(days: list[datetime.date], split: datetime.date | None = None) -> dict[datetime.date, Bar]:
    """Prices as traded, four times lower from the day of a split on."""
    result: dict[datetime.date, Bar] = {}
    for row, day in enumerate(days):
        close = (100 + row % 7) / (4 if split and day >= split else 1)
        result[day] = (close, close * 1.02, close * 0.98, close * 1.01, 1000.0 + row)
    return result


@pytest.fixture
def yahoo(monkeypatch: pytest.MonkeyPatch) -> Iterator[YahooServer]:
    with YahooServer({symbol: Listing(bars(SESSIONS)) for symbol in ("AAPL", "MSFT")}) as server:
        monkeypatch.setenv("FORECASTER_YAHOO_GATEWAY", server.url)
        yield server


def yahoo_job(folder: Path, symbols: str = "AAPL, MSFT", more: str = "") -> Path:
    prices = f"{{kind: yahoo, symbols: [{symbols}], interval: 0.0, attempts: 2}}"
    return write_job(folder, prices, f"minimum_coverage: 0.2\n{more}")


def asked_since(server: YahooServer, symbol: str) -> list[datetime.date]:
    """First day asked for, of each request for prices since the last call."""
    found = [re.search(r"period1=(-?\d+)", path) for _, path in server.charts(symbol)]
    server.requests.clear()
    return [datetime.datetime.fromtimestamp(int(match[1]), datetime.UTC).date() for match in found if match]


def test_yahoo_is_asked_for_what_is_missing(yahoo: YahooServer, tmp_path: Path) -> None:
    job = yahoo_job(tmp_path)
    first = done("ingest", job)
    assert totals(first) == {"symbols": 2, "fetched": 2, "added": 2 * len(SESSIONS)}
    assert f"AAPL: newly listed: trading began on {SESSIONS[0]}" in first
    (since,) = asked_since(yahoo, "AAPL")
    assert since.year == 1900
    # Nothing can be new: nothing is asked.
    assert totals(done("ingest", job)) == {"symbols": 2, "fresh": 2}
    assert yahoo.requests == []
    result = call("backtest", job, "--output", tmp_path / "out")
    assert result.exit_code == 2  # the backtest of the job begins before
    status = done("data", "status", job)
    assert re.search(rf"AAPL +{len(SESSIONS)} {SESSIONS[0]} {LAST} +0 ", status)


def test_a_store_of_days_ago_is_brought_up_to_date(yahoo: YahooServer, tmp_path: Path) -> None:
    """Three sessions are missing; one symbol has a new split, which makes it be fetched whole."""
    old = SESSIONS[:-3]
    split = SESSIONS[-2]
    yahoo.listings["MSFT"] = Listing(bars(SESSIONS, split), splits={split: (4.0, 1.0)})
    before = {symbol: fetch_of(bars(old)) for symbol in ("AAPL", "MSFT")}
    corrected = bars(SESSIONS)
    close = corrected[SESSIONS[-5]]
    corrected[SESSIONS[-5]] = (close[0], close[1], close[2], 101.5, close[4])
    yahoo.listings["AAPL"] = Listing(corrected)
    fetched_at = CALENDARS.close("AAPL", old[-1]) + datetime.timedelta(hours=1)
    store = PriceStore(str(tmp_path / "store"))
    store.write(before, fetched_at=fetched_at, source="yahoo")
    job = yahoo_job(tmp_path)
    stale = call("forecast", job, "--output", tmp_path / "stale")
    assert re.search(
        r"warning: the price store is stale: last changed .*, 2 symbols lack sessions, \w+ 3; `forecaster",
        stale.stderr,
    )
    printed = done("ingest", job)
    assert totals(printed) == {"symbols": 2, "fetched": 2, "added": 6, "changed": 1}
    assert "restated sessions: AAPL 1" in printed
    paths = [path for _, path in yahoo.charts()]
    assert len(paths) == 3
    (aapl,) = (path for path in paths if "/AAPL?" in path)
    since = datetime.datetime.fromtimestamp(int(re.search(r"period1=(\d+)", aapl)[1]), datetime.UTC).date()
    assert old[-1] - datetime.timedelta(days=35) < since <= old[-10]
    frame = stored(tmp_path)["MSFT"]
    expected = fetch_of(bars(SESSIONS, split)).prices
    np.testing.assert_allclose(frame["close"], expected["close"], rtol=1e-6)
    assert frame["split"].loc[pd.Timestamp(split)] == 4
    fresh = call("forecast", job, "--output", tmp_path / "fresh")
    assert "stale" not in fresh.stderr
    assert json.loads((tmp_path / "fresh" / "provenance.json").read_text())["store"]["sessions_behind"] == 0


def test_a_later_since_leaves_no_hole_and_no_action_out(yahoo: YahooServer, tmp_path: Path) -> None:
    split = SESSIONS[-2]
    yahoo.listings["MSFT"] = Listing(bars(SESSIONS, split), splits={split: (4.0, 1.0)})
    job = yahoo_job(tmp_path)
    store = PriceStore(str(tmp_path / "store"))
    before = {symbol: fetch_of(bars(SESSIONS[:-40])) for symbol in ("AAPL", "MSFT")}
    store.write(before, fetched_at=TODAY - datetime.timedelta(days=40), source="yahoo")
    # A restatement of long ago is found where a new action makes all of it be fetched again.
    corrected = yahoo.listings["MSFT"].bars
    corrected[SESSIONS[5]] = (*corrected[SESSIONS[5]][:3], 106.0, 1.0)
    printed = done("ingest", job, "--since", SESSIONS[-5])
    assert totals(printed) == {"symbols": 2, "fetched": 2, "added": 80, "changed": 1}
    assert {len(frame) for frame in stored(tmp_path).values()} == {len(SESSIONS)}
    assert len(yahoo.charts("AAPL")) == 1
    assert len(yahoo.charts("MSFT")) == 2


def test_nothing_counts_as_known_before_its_answer_came(yahoo: YahooServer, tmp_path: Path) -> None:
    yahoo.faults["MSFT"] = deque([Fault(how="slow", seconds=1.0)])
    begin = datetime.datetime.now(datetime.UTC)
    done("ingest", yahoo_job(tmp_path))
    mark = PriceStore(str(tmp_path / "store")).mark()
    assert mark is not None
    assert mark - begin > datetime.timedelta(seconds=1)


ROOT = Path(__file__).parents[1]


def test_what_the_docs_say_about_prices_runs(
    yahoo: YahooServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every job, command and snippet of a page, in order, in a folder of its own."""
    page = "docs/prices.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    begin = datetime.date(2024, 1, 2)
    days = [day.date() for day in CALENDARS.sessions("AAPL", begin, LAST)]
    yahoo.listings |= {symbol: Listing(bars(days)) for symbol in ("AAPL", "MSFT", "^GSPC")}
    monkeypatch.chdir(tmp_path)
    fences = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    (job,) = (body for kind, body in fences if kind == "yaml")
    Path(job.split()[1]).write_text(job.replace("kind: yahoo", "kind: yahoo, interval: 0.0"))
    commands = [line for kind, body in fences if kind == "sh" for line in body.splitlines()]
    assert len(commands) >= 6
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        assert Path(program).name == "forecaster"
        for place, word in enumerate(arguments):
            if found := re.fullmatch(r"\$\(jq -r \.store\.known_at (.+)\)", word):
                arguments[place] = json.loads(Path(found[1]).read_text())["store"]["known_at"]
        done(*arguments)
    store = PriceStore("workspace/prices")
    expected = {symbol: frame["close"].tolist() for symbol, frame in store.read().frames.items()}
    for name in ("AAPL", "MSFT"):
        assert len(expected[name]) == len(days)
    for code in (body for kind, body in fences if kind == "python"):
        names: dict[str, pd.DataFrame] = {}
        exec(code, names)
        prices = names["prices"]
        assert {name: rows["close"].tolist() for name, rows in prices.groupby("symbol")} == expected
    for query in (body for kind, body in fences if kind == "sql"):
        # The one of the store's own documentation, which is run there.
        lines = [line.strip() for line in query.splitlines()]
        documented = importlib.import_module("forecaster.prices.store.store").__doc__ or ""
        assert "\n".join(lines) in re.sub(r"^ +", "", documented, flags=re.MULTILINE)
    for target in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (ROOT / page).parent.joinpath(target).is_file()


def fetch_of(prices: dict[datetime.date, Bar]) -> Fetch:
    table = pd.DataFrame(prices.values(), columns=["open", "high", "low", "close", "volume"])
    table.index = pd.DatetimeIndex(list(prices)).as_unit("s")
    return Fetch(price_table(table), (min(prices), max(prices)), full=True)


def test_failures_of_yahoo_are_named_and_the_rest_goes_on(yahoo: YahooServer, tmp_path: Path) -> None:
    gone = Listing({day: bar for day, bar in bars(SESSIONS).items() if day < SESSIONS[60]})
    wrong = bars(SESSIONS)
    wrong[SESSIONS[-1]] = (-1.0, 1.0, -2.0, -1.0, 5.0)
    yahoo.listings |= {"GONE": gone, "WRONG": Listing(wrong)}
    yahoo.always["CUT"] = Fault(how="cut")
    job = yahoo_job(tmp_path, "NOPE, AAPL, GONE, CUT, WRONG, X.UNKNOWN")
    result = call("ingest", job)
    assert result.exit_code == 3
    assert totals(result.stdout) == {
        "symbols": 6, "fetched": 3, "failed": 3, "added": 2 * len(SESSIONS) + 60, "quarantined": 1,
    }  # fmt: skip
    said = {line.split()[2].rstrip(":"): line for line in result.stderr.splitlines() if " failed " in line}
    assert "Yahoo does not know it" in said["NOPE"]
    assert "gave no usable answer in 2 attempts" in said["CUT"]
    assert "`calendars: {X.UNKNOWN: XNYS}`" in said["X.UNKNOWN"]
    assert re.search(f"GONE: newly listed: .*; Yahoo has no close since {SESSIONS[59]}", result.stdout)
    assert f"quarantined WRONG {LAST}: non-positive-price" in result.stdout
    # What has its last session is left alone; what failed, stopped or was held back is asked for again.
    yahoo.always.clear()
    yahoo.listings["CUT"] = Listing(bars(SESSIONS))
    again = call("ingest", job)
    assert again.exit_code == 3
    assert totals(again.stdout)["added"] == len(SESSIONS)
    assert totals(again.stdout)["fresh"] == 1


def test_a_bar_that_comes_late_is_fetched_by_the_next_ingest_of_the_evening(
    yahoo: YahooServer, tmp_path: Path
) -> None:
    yahoo.listings["AAPL"] = Listing(bars(SESSIONS[:-1]))
    job = yahoo_job(tmp_path, "AAPL")
    assert totals(done("ingest", job))["added"] == len(SESSIONS) - 1
    yahoo.listings["AAPL"] = Listing(bars(SESSIONS))
    assert totals(done("ingest", job))["added"] == 1
    assert totals(done("ingest", job))["fresh"] == 1


def test_a_yahoo_that_refuses_is_left_alone_and_gone_back_to(yahoo: YahooServer, tmp_path: Path) -> None:
    names = ["AAPL", *(f"S{number}" for number in range(12))]
    yahoo.listings |= {name: Listing(bars(SESSIONS)) for name in names}
    yahoo.always |= {name: Fault(429) for name in names[1:]}
    job = yahoo_job(tmp_path, ", ".join(names)).read_text().replace("attempts: 2", "attempts: 1")
    (tmp_path / "job.yaml").write_text(job)
    result = call("ingest", tmp_path / "job.yaml")
    assert result.exit_code == 1
    tried = [line for line in result.stderr.splitlines() if "failed S" in line and "not tried" not in line]
    skipped = [line for line in result.stderr.splitlines() if "failed S" in line and "not tried" in line]
    assert (len(tried), len(skipped)) == (5, 7)
    assert set(stored(tmp_path)) == {"AAPL"}
    yahoo.always.clear()
    assert totals(done("ingest", tmp_path / "job.yaml")) == {
        "symbols": 13, "fetched": 12, "fresh": 1, "added": 12 * len(SESSIONS),
    }  # fmt: skip


# ------------------------------------------------------------------------------------------- processes


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    return forked()


def universe(folder: Path, symbols: int = 200, sessions: int = 30) -> Path:
    folder.mkdir(exist_ok=True)
    write_prices(folder, *(history(f"S{number:03d}", sessions) for number in range(symbols)))
    return write_job(folder)


def assert_as_undisturbed(folder: Path) -> None:
    """The store holds what the file says, each row once."""
    frames = stored(folder)
    rows = pd.read_csv(folder / "prices.csv", parse_dates=["session"])
    expected = rows.set_index(["symbol", "session"])["close"]
    found = pd.concat(
        {symbol: frame["close"] for symbol, frame in frames.items()}, names=["symbol", "session"]
    )
    pd.testing.assert_series_equal(found.sort_index(), expected.sort_index(), check_index_type=False)
    from deltalake import DeltaTable

    raw = DeltaTable(f"{folder}/store/prices").to_pandas(columns=["symbol", "session", "revision"])
    assert len(raw) == len(expected)
    assert (raw["revision"] == 0).all()


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_an_ingest_killed_at_any_moment_is_made_whole_by_the_next(
    kills: int, processes: ForkServerContext, tmp_path: Path
) -> None:
    job = universe(tmp_path / "whole")
    begin = time.monotonic()
    run(processes, job)
    seconds = time.monotonic() - begin
    assert_as_undisturbed(tmp_path / "whole")
    moments = random.Random(7)
    left = set()
    for number in range(kills):
        folder = tmp_path / f"kill-{number}"
        job = universe(folder)
        process = processes.Process(target=run_command, args=(["ingest", str(job)],))
        process.start()
        process.join(moments.uniform(0.05, seconds))
        if process.pid is not None and process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        with contextlib.suppress(Exception):
            left.add(len(stored(folder)))
        run(processes, job)
        assert_as_undisturbed(folder)
    assert left, "no kill came after the first write"


def run(context: ForkServerContext, job: Path, *more: str) -> None:
    process = context.Process(target=run_command, args=(["ingest", str(job), *more],))
    process.start()
    process.join(300)
    assert process.exitcode == 0


def test_eight_processes_with_the_same_symbols_lose_and_double_nothing(
    processes: ForkServerContext, tmp_path: Path
) -> None:
    job = universe(tmp_path, symbols=60)
    names = [f"S{number:03d}" for number in range(60)]
    chosen = [names[start : start + 25] for start in range(0, 40, 5)]
    started = []
    for some in chosen:
        arguments = ["ingest", str(job), "--symbols", ",".join(some)]
        started.append(processes.Process(target=run_command, args=(arguments,)))
        started[-1].start()
    for process in started:
        process.join(300)
        assert process.exitcode == 0
    assert_as_undisturbed(tmp_path)
