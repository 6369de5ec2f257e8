"""Settings of where prices come from."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from forecaster.job.base import Spec, Symbol

if TYPE_CHECKING:
    from forecaster.prices.base import Source

__all__ = ["FilesPrices", "PricesSpec", "SamplePrices"]


class SamplePrices(Spec):
    """Real prices that come with the installed packages."""

    kind: Literal["sample"]
    symbols: tuple[Symbol, ...] = Field(("SP500", "NASDAQ", "WTI"), min_length=1)
    """SP500, NASDAQ and WTI (from `arch`); with the extra `samples`, 20 US stocks (from `skfolio`)."""

    def build(self, folder: Path, as_of: date | None = None) -> Source:
        """Make the source, as it was on an evening; the folder of the job file is not needed."""
        from forecaster.prices.samples import SampleSource

        return SampleSource(self.symbols, as_of)


class FilesPrices(Spec):
    """Prices from CSV or Parquet: symbol, session, open, high, low, close, volume[, dividend, split]."""

    kind: Literal["files"]
    path: str | tuple[str, ...] = Field(min_length=1)
    """A file, a folder, a glob, or several; relative to the folder of the job file."""
    symbols: tuple[Symbol, ...] = ()
    """Symbols to use; all that the files hold where none is given."""

    def build(self, folder: Path, as_of: date | None = None) -> Source:
        """Make the source, as it was on an evening."""
        from forecaster.prices.files import FilesSource

        paths = (self.path,) if isinstance(self.path, str) else self.path
        # A path from `~` is absolute once the source has expanded it.
        placed = (path if path.startswith("~") else str(folder / path) for path in paths)
        return FilesSource(tuple(placed), self.symbols, as_of)


PricesSpec = Annotated[SamplePrices | FilesPrices, Field(discriminator="kind")]
