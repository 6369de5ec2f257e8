"""Writers of the price store that tests run in processes of their own."""

from __future__ import annotations

import datetime
import os
import sys

import numpy as np
import pandas as pd

from forecaster.errors import SourceError
from forecaster.prices.base import price_table
from forecaster.prices.store import Fetch, PriceStore

SESSIONS = pd.bdate_range("2023-01-02", periods=40, unit="s", name="session")
FETCHED = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)


def symbol(number: int) -> str:
    return f"S{number:03d}"


def history(number: int, edition: int) -> Fetch:
    """Prices of one symbol. The second edition restates a session, drops one, adds one and holds one back."""
    random = np.random.default_rng(number)
    close = np.round(100 * np.exp(np.cumsum(random.normal(0, 0.02, len(SESSIONS)))), 2)
    prices = price_table(pd.DataFrame({"close": close, "volume": 1000.0}, index=SESSIONS))
    window = (SESSIONS[0].date(), SESSIONS[-1].date())
    if edition == 1:
        return Fetch(prices.iloc[:-1], window, full=True)
    prices.iloc[number % 30, 3] += 1
    held = {SESSIONS[31].date(): "jump-without-action"}
    return Fetch(prices.drop(SESSIONS[30 + number % 2 * 5]), window, held)


def ingest(url: str, numbers: list[int], edition: int, batch: int, source: str = "test") -> None:
    """Write some symbols, a batch at a time."""
    store = PriceStore(url)
    for first in range(0, len(numbers), batch):
        fetches = {symbol(number): history(number, edition) for number in numbers[first : first + batch]}
        store.write(fetches, fetched_at=FETCHED + datetime.timedelta(days=edition), source=source)


def ingest_own_session(url: str, numbers: list[int], place: int) -> None:
    """Write, one symbol at a time, the second edition and a session that only this process has."""
    store = PriceStore(url)
    own = price_table(pd.DataFrame({"close": [float(place)]}, index=[pd.Timestamp(2024, 1, 1 + place)]))
    for number in numbers:
        for day, fetch in ((2, history(number, 2)), (3, Fetch(own))):
            fetched_at = FETCHED + datetime.timedelta(days=day)
            store.write({symbol(number): fetch}, fetched_at=fetched_at, source=f"process {place}")


def main() -> None:
    """Read a store that may not be written, and try to write it."""
    import tenacity  # noqa: F401  # while the Python of root may still be read

    if os.getuid() == 0:
        os.setuid(65534)
    store = PriceStore(sys.argv[1])
    print(list(store.read().frames))
    try:
        store.write({"A": history(1, 1)}, fetched_at=FETCHED, source="test")
    except SourceError as error:
        print(error)


if __name__ == "__main__":
    main()
