"""Starts a real PostgreSQL on loopback for tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Server", "binaries", "running"]

MISSING = "PostgreSQL is not installed: install Debian's package postgresql, as .ci/run does"


@dataclass(frozen=True)
class Server:
    """A running server. The superuser needs no password: only this machine reaches it."""

    port: int

    def url(self, database: str = "postgres") -> str:
        """URL of a database."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> str:
        """Make an empty database and give its URL."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{database}"'.encode())
        return self.url(database)

    def drop(self, database: str) -> None:
        """Remove a database, whoever is connected to it."""
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)'.encode())


def binaries() -> Path | None:
    """Folder of PostgreSQL's programs, the newest; None where there is none."""
    places = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(4), reverse=True
    )
    on_path = shutil.which("initdb")
    if on_path is not None:
        places.append(Path(on_path).resolve().parent)
    return next(
        (place for place in places if all((place / name).exists() for name in ("initdb", "pg_ctl"))), None
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running() -> Iterator[Server | None]:
    """Start a server, and stop it afterwards; None where PostgreSQL is not installed."""
    folder = binaries()
    if folder is None:
        yield None
        return
    # PostgreSQL refuses to run as root.
    user = _other_user() if os.getuid() == 0 else None
    home = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        if user is not None:
            os.chown(home, user, -1)
        data, port = home / "data", _free_port()

        def run(*command: str | Path) -> None:
            result = subprocess.run(
                command,
                user=user,
                cwd=home,
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "HOME": str(home)},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=180,
            )
            if result.returncode:
                log = home / "log"
                said = log.read_text(encoding="utf-8") if log.exists() else ""
                raise RuntimeError(f"{command[0]} failed: {result.stdout}{result.stderr}{said}")

        run(folder / "initdb", "--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync",
            "--encoding=UTF8", "--no-instructions")  # fmt: skip
        # Nothing here has to survive a loss of power.
        settings = (
            f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off "
            "-c full_page_writes=off -c synchronous_commit=off -c max_connections=60 -c shared_buffers=64MB"
        )
        run(folder / "pg_ctl", "start", "--pgdata", data, "--wait", "--log", home / "log", "-o", settings)
        try:
            yield Server(port)
        finally:
            run(folder / "pg_ctl", "stop", "--pgdata", data, "--wait", "--mode=immediate")
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _other_user() -> int:
    """User to run as instead of root: the one that Debian's package makes, else nobody."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_uid
    raise RuntimeError("PostgreSQL does not run as root, and there is no other user to run as")
