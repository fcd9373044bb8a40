"""Boxes of the objects in samples: what a head says of the cells of a grid, in each sample's own pixels."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.core.boxes import BoxLabels, named_ids
from metatransformer.core.errors import DataError
from metatransformer.core.modality import Boxed
from metatransformer.core.task import BoxTask
from metatransformer.data.examples import Examples
from metatransformer.data.write import atomic_file
from metatransformer.infer.dense import Keep
from metatransformer.infer.kits import Take, kit_of, require_one_row
from metatransformer.infer.loader import Loader, run_batches
from metatransformer.machine.console import Console
from metatransformer.nn.detector import BoxHead, answers_of
from metatransformer.pipeline import Pipeline


def box_task(pipeline: Pipeline) -> BoxTask:
    """Returns the one task, which finds objects."""
    assert isinstance(pipeline.task, BoxTask), pipeline.task.name
    return pipeline.task


def box_head(pipeline: Pipeline) -> BoxHead:
    """Returns the head of the one task."""
    assert isinstance(pipeline.head, BoxHead)
    return pipeline.head


def read_grids(pipeline: Pipeline, loader: Loader, take: Take, *, console: Console, title: str) -> Tensor:
    """Returns what ``take`` makes of the features of all samples' tokens, as rows in the loader's order."""
    kit, readout = kit_of(pipeline, Boxed), pipeline.head.readout

    def compute(batch: Batch) -> Tensor:
        layers = pipeline.model.layers(batch, readout)
        first, features = layers[0], readout(layers)
        require_one_row(first)
        (grid,) = (span.grid for span in first.spans)
        (part,) = (batch.parts[name] for name in readout.facts.axes)
        real = first.mask[:, ~first.summaries()].reshape(-1, *grid)
        sides = []
        for places in part.places:
            assert places is not None
            height, width = kit.shape(places)
            sides.append((height, width))
        return take(batch.keys, features.reshape(*real.shape, -1), real, sides)

    return run_batches(compute, pipeline, loader, console=console, title=title)


def answer_boxes(
    pipeline: Pipeline, loader: Loader, *, console: Console, title: str, keep: Keep | None = None
) -> Tensor:
    """Returns the task's ``answer`` to every sample, ``[n, ...]``; ``keep`` is given each as it comes."""
    head = box_head(pipeline)
    rows = {key: row for row, key in enumerate(loader.examples.keys)}

    def take(keys: Sequence[str], features: Tensor, real: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
        answers = answers_to(pipeline, head.reduced(features), real, sides)
        for key, answer in zip(keys, answers, strict=True):
            if keep is not None:
                keep(rows[key], answer.numpy())
        return answers

    return read_grids(pipeline, loader, take, console=console, title=title)


@torch.no_grad()
def answers_to(pipeline: Pipeline, tokens: Tensor, real: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
    """Returns the task's ``answer`` to samples of these heights and widths, of reduced tokens ``[B, h, w, K]``."""
    task, cells = box_task(pipeline), box_head(pipeline).cells(tokens, real)
    answers = []
    for row, (height, width) in enumerate(sides):
        boxes, scores, classes = answers_of(
            cells, row, most=task.most, least=task.least, above=task.overlap, soft=task.soft
        )
        edges = boxes.new_tensor([width, height, width, height])
        found = (boxes * edges / grid_of(real[row])).clamp(min=0).minimum(edges)
        there = ((found[:, 2:] - found[:, :2]) > 0).all(dim=1)
        answers.append(task.answer(found[there], scores[there], classes[there]))
    return torch.stack(answers)


def grid_of(real: Tensor) -> Tensor:
    """Returns how many tokens a sample is wide, high, wide and high."""
    height, width = int(real.any(dim=1).sum()), int(real.any(dim=0).sum())
    return torch.tensor([width, height, width, height], dtype=torch.float32, device=real.device)


def image_ids(examples: Examples, targets: Sequence[object]) -> list[int | str]:
    """Returns the id of each picture: the one that its data set gives it, else one of its name."""
    own = [target.image if isinstance(target, BoxLabels) else None for target in targets]
    if own and all(image is not None for image in own):
        return [image for image in own if image is not None]
    return named_ids(examples.keys)


def write_results(pipeline: Pipeline, examples: Examples, outputs: Tensor, path: Path) -> Path:
    """Writes what was found as COCO's results, a JSON list that its evaluators load, and returns the file.

    Raises:
        DataError: the file cannot be written.
    """
    targets = examples.targets.get(pipeline.task_name, [None] * len(examples))
    listed = box_task(pipeline).results(outputs, image_ids(examples, targets))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(json.dumps(listed), encoding="utf-8")
    except OSError as error:
        do = "Make room, or choose another place."
        raise DataError(path, must="take the boxes", found=f"'{error.strerror}'", do=do) from error
    return path
