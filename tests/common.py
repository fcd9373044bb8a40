"""What several test files share: tiny recipes, synthetic data, and processes of their own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.batch import Batch, collate
from metatransformer.core.modality import Modality
from metatransformer.core.samples import Record, Sample, View
from metatransformer.faces.cli import main
from metatransformer.infer.loader import Loader
from metatransformer.infer.sources import examples_of
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, build_pipeline
from metatransformer.recipe import Recipe, make_recipe
from metatransformer.trunk import Pretrained, load_encoder

ROOT = Path(__file__).parents[1]
FIXTURES = Path(__file__).parent / "fixtures"

# Settings that keep a modality's samples small here; one that is not listed is tested as it is.
TINY: dict[str, dict[str, Any]] = {
    "image": {"input.size": 16},
    "imu": {"input.rate_hz": 50.0},  # NPY and .ts state no rate, the other fixtures do
    "infrared": {"input.size": 16},
    "xray": {"input.size": 16},
}
# The trunk of the tests has few blocks; a modality may read deeper ones by default, and learn another task. What plain
# features add has tests of its own.
SMALL = {
    "encoder": "test",
    "head.read": [1, -1],
    "head.features": "trunk",
    "run.device": "cpu",
    "run.precision": "float32",
    "task.name": "classify",
}


def make_values(modality: Modality, count: int, *, seed: int = 0) -> tuple[list[Any], list[str]]:
    """Returns in-memory samples as a user hands them in, and their labels "a" and "b" in turn."""
    rng = np.random.default_rng(seed)
    values = [modality.made_up(rng, number % 2, key=str(number)).value for number in range(count)]
    return values, ["ab"[number % 2] for number in range(count)]


def make_records(modality: Modality, *, train: int, val: int = 0, test: int = 0, seed: int = 0) -> list[Record]:
    """Returns labelled records of all three splits, in memory."""
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    values, labels = make_values(modality, len(splits), seed=seed)
    return [
        Record(f"sample {number}", value=value, target=label, split=split)
        for number, (value, label, split) in enumerate(zip(values, labels, splits, strict=True))
    ]


def make_views(modality: Modality, count: int, *, seed: int = 0) -> list[View]:
    """Returns raw views, of the classes "a" and "b" in turn."""
    records = make_records(modality, train=count, seed=seed)
    return [View(record.key, modality.load(record)) for record in records]


def tiny_recipe(modality: Modality, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Returns a recipe on the tests' trunk, in float32 on the CPU."""
    given = {**SMALL, **modality.synthetic, **TINY.get(modality.name, {}), **(overrides or {})}
    return make_recipe(modality.name, base={}, overrides=given)


def tiny_pipeline(
    name: str, overrides: Mapping[str, Any] | None = None, *, count: int = 7, trunk: Pretrained | None = None
) -> Pipeline:
    """Returns an untrained pipeline that has seen ``count`` samples; ``trunk`` None loads the recipe's."""
    modality = get_modality(name)
    recipe = tiny_recipe(modality, overrides)
    examples = examples_of(make_records(modality, train=count), recipe)
    return build_pipeline(recipe, trunk=trunk or load_encoder(recipe.encoder), examples=examples)


def batch_of(pipeline: Pipeline, views: Sequence[View]) -> Batch:
    """Returns raw views of the one input as a batch for the model."""
    (name,) = pipeline.route
    samples = [Sample(view.key, {name: pipeline.transform(view)}) for view in views]
    return collate(samples, fields={name: reader.modality.fields for name, reader in pipeline.route.items()})


def loader_of(pipeline: Pipeline, records: Sequence[Record], *, cache_mb: int = 8) -> Loader:
    """Returns a loader of records with their targets."""
    return Loader(pipeline.route, examples_of(records, pipeline.recipe), cache_mb=cache_mb, tasks=pipeline.tasks)


def settings_of(name: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns the argument ``recipe`` of an estimator on the tests' trunk."""
    given = {name: SMALL[name] for name in ("head.read", "head.features")}
    return {**given, **get_modality(name).synthetic, **TINY.get(name, {}), **(more or {})}


def words_of(settings: Mapping[str, Any]) -> list[str]:
    """Returns settings as the words ``key=value`` of a command line."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def run(words: Sequence[object], capsys: Any) -> tuple[int, dict[str, Any], str]:
    """Runs a command here and returns exit status, the JSON object of its last line, and what people read."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    lines = out.splitlines()
    return status, json.loads(lines[-1]) if lines else {}, err


def run_alone(
    words: Sequence[object], *, env: Mapping[str, str] | None = None, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """Runs Python in a process of its own, as the tests run: one thread, this source tree, no network."""
    path = os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)])
    settings = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=settings, timeout=timeout_s, check=False)


# Of command lines on pictures.
CLI_SETTINGS = words_of(
    {
        "input.size": 16,
        "head.read": [-1],
        "head.features": "trunk",
        "run.device": "cpu",
        "run.precision": "float32",
    }
)
CLI_IMAGE = ["--modality", "image", "--encoder", "test"]

Run = Callable[[Sequence[object]], tuple[int, dict[str, Any], str]]


def assert_one_message(err: str, pattern: str) -> None:
    """Checks that the last line, and no other, is an error that matches; notes may stand before it."""
    lines = err.splitlines()
    assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in err, err
    assert re.search(pattern, next(line for line in lines if line.startswith("error: "))), err
