"""Models that were saved at revision bd332db load, and answer as they did then.

``tests/make_saved.py`` made them. A test that fails here says that people's models are no longer read as they were
saved: change the package, not the files.
"""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import Run
from saved_answers import SAVED, answers_of, inputs_of

import metatransformer as mt

CASES = sorted(path.parent.name for path in SAVED.glob("*/expected.npz"))
RUNS = sorted(path.parent.name for path in SAVED.glob("*/expected.csv"))  # made and asked by the command line
# All of it is float32, whose sums differ between processors. With plain instead of the widest vector instructions of an
# x86-64, features moved by at most 4e-6 and probabilities by 6e-7: a sixth of what is allowed.
NEAR = {"rtol": 1e-4, "atol": 1e-5}


def contents(folder: Path) -> dict[str, str]:
    """Returns a hash of every file of a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def require_same(answers: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Compares numbers nearly and all else exactly, with type and shape."""
    assert answers.keys() == expected.keys()
    for name, value in expected.items():
        found = answers[name]
        assert (found.dtype.kind, found.shape) == (value.dtype.kind, value.shape), name
        if value.dtype.kind == "f":
            np.testing.assert_allclose(found, value, **NEAR, err_msg=name)
        else:
            assert found.tolist() == value.tolist(), name


def expected_of(case: str) -> dict[str, np.ndarray]:
    with np.load(SAVED / case / "expected.npz") as file:
        return dict(file)


def test_every_modality_and_kind_of_model_is_there():
    modalities = {json.loads(path.read_text())["recipe"]["modality"] for path in SAVED.glob("*/model/model.json")}
    assert len(modalities) == 12 and len(CASES) == 26 and RUNS == ["multilabel", "run"]


@pytest.mark.parametrize("case", CASES)
def test_a_saved_model_answers_as_it_did(case: str):
    if case == "embedder" and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        # It holds a digest of the trunk, and that of the tests is drawn: with other instructions, in other last bits.
        pytest.skip("the tests' trunk has other bytes on this processor")
    folder = SAVED / case
    before = contents(folder)
    require_same(answers_of(mt.load(folder / "model", device="cpu"), inputs_of(folder)), expected_of(case))
    assert contents(folder) == before


def test_a_standalone_model_asks_for_no_other_trunk(tmp_path: Path):
    shutil.copytree(SAVED / "standalone" / "model", tmp_path / "model")
    path = tmp_path / "model" / "model.json"
    path.write_text(path.read_text().replace('"test"', '"nowhere"'))
    estimator = mt.load(tmp_path / "model", device="cpu")
    require_same(answers_of(estimator, inputs_of(SAVED / "standalone")), expected_of("standalone"))


@pytest.mark.parametrize("case", RUNS)
def test_the_command_line_predicts_and_evaluates_as_it_did(case: str, call: Run, tmp_path: Path):
    folder = SAVED / case
    before = contents(folder)
    status, result, err = call(["predict", folder, inputs_of(folder), "--out", tmp_path / "found.csv"])
    assert status == 0, err
    expected = pd.read_csv(folder / "expected.csv")
    assert result["rows"] == len(expected)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "found.csv"), expected, **NEAR)
    status, result, err = call(["evaluate", folder, inputs_of(folder)])
    assert status == 0, err
    then = json.loads((folder / "expected.json").read_text())["evaluate"]  # further scores may have come since
    assert {name: result["metrics"][name] for name in then} == pytest.approx(then, rel=1e-4)
    assert contents(folder) == before


def test_the_model_of_a_run_is_the_one_that_python_loads():
    folder = SAVED / "run"
    expected = pd.read_csv(folder / "expected.csv")
    classifier = mt.load(folder, device="cpu")
    assert classifier.predict(inputs_of(folder)).tolist() == expected["prediction"].tolist()
    found = classifier.predict_proba(inputs_of(folder))
    np.testing.assert_allclose(found, expected[["p(a)", "p(b)"]], **NEAR)
    metrics = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert classifier.metrics_ == metrics
