"""The commands: each takes the parsed options and returns its JSON result and the exit status."""

import os
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from metatransformer.core.errors import (
    DataError,
    MetaTransformerError,
    MissingDependencyError,
    UnlabelledError,
    UsageError,
)
from metatransformer.core.task import Task
from metatransformer.data.examples import Examples
from metatransformer.data.records import Index
from metatransformer.data.remote import Mirror, mirrored
from metatransformer.data.shards import SHARD_ROWS, WHOLE, parse_part
from metatransformer.data.target import kind_of
from metatransformer.faces.cli.sharing import export as export
from metatransformer.faces.cli.sharing import pull as pull
from metatransformer.faces.cli.sharing import push as push
from metatransformer.fit.fitted import Fitted, suffix_of
from metatransformer.infer.by_shards import Engine, Made, Maker, Predictions, make_shards, one_by_one
from metatransformer.infer.embed import Embedding, Vectors, embedding, settled, untrained
from metatransformer.infer.fetching import fetching
from metatransformer.infer.joined import read_joined, read_told
from metatransformer.infer.on_ray import ray_engine
from metatransformer.infer.sources import (
    Dataset,
    check_apart,
    check_records,
    named,
    of_index,
    prepared,
    read_index,
    split_dataset,
)
from metatransformer.machine.console import Console
from metatransformer.machine.versions import missing_packages
from metatransformer.modalities import get_modality
from metatransformer.pipeline import Pipeline, make_reader
from metatransformer.recipe import Recipe, make_recipe, merged, parse_inputs, parse_overrides, read_recipe, to_dict
from metatransformer.saved import load_pipeline, saved_model
from metatransformer.tasks import get_task
from metatransformer.trunk.backends import backend

Result = tuple[dict[str, Any], int]
BY_KIND = {"classes": "classify", "numbers": "regress"}  # what is learned of a column, by what it holds
SHOWN_ROWS = 20  # of what was found
SHOWN = 4  # metrics in a table of 80 columns; the JSON line and the report hold all


def fit(options: Namespace) -> Result:
    """Trains a model and prints its scores, with controls where asked."""
    with backend(options.backend, recompute=options.checkpointing):
        return _fit(options)


def _fit(options: Namespace) -> Result:
    from metatransformer.faces.cli.suite import fit_suite, is_suite

    if is_suite(options.data):
        if options.name or options.add_to:
            do = "Add the data set to the suite, and call it again."
            raise UsageError("--add-to", must="be left out beside a suite", found=repr(options.add_to), do=do)
        return fit_suite(options)
    console, begun = Console(), time.monotonic()
    if bool(options.name) != bool(options.add_to):
        raise UsageError("fit --add-to MODEL --name NAME", must="be given together", found="one of them")
    examples, recipe = learned(options, given_recipe(options), console)
    if not options.name:
        return fit_one(examples, recipe, options, begun=begun, console=console), 0
    return _added(examples, recipe, options, begun=begun, console=console), 0


def _added(examples: Examples, recipe: Recipe, options: Namespace, *, begun: float, console: Console) -> dict[str, Any]:
    """Fits a model of its own and adds it to a saved one, whose other tasks stay as they are."""
    from metatransformer.together import add_model, require_addable
    from metatransformer.trunk import load_encoder

    name, model = options.name, saved_model(Path(options.add_to))
    examples, recipe = named(examples, recipe, name)
    trunk = load_encoder(recipe.encoder)
    encoder = {"name": trunk.name, "sha256": trunk.sha256}
    require_addable(model, {"recipe": to_dict(recipe), "encoder": encoder}, name=name)  # before hours of work
    result = fit_one(examples, recipe, options, begun=begun, console=console)
    add_model(Path(options.out), model, name=name)
    console.note(
        f"added to {model} as '{name}': metatransformer predict {options.add_to} DATA --task {name} --out FILE"
    )
    return result


def fit_one(
    examples: Examples, recipe: Recipe, options: Namespace, *, begun: float, console: Console
) -> dict[str, Any]:
    """Trains a model of one data set, tells of it and returns what a program wants to know."""
    from metatransformer.data.write import write_json
    from metatransformer.fit.fit import fit as fit_examples
    from metatransformer.report.controls import CONTROLS, run_controls
    from metatransformer.report.page import explain_some, write_report

    out = Path(options.out)
    source = str(Path(options.data).resolve())
    fitted = fit_examples(
        examples, recipe, out=out, overwrite=options.overwrite, source=source, begun=begun, console=console
    )
    told: dict[str, Any] = {}
    for name, part in fitted.by_task().items():
        split, suffix = "test" if "test" in part.metrics else "val", suffix_of(fitted, name)
        controls = {}
        if options.controls:
            controls = run_controls(part, CONTROLS, split=split, console=console)
            write_json(out / f"controls{suffix}.json", {"split": split, "controls": controls})
            inside = explain_some(part, console=console)
            write_report(part, out / f"report{suffix}.html", controls=controls, inside=inside)
        title = f"scores, {name}" if suffix else "scores"
        show_scores(part.metrics, controls, task=part.pipeline.task, split=split, title=title, console=console)
        show_inputs(part, split=split, console=console)
        told[name] = {"controls": controls} if controls else {}
        told[name] |= {"inputs": part.outcome.inputs} if part.outcome.inputs else {}
    console.note(f"run folder: {out} (report.html, model/, predictions.parquet)")
    parameters = fitted.pipeline.model.parameter_counts()
    result = {"run": str(out), "metrics": fitted.scores(), "parameters": parameters}
    return result | (next(iter(told.values())) if len(told) == 1 else {"tasks": told})


def learned(options: Namespace, recipe: Recipe, console: Console) -> tuple[Examples, Recipe]:
    """Returns the samples to learn from, each with a split, and the recipe with what the data decided."""
    if not recipe.joint:
        index = _labelled(options.data, recipe)
        recipe = _decided(options, recipe, index.records.targets, console)
        return prepared(index, recipe, console=console)
    joint = read_joined(options.data, recipe, labelled=True)
    if len(recipe.tasks) == 1:
        (targets,) = joint.examples.targets.values()
        decided = _decided(options, recipe, targets, console)
        joint = joint if decided is recipe else read_joined(options.data, decided, labelled=True)
    return split_dataset(joint, console=console)


def _labelled(data: Any, recipe: Recipe) -> Index:
    """Returns the records of one input with what is to be learned of them."""
    return read_index(
        get_modality(recipe.modality),
        data,
        options=recipe.input,
        target=recipe.task.target,
        labelled=True,
        header=recipe.data.header,
        task=recipe.task,
    )


def show_scores(
    metrics: Mapping[str, Mapping[str, float]],
    controls: Mapping[str, Mapping[str, float]],
    *,
    task: Task,
    split: str,
    title: str = "scores",
    console: Console,
) -> None:
    """Prints one row for each split and each control, with the primary metric and as many others as a line holds."""
    from metatransformer.report.verdict import control_words

    known = [name for name in next(iter(metrics.values())) if name != task.primary]
    names = [task.primary, *known[: SHOWN - 1]]
    rows = [(name, *(_figure(m.get(key)) for key in names)) for name, m in metrics.items()]
    for name, scores in controls.items():
        control = f"{split}: {control_words(name, task)}"
        rows.append((control, *(_figure(scores.get(key)) for key in names)))
    console.table(title, ["split", *names], rows)


def show_inputs(fitted: Fitted, *, split: str, console: Console) -> None:
    """Prints what each input of several brings, where heads were solved."""
    found, task = fitted.outcome.inputs, fitted.pipeline.task
    if not found:
        return
    columns = {"alone": "alone", "without": "without it", "absent": "absent at prediction"}
    rows = [(name, *(_figure(row.get(key)) for key in columns)) for name, row in found.items()]
    rows.append(("all inputs", _figure(fitted.metrics[split][task.primary]), "-", "-"))
    console.table(f"what each input brings: {task.words(task.primary)}, {split}", ["input", *columns.values()], rows)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def evaluate(options: Namespace) -> Result:
    """Scores a trained model on labelled data, by default on what its run kept apart."""
    console = Console()
    whole = load_pipeline(Path(options.run), encoder=options.encoder, device=options.device or "auto")
    sets = list(whole.recipe.sets)
    if len(sets) > 1 and not options.task and not (options.data or options.target):  # of a suite: each on its own data
        parts = {name: _evaluated(whole.of_set(name), _run_of(options, name), options, console) for name in sets}
        found = {task: scores for one in parts.values() for task, scores in one["by_task"].items()}
        return {"metrics": found, "samples": sum(one["samples"] for one in parts.values())}, 0
    pipeline = whole.asked(options.task)
    name = whole.recipe.set_of(next(iter(pipeline.tasks), ""))
    told = _evaluated(pipeline, _run_of(options, name), options, console)
    found = told.pop("by_task")
    return {"metrics": next(iter(found.values())) if len(found) == 1 else found, **told}, 0


def _run_of(options: Namespace, name: str) -> Path:
    """Returns the folder of the run that learned from one data set."""
    run = Path(options.run)
    places = [place / "tasks" / name for place in (run, run.parent) if name]
    return next((place for place in places if (place / "run.json").is_file()), run)


def _evaluated(pipeline: Pipeline, run: Path, options: Namespace, console: Console) -> dict[str, Any]:
    """Returns the scores of what was learned from one data set, by task."""
    from metatransformer.data.kept import read_split
    from metatransformer.fit.fitted import refits
    from metatransformer.infer.apart import kept_apart
    from metatransformer.infer.evaluate import score
    from metatransformer.infer.loader import Loader

    recipe = pipeline.recipe
    data = options.data or _data_of(run, console)
    if options.target:
        if recipe.joint:
            must = "be left out for a model of several inputs, whose recipe names what each task learns"
            raise UsageError("--target", must=must, found=repr(options.target))
        recipe = replace(recipe, tasks={pipeline.task_name: replace(recipe.task, target=options.target)})
    examples = read_told(data, recipe, labelled=True, console=console).examples
    table, learns_val = read_split(run), any(refits(pipeline.of_task(name)) for name in pipeline.tasks)
    chosen, split = kept_apart(examples, table, split=options.split, learns_val=learns_val, console=console)
    scores: dict[str, dict[str, float]] = {}
    for name in [options.task] if options.task else pipeline.tasks:
        part = pipeline.of_task(name)
        loader = Loader(part.route, chosen, cache_mb=0, tasks=part.tasks).of_task(name)
        with backend(options.backend):
            scores[name] = score(part, loader, console=console, title="scoring")
        title = "scores" if list(pipeline.tasks) == [part.task.name] else f"scores, {name}"
        show_scores({split or "all": scores[name]}, {}, task=part.task, split=split, title=title, console=console)
    return {"by_task": scores, "samples": len(chosen), "split": split or "all"}


def _data_of(run: Path, console: Console) -> str:
    """Returns where the data of a run lies.

    Raises:
        UsageError: the run does not say, or it is no longer there.
    """
    from metatransformer.fit.run import source_of

    data = source_of(run)
    if not data or not Path(data).exists():
        found = f"none at {data}, where 'fit' read it" if data else "none"
        raise UsageError("evaluate RUN", must="know the data of the run", found=found, do="Use 'evaluate RUN DATA'.")
    console.note(f"the data of the run: {data}")
    return data


def predict(options: Namespace) -> Result:
    """Writes one prediction for each input, in order."""
    from metatransformer.data.write import require_table, write_table
    from metatransformer.infer.predict import arrange, illustrate, search_in, side_by_side
    from metatransformer.infer.predict import predict as predict_examples

    asked = [options.shard, options.errors, options.workers, options.address, options.shard_rows != SHARD_ROWS]
    if any(asked) or options.engine != "local" or "://" in " ".join([options.out, *options.paths]):
        return _predict_by_shards(options, Console())
    console = Console()
    named = options.classes or options.templates or options.captions or options.k is not None
    results = not named and Path(options.out).suffix.lower() == ".json"  # boxes alone, without a table
    if not results:
        require_table(options.out)
    if Path(options.out).resolve() in [Path(path).resolve() for path in options.paths]:
        raise UsageError(f"--out {options.out}", must="be another file than the input", found="the same")
    if named:
        return _by_names(options, console)
    pipeline = load_pipeline(Path(options.run), encoder=options.encoder, device=options.device or "auto")
    pipeline = pipeline.asked(options.task)
    examples = read_told(options.given, pipeline.recipe, labelled=False, console=console).examples
    names = [options.task] if options.task else list(pipeline.tasks)
    if results and [pipeline.tasks[name].kit for name in names] != ["boxed"]:
        require_table(options.out)
    parts, folder = {name: pipeline.of_task(name) for name in names}, Path(options.out).with_suffix("")
    with backend(options.backend):
        if options.gallery:
            gallery = read_told(options.gallery, pipeline.recipe, labelled=True, console=console).examples
            for part in parts.values():
                search_in(part, gallery, console=console)
        tables = {
            name: predict_examples(part, examples, console=console, folder=folder) for name, part in parts.items()
        }
    arranged = arrange(pipeline, examples, table := side_by_side(tables))
    if not results:
        write_table(options.out, arranged)  # before the pictures, which fewer people wait for
    pictures = illustrate(pipeline, examples, table, folder)
    for picture in pictures:
        console.note(f"picture: {picture}")
    console.table("first predictions", list(arranged.columns[:3]), arranged.iloc[:5, :3].itertuples(index=False))
    console.note(f"{len(arranged)} predictions in {options.out}")
    return {"out": options.out, "rows": len(arranged), "pictures": [str(picture) for picture in pictures]}, 0


def _predict_by_shards(options: Namespace, console: Console) -> Result:
    """Writes the predictions of one task shard by shard."""
    with mirrored(options.paths) as (paths, mirrors), backend(options.backend):
        options.given = paths[0] if len(paths) == 1 else paths
        pipeline = _told_apart(options)
        examples = read_told(options.given, pipeline.recipe, labelled=False, console=console).examples
        maker = Predictions(fetching(pipeline, mirrors), str(Path(options.run).resolve()))
        place, done, left, skipped, errors = _shards(options, maker, examples, mirrors, console)
    told = {"out": place, "rows": len(examples) - left, "done_before": done, "missing": left}
    if skipped:
        console.warn(f"{skipped} of {len(examples)} samples could not be read: {errors} says why")
        told |= {"skipped": skipped, "errors": errors}
    console.note(f"{len(examples) - left} predictions in {place}")
    return told, 0


def _told_apart(options: Namespace) -> Pipeline:
    """Returns the model, of one task whose answers to one sample do not depend on others.

    Raises:
        UsageError: another one, or options that ask for what is found elsewhere.
    """
    where = "predict by shards (--engine, --shard, --errors, a URL)"
    _engine(options)  # refused before the work
    others = ("gallery", "classes", "templates", "captions")
    if more := [f"--{name}" for name in others if getattr(options, name)]:
        raise UsageError(where, must="go without what finds answers elsewhere", found=more[0])
    if options.engine == "ray" and options.backend != "eager":
        raise UsageError("--backend", must="be eager with predict --engine ray", found=options.backend)
    pipeline = load_pipeline(Path(options.run), encoder=options.encoder, device=options.device or "auto")
    pipeline = pipeline.asked(options.task)
    if len(pipeline.tasks) > 1:
        do = f"Add --task, one of {', '.join(pipeline.tasks)}."
        raise UsageError(where, must="be asked of one task", found=f"{len(pipeline.tasks)} tasks", do=do)
    arranged = any(reader.modality.arrange is not None for reader in pipeline.route.values())
    if pipeline.task.kit or pipeline.task.compares or arranged:
        must = "be of a task whose answers stand by themselves"
        raise UsageError(where, must=must, found=f"the task '{pipeline.task.name}'", do="Predict without them.")
    return pipeline


def explain(options: Namespace) -> Result:
    """Writes for each sample a picture and a JSON file of what the answer rests on."""
    from metatransformer.faces.explain import one_task
    from metatransformer.infer.explain import explain as explain_examples

    console, out = Console(), Path(options.out)
    place = {"encoder": options.encoder, "device": options.device or "auto"}
    pipeline = one_task(load_pipeline(Path(options.run), **place), task=options.task)
    examples = read_told(options.given, pipeline.recipe, labelled=False, console=console).examples
    if len(examples) > options.most:
        console.note(f"the first {options.most} of {len(examples):,} samples (--most)")
        examples = examples.take(range(options.most))
    asked = {"answer": options.answer, "places": options.places, "control": options.control}
    files, rows = [], []
    for number, one in enumerate(explain_examples(pipeline, examples, **asked, console=console)):
        stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in one.key)[-60:]
        files.append([str(path) for path in one.save(out / f"{number:04d}-{stem}")])
        top = one.table().iloc[0]
        alike = "-" if one.control is None else f"{one.control:.2f}"
        rows.append((one.key, one.answer, top["place"], f"{top['value']:+.3g}", alike))
    console.table("what answers rest on most", ["key", "answer", "place", "value", "control"], rows[:SHOWN_ROWS])
    console.note(f"pictures and numbers of {len(rows)} samples in {out}")
    return {"out": str(out), "samples": len(rows), "files": files}, 0


def _by_names(options: Namespace, console: Console) -> Result:
    """Writes which of the named classes, or which known captions each input is, without any training."""
    from metatransformer.data.write import write_table
    from metatransformer.pairs.space import captions, zero_shot

    if options.task or options.gallery or options.encoder:
        must = "go without --task, --gallery and --encoder: RUN has the encoder"
        raise UsageError("--captions" if options.captions else "--classes", must=must, found="one of them")
    if bool(options.captions) == bool(options.classes or options.templates):
        must = "get either --captions (with --k) or --classes (with --templates)"
        raise UsageError("predict", must=must, found="both" if options.captions else "--k alone")
    if options.classes and (len(options.classes) > 1 or options.k is not None):
        found = "--k" if options.k is not None else f"{len(options.classes)} of --classes and --labels"
        raise UsageError("--classes", must="be given once, without --k", found=found)
    given = {"encoder": options.run, "device": options.device or "auto", "verbose": True}
    classes = [name.strip() for name in (options.classes or [""])[0].split(",") if name.strip()]
    told = {} if options.captions else {"classes": classes}
    with backend(options.backend):
        if options.captions:
            table = captions(options.given, options.captions, k=5 if options.k is None else options.k, **given)
        else:
            table = zero_shot(options.given, classes, templates=_templates(options.templates), **given)
    write_table(options.out, table)
    shown = table[["key", "prediction", "similarity_1" if options.captions else "confidence"]]
    console.table("first predictions", list(shown.columns), shown.iloc[:5].itertuples(index=False))
    console.note(f"{len(table)} predictions in {options.out}")
    return {"out": options.out, "rows": len(table), **told}, 0


def _templates(text: str) -> list[str] | None:
    """Returns the one template, or those of a file; None where nothing is said."""
    from metatransformer.data.delimited import decode
    from metatransformer.data.limits import read_bytes

    if not text or "{}" in text:
        return [text] if text else None
    if not os.path.isfile(text):
        must = "be a text with {} where the class stands, or a file with one a line"
        raise UsageError("--templates", must=must, found=repr(text))
    lines = decode(read_bytes(Path(text)), path=Path(text)).splitlines()
    return [line.strip() for line in lines if line.strip()]


def embed(options: Namespace) -> Result:
    """Writes one vector for each sample."""
    with mirrored(options.paths) as (paths, mirrors):
        options.given = paths[0] if len(paths) == 1 else paths
        return _embed(options, mirrors, Console())


def _engine(options: Namespace) -> Engine:
    """Returns what makes the shards of vectors."""
    if options.engine == "ray":
        if options.shard:
            must = "go without --shard: Ray hands out the shards"
            raise UsageError("--engine ray", must=must, found=f"--shard {options.shard}")
        return ray_engine(workers=options.workers, address=options.address)
    if options.workers or options.address:
        found = "--workers" if options.workers else "--address"
        raise UsageError(found, must="go with --engine ray", found="--engine local")
    return one_by_one


def _shards(options: Namespace, model: Maker, examples: Examples, mirrors: Sequence[Mirror], console: Console) -> Made:
    """Makes rows of all samples, as the options say by whom."""
    return make_shards(
        model,
        examples,
        options.out,
        part=parse_part(options.shard) if options.shard else WHOLE,
        shard_rows=options.shard_rows,
        skips=(options.errors or ("skip" if options.engine == "ray" else "stop")) == "skip",
        engine=_engine(options),
        mirrors=mirrors,
        console=console,
    )


def _ready(
    model: Vectors, examples: Examples, options: Namespace, mirrors: Sequence[Mirror], console: Console
) -> Vectors:
    """Returns what makes vectors, with readers that fetch what lies behind a URL, in its precision and by its backend.

    Raises:
        UsageError: sides of a space, which read local files only.
    """
    if isinstance(model, Embedding):
        model = replace(model, pipeline=fetching(model.pipeline, mirrors))
        return settled(model, examples, backend=options.backend, console=console)
    if mirrors:
        must = "be local where RUN is a space of two sides"
        raise UsageError("embed", must=must, found=mirrors[0].store.url, do="Copy the files here first.")
    return model


def _embed(options: Namespace, mirrors: Sequence[Mirror], console: Console) -> Result:
    from metatransformer.trunk import load_encoder

    _engine(options)  # refused before the work
    _take_int8(options)
    if bool(options.model) == bool(options.modality or options.inputs):
        raise UsageError("embed", must="get either --modality, --inputs or --model", found="both or neither")
    part = parse_part(options.shard) if options.shard else WHOLE
    if options.task and not options.model:
        raise UsageError("--task", must="go with --model: what is not trained has no tasks", found=repr(options.task))
    if options.model:
        if options.overrides or options.target:
            found = options.overrides[0] if options.overrides else "--target"
            raise UsageError("embed --model", must="get no recipe overrides: the model has its own", found=found)
        model, examples = _with_model(options, console)
    else:
        found = read_told(
            options.given,
            given_recipe(options, first={"run.precision": options.precision}),
            labelled=False,
            console=console,
        )
        examples, trunk = found.examples, load_encoder(found.recipe.encoder)
        pipeline = untrained(found.recipe, trunk=trunk, examples=examples, learned=False, console=console)
        model = embedding(pipeline, pool=options.pool or "summary")
    model = _ready(model, examples, options, mirrors, console)
    place, done, left, skipped, errors = _shards(options, model, examples, mirrors, console)
    rows, told = len(examples), {"out": place, "width": model.width, "done_before": done}
    if skipped:
        console.warn(f"{skipped} of {rows} samples could not be read: {errors} says why")
        told |= {"skipped": skipped, "errors": errors}
    if part != WHOLE:
        rest = f"others still make {left} of {rows} rows" if left else "all rows are there"
        console.note(
            f"shard {options.shard} is done; {rest} (the same command without --shard completes {options.out})"
        )
        return {**told, "rows": rows - left, "missing": left}, 0
    console.note(f"{rows} vectors of width {model.width} in {place}")
    return {**told, "rows": rows}, 0


def _take_int8(options: Namespace) -> None:
    """Puts the precision int8, which one backend computes, as that backend.

    Raises:
        UsageError: another backend is asked for beside it.
    """
    if options.precision != "int8":
        return
    if options.backend in ("eager", "compile"):
        do = "Leave one of them out."
        raise UsageError(
            "--precision int8", must="be computed by OpenVINO", found=f"--backend {options.backend}", do=do
        )
    options.backend, options.precision = "int8", "float32"


def _with_model(options: Namespace, console: Console) -> tuple[Vectors, Examples]:
    """Returns what a fitted model, or the space of two sides, makes vectors with, and the samples."""
    from metatransformer.pairs.space import has_space, open_space

    if has_space(options.model):
        if options.task or options.pool or options.encoder or {options.precision, options.backend} != {"auto"}:
            must = "go without --task, --pool, --precision, --backend and --encoder where RUN is a space of two sides"
            raise UsageError("embed --model", must=must, found="one of them")
        side = open_space(options.model, device=options.device or "auto").side(options.side)
        return side, read_told(options.given, side.recipe, labelled=False, console=console).examples
    if options.side:
        raise UsageError("--side", must="go with a run of 'align' or 'pretrain'", found=f"--model {options.model}")
    pipeline = load_pipeline(Path(options.model), encoder=options.encoder, device=options.device or "auto")
    pipeline = pipeline.asked(options.task)
    place = str(Path(options.model).resolve())
    model = embedding(pipeline, pool=options.pool, run=place, task=options.task, precision=options.precision)
    return model, read_told(options.given, pipeline.recipe, labelled=False, console=console).examples


def search(options: Namespace) -> Result:
    """Finds the nearest of what 'embed' wrote to each input, or pairs of it that are nearly the same."""
    from metatransformer.data.stored import open_stored
    from metatransformer.data.write import require_table, write_table
    from metatransformer.infer.approximate import nearest_approximately, require_index
    from metatransformer.infer.search import find_duplicates, nearest_rows, require_settings
    from metatransformer.pairs.across import Asked, nearest_in
    from metatransformer.report.pairs import write_pairs

    console, out = Console(), options.out
    asked = {"paths": options.paths, "texts": options.text, "duplicates": options.duplicates}
    require_settings(**asked, above=options.above, k=options.k)
    if options.approximate:
        require_index(duplicates=options.duplicates)
    page = options.duplicates and Path(out).suffix == ".html"
    if out and not page:
        require_table(out)
    stored = open_stored(Path(options.index))
    if options.duplicates:
        table, total = find_duplicates(stored, above=options.above, console=console)
        shown, told = ["similarity", "id", "twin"], {"pairs": total, "listed": len(table)}
    else:
        table = nearest_in(
            stored,
            Asked(options.given, options.text, options.side),
            through=options.through,
            model=options.model,
            nearest=nearest_approximately if options.approximate else nearest_rows,
            count=options.k,
            device=options.device or "auto",
            console=console,
        )
        shown, told = ["query", "rank", "id", "similarity"], {"queries": table["query"].nunique(), "listed": len(table)}
    rows = table[shown].iloc[:SHOWN_ROWS].itertuples(index=False)
    console.table("nearly the same" if options.duplicates else "nearest", shown, rows)
    if page:
        write_pairs(table, Path(out), stored=stored, total=told["pairs"], above=options.above)
    elif out:
        write_table(out, table)
    return {"index": options.index, "rows": len(stored), **told, **({"out": out} if out else {})}, 0


def serve(options: Namespace) -> Result:
    """Answers over HTTP until it is stopped."""
    if missing := missing_packages(("fastapi", "uvicorn", "prometheus_client", "python_multipart")):
        raise MissingDependencyError(missing[0], extra="serve", purpose="serve")
    from metatransformer.serve.app import make_app
    from metatransformer.serve.hosted import load_hosted, load_index
    from metatransformer.serve.limits import MB, Limits
    from metatransformer.serve.run import read_token, run

    console, device = Console(), options.device or "auto"
    limits = Limits(
        body_bytes=int(options.body_mb * MB),
        files=options.files,
        samples=options.samples,
        queue=options.queue,
        wait_s=options.wait_ms / 1000,
        tokens=options.tokens,
        decoders=options.decoders,
    )
    token = read_token(options.token_file, os.environ)
    given = {"trunk": options.trunk, "encoder": options.encoder, "device": device, "console": console}
    hosted = load_hosted(options.runs, **given)
    index = load_index(options.index, model=options.model, device=device, console=console) if options.index else None
    app = make_app(hosted, index=index, limits=limits, token=token, urls=options.urls, backend=options.backend)
    console.note(f"http://{options.host}:{options.port}/docs (SIGTERM or Ctrl-C ends it)")
    if not token and options.host not in ("127.0.0.1", "::1", "localhost"):
        console.warn("everybody who reaches this address may ask: no token is set")
    run(app, host=options.host, port=options.port, queue=options.queue)
    return {"served": list(hosted)}, 0


def pretrain(options: Namespace) -> Result:
    """Trains two towers on pairs."""
    from metatransformer.pairs.options import make_options
    from metatransformer.pairs.pretrain import pretrain as pretrain_towers

    flags = {name: getattr(options, name) for name in ("preset", "steps", "seed", "device")}
    given = {name: value for name, value in flags.items() if value not in (None, "")}
    settings = make_options({**given, **parse_overrides(options.overrides)})
    out, console = Path(options.out), Console()
    told = pretrain_towers(options.pairs, out, settings, val=options.val, overwrite=options.overwrite, console=console)
    return told, 0


def align(options: Namespace) -> Result:
    """Brings two inputs into one space."""
    from metatransformer.pairs.align import align as align_inputs

    options.modality = ""
    told = align_inputs(
        options.data,
        given_recipe(options, first={"run.precision": "float32"}),
        Path(options.out),
        text=options.text,
        concept=options.concept,
        controls=options.controls,
        overwrite=options.overwrite,
        console=Console(),
    )
    return {"run": options.out, **told}, 0


def check(options: Namespace) -> Result:
    """Lists every bad sample and goes on, and what else 'fit' would refuse; status 2 when there is one."""
    from metatransformer.faces.cli.suite import check_suite, is_suite

    if is_suite(options.data):
        return check_suite(options)
    several = given_recipe(options, first={"encoder": "test"}).joint
    return _check_joint(options, Console()) if several else _check_one(options, Console())


def _check_one(options: Namespace, console: Console) -> Result:
    """Checks the data of one input."""
    from metatransformer.trunk import load_encoder

    modality = get_modality(given_recipe(options, first={"encoder": "test"}).modality)
    # Nothing is fetched: 'test' is made, and so is what its kind of samples needs.
    first = {"encoder": "test"} | {key: v for key, v in modality.synthetic.items() if key == "input.vocabulary"}
    recipe = given_recipe(options, first=first)
    asked = {"target": recipe.task.target, "header": recipe.data.header, "task": recipe.task, "options": recipe.input}
    read = partial(read_index, modality, **asked)
    try:
        try:  # what 'fit' would ask for
            labelled, index = True, read(options.data, labelled=_brings_labels(recipe))
        except UnlabelledError:
            if recipe.task.target:
                raise
            labelled, index = False, read(options.data, labelled=False)
        known = [target is not None for target in index.records.targets]
        if any(known) and not all(known):  # as 'fit' reads: it leaves pixels without a label out, or refuses
            index = read(options.data, labelled=True)
        elif not _brings_labels(recipe) and not any(known):
            try:  # labels may be there and not fit
                index = read(options.data, labelled=True)
            except (UnlabelledError, UsageError) as error:
                console.note(f"checked without labels, for 'fit' would say: {error}")
    except DataError as error:
        if isinstance(error, UnlabelledError) or not Path(options.data).is_dir():
            raise
        reader = make_reader(recipe, modality.name, stem=load_encoder(recipe.encoder).stem)
        count, problems = check_apart(partial(read, labelled=False), reader, Path(options.data), console=console)
        if not any(str(error) in message for _, message in problems):
            problems.insert(0, ("the data as a whole", str(error)))
        return _told(count, problems, console)
    recipe = _decided(options, recipe, index.records.targets, console, first=first)
    labelled = labelled and any(target is not None for target in index.records.targets)
    return _checked(of_index(index, recipe), labelled=labelled, console=console)


def _brings_labels(recipe: Recipe) -> bool:
    """Returns whether data of a recipe cannot be without what is to be learned."""
    continues, task = get_modality(recipe.modality).source.continues, recipe.task
    return bool(task.target) or continues or bool(get_task(task.name).kit)


def _check_joint(options: Namespace, console: Console) -> Result:
    """Checks every input of a table that brings several, and what else 'fit' would refuse where a target is named."""
    first = {"encoder": "test"}
    recipe = given_recipe(options, first=first)
    labelled = any(task.target for task in recipe.tasks.values())
    found = read_joined(options.data, _made_up(recipe), labelled=labelled)
    if labelled and len(recipe.tasks) == 1:
        (targets,) = found.examples.targets.values()
        decided = _decided(options, recipe, targets, console, first=first)
        found = found if decided is recipe else read_joined(options.data, _made_up(decided), labelled=True)
    return _checked(found, labelled=labelled, console=console)


def _checked(data: Dataset, *, labelled: bool, console: Console) -> Result:
    """Reads every sample, where ``labelled`` with the splits that 'fit' would give them."""
    from metatransformer.trunk import load_encoder

    examples, problems, whole = data.examples, [], []
    if labelled:
        examples, whole = _as_learned(data, console)
    else:
        for note in data.notes:
            console.note(note)
    for name in examples.inputs:
        reader = make_reader(data.recipe, name, stem=load_encoder("test").stem)
        told = check_records(reader, examples.records(name), console=console)
        problems += [(f"{name}: {key}" if data.recipe.joint else key, message) for key, message in told]
    return _told(len(examples), [*problems, *whole], console)


def _made_up(recipe: Recipe) -> Recipe:
    """Returns the recipe with settings under which nothing is fetched."""
    known = {name: get_modality(one.modality).synthetic for name, one in recipe.inputs.items()}
    return recipe.with_settings(
        {name: {"vocabulary": own["input.vocabulary"]} for name, own in known.items() if "input.vocabulary" in own}
    )


def _told(count: int, problems: list[tuple[str, str]], console: Console) -> Result:
    """Returns the result of a check, once all problems are told."""
    for _, message in problems:
        console.note(f"bad: {message}")
    console.note(f"{count} samples read, {len(problems)} bad")
    listed = [{"key": key, "problem": message} for key, message in problems]
    return {"samples": count, "bad": len(problems), "problems": listed}, 2 * bool(problems)


def _as_learned(data: Dataset, console: Console) -> tuple[Examples, list[tuple[str, str]]]:
    """Returns the samples with the splits that 'fit' would give them, and what it would refuse of their targets."""
    from metatransformer.fit.fit import require_learnable

    try:
        examples, recipe = split_dataset(data, console=console)
        require_learnable(examples, recipe)
    except MetaTransformerError as error:
        for note in data.notes:
            console.note(note)
        return data.examples, [("the data as a whole", str(error))]
    return examples, []


def modalities(options: Namespace) -> Result:
    """Lists the modalities, or describes one."""
    from metatransformer.faces.describe import describe, modality_table, tasks_of
    from metatransformer.modalities import modality_names, usable_modalities

    console = Console()
    if options.name:
        console.note(describe(options.name))
        return {"modality": options.name}, 0
    usable = usable_modalities()
    columns, rows = modality_table(usable)
    console.table("modalities", columns, rows)
    console.note(
        "several in one table: --inputs photo=image,notes=text(title),rest=tabular(age,dose); see 'fit --help'"
    )
    return {"modalities": modality_names(), "tasks": {one.name: tasks_of(one) for one in usable}}, 0


def weights(options: Namespace) -> Result:
    """Shows the known encoders and where each was looked for."""
    from metatransformer.trunk import list_encoders, load_encoder, locate

    console = Console()
    if options.fetch:
        if not options.name:
            raise UsageError("weights --fetch", must="name an encoder", found="none")
        found = load_encoder(options.name)
        console.note(f"{found.name}: ready, sha256 {found.sha256}, licence {found.licence}")
    names = [options.name] if options.name else [entry.name for entry in list_encoders()]
    places = {name: locate(name) for name in names}
    rows = [
        (name, place.place, "found" if place.found else "-", place.detail) for name in names for place in places[name]
    ]
    console.table("encoders", ["encoder", "looked in", "", "detail"], rows)
    return {name: [place._asdict() for place in found] for name, found in places.items()}, 0


def _bench_speed(options: Namespace, console: Console) -> Result:
    """Measures how fast this machine is, without data."""
    from metatransformer.bench.speed import run_speed

    given = ["--" + name for name in ("data", "only", "list", "seeds", "trunks") if getattr(options, name)]
    if given := [*given, *options.overrides]:
        raise UsageError("bench speed", must="get only --out, --quick and --peers", found=given[0])
    if not options.out:
        raise UsageError("bench speed", must="get --out, a folder for the results", found="none")
    return run_speed(Path(options.out), quick=options.quick, peers=options.peers, console=console), 0


def _bench_plan(options: Namespace, rows: Sequence[Any]) -> Any:
    """Returns the ``Plan`` by which the data sets ``rows`` are run."""
    from metatransformer.bench.row import Plan

    for name, least in (("trunks", 0), ("seeds", 0), ("jobs", 1)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name}", must=f"be at least {least}", found=str(getattr(options, name)))
    if options.quick and (options.trunks or options.seeds):
        raise UsageError("--quick", must="go without --seeds and --trunks: it runs one of each", found="both")
    seeded = [row.name for row in rows if (options.seeds or row.seeds) > 1]
    if options.trunks and seeded:
        must = f"go with --seeds 1 for {', '.join(seeded)}: each seed has a trunk of its own"
        raise UsageError("--trunks", must=must, found="several seeds")
    trunks, seeds = (1, 1) if options.quick else (options.trunks, options.seeds)
    return Plan(options.encoder, seeds, trunks, options.quick, tuple(options.overrides))


def bench(options: Namespace) -> Result:
    """Runs a suite of the benchmark."""
    from metatransformer.bench.suite import choose, run_suite
    from metatransformer.bench.table import cells, complete, head

    console = Console()
    if options.suite == "speed":
        return _bench_speed(options, console)
    if options.peers:
        raise UsageError("--peers", must="go with the suite speed", found=f"'{options.suite}'")
    rows = choose(options.suite, only=options.only)
    if options.list:
        for row in rows:
            console.note(f"{row.name} ({row.modality}): {row.summary}")
            console.note(f"    in DIR/{row.folder} from {row.source}")
            console.note(f"    {row.fetch} Licence: {row.licence}.")
        return {"rows": [row.name for row in rows]}, 0
    if not options.data or not options.out:
        do = "See 'metatransformer bench --list'."
        raise UsageError("bench", must="get --data and --out", found="not both", do=do)
    plan = _bench_plan(options, rows)
    command = f"metatransformer bench {options.suite} --data DIR --out DIR --jobs {options.jobs}"
    command += f" --encoder {options.encoder}" + " --quick" * options.quick
    command += "".join(f" --{name} {value}" for name in ("seeds", "trunks") if (value := getattr(options, name)))
    command = " ".join([command, *options.overrides])
    data, out = Path(options.data), Path(options.out)
    results = run_suite(rows, data=data, out=out, plan=plan, jobs=options.jobs, command=command, console=console)
    done = complete(results["rows"])
    short = [cells(row, row["metrics"][0])[:9] for row in done]
    console.table("results", head()[:9], short)
    console.note(f"results: {out} (results.md, report.html)")
    failed = [row["name"] for row in results["rows"] if row["status"] == "failed"]
    return {"out": str(out), "rows": [row["name"] for row in done], "failed": failed}, 2 * bool(failed)


def doctor(options: Namespace) -> Result:
    """Checks the installation."""
    from metatransformer.faces.doctor import examine

    del options
    return examine(Console())


def demo(options: Namespace) -> Result:
    """Runs the main job on data that scikit-learn carries."""
    from metatransformer.faces.demo import run_demo

    return run_demo(Path(options.out), encoder=options.encoder, console=Console()), 0


def given_recipe(options: Namespace, *, first: Mapping[str, Any] | None = None) -> Recipe:
    """Returns the resolved recipe of a command's flags; ``first`` changes the defaults."""
    flags = {
        "encoder": "encoder",
        "tune": "tune",
        "task": "task.name",
        "target": "task.target",
        "epochs": "optim.epochs",
        "seed": "run.seed",
        "minutes": "run.minutes",
        "device": "run.device",
    }
    given = {key: getattr(options, flag, None) for flag, key in flags.items()}
    overrides = {key: value for key, value in given.items() if value not in (None, "")}
    overrides |= parse_overrides(options.overrides)
    base = _base(options)
    if inputs := getattr(options, "inputs", ""):
        known = merged(base).get("inputs", {})  # a recipe may have settings of the inputs that are named here
        if options.modality or any(isinstance(own, str) or "modality" in own for own in known.values()):
            raise UsageError("--inputs", must="go without --modality and inputs of a recipe", found="both")
        base = merged(base, {"inputs": parse_inputs(inputs)})
    if not (options.modality or "modality" in base or "inputs" in base):
        must, do = "get --modality, --inputs, or a recipe that says one", "See 'metatransformer modalities'."
        raise UsageError(options.command, must=must, found="none", do=do)
    return make_recipe(options.modality, base=base, overrides=overrides, defaults=first or {})


def _base(options: Namespace) -> Mapping[str, Any]:
    """Returns what the recipe file or the suite says, where there is one."""
    path = getattr(options, "recipe", "")
    return read_recipe(Path(path)) if path else getattr(options, "base", {})


def _decided(
    options: Namespace,
    recipe: Recipe,
    targets: Sequence[Any],
    console: Console,
    *,
    first: Mapping[str, Any] | None = None,
) -> Recipe:
    """Returns the recipe with the task that suits the values to learn, where none was named and two would do."""
    chosen = merged(_base(options), parse_overrides(options.overrides))
    said = options.task or "tasks" in chosen or "name" in (chosen.get("task") or {})
    usual, column = recipe.task.name, recipe.task.target or "label"
    known = [target for target in targets if target is not None]
    if said or usual not in BY_KIND.values() or not known or any(isinstance(one, tuple | list) for one in known):
        return recipe
    kind = kind_of(known)
    task = BY_KIND.get(kind.kind, usual)
    if recipe.task.metric and recipe.task.metric not in get_task(task).scores:
        task = usual
    (other,) = set(BY_KIND.values()) - {task}
    if task != usual or not isinstance(known[0], str):
        console.note(f"'{column}' holds {kind.words}: task '{task}' (--task {other} changes that)")
    if task == usual:
        return recipe
    options.task = task
    return given_recipe(options, first=first)
