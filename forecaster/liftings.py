"""Liftings: maps of a window of a series to two dimensions, so that a 2D kernel can meet it.

A window holds ``lookback`` sessions and, before them, the ``history`` that the lifting reaches back to. Its
last session is the origin ``t``. Every lifting but the spectrogram only *places* sessions, and is described
whole by one lag a row::

    L[r, j] = x[t - (columns - 1 - j) - lag_r]

==================  =====================  ==========================  =========
lifting             rows                   columns                     history
==================  =====================  ==========================  =========
``Row``             1                      lookback                    0
``Column``          lookback               1                           0
``Replicate``       rows                   lookback                    0
``Lagged``          one a lag              lookback                    max(lags)
``CalendarFold``    weeks                  period                      period - 1
``Spectrogram``     segment // 2 + 1       ceil(lookback / hop)        segment - 1
==================  =====================  ==========================  =========

No lifting reads a session after the origin. A lifting whose lags are evenly spaced is a read-only view of the
windows; a lag set such as 0, 1, 5, 21 and the spectrogram copy.

Each lifting is also a stateless scikit-learn transformer: ``fit`` learns nothing, ``transform`` is the call.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Sequence
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt
from scipy.signal import ShortTimeFFT, get_window
from sklearn.base import BaseEstimator, TransformerMixin

from forecaster.errors import ParameterError

__all__ = [
    "Array",
    "CalendarFold",
    "Column",
    "Lagged",
    "Lifting",
    "Placement",
    "Replicate",
    "Row",
    "Spectrogram",
]

Array = npt.NDArray[np.floating[Any]]
"""A float32 or float64 array."""


@runtime_checkable
class Lifting(Protocol):
    """A map of one window to two dimensions."""

    @property
    def history(self) -> int:
        """Sessions needed before the window: the largest lag."""

    def shape(self, lookback: int) -> tuple[int, int]:
        """Rows and columns of one lifted window of ``lookback`` sessions."""

    def __call__(self, windows: npt.ArrayLike) -> Array:
        """Lift ``(n, lookback + history, channels)`` to ``(n, rows, columns, channels)``."""


@runtime_checkable
class Placement(Lifting, Protocol):
    """A lifting that only places sessions: one lag a row says it all, so a 2D kernel on it folds to 1D."""

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions: ``L[r, j] = x[t - (columns - 1 - j) - lag_r]``."""


def check_integer(name: str, value: object, minimum: int) -> int:
    """Return ``value`` as an int of at least ``minimum``.

    Raises
    ------
    ParameterError
        When it is no integer (a bool or a float is none) or too small.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_) or number < minimum:
        raise ParameterError(f"{name} must be an integer of at least {minimum}. Received: {value!r}.")
    return number


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """Return ``value`` when it is one of ``choices``.

    Raises
    ------
    ParameterError
        When it is not; the message suggests the nearest choice.
    """
    if isinstance(value, str) and value in choices:
        return value
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ParameterError(f"{name} must be one of {', '.join(map(repr, choices))}. Received: {value!r}.{hint}")


def as_finite(name: str, values: npt.ArrayLike, axes: Sequence[tuple[str, ...]]) -> Array:
    """Return ``values`` as finite floats of an allowed rank, uncopied if they are float32 or float64 already.

    Parameters
    ----------
    name : str
        What the values are, for the error.
    values : array-like
        Real numbers. float32 stays float32; everything else becomes float64.
    axes : sequence of tuples of str
        The allowed layouts, each as the names of its axes.

    Raises
    ------
    ParameterError
        When the values are not real numbers, have another rank, are empty, or hold a NaN or an infinity.
    """
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise ParameterError(f"{name} must be a rectangular array of numbers. Received: {error}.") from error
    if array.dtype.kind not in "iuf":
        raise ParameterError(f"{name} must be real numbers. Received: dtype {array.dtype}.")
    if array.ndim not in [len(layout) for layout in axes]:
        layouts = " or ".join(f"({', '.join(layout)}{',' if len(layout) == 1 else ''})" for layout in axes)
        raise ParameterError(f"{name} must have the axes {layouts}. Received: shape {array.shape}.")
    if array.size == 0:
        raise ParameterError(f"{name} must not be empty. Received: shape {array.shape}.")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    # The sum is finite in nearly every call and allocates nothing; only a doubtful one is looked at closely.
    with np.errstate(over="ignore", invalid="ignore"):
        doubtful = not np.isfinite(array.sum())
    if doubtful and not (finite := np.isfinite(array)).all():
        place = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ParameterError(
            f"{name} must be finite. Received: {array[place]} at index {place}; "
            "leave such values out or fill them first."
        )
    return array


class _Transformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What every lifting shares: the checks of its windows and scikit-learn's transformer methods."""

    @property
    def history(self) -> int:
        """Sessions needed before the window: the largest lag."""
        raise NotImplementedError

    def shape(self, lookback: int) -> tuple[int, int]:
        """Rows and columns of one lifted window of ``lookback`` sessions."""
        raise NotImplementedError

    def __call__(self, windows: npt.ArrayLike) -> Array:
        raise NotImplementedError

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:
        """Check the parameters and the windows; a lifting learns nothing.

        Parameters
        ----------
        X : array-like of shape (n, lookback + history, channels)
            Windows, oldest session first.
        y : object, optional
            Not used: scikit-learn's pipelines pass it.
        """
        self._checked(X)
        return self

    def transform(self, X: npt.ArrayLike) -> Array:
        """Lift windows ``(n, lookback + history, channels)`` to ``(n, rows, columns, channels)``."""
        return self(X)

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        return tags

    def _checked(self, windows: npt.ArrayLike) -> tuple[Array, int]:
        """Return the windows as floats, and their lookback."""
        name = type(self).__name__
        history = self.history
        array = as_finite(f"{name}: windows", windows, [("windows", "sessions", "channels")])
        lookback = array.shape[1] - history
        if lookback < 1:
            raise ParameterError(
                f"{name}: a window must hold the history of {history} sessions and at least one more. "
                f"Received: {array.shape[1]} sessions."
            )
        self.shape(lookback)  # set_params may have brought in a bad value
        return array, lookback


class _Placed(_Transformer):
    """A lifting that only places sessions: subclasses give the shape and the lag of each row."""

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions: ``L[r, j] = x[t - (columns - 1 - j) - lag_r]``."""
        raise NotImplementedError

    def __call__(self, windows: npt.ArrayLike) -> Array:
        """Lift the windows.

        Parameters
        ----------
        windows : array-like of shape (n, lookback + history, channels)
            Oldest session first. float32 stays float32; other numbers become float64. No NaN.

        Returns
        -------
        ndarray of shape (n, rows, columns, channels)
            A read-only view when the lags are evenly spaced, else a copy.

        Raises
        ------
        ParameterError
            When the windows have another rank, are empty or too short, or hold a NaN or an infinity.
        """
        array, lookback = self._checked(windows)
        rows, columns = self.shape(lookback)
        # placed[n, p] is the stretch of `columns` sessions that starts at session p of the window.
        placed = np.lib.stride_tricks.sliding_window_view(array, columns, axis=1).swapaxes(2, 3)
        lags = self.row_lags(lookback)
        newest = array.shape[1] - columns
        starts = [newest - lag for lag in lags]
        step = starts[1] - starts[0] if rows > 1 else 1
        if step == 0:
            first = placed[:, starts[0] : starts[0] + 1]
            return np.broadcast_to(first, (array.shape[0], rows, *first.shape[2:]))
        if starts == [starts[0] + step * row for row in range(rows)]:
            stop = starts[-1] + (1 if step > 0 else -1)
            return placed[:, starts[0] : (stop if stop >= 0 else None) : step]
        return placed[:, starts]


class Row(_Placed):
    """The series itself, as one row: a ``1 x lookback`` image.

    Examples
    --------
    >>> Row()(np.arange(6.0).reshape(1, 6, 1)).shape
    (1, 1, 6, 1)
    """

    @property
    def history(self) -> int:
        """Sessions needed before the window: none."""
        return 0

    @property
    def lag_set(self) -> tuple[int, ...]:
        """Lag of each row."""
        return (0,)

    def shape(self, lookback: int) -> tuple[int, int]:
        """One row of ``lookback`` columns."""
        return 1, check_integer("lookback", lookback, 1)

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions."""
        return self.lag_set


class Column(_Placed):
    """The series itself, as one column, oldest session first: a ``lookback x 1`` image.

    Examples
    --------
    >>> Column()(np.arange(6.0).reshape(1, 6, 1)).shape
    (1, 6, 1, 1)
    """

    @property
    def history(self) -> int:
        """Sessions needed before the window: none."""
        return 0

    def shape(self, lookback: int) -> tuple[int, int]:
        """``lookback`` rows of one column."""
        return check_integer("lookback", lookback, 1), 1

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions: row r is session ``lookback - 1 - r`` before the origin."""
        return tuple(range(self.shape(lookback)[0] - 1, -1, -1))


class Replicate(_Placed):
    """The series, repeated in identical rows: a pseudo-2D image.

    Parameters
    ----------
    rows : int, default 3
        Number of identical rows, at least 1.

    Examples
    --------
    >>> Replicate(rows=3)(np.arange(6.0).reshape(1, 6, 1)).shape
    (1, 3, 6, 1)
    """

    def __init__(self, rows: int = 3) -> None:
        self.rows = rows
        _ = self.lag_set  # a bad value is told here, not in the middle of a job

    @property
    def history(self) -> int:
        """Sessions needed before the window: none."""
        return 0

    @property
    def lag_set(self) -> tuple[int, ...]:
        """Lag of each row."""
        return (0,) * check_integer("Replicate: rows", self.rows, 1)

    def shape(self, lookback: int) -> tuple[int, int]:
        """``rows`` rows of ``lookback`` columns."""
        return len(self.lag_set), check_integer("lookback", lookback, 1)

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions."""
        return self.lag_set


class Lagged(_Placed):
    """Delayed copies of the series: row r is the series delayed by ``lag_r`` sessions.

    Give either the lags or the number of rows. With lag 0 first, the newest session is the last column of
    row 0.

    Parameters
    ----------
    lags : sequence of int, optional
        Lag of each row in sessions, none negative, none repeated, in the order of the rows.
    rows : int, optional
        Number of rows, for the evenly spaced lags ``0, stride, 2 * stride, ...``.
    stride : int, optional
        Sessions between the lags of neighbouring rows, at least 1; 1 by default. Only with ``rows``.

    Examples
    --------
    >>> Lagged(rows=4, stride=2).lag_set
    (0, 2, 4, 6)
    >>> Lagged(lags=(0, 1, 5, 21)).history
    21
    """

    def __init__(
        self,
        lags: Sequence[int] | npt.NDArray[np.integer[Any]] | None = None,
        *,
        rows: int | None = None,
        stride: int | None = None,
    ) -> None:
        self.lags = lags
        self.rows = rows
        self.stride = stride
        _ = self.lag_set  # a bad value is told here, not in the middle of a job

    @property
    def lag_set(self) -> tuple[int, ...]:
        """Lag of each row."""
        if self.lags is None:
            if self.rows is None:
                raise ParameterError("Lagged needs lags or rows. Received: neither.")
            rows = check_integer("Lagged: rows", self.rows, 1)
            stride = 1 if self.stride is None else check_integer("Lagged: stride", self.stride, 1)
            return tuple(range(0, rows * stride, stride))
        if self.rows is not None or self.stride is not None:
            raise ParameterError(
                "Lagged takes either lags, or rows and stride. "
                f"Received: lags={self.lags!r}, rows={self.rows!r}, stride={self.stride!r}."
            )
        if not isinstance(self.lags, Sequence | np.ndarray) or getattr(self.lags, "ndim", 1) == 0:
            raise ParameterError(f"Lagged: lags must be a sequence of integers. Received: {self.lags!r}.")
        lags = tuple(check_integer("Lagged: every lag", lag, 0) for lag in self.lags)
        if not lags:
            raise ParameterError("Lagged: lags must name at least one lag. Received: none.")
        if len(set(lags)) < len(lags):
            raise ParameterError(
                f"Lagged: no lag may be repeated. Received: {lags}; use Replicate to repeat a row."
            )
        return lags

    @property
    def history(self) -> int:
        """Sessions needed before the window: the largest lag."""
        return max(self.lag_set)

    def shape(self, lookback: int) -> tuple[int, int]:
        """One row a lag, of ``lookback`` columns."""
        return len(self.lag_set), check_integer("lookback", lookback, 1)

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions."""
        return self.lag_set


class CalendarFold(_Placed):
    """Weeks by weekdays: the series cut into rows of a fixed period, oldest row first, as in a calendar.

    The period is given, not estimated, and the cut is anchored at the origin, which is always the last column
    of the last row: the image of a window never depends on its batch nor on what comes later. A column
    therefore means "k sessions before the end of the period", not a weekday by name: holidays shift the
    weekdays, not the columns. When the lookback is no multiple of the period, the first row is completed by
    real history, never by padding.

    Parameters
    ----------
    period : int, default 5
        Sessions a row, at least 1: 5 is a week, 21 a month.

    References
    ----------
    H. Wu, T. Hu, Y. Liu, H. Zhou, J. Wang, M. Long: "TimesNet: Temporal 2D-Variation Modeling for General
    Time Series Analysis", ICLR 2023. Its periods are estimated over the batch; this one is fixed.

    Examples
    --------
    >>> CalendarFold(period=5).shape(63)
    (13, 5)
    """

    def __init__(self, period: int = 5) -> None:
        self.period = period
        _ = self.history  # a bad value is told here, not in the middle of a job

    @property
    def history(self) -> int:
        """Sessions needed before the window: one less than the period, to complete the oldest row."""
        return check_integer("CalendarFold: period", self.period, 1) - 1

    def shape(self, lookback: int) -> tuple[int, int]:
        """As many rows of ``period`` columns as cover ``lookback`` sessions."""
        period = self.history + 1
        return -(-check_integer("lookback", lookback, 1) // period), period

    def row_lags(self, lookback: int) -> tuple[int, ...]:
        """Lag of each row in sessions: whole periods, the oldest row first."""
        rows, period = self.shape(lookback)
        return tuple(period * (rows - 1 - row) for row in range(rows))


class Spectrogram(_Transformer):
    """Causal short-time Fourier transform: bands by time.

    The column of a session is the spectrum of the ``segment`` sessions that *end* at it, so that no column
    reads ahead; scipy's transform centres its segments instead. Nothing is padded: the first columns reach
    back into the history. With a hop above 1, the columns are counted back from the origin, so that the
    newest session always has its own.

    Parameters
    ----------
    segment : int, default 16
        Sessions a spectrum, at least 2. There are ``segment // 2 + 1`` bands.
    hop : int, default 1
        Sessions between columns, at least 1.
    taper : str or tuple, default "hann"
        A window of ``scipy.signal.get_window``. Tapers such as Hann give the newest sessions of a segment
        little weight; ``"boxcar"`` weights all alike, at the price of leakage between bands.
    scale : {"magnitude", "power", "log"}, default "magnitude"
        Magnitude, in the unit of the series (a sinusoid of amplitude A in the middle of a band has A / 2);
        power spectral density, in that unit squared per cycle a session, not doubled for the negative
        frequencies; or ``log(1 + power)``.

    See Also
    --------
    scipy.signal.ShortTimeFFT : the transform used here.

    Examples
    --------
    >>> Spectrogram(segment=16).shape(63)
    (9, 63)
    """

    def __init__(
        self,
        segment: int = 16,
        hop: int = 1,
        taper: str | tuple[Any, ...] = "hann",
        scale: str = "magnitude",
    ) -> None:
        self.segment = segment
        self.hop = hop
        self.taper = taper
        self.scale = scale
        self._transform()  # a bad value is told here, not in the middle of a job

    def _transform(self) -> ShortTimeFFT:
        """Check the parameters and build scipy's transform of them."""
        segment = check_integer("Spectrogram: segment", self.segment, 2)
        hop = check_integer("Spectrogram: hop", self.hop, 1)
        scale = check_choice("Spectrogram: scale", self.scale, ("magnitude", "power", "log"))
        try:
            weights = get_window(self.taper, segment)
        except (ValueError, TypeError) as error:
            raise ParameterError(
                "Spectrogram: taper must be a window of scipy.signal.get_window, such as 'hann' or 'boxcar'. "
                f"Received: {self.taper!r}."
            ) from error
        return ShortTimeFFT(weights, hop, fs=1.0, scale_to="magnitude" if scale == "magnitude" else "psd")

    @property
    def history(self) -> int:
        """Sessions needed before the window: the segment of the oldest column."""
        return int(self._transform().m_num) - 1

    @property
    def periods(self) -> npt.NDArray[np.float64]:
        """Period of each band in sessions, shape (bands,): infinite in band 0, about 2 in the last."""
        with np.errstate(divide="ignore"):
            return np.asarray(1.0 / self._transform().f, dtype=np.float64)

    def shape(self, lookback: int) -> tuple[int, int]:
        """``segment // 2 + 1`` bands, and one column every ``hop`` sessions."""
        transform = self._transform()
        return int(transform.f_pts), -(-check_integer("lookback", lookback, 1) // transform.hop)

    def __call__(self, windows: npt.ArrayLike) -> Array:
        """Lift the windows.

        Parameters
        ----------
        windows : array-like of shape (n, lookback + history, channels)
            Oldest session first. float32 stays float32; other numbers become float64. No NaN.

        Returns
        -------
        ndarray of shape (n, bands, columns, channels)
            Band 0 is the mean level; see ``periods`` for the others.

        Raises
        ------
        ParameterError
            When the windows have another rank, are empty or too short, or hold a NaN or an infinity.
        """
        array, lookback = self._checked(windows)
        transform = self._transform()
        columns = self.shape(lookback)[1]
        # Count the segments back from the newest session: what a hop leaves over is dropped at the old end.
        first = array.shape[1] - (columns - 1) * transform.hop - transform.m_num
        # scipy centres segment p at p * hop; the offset makes it start there instead.
        spectrum = transform.stft(
            array[:, first:], 0, columns, k_offset=transform.m_num_mid, padding="zeros", axis=1
        )
        # scipy answers (n, bands, channels, columns).
        values = np.abs(np.swapaxes(spectrum, 2, 3))
        if self.scale != "magnitude":
            values = values**2
        if self.scale == "log":
            values = np.log1p(values)
        return np.asarray(values, dtype=array.dtype)
