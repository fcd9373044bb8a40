"""How cells are read as numbers: as people write them, as dates, with words that mean "not measured"."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.data.columns import NEARLY_ALL, Cell, Cells, Column, as_number, is_code, parse_number
from metatransformer.data.given import Rows
from metatransformer.data.records import counted, listing
from metatransformer.data.spelled import spelled_styles
from metatransformer.modalities._recording.times import parse_times, style_of

# Words that mean "not measured" where numbers or dates stand around them; elsewhere they are words of their own.
NOT_MEASURED = frozenset(
    "- -- --- . .. * ** none nil null missing unknown undefined unavailable n.a. n.a na n/a nd n.d. #n/a #div/0! "
    "#value! #ref! #num! (null) (none) (blank) \\n".split()
)
_TRUTH = {"true": 1.0, "false": 0.0}
ISO = "ISO 8601"
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
_DATE = re.compile(
    r"(?:\d{4}[-/.]\d{1,2}(?:[-/.]\d{1,2})?|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{1,2}/\d{4}"
    rf"|(?:\d{{1,2}}[-. ]*)?(?:{'|'.join(_MONTHS)})[a-z]*[-., ]+\d{{1,4}}(?:,? +\d{{4}})?)(?:[T ,].*)?"
    r"|\d{4}[- ]?Q[1-4]|Q[1-4][- ]?\d{4}|\d{4}-?W\d\d",
    re.IGNORECASE,
)
PARTS: Mapping[str, Callable[[datetime], float]] = {
    "year": lambda moment: moment.year,
    "month": lambda moment: moment.month,
    "day": lambda moment: moment.day,
    "weekday": lambda moment: moment.weekday(),
    "hour": lambda moment: moment.hour + moment.minute / 60 + moment.second / 3600,
    "elapsed": lambda moment: (moment - datetime(1970, 1, 1)).total_seconds() / 86400,
}


@dataclass(frozen=True)
class Reading:
    """How texts of a column are numbers: ``style`` as in ``Column``; ``missing`` words; ``told`` for a person.

    ``values`` are the cells' different values as numbers, NaN where one is missing; by part for dates.
    """

    style: str
    missing: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    told: str = ""


def find_reading(
    name: str, cells: Cells, *, style: str, keys: Sequence[str], comma: Callable[[], bool]
) -> Reading | None:
    """Returns how a column is read that is no column of numbers as it stands, None for one that is, or is no numbers.

    ``style``: how a person says that dates are written; ``comma``: whether other columns have decimal commas.

    Raises:
        DataError: dates that may be two days each, or of which a few are none.
    """
    values = cells.values.tolist()
    kind = cells.values.dtype.kind
    if kind in "fb" or (kind in "iu" and not _as_whole_dates(values)):
        return None
    if cells.different < 2 or any(isinstance(value, str) and is_code(value) for value in values):
        return None
    gone = np.array([isinstance(value, str) and value.lower() in NOT_MEASURED for value in values])
    rest = [value for value, out in zip(values, gone.tolist(), strict=True) if not out]
    count = int(cells.counts[gone].sum())
    if not rest or 2 * count > cells.counts.sum():
        return None
    words = tuple(values[place] for place in np.flatnonzero(gone).tolist())
    told = f"column '{name}': {listing(map(repr, words))} ({counted(count, 'cell')}) taken for missing" if words else ""
    known, firsts = np.unique(cells.codes, return_index=True)
    rows = [keys[row] for row in firsts[known >= 0][~gone].tolist()]
    found = _numbers(name, rest, told=told, comma=comma) or _dates(name, rest, style=style, keys=rows, told=told)
    if found is None:
        return None
    style, parts, told = found
    spread = {part: np.full(len(values), np.nan) for part in parts}
    for part, numbers in parts.items():
        spread[part][~gone] = numbers
    return Reading(style, words, spread, told)


def _numbers(
    name: str, values: Sequence[Cell], *, told: str, comma: Callable[[], bool]
) -> tuple[str, dict[str, np.ndarray], str] | None:
    """Returns style, numbers and what to say; None for plain numbers without missing words, and for no numbers."""
    if _as_whole_dates(values):
        return None
    texts = [value for value in values if isinstance(value, str)]
    try:
        plain = [as_number(value, where="") for value in values if not isinstance(value, bool)]
    except DataError:  # an infinity, which is named with its row elsewhere
        return None
    if len(plain) == len(values) and all(number is not None for number in plain):
        return ("", {"": np.array(plain, dtype=np.float64)}, told) if told else None
    found = spelled_styles(texts) if len(texts) == len(values) else {}
    if not found:
        return None
    style = next(iter(found))
    if len(found) > 1 and (found["point"] != found["comma"]).any():
        style = "comma" if comma() else "point"
    example = next(value for value in texts if as_number(value, where="") is None)
    said = (
        f"column '{name}' holds numbers with a decimal {style}: '{example}' is {found[style][texts.index(example)]:g}"
    )
    return style, {"": found[style]}, f"{said}; {told}" if told else said


def _as_whole_dates(values: Sequence[Cell]) -> bool:
    """Returns whether whole numbers are days: 20240531."""
    if len(values) < 3 or not all(re.fullmatch(r"(?:19|20)\d{6}", str(value)) for value in values):
        return False
    return bool(pd.to_datetime(pd.Series(values).astype(str), format="%Y%m%d", errors="coerce").notna().all())


def _dates(
    name: str, values: Sequence[Cell], *, style: str, keys: Sequence[str], told: str
) -> tuple[str, dict[str, np.ndarray], str] | None:
    """Returns style, numbers by part and what to say, None for no dates; ``keys`` are the values' first rows."""
    if _as_whole_dates(values):
        found = "%Y%m%d"
    else:
        texts = [value for value in values if isinstance(value, str) and _DATE.fullmatch(value)]
        if len(texts) < NEARLY_ALL * len(values):
            return None
        sure = all(re.search(r"\d{4}|[A-Za-z]{3}", text) for text in texts)
        found = _style(name, values, style=style, keys=keys, sure=sure)
        if not found:
            return None
    moments = [moment_of(str(value), found) for value in values]
    parts = {part: np.array([take(moment) for moment in moments], dtype=np.float64) for part, take in PARTS.items()}
    parts = {part: numbers for part, numbers in parts.items() if len(np.unique(numbers)) > 1}
    said = f"column '{name}' holds dates ({found}), read as {', '.join(parts)}"
    return found, parts, f"{said}; {told}" if told else said


def _style(name: str, values: Sequence[Cell], *, style: str, keys: Sequence[str], sure: bool) -> str:
    """Returns how dates are written, "" where they are none after all (version numbers)."""
    numbers = [key.rpartition("/")[2] for key in keys]
    rows = tuple(int(number) if number.isdecimal() else place for place, number in enumerate(numbers))
    column = pd.Series([str(value) for value in values])
    place = Rows("the table", 0, rows)
    try:
        found = style_of(column, style=style, rows=place, title=name)
        parse_times(column, style=found, rows=place, title=name)
    except DataError as error:
        if not sure and "only mean one day" not in error.must:
            return ""
        do = f"{error.do} Or name the column in 'categories' or 'ignore'."
        raise DataError(error.where, must=error.must, found=error.found, do=do) from error
    return found or ISO


@lru_cache(maxsize=2**16)
def moment_of(text: str, style: str) -> datetime:
    """Returns a date as a moment without zone (universal time where it states one).

    Raises:
        DataError, ValueError: it is none of this style.
    """
    if style != ISO:
        moment = datetime.strptime(text, style)
    else:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:  # a quarter, a week, another form of ISO 8601
            times = parse_times(pd.Series([text]), rows=Rows("the cell", 0), title="date")
            moment = pd.DatetimeIndex(times)[0].to_pydatetime()
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def cell_number(cell: Cell, column: Column, *, key: str) -> float:
    """Returns a cell of a column of numbers as it is read, NaN for a missing one.

    Raises:
        DataError: it is none.
    """
    if cell is None or cell in column.missing or (column.missing and str(cell).lower() in NOT_MEASURED):
        return np.nan
    if column.part:
        try:
            return PARTS[column.part](moment_of(str(cell), column.style))
        except (ValueError, DataError) as error:
            must = f"hold a date as in the training rows ({column.style})"
            do = "Repair the cell, or leave it empty."
            raise DataError(f"row {key}: column '{column.name}'", must=must, found=f"'{cell}'", do=do) from error
    if isinstance(cell, str):
        if column.style and len(found := spelled_styles([cell]).get(column.style, ())):
            return float(found[0])
        if cell.lower() in _TRUTH:
            return _TRUTH[cell.lower()]
    return parse_number(cell, name=column.name, key=key)
