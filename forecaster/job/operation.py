"""Settings of the operation: what is watched, when the evenings begin, and who is told.

None of them changes a forecast, so none counts in the hash of a job.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, PositiveInt, model_validator

from forecaster.job.base import Name, NamedSpec, Share, Spec, Text

__all__ = ["AnyAlert", "CommandAlert", "EmailAlert", "Monitoring", "Schedule", "WebhookAlert", "is_loopback"]


class Monitoring(Spec):
    """What is watched every evening."""

    alpha: Share = Field(default=0.01, lt=0.5)
    """Probability that a check of coverage or of CRPS ever fails although the model keeps its promise,
    however often one looks; it warns at ten times of it."""
    coverage_tolerance: float = Field(default=0.02, ge=0.0, lt=0.2)
    """How far the coverage may lie from what was promised before it counts against the model."""
    crps_tolerance: float = Field(default=0.01, ge=0.0, lt=0.5)
    """How much worse than promised the CRPS may be against the baseline, as a share of it."""
    recent: int = Field(default=63, ge=21)
    """Sessions whose returns are compared with those before, to see whether the inputs have drifted."""
    longest_seconds: PositiveInt = 7200
    """Seconds that the steps of an evening may take together."""
    remedies: bool = True
    """Whether a model whose coverage breaks is calibrated adaptively and, if that does not help, replaced by
    the best baseline."""


class Schedule(Spec):
    """When `forecaster serve` begins an evening."""

    calendar: Text | None = None
    """Exchange calendar whose sessions have an evening, such as XNYS; those of the symbols where it is not
    given."""
    minutes_after_close: int = Field(default=45, ge=30, le=1200)
    """Minutes after the close, of the last exchange where there are several; bars are final after 30."""
    catch_up: PositiveInt = 5
    """Sessions that are done afterwards when they were missed; older ones are for `forecaster backfill`."""
    retries: int = Field(default=3, ge=0, le=100)
    """How often an evening that failed is begun again before the next."""
    retry_minutes: PositiveInt = 15
    """Minutes between two attempts."""


class _Alert(NamedSpec):
    name: Name = ""
    """Name in the record of what was sent; the kind where it is not given."""
    least: Literal["warn", "fail"] = "warn"
    """The mildest state that is told. A check that is well again is told where its trouble was."""


def _argument(text: str) -> str:
    if "\0" in text:
        raise ValueError("an argument of a program holds no zero byte")
    return text


class CommandAlert(_Alert):
    """Runs a command, without a shell, with the message as JSON on its standard input."""

    kind: Literal["command"]
    command: tuple[Annotated[str, AfterValidator(_argument)], ...] = Field(min_length=1)
    """The program and its arguments."""
    timeout: PositiveInt = 30
    """Seconds after which it is ended and counts as failed."""


def _host(text: str) -> str:
    if any(character in text for character in "@/ :") and not text.startswith("["):
        raise ValueError("a host is a name or an address, without user, port or path")
    return text


class EmailAlert(_Alert):
    """Sends an e-mail; the password, where there is a user, is FORECASTER_SMTP_PASSWORD."""

    kind: Literal["email"]
    sender: Text
    """Address it comes from."""
    recipients: tuple[Text, ...] = Field(min_length=1)
    """Addresses it goes to."""
    host: Annotated[Text, AfterValidator(_host)]
    """The SMTP server."""
    port: int = Field(default=587, ge=1, le=65535)
    """Its port."""
    security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted; `none` takes no user, unless the server is this machine."""
    user: Text | None = None
    """Who signs in; nobody where it is not given."""
    timeout: PositiveInt = 30
    """Seconds that the server may be silent."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        for address in (self.sender, *self.recipients):
            if address.count("@") != 1:
                raise ValueError(f"an e-mail address has one @; received {address!r}")
        if self.user and self.security == "none" and not is_loopback(self.host):
            raise ValueError(
                "a password goes over an encrypted connection; received security: none with a user: "
                "take starttls or tls"
            )
        return self


class WebhookAlert(_Alert):
    """Posts the message as JSON; FORECASTER_WEBHOOK_TOKEN, where it is set, goes along as a bearer token."""

    kind: Literal["webhook"]
    url: Text | None = None
    """Where to; where it is itself a secret, leave it out and set FORECASTER_WEBHOOK_URL."""
    timeout: PositiveInt = 30
    """Seconds that the server may be silent."""

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.url is None:
            return self
        parts = urlsplit(self.url)
        if parts.username or parts.password or parts.query or parts.fragment:
            # Not shown: it may be a secret.
            raise ValueError(
                "the url of a webhook holds no credentials or options; leave it out and set "
                "FORECASTER_WEBHOOK_URL"
            )
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the url of a webhook is one of http or https; received {self.url!r}")
        return self


AnyAlert = Annotated[CommandAlert | EmailAlert | WebhookAlert, Field(discriminator="kind")]


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
