"""Where the tracking store lies: a database in the workspace, or the server that the environment names."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from forecaster.errors import JobError

__all__ = ["SERVER", "artifact_location", "tracking_uri"]

# Nothing is sent anywhere; MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
# It prints the address of each run, with the password that the server's address may hold.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

for _name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow.pyfunc"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# It warns that it cannot find the version of pip, which no model here needs.
logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)

SERVER = "MLFLOW_TRACKING_URI"
"""MLflow's own variable; its user name, password and token are MLflow's own variables too."""


def tracking_uri(workspace: Path) -> str:
    """Give the address of the store, and make the workspace where it is not there.

    Raises
    ------
    JobError
        If the workspace cannot be made.
    """
    try:
        workspace.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise JobError(f"the workspace {workspace} cannot be written to: {reason}") from None
    return os.environ.get(SERVER) or f"sqlite:///{workspace / 'mlflow.db'}"


def artifact_location(workspace: Path) -> str | None:
    """Give the folder of the files of runs; None where the server knows it."""
    return None if os.environ.get(SERVER) else (workspace.resolve() / "mlartifacts").as_uri()
