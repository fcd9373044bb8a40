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
_QUOTES = "\"'"


def read_points_text(path: Path) -> tuple[tuple[str, ...], Iterator[np.ndarray]]:
    """Returns the names of the columns, none where the file has none, and the rows ``[n, columns]``, some at a time.

    Raises:
        DataError: no UTF-8 text, no row, rows of different length, a field that is no number, another number of rows
            than the first line says.
    """
    names: tuple[str, ...] = ()
    start, width, announced = 0, 0, -1
    for number, line in _lines(path):
        is_comment = line.startswith(_COMMENTS)
        fields = _split(line.lstrip("#/ \t"))
        if _are_numbers(fields) and not is_comment:
            if len(fields) > 1 or announced >= 0 or not fields[0].isdigit():
                start, width = number, len(fields)
                break
            announced = int(fields[0])
        elif {"x", "y", "z"} <= {field.strip(_QUOTES).lower() for field in fields}:
            names = tuple(field.strip(_QUOTES) for field in fields)
        elif not is_comment:
            must = "be numbers, below at most one line that names the columns x, y, z"
            raise DataError(f"{path}, line {number}", must=must, found=f"'{line[:60]}'")
    if not width:
        raise DataError(path, must="hold at least one point", found="no line of numbers")
    return names, _tables(path, start=start, width=len(names) or width, announced=announced)


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


def _tables(path: Path, *, start: int, width: int, announced: int) -> Iterator[np.ndarray]:
    lines = ((number, line) for number, line in _lines(path) if number >= start and not line.startswith(_COMMENTS))
    total = 0
    while rows := list(islice(lines, _ROWS)):
        fields = [_split(line) for _, line in rows]
        for (number, _), found in zip(rows, fields, strict=True):
            if len(found) != width:
                must = f"have {width} columns, as above"
                do = "Correct the line; at the end of a file, it was cut off: copy it again."
                raise DataError(f"{path}, line {number}", must=must, found=str(len(found)), do=do)
        try:
            yield np.array(fields, dtype=np.float64)
        except ValueError as error:
            number = next(n for (n, _), found in zip(rows, fields, strict=True) if not _are_numbers(found))
            raise DataError(f"{path}, line {number}", must="hold numbers", found=f"'{error}'") from error
        total += len(rows)
    if announced >= 0 and announced != total:
        must = f"hold {announced:,} points, as its first line says"
        raise DataError(path, must=must, found=f"{total:,}", do="Copy the file again.")
