"""The newest forecasts as CSV and XLSX: the numbers, the versions; no cell is run."""

from __future__ import annotations

import csv
import datetime
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_results import write_results

from forecaster.errors import DataError, ParameterError
from forecaster.exports import (
    EXPORT_COLUMNS,
    Newest,
    export_table,
    newest_forecasts,
    to_csv,
    to_xlsx,
    write_export,
)
from forecaster.ledger import Ledger
from forecaster.quantiles import LEVELS, QuantileForecast, Tails, quantile_columns

HOSTILE = (
    "<script>alert(1)</script>",
    "../../x",
    "=cmd()",
    "@SUM(1)",
    "-2+3",
    "\t=1",
    "0700",
    "TRUE",
    'a,b"c\n',
)
RUNS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
EVENING = datetime.date(2024, 6, 28)
VERSIONS = {"model_version": "3", "data_version": "d1", "job_hash": "abc", "code_version": "c1"}
TEXTS = ("model_version", "data_version", "job_hash", "code_version", "known_at", "issued_at")


def forecasts(symbols: tuple[str, ...] = ("SPX", "WTI"), model: str = "harx") -> pd.DataFrame:
    """Rows as the ledger takes them, with tails, of two horizons."""
    rng = np.random.default_rng(3)
    keys = pd.MultiIndex.from_product([symbols, (1, 5)], names=["symbol", "horizon"]).to_frame(index=False)
    values = np.sort(rng.normal(0, 0.02, (len(keys), len(LEVELS))), axis=1)
    frame = pd.concat([keys, pd.DataFrame(values, columns=quantile_columns())], axis=1)
    frame["close"] = rng.uniform(1, 5_000, len(keys))
    return frame.assign(
        model=model, model_version="3", origin=pd.Timestamp(EVENING), late=False,
        tail_low=values[:, 0] - 0.01, tail_high=values[:, -1] + 0.01, variance=4e-4,
    )  # fmt: skip


def fill(path: Path, table: pd.DataFrame, job: str = "us") -> Path:
    with Ledger.open(path) as ledger:
        run = ledger.start_run(job, job_hash="abc", yaml=f"name: {job}\n", as_of=EVENING)
        ledger.issue(run, table, data_version="d1", known_at=None, code_version="c1")
    return path


def newest(table: pd.DataFrame) -> pd.DataFrame:
    """Rows as they are read, without a ledger."""
    return table.assign(**VERSIONS, known_at="", issued_at="2024-06-28T22:00:00+00:00")


def read_csv(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8"), newline="")))


def test_units_are_those_of_the_definitions() -> None:
    table = newest(forecasts())
    out = export_table(table)
    assert tuple(out.columns) == EXPORT_COLUMNS
    values = table[quantile_columns()].to_numpy()
    tails = Tails(*(table[name].to_numpy()[:, None] for name in ("tail_low", "tail_high", "variance")))
    oracle = QuantileForecast(values[:, None, :], (1,), tails)
    low, high = oracle.interval(0.8)
    np.testing.assert_allclose(out["median_return"], np.expm1(oracle.median[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(out["low_80_price"], table["close"] * np.exp(low[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(out["high_80_return"], np.expm1(high[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(out["probability_of_rise"], oracle.probability_of_rise()[:, 0], rtol=1e-12)
    np.testing.assert_allclose(out["value_at_risk_5"], -np.expm1(values[:, LEVELS.index(0.05)]), rtol=1e-12)
    shortfall = oracle.expected_shortfall(0.05)[:, 0]
    np.testing.assert_allclose(out["expected_shortfall_5"], -np.expm1(shortfall), rtol=1e-12)
    assert (out["expected_shortfall_5"] >= out["value_at_risk_5"]).all()


def test_csv_from_the_ledger_holds_what_was_issued(tmp_path: Path) -> None:
    table = forecasts()
    ledger = fill(tmp_path / "ledger.db", table)
    found = newest_forecasts("us", str(ledger), tmp_path)
    assert found.source == f"issued to the ledger {ledger}"
    path = tmp_path / "new" / "today.csv"
    assert write_export(found, "us", path) == 4
    rows = read_csv(path.read_bytes())
    assert list(rows[0]) == list(EXPORT_COLUMNS)
    for row, (_, told) in zip(rows, table.sort_values(["symbol", "horizon"]).iterrows(), strict=True):
        assert (row["symbol"], int(row["horizon"]), row["origin"]) == (
            told["symbol"], told["horizon"], "2024-06-28",
        )  # fmt: skip
        assert [float(row[name]) for name in quantile_columns()] == told[quantile_columns()].tolist()
        assert float(row["close"]) == told["close"]
        assert {name: row[name] for name in VERSIONS} == VERSIONS
        assert datetime.datetime.fromisoformat(row["issued_at"]).tzinfo is not None
    assert list(path.parent.iterdir()) == [path]


def test_xlsx_holds_numbers_dates_and_text(tmp_path: Path) -> None:
    found = newest_forecasts("us", str(fill(tmp_path / "ledger.db", forecasts(HOSTILE))), tmp_path)
    write_export(found, "us", tmp_path / "today.xlsx")
    book = openpyxl.load_workbook(tmp_path / "today.xlsx")
    sheet = book["forecasts"]
    header, *rows = sheet.iter_rows()
    names = [cell.value for cell in header]
    assert names == list(EXPORT_COLUMNS)
    expected = export_table(found.table)
    assert [row[0].value for row in rows] == expected["symbol"].tolist()
    for row, (_, told) in zip(rows, expected.iterrows(), strict=True):
        cells = dict(zip(names, row, strict=True))
        assert {cell.data_type for name, cell in cells.items() if name in ("symbol", "model")} == {"s"}
        assert all(cell.hyperlink is None for cell in row)
        assert cells["origin"].value == datetime.datetime(2024, 6, 28)
        assert cells["late"].value is False
        assert cells["close"].value == pytest.approx(told["close"], rel=1e-15)
        assert cells["q0.01"].value == pytest.approx(told["q0.01"], rel=1e-15)
        assert cells["median_return"].number_format == "0.00%"
    about = {row[0].value: row[1].value for row in book["about"].iter_rows()}
    assert about["job"] == "us"
    assert {name: about[name] for name in VERSIONS} == VERSIONS
    assert about["source"] == found.source


NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    symbol=NAMES | st.builds("{}{}{}".format, st.sampled_from(["", " ", "  "]), st.sampled_from(RUNS), NAMES)
)
def test_no_text_becomes_a_formula(symbol: str) -> None:
    table = export_table(newest(forecasts((symbol,))))
    text = to_csv(table).decode("utf-8")
    rows = list(csv.reader(io.StringIO(text, newline="")))
    shown = rows[1][0]
    assert not shown.lstrip(" ").startswith(RUNS)
    assert shown in (symbol, f"'{symbol}")
    assert len(rows) == 3
    assert {len(row) for row in rows} == {len(EXPORT_COLUMNS)}


@pytest.mark.parametrize("symbol", HOSTILE)
def test_hostile_names_survive(symbol: str) -> None:
    table = export_table(newest(forecasts((symbol,))))
    assert read_csv(to_csv(table))[0]["symbol"].removeprefix("'") == symbol
    cell = openpyxl.load_workbook(io.BytesIO(to_xlsx(table, {})))["forecasts"]["A2"]
    assert (cell.value, cell.data_type) == (symbol, "s")


def test_what_is_not_known_is_empty() -> None:
    table = newest(forecasts())
    table.loc[0, quantile_columns()] = math.nan
    table.loc[1, "close"] = math.nan
    table.loc[2, "q0.99"] = 800.0
    table.loc[3, "tail_low"] = math.nan
    rows = read_csv(to_csv(export_table(table)))
    assert rows[0]["probability_of_rise"] == rows[0]["median_return"] == rows[0]["q0.5"] == ""
    assert rows[1]["median_price"] == rows[1]["close"] == ""
    assert rows[1]["median_return"] != ""
    assert rows[2]["q0.99"] == "800.0"
    assert rows[3]["expected_shortfall_5"] == ""
    assert "inf" not in to_csv(export_table(table)).decode()
    sheet = openpyxl.load_workbook(io.BytesIO(to_xlsx(export_table(table), {})))["forecasts"]
    assert sheet.cell(2, EXPORT_COLUMNS.index("median_return") + 1).value is None


def test_without_a_ledger_the_results_are_taken(tmp_path: Path) -> None:
    results = write_results(tmp_path / "run", ("SPX", "WTI"), (1, 5), 300)
    summary = json.loads((results / "summary.json").read_text())
    found = newest_forecasts("quickstart", str(tmp_path / "none.db"), results)
    assert not (tmp_path / "none.db").exists()
    assert found.source == f"the results in {results}"
    latest = pd.read_parquet(results / "latest.parquet")
    assert len(found.table) == len(latest)
    assert set(found.table["job_hash"]) == {summary["job_hash"]}
    assert set(found.table["issued_at"]) == {summary["created_at"]}
    of_champion = found.table["model"] == summary["champion"]
    assert set(found.table["model_version"][of_champion]) == {"3"}
    assert set(found.table["model_version"][~of_champion]) == {""}
    # A ledger of another job is none either.
    other = fill(tmp_path / "ledger.db", forecasts(), "other")
    assert newest_forecasts("quickstart", str(other), results).source == found.source


def test_one_evening_is_taken_and_a_backtest_is_not(tmp_path: Path) -> None:
    evening = forecasts().drop(
        columns=["close", "late", "model_version", "tail_low", "tail_high", "variance"]
    )
    evening.assign(y=math.nan).to_parquet(tmp_path / "forecasts.parquet")
    (tmp_path / "provenance.json").write_text(json.dumps({"data_version": "d7", "job_hash": "h"}))
    found = newest_forecasts("us", None, tmp_path)
    assert set(found.table["data_version"]) == {"d7"}
    assert len(export_table(found.table)) == 4
    (tmp_path / "scores.csv").write_text("model,symbol,horizon,metric,value\n")
    with pytest.raises(DataError, match=r"there are none of us, not in .*`forecaster run` or `forecaster"):
        newest_forecasts("us", None, tmp_path)


def test_what_cannot_be_written_or_read_is_said(tmp_path: Path) -> None:
    found = Newest(newest(forecasts()), "here")
    with pytest.raises(ParameterError, match=r"an export is a \.csv or an \.xlsx file\. Received: .*x\.ods"):
        write_export(found, "us", tmp_path / "x.ods")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="the export cannot be written to"):
        write_export(found, "us", tmp_path / "file" / "x.csv")
    (tmp_path / "latest.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"latest\.parquet cannot be read"):
        newest_forecasts("us", None, tmp_path)
    pd.DataFrame({"model": ["a"]}).to_parquet(tmp_path / "latest.parquet")
    with pytest.raises(DataError, match="is no table of forecasts; it lacks: symbol, origin, horizon"):
        newest_forecasts("us", None, tmp_path)


def test_a_sheet_has_an_end() -> None:
    many = export_table(newest(forecasts())).iloc[[0]].loc[lambda one: one.index.repeat(1_048_576)]
    with pytest.raises(ParameterError, match=r"holds 1,048,575 rows\. Received: 1,048,576; write a \.csv"):
        to_xlsx(many, {})


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "us.yaml").write_text(
        "name: us\nworkspace: work\nprices: {kind: sample}\nbacktest: {start: 2010-01-01}\n"
        "models: [{kind: historical}]\n"
    )

    def forecaster(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipelines.cli", "export", "us.yaml", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    missing = forecaster("--output", "today.csv")
    assert missing.returncode == 2
    assert missing.stderr.startswith("forecaster: an export needs forecasts: there are none of us, neither")
    assert missing.stderr.count("\n") == 1
    assert not (tmp_path / "work").exists()
    (tmp_path / "work").mkdir()
    fill(tmp_path / "work" / "ledger.db", forecasts())
    done = forecaster("--output", "today.csv")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "Export: today.csv, 4 forecasts, issued to the ledger work/ledger.db\n"
    assert len(read_csv((tmp_path / "today.csv").read_bytes())) == 4
