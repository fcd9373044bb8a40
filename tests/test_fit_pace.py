"""A fit that is given a time: what it reaches in it is learned from, scored and saved as always."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import CLI_IMAGE, CLI_SETTINGS, Run, make_records, make_values, settings_of, words_of

import metatransformer as mt
from metatransformer.core.samples import SPLITS
from metatransformer.data.examples import Examples
from metatransformer.faces.arguments import labelled
from metatransformer.fit import pace
from metatransformer.infer.loader import Loader
from metatransformer.machine import clock as clocks
from metatransformer.machine.clock import Clock, duration
from metatransformer.modalities import get_modality


class Time:
    """A clock that goes on by a step whenever it is read."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 1000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    """Makes every look at the clock take a second."""
    ticks = Time(1.0)
    monkeypatch.setattr(time, "monotonic", ticks)
    yield ticks


def test_a_clock_knows_shares_of_its_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(clocks.time, "monotonic", lambda: 130.0)
    clock = Clock(60.0, 100.0)
    assert clock.limited and clock.left() == 30 and clock.left(0.5) == 0 and clock.gone(0.5) and not clock.gone(0.51)
    assert list(clock.while_left([1, 2, 3], share=0.5)) == [1] and list(clock.while_left([1, 2], share=1)) == [1, 2]
    assert not Clock().limited and not Clock().gone()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 seconds"), (89, "89 seconds"), (90, "2 minutes"), (5400, "1.5 hours")]
)
def test_times_are_told_as_people_say_them(seconds: float, words: str):
    assert duration(seconds) == words


def test_the_first_samples_are_one_of_each_class():
    records = make_records(get_modality("image"), train=40)
    targets = ["rare" if number == 33 else "often" for number in range(40)]
    examples = Examples(
        keys=[record.key for record in records], inputs={}, targets={"classify": targets}, splits=["train"] * 40,
        groups=[None] * 40,
    )  # fmt: skip
    mixed = pace.in_random_order(examples, seed=0, stratified=True)
    assert set(mixed.targets["classify"][:2]) == {"rare", "often"} and sorted(mixed.keys) == sorted(examples.keys)
    assert list(mixed.keys) != list(examples.keys)
    assert pace.in_random_order(examples, seed=0, stratified=True).keys == mixed.keys


@pytest.mark.parametrize("tune", ["head", "ends", "lora"])
def test_what_was_reached_in_time_is_a_complete_model(
    ticking: Time, tmp_path: Path, call: Run, tune: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pace, "FIRST", 4)
    values, labels = make_values(get_modality("image"), 120)
    root = tmp_path / "data"
    for number, (value, label) in enumerate(zip(values, labels, strict=True)):
        (root / label).mkdir(parents=True, exist_ok=True)
        np.save(root / label / f"{number}.npy", value)
    from PIL import Image

    for path in root.rglob("*.npy"):
        Image.fromarray(np.load(path)).save(path.with_suffix(".png"))
        path.unlink()
    words = ["fit", root, *CLI_IMAGE, "--tune", tune, "--minutes", 0.4, "--out", tmp_path / "run", *CLI_SETTINGS]
    status, result, err = call(words)
    assert status == 0, err
    assert "the time (run.minutes) is enough for train" in " ".join(err.split()), err
    assert {"val", "test"} <= set(result["metrics"]) and (tmp_path / "run" / "model" / "model.json").is_file()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["status"] == "done"
    answered = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert 8 <= len(answered) < 36
    status, result, err = call(["predict", tmp_path / "run", root / "a", "--out", tmp_path / "p.csv"])
    assert status == 0 and result["rows"] == 60, err


def test_with_time_enough_nothing_is_left_out(tmp_path: Path, capsys):
    values, labels = make_values(get_modality("image"), 24)
    settings = {"encoder": "test", "device": "cpu", "precision": "float32", "recipe": settings_of("image")}
    free = mt.Classifier("image", tune="head", **settings).fit(values, labels)
    timed = mt.Classifier("image", tune="head", minutes=60, verbose=True, **settings).fit(values, labels)
    assert timed.pipeline_.recipe.run.minutes == 60 and "is enough for" not in capsys.readouterr().err
    assert len(timed.split_) == 24 and set(timed.split_["split"]) <= set(SPLITS)
    assert timed.predict(values).tolist() == free.predict(values).tolist()
    made = timed.get_params()
    assert made["minutes"] == 60
    timed.save(tmp_path / "model")
    assert (tmp_path / "model" / "split.csv").is_file()
    assert mt.load(tmp_path / "model").split_.equals(timed.split_.astype(str))


@pytest.mark.parametrize(("minutes", "found"), [("-1", "-1"), ("inf", "inf")])
def test_a_time_is_a_number(pictures: Path, tmp_path: Path, call: Run, minutes: str, found: str):
    words = ["fit", pictures, *CLI_IMAGE, f"--minutes={minutes}", "--out", tmp_path / "run", *CLI_SETTINGS]
    status, _, err = call(words)
    assert status == 2 and f"must be at least 0 (no limit) and finite; found {found}" in " ".join(err.split()), err


def test_time_and_memory_are_told_before_they_are_spent(
    pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pace, "PILOT", 4)
    monkeypatch.setattr(pace, "WORTH", 0.0)
    status, _, err = call(["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", tmp_path / "run", *CLI_SETTINGS])
    lines = err.splitlines()
    (told,) = [number for number, line in enumerate(lines) if "GB of memory for 24 features" in line]
    (read,) = [number for number, line in enumerate(lines) if line.startswith("reading train samples")]
    assert status == 0 and lines[told].startswith("about ") and told < read, err


def test_training_is_foretold_by_its_first_steps(table: Path, tmp_path: Path, call: Run, monkeypatch):
    from metatransformer.fit import train

    monkeypatch.setattr(train, "WORTH", 0.0)
    words = ["fit", table, "--modality", "tabular", "--encoder", "test", "--target", "label", "--out", tmp_path / "run"]
    settings = words_of({"head.read": [-1], "data.batch_size": 8, "optim.epochs": 5, "run.precision": "float32"})
    status, _, err = call([*words, *settings])
    assert status == 0 and "of training, 5 epochs of 4 steps" in " ".join(err.split()), err


def test_reading_may_stop_early():
    from metatransformer.machine.console import Console
    from metatransformer.pipeline import make_reader
    from metatransformer.trunk import load_encoder

    recipe = _recipe()
    examples = labelled(*make_values(get_modality("image"), 12), recipe=recipe).examples
    reader = make_reader(recipe, "image", stem=load_encoder("test").stem)
    loader = Loader({"image": reader}, examples, cache_mb=8, tasks={}, workers=1)
    assert loader.mean_bytes == 0
    assert loader.prepare(Console(quiet=True), title="x", stop=lambda count: count >= 4) == 4
    assert loader.prepare(Console(quiet=True), title="x") == 12 and loader.mean_bytes > 0


def _recipe():
    from metatransformer.recipe import make_recipe

    return make_recipe("image", base={}, overrides={"encoder": "test", "input.size": 16})
