"""Heads that are solved: features once, a path of heads on them, the best fitted again on all that may be learned.

Tune mode ``head`` is this alone; modes that change what is below the head end with it (``by_epochs.py``). Everything
here is about one task.
"""

import pickle
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from metatransformer.core.errors import UsageError
from metatransformer.core.task import Task
from metatransformer.data.write import atomic_file
from metatransformer.fit.choose import (
    FOLDS,
    Choice,
    Known,
    best_of,
    by_folds,
    by_validation,
    drawn_from_few,
    folds_of,
    is_closed,
    rule,
)
from metatransformer.fit.closed_form import Probe
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted, refits
from metatransformer.fit.pace import HEADS
from metatransformer.infer.evaluate import compute_features
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe


class Lessons(NamedTuple):
    """What heads learn from, and what they are measured on where no folds are."""

    known: Known
    held_out: Known


def fit_head(fitted: Fitted, context: Context) -> None:
    """Solves heads on features that are computed once, and keeps the best on what they did not learn from."""
    lessons = lessons_of(fitted, context)
    choice = choose_head(fitted, lessons, context)
    keep_head(fitted, choice, lessons, context)


def lessons_of(fitted: Fitted, context: Context) -> Lessons:
    """Computes the features of train and val."""
    known, held_out = (Known(_features(fitted, split, context), _target(fitted, split)) for split in ("train", "val"))
    return Lessons(known, held_out)


def _target(fitted: Fitted, split: str) -> torch.Tensor:
    target = fitted.loaders[split].target
    assert target is not None
    return target


def choose_head(fitted: Fitted, lessons: Lessons, context: Context, *, by_split: bool = False) -> Choice:
    """Returns the best of a path of heads, each logged as it comes; ``by_split``: folds do not choose."""
    pipeline, (known, held_out) = fitted.pipeline, lessons
    if 0 < pipeline.recipe.head.centres < len(known.target):
        count = f"{pipeline.recipe.head.centres:,} of {len(known.target):,}"
        context.console.note(f"the kernel head compares with {count} training samples (head.centres)")
    folds = [] if by_split else _folds(fitted)
    if folds:
        everything = known.with_more(held_out)
        tried = by_folds(pipeline, everything, folds=folds, console=context.console)
        samples, how = len(everything.target), f"{len(folds)} folds of train and val"
    else:
        tried, samples, how = by_validation(pipeline, known, held_out), len(held_out.target), "validation"
    return _chosen(fitted, tried, context, samples=samples, how=how)


def keep_head(fitted: Fitted, choice: Choice, lessons: Lessons, context: Context) -> None:
    """Fits the chosen head on what it may learn from, leaves it in the model, and its answers in ``fitted``."""
    pipeline, (known, held_out) = fitted.pipeline, lessons
    best = choice.head(pipeline, known)
    fitted.outputs["val"] = best.outputs(held_out.features)
    if refits(pipeline):
        best = choice.head(pipeline, known.with_more(held_out))
        context.console.note("fitted again with this choice on train and val together")
    if "test" in fitted.loaders:
        fitted.outputs["test"] = best.outputs(_features(fitted, "test", context))
    take(pipeline, best)


def take(pipeline: Pipeline, best: Probe) -> None:
    """Leaves a solved head in the model."""
    pipeline.head.take(mean=best.mean, scale=best.scale, weight=best.weight, bias=best.bias, centres=best.centres)


def _folds(fitted: Fitted) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the folds of train and val that choose the head, none where the validation split does."""
    recipe, task = fitted.pipeline.recipe, fitted.pipeline.task
    count = recipe.optim.folds
    if count == "auto":
        count = FOLDS if drawn_from_few(fitted.loaders) and is_closed(recipe, task) else 0
    return folds_of(fitted.loaders, task, count=count, seed=recipe.run.seed) if count else []


def _chosen(fitted: Fitted, tried: Iterable[Choice], context: Context, *, samples: int, how: str) -> Choice:
    """Returns the best of what is tried on ``samples``; logs each as it comes."""
    recipe, task, outcome = fitted.pipeline.recipe, fitted.pipeline.task, fitted.outcome
    choices = []
    outcome.history = []  # of the last path alone
    for number, choice in enumerate(context.clock.while_left(tried, share=HEADS)):
        choices.append(choice)
        outcome.history.append({"step": number, **choice.line(recipe)})
        if context.run is not None:
            context.run.log(outcome.history[-1])
    best = best_of(task, choices, samples=samples)
    outcome.kept = choices.index(best)
    reach = f", gamma {outcome.history[outcome.kept]['gamma']:g}" if recipe.head.centres else ""
    score = f"{how} {task.primary} {best.scores[task.primary]:.4f}"
    context.console.note(f"kept of {len(choices)} heads: l2 {best.l2:g}{reach}, {score}; {rule(task, what='heads')}")
    return best


def require_linear(recipe: Recipe) -> None:
    """Raises UsageError for what tune mode ``head`` has no use for: a hidden layer, epochs."""
    if recipe.head.hidden or recipe.head.dropout:
        raise UsageError(
            "head.hidden / head.dropout",
            must="be 0 in tune mode 'head', which fits linear heads",
            found=f"{recipe.head.hidden} / {recipe.head.dropout}",
            do="Use tune=ends for a head with a hidden layer.",
        )
    if recipe.optim.epochs != "auto":
        must, do = "be left alone in tune mode 'head', which solves its heads", "Use tune=ends to train by epochs."
        raise UsageError("optim.epochs", must=must, found=str(recipe.optim.epochs), do=do)


def require_foldable(recipe: Recipe, task: Task) -> None:
    """Raises UsageError where folds are asked for that heads by likelihood cannot have."""
    asked = recipe.optim.folds
    if asked not in ("auto", 0) and not is_closed(recipe, task):
        must = "be 'auto' or 0 for heads by likelihood"
        raise UsageError("optim.folds", must=must, found=str(asked), do="Or use optim.solver=squares.")


def _features(fitted: Fitted, split: str, context: Context) -> torch.Tensor:
    """Returns the features of a split, from the run folder when a killed run left them there.

    Of several processes each computes all, and only the first one touches the run folder.
    """
    name, console = fitted.pipeline.task_name, context.console
    path = None
    if context.run is not None and context.run.writes:
        path = context.run.checkpoint.parent / f"features-{name}-{split}.pt"
    if path is not None and path.is_file():
        try:
            return torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
            console.note(f"{path} is damaged: computed again")
    compute = compute_features if context.memo is None else context.memo.features
    features = compute(fitted.pipeline, fitted.loaders[split], console=console, title=f"features, {split}")
    if path is not None:
        with atomic_file(path) as temporary:
            torch.save(features, temporary)
    return features
