"""Volatility models of the econometric literature, made into distributions by their own past outcomes.

Each forecasts a scale, and multiplies it by the quantiles of past outcomes over their scale: filtered
historical simulation (Barone-Adesi, Giannopoulos and Vosper, 1999).
"""

from forecaster.models.econometric.ewma import EwmaForecaster
from forecaster.models.econometric.garch import GarchForecaster
from forecaster.models.econometric.harx import HarxForecaster
from forecaster.models.econometric.variance import HarLogForecaster, QlikeForecaster

__all__ = ["EwmaForecaster", "GarchForecaster", "HarLogForecaster", "HarxForecaster", "QlikeForecaster"]
