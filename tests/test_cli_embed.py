"""``metatransformer embed``: what it writes, goes on with, and refuses."""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from common import CLI_IMAGE as IMAGE
from common import CLI_SETTINGS as SETTINGS
from common import Run, assert_one_message

import metatransformer as mt
import metatransformer.infer.embed as embed_module

NEEDS_OPENVINO = pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="needs the extra openvino")


def test_embed_writes_one_vector_for_each_file(pictures: Path, tmp_path: Path, call: Run):
    words = ["embed", pictures, *IMAGE, "--pool", "both", "--out", tmp_path / "e.parquet", *SETTINGS]
    status, result, err = call(words)
    assert status == 0, err
    assert result == {"out": str(tmp_path / "e.parquet"), "rows": 24, "width": 64, "done_before": 0}
    found = pd.read_parquet(tmp_path / "e.parquet")
    assert found["id"].tolist()[:2] == ["a/0.png", "a/2.png"] and set(found["modality"]) == {"image"}
    assert np.stack(found["embedding"]).shape == (24, 64)
    metadata = pq.read_schema(tmp_path / "e.parquet").metadata
    assert metadata[b"metatransformer.encoder"] == b"test" and metadata[b"metatransformer.pooling"] == b"both"
    status, result, _ = call(words)
    assert status == 0 and result["done_before"] == 24


@pytest.mark.parametrize(("asked", "faithful", "kept"), [("auto", 0.9, "bfloat16"), ("auto", 1.1, "float32"),
                                                         ("float32", 0.9, "float32")])  # fmt: skip
def test_embed_takes_half_precision_where_it_proves_itself(
    pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch, asked: str, faithful: float, kept: str
):
    monkeypatch.setattr(embed_module, "choose_precision", lambda name, *, device: torch.bfloat16)
    monkeypatch.setattr(embed_module, "GAINS", 20)
    monkeypatch.setattr(embed_module, "FAITHFUL", faithful)
    words = ["embed", pictures, *IMAGE, "--precision", asked, *SETTINGS, "--out"]
    words = [word for word in words if word != 'run.precision="float32"']
    status, _, err = call([*words, tmp_path / "e.parquet"])
    assert status == 0 and ("cosine" in err) == (asked == "auto"), err
    assert pq.read_schema(tmp_path / "e.parquet").metadata[b"metatransformer.precision"] == kept.encode()
    exact = [*words[: words.index("--precision")], "--precision", "float32", *SETTINGS, "--out", tmp_path / "f.parquet"]
    assert call(exact)[0] == 0
    found, right = (np.stack(pd.read_parquet(tmp_path / name)["embedding"]) for name in ("e.parquet", "f.parquet"))
    assert np.array_equal(found, right) == (kept == "float32")
    np.testing.assert_allclose(found, right, atol=0.05)


WITHOUT = [word for word in SETTINGS if word != 'run.precision="float32"']


@NEEDS_OPENVINO
@pytest.mark.parametrize(("faithful", "kept"), [(0.9, "int8"), (1.1, "float32")])
def test_embed_takes_8_bits_where_there_is_no_bfloat16_and_they_prove_themselves(
    pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch, faithful: float, kept: str
):
    monkeypatch.setattr(embed_module, "choose_precision", lambda name, *, device: torch.float32)
    monkeypatch.setattr(embed_module, "cpu_multiplies_int8", lambda: True)
    for name, value in (("GAINS", 20), ("CONVERTS_WITHOUT", 24), ("FAITHFUL", faithful)):
        monkeypatch.setattr(embed_module, name, value)
    status, _, err = call(["embed", pictures, *IMAGE, *WITHOUT, "--out", tmp_path / "e.parquet"])
    assert status == 0 and f"precision {kept}: " in err, err
    assert pq.read_schema(tmp_path / "e.parquet").metadata[b"metatransformer.precision"] == kept.encode()


@NEEDS_OPENVINO
def test_precision_int8_is_the_backend_of_that_name(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    words = ["embed", pictures, *IMAGE, *WITHOUT, "--out"]
    ways = {"p": ["--precision", "int8"], "b": ["--backend", "int8"], "f": ["--precision", "float32"]}
    vectors = {}
    for name, way in ways.items():
        assert call([*words, tmp_path / f"{name}.parquet", *way])[0] == 0
        vectors[name] = np.stack(pd.read_parquet(tmp_path / f"{name}.parquet")["embedding"])
    np.testing.assert_allclose(vectors["p"], vectors["b"], atol=1e-6)
    assert not np.array_equal(vectors["p"], vectors["f"])
    np.testing.assert_allclose(vectors["p"], vectors["f"], atol=0.25)
    status, _, err = call([*words, tmp_path / "x.parquet", "--precision", "int8", "--backend", "eager"])
    assert status == 2 and not (tmp_path / "x.parquet").exists()
    assert_one_message(
        err, "--precision int8: must be computed by OpenVINO; found --backend eager. Leave one of them out."
    )
    given = ["embed", pictures / "a", "--model", trained, "--precision", "int8", "--out", tmp_path / "m.parquet"]
    assert call(given)[0] == 0
    assert pq.read_schema(tmp_path / "m.parquet").metadata[b"metatransformer.precision"] == b"int8"
    assert call(["evaluate", trained, "--backend", "int8"])[0] == 0


def test_embed_in_parts_equals_embed_in_one(pictures: Path, tmp_path: Path, call: Run):
    words = ["embed", pictures, *IMAGE, *SETTINGS, "--shard-rows", 5, "--out"]
    assert call([*words, tmp_path / "one.parquet"])[0] == 0
    out, told = tmp_path / "parts.parquet", []
    for part in ("2/2", "1/2"):
        status, result, err = call([*words, out, "--shard", part])
        assert status == 0 and not out.exists(), err
        told.append((result["rows"], result["missing"]))
    assert told == [(10, 14), (24, 0)] and "the same command without --shard completes" in err
    status, result, _ = call([*words, out])
    assert status == 0 and result["done_before"] == 24
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "one.parquet"), pd.read_parquet(out), atol=1e-5)
    assert call([*words, out, "--shard", "3/2"])[0] == 2


@NEEDS_OPENVINO
def test_every_backend_gives_nearly_the_same_vectors_and_predictions(
    pictures: Path, trained: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch
):
    for name in ("CONVERTS", "CONVERTS_WITHOUT"):  # what "auto" asks for
        monkeypatch.setattr(embed_module, name, 24)
    words = ["embed", pictures, *IMAGE, *SETTINGS, "--out"]
    assert call([*words, tmp_path / "e.parquet", "--backend", "eager"])[0] == 0
    status, _, err = call([*words, tmp_path / "o.parquet"])
    assert status == 0 and "backend openvino: the first batch takes a while" in err
    one, other = (np.stack(pd.read_parquet(tmp_path / name)["embedding"]) for name in ("e.parquet", "o.parquet"))
    assert not np.array_equal(one, other)
    np.testing.assert_allclose(one, other, atol=1e-4)
    for name in ("eager", "openvino"):
        assert call(["predict", trained, pictures / "a", "--out", tmp_path / f"{name}.csv", "--backend", name])[0] == 0
        assert call(["evaluate", trained, "--backend", name])[0] == 0
    eager, openvino = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("eager", "openvino"))
    assert eager["prediction"].tolist() == openvino["prediction"].tolist()


def test_embed_by_a_trained_model(pictures: Path, trained: Path, tmp_path: Path, call: Run):
    words = ["embed", pictures / "a", "--model", trained, "--out"]
    status, result, err = call([*words, tmp_path / "s.parquet", "--pool", "summary"])
    assert status == 0 and (result["rows"], result["width"]) == (12, 32), err
    status, result, err = call([*words, tmp_path / "e.parquet"])  # what the head predicts from, as ``transform``
    assert status == 0 and (result["rows"], result["width"]) == (12, 64), err
    found = np.stack(pd.read_parquet(tmp_path / "e.parquet")["embedding"])
    files = [pictures / key for key in pd.read_parquet(tmp_path / "e.parquet")["id"].map("a/{}".format)]
    np.testing.assert_allclose(mt.load(trained).transform(files), found, atol=1e-5)
    status, _, err = call([*words, tmp_path / "x.parquet", "--pool", "nonsense"])
    assert status == 2
    assert_one_message(err, "pool: must be one of summary, mean, .*features; found 'nonsense'")


def test_embed_continues_neither_with_another_model_nor_on_changed_files(
    pictures: Path, trained: Path, tmp_path: Path, call: Run
):
    folder, out = tmp_path / "a", tmp_path / "e.parquet"
    shutil.copytree(pictures / "a", folder)
    words = ["embed", folder, *IMAGE, "--out", out, *SETTINGS]
    assert call(words)[0] == 0
    # A head alone leaves the vectors as they are.
    by_model = ["embed", folder, "--out", out, "--pool", "summary", "--model"]
    assert call([*by_model, trained])[1]["done_before"] == 12
    ends = tmp_path / "ends"
    # A fresh head: a solved one would be kept, untuned, where an epoch is no gain.
    learn = ["fit", pictures, *IMAGE, "--tune", "ends", "--epochs", 1, "--out", ends, *SETTINGS, "head.hidden=3"]
    assert call(learn)[0] == 0
    for other in ([*by_model, ends], [*words, "input.size=32"]):
        status, _, err = call(other)
        assert status == 2 and "another model or other settings" in " ".join(err.split()), err
    file = min(folder.iterdir())
    file.write_bytes(file.read_bytes() + b"\0")
    status, _, err = call(words)
    assert status == 2 and "this one has files or values that changed since" in " ".join(err.split()), err


def test_embed_says_when_a_front_end_was_never_trained(table: Path, tmp_path: Path, call: Run):
    words = ["embed", table, "--modality", "tabular", "--encoder", "test", "--out", tmp_path / "e.parquet"]
    status, result, err = call(words)
    assert status == 0 and result["rows"] == 40, err
    assert "warning: the tabular tokenizer was never trained on tabular data" in " ".join(err.split())


def test_vectors_of_a_table_do_not_see_its_target(table: Path, tmp_path: Path, call: Run):
    blind = pd.read_csv(table).drop(columns="label")
    blind.to_csv(tmp_path / "blind.csv", index=False)
    words = ["--modality", "tabular", "--encoder", "test", "--out"]
    vectors = []
    for number, data in enumerate(([tmp_path / "blind.csv"], [table, "--target", "label"], [table])):
        assert call(["embed", data[0], *words, tmp_path / f"{number}.parquet", *data[1:]])[0] == 0
        vectors.append(np.stack(pd.read_parquet(tmp_path / f"{number}.parquet")["embedding"]))
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert not np.allclose(vectors[0], vectors[2])
    with pytest.warns(UserWarning, match="never trained"):
        made = mt.Embedder("tabular", encoder="test", target="label", device="cpu").fit_transform(pd.read_csv(table))
    np.testing.assert_allclose(made, vectors[0], rtol=1e-5, atol=1e-6)


def test_an_interrupted_embed_continues(pictures: Path, tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    embed, calls = embed_module.embed, []

    def interrupted(model, records, *, console):
        calls.append(len(records))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return embed(model, records, console=console)

    monkeypatch.setattr(embed_module, "embed", interrupted)
    words = ["embed", pictures, *IMAGE, "--shard-rows", 7, "--out", tmp_path / "e.parquet", *SETTINGS]
    status, _, err = call(words)
    assert status == 130 and "the same command continues" in err and not (tmp_path / "e.parquet").exists()
    status, result, err = call(words)
    assert status == 0 and result["done_before"] == 14 and "14 of 24 rows are done already" in err
    assert calls == [7, 7, 7, 7, 3]
    assert pd.read_parquet(tmp_path / "e.parquet")["id"].is_unique


def test_a_bad_picture_leaves_no_embeddings_behind(pictures: Path, tmp_path: Path, call: Run):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "bad.png").write_bytes((pictures / "a" / "2.png").read_bytes()[:77])
    status, _, err = call(["embed", tmp_path / "data", *IMAGE, "--out", tmp_path / "e.parquet", *SETTINGS])
    assert status == 2 and [path.name for path in tmp_path.iterdir()] == ["data"]
    assert_one_message(err, "bad.png: must be a whole picture")
