"""To and from the long frames of Nixtla's libraries: unique_id, ds, cutoff, y and a column a model."""

from __future__ import annotations

import pandas as pd

from forecaster import (
    Panel,
    SampleSource,
    Windows,
    fit_windows,
    forecast_table,
    from_nixtla,
    load_prices,
    parse_job,
    to_nixtla,
)

# From: a long frame of closes, as it would come from any of those libraries.
frames = load_prices(SampleSource(("SP500", "NASDAQ")), (), 400).frames
long = pd.concat(
    pd.DataFrame({"unique_id": symbol, "ds": frame.index, "y": frame["close"]})
    for symbol, frame in frames.items()
)
print(long.tail(2).to_string(index=False, float_format="{:.2f}".format))
panel = Panel.from_prices(from_nixtla(long))

# Two models, fitted on what was known at the end of 2015, forecast every session of 2016 to 2018.
job = parse_job(
    """
    name: nixtla
    prices: {kind: sample, symbols: [SP500, NASDAQ]}
    horizons: [1, 5]
    backtest: {start: 2016-01-01}
    models: [{kind: historical}, {kind: lin}]
    """,
    "this script",
)
train = fit_windows(panel, pd.Timestamp(job.backtest.start).to_datetime64(), job.horizons, job.warm_up)
test = Windows(
    panel, (panel.sessions >= pd.Timestamp("2016-01-01").to_datetime64()).nonzero()[0], job.horizons
)
table = pd.concat(
    forecast_table(name, test, job.build(name).fit(train).predict(test)) for name in ("historical", "lin")
)

# To: what `utilsforecast.evaluate` and its plots take.
frame = to_nixtla(table, horizon=5, intervals=(80, 95))
print(*frame.columns, sep=", ")
some = ["unique_id", "ds", "cutoff", "y", "lin", "lin-lo-80", "lin-hi-80"]
print(frame[some].tail(8).head(2).to_string(index=False, float_format="{:.4f}".format))
for model in ("historical", "lin"):
    known = frame.dropna(subset="y")
    inside = known["y"].between(known[f"{model}-lo-80"], known[f"{model}-hi-80"]).mean()
    width = (known[f"{model}-hi-80"] - known[f"{model}-lo-80"]).mean()
    print(f"{model}: the 80% interval held {inside:.1%} of the outcomes, and was {width:.1%} wide")
