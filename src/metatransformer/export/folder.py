"""``export``: a folder that predicts without this package: graph, preprocessing, a program that runs both, a page.

The folder is made beside its place under another name and appears once its graph was found equal to the model.
"""

import dataclasses
import importlib.util
import re
import secrets
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatransformer.core.batch import Batch, collate
from metatransformer.core.errors import DataError, MetaTransformerError, UsageError
from metatransformer.core.samples import Record, Sample
from metatransformer.data.examples import Examples
from metatransformer.data.write import write_json
from metatransformer.export.card import card_of, facts_of
from metatransformer.export.formats import Run, quiet, read_graph, require_format, write_graph
from metatransformer.export.graph import Entry, Graph, entries_of, require_exportable, tensors_of, traced
from metatransformer.export.page import Parity, axes_of, page_of
from metatransformer.export.settings import TENSORS, Prepared, preparation
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.loader import Loader
from metatransformer.infer.sources import examples_of
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import only
from metatransformer.saved import load_pipeline

SAMPLES = 8  # that graph and model are compared on
TOLERANCE = 1e-4  # of outputs, relative to the largest where that is above 1
_OURS = re.compile(r"^from metatransformer\.(?:\w+\.)*(\w+) import", re.MULTILINE)


def export_model(
    pipeline: Pipeline, examples: Examples, out: Path, *, kind: str, run: Path, console: Console
) -> dict[str, Any]:
    """Writes the model of one task as a folder in the format ``kind``; returns what it holds and how equal it is.

    ``examples`` are samples that graph and model are compared on, ``run`` is where the model was trained.

    Raises:
        UsageError: a model that has no graph, a place that is taken, a graph that answers otherwise than the model.
        MissingDependencyError: the format's package is not installed.
    """
    chosen = require_format(kind)
    require_exportable(pipeline)
    require_free(out)
    pipeline.model.to("cpu").requires_grad_(False).eval()
    examples = examples.take(range(min(SAMPLES, len(examples))))
    loader = Loader(pipeline.route, examples, cache_mb=256, tasks={})
    first = _batch(loader, [0])
    entries = entries_of(pipeline, first)
    names = [entry.name(alone=len(pipeline.route) == 1) for entry in entries]
    console.note(f"tracing: {', '.join(map(' '.join, zip(names, map(axes_of, entries), strict=True)))}")
    program = traced(Graph(pipeline, entries).eval(), tensors_of(pipeline, first, entries))
    with appearing(out) as folder:
        write_graph(program, folder / chosen.file, names=names)
        how = preparation(pipeline, [column[0] for column in examples.inputs.values()])
        worst = _compare(pipeline, loader, read_graph(folder / chosen.file, names=names), entries, names=names)
        parity = Parity(worst, len(examples), *_compare_prepared(pipeline, loader, how, entries))
        require_equal(parity)
        _write(folder, _config(pipeline, names, kind=kind, how=how), how, parity=parity)
        if how.module == TENSORS:
            _save(folder / "example.npz", _example(pipeline, first, entries, names))
        told = page_of(entries, names, kind=kind, task=pipeline.task.name, how=how, parity=parity)
        (folder / "README.md").write_text(card_of(facts_of(pipeline, run), told=told), encoding="utf-8")
    _tell(out, how, parity, console=console)
    return {"out": str(out), "format": kind, "inputs": names, "difference": worst, "prepared": how.module != TENSORS}


def _tell(out: Path, how: Prepared, parity: Parity, *, console: Console) -> None:
    equal = f"the graph equals the model within {parity.outputs:.1e} on {parity.samples} samples"
    console.note(f"{equal}, alone and twice in a batch")
    if how.module == TENSORS:
        console.note(f"it takes prepared tensors (example.npz): {how.why}")
    elif parity.files:
        prepared = f"within {parity.prepared:.1e} on {parity.files} samples"
        console.note(f"prepare.py equals the library's preprocessing {prepared}")
    else:
        console.note("prepare.py was not compared: no sample is a file, or a row of one, that it reads")
    console.note(f"run it: cd {out} && python run.py FILE")


def require_free(out: Path) -> None:
    """Raises UsageError where a folder to write is there already and not empty, or no folder."""
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        found = "a folder with files" if out.is_dir() else "a file"
        raise UsageError(f"--out {out}", must="be a new folder", found=found, do="Choose another name, or remove it.")


def require_equal(parity: Parity) -> None:
    """Raises UsageError where the graph answers otherwise than the model."""
    if parity.outputs > TOLERANCE or parity.prepared > TOLERANCE:
        what = "the graph's outputs" if parity.outputs > TOLERANCE else "prepare.py's arrays"
        worst = max(parity.outputs, parity.prepared)
        raise UsageError(
            what,
            must=f"equal the model's within {TOLERANCE:g}",
            found=f"a difference of {worst:.1e}",
            do="Nothing was written. Try another --format, and report it.",
        )


@contextmanager
def appearing(out: Path) -> Iterator[Path]:
    """Yields a folder that becomes ``out`` when the block ends, and is removed when it fails."""
    target = out.absolute()
    temporary = target.with_name(f".{target.name}-{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.is_dir():
            target.rmdir()  # empty
        temporary.rename(target)
    except OSError as error:
        raise DataError(out, must="be a folder that can be written", found=f"'{error.strerror or error}'") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _batch(loader: Loader, rows: Sequence[int]) -> Batch:
    samples: list[Sample] = [loader.sample(row) for row in rows]
    if gone := [name for name, view in samples[0].views.items() if view is None]:
        must = "have every input in the samples that the graph is compared on"
        raise DataError(samples[0].key, must=must, found=f"no '{gone[0]}'", do="Name complete samples by --data.")
    return collate(samples, fields=loader.fields)


def _compare(
    pipeline: Pipeline, loader: Loader, graph: Run, entries: Sequence[Entry], *, names: Sequence[str]
) -> float:
    """Returns the largest difference between the outputs of graph and model, of each sample alone and twice."""
    worst = 0.0
    for rows in ([row] * count for row in range(len(loader)) for count in (1, 2)):
        batch = _batch(loader, rows)
        with torch.no_grad():
            true = pipeline.model(batch, pipeline.task_name).float().numpy()
        given = {name: x.numpy() for name, x in zip(names, tensors_of(pipeline, batch, entries), strict=True)}
        with quiet():
            found = np.asarray(graph(given)[0])
        worst = max(worst, _difference(found, true))
    return worst


def _difference(found: np.ndarray, true: np.ndarray) -> float:
    """Returns the largest difference, relative to the largest value where that is above 1; of other shapes infinite."""
    if found.shape != true.shape:
        return float("inf")
    gap = np.abs(found.astype(np.float64) - true)
    gap[np.isnan(found) & np.isnan(true)] = 0.0
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0) / max(1.0, np.nanmax(np.abs(true), initial=0.0)))


def _compare_prepared(pipeline: Pipeline, loader: Loader, how: Prepared, entries: Sequence[Entry]) -> tuple[float, int]:
    """Returns the largest difference between what ``prepare`` and the library make of files, and of how many samples.

    Files that ``prepare`` says it does not read do not count.
    """
    if how.module == TENSORS:
        return 0.0, 0
    prepare, worst, count = importlib.import_module(f"metatransformer.export.runtime.{how.module}").prepare, 0.0, 0
    column, made = only(loader.examples.inputs, what="input"), {}
    for row in range(len(loader)):
        record = column[row]
        if record is None or record.path is None or not record.path.is_file():
            continue
        if record.path not in made:
            with suppress(ValueError, OSError, ImportError, KeyError, IndexError):
                made[record.path] = [inputs for _, inputs in prepare(record.path, how.settings)]
        samples, place = made.get(record.path, []), _place(record)
        if place < len(samples):
            true = tensors_of(pipeline, _batch(loader, [row]), entries)
            pairs = zip(entries, true, strict=True)
            worst = max(worst, *(_difference(samples[place][entry.field], x[0].numpy()) for entry, x in pairs))
            count += 1
    return worst, count


def _place(record: Record) -> int:
    """Returns which of the samples of its file a record is; those of a table are numbered by their keys."""
    number = record.key.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _example(
    pipeline: Pipeline, batch: Batch, entries: Sequence[Entry], names: Sequence[str]
) -> Mapping[str, np.ndarray]:
    """Returns empty inputs of one sample: their shapes and types say what goes in, and no sample is given away."""
    tensors = tensors_of(pipeline, batch, entries)
    return {name: np.zeros_like(x[0].numpy()) for name, x in zip(names, tensors, strict=True)}


def _config(pipeline: Pipeline, names: Sequence[str], *, kind: str, how: Prepared) -> dict[str, Any]:
    """Returns what ``run.py`` reads."""
    task, state = pipeline.task, pipeline.task.state()
    columns = {"regress": ["prediction"], "forecast": [f"step_{k + 1}" for k in range(task.outputs)]}.get(task.name, [])
    if task.name in ("classify", "multilabel"):
        labels = state["classes"] if task.name == "classify" else state["names"]
        columns = [*(["prediction"] if task.name == "classify" else []), *(f"p({label})" for label in labels)]
    return {
        "format": kind,
        "modality": {name: reader.modality.name for name, reader in pipeline.route.items()},
        "task": task.name,
        "columns": columns,
        "classes": state.get("classes", []),
        "inputs": list(names),
        "settings": how.settings,
    }


def _write(folder: Path, config: Mapping[str, Any], how: Prepared, *, parity: Parity) -> None:
    """Writes the programs and what they read."""
    write_json(folder / "config.json", {**config, "parity": dataclasses.asdict(parity)})
    _copy(f"metatransformer.export.runtime.{how.module}", folder / "prepare.py")
    _copy("metatransformer.export.runtime.run", folder / "run.py")


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name as NPZ."""
    with zipfile.ZipFile(path, "w") as file:
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w") as part:
                np.lib.format.write_array(part, array, allow_pickle=False)


def _copy(module: str, path: Path) -> None:
    """Copies a module and the modules of this package that it asks for, which it then finds beside itself."""
    source = _source(module)
    for line in _OURS.finditer(source):
        name = line[0].split()[1]
        _copy(name, path.with_name(f"{line[1]}.py"))
    path.write_text(_OURS.sub(r"from \1 import", source), encoding="utf-8")


def _source(module: str) -> str:
    place = importlib.util.find_spec(module)
    assert place is not None and place.origin is not None, module
    return Path(place.origin).read_text(encoding="utf-8")


def write_prepared(run: Path, data: Any, out: Path) -> list[Path]:
    """Returns the NPZ files of samples, written into a folder; see ``export.prepared``."""
    pipeline = load_pipeline(run)
    examples = read_dataset(data, pipeline.recipe, labelled=False).examples
    loader, found = Loader(pipeline.route, examples, cache_mb=0, tasks={}), []
    pipeline = pipeline.of_task(next(iter(pipeline.tasks)))
    out.mkdir(parents=True, exist_ok=True)
    for row in range(len(examples)):
        batch = _batch(loader, [row])
        entries = entries_of(pipeline, batch)
        names = [entry.name(alone=len(pipeline.route) == 1) for entry in entries]
        arrays = {name: x[0].numpy() for name, x in zip(names, tensors_of(pipeline, batch, entries), strict=True)}
        found.append(out / f"{row:06d}.npz")
        _save(found[-1], arrays)
    return found


def made_up(pipeline: Pipeline) -> Examples:
    """Returns made-up samples, where a model's own data is not here.

    Raises:
        DataError: made-up samples do not fit what the model has learned.
    """
    modality = pipeline.modality
    rng = np.random.default_rng(0)
    records = [modality.made_up(rng, number % 2, key=f"made up {number}") for number in range(SAMPLES)]
    examples = examples_of(records, pipeline.recipe)
    loader = Loader(pipeline.route, examples, cache_mb=0, tasks={})
    try:
        for row in range(len(examples)):
            loader.sample(row)
    except MetaTransformerError as error:
        do = "Name some by --data: a file, a folder or a table as for 'predict'."
        must = "have samples that graph and model are compared on"
        raise DataError("export RUN", must=must, found="none: the data of the run is not here", do=do) from error
    return examples
