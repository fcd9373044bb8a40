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
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError
from metatransformer.data.around import before
from metatransformer.data.delimited import decode, numbers
from metatransformer.data.folder import accepts
from metatransformer.data.limits import MOST_VALUE, read_bytes
from metatransformer.data.numpy_files import map_npy
from metatransformer.data.records import counted, listing
from metatransformer.data.table import first_line, read_columns, read_head, read_table
from metatransformer.modalities._recording.channels import (
    UNITS,
    clock_of,
    column_numbers,
    counts_steps,
    seconds_of,
    split_units,
    strays,
    time_unit,
    why_no_axis,
)

MOTION_SUFFIXES = (".csv", ".tsv", ".txt", ".csv.gz", ".tsv.gz", ".txt.gz", ".parquet", ".npy", ".json", ".ts")
SLOWEST_HZ, FASTEST_HZ = 1e-9, 1e9  # what says less or more is no rate
_RATES = ("rate_hz", "sampling_rate_hz", "sampling_rate", "sample_rate", "frequency", "rate", "fs")


_RATE = re.compile(
    rb"\b(?:(?:update|sampling|sample|data)[ _]?(?:rate|frequency)|rate_hz|fs)[^\n\d]{0,9}(?P<rate>\d+(?:\.\d+)?)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Motion:
    """One recording as its file has it.

    ``values`` is ``[t, axes]``, in SI where ``units`` says so; ``units`` has "" for an axis whose
    unit is not stated. ``times_s`` are the time steps, None when the file has no times; ``rate_hz``
    is 0 when the file states no rate. ``left_out``: the columns that are no axes, and why. ``named`` is False for a
    table whose first line holds numbers already.
    """

    values: np.ndarray
    names: tuple[str, ...]
    units: tuple[str, ...]
    times_s: np.ndarray | None = None
    rate_hz: float = 0.0
    left_out: Mapping[str, str] = field(default_factory=dict)
    named: bool = True


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
        return motion_from_array(map_npy(path), where=path)
    if suffix == ".json":
        return _read_json(path)
    if not accepts(path.name, suffixes=MOTION_SUFFIXES) or suffix == ".ts":
        known = ", ".join(end for end in MOTION_SUFFIXES if end != ".ts")
        raise DataError(path, must=f"end in {known}", found=f"the ending '{path.suffix}'")
    frame, row = read_motion_table(path)
    motion = motion_from_frame(frame, where=path, row=row, rate_hz=stated_rate(path))
    return replace(motion, named=not is_headless(path))


def stated_rate(path: Path) -> float:
    """Returns the rate that the comments before a table state, 0 where there is none."""
    found = _RATE.search(head[: before(head)] if (head := read_head(path)) else b"")
    return float(found["rate"]) if found else 0.0


def read_motion_table(path: Path) -> tuple[pd.DataFrame, tuple[str, int]]:
    """Returns a table, a row of units below its names taken into them; and what its rows are called and begin with.

    Raises:
        DataError: what ``read_table`` raises; but names may be repeated.
    """
    header = not is_headless(path)
    frame = read_table(path, header=header, repeated=True)
    # Rows are lines of a text table; a Parquet file counts them from 0.
    first = first_line(path) - (not header)
    row = ("line", first) if first else ("row", 0)
    if header and first and (units := _units_below(frame)):
        names = [f"{name} [{unit}]" if unit else name for name, unit in zip(frame.columns, units, strict=True)]
        frame, row = frame.iloc[1:].set_axis(names, axis=1).reset_index(drop=True), ("line", first + 1)
    return frame, row


def _units_below(frame: pd.DataFrame) -> list[str]:
    """Returns the first row where it holds units: no number itself, but above columns of numbers; else nothing."""
    cells = ["" if pd.isna(cell) else str(cell).strip(" ()[]") for cell in frame.iloc[0]]
    if len(frame) < 2 or not any(cells) or any(_number(cell) is not None for cell in cells):
        return []
    below = [numbers([None if pd.isna(cell) else str(cell) for cell in frame[name].iloc[1:]]) for name in frame.columns]
    return cells if any(values is not None for values in below) else []


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
    with np.errstate(invalid="ignore", over="ignore"):  # NaN of a kind that signals; what float64 has no room for
        values = array.astype(np.float64)
    _require_finite(values, names=names, where=where, row=("time step", 0))
    return Motion(values, names, ("",) * len(names), rate_hz=rate_hz)


def motion_from_mapping(value: Mapping[str, Any], *, where: object) -> Motion:
    """Returns a recording in memory: ``values``, and any of ``rate_hz``, ``times_s``, ``names``,
    ``units``, ``left_out``, ``named``.

    Raises:
        DataError: no ``values``, an unknown key, as many names or times as no axis or step has, times
            that do not increase, or what ``motion_from_array`` raises.
    """
    known = {one.name for one in fields(Motion)}
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
    left_out, named = dict(value.get("left_out", {})), bool(value.get("named", True))
    return Motion(plain.values, names, units, times, rate_hz, left_out, named)


def require_no_gap(times: np.ndarray, *, most: float, where: object) -> None:
    """Raises DataError where two times are further apart than ``most`` median steps."""
    steps = np.diff(times)
    median = float(np.median(steps))
    place = int(steps.argmax())
    # A rounded clock reading must not turn an exact multiple into a gap.
    if steps[place] > most * median * 1.01:
        raise DataError(
            where,
            must=f"have no gap beyond {most:g} steps of {median:.4g} s",
            found=f"{steps[place]:.4g} s without a sample after {times[place]:.4g} s",
            do="Cut the recording there, or set input.max_gap.",
        )


def is_headless(path: Path) -> bool:
    """Returns whether the first line of a text table holds numbers, not names; 0, 1, 2, ... are names, as of pandas."""
    if path.suffix.lower() == ".parquet":
        return False
    names = read_columns(path)
    counted_up = len(names) > 1 and list(names) == [str(place) for place in range(len(names))]
    return not counted_up and all(_number(name) is not None for name in names)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def motion_from_frame(
    frame: pd.DataFrame, *, where: object, row: tuple[str, int], rate_hz: float = 0.0, missing: bool = False
) -> Motion:
    """Returns a recording of a table; ``row`` says what its rows are called and where they begin.

    ``missing`` lets values be missing (NaN), for a caller that deals with them.

    Raises:
        DataError: what ``read_motion`` raises of a table.
    """
    frame = _spread(frame, where=where)
    times: np.ndarray | None = None
    names, units, columns = [], [], []
    left_out: dict[str, str] = {}
    titles = split_units(list(map(str, frame.columns)))
    clock = clock_of(frame, titles)
    for position, (title, name, unit) in enumerate(titles):
        column = frame.iloc[:, position]
        stated = "" if column.dtype.kind in "mM" else time_unit(name)
        if stated is not None:
            if counts_steps(column, unit or stated):
                left_out[title] = "it numbers the rows"
            elif title == clock:
                times = seconds_of(column, title=title, unit=(unit or stated).lower(), where=where, row=row)
            else:
                left_out[title] = "another column of times"
            continue
        values = column_numbers(column)
        if why := why_no_axis(name, column, values, first=position == 0, missing=missing):
            left_out[title] = why
            continue
        if values is None:
            raise _stray(column, title=title, where=where, row=row)
        unit, factor = UNITS.get(unit.lower(), (unit, 1.0))
        names.append(name)
        units.append(unit)
        columns.append(values * factor)
    if not columns:
        raise DataError(where, must="have a column of numbers for each axis", found=listing(frame.columns))
    values = np.stack(columns, axis=1)
    if not missing:
        _require_finite(values, names=names, where=where, row=row)
    return Motion(values, tuple(names), tuple(units), times, rate_hz, left_out)


def about_left_out(left_out: Mapping[str, str]) -> str:
    """Returns which columns are left out, by reason, in one sentence."""
    reasons = dict.fromkeys(left_out.values())
    parts = [f"{listing(name for name in left_out if left_out[name] == why)} ({why})" for why in reasons]
    return f"columns left out: {', '.join(parts)}"


def _stray(column: pd.Series, *, title: str, where: object, row: tuple[str, int]) -> DataError:
    word, first = row
    odd = strays(column)
    return DataError(
        f"{where}, {word} {odd[0] + first}, column '{title}'",
        must="hold numbers, as nearly all of its cells do",
        found=f"{column.iloc[odd[0]]!r} ({counted(len(odd), 'such cell')})",
        do="Repair it, or leave it empty.",
    )


def _require_finite(values: np.ndarray, *, names: Sequence[str], where: object, row: tuple[str, int]) -> None:
    bad = np.argwhere(~(np.abs(values) <= MOST_VALUE))
    if len(bad):
        word, first = row
        step, axis = bad[0].tolist()
        raise DataError(
            f"{where}, {word} {step + first}, column '{names[axis]}'",
            must="hold a finite number in every row",
            found=f"{len(bad):,} of {values.size:,} missing, infinite or beyond {MOST_VALUE:g}",
            do="Fill the gaps, or cut the recording there.",
        )


def _read_json(path: Path) -> Motion:
    text = decode(read_bytes(path), path=path)
    with foreign(path, "json", must="be whole JSON"):
        # Whole numbers that are too large for any column become infinite, and are refused as such.
        content = json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 300 else float(digits))
    try:
        found = list(_series(content, rate_hz=0.0))
    except RecursionError as error:
        raise DataError(path, must="be nested a few levels deep", found="hundreds of them") from error
    if len(found) != 1:
        raise DataError(
            path,
            must="hold one list of time steps (objects, or lists of numbers)",
            found=f"{len(found)} of them",
        )
    steps, rate_hz = found[0]
    if isinstance(steps[0], Mapping):
        frame = _flat_frame(steps, where=path)
    else:
        if len({len(step) for step in steps}) != 1:
            raise DataError(path, must="have as many axes at every time step", found="more and less")
        names = [f"axis_{i + 1}" for i in range(len(steps[0]))]
        frame = pd.DataFrame(steps, columns=names)
    return motion_from_frame(frame, where=path, row=("time step", 0), rate_hz=rate_hz)


def _spread(frame: pd.DataFrame, *, where: object) -> pd.DataFrame:
    """Returns a table whose cells hold lists or mappings, as those of Parquet can, with a column for each value."""
    loose = frame.loc[:, [kind.kind == "O" for kind in frame.dtypes]]
    if not loose.map(lambda cell: isinstance(cell, Mapping | list | np.ndarray)).any(axis=None):
        return frame
    return _flat_frame(frame.to_dict("records"), where=where)


def _flat_frame(steps: Sequence[Mapping[Any, Any]], *, where: object) -> pd.DataFrame:
    rows = [{_sound(name): value for name, value in _flat(step)} for step in steps]
    _require_same_keys(rows, where=where)
    return pd.DataFrame(rows)


def _sound(name: Any) -> Any:
    """Returns a name without halves of characters, which JSON can spell and no table can hold."""
    return name.encode("utf-8", "replace").decode() if isinstance(name, str) else name


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
    return isinstance(value, int | float) and not isinstance(value, bool) and SLOWEST_HZ < value < FASTEST_HZ


def _is_plain(values: Iterable[Any]) -> bool:
    return all(value is None or isinstance(value, int | float) for value in values)


def _flat(step: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields ``name, value``; lists get numbers behind their name, inner objects a dot."""
    for name, value in step.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{inner}", cell) for inner, cell in _flat(value))
        elif isinstance(value, list | np.ndarray):
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
