"""Which process holds a step, and whether it still lives."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Holder", "alive", "this_process"]


@dataclass(frozen=True)
class Holder:
    """A process, as the ledger records it.

    Parameters
    ----------
    host : str
        Name of the machine.
    pid : int
        Process id.
    process : str
        ``BOOT/NAMESPACE/START``: which start of which machine, which namespace of process ids (a container
        has its own) and when the process began, in ticks since then, so that an id that was given again, or
        one of another machine of the same name, is not taken for it. Empty where the system does not say.
    """

    host: str
    pid: int
    process: str

    @property
    def _place(self) -> tuple[str, str]:
        return self.host, self.process.rpartition("/")[0]


@cache
def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _began(pid: int) -> str | None:
    """When a process began, None where there is none that runs; empty where the system does not say."""
    try:
        # The name of the program, in brackets, may hold anything; the state follows it.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return None
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return None
        except PermissionError:
            pass
        return ""
    return None if fields[0] in "ZX" else fields[19]


def this_process() -> Holder:
    """Say which process this is."""
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, f"{_machine()}/{_began(pid) or ''}")


def alive(holder: Holder) -> bool | None:
    """Whether a process lives; None where that cannot be seen, because it runs on another machine."""
    if holder._place != this_process()._place:
        return None
    return _began(holder.pid) == holder.process.rpartition("/")[2]
