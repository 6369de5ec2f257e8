"""Experiments and models in MLflow: a run a job, below it one a model, below that one a refit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from forecaster.errors import TrackingError
from forecaster.tracking.place import artifact_location, tracking_uri

# Below `place`, which silences MLflow before it is imported.
from mlflow.entities import Metric, Param, RunStatus  # isort: skip
from mlflow.tracking import MlflowClient  # isort: skip

__all__ = ["Tracker", "Tried"]


@dataclass(frozen=True)
class Tried:
    """How much was tried on a test span.

    Parameters
    ----------
    configurations : int
        Different settings of models.
    runs : int
        Runs of jobs that they were tried in.
    """

    configurations: int
    runs: int


def _pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Go through all pages of a search."""
    token: str | None = None
    while True:
        page = search(page_token=token)
        yield from page
        token = page.token
        if not token:
            return


class Tracker:
    """The tracking store of a workspace, or of the server that ``MLFLOW_TRACKING_URI`` names.

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
        self.uri = tracking_uri(workspace)
        self.experiment = experiment
        try:
            self._client = MlflowClient(self.uri, self.uri)
            found = self._client.get_experiment_by_name(experiment)
            self._experiment_id = (
                found.experiment_id
                if found
                else self._client.create_experiment(experiment, artifact_location(workspace))
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

    def tried(self, universe: str, start: str, end: str) -> Tried:
        """Count the configurations that were tried on a test span, by any job on the universe.

        Parameters
        ----------
        universe : str
            Mark of the symbols, the tag ``forecaster.universe`` of the runs of models.
        start, end : str
            First and last test origin, YYYY-MM-DD: a run counts whose test span has a session between them.

        Returns
        -------
        Tried
            Each ``forecaster.configuration`` counts once, however often it was run.
        """
        family = self.experiment.split("/")[0] + "/"
        experiments = [
            found.experiment_id
            for found in _pages(self._client.search_experiments)
            if found.name.startswith(family)
        ]
        search = partial(self._client.search_runs, experiments, f"tags.`forecaster.universe` = '{universe}'")
        configurations, parents = set(), set()
        for run in _pages(search):
            tags = run.data.tags
            if tags["forecaster.test_start"] <= end and start <= tags["forecaster.test_end"]:
                configurations.add(tags["forecaster.configuration"])
                parents.add(tags["mlflow.parentRunId"])
        return Tried(len(configurations), len(parents))

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
