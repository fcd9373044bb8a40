"""The docs site is built without a warning, and the programs and commands of its own pages run.

Blocks ``python`` and ``console`` of a page are run in their order, in a folder with made-up files, on the tests' trunk
in place of ``focus-s14``; a block ``yaml`` behind "`NAME.yaml`:" is written to that file. Blocks ``py`` are other
libraries'.
"""

import re
import shlex
import wave
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from common import ROOT, run_alone
from PIL import Image

from metatransformer.faces.cli import main

DOCS = ROOT / "docs"
PAGES = ("faq", "coming-from", "recipes", *(f"tasks/{n}" for n in ("classify", "regress", "multilabel", "forecast")))
QUICK = ["head.features=trunk"]  # what plain features add is tested elsewhere
PART = re.compile(
    r"`(?P<name>[\w.]+\.yaml)`:\n\n```yaml\n(?P<yaml>.*?)```"
    r"|```python\n(?P<python>.*?)```"
    r"|```console\n(?P<console>.*?)```",
    re.DOTALL,
)


def make_files(folder: Path) -> None:
    """Writes what the pages speak of: pictures of two classes, a sound, tables of people, homes and loads."""
    rng = np.random.default_rng(0)
    places = {f"photos/{split}/{kind}/{n}.jpg": kind for split in ("train", "test") for kind in "ab" for n in range(8)}
    for path, kind in {**places, "new/1.jpg": "a", "new/2.jpg": "b"}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 100, (24, 24, 3)) + (150 if kind == "b" else 0)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / path)
    with wave.open(str(folder / "clip.wav"), "wb") as file:
        file.setnchannels(1), file.setsampwidth(2), file.setframerate(16_000)
        file.writeframes((3000 * np.sin(np.arange(16_000) / 9)).astype("<i2").tobytes())
    age = rng.integers(18, 80, 40)
    city = rng.choice(["Oslo", "Rome"], 40)
    people = pd.DataFrame({"age": age, "city": city, "income": np.where(age > 40, "high", "low")})
    people.to_csv(folder / "people.csv", index=False)
    tags = pd.DataFrame({"path": [*places], "indoor": [int(kind == "a") for kind in places.values()]})
    tags.assign(night=rng.integers(0, 2, len(places))).to_csv(folder / "tags.csv", index=False)
    area = rng.uniform(40, 200, 30).round(1)
    homes = pd.DataFrame({"front": [*places][:30], "area": area, "rooms": (area // 20).astype(int)})
    homes.assign(price=(3 * area + rng.normal(size=30)).round(2)).to_csv(folder / "homes.csv", index=False)
    load = pd.DataFrame({"time": pd.date_range("2024-01-01", periods=500, freq="h"), "load": 10.0})
    load.assign(load=10 + np.sin(np.arange(500) * np.pi / 12)).to_csv(folder / "load.csv", index=False)


@pytest.mark.filterwarnings("ignore:.*never trained.*:UserWarning")
@pytest.mark.parametrize("page", PAGES)
def test_programs_and_commands_of_a_page_run(page: str, tmp_path: Path):
    make_files(tmp_path)
    text = (DOCS / f"{page}.md").read_text(encoding="utf-8").replace("focus-s14", "test")
    names: dict[str, object] = {}
    parts = list(PART.finditer(text))
    with chdir(tmp_path):
        for part in parts:
            if part["yaml"]:
                Path(part["name"]).write_text(part["yaml"], encoding="utf-8")
            elif part["python"]:
                exec(compile(part["python"], f"{page}.md", "exec"), names)
            for command in re.findall(r"^\$ metatransformer (.*)$", part["console"] or "", flags=re.MULTILINE):
                words = shlex.split(command)
                assert main([*words, *(QUICK if words[0] == "fit" and words[1] != "suite.yaml" else [])]) == 0, command


def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path: Path):
    words = ["-m", "mkdocs", "build", "--strict", "--config-file", ROOT / "mkdocs.yml", "--site-dir", tmp_path]
    done = run_alone(words, env={"NO_MKDOCS_2_WARNING": "1"})
    assert done.returncode == 0, done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert {"index.html", "faq/index.html", "modalities/audio/index.html", "tasks/detect/index.html"} <= pages.keys()
    for name, page in pages.items():
        asked = re.findall(r'<(?:script|img|iframe|link)[^>]*(?:src|href)="?(https?://[^" >]+)', page)
        assert asked == [], name
        assert re.findall(r'<img(?![^>]*\balt="[^"]+")[^>]*>', page) == [], name
        assert "<!-- readme:" not in page and "<!-- file:" not in page


def test_every_kind_of_data_and_every_task_is_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:")[1]
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    found = set(re.findall(r": ([\w/-]+\.md)$", nav, flags=re.MULTILINE))
    assert found <= pages and {page for page in pages if "/" in page} <= found
