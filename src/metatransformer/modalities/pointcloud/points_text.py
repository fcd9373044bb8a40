"""Text with one point a line: XYZ, TXT, PTS, CSV; separated by blanks, tabs, commas or semicolons.

The first line may name the columns (``x y z nx ny nz``, also in quotes, or behind ``//`` or ``#``), or hold nothing but
the number of points, as in PTS. Numbers may have decimal commas where these separate nothing. An empty cell is NaN; a
column of words, which must have a name, is left out.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from metatransformer.core.errors import DataError

_ROWS = 1 << 16  # lines read at a time
_COMMENTS = ("#", "//")
_QUOTED = re.compile(r'"[^"]*"|\'[^\']*\'')
_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?")  # a number with a decimal comma


@dataclass(frozen=True)
class _Layout:
    """How a file is to be read: what stands between fields (None = blanks), whether decimals have a comma, the fields
    of a row and which of them hold numbers, the columns' names, the line where rows begin, and how many are announced
    (-1 = nothing said).
    """

    separator: str | None
    comma: bool
    width: int
    numbers: tuple[int, ...]
    names: tuple[str, ...]
    start: int
    announced: int


def read_points_text(path: Path) -> tuple[tuple[str, ...], Iterator[np.ndarray]]:
    """Returns the names of the columns, none where the file has none, and the rows ``[n, columns]``, some at a time.

    Raises:
        DataError: no row, rows of different length, a field that is no number, another number of rows than the first
            line says.
    """
    layout = _layout(path)
    return tuple(layout.names[i] for i in layout.numbers if layout.names), _tables(path, layout)


def _layout(path: Path) -> _Layout:
    names: tuple[str, ...] = ()
    announced = -1
    for number, line in _lines(path):
        text, is_comment = line.lstrip("#/ \t"), line.startswith(_COMMENTS)
        separator = _separator(text)
        fields = _split(text, separator, width=len(names))
        comma = separator != "," and any(_COMMA.fullmatch(field) for field in fields)
        numbers = tuple(i for i, field in enumerate(fields) if _number(field, comma=comma) is not None)
        row = len(fields) == len(names) if names else len(fields) == len(numbers)
        if not is_comment and announced < 0 and len(fields) == 1 and re.fullmatch(r"\d{1,18}", fields[0]):
            announced = int(fields[0])
        elif row and not is_comment:
            return _Layout(separator, comma, len(fields), numbers, names, number, announced)
        elif {"x", "y", "z"} <= {field.lower() for field in fields}:
            names = tuple(fields)
        elif not is_comment:
            must = "be numbers, below at most one line that names the columns x, y, z"
            raise DataError(f"{path}, line {number}", must=must, found=f"'{line[:60]}'")
    raise DataError(path, must="hold at least one point", found="no line of numbers")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not empty, stripped, with their numbers from 1.

    What is no ASCII there is a comment or a name, so every byte may stand there.
    """
    with path.open(encoding="latin-1") as file:
        for number, line in enumerate(file, start=1):
            if line := line.removeprefix("\xef\xbb\xbf").strip():  # the mark of UTF-8
                yield number, line


def _separator(text: str) -> str | None:
    """Returns what stands between the fields of a line, None for blanks."""
    bare = _QUOTED.sub("q", text)
    if ";" in bare:
        return ";"
    if "," in bare and all(" " not in part.strip() for part in bare.split(",")):
        return ","
    return "\t" if "\t" in bare else None


def _split(line: str, separator: str | None, *, width: int) -> list[str]:
    """Returns the fields of a line; an empty one at its end counts where ``width`` fields are awaited."""
    if '"' in line:
        try:
            fields = next(csv.reader([line], delimiter=separator or " ", skipinitialspace=True))
        except csv.Error:  # longer than any row of numbers
            return [line]
    else:
        fields = line.split(separator)
    fields = [field.strip(" '") for field in fields]
    return fields[:-1] if fields and not fields[-1] and len(fields) != width else fields


def _number(field: str, *, comma: bool) -> float | None:
    """Returns a field as a number, NaN for an empty one, None for a word."""
    try:
        return float(field.replace(",", ".") if comma else field) if field else float("nan")
    except ValueError:
        return None


def _tables(path: Path, layout: _Layout) -> Iterator[np.ndarray]:
    lines = ((n, line) for n, line in _lines(path) if n >= layout.start and not line.startswith(_COMMENTS))
    total = 0
    while rows := list(islice(lines, _ROWS)):
        yield _table(rows, layout, path=path)
        total += len(rows)
    if layout.announced >= 0 and layout.announced != total:
        must = f"hold {layout.announced:,} points, as its first line says"
        raise DataError(path, must=must, found=f"{total:,}", do="Copy the file again.")


def _table(rows: Sequence[tuple[int, str]], layout: _Layout, *, path: Path) -> np.ndarray:
    """Returns lines as numbers: by numpy where all are plain, else one by one, with the fault's line."""
    if not layout.comma and len(layout.numbers) == layout.width:
        try:
            table = np.loadtxt([line for _, line in rows], delimiter=layout.separator, comments=None, ndmin=2)
        except ValueError:
            table = np.zeros((0, 0))
        if table.shape == (len(rows), layout.width):
            return table
    return np.array([_row(number, line, layout, path=path) for number, line in rows], dtype=np.float64)


def _row(number: int, line: str, layout: _Layout, *, path: Path) -> list[float]:
    fields = _split(line, layout.separator, width=layout.width)
    if len(fields) != layout.width:
        must = f"have {layout.width} columns, as above"
        do = "Correct the line; at the end of a file, it was cut off: copy it again."
        raise DataError(f"{path}, line {number}", must=must, found=str(len(fields)), do=do)
    values = []
    for place in layout.numbers:
        value = _number(fields[place], comma=layout.comma)
        if value is None:
            raise DataError(f"{path}, line {number}", must="hold numbers", found=f"'{fields[place][:40]}'")
        values.append(value)
    return values
