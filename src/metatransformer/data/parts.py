"""Files that hold several samples: an index of files becomes an index of what is inside them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data.records import Index, Records, counted, split_name

Parts = Callable[[Path], Sequence[tuple[int | str, Any]]]


def expand_parts(index: Index, *, parts: Parts, require_labels: bool) -> Index:
    """Returns the index with one record for each part of a file; other records stay as they are.

    ``parts`` gives number and label (None = none) of every part of a file, nothing where the file
    is one sample. A part's key is the file's with ``#`` and the number, unless it is the only one.
    Files called ``..._TRAIN`` and ``..._TEST`` (any spelling of a split) give their parts a split.
    Where no labels are required, a file that ``parts`` refuses stays one record, so that the others
    can be read; reading that one raises the same error.

    Raises:
        DataError: what ``parts`` raises where ``require_labels``; folder or manifest and file name
            different labels.
    """
    records: list[Record] = []
    opened = spread = 0
    for record in index.records:
        found = () if record.path is None else _found(record.path, parts, strict=require_labels)
        records += _of_file(record, found) if found else [record]
        opened += bool(found)
        spread += len(found)
    if not opened:
        return index
    note = f"{counted(spread, 'sample')} in {counted(opened, 'file')}"
    splits = sorted({record.split for record in records if record.split} - _given(index))
    if splits:
        note += f", split by the files' names: {', '.join(splits)}"
    return replace(index, records=Records.of(records), notes=(*index.notes, note))


def _found(path: Path, parts: Parts, *, strict: bool) -> Sequence[tuple[int | str, Any]]:
    try:
        return parts(path)
    except DataError:
        if strict:
            raise
        return ()


def _given(index: Index) -> set[str]:
    return {split for split in index.records.splits if split}


def _of_file(record: Record, found: Sequence[tuple[int | str, Any]]) -> list[Record]:
    assert record.path is not None
    split = record.split or split_name(record.path.stem.rpartition("_")[2])
    records = []
    for part, label in found:
        key = record.key if len(found) == 1 else f"{record.key}#{part}"
        if record.target is not None and label is not None and str(label) != str(record.target):
            raise DataError(
                record.path,
                must="have its labels in the file or in its folder's name, not in both",
                found=f"'{label}' in the file and '{record.target}' outside it",
                do="Name the file or the folder that holds it directly.",
            )
        target = record.target if label is None else label
        records.append(replace(record, key=key, part=part, target=target, split=split))
    return records
