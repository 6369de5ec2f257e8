"""A Keras network of one's own behind the seam that every model stands behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import garch, prices

from forecaster.errors import NotFittedError, ParameterError
from forecaster.models.convolution.own import KerasForecaster
from forecaster.models.naive import HistoricalForecaster
from forecaster.scores import row_scores
from forecaster.walkforward import fit_windows, forecast_table, origin_windows
from forecaster.windows import Panel, Windows

# isort: split
import keras

HORIZONS = (1, 5)
LOOKBACK = 16


def network(horizons: int) -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((LOOKBACK, 4)),
            layers.Conv1D(8, 5, padding="causal", activation="gelu"),
            layers.GlobalAveragePooling1D(),
            layers.Dense(horizons),
        ]
    )


def panel(change_after: np.datetime64 | None = None) -> Panel:
    frames = {symbol: prices(garch(1500, seed)) for seed, symbol in enumerate(("AAA", "BBB", "CCC"))}
    if change_after is not None:
        for frame in frames.values():
            later = frame.index.to_numpy().astype("datetime64[D]") > change_after
            frame.loc[later, "close"] *= np.exp(np.random.default_rng(9).standard_normal(int(later.sum())))
    return Panel.from_prices(frames)


WHOLE = panel()
REFIT, LAST = WHOLE.calendar[1000], WHOLE.calendar[1400]


def train(of: Panel) -> Windows:
    return fit_windows(of, REFIT, HORIZONS, 22)


def unseen(of: Panel) -> Windows:
    return origin_windows(of, REFIT, LAST, HORIZONS, 22)


@pytest.fixture(scope="module")
def fitted() -> KerasForecaster:
    return KerasForecaster(network, LOOKBACK, epochs=8).fit(train(WHOLE))


def test_it_finds_changing_volatility(fitted: KerasForecaster) -> None:
    losses = {}
    for name, model in {"own": fitted, "past": HistoricalForecaster().fit(train(WHOLE))}.items():
        table = forecast_table(name, unseen(WHOLE), model.predict(unseen(WHOLE)))
        losses[name] = row_scores(table)["crps"].mean()
        if name == "own":
            inside = table["y"].between(table["q0.1"], table["q0.9"])
            assert inside.mean() == pytest.approx(0.8, abs=0.04)
    assert losses["own"] < 0.985 * losses["past"]


def test_it_does_not_see_the_future_and_repeats_to_the_bit(fitted: KerasForecaster) -> None:
    changed = panel(change_after=LAST)
    again = KerasForecaster(network, LOOKBACK, epochs=8).fit(train(changed))
    assert np.array_equal(again.predict(unseen(changed)).values, fitted.predict(unseen(WHOLE)).values)


def test_the_bits_of_a_forecast_do_not_depend_on_which_others_are_made(fitted: KerasForecaster) -> None:
    whole = fitted.predict(unseen(WHOLE)).values
    for some in ([0], [len(whole) - 1], [3, 700], range(300)):
        few = unseen(WHOLE).take(np.array(some))
        assert np.array_equal(fitted.predict(few).values, whole[list(some)])
    assert len(fitted.predict(unseen(WHOLE).take(np.array([], dtype=np.int64)))) == 0


def test_next_to_nothing_to_learn_from_still_gives_a_forecast() -> None:
    few = train(WHOLE).take(np.arange(105))
    forecast = KerasForecaster(network, LOOKBACK, epochs=1).fit(few).predict(few)
    assert (np.diff(forecast.values, axis=2) >= 0).all()


def test_it_comes_back_from_its_folder(fitted: KerasForecaster, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    again = KerasForecaster(network, LOOKBACK).load(tmp_path)
    assert np.array_equal(again.predict(unseen(WHOLE)).values, fitted.predict(unseen(WHOLE)).values)
    assert again.parameters == fitted.parameters > 46


def test_a_network_that_does_not_fit_is_refused() -> None:
    wrong = KerasForecaster(lambda horizons: network(horizons + 1), LOOKBACK)
    with pytest.raises(ParameterError, match=r"\(n, 2\) for \(n, 16, 4\)\. Received: \(3,\) each"):
        wrong.fit(train(WHOLE))
    with pytest.raises(ParameterError, match=r"a network is a Keras model\. Received: int"):
        KerasForecaster(lambda horizons: horizons, LOOKBACK).fit(train(WHOLE))  # type: ignore[arg-type, return-value]
    with pytest.raises(NotFittedError, match="call fit first"):
        KerasForecaster(network).predict(unseen(WHOLE))
    with pytest.raises(NotFittedError, match="call fit first"):
        KerasForecaster(network).save(Path())
