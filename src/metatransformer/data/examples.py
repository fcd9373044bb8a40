"""Examples: what a data set brings for several named inputs and tasks, by columns.

One input and one task is the case of one: the records of an index, under the names that the recipe gives them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS, Record
from metatransformer.data.identity import data_identity
from metatransformer.data.records import Records, listing


@dataclass(frozen=True)
class Column:
    """One input of all samples: ``places[i]`` is where sample i stands in ``records``, -1 where the sample
    lacks this input; None where all have it, in the records' order.
    """

    records: Records
    places: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.records) if self.places is None else len(self.places)

    def __getitem__(self, sample: int) -> Record | None:
        place = sample if self.places is None else int(self.places[sample])
        return None if place < 0 else self.records[place]

    def take(self, samples: np.ndarray) -> "Column":
        """Returns the column of some of the samples."""
        if self.places is None:
            return Column(self.records.take(samples))
        places = self.places[samples]
        there = places >= 0
        return Column(self.records.take(places[there]), np.where(there, np.cumsum(there) - 1, -1))

    @staticmethod
    def joined(columns: Sequence["Column"]) -> "Column":
        """Returns columns one behind the other."""
        records = Records.joined([column.records for column in columns])
        if all(column.places is None for column in columns):
            return Column(records)
        parts, offset = [], 0
        for column in columns:
            own = np.arange(len(column)) if column.places is None else column.places
            parts.append(np.where(own < 0, -1, own + offset))
            offset += len(column.records)
        return Column(records, np.concatenate(parts))


@dataclass(frozen=True)
class Examples:
    """Samples in order. All columns are of one length.

    ``inputs`` are by name; ``targets[task]`` holds the label or number to learn, None where it is unknown; ``splits``
    train, val, test or None; ``groups`` what must not be torn apart by a split; ``drawn`` names the splits that nobody
    gave: they were drawn by a seed, and others would do as well.
    """

    keys: Sequence[str]
    inputs: Mapping[str, Column]
    targets: Mapping[str, Sequence[Any]]
    splits: Sequence[str | None]
    groups: Sequence[str | None]
    drawn: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.keys)

    @staticmethod
    def of(records: Sequence[Record], *, input: str, task: str) -> "Examples":
        """Returns the records of one input, whose targets are those of one task ("" = of none)."""
        records = Records.of(records)
        return Examples(
            keys=records.keys,
            inputs={input: Column(records)},
            targets={task: records.targets} if task else {},
            splits=records.splits,
            groups=records.groups,
            drawn=records.drawn,
        )

    @staticmethod
    def join(parts: Mapping[str, Sequence[Record]], *, targets: Mapping[str, Mapping[str, Any]]) -> "Examples":
        """Returns records of several inputs, joined by their keys; ``targets`` are by task and key.

        A sample lacks an input whose records have no such key. Its split and its group are those that a record has.

        Raises:
            DataError: two inputs give a sample different splits or groups.
        """
        known = {name: Records.of(records) for name, records in parts.items()}
        where = {name: {key: place for place, key in enumerate(records.keys)} for name, records in known.items()}
        keys = list(dict.fromkeys(key for places in where.values() for key in places))
        pairs = [(known[name], where[name]) for name in known]
        places = {name: np.array([own.get(key, -1) for key in keys]) for name, own in where.items()}
        return Examples(
            keys=keys,
            inputs={name: Column(records, places[name]) for name, records in known.items()},
            targets={task: [found.get(key) for key in keys] for task, found in targets.items()},
            splits=[_one(key, "split", [r.splits[w[key]] for r, w in pairs if key in w]) for key in keys],
            groups=[_one(key, "group", [r.groups[w[key]] for r, w in pairs if key in w]) for key in keys],
        )

    @staticmethod
    def joined(parts: Sequence["Examples"]) -> "Examples":
        """Returns the samples of several parts of a data set, one behind the other."""
        first = parts[0]
        return replace(
            first,
            keys=[*chain(*(part.keys for part in parts))],
            inputs={name: Column.joined([part.inputs[name] for part in parts]) for name in first.inputs},
            targets={name: [*chain(*(part.targets[name] for part in parts))] for name in first.targets},
            splits=[*chain(*(part.splits for part in parts))],
            groups=[*chain(*(part.groups for part in parts))],
        )

    def take(self, samples: Sequence[int] | np.ndarray) -> "Examples":
        """Returns some of the samples."""
        rows = np.asarray(samples, dtype=np.int64)
        each = rows.tolist()
        return replace(
            self,
            keys=[self.keys[row] for row in each],
            inputs={name: column.take(rows) for name, column in self.inputs.items()},
            targets={name: [column[row] for row in each] for name, column in self.targets.items()},
            splits=[self.splits[row] for row in each],
            groups=[self.groups[row] for row in each],
        )

    def split(self, name: str) -> "Examples":
        """Returns the samples of one split."""
        assert name in SPLITS, name
        return self.take([row for row, split in enumerate(self.splits) if split == name])

    def records(self, name: str) -> Records:
        """Returns the records of one input, one a sample that has it, with the splits of their samples."""
        column = self.inputs[name]
        there = range(len(self)) if column.places is None else np.flatnonzero(column.places >= 0).tolist()
        records = column.records if column.places is None else column.records.take(column.places[there])
        return records.replace(splits=[self.splits[row] for row in there])

    def known(self, task: str) -> np.ndarray:
        """Returns the rows whose target of a task is known; none where the data has no such task."""
        column = self.targets.get(task, [])
        return np.array([row for row, target in enumerate(column) if target is not None], dtype=np.int64)

    def identity(self) -> str:
        """Returns a hash by which an unfinished run sees that data changed: ``data_identity`` of every column."""
        digest = hashlib.sha256(repr([list(self.splits), list(self.groups)]).encode())
        for name, column in self.inputs.items():
            places = b"" if column.places is None else column.places.tobytes()
            digest.update(f"{name} {data_identity(column.records)}".encode() + places)
        for name, targets in self.targets.items():
            digest.update(f"{name} {data_identity(Records(self.keys, targets=targets))}".encode())
        return digest.hexdigest()


def _one(key: str, what: str, found: Sequence[str | None]) -> str | None:
    """Returns the one split or group that the records of a sample have, None where none says."""
    said = {name for name in found if name is not None}
    if len(said) > 1:
        raise DataError(f"sample '{key}'", must=f"have one {what} in all its inputs", found=listing(sorted(said)))
    return said.pop() if said else None
