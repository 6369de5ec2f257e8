"""The figures of `make bench-skill`: what they are made of, and what is promised of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import garch, prices

from forecaster.job import load_job
from forecaster.models.base import Forecaster
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import TAIL_COLUMNS
from forecaster.scores import score_table
from forecaster.walkforward import backtest, folds, forecast_table
from forecaster.windows import Panel

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))

import bench_skill  # noqa: E402

NAMES = [
    "zero", "historical", "ewma_fhs", "garch_t_fhs", "gjr_t_fhs", "gjr_t_fhs_pooled", "gjr_t_rolling_fhs",
    "harx_fhs", "lin", "har_log", "ridge", "boosting", "mlp", "convolution", "conv1d", "combination",
]  # fmt: skip


def test_the_job_holds_the_field_and_its_market() -> None:
    job = load_job(ROOT / "configs" / "us20.yaml")
    assert [model.name for model in job.models] == NAMES
    assert (job.market, job.horizons) == ("SPX", bench_skill.HORIZONS)
    assert len(set(job.prices.symbols) - {"SPX"}) == 20
    assert set(bench_skill.RIVALS) <= set(NAMES)


@pytest.fixture(scope="module")
def tables() -> tuple[pd.DataFrame, pd.DataFrame, Panel]:
    panel = Panel.from_prices({f"S{seed}": prices(garch(700, seed)) for seed in range(3)})
    walk = folds(panel, (1, 5, 21), panel.calendar[400], None, 400, 30)
    models: dict[str, Callable[[], Forecaster]] = {
        "harx_fhs": lambda: EwmaForecaster(0.94),
        "convolution": HistoricalForecaster,
    }
    forecasts, tails = [], []
    for result in backtest(models, walk):
        table = forecast_table(result.model, result.fold.test, result.forecast)
        forecasts.append(table)
        stated = result.forecast.tails
        assert stated is not None
        beside = dict(zip(TAIL_COLUMNS, (stated.low, stated.high, stated.variance), strict=True))
        tails.append(
            table[bench_skill.KEYS].assign(**{name: values.ravel() for name, values in beside.items()})
        )
    return pd.concat(forecasts, ignore_index=True), pd.concat(tails, ignore_index=True), panel


def test_losses_and_ratios_are_those_by_hand(tables: tuple[pd.DataFrame, pd.DataFrame, Panel]) -> None:
    forecasts, tails, panel = tables
    losses = bench_skill.row_losses(forecasts, tails, panel)
    assert len(losses) == np.isfinite(forecasts["y"]).sum()
    row = losses[(losses["horizon"] == 5) & (losses["model"] == "convolution")].iloc[17]
    part = panel.parts[panel.symbols.index(row["symbol"])]
    place = part.start + int(np.searchsorted(panel.sessions[part], np.datetime64(row["origin"], "D")))
    realised = np.square(panel.returns[place + 1 : place + 6]).sum()
    same = (tails[bench_skill.KEYS] == row[bench_skill.KEYS]).all(axis=1)
    ratio = realised / tails.loc[same, "variance"].item()
    assert row["qlike"] == pytest.approx(ratio - np.log(ratio) - 1.0, rel=1e-9)
    found = bench_skill.compare(losses, "convolution", "harx_fhs", 5)
    of = {
        name: losses[(losses["model"] == name) & (losses["horizon"] == 5)]
        for name in losses["model"].unique()
    }
    assert found["ratio"] == pytest.approx(of["convolution"]["crps"].mean() / of["harx_fhs"]["crps"].mean())
    assert found["ratio"] > 1.0, "on GARCH, a volatility is worth something"
    means = {name: rows.groupby("symbol")["crps"].mean() for name, rows in of.items()}
    assert found["symbols"] == (means["convolution"] < means["harx_fhs"]).sum()
    assert 0.0 <= found["p"] <= 1.0
    figures = bench_skill.measure(losses, score_table(forecasts))
    assert figures["crps_convolution_to_harx_fhs_5_ratio"] == found["ratio"]
    assert {"qlike_convolution_to_harx_fhs_5_ratio", "coverage_80_convolution_21"} <= set(figures)


def test_what_was_promised_is_held_against_what_was_found() -> None:
    """Each figure at its bound is reached, and beyond it is not."""
    names = [name for name, _, _ in bench_skill.judge(Everything(0.5))]
    assert len(names) == len(set(names)) > 50
    bound = {name: words for name, words, _ in bench_skill.judge(Everything(0.5))}
    assert bound["crps_combination_to_harx_fhs_21_ratio"] == "0.5000 <= 0.999"
    assert bound["crps_convolution_to_gjr_t_fhs_1_symbols"] == "0.5000 >= 18"
    assert all(good for name, _, good in bench_skill.judge(Everything(0.5)) if name.endswith("_ratio"))
    assert not any(
        good for name, _, good in bench_skill.judge(Everything(1.5)) if name.endswith(("_ratio", "_p"))
    )
    assert all(good for name, _, good in bench_skill.judge(Everything(19.0)) if name.endswith("_symbols"))


class Everything(dict[str, float]):
    """Figures that all have one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def __missing__(self, key: str) -> float:
        return self.value
