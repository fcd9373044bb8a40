"""Detection: the objects in a sample, a box, a class and a score each.

Classes are the categories that training boxes have, under the ids of the user's own file; none is reserved and none
shifted, and what is written has the same ids. What is kept of the answer to a whole sample are its boxes, best first.
Scores are those of COCO (faster-coco-eval): average precision over ten overlaps from .50 to .95, over 101 recalls and
all classes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.boxes import BoxLabels
from metatransformer.core.errors import DataError, nearest
from metatransformer.core.figures import Lines, Rows, Section
from metatransformer.core.labels import Colour
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.task import BoxTask, Score, TaskOptions, require_named
from metatransformer.nn.boxes import overlap

SCORES = {
    "ap": Score(words="AP (COCO)"),
    "ap50": Score(words="AP50"),
    "ap75": Score(words="AP75"),
}
SIZES = ("small", "medium", "large")  # below 32 and 96 pixels squared, and beyond: COCO's
OUT = 6  # numbers a kept box has: x1, y1, x2, y2, score, class
IN = 7  # numbers a true box has: x1, y1, x2, y2, class, crowd, area
SAME = 0.5  # IoU from which on a box is a true one, where people count
FEW = 10  # boxes of a class, below which that is told
# Colours that differ as well as may be, also on grey: of matplotlib's and Okabe and Ito's.
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (213, 94, 0),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (148, 103, 189),
    (23, 190, 207),
    (188, 189, 34),
)


@dataclass(frozen=True)
class DetectOptions(TaskOptions, Settings):
    """``ignore`` names categories, or their ids, that are neither learned nor scored. ``most`` boxes of a sample are
    kept, those of a score of ``least`` or more. Two boxes of a class whose overlap (IoU) is beyond ``overlap`` are one;
    where ``soft`` the score of the less sure one is lowered instead (Soft-NMS). ``shown`` is the score from which on
    boxes are counted and painted: "auto" is where validation has the best F1. ``width`` is the head's; it learns from
    each training sample and ``copies`` changed copies of it: its mirror image, where that may be, then parts of it.
    """

    ignore: tuple[str, ...] = ()
    most: int = 100
    least: float = 0.01
    overlap: float = 0.6
    soft: bool = False
    shown: float | Literal["auto"] = "auto"
    width: int = 128
    copies: int = 1

    key = "recipe key 'task.{}'"
    rules = (
        Rule("most", "be at least 1", lambda own: own.most >= 1),
        Rule("least", "lie in (0, 1)", lambda own: 0 < own.least < 1),
        Rule("overlap", "lie in (0, 1]", lambda own: 0 < own.overlap <= 1),
        Rule("shown", "be 'auto' or lie in [0, 1]", lambda own: own.shown == "auto" or 0 <= own.shown <= 1),
        Rule("width", "be at least 1", lambda own: own.width >= 1),
        Rule("copies", "be at least 0", lambda own: own.copies >= 0),
    )


class Detect(BoxTask):
    """Boxes of the categories that training has."""

    name = "detect"
    title = "detection"
    scores = SCORES
    options = DetectOptions
    estimator = "Detector"
    constant_words = "nothing found"

    def __init__(self, options: DetectOptions | None = None) -> None:
        super().__init__(options)
        options = options or DetectOptions(name=self.name)
        self.ignore, self.most, self.least = options.ignore, options.most, options.least
        self.overlap, self.soft, self.asked = options.overlap, options.soft, options.shown
        self.width, self.copies = options.width, options.copies
        self.classes_: list[str] = []
        self.ids_: list[int] = []
        self.counts_: list[int] = []
        self.shown_ = 0.3 if options.shown == "auto" else float(options.shown)

    # --- what is learned ---------------------------------------------------------------------------------------------

    def check(self, target: Any) -> None:
        """Refuses what is no boxes."""
        if target is not None and not isinstance(target, BoxLabels):
            do = "Hand in a COCO file, or pictures with VOC or YOLO files: see 'metatransformer modalities NAME'."
            raise DataError("labels", must="be boxes with categories", found=repr(target)[:60], do=do)

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns the categories that boxes have, their ids and how often each occurs."""
        counts, names = Counter[int](), targets[0].names
        for target in targets:
            counts.update(target.categories[~target.crowd].tolist())
        require_named(self.ignore, names.values())
        known = [number for number in sorted(counts) if not self._ignored(number, names)]
        if not known:
            raise DataError("training labels", must="hold boxes", found=f"none in {len(targets):,} samples")
        self.ids_, self.counts_ = known, [counts[number] for number in known]
        self.classes_ = [names.get(number, str(number)) for number in known]
        for target in targets:
            self.numbers(target)

    def _ignored(self, number: int, names: Mapping[int, str]) -> bool:
        return names.get(number, "") in self.ignore or str(number) in self.ignore

    @property
    def ids(self) -> Sequence[int]:
        """The ids of the categories in the user's own labels."""
        return self.ids_

    def numbers(self, labels: BoxLabels) -> np.ndarray:
        """Returns the number of the class of each box, -1 where it is not learned.

        Raises:
            DataError: a class that training did not see.
        """
        found = np.full(len(labels.categories), -1)
        for number in np.unique(labels.categories).tolist():
            if self._ignored(number, labels.names):
                continue
            name = labels.names.get(number, str(number))
            if name not in self.classes_:
                if labels.crowd[labels.categories == number].all():
                    continue  # a crowd alone is no object to learn
                do = "Train on samples that have it, or leave it out with task.ignore."
                raise DataError(
                    labels.where,
                    must=f"hold categories that training saw ({', '.join(self.classes_[:12])})",
                    found=f"'{name}' (id {number})",
                    do=f"{nearest(name, self.classes_)} {do}",
                )
            found[labels.categories == number] = self.classes_.index(name)
        return found

    @property
    def threshold(self) -> float:
        """The score from which on boxes are counted and painted."""
        return self.shown_

    @property
    def outputs(self) -> int:
        """The number of classes: a head answers for cells."""
        return len(self.classes_)

    @property
    def legend(self) -> tuple[Sequence[str], Sequence[Colour]]:
        """The names of the classes, and their colours."""
        return self.classes_, [COLOURS[number % len(COLOURS)] for number in range(len(self.classes_))]

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns the boxes of each sample, ``[B, m, 7]``: corners in pixels, class, crowd, area; class -1 fills up."""
        rows = max((len(target.boxes) for target in targets), default=0)
        found = np.zeros((len(targets), max(rows, 1), IN), dtype=np.float32)
        found[:, :, 4] = -1
        for place, target in enumerate(targets):
            count = len(target.boxes)
            found[place, :count, :4] = target.boxes
            found[place, :count, 4] = self.numbers(target)
            found[place, :count, 5], found[place, :count, 6] = target.crowd, target.areas
        return torch.from_numpy(found)

    def constant(self) -> Tensor:
        """Returns the answer that finds nothing."""
        return torch.tensor([0.0, 0, 0, 0, 0, -1]).repeat(self.most)

    def state(self) -> dict[str, Any]:
        """Returns the classes with ids and counts, and the score from which on boxes are shown."""
        return {"classes": self.classes_, "ids": self.ids_, "counts": self.counts_, "shown": self.shown_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state`` returned."""
        self.classes_, self.ids_ = list(state["classes"]), [int(number) for number in state["ids"]]
        self.counts_, self.shown_ = list(state["counts"]), float(state["shown"])

    def calibrate(self, outputs: Tensor, target: Tensor) -> None:
        """Learns from which score on a box is shown: where F1 is best, over all classes and samples."""
        scores, right, there = self._matched(outputs, target)
        if self.asked != "auto" or not len(scores) or not there:
            return
        order = np.argsort(-scores, kind="stable")
        hits = np.cumsum(right[order])
        best = int(np.argmax(2 * hits / (np.arange(1, len(order) + 1) + there)))
        self.shown_ = round(float(scores[order][best]), 3)

    # --- answers -----------------------------------------------------------------------------------------------------

    def answer(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Returns the boxes of a sample, best first, ``[most 6]``."""
        kept = self.constant().reshape(self.most, OUT)
        count = min(len(boxes), self.most)
        kept[:count] = torch.cat([boxes, scores[:, None], classes[:, None].to(boxes)], dim=1)[:count].cpu()
        return kept.flatten()

    def found(self, outputs: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns boxes ``[n, 4]``, scores ``[n]`` and classes ``[n]`` of one sample's outputs."""
        rows = outputs.reshape(-1, OUT).double().numpy()
        rows = rows[rows[:, 5] >= 0]
        return rows[:, :4], rows[:, 4], rows[:, 5].astype(int)

    def results(self, outputs: Tensor, images: Sequence[int | str]) -> list[dict[str, Any]]:
        """Returns what was found as COCO's results: ``image_id``, ``category_id``, ``bbox`` x y w h, ``score``."""
        listed = []
        for image, row in zip(images, outputs, strict=True):
            for (x1, y1, x2, y2), score, number in zip(*self.found(row), strict=True):
                box = [round(float(value), 2) for value in (x1, y1, x2 - x1, y2 - y1)]
                one = {"image_id": image, "category_id": self.ids_[number], "bbox": box}
                listed.append(one | {"score": round(float(score), 5)})
        return listed

    # --- how it is scored --------------------------------------------------------------------------------------------

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns what is missing to an AP of 1."""
        return torch.tensor(1 - self.metrics(outputs, target)["ap"])

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns COCO's AP, AP50, AP75, AP by size where there are such boxes, and AP and AP50 of each class there.

        Raises:
            DataError: there is no box to find.
        """
        precision, names = self._precision(outputs, target)
        if not names:
            raise DataError("labels", must="hold boxes, to score detection", found="none")
        found = {"ap": precision[0].mean(), "ap50": precision[0][0].mean(), "ap75": precision[0][5].mean()}
        for place, size in enumerate(SIZES, start=1):
            there = precision[place].min(axis=(0, 1)) > -1
            if there.any():
                found[f"ap_{size}"] = precision[place][:, :, there].mean()
        for row, number in enumerate(names):
            found[f"ap({self.classes_[number]})"] = precision[0][:, :, row].mean()
            found[f"ap50({self.classes_[number]})"] = precision[0][0][:, row].mean()
        return {name: float(value) for name, value in found.items()}

    def _precision(self, outputs: Tensor, target: Tensor) -> tuple[np.ndarray, list[int]]:
        """Returns precision by size (all of them, then SIZES), overlap, recall and class, and which classes these are;
        -1 where a size has no box of a class.
        """
        from faster_coco_eval import COCO, COCOeval_faster  # a fifth of a second

        truth = self._as_coco(target)
        objects = {one["category_id"] for one in truth["annotations"] if not one["iscrowd"]}
        names = [number for number in range(len(self.classes_)) if number in objects]
        if not names:
            return np.zeros((4, 10, 101, 0)), names
        known = COCO(truth)
        rows = [
            {"image_id": image, "category_id": int(number), "bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(score)}
            for image, row in enumerate(outputs)
            for (x1, y1, x2, y2), score, number in zip(*self.found(row), strict=True)
        ]
        judge = COCOeval_faster(known, known.loadRes(rows), "bbox", print_function=_quiet)
        judge.params.maxDets = [1, 10, self.most]
        judge.params.catIds = names
        judge.evaluate()
        judge.accumulate()
        # [T, R, K, A, M] -> [A, T, R, K], of the largest number of boxes
        return np.moveaxis(np.asarray(judge.eval["precision"])[..., -1], 3, 0), names

    def _as_coco(self, target: Tensor) -> dict[str, Any]:
        annotations = []
        for image, rows in enumerate(target.double().numpy()):
            for x1, y1, x2, y2, number, crowd, area in rows[rows[:, 4] >= 0].tolist():
                one = {"id": len(annotations) + 1, "image_id": image, "category_id": int(number), "area": area}
                annotations.append(one | {"bbox": [x1, y1, x2 - x1, y2 - y1], "iscrowd": int(crowd)})
        categories = [{"id": number, "name": name} for number, name in enumerate(self.classes_)]
        return {"images": [{"id": image} for image in range(len(target))], "annotations": annotations} | {
            "categories": categories
        }

    def _matched(self, outputs: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns scores and rightness of all boxes, and how many objects there are: each is found at most once."""
        scores, right, there = [], [], 0
        for row, truth in zip(outputs, target, strict=True):
            told, hits, count = self._matches(row, truth)
            scores.append(told)
            right.append(hits)
            there += count
        return np.concatenate(scores), np.concatenate(right), there

    def _matches(self, outputs: Tensor, truth: Tensor) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns scores and rightness of the boxes of one sample, and how many objects it has; boxes that lie in a
        crowd are left out.
        """
        boxes, scores, classes = self.found(outputs)
        known = truth[truth[:, 4] >= 0]
        crowd = known[:, 5] > 0
        iou = overlap(torch.from_numpy(boxes).float()[:, None], known[None, :, :4]).numpy()
        iou = iou * (classes[:, None] == known[:, 4].numpy()[None])
        free, right, counted = ~crowd.numpy(), np.zeros(len(boxes), dtype=bool), np.ones(len(boxes), dtype=bool)
        for place in np.argsort(-scores, kind="stable"):
            best = int(np.argmax(iou[place] * free)) if free.any() else -1
            if best >= 0 and free[best] and iou[place, best] >= SAME:
                free[best], right[place] = False, True
            elif crowd.any():
                counted[place] = not _within(boxes[place], known[crowd, :4].numpy()).max() >= SAME
        return scores[counted], right[counted], int((~crowd).sum())

    def errors(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Returns for each sample 1 - F1 of the boxes that are shown."""
        found = []
        for row, truth in zip(outputs, target, strict=True):
            scores, right, there = self._matches(row, truth)
            shown = scores >= self.shown_
            both = shown.sum() + there
            found.append(1 - 2 * right[shown].sum() / both if both else 0.0)
        return np.array(found)

    def doubts(self, outputs: Tensor, target: Tensor) -> Sequence[str]:
        """Names classes of which nothing is found, and those that are scored on few boxes."""
        known = target[..., 4][target[..., 5] == 0]
        counts = torch.bincount(known[known >= 0].long(), minlength=len(self.classes_)).tolist()
        told = {int(number) for row in outputs for number in self.found(row)[2]}
        never = [self.classes_[k] for k, count in enumerate(counts) if count and k not in told]
        few = [f"'{self.classes_[k]}' ({count})" for k, count in enumerate(counts) if 0 < count < FEW]
        words = [f"never found: {', '.join(never[:5])}{' and more' * (len(never) > 5)}"] if never else []
        return [*words, *([f"few boxes to score: {', '.join(few[:5])}{' and more' * (len(few) > 5)}"] if few else [])]

    # --- what people see ---------------------------------------------------------------------------------------------

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns what is shown of each sample in words, and how many boxes of every class that is."""
        counts = np.zeros((len(outputs), len(self.classes_)), dtype=int)
        for row, one in enumerate(outputs):
            _, scores, classes = self.found(one)
            counts[row] = np.bincount(classes[scores >= self.shown_], minlength=len(self.classes_))
        words = [self._words(row) for row in counts.tolist()]
        columns = {"prediction": np.array(words, dtype=object)}
        return columns | {f"count({name})": counts[:, number] for number, name in enumerate(self.classes_)}

    def _words(self, counts: Sequence[int]) -> str:
        told = [f"{count} {name}" for name, count in zip(self.classes_, counts, strict=True) if count]
        return ", ".join(told) or "nothing"

    def readable(self, targets: Sequence[Any]) -> Sequence[Any]:
        """Returns how many boxes of every class there are, in words."""
        named = [Counter(one.names.get(k, str(k)) for k in one.categories.tolist()) for one in targets]
        return [", ".join(f"{count} {name}" for name, count in sorted(one.items())) or "nothing" for one in named]

    @property
    def extent(self) -> str:
        """The number of classes."""
        return f"{self.outputs} class{'es' * (self.outputs != 1)}"

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns the scores of each class, and precision by recall."""
        precision, names = self._precision(outputs, target)
        rows, curves = [], {}
        for row, number in enumerate(names):
            known = (target[..., 4] == number) & (target[..., 5] == 0)
            one = precision[0][:, :, row]
            name = self.classes_[number]
            rows.append(
                (name, self.ids_[number], int(known.sum()), *map(float, (one.mean(), one[0].mean(), one[5].mean())))
            )
            curves[name] = one[0]
        table = Rows(("class", "id", "boxes", "AP", "AP50", "AP75"), rows)
        told = f"Boxes are counted and painted from a score of {self.shown_:g} on."
        lines = Lines(curves, "recall, percent", "precision at an overlap of .5")
        return (Section("Classes", (table, told)), Section("Precision by recall", (lines,)))


def _within(box: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Returns the share of a box that lies in each region."""
    low, high = np.maximum(box[:2], regions[:, :2]), np.minimum(box[2:], regions[:, 2:])
    return (high - low).clip(min=0).prod(axis=1) / max((box[2:] - box[:2]).prod(), 1e-9)


def _quiet(*words: object) -> None:
    del words


TASK = Detect
