"""The choice of how to compute a kernel stack; no TensorFlow."""

from __future__ import annotations

from forecaster.models.convolution.geometry import Strategy, history_of

__all__ = ["Strategy", "history_of"]
