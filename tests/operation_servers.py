"""Servers on loopback that take e-mails and webhooks, and others that misbehave."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Taken:
    """What a server was given."""

    port: int
    messages: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 204
    location: str = ""


@contextmanager
def webhooks() -> Iterator[Taken]:
    """A server that takes JSON, and answers with `Taken.status`."""
    taken = Taken(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            taken.messages.append(json.loads(body))
            taken.headers.append(dict(self.headers.items()))
            self.send_response(taken.status)
            if taken.location:
                self.send_header("Location", taken.location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def mails(password: str | None = None) -> Iterator[Taken]:
    """A server that takes e-mails; with a password only from who signs in with it."""
    taken = Taken(free_port())

    class Handler:
        async def handle_DATA(  # noqa: N802
            self, server: SMTP, session: Session, envelope: Envelope
        ) -> str:
            taken.messages.append(envelope)
            return "250 taken"

    def sign_in(_: SMTP, __: Session, ___: Envelope, ____: str, given: LoginPassword) -> AuthResult:
        # Not handled: the server itself shall answer.
        return AuthResult(success=given.password == (password or "").encode(), handled=False)

    options = {"authenticator": sign_in, "auth_required": True, "auth_require_tls": False} if password else {}
    controller = Controller(Handler(), hostname="127.0.0.1", port=taken.port, **options)
    controller.start()
    try:
        yield taken
    finally:
        controller.stop()


@contextmanager
def dripping() -> Iterator[int]:
    """A server that answers a byte at a time, for ever."""
    ended = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)

    def serve() -> None:
        connection = None
        while not ended.is_set():
            try:
                if connection is None:
                    connection, _ = listener.accept()
                    connection.sendall(b"HTTP/1.1 200 ")
                else:
                    connection.sendall(b"x")
                    time.sleep(0.05)
            except TimeoutError:
                continue
            except OSError:
                connection = None
        if connection is not None:
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        ended.set()
        thread.join()
        listener.close()
