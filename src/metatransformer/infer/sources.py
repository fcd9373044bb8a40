"""From what a user hands in to records, for any modality."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatransformer.core.errors import MetaTransformerError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.core.samples import Record
from metatransformer.data.examples import Examples
from metatransformer.data.folder import scan
from metatransformer.data.index import Index, index_files, index_table, split_records
from metatransformer.data.records import Records, Table, Views, natural_key
from metatransformer.data.rows import split_target
from metatransformer.infer.loader import require_targets
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Reader
from metatransformer.recipe import DataOptions, Recipe, only
from metatransformer.tasks import get_task


def read_index(
    modality: Modality, data: Any, *, options: Any, target: str = "", labelled: bool, header: bool = True
) -> Index:
    """Returns the records of a folder, manifest, table, list of files, list of arrays or DataFrame.

    ``options`` are the modality's own settings; ``target`` names the column to learn; ``labelled`` demands one.

    Raises:
        DataError: see ``data.index``.
        UsageError: a table to learn from without ``target``.
    """
    if modality.source.index is not None:
        return modality.source.index(data, target=target, labelled=labelled, header=header, options=options)
    if modality.source.kind == "table":
        if labelled and not target:
            raise UsageError("--target", must="name the column to learn for a table", found="nothing")
        return index_table(data, target=target or None, header=header)
    return index_files(
        data,
        suffixes=modality.source.suffixes,
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
    index = read_index(modality, data, options=given.options, target=known, labelled=False, header=header)
    table = index.records.values
    if not isinstance(table, Table):
        return index
    names = {target} if target in index.columns else set(split_target(target)) & set(index.columns)
    if not names:
        return index
    columns = tuple(column for column in index.columns if column not in names)
    values = table.select({name: name for name in columns})
    return replace(index, records=index.records.replace(values=values), columns=columns)


def settled(recipe: Recipe, index: Index) -> Recipe:
    """Returns the recipe with the modality's settings that the data decided, so that a model reads other data alike."""
    (name,) = recipe.inputs
    return recipe.with_settings({name: index.settings})


def with_targets(index: Index, targets: Sequence[Any]) -> Index:
    """Returns the index with targets that were handed in beside the data.

    Raises:
        UsageError: another number of them.
    """
    if len(targets) != len(index.records):
        raise UsageError(
            "y", must=f"have one entry for each of the {len(index.records)} samples", found=str(len(targets))
        )
    return replace(index, records=index.records.replace(targets=targets))


def split_index(index: Index, recipe: Recipe, *, console: Console) -> Index:
    """Returns the index with a split for every record, made where the data brings none, and says so.

    Raises:
        DataError: what ``split_records`` refuses, or what is no target of the task.
        UsageError: settings that can have no effect on this data.
    """
    task, data, usual = get_task(recipe.task.name), recipe.data, DataOptions()
    for where, why in (*index.idle, *_idle_fractions(index, data, usual=usual, sequential=task.sequential)):
        raise UsageError(where, must="be left alone here", found=f"a setting, where {why}", do="Leave it out.")
    (name,) = recipe.tasks
    require_targets(task(recipe.task), examples_of(index.records, recipe), name=name)
    if task.sequential and (data.val_fraction, data.test_fraction) != (usual.val_fraction, usual.test_fraction):
        raise UsageError(
            "data.val_fraction / data.test_fraction",
            must=f"be left alone for a {task.title}, whose splits follow time",
            found=f"{data.val_fraction:g} / {data.test_fraction:g}",
            do="Set input.rows, for example input.rows=[0.7,0.15,0.15].",
        )
    split = split_records(
        index.records,
        val_fraction=data.val_fraction,
        test_fraction=data.test_fraction,
        seed=recipe.run.seed,
        stratify=task.stratified,
    )
    for note in (*index.notes, *split.notes):
        console.note(note)
    return split


def _idle_fractions(
    index: Index, data: DataOptions, *, usual: DataOptions, sequential: bool
) -> Iterator[tuple[str, str]]:
    """Yields the fractions that were given and can have no effect, since the data brings splits, with the reason."""
    given = set(index.records.splits) - {None}
    if not given or sequential:
        return
    if "val" in given and data.val_fraction not in (0, usual.val_fraction):
        yield "data.val_fraction", "the data brings its split 'val'"
    if data.test_fraction not in (0, usual.test_fraction):
        yield "data.test_fraction", "no test is cut from a split 'train' that the data brings"


def prepared(index: Index, recipe: Recipe, *, console: Console) -> tuple[Examples, Recipe]:
    """Returns the samples of one input with targets of one task, each with a split, and the recipe with the settings
    that the data decided.
    """
    recipe = settled(recipe, index)
    return examples_of(split_index(index, recipe, console=console).records, recipe), recipe


def examples_of(records: Sequence[Record], recipe: Recipe) -> Examples:
    """Returns the records of the recipe's one input, with the targets of its one task."""
    (given,), (task,) = recipe.inputs, recipe.tasks
    return Examples.of(records, input=given, task=task)


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
