"""What an index is: the records of a data set in order, and what a person should be told about
them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS, Record

# Spellings of the three splits that data sets in the wild use, lower case.
_SPELLINGS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_NUMBER = re.compile(r"(\d+)", re.ASCII)


@dataclass(frozen=True)
class Index:
    """The records of a data set.

    ``notes`` are sentences for a person: what was left out, made, or taken for something else.
    ``root`` is the folder that keys and relative paths start from, None for in-memory data.
    ``columns`` are a table's columns in order, without target, split and group; empty for files.
    ``settings`` are the modality's own settings that the data decided: they belong into the recipe.
    """

    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    root: Path | None = None
    columns: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def split(self, name: str) -> tuple[Record, ...]:
        """Returns the records of one split: train, val or test."""
        assert name in SPLITS, name
        return tuple(record for record in self.records if record.split == name)


def split_name(text: str) -> str | None:
    """Returns train, val or test for any usual spelling of it, None for another word."""
    return _SPELLINGS.get(text.strip().lower())


def split_spellings() -> str:
    """Returns the accepted spellings as one string, for messages."""
    return ", ".join(_SPELLINGS)


def natural_key(path: str) -> tuple[tuple[tuple[str | int, ...], ...], str]:
    """Returns a sort key under which ``a2`` stands before ``a10`` and a folder's files stay
    together.

    ``path`` is POSIX. Case is ignored first; the text itself breaks ties, so that the order is
    total.
    """
    return tuple(_natural_part(part) for part in path.split("/")), path


def _natural_part(part: str) -> tuple[str | int, ...]:
    # split() with a group gives text, digits, text, ...: equal positions always hold equal types.
    pieces = _NUMBER.split(part.casefold())
    return tuple(int(piece) if i % 2 else piece for i, piece in enumerate(pieces))


def require_unique(records: Sequence[Record], *, where: object) -> None:
    """Raises DataError when two records have the same key."""
    counts = Counter(record.key for record in records)
    twice = [key for key, count in counts.items() if count > 1]
    if twice:
        rows = [i for i, record in enumerate(records) if record.key == twice[0]][:2]
        more = f", and {len(twice) - 1} other keys" if len(twice) > 1 else ""
        raise DataError(
            where,
            must="name every item once",
            found=f"'{twice[0]}' as items {rows[0] + 1} and {rows[1] + 1}{more}",
            do="Remove the repetition, or give each its own name in a column 'key'.",
        )


def require_text(records: Sequence[Record]) -> None:
    """Raises DataError when a key or a label comes from a file name that is no UTF-8: no table could hold it."""
    names = [f"{record.key}{record.target}" for record in records]
    odd = [i for i, name in enumerate(names) if not name.isascii() and not _is_utf8(name)]
    if odd:
        key = records[odd[0]].key.encode("utf-8", "surrogateescape")
        raise DataError(
            f"file name {key!r}",
            must="be UTF-8, as every table that names it must be",
            found=f"other bytes, in {counted(len(odd), 'name')}",
            do="Rename it.",
        )


def _is_utf8(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def listing(items: Iterable[object], *, most: int = 5) -> str:
    """Returns the first few items as text, and how many follow: ``a, b, c and 7 more``."""
    texts = [str(item) for item in items]
    rest = len(texts) - most
    return ", ".join(texts[:most]) + (f" and {rest} more" if rest > 0 else "")


def counted(number: int, noun: str) -> str:
    """Returns ``1 file`` or ``1,234 files``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
