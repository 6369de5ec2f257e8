"""A model behind a conformal layer: fitted, forecasting and saved as one model."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from forecaster.calibration import ConformalQuantiles, Rule, moved, of_groups
from forecaster.errors import NotFittedError, ParameterError
from forecaster.models.base import Forecaster, load_arrays, save_arrays
from forecaster.models.econometric.garch import FitsGarch
from forecaster.quantiles import LEVELS, QuantileForecast
from forecaster.windows import Panel, Windows

__all__ = ["Calibrated", "origins_before"]

Sessions = NDArray[np.datetime64]

WARM_EVENINGS = 1000
"""Evenings before the fit that the first thresholds are learned from, on forecasts of training origins."""


class Calibrated:
    """Moves a model's quantiles by what past outcomes have shown, known by the evening of each origin.

    Parameters
    ----------
    model : Forecaster
    rule : Split, Adaptive or Control
        How thresholds follow from past outcomes; see `forecaster.calibration`.
    warm_up : int
        Sessions that an origin of the model needs up to itself.

    Notes
    -----
    A forecast is a function of what was saved and of prices up to its origin, and of nothing else: `predict`
    forecasts the sessions since the fit by the model inside, takes in their outcomes evening by evening, and
    moves the quantiles that are asked for. So it does not matter which origins are asked for, or whether any
    were before, and an evening needs no state of its own.

    What the thresholds start from is stated by `begin`: those of an earlier fit, as a backtest does at every
    refit but the first, or what forecasts of training origins show. The latter are in sample, so that they
    say how the tails of a symbol differ from the pooled ones and little of how well the model generalises.
    """

    block = 250_000
    """Origins that are forecast together on the way to an evening, so that memory stays bounded."""

    def __init__(self, model: Forecaster, rule: Rule, warm_up: int) -> None:
        self.model, self.rule, self.warm_up = model, rule, warm_up
        self.last: np.datetime64 | None = None
        """The last origin that the model inside can be asked for; None for any."""
        self.layer: ConformalQuantiles | None = None
        self._previous: Calibrated | None = None

    @property
    def parameters(self) -> int:
        """Number of fitted numbers of the model inside."""
        return self.model.parameters

    def start_from(self, previous: Forecaster) -> Self:
        """Let the thresholds of the next `fit` go on from those of an earlier one.

        Parameters
        ----------
        previous : Calibrated
            Fitted before, with the same rule and horizons.

        Raises
        ------
        ParameterError
            If it is something else.
        NotFittedError
            If it is not fitted.
        """
        if not isinstance(previous, Calibrated) or previous.rule != self.rule:
            other = previous.rule if isinstance(previous, Calibrated) else type(previous).__name__
            raise ParameterError(
                f"thresholds go on from those of the same rule, {self.rule}. Received: {other}"
            )
        previous._fitted()
        self._previous = previous
        return self

    def garch_fits(self, windows: Windows) -> list[tuple[NDArray[np.float64], bool]]:
        """Series that the model inside fits GARCH to; none where it fits none."""
        return self.model.garch_fits(windows) if isinstance(self.model, FitsGarch) else []

    def fit(self, windows: Windows) -> Self:
        """Fit the model inside, and begin to calibrate it."""
        self.model.fit(windows)
        return self.begin(windows)

    def begin(self, windows: Windows) -> Self:
        """Bring the thresholds up to the evening on which the last of some outcomes is known.

        Parameters
        ----------
        windows : Windows
            The origins that the model inside was fitted on.

        Raises
        ------
        ParameterError
            If an earlier fit to start from has other horizons or is a later one.
        """
        panel, evening = windows.panel, _evening(windows)
        previous, self._previous = self._previous, None
        if previous is None:
            previous = Calibrated(self.model, self.rule, self.warm_up)
            previous.layer = ConformalQuantiles(windows.horizons, self.rule, panel.symbols)
            previous.layer.until = _warm_from(panel, evening)
        layer = previous._fitted()
        if layer.horizons != windows.horizons or layer.until > evening:
            raise ParameterError(
                f"thresholds go on from an earlier fit at the horizons {windows.horizons}. Received: one of "
                f"{layer.until} at {layer.horizons} for a fit of {evening}"
            )
        nothing = windows.take(np.zeros(0, dtype=np.int64))
        reached = evening
        if previous.last is not None:
            later = panel.calendar[panel.calendar > previous.last]
            reached = min(later[0], evening) if len(later) else evening
        self.layer = previous._caught_up(panel, reached, nothing)[0]
        if reached < evening:
            self.layer = self._caught_up(panel, evening, nothing)[0]
        return self

    def predict(self, windows: Windows) -> QuantileForecast:
        """Forecast by the model inside, and calibrate."""
        return self.calibrate(windows, self.model.predict(windows))

    def calibrate(self, windows: Windows, forecast: QuantileForecast) -> QuantileForecast:
        """Calibrate what the model inside forecasts at some origins.

        Parameters
        ----------
        windows : Windows
        forecast : QuantileForecast
            As the model inside gives it.

        Returns
        -------
        QuantileForecast
            An origin before the evening of the fit takes the thresholds of that evening.
        """
        if not len(windows):
            return forecast
        return moved(forecast, self._caught_up(windows.panel, windows.sessions.max(), windows)[1])

    def save(self, folder: Path) -> None:
        """Write the model inside into a folder of its own, and the layer beside it."""
        layer = self._fitted()
        (folder / "model").mkdir()
        self.model.save(folder / "model")
        horizons = np.array(layer.horizons, dtype=np.int64)
        save_arrays(folder, layer.state() | {"horizons": horizons})

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        self.model.load(folder / "model")
        state = load_arrays(folder)
        horizons = tuple(int(horizon) for horizon in state["horizons"])
        symbols = [str(symbol) for symbol in state["symbols"]]
        self.layer = ConformalQuantiles(horizons, self.rule, symbols).restore(state)
        return self

    def _fitted(self) -> ConformalQuantiles:
        if self.layer is None:
            raise NotFittedError("a model is fitted before it is calibrated or saved; call fit first")
        return self.layer

    def _caught_up(
        self, panel: Panel, last: np.datetime64, asked: Windows
    ) -> tuple[ConformalQuantiles, NDArray[np.float64]]:
        """Walk a copy of the layer to an evening; give it, and the thresholds of the origins asked for."""
        start = self._fitted()
        layer = ConformalQuantiles(start.horizons, self.rule, start.symbols).restore(start.state())
        if panel.symbols != start.symbols:
            # The same symbols teach, whichever are asked for.
            panel = panel.every.select(set(start.symbols))
        calendar = panel.calendar
        # Nothing is issued where nothing is asked for: the origins of the evening belong to the next fit.
        issuing = (calendar <= last) if len(asked) else (calendar < last)
        evenings = calendar[(calendar >= start.until) & issuing]
        size = max(self.block // max(len(panel.symbols), 1), max(start.horizons))
        issued = [(start.until, start.in_force())]
        for number in range(0, len(evenings), size):
            until = evenings[min(number + size, len(evenings)) - 1]
            rows = _rows(panel, layer.until, until, start.horizons, self.warm_up)
            origins = Windows(panel, rows, start.horizons)
            if len(origins):
                goal = last if until == evenings[-1] and not len(asked) else None
                walk = layer.evenings(origins, self.model.predict(origins), goal)
                # Those of a long history would fill memory for nothing.
                issued += walk if len(asked) else deque(walk, maxlen=1)
        # A session of none of the symbols that teach has the thresholds of the last one before it.
        place = (
            np.searchsorted(np.array([evening for evening, _ in issued]), asked.sessions, side="right") - 1
        )
        groups = layer.groups(asked)
        thresholds = np.empty((len(asked), len(start.horizons), len(LEVELS)))
        for number in np.unique(place):
            mine = place == number
            # Origins before the fit have the thresholds of its evening.
            thresholds[mine] = of_groups(issued[max(number, 0)][1], groups[mine])
        return layer, thresholds


def origins_before(train: Windows, refit: np.datetime64, first: bool, warm_up: int) -> Windows:
    """Origins before a refit whose forecasts its calibration needs, beside those of its test origins.

    Parameters
    ----------
    train : Windows
        What the refit learns from.
    refit : datetime64[D]
        Its evening.
    first : bool
        Whether there is no earlier fit to go on from.
    warm_up : int
        Sessions that an origin needs up to itself.
    """
    panel, evening = train.panel, _evening(train)
    start = _warm_from(panel, evening) if first else evening
    rows = _rows(panel, start, refit - np.timedelta64(1, "D"), train.horizons, warm_up)
    return Windows(panel, rows, train.horizons)


def _evening(train: Windows) -> np.datetime64:
    """Evening on which the last outcome of training origins is known."""
    evening: np.datetime64 = train.panel.sessions[train.rows + max(train.horizons)].max()
    return evening


def _warm_from(panel: Panel, evening: np.datetime64) -> np.datetime64:
    """Evening from which the first thresholds are learned."""
    place = int(np.searchsorted(panel.calendar, evening)) - WARM_EVENINGS
    start: np.datetime64 = panel.calendar[max(place, 0)]
    return start


def _rows(
    panel: Panel, until: np.datetime64, last: np.datetime64, horizons: tuple[int, ...], warm_up: int
) -> NDArray[np.int64]:
    """Rows whose outcomes may become known after one evening, up to the origins of another."""
    parts = []
    for part in panel.parts:
        sessions = panel.sessions[part]
        known = int(np.searchsorted(sessions, until, side="right"))
        stop = int(np.searchsorted(sessions, last, side="right"))
        first = max(known - max(horizons) - 1, warm_up - 1, 0)
        parts.append(np.arange(part.start + first, part.start + max(stop, first)))
    return np.concatenate(parts).astype(np.int64)
