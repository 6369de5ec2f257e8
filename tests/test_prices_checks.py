"""Every check fires on what it is for, says so, and leaves the numbers alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from forecaster.errors import ParameterError, SymbolError
from forecaster.prices.base import content_hash, load_prices, price_table
from forecaster.prices.checks import PRICE_COLUMNS, check, inspect
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


ERRORS: dict[str, tuple[str, Change, str]] = {
    "duplicates": (
        "duplicate-session", repeat,
        "sessions must be unique; 2020-01-08 occurs more than once (3 rows too many); keep one row a session",
    ),
    "infinite volume": (
        "infinite-number", put("volume", 3, INF), "`volume` must be finite; it is infinite on 2020-01-06",
    ),
    "infinite close": (
        "infinite-number", put("close", 3, INF), "`close` must be finite; it is infinite on 2020-01-06",
    ),
    "the day oil was paid to be taken away": (
        "non-positive-price", put("close", 10, -36.98),
        "`close` must be positive, as no log return exists otherwise; it is -36.98 on 2020-01-15 (1 in all); "
        "leave the cell empty where no price is known, or leave the symbol out",
    ),
    "zero low": ("non-positive-price", put("low", slice(2, 4), 0.0), "`low` must be positive, as no"),
    "zero open": ("non-positive-price", put("open", 0, 0.0), "it is 0 on 2020-01-01 (1 in all)"),
    "negative high": ("non-positive-price", put("high", -1, -1.0), "it is -1 on 2020-03-24 (1 in all)"),
    "split of zero, as some feeds write none": (
        "invalid-split", put("split", slice(None), 0.0),
        "`split` is new shares per old and must be positive; it is 0 on 2020-01-01 (60 in all); "
        "use 1 where there is no split",
    ),
    "split unknown": ("invalid-split", put("split", 1, NAN), "it is nan on 2020-01-02 (1 in all)"),
    "dividend taken back": (
        "invalid-dividend", put("dividend", 7, -0.5),
        "`dividend` must be at least 0; it is -0.5 on 2020-01-10 (1 in all); use 0 where there is no",
    ),
    "dividend unknown": ("invalid-dividend", put("dividend", 7, NAN), "it is nan on 2020-01-10"),
    "split on a holiday": (
        "action-without-close", lambda frame: put("close", 8, NAN)(put("split", 8, 2.0)(frame)),
        "a dividend or split needs a close in its session; 2020-01-13 has none (1 in all); "
        "give the close, or move the action to the next session that has one",
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
    "unrecorded split": (
        "jump-without-action", 1, "2020-02-12", split_without_record,
        "|log return| exceeds ln(1.5) without a dividend or split in 1 sessions, the first on 2020-02-12; "
        "used as given; look for a split that is not recorded",
    ),
    "split counted twice": (
        "jump-with-action", 1, "2020-02-12", put("split", 30, 4.0),
        "|log return| exceeds ln(1.5) with the action counted in 1 sessions",
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
    errors = [finding for finding in inspect("X", change(sound()), 40)[1] if finding.severity == "error"]
    assert code in {finding.code for finding in errors}


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
    frame = put("split", 2, -1.0)(put("close", 1, 0.0)(sound()))
    with pytest.raises(SymbolError, match=r"`close` must be positive.* \(also: invalid-split, too-short\)$"):
        check("X", frame, 61)


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
    prices, findings = inspect("X", frame, minimum)
    pd.testing.assert_frame_equal(frame, before)
    pd.testing.assert_frame_equal(prices, frame[frame["close"].notna()])
    assert all("{" not in finding.reason and "\n" not in finding.reason for finding in findings)
    if all(finding.severity != "error" for finding in findings):
        assert len(prices) >= minimum
        assert prices.index.is_unique
        assert np.isfinite(log_returns(prices)[1:]).all()
        left_out = sum(finding.sessions for finding in findings if finding.code == "no-close")
        assert left_out == len(frame) - len(prices)


class Desk:
    """A source of some good symbols and some bad ones, counting nothing, hiding nothing."""

    def __init__(self) -> None:
        self.held = {"GOOD": sound()}
        self.held["BAD"] = put("close", 1, -1.0)(sound())
        self.held["WTI"] = put("close", 1, NAN)(sound())

    def symbols(self) -> tuple[str, ...]:
        return ("GOOD", "BAD", "GONE", "WTI")

    def load(self, symbol: str) -> pd.DataFrame:
        if symbol not in self.held:
            raise SymbolError(symbol, "is not here")
        return self.held[symbol]


def test_a_bad_symbol_is_left_out_by_name_and_the_rest_goes_on() -> None:
    loaded = load_prices(Desk(), (), 40)
    assert list(loaded.frames) == ["GOOD", "WTI"]
    assert len(loaded.frames["WTI"]) == 59
    assert list(loaded.failures) == ["BAD", "GONE"]
    assert loaded.failures["BAD"].startswith("`close` must be positive")
    assert loaded.failures["GONE"] == "is not here"
    assert {(finding.symbol, finding.code) for finding in loaded.findings} == {
        ("BAD", "non-positive-price"), ("BAD", "price-outside-range"), ("GONE", "not-loaded"),
        ("WTI", "no-close"),
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
