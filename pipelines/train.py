"""Fit models on all that is known on an evening, and train a challenger when one is due."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from forecaster.job import Job
from forecaster.models.base import Forecaster
from forecaster.models.calibrated import Calibrated
from forecaster.models.combination import CombinationForecaster
from forecaster.walkforward import fit_windows, require_enough
from forecaster.windows import Panel
from pipelines.tasks import estimate_ahead

if TYPE_CHECKING:
    from forecaster.ledger import Step
    from forecaster.tracking import Version
    from pipelines.evening import Evening

__all__ = ["fit_model", "train_step", "training_folder"]


def fit_model(
    job: Job,
    name: str,
    panel: Panel,
    session: np.datetime64,
    previous: Mapping[str, Calibrated] | None = None,
) -> Forecaster:
    """Fit one model of a job on the evening of a session, as a full refit of the backtest would.

    Parameters
    ----------
    job : Job
    name : str
        The model.
    panel : Panel
    session : datetime64[D]
        The evening.
    previous : mapping of str to Calibrated, optional
        Earlier calibrations of models of the job, by name: thresholds go on from them; those of others start
        from forecasts of the training origins.
    """
    windows = fit_windows(
        panel, session, job.horizons, job.warm_up, job.backtest.embargo, job.backtest.rolling
    )
    require_enough(windows, session)
    model = job.build(name)
    _go_on(name, model, previous or {})
    with job.engine.build(job.threads) as engine:
        estimate_ahead(engine, [model], [windows])
    return model.fit(windows)


def _go_on(name: str, model: Forecaster, previous: Mapping[str, Calibrated]) -> None:
    """Let the thresholds of a model, and of the members of a combination, go on from earlier ones."""
    inside = model
    if isinstance(model, Calibrated):
        inside = model.model
        if name in previous:
            model.start_from(previous[name])
    if isinstance(inside, CombinationForecaster):
        for member, its in inside.members.items():
            _go_on(member, its, previous)


def training_folder(job: Job, fitted_until: str) -> Path:
    """Give the folder of the backtest by which a version was judged: what it promised."""
    return Path(job.workspace) / job.name / "trainings" / fitted_until


def train_step(evening: Evening, step: Step) -> None:
    """Train a challenger and let the verdict decide, where it is due.

    It is due on the first evening, when the job has changed since the champion was trained, and
    ``train_every`` sessions after the last training.
    """
    job, registry = evening.job, evening.registry
    from forecaster.tracking.registry import CHALLENGER, CHAMPION

    _note_champion(evening, registry.aliased(CHAMPION))
    due, why = _due(evening, registry.aliased(CHAMPION), registry.aliased(CHALLENGER))
    if not due:
        step.skip(why)
        return
    # Imported here: an evening without training does not need them.
    from forecaster.tracking import Tracker
    from pipelines.backtest import backtest_job, write_backtest
    from pipelines.challenge import challenge, record_backtest, record_params, record_tags
    from pipelines.loading import load_data
    from pipelines.results import staged

    data = load_data(job, evening.folder, job.minimum_sessions, evening.as_of)
    tracker = Tracker(evening.workspace, f"forecaster/{job.name}/train")
    tags = record_tags(job)
    folder = training_folder(job, str(data.panel.calendar[-1]))
    with (
        staged(folder) as staging,
        tracker.run(f"{job.name} {evening.as_of}", record_params(job, data), tags) as run_id,
    ):
        result = backtest_job(job, data, evening.progress)
        write_backtest(job, result, staging)
        runs = record_backtest(tracker, run_id, job, result, tags)
        outcome = challenge(registry, runs, job, result, tags)
    verdict = outcome.verdict
    champion = outcome.champion
    if champion is not None and (verdict.promote or verdict.refit is not None):
        evening.ledger.record_model_event(
            job.name,
            as_of=evening.as_of,
            event="promotion",
            model=champion.model,
            version=str(champion.number),
            reason=verdict.reason,
        )
    step.note(
        data_version=data.data_version,
        model_version=str(outcome.challenger.number),
        reason=f"{why}: {outcome.challenger.model} is challenger; {verdict.reason}",
    )


def _note_champion(evening: Evening, champion: Version | None) -> None:
    """Record a champion that came from elsewhere: `forecaster run`, a process that died, or by hand.

    What was switched on because the one before it broke its promise ends with it.
    """
    if champion is None or champion.fitted_until > str(evening.as_of):
        return
    events = evening.ledger.model_events(evening.job.name)
    last = events[events["event"].isin(["promotion", "rollback"])].tail(1)
    # A missed evening that is done now says nothing of a change after it.
    if (last["version"] == str(champion.number)).any() or (last["as_of"] > str(evening.as_of)).any():
        return
    evening.ledger.record_model_event(
        evening.job.name,
        as_of=evening.as_of,
        event="promotion",
        model=champion.model,
        version=str(champion.number),
        reason=f"not by an evening: {champion.tags.get('forecaster.verdict', 'named in the registry')}",
    )


def _due(evening: Evening, champion: Version | None, challenger: Version | None) -> tuple[bool, str]:
    """Whether to train, and why or why not."""
    if champion is None:
        return True, "there was no champion"
    trained = max(version.fitted_until for version in (champion, challenger) if version is not None)
    if trained > str(evening.as_of):
        return False, f"the champion was fitted on {trained}, after this evening"
    newest = challenger or champion
    if newest.tags.get("forecaster.training_hash") != evening.job.training_hash:
        return True, "the job has changed since the last training"
    calendar = evening.data.panel.calendar
    since = int((calendar > np.datetime64(trained, "D")).sum())
    if since >= evening.job.train_every:
        return True, f"{since} sessions since the last training"
    return False, f"{since} of {evening.job.train_every} sessions since the last training on {trained}"
