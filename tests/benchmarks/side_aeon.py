"""What aeon's MiniRocket and scikit-learn's RidgeCV take to fit the five next returns; run by .venv-peers."""

from __future__ import annotations

import argparse
import warnings

import numpy as np
from aeon.transformations.collection.convolution_based import MiniRocket
from measuring import HORIZON, LOOKBACK, report, seconds, synthetic_returns
from sklearn.linear_model import RidgeCV

warnings.filterwarnings("ignore")

WINDOWS = 10_000
KERNELS = 1008
"""Nearest to ours (84 x 12); its own default of 9,996 is ten times slower."""
PENALTIES = np.logspace(-1, 5, 7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["speed"])
    parser.parse_args()
    returns = synthetic_returns(20, 8000)
    view = np.lib.stride_tricks.sliding_window_view(returns, LOOKBACK + HORIZON, axis=1)
    generator = np.random.default_rng(0)
    which, when = (generator.integers(0, size, WINDOWS) for size in view.shape[:2])
    drawn = view[which, when]
    windows, outcomes = np.ascontiguousarray(drawn[:, None, :LOOKBACK]), drawn[:, LOOKBACK:]
    transformer = MiniRocket(n_kernels=KERNELS, n_jobs=1, random_state=0)
    transformer.fit_transform(windows[:100])  # numba compiles

    def fit() -> None:
        features = transformer.fit_transform(windows)
        features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-8)
        RidgeCV(PENALTIES).fit(features, outcomes)

    transform = WINDOWS / seconds(lambda: transformer.transform(windows))
    report(fit=WINDOWS / seconds(fit), score=transform, features=KERNELS)


if __name__ == "__main__":
    main()
