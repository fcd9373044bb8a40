"""Forecasting: the next values of a series."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.figures import Lines, Rows, Section
from metatransformer.core.future import Future
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.task import Baseline, Score, Support, Task, TaskOptions

QUANTILE = "quantile_"  # what columns of quantiles begin with
BESIDE = 2  # columns behind the future in an encoded target: the window's spread, relative and in the unit


@dataclass(frozen=True)
class ForecastOptions(TaskOptions, Settings):
    """``quantiles``, such as [0.1, 0.5, 0.9], are forecast beside the value: it, and what was missing to it at each
    step ahead in that share of the validation windows, from which the head has not learned then, in spreads of the
    window (split conformal prediction: Papadopoulos et al. 2002). So they never cross. Fitted again on those windows,
    the head errs rather less than they say.
    """

    quantiles: tuple[float, ...] = ()

    key = "recipe key 'task.{}'"
    rules = (
        Rule("quantiles", "lie between 0 and 1", lambda own: all(0 < q < 1 for q in own.quantiles)),
        Rule("quantiles", "rise", lambda own: list(own.quantiles) == sorted(set(own.quantiles))),
    )


class Forecast(Task):
    """Squared error of the next ``horizon`` values, measured in spreads of the window from its last value.

    The loss counts every window by its spread: between alike, which ignores how errors are scored, and by its square,
    which is the score itself but hears only restless windows (``docs/log.md`` has both). ``mse`` and ``mae`` are of
    values standardised by their series' training rows, as the ETT benchmarks have them; ``rmse`` is in the unit of the
    data, which means something where all series have one. Of quantiles the ``pinball`` loss is told, and the
    ``coverage``: the share of true values from the lowest to the highest.
    """

    name = "forecast"
    title = "forecast"
    scores = {
        "mse": Score(higher=False, error="square", words="MSE"),
        "mae": Score(higher=False, error="distance", words="MAE"),
        "rmse": Score(higher=False, error="distance", words="RMSE"),
    }
    told = {"pinball": Score(higher=False, words="pinball loss"), "coverage": Score()}
    options = ForecastOptions
    squared = True
    sequential = True
    constant_words = "last value goes on"
    estimator = "Forecaster"

    def __init__(self, options: ForecastOptions | None = None) -> None:
        super().__init__(options)
        self.quantiles = options.quantiles if options is not None else ()
        self.horizon_ = 0
        self.offsets_ = torch.zeros(0, 0)  # [Q, H], in spreads, once they are known
        self.windows_ = 0  # that they rest on

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
        beside = self._of_quantiles(outputs, target) if len(self.offsets_) else {}
        return {
            "mse": float(standard.square().mean()),
            "mae": float(standard.abs().mean()),
            "rmse": float((error * target[:, -1:]).square().mean().sqrt()),
            **beside,
        }

    @property
    def calibrated(self) -> bool:
        """Whether there are quantiles."""
        return bool(self.quantiles)

    def calibrate(self, outputs: Tensor, target: Tensor) -> None:
        """Learns what is to be added for each quantile at each step."""
        if self.quantiles:
            levels = torch.tensor(self.quantiles, dtype=torch.float64)
            self.offsets_ = torch.quantile((self.goal(target) - outputs).double(), levels, dim=0)
            self.windows_ = len(target)

    def _of_quantiles(self, outputs: Tensor, target: Tensor) -> dict[str, float]:
        """Returns the mean pinball loss over quantiles, windows and steps, of standardised values, and the coverage."""
        missing = self.goal(target).double() - outputs - self.offsets_[:, None]  # [Q, B, H]
        levels = torch.tensor(self.quantiles, dtype=torch.float64)[:, None, None]
        loss = torch.maximum(levels * missing, (levels - 1) * missing) * target[:, -2:-1]
        return {
            "pinball": float(loss.mean()),
            "coverage": float(((missing[0] >= 0) & (missing[-1] <= 0)).double().mean()),
        }

    def doubts(self, outputs: Tensor, target: Tensor) -> Sequence[str]:
        """Says where quantiles rest on too few windows to be any."""
        del outputs, target
        least = max((round(1 / min(q, 1 - q)) for q in self.quantiles), default=0)
        if self.windows_ >= least:
            return ()
        return [f"quantiles rest on {self.windows_:,} validation windows; {least:,} are the fewest that can tell them"]

    def independent(self, target: Tensor) -> int:
        """Returns how many stretches of rows are forecast: windows that share rows count once for each."""
        return max(1, len(target) // self.outputs)

    def errors_by_step(self, outputs: Tensor, target: Tensor) -> np.ndarray:
        """Returns the standardised MSE ``[H]`` of each step ahead."""
        error = (outputs - self.goal(target)).double() * target[:, -2:-1]
        return error.square().mean(dim=0).numpy()

    def support(self, outputs: Tensor, answer: str = "") -> Support:
        """Returns how near a forecast stays to this one."""
        plain = super().support(outputs, answer)
        return plain._replace(words="the forecast", unit="mean change, in deviations of the look-back")

    def decode(self, outputs: Tensor) -> dict[str, np.ndarray]:
        """Returns one array ``[H]`` a window, in spreads of the window from its level.

        The modality's ``arrange`` turns them into the unit of the data, for only the record knows the window.
        """
        values = {"prediction": outputs.double()}
        for level, offset in zip(self.quantiles, self.offsets_, strict=bool(len(self.offsets_))):
            values[f"{QUANTILE}{level:g}"] = outputs.double() + offset
        columns = {}
        for name, value in values.items():
            columns[name] = np.empty(len(outputs), dtype=object)
            columns[name][:] = list(value.numpy())
        return columns

    def figures(self, outputs: Tensor, target: Tensor) -> Sequence[Section]:
        """Returns the errors by step, beside those of the last value. Single windows the modality itself shows best."""
        model = self.errors_by_step(outputs, target)
        plain = self.errors_by_step(self.constant().expand(len(outputs), -1), target)
        lines = {"this model": model, self.constant_words: plain}
        errors = Lines(lines, across="steps ahead", up="mean squared error (standardised)")
        sections = [Section("Error by step ahead", (errors,))]
        if len(self.offsets_):
            below = (self.goal(target).double() - outputs <= self.offsets_[:, None]).double().mean(dim=(1, 2)).tolist()
            rows = [(f"{level:g}", share) for level, share in zip(self.quantiles, below, strict=True)]
            sections.append(Section("Quantiles", (Rows(("quantile", "true values below it"), rows),)))
        return sections

    @property
    def baseline(self) -> Baseline:
        """Windows weigh by their spread; the features are the last values themselves, from which it goes on."""
        return Baseline("numbers", weighed=True, whole=True)

    def constant(self) -> Tensor:
        """Returns zeros: the last value goes on."""
        return torch.zeros(self.horizon_)

    def state(self) -> dict[str, Any]:
        """Returns the horizon, and what is known of quantiles."""
        known = {"offsets": self.offsets_.tolist(), "windows": self.windows_} if len(self.offsets_) else {}
        return {"horizon": self.horizon_, **known}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes them back."""
        self.horizon_ = int(state["horizon"])
        if "offsets" in state:
            self.offsets_, self.windows_ = torch.tensor(state["offsets"], dtype=torch.float64), int(state["windows"])


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
