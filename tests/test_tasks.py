"""A backtest gives the same bits wherever it runs, and whoever dies on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pytest
from clusters import dask_cluster, ray_cluster, wait_until
from planted import garch, prices

from forecaster.engine import Engine
from forecaster.errors import ForecasterError, SourceError
from forecaster.job import Job, parse_job
from forecaster.models.econometric import EwmaForecaster
from forecaster.models.econometric import garch as garch_module
from forecaster.prices.base import LoadedPrices, content_hash
from forecaster.threads import limited_threads
from forecaster.walkforward import backtest
from forecaster.windows import Panel, Windows
from pipelines.backtest import BacktestResult, backtest_job, write_backtest
from pipelines.loading import JobData
from pipelines.tasks import _Place, _walk_task, job_folds, walked

JOB = """
name: engines
prices: {kind: sample}
horizons: [1, 5]
backtest: {start: 2001-06-01, refit_every: 60}
workspace: %s
models: [%s]
engine: %s
"""
MODELS = (
    "{kind: historical}, {kind: gjr_t_fhs, calibration: {kind: control}}, {kind: harx_fhs}, "
    "{kind: combination, members: [gjr_t_fhs, harx_fhs]}"
)
NETWORK = """{kind: historical},
{kind: convolution, strategy: {kind: lagged, rows: 2}, refit_every: 2, training: {epochs: 1, seeds: 2}}"""
cluster = pytest.mark.skipif(
    find_spec("distributed") is None or find_spec("ray") is None, reason="needs the extra `cluster`"
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As a job has: the bits hold at equal numbers of threads."""
    with limited_threads(1):
        yield


def job_of(folder: Path, engine: str = "{}", models: str = MODELS) -> Job:
    return parse_job(JOB % (folder, models, engine), "engines")


@pytest.fixture(scope="module")
def data() -> JobData:
    frames = {f"S{number}": prices(garch(600, number)) for number in range(3)}
    return JobData(Panel.from_prices(frames), LoadedPrices(frames, (), {}), content_hash(frames))


def run(job: Job, data: JobData, progress: Any = lambda *_: None) -> BacktestResult:
    # Fits are kept for the life of a process: each run shall make its own.
    garch_module._fits.clear()
    return backtest_job(job, data, progress)


def bits(result: BacktestResult) -> dict[str, bytes]:
    tables = {"forecasts": result.forecasts, "scores": result.scores, "tails": result.tails}
    tables |= {"verdicts": result.verdicts, "weights": result.lag_weights}
    return {name: table.to_csv(index=False, float_format="%r").encode() for name, table in tables.items()}


@pytest.fixture(scope="module")
def alone(data: JobData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return bits(run(job_of(tmp_path_factory.mktemp("alone")), data))


def test_one_worker_gives_what_the_library_gives(
    data: JobData, alone: dict[str, bytes], tmp_path: Path
) -> None:
    job = job_of(tmp_path)
    over = job_folds(job, data.panel)
    assert len(over) == 4
    names = ("historical", "gjr_t_fhs", "harx_fhs")
    plain = {name: lambda name=name: job.build_plain(name) for name in names}
    made = backtest(plain, over)
    failed: dict[str, str] = {}
    with Engine() as engine:
        for ours, theirs in zip(walked(engine, job, data, over, failed, lambda *_: None), made, strict=True):
            assert (ours.model, ours.fold.number) == (theirs.model, theirs.fold.number)
            assert ours.forecast.values.tobytes() == theirs.forecast.values.tobytes()
            assert ours.fitted.parameters == theirs.fitted.parameters
    assert failed == {}
    assert set(alone) == {"forecasts", "scores", "tails", "verdicts", "weights"}


def test_threads_give_the_same_bits(data: JobData, alone: dict[str, bytes], tmp_path: Path) -> None:
    assert bits(run(job_of(tmp_path, "{kind: threading, workers: 2}"), data)) == alone


def command_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def children(of: int | str = "self") -> list[int]:
    found = []
    for task in Path(f"/proc/{of}/task").iterdir():
        found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


def test_processes_give_the_same_bits_with_one_killed(
    data: JobData, alone: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []

    def progress(what: str, done: int, total: int) -> None:
        nonlocal killed
        # Once the walk is under way and not near its end.
        if what != "GARCH" and done == 3 and not killed:
            assert total == 12
            workers = [pid for pid in children() if b"popen_loky" in command_of(pid)]
            killed.append(workers[0])
            os.kill(workers[0], signal.SIGKILL)

    assert bits(run(job_of(tmp_path, "{workers: 2}"), data, progress)) == alone
    assert killed
    assert list(tmp_path.iterdir()) == [], "the panel that the workers shared is gone"


@cluster
def test_dask_gives_the_same_bits_with_a_worker_killed(
    data: JobData, alone: dict[str, bytes], tmp_path: Path
) -> None:
    with dask_cluster() as address:
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            pids = list(client.run(os.getpid).values())
        killed = []

        def progress(what: str, done: int, total: int) -> None:
            if what != "GARCH" and done == 3 and not killed:
                killed.append(pids[0])
                os.kill(pids[0], signal.SIGKILL)

        assert bits(run(job_of(tmp_path, f"{{kind: dask, address: '{address}'}}"), data, progress)) == alone
        assert killed


def working() -> list[int]:
    """Find the workers of Ray that are at a task of ours."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if place.read_bytes().startswith(b"ray::_perform_on_ray"):
                found.append(int(place.parent.name))
    return found


@cluster
def test_ray_gives_the_same_bits_with_a_worker_killed(
    data: JobData, alone: dict[str, bytes], tmp_path: Path
) -> None:
    with ray_cluster() as address:
        killed: list[int] = []

        def progress(what: str, done: int, total: int) -> None:
            if what != "GARCH" and done == 3 and not killed:
                wait_until(lambda: bool(working()))
                killed.append(working()[0])
                os.kill(killed[0], signal.SIGKILL)

        assert bits(run(job_of(tmp_path, f"{{kind: ray, address: '{address}'}}"), data, progress)) == alone
        assert killed


@pytest.mark.slow
def test_networks_give_the_same_bits_on_two_workers(data: JobData, tmp_path: Path) -> None:
    one = bits(run(job_of(tmp_path, models=NETWORK), data))
    assert len(one["weights"]) > 1000
    assert bits(run(job_of(tmp_path, "{workers: 2}", NETWORK), data)) == one


@pytest.mark.parametrize("whom", ["the process", "all of the terminal"])
def test_an_interrupted_backtest_leaves_no_worker_and_no_half_written_result(
    whom: str, data: JobData, tmp_path: Path
) -> None:
    frames = [frame.reset_index().assign(symbol=name) for name, frame in data.prices.frames.items()]
    pd.concat(frames)[["symbol", "session", "close"]].to_csv(tmp_path / "prices.csv", index=False)
    text = JOB % (
        tmp_path / "workspace",
        "{kind: historical}, {kind: boosting, iterations: 9000}",
        "{workers: 2}",
    )
    text = text.replace("{kind: sample}", "{kind: files, path: prices.csv}")
    (tmp_path / "job.yaml").write_text(text)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "scores.csv").write_text("the last whole result")
    command = [sys.executable, "-m", "pipelines.cli", "backtest", str(tmp_path / "job.yaml")]
    command += ["--output", str(tmp_path / "out")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as main:
        # The first model is written, and the workers are at the second, which takes minutes.
        wait_until(lambda: any((tmp_path / "workspace").glob(".backtest-*/forecasts.parquet")))
        workers = children(main.pid)
        assert sum(b"popen_loky" in command_of(pid) for pid in workers) == 2
        assert any((tmp_path / "workspace").glob(".panel-*"))
        if whom == "the process":
            main.send_signal(signal.SIGINT)
        else:
            os.killpg(main.pid, signal.SIGINT)
        _, said = main.communicate(timeout=120)
    assert main.returncode == 130, said
    assert "Traceback" not in said
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["scores.csv"]
    assert (tmp_path / "out" / "scores.csv").read_text() == "the last whole result"
    assert list((tmp_path / "workspace").iterdir()) == []


class FullDisk(EwmaForecaster):
    def fit(self, windows: Windows) -> Self:
        raise OSError(28, "no space left on device")


class Unlucky(Job):
    """A job one of whose models meets a full disk."""

    def build_plain(self, name: str) -> Any:
        return FullDisk() if name == "gjr_t_fhs" else super().build_plain(name)


def test_a_model_that_fails_is_named_and_the_others_go_on(data: JobData, tmp_path: Path) -> None:
    job = Unlucky.model_validate(job_of(tmp_path).model_dump())
    result = run(job, data)
    assert result.failed == {
        "gjr_t_fhs": "gjr_t_fhs from 2001-06-01: OSError: [Errno 28] no space left on device",
        "combination": "its member gjr_t_fhs failed",
    }
    assert sorted(result.forecasts["model"].unique()) == ["harx_fhs", "historical"]
    assert sorted(result.verdicts["model"].unique()) == ["harx_fhs", "historical"]
    folder = tmp_path / "out"
    folder.mkdir()
    write_backtest(job, result, folder)
    failed = pd.read_csv(folder / "failed_models.csv", index_col="model")["reason"]
    assert failed.to_dict() == result.failed
    alone = job.model_copy(update={"models": tuple(m for m in job.models if m.name == "gjr_t_fhs")})
    with pytest.raises(ForecasterError, match=r"^no model could be fitted: gjr_t_fhs: gjr_t_fhs from"):
        run(alone, data)


def test_a_worker_that_sees_neither_panel_nor_store_says_so(data: JobData, tmp_path: Path) -> None:
    place = _Place(str(tmp_path / "elsewhere"), data.panel.symbols, None, data.data_version)
    with pytest.raises(SourceError, match=r"share the folder .*elsewhere or name a `store`"):
        _walk_task(place, job_of(tmp_path), "historical", (0,), False)


def test_a_panel_comes_back_as_it_was(tmp_path: Path) -> None:
    frames = {name: prices(garch(50 + n, n)) for n, name in enumerate(("A", "B", "M", "Z"))}
    for number, market in enumerate((None, "M", "Z")):
        folder = tmp_path / str(number)
        folder.mkdir()
        panel = Panel.from_prices(frames, market=market)
        panel.save(folder)
        again = Panel.open(folder)
        assert (again.symbols, again.universe) == (panel.symbols, panel.universe)
        assert again.every.symbols == panel.every.symbols
        for name in ("offsets", "sessions", "closes", "returns"):
            np.testing.assert_array_equal(getattr(again, name), getattr(panel, name))
            np.testing.assert_array_equal(getattr(again.every, name), getattr(panel.every, name))
        np.testing.assert_array_equal(again.market().values, panel.market().values)
        np.testing.assert_array_equal(again.calendar, panel.calendar)
        with pytest.raises(ValueError, match="read-only"):
            again.every.returns[0] = 1.0
        # Only a market in the middle of the series costs a copy.
        assert np.shares_memory(again.returns, again.every.returns) == (market != "M")
