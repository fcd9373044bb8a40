"""Timestamps of a table: text, dates or numbers as one axis of time with one constant step.

A series without a step has no future: between its rows every step must be the same, a fixed length
of time (an hour) or one of the calendar (a month, a working day). What breaks it (a repetition, a
row out of order, a gap, an odd step) is named with its place and number, never repaired in silence.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.records import counted

# Clock readings between the years 2001 and 2286 tell their own unit; other numbers are counts.
_EPOCHS = ((1e9, 1e10, "s"), (1e12, 1e13, "ms"), (1e15, 1e16, "us"), (1e18, 1e19, "ns"))
# Steps of the calendar, the longest first: a series of years also stands on the first of months.
_CALENDAR = ("YS", "YE", "QS", "QE", "MS", "ME", "D")
_DAY = 86400 * 10**9

_OFFSET = re.compile(r"[T ]\d\d.*(?:Z|[+-]\d\d:?(?:\d\d)?)$")
LAST_YEAR = 2262  # the year in which 64 bits of nanoseconds end

Times = pd.DatetimeIndex | pd.Index


@dataclass(frozen=True)
class Rows:
    """What rows are called in messages: the table, the line of its first row (0: rows are no lines).

    ``places`` says where the rows of one series stand in a table of several.
    """

    where: object
    first_line: int
    places: tuple[int, ...] = ()

    def name(self, row: int) -> str:
        """Returns a row's name."""
        word = "line" if self.first_line else "row"
        return f"{self.where}, {word} {(self.places[row] if self.places else row) + self.first_line}"


@dataclass(frozen=True)
class Step:
    """The distance of two rows: ``size`` is a length of time, an offset of the calendar, or a whole number.

    ``name`` is how people write it: 1 h, MS (month start), 1.
    """

    size: Any
    name: str

    def after(self, times: Times, *, count: int) -> Times:
        """Returns the ``count`` times that follow the last one."""
        last = times[-1]
        if isinstance(times, pd.DatetimeIndex):
            return pd.date_range(last, periods=count + 1, freq=self.size)[1:]
        return pd.Index(last + self.size * np.arange(1, count + 1), dtype="int64")

    def grid(self, times: Times) -> Times:
        """Returns every time from the first to the last."""
        if isinstance(times, pd.DatetimeIndex):
            return pd.date_range(times[0], times[-1], freq=self.size)
        return pd.Index(np.arange(times[0], times[-1] + 1, self.size), dtype="int64")


def parse_times(column: pd.Series, *, style: str = "", zone: str = "", rows: Rows, title: str) -> Times:
    """Returns a column as times, or as whole numbers where it counts (steps, years).

    Text is ISO 8601 (2024-05-01, 2024-05-01 13:00, 2024-05-01T13:00:00+02:00), or what ``style``
    says in the letters of strptime. Numbers are seconds, milli-, micro- or nanoseconds since 1970
    where they can only be that. Times with an offset become UTC; ``zone`` is the zone of times that
    state none, and what the others are shown in.

    Raises:
        DataError: a missing time, text that is no time, or an unknown zone.
    """
    where = f"column '{title}'"
    if missing := np.flatnonzero(column.isna()).tolist():
        must, found = "have a time in every row", f"{counted(len(missing), 'row')} without one"
        raise DataError(f"{rows.name(missing[0])}, {where}", must=must, found=found)
    if column.dtype.kind in "iuf" and not style:
        times = _from_numbers(column.to_numpy(), rows=rows, where=where)
        if not isinstance(times, pd.DatetimeIndex):
            return times
    else:
        times = _from_text(column, style=style, rows=rows, where=where)
    return _in_zone(times, zone, where=f"{rows.where}, {where}") if zone else times


def _from_numbers(values: np.ndarray, *, rows: Rows, where: str) -> Times:
    for low, high, unit in _EPOCHS:
        if (values >= low).all() and (values < high).all():
            return pd.DatetimeIndex(pd.to_datetime(values, unit=unit, utc=True)).as_unit("ns")
    whole = values.astype(np.int64)
    if (odd := np.flatnonzero(whole != values)).size:
        raise DataError(
            f"{rows.name(int(odd[0]))}, {where}",
            must="hold times, whole numbers, or seconds since 1970",
            found=f"{values[odd[0]]:g}",
        )
    return pd.Index(whole, dtype="int64")


def _from_text(column: pd.Series, *, style: str, rows: Rows, where: str) -> pd.DatetimeIndex:
    kind = style or "ISO8601"
    text = column.dtype.kind != "M"  # of dates with and without a zone
    column = column.astype(str) if text else column
    try:
        times = pd.DatetimeIndex(pd.to_datetime(column, format=kind, utc=True)).as_unit("ns")
    except (ValueError, TypeError, OverflowError) as error:
        place = _first_bad(column, kind=kind)
        raise DataError(
            f"{rows.name(place)}, {where}",
            must=f"hold a time in the style {style}" if style else "hold a time such as 2024-05-01 13:00",
            found=repr(column.iloc[place]),
            do="" if style else "Set input.style to how it is written, for instance '%d/%m/%Y %H:%M'.",
        ) from error
    if not text:
        zoned = isinstance(column.dtype, pd.DatetimeTZDtype)
    else:
        zoned = _have_offsets(column, style=style, rows=rows, where=where)
    return times if zoned else times.tz_localize(None)


def _have_offsets(column: pd.Series, *, style: str, rows: Rows, where: str) -> bool:
    """Returns whether the times state their distance from UTC.

    Raises:
        DataError: only some do; one instant could then be two.
    """
    stated = column.str.contains(_OFFSET).to_numpy(dtype=bool)
    if style or stated.all() or not stated.any():
        return "%z" in style.lower() or bool(stated.all() and not style)
    place = int(np.argmax(stated != stated[0]))
    raise DataError(
        f"{rows.name(place)}, {where}",
        must="state its offset from UTC as the first row does" if stated[0] else "state no offset, as the first row",
        found=repr(column.iloc[place]),
    )


def _first_bad(column: pd.Series, *, kind: str) -> int:
    times = pd.to_datetime(column, format=kind, errors="coerce", utc=True)
    return int(np.argmin(times.notna().to_numpy() & (times.dt.year < LAST_YEAR).to_numpy()))


def _in_zone(times: pd.DatetimeIndex, zone: str, *, where: str) -> pd.DatetimeIndex:
    try:
        if times.tz is not None:
            return times.tz_convert(zone)
        return times.tz_localize(zone, ambiguous="infer", nonexistent="raise")
    except (KeyError, ValueError) as error:  # unknown zones are a KeyError of zoneinfo
        raise DataError(
            where,
            must=f"hold times of the zone '{zone}' (input.zone)",
            found=f"'{error}'",
        ) from error


def find_step(times: Times, *, rows: Rows, title: str) -> Step:
    """Returns the step of times that follow each other.

    Raises:
        DataError: fewer than 3 rows, a time that is repeated or earlier than the one before, a step
            that is no multiple of the usual one. Gaps of whole steps are left to ``missing_rows``.
    """
    if len(times) < 3:
        raise DataError(rows.where, must="have at least 3 rows, to tell their step", found=str(len(times)))
    clock = isinstance(times, pd.DatetimeIndex)
    numbers = np.asarray(times.asi8 if isinstance(times, pd.DatetimeIndex) else times, dtype=np.int64)
    steps = np.diff(numbers)
    _require_rising(steps, times=times, rows=rows, title=title)
    sizes, counts = np.unique(steps, return_counts=True)
    usual = int(sizes[counts.argmax()])
    odd = np.flatnonzero(steps % usual)
    if isinstance(times, pd.DatetimeIndex) and (name := _calendar_step(times, usual=usual, odd=len(odd) > 0)):
        return Step(pd.tseries.frequencies.to_offset(name), name)
    if len(odd):
        place = int(odd[0])
        raise DataError(
            f"{rows.name(place + 1)}, column '{title}'",
            must=f"follow the row before by {_length(usual, clock)} or a multiple of it",
            found=f"{_length(int(steps[place]), clock)} ({counted(len(odd), 'such step')})",
            do="Bring the rows to one constant step, for instance with pandas.resample.",
        )
    return Step(pd.Timedelta(usual, "ns") if clock else usual, _length(usual, clock))


def _calendar_step(times: pd.DatetimeIndex, *, usual: int, odd: bool) -> str:
    """Returns the step of the calendar on which all times stand, empty where a fixed length will do."""
    if usual == _DAY and len(times) > 10 and (times.day_of_week < 5).all():
        return "B"
    if not odd or usual < _DAY - 3600 * 10**9:  # the shortest day of summer time
        return ""
    for name in _CALENDAR:
        offset = pd.tseries.frequencies.to_offset(name)
        if all(offset.is_on_offset(moment) for moment in times):
            return name
    return ""


def _require_rising(steps: np.ndarray, *, times: Times, rows: Rows, title: str) -> None:
    back = np.flatnonzero(steps < 0)
    same = np.flatnonzero(steps == 0)
    bad = back if len(back) else same
    if not len(bad):
        return
    place = int(bad[0]) + 1
    what = "an earlier time" if len(back) else "the same time again"
    number = f" ({counted(len(bad), 'such row')})"
    raise DataError(
        f"{rows.name(place)}, column '{title}'",
        must="be later than the row before",
        found=f"{what}, {times[place]}{number}",
        do="Sort the rows by time."
        if len(back)
        else "Remove the repetition; of several series below each other, name the column that tells them apart "
        "in input.id.",
    )


def missing_rows(times: Times, step: Step) -> np.ndarray:
    """Returns for each time of the whole grid its row, -1 where there is none."""
    return np.asarray(times.get_indexer(step.grid(times)))


def _length(size: int, clock: bool) -> str:
    """Returns a step as people write it: 1 h, 15 min, 7 d."""
    if not clock:
        return str(size)
    for unit, length in (("d", _DAY), ("h", 3600 * 10**9), ("min", 60 * 10**9), ("s", 10**9)):
        if size % length == 0:
            return f"{size // length} {unit}"
    return f"{size / 1e9:g} s"


def usual_period(times: Times, step: Step) -> int:
    """Returns how many steps the cycle has that such series usually follow: a day of hours, a year of months.

    Returns 1 where none is usual (numbers instead of times, years).
    """
    if not isinstance(times, pd.DatetimeIndex):
        return 1
    if not isinstance(step.size, pd.Timedelta):
        return {"D": 7, "B": 5, "MS": 12, "ME": 12, "QS": 4, "QE": 4}.get(step.name, 1)
    seconds = step.size.total_seconds()
    # Of 4 to 1440 steps, a day or the next longer one: a day of minutes or hours, a week of days, a year of weeks.
    cycles = (60, 3600, _DAY / 1e9, 7 * _DAY / 1e9, 364 * _DAY / 1e9)
    fitting = [cycle for cycle in cycles if cycle % seconds == 0 and 4 <= cycle / seconds <= 1440]
    days = [cycle for cycle in fitting if cycle >= _DAY / 1e9]
    chosen = days or fitting[-1:]
    return round(chosen[0] / seconds) if chosen else 1
