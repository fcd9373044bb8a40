"""``fit SUITE.yaml``: several data sets, each with its own modality and task, become one model on one trunk.

Each data set is what one ``fit`` command would be, and its run lies in ``RUN/tasks/NAME``; ``RUN/model`` is the one
model of all. Nothing is learned in common where the trunk stays frozen, so each task answers as a model of its own
would. A later call with more data sets fits these alone and adds them; the others stay as they are.
"""

import os
import shutil
import time
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from metatransformer.core.errors import MetaTransformerError, UsageError, nearest
from metatransformer.data.examples import Examples
from metatransformer.data.write import write_json
from metatransformer.faces.cli import commands
from metatransformer.fit.fit import identity_of, require_learnable
from metatransformer.fit.jointly import fit_jointly
from metatransformer.fit.run import RunFolder
from metatransformer.infer.loader import Place
from metatransformer.infer.sources import named
from metatransformer.machine.about import about_machine
from metatransformer.machine.clock import duration
from metatransformer.machine.console import Console
from metatransformer.pipeline import make_task
from metatransformer.recipe import Recipe, merged, to_dict, tune_mode
from metatransformer.report.page import Summary, join_reports
from metatransformer.saved import read_description
from metatransformer.together import add_model
from metatransformer.trunk import load_encoder

FLAGS = ("modality", "inputs", "target", "task")  # of 'fit', which each data set says for itself
SUFFIXES = (".yaml", ".yml")


def is_suite(data: str) -> bool:
    """Returns whether the data of a command is a file that lists data sets."""
    return Path(data).suffix.lower() in SUFFIXES


def read_suite(options: Namespace) -> dict[str, Namespace]:
    """Returns for each data set of a suite what the options of its own command would be.

    Raises:
        UsageError: the file is none, or says what it cannot say.
    """
    path = Path(options.data)
    given = [flag for flag in (*FLAGS, "recipe") if getattr(options, flag, "")]
    if given:
        must = "be left out beside a suite, in which each data set says it for itself"
        raise UsageError(f"--{given[0]}", must=must, found=repr(getattr(options, given[0])))
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"suite {path}", must="be a readable file", found=f"'{error.strerror}'") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"suite {path}", must="be valid YAML in UTF-8", found=str(error)) from error
    sets = content.get("sets") if isinstance(content, Mapping) else None
    if not isinstance(sets, Mapping) or not sets or not all(isinstance(own, Mapping) for own in sets.values()):
        must, do = "have 'sets': data sets by name", "For example sets: {digits: {data: digits/, modality: audio}}."
        raise UsageError(f"suite {path}", must=must, found="none", do=do)
    shared = {key: value for key, value in content.items() if key != "sets"}
    return {str(name): _options(options, str(name), own, shared, root=path.parent) for name, own in sets.items()}


def _options(
    options: Namespace, name: str, own: Mapping[str, Any], shared: Mapping[str, Any], *, root: Path
) -> Namespace:
    """Returns the options of one data set; the recipe's keys of suite and data set are its ``base``."""
    where = f"suite, data set '{name}'"
    if not isinstance(own.get("data"), str):
        do = nearest("data", own)
        raise UsageError(
            where, must="say its data: a path, from the suite's folder", found=repr(own.get("data")), do=do
        )
    flags = {flag: own[flag] for flag in FLAGS if isinstance(own.get(flag), str)}
    base = {key: value for key, value in own.items() if key != "data" and key not in flags}
    blank = dict.fromkeys((*FLAGS, "recipe"), "")
    return Namespace(
        **{**vars(options), **blank, **flags, "data": str(root / own["data"]), "base": merged(shared, base)}
    )


@dataclass(frozen=True)
class _Set:
    """A data set that is ready to be fitted."""

    name: str
    options: Namespace
    examples: Examples
    recipe: Recipe
    folder: Path


def fit_suite(options: Namespace) -> commands.Result:
    """Fits each data set, adds it to the one model, and tells the scores of all."""
    console, begun = Console(), time.monotonic()
    out = Path(options.out)
    if (processes := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        do = "Start it without torchrun, or fit each data set by itself and add it with --add-to."
        raise UsageError("fit of a suite", must="run in one process", found=f"{processes} processes", do=do)
    sets = [_prepared(name, own, out=out, console=console) for name, own in read_suite(options).items()]
    _require_one_trunk(sets)
    if _in_common(sets[0].recipe):
        return _fit_shared(sets, options, out=out, console=console)
    done = {} if options.overwrite else {one.name: one for one in sets if _is_done(one, out / "model")}
    _begin(out, sets, overwrite=options.overwrite)
    told: dict[str, dict[str, Any]] = {}
    for one in sets:
        console.note(f"data set '{one.name}': {one.options.data}")
        if one.name in done:
            console.note("fitted before; it stays as it is")
        else:
            _fit(one, sets=len(sets), console=console)
        _add(one, out / "model")
        told[one.name] = RunFolder(one.folder, place=Place()).metrics()
    about = RunFolder(out, place=Place()).about()
    ended = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(out / "metrics.json", {"metrics": {name: own["metrics"] for name, own in told.items()}})
    write_json(out / "run.json", about | {"status": "done", "ended": ended})
    _tell(sets, told, out=out, seconds=time.monotonic() - begun, console=console)
    return {"run": str(out), "tasks": {name: {"metrics": own["metrics"]} for name, own in told.items()}}, 0


def check_suite(options: Namespace) -> commands.Result:
    """Checks each data set as a command of its own would; status 2 when one is bad."""
    console, found = Console(), {}
    for name, own in read_suite(options).items():
        console.note(f"data set '{name}':")
        own.base.pop("encoder", None)  # nothing is fetched
        found[name], _ = commands.check(own)
    bad = sum(told["bad"] for told in found.values())
    return {"sets": found, "samples": sum(told["samples"] for told in found.values()), "bad": bad}, 2 * bool(bad)


def _fit_shared(sets: list[_Set], options: Namespace, *, out: Path, console: Console) -> commands.Result:
    """Trains what all data sets share, in one run, and tells the scores."""
    tune = sets[0].recipe.tune
    recipe = replace(Recipe.joined({one.name: one.recipe for one in sets}), tune=tune, optim=sets[0].recipe.optim)
    examples = {one.name: one.examples for one in sets}
    sources = {one.name: str(Path(one.options.data).resolve()) for one in sets}
    begun = time.monotonic()
    fitted = fit_jointly(examples, recipe, out=out, overwrite=options.overwrite, sources=sources, console=console)
    scores = fitted.scores() if len(fitted.outcomes) > 1 else {next(iter(fitted.outcomes)): fitted.scores()}
    told: dict[str, dict[str, Any]] = {}
    for one in sets:
        own = {task: scores[task] for task in one.recipe.tasks}
        told[one.name] = {"metrics": own if len(own) > 1 else next(iter(own.values()))}
    _tell(sets, told, out=out, seconds=time.monotonic() - begun, console=console)
    return {"run": str(out), "tasks": {name: {"metrics": own["metrics"]} for name, own in told.items()}}, 0


def _prepared(name: str, options: Namespace, *, out: Path, console: Console) -> _Set:
    """Returns a data set whose samples are indexed and split: what is bad in any shows before one is fitted."""
    console.note(f"data set '{name}':")
    try:
        recipe = commands.given_recipe(options)
        examples, recipe = named(*commands.learned(options, recipe, console), name)
        require_learnable(examples, recipe)
    except MetaTransformerError as error:
        raise type(error)(
            f"data set '{name}': {error.where}", must=error.must, found=error.found, do=error.do
        ) from error
    return _Set(name, options, examples, recipe, out / "tasks" / name)


def _require_one_trunk(sets: list[_Set]) -> None:
    first, *others = sets
    for one in others:
        for key, ours, theirs in (
            ("encoder", one.recipe.encoder, first.recipe.encoder),
            ("run.precision", one.recipe.run.precision, first.recipe.run.precision),
            ("tune", _in_common(one.recipe), _in_common(first.recipe)),
        ):
            if ours != theirs:
                must = f"be that of '{first.name}', {theirs or 'head, tokens or ends'}: all share one trunk"
                raise UsageError(f"data set '{one.name}', {key}", must=must, found=ours or one.recipe.tune)


def _in_common(recipe: Recipe) -> str:
    """Returns the tune mode where it changes what all data sets share, else nothing."""
    return "" if tune_mode(recipe.tune)[0] in ("head", "tokens", "ends") else recipe.tune


def _is_done(one: _Set, model: Path) -> bool:
    """Returns whether a data set was fitted before, as the suite has it now, and what it learned is still there.

    Raises:
        UsageError: it was fitted, or begun, in another way.
    """
    if not (one.folder / "run.json").is_file():
        return False
    identity = identity_of(one.examples, load_encoder(one.recipe.encoder))
    done = RunFolder(one.folder, place=Place()).is_done(one.recipe, identity=identity)
    return done and ((one.folder / "model").is_dir() or _is_in(one, model))


def _is_in(one: _Set, model: Path) -> bool:
    known = (model / "model.json").is_file() and Recipe.of(read_description(model)["recipe"]).sets
    return bool(known) and one.name in known


def _begin(out: Path, sets: list[_Set], *, overwrite: bool) -> None:
    """Makes the folder of the suite, or takes it up."""
    known = (out / "run.json").is_file()
    if out.exists() and not known and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"--out {out}", must="be a new or empty folder", found="other files in it", do="Name another.")
    if known and "sets" not in RunFolder(out, place=Place()).about().get("recipe", {}):
        must, do = "hold the run of a suite", "Name another folder."
        raise UsageError(f"--out {out}", must=must, found="one of a single data set", do=do)
    if overwrite and known:
        shutil.rmtree(out / "model", ignore_errors=True)
    about = {
        "status": "running",
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about_machine(),
        "recipe": to_dict(Recipe.joined({one.name: one.recipe for one in sets})),
        "identity": {},
        "data": "",
    }
    write_json(out / "run.json", about)


def _fit(one: _Set, *, sets: int, console: Console) -> None:
    """Fits one data set in a run of its own."""
    recipe = one.recipe
    if recipe.run.minutes:  # of all data sets together
        recipe = replace(recipe, run=replace(recipe.run, minutes=recipe.run.minutes / sets))
    # A finished run whose model is gone, as an --overwrite that was cut off leaves it, is made again.
    run = RunFolder(one.folder, place=Place())
    gone = (one.folder / "run.json").is_file() and run.about()["status"] == "done"
    overwrite = one.options.overwrite or gone
    options = Namespace(**{**vars(one.options), "out": str(one.folder), "overwrite": overwrite})
    commands.fit_one(one.examples, recipe, options, begun=time.monotonic(), console=console)


def _add(one: _Set, model: Path) -> None:
    """Moves the model of a data set into the one model; a call that was cut off may have done it."""
    part = one.folder / "model"
    if not part.is_dir():
        return
    if not _is_in(one, model):
        add_model(part, model, name=one.name)
    shutil.rmtree(part)


def _tell(
    sets: list[_Set], told: Mapping[str, Mapping[str, Any]], *, out: Path, seconds: float, console: Console
) -> None:
    """Prints the scores of all tasks, and writes one report of them."""
    rows = []
    for one in sets:
        for task in one.recipe.tasks:
            scores = told[one.name]["metrics"]
            scores = scores[task] if len(one.recipe.tasks) > 1 else scores
            split = "test" if "test" in scores else "val"
            metric = make_task(one.recipe, task).primary
            kinds = ", ".join(given.modality for given in one.recipe.inputs.values())
            rows.append(
                (task, kinds, one.recipe.tasks[task].name, f"{metric} ({split})", f"{scores[split][metric]:.4f}")
            )
    columns = ["task", "modality", "kind", "metric", "score"]
    console.table("scores", columns, rows)
    if tune := _in_common(sets[0].recipe):
        lead = f"Several data sets, one model on one trunk, which they tuned together ({tune})."
    else:
        lead = "Several data sets, one model on one frozen trunk. Each task answers as a model of its own would."
    reports = [path for one in sets for path in sorted(one.folder.glob("report*.html"))] or sorted(out.glob("report-*"))
    command = "\n".join(f"metatransformer predict {out} DATA --task {row[0]} --out predictions.csv" for row in rows)
    summary = Summary(out.name, lead, columns, rows, commands=command)
    join_reports(reports, out / "report.html", summary=summary)
    console.note(f"{len(rows)} tasks in {duration(seconds)}; one model: {out} (report.html, model/, tasks/)")
