"""Recordings of motion sensors: time steps x axes, one recording a file, with what it says of rate
and unit.

A table (CSV, TSV, Parquet) has one row a time step, one column an axis and, if it likes, a column
of time; NPY is an array ``[t, axes]``; JSON holds one list of time steps somewhere inside, and
perhaps a rate beside it. The UEA archive's ``.ts`` is in ``uea.py``. Nothing is resampled or filled
here.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.delimited import numbers
from metatransformer.data.records import counted, listing
from metatransformer.data.table import first_line, read_columns, read_table

MOTION_SUFFIXES = (".csv", ".tsv", ".parquet", ".npy", ".json", ".ts")
STANDARD_G = 9.80665

# What a column's unit, as it stands in brackets behind its name, is in SI: the unit and the factor.
UNITS = {
    "g": ("m/s2", STANDARD_G),
    "mg": ("m/s2", STANDARD_G / 1000),
    "m/s2": ("m/s2", 1.0),
    "m/s^2": ("m/s2", 1.0),
    "m/s²": ("m/s2", 1.0),
    "deg/s": ("rad/s", np.pi / 180),
    "°/s": ("rad/s", np.pi / 180),
    "dps": ("rad/s", np.pi / 180),
    "rad/s": ("rad/s", 1.0),
}
_UNIT = re.compile(r"^(?P<name>.*?)[ _]*[\[(](?P<unit>[^\])]*)[\])]$")
_TIME = re.compile(
    r"(?:time|timestamp|date_?time|elapsed|t)(?:_?(?P<unit>s|sec|seconds|ms|us|ns))?"
    r"|(?P<word>seconds)(?:_elapsed)?",
    re.IGNORECASE,
)
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}
# Clock readings between the years 2001 and 2286 tell their own unit; other numbers are counts.
EPOCHS = ((1e9, 1e10, "s"), (1e12, 1e13, "ms"), (1e15, 1e16, "us"), (1e18, 1e19, "ns"))
_RATES = ("rate_hz", "sampling_rate_hz", "sampling_rate", "sample_rate", "frequency", "rate", "fs")


@dataclass(frozen=True)
class Motion:
    """One recording as its file has it.

    ``values`` is ``[t, axes]``, in SI where ``units`` says so; ``units`` has "" for an axis whose
    unit is not stated. ``times_s`` are the time steps, None when the file has no times; ``rate_hz``
    is 0 when the file states no rate. ``texts`` names the columns that hold no numbers.
    """

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    times_s: np.ndarray | None = None
    rate_hz: float = 0.0
    texts: tuple[str, ...] = ()


def read_motion(path: str | Path) -> Motion:
    """Returns one recording of a file that holds one.

    Raises:
        DataError: no such file, damaged, another layout, no axis of numbers, a missing value, times
            that do not increase or do not say their unit.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, must="be a recording", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a recording", found="a file of 0 bytes", do="Remove it.")
    suffix = path.suffix.lower()
    if suffix == ".npy":
        return motion_from_array(_read_npy(path), where=path)
    if suffix == ".json":
        return _read_json(path)
    if suffix not in MOTION_SUFFIXES or suffix == ".ts":
        known = ", ".join(end for end in MOTION_SUFFIXES if end != ".ts")
        raise DataError(path, must=f"end in {known}", found=f"the ending '{path.suffix}'")
    header = not is_headless(path)
    frame = read_table(path, header=header)
    # Rows are lines of a text table; a Parquet file counts them from 0.
    first = first_line(path) - (not header)
    return motion_from_frame(frame, where=path, row=("line", first) if first else ("row", 0))


def motion_from_array(array: np.ndarray, *, where: object, rate_hz: float = 0.0) -> Motion:
    """Returns a recording of an array ``[t, axes]`` or ``[t]``; the axes are axis_1, axis_2, ...

    Raises:
        DataError: another shape, no number, a missing value.
    """
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "iuf" or array.size == 0:
        raise DataError(
            where,
            must="be numbers [time steps, axes]",
            found=f"{array.dtype} of shape {array.shape}",
        )
    names = tuple(f"axis_{i + 1}" for i in range(array.shape[1]))
    values = array.astype(np.float64)
    _require_finite(values, names=names, where=where, row=("time step", 0))
    return Motion(values, names, ("",) * len(names), rate_hz=rate_hz)


def motion_from_mapping(value: Mapping[str, Any], *, where: object) -> Motion:
    """Returns a recording in memory: ``values``, and any of ``rate_hz``, ``times_s``, ``names``,
    ``units``, ``texts``.

    Raises:
        DataError: no ``values``, an unknown key, as many names or times as no axis or step has, times
            that do not increase, or what ``motion_from_array`` raises.
    """
    known = {field.name for field in fields(Motion)}
    if "values" not in value or not value.keys() <= known:
        raise DataError(where, must=f"have 'values' and any of {', '.join(sorted(known))}", found=listing(value))
    plain = motion_from_array(np.asarray(value["values"]), where=where)
    steps, axes = plain.values.shape
    names = tuple(value.get("names", plain.names))
    units = tuple(value.get("units", ("",) * axes))
    times = value.get("times_s")
    times = None if times is None else np.asarray(times, dtype=np.float64)
    if len(names) != axes or len(units) != axes or (times is not None and times.shape != (steps,)):
        raise DataError(
            where,
            must=f"have {axes} names and units and {steps} times",
            found=f"{len(names)}, {len(units)} and {0 if times is None else times.size}",
        )
    if times is not None and not (np.diff(times) > 0).all():
        raise DataError(f"{where}, times_s", must="increase from step to step", found="another order")
    rate_hz = float(value.get("rate_hz", 0.0))
    return Motion(plain.values, names, units, times, rate_hz, tuple(value.get("texts", ())))


def require_no_gap(times: np.ndarray, *, most: float, where: object) -> None:
    """Raises DataError where two times are further apart than ``most`` median steps."""
    steps = np.diff(times)
    median = float(np.median(steps))
    place = int(steps.argmax())
    # A rounded clock reading must not turn an exact multiple into a gap.
    if steps[place] > most * median * (1 + 1e-6):
        raise DataError(
            where,
            must=f"have no gap beyond {most:g} steps of {median:.4g} s",
            found=f"{steps[place]:.4g} s without a sample after {times[place]:.4g} s",
            do="Cut the recording there, or set input.max_gap.",
        )


def is_headless(path: Path) -> bool:
    """Returns whether the first line of a text table holds numbers, not names."""
    return path.suffix.lower() != ".parquet" and all(_number(name) is not None for name in read_columns(path))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _read_npy(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(
            path,
            must="be a whole NPY file of numbers",
            found=f"'{error}'",
            do="Write it again with numpy.save.",
        ) from error


def motion_from_frame(
    frame: pd.DataFrame, *, where: object, row: tuple[str, int], rate_hz: float = 0.0, missing: bool = False
) -> Motion:
    """Returns a recording of a table; ``row`` says what its rows are called and where they begin.

    ``missing`` lets values be missing (NaN), for a caller that deals with them.

    Raises:
        DataError: what ``read_motion`` raises of a table.
    """
    times: np.ndarray | None = None
    names, units, columns, texts = [], [], [], []
    for position, title in enumerate(map(str, frame.columns)):
        column = frame.iloc[:, position]
        name, unit = _split_unit(title)
        if match := _TIME.fullmatch(name):
            found = unit or (match["unit"] or match["word"] or "").lower()
            if times is None:
                times = _times(column, title=title, unit=found, where=where, row=row)
            continue
        values = _numbers(column)
        if values is None:
            texts.append(title)
            continue
        if position == 0 and title in ("unnamed_1", "Unnamed: 0") and len(values) > 1 and (np.diff(values) == 1).all():
            continue  # the index of a table that pandas wrote: it would tell the place in the recording
        unit, factor = UNITS.get(unit.lower(), (unit, 1.0))
        names.append(name)
        units.append(unit)
        columns.append(values * factor)
    if not columns:
        raise DataError(where, must="have a column of numbers for each axis", found=listing(frame.columns))
    values = np.stack(columns, axis=1)
    if not missing:
        _require_finite(values, names=names, where=where, row=row)
    return Motion(values, tuple(names), tuple(units), times, rate_hz, tuple(texts))


def _split_unit(title: str) -> tuple[str, str]:
    """Returns ``acc_x [g]`` as ``acc_x`` and ``g``."""
    match = _UNIT.match(title.strip())
    return (match["name"], match["unit"].strip()) if match else (title.strip(), "")


def _numbers(column: pd.Series) -> np.ndarray | None:
    """Returns a column as float64, NaN where a value is missing; None when it holds text."""
    if column.dtype.kind in "iufb":
        return column.to_numpy(dtype=np.float64)
    cells = [None if pd.isna(cell) else str(cell) for cell in column]
    if all(cell is None for cell in cells):
        return np.full(len(cells), np.nan)
    found = numbers(cells)
    return None if found is None else found.astype(np.float64)


def _times(column: pd.Series, *, title: str, unit: str, where: object, row: tuple[str, int]) -> np.ndarray:
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
    values = _numbers(column)
    if values is None:
        seconds = _clock(column, title=title, where=where)
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
    try:
        moments = pd.to_datetime(column, format="ISO8601", utc=True)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{where}, column '{title}'",
            must="hold numbers or times such as 2024-05-01T12:00:00.020",
            found=f"'{column.iloc[0]}'",
        ) from error
    return (moments - moments.iloc[0]).dt.total_seconds().to_numpy(dtype=np.float64)


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


def _require_finite(values: np.ndarray, *, names: Sequence[str], where: object, row: tuple[str, int]) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        word, first = row
        step, axis = bad[0].tolist()
        raise DataError(
            f"{where}, {word} {step + first}, column '{names[axis]}'",
            must="hold a finite number in every row",
            found=f"{counted(len(bad), 'missing or infinite value')} of {values.size:,}",
            do="Fill the gaps, or cut the recording there.",
        )


def _read_json(path: Path) -> Motion:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(path, must="be whole JSON", found=f"'{error}'") from error
    found = list(_series(content, rate_hz=0.0))
    if len(found) != 1:
        raise DataError(
            path,
            must="hold one list of time steps (objects, or lists of numbers)",
            found=f"{len(found)} of them",
        )
    steps, rate_hz = found[0]
    if isinstance(steps[0], Mapping):
        rows = [dict(_flat(step)) for step in steps]
        _require_same_keys(rows, where=path)
        frame = pd.DataFrame(rows)
    else:
        if len({len(step) for step in steps}) != 1:
            raise DataError(path, must="have as many axes at every time step", found="more and less")
        names = [f"axis_{i + 1}" for i in range(len(steps[0]))]
        frame = pd.DataFrame(steps, columns=names)
    return motion_from_frame(frame, where=path, row=("time step", 0), rate_hz=rate_hz)


def _series(node: Any, *, rate_hz: float) -> Iterator[tuple[list[Any], float]]:
    """Yields every list of time steps inside a JSON value, with the rate that stands beside it."""
    if isinstance(node, Mapping):
        stated = [node[key] for key in _RATES if _is_rate(node.get(key))]
        for child in node.values():
            yield from _series(child, rate_hz=float(stated[0]) if stated else rate_hz)
    elif isinstance(node, list) and node:
        if all(isinstance(step, Mapping) for step in node):
            yield node, rate_hz
        elif all(isinstance(step, list) and step and _is_plain(step) for step in node):
            yield node, rate_hz


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


def _is_plain(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def _flat(step: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields ``name, value``; lists get numbers behind their name, inner objects a dot."""
    for name, value in step.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", cell) for inner, cell in _flat(value))
        elif isinstance(value, list):
            yield from ((f"{name}_{i + 1}", cell) for i, cell in enumerate(value))
        else:
            yield name, value


def _require_same_keys(rows: Sequence[Mapping[str, Any]], *, where: object) -> None:
    for step, row in enumerate(rows):
        if row.keys() != rows[0].keys():
            raise DataError(
                f"{where}, time step {step}",
                must=f"have the {counted(len(rows[0]), 'value')} of the first time step",
                found=listing(row.keys()),
            )
