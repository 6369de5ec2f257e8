"""The docs say what is so: snippets run, equalities hold, pictures are those that the code draws."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import correlate_windows
from pydantic import TypeAdapter
from scipy.signal import correlate2d

from forecaster import liftings
from forecaster.job import StrategySpec, load_job
from forecaster.kernels import Parallel, fold, full_height
from forecaster.liftings import CalendarFold, Column, Lagged, Placement, Replicate, Row, Spectrogram
from forecaster.models.convolution.geometry import KernelConvolution
from forecaster.models.convolution.planner import match_parameters
from pipelines.cli import app

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "kernels.md"
IMAGES = ROOT / "docs" / "images"
TEXT = PAGE.read_text(encoding="utf-8")
IN_KERAS = "forecaster.models.convolution.layers"

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PYTHON = [match for match in FENCE.finditer(TEXT) if match[1] == "python"]


# --- snippets -----------------------------------------------------------------------------------------------


def run(text: str, fences: list[re.Match[str]]) -> tuple[doctest.TestResults, str]:
    """Run snippets of a page in order and in one namespace; what failed is told with its line of the page."""
    lines = [""] * (text.count("\n") + 1)
    for fence in fences:
        first = text.count("\n", 0, fence.start(2))
        code = fence[2].splitlines()
        lines[first : first + len(code)] = code
    examples = doctest.DocTestParser().get_doctest("\n".join(lines) + "\n", {}, PAGE.name, str(PAGE), 0)
    said: list[str] = []
    runner = doctest.DocTestRunner(verbose=False)
    return runner.run(examples, out=said.append), "".join(said)


def test_every_snippet_gives_what_the_page_says() -> None:
    results, said = run(TEXT, [fence for fence in PYTHON if IN_KERAS not in fence[2]])
    assert results.failed == 0, said
    assert results.attempted > 50


@pytest.mark.slow
def test_every_snippet_in_keras_gives_what_the_page_says() -> None:
    last = max(index for index, fence in enumerate(PYTHON) if IN_KERAS in fence[2])
    results, said = run(TEXT, PYTHON[: last + 1])
    assert results.failed == 0, said


def test_a_wrong_snippet_is_told_with_its_line() -> None:
    page = "# Title\n\n```python\n>>> 1 + 1\n2\n```\n\nProse.\n\n```python\n>>> 2 + 2\n5\n```\n"
    results, said = run(page, list(FENCE.finditer(page)))
    assert (results.attempted, results.failed) == (2, 1)
    assert "line 11" in said
    assert "Got:\n    4" in said


def test_every_code_block_is_run_or_is_no_code() -> None:
    fences = list(FENCE.finditer(TEXT))
    assert len(fences) * 2 == len(re.findall(r"^```", TEXT, re.MULTILINE))
    assert {match[1] for match in fences} <= {"python", "text"}
    for match in PYTHON:
        assert match[2].startswith(">>> "), match[2]
        # Doctest would take what follows an empty line for prose.
        assert "\n\n" not in match[2], match[2]


def test_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.findall(r"`make ([\w-]+)`", TEXT)
    assert "docs" in targets
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    names = {command.name or command.callback.__name__ for command in app.registered_commands}  # type: ignore[union-attr]
    commands = re.findall(r"`forecaster (\w+) (\S+)`", TEXT)
    assert {command for command, _ in commands} == {"run", "explain"}
    for command, config in commands:
        assert command in names
        load_job(ROOT / config)


def test_links_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", TEXT), re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        else:
            assert (PAGE.parent / target).is_file(), target
    named = re.findall(r"`((?:configs|tests|docs)/[^`]+)`", TEXT)
    assert named
    assert [path for path in named if not (ROOT / path).exists()] == []


# --- pictures -----------------------------------------------------------------------------------------------


def test_pictures_are_those_that_the_code_draws(tmp_path: Path) -> None:
    # In a process of its own, with another order of sets: a picture must not depend on either.
    code = "import runpy, sys; from pathlib import Path; "
    code += f"runpy.run_path({str(ROOT / 'docs' / 'make_images.py')!r})['main'](Path(sys.argv[1]))"
    environment = os.environ | {"PYTHONHASHSEED": "1", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, env=environment, cwd=tmp_path)
    drawn = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    kept = {path.name: path.read_bytes() for path in IMAGES.iterdir()}
    assert drawn.keys() == kept.keys()
    assert [name for name in drawn if drawn[name] != kept[name]] == [], "run `make docs`"


def test_every_picture_is_shown_and_told_in_words() -> None:
    shown = re.findall(r"!\[([^\]]*)\]\(images/([^)]+)\)", TEXT)
    assert sorted(name for _, name in shown) == sorted(path.name for path in IMAGES.iterdir())
    assert all(len(words) > 30 for words, _ in shown)


@pytest.mark.parametrize("path", sorted(IMAGES.iterdir()), ids=lambda path: path.stem)
def test_a_picture_stands_alone(path: Path) -> None:
    """A page of its own behind it, nothing beyond its edge, letters that can be read, no fetched resource."""
    text = path.read_text(encoding="utf-8")
    root = ElementTree.fromstring(text)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
    assert width <= 800
    assert len(text) < 32_000
    tags = [element.tag.rpartition("}")[2] for element in root]
    assert tags[:3] == ["title", "desc", "rect"]
    assert (root[2].attrib["width"], root[2].attrib["height"]) == (
        root.attrib["width"],
        root.attrib["height"],
    )
    assert set(tags) <= {"title", "desc", "rect", "line", "text", "polyline"}
    assert not re.search(r"href|url\(|style|\d{4}-\d\d-\d\d", text)
    assert not re.search(r'"-0"|nan|inf\b', text)
    for element in list(root)[3:]:
        places = {key: float(value) for key, value in element.attrib.items() if key in ("x", "y", "x2", "y2")}
        right = places.get("x2", places.get("x", 0.0)) + float(element.attrib.get("width", 0))
        bottom = places.get("y2", places.get("y", 0.0)) + float(element.attrib.get("height", 0))
        assert min(places.values(), default=0.0) >= 0
        assert right <= width, element.attrib
        assert bottom <= height, element.attrib
        if element.tag.endswith("text"):
            assert element.text
            assert float(element.attrib["font-size"]) >= 11
            assert contrast(element.attrib["fill"], "#ffffff") >= 4.5


def contrast(colour: str, other: str) -> float:
    """Contrast ratio of two hex colours (WCAG 2.2, relative luminance)."""

    def luminance(text: str) -> float:
        parts = [int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(colour), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


# --- the table of strategies --------------------------------------------------------------------------------


def table(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+) \|$", section, re.MULTILINE)
    return [[cell.strip() for cell in row.split(" | ")] for row in rows]


STRATEGIES = table("The strategies")[1:]


@pytest.mark.parametrize("row", STRATEGIES, ids=[row[0] for row in STRATEGIES])
def test_a_strategy_is_the_same_in_python_and_in_a_job(row: list[str]) -> None:
    _, python, job, shape, history = row
    call, kind = python.partition("`, ")[0].strip("`"), job.strip("`")
    named = eval(call, {**vars(liftings), "Parallel": Parallel})
    spec: Any = TypeAdapter(StrategySpec).validate_python(plain_yaml(kind))
    built = spec.build()
    if isinstance(named, Parallel):
        assert built == named
        return
    assert type(built) is type(named)
    lookback, rows = 14, named.shape(14)
    if isinstance(named, Placement):
        assert built.row_lags(lookback) == named.row_lags(lookback)
    else:
        assert built.get_params() == named.get_params()
    assert built.history == spec.history == named.history
    words = {
        "lookback": lookback, "rows": rows[0], "lags": rows[0], "bands": rows[0], "weeks": rows[0],
        "period": rows[1], "segment": 16, "stride": 2, "largest lag": 21,
    }  # fmt: skip
    assert [words.get(side) or int(side) for side in shape.split(" × ")] == list(rows)
    for word, value in words.items():
        history = history.replace(word, str(value))
    assert eval(history.replace("−", "-").replace("·", "*")) == named.history


def plain_yaml(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


# --- the table of equalities --------------------------------------------------------------------------------

Arrays = tuple[Any, Any]
LOOKBACK = 12
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 4))
SMALL = st.integers(1, 3)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def kernel_of(size: tuple[int, int]) -> Any:
    return rng().standard_normal((*size, 2, 3))


def windows_of(sessions: int) -> Any:
    return rng().standard_normal((2, sessions, 2))


def image(lifting: Any, windows: Any, kernel: Any, mode: Any = "valid", **options: Any) -> Any:
    """What a Conv2D gives on the lifted windows, by slow loops."""
    return correlate_windows(lifting(windows), kernel, None, mode, **options)


def column(data: st.DataObject) -> Arrays:
    kernel, windows = kernel_of(data.draw(SIZES)), windows_of(LOOKBACK)
    mode, strides = data.draw(st.sampled_from(["same", "full"])), (data.draw(SMALL), data.draw(SMALL))
    tall = image(Column(), windows, kernel.swapaxes(0, 1), mode, strides=strides[::-1])
    return tall.swapaxes(1, 2), image(Row(), windows, kernel, mode, strides=strides)


def row_same(data: st.DataObject) -> Arrays:
    dh = data.draw(SMALL)
    kh = data.draw(st.integers(1, 5).filter(lambda kh: kh % 2 == 1 or dh == 1))
    kernel, windows = kernel_of((kh, 3)), windows_of(LOOKBACK)
    acting = ((kh - 1) * dh // 2) // dh
    assert ((kh - 1) * dh // 2) % dh == 0
    one = image(Row(), windows, kernel[acting : acting + 1], ("valid", "same"))
    return image(Row(), windows, kernel, "same", dilation=(dh, 1)), one


def replicate_valid(data: st.DataObject) -> Arrays:
    kernel, windows = kernel_of(data.draw(SIZES)), windows_of(LOOKBACK)
    outputs = image(Replicate(rows=5), windows, kernel)
    return outputs, np.broadcast_to(image(Row(), windows, kernel.sum(axis=0)[None]), outputs.shape)


def replicate_same(data: st.DataObject) -> Arrays:
    (kh, kw), rows = data.draw(SIZES), data.draw(st.integers(1, 5))
    kernel, windows = kernel_of((kh, kw)), windows_of(LOOKBACK)
    outputs = image(Replicate(rows=rows), windows, kernel, ("same", "valid"))
    inside = [[a for a in range(kh) if 0 <= i + a - (kh - 1) // 2 < rows] for i in range(rows)]
    sums = [image(Row(), windows, kernel[acting].sum(axis=0)[None])[:, 0] for acting in inside]
    assert len(np.unique(np.round(outputs[0, :, 0, 0], 9))) == min(rows, kh)
    return outputs, np.stack(sums, axis=1)


def lagged_valid(data: st.DataObject) -> Arrays:
    (kh, kw), s, rows = data.draw(SIZES), data.draw(SMALL), 5
    lifting = Lagged(rows=rows, stride=s)
    kernel, windows = kernel_of((kh, kw)), windows_of(LOOKBACK + lifting.history)
    flat = np.zeros((1, (kh - 1) * s + kw, 2, 3))
    for a in range(kh):
        for b in range(kw):
            flat[0, b - a * s + (kh - 1) * s] += kernel[a, b]
    y = image(Row(), windows, flat)[:, 0]
    outputs = image(lifting, windows, kernel)
    newest = y.shape[1]
    delayed = [y[:, newest - i * s - outputs.shape[2] : newest - i * s] for i in range(outputs.shape[1])]
    return outputs, np.stack(delayed, axis=1)


def lagged_as_wide_as_far(data: st.DataObject) -> Arrays:
    kh, kw = data.draw(SIZES)
    lifting = Lagged(rows=kh, stride=kw)
    kernel, windows = kernel_of((kh, kw)), windows_of(LOOKBACK + lifting.history)
    flat = kernel[::-1].reshape(1, kh * kw, 2, 3)
    return image(lifting, windows, kernel), image(Row(), windows, flat)


def lagged_of_width_one(data: st.DataObject) -> Arrays:
    (kh, _), s = data.draw(SIZES), data.draw(SMALL)
    lifting = Lagged(rows=kh, stride=s)
    kernel, windows = kernel_of((kh, 1)), windows_of(LOOKBACK + lifting.history)
    flat = kernel[::-1].reshape(1, kh, 2, 3)
    return image(lifting, windows, kernel), image(Row(), windows, flat, dilation=(1, s))


def any_full_height(data: st.DataObject) -> Arrays:
    kinds = [Replicate(rows=3), Lagged(lags=(0, 1, 5)), CalendarFold(5), Spectrogram(segment=6), Column()]
    lifting: Any = data.draw(st.sampled_from(kinds))
    rows, columns = lifting.shape(LOOKBACK)
    kernel, windows = kernel_of((rows, min(3, columns))), windows_of(LOOKBACK + lifting.history)
    channels = lifting(windows).swapaxes(1, 2).reshape(2, 1, columns, rows * 2)
    return image(lifting, windows, kernel), correlate_windows(channels, full_height(kernel)[None])


def calendar(data: st.DataObject) -> Arrays:
    p, weeks = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 4))
    windows = windows_of(weeks * p + p - 1)
    upside_down = Lagged(rows=weeks, stride=p)(windows[:, p - 1 :])[:, ::-1]
    return CalendarFold(period=p)(windows), upside_down


def parallel_concatenated(data: st.DataObject) -> Arrays:
    kernel, windows = kernel_of(data.draw(SIZES)), windows_of(LOOKBACK)
    mode: Any = data.draw(st.sampled_from(["valid", "same", "full"]))
    all_filters = np.concatenate(list(kernel), axis=-1)[None]
    left = fold(kernel, Parallel(), LOOKBACK, mode).apply(windows)
    return left, image(Row(), windows, all_filters, ("valid", mode))


def parallel_columns(data: st.DataObject) -> Arrays:
    kernel, windows = kernel_of(data.draw(SIZES)), windows_of(LOOKBACK)
    aggregate: Any = data.draw(st.sampled_from(["concatenate", "mean", "sum"]))
    across = fold(kernel.swapaxes(0, 1), Parallel("columns", aggregate), LOOKBACK)
    return across.apply(windows), fold(kernel, Parallel("rows", aggregate), LOOKBACK).apply(windows)


def parallel_summed(data: st.DataObject) -> Arrays:
    kernel, windows = kernel_of(data.draw(SIZES)), windows_of(LOOKBACK)
    mode: Any = data.draw(st.sampled_from(["valid", "same", "full"]))
    expected = image(Replicate(rows=len(kernel)), windows, kernel, ("valid", mode))
    mean = fold(kernel, Parallel(aggregate="mean"), LOOKBACK, mode).apply(windows)
    np.testing.assert_allclose(mean, expected / len(kernel), rtol=0, atol=1e-11)
    return fold(kernel, Parallel(aggregate="sum"), LOOKBACK, mode).apply(windows), expected


def parallel_of_rows(data: st.DataObject) -> Arrays:
    lifting: Any = data.draw(st.sampled_from([Lagged(lags=(0, 1, 5)), CalendarFold(4), Replicate(rows=3)]))
    kernel, windows = kernel_of((3, data.draw(SMALL))), windows_of(LOOKBACK + lifting.history)
    left = fold(kernel, Parallel(aggregate="sum", lifting=lifting), LOOKBACK, "valid").apply(windows)
    return left, image(lifting, windows, kernel)


EQUALITIES: dict[str, Callable[[st.DataObject], Arrays]] = {
    "`Column()`": column,
    "`Row()`, mode `same`, a kernel of `kh` rows": row_same,
    "`Replicate(rows=R)`, `valid`": replicate_valid,
    "`Replicate(rows=R)`, `same`": replicate_same,
    "`Lagged(rows=R, stride=s)`, `valid`": lagged_valid,
    "`Lagged(rows=kh, stride=kw)`, `valid`, full height": lagged_as_wide_as_far,
    "`Lagged(rows=kh, stride=s)`, a kernel of width 1, full height": lagged_of_width_one,
    "any lifting, `valid`, full height": any_full_height,
    "`CalendarFold(period=p)`, lookback `R * p`": calendar,
    "`Parallel()`, concatenated": parallel_concatenated,
    '`Parallel(axis="columns")`': parallel_columns,
    '`Parallel(aggregate="sum")`, no nonlinearity before the sum': parallel_summed,
    '`Parallel(aggregate="sum", lifting=L)`, likewise': parallel_of_rows,
}


def test_every_equality_of_the_table_is_tested() -> None:
    assert [row[0] for row in table("Which strategies are the same linear map")[1:]] == list(EQUALITIES)


@pytest.mark.parametrize("name", EQUALITIES)
def test_two_strategies_are_the_same_linear_map(name: str) -> None:
    @settings(max_examples=25)
    @given(data=st.data())
    def check(data: st.DataObject) -> None:
        left, right = EQUALITIES[name](data)
        assert left.shape == right.shape
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-11)

    check()


def test_a_spectrogram_is_not_linear_and_replicates_differ_by_mode() -> None:
    windows = windows_of(30)
    lift = Spectrogram(segment=8)
    assert np.abs(lift(windows[:1] + windows[1:]) - lift(windows[:1]) - lift(windows[1:])).max() > 0.01
    kernel, lifting = kernel_of((3, 3)), Replicate(rows=3)
    same, valid = (image(lifting, windows, kernel, (mode, "valid")) for mode in ("same", "valid"))
    np.testing.assert_allclose(same[:, 1], valid[:, 0], rtol=0, atol=1e-11)
    assert np.abs(same[:, 0] - valid[:, 0]).max() > 0.1


# --- other claims -------------------------------------------------------------------------------------------


@given(
    s=SMALL, strides=st.tuples(SMALL, SMALL), sizes=st.tuples(SMALL, SMALL), widths=st.tuples(SMALL, SMALL)
)
def test_delayed_rows_stay_delayed_rows_at_any_depth(
    s: int, strides: tuple[int, int], sizes: tuple[int, int], widths: tuple[int, int]
) -> None:
    lifting, lookback = Lagged(rows=12, stride=s), 44
    maps = lifting(rng().standard_normal((1, lookback + lifting.history, 1)))[0, :, :, 0]
    delay = s
    for stride, height, width in zip(strides, sizes, widths, strict=True):
        maps = np.tanh(correlate2d(maps, rng().standard_normal((height, width)), "valid"))[::stride]
        delay *= stride
        for i, row in enumerate(maps):
            kept = max(len(row) - i * delay, 0)
            np.testing.assert_array_equal(row[len(row) - kept :], maps[0, :kept])


@pytest.mark.parametrize("stride", [1, 2, 5, 7])
def test_closer_rows_reach_less_far_than_their_control_and_distant_rows_farther(stride: int) -> None:
    lifting, layer = Lagged(rows=4, stride=stride), KernelConvolution(8, (4, 5))
    (kernel,) = fold(np.ones((4, 5)), lifting, 32, "valid").kernels
    reach = len(kernel.dense())
    control = match_parameters(lifting, 32, [layer], channels=1)
    (flat,) = control.layers
    assert isinstance(flat, KernelConvolution)
    assert flat.kernel == (1, 20)
    assert control.parameters == control.target
    assert np.sign(reach - 20) == np.sign(stride - 5)
    assert (len(kernel.offsets) < reach) == (stride > 5)


def test_three_networks_of_the_quickstart_are_one_set_of_functions() -> None:
    job = load_job(ROOT / "configs" / "quickstart.yaml")
    models: dict[str, Any] = {model.name: model for model in job.models}
    row, column, replicate, lagged = (
        models[f"conv_{name}"] for name in ("row", "column", "replicate", "lagged")
    )
    tall = replicate.strategy.build().shape(job.lookback)[0]
    first, second = row.layers()
    assert [layer.kernel for layer in column.layers()] == [first.kernel[::-1], second.kernel[::-1]]
    assert [layer.dilation for layer in column.layers()] == [first.dilation[::-1], second.dilation[::-1]]
    assert [layer.kernel for layer in replicate.layers()] == [(tall, first.kernel[1]), second.kernel]
    assert replicate.layers()[1] == second
    assert {layer.padding for model in (row, column, replicate) for layer in model.layers()} == {
        ("valid", "valid")
    }
    # Of full height, so one output row: nothing is left of the second dimension after the first layer.
    assert lagged.layers()[0].kernel[0] == len(lagged.strategy.lag_set)


@pytest.mark.slow
def test_three_networks_of_the_quickstart_give_the_same_features() -> None:
    from forecaster.models.convolution.layers import KernelStack

    job = load_job(ROOT / "configs" / "quickstart.yaml")
    models: dict[str, Any] = {model.name: model for model in job.models}
    x = rng().standard_normal((1, job.lookback + 9, 4)).astype(np.float32)
    stacks = {}
    for name in ("row", "column", "replicate"):
        model = models[f"conv_{name}"]
        stacks[name] = KernelStack(model.strategy.build(), job.lookback, model.layers())
        stacks[name].build(x.shape)
    weights = stacks["replicate"].get_weights()
    flat = [weights[0].sum(axis=0, keepdims=True), *weights[1:]]
    stacks["row"].set_weights(flat)
    stacks["column"].set_weights([w.swapaxes(0, 1) if w.ndim == 4 else w for w in flat])
    expected = stacks["replicate"].series(x)
    for name in ("row", "column"):
        np.testing.assert_allclose(stacks[name].series(x), expected, rtol=0, atol=1e-5)


# --- speed --------------------------------------------------------------------------------------------------

sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
import speed  # noqa: E402

SPEED = ROOT / "docs" / "speed.md"
FIGURES = {figure.name: figure for figure in speed.FIGURES}


def test_the_page_of_speed_gives_what_it_says() -> None:
    text = SPEED.read_text(encoding="utf-8")
    results, said = run(text, [fence for fence in FENCE.finditer(text) if fence[1] == "python"])
    assert results.failed == 0, said
    assert results.attempted >= 6
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (SPEED.parent / target).is_file(), target
    assert set(re.findall(r"`(\w+_vs_\w+)`", text)) <= set(FIGURES)


def test_commands_of_the_benchmark_are_understood() -> None:
    text = SPEED.read_text(encoding="utf-8")
    given = re.findall(r'^make bench ARGUMENTS="([^"]*)"', text, re.MULTILINE)
    assert len(given) == 2
    for arguments in given:
        command = [sys.executable, str(speed.HERE / "speed.py"), *arguments.split(), "--help"]
        # `--help` comes last: what stands before it has been read, and refused where it is wrong.
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0, arguments
        assert set(arguments.partition("--only ")[2].split()) <= set(FIGURES)


def test_the_table_of_speed_says_of_each_figure_what_it_must_reach_and_whether_it_does() -> None:
    section = SPEED.read_text(encoding="utf-8").split("\n## The figures\n")[1].split("\n## ")[0]
    rows = re.findall(
        r"^\| .+ \(`(\w+)`\) \| ([\d.]+) \| ([\d.]+) to ([\d.]+) \|(.*)\|$", section, re.MULTILINE
    )
    assert {name for name, *_ in rows} >= {name for name, figure in FIGURES.items() if figure.bound}
    for name, median, least, greatest, verdict in rows:
        figure = FIGURES[name]
        assert figure.text in section
        assert float(least) <= float(median) <= float(greatest)
        expected = f"{figure.bound}: {'yes' if figure.holds(float(median)) else 'no'}" if figure.bound else ""
        assert verdict.strip() == expected
