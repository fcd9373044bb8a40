"""From files of motion to records: a file a record, or a window of a long recording a record.

A long recording is a table whose rows carry a label of their own (a column ``activity``), and perhaps a subject and a
split; or, where windows are asked for, any recording.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.core.samples import Record
from metatransformer.data.folder import accepts
from metatransformer.data.given import Given, Rows, Sheet, recognise
from metatransformer.data.index import Index, index_files
from metatransformer.data.manifest import PATHS
from metatransformer.data.records import Records, counted, listing, require_unique
from metatransformer.data.table import read_columns
from metatransformer.modalities._recording.channels import SUBJECTS
from metatransformer.modalities._recording.motion import (
    MOTION_SUFFIXES,
    Motion,
    is_headless,
    motion_from_array,
    motion_from_frame,
    motion_from_mapping,
    read_motion,
    read_motion_table,
    stated_rate,
)
from metatransformer.modalities._recording.uea import read_uea, uea_parts
from metatransformer.modalities.imu.windows import MotionWindow, Stretch, WindowCut, about_windows, cut_stretch

_TABLES = tuple(end for end in MOTION_SUFFIXES if end not in (".npy", ".json", ".ts"))


def index_motion(
    data: Any, *, target: str, labelled: bool, sample: Literal["auto", "file", "window"], cut: WindowCut
) -> Index:
    """Returns one record a file (or case of a ``.ts`` file), or one a window.

    Windows are cut where ``sample`` is "window", and with "auto" where a file has the label's column: ``target``, or
    'label' where no file or folder names one. The index then says so in its ``settings``, for the recipe. A window's
    group is its subject, else the manifest's group, else its file.

    Raises:
        DataError: what reading raises; no window that can be used; no label where ``labelled``.
    """
    name = target or "label"
    given = recognise(data)
    whole = isinstance(given, Sheet) and (given.strings or not {"path", *PATHS} & set(given.columns))
    if whole and given.frame is not None:
        found = Index(Records(["recording"], values=[given.frame]))
        long = sample == "window" or (sample == "auto" and name in given.columns)
    else:
        found = index_files(given, suffixes=MOTION_SUFFIXES, label_column=name, require_labels=False, parts=uea_parts)
        long = sample == "window" or (
            sample == "auto" and _any_long(found, given, name=name, asked=bool(target), labelled=labelled)
        )
    if not long:
        if labelled:
            _require_label_somewhere(found, given, name=name)
        return index_files(given, suffixes=MOTION_SUFFIXES, label_column=name, require_labels=labelled, parts=uea_parts)
    return _cut(found, name=name, labelled=labelled, cut=cut)


def _require_label_somewhere(index: Index, given: Given, *, name: str) -> None:
    """Raises DataError for a table that is one recording and has no column of labels."""
    (record, *others) = index.records
    path = record.path
    if others or path is None or record.target is not None or not accepts(path.name, suffixes=_TABLES):
        return
    if isinstance(given, Sheet):
        raise UnlabelledError(
            path,
            must=f"have a column '{name}' with the label of each time step",
            found=f"the columns {listing(read_columns(path), most=12)}",
            do="Name the column with --target; for one label a file, hand in a folder per class or a manifest.",
        )


def _any_long(index: Index, given: Given, *, name: str, asked: bool, labelled: bool) -> bool:
    """Returns whether a file has the label's column; a manifest's own labels and class folders come first."""
    listed = isinstance(given, Sheet) and (given.frame is not None or given.lists_files)
    for record in index.records:
        bare = record.target is None
        if (labelled and bare) or (asked and (bare or not listed)):
            if record.path is not None and _has_column(record.path, name):
                return True
    return False


def _has_column(path: Path, name: str) -> bool:
    # What is wrong with a damaged table is said when it is read.
    if not accepts(path.name, suffixes=_TABLES):
        return False
    try:
        return name in read_columns(path)
    except DataError:
        return False


@dataclass
class _Harvest:
    """What was found in the files so far: windows, the labels that occur, the subjects' column."""

    cut: WindowCut
    timed: bool | None = None  # as the first recording is; nothing was read yet where None
    records: list[Record] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    labels: set[str] = field(default_factory=set)
    subject: str = ""

    def add(self, stretch: Stretch, *, labelled: bool) -> None:
        """Cuts one recording."""
        if self.timed is None:
            self.timed = stretch.is_timed(self.cut)
            self.cut = self.cut.settled(timed=self.timed)
        records, left_out = cut_stretch(stretch, cut=self.cut, labelled=labelled)
        self.records += records
        self.left_out += left_out
        if labelled and stretch.labels is not None:
            self.labels |= {str(label) for label in pd.unique(stretch.labels) if label is not None}

    @property
    def notes(self) -> list[str]:
        """What was cut and what was left out."""
        timed = self.timed is not False
        notes = [about_windows(self.records, self.left_out, cut=self.cut.settled(timed=timed), timed=timed)]
        if lost := self.labels - {str(record.target) for record in self.records}:
            notes.append(f"no window at all of: {listing(sorted(lost))}; a shorter input.window_s may find some")
        return notes


def _cut(index: Index, *, name: str, labelled: bool, cut: WindowCut) -> Index:
    """Returns an index of windows; cases of a ``.ts`` file stay whole."""
    harvest = _Harvest(cut)
    how = "by the given groups" if any(index.records.groups) else ""
    for record in index.records:
        record = record if record.group or not labelled else replace(record, group=record.key)
        stretches = _read(record, name=name, harvest=harvest, strict=labelled) if record.part is None else []
        for stretch in stretches:
            if labelled and stretch.labels is None and stretch.record.target is None:
                raise _no_label(record, name)
            harvest.add(stretch, labelled=labelled)
        harvest.records += [] if stretches else [record]
    records, notes = harvest.records, harvest.notes
    if not records:
        do = "Shorten input.window_s; input.axes leaves out columns with missing values."
        raise DataError("the data", must="give at least one window", found=notes[0], do=do)
    require_unique([record.key for record in records], where="the data")
    if labelled:
        how = f"by subject: column '{harvest.subject}'" if harvest.subject else how
        records, note = _grouped(records, how=how or "by file: no column subject, user, participant or person")
        notes.append(note)
    settings = {"sample": "window", "window_s": harvest.cut.settled(timed=harvest.timed is not False).length}
    return replace(index, records=Records.of(records), notes=(*index.notes, *notes), settings=settings)


def _no_label(record: Record, name: str) -> DataError:
    return UnlabelledError(
        record.path or record.key,
        must=f"have a column '{name}' with the label of each time step",
        found="none, and no label of the whole file",
        do="Name the column with --target.",
    )


def _read(record: Record, *, name: str, harvest: _Harvest, strict: bool) -> list[Stretch]:
    """Returns the recordings in a file; nothing for one that cannot be read and must not be now.

    Such a file stays one record, so that the others can be read; reading it raises the error.
    """
    try:
        return _stretches(record, name=name, harvest=harvest)
    except DataError:
        if strict:
            raise
        return []


def _stretches(record: Record, *, name: str, harvest: _Harvest) -> list[Stretch]:
    """Returns the recordings in a file, one a run of subject and split; the harvest learns the subjects' column."""
    frame, row = _frame(record)
    if frame is None:
        return [Stretch(record.key, record, _in_memory_or_file(record))]
    where = record.path or record.key
    subject = next((column for column in frame.columns if re.sub(r"[\W_]+", "", str(column).lower()) in SUBJECTS), None)
    split = "split" if "split" in frame.columns else None
    harvest.subject = harvest.subject or ("" if subject is None else str(subject))
    marks = [column for column in (subject, split) if column is not None]
    labels = _labels(frame.loc[:, name]) if name in frame.columns else None
    rest = frame.drop(columns=[column for column in (*marks, name) if column in frame.columns])
    word, line = row
    values = {column: _marks(frame.loc[:, column], rows=Rows(where, line)) for column in marks}
    splits = [None] * len(frame) if split is None else Rows(where, line).splits(values[split])
    rate_hz = 0.0 if record.path is None else stated_rate(record.path)
    found, seen = [], Counter[str]()
    for first, stop in _runs([*values.values()], rows=len(frame)):
        motion = motion_from_frame(
            rest.iloc[first:stop], where=where, row=(word, line + first), rate_hz=rate_hz, missing=True
        )
        one = record
        title = record.key
        if subject is not None:
            one = replace(one, group=values[subject][first])
            title = f"{title}#{one.group}"
        if split is not None:
            one = replace(one, split=splits[first])
        seen[title] += 1
        title += f".{seen[title]}" if seen[title] > 1 else ""
        found.append(Stretch(title, one, motion, None if labels is None else labels[first:stop]))
    return found


def _frame(record: Record) -> tuple[pd.DataFrame | None, tuple[str, int]]:
    """Returns a table with named columns, None for another recording; and what its rows are called."""
    if isinstance(record.value, pd.DataFrame):
        return record.value, ("row", 0)
    path = record.path
    if path is None or not accepts(path.name, suffixes=_TABLES) or is_headless(path):
        return None, ("row", 0)
    return read_motion_table(path)


def _in_memory_or_file(record: Record) -> Motion:
    return _in_memory(record) if record.path is None else read_motion(record.path)


def _runs(columns: Sequence[list[str]], *, rows: int) -> list[tuple[int, int]]:
    """Returns ``[first, stop)`` of each run of rows that agree in all columns."""
    changes = np.zeros(max(0, rows - 1), dtype=bool)
    for column in columns:
        codes = pd.factorize(np.array(column, dtype=object))[0]
        changes |= np.diff(codes) != 0
    borders = [0, *(np.flatnonzero(changes) + 1).tolist(), rows]
    return list(zip(borders[:-1], borders[1:], strict=True))


def _marks(column: pd.Series, *, rows: Rows) -> list[str]:
    """Returns a column that every row must fill, as text."""
    values = _labels(column).tolist()
    rows.require_all(values, column=str(column.name))
    return [str(value) for value in values]


def _labels(column: pd.Series) -> np.ndarray:
    """Returns labels as Python values, None where one is missing: whole numbers as int, text as text."""
    missing = column.isna().to_numpy()
    if column.dtype.kind == "f":
        known = column.to_numpy()[~missing]
        number = int if bool((known == np.round(known)).all()) else float
    else:
        number = int if column.dtype.kind in "iu" else str
    cells = [None if gone else number(cell) for cell, gone in zip(column.tolist(), missing.tolist(), strict=True)]
    labels = np.empty(len(cells), dtype=object)
    labels[:] = cells
    return labels


def _grouped(records: list[Record], *, how: str) -> tuple[list[Record], str]:
    """Returns the windows with the group that a split must not tear, and a note on it.

    Of a single group, which cannot be split, each stretch of one label becomes a group.
    """
    groups = list(dict.fromkeys(record.group for record in records))
    if len(groups) > 1 or any(record.split for record in records):
        return records, f"split {how} ({counted(len(groups), 'group')}: {listing(groups)})"
    numbers = np.cumsum([_begins(records, place) for place in range(len(records))]).tolist()
    apart = [
        replace(record, group=f"{record.group}, stretch {number}")
        for record, number in zip(records, numbers, strict=True)
    ]
    stretches = counted(numbers[-1], "stretch").replace("stretchs", "stretches")
    return apart, (
        f"split by stretches of one label ({stretches}), as there is one recording or subject only: "
        "scores hold for this one, not for another"
    )


def _begins(records: Sequence[Record], place: int) -> bool:
    """Returns whether a window does not go on from the one before: another label or recording, or a gap."""
    if place == 0:
        return True
    now, before = records[place].value, records[place - 1].value
    if not isinstance(now, MotionWindow) or not isinstance(before, MotionWindow):
        return True
    changed = records[place].target != records[place - 1].target or now.name != before.name
    return changed or now.start > before.stop + 0.5 * (now.stop - now.start)


def load_motion(record: Record) -> dict[str, Any]:
    """Returns ``values`` [t, axes], ``names``, ``units``, ``times_s``, ``rate_hz``, ``left_out`` and ``named``."""
    if isinstance(record.value, MotionWindow):
        motion = record.value.motion
    elif record.path is None:
        motion = _in_memory(record)
    elif record.path.suffix.lower() == ".ts":
        motion = motion_from_array(_case(record, record.path), where=record.path)
    else:
        motion = read_motion(record.path)
    return {
        "values": motion.values,
        "names": motion.names,
        "units": motion.units,
        "times_s": motion.times_s,
        "rate_hz": motion.rate_hz,
        "left_out": motion.left_out,
        "named": motion.named,
    }


def _in_memory(record: Record) -> Motion:
    if isinstance(record.value, Mapping):
        return motion_from_mapping(record.value, where=record.key)
    return motion_from_array(np.asarray(record.value), where=record.key)


def _case(record: Record, path: Path) -> np.ndarray:
    cases = uea_parts(path)  # a file that the index could not open says here what is wrong with it
    if record.part is None and len(cases) > 1:
        must, do = "hold one recording here", "Name it as data, not in a list of single samples."
        raise DataError(path, must=must, found=f"{len(cases)}", do=do)
    return read_uea(path, part=1 if record.part is None else int(record.part))
