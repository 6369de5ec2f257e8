"""Who is better than whom on twenty stocks over eighteen years; `make bench-skill` runs it.

The backtest of `configs/us20.yaml`, whose forecasts and scores are kept as `forecaster backtest` writes them.
Beside them: ratios of the pooled CRPS with the p-value of a Diebold-Mariano test and the stocks that agree,
QLIKE of the variance, coverage, tests of value at risk, and which promised figures were reached.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from configured import ROOT, backtest_of
from figures import write_figures

from forecaster.scores import POOLED, row_scores
from forecaster.significance import daily_losses, diebold_mariano
from forecaster.volatility import realised_variance
from forecaster.windows import Panel

KEYS = ["model", "symbol", "origin", "horizon"]
REFERENCE, LINEAR, VARIANCE = "gjr_t_fhs", "harx_fhs", "har_log"
RIVALS = (REFERENCE, "gjr_t_fhs_pooled", "gjr_t_rolling_fhs", LINEAR, "lin", "mlp", "conv1d")
"""Models that others are held against."""

HORIZONS, VARIANCE_HORIZON = (1, 5, 21), 5

BOUNDS: dict[str, tuple[float, ...]] = {
    **{f"crps_{model}_to_gjr_t_fhs": (0.991, 0.992, 0.969) for model in ("convolution", "combination")},
    **{
        f"crps_{model}_to_gjr_t_fhs_pooled": (0.993, 0.994, 0.993) for model in ("convolution", "combination")
    },
    **{
        f"crps_{model}_to_gjr_t_rolling_fhs": (0.997, 0.997, 0.995)
        for model in ("convolution", "combination")
    },
    "crps_convolution_to_harx_fhs": (0.998, 1.0, 1.0),
    "crps_combination_to_harx_fhs": (0.9985, 0.999, 0.999),
}
"""Largest promised ratio at each horizon."""


def row_losses(forecasts: pd.DataFrame, tails: pd.DataFrame, panel: Panel) -> pd.DataFrame:
    """Compute CRPS, and QLIKE where a variance is stated, of every row whose outcome is known.

    Parameters
    ----------
    forecasts, tails : DataFrame
        As `pipelines.backtest.BacktestResult` has them.
    panel : Panel
        The prices of the outcomes, and what a session's variance is.
    """
    horizons = tuple(sorted(int(h) for h in forecasts["horizon"].unique()))
    ahead = [realised_variance(panel.variances[part], horizons) for part in panel.parts]
    realised = pd.DataFrame(
        {
            "symbol": np.repeat(np.array(panel.symbols, dtype=object)[panel.series], len(horizons)),
            "origin": np.repeat(panel.sessions.astype("datetime64[ms]"), len(horizons)),
            "horizon": np.tile(np.array(horizons), len(panel)),
            "realised_variance": np.concatenate(ahead).ravel(),
        }
    )
    parts: list[pd.DataFrame] = []
    for model, rows in forecasts.groupby("model", sort=False):
        known = rows[np.isfinite(rows["y"].to_numpy())]
        known = known.merge(tails[tails["model"] == model], how="left", on=KEYS)
        known = known.merge(realised, how="left", on=KEYS[1:])
        scored = row_scores(known)
        parts.append(known[KEYS].assign(crps=scored["crps"], qlike=scored.get("qlike", np.nan)))
    return pd.concat(parts, ignore_index=True)


def compare(
    losses: pd.DataFrame, model: str, rival: str, horizon: int, loss: str = "crps"
) -> dict[str, float]:
    """Hold one model against another at a horizon: ratio of mean losses, p-value, symbols of a lower loss."""
    rows = losses[(losses["horizon"] == horizon) & losses["model"].isin([model, rival])]
    daily = daily_losses(rows, loss).loc[horizon]
    mean = rows.groupby("model")[loss].mean()
    by_symbol = rows.pivot_table(index="symbol", columns="model", values=loss)
    return {
        "ratio": float(mean[model] / mean[rival]),
        "p": diebold_mariano((daily[model] - daily[rival]).to_numpy(), horizon).p_value,
        "symbols": float((by_symbol[model] < by_symbol[rival]).sum()),
    }


def measure(losses: pd.DataFrame, scores: pd.DataFrame) -> dict[str, float]:
    """Lay all figures out by name: ``crps_<model>_to_<rival>_<horizon>_ratio`` and the like."""
    models = list(losses["model"].unique())
    horizons = sorted(int(h) for h in losses["horizon"].unique())
    figures: dict[str, float] = {}
    for rival in (name for name in RIVALS if name in models):
        for model in (name for name in models if name != rival):
            for horizon in horizons:
                found = compare(losses, model, rival, horizon)
                figures |= {f"crps_{model}_to_{rival}_{horizon}_{key}": value for key, value in found.items()}
    stated = losses.dropna(subset="qlike")
    for rival in (name for name in (LINEAR, VARIANCE) if name in models):
        for model in stated["model"].unique():
            if model != rival and VARIANCE_HORIZON in horizons:
                found = compare(stated, model, rival, VARIANCE_HORIZON, "qlike")
                name = f"qlike_{model}_to_{rival}_{VARIANCE_HORIZON}"
                figures |= {f"{name}_{key}": value for key, value in found.items()}
    pooled = scores[scores["symbol"] == POOLED]
    for model, horizon, metric, value in pooled[["model", "horizon", "metric", "value"]].itertuples(
        index=False
    ):
        if metric.startswith(("coverage_", "kupiec_passed")):
            figures[f"{metric}_{model}_{horizon}"] = float(value)
    return figures


def judge(figures: Mapping[str, float]) -> list[tuple[str, str, bool]]:
    """Compare what was promised with what was found: name of the figure, both in words, and whether."""
    found: list[tuple[str, str, bool]] = []

    def say(name: str, value: float, bound: float, at_least: bool = False) -> None:
        sign, reached = (">=", value >= bound) if at_least else ("<=", value <= bound)
        found.append((name, f"{value:.4f} {sign} {bound:g}", reached))

    for name, bounds in BOUNDS.items():
        for horizon, bound in zip(HORIZONS, bounds, strict=True):
            say(f"{name}_{horizon}_ratio", figures[f"{name}_{horizon}_ratio"], bound)
            if name.endswith(f"_to_{REFERENCE}"):
                say(f"{name}_{horizon}_p", figures[f"{name}_{horizon}_p"], 0.01)
                say(f"{name}_{horizon}_symbols", figures[f"{name}_{horizon}_symbols"], 18, at_least=True)
            if name.startswith("crps_combination") and name.endswith(LINEAR):
                say(f"{name}_{horizon}_p", figures[f"{name}_{horizon}_p"], 0.05)
    say("crps_convolution_to_harx_fhs_1_p", figures["crps_convolution_to_harx_fhs_1_p"], 0.01)
    say("qlike_convolution_to_harx_fhs_5_ratio", figures["qlike_convolution_to_harx_fhs_5_ratio"], 0.965)
    say("qlike_convolution_to_harx_fhs_5_p", figures["qlike_convolution_to_harx_fhs_5_p"], 0.01)
    say("qlike_convolution_to_har_log_5_ratio", figures["qlike_convolution_to_har_log_5_ratio"], 0.94)
    say("qlike_convolution_to_har_log_5_p", figures["qlike_convolution_to_har_log_5_p"], 0.01)
    for model in ("convolution", "combination"):
        for horizon in HORIZONS:
            for percent, allowed in ((80, 0.015), (95, 0.007)):
                name = f"coverage_{percent}_{model}_{horizon}"
                say(f"{name} beside {percent}%", abs(figures[name] - percent / 100), allowed)
            for level in ("0.01", "0.05"):
                name = f"kupiec_passed_{level}_{model}_{horizon}"
                say(name, figures[name], 0.8, at_least=True)
    return found


def table(losses: pd.DataFrame, figures: Mapping[str, float]) -> str:
    """Lay the figures out for the README, in Markdown."""
    lines = [
        "| model | CRPS to GJR-GARCH-t FHS, h = 1 / 5 / 21 | CRPS to HARX-FHS (p), h = 1 / 5 / 21 | stocks "
        "that agree | QLIKE of 5 days to HARX-FHS | 80% interval holds | 95% |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in losses["model"].unique():

        def ratios(rival: str, model: str = model) -> list[str]:
            return [
                "1" if model == rival else f"{figures[f'crps_{model}_to_{rival}_{h}_ratio']:.4f}"
                for h in HORIZONS
            ]

        against = ratios(LINEAR)
        if model != LINEAR:
            against = [
                f"{ratio} ({figures[f'crps_{model}_to_{LINEAR}_{h}_p']:.3f})"
                for ratio, h in zip(against, HORIZONS, strict=True)
            ]
        wins = [f"{figures.get(f'crps_{model}_to_{LINEAR}_{h}_symbols', np.nan):.0f}" for h in HORIZONS]
        variance = figures.get(f"qlike_{model}_to_{LINEAR}_{VARIANCE_HORIZON}_ratio")
        covered = {
            percent: " / ".join(f"{100 * figures[f'coverage_{percent}_{model}_{h}']:.1f}" for h in HORIZONS)
            for percent in (80, 95)
        }
        lines.append(
            f"| `{model}` | {' / '.join(ratios(REFERENCE))} | {' / '.join(against)} | "
            f"{'' if model == LINEAR else ' / '.join(wins)} | "
            f"{'' if variance is None else f'{variance:.3f}'} | {covered[80]} | {covered[95]} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark and write its files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "workspace" / "bench")
    parser.add_argument("--jobs", type=int, default=2, help="processes that share the work")
    options = parser.parse_args()
    begin = time.perf_counter()
    job, result = backtest_of("us20", options.jobs)
    from pipelines.backtest import write_backtest
    from pipelines.results import staged

    with staged(options.output / "skill") as folder:
        write_backtest(job, result, folder)
        losses = row_losses(result.forecasts, result.tails, result.data.panel)
        figures = measure(losses, result.scores)
        judged = judge(figures)
        lines = [
            f"- {'reached' if good else 'NOT reached'}: `{name}` {words}" for name, words, good in judged
        ]
        (folder / "skill.md").write_text(
            table(losses, figures) + "\n" + "\n".join(lines) + "\n", encoding="utf-8"
        )
    figures["elapsed_seconds"] = time.perf_counter() - begin
    write_figures(options.output / "skill.json", {name: [value] for name, value in figures.items()})
    print((options.output / "skill" / "skill.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
