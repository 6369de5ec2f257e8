"""Files are read strictly: text stays text, numbers keep their bits, and each bad cell is named."""

from __future__ import annotations

import datetime
import gzip
import math
import random
import shutil
import tempfile
import zoneinfo
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.errors import ForecasterError, ParameterError, SourceError, SymbolError
from forecaster.prices.base import PRICE_COLUMNS, content_hash, load_prices
from forecaster.prices.files import FilesSource

HEADER = "symbol,session,open,high,low,close,volume\n"
ROWS = "A,2020-01-02,1,2,1,1.5,10\nA,2020-01-03,1,2,1,1.25,20\nB,2020-01-02,,,,7,\n"
TICKERS = ("ON", "NO", "NA", "TRUE", "null", "nan", "None", "0700", "1e5", "007.HK", "BRK.B", "^GSPC", "ÆØ")


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


class Writer:
    """Writes a file and returns a source of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, content: str | bytes, name: str = "prices.csv") -> FilesSource:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return FilesSource(path)

    def parquet(self, columns: dict[str, object], name: str = "prices.parquet") -> FilesSource:
        pq.write_table(pa.table(columns), self.folder / name)
        return FilesSource(self.folder / name)


def read(source: FilesSource) -> dict[str, pd.DataFrame]:
    return {symbol: source.load(symbol) for symbol in source.symbols()}


def symbol_error(source: FilesSource, symbol: str = "A") -> str:
    """Return the reason why `symbol` is left out, and see that it is one line and that only it is."""
    with pytest.raises(SymbolError) as caught:
        source.load(symbol)
    assert "\n" not in str(caught.value)
    assert symbol in source.symbols()
    return caught.value.reason


def source_error(source: FilesSource) -> str:
    with pytest.raises(SourceError) as caught:
        source.symbols()
    with pytest.raises(SourceError):
        source.load("A")
    assert "\n" not in str(caught.value)
    return str(caught.value)


# What is read


def test_rows_become_price_tables(write: Writer) -> None:
    frames = read(write(HEADER + ROWS))
    assert list(frames) == ["A", "B"]
    assert frames["A"].index.equals(
        pd.DatetimeIndex(["2020-01-02", "2020-01-03"], name="session").as_unit("s")
    )
    assert frames["A"].to_numpy().tolist() == [[1, 2, 1, 1.5, 10, 0, 1], [1, 2, 1, 1.25, 20, 0, 1]]
    assert tuple(frames["A"].columns) == PRICE_COLUMNS
    assert set(frames["B"].dtypes) == {np.dtype("float64")}
    np.testing.assert_array_equal(frames["B"].to_numpy(), [[np.nan] * 3 + [7, np.nan, 0, 1]])


def test_close_alone_is_enough_and_columns_come_in_any_order(write: Writer) -> None:
    frame = write("close,currency,session,symbol\n7,USD,2020-01-02,A\n").load("A")
    np.testing.assert_array_equal(frame.to_numpy(), [[np.nan, np.nan, np.nan, 7, np.nan, 0, 1]])


def test_empty_actions_are_no_actions(write: Writer) -> None:
    text = (
        "symbol,session,close,dividend,split\nA,2020-01-02,1,,\nA,2020-01-03,1,0.5,NA\nA,2020-01-06,1,nan,4\n"
    )
    frame = write(text).load("A")
    assert frame["dividend"].tolist() == [0, 0.5, 0]
    assert frame["split"].tolist() == [1, 1, 4]


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "categorical"])
def test_tickers_are_text(write: Writer, kind: str) -> None:
    if kind.startswith("csv"):
        rows = "".join(f"{ticker},2020-01-02,{place + 1}\n" for place, ticker in enumerate(TICKERS))
        data = f"symbol,session,close\n{rows}".encode()
        source = write(gzip.compress(data) if kind == "csv.gz" else data, f"x.{kind}")
    else:
        symbols = pa.array(TICKERS).dictionary_encode() if kind == "categorical" else list(TICKERS)
        closes = [float(place + 1) for place in range(len(TICKERS))]
        source = write.parquet({"symbol": symbols, "session": ["2020-01-02"] * len(TICKERS), "close": closes})
    assert source.symbols() == tuple(sorted(TICKERS))
    for place, ticker in enumerate(TICKERS):
        assert source.load(ticker)["close"].tolist() == [place + 1]


def test_whole_number_tickers_in_parquet_become_text(write: Writer) -> None:
    for symbols in (pa.array([700, 5]), pa.array([700, 5]).dictionary_encode()):
        source = write.parquet({"symbol": symbols, "session": ["2020-01-02"] * 2, "close": [1, 2]})
        assert source.symbols() == ("5", "700")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_bom_line_ends_quotes_blank_lines_and_spaces_change_nothing(write: Writer, end: str) -> None:
    plain = read(write(HEADER + ROWS))
    dressed = "\ufeff\n" + HEADER.replace(",", " ,") + "\n" + ROWS.replace("A,", '" A",') + "\n,,,,,,\n   \n"
    other = read(write(dressed.replace("\n", end), "dressed.csv"))
    assert content_hash(other) == content_hash(plain)


FLOATS = st.floats(5e-324, 1e308) | st.floats(0.01, 1000).map(lambda value: round(value, 2))


@settings(deadline=None, max_examples=20)
@given(
    st.dictionaries(
        st.sampled_from(TICKERS),
        st.dictionaries(st.dates(), st.lists(FLOATS | st.just(math.nan), min_size=5, max_size=5), min_size=1),
        min_size=1,
    ),
    st.randoms(use_true_random=False),
)
def test_csv_and_parquet_keep_every_bit(
    prices: dict[str, dict[datetime.date, list[float]]], shuffler: random.Random
) -> None:
    rows = [(symbol, day, numbers) for symbol, days in prices.items() for day, numbers in days.items()]
    shuffler.shuffle(rows)
    columns = dict(zip(PRICE_COLUMNS, zip(*(numbers for *_, numbers in rows), strict=True), strict=False))
    table = pa.table({"symbol": [row[0] for row in rows], "session": [row[1] for row in rows], **columns})
    text = "".join(f"{symbol},{day},{','.join(map(repr, numbers))}\n" for symbol, day, numbers in rows)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.csv").write_text(HEADER + text, encoding="utf-8")
        pq.write_table(table, Path(folder, "a.parquet"))
        from_csv = read(FilesSource(Path(folder, "a.csv")))
        from_parquet = read(FilesSource(Path(folder, "a.parquet")))
    assert set(from_csv) == set(prices)
    for symbol, days in prices.items():
        frame = from_csv[symbol]
        assert frame.index.date.tolist() == sorted(days)  # type: ignore[attr-defined]
        expected = np.array([days[day] for day in sorted(days)])
        assert frame.to_numpy()[:, :5].tobytes() == expected.tobytes()
    assert content_hash(from_csv) == content_hash(from_parquet)


@settings(deadline=None)
@given(st.lists(st.text("0123456789.eE+-_ xnaNinfIF,\u0661\u00a0", max_size=8), min_size=1, max_size=8))
def test_numbers_are_what_python_takes_for_a_finite_one(cells: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows = "".join(f'S{place},2020-01-02,"{cell}"\n' for place, cell in enumerate(cells))
        Path(folder, "a.csv").write_text("symbol,session,close\n" + rows, encoding="utf-8")
        source = FilesSource(f"{folder}/a.csv")
        for place, cell in enumerate(cells):
            text = cell.strip()
            expected: float | None = math.nan
            if text not in ("", "nan", "NaN", "NA"):
                try:
                    expected = float(text) if text.isascii() and "_" not in text else None
                except ValueError:
                    expected = None
                if expected is not None and not math.isfinite(expected):
                    expected = None
            if expected is None:
                with pytest.raises(
                    SymbolError, match=f"line {place + 2}: `close` must be a plain finite number"
                ):
                    source.load(f"S{place}")
            else:
                np.testing.assert_array_equal(source.load(f"S{place}")["close"], [expected])


# Sessions


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime.date(2020, 3, 9), datetime.date(2020, 3, 10)]),
        pa.array([datetime.date(2020, 3, 9), datetime.date(2020, 3, 10)], pa.date64()),
        *(
            pa.array([datetime.datetime(2020, 3, 9), datetime.datetime(2020, 3, 10)], pa.timestamp(unit))
            for unit in ("s", "ms", "us", "ns")
        ),
        pa.array(
            [
                datetime.datetime(2020, 3, day, tzinfo=zoneinfo.ZoneInfo("America/New_York"))
                for day in (9, 10)
            ],
            pa.timestamp("us", "America/New_York"),
        ),
        pa.array(
            [datetime.datetime(2020, 3, day, tzinfo=zoneinfo.ZoneInfo("Asia/Tokyo")) for day in (9, 10)],
            pa.timestamp("ns", "Asia/Tokyo"),
        ),
        pa.array(["2020-03-09", "2020-03-10"]).dictionary_encode(),
        pa.array(["2020-03-09", "2020-03-10"], pa.large_string()),
    ],
    ids=lambda column: str(column.type),
)
def test_parquet_sessions_are_dates_where_they_were_made(write: Writer, column: pa.Array) -> None:
    frame = write.parquet({"symbol": ["A", "A"], "session": column, "close": [1.0, 2.0]}).load("A")
    assert [str(day) for day in frame.index.date] == ["2020-03-09", "2020-03-10"]  # type: ignore[attr-defined]


def test_a_frame_written_by_pandas_with_sessions_as_its_index(tmp_path: Path) -> None:
    index = pd.date_range("2020-01-01", periods=3, name="session")
    pd.DataFrame({"symbol": "A", "close": [1.0, 2.0, 3.0]}, index=index).to_parquet(tmp_path / "a.parquet")
    assert FilesSource(tmp_path / "a.parquet").load("A").index.equals(index.as_unit("s"))


@pytest.mark.parametrize(
    "text",
    ["2020-02-30", "2020-1-2", "20200102", "02/01/2020", "2020-01-02 00:00", "0000-01-01", "", "x",
     "2020-01-02T00:00:00", "\u0662\u0660\u0662\u0660-01-02", "2020-01-02\n"],
)  # fmt: skip
def test_what_is_no_iso_date_is_named(write: Writer, text: str) -> None:
    source = write(f'symbol,session,close\nB,2020-01-02,1\nA,2020-01-02,1\nA,"{text}",1\n')
    if text == "2020-01-02\n":
        assert "sessions must be unique; 2020-01-02 stands on line 3 of" in symbol_error(source)
        return
    assert symbol_error(source) == (
        f"{source._paths[0]}, line 4: `session` must be a date YYYY-MM-DD without a time of day. "
        f"Received: {text!r}"
    )
    assert len(source.load("B")) == 1


def test_a_time_of_day_is_refused(write: Writer) -> None:
    times = [datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 3, 16)]
    source = write.parquet({"symbol": ["A", "A"], "session": times, "close": [1.0, 1.0]})
    assert symbol_error(source).endswith(
        "row 2: `session` must be a date YYYY-MM-DD without a time of day. Received: '2020-01-03 16:00:00'"
    )
    utc = pa.array([datetime.datetime(2020, 1, 2, 5)], pa.timestamp("s", "UTC"))
    source = write.parquet({"symbol": ["A"], "session": utc, "close": [1.0]})
    assert "Received: '2020-01-02 05:00:00+00:00'" in symbol_error(source)


def test_a_date_beyond_the_calendar_is_named(write: Writer) -> None:
    for days in (2**31 - 1, -(2**31), 2932897):
        far = pa.array([days], pa.int32()).cast(pa.date32())
        reason = symbol_error(write.parquet({"symbol": ["A"], "session": far, "close": [1.0]}))
        assert reason.endswith(f"without a time of day. Received: 'date32[day] {days}'")
    last = pa.array([2932896], pa.int32()).cast(pa.date32())
    frame = write.parquet({"symbol": ["A"], "session": last, "close": [1.0]}).load("A")
    assert str(frame.index[0].date()) == "9999-12-31"


def test_a_null_session_is_named(write: Writer) -> None:
    for kind in (pa.date32(), pa.string(), pa.timestamp("ns"), pa.null()):
        column = pa.array([None], kind)
        reason = symbol_error(write.parquet({"symbol": ["A"], "session": column, "close": [1.0]}))
        assert "row 1: `session` must be a date" in reason


# Bad cells spoil their symbol


@pytest.mark.parametrize("value", ["abc", "1,234", "inf", "-Infinity", "1e400", "1_000", "0x10", "$5"])
@pytest.mark.parametrize("column", ["close", "volume"])
def test_text_for_a_number_spoils_its_symbol_only(write: Writer, value: str, column: str) -> None:
    place = HEADER.strip().split(",").index(column)
    cells = ["A", "2020-01-06", "1", "1", "1", "1", "1"]
    cells[place] = f'"{value}"'
    source = write(HEADER + ROWS + ",".join(cells) + "\n")
    assert symbol_error(source) == (
        f"{source._paths[0]}, line 5: `{column}` must be a plain finite number such as 1234.5, or empty. "
        f"Received: {value!r}"
    )
    loaded = load_prices(source, (), 1)
    assert list(loaded.frames) == ["B"]
    assert list(loaded.failures) == ["A"]


def test_the_first_bad_cell_is_the_one_named(write: Writer) -> None:
    rows = "A,2020-01-02,1,1,1,1,x\nA,2020-01-03,1,1,1,y,1\nA,z,1,1,1,1,1\nB,2020-01-02,1,1,1,q,1\n"
    source = write(HEADER + rows)
    assert "line 2: `volume`" in symbol_error(source)
    assert "line 5: `close`" in symbol_error(source, "B")


def test_lines_are_counted_through_quoted_breaks_and_blank_lines(write: Writer) -> None:
    text = 'symbol,note,session,close\n\nA,"two\nlines",2020-01-02,1\n\nB,,2020-01-02,x\n'
    assert "line 6: `close`" in symbol_error(write(text), "B")
    # A record is found by the line on which it begins.
    assert "line 6: `close`" in symbol_error(write(text.replace("B,,", 'B,"three\nmore\nlines",')), "B")


def test_lines_are_counted_past_the_first_block(write: Writer) -> None:
    days = pd.date_range("1700-01-01", periods=70_000).strftime("%Y-%m-%d")
    rows = "".join(f"A,{day},1\n" for day in days)
    source = write("symbol,session,close\n" + rows + "B,2020-01-02,x\n")
    assert "line 70002: `close`" in symbol_error(source, "B")
    assert len(source.load("A")) == 70_000


@pytest.mark.parametrize(
    ("row", "count"), [("A,2020-01-06,1", 3), ("A,2020-01-06,1,2,1,1,234,000", 8), ("A", 1)]
)
def test_a_short_or_long_row_is_no_holiday(write: Writer, row: str, count: int) -> None:
    source = write(HEADER + ROWS + row + "\n")
    assert symbol_error(source).endswith(f"line 5: has {count} cells where the header has 7")
    assert len(source.load("B")) == 1


def test_parquet_numbers(write: Writer) -> None:
    import decimal

    columns: dict[str, object] = {
        "symbol": ["A", "A", "B"], "session": ["2020-01-02", "2020-01-03", "2020-01-02"],
        "open": pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("3.00")]),
        "high": pa.array([1, None, 3], pa.int32()), "low": pa.array([1.5, None, 2.5], pa.float32()),
        "close": ["1.25", "", "NA"], "volume": pa.array([2**53 + 1, None, 1], pa.uint64()),
        "split": pa.nulls(3),
    }  # fmt: skip
    frames = read(write.parquet(columns))
    np.testing.assert_array_equal(
        frames["A"].to_numpy(), [[1.1, 1, 1.5, 1.25, 2.0**53, 0, 1], [np.nan] * 5 + [0, 1]]
    )
    assert math.isnan(frames["B"]["close"].iloc[0])
    columns["close"] = [1.0, math.inf, 2.0]
    source = write.parquet(columns)
    assert symbol_error(source).endswith(
        "row 2: `close` must be a plain finite number such as 1234.5, or empty. Received: 'inf'"
    )
    assert len(source.load("B")) == 1


# Several files


def test_a_folder_a_pattern_and_a_list_of_files(write: Writer) -> None:
    write(HEADER + "A,2020-01-02,1,1,1,1,1\n", "in/a.csv")
    write(HEADER + "A,2020-01-03,1,1,1,2,1\n", "in/b.CSV")
    write(gzip.compress((HEADER + "B,2020-01-02,1,1,1,1,1\n").encode()), "in/c.csv.gz")
    write("junk", "in/._a.csv")
    write("junk", "in/notes.txt")
    write(HEADER + "C,2020-01-02,1,1,1,1,1\n", "in/deep/d.csv")
    folder = write.folder / "in"
    whole = FilesSource(folder)
    assert whole.symbols() == ("A", "B")
    assert whole.load("A")["close"].tolist() == [1, 2]
    assert FilesSource(str(folder / "**" / "*.csv")).symbols() == ("A", "C")
    assert FilesSource([folder / "c.csv.gz", folder / "deep"]).symbols() == ("B", "C")
    # A file reached in two ways is one file, not a duplicate of itself.
    again = FilesSource([folder, folder / "a.csv", str(folder / "*.csv")])
    assert content_hash(read(again)) == content_hash(read(whole))


def test_brackets_in_the_name_of_a_folder_are_no_pattern(write: Writer) -> None:
    write(HEADER + ROWS, "run[1]/a.csv")
    write("symbol,session,close\nC,2020-01-02,3\n", "run[1]/deep[x]/c.csv")
    write("symbol,session,close\nWRONG,2020-01-02,3\n", "run1/a.csv")
    folder = write.folder / "run[1]"
    assert FilesSource(folder / "*.csv").symbols() == ("A", "B")
    assert FilesSource(folder / "**" / "*.csv").symbols() == ("A", "B", "C")
    assert FilesSource(folder / "deep[x]" / "?.csv").symbols() == ("C",)
    # Where no such folder exists, it is a pattern.
    assert FilesSource(write.folder / "run[0-9]" / "*.csv").symbols() == ("WRONG",)


GARBAGE = (
    "A,2020-02-03,one,2,1,oops,1\n",
    "A,2020-02-03,1,2,1,inf,1\n",
    "A,2020-02-03,1,2,1\n",
    "A,2020-02-03,1,2,1,1,1,1,1,1\n",
    "A,2020-02-03,1,2,1,1.5,1\nA,2020-02-03,1,2,1,1.6,1\n",
    ",2020-02-03,1,2,1,1.5,1\n",
    "\x07A,2020-02-03,1,2,1,1.5,1\n",
    "A,2020-02-03,1,2,1,-5,1\nC,2020-02-03,,,,x,\n",
)


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_stands_after_the_evening_spoils_nothing(write: Writer, garbage: str) -> None:
    write(HEADER + ROWS, "clean.csv")
    evening = datetime.date(2020, 1, 31)
    clean = FilesSource(write.folder / "clean.csv", as_of=evening)
    write(HEADER + garbage + ROWS, "dirty.csv")
    dirty = FilesSource(write.folder / "dirty.csv", as_of=evening)
    assert dirty.symbols() == clean.symbols() == ("A", "B")
    for symbol in clean.symbols():
        pd.testing.assert_frame_equal(dirty.load(symbol), clean.load(symbol))
    # On the day itself it stands in the way.
    with pytest.raises((SourceError, SymbolError)):
        read(FilesSource(write.folder / "dirty.csv", as_of=datetime.date(2020, 2, 3)))


@given(day=st.dates(datetime.date(2019, 12, 30), datetime.date(2020, 1, 8)))
def test_as_of_is_the_rows_up_to_the_evening(
    tmp_path_factory: pytest.TempPathFactory, day: datetime.date
) -> None:
    folder = tmp_path_factory.mktemp("as-of")
    days = [datetime.date(2020, 1, number) for number in range(1, 6)]
    rows = pd.DataFrame({"symbol": "A", "session": days, "close": np.arange(1.0, 6.0)})
    rows.to_csv(folder / "a.csv", index=False)
    rows.to_parquet(folder / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        source = FilesSource(folder / name, ["A"], day)
        if day < days[0]:
            with pytest.raises(SymbolError, match=f"up to {day} has this symbol; there is no other either"):
                source.load("A")
        else:
            whole = FilesSource(folder / name).load("A")
            pd.testing.assert_frame_equal(source.load("A"), whole[whole.index <= pd.Timestamp(day)])


def test_brackets_in_a_name_that_exists_are_no_pattern(write: Writer) -> None:
    assert write(HEADER + ROWS, "a[1].csv").symbols() == ("A", "B")


def test_the_same_session_in_two_files_is_named_with_both_places(write: Writer) -> None:
    write(HEADER + "A,2020-01-03,1,1,1,1,1\nA,2020-01-02,1,1,1,1,1\nB,2020-01-02,1,1,1,1,1\n", "in/a.csv")
    write("", "in/empty.txt")
    table = {"symbol": ["A", "A"], "session": ["2020-01-06", "2020-01-03"], "close": [1.0, 1.0]}
    write.parquet(table, "in/b.parquet")
    folder = write.folder / "in"
    source = FilesSource(folder)
    assert symbol_error(source) == (
        f"sessions must be unique; 2020-01-03 stands on line 2 of {folder / 'a.csv'} and on row 2 of "
        f"{folder / 'b.parquet'} (1 rows too many in all); keep one row a session"
    )
    assert len(source.load("B")) == 1


def test_prices_as_traded_and_as_given_do_not_mix_in_a_symbol(write: Writer) -> None:
    write("symbol,session,close,split\nA,2020-01-02,1,1\nB,2020-01-02,1,1\n", "in/a.csv")
    write("symbol,session,close\nA,2020-01-03,1\nC,2020-01-02,1\n", "in/b.csv")
    source = FilesSource(write.folder / "in")
    assert "must be all as traded or all as given" in symbol_error(source)
    assert list(load_prices(source, (), 1).frames) == ["B", "C"]


def test_symbols_asked_for(write: Writer) -> None:
    write(HEADER + ROWS + "D,2020-01-02,1,1,1,x,1\n")
    source = FilesSource(write.folder / "prices.csv", symbols=("B", "b2", "ZZZZZ"))
    assert source.symbols() == ("B", "b2", "ZZZZZ")
    assert len(source.load("B")) == 1
    assert symbol_error(source, "b2").endswith("has this symbol (did you mean 'B'?); there are A, B, D")
    assert symbol_error(source, "ZZZZZ").endswith("prices.csv has this symbol; there are A, B, D")
    with pytest.raises(SymbolError, match=r"holds this symbol, but it was not asked for"):
        source.load("A")


# A source that cannot be used


@pytest.mark.parametrize(
    ("header", "text"),
    [
        ("Symbol,session,close", "missing: symbol; the file has Symbol, session, close; did you mean"),
        ("symbol,date,Close", "missing: session, close; the file has symbol, date, Close; did you mean"),
        ("symbol,date,Close", "did you mean to rename 'date' to 'session', rename 'Close' to 'close'?"),
        ("ticker,session,Adj Close", "rename 'ticker' to 'symbol', rename 'Adj Close' to 'close'?"),
        ("unique_id,ds,y", "rename 'unique_id' to 'symbol', rename 'ds' to 'session', rename 'y' to 'cl"),
        ("symbol;session;close", "missing: symbol, session, close; the file has symbol;session;close"),
        ("a,b,c", "missing: symbol, session, close; the file has a, b, c"),
        ("symbol,session,close,close", "each column may occur once; close occurs more often"),
        ("symbol,session,close,Split", "look like known ones are refused: rename 'Split' to 'split', or r"),
        ("symbol,session,close,Stock Splits", "rename 'Stock Splits' to 'split'"),
        ("symbol,session,close,dividends", "rename 'dividends' to 'dividend'"),
        ("symbol,session,close,Volume", "rename 'Volume' to 'volume'"),
        ("symbol,session,close,Hihg", "rename 'Hihg' to 'high'"),
    ],
)  # fmt: skip
def test_mistyped_columns_are_named(write: Writer, header: str, text: str) -> None:
    message = source_error(write(f"{header}\n{','.join('1' * (header.count(',') + 1))}\n"))
    assert text in message
    if "missing" in message:
        assert "a price file needs the columns symbol, session, close; " in message


def test_parquet_columns_are_checked_alike(write: Writer) -> None:
    message = source_error(write.parquet({"symbol": ["A"], "Date": ["2020-01-02"], "close": [1.0]}))
    assert (
        "missing: session; the file has symbol, Date, close; did you mean to rename 'Date' to 's" in message
    )


@pytest.mark.parametrize("extra", ["value", "adj_close", "currency", "exchange", "openint", "vwap", "y"])
def test_further_columns_are_left_aside(write: Writer, extra: str) -> None:
    assert write(f"symbol,session,close,{extra}\nA,2020-01-02,1,x\n").symbols() == ("A",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "this one is empty"),
        (b"\n\n , \n", "this one is empty"),
        (HEADER.encode(), "a price file needs rows; this one has no more than a header"),
        (HEADER.encode() + b"\n,,,,,,\n", "a price file needs rows"),
        ((HEADER + "É,2020").encode("latin-1"), "must be UTF-8 text; line 2 is not (byte 0xc9)"),
        ((HEADER + ROWS).encode("utf-16"), "must be UTF-8 text; line 1 is not (byte 0xff)"),
        ((HEADER + ROWS).encode("utf-16-le"), "must be UTF-8 text; line 1 holds a zero byte"),
        (gzip.compress((HEADER + ROWS).encode(), mtime=0), "must be UTF-8 text; line 1 is not (byte 0x8b)"),
        (HEADER.encode() + b'A,2020-01-02,1,1,1,"1,1\n', "cannot be read: unexpected end of data"),
        (HEADER.encode() + b",2020-01-02,1,1,1,1,1\n", "line 2: each row needs a symbol; this one has none"),
        ((HEADER + ROWS + ",2020-01-02\n").encode(), "line 5: each row needs a symbol; this one has none"),
        ((HEADER + '"A\nB",,,,,1,\n').encode(), r"a symbol must be printable text. Received: 'A\nB'"),
    ],
    ids=str,
)  # fmt: skip
def test_an_unusable_csv_file(write: Writer, content: bytes, text: str) -> None:
    assert text in source_error(write(content))


def test_an_unusable_gzip_file(write: Writer) -> None:
    data = gzip.compress((HEADER + ROWS * 1000).encode())
    assert "cannot be read: Compressed file ended" in source_error(write(data[:-20], "a.csv.gz"))
    assert "cannot be read: Not a gzipped file" in source_error(write(HEADER + ROWS, "b.csv.gz"))


def test_an_unusable_parquet_file(write: Writer) -> None:
    write.parquet({"symbol": ["A"], "session": ["2020-01-02"], "close": [1.0]})
    data = (write.folder / "prices.parquet").read_bytes()
    for cut in (0, 3, 11, len(data) // 2, len(data) - 1):
        assert "cannot be read: " in source_error(write(data[:cut], "cut.parquet"))
    assert "cannot be read: " in source_error(write(HEADER + ROWS, "text.parquet"))
    nothing = pa.array([], pa.string())
    empty: dict[str, object] = {"symbol": nothing, "session": nothing, "close": nothing}
    assert "a price file needs rows" in source_error(write.parquet(empty))


@pytest.mark.parametrize(
    ("column", "values", "text"),
    [
        ("symbol", pa.array([1.5]), "the column `symbol` must be text or whole numbers; it is double"),
        ("symbol", pa.array([True]), "the column `symbol` must be text or whole numbers; it is bool"),
        ("symbol", pa.array([None], pa.string()), "row 1: each row needs a symbol"),
        ("symbol", pa.array([None]), "row 1: each row needs a symbol"),
        ("session", pa.array([20200102]), "the column `session` must be dates or text; it is int64"),
        (
            "session",
            pa.array([datetime.time(16)]),
            "the column `session` must be dates or text; it is time64[us]",
        ),
        ("close", pa.array([True]), "the column `close` must be numbers; it is bool"),
        ("close", pa.array([[1.0]]), "the column `close` must be numbers; it is list<"),
        ("close", pa.array([{"x": 1.0}]), "the column `close` must be numbers; it is struct<x: double>"),
    ],
    ids=str,
)
def test_parquet_types_that_are_refused(write: Writer, column: str, values: pa.Array, text: str) -> None:
    columns: dict[str, object] = {"symbol": ["A"], "session": ["2020-01-02"], "close": [1.0]}
    assert text in source_error(write.parquet(columns | {column: values}))


def test_invalid_text_in_parquet_is_refused(write: Writer) -> None:
    buffers = [None, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe")]
    text = pa.Array.from_buffers(pa.string(), 1, buffers)
    for column in ("symbol", "session", "close"):
        columns: dict[str, object] = {"symbol": ["A"], "session": ["2020-01-02"], "close": [1.0]}
        with pytest.raises(ForecasterError):
            write.parquet(columns | {column: text}).load("A")


def test_paths_that_lead_nowhere(write: Writer) -> None:
    folder = write.folder
    (folder / "empty").mkdir()
    (folder / "prices.xlsx").write_bytes(b"PK")
    cases: dict[str | Path, str] = {
        folder / "gone.csv": "there is no such file or folder",
        folder / "empty": "a folder of prices needs files *.csv, *.csv.gz or *.parquet; it has none",
        folder / "*.parquet": "no file that ends in .csv, .csv.gz, .parquet matches this pattern",
        folder / "prices.xlsx": "a price file must end in .csv, .csv.gz, .parquet",
        "a\0b": "",
    }
    for path, text in cases.items():
        message = source_error(FilesSource(path))
        assert message.startswith(f"{path}: ")
        assert text in message


@pytest.mark.parametrize("path", ["", "  ", [], [""]])
def test_a_path_must_be_given(path: str | list[str]) -> None:
    with pytest.raises(ParameterError, match="`path` must name at least one file, folder or pattern"):
        FilesSource(path)


def test_symbols_must_be_a_sequence() -> None:
    with pytest.raises(ParameterError, match=r"`symbols` must be a sequence of texts\. Received: 'SPX'"):
        FilesSource("x.csv", symbols="SPX")


def test_a_failed_read_leaves_nothing_behind(write: Writer) -> None:
    source = write(HEADER)
    assert "needs rows" in source_error(source)
    write(HEADER + ROWS)
    assert source.symbols() == ("A", "B")


# Fuzz: whatever the bytes, only the application's own errors come out


@st.composite
def mutated_files(draw: st.DrawFn) -> bytes:
    data = bytearray((HEADER.strip() + ",dividend,split\n" + ROWS.replace("\n", ",0,1\n") * 2).encode())
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        stop = draw(st.integers(start, min(start + 8, len(data))))
        data[start:stop] = draw(
            st.binary(max_size=6) | st.sampled_from([b'"', b"\n", b",", b"\r", b"1e999", b"A"])
        )
    return bytes(data)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | mutated_files(), st.sampled_from(["a.csv", "a.csv.gz"]))
def test_only_our_errors_escape(data: bytes, name: str) -> None:
    folder = tempfile.mkdtemp()
    try:
        path = Path(folder, name)
        path.write_bytes(gzip.compress(data, 1) if name.endswith("gz") else data)
        loaded = load_prices(FilesSource(path), (), 2)
        for frame in loaded.frames.values():
            assert frame.index.is_unique
            assert np.isfinite(frame["close"]).all()
        assert not set(loaded.frames) & set(loaded.failures)
        assert not any("\n" in reason for reason in loaded.failures.values())
    except ForecasterError as error:
        assert "\n" not in str(error)  # noqa: PT017
    finally:
        shutil.rmtree(folder)
