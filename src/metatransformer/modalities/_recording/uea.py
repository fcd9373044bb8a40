"""The UEA archive's ``.ts``: several series of several dimensions in one file, each with its label.

Source: the format's description at timeseriesclassification.com; header lines start with @, and a
line below ``@data`` is one case: its dimensions separated by colons, their values by commas, the
label last.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.data.delimited import decode
from metatransformer.data.limits import MOST_VALUE, read_bytes
from metatransformer.data.records import counted

_CACHED_FILES = 2  # train and test; a file is read once and its cases are cut out of it


@dataclass(frozen=True)
class _Cases:
    """The lines below ``@data`` with their numbers, and the header that they were read under."""

    lines: tuple[tuple[int, str], ...]
    labelled: bool
    dimensions: int | None
    length: int | None


def uea_parts(path: str | Path) -> tuple[tuple[int, str | None], ...]:
    """Returns the number (from 1) and the label of every case, None where the file has no labels; nothing for a file
    that does not end in ``.ts``.

    Raises:
        DataError: no such file, no ``@data``, no case, stamped times.
    """
    path = Path(path)
    if path.suffix.lower() != ".ts":
        return ()
    cases = _cases(path)
    labels = [text.rpartition(":")[2].strip() if cases.labelled else None for _, text in cases.lines]
    return tuple(enumerate(labels, start=1))


def read_uea(path: str | Path, *, part: int) -> np.ndarray:
    """Returns case ``part`` (from 1) as float64 ``[t, dimensions]``.

    Raises:
        DataError: what ``uea_parts`` raises; no such case; dimensions of different length or another
            number of them, a field that is no number, a missing value.
    """
    path = Path(path)
    cases = _cases(path)
    if not 1 <= part <= len(cases.lines):
        count = counted(len(cases.lines), "case")
        raise DataError(path, must=f"hold a case {part}", found=count)
    number, text = cases.lines[part - 1]
    where = f"{path}, line {number}"
    fields = text.split(":")
    if cases.labelled:
        fields.pop()
    rows = [_values(field, where=where) for field in fields]
    wanted = cases.dimensions or len(rows)
    lengths = {len(row) for row in rows}
    if len(rows) != wanted or len(lengths) != 1 or cases.length not in (None, *lengths):
        shape = f"{wanted} dimensions of {cases.length or 'one'} {'steps' if cases.length else 'length'}"
        raise DataError(
            where,
            must=f"hold {shape}",
            found=f"{len(rows)} of {sorted(lengths)} steps",
            do="Copy the file again: it may be cut off.",
        )
    values = np.stack(rows, axis=1)
    bad = np.argwhere(~(np.abs(values) <= MOST_VALUE))
    if len(bad):
        step, axis = (bad[0] + 1).tolist()
        raise DataError(
            f"{where}, dimension {axis}, step {step}",
            must="hold a finite number at every step",
            found=f"{len(bad):,} of {values.size:,} missing, infinite or beyond {MOST_VALUE:g}",
            do="Fill the gaps, or remove the case.",
        )
    return values


def _values(field: str, *, where: str) -> np.ndarray:
    cells = ["nan" if cell.strip() == "?" else cell for cell in field.split(",")]
    try:
        return np.array(cells, dtype=np.float64)
    except ValueError as error:
        raise DataError(where, must="hold numbers separated by commas", found=f"'{error}'") from error


def _cases(path: Path) -> _Cases:
    if not path.is_file():
        raise DataError(path, must="be a .ts file", found="nothing there or a folder")
    state = path.stat()
    return _parsed(path, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=_CACHED_FILES)
def _parsed(path: Path, size: int, modified: int) -> _Cases:
    """Returns the file's cases; size and time belong to the key, so that a changed file is read."""
    del size, modified
    text = decode(read_bytes(path), path=path, latin=True)
    header: dict[str, list[str]] = {}
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line or line[0] in "#%":
            continue
        if "data" in header:
            lines.append((number, line))
        elif line.startswith("@") and line.strip("@ \t"):
            name, *words = line[1:].split()
            header[name.lower()] = words
        else:
            raise DataError(f"{path}, line {number}", must="start with @ and a name", found=repr(line[:30]))
    if not lines:
        raise DataError(path, must="hold a case below @data", found="none")
    if _is_set(header, "timestamps"):
        raise DataError(
            path,
            must="hold values without times (@timeStamps false)",
            found="@timeStamps true",
            do="Save each recording as a CSV file with a column time_s.",
        )
    labelled = _is_set(header, "classlabel") or _is_set(header, "targetlabel")
    length = _whole(header, "serieslength") if _is_set(header, "equallength") else None
    return _Cases(tuple(lines), labelled, _whole(header, "dimensions"), length)


def _is_set(header: dict[str, list[str]], name: str) -> bool:
    return header.get(name, [""])[:1] == ["true"]


def _whole(header: dict[str, list[str]], name: str) -> int | None:
    words = header.get(name, [])
    return int(words[0]) if words and re.fullmatch(r"[0-9]{1,18}", words[0]) else None
