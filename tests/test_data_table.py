"""Tables: types, separators, and the line of every fault."""

import gzip
import time
from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data import delimited, limits
from metatransformer.data.delimited import numbers, rows_of
from metatransformer.data.table import read_columns, read_table

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


def test_a_packed_table_that_swells_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * 500_000))
    assert len(read_table(path, header=True)) == 500_000  # little in any case
    monkeypatch.setattr(limits, "MOST_BYTES", 1000)
    most = 100 * path.stat().st_size
    words = f"unpack to at most {most:,} bytes; found more.*set METATRANSFORMER_UNPACKED_MB"
    with pytest.raises(DataError, match=words):
        read_table(path, header=True)
    monkeypatch.setenv("METATRANSFORMER_UNPACKED_MB", "3")
    assert len(read_table(path, header=True)) == 500_000
    monkeypatch.setenv("METATRANSFORMER_UNPACKED_MB", "much")
    with pytest.raises(UsageError, match="must be a whole number of megabytes; found 'much'"):
        read_table(path, header=True)
    path.write_bytes(gzip.compress(path.read_bytes()))  # nothing swells: a packed table of random bytes is no bomb
    with pytest.raises(DataError, match="binary|UTF-8"):
        monkeypatch.delenv("METATRANSFORMER_UNPACKED_MB")
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


def test_a_parquet_file_of_more_cells_than_it_can_hold_is_refused(tmp_path):
    # A column of one value is stored once, whatever its length: a hundred million cells in a few kilobytes.
    table = pa.table({"a": pa.array(np.zeros(10**6, dtype=np.int8)).dictionary_encode()})
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema) as writer:
        for _ in range(100):
            writer.write_table(table)
    with pytest.raises(DataError, match="a.parquet: must hold what its header announces; found 100,000,000 x 1 cells"):
        read_table(tmp_path / "a.parquet", header=True)


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


def test_spaces_may_separate_columns(tmp_path: Path):
    path = tmp_path / "cars.data"
    path.write_text('18.0   8   307.0 "chevrolet chevelle"\n15.0   8   350.0\t"buick"\n')
    table = read_table(path, header=False)
    assert table.to_numpy().tolist() == [[18.0, 8, 307.0, "chevrolet chevelle"], [15.0, 8, 350.0, "buick"]]
    path.write_text("text\nit has 2 legs\nit had 3 arms\n")  # one column of texts
    assert read_table(path, header=True)["text"].tolist() == ["it has 2 legs", "it had 3 arms"]


def test_comments_before_a_table_are_counted(tmp_path: Path):
    path = tmp_path / "a.csv"
    path.write_text("# collected, in May\n#\nx,y,z\n1,2,3\n4,5\n")
    with pytest.raises(DataError, match="line 5: must have 3 fields like line 3; found 2"):
        read_table(path, header=True)
    path.write_text("#x,y\n1,2\n")
    assert read_table(path, header=True).columns.tolist() == ["#x", "y"]


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
    (tmp_path / "long.csv").write_text("a,b\n1," + "x" * 200_000 + "\n")  # beyond the limit of Python's parser
    assert len(read_table(tmp_path / "long.csv", header=True)["b"][0]) == 200_000
    genes = [f"gene{number}" for number in range(20_000)]
    (tmp_path / "wide.csv").write_text(f"{','.join(genes)}\n{'1,' * 19_999}2\n")
    wide = read_table(tmp_path / "wide.csv", header=True)
    assert wide.shape == (1, 20_000) and wide["gene19999"][0] == 2


def test_a_number_is_the_one_that_its_text_says(tmp_path):
    texts = ["0.012295587761662131", "-0.0002350013611643037", "1e400"]
    assert numbers(texts).tolist() == [float(text) for text in texts]
    assert numbers(["+7", None]).tolist()[0] == 7 and numbers(["+7"]).dtype == np.int64
    assert numbers(["12345678901234567890"]).dtype == np.uint64
    for other in ("0x1f", "NAN", "1_0", "1d5", "1" * 30, "\ud800"):
        assert numbers([other]) is None, other


CELLS = st.text(alphabet=" a\"'0é\x1c\u2003\ufeff", max_size=4)
QUOTED = st.text(alphabet=' a,"\n\r;', max_size=4).map(lambda text: '"' + text.replace('"', '""') + '"')
ROWS = st.integers(2, 3).flatmap(lambda n: st.lists(st.lists(CELLS | QUOTED, min_size=n, max_size=n), min_size=1))


@given(ROWS, st.sampled_from("\n \r \r\n".split(" ")), st.sampled_from(",;\t"), st.booleans())
def test_what_arrow_reads_the_strict_parser_reads_too(rows, end, mark, quoted):
    path = Path("a.tsv" if mark == "\t" else "a.csv")
    data = end.join(mark.join(row) for row in rows).encode()
    columns = delimited._by_arrow(data, name=path.name, quoted=quoted)
    if columns is not None:
        strict = list(rows_of(data.decode("utf-8-sig"), path=path, quoted=quoted))
        assert [list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)] == [
            fields for _, fields in strict
        ]


def test_a_table_is_read_about_as_fast_as_by_pandas(tmp_path):
    rng = np.random.default_rng(0)
    count = 50_000
    frame = pd.DataFrame({f"n{i}": rng.normal(size=count) for i in range(6)})
    frame = frame.assign(**{f"w{i}": rng.choice(["clerk", "cook", ""], count) for i in range(6)})
    frame.to_csv(tmp_path / "a.csv", index=False)
    times = {}
    for name, read in {"pandas": pd.read_csv, "ours": lambda path: read_table(path, header=True)}.items():
        tries = []
        for _ in range(3):
            start = time.perf_counter()
            read(tmp_path / "a.csv")
            tries.append(time.perf_counter() - start)
        times[name] = min(tries)
    # About 2 on an idle machine, 30 where Python takes it line by line.
    assert times["ours"] < 12 * times["pandas"], times


def test_bytes_in_parquet_are_texts_where_they_are_utf_8(tmp_path):
    """As Impala and older writers of Parquet leave texts."""
    table = pa.table({"name": pa.array(["Köln".encode(), None, b"x"]), "raw": pa.array([b"\xff", b"a", b"b"])})
    pq.write_table(table, tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet", header=True)
    assert found["name"].fillna("").tolist() == ["Köln", "", "x"] and found["raw"].tolist() == [b"\xff", b"a", b"b"]


def test_parquet_that_swells_is_refused(tmp_path, monkeypatch):
    table = pa.table({"a": ["x" * 1_000_000 + str(i) for i in range(9)]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    assert len(read_table(tmp_path / "a.parquet", header=True)) == 9
    monkeypatch.setattr(limits, "MOST_BYTES", 1_000_000)
    with pytest.raises(DataError, match="a.parquet: must unpack to at most 1,000,000 bytes"):
        read_table(tmp_path / "a.parquet", header=True)


def test_old_times_of_parquet_keep_their_year(tmp_path):
    """Spark writes 96 bits; as nanoseconds the year 9999 would be 1816."""
    times = pa.array([datetime(9999, 12, 31), datetime(2024, 2, 29, 12)], pa.timestamp("us"))
    pq.write_table(pa.table({"t": times}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    found = read_table(tmp_path / "a.parquet", header=True)["t"]
    assert found.dt.year.tolist() == [9999, 2024] and str(found[1]) == "2024-02-29 12:00:00"


@pytest.mark.parametrize("digits", [400, 5000])  # 5000: more than Python turns into a whole number
def test_a_number_of_thousands_of_digits_is_no_whole_number(tmp_path: Path, digits: int):
    found = read_table(written(tmp_path, f"n,m\n1,a\n{'9' * digits},b\n"), header=True)
    assert found["n"].dtype.kind == "f" or found["n"].tolist()[1] == "9" * digits


def test_texts_of_parquet_that_are_no_texts_are_refused(tmp_path: Path):
    column = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.array([0, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(
        DataError, match="a.parquet: must be a whole Parquet file; found a damaged one .pyarrow: .*UTF8"
    ):
        read_table(tmp_path / "a.parquet", header=True)
