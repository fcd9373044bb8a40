"""Fit: from a data set and a recipe to a trained, scored, saved pipeline."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Modality
from metatransformer.core.samples import SPLITS, Record
from metatransformer.core.task import Task
from metatransformer.data.examples import Examples
from metatransformer.data.kept import split_table, write_split
from metatransformer.data.write import write_table
from metatransformer.fit.boxes import fit_boxes, keeping_boxes
from metatransformer.fit.by_epochs import fit_by_epochs
from metatransformer.fit.context import Context
from metatransformer.fit.dense import fit_places, keeping
from metatransformer.fit.fitted import Fitted, suffix_of
from metatransformer.fit.memo import Memo
from metatransformer.fit.pace import (
    FEATURES,
    READ,
    SCORES,
    clock_of,
    features_in_time,
    foretell,
    in_random_order,
    read_in_time,
    scores_in_time,
    stratified,
)
from metatransformer.fit.run import RunFolder
from metatransformer.fit.solve import fit_head, require_foldable, require_linear
from metatransformer.fit.store import FeatureStore
from metatransformer.fit.trackers import require_trackers
from metatransformer.fit.train import join_processes, wait_for_all
from metatransformer.infer.boxes import write_results
from metatransformer.infer.evaluate import compute_outputs, score_outputs
from metatransformer.infer.kits import require_parts
from metatransformer.infer.loader import Loader, Place, require_targets
from metatransformer.infer.sources import examples_of
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.pipeline import Pipeline, Route, build_pipeline, make_task, plain_inputs
from metatransformer.recipe import Recipe, keeps_trunk, tune_mode
from metatransformer.trunk import Pretrained, load_encoder
from metatransformer.trunk.backends import chosen_backend
from metatransformer.trunk.encoder import Encoder


def _nothing_kept(part: Fitted, split: str, context: Context) -> None:
    del part, split, context


# By what a task needs of a modality (``Task.kit``).
FITS = {"": fit_head, "dense": fit_places, "boxed": fit_boxes}
KEEPING = {"": _nothing_kept, "dense": keeping, "boxed": keeping_boxes}


def fit(
    data: Examples | Sequence[Record],
    recipe: Recipe,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    memo: Memo | None = None,
    source: str = "",
    begun: float | None = None,
    console: Console,
) -> Fitted:
    """Trains on the samples of split ``train``, chooses on ``val``, scores on both and on ``test`` where there is one.

    Records are those of the recipe's one input, with the targets of its one task. ``out`` is the run folder; an
    unfinished run in it is continued. ``memo`` holds what other fits computed of samples of the same data set.
    ``source`` is where the data lies, for a later ``evaluate`` of the run; ``begun`` (of ``time.monotonic``) is when
    the time of ``run.minutes`` began, None = now.

    Raises:
        MetaTransformerError: whatever the user must change: data, recipe, weights, folder.
    """
    clock = clock_of(recipe, begun)
    choose_device(recipe.run.device)
    require_backend(recipe)
    examples = data if isinstance(data, Examples) else examples_of(data, recipe)
    place = join_processes()
    if clock.limited and place.world > 1:
        raise UsageError("run.minutes", must="be 0 for several processes", found=f"{recipe.run.minutes:g}")
    require_trackers(recipe.log, out)
    console = console if place.rank == 0 else Console(quiet=True)
    parts = parts_of(examples, recipe)
    trunk = load_encoder(recipe.encoder)
    identity = identity_of(examples, trunk)
    run = None if out is None else RunFolder(out, place=place)
    if run is not None and place.rank == 0:
        run.check(recipe, identity=identity, overwrite=overwrite)
    pipeline = build_pipeline(recipe, trunk=trunk, examples=parts["train"])
    _require_settings(pipeline)
    frozen_bytes = pipeline.trunk.encoder.bytes_hash()
    context = Context(run, place, memo or _memo(recipe, place=place, limited=clock.limited), console, clock)
    say_what_learns(pipeline, console)
    fitted = _read(pipeline, parts, pipeline.route if memo is None else memo.route(pipeline), context)
    if run is not None:
        # Not before all data was read: bad data leaves no folder behind, and the run to be overwritten stays. The
        # first process opens the folder, then the others see it complete.
        if place.rank == 0:
            if run.open(recipe, identity=identity, source=source, overwrite=overwrite):
                console.note(f"continuing the unfinished run in {out}")
            write_split(run.path, split_table(examples))
        wait_for_all(place)
    _learn(fitted, context)
    if keeps_trunk(recipe.tune):
        require_unchanged(pipeline.trunk.encoder, frozen_bytes)
    if clock.limited:
        scores_in_time(fitted, context, until=SCORES)
    for part in fitted.by_task().values():
        score_part(part, context)
    if run is not None:
        write_run(fitted, run)
    return fitted


def _memo(recipe: Recipe, *, place: Place, limited: bool) -> Memo | None:
    """Returns what keeps the features that the fit, or a later one, will need again."""
    store = FeatureStore.usual() if recipe.tune == "head" and place.world == 1 else None
    # Tasks that read the same features share them; what each input brings is asked of them again.
    again = max(len(recipe.tasks), len(recipe.inputs)) > 1 or limited
    return Memo(most_mb=0, store=store) if again or store else None


def identity_of(examples: Examples, trunk: Pretrained) -> dict[str, str]:
    """Returns what an unfinished run must have in common with the call that continues it, beside the recipe."""
    return {"data": examples.identity(), "weights": trunk.sha256}


def _read(pipeline: Pipeline, parts: dict[str, Examples], route: Route, context: Context) -> Fitted:
    """Returns loaders of all samples, read where the time allows; says before what that and the fit will take."""
    recipe, limited = pipeline.recipe, context.clock.limited
    if limited:
        mixed = stratified(pipeline)
        parts = {name: in_random_order(part, seed=recipe.run.seed, stratified=mixed) for name, part in parts.items()}
    fitted = Fitted(pipeline, _loaders(pipeline, parts, route))
    foretell(fitted, context)
    if not limited or recipe.tune != "head":  # else each sample is read when its features are computed
        read_in_time(fitted, context, until=READ)
    return fitted


def _learn(fitted: Fitted, context: Context) -> None:
    """Solves or trains what the tune mode says."""
    if fitted.pipeline.recipe.tune == "head":
        _solve(fitted, context)
    else:
        fit_by_epochs(fitted, context)
    heads = [fitted.pipeline.model.head(name) for name in fitted.pipeline.tasks]
    fitted.pipeline.read_plain(plain_inputs(key for head in heads for key in head.keys))


def _solve(fitted: Fitted, context: Context) -> None:
    if context.place.world > 1 and any(task.kit for task in fitted.pipeline.tasks.values()):
        context.console.note("answers for parts of samples are learned in one process: the others repeat the same work")
    if context.run is not None:
        context.run.rewind_log(0)  # the heads are cheap: a killed run fits them all again
    if context.clock.limited:
        features_in_time(fitted, context, until=FEATURES)
    for part in fitted.by_task().values():
        FITS[part.pipeline.task.kit](part, context)


def _require_settings(pipeline: Pipeline) -> None:
    """Raises UsageError for settings that this way of fitting has no use for."""
    if pipeline.recipe.fusion == "choose" and (pipeline.recipe.tune != "head" or len(pipeline.tasks) > 1):
        must = "be tokens or features but in tune mode 'head' for one task"
        raise UsageError("recipe key 'fusion'", must=must, found="'choose'")
    if pipeline.recipe.tune == "tokens":
        native = [name for name in pipeline.route if pipeline.model.tokenizer(name).native]
        if native:
            must, do = "be another mode where tokens come with the trunk", "Use tune=head, ends or lora."
            raise UsageError("recipe key 'tune'", must=must, found=f"'tokens' for {', '.join(native)}", do=do)
        if pipeline.recipe.head.hidden:
            found = str(pipeline.recipe.head.hidden)
            raise UsageError("head.hidden", must="be 0 in tune mode 'tokens', which solves its heads", found=found)
    if len({task.kit for task in pipeline.tasks.values()} - {""}) > 1:
        must = "have at most one task of places or of objects, or learn from several data sets"
        raise UsageError("recipe key 'tasks'", must=must, found=", ".join(pipeline.tasks))
    for part in map(pipeline.of_task, pipeline.tasks):
        if part.task.kit:
            require_parts(part)
            continue
        if part.task.compares and part.recipe.run.minutes:
            must, found = (
                f"be 0 for the task '{part.task.name}', which scores whole splits",
                f"{part.recipe.run.minutes:g}",
            )
            raise UsageError("run.minutes", must=must, found=found, do="Make inputs smaller, such as input.size=112.")
        if part.head.solved:
            require_foldable(part.recipe, part.task)
        if part.recipe.tune == "head":
            require_linear(part.recipe)


def _require_scores(part: Fitted) -> None:
    """Raises DataError where the metric cannot be had on a split: now, not when the training is done."""
    for split in ("val", "test"):
        loader = part.loaders.get(split)
        if loader is not None and loader.target is not None and len(loader):
            _require_score(part.pipeline.task, loader.target, split=split)


def _require_score(task: Task, target: Tensor, *, split: str) -> None:
    try:
        scores = task.metrics(task.constant().expand(len(target), -1), target)
    except DataError as error:
        where = f"split '{split}', {error.where}"
        raise DataError(where, must=error.must, found=error.found, do=error.do) from error
    if not math.isfinite(scores[task.primary]):
        where, found = f"split '{split}', metric '{task.primary}'", f"{len(target)} samples"
        raise DataError(where, must="be a number there", found=found, do="Give the split more samples.")


def require_unchanged(encoder: Encoder, bytes_before: str) -> None:
    """Raises an assertion when training has touched a frozen trunk: that would be a bug, not a user's mistake."""
    assert encoder.bytes_hash() == bytes_before, "the frozen trunk changed during training"


def say_what_learns(pipeline: Pipeline, console: Console) -> None:
    """Prints how the data was understood, trunk, tune mode and the trainable parameters of the complete model."""
    for reader in pipeline.route.values():
        for note in reader.transform.notes:
            console.note(note)
    counts = pipeline.model.parameter_counts()
    learns = " / ".join(f"{part} {n['trainable']:,}" for part, n in counts.items())
    trunk = counts["trunk"]["total"]
    console.note(f"trunk {pipeline.trunk.name} ({trunk:,} parameters), tune mode {pipeline.recipe.tune}")
    console.note(f"trainable parameters: {learns}")
    kernels = [name for name in pipeline.tasks if pipeline.recipe.head_of(name).centres]
    if any(not pipeline.model.head(name).solved for name in kernels):
        console.note("the head is linear here, not a kernel (head.centres): it is trained by epochs from a fresh start")
    if pipeline.recipe.tune == "head":
        for name, reader in pipeline.route.items():
            if not pipeline.model.tokenizer(name).native:
                _say_random(reader.modality, console)


def _say_random(modality: Modality, console: Console) -> None:
    """Says that a tokenizer keeps its random start; warns where that is not the modality's own choice."""
    if modality.defaults.get("tune") == "head":
        console.note(
            f"the {modality.name} tokenizer keeps its random start, the default here; --tune ends trains it, "
            "at many times the cost"
        )
    else:
        console.warn(
            f"tune mode 'head' freezes the {modality.name} tokenizer, which has random weights here; "
            "use --tune ends to train it"
        )


def require_learnable(examples: Examples, recipe: Recipe) -> None:
    """Raises what ``fit`` would raise of splits and targets, before any sample is read."""
    parts = parts_of(examples, recipe)
    for name in recipe.tasks:
        task = make_task(recipe, name)
        task.fit([parts["train"].targets[name][row] for row in parts["train"].known(name)])
        require_foldable(recipe, task)
        for split in ("val", "test"):
            known = [parts[split].targets[name][row] for row in parts[split].known(name)]
            if known:
                _require_score(task, task.encode(known), split=split)


def require_backend(recipe: Recipe) -> None:
    """Raises UsageError where a trunk would be compiled or converted anew each time that it has learned something."""
    kind, name = tune_mode(recipe.tune)[0], chosen_backend()
    if name != "eager" and (kind == "lora" or not keeps_trunk(recipe.tune)):
        must = f"be eager with tune={recipe.tune}, which changes what the trunk computes"
        raise UsageError("--backend", must=must, found=name, do="Leave it out.")


def parts_of(examples: Examples, recipe: Recipe) -> dict[str, Examples]:
    """Returns the samples by split; raises DataError for a split without any, and for what is no target of its task."""
    parts = {name: examples.split(name) for name in SPLITS}
    for task in recipe.tasks:
        for name in ("train", "val"):
            if not len(parts[name].known(task)):
                which = f" with a target of '{task}'" if len(recipe.tasks) > 1 else ""
                raise DataError("data", must=f"have samples{which} in the split '{name}'", found="none")
        require_targets(make_task(recipe, task), examples, name=task)
    return parts


def _loaders(pipeline: Pipeline, parts: dict[str, Examples], route: Route) -> dict[str, Loader]:
    total = sum(len(examples) for examples in parts.values())
    loaders = {}
    for name, examples in parts.items():
        if len(examples):
            cache = pipeline.recipe.data.cache_mb * len(examples) // total
            loaders[name] = Loader(route, examples, cache_mb=cache, tasks=pipeline.tasks)
    for part in Fitted(pipeline, loaders).by_task().values():
        _require_scores(part)
    return loaders


def score_part(part: Fitted, context: Context) -> None:
    """Scores what fitting has not computed already, for one task."""
    for name in ("val", "test"):
        if name not in part.loaders:
            continue
        loader = part.loaders[name]
        if name not in part.outputs:
            keep = KEEPING[part.pipeline.task.kit](part, name, context)
            part.outputs[name] = compute_outputs(
                part.pipeline, loader, console=context.console, title=f"scoring {name}", keep=keep
            )
        if loader.target is not None:
            if name == "val":
                part.pipeline.task.calibrate(part.outputs[name], loader.target)
            part.metrics[name] = score_outputs(part.pipeline, loader, part.outputs[name])
            for doubt in part.pipeline.task.doubts(part.outputs[name], loader.target):
                context.console.warn(f"{name}: {doubt}")
    _remember(part)


def _remember(part: Fitted) -> None:
    """Leaves a task that compares the samples that were kept apart, for later queries."""
    name, task = part.pipeline.task_name, part.pipeline.task
    splits = [split for split in part.outputs if part.loaders[split].target is not None] if task.compares else []
    if splits:
        examples = Examples.joined([part.loaders[split].examples for split in splits])
        task.remember(torch.cat([part.outputs[split] for split in splits]), examples.keys, examples.targets[name])


def write_run(fitted: Fitted, run: RunFolder) -> None:
    """Writes model, predictions and metrics; ``run.finish`` comes last and marks the run as done."""
    if not run.writes:
        return
    from metatransformer.report.page import write_report

    fitted.pipeline.save(run.path / "model", metrics=fitted.scores())
    for name, part in fitted.by_task().items():
        suffix = suffix_of(fitted, name)
        _write_predictions(part, run.path, suffix=suffix)
        write_report(part, run.path / f"report{suffix}.html")
    history = {name: outcome.history for name, outcome in fitted.outcomes.items()}
    inputs = {name: outcome.inputs for name, outcome in fitted.outcomes.items() if outcome.inputs}
    fusion = {name: outcome.fusion for name, outcome in fitted.outcomes.items() if outcome.fusion}
    run.finish(
        {
            "metrics": fitted.scores(),
            "parameters": fitted.pipeline.model.parameter_counts(),
            "history": fitted.history if len(history) == 1 else history,
            **({"inputs": inputs} if inputs else {}),
            **({"fusion": fusion} if fusion else {}),
        }
    )


def _write_predictions(part: Fitted, folder: Path, *, suffix: str) -> None:
    """Writes the table and the pictures of one task's predictions."""
    import pandas as pd

    from metatransformer.infer.predict import arrange, illustrate, prediction_table

    tables = []
    for name, outputs in part.outputs.items():
        examples = part.loaders[name].examples
        table = prediction_table(part.pipeline, examples, outputs, split=name)
        illustrate(part.pipeline, examples, table, folder / f"pictures{suffix}" / name)
        tables.append(arrange(part.pipeline, examples, table))
        if part.pipeline.task.kit == "boxed":
            write_results(part.pipeline, examples, outputs, folder / f"boxes{suffix}" / f"{name}.json")
    write_table(folder / f"predictions{suffix}.parquet", pd.concat(tables, ignore_index=True))
