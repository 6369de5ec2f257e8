"""The job file: what it means, each error in one line, and nothing but a `JobError` out of any text."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from forecaster.errors import JobError
from forecaster.job import Job, json_schema, load_job, parse_job
from forecaster.job.settings import OPERATION

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.yaml"))

MINIMAL = """
name: test
prices: {kind: sample}
backtest: {start: 2008-01-01}
models: [{kind: zero}]
"""
QUICKSTART = (Path(__file__).parent.parent / "configs" / "quickstart.yaml").read_text(encoding="utf-8")
FULL = parse_job(QUICKSTART, "job.yaml").model_dump(mode="json", exclude=set(OPERATION))
"""The quickstart with every setting written out, but those of the operation."""
CONVOLUTION = "{kind: convolution, strategy: {kind: row}}"


def with_setting(data: dict[str, Any], path: tuple[str | int, ...], value: Any) -> str:
    """A job whose setting at a path is another, as JSON, which is YAML."""
    changed: Any = copy.deepcopy(data)
    at = changed
    for step in path[:-1]:
        at = at[step]
    assert path[-1] not in at or at[path[-1]] != value
    at[path[-1]] = value
    # YAML reads null as text here, as it may be a ticker.
    return json.dumps({key: setting for key, setting in changed.items() if setting is not None})


def message_of(text: str) -> str:
    with pytest.raises(JobError) as caught:
        parse_job(text, "job.yaml")
    message = str(caught.value)
    assert message.startswith("job.yaml")
    assert "\n" not in message
    assert len(message) < 500
    return message.removeprefix("job.yaml").removeprefix(": ")


# What a job means


def test_the_smallest_job_has_the_documented_defaults() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    assert job.horizons == (1, 5, 21)
    assert (job.lookback, job.seed, job.returns, job.minimum_coverage) == (32, 7, "total", 0.5)
    assert job.backtest.start == date(2008, 1, 1)
    assert job.backtest.end is None
    assert [model.name for model in job.models] == ["zero"]
    assert (job.warm_up, job.minimum_sessions) == (32, 54)


YAHOO = MINIMAL.replace("kind: sample", "kind: yahoo, symbols: [AAPL, 0700.HK]")


def test_prices_from_yahoo_lie_in_a_store_and_others_where_one_is_named() -> None:
    assert parse_job(MINIMAL, "job.yaml").store_url is None
    assert parse_job(MINIMAL + "store: here\n", "job.yaml").store_url == "here"
    assert parse_job(YAHOO, "job.yaml").store_url == str(Path("workspace", "prices"))
    assert parse_job(YAHOO + "workspace: w\nstore: s3://bucket/x\n", "job.yaml").store_url == "s3://bucket/x"
    source = parse_job(YAHOO, "job.yaml").source(Path())
    assert source.symbols() == ("AAPL", "0700.HK")


def test_calendars_are_of_symbols_of_the_job() -> None:
    job = parse_job(YAHOO + "calendars: {0700.HK: 24/5}\n", "job.yaml")
    assert job.calendars == {"0700.HK": "24/5"}
    files = MINIMAL.replace("kind: sample", "kind: files, path: x.csv") + "calendars: {ANY: XNYS}\n"
    assert parse_job(files, "job.yaml").calendars == {"ANY": "XNYS"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            YAHOO + "calendars: {APPL: XNYS}\n",
            "calendars: 'APPL' is none of the symbols; did you mean 'AAPL'?",
        ),
        (MINIMAL + "store: ''\n", "store: String should have at least 1 character"),
        (
            YAHOO + "store: s3://key:secret@bucket/prices\n",
            "holds no credentials or options; set them in the",
        ),
        (YAHOO + "store: s3://bucket/prices?secret=1\n", "holds no credentials or options"),
        (MINIMAL.replace("kind: sample", "kind: yahoo"), "prices.symbols: this setting is required"),
        (
            MINIMAL.replace("kind: sample", "kind: yahoo, symbols: [AAPL, NO, AAPL]"),
            "prices.symbols: each symbol is named once; 'AAPL' stands more than once",
        ),
        (YAHOO.replace("kind: yahoo", "kind: yahoo, interval: -1"), "interval: Input should be greater than"),
    ],
)
def test_wrong_settings_of_stores_and_calendars(text: str, message: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_job(text, "job.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


COMBINATION = "[{kind: zero}, {kind: historical}, {kind: combination, members: %s}]"


def test_a_combination_and_a_market_name_what_is_there() -> None:
    text = MINIMAL.replace("[{kind: zero}]", COMBINATION % "[zero, historical]")
    job = parse_job(text + "market: WTI\nvariance: range\n", "job.yaml")
    assert job.models[2].description == "average of zero and historical"
    assert (job.market, job.variance) == ("WTI", "range")
    members = job.build("combination").members  # type: ignore[attr-defined]
    assert {name: member.centred for name, member in members.items()} == {"zero": True, "historical": False}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("market: WTU\n", "market: 'WTU' is none of the symbols; did you mean 'WTI'? (allowed: SP500"),
        (
            "models: " + COMBINATION % "[zero, historic]",
            "models[2]: members of a combination are models that stand before it; received 'historic'; did "
            "you mean 'historical'? (allowed: zero, historical)",
        ),
        ("models: " + COMBINATION % "[zero, combination]", "stand before it; received 'combination'"),
        ("models: " + COMBINATION % "[zero, zero]", "members are distinct"),
        ("models: " + COMBINATION % "[zero]", "at least 2 items"),
    ],
)
def test_what_a_combination_or_a_market_may_not_be(more: str, message: str) -> None:
    text = MINIMAL.replace("models: [{kind: zero}]\n", "") if more.startswith("models") else MINIMAL
    assert message in message_of(text + more)


def test_warm_up_is_the_lookback_or_the_most_that_any_model_asks_for() -> None:
    def warm_up(models: str, lookback: int = 32) -> int:
        text = MINIMAL.replace("[{kind: zero}]", models) + f"lookback: {lookback}\n"
        return parse_job(text, "job.yaml").warm_up

    assert warm_up("[{kind: ridge, lags: 9}, {kind: zero}]") == 32
    assert warm_up("[{kind: ridge, lags: 39}, {kind: zero}]") == 39
    # The linear model beside a convolution looks back 250 sessions.
    assert warm_up(f"[{{kind: ridge, lags: 9}}, {CONVOLUTION}]", 16) == 250
    assert warm_up(f"[{CONVOLUTION}]", 300) == 300
    lagged = "{kind: convolution, strategy: {kind: lagged, lags: [0, 21, 3]}}"
    assert warm_up(f"[{lagged}, {{kind: zero}}]", 240) == 261
    assert warm_up("[{kind: mlp}, {kind: ridge, lags: 260}]") == 260
    text = MINIMAL.replace("[{kind: zero}]", f"[{lagged}]") + "horizons: [1, 10]\nlookback: 240\n"
    assert parse_job(text, "job.yaml").minimum_sessions == 240 + 21 + 10 + 1


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_that_ships_is_valid(path: Path) -> None:
    job = load_job(path)
    assert job.name == path.stem
    assert job.models


def test_there_are_configurations() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


TICKERS = [
    "ON",
    "NO",
    "NA",
    "TRUE",
    "0700",
    "null",
    "1e5",
    "~",
    "Y",
    "nan",
    "0x1F",
    "1_000",
    "2020-01-01",
    ".inf",
]


def test_tickers_stay_text() -> None:
    text = MINIMAL.replace("kind: sample", f"kind: sample, symbols: [{', '.join(TICKERS)}]")
    prices = parse_job(text, "job.yaml").prices
    assert list(prices.symbols) == TICKERS


def test_numbers_and_dates_are_read_where_the_settings_say_so() -> None:
    text = MINIMAL + "lookback: 0040\nminimum_coverage: 1e-1\n"
    job = parse_job(text.replace("kind: zero", "kind: ewma_fhs, decay: .97"), "job.yaml")
    assert (job.lookback, job.minimum_coverage) == (40, 0.1)
    assert job.models[0].model_dump()["decay"] == 0.97


def test_merges_and_aliases_are_yaml_as_usual() -> None:
    job = parse_job(
        MINIMAL.replace(
            "[{kind: zero}]",
            """
            - &a {kind: convolution, filters: 3, strategy: &s {kind: lagged, lags: [0, 2]}}
            - &b {<<: *a, name: b, filters: 4}
            - {<<: *b, name: c, filters: 5, strategy: {<<: *s, lags: [0, 3]}}
            - {<<: [*b, *a], name: d}
            """,
        ),
        "job.yaml",
    )
    dumped = [model.model_dump() for model in job.models]
    assert [(model["name"], model["filters"]) for model in dumped] == [
        ("convolution", 3), ("b", 4), ("c", 5), ("d", 4),
    ]  # fmt: skip
    assert [model["strategy"]["lags"] for model in dumped] == [(0, 2), (0, 2), (0, 3), (0, 2)]


def test_an_override_of_a_merge_that_is_merged_again_is_no_repetition() -> None:
    # The last model stands less deep than the anchor that it merges, so it is constructed before it.
    text = """
        name: test
        prices: {kind: sample}
        backtest: {start: 2008-01-01}
        models:
        - kind: convolution
          strategy: {kind: row}
          training: &deep {<<: {learning_rate: 0.001}, learning_rate: 0.002}
        - {<<: *deep, kind: boosting}
    """
    network, boosting = (model.model_dump() for model in parse_job(text, "job.yaml").models)
    assert (network["training"]["learning_rate"], boosting["learning_rate"]) == (0.002, 0.002)


@pytest.mark.parametrize(
    "name",
    [
        "control",
        "row",
        "column",
        "replicate",
        "calendar fold",
        "spectrogram",
        "lagged",
        "parallel",
        "parallel of columns",
    ],
)
def test_a_lookback_as_long_as_the_kernels_is_enough_and_one_less_is_not(name: str) -> None:
    # The kernel spans 5 sessions, the second one, dilated by two, 8 more; 40 rows are no sessions.
    settings_of_it, span = {
        "control": ({"kind": "control", "rows": "4"}, 20 + 8),
        "row": ({"kind": "row"}, 13),
        "column": ({"kind": "column"}, 13),
        "replicate": ({"kind": "replicate", "rows": "40"}, 13),
        # Two neighbouring rows, then two of those: three periods.
        "calendar fold": ({"kind": "calendar_fold", "period": "7"}, 3 * 7),
        "spectrogram": ({"kind": "spectrogram", "segment": "16"}, 13),
        "lagged": ({"kind": "lagged", "lags": [str(lag) for lag in range(40)]}, 13),
        "parallel": ({"kind": "parallel", "filters": "40"}, 13),
        "parallel of columns": ({"kind": "parallel", "filters": "40", "axis": "columns"}, 13),
    }[name]
    convolution = {"kind": "convolution", "name": "conv", "kernel": 5, "strategy": settings_of_it}
    data = FULL | {"models": [convolution]}
    assert parse_job(with_setting(data, ("lookback",), span), "job.yaml").lookback == span
    assert message_of(with_setting(data, ("lookback",), span - 1)) == (
        f"models[0]: the convolutions of 'conv' span {span} sessions, more than the lookback of {span - 1}; "
        "look back further or take a smaller kernel"
    )


# The hash, and the way through JSON


def changed_settings() -> list[tuple[tuple[str | int, ...], Any]]:
    """Every setting of the quickstart's full description, with another valid value."""
    others = {
        "kind": None,  # another kind is another model; changed as a whole below
        "symbols": ["SP500"],
        "store": "elsewhere",
        "returns": "price",
        "market": "WTI",
        "variance": "range",
        "target": "variance",
        "anchor": "ewma",
        "residuals": "pooled",
        "axis": "columns",
        "aggregate": "sum",
        "horizons": [1, 2],
        "start": "2009-01-01",
        "end": "2017-01-01",
        "minimum_coverage": 0.75,
        "decay": 0.9,
        "dropout": 0.1,
        "calibration": {"kind": "control"},
    }
    found: list[tuple[tuple[str | int, ...], Any]] = []

    def walk(node: Any, path: tuple[str | int, ...]) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            here = (*path, key)
            if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
                walk(value, here)
            elif isinstance(node, dict) and node.get("kind") == "lagged" and key != "kind":
                # Lags, rows and stride hang together; they have a test of their own.
                continue
            elif key not in others:
                found.append((here, f"{value}x" if isinstance(value, str) else value + 1))
            elif others[key] is not None:
                found.append((here, others[key]))

    walk(FULL, ())
    return found


def test_the_hash_changes_with_any_setting() -> None:
    longer = FULL | {"lookback": 64}  # so that no change makes a kernel too long
    hashes = {Job.model_validate(FULL).hash}
    changes = changed_settings()
    assert len(changes) > 60
    for path, value in changes:
        hashes.add(Job.model_validate_json(with_setting(longer, path, value)).hash)
    assert len(hashes) == 1 + len(changes)
    others = [
        "models: [{kind: zero}, {kind: historical}]",
        "models: [{kind: historical}, {kind: zero}]",
        *(
            f"models: [{{kind: convolution, strategy: {{kind: lagged, {lags}}}}}]"
            for lags in ("lags: [0, 1]", "lags: [1, 0]", "rows: 2", "rows: 3", "rows: 2, stride: 2")
        ),
        "models: [{kind: zero}]\nbacktest: {start: 2008-01-01, end: 2009-01-01}",
    ]
    base = "name: test\nprices: {kind: sample}\n"
    begun = [text if "backtest" in text else f"{text}\nbacktest: {{start: 2008-01-01}}" for text in others]
    assert len({parse_job(base + text, "job.yaml").hash for text in begun}) == len(others)


def test_the_hash_does_not_change_with_where_the_work_runs() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    elsewhere = parse_job(MINIMAL + "engine: {kind: dask, workers: 2, address: tcp://host:8786}", "job.yaml")
    assert elsewhere.engine.kind == "dask"
    assert elsewhere.hash == job.hash


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ("{kind: dask}", "engine: the engine dask needs the address of its cluster"),
        ("{address: tcp://host:8786}", "engine: an address belongs to a cluster (dask, ray); loky runs here"),
        ("{workers: 0}", "engine.workers: "),
        ("{kind: spark}", "engine.kind: "),
        ("{worker: 2}", "engine: unknown key 'worker'; did you mean 'workers'?"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(engine: str, text: str) -> None:
    with pytest.raises(JobError) as caught:
        parse_job(MINIMAL + f"engine: {engine}", "job.yaml")
    assert text in str(caught.value)


def test_the_hash_does_not_change_with_key_order_comments_quotes_or_written_defaults() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    lines = MINIMAL.strip().splitlines()
    reordered = "\n".join(f"{line} # said again" for line in reversed(lines))
    quoted = MINIMAL.replace("2008-01-01", "'2008-01-01'").replace("zero", '"zero"')
    written = MINIMAL + "seed: 7\nlookback: 32.0\nhorizons:\n- 1\n- 5\n- 21\n"
    for text in (reordered, quoted, written, "\ufeff" + MINIMAL, MINIMAL.replace("\n", "\r\n")):
        assert parse_job(text, "other.yaml").hash == job.hash
    assert re.fullmatch("[0-9a-f]{64}", job.hash)


@pytest.mark.parametrize("text", [MINIMAL, QUICKSTART], ids=["minimal", "quickstart"])
def test_a_job_survives_the_way_through_json(text: str) -> None:
    job = parse_job(text, "job.yaml")
    dumped = json.loads(json.dumps(job.model_dump(mode="json")))
    again = Job.model_validate(dumped)
    assert again == job
    assert again.hash == job.hash

    # And through YAML, where a setting that is not given is left out.
    def given(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: given(value) for key, value in node.items() if value is not None}
        return [given(value) for value in node] if isinstance(node, list) else node

    assert parse_job(json.dumps(given(dumped)), "job.yaml") == job


def test_a_job_is_frozen() -> None:
    job = parse_job(MINIMAL, "job.yaml")
    with pytest.raises(ValueError, match="frozen"):
        job.seed = 8


# Errors: path, given, allowed, nearest


def also(text: str) -> str:
    return MINIMAL + text


def model(text: str) -> str:
    return MINIMAL.replace("{kind: zero}", text)


def strategy(text: str) -> str:
    return model(f"{{kind: convolution, strategy: {{{text}}}}}")


def prices(text: str) -> str:
    return MINIMAL.replace("{kind: sample}", f"{{{text}}}")


def name(text: str) -> str:
    return MINIMAL.replace("name: test", f"name: {text}")


def start(text: str) -> str:
    return MINIMAL.replace("start: 2008-01-01", f"start: {text}")


UNTAGGED = r"not valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:"

ERRORS = [
    # Unknown keys, at each level
    (also("horizon: 1"), r"^unknown key 'horizon'; did you mean 'horizons'\? \(allowed: name, prices, "),
    (also("qqqq: 1"), r"^unknown key 'qqqq' \(allowed: name, prices, "),
    (
        prices("kind: sample, symbol: A"),
        r"^prices: unknown key 'symbol'; did you mean 'symbols'\? \(allowed: kind, symbols\)$",
    ),
    (start("2008-01-01, refit: 5"), r"^backtest: unknown key 'refit'.* \(allowed: start, end, refit_every, "),
    (model("{kind: ridge, lag: 3}"), r"^models\[0\]: unknown key 'lag'; did you mean 'lags'\? \(allowed: "),
    (strategy("kind: lagged, lag: 3"), r"^models\[0\]\.strategy: unknown key 'lag'; did you mean 'lags'\? "),
    (
        model("{kind: zero}, {kind: convolution, strategy: {kind: row}, training: {epoch: 3}}"),
        r"^models\[1\]\.training: unknown key 'epoch'; did you mean 'epochs'\? \(allowed: epochs, ",
    ),
    (
        model("{kind: zero}, {kind: convolution, strategy: {kind: row}, training: {chunk: 63}}"),
        r"^models\[1\]\.training\.chunk: .*greater than or equal to 64",
    ),
    (
        model("{kind: zero}, {kind: convolution, strategy: {kind: row}, training: {chunk: 257}}"),
        r"^models\[1\]\.training\.chunk: .*less than or equal to 256",
    ),
    (
        model("{kind: zero}, {kind: convolution, strategy: {kind: row}, training: {chunks_per_step: 3}}"),
        r"^models\[1\]\.training\.chunks_per_step: .*greater than or equal to 4",
    ),
    # Unknown and missing kinds
    (model("{kind: zeros}"), r"^models\[0\]\.kind: unknown kind 'zeros'; did you mean 'zero'\? \(allowed: z"),
    (prices("kind: yahu"), r"^prices\.kind: unknown kind 'yahu'.* \(allowed: sample, files"),
    (strategy("kind: lag"), r"^models\[0\]\.strategy\.kind: unknown kind 'lag'; did you mean 'lagged'\? "),
    (model("{name: zero}"), r"^models\[0\]: a `kind` is required\. Received: \{'name': 'zero'\}$"),
    (strategy("rows: 3"), r"^models\[0\]\.strategy: a `kind` is required\. Received: \{'rows': '3'\}$"),
    (model("zero"), r"^models\[0\]: Input should be a valid mapping\. Received: 'zero'$"),
    (model("{kind: [zero]}"), r"^models\[0\]\.kind: unknown kind "),
    # Missing settings
    (MINIMAL.replace("name: test", ""), r"^name: this setting is required$"),
    (MINIMAL.replace("start: 2008-01-01", ""), r"^backtest\.start: this setting is required$"),
    (prices("kind: files"), r"^prices\.path: this setting is required$"),
    (model("{kind: convolution}"), r"^models\[0\]\.strategy: this setting is required$"),
    ("name: test", r"^prices: this setting is required \(and 2 more\)$"),
    # Wrong types and values
    (also("lookback: long"), r"^lookback: Input should be a valid integer, .*\. Received: 'long'$"),
    (also("lookback: {a: 1}"), r"^lookback: Input should be a valid integer\. Received: \{'a': '1'\}$"),
    (also("lookback: 3.5"), r"^lookback: Input should be a valid integer.*Received: '3.5'$"),
    (also("lookback: 0"), r"^lookback: Input should be greater than 0\. Received: '0'$"),
    (also("seed: -1"), r"^seed: Input should be greater than or equal to 0\. Received: '-1'$"),
    (also("seed: 4294967296"), r"^seed: Input should be less than 4294967296\. Received: '4294967296'$"),
    (also("minimum_coverage: 50"), r"^minimum_coverage: .* less than or equal to 1\. Received: '50'$"),
    (also("minimum_coverage: nan"), r"^minimum_coverage: .* finite number\. Received: 'nan'$"),
    (also("returns: log"), r"^returns: Input should be 'total' or 'price'\. Received: 'log'$"),
    (also("horizons: 5"), r"^horizons: Input should be a valid list\. Received: '5'$"),
    (also("horizons: []"), r"^horizons: List should have at least 1 item.*Received: \[\]$"),
    (also("horizons: [5, 1]"), r"^horizons are distinct and increasing; received \[5, 1\]$"),
    (also("horizons: [1, 1]"), r"^horizons are distinct and increasing; received \[1, 1\]$"),
    (also("horizons: [1, 0]"), r"^horizons\[1\]: Input should be greater than 0\. Received: '0'$"),
    (MINIMAL.replace("[{kind: zero}]", "[]"), r"^models: List should have at least 1 item"),
    (
        MINIMAL.replace("[{kind: zero}]", "{kind: zero}"),
        r"^models: Input should be a valid list\. Received: \{'kind': 'zero'\}$",
    ),
    (
        model("{kind: zero}, {kind: zero}"),
        r"^models have distinct names; received 'zero' more than once: give each a name$",
    ),
    (model("{kind: zero}, {kind: ridge, name: zero}"), r"received 'zero' more than once"),
    (model("{kind: ewma_fhs, decay: 1.0}"), r"^models\[0\]\.decay: Input should be less than 1\. .*'1.0'$"),
    (
        model("{kind: zero}, {kind: boosting, leaves: 1}"),
        r"^models\[1\]\.leaves: Input should be greater than or equal to 2\. Received: '1'$",
    ),
    (
        strategy("kind: lagged, lags: [0, -1]"),
        r"^models\[0\]\.strategy\.lags\[1\]: Input should be greater than or equal to 0\. Received: '-1'$",
    ),
    (
        strategy("kind: lagged, lags: [0, 1, 0]"),
        r"^models\[0\]\.strategy\.lags: lags are distinct\. Received: \['0', '1', '0'\]$",
    ),
    (
        strategy("kind: lagged, lags: [0, 1], rows: 2"),
        r"^models\[0\]\.strategy: give lags or rows, not both; received lags \[0, 1\], rows 2$",
    ),
    (
        strategy("kind: lagged, lags: []"),
        r"^models\[0\]\.strategy: give lags or rows, not both; received lags \[\], rows 0$",
    ),
    (
        strategy("kind: lagged, stride: 2"),
        r"^models\[0\]\.strategy: a stride goes with rows; received stride 2 without rows$",
    ),
    (
        strategy("kind: lagged, rows: 1000000000"),
        r"^models\[0\]\.strategy\.rows: Input should be less than or equal to 252\. Received: '1000000000'$",
    ),
    (
        strategy("kind: parallel, aggregate: median"),
        r"\.strategy\.aggregate: Input should be 'concatenate', 'mean', 'sum' or 'max'\. Received: 'median'$",
    ),
    (
        prices("kind: sample, symbols: [A, '']"),
        r"^prices\.symbols\[1\]: .*at least 1 character\. Received: ''$",
    ),
    (prices("kind: sample, symbols: [[A]]"), r"^prices\.symbols\[0\]: .* valid string\. Received: \['A'\]$"),
    (
        prices("kind: sample, symbols: ON"),
        r"^prices\.symbols: Input should be a valid list\. Received: 'ON'$",
    ),
    (prices("kind: files, path: ''"), r"^prices\.path: .*at least 1 .*Received: ''$"),
    # Names that are folders
    (name("../up"), r"^name: a name has letters, digits and _.- only, .*Received: '\.\./up'$"),
    (name('"a\\nb"'), r"^name: a name has letters, digits and _.- only"),
    (name('"a\\n"'), r"^name: a name has letters, digits and _.- only"),
    (model("{kind: zero, name: ''}"), r"^models\[0\]\.name: a name has letters, digits and _.- only"),
    # Dates
    (start("20080101"), r"^backtest\.start: a date is written YYYY-MM-DD\. Received: '20080101'$"),
    (
        start("2008-01-01T00:00:00"),
        r"^backtest\.start: a date is written YYYY-MM-DD\. Received: '2008-01-01T",
    ),
    (start("' 2008-01-01'"), r"^backtest\.start: a date is written YYYY-MM-DD\. Received: ' 2008-01-01'$"),
    (start("2008-02-30"), r"^backtest\.start: Input should be a valid date.*Received: '2008-02-30'$"),
    (start("[2008]"), r"^backtest\.start: Input should be a valid date\. Received: \['2008'\]$"),
    (
        start("2008-01-01, end: 2007-12-31"),
        r"^backtest: the end lies after the start; received start 2008-01-01, end 2007-12-31$",
    ),
    # YAML
    (also("name: again"), r"^, line 6: not valid YAML: the key 'name' stands twice$"),
    (model("{kind: zero, kind: ridge}"), r"^, line 5: not valid YAML: the key 'kind' stands twice$"),
    (also("seed: *missing"), r"^, line 6: not valid YAML: found undefined alias 'missing'$"),
    (also("seed: &a 1\nlookback: &a 2"), r"^, line 7: not valid YAML: found duplicate anchor 'a'"),
    (also("seed: [1"), r"^, line \d+: not valid YAML: while parsing a flow sequence, expected"),
    (also("\t seed: 1"), r"not valid YAML: .*found character '\\t' that cannot start any token$"),
    (also("? [a, b]\n: 1"), r"^, line 6: not valid YAML: a key is text$"),
    (also("? {a: b}\n: 1"), r"^, line 6: not valid YAML: a key is text$"),
    (also("<<: 3"), r"^, line 6: not valid YAML: .*expected a mapping"),
    (also("---\nname: two"), r"not valid YAML: expected a single document in the stream, but found another"),
    (also("seed: !!int 3"), "^, line 6: " + UNTAGGED + "int'$"),
    (also("seed: !!bool perhaps"), UNTAGGED),
    (also("seed: !!timestamp when"), UNTAGGED),
    (also("seed: !!map text"), r"^, line 6: not valid YAML: expected a mapping"),
    (also("seed: \x00"), r"^not valid YAML: unacceptable character #x0000"),
    # Not a job at all
    ("", r"^a job is a mapping of settings\. Received: None$"),
    ("# nothing\n", r"^a job is a mapping of settings\. Received: None$"),
    ("- name: test", r"^a job is a mapping of settings\. Received: \[\{'name': 'test'\}\]$"),
    ("just text", r"^a job is a mapping of settings\. Received: 'just text'$"),
]


@pytest.mark.parametrize(("text", "pattern"), ERRORS)
def test_an_error_says_path_given_and_allowed_in_one_line(text: str, pattern: str) -> None:
    assert re.search(pattern, message_of(text)), message_of(text)


def test_an_error_of_many_says_how_many_more() -> None:
    message = message_of(MINIMAL + "lookback: 0\nseed: -1\nhorizons: [0, 0]\n")
    assert message.endswith("(and 3 more)")


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system [touch PWNED]",
        "!!python/object/apply:subprocess.check_output [[touch, PWNED]]",
        "!!python/object/new:tuple [[1]]",
        "!!python/name:os.system ''",
        "!!python/module:os ''",
        "!!python/tuple [1, 2]",
        "!custom {a: 1}",
    ],
)
def test_tags_of_python_construct_nothing(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in (tag, MINIMAL + f"seed: {tag}", MINIMAL + f"? {tag}\n: 1"):
        assert "not valid YAML" in message_of(text)
    assert not list(tmp_path.iterdir())


def billion_laughs(levels: int, root: str) -> str:
    lines = [f"{root} &l0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [
        f"{root} &l{level} [{', '.join([f'*l{level - 1}'] * 9)}]".replace("a0", f"a{level}")
        for level in range(1, levels)
    ]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        billion_laughs(30, "-"),
        billion_laughs(30, "a0:"),
        MINIMAL + "seed: &a [*a]",
        MINIMAL + "horizons: &a [*a]",
        MINIMAL.replace("[{kind: zero}]", "&a [*a, *a]"),
        MINIMAL.replace("{kind: sample}", "&a {kind: files, path: *a}"),
        MINIMAL.replace("{kind: zero}", "&a {kind: convolution, strategy: *a}"),
        "&a {<<: *a}",
        "&a [*a]",
        "[" * 3000,
        "- " * 3000,
        "{a: " * 3000,
        MINIMAL + "seed: " + "[" * 400 + "]" * 400,
        MINIMAL + f"seed: {'9' * 10_000}",
        MINIMAL + f"{'x' * 900}: 1",
        MINIMAL + f"? {'x' * 100_000}\n: 1",
        MINIMAL.replace("zero", "z" * 100_000),
        MINIMAL + "seed: !" + "t" * 10_000 + " 1",
        MINIMAL.replace("{kind: sample}", "{kind: sample, symbols: [" + "a b, " * 20_000 + "[]]}"),
    ],
    ids=lambda text: text[-20:].strip() or "brackets",
)
def test_huge_and_recursive_documents_are_refused_briefly(text: str) -> None:
    message_of(text)


# Files


def test_a_file_is_named_in_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    assert load_job(path) == parse_job(MINIMAL, "anything")
    path.write_text(MINIMAL + "seeds: 1", encoding="utf-8")
    with pytest.raises(JobError) as caught:
        load_job(path)
    assert str(caught.value).startswith(f"{path}: unknown key 'seeds'; did you mean 'seed'?")


def test_files_that_cannot_be_read_are_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(JobError) as caught:
        load_job(tmp_path / "absent.yaml")
    assert (
        str(caught.value)
        == f"{tmp_path / 'absent.yaml'}: no such job file; name one, such as configs/quickstart.yaml"
    )
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(MINIMAL.encode() + b"# caf\xe9\n")
    for path in (latin, tmp_path):
        with pytest.raises(JobError) as caught:
            load_job(path)
        assert str(caught.value).startswith(f"{path}: the job file cannot be read as UTF-8 text: ")
        assert "\n" not in str(caught.value)
    empty = tmp_path / "empty.yaml"
    empty.touch()
    with pytest.raises(JobError, match=r"empty\.yaml: a job is a mapping of settings\. Received: None"):
        load_job(empty)


# Any text at all

PLAIN = """
    name prices kind sample files zero convolution strategy lagged lags models backtest start 2008-01-01
    horizons << *a &a !!int !!map !!str !x ~ 1 -1 1e999 .nan ON [ ] { } # ' | > ? é \U0001f4c8
"""
SPACED = ["- ", ": ", ", ", "\n", "  ", '"', "---\n", "...\n", "%YAML 1.1\n", "\t", "\x00", "\ufeff"]
WORDS = st.sampled_from([*PLAIN.split(), *SPACED])


def only_job_errors(text: str) -> None:
    try:
        job = parse_job(text, "job.yaml")
    except JobError as error:
        message = str(error)
    else:
        assert Job.model_validate(job.model_dump(mode="json")) == job
        return
    assert "\n" not in message
    assert len(message) < 500


@settings(max_examples=200, deadline=None)
@given(st.lists(WORDS, max_size=40).map("".join))
def test_no_text_of_yaml_lets_anything_but_a_job_error_out(text: str) -> None:
    only_job_errors(text)


@settings(max_examples=100, deadline=None)
@given(st.text())
def test_no_text_at_all_lets_anything_but_a_job_error_out(text: str) -> None:
    only_job_errors(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(QUICKSTART)), st.integers(0, 12), st.lists(WORDS, max_size=3).map("".join))
def test_no_slip_in_a_real_job_lets_anything_but_a_job_error_out(place: int, lost: int, typed: str) -> None:
    only_job_errors(QUICKSTART[:place] + typed + QUICKSTART[place + lost :])


SCALARS = st.sampled_from(["0", "-1", "1", "3", "1e400", "nan", "", "ON", "row", "2008-01-01", "x" * 200])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS | st.just("kind"), inner, max_size=3),
    max_leaves=6,
)
PATHS = [path for path, _ in changed_settings()] + [("prices",), ("backtest",), ("models",), ("models", 5)]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_no_value_of_any_setting_lets_anything_but_a_job_error_out(
    path: tuple[str | int, ...], value: Any
) -> None:
    data = FULL | {"lookback": 31}  # never the value that is drawn
    only_job_errors(with_setting(data, path, value))


# The schema

KEYWORDS = {"$schema", "$defs", "title", "description", "default", "discriminator", "format"}


def fits(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> bool:
    """Whether a value obeys a JSON schema: the keywords that ours uses, each as the standard has it."""
    types: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "null": type(None),
    }
    rules: dict[str, Any] = {
        "$ref": lambda s: fits(value, root["$defs"][s.removeprefix("#/$defs/")], root),
        "anyOf": lambda s: any(fits(value, each, root) for each in s),
        "oneOf": lambda s: sum(fits(value, each, root) for each in s) == 1,
        "type": lambda s: isinstance(value, types[s]) and (s == "boolean") == isinstance(value, bool),
        "const": lambda s: value == s,
        "enum": lambda s: value in s,
        "properties": lambda s: all(fits(value[key], s[key], root) for key in s if key in value),
        "additionalProperties": lambda s: s or not set(value) - set(schema["properties"]),
        "required": lambda s: set(s) <= set(value),
        "items": lambda s: all(fits(each, s, root) for each in value),
        "minItems": lambda s: len(value) >= s,
        "minLength": lambda s: len(value) >= s,
        "maxLength": lambda s: len(value) <= s,
        "pattern": lambda s: re.search(s, value) is not None,
        "minimum": lambda s: value >= s,
        "maximum": lambda s: value <= s,
        "exclusiveMinimum": lambda s: value > s,
        "exclusiveMaximum": lambda s: value < s,
    }  # fmt: skip
    unknown = set(schema) - set(rules) - KEYWORDS
    assert not unknown, f"keywords that the test does not know: {unknown}"
    if "type" in schema and not rules["type"](schema["type"]):
        return False
    return all(rule(schema[name]) for name, rule in rules.items() if name in schema)


def test_the_schema_holds_for_what_ships_and_not_for_mistakes() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    json.dumps(schema)
    for path in CONFIGS:
        data = json.loads(json.dumps(yaml.safe_load(path.read_text(encoding="utf-8")), default=str))
        assert fits(data, schema, schema), path
        assert not fits(data | {"horizon": 1}, schema, schema)
        assert not fits(data | {"lookback": 0}, schema, schema)
        assert not fits({key: data[key] for key in data if key != "prices"}, schema, schema)
        assert not fits(data | {"models": [{"kind": "nothing"}]}, schema, schema)


def test_every_setting_in_the_schema_is_described() -> None:
    schema = json_schema()
    mappings = {"Job": schema} | schema["$defs"]
    assert len(mappings) > 12
    for name, mapping in mappings.items():
        assert mapping["description"], name
        for setting, described in mapping["properties"].items():
            # A description that a part has already is not repeated beside the reference to it.
            target = schema["$defs"].get(described.get("$ref", "").removeprefix("#/$defs/"), {})
            text = described.get("description") or target.get("description") or ""
            assert re.fullmatch(r"(?s)[A-Z0-9].*\.", text), f"{name}.{setting}: {text!r}"
    lagged = schema["$defs"]["LaggedStrategy"]
    assert lagged["properties"]["kind"]["description"] == lagged["description"]
    assert "delayed by a lag" in lagged["description"]


# Importing it


def test_reading_a_job_loads_no_heavy_library() -> None:
    script = (
        "import sys; from pathlib import Path; from forecaster.job import load_job, json_schema; "
        f"load_job(Path({str(CONFIGS[0])!r})); json_schema(); "
        "heavy = 'numpy pandas scipy sklearn tensorflow keras mlflow arch yfinance plotly pyarrow'.split(); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
