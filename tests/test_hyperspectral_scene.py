"""Scenes as records: cubes find their labels, splits are what they claim to be."""

from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
from common import FIXTURES, Run

from metatransformer.core.errors import DataError, UsageError
from metatransformer.modalities.hyperspectral.arrays import Entry
from metatransformer.modalities.hyperspectral.cube import cube_from_array
from metatransformer.modalities.hyperspectral.plots import Cut, cut_scene
from metatransformer.modalities.hyperspectral.scene import name_split
from metatransformer.modalities.hyperspectral.spectra import cube_from_row, index_pixels

FOLDER = FIXTURES / "hyperspectral"


def index(data, *, target: str = "", labelled: bool = True, variable: str = "", cut: Cut | None = None):
    return index_pixels(data, target=target, labelled=labelled, header=True, variable=variable, cut=cut or Cut())


def save_scene(folder: Path, name: str, *, h: int = 5, w: int = 7, end: str = "_gt", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, size=(h, w))
    np.save(folder / f"{name}.npy", rng.uniform(1, 2, size=(h, w, 11)))
    np.save(folder / f"{name}{end}.npy", labels)
    return labels


# --- cubes and labels


def test_a_folder_gives_one_record_a_labelled_pixel(tmp_path: Path):
    labels = save_scene(tmp_path, "field")
    found = index(tmp_path)
    assert len(found.records) == (labels > 0).sum() and found.root == tmp_path
    row, column = np.argwhere(labels > 0)[3]
    record = found.records[3]
    assert (record.key, record.part) == (f"field.npy#{row},{column}", f"{row},{column}")
    assert record.target == labels[row, column] and record.path == tmp_path / "field.npy"


@pytest.mark.parametrize("one_file", [True, False])
def test_shares_of_end_members_that_are_named_are_classes(tmp_path: Path, one_file: bool):
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(3), size=(5, 7))
    shares[0, 0] = 0
    arrays = {"Y": rng.uniform(1, 2, size=(5, 7, 11)), "S_GT": shares}
    if one_file:
        scipy.io.savemat(tmp_path / "s.mat", arrays)
        data, target = tmp_path / "s.mat", "S_GT"
    else:
        np.save(tmp_path / "Y.npy", arrays["Y"])
        scipy.io.savemat(tmp_path / "shares.mat", {"S_GT": shares})
        data, target = tmp_path / "Y.npy", str(tmp_path / "shares.mat")
    found = index(data, target=target, variable="Y" if one_file else "")
    expected = [int(one.argmax()) + 1 for one in shares.reshape(-1, 3)[1:]]
    assert [record.target for record in found.records] == expected
    assert any(
        "S_GT (5 x 7 x 3): shares of end-members; a pixel's class is the largest" in note for note in found.notes
    )
    (path,) = tmp_path.glob("s*.mat")
    scipy.io.savemat(path, (arrays if one_file else {}) | {"S_GT": 2 * shares})
    with pytest.raises(DataError, match="add up to 1, or one number a pixel; found values from 0 to 1"):
        index(data, target=target, variable="Y" if one_file else "")


def test_two_scenes_find_their_maps_by_name(tmp_path: Path):
    one, two = save_scene(tmp_path, "a1", seed=1), save_scene(tmp_path, "b1", seed=2)
    counts = Counter(record.path.name for record in index(tmp_path).records)
    assert counts == {"a1.npy": (one > 0).sum(), "b1.npy": (two > 0).sum()}
    np.save(tmp_path / "c.npy", one)
    with pytest.raises(DataError, match=r"must say whose labels c.npy \(5 x 7\) are; found a1.npy"):
        index(tmp_path)


def test_far_more_bands_than_spectra_are_said(tmp_path: Path):
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.ones((7, 90)), "y": np.arange(7)[:, None] % 2})
    assert index(tmp_path / "a.mat").notes[-1] == (
        "a.mat:X (7 x 90): 7 spectra of 90 bands; transpose it if these are pixels"
    )


def test_names_of_splits_split(tmp_path: Path):
    path = tmp_path / "scene.mat"
    train, test = np.zeros((5, 7), int), np.zeros((5, 7), int)
    train[0], test[2:] = 1, 2
    scipy.io.savemat(path, {"input": np.ones((5, 7, 11)), "TR": train, "TE": test})
    assert Counter(record.split for record in index(path).records) == {"train": 7, "test": 21}
    given = index(path, cut=Cut(train_pixels=2))
    assert given.idle == (("input.split and input.train_pixels", "the data brings its split"),) and not given.notes
    assert Counter(record.split for record in given.records) == {"train": 7, "test": 21}
    assert index(path, cut=Cut()).idle == ()
    for text, split in {
        "TrLabel": "train",
        "X_test": "test",
        "TSLabel": "test",
        "strain": None,
        "Train_X": "train",
    }.items():
        assert name_split(Entry(Path(f"{text}.mat"), "", (1,), "f")) == split


def test_spectra_that_are_all_for_training_are_cut_where_that_is_asked_for(tmp_path: Path):
    labels = np.arange(24)[:, None] % 3
    scipy.io.savemat(tmp_path / "Tr.mat", {"Tr": np.ones((24, 11)), "TrLabel": labels})
    assert Counter(record.split for record in index(tmp_path / "Tr.mat").records) in ({"train": 24}, {None: 24})
    cut = index(tmp_path / "Tr.mat", cut=Cut(train_pixels=2))
    assert Counter(record.split for record in cut.records) == {"train": 6, "test": 18} and cut.idle == ()
    assert cut.notes[-1] == "split: 2 random spectra a class for training, draw 0"
    apart = index(tmp_path / "Tr.mat", cut=Cut("disjoint", 2))
    assert apart.idle[0][0] == "input.split and input.train_pixels"


def test_a_pixel_of_two_maps_is_a_training_pixel(tmp_path: Path):
    save_scene(tmp_path, "a")
    (tmp_path / "a_gt.npy").unlink()
    whole = np.ones((5, 7), dtype=np.uint8)
    whole[:, 4:] = 2
    part = whole * (np.arange(35).reshape(5, 7) % 5 == 0)
    np.save(tmp_path / "a_test.npy", whole)
    np.save(tmp_path / "a_train.npy", part)
    found = index(tmp_path)
    splits = Counter(record.split for record in found.records)
    assert splits == {"train": 7, "test": 28}
    note = "7 pixels labelled by a second map of the same cube: used once, 7 of them in training and not in the test"
    assert note in found.notes


def test_spectra_find_their_vector_of_labels_where_zero_is_a_class(tmp_path: Path):
    scipy.io.savemat(tmp_path / "Train_X.mat", {"Train_X": np.ones((13, 11))})
    scipy.io.savemat(tmp_path / "TrLabel.mat", {"TrLabel": np.arange(13)[:, None] % 3})
    found = index(tmp_path)
    assert [record.target for record in found.records] == [i % 3 for i in range(13)]
    assert found.records[4].key == "Train_X.mat#4" and found.records[4].part == 4
    assert {record.split for record in found.records} == {"train"}


def test_labels_are_named_by_target_or_stand_in_the_same_file(tmp_path: Path):
    labels = save_scene(tmp_path, "field", end="-map")
    count = (labels > 0).sum()
    assert len(index(tmp_path / "field.npy", target="field-map.npy").records) == count
    assert len(index(FOLDER / "good.npz").records) == 30
    assert len(index(FOLDER / "good.npz", target="labels").records) == 30
    with pytest.raises(DataError, match="--target: must name the labels of good.npz.*cube.*found 'gt'|found 'gt'"):
        index(FOLDER / "good.npz", target="gt")
    with pytest.raises(DataError, match=f"--target: must name labels in {tmp_path}.*field-map.npy.*; found no.npy"):
        index(tmp_path, target="no.npy")
    with pytest.raises(DataError, match="must bring labels.*5 x 7.*field-map.npy has the right shape"):
        index(tmp_path / "field.npy")


def test_a_manifest_names_cubes_maps_and_splits(tmp_path: Path):
    one, two = save_scene(tmp_path, "a", seed=1), save_scene(tmp_path, "b", seed=2)
    table = pd.DataFrame({"path": ["a.npy", "b.npy"], "label": ["a_gt.npy", "b_gt.npy"], "split": ["train", "test"]})
    table.to_csv(tmp_path / "list.csv", index=False)
    records = index(tmp_path / "list.csv").records
    assert Counter(r.split for r in records) == {"train": (one > 0).sum(), "test": (two > 0).sum()}
    assert len(index(tmp_path / "list.csv", labelled=False).records) == 70
    table.assign(label="c.npy").to_csv(tmp_path / "list.csv", index=False)
    with pytest.raises(DataError, match="must name the file of the labels in column 'label'; found 'c.npy'"):
        index(tmp_path / "list.csv")


def test_without_labels_every_measured_pixel_counts():
    assert len(index(FOLDER / "good.npy", labelled=False).records) == 35
    found = index(FOLDER / "good_gdal.tif", labelled=False)
    assert len(found.records) == 34 and "1 pixel of 35 without data" in found.notes[0]
    assert len(index([str(FOLDER / "good.npy"), FOLDER / "good.mat"], labelled=False).records) == 70


def test_scenes_in_memory():
    cube, labels = np.ones((5, 7, 11)), np.zeros((5, 7), int)
    labels[1, 2:4] = 6
    records = index({"cube": cube, "labels": labels}).records
    assert [(record.key, record.target) for record in records] == [("cube#1,2", 6), ("cube#1,3", 6)]
    assert len(index({"cube": cube, "labels": labels}, labelled=False).records) == 35
    with pytest.raises(DataError, match="must hold 'labels' beside 'cube'"):
        index({"cube": cube})
    with pytest.raises(DataError, match="must hold 'cube' and nothing but .*found 'lables'"):
        index({"cube": cube, "lables": labels})
    with pytest.raises(DataError, match="the labels: must be whole numbers of the shape"):
        index({"cube": cube, "labels": labels.T})
    with pytest.raises(DataError, match=r"Hand in a scene as \{'cube'"):
        index(cube, labelled=False)


@pytest.mark.parametrize(
    "wrong", [np.full((5, 7), 0.5), np.full((5, 7), -1), np.zeros((5, 7)), np.full((5, 7), np.nan)]
)
def test_labels_that_make_no_sense_are_refused(wrong: np.ndarray, tmp_path: Path):
    save_scene(tmp_path, "a")
    np.save(tmp_path / "a_gt.npy", wrong)
    with pytest.raises(DataError, match="a_gt.npy: must"):
        index(tmp_path)


def test_envi_maps_name_their_classes(tmp_path: Path):
    np.save(tmp_path / "field.npy", np.ones((5, 7, 11)))
    header = "ENVI\nsamples = 7\nlines = 5\nbands = 1\ndata type = 1\ninterleave = bsq\nbyte order = 0\n"
    header += "file type = ENVI Classification\nclasses = 3\nheader offset = 0\n"
    (tmp_path / "field_gt.hdr").write_text(header + "class names = { Unclassified, bare soil, maize }\n")
    (tmp_path / "field_gt.img").write_bytes(bytes([1] * 14 + [0] * 7 + [2] * 14))
    assert Counter(record.target for record in index(tmp_path).records) == {"bare soil": 14, "maize": 14}
    (tmp_path / "field_gt.hdr").write_text(header + "class names = { Unclassified, soil }\n")
    with pytest.raises(DataError, match="must name its 2 classes in 'class names'; found 1 names"):
        index(tmp_path)


def test_what_fits_nowhere_is_said_or_refused(tmp_path: Path):
    save_scene(tmp_path, "a")
    np.save(tmp_path / "other.npy", np.ones((2, 3)))
    assert "neither cube nor labels: other.npy (2 x 3)" in index(tmp_path).notes[0]
    np.save(tmp_path / "a_two.npy", np.ones((5, 7), int))
    with pytest.raises(DataError, match="must hold one array of labels for a.npy"):
        index(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match="a.png"):
        index(tmp_path / "empty")
    assert len(index(tmp_path, target="a_two.npy").records) == 35  # the name decides


# --- tables


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((4, 7), r"found only a_gt.npy \(4 x 7\). Take the labels of this cube, uncropped"),
        ((7, 5), r"found only a_gt.npy \(7 x 5\). a_gt.npy has rows and columns swapped: transpose it"),
    ],
)
def test_labels_of_another_shape_are_named(tmp_path: Path, folder: bool, shape: tuple[int, int], message: str):
    np.save(tmp_path / "a.npy", np.ones((5, 7, 11)))
    np.save(tmp_path / "a_gt.npy", np.ones(shape, int))
    with pytest.raises(DataError, match=f"must bring labels: an array that must have the shape 5 x 7.*{message}"):
        index(tmp_path if folder else tmp_path / "a.npy")


def test_check_sees_labels_that_do_not_fit(tmp_path: Path, call: Run):
    """As 'fit' does; a cube that has none is said to have none, and may be checked."""
    cube = np.random.default_rng(0).uniform(1, 2, size=(5, 7, 11))
    np.save(tmp_path / "a.npy", cube)
    np.save(tmp_path / "a_gt.npy", np.ones((4, 7), int))
    scipy.io.savemat(tmp_path / "b.mat", {"cube": cube, "gt": np.ones((4, 7), int)})
    (tmp_path / "c.mat").write_bytes(b"MATLAB 5.0 damaged")  # what stands beside is not asked about
    for data, status, told in ((tmp_path / "b.mat", 2, "4 x 7"), (tmp_path / "a.npy", 0, "'fit' would say")):
        found, _, err = call(["check", data, "--modality", "hyperspectral"])
        assert found == status and told in err
    (tmp_path / "c.mat").unlink()
    (tmp_path / "b.mat").unlink()
    status, result, _ = call(["check", tmp_path, "--modality", "hyperspectral"])
    assert status == 2 and "a_gt.npy (4 x 7)" in str(result["problems"])


@pytest.mark.parametrize(("name", "found"), [("notes.txt", "notes.txt"), ("", "an empty folder")])
def test_a_folder_without_a_usable_file_is_not_taken_for_a_table(tmp_path: Path, name: str, found: str):
    if name:
        (tmp_path / name).write_text("x")
    for labelled in (True, False):
        with pytest.raises(DataError, match=f"must hold cubes or spectra, or a table of them .*; found {found}"):
            index(tmp_path, labelled=labelled)


def test_numbers_beside_spectra_that_are_not_whole_are_no_labels(tmp_path: Path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "a.npz", X=rng.uniform(size=(9, 5)), weights=rng.uniform(size=9))
    assert index(tmp_path / "a.npz", labelled=False).records.targets == [None] * 9
    np.savez(tmp_path / "a.npz", X=rng.uniform(size=(9, 5)), weights=rng.uniform(size=9), y=np.arange(9) % 2)
    assert index(tmp_path / "a.npz").records.targets == [0, 1] * 4 + [0]


def test_data_of_envi_without_its_header_is_told_so(tmp_path: Path):
    (tmp_path / "a.raw").write_bytes(bytes(30))
    with pytest.raises(DataError, match=r"a.raw: must have its ENVI header beside it; found no a.hdr"):
        index(tmp_path / "a.raw", labelled=False)


def test_a_table_of_spectra_needs_a_target():
    assert len(index(FOLDER / "good.csv", target="label").records) == 35
    with pytest.raises(UsageError, match="--target: must name the column to learn for a table of spectra"):
        index(FOLDER / "good.csv")


def test_bands_of_a_row_by_hand():
    cube, names = cube_from_row({"site": "s1", "450": 0.5, "460.5": 0.25, "moisture": 9}, where="row 3")
    assert names == ("450", "460.5") and cube.values.tolist() == [[[0.5, 0.25]]]
    assert cube.wavelengths_nm is not None and cube.wavelengths_nm.tolist() == [450, 460.5]
    assert cube_from_row({"wl 1.2um": 1, "wl 1.3um": 2}, where="x")[0].wavelengths_nm.tolist() == [1200, 1300]
    assert cube_from_row({"B1": 1, "B2": 2, "x": 3}, where="x")[1] == ("B1", "B2")
    assert cube_from_row({"red": 1, "nir": "2", "name": "a"}, where="x")[1] == ("red", "nir")
    with pytest.raises(DataError, match="row 3, column 'B2': must hold a number for this band; found 'x'"):
        cube_from_row({"B1": 1, "B2": "x"}, where="row 3")
    with pytest.raises(DataError, match="row 3: must have a column a band"):
        cube_from_row({"name": "a"}, where="row 3")


# --- splits


def field(side: int = 48):
    """Returns rows, columns and classes of a labelled square: stripes of three classes."""
    rows, columns = (axis.reshape(-1) for axis in np.mgrid[:side, :side])
    return rows, columns, rows // 4 % 3


def overlap(rows, columns, splits, *, radius: int) -> bool:
    """Returns whether two windows of different splits share a pixel, by brute force."""
    places = np.stack([rows, columns], axis=1)
    splits = np.array(splits)
    one, two = places[splits == "train"], places[splits == "test"]
    return bool((np.abs(one[:, None] - two[None]).max(axis=2) <= 2 * radius).any())


def test_random_pixels_are_the_permutation_of_each_class():
    rows, columns, classes = field(12)
    plots = cut_scene(rows, columns, classes, cut=Cut(train_pixels=5, draw=3), where="x")
    rng = np.random.RandomState(3)
    expected = [rng.permutation(np.flatnonzero(classes == one))[:5] for one in range(3)]
    chosen = [i for i, split in enumerate(plots.splits) if split == "train"]
    assert chosen == sorted(np.concatenate(expected)) and plots.used.all()
    assert "random" in plots.notes[0] and "too good" in plots.notes[0]
    with pytest.raises(DataError, match="must have more than 48 pixels of each class; found 48"):
        cut_scene(rows, columns, classes, cut=Cut(train_pixels=48), where="x")


@pytest.mark.parametrize("radius", [0, 2, 4])
def test_disjoint_training_pixels_share_no_window_with_the_test(radius: int):
    rows, columns, classes = field()
    plots = cut_scene(rows, columns, classes, cut=Cut("disjoint", train_pixels=5, radius=radius), where="x")
    kept = [split for split, used in zip(plots.splits, plots.used, strict=True) if used]
    assert Counter(kept)["train"] == 15
    assert not overlap(rows[plots.used], columns[plots.used], kept, radius=radius)
    assert "places apart" in plots.notes[0]


@pytest.mark.parametrize("radius", [0, 1, 3])
def test_windows_of_different_tiles_share_nothing(radius: int):
    rows, columns, classes = field()
    plots = cut_scene(rows, columns, classes, cut=Cut("disjoint", tile=12, radius=radius), where="x")
    groups = np.array(plots.groups)[plots.used]
    assert len(set(groups)) == 16 and plots.used.sum() == 16 * (12 - 2 * radius) ** 2
    splits = np.where(groups == groups[0], "train", "test")
    assert not overlap(rows[plots.used], columns[plots.used], splits, radius=radius)


def test_classes_that_cannot_be_apart_are_named():
    rows, columns, classes = field(16)
    lone = np.where((rows < 3) & (columns < 3), 7, classes)
    with pytest.raises(DataError, match="must have each class in tiles for training .*found class 7 in 1 tile"):
        cut_scene(rows, columns, lone, cut=Cut("disjoint", train_pixels=2, tile=8), where="x")
    with pytest.raises(DataError, match="found no pixel of class 7"):
        cut_scene(rows, columns, lone, cut=Cut("disjoint", tile=8, radius=3), where="x")


def test_no_pixel_of_a_scene_without_data_is_used(tmp_path: Path):
    labels = save_scene(tmp_path, "a")
    cube = np.load(tmp_path / "a.npy")
    place = tuple(np.argwhere(labels > 0)[0])
    cube[place] = np.nan
    np.save(tmp_path / "a.npy", cube)
    found = index(tmp_path)
    assert len(found.records) == (labels > 0).sum() - 1 and "1 labelled pixel without data left out" in found.notes[0]
    assert not cube_from_array(cube, where="x", about={}).valid[place]
