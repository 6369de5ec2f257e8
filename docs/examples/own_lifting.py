"""A lifting of one's own: rows at Fibonacci delays, folded to 1D like those that are here."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from forecaster import Lagged, SampleSource, convolve, fold, load_prices


class Fibonacci:
    """Row r is the series delayed by the r-th of 0, 1, 2, 3, 5, 8, 13 ... sessions."""

    def __init__(self, rows: int) -> None:
        delays = [0, 1, 2]
        while len(delays) < rows:
            delays.append(delays[-1] + delays[-2])
        self.delays = tuple(delays[:rows])

    @property
    def history(self) -> int:
        """Sessions needed before the window."""
        return self.delays[-1]

    def shape(self, lookback: int) -> tuple[int, int]:
        """Rows and columns of a lifted window."""
        return len(self.delays), lookback

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Delay of each row: what makes it fold, and run once over the whole series."""
        return self.delays

    def __call__(self, windows: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Lift ``(n, lookback + history, channels)`` to ``(n, rows, lookback, channels)``."""
        array = np.asarray(windows, dtype=np.float64)
        stop = array.shape[1]
        rows = [array[:, self.history - delay : stop - delay] for delay in self.delays]
        return np.stack(rows, axis=1)


lifting = Fibonacci(rows=6)
print("delays:", lifting.delays)
print("a lifted window of 4 sessions:")
print(lifting(np.arange(12.0).reshape(1, 12, 1))[0, :, :, 0].astype(int))

# The 2D kernel on the lifted series, and what it is in one dimension.
closes = load_prices(SampleSource(("SP500",)), (), 400).frames["SP500"]["close"]
returns = np.diff(np.log(closes.to_numpy(dtype=np.float64)))
kernel = np.random.default_rng(0).standard_normal((6, 3))
image = convolve(returns, kernel, lifting, mode="valid", convention="correlation")
(folded,) = fold(kernel, lifting, lookback=len(returns), mode="valid").kernels
print(f"a 2D kernel of {kernel.size} weights is, in 1D, one of {len(folded.offsets)} taps")

flat = np.correlate(returns, folded.dense()[:, 0, 0], mode="valid")
print("the same numbers:", np.allclose(image[0, -len(flat) :], flat, rtol=0, atol=1e-12))

# The same as a setting of one that is here: look before writing your own.
same = convolve(returns, kernel, Lagged(lags=lifting.delays), mode="valid", convention="correlation")
print("equal to Lagged(lags=delays):", np.array_equal(image, same))
