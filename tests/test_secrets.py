"""Secrets are planted in the environment and in addresses, and evenings done; nothing tells them."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import operation_servers
import pytest
from nights import DESK

from forecaster.job import load_job
from forecaster.ledger import Ledger

ROOT = Path(__file__).parents[1]
PLANTED = {
    name: f"planted{number}-{name.lower()[:9]}/+&é"
    for number, name in enumerate(
        (
            "FORECASTER_SMTP_PASSWORD",
            "FORECASTER_WEBHOOK_TOKEN",
            "PGPASSWORD",
            "MLFLOW_TRACKING_PASSWORD",
            "AWS_SECRET_ACCESS_KEY",
            "SOME_API_KEY",
        )
    )
}
IN_ADDRESSES = ("hooksecret271828", "proxysecret31415", "trackingsecret14142")

ALERTS = """alerts:
- {{kind: webhook, timeout: 5}}
- {{kind: email, sender: f@a.example, recipients: [x@b.example], host: 127.0.0.1, port: {port},
   security: none, user: me}}
- {{kind: command, command: [{python}, -c, "import os, sys; sys.exit(str(dict(os.environ)))"]}}
"""
JOB = DESK + ALERTS


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_bytes()


def leaks(folder: Path) -> list[tuple[str, str]]:
    """Secrets that stand anywhere in the files of a folder, as they are, quoted or encoded."""
    secrets = [*PLANTED.values(), *IN_ADDRESSES]
    forms = {
        form: secret
        for secret in secrets
        for form in (
            secret.encode(),
            quote(secret, safe="").encode(),
            base64.b64encode(secret.encode()).rstrip(b"="),
            repr(secret)[1:-1].encode("ascii", "backslashreplace"),
        )
    }
    return [
        (str(path.relative_to(folder)), secret)
        for path, content in written(folder)
        for form, secret in forms.items()
        if form in content
    ]


def test_a_leak_would_be_found(tmp_path: Path) -> None:
    secret = PLANTED["PGPASSWORD"]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "log").write_bytes(b"\0" + f"connecting as {quote(secret, safe='')}".encode() + b"\0")
    (tmp_path / "b").write_text("proxysecret31415")
    assert sorted(leaks(tmp_path)) == [("a/log", secret), ("b", "proxysecret31415")]


@contextmanager
def tracking_server(folder: Path) -> Iterator[int]:
    """MLflow's own server on loopback, which lets everybody in."""
    port = operation_servers.free_port()
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port),
        "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination", (folder / "artifacts").as_uri(),
    ]  # fmt: skip
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=os.environ | QUIET
        )
        try:
            end = time.monotonic() + 120
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert process.poll() is None, (folder / "server.log").read_text()
                assert time.monotonic() < end, (folder / "server.log").read_text()
                time.sleep(0.2)
            yield port
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


@pytest.mark.slow
def test_a_run_on_a_tracking_server_with_a_password_in_its_address_tells_nobody(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(folder=tmp_path, port=1, python=sys.executable).replace("store: ", "# "))
    with tracking_server(tmp_path) as port:
        done = subprocess.run(
            [sys.executable, "-m", "pipelines.cli", "run", str(path)],
            cwd=tmp_path,
            env={
                **os.environ,
                **PLANTED,
                # MLflow would send them instead of those of the address.
                "MLFLOW_TRACKING_PASSWORD": "",
                "MLFLOW_TRACKING_URI": f"http://me:{IN_ADDRESSES[2]}@127.0.0.1:{port}",
                "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            },
            capture_output=True,
            check=False,
            timeout=600,
        )
    (tmp_path / "said").write_bytes(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr.decode()
    summary = json.loads((tmp_path / "workspace" / "desk" / "summary.json").read_text())
    assert summary["mlflow"]["tracking_uri"] == f"http://***@127.0.0.1:{port}"
    assert (tmp_path / "server.db").stat().st_size > 0
    assert any((tmp_path / "artifacts").rglob("*")), "the server holds the models"
    assert leaks(tmp_path) == []


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_nothing_that_is_written_or_said_holds_a_secret(tmp_path: Path) -> None:
    nobody = operation_servers.free_port()
    path = tmp_path / "job.yaml"
    with operation_servers.webhooks() as hook, operation_servers.mails("another one") as mail:
        path.write_text(JOB.format(folder=tmp_path, port=mail.port, python=sys.executable))
        hook.status = 500
        environment = {
            **os.environ,
            **PLANTED,
            "FORECASTER_WEBHOOK_URL": f"http://127.0.0.1:{hook.port}/T0/{IN_ADDRESSES[0]}",
            "HTTPS_PROXY": f"http://me:{IN_ADDRESSES[1]}@127.0.0.1:{nobody}",
            "MLFLOW_TRACKING_USERNAME": "me",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        }

        def call(*arguments: str, **more: str) -> int:
            done = subprocess.run(
                [sys.executable, "-m", "pipelines.cli", *arguments],
                cwd=tmp_path,
                env=environment | more,
                capture_output=True,
                check=False,
                timeout=600,
            )
            with (tmp_path / "said").open("ab") as said:
                said.write(done.stdout + done.stderr)
            return done.returncode

        assert call("daily", str(path), "--as-of", "2018-06-01") == 0
        # A tracking server that does not answer, with a password in its address: an evening goes on with what
        # the registry said last, and one that never heard of it fails and tells.
        uri = f"http://me:{IN_ADDRESSES[2]}@127.0.0.1:{nobody}"
        assert call("daily", str(path), "--as-of", "2018-06-04", MLFLOW_TRACKING_URI=uri) == 0
        first = tmp_path / "first.yaml"
        first.write_text(path.read_text().replace(f"{tmp_path}/workspace", f"{tmp_path}/other"))
        assert call("daily", str(first), "--as-of", "2018-06-04", "--debug", MLFLOW_TRACKING_URI=uri) == 1
        assert call("test-alerts", str(path)) == 1
        # The ledger in a database that is not there.
        away = path.read_text().replace(
            "name: desk", f"name: desk\nledger: postgresql://me@127.0.0.1:{nobody}/x"
        )
        (tmp_path / "away.yaml").write_text(away)
        assert call("status", str(tmp_path / "away.yaml")) == 1
    # What was meant to be told was: the webhook got its token.
    assert any(headers["Authorization"].startswith("Bearer planted1") for headers in hook.headers)
    assert mail.messages == []
    with Ledger.open(load_job(first).ledger_url) as ledger:
        alerts = ledger.alerts("desk")
        status = ledger.status("desk")
    failed = status[status["status"] == "failed"]
    assert len(failed) >= 1
    deliveries = alerts[alerts["check"].str.startswith("sent by ")]
    assert set(deliveries["state"]) == {"fail"}
    names = {str(file.relative_to(tmp_path)) for file, _ in written(tmp_path)}
    assert {"said", "workspace/ledger.db", "workspace/mlflow.db", "other/ledger.db"} <= names
    assert len(names) > 20
    assert leaks(tmp_path) == []
    said = (tmp_path / "said").read_text(errors="replace")
    assert "Traceback" in said, "with --debug"
    assert "webhook: the server answered 500" in said
