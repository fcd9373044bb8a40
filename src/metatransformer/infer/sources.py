"""From what a user hands in to records, for any modality."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from metatransformer.core.errors import DataError, MetaTransformerError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.core.samples import Record
from metatransformer.data.index import Index, index_files, index_table, split_records
from metatransformer.data.records import Records, Views
from metatransformer.data.rows import split_target
from metatransformer.infer.loader import require_targets
from metatransformer.machine.console import Console
from metatransformer.pipeline import Reader, read_raw
from metatransformer.recipe import DataOptions, Recipe
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


def continued(modality: Modality, target: str) -> str:
    """Returns the target's column where a prediction needs it too, since it goes on from there; else nothing."""
    return target if modality.source.continues else ""


def settled(recipe: Recipe, index: Index) -> Recipe:
    """Returns the recipe with the modality's settings that the data decided, so that a model reads other data alike."""
    return replace(recipe, input=replace(recipe.input, **index.settings))


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


def without_column(index: Index, name: str) -> Index:
    """Returns the index of a table without the target (several: with commas), which a prediction must not see."""
    names = {name} if name in index.columns else set(split_target(name)) & set(index.columns)
    if not names:
        return index
    table = index.records.table
    assert table is not None
    columns = tuple(column for column in index.columns if column not in names)
    values = table.select({name: name for name in columns})
    return replace(index, records=index.records.replace(values=values), columns=columns)


def split_index(index: Index, recipe: Recipe, *, console: Console) -> Index:
    """Returns the index with a split for every record, made where the data brings none, and says so.

    Raises:
        DataError: what ``split_records`` refuses, or what is no target of the task.
    """
    task, data, usual = get_task(recipe.task.name), recipe.data, DataOptions()
    require_targets(task(recipe.task), index.records)
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


def check_records(reader: Reader, records: Sequence[Record], *, console: Console) -> list[tuple[str, str]]:
    """Reads every record as ``fit`` would and returns ``(key, message)`` of each that is bad."""
    problems: list[tuple[str, str]] = []
    good: list[int] = []
    records = Records.of(records)
    with console.bar("reading", total=len(records)) as bar:
        for place, record in enumerate(records):
            try:
                read_raw(reader.modality, record)
                good.append(place)
            except MetaTransformerError as error:
                problems.append((record.key, str(error)))
            bar.advance()
    if not good:
        return problems
    try:
        reader.transform.fit(Views(records.take(good), load=reader.modality.load))
    except MetaTransformerError as error:
        return [*problems, ("the data as a whole", str(error))]
    with console.bar("checking", total=len(good)) as bar:
        for record in records.take(good):
            try:
                reader.sample(record)
            except MetaTransformerError as error:
                problems.append((record.key, str(error)))
            bar.advance()
    return problems


def saved_model(run: Path) -> Path:
    """Returns the model folder of a run folder, or the folder itself when it is a model.

    Raises:
        DataError: the run was not finished and has no model yet.
    """
    if (run / "run.json").is_file() and not (run / "model" / "model.json").is_file():
        raise DataError(
            run,
            must="be a finished run",
            found="one that was interrupted before it had a model",
            do="Continue it with the same 'fit' command.",
        )
    return run / "model" if (run / "model" / "model.json").is_file() else run
