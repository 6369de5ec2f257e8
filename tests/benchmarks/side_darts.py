"""What darts' TCNModel takes for the work that `side_ours.py` does; run by .venv-peers.

Its network comes in blocks of two convolutions: two blocks are nearest to the depth of ours. The batch is the
fastest of those tried (`--task batches`).
"""

from __future__ import annotations

import argparse
import logging
import warnings
from functools import partial
from typing import Any

import torch
from darts import TimeSeries
from darts.models import TCNModel
from measuring import HORIZON, LOOKBACK, rate, report, seconds, synthetic_returns

warnings.filterwarnings("ignore")
for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "darts"):
    logging.getLogger(name).setLevel(logging.ERROR)
torch.set_num_threads(1)
torch.set_num_interop_threads(1)

FIT_BATCH, SCORE_BATCH = 256, 1024
SHORT, LONG = 2 * 1024, 12 * 1024
"""Windows of the two fits whose difference is measured."""
SCORED_SERIES = 1
TRAINER = {
    "accelerator": "cpu", "enable_progress_bar": False, "logger": False, "enable_checkpointing": False,
    "enable_model_summary": False,
}  # fmt: skip


def tcn(batch: int, **trainer: Any) -> Any:
    """Two residual blocks of 55 filters: four convolutions, 18,812 of 19,173 weights."""
    return TCNModel(
        input_chunk_length=LOOKBACK,
        output_chunk_length=HORIZON,
        kernel_size=3,
        num_filters=55,
        num_layers=2,
        dilation_base=2,
        dropout=0.0,
        batch_size=batch,
        n_epochs=1,
        random_state=1,
        pl_trainer_kwargs=TRAINER | trainer,
    )


def measure(series: list[Any], batch: int, score_batch: int) -> dict[str, float]:
    def fit(windows: int) -> Any:
        model = tcn(batch)
        model.fit(series, max_samples_per_ts=windows // len(series), dataloader_kwargs={"num_workers": 0})
        return model

    train = rate(lambda windows: seconds(partial(fit, windows)), SHORT, LONG, 1)
    model = fit(batch)
    scored: list[Any] = []
    taken = seconds(
        lambda: scored.extend(
            model.historical_forecasts(
                series[:SCORED_SERIES],
                start=LOOKBACK,
                forecast_horizon=HORIZON,
                retrain=False,
                last_points_only=False,
                predict_kwargs={"batch_size": score_batch},
            )
        )
    )
    weights = sum(weight.numel() for weight in model.model.parameters())
    return {"train": train, "score": sum(map(len, scored)) / taken, "parameters": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=["speed", "batches"])
    task = parser.parse_args().task
    series = [TimeSeries.from_values(values) for values in synthetic_returns(20, 8000)]
    if task == "speed":
        report(**measure(series, FIT_BATCH, SCORE_BATCH))
    else:
        for batch in (32, 64, 128, 256, 1024):
            report(batch=batch, **measure(series, batch, batch))


if __name__ == "__main__":
    main()
