"""Fit: from a data set and a recipe to a trained, scored, saved pipeline."""

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import SPLITS, Record
from metatransformer.encoder import Encoder
from metatransformer.engine.choose import (
    FOLDS,
    Choice,
    Known,
    best_of,
    by_folds,
    by_validation,
    drawn_from_few,
    folds_of,
    is_closed,
)
from metatransformer.engine.console import Console
from metatransformer.engine.data import Loader, Place, require_targets
from metatransformer.engine.device import choose_device
from metatransformer.engine.evaluate import compute_features, compute_outputs, score_outputs
from metatransformer.engine.memo import Memo
from metatransformer.engine.run import RunFolder, data_identity
from metatransformer.engine.train import Trainer, join_processes, wait_for_all
from metatransformer.io.write import atomic_file, write_table
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, Reader, build_pipeline, make_task, read_raw
from metatransformer.recipe import Recipe, keeps_trunk
from metatransformer.tasks import Task
from metatransformer.weights import load_encoder

_log = logging.getLogger(__name__)


@dataclass
class Fitted:
    """A trained pipeline with its scores: ``metrics[split][name]``, and what was logged on the way.

    ``kept`` is the position in ``history`` of the head or epoch that was kept, None where nothing was trained.
    """

    pipeline: Pipeline
    loaders: dict[str, Loader]
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: int | None = None
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)


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
    parts = _parts(records, task=make_task(recipe, modality=modality))
    trunk = load_encoder(recipe.encoder)
    identity = {"data": data_identity(records), "weights": trunk.sha256}
    run = None if out is None else RunFolder(out, place=place)
    if run is not None and place.rank == 0:
        run.check(recipe, identity=identity, overwrite=overwrite)
    pipeline = build_pipeline(
        recipe,
        modality=modality,
        trunk=trunk,
        samples=(read_raw(modality, record) for record in parts["train"]),
        targets=[record.target for record in parts["train"]],
    )
    for note in pipeline.transform.notes:
        console.note(note)
    frozen_bytes = trunk.encoder.bytes_hash()
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
        _fit_head(fitted, run=run, place=place, memo=memo, console=console)
    else:
        _fit_ends(fitted, run=run, place=place, console=console)
    if keeps_trunk(recipe.tune):
        require_unchanged(trunk.encoder, frozen_bytes)
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


def _parts(records: Sequence[Record], *, task: Task) -> dict[str, list[Record]]:
    """Returns the records by split; raises DataError for a split without any, and for what is no target of the task."""
    parts = {name: [r for r in records if r.split == name] for name in SPLITS}
    for name in ("train", "val"):
        if not parts[name]:
            raise DataError("data", must=f"have samples in the split '{name}'", found="none")
    require_targets(task, records)
    return parts


def _loaders(pipeline: Pipeline, parts: dict[str, list[Record]], reader: Reader, console: Console) -> dict[str, Loader]:
    total = sum(len(records) for records in parts.values())
    loaders = {}
    for name, records in parts.items():
        if records:
            cache = pipeline.recipe.data.cache_mb * len(records) // total
            loaders[name] = Loader(reader, records, cache_mb=cache, task=pipeline.task)
            loaders[name].prepare(console, title=f"{name} samples")
    _require_scores(pipeline.task, loaders)
    return loaders


def _fit_ends(fitted: Fitted, *, run: RunFolder | None, place: Place, console: Console) -> None:
    trainer = Trainer(
        fitted.pipeline,
        train=fitted.loaders["train"],
        val=fitted.loaders["val"],
        run=run,
        place=place,
        console=console,
    )
    progress = trainer.fit()
    fitted.history, fitted.kept = progress.history, progress.kept


def _fit_head(fitted: Fitted, *, run: RunFolder | None, place: Place, memo: Memo | None, console: Console) -> None:
    """Computes features once, fits paths of heads on them, and keeps the best on what they did not learn from."""
    pipeline, optim = fitted.pipeline, fitted.pipeline.recipe.optim
    _require_linear(pipeline.recipe)
    _require_foldable(pipeline.recipe, pipeline.task)
    if place.world > 1:
        console.note("tune mode 'head' solves its heads in one process: the others repeat the same work")
    if run is not None:
        run.rewind_log(0)  # the heads are cheap: a killed run fits them all again

    def features_of(split: str, view: int = 0) -> torch.Tensor:
        return _features(fitted, split, view=view, run=run, memo=memo, console=console)

    train, val = fitted.loaders["train"].target, fitted.loaders["val"].target
    assert train is not None and val is not None
    views = [features_of("train", view) for view in range(optim.views + 1)]
    known = Known(torch.cat(views) if len(views) > 1 else views[0], torch.cat([train] * len(views)))
    del views  # twice the memory of what is known
    if 0 < pipeline.recipe.head.centres < len(known.target):
        count = f"{pipeline.recipe.head.centres:,} of {len(known.target):,}"
        console.note(f"the kernel head compares with {count} training samples (head.centres)")
    held_out = Known(features_of("val"), val)
    folds = _folds(fitted)
    if folds:
        everything = known.with_more(held_out)
        tried, samples = by_folds(pipeline, everything, folds=folds, console=console), len(everything.target)
        how = f"{len(folds)} folds of train and val"
    else:
        tried, samples, how = by_validation(pipeline, known, held_out), len(val), "validation"
    choice = _chosen(fitted, tried, samples=samples, how=how, run=run, console=console)
    best = choice.head(pipeline, known)
    fitted.outputs["val"] = best.outputs(held_out.features)
    if refits(pipeline.recipe):
        best = choice.head(pipeline, known.with_more(held_out))
        console.note("fitted again with this choice on train and val together")
    if "test" in fitted.loaders:
        fitted.outputs["test"] = best.outputs(features_of("test"))
    pipeline.head.take(mean=best.mean, scale=best.scale, weight=best.weight, bias=best.bias, centres=best.centres)


def _folds(fitted: Fitted) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the folds of train and val that choose the head, none where the validation split does."""
    recipe, task = fitted.pipeline.recipe, fitted.pipeline.task
    count = recipe.optim.folds
    if count == "auto":
        suited = drawn_from_few(fitted.loaders) and is_closed(recipe, task) and not recipe.optim.views
        count = FOLDS if suited else 0
    return folds_of(fitted.loaders, task, count=count, seed=recipe.run.seed) if count else []


def _chosen(
    fitted: Fitted, tried: Iterable[Choice], *, samples: int, how: str, run: RunFolder | None, console: Console
) -> Choice:
    """Returns the best of what is tried on ``samples``; logs each as it comes."""
    recipe, task = fitted.pipeline.recipe, fitted.pipeline.task
    choices = []
    for number, choice in enumerate(tried):
        choices.append(choice)
        fitted.history.append({"step": number, **choice.line(recipe)})
        if run is not None:
            run.log(fitted.history[-1])
    best = best_of(task, choices, samples=samples)
    fitted.kept = choices.index(best)
    reach = f", gamma {fitted.history[fitted.kept]['gamma']:g}" if recipe.head.centres else ""
    score = f"{how} {task.primary} {best.scores[task.primary]:.4f}"
    console.note(f"best of {len(choices)} heads: l2 {best.l2:g}{reach}, {score}")
    return best


def refits(recipe: Recipe) -> bool:
    """Returns whether the head is fitted again on training and validation samples together, once it is chosen."""
    return recipe.tune == "head" and recipe.optim.refit


def _require_linear(recipe: Recipe) -> None:
    if recipe.head.hidden or recipe.head.dropout:
        raise UsageError(
            "head.hidden / head.dropout",
            must="be 0 in tune mode 'head', which fits linear heads",
            found=f"{recipe.head.hidden} / {recipe.head.dropout}",
            do="Use tune=ends for a head with a hidden layer.",
        )
    idle = [name for name in ("epochs", "patience") if getattr(recipe.optim, name) not in ("auto", 0)]
    if idle:
        names = " and ".join(f"optim.{name}" for name in idle)
        _log.warning(
            "%s: without effect in tune mode 'head', which solves its heads; tune=ends trains by epochs", names
        )


def _require_foldable(recipe: Recipe, task: Task) -> None:
    asked = recipe.optim.folds
    if asked not in ("auto", 0) and (recipe.optim.views or not is_closed(recipe, task)):
        must = "be 'auto' or 0 for heads by likelihood and for augmented views"
        raise UsageError("optim.folds", must=must, found=str(asked), do="Or use optim.solver=squares, optim.views=0.")


def _features(
    fitted: Fitted, split: str, *, view: int, run: RunFolder | None, memo: Memo | None, console: Console
) -> torch.Tensor:
    """Returns the features of a split, from the run folder when a killed run left them there.

    Of several processes each computes all, and only the first one touches the run folder.
    """
    title = f"features, {split}" + (f", view {view}" if view else "")
    path = None if run is None or not run.writes else run.checkpoint.parent / f"features-{split}-{view}.pt"
    if path is not None and path.is_file():
        return torch.load(path, weights_only=True)
    loader = fitted.loaders[split]
    if memo is not None and view == 0:
        features = memo.features(fitted.pipeline, loader, console=console, title=title)
    else:
        features = compute_features(fitted.pipeline, loader, console=console, title=title, view=view)
    if path is not None:
        with atomic_file(path) as temporary:
            torch.save(features, temporary)
    return features


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
    from metatransformer.engine.predict import arrange, illustrate, prediction_table
    from metatransformer.engine.report import write_report

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
