"""What is handed in is one of five forms, whatever it is written as."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metatransformer.core.errors import DataError
from metatransformer.data.given import Array, Files, Folder, Items, Rows, Sheet, recognise


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tables").mkdir()
    for name in ("test.tsv", "train.csv", "other.csv", ".val.csv", "notes.txt"):
        (tmp_path / "tables" / name).write_text("path,label\na.png,x\n")
    (tmp_path / "a.png").touch()
    return tmp_path


def test_paths(root):
    folder = recognise(str(root / "tables"))
    assert isinstance(folder, Folder) and [path.name for path in folder.tables] == [
        "other.csv",
        "test.tsv",
        "train.csv",
    ]
    assert [(sheet.split, sheet.path) for sheet in folder.sheets] == [
        ("train", root / "tables" / "train.csv"),
        ("test", root / "tables" / "test.tsv"),
    ]
    sheet = recognise(root / "tables" / "train.csv")
    assert isinstance(sheet, Sheet) and sheet.columns == ("path", "label") and sheet.lists_files
    assert sheet.read(header=True)["label"].tolist() == ["x"] and sheet.rows.name(0) == f"{sheet.path}, line 2"
    files = recognise(root / "a.png")
    assert files == Files((root / "a.png",), listed=False) and files.one == root / "a.png"
    with pytest.raises(DataError, match="nowhere.png: must exist"):
        recognise(root / "nowhere.png")


@pytest.mark.parametrize("wrap", [list, tuple, pd.Series, np.array, lambda names: np.array(names, dtype=object)])
def test_lists_of_paths(wrap):
    found = recognise(wrap(["a.png", "b.png"]))
    assert found == Files((Path("a.png"), Path("b.png")), listed=True) and found.one is None
    texts = recognise(wrap(["a.png", "b.png"]), strings=True)
    assert isinstance(texts, Items) and texts.items == ("a.png", "b.png") and texts.are(str)
    assert isinstance(recognise([Path("a.png")], strings=True), Files)


def test_what_is_in_memory():
    frame = pd.DataFrame({"x": [1], 2: [3]})
    sheet = recognise(frame)
    assert isinstance(sheet, Sheet) and sheet.frame is frame and sheet.columns == ("x", "2") and not sheet.lists_files
    assert (sheet.where, sheet.rows.where) == ("the table", "the DataFrame")
    array = np.zeros((2, 3))
    found = recognise(array)
    assert isinstance(found, Array) and found.values is array and recognise(found) is found
    mixed = recognise([array, {"a": 1}])
    assert isinstance(mixed, Items) and mixed.are(np.ndarray, dict) and not mixed.are(dict)
    assert isinstance(recognise([]), Items) and not recognise([]).are(dict)


@pytest.mark.parametrize(
    "data, found", [(3.5, "a float"), ({"a": 1}, "a dict"), (b"x", "a bytes"), (None, "a NoneType")]
)
def test_what_is_none_of_them(data, found):
    with pytest.raises(DataError, match=f"the data: must be a list; found {found}. Make one."):
        recognise(data, must="be a list", do="Make one.")


def test_rows_have_names():
    rows = Rows("t.csv", 2, places=(4, 7))
    assert rows.name(1) == "t.csv, line 9" and Rows("x", 0).name(3) == "x, row 3"
    assert rows.splits(["dev", None]) == ["val", None]
    with pytest.raises(DataError, match="t.csv, line 9, column 'split': must be one of train, .*; found 'left'"):
        rows.splits(["dev", "left"])
    with pytest.raises(
        DataError, match="t.csv, line 6, column 'id': must have a value in every row; found 1 row without"
    ):
        rows.require_all([None, 0], column="id")
