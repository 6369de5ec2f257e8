"""What a registered model takes and gives: prices in, quantiles at the last session of each symbol out."""

from __future__ import annotations

from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema

from forecaster.quantiles import TAIL_COLUMNS, quantile_columns

__all__ = ["SIGNATURE"]

_optional = [
    ColSpec(DataType.double, name, required=False) for name in ("open", "high", "low", "dividend", "split")
]
SIGNATURE = ModelSignature(
    inputs=Schema(
        [
            ColSpec(DataType.string, "symbol"),
            ColSpec(DataType.datetime, "session"),
            ColSpec(DataType.double, "close"),
            *_optional,
        ]
    ),
    outputs=Schema(
        [
            ColSpec(DataType.string, "model"),
            ColSpec(DataType.string, "symbol"),
            ColSpec(DataType.datetime, "origin"),
            ColSpec(DataType.long, "horizon"),
            ColSpec(DataType.double, "close"),
            *(ColSpec(DataType.double, name) for name in quantile_columns()),
            *(ColSpec(DataType.double, name, required=False) for name in TAIL_COLUMNS),
        ]
    ),
)
