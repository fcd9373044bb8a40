"""What a modality takes and does, in words: for ``metatransformer modalities``, ``describe`` and the README.

Everything here is read from the ``Modality`` constants and their modules; no fact is written twice.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from metatransformer.core.modality import Modality
from metatransformer.machine.versions import missing_packages
from metatransformer.modalities import get_modality, modality_module, modality_names
from metatransformer.recipe import Recipe
from metatransformer.tasks import get_task, task_names

SHORT = ("modality", "files", "task, metric", "other tasks", "tune", "needs")
COLUMNS = ("modality", "data", "files", "taken from the trunk", "task, metric", "tune", "needs")


def modality_table(modalities: Iterable[Modality]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Returns the columns and one short row a modality; the last column says what is still to be installed here."""
    rows = []
    for modality in modalities:
        state = "installed" if modality.requires else "-"
        if missing_packages(modality.requires):
            state = _needs(modality)
        others = ", ".join(name for name in tasks_of(modality) if name != modality.task)
        rows.append((modality.name, _files(modality), _task(modality), others, default_tune(modality), state))
    return list(SHORT), rows


def tasks_of(modality: Modality) -> list[str]:
    """Returns the tasks that a modality's samples can have by themselves."""
    found = []
    for name in task_names():
        task = get_task(name)
        able = modality.kit(task.kit) is not None if task.kit else not task.sequential or modality.task == name
        found += [name] if able else []
    return found


def markdown_table() -> str:
    """Returns the full table of modalities as Markdown, the same on every machine."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for modality in map(get_modality, modality_names()):
        page = f"[{modality.name}](docs/modalities/{modality.name}.md)"
        about = (page, modality.summary, _files(modality), modality.native)
        lines.append((*about, _task(modality), default_tune(modality), _needs(modality)))
    rows = (" | ".join(cell.replace("|", "\\|") for cell in line) for line in lines)
    return "".join(f"| {row} |\n" for row in rows)


def describe(name: str) -> str:
    """Returns all that a person needs to use a modality: files, units, tokens, settings with defaults, an example.

    Raises:
        UsageError: there is no modality of that name.
    """
    modality = get_modality(name)
    doc = inspect.getdoc(modality_module(name)) or ""
    fields = [f"{field} {declared.describe()}" for field, declared in modality.fields.items()]
    facts = [
        ("accepts", _files(modality)),
        ("beside others", beside(modality)),
        ("units", modality.units),
        ("task", f"{modality.task}, judged by {modality.metric}; plain baseline: {modality.baseline}"),
        ("from the trunk", modality.native),
    ]
    if modality.boxed is not None:
        facts.insert(3, ("also", f"--task detect: objects, {modality.boxed.files}"))
    if modality.dense is not None:
        facts.insert(3, ("also", f"--task segment: a class for every place, in and out as {modality.dense.files}"))
    if modality.requires:
        missing = missing_packages(modality.requires)
        state = f"missing: {', '.join(missing)}" if missing else "installed"
        facts.append(("needs", f"{', '.join(modality.requires)} ({state}); {_needs(modality)}"))
    width = max(len(label) for label, _ in facts)
    parts = [
        f"{modality.name}: {modality.summary}",
        "\n".join(f"  {label:<{width}}  {text}" for label, text in facts),
        doc,
        _block("What the tokenizer gets", fields),
        _block("Settings (change them with input.NAME=VALUE)", _settings(modality), _doc(modality.options)),
        _block("Recipe defaults of this modality", _defaults(modality.defaults)),
        _block("Example", [example(modality)]),
    ]
    return "\n\n".join(part for part in parts if part)


def example(modality: Modality) -> str:
    """Returns a command line that fits this modality."""
    usual = "data.csv --target COLUMN" if modality.source.kind == "table" else f"{modality.name}/"
    data, _, target = (modality.example or usual).partition(" ")
    words = f"{target} --encoder" if target else "--encoder"
    return f"metatransformer fit {data} --modality {modality.name} {words} focus-s14 --out run"


def beside(modality: Modality) -> str:
    """Returns how this modality is one of several inputs."""
    cell = "what is in it, or the name of a file"
    if modality.source.rows:
        return (
            f"--inputs NAME={modality.name}(COLUMN,...): those columns of each row, without brackets all that are left"
        )
    if modality.source.kind == "files":
        cell = "the name of a file, in a DataFrame perhaps an array"
    return f"--inputs NAME={modality.name}(COLUMN), one sample a cell: {cell}; an empty cell is an absent input"


def default_tune(modality: Modality) -> str:
    """Returns the tune mode that ``fit`` takes when none is named."""
    return str(modality.defaults.get("tune", Recipe.tune))


def _task(modality: Modality) -> str:
    return f"{modality.task}, {modality.metric}"


def _files(modality: Modality) -> str:
    suffixes = modality.source.suffixes
    text = " ".join(suffix or "(no ending)" for suffix in suffixes if not suffix.endswith(".gz"))
    return f"{text}, also .gz" if any(suffix.endswith(".gz") for suffix in suffixes) else text


def _needs(modality: Modality) -> str:
    return f"pip install 'metatransformer[{modality.extra}]'" if modality.extra else "-"


def _settings(modality: Modality) -> list[str]:
    rows = []
    for item in dataclasses.fields(modality.options):
        if item.default is not dataclasses.MISSING:
            value = item.default
        else:
            assert item.default_factory is not dataclasses.MISSING, f"input.{item.name} has no default"
            value = item.default_factory()
        value = modality.defaults.get(f"input.{item.name}", value)  # the recipe's comes before the options' own
        rows.append((f"input.{item.name} = {_value(value)}", _kind(item.type)))
    width = max((len(left) for left, _ in rows), default=0)
    return [f"{left:<{width}}   {kind}" for left, kind in rows]


def _kind(kind: Any) -> str:
    """Returns the type of a setting in words: the valid choices where they are few."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, arguments))
    if get_origin(kind) in (tuple, list):
        return f"list of {_kind(arguments[0])}"
    if arguments:
        return " or ".join(map(_kind, arguments))
    words = {int: "whole number", float: "number", bool: "true or false", str: "text", type(None): "null"}
    return words.get(kind, getattr(kind, "__name__", str(kind)))


def _defaults(tree: Mapping[str, Any], *, prefix: str = "") -> list[str]:
    lines: list[str] = []
    for key, value in tree.items():
        if isinstance(value, Mapping):
            lines += _defaults(value, prefix=f"{prefix}{key}.")
        else:
            lines.append(f"{prefix}{key} = {_value(value)}")
    return lines


def _value(value: Any) -> str:
    """Returns a value as it is written behind ``key=`` on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return "null" if value is None else str(value)


def _doc(kind: type) -> str:
    return inspect.getdoc(kind) or ""


def _block(title: str, lines: Sequence[str], text: str = "") -> str:
    """Returns a titled, indented block, nothing when there is nothing to say."""
    if not lines:
        return ""
    more = ["", *text.splitlines()] if text else []
    return "\n".join([title, *_indented([*lines, *more])])


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}".rstrip() for line in lines]
