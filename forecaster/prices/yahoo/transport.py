"""The one way to Yahoo: a session that keeps to the rate limit, tries again, and tells why it failed.

yfinance is given this session. What yfinance hides is seen here: status, ``retry-after``, a reply cut short,
Yahoo's own words for a symbol that it does not have.
"""

from __future__ import annotations

import datetime
import email.utils
import json
import random
from typing import Any
from urllib.parse import urlsplit

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

from forecaster.prices.yahoo.curl import RequestException, Session
from forecaster.prices.yahoo.politeness import Politeness, RateLimit

__all__ = ["Busy", "Refused", "YahooSession"]

_CHART = "/v8/finance/chart/"
_COOKIES = "fc.yahoo.com"


class Busy(Exception):  # noqa: N818
    """Yahoo gave no usable answer: too many requests, an error of its own, a cut or garbled reply.

    Parameters
    ----------
    what : str
        What came instead, in a few words.
    retry_after : float or None
        Seconds to wait, if Yahoo said so.
    final : bool
        Yahoo asks for a longer wait than is granted, so there is no further attempt.

    Attributes
    ----------
    attempts : int
        How often it was asked.
    """

    def __init__(self, what: str, retry_after: float | None = None, *, final: bool = False) -> None:
        super().__init__(what)
        self.retry_after = retry_after
        self.final = final
        self.attempts = 1


class Refused(Exception):  # noqa: N818
    """Yahoo answered that it has no such prices.

    Parameters
    ----------
    status : int
        HTTP status.
    description : str
        Yahoo's words.
    """

    def __init__(self, status: int, description: str) -> None:
        super().__init__(description)
        self.status = status


class YahooSession(Session):  # type: ignore[misc]
    """A session of curl_cffi for yfinance.

    Parameters
    ----------
    politeness : Politeness
        How to ask.
    rate_limit : RateLimit
        Gives a turn to each request.
    gateway : str or None
        Address to send every request to instead, the host that was meant as first part of the path:
        ``https://query2.finance.yahoo.com/v8`` becomes ``GATEWAY/query2.finance.yahoo.com/v8``. Redirects are
        not followed then.

    Attributes
    ----------
    chart : dict or None
        ``chart.result[0]`` of the last reply with prices.
    denied : int or None
        Status of the last reply about prices if it was 401 or 403, which yfinance answers by a new cookie.
    """

    def __init__(self, politeness: Politeness, rate_limit: RateLimit, gateway: str | None = None) -> None:
        super().__init__(impersonate="chrome", timeout=politeness.timeout)
        self._politeness = politeness
        self._rate_limit = rate_limit
        self._gateway = gateway.rstrip("/") if gateway else None
        self.chart: dict[str, Any] | None = None
        self.denied: int | None = None
        # yfinance asks for its first cookie again at every request unless it may keep it in a file.
        self._cookies_page: Any = None

    def forget(self) -> None:
        """Forget the last reply."""
        self.chart = self.denied = None

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Send a request when it is its turn; ask again for prices if the answer is no good.

        Raises
        ------
        Busy
            If Yahoo has given no usable answer about prices in all attempts.
        Refused
            If Yahoo has no such prices.
        """
        parts = urlsplit(url)
        if self._gateway is not None:
            url = f"{self._gateway}/{parts.netloc}{parts.path}" + (f"?{parts.query}" if parts.query else "")
            kwargs["allow_redirects"] = False
        kwargs["timeout"] = self._politeness.timeout
        if not parts.path.startswith(_CHART):
            # Cookies and crumbs: yfinance goes on without them, so they are worth one attempt.
            if parts.netloc == _COOKIES and self._cookies_page is not None:
                return self._cookies_page
            self._rate_limit.wait()
            response = super().request(method, url, *args, **kwargs)
            if parts.netloc == _COOKIES:
                self._cookies_page = response
            return response
        retrying = Retrying(
            retry=retry_if_exception(lambda error: isinstance(error, Busy) and not error.final),
            stop=stop_after_attempt(self._politeness.attempts),
            wait=self._pause,
            reraise=True,
        )
        try:
            return retrying(self._ask, method, url, *args, **kwargs)
        except Busy as error:
            error.attempts = int(retrying.statistics["attempt_number"])
            raise

    def _ask(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        """Ask for prices once."""
        self.forget()
        self._rate_limit.wait()
        try:
            response = super().request(method, url, *args, **kwargs)
        except RequestException as error:
            raise Busy(f"no answer ({_line(str(error))})") from error
        status = response.status_code
        if status == 429 or status >= 500:
            retry_after = _seconds(response.headers.get("retry-after"))
            if retry_after is None:
                raise Busy(f"HTTP status {status}")
            final = retry_after > self._politeness.longest_wait
            if not final:
                self._rate_limit.hold(retry_after)
            raise Busy(f"HTTP status {status}, retry after {retry_after:.0f} s", retry_after, final=final)
        if status in (401, 403):
            self.denied = status
            self._cookies_page = None
            return response
        try:
            chart = json.loads(response.content)["chart"]
            if chart["error"] is None:
                self.chart = dict(chart["result"][0])
                return response
            description = str(chart["error"]["description"])
        except (ValueError, KeyError, IndexError, TypeError) as error:
            size = len(response.content)
            raise Busy(f"HTTP status {status}, {size} bytes that are not the JSON of a chart") from error
        raise Refused(status, _line(description))

    def _pause(self, state: RetryCallState) -> float:
        """Seconds before the next attempt; none if Yahoo said how long, as the rate limit then waits."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, Busy) and error.retry_after is not None:
            return 0.0
        pause = min(
            self._politeness.backoff * 2.0 ** (state.attempt_number - 1), self._politeness.longest_backoff
        )
        return pause * (1.0 + random.random())


def _seconds(retry_after: str | None) -> float | None:
    """Read a ``retry-after`` header: seconds, or a date; None if there is none or it cannot be read."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(retry_after)
        return max(0.0, (moment - datetime.datetime.now(datetime.UTC)).total_seconds())
    except (ValueError, TypeError):
        return None


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 160 else line[:160] + "..."
