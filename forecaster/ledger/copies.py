"""Backup and restore: a backup of either database is a ledger in one SQLite file."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy import URL, Connection, func, insert, select

from forecaster.errors import LedgerError
from forecaster.ledger.database import Database, grown, parsed, sqlite_url
from forecaster.ledger.tables import METADATA

__all__ = ["backup", "restore"]

_ROWS = 5000
_PATIENCE = 60.0


def backup(database: Database, path: Path) -> None:
    """Copy a ledger into a file; see `forecaster.ledger.Ledger.backup`."""
    if path.exists():
        raise LedgerError(f"a backup replaces no file. Received: {path}, which exists; name another")
    with _beside(path) as temporary:
        if database.sqlite:
            with database.raw_sqlite() as source:
                _copy_file(source, temporary)
        else:
            copy = Database(sqlite_url(temporary), _PATIENCE)
            try:
                with database.reading() as source_rows, copy.writing() as target:
                    _copy_rows(source_rows, target)
            finally:
                copy.close()
            _settle(temporary)
        temporary.replace(path)


def restore(path: Path, url: str | Path | URL, wait: float) -> None:
    """Make a ledger from a backup; see `forecaster.ledger.Ledger.restore`."""
    if not path.is_file():
        raise LedgerError(
            f"a backup is a file that `backup` wrote. Received: {path}, which is none; name another"
        )
    place = parsed(url)
    if place.get_backend_name() == "sqlite":
        goal = Path(str(place.database))
        if goal.exists():
            raise LedgerError(
                f"a backup is restored to a new file. Received: {goal}, which exists; name another"
            )
        with _beside(goal) as temporary:
            _take(path, temporary)
            temporary.replace(goal)
        return
    target = Database(place, wait)
    try:
        with tempfile.TemporaryDirectory(prefix="ledger-") as folder:
            temporary = Path(folder) / "ledger.db"
            _take(path, temporary)
            copied = Database(sqlite_url(temporary), _PATIENCE)
            try:
                with copied.reading() as rows, target.writing() as connection:
                    _refuse_rows(connection, target.name)
                    _copy_rows(rows, connection)
            finally:
                copied.close()
    finally:
        target.close()


def _take(path: Path, temporary: Path) -> None:
    """Copy a backup that is whole, and bring the copy up to date; the backup itself stays as it is."""
    with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as source:
        try:
            damage = source.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage == "ok" and not source.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
                damage = "it is empty"
        except sqlite3.DatabaseError as error:
            damage = str(error)
        if damage != "ok":
            said = damage.strip().splitlines()[-1]
            raise LedgerError(f"the backup {path} cannot be used: {said}; take an older one")
        _copy_file(source, temporary)
    try:
        Database(sqlite_url(temporary), _PATIENCE).close()
    except LedgerError as error:
        # The file that it speaks of is a copy that will be gone.
        said = str(error).replace(str(temporary), str(path))
        raise LedgerError(f"the backup {path} cannot be used: {said}") from None
    _settle(temporary)


def _refuse_rows(connection: Connection, name: str) -> None:
    filled = [
        table.name
        for table in METADATA.sorted_tables
        if connection.execute(select(table).limit(1)).first() is not None
    ]
    if filled:
        raise LedgerError(
            f"a backup is restored into an empty database. Received: {name}, which has rows in "
            f"{', '.join(filled)}; name another"
        )


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """Give the name of a file in a folder of its own beside a path, so that it can be moved there at once."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=".ledger-", dir=path.parent))
    except OSError as error:
        raise LedgerError(
            f"no copy can be written to {path.parent}: {error.strerror or error}; name another folder"
        ) from None
    try:
        yield folder / "ledger.db"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_file(source: sqlite3.Connection, path: Path) -> None:
    """Copy SQLite's pages; others may write meanwhile."""
    try:
        with contextlib.closing(sqlite3.connect(path)) as target:
            source.backup(target)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger cannot be copied: {error}; make room, or copy it elsewhere") from None
    _settle(path)


def _settle(path: Path) -> None:
    """Leave one file, without a log beside it."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")


def _copy_rows(source: Connection, target: Connection) -> None:
    """Copy every row of one state of a ledger, with its id."""
    for table in METADATA.sorted_tables:
        rows = source.execution_options(yield_per=_ROWS).execute(select(table).order_by(*table.primary_key))
        for part in rows.mappings().partitions(_ROWS):
            target.execute(insert(table), [dict(row) for row in part])
        if target.dialect.name == "postgresql" and "id" in table.c:
            # The next id comes after those that were copied.
            last = target.execute(select(func.max(table.c.id))).scalar()
            sequence = func.pg_get_serial_sequence(table.name, "id")
            target.execute(select(func.setval(sequence, last or 1, last is not None)))
        grown(target, table)
