"""A task: what is learned from a target, how it is scored, and how an output becomes a prediction.

A task is fitted on the targets of the training split (classes, mean) and goes to disk as JSON.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Task(ABC):
    """Head size, loss, metrics, primary metric and decoding of one kind of target.

    ``squared`` says that ``loss`` is the plain mean of squared errors over all outputs, so that linear heads have a
    closed form; ``ranks`` that least squares on ``goal`` is a sound stand-in for it, up to the scale of the outputs.
    """

    name: str
    primary: str
    higher_is_better: bool
    squared: bool = False
    ranks: bool = False

    def check(self, target: Any) -> None:  # noqa: B027 - most tasks take any one target
        """Refuses a target that is bad by itself, whatever the others are.

        Raises:
            DataError: this is no target of the task.
        """

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
    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns all scores of a split; ``primary`` is among them."""

    @abstractmethod
    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the columns of a prediction table: ``prediction`` first, then probabilities or the like."""

    @abstractmethod
    def constant(self) -> Tensor:
        """Returns the output [outputs] of the best constant answer: the majority class, the mean."""

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Returns what ``fit`` learned, as JSON values."""

    @abstractmethod
    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back what ``state`` returned."""

    def is_better(self, score: float, best: float) -> bool:
        """Returns whether ``score`` beats ``best`` on the primary metric."""
        return score > best if self.higher_is_better else score < best

    @property
    def worst(self) -> float:
        """The score that every real one beats."""
        return -float("inf") if self.higher_is_better else float("inf")
