"""Whether data is still the data of an earlier call."""

import dataclasses
import hashlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data.records import Records, Table

_PLAIN = {bool, int, float, str, bytes, type(None)}


def data_identity(records: Sequence[Record]) -> str:
    """Returns a hash of keys, splits, targets, the size and time of every file, and every value in memory.

    Raises:
        DataError: a file is not there, as behind a broken link.
    """
    records = Records.of(records)
    digest = _Digest()
    for column in (records.keys, records.splits, records.groups, records.parts, records.targets):
        digest.add(list(column))
    files = {path: _size_and_time(path) for path in dict.fromkeys(records.paths) if path is not None}
    digest.add([None if path is None else files[path] for path in records.paths])
    in_memory = [place for place, path in enumerate(records.paths) if path is None]
    digest.add(records.values if len(in_memory) == len(records) else [records.values[place] for place in in_memory])
    return digest.hash.hexdigest()


def value_digests(values: Sequence[Any]) -> list[str]:
    """Returns a short hash of each value in memory; what several share is looked at once."""
    known: dict[int, bytes] = {}
    found: dict[int, str] = {}
    for value in values:
        if id(value) not in found:
            digest = _Digest()
            digest._known = known
            digest.add(value)
            found[id(value)] = digest.hash.hexdigest()[:16]
    return [found[id(value)] for value in values]


def _size_and_time(path: Path) -> str:
    try:
        about = path.stat()
    except OSError as error:
        raise DataError(path, must="be a file", found=f"'{error.strerror}'", do="Remove it.") from error
    return f"{about.st_size} {about.st_mtime_ns}"


class _Digest:
    """Adds values to a hash, each with its kind and length, so that no two that differ look alike."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._known: dict[int, bytes] = {}  # of objects that many records share, as windows share a recording

    def add(self, value: Any) -> None:
        """Adds one value, whatever it holds."""
        if type(value) in _PLAIN or isinstance(value, np.generic):
            self._say(repr(value))
        elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
            self._say(f"array {value.dtype.descr} {value.shape}")
            self.hash.update(value.tobytes())
        elif isinstance(value, list | tuple):
            self._add_each(value)
        elif isinstance(value, Mapping):
            self.add([*value.keys(), *value.values()])
        elif isinstance(value, Table):
            self.add([*value.names, *map(value.column, value.names)])
        elif isinstance(value, pd.DataFrame):
            self.add([*value.columns, *(value.iloc[:, place] for place in range(value.shape[1]))])
        elif isinstance(value, np.ndarray | pd.Series | pd.Index):
            self._say(str(value.dtype))
            found = np.asarray(value)
            self.add(found.ravel().tolist() if found.dtype.hasobject else found)
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            self._add_parts(value)
        else:
            self._say(type(value).__qualname__)
            self.hash.update(pickle.dumps(value, protocol=5))

    def _say(self, text: str) -> None:
        data = text.encode()
        self.hash.update(b"%d:" % len(data) + data)

    def _add_each(self, values: Sequence[Any]) -> None:
        self._say(f"{len(values)} items")
        if all(type(value) in _PLAIN for value in values):
            self._say(repr(values))
            return
        for value in values:
            self.add(value)

    def _add_parts(self, value: Any) -> None:
        if id(value) not in self._known:
            one = _Digest()
            one._known = self._known
            one.add({part.name: getattr(value, part.name) for part in dataclasses.fields(value)})
            self._known[id(value)] = one.hash.digest()
        self.hash.update(self._known[id(value)])
