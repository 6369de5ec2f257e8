"""The panel: all series end to end, made from prices, held in memory or mapped from a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from forecaster import features, volatility
from forecaster.errors import ParameterError
from forecaster.returns import log_returns
from forecaster.windows.covariates import Covariate, Transform, covariate_of, seconds_of

__all__ = ["Panel", "PanelWriter", "Universe", "some"]

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
Sessions = NDArray[np.datetime64]

_OF_COVARIATES = ("closings", "values")
_ARRAYS = ("sessions", "closes", "returns", "closings", "range_variances")

NAMED = 3
"""Symbols that are named where a panel is shown."""


def some(symbols: tuple[str, ...]) -> str:
    """Name the first symbols, and count the others."""
    others = f" and {len(symbols) - NAMED} others" if len(symbols) > NAMED else ""
    return f"{', '.join(symbols[:NAMED])}{others}"


@dataclass(frozen=True)
class Universe:
    """The symbols that every forecast may look at, whichever are forecast: fixed, and recorded by a model.

    Parameters
    ----------
    members : tuple of str
        Symbols whose returns make the cross-section and, where no index is named, the market.
    market : str, optional
        The symbol that is the market: an index, which is not forecast itself.
    """

    members: tuple[str, ...] = ()
    market: str | None = None


@dataclass(frozen=True, eq=False, repr=False)
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
    closings : ndarray of shape (total,), datetime64[s], optional
        When each session closed, in UTC. Without it the sessions of one date are taken to close together.
    universe : Universe
        What makes the market and the cross-section.
    reference : Panel, optional
        Every series at hand, the market's and those that `select` left out included; itself where not given.
    range_variances : ndarray of shape (total,), optional
        Variance of each session from the range of its prices, where that is what is forecast.
    covariates : mapping of str to Covariate
        What models see beside the series, by name; not forecast.
    one_close : bool
        Whether the members of the universe always close together, where closings are known at all.
    learn_from : int
        Series that models of all series together learn from; 0 for all of them. See `Windows.pooled`.
    """

    symbols: tuple[str, ...]
    offsets: Rows
    sessions: Sessions
    closes: Array
    returns: Array
    closings: Sessions | None = None
    universe: Universe = Universe()
    reference: Panel | None = None
    range_variances: Array | None = None
    covariates: Mapping[str, Covariate] = field(default_factory=dict)
    one_close: bool = False
    learn_from: int = 0

    @classmethod
    def from_prices(
        cls,
        prices: Mapping[str, pd.DataFrame],
        returns: Literal["total", "price"] = "total",
        market: str | None = None,
        closings: Mapping[str, Sessions] | None = None,
        variance: Literal["returns", "range"] = "returns",
        covariates: Mapping[str, Transform] | None = None,
        one_close: bool = False,
        portfolios: Collection[str] = (),
    ) -> Panel:
        """Build the panel from checked prices.

        Parameters
        ----------
        prices : mapping of str to DataFrame
            Checked prices of each symbol, indexed by session, as `forecaster.prices.base.load_prices` gives
            them.
        returns : {"total", "price"}
            Whether dividends count as part of the return.
        market : str, optional
            The symbol that is the market. Its series is looked at and not forecast.
        closings : mapping of str to ndarray of datetime64, optional
            For symbols of several exchanges: when each session of the prices closed, in UTC. Without it a
            session of one symbol is taken to be over when the session of the same date of any other is.
        variance : {"returns", "range"}
            What a session's variance is: its squared return, or `forecaster.volatility.daily_variance`, and
            the squared return on a session without open, high or low.
        covariates : mapping of str to {"return", "level", "difference"}, optional
            Symbols that are looked at and not forecast, and what is looked at of each. Their closes need not
            be positive, unless it is the return. The market may be one of them.
        one_close : bool
            Whether all symbols but the covariates follow one calendar, so that they close together.
        portfolios : collection of str
            Symbols that are forecast and no part of the market and the cross-section, as their members are.

        Raises
        ------
        ParameterError
            If there is no series besides the market's and the covariates, one of these is not among the
            prices, the closings do not go with the prices, or the range is asked for and a symbol has none.
        """
        covariates = covariates or {}
        for what, symbol in [("the market", market), *(("a covariate", name) for name in covariates)]:
            if symbol is not None and symbol not in prices:
                raise ParameterError(
                    f"{what} is one of the symbols that have prices. Received: {symbol!r}, which has none"
                )
        if not set(prices) - {market, *covariates}:
            beside = ", ".join(filter(None, [market, *covariates]))
            raise ParameterError(f"a panel holds at least one series. Received: {beside or 'none'}")
        if closings is not None:
            _require_closings(prices, closings)
        symbols = tuple(sorted(symbol for symbol in prices if symbol == market or symbol not in covariates))
        blocks = []
        for symbol in symbols:
            frame = prices[symbol]
            series = log_returns(frame, kind=returns)
            sessions = frame.index.to_numpy().astype("datetime64[D]")
            blocks.append((sessions[1:], frame["close"].to_numpy(dtype=np.float64)[1:], series[1:]))
        offsets = np.concatenate([[0], np.cumsum([len(block[0]) for block in blocks])]).astype(np.int64)
        days, closes, values = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
        closed = None
        if closings is not None:
            closed = np.concatenate([seconds_of(closings[symbol])[1:] for symbol in symbols])
        forecast = tuple(symbol for symbol in symbols if symbol != market)
        members = tuple(symbol for symbol in forecast if symbol not in portfolios)
        every = cls(symbols, offsets, days, closes, values, closed, Universe(members, market))
        seen = {
            symbol: covariate_of(symbol, prices[symbol], transform, returns, closings)
            for symbol, transform in sorted(covariates.items())
        }
        every = replace(every, covariates=seen, one_close=one_close)
        if variance == "range":
            every = replace(every, range_variances=_range_variances(every, prices))
        return every if market is None else every.select(forecast)

    def __len__(self) -> int:
        return len(self.sessions)

    def __repr__(self) -> str:
        span = f", {self.sessions.min()} to {self.sessions.max()}" if len(self) else ""
        return f"Panel({some(self.symbols)}: {len(self):,} rows{span})"

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
        if not len(self.sessions):
            return np.unique(self.sessions)
        # Days are few: marking them off takes no sort of all rows, and no copy of them.
        days = self.sessions.view(np.int64)
        first = days.min()
        held = np.zeros(int(days.max() - first) + 1, dtype=bool)
        for part in self.parts:
            held[days[part] - first] = True
        marked: Sessions = (np.flatnonzero(held) + first).astype("datetime64[D]")
        return marked

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

    @cached_property
    def parts(self) -> list[slice]:
        """Rows of each series."""
        return [slice(*bounds) for bounds in zip(self.offsets[:-1], self.offsets[1:], strict=True)]

    def series_of(self, rows: Rows | int) -> Rows:
        """Find the series that rows belong to, by number, without an array as long as the panel."""
        found: Rows = np.searchsorted(self.offsets, rows, side="right") - 1
        return found

    def between(self, first: int, stop: int) -> Panel:
        """Keep the series from one number to another, the latter left out: views, never copies."""
        part = slice(self.offsets[first], self.offsets[stop])
        return replace(
            self,
            symbols=self.symbols[first:stop],
            offsets=self.offsets[first : stop + 1] - self.offsets[first],
            sessions=self.sessions[part],
            closes=self.closes[part],
            returns=self.returns[part],
            closings=None if self.closings is None else self.closings[part],
            range_variances=None if self.range_variances is None else self.range_variances[part],
            reference=self.every,
        )

    def select(self, symbols: Collection[str]) -> Panel:
        """Keep some of the series; the others can still be looked at, as the market or its members."""
        wanted = set(symbols)
        chosen = [number for number, symbol in enumerate(self.symbols) if symbol in wanted]
        if chosen and chosen[-1] - chosen[0] == len(chosen) - 1:
            return self.between(chosen[0], chosen[-1] + 1)
        offsets = np.concatenate([[0], np.cumsum(np.diff(self.offsets)[chosen])]).astype(np.int64)
        keep = np.isin(self.series, chosen)
        return replace(
            self,
            symbols=tuple(self.symbols[number] for number in chosen),
            offsets=offsets,
            sessions=self.sessions[keep],
            closes=self.closes[keep],
            returns=self.returns[keep],
            closings=None if self.closings is None else self.closings[keep],
            range_variances=None if self.range_variances is None else self.range_variances[keep],
            reference=self.every,
        )

    @cached_property
    def pooled(self) -> Panel:
        """The series that models of all series together learn from; the same object every time.

        They are drawn by a hash of their symbols, so that neither prices nor the order of the symbols have a
        say, and one that comes or goes moves at most one other.
        """
        if not 0 < self.learn_from < len(self.symbols):
            return self
        drawn = sorted(self.symbols, key=lambda symbol: hashlib.blake2b(symbol.encode()).digest())
        return self.select(drawn[: self.learn_from])

    def save(self, folder: Path) -> None:
        """Write the panel, and every series that can be looked at, into an existing, empty folder."""
        writer = PanelWriter(folder)
        writer.add(self.every)
        writer.see(self.every.covariates, self.every.one_close)
        writer.finish(self.universe, None if self.reference is None else self.symbols, self.learn_from)

    @classmethod
    def open(cls, folder: Path) -> Panel:
        """Map what `save` wrote into memory: processes of one machine share it, and read what they use."""
        about = json.loads((folder / "panel.json").read_text(encoding="utf-8"))
        arrays: dict[str, Any] = {}
        for name, kind in about["arrays"].items():
            path = folder / f"{name}.bin"
            size = path.stat().st_size
            arrays[name] = np.memmap(path, kind, "r").view(np.ndarray) if size else np.empty(0, kind)
        seen = {
            name: Covariate(*(np.load(folder / f"covariate_{number}_{of}.npy") for of in _OF_COVARIATES))
            for number, name in enumerate(about["covariates"])
        }
        universe = Universe(tuple(about["members"]), about["market"])
        offsets = np.array(about["offsets"], dtype=np.int64)
        every = cls(
            tuple(about["symbols"]),
            offsets,
            universe=universe,
            covariates=seen,
            one_close=about["one_close"],
            learn_from=about["learn_from"],
            **arrays,
        )
        return every if about["selected"] is None else every.select(about["selected"])

    def last_rows(self) -> Rows:
        """Row of the last session of each series."""
        return self.offsets[1:] - 1

    @property
    def variances(self) -> Array:
        """Variance of each session, shape (total,): from its range, or its squared return."""
        return np.square(self.returns) if self.range_variances is None else self.range_variances

    @cached_property
    def closed(self) -> Sessions:
        """When each session closed, shape (total,), datetime64[s]; its date where that is not known."""
        return self.sessions.astype("datetime64[s]") if self.closings is None else self.closings

    @property
    def every(self) -> Panel:
        """Every series at hand, the market's included."""
        return self.reference or self

    def missing(self, universe: Universe) -> tuple[str, ...]:
        """Symbols of a universe that have no series here."""
        asked = (*universe.members, universe.market) if universe.market else universe.members
        here = set(self.every.symbols)
        return tuple(symbol for symbol in asked if symbol not in here)

    def warn_of_missing(self, universe: Universe, without: str) -> None:
        """Warn of the symbols of a universe that have no series here, by name.

        Parameters
        ----------
        universe : Universe
        without : str
            What is made without them: "the market is", say.
        """
        missing = self.missing(universe)
        if missing:
            warnings.warn(
                f"{len(missing)} of the symbols that the model looks at have no prices here, and {without} "
                f"made without them: {', '.join(missing)}",
                stacklevel=3,
            )

    def covariate(self, symbol: str) -> Covariate:
        """Daily log returns of one of the series at hand."""
        every = self.every
        if symbol not in every.symbols:
            raise ParameterError(
                f"a covariate is one of the symbols that have prices. Received: {symbol!r}; there are "
                f"{', '.join(every.symbols)}"
            )
        part = every.parts[every.symbols.index(symbol)]
        return Covariate(every.closed[part], every.returns[part])

    def market(self, universe: Universe | None = None) -> Covariate:
        """Daily log returns of the market: the index, or the equal-weight mean of the members.

        Parameters
        ----------
        universe : Universe, optional
            The one that a model recorded; the panel's own where it is not given.

        Returns
        -------
        Covariate
            The mean of a date is over the members that traded on it; `missing` tells which have no series at
            all. It is known when they close, and where they close at different times, when the date is over
            in UTC: name an index as the market to look at the same day.
        """
        universe = universe or self.universe
        if universe.market in self.every.symbols:
            return self.covariate(str(universe.market))
        return self._mean_of("market", universe.members, lambda part: self.every.returns[part])

    def cross_section(self, universe: Universe | None = None) -> Covariate:
        """Mean over the members of the absolute return over its own expanding mean: about 1 in usual times.

        Parameters and result are those of `market`.
        """
        members = (universe or self.universe).members
        return self._mean_of(
            "cross_section", members, lambda part: features.relative_size(self.every.returns[part])
        )

    def cross_variance(self, universe: Universe | None = None) -> tuple[Covariate, Covariate]:
        """Means over the members of the log variance of the session, and of its log EWMA.

        Parameters and results are those of `market`.
        """
        members, every = (universe or self.universe).members, self.every
        return (
            self._mean_of("variance", members, lambda part: features.log_variance(every.variances[part])),
            self._mean_of(
                "ewma_variance", members, lambda part: features.log_ewma_variance(every.variances[part])
            ),
        )

    @cached_property
    def _means(self) -> dict[tuple[str, tuple[str, ...]], Covariate]:
        return {}

    def _mean_of(self, name: str, members: tuple[str, ...], values: Callable[[slice], Array]) -> Covariate:
        """Mean over the members of what ``values`` gives for the rows of each, made once."""
        every = self.every
        if (name, members) not in every._means:
            calendar = every.calendar
            total, count = np.zeros(len(calendar)), np.zeros(len(calendar))
            # Who else will trade on a date is not known at the first close of it, so that, unless all close
            # together, the end of the date is the first moment at which its mean is what it will always be.
            wait = np.timedelta64(0 if every.closings is None or every.one_close else 1, "D")
            known = (calendar + wait).astype("datetime64[s]")
            wanted = set(members)
            for symbol, part in zip(every.symbols, every.parts, strict=True):
                if symbol in wanted:
                    days = np.searchsorted(calendar, every.sessions[part])
                    total[days] += values(part)
                    count[days] += 1
                    if every.one_close:
                        known[days] = np.maximum(known[days], every.closed[part])
            traded = count > 0
            every._means[name, members] = Covariate(known[traded], total[traded] / count[traded])
        return every._means[name, members]


def _range_variances(panel: Panel, prices: Mapping[str, pd.DataFrame]) -> Array:
    """Lay the range variances of all series end to end; squared returns where a session has no range."""
    parts = []
    for symbol, part in zip(panel.symbols, panel.parts, strict=True):
        frame = prices[symbol]
        known = volatility.daily_variance(frame)[1:] if "open" in frame else np.full(1, np.nan)
        if np.isnan(known).all():
            raise ParameterError(
                "variance from the range needs open, high and low. Received: none for "
                f"{symbol}; take the variance of returns, or prices that have a range"
            )
        parts.append(np.where(np.isnan(known), np.square(panel.returns[part]), known))
    return np.concatenate(parts)


def _require_closings(prices: Mapping[str, pd.DataFrame], closings: Mapping[str, Sessions]) -> None:
    """Refuse closings that do not go with the prices."""
    for symbol in sorted(prices):
        closed = seconds_of(closings.get(symbol, np.array([], dtype="datetime64[s]")))
        if len(closed) != len(prices[symbol]) or (np.diff(closed) <= np.timedelta64(0)).any():
            raise ParameterError(
                "closings are one increasing time for each session that has a price. Received: "
                f"{len(closed)} times for {len(prices[symbol])} sessions of {symbol}"
            )


class PanelWriter:
    """Writes a panel a block of series at a time, for `Panel.open`: it may be larger than memory.

    Parameters
    ----------
    folder : Path
        Exists, and is empty.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._symbols: list[str] = []
        self._offsets = [0]
        self._arrays: dict[str, str] = {}
        self._covariates: list[str] = []
        self._one_close = False

    def add(self, panel: Panel) -> None:
        """Append the series of a panel, in its order."""
        arrays = {}
        for name in _ARRAYS:
            values = getattr(panel, name)
            if values is not None:
                arrays[name] = values.dtype.str
                with (self.folder / f"{name}.bin").open("ab") as file:
                    file.write(np.ascontiguousarray(values).view(np.uint8).data)
        self._grown(panel.symbols, panel.offsets.tolist(), arrays)

    def see(self, covariates: Mapping[str, Covariate], one_close: bool) -> None:
        """Say what models see beside the series, and whether these close together."""
        self._covariates, self._one_close = list(covariates), one_close
        for number, covariate in enumerate(covariates.values()):
            for of in _OF_COVARIATES:
                np.save(self.folder / f"covariate_{number}_{of}.npy", getattr(covariate, of))

    def take(self, folder: Path) -> None:
        """Append the series of a saved panel, whose files are removed."""
        about = json.loads((folder / "panel.json").read_text(encoding="utf-8"))
        for name in about["arrays"]:
            part = folder / f"{name}.bin"
            with part.open("rb") as source, (self.folder / f"{name}.bin").open("ab") as file:
                shutil.copyfileobj(source, file, 1 << 22)
            part.unlink()
        self._grown(about["symbols"], about["offsets"], about["arrays"])

    def _grown(self, symbols: Sequence[str], offsets: Sequence[int], arrays: dict[str, str]) -> None:
        self._symbols += symbols
        self._offsets += [offset + self._offsets[-1] for offset in offsets[1:]]
        self._arrays |= arrays

    def finish(self, universe: Universe, selected: Sequence[str] | None = None, learn_from: int = 0) -> None:
        """Say what makes market and cross-section, which series are forecast, and how many are learned from.

        All are, by default.
        """
        about = {
            "symbols": self._symbols,
            "offsets": self._offsets,
            "arrays": self._arrays,
            "selected": None if selected is None else list(selected),
            "members": universe.members,
            "market": universe.market,
            "covariates": self._covariates,
            "one_close": self._one_close,
            "learn_from": learn_from,
        }
        (self.folder / "panel.json").write_text(json.dumps(about), encoding="utf-8")
