"""The work of a backtest and of a fit, divided into tasks of seconds for an engine.

A task is told where the panel lies, never given it: workers of one machine, or with a shared workspace, map
the same file into memory; others read the prices from the job's store, as of the same knowledge.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster.engine import Engine, Failure, Task
from forecaster.errors import ForecasterError, ParameterError, SourceError
from forecaster.job import CombinationModel, Job
from forecaster.models.base import Forecaster, SeesKernels
from forecaster.models.econometric.garch import (
    FitsGarch,
    fit_garch,
    load_fits,
    remember,
    save_fits,
    unknown_fits,
)
from forecaster.quantiles import QuantileForecast
from forecaster.walkforward import (
    Counted,
    Fitted,
    Fold,
    FoldForecast,
    folds,
    origins_before_fold,
    recalled_models,
    segments,
    walk,
)
from forecaster.windows import Panel, Windows
from pipelines.loading import JobData, load_data

__all__ = ["Progress", "SeenKernels", "estimate_ahead", "job_folds", "walked"]

SERIES_A_TASK = 16
"""GARCH takes a tenth of a second a series: a task takes one or two."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many steps are done, and how many there are."""


@dataclass(frozen=True, eq=False)
class SeenKernels:
    """A fitted model of which the number of its parameters and what its kernels see is left."""

    parameters: int
    weights: pd.DataFrame
    responses: pd.DataFrame


@dataclass(frozen=True)
class _Place:
    """Where a worker finds the panel of a job.

    Parameters
    ----------
    folder : str
        Of the memory-mapped panel.
    symbols : tuple of str
        The series that are forecast.
    known_at : datetime or None
        What the price store shall know, where the folder cannot be seen.
    data_version : str
        Of the prices that must be found.
    """

    folder: str
    symbols: tuple[str, ...]
    known_at: datetime | None
    data_version: str


@dataclass(frozen=True, eq=False)
class _Walked:
    """What one fold of a task gave; the fold is made again by whoever reads it."""

    number: int
    forecast: QuantileForecast
    fitted: Counted | SeenKernels
    fit_seconds: float
    predict_seconds: float
    before: QuantileForecast | None


_held: dict[str, list[Fold]] = {}
"""The folds of the last panel that this process worked on; they hold the panel."""


def job_folds(job: Job, panel: Panel) -> list[Fold]:
    """Cut the test span of a job into refits."""
    span = job.backtest
    return folds(
        panel,
        job.horizons,
        np.datetime64(span.start, "D"),
        np.datetime64(span.end, "D") if span.end else None,
        span.refit_every,
        job.warm_up,
        span.embargo,
        span.rolling,
    )


def _folds_at(place: _Place, job: Job) -> list[Fold]:
    if place.folder not in _held:
        folder = Path(place.folder)
        if folder.is_dir():
            panel = Panel.open(folder)
            load_fits(folder / "fits.npz")
        else:
            panel = _from_store(place, job)
        over = job_folds(job, panel)
        _held.clear()
        _held[place.folder] = over
    return _held[place.folder]


def _from_store(place: _Place, job: Job) -> Panel:
    if place.known_at is None:
        raise SourceError(
            "a worker reads the panel from the workspace or the prices from a store. Received: a worker that "
            f"sees neither; share the folder {place.folder} or name a `store`"
        )
    data = load_data(job, Path(), job.minimum_sessions, known_at=place.known_at)
    panel = data.panel if data.panel.symbols == place.symbols else data.panel.select(place.symbols)
    if data.data_version != place.data_version and panel.symbols == data.panel.symbols:
        raise SourceError(
            f"a worker reads the prices of the job, of version {place.data_version[:12]}. Received: version "
            f"{data.data_version[:12]}; let all read the same store"
        )
    return panel


def _walk_task(place: _Place, job: Job, name: str, numbers: tuple[int, ...], recalled: bool) -> list[_Walked]:
    """Walk one model along folds that depend on each other."""
    over = _folds_at(place, job)
    before = partial(origins_before_fold, over=over, warm_up=job.warm_up) if recalled else None
    mine = [fold for fold in over if fold.number in numbers]
    results = []
    for result in walk(name, partial(job.build_plain, name), mine, before):
        last = result.fold is over[-1]
        results.append(
            _Walked(
                result.fold.number,
                result.forecast,
                _left(result.fitted, last),
                result.fit_seconds,
                result.predict_seconds,
                result.before,
            )
        )
    return results


def _left(model: Fitted, last: bool) -> Counted | SeenKernels:
    count = model.parameters
    if last and isinstance(model, SeesKernels):
        try:
            return SeenKernels(count, model.lag_weights(), model.frequency_responses())
        except ParameterError:  # a spectrogram has no linear kernel on the series
            pass
    return Counted(count)


def _fit_task(series: Sequence[NDArray[np.float64]], asymmetric: bool) -> NDArray[np.float64]:
    """Estimate GARCH on a block of series."""
    return np.array([fit_garch(values, asymmetric) for values in series])


def estimate_ahead(
    engine: Engine, models: Sequence[Forecaster], over: Sequence[Windows], progress: Progress | None = None
) -> None:
    """Estimate the GARCH models that fits will need, blocks of series at once, and keep them.

    Without workers nothing is done: the fits do it themselves. What fails is left to them too.

    Parameters
    ----------
    engine : Engine
    models : sequence of Forecaster
        Not fitted yet.
    over : sequence of Windows
        Training origins of each refit.
    progress : callable, optional
        Told of every block.
    """
    if engine.inline:
        return
    fitting = [model for model in models if isinstance(model, FitsGarch)]
    wanted = unknown_fits(
        [each for windows in over for model in fitting for each in model.garch_fits(windows)]
    )
    blocks = []
    for asymmetric in (False, True):
        alike = [values for values, kind in wanted if kind is asymmetric]
        blocks += [
            (alike[start : start + SERIES_A_TASK], asymmetric)
            for start in range(0, len(alike), SERIES_A_TASK)
        ]
    tasks = [Task("GARCH", _fit_task, block) for block in blocks]
    for done, (number, estimates) in enumerate(engine.run(tasks)):
        if progress:
            progress("GARCH", done, len(tasks))
        if not isinstance(estimates, Failure):
            remember(*blocks[number], estimates)


@contextmanager
def _placed(engine: Engine, job: Job, data: JobData, over: list[Fold]) -> Iterator[_Place]:
    """Lay the panel where the workers find it; those of this process have it."""
    known = data.known.mark.to_pydatetime() if data.known else None
    place = partial(
        _Place,
        symbols=data.panel.symbols,
        known_at=known,
        data_version=data.data_version,
    )
    if engine.inline or engine.kind == "threading":
        _held.clear()
        _held["this process"] = over
        try:
            yield place("this process")
        finally:
            _held.clear()
        return
    workspace = Path(job.workspace).resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".panel-", dir=workspace) as folder:
        data.panel.save(Path(folder))
        save_fits(Path(folder) / "fits.npz")
        yield place(folder)


def walked(
    engine: Engine,
    job: Job,
    data: JobData,
    over: list[Fold],
    failed: dict[str, str],
    progress: Progress,
) -> Iterator[FoldForecast]:
    """Walk the models of a job along the folds, as `forecaster.walkforward.backtest` does, on an engine.

    Parameters
    ----------
    engine : Engine
    job : Job
    data : JobData
    over : list of Fold
        As `job_folds` gives them for the panel of the data.
    failed : dict
        Takes the models that could not be done, and why. They have no forecasts.
    progress : callable
        Told of every task.

    Yields
    ------
    FoldForecast
        Model by model and fold by fold, whatever the order in which they were done.

    Raises
    ------
    ForecasterError
        If a model breaks a rule, or all failed.
    """
    builders = {
        spec.name: partial(job.build_plain, spec.name)
        for spec in job.models
        if not isinstance(spec, CombinationModel)
    }
    models = [build() for build in builders.values()] if not engine.inline else []
    estimate_ahead(engine, models, [fold.train for fold in over], progress)
    parts = [(name, part) for name, build in builders.items() for part in segments(build, over)]
    if not engine.inline:
        # A model's last refits learn from most and take longest: begun first, they leave no worker idle.
        names = list(builders)
        parts.sort(key=lambda part: (names.index(part[0]), -part[1][0].number))
    of_model: dict[str, dict[int, _Walked]] = {name: {} for name in builders}
    order = list(builders)
    recalled = recalled_models(job.combinations, job.calibrations)
    with _placed(engine, job, data, over) as place:
        tasks = [
            Task(
                f"{name} from {part[0].refit}",
                _walk_task,
                (place, job, name, tuple(fold.number for fold in part), name in recalled),
            )
            for name, part in parts
        ]
        progress(order[0], 0, len(tasks))
        for done, (number, results) in enumerate(engine.run(tasks), start=1):
            name = parts[number][0]
            if isinstance(results, Failure):
                failed.setdefault(name, f"{results.name}: {results.reason}")
            else:
                of_model[name] |= {result.number: result for result in results}
            progress(name, done, len(tasks))
            # In the order of the job: what is written must not depend on who was first.
            while order and (order[0] in failed or len(of_model[order[0]]) == len(over)):
                first = order.pop(0)
                results = of_model.pop(first)
                if first in failed:
                    of_model[first] = {}
                    continue
                for fold in over:
                    result = results[fold.number]
                    yield FoldForecast(
                        first,
                        fold,
                        result.forecast,
                        result.fitted,
                        result.fit_seconds,
                        result.predict_seconds,
                        result.before,
                    )
                of_model[first] = {}
    if len(failed) == len(builders):
        named = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise ForecasterError(f"no model could be fitted: {named}")
