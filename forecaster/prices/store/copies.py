"""Backup and restore of a store in a local folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from forecaster.errors import SourceError
from forecaster.prices.store.table import Location, PricesTable

__all__ = ["backup", "restore"]


def backup(location: Location, path: Path) -> None:
    """Copy a store; see `forecaster.prices.store.PriceStore.backup`."""
    if location.folder is None:
        raise SourceError(
            f"a backup copies a local folder. Received: {location.url}; use the versions that the "
            "object store keeps"
        )
    if PricesTable(location).open() is None:
        raise SourceError(f"there is nothing to back up: {location.url} holds no price store")
    # Nobody writes meanwhile, and no file is tidied away.
    with location.lock():
        _copy(location.folder, path)


def restore(path: Path, location: Location) -> None:
    """Make a store from a backup; see `forecaster.prices.store.PriceStore.restore`."""
    if location.folder is None:
        raise SourceError(f"a backup is restored to a local folder. Received: {location.url}")
    if PricesTable(Location(str(path))).open() is None:
        raise SourceError(f"a backup is a folder that `backup` wrote. Received: {path}, which is none")
    _copy(path, location.folder)


def _copy(source: Path, target: Path) -> None:
    """Copy a folder, whole or not at all."""
    if target.exists():
        raise SourceError(f"a copy replaces nothing. Received: {target}, which exists; name another")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".copying-", dir=target.parent) as folder:
            whole = Path(folder) / "store"
            shutil.copytree(source, whole, ignore=shutil.ignore_patterns(".lock"))
            whole.replace(target)
    except (OSError, shutil.Error) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SourceError(f"{source} cannot be copied to {target}: {reason}") from None
