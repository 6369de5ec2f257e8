"""The job file: YAML made into typed, frozen settings; the one place that knows every kind.

Nothing heavy is imported here: what a setting describes is made by its ``build`` method, which imports what
it needs, so that a job can be checked without TensorFlow.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)

from forecaster.errors import JobError

if TYPE_CHECKING:
    from forecaster.kernels import Parallel
    from forecaster.liftings import Lifting
    from forecaster.models.base import Forecaster
    from forecaster.models.convolution.geometry import KernelConvolution
    from forecaster.prices.base import Source

__all__ = ["Job", "json_schema", "load_job", "parse_job"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
Symbol = Annotated[str, StringConstraints(min_length=1, max_length=100, strip_whitespace=True)]
Share = Annotated[float, Field(gt=0.0, le=1.0, allow_inf_nan=False)]


def _iso_date(value: object) -> object:
    """Take YYYY-MM-DD alone: pydantic would read 20080101 as seconds since 1970."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("a date is written YYYY-MM-DD")
    return value


Date = Annotated[date, BeforeValidator(_iso_date)]


class Spec(BaseModel):
    """A part of a job: frozen, and strict about its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: object) -> object:
        """Name the nearest key: pydantic only says that a key is not permitted."""
        if not isinstance(data, Mapping):
            return data
        for key in data:
            if key not in cls.model_fields:
                raise ValueError(f"unknown key {_shown(key)}{_nearest(str(key), list(cls.model_fields))}")
        return data


def _nearest(given: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{hint} (allowed: {', '.join(names)})"


# Prices


class SamplePrices(Spec):
    """Real prices that come with the installed packages."""

    kind: Literal["sample"]
    symbols: tuple[Symbol, ...] = Field(("SP500", "NASDAQ", "WTI"), min_length=1)
    """SP500, NASDAQ and WTI (from `arch`); with the extra `samples`, 20 US stocks (from `skfolio`)."""

    def build(self, folder: Path) -> Source:
        """Make the source; the folder of the job file is not needed."""
        from forecaster.prices.samples import SampleSource

        return SampleSource(self.symbols)


class FilesPrices(Spec):
    """Prices from CSV or Parquet: symbol, session, open, high, low, close, volume[, dividend, split]."""

    kind: Literal["files"]
    path: str | tuple[str, ...] = Field(min_length=1)
    """A file, a folder, a glob, or several; relative to the folder of the job file."""
    symbols: tuple[Symbol, ...] = ()
    """Symbols to use; all that the files hold where none is given."""

    def build(self, folder: Path) -> Source:
        """Make the source."""
        from forecaster.prices.files import FilesSource

        paths = (self.path,) if isinstance(self.path, str) else self.path
        # A path from `~` is absolute once the source has expanded it.
        placed = (path if path.startswith("~") else str(folder / path) for path in paths)
        return FilesSource(tuple(placed), self.symbols)


PricesSpec = Annotated[SamplePrices | FilesPrices, Field(discriminator="kind")]


# Strategies


Kernel = tuple[tuple[int, int], tuple[int, int]]
"""Height and width of a kernel, and its dilation along both."""


class Strategy(Spec):
    """What every strategy says of itself without making anything."""

    @property
    def history(self) -> int:
        """Sessions needed before the window."""
        return 0

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        return ((1, width), (1, 1)), ((1, width), (1, 2))

    def span(self, width: int) -> int:
        """Sessions of the window that the two convolutions span."""
        return width + 2 * (width - 1)


class RowStrategy(Strategy):
    """The window as one row: a 1 x W image."""

    kind: Literal["row"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "window as one row"

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import Row

        return Row()


class ColumnStrategy(Strategy):
    """The window as one column: a W x 1 image, under a kernel that is as tall as it spans sessions."""

    kind: Literal["column"]

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        return ((width, 1), (1, 1)), ((width, 1), (2, 1))

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "window as one column"

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import Column

        return Column()


class ReplicateStrategy(Strategy):
    """The window repeated in identical rows."""

    kind: Literal["replicate"]
    rows: PositiveInt = 3
    """Number of identical rows."""

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        return ((self.rows, width), (1, 1)), ((1, width), (1, 2))

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"{self.rows} identical rows"

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import Replicate

        return Replicate(rows=self.rows)


class LaggedStrategy(Strategy):
    """Each row is the window delayed by a lag: any set of lags, or rows evenly spaced."""

    kind: Literal["lagged"]
    lags: tuple[NonNegativeInt, ...] = ()
    """Delays of the rows in sessions, each once; 0, 1, 5, 21 where neither they nor rows are given."""
    rows: int = Field(0, ge=0, le=252)
    """Instead of lags: the number of rows, delayed by 0, stride, 2 * stride and so on."""
    stride: PositiveInt = 1
    """Sessions between the delays of neighbouring rows; goes with rows."""

    @field_validator("lags")
    @classmethod
    def _distinct(cls, lags: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(lags)) < len(lags):
            raise ValueError("lags are distinct")
        return lags

    @model_validator(mode="before")
    @classmethod
    def _default_lags(cls, data: object) -> object:
        if isinstance(data, Mapping) and not {"lags", "rows"} & set(data):
            return {**data, "lags": (0, 1, 5, 21)}
        return data

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if bool(self.lags) == bool(self.rows):
            raise ValueError(
                f"give lags or rows, not both; received lags {list(self.lags)}, rows {self.rows}"
            )
        if self.stride > 1 and not self.rows:
            raise ValueError(f"a stride goes with rows; received stride {self.stride} without rows")
        return self

    @property
    def lag_set(self) -> tuple[int, ...]:
        """Delay of each row."""
        return self.lags or tuple(row * self.stride for row in range(self.rows))

    @property
    def history(self) -> int:
        """Sessions needed before the window."""
        return max(self.lag_set)

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        return ((len(self.lag_set), width), (1, 1)), ((1, width), (1, 2))

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "rows delayed by " + ", ".join(map(str, self.lag_set))

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import Lagged

        return Lagged(lags=self.lag_set)


class CalendarStrategy(Strategy):
    """Weeks by weekdays: the window cut into rows of a fixed period, anchored at the origin."""

    kind: Literal["calendar_fold"]
    period: int = Field(5, ge=2, le=252)
    """Sessions a row: 5 is a week, 21 a month."""

    @property
    def history(self) -> int:
        """Sessions needed before the window: the first row is completed by real ones."""
        return self.period - 1

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        # Two neighbouring periods, then two again: time runs down the rows as well as along them.
        return ((2, min(width, self.period)), (1, 1)), ((2, 1), (1, 1))

    def span(self, width: int) -> int:
        """Sessions of the window that the two convolutions span."""
        return 3 * self.period

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"calendar fold of period {self.period}"

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import CalendarFold

        return CalendarFold(period=self.period)


class SpectrogramStrategy(Strategy):
    """Bands by time of a causal short-time Fourier transform, with a 1D filter for each band."""

    kind: Literal["spectrogram"]
    segment: int = Field(16, ge=2, le=252)
    """Sessions a spectrum; there are segment // 2 + 1 bands."""
    scale: Literal["magnitude", "power", "log"] = "magnitude"
    """What of the spectrum is shown."""

    @property
    def history(self) -> int:
        """Sessions needed before the window."""
        return self.segment - 1

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        return ((self.segment // 2 + 1, width), (1, 1)), ((1, width), (1, 2))

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"spectrogram of {self.segment} sessions, {self.segment // 2 + 1} bands"

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import Spectrogram

        return Spectrogram(segment=self.segment, scale=self.scale)


class ParallelStrategy(Strategy):
    """Each row (or column) of the 2D kernel is a 1D filter of its own."""

    kind: Literal["parallel"]
    filters: PositiveInt = 3
    """Number of 1D filters in the kernel."""
    axis: Literal["rows", "columns"] = "rows"
    """Whether the filters are the rows or the columns of the kernel."""
    aggregate: Literal["concatenate", "mean", "sum", "max"] = "concatenate"
    """How the outputs of the filters are joined."""

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        if self.axis == "rows":
            return ((self.filters, width), (1, 1)), ((1, width), (1, 2))
        return ((width, self.filters), (1, 1)), ((width, 1), (1, 2))

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"{self.filters} parallel 1D filters from its {self.axis}, {self.aggregate}"

    def build(self) -> Parallel:
        """Make the strategy."""
        from forecaster.kernels import Parallel

        return Parallel(axis=self.axis, aggregate=self.aggregate)


class ControlStrategy(Strategy):
    """The control: a plain Conv1D as wide as ``rows`` kernels end to end, so with as many parameters.

    A comparison of liftings without it misleads: it tells what the lifting does from what the parameters do.
    """

    kind: Literal["control"]
    rows: PositiveInt = 4
    """Rows of the strategy that it is the control of."""

    def kernels(self, width: int) -> tuple[Kernel, Kernel]:
        """Give the size and dilation of the two convolutions, if each spans ``width`` steps of time."""
        return ((1, self.rows * width), (1, 1)), ((1, width), (1, 2))

    def span(self, width: int) -> int:
        """Sessions of the window that the two convolutions span."""
        return self.rows * width + 2 * (width - 1)

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"flat Conv1D as large as {self.rows} rows (control)"

    def build(self) -> Lifting:
        """Make the lifting."""
        from forecaster.liftings import Row

        return Row()


StrategySpec = Annotated[
    RowStrategy
    | ColumnStrategy
    | ReplicateStrategy
    | LaggedStrategy
    | CalendarStrategy
    | SpectrogramStrategy
    | ParallelStrategy
    | ControlStrategy,
    Field(discriminator="kind"),
]


# Models


class ModelSpec(Spec):
    """What every model has: a name, and what it needs."""

    complexity: ClassVar[int]
    """Rank among the kinds; the simpler model wins a tie."""
    baseline: ClassVar[bool] = True
    """Whether it is one of the models to beat."""

    name: Name = ""
    """Name in tables and in the tracking store; the kind where it is not given."""

    @model_validator(mode="before")
    @classmethod
    def _name_after_kind(cls, data: object) -> object:
        if isinstance(data, Mapping) and "name" not in data and isinstance(data.get("kind"), str):
            return {**data, "name": data["kind"]}
        return data

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        del lookback
        return 2


class ZeroModel(ModelSpec):
    """Past distribution of each symbol without its mean: no drift, no skill."""

    complexity: ClassVar[int] = 0

    kind: Literal["zero"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "past distribution without drift"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.naive import HistoricalForecaster

        return HistoricalForecaster(centred=True)


class HistoricalModel(ModelSpec):
    """Past distribution of each symbol: the reference of no skill."""

    complexity: ClassVar[int] = 1

    kind: Literal["historical"]

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return "past distribution"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.naive import HistoricalForecaster

        return HistoricalForecaster()


class EwmaModel(ModelSpec):
    """EWMA volatility with filtered historical simulation."""

    complexity: ClassVar[int] = 2

    kind: Literal["ewma_fhs"]
    decay: float = Field(0.94, gt=0.0, lt=1.0)
    """Weight of yesterday's variance."""
    residuals: Literal["symbol", "pooled"] = "symbol"
    """Whether each symbol has residual quantiles of its own."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"EWMA({self.decay:g}) volatility, {self.residuals} residuals"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.econometric import EwmaForecaster

        return EwmaForecaster(self.decay, by_symbol=self.residuals == "symbol")


class RidgeModel(ModelSpec):
    """Ridge regression of the scaled return on its lags, with residual quantiles."""

    complexity: ClassVar[int] = 3

    kind: Literal["ridge"]
    lags: PositiveInt = 22
    """Scaled daily returns that serve as inputs."""
    penalty: PositiveFloat = 1000.0
    """Weight of the squared coefficients, over standardised inputs."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"ridge on {self.lags} lags, residual quantiles"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return self.lags

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import RidgeForecaster

        return RidgeForecaster(self.lags, self.penalty)


class BoostingModel(ModelSpec):
    """Histogram gradient boosting of the scale on HAR features, with residual quantiles."""

    complexity: ClassVar[int] = 4

    kind: Literal["boosting"]
    iterations: PositiveInt = 60
    """Trees for each horizon."""
    learning_rate: PositiveFloat = 0.05
    """Share of each tree that is added."""
    leaves: int = Field(8, ge=2)
    """Largest number of leaves of a tree."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"gradient boosting of the scale, {self.iterations} trees a horizon"

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.learned import BoostingForecaster

        return BoostingForecaster(self.iterations, self.learning_rate, self.leaves, seed)


class Training(Spec):
    """How a network is trained."""

    epochs: PositiveInt = 4
    """Passes over the training origins."""
    batch: PositiveInt = 256
    """Origins a step."""
    learning_rate: PositiveFloat = 2e-3
    """Peak of the cosine schedule of AdamW."""
    weight_decay: NonNegativeFloat = 1e-3
    """Weight decay of AdamW."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.2
    """Share of the features that are dropped in training."""


class ConvolutionModel(ModelSpec):
    """A 2D kernel applied to the series by a strategy, beside HAR features, with a scale head."""

    complexity: ClassVar[int] = 5
    baseline: ClassVar[bool] = False

    kind: Literal["convolution"]
    strategy: StrategySpec
    """How the 2D kernel meets the 1D series."""
    filters: PositiveInt = 16
    """Filters of each convolution."""
    kernel: PositiveInt = 5
    """Steps of time that each kernel spans; the strategy gives its other side."""
    dense: PositiveInt = 32
    """Units of the hidden layer."""
    training: Training = Training()
    """How the network is trained."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""
        return f"2D kernel, {self.strategy.description}"

    def history(self, lookback: int) -> int:
        """Sessions that an origin needs up to itself."""
        return lookback + self.strategy.history

    def layers(self) -> list[KernelConvolution]:
        """Give the two convolutions, for a kernel stack or for a plan of it."""
        from forecaster.models.convolution.geometry import KernelConvolution

        return [
            KernelConvolution(self.filters, size, dilation=dilation, activation="gelu")
            for size, dilation in self.strategy.kernels(self.kernel)
        ]

    def build(self, lookback: int, seed: int) -> Forecaster:
        """Make the model."""
        from forecaster.models.convolution.model import ConvolutionForecaster

        return ConvolutionForecaster(
            strategy=self.strategy.build(),
            layers=self.layers(),
            lookback=lookback,
            dense=self.dense,
            seed=seed,
            **self.training.model_dump(),
        )


AnyModel = Annotated[
    ZeroModel | HistoricalModel | EwmaModel | RidgeModel | BoostingModel | ConvolutionModel,
    Field(discriminator="kind"),
]


# The job


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
    returns: Literal["total", "price"] = "total"
    """Whether dividends count as part of the return, where the prices say them."""
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
    workspace: str = "workspace"
    """Folder of results and of the tracking store, relative to where the command runs."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError(f"horizons are distinct and increasing; received {list(self.horizons)}")
        names = [model.name for model in self.models]
        twice = next((name for name in names if names.count(name) > 1), None)
        for number, model in enumerate(self.models):
            if isinstance(model, ConvolutionModel) and model.strategy.span(model.kernel) > self.lookback:
                raise ValueError(
                    f"models[{number}]: the convolutions of {model.name!r} span "
                    f"{model.strategy.span(model.kernel)} sessions, more than the lookback of "
                    f"{self.lookback}; look back further or take a smaller kernel"
                )
        if twice is not None:
            raise ValueError(
                f"models have distinct names; received {twice!r} more than once: give each a name"
            )
        return self

    @property
    def warm_up(self) -> int:
        """Sessions that every origin needs: the lookback, or the most that any model asks for."""
        return max(self.lookback, *(model.history(self.lookback) for model in self.models))

    @property
    def minimum_sessions(self) -> int:
        """Prices that a symbol needs: the warm-up, the longest horizon, and one for the first return."""
        return self.warm_up + max(self.horizons) + 1

    @property
    def hash(self) -> str:
        """SHA-256 of the settings, so that a result names the job that made it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class _Loader(yaml.SafeLoader):
    """A loader of text, lists and mappings: ON, NO, TRUE and 0700 are tickers, not numbers."""

    def compose_mapping_node(self, anchor: dict[Any, yaml.Node]) -> yaml.MappingNode:
        # Here and not at construction, which merges (`<<`) change: an override is no repetition.
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is text", key.start_mark)
            if key.tag != _MERGE and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {_shown(key.value)} stands twice", key.start_mark
                )
            seen.add(key.value)
        return node


_MERGE = "tag:yaml.org,2002:merge"
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == _MERGE]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.yaml_constructors = {
    tag: yaml.SafeLoader.yaml_constructors[tag]
    for tag in (*(f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")), None)
}


def parse_job(text: str, where: str) -> Job:
    """Read a job from YAML.

    Parameters
    ----------
    text : str
        The YAML document. Plain scalars stay text until the settings say what they are.
    where : str
        Name of the document, for messages.

    Raises
    ------
    JobError
        With the path of the setting, what was given, and what is allowed.
    """
    try:
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        said = ", ".join(_shorten(part) for part in (error.context, error.problem) if part)
        raise JobError(f"{where}{line}: not valid YAML: {said}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise JobError(f"{where}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(data, dict):
        raise JobError(f"{where}: a job is a mapping of settings. Received: {_shown(data)}")
    try:
        return Job.model_validate(data)
    except ValidationError as error:
        raise JobError(f"{where}: {_explain(error, data)}") from None
    except RecursionError:
        raise JobError(f"{where}: a setting contains itself; remove the alias") from None


def load_job(path: Path) -> Job:
    """Read a job file.

    Raises
    ------
    JobError
        If the file cannot be read, or as in `parse_job`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise JobError(f"{path}: no such job file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise JobError(f"{path}: the job file cannot be read as UTF-8 text: {_one_line(error)}") from None
    return parse_job(text, str(path))


def json_schema() -> dict[str, Any]:
    """JSON schema of the job file, for editors."""
    schema = Job.model_json_schema()
    for definition in schema["$defs"].values():
        if "kind" in definition["properties"]:
            definition["properties"]["kind"]["description"] = definition["description"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _shorten(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."


# Not `repr`: a few aliases of aliases stand for more text than memory holds.
_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring = 2, 80


def _shown(value: object) -> str:
    return _shorten(_SHORT.repr(value))


def _explain(error: ValidationError, data: object) -> str:
    """Say the first error in one line: path, what was given, what is allowed."""
    errors = error.errors()
    first = errors[0]
    # A list whose only entry is wrong is also said to be too short.
    others = [other for other in errors[1:] if other["loc"] != first["loc"][: len(other["loc"])]]
    path, value = "", data
    for step in first["loc"]:
        # The location also names the branches of unions, which are no keys of the document.
        if isinstance(value, Mapping) and step in value:
            path, value = f"{path}.{step}" if path else str(step), value[step]
        elif isinstance(value, Sequence) and not isinstance(value, str) and isinstance(step, int):
            path, value = f"{path}[{step}]", value[step] if step < len(value) else None
    context = first.get("ctx", {})
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] != "value_error":
        # YAML has lists and mappings where pydantic speaks of Python's types.
        message = message.replace("Tuple", "List").replace("tuple", "list")
        message = re.sub("dictionary( or object to extract fields from)?", "mapping", message)
    if first["type"] == "missing":
        missing = str(first["loc"][-1])
        path, message = f"{path}.{missing}" if path else missing, "this setting is required"
        text = f"{path}: {message}"
    elif first["type"] == "union_tag_not_found":
        text = f"{path}: a `kind` is required. Received: {_shown(value)}"
    elif first["type"] == "union_tag_invalid":
        allowed = [name.strip("'") for name in str(context["expected_tags"]).split(", ")]
        text = f"{path}.kind: unknown kind {_shown(context['tag'])}{_nearest(str(context['tag']), allowed)}"
    elif message.startswith("unknown key"):
        text = f"{path}: {message}" if path else message
    else:
        # Our own rules about a whole mapping say themselves what they received.
        ours_of_mapping = first["type"] == "value_error" and isinstance(value, Mapping)
        shown = "" if ours_of_mapping else f". Received: {_shown(value)}"
        text = f"{path}: {message}{shown}" if path else f"{message}{shown}"
    return text + (f" (and {len(others)} more)" if others else "")
