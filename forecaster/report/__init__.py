"""Finished results made into one HTML file."""

from __future__ import annotations

from pathlib import Path

from forecaster.files import whole

__all__ = ["write_report"]


def write_report(results: Path, output: Path) -> Path:
    """Write the report of a finished run as one self-contained HTML file.

    The page asks nothing of the network, prints, and reads in light and dark mode. It only shows what the
    result files hold; a file that is missing, empty or lacks columns becomes a sentence that says so.

    Parameters
    ----------
    results : Path
        Directory of a finished run: ``summary.json``, ``verdict.csv``, ``scores.csv``, ``models.csv``,
        ``forecasts.parquet``, ``latest.parquet``, ``recent_prices.parquet``, ``findings.csv`` and
        ``failures.csv``; where there are, ``kernel_weights.csv``, ``kernel_responses.csv``,
        ``quarantine.csv``, ``restatements.csv`` and ``track_record.parquet``. The folder of an evening names
        the folder of the backtest that it judges by (``backtest_folder`` in ``summary.json``, from the folder
        of the evening on), and its ``forecasts.parquet`` are the forecasts issued.
    output : Path
        The HTML file to write; its folder is made, an older file is replaced at once or not at all.

    Returns
    -------
    Path
        ``output``.

    Raises
    ------
    ParameterError
        If ``results`` is not a directory.
    """
    # Plotly takes a second to import and only this function needs it.
    from forecaster.report.page import render
    from forecaster.report.results import read_results

    html = render(read_results(results))
    with whole(output) as part:
        part.write_text(html, encoding="utf-8", newline="\n")
    return output
