"""Sums over the forecasts of a backtest, read in batches: the file may hold a hundred million rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds

from forecaster.quantiles import LEVELS, quantile_columns
from forecaster.scores import COVERAGES, crps

__all__ = ["COVERAGE_COLUMNS", "PIT_EDGES", "REGIMES", "REGIME_ORIGINS", "Backtest", "summarise"]

KEYS = ["model", "horizon", "origin"]
REGIMES = ("calm", "middle", "turbulent")
REGIME_ORIGINS = 22
"""Origins whose outcomes say how turbulent the market is: a month."""
PIT_EDGES: tuple[float, ...] = (0.0, *(level for level in LEVELS if round(level * 20, 6).is_integer()), 1.0)
"""Edges of the 20 PIT bins, all of them forecast levels: a bin is exact, nothing is interpolated."""
PIT_COLUMNS = [f"pit_{index}" for index in range(len(PIT_EDGES) - 1)]
COVERAGE_COLUMNS = [f"coverage_{round(100 * coverage)}" for coverage in COVERAGES]
SUMS = ["rows", "crps", "size", *COVERAGE_COLUMNS, *PIT_COLUMNS]
BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class Backtest:
    """Sums by model, horizon and origin, over all symbols.

    Parameters
    ----------
    sums : DataFrame
        Columns ``model, horizon, origin``, ``rows`` (forecasts whose outcome is known), ``crps`` and ``size``
        (sums of the score and of the absolute outcome, in log return), ``coverage_50, coverage_80,
        coverage_95`` (outcomes inside) and ``pit_0`` to ``pit_19`` (outcomes in each bin of `PIT_EDGES`).
    """

    sums: pd.DataFrame

    @classmethod
    def empty(cls) -> Backtest:
        """Make the sums over nothing."""
        return cls(pd.DataFrame(columns=[*KEYS, *SUMS]))

    def _of(self, model: str, group: str, labels: pd.Series[Any]) -> pd.DataFrame:
        """Sum up a model by horizon and by the label of the origin."""
        part = self.sums[self.sums["model"] == model]
        part = part.assign(**{group: part["origin"].map(labels)}).dropna(subset=group)
        return part.groupby(["horizon", group], sort=False)[SUMS].sum().reset_index()

    def _years(self) -> pd.Series[Any]:
        origins = pd.DatetimeIndex(self.sums["origin"].unique())
        return pd.Series(origins.year, index=origins, dtype=object)

    def _coverage(self, sums: pd.DataFrame, group: str) -> pd.DataFrame:
        shares = sums[COVERAGE_COLUMNS].astype(float).div(sums["rows"].astype(float), axis=0)
        return pd.concat([sums[["horizon", group, "rows"]], shares], axis=1)

    def coverage_by_year(self, model: str) -> pd.DataFrame:
        """Share of outcomes inside each interval, by horizon and year, with the number of ``rows``."""
        sums = self._of(model, "year", self._years())
        return self._coverage(sums, "year").sort_values(["horizon", "year"], ignore_index=True)

    def regimes(self, model: str) -> pd.Series[Any]:
        """Say of each origin whether the market was calm, in the middle or turbulent when it came.

        The measure is the mean absolute outcome, over all symbols, of the 22 last origins whose outcomes at
        the shortest horizon were known at the origin; its terciles over the backtest are the regimes. All
        models are judged on the same days, because the rows are the same.

        Returns
        -------
        Series
            Indexed by origin: one of `REGIMES`; empty where fewer than three times 22 origins are known.
        """
        part = self.sums[self.sums["model"] == model]
        if part.empty:
            return pd.Series(dtype=object)
        shortest = int(part["horizon"].min())
        part = part[part["horizon"] == shortest].sort_values("origin").set_index("origin")
        size = part["size"].astype(float) / part["rows"].astype(float)
        past = size.rolling(REGIME_ORIGINS).mean().shift(shortest).dropna()
        if len(past) < 3 * REGIME_ORIGINS:
            return pd.Series(dtype=object)
        places = np.searchsorted(past.quantile([1 / 3, 2 / 3]).to_numpy(), past.to_numpy())
        return pd.Series(np.array(REGIMES, dtype=object)[places], index=past.index)

    def coverage_by_regime(self, model: str) -> pd.DataFrame:
        """Share of outcomes inside each interval, by horizon and regime (``group``), with the ``rows``."""
        sums = self._of(model, "group", self.regimes(model))
        order = sums["group"].map({name: place for place, name in enumerate(REGIMES)})
        sums = sums.assign(order=order).sort_values(["horizon", "order"], ignore_index=True)
        return self._coverage(sums, "group")

    def pit(self, model: str) -> pd.DataFrame:
        """Share of outcomes in each PIT bin over the bin's width (1 is ideal), a row a horizon."""
        part = self.sums[self.sums["model"] == model].groupby("horizon")[["rows", *PIT_COLUMNS]].sum()
        widths = np.diff(PIT_EDGES)
        shares = part[PIT_COLUMNS].astype(float).div(part["rows"].astype(float), axis=0)
        return shares.div(widths, axis=1)

    def crps_ratio_by_year(self, model: str, baselines: dict[int, str]) -> pd.DataFrame:
        """CRPS of a model over that of the baseline of each horizon.

        Returns
        -------
        DataFrame
            Columns ``horizon, year, rows, crps_ratio``; a year in which the two did not forecast the same
            number of rows is left out, because its ratio would compare different days.
        """
        frames = []
        labels = self._years()
        by_year = {name: self._of(name, "year", labels) for name in {model, *baselines.values()}}
        for horizon, baseline in sorted(baselines.items()):
            mine, base = (
                sums[sums["horizon"] == horizon].set_index("year").sort_index()
                for sums in (by_year[model], by_year[baseline])
            )
            years = mine.index.intersection(base.index)
            mine, base = mine.loc[years], base.loc[years]
            same = (mine["rows"] == base["rows"]) & (base["crps"] > 0)
            ratio = (mine["crps"] / base["crps"].where(base["crps"] > 0))[same]
            frames.append(
                pd.DataFrame(
                    {
                        "horizon": horizon,
                        "year": ratio.index.astype(int),
                        "rows": mine["rows"][same].to_numpy(dtype=int),
                        "crps_ratio": ratio.to_numpy(dtype=float),
                    }
                )
            )
        columns = ["horizon", "year", "rows", "crps_ratio"]
        table = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
        return table.sort_values(["horizon", "year"], ignore_index=True)


def _batch_sums(frame: pd.DataFrame) -> pd.DataFrame:
    y = frame["y"].to_numpy(dtype=np.float64)
    values = frame[quantile_columns()].to_numpy(dtype=np.float64)
    known = np.isfinite(y) & np.isfinite(values).all(axis=1)
    frame, y, values = frame[known], y[known], values[known]
    columns: dict[str, object] = {
        "model": frame["model"].astype(str).to_numpy(),
        "horizon": frame["horizon"].to_numpy(dtype=np.int64),
        "origin": pd.to_datetime(frame["origin"]).to_numpy(),
        "rows": np.ones(len(y), dtype=np.int64),
        "crps": crps(y, values),
        "size": np.abs(y),
    }
    for name, coverage in zip(COVERAGE_COLUMNS, COVERAGES, strict=True):
        low = LEVELS.index(round((1 - coverage) / 2, 6))
        high = LEVELS.index(round((1 + coverage) / 2, 6))
        columns[name] = ((values[:, low] <= y) & (y <= values[:, high])).astype(np.int64)
    inner = [LEVELS.index(edge) for edge in PIT_EDGES[1:-1]]
    bins = (values[:, inner] < y[:, None]).sum(axis=1)
    columns |= {name: (bins == index).astype(np.int64) for index, name in enumerate(PIT_COLUMNS)}
    return pd.DataFrame(columns).groupby(KEYS, as_index=False).sum()


def summarise(path: Path, models: Sequence[str], missing: list[str]) -> Backtest:
    """Sum the scores of some models over a file of forecasts.

    Parameters
    ----------
    path : Path
        ``forecasts.parquet``.
    models : sequence of str
        Models to read; the rows of all others are skipped while reading.
    missing : list of str
        Takes a sentence where the file cannot be used.
    """
    if not path.is_file():
        missing.append(f"{path.name} is missing.")
        return Backtest.empty()
    columns = ["model", "origin", "horizon", "y", *quantile_columns()]
    try:
        dataset = ds.dataset(path, format="parquet")
        lacking = [name for name in columns if name not in dataset.schema.names]
        if lacking:
            missing.append(f"{path.name} lacks the columns {', '.join(lacking)}.")
            return Backtest.empty()
        wanted = ds.field("model").cast(pa.string()).isin(pa.array(models, pa.string()))
        batches = dataset.to_batches(columns=columns, filter=wanted, batch_size=BATCH_ROWS)
        parts = [_batch_sums(batch.to_pandas()) for batch in batches if batch.num_rows]
    except (OSError, ValueError, pa.ArrowException) as error:
        missing.append(f"{path.name} cannot be read: {str(error).splitlines()[0]}.")
        return Backtest.empty()
    if not any(len(part) for part in parts):
        missing.append(
            f"{path.name} holds no known outcome of {', '.join(models) or 'any model named in the results'}."
        )
        return Backtest.empty()
    return Backtest(pd.concat(parts, ignore_index=True).groupby(KEYS, as_index=False).sum())
