"""What neuralforecast's TCN and NHITS take for the work that `side_ours.py` does; run by .venv-peers.

Its training step takes every series and samples `WINDOWS` windows of them. Each network has the settings that
make it as deep and as large as ours, and the batch that was the fastest of those that `batches` tries.
"""

from __future__ import annotations

import argparse
import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from measuring import (
    CLOCK,
    HORIZON,
    LOOKBACK,
    TRAINED_SESSIONS,
    rate,
    real_series,
    report,
    synthetic_returns,
    validation_windows,
)
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MSE, MQLoss
from neuralforecast.models import NHITS, TCN
from pytorch_lightning import Callback

os.environ["NIXTLA_ID_AS_COL"] = "1"
warnings.filterwarnings("ignore")
for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
    logging.getLogger(name).setLevel(logging.ERROR)
torch.set_num_threads(1)
torch.set_num_interop_threads(1)

WINDOWS, PRODUCTION_WINDOWS = 1024, 4096
STEPS_AT_ONCE = 4
"""Steps between two looks at the validation loss."""
SHORT, LONG = 3, 13
SCORED_SERIES = 2
"""Series that `predict_insample` scores: its speed does not depend on how many, and it is slow."""
LEVELS = (0.01, 0.025, 0.05, *(round(0.05 * step, 2) for step in range(2, 19)), 0.95, 0.975, 0.99)
HORIZONS = 3
CHANNELS = tuple(f"channel_{number}" for number in range(2, 10))
"""Beside the series itself, the first channel."""

Make = Callable[..., Any]


def settings(steps: int, windows: int, **changes: Any) -> dict[str, Any]:
    return {
        "h": HORIZON, "input_size": LOOKBACK, "loss": MSE(), "max_steps": steps, "scaler_type": "identity",
        "windows_batch_size": windows, "inference_windows_batch_size": windows, "batch_size": 20,
        "learning_rate": 1e-3, "random_seed": 1, "accelerator": "cpu", "logger": False,
        "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False,
    } | changes  # fmt: skip


def tcn(steps: int, windows: int, **changes: Any) -> Any:
    """As deep as the five-output network, and as large: three convolutions, 18,861 of 19,173 weights."""
    shape = {"kernel_size": 3, "dilations": [1, 2, 4], "encoder_hidden_size": 55, "decoder_layers": 1}
    return TCN(**settings(steps, windows, **shape, **changes))


def five_layers(steps: int, windows: int) -> Any:
    """The layout of its own default, five dilated convolutions, in 32 filters."""
    shape = {"kernel_size": 3, "dilations": [1, 2, 4, 8, 16], "encoder_hidden_size": 32}
    return TCN(**settings(steps, windows, **shape, decoder_hidden_size=32))


def nhits(steps: int, windows: int, **changes: Any) -> Any:
    """Three stacks of the size that makes it nearest to as many weights."""
    return NHITS(**settings(steps, windows, mlp_units=[[32, 32]] * 3, **changes))


def production(steps: int, windows: int) -> Any:
    """The production network's nine channels and 3 x 23 outputs: two convolutions, 7,578 of 7,418 weights.

    It forecasts the three next values, not the outcomes over 1, 5 and 21 sessions, and has no features beside
    the window: neither changes its speed.
    """
    shape = {"kernel_size": 5, "dilations": [1, 2], "encoder_hidden_size": 32, "decoder_layers": 1}
    loss = {"h": HORIZONS, "loss": MQLoss(quantiles=list(LEVELS)), "hist_exog_list": list(CHANNELS)}
    return TCN(**settings(steps, windows, **shape, **loss))


def frame(values: np.ndarray, channels: tuple[str, ...] = ()) -> pd.DataFrame:
    series, sessions = values.shape
    names = [f"s{number:04d}" for number in range(series)]
    return pd.DataFrame(
        {
            "unique_id": np.repeat(names, sessions),
            "ds": np.tile(np.arange(sessions), series),
            "y": values.ravel(),
        }
        | {name: np.abs(values).ravel() for name in channels}
    )


def fitted(model: Any, data: pd.DataFrame) -> tuple[Any, float]:
    forecast = NeuralForecast([model], freq=1)
    start = CLOCK()
    forecast.fit(data, val_size=0)
    return forecast, CLOCK() - start


def parameters(model: Any) -> int:
    return sum(weight.numel() for weight in model.parameters() if weight.requires_grad)


def train_rate(make: Make, data: pd.DataFrame, windows: int = WINDOWS) -> float:
    return rate(lambda steps: fitted(make(steps, windows), data)[1], SHORT, LONG, windows)


def score_rate(make: Make, data: pd.DataFrame, windows: int = WINDOWS) -> tuple[float, int]:
    few = data[data["unique_id"].isin(data["unique_id"].unique()[:SCORED_SERIES])]
    forecast, _ = fitted(make(1, windows), few)
    start = CLOCK()
    scored = forecast.predict_insample(step_size=1)
    taken = CLOCK() - start
    return len(scored) / forecast.models[0].h / taken, parameters(forecast.models[0])


class Watch(Callback):
    """Stops the training once a validation loss is reached; the clock stands still while it is computed.

    Parameters
    ----------
    windows, outcomes : ndarray of shape (n, LOOKBACK) and (n, HORIZON)
        Of validation.
    target : float
        The loss to reach.
    """

    def __init__(self, windows: np.ndarray, outcomes: np.ndarray, target: float) -> None:
        self.windows, self.outcomes, self.target = torch.from_numpy(windows[:, :, None]), outcomes, target
        self.taken, self.reached, self.steps = 0.0, float("inf"), 0

    def __deepcopy__(self, _: Any) -> Watch:
        return self  # neuralforecast copies its models: what is learned here must be seen outside

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        del trainer, pl_module
        self.resumed = CLOCK()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.steps += 1
        if self.steps % STEPS_AT_ONCE:
            return
        self.taken += CLOCK() - self.resumed
        with torch.no_grad():
            nothing = {"futr_exog": None, "hist_exog": None, "stat_exog": None}
            parts = [
                pl_module({"insample_y": part, "insample_mask": torch.ones_like(part)} | nothing).numpy()
                for part in self.windows.split(WINDOWS)
            ]
        self.reached = float(np.mean((np.concatenate(parts)[..., 0] - self.outcomes) ** 2))
        trainer.should_stop = self.reached <= self.target
        self.resumed = CLOCK()


def time_to_equal_loss(make: Make, folder: Path) -> float:
    """Seconds of training until the validation loss is reached, without start-up."""
    series, target = real_series(folder)
    watch = Watch(*validation_windows(series), target)
    fitted(make(2000, WINDOWS, callbacks=[watch], min_steps=1), frame(series[:, :TRAINED_SESSIONS]))
    if watch.reached > target:
        raise RuntimeError(
            f"the validation loss is to reach {target:.4f} in 2,000 steps. Received: {watch.reached:.4f}"
        )
    return watch.taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["speed", "time_to_loss", "batches"])
    parser.add_argument("--production", action="store_true")
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    task = arguments.task
    make = production if arguments.production else tcn
    data = frame(synthetic_returns(20, 8000), CHANNELS if arguments.production else ())
    if task == "speed":
        windows = PRODUCTION_WINDOWS if arguments.production else WINDOWS
        score, weights = score_rate(make, data)
        measured = {"train": train_rate(make, data, windows), "score": score, "parameters": weights}
        if not arguments.production:
            measured |= {
                "train_five_layers": train_rate(five_layers, data),
                "parameters_five_layers": parameters(five_layers(1, WINDOWS)),
                "train_nhits": train_rate(nhits, data),
                "parameters_nhits": parameters(nhits(1, WINDOWS)),
            }
        report(**measured)
    elif task == "time_to_loss":
        report(
            seconds=time_to_equal_loss(tcn, arguments.data),
            seconds_nhits=time_to_equal_loss(nhits, arguments.data),
        )
    else:
        for windows in (128, 256, 512, 1024, 4096, 8192):
            steps = {"train": train_rate(make, data, windows), "score": score_rate(make, data, windows)[0]}
            report(windows=windows, **steps)


if __name__ == "__main__":
    main()
