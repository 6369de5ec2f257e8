"""A Delta table that grows by whole Parquet files: opening, listing, adding, committing."""

from __future__ import annotations

import contextlib
import datetime
import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from forecaster.errors import ForecasterError, SourceError

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = ["PRICES_SCHEMA", "SCHEMA_VERSION", "ConflictError", "File", "Location", "PricesTable"]

SCHEMA_VERSION = 1
"""Version of the layout of the tables; raised when a program that knows the old one would misread the new."""

PRICES_SCHEMA = pa.schema(
    [
        ("symbol", pa.string()),
        ("session", pa.date32()),
        *((name, pa.float64()) for name in ("open", "high", "low", "close", "volume", "dividend", "split")),
        ("fetched_at", pa.timestamp("us", tz="UTC")),
        ("revision", pa.int32()),
        ("status", pa.string()),
        ("settled", pa.bool_()),
        ("source", pa.string()),
        ("reason", pa.string()),
        ("amended", pa.bool_()),
    ]
)

_FILE_SCHEMA = PRICES_SCHEMA.remove(PRICES_SCHEMA.get_field_index("amended"))
_STATISTICS = ("symbol", "session", "fetched_at", "revision")
_PLAIN = ("open", "high", "low", "close")
_MARK = "forecaster.mark"
_VERSION_KEY = "forecaster.schema"
_ROW_GROUP = 131_072
_LOCK_SECONDS = 600

_Result = TypeVar("_Result")


class ConflictError(Exception):
    """Another writer committed first: read again and retry."""


@dataclass(frozen=True, slots=True)
class File:
    """One Parquet file of a table and what is known about it without opening it.

    Bounds are None where the table does not say.
    """

    path: str
    size: int
    rows: int
    amended: bool
    first_symbol: str | None
    last_symbol: str | None
    first_session: datetime.date | None
    last_session: datetime.date | None
    first_fetched: int | None
    last_fetched: int | None


class Location:
    """Where a store lies: a local folder, or an object store by URL.

    Parameters
    ----------
    url : str
        A path, ``file://`` URL, or URL of an object store such as ``s3://bucket/prices``.
    storage_options : mapping of str to str or None
        Options of the object store, as deltalake takes them; credentials are better left to the environment.
    """

    def __init__(self, url: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.options = dict(storage_options or {})
        self.folder: Path | None = None
        if "://" not in url or url.startswith("file://"):
            self.folder = Path(url.removeprefix("file://")).expanduser().absolute()
            self.url = str(self.folder)
        else:
            self.url = url.rstrip("/")

    def table(self, name: str) -> str:
        """Address of one of the store's tables."""
        return f"{self.url}/{name}"

    def filesystem(self, name: str) -> pa_fs.FileSystem:
        """Return a file system whose root is a table."""
        if self.folder is not None:
            return pa_fs.SubTreeFileSystem(str(self.folder / name), pa_fs.LocalFileSystem())
        from deltalake.fs import DeltaStorageHandler

        return pa_fs.PyFileSystem(DeltaStorageHandler(self.table(name), self.options))

    def require_own(self) -> None:
        """Refuse a local folder that holds something else."""
        if self.folder is None or not self.folder.exists():
            return
        if not self.folder.is_dir():
            raise SourceError(f"a price store is a folder; {self.url} is a file; give another `store`")
        others = sorted(path.name for path in self.folder.iterdir() if path.name not in _OWN)
        if others:
            raise SourceError(
                f"a price store needs a folder of its own; {self.url} holds {others[0]!r} and is no price store; "
                "give another `store`"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one writer in at a time; nothing to do for an object store, where commits conflict instead."""
        if self.folder is None:
            yield
            return
        import filelock

        with self.errors("write"):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock", timeout=_LOCK_SECONDS, thread_local=False)
            try:
                lock.acquire()
            except filelock.Timeout:
                raise SourceError(
                    f"another process has held the lock of {self.url} for {_LOCK_SECONDS} s; "
                    "see whether it hangs, then try again"
                ) from None
        try:
            yield
        finally:
            lock.release()

    @contextlib.contextmanager
    def errors(self, purpose: str) -> Iterator[None]:
        """Turn the errors of libraries and of the operating system into one line."""
        from deltalake.exceptions import CommitFailedError, DeltaError

        try:
            yield
        except CommitFailedError as error:
            # The one kind that is worth another try: somebody else committed between our read and our write.
            raise ConflictError(_one_line(error)) from error
        except PermissionError as error:
            raise SourceError(
                f"the price store {self.url} must be open to {purpose}; the system says: {_one_line(error)}"
            ) from error
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise SourceError(
                f"the price store {self.url} must be open to {purpose} and undamaged; found: {_one_line(error)}"
            ) from error


_OWN = {"prices", "fetches", ".lock"}


class PricesTable:
    """The table of price rows.

    Rows are never edited. A commit adds whole files and carries the store's *mark*, the time up to which it
    knows things, as a Delta application transaction: of two commits that started from the same version the
    second fails instead of doubling rows, whatever the storage.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.url = location.table("prices")

    def open(self, version: int | None = None) -> DeltaTable | None:
        """Return the table at a version, the newest by default, or None if there is none yet."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        options = self.location.options or None
        try:
            if not DeltaTable.is_deltatable(self.url, options):
                return None
            table = DeltaTable(self.url, version=version, storage_options=options)
        except TableNotFoundError:
            return None
        except Exception as error:  # the Rust side raises bare exceptions for a damaged log
            what = "the price store" if version is None else f"version {version} of the price store"
            raise SourceError(
                f"{what} {self.location.url} cannot be opened: {_one_line(error)}; "
                + (
                    "restore its folder from a copy"
                    if version is None
                    else "old versions are tidied away in time"
                )
            ) from error
        known = table.metadata().configuration.get(_VERSION_KEY)
        if known is None or not known.isdigit():
            raise SourceError(
                f"{self.url} is a Delta table, but not one of a price store: it lacks the property "
                f"`{_VERSION_KEY}`; give another `store`"
            )
        if int(known) > SCHEMA_VERSION:
            raise SourceError(
                f"the price store {self.location.url} has schema {known} and this program reads up to "
                f"{SCHEMA_VERSION}; install the newer forecaster that wrote it"
            )
        return table

    def create(self) -> DeltaTable:
        """Return the table, made anew if there is none."""
        from deltalake import DeltaTable

        table = self.open()
        if table is not None:
            return table
        self.location.require_own()
        with self.location.errors("write"):
            DeltaTable.create(
                self.url,
                PRICES_SCHEMA,
                mode="ignore",
                partition_by=["amended"],
                name="prices",
                description="Daily prices as traded, bitemporal: the row of the highest revision is current.",
                configuration={_VERSION_KEY: str(SCHEMA_VERSION)},
                storage_options=self.location.options or None,
                raise_if_key_not_exists=False,
            )
        table = self.open()
        if table is None:
            raise SourceError(f"the price store {self.location.url} vanished while it was made; try again")
        return table

    @staticmethod
    def mark(table: DeltaTable) -> int | None:
        """Return the last time (microseconds since 1970, UTC) at which the store learned something."""
        return table.transaction_version(_MARK)

    @staticmethod
    def files(table: DeltaTable) -> list[File]:
        """List the files of a version."""
        actions = pa.table(table.get_add_actions(flatten=True))
        micros = {}
        for bound in ("min", "max"):
            name = f"{bound}.fetched_at"
            if name in actions.column_names:
                micros[bound] = actions[name].cast(pa.int64()).to_pylist()
        files = []
        for number, action in enumerate(actions.to_pylist()):
            files.append(
                File(
                    unquote(action["path"]),
                    action["size_bytes"],
                    action["num_records"],
                    bool(action["partition.amended"]),
                    action.get("min.symbol"),
                    action.get("max.symbol"),
                    action.get("min.session"),
                    action.get("max.session"),
                    micros["min"][number] if micros else None,
                    micros["max"][number] if micros else None,
                )
            )
        return files

    def parquet(self, file: File) -> pq.ParquetFile:
        """Open one file."""
        return pq.ParquetFile(
            file.path,
            filesystem=self.location.filesystem("prices"),
            read_dictionary=["symbol", "status", "source", "reason"],
        )

    def commit(
        self,
        table: DeltaTable,
        pieces: Sequence[pa.Table],
        mark: int,
        removed: Sequence[File] = (),
        marks: Mapping[str, int] | None = None,
        data_change: bool = True,
    ) -> int:
        """Add rows, and take files away, in one commit that conflicts with every other since `table` was opened.

        Parameters
        ----------
        table : DeltaTable
            The version that was read.
        pieces : sequence of Table
            Rows of `PRICES_SCHEMA`, each for one file: sorted by symbol and session, ``amended`` the same throughout.
        mark : int
            The store's new mark.
        removed : sequence of File
            Files whose rows `pieces` hold anew.
        marks : mapping of str to int
            Further application transactions.
        data_change : bool
            False if no row is added or taken away.

        Returns
        -------
        int
            The version committed.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.transaction import AddAction, RemoveAction

        filesystem = self.location.filesystem("prices")
        now = int(time.time() * 1000)
        added: list[AddAction | RemoveAction] = []
        paths: list[str] = []
        try:
            with self.location.errors("write"):
                for piece in pieces:
                    partition = {"amended": str(piece["amended"][0].as_py()).lower()}
                    path = f"amended={partition['amended']}/{uuid.uuid4()}.parquet"
                    paths.append(path)
                    size = _write_file(filesystem, path, piece.select(_FILE_SCHEMA.names))
                    added.append(AddAction(path, size, partition, now, data_change, _statistics(piece)))
                for file in removed:
                    partition = {"amended": str(file.amended).lower()}
                    added.append(RemoveAction(file.path, data_change, now, file.size, partition))
                transactions = [Transaction(_MARK, mark)]
                transactions += [Transaction(name, value) for name, value in (marks or {}).items()]
                table.create_write_transaction(
                    added,
                    "append",
                    PRICES_SCHEMA,
                    ["amended"],
                    commit_properties=CommitProperties(app_transactions=transactions),
                )
        except (ConflictError, ForecasterError):
            for path in paths:
                with contextlib.suppress(OSError):
                    filesystem.delete_file(path)
            raise
        table.update_incremental()
        return table.version()

    def attempt(self, work: Callable[[DeltaTable], _Result]) -> _Result:
        """Do `work` on the newest version, again on a newer one whenever another writer was faster."""
        import tenacity

        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(ConflictError),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=2.0),
            stop=tenacity.stop_after_delay(_LOCK_SECONDS),
        )
        try:
            with self.location.lock():
                return retrying(lambda: work(self.create()))
        except tenacity.RetryError as error:
            raise SourceError(
                f"other writers kept the price store {self.location.url} busy for {_LOCK_SECONDS} s; try again later"
            ) from error


def _write_file(filesystem: pa_fs.FileSystem, path: str, piece: pa.Table) -> int:
    filesystem.create_dir(path.rpartition("/")[0], recursive=True)
    with filesystem.open_output_stream(path) as stream:
        pq.write_table(
            piece,
            stream,
            compression="zstd",
            row_group_size=_ROW_GROUP,
            use_dictionary=[name for name in piece.column_names if name not in _PLAIN],
            coerce_timestamps="us",
        )
    return int(filesystem.get_file_info(path).size)


def _statistics(piece: pa.Table) -> str:
    """Return the statistics of a file as the Delta protocol writes them."""
    bounds = {name: pc.min_max(piece[name]) for name in _STATISTICS}
    return json.dumps(
        {
            "numRecords": piece.num_rows,
            "minValues": {name: _json(bound["min"].as_py()) for name, bound in bounds.items()},
            "maxValues": {name: _json(bound["max"].as_py()) for name, bound in bounds.items()},
            "nullCount": dict.fromkeys(_STATISTICS, 0),
        }
    )


def _json(value: Any) -> str | int:
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, datetime.date):
        return value.isoformat()
    return str(value) if isinstance(value, str) else int(value)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
