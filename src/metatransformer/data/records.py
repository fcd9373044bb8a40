"""What an index is: the records of a data set in order, and what a person should be told about
them."""

import operator
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS, Record, View

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
_ROLES = {"query": "query", "probe": "query", "gallery": "gallery"}
pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

_NUMBER = re.compile(r"(\d+)", re.ASCII)
_LISTED = ("keys", "paths", "parts", "targets", "splits", "groups")
_COLUMNS = ("keys", "paths", "parts", "values", "targets", "splits", "groups")


class Table(Sequence[dict[str, Any]]):
    """The rows of a table, kept by columns: a row is made when it is asked for.

    A column is an array [n] of whole numbers, of truth values, of numbers with NaN where one is missing, or of Python
    objects with None where one is missing. ``rows`` are the rows taken of ``columns``, None = all.
    """

    def __init__(self, columns: Mapping[str, np.ndarray], *, rows: np.ndarray | None = None) -> None:
        self._columns = dict(columns)
        self._rows = np.arange(len(next(iter(columns.values())))) if rows is None else rows

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return tuple(self._columns)

    def column(self, name: str) -> np.ndarray:
        """Returns the cells of one column, [n]."""
        return self._columns[name][self._rows]

    def take(self, places: Sequence[int] | np.ndarray) -> "Table":
        """Returns some of the rows, in the order of ``places``."""
        return Table(self._columns, rows=self._rows[np.asarray(places, dtype=np.int64)])

    def select(self, names: Mapping[str, str]) -> "Table":
        """Returns some of the columns, under other names: ``names`` is own name -> new name."""
        return Table({new: self._columns[own] for own, new in names.items()}, rows=self._rows)

    @classmethod
    def joined(cls, tables: Sequence["Table"]) -> "Table":
        """Returns tables with the same columns one below the other, in the order of the first one's columns."""
        return cls({name: _stacked([table.column(name) for table in tables]) for name in tables[0].names})

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> "Table": ...
    def __getitem__(self, place: int | slice) -> "dict[str, Any] | Table":
        if isinstance(place, slice):
            return Table(self._columns, rows=self._rows[place])
        row = self._rows[place]
        return {name: _plain(column[row]) for name, column in self._columns.items()}


def plain_values(column: np.ndarray) -> list[Any]:
    """Returns a table's column as Python values, None where one is missing."""
    values = column.tolist()
    return [value if value == value else None for value in values] if column.dtype.kind == "f" else values


def objects(values: Sequence[Any]) -> np.ndarray:
    """Returns Python values as an array [n] of objects, whatever they hold."""
    return np.fromiter(values, dtype=object, count=len(values))


def _stacked(columns: Sequence[np.ndarray]) -> np.ndarray:
    same = len({column.dtype for column in columns}) == 1
    return np.concatenate(columns if same else [objects(plain_values(column)) for column in columns])


def _plain(cell: Any) -> Any:
    """Returns a cell as a plain Python value, None where it is missing."""
    if not isinstance(cell, np.generic):
        return cell
    value = cell.item()
    return value if value == value else None


class Records(Sequence[Record]):
    """The records of a data set, kept by columns: a ``Record`` is made when it is asked for.

    ``keys``, ``paths``, ``parts``, ``values``, ``targets``, ``splits`` and ``groups`` have one entry a record and mean
    what they mean in ``Record``; ``values`` is a ``Table`` where the records are rows of one. ``drawn`` are the splits
    that were drawn by a seed. None stands for a column of None.
    """

    def __init__(
        self,
        keys: Sequence[str],
        *,
        paths: Sequence[Path | None] | None = None,
        parts: Sequence[int | str | None] | None = None,
        values: Sequence[Any] | None = None,
        targets: Sequence[Any] | None = None,
        splits: Sequence[str | None] | None = None,
        groups: Sequence[str | None] | None = None,
        drawn: frozenset[str] = frozenset(),
    ) -> None:
        none = [None] * len(keys)
        self.keys = keys
        self.paths: Sequence[Path | None] = none if paths is None else paths
        self.parts: Sequence[int | str | None] = none if parts is None else parts
        self.values: Sequence[Any] = none if values is None else values
        self.targets: Sequence[Any] = none if targets is None else targets
        self.splits: Sequence[str | None] = none if splits is None else splits
        self.groups: Sequence[str | None] = none if groups is None else groups
        self.drawn = drawn
        lengths = [len(getattr(self, name)) for name in _COLUMNS]
        assert len(set(lengths)) == 1, lengths

    @classmethod
    def of(cls, records: Iterable[Record]) -> "Records":
        """Returns records that were made one by one, by columns; what is by columns already stays as it is."""
        if isinstance(records, Records):
            return records
        records = list(records)
        return cls(
            [record.key for record in records],
            paths=[record.path for record in records],
            parts=[record.part for record in records],
            values=[record.value for record in records],
            targets=[record.target for record in records],
            splits=[record.split for record in records],
            groups=[record.group for record in records],
            drawn=frozenset(record.split for record in records if record.drawn and record.split is not None),
        )

    @classmethod
    def joined(cls, parts: Sequence["Records"]) -> "Records":
        """Returns the records of all parts, one part behind the other."""
        if len(parts) == 1:
            return parts[0]
        columns: dict[str, Any] = {name: [entry for part in parts for entry in getattr(part, name)] for name in _LISTED}
        tables = [part.table for part in parts if part.table is not None]
        columns["values"] = Table.joined(tables) if len(tables) == len(parts) else [v for p in parts for v in p.values]
        return cls(**columns, drawn=frozenset().union(*(part.drawn for part in parts)))

    @property
    def table(self) -> Table | None:
        """The rows, where the records are rows of a table."""
        return self.values if isinstance(self.values, Table) else None

    def replace(
        self,
        *,
        keys: Sequence[str] | None = None,
        values: Sequence[Any] | None = None,
        targets: Sequence[Any] | None = None,
        splits: Sequence[str | None] | None = None,
        groups: Sequence[str | None] | None = None,
        drawn: frozenset[str] | None = None,
    ) -> "Records":
        """Returns the same records with other columns; None leaves one as it is."""
        given: dict[str, Any] = {
            "keys": keys,
            "values": values,
            "targets": targets,
            "splits": splits,
            "groups": groups,
            "drawn": drawn,
        }
        own: dict[str, Any] = {name: getattr(self, name) for name in (*_COLUMNS, "drawn")}
        return Records(**own | {name: column for name, column in given.items() if column is not None})

    def take(self, places: Sequence[int] | np.ndarray) -> "Records":
        """Returns some of the records, in the order of ``places``."""
        rows = np.asarray(places, dtype=np.int64)
        each = rows.tolist()
        return self._by(lambda column: column.take(rows) if isinstance(column, Table) else [column[i] for i in each])

    def in_split(self, name: str) -> "Records":
        """Returns the records of one split."""
        return self.take([place for place, split in enumerate(self.splits) if split == name])

    def _by(self, change: Callable[[Any], Any]) -> "Records":
        """Returns the records whose every column is ``change`` of the own one."""
        return Records(**{name: change(getattr(self, name)) for name in _COLUMNS}, drawn=self.drawn)

    def __len__(self) -> int:
        return len(self.keys)

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> "Records": ...
    def __getitem__(self, place: int | slice) -> "Record | Records":
        if isinstance(place, slice):
            return self._by(operator.itemgetter(place))
        key, path, part, value, target, split, group = (getattr(self, name)[place] for name in _COLUMNS)
        return Record(key, path, part, value, target, split, group, drawn=split in self.drawn)

    def __eq__(self, other: object) -> bool:
        """Returns whether the other is a sequence of equal records."""
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"<{counted(len(self), 'record')}>"


class Views(Iterable[View]):
    """The raw views of records, each read by ``load`` when its turn comes; ``records`` may hold a whole table."""

    def __init__(self, records: Iterable[Record], *, load: Callable[[Record], Mapping[str, Any]]) -> None:
        self.records, self._load = Records.of(records), load

    def __iter__(self) -> Iterator[View]:
        return (View(record.key, self._load(record)) for record in self.records)


@dataclass(frozen=True)
class Index:
    """The records of a data set.

    ``notes`` are sentences for a person: what was left out, made, or taken for something else.
    ``root`` is the folder that keys and relative paths start from, None for in-memory data.
    ``columns`` are a table's columns in order, without target, split and group; empty for files.
    ``settings`` are the modality's own settings that the data decided: they belong into the recipe.
    ``idle`` are settings that were given and that can have no effect on this data, each with the reason: a fit refuses
    them.
    """

    records: Records
    notes: tuple[str, ...] = ()
    root: Path | None = None
    columns: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    idle: tuple[tuple[str, str], ...] = ()

    def split(self, name: str) -> Records:
        """Returns the records of one split: train, val or test."""
        assert name in SPLITS, name
        return self.records.in_split(name)


def split_name(text: str) -> str | None:
    """Returns train, val or test for any usual spelling of it, None for another word."""
    return _SPELLINGS.get(text.strip().lower())


def role_name(text: str) -> str | None:
    """Returns query or gallery for any usual spelling of it, None for another word."""
    return _ROLES.get(text.strip().lower())


def split_spellings() -> str:
    """Returns the accepted spellings as one string, for messages."""
    return ", ".join((*_SPELLINGS, *_ROLES))


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


def natural_order(keys: Sequence[str]) -> list[int]:
    """Returns the places of the keys in the order of ``natural_key``; fast where all are numbers, as rows of tables."""
    numbered = _numbered(keys)
    if numbered is not None:
        # Folders of one depth stand in an order of their own, and a key's number decides inside each.
        (heads, codes), numbers = numbered
        parts = [natural_key(head)[0] for head in heads]
        rank = {part: place for place, part in enumerate(sorted(set(parts)))}
        folders = np.array([rank[part] for part in parts])[codes]
        order = np.lexsort((numbers, folders))
        steps = np.diff(folders[order]) != 0
        if (steps | (np.diff(numbers[order]) != 0)).all():  # else texts break a tie, as of 7 and 07
            return order.tolist()
    return sorted(range(len(keys)), key=lambda place: natural_key(keys[place]))


def _numbered(keys: Sequence[str]) -> tuple[tuple[list[str], np.ndarray], np.ndarray] | None:
    """Returns the folders (each once, and their places) and the numbers of keys that all are ``folders/number``."""
    try:
        found = pc.extract_regex(pa.array(keys, pa.string()), r"^(?P<folder>(?:[^\n]*/)?)(?P<number>[0-9]{1,18})$")
    except UnicodeEncodeError:
        return None
    if found.null_count or not keys:
        return None
    folders = pc.struct_field(found, "folder").dictionary_encode()
    heads = folders.dictionary.to_pylist()
    if len({head.count("/") for head in heads}) > 1:
        return None
    numbers = pc.cast(pc.struct_field(found, "number"), pa.int64())
    return (heads, folders.indices.to_numpy()), numbers.to_numpy()


def require_unique(keys: Sequence[str], *, where: object) -> None:
    """Raises DataError when two records have the same key."""
    if len(set(keys)) == len(keys):
        return
    twice = [key for key, count in Counter(keys).items() if count > 1]
    rows = [i for i, key in enumerate(keys) if key == twice[0]][:2]
    more = f", and {len(twice) - 1} other keys" if len(twice) > 1 else ""
    raise DataError(
        where,
        must="name every item once",
        found=f"'{twice[0]}' as items {rows[0] + 1} and {rows[1] + 1}{more}",
        do="Remove the repetition, or give each its own name in a column 'key'.",
    )


def require_text(records: Records) -> None:
    """Raises DataError when a key or a label comes from a file name that is no UTF-8: no table could hold it."""
    names = [f"{key}{target}" for key, target in zip(records.keys, records.targets, strict=True)]
    odd = [i for i, name in enumerate(names) if not name.isascii() and not _is_utf8(name)]
    if odd:
        key = records.keys[odd[0]].encode("utf-8", "surrogateescape")
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


def counted(number: int, noun: str, many: str = "") -> str:
    """Returns ``1 file`` or ``1,234 files``; ``many`` is the plural where it is no s more."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"
