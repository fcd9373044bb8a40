"""The benchmark of speed: turns, ratios, and what the command refuses."""

from pathlib import Path

import pytest
from common import Run, assert_one_message
from PIL import Image

from metatransformer.bench.speed import SHAPES, Line, find_peers, make_photographs, take_turns


def test_ways_take_turns_and_the_first_turn_is_not_counted():
    calls: list[str] = []
    times = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, turns=2)
    assert calls == ["a", "b"] * 3 and {name: len(seconds) for name, seconds in times.items()} == {"a": 2, "b": 2}


def test_a_ratio_is_of_times_of_one_turn():
    line = Line("work", "theirs", "ours", ((4.0, 6.0, 9.0), (2.0, 2.0, 9.0)), samples=12)
    assert line.ratios == [1.0, 2.0, 3.0]
    assert line.cells() == ("work", "theirs", "3.0", "ours", "6.0", "2.00 (1.00..3.00)", "")


def test_photographs_are_of_mixed_shape(tmp_path: Path):
    files = make_photographs(tmp_path / "photos", count=len(SHAPES) + 1)
    found = []
    for file in files:
        with Image.open(file) as picture:
            found.append(picture.size)
    assert found == [*SHAPES, SHAPES[0]]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "bench speed: must get --out, a folder for the results; found none"),
        (["--out", "x", "--seeds", "3"], "bench speed: must get only --out, --quick and --peers; found --seeds"),
        (["--out", "x", "head.read=[1]"], "bench speed: must get only --out, --quick and --peers; found head.read"),
    ],
)
def test_what_it_has_no_use_for_is_refused(words: list[str], message: str, call: Run):
    status, _, err = call(["bench", "speed", *words])
    assert status == 2
    assert_one_message(err, message.replace("[", r"\[").replace("(", r"\("))


def test_peers_are_looked_for_in_every_environment(tmp_path: Path, call: Run):
    words = ["bench", "speed", "--quick", "--out", tmp_path / "out", "--peers"]
    bare, more, none = (tmp_path / name for name in ("bare", "more", "none"))
    for file, told in ((bare, "timm"), (more, "timm open_clip"), (none, "")):
        file.write_text(f"#!/bin/sh\necho {told}\n", encoding="utf-8")
        file.chmod(0o755)
    assert find_peers([str(bare), str(more)]) == {"timm": str(bare), "open_clip": str(more)}
    status, _, err = call([*words, bare, none])
    assert status == 2
    assert_one_message(err, f"--peers {none}: must be the Python of an environment with one of timm, .*; found none of")
    status, _, err = call([*words, bare, tmp_path / "nothing"])
    assert status == 2
    assert_one_message(err, f"--peers {tmp_path / 'nothing'}: must be the Python of an environment")
    assert not (tmp_path / "out").exists()
