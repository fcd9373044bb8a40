"""The README says what is true: the table is the generated one, commands, names and files exist."""

import re
from pathlib import Path

import metatransformer
from metatransformer.faces.cli.main import _parser
from metatransformer.faces.describe import markdown_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_modalities_is_the_generated_one():
    table = README.split("<!-- modalities -->\n")[1].split("<!-- /modalities -->")[0]
    assert table == markdown_table(), "paste what faces.describe.markdown_table() returns"


def test_every_command_of_the_readme_exists():
    block = README.split("## Command line")[1].split("```")[1]
    named = set(re.findall(r"^metatransformer (\w+)", block, flags=re.MULTILINE))
    (commands,) = [action for action in _parser()._actions if action.choices]
    assert commands.choices is not None and named == set(commands.choices)


def test_every_python_name_of_the_readme_is_public():
    for name in re.findall(r"\bmt\.(\w+)", README):
        assert name in metatransformer.__all__, name


def test_the_first_screen_holds_both_commands():
    first = "\n".join(README.splitlines()[:24])
    assert "metatransformer demo" in first and re.search(r"pytest$", first, flags=re.MULTILINE)


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "grep -m1 'pytest$' README.md" in script


def test_files_of_the_tree_exist():
    tree = README.split("src/metatransformer/\n")[1].split("```")[0]
    for line in tree.splitlines():
        if line.startswith("  "):
            name = line.split()[0]
            assert (ROOT / "src/metatransformer" / name).exists(), name


def _rows(text: str) -> list[list[str]]:
    """Returns the cells of a Markdown table without its two lines of heading."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:2] == "| "][2:]


def test_every_figure_of_the_readme_is_one_of_the_generated_table():
    docs = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    generated: dict[tuple[str, ...], str] = {}
    for name, metric, *figures in _rows(docs.split("In brackets stand")[0]):
        means = (cell.split(" (")[0] for cell in figures[:5])  # of the random trunks the range is told, too
        generated[(metric, *means, figures[5])] = name
    rows = [[cell.replace("*", "") for cell in row] for row in _rows(README.split("<!-- results -->")[1])]
    named = [generated.get((data.split(", ")[-1].replace(" ", "_"), *figures)) for _, data, *figures in rows]
    assert None not in named and len(set(named)) == 20, list(zip(named, rows, strict=True))
