"""Folders, manifests, lists and arrays as records; every wrong layout is refused in words."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.core.errors import DataError
from metatransformer.data.index import Index, index_files
from metatransformer.data.records import natural_key, split_name

SUFFIXES = (".png", ".jpg")


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    return root


def index(data, *, labels: bool = True, suffixes=SUFFIXES) -> Index:
    return index_files(data, suffixes=suffixes, require_labels=labels)


def rows(found: Index) -> list[tuple]:
    return [(r.key, r.target, r.split) for r in found.records]


# --- folders


def test_class_folders_sorted_naturally(tmp_path):
    touch(tmp_path, "dog/a10.png", "dog/a2.png", "cat/sub/b.JPG", "README.md", ".DS_Store", "x.txt")
    found = index(tmp_path)
    assert rows(found) == [
        ("cat/sub/b.JPG", "cat", None),
        ("dog/a2.png", "dog", None),
        ("dog/a10.png", "dog", None),
    ]
    assert found.records[1].path == tmp_path / "dog/a2.png"
    assert found.notes == (
        "1 file with other endings left out: .txt 1 (e.g. x.txt)",
        "2 hidden or accompanying files ignored: .DS_Store, README.md",
    )


def test_splits_in_any_spelling(tmp_path):
    touch(tmp_path, "Training/cat/a.png", "dev/cat/a.png", "test/dog/a.png")
    found = index(tmp_path)
    assert rows(found) == [
        ("dev/cat/a.png", "cat", "val"),
        ("test/dog/a.png", "dog", "test"),
        ("Training/cat/a.png", "cat", "train"),
    ]
    assert found.notes == ("taken as splits: Training = train, dev = val",)
    assert [r.key for r in found.split("val")] == ["dev/cat/a.png"]


def test_splits_inside_the_classes(tmp_path):
    touch(tmp_path, "cat/train/a.png", "cat/test/a.png", "dog/train/a.png")
    assert rows(index(tmp_path)) == [
        ("cat/test/a.png", "cat", "test"),
        ("cat/train/a.png", "cat", "train"),
        ("dog/train/a.png", "dog", "train"),
    ]


def test_a_class_may_be_called_train(tmp_path):
    touch(tmp_path, "bus/a.png", "train/a.png")
    assert rows(index(tmp_path)) == [("bus/a.png", "bus", None), ("train/a.png", "train", None)]


def test_flat_folder_has_no_labels(tmp_path):
    touch(tmp_path, "b.png", "a.png")
    assert rows(index(tmp_path, labels=False)) == [("a.png", None, None), ("b.png", None, None)]
    with pytest.raises(DataError, match="one folder per class.*2 of 2 files outside a class folder"):
        index(tmp_path)
    (tmp_path / "labels.csv").write_text("path,label\n")
    with pytest.raises(DataError, match="If .*labels.csv is such a manifest, name it"):
        index(tmp_path)


@pytest.mark.parametrize(
    "files, words",
    [
        ([], "must hold files that end in .png, .jpg; found no file"),
        (["README.md", ".hidden.png"], r"found only files about data, or hidden ones \(e.g. .hidden.png\). Check"),
        (["a.wav", "b.wav"], r"found 2 other files \(.wav 2\). Name the folder with the data"),
        (["train/cat/a.png", "more/cat/a.png"], "found both: train beside more"),
        (["train/cat/a.png", "train/b.png", "a.png"], "found both: train beside a.png"),
        (["cat/a.png", "a.png"], "found 1 of 2 files outside a class folder"),
        (["photos/cat/a.png", "photos/dog/a.png"], "single folder 'photos'.*Name .*photos instead"),
        (["set/train/cat/a.png", "set/test/cat/a.png"], "single folder 'set'"),
    ],
)
def test_wrong_layouts_are_refused(tmp_path, files, words):
    touch(tmp_path, *files)
    with pytest.raises(DataError, match=words):
        index(tmp_path)


def test_a_file_beside_split_folders_is_left_out_and_named(tmp_path):
    touch(tmp_path, "train/cat/a.png", "test/dog/a.png", "voxels.png")
    found = index(tmp_path)
    assert rows(found) == [("test/dog/a.png", "dog", "test"), ("train/cat/a.png", "cat", "train")]
    assert "1 file beside the split folders not used: voxels.png" in found.notes
    with pytest.raises(DataError, match="found both: test, train beside voxels.png"):
        index(tmp_path, labels=False)  # predictions of unlabelled files would lack a row


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path, "cat/a.png", "dog/a.png")
    (tmp_path / "cat" / "up").symlink_to(tmp_path)
    assert len(index(tmp_path).records) == 2


# --- manifests


def manifest(root: Path, text: str, *, name: str = "list.csv") -> Path:
    touch(root, "a.png", "b/c.png")
    (root / name).write_text(text)
    return root / name


def test_manifest_keeps_order_and_all_columns(tmp_path):
    absolute = tmp_path / "a.png"
    text = f"label,path,split,group,key,age\ncat,b/c.png,dev,g1,x,3\ndog,{absolute},Test,7,y,4\n"
    found = index(manifest(tmp_path, text))
    first, second = found.records
    assert (first.key, first.path, first.target) == ("x", tmp_path / "b/c.png", "cat")
    assert (first.split, first.group) == ("val", "g1")
    assert (second.path, second.split, second.group) == (absolute, "test", "7")
    assert found.notes == ("columns not used: age",)


def test_a_manifest_may_bring_several_labels(tmp_path):
    path = manifest(tmp_path, "path,edema,effusion,age\na.png,1,,3\nb/c.png,0,1,4\n")
    found = index_files(path, suffixes=(".png",), label_column="edema, effusion", require_labels=True)
    assert [record.target for record in found.records] == [(1, None), (0, 1)]
    assert found.notes == ("columns not used: age",)
    with pytest.raises(DataError, match="must have a column 'effusions'.*Did you mean 'effusion'"):
        index_files(path, suffixes=(".png",), label_column="edema,effusions", require_labels=True)
    bare = index_files(path, suffixes=(".png",), label_column="other,labels", require_labels=False)
    assert [record.target for record in bare.records] == [None, None]


@pytest.mark.parametrize(
    "labels, expected",
    [
        (["1", "2"], [1, 2]),
        (["-0.5", "1e3"], [-0.5, 1000.0]),
        (["007", "1"], ["007", "1"]),
        (["NA", "1"], ["NA", "1"]),
        (["nan", "None"], ["nan", "None"]),
    ],
)
def test_labels_stay_what_they_are(tmp_path, labels, expected):
    text = f"path,label\na.png,{labels[0]}\nb/c.png,{labels[1]}\n"
    found = [r.target for r in index(manifest(tmp_path, text)).records]
    assert found == expected
    assert [type(x) for x in found] == [type(x) for x in expected]


@pytest.mark.parametrize("name", ["list.tsv", "list.jsonl", "list.parquet", "frame"])
def test_manifests_of_every_kind_agree(tmp_path, name, monkeypatch):
    path = manifest(tmp_path, "path\tlabel\n./a.png\tcat\nb/c.png\tdog\n", name="list.tsv")
    frame = pd.DataFrame({"path": ["./a.png", "b/c.png"], "label": ["cat", "dog"]}, index=[7, 3])
    frame.to_json(tmp_path / "list.jsonl", orient="records", lines=True)
    frame.to_parquet(tmp_path / "list.parquet")
    monkeypatch.chdir(tmp_path)
    found = index(frame if name == "frame" else path.with_name(name))
    assert rows(found) == [("a.png", "cat", None), ("b/c.png", "dog", None)]


@pytest.mark.parametrize(
    "text, words",
    [
        ("place,label\na.png,x\n", "must have a column 'path'.*Valid: label, place"),
        ("file,filename,label\na.png,a.png,x\n", "must have a column 'path'.*Valid: file, filename, label"),
        ("path,lable\na.png,x\n", "must have a column 'label'.*Did you mean 'lable'"),
        (
            "path,label\na.png,x\nno.png,x\n",
            "line 3, column 'path': .*'no.png', which is not there",
        ),
        ("path,label\na.png,x\n,x\n", "line 3, column 'path': must have a value in every row"),
        (
            "path,label\na.png,\n",
            "line 2, column 'label': must have a value .* found 1 row without",
        ),
        ("path,label,split\na.png,x,holdout\n", "line 2, column 'split': .*found 'holdout'"),
        ("path,label\nlist.csv,x\n", "line 2, column 'path': must end in .png, .jpg"),
        (
            "path,label\na.png,x\n./a.png,x\n",
            "name every item once; found 'a.png' as items 1 and 2",
        ),
    ],
)
def test_wrong_manifests_are_refused(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        index(manifest(tmp_path, text))


def test_usual_names_stand_for_path_and_group(tmp_path):
    found = index(manifest(tmp_path, "file,label,source_group\na.png,x,ward 7\n"))
    assert [(r.key, r.target, r.group) for r in found.records] == [("a.png", "x", "ward 7")]
    assert "column 'file' taken as 'path'" in found.notes
    assert "column 'source_group' taken as 'group'" in found.notes
    both = index(manifest(tmp_path, "path,group,source_group\na.png,y,z\n"), labels=False)
    assert both.records[0].group == "y" and both.notes == ("columns not used: source_group",)


def test_labels_are_optional_when_not_required(tmp_path):
    found = index(manifest(tmp_path, "path\na.png\n"), labels=False)
    assert rows(found) == [("a.png", None, None)]


def test_a_csv_recording_is_not_a_manifest(tmp_path):
    (tmp_path / "walk.csv").write_text("x,y,z\n1,2,3\n")
    assert rows(index(tmp_path / "walk.csv", labels=False, suffixes=(".csv",))) == [("walk.csv", None, None)]
    (tmp_path / "list.csv").write_text("path,label\nwalk.csv,walk\n")
    assert rows(index(tmp_path / "list.csv", suffixes=(".csv",))) == [("walk.csv", "walk", None)]


# --- lists and arrays


def test_list_keeps_its_order_and_opens_folders(tmp_path):
    touch(tmp_path, "z.png", "d/b10.png", "d/b9.png")
    found = index([str(tmp_path / "z.png"), tmp_path / "d"], labels=False)
    assert [r.key for r in found.records] == ["z.png", "d/b9.png", "d/b10.png"]
    assert rows(index(tmp_path / "z.png", labels=False)) == [("z.png", None, None)]
    series = pd.Series([str(tmp_path / "z.png")])
    assert rows(index(series, labels=False)) == [("z.png", None, None)]


def test_arrays_become_values():
    arrays = np.arange(6).reshape(3, 2)
    found = index(arrays, labels=False)
    assert [r.key for r in found.records] == ["0", "1", "2"]
    np.testing.assert_array_equal(found.records[2].value, [4, 5])
    sound = {"array": np.zeros(3), "sampling_rate": 8000}
    assert index([sound], labels=False).records[0].value is sound


@pytest.mark.parametrize(
    "data, words",
    [
        ([], "at least one item"),
        ([[1, 2], [3]], "item 0 of the data: must be a path or an array; found a list"),
        ([np.zeros(2), "a.png"], "item 1 of the data: .*found a str"),
        (np.float64(3.0), "must be a path, a list of paths.*found a float64"),
        (np.array(3.0), "found a single number"),
        ({"a": 1}, "found a dict"),
        ("nowhere/at/all", "must exist; found nothing; the path is there up to"),
    ],
)
def test_wrong_data_is_refused(data, words):
    with pytest.raises(DataError, match=words):
        index(data, labels=False)


def test_arrays_without_labels_are_refused_for_training():
    with pytest.raises(DataError, match="label for every item; found 2 items without"):
        index(np.zeros((2, 3)))


# --- names


@given(st.lists(st.text(alphabet="aB0129/._é٣", max_size=7), unique=True, max_size=7))
def test_natural_order_is_total(names):
    keys = [natural_key(name) for name in names]
    assert len(set(keys)) == len(names)
    assert sorted(names, key=natural_key) == sorted(reversed(names), key=natural_key)


@given(st.integers(0, 10**30), st.integers(0, 10**30))
def test_natural_order_counts(first, second):
    if first != second:
        ordered = natural_key(f"a{first}.png") < natural_key(f"a{second}.png")
        assert ordered == (first < second)


def test_split_names():
    words = ("TRAIN", "valid", "validation", " dev ", "testing", "extra")
    assert [split_name(word) for word in words] == ["train", "val", "val", "val", "test", None]


def test_a_name_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "ü.png").touch()
    assert index_files(tmp_path, suffixes=[".png"], require_labels=True).records[0].key == "a/ü.png"
    try:
        (tmp_path / "a" / os.fsdecode(b"\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DataError, match=r"file name b'a/\\xff.png': must be UTF-8"):
        index_files(tmp_path, suffixes=[".png"], require_labels=True)
