"""Tune modes that change what is below the head: training by epochs.

Where frozen features carry meaning (a tokenizer that came with the trunk), what is trained through is a narrow linear
head that was solved before: a head that knows nothing spoils what was pretrained with its first gradients (Kumar et al.
2022, arXiv 2202.10054), and one of thousands of features has its training samples by heart and nothing left to teach.
Then the recipe's own head is solved on the tuned features, as in tune mode ``head``; where that is no gain on the
validation split, the model stays untuned. Elsewhere head and tokenizer start fresh and learn together.
"""

import torch

from metatransformer.fit.choose import Choice
from metatransformer.fit.fitted import Fitted
from metatransformer.fit.memo import Memo
from metatransformer.fit.run import RunFolder
from metatransformer.fit.solve import choose_head, keep_head, lessons_of, require_foldable, take
from metatransformer.fit.train import Trainer
from metatransformer.infer.loader import Place
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline, narrowed


def fit_by_epochs(fitted: Fitted, *, run: RunFolder | None, place: Place, memo: Memo | None, console: Console) -> None:
    """Trains what the tune mode says and leaves the best in the model.

    A killed run continues in the epoch where it was; heads are solved again.
    """
    pipeline = fitted.pipeline
    if not pipeline.solves:
        _train(fitted, pipeline, start_loss=None, run=run, place=place, console=console)
        return
    require_foldable(pipeline.recipe, pipeline.task)
    if place.world > 1:
        console.note("heads are solved in one process: the others repeat the same work")
    console.note("the head on what the trunk gives untuned:")
    before = lessons_of(fitted, run=None, memo=memo, console=console)
    untuned = choose_head(fitted, before, run=None, console=console, by_split=True)
    below = [p for part in pipeline.model.children() if part is not pipeline.model.heads for p in part.parameters()]
    learning = [parameter for parameter in below if parameter.requires_grad]
    start = [parameter.detach().clone() for parameter in learning]
    own, narrow = pipeline.head, narrowed(pipeline)
    start_loss = _solve_narrow(narrow, fitted, console)
    _train(fitted, narrow, start_loss=start_loss, run=run, place=place, console=console)
    pipeline.put_head(own)
    history, kept = fitted.history, fitted.kept
    if kept and _solve_tuned(fitted, untuned, console):
        fitted.history, fitted.kept = history, kept
        return
    console.note("tuning brought no gain on validation: the model stays untuned")
    with torch.no_grad():
        for parameter, value in zip(learning, start, strict=True):
            parameter.copy_(value)
    choice = choose_head(fitted, before, run=None, console=console)
    keep_head(fitted, choice, before, run=None, memo=memo, console=console)
    fitted.history, fitted.kept = history, 0


def _train(
    fitted: Fitted,
    pipeline: Pipeline,
    *,
    start_loss: float | None,
    run: RunFolder | None,
    place: Place,
    console: Console,
) -> None:
    """Trains by epochs and leaves the weights of the best one in the model."""
    trainer = Trainer(
        pipeline,
        train=fitted.loaders["train"],
        val=fitted.loaders["val"],
        start_loss=start_loss,
        run=run,
        place=place,
        console=console,
    )
    progress = trainer.fit()
    fitted.history, fitted.kept = progress.history, progress.kept


def _solve_narrow(narrow: Pipeline, fitted: Fitted, console: Console) -> float:
    """Solves the head that is trained through, and returns its loss on the training samples."""
    through = Fitted(narrow, fitted.loaders)
    console.note(f"the head that is trained through ({narrow.head.kind}, {narrow.head.features:,} features):")
    lessons = lessons_of(through, run=None, memo=None, console=console)
    choice = choose_head(through, lessons, run=None, console=console, by_split=True)
    head, (features, target) = choice.head(narrow, lessons.known), lessons.known
    take(narrow, head)
    return float(narrow.task.loss(head.outputs(features), target))


def _solve_tuned(fitted: Fitted, untuned: Choice, console: Console) -> bool:
    """Solves the head on tuned features and keeps it where that is a gain; returns whether it is one."""
    task = fitted.pipeline.task
    console.note("the head on what the trunk gives tuned:")
    lessons = lessons_of(fitted, run=None, memo=None, console=console)
    tuned = choose_head(fitted, lessons, run=None, console=console, by_split=True)
    score, score_before = tuned.scores[task.primary], untuned.scores[task.primary]
    console.note(f"validation {task.primary} tuned {score:.4f}, untuned {score_before:.4f}")
    # Both: of a few samples that are all right the loss alone, and of many the score alone, is soon a bit better.
    helped = task.is_better(score, score_before) and tuned.loss <= untuned.loss
    if helped:
        keep_head(fitted, tuned, lessons, run=None, memo=None, console=console)
    return helped
