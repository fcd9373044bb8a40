"""What the columns of a recording are: times in any unit, axes with theirs, and what recorders count beside them."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.columns import NEARLY_ALL
from metatransformer.data.delimited import numbers
from metatransformer.data.given import Rows
from metatransformer.data.records import counted
from metatransformer.data.spelled import spelled_numbers
from metatransformer.modalities._recording.times import EPOCHS, parse_times

STANDARD_G = 9.80665

# What a column's unit, as it stands in brackets behind its name, is in SI: the unit and the factor.
UNITS = {
    "g": ("m/s2", STANDARD_G),
    "mg": ("m/s2", STANDARD_G / 1000),
    **dict.fromkeys(("m/s2", "m/s^2", "m/s²", "m/s/s", "m s-2", "m s^-2", "m*s^-2"), ("m/s2", 1.0)),
    **dict.fromkeys(("deg/s", "°/s", "dps", "deg/sec", "degrees/s"), ("rad/s", np.pi / 180)),
    **dict.fromkeys(("rad/s", "rad/sec"), ("rad/s", 1.0)),
}
_SECONDS: dict[str, float] = {
    **dict.fromkeys(("s", "sec", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millis", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "usec", "micros", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nsec", "nanos", "nanoseconds"), 1e-9),
}
# What people write beside motion to say what it is, whatever stands between the words: subject_id, Subject ID.
SUBJECTS = ("subject", "subjectid", "subj", "user", "userid", "participant", "participantid", "person", "personid")
_PART_OF_CLOCK = re.compile("(?:utc)?(?:year|month|day|hour|minute|second|nano)|utcvalid")
MARKS = frozenset({*SUBJECTS, "label", "labels", "class", "classlabel", "split"})
_UNIT = re.compile(r"^(?P<name>.*?)[ _]*[\[(](?P<unit>[^\])]*)[\])]$")
_TIME = re.compile(
    r"(?:(?:(?:unix|elapsed|relative|logging|sensor)[_ ]?)?time|time_?stamp|date_?time|elapsed|epoch|t)"
    rf"(?:[_ ]?(?P<unit>{'|'.join(_SECONDS)}))?|(?P<word>seconds)(?:_elapsed)?",
    re.IGNORECASE,
)
_HOURS = re.compile(r"\d{1,2}:\d\d(?::\d\d(?:[.,]\d+)?)?")
# What recorders number their rows or packets by, with a clock of their own; none of it is motion.
_COUNTER = re.compile(
    r"(?:packet|sample|frame|row|line|record|sequence|seq|data)?[ _]?"
    r"(?:counter|count|index|idx|number|no|nr|num|id|packet|frame|sample|row|line|record|step|sequence|seq|sampletimefine|sample_time_fine)[.#]?",
    re.IGNORECASE,
)


def split_unit(title: str) -> tuple[str, str]:
    """Returns ``acc_x [g]`` as ``acc_x`` and ``g``; the mark of a comment before a first name (numpy's) is no part."""
    title = title.strip().removeprefix("#").strip()
    match = _UNIT.match(title)
    return (match["name"], match["unit"].strip()) if match and not match["unit"].isdigit() else (title, "")


def split_units(titles: Sequence[str]) -> list[tuple[str, str, str]]:
    """Returns titles with the name and unit of each; what makes names differ is part of them: acc [y]."""
    split = [split_unit(title) for title in titles]
    times = Counter(name for name, _ in split)
    return [
        (title, name, unit) if times[name] == 1 else (title, title.strip(), unit if unit.lower() in UNITS else "")
        for title, (name, unit) in zip(titles, split, strict=True)
    ]


def time_unit(name: str) -> str | None:
    """Returns the unit that a column of times has in its name, "" where it states none, None for another column."""
    match = _TIME.fullmatch(name)
    return (match["unit"] or match["word"] or "").lower() if match else None


def counts_steps(column: pd.Series, unit: str) -> bool:
    """Returns whether a column of times without a unit goes 0, 1, 2, ...: it numbers the rows."""
    return not unit and column.dtype.kind in "iu" and len(column) > 1 and bool((np.diff(column) == 1).all())


def clock_of(frame: pd.DataFrame, titles: Sequence[tuple[str, str, str]]) -> str:
    """Returns the title of the column of times, "" without one: of several the first that tells its unit by itself."""
    kinds = [kind.kind for kind in frame.dtypes]
    found = [
        (title, bool(unit or time_unit(name)) or kind == "M")
        for kind, (title, name, unit) in zip(kinds, titles, strict=True)
        if kind in "mM" or time_unit(name) is not None
    ]
    return next((title for title, sure in found if sure), found[0][0] if found else "")


def is_counter(title: str, values: np.ndarray, *, first: bool) -> bool:
    """Returns whether a column numbers rows or packets: whole numbers that rise, but for a few starts anew.

    It would tell the place in the recording. ``first``: it is the first column, where pandas writes its index.
    """
    if len(values) < 2 or not np.isfinite(values).all() or not (values == np.round(values)).all():
        return False
    steps = np.diff(values)
    if title in ("unnamed_1", "Unnamed: 0"):
        return first and bool((steps == 1).all())
    return bool(_COUNTER.fullmatch(title)) and float(np.mean(steps > 0)) > 0.9


def column_numbers(column: pd.Series) -> np.ndarray | None:
    """Returns a column as float64, NaN where a value is missing; None when it holds text."""
    missing = column.isna().to_numpy()
    if column.dtype.kind in "iufb" or missing.all():
        return column.to_numpy(dtype=np.float64, na_value=np.nan)
    cells = [None if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
    found = numbers(cells)
    return spelled_numbers(cells) if found is None else found.astype(np.float64)


def why_no_axis(name: str, column: pd.Series, values: np.ndarray | None, *, first: bool, missing: bool) -> str:
    """Returns why a column is no axis of motion, "" where it is one (or nearly is, but for a few texts).

    ``values`` are its numbers, None where it holds text; ``missing`` as in ``motion_from_frame``.
    """
    if (bare := re.sub(r"[\W_]+", "", name.lower())) in MARKS or _PART_OF_CLOCK.fullmatch(bare):
        return "what the rows are marked with"
    if values is None:
        return "" if 0 < len(strays(column)) <= (1 - NEARLY_ALL) * len(column) else "text"
    if np.isnan(values).all():
        return "" if missing else "empty"
    return "it numbers the rows" if is_counter(name, values, first=first) else ""


def strays(column: pd.Series) -> list[int]:
    """Returns the rows of a column of text that are no numbers."""
    odd = pd.to_numeric(column, errors="coerce").isna() & column.notna()
    return np.flatnonzero(odd).tolist()


def seconds_of(column: pd.Series, *, title: str, unit: str, where: object, row: tuple[str, int]) -> np.ndarray:
    """Returns the seconds since the first time step.

    Raises:
        DataError: a missing time, no time, an unknown unit, or times that do not increase.
    """
    word, first = row
    if missing := np.flatnonzero(column.isna()).tolist():
        raise DataError(
            f"{where}, {word} {missing[0] + first}, column '{title}'",
            must="have a time in every row",
            found=f"{counted(len(missing), 'row')} without one",
        )
    values = column.dt.total_seconds().to_numpy() if column.dtype.kind == "m" else column_numbers(column)
    if values is not None and (odd := np.flatnonzero(~np.isfinite(values)).tolist()):
        place = f"{where}, {word} {odd[0] + first}, column '{title}'"
        raise DataError(place, must="be a time in every row", found=f"{values[odd[0]]:g}")
    if values is None:
        seconds = _clock(column, title=title, where=where)
    elif column.dtype.kind == "m":
        seconds = values - values[0]
    else:
        seconds = (values - values[0]) * _unit_of_time(values, unit=unit, title=title, where=where)
    back = np.flatnonzero(np.diff(seconds) <= 0)
    if len(back):
        place = int(back[0])
        same = seconds[place + 1] == seconds[place]
        raise DataError(
            f"{where}, {word} {place + 1 + first}, column '{title}'",
            must="be later than the row before",
            found="the same time again" if same else "an earlier time",
            do="Sort the rows by time and remove repetitions.",
        )
    return seconds


def _clock(column: pd.Series, *, title: str, where: object) -> np.ndarray:
    """Returns the seconds since the first of times of a day, which may run over midnight, or of dates with times."""
    text = column.map(str).str.strip()
    if column.dtype.kind != "M" and text.str.fullmatch(_HOURS).all():
        short = text.str.count(":") == 1
        spans = pd.to_timedelta((text + short.map({True: ":00", False: ""})).str.replace(",", "."))
        seconds = spans.dt.total_seconds().to_numpy()
        return seconds - seconds[0] + 86400 * np.cumsum(np.diff(seconds, prepend=seconds[0]) < -43200)
    try:
        times = parse_times(column, rows=Rows(where, 0), title=title)
    except DataError as error:
        raise DataError(
            f"{where}, column '{title}'",
            must="hold numbers or times such as 2024-05-01T12:00:00.020",
            found=error.found,
        ) from error
    return np.asarray((times - times[0]).total_seconds(), dtype=np.float64)


def _unit_of_time(values: np.ndarray, *, unit: str, title: str, where: object) -> float:
    """Returns how many seconds one unit of these times is."""
    if unit in _SECONDS:
        return _SECONDS[unit]
    for low, high, name in EPOCHS:
        if low <= values[0] < high and low <= values[-1] < high:
            return _SECONDS[name]
    # Motion is sampled more often than once a second: steps below 1 can only be seconds.
    if len(values) > 1 and 0 < np.median(np.diff(values)) < 1:
        return 1.0
    raise DataError(
        f"{where}, column '{title}'",
        must="say the unit of its numbers",
        found=f"steps of {np.median(np.diff(values)):g}" if len(values) > 1 else "one row",
        do=f"Call it '{title}_s', '{title}_ms', '{title}_us' or '{title}_ns'.",
    )
