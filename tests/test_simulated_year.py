"""Evenings that go wrong: whatever happens, the ledger ends as if nothing had.

The clock moves session by session over bundled prices, which a server on this machine gives out as they come.
One world is left in peace; in the other sources fail, disks are full, files are damaged and processes are
killed. Both get the same data, so both ledgers hold the same forecasts, outcomes and scores, to the bit.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import random
import shutil
import sqlite3
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import postgres
import pytest
from nights import (
    LIGHT_MODELS,
    NETWORK,
    Market,
    evening,
    evening_at,
    killed_evening,
    reasons,
    says,
    write_job,
)
from yahoo_server import Fault, YahooServer

from forecaster.errors import ForecasterError
from forecaster.ledger import Ledger
from pipelines.reproduce import reproduce_forecast

MONTH = (datetime.date(2018, 1, 2), datetime.date(2018, 1, 31))
YEAR = (datetime.date(2017, 10, 2), datetime.date(2018, 9, 28))
HOLIDAY = datetime.date(2018, 1, 15)
LOCK = 0x666F7265
"""The lock that every ledger in PostgreSQL takes to write."""

_numbers = itertools.count()


@pytest.fixture(scope="module")
def database_server() -> Iterator[postgres.Server | None]:
    with postgres.running() as running:
        yield running


@pytest.fixture(scope="module")
def urls(
    database_server: postgres.Server | None, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], str]:
    """Give new ledgers in either database."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return str(tmp_path_factory.mktemp("ledger") / "ledger.db")
        if database_server is None:
            pytest.skip(postgres.MISSING)
        return database_server.create(f"year_{next(_numbers)}")

    return make


@dataclass
class World:
    """A job on a market, and what happens to it."""

    path: Path
    url: str
    server: YahooServer
    store: Path
    market: Market
    random: random.Random
    seen: set[str] = field(default_factory=set)

    def calm(self, day: datetime.date) -> None:
        """An evening on which nothing goes wrong."""
        self.market.arrive(day)
        evening(self.path, self.server.url, day)

    def disturbed(self, day: datetime.date, fault: str) -> None:
        """An evening on which something does, and which is begun again until it is done."""
        self.market.arrive(day)
        getattr(self, f"_{fault}")(day)
        for _ in range(5):
            try:
                night = evening(self.path, self.server.url, day)
            except ForecasterError:
                continue
            if "failed" not in night.steps.values():
                return
        raise AssertionError(f"the evening of {day} was never done after {fault}")

    def _fails(self, day: datetime.date, match: str) -> None:
        with pytest.raises(ForecasterError, match=match):
            evening(self.path, self.server.url, day)

    def _source_down(self, day: datetime.date) -> None:
        self.server.always["*"] = Fault(how="drop")
        self._fails(day, "below the minimum coverage")
        self.server.always.clear()
        self.seen.add("source_down")

    def _rate_limited(self, day: datetime.date) -> None:
        self.server.always["*"] = Fault(429)
        self._fails(day, "below the minimum coverage")
        self.server.always.clear()
        self.seen.add("rate_limited")

    def _partial(self, day: datetime.date) -> None:
        self.server.always["^IXIC"] = Fault(503)
        night = evening(self.path, self.server.url, day)
        assert night.steps["ingest"] == night.steps["forecast"] == "failed"
        assert set(night.failures) == {"^IXIC"}
        self.server.always.clear()
        self.seen.add("partial")

    def _disk_full(self, day: datetime.date) -> None:
        if not os.path.ismount(self.store.parent):
            return
        filler = self.store.parent / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            for _ in range(1 << 16):
                file.write(b"0" * 4096)
        self._fails(day, "No space left|full|os error 28")
        filler.unlink()
        self.seen.add("disk_full")

    def _locked(self, day: datetime.date) -> None:
        """Another program writes to the ledger for a moment: the evening waits."""
        if "://" in self.url:
            import psycopg

            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
                free = threading.Timer(
                    0.5, lambda: connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))
                )
                free.start()
                evening(self.path, self.server.url, day)
                free.join()
            return
        with contextlib.closing(
            sqlite3.connect(self.url, isolation_level=None, check_same_thread=False)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            free = threading.Timer(0.5, connection.execute, ("COMMIT",))
            free.start()
            evening(self.path, self.server.url, day)
            free.join()

    def _killed(self, day: datetime.date) -> None:
        if killed_evening(self.path, self.server.url, day, self.url, self.random):
            self.seen.add("killed")

    def _clock_set_back(self, day: datetime.date) -> None:
        evening(self.path, self.server.url, day, evening_at(day, -27.0))

    def _damaged_copy(self, day: datetime.date) -> None:
        for copy in (self.path.parent / "workspace" / "models").rglob("*.npz"):
            content = bytearray(copy.read_bytes())
            content[len(content) // 2] ^= 0xFF
            copy.write_bytes(content)
        self.seen.add("damaged_copy")


FAULTS = (
    "source_down",
    "rate_limited",
    "partial",
    "disk_full",
    "locked",
    "killed",
    "clock_set_back",
    "damaged_copy",
)
SAID = {
    "source_down": "only 0% of the symbols could be fetched",
    "rate_limited": "only 0% of the symbols could be fetched.*429",
    "partial": "^nothing new|; \\^IXIC: |1 added; ",
    "disk_full": "No space left|full|os error 28",
    "killed": "died in the middle of it",
    "damaged_copy": "was damaged and is fetched again",
}
"""What the status says of each fault; a lock that was waited for and a clock leave no trace."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk where one can be mounted, else a folder; two years of evenings fit on it."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(place)]
    mounted = (
        os.getuid() == 0
        and shutil.which("mount") is not None
        and not subprocess.run(mount, check=False, capture_output=True).returncode
    )
    yield place
    if mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def simulate(
    tmp_path: Path,
    disk: Path,
    ledgers: tuple[str, str],
    span: tuple[datetime.date, datetime.date],
    faults: dict[datetime.date, str],
    restated: dict[datetime.date, tuple[str, datetime.date]],
    models: str = LIGHT_MODELS,
    train_every: int = 63,
) -> tuple[World, World]:
    """Live through a span of evenings in two worlds, and see that they end the same."""
    worlds = []
    for name, url in zip(("calm", "disturbed"), ledgers, strict=True):
        store = disk / name / "prices" if name == "calm" else disk / "prices"
        path = write_job(tmp_path / name, url, models, store, train_every)
        with YahooServer() as server:
            world = World(path, url, server, store, Market(server, restated=restated), random.Random(7))
            days = {*world.market.sessions(*span), HOLIDAY} if span[0] <= HOLIDAY <= span[1] else set()
            for day in sorted(days or world.market.sessions(*span)):
                fault = faults.get(day) if name == "disturbed" else None
                if fault is None:
                    world.calm(day)
                else:
                    world.disturbed(day, fault)
        worlds.append(world)
    (forecasts, scores), (others, of_others) = says(ledgers[0], "year"), says(ledgers[1], "year")
    pd.testing.assert_frame_equal(forecasts, others, check_exact=True)
    # How many are scored at once changes the last bit of a sum.
    pd.testing.assert_frame_equal(scores, of_others, check_exact=False, rtol=1e-12)
    return worlds[0], worlds[1]


def check_visible(world: World) -> None:
    """Every fault that struck is in the status."""
    table = reasons(world.url, "year")
    said = table["reason"].fillna("")
    for fault in world.seen:
        assert said.str.contains(SAID[fault]).any(), (fault, said.unique())
    last = table.groupby(["as_of", "step"])["status"].last()
    assert set(last) <= {"done", "skipped"}


def check_reproduced(world: World, count: int) -> None:
    """Random forecasts of the ledger are made again to the bit."""
    os.environ.pop("FORECASTER_YAHOO_GATEWAY", None)
    with Ledger.open(world.url) as ledger:
        ids = ledger.forecasts("year")["id"].tolist()
        for number in random.Random(3).sample(ids, count):
            assert reproduce_forecast(ledger, number, world.path.parent).differing == ()


def test_a_month_of_evenings_that_go_wrong(tmp_path: Path, disk: Path, urls: Callable[[str], str]) -> None:
    struck = [datetime.date(2018, 1, day) for day in (3, 5, 9, 11, 17, 19, 23, 25, 29)]
    faults = dict(zip(struck, (*FAULTS, "killed"), strict=True))
    restated = {datetime.date(2018, 1, 18): ("^GSPC", datetime.date(2018, 1, 12))}
    calm, disturbed = simulate(tmp_path, disk, (urls("sqlite"), urls("sqlite")), MONTH, faults, restated)
    check_visible(disturbed)
    table = reasons(calm.url, "year")
    holiday = table[(table["as_of"] == pd.Timestamp(HOLIDAY)) & (table["step"] == "forecast")]
    assert holiday["status"].tolist() == ["skipped"]
    assert holiday["reason"].tolist() == ["no symbol has a session that was not forecast before"]
    with Ledger.open(calm.url) as ledger:
        issued = ledger.forecasts("year")
        assert not issued["late"].any()
        assert issued.groupby("model").size().to_dict() == {"ewma_fhs": 21 * 2 * 2}
        assert ledger.track_record("year")["forecasts"].tolist() == [20 * 2, 16 * 2]
    check_reproduced(disturbed, 10)


def test_evenings_that_go_wrong_in_postgresql(tmp_path: Path, disk: Path, urls: Callable[[str], str]) -> None:
    span = (datetime.date(2018, 4, 3), datetime.date(2018, 4, 6))
    struck = [datetime.date(2018, 4, day) for day in (3, 4, 5, 6)]
    faults = dict(zip(struck, ("killed", "partial", "locked", "killed"), strict=True))
    _, disturbed = simulate(tmp_path, disk, (urls("postgresql"), urls("postgresql")), span, faults, {})
    check_visible(disturbed)
    check_reproduced(disturbed, 3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_year_of_evenings_that_go_wrong(
    kind: str, tmp_path: Path, disk: Path, urls: Callable[[str], str]
) -> None:
    chance = random.Random(11)
    with YahooServer() as server:
        days = Market(server).sessions(*YEAR)
    # Twenty processes are killed; every other fault strikes several times.
    struck = chance.sample(days[1:], 60)
    faults = {day: "killed" if n < 20 else FAULTS[n % len(FAULTS)] for n, day in enumerate(struck)}
    faults[days[0]] = "killed"
    restated = {
        days[n]: (chance.choice(["^GSPC", "^IXIC"]), days[n - chance.randint(1, 8)])
        for n in range(20, len(days), 40)
    }
    _, disturbed = simulate(tmp_path, disk, (urls(kind), urls(kind)), YEAR, faults, restated)
    assert disturbed.seen >= {*SAID} - {"disk_full"}
    check_visible(disturbed)
    check_reproduced(disturbed, 10)


@pytest.mark.slow
def test_evenings_of_a_network_that_go_wrong(tmp_path: Path, disk: Path, urls: Callable[[str], str]) -> None:
    span = (datetime.date(2018, 3, 1), datetime.date(2018, 3, 14))
    faults = {
        datetime.date(2018, 3, 5): "killed",
        datetime.date(2018, 3, 7): "damaged_copy",
        # Not `partial`: a network looks at the mean of all symbols, so less data is another forecast.
        datetime.date(2018, 3, 8): "source_down",
    }
    _, disturbed = simulate(tmp_path, disk, (urls("sqlite"), urls("sqlite")), span, faults, {}, NETWORK)
    check_reproduced(disturbed, 10)
