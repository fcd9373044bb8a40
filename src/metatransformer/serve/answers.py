"""Outputs of a model as JSON."""

import base64
import io
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from metatransformer.core.modality import Answer
from metatransformer.core.task import DenseTask, Task
from metatransformer.infer.predict import arrange, prediction_table
from metatransformer.modalities._picture.masks import picture_of
from metatransformer.serve.engine import Outputs
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.reading import Read
from metatransformer.serve.uploads import Uploads


def predictions(hosted: Hosted, read: Read, outputs: Outputs, uploads: Uploads) -> list[dict[str, Any]]:
    """Returns a prediction of every task for every sample, as ``predict`` writes them: ``key``, ``task``,
    ``prediction``, ``probabilities`` by class where there are any, ``places`` of a dense task, and what else it tells.
    """
    found = []
    for task, own in outputs.items():
        part = hosted.pipeline.of_task(task)
        table = arrange(part, read.examples, prediction_table(part, read.examples, own.outputs, split=""))
        names = [str(name) for name in table.columns]
        cells = table.itertuples(index=False, name=None)
        rows = [_prediction(task, dict(zip(names, map(plain, row), strict=True)), uploads) for row in cells]
        for row, numbers in zip(rows, own.places, strict=False):  # none where the task is not dense
            row["places"] = _places(part.task, numbers)
        found += rows
    return found


def _places(task: Task, numbers: np.ndarray) -> dict[str, Any]:
    """Returns the class of every place: of pixels ``[h, w]`` as a PNG of numbers with a palette, in base64; of points
    as a list of numbers.
    """
    assert isinstance(task, DenseTask)
    names, colours = task.legend
    painted = [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours]
    told: dict[str, Any] = {
        "shape": list(numbers.shape),
        "classes": [str(name) for name in names],
        "colours": painted,
    }
    if numbers.ndim != 2:
        return {**told, "numbers": numbers.tolist()}
    file = io.BytesIO()
    picture_of(Answer(numbers, names, colours, task.codes)).save(file, format="PNG")
    return {**told, "png": base64.b64encode(file.getvalue()).decode()}


def _prediction(task: str, row: dict[str, Any], uploads: Uploads) -> dict[str, Any]:
    told: dict[str, Any] = {"key": uploads.shown(str(row.pop("key", ""))), "task": task}
    probabilities = {name[2:-1]: value for name, value in row.items() if name.startswith("p(") and name.endswith(")")}
    rest = {name: value for name, value in row.items() if not (name.startswith("p(") and name.endswith(")"))}
    return {**told, **rest, **({"probabilities": probabilities} if probabilities else {})}


def plain(value: Any) -> Any:
    """Returns a table's cell as JSON has it: what is missing or no number is null."""
    if isinstance(value, np.ndarray):
        return [plain(one) for one in value.tolist()]
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): plain(one) for name, one in value.items()}
    value = value.item() if isinstance(value, np.generic) else value
    if value is None or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value if isinstance(value, str | int | float) else str(value)


def encoded(vector: np.ndarray, *, form: str) -> Any:
    """Returns a vector as OpenAI's interface has it: a list, or the base64 of little-endian float32."""
    vector = np.ascontiguousarray(vector, dtype="<f4")
    return base64.b64encode(vector.tobytes()).decode() if form == "base64" else vector.tolist()
