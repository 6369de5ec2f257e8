"""A store of prices that remembers what was known when.

See `forecaster.prices.store.store` for how it works.
"""

from forecaster.prices.store.results import Closes, Compaction, Fetch, StoredPrices, WriteResult
from forecaster.prices.store.store import PriceStore

__all__ = ["Closes", "Compaction", "Fetch", "PriceStore", "StoredPrices", "WriteResult"]
