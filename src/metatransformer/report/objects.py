"""The plain baseline of a task that finds objects: a forest says of every pixel what it is of, and what lies together,
or stands out, is an object.

Pictures are looked at small. A pixel is of an object where it lies in the ellipse of its box. For each class the way is
kept that scores best on the validation split: connected regions, or peaks with a box of the class's median size.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.ensemble import RandomForestClassifier
from torch import Tensor

from metatransformer.core.boxes import BoxLabels
from metatransformer.core.samples import View
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.boxes import box_task
from metatransformer.infer.dense import raw_view
from metatransformer.machine.console import Console
from metatransformer.report.places import plain_forest

SIDE = 120  # pixels: the shorter side of the pictures as they are looked at
DRAWN = 60_000  # pixels that the forest learns
SURE = (0.3, 0.5, 0.7)  # chances from which on a pixel is of a region
LEAST = 4  # pixels of a region
LOW = 0.1  # of a peak
PEAKS = 0.0  # instead of a chance: peaks, not regions


Seen = tuple[np.ndarray, np.ndarray]  # of a picture: chances of its pixels [h, w, C], and how wide and high one is


class Boxes(NamedTuple):
    """Boxes ``[n, 4]`` in a picture's own pixels, and how sure they are ``[n]``."""

    boxes: np.ndarray
    scores: np.ndarray


def forest_boxes(fitted: Fitted, split: str, *, console: Console) -> Tensor:
    """Returns what the plain baseline finds in a split, in the form of the task's ``answer``."""
    task = box_task(fitted.pipeline)
    forest, sizes = _learned(fitted, console)
    held_out, target = _looked_at(forest, fitted, "val", console), fitted.loaders["val"].target
    assert target is not None
    scores = {way: task.metrics(_answers(fitted, held_out, sizes, {}, way), target) for way in (PEAKS, *SURE)}
    best = {
        number: max(scores, key=lambda way: scores[way].get(f"ap({name})", 0.0))
        for number, name in enumerate(task.legend[0])
    }
    return _answers(fitted, _looked_at(forest, fitted, split, console), sizes, best, PEAKS)


def _answers(
    fitted: Fitted,
    pictures: Sequence[tuple[np.ndarray, np.ndarray]],
    sizes: np.ndarray,
    ways: Mapping[int, float],
    other: float,
) -> Tensor:
    """Returns the task's answers: each class by its own way, by the ``other`` one where it has none."""
    task, answers = box_task(fitted.pipeline), []
    for chances, scale in pictures:
        found = [
            boxes_of(chances[..., number], scale, size=size, way=ways.get(number, other))
            for number, size in enumerate(sizes)
        ]
        classes = np.repeat(np.arange(len(found)), [len(one.scores) for one in found])
        boxes, scores = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.argsort(-scores, kind="stable")[: task.most]
        answers.append(task.answer(*(torch.from_numpy(part[order]) for part in (boxes, scores, classes))))
    return torch.stack(answers)


def boxes_of(chance: np.ndarray, scale: np.ndarray, *, size: np.ndarray, way: float) -> Boxes:
    """Returns objects of one class from the chance of each pixel ``[h, w]``: regions of more than ``way``, or peaks.

    ``scale`` is how many of the picture's own pixels one is wide and high, ``size`` width and height of a usual box.
    """
    from scipy import ndimage

    if way == PEAKS:
        reach = np.maximum(size / scale, 1)[::-1]
        smooth = ndimage.gaussian_filter(chance, reach / 4)
        top = smooth == ndimage.maximum_filter(smooth, size=np.maximum(reach * 0.6, 3).astype(int))
        rows, columns = np.nonzero(top & (smooth > LOW))
        middles = (np.stack([columns, rows], axis=1) + 0.5) * scale
        return Boxes(np.concatenate([middles - size / 2, middles + size / 2], axis=1), smooth[rows, columns])
    regions, count = ndimage.label(chance > way)
    sizes = np.bincount(regions.ravel(), minlength=count + 1)[1:]
    found = [one for one, pixels in zip(ndimage.find_objects(regions), sizes, strict=True) if pixels >= LEAST]
    means = ndimage.mean(chance, regions, 1 + np.flatnonzero(sizes >= LEAST)) if found else []
    edges = [[across.start, down.start, across.stop, down.stop] for down, across in found]
    return Boxes(np.array(edges, dtype=float).reshape(-1, 4) * np.tile(scale, 2), np.asarray(means, dtype=float))


def pixel_classes(labels: BoxLabels, numbers: np.ndarray, shape: tuple[int, int], *, ground: int) -> np.ndarray:
    """Returns the number of the class of each pixel of a picture seen at ``shape`` (h, w): that of the smallest box in
    whose ellipse it lies, ``ground`` where there is none, -1 in boxes whose objects are not known.
    """
    found = np.full(shape, ground)
    down, across = ((np.arange(side) + 0.5) * whole / side for side, whole in zip(shape, labels.size, strict=True))
    order = np.argsort(-(labels.boxes[:, 2:] - labels.boxes[:, :2]).prod(axis=1))
    for (x1, y1, x2, y2), number in zip(labels.boxes[order], np.where(labels.crowd, -1, numbers)[order], strict=True):
        apart = ((across - (x1 + x2) / 2) / (x2 - x1)) ** 2 + (((down - (y1 + y2) / 2) / (y2 - y1)) ** 2)[:, None]
        found[apart <= 0.25] = number
    return found


def _learned(fitted: Fitted, console: Console) -> tuple[RandomForestClassifier, np.ndarray]:
    """Returns the forest, and the median width and height of each class ``[C, 2]``."""
    pipeline, loader, task = fitted.pipeline, fitted.loaders["train"], box_task(fitted.pipeline)
    rng, features, classes = np.random.default_rng(pipeline.recipe.run.seed), [], []
    each, sides = max(1, DRAWN // len(loader)), [[] for _ in task.legend[0]]
    for row, labels in enumerate(loader.examples.targets[pipeline.task_name]):
        small, _ = _small(fitted, "train", row)
        numbers = task.numbers(labels)
        for number, box in zip(numbers[~labels.crowd], labels.boxes[~labels.crowd], strict=True):
            if number >= 0:
                sides[number].append(box[2:] - box[:2])
        truth = pixel_classes(labels, numbers, small.shape[:2], ground=len(sides)).ravel()
        known = np.flatnonzero(truth >= 0)
        shares = 1 / np.bincount(truth[known])[truth[known]]  # half as they come, half of every class alike
        chance = (shares / shares.sum() + 1 / len(known)) / 2
        chosen = rng.choice(known, min(each, len(known)), replace=False, p=chance)
        features.append(_local(fitted, small, chosen))
        classes.append(truth[chosen])
    forest = plain_forest().fit(np.concatenate(features), np.concatenate(classes))
    console.note("a forest on local features learned what pixels are of")
    return forest, np.array([np.median(one, axis=0) if one else (1, 1) for one in sides], dtype=float)


def _looked_at(forest: RandomForestClassifier, fitted: Fitted, split: str, console: Console) -> list[Seen]:
    """Returns what the forest says of each picture."""
    found, many = [], len(box_task(fitted.pipeline).legend[0])
    with console.bar(f"objects of the plain baseline, {split}", total=len(fitted.loaders[split])) as bar:
        for row in range(len(fitted.loaders[split])):
            small, scale = _small(fitted, split, row)
            chances = np.zeros((*small.shape[:2], many + 1))
            chances.reshape(-1, many + 1)[:, forest.classes_] = forest.predict_proba(_local(fitted, small, None))
            found.append((chances[..., :many], scale))
            bar.advance()
    return found


def _small(fitted: Fitted, split: str, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns a picture ``[h, w, 3 or 1]`` as it is looked at, and its scale across and down."""
    pixels = np.asarray(raw_view(fitted.pipeline, fitted.loaders[split], row).inputs["pixels"], dtype=np.float32)
    height, width = pixels.shape[:2]
    shape = [max(1, round(side * min(1, SIDE / min(height, width)))) for side in (height, width)]
    image = torch.from_numpy(pixels.reshape(height, width, -1)).permute(2, 0, 1)[None]
    small = F.interpolate(image, size=shape, mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    return small, np.array([width / shape[1], height / shape[0]])


def _local(fitted: Fitted, small: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
    """Returns what the modality's plain model knows pixels by ``[m, F]``."""
    (name,) = fitted.pipeline.recipe.inputs_of(fitted.pipeline.task_name)
    dense = fitted.pipeline.route[name].modality.dense
    assert dense is not None, name  # what has objects has places
    return dense.local(View("", {"pixels": small}), np.array(small.shape[:2]), chosen)
