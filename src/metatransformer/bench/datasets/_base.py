"""What a data set of the benchmark is."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record

Fold = list[Record]


@dataclass(frozen=True)
class Published:
    """A figure that others reported: not run here. ``comparable`` only where split, metric and inputs are the same."""

    method: str
    score: float
    source: str
    comparable: bool = False


@dataclass(frozen=True)
class DataSet:
    """One row of the table.

    ``folds`` reads the records below a data folder; ``folder`` is where they lie there, and ``split`` says their rule
    in words. ``task`` is its kind where it is not the modality's own. ``metrics``: the first one decides. ``overrides``
    are no tuning but facts of the data (a missing header, a metric). ``seeds`` is how many runs are made, more where
    the test set is small; ``trunks`` is how many random trunks are compared in a fold, and where it is one, each fold
    has its own; ``modes`` are further tune modes that are affordable there. ``strong`` names a baseline of
    ``bench.strong``, "" where there is none; with ``unet`` a small U-Net of equal minutes stands beside. ``minutes`` is
    about how long the row takes on one core, 0 if nobody timed it: long rows start first. ``sha256`` is the digest of
    the files that the figures were made on; ``fetch`` says how to get them. ``title`` is what the README calls it.
    """

    name: str
    modality: str
    summary: str
    folds: Callable[[Path], list[Fold]]
    metrics: tuple[str, ...]
    licence: str
    source: str
    folder: str = ""
    task: str = ""
    split: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = 1
    trunks: int = 3
    modes: tuple[str, ...] = ()
    strong: str = "plain:svm"
    unet: bool = False
    minutes: int = 0
    published: tuple[Published, ...] = ()
    sha256: str = ""
    fetch: str = ""
    suite: str = "real12"
    title: str = ""


def digest(folder: Path) -> str:
    """Returns the SHA-256 over names and contents of all files below a folder, notes beside the data left out.

    Raises:
        DataError: the folder is not there.
    """
    if not folder.is_dir():
        raise DataError(folder, must="be a folder with the data set's files", found="nothing there")
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in ("README.md", "SHA256SUMS", "LICENSE"):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()
