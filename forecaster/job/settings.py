"""The settings of a whole job; the one place that knows every kind."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from forecaster.job.base import Date, Name, Share, Spec, Symbol, Text, nearest
from forecaster.job.combination import CombinationModel
from forecaster.job.convolution import ConvolutionModel, DenseModel
from forecaster.job.econometric import (
    EwmaModel,
    GarchModel,
    GjrModel,
    HarLogModel,
    HarxModel,
    LinModel,
    QlikeModel,
)
from forecaster.job.engine import EngineSpec
from forecaster.job.learned import (
    BoostingModel,
    MlpModel,
    QuantileRegressionModel,
    RandomKernelsModel,
    RidgeModel,
)
from forecaster.job.naive import HistoricalModel, ZeroModel
from forecaster.job.operation import AnyAlert, Monitoring, Schedule
from forecaster.job.prices import PricesSpec, YahooPrices

if TYPE_CHECKING:
    from forecaster.calibration import Rule
    from forecaster.models.base import Forecaster
    from forecaster.prices.base import Source

__all__ = ["OPERATION", "AnyModel", "Backtest", "Job"]

OPERATION = ("engine", "ledger", "train_every", "monitoring", "schedule", "alerts")
"""Sections that change no result: where it is computed, or who is told of it, makes no other job."""

PLACES = ("store", "workspace")
"""Settings of where a job is done; no bit of a forecast depends on them."""

AnyModel = Annotated[
    ZeroModel
    | HistoricalModel
    | EwmaModel
    | GarchModel
    | GjrModel
    | HarxModel
    | LinModel
    | HarLogModel
    | QlikeModel
    | RidgeModel
    | QuantileRegressionModel
    | BoostingModel
    | MlpModel
    | RandomKernelsModel
    | DenseModel
    | ConvolutionModel
    | CombinationModel,
    Field(discriminator="kind"),
]


class Backtest(Spec):
    """The walk-forward backtest."""

    start: Date
    """First test origin."""
    end: Date | None = None
    """Last test origin; the last session there is where it is not given."""
    refit_every: PositiveInt = 504
    """Sessions between two refits."""
    embargo: NonNegativeInt = 0
    """Sessions left out between the last training outcome and the refit."""
    rolling: NonNegativeInt = 0
    """Learn from the last so many sessions; 0 for all of them."""
    learn_from: NonNegativeInt = 0
    """Symbols that models of all symbols together learn from, drawn by their names; 0 for all of
    them. What is estimated symbol by symbol, volatility for example, is estimated for all, and all are
    forecast. For panels that are too large to train on (see docs/scale.md)."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end is not None and self.end < self.start:
            raise ValueError(f"the end lies after the start; received start {self.start}, end {self.end}")
        return self


class Job(Spec):
    """A job: prices, horizons, a backtest and models."""

    name: Name
    """Name of the universe; results lie under ``workspace/<name>``."""
    prices: PricesSpec
    """Where prices come from."""
    store: Text | None = None
    """Price store that `forecaster ingest` writes and all else reads: a folder, relative to where the command
    runs, or the URL of an object store, whose credentials come from the environment. ``WORKSPACE/prices`` for
    Yahoo where it is not given; other prices are then read directly."""
    calendars: dict[Symbol, Text] = Field(default_factory=dict)
    """Exchange calendar of symbols, such as XNYS, where their spelling does not tell. Prices from Yahoo are
    compared with the calendar of every symbol, others with those that are named here."""
    returns: Literal["total", "price"] = "total"
    """Whether dividends count as part of the return, where the prices say them."""
    market: Symbol | None = None
    """The symbol that is the market: looked at by models, not forecast; the mean of all where not given."""
    covariates: dict[Symbol, Literal["return", "level", "difference"]] = Field(default_factory=dict)
    """Symbols that models look at and that are not forecast, such as a volatility index, a rate or a
    currency, and what of each: the log return, the close as it is (`level`) or its change (`difference`). A
    forecast sees the last value that was known, in UTC, when its own session closed, for at most 14 days."""
    portfolios: dict[Symbol, dict[Symbol, float]] = Field(default_factory=dict)
    """Synthetic symbols, forecast like any other, from weights over symbols, which are forecast as well: a
    portfolio is brought back to its weights at every close of a session on which all members trade. Negative
    weights are short; what the weights lack of one is cash without interest, more than one is borrowed."""
    variance: Literal["returns", "range"] = "returns"
    """What a session's variance is: its squared return, or what the range of its prices says."""
    horizons: tuple[PositiveInt, ...] = Field((1, 5, 21), min_length=1)
    """Horizons in sessions, increasing."""
    lookback: PositiveInt = 32
    """Sessions of a window."""
    backtest: Backtest
    """The walk-forward backtest."""
    models: tuple[AnyModel, ...] = Field(min_length=1)
    """Models to compare, the simplest first where they are otherwise equal."""
    minimum_coverage: Share = 0.5
    """Share of the symbols that must succeed; below it the job ends with exit code 1."""
    seed: int = Field(7, ge=0, lt=2**32)
    """Seed of everything random."""
    threads: PositiveInt = 1
    """Threads of TensorFlow, OpenMP and BLAS in a process; the bits of a result hold at equal ones."""
    engine: EngineSpec = EngineSpec()
    """Where the work runs, and how much of it at once; the bits of a result do not depend on it."""
    workspace: Text = "workspace"
    """Folder of results and of the tracking store, relative to where the command runs."""
    ledger: Text | None = None
    """Where forecasts are issued: a file, relative to where the command runs, or
    ``postgresql://user@host/database``, whose password is PGPASSWORD. ``WORKSPACE/ledger.db`` where it is not
    given."""
    train_every: PositiveInt = 63
    """Sessions after which the evening's job trains again; a changed job is trained the same evening."""
    monitoring: Monitoring = Monitoring()
    """What is watched every evening."""
    schedule: Schedule = Schedule()
    """When `forecaster serve` begins an evening."""
    alerts: tuple[AnyAlert, ...] = ()
    """Who is told when something is wrong."""

    def __repr__(self) -> str:
        horizons = ", ".join(map(str, self.horizons))
        models = ", ".join(model.name for model in self.models[:3])
        others = f" and {len(self.models) - 3} others" if len(self.models) > 3 else ""
        return (
            f"Job({self.name}: {self.prices.kind} prices; horizons {horizons}; "
            f"backtest from {self.backtest.start}; {models}{others})"
        )

    __str__ = __repr__

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError(f"horizons are distinct and increasing; received {list(self.horizons)}")
        names = [model.name for model in self.models]
        twice = next((name for name in names if names.count(name) > 1), None)
        for number, model in enumerate(self.models):
            if isinstance(model, CombinationModel):
                absent = next((name for name in model.members if name not in names[:number]), None)
                if absent is not None:
                    raise ValueError(
                        f"models[{number}]: members of a combination are models that stand before it; "
                        f"received {absent!r}{nearest(absent, names[:number])}"
                    )
            if isinstance(model, ConvolutionModel) and model.strategy.span(model.kernel) > self.lookback:
                raise ValueError(
                    f"models[{number}]: the convolutions of {model.name!r} span "
                    f"{model.strategy.span(model.kernel)} sessions, more than the lookback of "
                    f"{self.lookback}; look back further or take a smaller kernel"
                )
        if self.store is not None and "://" in self.store and ("@" in self.store or "?" in self.store):
            # Not shown: it may be a secret.
            raise ValueError(
                "store: the URL of a store holds no credentials or options; set them in the environment"
            )
        called = [alert.name for alert in self.alerts]
        again = next((name for name in called if called.count(name) > 1), None)
        if again is not None:
            raise ValueError(
                f"alerts have distinct names; received {again!r} more than once: give each a name"
            )
        if self.ledger is not None and re.match(r"[^/]*://[^/@]*:[^/@]*@", self.ledger):
            # Not shown: it may be a secret.
            raise ValueError("ledger: the URL of a ledger holds no password; set PGPASSWORD")
        strangers = [symbol for symbol in self.calendars if symbol not in self.prices.symbols]
        if self.prices.symbols and strangers:
            near = nearest(strangers[0], self.prices.symbols)
            raise ValueError(f"calendars: {strangers[0]!r} is none of the symbols{near}")
        if self.market is not None and self.prices.symbols and self.market not in self.prices.symbols:
            near = nearest(self.market, self.prices.symbols)
            raise ValueError(f"market: {self.market!r} is none of the symbols{near}")
        self._check_covariates()
        self._check_portfolios()
        if twice is not None:
            raise ValueError(
                f"models have distinct names; received {twice!r} more than once: give each a name"
            )
        return self

    def _check_covariates(self) -> None:
        given = self.prices.symbols
        stranger = next((symbol for symbol in self.covariates if given and symbol not in given), None)
        if stranger is not None:
            raise ValueError(f"covariates: {stranger!r} is none of the symbols{nearest(stranger, given)}")
        if given and not set(given) - {*self.covariates, self.market}:
            raise ValueError(
                "covariates: what is looked at is not forecast, and no symbol is left to forecast; "
                f"received {list(self.covariates)} of {list(given)}"
            )
        if self.covariates and not any(model.sees_covariates for model in self.models):
            raise ValueError(
                "covariates: no model of the job looks at them; received "
                f"{[model.kind for model in self.models]}: add a ridge, quantile_regression, boosting, "
                "mlp_sklearn, random_kernels, mlp or convolution, or leave the covariates out"
            )

    def _check_portfolios(self) -> None:
        given = self.prices.symbols
        for name, weights in self.portfolios.items():
            if name in given:
                raise ValueError(f"portfolios: {name!r} is the name of a symbol; give the portfolio another")
            if not weights or 0.0 in weights.values():
                raise ValueError(
                    f"portfolios: {name!r} has at least one member, and no weight is zero; received {weights}"
                )
            for member in weights:
                if member in self.covariates or member in self.portfolios:
                    raise ValueError(
                        f"portfolios: members of {name!r} are symbols, no covariates or portfolios; received "
                        f"{member!r}"
                    )
                if given and member not in given:
                    raise ValueError(
                        f"portfolios: {member!r} in {name!r} is none of the symbols{nearest(member, given)}"
                    )
        if self.portfolios and self.variance == "range":
            raise ValueError(
                "portfolios: the range of a portfolio's prices is not known; received `variance: range`: "
                "take `variance: returns`, or give the portfolios a job of their own"
            )

    def build(self, name: str) -> Forecaster:
        """Make one of the models, by its name, unfitted, behind its calibration if it has one."""
        rule, model = self.calibration(name), self.build_plain(name)
        if rule is None:
            return model
        from forecaster.models.calibrated import Calibrated

        return Calibrated(model, rule, self.warm_up)

    def build_plain(self, name: str) -> Forecaster:
        """Make one of the models without its calibration; members of a combination keep theirs."""
        spec = self._spec(name)
        if isinstance(spec, CombinationModel):
            from forecaster.models.combination import CombinationForecaster

            return CombinationForecaster({member: self.build(member) for member in spec.members})
        return spec.build(self.lookback, self.seed)

    def calibration(self, name: str) -> Rule | None:
        """Give the rule by which a model is calibrated; None where it is not."""
        spec = self._spec(name).calibration
        return None if spec is None else spec.build()

    def configuration(self, name: str) -> str:
        """SHA-256 of all that makes a model's backtest what it is, but for names, symbols and the test span.

        Two runs that share it tried the same thing; the seed counts, for luck is tried with it.
        """
        settings = self.model_dump(mode="json")
        elsewhere = (
            "name",
            "prices",
            "store",
            "models",
            "minimum_coverage",
            "threads",
            "workspace",
        )
        for key in (*OPERATION, *elsewhere):
            del settings[key]
        for key in ("start", "end"):
            del settings["backtest"][key]
        spec = self._spec(name)
        settings["model"] = spec.model_dump(mode="json", exclude={"name", "members"})
        if isinstance(spec, CombinationModel):
            settings["members"] = sorted(self.configuration(member) for member in spec.members)
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()

    @property
    def combinations(self) -> dict[str, tuple[str, ...]]:
        """Members of the combinations, by name."""
        return {model.name: model.members for model in self.models if isinstance(model, CombinationModel)}

    @property
    def calibrations(self) -> dict[str, Rule]:
        """Rules of the models that are calibrated, by name."""
        rules = {model.name: self.calibration(model.name) for model in self.models}
        return {name: rule for name, rule in rules.items() if rule is not None}

    def with_members(self, names: Sequence[str]) -> tuple[AnyModel, ...]:
        """Give the models of some names and, of combinations, their members, in the order of the job."""
        wanted = set(names)
        # Members stand before their combination.
        for model in reversed(self.models):
            if model.name in wanted and isinstance(model, CombinationModel):
                wanted |= set(model.members)
        return tuple(model for model in self.models if model.name in wanted)

    def _spec(self, name: str) -> AnyModel:
        return next(model for model in self.models if model.name == name)

    @property
    def warm_up(self) -> int:
        """Sessions that every origin needs: the lookback, or the most that any model asks for."""
        return max(self.lookback, *(model.history(self.lookback) for model in self.models))

    @property
    def minimum_sessions(self) -> int:
        """Prices that a symbol needs: the warm-up, the longest horizon, and one for the first return."""
        return self.warm_up + max(self.horizons) + 1

    @property
    def store_url(self) -> str | None:
        """Where the price store lies; None where prices are read directly."""
        if self.store is None and isinstance(self.prices, YahooPrices):
            return str(Path(self.workspace) / "prices")
        return self.store

    @property
    def ledger_url(self) -> str:
        """Where the ledger lies."""
        return self.ledger or str(Path(self.workspace) / "ledger.db")

    def has_calendar(self, symbol: str) -> bool:
        """Tell whether the exchange calendar of a symbol is known: by its spelling at Yahoo, or by name."""
        return isinstance(self.prices, YahooPrices) or symbol in self.calendars

    def source(self, folder: Path, as_of: date | None = None) -> Source:
        """Make the source of prices.

        Parameters
        ----------
        folder : Path
            Folder of the job file, which paths of prices are relative to.
        as_of : date, optional
            Forget every later session. Not so for Yahoo, whose prices are cut when the store is read.
        """
        if isinstance(self.prices, YahooPrices):
            from forecaster.calendars import Calendars

            return self.prices.build(Calendars(self.calendars), Path(self.workspace) / "yahoo")
        return self.prices.build(folder, as_of)

    @property
    def hash(self) -> str:
        """SHA-256 of all settings but those of the operation, so that a result names the job that made it."""
        return self._hash(OPERATION)

    @property
    def training_hash(self) -> str:
        """SHA-256 of the settings that a fitted model depends on: not of where things lie."""
        return self._hash((*OPERATION, *PLACES))

    def _hash(self, without: tuple[str, ...]) -> str:
        settings = {key: value for key, value in self.model_dump(mode="json").items() if key not in without}
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
