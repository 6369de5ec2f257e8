"""The charts of report and dashboard: plain tables in, a figure and its words out."""

from forecaster.report.charts.base import CLOSES_SHOWN, Chart, sessions
from forecaster.report.charts.calibration import (
    coverage,
    coverage_by_year,
    crps_ratio_by_year,
    pit_histogram,
    track_record,
)
from forecaster.report.charts.forecasts import fan, intervals
from forecaster.report.charts.kernels import frequency_response, lag_map, lag_weights, matrix
from forecaster.report.charts.leaderboard import RATIO_CAP, leaderboard

__all__ = [
    "CLOSES_SHOWN",
    "RATIO_CAP",
    "Chart",
    "coverage",
    "coverage_by_year",
    "crps_ratio_by_year",
    "fan",
    "frequency_response",
    "intervals",
    "lag_map",
    "lag_weights",
    "leaderboard",
    "matrix",
    "pit_histogram",
    "sessions",
    "track_record",
]
