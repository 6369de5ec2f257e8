"""Bytes that training takes a row, by kind of model: what `pipelines/memory.py` states of a backtest.

`python tests/benchmarks/bench_memory.py` runs it. Each kind is fitted on two panels of synthetic series, each
in a process of its own, and the difference of the two peaks is divided by that of their rows: libraries and
compiled programs drop out. GARCH estimates are given, as they take time and no memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from bench_scale import LAST, SESSIONS, TRUTH, _garch
from figures import write_figures
from measuring import peak_megabytes, reset_peak

SYMBOLS = (30, 90)
KINDS = {
    "historical": "{kind: historical}",
    "ewma_fhs": "{kind: ewma_fhs}",
    "gjr_t_fhs": "{kind: gjr_t_fhs}",
    "harx_fhs": "{kind: harx_fhs}",
    "har_log": "{kind: har_log}",
    "qlike_glm": "{kind: qlike_glm}",
    "ridge": "{kind: ridge}",
    "quantile_regression": "{kind: quantile_regression}",
    "boosting": "{kind: boosting, iterations: 5}",
    "mlp_sklearn": "{kind: mlp_sklearn, epochs: 1}",
    "random_kernels": "{kind: random_kernels}",
    "mlp": "{kind: mlp, training: {epochs: 1, seeds: 1}}",
    "convolution": "{kind: convolution, strategy: {kind: lagged, lags: [0, 1, 5, 21]}, "
    "training: {epochs: 1, seeds: 1}}",
}
"""Passes and networks fewer than usual: they take time and no memory."""
JOB = """
name: memory
prices: {kind: files, path: none.csv}
backtest: {start: 2020-01-02}
models: [%s]
"""


def fit(kind: str, symbols: int) -> dict[str, Any]:
    """Fit a model on so many series, and give the peak of this process and the rows."""
    from forecaster.job import parse_job
    from forecaster.models.econometric.garch import PARAMETERS, FitsGarch, remember
    from forecaster.threads import limit_threads
    from forecaster.walkforward import fit_windows
    from forecaster.windows import Panel

    job = parse_job(JOB % KINDS[kind], "memory")
    limit_threads(job.threads)
    sessions = pd.bdate_range(end=LAST, periods=SESSIONS, freq="B", unit="s", name="session")
    returns = _garch(np.random.default_rng(0), symbols, 0.013)
    closes = 50.0 * np.exp(np.cumsum(returns, axis=0))
    frames = {
        f"S{column:05d}": pd.DataFrame(
            {"close": closes[:, column], "dividend": 0.0, "split": 1.0}, index=sessions
        )
        for column in range(symbols)
    }
    panel = Panel.from_prices(frames)
    del frames, returns, closes
    windows = fit_windows(panel, panel.calendar[-1], job.horizons, job.warm_up, 0, 0)
    model = job.build_plain(job.models[0].name)
    if isinstance(model, FitsGarch):
        omega, alpha, beta = TRUTH
        truth = {"mean": 0.0, "omega": omega * 0.016**2, "alpha": alpha, "gamma": 0.0, "beta": beta}
        truth |= {"degrees_of_freedom": 6.0, "start": 0.016**2}
        wanted = model.garch_fits(windows)
        for asymmetric in (False, True):
            alike = [values for values, which in wanted if which is asymmetric]
            remember(alike, asymmetric, np.tile([truth[name] for name in PARAMETERS], (len(alike), 1)))
    reset_peak()
    model.fit(windows)
    return {"megabytes": peak_megabytes(), "rows": len(panel)}


def main() -> None:
    """Measure all kinds, or one of them on one panel."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--output", type=Path, default=Path("workspace/bench/memory.json"))
    parser.add_argument("--symbols", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.symbols:
        print(json.dumps(fit(options.kinds[0], options.symbols)))
        return
    figures = {}
    for kind in options.kinds:
        peaks = []
        for symbols in SYMBOLS:
            command = [sys.executable, __file__, "--kinds", kind, "--symbols", str(symbols)]
            said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            peaks.append(json.loads(said.splitlines()[-1]))
        few, many = peaks
        bytes_a_row = (many["megabytes"] - few["megabytes"]) * 2**20 / (many["rows"] - few["rows"])
        figures[f"bytes_a_row_{kind}"] = [bytes_a_row]
        print(f"{kind} {bytes_a_row:.0f} bytes a row, {few['megabytes']:.0f} MB at {few['rows']}", flush=True)
    write_figures(options.output, figures)


if __name__ == "__main__":
    main()
