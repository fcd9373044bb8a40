"""Columns of a table: what one cell holds, and what a whole column of training cells is.

A cell becomes None (missing), a number, a truth value or a text. A column becomes numbers or
categories, or it is left out and the reason is noted. What cannot be decided without guessing is
refused.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.records import objects

# Texts that mean "not measured"; pandas reads all but '?' as missing by itself. "None" and "-" are
# words of their own in enough tables ("no garage") to stay categories.
MISSING = frozenset({"", "?", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null"})

# Indices of a category column that come before its words.
UNKNOWN, RARE, FIRST = 0, 1, 2

# Beyond this, a sum of squares over a table overflows a double.
LARGEST = 1e100

# A column is of one kind when nearly all cells are, and the few others are then called mistakes.
NEARLY_ALL = 0.95

# Below so many cells, "every text is different" happens by chance.
FEWEST_FOR_IDENTIFIER = 20

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)

Cell = bool | int | float | str | None


@dataclass(frozen=True)
class Column:
    """One column as it was learned: ``number`` is ``(value - mean) / scale``, ``category`` an index
    into ``words``.

    ``edges`` are the bins of the standardised numbers. Index 0 of a category is a word never seen,
    1 one of the ``rare`` words, and ``words[i]`` has index ``FIRST + i``. ``style`` is how texts become numbers (""
    as they stand), ``part`` what of a date this column is, ``missing`` the words that mean "not measured".
    """

    name: str
    kind: str
    mean: float = 0.0
    scale: float = 1.0
    edges: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()
    style: str = ""
    part: str = ""
    missing: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The name, with the part of a date."""
        return f"{self.name} ({self.part})" if self.part else self.name

    @property
    def choices(self) -> int:
        """How many indices a category column has; 0 for numbers."""
        return FIRST + len(self.words) if self.kind == "category" else 0


def column_from(state: Mapping[str, Any]) -> Column:
    """Returns a column again from what ``dataclasses.asdict`` and JSON made of it."""
    return Column(
        name=state["name"],
        kind=state["kind"],
        mean=state["mean"],
        scale=state["scale"],
        edges=tuple(state["edges"]),
        words=tuple(state["words"]),
        rare=tuple(state["rare"]),
        style=state.get("style", ""),  # columns of before 2026-11-29 were plain
        part=state.get("part", ""),
        missing=tuple(state.get("missing", ())),
    )


def clean(value: object, *, where: str) -> Cell:
    """Returns one cell as a plain Python value; None, NaN, NaT and the ``MISSING`` texts are None,
    a date is ISO text.

    Raises:
        DataError: an infinity, or something that is no single number, text or truth value.
    """
    if isinstance(value, np.datetime64):
        value = str(value) if not np.isnat(value) else None
    elif isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, str):
        text = value.strip()
        return None if text in MISSING else text
    if isinstance(value, bool):
        return value
    if isinstance(value, (int, float, Decimal)):
        if value != value:
            return None
        if not -LARGEST < value < LARGEST:
            raise _not_finite(value, where=where)
        return float(value) if isinstance(value, Decimal) else value
    if isinstance(value, (date, datetime, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    raise DataError(
        where,
        must="hold one number, text or truth value",
        found=f"a {type(value).__name__}",
        do="Spread it over several columns, or ignore the column.",
    )


def _not_finite(value: object, *, where: str) -> DataError:
    return DataError(
        where,
        must=f"hold a finite number (below {LARGEST:g})",
        found=f"{value:g}" if isinstance(value, float) else str(value)[:20],
        do="Repair the cell, or leave it empty if it was not measured.",
    )


def as_number(cell: Cell, *, where: str) -> float | None:
    """Returns a clean cell that is not missing as a number, None when it is not one.

    A text with a leading zero ("00412") is a code, not a number.

    Raises:
        DataError: the text of an infinity, or a number beyond ``LARGEST``.
    """
    assert cell is not None
    if isinstance(cell, str):
        digits = cell.lstrip("+-")
        if not _NUMBER.fullmatch(cell) or is_code(digits):
            return None
    number = float(cell)
    if not -LARGEST < number < LARGEST:
        raise _not_finite(cell, where=where)
    return number


def is_code(text: str) -> bool:
    """Returns whether the text is digits with a leading zero: a post code, an article number."""
    return len(text) > 1 and text[0] == "0" and text.isdigit()


def as_word(cell: Cell) -> str:
    """Returns a clean cell that is not missing as a category: 1 and 1.0 are the same one."""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


@dataclass(frozen=True)
class Cells:
    """The clean cells of a column: ``values`` holds each different one once, in the order in which they first come.

    ``codes`` [n] are their places there, -1 where a cell is missing.
    """

    values: np.ndarray
    codes: np.ndarray

    @classmethod
    def of(cls, column: np.ndarray) -> "Cells":
        """Returns a column as ``data.records.Table`` has it; True, 1 and 1.0 are different cells."""
        if column.dtype != object or pd.api.types.infer_dtype(column, skipna=True) == "string":
            codes, values = pd.factorize(column)
            return cls(np.asarray(values), codes)
        places: dict[tuple[type, Any], int] = {}
        codes = [-1 if x is None else places.setdefault((type(x), x), len(places)) for x in column.tolist()]
        return cls(objects([value for _, value in places]), np.array(codes, dtype=np.int64))

    @cached_property
    def counts(self) -> np.ndarray:
        """How often each value occurs."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.values))

    @cached_property
    def words(self) -> list[str]:
        """Each value as a category."""
        return [as_word(value) for value in self.values.tolist()]

    @cached_property
    def different(self) -> int:
        """The number of different categories."""
        return len(set(self.words)) if self.values.dtype == object else len(self.values)

    def key(self, value: int, keys: Sequence[str]) -> str:
        """Returns the first of the rows that hold a value."""
        return keys[int(np.argmax(self.codes == value))]

    def numbers(self, keys: Sequence[str], *, where: str) -> np.ndarray:
        """Returns each value as a number, NaN where it is none; ``where`` names the place within a row.

        Raises:
            DataError: a number that is not finite.
        """
        if self.values.dtype != object:
            return self.values.astype(np.float64)
        found = np.full(len(self.values), np.nan)
        for place, value in enumerate(self.values):
            try:
                number = as_number(value, where="")
            except DataError as error:
                raise _not_finite(value, where=f"row {self.key(place, keys)}: {where}") from error
            found[place] = np.nan if number is None else number
        return found


def clean_column(column: np.ndarray, *, name: str, keys: Sequence[str]) -> np.ndarray:
    """Returns a table's column with every cell as ``clean`` gives it.

    Raises:
        DataError: an infinity, or a cell that is no single value, with its row.
    """
    if column.dtype != object:
        far = np.flatnonzero(np.abs(column.astype(np.float64)) >= LARGEST) if column.dtype.kind == "f" else []
        for row in far[:1]:
            clean(column[row], where=f"row {keys[row]}: column '{name}'")
        return column
    if pd.api.types.infer_dtype(column, skipna=True) == "string":
        codes, values = pd.factorize(column)
        return objects([*(clean(value, where="") for value in values), None])[codes]
    cells = zip(keys, column.tolist(), strict=True)
    return objects([clean(cell, where=f"row {key}: column '{name}'") for key, cell in cells])


def column_kind(name: str, cells: Cells, *, keys: Sequence[str]) -> str:
    """Returns ``number``, ``category``, or why the column tells nothing: ``empty``, ``constant``,
    ``identifier``, ``numbering``.

    ``cells`` are training cells, ``keys`` their rows. Truth values are categories. Texts that
    all read as numbers are numbers; one code with a leading zero makes the column categories. A
    column of texts of which nine in ten occur once is an identifier; one of whole numbers that
    rises by 1 from row to row numbers them.

    Raises:
        DataError: a column of numbers with a few texts in it.
    """
    values, known = cells.values.tolist(), int(cells.counts.sum())
    if not known:
        return "empty"
    if cells.different == 1 and known == len(cells.codes):
        return "constant"
    words = "category"
    if known >= FEWEST_FOR_IDENTIFIER and cells.different > 0.9 * known:
        words = "identifier"
    if any(isinstance(value, str) and is_code(value) for value in values):
        return words
    if all(isinstance(value, bool) for value in values):
        return "category"
    numbers = cells.numbers(keys, where=name)
    other = np.flatnonzero(np.isnan(numbers))
    if not len(other):
        return "numbering" if words == "identifier" and _numbers_rows(numbers, cells, keys=keys) else "number"
    count = int(cells.counts[other].sum())
    if count <= (1 - NEARLY_ALL) * known:
        raise DataError(
            f"column '{name}'",
            must="hold numbers, as nearly all of its cells do",
            found=f"{count} of {known} that are none, '{values[other[0]]}' in row {cells.key(int(other[0]), keys)}",
            do="Repair them, leave them empty if they mean 'missing', or name the column in "
            "'categories' (or 'ignore').",
        )
    return words


def _numbers_rows(numbers: np.ndarray, cells: Cells, *, keys: Sequence[str]) -> bool:
    """Returns whether every cell is its row's number, but for where the count begins; a key ends in that number."""
    known = cells.codes >= 0
    places = [key.rpartition("/")[2] for key, here in zip(keys, known.tolist(), strict=True) if here]
    if not all(place.isdecimal() for place in places):
        return False
    return len(np.unique(numbers[cells.codes[known]] - np.array([float(place) for place in places]))) == 1


def common_words(cells: Cells, *, share: float, most: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the common and the rare words, each sorted.

    Common words fill at least ``share`` of all rows and are among the ``most`` frequent.
    """
    counts: Counter[str] = Counter()
    for word, count in zip(cells.words, cells.counts.tolist(), strict=True):
        counts[word] += count
    enough = share * len(cells.codes)
    # Sorted by word first, so that ties do not depend on the order of the rows.
    ranked = sorted(sorted(counts), key=lambda word: -counts[word])
    common = {word for word in ranked[:most] if counts[word] >= enough}
    return tuple(sorted(common)), tuple(sorted(counts.keys() - common))


def parse_number(cell: Cell, *, name: str, key: str) -> float:
    """Returns a cell of a column of numbers; ``key`` is its row.

    Raises:
        DataError: it is another text, or not finite.
    """
    number = as_number(cell, where=f"row {key}: column '{name}'")
    if number is None:
        raise DataError(
            f"row {key}: column '{name}'",
            must="hold a number, as in the training rows",
            found=f"'{cell}'",
            do="Repair the cell, or leave it empty if it was not measured.",
        )
    return number


def column_notes(columns: Sequence[Column], *, dropped: Mapping[str, str]) -> Iterator[str]:
    """Yields what a person should know; ``dropped`` says why a column is left out."""
    numbers = [column.title for column in columns if column.kind == "number"]
    words = [f"{c.name} ({len(c.words)})" for c in columns if c.kind == "category"]
    yield f"numbers: {', '.join(numbers) or 'none'}; categories: {', '.join(words) or 'none'}"
    for name, reason in dropped.items():
        yield f"column '{name}' is left out: {reason}"
    for column in columns:
        if column.rare:
            yield f"column '{column.name}': rare categories pooled into one: {len(column.rare)}"
