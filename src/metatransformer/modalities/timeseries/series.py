"""Tables of time series: wide or long, as one ``Series`` each, with what is wrong named by line.

A wide table has one column a series; a long one has the columns id, time and value, and its series
below each other. What is forecast and what only helps (covariates, known up to now or also for the
future) is said by column. Nothing is filled, sorted or resampled unless it was asked for.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, UsageError, nearest
from metatransformer.core.samples import SPLITS
from metatransformer.data.delimited import numbers
from metatransformer.data.given import Rows, Sheet
from metatransformer.data.records import counted, listing
from metatransformer.data.rows import split_target
from metatransformer.data.spelled import spelled_numbers
from metatransformer.data.table import first_line
from metatransformer.modalities._recording.times import Times, is_iso, parse_times
from metatransformer.modalities.timeseries.clock import Step, find_step, missing_rows, usual_period

TIME_NAMES = ("timestamp", "ds", "date", "datetime", "date_time", "time")
ID_NAMES = ("unique_id", "id", "item_id", "series_id", "series")
LARGEST = 1e100  # its square is still finite
VALUE_NAMES = ("y", "value", "values", "target")


@dataclass(frozen=True)
class Layout:
    """How a table is read; empty names are found among the usual ones.

    ``target``: the columns to forecast (() = all that are no covariate); ``known``: covariates whose
    future is known; ``ignore``: columns that are left out; ``style``, ``zone``: see ``parse_times``;
    ``time`` "none" is a table without times; ``id`` may name several columns with commas between them. ``fill``: what
    stands in missing rows and cells: ``refuse`` (nothing), ``line`` between the neighbours, ``last`` the value before.
    ``short`` "skip" keeps series that are too short to have a step, for a caller who leaves them out.
    """

    time: str = ""
    id: str = ""
    values: str = ""
    target: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    style: str = ""
    zone: str = ""
    fill: str = "refuse"
    short: str = "refuse"


@dataclass(frozen=True, eq=False)
class Series:
    """One series: ``values`` [T] at ``times`` [T], every ``step``.

    ``past`` [T, P] are covariates known as far as the series itself, ``known`` [T + F, K] those that
    are known F steps further; ``covariates`` are their columns' names, the past ones first; ``splits``
    are the rows' splits where the table says them; ``told`` is what a person should know of how it was read.
    """

    name: str
    values: np.ndarray
    times: Times
    step: Step
    past: np.ndarray
    known: np.ndarray
    column: str = ""
    splits: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    told: tuple[str, ...] = ()

    @property
    def period(self) -> int:
        """The number of steps after which such series usually repeat; 1 where nothing is usual."""
        return usual_period(self.times, self.step)

    @cached_property
    def digest(self) -> str:
        """A hash of the values."""
        arrays = (self.values, self.past, self.known)
        return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"Series({self.name!r}, {len(self.values)} rows, {self.digest})"


def read_series(sheet: Sheet, *, layout: Layout, group: str = "") -> list[Series]:
    """Returns the series of one table, in its order; ``group`` comes before each name.

    Raises:
        UsageError: a column that is named for two things.
        DataError: what ``read_table`` raises; no or several columns of time, id or value; a column that is
            not there or holds text; missing or infinite values; and what ``clock`` refuses.
    """
    _require_single_roles(layout)
    named = _has_names(sheet)
    frame, rows = sheet.read(header=named), sheet.rows
    told = [] if named else [f"the first line of {rows.where} holds data: its columns are called column_1, ..."]
    rows = rows if named else replace(rows, first_line=rows.first_line - 1)
    if sheet.frame is not None:
        _require_no_times_in_index(frame, layout)
    frame = frame.rename(columns=str).reset_index(drop=True)
    _require_columns(frame, layout, where=rows.where)
    frame = frame.drop(columns=list(layout.ignore))
    time, how = _find_time(frame, layout, where=rows.where)
    told += [f"{rows.where}: {how} (input.time chooses)"] if how else []
    names = {name.lower() for name in frame.columns}
    if layout.id or any(name in names for name in ID_NAMES):
        series = _from_long(frame, layout, time=time, rows=rows)
    else:
        try:
            series = _from_wide(frame, layout, time=time, rows=rows)
        except DataError as error:
            if not (panel := _panel_columns(frame, layout, time=time)):
                raise
            way = f"input.id={panel[0]}" if len(panel) == 1 else f"input.id='{', '.join(panel)}'"
            do = f"These look like several series, one below or beside the other. Say what tells them apart: {way}."
            raise DataError(error.where, must=error.must, found=error.found, do=do) from error
    return [replace(one, name=f"{group}/{one.name}" if group else one.name, told=tuple(told)) for one in series]


def _has_names(sheet: Sheet) -> bool:
    """Returns whether the first line of a table names its columns; else it holds numbers and perhaps a time already."""
    if sheet.path is None or not first_line(sheet.path) or sheet.path.suffix.lower() in (".jsonl", ".ndjson"):
        return True
    first, *others = sheet.columns
    counted_up = list(sheet.columns) == [str(place) for place in range(len(sheet.columns))]
    numbers_there = [numbers([name]) is not None for name in sheet.columns]
    data = all(numbers_there) or (others and all(numbers_there[1:]) and is_iso(pd.Series([first])))
    return counted_up or not data


def _panel_columns(frame: pd.DataFrame, layout: Layout, *, time: str) -> tuple[str, ...]:
    """Returns the one or two columns that make repeated times differ, () where there are none."""
    if not time or not frame[time].duplicated().any():
        return ()
    others = frame.drop(columns=[time, *layout.target, *layout.known]).select_dtypes(exclude="float")
    names = [name for name in others.columns if name != "split" and others[name].duplicated().any()]
    choices = [*((name,) for name in names), *combinations(names, 2)]
    return next((chosen for chosen in choices if not frame.duplicated([time, *chosen]).any()), ())


def _require_single_roles(layout: Layout) -> None:
    """Raises UsageError for a column of two roles: a known future of the target itself would be its answer."""
    roles = {
        "input.time": (layout.time,),
        "input.id": split_target(layout.id),
        "--target": layout.target or (layout.values,),
        "input.known": layout.known,
        "input.ignore": layout.ignore,
    }
    found: dict[str, str] = {}
    for role, names in roles.items():
        for name in names:
            if name in found:
                must = f"name other columns than {found[name]}" if found[name] != role else "name a column once"
                raise UsageError(
                    role, must=must, found=f"'{name}' in both" if found[name] != role else f"'{name}' twice"
                )
            if name not in ("", "none"):
                found[name] = role


def _require_columns(frame: pd.DataFrame, layout: Layout, *, where: object) -> None:
    columns = [str(name) for name in frame.columns]
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise DataError(where, must="name every column differently", found=f"'{twice[0]}' more than once")
    single = [name for name in (layout.time, layout.values) if name not in ("", "none")]
    for name in (*single, *split_target(layout.id), *layout.target, *layout.known, *layout.ignore):
        if name not in columns:
            raise DataError(where, must=f"have a column '{name}'", found="none", do=nearest(name, columns))
    if frame.empty:
        raise DataError(where, must="have at least one row", found="none")


def _require_no_times_in_index(frame: pd.DataFrame, layout: Layout) -> None:
    names = {str(name).lower() for name in frame.columns}
    if isinstance(frame.index, pd.DatetimeIndex) and not layout.time and not names & set(TIME_NAMES):
        must = "have its times in a column"
        raise DataError(
            "the DataFrame", must=must, found="times in the index", do="Hand in frame.reset_index(names='time')."
        )


def _find_time(frame: pd.DataFrame, layout: Layout, *, where: object) -> tuple[str, str]:
    """Returns the column of times, "" where rows count, and what to say of a choice that no name tells."""
    if layout.time or any(name.lower() in TIME_NAMES for name in frame.columns):
        return _find(frame, layout.time, TIME_NAMES, option="time", where=where), ""
    taken = (*split_target(layout.id), *layout.target, *layout.known, layout.values)
    free = [name for name in frame.columns if name not in taken]
    dates = [name for name in free if _holds_times(frame[name])]
    if (
        not dates
        and free
        and free[0] == frame.columns[0]
        and _rises_by_one(frame.iloc[:, 0])
        and len(frame.columns) > 1
    ):
        dates = free[:1]
    if len(dates) == 1:
        return dates[0], f"the column '{dates[0]}' holds the times"
    if dates:
        _find(frame.loc[:, dates], "", TIME_NAMES, option="time", where=where)
    return "", "no column holds times: the rows count"


def _holds_times(column: pd.Series) -> bool:
    """Returns whether a column of text or moments holds nothing but times."""
    if column.dtype.kind == "M" or column.dtype.kind in "iufb" or not len(column) or column.isna().any():
        return column.dtype.kind == "M"
    head = column.iloc[:20].map(str)
    try:
        return head.str.contains(r"\d").all() and isinstance(
            parse_times(head, rows=Rows("", 0), title=""), pd.DatetimeIndex
        )
    except DataError as error:
        return "only mean one day" in error.must


def _find(frame: pd.DataFrame, given: str, usual: Sequence[str], *, option: str, where: object) -> str:
    """Returns the column that was named, or the one with a usual name; empty for "none"."""
    if given:
        return "" if given == "none" else given
    found = [name for name in frame.columns if name.lower() in usual]
    if len(found) == 1:
        return found[0]
    raise DataError(
        where,
        must=f"have one column of {option}, called {', '.join(usual)}",
        found=listing(found) if found else f"the columns {listing(frame.columns)}",
        do=f"Name it in input.{option}" + (" (none = rows count)." if option == "time" else "."),
    )


def _from_wide(frame: pd.DataFrame, layout: Layout, *, time: str, rows: Rows) -> list[Series]:
    others = frame.drop(columns=[name for name in (time, "split") if name in frame.columns])
    first = next(iter(others.columns), "")
    if first in ("unnamed_1", "Unnamed: 0") and first not in layout.target and _rises_by_one(others.iloc[:, 0]):
        return _from_wide(frame.drop(columns=first), layout, time=time, rows=rows)  # pandas' index is no series
    target = layout.target or tuple(name for name in others.columns if name not in layout.known)
    return _series(frame, layout, time=time, target=target, rows=rows, name="")


def _rises_by_one(column: pd.Series) -> bool:
    return column.dtype.kind in "iu" and len(column) > 1 and bool((np.diff(column.to_numpy()) == 1).all())


def _from_long(frame: pd.DataFrame, layout: Layout, *, time: str, rows: Rows) -> list[Series]:
    columns = list(split_target(layout.id)) or [_find(frame, "", ID_NAMES, option="id", where=rows.where)]
    for column in columns:
        if missing := np.flatnonzero(frame[column].isna()).tolist():
            must, found = "say its series in every row", f"{counted(len(missing), 'row')} without"
            raise DataError(f"{rows.name(missing[0])}, column '{column}'", must=must, found=found)
    name, *more = (frame[column].map(str) for column in columns)
    names = name.str.cat(more, sep="/") if more else name
    target = layout.target or (_find(frame, layout.values, VALUE_NAMES, option="values", where=rows.where),)
    series: list[Series] = []
    for title, part in frame.drop(columns=columns).groupby(names, sort=False):
        series += _series(part, layout, time=time, target=target, rows=rows, name=str(title))
    return series


def _series(
    frame: pd.DataFrame, layout: Layout, *, time: str, target: Sequence[str], rows: Rows, name: str
) -> list[Series]:
    """Returns the series of rows that follow each other; ``name`` is the id of a long table."""
    if not target:
        raise DataError(rows.where, must="have a column of numbers to forecast", found="none")
    where = replace(rows, where=f"{rows.where}, series '{name}'") if name else rows
    place = replace(where, places=tuple(frame.index.tolist()))
    frame = frame.reset_index(drop=True)
    splits = _splits(frame.pop("split"), place=place) if "split" in frame.columns else ()
    column = frame.pop(time) if time else pd.Series(np.arange(len(frame)))
    if len(column) < 3 and layout.short == "skip":
        times, step = pd.Index(np.arange(len(column))), Step(1, "1")
    else:
        times = parse_times(column, style=layout.style, zone=layout.zone, rows=place, title=time)
        step = find_step(times, rows=place, title=time)
    values = {str(title): _numbers(column, title=str(title), place=place) for title, column in frame.items()}
    others = [title for title in values if title not in target and title not in layout.known]
    ahead = _rows_ahead(values, now=[*target, *others]) if layout.known else 0
    end = len(times) - ahead
    values = {title: cells if title in layout.known else cells[:end] for title, cells in values.items()}
    kept = {title: _complete(cells, layout.fill, title=title, place=place) for title, cells in values.items()}
    grid = missing_rows(times, step)
    if (grid < 0).any():
        _refuse_gaps(grid, times, step, fill=layout.fill, place=place, title=time)
        kept = {title: _bridged(cells, grid, fill=layout.fill) for title, cells in kept.items()}
        splits = [splits[row] for row in np.maximum.accumulate(grid)] if splits else ()
        times = step.grid(times)
    count = len(times) - ahead
    past, ready = (
        np.stack([kept[title] for title in titles], axis=1) if titles else np.zeros((count, 0))
        for titles in (others, layout.known)
    )
    covariates = (*others, *layout.known)
    labels = {title: title if not name else name if len(target) == 1 else f"{name}/{title}" for title in target}
    return [
        Series(label, kept[title], times[:count], step, past, ready, title, tuple(splits), covariates)
        for title, label in labels.items()
    ]


def _splits(column: pd.Series, *, place: Rows) -> list[str]:
    """Returns train, val or test of every row.

    Raises:
        DataError: another word, or splits that do not follow each other in time.
    """
    cells = column.astype(object).where(column.notna(), None).tolist()
    place.require_all(cells, column="split")
    found = [str(name) for name in place.splits(cells)]
    for row, name in enumerate(found):
        if row and SPLITS.index(name) < SPLITS.index(found[row - 1]):
            raise DataError(
                f"{place.name(row)}, column 'split'",
                must="go from train over val to test as time goes on",
                found=f"'{name}' after '{found[row - 1]}'",
                do="A forecast may only be scored on what comes later than training.",
            )
    return found


def _numbers(column: pd.Series, *, title: str, place: Rows) -> np.ndarray:
    """Returns a column as float64, NaN where a cell is empty.

    Raises:
        DataError: a cell that is no number, or an infinite one.
    """
    if column.dtype.kind in "iufb":
        values = column.to_numpy(dtype=np.float64)
    else:
        values = np.asarray(pd.to_numeric(column, errors="coerce"), dtype=np.float64)
        missing = column.isna().to_numpy()
        if (np.isnan(values) & ~missing).any():
            cells = [None if gone else str(cell) for cell, gone in zip(column, missing, strict=True)]
            spelled = spelled_numbers(cells)
            values = values if spelled is None else spelled
        if (bad := np.flatnonzero(np.isnan(values) & ~missing)).size:
            raise DataError(
                f"{place.name(int(bad[0]))}, column '{title}'",
                must="hold numbers",
                found=f"{column.iloc[int(bad[0])]!r} ({counted(len(bad), 'such cell')})",
                do="Repair it (write 1234.5), or leave the column out with input.ignore.",
            )
    if (bad := np.flatnonzero(np.abs(values) > LARGEST)).size:
        must, found = "hold finite numbers", counted(len(bad), "infinite value")
        raise DataError(f"{place.name(int(bad[0]))}, column '{title}'", must=must, found=found)
    return values


def _rows_ahead(values: dict[str, np.ndarray], *, now: Sequence[str]) -> int:
    """Returns how many rows at the end hold nothing but covariates of the future."""
    empty = np.all([np.isnan(values[title]) for title in now if title in values], axis=0)
    return int(len(empty) if empty.all() else np.argmin(empty[::-1]))


def _complete(values: np.ndarray, fill: str, *, title: str, place: Rows) -> np.ndarray:
    """Returns the values without missing cells.

    Raises:
        DataError: there are some and ``fill`` is refuse, or the first ones are missing.
    """
    bad = np.flatnonzero(np.isnan(values))
    if not len(bad):
        return values
    if fill == "line" and bad[0] > 0 and bad[-1] == len(values) - 1:
        raise DataError(
            f"{place.name(len(values) - 1)}, column '{title}'",
            must="hold a number in its last row, for a line between neighbours",
            found="a missing value",
            do="Cut the rows behind the last value, or set input.fill=last.",
        )
    if fill == "refuse" or bad[0] == 0 or len(bad) == len(values):
        begins = bad[0] == 0
        raise DataError(
            f"{place.name(int(bad[0]))}, column '{title}'",
            must="hold a number in its first row" if begins else "hold a number in every row",
            found=f"{counted(len(bad), 'missing value')} of {len(values):,}",
            do="Cut the rows before the series begins."
            if begins
            else "Repair the table, or set input.fill=line (between neighbours) or input.fill=last.",
        )
    return _bridged(values, np.where(np.isnan(values), -1, np.arange(len(values))), fill=fill)


def _bridged(values: np.ndarray, grid: np.ndarray, *, fill: str) -> np.ndarray:
    """Returns the value of each place of ``grid`` (its row, -1 where there is none)."""
    if fill == "last":
        return values[np.maximum.accumulate(grid)]
    real = np.flatnonzero(grid >= 0)
    return np.interp(np.arange(len(grid)), real, values[grid[real]])


def _refuse_gaps(grid: np.ndarray, times: Times, step: Step, *, fill: str, place: Rows, title: str) -> None:
    if fill != "refuse":
        return
    gaps = np.flatnonzero((grid[1:] < 0) & (grid[:-1] >= 0))
    row, missing = int(grid[gaps[0]]), int((grid < 0).sum())
    summer = ""
    if isinstance(times, pd.DatetimeIndex) and times.tz is None and isinstance(step.size, pd.Timedelta):
        before: Any = times[grid[gaps]]
        if (before.hour < 4).all() and missing * step.size == len(gaps) * pd.Timedelta("1h"):
            summer = (
                "Local times leave an hour out when summer time begins: name their zone (input.zone=Europe/Berlin). "
            )
    raise DataError(
        f"{place.name(row + 1)}, column '{title}'",
        must=f"follow the row before by {step.name}",
        found=f"a gap after {times[row]} ({counted(len(gaps), 'gap')}, {counted(missing, 'row')} missing)",
        do=f"{summer}Complete the table, or set input.fill=line (between neighbours) or input.fill=last.",
    )
