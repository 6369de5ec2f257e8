"""What the taps of a folded kernel mean: weights of lags, and the response to each period."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from forecaster.errors import ParameterError
from forecaster.kernels.folding import Folding
from forecaster.kernels.operators import Float64
from forecaster.liftings import as_finite

__all__ = ["frequency_response", "lag_weights"]


def lag_weights(folding: Folding, row: int = 0, column: int = -1) -> Float64:
    """Weight of every session of the window in one output cell: the kernel as a map of lags.

    Parameters
    ----------
    folding : Folding
        A folded kernel.
    row, column : int
        Output cell; negative values count from the end. The last column is the newest.

    Returns
    -------
    ndarray of shape (lookback + history, channels, filters)
        Entry ``l`` is the weight of the session ``l`` sessions before the origin.
    """
    kernel, base = folding.at(row, column)
    weights = np.zeros((folding.sessions, *kernel.taps.shape[1:]))
    weights[folding.sessions - 1 - base - np.array(kernel.offsets, dtype=np.intp)] = kernel.taps
    return weights


def frequency_response(
    taps: npt.ArrayLike, offsets: Sequence[int] | npt.ArrayLike, periods: npt.ArrayLike
) -> tuple[Float64, Float64]:
    """Frequency response of a 1D kernel: ``H(p) = sum over k of taps[k] * exp(2 pi i offsets[k] / p)``.

    Parameters
    ----------
    taps : array-like of shape (taps, ...)
        Such as ``FoldedKernel.taps``; further axes (channels, filters) are kept.
    offsets : sequence of int, one a tap
        Session of each tap, such as ``FoldedKernel.offsets``: negative for the past.
    periods : float or array-like of shape (periods,)
        In sessions: at least 2 (shorter ones cannot be told from longer ones); infinity is the mean level.

    Returns
    -------
    magnitude : ndarray of shape (periods, ...)
        Amplitude out over amplitude in.
    phase : ndarray of shape (periods, ...)
        Lead of the output over the input at offset 0, in radians in (-pi, pi]; a delay is negative.

    Raises
    ------
    ParameterError
        When a period is below 2, or the offsets do not match the taps.
    """
    values = np.asarray(taps)
    values = as_finite("taps", values, [("taps", *("axis",) * max(values.ndim - 1, 0))])
    where = as_finite("offsets", offsets, [("taps",)])
    if where.shape != values.shape[:1] or (where != np.rint(where)).any():
        raise ParameterError(
            f"offsets must be one integer for each of the {len(values)} taps. Received: {offsets!r}."
        )
    lengths = np.atleast_1d(np.asarray(periods))
    if lengths.ndim != 1 or lengths.dtype.kind not in "iuf" or not (lengths >= 2).all():
        raise ParameterError(
            f"periods must be one-dimensional, each at least 2 sessions. Received: {periods!r}."
        )
    waves = np.exp(2j * np.pi * where / lengths[:, None])
    response = np.tensordot(waves, values, axes=1)
    return np.abs(response), np.angle(response)
