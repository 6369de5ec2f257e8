"""What is written down: secrets are masked in messages, reasons and records, and a line stays one line.

A secret reaches the application by its environment alone (see `docs/operations.md`), so what must not be
written is known: the values of the variables whose names say so, and passwords inside URLs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import quote, unquote, urlsplit

__all__ = ["CONTROL", "MASK", "one_line", "redact", "secret_variables"]

MASK = "***"
"""What stands where a secret stood."""

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What moves about on a terminal, begins a line of a log, turns a text around or is half a character."""

_SECRET = re.compile(r"PASSW(OR)?D|PASSPHRASE|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|CREDENTIAL|WEBHOOK_URL", re.I)

_SHORTEST = 4
"""Shorter values are no secrets, and would mask parts of words."""

_USER_INFO = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/?#'\"<>]+@", re.I)
_PARAMETER = re.compile(
    r"(?P<key>\b(?:password|passwd|token|access_token|secret|api_?key|signature|sig)=)[^\s&;,'\"<>]+", re.I
)


def secret_variables(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Name the variables of the environment that hold secrets, by their names, such as PGPASSWORD."""
    given = os.environ if environment is None else environment
    # A folder or a file of secrets is no secret: its name stands in clear messages.
    return tuple(
        name for name in given if _SECRET.search(name) and not name.upper().endswith(("_DIR", "FILE"))
    )


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """Mask secrets in a text.

    Parameters
    ----------
    text : str
        Such as the message of an error.
    environment : mapping of str to str, optional
        Where the secrets are known from; the environment of the process by default.

    Returns
    -------
    str
        The text with `MASK` for the values of `secret_variables`, also as a URL writes them, for the user and
        password of any URL in the text or in the environment, and for the values of parameters that are named
        as secrets are. A text without secrets comes back as it is.
    """
    given = os.environ if environment is None else environment
    secrets = {given[name] for name in secret_variables(given)}
    for value in given.values():
        # A proxy's or a tracking server's password may be told without its URL.
        if "://" in value and "@" in value:
            try:
                password = urlsplit(value).password
            except ValueError:
                continue
            if password:
                secrets |= {password, unquote(password)}
    written = {each for secret in secrets for each in (secret, quote(secret, safe=""), secret.strip())}
    for secret in sorted(written, key=len, reverse=True):
        if len(secret) >= _SHORTEST:
            text = text.replace(secret, MASK)
    text = _USER_INFO.sub(rf"\g<scheme>{MASK}@", text)
    return _PARAMETER.sub(rf"\g<key>{MASK}", text)


def one_line(text: str) -> str:
    r"""Make one line of a text that may come from anywhere, such as a file, a server or a database.

    Returns
    -------
    str
        The text, as `redact` gives it, with one space for any white space, and other characters of `CONTROL`
        as Python writes them, such as ``\x1b``: a terminal shows them instead of doing what they say.
    """
    return CONTROL.sub(lambda found: repr(found.group())[1:-1], redact(" ".join(text.split())))
