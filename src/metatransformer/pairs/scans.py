"""What was found in each shard, kept beside an unfinished run, so that its next start need not look through all again.

One file a shard, named after the shard's size and time and what was asked of it: a shard that changed is looked through
again. Files are written whole or not at all, so several processes may write the same one; each begins elsewhere, and
finds what the others have done. A finished run keeps none.
"""

import dataclasses
import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError
from metatransformer.data.write import atomic_file

FORMAT = 1
FOLDER = "index"  # of a run
MOST_BYTES = 32 * 2**30  # about a billion pairs


@dataclass(frozen=True)
class Scan:
    """What is kept of a shard: ``columns`` of its pairs, how many were left out by reason, and what is broken."""

    columns: Mapping[str, np.ndarray]
    left_out: Mapping[str, int] = field(default_factory=Counter)
    broken: Sequence[str] = ()


class Scans:
    """The scans in a folder. ``found`` counts those that were there, ``full`` says that no more could be kept."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found, self.full = folder, 0, False
        self._used: set[str] = set()
        self._bytes = sum(map(_size, folder.glob("[!.]*.npz")))
        self._lock = threading.Lock()

    def path(self, shard: Path, *, part: int, wanted: object) -> Path:
        """Returns where the scan of a shard (of a ``part`` of it) is kept; ``wanted`` is a dataclass, what is asked."""
        assert dataclasses.is_dataclass(wanted) and not isinstance(wanted, type)
        stat = shard.stat()
        told = [FORMAT, str(shard.resolve()), part, stat.st_size, stat.st_mtime_ns, dataclasses.asdict(wanted)]
        name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:24]
        self._used.add(name)
        return self.folder / f"{name}.npz"

    def read(self, path: Path) -> Scan | None:
        """Returns what is kept there, None where nothing is or it is damaged."""
        try:
            with foreign(path, "numpy", must="be what an earlier start kept"), open(path, "rb") as data:
                file = np.load(data)
                columns = {name: file[name] for name in file.files}
            told = json.loads(columns.pop("told").tobytes())
        except (DataError, OSError, KeyError, ValueError):
            return None
        with self._lock:
            self.found += 1
        return Scan(columns, Counter(told["left_out"]), told["broken"])

    def write(self, path: Path, scan: Scan) -> None:
        """Keeps a scan, unless there is no room for more."""
        if self.full:
            return
        told = json.dumps({"left_out": scan.left_out, "broken": list(scan.broken)}).encode()
        columns: dict[str, Any] = {"told": np.frombuffer(told, dtype=np.uint8), **scan.columns}
        try:
            with atomic_file(path) as temporary:
                np.savez_compressed(temporary, **columns)
                size = _size(temporary)
            with self._lock:
                self._bytes += size
        except DataError:  # a full disk: what is kept spares time and nothing else
            self.full = True
        self.full |= self._bytes > MOST_BYTES

    def clean(self) -> None:
        """Removes what no shard asked for: it is of other settings, or of a shard as it was before."""
        for path in self.folder.glob("[!.]*.npz"):
            if path.stem not in self._used:
                path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # another process has just removed it
        return 0
