"""The panel of all series, and windows into it: which sessions an origin may use and what it forecasts."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster import features
from forecaster.errors import ParameterError
from forecaster.returns import forward_returns, log_returns

__all__ = ["Panel", "Windows"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Sessions = NDArray[np.datetime64]


@dataclass(frozen=True, eq=False)
class Panel:
    """All series end to end, like the data and the row pointer of a sparse matrix.

    Parameters
    ----------
    symbols : tuple of str
        One name a series.
    offsets : ndarray of shape (n_series + 1,)
        Series i occupies the rows ``offsets[i]`` to ``offsets[i + 1]``.
    sessions : ndarray of shape (total,), datetime64[D]
        Session of each row, increasing within a series.
    closes : ndarray of shape (total,)
        Close of the session, as given.
    returns : ndarray of shape (total,)
        Log return of the session, without NaN: a series starts at its second price.
    """

    symbols: tuple[str, ...]
    offsets: Rows
    sessions: Sessions
    closes: Array
    returns: Array

    @classmethod
    def from_prices(
        cls, prices: Mapping[str, pd.DataFrame], returns: Literal["total", "price"] = "total"
    ) -> Panel:
        """Build the panel from checked prices.

        Parameters
        ----------
        prices : mapping of str to DataFrame
            Checked prices of each symbol, indexed by session, as `forecaster.prices.base.load_prices` gives
            them.
        returns : {"total", "price"}
            Whether dividends count as part of the return.
        """
        if not prices:
            raise ParameterError("a panel holds at least one series. Received: none")
        symbols = tuple(sorted(prices))
        blocks = []
        for symbol in symbols:
            frame = prices[symbol]
            series = log_returns(frame, kind=returns)
            sessions = frame.index.to_numpy().astype("datetime64[D]")
            blocks.append((sessions[1:], frame["close"].to_numpy(dtype=np.float64)[1:], series[1:]))
        offsets = np.concatenate([[0], np.cumsum([len(block[0]) for block in blocks])]).astype(np.int64)
        sessions, closes, values = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
        return cls(symbols, offsets, sessions, closes, values)

    def __len__(self) -> int:
        return len(self.sessions)

    @cached_property
    def series(self) -> Rows:
        """Number of the series that each row belongs to, shape (total,)."""
        return np.repeat(np.arange(len(self.symbols)), np.diff(self.offsets))

    @cached_property
    def positions(self) -> Rows:
        """Position of each row within its series, shape (total,)."""
        return np.arange(len(self)) - self.offsets[self.series]

    @cached_property
    def calendar(self) -> Sessions:
        """Every session on which at least one series has a price, in order."""
        return np.unique(self.sessions)

    @cached_property
    def volatility(self) -> Array:
        """EWMA volatility of each row, shape (total,)."""
        return np.concatenate([features.ewma_volatility(self.returns[part]) for part in self.parts])

    @cached_property
    def channels(self) -> NDArray[np.float32]:
        """Channels that a network sees, shape (total, len(CHANNELS)), float32."""
        parts = [features.channels(self.returns[part], self.volatility[part]) for part in self.parts]
        return np.concatenate(parts)

    @cached_property
    def har_features(self) -> NDArray[np.float32]:
        """HAR features of each row, shape (total, len(HAR_FEATURES)), float32."""
        parts = [features.har_features(self.returns[part], self.volatility[part]) for part in self.parts]
        return np.concatenate(parts)

    @property
    def parts(self) -> list[slice]:
        """Rows of each series."""
        return [slice(*bounds) for bounds in zip(self.offsets[:-1], self.offsets[1:], strict=True)]

    def select(self, symbols: Collection[str]) -> Panel:
        """Keep some of the series."""
        chosen = [number for number, symbol in enumerate(self.symbols) if symbol in symbols]
        keep = np.isin(self.series, chosen)
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[chosen])]).astype(np.int64)
        names = tuple(self.symbols[number] for number in chosen)
        return Panel(names, offsets, self.sessions[keep], self.closes[keep], self.returns[keep])

    def last_rows(self) -> Rows:
        """Row of the last session of each series."""
        return self.offsets[1:] - 1


@dataclass(frozen=True, eq=False)
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

    @property
    def series(self) -> Rows:
        """Number of the series of each origin, shape (n_origins,)."""
        return self.panel.series[self.rows]

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
        order = self.series
        for number in np.unique(order):
            part = self.panel.parts[number]
            mine = order == number
            forward = forward_returns(self.panel.returns[part], self.horizons)
            result[mine] = forward[self.rows[mine] - part.start]
        return result

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
        self._require_history(length)
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
        self._require_history(length)
        view = np.lib.stride_tricks.sliding_window_view(self.panel.channels[:, 0], length)
        first = self.rows - length + 1
        if not len(first) or not (np.diff(first) == 1).all():
            gathered = view[first]
            gathered.flags.writeable = False
            return gathered
        return view[first[0] : first[-1] + 1]

    def _require_history(self, length: int) -> None:
        short = self.panel.positions[self.rows] < length - 1
        if short.any():
            raise ParameterError(
                f"every origin needs {length} sessions up to it. Received: {int(short.sum())} origins with "
                f"fewer, the first at {self.sessions[short][0]} of {self.symbols[short][0]}; start later or "
                "look back less"
            )

    def take(self, selection: NDArray[np.bool_] | Rows) -> Windows:
        """Keep the selected origins, by a mask or by positions."""
        return replace(self, rows=self.rows[selection])
