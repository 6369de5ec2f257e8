"""The errors of the ledger.

::

    ForecasterError
    └── LedgerError                  the ledger cannot do what was asked, or refuses to
        └── LedgerBusyError          another process writes, or does the same step; trying again may help
"""

from __future__ import annotations

from forecaster.errors import ForecasterError

__all__ = ["LedgerBusyError", "LedgerError"]


class LedgerError(ForecasterError):
    """The ledger cannot do what was asked, or refuses to."""


class LedgerBusyError(LedgerError):
    """Another process has what is needed; the same call may succeed later."""
