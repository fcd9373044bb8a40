"""Recordings as phones, loggers and libraries write them: names, units, times, counters, packing."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from common import run

from metatransformer.core.errors import DataError
from metatransformer.modalities._recording.motion import motion_from_frame, read_motion
from metatransformer.modalities._recording.uea import read_uea, uea_parts
from metatransformer.modalities.imu import ImuOptions, index

AXES = [[0.1, 1.5], [0.2, -2.5], [0.4, 3.5]]


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def motion_of(frame: pd.DataFrame):
    return motion_from_frame(frame, where="x", row=("row", 0))


# --- names


@pytest.mark.parametrize("sep", [",", "\t", ";"])
@pytest.mark.parametrize("with_index", [True, False])
def test_columns_that_pandas_counts_are_names(sep: str, with_index: bool, tmp_path: Path):
    path = tmp_path / ("a.tsv" if sep == "\t" else "a.csv")
    pd.DataFrame(AXES).to_csv(path, sep=sep, index=with_index)
    motion = read_motion(path)
    np.testing.assert_array_equal(motion.values, AXES)
    assert motion.names == ("0", "1")


def test_numpy_writes_without_names_or_behind_a_mark(tmp_path: Path):
    np.savetxt(tmp_path / "a.csv", AXES, delimiter=",")
    np.testing.assert_array_equal(read_motion(tmp_path / "a.csv").values, AXES)
    np.savetxt(tmp_path / "b.csv", [[0, 1.5], [0.25, 2.5]], delimiter=",", header="time_s,x")
    motion = read_motion(tmp_path / "b.csv")
    assert motion.names == ("x",) and motion.times_s.tolist() == [0, 0.25]


def test_repeated_names_are_numbered_as_in_pandas(tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", "time_s,acc,acc,acc\n0,1,2,3\n0.1,4,5,6\n"))
    assert motion.names == ("acc", "acc.1", "acc.2") and motion.values.tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize("titles", ["Mat[1][1],Mat[2][1],Mat[1][2]", "acc [x],acc [y],acc (z)"])
def test_what_tells_columns_apart_is_no_unit(titles: str, tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", f"{titles}\n1,2,3\n4,5,7\n"))
    assert motion.names == tuple(titles.split(",")) and motion.units == ("", "", "")
    assert motion.values.tolist() == [[1, 2, 3], [4, 5, 7]]


def test_of_several_clocks_the_one_that_tells_its_unit_counts(tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", "time,seconds_elapsed,x\n0,0.5,1\n97104000,0.6,2\n"))
    assert motion.names == ("x",) and motion.times_s == pytest.approx([0, 0.1])
    assert motion.left_out == {"time": "another column of times"}


def test_times_that_count_the_rows_are_no_clock(tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", "timestamp,x\n2999,1\n3000,2\n3001,4\n"))
    assert motion.times_s is None and motion.left_out == {"timestamp": "it numbers the rows"}


# --- what stands around the table


def test_an_export_of_a_recorder_brings_its_rate_in_its_comments(tmp_path: Path):
    text = "// Start Time: Unknown\n// Update Rate: 40.0Hz\nPacketCounter\tYear\tAcc_X\tAcc_Y\n"
    text += "".join(f"{35166 + n:05}\t\t{n / 10}\t{n * n}\n" for n in range(5))
    motion = read_motion(write(tmp_path / "MT_01.txt", text))
    assert (motion.names, motion.rate_hz) == (("Acc_X", "Acc_Y"), 40.0)
    assert motion.left_out == {"PacketCounter": "it numbers the rows", "Year": "what the rows are marked with"}


@pytest.mark.parametrize("comment", ["# made by hand\n", "# a, b\n# fs = 50 Hz\n"])
def test_comments_are_no_names_and_names_no_comment(comment: str, tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", f"{comment}x,y,z\n1,2,3\n4,5,6\n"))
    assert motion.names == ("x", "y", "z") and motion.rate_hz == (50 if "fs" in comment else 0)
    motion = read_motion(write(tmp_path / "b.csv", f"{comment}# x,y,z\n1,2,3\n4,5,6\n"))
    assert motion.names == ("x", "y", "z")


def test_columns_may_stand_under_each_other_with_spaces_between(tmp_path: Path):
    text = "  2.5717e-001 -2.3285e-002\n -1.4654e-002   1.7000e+000\n"  # as UCI HAR writes its windows
    motion = read_motion(write(tmp_path / "a.txt", text))
    assert not motion.named and motion.values.tolist() == [[0.25717, -0.023285], [-0.014654, 1.7]]


@pytest.mark.parametrize(
    "before", ["sep=;\n", "sep=;\r\n", "// made by a phone\n// at 50 Hz; or so\n", "\ufeffsep=;\n"]
)
def test_lines_before_the_table_are_passed_over_and_counted(before: str, tmp_path: Path):
    rows = "time_s;x\n0;1\n0.02;2\n0.04;5\n"
    motion = read_motion(write(tmp_path / "a.csv", before + rows))
    assert motion.values[:, 0].tolist() == [1, 2, 5] and motion.times_s[2] == 0.04
    line = before.count("\n") + 4
    with pytest.raises(DataError, match=f"line {line}, column 'time_s': must be later"):
        read_motion(write(tmp_path / "b.csv", before + rows.replace("0.04", "0.01")))


def test_units_may_stand_in_a_row_of_their_own(tmp_path: Path):
    text = "Time,ax,gyro,mag,state\n(ms),g,deg/s,,\n0,1,180,31,idle\n20,-2,90,37,idle\n"
    motion = read_motion(write(tmp_path / "a.csv", text))
    assert (motion.names, motion.units) == (("ax", "gyro", "mag"), ("m/s2", "rad/s", ""))
    assert motion.left_out == {"state": "text"}
    np.testing.assert_allclose(motion.values[:, 0], [9.80665, -19.6133])
    np.testing.assert_allclose(motion.times_s, [0, 0.02])
    with pytest.raises(DataError, match="line 4, column 'Time .ms.': must be later"):
        read_motion(write(tmp_path / "b.csv", text.replace("20,-2", "0,-2")))


@pytest.mark.parametrize("unit", ["m/s2", "m/s^2", "m/s²", "m/s/s"])
def test_a_unit_has_several_spellings(unit: str, tmp_path: Path):
    assert read_motion(write(tmp_path / "a.csv", f"acc ({unit})\n1\n2.5\n")).units == ("m/s2",)


def test_decimal_commas_are_numbers(tmp_path: Path):
    motion = read_motion(write(tmp_path / "a.csv", "time_s;x\n0,00;1,5\n0,02;-2,25\n"))
    assert motion.values.tolist() == [[1.5], [-2.25]] and motion.times_s.tolist() == [0, 0.02]


# --- times


@pytest.mark.parametrize(
    ("title", "cells"),
    [
        ("time", ["12:00:00.010", "12:00:00.030", "12:00:00.050"]),
        ("time", ["23:59:59,990", "00:00:00,010", "00:00:00,030"]),
        ("Timestamp", ["2024-05-01 12:00:00.010", "2024-05-01 12:00:00.030", "2024-05-01 12:00:00.050"]),
        ("timestamp", ["05/13/2024 12:00:00.010", "05/13/2024 12:00:00.030", "05/13/2024 12:00:00.050"]),
        ("time (milliseconds)", ["0", "20", "40"]),
        ("time_stamp_us", ["0", "20000", "40000"]),
        ("elapsed_time [ns]", ["0", "20000000", "40000000"]),
        ("unix_time", ["1700000000.01", "1700000000.03", "1700000000.05"]),
    ],
)
def test_times_are_read_as_loggers_write_them(title: str, cells: list[str], tmp_path: Path):
    text = "\n".join([f"{title};x", *(f"{cell};{i * i}" for i, cell in enumerate(cells))])
    motion = read_motion(write(tmp_path / "a.csv", text))
    np.testing.assert_allclose(motion.times_s, [0, 0.02, 0.04], atol=1e-6)  # what a double resolves of 1.7e9
    assert motion.names == ("x",)


def test_what_is_no_time_is_named(tmp_path: Path):
    with pytest.raises(DataError, match="column 'time': must hold numbers or times such as .*; found 'noon'"):
        read_motion(write(tmp_path / "a.csv", "time,x\nnoon,1\nlater,2\n"))


@pytest.mark.parametrize("start", ["2024-05-01", "2024-05-01T00:00Z"])
@pytest.mark.parametrize("moments", [True, False])
def test_times_of_a_frame_may_be_moments_or_spans(start: str, moments: bool):
    spans = pd.to_timedelta([0, 20, 40], "ms")
    times = pd.Timestamp(start) + spans if moments else spans
    motion = motion_of(pd.DataFrame({"time": times, "x": [1, 2, 5]}))
    np.testing.assert_allclose(motion.times_s, [0, 0.02, 0.04])


# --- counters


@pytest.mark.parametrize(
    ("title", "values"),
    [
        ("PacketCounter", [65533, 65534, 65535, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("PacketCounter", [3, 4, 6, 7, 8, 9]),
        ("SampleTimeFine", [16667, 33333, 50000, 66667]),
        ("frame", [1, 2, 3, 4]),
        ("Sample No.", [0, 1, 2, 3]),
        ("packet_counter", [5, 6, 7, 8]),
        ("index", [10, 20, 30, 40]),
    ],
)
def test_counters_are_no_motion(title: str, values: list[int]):
    motion = motion_of(pd.DataFrame({title: values, "x": np.arange(len(values)) ** 2}))
    assert motion.names == ("x",)


@pytest.mark.parametrize(
    ("title", "values"), [("count", [3, 1, 4, 1]), ("steps", [1, 2, 3, 4]), ("index", [0.5, 1, 2])]
)
def test_what_only_looks_like_a_counter_stays(title: str, values: list[float]):
    assert motion_of(pd.DataFrame({title: values, "x": np.arange(len(values)) ** 2})).names == (title, "x")


# --- Parquet


def test_packed_columns_hold_what_they_hold(tmp_path: Path):
    columns = {
        "time_s": pa.array([0.0, 0.02, 0.04]).dictionary_encode(),
        "x": pa.array([1.5, 2.5, 1.5]).dictionary_encode(),
        "n": pa.array([1, 2, 1], pa.int16()),
        "d": pa.array([1, 2, 3], pa.decimal128(5, 2)),
        "h": pa.array(np.array([1, 2, 4], np.float16)),
        "activity": pa.array(["a", "a", "b"]).dictionary_encode(),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    motion = read_motion(tmp_path / "a.parquet")
    assert (motion.names, motion.left_out) == (("x", "n", "d", "h"), {"activity": "text"})
    assert motion.values.tolist() == [[1.5, 1, 1, 1], [2.5, 2, 2, 2], [1.5, 1, 3, 4]]
    assert motion.times_s.tolist() == [0, 0.02, 0.04]


def test_labels_in_packed_columns_keep_their_type(tmp_path: Path):
    table = pa.table({"x": np.arange(600.0), "label": pa.array([1] * 300 + [2] * 300).dictionary_encode()})
    pq.write_table(table, tmp_path / "a.parquet")
    found = index(tmp_path / "a.parquet", target="label", labelled=True, header=True, options=ImuOptions())
    assert {record.target for record in found.records} == {1, 2}


@pytest.mark.parametrize("kind", [pa.list_(pa.float64()), pa.list_(pa.float64(), 3)])
def test_lists_and_structures_are_axes(kind: pa.DataType, tmp_path: Path):
    rows = {
        "acc": pa.array([[1, 2, 3], [4, 5, 7]], kind),
        "gyro": pa.array([{"x": 1.0, "y": 2.0}, {"x": 3.0, "y": 5.0}]),
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    motion = read_motion(tmp_path / "a.parquet")
    assert motion.names == ("acc_1", "acc_2", "acc_3", "gyro.x", "gyro.y")
    assert motion.values.tolist() == [[1, 2, 3, 1, 2], [4, 5, 7, 3, 5]]


def test_lists_of_different_lengths_are_refused(tmp_path: Path):
    pq.write_table(pa.table({"acc": [[1.0, 2.0], [3.0]], "x": [1.0, 2.0]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="time step 1: must have the 3 values of the first time step"):
        read_motion(tmp_path / "a.parquet")


def test_missing_whole_numbers_are_missing(tmp_path: Path):
    frame = pd.DataFrame({"x": pd.array([1, None, 3], "Int64"), "y": [0.5, 1.5, 2.5]})
    with pytest.raises(DataError, match="row 1, column 'x': must hold a finite number"):
        motion_of(frame)


# --- a header is a claim; nothing ends the program


def test_an_array_cannot_announce_more_than_it_holds(tmp_path: Path):
    with open(tmp_path / "a.npy", "wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    with pytest.raises(DataError, match="must be a whole NPY file"):
        read_motion(tmp_path / "a.npy")


def test_json_nested_without_end_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="must be whole JSON"):
        read_motion(write(tmp_path / "a.json", "[" * 100_000))


def test_json_in_another_encoding_is_named(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(json.dumps({"é": [[1, 2]]}, ensure_ascii=False).encode("latin-1"))
    with pytest.raises(DataError, match="line 1: must be UTF-8 text"):
        read_motion(tmp_path / "a.json")


# --- UEA


@pytest.mark.parametrize("mark", ["#", "%#", "%"])
def test_comments_of_a_ts_file_have_several_marks(mark: str, tmp_path: Path):
    text = f"{mark} a set\n@timeStamps false\n@classLabel true a b\n@data\n1,2:3,4:a\n{mark} between\n5,6:7,8:b\n"
    path = write(tmp_path / "a.ts", text)
    assert uea_parts(path) == ((1, "a"), (2, "b")) and read_uea(path, part=2).tolist() == [[5, 7], [6, 8]]


# --- without labels


@pytest.mark.parametrize("folder", [True, False])
def test_recordings_are_checked_without_labels(folder: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    rows = "time_s,x\n" + "".join(f"{i / 50},{i % 7}\n" for i in range(53))
    path = write(tmp_path / "rec.csv", rows)
    if folder:
        write(tmp_path / "bad.csv", rows + "1.06,nan\n")
    status, result, _ = run(["check", tmp_path if folder else path, "--modality", "imu"], capfd)
    assert (status, result["samples"], result["bad"]) == ((2, 2, 1) if folder else (0, 1, 0))
    status, _, err = run(["check", path, "--modality", "imu", "--target", "activity"], capfd)
    assert status == 2 and "must have a column 'activity'" in err
