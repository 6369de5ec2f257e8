"""The folder of finished results: what the report, the dashboard and other tools read."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from forecaster.errors import JobError
from forecaster.prices.base import PRICE_COLUMNS, LoadedPrices

__all__ = ["TableStream", "TemporaryFolder", "staged", "write_json", "write_quality", "write_table"]


SOMETIMES = ("failed_models.csv", "restatements.csv", "tails.parquet", "verdict_variance.csv")
"""Files that only some results have; those of earlier results say nothing of the new ones."""


@contextmanager
def staged(output: Path) -> Iterator[Path]:
    """Give a folder to write into, and move its files to the output only when all of them are whole.

    A step that fails, or is interrupted, leaves the output as it was. Opened before the work is done, so that
    an output that cannot be written is refused at once and not after it.
    """
    try:
        made = not output.exists()
        output.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".writing-", dir=output))
    except OSError as error:
        raise JobError(
            f"results cannot be written to {output}: {error.strerror or error}; "
            "name a folder that can be written to"
        ) from None
    try:
        yield folder
        written = sorted(folder.iterdir())
        for path in written:
            path.replace(output / path.name)
        for name in set(SOMETIMES) - {path.name for path in written}:
            (output / name).unlink(missing_ok=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if made and not any(output.iterdir()):
            output.rmdir()


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as Parquet or CSV, by the ending of the name."""
    if path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, index=False)


class TemporaryFolder:
    """A folder that is there as long as this object is.

    Parameters
    ----------
    parent : Path
        Made where it does not exist.
    prefix : str
        Of its name.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class TableStream:
    """Writes a Parquet file a table at a time; use it in a ``with`` block.

    Parameters
    ----------
    path : Path
        The file. Without any table there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, table: pd.DataFrame) -> None:
        """Append a table, which has the columns of the first."""
        made = pa.Table.from_pandas(table, preserve_index=False)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self.path, made.schema)
        self._writer.write_table(made)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Write a JSON file that people can read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_quality(prices: LoadedPrices, folder: Path) -> None:
    """Write ``findings.csv``, ``failures.csv`` and ``quarantine.csv``."""
    findings = [
        {
            "symbol": finding.symbol,
            "code": finding.code,
            "severity": finding.severity,
            "sessions": finding.sessions,
            "first_session": finding.first_session,
            "message": finding.message,
            "action": finding.action,
        }
        for finding in prices.findings
    ]
    columns = ["symbol", "code", "severity", "sessions", "first_session", "message", "action"]
    write_table(pd.DataFrame(findings, columns=columns), folder / "findings.csv")
    failures = pd.DataFrame(list(prices.failures.items()), columns=["symbol", "reason"])
    write_table(failures, folder / "failures.csv")
    rows = [table.reset_index().assign(symbol=symbol) for symbol, table in prices.quarantined.items()]
    columns = ["symbol", "session", *PRICE_COLUMNS, "codes"]
    quarantined = pd.concat(rows)[columns] if rows else pd.DataFrame(columns=columns)
    write_table(quarantined, folder / "quarantine.csv")
