"""Settings of how a 2D kernel meets a 1D series."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, NonNegativeInt, PositiveInt, field_validator, model_validator

from forecaster.job.base import Spec

if TYPE_CHECKING:
    from forecaster.kernels import Parallel
    from forecaster.liftings import Lifting

__all__ = ["StrategySpec"]

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
