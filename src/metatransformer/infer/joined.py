"""A table whose rows bring several inputs: each input reads its own columns, and an empty cell is an absent input.

What a cell means, the input's modality says: it names a file, or it is the sample itself (a text, a molecule, an array
in a DataFrame), or it is one of the columns of a row.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, UsageError, nearest
from metatransformer.core.modality import Modality
from metatransformer.data.columns import MISSING
from metatransformer.data.examples import Column, Examples
from metatransformer.data.folder import accepts
from metatransformer.data.given import Sheet
from metatransformer.data.index import index_table
from metatransformer.data.manifest import FOLDER, require_files
from metatransformer.data.records import Index, Records, counted, listing, require_unique
from metatransformer.data.rows import Columns, row_numbers, sheets_of, split_target, targets_of
from metatransformer.infer.sources import Dataset, of_index, read_index, read_unlabelled
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.recipe import InputOptions, Recipe

OWN = ("split", "group", "key")  # columns that say something of a row, unless an input reads them


def read_dataset(data: Any, recipe: Recipe, *, labelled: bool) -> Dataset:
    """Returns what was handed in as samples of the recipe's inputs: by columns where a table brings them, else in the
    forms of the one input's modality. ``labelled`` demands targets; else none plays a part.

    Raises:
        MetaTransformerError: what ``read_joined``, ``read_index`` or ``read_unlabelled`` raise.
    """
    if recipe.joint:
        found = read_joined(data, recipe, labelled=labelled)
        return found.received() if labelled else found
    if not labelled:
        return of_index(read_unlabelled(recipe, data), recipe)
    asked = {"options": recipe.input, "target": recipe.task.target, "header": recipe.data.header, "task": recipe.task}
    index = read_index(get_modality(recipe.modality), data, labelled=True, **asked)
    return of_index(index, recipe).received()


def read_told(data: Any, recipe: Recipe, *, labelled: bool, console: Console) -> Dataset:
    """Returns what ``read_dataset`` does, and prints its notes.

    Raises:
        MetaTransformerError: what ``read_dataset`` raises.
    """
    found = read_dataset(data, recipe, labelled=labelled)
    for note in found.notes:
        console.note(note)
    return found


def read_joined(data: Any, recipe: Recipe, *, labelled: bool) -> Dataset:
    """Returns one sample a row of a table, a folder of train, val and test tables, a DataFrame or a list of mappings.

    ``labelled`` demands a target in each row, of several tasks one of them. Relative paths start at the table's folder.
    The columns ``split``, ``group`` and ``key`` are taken as such.

    Raises:
        UsageError: two inputs read one column; an input of which no column is known; no target where one is needed.
        DataError: a column, a file or a target that is missing; a row without any input; what the readers raise.
    """
    sheets, notes = sheets_of(data)
    parts: list[Examples] = []
    for sheet in sheets:
        rows = _Rows(sheet, header=recipe.data.header)
        recipe = _named_columns(recipe.with_columns(_settled(recipe, rows)))
        part, recipe, more = _read(rows, recipe, labelled=labelled)
        parts.append(part)
        notes = [*notes, *more]
    examples = Examples.joined(parts)
    require_unique(examples.keys, where=sheets[0].where)
    columns = [column for one in recipe.inputs.values() for column in one.columns]
    return Dataset(examples, recipe, tuple(notes), tuple(dict.fromkeys(columns)))


@dataclass(frozen=True)
class _Rows:
    """One table, read twice: with typed cells, and as it is written."""

    sheet: Sheet
    header: bool

    @cached_property
    def typed(self) -> pd.DataFrame:
        return _named(self.sheet.read(header=self.header))

    @cached_property
    def written(self) -> pd.DataFrame:
        return _named(self.sheet.read(header=self.header, text=True, missing=("",)))

    @cached_property
    def names(self) -> list[str]:
        """The columns but one that only numbers the rows."""
        numbering = row_numbers({name: self.typed[name].to_numpy() for name in self.typed.columns[:2]})
        return [name for name in self.typed.columns if name != numbering]

    def require(self, name: str, *, do: str = "") -> None:
        if name not in self.names:
            must, found = f"have a column '{name}'", counted(len(self.names), "other column")
            raise DataError(self.sheet.where, must=must, found=found, do=f"{nearest(name, self.names)} {do}".strip())


def _named(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.set_axis([str(name) for name in frame.columns], axis=1)


def _settled(recipe: Recipe, rows: _Rows) -> dict[str, tuple[str, ...]]:
    """Returns the columns of each input: those of its recipe, or the one that is called like it; an input of rows takes
    what no other one reads.
    """
    targets = {name for task in recipe.tasks.values() for name in _targets(task.target, rows)}
    found = {name: one.columns or ((name,) if name in rows.names else ()) for name, one in recipe.inputs.items()}
    for name, columns in found.items():
        for column in columns:
            rows.require(column, do="An input that is absent everywhere has an empty column.")
            if column in targets:
                must = "read no column that is to be learned"
                raise UsageError(f"recipe key 'inputs.{name}.from'", must=must, found=f"'{column}'")
    _require_apart(recipe, found)
    taken = {*targets, *(column for columns in found.values() for column in columns), *OWN}
    for name, columns in found.items():
        if columns:
            continue
        modality = get_modality(recipe.inputs[name].modality)
        rest = tuple(column for column in rows.names if column not in taken)
        if not modality.source.rows:
            must, do = "name the columns that hold it", f"{nearest(name, rows.names)} {name}={modality.name}(COLUMN)"
            raise UsageError(f"recipe key 'inputs.{name}.from'", must=must, found=f"no column '{name}'", do=do)
        if not rest:
            do = "Leave the input out."
            raise DataError(rows.sheet.where, must=f"have a column for the input '{name}'", found="none left", do=do)
        found[name] = rest
        taken |= set(rest)
    return found


def _named_columns(recipe: Recipe) -> Recipe:
    """Returns the recipe whose inputs also say in their modality's own setting which columns they read."""
    settings: dict[str, dict[str, Any]] = {}
    for name, one in recipe.inputs.items():
        if key := get_modality(one.modality).source.named:
            several = isinstance(getattr(one.options, key), tuple)
            settings[name] = {key: one.columns if several else one.columns[0]}
    return recipe.with_settings(settings)


def _require_apart(recipe: Recipe, columns: Mapping[str, Sequence[str]]) -> None:
    """Raises UsageError where two inputs read a column, unless both read files of it: a film has pictures and sound."""
    readers: dict[str, str] = {}
    for name, own in columns.items():
        for column in own:
            other = readers.setdefault(column, name)
            kinds = {recipe.inputs[reader].modality for reader in (name, other)}
            if other != name and (len(kinds) == 1 or any(get_modality(kind).source.kind != "files" for kind in kinds)):
                must = f"read another column than the input '{other}'"
                raise UsageError(f"recipe key 'inputs.{name}.from'", must=must, found=f"'{column}'")


def _targets(target: str, rows: _Rows) -> tuple[str, ...]:
    return (target,) if target in rows.names else split_target(target)


def _read(rows: _Rows, recipe: Recipe, *, labelled: bool) -> tuple[Examples, Recipe, list[str]]:
    sheet, frame, notes = rows.sheet, rows.typed, []
    if frame.empty:
        raise DataError(sheet.where, must="have at least one row and one column", found="none")
    columns = Columns(frame, where=sheet.where, missing=MISSING)
    targets = _learned(columns, recipe, rows, labelled=labelled)
    inputs: dict[str, Column] = {}
    for name, one in recipe.inputs.items():
        places, index = _input(rows, name, one)
        recipe = recipe.with_settings({name: index.settings})
        inputs[name] = Column(index.records, places).take(np.arange(len(frame)))
        notes += [f"{name}: {note}" for note in index.notes]
        if absent := int((places < 0).sum()):
            notes.append(f"{name}: absent in {counted(absent, 'row')} of {len(frame):,}")
    _require_any(inputs, rows)
    read = {column for one in recipe.inputs.values() for column in one.columns}
    learned = {name for task in recipe.tasks.values() for name in _targets(task.target, rows)}
    own = [name for name in OWN if name in rows.names and name not in read]
    if unused := [name for name in rows.names if name not in {*read, *learned, *own}]:
        notes.append(f"columns not used: {listing(unused)}")
    said = {name: _texts(frame[name]) for name in own}
    nothing: list[str | None] = [None] * len(frame)
    prefix = f"{sheet.split}/" if sheet.split else ""
    if "key" in said:
        sheet.rows.require_all(said["key"], column="key")
    examples = Examples(
        keys=[str(key) for key in said["key"]] if "key" in said else [f"{prefix}{row}" for row in range(len(frame))],
        inputs=inputs,
        targets=targets,
        splits=sheet.rows.splits(said["split"]) if "split" in said else [sheet.split] * len(frame),
        groups=said.get("group", nothing),
    )
    return examples, recipe, notes


def _learned(columns: Columns, recipe: Recipe, rows: _Rows, *, labelled: bool) -> dict[str, list[Any]]:
    """Returns the targets of each task; those of a table that has none are unknown."""
    found: dict[str, list[Any]] = {}
    for name, task in recipe.tasks.items() if labelled else ():
        if not task.target:
            key = "--target" if len(recipe.tasks) == 1 else f"recipe key 'tasks.{name}.target'"
            raise UsageError(key, must="name the column to learn", found="nothing")
        several = len(recipe.tasks) > 1
        found[name] = targets_of(columns, target=task.target, where=rows.sheet.where, gaps=several)
    return found


def _input(rows: _Rows, name: str, one: InputOptions) -> tuple[np.ndarray, Index]:
    """Returns for each row the place of its record, -1 where the input is absent, and the records."""
    modality, columns = get_modality(one.modality), list(one.columns)
    cells = (rows.typed if modality.source.rows else rows.written)[columns]
    there = np.flatnonzero(cells.apply(lambda column: column.map(_is_there)).any(axis=1).to_numpy())
    if not len(there):
        return _placed(there, rows), Index(Records([]))
    present = cells.iloc[there]
    if modality.source.rows:
        return _placed(there, rows), index_table(present, target=None, split_column=None, header=rows.header)
    values = present.iloc[:, 0].tolist()
    where = f"{rows.sheet.where}, column '{columns[0]}'"
    if len(columns) == 1 and rows.sheet.path is None and not isinstance(values[0], str | os.PathLike | Number):
        return _placed(there, rows), _one_each(modality, values, one=one, count=len(there), where=where)
    if modality.source.kind == "files" or (not rows.sheet.strings and _names_files(values, modality)):
        if len(columns) > 1:
            raise UsageError(f"recipe key 'inputs.{name}.from'", must="name one column", found=listing(columns))
        return _files(rows, columns[0], there, values, modality=modality, one=one)
    table = Sheet(frame=present, strings=rows.sheet.strings)
    return _placed(there, rows), _one_each(modality, table, one=one, count=len(there), where=where)


def _is_there(cell: Any) -> bool:
    """Returns whether a cell holds something: an empty text is nothing, and so is what pandas calls missing."""
    if isinstance(cell, str):
        return cell.strip() != ""
    return not pd.api.types.is_scalar(cell) or not pd.isna(cell)


def _names_files(values: Sequence[Any], modality: Modality) -> bool:
    """Returns whether the first cell is the name of a file of this modality: a text may be one."""
    first = values[0]
    return isinstance(first, str) and len(first.split()) == 1 and accepts(first, suffixes=modality.source.suffixes)


def _files(
    rows: _Rows, column: str, there: np.ndarray, values: Sequence[Any], *, modality: Modality, one: InputOptions
) -> tuple[np.ndarray, Index]:
    """Returns one record a different file, or one an array of a DataFrame."""
    where = f"{rows.sheet.where}, column '{column}'"
    named = (os.PathLike,) if rows.sheet.strings else (str, os.PathLike)
    if not all(isinstance(value, named) for value in (values if rows.sheet.strings else values[:1])):
        must = f"name files ({', '.join(modality.source.suffixes[:4])}, ...)"
        row = rows.sheet.rows.name(int(there[0]))
        raise DataError(f"{row}, column '{column}'", must=must, found=f"{values[0]!r}")
    root = Path.cwd() if rows.sheet.path is None else rows.sheet.path.parent
    paths, source = [root / str(value) for value in values], modality.source
    names = replace(rows.sheet.rows, places=tuple(there.tolist()))
    require_files(values, paths=paths, row=names, suffixes=(*source.suffixes, *source.inside, FOLDER), column=column)
    different = dict.fromkeys(paths)
    held = [path for path in different if source.holds is None or source.holds(path)]
    index = _one_each(modality, held, one=one, count=len(held), where=where) if held else Index(Records([]))
    if without := len(different) - len(held):
        index = replace(index, notes=(*index.notes, f"none in {counted(without, 'file')}, where it is absent"))
    once = {path: place for place, path in enumerate(held)}
    return _placed(there, rows, places=[once.get(path, -1) for path in paths]), index


def _one_each(modality: Modality, data: Any, *, one: InputOptions, count: int, where: str) -> Index:
    """Returns the records of a modality's own index, which must be one an item."""
    index = read_index(modality, data, options=one.options, labelled=False)
    if len(index.records) != count:
        must = f"hold one sample an item, as every input beside others ({modality.name})"
        raise DataError(where, must=must, found=f"{len(index.records)} samples in {count} items")
    return index


def _placed(there: np.ndarray, rows: _Rows, *, places: Sequence[int] | None = None) -> np.ndarray:
    found = np.full(len(rows.typed), -1, dtype=np.int64)
    found[there] = np.arange(len(there)) if places is None else places
    return found


def _require_any(inputs: Mapping[str, Column], rows: _Rows) -> None:
    """Raises DataError for rows in which every input is absent."""
    absent = [column.places < 0 for column in inputs.values() if column.places is not None]
    if len(absent) < len(inputs):
        return
    empty = np.flatnonzero(np.logical_and.reduce(absent))
    if len(empty):
        must = f"have at least one of the inputs {', '.join(inputs)}"
        found = "none" + (f", nor have {len(empty) - 1} more rows" if len(empty) > 1 else "")
        do = "Remove such rows, or fill them."
        raise DataError(rows.sheet.rows.name(int(empty[0])), must=must, found=found, do=do)


def _texts(column: pd.Series) -> list[str | None]:
    return [None if pd.isna(value) else str(value) for value in column.tolist()]
