"""A store of prices that remembers what was known when.

See `forecaster.prices.store.store` for how it works.
"""

from forecaster.prices.store.store import (
    Closes,
    Fetch,
    PriceStore,
    StoredPrices,
    WriteResult,
)

__all__ = ["Closes", "Fetch", "PriceStore", "StoredPrices", "WriteResult"]
