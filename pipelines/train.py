"""Fit models on all that is known on an evening."""

from __future__ import annotations

import numpy as np

from forecaster.job import Job
from forecaster.models.base import Forecaster
from forecaster.walkforward import fit_windows, require_enough
from forecaster.windows import Panel

__all__ = ["fit_model"]


def fit_model(job: Job, name: str, panel: Panel, session: np.datetime64) -> Forecaster:
    """Fit one model of a job on the evening of a session, as a full refit of the backtest would."""
    windows = fit_windows(
        panel, session, job.horizons, job.warm_up, job.backtest.embargo, job.backtest.rolling
    )
    require_enough(windows, session)
    return job.build(name).fit(windows)
