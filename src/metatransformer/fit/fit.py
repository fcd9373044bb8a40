"""Fit: from a data set and a recipe to a trained, scored, saved pipeline."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from metatransformer.core.errors import DataError
from metatransformer.core.samples import SPLITS, Record
from metatransformer.core.task import Task
from metatransformer.data.identity import data_identity
from metatransformer.data.records import Records, Views
from metatransformer.data.write import write_table
from metatransformer.fit.adapt import fit_by_epochs
from metatransformer.fit.fitted import Fitted
from metatransformer.fit.memo import Memo
from metatransformer.fit.run import RunFolder
from metatransformer.fit.solve import fit_head
from metatransformer.fit.train import join_processes, wait_for_all
from metatransformer.infer.evaluate import compute_outputs, score_outputs
from metatransformer.infer.loader import Loader, require_targets
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, Reader, build_pipeline, make_task
from metatransformer.recipe import Recipe, keeps_trunk
from metatransformer.trunk import load_encoder
from metatransformer.trunk.encoder import Encoder


def fit(
    records: Sequence[Record],
    recipe: Recipe,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    memo: Memo | None = None,
    console: Console,
) -> Fitted:
    """Trains on the records of split ``train``, chooses on ``val``, scores on both and on ``test`` where there is one.

    ``out`` is the run folder; an unfinished run in it is continued. ``memo`` holds what other fits computed of records
    of the same data set.

    Raises:
        MetaTransformerError: whatever the user must change: data, recipe, weights, folder.
    """
    choose_device(recipe.run.device)  # refused before anything is read
    place = join_processes()
    console = console if place.rank == 0 else Console(quiet=True)
    modality = get_modality(recipe.modality)
    parts = _parts(Records.of(records), task=make_task(recipe, modality=modality))
    trunk = load_encoder(recipe.encoder)
    identity = {"data": data_identity(records), "weights": trunk.sha256}
    run = None if out is None else RunFolder(out, place=place)
    if run is not None and place.rank == 0:
        run.check(recipe, identity=identity, overwrite=overwrite)
    pipeline = build_pipeline(
        recipe,
        modality=modality,
        trunk=trunk,
        samples=Views(parts["train"], load=modality.load),
        targets=parts["train"].targets,
    )
    for note in pipeline.transform.notes:
        console.note(note)
    frozen_bytes = pipeline.trunk.encoder.bytes_hash()
    say_what_learns(pipeline, console)
    reader = pipeline.reader if memo is None else memo.reader(pipeline)
    loaders = _loaders(pipeline, parts, reader, console)
    if run is not None:
        # Not before all data was read: bad data leaves no folder behind, and the run to be overwritten stays. The
        # first process opens the folder, then the others see it complete.
        if place.rank == 0 and run.open(recipe, identity=identity, overwrite=overwrite):
            console.note(f"continuing the unfinished run in {out}")
        wait_for_all(place)
    fitted = Fitted(pipeline, loaders)
    if recipe.tune == "head":
        fit_head(fitted, run=run, place=place, memo=memo, console=console)
    else:
        fit_by_epochs(fitted, run=run, place=place, memo=memo, console=console)
    if keeps_trunk(recipe.tune):
        require_unchanged(pipeline.trunk.encoder, frozen_bytes)
    _score(fitted, console)
    if run is not None:
        _write(fitted, run)
    return fitted


def _require_scores(task: Task, loaders: Mapping[str, Loader]) -> None:
    """Raises DataError where the metric cannot be had on a split: now, not when the training is done."""
    for split in ("val", "test"):
        loader = loaders.get(split)
        if loader is not None and loader.target is not None and len(loader):
            try:
                scores = task.metrics(task.constant().expand(len(loader), -1), loader.target)
            except DataError as error:
                where = f"split '{split}', {error.where}"
                raise DataError(where, must=error.must, found=error.found, do=error.do) from error
            if not math.isfinite(scores[task.primary]):
                where, found = f"split '{split}', metric '{task.primary}'", f"{len(loader)} samples"
                raise DataError(where, must="be a number there", found=found, do="Give the split more samples.")


def require_unchanged(encoder: Encoder, bytes_before: str) -> None:
    """Raises an assertion when training has touched a frozen trunk: that would be a bug, not a user's mistake."""
    assert encoder.bytes_hash() == bytes_before, "the frozen trunk changed during training"


def say_what_learns(pipeline: Pipeline, console: Console) -> None:
    """Prints trunk, tune mode and the trainable parameters of the complete model."""
    counts = pipeline.model.parameter_counts()
    learns = " / ".join(f"{part} {n['trainable']:,}" for part, n in counts.items())
    trunk = counts["trunk"]["total"]
    mode = pipeline.recipe.tune
    console.note(f"trunk {pipeline.trunk.name} ({trunk:,} parameters), tune mode {mode}")
    console.note(f"trainable parameters: {learns}")
    if pipeline.recipe.head.centres and not pipeline.solves:
        console.note("the head is linear here, not a kernel (head.centres): it is trained by epochs from a fresh start")
    tokenizer = pipeline.model.tokenizer(pipeline.modality.name)
    if mode == "head" and not tokenizer.native and pipeline.modality.defaults.get("tune") == "head":
        console.note(
            f"the {pipeline.modality.name} tokenizer keeps its random start, the default here; --tune ends trains it, "
            "at many times the cost"
        )
    elif mode == "head" and not tokenizer.native:
        console.warn(
            f"tune mode 'head' freezes the {pipeline.modality.name} tokenizer, which has random weights here; "
            "use --tune ends to train it"
        )


def _parts(records: Records, *, task: Task) -> dict[str, Records]:
    """Returns the records by split; raises DataError for a split without any, and for what is no target of the task."""
    parts = {name: records.in_split(name) for name in SPLITS}
    for name in ("train", "val"):
        if not parts[name]:
            raise DataError("data", must=f"have samples in the split '{name}'", found="none")
    require_targets(task, records)
    return parts


def _loaders(pipeline: Pipeline, parts: dict[str, Records], reader: Reader, console: Console) -> dict[str, Loader]:
    total = sum(len(records) for records in parts.values())
    loaders = {}
    for name, records in parts.items():
        if records:
            cache = pipeline.recipe.data.cache_mb * len(records) // total
            loaders[name] = Loader(reader, records, cache_mb=cache, task=pipeline.task)
            loaders[name].prepare(console, title=f"{name} samples")
    _require_scores(pipeline.task, loaders)
    return loaders


def _score(fitted: Fitted, console: Console) -> None:
    """Scores what fitting has not computed already."""
    for name in ("val", "test"):
        if name not in fitted.loaders:
            continue
        loader = fitted.loaders[name]
        if name not in fitted.outputs:
            fitted.outputs[name] = compute_outputs(fitted.pipeline, loader, console=console, title=f"scoring {name}")
        if loader.target is not None:
            fitted.metrics[name] = score_outputs(fitted.pipeline, loader, fitted.outputs[name])


def _write(fitted: Fitted, run: RunFolder) -> None:
    """Writes model, predictions and metrics; ``run.finish`` comes last and marks the run as done."""
    if not run.writes:
        return
    from metatransformer.infer.predict import arrange, illustrate, prediction_table
    from metatransformer.report.page import write_report

    fitted.pipeline.save(run.path / "model", metrics=fitted.metrics)
    tables = []
    for name, outputs in fitted.outputs.items():
        records = fitted.loaders[name].records
        table = prediction_table(fitted.pipeline, records, outputs, split=name)
        illustrate(fitted.pipeline.modality, records, table, run.path / "pictures" / name)
        tables.append(arrange(fitted.pipeline.modality, records, table))
    import pandas as pd

    write_table(run.path / "predictions.parquet", pd.concat(tables, ignore_index=True))
    write_report(fitted, run.path / "report.html")
    counts = fitted.pipeline.model.parameter_counts()
    run.finish({"metrics": fitted.metrics, "parameters": counts, "history": fitted.history})
