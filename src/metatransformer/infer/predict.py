"""Predictions as tables: one row for each input, in the order of the inputs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.modality import Modality
from metatransformer.core.samples import Record
from metatransformer.data.records import Records
from metatransformer.infer.evaluate import compute_outputs
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline


def predict(pipeline: Pipeline, records: Sequence[Record], *, console: Console) -> pd.DataFrame:
    """Returns ``key``, ``prediction`` and the task's other columns, one row a record in the given order."""
    # A label in the data plays no part in a prediction, also not one that training never saw.
    loader = Loader(pipeline.reader, records, cache_mb=0, task=None)
    outputs = compute_outputs(pipeline, loader, console=console, title="predicting")
    return prediction_table(pipeline, records, outputs, split="")


def prediction_table(pipeline: Pipeline, records: Sequence[Record], outputs: Tensor, *, split: str) -> pd.DataFrame:
    """Returns outputs as a table, with the truth and the split where they are known."""
    records = Records.of(records)
    table = pd.DataFrame({"key": records.keys})
    if split:
        table["split"] = split
    if all(target is not None for target in records.targets):
        table["target"] = pipeline.task.readable(records.targets)
    for name, column in pipeline.task.decode(outputs).items():
        table[name] = column
    return table


def arrange(modality: Modality, records: Sequence[Record], table: pd.DataFrame) -> pd.DataFrame:
    """Returns the predictions as the modality's users expect them."""
    return modality.arrange(records, table) if modality.arrange else table


def illustrate(modality: Modality, records: Sequence[Record], table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draws the predictions of ``predict`` into ``folder`` and returns the pictures, none where a modality has none.

    Raises:
        DataError: the folder cannot be written to.
    """
    if not modality.illustrate:
        return []
    try:
        return list(modality.illustrate(records, table, folder))
    except OSError as error:
        do = "Make room, or choose another place."
        raise DataError(folder, must="take the pictures", found=f"'{error.strerror}'", do=do) from error
