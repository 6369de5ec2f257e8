"""A Keras network of one's own: it says how wide tomorrow is, and the rest is done."""

from __future__ import annotations

from forecaster import (  # before Keras: then TensorFlow starts in silence
    KerasForecaster,
    Panel,
    SampleSource,
    daily_losses,
    folds,
    forecast_table,
    load_prices,
    parse_job,
    row_scores,
    verdicts,
)

# isort: split
import keras
import numpy as np
import pandas as pd


def network(horizons: int) -> keras.Model:
    """Make a recurrent network on 32 sessions of four channels, with one output a horizon."""
    return keras.Sequential(
        [
            keras.Input((32, 4)),
            keras.layers.GRU(8),
            keras.layers.Dense(horizons, kernel_initializer="zeros"),
        ]
    )


job = parse_job(
    """
    name: network
    prices: {kind: sample, symbols: [SP500, NASDAQ]}
    horizons: [1, 5]
    backtest: {start: 2015-01-01}
    models: [{kind: historical}, {kind: lin}]
    """,
    "this script",
)
panel = Panel.from_prices(load_prices(SampleSource(("SP500", "NASDAQ")), (), 400).frames)
(fold,) = folds(panel, job.horizons, np.datetime64("2015-01-01"), None, 2000, job.warm_up)
own = KerasForecaster(network, lookback=32, epochs=3).fit(fold.train)
print(f"{own.parameters:,} parameters, quantiles included")

models = {"gru": own, **{name: job.build(name).fit(fold.train) for name in ("historical", "lin")}}
table = pd.concat(forecast_table(name, fold.test, model.predict(fold.test)) for name, model in models.items())
losses = daily_losses(table.assign(crps=row_scores(table)["crps"]).dropna(subset="crps"))
columns = ["model", "horizon", "crps_ratio", "verdict", "skill"]
print(verdicts(losses, "lin", "historical")[columns].round(2).to_string(index=False))
