"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["whole"]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, which takes a file's place once all is written.

    Parameters
    ----------
    path : Path
        The file; its folder is made. After an error, or an interruption, an older one is as it was.

    Yields
    ------
    Path
        Beside the file, and of this process alone: two that write the same file do not mix.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
