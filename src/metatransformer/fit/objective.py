"""What one step of training brings down: an objective knows batches and the model, the loop knows neither."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from metatransformer.core.batch import Batch
from metatransformer.core.task import Task
from metatransformer.model import MetaTransformer


@runtime_checkable
class Objective(Protocol):
    """The loss of one step."""

    def step(self, model: MetaTransformer, batch: Batch) -> Tensor:
        """Returns the loss of a batch on the model's device, in float32."""
        ...


class Supervised:
    """The mean loss of each task over the samples whose target is known, in its ``units``, summed over the tasks."""

    def __init__(self, tasks: Mapping[str, Task], *, units: Mapping[str, float] = MappingProxyType({})) -> None:
        self.tasks, self.units = tasks, units

    def step(self, model: MetaTransformer, batch: Batch) -> Tensor:
        """Returns the sum of the tasks' losses."""
        losses = [self._loss(model, batch, name) for name in self.tasks if self._learns(model, batch, name)]
        nothing = torch.zeros((), requires_grad=True)  # where chance took from all samples what the tasks see
        return sum(losses[1:], start=losses[0]) if losses else nothing

    def _learns(self, model: MetaTransformer, batch: Batch, name: str) -> bool:
        """Returns whether some sample has a target of a task, and some an input that the task sees."""
        return name in batch.targets and any(given in batch.parts for given in model.head(name).readout.facts.axes)

    def _loss(self, model: MetaTransformer, batch: Batch, name: str) -> Tensor:
        target = batch.targets[name]
        outputs = model(batch if target.rows is None else batch.take(target.rows), task=name).float()
        with torch.autocast(outputs.device.type, enabled=False):
            return self.tasks[name].loss(outputs, target.values) / self.units.get(name, 1.0)
