"""A manifest: a table whose rows name files, with columns path, label and optionally split, group,
key."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metatransformer.core.errors import DataError, nearest
from metatransformer.data.folder import accepts
from metatransformer.data.records import Index, Records, counted, listing, split_name, split_spellings
from metatransformer.data.rows import split_target
from metatransformer.data.table import read_columns

FOLDER = "/"  # among the accepted endings: a row may name a folder that is one item
PATHS = ("file", "filename", "file_name", "filepath", "file_path")
# A number as programs write it: 7, -0.5, 1e-3; not 007, which is a name.
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)


def is_manifest(path: Path) -> bool:
    """Returns whether a table file has a column 'path'; reads its first line only."""
    return "path" in read_columns(path)


def index_manifest(
    frame: pd.DataFrame,
    *,
    where: object,
    root: Path,
    first_line: int,
    suffixes: Sequence[str],
    label_column: str,
    require_labels: bool,
) -> Index:
    """Returns one record a row, in the rows' order.

    ``first_line`` is the number of the first row in messages, 0 where rows are no lines.
    A column 'file' (or another usual name) stands for a missing 'path', one ending in '_group' for a
    missing 'group'. Labels stay what they are; text that is a number throughout the column becomes a number. Where
    ``label_column`` names several with commas between them, a label is a tuple with None in gaps. A key is the path as
    POSIX, relative to ``root``.

    Raises:
        DataError: a column, a path, a label or a file is missing; an unknown split or ending.
    """
    row = _Rows(where, first_line)
    columns, renamed = _known_names(_columns(frame))
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
    _check_files(columns["path"], paths=paths, row=row, suffixes=suffixes)
    keys = _keys(columns, paths=paths, root=root, row=row)
    nothing: list[Any] = [None] * len(paths)
    labels = _labels(columns.get(names[0], nothing))
    if len(names) > 1 and set(names) <= columns.keys():
        labels = list(zip(*(_labels(columns[name]) for name in names), strict=True))
    splits = _splits(columns.get("split", nothing), row=row)
    groups = [None if group is None else str(group) for group in columns.get("group", nothing)]
    notes = [*renamed, *_notes(columns, labels=names)]
    return Index(Records(keys, paths=paths, targets=labels, splits=splits, groups=groups), tuple(notes), root)


class _Rows:
    """Names a manifest's rows in messages."""

    def __init__(self, where: object, first_line: int) -> None:
        self.where, self.first_line = where, first_line

    def name(self, row: int) -> str:
        word = "line" if self.first_line else "row"
        return f"{self.where}, {word} {row + self.first_line}"

    def require_all(self, values: Sequence[Any], *, column: str) -> None:
        bad = [row for row, value in enumerate(values) if value is None]
        if bad:
            raise DataError(
                f"{self.name(bad[0])}, column '{column}'",
                must="have a value in every row",
                found=f"{counted(len(bad), 'row')} without one",
                do="Fill them or remove the rows.",
            )


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
    whole = all(value.lstrip("-").isdigit() for value in present)
    number = int if whole else float
    return [None if value is None else number(value) for value in values]


def _splits(values: list[Any], *, row: _Rows) -> list[str | None]:
    splits = [None if value is None else split_name(str(value)) for value in values]
    for number, (value, split) in enumerate(zip(values, splits, strict=True)):
        if value is not None and split is None:
            raise DataError(
                f"{row.name(number)}, column 'split'",
                must=f"be one of {split_spellings()}",
                found=f"'{value}'",
            )
    return splits


def _check_files(texts: Sequence[Any], *, paths: list[Path], row: _Rows, suffixes: Sequence[str]) -> None:
    folders = FOLDER in suffixes
    missing = [number for number, path in enumerate(paths) if not (path.is_file() or (folders and path.is_dir()))]
    if missing:
        first = missing[0]
        more = f"; {len(missing):,} of {len(paths):,} files are missing" if len(missing) > 1 else ""
        raise DataError(
            f"{row.name(first)}, column 'path'",
            must="name a file",
            found=f"'{texts[first]}', which is not there ({paths[first]}){more}",
            do="Relative paths start at the manifest's own folder.",
        )
    for number, path in enumerate(paths):
        if not path.is_dir() and not accepts(path.name, suffixes=suffixes):
            raise DataError(
                f"{row.name(number)}, column 'path'",
                must=f"end in {', '.join(suffixes)}",
                found=f"'{texts[number]}'",
            )


def _keys(columns: Mapping[str, list[Any]], *, paths: list[Path], root: Path, row: _Rows) -> list[str]:
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
