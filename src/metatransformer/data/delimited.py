"""Text tables: CSV, TSV and their kin as columns of text, with the line of what is wrong.

Arrow parses what every reader reads alike, a hundred times faster than line by line. Wherever it could read a table
otherwise than the strict rules of ``table`` say (a quotation mark within a field, spaces before one, a line of another
length, bytes that are no UTF-8, a single column), Python's parser takes over and names the line.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.csv

from metatransformer.core.errors import DataError
from metatransformer.data.records import objects

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

_HEAD = 20  # lines that decide about the separator
_BLOCK = 2**24  # bytes that Arrow parses at a time; no line may be longer
_ROWS = 2**16  # lines that are turned into columns at a time
_FEW = 1000  # fields that tell most texts from numbers
_CODE = r"^[+-]?0[0-9xX]"  # a leading zero: a post code; Arrow would also take 0x1f for a number
_FRACTION = r"[.eEiI]"


def parse(data: bytes, *, path: Path, quoted: bool) -> tuple[list[str], list[pa.Array]]:
    """Returns the fields of the first line, and the columns below it as text; ``quoted`` as in ``read_table``.

    Spaces around a field are removed, empty lines skipped.

    Raises:
        DataError: not UTF-8, a line with too many or too few fields, an unclosed quotation mark.
    """
    columns = _by_arrow(data, name=path.name, quoted=quoted)
    if columns is None:
        rows = rows_of(decode(data, path=path), path=path, quoted=quoted)
        line, first = next(rows, (0, []))
        if not first:
            raise DataError(path, must="have a first line that names the columns", found="no line that holds a field")
        return first, _by_lines(rows, width=len(first), first_line=line, path=path)
    return [column[0].as_py() for column in columns], [column.slice(1) for column in columns]


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


def rows_of(content: str, *, path: Path, quoted: bool) -> Iterator[tuple[int, list[str]]]:
    """Yields line number (of the row's end) and stripped fields; empty lines are skipped.

    Raises:
        DataError: a quotation mark that is not closed, or a field that is too long.
    """
    delimiter = _delimiter(list(islice(io.StringIO(content, newline=""), _HEAD)), name=path.name)
    reader = _reader(io.StringIO(content, newline=""), delimiter=delimiter, quoted=quoted)
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


def numbers(fields: Sequence[str | None]) -> np.ndarray | None:
    """Returns text as numbers (NaN where None), or None when one field is no number or has a
    leading zero."""
    try:
        column = pa.array(fields, pa.string())
    except UnicodeEncodeError:  # half a letter, which JSON can hold
        return None
    return as_numbers(pc.utf8_trim_whitespace(column))


def as_numbers(column: pa.Array) -> np.ndarray | None:
    """Returns a column of text as ``numbers`` does."""
    if column.null_count == len(column):
        return None
    whole = _cast(column, pa.int64())
    found = _cast(column, pa.float64()) if whole is None else whole
    if found is None or pc.any(pc.match_substring_regex(column, _CODE)).as_py():
        return None
    if found.type == pa.float64():
        if pc.any(pc.is_nan(found)).as_py():  # of the letters NAN
            return None
        if not pc.any(pc.match_substring_regex(column, _FRACTION)).as_py():  # +7, or too large for Arrow's integers
            return _whole_numbers(column)
    return found.to_numpy(zero_copy_only=False)


def as_texts(column: pa.Array) -> np.ndarray:
    """Returns a column of text as Python texts, each different one once in memory, None where one is missing."""
    coded = column.dictionary_encode()
    texts = coded.dictionary.to_numpy(zero_copy_only=False)
    codes = coded.indices.fill_null(len(texts)).to_numpy()
    return objects([*texts, None])[codes]


def without(column: pa.Array, words: Collection[str]) -> pa.Array:
    """Returns a column of text with None for each of the words."""
    return pc.if_else(pc.is_in(column, value_set=pa.array(sorted(words), column.type)), None, column)


def _cast(column: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        pc.cast(column.slice(0, _FEW), kind)  # Arrow goes on after a failure, and each one costs it a message
        return pc.cast(column, kind)
    except pa.ArrowInvalid:
        return None


def _whole_numbers(column: pa.Array) -> np.ndarray | None:
    try:
        whole = np.asarray(pd.to_numeric(pd.Series(column.drop_null().to_pylist(), dtype=object)))
    except (OverflowError, ValueError):  # hundreds of digits; thousands
        return None
    if whole.dtype.kind not in "iu":
        return None
    if not column.null_count:
        return whole
    found = np.full(len(column), np.nan)
    found[column.is_valid().to_numpy(zero_copy_only=False)] = whole
    return found


def _by_arrow(data: bytes, *, name: str, quoted: bool) -> list[pa.Array] | None:
    """Returns the columns, first line included, or None where only the strict parser reads them rightly."""
    try:
        head = list(islice(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline=""), _HEAD))
        delimiter = _delimiter(head, name=name)
        width = len(next(row for row in _reader(head, delimiter=delimiter, quoted=quoted) if row))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        return None
    marks = quoted and b'"' in data
    if width < 2 or b"\0" in data or (marks and not _is_plainly_quoted(data, delimiter=delimiter)):
        return None
    text = pa.string() if len(data) < 2**31 else pa.large_string()
    try:
        table = pyarrow.csv.read_csv(
            pa.BufferReader(data),
            read_options=pyarrow.csv.ReadOptions(autogenerate_column_names=True, block_size=_BLOCK),
            parse_options=pyarrow.csv.ParseOptions(
                delimiter=delimiter, quote_char='"' if quoted else False, newlines_in_values=marks
            ),
            convert_options=pyarrow.csv.ConvertOptions(column_types={f"f{i}": text for i in range(width)}),
        )
    except pa.ArrowInvalid:
        return None
    if table.num_columns != width:
        return None
    return [pc.utf8_trim_whitespace(column.combine_chunks()) for column in table.columns]


def _is_plainly_quoted(data: bytes, *, delimiter: str) -> bool:
    """Returns whether all quotation marks enclose whole fields, and are doubled inside them."""
    content = np.frombuffer(data.removeprefix(b"\xef\xbb\xbf"), dtype=np.uint8)
    places = np.flatnonzero(content == ord('"'))
    border = np.isin(np.arange(256), [ord(letter) for letter in f'"\r\n{delimiter}'])
    before = content[np.maximum(places[::2] - 1, 0)]  # of the first letter: itself, a mark
    after = content[np.minimum(places[1::2] + 1, len(content) - 1)]
    return len(places) % 2 == 0 and bool(border[before].all() and border[after].all())


def _by_lines(rows: Iterator[tuple[int, list[str]]], *, width: int, first_line: int, path: Path) -> list[pa.Array]:
    """Returns the columns of rows of fields; names the line with another number of them."""
    parts: list[list[pa.Array]] = []
    while some := list(islice(rows, _ROWS)):
        for line, row in some:
            if len(row) != width:
                raise DataError(
                    f"{path}, line {line}",
                    must=f"have {width} fields like line {first_line}",
                    found=f"{len(row)}",
                    do="Repair the line; a field that holds the separator needs quotation marks.",
                )
        parts.append([pa.array(column, pa.string()) for column in zip(*(row for _, row in some), strict=True)])
    return [pa.concat_arrays(column) for column in zip(*parts, strict=True)] or [pa.array([], pa.string())] * width


def _reader(lines: Iterable[str], *, delimiter: str, quoted: bool) -> Any:
    return csv.reader(
        lines,
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        skipinitialspace=delimiter != "\t",
        strict=True,
    )


def _delimiter(lines: Sequence[str], *, name: str) -> str:
    if any(end in name.lower() for end in (".tsv", ".tab")):
        return "\t"
    lines = [line for line in lines if line.strip()]
    widths = {mark: _widths(lines, mark) for mark in ",;\t|"}
    for mark, found in widths.items():
        if len(found) == 1 and max(found) > 1:
            return mark
    # Nothing fits throughout: take what the first line has most of, so that the odd line is named.
    return max(widths, key=lambda mark: lines[0].count(mark)) if lines else ","


def _widths(lines: Sequence[str], mark: str) -> set[int]:
    """Returns how many fields lines have; cells may hold the separator in quotes, which only the parser knows."""
    try:
        return {len(row) for row in csv.reader(lines, delimiter=mark, skipinitialspace=mark != "\t")}
    except csv.Error:  # a field beyond the parser's limit, as a whole line is under a separator that it does not have
        return set()
