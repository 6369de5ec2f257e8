"""The ledger: jobs and steps, forecasts as issued, outcomes, scores; the only importer of SQLAlchemy.

See `forecaster.ledger.ledger` for what it does and `forecaster.ledger.tables` for what it holds.
"""

from forecaster.errors import LedgerBusyError, LedgerError
from forecaster.ledger.forecasts import Issued
from forecaster.ledger.ledger import Ledger
from forecaster.ledger.record import Scored
from forecaster.ledger.steps import Run, Step, reason_of

__all__ = ["Issued", "Ledger", "LedgerBusyError", "LedgerError", "Run", "Scored", "Step", "reason_of"]
