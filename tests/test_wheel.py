"""The wheel and the sdist hold what they should and nothing else; a wheel in an empty environment runs the demo."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from email.parser import HeaderParser
from importlib.metadata import version
from pathlib import Path

import pytest
from common import ROOT

import metatransformer

pytest.importorskip("build")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Returns the sdist and the wheel, built of what git knows or would take, without a network."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("dist")
    hidden = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "shared")
    shutil.copytree(ROOT, source, ignore=hidden)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def test_the_wheel_holds_the_package_alone_and_all_of_it(built: tuple[Path, Path]):
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
        about = HeaderParser().parsestr(wheel.read(metadata).decode())
    own = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src").rglob("*") if path.is_file()}
    assert names == {name for name in own if "__pycache__" not in name and ".egg-info" not in name}
    assert {"metatransformer/report/page.html", "metatransformer/report/page.css", "metatransformer/py.typed"} <= names
    assert built[1].stat().st_size < 1_500_000
    assert about["Name"] == "metatransformer" and about["Version"] == metatransformer.__version__
    assert about["License-Expression"] == "Apache-2.0" and about["Description-Content-Type"] == "text/markdown"
    assert any(need.startswith("torch") for need in about.get_all("Requires-Dist", []))


def test_the_sdist_holds_tests_and_pages_and_no_data_of_others(built: tuple[Path, Path]):
    with tarfile.open(built[0]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "mkdocs.yml"} <= names
    assert {"docs/faq.md", "docs/notebooks/vectors.ipynb", "tests/conftest.py", "src/metatransformer/py.typed"} <= names
    assert not [name for name in names if name.startswith(("shared", "build", ".git")) or name.endswith(".pyc")]
    assert built[0].stat().st_size < 8_000_000


@pytest.mark.large
def test_a_wheel_in_an_empty_environment_runs_the_demo(built: tuple[Path, Path], tmp_path: Path):
    """Needs the package index, and a minute or two."""
    venv.create(tmp_path / "env", with_pip=True)
    run = {"env": {**os.environ, "PYTHONPATH": "", "PYTHONNOUSERSITE": "1"}, "cwd": tmp_path, "check": True}
    torch = version("torch").partition("+")[0]  # the build that is here, where the index has it
    subprocess.run([tmp_path / "env/bin/pip", "install", "-q", f"torch=={torch}", built[1]], **run)
    words = [tmp_path / "env/bin/metatransformer", "demo", "--encoder", "test", "--out", "demo"]
    done = subprocess.run(words, capture_output=True, text=True, **run)
    assert json.loads(done.stdout.splitlines()[-1])["encoder"] == "test" and (tmp_path / "demo/report.html").is_file()
