"""Tables: types, separators, and the line of every fault."""

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.core.errors import DataError
from metatransformer.data.table import numbers, read_columns, read_table

FIXTURES = Path(__file__).parent / "fixtures" / "tabular"


def written(folder: Path, text: str, *, name: str = "a.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder / name


def test_types_and_missing_values(tmp_path):
    path = written(tmp_path, 'n,x,text,code\n1, 2.5 ,"a, b",007\n2,?, c ,\n3,NA,"d ""e""",1\n')
    found = read_table(path, header=True)
    assert found["n"].tolist() == [1, 2, 3] and found["n"].dtype == np.int64
    assert found["x"][0] == 2.5 and found["x"].isna().tolist() == [False, True, True]
    assert found["text"].tolist() == ["a, b", "c", 'd "e"']
    assert found["code"].tolist() == ["007", None, "1"]
    text = read_table(path, header=True, text=True, missing=("",))
    assert text["n"].tolist() == ["1", "2", "3"] and text["x"][1] == "?"


@pytest.mark.parametrize("mark, name", [(",", "a.csv"), (";", "a.csv"), ("|", "a.txt"), ("\t", "a.tsv")])
def test_separators(tmp_path, mark, name):
    path = written(tmp_path, f"a{mark}b\n1{mark}x\n\n2{mark}y\n", name=name)
    assert read_table(path, header=True).to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
    assert read_columns(path) == ("a", "b")


def test_without_header_and_nameless(tmp_path):
    path = written(tmp_path, "1,x\n2,y\n", name="a.data")
    assert list(read_table(path, header=False).columns) == ["column_1", "column_2"]
    assert len(read_table(path, header=False)) == 2
    path = written(tmp_path, ",x\n0,y\n")
    assert list(read_table(path, header=True).columns) == ["unnamed_1", "x"]


def test_compressed_windows_and_marked_files(tmp_path):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress("\ufeffa,b\r\n1,ü\r\n".encode()))
    assert read_table(path, header=True).to_dict("list") == {"a": [1], "b": ["ü"]}
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(DataError, match="must be a readable file"):
        read_table(path, header=True)


def test_lines_and_parquet(tmp_path):
    path = written(tmp_path, '{"a": 1, "b": "x"}\n\n{"a": null}\n', name="a.jsonl")
    found = read_table(path, header=True)
    assert found["a"][0] == 1 and found.isna().sum().to_dict() == {"a": 1, "b": 1}
    assert read_columns(path) == ("a", "b")
    with pytest.raises(DataError, match="a.jsonl, line 2: must be one JSON object"):
        read_table(written(tmp_path, '{"a": 1}\n{"a"', name="a.jsonl"), header=True)
    with pytest.raises(DataError, match="line 1: must be one JSON object; found a list"):
        read_table(written(tmp_path, "[1]\n", name="a.jsonl"), header=True)
    assert read_columns(FIXTURES / "good.parquet") == ("age", "weight", "colour", "code", "label")


def test_unquoted_marks(tmp_path):
    path = written(tmp_path, 'text\tlabel\n" so it goes\t1\n', name="a.tsv")
    assert read_table(path, header=True, quoted=False)["text"].tolist() == ['" so it goes']
    with pytest.raises(DataError, match="quoted=False"):
        read_table(path, header=True)


def test_good_fixtures_agree():
    text = read_table(FIXTURES / "good.csv", header=True)
    assert text.shape == (23, 5)
    assert text["age"].isna().sum() == 1 and text["weight"].isna().sum() == 1
    stored = read_table(FIXTURES / "good.parquet", header=True)
    pd.testing.assert_series_equal(text["code"], stored["code"], check_dtype=False)


@pytest.mark.parametrize(
    "name, words",
    [
        ("broken_ragged.csv", "line 6: must have 5 fields like line 1; found 2"),
        ("broken_quote.csv", "must close every quotation mark"),
        ("broken_duplicate.csv", "name every column differently; found 'age' more than once"),
        (
            "broken_encoding.csv",
            r"line \d: must be UTF-8 text; found the byte 0xfc \(perhaps Latin-1",
        ),
        ("broken_header_only.csv", "at least one row; found none"),
        ("broken_empty.csv", "must hold a table; found an empty file"),
        ("broken_truncated.parquet", "must be a whole Parquet file"),
        ("absent.csv", "must be a table file; found nothing there"),
    ],
)
def test_broken_fixtures_say_why(name, words):
    with pytest.raises(DataError, match=f"{name}.*{words}"):
        read_table(FIXTURES / name, header=True)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="found the ending '.xlsx'. Save it as CSV"):
        read_table(written(tmp_path, "x", name="a.xlsx"), header=True)
    with pytest.raises(DataError, match="found a binary file"):
        read_table(written(tmp_path, "a,b\n\0,1\n"), header=True)
    (tmp_path / "b.csv").write_bytes("a,b\n1,2\n".encode("utf-16"))
    with pytest.raises(DataError, match="UTF-16"):
        read_table(tmp_path / "b.csv", header=True)


def test_numbers_by_hand():
    assert numbers(["1", "2"]).dtype == np.int64
    np.testing.assert_array_equal(numbers(["1", None, "-2.5e1"]), [1, np.nan, -25])
    assert numbers(["1", "x"]) is None
    assert numbers(["0.5", "0"]).tolist() == [0.5, 0.0]
    assert numbers(["1", "01"]) is None
    assert numbers([None, None]) is None


FIELDS = st.text(alphabet='ab ,;"\n07?', max_size=5)


@given(st.lists(st.tuples(FIELDS, FIELDS), min_size=1, max_size=7))
def test_what_pandas_writes_is_read_back(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("table") / "a.csv"
    frame = pd.DataFrame([("x", *row) for row in rows], columns=["always", "one", "two"])
    frame.to_csv(path, index=False)
    found = read_table(path, header=True, text=True, missing=())
    for name in ("one", "two"):
        assert found[name].tolist() == [field.strip() for field in frame[name]]


def test_old_line_ends_and_endless_fields(tmp_path):
    (tmp_path / "cr.csv").write_bytes(b"a,b\r1,x\r2,y\r")
    assert read_table(tmp_path / "cr.csv", header=True).to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
    (tmp_path / "long.csv").write_text("a,b\n1," + "x" * 200_000 + "\n")  # the parser's limit is 131072
    with pytest.raises(DataError, match="long.csv: must be a table of text fields; found 'field larger"):
        read_table(tmp_path / "long.csv", header=True)
