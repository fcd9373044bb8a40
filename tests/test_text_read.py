"""Texts as records: tables, files, lists; what is taken for what, and what is refused."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.records import Index
from metatransformer.modalities.text.read import index_text, read_text, require_text, text_columns


def indexed(data, *, target: str = "", labelled: bool = False, header: bool = True, columns=(), quotes="auto") -> Index:
    return index_text(data, target=target, labelled=labelled, header=header, columns=columns, quotes=quotes)


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def texts(index: Index) -> list[str]:
    return [" | ".join(record.value.values()) for record in index.records]


# --- tables


def test_fields_are_read_as_they_are_written(tmp_path: Path):
    path = write(tmp_path / "a.csv", "text,label", "NA,007", "null,1", "nan,2", "12,3")
    index = indexed(path, labelled=True)
    assert texts(index) == ["NA", "null", "nan", "12"]
    assert [record.target for record in index.records] == ["007", "1", "2", "3"]
    assert index.records[0].path == path and index.columns == ("text",)


def test_numbers_as_labels_are_numbers(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "label\tsentence", "0\ta film", "1\tthe film")
    assert [record.target for record in indexed(path, target="label", labelled=True).records] == [0, 1]


def test_quotation_marks_in_a_tsv_are_letters_when_one_is_not_closed(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "text\tlabel", '"well , it begins\t1', "it goes on\t0", 'and ends"\t1', '"so"\t0')
    index = indexed(path)
    assert texts(index) == ['"well , it begins', "it goes on", 'and ends"', '"so"']
    assert "quotation marks in a.tsv are taken for letters" in index.notes[0]


def test_quotation_marks_in_a_tsv_are_brackets_when_all_close(tmp_path: Path):
    path = write(tmp_path / "a.tsv", "text\tlabel", '"one ""good"" film"\t1', '"two\nlines"\t0', 'a 5" disc\t1')
    index = indexed(path)
    assert texts(index) == ['one "good" film', "two\nlines", 'a 5" disc']
    assert "1 cell spans several lines in a.tsv, column 'text' (up to 2)" in " ".join(index.notes)
    with pytest.raises(DataError, match="must have 2 fields"):
        indexed(path, quotes="letters")


def test_quotation_marks_in_a_csv_must_close(tmp_path: Path):
    path = write(tmp_path / "a.csv", "text,label", '"well it begins,1', "it goes on,0")
    with pytest.raises(DataError, match=r"a.csv, line \d: must close every quotation mark"):
        indexed(path)
    assert texts(indexed(path, quotes="letters")) == ['"well it begins', "it goes on"]


def test_a_folder_of_splits_may_name_its_only_column_differently(tmp_path: Path):
    write(tmp_path / "train.tsv", "label\tsentence", "0\ta film", "1\tthe film")
    write(tmp_path / "dev.tsv", "label\tcontent", "1\tsome film")
    index = indexed(tmp_path, labelled=True)
    assert [(r.key, r.split, r.value) for r in index.records] == [
        ("train/0", "train", {"sentence": "a film"}),
        ("train/1", "train", {"sentence": "the film"}),
        ("val/0", "val", {"sentence": "some film"}),
    ]
    assert "the column 'content'" in index.notes[0] and "is taken for 'sentence'" in index.notes[0]
    write(tmp_path / "test.tsv", "label\tone\ttwo", "1\ta\tb")
    with pytest.raises(DataError, match=r"test.tsv: must have the same columns as the other tables \(sentence\)"):
        indexed(tmp_path, labelled=True)
    write(tmp_path / "test.csv", "label,content", "1,b")
    with pytest.raises(DataError, match="one table for the split 'test'; found test.csv and test.tsv"):
        indexed(tmp_path, labelled=True)


def test_split_and_group_are_columns_of_their_own(tmp_path: Path):
    path = write(tmp_path / "a.csv", "text,label,split,group", "a,1,train,x", "b,0,dev,y")
    records = indexed(path, labelled=True).records
    assert [(r.split, r.group) for r in records] == [("train", "x"), ("val", "y")]
    assert texts(indexed(path)) == ["a", "b"]
    taken = indexed(path, columns=("group",)).records[0]
    assert taken.group is None and taken.value["group"] == "x"


def test_the_column_to_learn_must_be_known(tmp_path: Path):
    path = write(tmp_path / "a.csv", "text,stars", "a film,1", "b film,0")
    assert indexed(path).records[0].value == {"text": "a film", "stars": "1"}
    assert indexed(path, target="stars").records[0].target == 1
    with pytest.raises(UsageError, match="--target: must name the column to learn.*Columns: text, stars"):
        indexed(path, labelled=True)
    with pytest.raises(DataError, match="must have the column 'title' of input.columns; found text, stars"):
        indexed(path, columns=("title",))
    with pytest.raises(DataError, match="have a value in every row; found 1 row without one"):
        indexed(write(tmp_path / "b.csv", "text,label", "a,1", "b,"), labelled=True)


def test_a_table_without_header_is_suspected(tmp_path: Path):
    path = write(tmp_path / "a.csv", "a film that nobody should ever see,0", "a film that all should see twice,1")
    assert any("set data.header=false" in note for note in indexed(path).notes)
    assert len(indexed(path, header=False).records) == 2


def test_frames_and_mappings(tmp_path: Path):
    frame = pd.DataFrame({"text": ["a film", None], "label": [1, 0]})
    assert [record.value["text"] for record in indexed(frame, labelled=True).records] == ["a film", None]
    assert texts(indexed([{"text": "a"}, {"text": "b"}])) == ["a", "b"]


# --- files


def test_a_folder_of_classes(tmp_path: Path):
    write(tmp_path / "bad/1.txt", "a dull film")
    write(tmp_path / "good/2.txt", "a fine film")
    records = indexed(tmp_path, labelled=True).records
    assert [(r.key, r.target) for r in records] == [("bad/1.txt", "bad"), ("good/2.txt", "good")]
    with pytest.raises(DataError, match="one folder per class"):
        indexed(write(tmp_path / "flat/3.txt", "a film").parent, labelled=True)


def test_a_manifest_names_files(tmp_path: Path):
    write(tmp_path / "1.txt", "a dull film")
    path = write(tmp_path / "list.csv", "path,label", "1.txt,bad")
    (record,) = indexed(path, labelled=True).records
    assert (record.path, record.target) == (tmp_path / "1.txt", "bad")
    # A column 'path' that names no text file is a column like any other.
    assert indexed(write(tmp_path / "urls.csv", "path,text", "/a/b,a film")).records[0].value["text"] == "a film"


def test_strings_that_name_files_are_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    one, two = write(tmp_path / "1.txt", "a"), write(tmp_path / "2.txt", "b")
    table = write(tmp_path / "a.csv", "text", "a film")
    assert [r.path for r in indexed([str(two), str(one)]).records] == [two, one]
    assert [r.path for r in indexed([one]).records] == [one]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="either texts or names of .txt files .* the file '1.txt' beside 'a film'"):
        indexed(["1.txt", "a film"])
    with pytest.raises(DataError, match="found the file '.*a.csv'"):
        indexed([str(table), str(table)])
    with pytest.raises(DataError, match="'3.txt': must be a text, or a file that exists"):
        indexed(["3.txt", "a film"])
    with pytest.raises(DataError, match="must exist"):
        indexed("a film")


@pytest.mark.parametrize(
    "content, found",
    [
        (b"", "an empty one"),
        (b" \n", "an empty one"),
        (b"caf\xe9", "0xe9"),
        (b"\xff\xfea\0", "UTF-16"),
        (b"a\0b", "a binary file"),
    ],
)
def test_bad_files_are_named(content: bytes, found: str, tmp_path: Path):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_text(path)
    assert "bad.txt" in str(caught.value) and found in str(caught.value)


def test_a_byte_order_mark_is_no_text(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa film\n")
    assert read_text(path) == "a film\n"


# --- lists


def test_strings_and_pairs():
    assert [r.value for r in indexed(["a film", "NA"]).records] == [{"text": "a film"}, {"text": "NA"}]
    pair = {"text_1": "a film", "text_2": "is it"}
    assert [r.value for r in indexed([("a film", "is it"), ["a film", "is it"]]).records] == [pair, pair]
    assert [r.value for r in indexed(np.array([["a film", "is it"]])).records] == [pair]
    assert texts(indexed(np.array(["a film", "b"]))) == texts(indexed(pd.Series(["a film", "b"]))) == ["a film", "b"]


@pytest.mark.parametrize(
    "data, found",
    [
        ([], "an empty list"),
        (7, "a int"),
        ([("a", "b", "c")], "3 entries"),
        ([7], "a int"),
        (b"a film", "a bytes"),
    ],
)
def test_other_lists_are_refused(data, found: str):
    with pytest.raises(DataError, match=found):
        indexed(data)


def test_texts_without_labels_are_not_learned_from():
    with pytest.raises(DataError, match="found 1 texts without labels"):
        indexed(["a film"], labelled=True)


# --- one text, and which columns hold texts


@pytest.mark.parametrize(
    "value, found",
    [
        (None, "a missing one"),
        (float("nan"), "a missing one"),
        ("", "an empty one"),
        (7, r"a int \(7\)"),
        ("a\0", "a NUL character"),
        ("a\ud800", "surrogate"),
    ],
)
def test_what_is_no_text(value, found: str):
    with pytest.raises(DataError, match=f"row 3: must .*{found}"):
        require_text(value, where="row 3")


def test_columns_that_read_as_texts():
    rows = [{"id": "a1", "title": "the film", "body": "it is a film", "year": 1999}] * 3
    assert text_columns(rows, where="") == ("title", "body")
    assert text_columns([{"word": "good"}], where="") == ("word",)
    assert text_columns([{"said": "good film", "date": "2016-07-01 00:00:00"}], where="") == ("said",)
    assert text_columns([{"id": "x7", "words": "これは映画です"}], where="") == ("words",)
    with pytest.raises(DataError, match=r"a.csv: must have one column of texts.*none that reads .* among id, year"):
        text_columns([{"id": "a1", "year": "1999"}], where="a.csv")
    with pytest.raises(DataError, match=r"3 that read as text \(a, b, c\).*input.columns="):
        text_columns([dict.fromkeys("abc", "some text")], where="")


def test_nothing_is_opened_but_tables(tmp_path: Path):
    path = tmp_path / "a.txt"
    path.write_bytes(os.urandom(17))
    assert len(indexed(tmp_path).records) == 1


@pytest.mark.parametrize("length", [300, 4000, 5000])  # of a name a system takes 255 letters
def test_texts_longer_than_a_name_may_be_are_texts(length: int):
    given = ["word " * (length // 5), "short"]
    assert texts(indexed(given)) == given
