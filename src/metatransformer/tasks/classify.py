"""Classification: one of C classes a sample."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import metrics as scores
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError, nearest
from metatransformer.core.task import Task

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "kappa", "auroc", "log_loss")


class Classify(Task):
    """Cross entropy over the classes of the training split, in sorted order.

    ``class_weight`` "balanced" weighs each class by n / (C x count), as scikit-learn does; ``label_smoothing`` is the
    share of the target spread over all classes.
    """

    name = "classify"
    ranks = True

    def __init__(
        self,
        *,
        metric: str = "accuracy",
        class_weight: str = "none",
        label_smoothing: float = 0.0,
    ) -> None:
        if metric not in METRICS:
            raise UsageError("task.metric", must="be a score of 'classify'", found=metric, do=nearest(metric, METRICS))
        self.primary = metric
        self.higher_is_better = metric != "log_loss"
        self.class_weight, self.label_smoothing = class_weight, label_smoothing
        self.classes_: list[str] = []
        self.counts_: list[int] = []

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns the classes and how often each occurs."""
        if any(target is None for target in targets):
            raise DataError("training labels", must="be known for every sample", found="missing ones")
        if several := [target for target in targets if isinstance(target, tuple)]:
            raise DataError(
                "training labels",
                must="be one a sample for the task 'classify'",
                found=f"{len(several[0])} in the first",
                do="Name one column with --target, or use --task multilabel for yes-or-no columns.",
            )
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
        if self.class_weight != "balanced":
            return torch.ones(len(target))
        counts = torch.bincount(target, minlength=len(self.classes_)).float()
        return (len(target) / (len(counts) * counts))[target]

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the (weighted) cross entropy."""
        weight = None
        if self.class_weight == "balanced":
            counts = torch.tensor(self.counts_, dtype=outputs.dtype, device=outputs.device)
            weight = counts.sum() / (len(counts) * counts)
        return F.cross_entropy(outputs, target, weight=weight, label_smoothing=self.label_smoothing)

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns accuracy, balanced accuracy, macro F1, log loss, Cohen's kappa where it is defined (truth and guess
        are not one and the same class throughout), and the AUROC where every class occurs."""
        probability = outputs.double().softmax(dim=-1).numpy()
        truth, guess = target.numpy(), probability.argmax(axis=1)
        labels = range(len(self.classes_))
        present = np.unique(truth)
        recall = scores.recall_score(truth, guess, labels=present, average=None, zero_division=0)
        result = {
            "accuracy": float(scores.accuracy_score(truth, guess)),
            "balanced_accuracy": float(np.mean(recall)),
            "macro_f1": float(scores.f1_score(truth, guess, labels=present, average="macro", zero_division=0)),
            "log_loss": float(scores.log_loss(truth, probability, labels=labels)),
        }
        if len(present) > 1 or len(np.unique(guess)) > 1:
            result["kappa"] = float(scores.cohen_kappa_score(truth, guess))
        if len(present) == len(self.classes_):
            chance = probability[:, 1] if len(labels) == 2 else probability
            result["auroc"] = float(scores.roc_auc_score(truth, chance, multi_class="ovr"))
        if self.primary not in result:
            raise DataError(
                f"metric '{self.primary}'",
                must="see every class in the data it scores",
                found=f"{len(present)} of {len(self.classes_)} classes",
                do="Score more data, or choose task.metric=accuracy.",
            )
        return result

    def confusion(self, outputs: Tensor, target: Tensor) -> list[list[int]]:
        """Returns how many samples of each class (rows) were taken for each class (columns)."""
        labels = range(len(self.classes_))
        return scores.confusion_matrix(target.numpy(), outputs.argmax(dim=1).numpy(), labels=labels).tolist()

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

    def constant(self) -> Tensor:
        """Returns the log frequencies of the classes: its largest is the majority class."""
        counts = torch.tensor(self.counts_, dtype=torch.float32)
        return (counts / counts.sum()).log()

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
