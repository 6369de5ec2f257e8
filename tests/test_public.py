"""The public interface: what `import forecaster` offers, what it costs, and how it shows itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from planted import garch, prices

import forecaster
from forecaster import (
    FilesSource,
    Lagged,
    Ledger,
    Panel,
    QuantileForecast,
    SampleSource,
    Windows,
    fit_windows,
    fold,
    load_prices,
    parse_job,
)
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


def test_objects_show_themselves_in_a_line(tmp_path: Path) -> None:
    panel = Panel.from_prices({name: prices(garch(300, seed)) for seed, name in enumerate("ABCDE")})
    assert repr(panel) == "Panel(A, B, C and 2 others: 1,500 rows, 2000-01-04 to 2001-02-26)"
    last = Windows(panel, panel.last_rows(), (1, 5))
    assert repr(last) == (
        "Windows(5 origins of A, B, C and 2 others, 2001-02-26 to 2001-02-26; horizons 1, 5)"
    )
    forecast = EwmaForecaster().fit(fit_windows(panel, panel.calendar[-1], (1, 5), 20)).predict(last)
    assert isinstance(forecast, QuantileForecast)
    assert repr(forecast) == "QuantileForecast(5 origins; horizons 1, 5; 23 levels, with tails)"
    loaded = load_prices(SampleSource(("SP500", "NONE")), (), 400)
    assert repr(loaded) == (
        "LoadedPrices(SP500: 5,031 sessions, 1999-01-04 to 2018-12-31; 1 failed, "
        f"{len(loaded.findings)} findings)"
    )
    assert repr(load_prices(SampleSource(("NONE",)), (), 400)).startswith(
        "LoadedPrices(no symbol: 0 sessions; 1 failed, "
    )
    assert repr(SampleSource(("SP500", "WTI"))) == "SampleSource(SP500, WTI)"
    assert repr(FilesSource(["a.csv", "b.csv"])) == "FilesSource(a.csv, b.csv)"
    text = """
        name: us
        prices: {kind: sample, symbols: [SP500]}
        backtest: {start: 2014-01-01}
        models: [{kind: zero}, {kind: historical}, {kind: ewma_fhs}, {kind: lin}, {kind: ridge}]
    """
    job = parse_job(text, "a test")
    assert (
        f"{job}"
        == repr(job)
        == (
            "Job(us: sample prices; horizons 1, 5, 21; backtest from 2014-01-01; "
            "zero, historical, ewma_fhs and 2 others)"
        )
    )
    assert repr(fold(np.ones((2, 3)), Lagged(lags=(0, 5)), 8, "valid")) == (
        "Folding(1D kernels of 6 taps; output 1 x 6 x 1)"
    )
    with Ledger.open(tmp_path / "a.db") as ledger:
        assert repr(ledger) == f"Ledger({tmp_path / 'a.db'})"
    page = forecast._repr_html_()
    assert page.count("<tr>") == 1 + 5
    assert f"{100 * forecast.median[2, 1]:+.2f}%" in page
