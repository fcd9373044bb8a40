"""Outputs of a model as JSON."""

import base64
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from metatransformer.infer.predict import arrange, prediction_table
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.reading import Read
from metatransformer.serve.uploads import Uploads


def predictions(hosted: Hosted, read: Read, outputs: Mapping[str, Tensor], uploads: Uploads) -> list[dict[str, Any]]:
    """Returns a prediction of every task for every sample, as ``predict`` writes them: ``key``, ``task``,
    ``prediction``, ``probabilities`` by class where there are any, and what else the task tells.
    """
    found = []
    for task, own in outputs.items():
        part = hosted.pipeline.of_task(task)
        table = arrange(part, read.examples, prediction_table(part, read.examples, own, split=""))
        names = [str(name) for name in table.columns]
        for row in table.itertuples(index=False, name=None):
            found.append(_prediction(task, dict(zip(names, map(plain, row), strict=True)), uploads))
    return found


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
