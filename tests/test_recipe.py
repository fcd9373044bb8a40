"""Recipes: layers of settings, typed, with errors that name the nearest valid key."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import pytest
import yaml

from metatransformer.core.errors import UsageError
from metatransformer.recipe import OptimOptions, make_recipe, parse_overrides, read_recipe, to_dict, to_yaml, with_tune


@dataclass(frozen=True)
class Options:
    size: int | Literal["auto"] = 7
    bins: int = 5

    def __post_init__(self):
        if self.bins < 2:
            raise UsageError("input.bins", must="be at least 2", found=str(self.bins))


def make(*overrides: str, defaults: dict | None = None, base: dict | None = None):
    kind = SimpleNamespace(
        options=Options, defaults=defaults or {}, task="classify", defaults_for={}, kit=lambda name: None
    )
    return make_recipe("image", base=base or {}, overrides=list(overrides), known=lambda name: kind)


def test_later_layers_win():
    base = {"optim": {"epochs": 7, "lr": 1.0}}
    recipe = make("optim.lr=3e-4", defaults={"tune": "head", "optim.epochs": 5}, base=base)
    assert (recipe.tune, recipe.optim.epochs, recipe.optim.lr) == ("head", 7, 3e-4)
    assert recipe.optim.trunk_lr == OptimOptions().trunk_lr and recipe.input == Options()


def test_weights_of_classes_are_a_default_of_classes_only():
    defaults = {"task.class_weight": "balanced"}
    assert make(defaults=defaults).task.class_weight == "balanced"
    for recipe in (
        make("task.name=regress", defaults=defaults),
        make(defaults=defaults, base={"task": {"name": "regress"}}),
    ):
        assert not hasattr(recipe.task, "class_weight") and "class_weight" not in to_dict(recipe)["task"]
    with pytest.raises(
        UsageError, match=r"recipe key 'task.class_weight': must .*Valid: task.head, task.inputs, task.m"
    ):
        make("task.name=regress", "task.class_weight=balanced", defaults=defaults)


def test_texts_are_read_as_yaml():
    found = parse_overrides(["a=3", "b.c=1.5", "d=[1, -1]", "e=true", "f=text", "g=x=y"])
    assert found == {"a": 3, "b.c": 1.5, "d": [1, -1], "e": True, "f": "text", "g": "x=y"}


def test_a_setting_of_type_text_is_taken_as_it_is():
    written = ["input.style=%m/%d/%Y", "input.time=2024", "input.zone=@x", "task.target=1"]
    recipe = make_recipe("timeseries", base={}, overrides=written)
    found = (recipe.input.style, recipe.input.time, recipe.input.zone, recipe.task.target)
    assert found == ("%m/%d/%Y", "2024", "@x", "1")


@pytest.mark.parametrize("text", ["1e-3", "0.001", "1.0e-3"])
def test_every_spelling_of_a_number_is_a_number(text: str):
    assert make(f"optim.lr={text}").optim.lr == 1e-3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.lrr=1", r"recipe key 'optim.lrr': must be a setting; found no such one. Did you mean 'optim.lr'\?"),
        ("input.sise=1", r"recipe key 'input.sise': must be a setting.* Did you mean 'input.size'\?"),
        ("tunes=head", r"recipe key 'tunes': .* Did you mean 'tune'\?"),
        ("tune=frozen", r"recipe key 'tune': must be head, tokens, ends, norm, lora.* or all; found 'frozen'"),
        ("optim.lr=fast", r"recipe key 'optim.lr': must be a valid number.*; found 'fast'"),
        ("input.size=[1]", r"recipe key 'input.size': must be a valid integer or be 'auto'; found \[1\]"),
        ("input.bins=1", "^input.bins: must be at least 2; found 1"),
        ("head.read=[x]", r"recipe key 'head.read': must be a valid integer.*; found 'x'"),
        ("optim=3", r"recipe section 'optim': must hold keys; found 3"),
        ("optim.lr.x=3", r"recipe "),
        ("optim.lr=[1", r"override 'optim.lr=\[1': must hold a YAML value"),
        ("optim.lr=-1", r"recipe key 'optim.lr': must be above 0 and finite; found -1.0"),
        ("optim.lr=nan", r"recipe key 'optim.lr': must be above 0"),
        ("optim.epochs=0", r"recipe key 'optim.epochs': must be 'auto' or at least 1; found 0"),
        ("optim.average=1", r"recipe key 'optim.average': must lie in \[0, 1\)"),
        ("optim.l2=[]", r"recipe key 'optim.l2': must list at least one penalty"),
        ("optim.l2=[-1]", r"recipe key 'optim.l2': .*each at least 0"),
        ("data.batch_size=0", r"recipe key 'data.batch_size': must be at least 1; found 0"),
        ("data.val_fraction=1.5", r"recipe key 'data.val_fraction': must lie in \[0, 1\)"),
        ("data.test_fraction=.9", r"recipe key 'data.test_fraction': must lie in \[0, 1 - data.val_fraction\)"),
        ("head.read=[]", r"recipe key 'head.read': must name at least one block"),
        ("head.hidden=-1", r"recipe key 'head.hidden': must be at least 0"),
        ("head.dropout=1", r"recipe key 'head.dropout': must lie in \[0, 1\)"),
        ("task.class_wait=balanced", r"recipe key 'task.class_wait': .* Did you mean 'task.class_weight'\?"),
        ("task.class_weight=7", r"recipe key 'task.class_weight': must be 'auto', 'none' or 'balanced'; found 7"),
        ("task.name=[1]", r"task: must be a known one; found '\[1\]'"),
        ("task=3", r"recipe section 'task': must hold keys; found 3"),
        ("run.seed=-1", r"recipe key 'run.seed': must lie in 0..4294967295"),
        ("optim.lr", r"override 'optim.lr': must look like key.sub=value"),
        ("modality=audio", r"recipe key 'modality': must be 'image' here; found 'audio'"),
    ],
)
def test_a_wrong_setting_is_named(override: str, message: str):
    with pytest.raises(UsageError, match=message):
        make(override)


def test_a_resolved_recipe_is_a_recipe_file(tmp_path: Path):
    recipe = make("optim.lr=3e-4", "head.read=[1, -1]", "input.size=11")
    file = tmp_path / "recipe.yaml"
    file.write_text(to_yaml(recipe), encoding="utf-8")
    assert make(base=read_recipe(file)) == recipe
    assert yaml.safe_load(to_yaml(recipe)) == to_dict(recipe)


def test_a_python_file_returns_a_mapping(tmp_path: Path):
    file = tmp_path / "mine.py"
    file.write_text("def recipe():\n    return {'optim.lr': 0.5, 'input': {'size': 3}}\n", encoding="utf-8")
    recipe = make(base=read_recipe(file))
    assert recipe.optim.lr == 0.5 and recipe.input.size == 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("missing.yaml", None, "must be a YAML or Python file; found no such file"),
        ("bad.yaml", "a: [1", "must be valid YAML in UTF-8"),
        ("list.yaml", "- 1", "must hold keys and values; found list"),
        ("none.py", "x = 1", r"must define a function recipe\(\)"),
    ],
)
def test_a_bad_recipe_file_is_named(tmp_path: Path, name: str, text: str | None, message: str):
    if text is not None:
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"{name}: {message}"):
        read_recipe(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\ndef recipe(:", ", line 2: must run without an error; found SyntaxError: invalid syntax"),
        ("import json, nowhere", ", line 1: .*; found ModuleNotFoundError: No module named 'nowhere'"),
        ("import json\njson.loads('{')", ", line 2: .*; found JSONDecodeError: Expecting property name"),
        ("def recipe():\n    return {}['size']", ", line 2: .*; found KeyError: 'size'. Mend the file"),
        ("def recipe(size):\n    return {}", r": .*; found TypeError: recipe\(\) missing 1 required"),
        ("recipe = 3", ": .*; found TypeError: 'int' object is not callable"),
        ("def recipe():\n    return recipe()", ", line 2: .*; found RecursionError"),
        ("a = '\0'", ": must run without an error; found SyntaxError: source code"),
    ],
)
def test_an_error_in_a_python_recipe_names_its_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "mine.py").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=f"recipe .*mine.py{message}"):
        read_recipe(tmp_path / "mine.py")


def test_what_a_python_recipe_asks_of_this_package_is_told_as_it_is(tmp_path: Path):
    file = tmp_path / "mine.py"
    ask = "from metatransformer.recipe import make_recipe\ndef recipe():\n    "
    file.write_text(ask + "make_recipe('images', base={}, overrides={})", encoding="utf-8")
    with pytest.raises(UsageError, match=r"modality: must be a known one; found 'images'. Did you mean 'image'\?"):
        read_recipe(file)
    ask = "from metatransformer.data.examples import Examples\ndef recipe():\n    "
    file.write_text(ask + "Examples.split(None, 'all')", encoding="utf-8")  # where our own assertion fails
    with pytest.raises(AssertionError, match="all"):
        read_recipe(file)


def test_a_key_that_is_no_text_is_named():
    with pytest.raises(UsageError, match="recipe key 1: must be a text; found a int"):
        make(base={"optim": {1: 2}})


@pytest.mark.parametrize(
    ("default", "chosen", "dropout"),
    [("ends", [], 0.3), ("ends", ["tune=head"], 0.0), ("head", [], 0.0), ("head", ["tune=lora"], 0.3)],
)
def test_a_default_that_the_tune_mode_has_no_use_for_is_left_out(default: str, chosen: list, dropout: float):
    recipe = make(*chosen, defaults={"tune": default, "head.dropout": 0.3, "head.centres": 7})
    assert (recipe.head.dropout, recipe.head.centres) == (dropout, 7)
    assert with_tune(recipe, "head").head.dropout == 0
    assert with_tune(recipe, "ends").head == recipe.head
