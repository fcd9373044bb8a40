"""A table whose rows bring several inputs: pictures, texts and columns, some of them absent."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from common import SMALL, Run, make_values
from PIL import Image

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.readout import Facts
from metatransformer.fit.fit import fit
from metatransformer.infer.joined import read_joined
from metatransformer.infer.loader import Loader, Place
from metatransformer.infer.predict import predict
from metatransformer.infer.sources import split_dataset
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.pipeline import build_pipeline
from metatransformer.readouts.pooled import Pooled
from metatransformer.recipe import Recipe, make_recipe, parse_inputs, to_dict
from metatransformer.saved import load_pipeline
from metatransformer.trunk import load_encoder

QUIET = Console(quiet=True)
COUNT = 20
INPUTS = "photo=image,notes=text,rest=tabular(age,dose)"


def recipe_of(inputs: str = INPUTS, **more: Any) -> Recipe:
    settings = {**SMALL, "task.target": "outcome", **{key.replace("__", "."): value for key, value in more.items()}}
    return make_recipe(base={"inputs": parse_inputs(inputs)}, overrides=settings)


@pytest.fixture
def table(tmp_path: Path) -> pd.DataFrame:
    """Twenty rows, with the pictures in a folder beside the table."""
    values, labels = make_values(get_modality("image"), COUNT)
    (tmp_path / "photos").mkdir()
    for number, value in enumerate(values):
        Image.fromarray(np.asarray(value)).save(tmp_path / "photos" / f"{number}.png")
    return pd.DataFrame(
        {
            "photo": [f"photos/{number}.png" for number in range(COUNT)],
            "notes": [f"a note with {number} words, NA" for number in range(COUNT)],
            "age": np.arange(COUNT) + 20,
            "dose": [None if number % 5 == 0 else number / 2 for number in range(COUNT)],
            "outcome": labels,
            "who": [f"person {number // 2}" for number in range(COUNT)],
        }
    )


def written(table: pd.DataFrame, folder: Path, *, name: str = "data.csv") -> Path:
    table.to_csv(folder / name, index=False)
    return folder / name


def test_each_input_reads_its_own_columns(table: pd.DataFrame, tmp_path: Path):
    joint = read_joined(written(table, tmp_path), recipe_of(), labelled=True)
    examples = joint.examples
    assert list(examples.keys) == [str(number) for number in range(COUNT)]
    records = {name: column[3] for name, column in examples.inputs.items()}
    assert records["photo"].path == tmp_path / "photos" / "3.png"
    assert records["notes"].value == {"notes": "a note with 3 words, NA"}
    assert records["rest"].value == {"age": 23, "dose": 1.5}
    assert examples.targets["classify"] == table["outcome"].tolist()
    assert joint.notes == ("rest: 4 missing values in 20 rows of the table (empty, '?', NA and the like): dose 4",
                           "columns not used: who")  # fmt: skip
    again = make_recipe(base=to_dict(joint.recipe), overrides={})
    assert again == joint.recipe and again.inputs["rest"].columns == ("age", "dose")


def test_an_input_of_rows_takes_what_is_left(table: pd.DataFrame, tmp_path: Path):
    named = table.rename(columns={"who": "group"})
    joint = read_joined(written(named, tmp_path), recipe_of("photo=image,rest=tabular"), labelled=True)
    assert joint.recipe.inputs["rest"].columns == ("notes", "age", "dose")
    assert joint.examples.groups[:3] == ["person 0", "person 0", "person 1"]


def test_a_data_frame_may_hold_the_samples_themselves(table: pd.DataFrame):
    values, _ = make_values(get_modality("image"), COUNT)
    frame = table.assign(photo=pd.Series(values, dtype=object))
    frame.loc[4, "photo"] = None
    examples = read_joined(frame, recipe_of(), labelled=True).examples
    record = examples.inputs["photo"][5]
    assert record is not None and np.array_equal(record.value, values[5]) and examples.inputs["photo"][4] is None


def test_empty_cells_are_absent_inputs(table: pd.DataFrame, tmp_path: Path):
    table.loc[[1, 4], "photo"] = None
    table.loc[4, ["age", "dose"]] = None
    joint = read_joined(written(table, tmp_path), recipe_of(), labelled=True)
    absent = {
        name: [row for row in range(COUNT) if column[row] is None] for name, column in joint.examples.inputs.items()
    }
    assert absent == {"photo": [1, 4], "notes": [], "rest": [4]}
    assert "photo: absent in 2 rows of 20" in joint.notes
    table.loc[4, "notes"] = " "
    with pytest.raises(DataError, match="line 6: must have at least one of the inputs photo, notes, rest; found none"):
        read_joined(written(table, tmp_path), recipe_of(), labelled=True)


def test_rows_that_share_a_file_read_it_for_each(table: pd.DataFrame, tmp_path: Path):
    table["photo"] = "photos/0.png"
    examples = read_joined(written(table, tmp_path), recipe_of("photo=image"), labelled=True).examples
    assert {examples.inputs["photo"][row].path for row in range(COUNT)} == {tmp_path / "photos" / "0.png"}


def test_a_split_is_made_by_whole_groups(table: pd.DataFrame, tmp_path: Path):
    joint = read_joined(written(table.rename(columns={"who": "group"}), tmp_path), recipe_of(), labelled=True)
    examples, _ = split_dataset(joint, console=QUIET)
    assert set(examples.splits) == {"train", "val", "test"} and examples.drawn == {"val", "test"}
    assert all(examples.splits[row] == examples.splits[row + 1] for row in range(0, COUNT, 2))


def test_a_prediction_needs_no_target_and_minds_no_other_column(table: pd.DataFrame, tmp_path: Path):
    recipe = read_joined(written(table, tmp_path), recipe_of(), labelled=True).recipe
    fewer = table.drop(columns="outcome").assign(more=1)
    joint = read_joined(written(fewer, tmp_path), recipe, labelled=False)
    assert not joint.examples.targets and joint.recipe == recipe and "columns not used: who, more" in joint.notes


@pytest.mark.parametrize(
    ("inputs", "error", "words"),
    [
        (
            "foto=image,notes=text",
            UsageError,
            "'inputs.foto.from': must name the columns that hold it; found no column 'foto'",
        ),
        ("photo=image(fotos)", DataError, "must have a column 'fotos'; found 6 other columns"),
        ("a=text(notes),b=text(notes)", UsageError, "'inputs.b.from': must read another column than the input 'a'"),
        ("a=image(photo),rest=tabular(photo)", UsageError, "must read another column than the input 'a'"),
        ("photo=image(age)", DataError, "line 2, column 'age': must name a file; found '20', which is not there"),
        ("photo=image,rest=tabular(age,outcome)", UsageError, "must read no column that is to be learned"),
        ("photo=image(photo,notes)", UsageError, "'inputs.photo.from': must name one column; found photo, notes"),
    ],
)
def test_what_cannot_be_is_said(table: pd.DataFrame, tmp_path: Path, inputs: str, error: type, words: str):
    with pytest.raises(error) as caught:
        read_joined(written(table, tmp_path), recipe_of(inputs), labelled=True)
    assert words in str(caught.value)


def test_numbers_where_files_belong_and_no_target_are_said(table: pd.DataFrame, tmp_path: Path):
    with pytest.raises(DataError, match="the DataFrame, row 0, column 'age': must name files.*found 20"):
        read_joined(table, recipe_of("photo=image(age)"), labelled=True)
    with pytest.raises(UsageError, match="--target: must name the column to learn"):
        read_joined(written(table, tmp_path), recipe_of(task__target=""), labelled=True)
    with pytest.raises(DataError, match="must have a column 'outcom'.*Did you mean 'outcome'"):
        read_joined(written(table, tmp_path), recipe_of(task__target="outcom"), labelled=True)


@pytest.mark.parametrize("text", ["", "photo", "a=image,a=text", "a=image(x", "a=image,,b=text"])
def test_inputs_that_cannot_be_read_are_refused(text: str):
    with pytest.raises(UsageError, match="--inputs: must look like photo=image"):
        parse_inputs(text)


def test_a_column_may_have_a_comma_and_brackets_in_quotation_marks():
    found = parse_inputs('photo=image, notes=text(Title, "Review (long), Text")')
    assert found["notes"] == {"modality": "text", "from": ["Title", "Review (long), Text"]}


def test_the_command_line_fits_scores_predicts_and_embeds(table: pd.DataFrame, tmp_path: Path, call: Run):
    data, run = written(table, tmp_path), tmp_path / "run"
    inputs = "photo=image,notes=text,rest=tabular(age,dose)"
    words = [
        "fit",
        data,
        "--inputs",
        inputs,
        "--target",
        "outcome",
        "--tune",
        "head",
        "--encoder",
        "test",
        "--out",
        run,
    ]
    small = ["inputs.photo.size=16", "inputs.notes.vocabulary=train", "head.read=[1,-1]", "run.device=cpu"]
    checked = ["check", data, "--inputs", inputs, "--target", "outcome"]
    status, result, err = call(checked)
    assert status == 0 and result == {"samples": COUNT, "bad": 0, "problems": []}, err
    status, result, err = call([*words, *small])
    assert status == 0, err
    assert set(result["inputs"]) == {"photo", "notes", "rest"} and "what each input brings" in err
    assert set(result["inputs"]["photo"]) == {"alone", "without", "absent"}
    told = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    assert told["inputs"]["classify"] == result["inputs"]
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "What each input brings" in page and "absent at prediction" in page

    status, scored, err = call(["evaluate", run])
    assert status == 0, err
    kept = scored["metrics"]["accuracy"]
    status, _, err = call(["evaluate", run, "--target", "age"])
    assert status == 2 and "--target: must be left out for a model of several inputs" in err
    assert kept == pytest.approx(result["metrics"]["test"]["accuracy"])

    fewer = table.drop(columns="outcome")
    fewer.loc[0, "photo"] = None
    fewer.loc[1, ["age", "dose"]] = None
    status, result, err = call(["predict", run, written(fewer, tmp_path, name="new.csv"), "--out", tmp_path / "p.csv"])
    answers = pd.read_csv(tmp_path / "p.csv")
    assert status == 0 and result["rows"] == COUNT and answers["p(a)"].between(0, 1).all(), err
    status, result, err = call(["embed", data, "--model", run, "--out", tmp_path / "e.parquet"])
    assert status == 0 and result["rows"] == COUNT, err


def test_an_input_that_training_never_saw_missing_says_nothing(table: pd.DataFrame, tmp_path: Path):
    overrides = {"inputs.photo.size": 16, "tune": "head"}
    recipe = recipe_of("photo=image,rest=tabular(age,dose)", **{k.replace(".", "__"): v for k, v in overrides.items()})
    joint = read_joined(written(table, tmp_path), recipe, labelled=True)
    examples, recipe = split_dataset(joint, console=QUIET)
    fitted = fit(examples, recipe, console=QUIET)
    absent = table.assign(photo=None)
    made = read_joined(written(absent, tmp_path, name="absent.csv"), joint.recipe, labelled=False).examples
    answers = predict(fitted.pipeline, made, console=QUIET)
    assert answers["p(a)"].notna().all() and len(answers) == COUNT


def test_samples_without_an_input_are_answered_by_what_learned_from_the_others(tmp_path: Path):
    rng = np.random.default_rng(0)
    size, other = rng.normal(size=120), rng.normal(size=120)
    near = size + 0.3 * other  # says of the outcome what the first input says, less well
    data = written(pd.DataFrame({"size": size, "near": near, "outcome": 10 * size}), tmp_path)
    recipe = recipe_of("one=tabular(size),two=tabular(near)", tune="head", task__name="regress")
    fitted = fit(*split_dataset(read_joined(data, recipe, labelled=True), console=QUIET), console=QUIET)
    assert "one" in fitted.pipeline.head.lacking
    told = fitted.outcome.inputs["one"]
    assert told["absent"] == pytest.approx(told["without"]) and told["absent"] < 0.6 * np.std(10 * size)

    fewer = pd.DataFrame({"size": np.where(np.arange(120) < 60, np.nan, size), "near": near})
    joint = read_joined(written(fewer, tmp_path, name="fewer.csv"), fitted.pipeline.recipe, labelled=False)
    answers = predict(fitted.pipeline, joint.examples, console=QUIET)
    both, alone = np.abs(answers["prediction"] - 10 * size)[60:], np.abs(answers["prediction"] - 10 * size)[:60]
    assert both.mean() < alone.mean() < 0.6 * np.std(10 * size)
    fitted.pipeline.save(tmp_path / "model", metrics={})
    again = predict(load_pipeline(tmp_path / "model"), joint.examples, console=QUIET)
    pd.testing.assert_frame_equal(again, answers)


def test_what_an_absent_input_hands_over_beside_the_trunk_is_absent_too():
    facts = Facts({"series": 2, "photo": 0}, blocks=(1, 2), width=3, pool="summary", cells=1, direct={"series": 2})
    readout = Pooled(facts)
    assert readout.owners is not None
    assert readout.owners.tolist() == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 3 + [-1, -1] + [0, 0]
    features = torch.ones(2, readout.features)
    features[1, 12] = 0  # the bit of the series
    gone = readout.gaps(features).isnan()
    assert not gone[0].any() and gone[1].nonzero().flatten().tolist() == [0, 1, 2, 6, 7, 8, 14, 15]


def test_training_samples_choose_where_inputs_meet(table: pd.DataFrame, tmp_path: Path):
    settings = {"inputs__photo__size": 16, "tune": "head", "fusion": "choose"}
    words = "photo=image,rest=tabular(age,dose)"
    joint = read_joined(written(table, tmp_path), recipe_of(words, **settings), labelled=True)
    fitted = fit(*split_dataset(joint, console=QUIET), out=tmp_path / "run", console=QUIET)
    told = json.loads((tmp_path / "run" / "metrics.json").read_text())["fusion"]["classify"]
    assert set(told) == {"tokens", "features"} and fitted.outcome.fusion == told
    kept = load_pipeline(tmp_path / "run").recipe.fusion
    assert kept == fitted.pipeline.recipe.fusion != "choose" and told[kept] >= max(told.values()) - 0.2
    alike = fit(*split_dataset(joint, console=QUIET), console=QUIET).pipeline.recipe.fusion
    assert alike == kept
    with pytest.raises(UsageError, match="must be tokens or features but in tune mode 'head'"):
        ends = read_joined(tmp_path / "data.csv", recipe_of(words, **settings | {"tune": "ends"}), labelled=True)
        fit(*split_dataset(ends, console=QUIET), console=QUIET)


def test_training_by_epochs_drops_inputs_but_never_all(table: pd.DataFrame, tmp_path: Path):
    words, settings = "photo=image,rest=tabular(age,dose)", {"inputs__photo__size": 16, "tune": "ends"}
    joint = read_joined(written(table, tmp_path), recipe_of(words, **settings), labelled=True)
    examples, recipe = split_dataset(joint, console=QUIET)
    pipeline = build_pipeline(recipe, trunk=load_encoder("test"), examples=examples.split("train"))
    loader = Loader(pipeline.route, examples, cache_mb=8, tasks=pipeline.tasks)
    given = {"batch_size": 4, "seed": 0, "augment": False, "place": Place(), "skip": 0}
    lost = {"photo": 0, "rest": 0}
    for epoch in range(40):
        for _, batch in loader.epoch(epoch=epoch, drop=0.3, **given):
            there = {name: 0 if (part := batch.parts.get(name)) is None else
                     len(batch) if part.rows is None else len(part.rows) for name in lost}  # fmt: skip
            assert sum(there.values()) >= len(batch)
            lost = {name: lost[name] + len(batch) - count for name, count in there.items()}
    rates = [count / (40 * COUNT) for count in lost.values()]
    np.testing.assert_allclose(rates, 0.3 - 0.3**2 / 2, atol=0.05)  # where both would go, one stays
    again = [[part for _, part in loader.epoch(epoch=1, drop=0.3, **given)] for _ in range(2)]
    assert [b.keys for b in again[0]] == [b.keys for b in again[1]]


@pytest.mark.parametrize("fusion", ["tokens", "features"])
def test_both_ways_to_meet_are_saved_and_loaded(table: pd.DataFrame, tmp_path: Path, fusion: str):
    settings = {"inputs__photo__size": 16, "tune": "head", "fusion": fusion}
    joint = read_joined(
        written(table, tmp_path), recipe_of("photo=image,rest=tabular(age,dose)", **settings), labelled=True
    )
    examples, recipe = split_dataset(joint, console=QUIET)
    fitted = fit(examples, recipe, out=tmp_path / "run", console=QUIET)
    loaded = load_pipeline(tmp_path / "run")
    assert bool(loaded.model.apart) == (fusion == "features") and loaded.recipe.fusion == fusion
    ours, again = (predict(one, examples, console=QUIET)["p(a)"] for one in (fitted.pipeline, loaded))
    np.testing.assert_allclose(ours, again, atol=1e-5)
