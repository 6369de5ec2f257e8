"""Conformal calibration: quantiles moved by what past outcomes have shown, and never by what comes after.

A layer stands behind any model. For each horizon and level it takes the *score* of each past forecast, how
far the outcome lay above the quantile in units of the forecast's own width, and moves the quantiles of the
next forecast by a threshold in the same units. So one threshold fits calm and wild days, and all symbols,
which are pooled where the rule does not say otherwise. Three rules find the threshold:

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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from forecaster.errors import ParameterError
from forecaster.quantiles import LEVELS, QuantileForecast, Tails, quantile_weights
from forecaster.windows import Windows

__all__ = ["Adaptive", "ConformalQuantiles", "Control", "Rule", "Split", "moved", "of_groups"]

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

    @property
    def outer(self) -> float:
        """Levels up to this one, and from one minus it, are moved; one half moves all."""
        ...

    @property
    def by_symbol(self) -> bool:
        """Whether each symbol has thresholds of its own."""
        ...

    def tracker(self, horizon: int, symbols: int) -> Tracker:
        """Make a tracker of one horizon, for so many symbols, that has seen nothing."""
        ...


class Tracker(Protocol):
    """Thresholds of one horizon, all levels at once."""

    def observe(self, symbols: NDArray[np.int64], scores: Array, above: NDArray[np.bool_]) -> None:
        """Take in the outcomes of one evening.

        Parameters
        ----------
        symbols : ndarray of shape (n_outcomes,)
            Number of the symbol of each outcome.
        scores : ndarray of shape (n_outcomes, n_levels)
        above : ndarray of shape (n_outcomes, n_levels), bool
            Whether each outcome lay above the quantiles as issued.
        """
        ...

    def thresholds(self) -> Array:
        """Thresholds for the next forecast, in widths of it, shape (1, n_levels) or (n_symbols, n_levels)."""
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
    outer : float
        Levels up to this one, and from one minus it, are moved; 0.5 moves all of them. Those between tell
        little of risk, and following them costs more CRPS than it gains where a forecast is nearly right.
    """

    window: int = 1000
    refresh: int = 63
    outer: float = 0.5
    by_symbol: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_whole("window", self.window)
        _require_whole("refresh", self.refresh)
        _require_outer(self.outer)

    def tracker(self, horizon: int, symbols: int) -> Tracker:
        """Make a tracker of one horizon that has seen nothing."""
        return _RecentScores(self.window, self.refresh, 0.0)


@dataclass(frozen=True)
class Adaptive:
    """Empirical quantiles of recent scores, at levels that follow the errors.

    Parameters
    ----------
    window, refresh, outer
        As of `Split`.
    rate : float
        How far a level moves for an evening on which every outcome lay above, at one session ahead; the
        paper's gamma.
    """

    window: int = 1000
    refresh: int = 63
    rate: float = 0.005
    outer: float = 0.5
    by_symbol: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _require_whole("window", self.window)
        _require_whole("refresh", self.refresh)
        _require_positive("rate", self.rate)
        _require_outer(self.outer)

    def tracker(self, horizon: int, symbols: int) -> Tracker:
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
    by_symbol : bool
        Whether each symbol has thresholds of its own, moved by its own errors. What a model with pooled
        residuals gets wrong of one symbol's tails is then mended; thresholds are noisier, which `outer` makes
        cheap.
    outer : float
        As of `Split`.
    """

    rate: float = 0.02
    integral: float = 0.3
    by_symbol: bool = False
    outer: float = 0.5

    def __post_init__(self) -> None:
        _require_positive("rate", self.rate)
        if not 0.0 <= self.integral < np.inf:
            raise ParameterError(f"`integral` is a number of at least 0. Received: {self.integral}")
        _require_outer(self.outer)

    def tracker(self, horizon: int, symbols: int) -> Tracker:
        """Make a tracker of one horizon that has seen nothing."""
        return _Controlled(self.rate / horizon, self.integral / horizon, symbols if self.by_symbol else 1)


def _require_whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParameterError(f"`{name}` is a whole number of at least 1. Received: {value}")


def _require_positive(name: str, value: float) -> None:
    if not 0.0 < value < np.inf:
        raise ParameterError(f"`{name}` is a positive number. Received: {value}")


def _require_outer(value: float) -> None:
    if not LEVELS[0] <= value <= 0.5:
        raise ParameterError(f"`outer` lies between {LEVELS[0]} and 0.5. Received: {value}")


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

    def observe(self, symbols: NDArray[np.int64], scores: Array, above: NDArray[np.bool_]) -> None:
        surprise = above.mean(axis=0) - (1.0 - np.array(LEVELS))
        self.levels = np.clip(self.levels + self.rate * surprise, 0.0, 1.0)
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
            return np.zeros((1, len(LEVELS)))
        # The next score is at most the k-th of n with a chance of k / (n + 1): rounded away from the middle,
        # so that an interval holds at least what it promises. Rounding of the product must not add a rank.
        rank = (n + 1) * self.levels
        upper = np.array(LEVELS) >= 0.5
        place = np.where(upper, np.ceil(rank - 1e-9), np.floor(rank + 1e-9)).astype(np.int64) - 1
        return self.ordered[np.clip(place, 0, n - 1), np.arange(len(LEVELS))][None]

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
    """A threshold a level, pushed by errors; one of each for every group of symbols."""

    def __init__(self, rate: float, integral: float, groups: int) -> None:
        self.rate, self.integral = rate, integral
        self.tracked = np.zeros((groups, len(LEVELS)))
        self.excess = np.zeros((groups, len(LEVELS)))
        self.evenings = np.zeros((groups, 1), dtype=np.int64)

    def observe(self, symbols: NDArray[np.int64], scores: Array, above: NDArray[np.bool_]) -> None:
        if len(self.tracked) > 1:
            # No symbol has two outcomes on one evening.
            groups, errors = symbols, above.astype(np.float64)
        else:
            groups, errors = np.zeros(1, dtype=np.int64), above.mean(axis=0)[None]
        surprise = errors - (1.0 - np.array(LEVELS))
        np.add.at(self.tracked, groups, self.rate * surprise)
        np.add.at(self.excess, groups, surprise)
        np.add.at(self.evenings, groups, 1)

    def thresholds(self) -> Array:
        days = self.evenings + 1.0
        angle = np.clip(self.excess * np.log(days) / (days * SATURATION), -STEEPEST, STEEPEST)
        moved: Array = self.tracked + self.integral * np.tan(angle)
        return moved

    def state(self) -> State:
        return {"tracked": self.tracked, "excess": self.excess, "evenings": self.evenings}

    def restore(self, state: State) -> None:
        self.tracked = state["tracked"].astype(np.float64)
        self.excess = state["excess"].astype(np.float64)
        self.evenings = state["evenings"].astype(np.int64)


class ConformalQuantiles:
    """A layer that calibrates the quantile forecasts of one model.

    Parameters
    ----------
    horizons : tuple of int
        Horizons of the forecasts, in sessions.
    rule : Split, Adaptive or Control
        How thresholds follow from past scores.
    symbols : sequence of str
        Symbols that the layer learns from; those of others' outcomes are left out. A rule that goes by symbol
        moves no other.

    Notes
    -----
    In a backtest `walk` goes through all origins at once; or block by block, evening by evening, each time
    with the origins whose outcomes are still to come: `state` and `restore` carry the layer on. All ways give
    the same bits.

    Levels stay in order: where moved quantiles cross they are sorted, which never makes them worse
    (Chernozhukov, Fernández-Val and Galichon, "Quantile and Probability Curves Without Crossing",
    Econometrica 78, 2010). A forecast without width, a point mass, is neither learned from nor moved.
    """

    def __init__(self, horizons: tuple[int, ...], rule: Rule, symbols: Sequence[str]) -> None:
        self.horizons, self.rule, self.symbols = horizons, rule, tuple(symbols)
        self.trackers = [rule.tracker(horizon, len(self.symbols)) for horizon in horizons]
        levels = np.array(LEVELS)
        # Complements such as 1 - 0.9 are a rounding away from the level that they stand for.
        self.moves = np.minimum(levels, 1.0 - levels) <= rule.outer + 1e-9
        self.until: np.datetime64 = np.datetime64("0001-01-01", "D")
        """The last evening whose outcomes have been taken in."""
        self.issued: dict[np.datetime64, Array] = {}
        """Thresholds of the sessions whose outcomes may still come, each of shape
        (n_horizons, n_groups, n_levels)."""

    def walk(self, windows: Windows, forecast: QuantileForecast) -> QuantileForecast:
        """Calibrate forecasts, each by what was known on the evening of its origin.

        Parameters
        ----------
        windows : Windows
            Origins in any order: those to calibrate, and those before whose outcomes became known since the
            last evening that the layer has seen. No outcome is taken in twice.
        forecast : QuantileForecast
            What the model forecast at them, not calibrated.

        Returns
        -------
        QuantileForecast
            An origin before the last evening that the layer had seen has the thresholds that were issued for
            it, or, if that is too long ago, those that were then in force.
        """
        groups, sessions = self.groups(windows), windows.sessions
        before = sessions < self.until
        thresholds = np.empty((len(windows), len(self.horizons), len(LEVELS)))
        thresholds[before] = self._issued_at(sessions[before], groups[before])
        for evening, now in self.evenings(windows, forecast):
            mine = sessions == evening
            thresholds[mine] = of_groups(now, groups[mine])
        return moved(forecast, thresholds)

    def evenings(
        self, windows: Windows, forecast: QuantileForecast, last: np.datetime64 | None = None
    ) -> Iterator[tuple[np.datetime64, Array]]:
        """Walk evening by evening.

        Parameters
        ----------
        windows : Windows
        forecast : QuantileForecast
            As `walk` takes them.
        last : datetime64[D], optional
            Take in at the end what is known by this evening, on which nothing is issued.

        Yields
        ------
        evening : datetime64[D]
            A session of some origin, from the last evening that the layer has seen.
        thresholds : ndarray of shape (n_horizons, n_groups, n_levels)
            Issued for the origins of the evening, in widths of the forecasts; `groups` says whose they are.
        """
        self._check(windows, forecast)
        numbers, groups = self._numbers(windows), self.groups(windows)
        outcomes = _Outcomes(windows, forecast, numbers >= 0)
        for evening in np.unique(windows.sessions):
            if evening >= self.until:
                self._take_in(outcomes, numbers, groups, evening)
                self.issued[evening] = self.in_force()
                yield evening, self.issued[evening]
        if last is not None and last > self.until:
            self._take_in(outcomes, numbers, groups, last)

    def groups(self, windows: Windows) -> NDArray[np.int64]:
        """Which thresholds each origin takes, -1 for none; shape (n_origins,)."""
        numbers = self._numbers(windows)
        return numbers if self.rule.by_symbol else np.zeros_like(numbers)

    def in_force(self) -> Array:
        """Thresholds that follow from all that has been taken in, shape (n_horizons, n_groups, n_levels)."""
        now: Array = np.stack([tracker.thresholds() for tracker in self.trackers]) * self.moves
        return now

    def state(self) -> State:
        """Arrays to save."""
        groups = len(self.symbols) if self.rule.by_symbol else 1
        arrays: State = {
            "symbols": np.array(self.symbols, dtype=np.str_),
            "until": np.array(self.until),
            "issued_sessions": np.array(list(self.issued), dtype="datetime64[D]"),
            "issued": np.array(list(self.issued.values())).reshape(
                -1, len(self.horizons), groups, len(LEVELS)
            ),
        }
        for horizon, tracker in zip(self.horizons, self.trackers, strict=True):
            arrays |= {f"{name}_h{horizon}": array for name, array in tracker.state().items()}
        return arrays

    def restore(self, state: State) -> Self:
        """Take back what `state` gave; the layer must have the same horizons, rule and number of symbols."""
        self.symbols = tuple(str(symbol) for symbol in state["symbols"])
        self.until = np.datetime64(state["until"].item(), "D")
        sessions = state["issued_sessions"].astype("datetime64[D]")
        self.issued = dict(zip(sessions, state["issued"].astype(np.float64), strict=True))
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

    def _numbers(self, windows: Windows) -> NDArray[np.int64]:
        """Give the number of each origin's symbol among those of the layer, -1 where it is none of them."""
        place = {symbol: number for number, symbol in enumerate(self.symbols)}
        of_series = np.array([place.get(symbol, -1) for symbol in windows.panel.symbols], dtype=np.int64)
        return of_series[windows.series]

    def _take_in(
        self,
        outcomes: _Outcomes,
        numbers: NDArray[np.int64],
        groups: NDArray[np.int64],
        evening: np.datetime64,
    ) -> None:
        """Let the trackers see what became known after the last evening, evening by evening."""
        for place, tracker in enumerate(self.trackers):
            for rows in outcomes.between(place, self.until, evening):
                issued = self._issued_at(outcomes.origins[rows], groups[rows])[:, place]
                scores = outcomes.scores[rows, place]
                tracker.observe(numbers[rows], scores, scores > issued)
        self.until = evening
        # A symbol that pauses has later outcomes: a margin of three horizons, and ten sessions, is kept.
        for session in list(self.issued)[: -(3 * max(self.horizons) + 10)]:
            del self.issued[session]

    def _issued_at(self, origins: Sessions, groups: NDArray[np.int64]) -> Array:
        """Thresholds as issued at some origins; those now in force where nothing was issued."""
        result = np.empty((len(origins), len(self.horizons), len(LEVELS)))
        for session in np.unique(origins):
            mine = origins == session
            issued = self.issued.get(session)
            result[mine] = of_groups(self.in_force() if issued is None else issued, groups[mine])
        return result


def of_groups(thresholds: Array, groups: NDArray[np.int64]) -> Array:
    """Lay thresholds (n_horizons, n_groups, n_levels) out by origin; zero where the group is -1."""
    result: Array = np.moveaxis(thresholds[:, groups], 0, 1).copy()
    result[groups < 0] = 0.0
    return result


class _Outcomes:
    """Scores of past forecasts, and the evenings on which they became known."""

    def __init__(self, windows: Windows, forecast: QuantileForecast, learned: NDArray[np.bool_]) -> None:
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
        # Where sessions of one date close at different times, a date's outcomes are known when it is over.
        wait = np.timedelta64(0 if panel.closings is None else 1, "D")
        # NaT compares as false: what is not known is never taken in.
        self.known = np.where(
            inside & np.isfinite(self.scores[:, :, 0]) & learned[:, None],
            panel.sessions[np.minimum(ahead, len(panel.sessions) - 1)] + wait,
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


def moved(forecast: QuantileForecast, thresholds: Array) -> QuantileForecast:
    """Move every quantile by its threshold in widths, and the tails along with the outermost."""
    shift = thresholds * _width(forecast.values)
    values = np.sort(forecast.values + shift, axis=-1)
    tails = forecast.tails
    if tails is not None:
        before, after = _spread(forecast.values), _spread(values)
        growth = np.divide(after, before, out=np.ones_like(before), where=before > 0)
        tails = Tails(
            np.minimum(tails.low + shift[:, :, 0], values[:, :, 0]),
            np.maximum(tails.high + shift[:, :, -1], values[:, :, -1]),
            tails.variance * np.square(growth),
        )
    return QuantileForecast(values, forecast.horizons, tails)


def _spread(values: Array) -> Array:
    """Mean distance of the quantiles from the median, by which a variance is scaled."""
    median = values[:, :, LEVELS.index(0.5)]
    result = np.zeros_like(median)
    # Level by level: BLAS adds in another order for other numbers of origins and places in memory.
    for level, weight in enumerate(quantile_weights()):
        result += weight * np.abs(values[:, :, level] - median)
    return result
