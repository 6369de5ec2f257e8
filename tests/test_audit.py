"""The hunt for look-ahead: an honest job passes, and each planted leak is caught by the check made for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from planted import garch, prices
from typer.testing import CliRunner

from forecaster.errors import JobError, ParameterError
from forecaster.job import Job, load_job
from forecaster.models.naive import HistoricalForecaster
from forecaster.quantiles import QuantileForecast
from forecaster.windows import Windows
from pipelines.audit import COLUMNS, Audit, audit_job
from pipelines.cli import app

JOB = """
name: audited
prices: {kind: files, path: prices.csv}
lookback: 8
horizons: [1, 3]
covariates: {RATE: level, HINT: return}
market: INDEX
portfolios: {BOTH: {A: 0.5, B: 0.5}}
backtest: {start: 2001-06-01}
models:
  - {kind: historical}
  - {kind: ridge, lags: 5}
  - {kind: ewma_fhs}
  - {kind: combination, members: [ridge, ewma_fhs]}
"""


def write(folder: Path, leak: bool = False, job: str = JOB) -> Path:
    """Write prices and a job; with a leak, HINT returns today what A returns tomorrow, and some noise."""
    random = np.random.default_rng(5)
    returns = {name: garch(700, seed) for seed, name in enumerate(("A", "B", "INDEX", "HINT"))}
    if leak:
        returns["HINT"] = np.append(returns["A"][1:], 0.0) + 0.01 * random.standard_normal(700)
    frames = [prices(values).reset_index().assign(symbol=name) for name, values in returns.items()]
    rate = np.cumsum(random.standard_normal(701))  # below zero at times
    frames.append(frames[0].assign(symbol="RATE", close=rate))
    table = pd.concat(frames)[["symbol", "session", "close"]]
    table.to_csv(folder / "prices.csv", index=False)
    (folder / "job.yaml").write_text(job)
    return folder / "job.yaml"


class Shifted:
    """The past distribution times a factor for each origin: the frame of a planted leak."""

    def __init__(self) -> None:
        self.plain = HistoricalForecaster()

    @property
    def parameters(self) -> int:
        return 1

    def fit(self, windows: Windows) -> Self:
        self.plain.fit(windows)
        return self

    def factor(self, windows: Windows) -> Any:
        raise NotImplementedError

    def predict(self, windows: Windows) -> QuantileForecast:
        values = self.plain.predict(windows).values * np.asarray(self.factor(windows))[:, None, None]
        return QuantileForecast(values, windows.horizons)

    def save(self, folder: Path) -> None:
        self.plain.save(folder)

    def load(self, folder: Path) -> Self:
        self.plain.load(folder)
        return self


class SeesTomorrow(Shifted):
    """Knows how large the next return is."""

    def factor(self, windows: Windows) -> Any:
        ahead = np.append(windows.panel.returns[1:], 0.0)[windows.rows]
        return np.clip(np.abs(ahead) / 0.007, 0.1, 4.0)


class ScaledByAll(Shifted):
    """Scaled by the deviation of the whole panel, test sessions included: a leak in the twelfth digit."""

    def factor(self, windows: Windows) -> Any:
        return np.full(len(windows), 1.0 + 1e-9 * windows.panel.returns.std())


class ScaledByBatch(Shifted):
    """Scaled by its neighbours in the batch."""

    def factor(self, windows: Windows) -> Any:
        volatility = windows.volatility
        return volatility / volatility.mean()


class KnowsWhenItEnds(Shifted):
    """Knows how many sessions are still to come."""

    def factor(self, windows: Windows) -> Any:
        panel = windows.panel
        left = np.diff(panel.offsets)[windows.series] - panel.positions[windows.rows]
        return 1.0 + left / 1000.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audit")
    write(path)
    return path


@pytest.fixture(scope="module")
def job(folder: Path) -> Job:
    return load_job(folder / "job.yaml")


@pytest.fixture(scope="module")
def honest(job: Job, folder: Path) -> Audit:
    return audit_job(job, folder, lambda *_: None)


def test_nothing_of_an_honest_job_moves(honest: Audit) -> None:
    table = honest.table
    assert list(table.columns) == COLUMNS
    assert not honest.moved, table[table["moved"]]
    names = ["historical", "ridge", "ewma_fhs", "combination"]
    for check in ("future", "history", "batch", "shuffle"):
        assert list(table.loc[table["check"] == check, "model"]) == names
    assert list(table.loc[table["check"] == "covariate", "model"]) == ["HINT", "RATE"]
    assert (table.loc[table["check"] == "future", "largest"] == 0.0).all()
    told = table.loc[(table["check"] == "shuffle") & (table["model"] == "ridge"), "found"].iloc[0]
    assert told.startswith("CRPS ratio to the past distribution: h=1 ")
    assert " to " in told
    assert len(honest.origins) == 2
    assert honest.origins[0] < honest.origins[1]


@pytest.mark.parametrize(
    ("leak", "checks"),
    [
        (SeesTomorrow, {"future", "history", "shuffle"}),
        (ScaledByAll, {"future"}),
        (ScaledByBatch, {"batch"}),
        (KnowsWhenItEnds, {"history"}),
        (HistoricalForecaster, set()),
    ],
)
def test_a_planted_leak_is_caught(leak: type[Any], checks: set[str], job: Job, folder: Path) -> None:
    found = audit_job(job, folder, lambda *_: None, origins=1, builders={"planted": partial(leak)})
    moved = found.table[found.table["moved"]]
    # Whoever scales by all at hand also depends on what else is.
    assert set(moved["check"]) - ({"batch"} if leak is KnowsWhenItEnds else set()) == checks
    assert found.moved == bool(checks)
    if leak is SeesTomorrow:
        future = moved[moved["check"] == "future"].iloc[0]
        assert future["largest"] > 1e-4
        assert "h=" in future["found"]
        assert future["found"].endswith("of 30 origins")


def test_the_command_says_what_moved(tmp_path: Path) -> None:
    write(tmp_path, leak=True)
    told = CliRunner().invoke(
        app, ["audit", str(tmp_path / "job.yaml"), "--models", "ridge", "--origins", "1"]
    )
    assert told.exit_code == 1, told.output
    rows = [line for line in told.output.splitlines() if "MOVED" in line]
    assert len(rows) == 1
    assert "covariate" in rows[0]
    assert "HINT" in rows[0]
    assert "1 of 6 checks moved" in told.output


def test_the_command_passes_an_honest_job(folder: Path) -> None:
    told = CliRunner().invoke(
        app, ["audit", str(folder / "job.yaml"), "--models", "historical", "--origins", "1"]
    )
    assert told.exit_code == 0, told.output
    assert "Nothing moved." in told.output


def test_a_combination_is_audited_with_its_members(job: Job, folder: Path) -> None:
    found = audit_job(job, folder, lambda *_: None, models=["combination"], origins=1)
    models = found.table.loc[found.table["check"] == "future", "model"]
    assert set(models) == {"ridge", "ewma_fhs", "combination"}


def test_what_cannot_be_audited_is_one_clear_line(job: Job, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"Received: 'rigde'; did you mean 'ridge'"):
        audit_job(job, folder, lambda *_: None, models=["rigde"])
    path = write(tmp_path, job=JOB.replace("2001-06-01", "2002-09-01"))
    with pytest.raises(ParameterError, match="an audit samples at least one origin, 10 sessions after"):
        audit_job(load_job(path), tmp_path, lambda *_: None)
