"""A task: what is learned from a target, how it is scored, how an output becomes a prediction, and what is told of it.

A file ``tasks/<name>.py`` holds one constant ``TASK``, a subclass of ``Task``. A task is fitted on the targets of the
training split (classes, mean) and goes to disk as JSON. Whatever else differs from task to task stands here as well, so
that nothing outside asks which task it is.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.boxes import BoxLabels
from metatransformer.core.errors import DataError, UsageError, nearest
from metatransformer.core.figures import Cards, Section
from metatransformer.core.labels import Colour, PlaceLabels
from metatransformer.core.samples import ROLES, SPLITS


@dataclass(frozen=True)
class TaskOptions:
    """What is learned. ``name`` is the kind of task, ``target`` names the column of a table or manifest; ``metric``
    chooses the best epoch or head. ``inputs`` are those that the task sees, () = all. ``head`` are changes to the
    recipe's ``head`` for this task alone. A task with settings of its own has a subclass of this.
    """

    name: str = "classify"
    target: str = ""
    metric: str = ""
    inputs: tuple[str, ...] = ()
    head: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """What is known of one of a task's scores.

    ``higher``: more is better. ``error`` says what it is a mean of, and so how sure it is on n samples: a "share" of
    answers, a "distance" in the target's unit, a "square" of one, the part of the variance that is "explained"; empty
    where there is no simple formula. ``words`` is its name as people write it, where that is not the name itself.
    """

    higher: bool = True
    error: Literal["share", "distance", "square", "explained", ""] = ""
    words: str = ""


@dataclass(frozen=True)
class Baseline:
    """How plain estimators of scikit-learn learn a task, and what of their answers are outputs.

    ``kind``: "numbers" (of ``goal``; their values are the outputs), "classes" (log probabilities), or "labels" (one
    classifier a label where it is known; log odds). ``balanced``: classes count alike. ``weighed``: samples count by
    ``importance``. ``whole``: features are never reduced to principal components. "vectors": nothing is learned,
    features are the outputs.
    """

    kind: Literal["numbers", "classes", "labels", "vectors"] = "numbers"
    balanced: bool = False
    weighed: bool = False
    whole: bool = False


class Told(NamedTuple):
    """What the data says of samples: a target, a split and a group each, None where it says nothing."""

    targets: Sequence[Any]
    splits: Sequence[str | None]
    groups: Sequence[str | None]


class Support(NamedTuple):
    """How far outputs speak for one answer: its ``words``, what is measured (``unit``), and ``score`` of outputs
    ``[n, C]`` as ``[n]``.
    """

    words: str
    unit: str
    score: Callable[[Tensor], Tensor]


class Task(ABC):
    """One kind of target; ``name`` is how it is found, ``title`` what it is called in a report.

    ``scores`` are those of ``metrics`` that can be chosen, the default first, ``told`` others of which something is
    known; ``options`` its settings.

    ``squared`` says that ``loss`` is the plain mean of squared errors over all outputs, so that linear heads have a
    closed form; ``ranks`` that outputs are log odds of classes, ``log_loss`` is among the metrics, and least squares on
    ``goal`` is a sound stand-in for ``loss``, up to the scale of the outputs.

    ``compares``: outputs are vectors, and an answer names other samples that are near; ``goal`` is the number of the
    class (an identity) that the vectors of a sample are brought near to, and scores are of whole splits.

    ``stratified``: encoded targets are numbers of classes, of which every split gets its share. ``sequential``: splits
    follow time and come with the data, none is drawn. ``constant_words`` says what ``constant`` is.

    ``kit`` names what a modality must have for the task (``Modality.kit``), where its answers are of parts of a sample:
    "dense" for one at every place (``DenseTask``), "boxed" for objects in it (``BoxTask``).

    ``estimator`` is the class of ``faces.load`` that loads a model of this task: "Classifier" where ``decode`` has a
    column ``p(NAME)`` for each of the ``classes`` in ``state``, "Regressor" where a prediction is one number,
    "Segmenter" of a ``DenseTask``, "Detector" of a ``BoxTask``, "Retriever" of one that compares.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    scores: ClassVar[Mapping[str, Score]]
    told: ClassVar[Mapping[str, Score]] = {}
    options: ClassVar[type[TaskOptions]] = TaskOptions
    kit: ClassVar[str] = ""
    squared: ClassVar[bool] = False
    ranks: ClassVar[bool] = False
    compares: ClassVar[bool] = False
    stratified: ClassVar[bool] = False
    sequential: ClassVar[bool] = False
    constant_words: ClassVar[str] = "majority / mean"
    estimator: ClassVar[str] = ""

    def __init__(self, options: TaskOptions | None = None) -> None:
        """Stores what is scored.

        Raises:
            UsageError: the metric is no score of this task.
        """
        metric = options.metric if options is not None else ""
        self.primary = metric or next(iter(self.scores))
        if self.primary not in self.scores:
            do = nearest(metric, self.scores)
            raise UsageError("task.metric", must=f"be a score of '{self.name}'", found=metric, do=do)

    # --- what is learned ---------------------------------------------------------------------------------------------

    def check(self, target: Any) -> None:  # noqa: B027 - some tasks take any one target
        """Refuses a target that is bad by itself, whatever the others are.

        Raises:
            DataError: this is no target of the task.
        """

    @classmethod
    def receive(cls, told: Told) -> Told:
        """Returns what the data says of samples as this task takes it; most tasks take it as it is.

        Raises:
            DataError: splits that only other tasks have.
        """
        if roles := [role for role in ROLES if role in set(told.splits)]:
            raise DataError(
                "splits",
                must=f"be {', '.join(SPLITS)} for the task '{cls.name}'",
                found=" and ".join(roles),
                do="Use --task retrieve, which finds the pictures of a query in a gallery.",
            )
        return told

    @abstractmethod
    def fit(self, targets: Sequence[Any]) -> None:
        """Learns the classes or the scale from the training targets.

        Raises:
            DataError: targets that cannot be learned (one class only, not a number, missing).
        """

    @property
    @abstractmethod
    def outputs(self) -> int:
        """How many numbers the head returns for a sample."""

    @abstractmethod
    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns the targets as a tensor for ``loss`` and ``metrics``.

        Raises:
            DataError: a class that training did not see, or a target that is not a number.
        """

    def goal(self, target: Tensor) -> Tensor:
        """Returns what least squares brings the outputs near to, ``[B, outputs]``."""
        return target if target.ndim == 2 else target[:, None]

    def importance(self, target: Tensor) -> Tensor:
        """Returns how much each sample counts in least squares, ``[B]``."""
        return torch.ones(len(target))

    @abstractmethod
    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the mean loss of a batch: ``outputs`` [B, outputs], ``target`` from ``encode``."""

    @abstractmethod
    def constant(self) -> Tensor:
        """Returns the output [outputs] of the best constant answer: the majority class, the mean."""

    @property
    def baseline(self) -> Baseline:
        """How plain estimators learn it."""
        return Baseline()

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns what ``fit`` learned, as JSON values."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state`` returned."""

    def calibrate(self, outputs: Tensor, target: Tensor) -> None:
        """Learns from answers to the validation split what an answer leaves open; most tasks have nothing to learn."""
        del outputs, target

    @property
    def calibrated(self) -> bool:
        """Whether scores rest on what ``calibrate`` learned."""
        return False

    def remember(self, outputs: Tensor, keys: Sequence[str], targets: Sequence[Any]) -> None:
        """Keeps answered samples that later answers are made of; only tasks that compare need any."""
        del outputs, keys, targets

    def tensors(self) -> dict[str, Tensor]:
        """Returns what is saved beside ``state`` as it is too large for JSON; most tasks have nothing."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Takes back what ``tensors`` returned."""
        del tensors

    # --- how it is scored --------------------------------------------------------------------------------------------

    @abstractmethod
    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns all scores of a split; ``primary`` is among them."""

    def independent(self, target: Tensor) -> int:
        """Returns how many independent answers a score of these targets rests on, at most as many as there are."""
        return len(target)

    def tally(self, outputs: Tensor, target: Tensor) -> dict[str, Any]:
        """Returns, as JSON values, what folds are pooled and models are compared by; most tasks have nothing."""
        del outputs, target
        return {}

    def doubts(self, outputs: Tensor, target: Tensor) -> Sequence[str]:
        """Returns what a person should be warned of in the answers to a whole split; most tasks have nothing."""
        del outputs, target
        return ()

    def errors(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Returns how wrong each answer is, ``[B]``."""
        if self.stratified:
            return (outputs.argmax(dim=1) != target).double().numpy()
        rows = zip(outputs.split(1), target.split(1), strict=True)
        return np.array([float(self.loss(answer, truth)) for answer, truth in rows])

    @property
    def higher_is_better(self) -> bool:
        """Whether more of the primary metric is better."""
        return self.scores[self.primary].higher

    def is_better(self, score: float, best: float) -> bool:
        """Returns whether ``score`` beats ``best`` on the primary metric."""
        return score > best if self.higher_is_better else score < best

    @property
    def worst(self) -> float:
        """The score that every real one beats."""
        return -float("inf") if self.higher_is_better else float("inf")

    def support(self, outputs: Tensor, answer: str = "") -> Support:
        """Returns how far outputs speak for the answer of a sample with these ``outputs`` [C], or for another one of
        this name; by default how near they stay to these.

        Raises:
            UsageError: no such answer.
        """
        if answer:
            raise UsageError("answer", must=f"be left out of the task '{self.name}'", found=repr(answer))
        return Support("the whole answer", "mean absolute change", lambda other: -(other - outputs).abs().mean(dim=1))

    # --- what people see ---------------------------------------------------------------------------------------------

    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the columns of a prediction table: ``prediction`` first, then probabilities or the like."""

    def readable(self, targets: Sequence[Any]) -> Sequence[Any]:
        """Returns known targets as ``decode`` writes predictions."""
        return targets

    @property
    def extent(self) -> str:
        """How much is learned at once, in words ("3 classes"); empty where there is nothing to say."""
        return ""

    def answers(self, outputs: Tensor, *, keys: Sequence[str], targets: Sequence[Any]) -> dict[str, np.ndarray]:
        """Returns the columns of a prediction table of samples with these keys and targets (None: unknown); most tasks
        look at the outputs alone.
        """
        del keys, targets
        return self.decode(outputs)

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns what a report shows of the answers to a whole split."""
        del outputs, target
        return ()

    def cards(self, table: Mapping[str, np.ndarray], targets: Sequence[Any]) -> Cards | None:
        """Returns what a report tells of single samples, from the columns of ``decode``; None where it shows none."""
        del table, targets
        return None

    def words(self, metric: str) -> str:
        """Returns the name of one of ``metrics`` as people write it."""
        known = {**self.told, **self.scores}.get(metric, Score()).words
        return known or metric.replace("_", " ")


def chosen(answer: str, names: Sequence[str], *, usual: int) -> str:
    """Returns the ``answer`` that somebody named, or where nobody did the ``usual`` one.

    Raises:
        UsageError: a name that is none.
    """
    if answer and answer not in names:
        raise UsageError("answer", must="be an answer of the model", found=repr(answer), do=nearest(answer, names))
    return answer or names[usual]


def require_named(ignored: Sequence[str], names: Iterable[str]) -> None:
    """Raises UsageError where a class is to be left out (``task.ignore``) that nothing is called by; codes may be any.

    Raises:
        UsageError: a name that is none.
    """
    known = {*names}
    for name in ignored:
        if name not in known and not name.isdecimal():
            must = "name classes, or their codes"
            raise UsageError("recipe key 'task.ignore'", must=must, found=repr(name), do=nearest(name, known))


class DenseTask(Task):
    """A task that has an answer for every place of a sample, a pixel or a point; its targets are ``PlaceLabels``.

    A head has ``outputs`` a place and is solved for ``places``, on up to ``drawn`` of them. What ``loss``, ``metrics``,
    ``decode`` and the like are given of a whole sample are the numbers that ``answer`` keeps of it.

    ``decoder`` "queries" asks for a trained head of this ``width`` instead, which answers for a whole sample at once.
    """

    kit = "dense"
    drawn: int
    decoder: str
    width: int

    @property
    @abstractmethod
    def places(self) -> Task:
        """The task that a head is solved for, on single places."""

    @property
    @abstractmethod
    def legend(self) -> tuple[Sequence[str], Sequence[Colour]]:
        """The names of the classes, and their colours."""

    @property
    @abstractmethod
    def codes(self) -> Sequence[int]:
        """The codes of the classes in training labels."""

    @abstractmethod
    def numbers(self, labels: PlaceLabels) -> np.ndarray:
        """Returns the number of the class of each place of a sample in its shape, -1 where it is not known.

        Raises:
            DataError: a class that training did not see.
        """

    @abstractmethod
    def answer(self, numbers: np.ndarray, truth: np.ndarray | None) -> Tensor:
        """Returns what is kept of the answer to a sample: ``numbers`` of classes, beside true ones where known."""


class BoxTask(Task):
    """A task that finds objects in a sample; its targets are ``BoxLabels``.

    A head answers for cells of a grid. What ``loss``, ``metrics``, ``decode`` and the like are given of a whole sample
    are the numbers that ``answer`` keeps of it: up to ``most`` boxes.

    ``overlap`` is the IoU beyond which two boxes of a class are one, where ``soft`` the less sure one is only doubted;
    ``least`` the score below which a box is no answer. ``width`` is the head's, ``copies`` how many changed copies of
    each training sample it learns from besides.
    """

    kit = "boxed"
    most: int
    overlap: float
    soft: bool
    least: float
    width: int
    copies: int

    @property
    @abstractmethod
    def threshold(self) -> float:
        """The score from which on boxes are shown to people."""

    @property
    @abstractmethod
    def legend(self) -> tuple[Sequence[str], Sequence[Colour]]:
        """The names of the classes, and their colours."""

    @property
    @abstractmethod
    def ids(self) -> Sequence[int]:
        """The ids of the categories in the user's own labels."""

    @abstractmethod
    def numbers(self, labels: BoxLabels) -> np.ndarray:
        """Returns the number of the class of each box, -1 where it is not learned.

        Raises:
            DataError: a class that training did not see.
        """

    @abstractmethod
    def answer(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> Tensor:
        """Returns what is kept of the answer to a sample: boxes ``[n, 4]`` in its pixels, best first."""

    @abstractmethod
    def found(self, outputs: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns boxes ``[n, 4]``, scores ``[n]`` and classes ``[n]`` of one sample's outputs."""

    @abstractmethod
    def results(self, outputs: Tensor, images: Sequence[int | str]) -> list[dict[str, Any]]:
        """Returns what was found in samples of these ids as COCO's results, categories under the user's ids."""
