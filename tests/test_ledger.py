"""The ledger, in SQLite and in a real PostgreSQL: nothing twice, nothing changed, nothing by halves."""

from __future__ import annotations

import datetime
import itertools
import math
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import ledger_processes
import numpy as np
import pandas as pd
import postgres
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ledger_processes import KNOWN_AT, SESSION, issue, start, table
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError

from forecaster.errors import ParameterError
from forecaster.ledger import Ledger, LedgerBusyError, LedgerError, reason_of
from forecaster.ledger.database import MIGRATIONS, SCHEMA, Database
from forecaster.ledger.steps import LEASE
from forecaster.ledger.tables import APPEND_ONLY, METADATA, NUMBERS, SCORES, VERSION_TABLE
from forecaster.quantiles import quantile_columns
from forecaster.scores import row_scores

# A server that has done the imports once and forks for each process.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "pandas",
        "sqlalchemy.dialects.sqlite",
        "psycopg",
        "forecaster.ledger",
        "forecaster.scores",
        "alembic.command",
    ]
)

NEXT = datetime.date(2024, 1, 8)
SHARED = settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="session")
def server() -> Iterator[postgres.Server | None]:
    with postgres.running() as running:
        yield running


_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'ledger.db'}"
        return
    running: postgres.Server | None = request.getfixturevalue("server")
    if running is None:
        pytest.skip(postgres.MISSING)
    name = f"ledger_{next(_numbers)}"
    yield running.create(name)
    running.drop(name)


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    with Ledger.open(url, wait=20) as opened:
        yield opened


def plain(url: str, *statements: str) -> list[Any]:
    """Run plain SQL, as any other tool would; the rows of the last statement."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        with engine.begin() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
            return list(result.all()) if result.returns_rows else []
    finally:
        engine.dispose()


def outcomes_of(forecasts: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """An outcome of each symbol, origin and horizon."""
    keys = forecasts[["symbol", "origin", "horizon"]].drop_duplicates(ignore_index=True)
    keys["target"] = keys["origin"] + pd.to_timedelta(keys["horizon"], unit="D")
    return keys.assign(y=np.random.default_rng(seed).normal(0, 0.01, len(keys)))


def filled(ledger: Ledger) -> None:
    """One row at least in every table."""
    run = start(ledger, steps=("forecast",))
    with run.step("forecast", code_version="c1"):
        issue(ledger, run, table(2))
    ledger.record_outcomes("us", outcomes_of(ledger.forecasts("us")), data_version="d2")
    event = {"event": "promoted", "model": "ewma", "version": "3", "reason": "better"}
    ledger.record_model_event("us", as_of=SESSION, **event)
    ledger.record_alert("us", as_of=SESSION, check="coverage", state="warn", reason="too narrow")


def everything(url: str) -> dict[str, list[Any]]:
    """Every row of every table."""
    names = [one.name for one in METADATA.sorted_tables]
    return {name: sorted(map(str, plain(url, f"SELECT * FROM {name}"))) for name in names}


def one_line(error: pytest.ExceptionInfo[BaseException]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said


# ------------------------------------------------------------------------------------------------ opening


def test_migrations_make_the_tables_that_the_code_reads(url: str) -> None:
    database = Database(url, 5)
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, METADATA) == []
    database.close()
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == SCHEMA


def test_an_empty_file_becomes_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "new" / "ledger.db"
    path.parent.mkdir()
    path.touch()
    with Ledger.open(path) as ledger:
        filled(ledger)
    with Ledger.open(f"sqlite:///{path}") as ledger:
        assert len(ledger.forecasts("us")) == 4
        assert ledger.name == str(path)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_newer_ledger_is_refused(url: str) -> None:
    Ledger.open(url).close()
    plain(url, f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    with pytest.raises(
        LedgerError, match=r"has the schema 9999, newer than .* update the application"
    ) as error:
        Ledger.open(url)
    one_line(error)


def test_a_foreign_database_is_refused_and_left_as_it_is(url: str) -> None:
    plain(url, "CREATE TABLE experiments (id INTEGER)", "CREATE TABLE alembic_version (version_num TEXT)")
    path = Path(url.removeprefix("sqlite:///"))
    before = path.read_bytes() if path.exists() else b""
    with pytest.raises(LedgerError, match=r"is not a ledger: .* such as 'alembic_version'; give the ledger"):
        Ledger.open(url)
    if url.startswith("sqlite"):
        assert path.read_bytes() == before
    else:
        assert plain(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(2,)]


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("sqlite://", "lies in a file, not in memory"),
        ("sqlite:///:memory:", "lies in a file, not in memory"),
        ("mysql://root@127.0.0.1/ledger", "lies in SQLite or PostgreSQL. Received: mysql://"),
        ("postgresql://me:pass word@[::/x", "cannot be read; write a path, or the URL"),
    ],
)
def test_other_places_are_refused(place: str, said: str) -> None:
    with pytest.raises(LedgerError, match=re.escape(said)) as error:
        Ledger.open(place)
    assert "pass" not in one_line(error)


def test_files_that_are_no_ledger_are_refused(tmp_path: Path) -> None:
    text_file = tmp_path / "notes.txt"
    text_file.write_text("not a database, but long enough to be looked at\n" * 100)
    with pytest.raises(LedgerError, match="is not a ledger, or is damaged: file is not a database"):
        Ledger.open(text_file)
    with pytest.raises(LedgerError, match="cannot be opened or written to: unable to open database file"):
        Ledger.open(tmp_path)
    with pytest.raises(LedgerError, match=r"cannot be made: (Not a directory|File exists)"):
        Ledger.open(text_file / "deeper" / "ledger.db")


def test_a_server_that_is_not_there_is_said_without_the_password() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        with pytest.raises(LedgerError, match="refused") as error:
            Ledger.open(f"postgresql://me:very-secret@127.0.0.1:{port}/ledger", wait=2)
    assert "very-secret" not in one_line(error)


# --------------------------------------------------------------------------------------- issued, once, whole


def test_what_is_read_is_what_was_issued(ledger: Ledger) -> None:
    run = start(ledger)
    frame = table(3).sample(frac=1, random_state=1)
    stated = frame.assign(tail_low=-1.0, tail_high=1.0, variance=0.25, model="gjr")
    stated.loc[stated["symbol"] == "S0001", ["tail_low", "tail_high", "variance"]] = math.nan
    assert issue(ledger, run, pd.concat([frame, stated])) == (12, 0)
    read = ledger.forecasts("us")
    assert read[["model", "symbol", "origin", "horizon"]].apply(tuple, axis=1).is_monotonic_increasing
    expected = pd.concat([frame, stated]).sort_values(["model", "symbol", "horizon"])
    for name in NUMBERS:
        np.testing.assert_array_equal(read[name], expected[name])
    assert read["y"].isna().all()
    assert set(read["model_version"]) == {"3"}
    assert set(read["known_at"]) == {pd.Timestamp(KNOWN_AT)}
    assert (read[["job", "job_hash", "data_version", "code_version"]] == ["us", "abc", "d1", "c1"]).all(
        axis=None
    )
    assert (pd.Timestamp.now("UTC") - read["issued_at"]).dt.total_seconds().between(-1, 60).all()
    assert ledger.job_file("us", "abc") == "name: us\n"
    row = ledger.forecast(int(read["id"].iloc[5]))
    assert (row["model"], row["symbol"], row["q0.01"]) == ("ewma", "S0002", read["q0.01"].iloc[5])
    with pytest.raises(LedgerError, match="has no forecast 12345"):
        ledger.forecast(12345)
    with pytest.raises(LedgerError, match="no file of the job 'us' with the hash 'x'"):
        ledger.job_file("us", "x")
    assert issue(ledger, run, expected) == (0, 12)


finite = st.floats(allow_nan=False, allow_infinity=False)


@SHARED
@given(values=st.lists(finite, min_size=23, max_size=23), close=finite)
def test_numbers_keep_every_bit(ledger: Ledger, values: list[float], close: float) -> None:
    job = f"job {next(_numbers)}"
    frame = table(1, horizons=(1,)).assign(
        close=close, **dict(zip(quantile_columns(), sorted(values), strict=True))
    )
    run = start(ledger, job=job)
    assert issue(ledger, run, frame) == (1, 0)
    read = ledger.forecasts(job)[["close", *quantile_columns()]].to_numpy()[0]
    expected = frame[["close", *quantile_columns()]].to_numpy()[0] + 0.0
    assert read.tobytes() == expected.tobytes()
    assert issue(ledger, run, frame) == (0, 1)


# Which symbols an issue holds, whether it is of another version of them, and of which evening.
KINDS = ["same", "same", "same", "numbers", "version"]
issues = st.lists(
    st.tuples(
        st.dictionaries(
            st.integers(0, 4), st.sampled_from(["same", "same", "same", "numbers", "version"]), min_size=1
        ),
        st.sampled_from([SESSION, NEXT]),
        st.sampled_from(["ewma", "gjr"]),
    ),
    max_size=8,
)


@SHARED
@given(issues=issues)
def test_forecasts_are_issued_once_as_in_a_dictionary(ledger: Ledger, issues: list[Any]) -> None:
    job = f"job {next(_numbers)}"
    oracle: dict[tuple[str, str, datetime.date, int], tuple[str, float]] = {}
    for kinds, session, model in issues:
        frame = table(5, session, model)
        number = frame["symbol"].str[1:].astype(int)
        frame = frame[number.isin(list(kinds))].copy()
        kind = frame["symbol"].str[1:].astype(int).map(kinds)
        frame.loc[kind == "numbers", "q0.99"] += 1
        frame.loc[kind == "version", "model_version"] = "4"
        rows = {
            (model, row.symbol, session, row.horizon): (row.model_version, row["q0.99"])
            for _, row in frame.iterrows()
        }
        run = start(ledger, NEXT, job=job)
        if any(oracle.get(key, value) != value for key, value in rows.items()):
            with pytest.raises(LedgerError, match=r"is issued once: .* issued before with") as error:
                issue(ledger, run, frame)
            one_line(error)
        else:
            new = len(rows.keys() - oracle.keys())
            assert issue(ledger, run, frame) == (new, len(rows) - new)
            oracle |= rows
    read = ledger.forecasts(job)
    found = {
        (row.model, row.symbol, row.origin.date(), row.horizon): (
            row.model_version,
            row[quantile_columns()[-1]],
        )
        for _, row in read.iterrows()
    }
    assert found == oracle
    assert len(read) == len(oracle)


def change(**columns: Any) -> Callable[[pd.DataFrame], pd.DataFrame]:
    return lambda frame: frame.assign(**columns)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda frame: frame.drop(columns=["q0.5", "late"]), "Missing: late, q0.5"),
        (lambda frame: frame.iloc[:0], "at least one forecast. Received: none"),
        (lambda frame: pd.concat([frame, frame]), "one row a model, symbol, origin and horizon"),
        (change(**{"q0.5": math.nan}), "finite everywhere"),
        (change(**{"q0.5": 9.0}), "quantiles do not cross"),
        (change(close=math.inf), "the close of a forecast is finite. Received: one of S0000"),
        (
            change(tail_low=-1.0, tail_high=1.0, variance=math.nan),
            "states both tails and the variance, or none",
        ),
        (change(symbol=700), "`symbol` is a text that is not empty. Received: 700"),
        (change(model=""), "`model` is a text that is not empty. Received: ''"),
        (change(model_version=3), "`model_version` is a text that is not empty. Received: 3"),
        (change(late="no"), "`late` says true or false"),
        (change(horizon=0), "horizons are positive whole numbers. Received: [0]"),
        (change(horizon=1.5), "horizons are positive whole numbers. Received: [1.5]"),
        (change(origin=pd.Timestamp(NEXT)), "has an origin up to then. Received: 2024-01-08"),
        (change(origin=pd.Timestamp("2024-01-05 16:00")), "`origin` is a session: a date without a time"),
    ],
)
def test_what_is_no_forecast_is_not_issued(
    tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        with pytest.raises(ParameterError, match=re.escape(said)) as error:
            issue(ledger, start(ledger), spoil(table(2, horizons=(1,))))
        one_line(error)
        assert ledger.forecasts("us").empty


def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        run = start(ledger)
        naive = KNOWN_AT.replace(tzinfo=None)
        with pytest.raises(
            ParameterError, match=r"`known_at` has a time zone. Received: 2024-01-05T22:30:00"
        ):
            ledger.issue(run, table(1), data_version="1", known_at=naive, code_version="1")


def gathered(target: Callable[..., None], arguments: list[tuple[Any, ...]], timeout: float = 60) -> list[Any]:
    """Run processes to their end; what they answered."""
    answers = PROCESSES.Queue()
    processes = [PROCESSES.Process(target=target, args=(*one, answers)) for one in arguments]
    for process in processes:
        process.start()
    found = [answers.get(timeout=timeout) for _ in processes]
    for process in processes:
        process.join(timeout)
        assert process.exitcode == 0
    return found


def test_eight_processes_open_an_empty_ledger_and_issue_the_same(url: str) -> None:
    found = gathered(ledger_processes.issue_at_once, [(url, 40)] * 8)
    assert sorted(found) == [(0, 80)] * 7 + [(80, 0)]
    with Ledger.open(url) as ledger:
        read = ledger.forecasts("us")
        np.testing.assert_array_equal(read[quantile_columns()], table(40)[quantile_columns()])
        assert ledger.status().empty
        assert plain(url, "SELECT attempts FROM runs") == [(8,)]
        assert plain(url, "SELECT count(*) FROM issues") == [(1,)]


def test_a_killed_process_leaves_no_half_of_an_issue(url: str) -> None:
    n_symbols, rounds = 600, 5
    Ledger.open(url).close()
    pauses = np.random.default_rng(int.from_bytes(os.urandom(4))).uniform(0.0, 0.3, rounds)
    for pause in pauses:
        answers = PROCESSES.Queue()
        process = PROCESSES.Process(target=ledger_processes.issue_many, args=(url, n_symbols, 50, answers))
        process.start()
        answers.get(timeout=60)
        time.sleep(pause)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join(60)
        with Ledger.open(url) as ledger:
            sizes = ledger.forecasts("us").groupby("model").size()
            assert set(sizes) <= {2 * n_symbols}, pauses
            assert len(plain(url, "SELECT * FROM issues")) == len(sizes)
            # The next process goes on where this one ended.
            issue(ledger, start(ledger), table(n_symbols, model="m00"))


# ------------------------------------------------------------------------------------------- never changed


@pytest.mark.parametrize("name", [one.name for one in APPEND_ONLY])
def test_plain_sql_changes_nothing(url: str, ledger: Ledger, name: str) -> None:
    filled(ledger)
    before = everything(url)
    assert before[name]
    # Names of columns in quotes: q0.01 and check.
    columns = [f'"{column.name}"' for column in METADATA.tables[name].columns]
    number = columns[-1]
    statements = [
        f"UPDATE {name} SET {number} = {number}",
        f"DELETE FROM {name}",
    ]
    every = ", ".join(columns)
    if url.startswith("sqlite"):
        statements.append(f"INSERT OR REPLACE INTO {name} SELECT * FROM {name}")
        statements.append(f"REPLACE INTO {name} ({every}) SELECT {every} FROM {name}")
        if columns[0] == '"id"' and name != "issues":
            # The same key under another id would remove the old row as well.
            others = ", ".join(columns[1:])
            statements.append(f"REPLACE INTO {name} (id, {others}) SELECT id + 100, {others} FROM {name}")
    else:
        key = ", ".join(f'"{column.name}"' for column in METADATA.tables[name].primary_key)
        statements += [
            f"TRUNCATE {name} CASCADE",
            f"INSERT INTO {name} SELECT * FROM {name} "
            f"ON CONFLICT ({key}) DO UPDATE SET {number} = {name}.{number}",
            f"UPDATE {name} SET {number} = {number} WHERE false",
        ]
    for statement in statements:
        with pytest.raises(DBAPIError, match=r"rows of \w+ are never changed"):
            plain(url, statement)
    assert everything(url) == before


def test_the_database_refuses_a_score_of_a_late_forecast(url: str, ledger: Ledger) -> None:
    issue(ledger, start(ledger), table(1).assign(late=True))
    key = "SELECT track_id, horizon, origin, symbol" + ", 0.5" * len(SCORES)
    with pytest.raises(DBAPIError, match="issued late has no score"):
        plain(url, f"INSERT INTO scores {key} FROM forecasts")


def test_foreign_keys_are_enforced(ledger: Ledger) -> None:
    with (
        pytest.raises(LedgerError, match=r"(?i)refused: .*foreign key"),
        ledger._database.writing() as connection,
    ):
        connection.execute(text("INSERT INTO tracks (job_id, model) VALUES (99, 'x')"))


# ------------------------------------------------------------------------------------------- busy, full


def lock(url: str) -> Any:
    """Hold the lock that a writer needs, from outside."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(
            url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False
        )
        connection.execute("BEGIN IMMEDIATE")
        return connection
    import psycopg

    other = psycopg.connect(url)
    other.execute("LOCK TABLE runs IN ACCESS EXCLUSIVE MODE")
    return other


def test_a_locked_ledger_is_waited_for_and_then_said(url: str) -> None:
    Ledger.open(url).close()
    other = lock(url)
    with Ledger.open(url, wait=0.5) as ledger:
        began = time.monotonic()
        with pytest.raises(LedgerBusyError, match="is locked: another process has been writing") as error:
            start(ledger)
        assert time.monotonic() - began >= 0.4
        assert "for more than 0.5 s; wait until it ends, or end it" in one_line(error)
    with Ledger.open(url, wait=60) as ledger:
        timer = threading.Timer(0.5, other.close)
        timer.start()
        start(ledger)
        timer.join()
        with (
            ledger._database.writing(),
            Ledger.open(url, wait=0.2) as second,
            pytest.raises(LedgerBusyError, match=r"is locked: .* for more than 0.2 s"),
        ):
            issue(second, start(second), table(1))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    if os.getuid() != 0 or shutil.which("mount") is None:
        pytest.skip("a small disk is mounted by root only")
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_loses_nothing_that_was_recorded(small_disk: Path) -> None:
    with Ledger.open(small_disk / "ledger.db") as ledger:
        run = start(ledger)
        recorded: list[str] = []

        def fill() -> None:
            for number in range(100):
                issue(ledger, run, table(100, model=f"m{number:02d}"))
                recorded.append(f"m{number:02d}")

        with pytest.raises(LedgerError, match=r"the disk of the ledger .* is full, so nothing was") as error:
            fill()
        one_line(error)
        assert recorded
        assert ledger.forecasts("us").groupby("model").size().to_dict() == dict.fromkeys(recorded, 200)
        with pytest.raises(LedgerError, match=r"cannot be copied: .*full"):
            ledger.backup(small_disk / "backup.db")
        assert [path.name for path in small_disk.iterdir() if "ledger.db" not in path.name] == []
        subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
        assert issue(ledger, run, table(100, model=f"m{len(recorded):02d}")) == (200, 0)


# ------------------------------------------------------------------------------------------------- steps


def attempts(ledger: Ledger) -> list[tuple[Any, ...]]:
    rows = ledger.status()[["step", "attempt", "status", "reason"]].astype(object)
    return [tuple(row) for row in rows.where(rows.notna(), None).to_numpy().tolist()]


def test_a_step_is_done_once_and_what_went_wrong_is_kept(ledger: Ledger) -> None:
    run = start(ledger, steps=("ingest", "train", "forecast"))
    assert attempts(ledger) == [(name, 1, "pending", None) for name in ("ingest", "train", "forecast")]
    with run.step("ingest", code_version="c1") as step:
        assert step is not None
        assert attempts(ledger)[0] == ("ingest", 1, "running", None)
        step.note(data_version="d7", model_version="m3")
    with run.step("ingest", code_version="c2") as step:
        assert step is None
    with pytest.raises(ValueError, match="no room"), run.step("train", code_version="c1"):
        raise ValueError("no room\non the second line")
    with pytest.raises(LedgerError), run.step("train", code_version="c1"):
        raise LedgerError("the rule; the way out")
    with pytest.raises(KeyboardInterrupt), run.step("train", code_version="c1"):
        raise KeyboardInterrupt
    again = start(ledger, steps=("ingest", "train", "forecast"))
    with again.step("train", code_version="c1") as step:
        assert step is not None
        assert step.attempt == 4
        step.skip("nothing new")
    with again.step("train", code_version="c1") as step:
        assert step is None
    assert attempts(ledger) == [
        ("ingest", 1, "done", None),
        ("train", 1, "failed", "ValueError: no room"),
        ("forecast", 1, "pending", None),
        ("train", 2, "failed", "the rule; the way out"),
        ("train", 3, "failed", "interrupted"),
        ("train", 4, "skipped", "nothing new"),
    ]
    status = ledger.status()
    assert set(status["starts"]) == {2}
    assert tuple(status.loc[0, ["code_version", "data_version", "model_version", "pid"]]) == (
        "c1",
        "d7",
        "m3",
        os.getpid(),
    )
    assert (status["finished_at"] >= status["started_at"])[status["status"] != "pending"].all()
    with pytest.raises(ParameterError, match=r"distinct names. Received: a, a"):
        start(ledger, steps=("a", "a"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LedgerError("a rule\nand more"), "a rule"),
        (KeyError("SPX"), "KeyError: 'SPX'"),
        (MemoryError(), "MemoryError"),
        (KeyboardInterrupt(), "interrupted"),
    ],
)
def test_a_reason_says_what_went_wrong_whatever_it_is(error: BaseException, said: str) -> None:
    assert reason_of(error) == said


def test_status_gives_the_last_evenings(ledger: Ledger) -> None:
    for day, job in itertools.product(range(1, 5), ("us", "de")):
        start(ledger, datetime.date(2024, 2, day), job=job, steps=("score",))
    assert len(ledger.status(evenings=2)) == 4
    whole = ledger.status("de", evenings=9)
    evenings = sorted(set(whole["as_of"].dt.date))
    until = ledger.status("de", evenings=1, as_of=evenings[-2])
    assert set(until["as_of"].dt.date) == {evenings[-2]}
    assert ledger.status("de", as_of=evenings[0] - datetime.timedelta(days=1)).empty
    status = ledger.status("de", evenings=3)
    assert list(status["as_of"].dt.day) == [2, 3, 4]
    assert set(status["job"]) == {"de"}
    assert ledger.status("none").empty
    assert list(ledger.status("none").columns) == list(status.columns)


def holding(url: str, name: str, seconds: float) -> tuple[Any, int]:
    """A process that is doing a step, and its id."""
    answers = PROCESSES.Queue()
    process = PROCESSES.Process(target=ledger_processes.hold, args=(url, name, answers, seconds))
    process.start()
    pid = int(answers.get(timeout=60))
    return process, pid


def test_a_second_process_stops_or_waits(url: str, ledger: Ledger) -> None:
    process, pid = holding(url, "train", 1.5)
    run = start(ledger)
    with (
        pytest.raises(LedgerBusyError, match="one process at a time does a step: 'train' of us for") as error,
        run.step("train", code_version="c1"),
    ):
        pass
    assert f"is being done by process {pid} on {socket.gethostname()} since" in one_line(error)
    with run.step("train", code_version="c1", wait=60) as step:
        assert step is None
    process.join()
    assert attempts(ledger) == [("train", 1, "done", None)]


def test_a_dead_process_is_recognised_and_its_step_taken_over(url: str, ledger: Ledger) -> None:
    process, pid = holding(url, "train", 600)
    assert attempts(ledger) == [("train", 1, "running", None)]
    os.kill(pid, signal.SIGSTOP)
    # It still lives, and may go on at any time.
    with pytest.raises(LedgerBusyError), start(ledger).step("train", code_version="c1"):
        pass
    os.kill(pid, signal.SIGKILL)
    process.join()
    died = f"process {pid} on {socket.gethostname()} died in the middle of it"
    assert attempts(ledger) == [("train", 1, "failed", died)]
    with start(ledger).step("train", code_version="c1") as step:
        assert step is not None
        assert attempts(ledger) == [("train", 1, "failed", died), ("train", 2, "running", None)]


@pytest.mark.parametrize(
    ("column", "value"), [("host", "'another'"), ("process", "'other-boot/pid:[1]/1'"), ("process", "''")]
)
def test_a_process_of_another_machine_keeps_its_step_while_it_renews_it(
    url: str, ledger: Ledger, column: str, value: str
) -> None:
    run = start(ledger)

    def lose() -> None:
        with run.step("train", code_version="c1"):
            plain(url, f"UPDATE steps SET {column} = {value}")
            with pytest.raises(LedgerBusyError), run.step("train", code_version="c1"):
                pass
            plain(url, "UPDATE steps SET lease_until = '2024-01-01 00:00:00.000000'")
            assert attempts(ledger)[0][2] == "failed"
            with run.step("train", code_version="c1") as step:
                assert step is not None

    with pytest.raises(
        LedgerError, match="loses its step, and another took this one over: attempt 1"
    ) as error:
        lose()
    one_line(error)
    assert [(row[1], row[2]) for row in attempts(ledger)] == [(1, "failed"), (2, "done")]


def test_an_id_that_was_given_again_is_not_taken_for_the_process(url: str, ledger: Ledger) -> None:
    run = start(ledger)

    def lose() -> None:
        with run.step("train", code_version="c1"):
            (process,) = plain(url, "SELECT process FROM steps")[0]
            plain(url, f"UPDATE steps SET process = '{process.rpartition('/')[0]}/1'")
            with run.step("train", code_version="c1") as step:
                assert step is not None

    with pytest.raises(LedgerError, match="took this one over"):
        lose()


@pytest.mark.slow
def test_a_lease_is_renewed(url: str, ledger: Ledger) -> None:
    with start(ledger).step("train", code_version="c1"):
        (first,) = plain(url, "SELECT lease_until FROM steps")[0]
        time.sleep(LEASE.total_seconds() / 4 + 3)
        (later,) = plain(url, "SELECT lease_until FROM steps")[0]
        assert later > first
    assert plain(url, "SELECT lease_until FROM steps") == [(None,)]


def test_of_four_processes_that_do_all_steps_each_step_is_done_by_one(url: str, tmp_path: Path) -> None:
    place = tmp_path / "done"
    gathered(ledger_processes.count, [(url, str(place))] * 4)
    assert place.read_text().split() == [f"s{number}" for number in range(10)]


# ------------------------------------------------------------------------------------- the track record


def year(ledger: Ledger, seed: int = 3) -> pd.DataFrame:
    """Ten evenings of two models, some of them late for a symbol, with outcomes of the first eight."""
    days = [day.date() for day in pd.bdate_range("2024-03-01", periods=10)]
    for number, day in enumerate(days):
        run = start(ledger, day)
        for model in ("ewma", "gjr"):
            frame = table(4, day, model, seed=seed)
            issue(ledger, run, frame.assign(late=(frame["symbol"] == "S0002") & (number % 3 == 0)))
    forecasts = ledger.forecasts("us")
    mine = forecasts["origin"].between(pd.Timestamp(days[0]), pd.Timestamp(days[7]))
    known = outcomes_of(forecasts[mine])
    for _, part in known.groupby("target"):
        ledger.record_outcomes("us", part, data_version="d9")
    return ledger.forecasts("us")


def test_the_track_record_is_that_of_the_forecasts_in_time(ledger: Ledger) -> None:
    forecasts = year(ledger)
    assert forecasts["y"].notna().sum() == 8 * 16
    losses = pd.concat([forecasts, row_scores(forecasts)], axis=1)
    losses = losses[~losses["late"] & losses["y"].notna()]
    assert len(losses) == 8 * 16 - 3 * 4
    record = ledger.track_record("us")
    expected = losses.groupby(["model", "horizon"])[list(SCORES)].mean().reset_index()
    pd.testing.assert_frame_equal(record[expected.columns], expected, check_exact=False, rtol=1e-12)
    assert list(record["forecasts"]) == [len(losses) // 4] * 4
    assert set(record["first_origin"]) == {pd.Timestamp("2024-03-01")}
    assert set(record["last_origin"]) == {pd.Timestamp("2024-03-12")}

    start_, end = datetime.date(2024, 3, 5), datetime.date(2024, 3, 8)
    part = losses[losses["origin"].between(pd.Timestamp(start_), pd.Timestamp(end))]
    record = ledger.track_record("us", start=start_, end=end)
    expected = part.groupby(["model", "horizon"])[list(SCORES)].mean().reset_index()
    pd.testing.assert_frame_equal(record[expected.columns], expected, check_exact=False, rtol=1e-12)

    daily = ledger.track_record("us", by_origin=True)
    expected = losses.groupby(["model", "horizon", "origin"])[list(SCORES)].mean().reset_index()
    pd.testing.assert_frame_equal(daily[expected.columns], expected, check_exact=False, rtol=1e-12)

    rows = ledger.scores("us", start=start_, end=end)
    columns = ["model", "symbol", "origin", "horizon", *SCORES]
    expected = part[columns].reset_index(drop=True)
    pd.testing.assert_frame_equal(rows, expected, check_exact=False, rtol=1e-12)
    assert ledger.track_record("none").empty
    assert ledger.scores("none").empty


def test_outcomes_are_pending_until_they_are_recorded_once(url: str, ledger: Ledger) -> None:
    year(ledger)
    pending = ledger.pending_outcomes("us", since=SESSION)
    assert list(pending.columns) == ["symbol", "origin", "horizon"]
    assert len(pending) == 2 * 8
    assert set(pending["origin"]) == {pd.Timestamp("2024-03-13"), pd.Timestamp("2024-03-14")}
    assert len(ledger.pending_outcomes("us", since=datetime.date(2024, 3, 14))) == 8
    assert ledger.pending_outcomes("none", since=SESSION).empty

    rest = outcomes_of(pending, seed=1)
    before = everything(url)["forecasts"]
    scored = ledger.record_outcomes("us", rest, data_version="d9")
    # S0002 is late on one of the two evenings, for both models.
    assert (scored.outcomes, scored.scores) == (16, 32 - 4 if pending_late(ledger) else 32)
    again = ledger.record_outcomes("us", rest, data_version="d10")
    assert (again.outcomes, again.scores) == (0, 0)
    assert ledger.pending_outcomes("us", since=SESSION).empty
    other = rest.assign(y=rest["y"] + 1e-9)
    with pytest.raises(
        LedgerError, match="16 were recorded before with another value, such as S0000, 2024-03-13"
    ) as error:
        ledger.record_outcomes("us", other, data_version="d10")
    one_line(error)
    assert everything(url)["forecasts"] == before


def pending_late(ledger: Ledger) -> bool:
    forecasts = ledger.forecasts("us", start=datetime.date(2024, 3, 13))
    return bool(forecasts["late"].any())


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda frame: frame.drop(columns="target"), "Missing: target"),
        (change(y=math.nan), "an outcome is a finite number. Received: S0000, 2024-01-05 without one"),
        (
            lambda frame: frame.assign(target=frame["origin"]),
            "an outcome comes after its origin",
        ),
        (
            lambda frame: pd.concat([frame, frame]),
            "one outcome a symbol, origin and horizon",
        ),
    ],
)
def test_what_is_no_outcome_is_not_recorded(
    tmp_path: Path, spoil: Callable[[pd.DataFrame], pd.DataFrame], said: str
) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        issue(ledger, start(ledger), table(2))
        known = outcomes_of(ledger.forecasts("us"))
        with pytest.raises(ParameterError, match=re.escape(said)) as error:
            ledger.record_outcomes("us", spoil(known), data_version="d2")
        one_line(error)
        with pytest.raises(LedgerError, match="Received: 'eu'; start a run first"):
            ledger.record_outcomes("eu", known, data_version="d2")
        assert ledger.track_record("us").empty


def test_the_latest_forecasts_are_those_of_the_last_evening(ledger: Ledger) -> None:
    assert ledger.latest("us").empty
    issue(ledger, start(ledger), table(3))
    # One symbol's exchange was closed: it has its forecast already.
    evening = pd.concat([table(3, NEXT).query("symbol != 'S0001'"), table(2, NEXT, "gjr")])
    issue(ledger, start(ledger, NEXT), evening)
    issue(ledger, start(ledger, datetime.date(2024, 2, 1), job="other"), table(1))
    latest = ledger.latest("us")
    assert list(zip(latest["model"], latest["symbol"], latest["horizon"], strict=True)) == [
        (model, symbol, horizon)
        for model, symbol in (("ewma", "S0000"), ("ewma", "S0002"), ("gjr", "S0000"), ("gjr", "S0001"))
        for horizon in (1, 5)
    ]
    assert set(latest["as_of"]) == {pd.Timestamp(NEXT)}
    # An evening that is done after later ones asks for what was issued up to it.
    before = NEXT - datetime.timedelta(days=1)
    pd.testing.assert_frame_equal(ledger.latest("us", before), ledger.forecasts("us", end=SESSION))
    assert ledger.latest("us", SESSION - datetime.timedelta(days=1)).empty
    some = ledger.forecasts("us", models=["ewma"], symbols=["S0001", "S0002"], end=SESSION)
    assert list(some["symbol"]) == ["S0001", "S0001", "S0002", "S0002"]


def test_forecasts_that_had_seen_a_price_are_named(ledger: Ledger) -> None:
    issue(ledger, start(ledger), table(2))
    issue(ledger, start(ledger, NEXT), table(2, NEXT))
    issue(ledger, start(ledger, NEXT, job="other"), table(1, NEXT, horizons=(21,)))
    seen = ledger.seen("S0000", NEXT)
    assert list(zip(seen["job"], seen["horizon"], strict=True)) == [("other", 21), ("us", 1), ("us", 5)]
    assert set(seen["known_at"]) == {pd.Timestamp(KNOWN_AT)}
    assert len(ledger.seen("S0000", SESSION)) == 5
    assert ledger.seen("S0000", datetime.date(2024, 1, 9)).empty


def test_events_and_alerts_are_recorded_once(ledger: Ledger) -> None:
    assert ledger.model_events("us").empty
    for reason in ("first", "again"):
        ledger.record_model_event(
            "us", as_of=SESSION, event="promoted", model="gjr", version="2", reason=reason
        )
    assert list(ledger.model_events("us")["reason"]) == ["first"]
    alert: dict[str, Any] = {"as_of": SESSION, "check": "coverage"}
    assert ledger.record_alert("us", state="warn", reason="narrow", **alert)
    assert not ledger.record_alert("us", state="warn", reason="narrower", **alert)
    assert ledger.record_alert("us", state="fail", reason="broken", **alert)
    found = ledger.alerts("us")
    assert list(zip(found["state"], found["reason"], strict=True)) == [("warn", "narrow"), ("fail", "broken")]
    assert list(found.columns) == ["as_of", "check", "state", "reason", "recorded_at"]
    with pytest.raises(LedgerError, match=r"(?i)refused: .*check"):
        ledger.record_alert("us", state="odd", reason="", **alert)  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- the copies


@pytest.fixture(params=["to sqlite", "to postgresql"])
def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "to sqlite":
        yield f"sqlite:///{tmp_path / 'restored' / 'ledger.db'}"
        return
    running: postgres.Server | None = request.getfixturevalue("server")
    if running is None:
        pytest.skip(postgres.MISSING)
    name = f"restored_{next(_numbers)}"
    yield running.create(name)
    running.drop(name)


def test_a_backup_of_either_database_is_restored_into_either(
    tmp_path: Path, ledger: Ledger, other_url: str
) -> None:
    filled(ledger)
    year(ledger)
    backup = tmp_path / "backups" / "ledger.db"
    ledger.backup(backup)
    content = backup.read_bytes()
    assert [path.name for path in backup.parent.iterdir()] == ["ledger.db"]
    with pytest.raises(LedgerError, match=r"replaces no file. Received: .*, which exists; name another"):
        ledger.backup(backup)
    Ledger.restore(backup, other_url)
    with Ledger.open(other_url) as restored:
        pd.testing.assert_frame_equal(restored.forecasts("us"), ledger.forecasts("us"), check_exact=True)
        pd.testing.assert_frame_equal(restored.scores("us"), ledger.scores("us"), check_exact=True)
        pd.testing.assert_frame_equal(restored.status(), ledger.status())
        pd.testing.assert_frame_equal(restored.model_events("us"), ledger.model_events("us"))
        pd.testing.assert_frame_equal(restored.alerts("us"), ledger.alerts("us"))
        # It goes on: new ids come after the old, and nothing can be changed.
        day = datetime.date(2024, 5, 2)
        assert issue(restored, start(restored, day), table(2, day)) == (4, 0)
        assert restored.latest("us")["id"].min() > ledger.forecasts("us")["id"].max()
    with pytest.raises(DBAPIError, match="never changed"):
        plain(other_url, "DELETE FROM forecasts")
    with pytest.raises(LedgerError, match=r"a backup is restored (to a new file|into an empty database)"):
        Ledger.restore(backup, other_url)
    assert backup.read_bytes() == content


def test_a_backup_is_taken_while_others_write(url: str, tmp_path: Path) -> None:
    answers = PROCESSES.Queue()
    process = PROCESSES.Process(target=ledger_processes.write_on, args=(url, answers))
    process.start()
    assert answers.get(timeout=60) == "begun"
    try:
        with Ledger.open(url) as ledger:
            for number in range(3):
                ledger.backup(tmp_path / f"{number}.db")
                with Ledger.open(tmp_path / f"{number}.db") as copy:
                    sizes = copy.forecasts("us").groupby("origin").size()
                    assert set(sizes) <= {100}
    finally:
        process.kill()
        process.join()


def test_a_damaged_backup_is_refused(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.db") as ledger:
        year(ledger)
        ledger.backup(tmp_path / "backup.db")
    goal = tmp_path / "restored.db"
    content = bytearray((tmp_path / "backup.db").read_bytes())
    content[8192:20000] = os.urandom(20000 - 8192)
    (tmp_path / "damaged.db").write_bytes(content)
    (tmp_path / "empty.db").touch()
    (tmp_path / "text.db").write_text("text " * 1000)
    with closing(sqlite3.connect(tmp_path / "foreign.db")) as connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    for name, said in [
        ("damaged", "damaged.db cannot be used: .*; take an older one"),
        ("empty", "cannot be used: it is empty"),
        ("text", "cannot be used: file is not a database"),
        ("foreign", "is not a ledger: it holds the tables of something else"),
        ("missing", "a backup is a file that `backup` wrote"),
    ]:
        with pytest.raises(LedgerError, match=said) as error:
            Ledger.restore(tmp_path / f"{name}.db", goal)
        one_line(error)
        assert not goal.exists()
