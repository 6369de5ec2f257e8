"""How the convolutions of a job will be computed, and why, and what memory it takes; nothing is run."""

from __future__ import annotations

from datetime import date

from forecaster.job import CombinationModel, ConvolutionModel, Job
from forecaster.models.convolution.inputs import CHANNELS, VARIANCE_CHANNELS
from forecaster.models.convolution.planner import plan
from pipelines.memory import explain_memory

__all__ = ["explain_job"]


def explain_job(job: Job, until: date) -> str:
    """Say, for each convolution of a job, what the planner chose for each layer and what that costs.

    Parameters
    ----------
    job : Job
    until : date
        Of the last session that its memory is stated for.
    """
    blocks = [
        f"{job.name}: {len(job.models)} models, horizons {', '.join(map(str, job.horizons))}, lookback "
        f"{job.lookback}; an origin needs {job.warm_up} sessions up to it\n"
        "Of a convolution, 'windows' says how it is computed on a batch of windows, as a job trains and "
        "forecasts; 'series' how on all windows of a whole series."
    ]
    if job.covariates:
        named = ", ".join(f"{symbol} ({transform})" for symbol, transform in sorted(job.covariates.items()))
        seeing: list[str] = []
        for spec in job.models:
            of_members = isinstance(spec, CombinationModel) and set(spec.members) & set(seeing)
            seeing += [spec.name] if spec.sees_covariates or of_members else []
        others = [spec.name for spec in job.models if spec.name not in seeing]
        blind = f"; not looked at by {', '.join(others)}" if others else ""
        blocks.append(f"covariates {named}: seen by {', '.join(seeing)}{blind}")
    for portfolio, weights in job.portfolios.items():
        held = ", ".join(f"{weight:g} of {symbol}" for symbol, weight in weights.items())
        blocks.append(f"portfolio {portfolio}: {held}, brought back to that at every close")
    blocks.append(explain_memory(job, until))
    for spec in job.models:
        if isinstance(spec, ConvolutionModel):
            of_variance = len(VARIANCE_CHANNELS) if spec.target == "variance" else 0
            channels = len(CHANNELS) + of_variance + len(job.covariates)
            planned = plan(spec.strategy.build(), job.lookback, spec.layers(), channels=channels)
            blocks.append(f"{spec.name} ({spec.description})\n{planned.explain()}")
        else:
            blocks.append(f"{spec.name} ({spec.description})")
    return "\n\n".join(blocks)
