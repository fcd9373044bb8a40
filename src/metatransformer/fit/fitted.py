"""What a fit leaves behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from metatransformer.data.examples import Examples
from metatransformer.infer.loader import Loader
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import only


@dataclass
class Outcome:
    """What came of one task: what was logged on the way, outputs and scores by split, what each input brings, and what
    each way of their fusion scored, where they were tried.

    ``kept`` is the position in ``history`` of the head or epoch that was kept, None where nothing was trained.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    kept: int | None = None
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    inputs: dict[str, dict[str, float]] = field(default_factory=dict)
    fusion: dict[str, float] = field(default_factory=dict)


@dataclass
class Fitted:
    """A trained pipeline with the loaders of its splits and an outcome a task.

    ``of_task`` narrows it to one task and its samples; what is asked about "the" task is asked of that.
    """

    pipeline: Pipeline
    loaders: dict[str, Loader]
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.pipeline.tasks:
            self.outcomes.setdefault(name, Outcome())

    def of_task(self, name: str) -> "Fitted":
        """Returns what this is for one task: the samples whose target is known, and the outcome itself."""
        loaders = {split: loader.of_task(name) for split, loader in self.loaders.items() if name in loader.tasks}
        return replace(
            self, pipeline=self.pipeline.of_task(name), loaders=loaders, outcomes={name: self.outcomes[name]}
        )

    def by_task(self) -> "dict[str, Fitted]":
        """Returns ``of_task`` of every task."""
        return {name: self.of_task(name) for name in self.pipeline.tasks}

    @property
    def outcome(self) -> Outcome:
        """The outcome of the one task."""
        return only(self.outcomes, what="task")

    @property
    def history(self) -> list[dict[str, Any]]:
        """What was logged of the one task."""
        return self.outcome.history

    @property
    def kept(self) -> int | None:
        """The position in ``history`` of what was kept of the one task."""
        return self.outcome.kept

    @property
    def outputs(self) -> dict[str, torch.Tensor]:
        """The outputs of the one task by split."""
        return self.outcome.outputs

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """The scores of the one task by split."""
        return self.outcome.metrics

    @property
    def examples(self) -> Examples:
        """All samples that were learned from or scored."""
        return Examples.joined([loader.examples for loader in self.loaders.values()])

    def scores(self) -> Mapping[str, Any]:
        """Returns the scores by split; by task first where there are several tasks."""
        found = {name: outcome.metrics for name, outcome in self.outcomes.items()}
        return self.metrics if len(found) == 1 else found


def suffix_of(fitted: Fitted, task: str) -> str:
    """Returns what stands behind the names of a task's files: nothing where there is one task."""
    return f"-{task}" if len(fitted.outcomes) > 1 else ""


def refits(pipeline: Pipeline) -> bool:
    """Returns whether the head of the one task is fitted again on training and validation samples together, once it is
    chosen.
    """
    return pipeline.head.solved and pipeline.recipe.optim.refit


def stays_untuned(fitted: Fitted) -> bool:
    """Returns whether training by epochs was no gain, and the model is the one that tune mode ``head`` makes."""
    return fitted.pipeline.recipe.tune != "head" and fitted.pipeline.head.solved and fitted.kept == 0
