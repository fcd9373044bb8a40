"""What a user hands in, recognised in one place: a folder, a table, files, an array, or a list of anything else.

Only names are looked at, and the first line of a table where its columns are asked for. What a form means, each
modality says itself.
"""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS
from metatransformer.data.columns import MISSING
from metatransformer.data.records import counted, role_name, split_name, split_spellings
from metatransformer.data.table import TABLE_SUFFIXES, first_line, read_columns, read_table


@dataclass(frozen=True)
class Rows:
    """What rows are called in messages: the table, the line of its first row (0: rows are no lines).

    ``places`` says where the rows of one series stand in a table of several.
    """

    where: object
    first_line: int
    places: tuple[int, ...] = ()

    def name(self, row: int) -> str:
        """Returns a row's name."""
        word = "line" if self.first_line else "row"
        return f"{self.where}, {word} {(self.places[row] if self.places else row) + self.first_line}"

    def require_all(self, values: Sequence[Any], *, column: str) -> None:
        """Raises DataError where a row has no value."""
        bad = [row for row, value in enumerate(values) if value is None]
        if bad:
            raise DataError(
                f"{self.name(bad[0])}, column '{column}'",
                must="have a value in every row",
                found=f"{counted(len(bad), 'row')} without one",
                do="Fill them or remove the rows.",
            )

    def splits(self, values: Sequence[Any]) -> list[str | None]:
        """Returns the splits, query and gallery among them, that a column 'split' names, None where it names none.

        Raises:
            DataError: another word.
        """
        splits = [None if value is None else split_name(str(value)) or role_name(str(value)) for value in values]
        for row, (value, split) in enumerate(zip(values, splits, strict=True)):
            if value is not None and split is None:
                must = f"be one of {split_spellings()}"
                raise DataError(f"{self.name(row)}, column 'split'", must=must, found=f"'{value}'")
        return splits


@dataclass(frozen=True)
class Folder:
    """A folder, of files or of tables."""

    path: Path

    @cached_property
    def tables(self) -> tuple[Path, ...]:
        """The tables directly inside, in the order of their names."""
        inside = sorted(self.path.iterdir())
        visible = [path for path in inside if not path.name.startswith(".") and path.is_file()]
        return tuple(path for path in visible if accepts(path.name, suffixes=TABLE_SUFFIXES))

    @cached_property
    def sheets(self) -> "tuple[Sheet, ...]":
        """The tables that are called like splits, in the order train, val, test.

        Raises:
            DataError: two for one split.
        """
        found: dict[str, Path] = {}
        for file in self.tables:
            split = split_name(file.name.split(".")[0])
            if split in found:
                raise DataError(
                    self.path,
                    must=f"hold one table for the split '{split}'",
                    found=f"{found[split].name} and {file.name}",
                    do="Remove one, or name a file instead of the folder.",
                )
            if split is not None:
                found[split] = file
        return tuple(Sheet(found[split], split=split) for split in SPLITS if split in found)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table: a file, or one in memory (``frame``); ``split`` is what its name says of all its rows.

    ``strings``: its texts are data and never name files, as where a stranger wrote it; in a frame a ``Path`` does.
    """

    path: Path | None = None
    frame: pd.DataFrame | None = None
    split: str | None = None
    strings: bool = False

    @property
    def where(self) -> object:
        """What it is called in messages."""
        return "the table" if self.path is None else self.path

    @property
    def rows(self) -> Rows:
        """What its rows are called in messages."""
        return Rows("the DataFrame", 0) if self.path is None else Rows(self.path, first_line(self.path))

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The names of its columns, as its first line has them."""
        if self.frame is not None:
            return tuple(map(str, self.frame.columns))
        assert self.path is not None
        return read_columns(self.path)

    @property
    def lists_files(self) -> bool:
        """Whether it is a manifest: it has a column 'path'."""
        return not self.strings and "path" in self.columns

    def read(self, *, header: bool, text: bool = False, missing: Collection[str] = MISSING) -> pd.DataFrame:
        """Returns its rows; a file's as ``read_table`` does."""
        if self.frame is not None:
            return self.frame
        assert self.path is not None
        return read_table(self.path, header=header, text=text, missing=missing)


@dataclass(frozen=True)
class Files:
    """Files, and perhaps folders, in the order given; ``listed`` says that a list was handed in, not one path."""

    paths: tuple[Path, ...]
    listed: bool

    @property
    def one(self) -> Path | None:
        """The only path, where it was handed in by itself."""
        return None if self.listed else self.paths[0]


@dataclass(frozen=True, eq=False)
class Array:
    """One array in memory."""

    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Items:
    """A list of anything else: arrays, mappings, texts, objects."""

    items: tuple[Any, ...]

    def are(self, *kinds: type) -> bool:
        """Returns whether there are any, all of these kinds."""
        return bool(self.items) and all(isinstance(item, kinds) for item in self.items)


Given = Folder | Sheet | Files | Array | Items


def recognise(
    data: Any,
    *,
    must: str = "be a path, a list of paths, a list of numpy arrays, or a DataFrame",
    do: str = "Convert it, for instance with numpy.asarray.",
    strings: bool = False,
) -> Given:
    """Returns what was handed in as one of the forms; what is one already stays it.

    ``must`` and ``do`` are the words for anything else; ``strings`` says that a list of them holds no paths.

    Raises:
        DataError: no such file, or no form at all.
    """
    if isinstance(data, Given):
        return data
    if isinstance(data, pd.DataFrame):
        return Sheet(frame=data)
    if isinstance(data, str | os.PathLike):
        require_there(path := Path(data))
        if path.is_dir():
            return Folder(path)
        return Sheet(path) if accepts(path.name, suffixes=TABLE_SUFFIXES) else Files((path,), listed=False)
    if isinstance(data, np.ndarray) and data.ndim == 0:
        raise DataError("the data", must="be a list of samples", found="a single number")
    if isinstance(data, np.ndarray) and (data.ndim != 1 or data.dtype.kind not in "UO"):
        return Array(data)
    if isinstance(data, pd.Series | np.ndarray):
        data = data.tolist()
    if not isinstance(data, Sequence) or isinstance(data, bytes):
        raise DataError("the data", must=must, found=f"a {type(data).__name__}", do=do)
    items = Items(tuple(data))
    paths = items.are(os.PathLike) if strings else items.are(str, os.PathLike)
    return Files(tuple(map(Path, data)), listed=True) if paths else items


def accepts(name: str, *, suffixes: Sequence[str]) -> bool:
    """Returns whether a file name ends as one of ``suffixes`` says; ``""`` stands for no ending at all, or for one of
    digits (names such as 1.2.840.5)."""
    low = name.lower()
    ends = any(low.endswith(suffix) for suffix in suffixes if suffix)
    return ends or ("" in suffixes and not Path(name).suffix.strip(".0123456789"))


def require_there(path: Path) -> None:
    """Raises DataError when nothing stands at ``path``; says where the way there ends."""
    if path.exists():
        return
    parent = next((p for p in path.absolute().parents if p.exists()), None)
    raise DataError(
        path,
        must="exist",
        found=f"nothing; the path is there up to {parent}",
        do="Check the spelling and the working directory.",
    )
