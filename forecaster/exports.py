"""The newest forecasts of a job, from its ledger or else its results, as CSV and XLSX files."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from forecaster.errors import DataError, ParameterError
from forecaster.files import whole
from forecaster.quantiles import (
    LEVELS,
    TAIL_COLUMNS,
    expected_shortfall,
    probability_below,
    quantile_columns,
)

__all__ = [
    "EXPORT_COLUMNS",
    "VERSION_COLUMNS",
    "Newest",
    "export_table",
    "newest_forecasts",
    "to_csv",
    "to_xlsx",
    "write_export",
]

VERSION_COLUMNS = (
    "model_version", "data_version", "job_hash", "code_version", "known_at", "issued_at",
)  # fmt: skip
"""What made a forecast, and when; text."""

RETURN_COLUMNS = (
    "median_return", "low_95_return", "low_80_return", "high_80_return", "high_95_return",
    "probability_of_rise", "value_at_risk_5", "value_at_risk_1", "expected_shortfall_5",
)  # fmt: skip
PRICE_COLUMNS = (
    "close", "median_price", "low_95_price", "low_80_price", "high_80_price", "high_95_price",
)  # fmt: skip
EXPORT_COLUMNS = (
    "symbol", "model", "origin", "horizon", *PRICE_COLUMNS, *RETURN_COLUMNS, "late",
    *quantile_columns(), *VERSION_COLUMNS,
)  # fmt: skip
"""Columns of an export, in their order."""

ENDS = {"low_95": 0.025, "low_80": 0.1, "median": 0.5, "high_80": 0.9, "high_95": 0.975}
LARGEST = math.log(np.finfo(np.float64).max)
SHEET_ROWS = 1_048_575
"""Rows of a sheet below its header."""
FORMULA_STARTS = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""A cell of text that begins so may be run as a formula (OWASP, "CSV Injection")."""


@dataclass(frozen=True)
class Newest:
    """The newest forecasts of a job.

    Parameters
    ----------
    table : DataFrame
        ``model, symbol, origin, horizon, close`` (NaN where not known), quantiles and tails (cumulative log
        returns, NaN where not stated), ``late``, and what made them: `VERSION_COLUMNS`, text. Sorted by
        model, symbol and horizon.
    source : str
        Where they were read, in words.
    """

    table: pd.DataFrame
    source: str


def newest_forecasts(job: str, ledger: str | None, results: Path) -> Newest:
    """Read the newest forecasts of a job: those last issued to its ledger, else those of its results.

    Parameters
    ----------
    job : str
        Name of the job.
    ledger : str, optional
        Path or URL of the ledger. A file that is not there is no ledger, and none is made.
    results : Path
        Folder of finished results: of a run (``latest.parquet``) or of one evening (``forecasts.parquet``).

    Raises
    ------
    DataError
        If there are none, or they cannot be read.
    LedgerError
        If the ledger is damaged or cannot be reached.
    """
    if ledger is not None and ("://" in ledger or Path(ledger).is_file()):
        # Imported here: SQLAlchemy is not needed for results.
        from forecaster.ledger import Ledger

        with Ledger.open(ledger) as opened:
            found, name = opened.latest(job), opened.name
        if len(found):
            return Newest(_tidied(found), f"issued to the ledger {name}")
    for file in ("latest.parquet", "forecasts.parquet"):
        path = results / file
        # A backtest's table holds every origin of the past; nothing in it was issued.
        if path.is_file() and not (file == "forecasts.parquet" and (results / "scores.csv").exists()):
            return Newest(_tidied(_of_results(path)), f"the results in {results}")
    place = f"neither in the ledger {ledger} nor" if ledger else "not"
    raise DataError(
        f"an export needs forecasts: there are none of {job}, {place} in {results}; "
        "`forecaster run` or `forecaster forecast` makes them"
    )


def _of_results(path: Path) -> pd.DataFrame:
    """Read the forecasts of a folder of results, with the versions that its summary tells."""
    try:
        table = pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}") from None
    lacking = [name for name in ("model", "symbol", "origin", "horizon", *quantile_columns())
               if name not in table.columns]  # fmt: skip
    if lacking:
        raise DataError(f"{path} is no table of forecasts; it lacks: {', '.join(lacking)}")
    table = table[table["origin"] == table.groupby("symbol")["origin"].transform("max")].copy()
    summary = _json(path.with_name("summary.json")) or _json(path.with_name("provenance.json"))
    for name in ("data_version", "job_hash", "code_version"):
        table[name] = str(summary.get(name) or "")
    table["issued_at"] = str(summary.get("created_at") or "")
    registry = summary.get("mlflow")
    version = registry.get("version") if isinstance(registry, dict) else None
    table["model_version"] = np.where(table["model"] == summary.get("champion"), str(version or ""), "")
    return table


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tidied(table: pd.DataFrame) -> pd.DataFrame:
    """Bring forecasts of either origin into one form."""
    numbers = ["close", *quantile_columns(), *TAIL_COLUMNS]
    found = table.reindex(
        columns=["model", "symbol", "origin", "horizon", *numbers, "late", *VERSION_COLUMNS]
    )
    found[numbers] = found[numbers].astype(np.float64)
    found["late"] = table["late"].to_numpy(dtype=bool) if "late" in table.columns else False
    for name in ("model", "symbol", *VERSION_COLUMNS):
        found[name] = [_text(value) for value in found[name]]
    return found.sort_values(["model", "symbol", "horizon"], ignore_index=True)


def _text(value: object) -> str:
    if value is None or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return ""
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value)


def export_table(newest: pd.DataFrame) -> pd.DataFrame:
    """Put forecasts into the units of a reader: simple returns, prices, probabilities.

    Parameters
    ----------
    newest : DataFrame
        ``Newest.table``, or rows of it.

    Returns
    -------
    DataFrame
        Columns `EXPORT_COLUMNS`. Returns are simple ones (0.01 is one percent), value at risk and expected
        shortfall losses as positive fractions of the close (expected shortfall is that of the log return,
        made simple); prices are in the unit of the close. The quantiles are cumulative log returns, as
        issued. NaN where a number is not known.
    """
    values = newest[quantile_columns()].to_numpy(dtype=np.float64)
    out = newest[["symbol", "model", "origin", "horizon", "close", "late", *VERSION_COLUMNS]].copy()
    close = out["close"].to_numpy(dtype=np.float64)
    # What exp cannot hold is not a number that anybody issued on purpose.
    growth = np.exp(np.where(values < LARGEST, values, np.nan))
    for name, level in ENDS.items():
        at = growth[:, LEVELS.index(level)]
        out[f"{name}_return"] = at - 1.0
        with np.errstate(over="ignore"):
            out[f"{name}_price"] = np.where(np.isfinite(close * at), close * at, np.nan)
    out["probability_of_rise"] = np.nan
    known = np.isfinite(values).all(axis=1)
    out.loc[known, "probability_of_rise"] = 1.0 - probability_below(values[known], np.zeros(known.sum()))
    out["value_at_risk_5"] = 1.0 - growth[:, LEVELS.index(0.05)]
    out["value_at_risk_1"] = 1.0 - growth[:, LEVELS.index(0.01)]
    tails = newest["tail_low"].to_numpy(dtype=np.float64)
    out["expected_shortfall_5"] = 1.0 - np.exp(expected_shortfall(values, tails, 0.05))
    out[quantile_columns()] = values
    return out[list(EXPORT_COLUMNS)].reset_index(drop=True)


def _harmless(text: str) -> str:
    """Keep a spreadsheet from running a cell of a CSV file: a formula becomes text by an apostrophe."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA_STARTS) else text


def to_csv(table: pd.DataFrame) -> bytes:
    """Write an export as CSV in UTF-8: numbers in full, unknown ones empty, no cell a formula.

    Parameters
    ----------
    table : DataFrame
        What `export_table` gives.
    """
    out = table.copy()
    out["origin"] = _days(table["origin"])
    for name in ("symbol", "model", *VERSION_COLUMNS):
        out[name] = [_harmless(text) for text in table[name]]
    text = io.StringIO()
    out.to_csv(text, index=False, quoting=csv.QUOTE_MINIMAL, lineterminator="\r\n")
    return text.getvalue().encode("utf-8")


def _days(origins: pd.Series[Any]) -> list[str]:
    return pd.to_datetime(origins).dt.strftime("%Y-%m-%d").fillna("").tolist()


def to_xlsx(table: pd.DataFrame, about: dict[str, str]) -> bytes:
    """Write an export as a workbook: one sheet of forecasts, one of what they are and what made them.

    Text is text, whatever it looks like: no cell becomes a formula, a link or a number.

    Parameters
    ----------
    table : DataFrame
        What `export_table` gives.
    about : dict of str to str
        Facts for the second sheet, such as the job and where the forecasts were read.

    Raises
    ------
    ParameterError
        If there are more rows than a sheet holds.
    """
    import xlsxwriter

    if len(table) > SHEET_ROWS:
        raise ParameterError(
            f"a sheet of a workbook holds {SHEET_ROWS:,} rows. Received: {len(table):,}; write a .csv file"
        )
    memory = io.BytesIO()
    plain = {"strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
    with xlsxwriter.Workbook(memory, {"in_memory": True, **plain}) as book:
        bold = book.add_format({"bold": True, "bottom": 1})
        formats = {
            "percent": book.add_format({"num_format": "0.00%"}),
            "price": book.add_format({"num_format": "#,##0.00##"}),
            "log": book.add_format({"num_format": "0.000000"}),
            "day": book.add_format({"num_format": "yyyy-mm-dd", "align": "left"}),
        }
        sheet = book.add_worksheet("forecasts")
        sheet.freeze_panes(1, 2)
        for number, name in enumerate(table.columns):
            sheet.write_string(0, number, name, bold)
            kind = _kind(name)
            sheet.set_column(number, number, max(9, len(name) + 1), formats.get(kind))
            for row, value in enumerate(table[name].tolist(), start=1):
                if kind == "text":
                    sheet.write_string(row, number, str(value))
                elif kind == "day" and not pd.isna(value):
                    sheet.write_datetime(row, number, pd.Timestamp(value).to_pydatetime(), formats["day"])
                elif kind == "truth":
                    sheet.write_boolean(row, number, bool(value))
                elif isinstance(value, int | float) and math.isfinite(value):
                    sheet.write_number(row, number, value, formats.get(kind))
        sheet.autofilter(0, 0, max(len(table), 1), len(table.columns) - 1)
        notes = book.add_worksheet("about")
        notes.set_column(0, 0, 22)
        notes.set_column(1, 1, 90)
        versions = {name: ", ".join(sorted(set(table[name]) - {""})) for name in VERSION_COLUMNS}
        for row, (name, text) in enumerate({**about, **versions, **_MEANING}.items()):
            notes.write_string(row, 0, name, bold)
            notes.write_string(row, 1, text)
    return memory.getvalue()


_MEANING = {
    "returns": "Simple returns over the horizon, in sessions after the origin; 80% and 95% are intervals.",
    "value at risk": "Loss, as a share of the close, that is exceeded with a probability of 5% and 1%.",
    "expected shortfall": "Average loss in the worst 5% of outcomes; empty where a model states no tails.",
    "q0.01 to q0.99": "Quantiles of the cumulative log return, as issued.",
}


def _kind(column: str) -> str:
    if column in ("symbol", "model", *VERSION_COLUMNS):
        return "text"
    if column in ("origin", "horizon", "late"):
        return {"origin": "day", "horizon": "whole", "late": "truth"}[column]
    if column in PRICE_COLUMNS:
        return "price"
    return "log" if column in quantile_columns() else "percent"


def write_export(newest: Newest, job: str, path: Path) -> int:
    """Write the newest forecasts into a CSV or XLSX file, by its ending; whole, or not at all.

    Returns
    -------
    int
        Rows.

    Raises
    ------
    ParameterError
        For another ending, or more rows than a sheet holds.
    DataError
        If the file cannot be written.
    """
    table = export_table(newest.table)
    if path.suffix.lower() == ".xlsx":
        content = to_xlsx(table, {"job": job, "source": newest.source})
    elif path.suffix.lower() == ".csv":
        content = to_csv(table)
    else:
        raise ParameterError(f"an export is a .csv or an .xlsx file. Received: {path}")
    try:
        with whole(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise DataError(
            f"the export cannot be written to {path}: {error.strerror or error}; name another file"
        ) from None
    return len(table)
