"""The type checker has nothing to say about the package; its rules stand in pyproject.toml."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_package_passes_the_type_checker():
    python = ["--python", sys.prefix]
    command = [sys.executable, "-m", "ty", "check", "src", *python, "--output-format", "concise", "--color", "never"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"ty check src found:\n{done.stdout}{done.stderr}"
