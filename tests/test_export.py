"""Graphs of saved models of every modality answer as these do, and the folders run without torch."""

import csv
import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from common import ROOT, assert_one_message, run_alone
from saved_answers import SAVED, inputs_of

from metatransformer.core.batch import collate
from metatransformer.core.errors import UsageError
from metatransformer.core.uniform import uniform
from metatransformer.export import prepared
from metatransformer.export.folder import require_equal
from metatransformer.export.graph import Graph, entries_of, tensors_of
from metatransformer.export.page import Parity
from metatransformer.export.runtime.text import murmur3
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.loader import Loader
from metatransformer.saved import load_pipeline

# One saved model a modality and task, and some of other heads, adapters and inputs.
MODALITIES = [
    *("image", "audio", "text", "tabular", "imu", "timeseries", "hyperspectral", "graph", "pointcloud", "video"),
    *("xray", "infrared"),
]
# ONNX takes torch 4 to 19 s of processor time a model: of these five the cheaper format is written here, and ONNX by
# "pytest -m large tests/test_export.py".
CHEAPER = ("imu", "hyperspectral", "video", "xray", "infrared")
KINDS = {name: "torch" if name in CHEAPER else "onnx" for name in MODALITIES}
CASES = [*MODALITIES, "series", "groups", "regress", "multilabel", "hidden", "lora", "pairs"]
no_onnx = pytest.mark.skipif(
    not (find_spec("onnxscript") and find_spec("onnxruntime")), reason="needs the extra export: onnxscript, onnxruntime"
)


def opened(name: str):
    """Returns the pipeline of a saved model, a loader of its samples, and what its graph takes."""
    pipeline = load_pipeline(SAVED / name / "model")
    pipeline = pipeline.of_task(next(iter(pipeline.tasks)))
    examples = read_dataset(str(inputs_of(SAVED / name)), pipeline.recipe, labelled=False).examples
    loader = Loader(pipeline.route, examples, cache_mb=64, tasks={})
    entries = entries_of(pipeline, collate([loader.sample(0)], fields=loader.fields))
    return pipeline, loader, entries


@pytest.mark.parametrize("name", CASES)
def test_the_graph_of_whole_samples_answers_as_the_model(name: str):
    pipeline, loader, entries = opened(name)
    graph = Graph(pipeline, entries).eval()
    for row in range(min(4, len(loader))):
        batch = collate([loader.sample(row)] * 2, fields=loader.fields)
        with torch.no_grad():
            outputs, _ = graph(*tensors_of(pipeline, batch, entries))
            torch.testing.assert_close(outputs, pipeline.model(batch, pipeline.task_name), rtol=1e-5, atol=1e-5)


def test_a_batch_without_padding_is_pooled_as_ever():
    pipeline, loader, _ = opened("imu")
    batch = collate([loader.sample(0)] * 3, fields=loader.fields)
    tokenizer, part = pipeline.model.tokenizer("imu"), batch.parts["imu"]
    with uniform():
        found = tokenizer(part.inputs, part.masks)
    true = tokenizer(part.inputs, part.masks)
    torch.testing.assert_close(found.x, true.x)
    assert torch.equal(found.mask, true.mask)


EXPORT = """
import json, sys
from pathlib import Path
from metatransformer.faces.cli import main
kind, out = sys.argv[1], Path(sys.argv[2])
for pair in sys.argv[3:]:
    name, model, data = pair.split("=")
    assert main(["export", model, "--data", data, "--format", kind, "--out", str(out / name)]) == 0, name
"""


def exported(kind: str, names: list[str], out: Path) -> dict[str, dict]:
    """Exports saved models by the command line in one process, which no hook slows down; returns their figures."""
    words = [f"{name}={SAVED / name / 'model'}={inputs_of(SAVED / name)}" for name in names]
    done = run_alone(["-c", EXPORT, kind, out, *words], timeout_s=540)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(names, told, strict=True))


def asked(folder: Path, kind: str, names: list[str]):
    """Returns what answers arrays by name, as the folder's graph does."""
    if kind == "torch":
        module = torch.export.load(folder / "model.pt2").module(check_guards=False)
        return lambda given: [out.numpy() for out in module(*(torch.from_numpy(given[name]) for name in names))]
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)


def assert_equal(name: str, kind: str, folder: Path, told: dict) -> None:
    """Checks a folder's graph against the model at two lengths and three sizes of a batch."""
    assert told["difference"] < 1e-4
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["parity"]["prepared"] < 1e-4
    pipeline, loader, entries = opened(name)
    names = [entry.name(alone=True) for entry in entries]
    graph = asked(folder, kind, names)
    for count, row in ((3, 0), (1, 1 % len(loader)), (5, 3 % len(loader))):
        batch = collate([loader.sample(row)] * count, fields=loader.fields)
        given = {one: x.numpy() for one, x in zip(names, tensors_of(pipeline, batch, entries), strict=True)}
        with torch.no_grad():
            true = pipeline.model(batch, pipeline.task_name).numpy()
        outputs, answer = graph(given)
        np.testing.assert_allclose(outputs, true, rtol=1e-4, atol=1e-4)
        assert answer.shape == outputs.shape


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict]]:
    """Returns the folders of all modalities, and what the command line said of each."""
    out = tmp_path_factory.mktemp("graphs")
    told: dict[str, dict] = {}
    for kind in ("onnx", "torch"):
        told |= exported(kind, [name for name in MODALITIES if KINDS[name] == kind], out)
    return out, told


@no_onnx
@pytest.mark.parametrize("name", MODALITIES)
def test_a_written_graph_equals_its_model_at_two_lengths_and_three_sizes(name: str, graphs):
    assert_equal(name, KINDS[name], graphs[0] / name, graphs[1][name])


@no_onnx
@pytest.mark.large
def test_every_onnx_graph_equals_its_model(tmp_path: Path):
    told = exported("onnx", [*CHEAPER], tmp_path)
    for name, figures in told.items():
        assert_equal(name, "onnx", tmp_path / name, figures)


SPY = """
import importlib.abc, runpy, sys
class NoTorch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        assert name.partition(".")[0] not in ("torch", "metatransformer"), f"the folder asked for {name}"
sys.meta_path.insert(0, NoTorch())
sys.path.insert(0, sys.argv[1])
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "torch" not in sys.modules
"""


def run_folder(folder: Path, *paths: Path) -> list[dict[str, str]]:
    """Runs an exported folder's own program in a process that refuses torch and this package; returns its rows."""
    command = [sys.executable, "-c", SPY, str(folder), str(folder / "run.py"), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env={"PATH": ""})
    assert done.returncode == 0, done.stderr
    return list(csv.DictReader(done.stdout.splitlines()))


def assert_predicted(folder: Path) -> None:
    """Checks what a folder's program says of the pictures of the saved model."""
    pipeline, loader, _ = opened("image")
    rows = {row["key"]: row for row in run_folder(folder, inputs_of(SAVED / "image"))}
    assert len(rows) == len(loader)
    for row, key in enumerate(loader.examples.keys):
        with torch.no_grad():
            outputs = pipeline.model(collate([loader.sample(row)], fields=loader.fields), pipeline.task_name)
        true = pipeline.task.decode(outputs)
        own = next(found for name, found in rows.items() if name.endswith(key))
        assert own["prediction"] == true["prediction"][0]
        assert float(own["p(a)"]) == pytest.approx(true["p(a)"][0], abs=1e-4)


@no_onnx
def test_a_folder_predicts_pictures_without_torch(graphs):
    assert_predicted(graphs[0] / "image")


def test_a_folder_of_openvino_predicts_pictures_without_torch(tmp_path: Path):
    if find_spec("openvino") is None:  # not imported here: the package hides the telemetry of OpenVINO first
        pytest.skip("needs the extra openvino")
    exported("openvino", ["image"], tmp_path)
    assert_predicted(tmp_path / "image")


@no_onnx
@pytest.mark.parametrize("name", ["audio", "text", "tabular"])
def test_a_folder_answers_files_of_its_modality(name: str, graphs):
    pipeline, loader, _ = opened(name)
    rows = run_folder(graphs[0] / name, inputs_of(SAVED / name))
    assert len(rows) == len(loader)
    assert {row["prediction"] for row in rows} <= {*pipeline.task.state()["classes"]}


@no_onnx
def test_a_forecast_goes_on_in_the_unit_of_the_series(graphs):
    table = inputs_of(SAVED / "timeseries")
    (row,) = run_folder(graphs[0] / "timeseries", table)
    true = np.load(SAVED / "timeseries" / "expected.npz")["prediction"]
    np.testing.assert_allclose([float(row[f"step_{k + 1}"]) for k in range(len(true))], true, rtol=1e-3)


@no_onnx
def test_what_the_library_prepares_is_told_on_the_page(graphs, tmp_path: Path):
    folder = graphs[0] / "graph"
    assert graphs[1]["tabular"]["prepared"] and not graphs[1]["graph"]["prepared"]
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert "example.npz" in page and "| `ends` | int64 | [batch, t, 2] |" in page
    names = {"codes", "numbers", "ends", "identifiers", "directed", "environments", "whole"}
    with np.load(folder / "example.npz") as arrays:
        assert {*arrays} == names and not any(arrays[name].any() for name in names)
    # What it writes is what the folder takes.
    files = prepared(SAVED / "graph" / "model", str(inputs_of(SAVED / "graph")), tmp_path)
    pipeline, loader, _ = opened("graph")
    rows = run_folder(folder, tmp_path)
    assert len(rows) == len(files) == len(loader)
    with torch.no_grad():
        outputs = pipeline.model(collate([loader.sample(0)], fields=loader.fields), pipeline.task_name)
    true = next(iter(pipeline.task.decode(outputs).values()))[0]
    found = rows[0]["prediction"]
    assert found == true if isinstance(true, str) else float(found) == pytest.approx(true, rel=1e-3)


@no_onnx
def test_a_bad_file_is_named_and_the_rest_answered(graphs, tmp_path: Path):
    shutil.copytree(inputs_of(SAVED / "image"), tmp_path / "in")
    (tmp_path / "in" / "0.txt").write_text("no picture")
    command = [sys.executable, str(graphs[0] / "image" / "run.py"), str(tmp_path / "in")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "0.txt" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stdout.splitlines()) == 1 + len(opened("image")[1])


def test_what_cannot_be_exported_is_refused_in_one_message(call, tmp_path: Path):
    model = SAVED / "image" / "model"
    data = inputs_of(SAVED / "image")
    status, _, err = call(["export", tmp_path, "--out", tmp_path / "new"])
    assert status == 2
    assert_one_message(err, "must be a saved model")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    status, _, err = call(["export", model, "--data", data, "--format", "torch", "--out", tmp_path / "taken"])
    assert status == 2
    assert_one_message(err, "must be a new folder; found a folder with files")
    status, _, err = call(["export", model, "--format", "coreml", "--out", tmp_path / "new"])
    assert status == 2
    assert_one_message(err, "--format: must be one of onnx, openvino, torch; found 'coreml'")
    assert not (tmp_path / "new").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken"]


def test_a_missing_library_is_named_with_its_extra(call, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("metatransformer.export.formats.find_spec", lambda name: None)
    status, _, err = call(["export", SAVED / "image" / "model", "--out", tmp_path / "new"])
    assert status == 2
    assert_one_message(err, r"package 'onnxscript' installed.*metatransformer\[export\]")


OTHER = """
import sys
import numpy as np
from metatransformer.export import folder
from metatransformer.faces.cli import main
folder.read_graph = lambda path, names: lambda given: [np.full((len(given["cells"]), 2), 7.0)]
sys.exit(main(sys.argv[1:]))
"""


def test_a_graph_that_answers_otherwise_is_refused_and_leaves_nothing(tmp_path: Path):
    words = ["export", SAVED / "tabular" / "model", "--data", inputs_of(SAVED / "tabular"), "--format", "torch"]
    done = run_alone(["-c", OTHER, *words, "--out", tmp_path / "new"])
    assert done.returncode == 2
    assert_one_message(done.stderr, "the graph's outputs: must equal the model's within 0.0001")
    assert not list(tmp_path.iterdir())
    with pytest.raises(UsageError, match=r"prepare.py's arrays: must equal"):
        require_equal(Parity(0.0, 1, 0.5, 1))


def test_made_up_samples_serve_where_the_data_is_gone(tmp_path: Path):
    copy = tmp_path / "model"
    shutil.copytree(SAVED / "image" / "model", copy)
    done = run_alone(["-m", "metatransformer", "export", copy, "--format", "torch", "--out", tmp_path / "new"])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["difference"] < 1e-5 and "made-up samples" in done.stderr


@pytest.mark.parametrize("text", ["", "a", "ab", "abc", "the film", "Ünïcode wörds", "x" * 37])
def test_words_are_hashed_as_scikit_learn_does(text: str):
    from sklearn.utils import murmurhash3_32

    assert murmur3(text.encode()) == murmurhash3_32(text.encode(), seed=0)


def test_the_program_is_short():
    source = (ROOT / "src" / "metatransformer" / "export" / "runtime" / "run.py").read_text(encoding="utf-8")
    code = [line for line in source.splitlines() if line.strip() and not line.strip().startswith(("#", '"""'))]
    assert len(code) <= 45
