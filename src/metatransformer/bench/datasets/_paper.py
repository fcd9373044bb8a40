"""What the files of the paper's data sets share."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from metatransformer.bench.datasets._base import Fold
from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.infer.sources import read_index
from metatransformer.modalities import get_modality

PAPER = "arXiv 2307.10802"


def records_of(modality: str, data: Path, *, target: str = "") -> Fold:
    """Returns the records of a modality's files or table, with its default settings."""
    kind = get_modality(modality)
    return list(read_index(kind, data, options=kind.options(), target=target, labelled=True).records)


def official_lines(path: Path) -> list[str]:
    """Returns the lines of an official list that are not empty.

    Raises:
        DataError: it is not there.
    """
    if not path.is_file():
        raise DataError(path, must="exist, as in the official archive", found="nothing", do="Unpack the archive again.")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def split_by_digest(records: Fold, *, text: Callable[[Record], str]) -> Fold:
    """Returns the records with a fifth of them test, by the MD5 sum of a text of each: where no split is official."""

    def number(record: Record) -> int:
        return int(hashlib.md5(text(record).encode(), usedforsecurity=False).hexdigest(), 16)

    return [replace(record, split="test" if number(record) % 5 == 0 else "train") for record in records]
