"""Keep the price store small, and everything in it that a forecast saw."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from pipelines.data import compact_data

if TYPE_CHECKING:
    from forecaster.ledger import Step
    from pipelines.evening import Evening

__all__ = ["KEPT", "tidy_step"]

KEPT = timedelta(days=366)
"""How long everything that the store knew can be read, whether or not a forecast saw it."""


def tidy_step(evening: Evening, step: Step) -> None:
    """Merge the files of the store; drop what was known before the last year, but for what forecasts saw."""
    if evening.job.store_url is None:
        step.skip("the job reads its prices directly")
        return
    marks = evening.ledger.known_marks()
    # The time of the store, which is the machine's: its rows are known when they were fetched.
    tidied = compact_data(evening.job, evening.clock() - KEPT, (), marks)
    done = tidied.done
    step.note(
        reason=f"{done.files_before} files became {done.files_after}; {done.rows_dropped} rows dropped, "
        f"{done.files_deleted} old files deleted; kept what forecasts of {tidied.kept} times saw"
    )
