"""Recordings of motion in every format; what is wrong with them is named by file, row and column."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import FIXTURES
from hypothesis import given
from hypothesis import strategies as st

from metatransformer.core.errors import DataError
from metatransformer.data.index import index_files
from metatransformer.modalities._recording.motion import (
    MOTION_SUFFIXES,
    about_left_out,
    motion_from_array,
    motion_from_mapping,
    read_motion,
)
from metatransformer.modalities._recording.uea import read_uea, uea_parts

GOOD = FIXTURES / "imu"
CASES = "@timeStamps false\n@classLabel true walk run\n@data\n1,2,3:4,5,6:walk\n7,8,9:1,1,2:run\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


# --- one recording a file


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "npy", "json"])
def test_every_format_holds_the_same_recording(suffix: str):
    motion = read_motion(GOOD / f"good.{suffix}")
    np.testing.assert_array_equal(motion.values, np.load(GOOD / "good.npy"))
    assert motion.names == tuple(f"axis_{i}" for i in range(1, 7))
    if suffix in ("csv", "tsv", "parquet"):
        np.testing.assert_allclose(motion.times_s, np.arange(53) / 50, atol=1e-9)  # written to 1 ms
    assert motion.rate_hz == (50.0 if suffix == "json" else 0.0)
    np.testing.assert_array_equal(read_uea(GOOD / "good.ts", part=1), motion.values)


def test_stated_units_become_si(tmp_path: Path):
    text = "time_ms,acc_x [g],gyro_x (deg/s),mag_x [uT]\n0,1,180,31\n20,-2,90,37\n"
    motion = read_motion(write(tmp_path / "a.csv", text))
    assert motion.names == ("acc_x", "gyro_x", "mag_x")
    assert motion.units == ("m/s2", "rad/s", "uT")
    expected = [[9.80665, np.pi, 31], [-19.6133, np.pi / 2, 37]]
    np.testing.assert_allclose(motion.values, expected, rtol=1e-12)  # float64 products


@pytest.mark.parametrize(
    "title, cells",
    [
        ("time_ms", ["0", "20", "40"]),
        ("timestamp", ["1700000000000", "1700000000020", "1700000000040"]),
        ("time", ["0.00", "0.02", "0.04"]),
        ("timestamp", [f"2024-05-01T12:00:00.0{i}0" for i in (0, 2, 4)]),
        ("time [us]", ["0", "20000", "40000"]),
    ],
)
def test_times_in_any_unit_are_seconds(tmp_path: Path, title: str, cells: list[str]):
    lines = [f"{title},x", *(f"{cell},{i}" for i, cell in enumerate(cells))]
    motion = read_motion(write(tmp_path / "a.csv", "\n".join(lines)))
    np.testing.assert_allclose(motion.times_s, [0, 0.02, 0.04], atol=1e-9)  # whole microseconds
    assert motion.names == ("x",)


def test_a_table_without_names_is_numbers_from_its_first_line(tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", "1,2,3\n4,5,7\n"))
    np.testing.assert_array_equal(motion.values, [[1, 2, 3], [4, 5, 7]])
    assert not motion.named and read_motion(write(tmp_path / "b.csv", "x,y\n1,2\n3,4\n")).named


def test_columns_of_text_are_named_not_read(tmp_path: Path):
    text = "x,activity,packet,label,spare,time_s,clock [ms]\n1,walk,7,3,,0,0\n2,walk,8,3,,1,1\n"
    motion = read_motion(write(tmp_path / "a.csv", text.replace("clock [ms]", "timestamp")))
    assert motion.names == ("x",)
    assert motion.left_out == {
        "activity": "text",
        "packet": "it numbers the rows",
        "label": "what the rows are marked with",
        "spare": "empty",
        "timestamp": "it numbers the rows",
    }
    told = "columns left out: activity (text), packet, timestamp (it numbers the rows), label (what the rows are "
    assert about_left_out(motion.left_out).startswith(told + "marked with)")


def test_a_stray_text_among_numbers_is_a_mistake(tmp_path: Path):
    cells = [*map(str, range(40)), "1.2.3", *map(str, range(40, 59))]
    with pytest.raises(DataError, match="line 42, column 'x': must hold numbers, as nearly all .*found '1.2.3'"):
        read_motion(write(tmp_path / "a.csv", "x,y\n" + "\n".join(f"{cell},1" for cell in cells)))


def test_json_steps_may_be_lists(tmp_path: Path):
    path = write(tmp_path / "a.json", json.dumps({"rate_hz": 31, "samples": [[1, 2], [3, 5]]}))
    motion = read_motion(path)
    np.testing.assert_array_equal(motion.values, [[1, 2], [3, 5]])
    assert motion.rate_hz == 31


@given(st.integers(1, 13), st.integers(1, 7))
def test_an_array_keeps_its_values(steps: int, axes: int):
    array = np.arange(steps * axes, dtype=np.float32).reshape(steps, axes)
    motion = motion_from_array(array, where="x")
    np.testing.assert_array_equal(motion.values, array)
    assert len(motion.names) == len(motion.units) == axes


def test_a_mapping_brings_rate_and_names():
    motion = motion_from_mapping({"values": np.zeros((5, 2)), "rate_hz": 50, "names": ["x", "y"]}, where="x")
    assert (motion.rate_hz, motion.names, motion.times_s) == (50.0, ("x", "y"), None)
    with pytest.raises(DataError, match="must have 'values' and any of"):
        motion_from_mapping({"values": np.zeros((5, 2)), "hz": 50}, where="x")
    with pytest.raises(DataError, match="must have 2 names and units and 5 times; found 1, 2 and 0"):
        motion_from_mapping({"values": np.zeros((5, 2)), "names": ["x"]}, where="x")
    with pytest.raises(DataError, match="must increase"):
        motion_from_mapping({"values": np.zeros((2, 2)), "times_s": [1, 1]}, where="x")


@pytest.mark.parametrize(
    "name, message",
    [
        ("broken_missing.csv", "line 5, column 'axis_1': must hold a finite number in every row"),
        ("broken_repeated.csv", "line 8, column 'time_s': must be later than the row before; found the same time"),
        ("broken_unit_of_time.csv", "column 'time': must say the unit of its numbers; found steps of 20"),
        ("broken_nan.npy", "time step 5, column 'axis_3': must hold a finite number in every row; found 2"),
        ("broken_axes.npy", r"must be numbers \[time steps, axes\]; found float64 of shape \(1, 53, 6\)"),
        ("broken_truncated.npy", "must be a whole NPY file"),
        ("broken_truncated.json", "must be whole JSON"),
        ("broken_two_lists.json", "must hold one list of time steps .*; found 2 of them"),
        ("broken_empty.csv", "found a file of 0 bytes"),
    ],
)
def test_what_is_wrong_is_said(name: str, message: str):
    with pytest.raises(DataError, match=message):
        read_motion(GOOD / name)


def test_falling_times_and_other_files_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="line 3.*found an earlier time"):
        read_motion(write(tmp_path / "a.csv", "time_s,x\n0.2,1\n0.1,1\n"))
    with pytest.raises(DataError, match="must end in .csv"):
        read_motion(write(tmp_path / "a.xls", "x"))
    with pytest.raises(DataError, match="must be a recording; found nothing there"):
        read_motion(tmp_path / "none.csv")
    with pytest.raises(DataError, match="must have a column of numbers for each axis"):
        read_motion(write(tmp_path / "b.csv", "time_s,activity\n0,a\n0.1,b\n"))


def test_pandas_is_no_way_around(tmp_path: Path):
    pd.DataFrame({"x": ["1", "?"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="must have a column of numbers"):
        read_motion(tmp_path / "a.parquet")


# --- several recordings a file


def test_cases_and_labels_of_a_ts_file(tmp_path: Path):
    path = write(tmp_path / "a.ts", CASES)
    assert uea_parts(path) == ((1, "walk"), (2, "run"))
    np.testing.assert_array_equal(read_uea(path, part=2), [[7, 1], [8, 1], [9, 2]])
    with pytest.raises(DataError, match="must hold a case 3; found 2 cases"):
        read_uea(path, part=3)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("7,8,9", "7,8", "line 5: must hold 2 dimensions of one length"),
        ("7,8,9", "7,?,9", "line 5, dimension 1, step 2: must hold a finite number"),
        ("7,8,9", "7,x,9", "line 5: must hold numbers separated by commas"),
        ("@timeStamps false", "@timeStamps true", "@timeStamps false"),
        ("@timeStamps", "timeStamps", "line 1: must start with @"),
    ],
)
def test_broken_cases_are_named_by_line(tmp_path: Path, old: str, new: str, message: str):
    path = write(tmp_path / "a.ts", CASES.replace(old, new))
    with pytest.raises(DataError, match=message):
        read_uea(path, part=2)


def test_a_changed_file_is_read_again(tmp_path: Path):
    path = write(tmp_path / "a.ts", CASES)
    assert len(uea_parts(path)) == 2
    write(path, CASES + "1,1,1:2,2,2:walk\n")
    assert len(uea_parts(path)) == 3


@pytest.mark.parametrize(("first", "names"), [([3, 4, 5, 6], ("acc",)), ([3, 4, 6, 7], ("unnamed_1", "acc"))])
def test_the_index_of_a_table_that_pandas_wrote_is_no_axis(tmp_path: Path, first: list, names: tuple):
    pd.DataFrame({"acc": [0.1, 0.2, 0.3, 0.1]}, index=first).to_csv(tmp_path / "a.csv")
    assert read_motion(tmp_path / "a.csv").names == names


def index(data: Path, *, labels: bool = True):
    def parts(path: Path):
        return uea_parts(path) if path.suffix == ".ts" else ()

    return index_files(data, suffixes=MOTION_SUFFIXES, require_labels=labels, parts=parts)


def test_an_index_opens_files_of_several_recordings(tmp_path: Path):
    write(tmp_path / "toy_TRAIN.ts", CASES)
    write(tmp_path / "toy_TEST.ts", CASES)
    found = index(tmp_path)
    rows = [(r.key, r.part, r.target, r.split) for r in found.records]
    assert rows[:2] == [("toy_TEST.ts#1", 1, "walk", "test"), ("toy_TEST.ts#2", 2, "run", "test")]
    assert {row[3] for row in rows[2:]} == {"train"}
    assert found.notes == ("4 samples in 2 files, split by the files' names: test, train",)


def test_files_of_one_recording_are_indexed_as_before(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "1.npy", np.zeros((3, 2)))
    assert [(r.key, r.target, r.part) for r in index(tmp_path).records] == [
        ("a/1.npy", "a", None),
        ("b/1.npy", "b", None),
    ]
    with pytest.raises(DataError, match="must bring a label for every item"):
        index(tmp_path / "a" / "1.npy")


def test_labels_in_and_outside_a_file_must_not_differ(tmp_path: Path):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "a.ts", CASES)
    with pytest.raises(DataError, match="'walk' in the file and 'run' outside it"):
        index(tmp_path)


def test_a_broken_file_does_not_hide_the_others(tmp_path: Path):
    write(tmp_path / "good.ts", CASES)
    write(tmp_path / "bad.ts", "@dimensions 2\n")
    found = index(tmp_path, labels=False)
    assert [(r.key, r.part) for r in found.records] == [("bad.ts", None), ("good.ts#1", 1), ("good.ts#2", 2)]
    with pytest.raises(DataError, match="bad.ts: must hold a case below @data"):
        index(tmp_path)
