"""How the convolutions of a job will be computed, and why; nothing is run."""

from __future__ import annotations

from forecaster.job import ConvolutionModel, Job
from forecaster.models.convolution.inputs import CHANNELS
from forecaster.models.convolution.planner import plan

__all__ = ["explain_job"]


def explain_job(job: Job) -> str:
    """Say, for each convolution of a job, what the planner chose for each layer and what that costs."""
    blocks = [
        f"{job.name}: {len(job.models)} models, horizons {', '.join(map(str, job.horizons))}, lookback "
        f"{job.lookback}; an origin needs {job.warm_up} sessions up to it\n"
        "Of a convolution, 'windows' says how it is computed on a batch of windows, as a job trains and "
        "forecasts; 'series' how on all windows of a whole series."
    ]
    for spec in job.models:
        if isinstance(spec, ConvolutionModel):
            planned = plan(spec.strategy.build(), job.lookback, spec.layers(), channels=len(CHANNELS))
            blocks.append(f"{spec.name} ({spec.description})\n{planned.explain()}")
        else:
            blocks.append(f"{spec.name} ({spec.description})")
    return "\n\n".join(blocks)
