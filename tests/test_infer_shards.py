"""Vectors by shards: kills cost no row and make none twice, bad samples are told, Ray makes what one process does."""

import json
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import assert_one_message, run, run_alone
from PIL import Image

EMBED = ["--modality", "image", "--encoder", "test", "input.size=16", "--precision", "float32"]
ROWS = 60


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a folder of 60 pictures of noise."""
    folder, rng = tmp_path_factory.mktemp("many"), np.random.default_rng(0)
    for number in range(ROWS):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def vectors(path: Path) -> tuple[list[str], np.ndarray]:
    files = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
    table = pd.concat([pd.read_parquet(file) for file in files])
    return list(table.id), np.stack(table.embedding)


# Ends itself, as a kill does, in the middle of the n-th shard that it writes.
KILLED = """
import os, signal, sys
import pyarrow.parquet as pq
from metatransformer.faces.cli import main
left, write = [int(sys.argv[1])], pq.write_table
def written(table, place):
    left[0] -= 1
    if left[0] == 0:
        open(place, "wb").write(b"PAR1 half of it")
        os.kill(os.getpid(), signal.SIGKILL)
    write(table, place)
pq.write_table = written
main(sys.argv[2:])
"""


def test_kills_lose_nothing_and_make_nothing_twice(many: Path, tmp_path: Path, capsys):
    command = ["embed", many, *EMBED, "--shard-rows", 7, "--out", tmp_path / "vectors"]
    for shard in (3, 2):
        done = run_alone(["-c", KILLED, shard, *command])
        assert done.returncode == -signal.SIGKILL, done.stderr
    status, told, _ = run(command, capsys)
    assert status == 0 and told["done_before"] == 21 and told["rows"] == ROWS
    run(["embed", many, *EMBED, "--out", tmp_path / "once.parquet"], capsys)
    (ids, found), (wanted, once) = vectors(tmp_path / "vectors"), vectors(tmp_path / "once.parquet")
    assert ids == wanted and len(set(ids)) == ROWS
    np.testing.assert_allclose(found, once, atol=1e-6)


def test_bad_samples_are_left_out_and_told(many: Path, tmp_path: Path, capsys):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes((many / f"{number}.png").read_bytes())
    for number in (2, 7, 8):
        (folder / f"{number}.png").write_bytes(b"no picture")
    command = ["embed", folder, *EMBED, "--shard-rows", 5]
    status, _, err = run([*command, "--out", tmp_path / "a.parquet"], capsys)
    assert status == 2 and not (tmp_path / "a.parquet").exists()
    assert_one_message(err, r"2\.png")
    for out in (tmp_path / "a.parquet", tmp_path / "a"):
        status, told, err = run([*command, "--errors", "skip", "--out", out], capsys)
        assert status == 0 and told["skipped"] == 3 and "3 of 12 samples could not be read" in err
        errors = pd.read_parquet(told["errors"])
        assert [Path(path).name for path in errors.path] == ["2.png", "7.png", "8.png"]
        assert all("2.png" in error for error in errors.error[:1]) and len(vectors(out)[0]) == 9
        assert set(vectors(out)[0]) | set(errors.id) == {str(path.relative_to(folder)) for path in folder.iterdir()}
        status, told, _ = run(["search", out, many / "3.png", "--k", 1, "--out", tmp_path / "near.csv"], capsys)
        assert status == 0


def test_settings_that_ask_for_nothing_are_refused(many: Path, tmp_path: Path, capsys):
    for words, pattern in (
        (["--workers", 2], "--engine ray"),
        (["--engine", "ray", "--shard", "1/2"], "--shard"),
        (["--shard-rows", 0], "at least 1"),
    ):
        status, _, err = run(["embed", many, *EMBED, *words, "--out", tmp_path / "v"], capsys)
        assert status == 2
        assert_one_message(err, pattern)


@pytest.mark.large  # Ray starts a dozen processes: half a minute on an idle machine
def test_ray_makes_what_one_process_makes(many: Path, tmp_path: Path, capsys):
    pytest.importorskip("ray.data")
    (tmp_path / "more").mkdir()
    for picture in many.iterdir():
        (tmp_path / "more" / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / "more" / "x.png").write_bytes(b"no picture")
    command = ["-m", "metatransformer", "embed", tmp_path / "more", *EMBED, "--shard-rows", 9, "--engine", "ray"]
    done = run_alone([*command, "--workers", 2, "--out", tmp_path / "ray"])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["skipped"] == 1 and told["rows"] == ROWS + 1
    run(["embed", many, *EMBED, "--out", tmp_path / "once.parquet"], capsys)
    (ids, found), (wanted, once) = vectors(tmp_path / "ray"), vectors(tmp_path / "once.parquet")
    assert ids == wanted
    np.testing.assert_allclose(found, once, atol=1e-6)


def test_predictions_by_shards_are_those_at_once(trained: Path, many: Path, tmp_path: Path, capsys):
    command = ["predict", trained, many]
    run([*command, "--out", tmp_path / "once.csv"], capsys)
    once = pd.read_csv(tmp_path / "once.csv")
    for number in (1, 2):
        status, told, _ = run([*command, "--shard", f"{number}/2", "--shard-rows", 7, "--out", tmp_path / "p"], capsys)
        assert status == 0 and told["missing"] == (28 if number == 1 else 0)
    status, told, _ = run([*command, "--shard-rows", 7, "--out", tmp_path / "p"], capsys)
    assert status == 0 and told["done_before"] == ROWS
    run([*command, "--shard-rows", 50, "--out", tmp_path / "p.parquet"], capsys)
    parts = pd.concat([pd.read_parquet(part) for part in sorted((tmp_path / "p").glob("part-*"))])
    for found in (parts, pd.read_parquet(tmp_path / "p.parquet")):
        assert list(found.columns) == list(once.columns) and list(found.key) == list(once.key)
        assert list(found.prediction) == list(once.prediction)
        np.testing.assert_allclose(found.confidence, once.confidence, atol=1e-3)  # batches differ
    status, _, err = run(["predict", trained, many, "--workers", 2, "--out", tmp_path / "q"], capsys)
    assert status == 2 and not (tmp_path / "q").exists()
    assert_one_message(err, "--engine ray")
