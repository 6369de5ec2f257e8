"""What the network of a scale sees, against pandas and against the future."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted import garch, prices

from forecaster.features import CLIP, ewma_volatility
from forecaster.models.convolution.inputs import CHANNELS, feature_count, network_channels, network_features
from forecaster.models.econometric.harx import HarxForecaster
from forecaster.windows import Panel, Universe, Windows

HORIZONS = (1, 5)


def panel(change_from: int | None = None) -> Panel:
    frames = {name: prices(garch(400, seed)) for seed, name in enumerate(("A", "B", "INDEX"))}
    frames["B"] = frames["B"].iloc[60:]  # begins later
    if change_from is not None:
        for frame in frames.values():
            frame.loc[frame.index >= frames["A"].index[change_from], "close"] *= 1.3
    return Panel.from_prices(frames, market="INDEX")


WHOLE = panel()


def by_date(of: Panel, symbol: str) -> pd.Series:
    part = of.every.parts[of.every.symbols.index(symbol)]
    return pd.Series(of.every.returns[part], index=of.every.sessions[part])


def ewma(values: pd.Series) -> pd.Series:
    return values.ewm(alpha=0.06, adjust=True).mean()


def test_channels_are_those_of_pandas() -> None:
    returns = {symbol: by_date(WHOLE, symbol) for symbol in ("A", "B", "INDEX")}
    relative = pd.concat([returns[s].abs() / returns[s].abs().expanding().mean() for s in ("A", "B")], axis=1)
    cross = relative.mean(axis=1)
    market = returns["INDEX"]
    seen = network_channels(WHOLE, WHOLE.universe)
    assert seen.shape == (len(WHOLE), len(CHANNELS))
    for symbol, part in zip(WHOLE.symbols, WHOLE.parts, strict=True):
        own = returns[symbol]
        z = own / np.sqrt(ewma(own**2))
        market_z = market / np.sqrt(ewma(market**2))
        expected = pd.DataFrame(
            {
                "z": z,
                "abs_z": z.abs(),
                "log_abs_z": np.log(z.abs() + 0.1),
                "market_z": market_z,
                "market_abs_z": market_z.abs(),
                "cross_section": cross / ewma(cross),
                "log_volatility_ratio": np.log(np.sqrt(ewma(own**2)) / own.abs().expanding().mean()),
                "market_log_volatility_ratio": np.log(
                    np.sqrt(ewma(market**2)) / market.abs().expanding().mean()
                ),
                "log_cross_section": np.log(ewma(cross)),
            }
        ).loc[own.index]
        assert tuple(expected) == CHANNELS
        np.testing.assert_allclose(seen[part], expected.clip(-CLIP, CLIP), rtol=2e-5, atol=2e-5)


def test_of_a_single_symbol_the_market_is_that_symbol() -> None:
    alone = Panel.from_prices({"A": prices(garch(300, 0))})
    seen = dict(zip(CHANNELS, network_channels(alone, alone.universe).T, strict=True))
    np.testing.assert_allclose(seen["market_z"], seen["z"], rtol=1e-6)
    np.testing.assert_allclose(seen["market_abs_z"], seen["abs_z"], rtol=1e-6)
    np.testing.assert_allclose(seen["market_log_volatility_ratio"], seen["log_volatility_ratio"], atol=1e-6)


def test_before_the_market_has_closed_the_own_values_stand_in() -> None:
    late = Universe(("C",), "C")
    frames = {"A": prices(garch(300, 0)), "C": prices(garch(300, 1)).iloc[250:]}
    of = Panel.from_prices(frames, market="C")
    before = of.sessions < of.every.sessions[of.every.offsets[1]]
    seen = dict(zip(CHANNELS, network_channels(of, late).T, strict=True))
    assert before.sum() == 250
    np.testing.assert_array_equal(seen["market_z"][before], seen["z"][before])
    np.testing.assert_array_equal(seen["cross_section"][before], 1.0)
    np.testing.assert_array_equal(seen["log_cross_section"][before], 0.0)
    assert not np.array_equal(seen["market_z"][~before], seen["z"][~before])


def test_neither_channels_nor_features_see_the_future() -> None:
    changed = panel(change_from=300)
    before = WHOLE.sessions < WHOLE.calendar[299]
    first, again = (network_channels(of, of.universe) for of in (WHOLE, changed))
    assert first[before].tobytes() == again[before].tobytes()
    assert not np.array_equal(first, again)
    rows = np.flatnonzero(before & (WHOLE.positions > 30))
    linear = HarxForecaster(cross_section=True, target="daily").fit(Windows(WHOLE, rows[::2], HORIZONS))
    one, other = (network_features(linear, Windows(of, rows, HORIZONS), True)[0] for of in (WHOLE, changed))
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("anchored", [True, False])
def test_features_are_logs_of_what_the_linear_model_sees(anchored: bool) -> None:
    windows = Windows(WHOLE, np.flatnonzero(WHOLE.positions > 260), HORIZONS)
    windows = windows.take(np.flatnonzero(np.isfinite(windows.targets).all(axis=1)))
    rows = windows.rows
    linear = HarxForecaster(cross_section=True, target="daily").fit(windows)
    seen, scales = network_features(linear, windows, anchored)
    assert scales.tobytes() == linear.scales(windows).tobytes()
    assert seen.shape == (len(rows), feature_count(2, anchored)) == (len(rows), 20 + 2 * (2 + anchored))
    own = by_date(WHOLE, "A").abs().rolling(5).mean().to_numpy()
    mine = WHOLE.series[rows] == 0
    place = WHOLE.positions[rows][mine]
    # The second is the mean absolute return over 5 sessions; the levels follow 14 sizes and 4 losses.
    expected = np.log(np.maximum(own[place] / windows.volatility[mine], 0.02))
    np.testing.assert_allclose(seen[mine, 1], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen[:, 18], np.log(100.0 * windows.volatility), rtol=1e-4, atol=1e-5)
    market = pd.Series(ewma_volatility(by_date(WHOLE, "INDEX").to_numpy()), by_date(WHOLE, "INDEX").index)
    of_market = market.reindex(windows.sessions).to_numpy()
    np.testing.assert_allclose(seen[:, 19], np.log(100.0 * of_market), rtol=1e-4, atol=1e-5)
    own_garch = np.log(linear.garch.scales(windows) / windows.scales)
    np.testing.assert_allclose(seen[:, 20:22], own_garch, rtol=1e-4, atol=1e-5)
    # The market's GJR volatility is over the market's own EWMA one: the same for both symbols on a date.
    both = pd.DataFrame(seen[:, 22:24], index=windows.sessions)
    assert (both.groupby(level=0).std(ddof=0).dropna() < 1e-5).all(axis=None)
    if anchored:
        np.testing.assert_allclose(seen[:, 24:], np.log(linear.scales(windows) / windows.scales), atol=1e-5)
