"""Tables: CSV, TSV, JSON lines and Parquet as a DataFrame, with the line number of what is wrong.

Text tables are parsed strictly: every line has as many fields as the first, quotes are closed, the
encoding is UTF-8. Spaces around a field carry no meaning. A column is numeric when every field that
is not missing is a number; codes with a leading zero (007, postal codes) stay text. The separator
of a CSV is found from its first lines: , ; tab or |.
"""

import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.columns import MISSING
from metatransformer.data.limits import read_bytes

_DELIMITED = (".csv", ".tsv", ".tab")
_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
TABLE_SUFFIXES = (
    *_DELIMITED,
    *_LINES,
    *_PARQUET,
    *(f"{suffix}.gz" for suffix in (*_DELIMITED, *_LINES)),
)
# Endings under which repositories keep tables without saying so; read as CSV.
_PLAIN = (".txt", ".data", ".test", ".dat")
_ZERO_FIRST = re.compile(r"[+-]?0\d", re.ASCII)


def read_table(
    path: str | Path,
    *,
    header: bool,
    text: bool = False,
    missing: Collection[str] = MISSING,
    quoted: bool = True,
) -> pd.DataFrame:
    """Returns a table; a missing value is None in text and NaN in numbers.

    ``header`` says whether the first line names the columns; else they are column_1, column_2, ...;
    a nameless one is unnamed_1. ``text`` leaves the fields of a text table as they are written,
    ``missing`` lists the fields that mean "no value", and ``quoted=False`` takes quotation marks as
    letters, as many TSV files mean them. All four concern text tables; JSON lines and Parquet bring
    names and types.

    Raises:
        DataError: no such file, another ending, not UTF-8, no row, a line with too many or too few
            fields, an unclosed quote, a column name twice, a line that is no JSON object, a damaged
            file.
    """
    path = Path(path)
    kind = _kind(path)
    if kind == "parquet":
        frame = _read_parquet(path)
    elif kind == "lines":
        frame = _read_lines(path)
    else:
        frame = _read_delimited(path, header=header, text=text, missing=missing, quoted=quoted)
    if frame.empty:
        raise DataError(path, must="have at least one row", found="none")
    return frame


def read_columns(path: str | Path) -> tuple[str, ...]:
    """Returns the column names of a table file whose first line names them."""
    path = Path(path)
    kind = _kind(path)
    if kind == "parquet":
        return tuple(str(name) for name in _read_parquet(path, rows=False).columns)
    content = read_content(path)
    if kind == "lines":
        number, line = next(_lines(content), (1, "{}"))
        return tuple(_object(line, where=f"{path}, line {number}"))
    _, names = next(_rows(content, path=path, quoted=True), (1, []))
    return tuple(names)


def first_line(path: Path) -> int:
    """Returns the line of a table's first row, below its header; 0 where rows are no lines."""
    return {"parquet": 0, "lines": 1, "delimited": 2}[_kind(path)]


def numbers(values: Sequence[str | None]) -> np.ndarray | None:
    """Returns text as numbers (NaN where None), or None when one field is no number or has a
    leading zero."""
    present = [value for value in values if value is not None]
    if not present:
        return None
    try:
        found: np.ndarray = np.asarray(pd.to_numeric(pd.Series(present, dtype=object)))
    except (ValueError, TypeError, OverflowError):
        return None
    if found.dtype.kind not in "iuf" or any(_ZERO_FIRST.match(value) for value in present):
        return None
    if len(present) == len(values):
        return found
    column = np.full(len(values), np.nan)
    column[[value is not None for value in values]] = found
    return column


def _kind(path: Path) -> str:
    name = path.name.lower().removesuffix(".gz")
    if not path.is_file():
        raise DataError(path, must="be a table file", found="nothing there or a folder")
    if name.endswith(_PARQUET):
        return "parquet"
    if name.endswith(_LINES):
        return "lines"
    if name.endswith((*_DELIMITED, *_PLAIN)):
        return "delimited"
    raise DataError(
        path,
        must=f"end in {', '.join((*_DELIMITED, *_LINES, *_PARQUET, *_PLAIN))}",
        found=f"the ending '{path.suffix}'",
        do="Save it as CSV or Parquet.",
    )


def read_content(path: Path) -> str:
    """Returns a whole text file, uncompressed and decoded."""
    data = read_bytes(path)
    if not data.strip():
        raise DataError(path, must="hold a table", found="an empty file")
    return decode(data, path=path)


def decode(data: bytes, *, path: Path, latin: bool = False) -> str:
    """Returns the bytes of a file as text; with ``latin``, what is not UTF-8 is Latin-1.

    Raises:
        DataError: they are not UTF-8, with the line, or binary.
    """
    try:
        content = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if latin and b"\0" not in data:
            return data.decode("latin-1")
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        guess = "UTF-16" if wide else "perhaps Latin-1 or Windows-1252"
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}",
            must="be UTF-8 text",
            found=f"the byte 0x{data[error.start]:02x} ({guess})",
            do="Save it as UTF-8 (in a spreadsheet: CSV UTF-8).",
        ) from error
    if "\0" in content:
        raise DataError(path, must="be text", found="a binary file")
    return content


def _read_delimited(path: Path, *, header: bool, text: bool, missing: Collection[str], quoted: bool) -> pd.DataFrame:
    rows = _rows(read_content(path), path=path, quoted=quoted)
    first_line, first = next(rows)
    numbered = [f"column_{i}" for i in range(1, len(first) + 1)]
    named = [name or f"unnamed_{i}" for i, name in enumerate(first, start=1)]
    names = named if header else numbered
    _require_different(names, path=path)
    body = [] if header else [first]
    for line, row in rows:
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {line}",
                must=f"have {len(names)} fields like line {first_line}",
                found=f"{len(row)}",
                do="Repair the line; a field that holds the separator needs quotation marks.",
            )
        body.append(row)
    empty = set(missing)
    columns: dict[str, Any] = {}
    for name, fields in zip(names, zip(*body, strict=True), strict=False):
        values = [None if field in empty else field for field in fields]
        found = None if text else numbers(values)
        columns[name] = pd.Series(values, dtype=object) if found is None else found
    return pd.DataFrame(columns)


def _rows(content: str, *, path: Path, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields line number (of the row's end) and stripped fields; empty lines are skipped."""
    try:
        delimiter = _delimiter(content, name=path.name)
    except csv.Error as error:
        raise DataError(path, must="be a table of text fields", found=f"'{error}'") from error
    reader = csv.reader(
        io.StringIO(content, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        skipinitialspace=delimiter != "\t",
        strict=True,
    )
    try:
        for row in reader:
            fields = [field.strip() for field in row]
            if len(fields) > 1 or (fields and fields[0]):
                yield reader.line_num, fields
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.line_num}",
            must="close every quotation mark and double those inside a field",
            found=f"'{error}'",
            do="Repair the line, or read the table with quoted=False if the marks are letters.",
        ) from error


def _delimiter(content: str, *, name: str) -> str:
    if any(end in name.lower() for end in (".tsv", ".tab")):
        return "\t"
    lines = [line for line in islice(io.StringIO(content, newline=""), 20) if line.strip()]
    # Cells may hold the separator in quotes, which only the parser knows.
    widths = {
        mark: {len(row) for row in csv.reader(lines, delimiter=mark, skipinitialspace=mark != "\t")} for mark in ",;\t|"
    }
    for mark, found in widths.items():
        if len(found) == 1 and max(found) > 1:
            return mark
    # Nothing fits throughout: take what the first line has most of, so that the odd line is named.
    return max(widths, key=lambda mark: lines[0].count(mark)) if lines else ","


def _require_different(names: Sequence[str], *, path: Path) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(
            path,
            must="name every column differently",
            found=f"'{twice[0]}' more than once",
            do="Rename one; if line 1 holds data already, set data.header=false.",
        )


def _read_lines(path: Path) -> pd.DataFrame:
    rows = [_object(line, where=f"{path}, line {number}") for number, line in _lines(read_content(path))]
    return pd.DataFrame(rows)


def _lines(content: str) -> Iterator[tuple[int, str]]:
    lines = enumerate(content.split("\n"), start=1)
    return ((number, line) for number, line in lines if line.strip())


def _object(line: str, *, where: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(where, must="be one JSON object", found=f"'{error}'") from error
    if not isinstance(found, dict):
        raise DataError(where, must="be one JSON object", found=f"a {type(found).__name__}")
    if "\\ud" in line.lower():  # half of a pair of escapes is no letter, and no table can hold it
        try:
            json.dumps(found, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            found_half = f"half a letter ({error.object[error.start]!r})"
            raise DataError(where, must="be valid Unicode", found=found_half) from error
    return found


def _read_parquet(path: Path, *, rows: bool = True) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if not rows:
            return pq.read_schema(path).empty_table().to_pandas()
        return pq.read_table(path).to_pandas()
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(
            path,
            must="be a whole Parquet file",
            found="a damaged or foreign one",
            do="Write or copy it again.",
        ) from error
