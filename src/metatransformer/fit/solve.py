"""Heads that are solved: features once, a path of heads on them, the best fitted again on all that may be learned.

Tune mode ``head`` is this alone; modes that change what is below the head end with it (``adapt.py``).
"""

import logging
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
)
from metatransformer.fit.fitted import Fitted, refits
from metatransformer.fit.memo import Memo
from metatransformer.fit.probe import Probe
from metatransformer.fit.run import RunFolder
from metatransformer.infer.evaluate import compute_features
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe

_log = logging.getLogger(__name__)


class Lessons(NamedTuple):
    """What heads learn from, and what they are measured on where no folds are."""

    known: Known
    held_out: Known


def fit_head(fitted: Fitted, *, run: RunFolder | None, place: Place, memo: Memo | None, console: Console) -> None:
    """Solves heads on features that are computed once, and keeps the best on what they did not learn from."""
    pipeline = fitted.pipeline
    _require_linear(pipeline.recipe)
    require_foldable(pipeline.recipe, pipeline.task)
    if place.world > 1:
        console.note("tune mode 'head' solves its heads in one process: the others repeat the same work")
    if run is not None:
        run.rewind_log(0)  # the heads are cheap: a killed run fits them all again
    lessons = lessons_of(fitted, run=run, memo=memo, console=console)
    choice = choose_head(fitted, lessons, run=run, console=console)
    keep_head(fitted, choice, lessons, run=run, memo=memo, console=console)


def lessons_of(fitted: Fitted, *, run: RunFolder | None, memo: Memo | None, console: Console) -> Lessons:
    """Computes the features of train, with its augmented copies, and of val."""

    def features_of(split: str, view: int = 0) -> torch.Tensor:
        return _features(fitted, split, view=view, run=run, memo=memo, console=console)

    train, val = fitted.loaders["train"].target, fitted.loaders["val"].target
    assert train is not None and val is not None
    views = [features_of("train", view) for view in range(fitted.pipeline.recipe.optim.views + 1)]
    known = Known(torch.cat(views) if len(views) > 1 else views[0], torch.cat([train] * len(views)))
    del views  # twice the memory of what is known
    return Lessons(known, Known(features_of("val"), val))


def choose_head(
    fitted: Fitted, lessons: Lessons, *, run: RunFolder | None, console: Console, by_split: bool = False
) -> Choice:
    """Returns the best of a path of heads, each logged as it comes; ``by_split``: folds do not choose."""
    pipeline, (known, held_out) = fitted.pipeline, lessons
    if 0 < pipeline.recipe.head.centres < len(known.target):
        count = f"{pipeline.recipe.head.centres:,} of {len(known.target):,}"
        console.note(f"the kernel head compares with {count} training samples (head.centres)")
    folds = [] if by_split else _folds(fitted)
    if folds:
        everything = known.with_more(held_out)
        tried, samples = by_folds(pipeline, everything, folds=folds, console=console), len(everything.target)
        how = f"{len(folds)} folds of train and val"
    else:
        tried, samples, how = by_validation(pipeline, known, held_out), len(held_out.target), "validation"
    return _chosen(fitted, tried, samples=samples, how=how, run=run, console=console)


def keep_head(
    fitted: Fitted, choice: Choice, lessons: Lessons, *, run: RunFolder | None, memo: Memo | None, console: Console
) -> None:
    """Fits the chosen head on what it may learn from, leaves it in the model, and its answers in ``fitted``."""
    pipeline, (known, held_out) = fitted.pipeline, lessons
    best = choice.head(pipeline, known)
    fitted.outputs["val"] = best.outputs(held_out.features)
    if refits(pipeline):
        best = choice.head(pipeline, known.with_more(held_out))
        console.note("fitted again with this choice on train and val together")
    if "test" in fitted.loaders:
        features = _features(fitted, "test", view=0, run=run, memo=memo, console=console)
        fitted.outputs["test"] = best.outputs(features)
    take(pipeline, best)


def take(pipeline: Pipeline, best: Probe) -> None:
    """Leaves a solved head in the model."""
    pipeline.head.take(mean=best.mean, scale=best.scale, weight=best.weight, bias=best.bias, centres=best.centres)


def _folds(fitted: Fitted) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the folds of train and val that choose the head, none where the validation split does."""
    recipe, task = fitted.pipeline.recipe, fitted.pipeline.task
    count = recipe.optim.folds
    if count == "auto":
        suited = drawn_from_few(fitted.loaders) and is_closed(recipe, task) and not recipe.optim.views
        count = FOLDS if suited else 0
    return folds_of(fitted.loaders, task, count=count, seed=recipe.run.seed) if count else []


def _chosen(
    fitted: Fitted, tried: Iterable[Choice], *, samples: int, how: str, run: RunFolder | None, console: Console
) -> Choice:
    """Returns the best of what is tried on ``samples``; logs each as it comes."""
    recipe, task = fitted.pipeline.recipe, fitted.pipeline.task
    choices = []
    fitted.history = []  # of the last path alone
    for number, choice in enumerate(tried):
        choices.append(choice)
        fitted.history.append({"step": number, **choice.line(recipe)})
        if run is not None:
            run.log(fitted.history[-1])
    best = best_of(task, choices, samples=samples)
    fitted.kept = choices.index(best)
    reach = f", gamma {fitted.history[fitted.kept]['gamma']:g}" if recipe.head.centres else ""
    score = f"{how} {task.primary} {best.scores[task.primary]:.4f}"
    console.note(f"best of {len(choices)} heads: l2 {best.l2:g}{reach}, {score}")
    return best


def _require_linear(recipe: Recipe) -> None:
    if recipe.head.hidden or recipe.head.dropout:
        raise UsageError(
            "head.hidden / head.dropout",
            must="be 0 in tune mode 'head', which fits linear heads",
            found=f"{recipe.head.hidden} / {recipe.head.dropout}",
            do="Use tune=ends for a head with a hidden layer.",
        )
    idle = [name for name in ("epochs", "patience") if getattr(recipe.optim, name) not in ("auto", 0)]
    if idle:
        names = " and ".join(f"optim.{name}" for name in idle)
        _log.warning(
            "%s: without effect in tune mode 'head', which solves its heads; tune=ends trains by epochs", names
        )


def require_foldable(recipe: Recipe, task: Task) -> None:
    """Raises UsageError where folds are asked for that heads by likelihood, or augmented copies, cannot have."""
    asked = recipe.optim.folds
    if asked not in ("auto", 0) and (recipe.optim.views or not is_closed(recipe, task)):
        must = "be 'auto' or 0 for heads by likelihood and for augmented views"
        raise UsageError("optim.folds", must=must, found=str(asked), do="Or use optim.solver=squares, optim.views=0.")


def _features(
    fitted: Fitted, split: str, *, view: int, run: RunFolder | None, memo: Memo | None, console: Console
) -> torch.Tensor:
    """Returns the features of a split, from the run folder when a killed run left them there.

    Of several processes each computes all, and only the first one touches the run folder.
    """
    title = f"features, {split}" + (f", view {view}" if view else "")
    path = None if run is None or not run.writes else run.checkpoint.parent / f"features-{split}-{view}.pt"
    if path is not None and path.is_file():
        return torch.load(path, weights_only=True)
    loader = fitted.loaders[split]
    if memo is not None and view == 0:
        features = memo.features(fitted.pipeline, loader, console=console, title=title)
    else:
        features = compute_features(fitted.pipeline, loader, console=console, title=title, view=view)
    if path is not None:
        with atomic_file(path) as temporary:
            torch.save(features, temporary)
    return features
