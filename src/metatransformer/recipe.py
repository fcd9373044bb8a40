"""A recipe: every setting of one run, typed, with defaults.

A model has named inputs, each of one modality, and named tasks, each on some of the inputs::

    inputs: {photo: {modality: image, size: 140}, rest: {modality: tabular}}
    tasks: {outcome: {name: classify, target: outcome}, days: {name: regress, target: days, head: {pool: mean}}}

For one input and one task there is a short form, which is what most people write: ``modality: image``, ``input: {size:
140}``, ``task: {target: outcome}``. The input is then called as its modality and the task as its kind.

Values come from five places, later ones win: the defaults below, the modality's ``defaults``, a recipe file (YAML, or a
Python file with a function ``recipe`` that returns a mapping), the flags of the command line, and dotted overrides
(``optim.lr=1e-3``). An unknown key is an error that names the nearest valid one. The resolved recipe is written to the
run folder and can be used as a recipe file again.
"""

import dataclasses
import importlib.util
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import yaml

from metatransformer.core.border import users_code
from metatransformer.core.errors import UsageError, nearest
from metatransformer.core.modality import Kit
from metatransformer.core.settings import Rule, Settings, typed
from metatransformer.core.task import TaskOptions
from metatransformer.data.rows import split_target
from metatransformer.modalities import get_modality
from metatransformer.tasks import get_task

NOTHING: Mapping[str, Any] = MappingProxyType({})
# Settings of older revisions that are no more, with the values that they had by default.
GONE: Mapping[str, Any] = MappingProxyType(
    {
        "task.label_smoothing": 0.0,
        "task.class_weight": "none",  # is of classes alone
        "optim.warmup": 0.1,
        "optim.clip": 1.0,
        "optim.patience": 0,
        "optim.views": 0,
    }
)
PLURAL = ("modality", "input", "inputs", "task", "tasks", "sets")  # keys of inputs and tasks, in all forms

_NAME = re.compile(r"\w[\w-]*", re.ASCII)  # of an input or a task: it names a file
CHANGING = ("norm", "last", "all")  # kinds of tune mode that change the trunk itself
_KIND = r"""\s*(\w+)\s*(?:\(((?:"[^"]*"|[^()"])*)\))?\s*"""  # a modality, perhaps with its columns in brackets
_INPUT = re.compile(rf"\s*(\w[\w-]*)\s*={_KIND}(?:,|$)", re.ASCII)
LORA_RANK = 8


def tune_mode(text: str) -> tuple[str, int]:
    """Returns kind and number of a tune mode: ``("lora", rank)``, ``("last", blocks)``, ``(kind, 0)`` for the others.

    Raises:
        UsageError: an unknown mode, or a number that is missing or below 1.
    """
    kind, colon, number = str(text).partition(":")
    if kind in ("head", "tokens", "ends", "norm", "all") and not colon:
        return kind, 0
    if kind == "lora" and not colon:
        return kind, LORA_RANK
    if kind in ("lora", "last") and number.isascii() and number.isdigit() and int(number) >= 1:
        return kind, int(number)
    must = "be head, tokens, ends, norm, lora, lora:RANK, last:K (blocks) or all"
    raise UsageError("recipe key 'tune'", must=must, found=repr(text))


def keeps_trunk(text: str) -> bool:
    """Returns whether the trunk's own parameters stay as they were under a tune mode."""
    return tune_mode(text)[0] not in CHANGING


@dataclass(frozen=True)
class InputOptions:
    """One input: its modality, and the modality's own settings (see ``metatransformer modalities NAME``).

    ``columns`` (recipe key ``from``) are those that hold it where a table brings several inputs.
    """

    modality: str
    options: Any = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class HeadOptions(Settings):
    """How the trunk's tokens become outputs.

    ``read`` lists the blocks whose normalised output is pooled, counted from the front (1 = after the first
    block) or from the back (-1 = after the last), or as a share of the depth (0.5 = the middle); blocks
    behind the last one read are not computed. ``pool`` is the summary token, the mean of the other tokens,
    both, the ``max`` of each feature over the other tokens, or the means in a ``grid`` of ``cells`` parts an
    axis, which keeps where or when something is (``columns``: parts of the last axis only, which keeps when).
    Each input is pooled by itself. Another ``readout`` than "pooled" may be brought by a package.
    ``hidden`` > 0 puts one hidden layer before the output. ``centres`` > 0 answers, where the head is solved (see
    ``Recipe``), by how near a sample is to up to that many training samples (kernel ridge: Gaussian, ``gamma`` times
    the mean squared difference of standardised features) instead of by a linear layer; their features are kept in the
    model. Features that a modality hands to the head beside the trunk count ``direct`` times as much there: the penalty
    on their weights is that much squared smaller; under a kernel their mean squared difference counts that many times.
    ``features``: in tune mode ``head`` "auto" chooses, on training samples, among the trunk's features, the modality's
    plain ones (what its plain baseline sees), and both, each solved by itself and then averaged.
    """

    read: tuple[int | float, ...] = (-1,)
    readout: str = "pooled"
    pool: Literal["summary", "mean", "max", "both", "grid", "columns"] = "both"
    cells: int = 4
    features: Literal["auto", "trunk", "plain", "both"] = "auto"
    hidden: int = 0
    dropout: float = 0.0
    direct: float = 10.0
    centres: int = 0
    gamma: float = 0.35

    key = "recipe key 'head.{}'"
    rules = (
        Rule("direct", "be above 0", lambda own: own.direct > 0),
        Rule("read", "name at least one block", lambda own: bool(own.read)),
        Rule("cells", "be at least 1", lambda own: own.cells >= 1),
        Rule("hidden", "be at least 0", lambda own: own.hidden >= 0),
        Rule("centres", "be at least 0", lambda own: own.centres >= 0),
        Rule("gamma", "be above 0 and finite", lambda own: 0 < own.gamma < math.inf),
        Rule("dropout", "lie in [0, 1)", lambda own: 0 <= own.dropout < 1),
    )


@dataclass(frozen=True)
class OptimOptions(Settings):
    """AdamW with linear warm-up over a tenth of the steps, cosine decay, and gradients clipped to a norm of 1.

    ``lr`` is for new parameters, a tenth of it for adapters and for a head that was solved before, ``trunk_lr`` for
    what came with the trunk: its blocks, and a tokenizer that uses its front end.

    ``epochs`` "auto" takes as many as make about 1,000 steps, at least 4 and at most 40: small data needs more
    passes. ``average`` is the decay of an exponential moving
    average of the weights (0 = none), which is then what is validated and kept. In tune mode ``head`` there
    is no such training: ``l2`` lists the penalties that are tried ("auto": those that suit the solver). A validation
    split chooses among them, or ``folds`` of train and val together, which also try a kernel's ``head.gamma`` times
    1/4, 1/2, 2 and 4 (0: never; "auto": 5 where the validation split is only drawn, samples are at most 3,000 and heads
    are solved by squares). ``refit`` fits the chosen head again on train and val together. ``solver`` "squares" fits
    classes by least squares on their indicators, "likelihood" by cross entropy; numbers are always fitted
    by squares, labels of which several may hold always by likelihood.
    """

    lr: float = 1e-3
    trunk_lr: float = 1e-5
    weight_decay: float = 0.05
    epochs: int | Literal["auto"] = "auto"
    average: float = 0.0
    l2: tuple[float, ...] | Literal["auto"] = "auto"
    folds: int | Literal["auto"] = "auto"
    solver: Literal["squares", "likelihood"] = "squares"
    refit: bool = True

    key = "recipe key 'optim.{}'"
    rules = (
        Rule("lr", "be above 0 and finite", lambda own: 0 < own.lr < math.inf),
        Rule("trunk_lr", "be at least 0 and finite", lambda own: 0 <= own.trunk_lr < math.inf),
        Rule("weight_decay", "be at least 0 and finite", lambda own: 0 <= own.weight_decay < math.inf),
        Rule("epochs", "be 'auto' or at least 1", lambda own: own.epochs == "auto" or own.epochs >= 1),
        Rule("average", "lie in [0, 1)", lambda own: 0 <= own.average < 1),
        Rule(
            "folds", "be 'auto', 0 or at least 2", lambda own: own.folds == "auto" or own.folds == 0 or own.folds >= 2
        ),
        Rule(
            "l2",
            "list at least one penalty, each at least 0 and finite",
            lambda own: own.l2 == "auto" or (bool(own.l2) and all(0 <= penalty < math.inf for penalty in own.l2)),
        ),
    )


@dataclass(frozen=True)
class DataOptions(Settings):
    """Batches and splits. Fractions apply where the data brings no split of its own.

    ``drop_inputs``: where a sample has several inputs and training goes by epochs, how often it loses one, so that the
    model learns to do without.
    """

    batch_size: int = 64
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    augment: bool = True
    drop_inputs: float = 0.1
    cache_mb: int = 2048
    header: bool = True

    key = "recipe key 'data.{}'"
    rules = (
        Rule("batch_size", "be at least 1", lambda own: own.batch_size >= 1),
        Rule("val_fraction", "lie in [0, 1)", lambda own: 0 <= own.val_fraction < 1),
        Rule(
            "test_fraction",
            "lie in [0, 1 - data.val_fraction)",
            lambda own: 0 <= own.test_fraction < 1 - own.val_fraction,
        ),
        Rule("drop_inputs", "lie in [0, 1)", lambda own: 0 <= own.drop_inputs < 1),
        Rule("cache_mb", "be at least 0", lambda own: own.cache_mb >= 0),
    )


@dataclass(frozen=True)
class RunOptions(Settings):
    """Where and how it runs. ``checkpoint_minutes`` is the longest time between two checkpoints inside an epoch.

    ``minutes`` > 0 is how long a fit may take: it learns and scores what it reaches, and ends with a complete model.
    """

    seed: int = 0
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    checkpoint_minutes: float = 5.0
    minutes: float = 0.0

    key = "recipe key 'run.{}'"
    rules = (
        Rule("seed", "lie in 0..4294967295", lambda own: 0 <= own.seed < 2**32),
        Rule("checkpoint_minutes", "be at least 0", lambda own: own.checkpoint_minutes >= 0),
        Rule("minutes", "be at least 0 (no limit) and finite", lambda own: 0 <= own.minutes < math.inf),
    )


@dataclass(frozen=True)
class LogOptions(Settings):
    """Who is told of a run beside ``log.jsonl``; the last three are extras. ``project`` is what they file it under."""

    to: tuple[Literal["tensorboard", "mlflow", "trackio", "wandb"], ...] = ("tensorboard",)
    project: str = "metatransformer"

    key = "recipe key 'log.{}'"
    rules = (Rule("project", "be named", lambda own: bool(own.project)),)


Fusion = Literal["auto", "tokens", "features", "choose"]


@dataclass(frozen=True, kw_only=True)
class SetOptions:
    """What was learned from one data set where a model has several: its inputs and tasks, and settings of its own."""

    inputs: tuple[str, ...]
    tasks: tuple[str, ...]
    tune: str
    fusion: Fusion
    head: HeadOptions
    optim: OptimOptions
    data: DataOptions


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run: inputs and tasks by name, and what they share.

    ``tune`` says what learns: ``head`` the head alone; ``tokens`` the tokenizer in front of the trunk, by a linear head
    of its own, then the head on what the frozen trunk makes of the tokens; ``ends`` tokenizer and head, through the
    frozen trunk; ``norm`` the trunk's norms and layer scales besides; ``lora`` or ``lora:RANK`` low-rank adapters in
    its attention besides; ``last:K`` the last K blocks that the head needs besides; ``all`` everything. All but
    ``head`` train by epochs; behind a tokenizer that came with the trunk they train through a narrow linear head, and
    then solve the head as mode ``head`` does, on tuned or untuned features, whichever validation prefers; so does
    ``tokens``.

    ``fusion`` says where several inputs meet: as ``tokens``, side by side through the trunk once, or as ``features``
    behind it, each through the trunk by itself ("auto"), which costs less and lets an absent one change no other.
    "choose" tries both in tune mode ``head``, at twice the cost, and keeps what answers training samples best.

    A model that learned from several data sets has ``sets``, each with the settings that its own recipe would have;
    ``of_set`` returns that recipe, and ``tune`` then says what was tuned by all of them in common.
    """

    inputs: Mapping[str, InputOptions]
    tasks: Mapping[str, TaskOptions]
    encoder: str = "meta-b16"
    tune: str = "ends"
    fusion: Fusion = "auto"
    head: HeadOptions = field(default_factory=HeadOptions)
    optim: OptimOptions = field(default_factory=OptimOptions)
    data: DataOptions = field(default_factory=DataOptions)
    run: RunOptions = field(default_factory=RunOptions)
    log: LogOptions = field(default_factory=LogOptions)
    sets: Mapping[str, SetOptions] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tune_mode(self.tune)
        for name in (*self.inputs, *self.tasks):
            if not _NAME.fullmatch(name):
                must = "be called with letters, digits, _ and -"
                raise UsageError("recipe, an input or task", must=must, found=repr(name))
        for name, task in self.tasks.items():
            if bad := [given for given in task.inputs if given not in self.inputs]:
                key, do = f"recipe key 'tasks.{name}.inputs'", nearest(bad[0], self.inputs)
                raise UsageError(key, must="name inputs of the recipe", found=repr(bad[0]), do=do)
            self.head_of(name)

    @classmethod
    def of(cls, tree: Mapping[str, Any], *, known: "Callable[[str], Kind]" = get_modality) -> "Recipe":
        """Returns the recipe of a whole tree of settings, as ``to_dict`` makes it; ``known`` finds a modality.

        Raises:
            UsageError: an unknown key (with the nearest valid one), or a value of the wrong type.
        """
        rest = {key: value for key, value in tree.items() if key not in PLURAL}
        given = tree.get("inputs") or {tree["modality"]: {"modality": tree["modality"], **tree["input"]}}
        inputs = {}
        for name, values in given.items():
            own = {key: value for key, value in values.items() if key not in ("modality", "from")}
            prefix = "input." if len(given) == 1 else f"inputs.{name}."
            options = typed(known(values["modality"]).options, own, prefix=prefix)
            inputs[name] = InputOptions(values["modality"], options, _columns(values, name))
        tasks = {}
        for name, values in (tree["tasks"] if "tasks" in tree else {"": tree["task"]}).items():
            prefix = f"tasks.{name}." if name else "task."
            kind = values.get("name", TaskOptions.name) if isinstance(values, Mapping) else TaskOptions.name
            task = typed(get_task(str(kind)).options, values, prefix=prefix)
            tasks[name or task.name] = task
        sets = {name: typed(SetOptions, own, prefix=f"sets.{name}.") for name, own in tree.get("sets", {}).items()}
        return typed(cls, {**rest, "inputs": inputs, "tasks": tasks, "sets": sets}, prefix="")

    @classmethod
    def joined(cls, parts: "Mapping[str, Recipe]") -> "Recipe":
        """Returns the recipe of a model of several data sets, whose inputs and tasks have different names.

        What all share (encoder, device, precision, seed) is that of the first.
        """
        first = next(iter(parts.values()))
        inputs = {name: one for part in parts.values() for name, one in part.inputs.items()}
        tasks = {name: one for part in parts.values() for name, one in part.tasks.items()}
        sets: dict[str, SetOptions] = {}
        for name, part in parts.items():
            own = SetOptions(
                inputs=tuple(part.inputs),
                tasks=tuple(part.tasks),
                tune=part.tune,
                fusion=part.fusion,
                head=part.head,
                optim=part.optim,
                data=part.data,
            )
            sets |= part.sets or {name: own}
        return cls(
            inputs=inputs, tasks=tasks, encoder=first.encoder, tune="head", run=first.run, log=first.log, sets=sets
        )

    @property
    def input(self) -> Any:
        """The settings of the one input's modality."""
        return only(self.inputs, what="input").options

    @property
    def modality(self) -> str:
        """The modality of the one input."""
        return only(self.inputs, what="input").modality

    @property
    def joint(self) -> bool:
        """Whether a table brings the inputs, each in columns of its own."""
        return len(self.inputs) > 1 or any(given.columns for given in self.inputs.values())

    @property
    def meeting(self) -> tuple[str, ...]:
        """The inputs that others stand beside."""
        groups = [own.inputs for own in self.sets.values()] if self.sets else [tuple(self.inputs)]
        return tuple(name for group in groups if len(group) > 1 for name in group)

    @property
    def apart(self) -> tuple[str, ...]:
        """Those of them that go through the trunk by themselves."""
        return tuple(name for name in self.meeting if self._own(inputs=name).fusion != "tokens")

    @property
    def task(self) -> TaskOptions:
        """The one task."""
        return only(self.tasks, what="task")

    def head_of(self, task: str) -> HeadOptions:
        """Returns the settings of a task's head."""
        changes, shared = self.tasks[task].head, self._own(tasks=task).head
        if not changes:
            return shared
        return typed(HeadOptions, dataclasses.asdict(shared) | dict(changes), prefix=f"tasks.{task}.head.")

    def inputs_of(self, task: str) -> tuple[str, ...]:
        """Returns the inputs that a task sees, in the recipe's order."""
        wanted = self.tasks[task].inputs
        return tuple(name for name in self._own(tasks=task).inputs if not wanted or name in wanted)

    def of_task(self, task: str) -> "Recipe":
        """Returns the recipe with this task alone; its inputs stay those of its data set."""
        own = self.of_set(self.set_of(task))
        return dataclasses.replace(own, tasks={task: self.tasks[task]}, head=self.head_of(task))

    def set_of(self, task: str) -> str:
        """Returns the data set that a task was learned from, "" where there is one."""
        return next((name for name, own in self.sets.items() if task in own.tasks), "")

    def of_set(self, name: str) -> "Recipe":
        """Returns the recipe of what was learned from one data set, an ordinary one; "" is the only one."""
        if not name:
            return self
        own = self.sets[name]
        return dataclasses.replace(
            self,
            inputs={given: self.inputs[given] for given in own.inputs},
            tasks={task: self.tasks[task] for task in own.tasks},
            tune=own.tune if self.tune == "head" else self.tune,
            fusion=own.fusion,
            head=own.head,
            optim=own.optim,
            data=own.data,
            sets={},
        )

    def _own(self, *, tasks: str = "", inputs: str = "") -> "Recipe | SetOptions":
        """Returns the settings that hold for a task or an input: those of its data set, where there are several."""
        return next((own for own in self.sets.values() if tasks in own.tasks or inputs in own.inputs), self)

    def named(self, name: str) -> "Recipe":
        """Returns the recipe with inputs and tasks that are called after their data set: as it, where there is one."""
        inputs = {old: name if len(self.inputs) == 1 else f"{name}-{old}" for old in self.inputs}
        tasks = {
            old: dataclasses.replace(task, inputs=tuple(inputs[given] for given in task.inputs))
            for old, task in self.tasks.items()
        }
        return dataclasses.replace(
            self,
            inputs={inputs[old]: one for old, one in self.inputs.items()},
            tasks={name if len(tasks) == 1 else f"{name}-{old}": task for old, task in tasks.items()},
        )

    def with_columns(self, columns: Mapping[str, Sequence[str]]) -> "Recipe":
        """Returns the recipe with the columns of inputs, by the input's name."""
        changed = {
            name: dataclasses.replace(given, columns=tuple(columns.get(name, given.columns)))
            for name, given in self.inputs.items()
        }
        return dataclasses.replace(self, inputs=changed)

    def with_settings(self, settings: Mapping[str, Mapping[str, Any]]) -> "Recipe":
        """Returns the recipe with other settings of inputs, by the input's name."""
        changed = {
            name: dataclasses.replace(given, options=dataclasses.replace(given.options, **settings.get(name, {})))
            for name, given in self.inputs.items()
        }
        return dataclasses.replace(self, inputs=changed)


T = TypeVar("T")


def only(named: Mapping[str, T], *, what: str) -> T:
    """Returns the one value of a mapping of inputs or tasks by name.

    Raises:
        UsageError: there are several, or none; what was asked for is of one.
    """
    if len(named) != 1:
        raise UsageError("the model", must=f"have one {what} here", found=", ".join(named) or "none")
    return next(iter(named.values()))


def with_tune(recipe: Recipe, tune: str) -> Recipe:
    """Returns the recipe in another tune mode, with a head of one layer where that mode has no other."""
    head, optim = recipe.head, recipe.optim
    if tune_mode(tune)[0] == "head":
        head, optim = dataclasses.replace(head, hidden=0, dropout=0.0), dataclasses.replace(optim, epochs="auto")
    return dataclasses.replace(recipe, tune=tune, head=head, optim=optim)


@runtime_checkable
class Kind(Protocol):
    """What a recipe needs to know of a modality."""

    @property
    def options(self) -> type:
        """The dataclass of its own settings."""
        ...

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Its changes to the general defaults, by dotted key."""
        ...

    @property
    def defaults_for(self) -> Mapping[str, Mapping[str, Any]]:
        """What it changes for a task, by the task's name."""
        ...

    @property
    def task(self) -> str:
        """What is learned of it by default."""
        ...

    def kit(self, name: str, /) -> Kit | None:
        """Returns what it has for tasks of a kit."""
        ...


def make_recipe(
    inputs: str | Mapping[str, str] = "",
    *,
    base: Mapping[str, Any] = NOTHING,
    overrides: Sequence[str] | Mapping[str, Any] = NOTHING,
    defaults: Mapping[str, Any] = NOTHING,
    known: Callable[[str], Kind] = get_modality,
) -> Recipe:
    """Returns the resolved recipe.

    ``inputs`` is a modality (the short form), or modalities by the names of the inputs; "" where ``base`` says them.
    ``base`` is the content of a recipe file, ``overrides`` a mapping of dotted keys or a list of ``key.sub=value``
    texts, ``defaults`` are changes to the modalities' own; ``known`` finds a modality.

    Raises:
        UsageError: an unknown key (with the nearest valid one), or a value of the wrong type.
    """
    chosen = merged(base, parse_overrides(overrides))
    given = _given_inputs(inputs, chosen)
    kinds = {name: known(values["modality"]) for name, values in given.items()}
    usual = next(iter(kinds.values())).task if len(kinds) == 1 else TaskOptions.name
    task = "" if "tasks" in chosen else str(_section(chosen, "task").get("name", usual))
    for_task = _shared([kind.defaults_for.get(task, NOTHING) for kind in kinds.values()])
    defaults = {**for_task, **_for_places(kinds, chosen, usual=usual), **defaults}
    tree = merged(_suited(_agreed(kinds) | dict(defaults), chosen, usual=usual), chosen)
    tree["inputs"] = _with_defaults(kinds, given, tree.pop("input", None), defaults=defaults)
    if "tasks" not in tree:
        tree["task"] = {"name": usual, **_section(tree, "task")}
    elif tree.pop("task", None):
        raise UsageError("recipe", must="have either one task or tasks by name", found="both")
    else:
        _section(tree, "tasks")
    return Recipe.of(tree, known=known)


def _for_places(kinds: Mapping[str, Kind], chosen: Mapping[str, Any], *, usual: str) -> dict[str, Any]:
    """Returns the defaults of a task whose answers are of parts of a sample; nothing where there is none."""
    wanted = "" if "tasks" in chosen else get_task(str(_section(chosen, "task").get("name", usual))).kit
    if not wanted:
        return {}
    own = [kit.defaults for kind in kinds.values() if (kit := kind.kit(wanted)) is not None]
    return {"head.readout": "dense", "head.features": "trunk", **(own[0] if len(own) == len(kinds) == 1 else {})}


def _section(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns what a tree holds below a key, nothing where it has none."""
    found = tree.get(name)
    if not isinstance(found, Mapping | None):
        raise UsageError(f"recipe section '{name}'", must="hold keys", found=repr(found))
    return found or {}


def parse_inputs(given: str | Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the recipe section ``inputs`` of a text like ``photo=image,notes=text(Title),rest=tabular(age,dose)``, or
    of a mapping by name of such modalities: ``"tabular(age,dose)"``, or ``("tabular", ["age", "dose"])``.

    A single input that is no row reads the column of its name, as each of several does.

    Raises:
        UsageError: the text is none, or names an input twice; a value is none of these.
    """
    if isinstance(given, str):
        found = _parsed(given)
    elif isinstance(given, Mapping) and given:
        found = {str(name): _of_kind(value, name=name) for name, value in given.items()}
    else:
        must = "be the name of a modality, or say the modality of each input by its name"
        raise UsageError("modality", must=must, found=repr(given), do="See 'metatransformer modalities'.")
    if len(found) == 1:
        ((name, one),) = found.items()
        if not get_modality(one["modality"]).source.rows:
            one.setdefault("from", [name])
    return found


def _parsed(text: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    place = 0
    for match in _INPUT.finditer(text):
        name, modality, columns = match.groups()
        if match.start() != place or name in found:
            break
        found[name] = _section_of(modality, split_target(columns or ""))
        place = match.end()
    if place < len(text) or not found:
        do = "Columns stand in brackets, with commas between them; a name with a comma in quotation marks."
        must = "look like photo=image,notes=text(Title),rest=tabular(age,dose), each name once"
        raise UsageError("--inputs", must=must, found=repr(text[place:] or text), do=do)
    return found


def _of_kind(value: Any, *, name: object) -> dict[str, Any]:
    """Returns what is said of one input, its modality and perhaps its columns."""
    if isinstance(value, str) and (match := re.fullmatch(_KIND, value, re.ASCII)):
        return _section_of(match[1], split_target(match[2] or ""))
    if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str):
        columns = [value[1]] if isinstance(value[1], str) else value[1]
        if isinstance(columns, tuple | list) and all(isinstance(column, str) for column in columns):
            return _section_of(value[0], columns)
    must = "be a modality, or one with its columns, as 'tabular(age,dose)' or ('tabular', ['age', 'dose'])"
    raise UsageError(f"input '{name}'", must=must, found=repr(value))


def _section_of(modality: str, columns: Sequence[str]) -> dict[str, Any]:
    return {"modality": modality, **({"from": list(columns)} if columns else {})}


def _given_inputs(inputs: str | Mapping[str, str], chosen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns for each input what was given of it, with its modality."""
    plural = _section(chosen, "inputs")
    named = {name: {"modality": item} if isinstance(item, str) else dict(item) for name, item in plural.items()}
    if isinstance(inputs, str):
        modality = inputs or chosen.get("modality", "")
        if inputs and chosen.get("modality", inputs) != inputs:
            raise UsageError("recipe key 'modality'", must=f"be '{inputs}' here", found=repr(chosen["modality"]))
        if modality and named:
            raise UsageError("recipe", must="have either a modality or inputs", found="both")
        named = named or ({modality: {"modality": modality}} if modality else {})
    else:
        for name, modality in inputs.items():
            if named.setdefault(name, {"modality": modality}).setdefault("modality", modality) != modality:
                found = repr(named[name]["modality"])
                raise UsageError(f"recipe key 'inputs.{name}.modality'", must=f"be '{modality}' here", found=found)
    for name, values in named.items():
        if "modality" not in values:
            others = [other for other in named if "modality" in named[other]]
            must, do = "be an input of the recipe, or say its modality", nearest(name, others) if others else ""
            raise UsageError(f"recipe key 'inputs.{name}'", must=must, found="no modality", do=do)
    if not named:
        raise UsageError("recipe", must="say a modality or inputs", found="neither")
    return named


def _columns(given: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Returns the columns that hold an input."""
    columns = given.get("from", ())
    columns = (columns,) if isinstance(columns, str) else columns
    if not isinstance(columns, list | tuple) or not all(isinstance(column, str) for column in columns):
        raise UsageError(f"recipe key 'inputs.{name}.from'", must="name columns", found=repr(columns))
    return tuple(columns)


def _with_defaults(
    kinds: Mapping[str, Kind], given: Mapping[str, Mapping[str, Any]], short: Any, *, defaults: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """Returns all that is said of each input; ``short`` are the settings of the only one, given without its name."""
    short = _section({"input": short}, "input")
    if short and len(kinds) > 1:
        key = next(iter(short))
        do = f"Name the input: {', '.join(f'inputs.{name}.{key}' for name in kinds)}."
        raise UsageError(f"recipe key 'input.{key}'", must="be of the one input", found=f"{len(kinds)} inputs", do=do)
    own = defaults if len(kinds) == 1 else {}
    return {
        name: {**merged(kind.defaults, own).get("input", {}), **given[name], **short} for name, kind in kinds.items()
    }


def _agreed(kinds: Mapping[str, Kind]) -> dict[str, Any]:
    """Returns the defaults on which the modalities of all inputs agree; of several, heads are solved unless they do."""
    agreed = _shared([kind.defaults for kind in kinds.values()])
    return {"tune": "head", **agreed} if len(kinds) > 1 else agreed


def _shared(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the keys that have the same value in all layers."""
    first, *others = layers
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}


def merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Returns dotted keys as one tree; later layers win."""
    tree: dict[str, Any] = {}
    for layer in layers:
        for key, value in layer.items():
            _put(tree, key, value)
    return tree


def _suited(defaults: Mapping[str, Any], chosen: Mapping[str, Any], *, usual: str) -> dict[str, Any]:
    """Returns the defaults beside those of inputs, without what another task than the ``usual`` one, or another tune
    mode, if chosen, cannot use.
    """
    usual = defaults.get("task.name", usual)
    name = str(_section(chosen, "task").get("name", usual))
    known = {item.name for item in dataclasses.fields(get_task(name).options)}
    dropped = {key for key in defaults if name != usual and key.startswith("task.") and key[5:] not in known}
    solved = chosen.get("tune", defaults.get("tune")) == "head"
    dropped |= {"head.hidden", "head.dropout"} if solved else set()
    sections = ("input.", "task.") if "tasks" in chosen else ("input.",)
    return {key: value for key, value in defaults.items() if key not in dropped and not key.startswith(sections)}


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
        UsageError: the file is missing, cannot be parsed, raises an error, or does not hold a mapping.
    """
    where = f"recipe {path}"
    if not path.is_file():
        raise UsageError(where, must="be a YAML or Python file", found="no such file")
    if path.suffix == ".py":
        spec = importlib.util.spec_from_file_location("recipe", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        with users_code(where, path=path):
            spec.loader.exec_module(module)
        if not hasattr(module, "recipe"):
            raise UsageError(where, must="define a function recipe()", found="none")
        with users_code(where, path=path):
            content = module.recipe()
    else:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise UsageError(where, must="be valid YAML in UTF-8", found=str(error)) from error
    if not isinstance(content, Mapping):
        raise UsageError(where, must="hold keys and values", found=type(content).__name__)
    return without_gone(merged(content), usual_only=True)  # a run of an older revision wrote them


def without_gone(tree: Mapping[str, Any], *, usual_only: bool) -> dict[str, Any]:
    """Returns a recipe's tree without settings of older revisions that are no more; ``usual_only``: where they have
    the value at which they change nothing.
    """
    task = tree.get("task")
    name = str(task.get("name", TaskOptions.name)) if isinstance(task, Mapping) else TaskOptions.name
    gone = GONE.keys() - {f"task.{item.name}" for item in dataclasses.fields(get_task(name).options)}

    return {
        section: {
            key: value
            for key, value in values.items()
            if (place := f"{section}.{key}") not in gone or (usual_only and value != GONE[place])
        }
        if isinstance(values, Mapping)
        else values
        for section, values in tree.items()
    }


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Returns the recipe as plain values for YAML and JSON, which ``make_recipe`` takes back as ``base``.

    In the short form where it has one input and one task under their usual names.
    """
    inputs = {
        name: {"modality": one.modality, **({"from": list(one.columns)} if one.columns else {}), **_plain(one.options)}
        for name, one in recipe.inputs.items()
    }
    tasks = {
        name: {key: value for key, value in _plain(one).items() if value not in ([], {})}
        for name, one in recipe.tasks.items()
    }
    tree: dict[str, Any] = {"inputs": inputs}
    if len(inputs) == 1 and recipe.modality in inputs:
        own = inputs[recipe.modality]
        tree = {"modality": own.pop("modality"), "input": own}
    tree |= {"encoder": recipe.encoder, "tune": recipe.tune}
    if len(inputs) > 1:
        tree["fusion"] = recipe.fusion
    usual = len(tasks) == 1 and recipe.task.name in tasks
    tree |= {"task": tasks[recipe.task.name]} if usual else {"tasks": tasks}
    if recipe.log != LogOptions():
        tree["log"] = _plain(recipe.log)
    if recipe.sets:
        return tree | {"sets": {name: _plain(own) for name, own in recipe.sets.items()}, "run": _plain(recipe.run)}
    return tree | {name: _plain(getattr(recipe, name)) for name in ("head", "optim", "data", "run")}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


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
