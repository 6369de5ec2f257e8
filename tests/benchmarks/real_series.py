"""Write the real series on which the time to an equal validation loss is measured.

Each is the log of the absolute daily return of a US stock (bundled with `skfolio`), standardised by the mean
and the deviation of its training sessions: unlike returns, it can be forecast, because volatility clusters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measuring import HORIZON, LOOKBACK, SESSIONS, TRAINED_SESSIONS, validation_windows
from sklearn.linear_model import Ridge

from forecaster.prices.samples import SAMPLE_SYMBOLS, SampleSource
from forecaster.returns import log_returns

STOCKS = 20
SMALLEST = 1e-3
"""Added to the size of a return, in units of its mean: a session without a change has a logarithm too."""
REACHED = 0.7
"""Of what a ridge regression on the window gains over the mean: the loss that every side is to reach. A
network that pools by the mean does not know which lag is which, and gains about four fifths in the end."""


def main() -> None:
    """Write ``real.npz`` with the series and the loss to reach."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    symbols = SAMPLE_SYMBOLS[3 : 3 + STOCKS]
    source = SampleSource(symbols)
    returns = np.stack([log_returns(source.load(symbol))[-SESSIONS:] for symbol in symbols])
    sizes = np.abs(returns) / np.abs(returns[:, :TRAINED_SESSIONS]).mean(axis=1, keepdims=True)
    values = np.log(sizes + SMALLEST**0.5)
    trained = values[:, :TRAINED_SESSIONS]
    values -= trained.mean(axis=1, keepdims=True)
    values /= trained.std(axis=1, keepdims=True)
    series = values.astype(np.float32)
    view = np.lib.stride_tricks.sliding_window_view(series[:, :TRAINED_SESSIONS], LOOKBACK + HORIZON, axis=1)
    windows = view.reshape(-1, LOOKBACK + HORIZON)
    ridge = Ridge(alpha=100.0).fit(windows[:, :LOOKBACK], windows[:, LOOKBACK:])
    seen, outcomes = validation_windows(series)
    error = float(np.mean((ridge.predict(seen) - outcomes) ** 2))
    unconditional = float(np.mean((windows[:, LOOKBACK:].mean(axis=0) - outcomes) ** 2))
    target = unconditional - REACHED * (unconditional - error)
    np.savez(folder / "real.npz", series=series, target=target)
    print(f"mean {unconditional:.4f}, ridge {error:.4f}, to reach {target:.4f}")


if __name__ == "__main__":
    main()
