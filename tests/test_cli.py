"""The command line as a user meets it: contracts of the results, bad input in one line, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import typer
from planted import garch, prices
from typer.testing import CliRunner, Result

from forecaster.quantiles import quantile_columns
from pipelines.cli import app
from pipelines.console import errors, progress_bar
from pipelines.results import staged

TICKERS = ("ON", "NO", "NA", "TRUE", "0700")
MODELS = "[{kind: zero}, {kind: historical}, {kind: ewma_fhs}, {kind: ridge, lags: 5}]"
JOB = """
name: mine
prices: {{kind: files, path: {path}{symbols}}}
horizons: [1, 5]
lookback: 16
backtest: {{start: {start}, refit_every: 60}}
models: {models}
{more}
"""


def table(symbols: tuple[str, ...] = TICKERS, sessions: int = 400) -> pd.DataFrame:
    parts = []
    for seed, symbol in enumerate(symbols):
        frame = prices(garch(sessions - 1, seed))
        days = frame.index.strftime("%Y-%m-%d")
        parts.append(
            pd.DataFrame({"symbol": symbol, "session": days, "close": frame["close"].round(4).to_numpy()})
        )
    return pd.concat(parts, ignore_index=True).astype({"close": str})


def write_job(
    folder: Path,
    data: pd.DataFrame | str | None = None,
    path: str = "prices.csv",
    symbols: str = "",
    start: str = "2001-01-01",
    models: str = MODELS,
    more: str = "",
) -> Path:
    if isinstance(data, pd.DataFrame):
        data.to_csv(folder / path, index=False)
    elif data is not None:
        (folder / path).write_text(data)
    job = folder / "job.yaml"
    asked = f", symbols: {symbols}" if symbols else ""
    job.write_text(JOB.format(path=path, symbols=asked, start=start, models=models, more=more))
    return job


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def complaint(result: Result) -> str:
    """The one line that says what is wrong."""
    lines = [line for line in result.stderr.splitlines() if line.startswith("forecaster: ")]
    assert len(lines) == 1, result.stderr
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture(scope="module")
def backtested(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backtest")
    result = call("backtest", write_job(folder, table()), "--output", folder / "out")
    assert result.exit_code == 0, result.stderr
    assert "ewma_fhs" in result.stdout
    return folder / "out"


def test_forecasts_follow_the_contract(backtested: Path) -> None:
    forecasts = pd.read_parquet(backtested / "forecasts.parquet")
    assert list(forecasts.columns) == ["model", "symbol", "origin", "horizon", "y", *quantile_columns()]
    assert set(forecasts["symbol"]) == set(TICKERS)
    assert set(forecasts["model"]) == {"zero", "historical", "ewma_fhs", "ridge"}
    assert not forecasts.duplicated(["model", "symbol", "origin", "horizon"]).any()
    assert np.isfinite(forecasts[quantile_columns()].to_numpy()).all()
    # The outcomes of the last origins are not known, and only those.
    unknown = forecasts[forecasts["y"].isna()]
    last = np.sort(forecasts["origin"].unique())
    assert set(unknown.loc[unknown["horizon"] == 1, "origin"]) == set(last[-1:])
    assert set(unknown.loc[unknown["horizon"] == 5, "origin"]) == set(last[-5:])


def test_every_model_is_scored_on_identical_rows(backtested: Path) -> None:
    forecasts = pd.read_parquet(backtested / "forecasts.parquet")
    keys = ["symbol", "origin", "horizon", "y"]
    parts = [
        part[keys].sort_values(keys[:3]).reset_index(drop=True) for _, part in forecasts.groupby("model")
    ]
    assert len(parts) == 4
    for part in parts[1:]:
        pd.testing.assert_frame_equal(part, parts[0])


def test_scores_follow_the_contract_and_the_forecasts(backtested: Path) -> None:
    scores = pd.read_csv(backtested / "scores.csv", dtype={"symbol": str}, keep_default_na=False)
    assert list(scores.columns) == ["model", "symbol", "horizon", "metric", "value"]
    assert set(scores["symbol"]) == {*TICKERS, "*"}
    wanted = {"crps", "coverage_80", "rmse", "mae", "direction", "direction_base_rate", "pinball_0.025"}
    assert wanted <= set(scores["metric"])
    forecasts = pd.read_parquet(backtested / "forecasts.parquet").dropna(subset="y")
    mine = forecasts[(forecasts["model"] == "ewma_fhs") & (forecasts["horizon"] == 5)]
    error = (mine["y"] - mine["q0.5"]).abs().mean()
    row = scores.query("model == 'ewma_fhs' and symbol == '*' and horizon == 5 and metric == 'mae'")
    assert float(row["value"].iloc[0]) == pytest.approx(error, rel=1e-12)


def test_outcomes_are_the_returns_of_the_file(backtested: Path) -> None:
    forecasts = pd.read_parquet(backtested / "forecasts.parquet")
    close = table(("ON",)).assign(close=lambda t: t["close"].astype(float)).set_index("session")["close"]
    row = forecasts.query("symbol == 'ON' and horizon == 5 and model == 'zero'").iloc[10]
    place = close.index.get_loc(str(row["origin"].date()))
    assert row["y"] == pytest.approx(np.log(close.iloc[place + 5] / close.iloc[place]), rel=1e-9)


def test_a_second_backtest_gives_the_same_bytes(backtested: Path, tmp_path: Path) -> None:
    result = call("backtest", write_job(tmp_path, table()), "--output", tmp_path / "out")
    assert result.exit_code == 0
    for name in ("forecasts.parquet", "scores.csv", "verdict.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (backtested / name).read_bytes()


def test_paths_are_relative_to_the_job_or_to_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, folder = tmp_path / "home", tmp_path / "jobs"
    home.mkdir()
    folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    table(("ON",)).to_csv(home / "prices.csv", index=False)
    models = "[{kind: historical}]"
    for path in ("../home/prices.csv", "~/prices.csv", "../home/*.csv"):
        job = write_job(folder, path=f'"{path}"', models=models)
        result = call("forecast", job, "--output", tmp_path / "out")
        assert result.exit_code == 0, result.stderr


def test_a_parquet_file_gives_what_a_csv_gives(backtested: Path, tmp_path: Path) -> None:
    data = table()
    data = data.assign(session=pd.to_datetime(data["session"]), close=data["close"].astype(float))
    data.to_parquet(tmp_path / "prices.parquet", index=False)
    job = write_job(tmp_path, path="prices.parquet")
    assert call("backtest", job, "--output", tmp_path / "out").exit_code == 0
    ours, theirs = (pd.read_parquet(place / "forecasts.parquet") for place in (tmp_path / "out", backtested))
    pd.testing.assert_frame_equal(ours, theirs)


def test_forecasts_as_of_an_evening_know_nothing_of_later(tmp_path: Path) -> None:
    data = table()
    evening = "2001-05-01"
    changed = data.copy()
    later = changed["session"] > evening
    changed.loc[later, "close"] = (np.random.default_rng(0).uniform(1, 500, later.sum())).round(2).astype(str)
    changed.loc[later & (changed["symbol"] == "NO"), "close"] = "-5"
    tables = []
    for name, frame in (("a", data), ("b", changed)):
        folder = tmp_path / name
        folder.mkdir()
        result = call("forecast", write_job(folder, frame), "--as-of", evening, "--output", folder / "out")
        assert result.exit_code == 0, result.stderr
        tables.append(pd.read_parquet(folder / "out" / "forecasts.parquet"))
    pd.testing.assert_frame_equal(tables[0], tables[1], check_exact=True)
    assert tables[0]["y"].isna().all()
    assert set(tables[0]["origin"]) == {pd.Timestamp(evening)}
    assert len(tables[0]) == 4 * len(TICKERS) * 2


def test_a_forecast_equals_the_backtest_of_a_refit_on_that_evening(backtested: Path, tmp_path: Path) -> None:
    forecasts = pd.read_parquet(backtested / "forecasts.parquet")
    first = forecasts["origin"].min()
    job = write_job(tmp_path, table())
    assert call("forecast", job, "--as-of", first.date(), "--output", tmp_path / "out").exit_code == 0
    ours = pd.read_parquet(tmp_path / "out" / "forecasts.parquet").drop(columns="y")
    theirs = forecasts[forecasts["origin"] == first].drop(columns="y").reset_index(drop=True)
    order = ["model", "symbol", "horizon"]
    ours, theirs = (part.sort_values(order).reset_index(drop=True) for part in (ours, theirs))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    # So do the tails, by which the expected shortfall of what is issued is known.
    keys = ["model", "symbol", "origin", "horizon"]
    ours, theirs = (pd.read_parquet(place / "tails.parquet") for place in (tmp_path / "out", backtested))
    theirs = theirs[theirs["origin"] == first].dropna()
    ours, theirs = (part.sort_values(keys).reset_index(drop=True) for part in (ours, theirs))
    pd.testing.assert_frame_equal(ours, theirs, check_exact=True)
    assert len(ours)


# Bad input: a name, how the data become bad, what the complaint says.
def _text(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(close=data["close"].where(data.index != 30, "abc"))


def _missing(data: pd.DataFrame) -> pd.DataFrame:
    return data.drop(columns="close")


def _twice(data: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([data, data.iloc[[30]]])


def _zeros(data: pd.DataFrame) -> pd.DataFrame:
    return data.assign(close=data["close"].where(~data.index.isin(range(30, 51)), "0"))


def _short(data: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([part.head(20) for _, part in data.groupby("symbol")])


LAST = table(("ON",))["session"].iloc[-1]

BAD_SYMBOL = {
    "text in a number column": (_text, ["abc", "close"]),
    "duplicate sessions": (_twice, ["2000-02-14"]),
    "prices of zero": (_zeros, ["at most 20 of 400 rows", "21 are (non-positive-price 21)"]),
    "too short": (_short, ["20"]),
}


@pytest.mark.parametrize("value", ["0", "-36.98"])
@pytest.mark.parametrize("command", ["backtest", "forecast"])
def test_a_session_without_a_usable_price_is_quarantined(command: str, value: str, tmp_path: Path) -> None:
    data = table(("ON",))
    data = data.assign(close=data["close"].where(data.index != 30, value))
    result = call(command, write_job(tmp_path, data), "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert (
        "warning: ON: `close` must be positive, as no log return exists otherwise; it is "
        f"{value} on 2000-02-14 (1 in all); the session is quarantined\n" in result.stderr
    )
    held = pd.read_csv(tmp_path / "out" / "quarantine.csv", dtype={"close": str})
    assert held[["symbol", "session", "codes"]].to_numpy().tolist() == [
        ["ON", "2000-02-14", "non-positive-price"]
    ]
    forecasts = pd.read_parquet(tmp_path / "out" / "forecasts.parquet")
    assert set(forecasts["symbol"]) == {"ON"}
    # The same as of a file that leaves the cell empty.
    clean = tmp_path / "clean"
    clean.mkdir()
    empty = table(("ON",))
    empty["close"] = empty["close"].where(empty.index != 30, "")
    assert call(command, write_job(clean, empty), "--output", clean / "out").exit_code == 0
    pd.testing.assert_frame_equal(pd.read_parquet(clean / "out" / "forecasts.parquet"), forecasts)


@pytest.mark.parametrize("case", BAD_SYMBOL)
@pytest.mark.parametrize("command", ["backtest", "forecast"])
def test_a_bad_only_symbol_is_bad_input(case: str, command: str, tmp_path: Path) -> None:
    spoil, words = BAD_SYMBOL[case]
    sessions = 15 if (case == "too short" and command == "forecast") else 400
    data = spoil(table(("ON",), sessions))
    words = [str(len(data))] if case == "too short" else words
    result = call(command, write_job(tmp_path, data), "--output", tmp_path / "out")
    assert result.exit_code == 2
    for word in ("ON", *words):
        assert word in complaint(result)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("case", BAD_SYMBOL)
def test_a_bad_symbol_among_good_ones_is_left_out_by_name(case: str, tmp_path: Path) -> None:
    spoil, words = BAD_SYMBOL[case]
    data = pd.concat([spoil(table(("ON",))), table(("NO", "NA"))], ignore_index=True)
    result = call("backtest", write_job(tmp_path, data), "--output", tmp_path / "out")
    assert result.exit_code == 3
    line = complaint(result)
    for word in ("left out ON", *words):
        assert word in line
    assert set(pd.read_parquet(tmp_path / "out" / "forecasts.parquet")["symbol"]) == {"NO", "NA"}
    failures = pd.read_csv(tmp_path / "out" / "failures.csv", keep_default_na=False)
    assert list(failures["symbol"]) == ["ON"]


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        (None, {}, ["prices.csv"]),
        ("", {}, ["empty"]),
        ("symbol,session,close\n", {}, ["prices.csv"]),
        (_missing(table(("ON",))), {}, ["needs the columns", "missing: close"]),
        (table(("ON",)).rename(columns={"close": "Close"}), {}, ["close"]),
        (table(("ON",)), {"symbols": "[ONN]"}, ["ONN", "did you mean 'ON'"]),
        (table(("ON",)), {"start": "2031-01-01"}, ["2031-01-01"]),
        (table(("ON",)), {"start": LAST}, ["no", LAST, "start earlier"]),
        (table(("ON",)), {"start": "2000-01-10"}, ["100"]),
        (
            table(("ON",)),
            {"models": "[{kind: convolution, kernel: 3, strategy: {kind: lagged, lags: [0, 5000]}}]"},
            ["5022", "400"],
        ),
        (table(("ON",)), {"models": "[{kind: ridge, lags: 5000}]"}, ["ON", "400"]),
    ],
    ids=[
        "missing file",
        "empty file",
        "header only",
        "missing column",
        "misspelt column",
        "unknown symbol",
        "start after the data",
        "start at the last session",
        "start too early to learn",
        "a lag longer than the history",
        "more lags than the history",
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    data: pd.DataFrame | str | None, options: dict[str, str], words: list[str], tmp_path: Path
) -> None:
    result = call("backtest", write_job(tmp_path, data, **options), "--output", tmp_path / "out")
    assert result.exit_code == 2, result.output
    line = complaint(result)
    for word in words:
        assert word in line
    assert not (tmp_path / "out").exists()


def test_unknown_symbol_among_known_is_left_out(tmp_path: Path) -> None:
    result = call(
        "backtest", write_job(tmp_path, table(), symbols="[ON, NO, NOPE]"), "--output", tmp_path / "out"
    )
    assert result.exit_code == 3
    assert "left out NOPE" in complaint(result)


def test_below_the_coverage_threshold_the_exit_code_is_one(tmp_path: Path) -> None:
    data = pd.concat([_zeros(table(("ON",))), table(("NO", "NA"))], ignore_index=True)
    job = write_job(tmp_path, data, more="minimum_coverage: 0.9")
    result = call("backtest", job, "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "67%" in result.stderr
    assert (tmp_path / "out" / "forecasts.parquet").exists()


def test_a_holiday_without_a_price_is_not_a_bad_symbol(tmp_path: Path) -> None:
    data = table(("ON",))
    data.loc[[50, 51, 120], "close"] = ["", "NaN", "NA"]
    result = call("backtest", write_job(tmp_path, data), "--output", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    findings = pd.read_csv(tmp_path / "out" / "findings.csv")
    assert (findings["sessions"] == 3).any()


def test_a_symbol_without_a_test_origin_is_left_out(tmp_path: Path) -> None:
    old = table(("OLD",), 200)
    result = call(
        "backtest", write_job(tmp_path, pd.concat([old, table(("ON",))])), "--output", tmp_path / "out"
    )
    assert result.exit_code == 3
    assert "left out OLD" in complaint(result)
    assert "2000-10-06" in complaint(result)


def test_as_of_before_the_data_is_bad_input(tmp_path: Path) -> None:
    job = write_job(tmp_path, table())
    result = call("forecast", job, "--as-of", "1990-01-01", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "ON" in complaint(result)


def test_as_of_after_the_data_says_where_forecasts_start(tmp_path: Path) -> None:
    job = write_job(tmp_path, table())
    result = call("forecast", job, "--as-of", "2030-01-01", "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert "2001-07-13" in complaint(result)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("absent.yaml", None, ["no such job file"]),
        ("bad.yaml", "name: [", ["YAML"]),
        ("bad.yaml", "name: x\nlookbak: 3\n", ["lookbak", "did you mean 'lookback'"]),
    ],
)
@pytest.mark.parametrize("command", ["validate", "run", "backtest", "forecast"])
def test_a_bad_job_file(name: str, text: str | None, words: list[str], command: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    options = ["--output", tmp_path / "out"] if command != "validate" else []
    result = call(command, tmp_path / name, *options)
    assert result.exit_code == 2
    for word in (name, *words):
        assert word in complaint(result)


@pytest.mark.parametrize("command", ["run", "backtest", "forecast"])
def test_an_output_that_is_a_file_is_refused_before_the_work_and_kept(command: str, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    job = write_job(tmp_path, table(), more=f"workspace: {tmp_path / 'workspace'}")
    result = call(command, job, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "out: File exists" in complaint(result)
    assert "historical (" not in result.stderr  # no model was fitted first
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_backtest_leaves_the_last_results(
    stop: signal.Signals, backtested: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "scores.csv").write_text("the last whole result")
    models = "[{kind: historical}, {kind: boosting, iterations: 5000}]"
    job = write_job(tmp_path, table(), models=models)
    command = [sys.executable, "-m", "pipelines.cli", "backtest", str(job), "--output", str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    told = ""
    while "boosting (" not in told and (line := process.stderr.readline()):
        told += line
    time.sleep(1)  # in the middle of the fit
    process.send_signal(stop)
    _, rest = process.communicate(timeout=60)
    stderr = told + rest
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted" in stderr
    assert [path.name for path in output.iterdir()] == ["scores.csv"]
    assert (output / "scores.csv").read_text() == "the last whole result"


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_a_library_turns_into_an_error_of_its_own(
    stop: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit() -> None:
        try:
            os.kill(os.getpid(), stop)
            time.sleep(10)
        except KeyboardInterrupt:
            # As NumPy does when it is interrupted while it reads the format of a buffer.
            raise ValueError("'T{=d:x:}' is not a valid PEP 3118 buffer format string") from None

    with pytest.raises(typer.Exit) as ended, errors(debug=False):
        fit()
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_that_a_library_takes_for_nothing_ends_the_command_before_its_next_piece_of_work(
    stop: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def work() -> None:
        with progress_bar() as progress:
            for piece in range(3):
                progress("work", piece, 3)
                # As NumPy does, which goes on with the next way to read an object.
                with suppress(KeyboardInterrupt):
                    os.kill(os.getpid(), stop)
                    time.sleep(10)
                done.append(piece)

    with pytest.raises(typer.Exit) as ended, errors(debug=False):
        work()
    assert ended.value.exit_code == 130
    assert "interrupted" in capsys.readouterr().err
    assert done == [0]
    with errors(debug=False), progress_bar() as progress:
        progress("another command", 0, 1)


@pytest.mark.parametrize("spoil", ["a file in its place", "a damaged store"])
def test_a_run_that_cannot_track_says_so_and_leaves_the_last_results(spoil: str, tmp_path: Path) -> None:
    workspace, output = tmp_path / "workspace", tmp_path / "out"
    output.mkdir()
    (output / "scores.csv").write_text("the last whole result")
    if spoil == "a file in its place":
        workspace.write_text("mine")
    else:
        workspace.mkdir()
        (workspace / "mlflow.db").write_text("garbage")
    result = call("run", write_job(tmp_path, table(), more=f"workspace: {workspace}"), "--output", output)
    assert result.exit_code == (2 if workspace.is_file() else 1)
    assert str(workspace) in complaint(result)
    assert "internal error" not in result.stderr
    assert [(path.name, path.read_text()) for path in output.iterdir()] == [
        ("scores.csv", "the last whole result")
    ]


def test_a_symbol_that_stopped_is_forecast_with_a_warning(tmp_path: Path) -> None:
    data = pd.concat([table(("OLD",), 350), table(("ON",))])
    result = call("forecast", write_job(tmp_path, data), "--output", tmp_path / "out")
    assert result.exit_code == 0
    assert "warning: OLD: its last session is 2001-05-04, 50 sessions before" in result.stderr
    findings = pd.read_csv(tmp_path / "out" / "findings.csv")
    assert findings.query("code == 'stopped'")["symbol"].tolist() == ["OLD"]


def test_an_evening_that_is_no_date(tmp_path: Path) -> None:
    job = write_job(tmp_path, table())
    result = call("forecast", job, "--as-of", "yesterday", "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "--as-of is a date written YYYY-MM-DD. Received: 'yesterday'" in complaint(result)


def test_a_report_that_cannot_be_written(backtested: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = call("report", backtested, "--output", tmp_path / "file" / "report.html")
    assert result.exit_code == 2
    assert "cannot be written" in complaint(result)


def test_explain_says_execution_field_parameters_and_cost_of_each_layer() -> None:
    result = call("explain", "configs/quickstart.yaml")
    assert result.exit_code == 0, result.stderr
    blocks = result.stdout.split("\n\n")
    lagged = next(block for block in blocks if block.startswith("conv_lagged"))
    for words in ("folded", "receptive field", "parameters", "multiply-adds"):
        assert words in lagged, words
    # Four rows of five taps over four channels, and their bias; then five taps over sixteen maps.
    assert f"{4 * 5 * 4 * 16 + 16:,} parameters" in lagged
    assert f"{5 * 16 * 16 + 16:,} parameters" in lagged
    # Five sessions, the longest delay of twenty-one.
    assert "26 sessions" in lagged


def test_explaining_loads_no_tensorflow() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app\n"
        "assert CliRunner().invoke(app, ['explain', 'configs/quickstart.yaml']).exit_code == 0\n"
        "print([m for m in ('tensorflow', 'keras', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_validate_and_schema() -> None:
    for path in sorted(Path("configs").glob("*.yaml")):
        assert call("validate", path).exit_code == 0
    schema = json.loads(call("schema").stdout)
    assert schema["properties"]["horizons"]["description"]


def test_report_of_no_results(tmp_path: Path) -> None:
    result = call("report", tmp_path / "absent")
    assert result.exit_code == 2
    assert "absent" in complaint(result)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from pipelines.cli import app\n"
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0\n"
        "print([m for m in ('tensorflow', 'mlflow', 'pandas', 'sklearn', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_console_script_answers() -> None:
    environment = os.environ | {"COLUMNS": "80"}
    script = Path(sys.executable).with_name("forecaster")
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True, env=environment)
    for command in ("run", "backtest", "forecast", "report", "validate", "schema"):
        assert command in done.stdout


def test_workers_fit_the_same_bits(tmp_path: Path) -> None:
    folders = {}
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        more = f"engine: {{workers: {workers}}}"
        job = write_job(folder, table(TICKERS[:3]), models="[{kind: gjr_t_fhs}, {kind: harx_fhs}]", more=more)
        # A process of its own: fits are kept for the life of one.
        command = [
            sys.executable,
            "-m",
            "pipelines.cli",
            "forecast",
            str(job),
            "--output",
            str(folder / "out"),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        folders[workers] = (folder / "out" / "forecasts.parquet").read_bytes()
    assert folders[1] == folders[2]


def test_new_results_keep_nothing_of_earlier_ones_but_what_is_not_theirs(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    for name in ("failed_models.csv", "scores.csv", "notes.txt"):
        (output / name).write_text("earlier")
    with pytest.raises(FileNotFoundError), staged(output) as folder:
        (folder / "a folder that is not there" / "scores.csv").write_text("new")
    assert {path.name: path.read_text() for path in output.iterdir()} == dict.fromkeys(
        ("failed_models.csv", "scores.csv", "notes.txt"), "earlier"
    )
    with staged(output) as folder:
        (folder / "scores.csv").write_text("new")
    assert {path.name: path.read_text() for path in output.iterdir()} == {
        "notes.txt": "earlier",
        "scores.csv": "new",
    }
