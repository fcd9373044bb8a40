"""From what a user hands in to records, for any modality."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, MetaTransformerError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.core.samples import Record
from metatransformer.core.task import TaskOptions, Told
from metatransformer.data.examples import Examples
from metatransformer.data.folder import scan
from metatransformer.data.given import Files, Folder, recognise
from metatransformer.data.index import Index, index_files, index_table, split_records
from metatransformer.data.records import Records, Table, Views, counted, natural_key
from metatransformer.data.rows import split_target
from metatransformer.infer.loader import require_targets
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_names
from metatransformer.pipeline import Reader
from metatransformer.recipe import DataOptions, Recipe, only
from metatransformer.tasks import get_task


def read_index(
    modality: Modality,
    data: Any,
    *,
    options: Any,
    target: str = "",
    labelled: bool,
    header: bool = True,
    task: TaskOptions | None = None,
) -> Index:
    """Returns the records of a folder, manifest, table, list of files, list of arrays or DataFrame.

    ``options`` are the modality's own settings; ``target`` names the column to learn; ``labelled`` demands one;
    ``task`` is what is to be learned, where labels of places lie elsewhere than those of samples.

    Raises:
        DataError: see ``data.index``.
        UsageError: a table to learn from without ``target``, or a task for which the modality has nothing.
    """
    if task is not None and (wanted := get_task(task.name).kit):
        kit = modality.kit(wanted)
        if kit is None:
            able = [name for name in modality_names() if get_modality(name).kit(wanted)]
            must = f"be one that {modality.name} has; '{task.name}' is of {', '.join(able)}"
            raise UsageError("--task", must=must, found=repr(task.name))
        labels = getattr(task, "labels", "")
        return kit.index(data, options=options, labelled=labelled, labels=labels, target=target)
    if modality.source.index is not None:
        return modality.source.index(data, target=target, labelled=labelled, header=header, options=options)
    if modality.source.kind == "table":
        if labelled and not target:
            raise UsageError("--target", must="name the column to learn for a table", found="nothing")
        return index_table(data, target=target or None, header=header)
    given = recognise(data)
    named = not isinstance(given, Folder | Files) or (
        isinstance(given, Files) and not any(map(Path.is_dir, given.paths))
    )
    return index_files(
        given,
        suffixes=(*modality.source.suffixes, *(modality.source.inside if named else ())),
        label_column=target or "label",
        require_labels=labelled,
        parts=modality.source.parts,
    )


def read_unlabelled(recipe: Recipe, data: Any) -> Index:
    """Returns the records of the one input to predict or embed; no label plays a part, and a table's column of the
    target (several: with commas) is not in them.

    Raises:
        DataError: see ``data.index``.
    """
    given, target = only(recipe.inputs, what="input"), only(recipe.tasks, what="task").target
    modality, header = get_modality(given.modality), recipe.data.header
    known = target if modality.source.continues else ""  # a forecast goes on from it
    task = only(recipe.tasks, what="task")
    index = read_index(modality, data, options=given.options, target=known, labelled=False, header=header, task=task)
    table = index.records.values
    if not isinstance(table, Table):
        return index
    names = {target} if target in index.columns else set(split_target(target)) & set(index.columns)
    if not names:
        return index
    columns = tuple(column for column in index.columns if column not in names)
    values = table.select({name: name for name in columns})
    return replace(index, records=index.records.replace(values=values), columns=columns)


@dataclass(frozen=True)
class Dataset:
    """The samples of what a user handed in, and the recipe with all that the data decided.

    ``notes`` are sentences for a person, ``columns`` those of a table that are read, ``idle`` as of ``Index``.
    """

    examples: Examples
    recipe: Recipe
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    idle: tuple[tuple[str, str], ...] = ()

    def with_targets(self, targets: Sequence[Any]) -> "Dataset":
        """Returns the data set with targets of its one task that were handed in beside the data.

        Raises:
            UsageError: another number of them.
        """
        count, task = len(self.examples), only({name: name for name in self.recipe.tasks}, what="task")
        if len(targets) != count:
            raise UsageError("y", must=f"have one entry for each of the {count} samples", found=str(len(targets)))
        return replace(self, examples=replace(self.examples, targets={task: targets}))

    def received(self) -> "Dataset":
        """Returns the data set with targets, splits and groups as its tasks take them.

        Raises:
            DataError: splits that only other tasks have.
        """
        examples = self.examples
        for name, options in self.recipe.tasks.items():
            told = Told(examples.targets.get(name, [None] * len(examples)), examples.splits, examples.groups)
            told = get_task(options.name).receive(told)
            targets = {**examples.targets, name: told.targets} if name in examples.targets else examples.targets
            examples = replace(examples, targets=targets, splits=told.splits, groups=told.groups)
        return replace(self, examples=examples)


def of_index(index: Index, recipe: Recipe) -> Dataset:
    """Returns the data set of the recipe's one input; the settings that the data decided are in its recipe, so that a
    model reads other data alike.
    """
    (name,) = recipe.inputs
    recipe = recipe.with_settings({name: index.settings})
    return Dataset(examples_of(index.records, recipe), recipe, index.notes, index.columns, index.idle)


def prepared(index: Index, recipe: Recipe, *, console: Console) -> tuple[Examples, Recipe]:
    """Returns what ``split_dataset`` does of the records of one input."""
    return split_dataset(of_index(index, recipe), console=console)


def split_dataset(data: Dataset, *, console: Console) -> tuple[Examples, Recipe]:
    """Returns the samples, each with a split, made where the data brings none, and the recipe; says what was made.

    Classes are shared out evenly where there is one task.

    Raises:
        DataError: what ``split_records`` refuses, what is no target of a task, an input that no training sample has.
        UsageError: settings that can have no effect on this data.
    """
    data = data.received()
    examples, recipe, fractions = data.examples, data.recipe, data.recipe.data
    tasks = {name: get_task(options.name) for name, options in recipe.tasks.items()}
    sequential = next((task for task in tasks.values() if task.sequential), None)
    for where, why in (*data.idle, *_idle_fractions(examples, fractions, sequential=sequential is not None)):
        raise UsageError(where, must="be left alone here", found=f"a setting, where {why}", do="Leave it out.")
    for name, task in tasks.items():
        require_targets(task(recipe.tasks[name]), examples, name=name)
    if sequential is not None:
        _require_usual(fractions, title=sequential.title)
    one = next(iter(tasks)) if len(tasks) == 1 else ""
    records = Records(examples.keys) if recipe.joint else only(examples.inputs, what="input").records
    split = split_records(
        records.replace(targets=examples.targets.get(one), splits=examples.splits, groups=examples.groups),
        val_fraction=fractions.val_fraction,
        test_fraction=fractions.test_fraction,
        seed=recipe.run.seed,
        stratify=bool(one) and tasks[one].stratified,
    )
    for note in (*data.notes, *split.notes):
        console.note(note)
    examples = replace(examples, splits=split.records.splits, drawn=split.records.drawn)
    for name in recipe.inputs:
        require_seen(examples, name)
    return examples, recipe


def _require_usual(fractions: DataOptions, *, title: str) -> None:
    usual = DataOptions()
    if (fractions.val_fraction, fractions.test_fraction) != (usual.val_fraction, usual.test_fraction):
        raise UsageError(
            "data.val_fraction / data.test_fraction",
            must=f"be left alone for a {title}, whose splits follow time",
            found=f"{fractions.val_fraction:g} / {fractions.test_fraction:g}",
            do="Set input.rows, for example input.rows=[0.7,0.15,0.15].",
        )


def require_seen(examples: Examples, name: str) -> None:
    """Raises DataError for an input that no sample to learn from has: nothing could be learned of it."""
    learned = np.array([split in ("train", None) for split in examples.splits])
    places = examples.inputs[name].places
    if places is not None and not (places[learned] >= 0).any():
        must, do = f"bring the input '{name}' in some sample to learn from", "Leave the input out."
        raise DataError("the data", must=must, found=f"none in {counted(int(learned.sum()), 'sample')}", do=do)


def _idle_fractions(examples: Examples, data: DataOptions, *, sequential: bool) -> Iterator[tuple[str, str]]:
    """Yields the fractions that were given and can have no effect, since the data brings splits, with the reason."""
    given, usual = set(examples.splits) - {None}, DataOptions()
    if not given or sequential:
        return
    if "val" in given and data.val_fraction not in (0, usual.val_fraction):
        yield "data.val_fraction", "the data brings its split 'val'"
    if data.test_fraction not in (0, usual.test_fraction):
        yield "data.test_fraction", "no test is cut from a split 'train' that the data brings"


def examples_of(records: Sequence[Record], recipe: Recipe) -> Examples:
    """Returns the records of the recipe's one input, with the targets of its one task."""
    (given,), (task,) = recipe.inputs, recipe.tasks
    return Examples.of(records, input=given, task=task)


def named(examples: Examples, recipe: Recipe, name: str) -> tuple[Examples, Recipe]:
    """Returns samples and recipe with inputs and tasks that are called after their data set (``Recipe.named``)."""
    other = recipe.named(name)
    inputs = dict(zip(other.inputs, examples.inputs.values(), strict=True))
    targets = dict(zip(other.tasks, examples.targets.values(), strict=True))
    return replace(examples, inputs=inputs, targets=targets), other


def check_records(reader: Reader, records: Sequence[Record], *, console: Console) -> list[tuple[str, str]]:
    """Reads every record as ``fit`` would and returns ``(key, message)`` of each that is bad.

    The transform learns from the split ``train``, where records have one.
    """
    problems: list[tuple[str, str]] = []
    good: list[int] = []
    records = Records.of(records)
    with console.bar("reading", total=len(records)) as bar:
        for place, record in enumerate(records):
            try:
                reader.raw(record)
                good.append(place)
            except MetaTransformerError as error:
                problems.append((record.key, str(error)))
            bar.advance()
    if not good:
        return problems
    try:
        learned = [place for place in good if records.splits[place] in (None, "train")] or good
        reader.transform.fit(Views(records.take(learned), load=reader.modality.load))
    except MetaTransformerError as error:
        return [*problems, ("the data as a whole", str(error))]
    for note in reader.transform.notes:
        console.note(note)
    with console.bar("checking", total=len(good)) as bar:
        for record in records.take(good):
            try:
                reader.view(record)
            except MetaTransformerError as error:
                problems.append((record.key, str(error)))
            bar.advance()
    for doubt in reader.transform.doubts():
        console.note(doubt)
    return problems


def check_apart(
    read: Callable[[Path], Index], reader: Reader, folder: Path, *, console: Console
) -> tuple[int, list[tuple[str, str]]]:
    """Reads every file below a folder by itself, where one of them keeps all of them from being indexed together.

    Returns how many samples there were, and ``(key, message)`` of each file or sample that is bad.
    """
    names, _ = scan(folder, suffixes=reader.modality.source.suffixes)
    count, problems = 0, []
    with console.bar("reading each file by itself", total=len(names)) as bar:
        for name in sorted(names, key=natural_key):
            try:
                records = read(folder / name).records
                problems += check_records(reader, records, console=Console(quiet=True))
                count += len(records)
            except MetaTransformerError as error:
                problems.append((name, str(error)))
            bar.advance()
    return count, problems
