"""Files that are written whole or not at all."""

from __future__ import annotations

import multiprocessing
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from forecaster.files import whole


def test_a_file_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    path = tmp_path / "made" / "report.html"
    for text in ("first", "second"):
        with whole(path) as part:
            part.write_text(text)
            assert not path.exists() or path.read_text() == "first"
        assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize("error", [OSError("the disk is full"), KeyboardInterrupt()])
def test_half_a_file_is_none(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def write() -> None:
        with whole(path) as part:
            part.write_text("half of the n")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"report\.html"), whole(tmp_path / "report.html") as part:
        part.write_text("new")
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


def _write(path: Path, text: str, both: Barrier) -> None:
    with whole(path) as part:
        both.wait(60)
        part.write_text(text)
        both.wait(60)


def test_two_processes_do_not_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    both = context.Barrier(2)
    path, texts = tmp_path / "report.html", ("a" * 20_000, "b" * 18_000)
    writers = [context.Process(target=_write, args=(path, text, both)) for text in texts]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(120)
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert path.read_text() in texts
    assert list(tmp_path.iterdir()) == [path]
