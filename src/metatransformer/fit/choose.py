"""Which head is kept in tune mode ``head``: penalties are compared on samples that their heads did not learn from.

A validation split that was given decides. One that was merely drawn from few samples would decide by chance; there the
answers of cross-validation over training and validation samples do, and the reach of a kernel is chosen with them. Of
the heads whose score is within one standard error of the best the one of least loss is taken: the loss of a few samples
tells heads apart that are all right on them (the rule of one standard error, with the loss for the size: Breiman et al.
1984, "Classification and Regression Trees").
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.task import Task
from metatransformer.data.split import cross_folds
from metatransformer.fit.closed_form import Basis, Probe, cross_outputs, fit_probes, sharpness
from metatransformer.infer.loader import Loader
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe

FEW = 3_000  # samples of training and validation, up to which
FOLDS = 5  # choose
PATIENCE = 3  # weaker penalties without a gain, after which no weaker one is tried
STRETCHES = (0.25, 0.5, 1.0, 2.0, 4.0)  # what the folds try head.gamma times
# Of features with a deviation of 1. The best ones lay between 0.05 and 6 on six data sets (docs/log.md).
SQUARES_L2 = (30.0, 10.0, 5.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3)
LIKELIHOOD_L2 = (1.0, 0.3, 0.1, 0.03, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 1e-5)


class Known(NamedTuple):
    """Features [n, F] with their targets."""

    features: Tensor
    target: Tensor

    def with_more(self, others: "Known") -> "Known":
        """Returns these samples and others."""
        return Known(*(torch.cat(pair) for pair in zip(self, others, strict=True)))


@dataclass(frozen=True)
class Choice:
    """A penalty and a reach: what they answered, multiplied with ``factor``, scored on samples not learned from.

    ``on`` says which: "val", or "folds".
    """

    l2: float
    stretch: float
    factor: float
    scores: dict[str, float]
    loss: float
    on: str = "val"

    def line(self, recipe: Recipe) -> dict[str, Any]:
        """Returns it for the history of a run."""
        reach = {"gamma": recipe.head.gamma * self.stretch} if recipe.head.centres else {}
        return {"l2": self.l2, **reach, **{f"{self.on}_{name}": value for name, value in self.scores.items()}}

    def head(self, pipeline: Pipeline, known: Known) -> Probe:
        """Returns this head fitted on ``known``."""
        tried = penalties(pipeline.recipe, pipeline.task)
        # Weaker penalties start from stronger ones where there is no closed form.
        path = [self.l2] if is_closed(pipeline.recipe, pipeline.task) else [l2 for l2 in tried if l2 >= self.l2]
        *_, last = probes(pipeline, known, l2=path, stretch=self.stretch)
        return last.times(self.factor)


def by_validation(pipeline: Pipeline, known: Known, held_out: Known) -> Iterator[Choice]:
    """Yields heads of ``known`` as they answer ``held_out``, strongest penalty first, until that brings no more."""
    path = probes(pipeline, known, l2=penalties(pipeline.recipe, pipeline.task))
    answers = ((probe.l2, probe.outputs(held_out.features)) for probe in path)
    yield from _path(pipeline, answers, held_out.target, stretch=1.0, on="val")


def by_folds(
    pipeline: Pipeline, known: Known, *, folds: Sequence[tuple[np.ndarray, np.ndarray]], console: Console
) -> Iterator[Choice]:
    """Yields penalties, and reaches of a kernel, as heads of the other folds answer each one of ``known``."""
    recipe, task = pipeline.recipe, pipeline.task
    stretches = STRETCHES if recipe.head.centres else (1.0,)
    with console.bar("paths of heads, by folds", total=len(stretches)) as bar:
        for stretch in stretches:
            x = _basis(pipeline, known.features, stretch=stretch).map(known.features)
            answers = cross_outputs(task, x, known.target, l2=penalties(recipe, task), folds=folds)
            yield from _path(pipeline, answers, known.target, stretch=stretch, on="folds")
            bar.advance()


def _path(
    pipeline: Pipeline, answers: Iterable[tuple[float, Tensor]], target: Tensor, *, stretch: float, on: str
) -> Iterator[Choice]:
    """Yields what ``answers``, outputs by penalty, are worth, until neither score nor loss gain."""
    task = pipeline.task
    best, least, stale = task.worst, math.inf, 0
    for l2, outputs in answers:
        # Least squares ranks classes; their probabilities are had at the scale that suits them best.
        ranks = task.ranks and pipeline.recipe.optim.solver == "squares"
        factor = sharpness(task, outputs, target) if ranks else 1.0
        outputs = outputs * factor
        choice = Choice(l2, stretch, factor, task.metrics(outputs, target), float(task.loss(outputs, target)), on)
        yield choice
        score = choice.scores[task.primary]
        better = task.is_better(score, best)
        stale = 0 if better or choice.loss < least else stale + 1
        best, least = score if better else best, min(least, choice.loss)
        if stale == PATIENCE:
            return


def best_of(task: Task, choices: Sequence[Choice], *, samples: int) -> Choice:
    """Returns the choice of least loss among those that ``samples`` cannot tell from the best score."""
    scores = [choice.scores[task.primary] for choice in choices]
    if not by_loss(task):
        best = min(scores, key=lambda score: -score if task.higher_is_better else score)
        return choices[scores.index(best)]
    enough = within_error(max(scores), samples=samples)
    good = [choice for choice, score in zip(choices, scores, strict=True) if score >= enough]
    return min(good, key=lambda choice: choice.loss)


def rule(task: Task, *, what: str) -> str:
    """Returns in words which one of ``what`` ("heads", "epochs") is kept."""
    score = f"validation {task.words(task.primary)}" if what == "epochs" else task.words(task.primary)
    if not by_loss(task):
        return f"of the {what} the one with the best {score} is kept"
    so_far = " so far" if what == "epochs" else ""  # weights of epochs that were passed over are gone
    return f"of the {what} within one standard error of the best {score}{so_far} the one of least loss is kept"


def by_loss(task: Task) -> bool:
    """Returns whether the loss chooses among scores that the samples cannot tell from the best."""
    return task.ranks and task.higher_is_better


def within_error(top: float, *, samples: int) -> float:
    """Returns the least share that ``samples`` cannot tell from ``top``: one standard error below it."""
    share = min(max(top, 0.0), 1.0)
    return top - math.sqrt(share * (1 - share) / samples)


def probes(pipeline: Pipeline, known: Known, *, l2: Sequence[float], stretch: float = 1.0) -> Iterator[Probe]:
    """Yields a head for each penalty, as the recipe has it, fitted on ``known``."""
    basis = _basis(pipeline, known.features, stretch=stretch)
    solver = pipeline.recipe.optim.solver
    yield from fit_probes(
        pipeline.task, features=known.features, target=known.target, l2=l2, solver=solver, basis=basis
    )


def penalties(recipe: Recipe, task: Task) -> tuple[float, ...]:
    """Returns the penalties to try: the recipe's, or those that suit its solver."""
    if recipe.optim.l2 != "auto":
        return recipe.optim.l2
    return SQUARES_L2 if is_closed(recipe, task) else LIKELIHOOD_L2


def is_closed(recipe: Recipe, task: Task) -> bool:
    """Returns whether heads are solved by least squares, each penalty by itself."""
    return task.squared or (task.ranks and recipe.optim.solver == "squares")


def drawn_from_few(loaders: Mapping[str, Loader]) -> bool:
    """Returns whether the validation split is one draw of many from few samples, so that folds should choose."""
    return "val" in loaders["val"].examples.drawn and len(loaders["train"]) + len(loaders["val"]) <= FEW


def folds_of(
    loaders: Mapping[str, Loader], task: Task, *, count: int = FOLDS, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns ``(others, fold)`` for the folds of train and val together, positions in one behind the other."""
    known = [loaders[name] for name in ("train", "val")]
    groups = [group for loader in known for group in loader.examples.groups]
    targets = torch.cat([loader.target for loader in known if loader.target is not None])
    return cross_folds(groups, classes=targets.numpy() if task.stratified else None, count=count, seed=seed)


def _basis(pipeline: Pipeline, features: Tensor, *, stretch: float) -> Basis:
    head = pipeline.recipe.head
    return Basis.of(
        features,
        direct=pipeline.head.readout.direct,
        weight_of_direct=head.direct,
        centres=head.centres,
        gamma=head.gamma,
        stretch=stretch,
        seed=pipeline.recipe.run.seed,
    )
