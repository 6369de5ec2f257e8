"""What a network is trained for: where it starts, what it is compared with, and what its outputs mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from forecaster.models.convolution import runtime  # noqa: F401  # before TensorFlow

# isort: split
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from forecaster.features import CLIP
from forecaster.models.base import ResidualQuantiles
from forecaster.models.convolution.inputs import (
    CHANNELS,
    VARIANCE_CHANNELS,
    feature_count,
    network_channels,
    network_features,
    variance_channels,
)
from forecaster.models.convolution.network import Objective, squared_error
from forecaster.models.econometric.harx import HarxForecaster
from forecaster.models.econometric.variance import QlikeForecaster
from forecaster.quantiles import LEVELS, QuantileForecast, Tails, quantile_weights
from forecaster.returns import forward_returns
from forecaster.windows import Panel, Universe, Windows

__all__ = [
    "TARGETS",
    "DistributionTarget",
    "PointTarget",
    "Target",
    "VarianceTarget",
    "scale_loss",
    "scale_objective",
    "variance_loss",
]

Array = NDArray[np.float64]
Tensor = Any  # TensorFlow's types say no shape

LOG_SCALE_BOUND = 2.0
"""The network may stretch or shrink the scale that it starts from by a factor of e squared at most."""
LINEAR, LINEAR_VARIANCE = "linear", "linear_variance"
"""Folders of the linear models."""


class Target:
    """What the targets share: the linear model of the scale, and what a network sees.

    Parameters
    ----------
    anchor : {"lin", "ewma"}
        What training starts from: the pooled linear model of what is forecast, or the EWMA volatility.
    """

    channel_names: ClassVar[tuple[str, ...]] = CHANNELS
    """Channels of a window, in their order."""

    def __init__(self, anchor: Literal["lin", "ewma"]) -> None:
        self.anchor = anchor
        self.linear = HarxForecaster(cross_section=True, target="daily")

    @property
    def parameters(self) -> int:
        """Number of coefficients and estimates of the linear models."""
        return self.linear.parameters

    @property
    def universe(self) -> Universe:
        """Symbols that are looked at, recorded by `fit`."""
        return self.linear.universe

    def fit(self, windows: Windows) -> None:
        """Fit the linear models, from which features and anchors are made."""
        self.linear.fit(windows)

    def channels(self, panel: Panel) -> NDArray[np.float32]:
        """Compute the channels of every session of a panel, shape (total, len(channel_names))."""
        return network_channels(panel, self.universe)

    def feature_count(self, n_horizons: int) -> int:
        """Columns of the features."""
        return feature_count(n_horizons, self.anchor == "lin")

    def features_and_anchors(self, windows: Windows) -> tuple[NDArray[np.float32], Array]:
        """Compute what a network sees beside the windows, and what training starts from.

        Returns
        -------
        features : ndarray of shape (n_origins, feature_count(n_horizons)), float32
        anchors : ndarray of shape (n_origins, n_horizons)
            Scales of the outcome, from the same pass over the series.
        """
        features, scales = network_features(self.linear, windows, self.anchor == "lin")
        return features, scales if self.anchor == "lin" else windows.scales

    def objective(self, n_horizons: int) -> Objective:
        """Say what a network of so many horizons is trained for."""
        raise NotImplementedError

    def observed(self, windows: Windows, anchors: Array) -> Array:
        """Give what training compares with, shape (n_origins, columns of the objective)."""
        raise NotImplementedError

    def constants(self, observed: Array) -> tuple[Array, ...]:
        """Give what the loss takes from the training origins, in the shapes of the objective."""
        raise NotImplementedError

    def location_and_scale(self, anchors: Array, outputs: Array) -> tuple[Array, Array]:
        """Say what outputs mean: where outcomes lie and how far they spread, each (n_origins, n_horizons)."""
        raise NotImplementedError

    def settle(self, windows: Windows, location: Array, scale: Array) -> None:
        """Learn what else there is to learn from forecasts out of sample; nothing, for the distribution."""

    def settled(self, location: Array) -> Array:
        """Correct a location by what `settle` learned of locations."""
        return location

    def forecast(
        self, windows: Windows, location: Array, scale: Array, residuals: ResidualQuantiles
    ) -> QuantileForecast:
        """Place and stretch the quantiles of past outcomes over their scale, and their tails."""
        return residuals.forecast(windows, scale, self.settled(location))

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save beside the linear models."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the linear models into folders of their own."""
        (folder / LINEAR).mkdir()
        self.linear.save(folder / LINEAR)

    def load(self, folder: Path, state: dict[str, NDArray[np.generic]]) -> None:
        """Read what `save` wrote, and take back what `state` gave."""
        del state
        self.linear.load(folder / LINEAR)


class DistributionTarget(Target):
    """The whole distribution: the network gives the log of the outcome's scale over the anchor."""

    def objective(self, n_horizons: int) -> Objective:
        """Train for `scale_loss`."""
        return scale_objective(n_horizons)

    def observed(self, windows: Windows, anchors: Array) -> Array:
        """Outcomes over their anchors, and realised mean absolute returns over them, side by side."""
        targets, panel = windows.targets, windows.panel
        ahead = np.array(windows.horizons, dtype=np.float64)
        sizes = np.empty_like(targets)
        for part, mine in windows.by_series():
            sums = forward_returns(np.abs(panel.returns[part]), windows.horizons)
            sizes[mine] = sums[windows.rows[mine] - part.start]
        return np.concatenate([targets / anchors, sizes / np.sqrt(ahead) / anchors], axis=1)

    def constants(self, observed: Array) -> tuple[Array, ...]:
        """Quantiles of outcomes over their anchors, and the average of the mean absolute returns."""
        outcomes, sizes = np.split(observed, 2, axis=1)
        return np.quantile(outcomes, LEVELS, axis=0).T, sizes.mean(axis=0)

    def location_and_scale(self, anchors: Array, outputs: Array) -> tuple[Array, Array]:
        """Outcomes lie around zero; the scale is the anchor times the exponential of the output."""
        return np.zeros_like(anchors), anchors * np.exp(np.clip(outputs, -LOG_SCALE_BOUND, LOG_SCALE_BOUND))


class VarianceTarget(Target):
    """The variance over the coming sessions: the network gives its log over that of the anchor.

    The anchor is a variance: that of the linear model that minimises QLIKE
    (`forecaster.models.econometric.QlikeForecaster`), or the EWMA of the daily variances times h. The network
    sees the variances beside the returns, and the regressors of that linear model beside its other features.
    What it forecasts is put right by the mean of outcome over forecast out of sample, as in
    `forecaster.models.econometric.variance`, and stated as the variance of the forecast; quantiles are its
    root times those of past outcomes over their own.
    """

    channel_names: ClassVar[tuple[str, ...]] = CHANNELS + VARIANCE_CHANNELS

    def __init__(self, anchor: Literal["lin", "ewma"]) -> None:
        super().__init__(anchor)
        self.variance = QlikeForecaster()
        self.factors = np.empty(0)

    @property
    def parameters(self) -> int:
        """Number of coefficients and estimates of the linear models, and of factors."""
        return super().parameters + self.variance.parameters + self.factors.size

    def fit(self, windows: Windows) -> None:
        """Fit the linear models, from which features and anchors are made."""
        super().fit(windows)
        self.variance.fit(windows)

    def channels(self, panel: Panel) -> NDArray[np.float32]:
        """Compute the channels of every session of a panel, shape (total, len(channel_names))."""
        return np.concatenate([super().channels(panel), variance_channels(panel, self.universe)], axis=1)

    def feature_count(self, n_horizons: int) -> int:
        """Columns of the features."""
        return super().feature_count(n_horizons) + self.variance.regressor_count - 1

    def features_and_anchors(self, windows: Windows) -> tuple[NDArray[np.float32], Array]:
        """Compute the features of every network and regressors of the variance; anchors are variances."""
        features, _ = super().features_and_anchors(windows)
        regressors = self.variance.regressors(windows)
        linear = self.anchor == "lin"
        anchors = self.variance.variance(windows, regressors) if linear else self.variance.ewma(windows)
        return np.concatenate([features, regressors[:, 1:].astype(np.float32)], axis=1), anchors

    def objective(self, n_horizons: int) -> Objective:
        """Train for `variance_loss`."""
        return Objective(variance_loss, columns=n_horizons, constants=((n_horizons,),))

    def observed(self, windows: Windows, anchors: Array) -> Array:
        """Realised variances over the anchors."""
        ratio: Array = windows.realised_variance / anchors
        return ratio

    def constants(self, observed: Array) -> tuple[Array, ...]:
        """Give the average of the realised variances over the anchors."""
        return (observed.mean(axis=0),)

    def location_and_scale(self, anchors: Array, outputs: Array) -> tuple[Array, Array]:
        """Outcomes lie around zero; the scale is the root of the anchor times the output's exponential."""
        bound = 2.0 * LOG_SCALE_BOUND  # of a square
        return np.zeros_like(anchors), np.sqrt(anchors * np.exp(np.clip(outputs, -bound, bound)))

    def settle(self, windows: Windows, location: Array, scale: Array) -> None:
        """Learn what puts the mean of the variance right."""
        del location
        self.factors = (windows.realised_variance / np.square(scale)).mean(axis=0)

    def forecast(
        self, windows: Windows, location: Array, scale: Array, residuals: ResidualQuantiles
    ) -> QuantileForecast:
        """Stretch the quantiles of past outcomes over their scale, and state the variance."""
        forecast = super().forecast(windows, location, scale, residuals)
        assert forecast.tails is not None
        tails = Tails(forecast.tails.low, forecast.tails.high, np.square(scale) * self.factors)
        return QuantileForecast(forecast.values, windows.horizons, tails)

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save beside the linear models."""
        return {"variance_factors": self.factors}

    def save(self, folder: Path) -> None:
        """Write the linear models into folders of their own."""
        super().save(folder)
        (folder / LINEAR_VARIANCE).mkdir()
        self.variance.save(folder / LINEAR_VARIANCE)

    def load(self, folder: Path, state: dict[str, NDArray[np.generic]]) -> None:
        """Read what `save` wrote, and take back what `state` gave."""
        super().load(folder, state)
        self.variance.load(folder / LINEAR_VARIANCE)
        self.factors = state["variance_factors"].astype(np.float64)


class PointTarget(Target):
    """The mean of the outcome: the network gives it in units of the anchor, which stays the scale.

    Of what a network makes of returns in training next to nothing holds afterwards. So its mean is shrunk by
    the slope of outcomes on means forecast out of sample, at least 0 and at most 1, for each horizon.

    Notes
    -----
    The slope is that of Mincer and Zarnowitz, "The Evaluation of Economic Forecasts", in Economic Forecasts
    and Expectations (1969); a constant is in the quantiles of the residuals.
    """

    def __init__(self, anchor: Literal["lin", "ewma"]) -> None:
        super().__init__(anchor)
        self.slopes = np.empty(0)

    @property
    def parameters(self) -> int:
        """Number of coefficients and estimates of the linear model, and of slopes."""
        return super().parameters + self.slopes.size

    def objective(self, n_horizons: int) -> Objective:
        """Train for the squared error."""
        return Objective(squared_error, columns=n_horizons)

    def observed(self, windows: Windows, anchors: Array) -> Array:
        """Outcomes over their anchors, clipped at 8: one crash must not rule the mean."""
        return np.clip(windows.targets / anchors, -CLIP, CLIP)

    def constants(self, observed: Array) -> tuple[Array, ...]:
        """Give nothing: a squared error takes nothing from the training origins."""
        del observed
        return ()

    def location_and_scale(self, anchors: Array, outputs: Array) -> tuple[Array, Array]:
        """Outcomes lie around the output, in units of the anchor, and spread by the anchor."""
        return anchors * outputs, anchors

    def settle(self, windows: Windows, location: Array, scale: Array) -> None:
        """Learn how much of a mean holds."""
        means, outcomes = location / scale, np.clip(windows.targets / scale, -CLIP, CLIP)
        spread = means - means.mean(axis=0)
        variance = np.square(spread).mean(axis=0)
        slopes = (spread * outcomes).mean(axis=0) / np.where(variance > 0.0, variance, 1.0)
        self.slopes = np.clip(slopes, 0.0, 1.0)

    def settled(self, location: Array) -> Array:
        """Shrink a mean."""
        return location * self.slopes

    def state(self) -> dict[str, NDArray[np.generic]]:
        """Arrays to save beside the linear model."""
        return {"mean_slopes": self.slopes}

    def load(self, folder: Path, state: dict[str, NDArray[np.generic]]) -> None:
        """Read what `save` wrote, and take back what `state` gave."""
        super().load(folder, state)
        self.slopes = state["mean_slopes"].astype(np.float64)


TARGETS: dict[str, type[Target]] = {
    "distribution": DistributionTarget,
    "variance": VarianceTarget,
    "point": PointTarget,
}
"""What a network can be trained for, by its name in a job."""


# --- losses ------------------------------------------------------------------------------------------------


def scale_loss(outputs: Tensor, observed: Tensor, constants: Sequence[Tensor]) -> Tensor:
    """Loss of a log scale s.

    Twice the CRPS of the outcome over its anchor, against fixed pooled quantiles times ``exp(s)``, plus
    ``a * exp(-s) + s`` with a the realised mean absolute return over the horizon in units of the anchor a day
    and of its own average (the likelihood of a Laplace scale); the mean over horizons.

    Parameters
    ----------
    outputs : tensor of shape (chunks, origins, n_horizons)
        The log scale.
    observed : tensor of shape (chunks, origins, 2 * n_horizons)
        Outcomes over the anchor, and realised mean absolute returns over it.
    constants : tensors of shape (n_horizons, n_levels) and (n_horizons,)
        The pooled quantiles, and the average of the realised mean absolute returns.
    """
    quantiles, typical = constants
    # The pinball losses of y against q * scale add up to a function of y / scale that is linear between the
    # quantiles: sum of w * (level * (y - q * scale) + max(q * scale - y, 0)), the maximum zero for quantiles
    # below y / scale. One horizon a row: the search takes a row of quantiles each.
    outcome, size = (
        tf.transpose(tf.reshape(part, (-1, outputs.shape[-1]))) for part in tf.split(observed, 2, axis=-1)
    )
    log_scale = tf.transpose(tf.reshape(outputs, (-1, outputs.shape[-1])))
    scale = tf.exp(log_scale)
    levels, weights = (np.array(values, dtype=np.float32) for values in (LEVELS, quantile_weights()))
    slopes = np.sum(weights * levels) - np.append(np.cumsum(weights[::-1])[::-1], np.float32(0.0))
    heights = tf.pad(tf.cumsum(weights * quantiles, axis=1, reverse=True), [(0, 0), (0, 1)])
    heights -= tf.reduce_sum(weights * levels * quantiles, axis=1, keepdims=True)
    above = tf.searchsorted(quantiles, outcome / scale)
    pinball = (
        tf.gather(tf.constant(slopes), above) * outcome + tf.gather(heights, above, batch_dims=1) * scale
    )
    losses = 4.0 * pinball + size / (typical[:, None] * scale) + log_scale
    return tf.reshape(tf.reduce_mean(losses, axis=0), tf.shape(outputs)[:-1])


def scale_objective(n_horizons: int) -> Objective:
    """Return the objective of a scale head for so many horizons."""
    return Objective(scale_loss, columns=2 * n_horizons, constants=((n_horizons, len(LEVELS)), (n_horizons,)))


def variance_loss(outputs: Tensor, observed: Tensor, constants: Sequence[Tensor]) -> Tensor:
    """QLIKE of a log variance s: ``a * exp(-s) + s``; the mean over horizons.

    With a the realised variance over the anchor, in units of its own average. But for a constant it is
    `forecaster.scores.qlike`.

    Parameters
    ----------
    outputs : tensor of shape (chunks, origins, n_horizons)
        The log variance over the anchor.
    observed : tensor of shape (chunks, origins, n_horizons)
        Realised variances over the anchor.
    constants : tensor of shape (n_horizons,)
        Their average.
    """
    (typical,) = constants
    return tf.reduce_mean(observed / typical * tf.exp(-outputs) + outputs, axis=-1)
