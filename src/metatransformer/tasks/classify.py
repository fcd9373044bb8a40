"""Classification: one of C classes a sample."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import metrics as measure
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Cards, Confusion, Rows, Section
from metatransformer.core.task import Baseline, Score, Support, Task, TaskOptions, chosen

NEARLY_ALL = 0.95  # of the answers, from which on one answer is told to be given too often
SEEN = 5  # samples of a class that is never answered, from which on that is told
BY_CLASS = ("balanced_accuracy", "macro_f1", "matthews")  # scores for which a rare class counts as much as a common one
MISTAKES = 6  # the most frequent ones that are listed


@dataclass(frozen=True)
class ClassifyOptions(TaskOptions):
    """``class_weight`` "balanced" weighs each class by n / (C x count), as scikit-learn does; "auto" does so where the
    ``metric`` counts classes, not samples, alike.
    """

    class_weight: Literal["auto", "none", "balanced"] = "auto"


class Classify(Task):
    """Cross entropy over the classes of the training split, in sorted order."""

    name = "classify"
    title = "classification"
    scores = {
        "accuracy": Score(error="share"),
        "balanced_accuracy": Score(error="share"),
        "macro_f1": Score(error="share", words="macro F1"),
        "kappa": Score(),
        "matthews": Score(words="Matthews correlation"),
        "auroc": Score(error="share", words="AUROC"),
        "log_loss": Score(higher=False),
    }
    options = ClassifyOptions
    ranks = True
    stratified = True
    estimator = "Classifier"

    def __init__(self, options: ClassifyOptions | None = None) -> None:
        super().__init__(options)
        asked = options.class_weight if options is not None else "auto"
        self.balanced = asked == "balanced" or (asked == "auto" and self.primary in BY_CLASS)
        self.classes_: list[str] = []
        self.counts_: list[int] = []

    def check(self, target: Any) -> None:
        """Refuses what is no class."""
        if target is not None and not isinstance(target, str | Number | np.bool_):
            raise DataError(
                "labels",
                must="have a word or a number as its class",
                found=f"a {type(target).__name__}",
                do="Choose another --task (multilabel for several columns of yes or no), or what a sample is: "
                "see 'metatransformer modalities NAME'.",
            )

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns the classes and how often each occurs."""
        if any(target is None for target in targets):
            raise DataError("training labels", must="be known for every sample", found="missing ones")
        for target in targets:
            self.check(target)
        counts = Counter(str(target) for target in targets)
        self.classes_ = sorted(counts, key=_natural)
        self.counts_ = [counts[name] for name in self.classes_]
        if len(counts) < 2:
            raise DataError(
                "training labels",
                must="hold at least 2 classes",
                found=f"only {self.classes_}",
                do="Put each class into its own folder, or name the label column with --target.",
            )

    @property
    def outputs(self) -> int:
        """The number of classes."""
        return len(self.classes_)

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns class numbers ``[B]``."""
        numbers = {name: i for i, name in enumerate(self.classes_)}
        unknown = sorted({str(t) for t in targets} - set(numbers))
        if unknown:
            raise DataError(
                "labels",
                must=f"be classes that training saw ({', '.join(self.classes_[:12])})",
                found=f"{', '.join(unknown[:5])}",
                do="Add training examples of these classes or leave these samples out.",
            )
        return torch.tensor([numbers[str(t)] for t in targets])

    def goal(self, target: Tensor) -> Tensor:
        """Returns 1 for the class of each sample and 0 for the others, ``[B, C]``."""
        return F.one_hot(target, len(self.classes_)).float()

    def importance(self, target: Tensor) -> Tensor:
        """Returns n / (C x count) of each sample's class where classes are balanced, else ones."""
        if not self.balanced:
            return torch.ones(len(target))
        counts = torch.bincount(target, minlength=len(self.classes_)).float()
        return (len(target) / (len(counts) * counts))[target]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the (weighted) cross entropy."""
        weight = None
        if self.balanced:
            counts = torch.tensor(self.counts_, dtype=outputs.dtype, device=outputs.device)
            weight = counts.sum() / (len(counts) * counts)
        return F.cross_entropy(outputs, target, weight=weight)

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns accuracy, balanced accuracy, macro F1, log loss, Cohen's kappa and Matthews' correlation where they
        are defined (truth and guess are not one and the same class throughout), and the AUROC where every class occurs.
        """
        probability = outputs.double().softmax(dim=-1).numpy()
        truth, guess = target.numpy(), probability.argmax(axis=1)
        labels = range(len(self.classes_))
        present = np.unique(truth)
        result = {
            "accuracy": float(measure.accuracy_score(truth, guess)),
            "balanced_accuracy": float(measure.recall_score(truth, guess, labels=present, average="macro")),
            "macro_f1": float(measure.f1_score(truth, guess, labels=present, average="macro")),
            "log_loss": float(measure.log_loss(truth, probability, labels=labels)),
        }
        if len(present) > 1 or len(np.unique(guess)) > 1:
            result["kappa"] = float(measure.cohen_kappa_score(truth, guess))
            result["matthews"] = float(measure.matthews_corrcoef(truth, guess))
        if len(present) == len(self.classes_):
            chance = probability[:, 1] if len(labels) == 2 else probability
            result["auroc"] = float(measure.roc_auc_score(truth, chance, multi_class="ovr"))
        if self.primary not in result:
            raise DataError(
                f"metric '{self.primary}'",
                must="see every class in the data it scores",
                found=f"{len(present)} of {len(self.classes_)} classes",
                do="Score more data, or choose task.metric=accuracy.",
            )
        return result

    def doubts(self, outputs: Tensor, target: Tensor) -> Sequence[str]:
        """Names classes that are never answered though they occur, and one answer that is given nearly always."""
        truth = torch.bincount(target, minlength=self.outputs)
        given = torch.bincount(outputs.argmax(dim=1), minlength=self.outputs)
        most, total = int(given.argmax()), len(target)
        told = []
        if given[most] >= NEARLY_ALL * total > truth[most]:
            told.append(
                f"'{self.classes_[most]}' is the answer {int(given[most]):,} times of {total:,}, "
                f"where {int(truth[most]):,} would be right"
            )
        never = [place for place in range(self.outputs) if truth[place] >= SEEN and not given[place]]
        if never:
            named = ", ".join(f"'{self.classes_[place]}' ({int(truth[place]):,} samples)" for place in never[:5])
            told.append(f"never the answer: {named}" + (f" and {len(never) - 5} more" if len(never) > 5 else ""))
        return told

    def independent(self, target: Tensor) -> int:
        """Returns on how many answers a mean over classes rests, or the smallest class where ranks are scored.

        A mean over classes of very different size is as sure as a mean of n = C^2 / sum(1 / n_c) answers. The variance
        of an area A under the ROC curve is at most A (1 - A) over the number in the smaller class (van Dantzig 1951).
        """
        if self.primary not in ("auroc", "balanced_accuracy", "macro_f1"):
            return len(target)
        counts = torch.bincount(target)
        counts = counts[counts > 0].double()
        return int(counts.min() if self.primary == "auroc" else len(counts) ** 2 / (1 / counts).sum())

    def tally(self, outputs: Tensor, target: Tensor) -> dict[str, Any]:
        """Returns the ``confusion`` counts, and as ``hits`` of each class which of its samples were right ("1")."""
        right = outputs.argmax(dim=1) == target
        hits = ["".join(str(int(hit)) for hit in right[target == label]) for label in range(self.outputs)]
        return {"confusion": self.confusion(outputs, target), "hits": hits}

    def confusion(self, outputs: Tensor, target: Tensor) -> list[list[int]]:
        """Returns how many samples of each class (rows) were taken for each class (columns)."""
        labels = range(len(self.classes_))
        return measure.confusion_matrix(target.numpy(), outputs.argmax(dim=1).numpy(), labels=labels).tolist()

    def support(self, outputs: Tensor, answer: str = "") -> Support:
        """Returns the log odds of the most probable class, or of the one that is named."""
        name = chosen(answer, self.classes_, usual=int(outputs.argmax()))

        def score(other: Tensor) -> Tensor:
            number, x = self.classes_.index(name), other.double()
            rest = torch.cat([x[:, :number], x[:, number + 1 :]], dim=1)
            return x[:, number] - rest.logsumexp(dim=1)

        return Support(name, f"log odds of {name}", score)

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the class name, its probability, and one probability column a class."""
        probability = outputs.double().softmax(dim=-1).numpy()
        guess = probability.argmax(axis=1)
        columns = {
            "prediction": np.array(self.classes_, dtype=object)[guess],
            "confidence": probability.max(axis=1),
        }
        for number, name in enumerate(self.classes_):
            columns[f"p({name})"] = probability[:, number]
        return columns

    def readable(self, targets: Sequence[Any]) -> Sequence[Any]:
        """Returns targets as text."""
        return [str(target) for target in targets]

    @property
    def extent(self) -> str:
        """The number of classes."""
        return f"{self.outputs} classes"

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns the confusions, and the most frequent ones as a table."""
        counts = np.array(self.confusion(outputs, target))
        mistakes = counts - np.diag(np.diag(counts))
        order = np.argsort(-mistakes, axis=None, kind="stable")[:MISTAKES]
        pairs = [divmod(int(place), self.outputs) for place in order]
        rows = [(f"{self.classes_[t]} taken for {self.classes_[p]}", int(mistakes[t, p])) for t, p in pairs]
        listed = Rows(("most frequent mistakes", "samples"), [row for row in rows if row[1]])
        beside = listed if listed.rows else "No mistakes on these samples."
        return (Section("Confusions", (Confusion(counts, self.classes_), beside)),)

    def cards(self, table: Mapping[str, np.ndarray], targets: Sequence[Any]) -> Cards:
        """Returns classes with their probability, the most confident mistakes first."""
        guesses, truths = [str(guess) for guess in table["prediction"]], [str(target) for target in targets]
        wrong = np.array([truth != guess for truth, guess in zip(truths, guesses, strict=True)])
        sure = table["confidence"]
        badness = np.where(wrong, sure, -1.0)
        return Cards(guesses, truths, badness, worst="the most confident mistakes", wrong=wrong, sure=sure)

    def constant(self) -> Tensor:
        """Returns the log frequencies of the classes: its largest is the majority class."""
        counts = torch.tensor(self.counts_, dtype=torch.float32)
        return (counts / counts.sum()).log()

    @property
    def baseline(self) -> Baseline:
        """Classifiers, with classes that count alike where they do so in the score."""
        return Baseline("classes", balanced=self.primary == "balanced_accuracy")

    def state(self) -> dict[str, Any]:
        """Returns the classes and their counts."""
        return {"classes": self.classes_, "counts": self.counts_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the classes and their counts."""
        self.classes_, self.counts_ = list(state["classes"]), list(state["counts"])


def _natural(name: str) -> tuple[int, float, str]:
    """Sorts numbers by value before words: 2 before 10 before a."""
    try:
        return (0, float(name), name)
    except ValueError:
        return (1, 0.0, name)


TASK = Classify
