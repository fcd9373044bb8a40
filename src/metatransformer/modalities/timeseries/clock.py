"""The one constant step on which the times of a series stand.

A series without a step has no future: between its rows every step must be the same, a fixed length
of time (an hour) or one of the calendar (a month, a working day). What breaks it (a repetition, a
row out of order, a gap, an odd step) is named with its place and number, never repaired in silence.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.given import Rows
from metatransformer.data.records import counted
from metatransformer.modalities._recording.times import Times

_DAY = 86400 * 10**9
_HOUR = 3600 * 10**9
MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
WEEKS = ("1st", "2nd", "3rd", "4th")


@dataclass(frozen=True)
class Step:
    """The distance of two rows: ``size`` is a length of time, an offset of the calendar, or a whole number.

    ``name`` is how people write it: 1 h, MS (month start), 1. ``months``: how many whole months it is, else 0.
    """

    size: Any
    name: str
    months: int = 0

    def after(self, times: Times, *, count: int) -> Times:
        """Returns the ``count`` times that follow the last one."""
        last = times[-1]
        if isinstance(times, pd.DatetimeIndex):
            return pd.date_range(last, periods=count + 1, freq=self.size)[1:]
        return pd.Index(last + self.size * np.arange(1, count + 1), dtype="int64")

    def grid(self, times: Times) -> Times:
        """Returns every time from the first to the last."""
        if isinstance(times, pd.DatetimeIndex):
            # Rounded stamps may end a little before the last step.
            rest = self.size / 2 if isinstance(self.size, pd.Timedelta) else pd.Timedelta(0)
            return pd.date_range(times[0], times[-1] + rest, freq=self.size)
        return pd.Index(np.arange(times[0], times[-1] + 1, self.size), dtype="int64")


def find_step(times: Times, *, rows: Rows, title: str) -> Step:
    """Returns the step of times that follow each other.

    Raises:
        DataError: fewer than 3 rows, a time that is repeated or earlier than the one before, a step
            that is no multiple of the usual one. Gaps of whole steps are left to ``missing_rows``.
    """
    if len(times) < 3:
        do = "Of several series input.short=skip leaves out those that are too short."
        raise DataError(rows.where, must="have at least 3 rows, to tell their step", found=str(len(times)), do=do)
    numbers = np.asarray(times.as_unit("ns").asi8 if isinstance(times, pd.DatetimeIndex) else times, dtype=np.int64)
    steps = np.diff(numbers)
    _require_rising(steps, times=times, rows=rows, title=title)
    usual = _most_frequent(steps)
    odd = np.flatnonzero(steps % usual)
    clock = isinstance(times, pd.DatetimeIndex)
    if clock and (found := _calendar_step(times, usual=usual, odd=len(odd) > 0)):
        return found
    if clock and len(odd) and (exact := _unrounded(numbers, usual=usual)):
        return Step(pd.Timedelta(exact, "ns"), _length(exact, clock))
    if len(odd):
        place = int(odd[0])
        raise DataError(
            f"{rows.name(place + 1)}, column '{title}'",
            must=f"follow the row before by {_length(usual, clock)} or a multiple of it",
            found=f"{_length(int(steps[place]), clock)} ({counted(len(odd), 'such step')})",
            do="Bring the rows to one constant step, for instance with pandas.resample.",
        )
    return Step(pd.Timedelta(usual, "ns") if clock else usual, _length(usual, clock))


def _most_frequent(steps: np.ndarray) -> int:
    sizes, counts = np.unique(steps, return_counts=True)
    return int(sizes[counts.argmax()])


def _calendar_step(times: pd.DatetimeIndex, *, usual: int, odd: bool) -> Step | None:
    """Returns the step of the calendar on which all times stand, None where a fixed length will do."""
    local: Any = times.tz_localize(None)  # what fields it has, pandas' types do not say
    days = local.normalize()
    if usual < _DAY - _HOUR or len((local - days).unique()) > 1:  # the shortest day of summer time; one time of day
        return None
    if usual == _DAY and len(times) > 10 and (days.day_of_week < 5).all():
        return Step(pd.offsets.BDay(), "B")
    if usual >= 28 * _DAY and (found := _monthly_step(days)):
        return found
    if not odd:
        return None
    apart = np.diff(days.as_unit("ns").asi8)
    if times.tz is not None and not (apart % (size := _most_frequent(apart))).any():
        count = size // _DAY
        return Step(pd.offsets.Day(count), "D" if count == 1 else f"{count} d")
    half = {"SMS": pd.offsets.SemiMonthBegin(), "SME": pd.offsets.SemiMonthEnd()}
    return next((Step(size, name) for name, size in half.items() if all(map(size.is_on_offset, days))), None)


def _monthly_step(days: Any) -> Step | None:
    """Returns a step of whole months: between first or last (working) days, the same days, or the same weekdays."""
    months = np.asarray(days.year * 12 + days.month)
    apart = np.diff(months)
    count = max(1, _most_frequent(apart))
    if apart.min() <= 0 or (apart % count).any():
        return None
    for base in ("MS", "ME", "BMS", "BME"):
        if all(map(pd.tseries.frequencies.to_offset(base).is_on_offset, days)):
            size = pd.tseries.frequencies.to_offset(f"{count}{base}")
            return Step(size, _monthly_name(base, count=count, month=int(days[0].month)), count)
    every = {1: "month", 2: "2nd month", 3: "3rd month"}.get(count, f"{count}th month")
    if (days.day == days[0].day).all():
        return Step(pd.DateOffset(months=count), f"day {days[0].day} of every {every}", count)
    week, weekday = (days[0].day - 1) // 7, days[0].day_of_week
    if week < 4 and (days.day_of_week == weekday).all() and ((days.day - 1) // 7 == week).all():
        name = f"{WEEKS[week]} {days[0].day_name()} of every {every}"
        return Step(pd.offsets.WeekOfMonth(count, week=week, weekday=weekday), name, count)
    return None


def _monthly_name(base: str, *, count: int, month: int) -> str:
    """Returns what pandas calls a step of months: QS-FEB for quarters that begin with February."""
    length = {1: "M", 3: "Q", 12: "Y"}.get(count)
    if length is None:
        return f"{count}{base}"
    usual = (month - base.endswith("S")) % count == 0  # quarters and years of the calendar need no month
    return f"{base[:-2]}{length}{base[-1]}{'' if usual else f'-{MONTHS[month - 1]}'}"


def _unrounded(numbers: np.ndarray, *, usual: int) -> int:
    """Returns the step of times that were rounded to a decimal part of a second, 0 where that explains them not."""
    steps = np.diff(numbers)
    counts = np.rint(steps / steps[steps < 1.5 * usual].mean())
    places = np.concatenate([[0.0], counts.cumsum()])
    length = (numbers[-1] - numbers[0]) / places[-1]
    unit = next(10**power for power in range(9, -1, -1) if not (numbers % 10**power).any())
    near = np.abs(numbers - numbers[0] - places * length) <= unit
    return round(length) if counts.min() > 0 and 2 * unit < length and near.all() else 0


def _require_rising(steps: np.ndarray, *, times: Times, rows: Rows, title: str) -> None:
    back = np.flatnonzero(steps < 0)
    same = np.flatnonzero(steps == 0)
    bad = back if len(back) else same
    if not len(bad):
        return
    place = int(bad[0]) + 1
    what = "an earlier time" if len(back) else "the same time again"
    number = f" ({counted(len(bad), 'such row')})"
    do = "Sort the rows by time."
    if not len(back):
        do = "Remove the repetition; of several series below each other, name the column that tells them apart in "
        do += "input.id."
    if isinstance(times, pd.DatetimeIndex) and times.tz is None and (-_HOUR <= steps[bad]).all():
        do += " An hour that comes twice when summer time ends needs its zone (input.zone=Europe/Berlin)."
    raise DataError(
        f"{rows.name(place)}, column '{title}'",
        must="be later than the row before",
        found=f"{what}, {times[place]}{number}",
        do=do,
    )


def missing_rows(times: Times, step: Step) -> np.ndarray:
    """Returns for each time of the whole grid its row, -1 where there is none."""
    grid = step.grid(times)
    if isinstance(step.size, pd.Timedelta):
        return np.asarray(times.get_indexer(grid, method="nearest", tolerance=0.49 * step.size))
    return np.asarray(times.get_indexer(grid))


def _length(size: int, clock: bool) -> str:
    """Returns a step as people write it: 1 h, 15 min, 7 d."""
    if not clock:
        return str(size)
    for unit, length in (("d", _DAY), ("h", _HOUR), ("min", 60 * 10**9), ("s", 10**9)):
        if size % length == 0:
            return f"{size // length} {unit}"
    return f"{size / 1e9:g} s"


def usual_period(times: Times, step: Step) -> int:
    """Returns how many steps the cycle has that such series usually follow: a day of hours, a year of months.

    Returns 1 where none is usual (numbers instead of times, years).
    """
    if not isinstance(times, pd.DatetimeIndex):
        return 1
    if step.months:
        return 12 // step.months if 12 % step.months == 0 else 1
    if not isinstance(step.size, pd.Timedelta):
        return {"D": 7, "B": 5, "7 d": 52, "SMS": 24, "SME": 24}.get(step.name, 1)
    seconds = step.size.total_seconds()
    # Of 4 to 1440 steps, a day or the next longer one: a day of minutes or hours, a week of days, a year of weeks.
    cycles = (60, 3600, _DAY / 1e9, 7 * _DAY / 1e9, 364 * _DAY / 1e9)
    fitting = [cycle for cycle in cycles if cycle % seconds == 0 and 4 <= cycle / seconds <= 1440]
    days = [cycle for cycle in fitting if cycle >= _DAY / 1e9]
    chosen = days or fitting[-1:]
    return round(chosen[0] / seconds) if chosen else 1
