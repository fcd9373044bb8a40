"""The scikit-learn face of models of several inputs: its manners, its kinds of data, and saved models anywhere."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from common import SMALL, Run, make_values, run_alone
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline

import metatransformer as mt
from metatransformer.data.examples import Examples
from metatransformer.modalities import get_modality

COUNT = 24
INPUTS: dict[str, Any] = {"photo": "image", "notes": "text", "rest": ("tabular", ["age", "dose"])}
SETTINGS: dict[str, Any] = {
    **{name: SMALL[name] for name in ("head.read", "head.features")},
    "inputs.photo.size": 16,
    "inputs.notes.vocabulary": "train",
}
ALIKE: dict[str, Any] = {"encoder": "test", "device": "cpu", "precision": "float32"}


def classifier(inputs: Any = INPUTS, **more: Any) -> mt.Classifier:
    return mt.Classifier(inputs, **{**ALIKE, "recipe": SETTINGS, **more})


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Rows with pictures in their cells, some of them absent."""
    values, labels = make_values(get_modality("image"), COUNT)
    photos = pd.Series(values, dtype=object)
    photos[5] = None
    frame = pd.DataFrame(
        {
            "photo": photos,
            "notes": [f"a note of kind {label}" for label in labels],
            "age": np.arange(COUNT) + 20,
            "dose": [None if number % 5 == 0 else number / 2 for number in range(COUNT)],
            "outcome": labels,
            "days": np.arange(COUNT) * 1.5,
        }
    )
    frame.loc[7, ["notes"]] = ""
    frame.loc[9, ["age", "dose"]] = None
    return frame


@pytest.fixture(scope="module")
def fitted(frame: pd.DataFrame) -> mt.Classifier:
    return classifier(target="outcome").fit(frame)


@pytest.fixture
def folder(frame: pd.DataFrame, tmp_path: Path) -> Path:
    """The same rows as tables with files beside them, one table a split."""
    (tmp_path / "photos").mkdir()
    names = []
    for number, value in enumerate(frame["photo"]):
        names.append(None if value is None else f"photos/{number}.png")
        if value is not None:
            Image.fromarray(value).save(tmp_path / "photos" / f"{number}.png")
    table = frame.assign(photo=names)
    for name, rows in (("train", slice(0, 14)), ("val", slice(14, 19)), ("test", slice(19, None))):
        table.iloc[rows].to_csv(tmp_path / f"{name}.csv", index=False)
    table.to_parquet(tmp_path / "whole.parquet")
    return tmp_path


# --- manners ----------------------------------------------------------------------------------------------------------


def test_parameters_are_stored_copied_and_set():
    made = classifier()
    assert made.get_params()["modality"] == INPUTS and clone(made).get_params() == made.get_params()
    assert made.set_params(modality="image").modality == "image"


@pytest.mark.parametrize(
    "inputs",
    [
        {"photo": "image", "notes": "text(notes)", "rest": "tabular(age, dose)"},
        {"photo": ("image", "photo"), "notes": ("text", ("notes",)), "rest": ["tabular", ["age", "dose"]]},
    ],
)
def test_one_grammar_in_several_spellings(fitted: mt.Classifier, frame: pd.DataFrame, inputs: Any):
    other = classifier(inputs, target="outcome").fit(frame)
    assert other.pipeline_.recipe == fitted.pipeline_.recipe
    np.testing.assert_array_equal(other.predict_proba(frame), fitted.predict_proba(frame))


def test_targets_inside_or_beside_give_the_same_model(fitted: mt.Classifier, frame: pd.DataFrame):
    beside = classifier().fit(frame, frame["outcome"])
    probability = fitted.predict_proba(frame)
    np.testing.assert_array_equal(beside.predict_proba(frame.drop(columns="outcome")), probability)
    assert probability.shape == (COUNT, 2) and fitted.predict(frame).tolist() == frame["outcome"].tolist()
    assert fitted.score(frame) == beside.score(frame, frame["outcome"]) == 1.0
    assert fitted.n_features_in_ == 4 and fitted.metrics_["val"]["accuracy"] > 0.5
    assert fitted.transform(frame).shape[0] == COUNT and set(fitted.split_["split"]) == {"train", "val"}


def test_rows_are_mappings_or_a_frame_or_tables(fitted: mt.Classifier, frame: pd.DataFrame, folder: Path):
    rows = frame.drop(columns=["outcome", "days"]).to_dict("records")
    probability = fitted.predict_proba(frame)
    np.testing.assert_allclose(fitted.predict_proba(rows), probability, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_proba(rows[3:4])[0], probability[3], atol=1e-5)
    np.testing.assert_allclose(fitted.predict_proba(folder / "whole.parquet"), probability, atol=1e-5)


def test_a_folder_of_tables_brings_its_splits(folder: Path):
    made = classifier(target="outcome").fit(folder)
    assert set(made.metrics_) == {"val", "test"} and made.score(folder) == made.metrics_["test"]["accuracy"]
    assert made.predict(str(folder)).shape == (COUNT,)


def test_paths_in_a_frame_start_here(folder: Path, fitted: mt.Classifier, monkeypatch: pytest.MonkeyPatch):
    table = pd.read_parquet(folder / "whole.parquet")
    monkeypatch.chdir(folder)
    assert fitted.predict(table).shape == (COUNT,)


def test_a_regressor_of_several_inputs(frame: pd.DataFrame):
    made = mt.Regressor({"photo": "image", "rest": "tabular(age,dose)"}, target="days", **ALIKE, recipe={
        name: value for name, value in SETTINGS.items() if "notes" not in name
    }).fit(frame)  # fmt: skip
    assert made.predict(frame).shape == (COUNT,) and made.score(frame) > 0.5


def test_one_input_of_a_table_reads_the_column_of_its_name(frame: pd.DataFrame):
    settings = {name: value for name, value in SETTINGS.items() if "notes" not in name}
    made = mt.Classifier({"photo": "image"}, **ALIKE, recipe=settings).fit(frame.dropna(subset="photo")[["photo"]],
        frame.dropna(subset="photo")["outcome"])  # fmt: skip
    assert made.predict(frame[["photo"]].dropna()).shape == (COUNT - 1,)


# --- inside scikit-learn ----------------------------------------------------------------------------------------------


def test_cross_validation_and_search_of_a_frame(frame: pd.DataFrame):
    X, y = frame.drop(columns=["outcome", "days"]), frame["outcome"].map({"a": 0, "b": 1})
    settings = {name: value for name, value in SETTINGS.items() if "notes" not in name}
    made = classifier({"photo": "image", "rest": "tabular(age,dose)"}, recipe=settings)
    X = X[["photo", "age", "dose"]].drop(index=9)  # which has neither
    y = y.drop(index=9)
    assert cross_val_score(made, X, y, cv=2, scoring="roc_auc").shape == (2,)
    search = GridSearchCV(made, {"recipe": [settings, {**settings, "optim.l2": [1.0]}]}, cv=2, refit=False)
    assert len(search.fit(X, y).cv_results_["mean_test_score"]) == 2


def test_groups_stay_together(frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch):
    seen: list[Examples] = []
    monkeypatch.setattr("metatransformer.faces.sklearn.fit", lambda examples, *_, **__: seen.append(examples) or 1 / 0)
    groups = np.arange(COUNT) // 2
    with pytest.raises(ZeroDivisionError):
        classifier().fit(frame.drop(columns="outcome"), frame["outcome"], groups=groups)
    (examples,) = seen
    train, val = (set(examples.split(split).groups) for split in ("train", "val"))
    assert train and val and not train & val
    assert next(GroupKFold(2).split(frame, groups=groups))


def test_vectors_of_several_inputs_inside_a_pipeline(frame: pd.DataFrame, tmp_path: Path):
    X, inputs = frame.drop(columns=["outcome", "days"]), {"photo": "image", "again": "image(photo)"}
    with pytest.raises(mt.UsageError, match="'inputs.again.from': must read another column than the input 'photo'"):
        mt.Embedder(inputs, encoder="test").fit(X)
    embedder = mt.Embedder(
        {"photo": "image", "rest": "tabular(age,dose)"}, encoder="test", recipe={"inputs.photo.size": 16}
    )
    with pytest.warns(UserWarning, match="the tabular tokenizer was never trained"):
        pipeline = make_pipeline(embedder, LogisticRegression()).fit(X, frame["outcome"])
    vectors = pipeline[0].transform(X)
    assert vectors.shape == (COUNT, 2 * 32 + 2)  # one summary an input, and whether it is there
    assert vectors[5, -2:].tolist() == [0, 1] and vectors[9, -2:].tolist() == [1, 0]
    pipeline[0].save(tmp_path / "m")
    with pytest.warns(UserWarning, match="the tabular tokenizer"):
        again = mt.load(tmp_path / "m")
    np.testing.assert_array_equal(again.transform(X), vectors)
    one = mt.embed(dict(X.iloc[3]), modality={"photo": "image"}, encoder="test", recipe={"inputs.photo.size": 16})
    np.testing.assert_allclose(one[:32], vectors[3, :32], atol=1e-5)


# --- saved models -----------------------------------------------------------------------------------------------------

ALONE = """
import sys, numpy as np, pandas as pd, metatransformer as mt
model = mt.load(sys.argv[1])
np.save(sys.argv[3], model.predict_proba(pd.read_parquet(sys.argv[2])))
"""


def test_a_saved_model_answers_alike_everywhere(
    fitted: mt.Classifier, frame: pd.DataFrame, folder: Path, monkeypatch: pytest.MonkeyPatch, call: Run
):
    monkeypatch.chdir(folder)
    table = pd.read_parquet("whole.parquet")
    fitted.save("model", standalone=True)
    again = mt.load("model")
    assert type(again) is mt.Classifier and again.modality["rest"] == ("tabular", ["age", "dose"])
    expected = fitted.predict_proba(table)
    np.testing.assert_array_equal(again.predict_proba(table), expected)
    # A process of its own that finds no trunk and no network: the folder is all it has.
    nowhere = {"HF_HUB_OFFLINE": "1", "XDG_CACHE_HOME": str(folder / "empty"), "HOME": str(folder / "empty")}
    code = ["-c", ALONE, folder / "model", folder / "whole.parquet", folder / "alone.npy"]
    done = run_alone(code, env=nowhere)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(folder / "alone.npy"), expected, atol=1e-5)
    table.drop(columns="outcome").to_csv("new.csv", index=False)
    status, _, err = call(["predict", "model", "new.csv", "--out", "p.csv"])
    assert status == 0, err
    np.testing.assert_allclose(pd.read_csv("p.csv")[["p(a)", "p(b)"]], expected, atol=1e-5)
    refit = clone(again).fit(frame)
    np.testing.assert_array_equal(refit.predict_proba(frame), fitted.predict_proba(frame))


def test_a_model_of_the_command_line_is_loaded(folder: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(folder)
    inputs = "photo=image,notes=text,rest=tabular(age,dose)"
    words = ["fit", ".", "--inputs", inputs, "--target", "outcome", "--encoder", "test", "--out", "run"]
    settings = [f"{key}={json.dumps(value)}" for key, value in {**SETTINGS, "run.device": "cpu"}.items()]
    status, result, err = call([*words, *settings])
    assert status == 0, err
    made = mt.load("run")
    assert type(made) is mt.Classifier and made.score(".") == result["metrics"]["test"]["accuracy"]
    assert set(made.modality) == {"photo", "notes", "rest"} and made.target == "outcome"
    table = pd.read_csv("test.csv")
    assert call(["predict", "run", "test.csv", "--out", "p.csv"])[0] == 0
    np.testing.assert_allclose(made.predict_proba(table), pd.read_csv("p.csv")[["p(a)", "p(b)"]], atol=1e-5)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inputs", "more", "message"),
    [
        ({}, {}, "modality: must be the name of a modality, or say the modality of each input.* found {}"),
        ({"photo": 3}, {}, r"input 'photo': must be a modality, or one with its columns.*; found 3"),
        ({"photo": ("image", [3])}, {}, r"input 'photo': must be a modality.*; found \('image', \[3\]\)"),
        ({"photo": "image("}, {}, "input 'photo': must be a modality"),
        ({"photo": "imaeg", "notes": "text"}, {}, "imaeg.*Did you mean 'image'"),
        (INPUTS, {"recipe": {"inputs.photo.from": "x"}}, "'inputs.photo.from': must be given as the argument modality"),
        (INPUTS, {"recipe": {"inputs.foto.size": 3}}, "'inputs.foto': must be an input.*Did you mean 'photo'"),
        (INPUTS, {"recipe": {"inputs.photo.siz": 3}}, "'inputs.photo.siz'.*Did you mean 'inputs.photo.size'"),
        (INPUTS, {"recipe": {"input.size": 3}}, "'input.size': must be of the one input; found 3 inputs"),
        ({"foto": "image", "notes": "text"}, {}, "'inputs.foto.from': must name the columns.*Did you mean 'photo'"),
        ({"notes": "text", "rest": "tabular(outcome)"}, {}, "must read no column that is to be learned"),
        (INPUTS, {"target": "none"}, "must have a column 'none'"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted_is_said(frame: pd.DataFrame, inputs: Any, more: dict, message: str):
    settings: dict[str, Any] = {"recipe": {}, "target": "outcome", **more}
    with pytest.raises(mt.MetaTransformerError, match=message):
        classifier(inputs, **settings).fit(frame)


def test_neither_target_nor_y_is_said(frame: pd.DataFrame):
    with pytest.raises(mt.UsageError, match="target: must name the column to learn, or y be given; found neither"):
        classifier().fit(frame)
    with pytest.raises(mt.UsageError, match="y: must have one entry for each of the 24 samples; found 2"):
        classifier().fit(frame, ["a", "b"])


def test_what_cannot_be_predicted_is_said(fitted: mt.Classifier, frame: pd.DataFrame):
    with pytest.raises(
        mt.DataError, match="the table: must have a column 'age'.*absent everywhere has an empty column"
    ):
        fitted.predict(frame.drop(columns="age"))
    with pytest.raises(mt.DataError, match="the DataFrame, row 0: must have at least one of the inputs photo, notes"):
        fitted.predict(pd.DataFrame({"photo": [None], "notes": [""], "age": [None], "dose": [np.nan]}))
    with pytest.raises(mt.DataError, match="must be a table file, a folder of them, a DataFrame"):
        fitted.predict(3)
    absent = fitted.predict(frame.assign(photo=None))
    assert absent.shape == (COUNT,)
