"""The dashboard without a browser: what it reads, what it computes, and what each page says."""

from __future__ import annotations

import datetime
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from html import escape, unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dashboard_job import EVENINGS, JOB, copy_job, many_symbols, write_job
from hypothesis import given, settings
from hypothesis import strategies as st
from report_results import BASELINE, CHAMPION
from scipy.signal import convolve2d, correlate2d

pytest.importorskip("streamlit", reason="the dashboard is an extra")
from streamlit.testing.v1 import AppTest

from dashboards import lifting, sources
from dashboards.app import PAGES
from dashboards.lifting import Setting, explore, parse_kernel, parse_lags, same_maps, tap_table
from dashboards.views import forecasts as forecasts_view
from dashboards.views import runs as runs_view
from forecaster.errors import ParameterError
from forecaster.exports import EXPORT_COLUMNS
from forecaster.job import Job
from forecaster.kernels import Parallel, lag_weights
from forecaster.ledger import Ledger
from forecaster.liftings import CalendarFold, Column, Lagged, Replicate, Row

HOSTILE = ("<script>alert(1)</script>", "../../x", "=cmd()")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("dashboard"))


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_job(tmp_path_factory.mktemp("small"), ("SPX",), 120)


@pytest.fixture(scope="module")
def broken(small: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job without a ledger whose scores, closes and some quantiles are no numbers."""
    config = copy_job(small, tmp_path_factory.mktemp("broken"))
    results = config.parent / "workspace" / "quickstart"
    (config.parent / "workspace" / "ledger.db").unlink()
    for file, columns in (("scores.csv", ["value"]), ("verdict.csv", ["crps_ratio", "p_value"])):
        table = pd.read_csv(results / file, keep_default_na=False)
        table[columns] = np.nan
        table.to_csv(results / file, index=False)
    latest = pd.read_parquet(results / "latest.parquet")
    latest.loc[latest["model"] == CHAMPION, "q0.99"] = np.nan
    # The other models of the leaderboard have no forecasts at all.
    latest = latest[latest["model"].isin([CHAMPION, BASELINE])]
    latest.assign(close=np.nan).to_parquet(results / "latest.parquet")
    return config


def open_page(config: Path, name: str) -> AppTest:
    def script(config: str, name: str) -> None:
        from pathlib import Path

        from dashboards.app import PAGES, show

        show(PAGES[name][1], Path(config), None)

    page = AppTest.from_function(script, args=(str(config), name), default_timeout=60)
    return page.run()


def html_of(page: AppTest) -> str:
    assert not page.exception, page.exception[0].value
    return "\n".join(block.proto.body for block in page.get("html"))


def text_of(page: AppTest) -> str:
    return unescape(html_of(page))


# ---------------------------------------------------------------------------- what is read


def test_a_ledger_is_read_and_never_made(config: Path, tmp_path: Path) -> None:
    said: list[str] = []
    place = sources.place_of(config)
    record = sources.from_ledger(place, "track_record", said)
    with Ledger.open(place.ledger) as ledger:
        pd.testing.assert_frame_equal(record, ledger.track_record("quickstart"))
        pd.testing.assert_frame_equal(
            sources.from_ledger(place, "status", said), ledger.status("quickstart", evenings=10)
        )
    assert said == []
    (tmp_path / "job.yaml").write_text(JOB.format(workspace=tmp_path / "none"))
    empty = sources.place_of(tmp_path / "job.yaml")
    assert sources.from_ledger(empty, "status", said).empty
    assert said == [f"There is no ledger yet at {empty.ledger}: it begins with the first evening."]
    assert not (tmp_path / "none").exists()
    (tmp_path / "none").mkdir()
    Path(empty.ledger).write_text("no database, but a text that is long enough to be looked at " * 40)
    said.clear()
    assert sources.from_ledger(empty, "status", said).empty
    assert "is not a ledger, or is damaged" in said[0]


def test_what_changes_is_read_again(small: Path, tmp_path: Path) -> None:
    place = sources.place_of(copy_job(small, tmp_path))
    first = sources.newest(place)
    assert sources.newest(place) is first
    assert sources.results_of(place) is sources.results_of(place)
    evening = first.table["origin"].max().date() + datetime.timedelta(days=3)
    with Ledger.open(place.ledger) as ledger:
        run = ledger.start_run("quickstart", job_hash="abc", yaml="name: quickstart\n", as_of=evening)
        table = first.table.assign(origin=pd.Timestamp(evening))
        ledger.issue(run, table, data_version="d9", known_at=None, code_version="c9")
    again = sources.newest(place)
    assert set(again.table["data_version"]) == {"d9"}
    assert set(sources.overview(place)["code_version"]) == {"c9"}
    assert tuple(sources.overview(place).columns) == EXPORT_COLUMNS
    before = sources.results_of(place)
    summary = json.loads((place.results / "summary.json").read_text())
    (place.results / "summary.json").write_text(json.dumps(summary | {"champion": "mlp", "seed": 12345678}))
    after = sources.results_of(place)
    assert before is not None
    assert after is not None
    assert (before.champion, after.champion) == (CHAMPION, "mlp")


def test_returns_are_those_of_the_closes(config: Path) -> None:
    place = sources.place_of(config)
    found = sources.returns_of(place, "WTI")
    assert found.index.is_monotonic_increasing
    assert found.index.is_unique
    results = sources.results_of(place)
    assert results is not None
    closes = results.recent_prices[results.recent_prices["symbol"] == "WTI"].set_index("session")["close"]
    expected = np.log(closes / closes.shift(1)).dropna()
    np.testing.assert_allclose(found.loc[expected.index], expected, rtol=1e-9)
    # Before the first of those closes the outcomes of the backtest go on, over the same sessions.
    outcomes = pd.read_parquet(place.results / "forecasts.parquet")
    mine = outcomes[
        (outcomes["model"] == "zero") & (outcomes["symbol"] == "WTI") & (outcomes["horizon"] == 1)
    ]
    known = pd.Series(mine["y"].to_numpy()[:-1], index=mine["origin"].to_numpy()[1:])
    np.testing.assert_allclose(known.loc[expected.index], expected, rtol=1e-9)
    np.testing.assert_array_equal(found.index, known.index)
    np.testing.assert_allclose(found, known, rtol=1e-9)
    assert sources.returns_of(place, "no such symbol").empty
    assert sources.series_of(found, "size of the log return").min() >= 0


def test_closes_are_those_of_the_newest_evening(small: Path, tmp_path: Path) -> None:
    place = sources.place_of(copy_job(small, tmp_path))
    old = sources.closes_of(place)
    before = sources.returns_of(place, "SPX")
    evening = place.folder / "evenings" / "2030-01-01"
    evening.mkdir(parents=True)
    (evening / "summary.json").write_text("{}", encoding="utf-8")

    def moved(days: int) -> pd.DataFrame:
        # Adjusted as of another day: all closes are on another level.
        day = pd.Timedelta(days=days)
        new = old.assign(session=old["session"] + day, close=old["close"] / 2)
        new.to_parquet(evening / "recent_prices.parquet")
        return new

    new = moved(3)
    assert place.results == place.folder
    pd.testing.assert_frame_equal(sources.closes_of(place), new)
    returns = sources.returns_of(place, "SPX")
    # No return spans the two levels, and the backtest's outcomes still come before.
    assert returns.abs().max() == pytest.approx(before.abs().max())
    assert returns.index[0] == before.index[0]
    # Sessions lie between the backtest and the closes: only these are neighbours.
    new = moved(5000)
    returns = sources.returns_of(place, "SPX")
    assert returns.index.tolist() == new["session"].tolist()[1:]


def test_a_scaled_return_sees_no_later_price(config: Path) -> None:
    found = sources.returns_of(sources.place_of(config), "WTI")
    scaled = sources.series_of(found, "scaled return")
    changed = found.copy()
    changed.iloc[200:] *= -3
    again = sources.series_of(changed, "scaled return")
    day = found.index[199]
    np.testing.assert_array_equal(scaled.loc[:day], again.loc[:day])
    # The session's own volatility is that of the sessions before it.
    np.testing.assert_allclose(again.iloc[199], -3 * scaled.iloc[199], rtol=1e-12)


def test_a_store_of_runs_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(workspace=tmp_path))
    place = sources.place_of(tmp_path / "job.yaml")
    said: list[str] = []
    assert sources.tracked_runs(place, said).empty
    assert "There is no tracking store yet" in said[0]
    with sqlite3.connect(place.tracking) as connection:
        connection.execute("CREATE TABLE other (id INTEGER)")
    connection.close()
    assert sources.tracked_runs(place, said).empty
    assert "cannot be read here (no such table: runs)" in said[1]
    assert (
        runs_view.run_address("http://h:5000/", "1", "a/b c")
        == "http://h:5000/#/experiments/1/runs/a%2Fb%20c"
    )


# ---------------------------------------------------------------------------- the lifting explorer

LINEAR = sorted(set(lifting.STRATEGIES) - {"spectrogram"})


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_folded_kernel_gives_the_2d_result(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(LINEAR))
    shape = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    kernel = rng.normal(size=shape)
    setting = Setting(
        strategy=name,
        rows=data.draw(st.integers(1, 5)),
        lags=tuple(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True))),
        period=data.draw(st.integers(2, 7)),
        aggregate=data.draw(st.sampled_from(["concatenate", "sum", "mean"])),
        mode=data.draw(st.sampled_from(["same", "full", "valid"])),
        boundary=data.draw(st.sampled_from(["fill", "wrap", "symm"])),
        convention=data.draw(st.sampled_from(["convolution", "correlation"])),
    )
    values = rng.normal(size=60)
    strategy = lifting.STRATEGIES[name](setting)
    parallel = isinstance(strategy, Parallel)
    high, wide = (1, 20) if parallel else strategy.shape(20)
    across = shape[::-1] if name == "parallel filters, columns" else shape
    if setting.mode == "valid" and (across[1] > wide or (not parallel and across[0] > high)):
        with pytest.raises(ParameterError, match="no larger than the lifted array"):
            explore(values, setting, kernel, 20)
        return
    seen = explore(values, setting, kernel, 20)
    assert seen.difference < 1e-12
    assert len(seen.row_names) == len(seen.lifted)
    if isinstance(strategy, Parallel):
        assert seen.output.shape[0] == (len(seen.lifted) if setting.aggregate == "concatenate" else 1)
        return
    window = values[-20 - strategy.history :]
    np.testing.assert_array_equal(seen.window, window)
    np.testing.assert_array_equal(seen.lifted, strategy(window[None, :, None])[0, :, :, 0])
    operator = convolve2d if setting.convention == "convolution" else correlate2d
    expected = operator(seen.lifted, kernel, mode=setting.mode, boundary=setting.boundary)
    np.testing.assert_allclose(seen.output, expected, atol=1e-12)


@pytest.mark.parametrize("name", sorted(lifting.STRATEGIES))
def test_nothing_after_the_origin_is_seen(name: str) -> None:
    values = np.random.default_rng(0).normal(size=80)
    later = values.copy()
    later[60:] = 1e6
    kernel = parse_kernel("1 2 3\n4 5 6")
    one, other = (explore(each[:60], Setting(strategy=name), kernel, 20) for each in (values, later))
    np.testing.assert_array_equal(one.output, other.output)
    np.testing.assert_array_equal(one.lifted, other.lifted)


def test_what_does_not_fold_says_why() -> None:
    values = np.arange(80.0)
    seen = explore(values, Setting(strategy="spectrogram"), parse_kernel("1 1"), 20)
    assert seen.folding is None
    assert "Only a lifting that places sessions folds" in seen.why_not
    assert seen.row_names[0] == "mean level"
    seen = explore(
        values, Setting(strategy="parallel filters, rows", aggregate="max"), parse_kernel("1 1"), 20
    )
    assert "maximum of parallel filters is not linear" in seen.why_not
    with pytest.raises(
        ParameterError, match=r"needs 41 sessions up to the origin: 20 .* 21 of history\. Received: 30"
    ):
        explore(values[:30], Setting(), parse_kernel("1 1"), 20)


def test_strategies_that_are_the_same_map() -> None:
    """The cases of the documentation of kernels: see the table of special cases in docs/kernels.md."""
    kernel = parse_kernel("1 2 3\n-1 0 4\n2 2 2")
    table = same_maps(Setting(), kernel, 32).set_index(["strategy", "mode"])
    group = table["group"].to_dict()
    replicated = group["identical rows", "valid"]
    assert replicated
    assert (
        group["parallel filters, rows, sum", "same"]
        == group["parallel filters, rows, sum", "valid"]
        == replicated
    )
    assert group["row", "same"] == group["column", "same"]
    assert group["row", "same"] not in ("", replicated)
    assert (
        group["parallel filters, rows, concatenate", "same"]
        != group["parallel filters, columns, concatenate", "same"]
    )
    for name in ("spectrogram", "parallel filters, rows, max"):
        assert group[name, "same"] == ""
        assert table.loc[(name, "same"), "note"] == "not a linear map"
    assert table.loc[("row", "valid"), "note"] == "the kernel is larger than the image"
    # A symmetric kernel has the same filters in its rows and in its columns.
    square = same_maps(Setting(), parse_kernel("1 0 1\n0 1 0\n1 0 1"), 32).set_index(["strategy", "mode"])[
        "group"
    ]
    assert (
        square["parallel filters, rows, concatenate", "same"]
        == square["parallel filters, columns, concatenate", "same"]
    )


@pytest.mark.parametrize(
    "strategy", [Row(), Replicate(rows=3), Lagged(lags=(0, 1, 5)), CalendarFold(5), Column()]
)
def test_taps_are_the_weights_of_lags(strategy: object) -> None:
    names = {
        Row: "row",
        Replicate: "identical rows",
        Lagged: "lagged rows",
        CalendarFold: "calendar fold",
        Column: "column",
    }
    setting = Setting(strategy=names[type(strategy)], lags=(0, 1, 5), mode="valid")
    kernel = (
        np.arange(1.0, 4.0).reshape(3, 1)
        if isinstance(strategy, Column)
        else np.arange(1.0, 4.0).reshape(1, 3)
    )
    seen = explore(np.arange(100.0), setting, kernel, 30)
    assert seen.folding is not None
    weights = lag_weights(seen.folding, 0, -1)[:, 0, 0]
    first = tap_table(seen.folding)
    first = first[first["name"] == first["name"].iloc[0]]
    used = np.flatnonzero(weights)
    np.testing.assert_allclose(first["weight"], weights[used[0] : used[-1] + 1])


def test_kernels_and_lags_are_read_or_refused() -> None:
    np.testing.assert_allclose(parse_kernel("1, 1/3\n\n-2 .5 "), [[1, 1 / 3], [-2, 0.5]])
    assert parse_lags("0, 1 5,21") == (0, 1, 5, 21)
    for text, said in (
        ("", "rows of no row"), ("1 2\n3", "rows of 2, 1"), ("a", "Received: 'a'"),
        ("1/0", "Received: '1/0'"),
        ("nan", "Received: 'nan'"), ("1 " * 33, "Received: 1 x 33"),
    ):  # fmt: skip
        with pytest.raises(ParameterError, match=said):
            parse_kernel(text)
    for text in ("", "-1", "1.5", "99999"):
        with pytest.raises(ParameterError, match="lags are whole numbers"):
            parse_lags(text)


# ---------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("name", PAGES)
def test_every_page_opens(config: Path, name: str) -> None:
    page = open_page(config, name)
    html = html_of(page)
    assert "<h1>" in html
    tables = html.count("<table>")
    assert html.count("<caption>") == html.count('role="region"') == tables
    assert html.count('scope="col"') >= tables
    # A chart says in words what it shows.
    drawn = page.get("plotly_chart")
    assert html.count("Does not show") == len(drawn)
    assert all(chart.proto.alt for chart in drawn), "a chart without words for those who do not see it"


def test_today_says_what_failed_and_what_is_old(config: Path) -> None:
    text = text_of(open_page(config, "today"))
    assert "The last evening is not whole: score failed." in text
    assert "OSError: <b>the disk is full</b>" in text
    assert "&lt;b&gt;the disk is full" in html_of(open_page(config, "today"))
    assert "These forecasts are old: the last origin is " in text
    assert "▲ warn" in text
    assert "sent by email" not in text
    assert "promotion" in text


def test_age_counts_sessions_where_the_exchange_is_known(config: Path) -> None:
    job = sources.place_of(config).job
    friday = pd.DataFrame({"symbol": ["WTI", "SPX"], "origin": pd.Timestamp("2024-06-28")})

    def age(job: Job, day: int, hour: int = 23) -> str:
        return sources.age_of(job, friday, datetime.datetime(2024, 7, day, hour, tzinfo=datetime.UTC)).words

    # 4 July is a Thursday without a session; a day counts when its session is over.
    assert age(job, 5) == "5 weekdays"
    known = job.model_copy(update={"calendars": {"SPX": "XNYS"}})
    assert age(known, 1, 12) == "0 sessions"
    assert age(known, 1) == "1 session"
    assert age(known, 5) == "4 sessions"
    # The exchange that has gone on longest counts: one that never closes ends its session at midnight.
    both = job.model_copy(update={"calendars": {"SPX": "XNYS", "WTI": "24/7"}})
    assert age(both, 5) == "6 sessions"
    nobody = job.model_copy(update={"calendars": {"OTHER": "XNYS"}})
    assert age(nobody, 5) == "5 weekdays"
    past = sources.age_of(job, friday, datetime.datetime(2024, 6, 1, tzinfo=datetime.UTC))
    assert (past.sessions, past.known) == (0, False)


def test_forecasts_show_what_was_issued(config: Path) -> None:
    page = open_page(config, "forecasts")
    page = page.selectbox(key="forecasts-symbol").select("WTI").run()
    page = page.selectbox(key="forecasts-model").select(BASELINE).run()
    text = text_of(page)
    assert f"WTI: {BASELINE}, after " in text
    overview = sources.overview(sources.place_of(config))
    row = overview[(overview["symbol"] == "WTI") & (overview["model"] == BASELINE)].iloc[0]
    assert f"{100 * row['value_at_risk_5']:.2f}%" in text
    assert f"{100 * row['probability_of_rise']:.1f}%" in text
    assert f"{row['median_price']:,.2f}" in text
    page = page.radio(key="forecasts-compare").set_value(5).run()
    assert not page.exception
    shown = page.dataframe[0].value
    assert shown["symbol"].tolist() == ["SPX", "WTI"]
    assert [button.label for button in page.get("download_button")] == ["Download CSV", "Download XLSX"]


def test_the_track_record_is_that_of_the_ledger(config: Path) -> None:
    place = sources.place_of(config)
    text = text_of(open_page(config, "track-record"))
    with Ledger.open(place.ledger) as ledger:
        record = ledger.track_record("quickstart")
    assert len(record) == 6 - 2 * (EVENINGS <= 21)
    for row in record.to_dict("records"):
        assert f"{100 * row['crps']:.3f}%" in text
        assert f"{100 * row['coverage_80']:.1f}%" in text


def test_the_leaderboard_is_the_verdict(config: Path) -> None:
    page = open_page(config, "leaderboard").radio(key="leaderboard-horizon").set_value(5).run()
    text = text_of(page)
    verdict = pd.read_csv(sources.place_of(config).results / "verdict.csv")
    for row in verdict[verdict["horizon"] == 5].to_dict("records"):
        assert f"{row['crps_ratio']:.4f}" in text
    assert f"{CHAMPION} ★" in text


def test_calibration_of_any_model(config: Path) -> None:
    page = open_page(config, "calibration").selectbox(key="calibration-model").select("mlp").run()
    text = text_of(page)
    scores = pd.read_csv(sources.place_of(config).results / "scores.csv", keep_default_na=False)
    wanted = (scores["model"] == "mlp") & (scores["symbol"] == "*") & (scores["metric"] == "coverage_80")
    assert len(scores[wanted]) == 3
    for value in scores.loc[wanted, "value"].astype(float):
        assert f"{100 * value:.1f}%" in text
    assert f"CRPS against {BASELINE}, by year" in text


def test_data_quality_is_that_of_what_was_made_last(small: Path, tmp_path: Path) -> None:
    config = copy_job(small, tmp_path)
    folder = sources.place_of(config).folder
    summary = json.loads((folder / "summary.json").read_text())
    store = {"known_at": "2020-01-02T22:00:00+00:00", "version": 3}
    summary |= {"created_at": "2020-01-03T09:30:00+00:00", "command": "forecaster run job.yaml"}
    (folder / "summary.json").write_text(json.dumps(summary | {"data": {"store": store}}))
    text = text_of(open_page(config, "data-quality"))
    made = "made on 2020-01-03 09:30 UTC by <code>forecaster run job.yaml</code>."
    assert f"From the results in {folder}, {made}" in text
    assert "known at 2020-01-02T22:00:00+00:00" in text
    assert made in text_of(open_page(config, "leaderboard"))
    assert made in text_of(open_page(config, "calibration"))

    evening = folder / "evenings" / "2020-01-06"
    evening.mkdir(parents=True)
    for name, columns in (("failures.csv", "symbol,reason"), ("findings.csv", "something,else")):
        (evening / name).write_text(f"{columns}\nX,the file is gone\n")
    (evening / "quarantine.csv").write_text("symbol,session,close,codes\nSPX,2020-01-06,-1.5,rejected\n")
    later = {"backtest_folder": "", "created_at": "2020-01-06T22:00:00+00:00", "symbols": ["SPX"]}
    (evening / "summary.json").write_text(json.dumps(later))
    text = text_of(open_page(config, "data-quality"))
    assert f"From the results in {evening}, made on 2020-01-06 22:00 UTC." in text
    assert "<caption>1 symbol</caption>" in text
    for words in ("the file is gone", "2020-01-06", "-1.50", "findings.csv lacks the columns"):
        assert words in text
    # What cannot be read is not said to be clean.
    assert "The checks found nothing." not in text
    assert made in text_of(open_page(config, "leaderboard"))
    # A run that came after the evening is the newest.
    (evening / "summary.json").write_text(json.dumps(later | {"created_at": "2020-01-02T22:00:00+00:00"}))
    assert made in text_of(open_page(config, "data-quality"))


def test_one_run_is_one(small: Path, tmp_path: Path) -> None:
    config = copy_job(small, tmp_path)
    with closing(sqlite3.connect(sources.place_of(config).tracking)) as connection:
        connection.execute("DELETE FROM runs WHERE run_uuid = 'b2'")
        connection.commit()
    assert "1 run, times in UTC" in text_of(open_page(config, "runs"))


def test_runs_are_listed_without_what_lies_below_them(config: Path) -> None:
    html = html_of(open_page(config, "runs"))
    text = unescape(html)
    assert "0.9877" in text
    assert "2 runs, times in UTC" in text
    assert "<b>*bold*</b>" not in html
    assert "<b>*bold*</b> of 2023-11-14 22:15" in text
    assert "a model" not in text
    assert "gone" not in text
    assert 'href="http://127.0.0.1:5000/#/experiments/1/runs/a1"' in html


def test_the_explorer_follows_its_settings(config: Path) -> None:
    page = open_page(config, "lifting-explorer")
    assert "4 output rows need 4 distinct 1D kernels" in text_of(page)
    page = page.selectbox(key="explorer-strategy").select("identical rows").run()
    assert "need 2 distinct 1D kernels" in text_of(page)
    page = page.selectbox(key="explorer-strategy").select("spectrogram").run()
    assert "Only a lifting that places sessions folds" in text_of(page)
    page = page.text_area[0].set_value("1 x").run()
    assert "a kernel holds numbers such as 2, -0.5 or 1/3. Received: 'x'" in text_of(page)
    page = page.text_area[0].set_value("1 0 1\n0 1 0\n1 0 1").run()
    page = page.selectbox(key="explorer-symbol").select("1, 2, ..., 64 (no market)").run()
    page = page.selectbox(key="explorer-strategy").select("lagged rows").run()
    page = page.text_input(key="explorer-lags").set_value("0, 0").run()
    assert "no lag may be repeated" in text_of(page)


def test_names_are_text_everywhere(small: Path, tmp_path: Path) -> None:
    config = copy_job(small, tmp_path)
    many_symbols(config, HOSTILE)
    for name in PAGES:
        page = open_page(config, name)
        assert "<script" not in html_of(page).lower()
    page = open_page(config, "forecasts")
    for symbol in HOSTILE:
        page = page.selectbox(key="forecasts-symbol").select(symbol).run()
        assert f"{escape(symbol)}: " in html_of(page)
        assert "<script" not in html_of(page).lower()
    # Finished text for Plotly, which reads a little HTML.
    figures = "".join(chart.proto.spec for chart in open_page(config, "leaderboard").get("plotly_chart"))
    assert "<script" not in figures
    day = pd.Timestamp("2024-06-28")
    assert forecasts_view.file_name("../../x", day, "csv") == "x-2024-06-28.csv"
    assert forecasts_view.file_name("=cmd()", day, "csv") == "cmd-2024-06-28.csv"
    assert forecasts_view.file_name("///", day, "csv") == "forecasts-2024-06-28.csv"


@pytest.mark.parametrize("name", PAGES)
def test_before_the_first_run_pages_say_what_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "job.yaml").write_text(JOB.format(workspace=tmp_path / "work"))
    text = text_of(open_page(tmp_path / "job.yaml", name))
    said = {
        "today": "an export needs forecasts: there are none of quickstart",
        "forecasts": "an export needs forecasts: there are none of quickstart",
        "track-record": "There is no ledger yet at ",
        "leaderboard": "There are no results yet in ",
        "calibration": "There are no results yet in ",
        "data-quality": "There are no results yet in ",
        "runs": "There is no tracking store yet at ",
        "lifting-explorer": "a window of 32 sessions needs more of them",
    }
    if name == "lifting-explorer":
        assert "6. Which strategies are the same map" in text
    else:
        assert said[name] in text
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", PAGES)
def test_an_empty_ledger_and_empty_results(tmp_path: Path, name: str) -> None:
    (tmp_path / "quickstart").mkdir()
    Ledger.open(tmp_path / "ledger.db").close()
    (tmp_path / "job.yaml").write_text(JOB.format(workspace=tmp_path))
    text = text_of(open_page(tmp_path / "job.yaml", name))
    if name == "track-record":
        assert "No forecast has been scored yet" in text
    if name in ("leaderboard", "calibration", "data-quality"):
        assert "summary.json is missing." in text


@pytest.mark.parametrize("name", PAGES)
def test_numbers_that_are_none(broken: Path, name: str) -> None:
    text = text_of(open_page(broken, name))
    assert "nan" not in text.lower().replace("finance", "")
    if name == "forecasts":
        assert "Forecasts with a quantile that is no number are left out" in text
        assert "The close is not known" in text
    if name == "leaderboard":
        assert "No model has a CRPS ratio at this horizon." in text


def test_a_job_that_is_wrong_is_said_on_the_page(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("name: x\n")
    text = text_of(open_page(tmp_path / "job.yaml", "today"))
    assert "this setting is required" in text


def test_a_thousand_symbols_open(small: Path, tmp_path: Path) -> None:
    """How fast is for `make bench-dashboard`."""
    config = copy_job(small, tmp_path)
    names = [f"S{index:04d}" for index in range(1_000)]
    many_symbols(config, names)
    for name in PAGES:
        assert not open_page(config, name).exception, name
    page = open_page(config, "forecasts")
    assert page.selectbox(key="forecasts-symbol").options == names
    assert len(page.dataframe[0].value) == 1_000


def test_pages_load_no_tensorflow_and_no_mlflow(small: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from test_dashboard import PAGES, open_page
for name in PAGES:
    assert not open_page(Path({str(small)!r}), name).exception, name
print(sorted({{"tensorflow", "keras", "mlflow", "exchange_calendars", "yfinance"}} & set(sys.modules)))
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.splitlines()[-1] == "[]"


# ---------------------------------------------------------------------------- the command


def test_the_command_serves_on_loopback_alone_and_ends(config: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "pipelines.cli", "dashboard", str(config), "--port", str(port)]
    log = tmp_path / "server.log"
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream) as server:
        deadline = time.monotonic() + 60
        while "URL: " not in log.read_text() and server.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=60)
    said = log.read_text()
    assert f"URL: http://127.0.0.1:{port}" in said
    assert "External" not in said
    assert "Network" not in said
    listening = [fields[1] for fields in sockets if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")]
    assert listening == [f"0100007F:{port:04X}"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.yaml"], "none.yaml: no such job file; name one, such as configs/quickstart.yaml"),
        (
            ["{config}", "--address", "everywhere"],
            "--address is an IP address, such as 127.0.0.1. Received: 'everywhere'",
        ),
    ],
)
def test_a_bad_start_is_one_line(config: Path, arguments: list[str], said: str) -> None:
    given = [argument.format(config=config) for argument in arguments]
    command = [sys.executable, "-m", "pipelines.cli", "dashboard", *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, f"forecaster: {said}\n")


def test_without_streamlit_one_line_says_what_to_install(config: Path) -> None:
    # How Python itself says that a package is not there.
    code = f"""
import sys
sys.modules["streamlit"] = None
from pipelines.cli import app
app(["dashboard", {str(config)!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert done.stderr == (
        "forecaster: the dashboard needs Streamlit, which is not installed; install forecaster[dashboard]\n"
    )
