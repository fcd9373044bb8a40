"""A recipe: every setting of one run, typed, with defaults.

Values come from five places, later ones win: the defaults below, the modality's ``defaults``, a recipe file (YAML, or a
Python file with a function ``recipe`` that returns a mapping), the flags of the command line, and dotted overrides
(``optim.lr=1e-3``). An unknown key is an error that names the nearest valid one. The resolved recipe is written to the
run folder and can be used as a recipe file again.
"""

import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from metatransformer.core.errors import UsageError
from metatransformer.core.settings import require, typed
from metatransformer.core.task import TaskOptions
from metatransformer.tasks import get_task

TUNE_MODES = ("head", "ends", "norm", "lora", "last:K", "all")
LORA_RANK = 8


def tune_mode(text: str) -> tuple[str, int]:
    """Returns kind and number of a tune mode: ``("lora", rank)``, ``("last", blocks)``, ``(kind, 0)`` for the others.

    Raises:
        UsageError: an unknown mode, or a number that is missing or below 1.
    """
    kind, colon, number = str(text).partition(":")
    if kind in ("head", "ends", "norm", "all") and not colon:
        return kind, 0
    if kind == "lora" and not colon:
        return kind, LORA_RANK
    if kind in ("lora", "last") and number.isascii() and number.isdigit() and int(number) >= 1:
        return kind, int(number)
    must = "be head, ends, norm, lora, lora:RANK, last:K (blocks) or all"
    raise UsageError("recipe key 'tune'", must=must, found=repr(text))


def keeps_trunk(text: str) -> bool:
    """Returns whether the trunk's own parameters stay as they were under a tune mode."""
    return tune_mode(text)[0] in ("head", "ends", "lora")


@dataclass(frozen=True)
class HeadOptions:
    """How the trunk's tokens become outputs.

    ``read`` lists the blocks whose normalised output is pooled, counted from the front (1 = after the first
    block) or from the back (-1 = after the last), or as a share of the depth (0.5 = the middle); blocks
    behind the last one read are not computed. ``pool`` is the summary token, the mean of the other tokens,
    both, the ``max`` of each feature over the other tokens, or the means in a ``grid`` of ``cells`` parts an
    axis, which keeps where or when something is (``columns``: parts of the last axis only, which keeps when).
    ``hidden`` > 0 puts one hidden layer before the output. ``centres`` > 0 answers, where the head is solved (see
    ``Recipe``), by how near a sample is to up to that many training samples (kernel ridge: Gaussian, ``gamma`` times
    the mean squared difference of standardised features) instead of by a linear layer; their features are kept in the
    model. Features that a modality hands to the head beside the trunk count ``direct`` times as much there: the penalty
    on their weights is that much squared smaller; under a kernel their mean squared difference counts that many times.
    """

    read: tuple[int | float, ...] = (-1,)
    pool: Literal["summary", "mean", "max", "both", "grid", "columns"] = "both"
    cells: int = 4
    hidden: int = 0
    dropout: float = 0.0
    direct: float = 10.0
    centres: int = 0
    gamma: float = 0.35

    def __post_init__(self) -> None:
        rules = {
            "direct": (self.direct > 0, "be above 0"),
            "read": (bool(self.read), "name at least one block"),
            "cells": (self.cells >= 1, "be at least 1"),
            "hidden": (self.hidden >= 0, "be at least 0"),
            "centres": (self.centres >= 0, "be at least 0"),
            "gamma": (0 < self.gamma < math.inf, "be above 0 and finite"),
            "dropout": (0 <= self.dropout < 1, "lie in [0, 1)"),
        }
        require(self, key="recipe key 'head.{}'", rules=rules)


@dataclass(frozen=True)
class OptimOptions:
    """AdamW with linear warm-up and cosine decay.

    ``lr`` is for new parameters, a tenth of it for adapters and for a head that was solved before, ``trunk_lr`` for
    what came with the trunk: its blocks, and a tokenizer that uses its front end.

    ``epochs`` "auto" takes as many as make about 1,000 steps, at least 4 and at most 40: small data needs more
    passes. ``warmup`` is the share of all steps; ``patience`` the number of epochs without a better
    validation score after which training stops (0 = never); ``average`` the decay of an exponential moving
    average of the weights (0 = none), which is then what is validated and kept. In tune mode ``head`` there
    is no such training: ``l2`` lists the penalties that are tried ("auto": those that suit the solver). A validation
    split chooses among them, or ``folds`` of train and val together, which also try a kernel's ``head.gamma`` times
    1/4, 1/2, 2 and 4 (0: never; "auto": 5 where the validation split is only drawn, samples are at most 3,000 and heads
    are solved by squares). ``refit`` fits the chosen head again on train and val together, and ``views`` is how many
    augmented copies of each training sample are cached besides the plain one. ``solver`` "squares" fits
    classes by least squares on their indicators, "likelihood" by cross entropy; numbers are always fitted
    by squares, labels of which several may hold always by likelihood.
    """

    lr: float = 1e-3
    trunk_lr: float = 1e-5
    weight_decay: float = 0.05
    epochs: int | Literal["auto"] = "auto"
    warmup: float = 0.1
    clip: float = 1.0
    patience: int = 0
    average: float = 0.0
    views: int = 0
    l2: tuple[float, ...] | Literal["auto"] = "auto"
    folds: int | Literal["auto"] = "auto"
    solver: Literal["squares", "likelihood"] = "squares"
    refit: bool = True

    def __post_init__(self) -> None:
        penalties = self.l2 == "auto" or (bool(self.l2) and all(0 <= penalty < math.inf for penalty in self.l2))
        rules = {
            "lr": (0 < self.lr < math.inf, "be above 0 and finite"),
            "trunk_lr": (0 <= self.trunk_lr < math.inf, "be at least 0 and finite"),
            "weight_decay": (0 <= self.weight_decay < math.inf, "be at least 0 and finite"),
            "epochs": (self.epochs == "auto" or self.epochs >= 1, "be 'auto' or at least 1"),
            "warmup": (0 <= self.warmup <= 1, "lie in [0, 1], a share of all steps"),
            "clip": (self.clip >= 0, "be at least 0 (0 = no clipping)"),
            "patience": (self.patience >= 0, "be at least 0 (0 = never stop early)"),
            "average": (0 <= self.average < 1, "lie in [0, 1)"),
            "views": (self.views >= 0, "be at least 0"),
            "folds": (self.folds in ("auto", 0) or self.folds >= 2, "be 'auto', 0 or at least 2"),
            "l2": (penalties, "list at least one penalty, each at least 0 and finite"),
        }
        require(self, key="recipe key 'optim.{}'", rules=rules)


@dataclass(frozen=True)
class DataOptions:
    """Batches and splits. Fractions apply where the data brings no split of its own."""

    batch_size: int = 64
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    augment: bool = True
    cache_mb: int = 2048
    header: bool = True

    def __post_init__(self) -> None:
        rules = {
            "batch_size": (self.batch_size >= 1, "be at least 1"),
            "val_fraction": (0 <= self.val_fraction < 1, "lie in [0, 1)"),
            "test_fraction": (0 <= self.test_fraction < 1 - self.val_fraction, "lie in [0, 1 - data.val_fraction)"),
            "cache_mb": (self.cache_mb >= 0, "be at least 0"),
        }
        require(self, key="recipe key 'data.{}'", rules=rules)


@dataclass(frozen=True)
class RunOptions:
    """Where and how it runs. ``checkpoint_minutes`` is the longest time between two checkpoints inside an epoch."""

    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_minutes: float = 5.0

    def __post_init__(self) -> None:
        rules = {
            "seed": (0 <= self.seed < 2**32, "lie in 0..4294967295"),
            "checkpoint_minutes": (self.checkpoint_minutes >= 0, "be at least 0"),
        }
        require(self, key="recipe key 'run.{}'", rules=rules)


@dataclass(frozen=True)
class Recipe:
    """One run. ``input`` are the modality's own options (see ``metatransformer modalities NAME``), ``task`` the task's.

    ``tune`` says what learns: ``head`` the head alone; ``ends`` tokenizer and head, through the frozen trunk; ``norm``
    the trunk's norms and layer scales besides; ``lora`` or ``lora:RANK`` low-rank adapters in its attention besides;
    ``last:K`` the last K blocks that the head needs besides; ``all`` everything. All but ``head`` train by epochs;
    behind a tokenizer that came with the trunk they train through a narrow linear head, and then solve the head as mode
    ``head`` does, on tuned or untuned features, whichever validation prefers.
    """

    modality: str
    encoder: str = "meta-b16"
    tune: str = "ends"
    input: Any = None
    task: TaskOptions = field(default_factory=TaskOptions)
    head: HeadOptions = field(default_factory=HeadOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)

    def __post_init__(self) -> None:
        tune_mode(self.tune)


def with_tune(recipe: Recipe, tune: str) -> Recipe:
    """Returns the recipe in another tune mode, with a head of one layer where that mode has no other."""
    head = recipe.head
    if tune_mode(tune)[0] == "head":
        head = dataclasses.replace(head, hidden=0, dropout=0.0)
    return dataclasses.replace(recipe, tune=tune, head=head)


def make_recipe(
    modality: str,
    *,
    options: type,
    defaults: Mapping[str, Any],
    base: Mapping[str, Any],
    overrides: Sequence[str] | Mapping[str, Any],
) -> Recipe:
    """Returns the resolved recipe.

    ``options`` is the dataclass of the modality's own settings, ``defaults`` its changes to the general
    defaults, ``base`` the content of a recipe file, ``overrides`` a mapping of dotted keys or a list of
    ``key.sub=value`` texts.

    Raises:
        UsageError: an unknown key (with the nearest valid one), or a value of the wrong type.
    """
    chosen = _merged(base, parse_overrides(overrides))
    tree = _merged(_suited(defaults, chosen), chosen)
    if tree.get("modality", modality) != modality:
        raise UsageError("recipe key 'modality'", must=f"be '{modality}' here", found=repr(tree["modality"]))
    given = tree.pop("input", None) or {}
    values = typed(options, given, prefix="input.")
    task = task_options(tree.pop("task", {}), prefix="task.")
    recipe = typed(Recipe, tree | {"modality": modality}, prefix="")
    return dataclasses.replace(recipe, input=values, task=task)


def task_options(values: Any, *, prefix: str) -> TaskOptions:
    """Returns the typed settings of a task, its own among them; ``prefix`` stands before every key in an error.

    Raises:
        UsageError: an unknown task or key (with the nearest valid one), or a value of the wrong type.
    """
    return typed(get_task(_task_name(values, TaskOptions.name)).options, values, prefix=prefix)


def _task_name(values: Any, default: str) -> str:
    return str(values.get("name", default)) if isinstance(values, Mapping) else default


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns dotted keys as one tree; later layers win."""
    tree: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            _put(tree, key, value)
    return tree


def _suited(defaults: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a modality's defaults, without those that another task or tune mode, if chosen, has no use for."""
    usual = defaults.get("task.name", TaskOptions.name)
    name = _task_name(chosen.get("task"), usual)
    known = {item.name for item in dataclasses.fields(get_task(name).options)}
    dropped = {key for key in defaults if name != usual and key.startswith("task.") and key[5:] not in known}
    solved = chosen.get("tune", defaults.get("tune")) == "head"
    dropped |= {"head.hidden", "head.dropout"} if solved else set()
    return {key: value for key, value in defaults.items() if key not in dropped}


def parse_overrides(overrides: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """Returns dotted keys with their values; texts are read as YAML (``3``, ``1e-3``, ``[1, 2]``, ``true``)."""
    if isinstance(overrides, Mapping):
        return dict(overrides)
    result: dict[str, Any] = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise UsageError(f"override '{text}'", must="look like key.sub=value", found="no key and value")
        try:
            result[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            if value.strip()[0] not in "[{'\"":  # %d/%m/%Y is a text, although YAML reserves its first letter
                result[key.strip()] = value.strip()
                continue
            raise UsageError(
                f"override '{text}'",
                must="hold a YAML value behind '='",
                found=repr(value),
                do="Close brackets and quotes.",
            ) from error
    return result


def read_recipe(path: Path) -> dict[str, Any]:
    """Returns the content of a recipe file: YAML, or a Python file whose function ``recipe()`` returns a mapping.

    Raises:
        UsageError: the file is missing, cannot be parsed, or does not hold a mapping.
    """
    where = f"recipe {path}"
    if not path.is_file():
        raise UsageError(where, must="be a YAML or Python file", found="no such file")
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (SyntaxError, ImportError) as error:
            raise UsageError(where, must="be valid Python", found=str(error)) from error
        if not hasattr(module, "recipe"):
            raise UsageError(where, must="define a function recipe()", found="none")
        content = module.recipe()
    else:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(where, must="be valid YAML in UTF-8", found=str(error)) from error
    if not isinstance(content, Mapping):
        raise UsageError(where, must="hold keys and values", found=type(content).__name__)
    return dict(content)


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as plain values for YAML and JSON; ``make_recipe`` takes them back as ``base``."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return [plain(item) for item in value] if isinstance(value, list | tuple) else value

    return plain(dataclasses.asdict(recipe))


def to_yaml(recipe: Recipe) -> str:
    """Returns the recipe as YAML text."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False)


def _put(tree: dict[str, Any], key: Any, value: Any) -> None:
    """Sets a dotted key; a mapping as value is merged, not replaced."""
    if not isinstance(key, str):
        raise UsageError(f"recipe key {key!r}", must="be a text", found=f"a {type(key).__name__}")
    head, _, rest = key.partition(".")
    if rest:
        branch = tree.setdefault(head, {})
        if not isinstance(branch, dict):
            raise UsageError(f"recipe key '{key}'", must="stand below a section", found=f"'{head}'")
        _put(branch, rest, value)
    elif isinstance(value, Mapping):
        branch = tree.setdefault(head, {})
        for name, item in value.items():
            _put(branch, name, item)
    else:
        tree[head] = value
