"""Conformal calibration: quantiles moved by what past outcomes have shown, and never by what comes after.

A layer stands behind any model. For each horizon and level it takes the *score* of each past forecast, how
far the outcome lay above the quantile in units of the forecast's own width, and moves the quantiles of the
next forecast by a threshold in the same units. So one threshold fits calm and wild days, and all symbols,
which are pooled. Three rules find the threshold:

- `Split`: the empirical quantile of recent scores, with the rank that makes it valid in finite samples (Vovk,
  Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; for quantiles Romano, Patterson and
  Candès, "Conformalized Quantile Regression", NeurIPS 2019);
- `Adaptive`: the same at a level that rises when outcomes fall above too often (Gibbs and Candès, "Adaptive
  Conformal Inference Under Distribution Shift", NeurIPS 2021);
- `Control`: the threshold itself is moved, in proportion to the last error and to the sum of errors
  (Angelopoulos, Candès and Tibshirani, "Conformal PID Control for Time Series Prediction", NeurIPS 2023, P
  and I of it; D, a forecast of the scores, is what the model is for).

An outcome counts from the evening on which it is known: h sessions of its symbol after the origin. Outcomes
of h evenings in a row share most of their sessions and tell nearly the same; so rates are divided by h.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.quantiles import LEVELS, QuantileForecast, Tails, quantile_weights
from forecaster.windows import Windows

__all__ = ["Adaptive", "ConformalQuantiles", "Control", "Rule", "Split"]

Array = NDArray[np.float64]
Sessions = NDArray[np.datetime64]
State = dict[str, NDArray[np.generic]]

MINIMUM = 100
"""Scores that an empirical quantile at 1% needs: until then nothing is moved."""

SATURATION = 0.5
"""Where the sum of errors overrules all else: at an error of the coverage of about .8 / log(days)."""

STEEPEST = 1.5
"""Largest argument of the tangent, short of pi / 2, so that a forecast stays finite."""


class Rule(Protocol):
    """How thresholds follow from past scores; a setting, without state."""

    def tracker(self, horizon: int) -> Tracker:
        """Make a tracker of one horizon that has seen nothing."""
        ...


class Tracker(Protocol):
    """Thresholds of one horizon, all levels at once."""

    def observe(self, scores: Array, errors: Array) -> None:
        """Take in the outcomes of one evening.

        Parameters
        ----------
        scores : ndarray of shape (n_outcomes, n_levels)
        errors : ndarray of shape (n_levels,)
            Share of the outcomes that lay above the quantiles as issued.
        """
        ...

    def thresholds(self) -> Array:
        """Thresholds for the next forecast, shape (n_levels,), in widths of the forecast."""
        ...

    def state(self) -> State:
        """Arrays to save."""
        ...

    def restore(self, state: State) -> None:
        """Take back what `state` gave."""
        ...


@dataclass(frozen=True)
class Split:
    """Empirical quantiles of the scores of recent evenings.

    Parameters
    ----------
    window : int
        Evenings whose outcomes count.
    refresh : int
        Evenings after which the scores are sorted anew; in between, new ones wait.
    """

    window: int = 1000
    refresh: int = 63

    def __post_init__(self) -> None:
        _require_whole("window", self.window)
        _require_whole("refresh", self.refresh)

    def tracker(self, horizon: int) -> Tracker:
        """Make a tracker of one horizon that has seen nothing."""
        return _RecentScores(self.window, self.refresh, 0.0)


@dataclass(frozen=True)
class Adaptive:
    """Empirical quantiles of recent scores, at levels that follow the errors.

    Parameters
    ----------
    window, refresh : int
        As of `Split`.
    rate : float
        How far a level moves for an evening on which every outcome lay above, at one session ahead; the
        paper's gamma.
    """

    window: int = 1000
    refresh: int = 63
    rate: float = 0.005

    def __post_init__(self) -> None:
        _require_whole("window", self.window)
        _require_whole("refresh", self.refresh)
        _require_positive("rate", self.rate)

    def tracker(self, horizon: int) -> Tracker:
        """Make a tracker of one horizon that has seen nothing."""
        return _RecentScores(self.window, self.refresh, self.rate / horizon)


@dataclass(frozen=True)
class Control:
    """Thresholds moved by the last error and by the sum of errors.

    Parameters
    ----------
    rate : float
        How many widths a threshold moves for an evening on which every outcome lay above, at one session
        ahead; the paper's eta.
    integral : float
        Weight of the sum of errors, in widths, at one session ahead; 0 tracks quantiles by the last errors
        alone.
    """

    rate: float = 0.02
    integral: float = 0.3

    def __post_init__(self) -> None:
        _require_positive("rate", self.rate)
        if not 0.0 <= self.integral < np.inf:
            raise ParameterError(f"`integral` is a number of at least 0. Received: {self.integral}")

    def tracker(self, horizon: int) -> Tracker:
        """Make a tracker of one horizon that has seen nothing."""
        return _Controlled(self.rate / horizon, self.integral / horizon)


def _require_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(f"`{name}` is a whole number of at least 1. Received: {value}")


def _require_positive(name: str, value: float) -> None:
    if not 0.0 < value < np.inf:
        raise ParameterError(f"`{name}` is a positive number. Received: {value}")


class _RecentScores:
    """Sorted scores of recent evenings, read at each level or at one that adapts."""

    def __init__(self, window: int, refresh: int, rate: float) -> None:
        self.window, self.refresh, self.rate = window, refresh, rate
        self.levels = np.array(LEVELS)
        self.recent: list[Array] = []
        """Scores of each evening, put together only when they are sorted."""
        self.waiting = 0
        """Evenings since the scores were sorted."""
        self.ordered = np.empty((0, len(LEVELS)))

    def observe(self, scores: Array, errors: Array) -> None:
        self.levels = np.clip(self.levels + self.rate * (errors - (1.0 - np.array(LEVELS))), 0.0, 1.0)
        self.recent.append(scores)
        del self.recent[: -self.window]
        self.waiting += 1
        few = len(self.ordered) < MINIMUM
        if self.waiting >= self.refresh or (few and sum(map(len, self.recent)) >= MINIMUM):
            self.ordered = np.sort(np.concatenate(self.recent), axis=0)
            self.waiting = 0

    def thresholds(self) -> Array:
        n = len(self.ordered)
        if n < MINIMUM:
            return np.zeros(len(LEVELS))
        # The next score is at most the k-th of n with a chance of k / (n + 1): rounded away from the middle,
        # so that an interval holds at least what it promises. Rounding of the product must not add a rank.
        rank = (n + 1) * self.levels
        upper = np.array(LEVELS) >= 0.5
        place = np.where(upper, np.ceil(rank - 1e-9), np.floor(rank + 1e-9)).astype(np.int64) - 1
        return self.ordered[np.clip(place, 0, n - 1), np.arange(len(LEVELS))]

    def state(self) -> State:
        return {
            "levels": self.levels,
            "scores": np.concatenate([np.empty((0, len(LEVELS))), *self.recent]),
            "counts": np.array([len(scores) for scores in self.recent], dtype=np.int64),
            "waiting": np.array(self.waiting),
            "ordered": self.ordered,
        }

    def restore(self, state: State) -> None:
        self.levels = state["levels"].astype(np.float64)
        ends = np.cumsum(state["counts"].astype(np.int64))
        self.recent = list(np.split(state["scores"].astype(np.float64), ends[:-1])) if len(ends) else []
        self.waiting = int(state["waiting"].astype(np.int64))
        self.ordered = state["ordered"].astype(np.float64)


class _Controlled:
    """A threshold a level, pushed by errors."""

    def __init__(self, rate: float, integral: float) -> None:
        self.rate, self.integral = rate, integral
        self.tracked = np.zeros(len(LEVELS))
        self.excess = np.zeros(len(LEVELS))
        self.evenings = 0

    def observe(self, scores: Array, errors: Array) -> None:
        surprise = errors - (1.0 - np.array(LEVELS))
        self.tracked = self.tracked + self.rate * surprise
        self.excess = self.excess + surprise
        self.evenings += 1

    def thresholds(self) -> Array:
        days = self.evenings + 1.0
        angle = np.clip(self.excess * np.log(days) / (days * SATURATION), -STEEPEST, STEEPEST)
        moved: Array = self.tracked + self.integral * np.tan(angle)
        return moved

    def state(self) -> State:
        return {"tracked": self.tracked, "excess": self.excess, "evenings": np.array(self.evenings)}

    def restore(self, state: State) -> None:
        self.tracked = state["tracked"].astype(np.float64)
        self.excess = state["excess"].astype(np.float64)
        self.evenings = int(state["evenings"].astype(np.int64))


class ConformalQuantiles:
    """A layer that calibrates the quantile forecasts of one model.

    Parameters
    ----------
    horizons : tuple of int
        Horizons of the forecasts, in sessions.
    rule : Split, Adaptive or Control
        How thresholds follow from past scores.

    Notes
    -----
    In a backtest `walk` goes through all folds at once. Every evening afterwards `update` takes in what has
    become known and `apply` calibrates what is issued; `state` and `restore` carry the layer from one evening
    to the next. Both ways give the same bits.

    Levels stay in order: where moved quantiles cross they are sorted, which never makes them worse
    (Chernozhukov, Fernández-Val and Galichon, "Quantile and Probability Curves Without Crossing",
    Econometrica 78, 2010). A forecast without width, a point mass, is neither learned from nor moved.
    """

    def __init__(self, horizons: tuple[int, ...], rule: Rule) -> None:
        self.horizons = horizons
        self.trackers = [rule.tracker(horizon) for horizon in horizons]
        self.until: np.datetime64 = np.datetime64("0001-01-01", "D")
        """The last evening whose outcomes have been taken in."""
        self.issued_sessions: Sessions = np.empty(0, dtype="datetime64[D]")
        self.issued = np.empty((0, len(horizons), len(LEVELS)))
        """Thresholds of the sessions whose outcomes may still come."""

    def fit(self, windows: Windows, forecast: QuantileForecast) -> Self:
        """Start from past forecasts that were out of sample; see `walk`."""
        self.walk(windows, forecast)
        return self

    def walk(self, windows: Windows, forecast: QuantileForecast) -> QuantileForecast:
        """Calibrate a whole backtest, each origin by what was known on its evening.

        Parameters
        ----------
        windows : Windows
            Origins of all folds, in any order; none before the last evening that the layer has seen.
        forecast : QuantileForecast
            What the model forecast at them, not calibrated.
        """
        self._check(windows, forecast)
        outcomes = _Outcomes(windows, forecast)
        sessions = windows.sessions
        order = np.argsort(sessions, kind="stable")
        thresholds = np.empty((len(windows), len(self.horizons), len(LEVELS)))
        for mine in _by_session(order, sessions[order]):
            evening = sessions[mine[0]]
            self._take_in(outcomes, evening)
            thresholds[mine] = self._issue(evening)
        return _moved(forecast, thresholds)

    def update(self, windows: Windows, forecast: QuantileForecast, evening: np.datetime64) -> Self:
        """Take in outcomes that have become known since the last update.

        Parameters
        ----------
        windows : Windows
            Past origins: at least all whose outcomes became known since. Others do no harm: no outcome is
            taken in twice.
        forecast : QuantileForecast
            What the model forecast at them, not calibrated.
        evening : datetime64[D]
            Outcomes known by the close of this session count; those that came to light on an evening already
            taken in are late, and left out.
        """
        self._check(windows, forecast)
        self._take_in(_Outcomes(windows, forecast), evening)
        return self

    def apply(self, forecast: QuantileForecast, session: np.datetime64) -> QuantileForecast:
        """Calibrate forecasts made after a session, and remember what was issued.

        Parameters
        ----------
        forecast : QuantileForecast
            What the model forecasts at the session, of any symbols, not calibrated.
        session : datetime64[D]
            Their origin.

        Raises
        ------
        ParameterError
            If outcomes of a later evening have been taken in.
        """
        if forecast.horizons != self.horizons:
            raise ParameterError(
                f"a layer calibrates forecasts of its own horizons {self.horizons}. Received: forecasts at "
                f"{forecast.horizons}"
            )
        self._require_not_before(session)
        return _moved(forecast, np.broadcast_to(self._issue(session), forecast.values.shape))

    def state(self) -> State:
        """Arrays to save."""
        arrays: State = {
            "until": np.array(self.until),
            "issued_sessions": self.issued_sessions,
            "issued": self.issued,
        }
        for horizon, tracker in zip(self.horizons, self.trackers, strict=True):
            arrays |= {f"{name}_h{horizon}": array for name, array in tracker.state().items()}
        return arrays

    def restore(self, state: State) -> Self:
        """Take back what `state` gave; the layer must have the same horizons and rule."""
        self.until = np.datetime64(state["until"].item(), "D")
        self.issued_sessions = state["issued_sessions"].astype("datetime64[D]")
        self.issued = state["issued"].astype(np.float64)
        for horizon, tracker in zip(self.horizons, self.trackers, strict=True):
            ending = f"_h{horizon}"
            tracker.restore(
                {name.removesuffix(ending): array for name, array in state.items() if name.endswith(ending)}
            )
        return self

    def _check(self, windows: Windows, forecast: QuantileForecast) -> None:
        if not windows.horizons == forecast.horizons == self.horizons:
            raise ParameterError(
                f"a layer calibrates forecasts of its own horizons {self.horizons}. Received: origins at "
                f"{windows.horizons} and forecasts at {forecast.horizons}"
            )
        if len(windows) != len(forecast):
            raise ParameterError(
                f"there is one forecast an origin. Received: {len(forecast)} for {len(windows)} origins"
            )

    def _require_not_before(self, session: np.datetime64) -> None:
        if session < self.until:
            raise ParameterError(
                f"a layer that has seen the outcomes of {self.until} calibrates nothing made before. "
                f"Received: an origin on {session}; restore an earlier state"
            )

    def _issue(self, session: np.datetime64) -> Array:
        """Thresholds for the origins of a session, shape (n_horizons, n_levels), kept for their outcomes."""
        now = np.stack([tracker.thresholds() for tracker in self.trackers])
        if len(self.issued_sessions) and self.issued_sessions[-1] == session:
            self.issued[-1] = now
        else:
            self.issued_sessions = np.append(self.issued_sessions, session)
            self.issued = np.concatenate([self.issued, now[None]])
        return now

    def _take_in(self, outcomes: _Outcomes, evening: np.datetime64) -> None:
        """Let the trackers see what became known after the last evening, evening by evening."""
        self._require_not_before(evening)
        for number, tracker in enumerate(self.trackers):
            for rows in outcomes.between(number, self.until, evening):
                issued = self._issued_at(outcomes.origins[rows])[:, number]
                scores = outcomes.scores[rows, number]
                tracker.observe(scores, (scores > issued).mean(axis=0))
        self.until = evening
        # A symbol that pauses has later outcomes: a margin of three horizons, and ten sessions, is kept.
        keep = 3 * max(self.horizons) + 10
        self.issued_sessions, self.issued = self.issued_sessions[-keep:], self.issued[-keep:]

    def _issued_at(self, origins: Sessions) -> Array:
        """Thresholds as issued at some origins; those now in force where nothing was issued."""
        now = np.stack([tracker.thresholds() for tracker in self.trackers])
        if not len(self.issued_sessions):
            return np.broadcast_to(now, (len(origins), *now.shape))
        place = np.searchsorted(self.issued_sessions, origins)
        inside = np.minimum(place, len(self.issued_sessions) - 1)
        found = self.issued_sessions[inside] == origins
        return np.where(found[:, None, None], self.issued[inside], now)


class _Outcomes:
    """Scores of past forecasts, and the evenings on which they became known."""

    def __init__(self, windows: Windows, forecast: QuantileForecast) -> None:
        width = _width(forecast.values)
        distance = windows.targets[:, :, None] - forecast.values
        self.origins = windows.sessions
        self.scores = np.divide(
            distance,
            width,
            out=np.full(distance.shape, np.nan),
            where=np.broadcast_to(width > 0, distance.shape),
        )
        panel = windows.panel
        ahead = windows.rows[:, None] + np.array(windows.horizons)
        inside = ahead < panel.offsets[1:][windows.series][:, None]
        # NaT compares as false: what is not known is never taken in.
        self.known = np.where(
            inside & np.isfinite(self.scores[:, :, 0]),
            panel.sessions[np.minimum(ahead, len(panel.sessions) - 1)],
            np.datetime64("NaT", "D"),
        )
        self.order = [np.argsort(column, kind="stable") for column in self.known.T]
        self.sorted = [column[order] for column, order in zip(self.known.T, self.order, strict=True)]

    def between(self, number: int, after: np.datetime64, until: np.datetime64) -> list[NDArray[np.int64]]:
        """Rows whose outcome became known after one evening and by another, evening by evening."""
        known = self.sorted[number]
        # NaT is sorted last, and searchsorted knows it.
        start, stop = np.searchsorted(known, after, side="right"), np.searchsorted(known, until, side="right")
        return _by_session(self.order[number][start:stop], known[start:stop])


def _by_session(rows: NDArray[np.int64], sessions: Sessions) -> list[NDArray[np.int64]]:
    """Cut rows into those of each session, both in order of the sessions."""
    if not len(rows):
        return []
    return list(np.split(rows, np.flatnonzero(sessions[1:] != sessions[:-1]) + 1))


def _width(values: Array) -> Array:
    """Distance between the quartiles, shape (n_origins, n_horizons, 1)."""
    width: Array = values[:, :, LEVELS.index(0.75)] - values[:, :, LEVELS.index(0.25)]
    return width[:, :, None]


def _moved(forecast: QuantileForecast, thresholds: Array) -> QuantileForecast:
    """Move every quantile by its threshold in widths, and the tails along with the outermost."""
    moved = thresholds * _width(forecast.values)
    values = np.sort(forecast.values + moved, axis=-1)
    tails = forecast.tails
    if tails is not None:
        before, after = _spread(forecast.values), _spread(values)
        growth = np.divide(after, before, out=np.ones_like(before), where=before > 0)
        tails = Tails(
            np.minimum(tails.low + moved[:, :, 0], values[:, :, 0]),
            np.maximum(tails.high + moved[:, :, -1], values[:, :, -1]),
            tails.variance * np.square(growth),
        )
    return QuantileForecast(values, forecast.horizons, tails)


def _spread(values: Array) -> Array:
    """Mean distance of the quantiles from the median, by which a variance is scaled."""
    median = values[:, :, LEVELS.index(0.5)][:, :, None]
    result: Array = np.abs(values - median) @ quantile_weights()
    return result
