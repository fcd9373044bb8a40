"""Atomic writing: what a reader finds after success, failure and a full disk."""

import dataclasses
import errno
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.write import (
    append_bytes,
    atomic_file,
    require_table,
    write_json,
    write_table,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "a.txt"
    with atomic_file(target) as temporary:
        temporary.write_text("whole")
        assert not target.exists()
        assert temporary.parent == target.parent and temporary.suffix == ".txt"
    assert target.read_text() == "whole"
    assert names(target.parent) == ["a.txt"]


def test_failure_keeps_the_old_file(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_full_disk_is_explained(tmp_path, failure):
    target = tmp_path / "a.txt"
    with pytest.raises(DataError, match="a.txt: must have room on its disk; found .* free of") as e:
        with atomic_file(target) as temporary:
            temporary.write_text("half")
            raise failure
    assert "nothing half-written remains" in str(e.value)
    assert names(tmp_path) == []


def test_runtime_error_on_a_disk_with_room_stays_a_bug(tmp_path):
    with pytest.raises(RuntimeError, match="a bug"), atomic_file(tmp_path / "a.txt"):
        raise RuntimeError("a bug")
    assert names(tmp_path) == []


def test_refused_place_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="must be a file that this user may make"):
        with atomic_file(tmp_path / "file" / "a.txt"):
            pass


def test_folder_and_device_are_refused(tmp_path):
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(DataError, match="found a folder or a device"), atomic_file(place):
            pass


def test_link_is_followed(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_file(tmp_path / "link.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "real.txt").read_text() == "new"


def test_json_takes_numpy_and_dataclasses(tmp_path):
    @dataclasses.dataclass
    class Pair:
        left: int
        right: Path

    write_json(
        tmp_path / "a.json",
        {"x": np.float32(0.5), "y": np.arange(3), "nan": float("nan"), "p": Pair(1, Path("b/c"))},
    )
    found = json.loads((tmp_path / "a.json").read_text())
    assert found == {"x": 0.5, "y": [0, 1, 2], "nan": None, "p": {"left": 1, "right": "b/c"}}


@pytest.mark.parametrize(
    "name, read",
    [
        ("a.csv", pd.read_csv),
        ("a.tsv", lambda path: pd.read_csv(path, sep="\t")),
        ("a.parquet", pd.read_parquet),
        ("a.jsonl", lambda path: pd.read_json(path, lines=True)),
    ],
)
def test_table_comes_back(tmp_path, name, read):
    frame = pd.DataFrame({"key": ["ä b", "c,d"], "score": [0.25, 3.0]}, index=[5, 7])
    write_table(tmp_path / name, frame)
    found = read(tmp_path / name)
    assert found.to_dict("list") == frame.to_dict("list")


def test_table_of_another_ending_or_mixed_type_is_refused(tmp_path):
    with pytest.raises(UsageError, match="must end in .csv, .tsv, .parquet, .jsonl; found the end"):
        require_table("a.xlsx")
    with pytest.raises(DataError, match="columns of one type each"):
        write_table(tmp_path / "a.parquet", pd.DataFrame({"a": [1, "b"]}))
    assert names(tmp_path) == []


def test_bytes_are_added_or_the_full_disk_is_named(tmp_path):
    for part in (b"one", b"two"):
        append_bytes(tmp_path / "new" / "log", part)
    assert (tmp_path / "new" / "log").read_bytes() == b"onetwo"
    with pytest.raises(DataError, match="/dev/full: must have room on its disk"):
        append_bytes("/dev/full", b"x")
    with pytest.raises(DataError, match="must be a file that this user may make"):
        append_bytes(tmp_path / "new" / "log" / "below", b"x")


def test_a_place_is_checked_before_the_work(tmp_path):
    require_table(tmp_path / "new" / "p.csv")
    assert names(tmp_path) == []
    with pytest.raises(DataError, match="must be the name of a file to write; found a folder"):
        require_table(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="must lie in a folder that can be written; found a file"):
        require_table(tmp_path / "file" / "p.csv")
