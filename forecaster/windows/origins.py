"""Windows into a panel: what an origin may see, and what comes after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from forecaster import volatility
from forecaster.errors import ParameterError
from forecaster.returns import forward_returns
from forecaster.windows.panel import Panel, some

__all__ = ["Windows"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Sessions = NDArray[np.datetime64]


@dataclass(frozen=True, eq=False, repr=False)
class Windows:
    """Origins in a panel: each row is an index into it, never a copy of prices.

    Parameters
    ----------
    panel : Panel
        All series. A model may use, for an origin, the rows of the origin's series up to it and the rows of
        other series with sessions up to it, and nothing else.
    rows : ndarray of shape (n_origins,)
        Flat rows of the origins in the panel.
    horizons : tuple of int
        Horizons in sessions of the series.
    """

    panel: Panel
    rows: Rows
    horizons: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        span = f", {self.sessions.min()} to {self.sessions.max()}" if len(self) else ""
        horizons = ", ".join(map(str, self.horizons))
        return f"Windows({len(self):,} origins of {some(self.panel.symbols)}{span}; horizons {horizons})"

    @property
    def series(self) -> Rows:
        """Number of the series of each origin, shape (n_origins,)."""
        return self.panel.series_of(self.rows)

    @property
    def symbols(self) -> NDArray[np.str_]:
        """Symbol of each origin, shape (n_origins,)."""
        return np.array(self.panel.symbols)[self.series]

    @property
    def sessions(self) -> Sessions:
        """Session of each origin, shape (n_origins,)."""
        return self.panel.sessions[self.rows]

    @property
    def volatility(self) -> Array:
        """EWMA volatility at each origin, shape (n_origins,)."""
        return self.panel.volatility[self.rows]

    @cached_property
    def targets(self) -> Array:
        """Cumulative log return over each horizon, shape (n_origins, n_horizons); NaN while unknown."""
        result = np.empty((len(self.rows), len(self.horizons)))
        for part, mine in self.by_series():
            rows = self.rows[mine]
            # No more of a series than its origins look at: of an evening that is one of thousands.
            first, stop = int(rows.min()), min(int(rows.max()) + max(self.horizons) + 1, part.stop)
            forward = forward_returns(self.panel.returns[first:stop], self.horizons)
            result[mine] = forward[rows - first]
        return result

    @cached_property
    def realised_variance(self) -> Array:
        """Sum of the daily variances over each horizon, shape (n_origins, n_horizons); NaN while unknown."""
        result = np.empty((len(self.rows), len(self.horizons)))
        variances = self.panel.variances
        for part, mine in self.by_series():
            sums = volatility.realised_variance(variances[part], self.horizons)
            result[mine] = sums[self.rows[mine] - part.start]
        return result

    @property
    def pooled(self) -> Windows:
        """The origins that models of all series together learn from: those of `Panel.pooled`, in this order.

        What is estimated series by series is estimated from all.
        """
        panel = self.panel.pooled
        if panel is self.panel:
            return self
        number = {symbol: place for place, symbol in enumerate(panel.symbols)}
        place = np.array([number.get(symbol, -1) for symbol in self.panel.symbols], dtype=np.int64)
        series = self.series
        mine = place[series] >= 0
        series = series[mine]
        moved = self.rows[mine] - self.panel.offsets[series] + panel.offsets[place[series]]
        return Windows(panel, moved, self.horizons)

    def by_series(self) -> Iterator[tuple[slice, Rows]]:
        """Go through the series that have origins here.

        Yields
        ------
        part : slice
            Rows of the series in the panel.
        mine : ndarray of int
            Positions of its origins among those of the windows, in the order in which they stand there.
        """
        series = self.series
        order = np.argsort(series, kind="stable")
        bounds = np.searchsorted(series[order], np.arange(len(self.panel.symbols) + 1))
        for part, start, stop in zip(self.panel.parts, bounds[:-1], bounds[1:], strict=True):
            if stop > start:
                yield part, order[start:stop]

    def blocks(self, size: int) -> Iterator[tuple[Rows, Windows]]:
        """Divide the origins by series, so that what is computed for whole series is bounded.

        Parameters
        ----------
        size : int
            Rows of the panel that the series of a block have together; one series may have more.

        Yields
        ------
        mine : ndarray of int
            Positions of the origins among those of the windows.
        windows : Windows
            These origins, on a panel of the series of the block: views.
        """
        if len(self.panel) <= size:
            yield np.arange(len(self)), self
            return
        offsets, series = self.panel.offsets, self.series
        order = np.argsort(series, kind="stable")
        series = series[order]
        first = 0
        while first < len(offsets) - 1:
            stop = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
            stop = max(stop, first + 1)
            low, high = np.searchsorted(series, [first, stop])
            mine = order[low:high]
            if len(mine):
                panel = self.panel.between(first, stop)
                yield mine, Windows(panel, self.rows[mine] - offsets[first], self.horizons)
            first = stop

    @property
    def scales(self) -> Array:
        """EWMA volatility scaled to each horizon by its square root, shape (n_origins, n_horizons)."""
        scales: Array = self.volatility[:, None] * np.sqrt(np.array(self.horizons, dtype=float))
        return scales

    def sequences(self, length: int) -> NDArray[np.float32]:
        """Channels of the ``length`` sessions up to and including each origin.

        Parameters
        ----------
        length : int
            Sessions a window; every origin must have so many.

        Returns
        -------
        ndarray of shape (n_origins, length, n_channels), float32
            Gathered from a strided view of the panel; the newest session is last.
        """
        self.require_history(length)
        view = np.lib.stride_tricks.sliding_window_view(self.panel.channels, length, axis=0)
        return view[self.rows - length + 1].transpose(0, 2, 1)

    def lags(self, length: int) -> NDArray[np.float32]:
        """Scaled returns of the ``length`` sessions up to and including each origin, as regressors.

        Parameters
        ----------
        length : int
            Sessions a row; every origin must have so many.

        Returns
        -------
        ndarray of shape (n_origins, length), float32
            Column j is the return ``length - 1 - j`` sessions before the origin over the EWMA volatility of
            its own day. Read only: where the origins follow each other, as those of one series do, it is a
            strided view of the panel, of no size of its own; else it is gathered, once.
        """
        self.require_history(length)
        view = np.lib.stride_tricks.sliding_window_view(self.panel.channels[:, 0], length)
        first = self.rows - length + 1
        if not len(first) or not (np.diff(first) == 1).all():
            gathered = view[first]
            gathered.flags.writeable = False
            return gathered
        return view[first[0] : first[-1] + 1]

    def require_history(self, length: int) -> None:
        """Refuse origins that have fewer than ``length`` sessions up to them, with a `ParameterError`."""
        short = self.rows - self.panel.offsets[self.series] < length - 1
        if short.any():
            raise ParameterError(
                f"every origin needs {length} sessions up to it. Received: {int(short.sum())} origins with "
                f"fewer, the first at {self.sessions[short][0]} of {self.symbols[short][0]}; start later or "
                "look back less"
            )

    def take(self, selection: NDArray[np.bool_] | Rows) -> Windows:
        """Keep the selected origins, by a mask or by positions."""
        return replace(self, rows=self.rows[selection])
