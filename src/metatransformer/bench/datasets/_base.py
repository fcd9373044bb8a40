"""What a data set of the benchmark is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from metatransformer.core.samples import Record

Fold = list[Record]


@dataclass(frozen=True)
class DataSet:
    """One row of the table.

    ``folds`` reads the records below a data folder; ``overrides`` are no tuning but facts of the data (a missing
    header, a metric).
    """

    name: str
    modality: str
    summary: str
    folds: Callable[[Path], list[Fold]]
    metrics: tuple[str, ...]
    licence: str
    source: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
