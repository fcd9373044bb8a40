"""A manifest: a table whose rows name files, with columns path, label and optionally split, group,
key; identity, and camera beside it, stand for a missing label."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metatransformer.core.errors import DataError, nearest
from metatransformer.data.given import Rows, Sheet, accepts
from metatransformer.data.records import Index, Records, counted, listing
from metatransformer.data.rows import split_target

FOLDER = "/"  # among the accepted endings: a row may name a folder that is one item
LABEL, IDENTITY, CAMERA = "label", "identity", "camera"
PATHS = ("file", "filename", "file_name", "filepath", "file_path")
# A number as programs write it: 7, -0.5, 1e-3; not 007, which is a name.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def index_manifest(sheet: Sheet, *, suffixes: Sequence[str], label_column: str, require_labels: bool) -> Index:
    """Returns one record a row, in the rows' order.

    A column 'file' (or another usual name) stands for a missing 'path', one ending in '_group' for a
    missing 'group'. Labels stay what they are; text that is a number throughout the column becomes a number. Where
    ``label_column`` names several with commas between them, a label is a tuple with None in gaps. A path is absolute or
    starts at the manifest's folder, for one in memory at the working directory; a key is the path as POSIX from there.

    Raises:
        DataError: a column, a path, a label or a file is missing; an unknown split or ending.
    """
    root = Path.cwd() if sheet.path is None else sheet.path.parent
    row, where = sheet.rows, sheet.rows.where
    # Text only: a class called NA stays a class, and label 007 keeps its zeros.
    frame = sheet.read(header=True, text=True, missing=("",))
    columns, renamed = _known_names(_columns(frame))
    if label_column == LABEL and LABEL not in columns and IDENTITY in columns:
        label_column = ",".join(name for name in (IDENTITY, CAMERA) if name in columns)
        renamed.append(f"no column '{LABEL}': {label_column} taken for it")
    several = split_target(label_column)
    names = (label_column,) if label_column in columns or len(several) < 2 else several
    wanted = ["path", *names] if require_labels else ["path"]
    for name in wanted:
        _require_column(columns, name, where=where)
    if frame.empty:
        raise DataError(where, must="have at least one row", found="none")
    for name in wanted if len(names) == 1 else wanted[:1]:  # of several labels some may not be known
        row.require_all(columns[name], column=name)
    paths = [root / str(text) for text in columns["path"]]
    require_files(columns["path"], paths=paths, row=row, suffixes=suffixes, column="path")
    keys = _keys(columns, paths=paths, root=root, row=row)
    nothing: list[Any] = [None] * len(paths)
    labels = _labels(columns.get(names[0], nothing))
    if len(names) > 1 and set(names) <= columns.keys():
        labels = list(zip(*(_labels(columns[name]) for name in names), strict=True))
    splits = row.splits(columns.get("split", nothing))
    groups = [None if group is None else str(group) for group in columns.get("group", nothing)]
    notes = [*renamed, *_notes(columns, labels=names)]
    return Index(Records(keys, paths=paths, targets=labels, splits=splits, groups=groups), tuple(notes), root)


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    """Returns the columns as Python values, None where one is missing."""
    filled = frame.astype(object).where(frame.notna(), None)
    return {str(name): filled.iloc[:, i].tolist() for i, name in enumerate(frame.columns)}


def _known_names(columns: Mapping[str, list[Any]]) -> tuple[dict[str, list[Any]], list[str]]:
    """Returns the columns under this module's names, and notes on what was taken for what.

    Without a column 'path', the only one of its usual names stands for it; without a column
    'group', the only one whose name ends in '_group'.
    """
    usual = {"path": [n for n in columns if n in PATHS], "group": [n for n in columns if n.endswith("_group")]}
    taken = {found[0]: name for name, found in usual.items() if name not in columns and len(found) == 1}
    notes = [f"column '{column}' taken as '{name}'" for column, name in taken.items()]
    return {taken.get(name, name): values for name, values in columns.items()}, notes


def _require_column(columns: Mapping[str, list[Any]], name: str, *, where: object) -> None:
    if name not in columns:
        raise DataError(
            where,
            must=f"have a column '{name}'",
            found=counted(len(columns), "other column"),
            do=nearest(name, columns),
        )


def _labels(values: list[Any]) -> list[Any]:
    present = [value for value in values if value is not None]
    if not all(isinstance(value, str) and _NUMBER.fullmatch(value) for value in present):
        return values
    whole = all(re.fullmatch(r"-?[0-9]{1,18}", value) for value in present)
    number = int if whole else float
    return [None if value is None else number(value) for value in values]


def require_files(texts: Sequence[Any], *, paths: list[Path], row: Rows, suffixes: Sequence[str], column: str) -> None:
    """Raises DataError where a cell of a table names no file of an accepted ending; ``row`` names its rows."""
    folders = FOLDER in suffixes
    missing = [number for number, path in enumerate(paths) if not (path.is_file() or (folders and path.is_dir()))]
    if missing:
        first = missing[0]
        more = f"; {len(missing):,} of {len(paths):,} files are missing" if len(missing) > 1 else ""
        raise DataError(
            f"{row.name(first)}, column '{column}'",
            must="name a file",
            found=f"'{texts[first]}', which is not there ({paths[first]}){more}",
            do="Relative paths start at the manifest's own folder.",
        )
    for number, path in enumerate(paths):
        if not path.is_dir() and not accepts(path.name, suffixes=suffixes):
            raise DataError(
                f"{row.name(number)}, column '{column}'",
                must=f"end in {', '.join(suffixes)}",
                found=f"'{texts[number]}'",
            )


def _keys(columns: Mapping[str, list[Any]], *, paths: list[Path], root: Path, row: Rows) -> list[str]:
    if "key" not in columns:
        return [_key(path, root=root) for path in paths]
    row.require_all(columns["key"], column="key")
    return [str(key) for key in columns["key"]]


def _key(path: Path, *, root: Path) -> str:
    clean, start = Path(os.path.normpath(path)), Path(os.path.normpath(root))
    inside = clean.is_relative_to(start)
    return (clean.relative_to(start) if inside else clean).as_posix()


def _notes(columns: Iterable[str], *, labels: Sequence[str]) -> list[str]:
    known = {"path", *labels, "split", "group", "key"}
    others = [name for name in columns if name not in known]
    return [f"columns not used: {listing(others)}"] if others else []
