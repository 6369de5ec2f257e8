"""How good forecasts were: losses a row, tests of value at risk, and the table of scores."""

from forecaster.scores.losses import (
    COVERAGES,
    RISK_LEVELS,
    crps,
    fissler_ziegel,
    log_variance_error,
    pinball,
    qlike,
    row_scores,
    winkler,
)
from forecaster.scores.risk import christoffersen, kupiec, pit_uniformity
from forecaster.scores.table import POOLED, score_table

__all__ = [
    "COVERAGES",
    "POOLED",
    "RISK_LEVELS",
    "christoffersen",
    "crps",
    "fissler_ziegel",
    "kupiec",
    "log_variance_error",
    "pinball",
    "pit_uniformity",
    "qlike",
    "row_scores",
    "score_table",
    "winkler",
]
