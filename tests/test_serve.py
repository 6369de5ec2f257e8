"""The service: real processes, real signals, a real `/health`, and a night that crashes alone."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import operation_servers
import pandas as pd
import pytest

from forecaster.errors import JobError, ParameterError
from forecaster.job import load_job
from forecaster.ledger import Ledger
from pipelines.serve import BEAT, SILENT, Service, answering

ROOT = Path(__file__).parents[1]
NOW = datetime.datetime.now(datetime.UTC)
# The evening begins at least five hours from now, so that no other falls due while a test runs, whatever the
# time of day.
MINUTES = 45 if 7 <= NOW.hour < 18 else 720
EVENING = (NOW - datetime.timedelta(days=1, minutes=MINUTES)).date()


def write_job(folder: Path, name: str = "night", more: str = "", prices: bool = True) -> Path:
    """A job of two symbols that trade every day, up to the last evening that has begun."""
    if prices:
        sessions = pd.date_range(end=pd.Timestamp(EVENING), periods=900, freq="D").strftime("%Y-%m-%d")
        generator = np.random.default_rng(1)
        parts = [
            pd.DataFrame({"symbol": symbol, "session": sessions, "close": closes})
            for symbol in ("AA", "BB")
            for closes in [100.0 * np.exp(np.cumsum(0.01 * generator.standard_normal(900)))]
        ]
        pd.concat(parts).to_csv(folder / "prices.csv", index=False)
    begin = EVENING - datetime.timedelta(days=300)
    path = folder / f"{name}.yaml"
    path.write_text(
        f"name: {name}\nprices: {{kind: files, path: prices.csv}}\nbacktest: {{start: {begin}}}\n"
        f"models: [{{kind: historical}}, {{kind: ewma_fhs}}]\nworkspace: {folder / 'workspace'}\n"
        f"schedule: {{calendar: 24/7, minutes_after_close: {MINUTES}, catch_up: 1, retries: 0}}\n{more}"
    )
    return path


@contextmanager
def serving(folder: Path, *jobs: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The service as a process of its own, and the port of its health."""
    port = operation_servers.free_port()
    command = [sys.executable, "-m", "pipelines.cli", "serve", *map(str, jobs), "--port", str(port)]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    with (folder / "log").open("a") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=os.environ | paths | environment, stdout=log, stderr=log, text=True
        )
        try:
            yield process, port
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def ask(port: int, path: str = "/health") -> tuple[int, dict[str, Any]]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def until(
    port: int, wanted: Callable[[dict[str, Any]], bool], log: Path, bound: float = 240.0
) -> dict[str, Any]:
    """Wait until the health says something."""
    end = time.monotonic() + bound
    told: object = "no answer"
    while time.monotonic() < end:
        try:
            _, told = ask(port)
            if wanted(told):
                return told
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass
        time.sleep(0.1)
    pytest.fail(f"the service never said so; last: {told}\n{log.read_text()}")


def ended(job: str) -> Callable[[dict[str, Any]], bool]:
    return lambda told: told["jobs"][job]["last"] is not None and told["jobs"][job]["running"] is None


def runs(job: str) -> Callable[[dict[str, Any]], bool]:
    return lambda told: told["jobs"][job]["running"] is not None


def alerts(folder: Path, job: str = "night") -> list[list[str]]:
    with Ledger.open(folder / "workspace" / "ledger.db") as ledger:
        found = ledger.alerts(job)
    return found[["check", "state"]].to_numpy().tolist()


# --- in this process -------------------------------------------------------------------------------------


def service(folder: Path) -> Service:
    path = write_job(folder, prices=False)
    return Service([(path, load_job(path))], folder / "beats" / "serve.json")


def test_health_answers_on_its_address_alone_and_nothing_else(tmp_path: Path) -> None:
    each = service(tmp_path)
    each._scheduler.start(paused=True)
    try:
        with answering(each, "127.0.0.1", 0) as port:
            status, told = ask(port)
            assert (status, told["status"], told["pid"]) == (200, "ok", os.getpid())
            assert told["jobs"]["night"]["last"] is None
            begins = datetime.datetime.fromisoformat(told["jobs"]["night"]["next"]["begins_at"])
            assert begins > datetime.datetime.now(datetime.UTC)
            assert ask(port, "/secrets") == (404, {"error": "ask /health"})
            # A service whose heart stands still is dead, whatever else it answers.
            each._beat_at -= SILENT * BEAT + 1.0
            assert ask(port)[0] == 503
            with (
                pytest.raises(ParameterError, match=r"an address and a port that are free\. Received: 127"),
                answering(each, "127.0.0.1", port),
            ):
                pass
    finally:
        each._scheduler.shutdown()


def test_the_heartbeat_is_whole_and_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    each = service(tmp_path)
    each._beat()
    assert json.loads(each.heartbeat.read_text())["jobs"].keys() == {"night"}
    assert [path.name for path in each.heartbeat.parent.iterdir()] == ["serve.json"]
    each.heartbeat.unlink()
    each.heartbeat.mkdir()
    (each.heartbeat / "in the way").touch()
    each._beat()
    assert each.health()[1]["heartbeat_file"].startswith("not written: ")


def test_an_evening_that_fails_is_begun_again_so_often_and_no_more(tmp_path: Path) -> None:
    more = "retries: 1, retry_minutes: 30"
    path = write_job(tmp_path)
    path.write_text(path.read_text().replace("retries: 0", more))
    job = load_job(path)
    each = Service([(path, job)], tmp_path / "beat")
    each._scheduler.start(paused=True)
    try:
        with Ledger.open(job.ledger_url) as ledger:
            run = ledger.start_run(
                job.name,
                job_hash=job.hash,
                yaml=path.read_text(),
                as_of=EVENING,
                steps=("ingest", "forecast"),
            )
            # Another process, this one, does the evening: `daily` ends with 1 at once.
            with run.step("ingest", code_version="c"):
                for attempt, again in ((1, True), (2, False), (2, False)):
                    each._scheduler.remove_all_jobs()
                    each._evenings("night")
                    assert each.served["night"].attempts == {EVENING: attempt}
                    assert [one.id for one in each._scheduler.get_jobs()] == ["night again"] * again
                assert each.served["night"].last["exit_code"] == 1
                # When the next one falls due it is tried afresh.
                each._begin("night")
                assert each.served["night"].attempts == {EVENING: 1}
        ((when,),) = [[one.next_run_time] for one in each._scheduler.get_jobs()]
        assert when > datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=25)
    finally:
        each._scheduler.shutdown()


def test_health_answers_on_ipv6(tmp_path: Path) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("::1 is no address of this machine")
    with (
        answering(service(tmp_path), "::1", 0) as port,
        pytest.raises(urllib.error.HTTPError, match="404"),
    ):
        urllib.request.urlopen(f"http://[::1]:{port}/nothing", timeout=10)


def test_two_jobs_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_job(tmp_path, prices=False)
    with pytest.raises(JobError, match="'night' more than once"):
        Service([(path, load_job(path))] * 2, tmp_path / "beat")


def test_systemd_is_told_where_it_asks(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        listener.settimeout(10)
        os.environ["NOTIFY_SOCKET"] = path
        try:
            service(tmp_path)._beat()
        finally:
            del os.environ["NOTIFY_SOCKET"]
        assert listener.recv(100) == b"WATCHDOG=1"


# --- as a process ----------------------------------------------------------------------------------------


def test_a_night_that_fails_leaves_the_service_and_it_stops_when_it_is_asked(tmp_path: Path) -> None:
    wrong = f"store: {tmp_path / 'store'}\ncalendars: {{AA: NOPE}}\n"
    path = write_job(tmp_path, more=wrong)
    with serving(tmp_path, path) as (process, port):
        told = until(port, ended("night"), tmp_path / "log")
        assert told["jobs"]["night"]["last"]["exit_code"] == 2
        assert told["jobs"]["night"]["last"]["as_of"] == str(EVENING)
        assert ask(port)[0] == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    beat = json.loads((tmp_path / "workspace" / "serve.json").read_text())
    assert beat["status"] == "stopping"
    assert beat["jobs"]["night"]["trouble"].endswith(
        "night.yaml: the job or its input is wrong; see the output"
    )
    assert ["step night", "fail"] in alerts(tmp_path)
    log = (tmp_path / "log").read_text()
    assert "night: the next evening " in log
    assert "stopped" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.yaml"], "forecaster: absent.yaml: no such job file"),
        (["plain.yaml"], "forecaster: plain: a schedule follows the sessions of an exchange"),
        (["night.yaml", "night.yaml"], "forecaster: jobs that are served have distinct names"),
        (["night.yaml", "--address", "192.0.2.7", "--port", "1"], "forecaster: the health answer needs an"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_job(tmp_path, prices=False)
    plain = "name: plain\nprices: {kind: sample}\nbacktest: {start: 2008-01-01}\nmodels: [{kind: zero}]\n"
    (tmp_path / "plain.yaml").write_text(plain)
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "serve", *arguments],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_killed_night_is_told_of_a_stopped_one_is_gone_on_with_and_nothing_is_done_twice(
    tmp_path: Path,
) -> None:
    with operation_servers.webhooks() as hook:
        path = write_job(
            tmp_path, more=f"alerts: [{{kind: webhook, url: 'http://127.0.0.1:{hook.port}/x'}}]\n"
        )
        log = tmp_path / "log"
        # Killed: the service lives, records it and tells.
        with serving(tmp_path, path) as (process, port):
            told = until(port, runs("night"), log)
            os.kill(told["jobs"]["night"]["running"]["pid"], signal.SIGKILL)
            told = until(port, ended("night"), log)
            assert told["jobs"]["night"]["last"]["exit_code"] == -signal.SIGKILL
            assert ask(port)[0] == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        assert ["step night", "fail"] in alerts(tmp_path)
        assert [notice["check"] for notice in hook.messages[0]["notices"]] == ["step night"]
        # Stopped in the middle: the evening ends in order, and the next start goes on with it.
        with serving(tmp_path, path) as (process, port):
            night = until(port, runs("night"), log)["jobs"]["night"]["running"]["pid"]
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0
            assert not Path(f"/proc/{night}").exists()
        with serving(tmp_path, path) as (process, port):
            told = until(port, ended("night"), log)
            assert told["jobs"]["night"]["last"]["exit_code"] == 0, log.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
    with Ledger.open(tmp_path / "workspace" / "ledger.db") as ledger:
        forecasts = ledger.forecasts("night")
        assert set(forecasts["symbol"]) == {"AA", "BB"}
        assert forecasts["origin"].dt.date.unique().tolist() == [EVENING]
        status = ledger.status("night")
        assert (status.groupby("step")["status"].last().isin(["done", "skipped"])).all()
        before = len(status)
    assert alerts(tmp_path)[-1] != ["step night", "fail"]
    assert ["step night", "ok"] in alerts(tmp_path)
    # There is nothing left to do.
    with serving(tmp_path, path) as (process, port):
        told = until(port, lambda told: told["seconds_since_heartbeat"] >= 0, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    with Ledger.open(tmp_path / "workspace" / "ledger.db") as ledger:
        assert len(ledger.status("night")) == before
