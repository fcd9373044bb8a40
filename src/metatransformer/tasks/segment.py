"""Segmentation: one of C classes for every place of a sample, the pixels of a picture or the points of a cloud.

A head answers for single places, so what is solved is ``Places``, a classification of some of them. What is kept of the
answer to a whole sample is no map but its tally: the share of each class in it, then how the places of each true class
were answered, row by row. Every score follows from tallies, and a data set's fit in any memory.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError, nearest
from metatransformer.core.figures import Confusion, Rows, Section
from metatransformer.core.labels import IGNORED, Colour, Legend, PlaceLabels, is_no_class
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.task import DenseTask, Score, TaskOptions, require_named
from metatransformer.tasks.classify import Classify

HALF = 128  # from where on a grey mask of two classes says the second
STRAY = 0.05  # of the places: between black and white where masks of two classes were resized or compressed
SEEN = 100  # places of a class that is never answered, from which on that is told
# How sure they are is bounded by a share that each sample is all right or all wrong on.
SCORES = {
    "mean_iou": Score(error="share", words="mean IoU"),
    "pixel_accuracy": Score(error="share"),
    "mean_accuracy": Score(error="share"),
}


@dataclass(frozen=True)
class SegmentOptions(TaskOptions, Settings):
    """``ignore`` names classes, or codes, that are neither learned nor scored, beside 255 and what is called void,
    unlabelled or the like. ``labels`` is a label map, where it does not stand beside the data as labels.txt or the
    like. ``places`` is how many places of all training samples together a head is solved on.

    ``decoder``: "solved" in closed form, or "queries", masks from a query a class, trained by epochs on the frozen
    tokens of pictures; ``width`` is its own.
    """

    ignore: tuple[str, ...] = ()
    labels: str = ""
    places: int = 60_000
    decoder: Literal["solved", "queries"] = "solved"
    width: int = 128

    key = "recipe key 'task.{}'"
    rules = (
        Rule("places", "be at least 1", lambda own: own.places >= 1),
        Rule("width", "be at least 1", lambda own: own.width >= 1),
    )


class Segment(DenseTask):
    """Classes are the codes that training labels hold, in their order, called as the data's label map says.

    Scores are over the places of all samples together; a mean is over the classes that occur in the truth.
    """

    name = "segment"
    title = "segmentation"
    scores = SCORES
    options = SegmentOptions
    estimator = "Segmenter"

    def __init__(self, options: SegmentOptions | None = None) -> None:
        super().__init__(options)
        options = options or SegmentOptions(name=self.name)
        self.ignore, self.drawn = options.ignore, options.places
        self.decoder, self.width = options.decoder, options.width
        self.classes_: list[str] = []
        self.codes_: list[int] = []
        self.counts_: list[int] = []
        self.colours_: list[Colour] = []
        self.binary_ = False

    def check(self, target: Any) -> None:
        """Refuses what is no labels of places."""
        if target is not None and not isinstance(target, PlaceLabels):
            must = "be a class for every place"
            do = "Hand in pictures with masks, or clouds with a label a point: see 'metatransformer modalities NAME'."
            raise DataError("labels", must=must, found=repr(target)[:60], do=do)

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns the classes, their codes, colours and how often each occurs."""
        legend, counts = targets[0].legend, Counter[int]()
        for target in targets:
            counts.update(target.counts)
        self.binary_ = not legend.names and _is_binary(counts)
        if self.binary_:
            dark = sum(count for code, count in counts.items() if code < HALF)
            counts = Counter({0: dark, IGNORED: counts.total() - dark})
            legend = Legend({0: "background", IGNORED: "foreground"}, legend.colours)
        require_named(self.ignore, [*legend.names.values(), *(str(code) for code in counts)])
        known = [code for code in sorted(counts) if not self._ignored(code, legend)]
        self.codes_, self.counts_ = known, [counts[code] for code in known]
        self.classes_ = [legend.names.get(code, str(code)) for code in known]
        self.colours_ = colours_of([legend.colours.get(code) for code in known])
        self._refuse_unnamed(legend, counts, where=targets[0].where)
        if len(known) < 2:
            do = "Look whether the masks hold more than one code; 255 and names such as 'void' are not learned."
            raise DataError("training labels", must="hold at least 2 classes", found=f"only {self.classes_}", do=do)
        for target in targets:
            self._tally(target)

    def _refuse_unnamed(self, legend: Legend, counts: Mapping[int, int], *, where: str) -> None:
        """Raises DataError where labels hold what their label map does not name."""
        unnamed = [code for code in self.codes_ if legend.where and code not in legend.names]
        if unnamed:
            listed = ", ".join(code_words(code) for code in unnamed[:5])
            found = f"{listed} ({sum(counts[code] for code in unnamed):,} places), which it does not name"
            do = "Name it there, or correct the masks."
            raise DataError(
                f"{where} by {legend.where}", must="hold codes or colours of the label map", found=found, do=do
            )

    def _ignored(self, code: int, legend: Legend) -> bool:
        name = legend.names.get(code, "")
        if code == IGNORED and not name:
            return True
        return is_no_class(name) or name in self.ignore or str(code) in self.ignore

    def numbers(self, labels: PlaceLabels) -> np.ndarray:
        """Returns the number of the class of each place of a sample in its shape, -1 where it is not scored.

        Raises:
            DataError: a class that training did not see.
        """
        found = labels.read()
        codes, wanted = np.unique(found, return_inverse=True)
        return np.array([self._number(int(code), labels) for code in codes])[wanted].reshape(found.shape)

    def _number(self, code: int, labels: PlaceLabels) -> int:
        """Returns the number of a code's class, -1 for what is not scored."""
        if self.binary_:
            return int(code >= HALF)
        if self._ignored(code, labels.legend):
            return -1
        names = labels.legend.names
        name = names.get(code, str(code))
        known: list[Any] = [*(self.classes_ if names else self.codes_)]
        if (wanted := name if names else code) in known:
            return known.index(wanted)
        found = f"'{name}'" if names else code_words(code)
        do = "Train on samples that have it, or leave it out with task.ignore."
        raise DataError(
            labels.where,
            must=f"hold classes that training saw ({', '.join(self.classes_[:12])})",
            found=found,
            do=f"{nearest(name, self.classes_)} {do}" if names else do,
        )

    def _tally(self, labels: PlaceLabels) -> np.ndarray:
        """Returns how many places of each class a sample has, [C].

        Raises:
            DataError: a class that training did not see, or no place that is scored.
        """
        found = np.zeros(len(self.classes_))
        for code, count in labels.counts.items():
            number = self._number(code, labels)
            if number >= 0:
                found[number] += count
        if not found.any():
            only = ", ".join(code_words(code) for code in list(labels.counts)[:5])
            do = "Remove the sample, or correct its labels."
            raise DataError(labels.where, must="label a place with a class", found=f"only {only}, not scored", do=do)
        return found

    @property
    def outputs(self) -> int:
        """The number of classes: a head answers for single places."""
        return len(self.classes_)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns how many places of each class each sample has, ``[B, C]``."""
        return torch.from_numpy(np.stack([self._tally(target) for target in targets]))

    @property
    def places(self) -> "Places":
        """The classification that a head is solved for."""
        return Places(self)

    @property
    def legend(self) -> tuple[Sequence[str], Sequence[Colour]]:
        """The names of the classes, and their colours."""
        return self.classes_, self.colours_

    @property
    def codes(self) -> Sequence[int]:
        """The codes of the classes in training labels."""
        return self.codes_

    def answer(self, numbers: np.ndarray, truth: np.ndarray | None) -> Tensor:
        """Returns the tally of a sample: ``numbers`` and ``truth`` are the classes of its places, -1 = not scored."""
        many = len(self.classes_)
        shares = np.bincount(numbers.ravel(), minlength=many) / max(numbers.size, 1)
        rows = np.full((many, many), np.nan)
        if truth is not None:
            scored = truth >= 0
            pairs = truth[scored].astype(np.int64) * many + numbers[scored]
            counts = np.bincount(pairs, minlength=many**2).reshape(many, many)
            rows = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        return torch.from_numpy(np.concatenate([shares, rows.ravel()]))

    def confusion(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Returns how many places of each class (rows) were taken for each class (columns), over all samples."""
        many = len(self.classes_)
        rows = outputs[:, many:].double().reshape(-1, many, many)
        # Float32 shares times counts: whole numbers up to rounding.
        return (rows * target.double()[:, :, None]).round().sum(dim=0).numpy()

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the share of places that were answered wrongly."""
        counts = self.confusion(outputs, target)
        return torch.tensor(1 - np.trace(counts) / counts.sum())

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns mean IoU, accuracy over places, mean accuracy over classes, and the IoU of each class.

        A class that does not occur in the truth has no IoU and counts in no mean.
        """
        counts = self.confusion(outputs, target)
        return scores_of(counts, self.classes_)

    def constant(self) -> Tensor:
        """Returns the tally of samples that are of the most frequent class throughout."""
        many = len(self.classes_)
        most = torch.nn.functional.one_hot(torch.tensor(int(np.argmax(self.counts_))), many).double()
        return most.repeat(1 + many)

    def doubts(self, outputs: Tensor, target: Tensor) -> Sequence[str]:
        """Names classes that are never answered though they occur."""
        counts = self.confusion(outputs, target)
        never = (counts.sum(axis=1) >= SEEN) & (counts.sum(axis=0) == 0)
        named = [f"'{self.classes_[place]}' ({int(counts[place].sum()):,} places)" for place in np.flatnonzero(never)]
        return [f"never the answer: {', '.join(named[:5])}" + " and more" * (len(named) > 5)] if named else []

    def tally(self, outputs: Tensor, target: Tensor) -> dict[str, Any]:
        """Returns the ``confusion`` counts."""
        return {"confusion": self.confusion(outputs, target).astype(int).tolist()}

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the class that fills most of each sample, and the share of every class in it."""
        shares = outputs[:, : len(self.classes_)].double().numpy()
        columns = {"prediction": np.array(self.classes_, dtype=object)[shares.argmax(axis=1)]}
        return columns | {f"share({name})": shares[:, number] for number, name in enumerate(self.classes_)}

    def readable(self, targets: Sequence[Any]) -> Sequence[Any]:
        """Returns where the labels lie."""
        return [str(target) for target in targets]

    @property
    def extent(self) -> str:
        """The number of classes."""
        return f"{self.outputs} classes"

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns the IoU of each class, and what its places were taken for, in percent."""
        counts = self.confusion(outputs, target)
        total = counts.sum(axis=1)
        percent = np.rint(100 * counts / np.maximum(total[:, None], 1)).astype(int)
        iou, share = _iou(counts), total / total.sum()
        rows = [(name, float(iou[k]), float(share[k])) for k, name in enumerate(self.classes_)]
        table = Rows(("class", "IoU", "share of the places"), rows)
        words = "Of the places of each class (row), percent taken for each class (column)"
        return (Section("Classes", (table,)), Section(words, (Confusion(percent, self.classes_),)))

    def state(self) -> dict[str, Any]:
        """Returns the classes with codes, colours and counts."""
        return {
            "classes": self.classes_,
            "codes": self.codes_,
            "counts": self.counts_,
            "colours": [list(colour) for colour in self.colours_],
            "binary": self.binary_,
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state`` returned."""
        self.classes_, self.codes_ = list(state["classes"]), list(state["codes"])
        self.counts_, self.binary_ = list(state["counts"]), bool(state["binary"])
        self.colours_ = [(red, green, blue) for red, green, blue in state["colours"]]


class Places(Classify):
    """The classes of single places, as a head is solved for them.

    In least squares a class counts by the cube root of its share: between alike, which gives rare classes too much, and
    by its share, under which they are never answered. On CamVid's validation split alike scores .549, the fourth root
    .576, the square root .564, the share .404.
    """

    scores = SCORES | {"log_loss": Score(higher=False)}

    def __init__(self, whole: Segment) -> None:
        super().__init__()
        self.primary = whole.primary
        self.classes_, self.counts_ = whole.classes_, whole.counts_

    def importance(self, target: Tensor) -> Tensor:
        """Returns how much each place counts, 1 in the mean: places may be drawn more often from rare classes."""
        found = torch.bincount(target, minlength=self.outputs).double()
        wanted = torch.tensor(self.counts_, dtype=torch.float64) ** (1 / 3)
        weights = (wanted / found.clamp(min=1))[target]
        return (weights / weights.mean()).float()

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns the scores of a segmentation on these places, and the log loss."""
        many = self.outputs
        pairs = torch.bincount(target * many + outputs.argmax(dim=1), minlength=many**2)
        scores = scores_of(pairs.reshape(many, many).double().numpy(), self.classes_)
        loss = torch.nn.functional.cross_entropy(outputs.float(), target)
        return {name: scores[name] for name in SCORES} | {"log_loss": float(loss)}


def scores_of(counts: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Returns the scores of ``counts`` [C, C], places by true class (rows) and answer (columns)."""
    truth = counts.sum(axis=1)
    there, iou = truth > 0, _iou(counts)
    right = np.diag(counts)
    scores = {
        "mean_iou": float(iou[there].mean()),
        "pixel_accuracy": float(right.sum() / truth.sum()),
        "mean_accuracy": float((right[there] / truth[there]).mean()),
    }
    return scores | {f"iou({name})": float(iou[k]) for k, name in enumerate(names) if there[k]}


def _iou(counts: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each class, 0 where there is none of it."""
    right = np.diag(counts)
    return right / np.maximum(counts.sum(axis=0) + counts.sum(axis=1) - right, 1)


def _is_binary(counts: Mapping[int, int]) -> bool:
    """Returns whether masks without a label map are black and white: 0, 255, and a few greys of blurred edges.

    Masks that number classes from 0 hold no codes from 128 to 254 that make up so little together.
    """
    ends, total = counts.get(0, 0) + counts.get(IGNORED, 0), sum(counts.values())
    between = [code for code in counts if code not in (0, IGNORED)]
    both = counts.get(0, 0) > 0 and counts.get(IGNORED, 0) > 0
    blurred = max(between, default=0) in range(HALF, IGNORED) and total - ends < STRAY * total
    return both and (not between or blurred)


def code_words(code: int) -> str:
    """Returns a code as people write it: a number, or a colour."""
    return f"the code {code}" if code < 2**16 else f"the colour ({code >> 16 & 255}, {code >> 8 & 255}, {code & 255})"


def colours_of(given: Sequence[Colour | None]) -> list[Colour]:
    """Returns a colour for each class: those that are given, and others that differ as well as may be.

    Made as PASCAL VOC makes its own: the bits of a class's number, spread over the channels.
    """
    return [_voc(number) if colour is None else colour for number, colour in enumerate(given)]


def _voc(number: int) -> Colour:
    bits = [[(number >> (3 * place + channel)) & 1 for place in range(8)] for channel in range(3)]
    red, green, blue = (sum(bit << (7 - place) for place, bit in enumerate(channel)) for channel in bits)
    return red, green, blue


TASK = Segment
