"""The exceptions of the application, drawn as a tree.

::

    ForecasterError                  every error that this package raises on purpose
    ├── JobError                     the job file is wrong: unknown key, bad value, impossible combination
    ├── ParameterError               an argument breaks a rule of the library (also a ``ValueError``)
    ├── DataError                    prices cannot be used
    │   ├── SourceError              a source as a whole: missing file, missing column, nothing in it
    │   └── SymbolError              one symbol: unknown, too short, text for a number; the others can go on
    ├── NotFittedError               ``predict`` or ``save`` before ``fit`` (also a ``RuntimeError``)
    ├── TrackingError                the tracking store or the model registry cannot do what was asked
    ├── ReportError                  a report cannot be drawn or printed with what is installed
    └── LedgerError                  the ledger cannot do what was asked, or refuses to
        └── LedgerBusyError          another process writes, or does the same step; trying again may help

A message states the rule, the value received and the way out, in one line.
"""

from __future__ import annotations

__all__ = [
    "DataError",
    "ForecasterError",
    "JobError",
    "LedgerBusyError",
    "LedgerError",
    "NotFittedError",
    "ParameterError",
    "ReportError",
    "SourceError",
    "SymbolError",
    "TrackingError",
]


class ForecasterError(Exception):
    """Base of every error that this package raises on purpose."""


class JobError(ForecasterError):
    """The job file is wrong."""


class ParameterError(ForecasterError, ValueError):
    """An argument breaks a rule of the library."""


class DataError(ForecasterError):
    """Prices cannot be used."""


class SourceError(DataError):
    """A source as a whole cannot be used."""


class SymbolError(DataError):
    """One symbol cannot be used; the others can.

    Parameters
    ----------
    symbol : str
        The symbol that is left out.
    reason : str
        The rule that it breaks, the value received and the way out.
    """

    def __init__(self, symbol: str, reason: str) -> None:
        super().__init__(f"{symbol}: {reason}")
        self.symbol = symbol
        self.reason = reason


class NotFittedError(ForecasterError, RuntimeError):
    """A model was asked to predict, or to be saved, before it was fitted."""


class TrackingError(ForecasterError):
    """The tracking store or the model registry cannot do what was asked."""


class ReportError(ForecasterError):
    """A report cannot be drawn or printed with what is installed."""


class LedgerError(ForecasterError):
    """The ledger cannot do what was asked, or refuses to."""


class LedgerBusyError(LedgerError):
    """Another process has what is needed; the same call may succeed later."""
