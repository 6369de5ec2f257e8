"""A service that does the evening of each job when its exchange has closed, and says that it lives.

Each evening is a process of its own (`forecaster daily`): one that crashes, is killed or runs out of memory
ends alone, and its memory is free afterwards. What is done stands in the ledger, so that a service which was
stopped, or a machine that slept, does what was missed and nothing twice.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType
from typing import Any

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from forecaster.errors import ForecasterError, JobError, ParameterError
from forecaster.files import whole
from forecaster.job import Job
from forecaster.ledger import Ledger
from pipelines.alerts import record_failure, record_success, send_alerts
from pipelines.schedule import Evenings, evenings_of, unfinished

__all__ = ["BEAT", "Service", "serve_jobs"]

BEAT = 15.0
"""Seconds between two heartbeats."""

SILENT = 4.0
"""Heartbeats that may be missed before the service counts as dead."""

STOPPING = 60.0
"""Seconds that an evening has to end when the service is stopped, before it is killed and resumed later."""

BAD_JOB, PARTIAL = 2, 3
"""Exit codes of `forecaster daily`: the job file is wrong; done, but for some symbols."""


class SessionTrigger(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """Fires when an evening of a job begins.

    Parameters
    ----------
    evenings : Evenings
    """

    def __init__(self, evenings: Evenings) -> None:
        self._evenings = evenings

    def get_next_fire_time(
        self, previous_fire_time: datetime.datetime | None, now: datetime.datetime
    ) -> datetime.datetime | None:
        """Give the next moment; None where the calendar ends before it."""
        after = now if previous_fire_time is None else max(now, previous_fire_time)
        following = self._evenings.next_after(after)
        return following and following[1]

    def __str__(self) -> str:
        return f"sessions of {', '.join(self._evenings.zones)}"


@dataclass
class Served:
    """A job that is served, and what became of its evenings.

    Parameters
    ----------
    job : Job
        As it was when the service began; its evenings read the file again.
    path : Path
        The job file.
    evenings : Evenings
    running, pid : date or None, int or None
        The evening that is being done, and its process.
    last : dict
        The last one that ended: ``as_of, exit_code, finished_at, seconds``.
    attempts : dict of date to int
        How often an evening was begun since the last one fell due.
    trouble : str
        Why nothing can be done, where that is so.
    """

    job: Job
    path: Path
    evenings: Evenings
    running: datetime.date | None = None
    pid: int | None = None
    last: dict[str, Any] = field(default_factory=dict)
    attempts: dict[datetime.date, int] = field(default_factory=dict)
    trouble: str = ""


class Service:
    """Does the evenings of jobs until it is stopped.

    Parameters
    ----------
    jobs : sequence of (Path, Job)
        Job files, and what they say.
    heartbeat : Path
        File that is written every `BEAT` seconds.

    Raises
    ------
    JobError
        If two jobs have one name, or one has no calendar.
    """

    def __init__(self, jobs: Sequence[tuple[Path, Job]], heartbeat: Path) -> None:
        names = [job.name for _, job in jobs]
        again = next((name for name in names if names.count(name) > 1), None)
        if again is not None:
            raise JobError(f"jobs that are served have distinct names. Received: {again!r} more than once")
        self.served = {job.name: Served(job, path, evenings_of(job)) for path, job in jobs}
        self.heartbeat = heartbeat
        self.stopping = threading.Event()
        self.started_at = _now()
        self._beat_at = time.monotonic()
        self._trouble = ""
        self._child: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        # One evening at a time, of whatever job: two would share the processors and the memory.
        self._scheduler = BackgroundScheduler(
            timezone=datetime.UTC,
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    def run(self) -> None:
        """Serve until `stop` is called, by a signal for example."""
        for name, each in self.served.items():
            trigger = SessionTrigger(each.evenings)
            self._scheduler.add_job(self._begin, trigger, args=[name], id=name)
            # What was missed while the service was away.
            self._scheduler.add_job(self._begin, "date", args=[name], id=f"{name} at the start")
        self._scheduler.start()
        for name, each in self.served.items():
            following = each.evenings.next_after(_now())
            when = (
                f"{following[0]} begins at {following[1]:%Y-%m-%d %H:%M} UTC" if following else "is not known"
            )
            _say(f"{name}: the next evening {when}")
        _notify("READY=1")
        try:
            while not self.stopping.is_set():
                self._beat()
                # A clock that was set, or a machine that slept: what is due is looked at again.
                self._scheduler.wakeup()
                self.stopping.wait(BEAT)
        finally:
            _notify("STOPPING=1")
            self._end_child()
            self._scheduler.shutdown(wait=True)
            self._beat()

    def stop(self) -> None:
        """End the service: the evening that is being done is asked to end, and resumed another time."""
        self.stopping.set()

    # ----------------------------------------------------------------------------------------- the evenings

    def _begin(self, name: str) -> None:
        """Do what a job has to do, however often it was tried before."""
        self.served[name].attempts.clear()
        self._evenings(name)

    def _evenings(self, name: str) -> None:
        """Do what a job has to do, and come back later for what failed."""
        each = self.served[name]
        try:
            self._do_all(each)
        except ForecasterError as error:
            each.trouble = _line(error)
            _say(f"{name}: {each.trouble}")
            self._again(name, 0)
        # A thread of the scheduler: whatever it is, the service goes on and says so.
        except Exception as error:
            each.trouble = f"internal error: {type(error).__name__}: {_line(error)}"
            _say(f"{name}: {each.trouble}")
            self._again(name, 0)

    def _do_all(self, each: Served) -> None:
        job = each.job
        with Ledger.open(job.ledger_url) as ledger:
            each.trouble = ""
            for session in unfinished(job, ledger, each.evenings, _now()):
                if self.stopping.is_set():
                    return
                if each.attempts.get(session, 0) > job.schedule.retries:
                    continue
                code = self._do(each, session)
                self._tell(job, ledger, session, code)
                if code == BAD_JOB:
                    each.trouble = f"{each.path}: the job or its input is wrong; see the output"
                    return
            left = unfinished(job, ledger, each.evenings, _now())
        tried = [each.attempts.get(session, 0) for session in left]
        if left and not self.stopping.is_set() and min(tried) <= job.schedule.retries:
            self._again(job.name, min(tried))

    def _do(self, each: Served, session: datetime.date) -> int:
        """Do an evening in a process of its own; give its exit code, negative for a signal."""
        each.attempts[session] = each.attempts.get(session, 0) + 1
        begin = time.monotonic()
        command = [sys.executable, "-m", "pipelines.cli", "daily", str(each.path), "--as-of", str(session)]
        _say(f"{each.job.name}: the evening of {session} begins, attempt {each.attempts[session]}")
        # A session of its own: Ctrl-C is for the service, which then asks its evening to end.
        with self._lock:
            if self.stopping.is_set():
                return -signal.SIGTERM
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
        each.pid, each.running = self._child.pid, session
        try:
            code = self._child.wait()
        finally:
            self._child = each.pid = each.running = None
        seconds = round(time.monotonic() - begin, 1)
        each.last = {
            "as_of": str(session),
            "exit_code": code,
            "finished_at": _now().isoformat(timespec="seconds"),
            "seconds": seconds,
        }
        _say(f"{each.job.name}: the evening of {session} ended with {code} after {seconds} s")
        return code

    def _tell(self, job: Job, ledger: Ledger, session: datetime.date, code: int) -> None:
        """Tell of an evening that could not tell of itself: one that was killed, or has no valid job."""
        if code in (0, PARTIAL):
            record_success(job, ledger, session, ["night"])
        elif (code < 0 or code == BAD_JOB) and not self.stopping.is_set():
            how = f"was ended by signal {-code}" if code < 0 else "found the job, or its input, wrong"
            record_failure(job, ledger, session, "night", f"`forecaster daily` {how}; see its output")
        else:
            return
        send_alerts(job, ledger, session)

    def _again(self, name: str, tried: int) -> None:
        """Come back later."""
        if self.stopping.is_set():
            return
        minutes = self.served[name].job.schedule.retry_minutes
        at = _now() + datetime.timedelta(minutes=minutes)
        self._scheduler.add_job(
            self._evenings, "date", run_date=at, args=[name], id=f"{name} again", replace_existing=True
        )
        _say(f"{name}: tried again in {minutes} minutes" + (f", after {tried} attempts" if tried else ""))

    def _end_child(self) -> None:
        with self._lock:
            child = self._child
        if child is None:
            return
        _say("the evening that is being done is asked to end; the next start goes on with it")
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        try:
            child.wait(STOPPING)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    # ------------------------------------------------------------------------------------------- how it is

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Say whether the service lives, and what it does."""
        silent = time.monotonic() - self._beat_at
        lives = bool(self._scheduler.running) and silent < SILENT * BEAT
        status = "stopping" if self.stopping.is_set() else "ok" if lives else "dead"
        return lives, {
            "status": status,
            "time": _now().isoformat(timespec="seconds"),
            "started_at": self.started_at.isoformat(timespec="seconds"),
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "seconds_since_heartbeat": round(silent, 1),
            "heartbeat_file": self._trouble or str(self.heartbeat),
            "jobs": {name: _shown(each) for name, each in self.served.items()},
        }

    def _beat(self) -> None:
        self._beat_at = time.monotonic()
        _notify("WATCHDOG=1")
        try:
            with whole(self.heartbeat) as part:
                part.write_text(json.dumps(self.health()[1], indent=2) + "\n", encoding="utf-8")
            self._trouble = ""
        # A full disk is no reason to stop; `/health` says it.
        except OSError as error:
            self._trouble = f"not written: {error.strerror or error}"


def _shown(each: Served) -> dict[str, Any]:
    following = each.evenings.next_after(_now())
    return {
        "next": following and {"as_of": str(following[0]), "begins_at": following[1].isoformat()},
        "running": each.running and {"as_of": str(each.running), "pid": each.pid},
        "last": each.last or None,
        "trouble": each.trouble or None,
    }


@contextlib.contextmanager
def answering(service: Service, address: str, port: int) -> Iterator[int]:
    """Answer ``GET /health``: 200 while the service lives, 503 else.

    Yields
    ------
    int
        The port; chosen by the system where 0 is asked for.

    Raises
    ------
    ParameterError
        If the address cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version, timeout = "forecaster", "", 10

        def do_GET(self) -> None:
            lives, told = service.health() if self.path.partition("?")[0] == "/health" else (False, {})
            status = 200 if lives else 503 if told else 404
            body = (json.dumps(told or {"error": "ask /health"}, indent=2) + "\n").encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Cache-Control", "no-store")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Keep quiet: a probe asks every few seconds."""

    class Server(ThreadingHTTPServer):
        address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        daemon_threads = True

    try:
        server = Server((address, port), Handler)
    except OSError as error:
        raise ParameterError(
            f"the health answer needs an address and a port that are free. Received: {address} port {port} "
            f"({error.strerror or error}); take another by --address and --port"
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="health", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()


def serve_jobs(jobs: Sequence[tuple[Path, Job]], heartbeat: Path, address: str, port: int) -> None:
    """Serve jobs until SIGTERM or SIGINT.

    Parameters
    ----------
    jobs : sequence of (Path, Job)
        Job files, and what they say.
    heartbeat : Path
        File that is written every `BEAT` seconds: what ``/health`` answers.
    address, port : str, int
        Where ``/health`` is answered.

    Raises
    ------
    JobError, ParameterError
        If a job has no schedule, or the address cannot be listened on.
    """
    service = Service(jobs, heartbeat)

    def stop(signum: int, frame: FrameType | None) -> None:
        service.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with answering(service, address, port) as answered:
            _say(f"health: http://{f'[{address}]' if ':' in address else address}:{answered}/health")
            service.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    _say("stopped")


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _line(error: BaseException) -> str:
    from forecaster.redaction import one_line

    return one_line(str(error))


def _say(text: str) -> None:
    # Standard output is the log: systemd and containers keep it, with the time.
    print(f"{_now():%Y-%m-%d %H:%M:%S} {text}", flush=True)


def _notify(state: str) -> None:
    """Tell systemd, where it asked to be told (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    target = f"\0{path[1:]}" if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), target)
