"""Forecasting: the next values of a series."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Lines, Section
from metatransformer.core.future import Future
from metatransformer.core.task import Baseline, Score, Task, TaskOptions

BESIDE = 2  # columns behind the future in an encoded target: the window's spread, relative and in the unit


class Forecast(Task):
    """Squared error of the next ``horizon`` values, measured in spreads of the window from its last value.

    The loss counts every window by its spread: between alike, which ignores how errors are scored, and by its square,
    which is the score itself but hears only restless windows (``docs/log.md`` has both). ``mse`` and ``mae`` are of
    values standardised by their series' training rows, as the ETT benchmarks have them; ``rmse`` is in the unit of the
    data, which means something where all series have one.
    """

    name = "forecast"
    title = "forecast"
    scores = {
        "mse": Score(higher=False, error="square", words="MSE"),
        "mae": Score(higher=False, error="distance", words="MAE"),
        "rmse": Score(higher=False, error="distance", words="RMSE"),
    }
    squared = True
    sequential = True
    constant_words = "last value goes on"
    estimator = "Forecaster"

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self.horizon_ = 0

    def check(self, target: Any) -> None:
        """Refuses what is no future of a series."""
        _require_futures([target])

    def fit(self, targets: Sequence[Any]) -> None:
        """Learns the horizon.

        Raises:
            DataError: targets that are no future of a series.
        """
        _require_futures(targets)
        self.horizon_ = len(targets[0].values)

    @property
    def outputs(self) -> int:
        """The horizon."""
        return self.horizon_

    def encode(self, targets: Sequence[Any]) -> Tensor:
        """Returns ``[B, H + 2]``: the scaled future, then what one spread is in the series' training deviations and in
        its unit.

        Raises:
            DataError: targets that are no future of a series, or of another horizon.
        """
        _require_futures(targets)
        found = {len(target.values) for target in targets} - {self.horizon_}
        if found:
            raise DataError("futures", must=f"be {self.horizon_} steps long", found=f"{found.pop()} steps")
        return torch.from_numpy(np.stack([target.scaled for target in targets])).float()

    def goal(self, target: Tensor) -> Tensor:
        """Returns the scaled future ``[B, H]``."""
        return target[:, :-BESIDE]

    def importance(self, target: Tensor) -> Tensor:
        """Returns the windows' spreads, as shares of their mean."""
        spread = target[:, -BESIDE]
        return spread / spread.mean()

    def loss(self, outputs: Tensor, target: Tensor) -> Tensor:
        """Returns the mean squared error in spreads of each window, times that spread in the series' deviations."""
        return (target[:, -BESIDE, None] * (outputs - self.goal(target)).square()).mean()

    def metrics(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns MSE and MAE on standardised values, and the RMSE in the unit of the data."""
        error = (outputs - self.goal(target)).double()
        standard = error * target[:, -2:-1]
        return {
            "mse": float(standard.square().mean()),
            "mae": float(standard.abs().mean()),
            "rmse": float((error * target[:, -1:]).square().mean().sqrt()),
        }

    def independent(self, target: Tensor) -> int:
        """Returns how many stretches of rows are forecast: windows that share rows count once for each."""
        return max(1, len(target) // self.outputs)

    def errors_by_step(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Returns the standardised MSE ``[H]`` of each step ahead."""
        error = (outputs - self.goal(target)).double() * target[:, -2:-1]
        return error.square().mean(dim=0).numpy()

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns one array ``[H]`` a window, in spreads of the window from its level.

        The modality's ``arrange`` turns them into the unit of the data, for only the record knows the window.
        """
        column = np.empty(len(outputs), dtype=object)
        column[:] = list(outputs.double().numpy())
        return {"prediction": column}

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns the errors by step, beside those of the last value. Single windows the modality itself shows best."""
        model = self.errors_by_step(outputs, target)
        plain = self.errors_by_step(self.constant().expand(len(outputs), -1), target)
        lines = {"this model": model, self.constant_words: plain}
        errors = Lines(lines, across="steps ahead", up="mean squared error (standardised)")
        return (Section("Error by step ahead", (errors,)),)

    @property
    def baseline(self) -> Baseline:
        """Windows weigh by their spread; the features are the last values themselves, from which it goes on."""
        return Baseline("numbers", weighed=True, whole=True)

    def constant(self) -> Tensor:
        """Returns zeros: the last value goes on."""
        return torch.zeros(self.horizon_)

    def state(self) -> dict[str, Any]:
        """Returns the horizon."""
        return {"horizon": self.horizon_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the horizon."""
        self.horizon_ = int(state["horizon"])


def _require_futures(targets: Sequence[Any]) -> None:
    odd = [target for target in targets if not isinstance(target, Future)]
    if odd:
        raise DataError(
            "targets",
            must="be the future of a series for the task 'forecast'",
            found=repr(odd[0])[:40],
            do="Hand in tables of series; for labels use --task classify with input.sample=file.",
        )


TASK = Forecast
