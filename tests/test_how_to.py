"""The guides whose commands start servers or need one: with real ones, on this machine."""

from __future__ import annotations

import datetime
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import operation_servers
import pandas as pd
import postgres
import pytest
from pages import DOCS, Reader
from yahoo_server import Listing, YahooServer, calm_and_wild

from forecaster.calendars import Calendars
from forecaster.ledger import Ledger

FOLDER = DOCS / "how-to"


def page(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8")


def free(*ports: str) -> dict[str, int]:
    return {port: operation_servers.free_port() for port in ports}


@contextmanager
def reading(folder: Path, monkeypatch: pytest.MonkeyPatch, **others: object) -> Iterator[Reader]:
    monkeypatch.chdir(folder)
    with Reader(monkeypatch, **others) as reader:  # type: ignore[arg-type]
        yield reader


def test_evenings_come_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Bars of the next days too: a session may end while this runs.
    until = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=2)
    days = [day.date() for day in Calendars().sessions("^GSPC", datetime.date(2016, 1, 4), until)]
    listings = {symbol: Listing(calm_and_wild(days)) for symbol in ("^GSPC", "^IXIC")}
    with (
        YahooServer(listings) as yahoo,
        reading(tmp_path, monkeypatch, ports=free("8765")) as reader,
    ):
        monkeypatch.setenv("FORECASTER_YAHOO_GATEWAY", yahoo.url)
        reader.read(page("scheduling"))
        (service,) = reader.servers
        service.send_signal(signal.SIGTERM)
        assert service.wait(120) == 0
    with Ledger.open(Path("workspace/ledger.db")) as ledger:
        issued, status = ledger.forecasts("evening"), ledger.status("evening")
    assert set(issued["symbol"]) == set(listings)
    assert set(issued["horizon"]) == {1, 5}
    assert issued["as_of"].max().date() in days[-5:]
    # The second command and the service found it done.
    assert (status["attempt"] == 1).all()
    assert set(status["status"]) <= {"done", "skipped", "running", "pending"}


@pytest.fixture(scope="module")
def database() -> Iterator[postgres.Server]:
    with postgres.running() as running:
        if running is None:
            pytest.skip(postgres.MISSING)
        yield running


def test_the_ledger_is_in_postgresql_and_comes_back(
    database: postgres.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg

    answers: list[list[tuple[object, ...]]] = []

    def sql(statement: str) -> None:
        name = "forecaster" if statement.startswith("SELECT") else "postgres"
        with psycopg.connect(database.url(name), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            if cursor.description:
                answers.append(cursor.fetchall())

    with reading(tmp_path, monkeypatch, ports={"5432": database.port}, sql=sql) as reader:
        reader.read(page("postgresql"))
        forecasts = reader.names["forecasts"]
    assert isinstance(forecasts, pd.DataFrame)
    columns = ["symbol", "origin", "horizon", "q0.1", "q0.9"]
    expected = forecasts.assign(origin=forecasts["origin"].dt.date)[columns].sort_values(
        ["symbol", "horizon"]
    )
    assert answers == [[tuple(row) for row in expected.to_numpy().tolist()]]
    with Ledger.open(Path("here.db")) as ledger:
        pd.testing.assert_frame_equal(ledger.forecasts("desk"), forecasts)


@pytest.mark.slow
@pytest.mark.skipif(
    find_spec("distributed") is None or find_spec("ray") is None, reason="needs the extra `cluster`"
)
def test_clusters_give_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    with reading(tmp_path, monkeypatch, ports=free("8786", "6379")) as reader:
        reader.read(page("cluster"))
        assert len(reader.servers) == 3
        assert all(server.poll() is None for server in reader.servers)
    assert len(pd.read_parquet("on-ray/forecasts.parquet")) > 10_000


@pytest.mark.slow
def test_an_mlflow_server_keeps_runs_and_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    (tmp_path / "workspace").mkdir()
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    try:
        with reading(tmp_path, monkeypatch, ports=free("5000", "5001")) as reader:
            reader.read(page("mlflow"))
            forecasts = reader.names["forecasts"]
            summary = json.loads(Path("workspace/tracked/summary.json").read_text())
            assert summary["mlflow"]["tracking_uri"] == f"http://127.0.0.1:{reader.ports['5000']}"
    finally:
        mlflow.set_tracking_uri(None)
    latest = pd.read_parquet("workspace/tracked/latest.parquet")
    mine = latest[latest["model"] == summary["champion"]]
    assert isinstance(forecasts, pd.DataFrame)
    assert forecasts["q0.1"].tolist() == mine["q0.1"].tolist()
    assert list(Path("server").rglob("job.json"))
