"""Experiments and models in MLflow: a run a job, below it one a model, below that one a refit."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd

# Nothing is sent anywhere; MLflow reads these when it is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")

import mlflow
from mlflow.entities import Metric, Param, RunStatus
from mlflow.models import ModelSignature
from mlflow.tracking import MlflowClient
from mlflow.types import ColSpec, DataType, Schema

from forecaster.errors import JobError, TrackingError
from forecaster.quantiles import quantile_columns

__all__ = ["CHAMPION", "Tracker"]

for _name in ("alembic", "mlflow.store.db.utils", "mlflow.tracking", "mlflow.pyfunc"):
    logging.getLogger(_name).setLevel(logging.WARNING)
# It warns that it cannot find the version of pip, which no model here needs.
logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)

CHAMPION, PREVIOUS = "champion", "previous"
SERVED = Path(__file__).with_name("served.py")
REQUIREMENTS = (
    "keras",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
    "scikit-learn",
    "scipy",
    "skops",
    "tensorflow",
)

_optional = [ColSpec(DataType.double, name, required=False) for name in ("dividend", "split")]
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.string, "symbol"),
            ColSpec(DataType.datetime, "session"),
            ColSpec(DataType.double, "close"),
            *_optional,
        ]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.string, "model"),
            ColSpec(DataType.string, "symbol"),
            ColSpec(DataType.datetime, "origin"),
            ColSpec(DataType.long, "horizon"),
            ColSpec(DataType.double, "close"),
            *(ColSpec(DataType.double, name) for name in quantile_columns()),
        ]
    ),
)
"""Prices in, quantiles at the last session of each symbol out."""


class Tracker:
    """The tracking store and model registry of a workspace.

    Parameters
    ----------
    workspace : Path
        Folder that holds ``mlflow.db`` and ``mlartifacts``; made where it is not there.
    experiment : str
        Name of the experiment, ``forecaster/<universe>/<task>``.

    Raises
    ------
    JobError
        If the workspace cannot be made.
    TrackingError
        If the store cannot be opened.
    """

    def __init__(self, workspace: Path, experiment: str) -> None:
        try:
            workspace.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror or error
            raise JobError(f"the workspace {workspace} cannot be written to: {reason}") from None
        self.uri = f"sqlite:///{workspace / 'mlflow.db'}"
        self.experiment = experiment
        try:
            self._client = MlflowClient(self.uri, self.uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment_id = (
                found.experiment_id
                if found
                else self._client.create_experiment(
                    experiment, (workspace.resolve() / "mlartifacts").as_uri()
                )
            )
        # MLflow lets the database's own errors through, which are long and of many types.
        except Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise TrackingError(f"the tracking store {self.uri} cannot be opened: {reason}") from error

    @contextmanager
    def run(self, name: str, params: Mapping[str, object], tags: Mapping[str, str]) -> Iterator[str]:
        """Open the run of a job, and close it as finished, failed or killed.

        Yields
        ------
        str
            The run's id.
        """
        run_id = self._create(name, tags)
        self._log(run_id, params, {})
        try:
            yield run_id
        except KeyboardInterrupt:
            self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.KILLED))
            raise
        except BaseException:
            self._client.set_terminated(run_id, RunStatus.to_string(RunStatus.FAILED))
            raise
        self._client.set_terminated(run_id)

    def record(
        self,
        parent: str,
        name: str,
        params: Mapping[str, object],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
    ) -> str:
        """Record a finished run below another and give its id; metrics that are NaN are left out."""
        run_id = self._create(name, {**tags, "mlflow.parentRunId": parent})
        self._log(run_id, params, metrics)
        self._client.set_terminated(run_id)
        return run_id

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Add metrics to a run in one batch."""
        self._log(run_id, {}, metrics)

    def log_files(self, run_id: str, paths: Sequence[Path]) -> None:
        """Keep files with a run."""
        for path in paths:
            self._client.log_artifact(run_id, str(path))

    def register(
        self,
        run_id: str,
        name: str,
        folder: Path,
        example: pd.DataFrame,
        tags: Mapping[str, str],
        promote: bool,
    ) -> int:
        """Register a saved model and, if asked, make it the champion; the one until now becomes ``previous``.

        Parameters
        ----------
        run_id : str
            Run that the model belongs to.
        name : str
            Name of the registered model.
        folder : Path
            What `forecaster.tracking.served.write_model` wrote.
        example : DataFrame
            Prices as an example of the input.
        tags : mapping of str to str
            Of the model version.
        promote : bool
            Whether it becomes the champion.

        Returns
        -------
        int
            The registered version.
        """
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        with mlflow.start_run(run_id=run_id):
            logged = mlflow.pyfunc.log_model(
                name="model",
                python_model=str(SERVED),
                artifacts={"model": str(folder)},
                signature=SIGNATURE,
                input_example=example,
                pip_requirements=[f"{package}=={version(package)}" for package in ("mlflow", *REQUIREMENTS)],
            )
        if not self._client.search_registered_models(f"name = '{name}'"):
            self._client.create_registered_model(name)
        created = self._client.create_model_version(
            name, logged.model_uri, run_id, tags=dict(tags), model_id=logged.model_id
        )
        number = int(created.version)
        if not promote:
            return number
        aliases = self._client.get_registered_model(name).aliases
        if CHAMPION in aliases:
            self._client.set_registered_model_alias(name, PREVIOUS, aliases[CHAMPION])
        self._client.set_registered_model_alias(name, CHAMPION, str(number))
        return number

    def _create(self, name: str, tags: Mapping[str, str]) -> str:
        run = self._client.create_run(self._experiment_id, tags=dict(tags), run_name=name)
        return str(run.info.run_id)

    def _log(self, run_id: str, params: Mapping[str, object], metrics: Mapping[str, float]) -> None:
        now = int(time.time() * 1000)
        numbers = [Metric(key, float(value), now, 0) for key, value in metrics.items() if value == value]
        texts = [Param(key, str(value)[:6000]) for key, value in params.items()]
        # The store takes at most 1,000 metrics and 100 parameters a call.
        for start in range(0, max(len(numbers), 1), 1000):
            self._client.log_batch(run_id, metrics=numbers[start : start + 1000])
        for start in range(0, len(texts), 100):
            self._client.log_batch(run_id, params=texts[start : start + 100])
