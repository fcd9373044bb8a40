"""Texts as records: rows of a table, text files, or strings in memory.

A table is read with every field as it is written: "NA", "null" and "007" are words. In a TSV a
quotation mark may be a letter (GLUE) or a bracket around a field (spreadsheets); the file itself
tells which.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.delimited import decode, numbers
from metatransformer.data.given import Array, Files, Folder, Items, Sheet, accepts, recognise
from metatransformer.data.index import index_files
from metatransformer.data.records import Index, Records, listing
from metatransformer.data.rows import index_sheet
from metatransformer.data.table import TABLE_SUFFIXES, read_content, read_table

FILE_SUFFIXES = (".txt",)
LABEL, SPLIT, GROUP, PATH = "label", "split", "group", "path"
COLUMN = "text"  # the name of a text that stands in no column
PAIR = ("text_1", "text_2")
LONG_NAME = 5  # words of a column's name beyond which it looks like data

Quotes = Literal["auto", "brackets", "letters"]


def index_text(
    data: Any, *, target: str, labelled: bool, header: bool, columns: Sequence[str], quotes: Quotes
) -> Index:
    """Returns one record a text (or pair of texts); ``value`` is ``{column: text}``, None for files.

    ``data`` is a table file, a DataFrame or a list of mappings (one row a sample; columns named
    label, split and group are taken as such); a folder with train.tsv, dev.tsv, test.tsv; a folder
    of .txt files, in folders of their class or not; a manifest of such files; one .txt file; a list
    of .txt files; a list of strings or of pairs of strings. ``columns`` are those that hold texts,
    () = not known yet.

    Raises:
        DataError: what ``index_files`` and ``index_table`` raise; a list that mixes texts and names
            of files; a string that looks like the name of a file that is not there.
        UsageError: a table to learn from without a column 'label' and without ``target``.
    """
    must = "be a path, a list of texts, of pairs of texts or of files, or a DataFrame"
    given = recognise(data, must=must, do="Put a single text into a list.", strings=True)
    if isinstance(given, Files) and given.one and not accepts(given.one.name, suffixes=FILE_SUFFIXES):
        given = Sheet(given.one)
    elif isinstance(given, Items) and given.are(Mapping):
        given = Sheet(frame=pd.DataFrame(given.items, dtype=object))
    sheets = given.sheets if isinstance(given, Folder) else ()
    if isinstance(given, Sheet) and not _lists_texts(given, header):
        sheets = (given,)
    if sheets:
        read = [(sheet, *_read(sheet, header=header, quotes=quotes)) for sheet in sheets]
        return _index_sheets(read, target=target, labelled=labelled, columns=columns)
    if isinstance(given, Items | Array):
        items = _as_list(given)
        if not _are_files(items):
            return _index_strings(items, labelled=labelled)
        given = recognise(items)
    return index_files(given, suffixes=FILE_SUFFIXES, label_column=target or LABEL, require_labels=labelled)


def read_text(path: Path) -> str:
    """Returns the text of a file.

    Raises:
        DataError: it cannot be read, is empty, binary, or not UTF-8.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(path, must="be a readable file", found=f"'{error.strerror}'") from error
    return require_text(decode(data, path=path), where=str(path))


def require_text(value: object, *, where: str) -> str:
    """Returns a text as it is.

    Raises:
        DataError: it is missing, no text, empty, or holds what no UTF-8 file can hold.
    """
    if isinstance(value, str):
        if not value.strip():
            raise DataError(where, must="hold a text", found="an empty one", do="Remove the sample, or fill it.")
        if "\0" in value:
            raise DataError(where, must="be text", found="a NUL character (binary data?)")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            found = f"the lone surrogate {value[error.start]!r}"
            raise DataError(where, must="be valid Unicode", found=found, do="Decode it again.") from error
        return value
    if is_missing(value):
        raise DataError(where, must="hold a text", found="a missing one", do="Remove the sample, or fill it.")
    raise DataError(where, must="hold a text", found=f"a {type(value).__name__} ({str(value)[:20]})")


def is_missing(value: object) -> bool:
    """Returns whether a cell holds nothing: None, NaN, or only blanks."""
    return (
        value is None or (isinstance(value, float) and bool(np.isnan(value))) or (value == "" or str(value).isspace())
    )


def text_columns(rows: Sequence[Mapping[str, Any]], *, where: str) -> tuple[str, ...]:
    """Returns the one or two columns of a table that read as texts; the only column is one in any case.

    A column reads as text when most of its filled cells hold several words with letters (or, in a script that needs no
    spaces, several letters).

    Raises:
        DataError: no column reads as text, or more than two do.
    """
    names = tuple(rows[0])
    found = names if len(names) == 1 else tuple(name for name in names if _reads_as_text([row[name] for row in rows]))
    if not 1 <= len(found) <= 2:
        what = f"{len(found)} that read as text ({listing(found)})" if found else "none that reads as text"
        raise DataError(
            where or "the table",
            must="have one column of texts, or a pair of them",
            found=f"{what} among {listing(names)}",
            do="Name them: input.columns=[COLUMN] or input.columns=[FIRST, SECOND].",
        )
    return found


def _reads_as_text(cells: Sequence[Any]) -> bool:
    there = [cell for cell in cells if not is_missing(cell)]
    several = [isinstance(cell, str) and (_words(cell) > 1 or _is_unspaced(cell)) for cell in there]
    return sum(several) > len(there) / 2


def _words(text: str) -> int:
    """Returns how many words have a letter: a date with its time has none."""
    return sum(any(letter.isalpha() for letter in word) for word in text.split())


def _is_unspaced(text: str) -> bool:
    # From Thai on: no letter of the scripts that put spaces between words stands in this range twice in a row.
    return sum("\u0e00" <= letter for letter in text) > 3


# --- tables


def _read(sheet: Sheet, *, header: bool, quotes: Quotes) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Returns a table with its text fields as they are written, and what was noticed."""
    if sheet.frame is not None:
        return sheet.frame, ()
    path = sheet.path
    assert path is not None
    quoted, notes = quotes != "letters", []
    delimited = accepts(path.name, suffixes=(".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz", ".tab.gz"))
    if delimited and quotes == "auto" and ".csv" not in path.name.lower() and '"' in (content := read_content(path)):
        quoted = not _are_letters(content)
        how = "brackets around fields" if quoted else "letters, as GLUE writes them"
        notes.append(f"quotation marks in {path.name} are taken for {how} (input.quotes chooses)")
    frame = read_table(path, header=header, text=True, missing=("",), quoted=quoted)
    if delimited and quoted:
        notes += _long_cells(frame, path=path)
    if header:
        names = [str(name) for name in frame.columns if len(str(name).split()) > LONG_NAME]
        notes += [f"the first line of {path.name} looks like data ('{name[:40]}'): "
                  "if it names no columns, set data.header=false" for name in names[:1]]  # fmt: skip
    return frame, tuple(notes)


def _are_letters(content: str) -> bool:
    """Returns whether the quotation marks of a TSV are part of its fields.

    They are when every line has as many fields as the first and some field opens a quotation that
    it does not properly close.
    """
    lines = [line.rstrip("\r").split("\t") for line in content.split("\n") if line.strip()]
    if any(len(line) != len(lines[0]) for line in lines):
        return False
    opened = (field.strip() for line in lines for field in line if field.strip().startswith('"'))
    return any(not _is_bracketed(field) for field in opened)


def _is_bracketed(field: str) -> bool:
    return len(field) > 1 and field.endswith('"') and '"' not in field[1:-1].replace('""', "")


def _long_cells(frame: pd.DataFrame, *, path: Path) -> Iterator[str]:
    """Yields a note where quoted cells span lines: an unclosed mark may have swallowed them."""
    for name in frame.columns:
        breaks = [cell.count("\n") for cell in frame[name] if isinstance(cell, str) and "\n" in cell]
        if breaks:
            count = "1 cell spans" if len(breaks) == 1 else f"{len(breaks):,} cells span"
            yield (
                f"{count} several lines in {path.name}, column '{name}' (up to {max(breaks) + 1}); "
                "if quotation marks are letters there, set input.quotes=letters"
            )


def _index_sheets(
    read: Sequence[tuple[Sheet, pd.DataFrame, Sequence[str]]], *, target: str, labelled: bool, columns: Sequence[str]
) -> Index:
    """Returns the rows of one table, or of one a split: each with its rows and notes."""
    parts: list[Records] = []
    notes: list[str] = []
    names: tuple[str, ...] = ()
    for sheet, frame, more in read:
        index = _index_sheet(sheet, frame, target=target, labelled=labelled, columns=columns)
        names = names or index.columns
        notes += [*more, *index.notes]
        records = index.records
        if _same_columns(names, index.columns, where=str(sheet.where)):
            notes.append(f"the column '{index.columns[0]}' of {sheet.where} is taken for '{names[0]}'")
            assert records.table is not None
            records = records.replace(values=records.table.select({index.columns[0]: names[0]}))
        parts.append(records)
    path = read[0][0].path
    return Index(Records.joined(parts), tuple(notes), path and path.parent, names)


def _index_sheet(sheet: Sheet, frame: pd.DataFrame, *, target: str, labelled: bool, columns: Sequence[str]) -> Index:
    """Returns the rows of one table; the columns label, split and group are no texts unless named so."""
    where, names = sheet.where, [str(name) for name in frame.columns]
    if missing := [name for name in columns if name not in names]:
        raise DataError(where, must=f"have the column '{missing[0]}' of input.columns", found=listing(names))
    free = [name for name in names if name not in columns and name != target]
    wanted = target
    if not target and LABEL in free and (labelled or bool(frame.iloc[:, names.index(LABEL)].notna().all())):
        wanted = LABEL
    if labelled and not wanted:
        columns_there = f"Columns: {listing(names)}."
        raise UsageError("--target", must=f"name the column to learn of {where}", found="none", do=columns_there)
    if wanted in names:
        place = names.index(wanted)
        frame = frame.copy(deep=False)
        frame.isetitem(place, _as_numbers(frame.iloc[:, place]))
    return index_sheet(
        sheet,
        frame,
        target=wanted or None,
        split_column=SPLIT if SPLIT in free and SPLIT != wanted else None,
        group_column=GROUP if GROUP in free and GROUP != wanted else None,
        missing=("",),
    )


def _as_numbers(column: pd.Series) -> pd.Series:
    """Returns a column of texts as numbers where every one is a number."""
    values = column.astype(object).where(column.notna(), None).tolist()
    if not all(isinstance(value, str) for value in values if value is not None):
        return column
    found = numbers(values)
    return column if found is None else pd.Series(found, index=column.index)


def _same_columns(names: Sequence[str], found: Sequence[str], *, where: str) -> bool:
    """Returns whether a table's only column has another name than the first table's only one."""
    if set(names) == set(found):
        return False
    if len(names) == len(found) == 1:
        return True
    raise DataError(where, must=f"have the same columns as the other tables ({listing(names)})", found=listing(found))


def _lists_texts(sheet: Sheet, header: bool) -> bool:
    """Returns whether a table is a manifest: a column 'path' whose first entry is a text file."""
    if (sheet.path is not None and not header) or not sheet.lists_files:
        return False
    paths = sheet.read(header=True, text=True, missing=("",))[PATH]
    return len(paths) > 0 and accepts(str(paths.iloc[0]), suffixes=FILE_SUFFIXES)


# --- lists


def _as_list(given: Items | Array) -> list[Any]:
    if isinstance(given, Items):
        return list(given.items)
    return [tuple(item) if isinstance(item, list) else item for item in given.values.tolist()]


def _are_files(items: Sequence[Any]) -> bool:
    """Returns whether strings name text files; refuses a list where only some do, or other files."""
    names = [item for item in items if isinstance(item, str)]
    if len(names) < len(items):
        return False
    there = [name for name in names if _is_file(name)]
    texts = [name for name in there if accepts(name, suffixes=FILE_SUFFIXES)]
    lost = [name for name in names if name not in there and _looks_like_file(name)]
    if lost:
        raise DataError(
            f"'{lost[0]}'",
            must="be a text, or a file that exists",
            found="the name of a file that is not there",
            do="Check the spelling and the working directory.",
        )
    if there and (len(texts) < len(names)):
        odd = next(name for name in names if name not in texts)
        raise DataError(
            "the data",
            must="be either texts or names of .txt files (a table is named alone)",
            found=f"the file '{there[0]}'" + (f" beside '{odd[:40]}'" if odd != there[0] else ""),
        )
    return bool(there)


def _is_file(text: str) -> bool:
    return os.path.isfile(text)  # False also of what cannot be a name


def _looks_like_file(text: str) -> bool:
    return len(text.split()) == 1 and accepts(text, suffixes=(*FILE_SUFFIXES, *TABLE_SUFFIXES))


def _index_strings(items: Sequence[Any], *, labelled: bool) -> Index:
    if not items:
        raise DataError("the data", must="hold at least one text", found="an empty list")
    if labelled:
        raise DataError(
            "the data",
            must="bring a label for every text",
            found=f"{len(items)} texts without labels",
            do="In Python, labels are the second argument of fit.",
        )
    rows = [_as_row(item, where=f"text {row}") for row, item in enumerate(items)]
    return Index(Records([str(row) for row in range(len(items))], values=rows))


def _as_row(item: Any, *, where: str) -> dict[str, Any]:
    """Returns ``{column: text}`` of a string, or of one or two strings in a tuple or list."""
    texts = (item,) if isinstance(item, str) or item is None else tuple(item) if isinstance(item, tuple | list) else ()
    if not 1 <= len(texts) <= 2:
        found = f"{len(texts)} entries" if texts else f"a {type(item).__name__}"
        raise DataError(where, must="be a string, or a pair of them", found=found)
    names: tuple[str, ...] = (COLUMN,) if len(texts) == 1 else PAIR
    return dict(zip(names, texts, strict=True))
