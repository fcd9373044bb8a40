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
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError

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

_DATE = re.compile(r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ].*)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity)", re.IGNORECASE)

Cell = bool | int | float | str | None


@dataclass(frozen=True)
class Column:
    """One column as it was learned: ``number`` is ``(value - mean) / scale``, ``category`` an index
    into ``words``.

    ``edges`` are the bins of the standardised numbers. Index 0 of a category is a word never seen,
    1 one of the ``rare`` words, and ``words[i]`` has index ``FIRST + i``.
    """

    name: str
    kind: str
    mean: float = 0.0
    scale: float = 1.0
    edges: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    rare: tuple[str, ...] = ()

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


def column_kind(name: str, cells: Sequence[Cell], *, keys: Sequence[str]) -> str:
    """Returns ``number``, ``category``, or why the column tells nothing: ``empty``, ``constant``,
    ``identifier``, ``numbering``.

    ``cells`` are clean training cells, ``keys`` their rows. Truth values are categories. Texts that
    all read as numbers are numbers; one code with a leading zero makes the column categories. A
    column of texts of which nine in ten occur once is an identifier; one of whole numbers that
    rises by 1 from row to row numbers them.

    Raises:
        DataError: dates or times, or a column of numbers with a few texts in it.
    """
    known = [(key, cell) for key, cell in zip(keys, cells, strict=True) if cell is not None]
    if not known:
        return "empty"
    distinct = {as_word(cell) for _, cell in known}
    if len(distinct) == 1 and len(known) == len(cells):
        return "constant"
    texts = [cell for _, cell in known if isinstance(cell, str)]
    _refuse_dates(name, texts, cells=len(known))
    words = "category"
    if len(known) >= FEWEST_FOR_IDENTIFIER and len(distinct) > 0.9 * len(known):
        words = "identifier"
    if any(is_code(text) for text in texts):
        return words
    if all(isinstance(cell, bool) for _, cell in known):
        return "category"
    other = [pair for pair in known if as_number(pair[1], where=f"row {pair[0]}: {name}") is None]
    if not other:
        return "numbering" if words == "identifier" and _numbers_rows(known) else "number"
    if len(other) <= (1 - NEARLY_ALL) * len(known):
        raise DataError(
            f"column '{name}'",
            must="hold numbers, as nearly all of its cells do",
            found=f"{len(other)} of {len(known)} that are none, '{other[0][1]}' in row {other[0][0]}",
            do="Repair them, leave them empty if they mean 'missing', or name the column in "
            "'categories' (or 'ignore').",
        )
    return words


def _numbers_rows(known: Sequence[tuple[str, Cell]]) -> bool:
    """Returns whether every cell is its row's number, but for where the count begins; a key ends in that number."""
    places = [key.rpartition("/")[2] for key, _ in known]
    if not all(place.isdecimal() for place in places):
        return False
    return len({float(str(cell)) - int(place) for place, (_, cell) in zip(places, known, strict=True)}) == 1


def _refuse_dates(name: str, texts: Sequence[str], *, cells: int) -> None:
    dates = [text for text in texts if _DATE.fullmatch(text)]
    if dates and len(dates) >= NEARLY_ALL * cells:
        raise DataError(
            f"column '{name}'",
            must="hold numbers or categories",
            found=f"dates, such as '{dates[0]}'",
            do="Turn it into numbers first (year, month, weekday, days since a start), "
            "or name the column in 'ignore' (or 'categories').",
        )


def common_words(cells: Sequence[Cell], *, share: float, most: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the common and the rare words, each sorted.

    Common words fill at least ``share`` of all rows and are among the ``most`` frequent.
    """
    counts = Counter(as_word(cell) for cell in cells if cell is not None)
    enough = share * len(cells)
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
    numbers = [column.name for column in columns if column.kind == "number"]
    words = [f"{c.name} ({len(c.words)})" for c in columns if c.kind == "category"]
    yield f"numbers: {', '.join(numbers) or 'none'}; categories: {', '.join(words) or 'none'}"
    for name, reason in dropped.items():
        yield f"column '{name}' is left out: {reason}"
    for column in columns:
        if column.rare:
            yield f"column '{column.name}': rare categories pooled into one: {len(column.rare)}"
