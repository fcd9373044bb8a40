"""Data sets of pictures in one NPZ file: splits, labels, colours and volumes, whatever the names."""

from pathlib import Path

import numpy as np
import pytest
from common import CLI_SETTINGS, run

from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.data.records import Index
from metatransformer.infer.sources import read_index
from metatransformer.modalities import get_modality

MODALITIES = ["image", "xray", "infrared"]
COUNTS = {"train": 11, "val": 3, "test": 5}


def made(path: Path, *, inner: tuple[int, ...] = (7, 5), labels: tuple[int, ...] = (1,)) -> dict[str, np.ndarray]:
    """Writes a data set in the form of MedMNIST and returns its arrays."""
    rng, arrays = np.random.default_rng(0), {}
    for split, count in COUNTS.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, size=(count, *inner), dtype=np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count * int(np.prod(labels))) % 2).reshape(count, *labels)
    np.savez_compressed(path, **arrays)
    return arrays


def index(data: object, name: str = "image", *, labelled: bool = True) -> Index:
    modality = get_modality(name)
    return read_index(modality, data, options=modality.options(), labelled=labelled)


def pixels(found: Index, place: int, name: str = "image") -> np.ndarray:
    return get_modality(name).load(found.records[place])["pixels"]


@pytest.mark.parametrize("name", MODALITIES)
@pytest.mark.parametrize("inner", [(7, 5), (7, 5, 3)])
def test_a_set_brings_pictures_labels_and_splits(tmp_path, name, inner):
    arrays = made(tmp_path / "toymnist.npz", inner=inner)
    for data in (tmp_path / "toymnist.npz", tmp_path):
        found = index(data, name)
        assert [found.records.splits.count(split) for split in COUNTS] == [*COUNTS.values()]
        assert found.records.keys[12] == "toymnist.npz#val_images/1" and found.records.targets[12] == 1
        for place, (split, row) in {0: ("train", 0), 12: ("val", 1), 18: ("test", 4)}.items():
            np.testing.assert_array_equal(pixels(found, place, name), arrays[f"{split}_images"][row])


def test_of_a_volume_the_middle_slice_is_taken_and_said(tmp_path):
    for inner in ((9, 7, 5), (9, 7, 5, 1)):
        arrays = made(tmp_path / "a.npz", inner=inner)
        found = index(tmp_path / "a.npz")
        assert found.notes[1] == "volumes of 9 slices: the middle one of each"
        np.testing.assert_array_equal(pixels(found, 2), arrays["train_images"][2][4])


def test_names_of_other_libraries_and_channels_first(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, size=(4, 3, 7, 5), dtype=np.uint8), np.array([2, 0, 1, 2])
    np.savez(tmp_path / "a.npz", X_train=x, y_train=y, x_test=x[:2], y_test=y[:2])
    found = index(tmp_path / "a.npz")
    assert found.records.splits == ["train"] * 4 + ["test"] * 2 and found.records.targets == [2, 0, 1, 2, 2, 0]
    np.testing.assert_array_equal(pixels(found, 1), np.moveaxis(x[1], 0, -1))
    np.savez(tmp_path / "a.npz", images=x[:, 0], labels=np.array(["cat", "dog", "cat", "dog"]), more=y)
    found = index(tmp_path / "a.npz")
    assert found.records.splits == [None] * 4 and found.records.targets == ["cat", "dog", "cat", "dog"]
    assert found.notes == ("4 pictures in a.npz: images", "not used: more")


def test_several_labels_a_picture_and_none(tmp_path):
    made(tmp_path / "a.npz", labels=(3,))
    assert index(tmp_path / "a.npz").records.targets[1] == [1, 0, 1]
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 7, 5), np.uint8))
    with pytest.raises(UnlabelledError, match="a.npz: must hold labels beside 'images'"):
        index(tmp_path / "a.npz")
    assert index(tmp_path / "a.npz", labelled=False).records.targets == [None] * 4


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"spectra": np.ones((4, 7, 5))}, "must hold pictures under a name such as 'train_images'.*found spectra"),
        ({"images": np.ones((4, 7, 5, 4))}, r"'images': must have the shape \[n, h, w\].*found \(4, 7, 5, 4\)"),
        ({"images": np.ones((4, 7))}, r"must have the shape .*found \(4, 7\)"),
        ({"images": np.ones((4, 7, 5)), "labels": np.ones(3)}, r"'labels': must have the shape \[4\]"),
        ({"train_x": np.ones((4, 7, 5)), "train_images": np.ones((4, 7, 5))}, "must hold one array of a kind a split"),
    ],
)
def test_what_is_no_set_says_why(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        index(tmp_path / "a.npz", labelled=False)


def test_a_set_that_changed_is_read_anew(tmp_path):
    first = made(tmp_path / "a.npz")
    np.testing.assert_array_equal(pixels(index(tmp_path / "a.npz"), 0), first["train_images"][0])
    second = made(tmp_path / "a.npz", inner=(9, 5))
    np.testing.assert_array_equal(pixels(index(tmp_path / "a.npz"), 0), second["train_images"][0])


def test_every_command_takes_a_set(tmp_path, capsys):
    made(tmp_path / "a.npz")
    for name in MODALITIES:
        status, result, _ = run(["check", tmp_path / "a.npz", "--modality", name], capsys)
        assert (status, result["samples"], result["bad"]) == (0, 19, 0)
    words = ["--modality", "image", "--encoder", "test", "--tune", "head", "--out", tmp_path / "run", *CLI_SETTINGS]
    status, _, err = run(["fit", tmp_path / "a.npz", *words], capsys)
    assert status == 0, err
    status, result, _ = run(["predict", tmp_path / "run", tmp_path / "a.npz", "--out", tmp_path / "p.csv"], capsys)
    assert status == 0 and len((tmp_path / "p.csv").read_text().splitlines()) == 20
