"""Commands that tests run in processes of their own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from multiprocessing.context import ForkServerContext

from pipelines.cli import app


def run_command(arguments: list[str]) -> None:
    """Run a command of the command line, silently."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        app([*arguments], standalone_mode=False)


def forked() -> ForkServerContext:
    """Give processes that are forked from one that has imported everything and done nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["deltalake", "pandera.pandas", "pyarrow.parquet", "pipelines.cli", "pipelines.ingest",
         "forecaster.prices.files", "forecaster.prices.store.store"]
    )  # fmt: skip
    return context
