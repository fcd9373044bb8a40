"""``push`` and ``pull`` against a stand-in for the Hub: what leaves the machine, and what comes back."""

import json
import shutil
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
from common import assert_one_message
from huggingface_hub import errors as hub_errors
from saved_answers import SAVED

import metatransformer as mt
from metatransformer.export.hub import nameless, require_name


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Path:
    """Returns the folder that stands for the Hub's repositories."""
    root = tmp_path / "hub"

    class Api:
        def __init__(self, library_name: str = "") -> None:
            assert library_name == "metatransformer"

        def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> str:
            (root / repo_id).mkdir(parents=True, exist_ok=exist_ok)
            (root.parent / "private").write_text(str(private))
            return f"https://hub.example/{repo_id}"

        def upload_folder(self, *, repo_id: str, folder_path: Path, commit_message: str) -> None:
            shutil.copytree(folder_path, root / repo_id, dirs_exist_ok=True)

    def snapshot(repo_id: str, *, local_dir: Path, allow_patterns: list[str]) -> str:
        if not (root / repo_id).is_dir():
            raise hub_errors.LocalEntryNotFoundError("Cannot find it on disk, and the network is not there.")
        shutil.copytree(root / repo_id, local_dir, dirs_exist_ok=True)
        (Path(local_dir) / ".cache" / "huggingface").mkdir(parents=True)
        return str(local_dir)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    return root


def test_a_model_comes_back_as_it_was(call, hub: Path, trained: Path, pictures: Path, tmp_path: Path):
    status, told, err = call(["push", trained, "someone/stripes", "--private"])
    assert status == 0, err
    assert told["address"] == "https://hub.example/someone/stripes"
    assert (hub.parent / "private").read_text() == "True"
    files = sorted(str(path.relative_to(hub)) for path in hub.rglob("*") if path.is_file())
    assert all(name.endswith((".safetensors", "model.json", "README.md")) for name in files), files
    # Nothing of this machine, nor of its data.
    for path in (hub / "someone").rglob("*"):
        if path.suffix in (".json", ".md"):
            assert str(trained.parent) not in path.read_text() and str(pictures.parent) not in path.read_text()
    page = (hub / "someone/stripes/README.md").read_text(encoding="utf-8")
    for words in (
        "library_name: metatransformer",
        "| this model |",
        f"`{pictures.name}`",
        "Trunk: `test`",
        "pull someone",
    ):
        assert words in page, page
    status, told, err = call(["pull", "someone/stripes", "--out", tmp_path / "back"])
    assert status == 0, err
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "README.md",
        "heads",
        "model.json",
        "tokenizers",
    ]
    files = sorted(pictures.rglob("*.png"))
    before, after = (mt.load(str(place)).predict_proba(files) for place in (trained, tmp_path / "back"))
    np.testing.assert_array_equal(before, after)


def test_an_existing_folder_and_a_name_that_is_none_are_refused(call, hub: Path, tmp_path: Path):
    status, _, err = call(["push", SAVED / "image" / "model", "no-owner"])
    assert status == 2
    assert_one_message(err, "must be OWNER/NAME")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").touch()
    status, _, err = call(["pull", "a/b", "--out", tmp_path / "taken"])
    assert status == 2
    assert_one_message(err, "must be a new folder")
    require_name("a_b/c.d-e")


def test_without_a_network_there_is_one_message(call, hub: Path, tmp_path: Path, monkeypatch):
    status, _, err = call(["pull", "some/model", "--out", tmp_path / "back"])
    assert status == 2
    assert_one_message(err, "pull some/model: must name what the Hub has; found 'Cannot find it on disk")
    assert not (tmp_path / "back").exists()

    def refuse(*given: object, **named: object) -> None:
        raise OSError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    status, _, err = call(["push", SAVED / "image" / "model", "some/model"])
    assert status == 2
    assert_one_message(err, "must be answered by the Hugging Face Hub; found .*name resolution.*network")


def test_a_repository_of_something_else_is_refused(call, hub: Path, tmp_path: Path):
    (hub / "some/thing").mkdir(parents=True)
    (hub / "some/thing/README.md").write_text("another model")
    status, _, err = call(["pull", "some/thing", "--out", tmp_path / "back"])
    assert status == 2
    assert_one_message(err, "some/thing: must hold a model of metatransformer; found no model.json")
    assert not (tmp_path / "back").exists()


def test_paths_lose_their_places_and_nothing_else_does(tmp_path: Path, monkeypatch):
    given = {
        "encoder": "/home/me/w.safetensors?heads=4",
        "input": {"vocabulary": "C:\\me\\vocab.txt", "labels": ["a/b", "/"]},
    }
    found = nameless(given)
    assert found["encoder"] == "w.safetensors?heads=4"
    assert found["input"]["vocabulary"] == "vocab.txt"
    assert found["input"]["labels"][0] == "a/b"  # no file of this name: a word
    assert json.dumps(nameless({"name": "random:3:focus-s14", "n": 3})) == json.dumps(
        {"name": "random:3:focus-s14", "n": 3}
    )


def test_a_head_that_holds_samples_is_not_given_away_unasked(call, hub: Path, tmp_path: Path):
    words = ["fit", inputs_table(tmp_path), "--modality", "tabular", "--target", "label", "--encoder", "test"]
    settings = ["head.features=plain", "tune=head", "head.centres=64", "head.read=[1]", "run.device=cpu"]
    status, _, err = call([*words, "--out", tmp_path / "run", *settings])
    assert status == 0, err
    status, _, err = call(["push", tmp_path / "run", "some/rows"])
    if "plain features" in err:
        assert status == 2
        assert_one_message(err, "hold no training samples to be given away")
        status, _, err = call(["push", tmp_path / "run", "some/rows", "--with-samples"])
    assert status == 0, err


def inputs_table(folder: Path) -> Path:
    """Returns a table whose label is a product of two columns, which a line does not know."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 80))
    lines = [f"{x:.4f},{y:.4f},{'yes' if x * y > 0 else 'no'}" for x, y in zip(a, b, strict=True)]
    path = folder / "rows.csv"
    path.write_text("\n".join(["a,b,label", *lines]) + "\n")
    return path
