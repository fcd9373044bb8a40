"""Search across kinds of data and captions by retrieval: values by hand, and every refusal with its way out."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from common import Run
from pairs_common import align_words, words_for

import metatransformer as mt
from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.data.stored import open_stored

PLAIN = ["--modality", "image", "--device", "cpu", "--precision", "float32"]


def vectors_of(place: Path) -> np.ndarray:
    return np.concatenate([block for _, block in open_stored(place).blocks()])


@pytest.fixture(scope="module")
def places(
    pretrained: Path, pair_table: Path, aligned: Path, paired: Path, seen: Path, tmp_path_factory
) -> dict[str, Path]:
    """Embeddings: of a tower, of the encoder of one as they are, of both alignments, and of an encoder alone."""
    from metatransformer.faces.cli import main

    folder = tmp_path_factory.mktemp("places")
    files = pd.read_csv(seen)["file"].tolist()[::3]
    shown, device = pair_table.parent, ["--device", "cpu"]
    asked: dict[str, list[object]] = {
        "tower": [shown, "--model", pretrained, *device],
        "plain": [shown, *PLAIN, "--encoder", f"{pretrained}/", "input.size=16"],
        "mean": [shown, *PLAIN, "--encoder", f"{pretrained}/", "input.size=16", "--pool", "mean"],
        "aligned": [*files, "--model", aligned, *device],
        "other": [*files, "--model", paired, "--side", "other", *device],
        "alone": [*files, *PLAIN, "--encoder", "test", "input.size=24"],
    }
    for name, words in asked.items():
        assert main([str(word) for word in ["embed", *words, "--out", folder / f"{name}.parquet"]]) == 0, name
    return {name: folder / f"{name}.parquet" for name in asked}


def by_hand(near: np.ndarray, keys: Sequence[str], count: int) -> list[tuple[str, float]]:
    order = np.argsort(-near, kind="stable")[:count]
    return [(keys[place], float(near[place])) for place in order]


def test_pictures_are_found_by_words_through_a_tower(places, pretrained: Path, pair_table: Path, call: Run):
    files = sorted(pair_table.parent.glob("*.png"))
    near = mt.similarity([str(file) for file in files], ["a red bar", "grey"], encoder=str(pretrained), device="cpu")
    words = ["search", places["tower"], "--text", "a red bar", "--text", "grey", "--k", 4, "--device", "cpu"]
    out = places["tower"].with_name("near.csv")
    status, result, err = call([*words, "--out", out])
    assert status == 0 and result["queries"] == 2 and result["listed"] == 8, err
    found = pd.read_csv(out)
    assert found["query"].tolist() == ["a red bar"] * 4 + ["grey"] * 4 and found["rank"].tolist() == [1, 2, 3, 4] * 2
    for query, rows in found.groupby("query", sort=False):
        expected = by_hand(near[:, ["a red bar", "grey"].index(query)], [file.name for file in files], 4)
        assert np.allclose(rows["similarity"], [value for _, value in expected], atol=1e-5)
    again = mt.search(places["tower"], text=["a red bar", "grey"], k=4, device="cpu")
    assert again["id"].tolist() == found["id"].tolist()
    within = mt.search(places["tower"], [str(files[3])], k=1, device="cpu")
    assert within["id"].tolist() == [files[3].name] and within["similarity"][0] == pytest.approx(1, abs=1e-5)


def test_what_an_encoder_with_a_text_tower_embedded_is_brought_to_its_space(places, pretrained: Path, call: Run):
    from metatransformer.pairs.files import read_towers

    out = read_towers(pretrained).towers.vision.out.weight.detach().numpy()
    mapped = vectors_of(places["plain"]) @ out.T
    mapped /= np.linalg.norm(mapped, axis=1, keepdims=True)
    # The pictures are square, so both ways differ by how they were resized alone.
    assert (mapped * vectors_of(places["tower"])).sum(axis=1).min() > 0.98
    text = read_towers(pretrained).of_texts(["a blue frame"])[0].numpy()
    status, _, err = call(["search", places["plain"], "--text", "a blue frame", "--device", "cpu"])
    assert status == 0 and "'embed --model" in err, err
    found = mt.search(places["plain"], text="a blue frame", k=36, device="cpu")
    assert np.allclose(found["similarity"], np.sort(mapped @ text)[::-1], atol=1e-5)


def test_samples_are_found_by_words_and_by_the_other_side_of_an_alignment(places, aligned: Path, paired: Path, seen):
    files = pd.read_csv(seen)["file"].tolist()[::3]
    near = mt.similarity(files, ["large and red"], encoder=str(aligned), device="cpu")[:, 0]
    found = mt.search(places["aligned"], text="large and red", k=3, device="cpu")
    expected = by_hand(near, files, 3)
    assert np.allclose(found["similarity"], [value for _, value in expected], atol=1e-5)
    assert found["path"].tolist() == [file for file, _ in expected]
    across = mt.search(places["other"], files[:2], side="one", k=24, device="cpu")
    near = mt.similarity(files[:2], files, encoder=str(paired), device="cpu")
    assert np.allclose(across["similarity"], np.sort(near, axis=1)[:, ::-1].ravel(), atol=1e-5)
    within = mt.search(places["other"], files[:2], k=1, device="cpu")
    assert np.allclose(within["similarity"], 1, atol=1e-5) and within["path"].tolist() == files[:2]


def test_a_side_is_named_by_its_modality_as_well(places, seen: Path):
    files = pd.read_csv(seen)["file"].tolist()[:1]
    one, other = (mt.search(places["other"], files, side=side, k=2, device="cpu") for side in ("one", "image"))
    assert one.equals(other)


def test_an_interrupted_index_of_a_space_continues(places, aligned: Path, seen: Path, tmp_path: Path, call: Run):
    files = pd.read_csv(seen)["file"].tolist()[::3]
    words = ["embed", *files, "--model", aligned, "--device", "cpu", "--out", tmp_path / "index"]
    assert call(words)[0] == 0
    status, result, err = call(words)
    assert status == 0 and result["done_before"] == 24, err
    assert np.allclose(vectors_of(tmp_path / "index"), vectors_of(places["aligned"]), atol=1e-6)


@pytest.mark.parametrize(
    ("index", "more", "message"),
    [
        ("alone", ["--text", "red"], "must be aligned with text directly; found vectors of 'test', which nothing"),
        (
            "alone",
            ["--text", "red"],
            "Align the two from pairs: metatransformer align TABLE --inputs image=image(file)",
        ),
        ("alone", ["--text", "red", "--through", "{aligned}"], "must hold vectors of the space in"),
        ("alone", ["--text", "red", "--through", "{aligned}"], "Embed again: metatransformer embed PATH... --model"),
        ("alone", ["--text", "red", "--through", "{tower}"], "must be of the vision tower in"),
        ("mean", ["--text", "red"], "must be pooled by 'summary', as the tower does; found vectors pooled by 'mean'"),
        ("other", ["--text", "red"], "must be aligned with text directly"),
        ("other", ["--text", "red", "--through", "{aligned}"], "found a link only through image. Similarities do not"),
        ("tower", ["{file}", "--side", "other", "--through", "{paired}"], "must hold vectors of the space in"),
        ("aligned", ["{file}", "--side", "audio"], "must be aligned with audio directly"),
        ("aligned", ["{file}", "--side", "words"], "--side: must be one of samples; found 'words'. Ask for words with"),
        ("aligned", ["{file}", "--through", "{paired}"], "--through: must go with --text or --side"),
        ("aligned", ["--text", "red", "--side", "picture"], "--side: must go with samples; found a text"),
        ("aligned", ["--text", "zebra"], "must hold a word that the pairs held; found 'zebra'"),
        ("aligned", ["--text", ""], "must hold a word that the pairs held"),
        ("aligned", ["--text", "red", "--model", "{paired}"], "must have the side 'picture' of"),
        ("aligned", ["--text", "red", "--model", "test"], "must have a text tower; found an encoder without one"),
    ],
)
def test_what_is_not_aligned_directly_is_refused(
    index: str, more: list[str], message: str, places, pretrained, aligned, paired, seen: Path, call: Run
):
    file = pd.read_csv(seen)["file"][0]
    known = {"aligned": aligned, "tower": pretrained, "paired": paired, "file": file}
    status, _, err = call(["search", places[index], *(word.format(**known) for word in more), "--device", "cpu"])
    assert status == 2 and message in " ".join(err.split()), err


def rewritten(run: Path, folder: Path, **changes: Any) -> Path:
    shutil.copytree(run, folder / "run")
    path = folder / "run" / "ledger.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(told | changes), encoding="utf-8")
    return folder / "run"


def test_no_better_than_chance_is_refused_with_its_figure(places, aligned: Path, tmp_path: Path, seen: Path):
    run = str(rewritten(aligned, tmp_path, aligned=False))
    message = "must have aligned its two sides better than chance; found picture to words R@"
    for place in ("aligned", "alone"):
        with pytest.raises(UsageError, match=message):
            mt.search(places[place], text="red", through=[run], model=run if place == "aligned" else "", device="cpu")
    with pytest.raises(UsageError, match=message):
        mt.captions(pd.read_csv(seen)["file"].tolist()[:1], ["small and red"], encoder=run, device="cpu")


def test_another_fingerprint_is_refused(places, aligned: Path, tmp_path: Path):
    told = json.loads((aligned / "ledger.json").read_text(encoding="utf-8"))
    told["sides"]["picture"]["fingerprint"][0] += 1
    run = str(rewritten(aligned, tmp_path, sides=told["sides"]))
    for place in ("aligned", "alone"):
        with pytest.raises(WeightsError, match="must compute what was recorded for these weights"):
            mt.search(places[place], text="red", through=[run], model=run if place == "aligned" else "", device="cpu")


def test_a_run_that_was_aligned_again_is_not_the_one_of_the_index(places, aligned: Path, seen, tmp_path, call: Run):
    words = align_words(seen, tmp_path / "run", "--concept", "concept", "--seed", 3, "inputs.picture.size=20")
    status, _, err = call([word for word in words if word != "inputs.picture.size=24"])
    assert status == 0, err
    with pytest.raises(UsageError, match="must be the model that made .* found another one"):
        mt.search(places["aligned"], text="red", model=str(tmp_path / "run"), device="cpu")


def test_a_pretraining_of_other_weights_is_not_the_one_of_the_index(places, pair_table: Path, tmp_path, call: Run):
    assert call(words_for(pair_table, tmp_path / "run", {"seed": 5, "steps": 2, "validate": 2}))[0] == 0
    with pytest.raises(UsageError, match="must be the model that made .* found another one"):
        mt.search(places["tower"], text="red", model=str(tmp_path / "run"), device="cpu")
    with pytest.raises(UsageError, match="must be of the vision tower in .* found another encoder's"):
        mt.search(places["plain"], text="red", model=str(tmp_path / "run"), device="cpu")


def test_a_space_that_was_moved_is_named(places, aligned: Path, seen: Path, tmp_path: Path, call: Run):
    shutil.copytree(aligned, tmp_path / "run")
    file, index = pd.read_csv(seen)["file"][0], tmp_path / "index.parquet"
    assert call(["embed", file, "--model", tmp_path / "run", "--out", index, "--device", "cpu"])[0] == 0
    (tmp_path / "run").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match="must find its space at .*found nothing there. Name where it lies now"):
        mt.search(index, text="red", device="cpu")
    assert len(mt.search(index, text="red", model=str(tmp_path / "moved"), device="cpu")) == 1


def test_vectors_of_a_fitted_model_are_not_those_of_the_tower(pretrained: Path, pair_table: Path, tmp_path, call: Run):
    table = pd.read_csv(pair_table)
    table["path"] = [str(pair_table.parent / name) for name in table["path"]]
    table["label"] = table.pop("text").str.split().str[1]
    table.to_csv(tmp_path / "labelled.csv", index=False)
    words = ["fit", tmp_path / "labelled.csv", "--modality", "image", "--encoder", f"{pretrained}/"]
    words += ["input.size=16", "head.read=[-1]", "head.features=trunk", "--out", tmp_path / "run", "--device", "cpu"]
    status, _, err = call(words)
    assert status == 0, err
    index = tmp_path / "index.parquet"
    words = ["embed", pair_table.parent, "--model", tmp_path / "run", "--pool", "summary", "--out", index]
    assert call([*words, "--device", "cpu"])[0] == 0
    with pytest.raises(UsageError, match="found vectors pooled by 'summary', of a fitted model"):
        mt.search(index, text="red", device="cpu")


def test_a_search_by_python_asks_for_one_thing(places):
    for given in ({}, {"data": ["x.png"], "text": "red"}):
        with pytest.raises(UsageError, match="search: must get either data or text; found"):
            mt.search(places["aligned"], **given)
    with pytest.raises(UsageError, match="k: must be at least 1; found 0"):
        mt.search(places["aligned"], text="red", k=0)


def test_files_are_no_texts(aligned: Path, seen: Path):
    files = pd.read_csv(seen)["file"].tolist()[:2]
    with pytest.raises(UsageError, match="found the file .*two samples are linked only through text"):
        mt.similarity(files, files, encoder=str(aligned), device="cpu")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pool", "mean"], "must go without --task, --pool, --precision, --backend and --encoder"),
        (["--side", "sound"], "--side: must be one side of"),
    ],
)
def test_a_space_is_embedded_in_as_it_is(more, message: str, aligned: Path, seen: Path, tmp_path: Path, call: Run):
    file = pd.read_csv(seen)["file"][0]
    status, _, err = call(["embed", file, "--model", aligned, "--out", tmp_path / "i.parquet", *more])
    assert status == 2 and message in " ".join(err.split()), err
    assert not list(tmp_path.iterdir())


# --- captions ---------------------------------------------------------------------------------------------------------

KNOWN = ["small and red", "large  and blue", "", "hollow and green", "small and red", "zebra"]


def test_captions_are_the_nearest_known_ones(aligned: Path, seen: Path, tmp_path: Path, call: Run):
    files = pd.read_csv(seen)["file"].tolist()[::9]
    (tmp_path / "known.txt").write_text("\n".join(KNOWN), encoding="utf-8")
    out = tmp_path / "p.csv"
    words = ["predict", aligned, *files, "--captions", tmp_path / "known.txt", "--k", 2, "--out", out]
    status, result, err = call([*words, "--device", "cpu"])
    assert status == 0 and result["rows"] == len(files), err
    assert "4 captions; 2 empty or repeated ones are left out" in " ".join(err.split())
    assert "1 captions are left out, none of whose words was learned: 'zebra'" in " ".join(err.split())
    found, texts = pd.read_csv(out), ["small and red", "large and blue", "hollow and green"]
    assert list(found.columns) == ["key", "prediction", "caption_1", "similarity_1", "caption_2", "similarity_2"]
    near = mt.similarity(files, texts, encoder=str(aligned), device="cpu")
    order = np.argsort(-near, axis=1)
    for rank in (0, 1):
        assert found[f"caption_{rank + 1}"].tolist() == [texts[place] for place in order[:, rank]]
        values = np.take_along_axis(near, order, axis=1)[:, rank]
        assert np.allclose(found[f"similarity_{rank + 1}"], values, atol=1e-5)
    assert found["prediction"].equals(found["caption_1"])
    again = mt.captions(files, texts, encoder=str(aligned), k=2, device="cpu")
    assert again["caption_2"].tolist() == found["caption_2"].tolist()


def test_captions_of_a_table_and_of_a_tower(pretrained: Path, pair_table: Path, tmp_path: Path, call: Run):
    pd.DataFrame({"Caption": ["a red bar", None, "a grey frame"], "n": 1}).to_csv(tmp_path / "known.csv", index=False)
    files, out = sorted(pair_table.parent.glob("*-1.png")), tmp_path / "p.jsonl"
    words = ["predict", pretrained, *files, "--captions", tmp_path / "known.csv", "--out", out, "--device", "cpu"]
    status, result, err = call(words)
    assert status == 0 and result["rows"] == 12, err
    found = pd.read_json(out, lines=True)
    assert set(found["prediction"]) <= {"a red bar", "a grey frame"} and "caption_3" not in found


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--captions", "nowhere.txt"], "--captions: must be a file of captions; found 'nowhere.txt'"),
        (["--captions", "{empty}"], "must hold at least one caption; found none"),
        (["--captions", "{table}"], "must have a column text or caption or captions; found a, b"),
        (["--captions", "{strange}"], "must hold a word that the pairs held; found 'zebra'"),
        (["--captions", "{known}", "--k", "0"], "--k: must be at least 1; found 0"),
        (["--captions", "{known}", "--classes", "a,b"], "must get either --captions (with --k) or --classes"),
        (["--captions", "{known}", "--task", "a"], "--captions: must go without --task, --gallery and --encoder"),
        (["--k", "3"], "must get either --captions (with --k) or --classes (with --templates); found --k alone"),
        (["--labels", "red,blue", "--k", "3"], "--classes: must be given once, without --k; found --k"),
        (["--labels", "red,blue", "--classes", "red,grey"], "must be given once, without --k; found 2 of --classes"),
        (["--labels", "red,zebra"], "must hold a word that the pairs held; found 'zebra'"),
    ],
)
def test_bad_questions_are_refused(more, message: str, aligned: Path, seen: Path, tmp_path: Path, call: Run):
    texts = {"empty": "\n \n", "table": "a,b\n1,2\n", "strange": "zebra\n", "known": "red\n"}
    places = {name: tmp_path / f"{name}.{'csv' if name == 'table' else 'txt'}" for name in texts}
    for name, text in texts.items():
        places[name].write_text(text, encoding="utf-8")
    words = ["predict", aligned, pd.read_csv(seen)["file"][0], "--out", tmp_path / "p.csv", "--device", "cpu"]
    status, _, err = call([*words, *(word.format(**places) for word in more)])
    assert status == 2 and message in " ".join(err.split()), err
    assert not (tmp_path / "p.csv").exists()


def test_captions_need_texts_that_are_aligned(paired: Path, trained: Path, seen: Path):
    file = pd.read_csv(seen)["file"].tolist()[:1]
    with pytest.raises(UsageError, match="must have aligned samples with texts; found image and infrared"):
        mt.captions(file, ["red"], encoder=str(paired), device="cpu")
    with pytest.raises(UsageError, match="'test': must have a text tower; found an encoder without one. Ways out"):
        mt.captions(file, ["red"], encoder="test")
    with pytest.raises(UsageError, match="must share a space with texts; found a fitted model"):
        mt.captions(file, ["red"], encoder=str(trained))
    with pytest.raises(UsageError, match="captions: must be texts, or a file of them; found a int"):
        mt.captions(file, [3], encoder=str(paired))


def test_labels_are_classes(aligned: Path, seen: Path, tmp_path: Path, call: Run):
    file, out = pd.read_csv(seen)["file"][0], tmp_path / "p.csv"
    tables = []
    for flag in ("--labels", "--classes"):
        status, _, err = call(["predict", aligned, file, flag, "red,blue", "--out", out, "--device", "cpu"])
        assert status == 0, err
        tables.append(pd.read_csv(out))
    assert tables[0].equals(tables[1]) and tables[0]["prediction"][0] == "red"
