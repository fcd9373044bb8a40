"""Retrieval: scores by hand and by scikit-learn, cameras, what is refused, and the whole way by command."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import run, words_of
from PIL import Image
from sklearn.metrics import average_precision_score

import metatransformer as mt
from metatransformer.core.task import Told
from metatransformer.nn.near import nearest
from metatransformer.tasks.retrieve import Retrieve, RetrieveOptions, Sighting

SMALL = {
    "head.read": [-1],
    "head.pool": "both",
    "head.features": "trunk",
    "input.size": 28,
    "run.device": "cpu",
    "run.precision": "float32",
}


def task_of(**settings: object) -> Retrieve:
    return Retrieve(RetrieveOptions(name="retrieve", **settings))


def turned(*degrees: float) -> torch.Tensor:
    """Returns vectors of two numbers at these angles."""
    angles = torch.tensor(degrees).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_scores_by_hand():
    """One query at 0 degrees; its gallery by angle: wrong, right, wrong, right."""
    task = task_of()
    seen = [Sighting("a", role="query"), *(Sighting(name, role="gallery") for name in "bacad")]
    scores = task.metrics(turned(0, 5, 10, 20, 30, 40), task.encode(seen))
    assert scores == pytest.approx({"r1": 0.0, "r5": 1.0, "map": (1 / 2 + 2 / 4) / 2, "minp": 2 / 4})


def test_scores_are_scikit_learns():
    rng = np.random.default_rng(0)
    names = rng.integers(0, 7, size=53)
    vectors = torch.from_numpy(rng.normal(size=(53, 11))).float()
    task = task_of()
    scores = task.metrics(vectors, task.encode([f"p{name}" for name in names]))
    near = torch.nn.functional.normalize(vectors, dim=1)
    near = (near @ near.T).numpy()
    precision, first = [], []
    for i in range(53):
        others = np.delete(np.arange(53), i)
        precision.append(average_precision_score(names[others] == names[i], near[i, others]))
        first.append(names[others[near[i, others].argmax()]] == names[i])
    assert scores["map"] == pytest.approx(np.mean(precision)) and scores["r1"] == pytest.approx(np.mean(first))
    assert scores["r1"] <= scores["r5"] and 0 < scores["minp"] < scores["map"]


@pytest.mark.parametrize(
    ("cameras", "r1", "r5", "precision"),
    [
        ("all", 1.0, 1.0, (1 + 2 / 4) / 2),
        ("regdb", 1.0, 1.0, (1 + 2 / 4) / 2),
        ("other", 0.0, 1.0, 1 / 3),  # the nearest is of the same camera and identity
        ("sysu-mm01", 0.0, 1.0, 1 / 3),  # and of camera 2, for a query of camera 3
    ],
)
def test_the_rules_of_cameras(cameras: str, r1: float, r5: float, precision: float):
    own = "3" if cameras == "other" else "2"
    seen = [Sighting("a", "3", "query"), Sighting("a", own, "gallery")]
    seen += [Sighting("b", "1", "gallery"), Sighting("b", "4", "gallery"), Sighting("a", "5", "gallery")]
    task = task_of(cameras=cameras)
    scores = task.metrics(turned(0, 5, 10, 20, 30), task.encode(seen))
    assert (scores["r1"], scores["r5"]) == (r1, r5) and scores["map"] == pytest.approx(precision)


def test_sysu_counts_identities_and_knows_its_infrared_cameras():
    seen = [Sighting("a", "cam6"), *(Sighting("b", "1") for _ in range(6)), Sighting("a", "4")]
    angles = turned(0, 1, 2, 3, 4, 5, 6, 7)
    task = task_of(cameras="sysu-mm01")
    assert task.metrics(angles, task.encode(seen))["r5"] == 1.0  # one wrong identity before the right one
    plain = [Sighting(one.identity, "", "gallery" if place else "query") for place, one in enumerate(seen)]
    task = task_of()
    pictures_counted = task.metrics(angles, task.encode(plain))
    assert pictures_counted == pytest.approx({"r1": 0, "r5": 0, "map": 1 / 7, "minp": 1 / 7})


def test_a_query_that_only_its_own_camera_saw_is_not_scored():
    seen = [Sighting("a", "1"), Sighting("a", "1"), Sighting("b", "1"), Sighting("b", "2")]
    task = task_of(cameras="other")
    target = task.encode(seen)
    vectors = turned(0, 50, 20, 30)
    assert task.metrics(vectors, target)["r1"] == 1.0
    assert task.doubts(vectors, target) == ["2 queries have no right picture by another camera: not scored"]
    np.testing.assert_array_equal(task.errors(vectors, target), [0, 0, 0, 0])
    with pytest.raises(mt.DataError, match="queries: must have a right picture by another camera; found none"):
        task.metrics(vectors[:2], target[:2])


@pytest.mark.parametrize(
    ("seen", "message"),
    [
        (["a", "a", "b"], r"identities: must have at least 2 pictures each; found 1 of 2 with one \('b'\)"),
        (
            [Sighting("a", role="query"), Sighting("b", role="gallery")],
            r"queries: must have a picture of their identity in the gallery; found 1 of 1 without one \('a'\)",
        ),
        ([Sighting("a", role="query")], "the test: must have a gallery; found none"),
        ([Sighting("a", role="query"), "a"], "splits: must be query or gallery for all, or for none; found 1 that"),
    ],
)
def test_what_cannot_be_scored_is_said(seen: list, message: str):
    task = task_of()
    with pytest.raises(mt.DataError, match=message):
        target = task.encode(seen)
        task.metrics(torch.zeros(len(seen), 2), target)


def test_what_is_no_identity_or_camera_is_said():
    with pytest.raises(mt.DataError, match="identities: must be a word or a whole number; found 0.5"):
        task_of().check(0.5)
    with pytest.raises(mt.DataError, match=r"camera of 'a': must be 1 to 6 \(task.cameras=sysu-mm01\); found '7'"):
        task_of(cameras="sysu-mm01").check(("a", 7))
    with pytest.raises(mt.DataError, match=r"camera of 'a': must be known \(task.cameras=other\); found none"):
        task_of(cameras="other").check("a")
    with pytest.raises(mt.DataError, match=r"training identities: must have at least 2 pictures each; found 1 of 3"):
        task_of().fit(["a", "a", "b", "b", "c"])


def test_query_and_gallery_belong_to_the_test_and_identities_stay_together():
    told = Retrieve.receive(Told([("a", 1), ("a", 2), "b"], ["query", "gallery", "train"], [None] * 3))
    assert told.targets == [Sighting("a", "1", "query"), Sighting("a", "2", "gallery"), Sighting("b")]
    assert told.splits == ["test", "test", "train"] and told.groups == ["a", "a", "b"]
    assert Retrieve.receive(told) == told


def test_the_nearest_are_found_block_by_block(monkeypatch: pytest.MonkeyPatch):
    rng = torch.Generator().manual_seed(0)
    queries, gallery = torch.randn(13, 5, generator=rng), torch.randn(29, 5, generator=rng)
    whole = nearest(queries, gallery, count=3)
    monkeypatch.setattr("metatransformer.nn.near.BLOCK", 60)
    values, places = nearest(queries, gallery, count=3)
    torch.testing.assert_close(values, whole[0])
    assert torch.equal(places, whole[1])
    expected = torch.cosine_similarity(queries[:, None], gallery[None], dim=2).topk(3).values
    torch.testing.assert_close(values, expected)


# --- by command ------------------------------------------------------------------------------------------------------


def pictures(folder: Path, identities: int, each: int) -> list[tuple[str, str]]:
    """Draws identities as gratings of their own direction and colour; returns path and identity."""
    rng = np.random.default_rng(0)
    across, down = np.meshgrid(np.arange(28), np.arange(28))
    found = []
    for identity in range(identities):
        angle, colour = rng.uniform(0, np.pi), rng.uniform(0.3, 1, size=3)
        for number in range(each):
            wave = np.sin(0.7 * (across * np.cos(angle) + down * np.sin(angle)) + rng.uniform(0, 6))
            pixels = 128 + 100 * wave[:, :, None] * colour + rng.normal(0, 10, size=(28, 28, 3))
            path = folder / f"p{identity}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path)
            found.append((f"p{identity}/{number}.png", f"p{identity}"))
    return found


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven identities seen by two cameras; the last three are queries and gallery."""
    folder = tmp_path_factory.mktemp("people")
    rows = []
    for place, (path, identity) in enumerate(pictures(folder, 11, 5)):
        number = int(identity[1:])
        split = "train" if number < 6 else "val" if number < 8 else "query" if place % 5 == 0 else "gallery"
        rows.append((path, identity, place % 2, split))
    pd.DataFrame(rows, columns=["path", "identity", "camera", "split"]).to_csv(folder / "people.csv", index=False)
    return folder / "people.csv"


@pytest.fixture(scope="module")
def fitted(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from metatransformer.faces.cli import main

    out = tmp_path_factory.mktemp("runs") / "run"
    words = ["fit", manifest, "--modality", "image", "--task", "retrieve", "--encoder", "test", "--out", out]
    words += ["--controls", *words_of(SMALL)]
    assert main([str(word) for word in words]) == 0
    return out


def test_a_manifest_is_learned_scored_and_told(fitted: Path, manifest: Path, tmp_path: Path, capsys):
    result = json.loads((fitted / "metrics.json").read_text(encoding="utf-8"))
    scores = result["metrics"] if "metrics" in result else result
    assert scores["test"].keys() == {"r1", "r5", "map", "minp"} and scores["test"]["r1"] > 0.5
    table = pd.read_parquet(fitted / "predictions.parquet")
    asked = table[(table["split"] == "test") & table["key"].str.endswith("/0.png")]
    assert (asked["prediction"] == asked["target"]).mean() == pytest.approx(scores["test"]["r1"])
    assert not (table["nearest_1"] == table["key"]).any()
    assert not asked["nearest_1"].str.endswith("/0.png").any()  # a query is nobody's answer
    page = re.sub(r"</?\w[^>]*>", "", (fitted / "report.html").read_text(encoding="utf-8"))
    assert "Found among the nearest" in page and "right: p" in page and "R@1" in page
    status, scored, err = run(["evaluate", fitted, manifest], capsys)
    assert status == 0 and scored["metrics"]["map"] == pytest.approx(scores["test"]["map"], abs=1e-5), err
    status, _, err = run(["predict", fitted, manifest.parent / "p9", "--out", tmp_path / "near.csv"], capsys)
    assert status == 0, err
    near = pd.read_csv(tmp_path / "near.csv")
    assert len(near) == 5 and near.loc[1:, "nearest_1"].eq("p9/" + near.loc[1:, "key"]).all()  # of the gallery itself
    assert near.loc[1:, "similarity_1"].gt(0.999).all()


def test_a_retriever_in_python_answers_as_the_command(fitted: Path, manifest: Path, tmp_path: Path, capsys):
    own = mt.load(fitted, device="cpu")
    assert isinstance(own, mt.Retriever)
    asked = sorted(manifest.parent.rglob("*.png"))[:3]
    status, _, err = run(["predict", fitted, *asked, "--out", tmp_path / "p.parquet"], capsys)
    assert status == 0, err
    told = pd.read_parquet(tmp_path / "p.parquet")
    found = own.predict(asked)
    assert found["nearest_1"].tolist() == told["nearest_1"].tolist() and list(found.columns) == list(told.columns)
    status, scored, err = run(["evaluate", fitted], capsys)
    assert status == 0 and own.score(manifest) == pytest.approx(scored["metrics"]["r1"]), err
    again = own.predict([manifest.parent / "p9" / "2.png"], gallery=manifest)
    assert again["nearest_1"].tolist() == ["p9/2.png"] and (again["similarity_1"] > 0.999).all()  # itself
    learned = mt.Retriever(**own.get_params()).fit(manifest)
    assert learned.score(manifest) == pytest.approx(own.score(manifest))


def test_a_gallery_of_ones_own(fitted: Path, manifest: Path, tmp_path: Path, capsys):
    words = ["predict", fitted, manifest.parent / "p1" / "0.png", "--out", tmp_path / "near.csv", "--gallery"]
    status, _, err = run([*words, manifest.parent], capsys)
    assert status == 0, err
    assert pd.read_csv(tmp_path / "near.csv")["nearest_1"].tolist() == ["p1/0.png"]


def test_folders_of_queries_and_gallery(fitted: Path, manifest: Path, tmp_path: Path, capsys):
    for number in range(5):
        for name in ("p8", "p9"):
            place = tmp_path / "test" / ("query" if number == 0 else "gallery") / name
            place.mkdir(parents=True, exist_ok=True)
            source = manifest.parent / name / f"{number}.png"
            (place / source.name).write_bytes(source.read_bytes())
    status, scored, err = run(["evaluate", fitted, tmp_path / "test"], capsys)
    assert status == 0 and scored["samples"] == 10 and scored["metrics"]["r5"] > 0, err
    words = ["fit", tmp_path / "test", "--modality", "image", "--encoder", "test", "--out", tmp_path / "run"]
    status, _, err = run([*words, "--task", "classify"], capsys)
    assert status == 2 and "splits: must be train, val, test for the task 'classify'; found query and gallery" in err


def test_a_folder_without_splits_keeps_identities_together(tmp_path: Path, capsys):
    pictures(tmp_path / "data", 9, 3)
    words = ["fit", tmp_path / "data", "--modality", "image", "--task", "retrieve", "--encoder", "test"]
    status, result, err = run([*words, "--out", tmp_path / "run", *words_of(SMALL)], capsys)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "run" / "split.csv")
    assert (table.groupby(table["key"].str.split("/").str[0])["split"].nunique() == 1).all()
    status, told, err = run(["check", tmp_path / "data", "--modality", "image", "--task", "retrieve"], capsys)
    assert status == 0 and told["bad"] == 0, err
    (tmp_path / "data" / "p3" / "1.png").unlink()
    (tmp_path / "data" / "p3" / "2.png").unlink()
    status, told, err = run(["check", tmp_path / "data", "--modality", "image", "--task", "retrieve"], capsys)
    assert status == 2 and "must have at least 2 pictures each" in err and "'p3'" in err
    status, _, err = run([*words, "--out", tmp_path / "other", "--minutes", 1], capsys)
    assert status == 2 and "'p3'" in err and not (tmp_path / "other").exists()


def test_a_limit_of_time_is_refused(manifest: Path, tmp_path: Path, capsys):
    words = [
        "fit",
        manifest,
        "--modality",
        "image",
        "--task",
        "retrieve",
        "--encoder",
        "test",
        "--out",
        tmp_path / "run",
    ]
    status, _, err = run([*words, "--minutes", 1], capsys)
    assert status == 2 and "run.minutes: must be 0 for the task 'retrieve', which scores whole splits" in err
