"""Damaged files: the quick part of the fuzz campaign, what it found so far, and that it would find what it looks for.

The whole campaign: ``python -m tests.fuzz``.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from common import FIXTURES, ROOT, Run, settings_of, words_of
from fuzz import campaign, child
from fuzz.child import Reading, changed
from fuzz.seeds import FINDINGS, seeds

from metatransformer import DataError
from metatransformer.modalities import get_modality, modality_names

FOUND = sorted(path for path in FINDINGS.rglob("*") if path.is_file() and path.suffix != ".dat")
FILES = [name for name in modality_names() if name not in ("tabular", "text")]  # whose samples are rows of a table

# What a folder does not hold: tables are no files of graphs, and these settings skip short series.
LEFT = defaultdict(lambda: "nothing", graph=".csv", timeseries="broken_short.csv")


def test_damaged_files_give_a_sample_or_a_data_error():
    command = [sys.executable, str(ROOT / "tests" / "fuzz")]
    done = _run([*command, "--inputs", "60", "--jobs", "2"])
    # What counts is found again by itself: many inputs of one process share the addresses that it may ask for.
    found = re.findall(r"--only (\w+) --seed (\S+) --number (\d+)", done.stdout)
    alone = [_run([*command, "--only", name, "--seed", seed, "--number", number]) for name, seed, number in found]
    assert [one.stdout for one in alone if one.returncode] == []
    assert done.returncode == bool(found), f"{done.stdout[-4000:]}\n{done.stderr[-2000:]}"


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT)


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.relative_to(FINDINGS).as_posix())
def test_what_was_found_is_read_or_refused(path: Path, tmp_path: Path):
    reading = Reading(path.parent.name, f"findings/{path.name}")
    try:
        assert reading.read(reading.seed.write(tmp_path))
    except DataError as error:
        assert path.name in str(error) and len(str(error)) < 4000


def test_an_input_follows_from_reader_seed_and_number():
    assert changed("image", "good.png", 5) == changed("image", "good.png", 5) != changed("image", "good.png", 6)
    assert changed("image", "good.png", 0) == seeds("image")["good.png"].files


class Bad:
    """A reader that goes wrong in another way at each input."""

    def __init__(self, reader: str, name: str) -> None:
        self.seed, self.modality = seeds(reader)[name], get_modality(reader)

    def read(self, path: Path) -> int:
        number = int(path.parent.name)
        if number == 1:
            raise ValueError("not ours")
        if number == 2:
            os.abort()
        if number == 3:
            bytearray(3 << 30)
        if number == 4:
            raise DataError(path, must="be whole", found="a damaged one")
        if number == 5:
            os.write(2, b"odd " * 4000)
        while number == 6:
            time.process_time()
        return 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # a fork beside threads, from Python 3.12 on
def test_the_campaign_finds_what_it_looks_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(child, "Reading", Bad)
    monkeypatch.setattr(child, "HANG_S", 0.3)
    monkeypatch.setattr(campaign, "_LIBRARIES", ())
    found = campaign.run_jobs([[("image", "good.png", 0, 8)]], jobs=1)["image"]
    kinds = {finding["number"]: finding["kind"] for finding in found.findings}
    assert kinds == {1: "error", 2: "crash", 3: "memory", 5: "noise", 6: "hang"}
    assert (found.inputs, found.refused) == (8, 1)


@pytest.mark.parametrize("name", FILES)
def test_check_names_every_bad_file_of_a_folder(name: str, tmp_path: Path, call: Run):
    files = [path for path in sorted((FIXTURES / name).iterdir()) if path.is_file() and path.suffix != ".md"]
    for path in files:
        shutil.copy(path, tmp_path / path.name)
    status, result, _ = call(["check", tmp_path, "--modality", name, *words_of(settings_of(name))])
    told = str(result["problems"])
    assert status == 2
    broken = [path.name for path in files if path.name.startswith("broken") and not path.name.endswith(LEFT[name])]
    assert [file for file in broken if file not in told] == []
