"""The fixtures are small, and all of them are made by their script."""

from pathlib import Path

import pytest
from make_fixtures import ROOT, makers

MAKERS = makers()


@pytest.mark.parametrize("name", MAKERS)
def test_fixtures_are_small_and_can_be_remade(tmp_path: Path, name: str):
    MAKERS[name](tmp_path)
    kept = {path.name: path for path in (ROOT / name).iterdir() if path.suffix != ".md"}
    made = {path.name for path in tmp_path.iterdir()}
    assert made <= kept.keys()
    for path in tmp_path.iterdir():
        assert kept[path.name].stat().st_size < 20_000
        if path.suffix == ".csv":  # the other formats carry their library's version or the time
            assert path.read_bytes() == kept[path.name].read_bytes(), path.name
