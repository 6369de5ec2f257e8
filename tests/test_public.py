"""The public interface: what `import forecaster` offers, what it costs, and how it shows itself."""

from __future__ import annotations

import subprocess
import sys

import pytest
from planted import garch, prices

import forecaster
from forecaster import Panel, QuantileForecast, Windows, fit_windows
from forecaster.models.econometric import EwmaForecaster


@pytest.mark.parametrize("name", forecaster.__all__)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    public = getattr(forecaster, name)
    assert public.__name__ == name
    assert public.__doc__
    assert name in dir(forecaster)


def test_the_names_are_sorted_and_each_stands_once() -> None:
    assert forecaster.__all__ == sorted(set(forecaster.__all__))
    listed = [name for names in forecaster._PLACES.values() for name in names]
    assert sorted(listed) == forecaster.__all__


def test_what_is_not_public_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="module 'forecaster' has no attribute 'Forecaster'"):
        forecaster.Forecaster  # noqa: B018


def test_importing_it_loads_nothing_slow() -> None:
    code = "import sys, forecaster; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert not {"numpy", "pandas", "tensorflow", "keras", "mlflow", "sqlalchemy"} & set(loaded.split())


def test_objects_show_themselves_in_a_line() -> None:
    panel = Panel.from_prices({name: prices(garch(300, seed)) for seed, name in enumerate("ABCDE")})
    assert repr(panel) == "Panel(A, B, C and 2 others: 1,500 rows, 2000-01-04 to 2001-02-26)"
    last = Windows(panel, panel.last_rows(), (1, 5))
    assert repr(last) == (
        "Windows(5 origins of A, B, C and 2 others, 2001-02-26 to 2001-02-26; horizons 1, 5)"
    )
    forecast = EwmaForecaster().fit(fit_windows(panel, panel.calendar[-1], (1, 5), 20)).predict(last)
    assert isinstance(forecast, QuantileForecast)
    assert repr(forecast) == "QuantileForecast(5 origins; horizons 1, 5; 23 levels, with tails)"
    page = forecast._repr_html_()
    assert page.count("<tr>") == 1 + 5
    assert f"{100 * forecast.median[2, 1]:+.2f}%" in page
