"""Load and check the prices of a job, and lay them out as a panel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from forecaster.errors import DataError
from forecaster.job import Job
from forecaster.prices.base import Finding, LoadedPrices, Source, content_hash, load_prices
from forecaster.windows import Panel

STOPPED_AFTER = 10
"""Sessions of the others after which a series counts as stopped."""

__all__ = ["JobData", "load_data", "recent_prices", "without"]


@dataclass(frozen=True, eq=False)
class JobData:
    """The prices that a job works on.

    Parameters
    ----------
    panel : Panel
        The usable series.
    prices : LoadedPrices
        Checked prices, findings and failures.
    data_version : str
        SHA-256 of the usable prices.
    """

    panel: Panel
    prices: LoadedPrices
    data_version: str

    @property
    def coverage(self) -> float:
        """Share of the symbols that can be used."""
        return len(self.prices.frames) / (len(self.prices.frames) + len(self.prices.failures))


def load_data(job: Job, folder: Path, minimum_sessions: int, as_of: date | None = None) -> JobData:
    """Load and check the prices of a job.

    Parameters
    ----------
    job : Job
    folder : Path
        Folder of the job file, which paths in it are relative to.
    minimum_sessions : int
        Sessions with a close that each symbol needs.
    as_of : date, optional
        Forget every session after it, as if it were that evening.

    Raises
    ------
    DataError
        If the source, or every symbol of it, cannot be used.
    """
    source: Source = job.source(folder, as_of)
    prices = load_prices(source, (), minimum_sessions)
    if not prices.frames:
        raise _nothing_usable(prices.failures)
    panel = Panel.from_prices(prices.frames, job.returns)
    known = replace(prices, findings=prices.findings + _stopped(panel))
    return JobData(panel, known, content_hash(prices.frames))


def _stopped(panel: Panel) -> tuple[Finding, ...]:
    """Find series that end well before the others: a forecast from their last session is an old one."""
    findings = []
    for symbol, row in zip(panel.symbols, panel.last_rows(), strict=True):
        last = panel.sessions[row]
        behind = int((panel.calendar > last).sum())
        if behind > STOPPED_AFTER:
            message = f"its last session is {last}, {behind} sessions before the last of the others"
            findings.append(
                Finding(symbol, "stopped", "warning", behind, date.fromisoformat(str(last)), message, "kept")
            )
    return tuple(findings)


def _nothing_usable(failures: dict[str, str]) -> DataError:
    reasons = "; ".join(f"{symbol}: {reason}" for symbol, reason in failures.items())
    return DataError(f"no symbol can be used: {reasons}")


def without(data: JobData, failures: dict[str, str]) -> JobData:
    """Leave further symbols out, by name and with the reason."""
    if not failures:
        return data
    frames = {symbol: frame for symbol, frame in data.prices.frames.items() if symbol not in failures}
    if not frames:
        raise _nothing_usable(failures)
    prices = LoadedPrices(frames, data.prices.findings, data.prices.failures | failures)
    return JobData(data.panel.select(tuple(frames)), prices, content_hash(frames))


def recent_prices(panel: Panel, sessions: int) -> pd.DataFrame:
    """Last closes of each symbol: ``symbol, session, close``."""
    rows = np.concatenate(
        [np.arange(max(part.start, part.stop - sessions), part.stop) for part in panel.parts]
    )
    return pd.DataFrame(
        {
            "symbol": np.array(panel.symbols, dtype=object)[panel.series[rows]],
            "session": panel.sessions[rows].astype("datetime64[ms]"),
            "close": panel.closes[rows],
        }
    )
