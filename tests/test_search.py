"""Search in what ``embed`` wrote: exact against numpy, the right model or a refusal, near duplicates with pictures."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from common import run
from PIL import Image

from metatransformer.core.errors import DataError
from metatransformer.data.shards import open_shards
from metatransformer.data.stored import open_stored
from metatransformer.infer.approximate import nearest_approximately, place_of
from metatransformer.infer.search import find_duplicates, nearest_rows
from metatransformer.machine.console import Console

QUIET = Console(quiet=True)
TINY = ["--modality", "image", "--encoder", "test", "--device", "cpu", "input.size=28"]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Seven pictures of noise; the last is the first with a grey corner."""
    rng, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    drawn = [rng.integers(0, 255, size=(28, 28, 3), dtype=np.uint8) for _ in range(6)]
    drawn.append(drawn[0].copy())
    drawn[-1][:3, :3] = 128
    for number, pixels in enumerate(drawn):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def stored_of(vectors: np.ndarray, out: Path, *, shard_rows: int) -> Path:
    """Writes vectors as ``embed`` would."""
    shards = open_shards(
        out,
        ids=[f"s{row}" for row in range(len(vectors))],
        paths=[None] * len(vectors),
        modality="image",
        width=vectors.shape[1],
        metadata={"model": "m", "pooling": "summary"},
        shard_rows=shard_rows,
    )
    for shard in shards.pending():
        rows = shards.rows(shard)
        shards.write(shard, found=vectors[rows.start : rows.stop])
    return shards.finish()


@pytest.mark.parametrize("name", ["folder", "one.parquet"])
def test_search_is_exact_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    rng = np.random.default_rng(0)
    vectors, queries = rng.normal(size=(101, 7)).astype(np.float32), rng.normal(size=(5, 7)).astype(np.float32)
    stored = open_stored(stored_of(vectors, tmp_path / name, shard_rows=13))
    monkeypatch.setattr("metatransformer.data.stored.BLOCK_BYTES", 4 * 7 * 17)
    cosines, rows = nearest_rows(stored, torch.from_numpy(queries), count=4, console=QUIET)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, vectors)]
    near = unit[0] @ unit[1].T
    order = np.argsort(-near, axis=1)[:, :4]
    np.testing.assert_array_equal(rows.numpy(), order)
    np.testing.assert_allclose(cosines.numpy(), np.take_along_axis(near, order, axis=1), rtol=1e-5)
    assert stored.about([100, 3])[0] == ["s100", "s3"]


def test_an_index_finds_what_the_exact_search_finds_and_is_built_once(tmp_path: Path):
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(29, 11))
    vectors = (middles[rng.integers(29, size=997)] + 0.3 * rng.normal(size=(997, 11))).astype(np.float32)
    stored = open_stored(stored_of(vectors, tmp_path / "index", shard_rows=101))
    queries = torch.from_numpy(vectors[::83] + 0.01)
    for _ in range(2):
        cosines, rows = nearest_approximately(stored, queries, count=5, console=QUIET)
        exact, wanted = nearest_rows(stored, queries, count=5, console=QUIET)
        shared = [len({*a} & {*b}) for a, b in zip(rows.tolist(), wanted.tolist(), strict=True)]
        assert np.mean(shared) > 4.5 and cosines.shape == exact.shape
        np.testing.assert_allclose(cosines[:, 0], exact[:, 0], atol=2e-3)  # half precision
    (path,) = (tmp_path / "index").glob("*.faiss")
    assert path == place_of(stored)
    every, _ = nearest_approximately(stored, queries, count=997, console=QUIET)
    assert every.shape == (len(queries), 997) and every.isfinite().all()
    again = open_stored(stored_of(vectors[:500], tmp_path / "other.parquet", shard_rows=101))
    assert place_of(again).name.startswith("other.parquet.")
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(DataError, match="must be an index; found .*Remove the file"):
        nearest_approximately(stored, queries, count=5, console=QUIET)


def test_an_index_without_its_library_is_refused_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setitem(sys.modules, "faiss", None)
    status, _, err = run(["search", tmp_path / "none", "a.png", "--approximate"], capsys)
    assert status == 2 and "must have the package 'faiss-cpu' installed" in err and "[index]" in err


def test_an_index_by_command(pictures: Path, tmp_path: Path, capsys):
    pytest.importorskip("faiss")
    index = tmp_path / "index.parquet"
    assert run(["embed", pictures, *TINY, "--out", index], capsys)[0] == 0
    found = []
    for more in ([], ["--approximate"], ["--approximate"]):
        status, _, err = run(
            ["search", index, pictures / "3.png", "--k", 2, "--out", tmp_path / "n.csv", *more], capsys
        )
        assert status == 0, err
        found.append(pd.read_csv(tmp_path / "n.csv")["id"].tolist())
    assert found[0] == found[1] == found[2]
    assert len(list(tmp_path.glob("index.parquet.*.faiss"))) == 1


def test_duplicates_are_every_pair_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(61, 5)).astype(np.float32)
    vectors[40], vectors[7] = vectors[3] * 2, vectors[50] + 1e-3
    stored = open_stored(stored_of(vectors, tmp_path / "one.parquet", shard_rows=11))
    monkeypatch.setattr("metatransformer.data.stored.BLOCK_BYTES", 4 * 5 * 16)
    table, total = find_duplicates(stored, above=0.9, console=QUIET)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    near = np.triu(unit @ unit.T, k=1)
    assert total == len(table) == (near >= 0.9).sum()
    assert table.iloc[0][["id", "twin"]].tolist() == ["s3", "s40"] and table["similarity"].is_monotonic_decreasing
    monkeypatch.setattr("metatransformer.infer.search.MOST_PAIRS", 1)
    table, again = find_duplicates(stored, above=0.9, console=QUIET)
    assert again == total and len(table) == 1


def test_by_command_with_the_model_of_the_manifest(pictures: Path, tmp_path: Path, capsys):
    index, out = tmp_path / "index.parquet", tmp_path / "near.csv"
    status, _, err = run(["embed", pictures, *TINY, "--out", index], capsys)
    assert status == 0, err
    status, result, err = run(["search", index, pictures / "3.png", pictures / "6.png", "--k", 2, "--out", out], capsys)
    assert status == 0 and result["rows"] == 7 and "7 vectors of width" in err, err
    near = pd.read_csv(out)
    assert near["query"].tolist() == ["3.png", "3.png", "6.png", "6.png"] and near["rank"].tolist() == [1, 2, 1, 2]
    assert near["id"].tolist()[0] == "3.png" and near["id"].tolist()[2:] == ["6.png", "0.png"]
    assert near["similarity"][0] == pytest.approx(1, abs=1e-5)
    page = tmp_path / "twins.html"
    status, result, err = run(["search", index, "--duplicates", "--above", 0.99999, "--out", page], capsys)
    assert status == 0 and result["pairs"] >= 0, err
    status, result, err = run(["search", index, "--duplicates", "--above", -0.99, "--out", page], capsys)
    assert status == 0 and result["pairs"] == 21, err
    text = page.read_text(encoding="utf-8")
    assert text.count("data:image/png;base64,") == 42 and "21 pairs of 7 samples" in text


def test_a_fitted_model_is_found_again_or_refused(pictures: Path, tmp_path: Path, capsys):
    for number in range(6):
        place = tmp_path / "data" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        for copy in range(4):
            (place / f"{number}_{copy}.png").write_bytes((pictures / f"{number}.png").read_bytes())
    words = ["fit", tmp_path / "data", *TINY, "--out", tmp_path / "run", "head.features=trunk", "head.centres=0"]
    words += ["head.read=[-1]"]
    assert run(words, capsys)[0] == 0
    index = tmp_path / "index"
    status, _, err = run(["embed", pictures, "--model", tmp_path / "run", "--out", index], capsys)
    assert status == 0, err
    status, result, err = run(["search", index, pictures / "2.png"], capsys)
    assert status == 0 and result["listed"] == 7, err
    (tmp_path / "run").rename(tmp_path / "moved")
    status, _, err = run(["search", index, pictures / "2.png"], capsys)
    assert status == 2 and "must be a saved model" in err
    status, _, err = run(["search", index, pictures / "2.png", "--model", tmp_path / "moved"], capsys)
    assert status == 0, err
    assert run([*words[:-1], "head.read=[1]", "--seed", 1], capsys)[0] == 0
    status, _, err = run(["search", index, pictures / "2.png"], capsys)
    assert status == 2 and "must be the model that made" in err and "another one" in err
    manifest = index / "manifest.json"
    told = json.loads(manifest.read_text(encoding="utf-8"))
    manifest.write_text(json.dumps({key: value for key, value in told.items() if key != "run"}), encoding="utf-8")
    status, _, err = run(["search", index, pictures / "2.png"], capsys)
    assert status == 2 and "must tell its model; found vectors of an older revision" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing.parquet", "a.png"], "must be embeddings that 'metatransformer embed' wrote.*found nothing"),
        (["table.parquet", "a.png"], "must be embeddings that .*found another file"),
        (["rest", "a.png"], "must hold all of its 20 vectors; found 10"),
        (["empty", "a.png"], "must hold at least one vector; found none"),
        (["whole"], "search: must get one of PATH, --text and --duplicates; found none of them"),
        (["whole", "a.png", "--duplicates"], "must get one of PATH, --text and --duplicates; found PATH and --dup"),
        (["whole", "a.png", "--text", "red"], "found PATH and --text. Similarities within and across kinds of data"),
        (["whole", "a.png", "--k", "0"], "--k: must be at least 1; found 0"),
        (["whole", "a.png", "--above", "0.9"], "--above: must go with --duplicates; found 0.9"),
        (["whole", "--duplicates", "--above", "1.5"], r"--above: must lie in \[-1, 1\); found 1.5"),
        (["whole", "a.png", "--out", "near.xyz"], "must end in"),
        (["whole", "--duplicates", "--approximate"], "--approximate: must go with PATH; found --duplicates"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, words: list[str], message: str):
    import re

    monkeypatch.chdir(tmp_path)
    vectors = np.ones((20, 3), dtype=np.float32)
    for name in ("whole", "rest", "empty"):
        stored_of(vectors, tmp_path / name, shard_rows=10)
    (tmp_path / "rest" / "part-00001-of-00002.parquet").unlink()
    for path in (tmp_path / "empty").glob("*.parquet"):
        path.unlink()
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "table.parquet")
    status, _, err = run(["search", *words], capsys)
    assert status == 2 and re.search(message, err), err
    assert not (tmp_path / "near.xyz").exists()


def test_an_index_that_is_continued_may_have_been_begun_by_an_older_revision(pictures: Path, tmp_path: Path, capsys):
    index = tmp_path / "index"
    assert run(["embed", pictures, *TINY, "--out", index], capsys)[0] == 0
    (part,) = index.glob("*.parquet")
    told = json.loads((index / "manifest.json").read_text(encoding="utf-8"))
    told.pop("recipe")
    (index / "manifest.json").write_text(json.dumps(told), encoding="utf-8")
    status, result, err = run(["embed", pictures, *TINY, "--out", index], capsys)
    assert status == 0 and result["done_before"] == 7, err
    assert pq.read_metadata(part).num_rows == 7
