"""Which commit a result is recorded with."""

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

from metatransformer.machine import about


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
@pytest.mark.parametrize(
    ("package", "ours"),
    [
        ("src/metatransformer", True),
        ("venv/lib/python3.11/site-packages/metatransformer", False),  # installed inside a user's own repository
        ("deep/src/metatransformer", False),
    ],
)
def test_only_a_checkout_of_this_package_has_a_revision(tmp_path: Path, package: str, ours: bool):
    file = tmp_path / package / "machine" / "about.py"
    file.parent.mkdir(parents=True)
    shutil.copy(about.__file__, file)
    author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "theirs"]):
        subprocess.run(["git", "-C", tmp_path, *words], check=True)
    head = subprocess.run(["git", "-C", tmp_path, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    spec = importlib.util.spec_from_file_location("about_there", file)
    assert spec is not None and spec.loader is not None
    there = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(there)
    found = there.revision()
    assert bool(found) == ours and head.stdout.startswith(found)
