"""Tonight's forecasts as scenarios for skfolio: margins from the forecast, dependence from the past."""

from __future__ import annotations

from skfolio import RiskMeasure
from skfolio.optimization import MeanRisk, ObjectiveFunction

from forecaster import Panel, SampleSource, Windows, fit_windows, load_prices, parse_job, to_skfolio

SYMBOLS = ("AAPL", "JNJ", "JPM", "KO", "XOM")
job = parse_job(
    f"""
    name: stocks
    prices: {{kind: sample, symbols: [{", ".join(SYMBOLS)}]}}
    horizons: [1, 21]
    backtest: {{start: 2015-01-01}}
    models: [{{kind: lin}}]
    """,
    "this script",
)
panel = Panel.from_prices(load_prices(SampleSource(SYMBOLS), (), 400).frames)
evening = Windows(panel, panel.last_rows(), job.horizons)
train = fit_windows(panel, panel.calendar[-1], job.horizons, job.warm_up)
forecast = job.build("lin").fit(train).predict(evening)

scenarios = to_skfolio(forecast, evening, horizon=21)
print(f"{len(scenarios)} scenarios of the next 21 sessions after {panel.calendar[-1]}")
worst = scenarios.quantile(0.05)
smallest_tail = MeanRisk(
    objective_function=ObjectiveFunction.MINIMIZE_RISK, risk_measure=RiskMeasure.CVAR, cvar_beta=0.95
).fit(scenarios)
for symbol, weight in zip(scenarios.columns, smallest_tail.weights_, strict=True):
    print(f"{symbol:5} worst of twenty {worst[symbol]:+.1%}   weight {weight:.0%}")
portfolio = smallest_tail.predict(scenarios)
print(f"together: mean of the worst 5% {-portfolio.cvar:+.1%}, of equal weights ", end="")
equal = scenarios.mean(axis=1)
print(f"{equal[equal <= equal.quantile(0.05)].mean():+.1%}")
