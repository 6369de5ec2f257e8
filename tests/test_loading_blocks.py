"""Prices of many symbols are loaded in blocks: the same panel, the same version, the same failures."""

from __future__ import annotations

import datetime
from pathlib import Path

import numpy as np
import pytest
from planted import prices, random_walk

from forecaster.job import parse_job
from forecaster.job.panel import lay_out
from forecaster.prices.base import content_hash
from forecaster.prices.store import Fetch, PriceStore
from forecaster.windows import Panel, PanelWriter, Universe, Windows
from pipelines import loading
from pipelines.loading import load_data, without

JOB = """
name: many
prices: {kind: files, path: none.csv}
store: %s/prices
backtest: {start: 2000-06-01}
models: [{kind: historical}]
market: S0100
engine: {workers: %d}
workspace: %s
"""
COUNT = loading.BLOCK + 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("many")
    fetches = {}
    for number in range(COUNT):
        frame = prices(random_walk(70 + number % 3 if number != 3 else 20, number))
        window = (frame.index[0].date(), frame.index[-1].date())
        fetches[f"S{number:04d}"] = Fetch(frame, window, full=True)
    store = PriceStore(place / "prices")
    store.write(fetches, fetched_at=datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC), source="test")
    store.settle("S0005", datetime.date(2000, 2, 1), "reject", "by hand")
    return place


@pytest.mark.parametrize("workers", [1, 2])
def test_blocks_make_the_panel_of_all(workers: int, folder: Path, tmp_path: Path) -> None:
    job = parse_job(JOB % (folder, workers, tmp_path), "many")
    data = load_data(job, tmp_path, 60)
    assert set(data.prices.failures) == {"S0003"}
    assert "at least 60 sessions" in data.prices.failures["S0003"]
    assert list(data.prices.quarantined) == ["S0005"]
    assert data.coverage == (COUNT - 1) / COUNT
    frames = dict(PriceStore(folder / "prices").read().frames)
    del frames["S0003"]
    whole, _ = lay_out(job, frames, 60)
    for ours, theirs in ((data.panel, whole), (data.panel.every, whole.every)):
        assert (ours.symbols, ours.universe) == (theirs.symbols, theirs.universe)
        for name in ("offsets", "sessions", "closes", "returns"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert data.data_version == content_hash(frames)
    # What is held of the prices themselves is what an origin needs.
    assert {len(frame) for frame in data.prices.frames.values()} == {job.warm_up + 1}
    assert list(tmp_path.iterdir()) == [], "no file is left"
    fewer = without(data, {"S0000": "for a test"})
    del frames["S0000"]
    assert fewer.data_version == content_hash(frames)
    assert "S0000" not in fewer.panel.symbols


def test_a_panel_in_parts_is_the_panel(tmp_path: Path) -> None:
    frames = {name: prices(random_walk(30 + n, n)) for n, name in enumerate("ABCD")}
    whole = Panel.from_prices(frames)
    (tmp_path / "part").mkdir()
    Panel.from_prices({name: frames[name] for name in "CD"}).save(tmp_path / "part")
    writer = PanelWriter(tmp_path)
    writer.add(Panel.from_prices({name: frames[name] for name in "AB"}))
    writer.take(tmp_path / "part")
    writer.finish(Universe(tuple("ABCD")))
    again = Panel.open(tmp_path)
    assert (again.symbols, again.universe) == (whole.symbols, whole.universe)
    for name in ("offsets", "sessions", "closes", "returns"):
        np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))


@pytest.mark.parametrize("size", [1, 64, 65, 100, 10_000])
def test_blocks_of_windows_hold_every_origin_once_and_see_the_same(size: int) -> None:
    frames = {name: prices(random_walk(30 + n, n)) for n, name in enumerate("ABCDE")}
    panel = Panel.from_prices(frames)
    rows = np.random.default_rng(0).permutation(len(panel))[:90]
    windows = Windows(panel, rows, (1, 5))
    seen = []
    for mine, part in windows.blocks(size):
        assert len(part.panel) <= max(size, 34)
        assert part.symbols.tolist() == windows.symbols[mine].tolist()
        assert part.sessions.tolist() == windows.sessions[mine].tolist()
        np.testing.assert_array_equal(part.targets, windows.targets[mine])
        np.testing.assert_array_equal(part.volatility, windows.volatility[mine])
        np.testing.assert_array_equal(part.panel.market().values, panel.market().values)
        seen += mine.tolist()
    assert sorted(seen) == list(range(90))
