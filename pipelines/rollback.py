"""Go back to the model that was in use before the champion."""

from __future__ import annotations

from datetime import UTC

from forecaster.job import Job
from forecaster.tracking import Version
from pipelines.evening import Clock, open_ledger, open_registry, utc_now

__all__ = ["rollback_job"]


def rollback_job(job: Job, reason: str, clock: Clock = utc_now) -> tuple[Version, Version]:
    """Let champion and previous change places, and record it.

    Parameters
    ----------
    job : Job
    reason : str
        For the record.
    clock : callable
        Gives the time that is recorded.

    Returns
    -------
    champion, previous : Version
        As they are now.
    """
    with open_ledger(job, clock) as ledger:
        champion, previous = open_registry(job).rollback()
        ledger.record_model_event(
            job.name,
            as_of=clock().astimezone(UTC).date(),
            event="rollback",
            model=champion.model,
            version=str(champion.number),
            reason=f"from version {previous.number} ({previous.model}): {reason}",
        )
    return champion, previous
