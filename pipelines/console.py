"""What the commands share: exit codes, errors in one line, the progress bar, options."""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console

from forecaster.errors import DataError, ForecasterError, JobError, ParameterError

if TYPE_CHECKING:
    from forecaster.job import Job
    from pipelines.backtest import Progress

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "INTERRUPTED",
    "OK",
    "PARTIAL",
    "Config",
    "Debug",
    "Symbols",
    "errors",
    "finish",
    "load",
    "output_console",
    "parse_date",
    "parse_moment",
    "parse_symbols",
    "progress_bar",
    "quiet",
    "shown",
    "tell",
]

_REFUSALS = {
    errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.EMFILE, errno.ENAMETOOLONG,
    errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS,
}  # fmt: skip
"""What a system says of a full disk, of a folder that may not be written to, and the like."""

LONGEST = 1500
"""Characters of a line about what went wrong; a value in it may be of any length."""

WAYS_OUT = "make room, or allow it, and repeat"

OK, FAILED, BAD_INPUT, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130

output_console = Console()
console = Console(stderr=True)

_interruption = threading.Event()
"""Whether the command was asked to stop. Kept, because a compiled library can turn the exception into one of
its own, or take it for a failure that it knows a way around."""

Config = Annotated[Path, typer.Argument(help="The job file (YAML).", metavar="CONFIG")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the whole traceback of an error.")]
Symbols = Annotated[str, typer.Option("--symbols", help="Some of the symbols only.", metavar="A,B")]


@contextmanager
def errors(
    debug: bool, interrupted: str = "the results are as they were, nothing is half-written"
) -> Iterator[None]:
    """Turn an error into one line and an exit code."""
    _interruption.clear()

    def stop(signum: int, frame: FrameType | None) -> None:
        _interruption.set()
        raise KeyboardInterrupt

    # A scheduler stops a job by SIGTERM: it shall clean up as Ctrl-C does. An ignored Ctrl-C stays ignored.
    signals = [signal.SIGTERM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signals.append(signal.SIGINT)
    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    except typer.Exit:
        raise
    except (KeyboardInterrupt, Exception) as error:
        if _interruption.is_set() or isinstance(error, KeyboardInterrupt):
            _fail(f"interrupted; {interrupted}", INTERRUPTED, debug)
        if isinstance(error, (JobError, DataError, ParameterError)):
            _fail(str(error), BAD_INPUT, debug)
        if isinstance(error, ForecasterError):
            _fail(str(error), FAILED, debug)
        if isinstance(error, OSError) and error.errno in _REFUSALS:
            where = f" at {error.filename}" if error.filename else ""
            said = error.strerror or str(error)
            _fail(f"the system refused to read or write{where}: {said}; {WAYS_OUT}", FAILED, debug)
        text = f"internal error: {type(error).__name__}: {error}; run again with --debug for the traceback"
        _fail(text, FAILED, debug)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(message: str, code: int, debug: bool) -> NoReturn:
    from forecaster.redaction import redact

    if debug:
        print(redact(traceback.format_exc()), file=sys.stderr, end="")
    sys.stdout.flush()
    tell(f"forecaster: {message}")
    raise typer.Exit(code)


def shown(text: str) -> str:
    """Make one line, which a terminal shows and does not obey, of what came from elsewhere."""
    from forecaster.redaction import one_line

    line = one_line(text)
    # The way out stands at the end.
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 405]} ... {line[-400:]}"


def tell(message: str) -> None:
    """Print a line about the work, beside its results."""
    print(shown(message), file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """Show a progress bar on a terminal, and elsewhere a line whenever something else begins."""
    if not console.is_terminal:
        last = ""

        def say(what: str, done: int, total: int) -> None:
            nonlocal last
            _heed()
            if what != last:
                print(f"{what} ({done} of {total} done)", file=sys.stderr, flush=True)
            last = what

        yield say
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=console) as bar:
        task = bar.add_task("starting", total=None)

        def move(what: str, done: int, total: int) -> None:
            _heed()
            bar.update(task, description=what, completed=done, total=total)

        yield move


def _heed() -> None:
    """Stop between two pieces of work where an interruption was lost in one."""
    if _interruption.is_set():
        raise KeyboardInterrupt


def load(config: Path) -> Job:
    """Read the job file, and take its threads before anything heavy is loaded."""
    from forecaster.job import load_job
    from forecaster.threads import limit_threads

    job = load_job(config)
    limit_threads(job.threads)
    return job


def parse_date(text: str | None, option: str) -> date | None:
    """Read a date of an option, where it is given."""
    if text is None:
        return None
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()
    except ValueError:
        raise JobError(f"{option} is a date written YYYY-MM-DD. Received: {text!r}") from None


def parse_moment(text: str | None, option: str, *, begins: bool = False) -> datetime | None:
    """Read a moment of an option; UTC holds where no zone is said.

    A date stands for its last moment or, where something `begins` with it, for its first.
    """
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise JobError(
            f"{option} is a moment written YYYY-MM-DDTHH:MM:SS+00:00 or a date. Received: {text!r}"
        ) from None
    if len(text) == len("YYYY-MM-DD") and not begins:
        moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_symbols(text: str) -> tuple[str, ...]:
    """Read symbols divided by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def quiet() -> None:
    """Silence the libraries' noise on a user's terminal; errors still come through."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    warnings.filterwarnings("ignore", category=FutureWarning)


def finish(failures: dict[str, str], coverage: float, minimum_coverage: float, what: str) -> None:
    """Say which symbols failed, and end with the exit code that follows."""
    for symbol, reason in failures.items():
        tell(f"forecaster: {what} {symbol}: {reason}")
    if not failures:
        return
    if coverage < minimum_coverage:
        print(
            f"forecaster: only {coverage:.0%} of the symbols succeeded, below the minimum coverage of "
            f"{minimum_coverage:.0%}",
            file=sys.stderr,
        )
        raise typer.Exit(FAILED)
    raise typer.Exit(PARTIAL)
