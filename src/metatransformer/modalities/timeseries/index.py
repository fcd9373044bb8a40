"""From tables of series to records: windows in time to learn from, or the last window to predict from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS, Record
from metatransformer.data.given import Array, Folder, Items, Sheet, accepts, recognise, require_there
from metatransformer.data.index import Index, index_files
from metatransformer.data.records import Records, counted, listing, natural_key, split_name
from metatransformer.data.table import TABLE_SUFFIXES
from metatransformer.modalities._recording.motion import MOTION_SUFFIXES
from metatransformer.modalities._recording.uea import uea_parts
from metatransformer.modalities.timeseries.clock import Step
from metatransformer.modalities.timeseries.series import Layout, Series, read_series
from metatransformer.modalities.timeseries.windows import Cut, Window, cut_windows, is_long_enough, last_window

SERIES_SUFFIXES = tuple(dict.fromkeys((*TABLE_SUFFIXES, *MOTION_SUFFIXES)))


def index_series(
    data: Any, *, files: bool, layout: Layout, cut: Cut, labelled: bool, label: str, header: bool
) -> Index:
    """Returns one record a window, or with ``files`` one a file; ``label`` is the manifest's column then.

    ``labelled`` asks for windows whose future is known, with their split; else each series gives
    the one window that ends with its last row.

    Raises:
        DataError: what reading raises; a layout that holds no series; the same name twice.
    """
    if files:
        return index_files(
            data,
            suffixes=MOTION_SUFFIXES,
            label_column=label or "label",
            require_labels=labelled,
            parts=uea_parts,
        )
    if not header:
        must = "name its columns (data.header=true)"
        raise DataError("a table of series", must=must, found="data.header=false")
    series = read_all(data, layout=layout)
    names = [one.name for one in series]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError("the series", must="have different names", found=f"'{twice[0]}' more than once")
    long = [one for one in series if layout.short != "skip" or is_long_enough(one, cut, labelled=labelled)]
    notes = list(dict.fromkeys(note for one in series for note in one.told))
    if long and len(long) < len(series):
        gone = [one.name for one in series if one not in long]
        notes.append(f"left out {len(gone)} series that are too short (input.short=skip): {listing(gone)}")
        series = long
    notes += _notes(series, layout)
    if not labelled:
        windows = [last_window(one, lookback=cut.lookback, horizon=cut.horizon) for one in series]
        return Index(Records.of(_record(window, split=None) for window in windows), tuple(notes))
    records = [_record(window, split=split) for split, window in cut_windows(series, cut)]
    return Index(Records.of(records), (*notes, _about_windows(series, records, cut)))


def read_all(data: Any, *, layout: Layout) -> list[Series]:
    """Returns the series of a table file, a folder or list of them, a DataFrame, or arrays [T] or [T, series].

    Raises:
        DataError: no table, or what ``read_series`` raises.
    """
    must = "be a table file, a folder or list of them, a DataFrame, or arrays of numbers in time"
    do = "For one label a file or array, set input.sample=file."
    given = recognise(data, must=must, do=do)
    if isinstance(given, Sheet):
        return read_series(given, layout=layout)
    if isinstance(given, Array):
        return _from_array(given.values, group="")
    if isinstance(given, Items) and given.are(np.ndarray):
        return [one for number, item in enumerate(given.items) for one in _from_array(item, group=f"{number}")]
    if isinstance(given, Items):
        raise DataError("the data", must=must, found=f"a {type(data).__name__}", do=do)
    paths = _tables(given) if isinstance(given, Folder) else given.paths
    for path in paths:
        require_there(path)
        _require_table(path)
    groups = [path.name.split(".")[0] for path in paths] if len(paths) > 1 else [""]
    both = zip(paths, groups, strict=True)
    return [one for path, group in both for one in read_series(Sheet(path), layout=layout, group=group)]


def _require_table(path: Path) -> None:
    if accepts(path.name, suffixes=(".npy", ".json", ".ts")):
        raise DataError(
            path,
            must="be a table with times, to be forecast",
            found=f"the ending '{path.suffix}'",
            do="Save it as CSV or Parquet; for files that are one sample each, set --task classify input.sample=file.",
        )


def _tables(folder: Folder) -> list[Path]:
    if named := [path.name for path in folder.tables if split_name(path.name.split(".")[0])]:
        raise DataError(
            folder.path,
            must="hold one table a group of series; the splits of a series follow each other in time",
            found=f"tables named like splits: {listing(named)}",
            do="Put their rows below each other into one table, with a column 'split'.",
        )
    if folder.tables:
        return sorted(folder.tables, key=lambda path: natural_key(path.name))
    inside = listing(sorted((path.name for path in folder.path.iterdir()), key=natural_key)) or "nothing"
    raise DataError(
        folder.path,
        must=f"hold tables of series ({', '.join(TABLE_SUFFIXES[:4])}, ...)",
        found=inside,
        do="For a folder per class with one series a file, set --task classify input.sample=file head.pool=grid.",
    )


def _from_array(array: np.ndarray, *, group: str) -> list[Series]:
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf" or array.size == 0:
        raise DataError("an array of series", must="be numbers [time] or [time, series]", found=f"{array.shape}")
    values = array.astype(np.float64).reshape(len(array), -1)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        where = f"array{group and ' '}{group}, row {bad[0][0]}"
        raise DataError(where, must="hold finite numbers", found=counted(len(bad), "missing or infinite value"))
    times = pd.RangeIndex(len(values))
    none = np.zeros((len(values), 0))
    names = [f"{group and group + '/'}series_{number + 1}" for number in range(values.shape[1])]
    return [Series(name, column, times, Step(1, "1"), none, none) for name, column in zip(names, values.T, strict=True)]


def _record(window: Window, *, split: str | None) -> Record:
    times = window.series.times
    now = times[window.now] if window.now < len(times) else window.times[0]
    target = window.future if split else None
    return Record(f"{window.series.name} from {now}", value=window, target=target, split=split)


def _notes(series: Sequence[Series], layout: Layout) -> list[str]:
    steps = listing(dict.fromkeys(one.step.name for one in series))
    notes = [f"{len(series)} series, a row every {steps}: {listing(one.name for one in series)}"]
    known = series[0].known.shape[1]
    if series[0].past.shape[1] or known:
        notes.append(f"covariates: {series[0].past.shape[1]} of the past, {known} known for the future")
    if layout.fill != "refuse":
        notes.append(f"missing rows and cells are filled: {layout.fill}")
    return notes


def _about_windows(series: Sequence[Series], records: Sequence[Record], cut: Cut) -> str:
    counts: Mapping[str, int] = {name: sum(record.split == name for record in records) for name in SPLITS}
    steps = {name: _stride(records, split=name) for name in SPLITS}
    parts = [f"{name} {n:,}{_every(steps[name])}" for name, n in counts.items() if n]
    unused = [len(one.values) - cut.borders(one)["test"][1] for one in series]
    rest = f"; {max(unused):,} rows behind them not used" if max(unused) else ""
    return f"windows in order of time: {', '.join(parts)}{rest}"


def _stride(records: Sequence[Record], *, split: str) -> int:
    """Returns the rows from one window of a split to the next of its series, 1 where there is no next."""
    starts: dict[str, int] = {}
    for record in records:
        window = record.value
        if record.split == split and (first := starts.setdefault(window.series.name, window.start)) < window.start:
            return window.start - first
    return 1


def _every(stride: int) -> str:
    """Returns how windows were thinned, nothing where all were taken."""
    endings = {1: "st", 2: "nd", 3: "rd"}
    ending = "th" if stride % 100 in (11, 12, 13) else endings.get(stride % 10, "th")
    return "" if stride == 1 else f" (every {stride}{ending}; input.windows takes more)"
