"""The scikit-learn face: its manners, every kind of input, and what is said when something is wrong."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.exceptions
from common import make_records, make_values, settings_of
from PIL import Image
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import metatransformer as mt
from metatransformer.core.errors import DataError
from metatransformer.data.examples import Examples
from metatransformer.modalities import get_modality

IMAGE = get_modality("image")
SIZE = {"input.size": 16}
GOOD = ["a", "b"] * 6
LABELS = [3, 11]  # numbers whose order as text is another one


def classifier() -> mt.Classifier:
    return mt.Classifier("image", encoder="test", device="cpu", precision="float32", recipe=settings_of("image"))


def embedder(pool: str = "summary") -> mt.Embedder:
    return mt.Embedder("image", encoder="test", device="cpu", pool=pool, recipe=SIZE)


@pytest.fixture(scope="module")
def arrays() -> tuple[list[np.ndarray], np.ndarray]:
    values, labels = make_values(IMAGE, 30)
    return values, np.array([LABELS["ab".index(label)] for label in labels])


@pytest.fixture(scope="module")
def fitted(arrays) -> mt.Classifier:
    return classifier().fit(*arrays)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    for record in make_records(IMAGE, train=20, test=8):
        place = root / record.split / record.target
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(record.value).save(place / f"{record.key}.png")
    return root


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    tabular = get_modality("tabular")
    return pd.DataFrame([tabular.synthesize(rng, i % 2)["row"] | {"label": "ab"[i % 2]} for i in range(40)])


# --- manners ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [mt.Classifier, mt.Regressor, mt.Embedder])
def test_constructors_only_store(kind: type):
    made = kind("nothing", encoder="nowhere", recipe={"optim.lr": 1})
    params = made.get_params()
    assert (params["modality"], params["encoder"], params["recipe"]) == ("nothing", "nowhere", {"optim.lr": 1})
    assert clone(made).get_params() == params
    assert made.set_params(seed=5).seed == 5
    with pytest.raises(TypeError, match="epoch"):
        kind("image", epoch=3)
    with pytest.raises(TypeError):
        kind("image", "test")
    with pytest.raises(ValueError, match="Invalid parameter 'epoch'"):
        made.set_params(epoch=3)


def test_scikit_learn_knows_what_they_are():
    assert is_classifier(classifier()) and is_regressor(mt.Regressor("tabular"))


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score", "transform", "save"])
def test_nothing_works_before_fit(method: str, tmp_path: Path, arrays):
    for error in (mt.NotFittedError, sklearn.exceptions.NotFittedError):
        with pytest.raises(error, match=f"Classifier.{method}: must be called on a fitted estimator"):
            getattr(classifier(), method)(tmp_path if method == "save" else arrays[0])
    with pytest.raises(sklearn.exceptions.NotFittedError, match="Embedder.transform"):
        embedder().transform(arrays[0])


def test_labels_come_back_as_they_were_given(fitted: mt.Classifier, arrays):
    values, labels = arrays
    assert fitted.classes_.tolist() == LABELS
    probability = fitted.predict_proba(values)
    assert probability.shape == (30, 2)
    np.testing.assert_allclose(probability.sum(axis=1), 1)
    guess = fitted.predict(values)
    assert guess.dtype == labels.dtype and np.array_equal(guess, fitted.classes_[probability.argmax(axis=1)])
    assert fitted.score(values, labels) == np.mean(guess == labels)
    weights = np.where(guess == labels, 2.0, 1.0)
    assert fitted.score(values, labels, sample_weight=weights) >= fitted.score(values, labels)
    for same in (labels.astype(float), labels.astype(str)):
        assert fitted.score(values, same) == fitted.score(values, labels)
    with pytest.raises(DataError, match=r"labels: must be among the classes \(3.*11.*\); found 4"):
        fitted.score(values, labels + 1)


def test_everything_given_is_for_training_and_choosing(fitted: mt.Classifier):
    assert set(fitted.metrics_) == {"val"} and fitted.history_
    assert sum(fitted.pipeline_.task.counts_) == round(0.85 * 30)  # the rest chose the best head


def test_features_are_what_the_head_predicts_from(fitted: mt.Classifier, arrays):
    import torch

    features = torch.from_numpy(fitted.transform(arrays[0]))
    outputs = fitted.pipeline_.head.predict(features)
    np.testing.assert_allclose(outputs.softmax(1).detach(), fitted.predict_proba(arrays[0]), atol=1e-6)


def test_a_failed_fit_leaves_the_old_model(arrays):
    values, labels = arrays
    made = classifier().fit(values, labels)
    before = made.predict_proba(values)
    with pytest.raises(mt.DataError):
        made.fit([*values[:-1], np.zeros((5, 5), dtype=np.int64)], np.where(labels == 3, "x", "y"))
    assert made.classes_.tolist() == LABELS and np.array_equal(made.predict_proba(values), before)


# --- inside scikit-learn ----------------------------------------------------------------------------------------------


def test_cross_validation_of_arrays_and_of_paths(arrays, folder: Path):
    assert cross_val_score(classifier(), *arrays, cv=2).shape == (2,)
    paths = sorted(map(str, folder.rglob("*.png")))
    labels = [Path(path).parent.name for path in paths]
    assert cross_val_score(classifier(), paths, labels, cv=2, scoring="roc_auc").shape == (2,)


def test_a_search_over_settings(arrays):
    recipes = [settings_of("image", {"optim.l2": [l2]}) for l2 in (1.0, 1e-3)]
    search = GridSearchCV(classifier(), {"recipe": recipes}, cv=2).fit(*arrays)
    assert search.best_estimator_.predict(arrays[0]).shape == (30,)


def test_embeddings_inside_a_pipeline(folder: Path):
    paths = sorted(map(str, folder.rglob("*.png")))
    labels = [Path(path).parent.name for path in paths]
    pipeline = make_pipeline(embedder(), LogisticRegression()).fit(paths, labels)
    assert pipeline.predict(paths).shape == (28,)
    assert list(pipeline[0].get_feature_names_out())[:2] == ["embedder0", "embedder1"]


def test_a_folder_holds_what_was_saved_last(fitted: mt.Classifier, arrays, tmp_path: Path):
    embedder().fit(arrays[0]).save(tmp_path)
    fitted.save(tmp_path)
    assert isinstance(mt.load(tmp_path), mt.Classifier)
    embedder().fit(arrays[0]).save(tmp_path)
    assert isinstance(mt.load(tmp_path), mt.Embedder)


def test_a_score_that_a_split_cannot_have_is_refused(rows: pd.DataFrame):
    few = rows.assign(split=["val"] + ["train"] * (len(rows) - 1))
    settings: dict[str, Any] = {"encoder": "test", "epochs": 1, "recipe": {"head.read": [-1]}}
    with pytest.raises(DataError, match=r"split 'val', metric 'r2': must be a number there; found 1 samples"):
        mt.Regressor("tabular", target="income", metric="r2", **settings).fit(few)


def test_a_file_may_stand_in_several_rows(fitted: mt.Classifier, folder: Path):
    first, second = sorted(str(path) for path in (folder / "test").rglob("*.png"))[:2]
    alone = fitted.predict_proba([first, second])
    np.testing.assert_allclose(fitted.predict_proba(pd.Series([second, first, second])), alone[[1, 0, 1]], rtol=1e-4)


def test_modalities_stand_side_by_side_in_a_column_transformer(folder: Path):
    files = sorted((folder / "train").rglob("*.png"))
    table = pd.DataFrame({"photo": [str(file) for file in files], "age": range(len(files))})
    labels = [file.parent.name for file in files]
    columns = ColumnTransformer([("photo", embedder(), "photo"), ("rest", StandardScaler(), ["age"])])
    joint = make_pipeline(columns, StandardScaler(), LogisticRegression()).fit(table, labels)
    assert joint.predict(table.iloc[[0, 0, 3]]).shape == (3,) and joint.score(table, labels) > 0.5
    assert joint[:-1].transform(table).shape == (len(files), 33)


def test_a_fitted_model_can_be_pickled(fitted: mt.Classifier, arrays):
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(arrays[0]), fitted.predict_proba(arrays[0]))


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_a_folder_with_splits(folder: Path):
    made = classifier().fit(folder)
    assert made.classes_.tolist() == ["a", "b"]
    # Its own test split was scored after fit, and is what score takes of a folder.
    assert made.score(folder) == made.metrics_["test"]["accuracy"]
    assert made.predict(folder).shape == (28,)


def test_manifests_as_file_and_as_frame(folder: Path, tmp_path: Path):
    paths = sorted(folder.rglob("*.png"))
    frame = pd.DataFrame({"path": list(map(str, paths)), "kind": [path.parent.name for path in paths]})
    frame.to_csv(tmp_path / "m.csv", index=False)
    made = mt.Classifier("image", encoder="test", target="kind", precision="float32", recipe=settings_of("image"))
    by_frame, by_file = clone(made).fit(frame), clone(made).fit(str(tmp_path / "m.csv"))
    assert by_frame.score(frame) == by_file.score(tmp_path / "m.csv")
    assert np.array_equal(by_frame.predict(paths), by_file.predict(paths))


def test_tables_with_the_target_inside_or_beside(rows: pd.DataFrame):
    settings: dict[str, Any] = {"encoder": "test", "epochs": 1, "precision": "float32", "recipe": {"head.read": [-1]}}
    inside = mt.Classifier("tabular", target="label", **settings).fit(rows)
    beside = mt.Classifier("tabular", **settings).fit(rows.drop(columns="label"), rows["label"])
    assert inside.n_features_in_ == beside.n_features_in_ == 5
    probability = inside.predict_proba(rows)
    assert np.array_equal(probability, beside.predict_proba(rows.drop(columns="label")))
    assert np.array_equal(probability, inside.predict_proba(rows.drop(columns="label")))
    assert inside.score(rows) == beside.score(rows.drop(columns="label"), rows["label"])


def test_an_array_of_numbers_is_a_table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 3)).astype(np.float32)
    y = 10 + 3 * x[:, 0]
    settings = {"head.read": [-1], "optim.lr": 1e-2}
    made = mt.Regressor("tabular", encoder="test", epochs=15, precision="float32", recipe=settings).fit(x, y)
    assert made.predict(x).shape == (60,) and made.transform(x).shape[0] == 60
    assert made.score(x, y) > 0.5
    assert abs(made.predict(x).mean() - 10) < 1


@pytest.mark.parametrize(
    ("given", "y", "message"),
    [
        ({"recipe": {"optim.lrr": 1}}, GOOD, r"Did you mean 'optim.lr'\?"),
        ({"recipe": {"run": {"seed": 1}}}, GOOD, "recipe key 'run.seed': must be given as the argument seed"),
        ({"recipe": [1]}, GOOD, "recipe: must be a mapping of dotted keys; found a list"),
        ({"encoder": "nowhere"}, GOOD, "'nowhere'"),
        ({"tune": "frozen"}, GOOD, "recipe key 'tune': must be head, tokens, ends, norm, lora"),
        ({"target": "kind"}, GOOD, "y: must be left out where target= names a column"),
        ({}, None, "must bring a label for every item"),
        ({}, [1], "y: must have one entry for each of the 12 samples; found 1"),
        ({}, [[1, 2], [3, 4]], "y: must have one axis"),
        ({}, [1.0, np.nan] * 6, r"y\[1\]: must hold a label or number; found nan"),
        ({}, ["a", None] * 6, r"y\[1\]: must hold a label or number; found None"),
    ],
)
def test_what_the_user_must_change_is_said(arrays, given: dict, y: Any, message: str):
    params = {"encoder": "test", "recipe": settings_of("image"), **given}
    made = mt.Classifier("image").set_params(**params)
    with pytest.raises(mt.MetaTransformerError, match=message):
        made.fit(arrays[0][:12], y)


def test_groups_stay_together(arrays, monkeypatch: pytest.MonkeyPatch):
    pictures, labels = arrays
    seen: list[Examples] = []
    monkeypatch.setattr("metatransformer.faces.sklearn.fit", lambda examples, *_, **__: seen.append(examples) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        classifier().fit(pictures, labels, groups=np.arange(30) // 3)
    (examples,) = seen
    assert list(examples.groups) == [str(place // 3) for place in range(30)]
    train, val = (set(examples.split(split).groups) for split in ("train", "val"))
    assert train and val and not train & val


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (range(29), "groups: must have one entry for each of the 30 samples; found 29"),
        ([*range(29), None], r"groups: must be known for every sample; found none for \[29\]"),
        (pd.Series([pd.NA, *range(29)], dtype="Int64"), r"groups: must be known .* found none for \[0\]"),
    ],
)
def test_groups_that_do_not_fit_are_refused(arrays, groups: Any, message: str):
    with pytest.raises(mt.UsageError, match=message):
        classifier().fit(*arrays, groups=groups)


def test_labels_beside_a_path_are_refused(folder: Path, rows: pd.DataFrame):
    with pytest.raises(mt.UsageError, match="y: must be left out where X is a path"):
        classifier().fit(folder, ["a"] * 28)
    with pytest.raises(mt.UsageError, match="target: must name the column to learn, or y be given; found neither"):
        mt.Classifier("tabular", encoder="test").fit(rows)


# --- saved models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("standalone", [False, True])
def test_a_saved_classifier_is_the_same(fitted: mt.Classifier, arrays, tmp_path: Path, standalone: bool):
    fitted.save(tmp_path / "m", standalone=standalone)
    assert (tmp_path / "m" / "encoder.safetensors").exists() == standalone
    again = mt.load(tmp_path / "m")
    assert type(again) is mt.Classifier and again.classes_.tolist() == LABELS and again.metrics_ == fitted.metrics_
    assert np.array_equal(again.predict(arrays[0]), fitted.predict(arrays[0]))
    refit = clone(again).fit(*arrays)
    assert np.array_equal(refit.predict_proba(arrays[0]), fitted.predict_proba(arrays[0]))


def test_a_saved_regressor_is_the_same(rows: pd.DataFrame, tmp_path: Path):
    made = mt.Regressor("tabular", encoder="test", target="income", epochs=1, recipe={"head.read": [-1]}).fit(rows)
    made.save(tmp_path)
    again = mt.load(tmp_path)
    assert type(again) is mt.Regressor and np.array_equal(again.predict(rows), made.predict(rows))


def test_a_saved_embedder_is_the_same(arrays, tmp_path: Path):
    made = embedder("both").fit(arrays[0])
    made.save(tmp_path)
    again = mt.load(tmp_path)
    assert type(again) is mt.Embedder and again.encoder == "test" and again.recipe["input.size"] == 16
    assert np.array_equal(again.transform(arrays[0]), made.transform(arrays[0]))
    with pytest.raises(mt.WeightsError, match="must compute what was recorded"):
        mt.load(tmp_path, encoder="random:1:test")
    (tmp_path / "tokenizers" / "image.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(mt.DataError, match="must hold the parameters that model.json describes"):
        mt.load(tmp_path)


@pytest.mark.parametrize(
    "content", ["{", "[]", '"x"', '{"format": 99}', '{"format": 1}', '{"format": 1, "arguments": 3}']
)
def test_a_damaged_embedder_of_before_is_named(tmp_path: Path, content: str):
    (tmp_path / "embedder.json").write_text(content, encoding="utf-8")
    with pytest.raises(mt.DataError, match="embedder.json: must (be valid JSON|have a format of 1 to 2|be as it was)"):
        mt.load(tmp_path)


def test_a_folder_without_a_model_is_named(tmp_path: Path):
    with pytest.raises(mt.DataError, match="must be a saved model"):
        mt.load(tmp_path)


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_one_sample_gives_one_vector(arrays, folder: Path):
    paths = sorted(folder.rglob("*.png"))[:3]
    one = mt.embed(paths[0], modality="image", encoder="test", recipe=SIZE)
    assert one.shape == (32,) and one.dtype == np.float32
    several = mt.embed(paths, modality="image", encoder="test", recipe=SIZE)
    assert several.shape == (3, 32)
    # Alone or among others: the same, up to the order of float32 sums.
    np.testing.assert_allclose(several[0], one, atol=1e-5)
    assert mt.embed(arrays[0][0], modality="image", encoder="test", recipe=SIZE, pool="both").shape == (64,)
    assert mt.embed(arrays[0][:2], modality="image", encoder="test", recipe=SIZE).shape == (2, 32)
    assert mt.embed(folder, modality="image", encoder="test", recipe=SIZE).shape == (28, 32)


def test_an_embedder_agrees_with_embed(arrays):
    made = mt.Embedder("image", encoder="test", recipe=SIZE).fit(arrays[0][:3])
    expected = mt.embed(arrays[0][:3], modality="image", encoder="test", recipe=SIZE)
    np.testing.assert_array_equal(made.transform(arrays[0][:3]), expected)


def test_an_untrained_front_end_is_said(rows: pd.DataFrame):
    with pytest.warns(UserWarning, match="the tabular tokenizer was never trained on tabular data"):
        vectors = mt.Embedder("tabular", encoder="test").fit_transform(rows)
    assert vectors.shape == (40, 32)


@pytest.mark.parametrize(
    ("x", "modality", "message"),
    [
        (np.zeros((5, 5, 3), dtype=np.uint8), "", "modality: must be named for anything but files; found a ndarray"),
        ("clip.qqq", "", r"modality: must be named for 'clip.qqq'; found 0 that read this ending"),
        ("rows.csv", "", r"modality: must be named for 'rows.csv'"),
        ("rows.csv", "tabular", r"embed: must get samples that need no learning before.*Embedder\('tabular'\)"),
        ("nowhere.flac", "", "nowhere.flac: must exist"),
        ([], "image", "must hold at least one item"),
    ],
)
def test_what_cannot_be_embedded_is_said(x: Any, modality: str, message: str):
    with pytest.raises(mt.MetaTransformerError, match=message):
        mt.embed(x, modality=modality, encoder="test")


def test_encoders_are_listed_and_modalities_described():
    assert [entry.name for entry in mt.list_encoders()][0] == "meta-b16"
    assert "input.size" in mt.describe("image")
