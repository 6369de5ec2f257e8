"""Prices as they come, through every kind of model: what is said, and what is forecast all the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import garch, prices
from test_models import FIELD
from typer.testing import CliRunner

from forecaster.quantiles import quantile_columns
from pipelines.cli import app

SESSIONS = 900
PRICES = ["open", "high", "low", "close"]
JOB = f"""
name: bad
prices: {{kind: files, path: prices.csv}}
horizons: [1, 5]
backtest: {{start: 2002-05-01, refit_every: 600}}
models: [{", ".join(FIELD)}]
"""


def sound(symbol: str, seed: int) -> pd.DataFrame:
    """Prices, ranges and volumes without a fault."""
    close = prices(garch(SESSIONS - 1, seed))["close"]
    rng = np.random.default_rng(seed)
    values = close.to_numpy()
    opens = np.append(values[0], values[:-1]) * np.exp(0.002 * rng.standard_normal(SESSIONS))
    wide = np.abs(0.004 * rng.standard_normal((2, SESSIONS)))
    return pd.DataFrame(
        {
            "symbol": symbol,
            "session": close.index.strftime("%Y-%m-%d"),
            "open": opens,
            "high": np.maximum(opens, values) * np.exp(wide[0]),
            "low": np.minimum(opens, values) * np.exp(-wide[1]),
            "close": values,
            "volume": rng.integers(100_000, 1_000_000, SESSIONS),
        }
    )


def table() -> pd.DataFrame:
    frames = {
        symbol: sound(symbol, seed)
        for seed, symbol in enumerate(["SOUND", "FLAT", "ZERO", "JUMP", "WTI", "CONST", "GAP"], start=1)
    }
    for first, last in ((300, 380), (640, 700)):
        for column in PRICES:
            frames["FLAT"].loc[first:last, column] = frames["FLAT"].loc[first, "close"]
    frames["ZERO"].loc[600:680, "volume"] = 0
    frames["JUMP"].loc[620:, PRICES] *= 0.6
    frames["WTI"].loc[625, PRICES] = [17.7, 17.8, -40.3, -36.98]  # as on 2020-04-20
    frames["CONST"][PRICES] = 50.0
    frames["GAP"].loc[610:614, PRICES] = np.nan
    return pd.concat(frames.values(), ignore_index=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    table().to_csv(folder / "prices.csv", index=False)
    (folder / "job.yaml").write_text(JOB)
    ended = CliRunner().invoke(
        app, ["backtest", str(folder / "job.yaml"), "--output", str(folder / "out"), "--debug"]
    )
    assert ended.exit_code == 3, ended.stderr
    (folder / "out" / "said.txt").write_text(ended.stderr)
    return folder / "out"


@pytest.fixture(scope="module")
def forecasts(results: Path) -> pd.DataFrame:
    return pd.read_parquet(results / "forecasts.parquet")


def widths(forecasts: pd.DataFrame) -> pd.Series:
    """Width of the 80% interval of the next session, by model, symbol and origin."""
    rows = forecasts[forecasts["horizon"] == 1].set_index(["model", "symbol", "origin"]).sort_index()
    return rows["q0.9"] - rows["q0.1"]


def test_every_model_forecasts_every_symbol_that_can_be_forecast(forecasts: pd.DataFrame) -> None:
    assert forecasts["model"].nunique() == len(FIELD)
    assert set(forecasts["symbol"]) == {"SOUND", "FLAT", "ZERO", "JUMP", "WTI", "GAP"}
    rows = forecasts.groupby(["symbol", "horizon"])["model"].value_counts().unstack()
    assert (rows.nunique(axis=1) == 1).all(), "the same origins for every model"


def test_no_quantile_is_missing_crosses_or_has_no_width(forecasts: pd.DataFrame) -> None:
    values = forecasts[quantile_columns()].to_numpy()
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert (values[:, -1] > values[:, 0]).all()


def test_no_score_is_missing(results: Path, forecasts: pd.DataFrame) -> None:
    scores = pd.read_csv(results / "scores.csv", keep_default_na=False)
    assert np.isfinite(scores["value"].astype(float)).all()
    assert set(scores["model"]) == set(forecasts["model"])


@pytest.mark.parametrize(
    ("symbol", "code", "sessions", "said"),
    [
        ("FLAT", "stale-close", 142, "142 sessions lie in runs of 10 or more identical closes"),
        ("ZERO", "zero-volume", 81, "nothing was traded in 81 sessions"),
        ("JUMP", "jump-without-action", 1, r"|log return| exceeds ln(1.5) without a dividend or split"),
        ("WTI", "non-positive-price", 1, "it is -36.98 on 2002-05-27"),
        ("CONST", "constant-series", 900, "the price must change; it is 50 in all 900 sessions"),
        ("GAP", "no-close", 5, "5 of 900 sessions have no close, the first on 2002-05-06"),
    ],
)
def test_what_is_wrong_is_said(results: Path, symbol: str, code: str, sessions: int, said: str) -> None:
    findings = pd.read_csv(results / "findings.csv", keep_default_na=False)
    mine = findings[(findings["symbol"] == symbol) & (findings["code"] == code)]
    assert mine["sessions"].max() == sessions
    assert mine["message"].str.contains(said, regex=False).any()


def test_a_series_without_a_fault_is_not_complained_of(results: Path) -> None:
    findings = pd.read_csv(results / "findings.csv", keep_default_na=False)
    assert "SOUND" not in set(findings["symbol"])


def test_a_constant_series_is_left_out_by_name(results: Path) -> None:
    failures = pd.read_csv(results / "failures.csv", keep_default_na=False)
    assert failures["symbol"].tolist() == ["CONST"]
    assert "left out CONST: the price must change" in (results / "said.txt").read_text()


def test_a_session_with_a_price_that_cannot_be_is_no_origin(forecasts: pd.DataFrame) -> None:
    wti = forecasts[forecasts["symbol"] == "WTI"]
    assert pd.Timestamp("2002-05-27") not in set(wti["origin"])
    around = wti[(wti["origin"] == pd.Timestamp("2002-05-24")) & (wti["horizon"] == 1)]
    closes = table().query("symbol == 'WTI'")["close"].to_numpy()
    assert around["y"].to_numpy() == pytest.approx(np.log(closes[626] / closes[624]))


def test_sessions_without_a_close_are_no_origins(forecasts: pd.DataFrame) -> None:
    gap = forecasts[forecasts["symbol"] == "GAP"]
    absent = pd.bdate_range("2002-05-06", "2002-05-10")
    assert not set(absent) & set(gap["origin"])


def test_a_jump_widens_what_follows_and_nothing_before(forecasts: pd.DataFrame) -> None:
    wide = widths(forecasts)
    jump = pd.Timestamp("2002-05-20")
    for model in set(forecasts["model"]) - {"zero", "historical"}:
        mine = wide[model, "JUMP"]
        assert mine[jump] > 2 * mine[mine.index < jump].max(), model


def test_a_flat_run_does_not_make_a_forecast_certain(forecasts: pd.DataFrame) -> None:
    """After 60 sessions without a change the interval is narrower than before, and still one."""
    wide = widths(forecasts)
    last = pd.bdate_range("2000-01-03", periods=SESSIONS)[700]
    for model in forecasts["model"].unique():
        assert wide[model, "FLAT"][last] > 1e-5, model
