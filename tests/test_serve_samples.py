"""Forms of samples that a server takes, and what strangers may say in them: no text of theirs ever names a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from common import make_records, tiny_pipeline, tiny_recipe

from metatransformer.core.errors import DataError
from metatransformer.data.given import Sheet
from metatransformer.infer.embed import embedding
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.sources import split_dataset
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, build_pipeline
from metatransformer.recipe import make_recipe, parse_inputs
from metatransformer.serve.answers import predictions
from metatransformer.serve.engine import compute
from metatransformer.serve.hosted import Hosted
from metatransformer.serve.reading import Most, Read, Spec, read
from metatransformer.serve.samples import asked_of
from metatransformer.serve.uploads import Uploads, resolve
from metatransformer.trunk import load_encoder

MOST = Most(37, 2**24)


def hosted_of(pipeline: Pipeline) -> Hosted:
    return Hosted("model", pipeline, embedding(pipeline, pool=""))


def take(hosted: Hosted, uploads: Uploads, *, inputs: Any = None, rows: Any = None) -> Read:
    """Reads here what a server reads in another process."""
    tree, spec = resolve(inputs, uploads, {}), Spec.of(hosted.pipeline)
    asked = asked_of(hosted, inputs=tree, rows=rows, uploads=uploads)
    return read(asked, spec.recipe, spec.route(), MOST)


def answer(hosted: Hosted, uploads: Uploads, **given: Any) -> list[dict[str, Any]]:
    found = take(hosted, uploads, **given)
    return predictions(hosted, found, compute(hosted, found.samples, vectors=False), uploads)


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    return Uploads(tmp_path, most=7)


def keep(uploads: Uploads, name: str, text: str) -> Path:
    path = uploads.place(name)
    path.write_text(text, encoding="utf-8")
    return path


def test_texts_are_texts_whatever_they_are_called_like(uploads: Uploads, tmp_path: Path):
    (tmp_path / "there.txt").write_text("secret", encoding="utf-8")
    hosted = hosted_of(tiny_pipeline("text"))
    given = ["a fine film", "notes.txt", "/etc/passwd", str(tmp_path / "there.txt")]
    found = take(hosted, uploads, inputs=given)
    assert [record.value["text"] for record in found.examples.records("text")] == given
    assert [one["prediction"] in ("a", "b") for one in answer(hosted, uploads, inputs=given)] == [True] * 4


@pytest.mark.parametrize("modality", ["text", "graph", "imu", "hyperspectral"])
def test_a_table_that_lists_files_lists_nothing(modality: str, uploads: Uploads, tmp_path: Path):
    secret = tmp_path / "secret.txt"
    secret.write_text("secret", encoding="utf-8")
    hosted = hosted_of(tiny_pipeline(modality))
    keep(uploads, "manifest.csv", f"path,label\n{secret},a\n{secret},b\n")
    spec = Spec.of(hosted.pipeline)
    asked = asked_of(hosted, inputs=None, rows=None, uploads=uploads)
    assert asked.table is not None and isinstance(asked.given(), Sheet) and not asked.given().lists_files
    try:
        found = read(asked, spec.recipe, spec.route(), MOST)
    except DataError:
        return  # it is no data of this kind
    assert all(path != secret for path in found.examples.records(modality).paths)
    assert "secret" not in [cell for row in found.examples.records(modality).values for cell in (row or {}).values()]


def test_rows_of_a_table(uploads: Uploads):
    modality = get_modality("tabular")
    hosted = hosted_of(tiny_pipeline("tabular"))
    rows = [dict(record.value) for record in make_records(modality, train=3, seed=5)]
    rows[1] = {name: "/etc/passwd" if isinstance(value, str) else value for name, value in rows[1].items()}
    found = answer(hosted, uploads, rows=rows)
    assert [one["key"] for one in found] == ["0", "1", "2"] and set(found[0]["probabilities"]) == {"a", "b"}
    frame = pd.DataFrame(rows)
    path = uploads.place("people.csv")
    frame.to_csv(path, index=False)
    assert [one["prediction"] for one in answer(hosted, uploads)] == [one["prediction"] for one in found]


def test_molecules_and_arrays(uploads: Uploads):
    graphs = hosted_of(tiny_pipeline("graph"))
    assert len(answer(graphs, uploads, inputs=["CCO", "c1ccccc1"])) == 2
    assert len(answer(graphs, uploads, inputs=[{"smiles": "CCO"}])) == 1
    with pytest.raises(DataError, match="SMILES|understood|molecule"):
        answer(graphs, uploads, inputs=["molecules.csv"])
    sounds = hosted_of(tiny_pipeline("audio"))
    with pytest.raises(DataError):
        answer(sounds, uploads, inputs=[[["a", "b"]]])


def test_a_series_goes_on(uploads: Uploads):
    frame = pd.DataFrame(
        {"time": pd.date_range("2026-01-01", periods=97, freq="h").astype(str), "load": np.sin(np.arange(97) / 4)}
    )
    base = {"encoder": "test", "input": {"lookback": 24, "horizon": 3}, "task": {"target": "load"}}
    settings = {"head.read": [1], "run.device": "cpu", "run.precision": "float32"}
    recipe = make_recipe("timeseries", base=base, overrides=settings)
    data = read_dataset(frame, recipe, labelled=True)
    examples, recipe = split_dataset(data, console=Console(quiet=True))
    pipeline = build_pipeline(recipe, trunk=load_encoder("test"), examples=examples)
    found = answer(hosted_of(pipeline), uploads, rows=frame.to_dict("records"))
    assert len(found) == 3 and found[0]["task"] == "forecast"


@pytest.fixture(scope="module")
def joint() -> Hosted:
    """Returns a model of pictures, texts and two columns."""
    rng = np.random.default_rng(0)
    words = ["a fine film", "dull and long"]
    rows = [
        {
            "photo": rng.integers(0, 255, size=(17, 17, 3), dtype=np.uint8),
            "notes": words[n % 2],
            "age": float(n),
            "dose": float(n % 3),
            "label": "ab"[n % 2],
        }
        for n in range(13)
    ]
    inputs = parse_inputs("photo=image,notes=text,rest=tabular(age,dose)")
    vocabulary = get_modality("text").synthetic["input.vocabulary"]
    overrides = {
        "encoder": "test",
        "task.name": "classify",
        "task.target": "label",
        "inputs.photo.size": 16,
        "inputs.notes.vocabulary": vocabulary,
        "head.features": "trunk",
        "run.device": "cpu",
        "run.precision": "float32",
    }
    recipe = make_recipe(base={"inputs": inputs}, overrides=overrides)
    examples, recipe = split_dataset(
        read_dataset(pd.DataFrame(rows), recipe, labelled=True), console=Console(quiet=True)
    )
    return hosted_of(build_pipeline(recipe, trunk=load_encoder("test"), examples=examples))


def picture(uploads: Uploads, name: str) -> None:
    from PIL import Image

    Image.fromarray(np.zeros((17, 17, 3), dtype=np.uint8)).save(uploads.place(name))


def test_samples_of_several_inputs(joint: Hosted, uploads: Uploads):
    picture(uploads, "x.png")
    inputs = [
        {"photo": {"file": "x.png"}, "notes": "notes.txt", "rest": {"age": 3, "dose": None}},
        {"notes": "/etc/passwd", "age": 4, "dose": 1},
        {"photo": {"file": "x.png"}},
    ]
    found = answer(joint, uploads, inputs=inputs)
    assert [one["key"] for one in found] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"photo": "/etc/passwd"}, "photo"),
        ({"photo": "x.png"}, "photo"),
        ({"notes": {"file": "x.png"}}, "end in"),
        ({"nonsense": 1}, "nonsense"),
        ({"age": [1, 2]}, "age"),
        ({"age": 2**70}, "64 bits"),
        ({}, "at least|object"),
        ("text", "object"),
    ],
)
def test_refuses_samples_of_several_inputs(joint: Hosted, uploads: Uploads, sample: Any, message: str):
    picture(uploads, "x.png")
    with pytest.raises(DataError, match=message):
        answer(joint, uploads, inputs=[sample])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "at least one"),
        ([1], "one form"),
        (["a", 1], "one form"),
        ([{"a": []}], "be a text, a number"),
        ([[]], "equal length|one form"),
    ],
)
def test_refuses_other_forms(inputs: Sequence[Any], message: str, uploads: Uploads):
    with pytest.raises(DataError, match=message):
        answer(hosted_of(tiny_pipeline("text")), uploads, inputs=inputs)


def test_more_samples_than_a_request_may_have(uploads: Uploads):
    with pytest.raises(DataError, match="at most 37 samples"):
        answer(hosted_of(tiny_pipeline("text")), uploads, inputs=["words"] * 38)


def test_names_of_strangers_are_shown_and_nothing_else(tmp_path: Path):
    uploads = Uploads(tmp_path, most=8)
    first, second = uploads.place("../../cube.hdr"), uploads.place("C:\\data\\cube.IMG")
    assert first.parent == second.parent == uploads.folder and first.stem == second.stem
    assert (first.suffix, second.suffix) == (".hdr", ".img")
    assert uploads.place("x.tar.gz").name.endswith(".tar.gz") and uploads.place("a.b.png").suffix == ".png"
    assert uploads.place("\0\n").suffix == "" and uploads.place("").suffix == ""
    assert uploads.shown(f"{first}: must be whole") == "cube.hdr: must be whole"
    assert uploads.place("x.png") != uploads.place("x.png")
    with pytest.raises(DataError, match="at most 8 files"):
        uploads.place("one.more")


def test_fit_still_reads_manifests(tmp_path: Path):
    """What a person at this machine hands in may name files."""
    (tmp_path / "a.txt").write_text("a text", encoding="utf-8")
    recipe = tiny_recipe(get_modality("text"))
    (tmp_path / "m.csv").write_text("path\na.txt\n", encoding="utf-8")
    assert read_dataset(tmp_path / "m.csv", recipe, labelled=False).examples.records("text").paths[0]
