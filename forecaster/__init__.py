"""Daily forecasts of financial time series, and the truth about how good they are.

The names of ``__all__`` are the public interface; each is imported when it is first asked for, so that
``import forecaster`` loads neither TensorFlow nor anything else that is slow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from forecaster.errors import ForecasterError, SymbolError
    from forecaster.interop import from_nixtla, to_nixtla, to_skfolio
    from forecaster.job import Job, load_job, parse_job
    from forecaster.kernels import Parallel, convolve, fold
    from forecaster.ledger import Ledger
    from forecaster.liftings import CalendarFold, Column, Lagged, Replicate, Row, Spectrogram
    from forecaster.models.base import ResidualQuantiles, known_targets
    from forecaster.models.convolution.own import KerasForecaster
    from forecaster.models.convolution.regressor import ConvolutionRegressor
    from forecaster.prices.base import load_prices, price_table
    from forecaster.prices.files import FilesSource
    from forecaster.prices.samples import SampleSource
    from forecaster.quantiles import QuantileForecast
    from forecaster.scores import row_scores, score_table
    from forecaster.significance import daily_losses, verdicts
    from forecaster.walkforward import backtest, fit_windows, folds, forecast_table
    from forecaster.windows import Panel, Windows

__all__ = [
    "CalendarFold",
    "Column",
    "ConvolutionRegressor",
    "FilesSource",
    "ForecasterError",
    "Job",
    "KerasForecaster",
    "Lagged",
    "Ledger",
    "Panel",
    "Parallel",
    "QuantileForecast",
    "Replicate",
    "ResidualQuantiles",
    "Row",
    "SampleSource",
    "Spectrogram",
    "SymbolError",
    "Windows",
    "backtest",
    "convolve",
    "daily_losses",
    "fit_windows",
    "fold",
    "folds",
    "forecast_table",
    "from_nixtla",
    "known_targets",
    "load_job",
    "load_prices",
    "parse_job",
    "price_table",
    "row_scores",
    "score_table",
    "to_nixtla",
    "to_skfolio",
    "verdicts",
]

_PLACES = {
    "errors": ("ForecasterError", "SymbolError"),
    "interop": ("from_nixtla", "to_nixtla", "to_skfolio"),
    "job": ("Job", "load_job", "parse_job"),
    "kernels": ("Parallel", "convolve", "fold"),
    "ledger": ("Ledger",),
    "liftings": ("CalendarFold", "Column", "Lagged", "Replicate", "Row", "Spectrogram"),
    "models.base": ("ResidualQuantiles", "known_targets"),
    "models.convolution.own": ("KerasForecaster",),
    "models.convolution.regressor": ("ConvolutionRegressor",),
    "prices.base": ("load_prices", "price_table"),
    "prices.files": ("FilesSource",),
    "prices.samples": ("SampleSource",),
    "quantiles": ("QuantileForecast",),
    "scores": ("row_scores", "score_table"),
    "significance": ("daily_losses", "verdicts"),
    "walkforward": ("backtest", "fit_windows", "folds", "forecast_table"),
    "windows": ("Panel", "Windows"),
}


def __getattr__(name: str) -> object:
    for place, names in _PLACES.items():
        if name in names:
            return getattr(import_module(f"forecaster.{place}"), name)
    raise AttributeError(f"module 'forecaster' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
