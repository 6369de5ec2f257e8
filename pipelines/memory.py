"""How much memory an evening and a backtest will take, before they begin."""

from __future__ import annotations

from datetime import date

from forecaster.job import Job
from forecaster.models.convolution.inputs import BLOCK_ROWS
from pipelines.loading import BLOCK

__all__ = ["backtest_memory", "evening_memory", "explain_memory", "fitting_memory"]

GIB = 2.0**30
SESSIONS = 7_500
"""Of thirty years; a symbol with less history takes less."""
YEAR = 252
"""Sessions of a year."""
LIBRARIES, WORKER_LIBRARIES = 0.30, 0.20
"""Gibibytes of a process that reads and checks prices, before it has any, and of each of its workers, which
share with it what they read from the same files."""
NETWORK_LIBRARIES = 0.80
"""Gibibytes of a process that forecasts by a network, before it has any prices."""
CELLS = 8 * 8
"""Bytes of a stored row: seven numbers and the session."""
COPIES = 2
"""Of the rows of a block: as they are stored, and as they are checked."""
MAPPED = 2 * 8
"""Bytes of a row of the panel that market and cross-section look at: return and session."""
HELD = 75_000
"""Bytes of a symbol whose prices are in files: its last sessions as a table, its estimates and forecasts.
Found from the peaks of nights of 1,000 and 10,000 symbols (``make bench-scale``)."""
NETWORK = 2 * 4 * (9 + 23) + 8 * 12
"""Bytes of a row of which a network forecasts: channels and features, here and on the device, and what makes
them."""

NETWORKS = ("mlp", "convolution")
"""Kinds of models that need TensorFlow."""
FITTING_LIBRARIES, FITTING_NETWORK_LIBRARIES, TRACKING_LIBRARIES = 0.20, 0.80, 0.25
"""Gibibytes of a process that fits models, before it has prices: without and with a network among them; and
what MLflow and the report add to `forecaster run`."""
SHARED_LIBRARIES = 0.25
"""Gibibytes of TensorFlow that all processes of a machine share."""
OF_EACH_SYMBOL, OF_POOLED_NETWORK = 200, 675
POOLED = {
    "har_log": 280,
    "qlike_glm": 449,
    "ridge": 471,
    "quantile_regression": 2134,
    "boosting": 442,
    "mlp_sklearn": 529,
    "random_kernels": 696,
} | dict.fromkeys(NETWORKS, OF_POOLED_NETWORK)
"""Bytes of a row that is learned from, by kind of model: its inputs and what fitting adds. Those that are not
named here take `OF_EACH_SYMBOL` at most. Measured by ``python tests/benchmarks/bench_memory.py``."""
SCORED, KEPT, JUDGED = 2_700, 140, 390
"""Bytes of a forecast (of an origin and a horizon) in the process that began a backtest: while its model is
scored; afterwards; and of every model when all are judged. Measured as peaks of backtests of 40 symbols with
3 and with 12 cheap models, which `test_memory.py` holds with a network among few."""


def evening_memory(symbols: int, sessions: int = SESSIONS, workers: int = 1, *, whole: bool = False) -> float:
    """State the peak of an evening: prices from the store, forecasts by a network, all of them issued.

    Parameters
    ----------
    symbols, sessions : int
        Of the store.
    workers : int
        Of a ``loky`` engine.
    whole : bool
        Whether many symbols are read as few are, in one piece (see `reads_whole`).

    Returns
    -------
    float
        Gibibytes, of all processes together, what they share counted once.
    """
    rows = symbols * sessions
    whole = whole or symbols <= BLOCK
    block = (symbols if whole else BLOCK) * sessions * CELLS * COPIES / GIB
    panel = rows * MAPPED / GIB
    if whole:
        # In memory, with the prices that it is made of.
        panel += rows * (CELLS + MAPPED) / GIB
        loading = LIBRARIES + block + panel
    else:
        away = workers if workers > 1 else 0
        panel += symbols * HELD / GIB
        loading = LIBRARIES + symbols * HELD / GIB + max(away, 1) * block + away * WORKER_LIBRARIES
    forecasting = NETWORK_LIBRARIES + panel + min(rows, BLOCK_ROWS) * NETWORK / GIB
    return max(loading, forecasting)


def reads_whole(job: Job) -> bool:
    """Tell whether a job reads its prices in one piece, however many symbols there are.

    Symbols of several exchanges are read so as well; which these are is not looked up here.
    """
    return job.store_url is None or bool(job.covariates or job.portfolios)


def fitting_memory(job: Job, symbols: int, sessions: int = SESSIONS) -> float:
    """State the peak of a process that fits the models of a job one after the other, on all of the past.

    Parameters
    ----------
    job : Job
    symbols, sessions : int
        Of the panel; of the symbols, those that are learned from count (``backtest.learn_from``).

    Returns
    -------
    float
        Gibibytes, libraries included.
    """
    kinds = {model.kind for model in job.models}
    learned = min(symbols, job.backtest.learn_from or symbols) * sessions
    most = max(learned * POOLED.get(kind, 0) for kind in kinds)
    libraries = FITTING_NETWORK_LIBRARIES if kinds & {*NETWORKS} else FITTING_LIBRARIES
    return libraries + max(most, symbols * sessions * OF_EACH_SYMBOL) / GIB


def backtest_memory(job: Job, symbols: int, until: date, sessions: int = SESSIONS) -> float:
    """State the peak of a backtest of a job on this machine.

    Whoever began it holds the prices, scores a model when all of its forecasts are there, and keeps the
    losses of all. Workers of this machine fit at the same time; one worker is the same process, which does
    the one after the other.

    Parameters
    ----------
    job : Job
    symbols, sessions : int
        Of the prices.
    until : date
        Of the last session, where the job does not end its backtest before.

    Returns
    -------
    float
        Gibibytes, of all processes together, what they share counted once.
    """
    fitting = fitting_memory(job, symbols, sessions)
    in_files = symbols > BLOCK and not reads_whole(job)
    prices = symbols * sessions * (MAPPED if in_files else CELLS + 2 * MAPPED) / GIB
    forecasts = symbols * sessions_tested(job, until, sessions) * len(job.horizons)
    kept = forecasts * len(job.models) * KEPT / GIB
    judging = forecasts * len(job.models) * JUDGED / GIB
    scoring = max(forecasts * SCORED / GIB, judging - kept)
    has_network = any(model.kind in NETWORKS for model in job.models)
    libraries = FITTING_NETWORK_LIBRARIES if has_network else FITTING_LIBRARIES
    shared = SHARED_LIBRARIES if has_network else 0.0
    engine = job.engine
    if engine.kind in ("dask", "ray"):
        return FITTING_LIBRARIES + prices + scoring + kept
    if engine.workers == 1:
        return prices + kept + max(fitting, libraries + scoring)
    if engine.kind == "threading":
        return prices + kept + scoring + libraries + engine.workers * (fitting - libraries)
    return prices + kept + scoring + FITTING_LIBRARIES + shared + engine.workers * (fitting - shared)


def sessions_tested(job: Job, until: date, sessions: int = SESSIONS) -> int:
    """Count the test sessions of a symbol, about."""
    last = min(job.backtest.end or until, until)
    years = max((last - job.backtest.start).days, 0) / 365.25
    return max(min(round(years * YEAR), sessions - job.warm_up), 1)


def explain_memory(job: Job, until: date) -> str:
    """State the peaks of an evening and of a backtest, or of some sizes where symbols are not named."""
    named = len(job.prices.symbols)
    counts = (named,) if named else (100, 1_000, 10_000)
    local = job.engine.kind in ("loky", "threading")
    workers = job.engine.workers if job.engine.kind == "loky" else 1

    def stated(of: dict[int, float]) -> str:
        return ", ".join(f"{gibibytes:.1f} GiB for {count:,} symbols" for count, gibibytes in of.items())

    evening = {count: evening_memory(count, workers=workers, whole=reads_whole(job)) for count in counts}
    backtest = {count: backtest_memory(job, count, until) for count in counts}
    fitting = {count: fitting_memory(job, count) for count in counts}
    there = f"workers: {job.engine.workers}" if local else "without the cluster"
    each = "" if local else f"\nmemory of each worker of the cluster: {stated(fitting)}"
    return (
        "memory of an evening at its peak, from thirty years of prices to the forecasts of a network: "
        f"{stated(evening)}\n"
        f"memory of a backtest at its peak, {there}, on thirty years of prices and "
        f"{sessions_tested(job, until):,} test sessions: {stated(backtest)}; `forecaster run` takes "
        f"{TRACKING_LIBRARIES:.1f} more{each}"
    )
