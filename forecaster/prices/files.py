"""Prices from CSV and Parquet files.

One row a symbol and session, in any order, in one file or many::

    symbol,session,open,high,low,close,volume,dividend,split
    AAPL,2020-08-28,504.05,505.77,498.31,499.23,46907479,0,1
    AAPL,2020-08-31,127.58,131.00,126.00,129.04,225702688,0,4

``symbol``, ``session`` and ``close`` are required. A file with a ``dividend`` or ``split`` column holds
prices as traded; without them prices are taken as given. Further columns are left aside, unless their name
is so near to a missing one that it looks mistyped.

Symbols are text whatever they look like (ON, NA, TRUE, 0700, 1e5). Numbers are read strictly: an empty cell,
``nan``, ``NaN`` or ``NA`` is a missing number, and what is neither that nor a plain finite number spoils its
symbol, by file, line, column and value. Space around a cell is not part of it. Sessions are dates: YYYY-MM-DD
in text; in Parquet also dates and timestamps at midnight, those with a time zone by their own local date.
"""

from __future__ import annotations

import csv
import datetime
import glob
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from forecaster.errors import ParameterError, SourceError, SymbolError
from forecaster.prices.base import PRICE_COLUMNS, did_you_mean, nearest, price_table

__all__ = ["FilesSource"]

_REQUIRED = ("symbol", "session", "close")
_COLUMNS = ("symbol", "session", *PRICE_COLUMNS)
_SUFFIXES = (".csv", ".csv.gz", ".parquet")
_OTHER_NAMES = {
    "session": ("date", "datetime", "day", "ds", "time", "timestamp"),
    "symbol": ("ticker", "instrument", "name", "unique_id"),
    "close": ("adj close", "adj_close", "price", "settle", "y"),
    "volume": ("vol",),
}
"""What other tools call these columns."""
_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_MISSING = ["", "nan", "NaN", "NA"]
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_BLOCK = 65_536  # rows in memory as text at a time
_TICKS_A_DAY = {"s": 86_400, "ms": 86_400 * 10**3, "us": 86_400 * 10**6, "ns": 86_400 * 10**9}
_FIRST_DAY, _LAST_DAY = (
    (day - datetime.date(1970, 1, 1)).days for day in (datetime.date.min, datetime.date.max)
)


class FilesSource:
    """Prices in CSV (also ``.csv.gz``) and Parquet files, by the contract at the top of this module.

    Parameters
    ----------
    path : str, Path or sequence of them
        Files, folders (their CSV and Parquet files, without subfolders), or patterns such as
        ``prices/**/*.csv``.
    symbols : sequence of str
        The symbols asked for; empty for all that the files hold.
    as_of : date, optional
        Forget every row of a later session, before anything else in it is read: whatever it holds spoils no
        symbol. A row whose session is no date is not forgotten.

    Notes
    -----
    The files are read once, when something is first asked for. A symbol's rows may lie in several files.
    """

    def __init__(
        self,
        path: str | Path | Sequence[str | Path],
        symbols: Sequence[str] = (),
        as_of: datetime.date | None = None,
    ) -> None:
        paths = [path] if isinstance(path, (str, Path)) else list(path)
        if not paths or any(not str(each).strip() for each in paths):
            raise ParameterError(f"`path` must name at least one file, folder or pattern. Received: {path!r}")
        if isinstance(symbols, str):
            raise ParameterError(f"`symbols` must be a sequence of texts. Received: {symbols!r}")
        self._paths = [str(each) for each in paths]
        self._place = ", ".join(self._paths[:3]) + (" and others" if len(self._paths) > 3 else "")
        self._symbols = tuple(symbols)
        self._as_of = as_of

    def __repr__(self) -> str:
        return f"FilesSource({self._place})"

    def symbols(self) -> tuple[str, ...]:
        """Return the symbols asked for or, if none were, all that the files hold, sorted.

        Raises
        ------
        SourceError
            If a file is missing, unreadable, empty, or lacks a required column, or no row lies up to the
            session that the files are read as of.
        """
        held = self._symbols or tuple(sorted({*self._contents.rows, *self._contents.problems}))
        if not held:
            raise SourceError(
                f"{self._place}: no row lies up to {self._as_of}; later ones have "
                f"{_shorten(sorted(self._contents.later))}"
            )
        return held

    def load(self, symbol: str) -> pd.DataFrame:
        """Return the prices of one symbol, not yet checked.

        Returns
        -------
        DataFrame of shape (n_sessions, 7)
            A price table (`forecaster.prices.base.price_table`).

        Raises
        ------
        SymbolError
            If the files do not hold the symbol, or hold something that is no number, no date, or twice the
            same session of it.
        SourceError
            As `symbols`.
        """
        contents = self._contents
        if symbol in contents.problems:
            raise SymbolError(symbol, contents.problems[symbol])
        if symbol in contents.others:
            raise SymbolError(symbol, f"{self._place} holds this symbol, but it was not asked for")
        if symbol not in contents.rows:
            held = sorted({*contents.rows, *contents.problems, *contents.others})
            until = f" up to {self._as_of}" if self._as_of else ""
            there = f"there are {_shorten(held)}" if held else "there is no other either"
            raise SymbolError(
                symbol, f"no row of {self._place}{until} has this symbol{did_you_mean(symbol, held)}; {there}"
            )
        return price_table(contents.rows[symbol])

    @cached_property
    def _contents(self) -> _Contents:
        files = [file for path in self._paths for file in _find(path)]
        # A file named twice, say by a folder and by a pattern, is one file.
        files = list({file.resolve(): file for file in files}.values())
        tables: list[pd.DataFrame] = []
        problems: dict[str, str] = {}
        others: set[str] = set()
        later: set[str] = set()
        for number, file in enumerate(files):
            is_empty = True
            for block, table, found in _read(file, self._as_of):
                is_empty = is_empty and not block.positions.size and not block.problems
                if not len(table):
                    later.update(str(text) for text in pc.unique(block.columns["symbol"]).to_pylist())
                for symbol, reason in found:
                    problems.setdefault(symbol, reason)
                if self._symbols:
                    others.update(set(table["symbol"]) - set(self._symbols))
                    table = table[table["symbol"].isin(self._symbols)]
                tables.append(table.assign(file=number))
            if is_empty:
                raise SourceError(f"{file}: a price file needs rows; this one has no more than a header")
        return _assemble(files, tables, problems, others, later)


@dataclass(frozen=True, slots=True)
class _Contents:
    """What the files hold: rows of usable symbols, and why the others are not."""

    rows: dict[str, pd.DataFrame]
    problems: dict[str, str]
    others: set[str]
    """Symbols in the files that were not asked for."""
    later: set[str]
    """Symbols of whole blocks of later rows."""


@dataclass(frozen=True, slots=True)
class _Uncut:
    """A row that could not be cut into cells."""

    symbol: str
    position: int
    reason: str
    day: int | None
    """Days from 1970-01-01 to its session, where that can be told."""


@dataclass(frozen=True, slots=True)
class _Block:
    """Some rows of one file, as they stand there."""

    file: Path
    unit: str
    """How rows are counted: by ``line`` or by ``row``."""
    positions: NDArray[np.int64]
    columns: dict[str, Any]
    """Arrow arrays of the known columns, each of any type."""
    problems: list[_Uncut]
    """Rows that could not be cut into cells."""

    def place(self, position: int) -> str:
        return f"{self.file}, {self.unit} {position}"


def _find(path: str) -> list[Path]:
    """Return the files that a path, folder or pattern stands for."""
    try:
        target = Path(path).expanduser()
        if target.is_dir():
            files = sorted(file for file in target.iterdir() if _is_data(file))
            if not files:
                raise SourceError(
                    f"{path}: a folder of prices needs files *.csv, *.csv.gz or *.parquet; it has none "
                    "(for those in subfolders use a pattern such as folder/**/*.csv)"
                )
            return files
        if target.is_file():
            if not target.name.lower().endswith(_SUFFIXES):
                raise SourceError(f"{path}: a price file must end in {', '.join(_SUFFIXES)}")
            return [target]
        root, pattern = _pattern(target)
        if not glob.has_magic(pattern):
            raise SourceError(
                f"{path}: there is no such file or folder; paths are relative to the folder of the job file"
            )
        files = sorted(root / file for file in glob.glob(pattern, root_dir=root, recursive=True))  # noqa: PTH207
        files = [file for file in files if _is_data(file)]
    except (OSError, ValueError, RuntimeError, re.error) as error:
        raise SourceError(f"{path}: cannot be looked up: {_one_line(error)}") from error
    if not files:
        raise SourceError(f"{path}: no file that ends in {', '.join(_SUFFIXES)} matches this pattern")
    return files


def _pattern(path: Path) -> tuple[Path, str]:
    """Cut a path where what exists ends: a ``[`` in the name of a folder that exists is no pattern."""
    root = Path(path.anchor)
    parts = path.relative_to(root).parts
    for number, part in enumerate(parts):
        if not (root / part).is_dir():
            return root, str(Path(*parts[number:]))
        root = root / part
    return root, ""


def _is_data(file: Path) -> bool:
    """Tell data from what file systems and Spark leave beside it (``._x.csv``, ``_SUCCESS``)."""
    return file.is_file() and file.name.lower().endswith(_SUFFIXES) and not file.name.startswith((".", "_"))


def _read(
    file: Path, as_of: datetime.date | None
) -> Iterator[tuple[_Block, pd.DataFrame, list[tuple[str, str]]]]:
    """Yield blocks of rows, those up to ``as_of`` parsed, and the symbols that could not be, and why."""
    blocks = _read_parquet if file.name.lower().endswith(".parquet") else _read_csv
    try:
        for block in blocks(file):
            yield block, *_parse(_until(block, as_of))
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException, UnicodeError) as error:
        raise SourceError(f"{file}: cannot be read: {_one_line(error)}") from error


def _until(block: _Block, as_of: datetime.date | None) -> _Block:
    """Forget the rows of sessions after ``as_of``, unread but for the session."""
    if as_of is None:
        return block
    sessions, wrong = _parse_sessions(block)
    keep = wrong | (sessions <= np.datetime64(as_of, "s"))
    columns = {name: column.filter(pa.array(keep)) for name, column in block.columns.items()}
    last = (as_of - datetime.date(1970, 1, 1)).days
    problems = [problem for problem in block.problems if problem.day is None or problem.day <= last]
    return _Block(block.file, block.unit, block.positions[keep], columns, problems)


def _read_csv(file: Path) -> Iterator[_Block]:
    # csv.reader instead of pandas: it keeps every cell as text, knows the line, and tells a short row from
    # one with empty cells.
    reader = csv.reader(io.StringIO(_decode(file), newline=""), strict=True)
    header: list[str] | None = next((row for row in reader if any(cell.strip() for cell in row)), None)
    if header is None:
        raise SourceError(f"{file}: a price file needs columns and rows; this one is empty")
    names = [name.strip() for name in header]
    _require_columns(file, names)
    known = {name: names.index(name) for name in _COLUMNS if name in names}
    while True:
        before = reader.line_num
        records = [(reader.line_num, row) for row in itertools.islice(reader, _BLOCK)]
        if not records:
            return
        # A record begins on the line after the end of the one before it.
        ends = np.fromiter((line for line, _ in records), dtype=np.int64, count=len(records))
        starts = np.concatenate(([before], ends[:-1])) + 1
        whole: list[list[str]] = []
        lines: list[int] = []
        problems: list[_Uncut] = []
        for line, (_, row) in zip(starts.tolist(), records, strict=True):
            if len(row) == len(names):
                whole.append(row)
                lines.append(line)
            elif any(cell.strip() for cell in row):
                known_cells = {name: row[known[name]].strip() for name in _REQUIRED if len(row) > known[name]}
                reason = f"has {len(row)} cells where the header has {len(names)}"
                day = _parse_date(known_cells.get("session", ""))
                problems.append(_Uncut(known_cells.get("symbol", ""), line, reason, day))
        cells = list(zip(*whole, strict=True)) or [()] * len(names)
        columns = {name: pa.array(cells[place], pa.string()) for name, place in known.items()}
        yield _without_blank_rows(_Block(file, "line", np.array(lines, np.int64), columns, problems))


def _without_blank_rows(block: _Block) -> _Block:
    """Leave out rows of nothing but empty cells, as spreadsheets write them below a table."""
    filled = np.zeros(block.positions.size, dtype=bool)
    for column in block.columns.values():
        filled |= pc.greater(pc.utf8_length(pc.utf8_trim_whitespace(column)), 0).to_numpy(
            zero_copy_only=False
        )
    if filled.all():
        return block
    columns = {name: column.filter(pa.array(filled)) for name, column in block.columns.items()}
    return _Block(block.file, block.unit, block.positions[filled], columns, block.problems)


def _decode(file: Path) -> str:
    data = file.read_bytes()
    if file.name.lower().endswith(".gz"):
        data = gzip.decompress(data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SourceError(
            f"{file}: a CSV file must be UTF-8 text; line {line} is not (byte 0x{data[error.start]:02x})"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise SourceError(
            f"{file}: a CSV file must be UTF-8 text; line {line} holds a zero byte; save it as text"
        )
    return text


def _read_parquet(file: Path) -> Iterator[_Block]:
    # ParquetFile, as read_table would make columns of folder names like `symbol=A`.
    with pq.ParquetFile(file) as parquet:
        names = parquet.schema_arrow.names
        _require_columns(file, names)
        known = [name for name in _COLUMNS if name in names]
        done = 0
        for batch in parquet.iter_batches(batch_size=_BLOCK, columns=known):
            positions = np.arange(done + 1, done + batch.num_rows + 1, dtype=np.int64)
            done += batch.num_rows
            yield _Block(file, "row", positions, {name: _plain(batch.column(name)) for name in known}, [])


def _plain(column: Any) -> Any:
    """Undo the dictionary encoding of a categorical column."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _require_columns(file: Path, names: Sequence[str]) -> None:
    twice = sorted({name for name in names if name in _COLUMNS and list(names).count(name) > 1})
    if twice:
        raise SourceError(
            f"{file}: each column may occur once; {', '.join(twice)} occurs more often; "
            "remove or rename the others"
        )
    missing = [name for name in _REQUIRED if name not in names]
    unknown = [name for name in names if name not in _COLUMNS]
    absent = [name for name in _COLUMNS if name not in names]
    meant = {name: known for name in unknown if (known := _nearest_column(name, absent))}
    renames = ", ".join(f"rename {name!r} to {known!r}" for name, known in meant.items())
    if missing:
        raise SourceError(
            f"{file}: a price file needs the columns {', '.join(_REQUIRED)}; missing: {', '.join(missing)}; "
            f"the file has {_shorten(names)}" + (f"; did you mean to {renames}?" if renames else "")
        )
    if meant:
        # To pass over a mistyped `split` would change every return of the symbol.
        raise SourceError(
            f"{file}: unknown columns that look like known ones are refused: {renames}, or remove them "
            f"(known: {', '.join(_COLUMNS)})"
        )


def _nearest_column(name: str, absent: Sequence[str]) -> str | None:
    """Return the absent column that `name` was probably meant to be."""
    folded = " ".join(name.casefold().split())
    for column in absent:
        if folded in _OTHER_NAMES.get(column, ()):
            return column
        # Whatever they are called in full: to miss them would change the returns.
        if column in ("dividend", "split") and column in folded:
            return column
    # A column that may be absent must look very like one before a file is refused for it.
    required = [column for column in absent if column in _REQUIRED]
    return nearest(folded, required) or nearest(folded, absent, cutoff=0.75)


def _require_symbols(block: _Block) -> None:
    """Bring the symbols to text; a row without one can be laid at no symbol's door."""
    column = block.columns["symbol"]
    kind = column.type
    if pa.types.is_integer(kind) or pa.types.is_null(kind) or _is_text(kind):
        column = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))
    else:
        raise SourceError(f"{block.file}: the column `symbol` must be text or whole numbers; it is {kind}")
    block.columns["symbol"] = column
    blank = pc.equal(column, "").to_numpy(zero_copy_only=False)
    nameless = [problem.position for problem in block.problems if not problem.symbol]
    places = [*block.positions[blank].tolist(), *nameless]
    if places:
        raise SourceError(f"{block.place(min(places))}: each row needs a symbol; this one has none")
    for symbol in [*pc.unique(column).to_pylist(), *(problem.symbol for problem in block.problems)]:
        if not symbol.isprintable():
            raise SourceError(f"{block.file}: a symbol must be printable text. Received: {_quote(symbol)}")


def _parse(block: _Block) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Turn cells into symbols, dates and numbers; say of each symbol which cell could not be."""
    _require_symbols(block)
    data = pd.DataFrame({"symbol": block.columns["symbol"].to_numpy(zero_copy_only=False)})
    problems = [
        (problem.position, problem.symbol, f"{block.place(problem.position)}: {problem.reason}")
        for problem in block.problems
    ]

    def note(wrong: NDArray[np.bool_], column: str, rule: str) -> None:
        rows = np.flatnonzero(wrong)
        for row in rows[~data["symbol"].iloc[rows].duplicated().to_numpy()].tolist():
            line = int(block.positions[row])
            value = _value(block.columns[column], row)
            reason = f"{block.place(line)}: `{column}` must be {rule}. Received: {_quote(value)}"
            problems.append((line, data["symbol"].iloc[row], reason))

    data["session"], wrong = _parse_sessions(block)
    note(wrong, "session", "a date YYYY-MM-DD without a time of day")
    for column in PRICE_COLUMNS:
        if column in block.columns:
            data[column], wrong = _parse_numbers(block, column)
            note(wrong, column, "a plain finite number such as 1234.5, or empty")
    data["position"] = block.positions
    return data, [(symbol, reason) for _, symbol, reason in sorted(problems)]


def _parse_sessions(block: _Block) -> tuple[NDArray[np.datetime64], NDArray[np.bool_]]:
    column = block.columns["session"]
    kind = column.type
    days: NDArray[np.int64]
    if _is_text(kind):
        encoded = pc.fill_null(column.cast(pa.string()), "").dictionary_encode()
        known = [_parse_date(text) for text in encoded.dictionary.to_pylist()]
        wrong_texts = np.array([day is None for day in known], dtype=bool)
        day_numbers = np.array([day or 0 for day in known], dtype=np.int64)
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        days, wrong = day_numbers[codes], wrong_texts[codes]
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_null(kind):
        unit = kind.unit if pa.types.is_timestamp(kind) else "s"
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            column = pc.local_timestamp(column)
        ticks = pc.fill_null(column.cast(pa.timestamp(unit)).cast(pa.int64()), 0)
        days, rest = np.divmod(ticks.to_numpy(zero_copy_only=False), _TICKS_A_DAY[unit])
        wrong = column.is_null().to_numpy(zero_copy_only=False) | (rest != 0)
        wrong = wrong | (days < _FIRST_DAY) | (days > _LAST_DAY)
    else:
        raise SourceError(f"{block.file}: the column `session` must be dates or text; it is {kind}")
    return np.where(wrong, 0, days).astype("datetime64[D]").astype("datetime64[s]"), wrong


def _parse_date(text: str) -> int | None:
    """Return the days since 1970-01-01, or None if the text is not a date."""
    text = text.strip()
    if not _DATE.fullmatch(text):
        return None
    try:
        return (datetime.date.fromisoformat(text) - datetime.date(1970, 1, 1)).days
    except ValueError:
        return None


def _parse_numbers(block: _Block, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    column = block.columns[name]
    kind = column.type
    if _is_text(kind):
        # Arrow rounds to the nearest double, so CSV and Parquet give the same bits; the pattern keeps out
        # what else it would take for a number (inf).
        text = pc.utf8_trim_whitespace(pc.fill_null(column.cast(pa.string()), ""))
        plain = pc.match_substring_regex(text, _NUMBER)
        missing = pc.is_in(text, value_set=pa.array(_MISSING))
        digits = pc.utf8_ltrim(pc.if_else(plain, text, pa.scalar(None, pa.string())), characters="+")
        wrong = ~(pc.or_(plain, missing).to_numpy(zero_copy_only=False))
        numbers = digits.cast(pa.float64())
    elif _is_number(kind) or pa.types.is_null(kind):
        numbers = column.cast(pa.float64(), safe=False)
        wrong = np.zeros(len(column), dtype=bool)
    else:
        raise SourceError(f"{block.file}: the column `{name}` must be numbers; it is {kind}")
    values = numbers.to_numpy(zero_copy_only=False).astype(np.float64)
    return values, wrong | np.isinf(values)


def _assemble(
    files: list[Path],
    tables: list[pd.DataFrame],
    problems: dict[str, str],
    others: set[str],
    later: set[str],
) -> _Contents:
    """Put the rows of each symbol together and see that they agree."""
    units = ["row" if file.name.lower().endswith(".parquet") else "line" for file in files]
    traded = {
        int(number): "dividend" in table.columns or "split" in table.columns
        for table in tables
        for number in table["file"].unique()
    }
    rows: dict[str, pd.DataFrame] = {}
    everything = pd.concat(tables, ignore_index=True)
    for symbol, group in everything.groupby("symbol", sort=True):
        name = str(symbol)
        if name in problems:
            continue
        kinds = {traded[number]: number for number in group["file"].unique()}
        if len(kinds) > 1:
            problems[name] = (
                f"a symbol's prices must be all as traded or all as given; {files[kinds[True]]} has a "
                f"dividend or split column and {files[kinds[False]]} has none; give both files the column"
            )
            continue
        twice = group["session"].duplicated(keep=False)
        if twice.any():
            day = group.loc[twice, "session"].min()
            places = [
                f"{units[number]} {position} of {files[number]}"
                for number, position in group.loc[group["session"] == day, ["file", "position"]].to_numpy()
            ]
            extra = int(group["session"].duplicated().sum())
            problems[name] = (
                f"sessions must be unique; {day.date()} stands on {places[0]} and on {places[1]} "
                f"({extra} rows too many in all); keep one row a session"
            )
            continue
        rows[name] = group.set_index("session").drop(columns=["symbol", "file", "position"])
    return _Contents(rows, problems, others - set(problems), later)


def _value(column: Any, row: int) -> object:
    try:
        return column[row].as_py()
    except (OverflowError, ValueError):
        # A date beyond the year 9999, which Python cannot hold.
        return f"{column.type} {column[row].value}"


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_number(kind: Any) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def _quote(value: object) -> str:
    """Return the value as it is written, cut to length, on one line."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _shorten(names: Sequence[str]) -> str:
    shown = ", ".join(_quote(name)[1:-1] for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
