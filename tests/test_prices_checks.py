"""Every check fires on what it is for, says so, and leaves the numbers alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from forecaster.errors import ParameterError, SymbolError
from forecaster.prices import checks
from forecaster.prices.base import content_hash, load_prices, price_table
from forecaster.prices.checks import PRICE_COLUMNS, SEVERITIES, check, inspect
from forecaster.returns import log_returns

NAN, INF = float("nan"), float("inf")
Change = Callable[[pd.DataFrame], pd.DataFrame]


def sound(sessions: int = 60, seed: int = 0) -> pd.DataFrame:
    """Return a random walk with nothing to find fault with."""
    random = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(0.01 * random.standard_normal(sessions)))
    opens = close * np.exp(0.003 * random.standard_normal(sessions))
    prices = {
        "open": opens,
        "high": np.maximum(opens, close) * 1.004,
        "low": np.minimum(opens, close) * 0.996,
        "close": close,
        "volume": random.integers(1000, 9000, sessions),
    }
    return price_table(pd.DataFrame(prices, index=pd.bdate_range("2020-01-01", periods=sessions)))


def put(column: str, position: int | slice, value: float) -> Change:
    """Return a change of one column at one position or some."""

    def change(frame: pd.DataFrame) -> pd.DataFrame:
        values = frame[column].to_numpy(copy=True)
        values[position] = value
        return frame.assign(**{column: values})

    return change


def repeat(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.concat([frame, frame.iloc[[5, 5, 9]]]).sort_index()


def split_without_record(frame: pd.DataFrame) -> pd.DataFrame:
    factor = np.where(np.arange(len(frame)) >= 30, 0.25, 1.0)
    return frame.assign(**{name: frame[name] * factor for name in ("open", "high", "low", "close")})


def open_at_previous_close(frame: pd.DataFrame) -> pd.DataFrame:
    opens = frame["close"].shift(1).fillna(frame["open"])
    return frame.assign(open=opens, high=frame["high"] * 1.1, low=frame["low"] * 0.9)


def at(frame: pd.DataFrame, *positions: int) -> list[str]:
    return [str(day.date()) for day in frame.index[list(positions)]]


def slipped(frame: pd.DataFrame, since: int = 58) -> pd.DataFrame:
    """Prices in pence from one session on."""
    factor = np.where(np.arange(len(frame)) >= since, 100.0, 1.0)
    return frame.assign(**{name: frame[name] * factor for name in ("open", "high", "low", "close")})


ERRORS: dict[str, tuple[str, Change, str]] = {
    "duplicates": (
        "duplicate-session", repeat,
        "sessions must be unique; 2020-01-08 occurs more than once (3 rows too many); keep one row a session",
    ),
    "split of zero, as some feeds write none": (
        "too-many-quarantined", put("split", slice(None), 0.0),
        "at most 3 of 60 rows may be quarantined; 60 are (invalid-split 60); correct them at the source "
        "(also: too-short)",
    ),
    "other units": (
        "too-many-quarantined", lambda frame: slipped(frame, 56),
        "at most 3 of 60 rows may be quarantined; 4 are (unit-slip 4)",
    ),
    "constant": (
        "constant-series", lambda frame: frame.assign(open=5.0, high=5.0, low=5.0, close=5.0),
        "the price must change; it is 5 in all 60 sessions; leave the symbol out: there is nothing to",
    ),
    "constant but for a split": (
        "constant-series",
        lambda frame: put("split", 9, 2.0)(put("close", slice(0, 9), 6.0)(frame.assign(close=3.0))),
        "the price must change",
    ),
    "no close at all": (
        "too-short", put("close", slice(None), NAN), "needs at least 40 sessions with a close; it has 0",
    ),
    "too few closes": (
        "too-short", put("close", slice(0, 25), NAN),
        "a symbol needs at least 40 sessions with a close; it has 35; give a longer history, or ask for less",
    ),
}  # fmt: skip

QUARANTINED: dict[str, tuple[str, tuple[int, ...], Change, str]] = {
    "infinite volume": (
        "infinite-number", (3,), put("volume", 3, INF), "`volume` must be finite; it is infinite on 2020-01",
    ),
    "infinite close": (
        "infinite-number", (3,), put("close", 3, INF), "`close` must be finite; it is infinite on 2020-01-06",
    ),
    "the day oil was paid to be taken away": (
        "non-positive-price", (10,), put("close", 10, -36.98),
        "`close` must be positive, as no log return exists otherwise; it is -36.98 on 2020-01-15 (1 in all); "
        "the session is quarantined",
    ),
    "zero low": (
        "non-positive-price", (2, 3), put("low", slice(2, 4), 0.0), "`low` must be positive, as no",
    ),
    "negative open": ("non-positive-price", (0,), put("open", 0, -0.1), "it is -0.1 on 2020-01-01 (1"),
    "negative high": ("non-positive-price", (59,), put("high", -1, -1.0), "it is -1 on 2020-03-24 (1"),
    "split unknown": ("invalid-split", (1,), put("split", 1, NAN), "it is nan on 2020-01-02 (1 in all)"),
    "dividend taken back": (
        "invalid-dividend", (7,), put("dividend", 7, -0.5),
        "`dividend` must be at least 0; it is -0.5 on 2020-01-10 (1 in all)",
    ),
    "dividend unknown": ("invalid-dividend", (7,), put("dividend", 7, NAN), "it is nan on 2020-01-10"),
    "split that the prices do not show": (
        "split-mismatch", (30,), put("split", 30, 4.0),
        "the close must move as the split of its session says; on 2020-02-12 it does not (1 in all)",
    ),
    "split of the wrong ratio": (
        "split-mismatch", (30,), lambda frame: put("split", 30, 40.0)(split_without_record(frame)),
        "on 2020-02-12 it does not",
    ),
    "pence for pounds": (
        "unit-slip", (58, 59), slipped,
        "the close is about 100 times, or a hundredth of, the last one on 2020-03-23 (2 in all)",
    ),
    "one close in pounds": (
        "unit-slip", (20,), lambda frame: put("close", 20, 1.0)(frame), "on 2020-01-29 (1 in all)",
    ),
    "a dividend a hundred times too large": (
        "dividend-out-of-scale", (40,), put("dividend", 40, 25.0),
        "the close falls by about the dividend on its ex-date; on 2020-02-26 it does not (1 in all)",
    ),
    "a small dividend a hundred times too large": (
        "dividend-out-of-scale", (40,),
        lambda frame: put("dividend", 40, 5.0)(put("dividend", slice(5, 36, 10), 0.05)(frame)),
        "on 2020-02-26 it does not (1 in all)",
    ),
}  # fmt: skip

WARNINGS: dict[str, tuple[str, int, str, Change, str]] = {
    "crossed": (
        "high-below-low", 1, "2020-01-06", lambda frame: put("high", 3, 90.0)(put("low", 3, 120.0)(frame)),
        "the high is below the low in 1 sessions, the first on 2020-01-06",
    ),
    "close above high": (
        "price-outside-range", 2, "2020-01-07", lambda frame: put("high", slice(4, 6), 50.0)(
            put("low", slice(4, 6), 40.0)(frame)),
        "the open or the close lies outside [low, high] in 2 sessions",
    ),
    "open below low": (
        "price-outside-range", 1, "2020-01-01", put("open", 0, 80.0), "outside [low, high] in 1 sessions",
    ),
    "negative volume": ("negative-volume", 1, "2020-01-02", put("volume", 1, -5.0), "the volume is negative"),
    "stale": (
        "stale-close", 10, "2020-01-15", lambda frame: frame.assign(
            close=put("close", slice(10, 20), 100.0)(frame)["close"], high=200.0, low=50.0),
        "10 sessions lie in runs of 10 or more identical closes, the longest of 10",
    ),
    "crash": (
        "jump-without-action", 1, "2020-02-12",
        lambda frame: frame.assign(**{
            name: frame[name] * np.where(np.arange(60) >= 30, 0.44, 1.0)
            for name in ("open", "high", "low", "close")
        }),
        "|log return| exceeds ln(1.5) without a dividend or split in 1 sessions, the first on 2020-02-12; "
        "used as given; look for a split that is not recorded",
    ),
    "jump on the day of a dividend": (
        "jump-with-action", 1, "2020-02-12",
        lambda frame: put("dividend", 30, 0.1)(split_without_record(frame)),
        "|log return| exceeds ln(1.5) with the action counted in 1 sessions",
    ),
    "no open known": (
        "zero-open", 2, "2020-01-06", put("open", slice(3, 5), 0.0), "the open is zero in 2 sessions",
    ),
    "nothing traded": (
        "zero-volume", 3, "2020-01-06", put("volume", slice(3, 6), 0.0), "nothing was traded in 3 sessions",
    ),
    "open copied": (
        "open-is-previous-close", 59, "2020-01-02", open_at_previous_close,
        "the open is the previous close in 59 of 60 sessions, first on 2020-01-02, and in 100% of the worst",
    ),
}  # fmt: skip


def test_sound_prices_pass_without_a_word() -> None:
    prices, findings = check("X", sound(), 60)
    assert findings == ()
    pd.testing.assert_frame_equal(prices, sound())


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_leaves_the_symbol_out(name: str) -> None:
    code, change, text = ERRORS[name]
    with pytest.raises(SymbolError) as caught:
        check("X", change(sound()), 40)
    message = str(caught.value)
    assert message.startswith("X: ")
    assert text in message
    assert "\n" not in message
    assert code in {finding.code for finding in inspect("X", change(sound()), 40).errors}


@pytest.mark.parametrize("name", QUARANTINED)
def test_rows_are_quarantined_as_they_are_and_the_symbol_goes_on(name: str) -> None:
    code, rows, change, text = QUARANTINED[name]
    given_prices = change(sound())
    inspection = inspect("X", given_prices, 40)
    assert inspection.errors == []
    held = given_prices.iloc[list(rows)]
    pd.testing.assert_frame_equal(inspection.quarantined.drop(columns="codes"), held)
    assert set(inspection.quarantined["codes"]) == {code}
    pd.testing.assert_frame_equal(inspection.prices, given_prices.drop(held.index))
    finding = next(finding for finding in inspection.findings if finding.code == code)
    assert (finding.severity, finding.sessions, finding.action) == (
        "quarantine", len(rows), "the session is quarantined",
    )  # fmt: skip
    assert [str(day) for day in finding.rows] == at(given_prices, *rows)
    assert text in finding.reason
    assert np.isfinite(log_returns(inspection.prices)[1:]).all()
    gaps = [finding for finding in inspection.findings if finding.code == "return-over-gap"]
    within = rows[0] > 0 and rows[-1] < 59
    assert [str(finding.first_session) for finding in gaps] == (
        at(given_prices, rows[-1] + 1) if within else []
    )


def test_an_unrecorded_split_is_said_twice_a_jump_and_a_ratio() -> None:
    codes = [finding.code for finding in inspect("X", split_without_record(sound()), 40).findings]
    assert codes == ["jump-without-action", "split-missing"]


def test_the_return_over_a_gap_is_that_between_the_closes_beside_it() -> None:
    frame = sound()
    prices = inspect("X", put("close", 10, -36.98)(frame), 40).prices
    close = frame["close"].to_numpy()
    assert log_returns(prices)[10] == pytest.approx(np.log(close[11] / close[9]), rel=1e-12)


def test_a_level_in_other_units_is_held_back_until_somebody_decides() -> None:
    frame = slipped(sound())
    inspection = inspect("X", frame, 40)
    assert at(inspection.quarantined, 0, 1) == at(frame, 58, 59)
    # Accepted by hand, the first of them makes the second ordinary; rejected, it stays out.
    accepted = inspect("X", frame, 40, settled=pd.Series({frame.index[58]: ""}))
    assert len(accepted.quarantined) == 0
    assert [finding.code for finding in accepted.findings] == ["jump-without-action"]
    rejected = inspect("X", frame.iloc[:59], 40, settled=pd.Series({frame.index[58]: "unit-slip,seen"}))
    assert [(finding.code, finding.sessions) for finding in rejected.findings] == [
        ("unit-slip", 1), ("rejected", 1),
    ]  # fmt: skip
    assert rejected.findings[1].message == "1 sessions were rejected, the first on 2020-03-23: seen"


def test_what_is_impossible_cannot_be_accepted() -> None:
    frame = put("close", 5, -1.0)(sound())
    inspection = inspect("X", frame, 40, settled=pd.Series("", index=frame.index))
    assert at(inspection.quarantined, 0) == at(frame, 5)


def test_sessions_are_compared_with_the_calendar() -> None:
    frame = put("volume", 20, 0.0)(sound())
    missing, extra = (
        pd.DatetimeIndex(days) for days in (["2020-01-04", "2020-01-05"], frame.index[[20, 30]])
    )
    inspection = inspect("X", frame, 40, (missing, extra))
    assert at(inspection.quarantined, 0) == at(frame, 20)
    found = {finding.code: finding for finding in inspection.findings}
    assert found["extra-session"].severity == "quarantine"
    assert found["missing-session"].message == (
        "2 sessions of the exchange have no row, the first on 2020-01-04"
    )
    assert [str(day) for day in found["missing-session"].rows] == ["2020-01-04", "2020-01-05"]
    assert [str(day) for day in found["traded-extra-session"].rows] == at(frame, 30)
    assert frame.index[30] in inspection.prices.index


def test_the_table_of_checks_is_true() -> None:
    rows = [line.split() for line in (checks.__doc__ or "").splitlines()]
    listed = {row[0]: row[1] for row in rows if len(row) > 2 and row[1] in SEVERITIES.values()}
    assert listed == dict(SEVERITIES)
    assert list(listed) == list(SEVERITIES)
    tested = {code for code, *_ in (*ERRORS.values(), *QUARANTINED.values(), *WARNINGS.values())}
    elsewhere = {
        "rejected", "missing-session", "extra-session", "traded-extra-session", "action-without-close",
        "split-missing", "return-over-gap", "no-close",
    }  # fmt: skip
    assert tested | elsewhere == set(SEVERITIES)


@pytest.mark.parametrize("name", WARNINGS)
def test_a_warning_names_the_sessions_and_changes_nothing(name: str) -> None:
    code, count, first, change, text = WARNINGS[name]
    given_prices = change(sound())
    prices, findings = check("X", given_prices, 40)
    pd.testing.assert_frame_equal(prices, given_prices)
    (finding,) = findings
    assert (finding.code, finding.severity, finding.sessions) == (code, "warning", count)
    assert str(finding.first_session) == first
    assert text in finding.reason


def test_a_recorded_split_is_no_jump() -> None:
    frame = put("split", 30, 4.0)(split_without_record(sound()))
    assert check("X", frame, 40)[1] == ()


def test_holidays_are_left_out_and_counted() -> None:
    frame = put("close", slice(3, 6), NAN)(sound())
    prices, (finding,) = check("WTI", frame, 40)
    pd.testing.assert_frame_equal(prices, frame.drop(frame.index[3:6]))
    assert (finding.code, finding.severity, finding.sessions) == ("no-close", "info", 3)
    assert finding.reason == "3 of 60 sessions have no close, the first on 2020-01-06; they are left out"


def test_nine_identical_closes_are_not_stale() -> None:
    frame = put("close", slice(10, 19), 100.0)(sound()).assign(high=200.0, low=50.0)
    assert check("X", frame, 40)[1] == ()


def test_opens_are_judged_over_a_stretch_not_the_whole() -> None:
    frame = sound(1000)
    copied = open_at_previous_close(frame)
    mixed = pd.concat([copied.iloc[:250], frame.iloc[250:]])
    (finding,) = check("X", mixed, 40)[1]
    assert (finding.code, finding.sessions) == ("open-is-previous-close", 249)
    scattered = frame.assign(open=frame["open"].where(np.arange(1000) % 4 != 0, copied["open"]))
    assert {finding.code for finding in check("X", scattered, 40)[1]} <= {"price-outside-range"}


def test_all_errors_are_found_and_the_first_is_told_in_full() -> None:
    frame = put("split", slice(2, 5), -1.0)(put("close", 1, 0.0)(sound()))
    with pytest.raises(SymbolError) as caught:
        check("X", frame, 61)
    assert str(caught.value) == (
        "X: at most 3 of 60 rows may be quarantined; 4 are (invalid-split 3, non-positive-price 1); "
        "correct them at the source (also: too-short)"
    )


@st.composite
def traded(draw: st.DrawFn) -> pd.DataFrame:
    """Prices with actions that they show, and with rows spoilt in all ways."""
    size = draw(st.integers(2, 40))
    steps = draw(st.lists(st.sampled_from([0.98, 1.0, 1.01, 1.03]), min_size=size, max_size=size))
    splits = draw(st.lists(st.sampled_from([1.0] * 8 + [2.0, 0.1]), min_size=size, max_size=size))
    yields = draw(st.lists(st.sampled_from([0.0] * 4 + [0.01, 0.001]), min_size=size, max_size=size))
    close = 50 * np.cumprod(np.array(steps) / np.array(splits))
    frame = pd.DataFrame({"close": close, "dividend": close * yields, "split": splits, "volume": 5.0})
    frame.index = pd.bdate_range("2020-01-01", periods=size)
    spoilt = st.sampled_from([
        ("close", NAN), ("close", -1.0), ("close", INF), ("close", 100.0), ("split", 7.0), ("split", NAN),
        ("dividend", 40.0), ("dividend", -1.0), ("volume", INF),
    ])  # fmt: skip
    for position in draw(st.sets(st.integers(0, size - 1), max_size=6)):
        column, value = draw(spoilt)
        values = frame[column].to_numpy(copy=True)
        values[position] = 100 * values[position] if value == 100.0 else value
        frame[column] = values
    return price_table(frame)


@settings(max_examples=50)
@given(traded(), st.data())
def test_no_row_is_judged_by_what_comes_after_it(frame: pd.DataFrame, data: st.DataObject) -> None:
    session = data.draw(st.integers(0, len(frame)))
    whole, known = inspect("X", frame, 1), inspect("X", frame.iloc[:session], 1)
    last = frame.index[session - 1] if session else frame.index[0] - pd.Timedelta(days=1)
    pd.testing.assert_frame_equal(whole.prices.loc[:last], known.prices, check_exact=True, check_freq=False)
    pd.testing.assert_frame_equal(whole.quarantined.loc[:last], known.quarantined, check_freq=False)


@settings(max_examples=50)
@given(traded())
def test_what_was_settled_once_is_judged_the_same_again(frame: pd.DataFrame) -> None:
    first = inspect("X", frame, 1)
    settled = pd.Series("", index=frame.index).where(
        ~frame.index.isin(first.quarantined.index), first.quarantined["codes"].reindex(frame.index)
    )
    again = inspect("X", frame, 1, settled=settled)
    pd.testing.assert_frame_equal(again.prices, first.prices, check_exact=True)
    pd.testing.assert_frame_equal(again.quarantined, first.quarantined)


@settings(max_examples=50)
@given(traded(), st.data())
def test_a_holder_loses_nothing_over_a_gap(frame: pd.DataFrame, data: st.DataObject) -> None:
    """Hold back sound rows by hand: the holder keeps the cash they pay, and buys shares at the next close."""
    frame = inspect("X", frame, 1).prices
    if len(frame) < 2:
        return
    held = data.draw(st.lists(st.booleans(), min_size=len(frame), max_size=len(frame)))
    held[0] = False
    codes = pd.Series(["by hand" if each else "" for each in held], index=frame.index)
    prices = inspect("X", frame, 1, settled=codes).prices
    shares, cash = 1.0, 0.0
    wealth: list[float] = []
    columns = (frame[name].to_numpy() for name in ("close", "dividend", "split"))
    for close, dividend, split, is_held in zip(*columns, held, strict=True):
        if wealth:
            shares *= split
            cash += shares * dividend
        if not is_held:
            shares, cash = shares + cash / close, 0.0
            wealth.append(shares * close)
    np.testing.assert_allclose(log_returns(prices)[1:], np.diff(np.log(wealth)), rtol=1e-9, atol=1e-9)


def test_an_action_without_a_close_counts_in_the_next_session() -> None:
    sessions = split_without_record(sound())
    frame = put("dividend", 30, 0.3)(put("split", 30, 4.0)(put("close", 30, NAN)(sessions)))
    prices, findings = check("X", frame, 40)
    assert (prices["split"].iloc[30], prices["dividend"].iloc[30]) == (4.0, 0.3)
    pd.testing.assert_frame_equal(
        prices.drop(columns=["dividend", "split"]),
        frame.drop(frame.index[30]).drop(columns=["dividend", "split"]),
    )
    assert [(finding.code, finding.reason) for finding in findings if finding.code != "no-close"] == [(
        "action-without-close",
        "a dividend or split needs a usable close in its session; 2020-02-12 has none (1 in all); "
        "the next session counts it",
    )]  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "minimum", "text"),
    [
        (sound(), 0, "`minimum_sessions` must be at least 1. Received: 0"),
        (sound().drop(columns="split"), 1, "Missing: split"),
        (sound().reset_index(drop=True), 1, "dates without a time zone. Received: int64"),
        (sound().tz_localize("UTC"), 1, "dates without a time zone"),
        (sound().iloc[::-1], 1, "sorted dates without a time of day"),
        (sound().shift(freq="1h"), 1, "sorted dates without a time of day"),
    ],
)
def test_what_is_no_price_table_is_refused(frame: pd.DataFrame, minimum: int, text: str) -> None:
    with pytest.raises(ParameterError, match=text):
        check("X", frame, minimum)


CELLS = st.sampled_from([NAN, 1.0, 1.0, 2.0, 0.0, -1.0, INF, 1e308, 5e-324]) | st.floats(0.5, 2.0)


@given(
    hnp.arrays(np.float64, st.tuples(st.integers(0, 15), st.just(len(PRICE_COLUMNS))), elements=CELLS),
    st.integers(1, 3),
    st.data(),
)
def test_whatever_passes_has_returns(values: NDArray[np.float64], minimum: int, data: st.DataObject) -> None:
    days = data.draw(st.lists(st.integers(0, 40), min_size=len(values), max_size=len(values)))
    index = pd.DatetimeIndex(np.sort(np.array(days, "datetime64[D]"))).as_unit("s").rename("session")
    frame = pd.DataFrame(values, columns=list(PRICE_COLUMNS), index=index)
    before = frame.copy()
    inspection = inspect("X", frame, minimum)
    prices, findings = inspection.prices, inspection.findings
    pd.testing.assert_frame_equal(frame, before)
    plain = [name for name in PRICE_COLUMNS if name not in ("dividend", "split")]
    usable = frame["close"].notna() & ~frame.index.isin(inspection.quarantined.index)
    if frame.index.is_unique:
        pd.testing.assert_frame_equal(prices[plain], frame.loc[usable, plain])
        pd.testing.assert_frame_equal(
            inspection.quarantined[plain], frame.loc[inspection.quarantined.index, plain]
        )
    assert all("{" not in finding.reason and "\n" not in finding.reason for finding in findings)
    if all(finding.severity != "error" for finding in findings):
        assert len(prices) >= minimum
        assert prices.index.is_unique
        assert np.isfinite(log_returns(prices)[1:]).all()
        left_out = sum(finding.sessions for finding in findings if finding.code == "no-close")
        assert left_out == len(frame) - len(prices) - len(inspection.quarantined)


class Desk:
    """A source of some good symbols and some bad ones, counting nothing, hiding nothing."""

    def __init__(self) -> None:
        self.held = {"GOOD": sound()}
        self.held["BAD"] = put("close", slice(1, 5), -1.0)(sound())
        self.held["ODD"] = put("close", 1, -1.0)(sound())
        self.held["WTI"] = put("close", 1, NAN)(sound())

    def symbols(self) -> tuple[str, ...]:
        return ("GOOD", "BAD", "GONE", "WTI", "ODD")

    def load(self, symbol: str) -> pd.DataFrame:
        if symbol not in self.held:
            raise SymbolError(symbol, "is not here")
        return self.held[symbol]


def test_a_bad_symbol_is_left_out_by_name_and_the_rest_goes_on() -> None:
    loaded = load_prices(Desk(), (), 40)
    assert list(loaded.frames) == ["GOOD", "WTI", "ODD"]
    assert len(loaded.frames["WTI"]) == len(loaded.frames["ODD"]) == 59
    assert {name: len(rows) for name, rows in loaded.quarantined.items()} == {"ODD": 1}
    assert list(loaded.failures) == ["BAD", "GONE"]
    assert loaded.failures["BAD"].startswith("at most 3 of 60 rows may be quarantined; 4 are")
    assert loaded.failures["GONE"] == "is not here"
    assert {(finding.symbol, finding.code) for finding in loaded.findings} == {
        ("BAD", "too-many-quarantined"), ("BAD", "non-positive-price"), ("BAD", "return-over-gap"),
        ("GONE", "not-loaded"), ("WTI", "no-close"),
        ("ODD", "non-positive-price"), ("ODD", "return-over-gap"),
    }  # fmt: skip
    assert load_prices(Desk(), ("GONE",), 40).frames == {}


def test_symbols_are_named_once_and_in_a_sequence() -> None:
    with pytest.raises(ParameterError, match="Named more often: WTI"):
        load_prices(Desk(), ("WTI", "GOOD", "WTI"), 40)
    with pytest.raises(ParameterError, match="not one text"):
        load_prices(Desk(), "WTI", 40)


def test_the_hash_knows_the_content_and_nothing_else() -> None:
    one, two = sound(seed=1), put("open", 3, NAN)(sound(seed=2))
    version = content_hash({"A": one, "B": two})
    assert len(version) == 64
    other_order = two.iloc[::-1][list(reversed(PRICE_COLUMNS))]
    other_bits = one.set_axis(one.index.astype("datetime64[ns]")).assign(dividend=-0.0)
    assert content_hash({"B": other_order, "A": other_bits}) == version
    assert content_hash({"A": one, "B": put("open", 3, -NAN)(two)}) == version
    others = [
        {"A": one}, {"A": two, "B": one}, {"A": one, "C": two}, {"A": one, "B": two.iloc[1:]},
        {"A": one, "B": two.shift(freq="1D")}, {"A": one, "B": put("open", 3, 1.0)(two)},
        {"A": one, "B": put("volume", 0, np.nextafter(two["volume"].iloc[0], 0))(two)},
        {"A": one, "B": two.rename(columns={"high": "low", "low": "high"})},
        {"A": pd.concat([one, two.set_axis(two.index + pd.Timedelta(days=400))])}, {},
    ]  # fmt: skip
    versions = {content_hash(other) for other in others}
    assert len(versions) == len(others)
    assert version not in versions
