"""The README says what is true: the table is the generated one, commands, names and files exist."""

import re
from pathlib import Path

import metatransformer
from metatransformer.bench.readme import results_block
from metatransformer.bench.table import head, table
from metatransformer.bench.verdicts import HEAD
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
    assert "metatransformer demo" in first and re.search(r"pytest -n auto --dist loadfile$", first, flags=re.MULTILINE)


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert "grep -m1 'bin/pytest -n' README.md" in script


def test_files_of_the_tree_exist():
    tree = README.split("src/metatransformer/\n")[1].split("```")[0]
    for line in tree.splitlines():
        if line.startswith("  "):
            name = line.split()[0]
            assert (ROOT / "src/metatransformer" / name).exists(), name


def test_the_results_are_those_of_the_generated_table():
    docs = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    block = README.split("<!-- results -->\n")[1].split("<!-- /results -->")[0]
    assert block == results_block(docs), "run: python -m metatransformer.bench.readme docs/results.md README.md"
    assert len(block.splitlines()) == 2 * (2 + 20) + 1
    assert "| audio | spoken digits, official split | accuracy | " in block


def test_the_best_figure_of_a_row_is_bold():
    rows = [
        ["esol", "rmse", "0.568 (0.558..0.573)", "2.192", "0.589", "0.589", "-", "0.560 (0.5..0.6)", *"abcd"],
        ["esol", "mae", "0.413", "1.733", "0.435", "0.435", "0.411", "0.410", *"abcd"],
        ["cifar10", "accuracy", "0.806", "0.100", "0.806", "0.545", "0.305", "0.429", *"abcd"],
    ]
    words = [("esol", "rmse", "yes", "this model"), ("cifar10", "accuracy", "no", "plain baseline")]
    block = results_block(f"{table(head(), rows)}\n\nIn words.\n\n{table(HEAD, words)}\n\nMore.\n")
    assert block.splitlines()[2:4] == [
        "| graph | ESOL solubility | rmse | 0.568 | 2.192 | 0.589 | 0.589 | - | **0.560** |",
        "| image | CIFAR-10, 500 pictures a class | accuracy | **0.806** | 0.100 | **0.806** | 0.545 | 0.305 | 0.429 |",
    ]
    assert block.splitlines()[-1] == "| image | CIFAR-10, 500 pictures a class | no | plain baseline |"
