"""Settings of where prices come from."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, PositiveInt

from forecaster.job.base import Line, Spec, Symbols

if TYPE_CHECKING:
    from forecaster.calendars import Calendars
    from forecaster.prices.base import Source
    from forecaster.prices.yahoo import YahooSource

__all__ = ["FilesPrices", "PricesSpec", "SamplePrices", "YahooPrices"]


class SamplePrices(Spec):
    """Real prices that come with the installed packages."""

    tolerance: ClassVar[float] = 0.0
    """Relative difference up to which a number fetched again counts as unchanged."""

    kind: Literal["sample"]
    symbols: Symbols = Field(("SP500", "NASDAQ", "WTI"), min_length=1)
    """SP500, NASDAQ and WTI (from `arch`); with the extra `samples`, 20 US stocks (from `skfolio`)."""

    def build(self, folder: Path, as_of: date | None = None) -> Source:
        """Make the source, as it was on an evening; the folder of the job file is not needed."""
        from forecaster.prices.samples import SampleSource

        return SampleSource(self.symbols, as_of)


class FilesPrices(Spec):
    """Prices from CSV or Parquet: symbol, session, open, high, low, close, volume[, dividend, split]."""

    tolerance: ClassVar[float] = 0.0

    kind: Literal["files"]
    path: Line | tuple[Line, ...] = Field(min_length=1)
    """A file, a folder, a glob, or several; relative to the folder of the job file."""
    symbols: Symbols = ()
    """Symbols to use; where none is given, all that the files hold, or the job's store if it has one."""

    def build(self, folder: Path, as_of: date | None = None) -> Source:
        """Make the source, as it was on an evening."""
        from forecaster.prices.files import FilesSource

        paths = (self.path,) if isinstance(self.path, str) else self.path
        # A path from `~` is absolute once the source has expanded it.
        placed = (path if path.startswith("~") else str(folder / path) for path in paths)
        return FilesSource(tuple(placed), self.symbols, as_of)


class YahooPrices(Spec):
    """Daily prices from Yahoo, fetched into the price store by `forecaster ingest` and read from there."""

    tolerance: ClassVar[float] = 1e-6
    """Yahoo gives prices in single precision, restated for every later split."""

    kind: Literal["yahoo"]
    symbols: Symbols = Field(min_length=1)
    """Symbols as Yahoo writes them: AAPL, 0700.HK, ^GSPC, CL=F, EURUSD=X, BTC-USD."""
    interval: float = Field(0.5, ge=0.0, le=60.0)
    """Seconds between two requests, over all processes with the same workspace."""
    attempts: PositiveInt = 5
    """How often one answer is asked for when Yahoo is busy or its answer is cut."""

    def build(self, calendars: Calendars, state: Path) -> YahooSource:
        """Make the source; processes with the same state folder share one rate limit."""
        from forecaster.prices.yahoo import Politeness, YahooSource

        politeness = Politeness(interval=self.interval, attempts=self.attempts)
        return YahooSource(self.symbols, calendars, politeness, state)


PricesSpec = Annotated[SamplePrices | FilesPrices | YahooPrices, Field(discriminator="kind")]
