"""Scores of all origins against those of forecasts, and CRPS by its knots against its definition."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from planted import garch, prices

from forecaster.engine import Engine
from forecaster.errors import ParameterError
from forecaster.job import parse_job
from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.scores.losses import crps
from forecaster.tracking.saved import SavedModel, write_model
from forecaster.windows import Panel, Windows
from pipelines.origins import score_origins, standardised_crps
from pipelines.train import fit_model

NUMBERS = st.floats(-20.0, 20.0, allow_subnormal=False)


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(float, len(LEVELS), elements=NUMBERS), hnp.arrays(float, 5, elements=NUMBERS))
def test_crps_by_its_knots_is_crps(values: np.ndarray, z: np.ndarray) -> None:
    quantiles = np.sort(values)
    theirs = crps(z, np.broadcast_to(quantiles, (5, len(LEVELS))))
    np.testing.assert_allclose(standardised_crps(z, quantiles), theirs, rtol=1e-9, atol=1e-9)
    assert np.isnan(standardised_crps(np.array([np.nan]), quantiles)).all()


JOB = """
name: origins
prices: {kind: sample}
horizons: [1, 5]
backtest: {start: 2001-06-01}
models: [{kind: mlp, training: {epochs: 1, seeds: 1}}, {kind: historical}]
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Panel]:
    folder = tmp_path_factory.mktemp("origins")
    panel = Panel.from_prices({f"S{number:03d}": prices(garch(500, number)) for number in range(5)})
    (folder / "panel").mkdir()
    panel.save(folder / "panel")
    job = parse_job(JOB, "origins")
    for name in ("mlp", "historical"):
        model = fit_model(job, name, panel, panel.calendar[-1])
        write_model(folder / name, SavedModel(job, name, model))
        if name == "mlp":
            origins = Windows(panel, np.flatnonzero(panel.positions >= 299).astype(np.int64), (1, 5))
            forecast = model.predict(origins)
            table = pd.DataFrame(
                {"symbol": np.repeat(origins.symbols, 2), "origin": np.repeat(origins.sessions, 2)}
            )
            table["crps"] = crps(origins.targets, forecast.values).ravel()
            table[quantile_columns()] = forecast.values.reshape(-1, len(LEVELS))
            table.to_parquet(folder / "expected.parquet")
    return folder, panel


def test_scores_and_quantiles_are_those_of_the_forecasts(saved: tuple[Path, Panel], tmp_path: Path) -> None:
    folder, panel = saved
    with Engine() as engine:
        mean = score_origins(engine, folder / "panel", folder / "mlp", 300, (1, 5), tmp_path)
    found = pd.concat([pd.read_parquet(path) for path in sorted(tmp_path.glob("part-*.parquet"))])
    expected = pd.read_parquet(folder / "expected.parquet")
    assert len(found) == 5 * (len(panel) // 5 - 299)
    assert found["symbol"].tolist() == expected["symbol"].tolist()[::2]
    quantiles = json.loads((tmp_path / "quantiles.json").read_text())["quantiles"]
    for number, horizon in enumerate((1, 5)):
        mine = expected.iloc[number::2]
        np.testing.assert_allclose(found[f"crps_{horizon}"], mine["crps"], rtol=1e-5)
        np.testing.assert_allclose(mean[number], mine["crps"].mean(), rtol=1e-9)
        rebuilt = (
            found[[f"location_{horizon}"]].to_numpy()
            + found[[f"scale_{horizon}"]].to_numpy() * np.array(quantiles[number])[None, :]
        )
        np.testing.assert_allclose(rebuilt, mine[quantile_columns()], rtol=1e-5, atol=1e-9)


def test_a_model_without_a_scale_is_refused(saved: tuple[Path, Panel], tmp_path: Path) -> None:
    folder, _ = saved
    with Engine() as engine, pytest.raises(ParameterError, match="Received: HistoricalForecaster"):
        score_origins(engine, folder / "panel", folder / "historical", 300, (1, 5), tmp_path)
