"""The price store against a plain dictionary, killed writers, and writers at once."""

from __future__ import annotations

import datetime
import importlib
import itertools
import math
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3_server
import store_processes
from deltalake import DeltaTable, WriterProperties, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forecaster.errors import DataError, ParameterError, SourceError
from forecaster.prices.base import PRICE_COLUMNS, price_table
from forecaster.prices.store import Fetch, PriceStore
from forecaster.prices.store.table import ConflictError, Location, PricesTable

# A server that has done the imports once and forks for each process.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "forecaster.prices.store",
        "forecaster.prices.base",
        "deltalake",
        "filelock",
        "tenacity",
        "pandas",
        "pyarrow.parquet",
    ]
)

FIRST = datetime.date(2020, 1, 1)
START = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
TICK = datetime.timedelta(microseconds=1)
NOW = datetime.timedelta(0)

Values = tuple[float, ...]


def day(number: int) -> datetime.date:
    return FIRST + datetime.timedelta(days=number)


def moment(number: int) -> datetime.datetime:
    return START + datetime.timedelta(hours=number)


def table(closes: Mapping[int, float], volume: float = math.nan) -> pd.DataFrame:
    """A price table of closes by day number."""
    index = pd.DatetimeIndex([day(number) for number in closes])
    return price_table(pd.DataFrame({"close": list(closes.values()), "volume": volume}, index=index))


def series(store: PriceStore) -> dict[str, tuple[bytes, bytes]]:
    """Sessions and closes of each symbol, to be compared as a whole."""
    flat = store.closes()
    return {
        symbol: (flat.sessions[start:stop].tobytes(), flat.columns["close"][start:stop].tobytes())
        for symbol, (start, stop) in zip(flat.symbols, itertools.pairwise(flat.offsets), strict=True)
    }


# ------------------------------------------------------------------ the oracle


@dataclass(frozen=True)
class Fact:
    """One row: what is known of a symbol and session from a time on."""

    since: datetime.datetime
    values: Values
    status: str
    settled: bool = False
    reason: str | None = None


def same(a: Iterable[float], b: Iterable[float]) -> bool:
    return all(x == y or (math.isnan(x) and math.isnan(y)) for x, y in zip(a, b, strict=True))


GONE = (math.nan,) * len(PRICE_COLUMNS)


@dataclass
class Oracle:
    """The store as a dictionary of lists."""

    facts: dict[tuple[str, datetime.date], list[Fact]] = field(default_factory=dict)
    marks: list[datetime.datetime] = field(default_factory=list)
    first: dict[str, datetime.datetime] = field(default_factory=dict)

    def stamp(self, given: datetime.datetime) -> datetime.datetime:
        return max([given, *(mark + TICK for mark in self.marks[-1:])])

    def write(self, fetches: Mapping[str, Fetch], given: datetime.datetime) -> dict[str, dict[str, int]]:
        now = self.stamp(given)
        counts = {
            symbol: dict.fromkeys(("added", "changed", "removed", "quarantined", "released"), 0)
            for symbol in fetches
        }
        changed = False
        for symbol, fetch in fetches.items():
            self.first.setdefault(symbol, now)
            count = counts[symbol]
            for session, row in zip(fetch.prices.index.date, fetch.prices.to_numpy(), strict=True):
                values = tuple(row.tolist())
                reason = fetch.quarantined.get(session)
                status = "accepted" if reason is None else "quarantined"
                chain = self.facts.setdefault((symbol, session), [])
                if not chain:
                    count["added"] += 1
                elif chain[-1].status == "removed" or not same(chain[-1].values, values):
                    count["changed"] += 1
                elif chain[-1].settled or chain[-1].status == status:
                    continue
                elif status == "accepted":
                    count["released"] += 1
                count["quarantined"] += status == "quarantined"
                chain.append(Fact(now, values, status, reason=reason))
                changed = True
            if fetch.window is not None:
                there = set(fetch.prices.index.date)
                for (name, session), chain in self.facts.items():
                    inside = name == symbol and fetch.window[0] <= session <= fetch.window[1]
                    if inside and session not in there and chain[-1].status != "removed":
                        chain.append(Fact(now, GONE, "removed"))
                        count["removed"] += 1
                        changed = True
        if changed:
            self.marks.append(now)
        return counts

    def settle(
        self, symbol: str, session: datetime.date, decision: str, given: datetime.datetime
    ) -> bool | None:
        chain = self.facts.get((symbol, session))
        if not chain or chain[-1].status == "removed":
            return None
        status = {"accept": "accepted", "reject": "rejected"}[decision]
        if chain[-1].status == status:
            return False
        now = self.stamp(given)
        chain.append(Fact(now, chain[-1].values, status, settled=True, reason="seen"))
        self.marks.append(now)
        return True

    def read(
        self, known_at: datetime.datetime | None = None, as_of: datetime.date | None = None
    ) -> dict[str, dict[datetime.date, Values]]:
        found: dict[str, dict[datetime.date, Values]] = {}
        for (symbol, session), chain in sorted(self.facts.items()):
            known = [fact for fact in chain if known_at is None or fact.since <= known_at]
            if known and known[-1].status == "accepted" and (as_of is None or session <= as_of):
                found.setdefault(symbol, {})[session] = known[-1].values
        return found

    def diff(self, since: datetime.datetime, until: datetime.datetime | None) -> set[tuple[Any, ...]]:
        found = set()
        for (symbol, session), chain in self.facts.items():
            for old, new in itertools.pairwise(chain):
                if since < new.since and (until is None or new.since <= until):
                    for column, a, b in zip(PRICE_COLUMNS, old.values, new.values, strict=True):
                        if not same([a], [b]):
                            found.add(
                                (
                                    symbol,
                                    session,
                                    column,
                                    repr(a),
                                    repr(b),
                                    old.status,
                                    new.status,
                                    old.since,
                                    new.since,
                                )
                            )
        return found

    def needed(self, before: datetime.datetime, keep: list[datetime.datetime]) -> int:
        """Rows that a read of the current state, of a time from `before` on, or of `keep` sees."""
        count = 0
        for chain in self.facts.values():
            ends = [fact.since for fact in chain[1:]]
            for fact, end in itertools.zip_longest(chain, ends):
                count += end is None or end > before or any(fact.since <= mark < end for mark in keep)
        return count

    def with_status(self, status: str) -> set[tuple[str, datetime.date]]:
        return {key for key, chain in self.facts.items() if chain[-1].status == status}


def assert_same_reads(
    store: PriceStore, oracle: Oracle, known_at: datetime.datetime | None, as_of: datetime.date | None
) -> None:
    expected = oracle.read(known_at, as_of)
    read = store.read(known_at=known_at, as_of=as_of)
    assert list(read.frames) == sorted(expected)
    for symbol, rows in expected.items():
        frame = read.frames[symbol]
        assert list(frame.index.date) == sorted(rows)
        np.testing.assert_array_equal(frame.to_numpy(), np.array([rows[session] for session in sorted(rows)]))
        pd.testing.assert_frame_equal(
            store.read([symbol], known_at=known_at, as_of=as_of).frames[symbol], frame
        )
    assert read.first_fetched == {symbol: oracle.first[symbol] for symbol in expected}
    known = [mark for mark in oracle.marks if known_at is None or mark <= known_at]
    assert read.mark == (known_at if known_at is not None and known != oracle.marks else oracle.marks[-1])
    flat = store.closes(("close", "split"), known_at=known_at, as_of=as_of)
    assert flat.symbols == tuple(sorted(expected))
    assert np.diff(flat.offsets).tolist() == [len(expected[symbol]) for symbol in flat.symbols]
    rows = [
        (session, values) for symbol in flat.symbols for session, values in sorted(expected[symbol].items())
    ]
    assert flat.sessions.tolist() == [session for session, _ in rows]
    np.testing.assert_array_equal(flat.columns["close"], [values[3] for _, values in rows])
    np.testing.assert_array_equal(flat.columns["split"], [values[6] for _, values in rows])


def assert_same_diff(
    store: PriceStore, oracle: Oracle, since: datetime.datetime, until: datetime.datetime | None
) -> None:
    found = store.diff(since, until)
    rows = set()
    for row in found.itertuples():
        times = (row.old_fetched_at.to_pydatetime(), row.new_fetched_at.to_pydatetime())
        names = (row.symbol, row.session.date(), row.column)
        rows.add((*names, repr(row.old), repr(row.new), row.old_status, row.new_status, *times))
    assert len(rows) == len(found)
    assert rows == oracle.diff(since, until)


PRICES = st.sampled_from([1.0, 2.0, 2.5, -3.0, 0.0, math.nan])
SYMBOLS = st.sampled_from(["A", "AA", "B", "0700.HK", "é"])


@st.composite
def fetches(draw: st.DrawFn) -> dict[str, Fetch]:
    found = {}
    for symbol in draw(st.lists(SYMBOLS, min_size=1, max_size=3, unique=True)):
        numbers = draw(st.lists(st.integers(0, 9) | st.integers(90, 99), max_size=6, unique=True))
        prices = table({number: draw(PRICES) for number in numbers}, volume=draw(PRICES))
        held = draw(st.lists(st.sampled_from(numbers), unique=True, max_size=2)) if numbers else []
        window = None
        if draw(st.booleans()):
            window = (day(draw(st.integers(-5, 95))), day(draw(st.integers(95, 105))))
        found[symbol] = Fetch(prices, window, {day(number): "jump" for number in held})
    return found


DECISIONS = st.sampled_from(["accept", "reject"])
STEPS = st.one_of(
    st.tuples(st.just("write"), fetches(), st.integers(-2, 3)),
    st.tuples(st.just("again"), st.just(None), st.integers(0, 3)),
    st.tuples(st.just("settle"), st.tuples(SYMBOLS, st.integers(0, 9), DECISIONS), st.integers(-1, 2)),
    st.tuples(st.just("compact"), st.just(None), st.just(0)),
)  # fmt: skip


def compare_with_dictionary(steps: list[Any], size: int, data: st.DataObject) -> None:
    oracle, clock, last = Oracle(), 0, None
    with TemporaryDirectory() as folder:
        store = PriceStore(f"{folder}/store", rows_per_file=size)
        for kind, what, later in [("write", {"A": Fetch(table({1: 1.0}))}, 0), *steps]:
            clock = max(0, clock + later)  # at times the clock goes back
            if kind == "again":
                oracle.write(last or {}, moment(clock))
                counts = store.write(last or {}, fetched_at=moment(clock), source="test").counts
                assert not counts[["added"]].to_numpy().any()
            elif kind == "write":
                last = what
                expected = oracle.write(what, moment(clock))
                result = store.write(what, fetched_at=moment(clock), source="test")
                assert result.counts.T.to_dict() == expected
                assert result.fetched_at >= moment(clock)
            elif kind == "settle":
                symbol, number, decision = what
                expected_change = oracle.settle(symbol, day(number), decision, moment(clock))
                if expected_change is None:
                    with pytest.raises(DataError, match="only a stored session can be settled"):
                        store.settle(symbol, day(number), decision, "seen", decided_at=moment(clock))
                else:
                    assert expected_change == store.settle(
                        symbol, day(number), decision, "seen", decided_at=moment(clock)
                    )
            else:
                assert store.compact().rows_dropped == 0
        times = st.sampled_from([None, moment(-1), *oracle.marks, oracle.marks[-1] + TICK])
        known_at = data.draw(times)
        assert_same_reads(store, oracle, known_at, data.draw(st.sampled_from([None, day(5), day(95)])))
        since, until = data.draw(times.filter(bool)), data.draw(times)
        assert_same_diff(store, oracle, since, until)
        for number in range(2):
            held = store.quarantine()
            found = set(zip(held["symbol"], held["session"].dt.date, strict=True))
            assert found == oracle.with_status("quarantined")
            status = store.status()
            for name in ("quarantined", "rejected", "removed"):
                keys = oracle.with_status(name)
                assert status[name].to_dict() == {s: sum(k == s for k, _ in keys) for s in status.index}
            accepted = oracle.read()
            assert status["sessions"].to_dict() == {s: len(accepted.get(s, {})) for s in status.index}
            if number == 0:
                # Whatever is dropped, the times kept and all from then on read as before.
                before = data.draw(st.sampled_from([oracle.marks[0], *oracle.marks]))
                keep = data.draw(st.lists(st.sampled_from(oracle.marks), max_size=2))
                rows = sum(map(len, oracle.facts.values()))
                assert store.compact(before=before, keep=keep).rows_dropped == rows - oracle.needed(
                    before, keep
                )
                assert DeltaTable(f"{folder}/store/prices").count() == oracle.needed(before, keep)
        for mark in oracle.marks:
            if mark >= before or mark in keep:
                assert_same_reads(store, oracle, mark, None)
            else:
                with pytest.raises(DataError, match="was dropped by `forecaster data compact`"):
                    store.read(known_at=mark)
        assert_same_reads(store, oracle, None, None)
        assert_same_diff(store, oracle, before, None)
        # What is dropped is forgotten, and nothing else: the next write compares as if nothing had been.
        for again in (
            {name: replace(fetch, window=None) for name, fetch in (last or {}).items()},
            *[last] * bool(last),
        ):
            expected = oracle.write(again, moment(clock + 9))
            assert (
                store.write(again, fetched_at=moment(clock + 9), source="test").counts.T.to_dict() == expected
            )
        assert_same_reads(store, oracle, None, None)


MANY_STEPS = st.lists(STEPS, min_size=1, max_size=7)
SIZES = st.sampled_from([3, 8, 2_000_000])
CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large]


@given(steps=MANY_STEPS, size=SIZES, data=st.data())
@settings(max_examples=20, suppress_health_check=CHECKS)
def test_store_equals_a_dictionary(steps: list[Any], size: int, data: st.DataObject) -> None:
    compare_with_dictionary(steps, size, data)


@pytest.mark.slow
@given(steps=MANY_STEPS, size=SIZES, data=st.data())
@settings(max_examples=300, suppress_health_check=CHECKS)
def test_store_equals_a_dictionary_in_many_cases(steps: list[Any], size: int, data: st.DataObject) -> None:
    compare_with_dictionary(steps, size, data)


# ------------------------------------------------------------------ single rules


@pytest.fixture
def store(tmp_path: Path) -> PriceStore:
    """Two symbols, of which one session is held back."""
    store = PriceStore(tmp_path / "store")
    fetches = {
        "A": Fetch(table({1: 1.0, 2: 2.0, 3: 3.0}), (day(0), day(3)), full=True, notice="newly listed"),
        "NO": Fetch(table({2: 5.0, 4: math.nan}), quarantined={day(2): "jump-without-action"}),
    }
    store.write(fetches, fetched_at=moment(0), source="test")
    return store


def test_a_session_missing_outside_the_window_is_not_removed(store: PriceStore) -> None:
    result = store.write({"A": Fetch(table({3: 3.0}), (day(2), day(3)))}, fetched_at=moment(1), source="test")
    assert result.counts.loc["A"].to_dict() == {
        "added": 0, "changed": 0, "removed": 1, "quarantined": 0, "released": 0,
    }  # fmt: skip
    assert store.read().frames["A"]["close"].tolist() == [1.0, 3.0]
    store.write({"A": Fetch(table({3: 3.0}))}, fetched_at=moment(2), source="test")
    assert store.read().frames["A"]["close"].tolist() == [1.0, 3.0]


def test_tolerance_decides_what_a_restatement_is(store: PriceStore) -> None:
    noisy = {"A": Fetch(table({1: 1.0 + 1e-8, 2: 2.0, 3: 3.0 * (1 + 1e-5)}))}
    result = store.write(noisy, fetched_at=moment(1), source="test", tolerance=1e-6)
    assert result.counts.loc["A", "changed"] == 1
    assert store.read().frames["A"]["close"].tolist() == [1.0, 2.0, 3.0 * (1 + 1e-5)]
    result = store.write(noisy, fetched_at=moment(2), source="test")
    assert result.counts.loc["A", "changed"] == 1
    assert result.restatements[["column", "old", "new"]].to_numpy().tolist() == [["close", 1.0, 1.0 + 1e-8]]


def test_a_late_write_does_not_change_what_was_known(store: PriceStore) -> None:
    store.write({"A": Fetch(table({4: 4.0}))}, fetched_at=moment(5), source="test")
    before = store.read()
    late = store.write({"A": Fetch(table({2: 2.5}))}, fetched_at=moment(1), source="test")
    assert late.fetched_at == before.mark + TICK == store.mark()
    again = store.read(known_at=before.mark)
    assert again.mark == before.mark
    pd.testing.assert_frame_equal(again.frames["A"], before.frames["A"])
    assert store.read(version=before.version).frames["A"].equals(before.frames["A"])
    assert store.read().frames["A"]["close"].tolist() == [1.0, 2.5, 3.0, 4.0]


def test_compaction_keeps_what_a_kept_mark_saw_and_no_more(store: PriceStore) -> None:
    for number in (1, 2, 3):
        store.write({"A": Fetch(table({1: 1.0 + number}))}, fetched_at=moment(number), source="test")
    done = store.compact(before=moment(3), keep=[moment(0), moment(1)])
    assert (done.rows_dropped, done.lost) == (1, ())
    for known_at, close in ((0, 1.0), (1, 2.0), (3, 4.0), (4, 4.0), (None, 4.0)):
        read = store.read(["A"], known_at=None if known_at is None else moment(known_at))
        assert read.frames["A"]["close"].tolist() == [close, 2.0, 3.0]
    for dropped in (moment(0) - TICK, moment(1) + TICK, moment(2), moment(3) - TICK):
        error = (
            f"what was known at {dropped.isoformat()} was dropped by `forecaster data compact`; times from"
        )
        with pytest.raises(DataError, match=re.escape(error)):
            store.read(known_at=dropped)
    # Later, another mark is wanted, which is gone, and this one no more; what was said before still holds.
    done = store.compact(before=moment(2), keep=[moment(2)])
    assert (done.rows_dropped, done.lost) == (2, (moment(2),))
    with pytest.raises(DataError, match=r"03:00:00\+00:00 on can be read"):
        store.read(known_at=moment(1))
    assert store.read(known_at=moment(3)).frames["A"]["close"].tolist() == [4.0, 2.0, 3.0]
    # The one row that is left of the session is a base row again.
    files = DeltaTable(f"{store.url}/prices").get_add_actions(flatten=True)
    counts = pa.table(files).group_by("partition.amended").aggregate([("num_records", "sum")]).to_pydict()
    rows = dict(zip(counts["partition.amended"], counts["num_records_sum"], strict=True))
    assert rows == {False: 4, True: 1}


def test_status_and_quarantine_say_what_is_there(store: PriceStore) -> None:
    store.write({"A": Fetch(table({1: 1.5}), notice="delisted")}, fetched_at=moment(1), source="other")
    status = store.status()
    assert status.loc["A"].to_dict() == {
        "sessions": 3, "first_session": pd.Timestamp(day(1)), "last_session": pd.Timestamp(day(3)),
        "quarantined": 0, "rejected": 0, "removed": 0, "restated": 1, "first_fetched": moment(0),
        "last_fetched": moment(1), "last_full": moment(0), "source": "other", "notice": "delisted",
    }  # fmt: skip
    assert status.loc["NO", ["sessions", "quarantined"]].tolist() == [1, 1]
    held = store.quarantine()
    assert held[["symbol", "session", "close", "reason", "source"]].to_numpy().tolist() == [
        ["NO", pd.Timestamp(day(2)), 5.0, "jump-without-action", "test"]
    ]
    assert store.quarantine(["A"]).empty
    assert store.settle("NO", day(2), "accept", "as the exchange said")
    assert store.quarantine().empty
    assert store.read(["NO"]).frames["NO"]["close"].tolist()[0] == 5.0
    # The decision holds while the checks object to the same prices, and ends with them.
    held_again = {"NO": Fetch(table({2: 5.0}), quarantined={day(2): "jump-without-action"})}
    assert store.write(held_again, fetched_at=moment(2), source="test").counts.loc["NO", "quarantined"] == 0
    other = {"NO": Fetch(table({2: 6.0}), quarantined={day(2): "jump-without-action"})}
    assert store.write(other, fetched_at=moment(3), source="test").counts.loc["NO", "quarantined"] == 1
    assert day(2) not in store.read(["NO"]).frames["NO"].index.date


def test_other_tools_read_the_same_by_the_documented_view(store: PriceStore) -> None:
    store.write({"A": Fetch(table({2: 2.5}), (day(1), day(3)))}, fetched_at=moment(1), source="test")
    documentation = importlib.import_module("forecaster.prices.store.store").__doc__ or ""
    view = documentation.partition("one view::")[2].partition("\n\nand what")[0]
    for times, known_at in (
        ("", None),
        (" WHERE fetched_at <= TIMESTAMPTZ '2024-01-01 00:30:00+00'", moment(0)),
    ):
        files = f"read_parquet({DeltaTable(f'{store.url}/prices').file_uris()})"
        query = view.replace("delta_scan('workspace/prices/prices')", files + times)
        found = duckdb.sql(f"SELECT symbol, session, close FROM ({query}) ORDER BY ALL").fetchall()
        frames = store.read(known_at=known_at).frames
        rows = [
            (name, at.date(), close) for name, frame in frames.items() for at, close in frame["close"].items()
        ]
        assert [row[:2] for row in found] == [row[:2] for row in rows]
        np.testing.assert_array_equal([row[2] or math.nan for row in found], [row[2] for row in rows])


def test_a_commit_after_another_writers_is_refused_and_tried_again(store: PriceStore) -> None:
    prices = PricesTable(Location(store.url))
    tries = []

    def work(table: DeltaTable) -> int:
        if not tries:  # somebody else is faster
            prices.commit(prices.create(), (), 10**15)
        tries.append(table.version())
        return prices.commit(table, (), 10**15 + 1)

    assert prices.attempt(work) == 3
    assert tries == [1, 2]
    assert prices.mark(prices.create()) == 10**15 + 1


def test_large_writes_are_laid_out_by_age_and_symbol(tmp_path: Path) -> None:
    store = PriceStore(tmp_path / "store", rows_per_file=100)
    prices = table({number: 1.0 + number for number in range(100)})
    names = [f"S{number}" for number in range(10)]
    store.write({name: Fetch(prices) for name in names}, fetched_at=moment(0), source="test")

    def spans() -> set[tuple[Any, ...]]:
        actions = pa.table(DeltaTable(tmp_path / "store/prices").get_add_actions(flatten=True)).to_pylist()
        keys = ("min.symbol", "max.symbol", "min.session", "max.session", "num_records")
        return {tuple(action[key] for key in keys) for action in actions}

    # The last 60 days are apart; every file holds whole symbols, about a hundred rows.
    for last, rows in ((39, 40), (99, 60)):
        tier = sorted(span for span in spans() if span[3] == day(last))
        assert sum(span[4] for span in tier) == 10 * rows
        assert all(before[1] < after[0] for before, after in itertools.pairwise(tier))
        assert {span[4] for span in tier} <= {60, 80, 120}
    for number in range(100, 103):
        new = table({number: 1.0 + number})
        store.write({name: Fetch(new) for name in names}, fetched_at=moment(number), source="test")
    before = store.read()
    old, count = {span for span in spans() if span[3] == day(39)}, len(spans())
    assert store.compact().files_after < count
    assert old <= spans()
    again = store.read()
    assert store.compact().files_before == store.compact().files_after == len(spans())
    for name in names:
        pd.testing.assert_frame_equal(again.frames[name], before.frames[name])


def test_an_object_store_does_as_a_folder_does(tmp_path: Path) -> None:
    store = PriceStore(tmp_path / "store")
    with s3_server.bucket() as options:
        remote = PriceStore("s3://bucket/some prices", options)
        assert not remote.exists()
        with pytest.raises(SourceError, match=r"there is no price store at s3://bucket/some prices"):
            remote.read()
        for edition in (1, 2):
            fetches = {name: store_processes.history(number, edition) for number, name in enumerate("AB")}
            for place in (store, remote):
                place.write(fetches, fetched_at=moment(edition), source="test")
        # Two writers that started from the same version: the bucket refuses the second commit.
        prices = PricesTable(Location(remote.url, options))
        one, other = prices.create(), prices.create()
        prices.commit(one, (), 10**15)
        with pytest.raises(ConflictError):
            prices.commit(other, (), 10**15)
        for _ in range(2):
            for name in "AB":
                pd.testing.assert_frame_equal(remote.read().frames[name], store.read().frames[name])
            assert remote.compact(vacuum_after=NOW).files_after == 2


def test_rows_that_another_program_rewrote_out_of_order_are_read(tmp_path: Path) -> None:
    store = PriceStore(tmp_path / "store")
    names = [f"S{number}" for number in range(9)]
    store.write(
        {name: Fetch(table(dict.fromkeys(range(40), 1.0))) for name in names},
        fetched_at=moment(0),
        source="test",
    )
    store.write({"S1": Fetch(table({1: 2.0, 50: 2.0}))}, fetched_at=moment(1), source="test")
    before = store.read()
    url = f"{store.url}/prices"
    data = DeltaTable(url).to_pyarrow_table()
    order = np.random.default_rng(0).permutation(len(data))
    properties = WriterProperties(max_row_group_size=16)
    write_deltalake(url, data.take(order), mode="overwrite", writer_properties=properties)
    again = store.read()
    for name in names:
        pd.testing.assert_frame_equal(again.frames[name], before.frames[name])


# ------------------------------------------------------------------ errors


def test_a_place_without_a_store_is_said(tmp_path: Path) -> None:
    store = PriceStore(tmp_path / "none")
    assert not store.exists()
    with pytest.raises(
        SourceError, match=r"there is no price store at .*none; `forecaster ingest` makes one"
    ):
        store.read()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("action", ["read", "write"])
def test_a_folder_of_other_things_is_refused(tmp_path: Path, action: str) -> None:
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(SourceError, match=r"needs a folder of its own; .* holds 'photo.jpg'; give another"):
        act(PriceStore(tmp_path), action)
    with pytest.raises(SourceError, match=r"a price store is a folder; .*photo.jpg is a file"):
        act(PriceStore(tmp_path / "photo.jpg"), action)


def act(store: PriceStore, action: str) -> None:
    if action == "read":
        store.read()
    else:
        store.write({"A": Fetch(table({1: 1.0}))}, fetched_at=moment(9), source="test")


@pytest.mark.parametrize("action", ["read", "write"])
@pytest.mark.parametrize(
    ("properties", "error"),
    [
        ({}, "is a Delta table, but not one of a price store: it lacks the property `forecaster.schema`"),
        ({"forecaster.schema": "99"}, "has schema 99 and this program reads up to 1; install the newer"),
    ],
)
def test_a_table_of_others_is_refused(
    tmp_path: Path, properties: dict[str, str], error: str, action: str
) -> None:
    DeltaTable.create(
        str(tmp_path / "prices"), pa.schema([("symbol", pa.string())]), configuration=properties,
        raise_if_key_not_exists=False,
    )  # fmt: skip
    with pytest.raises(SourceError, match=error):
        act(PriceStore(tmp_path), action)


@pytest.mark.parametrize("action", ["read", "write"])
def test_a_damaged_store_is_said(store: PriceStore, action: str) -> None:
    log = Path(store.url) / "prices/_delta_log/00000000000000000001.json"
    text = log.read_text(encoding="utf-8")
    log.write_text(text[: len(text) // 2], encoding="utf-8")
    with pytest.raises(
        SourceError, match=r"the price store .* cannot be opened: .*; see that it can be reached, or restore"
    ):
        act(store, action)
    log.write_text(text, encoding="utf-8")
    next(Path(store.url).rglob("amended=false/*.parquet")).write_bytes(b"PAR1 no more PAR1")
    with pytest.raises(SourceError, match=r"must be undamaged and open to read; found: "):
        act(store, action)


def test_a_session_that_is_no_date_is_said(store: PriceStore) -> None:
    for path in Path(store.url).rglob("amended=false/*.parquet"):
        rows = pq.read_table(path)
        days = pa.array([2_000_000_000] * len(rows), pa.int32()).cast(pa.date32())
        pq.write_table(rows.set_column(rows.schema.get_field_index("session"), "session", days), path)
    with pytest.raises(SourceError, match=r"undamaged and open to read; found: a session that is no date"):
        store.read()


def test_a_version_that_is_not_there_is_said(store: PriceStore) -> None:
    with pytest.raises(SourceError, match=r"version 99 of the price store .* cannot be opened"):
        store.read(version=99)


def test_a_store_that_may_not_be_written_is_read_all_the_same(store: PriceStore) -> None:
    # A process of its own: root, which may write everywhere, becomes nobody there.
    arguments = [sys.executable, store_processes.__file__, store.url]
    for path in (Path(store.url), *Path(store.url).parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(0o555 if path == Path(store.url) else 0o755)
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    Path(store.url).chmod(0o755)
    assert done.stdout.splitlines()[0] == "['A', 'NO']", done.stderr
    assert "must be open to write; the system says: [Errno 13] Permission denied" in done.stdout


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"fetched_at": datetime.datetime(2024, 1, 1)}, "`fetched_at` must have a time zone"),
        ({"fetched_at": datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC)}, "must not lie in the future"),
        ({"tolerance": math.nan}, "`tolerance` must be at least 0 and below 1. Received: nan"),
        ({"source": ""}, "`source` must name where the prices came from"),
        ({"fetches": {"": Fetch(table({}))}}, "a symbol must be printable text. Received: ''"),
        ({"fetches": {"A": Fetch(table({1: 1.0})[["close"]])}}, "Missing for A: open, high, low, volume"),
        ({"fetches": {"A": Fetch(pd.concat([table({1: 1.0})] * 2))}}, "Twice for A: 2020-01-02"),
        ({"fetches": {"A": Fetch(table({1: 1.0}).tz_localize("UTC"))}}, "dates without a time zone"),
        ({"fetches": {"A": Fetch(table({1: 1.0}), quarantined={day(2): "x"})}}, "Not one of A: 2020-01-03"),
        ({"fetches": {"A": Fetch(table({}), (day(2), day(1)))}}, "Received for A: 2020-01-03 to 2020-01-02"),
    ],
)  # fmt: skip
def test_wrong_arguments_of_a_write_are_refused(tmp_path: Path, change: dict[str, Any], error: str) -> None:
    arguments = {"fetches": {}, "fetched_at": moment(0), "source": "test", **change}
    with pytest.raises(ParameterError, match=re.escape(error)):
        PriceStore(tmp_path / "store").write(arguments.pop("fetches"), **arguments)
    assert not (tmp_path / "store").exists()


def test_wrong_arguments_of_the_others_are_refused(store: PriceStore) -> None:
    with pytest.raises(ParameterError, match=r"`decision` must be 'accept' or 'reject'. Received: 'maybe'"):
        store.settle("NO", day(2), "maybe", "because")  # type: ignore[arg-type]
    with pytest.raises(ParameterError, match=r"`reason` must say why"):
        store.settle("NO", day(2), "accept", " ")
    with pytest.raises(DataError, match=r"ZZ 2020-01-03 is not in the store; `forecaster data quarantine`"):
        store.settle("ZZ", day(2), "accept", "because")
    with pytest.raises(ParameterError, match=r"a sequence of symbols, not one text. Received: 'NO'"):
        store.read("NO")
    with pytest.raises(ParameterError, match=r"`columns` must be some of open, .*\('adjusted',\)"):
        store.closes(("adjusted",))
    with pytest.raises(ParameterError, match="`vacuum_after` must not be negative"):
        store.compact(vacuum_after=datetime.timedelta(days=-1))
    with pytest.raises(ParameterError, match="`before` must not lie in the future"):
        store.compact(before=datetime.datetime(2999, 1, 1, tzinfo=datetime.UTC))
    with pytest.raises(ParameterError, match=r"`rows_per_file` must be at least 1. Received: 0"):
        PriceStore(store.url, rows_per_file=0)
    store.compact(before=moment(3))
    with pytest.raises(DataError, match=r"restatements are kept from 2024-01-01T03:00:00\+00:00 on"):
        store.diff(moment(2))
    assert store.read(["ZZ"]).frames == {}


# ------------------------------------------------------------------ processes


def rows_of(url: str | Path) -> pd.DataFrame:
    """Every row of a store as another tool sees it, without the times."""
    files = DeltaTable(f"{url}/prices").file_uris()
    query = duckdb.sql("SELECT * FROM read_parquet($files)", params={"files": files})
    rows = query.to_arrow_table().to_pandas(date_as_object=False)
    return rows.drop(columns=["fetched_at", "source"]).sort_values(
        ["symbol", "session", "revision"], ignore_index=True
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, float]:
    """A store of 200 symbols after the first edition, one after the second, and the time between them."""
    first, second = tmp_path_factory.mktemp("stores") / "first", tmp_path_factory.mktemp("stores") / "second"
    store_processes.ingest(str(first), list(range(200)), 1, 200)
    shutil.copytree(first, second)
    begun = time.monotonic()
    process = PROCESSES.Process(target=store_processes.ingest, args=(str(second), list(range(200)), 2, 20))
    process.start()
    process.join()
    assert process.exitcode == 0
    return first, second, time.monotonic() - begun


@pytest.mark.parametrize("kills", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_a_killed_writer_leaves_the_last_good_version(
    kills: int, undisturbed: tuple[Path, Path, float], tmp_path: Path
) -> None:
    first, second, seconds = undisturbed
    url = tmp_path / "store"
    shutil.copytree(first, url)
    whole = {edition: series(PriceStore(path)) for edition, path in ((1, first), (2, second))}
    random = np.random.default_rng(kills)
    midway = 0
    for _ in range(kills):
        arguments = (str(url), list(range(200)), 2, 20)
        process = PROCESSES.Process(target=store_processes.ingest, args=arguments)
        process.start()
        time.sleep(random.uniform(0, seconds))
        process.kill()
        process.join()
        found = series(PriceStore(url))
        # Each batch of twenty symbols is there as a whole or not at all.
        editions = []
        for start in range(0, 200, 20):
            names = [store_processes.symbol(number) for number in range(start, start + 20)]
            part = {name: found[name] for name in names}
            editions += [
                edition for edition in whole if part == {name: whole[edition][name] for name in names}
            ]
        assert len(editions) == 10
        midway += len(set(editions)) == 2
        if set(editions) == {2}:  # it was through: the next is killed on its way from the first edition again
            pd.testing.assert_frame_equal(rows_of(url), rows_of(second))
            shutil.rmtree(url)
            shutil.copytree(first, url)
    assert midway
    store_processes.ingest(str(url), list(range(200)), 2, 20)
    pd.testing.assert_frame_equal(rows_of(url), rows_of(second))
    compacted = PriceStore(url).compact(vacuum_after=NOW)
    assert compacted.files_after < compacted.files_before
    pd.testing.assert_frame_equal(rows_of(url), rows_of(second))
    left = {path.name for path in (url / "prices").rglob("*.parquet") if "_delta_log" not in path.parts}
    assert len(left) == compacted.files_after


@pytest.mark.parametrize("scheme", ["", "file://"], ids=["lock", "conflicts"])
def test_threads_lose_and_double_nothing(scheme: str, tmp_path: Path) -> None:
    url = f"{scheme}{tmp_path / 'store'}"
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(store_processes.ingest_own_session, [url] * 4, [[0, 1, 2]] * 4, range(4)))
    found = rows_of(tmp_path / "store")
    own = found[found["session"] >= pd.Timestamp(2024, 1, 1)]
    assert len(own) == 12
    assert not found.duplicated(["symbol", "session"]).any()
    assert len(found) == 12 + sum(len(store_processes.history(number, 2).prices) for number in range(3))


@pytest.mark.parametrize("scheme", ["", "file://"], ids=["lock", "conflicts"])
def test_eight_processes_lose_and_double_nothing(
    scheme: str, undisturbed: tuple[Path, Path, float], tmp_path: Path
) -> None:
    first, second, _ = undisturbed
    numbers = list(range(8))
    shutil.copytree(first, tmp_path / "store")
    url = f"{scheme}{tmp_path / 'store'}"
    processes = []
    for place in range(8):
        mine = np.random.default_rng(place).permutation(numbers)[:5].tolist()
        processes.append(
            (
                place,
                mine,
                PROCESSES.Process(target=store_processes.ingest_own_session, args=(url, mine, place)),
            )
        )
    for _, _, process in processes:
        process.start()
    for _, _, process in processes:
        process.join()
        assert process.exitcode == 0
    expected = rows_of(second)
    expected = expected[expected["symbol"].isin([store_processes.symbol(number) for number in numbers])]
    found = rows_of(tmp_path / "store")
    own = found["session"] >= pd.Timestamp(2024, 1, 1)
    assert not found.duplicated(["symbol", "session", "revision"]).any()
    wrote = {(store_processes.symbol(number), place) for place, mine, _ in processes for number in mine}
    assert set(zip(found["symbol"][own], found["session"][own].dt.day - 1, strict=True)) == wrote
    assert own.sum() == len(wrote)
    touched = found[~own & found["symbol"].isin({name for name, _ in wrote})]
    pd.testing.assert_frame_equal(
        touched.reset_index(drop=True),
        expected[expected["symbol"].isin({name for name, _ in wrote})].reset_index(drop=True),
    )
