"""Which evenings a job has, when each begins, and which of them are still to be done."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from forecaster.errors import JobError
from pipelines.daily import STEPS

if TYPE_CHECKING:
    from forecaster.calendars import Calendars
    from forecaster.job import Job
    from forecaster.ledger import Ledger

__all__ = ["Evenings", "evenings_of", "unfinished"]

AHEAD = datetime.timedelta(days=60)
"""How far the next evening is looked for: longer than any closure of an exchange on record since 1945."""

FINISHED = ("done", "skipped")


class Evenings:
    """The evenings of a job: one a session, some minutes after the last of its exchanges has closed.

    Parameters
    ----------
    calendars : Calendars
    symbols : tuple of str
        A symbol of each exchange.
    minutes : int
        Minutes after the close.
    """

    def __init__(self, calendars: Calendars, symbols: tuple[str, ...], minutes: int) -> None:
        self._calendars, self._symbols = calendars, symbols
        self._after = datetime.timedelta(minutes=minutes)

    @property
    def zones(self) -> tuple[str, ...]:
        """Time zones of the exchanges."""
        return tuple(dict.fromkeys(self._calendars.time_zone(symbol) for symbol in self._symbols))

    def between(
        self, first: datetime.date, last: datetime.date
    ) -> list[tuple[datetime.date, datetime.datetime]]:
        """Give the sessions of a span, and when the evening of each begins, in UTC.

        A calendar whose holidays are announced year by year has no sessions after the last one known.
        """
        begins: dict[datetime.date, datetime.datetime] = {}
        for symbol in self._symbols:
            for stamp in self._calendars.known_sessions(symbol, first, last):
                session = stamp.date()
                close = self._calendars.close(symbol, session) + self._after
                begins[session] = max(begins.get(session, close), close)
        return sorted(begins.items())

    def next_after(self, now: datetime.datetime) -> tuple[datetime.date, datetime.datetime] | None:
        """Give the next evening that has not begun; None where the calendar ends before it."""
        today = now.astimezone(datetime.UTC).date()
        # A close of the far west, and minutes after it, lie on the next day in UTC.
        coming = self.between(today - datetime.timedelta(days=2), today + AHEAD)
        return next((evening for evening in coming if evening[1] > now), None)

    def begun(self, now: datetime.datetime, count: int) -> list[datetime.date]:
        """Give the last sessions whose evening has begun, the oldest first."""
        today = now.astimezone(datetime.UTC).date()
        # Days off and holidays are less than half of all days, but for closures.
        span = datetime.timedelta(days=2 * count) + AHEAD
        past = self.between(today - span, today + datetime.timedelta(days=1))
        return [session for session, begin in past if begin <= now][-count:]


def evenings_of(job: Job) -> Evenings:
    """Make the evenings of a job, by the calendar of its schedule or those of its symbols.

    Raises
    ------
    JobError
        If no calendar is known.
    ParameterError
        If the calendar is none.
    """
    from forecaster.calendars import Calendars

    minutes = job.schedule.minutes_after_close
    if job.schedule.calendar is not None:
        name = job.schedule.calendar
        return Evenings(Calendars({name: name}), (name,), minutes)
    calendars = Calendars(job.calendars)
    symbols = job.prices.symbols if job.prices.kind == "yahoo" else tuple(job.calendars)
    exchanges: dict[str, str] = {}
    for symbol in symbols:
        exchanges.setdefault(calendars.name(symbol), symbol)
    if not exchanges:
        raise JobError(
            f"{job.name}: a schedule follows the sessions of an exchange, and the job names none; name one, "
            "for example `schedule: {calendar: XNYS}`"
        )
    return Evenings(calendars, tuple(exchanges.values()), minutes)


def unfinished(job: Job, ledger: Ledger, evenings: Evenings, now: datetime.datetime) -> list[datetime.date]:
    """Give the evenings that have begun and are not done, the oldest first.

    Parameters
    ----------
    job : Job
    ledger : Ledger
        Knows what was done.
    evenings : Evenings
    now : datetime
        With its zone.

    Returns
    -------
    list of date
        Of the last ``catch_up`` sessions, those after the first evening of the job that have a step which is
        not done; the last session alone where the job has no evening yet.
    """
    begun = evenings.begun(now, job.schedule.catch_up)
    status = ledger.status(job.name, evenings=job.schedule.catch_up + 1)
    if status.empty:
        return begun[-1:]
    last = status.drop_duplicates(["as_of", "step"], keep="last")
    ended = last[last["status"].isin(FINISHED)]
    # Whoever did single steps by hand left the others.
    steps = ended.groupby(ended["as_of"].dt.date)["step"].agg(set)
    done = {session for session, names in steps.items() if names >= set(STEPS)}
    first = status["as_of"].min().date()
    return [session for session in begun if session >= first and session not in done]
