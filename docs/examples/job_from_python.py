"""A job from Python: what three models say of two indices, and how good they are, without a file."""

from __future__ import annotations

from functools import partial

import pandas as pd

from forecaster import (
    Panel,
    SampleSource,
    Windows,
    backtest,
    daily_losses,
    fit_windows,
    folds,
    forecast_table,
    load_prices,
    parse_job,
    row_scores,
    verdicts,
)

job = parse_job(
    """
    name: indices
    prices: {kind: sample, symbols: [SP500, NASDAQ]}
    horizons: [1, 5]
    backtest: {start: 2012-01-01, refit_every: 504}
    models: [{kind: historical}, {kind: ewma_fhs}, {kind: lin}]
    """,
    "this script",
)
prices = load_prices(SampleSource(("SP500", "NASDAQ")), (), 400)
panel = Panel.from_prices(prices.frames)
print(panel)

# Walking forward: fitted on what was known, tested on what came after, fitted anew every two years.
over = folds(panel, job.horizons, pd.Timestamp(job.backtest.start).to_datetime64(), None, 504, job.warm_up)
makers = {model.name: partial(job.build, model.name) for model in job.models}
table = pd.concat(forecast_table(one.model, one.fold.test, one.forecast) for one in backtest(makers, over))
losses = daily_losses(table.assign(crps=row_scores(table)["crps"]).dropna(subset="crps"))
columns = ["model", "horizon", "crps_ratio", "p_value", "verdict", "skill"]
print(verdicts(losses, "lin", "historical")[columns].round(3).to_string(index=False))

# Tonight, by the best of them.
evening = panel.calendar[-1]
model = job.build("lin").fit(fit_windows(panel, evening, job.horizons, job.warm_up))
forecast = model.predict(Windows(panel, panel.last_rows(), job.horizons))
low, high = forecast.interval(0.8)
for place, symbol in enumerate(panel.symbols):
    print(
        f"{symbol}: over five sessions from {100 * low[place, 1]:.1f} to {100 * high[place, 1]:+.1f}%, at 80%"
    )
