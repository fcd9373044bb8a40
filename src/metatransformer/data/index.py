"""From what a user hands in to records: the one door for files, manifests, tables and arrays.

Indexing opens no image and no recording: it looks at names and reads tables. Refused rather than
guessed: a folder whose layout can mean two things, a label that is missing, an item that is named
twice.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.data.folder import index_folder, scan
from metatransformer.data.given import Array, Files, Folder, Items, Sheet, accepts, recognise, require_there
from metatransformer.data.manifest import index_manifest
from metatransformer.data.parts import Parts, expand_parts
from metatransformer.data.records import Index, Records, natural_key, require_text, require_unique
from metatransformer.data.rows import index_table
from metatransformer.data.split import split_records

__all__ = ["Index", "index_files", "index_table", "split_records"]


def index_files(
    data: Any, *, suffixes: Sequence[str], label_column: str = "label", require_labels: bool, parts: Parts | None = None
) -> Index:
    """Returns one record a file, or one an array, for a modality whose ``Source.kind`` is
    ``files``.

    ``data`` is a folder (one folder per class, inside train/val/test or not; or flat, without
    labels), a manifest (a table file or a DataFrame with the columns path, label and optionally
    split, group, key; its paths are absolute or start at its own folder, for a DataFrame at the
    working directory), one file, a list of files and folders, or a list of in-memory arrays; the
    first axis of a single array counts the samples. Folders are sorted naturally; manifests and
    lists keep their order. ``parts`` is the modality's ``Source.parts``: files that hold several
    samples become one record a part, and may bring the labels themselves.

    Raises:
        DataError: nothing there, no file of an accepted ending, a wrong or ambiguous layout, a
            manifest without its columns, a file that does not exist, a missing label where
            ``require_labels``, an item named twice, a name that is no text.
    """
    if parts is not None:
        index = index_files(data, suffixes=suffixes, label_column=label_column, require_labels=False)
        index = expand_parts(index, parts=parts, require_labels=require_labels)
        if not require_labels or all(target is not None for target in index.records.targets):
            return index
    given = recognise(data)
    # A CSV can be a recording of its own (motion sensors): a column 'path' tells a manifest from one.
    if isinstance(given, Sheet) and given.path and accepts(given.path.name, suffixes=suffixes):
        given = given if given.lists_files else Files((given.path,), listed=False)
    if isinstance(given, Folder):
        index = index_folder(given.path, suffixes=suffixes, require_labels=require_labels)
    elif isinstance(given, Sheet):
        index = index_manifest(given, suffixes=suffixes, label_column=label_column, require_labels=require_labels)
    elif isinstance(given, Files) and not require_labels:
        index = index_paths(given.paths, suffixes=suffixes)
    else:
        index = _index_items(given, require_labels=require_labels)
    require_unique(index.records.keys, where="the data" if index.root is None else index.root)
    require_text(index.records)
    return index


def _index_items(given: Files | Array | Items, *, require_labels: bool) -> Index:
    if isinstance(given, Array):
        items = given.values.tolist() if given.values.dtype.kind == "U" else [*given.values]
    else:
        items = given.paths if isinstance(given, Files) else given.items
    if not items:
        raise DataError("the data", must="hold at least one item", found="an empty list")
    if require_labels:
        raise UnlabelledError(
            "the data",
            must="bring a label for every item",
            found=f"{len(items)} items without labels",
            do="Hand in one folder per class or a manifest with the columns path,label; "
            "in Python, labels are the second argument of fit.",
        )
    for row, item in enumerate(items):
        if not isinstance(item, np.ndarray | Mapping):
            raise DataError(
                f"item {row} of the data",
                must="be a numpy array, as the first one decides" if row else "be a path or an array",
                found=f"a {type(item).__name__}",
                do="Convert it, for instance with numpy.asarray.",
            )
    return Index(Records([str(row) for row in range(len(items))], values=items))


def index_paths(paths: Sequence[Path], *, suffixes: Sequence[str]) -> Index:
    """Returns one record a file, without labels, in the order given; those of a folder are sorted naturally.

    Raises:
        DataError: a path that is not there, or another ending.
    """
    files: list[Path] = []
    notes: list[str] = []
    for path in paths:
        if path.is_dir():
            names, more = scan(path, suffixes=suffixes)
            files += [path / name for name in sorted(names, key=natural_key)]
            notes += more
            continue
        require_there(path)
        if not accepts(path.name, suffixes=suffixes):
            raise DataError(
                path,
                must=f"end in {', '.join(suffixes)}",
                found=f"the ending '{path.suffix}'" if path.suffix else "no ending",
            )
        files.append(path)
    return listed(files, notes=notes)


def listed(files: Sequence[Path], *, notes: Sequence[str]) -> Index:
    """Returns one record a file; its key starts at the folder that holds them all."""
    full = [os.path.abspath(file) for file in files]
    root = Path(os.path.commonpath([os.path.dirname(file) for file in full]))
    keys = [Path(file).relative_to(root).as_posix() for file in full]
    return Index(Records(keys, paths=files), tuple(notes), root)
