"""Each task that ``metatransformer modalities`` lists for a modality: fitted on the tests' trunk, scored, predicted."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pytest
from common import SMALL, TINY, make_values, run

from metatransformer.core.boxes import BoxLabels
from metatransformer.core.labels import PlaceLabels
from metatransformer.core.samples import Record
from metatransformer.data.index import Index
from metatransformer.data.records import Records
from metatransformer.faces.describe import tasks_of
from metatransformer.fit.fit import fit
from metatransformer.infer.predict import predict
from metatransformer.infer.sources import prepared, read_index
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_names
from metatransformer.recipe import Recipe, make_recipe
from metatransformer.tasks import get_task

QUIET = Console(quiet=True)
SPLITS = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
# What a task needs on so few and so small samples.
SETTINGS: dict[str, dict[str, Any]] = {
    "multilabel": {"task.target": "one,two"},
    "segment": {"task.places": 600, "head.centres": 0, "data.batch_size": 4},
    "detect": {"head.centres": 0, "data.batch_size": 4, "optim.epochs": 1, "task.width": 8},
    "forecast": {"input.lookback": 24, "input.horizon": 6},
}
CELLS = [(name, task) for name in modality_names() for task in tasks_of(get_modality(name))]


def halves(name: str, value: Any) -> PlaceLabels:
    """Returns labels that call the first half of a sample's places 0, the others 1."""
    raw = get_modality(name).load(Record("", value=value))
    shape = raw["pixels"].shape[:2] if "pixels" in raw else (len(raw["points"]),)
    size = int(np.prod(shape))
    return PlaceLabels(name, partial(np.array, (np.arange(size) * 2 // size).reshape(shape)))


def corner(name: str, value: Any, row: int) -> BoxLabels:
    """Returns the upper left quarter of a sample as its one object."""
    h, w = get_modality(name).load(Record("", value=value))["pixels"].shape[:2]
    box = np.array([[0, 0, w / 2, h / 2]])
    return BoxLabels(name, box, np.array([row % 2]), np.array([h * w / 4]), np.zeros(1, dtype=bool), row, (h, w))


TARGETS: dict[str, Callable[[int, str, Any], Any]] = {
    "classify": lambda row, name, value: "ab"[row % 2],
    "regress": lambda row, name, value: row % 2 + row / 100,
    "multilabel": lambda row, name, value: (row % 2, row // 2 % 2),
    "retrieve": lambda row, name, value: f"{'ab'[row % 2]} of {SPLITS[row]}",
    "segment": lambda row, name, value: halves(name, value),
    "detect": lambda row, name, value: corner(name, value, row),
}


def index_of(name: str, task: str, recipe: Recipe) -> Index:
    if task in TARGETS:
        values, _ = make_values(get_modality(name), len(SPLITS))
        rows = enumerate(zip(values, SPLITS, strict=True))
        records = [Record(f"{r}", value=v, target=TARGETS[task](r, name, v), split=split) for r, (v, split) in rows]
        return Index(Records.of(records))
    assert task == "forecast", f"no samples for the task '{task}': make some here"
    hours = pd.date_range("2024-01-01", periods=400, freq="h")
    table = pd.DataFrame({"time": hours, "load": np.sin(np.arange(400) / 24 * 2 * np.pi)})
    return read_index(get_modality(name), table, options=recipe.input, labelled=True)


@pytest.mark.parametrize(("name", "task"), CELLS)
def test_every_listed_task_of_every_modality(name: str, task: str):
    own = {**get_modality(name).synthetic, **TINY.get(name, {})} if task in TARGETS else {}
    small = {key: value for key, value in SMALL.items() if key != "head.features" or not get_task(task).kit}
    settings = {**small, **own, "task.name": task, **SETTINGS.get(task, {})}
    recipe = make_recipe(name, base={}, overrides=settings)
    examples, recipe = prepared(index_of(name, task, recipe), recipe, console=QUIET)
    fitted = fit(examples, recipe, console=QUIET)
    scores = fitted.metrics["test"]
    assert np.isfinite(scores[fitted.pipeline.task.primary])
    table = predict(fitted.pipeline, examples.split("test"), console=QUIET)
    assert len(table) == len(examples.split("test")) and "key" in table


def test_the_command_lists_them(capsys: pytest.CaptureFixture[str]):
    status, told, err = run(["modalities"], capsys)
    assert status == 0 and [(name, task) for name, tasks in told["tasks"].items() for task in tasks] == CELLS
    assert "other tasks" in err
    assert {task for name, task in CELLS if name == "audio"} == {"classify", "multilabel", "regress", "retrieve"}
    assert {"segment"} <= {task for name, task in CELLS if name == "pointcloud"}
    assert [name for name, task in CELLS if task == "detect"] == ["image", "infrared", "xray"]
    assert [name for name, task in CELLS if task == "forecast"] == ["timeseries"]
