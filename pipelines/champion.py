"""Which models an evening uses: the champion and the best baseline, or what takes their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from forecaster.errors import TrackingError
from forecaster.models.base import Forecaster
from forecaster.tracking.saved import read_model
from forecaster.walkforward import fit_windows
from pipelines.evening import Evening
from pipelines.train import fit_model, training_folder

if TYPE_CHECKING:
    from forecaster.job import Job
    from forecaster.tracking import Registry, Version
    from forecaster.windows import Panel

__all__ = [
    "ADAPTIVE",
    "FITTED",
    "InUse",
    "Roles",
    "adaptively",
    "fit_baseline",
    "in_use",
    "load_in_use",
    "load_version",
    "roles",
]

FITTED = "fit-"
"""Begins the version of a model that was fitted for one evening, because no registered one could be used."""

ADAPTIVE = "+adaptive"
"""Ends the version of a model that is calibrated adaptively, because its coverage broke."""


@dataclass(frozen=True)
class Roles:
    """Registered versions by their role on an evening.

    Parameters
    ----------
    champions : tuple of Version
        The champion, and what takes its place when it cannot be used, in this order; none was fitted after
        the evening.
    baseline, challenger : Version or None
        The best baseline, and the last challenger where it is not the champion; the same holds of them.
    """

    champions: tuple[Version, ...]
    baseline: Version | None
    challenger: Version | None


@dataclass(frozen=True, eq=False)
class InUse:
    """A model as an evening uses it.

    Parameters
    ----------
    name : str
        Name of the model in its job.
    version : str
        Number of the registered version; ``fit-DATE`` where it was fitted for the evening; with ``+adaptive``
        where it is calibrated because its coverage broke.
    model : Forecaster
    """

    name: str
    version: str
    model: Forecaster


def roles(evening: Evening) -> Roles:
    """Resolve the aliases, once for an evening.

    A version that was fitted after the evening is not used for it: on evenings that are done again or
    afterwards, the newest that had been promoted, and the newest baseline, by then take its place.
    """
    from forecaster.tracking.registry import BASELINE, CHALLENGER, CHAMPION, PREVIOUS

    def in_time(version: Version | None) -> bool:
        return version is not None and version.fitted_until <= str(evening.as_of)

    registry = evening.registry
    champion, previous = registry.aliased(CHAMPION), registry.aliased(PREVIOUS)
    baseline, challenger = registry.aliased(BASELINE), registry.aliased(CHALLENGER)
    if champion is not None and not in_time(champion):
        older = [version for version in registry.versions() if in_time(version)]
        champion = next((each for each in older if each.tags.get("forecaster.promoted") == "true"), None)
        baseline = next((each for each in older if each.tags.get("forecaster.role") == BASELINE), None)
        previous, challenger = None, None
    candidates = [version for version in (champion, previous) if version is not None and in_time(version)]
    distinct = tuple({version.number: version for version in candidates}.values())
    if (
        challenger is None
        or not in_time(challenger)
        or challenger.number in [each.number for each in distinct]
    ):
        challenger = None
    return Roles(distinct, baseline if in_time(baseline) else None, challenger)


def load_version(job: Job, registry: Registry, version: Version) -> InUse:
    """Make a registered model again.

    Raises
    ------
    TrackingError
        If its files are damaged, or its job forecasts something else than this one.
    """
    saved = read_model(registry.folder(version))
    settings = ("horizons", "returns", "market", "variance", "covariates", "portfolios")
    other = [name for name in settings if getattr(saved.job, name) != getattr(job, name)]
    if other:
        raise TrackingError(
            f"version {version.number} of {registry.name} belongs to a job with other {', '.join(other)}; "
            "train this one"
        )
    return InUse(saved.name, str(version.number), saved.model)


def adaptively(job: Job, panel: Panel, use: InUse, fitted_until: str) -> InUse:
    """Calibrate a registered model adaptively, by the outcomes since it was fitted.

    Nothing is fitted again. Thresholds start from what the model forecast before its fit, and follow the
    errors from then on; a model that its job calibrates is given this calibration instead of its own.

    Parameters
    ----------
    job : Job
    panel : Panel
        Prices up to the evening.
    use : InUse
    fitted_until : str
        The evening on which it was fitted, YYYY-MM-DD.
    """
    from forecaster.calibration import Adaptive
    from forecaster.models.calibrated import Calibrated

    inside = use.model.model if isinstance(use.model, Calibrated) else use.model
    span = job.backtest
    windows = fit_windows(
        panel, np.datetime64(fitted_until, "D"), job.horizons, job.warm_up, span.embargo, span.rolling
    )
    model = Calibrated(inside, Adaptive(), job.warm_up).begin(windows)
    return InUse(use.name, f"{use.version}{ADAPTIVE}", model)


def load_in_use(evening: Evening) -> tuple[list[InUse], list[str]]:
    """Load the champion and the best baseline beside it.

    A champion whose files are damaged gives way to the previous one, and that to the best baseline; where no
    version can be used at all, the best baseline is fitted for the evening.

    Returns
    -------
    models : list of InUse
        The model in use first; then the best baseline and the challenger, where they are others.
    trouble : list of str
        What could not be used, and why.
    """
    from forecaster.monitoring import remedy

    registry = evening.registry
    found = roles(evening)
    trouble: list[str] = []
    measure = remedy(_events(evening))

    loaded: dict[int, InUse | None] = {}

    def usable(versions: tuple[Version, ...]) -> Iterator[InUse]:
        for version in versions:
            if version.number not in loaded:
                try:
                    loaded[version.number] = load_version(evening.job, registry, version)
                except TrackingError as error:
                    loaded[version.number] = None
                    trouble.append(str(error))
            use = loaded[version.number]
            if use is not None:
                yield use

    baseline = next(usable((found.baseline,) if found.baseline else ()), None)
    champion = None if measure.fallback else next(usable(found.champions), None)
    if champion is None and baseline is None:
        names = [version.tags.get("forecaster.baseline", "") for version in found.champions]
        baseline = fit_baseline(evening.job, evening.data.panel, next((name for name in names if name), ""))
        trouble.append(f"no registered version can be used, so {baseline.name} was fitted for the evening")
    if measure.calibrate and champion is not None:
        fitted = next(each for each in found.champions if str(each.number) == champion.version).fitted_until
        champion = adaptively(evening.job, evening.data.panel, champion, fitted)
        trouble.append(f"{champion.name} is calibrated adaptively since {measure.since}")
    if measure.fallback and baseline is not None:
        trouble.append(f"{baseline.name} stands in for the champion since {measure.since}")
    challenger = next(usable((found.challenger,) if found.challenger else ()), None)
    # One of each name: a track record is a model's, whatever its version.
    models: dict[str, InUse] = {}
    for each in (champion, baseline, challenger):
        if each is not None:
            models.setdefault(each.name, each)
    return list(models.values()), [*trouble, *registry.healed]


def in_use(evening: Evening) -> tuple[str, str, str | None, Path | None]:
    """Say which model an evening uses, without loading it.

    Returns
    -------
    model, version : str
        Name and registered version of the model in use; empty where none is registered.
    baseline : str or None
        The best baseline, where that is another.
    promise : Path or None
        Folder of the backtest that made the champion.
    """
    from forecaster.monitoring import remedy

    found = roles(evening)
    stands_in = remedy(_events(evening)).fallback is not None
    baseline = found.baseline
    version = baseline if stands_in or not found.champions else found.champions[0]
    if version is None:
        return "", "", None, None
    folder = training_folder(evening.job, version.fitted_until)
    if not folder.is_dir():
        folder = evening.workspace / evening.job.name
    beside = baseline.model if baseline is not None and baseline.model != version.model else None
    return version.model, str(version.number), beside, folder if folder.is_dir() else None


def _events(evening: Evening) -> pd.DataFrame:
    """Give the changes of the model in use; what an evening's own monitor finds holds from the next on."""
    events = evening.ledger.model_events(evening.job.name)
    earlier = events["as_of"] < pd.Timestamp(evening.as_of)
    found = events["event"].isin(["calibration", "fallback"])
    return events[earlier | (~found & (events["as_of"] == pd.Timestamp(evening.as_of)))]


def fit_baseline(job: Job, panel: Panel, name: str) -> InUse:
    """Fit a baseline for one evening; the first one of the job where none of this name is there."""
    names = [spec.name for spec in job.models if spec.baseline] or [job.models[0].name]
    chosen = name if name in names else names[0]
    session = np.datetime64(panel.calendar[-1], "D")
    return InUse(chosen, f"{FITTED}{session}", fit_model(job, chosen, panel, session))
