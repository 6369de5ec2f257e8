"""The 2D kernel on a 1D series: reference operators, their exact folding to 1D, and what the taps mean.

``convolve`` lifts a bare series and applies a 2D kernel to it exactly as scipy does. ``fold`` gives the 1D
kernels that do the same on the series itself. With front padding pt and pl, strides sh and sw, dilations dh
and dw, for a lifting of lags ``lag_r`` over the sessions t-W+1 .. t::

    Y[i, j, f] = bias_f + sum over a in A_i, b in B_j and c of
                 K[a, b, c, f] * x_c[t-W+1 + j*sw + b*dw - pl - lag_{i*sh + a*dh - pt}]

A_i holds the kernel rows that fall on a lifted row, B_j the kernel columns that fall on a lifted column.
Wherever B_j is complete, output row i is therefore a 1D correlation with taps ``kappa_i[m]``, the sum of the
K[a, b] whose ``b*dw - lag`` is m; at the edges the kernels are truncated (or reach back into the array, for
the boundary modes ``wrap`` and ``symm``).

Conventions
-----------
``convolution``
    ``scipy.signal.convolve2d``: the kernel is flipped. A stride subsamples the result.
``correlation``
    ``scipy.signal.correlate2d``: the kernel is not flipped. A stride subsamples the result.
``tensorflow``
    As correlation, but mode ``same`` pads as TensorFlow and Keras do: just what the stride needs, the odd
    cell at the end. Equal to correlation at stride 1.
"""

from forecaster.kernels.folding import FoldedKernel, Folding, fold, full_height
from forecaster.kernels.operators import Boundary, Convention, Mode, Parallel, convolve
from forecaster.kernels.taps import frequency_response, lag_weights

__all__ = [
    "Boundary",
    "Convention",
    "FoldedKernel",
    "Folding",
    "Mode",
    "Parallel",
    "convolve",
    "fold",
    "frequency_response",
    "full_height",
    "lag_weights",
]
