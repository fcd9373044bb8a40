"""The pages of modalities and tasks say what is true: commands parse, settings exist with the defaults they name."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from metatransformer.faces.arguments import flat_keys
from metatransformer.faces.cli.main import OVERRIDE, _parser
from metatransformer.faces.describe import _value
from metatransformer.modalities import modality_names
from metatransformer.recipe import make_recipe, to_dict

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs/modalities"
TEXTS = {name: (PAGES / f"{name}.md").read_text(encoding="utf-8") for name in modality_names()}


def commands(text: str) -> Iterator[list[str]]:
    """Yields the words of each command of a page or of the README."""
    for line in re.findall(r"^(?:\$ |    )?(metatransformer .*)$", text, flags=re.MULTILINE):
        yield shlex.split(line)[1:]


def test_each_modality_has_a_page_and_the_readme_links_it():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(modality_names())
    assert [name for name in modality_names() if f"(docs/modalities/{name}.md)" not in readme] == []


@pytest.mark.parametrize("name", modality_names())
def test_every_command_of_a_page_parses_and_its_settings_exist(name: str):
    found = list(commands(TEXTS[name]))
    assert {words[0] for words in found} >= {"check", "fit", "predict"}
    for words in found:
        overrides = [word for word in words if OVERRIDE.match(word)]
        options = _parser().parse_args([word for word in words if word not in overrides])
        assert getattr(options, "modality", "") in ("", name)
        make_recipe(name, base={}, overrides=overrides)


@pytest.mark.parametrize("name", modality_names())
def test_every_setting_of_a_page_exists_and_its_default_is_the_one_named(name: str):
    text = TEXTS[name]
    known = {key: _value(value) for key, value in flat_keys(to_dict(make_recipe(name, base={}, overrides={}))).items()}
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| `(.*?)` \|", text, flags=re.MULTILINE)
    assert len(rows) >= 3
    assert [(key, said) for key, said in rows if known[key] != said] == []
    named = set(re.findall(r"\b((?:input|head|optim|data|task|run)\.[a-z_]+)\b(?!\()", text))
    assert named - known.keys() == set()


@pytest.mark.parametrize("name", modality_names())
def test_a_page_is_whole(name: str):
    text = TEXTS[name]
    assert re.findall("^## (.*?)(?::.*)?$", text, flags=re.MULTILINE) == [
        "Files",
        "Settings",
        "Example",
        "In Python",
        "When something is wrong",
    ]
    for program in re.findall("```python\n(.*?)```", text, flags=re.DOTALL):
        compile(program, name, "exec")
    shown = re.findall("```console[^\n]*\n(.*?)```", text, flags=re.DOTALL)
    with_output = [block.count("\n") > block.count("$ metatransformer") for block in shown]
    assert all(with_output) or not any(with_output), f"half made: run docs/make_pages.py {name}"
    pictures = re.findall(r"!\[[^\]]+\]\((\S+)\)", text)
    assert all((PAGES / picture).stat().st_size < 60_000 for picture in pictures)
    assert bool(pictures) == all(with_output)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (PAGES / link).exists(), link


TASKS = {path.stem: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs/tasks").glob("*.md"))}


@pytest.mark.parametrize("name", TASKS)
def test_a_page_of_a_task_is_whole_and_says_what_is_true(name: str):
    text = TASKS[name]
    assert f"(docs/tasks/{name}.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
    headings = re.findall("^## (.*?)(?::.*)?$", text, flags=re.MULTILINE)
    assert headings == ["Files", "Settings", "Example", "When something is wrong"]
    found, modality = list(commands(text)), {"forecast": "timeseries"}.get(name, "image")
    assert {words[0] for words in found} == {"check", "fit", "evaluate", "predict"}
    for words in found:
        overrides = [word for before, word in pairwise(words) if OVERRIDE.match(word) and before != "--inputs"]
        _parser().parse_args([word for word in words if word not in overrides])
        make_recipe(modality, base={}, overrides=[f"task.name={name}", *overrides])
    recipe = to_dict(make_recipe(modality, base={}, overrides=[f"task.name={name}"]))
    known = {key: _value(value) for key, value in flat_keys(recipe).items()} | {
        "task.ignore": "[]",
        "task.quantiles": "[]",
    }
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| `(.*?)` \|", text, flags=re.MULTILINE)
    assert len(rows) >= 3
    assert [(key, said, known[key]) for key, said in rows if known[key] != said] == []
    shown = re.findall("```console[^\n]*\n(.*?)```", text, flags=re.DOTALL)
    with_output = [block.count("\n") > block.count("$ metatransformer") for block in shown]
    assert all(with_output) or not any(with_output), f"half made: run docs/make_pages.py {name}"
    pictures = re.findall(r"!\[[^\]]+\]\((\S+)\)", text)
    assert bool(pictures) == all(with_output)
    assert all((ROOT / "docs/tasks" / picture).stat().st_size < 60_000 for picture in pictures)
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        assert (ROOT / "docs/tasks" / link).exists(), link
