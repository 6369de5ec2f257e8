"""Secrets come from the environment, never from a job file, and go nowhere but to who asks for them.

================================= =======================================================================
variable                          what
================================= =======================================================================
FORECASTER_SMTP_PASSWORD          password of the `user` of an e-mail alert
FORECASTER_WEBHOOK_TOKEN          bearer token of a webhook
FORECASTER_WEBHOOK_URL            address of a webhook whose `url` is not in the job, such as one of a chat
FORECASTER_SECRETS_DIR            a folder with a file of each name above, as containers and systemd mount
                                  secrets; a variable that is set as well goes first
PGPASSWORD                        password of the ledger in PostgreSQL; read by libpq
MLFLOW_TRACKING_USERNAME,         who signs in to an MLflow server; read by MLflow
MLFLOW_TRACKING_PASSWORD,
MLFLOW_TRACKING_TOKEN
AWS_ACCESS_KEY_ID, ...            credentials of an object store; read by its client
================================= =======================================================================

What they hold is masked in messages and records by `forecaster.redaction`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from forecaster.errors import JobError
from forecaster.redaction import redact, secret_variables

__all__ = ["Secrets", "load_secrets", "mask", "without_secrets"]


class Secrets(BaseSettings):
    """What alerts need to sign in."""

    model_config = SettingsConfigDict(
        env_prefix="FORECASTER_",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    smtp_password: SecretStr | None = None
    """Password of the user of an e-mail alert."""
    webhook_token: SecretStr | None = None
    """Bearer token of a webhook."""
    webhook_url: SecretStr | None = None
    """Address of a webhook whose job does not say it."""


def load_secrets() -> Secrets:
    """Read the secrets from the environment and, where it is named, from the folder of secrets.

    Raises
    ------
    JobError
        If the folder is not there.
    """
    folder = os.environ.get("FORECASTER_SECRETS_DIR")
    if not folder:
        return Secrets()
    if not Path(folder).is_dir():
        raise JobError(f"FORECASTER_SECRETS_DIR is a folder with a file of each secret. Received: {folder}")
    return Secrets(_secrets_dir=folder)  # type: ignore[call-arg]  # pydantic-settings' own


def mask(text: str, secrets: Secrets) -> str:
    """Mask secrets in a text, also those that were read from files."""
    held = {
        f"{name}_SECRET": value.get_secret_value()
        for name, value in (
            ("smtp_password", secrets.smtp_password),
            ("webhook_token", secrets.webhook_token),
            ("webhook_url", secrets.webhook_url),
        )
        if value is not None
    }
    return redact(text, {**os.environ, **held})


def without_secrets(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give an environment for other programs, without what only this one needs."""
    given = dict(os.environ if environment is None else environment)
    for name in secret_variables(given):
        given.pop(name)
    return given
