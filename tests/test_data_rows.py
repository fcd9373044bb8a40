"""Tables as records: values, target, missing values, and the notes that a person reads."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metatransformer.core.errors import DataError
from metatransformer.data.index import index_table

FIXTURES = Path(__file__).parent / "fixtures" / "tabular"


def test_rows_by_hand(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("age,job,y\n39, clerk ,no\n?,,yes\n")
    found = index_table(path, target="y")
    assert found.columns == ("age", "job")
    first, second = found.records
    assert (first.key, first.part, first.path) == ("0", 0, path)
    assert first.value == {"age": 39.0, "job": "clerk"} and first.target == "no"
    assert second.value == {"age": None, "job": None} and second.target == "yes"
    assert found.notes == (f"2 missing values in 2 rows of {path} (empty, '?', NA and the like): age 1, job 1",)


def test_all_sources_agree(tmp_path):
    frame = pd.DataFrame({"n": [3, 5], "x": [0.5, None], "t": ["a", " ? "], "y": [1, 2]})
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_parquet(tmp_path / "a.parquet")
    frame.to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    sources = [frame, frame.convert_dtypes(), frame.to_dict("records")]
    sources += [tmp_path / f"a.{ending}" for ending in ("csv", "parquet", "jsonl")]
    expected = [{"n": 3, "x": 0.5, "t": "a"}, {"n": 5, "x": None, "t": None}]
    for source in sources:
        found = index_table(source, target="y")
        assert [r.value for r in found.records] == expected, source
        assert [r.target for r in found.records] == [1, 2], source
        assert all(type(r.value["n"]) is int for r in found.records), source


def test_arrays_get_column_names():
    found = index_table(np.arange(6.0).reshape(2, 3), target=None)
    assert found.records[1].value == {"column_1": 3.0, "column_2": 4.0, "column_3": 5.0}
    assert found.records[1].target is None


def test_a_column_of_splits_is_no_input():
    frame = pd.DataFrame({"x": [1, 2], "split": ["training", "dev"], "who": [7, 8], "y": [0, 1]})
    found = index_table(frame, target="y")
    assert found.columns == ("x", "who") and [record.split for record in found.records] == ["train", "val"]
    assert found.notes == ("column 'split' says which rows are train, val and test; it is no input",)
    for other in (frame.assign(split=["training", "left"]), frame.assign(split=[1, 2])):
        plain = index_table(other, target="y")
        assert plain.columns == ("x", "split", "who") and plain.records[0].split is None
    assert index_table(frame, target="split").columns == ("x", "who", "y")
    assert index_table(frame, target="y", split_column=None).columns == ("x", "split", "who")


def test_split_and_group_columns_may_be_named():
    frame = pd.DataFrame({"x": [1, 2], "split": ["training", "dev"], "who": [7, 8], "y": [0, 1]})
    found = index_table(frame, target="y", split_column="split", group_column="who")
    assert found.columns == ("x",)
    assert [(r.split, r.group) for r in found.records] == [("train", "7"), ("val", "8")]
    with pytest.raises(DataError, match="column 'who', row 0: must be one of train,.*found '7'"):
        index_table(frame, target="y", split_column="who")


def test_folder_of_splits(tmp_path):
    (tmp_path / "train.csv").write_text("x,y\n1,0\n2,1\n")
    (tmp_path / "validation.csv").write_text("y,x\n1,3\n")
    (tmp_path / "codes.csv").write_text("a\n1\n")
    found = index_table(tmp_path, target="y")
    assert [(r.key, r.split, r.value) for r in found.records] == [
        ("train/0", "train", {"x": 1}),
        ("train/1", "train", {"x": 2}),
        ("val/0", "val", {"x": 3}),
    ]
    assert found.notes == ("tables not used: codes.csv",)
    (tmp_path / "test.csv").write_text("x,z,y\n1,2,0\n")
    with pytest.raises(DataError, match="test.csv: must have the same columns .*found columns with z"):
        index_table(tmp_path, target="y")
    (tmp_path / "val.tsv").write_text("x\ty\n1\t0\n")
    with pytest.raises(DataError, match="one table for the split 'val'"):
        index_table(tmp_path, target="y")


def test_a_column_that_numbers_the_rows_is_left_out(tmp_path):
    pd.DataFrame({"x": [5, 7, 9]}, index=[4, 2, 8]).to_csv(tmp_path / "a.csv")
    found = index_table(tmp_path / "a.csv", target=None)
    assert found.columns == ("x",)
    assert "only numbers the rows" in found.notes[0]


def test_a_file_without_header_is_suspected(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("39,clerk,no\n50,cook,yes\n")
    words = r"looks like data \(39\): if it names no columns, set data.header=false"
    assert any("looks like data (39)" in note for note in index_table(path, target=None).notes)
    with pytest.raises(DataError, match=f"must have a column 'y'.*{words}"):
        index_table(path, target="y")
    assert len(index_table(path, target="column_3", header=False).records) == 2


@pytest.mark.parametrize(
    "data, target, words",
    [
        (FIXTURES / "good.csv", "lable", "must have a column 'lable'.*Did you mean 'label'"),
        (FIXTURES / "good.csv", "age", r"column 'age': .*found 1 row without one \(row 4 first"),
        (pd.DataFrame({"y": [1]}), "y", "a column besides the target"),
        (pd.DataFrame({"y": []}), "y", "at least one row"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), None, "name every column differently"),
        (np.zeros(3), None, r"found a ndarray of shape \(3,\)"),
        ("nowhere.csv", None, "must be a table file; found nothing there"),
    ],
)
def test_wrong_tables_are_refused(data, target, words):
    with pytest.raises(DataError, match=words):
        index_table(data, target=target)


def test_folder_without_tables(tmp_path):
    with pytest.raises(DataError, match="must hold train.csv .* found no table"):
        index_table(tmp_path, target="y")


def test_a_list_as_target_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1, "y": "x"}\n{"a": 2, "y": ["x"]}\n')
    with pytest.raises(DataError, match="column 'y', row 1: must hold one label or number; found a list"):
        index_table(tmp_path / "t.jsonl", target="y")


def test_a_first_line_of_numbers_alone_looks_like_data(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("5.1,3.5,0.2\n4.9,3.0,0.2\n")
    assert any(
        "the first line looks like data (5.1, 3.5, 0.2)" in note for note in index_table(path, target=None).notes
    )
    path.write_text("0,1,2\n4.9,3.0,0.2\n")  # as pandas counts columns
    assert index_table(path, target=None).notes == ()
