"""Predictions as tables: one row for each input, in the order of the inputs."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.examples import Examples
from metatransformer.data.records import Records
from metatransformer.infer.boxes import write_results
from metatransformer.infer.dense import write_answer
from metatransformer.infer.evaluate import compute_outputs, doubt_gaps
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import only


def predict(pipeline: Pipeline, examples: Examples, *, console: Console, folder: Path | None = None) -> pd.DataFrame:
    """Returns ``key``, ``prediction`` and the task's other columns, one row a sample in the given order.

    Of a dense task the answer for every place is written into ``folder``, and a column ``file`` names it; boxes go
    into a JSON file that is called as the folder.

    Raises:
        UsageError: files of predictions (of a modality, pictures) would be written among those of the data.
    """
    illustrated = any(reader.modality.illustrate is not None for reader in pipeline.route.values())
    if folder is not None and (pipeline.task.kit == "dense" or illustrated):
        place, records = folder.resolve(), [column.records for column in examples.inputs.values()]
        paths = [path for own in records for path in own.paths if path is not None]
        if inside := [path for path in paths if path.resolve().is_relative_to(place)]:
            must, do = f"write apart from the data: its files go to {folder}/", "Choose another name or folder."
            raise UsageError(f"--out {folder}.*", must=must, found=f"{inside[0]} there", do=do)
    if len(pipeline.route) > 1:
        doubt_gaps(pipeline, examples)
    # A label in the data plays no part in a prediction, also not one that training never saw.
    loader = Loader(pipeline.route, examples, cache_mb=0, tasks={})
    files = [""] * len(examples)

    def keep(row: int, numbers: np.ndarray) -> None:
        if folder is not None and pipeline.task.kit == "dense":
            files[row] = str(write_answer(pipeline, loader, row, numbers, folder=folder))

    outputs = compute_outputs(pipeline, loader, console=console, title="predicting", keep=keep)
    table = prediction_table(pipeline, examples, outputs, split="")
    if pipeline.task.kit == "dense" and folder is not None:
        table.insert(2, "file", files)
    if pipeline.task.kit == "boxed" and folder is not None:
        path = write_results(pipeline, examples, outputs, folder.parent / f"{folder.name}.json")
        console.note(f"boxes as COCO's results: {path}")
    return table


def search_in(pipeline: Pipeline, gallery: Examples, *, console: Console) -> None:
    """Lets the one task, which compares, find its answers in these samples.

    Raises:
        UsageError: a task that does not compare.
    """
    task = pipeline.task
    if not task.compares:
        raise UsageError("--gallery", must="go with a model that retrieves", found=f"the task '{task.name}'")
    loader = Loader(pipeline.route, gallery, cache_mb=0, tasks={})
    outputs = compute_outputs(pipeline, loader, console=console, title="gallery")
    task.remember(outputs, gallery.keys, gallery.targets[pipeline.task_name])


def prediction_table(pipeline: Pipeline, examples: Examples, outputs: Tensor, *, split: str) -> pd.DataFrame:
    """Returns outputs of the one task as a table, with the truth and the split where they are known."""
    table = pd.DataFrame({"key": list(examples.keys)})
    if split:
        table["split"] = split
    name = pipeline.task_name
    task, targets = pipeline.tasks[name], examples.targets.get(name, [None])
    if all(target is not None for target in targets):
        table["target"] = task.readable(targets)
    compared = task.compares
    columns = task.answers(outputs, keys=examples.keys, targets=targets) if compared else task.decode(outputs)
    return pd.concat([table, pd.DataFrame(columns)], axis=1)  # at once: answers that compare have many columns


def side_by_side(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Returns the predictions of several tasks as one table, their columns called TASK.COLUMN; of one as they are."""
    if len(tables) == 1:
        return next(iter(tables.values()))
    named = [table.set_index("key").add_prefix(f"{name}.") for name, table in tables.items()]
    return pd.concat(named, axis=1).reset_index()


def arrange(pipeline: Pipeline, examples: Examples, table: pd.DataFrame) -> pd.DataFrame:
    """Returns the predictions as the modality's users expect them."""
    if len(pipeline.route) > 1 or not pipeline.modality.arrange:  # of several inputs they belong to no modality
        return table
    return pipeline.modality.arrange(_records(examples), table)


def illustrate(pipeline: Pipeline, examples: Examples, table: pd.DataFrame, folder: Path) -> list[Path]:
    """Draws the predictions of ``predict`` into ``folder`` and returns the pictures, none where a modality has none.

    Raises:
        DataError: the folder cannot be written to.
    """
    if len(pipeline.route) > 1 or not pipeline.modality.illustrate:
        return []
    try:
        return list(pipeline.modality.illustrate(_records(examples), table, folder))
    except OSError as error:
        do = "Make room, or choose another place."
        raise DataError(folder, must="take the pictures", found=f"'{error.strerror}'", do=do) from error


def _records(examples: Examples) -> Records:
    return only(examples.inputs, what="input").records
