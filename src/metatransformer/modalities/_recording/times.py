"""Timestamps of a table as one axis of time: text, dates or numbers, each row's day without a doubt."""

import re
from itertools import product

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.given import Rows
from metatransformer.data.records import counted

# Clock readings between the years 2001 and 2286 tell their own unit; other numbers are counts.
EPOCHS = ((1e9, 1e10, "s"), (1e12, 1e13, "ms"), (1e15, 1e16, "us"), (1e18, 1e19, "ns"))
LAST_YEAR = 2262  # the year in which 64 bits of nanoseconds end

_OFFSET = re.compile(r"[T ]\d\d.*(?:Z|[+-]\d\d:?(?:\d\d)?)$")
_ZULU = re.compile(r"\s*(?:UTC|GMT|Z)$")
_QUARTER = re.compile(r"^(?P<year>\d{4})[- ]?Q(?P<quarter>[1-4])$|^Q(?P<first>[1-4])[- ]?(?P<last>\d{4})$")
_WEEK = re.compile(r"^(\d{4})-?W(\d\d)$")
_DATES = "%d/%m/%Y %m/%d/%Y %d/%m/%y %m/%d/%y %d.%m.%Y %m.%d.%Y %d-%m-%Y %m-%d-%Y %m/%Y %d-%b-%Y %b-%y %b-%Y".split()
_DATES += ["%b %Y", "%B %Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y"]
_CLOCKS = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")

Times = pd.DatetimeIndex | pd.Index


def parse_times(column: pd.Series, *, style: str = "", zone: str = "", rows: Rows, title: str) -> Times:
    """Returns a column as times, or as whole numbers where it counts (steps, years).

    Text is ISO 8601 (2024-05-01, 2024-05-01 13:00, 2024-05-01T13:00:00+02:00), a quarter or week (2024-Q2, 2024-W18),
    another usual form that only one day fits (31/05/2024), or what ``style`` says in the letters of strptime. Numbers
    are seconds, milli-, micro- or nanoseconds since 1970, or 20240501, or 202405, where they can only be that. Times
    with an offset become UTC; ``zone`` is the zone of times that state none, and what the others are shown in.

    Raises:
        DataError: a missing time, text that is no time or may be two, or an unknown zone.
    """
    where = f"column '{title}'"
    if missing := np.flatnonzero(column.isna()).tolist():
        must, found = "have a time in every row", f"{counted(len(missing), 'row')} without one"
        raise DataError(f"{rows.name(missing[0])}, {where}", must=must, found=found)
    if column.dtype.kind in "iuf" and not style:
        values = column.to_numpy(dtype=np.float64) if column.dtype.kind == "f" else column.to_numpy()
        times = _from_numbers(values, rows=rows, where=where)
        if not isinstance(times, pd.DatetimeIndex):
            return times
    else:
        times = _from_text(column, style=style, rows=rows, where=where)
    return _in_zone(times, zone, where=f"{rows.where}, {where}") if zone else times


def style_of(column: pd.Series, *, style: str, rows: Rows, title: str) -> str:
    """Returns how a column of times is written: ``style`` where it fits; "" for ISO 8601 and where nobody knows.

    Raises:
        DataError: several styles read the whole column, as different days.
    """
    if is_iso(column):
        return ""
    if style and pd.to_datetime(column, format=style, errors="coerce").notna().all():
        return style
    return _usual_style(_as_iso(column.str.strip()), rows=rows, where=f"column '{title}'")


def _from_numbers(values: np.ndarray, *, rows: Rows, where: str) -> Times:
    for low, high, unit in EPOCHS:
        if (values >= low).all() and (values < high).all():
            if unit == "s" and values.dtype.kind == "f":  # more than microseconds a double does not resolve
                values, unit = np.rint(values * 1e6).astype(np.int64), "us"
            return pd.DatetimeIndex(pd.to_datetime(values, unit=unit, utc=True)).as_unit("ns")
    with np.errstate(invalid="ignore"):  # what is no whole number is told below
        whole = values.astype(np.int64)
    if (odd := np.flatnonzero(whole != values)).size:
        raise DataError(
            f"{rows.name(int(odd[0]))}, {where}",
            must="hold times, whole numbers, or seconds since 1970",
            found=f"{values[odd[0]]:g}",
        )
    for low, high, style in ((190001, 210012, "%Y%m"), (19000101, 21001231, "%Y%m%d")):
        if (whole >= low).all() and (whole <= high).all():
            dates = pd.DatetimeIndex(pd.to_datetime(pd.Series(whole).astype(str), format=style, errors="coerce"))
            if dates.notna().all():
                return dates.as_unit("ns")
    return pd.Index(whole, dtype="int64")


def _from_text(column: pd.Series, *, style: str, rows: Rows, where: str) -> pd.DatetimeIndex:
    text = column.dtype.kind != "M"  # of dates with and without a zone
    column = column.map(str) if text else column
    if text and not style and not is_iso(column.iloc[:1]):
        column = _as_iso(column.str.strip())
        style = _usual_style(column, rows=rows, where=where)
    try:
        times = pd.DatetimeIndex(pd.to_datetime(column, format=style or "ISO8601", utc=True)).as_unit("ns")
    except (ValueError, TypeError, OverflowError) as error:
        place = _first_bad(column, kind=style or "ISO8601")
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


def is_iso(column: pd.Series) -> bool:
    """Returns whether every text is a time of ISO 8601."""
    return bool(pd.to_datetime(column, format="ISO8601", errors="coerce", utc=True).notna().all())


def _as_iso(column: pd.Series) -> pd.Series:
    """Returns quarters and weeks as their first days, and universal time as Z."""

    def first_day(match: re.Match[str]) -> str:
        return f"{match['year'] or match['last']}-{3 * int(match['quarter'] or match['first']) - 2:02d}-01"

    column = column.str.replace(_ZULU, "Z", regex=True).str.replace(_QUARTER, first_day, regex=True)
    if column.str.match(_WEEK).all():
        return pd.to_datetime(column.str.replace("-", "") + "1", format="%GW%V%u").astype(str)
    return column


def _usual_style(column: pd.Series, *, rows: Rows, where: str) -> str:
    """Returns the style of dates that are not ISO 8601, empty for those that are or that nobody knows.

    Raises:
        DataError: several styles read the whole column, as different days.
    """
    head = column.iloc[:1]
    if is_iso(head):
        return ""
    found: dict[str, pd.Series] = {}
    for style in map("".join, product(_DATES, _CLOCKS)):
        if pd.to_datetime(head, format=style, errors="coerce").notna().all():
            times = pd.to_datetime(column, format=style, errors="coerce")
            found |= {style: times} if times.notna().all() else {}
    first, *others = found or {"": column}
    if other := next((style for style in others if not found[style].equals(found[first])), ""):
        raise DataError(
            f"{rows.name(0)}, {where}",
            must="hold times that can only mean one day each",
            found=repr(column.iloc[0]),
            do=f"Set input.style to {first} or {other}.",
        )
    return first


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
    except (LookupError, ValueError, OSError) as error:  # zoneinfo: no such zone, no name of one, a folder of them
        raise DataError(
            where,
            must=f"hold times of the zone '{zone}' (input.zone)",
            found=f"'{error}'",
        ) from error
