"""Tables: CSV, TSV, JSON lines and Parquet as a DataFrame, with the line number of what is wrong.

Text tables are parsed strictly: every line has as many fields as the first, quotes are closed, the
encoding is UTF-8. Spaces around a field carry no meaning. A column is numeric when every field that
is not missing is a number; codes with a leading zero (007, postal codes) stay text. The separator
of a CSV is found from its first lines: , ; tab, | or runs of spaces. Comments before the table are skipped.
"""

import gzip
import json
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError
from metatransformer.data.around import before, spaced_to_tabs
from metatransformer.data.columns import MISSING
from metatransformer.data.delimited import as_numbers, as_texts, decode, parse, rows_of, without
from metatransformer.data.limits import DEFLATE, MOST_BYTES, read_bytes, require_room, require_unpacked

_DELIMITED = (".csv", ".tsv", ".tab")
_LINES = (".jsonl", ".ndjson")
_PARQUET = (".parquet", ".pq")
TABLE_SUFFIXES = (
    *_DELIMITED,
    *_LINES,
    *_PARQUET,
    *(f"{suffix}.gz" for suffix in (*_DELIMITED, *_LINES)),
)
HEAD = 2**16  # bytes in which the names and what stands before them are found
# Endings under which repositories keep tables without saying so; read as CSV.
_PLAIN = (".txt", ".data", ".test", ".dat")


def read_table(
    path: str | Path,
    *,
    header: bool,
    text: bool = False,
    missing: Collection[str] = MISSING,
    quoted: bool = True,
    repeated: bool = False,
) -> pd.DataFrame:
    """Returns a table; a missing value is None in text and NaN in numbers.

    ``header`` says whether the first line names the columns; else they are column_1, column_2, ...;
    a nameless one is unnamed_1. ``text`` leaves the fields of a text table as they are written,
    ``missing`` lists the fields that mean "no value", and ``quoted=False`` takes quotation marks as
    letters, as many TSV files mean them. ``repeated`` lets names be repeated: the second x is x.1, as
    in pandas. All five concern text tables; JSON lines and Parquet bring names and types.

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
        frame = _read_delimited(path, header=header, text=text, missing=missing, quoted=quoted, repeated=repeated)
    if frame.empty:
        raise DataError(path, must="have at least one row", found="none")
    return frame


def read_columns(path: str | Path) -> tuple[str, ...]:
    """Returns the column names of a table file whose first line names them."""
    path = Path(path)
    kind = _kind(path)
    if kind == "parquet":
        return tuple(str(name) for name in _read_parquet(path, rows=False).columns)
    content = decode(_unwrapped(_whole_lines(path), path=path), path=path)
    if kind == "lines":
        number, line = next(_lines(content), (1, "{}"))
        return tuple(_object(line, where=f"{path}, line {number}"))
    _, names = next(rows_of(content, path=path, quoted=True), (1, []))
    return tuple(names)


def first_line(path: Path) -> int:
    """Returns the line of a table's first row, below its header; 0 where rows are no lines."""
    kind = _kind(path)
    return 2 + _lines_before(path) if kind == "delimited" else {"parquet": 0, "lines": 1}[kind]


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
    return decode(_read_bytes(path), path=path)


def _read_bytes(path: Path) -> bytes:
    """Returns a whole text file, uncompressed, as ``_unwrapped`` does."""
    return _unwrapped(read_bytes(path), path=path)


def _whole_lines(path: Path) -> bytes:
    """Returns the first lines of a file, all of it where that is one line."""
    head = read_head(path)
    end = head.rfind(b"\n") + 1
    return head[:end] if end and len(head) == HEAD else read_bytes(path)


def _unwrapped(data: bytes, *, path: Path) -> bytes:
    """Returns a text table with empty lines for what stands before it, and with separators."""
    end = before(data)
    data = b"\n" * data.count(b"\n", 0, end) + data[end:]
    if not data or data.isspace():
        raise DataError(path, must="hold a table", found="an empty file")
    return spaced_to_tabs(data)


def _lines_before(path: Path) -> int:
    """Returns how many lines stand before the table: comments, and empty ones."""
    head = read_head(path)
    rest = head[before(head) :].removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.count(b"\n", 0, len(head) - len(rest))


def read_head(path: Path) -> bytes:
    """Returns the first ``HEAD`` bytes of a file, uncompressed; what is wrong with it is said when it is read whole."""
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            return file.read(HEAD)
    except (OSError, EOFError, zlib.error):
        return b""


def _read_delimited(
    path: Path, *, header: bool, text: bool, missing: Collection[str], quoted: bool, repeated: bool
) -> pd.DataFrame:
    first, columns = parse(_read_bytes(path), path=path, quoted=quoted)
    numbered = [f"column_{i}" for i in range(1, len(first) + 1)]
    named = [name or f"unnamed_{i}" for i, name in enumerate(first, start=1)]
    names = named if header else numbered
    if repeated:
        names = [f"{name}.{n}" if (n := names[:place].count(name)) else name for place, name in enumerate(names)]
    _require_different(names, path=path)
    if not header:
        columns = [pa.concat_arrays([pa.array([f], c.type), c]) for f, c in zip(first, columns, strict=True)]
    found: dict[str, Any] = {}
    for name, column in zip(names, columns, strict=True):
        fields = without(column, missing)
        values = None if text else as_numbers(fields)
        found[name] = pd.Series(as_texts(fields), dtype=object) if values is None else values
    return pd.DataFrame(found)


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
        found = json.loads(line, parse_int=_whole)
    except (ValueError, RecursionError) as error:  # no JSON, a number of thousands of digits, brackets in brackets
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


def _whole(digits: str) -> int:
    if len(digits) > 300:
        raise ValueError(f"a whole number of {len(digits)} digits, more than any column can hold")
    return int(digits)


def _with_texts(table: pa.Table) -> pa.Table:
    """Returns a table of Arrow whose columns of bytes are texts where they are UTF-8, as older programs write texts."""
    for place, field in enumerate(table.schema):
        if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type):
            with suppress(pa.ArrowInvalid):
                wide = pa.types.is_large_binary(field.type)
                texts = table.column(place).cast(pa.large_string() if wide else pa.string())
                table = table.set_column(place, field.name, texts)
    return table


def _read_parquet(path: Path, *, rows: bool = True) -> pd.DataFrame:
    import pyarrow.parquet as pq

    with foreign(path, "pyarrow", must="be a whole Parquet file", do="Write or copy it again."):
        if not rows:
            return pq.read_schema(path).empty_table().to_pandas()
        about = pq.read_metadata(path)
        if 8 * about.num_rows * about.num_columns > MOST_BYTES:  # a column of one value takes no bytes
            shape = (about.num_rows, about.num_columns)
            require_room(path, shape=shape, bytes_each=8, what="cells", ratio=DEFLATE)
        require_unpacked(path, size=sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)))
        # Older times are kept in 96 bits: as nanoseconds, years beyond 2262 would come out as others.
        table = pq.read_table(path, coerce_int96_timestamp_unit="us")
        table.validate(full=True)  # texts that are none would be noticed by the first that looks at them
        frame = _with_texts(table).to_pandas()
        coded = {name: kind.categories.dtype for name, kind in frame.dtypes.items() if kind.name == "category"}
        return frame.astype(coded)  # how a column is packed says nothing of what it holds
