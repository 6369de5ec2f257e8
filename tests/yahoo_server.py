"""A Yahoo on this machine: serves histories as Yahoo does, and misbehaves when told to.

Started by tests, reached by ``YahooSource(gateway=server.url)`` or the environment variable
FORECASTER_YAHOO_GATEWAY, so that yfinance runs unchanged and contacts 127.0.0.1 only.
"""

from __future__ import annotations

import datetime
import itertools
import json
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

NOT_FOUND = {
    "chart": {
        "result": None,
        "error": {"code": "Not Found", "description": "No data found, symbol may be delisted"},
    }
}
Bar = tuple[float | None, float | None, float | None, float | None, float | None]
"""Open, high, low, close, volume."""


@dataclass
class Listing:
    """What was really traded, and how Yahoo shows it.

    Bars, dividends and splits are as traded. They are served restated for every split, as Yahoo does, except
    for the splits in `not_restated`.
    """

    bars: dict[datetime.date, Bar]
    dividends: Mapping[datetime.date, float] = field(default_factory=dict)
    splits: Mapping[datetime.date, tuple[float, float]] = field(default_factory=dict)
    """New shares and old shares by date."""
    not_restated: Sequence[datetime.date] = ()
    capital_gains: Mapping[datetime.date, float] = field(default_factory=dict)
    dividend_currency: str | None = None
    time_zone: str = "America/New_York"
    opens: datetime.time = datetime.time(9, 30)
    meta: Mapping[str, Any] = field(default_factory=dict)
    repeated: Sequence[datetime.date] = ()
    """Sessions that are served twice in a row."""
    extra: Sequence[tuple[float, Bar]] = ()
    """Further bars as they are, by timestamp, served last."""

    def moment(self, date: datetime.date) -> int:
        """Timestamp of the open."""
        return int(datetime.datetime.combine(date, self.opens, ZoneInfo(self.time_zone)).timestamp())

    def factor(self, date: datetime.date) -> float:
        """Product of the ratios of the splits after a date."""
        product = 1.0
        for split, (new, old) in self.splits.items():
            if split > date and split not in self.not_restated:
                product *= new / old
        return product

    def chart(self, symbol: str, first: float, last: float) -> dict[str, Any]:
        """The reply of ``/v8/finance/chart`` for a period."""
        rows: list[tuple[float, Bar]] = []
        for date, bar in sorted(self.bars.items()):
            factor = self.factor(date)
            numbers = [None if value is None else value / factor for value in bar[:4]]
            volume = None if bar[4] is None else round(bar[4] * factor)
            row = (self.moment(date), (numbers[0], numbers[1], numbers[2], numbers[3], volume))
            rows += [row, row] if date in self.repeated else [row]
        rows = [row for row in [*rows, *self.extra] if first <= row[0] < last]
        columns = list(zip(*(row[1] for row in rows), strict=True)) or [()] * 5
        names = ("open", "high", "low", "close", "volume")
        quote = {name: list(column) for name, column in zip(names, columns, strict=True)}
        events: dict[str, dict[str, Any]] = {}
        for date, amount in self.dividends.items():
            moment = self.moment(date)
            entry: dict[str, Any] = {"amount": amount / self.factor(date), "date": moment}
            if self.dividend_currency is not None:
                entry["currency"] = self.dividend_currency
            if first <= moment < last:
                events.setdefault("dividends", {})[str(moment)] = entry
        for date, amount in self.capital_gains.items():
            moment = self.moment(date)
            if first <= moment < last:
                events.setdefault("capitalGains", {})[str(moment)] = {"amount": amount, "date": moment}
        for date, (new, old) in self.splits.items():
            moment = self.moment(date)
            if first <= moment < last:
                events.setdefault("splits", {})[str(moment)] = {
                    "date": moment, "numerator": new, "denominator": old, "splitRatio": f"{new:g}:{old:g}",
                }  # fmt: skip
        meta = {
            "symbol": symbol, "currency": "USD", "exchangeName": "NMS", "instrumentType": "EQUITY",
            "firstTradeDate": self.moment(min(self.bars)) if self.bars else None,
            "exchangeTimezoneName": self.time_zone, "longName": f"{symbol} Inc.", "dataGranularity": "1d",
            "gmtoffset": 0, "timezone": "X", "priceHint": 2, "validRanges": ["1d", "5d", "max"], **self.meta,
        }  # fmt: skip
        result: dict[str, Any] = {"meta": meta, "indicators": {"quote": [quote if rows else {}]}}
        if rows:
            result["timestamp"] = [row[0] for row in rows]
            result["indicators"]["adjclose"] = [{"adjclose": quote["close"]}]
        if events:
            result["events"] = events
        return {"chart": {"result": [result], "error": None}}


@dataclass(frozen=True)
class Fault:
    """What to do instead of answering a request for prices.

    A `status` is sent with `headers` and `body`. ``how``: ``answer`` sends it, ``cut`` closes the connection
    after half of the body, ``drop`` before the first byte; ``slow`` waits `seconds` first.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    how: str = "answer"
    seconds: float = 0.0


def calm_and_wild(days: list[datetime.date]) -> dict[datetime.date, Bar]:
    """Give bars of a price that alternates, sixty sessions calm and sixty wild."""
    closes = itertools.accumulate(
        ((-1) ** row * (0.004 if row // 60 % 2 else 0.015) for row in range(len(days))),
        lambda close, change: close * (1 + change),
        initial=100.0,
    )
    return {day: (c, c * 1.02, c * 0.98, c, 1000.0) for day, c in zip(days, closes, strict=False)}


class YahooServer:
    """Serves `listings` on a free port of 127.0.0.1; a context manager.

    `faults` are used up one a request for prices, by symbol; ``*`` stands for any. `always` holds faults that
    never end.
    """

    def __init__(self, listings: Mapping[str, Listing] | None = None) -> None:
        self.listings = dict(listings or {})
        self.faults: dict[str, deque[Fault]] = {}
        self.always: dict[str, Fault] = {}
        self.crumb = Fault(body=b"crumb")
        self.requests: list[tuple[float, str]] = []
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"yahoo": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        """Address to give as gateway."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def charts(self, symbol: str | None = None) -> list[tuple[float, str]]:
        """Time and path of the requests for prices."""
        return [
            (moment, path)
            for moment, path in self.requests
            if "/v8/finance/chart/" in path and (symbol is None or f"/chart/{symbol}?" in unquote(path))
        ]

    def fault(self, symbol: str) -> Fault | None:
        """The next thing that goes wrong for a symbol."""
        with self.lock:
            for name in (symbol, "*"):
                if self.faults.get(name):
                    return self.faults[name].popleft()
            return self.always.get(symbol) or self.always.get("*")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    yahoo: YahooServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer as Yahoo would, or as the fault says."""
        with self.yahoo.lock:
            self.yahoo.requests.append((time.monotonic(), self.path))
        parts = urlsplit(self.path)
        if parts.path.endswith("/v1/test/getcrumb"):
            self._send(self.yahoo.crumb)
        elif "/v8/finance/chart/" in parts.path:
            symbol = unquote(parts.path.rpartition("/")[2])
            fault = self.yahoo.fault(symbol)
            body = json.dumps(self._chart(symbol, parse_qs(parts.query))).encode()
            if fault is None:
                self._send(Fault(404 if symbol not in self.yahoo.listings else 200, body=body))
            else:
                self._send(fault, body)
        elif parts.path.startswith("/fc.yahoo.com"):
            self._send(Fault(404, {"set-cookie": "A3=cookie; Path=/"}, b"not here"))
        else:
            self._send(Fault(200, body=b"<html>nothing</html>"))

    def do_POST(self) -> None:
        """Answer nothing."""
        self.do_GET()

    def _chart(self, symbol: str, query: Mapping[str, Sequence[str]]) -> Mapping[str, Any]:
        listing = self.yahoo.listings.get(symbol)
        if listing is None:
            return NOT_FOUND
        first, last = (float(query.get(name, [default])[0]) for name, default in _PERIOD)
        return listing.chart(symbol, first, last)

    def _send(self, fault: Fault, default: bytes = b"") -> None:
        body = default if fault.body is None else fault.body
        if fault.how == "slow":
            time.sleep(fault.seconds)
        if fault.how == "drop":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        try:
            self.send_response(fault.status)
            for name, value in fault.headers.items():
                self.send_header(name, value)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            if fault.how == "cut":
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.wfile.write(body)
        except OSError:
            # The client has given up.
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


_PERIOD = (("period1", "-1e12"), ("period2", "1e12"))
