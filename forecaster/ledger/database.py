"""The database of a ledger: SQLite or PostgreSQL, its transactions, its errors and its schema."""

from __future__ import annotations

import datetime
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    Table,
    create_engine,
    event,
    func,
    insert,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from forecaster.errors import ForecasterError, LedgerBusyError, LedgerError
from forecaster.ledger.tables import VERSION_TABLE

__all__ = ["MIGRATIONS", "SCHEMA", "Database", "first_or_insert", "grown", "parsed", "sqlite_url"]

MIGRATIONS = Path(__file__).with_name("migrations")
SCHEMA = "0001"
"""The newest revision among the migrations."""

_ADVISORY_LOCK = 0x666F7265  # any number that all ledgers share


def sqlite_url(path: Path) -> URL:
    """Give the URL of a SQLite file."""
    return URL.create("sqlite", database=str(path))


def parsed(url: str | Path | URL) -> URL:
    """Read where a ledger lies; a text without a scheme is a path."""
    if isinstance(url, Path) or (isinstance(url, str) and "://" not in url):
        return sqlite_url(Path(url))
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Not shown: it may hold a password.
        raise LedgerError(
            "the URL of the ledger cannot be read; write a path, or the URL of a database in PostgreSQL"
        ) from None
    name = parsed.get_backend_name()
    if name == "postgresql":
        return parsed.set(drivername="postgresql+psycopg")
    if name != "sqlite":
        raise LedgerError(
            f"a ledger lies in SQLite or PostgreSQL. Received: {parsed.drivername}://; write a path, or "
            "the URL of a database in PostgreSQL"
        )
    if parsed.database in (None, "", ":memory:"):
        raise LedgerError("a ledger lies in a file, not in memory; write sqlite:///FILE or a path")
    return parsed


class Database:
    """Transactions on a ledger's database.

    One process writes at a time: SQLite allows no more, and in PostgreSQL a lock that all ledgers share does
    the same. So whoever writes may look first and then insert; two that do the same work meet in the order in
    which they came, and cannot wait for each other.

    Parameters
    ----------
    url : str, Path or URL
        A path, ``sqlite:///FILE`` or ``postgresql://user@host/database``.
    wait : float
        Seconds to wait for another process that writes.

    Raises
    ------
    LedgerError
        If it cannot be opened, is no ledger, or one of a newer version of this application.
    """

    def __init__(self, url: str | Path | URL, wait: float) -> None:
        self.url = parsed(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self._wait = wait
        try:
            self._engine = self._make_engine()
        except NoSuchModuleError as error:
            raise LedgerError(f"a ledger needs a driver that SQLAlchemy knows: {error}") from None
        except ModuleNotFoundError as error:
            raise LedgerError(
                f"a ledger in PostgreSQL needs the package {error.name}; install forecaster[postgres]"
            ) from None
        self._prepare()

    @property
    def name(self) -> str:
        """Where the ledger lies, without a password."""
        return str(self.url.database) if self.sqlite else self.url.render_as_string(hide_password=True)

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open a transaction that reads; it sees one state of the ledger."""
        options = {} if self.sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._errors(), self._unchanged(), self._engine.connect() as plain:
            connection = plain.execution_options(**options)
            with connection.begin():
                yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open a transaction that writes, alone.

        Raises
        ------
        LedgerBusyError
            If another process writes for longer than the wait.
        LedgerError
            If the database refuses.
        """
        with self._errors(), self._engine.connect() as plain:
            connection = plain.execution_options(writes=True)
            with connection.begin():
                if not self.sqlite:
                    connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
                yield connection

    def clock(self, connection: Connection) -> datetime.datetime:
        """Give the time that processes on several machines agree on: the database's, where it is a server."""
        if self.sqlite:
            return datetime.datetime.now(datetime.UTC)
        now: datetime.datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return now.astimezone(datetime.UTC)

    @contextmanager
    def raw_sqlite(self) -> Iterator[sqlite3.Connection]:
        """Give the driver's own connection to SQLite."""
        with self._errors(), self._engine.connect() as connection:
            raw = connection.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            yield raw

    def _make_engine(self) -> Engine:
        if not self.sqlite:
            milliseconds = max(1, round(self._wait * 1000))
            return create_engine(
                self.url,
                connect_args={
                    "connect_timeout": max(2, round(self._wait)),
                    "options": f"-c lock_timeout={milliseconds} -c timezone=UTC",
                },
                pool_pre_ping=True,
            )
        folder = Path(str(self.url.database)).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(f"the folder {folder} cannot be made: {error.strerror or error}") from None
        engine = create_engine(
            self.url,
            # Transactions begin where they are told to, below, not where the driver guesses.
            connect_args={"timeout": self._wait, "isolation_level": None},
            # Names such as q0.01 are not a table and its column.
            execution_options={"sqlite_raw_colnames": True},
        )

        @event.listens_for(engine, "connect")
        def _connected(connection: sqlite3.Connection, _record: object) -> None:
            connection.execute("PRAGMA foreign_keys = ON")

        @event.listens_for(engine, "begin")
        def _begun(connection: Connection) -> None:
            # A transaction that reads first and writes later could fail at the write without waiting.
            writes = connection.get_execution_options().get("writes", False)
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    # ------------------------------------------------------------------------------------------- the schema

    def _prepare(self) -> None:
        """Make an empty database a ledger, bring an older ledger up to date, and refuse anything else."""
        with self.reading() as connection:
            found = self._schema(connection)
        if self.sqlite:
            self._keep_log()
        if found == SCHEMA:
            return
        # Alembic takes its time to import, and is seldom needed.
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise LedgerError(
                f"the ledger {self.name} has the schema {found}, newer than {SCHEMA}, which this version of "
                "the application knows; update the application"
            )
        with self.writing() as connection:
            # Another process may have been quicker.
            if self._schema(connection) != SCHEMA:
                config.attributes |= {"connection": connection, "version_table": VERSION_TABLE}
                command.upgrade(config, "head")

    def _schema(self, connection: Connection) -> str | None:
        """Revision of the schema, None where the database is empty."""
        names = inspect(connection).get_table_names()
        if VERSION_TABLE in names:
            query = text(f"SELECT version_num FROM {VERSION_TABLE}")  # nosec B608  # a name of ours
            revision = connection.execute(query).scalar()
            return str(revision) if revision is not None else None
        if names:
            raise LedgerError(
                f"{self.name} is not a ledger: it holds the tables of something else, such as "
                f"{min(names)!r}; give the ledger a database of its own"
            )
        return None

    def _keep_log(self) -> None:
        """Turn on the write-ahead log, in which readers and a writer do not wait for each other."""
        deadline = time.monotonic() + self._wait
        while True:
            try:
                with self.raw_sqlite() as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                break
            # SQLite does not wait by itself here.
            except sqlite3.OperationalError as error:
                if _code(error) not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise self._translated(error) from None
                if time.monotonic() > deadline:
                    raise self._translated(error) from None
                time.sleep(0.05)

    # ------------------------------------------------------------------------------------------- the errors

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._translated(error.orig or error) from error

    @contextmanager
    def _unchanged(self) -> Iterator[None]:
        """Say of rows that cannot be read as what they are that somebody else changed them.

        SQLite keeps a text in a column of dates or numbers.
        """
        try:
            yield
        except ForecasterError:
            raise
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise LedgerError(
                f"the ledger {self.name} holds rows that this application does not write: {said}; "
                "restore a backup"
            ) from error

    def _translated(self, error: BaseException) -> LedgerError:
        """Say in one line what the database said."""
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        state = getattr(error, "sqlstate", None)
        code = _code(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or state == "55P03":
            return LedgerBusyError(
                f"the ledger {self.name} is locked: another process has been writing for more than "
                f"{self._wait:g} s; wait until it ends, or end it"
            )
        if code == sqlite3.SQLITE_FULL or state == "53100":
            return LedgerError(
                f"the disk of the ledger {self.name} is full, so nothing was recorded; make room and repeat"
            )
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return LedgerError(
                f"{self.name} is not a ledger, or is damaged: {said}; name another file, or restore a backup"
            )
        if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
            return LedgerError(
                f"the ledger {self.name} cannot be opened or written to: {said}; "
                "name a file in a folder that can be written to"
            )
        return LedgerError(
            f"the ledger {self.name} refused: {said}; see that it can be reached, or restore a backup"
        )


def _code(error: BaseException) -> int | None:
    """Primary result code of SQLite."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def grown(connection: Connection, table: Table) -> None:
    """Tell PostgreSQL how many rows a table has after many were added.

    It would find out by itself a minute later; until then it may plan for an empty table, and a query that
    takes a second takes minutes.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ANALYZE {table.name}"))


def first_or_insert(connection: Connection, table: Table, key: Mapping[str, Any], **others: Any) -> int:
    """Give the id of the row with a key, and make it where there is none; in a transaction that writes."""
    found = connection.execute(
        select(table.c.id).where(*(table.c[name] == value for name, value in key.items()))
    ).scalar()
    if found is not None:
        return int(found)
    made = connection.execute(insert(table).values({**key, **others}))
    assert made.inserted_primary_key is not None
    return int(made.inserted_primary_key[0])
