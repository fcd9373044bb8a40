"""Whether a column holds classes or numbers, and what the command line makes of it."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import CLI_IMAGE, CLI_SETTINGS, Run, words_of

from metatransformer.data.target import kind_of

TABULAR = ["--modality", "tabular", "--encoder", "test"]
SETTINGS = words_of({"head.read": [-1], "run.precision": "float32", "tune": "head"})


@pytest.mark.parametrize(
    ("targets", "kind", "words"),
    [
        (["a", "b", "a"], "classes", "2 different texts"),
        (["7", "8", None, "7"], "classes", "2 different texts"),  # folders and codes are names
        ([f"0{number}" for number in range(90)], "classes", "90 different texts"),
        ([f"{number}.5" for number in range(90)], "numbers", "numbers with fractions"),
        ([True, False, True], "classes", "2 different texts"),
        (np.array([True, False, True]), "classes", "2 different texts"),
        ([0, 2, 0, 2, 2], "classes", "2 different whole numbers"),
        ([0.0, 1.0, np.float64(1)], "classes", "2 different whole numbers"),
        (list(range(20)) * 2, "classes", "20 different whole numbers"),
        (list(range(20)) + [3], "numbers", "20 different whole numbers"),
        ([1, 2], "classes", "2 different whole numbers"),
        (list(range(21)) * 2, "numbers", "21 different whole numbers"),
        (list(range(100)) * 10, "", "100 different whole numbers"),
        ([0.5, 1, 1, 0.5], "numbers", "numbers with fractions"),
        ([1, float("nan")], "classes", "2 different texts"),  # refused later, with its place
    ],
)
def test_values_say_what_they_are(targets, kind: str, words: str):
    assert kind_of(targets) == (kind, words)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """Returns a table with a class that is a number, a number, and an ambiguous one."""
    rng = np.random.default_rng(0)
    age, group = rng.normal(40, 9, 60).round(1), np.arange(60) % 3
    frame = pd.DataFrame({"age": age, "size": rng.integers(0, 9, 60), "group": 2 * group, "pay": age * 3 + group})
    frame.rename(columns={"group": "kind"}).to_csv(tmp_path / "people.csv", index=False)
    return tmp_path / "people.csv"


@pytest.mark.parametrize(
    ("target", "more", "metric", "words"),
    [
        ("kind", [], "accuracy", "'kind' holds 3 different whole numbers: task 'classify' (--task regress changes"),
        ("kind", ["--task", "regress"], "rmse", ""),
        ("kind", ["task.metric=mae"], "mae", ""),
        ("pay", [], "rmse", "'pay' holds numbers with fractions: task 'regress' (--task classify changes that)"),
    ],
)
def test_fit_decides_what_rows_are(people: Path, tmp_path: Path, call: Run, target: str, more, metric: str, words: str):
    words_ = ["fit", people, *TABULAR, "--target", target, *more, "--out", tmp_path / "run", *SETTINGS]
    if metric == "mae":  # a score of numbers decides as well
        words_.insert(2, "--task=regress")
    status, result, err = call(words_)
    assert status == 0 and metric in result["metrics"]["test"], err
    assert words in " ".join(err.split()) and ("different" in err) == ("whole" in words)
    status, result, _ = call(["evaluate", tmp_path / "run"])
    assert status == 0 and metric in result["metrics"]


def test_names_of_folders_are_classes(pictures: Path, tmp_path: Path, call: Run):
    (tmp_path / "data").mkdir()
    for number, name in enumerate("ab"):
        (tmp_path / "data" / str(number)).symlink_to(pictures / name)
    status, result, err = call(["check", tmp_path / "data", "--modality", "image", "input.size=16"])
    assert status == 0 and result["bad"] == 0 and "holds" not in err, err


def test_check_refuses_what_fit_refuses(people: Path, tmp_path: Path, call: Run):
    frame = pd.read_csv(people)
    frame["kind"] = 1
    frame.to_csv(people, index=False)
    for command in (["check"], ["fit", "--encoder", "test", "--out", tmp_path / "run"]):
        words = [command[0], people, *command[1:], "--modality", "tabular", "--target", "kind"]
        status, result, err = call(words)
        assert status == 2 and "training labels: must hold at least 2 classes" in " ".join(err.split()), err
    status, result, err = call(["check", people, "--modality", "tabular", "--target", "kind", "--task", "regress"])
    assert status == 2 and "training targets: must differ from each other" in " ".join(err.split()), err
    assert result["problems"][0]["key"] == "the data as a whole"
    few = tmp_path / "few.csv"
    frame.head(3).assign(kind=[1, 2, 1]).to_csv(few, index=False)
    status, result, err = call(["check", few, "--modality", "tabular", "--target", "kind"])
    assert status == 2 and "must be enough to cut a" in " ".join(err.split()), err


def test_a_check_of_texts_fetches_nothing(tmp_path: Path, call: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("metatransformer.modalities.text.load_words", lambda name: pytest.fail("words were loaded"))
    lines = [f"{number % 2}\ta {'good' if number % 2 else 'bad'} film {number}" for number in range(40)]
    (tmp_path / "texts.tsv").write_text("\n".join(["label\ttext", *lines]) + "\n", encoding="utf-8")
    status, result, err = call(["check", tmp_path / "texts.tsv", "--modality", "text", "--target", "label"])
    assert status == 0 and result == {"samples": 40, "bad": 0, "problems": []}, err


def test_one_answer_for_nearly_all_is_said(tmp_path: Path, call: Run):
    rng = np.random.default_rng(0)
    kind = np.where(np.arange(400) % 10 == 0, "rare", "often")
    pd.DataFrame({"x": rng.normal(size=400), "kind": kind}).to_csv(tmp_path / "noise.csv", index=False)
    words = ["fit", tmp_path / "noise.csv", *TABULAR, "--target", "kind", "--out", tmp_path / "run", *SETTINGS]
    status, result, err = call(words)
    assert status == 0 and "warning: test: never the answer: 'rare' (6 samples)" in " ".join(err.split()), err
    assert result["metrics"]["test"]["matthews"] == 0
    status, _, err = call(["evaluate", tmp_path / "run"])
    assert status == 0 and "warning: never the answer: 'rare'" in " ".join(err.split()), err


def test_the_rule_of_what_is_kept_is_said_in_log_words_and_report(pictures: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, *CLI_IMAGE, "--tune", "ends", "--epochs", 2, "--out", tmp_path / "run", *CLI_SETTINGS]
    status, _, err = call(words)
    told = " ".join(err.split())
    rule = "within one standard error of the best validation accuracy so far the one of least loss is kept"
    assert status == 0 and rule in told and "(best" not in told, err
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    kept = [line["epoch"] for line in lines if line.get("kept")]
    page = " ".join((tmp_path / "run" / "report.html").read_text(encoding="utf-8").split())
    epoch = 0 if "the model stays untuned" in told else kept[-1]
    assert rule in page and f"kept: epoch {epoch}." in page
