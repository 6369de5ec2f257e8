"""Who forecasts the variance best; `python tests/benchmarks/bench_volatility.py` runs it.

The backtest of `configs/volatility.yaml`: the next session's Garman-Klass variance of two indices, 2005 to
2018, in refits of two years. Forecasts and scores are kept as `forecaster backtest` writes them; beside them
lie the QLIKE of each model as a ratio to that of HAR-log, the p-value of a Diebold-Mariano test and the
indices that agree.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
from bench_skill import compare, row_losses
from configured import ROOT, backtest_of
from figures import write_figures

BASELINE, HORIZON = "har_log", 1
BOUND = 0.91
"""Largest promised ratio to the QLIKE of HAR-log."""
PROMISED = ("qlike_glm", "mlp", "convolution", "combination")
"""Models that keep the promise."""


def measure(losses: pd.DataFrame) -> dict[str, float]:
    """Lay all figures out by name: ``qlike_<model>_1`` and ``qlike_<model>_to_har_log_1_ratio`` and the like.

    Parameters
    ----------
    losses : DataFrame
        ``model, symbol, origin, horizon, crps, qlike``.
    """
    figures: dict[str, float] = {}
    for model, rows in losses[losses["horizon"] == HORIZON].groupby("model", sort=False):
        figures[f"qlike_{model}_{HORIZON}"] = float(rows["qlike"].mean())
        if model != BASELINE:
            found = compare(losses, str(model), BASELINE, HORIZON, "qlike")
            name = f"qlike_{model}_to_{BASELINE}_{HORIZON}"
            figures |= {f"{name}_{key}": value for key, value in found.items()}
    return figures


def table(models: Sequence[str], figures: Mapping[str, float]) -> str:
    """Lay the figures out in Markdown."""
    lines = ["| model | QLIKE | to HAR-log | p |", "|---|---|---|---|"]
    for model in models:
        name = f"qlike_{model}_to_{BASELINE}_{HORIZON}"
        ratio, p = (f"{figures[f'{name}_{key}']:.4f}" if model != BASELINE else "" for key in ("ratio", "p"))
        lines.append(f"| `{model}` | {figures[f'qlike_{model}_{HORIZON}']:.4f} | {ratio or '1'} | {p} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark and write its files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "workspace" / "bench")
    options = parser.parse_args()
    begin = time.perf_counter()
    job, result = backtest_of("volatility")
    from pipelines.backtest import write_backtest
    from pipelines.results import staged

    figures = measure(row_losses(result.forecasts, result.tails, result.data.panel))
    judged = [(name, figures[f"qlike_{name}_to_{BASELINE}_{HORIZON}_ratio"]) for name in PROMISED]
    lines = [
        f"- {'reached' if ratio <= BOUND else 'NOT reached'}: `{name}` {ratio:.4f} <= {BOUND:g}"
        for name, ratio in judged
    ]
    with staged(options.output / "volatility") as folder:
        write_backtest(job, result, folder)
        text = table([model.name for model in job.models], figures) + "\n" + "\n".join(lines) + "\n"
        (folder / "volatility.md").write_text(text, encoding="utf-8")
    figures["elapsed_seconds"] = time.perf_counter() - begin
    write_figures(options.output / "volatility.json", {name: [value] for name, value in figures.items()})
    print(text)


if __name__ == "__main__":
    main()
