"""Slow, obvious reference implementations that the tests compare the fast code with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def tensorflow_padding(size: int, length: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
    """Cells that TensorFlow pads before and after one axis: all it needs for ceil(size / stride) outputs."""
    extent = (length - 1) * dilation + 1
    if padding == "valid":
        return 0, 0
    if padding == "full":
        return extent - 1, extent - 1
    outputs = -(-size // stride)
    total = max((outputs - 1) * stride + extent - size, 0)
    return total // 2, total - total // 2


def correlate_windows(
    lifted: npt.ArrayLike,
    kernel: npt.ArrayLike,
    bias: npt.ArrayLike | None = None,
    padding: str | tuple[str, str] = "valid",
    strides: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    boundary: str = "fill",
    fill_value: float = 0.0,
) -> Float64:
    """What a Keras ``Conv2D`` computes, in float64: correlation with TensorFlow's padding.

    ``lifted`` is (n, rows, columns, channels), ``kernel`` (height, width, channels, filters), the answer
    (n, output rows, output columns, filters). Beyond Keras: padding ``full``, a padding for rows and one for
    columns, and boundaries other than zeros.
    """
    images = np.asarray(lifted, dtype=np.float64)
    weights = np.asarray(kernel, dtype=np.float64)
    height, width, _, filters = weights.shape
    pads = (padding, padding) if isinstance(padding, str) else padding
    rows = tensorflow_padding(images.shape[1], height, strides[0], dilation[0], pads[0])
    columns = tensorflow_padding(images.shape[2], width, strides[1], dilation[1], pads[1])
    around = [(0, 0), rows, columns, (0, 0)]
    if boundary == "fill":
        padded = np.pad(images, around, constant_values=fill_value)
    else:
        padded = np.pad(images, around, mode="wrap" if boundary == "wrap" else "symmetric")
    out_rows = (padded.shape[1] - (height - 1) * dilation[0] - 1) // strides[0] + 1
    out_columns = (padded.shape[2] - (width - 1) * dilation[1] - 1) // strides[1] + 1
    result = np.zeros((len(images), out_rows, out_columns, filters))
    for i in range(out_rows):
        for j in range(out_columns):
            for a in range(height):
                for b in range(width):
                    cell = padded[:, i * strides[0] + a * dilation[0], j * strides[1] + b * dilation[1]]
                    result[:, i, j] += cell @ weights[a, b]
    return result if bias is None else result + np.asarray(bias, dtype=np.float64)
