"""Answers for every place of a sample: places to solve a head on, and what the head says of all of them.

A head answers for tokens, and places between them get what lies between their answers; where places have features of
their own, it answers for each. Samples go through the trunk one batch at a time; of each only drawn places or a tally
stay.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.batch import Batch, Part
from metatransformer.core.errors import DataError
from metatransformer.core.labels import PlaceLabels
from metatransformer.core.modality import Answer, Cut, Dense
from metatransformer.core.samples import View
from metatransformer.core.task import DenseTask
from metatransformer.core.tokens import Tokens
from metatransformer.infer.kits import Take, kit_of, require_one_row
from metatransformer.infer.loader import Loader, run_batches
from metatransformer.machine.console import Console
from metatransformer.nn.head import Head
from metatransformer.nn.queries import QueryHead
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


def draw_places(
    pipeline: Pipeline, loader: Loader, *, most: int, balanced: bool, seed: int, console: Console, title: str
) -> Drawn:
    """Returns up to ``most`` labelled places of all samples, as many of each; ``balanced`` draws half of them from
    every class that a sample has alike.
    """
    dense, task = kit_of(pipeline, Dense), dense_task(pipeline)
    rows = {key: row for row, key in enumerate(loader.examples.keys)}
    each = max(1, most // len(loader))
    labels = loader.examples.targets[pipeline.task_name]
    found = torch.full((len(loader), each), -1)

    def compute(batch: Batch) -> Tensor:
        drawn = []
        for key, tokens, places in _grids(pipeline, batch):
            row = rows[key]
            labels[row].require(dense.shape(places))
            chosen, classes = choose_places(task, labels[row], count=each, balanced=balanced, seed=(seed, row))
            found[row] = torch.from_numpy(classes)
            drawn.append(_known_by(dense, tokens, places, chosen))
        return torch.stack(drawn)

    features = run_batches(compute, pipeline, loader, console=console, title=title)
    return Drawn(features.flatten(0, 1), found.flatten())


def choose_places(
    task: DenseTask, labels: PlaceLabels, *, count: int, balanced: bool, seed: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the flat numbers of ``count`` labelled places of a sample, and the numbers of their classes."""
    truth, rng = task.numbers(labels).ravel(), np.random.default_rng(seed)
    known = np.flatnonzero(truth >= 0)
    parts = []
    if balanced:
        classes = np.unique(truth[known])
        shares = np.bincount(rng.integers(len(classes), size=count // 2), minlength=len(classes))
        parts = [rng.choice(known[truth[known] == one], share) for one, share in zip(classes, shares, strict=True)]
    chosen = np.concatenate([rng.choice(known, count - sum(map(len, parts))), *parts])
    return chosen, truth[chosen].astype(np.int64)


def answer_places(
    pipeline: Pipeline, loader: Loader, *, console: Console, title: str, keep: Keep | None = None
) -> Tensor:
    """Returns the task's ``answer`` to every sample, ``[n, ...]``, beside the truth where the loader knows it.

    ``keep`` is given the classes of each sample as they come.
    """
    dense, task, head = kit_of(pipeline, Dense), dense_task(pipeline), pipeline.head
    rows = {key: row for row, key in enumerate(loader.examples.keys)}
    labels = loader.examples.targets.get(pipeline.task_name) if loader.tasks else None

    def compute(batch: Batch) -> Tensor:
        answers = []
        for key, tokens, places in _grids(pipeline, batch):
            classes = _outputs(dense, head, tokens, places).argmax(dim=-1)
            numbers = classes.cpu().numpy().reshape(dense.shape(places))
            truth = labels[rows[key]] if labels is not None else None
            if truth is not None:
                truth.require(dense.shape(places))
            answers.append(task.answer(numbers, None if truth is None else task.numbers(truth)))
            if keep is not None:
                keep(rows[key], numbers)
        return torch.stack(answers)

    return run_batches(compute, pipeline, loader, console=console, title=title)


def read_grids(pipeline: Pipeline, loader: Loader, take: Take, *, console: Console, title: str) -> Tensor:
    """Returns what ``take`` makes of the features of all samples' tokens, as rows in the loader's order."""
    dense = kit_of(pipeline, Dense)

    def compute(batch: Batch) -> Tensor:
        found = []
        for key, tokens, places in _grids(pipeline, batch):
            height, width = dense.shape(places)
            real = torch.ones(1, *tokens.shape[:2], dtype=torch.bool)
            found.append(take([key], tokens[None], real, [(height, width)]))
        return torch.cat(found)

    return run_batches(compute, pipeline, loader, console=console, title=title)


def _known_by(dense: Dense, tokens: Tensor, places: np.ndarray, chosen: np.ndarray) -> Tensor:
    """Returns all features of chosen places ``[m, F]``."""
    found = dense.at(tokens, places, chosen)
    if dense.plain is None:
        return found
    return torch.cat([found, torch.from_numpy(dense.plain(places)[chosen]).to(found)], dim=1)


def _outputs(dense: Dense, head: Head, tokens: Tensor, places: np.ndarray) -> Tensor:
    """Returns the head's outputs at all places of a sample ``[n, C]``."""
    if isinstance(head, QueryHead):
        return dense.at(head.map_of(tokens), places, None)
    if dense.plain is None:
        outputs = head.predict(tokens.reshape(-1, tokens.shape[-1])).reshape(*tokens.shape[:-1], -1)
        return dense.at(outputs, places, None)
    some = np.array_split(np.arange(len(places)), -(-len(places) // AT_ONCE))
    return torch.cat([head.predict(_known_by(dense, tokens, places, chosen)) for chosen in some])


def _grids(pipeline: Pipeline, batch: Batch) -> Iterator[tuple[str, Tensor, np.ndarray]]:
    """Yields of each sample its key, the features of its real tokens in their grid ``[*grid, F]``, and its places."""
    (name,) = pipeline.head.readout.facts.axes
    part, whole = batch.parts[name], None
    for row, key in enumerate(batch.keys):
        places, cuts = part.places[row], _cuts(pipeline, name, part, row)
        assert places is not None, key
        if cuts is not None:
            yield key, _joined(pipeline, name, part, cuts), places
            continue
        whole = whole or _read(pipeline, batch)
        yield key, _real(whole[1][row], whole[0], row), places


def _read(pipeline: Pipeline, batch: Batch) -> tuple[Tokens, Tensor]:
    """Returns the tokens of a batch, and their features ``[B, N, F]``."""
    readout = pipeline.head.readout
    layers = pipeline.model.layers(batch, readout)
    require_one_row(layers[0])
    return layers[0], readout(layers)


def _cuts(pipeline: Pipeline, name: str, part: Part, row: int) -> Sequence[Cut] | None:
    """Returns the parts that a sample is read in, None where it is read at once."""
    cut, transform = kit_of(pipeline, Dense).cut, pipeline.route[name].transform
    if cut is None:
        return None
    inputs = {}
    for given, values in part.inputs.items():
        mask = part.masks[given][row]
        sizes = [int(mask.any(dim=[o for o in range(mask.ndim) if o != a]).sum()) for a in range(mask.ndim)]
        inputs[given] = values[row, *(slice(size) for size in sizes)][None]
    return cut(transform, inputs)


def _joined(pipeline: Pipeline, name: str, part: Part, cuts: Sequence[Cut]) -> Tensor:
    """Returns the features of a sample's tokens ``[*grid, F]``: where its parts overlap their mean, in which a part
    counts the less the nearer its edge is.
    """
    grid = [max(cut.where[axis].stop for cut in cuts) for axis in range(len(cuts[0].where))]
    found: list[tuple[Cut, Tensor]] = []
    for start in range(0, len(cuts), pipeline.recipe.data.batch_size):
        some = cuts[start : start + pipeline.recipe.data.batch_size]
        inputs = {given: torch.cat([cut.inputs[given] for cut in some]) for given in some[0].inputs}
        masks = {given: x.new_ones(x.shape[: part.masks[given].ndim], dtype=torch.bool) for given, x in inputs.items()}
        batch = Batch(("",) * len(some), {name: Part(inputs, masks)})
        found += zip(some, _read(pipeline, batch)[1], strict=True)
    first = found[0][1]
    total, weights = first.new_zeros(*grid, first.shape[-1]), first.new_zeros(*grid, 1)
    for cut, features in found:
        weight = _taper([end.stop - end.start for end in cut.where]).to(first)
        total[cut.where] += weight * features.reshape(*weight.shape[:-1], -1)
        weights[cut.where] += weight
    return total / weights


def _taper(sizes: Sequence[int]) -> Tensor:
    """Returns how much the places of a part count ``[*sizes, 1]``: least at its edges."""
    found = torch.ones(1)
    for size in sizes:
        rising = torch.arange(1, size + 1)
        found = found[..., None] * torch.minimum(rising, rising.flip(0))
    return found[0, ..., None].float()


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
    dense, task = kit_of(pipeline, Dense), dense_task(pipeline)
    (name,) = pipeline.recipe.inputs_of(pipeline.task_name)
    record = loader.examples.inputs[name][row]
    answer = Answer(numbers, *task.legend, task.codes, None if record is None else record.path)
    key = PurePosixPath(loader.examples.keys[row])
    inside = [part for part in key.parts if part not in ("/", "..", ".")]
    path = folder.joinpath(*inside[:-1], f"{PurePosixPath(inside[-1]).stem if inside else row}{dense.suffix}")
    try:
        return dense.write(path, partial(raw_view, pipeline, loader, row), answer)
    except OSError as error:
        do = "Make room, or choose another place."
        raise DataError(folder, must="take the answers", found=f"'{error.strerror}'", do=do) from error
