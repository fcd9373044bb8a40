"""Text with one point a line: XYZ, TXT, PTS, CSV; separated by blanks, tabs, commas or semicolons.

The first line may name the columns (``x y z nx ny nz``, also behind ``//`` or ``#``), or hold nothing but the number of
points, as in PTS.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from metatransformer.core.errors import DataError

_ROWS = 1 << 16  # lines read at a time
_SEPARATOR = re.compile(r"[,;\s]+")
_COMMENTS = ("#", "//")


def read_points_text(path: Path) -> tuple[tuple[str, ...], Iterator[np.ndarray]]:
    """Returns the names of the columns, none where the file has none, and the rows ``[n, columns]``, some at a time.

    Raises:
        DataError: no UTF-8 text, no row, rows of different length, a field that is no number.
    """
    lines = _lines(path)
    names: tuple[str, ...] = ()
    skipped, width = 0, 0
    for number, line in lines:
        fields = _split(line.lstrip("#/ \t"))
        if _are_numbers(fields) and not line.startswith(_COMMENTS):
            if len(fields) == 1 and not skipped:  # the number of points
                skipped = number
                continue
            width = len(fields)
            break
        if {"x", "y", "z"} <= {field.strip("\"'").lower() for field in fields}:
            names = tuple(field.strip("\"'") for field in fields)
        elif not line.startswith(_COMMENTS):
            must = "be numbers, below at most one line that names the columns x, y, z"
            raise DataError(f"{path}, line {number}", must=must, found=f"'{line[:60]}'")
        skipped = number
    if not width:
        raise DataError(path, must="hold at least one point", found="no line of numbers")
    return names, _tables(path, skip=skipped, width=len(names) or width)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not empty, stripped, with their numbers from 1."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line := line.strip():
                    yield number, line
    except UnicodeDecodeError as error:
        raise DataError(path, must="be text in UTF-8", found=f"'{error}'") from error


def _split(line: str) -> list[str]:
    return [field for field in _SEPARATOR.split(line) if field]


def _are_numbers(fields: Sequence[str]) -> bool:
    try:
        return bool([float(field) for field in fields])
    except ValueError:
        return False


def _tables(path: Path, *, skip: int, width: int) -> Iterator[np.ndarray]:
    lines = ((number, line) for number, line in _lines(path) if number > skip and not line.startswith(_COMMENTS))
    while rows := list(islice(lines, _ROWS)):
        fields = [_split(line) for _, line in rows]
        for (number, _), found in zip(rows, fields, strict=True):
            if len(found) != width:
                must = f"have {width} columns, as above"
                raise DataError(f"{path}, line {number}", must=must, found=str(len(found)))
        try:
            yield np.array(fields, dtype=np.float64)
        except ValueError as error:
            number = next(n for (n, _), found in zip(rows, fields, strict=True) if not _are_numbers(found))
            raise DataError(f"{path}, line {number}", must="hold numbers", found=f"'{error}'") from error
