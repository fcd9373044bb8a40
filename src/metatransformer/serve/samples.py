"""From what a request says to what is read for it, by what its model takes.

No text of a request ever names a file of this machine: files are ``Path`` objects, which only ``uploads`` makes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, nearest
from metatransformer.core.modality import Modality
from metatransformer.data.given import accepts
from metatransformer.data.table import TABLE_SUFFIXES
from metatransformer.modalities import get_modality
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.reading import Asked
from metatransformer.serve.uploads import Uploads

PAIR = ("text_1", "text_2")
MOST = 2**63


def asked_of(hosted: Hosted, *, inputs: Any, rows: Any, uploads: Uploads) -> Asked:
    """Returns what is to be read: ``inputs`` (samples), ``rows`` (of one table), or else all files that came.

    Raises:
        DataError: neither or both, or what the model does not take.
    """
    if inputs is not None and rows is not None:
        raise DataError("a request", must="have either 'inputs' or 'rows'", found="both")
    joint = hosted.pipeline.recipe.joint
    if inputs is None and rows is None:
        if not uploads.names:
            raise DataError("a request", must="bring 'inputs', 'rows' or files", found="nothing")
        return _of_files(hosted, list(uploads.names), uploads, joint=joint)
    what, given = ("inputs", inputs) if rows is None else ("rows", rows)
    items = given if isinstance(given, list) else [given]
    if not items:
        raise DataError(f"'{what}'", must="hold at least one sample", found="none")
    if joint:
        return Asked(
            hosted.name, rows=[_joint_row(hosted, item, f"'{what}', sample {n}") for n, item in enumerate(items)]
        )
    modality = hosted.pipeline.modality
    if rows is not None or all(isinstance(item, dict) for item in items):
        return Asked(hosted.name, rows=[_row(item, f"'{what}', row {n}") for n, item in enumerate(items)])
    return _of_items(hosted, modality, items, uploads)


def _of_items(hosted: Hosted, modality: Modality, items: Sequence[Any], uploads: Uploads) -> Asked:
    kinds = {type(item) for item in items}
    if all(isinstance(item, Path) for item in items):
        return _of_files(hosted, [*items], uploads, joint=False)
    if kinds == {str} and modality.source.named:
        return Asked(hosted.name, rows=[{_column(hosted, modality): item} for item in items])
    if kinds == {list}:
        if modality.source.named and all(len(item) == 2 and {*map(type, item)} == {str} for item in items):
            return Asked(hosted.name, rows=[dict(zip(PAIR, item, strict=True)) for item in items])
        if not modality.source.rows:
            return Asked(hosted.name, arrays=[_array(item, f"'inputs', sample {n}") for n, item in enumerate(items)])
    must = f"be samples of one form that '{modality.name}' takes: {forms(modality)}"
    raise DataError("'inputs'", must=must, found=" and ".join(sorted(_named(kind) for kind in kinds)))


def forms(modality: Modality) -> str:
    """Returns in words how a sample of a modality may be handed in as JSON."""
    source = modality.source
    words = ["a text"] if source.named else []
    words += ['{"column": value, ...}'] if source.kind == "table" or source.continues else []
    words += [] if source.rows else ['{"file": NAME}', '{"base64": TEXT, "name": NAME}']
    return ", ".join([*words, *(["numbers in nested lists"] if source.kind == "files" else [])])


def _named(kind: type) -> str:
    known = {str: "texts", dict: "objects", list: "lists", bool: "truth values", type(None): "null"}
    return known.get(kind, "files" if issubclass(kind, Path) else "numbers")


def _column(hosted: Hosted, modality: Modality) -> str:
    """Returns the column that a bare text stands for."""
    said = getattr(hosted.pipeline.recipe.input, modality.source.named)
    said = said[0] if isinstance(said, tuple) and len(said) == 1 else said
    usual = {"column": "smiles"}.get(modality.source.named, "text")
    return said if isinstance(said, str) and said not in ("", "auto") else usual


def _of_files(hosted: Hosted, paths: Sequence[Path], uploads: Uploads, *, joint: bool) -> Asked:
    """Returns files that are a sample each, or one table; a file may lie beside one that it belongs to."""
    if joint:
        if len(paths) == 1 and accepts(paths[0].name, suffixes=TABLE_SUFFIXES):
            return Asked(hosted.name, table=paths[0])
        must = f"bring 'inputs', one object a sample with {', '.join(hosted.pipeline.route)}"
        raise DataError("a request", must=must, found="files alone", do='A file is {"file": NAME} there.')
    source = hosted.pipeline.modality.source
    suffixes = (*source.suffixes, *source.inside)
    taken = [path for path in paths if accepts(path.name, suffixes=suffixes)]
    stems = {path.name.partition(".")[0] for path in taken}
    for path in paths:
        if path not in taken and path.name.partition(".")[0] not in stems:
            listed = ", ".join(suffix for suffix in suffixes if suffix)
            raise DataError(uploads.names[path], must=f"end in {listed}", found=f"the ending '{path.suffix}'")
    tables = [path for path in taken if accepts(path.name, suffixes=TABLE_SUFFIXES)]
    if tables and len(taken) == 1:
        return Asked(hosted.name, table=taken[0])
    if tables and source.kind == "table":
        must, found = "bring one table, or files that are a sample each", f"{len(tables)} tables of {len(taken)} files"
        raise DataError("a request", must=must, found=found, do="Send several requests.")
    return Asked(hosted.name, files=taken)


def _row(item: Any, where: str) -> dict[str, Any]:
    """Returns one row of a table: a scalar for each column."""
    if not isinstance(item, dict) or not item:
        raise DataError(where, must="be an object of columns and their values", found=_named(type(item)))
    for name, value in item.items():
        _scalar(value, f"{where}, column '{name}'")
    return item


def _scalar(value: Any, where: str) -> Any:
    if value is not None and not isinstance(value, str | int | float):
        raise DataError(where, must="be a text, a number, true, false or null", found=_named(type(value)))
    if isinstance(value, int) and not -MOST <= value < MOST:
        raise DataError(where, must="be a whole number of at most 64 bits, or a fraction", found="a larger one")
    return value


def _array(item: Any, where: str) -> np.ndarray:
    """Returns numbers in nested lists as an array."""
    try:
        array = np.array(item)
    except (ValueError, OverflowError) as error:
        raise DataError(where, must="be numbers in lists of equal length", found="lists of unequal length") from error
    if array.dtype.kind not in "iuf" or not array.size:
        raise DataError(where, must="be numbers in lists of equal length", found=f"'{str(item)[:40]}'")
    return array


def _joint_row(hosted: Hosted, item: Any, where: str) -> dict[str, Any]:
    """Returns one sample of several inputs as a row of their columns; an input goes by its name or by its columns."""
    if not isinstance(item, dict) or not item:
        must = f"be an object with one of the inputs {', '.join(hosted.pipeline.route)}"
        raise DataError(where, must=must, found=_named(type(item)))
    recipe = hosted.pipeline.recipe
    columns = {column: get_modality(one.modality) for one in recipe.inputs.values() for column in one.columns}
    row: dict[str, Any] = dict.fromkeys(columns)
    for name, value in item.items():
        one = recipe.inputs.get(name)
        if one is not None and isinstance(value, dict):
            cells: Mapping[str, Any] = value
        elif one is not None and name not in columns and len(one.columns) == 1:
            cells = {one.columns[0]: value}
        else:
            cells = {name: value}
        for column, cell in cells.items():
            if column not in columns:
                known = nearest(column, [*columns, *recipe.inputs])
                raise DataError(where, must="name inputs of the model or their columns", found=f"'{column}'", do=known)
            row[column] = _cell(cell, columns[column], f"{where}, '{column}'")
    return row


def _cell(value: Any, modality: Modality, where: str) -> Any:
    if isinstance(value, Path) and not modality.source.rows:
        if not accepts(value.name, suffixes=(*modality.source.suffixes, *modality.source.inside)):
            must = f"end in {', '.join(suffix for suffix in modality.source.suffixes if suffix)}"
            raise DataError(where, must=must, found=f"the ending '{value.suffix}'")
        return value
    if isinstance(value, list) and modality.source.kind == "files":
        return _array(value, where)
    if value is not None and (isinstance(value, Path | dict | list) or modality.source.kind == "files"):
        raise DataError(where, must=f"be {forms(modality)}", found=_named(type(value)))
    return _scalar(value, where)
