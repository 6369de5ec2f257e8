"""Whatever the environment keeps secret is masked, however it is written; a line stays one line."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from forecaster.redaction import CONTROL, MASK, one_line, redact, secret_variables

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zs")), min_size=4, max_size=30)


@pytest.mark.parametrize(
    "name",
    [
        "PGPASSWORD",
        "MLFLOW_TRACKING_PASSWORD",
        "MLFLOW_TRACKING_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ACCESS_KEY_ID",
        "FORECASTER_SMTP_PASSWORD",
        "FORECASTER_WEBHOOK_TOKEN",
        "FORECASTER_WEBHOOK_URL",
        "SOME_APIKEY",
    ],
)
def test_variables_of_secrets_are_known_by_their_names(name: str) -> None:
    assert secret_variables({name: "x", "HOME": "/root", "FORECASTER_SECRETS_DIR": "/run/secrets"}) == (name,)
    assert redact("it said: open-sesame!", {name: "open-sesame"}) == f"it said: {MASK}!"


@given(TEXT, TEXT, TEXT)
def test_a_secret_never_stays_in_a_text(before: str, secret: str, after: str) -> None:
    assume(secret not in MASK)
    for written in (secret, quote(secret, safe="")):
        masked = redact(f"{before}{written}{after}", {"PGPASSWORD": secret})
        assert secret not in masked.replace(MASK, "\0")
        assert MASK in masked


@given(TEXT)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assume("=" not in text)
    assume("@" not in text)
    assert redact(text, {"HOME": text, "LANG": "C.UTF-8"}) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("no answer of https://me:pw12@host:5000/x?a=1", f"no answer of https://{MASK}@host:5000/x?a=1"),
        ("postgresql://forecaster@db/ledger", f"postgresql://{MASK}@db/ledger"),
        ("dsn: host=db password=hunter2 user=x", f"dsn: host=db password={MASK} user=x"),
        ("GET /hook?token=abcdef&x=1", f"GET /hook?token={MASK}&x=1"),
        ("write to me@example.org", "write to me@example.org"),
        ("https://example.org/a@b", "https://example.org/a@b"),
    ],
)
def test_credentials_in_addresses_are_masked_whatever_the_environment(text: str, masked: str) -> None:
    assert redact(text, {}) == masked


def test_the_password_of_a_url_in_the_environment_is_masked_without_its_url() -> None:
    environment = {"HTTPS_PROXY": "http://me:p%40ssw0rd@proxy:3128"}
    assert redact("proxy refused p@ssw0rd or p%40ssw0rd", environment) == f"proxy refused {MASK} or {MASK}"


@given(st.text())
def test_a_line_is_one_line_that_a_terminal_does_not_obey(text: str) -> None:
    line = one_line(text)
    assert not CONTROL.search(line)
    assert len(line.splitlines()) <= 1
    assert one_line(line) == line
    if text.isprintable() and "=" not in text and "@" not in text:
        assert line == " ".join(text.split())


def test_what_a_line_shows_instead() -> None:
    said = "red\x1b[31m\nforecaster: done\t\u202eon\ud800"
    assert one_line(said) == "red\\x1b[31m forecaster: done \\u202eon\\ud800"
    assert one_line("日経 e\u0301 naïve 👍🏽") == "日経 e\u0301 naïve 👍🏽"
