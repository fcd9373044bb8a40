"""Regression: one number a sample."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn import metrics as measure
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Cards, Scatter, Section
from metatransformer.core.task import Score, Support, Task, TaskOptions


class Regress(Task):
    """Squared error on targets standardised by the training split; scores are in the target's own unit."""

    name = "regress"
    title = "regression"
    scores = {
        "rmse": Score(higher=False, error="distance", words="RMSE"),
        "mae": Score(higher=False, error="distance", words="MAE"),
        "r2": Score(error="explained", words="R²"),
    }
    squared = True
    estimator = "Regressor"

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self.mean_, self.std_ = 0.0, 1.0

    def check(self, target: Any) -> None:
        """Refuses what is no finite number."""
        _numbers([target])

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns mean and standard deviation."""
        values = _numbers(targets)
        self.mean_, self.std_ = float(values.mean()), float(values.std())
        if self.std_ == 0:
            raise DataError("training targets", must="differ from each other", found=f"only {self.mean_:g}")

    @property
    def outputs(self) -> int:
        """One number."""
        return 1

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns standardised targets ``[B]``."""
        return torch.from_numpy((_numbers(targets) - self.mean_) / self.std_).float()

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the mean squared error of standardised values."""
        return F.mse_loss(outputs[:, 0], target)

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns RMSE and MAE in the target's unit, and R2."""
        guess, truth = self._restore(outputs[:, 0]), self._restore(target)
        return {
            "rmse": float(np.sqrt(np.mean((guess - truth) ** 2))),
            "mae": float(np.mean(np.abs(guess - truth))),
            "r2": float(measure.r2_score(truth, guess)) if len(truth) > 1 else float("nan"),
        }

    def support(self, outputs: Tensor, answer: str = "") -> Support:
        """Returns the number itself, in the target's unit."""
        plain = super().support(outputs, answer)
        words = f"{float(self._restore(outputs[:1])[0]):.4g}"
        return plain._replace(
            words=words, unit="the number", score=lambda other: torch.from_numpy(self._restore(other[:, 0]))
        )

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns the prediction in the target's unit."""
        return {"prediction": self._restore(outputs[:, 0])}

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns predictions against true values."""
        truth, guess = self._restore(target), self._restore(outputs[:, 0])
        return (Section("Predicted against true", (Scatter(truth, guess),)),)

    def cards(self, table: Mapping[str, np.ndarray], targets: Sequence[Any]) -> Cards:
        """Returns numbers, the largest errors first."""
        guess, truth = np.asarray(table["prediction"]), _numbers(targets)
        texts = [[f"{value:.4g}" for value in values] for values in (guess, truth)]
        return Cards(texts[0], texts[1], np.abs(guess - truth))

    def constant(self) -> Tensor:
        """Returns the mean (0 on the standardised scale)."""
        return torch.zeros(1)

    def state(self) -> dict[str, Any]:
        """Returns mean and deviation."""
        return {"mean": self.mean_, "std": self.std_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back mean and deviation."""
        self.mean_, self.std_ = float(state["mean"]), float(state["std"])

    def _restore(self, values: Tensor) -> np.ndarray:
        return values.double().numpy() * self.std_ + self.mean_


def _numbers(targets: Sequence[Any]) -> np.ndarray:
    """Returns the targets as float64.

    Raises:
        DataError: one is missing, not a number, or not finite.
    """
    return np.array([_number(target) for target in targets])


def _number(target: Any) -> float:
    try:
        value = float(target)
    except (TypeError, ValueError) as error:
        do = "Correct it or leave the sample out; for classes use --task classify."
        raise DataError("targets", must="be numbers for the task 'regress'", found=repr(target)[:40], do=do) from error
    if not np.isfinite(value):
        raise DataError("targets", must="be finite", found=repr(target), do="Correct it or leave the sample out.")
    return value


TASK = Regress
