"""Answers for every place of a sample: places to solve a head on, and what the head says of all of them.

A head answers for tokens, and places between them get what lies between their answers; where places have features of
their own, it answers for each. Samples go through the trunk one batch at a time; of each only drawn places or a tally
stay.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Dense
from metatransformer.core.samples import View
from metatransformer.core.task import DenseTask
from metatransformer.core.tokens import Tokens
from metatransformer.infer.loader import Loader, run_batches
from metatransformer.machine.console import Console
from metatransformer.nn.head import Head
from metatransformer.pipeline import Pipeline

AT_ONCE = 4096  # places that have features of their own

# What a caller does with the classes of one sample: its row, and their numbers in the sample's shape.
Keep = Callable[[int, np.ndarray], None]


class Drawn(NamedTuple):
    """Places that were drawn: their features ``[m, F]`` and the numbers of their classes ``[m]``."""

    features: Tensor
    target: Tensor


def dense_task(pipeline: Pipeline) -> DenseTask:
    """Returns the one task, which is a dense one."""
    assert isinstance(pipeline.task, DenseTask), pipeline.task.name
    return pipeline.task


def dense_of(pipeline: Pipeline) -> Dense:
    """Returns what the one input of a dense task has for it.

    Raises:
        UsageError: its modality has nothing, or the task sees several.
    """
    (name, *others) = pipeline.recipe.inputs_of(pipeline.task_name)
    modality = pipeline.route[name].modality
    if others or modality.dense is None:
        found = f"{modality.name}{' and others' if others else ''}"
        must = f"see one input whose samples have places for the task '{pipeline.task.name}'"
        raise UsageError("the task", must=must, found=found, do="See 'metatransformer modalities'.")
    return modality.dense


def draw_places(
    pipeline: Pipeline, loader: Loader, *, most: int, balanced: bool, seed: int, console: Console, title: str
) -> Drawn:
    """Returns up to ``most`` labelled places of all samples, as many of each; ``balanced`` draws half of them from
    every class that a sample has alike.
    """
    dense, task = dense_of(pipeline), dense_task(pipeline)
    rows = {key: row for row, key in enumerate(loader.examples.keys)}
    each = max(1, most // len(loader))
    labels = loader.examples.targets[pipeline.task_name]
    found = torch.full((len(loader), each), -1)

    def compute(batch: Batch) -> Tensor:
        drawn = []
        for key, tokens, places in _grids(pipeline, batch):
            row = rows[key]
            truth = task.numbers(labels[row]).ravel()
            chosen = _chosen(truth, each, balanced=balanced, rng=np.random.default_rng([seed, row]))
            found[row] = torch.from_numpy(truth[chosen].astype(np.int64))
            drawn.append(_known_by(dense, tokens, places, chosen))
        return torch.stack(drawn)

    features = run_batches(compute, pipeline, loader, console=console, title=title)
    return Drawn(features.flatten(0, 1), found.flatten())


def _chosen(truth: np.ndarray, count: int, *, balanced: bool, rng: np.random.Generator) -> np.ndarray:
    """Returns ``count`` flat numbers of labelled places."""
    known = np.flatnonzero(truth >= 0)
    if not balanced:
        return rng.choice(known, count)
    classes = np.unique(truth[known])
    shares = np.bincount(rng.integers(len(classes), size=count // 2), minlength=len(classes))
    parts = [rng.choice(known[truth[known] == one], share) for one, share in zip(classes, shares, strict=True)]
    return np.concatenate([rng.choice(known, count - count // 2), *parts])


def answer_places(
    pipeline: Pipeline, loader: Loader, *, console: Console, title: str, keep: Keep | None = None
) -> Tensor:
    """Returns the task's ``answer`` to every sample, ``[n, ...]``, beside the truth where the loader knows it.

    ``keep`` is given the classes of each sample as they come.
    """
    dense, task, head = dense_of(pipeline), dense_task(pipeline), pipeline.head
    rows = {key: row for row, key in enumerate(loader.examples.keys)}
    labels = loader.examples.targets.get(pipeline.task_name) if loader.tasks else None

    def compute(batch: Batch) -> Tensor:
        answers = []
        for key, tokens, places in _grids(pipeline, batch):
            classes = _outputs(dense, head, tokens, places).argmax(dim=-1)
            numbers = classes.cpu().numpy().reshape(dense.shape(places))
            truth = labels[rows[key]] if labels is not None else None
            answers.append(task.answer(numbers, None if truth is None else task.numbers(truth)))
            if keep is not None:
                keep(rows[key], numbers)
        return torch.stack(answers)

    return run_batches(compute, pipeline, loader, console=console, title=title)


def _known_by(dense: Dense, tokens: Tensor, places: np.ndarray, chosen: np.ndarray) -> Tensor:
    """Returns all features of chosen places ``[m, F]``."""
    found = dense.at(tokens, places, chosen)
    if dense.plain is None:
        return found
    return torch.cat([found, torch.from_numpy(dense.plain(places)[chosen]).to(found)], dim=1)


def _outputs(dense: Dense, head: Head, tokens: Tensor, places: np.ndarray) -> Tensor:
    """Returns the head's outputs at all places of a sample ``[n, C]``."""
    if dense.plain is None:
        outputs = head.predict(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:-1], -1)
        return dense.at(outputs, places, None)
    some = np.array_split(np.arange(len(places)), -(-len(places) // AT_ONCE))
    return torch.cat([head.predict(_known_by(dense, tokens, places, chosen)) for chosen in some])


def _grids(pipeline: Pipeline, batch: Batch) -> list[tuple[str, Tensor, np.ndarray]]:
    """Returns of each sample its key, the features of its real tokens in their grid ``[*grid, F]``, and its places."""
    readout = pipeline.head.readout
    layers = pipeline.model.layers(batch, readout)
    first, features = layers[0], readout(layers)
    if first.samples is not None:
        must, do = "have one row of tokens a sample for this task", "Set input.mirrored=false."
        raise UsageError("the input", must=must, found="several", do=do)
    (part,) = (batch.parts[name] for name in readout.facts.axes)
    grids = []
    for row, key in enumerate(batch.keys):
        places = part.places[row]
        assert places is not None, key
        grids.append((key, _real(features[row], first, row), places))
    return grids


def _real(features: Tensor, tokens: Tokens, row: int) -> Tensor:
    """Returns a sample's features without padding, ``[*grid, F]``, or ``[N, F]`` where tokens lie on no grid."""
    mask = tokens.mask[row, ~tokens.summaries()]
    grid = tokens.spans[0].grid
    if not grid:
        return features[mask]
    there = mask.reshape(grid)
    for axis in range(len(grid)):
        others = [other for other in range(len(grid)) if other != axis]
        size = int(there.any(dim=others).sum()) if others else int(there.sum())
        features = features.reshape(*there.shape, -1).narrow(axis, 0, size)
        there = there.narrow(axis, 0, size)
    return features


def raw_view(pipeline: Pipeline, loader: Loader, row: int) -> View:
    """Returns the raw view of one sample of the one input, read anew."""
    (name,) = pipeline.recipe.inputs_of(pipeline.task_name)
    record = loader.examples.inputs[name][row]
    assert record is not None, row
    return pipeline.route[name].raw(record)


def write_answer(pipeline: Pipeline, loader: Loader, row: int, numbers: np.ndarray, *, folder: Path) -> Path:
    """Writes the classes of one sample into a folder, called as the sample, and returns the file.

    Raises:
        DataError: the folder cannot be written to.
    """
    dense, (names, colours) = dense_of(pipeline), dense_task(pipeline).legend
    key = PurePosixPath(loader.examples.keys[row])
    inside = [part for part in key.parts if part not in ("/", "..", ".")]
    path = folder.joinpath(*inside[:-1], f"{PurePosixPath(inside[-1]).stem if inside else row}{dense.suffix}")
    try:
        dense.write(path, partial(raw_view, pipeline, loader, row), numbers, names, colours)
    except OSError as error:
        do = "Make room, or choose another place."
        raise DataError(folder, must="take the answers", found=f"'{error.strerror}'", do=do) from error
    return path
