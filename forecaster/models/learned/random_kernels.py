"""Random convolution kernels over whole series, and ridge regression of the scale on them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve

from forecaster.errors import NotFittedError
from forecaster.features import CHANNELS, CLIP
from forecaster.models.base import ResidualQuantiles, known_targets, load_arrays, row_by_row, save_arrays
from forecaster.models.learned.blocks import SCALE_FLOOR, session_blocks
from forecaster.models.learned.inputs import ScaleInputs
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Panel, Windows

__all__ = ["TAPS", "RandomKernelForecaster", "RandomKernels"]

Array = NDArray[np.float64]

TAPS = 9
"""Weights of a kernel: three are 2, the other six -1, so that they add up to zero."""

TRIPLES = np.array(list(combinations(range(TAPS), 3)))
"""Where the twos stand: all 84 ways."""

INPUTS = (CHANNELS.index("z"), CHANNELS.index("log_abs_z"))
"""Channels that kernels see: the scaled return, and the log of its size."""

SAMPLE = 2048
"""Training origins whose responses give the thresholds."""

PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)
"""Weights of the squared coefficients of the kernels, over standardised inputs and the number of origins."""


@dataclass(frozen=True, eq=False)
class RandomKernels:
    """Kernels drawn at random, and the share of a window in which each responds above its threshold.

    Parameters
    ----------
    lookback : int
        Sessions of a window, at least `TAPS`.
    channels, dilations : ndarray of shape (n_kernels,)
        The channel that a kernel sees, and the sessions between two of its taps.
    triples : ndarray of shape (n_kernels, 3)
        Places of the twos among the taps, the oldest session first.
    thresholds : ndarray of shape (n_kernels,)

    Notes
    -----
    Dempster, Schmidt and Webb, "MiniRocket: A Very Fast (Almost) Deterministic Transform for Time Series
    Classification", KDD (2021): its kernels, its dilations (powers of two with uniform exponents, up to the
    window's length), and thresholds that are quantiles of responses on training data. Unlike it, no kernel
    sees zeros beyond a window's edges, and each has one threshold.
    """

    lookback: int
    channels: NDArray[np.int64]
    dilations: NDArray[np.int64]
    triples: NDArray[np.int64]
    thresholds: Array

    @classmethod
    def draw(cls, count: int, windows: Windows, lookback: int, seed: int) -> Self:
        """Draw kernels, and take their thresholds from responses at training origins.

        Parameters
        ----------
        count : int
            Number of kernels.
        windows : Windows
            The training origins, each with `lookback` sessions up to it.
        lookback : int
        seed : int
        """
        random = np.random.default_rng(seed)
        channels = random.choice(INPUTS, count)
        longest = np.log2((lookback - 1) / (TAPS - 1))
        dilations = np.exp2(random.uniform(0.0, longest, count)).astype(np.int64)
        triples = TRIPLES[random.integers(len(TRIPLES), size=count)]
        rows = random.choice(windows.rows, min(SAMPLE, len(windows)), replace=False)
        # Evenly spread without order, as in the paper: multiples of the golden ratio, modulo one.
        levels = np.arange(1, count + 1) * ((np.sqrt(5.0) + 1.0) / 2.0) % 1.0
        thresholds = np.empty(count)
        for index, dilation in enumerate(dilations):
            taps = rows[:, None] - dilation * np.arange(TAPS - 1, -1, -1)
            seen = windows.panel.channels[taps, channels[index]].astype(np.float64)
            responses = 3.0 * seen[:, triples[index]].sum(axis=1) - seen.sum(axis=1)
            thresholds[index] = np.quantile(responses, levels[index])
        return cls(lookback, channels, dilations, triples, thresholds)

    def shares(self, panel: Panel, start: int, stop: int) -> Array:
        """Compute the features of consecutive rows of one series.

        The kernels run once over the rows, and a running sum pools what they give, so that the cost does not
        depend on the lookback.

        Parameters
        ----------
        panel : Panel
        start, stop : int
            Rows of one series, the first of which has `lookback` sessions up to it.

        Returns
        -------
        ndarray of shape (n_kernels, stop - start)
            Share of the places in the window at which the response lies above the threshold. Column j is made
            of the `lookback` sessions up to row ``start + j`` and nothing else, to the last bit.
        """
        begin = start - self.lookback + 1
        result = np.empty((len(self.channels), stop - start))
        for channel in np.unique(self.channels):
            series = panel.channels[begin:stop, channel].astype(np.float64)
            for dilation in np.unique(self.dilations[self.channels == channel]):
                places = len(series) - (TAPS - 1) * dilation
                taps = [series[tap * dilation : tap * dilation + places] for tap in range(TAPS)]
                total = np.sum(taps, axis=0)
                pooled = self.lookback - (TAPS - 1) * dilation
                above = np.zeros(places + 1, dtype=np.int64)
                for index in np.flatnonzero((self.channels == channel) & (self.dilations == dilation)):
                    first, second, third = self.triples[index]
                    responses = 3.0 * (taps[first] + taps[second] + taps[third]) - total
                    np.cumsum(responses > self.thresholds[index], out=above[1:])
                    np.divide(above[pooled:] - above[:-pooled], pooled, out=result[index])
        return result


class RandomKernelForecaster:
    """Ridge regression of the size of the scaled return on random kernels, beside `ScaleInputs`.

    A model of the scale with kernels that nobody trained: what trained kernels must beat. The penalty falls
    on the kernels alone, and is the one of `PENALTIES` that predicts best out of sample, for each horizon.

    Parameters
    ----------
    kernels : int
        Number of kernels.
    lookback : int
        Sessions that the kernels see; at least `TAPS` are taken.
    seed : int
        Seed of the draw.

    Notes
    -----
    The features of one series at a time enter sums of products, from which every fit follows: all sessions,
    and all but a block and what overlaps with it. So no more than one series' features are ever held.
    """

    def __init__(self, kernels: int = 336, lookback: int = 32, seed: int = 0) -> None:
        self.count = kernels
        self.lookback = max(lookback, TAPS)
        self.seed = seed
        self.residuals = ResidualQuantiles(by_symbol=False)
        self.inputs = ScaleInputs()
        self.kernels: RandomKernels | None = None
        self.bounds: Array | None = None
        self.coefficients: Array | None = None

    @property
    def parameters(self) -> int:
        """Number of coefficients, thresholds and quantiles."""
        if self.kernels is None or self.coefficients is None:
            return self.residuals.parameters
        return self.coefficients.size + self.kernels.thresholds.size + self.residuals.parameters

    def fit(self, windows: Windows) -> Self:
        """Draw the kernels, fit the regression, and take residual quantiles out of sample."""
        windows = windows.pooled
        standardised = known_targets(windows) / windows.scales
        sizes = np.minimum(np.abs(standardised), CLIP)
        windows.require_history(self.lookback)
        self.kernels = RandomKernels.draw(self.count, windows, self.lookback, self.seed)
        beside = self.inputs.fit(windows)(windows)
        self.bounds = np.stack([beside.min(axis=0), beside.max(axis=0)]).astype(np.float64)
        place, blocks = session_blocks(windows)
        # Between two edges every session is either near a block or apart from it.
        edges = np.unique([(block.near_first, block.near_last + 1) for block in blocks])
        segment = np.searchsorted(edges, place, side="right")
        size = self.count + self.inputs.width + 1
        grams = np.zeros((len(edges) + 1, size, size))
        moments = np.zeros((len(edges) + 1, size, sizes.shape[1]))
        for mine, inputs in self._inputs(windows):
            for number in np.unique(segment[mine]):
                chosen = segment[mine] == number
                part = inputs[:, chosen]
                grams[number] += part @ part.T
                moments[number] += part @ sizes[mine[chosen]]
        every = self._ridge(grams.sum(axis=0), moments.sum(axis=0))
        predicted = np.full((len(windows), len(PENALTIES), sizes.shape[1]), np.nan)
        held_out = []
        for block in blocks:
            near = slice(*(np.searchsorted(edges, (block.near_first, block.near_last + 1)) + 1))
            apart = np.ones(len(grams), dtype=bool)
            apart[near] = False
            if grams[apart, -1, -1].sum() >= ResidualQuantiles.minimum:
                fitted = self._ridge(grams[apart].sum(axis=0), moments[apart].sum(axis=0))
                held_out.append((block.inside(place), fitted))
        for mine, inputs in self._inputs(windows):
            for inside, fitted in held_out:
                chosen = inside[mine]
                predicted[mine[chosen]] = np.tensordot(inputs[:, chosen].T, fitted, axes=(1, 1))
        known = np.isfinite(predicted).all(axis=(1, 2))
        if known.sum() >= ResidualQuantiles.minimum:
            errors = np.square(predicted[known] - sizes[known, None]).mean(axis=0)
            best = errors.argmin(axis=0)
        else:
            # Too few origins to hold any out: the strongest penalty, and residuals of the fit itself.
            best = np.full(sizes.shape[1], len(PENALTIES) - 1)
            for mine, inputs in self._inputs(windows):
                predicted[mine] = np.tensordot(inputs.T, every, axes=(1, 1))
        horizons = np.arange(sizes.shape[1])
        self.coefficients = every[best, :, horizons].T
        scales = np.clip(predicted[:, best, horizons], SCALE_FLOOR, CLIP)
        self.residuals.fit(windows, standardised / scales)
        return self

    def _ridge(self, gram: Array, moment: Array) -> Array:
        """Coefficients for each of `PENALTIES`, shape (n_penalties, n_inputs, n_horizons), constant last."""
        count = gram[-1, -1]
        mean, centre = gram[-1, :-1] / count, moment[-1] / count
        covariance = gram[:-1, :-1] / count - np.outer(mean, mean)
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
        deviation[deviation < 1e-6] = 1.0  # an input that never moves
        correlation = covariance / np.outer(deviation, deviation)
        with_target = (moment[:-1] / count - np.outer(mean, centre)) / deviation[:, None]
        kernel = np.arange(len(mean)) < self.count
        result = []
        for penalty in PENALTIES:
            # The inputs beside the kernels go free; a trace on their diagonal keeps collinear ones apart.
            diagonal = np.diag(np.where(kernel, penalty, 1e-6))
            slopes = solve(correlation + diagonal, with_target, assume_a="pos") / deviation[:, None]
            result.append(np.vstack([slopes, centre - mean @ slopes]))
        return np.stack(result)

    def _inputs(self, windows: Windows) -> Iterator[tuple[NDArray[np.int64], Array]]:
        """Go through the inputs of one series after the other.

        Yields
        ------
        mine : ndarray of int
            Positions of the origins of the series.
        inputs : ndarray of shape (n_kernels + n_features + 1, n_mine)
            Shares of the kernels, `ScaleInputs` held within the range of the training rows, ones.
        """
        assert self.kernels is not None
        assert self.bounds is not None
        beside = self.inputs(windows)
        for _, mine in windows.by_series():
            rows = windows.rows[mine]
            first = int(rows.min())
            shares = self.kernels.shares(windows.panel, first, int(rows.max()) + 1)
            held = np.clip(beside[mine], *self.bounds)
            yield mine, np.vstack([shares[:, rows - first], held.T, np.ones(len(rows))])

    def predict(self, windows: Windows) -> QuantileForecast:
        """Stretch the residual quantiles by the fitted scale of each origin."""
        if self.coefficients is None:
            raise NotFittedError("a model is fitted before it predicts; call fit first")
        windows.require_history(self.lookback)
        sizes = np.empty((len(windows), len(windows.horizons)))
        for mine, inputs in self._inputs(windows):
            sizes[mine] = row_by_row(inputs.T, self.coefficients)
        return self.residuals.forecast(windows, windows.scales * np.clip(sizes, SCALE_FLOOR, CLIP))

    def save(self, folder: Path) -> None:
        """Write the kernels, the coefficients and the residual quantiles."""
        if self.kernels is None or self.coefficients is None or self.bounds is None:
            raise NotFittedError("a model is fitted before it is saved; call fit first")
        learned: dict[str, NDArray[np.generic]] = {
            "channels": self.kernels.channels,
            "dilations": self.kernels.dilations,
            "triples": self.kernels.triples,
            "thresholds": self.kernels.thresholds,
            "bounds": self.bounds,
            "coefficients": self.coefficients,
        }
        save_arrays(folder, learned | self.inputs.state() | self.residuals.state())

    def load(self, folder: Path) -> Self:
        """Read what `save` wrote."""
        state = load_arrays(folder)
        self.kernels = RandomKernels(
            self.lookback,
            channels=state["channels"].astype(np.int64),
            dilations=state["dilations"].astype(np.int64),
            triples=state["triples"].astype(np.int64),
            thresholds=state["thresholds"].astype(np.float64),
        )
        self.bounds = state["bounds"].astype(np.float64)
        self.coefficients = state["coefficients"].astype(np.float64)
        self.inputs.restore(state)
        self.residuals.restore(state)
        return self
