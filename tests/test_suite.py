"""Several data sets, one model: fitted by one command, answering as models of their own, and added to later."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from common import SMALL, Run, make_records, make_values, tiny_recipe
from PIL import Image

import metatransformer as mt
from metatransformer.fit.jointly import Alternating
from metatransformer.infer.loader import Loader, Place
from metatransformer.infer.sources import examples_of, named
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.pipeline import build_pipeline
from metatransformer.recipe import Recipe, to_dict
from metatransformer.saved import load_pipeline, read_description
from metatransformer.trunk import load_encoder

COUNT = 24
SHARED: dict[str, Any] = {
    "encoder": "test",
    "head": {"read": [1, -1], "features": "trunk"},
    "run": {"device": "cpu", "precision": "float32"},
}
SETS: dict[str, dict[str, Any]] = {
    "shapes": {"data": "shapes", "modality": "image", "input": {"size": 16}},
    "visits": {"data": "rows.csv", "modality": "tabular", "target": "cost", "task": "regress", "tune": "head"},
    "homes": {
        "data": "homes.csv",
        "inputs": "photo=image,rest=tabular(age,dose)",
        "target": "outcome",
        "inputs.photo.size": 16,
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures by class, a table of numbers, and a table with pictures."""
    values, labels = make_values(get_modality("image"), COUNT)
    for number, (value, label) in enumerate(zip(values, labels, strict=True)):
        (tmp_path / "shapes" / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(value)).save(tmp_path / "shapes" / label / f"{number}.png")
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"age": np.arange(COUNT) + 20, "dose": rng.random(COUNT).round(3)})
    rows.assign(cost=rows["age"] * 1.5 + rows["dose"]).to_csv(tmp_path / "rows.csv", index=False)
    photos = [f"shapes/{label}/{number}.png" for number, label in enumerate(labels)]
    rows.assign(photo=photos, outcome=labels).to_csv(tmp_path / "homes.csv", index=False)
    return tmp_path


def written(folder: Path, sets: dict[str, dict[str, Any]], *, name: str = "suite.yaml", **more: Any) -> Path:
    (folder / name).write_text(yaml.safe_dump({**SHARED, **more, "sets": sets}, sort_keys=False), encoding="utf-8")
    return folder / name


def alone(folder: Path, name: str, run: Run) -> Path:
    """Fits one data set by a command of its own."""
    own, out = dict(SETS[name]), folder / f"alone-{name}"
    flags = [word for flag in ("modality", "inputs", "target", "task", "tune") if flag in own
             for word in (f"--{flag}", own.pop(flag))]  # fmt: skip
    data = folder / own.pop("data")
    (folder / "own.yaml").write_text(yaml.safe_dump({**SHARED, **own}), encoding="utf-8")
    status, _, err = run(["fit", data, *flags, "--recipe", folder / "own.yaml", "--out", out])
    assert status == 0, err
    return out


def answers(model: Path, data: Path, out: Path, run: Run, *, task: str = "") -> pd.DataFrame:
    status, _, err = run(["predict", model, data, "--out", out, *(["--task", task] if task else [])])
    assert status == 0, err
    return pd.read_csv(out)


def test_a_suite_is_one_model_that_answers_as_models_of_their_own(folder: Path, call: Run):
    out = folder / "run"
    status, told, err = call(["fit", written(folder, SETS), "--out", out])
    assert status == 0, err
    assert set(told["tasks"]) == set(SETS) and (out / "report.html").is_file()
    pipeline = load_pipeline(out)
    assert set(pipeline.tasks) == set(SETS) and set(pipeline.route) == {"shapes", "visits", "homes-photo", "homes-rest"}
    assert not (out / "model" / "encoder.safetensors").exists() and not list((out / "tasks").glob("*/model"))
    for name, own in SETS.items():
        single = alone(folder, name, call)
        data = folder / own["data"]
        ours = answers(out, data, folder / "ours.csv", call, task=name)
        pd.testing.assert_frame_equal(ours, answers(single, data, folder / "theirs.csv", call), check_exact=True)
        metrics = json.loads((single / "metrics.json").read_text(encoding="utf-8"))["metrics"]
        assert told["tasks"][name]["metrics"] == metrics
        scored = call(["evaluate", out, "--task", name])[1]
        assert scored == call(["evaluate", single])[1]
    loaded = mt.load(out, task="shapes")
    assert isinstance(loaded, mt.Classifier) and loaded.metrics_ == told["tasks"]["shapes"]["metrics"]
    assert (
        loaded.predict(folder / "shapes").tolist()
        == answers(out, folder / "shapes", folder / "x.csv", call, task="shapes")["prediction"].tolist()
    )
    with pytest.raises(mt.UsageError, match="task: must name one task of a model of several data sets"):
        mt.load(out)
    status, scored, _ = call(["evaluate", out])
    assert status == 0 and set(scored["metrics"]) == set(SETS)


def test_a_data_set_that_is_added_leaves_the_others_as_they_were(folder: Path, call: Run):
    out, first = folder / "run", {name: SETS[name] for name in ("shapes", "homes")}
    assert call(["fit", written(folder, first), "--out", out])[0] == 0
    before = {path: path.read_bytes() for path in (out / "model").rglob("*.safetensors")}
    answer = answers(out, folder / "shapes", folder / "before.csv", call, task="shapes")
    status, told, err = call(["fit", written(folder, SETS), "--out", out])
    assert status == 0 and err.count("fitted before; it stays as it is") == 2, err
    assert set(told["tasks"]) == set(SETS) == set(load_pipeline(out).tasks)
    assert all(path.read_bytes() == known for path, known in before.items())
    again = answers(out, folder / "shapes", folder / "after.csv", call, task="shapes")
    pd.testing.assert_frame_equal(again, answer, check_exact=True)


def test_a_model_takes_a_task_by_a_command_of_its_own(folder: Path, call: Run):
    single = alone(folder, "visits", call)
    answer = answers(single, folder / "rows.csv", folder / "before.csv", call)
    words = ["fit", folder / "shapes", "--modality", "image", "--encoder", "test", "--out", folder / "new"]
    more = ["input.size=16", "head.read=[1,-1]", "run.device=cpu", "run.precision=float32"]
    status, _, err = call([*words, "--add-to", single, "--name", "shapes", *more])
    assert status == 0, err
    assert set(load_pipeline(single).tasks) == {"regress", "shapes"}
    again = answers(single, folder / "rows.csv", folder / "after.csv", call, task="regress")
    pd.testing.assert_frame_equal(again, answer, check_exact=True)
    assert len(answers(single, folder / "shapes", folder / "new.csv", call, task="shapes")) == COUNT
    status, _, err = call([*words, "--add-to", single, "--name", "shapes", "--overwrite", *more])
    assert status == 2 and "must have other names than what is in the model; found shapes" in err


def test_an_interrupted_suite_goes_on(folder: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    from metatransformer.faces.cli import suite

    def stop(one: Any, **given: Any) -> None:
        if one.name == "homes":
            raise KeyboardInterrupt
        return fit(one, **given)

    fit, out = suite._fit, folder / "run"
    monkeypatch.setattr(suite, "_fit", stop)
    assert call(["fit", written(folder, SETS), "--out", out])[0] == 130
    monkeypatch.setattr(suite, "_fit", fit)
    status, told, err = call(["fit", folder / "suite.yaml", "--out", out])
    assert status == 0 and err.count("fitted before; it stays as it is") == 2
    assert set(told["tasks"]) == set(SETS)


def test_an_overwrite_that_was_cut_off_leaves_no_data_set_out(folder: Path, call: Run):
    out, sets = folder / "run", {name: SETS[name] for name in ("shapes", "visits")}
    assert call(["fit", written(folder, sets), "--out", out])[0] == 0
    shutil.rmtree(out / "model")  # where --overwrite begins
    status, _, err = call(["fit", folder / "suite.yaml", "--out", out])
    assert status == 0, err
    assert set(load_pipeline(out).tasks) == {"shapes", "visits"} and "it stays as it is" not in err


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shapes": {"data": 3}}, "data set 'shapes': must say its data: a path"),
        ({"shapes": {"data": "shapes"}}, "must get --modality, --inputs, or a recipe that says one"),
        ({"shapes": {"data": "none", "modality": "image"}}, "data set 'shapes': "),
        ({"shapes": {"data": "shapes", "modality": "image", "tune": "lora"}}, "tune: must be that of 'visits'"),
        ({"shapes": {"data": "shapes", "modality": "image", "encoder": "random:1"}}, "encoder: must be that of"),
        ({"shapes": {"data": "shapes", "modality": "image", "optim.rate": 1}}, "optim.rate"),
    ],
)
def test_a_bad_suite_is_refused_before_anything_is_fitted(folder: Path, call: Run, changes: dict[str, Any], words: str):
    sets = {"visits": SETS["visits"], **changes}
    status, _, err = call(["fit", written(folder, sets), "--out", folder / "run"])
    assert status == 2 and words in err, err
    assert not (folder / "run").exists()


def test_several_processes_are_refused(folder: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status, _, err = call(["fit", folder / "suite.yaml", "--out", folder / "run"])
    assert status == 2 and "must run in one process; found 2 processes" in err
    assert not (folder / "run").exists()


def test_a_model_of_several_data_sets_asks_which_task(folder: Path, call: Run):
    out = folder / "run"
    sets = {name: SETS[name] for name in ("shapes", "visits")}
    assert call(["fit", written(folder, sets), "--out", out])[0] == 0
    status, _, err = call(["predict", out, folder / "rows.csv", "--out", folder / "x.csv"])
    assert status == 2 and "task: must name one task of a model of several data sets: shapes, visits" in err
    status, _, err = call(["predict", out, folder / "rows.csv", "--task", "visit", "--out", folder / "x.csv"])
    assert status == 2 and "Did you mean" in err and "visits" in err
    status, told, _ = call(
        ["embed", folder / "shapes", "--model", out, "--task", "shapes", "--out", folder / "v.parquet"]
    )
    assert status == 0 and told["rows"] == COUNT
    tree = read_description(out / "model")["recipe"]
    assert to_dict(Recipe.of(tree)) == tree and "head" not in tree and SMALL["encoder"] == tree["encoder"]


def test_check_reads_every_data_set_of_a_suite(folder: Path, call: Run):
    path = written(folder, SETS)
    status, told, _ = call(["check", path])
    assert status == 0 and told["bad"] == 0 and told["samples"] == 3 * COUNT
    (folder / "shapes" / "a" / "0.png").write_bytes(b"no picture")
    status, told, err = call(["check", path])
    assert status == 2 and told["bad"] >= 1 and told["sets"]["visits"]["bad"] == 0 and "a/0.png" in err


# --- what several data sets learn in common


def shared_sets(folder: Path) -> dict[str, dict[str, Any]]:
    """Pictures by class, and a manifest of the same pictures with a number each."""
    paths = sorted((folder / "shapes").rglob("*.png"))
    numbers = [float(np.asarray(Image.open(path)).mean()) for path in paths]
    table = pd.DataFrame({"path": [path.relative_to(folder) for path in paths], "label": numbers})
    table.iloc[:15].to_csv(folder / "means.csv", index=False)
    return {"shapes": SETS["shapes"], "means": {**SETS["shapes"], "data": "means.csv", "task": "regress"}}


def test_data_sets_tune_adapters_in_common(folder: Path, call: Run):
    out = folder / "run"
    words = ["--tune", "lora:2", "--epochs", "3", "data.batch_size=4"]
    status, told, err = call(["fit", written(folder, shared_sets(folder)), "--out", out, *words])
    assert status == 0, err
    assert set(told["tasks"]) == {"shapes", "means"} and "each in units of its constant answer's" in err
    assert (out / "model" / "adapters" / "adapter_model.safetensors").is_file() and (out / "report.html").is_file()
    assert load_pipeline(out).recipe.tune == "lora:2"
    for name, data in (("shapes", "shapes"), ("means", "means.csv")):
        scored = call(["evaluate", out, "--task", name])[1]["metrics"]
        assert scored == pytest.approx(told["tasks"][name]["metrics"]["test"], rel=1e-4, abs=1e-5)
        assert len(answers(out, folder / data, folder / f"out-{name}.csv", call, task=name)) in (15, COUNT)
    status, _, err = call(["fit", folder / "suite.yaml", "--out", out, *words])
    assert status == 2 and "must not hold a finished run" in err
    status, _, err = call(["fit", written(folder, SETS), "--out", folder / "other", "--tune", "lora"])
    assert status == 2 and "tokens that come with the trunk" in err


def test_batches_of_several_data_sets_are_mixed_by_seed_and_epoch():
    sets = {}
    for name, count in (("large", 64), ("small", 4)):
        short = tiny_recipe(get_modality("image"))
        records = make_records(get_modality("image"), train=count)
        examples, recipe = named(examples_of(records, short), short, name)
        pipeline = build_pipeline(recipe, trunk=load_encoder("test"), examples=examples)
        sets[name] = Loader(pipeline.route, examples, cache_mb=8, tasks=pipeline.tasks)
        sets[name].prepare(Console(quiet=True), title="")
    both = Alternating(sets)
    assert both.counts(batch_size=4, place=Place()) == {"large": 14, "small": 3}  # 17 batches by 8 : 2
    given = {"batch_size": 4, "seed": 1, "epoch": 2, "augment": True, "place": Place()}
    whole = [batch for _, batch in both.epoch(skip=0, **given)]
    assert [next(iter(batch.parts)) for batch in whole] == both.order(batch_size=4, seed=1, epoch=2, place=Place())
    rest = [batch for _, batch in both.epoch(skip=9, **given)]
    assert [batch.keys for batch in rest] == [batch.keys for batch in whole[9:]]
    known = [key for batch in whole if "large" in batch.parts for key in batch.keys]
    assert len(set(known)) == len(known) == 56  # none twice in an epoch that has fewer than all
