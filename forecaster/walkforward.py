"""The walk-forward backtest: refit every so often, forecast what comes next, never look ahead."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.calibration import Rule
from forecaster.errors import NotFittedError, ParameterError
from forecaster.models.base import Forecaster, ResidualQuantiles
from forecaster.models.calibrated import Calibrated, origins_before
from forecaster.quantiles import TAIL_COLUMNS, QuantileForecast, average, concatenate, quantile_columns
from forecaster.windows import Panel, Windows

__all__ = [
    "Counted",
    "Fitted",
    "Fold",
    "FoldForecast",
    "Recalled",
    "Renews",
    "StartsWarm",
    "backtest",
    "fit_windows",
    "folds",
    "forecast_table",
    "latest_table",
    "origin_windows",
    "origins_before_fold",
    "recalled_models",
    "require_enough",
    "segments",
    "tail_table",
    "walk",
    "with_combinations",
]


@dataclass(frozen=True, eq=False)
class Fold:
    """One refit: what is learned from, and the origins forecast until the next refit.

    Parameters
    ----------
    number : int
        Position among the refits, from 0.
    refit : datetime64[D]
        The session after whose close the models are fitted, which is also the first test origin.
    train, test : Windows
        Training origins, all of whose outcomes are known on the evening of the refit, and test origins.
    """

    number: int
    refit: np.datetime64
    train: Windows
    test: Windows


class Fitted(Protocol):
    """What is left of a fitted model: all of it or, where it was fitted elsewhere, what there is to say."""

    @property
    def parameters(self) -> int:
        """Number of fitted numbers."""
        ...


@dataclass(frozen=True)
class Counted:
    """A fitted model of which only the number of its parameters is left."""

    parameters: int


@dataclass(frozen=True, eq=False)
class FoldForecast:
    """What one model forecast in one fold, the fitted model itself, and what that took."""

    model: str
    fold: Fold
    forecast: QuantileForecast
    fitted: Fitted
    fit_seconds: float
    predict_seconds: float
    before: QuantileForecast | None = None
    """What the model forecasts at `origins_before_fold`, where its calibration needs that."""
    layer: Calibrated | None = None
    """Its calibration after the fold, around what it forecast."""


class Recalled:
    """What a model forecast, in its place: the model itself may have stayed on a worker.

    Parameters
    ----------
    rows : ndarray of shape (n_origins,)
        Rows of the panel, in any order.
    forecast : QuantileForecast
        What was forecast at them.
    """

    parameters = 0

    def __init__(self, rows: NDArray[np.int64], forecast: QuantileForecast) -> None:
        self._order = np.argsort(rows, kind="stable")
        self._rows, self._forecast = rows[self._order], forecast

    def predict(self, windows: Windows) -> QuantileForecast:
        """Give what was forecast at origins again."""
        place = np.minimum(np.searchsorted(self._rows, windows.rows), len(self._rows) - 1)
        if (self._rows[place] != windows.rows).any():
            raise NotFittedError("a model that was fitted elsewhere is not asked for other forecasts; fit it")
        return self._forecast.take(self._order[place])

    def fit(self, windows: Windows) -> Self:
        """Refuse."""
        raise NotFittedError("what was forecast elsewhere cannot be fitted; make the model from its job")

    def save(self, folder: Path) -> None:
        """Refuse."""
        raise NotFittedError("what was forecast elsewhere cannot be saved; fit the model")

    def load(self, folder: Path) -> Self:
        """Refuse."""
        raise NotFittedError("what was forecast elsewhere cannot be loaded; make the model from its job")


@runtime_checkable
class StartsWarm(Protocol):
    """A model that can start where an earlier refit of it ended."""

    warm_start: bool
    """Whether `start_from` has an effect."""

    def start_from(self, previous: Forecaster) -> Self:
        """Take what the refit before learned, from outcomes known before; `fit` is called next."""
        ...


@runtime_checkable
class Renews(Protocol):
    """A model that is fitted anew at every so many refits only, and made up to date at those in between."""

    refit_every: int
    """Refits from one full fit to the next; 1 for a full fit at each."""

    def renew(self, previous: Forecaster, windows: Windows) -> Self:
        """Keep what was dear to learn of the refit before, and learn the rest from ``windows``."""
        ...


def _rows(panel: Panel, first: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows from position ``first`` to ``last`` (inclusive) of each series, end to end."""
    parts = [
        np.arange(offset + max(start, 0), offset + stop + 1)
        for offset, start, stop in zip(panel.offsets[:-1], first, last, strict=True)
    ]
    return np.concatenate(parts).astype(np.int64)


def _last_positions(panel: Panel, session: np.datetime64) -> NDArray[np.int64]:
    """Position of the last session of each series up to a session; -1 where there is none."""
    return np.array(
        [np.searchsorted(panel.sessions[part], session, side="right") - 1 for part in panel.parts],
        dtype=np.int64,
    )


def fit_windows(
    panel: Panel,
    session: np.datetime64,
    horizons: tuple[int, ...],
    warm_up: int,
    embargo: int = 0,
    rolling: int = 0,
) -> Windows:
    """Origins that a model may learn from on the evening of a session.

    Parameters
    ----------
    panel : Panel
    session : datetime64[D]
        The evening. The last training origin of a series lies ``max(horizons) + embargo`` of its sessions
        before it, so that every outcome has been seen. Where sessions of one date close at different times,
        it is the evening before that counts: the first to close has not seen the others' same date.
    horizons : tuple of int
    warm_up : int
        Sessions that an origin needs up to itself.
    embargo : int
        Further sessions left out before the evening.
    rolling : int
        Learn from the last so many sessions of each series; 0 for all of them.
    """
    apart = panel.closings is not None and not panel.one_close
    seen = session - np.timedelta64(1, "D") if apart else session
    last = _last_positions(panel, seen) - max(horizons) - embargo
    first = np.full_like(last, warm_up - 1)
    if rolling:
        first = np.maximum(first, last - rolling + 1)
    return Windows(panel, _rows(panel, first, last), horizons)


def require_enough(train: Windows, session: np.datetime64) -> None:
    """Refuse to learn from next to nothing.

    Raises
    ------
    ParameterError
        If fewer origins than quantiles need have known outcomes on the evening of ``session``.
    """
    if len(train) < ResidualQuantiles.minimum:
        raise ParameterError(
            f"a model learns from at least {ResidualQuantiles.minimum} origins whose outcomes are known. "
            f"Received: {len(train)} on the evening of {session} (prices from {train.panel.calendar[0]}, "
            f"longest horizon {max(train.horizons)}); start later, bring more history or learn from more "
            "sessions"
        )


def origin_windows(
    panel: Panel, first: np.datetime64, last: np.datetime64, horizons: tuple[int, ...], warm_up: int
) -> Windows:
    """All origins between two sessions, both included, that have ``warm_up`` sessions up to themselves."""
    chosen = (panel.sessions >= first) & (panel.sessions <= last) & (panel.positions >= warm_up - 1)
    return Windows(panel, np.flatnonzero(chosen).astype(np.int64), horizons)


def folds(
    panel: Panel,
    horizons: tuple[int, ...],
    start: np.datetime64,
    end: np.datetime64 | None,
    refit_every: int,
    warm_up: int,
    embargo: int = 0,
    rolling: int = 0,
) -> list[Fold]:
    """Cut the test span into refits.

    Parameters
    ----------
    panel : Panel
    horizons : tuple of int
    start, end : datetime64[D]
        First and last test origin; without an end, the last session there is.
    refit_every : int
        Sessions of the common calendar between two refits.
    warm_up, embargo, rolling : int
        As in `fit_windows`.

    Raises
    ------
    ParameterError
        If no session or no origin lies in the span, or too few outcomes are known before it.
    """
    calendar = panel.calendar
    first = int(np.searchsorted(calendar, start))
    stop = len(calendar) if end is None else int(np.searchsorted(calendar, end, side="right"))
    if first >= stop:
        raise ParameterError(
            f"the backtest needs sessions between its start and its end. Received: start {start}, end "
            f"{end or 'none'}, while the prices run from {calendar[0]} to {calendar[-1]}"
        )
    result = []
    for number, begin in enumerate(range(first, stop, refit_every)):
        refit, last = calendar[begin], calendar[min(begin + refit_every, stop) - 1]
        train = fit_windows(panel, refit, horizons, warm_up, embargo, rolling)
        result.append(Fold(number, refit, train, origin_windows(panel, refit, last, horizons, warm_up)))
    require_enough(result[0].train, result[0].refit)
    result = [fold for fold in result if len(fold.test)]
    if not result:
        raise ParameterError(
            f"the test span holds at least one origin. Received: none from {start} on whose series has the "
            f"{warm_up} sessions up to it that the models need; choose other dates"
        )
    return result


def backtest(
    models: Mapping[str, Callable[[], Forecaster]],
    over: Sequence[Fold],
    combinations: Mapping[str, Sequence[str]] | None = None,
    calibrations: Mapping[str, Rule] | None = None,
    warm_up: int = 1,
) -> Iterator[FoldForecast]:
    """Fit and forecast, model by model and fold by fold.

    Parameters
    ----------
    models : mapping of str to callable
        Makes a fresh, unfitted model.
    over : sequence of Fold
    combinations : mapping of str to sequence of str, optional
        Names of models and of combinations before it whose forecasts of a fold each combination averages;
        they are not fitted a second time, and the seconds are theirs.
    calibrations : mapping of str to Rule, optional
        How a model or a combination, by its name, is calibrated. Thresholds go on between folds.
    warm_up : int
        Sessions that an origin needs up to itself, where something is calibrated.

    Returns
    -------
    iterator of FoldForecast
        Each as soon as it is there, so that a caller can show progress and keep what is done; first the
        models, then the combinations.
    """
    combinations, calibrations = combinations or {}, calibrations or {}
    needed = recalled_models(combinations, calibrations)
    before = partial(origins_before_fold, over=over, warm_up=warm_up)
    walks = (walk(name, build, over, before if name in needed else None) for name, build in models.items())
    return with_combinations(chain.from_iterable(walks), over, combinations, calibrations, warm_up)


def recalled_models(
    combinations: Mapping[str, Sequence[str]], calibrations: Collection[str]
) -> frozenset[str]:
    """Models and combinations whose forecasts before a refit are needed: the calibrated and their members."""
    needed, open_names = set(), list(calibrations)
    while open_names:
        name = open_names.pop()
        needed.add(name)
        open_names += combinations.get(name, ())
    return frozenset(needed)


def origins_before_fold(fold: Fold, over: Sequence[Fold], warm_up: int) -> Windows:
    """Origins before a fold whose forecasts its calibration needs."""
    return origins_before(fold.train, fold.refit, fold is over[0], warm_up)


def with_combinations(
    results: Iterable[FoldForecast],
    over: Sequence[Fold],
    combinations: Mapping[str, Sequence[str]],
    calibrations: Mapping[str, Rule],
    warm_up: int,
) -> Iterator[FoldForecast]:
    """Give forecasts of models on, calibrated, and after them those of combinations.

    Parameters
    ----------
    results : iterable of FoldForecast
        Of the models, each on every fold.
    over : sequence of Fold
    combinations : mapping of str to sequence of str
        As `backtest` takes them. One with a member that has no forecasts has none either.
    calibrations : mapping of str to Rule
    warm_up : int
        As `backtest` takes them.

    Yields
    ------
    FoldForecast
    """
    members = {member for names in combinations.values() for member in names}
    held: dict[tuple[str, int], FoldForecast] = {}
    needed = recalled_models(combinations, calibrations)
    layers: dict[str, Calibrated] = {}

    def calibrated(result: FoldForecast) -> FoldForecast:
        if result.model not in calibrations:
            return result
        origins = origins_before_fold(result.fold, over, warm_up)
        made = _calibrated(result, origins, calibrations[result.model], warm_up, layers.get(result.model))
        assert made.layer is not None
        layers[result.model] = made.layer
        return made

    for result in map(calibrated, results):
        if result.model in members:
            held[result.model, result.fold.number] = result
        yield result
    for name, names in combinations.items():
        for fold in over:
            if any((member, fold.number) not in held for member in names):
                break
            parts = [held[member, fold.number] for member in names]
            result = FoldForecast(
                name,
                fold,
                average([part.forecast for part in parts]),
                Counted(sum(part.fitted.parameters for part in parts)),
                sum(part.fit_seconds for part in parts),
                sum(part.predict_seconds for part in parts),
                average([part.before for part in parts if part.before]) if name in needed else None,
            )
            result = calibrated(result)
            if name in members:
                held[name, fold.number] = result
            yield result


def segments(build: Callable[[], Forecaster], over: Sequence[Fold]) -> list[Sequence[Fold]]:
    """Divide folds into runs that do not depend on each other: each begins with a full fit from scratch."""
    model = build()
    if isinstance(model, StartsWarm) and model.warm_start:
        return [over]
    length = model.refit_every if isinstance(model, Renews) else 1
    return [over[start : start + length] for start in range(0, len(over), length)]


def _calibrated(
    result: FoldForecast, origins: Windows, rule: Rule, warm_up: int, previous: Calibrated | None
) -> FoldForecast:
    """Calibrate what a model forecast in a fold, with the thresholds of the folds before."""
    assert result.before is not None
    begin = time.perf_counter()
    test = result.fold.test
    told = Recalled(np.concatenate([origins.rows, test.rows]), concatenate([result.before, result.forecast]))
    layer = Calibrated(told, rule, warm_up)
    layer.last = test.sessions.max()
    if previous is not None:
        layer.start_from(previous)
    layer.begin(result.fold.train)
    forecast, before = layer.calibrate(test, result.forecast), layer.calibrate(origins, result.before)
    seconds = result.predict_seconds + time.perf_counter() - begin
    return replace(result, forecast=forecast, before=before, layer=layer, predict_seconds=seconds)


def walk(
    name: str,
    build: Callable[[], Forecaster],
    over: Sequence[Fold],
    before: Callable[[Fold], Windows] | None = None,
) -> Iterator[FoldForecast]:
    """Fit or renew one model at each refit, and forecast until the next.

    Parameters
    ----------
    name : str
    build : callable
        Makes a fresh, unfitted model.
    over : sequence of Fold
        All folds, or one of their `segments`.
    before : callable, optional
        Origins before a fold that are forecast too.

    Yields
    ------
    FoldForecast
    """
    previous: Forecaster | None = None
    renewals = 0
    for fold in over:
        begin = time.perf_counter()
        model = build()
        if previous is not None and isinstance(model, Renews) and renewals + 1 < model.refit_every:
            previous = model.renew(previous, fold.train)
            renewals += 1
        else:
            if previous is not None and isinstance(model, StartsWarm):
                model.start_from(previous)
            previous = model.fit(fold.train)
            renewals = 0
        fitted = time.perf_counter()
        forecast = model.predict(fold.test)
        done = time.perf_counter()
        earlier = None if before is None else model.predict(before(fold))
        yield FoldForecast(name, fold, forecast, model, fitted - begin, done - fitted, earlier)


def forecast_table(model: str, windows: Windows, forecast: QuantileForecast) -> pd.DataFrame:
    """Lay a forecast out as a table, one row an origin and horizon.

    Returns
    -------
    DataFrame
        Columns ``model, symbol, origin, horizon, y`` (NaN while unknown) and ``q0.01`` to ``q0.99``.
    """
    n_horizons = len(windows.horizons)
    columns = quantile_columns()
    table = pd.DataFrame(forecast.values.reshape(-1, len(columns)), columns=columns)
    table.insert(0, "model", model)
    table.insert(1, "symbol", np.repeat(windows.symbols.astype(object), n_horizons))
    table.insert(2, "origin", np.repeat(windows.sessions.astype("datetime64[ms]"), n_horizons))
    table.insert(3, "horizon", np.tile(np.array(windows.horizons, dtype=np.int64), len(windows)))
    table.insert(4, "y", windows.targets.ravel())
    return table


def latest_table(model: str, windows: Windows, forecast: QuantileForecast) -> pd.DataFrame:
    """Lay a forecast out with the close that prices follow from, for outcomes that nobody knows yet.

    Returns
    -------
    DataFrame
        Columns ``model, symbol, origin, horizon, close``, ``q0.01`` to ``q0.99`` and those of `tail_table`.
    """
    table = forecast_table(model, windows, forecast).drop(columns="y")
    table.insert(4, "close", np.repeat(windows.panel.closes[windows.rows], len(windows.horizons)))
    return pd.concat([table, tail_table(forecast)], axis=1)


def tail_table(forecast: QuantileForecast) -> pd.DataFrame:
    """Lay the tails of a forecast out, in the rows of `forecast_table`.

    Returns
    -------
    DataFrame
        Columns ``tail_low, tail_high, variance``; NaN where the model states none.
    """
    tails = forecast.tails
    unknown = np.full(forecast.values.shape[:2], np.nan)
    stated = (unknown,) * 3 if tails is None else (tails.low, tails.high, tails.variance)
    return pd.DataFrame({name: each.ravel() for name, each in zip(TAIL_COLUMNS, stated, strict=True)})
