"""The hunt for look-ahead in a job: what changes that nothing at the origin could have changed is a leak.

Each check makes forecasts at a few origins twice, from what may differ and must not matter, and compares.
Training is cut to the last `TRAINED` sessions, so that the hunt takes a small part of a backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from forecaster.errors import JobError, ParameterError
from forecaster.job import CombinationModel, ConvolutionModel, Job
from forecaster.job.base import nearest
from forecaster.job.convolution import DenseModel
from forecaster.job.panel import lay_out
from forecaster.models.base import Forecaster
from forecaster.models.combination import CombinationForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import LEVELS
from forecaster.returns import log_returns
from forecaster.scores import crps
from forecaster.significance import diebold_mariano
from forecaster.walkforward import Fold, FoldForecast, backtest, folds
from forecaster.windows import Panel, Windows
from pipelines.backtest import Progress
from pipelines.loading import JobData, load_data

__all__ = ["COLUMNS", "Audit", "audit_job"]

Array = NDArray[np.float64]

COLUMNS = ["check", "model", "moved", "largest", "found"]

TRAINED = 1000
"""Sessions that models learn from at most."""

SPAN = 10
"""Sessions up to each sampled origin at which forecasts are compared."""

JUDGED = 250
"""Sessions on which a model that was trained on shuffled returns is judged."""

TOLERANCE = 1e-6
"""Relative: a forecast may differ by so much with what else is forecast, and with what else is at hand."""

SHUFFLED_LEVEL = 0.001
"""P-value of the test of skill on shuffled returns, over the number of horizons."""

TELLING = 0.2
"""Rank correlation of a covariate with the next return above which it knows what it cannot: that of a true
forecast of a daily return lies below 0.1."""

SEED = 20050103
"""Of what is perturbed and shuffled: the same job always gives the same table."""

Builders = Mapping[str, Callable[[], Forecaster]]
Frames = dict[str, pd.DataFrame]


@dataclass(frozen=True, eq=False)
class Audit:
    """What an audit found.

    Parameters
    ----------
    data : JobData
        The prices of the job.
    origins : tuple of date
        The sampled origins.
    table : DataFrame
        ``check, model, moved, largest, found``: whether it moved, the largest difference (of a log return; a
        CRPS ratio for ``shuffle``, a correlation for ``covariate``), and where, or what, in words.
    """

    data: JobData
    origins: tuple[date, ...]
    table: pd.DataFrame

    @property
    def moved(self) -> bool:
        """Whether anything moved that must not."""
        return bool(self.table["moved"].any())


@dataclass(frozen=True, eq=False)
class _Walked:
    """What models forecast fold by fold, and the models of the last fold."""

    results: dict[str, list[FoldForecast]]
    models: dict[str, Forecaster]


@dataclass(frozen=True, eq=False)
class _Forecasts:
    """Forecasts of a model in one fold, by symbol and session."""

    windows: Windows
    values: Array

    @property
    def keys(self) -> pd.MultiIndex:
        return pd.MultiIndex.from_arrays([self.windows.symbols.astype(object), self.windows.sessions])


def audit_job(
    job: Job,
    folder: Path,
    progress: Progress,
    models: Sequence[str] = (),
    origins: int = 2,
    builders: Builders | None = None,
) -> Audit:
    """Hunt for look-ahead in the set-up of a job.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the job file.
    progress : callable
        Told of every check and model.
    models : sequence of str
        Names of the models to audit; all of the job where none is given.
    origins : int
        Origins that are sampled, evenly over the test span.
    builders : mapping of str to callable, optional
        Models to audit instead of those of the job, each made unfitted.

    Returns
    -------
    Audit
        Rows of five checks. ``future``: every price after the origin is changed, those of the market, of
        covariates and of other symbols too, and forecasts must keep every bit. ``history``: prices are loaded
        as of the evening of the origin, and ``batch``: forecasts are asked for in another order, alone, and
        without the other symbols; they must agree to 1e-6. ``shuffle``: each symbol's returns are put in a
        random order, so that nothing can be forecast; a model that still has skill has seen the answer.
        ``covariate``: the last value that is known at an origin must not tell the return after it.

    Raises
    ------
    JobError
        If there is no model of a name.
    ParameterError
        If the test span leaves no origin to sample.
    """
    data = load_data(job, folder, job.minimum_sessions)
    made, combinations = _chosen(job, models) if builders is None else (dict(builders), {})
    names = [*made, *combinations]
    walk = partial(_walk, job, made, combinations)
    # A second refit within the span, for networks that go on from the one before.
    goes_on = [spec for spec in job.models if isinstance(spec, ConvolutionModel | DenseModel)]
    refits = 2 if any(spec.refit_every > 1 or spec.training.warm_start for spec in goes_on) else 1
    evenings = _evenings(job, data.panel, origins)
    total, done = (3 * len(evenings) + 1) * len(names), 0

    def tell(what: str) -> Callable[[str], None]:
        def one(model: str) -> None:
            nonlocal done
            done += 1
            progress(f"{what} {model}", done, total)

        return one

    progress("future", 0, total)
    rows: list[dict[str, object]] = []
    for evening in evenings:
        first = evening - SPAN + 1
        span = data.panel.calendar[first], data.panel.calendar[evening]
        as_it_is = walk(data.panel, *span, tell(f"{span[1]}"), refits)
        changed = lay_out(job, _perturbed(job, data.prices.frames, span[1]), 2)[0]
        rows += _compare("future", as_it_is, walk(changed, *span, tell("future"), refits), 0.0)
        known_at = None if data.known is None else data.known.mark.to_pydatetime()
        cut = load_data(job, folder, 2, date.fromisoformat(str(span[1])), known_at)
        rows += _compare("history", as_it_is, walk(cut.panel, *span, tell("history"), refits), TOLERANCE)
        for name in names:
            rows.append(_batch(name, as_it_is.results[name][-1], as_it_is.models[name]))
    shuffled = lay_out(job, _shuffled(job, data.prices.frames), 2)[0]
    rows += _skill(job, shuffled, walk, names, tell("shuffle"))
    rows += _telling(data.panel)
    table = pd.DataFrame(rows, columns=COLUMNS)
    # Of several origins the worst stands for all.
    order = table.assign(size=table["largest"].fillna(-1.0), at=np.arange(len(table)))
    worst = order.sort_values(["moved", "size"], ascending=False, kind="stable").drop_duplicates(
        ["check", "model"]
    )
    days = tuple(date.fromisoformat(str(data.panel.calendar[evening])) for evening in evenings)
    return Audit(data, days, worst.sort_values("at")[COLUMNS].reset_index(drop=True))


def _chosen(
    job: Job, names: Sequence[str]
) -> tuple[dict[str, Callable[[], Forecaster]], dict[str, Sequence[str]]]:
    """Models to make, and combinations of them: those that are asked for, and their members."""
    known = [spec.name for spec in job.models]
    for name in names:
        if name not in known:
            raise JobError(f"--models names models of the job. Received: {name!r}{nearest(name, known)}")
    made: dict[str, Callable[[], Forecaster]] = {}
    combinations: dict[str, Sequence[str]] = {}
    for spec in job.with_members(names or known):
        # A combination that is more than an average is a model of its own.
        if isinstance(spec, CombinationModel) and isinstance(job.build(spec.name), CombinationForecaster):
            combinations[spec.name] = spec.members
        else:
            made[spec.name] = partial(job.build, spec.name)
    return made, combinations


def _evenings(job: Job, panel: Panel, count: int) -> list[int]:
    """Places in the calendar of the sampled origins: evenly over the test span, with a future to change."""
    calendar, span = panel.calendar, job.backtest
    start = int(np.searchsorted(calendar, np.datetime64(span.start, "D")))
    end = (
        len(calendar)
        if span.end is None
        else int(np.searchsorted(calendar, np.datetime64(span.end, "D"), "right"))
    )
    first, last = start + SPAN - 1, min(end, len(calendar) - SPAN) - 1
    if count < 1 or last < first:
        raise ParameterError(
            f"an audit samples at least one origin, {SPAN} sessions after the start of the test span and as "
            f"many before the last price. Received: {count} origins in {span.start} to {calendar[-1]}; "
            "start earlier, or bring more prices"
        )
    return sorted({round(first + (last - first) * (place + 0.5) / count) for place in range(count)})


def _walk(
    job: Job,
    made: Builders,
    combinations: Mapping[str, Sequence[str]],
    panel: Panel,
    start: np.datetime64,
    end: np.datetime64,
    tell: Callable[[str], None],
    refits: int,
) -> _Walked:
    """Walk every model over a short span as a backtest does."""
    sessions = int(((panel.calendar >= start) & (panel.calendar <= end)).sum())
    rolling = min(job.backtest.rolling or TRAINED, TRAINED)
    over: list[Fold] = folds(
        panel, job.horizons, start, end, -(-sessions // refits), job.warm_up, job.backtest.embargo, rolling
    )
    models: dict[str, Forecaster] = {}

    def keep(name: str) -> Forecaster:
        models[name] = made[name]()
        return models[name]

    results: dict[str, list[FoldForecast]] = {}
    for result in backtest({name: partial(keep, name) for name in made}, over, combinations):
        if result.model not in results:
            tell(result.model)
        results.setdefault(result.model, []).append(result)
    for name, members in combinations.items():
        models[name] = CombinationForecaster({member: models[member] for member in members})
    return _Walked(results, models)


def _forecasts(results: Sequence[FoldForecast]) -> _Forecasts:
    rows = np.concatenate([result.fold.test.rows for result in results])
    windows = replace(results[0].fold.test, rows=rows)
    return _Forecasts(windows, np.concatenate([result.forecast.values for result in results]))


def _compare(
    check: str,
    before: _Walked,
    after: _Walked,
    tolerance: float,
) -> list[dict[str, object]]:
    """Compare forecasts of each model at the origins of the first."""
    rows: list[dict[str, object]] = []
    for model, results in before.results.items():
        one, other = _forecasts(results), _forecasts(after.results[model])
        place = other.keys.get_indexer(one.keys)
        absent = place < 0
        if absent.any():
            symbol, session = one.keys[int(np.flatnonzero(absent)[0])]
            found = f"{int(absent.sum())} forecasts are not made at all, the first of {symbol} at {session}"
            rows.append(dict(zip(COLUMNS, (check, model, True, np.inf, found), strict=True)))
            continue
        rows.append(_difference(check, model, one.windows, one.values, other.values[place], tolerance))
    return rows


def _difference(
    check: str, model: str, windows: Windows, one: Array, other: Array, tolerance: float
) -> dict[str, object]:
    """Say where two forecasts of the same origins differ the most."""
    apart = np.abs(one - other)
    # A quantile near zero has no size of its own: the widest of its origin and horizon gives it one.
    allowed = tolerance * np.abs(one).max(axis=2, keepdims=True)
    moved = bool((apart > allowed).any()) if tolerance else one.tobytes() != other.tobytes()
    origin, horizon, level = np.unravel_index(int((apart - allowed).argmax()), apart.shape)
    found = "nothing moved"
    if moved:
        found = (
            f"q{LEVELS[level]:g} of {windows.symbols[origin]} at {windows.sessions[origin]}, "
            f"h={windows.horizons[horizon]}; {(apart > allowed).any(axis=(1, 2)).sum()} of {len(one)} origins"
        )
    largest = float(apart[origin, horizon, level])
    return dict(zip(COLUMNS, (check, model, moved, largest, found), strict=True))


def _batch(model: str, result: FoldForecast, fitted: Forecaster) -> dict[str, object]:
    """Forecast in another order, one symbol alone, and without the series of the others."""
    windows = result.fold.test
    every = fitted.predict(windows).values
    again = every.copy()
    worst = _difference("batch", model, windows, every, again, TOLERANCE)
    order = np.random.default_rng(SEED).permutation(len(windows))
    again[order] = fitted.predict(windows.take(order)).values
    candidates = [_difference("batch", model, windows, every, again, TOLERANCE)]
    for symbol in np.unique(windows.symbols)[:3]:
        mine = np.flatnonzero(windows.symbols == symbol)
        alone = windows.panel.select([str(symbol)])
        rows = alone.offsets[0] + windows.panel.positions[windows.rows[mine]]
        for asked in (windows.take(mine), Windows(alone, rows, windows.horizons)):
            values = fitted.predict(asked).values
            candidates.append(_difference("batch", model, windows.take(mine), every[mine], values, TOLERANCE))
    for candidate in candidates:
        if (candidate["moved"], candidate["largest"]) > (worst["moved"], worst["largest"]):
            worst = candidate
    return worst


def _perturbed(job: Job, frames: Frames, evening: np.datetime64) -> Frames:
    """Change every number after an evening, but for the dates."""
    random = np.random.default_rng(SEED)
    changed = {}
    for symbol, frame in frames.items():
        later = frame.index.to_numpy().astype("datetime64[D]") > evening
        count = int(later.sum())
        factor, other = np.exp(0.3 * random.standard_normal(count)), frame.copy()
        for column in ("open", "high", "low", "close", "volume"):
            other.loc[later, column] = other.loc[later, column] * factor
        if job.covariates.get(symbol, "return") != "return":
            spread = float(frame["close"].std()) or 1.0
            other.loc[later, "close"] += spread * random.standard_normal(count)
        changed[symbol] = other
    return changed


def _shuffled(job: Job, frames: Frames) -> Frames:
    """Put the returns of each symbol in a random order; covariates stay as they are."""
    random = np.random.default_rng(SEED)
    shuffled = {}
    for symbol, frame in frames.items():
        if symbol in job.covariates and symbol != job.market:
            shuffled[symbol] = frame
            continue
        order = random.permutation(np.arange(1, len(frame)))
        returns = log_returns(frame, job.returns)[order]
        close = np.exp(np.cumsum(np.append(0.0, returns))) * float(frame["close"].iloc[0])
        other = frame.assign(dividend=0.0, split=1.0, close=close)
        for column in ("open", "high", "low"):
            relative = (frame[column] / frame["close"]).to_numpy()
            other[column] = close * relative[np.append(0, order)]
        shuffled[symbol] = other
    return shuffled


def _skill(
    job: Job,
    panel: Panel,
    walk: Callable[..., _Walked],
    names: Sequence[str],
    tell: Callable[[str], None],
) -> list[dict[str, object]]:
    """Compare models on returns without order with the past distribution, which is all there is to know."""
    calendar = panel.calendar
    stop = len(calendar) - 1
    first = max(
        int(np.searchsorted(calendar, np.datetime64(job.backtest.start, "D"))),
        stop - JUDGED - max(job.horizons),
    )
    span = calendar[first], calendar[stop]
    results = walk(panel, *span, tell, 1).results
    test = results[names[0]][0].fold
    plain = HistoricalForecaster().fit(test.train).predict(test.test).values
    targets = test.test.targets
    level = SHUFFLED_LEVEL / len(job.horizons)
    rows: list[dict[str, object]] = []
    for name in names:
        losses = crps(targets, results[name][0].forecast.values), crps(targets, plain)
        told, leaked, ratios = [], False, []
        for number, horizon in enumerate(job.horizons):
            daily = pd.DataFrame({"model": losses[0][:, number], "plain": losses[1][:, number]})
            daily = daily.groupby(test.test.sessions).mean().dropna()
            if len(daily) < 2 * horizon + 8:
                continue
            base = float(daily["plain"].mean())
            compared = diebold_mariano((daily["model"] - daily["plain"]).to_numpy(), horizon)
            reach = compared.standard_error * float(stats.t.ppf(0.975, compared.degrees_of_freedom))
            ratio = 1.0 + compared.difference / base
            ratios.append(ratio)
            leaked |= bool(compared.p_value < level and compared.difference < 0.0)
            told.append(f"h={horizon} {ratio:.3f} ({ratio - reach / base:.3f} to {ratio + reach / base:.3f})")
        found = (
            "CRPS ratio to the past distribution: " + ", ".join(told) if told else "too few sessions to judge"
        )
        lowest = min(ratios, default=float("nan"))
        rows.append(dict(zip(COLUMNS, ("shuffle", name, leaked, lowest, found), strict=True)))
    return rows


def _telling(panel: Panel) -> list[dict[str, object]]:
    """Correlate what is known of each covariate at an origin with the return of the next session."""
    rows: list[dict[str, object]] = []
    for name, covariate in panel.covariates.items():
        largest, at = 0.0, ""
        for symbol, part in zip(panel.symbols, panel.parts, strict=True):
            seen = covariate.last_known(panel.closed[part])[:-1]
            known, following = seen >= 0, panel.returns[part][1:]
            if known.sum() < JUDGED:
                continue
            for what, values in (
                ("value", covariate.values),
                ("change", np.diff(covariate.values, prepend=np.nan)),
            ):
                pair = pd.DataFrame({"seen": values[seen[known]], "next": following[known]}).dropna()
                if pair["seen"].nunique() < 2 or pair["next"].nunique() < 2:
                    continue
                correlation = float(stats.spearmanr(pair["seen"], pair["next"]).statistic)
                if abs(correlation) > abs(largest):
                    largest, at = correlation, f"{what} with the next return of {symbol}"
        moved = abs(largest) > TELLING
        found = f"rank correlation {largest:.3f} of its {at}" if at else "too few sessions to judge"
        if moved:
            found += ": it knows what it cannot, or its calendar is not named"
        rows.append(dict(zip(COLUMNS, ("covariate", name, moved, abs(largest), found), strict=True)))
    return rows
