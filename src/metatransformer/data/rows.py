"""A table as records: one row a sample, the target column split off."""

import csv
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, nearest
from metatransformer.core.samples import SPLITS
from metatransformer.data.columns import MISSING
from metatransformer.data.delimited import numbers
from metatransformer.data.folder import accepts
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
from metatransformer.data.table import TABLE_SUFFIXES, read_table


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
    notes: list[str] = []
    tables = _tables(data, header=header, missing=missing, notes=notes)
    parts: list[Records] = []
    for table in tables:
        columns = _Columns(table.frame, where=table.where, missing=missing)
        _drop_row_numbers(columns, notes=notes)
        if header and isinstance(data, str | os.PathLike):
            notes += _doubtful_header(columns)
        split = split_column
        if split == "auto":
            split = _own_split(columns, table=table, target=target or "")
            notes += [f"column '{split}' says which rows are train, val and test; it is no input"] if split else []
        parts.append(_records(columns, table=table, target=target, split=split, group=group_column))
        notes += _missing_note(columns, count=len(table.frame))
    names = [part.table.names for part in parts if part.table is not None]
    for table, found in zip(tables, names, strict=True):
        if set(found) != set(names[0]):
            raise _other_columns(table.where, names=names[0], found=found)
    root = tables[0].path.parent if tables[0].path is not None else None
    return Index(Records.joined(parts), tuple(notes), root, names[0])


class _Table:
    """A frame, what to call it in messages, its file and the split that its name says."""

    def __init__(
        self,
        frame: pd.DataFrame,
        *,
        where: object,
        path: Path | None = None,
        split: str | None = None,
    ) -> None:
        self.frame, self.where, self.path, self.split = frame, where, path, split


class _Columns:
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


def _tables(data: Any, *, header: bool, missing: Collection[str], notes: list[str]) -> list[_Table]:
    if isinstance(data, str | os.PathLike):
        path = Path(data)
        if path.is_dir():
            return _folder(path, header=header, missing=missing, notes=notes)
        frame = read_table(path, header=header, missing=missing)
        return [_Table(frame, where=path, path=path)]
    if isinstance(data, np.ndarray) and data.ndim == 2:
        names = [f"column_{i + 1}" for i in range(data.shape[1])]
        frame = pd.DataFrame(data, columns=names)
    elif isinstance(data, pd.DataFrame):
        frame = data
    elif isinstance(data, list | tuple) and data and all(isinstance(row, Mapping) for row in data):
        frame = pd.DataFrame(list(data))
    else:
        shape = f" of shape {data.shape}" if isinstance(data, np.ndarray) else ""
        raise DataError(
            "the data",
            must="be a table file, a folder of them, a DataFrame, a list of dictionaries or an array [rows, columns]",
            found=f"a {type(data).__name__}{shape}",
        )
    if frame.empty:
        raise DataError("the table", must="have at least one row and one column", found="none")
    return [_Table(frame, where="the table")]


def _folder(path: Path, *, header: bool, missing: Collection[str], notes: list[str]) -> list[_Table]:
    files = sorted(p for p in path.iterdir() if accepts(p.name, suffixes=TABLE_SUFFIXES))
    files = [file for file in files if not file.name.startswith(".")]
    found: dict[str, Path] = {}
    for file in files:
        split = split_name(file.name.split(".")[0])
        if split is not None and split in found:
            raise DataError(
                path,
                must=f"hold one table for the split '{split}'",
                found=f"{found[split].name} and {file.name}",
                do="Remove one, or name a file instead of the folder.",
            )
        if split is not None:
            found[split] = file
    if not found:
        names = listing(file.name for file in files) or "no table"
        raise DataError(
            path,
            must="hold train.csv and optionally val.csv and test.csv (or .tsv, .parquet, .jsonl)",
            found=names,
            do="Name one table file instead of the folder.",
        )
    if others := [file.name for file in files if file not in found.values()]:
        notes.append(f"tables not used: {listing(others)}")
    return [
        _Table(
            read_table(found[split], header=header, missing=missing),
            where=found[split],
            path=found[split],
            split=split,
        )
        for split in SPLITS
        if split in found
    ]


def _own_split(columns: _Columns, *, table: _Table, target: str) -> str | None:
    """Returns the column that is called split and holds nothing else, None where the files are the splits already."""
    if table.split is not None:
        return None
    named = [name for name in columns.values if name.strip().lower() == "split" and name not in split_target(target)]
    for name in named:
        values = [value for value in plain_values(columns.values[name]) if value is not None]
        if values and all(isinstance(value, str) for value in values) and all(map(split_name, set(values))):
            return name
    return None


def _records(columns: _Columns, *, table: _Table, target: str | None, split: str | None, group: str | None) -> Records:
    count = len(table.frame)
    targets = None if target is None else _targets(columns, target=target, where=table.where)
    splits: list[str | None] = [table.split] * count
    if split is not None:
        splits = _splits(columns.take(split), where=f"{table.where}, column '{split}'")
    groups = None if group is None else columns.take(group)
    if not columns.values:
        raise DataError(table.where, must="have a column besides the target", found="none")
    prefix = f"{table.split}/" if table.split else ""
    return Records(
        [f"{prefix}{row}" for row in range(count)],
        paths=[table.path] * count,
        parts=range(count),
        values=Table(columns.values),
        targets=targets,
        splits=splits,
        groups=groups and [None if group is None else str(group) for group in groups],
    )


def split_target(text: str) -> tuple[str, ...]:
    """Returns the columns that a text names: separated by commas, in quotation marks where a name holds one."""
    return tuple(name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip())


def _targets(columns: _Columns, *, target: str, where: object) -> list[Any]:
    """Returns the values of the target column, or, of several, a tuple a row with None in gaps."""
    names = (target,) if target in columns.values else split_target(target)
    if len(names) < 2:
        name = names[0] if names else target
        values = columns.take(name)
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


def _drop_row_numbers(columns: _Columns, *, notes: list[str]) -> None:
    """Leaves out a nameless first column of different whole numbers: pandas writes its index so."""
    first = next(iter(columns.values))
    if first not in ("unnamed_1", "Unnamed: 0") or len(columns.values) == 1:
        return
    values = columns.values[first]
    whole = values.dtype.kind in "iu" or all(type(value) is int for value in values.tolist())
    if whole and len(set(values.tolist())) == len(values):
        del columns.values[first]
        notes.append(f"the nameless first column of {columns.where} only numbers the rows: left out")


def _doubtful_header(columns: _Columns) -> list[str]:
    """Returns a note when the names look like data: some are numbers and some are not."""
    names = [name for name in columns.values if not name.startswith("column_")]
    odd = [name for name in names if numbers([name]) is not None]
    if not odd or len(odd) == len(names):
        return []
    way_out = "if it names no columns, set data.header=false"
    return [f"the first line looks like data ({listing(odd)}): {way_out}"]


def _missing_note(columns: _Columns, *, count: int) -> list[str]:
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
