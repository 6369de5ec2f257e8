"""The evening's job by its commands: what is issued, what is refused, what is done again."""

from __future__ import annotations

import dataclasses
import datetime
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nights import evening_at
from typer.testing import CliRunner, Result

from forecaster.errors import TrackingError
from forecaster.job import Job, load_job
from forecaster.ledger import Ledger
from forecaster.significance import Champion
from forecaster.tracking import Registry, Version
from forecaster.windows import Panel
from pipelines.backfill import evenings
from pipelines.backtest import BacktestResult, backtest_job
from pipelines.challenge import judge
from pipelines.cli import app
from pipelines.daily import STEPS, Night, daily_job
from pipelines.loading import load_data
from pipelines.score import known_outcomes

JOB = """
name: desk
prices: {prices}
calendars: {{SP500: XNYS, NASDAQ: XNYS}}
{store}
workspace: {folder}/workspace
lookback: 8
horizons: [1, 5]
backtest: {{start: 2016-06-01, refit_every: 252, rolling: 500}}
models: [{{kind: historical}}, {{kind: ewma_fhs}}]
"""
SAMPLES = "{kind: sample, symbols: [SP500, NASDAQ]}"
DAYS = [datetime.date(2018, 6, day) for day in (1, 4, 5)]


def write_job(folder: Path, prices: str = SAMPLES, store: bool = True, more: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    place = f"store: {folder}/prices" if store else ""
    path.write_text(JOB.format(folder=folder, prices=prices, store=place) + more)
    return path


def do(path: Path, day: datetime.date, now: datetime.datetime | None = None) -> Night:
    moment = now or evening_at(day)
    return daily_job(load_job(path), path, day, lambda *_: None, clock=lambda: moment)


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(*arguments: object, code: int = 1) -> str:
    result = call(*arguments)
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    return line.removeprefix("forecaster: ")


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job after three evenings."""
    path = write_job(tmp_path_factory.mktemp("lived"))
    for day in DAYS:
        do(path, day)
    return path


@pytest.fixture
def desk(lived: Path, tmp_path: Path) -> Path:
    """A copy of it, whose registry is its own."""
    folder = tmp_path / "desk"
    shutil.copytree(lived.parent, folder)
    text = (folder / "job.yaml").read_text().replace(str(lived.parent), str(folder))
    (folder / "job.yaml").write_text(text)
    subprocess.run(
        ["sqlite3", str(folder / "workspace" / "mlflow.db"), "VACUUM"], check=False, capture_output=True
    )
    move_artifacts(folder, lived.parent)
    # What the ledger keeps names the old folder too, so nothing of it is asked of the registry there.
    return folder / "job.yaml"


def move_artifacts(folder: Path, old: Path) -> None:
    """Let the tracking store of a copied workspace name its own files."""
    import contextlib
    import sqlite3

    with contextlib.closing(sqlite3.connect(folder / "workspace" / "mlflow.db")) as connection:
        for table, column in (
            ("runs", "artifact_uri"),
            ("experiments", "artifact_location"),
            ("model_versions", "storage_location"),
            ("logged_models", "artifact_location"),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(old), str(folder))
            )
        connection.commit()


def ledger_of(path: Path) -> Ledger:
    return Ledger.open(load_job(path).ledger_url)


def test_an_evening_is_done_once(lived: Path) -> None:
    with ledger_of(lived) as ledger:
        before = ledger.status("desk", evenings=9)
        assert set(before["status"]) == {"done", "skipped"}
        assert before["step"].tolist() == [*STEPS] * 3
        assert before["attempt"].eq(1).all()
        issued = ledger.forecasts("desk")
    assert not issued["late"].any()
    assert issued.groupby("as_of").size().tolist() == [4, 4, 4]
    assert (issued["model_version"] == "1").all()
    night = do(lived, DAYS[1])
    assert set(night.steps.values()) == {"before"}
    with ledger_of(lived) as ledger:
        pd.testing.assert_frame_equal(ledger.forecasts("desk"), issued)
        starts = ledger.status("desk", evenings=9).groupby("as_of")["starts"].first()
        assert starts.tolist() == [1, 2, 1]
        events = ledger.model_events("desk")
    assert events[["event", "version"]].to_numpy().tolist() == [["promotion", "1"]]
    folder = lived.parent / "workspace" / "desk" / "evenings" / "2018-06-04"
    issued_then = pd.read_parquet(folder / "forecasts.parquet")
    assert set(issued_then["origin"]) == {pd.Timestamp("2018-06-04")}
    assert set(pd.read_csv(folder / "status.csv")["as_of"]) == {"2018-06-04"}
    page = (folder.parent / "report.html").read_text()
    assert "ewma_fhs" in page
    assert "2018-06-05" in page


def test_the_status_says_it(lived: Path) -> None:
    printed = call("status", lived, "--evenings", 1).stdout
    assert "desk: the last evenings" in printed
    assert "2018-06-05 train    1       skipped" in printed
    assert "promotion" in printed
    assert "ewma_fhs 1       4         2018-06-01   2018-06-04" in printed
    other = write_job(lived.parent / "other")
    assert complaint("status", other) == (
        f"there is no ledger {other.parent}/workspace/ledger.db yet; `forecaster daily` makes it on the "
        "first evening"
    )


def test_an_issued_forecast_is_made_again_to_the_bit(lived: Path) -> None:
    with ledger_of(lived) as ledger:
        ids = ledger.forecasts("desk")["id"].tolist()
    result = call("reproduce", ids[5], "--config", lived)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("Made again: identical to the bit\n")
    by_url = call("reproduce", ids[6], "--ledger", lived.parent / "workspace" / "ledger.db")
    assert by_url.exit_code == 0, by_url.output
    assert complaint("reproduce", 999, "--config", lived) == (
        f"the ledger {lived.parent}/workspace/ledger.db has no forecast 999; an export and "
        "`Ledger.forecasts` tell the ids that there are"
    )


def write_files_job(folder: Path, **first: str) -> tuple[Path, pd.DataFrame]:
    """A job on a file of prices, each symbol from a day on, without a store or calendars."""
    random = np.random.default_rng(1)
    parts = []
    for symbol, begin in first.items():
        days = pd.bdate_range(begin, "2018-06-29")
        close = 50 * np.exp(np.cumsum(random.normal(0, 0.01, len(days))))
        parts.append(pd.DataFrame({"symbol": symbol, "session": days, "close": close}))
    path = write_job(folder, "{kind: files, path: prices.csv}", store=False)
    path.write_text(path.read_text().replace("calendars: {SP500: XNYS, NASDAQ: XNYS}\n", ""))
    table = pd.concat(parts)
    table.to_csv(folder / "prices.csv", index=False)
    return path, table


def test_too_few_symbols_are_told_by_the_exit_code_also_where_none_is_named(tmp_path: Path) -> None:
    path, _ = write_files_job(tmp_path, A="2015-01-01", NEW="2018-05-28", NEWER="2018-05-29")
    arguments = ("forecast", path, "--as-of", "2018-06-01")
    result = call(*arguments)
    assert result.exit_code == 1, result.output
    assert "only 33% of the symbols succeeded, below the minimum coverage of 50%" in result.stderr
    path.write_text(f"{path.read_text()}minimum_coverage: 0.3\n")
    result = call(*arguments)
    assert result.exit_code == 3, result.output
    result = call("backfill", path, "--from", "2018-06-01", "--to", "2018-06-01")
    assert result.exit_code == 3, result.output
    path.write_text(path.read_text().replace("coverage: 0.3", "coverage: 0.4"))
    assert call("backfill", path, "--from", "2018-06-01", "--to", "2018-06-01").exit_code == 1
    # A calendar of one symbol, where none is named, does not say what the others' sessions are.
    path.write_text(f"{path.read_text()}calendars: {{A: XNYS}}\n")
    days = evenings(load_job(path), tmp_path, datetime.date(2018, 6, 2), datetime.date(2018, 6, 5))
    assert days == [datetime.date(2018, 6, 4), datetime.date(2018, 6, 5)]


def test_prices_without_a_store_must_be_those_that_were_seen(tmp_path: Path) -> None:
    path, table = write_files_job(tmp_path, SP500="2016-01-01", NASDAQ="2016-01-01")
    night = do(path, DAYS[0])
    assert night.steps["ingest"] == night.steps["tidy"] == "skipped"
    result = call("reproduce", 1, "--config", path)
    assert result.exit_code == 0, result.output
    table["close"] *= 1.01
    table.to_csv(tmp_path / "prices.csv", index=False)
    assert "the job, which has no price store," in complaint("reproduce", 1, "--config", path, code=2)
    # Without a calendar the next session is the next day of the week on which it has traded, from midnight.
    with ledger_of(path) as ledger:
        assert not ledger.forecasts("desk")["late"].any()
    do(path, datetime.date(2018, 6, 4), evening_at(datetime.date(2018, 6, 5), 0.01))
    with ledger_of(path) as ledger:
        late = ledger.forecasts("desk").groupby("as_of")["late"].all()
        assert late.tolist() == [False, True]


def test_what_comes_late_is_marked_and_counts_for_nothing(desk: Path) -> None:
    result = call("daily", desk, "--as-of", "2018-06-06")
    assert result.exit_code == 0, result.output
    assert "desk, evening of 2018-06-06: ingest done, train skipped, forecast done" in result.stdout
    do(desk, datetime.date(2018, 6, 7), evening_at(datetime.date(2018, 6, 8), 13.49))
    do(desk, datetime.date(2018, 6, 8), evening_at(datetime.date(2018, 6, 11), 13.51))
    do(desk, datetime.date(2018, 6, 11))
    with ledger_of(desk) as ledger:
        late = ledger.forecasts("desk").groupby("as_of")["late"].all()
        assert late.tolist() == [False] * 3 + [True, False, True, False]
        assert not set(ledger.scores("desk")["origin"].dt.day) & {6, 8}
        assert ledger.track_record("desk")["forecasts"].tolist() == [8, 4]
    assert "4 of 4 forecasts are late" in " ".join(call("status", desk).stdout.split())


def test_no_evening_uses_a_model_from_after_it(desk: Path) -> None:
    result = call("backfill", desk, "--from", "2018-05-26", "--to", "2018-05-30")
    assert result.exit_code == 0, result.output
    with ledger_of(desk) as ledger:
        early = ledger.forecasts("desk", end=datetime.date(2018, 5, 31))
        # Memorial Day is no session.
        assert early.groupby("as_of")["model_version"].unique().map(list).to_dict() == {
            pd.Timestamp("2018-05-29"): ["fit-2018-05-29"],
            pd.Timestamp("2018-05-30"): ["fit-2018-05-30"],
        }
        assert early["late"].all()
        said = ledger.status("desk", evenings=9).query("step == 'train'")["reason"]
        number = int(early["id"].iloc[0])
    assert "the champion was fitted on 2018-06-01, after this evening" in set(said)
    assert call("reproduce", number, "--config", desk).exit_code == 0
    assert complaint("backfill", desk, "--from", "2018-06-02", "--to", "2018-05-30", code=2) == (
        "--from lies before --to. Received: --from 2018-06-02 --to 2018-05-30"
    )


def test_champion_and_previous_change_places(desk: Path) -> None:
    assert complaint("rollback", desk).startswith(
        "a rollback goes to the version before the champion, and forecaster-desk has none"
    )
    text = desk.read_text()
    desk.write_text(text.replace("models: [{kind: historical}, ", "models: ["))
    do(desk, datetime.date(2018, 6, 6))
    with ledger_of(desk) as ledger:
        reason = ledger.status("desk", evenings=1).query("step == 'train'")["reason"].item()
    assert reason.startswith(
        "the job has changed since the last training: ewma_fhs is challenger; fitted anew"
    )
    printed = call("rollback", desk, "--reason", "a test").stdout
    assert printed == "Champion: ewma_fhs, version 1; before: version 2\n"
    with ledger_of(desk) as ledger:
        event = ledger.model_events("desk").iloc[-1]
    assert (event["event"], event["version"]) == ("rollback", "1")
    assert event["reason"] == "from version 2 (ewma_fhs): a test"
    do(desk, datetime.date(2018, 6, 7))
    with ledger_of(desk) as ledger:
        used = ledger.forecasts("desk").groupby("as_of")["model_version"].first()
    assert used.tolist() == ["1", "1", "1", "2", "1"]


def test_a_champion_that_no_evening_promoted_is_recorded_by_the_next(desk: Path) -> None:
    workspace = desk.parent / "workspace"
    for file in workspace.glob("ledger.db*"):
        file.unlink()
    for day in (6, 7):
        do(desk, datetime.date(2018, 6, day))
    with ledger_of(desk) as ledger:
        (event,) = ledger.model_events("desk").to_dict("records")
        report = ledger.status("desk", evenings=1).query("step == 'report'")["reason"].item()
    assert (event["event"], event["version"], f"{event['as_of']:%F}") == ("promotion", "1", "2018-06-06")
    assert event["reason"].startswith("not by an evening: the first champion")
    assert report == "desk/evenings/2018-06-07 in the workspace"


def damage(folder: Path, pattern: str) -> None:
    for file in folder.rglob(pattern):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_a_damaged_model_gives_way_and_says_so(desk: Path) -> None:
    workspace = desk.parent / "workspace"
    damage(workspace / "models", "*.npz")
    do(desk, datetime.date(2018, 6, 6))
    damage(workspace / "models", "*.npz")
    damage(workspace / "mlartifacts", "*.npz")
    do(desk, datetime.date(2018, 6, 7))
    with ledger_of(desk) as ledger:
        issued = ledger.forecasts("desk").groupby("as_of")["model_version"].first()
        said = ledger.status("desk", evenings=2).query("step == 'forecast'")["reason"].tolist()
    assert issued.tolist() == ["1"] * 4 + ["fit-2018-06-07"]
    assert said[0] == "ewma_fhs 1; the copy of version 1 was damaged and is fetched again"
    assert said[1] == (
        "ewma_fhs fit-2018-06-07; version 1 of forecaster-desk is damaged: its files are not those that were "
        "registered; restore them from a backup, or train again; no registered version can be used, so "
        "ewma_fhs was fitted for the evening"
    )


def test_what_the_monitor_found_holds_from_the_next_evening_on(desk: Path) -> None:
    days = [datetime.date(2018, 6, day) for day in (6, 7, 8)]

    def found(day: datetime.date, event: str) -> None:
        with ledger_of(desk) as ledger:
            ledger.record_model_event(
                "desk", as_of=day, event=event, model="ewma_fhs", version="1", reason="its coverage broke"
            )

    found(DAYS[-1], "calibration")
    do(desk, days[0])
    found(days[0], "fallback")
    do(desk, days[1])
    found(days[1], "recovery")
    do(desk, days[2])
    with ledger_of(desk) as ledger:
        issued = ledger.forecasts("desk", start=days[0])
        said = ledger.status("desk", evenings=3).query("step == 'forecast'")["reason"].tolist()
    assert issued.groupby("as_of")["model_version"].first().tolist() == ["1+adaptive", "1", "1"]
    assert said[1] == "ewma_fhs 1; ewma_fhs stands in for the champion since 2018-06-06"
    assert call("reproduce", int(issued["id"].min()), "--config", desk).exit_code == 0


def test_an_evening_goes_on_without_its_registry_and_without_a_training(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{nobody.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        do(desk, datetime.date(2018, 6, 6))
        # A training is due, and has nowhere to go.
        desk.write_text(desk.read_text().replace("rolling: 500", "rolling: 501"))
        with pytest.raises(TrackingError, match="cannot be opened"):
            do(desk, datetime.date(2018, 6, 7))
    with ledger_of(desk) as ledger:
        issued = ledger.forecasts("desk").groupby("as_of")["model_version"].first()
        status, alerts = ledger.status("desk", evenings=2), ledger.alerts("desk")
    assert issued.tolist() == ["1"] * 5
    last = status[status["as_of"] == pd.Timestamp("2018-06-07")].set_index("step")["status"]
    assert last["train"] == "failed"
    assert set(last.drop("train")) == {"done"}
    # Who is told reads what the status says.
    reason = status.query("status == 'failed'")["reason"].item()
    assert alerts.query("check == 'step train' and state == 'fail'")["reason"].item() == reason
    said = status[status["step"] == "forecast"]["reason"].tolist()
    assert all("the versions in use are those of its last answer" in reason for reason in said)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert do(desk, datetime.date(2018, 6, 7)).steps["train"] == "done"


def test_two_at_once_do_nothing_twice(desk: Path) -> None:
    with ledger_of(desk) as ledger:
        job = load_job(desk)
        run = ledger.start_run(
            "desk", job_hash=job.hash, yaml=desk.read_text(), as_of=datetime.date(2018, 6, 6)
        )
        with run.step("ingest", code_version="other"):
            line = complaint("daily", desk, "--as-of", "2018-06-06")
    assert line.startswith(
        "one process at a time does a step: 'ingest' of desk for 2018-06-06 is being done by"
    )


def test_copies_go_out_and_come_back(desk: Path, tmp_path: Path) -> None:
    assert call("ledger", "backup", desk, tmp_path / "copy.db").exit_code == 0
    assert call("data", "backup", desk, tmp_path / "prices").exit_code == 0
    assert "which exists" in complaint("data", "backup", desk, tmp_path / "prices", code=2)
    assert "which exists" in complaint("ledger", "restore", desk, tmp_path / "copy.db")
    with ledger_of(desk) as ledger:
        before = ledger.forecasts("desk")
    job = load_job(desk)
    Path(job.ledger_url).unlink()
    assert "which exists" in complaint("data", "restore", desk, tmp_path / "prices", code=2)
    shutil.rmtree(desk.parent / "prices")
    assert "which is none" in complaint("data", "restore", desk, tmp_path, code=2)
    assert call("ledger", "restore", desk, tmp_path / "copy.db").exit_code == 0
    assert call("data", "restore", desk, tmp_path / "prices").exit_code == 0
    with ledger_of(desk) as ledger:
        pd.testing.assert_frame_equal(ledger.forecasts("desk"), before)
    assert set(do(desk, DAYS[-1]).steps.values()) == {"before"}
    do(desk, datetime.date(2018, 6, 6))
    assert call("reproduce", int(before["id"].iloc[-1]), "--config", desk).exit_code == 0


def test_an_evening_of_a_light_champion_loads_no_tensorflow(desk: Path) -> None:
    code = (
        "import sys\nfrom pipelines.cli import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print([name for name in ('tensorflow', 'keras', 'sklearn.ensemble') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "daily", str(desk), "--as-of", "2018-06-06"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"


# ------------------------------------------------------------------------------------------------ the verdict


@pytest.fixture(scope="module")
def tested(lived: Path) -> tuple[Job, BacktestResult]:
    job = load_job(lived)
    return job, backtest_job(job, load_data(job, lived.parent, job.minimum_sessions), lambda *_: None)


def version_of(job: Job, name: str) -> Version:
    from pipelines.challenge import spec_hash

    tags = {"forecaster.model": name, "forecaster.spec": spec_hash(job, name) or ""}
    return Version(1, "run", tags)


def test_the_verdict_decides(tested: tuple[Job, BacktestResult]) -> None:
    job, result = tested
    assert result.champion.model == "ewma_fhs"
    ewma, historical = version_of(job, "ewma_fhs"), version_of(job, "historical")
    first = judge(job, result, None)
    assert first.promote
    assert first.reason.startswith("the first champion: ewma_fhs")
    assert judge(job, result, ewma).reason.startswith("fitted anew on newer prices")
    better = judge(job, result, historical)
    assert better.promote
    assert better.reason.startswith("better than the champion historical: ")
    worse = dataclasses.replace(result, champion=Champion("historical", "so", result.champion.mean_ratios))
    stays = judge(job, worse, ewma)
    assert not stays.promote
    assert stays.refit == "ewma_fhs"
    assert stays.reason.startswith("ewma_fhs stays: ")
    gone = judge(job, result, Version(1, "run", {"forecaster.model": "ridge"}))
    assert gone.promote
    assert gone.reason.startswith("the job no longer holds the champion's model")


def test_nothing_is_promoted_without_coverage(tested: tuple[Job, BacktestResult]) -> None:
    job, result = tested
    historical = version_of(job, "historical")
    scores = result.scores.copy()
    wrong = (scores["metric"] == "coverage_80") & (scores["model"] == "ewma_fhs") & (scores["horizon"] == 5)
    scores.loc[wrong & (scores["symbol"] == "*"), "value"] = 0.64
    narrow = judge(job, dataclasses.replace(result, scores=scores), historical)
    assert not narrow.promote
    assert narrow.refit == "historical"
    assert narrow.reason == (
        "historical stays, for the 80% intervals of ewma_fhs held 64% of outcomes at 5 sessions"
    )
    prices = dataclasses.replace(result.data.prices, failures={"A": "x", "B": "x", "C": "x"})
    few = dataclasses.replace(result, data=dataclasses.replace(result.data, prices=prices))
    for champion in (None, historical):
        verdict = judge(job, few, champion)
        assert not verdict.promote
        assert verdict.refit is None
        assert verdict.reason == "the champion stays, for too few symbols succeeded"


# ------------------------------------------------------------------------------------------------- outcomes


@given(st.integers(2, 60), st.integers(0, 1000))
def test_outcomes_are_the_returns_after_the_origin(sessions: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    prices = {}
    for symbol in ("A", "B"):
        days = pd.bdate_range("2020-01-01", periods=80)[np.sort(random.permutation(80)[: sessions + 1])]
        close = 100 * np.exp(np.cumsum(random.normal(0, 0.02, sessions + 1)))
        table = pd.DataFrame({"close": close, "dividend": 0.0, "split": 1.0}, index=pd.DatetimeIndex(days))
        prices[symbol] = table.rename_axis("session")
    panel = Panel.from_prices(prices)
    pending = pd.DataFrame(
        {
            "symbol": random.choice(["A", "B", "GONE"], 30),
            "origin": random.choice(pd.bdate_range("2019-12-25", periods=90), 30),
            "horizon": random.choice([1, 3, 10], 30),
        }
    ).drop_duplicates()
    found = known_outcomes(panel, pending).set_index(["symbol", "origin", "horizon"])
    for symbol, origin, horizon in pending.itertuples(index=False):
        closes = prices[symbol]["close"] if symbol in prices else pd.Series(dtype=float)
        place = list(closes.index).index(origin) if origin in closes.index else -1
        # The first price has no return, so that its session is no origin.
        if place < 1 or place + horizon >= len(closes):
            assert (symbol, origin, horizon) not in found.index
            continue
        target, y = found.loc[[(symbol, origin, horizon)]].iloc[0]
        assert target == closes.index[place + horizon]
        assert y == pytest.approx(np.log(closes.iloc[place + horizon] / closes.iloc[place]), abs=1e-12)


# ------------------------------------------------------------------------------------------ MLflow's server


@pytest.fixture
def mlflow_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'server.db'}",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    ]  # fmt: skip
    log = (tmp_path / "server.log").open("w")
    process = subprocess.Popen(
        command, stdout=log, stderr=log, env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                assert process.poll() is None, (tmp_path / "server.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
        yield url
    finally:
        process.terminate()
        process.wait(30)
        log.close()


@pytest.mark.slow
def test_the_registry_is_a_server(mlflow_server: str, tmp_path: Path) -> None:
    path = write_job(tmp_path / "remote")
    do(path, DAYS[0])
    workspace = path.parent / "workspace"
    assert not (workspace / "mlflow.db").exists()
    registry = Registry(workspace, "forecaster-desk")
    assert registry.uri == mlflow_server
    champion = registry.aliased("champion")
    assert champion is not None
    assert champion.model == "ewma_fhs"
    shutil.rmtree(workspace / "models", ignore_errors=True)
    do(path, DAYS[1])
    assert json.loads((workspace / "models" / "forecaster-desk" / "1" / "job.json").read_text())["model"]
    with ledger_of(path) as ledger:
        number = int(ledger.forecasts("desk")["id"].iloc[-1])
    assert call("reproduce", number, "--config", path).exit_code == 0
