"""Tell people what is wrong: each change of a check once, by command, e-mail or webhook.

The ledger holds the states of all checks, evening by evening, and what was sent of them, so that a message is
neither lost with a process that dies nor repeated by the next one. A message that cannot be sent is recorded
with the reason and tried again with the next; it never fails an evening. A process that dies between sending
and recording sends twice: the other order would lose the message.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from forecaster.errors import ForecasterError, JobError
from forecaster.job.operation import AnyAlert, CommandAlert, EmailAlert, WebhookAlert, is_loopback
from forecaster.monitoring import DELIVERY, State, is_delivery, worst
from forecaster.redaction import one_line
from pipelines.secrets import Secrets, load_secrets, mask, without_secrets

if TYPE_CHECKING:
    import pandas as pd

    from forecaster.job import Job
    from forecaster.ledger import Ledger

__all__ = ["Message", "Notice", "record_failure", "record_success", "send_alerts", "try_alerts"]

STEP = "step "
"""What the checks of steps begin with."""

REPEATED = 14
"""Days for which a message that could not be sent is tried again."""

_LONGEST = 500
"""Characters of the reason why a message could not be sent."""


@dataclass(frozen=True)
class Notice:
    """A change of a check.

    Parameters
    ----------
    as_of : str
        The evening, YYYY-MM-DD.
    check : str
        Such as ``coverage``.
    state : str
        ``ok`` where it is well again, ``warn`` or ``fail``.
    reason : str
        Why.
    """

    as_of: str
    check: str
    state: State
    reason: str


@dataclass(frozen=True)
class Message:
    """What is sent: as JSON to a command or a webhook, as text by e-mail.

    Parameters
    ----------
    job : str
        Name of the job.
    state : str
        The worst of the notices.
    host : str
        The machine that it comes from.
    notices : tuple of Notice
        What has changed, the worst first.
    """

    job: str
    state: State
    host: str
    notices: tuple[Notice, ...]

    @property
    def subject(self) -> str:
        """One line that says what is wrong."""
        first = self.notices[0]
        more = f" and {len(self.notices) - 1} more" if len(self.notices) > 1 else ""
        return f"forecaster {self.job}: {self.state}: {first.check}{more}"

    @property
    def text(self) -> str:
        """All of it for people to read."""
        lines = [f"{each.as_of}  {each.state:4}  {each.check}: {each.reason}" for each in self.notices]
        return "\n".join([self.subject, "", *lines, "", f"from {self.host}", ""])

    def json(self) -> str:
        """All of it for programs; ``text`` is what a chat shows."""
        return json.dumps({"text": self.text, "subject": self.subject, **asdict(self)})


def record_failure(job: Job, ledger: Ledger, as_of: datetime.date, step: str, reason: str) -> None:
    """Record that a step of an evening failed, for `send_alerts` to tell; `record_success` takes it back."""
    try:
        secrets = load_secrets()
    except JobError:
        # A failure is recorded whatever else is wrong.
        secrets = Secrets()
    ledger.record_alert(
        job.name, as_of=as_of, check=f"{STEP}{step}", state="fail", reason=mask(reason, secrets)
    )


def record_success(job: Job, ledger: Ledger, as_of: datetime.date, steps: Iterable[str]) -> None:
    """Record that steps are done, where they had failed earlier on the evening."""
    recorded = ledger.alerts(job.name)
    failed = set(recorded.loc[recorded["as_of"] == str(as_of), "check"])
    for step in steps:
        if f"{STEP}{step}" in failed:
            ledger.record_alert(
                job.name, as_of=as_of, check=f"{STEP}{step}", state="ok", reason="done by a later attempt"
            )


def send_alerts(job: Job, ledger: Ledger, as_of: datetime.date) -> list[str]:
    """Send what has changed and was not sent yet, and record that it was.

    Parameters
    ----------
    job : Job
        Its `alerts` say who is told.
    ledger : Ledger
        Holds the states of the checks.
    as_of : date
        The evening; changes of up to `REPEATED` days before it that could not be sent are sent now.

    Returns
    -------
    list of str
        What could not be sent or recorded, and why, in one line each; it is also printed to stderr. Nothing
        is raised: an alert never fails an evening.
    """
    trouble: list[str] = []
    if not job.alerts:
        return trouble
    try:
        secrets = load_secrets()
        recorded = ledger.alerts(job.name)
        for alert in job.alerts:
            trouble += _send(job.name, alert, secrets, ledger, recorded, as_of)
    except ForecasterError as error:
        trouble.append(f"alerts: {error}")
    # Whatever it is, the evening has done its work.
    except Exception as error:
        trouble.append(f"alerts: internal error: {type(error).__name__}: {one_line(str(error))}")
    for line in trouble:
        print(f"warning: {line}", file=sys.stderr)
    return trouble


def try_alerts(job: Job) -> dict[str, str]:
    """Send a message to everybody who would be told, whatever the states are.

    Returns
    -------
    dict of str to str
        For each alert by name why it could not be sent; empty where it was.
    """
    notice = Notice(datetime.date.today().isoformat(), "test", "ok", "a message to try that alerts arrive")
    message = Message(job.name, "ok", socket.gethostname(), (notice,))
    secrets = load_secrets()
    return {alert.name: _deliver(alert, message, secrets) for alert in job.alerts}


def _send(
    job: str, alert: AnyAlert, secrets: Secrets, ledger: Ledger, recorded: pd.DataFrame, as_of: datetime.date
) -> list[str]:
    """Send one alert what it was not sent yet."""
    new = _unsent(alert, recorded, as_of)
    if not new:
        return []
    state = worst([notice.state for notice in new])
    failed = _deliver(alert, Message(job, state, socket.gethostname(), tuple(new)), secrets)
    outcome: Literal["ok", "fail"] = "fail" if failed else "ok"
    for notice in new:
        ledger.record_alert(
            job,
            as_of=datetime.date.fromisoformat(notice.as_of),
            check=_delivery(alert, notice.check, notice.state),
            state=outcome,
            reason=failed or "delivered",
        )
    return [f"the alert {alert.name} could not be sent: {failed}"] if failed else []


def _delivery(alert: AnyAlert, check: str, state: str) -> str:
    return f"{DELIVERY}{alert.name}: {check} {state}"


def _unsent(alert: AnyAlert, recorded: pd.DataFrame, as_of: datetime.date) -> list[Notice]:
    """Give the changes of checks that an alert is to be told of and has not been, the worst first."""
    import pandas as pd

    first = pd.Timestamp(as_of - datetime.timedelta(days=REPEATED))
    told: set[tuple[str, pd.Timestamp]] = set()
    changes: list[tuple[pd.Timestamp, str, State, str]] = []
    # What a step did on one evening says nothing about the next.
    before: dict[tuple[str, pd.Timestamp | None], State] = {}
    ordered = recorded.sort_values("as_of", kind="stable")
    columns = (ordered[name] for name in ("as_of", "check", "state", "reason"))
    for evening, check, state, reason in zip(*columns, strict=True):
        if is_delivery(check):
            told |= {(check, evening)} if state == "ok" else set()
            continue
        key = (check, evening if check.startswith(STEP) else None)
        last, before[key] = before.get(key, "ok"), state
        heard = alert.least == "warn" or "fail" in (state, last)
        if state != last and heard and first <= evening <= pd.Timestamp(as_of):
            changes.append((evening, check, state, reason))
    new = [
        Notice(evening.date().isoformat(), check, state, reason)
        for evening, check, state, reason in changes
        if (_delivery(alert, check, state), evening) not in told
    ]
    return sorted(new, key=lambda notice: ("fail", "warn", "ok").index(notice.state))


# ----------------------------------------------------------------------------------------------- the channels


def _deliver(alert: AnyAlert, message: Message, secrets: Secrets) -> str:
    """Send a message; why it could not be sent, without secrets, or nothing."""
    outcome: list[str] = []

    def attempt() -> None:
        try:
            match alert:
                case CommandAlert():
                    _run(alert, message)
                case EmailAlert():
                    _mail(alert, message, secrets)
                case WebhookAlert():
                    _post(alert, message, secrets)
        # Whatever a server, a program or a library does: an alert never fails an evening.
        except Exception as error:
            said = " ".join(str(error).split()) or type(error).__name__
            told = said if isinstance(error, _UndeliveredError) else f"{type(error).__name__}: {said}"
            outcome.append(mask(told, secrets)[:_LONGEST])
        else:
            outcome.append("")

    # A server that answers a byte at a time outlasts any timeout of a socket.
    thread = threading.Thread(target=attempt, name=f"alert-{alert.name}", daemon=True)
    thread.start()
    thread.join(2.0 * alert.timeout)
    return outcome[0] if outcome else f"not done within {2 * alert.timeout} s"


class _UndeliveredError(Exception):
    """A message was not taken, and why."""


def _run(alert: CommandAlert, message: Message) -> None:
    # A session of its own, so that what it started ends with it.
    with subprocess.Popen(
        alert.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=without_secrets(),
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(message.json(), timeout=alert.timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise _UndeliveredError(
                f"{alert.command[0]} did not end within {alert.timeout} s, and was ended"
            ) from None
    if process.returncode:
        last = said.strip().splitlines()[-1:]
        raise _UndeliveredError(f"{alert.command[0]} ended with {process.returncode}: {' '.join(last)}")


def _mail(alert: EmailAlert, message: Message, secrets: Secrets) -> None:
    letter = EmailMessage()
    # A reason may hold anything; a header is one line.
    letter["Subject"] = " ".join(message.subject.split())
    letter["From"], letter["To"] = alert.sender, ", ".join(alert.recipients)
    letter["Date"], letter["Message-ID"] = formatdate(), make_msgid(domain=alert.sender.rpartition("@")[2])
    letter["Auto-Submitted"] = "auto-generated"
    letter.set_content(message.text)
    context = ssl.create_default_context()
    with contextlib.ExitStack() as stack:
        if alert.security == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                alert.host, alert.port, timeout=alert.timeout, context=context
            )
        else:
            server = smtplib.SMTP(alert.host, alert.port, timeout=alert.timeout)
        stack.enter_context(server)
        if alert.security == "starttls":
            server.starttls(context=context)
        if alert.user:
            if secrets.smtp_password is None:
                raise _UndeliveredError("a user needs a password: set FORECASTER_SMTP_PASSWORD")
            server.login(alert.user, secrets.smtp_password.get_secret_value())
        refused = server.send_message(letter)
    if refused:
        raise _UndeliveredError(f"refused for {', '.join(sorted(refused))}")


def _post(alert: WebhookAlert, message: Message, secrets: Secrets) -> None:
    # Imported here: a quarter of a second that `--help` does not need.
    import requests

    url = alert.url or (secrets.webhook_url.get_secret_value() if secrets.webhook_url else None)
    if url is None:
        raise _UndeliveredError("a webhook needs an address: name its `url`, or set FORECASTER_WEBHOOK_URL")
    headers = {"Content-Type": "application/json", "User-Agent": "forecaster"}
    parts = urlsplit(url)
    if secrets.webhook_token is not None:
        if parts.scheme != "https" and not is_loopback(parts.hostname or ""):
            raise _UndeliveredError("a token goes over an encrypted connection: the url must be one of https")
        headers["Authorization"] = f"Bearer {secrets.webhook_token.get_secret_value()}"
    # No redirects: the message, and a token, are for the address that was named.
    try:
        answer = requests.post(
            url,
            data=message.json().encode(),
            headers=headers,
            timeout=alert.timeout,
            allow_redirects=False,
        )
    except requests.RequestException as error:
        said = str(error) if alert.url else "its address is a secret"
        raise _UndeliveredError(f"no answer ({type(error).__name__}): {said}") from None
    if not 200 <= answer.status_code < 300:
        raise _UndeliveredError(f"the server answered {answer.status_code} {answer.reason}")
