"""A network around a kernel stack as a function of its weights: it holds none, so many models share it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from forecaster.models.convolution import runtime  # noqa: F401  # before Keras

# isort: split
import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from forecaster.errors import ParameterError
from forecaster.kernels import Parallel
from forecaster.liftings import check_choice, check_integer
from forecaster.models.convolution.geometry import (
    HEADS,
    KernelLayer,
    Strategy,
    filter_axis,
    history_of,
    layer_config,
    strategy_config,
)
from forecaster.models.convolution.layers import KernelStack
from forecaster.models.convolution.operations import gelu, linear
from forecaster.models.convolution.planner import Plan, plan

__all__ = ["Network", "NetworkFunction", "Objective", "squared_error"]

Tensor = Any  # TensorFlow's types say no shape
Array = npt.NDArray[np.float32]

FEATURE_CLIP = 5.0
"""Standardised features beyond five deviations are clipped."""


@dataclass(frozen=True)
class Objective:
    """What a network is trained for.

    Attributes
    ----------
    loss : callable
        ``loss(outputs, observed, constants)`` gives the loss of each origin: from the outputs
        ``(chunks, origins, outputs)`` and what was observed ``(chunks, origins, columns * len(leads))`` to
        ``(chunks, origins)``, in operations of TensorFlow. A function of a module, as it tells compiled
        programs apart.
    columns : int
        Columns of the observed values.
    leads : tuple of int
        The rows of the observed values, counted from the origin, that it is compared with; those of the first
        lead come first. ``(0,)`` where the values of a row are already the outcome of its origin;
        ``(1, ..., 5)`` for the next five returns, without a copy of them.
    constants : tuple of tuples of int
        Shapes of arrays that the loss needs and that change from fit to fit.
    """

    loss: Callable[[Tensor, Tensor, Sequence[Tensor]], Tensor]
    columns: int
    leads: tuple[int, ...] = (0,)
    constants: tuple[tuple[int, ...], ...] = ()


def squared_error(outputs: Tensor, observed: Tensor, constants: Sequence[Tensor]) -> Tensor:
    """Mean squared error over the outputs of each origin."""
    del constants
    return tf.reduce_mean(tf.math.squared_difference(outputs, observed), axis=-1)


@dataclass(frozen=True, eq=False)
class Network:
    """What a network is, without its weights.

    The channels of a window go through a kernel stack. What it gives, joined with the standardised features
    of the origin where there are any, goes through dropout, a hidden layer where there is one (behind which
    the origin's features join again), and a linear layer.

    Parameters
    ----------
    strategy : Lifting or Parallel or None
        How the 2D kernel meets the series; None for a network of the features alone, which has no layers.
    lookback : int
        Sessions of a window, without the history that the strategy reaches back to.
    layers : sequence of KernelLayer
        What the lifted series goes through. No "batch" normalization: its moments are not trained weights.
    channels, outputs : int
        Channels of the series, and outputs for each origin.
    head : {"last", "flatten", "mean", "max"}
        What is kept of the last map.
    features : int
        Features of an origin beside its window.
    dense : int
        Units (gelu) of the hidden layer; 0 for none.
    dropout : float
        Share of the joined features that is dropped in training.
    zero_output : bool
        Whether the linear layer starts at zero, so that training starts at outputs of zero.
    execution : {"auto", "lifted", "folded", "series"}
        As `KernelStack` takes it; "auto" runs once over the series wherever that is possible.

    Raises
    ------
    ParameterError
        When an argument breaks a rule.
    """

    strategy: Strategy | None
    lookback: int
    layers: tuple[KernelLayer, ...]
    channels: int
    outputs: int
    head: str = "last"
    features: int = 0
    dense: int = 0
    dropout: float = 0.0
    zero_output: bool = False
    execution: str = "auto"

    def __post_init__(self) -> None:
        check_integer("Network: channels", self.channels, 1)
        check_integer("Network: outputs", self.outputs, 1)
        check_integer("Network: features", self.features, 0)
        check_integer("Network: dense", self.dense, 0)
        check_choice("Network: head", self.head, HEADS)
        if not 0.0 <= self.dropout < 1.0:
            raise ParameterError(f"Network: dropout must lie in [0, 1). Received: {self.dropout}.")
        if self.strategy is None and (self.layers or not self.features):
            raise ParameterError(
                "Network: without a strategy there are features, and no layers. Received: "
                f"{self.features} features, {len(self.layers)} layers."
            )
        if any(getattr(layer, "over", None) == "batch" for layer in self.layers):
            raise ParameterError(
                "Network: a layer may not normalize over the batch, whose moments are no trained weights; "
                f"normalize over 'channels'. Received: {list(self.layers)!r}."
            )

    @property
    def sessions(self) -> int:
        """Sessions of one window: lookback and history."""
        return 1 if self.strategy is None else self.lookback + history_of(self.strategy)

    @cached_property
    def identity(self) -> str:
        """The network as text: equal for networks that are computed alike."""
        described = {
            "strategy": None if self.strategy is None else strategy_config(self.strategy),
            "layers": [layer_config(layer) for layer in self.layers],
        }
        plain = ("lookback", "channels", "outputs", "head", "features", "dense", "dropout", "zero_output")
        return json.dumps(described | {name: getattr(self, name) for name in (*plain, "execution")})

    def plan(self) -> Plan:
        """Say how the kernel stack is computed, and why; only with a strategy."""
        assert self.strategy is not None
        return plan(
            self.strategy, self.lookback, self.layers, self.head, self.execution, channels=self.channels
        )


@dataclass(eq=False)
class NetworkFunction:
    """The outputs of a network as a function of one flat vector of weights.

    Parameters
    ----------
    network : Network

    Attributes
    ----------
    shapes : dict of str to tuple of int
        Name and shape of each weight, in the order in which the flat vector holds them.
    """

    network: Network
    shapes: dict[str, tuple[int, ...]] = field(init=False)

    def __post_init__(self) -> None:
        network = self.network
        self._stack = None if network.strategy is None else self._made(network, network.strategy)
        self.shapes, width = {}, network.features
        if self._stack is not None:
            self.shapes |= {f"stack/{weight.name}": tuple(weight.shape) for weight in self._stack.weights}
            width += network.plan().features
        if network.dense:
            self.shapes |= {"hidden/kernel": (width, network.dense), "hidden/bias": (network.dense,)}
            width = network.dense + network.features
        self.shapes |= {"output/kernel": (width, network.outputs), "output/bias": (network.outputs,)}

    @staticmethod
    def _made(network: Network, strategy: Strategy) -> KernelStack:
        # Keras draws the first weights, which are not used here, from Python's global generator.
        drawn = random.getstate()
        stack = KernelStack(
            strategy, network.lookback, network.layers, network.head, network.execution, name="stack"
        )
        stack.build((None, network.sessions, network.channels))
        random.setstate(drawn)
        return stack

    @property
    def size(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    def first_weights(self, seed: int) -> Array:
        """Draw the weights that training starts from.

        Returns
        -------
        ndarray of shape (size,), float32
            Glorot's uniform weights for kernels, ones for the scales of a normalization, zeros for the rest.

        Notes
        -----
        Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
        AISTATS 2010, equation 16. Parallel filters start as the 1D convolution that they are together.
        """
        generator = np.random.default_rng(seed)
        parts = []
        for name, shape in self.shapes.items():
            kind = name.split("/")[1]
            if kind.startswith("scale"):
                parts.append(np.ones(shape))
            elif not kind.startswith("kernel") or (self.network.zero_output and name == "output/kernel"):
                parts.append(np.zeros(shape))
            else:
                bound = math.sqrt(6.0 / sum(self._fans(name, shape)))
                parts.append(generator.uniform(-bound, bound, shape))
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)

    def _fans(self, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return how many values one output sums over, and how many outputs one value goes to."""
        reach = math.prod(shape[:-2])
        strategy = self.network.strategy
        if name.startswith("stack/") and isinstance(strategy, Parallel):
            reach //= shape[filter_axis(strategy)]
            return reach * shape[-2], reach * shape[-1] * shape[filter_axis(strategy)]
        return reach * shape[-2], reach * shape[-1]

    def named(self, weights: Array) -> dict[str, Array]:
        """Cut the flat vector into its named weights."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])[:-1]
        parts = np.split(np.asarray(weights), ends)
        return {name: part.reshape(self.shapes[name]) for name, part in zip(self.shapes, parts, strict=True)}

    def flat(self, named: Mapping[str, npt.NDArray[Any]]) -> Array:
        """Join named weights to the flat vector; `named` undone."""
        parts = [np.asarray(named[name], dtype=np.float32).reshape(-1) for name in self.shapes]
        return np.concatenate(parts)

    def __call__(
        self,
        weights: Tensor,
        channels: Tensor,
        features: Tensor | None = None,
        statistics: Tensor | None = None,
        dropout_seed: Tensor | None = None,
    ) -> Tensor:
        """Compute the outputs of consecutive origins.

        Parameters
        ----------
        weights : tensor of shape (size,)
            The flat vector.
        channels : tensor of shape (chunks, origins + sessions - 1, channels)
            The series of each chunk; the window of origin k ends at entry ``k + sessions - 1``.
        features : tensor of shape (chunks, origins, features), optional
            Of each origin; needed where the network has any.
        statistics : tensor of shape (2, features), optional
            Mean and deviation that the features are standardised by.
        dropout_seed : tensor of shape (2,), int32, optional
            Without it nothing is dropped.

        Returns
        -------
        tensor of shape (chunks, origins, outputs)
        """
        named = self._unpacked(weights)
        # With nothing in between, the linear layer goes into the head of the stack.
        headless = not (self.network.features or self.network.dense or self.network.dropout)
        parts = []
        if self._stack is not None:
            variables = self._stack.weights
            with keras.StatelessScope(
                state_mapping=[(variable, named[f"stack/{variable.name}"]) for variable in variables]
            ):
                parts = [
                    self._stack.series(channels, projection=named["output/kernel"] if headless else None)
                ]
        if headless:
            return parts[0] + named["output/bias"]
        beside = None
        if self.network.features:
            assert features is not None
            assert statistics is not None
            beside = tf.clip_by_value((features - statistics[0]) / statistics[1], -FEATURE_CLIP, FEATURE_CLIP)
            parts.append(beside)
        values = tf.concat(parts, axis=-1)
        if dropout_seed is not None and self.network.dropout:
            kept = 1.0 - self.network.dropout
            drawn = tf.random.stateless_uniform(tf.shape(values), dropout_seed)
            values = values * tf.cast(drawn < kept, values.dtype) / kept
        if self.network.dense:
            values = gelu(linear(values, named["hidden/kernel"], named["hidden/bias"]))
            if beside is not None:
                values = tf.concat([values, beside], axis=-1)
        return linear(values, named["output/kernel"], named["output/bias"])

    def _unpacked(self, weights: Tensor) -> dict[str, Tensor]:
        parts = tf.split(weights, [math.prod(shape) for shape in self.shapes.values()])
        return {
            name: tf.reshape(part, shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }
