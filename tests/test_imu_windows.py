"""Long recordings: cut into windows by time, label and subject, or drawn as several pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from common import SMALL, run, tiny_pipeline, words_of

from metatransformer import Classifier
from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.data.index import Index, index_files
from metatransformer.modalities._recording.motion import MOTION_SUFFIXES, Motion
from metatransformer.modalities.imu import MODALITY, ImuOptions
from metatransformer.modalities.imu.index import load_motion
from metatransformer.modalities.imu.plots import arrange_windows, draw_timelines
from metatransformer.modalities.imu.windows import MotionWindow, Stretch, WindowCut, cut_stretch
from metatransformer.nn.curves import draw_curves
from metatransformer.nn.pool import pool

RATE_HZ = 10


def walk(labels: Sequence[str | int | None], *, seconds: int = 6, seed: int = 0, **columns: Any) -> pd.DataFrame:
    """Returns two axes at 10 Hz; each label holds for ``seconds``."""
    steps = len(labels) * seconds * RATE_HZ
    rng = np.random.default_rng(seed)
    which = np.repeat(np.arange(len(labels)), seconds * RATE_HZ)
    frame = pd.DataFrame({"time_s": np.arange(steps) / RATE_HZ})
    for place, axis in enumerate("xy"):
        frame[f"acc_{axis}"] = np.sin(np.arange(steps) * (0.2 + which % 2) + place) + rng.normal(0, 0.05, steps)
    frame["activity"] = [labels[number] for number in which]
    return frame.assign(**columns)


def write(path: Path, frame: pd.DataFrame) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    return path


def index(data: Any, *, target: str = "activity", labelled: bool = True, **options: Any) -> Index:
    assert MODALITY.source.index is not None
    return MODALITY.source.index(data, target=target, labelled=labelled, header=True, options=ImuOptions(**options))


def places(found: Index) -> list[str | int | None]:
    return [record.part for record in found.records]


# --- windows


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_windows_of_one_label_by_hand(tmp_path: Path, suffix: str):
    path = write(tmp_path / f"walk.{suffix}", walk(["sit", "run"]))  # 12 s, the label changes at 6 s
    found = index(path, window_s=4, step_s=1)
    assert places(found) == ["0s", "1s", "2s", "6s", "7s", "8s"]
    assert [record.target for record in found.records] == ["sit"] * 3 + ["run"] * 3
    assert found.records[1].key == f"walk.{suffix}#1s"
    assert "6 windows of 4 s, one every 1 s; left out: 3 in which the label changes" in found.notes
    values = load_motion(found.records[3])["values"]
    np.testing.assert_allclose(values, walk(["sit", "run"])[["acc_x", "acc_y"]].to_numpy()[60:100], atol=1e-12)


def test_the_usual_window_is_five_seconds_and_the_index_says_so(tmp_path: Path):
    found = index(write(tmp_path / "a.csv", walk(["sit"], seconds=11)))
    assert places(found) == ["0s", "2.5s", "5s"]
    assert found.settings == {"sample": "window", "window_s": 5.0}


def test_without_a_rate_windows_are_counted_in_steps(tmp_path: Path):
    frame = walk(["sit"], seconds=26).drop(columns="time_s")
    found = index(write(tmp_path / "a.csv", frame))
    assert places(found) == ["0", "64", "128"]
    assert index(tmp_path / "a.csv", rate_hz=10.0, window_s=13).records[1].part == "6.5s"


def test_numbers_are_labels_too(tmp_path: Path):
    found = index(write(tmp_path / "a.csv", walk([4, None, 5])), window_s=6)
    assert [record.target for record in found.records] == [4, 5]
    assert "1 without a label" in found.notes[0] and "2 in which the label begins or ends" in found.notes[0]


@pytest.mark.parametrize("name", ["subjectID", "Subject ID", "user_id", "Person"])
def test_subjects_are_found_however_they_are_written(tmp_path: Path, name: str):
    frames = [walk(["sit", "run"], seed=n, **{name: n}) for n in range(2)]
    found = index(write(tmp_path / "all.csv", pd.concat(frames)), window_s=6)
    assert {record.group for record in found.records} == {"0", "1"}


def test_subjects_and_splits_are_read_and_stay_apart(tmp_path: Path):
    frames = [walk(["sit", "run"], seed=n, User=f"u{n % 2}", split=["train", "test"][n % 2]) for n in range(3)]
    found = index(write(tmp_path / "all.csv", pd.concat(frames)), window_s=6)  # the clock starts again
    assert [record.group for record in found.records] == ["u0"] * 2 + ["u1"] * 2 + ["u0"] * 2
    assert [record.split for record in found.records] == ["train"] * 2 + ["test"] * 2 + ["train"] * 2
    assert found.records[-1].key == "all.csv#u0.2#6s"
    assert found.notes[-1] == "split by subject: column 'User' (2 groups: u0, u1)"
    assert load_motion(found.records[0])["names"] == ("acc_x", "acc_y")


def test_files_are_groups_where_no_subject_is_known(tmp_path: Path):
    for name in ("b", "a"):
        write(tmp_path / "subject" / f"{name}.csv", walk(["sit", "run"]))
    found = index(tmp_path)
    assert {record.group for record in found.records} == {"subject/a.csv", "subject/b.csv"}
    assert found.notes[-1].startswith("split by file: no column subject, user, participant")
    assert {record.target for record in found.records} == {"sit"}  # not the folder
    assert found.notes[-2].startswith("no window at all of: run")  # 5 s from 0, 2.5, 5: it begins at 6


def test_a_lonely_recording_is_split_by_stretches_of_a_label(tmp_path: Path):
    found = index(write(tmp_path / "a.csv", walk(["sit", "run", "sit"])), window_s=2)
    groups = [record.group for record in found.records]
    assert groups == [f"a.csv, stretch {n}" for n in (1, 2, 3) for _ in range(5)]
    assert "scores hold for this one" in found.notes[-1]


def test_a_manifest_brings_split_and_group(tmp_path: Path):
    for name in "abc":
        write(tmp_path / f"{name}.csv", walk(["sit", "run"]))
    rows = pd.DataFrame({"path": ["a.csv", "b.csv", "c.csv"], "split": ["train", "train", "test"], "group": [1, 1, 2]})
    found = index(write(tmp_path / "list.csv", rows), window_s=6)
    assert [record.split for record in found.records] == ["train"] * 4 + ["test"] * 2
    assert [record.group for record in found.records] == ["1"] * 4 + ["2"] * 2
    assert found.notes[-1] == "split by the given groups (2 groups: 1, 2)"


def test_missing_values_and_gaps_are_left_out(tmp_path: Path):
    frame = walk(["sit"], seconds=20)
    frame.loc[31, "acc_x"] = np.nan
    path = write(tmp_path / "a.csv", frame.drop(index=range(101, 110)))
    found = index(path, window_s=2, step_s=2)
    assert places(found) == ["0s", "4s", "6s", "8s", "12s", "14s", "16s", "18s"]
    assert "left out: 1 with missing values in 'acc_x', 1 over a gap in time" in found.notes[0]
    assert "2s" in places(index(path, window_s=2, step_s=2, axes=("acc_y",)))
    with pytest.raises(DataError, match="at least one window; found 0 windows .* 1 recording shorter than a window"):
        index(path, window_s=21)
    with pytest.raises(DataError, match="left out: .* of fewer than 2 time steps"):
        index(path, window_s=0.1)


# --- without labels


@pytest.mark.parametrize("seconds, expected", [(6, ["0s", "2s"]), (7, ["0s", "2s", "3s"]), (3, ["0s"])])
def test_without_labels_every_step_is_in_a_window(tmp_path: Path, seconds: int, expected: list[str]):
    path = write(tmp_path / "new.csv", walk(["?"], seconds=seconds).drop(columns="activity"))
    found = index(path, labelled=False, sample="window", window_s=4)
    assert places(found) == expected
    assert {record.target for record in found.records} == {None}
    last = found.records[-1].value
    assert last.stop == pytest.approx(seconds) and len(last.motion.values) == min(seconds, 4) * RATE_HZ


def test_a_label_in_the_data_plays_no_part_without_labels(tmp_path: Path):
    path = write(tmp_path / "a.csv", walk(["sit", "run"]))
    found = index(path, labelled=False, window_s=4, step_s=1)
    assert len(found.records) == 9 and found.records[4].target is None
    assert found.notes == ("9 windows of 4 s, one every 1 s",)
    assert load_motion(found.records[4])["left_out"] == {}


def test_arrays_and_npy_files_are_cut_where_windows_are_asked_for(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.zeros((30, 2)))
    found = index(tmp_path / "a.npy", labelled=False, sample="window", window_s=20)
    assert places(found) == ["0", "10"]
    again = index([np.zeros((30, 2))], labelled=False, sample="window", window_s=20)
    assert [record.key for record in again.records] == ["0#0", "0#10"]


@pytest.mark.parametrize("rate_hz", [7.0, 10.0, 31.3])
def test_windows_are_whole_at_any_rate(rate_hz: float):
    steps = 211
    motion = Motion(np.zeros((steps, 1)), ("x",), ("",), times_s=(np.arange(steps) / rate_hz).round(3))
    cut = WindowCut(3.0, 1.0).settled(timed=True)
    found, left_out = cut_stretch(Stretch("a", Record("a", target="sit"), motion), cut=cut, labelled=True)
    assert not left_out and len(found) == int((steps / rate_hz - 3) // 1) + 1
    assert all(abs(len(record.value.motion.values) - 3 * rate_hz) <= 1 for record in found)


def test_a_recording_of_centuries_is_refused_before_its_windows_are_laid_out():
    motion = Motion(np.zeros((4, 1)), ("x",), ("",), times_s=np.array([0.0, 1.0, 2.0, 1e12]))
    with pytest.raises(DataError, match="a: must have at most 10,000,000 windows; found 1e.12 s in 4 rows"):
        cut_stretch(Stretch("a", Record("a"), motion), cut=WindowCut().settled(timed=True), labelled=False)


@pytest.mark.parametrize("time", ["inf", "-inf"])
def test_a_time_without_end_is_named(tmp_path: Path, time: str):
    (tmp_path / "a.csv").write_text(f"time_s,x,y\n0,1,2\n0.1,1,2\n{time},1,2\n")
    with pytest.raises(DataError, match=r"a.csv, line 4, column 'time_s': must be a time in every row; found -?inf"):
        load_motion(Record("a", path=tmp_path / "a.csv"))


def test_half_a_character_in_a_name_is_no_end(tmp_path: Path):
    (tmp_path / "a.json").write_text('[{"\\ud800": 1, "y": 2}, {"\\ud800": 3, "y": 4}]')
    assert load_motion(Record("a", path=tmp_path / "a.json"))["values"].tolist() == [[1, 2], [3, 4]]


# --- what stays a file a record


def test_recordings_without_a_column_of_labels_stay_whole(tmp_path: Path):
    for label in ("sit", "run"):
        write(tmp_path / label / "a.csv", walk(["x"]).drop(columns="activity"))
    expected = index_files(tmp_path, suffixes=MOTION_SUFFIXES, require_labels=True)
    assert index(tmp_path, target="") == index(tmp_path) == expected
    cut = index(tmp_path, sample="window", window_s=3)
    assert [record.target for record in cut.records] == ["run"] * 3 + ["sit"] * 3
    assert {record.group for record in cut.records} == {"sit/a.csv", "run/a.csv"}
    rows = pd.DataFrame({"path": ["sit/a.csv", "run/a.csv"], "activity": ["sit", "run"]})
    found = index(write(tmp_path / "list.csv", rows))
    assert [record.value for record in found.records] == [None, None] and not found.settings


def test_what_is_missing_is_named(tmp_path: Path):
    path = write(tmp_path / "a.csv", walk(["sit"], seconds=11))
    with pytest.raises(DataError, match="must have a column 'label'.*found the columns time_s, acc_x, acc_y, activity"):
        index(path, target="")
    with pytest.raises(DataError, match="a.csv: must have a column 'posture'"):
        index(path, target="posture", sample="window")
    bad = write(tmp_path / "bad.csv", walk(["sit"], seconds=11, split="later"))
    with pytest.raises(DataError, match="bad.csv, line 2, column 'split': must be one of"):
        index(bad)
    gone = walk(["sit"], seconds=11, subject="a")
    gone.loc[3, "subject"] = None
    with pytest.raises(DataError, match="gone.csv, line 5, column 'subject': must have a value in every row"):
        index(write(tmp_path / "gone.csv", gone))
    late = write(tmp_path / "late.csv", pd.concat([walk(["sit"], subject="a"), walk(["sit"], subject="b").iloc[::-1]]))
    with pytest.raises(DataError, match="late.csv, line 63, column 'time_s': must be later than the row before"):
        index(late)


def test_a_broken_file_among_good_ones(tmp_path: Path):
    write(tmp_path / "a.csv", walk(["sit"]))
    (tmp_path / "b.csv").write_text("time_s,acc_x,activity\n0,1\n")
    with pytest.raises(DataError, match="b.csv, line 2"):
        index(tmp_path)
    found = index(tmp_path, labelled=False)
    assert [record.key for record in found.records] == ["a.csv#0s", "a.csv#1s", "b.csv"]  # said when it is read


# --- predictions


def window(name: str, start: float, *, timed: bool = True) -> Record:
    values = np.random.default_rng(int(start)).normal(size=(20, 2))
    motion = Motion(values, ("x", "y"), ("", ""), times_s=start + np.arange(20) / 10 if timed else None)
    return Record(f"{name}#{start:g}", value=MotionWindow(name, motion, start, start + 2, timed))


def test_predictions_get_start_and_end():
    table = pd.DataFrame({"key": ["a#0", "a#1"], "prediction": ["sit", "run"]})
    found = arrange_windows([window("a", 0), window("a", 1)], table)
    assert found.columns.tolist() == ["key", "prediction", "start_s", "end_s"]
    assert found["end_s"].tolist() == [2.0, 3.0]
    steps = arrange_windows([window("a", 0, timed=False), window("a", 1, timed=False)], table)
    assert steps.columns.tolist()[2:] == ["start_step", "end_step"]
    assert arrange_windows([Record("a"), Record("b")], table) is table


def test_a_picture_of_every_recording(tmp_path: Path):
    records = [window("a", 0), window("a", 1), window("a", 7), window("b", 0, timed=False)]
    table = pd.DataFrame({"target": ["sit"] * 4, "prediction": ["sit", "sit", "$run", "sit"]})
    paths = draw_timelines(records, table, tmp_path / "new")
    assert [path.name for path in paths] == ["recording_01.png", "recording_02.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    assert draw_timelines([Record("a")] * 4, table, tmp_path / "none") == ()
    assert draw_timelines(records, pd.DataFrame({"prediction": [1.5] * 4}), tmp_path / "none") == ()


def test_the_command_line_fits_and_predicts_long_recordings(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    frames = [walk(["sit", "run"] * 2, seed=n, subject=f"s{n}") for n in range(4)]
    data = write(tmp_path / "all.csv", pd.concat(frames))
    words = ["fit", data, "--modality", "imu", "--target", "activity", "--out", tmp_path / "run", "--tune", "head"]
    status, result, err = run([*words, "input.window_s=3", *words_of(SMALL)], capsys)
    assert status == 0, err
    assert "split by subject: column 'subject' (4 groups: s0, s1, s2, s3)" in err
    assert result["metrics"]["test"]["accuracy"] > 0.9
    assert list((tmp_path / "run" / "pictures" / "test").glob("*.png"))
    table = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    assert {"start_s", "end_s", "target"} <= set(table.columns)

    new = write(tmp_path / "new.csv", frames[0].drop(columns=["activity", "subject"]))
    status, result, err = run(["predict", tmp_path / "run", new, "--out", tmp_path / "new_labels.csv"], capsys)
    assert status == 0 and result["rows"] == 15 and "15 windows of 3 s, one every 1.5 s" in err
    found = pd.read_csv(tmp_path / "new_labels.csv")
    assert found["start_s"].tolist() == [1.5 * n for n in range(15)] and found["end_s"].iloc[-1] == 24
    assert found["prediction"].iloc[[0, -1]].tolist() == ["sit", "run"]
    assert Path(result["pictures"][0]).is_file()
    status, result, _ = run(["evaluate", tmp_path / "run", data, "--split", "all"], capsys)
    assert status == 0 and result["samples"] == 4 * 12  # three a stretch of 6 s: 0, 1.5, 3
    status, result, _ = run(["embed", new, "--model", tmp_path / "run", "--out", tmp_path / "v.parquet"], capsys)
    assert status == 0 and result["rows"] == 15


def test_a_data_frame_is_a_long_recording(tmp_path: Path):
    frame = pd.concat([walk(["sit", "run"] * 2, seconds=10, seed=n, subject=n) for n in range(3)])
    model = Classifier("imu", encoder="test", target="activity", tune="head", recipe={"head.read": [1]}, verbose=False)
    model.fit(frame)
    predicted = model.predict(frame.drop(columns=["activity", "subject"]).iloc[:120])
    assert predicted.tolist()[0] == "sit" and len(predicted) == 4  # windows of 5 s: 0, 2.5, 5, and the last at 7


# --- several pictures of one recording


def test_long_training_recordings_are_said(tmp_path: Path):
    for name, seconds in (("a", 5), ("b", 5), ("c", 47)):
        write(tmp_path / f"{name}.csv", walk(["x"], seconds=seconds).drop(columns="activity"))
    transform = MODALITY.transform(ImuOptions(), Stem())
    found = index(tmp_path, labelled=False, target="")
    transform.fit(View(record.key, load_motion(record)) for record in found.records)
    assert transform.notes[1] == (
        "longer than 8 windows: 1 of the training recordings, drawn as one picture a window, features averaged"
    )


def test_a_recording_beyond_max_windows_is_drawn_as_several_pictures():
    pipeline = tiny_pipeline("imu", {"input.window_s": 1.0})
    tokenizer = pipeline.model.tokenizers["imu"]

    def ready(steps: int) -> View:
        rng = np.random.default_rng(steps)
        raw = MODALITY.synthesize(rng, 0)
        return pipeline.transform(View(f"{steps}", {**raw, "values": rng.normal(size=(steps, 6))}))

    short, wide, long = ready(50), ready(400), ready(530)  # 1, 8 and 10.6 windows
    shapes = [sample.inputs["motion"].shape for sample in (short, wide, long)]
    side = pipeline.trunk.stem.patch_size
    assert shapes == [(1, 8 * side, 6), (1, 64 * side, 6), (11, 8 * side, 6)]

    def tokens(*samples: View):
        batch = stack_views(samples, fields=MODALITY.fields)
        return tokenizer(batch.inputs, batch.masks)

    alone, together = tokens(short), tokens(short, long)
    assert alone.samples is None and tokens(short, wide).samples is None
    assert together.samples is not None and together.samples.tolist() == [0] + [1] * 11
    torch.testing.assert_close(together.x[:1][together.mask[:1]], alone.x[alone.mask], atol=0, rtol=0)
    drawn = draw_curves(torch.from_numpy(short.inputs["motion"]), bands=tokenizer.bands, height=2 * side)
    patches, real = tokenizer.patches(drawn, torch.ones_like(drawn[:, 0], dtype=torch.bool))
    torch.testing.assert_close(alone.x[:, 1:], (patches + tokenizer.positions(real)).flatten(1, 2), atol=0, rtol=0)
    parts = [long.with_inputs({"motion": part[None]}) for part in long.inputs["motion"]]
    mean = pool(tokens(*parts), kind="grid", cells=4).mean(dim=0)
    # Float32 sums in another order.
    torch.testing.assert_close(pool(together, kind="grid", cells=4)[1], mean, atol=1e-5, rtol=1e-5)
    rng = np.random.default_rng(1)
    assert pipeline.transform.augment(long, rng).inputs["motion"].shape == shapes[2]
    assert MODALITY.features(long).shape == MODALITY.features(short).shape
