"""Learning rates of the steps of a training; no TensorFlow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["cosine_rates"]


def cosine_rates(rate: float, steps: int, warm_up: int) -> npt.NDArray[np.float32]:
    """Learning rate of each step: a linear warm-up, then half a cosine down to zero.

    Parameters
    ----------
    rate : float
        The peak.
    steps : int
        Steps in all.
    warm_up : int
        Steps of the rise; at most a quarter of all are taken.

    Returns
    -------
    ndarray of shape (steps,), float32
        All above zero.

    Notes
    -----
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017, equation 5,
    without restarts.
    """
    warm_up = min(warm_up, steps // 4)
    place = np.arange(steps)
    rising = (place + 1) / (warm_up + 1)
    falling = 0.5 * (1.0 + np.cos(np.pi * np.maximum(place - warm_up, 0) / max(steps - warm_up, 1)))
    rates: npt.NDArray[np.float32] = (rate * np.minimum(rising, falling)).astype(np.float32)
    return rates
