"""The settings of the operation: defaults, one line for what is wrong, and no part in the hash of a job."""

from __future__ import annotations

import pytest

from forecaster.errors import JobError
from forecaster.job import json_schema, parse_job
from forecaster.job.operation import CommandAlert, EmailAlert, WebhookAlert, is_loopback

MINIMAL = """
name: test
prices: {kind: sample}
backtest: {start: 2008-01-01}
models: [{kind: zero}]
"""
EMAIL = "kind: email, sender: a@b.example, recipients: [c@d.example], host: mail.example"
COMPLETE = f"""{MINIMAL}
monitoring: {{alpha: 0.05, remedies: false, recent: 30}}
schedule: {{calendar: XNYS, minutes_after_close: 60, catch_up: 2}}
alerts:
- {{kind: command, command: [logger, -t, forecaster]}}
- {{kind: webhook, url: "https://chat.example/hook", least: fail}}
- {{kind: webhook, name: second}}
- {{{EMAIL}, user: a, port: 465, security: tls}}
"""


def test_a_job_without_them_has_the_documented_defaults() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    assert (job.monitoring.alpha, job.monitoring.remedies, job.alerts) == (0.01, True, ())
    assert (job.schedule.minutes_after_close, job.schedule.calendar) == (45, None)


def test_all_of_them_are_read_and_named_after_their_kind() -> None:
    job = parse_job(COMPLETE, "job.yaml")
    assert [alert.name for alert in job.alerts] == ["command", "webhook", "second", "email"]
    command, first, second, mail = job.alerts
    assert isinstance(command, CommandAlert)
    assert command.command == ("logger", "-t", "forecaster")
    assert isinstance(first, WebhookAlert)
    assert isinstance(second, WebhookAlert)
    assert (first.least, second.url) == ("fail", None)
    assert isinstance(mail, EmailAlert)
    assert (mail.port, mail.security) == (465, "tls")


def test_they_make_no_other_job_of_it() -> None:
    assert parse_job(COMPLETE, "job.yaml").hash == parse_job(MINIMAL, "job.yaml").hash


def test_the_schema_documents_them() -> None:
    properties = json_schema()["properties"]
    assert {"monitoring", "schedule", "alerts"} <= properties.keys()
    for name in ("Monitoring", "Schedule", "CommandAlert", "EmailAlert", "WebhookAlert"):
        for setting in json_schema()["$defs"][name]["properties"].values():
            assert setting.get("description"), (name, setting)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("alerts: [{kind: pager}]", "alerts[0].kind: unknown kind 'pager' (allowed: command, email"),
        ("alerts: [{kind: command, command: []}]", "alerts[0].command: List should have at least 1 item"),
        ("alerts: [{kind: webhook}, {kind: webhook}]", "alerts have distinct names; received 'webhook' more"),
        (
            "alerts: [{kind: webhook, url: 'https://u:sekret@h.example/x'}]",
            "the url of a webhook holds no credentials or options; leave it out and set",
        ),
        ("alerts: [{kind: webhook, url: 'https://h.example/x?key=sekret'}]", "holds no credentials"),
        ("alerts: [{kind: webhook, url: ftp://h.example}]", "the url of a webhook is one of http or https"),
        (f"alerts: [{{{EMAIL}, user: a, security: none}}]", "a password goes over an encrypted connection"),
        (
            "alerts: [{kind: email, sender: nobody, recipients: [a@b.example], host: h}]",
            "an e-mail address has one @; received 'nobody'",
        ),
        (
            'alerts: [{kind: email, sender: "a@b.c\\nBcc: x", recipients: [a@b.c], host: h}]',
            "a text stands on one line",
        ),
        (f"alerts: [{{{EMAIL.replace('mail.example', 'smtp://h')}}}]", "a host is a name or an address"),
        ("schedule: {minutes_after_close: 5}", "schedule.minutes_after_close: Input should be"),
        ("schedule: {cron: x}", "schedule: unknown key 'cron'"),
        ("monitoring: {alpha: 0.5}", "monitoring.alpha: Input should be less than 0.5"),
        ("monitoring: {recent: 5}", "monitoring.recent: Input should be greater than or equal to 21"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(text: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_job(MINIMAL + text, "job.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "sekret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("[::1]", True), ("::1", True),
     ("0.0.0.0", False), ("10.0.0.1", False), ("localhost.example", False)],
)  # fmt: skip
def test_which_hosts_are_this_machine(host: str, here: bool) -> None:
    assert is_loopback(host) is here
