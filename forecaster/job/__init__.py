"""The job file: YAML made into typed, frozen settings.

Nothing heavy is imported here: what a setting describes is made by its ``build`` method, which imports what
it needs, so that a job can be checked without TensorFlow.
"""

from forecaster.job.combination import CombinationModel
from forecaster.job.convolution import ConvolutionModel
from forecaster.job.reading import json_schema, load_job, parse_job
from forecaster.job.settings import AnyModel, Job
from forecaster.job.strategies import StrategySpec

__all__ = [
    "AnyModel",
    "CombinationModel",
    "ConvolutionModel",
    "Job",
    "StrategySpec",
    "json_schema",
    "load_job",
    "parse_job",
]
