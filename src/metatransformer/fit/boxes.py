"""Fit of a task that finds objects: a detector is trained by epochs on tokens that the frozen trunk gave once.

Tokens are kept in half precision along the directions in which they vary most, in files of the run folder where there
is one, so that a killed run finds them again. Training samples come as they are, and as changed copies: mirror images,
where the input's settings allow them, and random parts. What chooses the epoch is the validation split.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from metatransformer.core.batch import Batch, Part, Target
from metatransformer.core.boxes import BoxLabels
from metatransformer.core.modality import Boxed
from metatransformer.core.samples import Record, View
from metatransformer.data.write import atomic_file
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted, suffix_of
from metatransformer.fit.grids import Grids, grids_of, learn_directions, padded
from metatransformer.fit.train import Trainer
from metatransformer.infer.boxes import answers_to, box_task, read_grids
from metatransformer.infer.dense import raw_view
from metatransformer.infer.kits import kit_of
from metatransformer.infer.loader import Batches, Loader, Place
from metatransformer.machine.console import Console
from metatransformer.model import MetaTransformer
from metatransformer.nn.detector import BoxHead, Truth, loss_of
from metatransformer.pipeline import Pipeline, Reader

LEAST_SIDE = 0.5  # of a sample's side that a part of it keeps
VISIBLE = 0.5  # share of a box that must lie in a part of a sample, for the part to show the object
SMALL = 1.5  # tokens: where the boxes of a class are narrower in the median that is told
SHOWN = 6  # samples of a split whose boxes are painted


@dataclass(frozen=True)
class Change:
    """A part of a sample, ``x1, y1, x2, y2`` in pixels, perhaps mirrored left to right."""

    window: tuple[int, int, int, int]
    mirrored: bool

    def pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Returns the changed picture ``[h, w, ...]``."""
        x1, y1, x2, y2 = self.window
        part = pixels[y1:y2, x1:x2]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)

    def boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns boxes ``[n, 4]`` in pixels of the changed picture, cut at its edges, and the share of each that is
        left.
        """
        x1, y1, x2, y2 = self.window
        moved = (boxes - [x1, y1, x1, y1]).clip(0, [x2 - x1, y2 - y1, x2 - x1, y2 - y1])
        areas = [(one[:, 2:] - one[:, :2]).prod(axis=1) for one in (moved, boxes)]
        if self.mirrored:
            moved = np.stack([x2 - x1 - moved[:, 2], moved[:, 1], x2 - x1 - moved[:, 0], moved[:, 3]], axis=1)
        return moved, areas[0] / np.maximum(areas[1], 1e-9)


def change_of(key: str, size: tuple[int, int], *, copy: int, flips: bool, seed: int) -> Change:
    """Returns how a copy of a sample differs from it: copy 0 not at all, the first one is its mirror image where
    pictures may be mirrored (``flips``), others are random parts in its aspect.
    """
    height, width = size
    whole = (0, 0, width, height)
    if not copy or (copy == 1 and flips):
        return Change(whole, bool(copy))
    rng = np.random.default_rng([seed, copy, zlib.crc32(key.encode())])
    share = rng.uniform(LEAST_SIDE, 1.0)
    w, h = max(1, round(share * width)), max(1, round(share * height))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    return Change((x, y, x + w, y + h), bool(flips and rng.random() < 0.5))


@dataclass(frozen=True, kw_only=True)
class Changed(Reader):
    """Reads changed copies of samples."""

    copy: int
    flips: bool
    seed: int

    def raw(self, record: Record) -> View:
        """Returns the raw arrays of the copy."""
        raw = super().raw(record)
        pixels = np.asarray(raw.inputs["pixels"])
        size = (pixels.shape[0], pixels.shape[1])
        change = change_of(record.key, size, copy=self.copy, flips=self.flips, seed=self.seed)
        return raw.with_inputs({**raw.inputs, "pixels": change.pixels(pixels)})

    def view(self, record: Record) -> View:
        """Returns the transformed arrays of the copy, whose size is not that of its labels."""
        return super().view(replace(record, target=None))


class Copies:
    """Copies of the training samples as batches of tokens, in an order that follows from seed and epoch."""

    def __init__(self, fitted: Fitted, copies: Sequence[Grids], *, flips: bool) -> None:
        pipeline, loader = fitted.pipeline, fitted.loaders["train"]
        self.task, self.name, self.copies = box_task(pipeline), pipeline.task_name, copies
        (self.input,) = pipeline.recipe.inputs_of(pipeline.task_name)
        self.keys = list(loader.examples.keys)
        labels: Sequence[BoxLabels] = loader.examples.targets[self.name]
        seed = pipeline.recipe.run.seed
        self.truths = [
            [
                self._truth(one, change_of(key, one.size, copy=copy, flips=flips, seed=seed), grids.shapes[row])
                for row, (key, one) in enumerate(zip(self.keys, labels, strict=True))
            ]
            for copy, grids in enumerate(copies)
        ]

    def _truth(self, labels: BoxLabels, change: Change, shape: np.ndarray) -> Tensor:
        """Returns the objects of a copy, ``[m, 5]``: corners in tokens, and class; of a crowd, and of what is cut off,
        the class -1.
        """
        boxes, left = change.boxes(labels.boxes)
        x1, y1, x2, y2 = change.window
        height, width = shape.tolist()
        scale = np.array([width / (x2 - x1), height / (y2 - y1)] * 2)
        classes = np.where(labels.crowd | (left < VISIBLE), -1, self.task.numbers(labels))
        there = (left > 0) & ((self.task.numbers(labels) >= 0) | labels.crowd)
        return torch.from_numpy(np.concatenate([boxes * scale, classes[:, None]], axis=1)[there].astype(np.float32))

    def steps(self, *, batch_size: int, place: Place) -> int:
        """Returns how many batches an epoch has."""
        del place
        return -(-len(self.keys) * len(self.copies) // batch_size)

    def epoch(
        self, *, batch_size: int, seed: int, epoch: int, augment: bool, drop: float, place: Place, skip: int
    ) -> Batches:
        """Yields the batches of one epoch, the first ``skip`` left out (they were done before a kill)."""
        del augment, drop, place
        order = np.random.default_rng([seed, epoch]).permutation(len(self.keys) * len(self.copies))
        for start in range(skip * batch_size, len(order), batch_size):
            chosen = order[start : start + batch_size]
            yield chosen, self._batch([divmod(place, len(self.keys)) for place in chosen.tolist()])

    def _batch(self, places: Sequence[tuple[int, int]]) -> Batch:
        tokens, real = padded([self.copies[copy].grid(row) for copy, row in places])
        truths = [self.truths[copy][row] for copy, row in places]
        most = max(1, *map(len, truths))
        target = torch.full((len(truths), most, 6), -1.0)  # the last one: there is a box
        for row, truth in enumerate(truths):
            target[row, : len(truth), :5], target[row, : len(truth), 5] = truth, 1
        part = Part({"tokens": tokens}, {"tokens": real})
        return Batch(tuple(self.keys[row] for _, row in places), {self.input: part}, {self.name: Target(target)})


@dataclass(frozen=True)
class Finding:
    """The loss of a detector on a batch of ``Copies``."""

    input: str
    task: str

    def step(self, model: MetaTransformer, batch: Batch) -> Tensor:
        """Returns the mean loss of the batch."""
        head, part = model.head(self.task), batch.parts[self.input]
        assert isinstance(head, BoxHead)
        cells = head.cells(part.inputs["tokens"], part.masks["tokens"])
        with torch.autocast(cells.logits.device.type, enabled=False):
            return loss_of(cells, [_truth(rows) for rows in batch.targets[self.task].to(cells.logits.device).values])


def _truth(rows: Tensor) -> Truth:
    there = rows[:, 5] > 0
    known, unknown = rows[there & (rows[:, 4] >= 0)], rows[there & (rows[:, 4] < 0)]
    return Truth(known[:, :4], known[:, 4].long(), unknown[:, :4])


class BoxTrainer(Trainer):
    """Trains on kept tokens, and validates on them."""

    grids: Grids

    def _scores(self) -> dict[str, float]:
        assert self.val.target is not None
        self.model.eval()
        return self.pipeline.task.metrics(answers_of_grids(self.pipeline, self.grids), self.val.target)


def answers_of_grids(pipeline: Pipeline, grids: Grids) -> Tensor:
    """Returns the task's answers to samples whose tokens are kept."""
    size, answers = pipeline.recipe.data.batch_size, []
    device = next(pipeline.head.parameters()).device
    for start in range(0, len(grids.shapes), size):
        rows = range(start, min(start + size, len(grids.shapes)))
        tokens, real = padded([grids.grid(row) for row in rows])
        sides = [(int(height), int(width)) for height, width in grids.sides[rows.start : rows.stop]]
        answers.append(answers_to(pipeline, tokens.to(device), real.to(device), sides))
    return torch.cat(answers)


def fit_boxes(fitted: Fitted, context: Context) -> None:
    """Trains the head of the one task, keeps the best epoch by the validation split, and leaves its answers to that."""
    pipeline = fitted.pipeline
    learn_directions(fitted, read=read_grids, context=context)
    (name,) = pipeline.recipe.inputs_of(pipeline.task_name)
    flips = bool(getattr(pipeline.recipe.inputs[name].options, "flip", False))
    count = 1 + (box_task(pipeline).copies if pipeline.recipe.data.augment else 0)
    copies = [_grids(fitted, "train", copy=copy, flips=flips, context=context) for copy in range(count)]
    grids = _grids(fitted, "val", copy=0, flips=flips, context=context)
    _tell_small(fitted, copies[0], context.console)
    trainer = BoxTrainer(
        pipeline,
        Finding(name, pipeline.task_name),
        train=Copies(fitted, copies, flips=flips),
        val=fitted.loaders["val"],
        start_loss=None,
        context=context,
    )
    trainer.grids = grids
    progress = trainer.fit()
    fitted.outcome.history, fitted.outcome.kept = progress.history, progress.kept
    pipeline.model.eval()
    outputs = fitted.outputs["val"] = answers_of_grids(pipeline, grids)
    assert trainer.val.target is not None
    pipeline.task.calibrate(outputs, trainer.val.target)  # from which score on boxes are painted
    keep = keeping_boxes(fitted, "val", context)
    for row, answer in enumerate(outputs) if keep is not None else ():
        keep(row, answer.numpy())


def _grids(fitted: Fitted, split: str, *, copy: int, flips: bool, context: Context) -> Grids:
    """Returns the reduced tokens of a split, or of a changed copy of it."""
    loader, seed = fitted.loaders[split], fitted.pipeline.recipe.run.seed
    if copy:
        route = {
            name: Changed(own.modality, own.transform, False, own.kit, copy=copy, flips=flips, seed=seed)
            for name, own in loader.route.items()
        }
        loader = Loader(route, loader.examples, cache_mb=0, tasks={})
    title = f"tokens, {split}" + (f", copy {copy}" if copy else "")
    return grids_of(fitted, loader, f"{split}-{copy}", read=read_grids, context=context, title=title)


def _tell_small(fitted: Fitted, grids: Grids, console: Console) -> None:
    """Says which classes have boxes that are hardly wider than a token."""
    task = box_task(fitted.pipeline)
    labels: Sequence[BoxLabels] = fitted.loaders["train"].examples.targets[fitted.pipeline.task_name]
    widths: list[list[float]] = [[] for _ in task.legend[0]]
    for row, one in enumerate(labels):
        scale = grids.shapes[row] / np.array(one.size)
        own = (one.boxes[:, 2:] - one.boxes[:, :2]) * scale[::-1]
        for number, width in zip(task.numbers(one).tolist(), np.sqrt(own.prod(axis=1)).tolist(), strict=True):
            if number >= 0:
                widths[number].append(width)
    for name, found in zip(task.legend[0], widths, strict=True):
        if found and (middle := float(np.median(found))) < SMALL:
            console.warn(
                f"boxes of '{name}' are {middle:.1f} tokens wide in the median: a larger input.size finds more"
            )


def keeping_boxes(fitted: Fitted, split: str, context: Context) -> Any:
    """Returns what paints the boxes of some samples of a split; None where nothing is kept."""
    if context.run is None or not context.run.writes:
        return None
    loader, folder = fitted.loaders[split], context.run.path
    suffix = suffix_of(fitted, fitted.pipeline.task_name)
    shown = set(np.linspace(0, len(loader) - 1, min(SHOWN, len(loader))).round().astype(int).tolist())

    def keep(row: int, answer: np.ndarray) -> None:
        if row in shown:
            path = folder / f"pictures{suffix}" / split / f"{row:06}.png"
            paint_boxes(fitted.pipeline, loader, row, torch.from_numpy(answer), path)

    return keep


def paint_boxes(pipeline: Pipeline, loader: Loader, row: int, answer: Tensor, path: Path) -> None:
    """Writes a picture of a sample with its true boxes, where they are known, and those that were found."""
    kit, task, raw = kit_of(pipeline, Boxed), box_task(pipeline), raw_view(pipeline, loader, row)
    names, colours = task.legend
    labels = loader.examples.targets.get(pipeline.task_name, [None] * len(loader))[row]
    boxes, scores, classes = task.found(answer)
    sure = scores >= task.threshold
    shown = [("found", boxes[sure], classes[sure], scores[sure])]
    if isinstance(labels, BoxLabels):
        numbers = task.numbers(labels)
        shown.insert(0, ("truth", labels.boxes[numbers >= 0], numbers[numbers >= 0], np.zeros(0)))
    height, width = raw.inputs["pixels"].shape[:2]
    wide = 4.3 * len(shown)
    figure = Figure(figsize=(wide, 0.5 + 4.3 * min(height / width, 2)), layout="constrained", dpi=180)
    for axes, (title, some, own, told) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
        kit.paint(axes, raw)
        axes.set_title(f"{title}: {len(some)}", fontsize=8)
        for place, (x1, y1, x2, y2) in enumerate(some.tolist()):
            colour = np.array(colours[own[place]]) / 255
            axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=colour, linewidth=1.2))
            if len(told):
                axes.text(x1, y1 - 1, f"{told[place]:.2f}", color=colour, fontsize=5, va="bottom", clip_on=True)
    there = sorted({int(number) for _, _, own, _ in shown for number in own})
    handles = [Patch(color=np.array(colours[one]) / 255, label=names[one]) for one in there]
    if handles:
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(len(handles), 8), fontsize=7, frameon=False
        )
    figure.suptitle(loader.examples.keys[row], fontsize=8, parse_math=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        FigureCanvasAgg(figure).print_png(file)
