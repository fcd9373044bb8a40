"""The benchmark: its table by hand, its rows run, resumed and refused as a user would see it."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from common import make_records

from metatransformer.bench import __main__ as bench
from metatransformer.bench.datasets import DATA_SETS, DataSet
from metatransformer.bench.table import markdown
from metatransformer.modalities import get_modality, modality_names

ROW = {
    "summary": "Toys",
    "mean": {"ours": {"accuracy": 0.7}, "random": {"accuracy": 0.45}, "constant": {"accuracy": 0.1}},
    "folds": [
        {"scores": {"ours": {"accuracy": 0.8}, "random": {"accuracy": 0.5}, "constant": {"accuracy": 0.1}}},
        {"scores": {"ours": {"accuracy": 0.6}, "random": {"accuracy": 0.4}, "constant": {"accuracy": 0.1}}},
    ],
    "parameters": {"tokenizer": {"trainable": 1234}, "trunk": {"trainable": 0}, "head": {"trainable": 56}},
    "seconds": 90.0,
}


def test_a_row_of_the_table_by_hand():
    line = markdown([ROW], machine={"torch": "2"}).splitlines()[2]
    assert line == (
        "| Toys | accuracy | 0.700 (0.600..0.800) | 0.100 (0.100..0.100) | - | - | 0.450 (0.400..0.500) "
        "| +0.250 | 1,234 / 0 / 56 | 1.5 |"
    )


def test_every_registered_data_set_names_a_modality_and_its_source():
    for name, data_set in DATA_SETS.items():
        assert name == data_set.name and data_set.modality in modality_names()
        assert data_set.source.startswith("https://") and data_set.licence and data_set.metrics


def toys(root: Path) -> list[list]:
    del root
    return [make_records(get_modality("image"), train=17, val=7, test=11)]


@pytest.fixture
def data_set(monkeypatch: pytest.MonkeyPatch) -> str:
    toy = replace(DATA_SETS["cifar10"], name="toys", folds=toys, overrides={"input.size": 16})
    assert isinstance(toy, DataSet)
    monkeypatch.setitem(DATA_SETS, "toys", toy)
    return "toys"


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench", *words])
    return bench.main()


def test_a_row_is_run_and_a_second_call_keeps_it(
    data_set: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    words = ["--data", str(tmp_path), "--out", str(tmp_path), "--only", data_set, "--encoder", "test"]
    assert call(monkeypatch, *words, "--controls", "constant", "identity") == 0
    row = json.loads((tmp_path / "row-toys.json").read_text())
    assert set(row["mean"]) == {"ours", "constant", "identity"} and row["folds"][0]["samples"]["test"] == 11
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == 1
    assert call(monkeypatch, *words) == 0
    assert "toys: done already" in capsys.readouterr().err


def test_an_unknown_data_set_is_refused_with_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert call(monkeypatch, "--data", str(tmp_path), "--out", str(tmp_path), "--only", "cifar") == 2
    assert "Did you mean 'cifar10'?" in capsys.readouterr().err
