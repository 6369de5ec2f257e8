"""A Delta table that grows by whole Parquet files: opening, listing, adding, committing."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pa_fs
import pyarrow.parquet as pq

from forecaster.errors import SourceError

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "FILE_SCHEMA",
    "PRICES_SCHEMA",
    "SCHEMA_VERSION",
    "ConflictError",
    "File",
    "Location",
    "NewFile",
    "PricesTable",
    "vacuum",
]

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

FILE_SCHEMA = PRICES_SCHEMA.remove(PRICES_SCHEMA.get_field_index("amended"))
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


@dataclass(frozen=True, slots=True)
class NewFile:
    """One Parquet file that was written and is not yet part of a version."""

    path: str
    size: int
    amended: bool
    statistics: str


class Location:
    """Where a store lies: a local folder, or an object store by URL.

    Parameters
    ----------
    url : str
        A path, or the URL of an object store, such as ``s3://bucket/prices``. ``file://`` is an object store
        too: no lock file, for network drives where locks do not work.
    storage_options : mapping of str to str or None
        Options of the object store, as deltalake takes them; credentials are better left to the environment.
    """

    def __init__(self, url: str, storage_options: Mapping[str, str] | None = None) -> None:
        self.options = dict(storage_options or {})
        self.folder: Path | None = None
        if "://" not in url:
            self.folder = Path(url).expanduser().absolute()
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
                f"a price store needs a folder of its own; {self.url} is none and holds {others[0]!r}; "
                "give another `store`"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Let one writer in at a time; nothing to do for an object store, where commits conflict instead."""
        if self.folder is None:
            yield
            return
        import filelock

        if not (self.folder / "prices" / "_delta_log").is_dir():
            self.require_own()
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
                f"the price store {self.url} must be undamaged and open to {purpose}; "
                f"found: {_one_line(error)}"
            ) from error


_OWN = {"prices", "fetches", ".lock"}

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""The Rust side of deltalake paints its errors."""


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
                    "see that it can be reached, or restore its folder from a copy"
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

    def parquet(self, file: File, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """Open one file, at no cost if its metadata are known. A reader belongs to one thread."""
        return pq.ParquetFile(
            file.path,
            metadata=metadata,
            filesystem=self.location.filesystem("prices"),
            read_dictionary=["symbol", "status", "source", "reason"],
        )

    def write_files(self, pieces: Iterable[tuple[bool, pa.Table]]) -> list[NewFile]:
        """Write files that belong to no version yet.

        Parameters
        ----------
        pieces : iterable of (bool, Table)
            For each file whether its rows are amended, and the rows: `FILE_SCHEMA`'s columns, sorted by
            symbol and session. They are taken one at a time.
        """
        filesystem = self.location.filesystem("prices")
        written: list[NewFile] = []
        path = ""
        try:
            with self.location.errors("write"):
                for amended, piece in pieces:
                    path = f"amended={str(amended).lower()}/{uuid.uuid4()}.parquet"
                    size = _write_file(filesystem, path, piece)
                    written.append(NewFile(path, size, amended, _statistics(piece)))
        except BaseException:
            # Only here: once a commit was tried, even one that seems to have failed, a version may hold them.
            for name in {path, *(file.path for file in written)} - {""}:
                with contextlib.suppress(OSError):
                    filesystem.delete_file(name)
            raise
        return written

    def commit(
        self,
        table: DeltaTable,
        added: Sequence[NewFile],
        mark: int,
        removed: Sequence[File] = (),
        marks: Mapping[str, int] | None = None,
        data_change: bool = True,
    ) -> int:
        """Add files and take others away in one commit; it fails if another came since `table`.

        Parameters
        ----------
        table : DeltaTable
            The version that was read.
        added : sequence of NewFile
            Files written.
        mark : int
            The store's new mark.
        removed : sequence of File
            Files whose rows `added` hold anew.
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

        now = int(time.time() * 1000)
        actions: list[AddAction | RemoveAction] = [
            AddAction(file.path, file.size, _partition(file), now, data_change, file.statistics)
            for file in added
        ]
        actions += [
            RemoveAction(file.path, data_change, now, file.size, _partition(file)) for file in removed
        ]
        transactions = [Transaction(_MARK, mark)]
        transactions += [Transaction(name, value) for name, value in (marks or {}).items()]
        with self.location.errors("write"):
            table.create_write_transaction(
                actions,
                "append",
                PRICES_SCHEMA,
                ["amended"],
                commit_properties=CommitProperties(app_transactions=transactions),
            )
            table.update_incremental()
        return table.version()

    def vacuum(self, after: datetime.timedelta) -> int:
        """Delete files that belong to no version and are older than `after`; return how many there were."""

        def work(table: DeltaTable) -> int:
            with self.location.errors("write"):
                return len(vacuum(table, after))

        return self.attempt(work)

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
                f"other writers kept the price store {self.location.url} busy for {_LOCK_SECONDS} s; "
                "try again later"
            ) from error


def vacuum(table: DeltaTable, after: datetime.timedelta) -> list[str]:
    """Delete files that belong to no version of a table and are older than `after`, in whole hours."""
    hours = -(-after // datetime.timedelta(hours=1))
    return table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=True)


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
            store_schema=False,  # the dictionaries are the files' own affair: other readers see text
        )
    return int(filesystem.get_file_info(path).size)


def _partition(file: File | NewFile) -> dict[str, str | None]:
    return {"amended": str(file.amended).lower()}


def _statistics(piece: pa.Table) -> str:
    """Return the statistics of a file as the Delta protocol writes them."""
    bounds = {name: pc.min_max(piece[name]).as_py() for name in _STATISTICS[1:]}
    # Dictionaries have no order, but the rows do.
    bounds["symbol"] = {"min": piece["symbol"][0].as_py(), "max": piece["symbol"][-1].as_py()}
    return json.dumps(
        {
            "numRecords": piece.num_rows,
            "minValues": {name: _json(bounds[name]["min"]) for name in _STATISTICS},
            "maxValues": {name: _json(bounds[name]["max"]) for name in _STATISTICS},
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
    return " ".join(_COLOURS.sub("", str(error)).split()) or type(error).__name__
