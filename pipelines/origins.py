"""Scores of one fitted model at every origin there is, streamed to disk: a look at all of the past at once.

The model is one fit, so that these are no out-of-sample scores but where it was fitted on the years before;
a backtest gives those. What it is for: to find the symbols and times at which a model in use is far off.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forecaster.engine import Engine, Failure, Task
from forecaster.errors import ForecasterError, ParameterError
from forecaster.models.base import load_arrays
from forecaster.models.convolution.model import ConvolutionForecaster
from forecaster.quantiles import LEVELS, quantile_weights
from forecaster.tracking.saved import LEARNED, read_model
from forecaster.windows import Panel, Windows

__all__ = ["score_origins", "standardised_crps"]

SERIES = 64
"""Series of a task: of thirty years it takes ten seconds."""
Array = NDArray[np.float64]

_models: dict[str, tuple[Panel, ConvolutionForecaster]] = {}
"""The last panel and model that this process used."""


def standardised_crps(z: Array, quantiles: Array) -> Array:
    """CRPS of outcomes over their scale, against one set of quantiles for all of them.

    As `forecaster.scores.losses.crps`, which is a function of the outcome that is linear between the
    quantiles: so it is found from its values there, whatever the number of outcomes.

    Parameters
    ----------
    z : ndarray of shape (n,)
        Outcomes over their scale; NaN gives NaN.
    quantiles : ndarray of shape (n_levels,)
        Non-decreasing.

    Returns
    -------
    ndarray of shape (n,)
        Times the scale of each outcome it is its CRPS.
    """
    levels, weights = np.array(LEVELS), 2.0 * quantile_weights()
    gaps = quantiles[:, None] - quantiles[None, :]
    at_quantiles = (np.maximum(levels * gaps, (levels - 1.0) * gaps) * weights).sum(axis=1)
    result: Array = np.interp(z, quantiles, at_quantiles)
    result += np.maximum(z - quantiles[-1], 0.0) * (weights * levels).sum()
    result += np.maximum(quantiles[0] - z, 0.0) * (weights * (1.0 - levels)).sum()
    return result


def _held(panel: Path, model: Path) -> tuple[Panel, ConvolutionForecaster]:
    key = f"{panel} {model}"
    if key not in _models:
        fitted = read_model(model).model
        if not isinstance(fitted, ConvolutionForecaster):
            raise ParameterError(
                "all origins are scored of a network, whose quantiles follow from a scale. Received: "
                f"{type(fitted).__name__}"
            )
        _models.clear()
        _models[key] = Panel.open(panel), fitted
    return _models[key]


def _score_block(
    panel: Path, model: Path, warm_up: int, horizons: tuple[int, ...], first: int, stop: int, path: Path
) -> Array:
    """Score the origins of some series and write them; give the sum of CRPS and its number by horizon."""
    every, fitted = _held(panel, model)
    assert fitted.residuals.values is not None
    series = every.between(first, stop)
    rows = np.concatenate([np.arange(part.start + warm_up - 1, part.stop) for part in series.parts])
    windows = Windows(series, rows, horizons)
    location, scale = fitted.location_and_scale(windows)
    targets = windows.targets
    names = pa.DictionaryArray.from_arrays(windows.series.astype(np.int32), list(series.symbols))
    columns = {"symbol": names, "origin": pa.array(windows.sessions)}
    sums = np.zeros((2, len(horizons)))
    for number, horizon in enumerate(horizons):
        standardised = (targets[:, number] - location[:, number]) / scale[:, number]
        crps = scale[:, number] * standardised_crps(standardised, fitted.residuals.values[0, number])
        known = np.isfinite(crps)
        sums[:, number] = crps[known].sum(), known.sum()
        for name, values in (
            ("y", targets[:, number]),
            ("location", location[:, number]),
            ("scale", scale[:, number]),
            ("crps", crps),
        ):
            columns[f"{name}_{horizon}"] = pa.array(values.astype(np.float32))
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=["symbol", "origin"])
    return sums


def score_origins(
    engine: Engine, panel: Path, model: Path, warm_up: int, horizons: tuple[int, ...], output: Path
) -> Array:
    """Score every origin, blocks of series at once.

    Parameters
    ----------
    engine : Engine
        One whose workers see the folders.
    panel : Path
        Folder of a panel that `Panel.save` wrote.
    model : Path
        Folder of a network that `forecaster.tracking.saved.write_model` wrote.
    warm_up : int
        Sessions that an origin needs up to itself.
    horizons : tuple of int
        Those of the model.
    output : Path
        Folder for ``part-*.parquet`` (``symbol, origin`` and, for each horizon h, ``y_h, location_h``,
        ``scale_h, crps_h`` in float32, NaN while unknown) and ``quantiles.json``: a quantile of an origin is
        its location plus its scale times the one there.

    Returns
    -------
    ndarray of shape (n_horizons,)
        Mean CRPS.

    Raises
    ------
    ForecasterError
        If a block could not be scored; what is there is whole.
    """
    about = Panel.open(panel)
    bounds = [*range(0, len(about.symbols), SERIES), len(about.symbols)]
    tasks = []
    for first, stop in pairwise(bounds):
        path = output / f"part-{first:06d}.parquet"
        task = (panel, model, warm_up, horizons, first, stop, path)
        tasks.append(Task(f"{about.symbols[first]} to {about.symbols[stop - 1]}", _score_block, task))
    total = np.zeros((2, len(horizons)))
    for _, sums in engine.run(tasks):
        if isinstance(sums, Failure):
            raise ForecasterError(f"the origins of {sums.name} were not scored: {sums.reason}")
        total += sums
    arrays = load_arrays(model / LEARNED)
    quantiles = {
        "levels": list(LEVELS),
        "horizons": list(horizons),
        "quantiles": arrays["residual_values"][0].tolist(),
    }
    (output / "quantiles.json").write_text(json.dumps(quantiles), encoding="utf-8")
    mean: Array = total[0] / total[1]
    return mean
