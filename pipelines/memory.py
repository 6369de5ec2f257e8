"""How much memory an evening will take, before it begins."""

from __future__ import annotations

from forecaster.job import Job
from forecaster.models.convolution.inputs import BLOCK_ROWS
from pipelines.loading import BLOCK

__all__ = ["evening_memory", "explain_memory"]

SESSIONS = 7_500
"""Of thirty years; a symbol with less history takes less."""
LIBRARIES = 0.30
"""Gibibytes of a process that reads and checks prices, before it has any."""
NETWORK_LIBRARIES = 0.75
"""Gibibytes of a process that forecasts by a network, before it has any prices."""
CELLS = 8 * 8
"""Bytes of a stored row: seven numbers and the session."""
COPIES = 3
"""Of the rows of a block: as they are stored, put in order, and checked."""
MAPPED = 2 * 8
"""Bytes of a row of the panel that market and cross-section look at: return and session."""
NETWORK = 2 * 4 * (9 + 23) + 8 * 12
"""Bytes of a row of which a network forecasts: channels and features, here and on the device, and what makes
them."""


def evening_memory(symbols: int, sessions: int = SESSIONS, workers: int = 1) -> float:
    """State the peak of an evening: prices from the store, forecasts by a network, all of them issued.

    Parameters
    ----------
    symbols, sessions : int
        Of the store.
    workers : int
        Of a ``loky`` engine.

    Returns
    -------
    float
        Gibibytes, of all processes together, what they share counted once.
    """
    rows, unit = symbols * sessions, 2.0**30
    block = min(symbols, BLOCK) * sessions * CELLS * COPIES / unit
    panel = rows * MAPPED / unit
    if symbols <= BLOCK:
        # In memory, with the prices that it is made of.
        panel += rows * (CELLS + MAPPED) / unit
        loading = LIBRARIES + block + panel
    else:
        away = workers if workers > 1 else 0
        loading = LIBRARIES + max(away, 1) * block + away * LIBRARIES
    forecasting = NETWORK_LIBRARIES + panel + min(rows, BLOCK_ROWS) * NETWORK / unit
    return max(loading, forecasting)


def explain_memory(job: Job) -> str:
    """State the peak of an evening of a job, or of some sizes where its symbols are not named."""
    named = len(job.prices.symbols)
    counts = (named,) if named else (100, 1_000, 10_000)
    workers = job.engine.workers if job.engine.kind == "loky" else 1
    stated = ", ".join(
        f"{evening_memory(count, workers=workers):.1f} GiB for {count:,} symbols" for count in counts
    )
    return (
        "memory of an evening at its peak, from a store with thirty years of prices to the forecasts of a "
        f"network: {stated}"
    )
