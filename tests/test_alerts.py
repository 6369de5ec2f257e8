"""Alerts: each change once, to the right people, without a secret, and never at the cost of an evening."""

from __future__ import annotations

import datetime
import email
import email.policy
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import operation_servers
import pandas as pd
import pytest
from operation_servers import Taken

from forecaster.job import Job, parse_job
from forecaster.ledger import Ledger
from forecaster.monitoring import State, is_delivery
from pipelines.alerts import record_failure, record_success, send_alerts, try_alerts
from pipelines.secrets import load_secrets, without_secrets

MONDAY, TUESDAY = datetime.date(2024, 1, 8), datetime.date(2024, 1, 9)
SECRET = "open-sesame-31415"


def job_with(*alerts: str) -> Job:
    listed = "".join(f"\n- {alert}" for alert in alerts) or " []"
    return parse_job(
        "name: us\nprices: {kind: sample}\nbacktest: {start: 2008-01-01}\nmodels: [{kind: zero}]\n"
        f"alerts:{listed}",
        "job.yaml",
    )


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.db") as opened:
        yield opened


@pytest.fixture
def hook() -> Iterator[Taken]:
    with operation_servers.webhooks() as taken:
        yield taken


def webhook(port: int, more: str = "") -> str:
    return f"{{kind: webhook, url: 'http://127.0.0.1:{port}/hook', timeout: 5{more}}}"


def note(
    ledger: Ledger, check: str, state: State, as_of: datetime.date = MONDAY, reason: str = "why"
) -> None:
    ledger.record_alert("us", as_of=as_of, check=check, state=state, reason=reason)


def _states(text: str) -> list[State]:
    return [cast(State, word) for word in text.split()]


def told(taken: Taken) -> list[list[tuple[str, str, str]]]:
    return [
        [(notice["as_of"], notice["check"], notice["state"]) for notice in message["notices"]]
        for message in taken.messages
    ]


# --- what is told ----------------------------------------------------------------------------------------


def test_what_is_well_is_not_told_and_a_change_is_told_once(ledger: Ledger, hook: Taken) -> None:
    job = job_with(webhook(hook.port))
    note(ledger, "coverage", "ok")
    assert send_alerts(job, ledger, MONDAY) == []
    assert hook.messages == []
    note(ledger, "coverage", "fail", TUESDAY)
    note(ledger, "stale", "warn", TUESDAY)
    for _ in range(3):
        assert send_alerts(job, ledger, TUESDAY) == []
    assert told(hook) == [[("2024-01-09", "coverage", "fail"), ("2024-01-09", "stale", "warn")]]
    message = hook.messages[0]
    assert (message["job"], message["state"]) == ("us", "fail")
    assert message["subject"] == "forecaster us: fail: coverage and 1 more"
    assert "2024-01-09  fail  coverage: why" in message["text"]


def test_a_state_that_stays_is_not_told_again_and_its_end_is(ledger: Ledger, hook: Taken) -> None:
    job = job_with(webhook(hook.port))
    days = [MONDAY + datetime.timedelta(days=number) for number in range(4)]
    for day, state in zip(days, _states("warn warn fail ok"), strict=True):
        note(ledger, "coverage", state, day)
        send_alerts(job, ledger, day)
    assert [message[0][2] for message in told(hook)] == ["warn", "fail", "ok"]


def test_evenings_that_are_done_late_are_told_in_their_order(ledger: Ledger, hook: Taken) -> None:
    job = job_with(webhook(hook.port))
    note(ledger, "stale", "fail", TUESDAY)
    send_alerts(job, ledger, TUESDAY)
    # Monday is done afterwards: it was well, and so was whatever came before Tuesday.
    note(ledger, "stale", "ok", MONDAY)
    send_alerts(job, ledger, MONDAY)
    assert told(hook) == [[("2024-01-09", "stale", "fail")]]


def test_who_wants_failures_alone_hears_of_them_and_of_their_end(ledger: Ledger, hook: Taken) -> None:
    job = job_with(webhook(hook.port, ", least: fail"))
    days = [MONDAY + datetime.timedelta(days=number) for number in range(5)]
    for day, state in zip(days, _states("warn ok warn fail ok"), strict=True):
        note(ledger, "drift", state, day)
        send_alerts(job, ledger, day)
    assert [message[0][2] for message in told(hook)] == ["fail", "ok"]


def test_a_step_that_fails_is_told_every_evening_and_once_more_when_it_is_done(
    ledger: Ledger, hook: Taken
) -> None:
    job = job_with(webhook(hook.port))
    for day in (MONDAY, TUESDAY):
        record_failure(job, ledger, day, "forecast", "no memory")
        record_failure(job, ledger, day, "forecast", "no memory")
        send_alerts(job, ledger, day)
    record_success(job, ledger, TUESDAY, ["ingest", "forecast"])
    send_alerts(job, ledger, TUESDAY)
    assert told(hook) == [
        [("2024-01-08", "step forecast", "fail")],
        [("2024-01-09", "step forecast", "fail")],
        [("2024-01-09", "step forecast", "ok")],
    ]


def test_every_channel_has_its_own_record(ledger: Ledger, hook: Taken) -> None:
    job = job_with(webhook(hook.port), webhook(operation_servers.free_port(), ", name: second"))
    note(ledger, "coverage", "fail")
    trouble = send_alerts(job, ledger, MONDAY)
    assert len(trouble) == 1
    assert trouble[0].startswith("the alert second could not be sent: no answer (ConnectionError)")
    assert len(hook.messages) == 1
    table = ledger.alerts("us")
    sent = table[table["check"].map(is_delivery)]
    assert sent[["check", "state"]].to_numpy().tolist() == [
        ["sent by webhook: coverage fail", "ok"],
        ["sent by second: coverage fail", "fail"],
    ]


def test_what_could_not_be_sent_is_sent_with_the_next(ledger: Ledger, hook: Taken) -> None:
    job = job_with(webhook(hook.port))
    hook.status = 503
    note(ledger, "coverage", "fail")
    assert send_alerts(job, ledger, MONDAY) == [
        "the alert webhook could not be sent: the server answered 503 Service Unavailable"
    ]
    hook.status, hook.messages = 200, []
    note(ledger, "stale", "warn", TUESDAY)
    assert send_alerts(job, ledger, TUESDAY) == []
    assert told(hook) == [[("2024-01-08", "coverage", "fail"), ("2024-01-09", "stale", "warn")]]
    # After a fortnight nobody wants to hear of it any more.
    note(ledger, "drift", "warn", TUESDAY)
    assert send_alerts(job, ledger, TUESDAY + datetime.timedelta(days=15)) == []
    assert len(hook.messages) == 1


def test_a_ledger_that_breaks_meanwhile_fails_no_evening(tmp_path: Path, hook: Taken) -> None:
    path = tmp_path / "broken.db"
    with Ledger.open(path) as ledger:
        note(ledger, "coverage", "fail")
        for file in tmp_path.glob("broken.db*"):
            file.write_bytes(b"no database at all" * 1000)
        (line,) = send_alerts(job_with(webhook(hook.port)), ledger, MONDAY)
    assert line.startswith("alerts: ")
    assert "\n" not in line
    assert hook.messages == []


# --- the channels ----------------------------------------------------------------------------------------


def test_a_webhook_gets_its_token_and_its_secret_address_from_the_environment(
    ledger: Ledger, hook: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORECASTER_WEBHOOK_TOKEN", SECRET)
    monkeypatch.setenv("FORECASTER_WEBHOOK_URL", f"http://127.0.0.1:{hook.port}/T0/{SECRET}")
    assert try_alerts(job_with("{kind: webhook}")) == {"webhook": ""}
    assert hook.headers[0]["Authorization"] == f"Bearer {SECRET}"
    assert hook.messages[0]["notices"][0]["check"] == "test"


def test_a_webhook_without_an_address_says_what_to_set() -> None:
    assert try_alerts(job_with("{kind: webhook}")) == {
        "webhook": "a webhook needs an address: name its `url`, or set FORECASTER_WEBHOOK_URL"
    }


def test_a_token_goes_nowhere_unencrypted_and_follows_no_redirection(
    hook: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORECASTER_WEBHOOK_TOKEN", SECRET)
    refused = try_alerts(job_with("{kind: webhook, url: 'http://192.0.2.1/x'}"))["webhook"]
    assert refused == "a token goes over an encrypted connection: the url must be one of https"
    hook.status, hook.location = 302, "http://192.0.2.1/elsewhere"
    answered = try_alerts(job_with(webhook(hook.port)))["webhook"]
    assert answered == "the server answered 302 Found"
    assert len(hook.messages) == 1


def test_a_secret_address_is_not_told_when_it_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "FORECASTER_WEBHOOK_URL", f"http://127.0.0.1:{operation_servers.free_port()}/T0/{SECRET}"
    )
    assert try_alerts(job_with("{kind: webhook}")) == {
        "webhook": "no answer (ConnectionError): its address is a secret"
    }


def test_a_server_that_answers_for_ever_is_left(ledger: Ledger) -> None:
    with operation_servers.dripping() as port:
        begin = time.monotonic()
        said = try_alerts(job_with(webhook(port).replace("timeout: 5", "timeout: 1")))["webhook"]
    assert said == "not done within 2 s"
    assert time.monotonic() - begin < 20


def test_an_email_says_all_of_it(ledger: Ledger) -> None:
    with operation_servers.mails() as taken:
        job = job_with(
            f"{{kind: email, sender: f@a.example, recipients: [x@b.example, y@c.example], host: 127.0.0.1, "
            f"port: {taken.port}, security: none}}"
        )
        note(ledger, "coverage", "fail", reason="80% held 61%\r\nBcc: evil@example.org — naïve")
        assert send_alerts(job, ledger, MONDAY) == []
    (envelope,) = taken.messages
    assert envelope.rcpt_tos == ["x@b.example", "y@c.example"]
    letter = email.message_from_bytes(envelope.content, policy=email.policy.default)
    assert letter["Subject"] == "forecaster us: fail: coverage"
    assert letter["Bcc"] is None
    assert letter["Auto-Submitted"] == "auto-generated"
    assert "fail  coverage: 80% held 61%" in letter.get_content()
    assert "naïve" in letter.get_content()


@pytest.mark.filterwarnings("ignore:Requiring AUTH")
def test_a_user_signs_in_with_the_password_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with operation_servers.mails(SECRET) as taken:
        job = job_with(
            "{kind: email, sender: f@a.example, recipients: [x@b.example], host: 127.0.0.1, "
            f"port: {taken.port}, security: none, user: me}}"
        )
        assert try_alerts(job) == {"email": "a user needs a password: set FORECASTER_SMTP_PASSWORD"}
        monkeypatch.setenv("FORECASTER_SMTP_PASSWORD", "wrong-one")
        refused = try_alerts(job)["email"]
        assert refused.startswith("SMTPAuthenticationError: ")
        assert "wrong-one" not in refused
        monkeypatch.setenv("FORECASTER_SMTP_PASSWORD", SECRET)
        assert try_alerts(job) == {"email": ""}
    assert len(taken.messages) == 1


def test_a_server_without_encryption_is_not_spoken_to_where_it_is_asked_for() -> None:
    with operation_servers.mails() as taken:
        said = try_alerts(
            job_with(
                "{kind: email, sender: f@a.example, recipients: [x@b.example], host: 127.0.0.1, "
                f"port: {taken.port}}}"
            )
        )["email"]
    assert said.startswith("SMTPNotSupportedError: STARTTLS")
    assert taken.messages == []


def command(code: str, timeout: int = 20) -> str:
    return json.dumps({"kind": "command", "command": [sys.executable, "-c", code], "timeout": timeout})


def test_a_command_reads_the_message_and_no_secret_of_ours(
    tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    monkeypatch.setenv("FORECASTER_SMTP_PASSWORD", SECRET)
    out = tmp_path / "out.json"
    code = (
        f"import json, os, sys; json.dump([json.load(sys.stdin), dict(os.environ)], open({str(out)!r}, 'w'))"
    )
    note(ledger, "coverage", "fail", reason="$(touch x); `id`")
    assert send_alerts(job_with(command(code)), ledger, MONDAY) == []
    message, environment = json.loads(out.read_text())
    assert message["notices"][0]["reason"] == "$(touch x); `id`"
    assert SECRET not in environment.values()
    assert environment["PATH"] == os.environ["PATH"]


def test_a_command_that_fails_is_absent_or_does_not_end_is_recorded(ledger: Ledger, tmp_path: Path) -> None:
    note(ledger, "coverage", "fail")
    assert send_alerts(job_with(command("raise SystemExit('no such pager')")), ledger, MONDAY) == [
        f"the alert command could not be sent: {sys.executable} ended with 1: no such pager"
    ]
    absent = try_alerts(job_with("{kind: command, command: [/no/such/program]}"))["command"]
    assert absent.startswith("FileNotFoundError: ")
    born = tmp_path / "born"
    child = f"import os, time; open({str(born)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = (
        f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(600)"
    )
    slow = try_alerts(job_with(command(code, timeout=3)))["command"]
    assert slow == f"{sys.executable} did not end within 3 s, and was ended"
    pid, bound = int(born.read_text()), time.monotonic() + 20
    while running(pid):
        assert time.monotonic() < bound, "what the command had started went on"
        time.sleep(0.05)


def running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# --- secrets ---------------------------------------------------------------------------------------------


def test_secrets_come_from_a_folder_as_well_and_the_environment_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "forecaster_smtp_password").write_text("from-a-file\n")
    (tmp_path / "FORECASTER_WEBHOOK_TOKEN").write_text("from-a-file-too")
    monkeypatch.setenv("FORECASTER_SECRETS_DIR", str(tmp_path))
    secrets = load_secrets()
    assert secrets.smtp_password is not None
    assert secrets.smtp_password.get_secret_value() == "from-a-file"
    assert secrets.webhook_token is not None
    assert secrets.webhook_token.get_secret_value() == "from-a-file-too"
    monkeypatch.setenv("FORECASTER_WEBHOOK_TOKEN", "set")
    assert load_secrets().webhook_token.get_secret_value() == "set"  # type: ignore[union-attr]
    assert "from-a-file" not in repr(secrets)
    assert "from-a-file" not in str(secrets.model_dump())


def test_a_folder_of_secrets_that_is_not_there_fails_no_evening(
    tmp_path: Path, ledger: Ledger, hook: Taken, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORECASTER_SECRETS_DIR", str(tmp_path / "absent"))
    note(ledger, "coverage", "fail")
    (line,) = send_alerts(job_with(webhook(hook.port)), ledger, MONDAY)
    assert line.startswith(
        "alerts: FORECASTER_SECRETS_DIR is a folder with a file of each secret. Received: "
    )
    assert hook.messages == []


def test_an_empty_variable_is_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORECASTER_WEBHOOK_TOKEN", "")
    assert load_secrets().webhook_token is None


def test_other_programs_get_an_environment_without_secrets() -> None:
    given = {"PATH": "/bin", "MLFLOW_TRACKING_PASSWORD": "x", "AWS_SECRET_ACCESS_KEY": "y", "LANG": "C"}
    assert without_secrets(given) == {"PATH": "/bin", "LANG": "C"}


def test_reasons_are_masked_before_they_are_recorded(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSWORD", SECRET)
    record_failure(job_with(), ledger, MONDAY, "score", f"no connection to postgresql://me:{SECRET}@h/x")
    table: pd.DataFrame = ledger.alerts("us")
    assert table["reason"].tolist() == ["no connection to postgresql://***@h/x"]
