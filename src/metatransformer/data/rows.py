"""A table as records: one row a sample, the target column split off."""

import csv
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, nearest
from metatransformer.data.columns import MISSING
from metatransformer.data.delimited import numbers
from metatransformer.data.given import Array, Folder, Items, Sheet, recognise
from metatransformer.data.records import (
    Index,
    Records,
    Table,
    counted,
    listing,
    objects,
    plain_values,
    split_name,
    split_spellings,
)


def index_table(
    data: Any,
    *,
    target: str | None,
    header: bool = True,
    split_column: str | None = "auto",
    group_column: str | None = None,
    missing: Collection[str] = MISSING,
) -> Index:
    """Returns one record a row, in order; ``value`` is ``{column: value}`` with None for a missing
    value.

    ``data`` is a table file (``read_table``), a folder with train.csv, val.csv, test.csv (or other
    table endings), a DataFrame, a list of dictionaries, or an array ``[rows, columns]``, whose
    columns are named column_1, column_2, ... Of several targets, named with commas between them, a record
    holds a tuple with None in gaps. Fields that stand in ``missing`` count as missing
    wherever the data comes from; spaces around text are removed. Keys are row numbers from 0, after
    the split's name where the split is a file (``train/0``). ``split_column`` "auto" takes a column split whose every
    value is the name of one.

    Raises:
        DataError: what ``read_table`` raises; a column that is not there; a row without target;
            tables of one folder with different columns; an unknown split.
    """
    sheets, notes = sheets_of(data)
    parts: list[Index] = []
    for sheet in sheets:
        part = index_sheet(
            sheet,
            sheet.read(header=header, missing=missing),
            target=target,
            split_column=split_column,
            group_column=group_column,
            missing=missing,
            doubtful=header and sheet.path is not None,
        )
        parts.append(part)
        notes += part.notes
        if set(part.columns) != set(parts[0].columns):
            raise _other_columns(sheet.where, names=parts[0].columns, found=part.columns)
    return replace(parts[0], records=Records.joined([part.records for part in parts]), notes=tuple(notes))


def index_sheet(
    sheet: Sheet,
    frame: pd.DataFrame,
    *,
    target: str | None,
    split_column: str | None,
    group_column: str | None,
    missing: Collection[str],
    doubtful: bool = False,
) -> Index:
    """Returns the rows of one table that was read, as ``index_table`` does; ``doubtful`` says that its first line may
    be data.
    """
    if frame.empty:
        raise DataError(sheet.where, must="have at least one row and one column", found="none")
    notes: list[str] = []
    columns = Columns(frame, where=sheet.where, missing=missing)
    _drop_row_numbers(columns, notes=notes)
    if doubtful:
        notes += _doubtful_header(columns)
    if split_column == "auto":
        split_column = _own_split(columns, target=target or "") if sheet.split is None else None
        if split_column:
            notes.append(f"column '{split_column}' says which rows are train, val and test; it is no input")
    records = _records(columns, sheet, rows=len(frame), target=target, split=split_column, group=group_column)
    notes += _missing_note(columns, count=len(frame))
    return Index(records, tuple(notes), sheet.path and sheet.path.parent, tuple(columns.values))


def sheets_of(data: Any) -> tuple[Sequence[Sheet], list[str]]:
    """Returns the tables in what was handed in, and notes on those that are left."""
    is_file = isinstance(data, str | os.PathLike) and not os.path.isdir(data)
    must = "be a table file, a folder of them, a DataFrame, a list of dictionaries or an array [rows, columns]"
    given = Sheet(Path(data)) if is_file else recognise(data, must=must, do="")
    if isinstance(given, Folder):
        return _split_tables(given)
    if isinstance(given, Array) and given.values.ndim == 2:
        names = [f"column_{i + 1}" for i in range(given.values.shape[1])]
        given = Sheet(frame=pd.DataFrame(given.values, columns=names))
    elif isinstance(given, Items) and given.are(Mapping):
        given = Sheet(frame=pd.DataFrame(list(given.items)))
    if not isinstance(given, Sheet):
        shape = f" of shape {data.shape}" if isinstance(data, np.ndarray) else ""
        raise DataError("the data", must=must, found=f"a {type(data).__name__}{shape}")
    return [given], []


def _split_tables(folder: Folder) -> tuple[Sequence[Sheet], list[str]]:
    if not folder.sheets:
        raise DataError(
            folder.path,
            must="hold train.csv and optionally val.csv and test.csv (or .tsv, .parquet, .jsonl)",
            found=listing(file.name for file in folder.tables) or "no table",
            do="Name one table file instead of the folder.",
        )
    used = [sheet.path for sheet in folder.sheets]
    others = [file.name for file in folder.tables if file not in used]
    return folder.sheets, [f"tables not used: {listing(others)}"] if others else []


class Columns:
    """A table by columns, as ``Table`` has them; ``take`` removes what is not an input."""

    def __init__(self, frame: pd.DataFrame, *, where: object, missing: Collection[str]) -> None:
        self.where = where
        names = [str(name) for name in frame.columns]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(where, must="name every column differently", found=f"'{twice}' twice")
        empty = frozenset(missing)
        self.values = {name: _cells(frame.iloc[:, i], missing=empty) for i, name in enumerate(names)}

    def take(self, name: str) -> list[Any]:
        """Returns a column as Python values, None where one is missing, and removes it."""
        if name not in self.values:
            names = list(self.values)
            doubt = _doubtful_header(self)
            raise DataError(
                self.where,
                must=f"have a column '{name}'",
                found=f"{counted(len(names), 'other column')}",
                do=" ".join([nearest(name, names), *(f"Note: {note}." for note in doubt)]),
            )
        return plain_values(self.values.pop(name))


def _own_split(columns: Columns, *, target: str) -> str | None:
    """Returns the column that is called split and holds nothing else."""
    named = [name for name in columns.values if name.strip().lower() == "split" and name not in split_target(target)]
    for name in named:
        values = [value for value in plain_values(columns.values[name]) if value is not None]
        if values and all(isinstance(value, str) for value in values) and all(map(split_name, set(values))):
            return name
    return None


def _records(
    columns: Columns, sheet: Sheet, *, rows: int, target: str | None, split: str | None, group: str | None
) -> Records:
    targets = None if target is None else targets_of(columns, target=target, where=sheet.where)
    splits: list[str | None] = [sheet.split] * rows
    if split is not None:
        own = _splits(columns.take(split), where=f"{sheet.where}, column '{split}'")
        splits = [name or sheet.split for name in own]
    groups = None if group is None else columns.take(group)
    if not columns.values:
        raise DataError(sheet.where, must="have a column besides the target", found="none")
    prefix = f"{sheet.split}/" if sheet.split else ""
    return Records(
        [f"{prefix}{row}" for row in range(rows)],
        paths=[sheet.path] * rows,
        parts=range(rows),
        values=Table(columns.values),
        targets=targets,
        splits=splits,
        groups=groups and [None if name is None else str(name) for name in groups],
    )


def split_target(text: str) -> tuple[str, ...]:
    """Returns the columns that a text names: separated by commas, in quotation marks where a name holds one."""
    return tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip())


def targets_of(columns: Columns, *, target: str, where: object, gaps: bool = False) -> list[Any]:
    """Takes the target column, or, of several, a tuple a row with None in gaps; ``gaps``: one may have gaps too."""
    names = (target,) if target in columns.values else split_target(target)
    if len(names) < 2:
        name = names[0] if names else target
        values = columns.take(name)
        if not gaps:
            _require_all(values, where=f"{where}, column '{name}'")
        _require_single(values, where=f"{where}, column '{name}'")
        return values
    found = [columns.take(name) for name in names]
    for name, values in zip(names, found, strict=True):
        _require_single(values, where=f"{where}, column '{name}'")
    return list(zip(*found, strict=True))


def _cells(column: pd.Series, *, missing: frozenset[str]) -> np.ndarray:
    """Returns a column as ``Table`` has it: texts without spaces around them, each different one once in memory."""
    if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iufb":
        found = column.to_numpy()
        return found if found.dtype.kind != "f" or found.itemsize in (4, 8) else found.astype(np.float64)
    if pd.api.types.infer_dtype(column, skipna=True) == "string":
        codes, texts = pd.factorize(column)
        return objects([*(_field(text, missing=missing) for text in texts.tolist()), None])[codes]
    values = column.astype(object).tolist()
    present = column.notna().tolist()
    return objects(
        [
            None
            if not ok
            else _field(value, missing=missing)
            if isinstance(value, str)
            else value.item()
            if isinstance(value, np.generic)
            else value
            for value, ok in zip(values, present, strict=True)
        ]
    )


def _field(text: str, *, missing: frozenset[str]) -> str | None:
    stripped = text.strip()
    return None if stripped in missing else stripped


def _splits(values: list[Any], *, where: str) -> list[str | None]:
    splits = [None if value is None else split_name(str(value)) for value in values]
    for row, (value, split) in enumerate(zip(values, splits, strict=True)):
        if value is not None and split is None:
            raise DataError(f"{where}, row {row}", must=f"be one of {split_spellings()}", found=f"'{value}'")
    return splits


def _require_all(values: list[Any], *, where: str) -> None:
    bad = [row for row, value in enumerate(values) if value is None]
    if bad:
        raise DataError(
            where,
            must="have a value in every row",
            found=f"{counted(len(bad), 'row')} without one (row {bad[0]} first, counted from 0)",
            do="Fill them or remove the rows.",
        )


def _require_single(values: list[Any], *, where: str) -> None:
    """Raises DataError for a list or a mapping, which JSON lines and Parquet can hold in one cell."""
    odd = next((row for row, value in enumerate(values) if isinstance(value, list | dict | np.ndarray)), None)
    if odd is not None:
        raise DataError(
            f"{where}, row {odd}",
            must="hold one label or number",
            found=f"a {type(values[odd]).__name__}",
            do="Spread it over several columns.",
        )


def row_numbers(values: Mapping[str, np.ndarray]) -> str | None:
    """Returns the nameless first column of different whole numbers: pandas writes its index so."""
    first = next(iter(values), "")
    if first not in ("unnamed_1", "Unnamed: 0") or len(values) == 1:
        return None
    cells = values[first].tolist()
    whole = values[first].dtype.kind in "iu" or all(type(value) is int for value in cells)
    return first if whole and len(set(cells)) == len(cells) else None


def _drop_row_numbers(columns: Columns, *, notes: list[str]) -> None:
    if first := row_numbers(columns.values):
        del columns.values[first]
        notes.append(f"the nameless first column of {columns.where} only numbers the rows: left out")


def _doubtful_header(columns: Columns) -> list[str]:
    """Returns a note when the names look like data: some are numbers and some are not."""
    names = [name for name in columns.values if not name.startswith("column_")]
    odd = [name for name in names if numbers([name]) is not None]
    if not odd or names == [str(place) for place in range(len(names))]:  # as pandas counts
        return []
    way_out = "if it names no columns, set data.header=false"
    return [f"the first line looks like data ({listing(odd)}): {way_out}"]


def _missing_note(columns: Columns, *, count: int) -> list[str]:
    gaps = {name: int(pd.isna(values).sum()) for name, values in columns.values.items()}
    gaps = {name: number for name, number in gaps.items() if number}
    if not gaps:
        return []
    total = sum(gaps.values())
    most = sorted(gaps, key=lambda name: -gaps[name])
    places = listing(f"{name} {gaps[name]:,}" for name in most)
    return [
        f"{counted(total, 'missing value')} in {counted(count, 'row')} of {columns.where} "
        f"(empty, '?', NA and the like): {places}"
    ]


def _other_columns(where: object, *, names: Sequence[str], found: Sequence[str]) -> DataError:
    lacking = [name for name in names if name not in found]
    extra = [name for name in found if name not in names]
    parts = [f"without {listing(lacking)}"] * bool(lacking) + [f"with {listing(extra)}"] * bool(extra)
    return DataError(where, must="have the same columns as the other tables", found=f"columns {', '.join(parts)}")
