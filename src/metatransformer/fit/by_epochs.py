"""Tune modes that change what is below the head: training by epochs.

Where frozen features carry meaning (a tokenizer that came with the trunk), what is trained through is a narrow linear
head that was solved before: a head that knows nothing spoils what was pretrained with its first gradients (Kumar et al.
2022, arXiv 2202.10054), and one of thousands of features has its training samples by heart and nothing left to teach.
Then the recipe's own head is solved on the tuned features, as in tune mode ``head``; where that is no gain on the
validation split, the model stays untuned. Elsewhere head and tokenizer start fresh and learn together.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from metatransformer.fit.choose import Choice
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted
from metatransformer.fit.objective import Supervised
from metatransformer.fit.pace import UNTUNED, features_in_time
from metatransformer.fit.solve import Lessons, choose_head, keep_head, lessons_of, take
from metatransformer.fit.train import Trainer
from metatransformer.pipeline import HeadPlan, Pipeline, make_head, readout_of
from metatransformer.recipe import HeadOptions


def fit_by_epochs(fitted: Fitted, context: Context) -> None:
    """Trains what the tune mode says and leaves the best in the model.

    A killed run continues in the epoch where it was; heads are solved again.
    """
    pipeline = fitted.pipeline
    if not all(pipeline.model.head(name).solved for name in pipeline.tasks):
        _train(fitted, pipeline, context, start_loss=None)
        return
    if context.clock.limited:
        features_in_time(fitted, context, until=UNTUNED)
    context.console.note("the head on what the trunk gives untuned:")
    before = {name: _solved(part, context) for name, part in fitted.by_task().items()}
    start = _parameters_below(pipeline)
    if pipeline.recipe.tune == "tokens":
        _train(fitted, in_front(pipeline), context, start_loss=sum(constant_losses(fitted).values()), fresh=True)
    else:
        narrow = narrowed(pipeline)
        _train(fitted, narrow, context, start_loss=_solve_narrow(narrow, fitted, context))
    courses = {name: (outcome.history, outcome.kept) for name, outcome in fitted.outcomes.items()}
    trained = any(kept for _, kept in courses.values())
    helped = trained and _keep_tuned(fitted, before, context)
    if not helped:
        context.console.note("tuning brought no gain on validation: the model stays untuned")
        with torch.no_grad():
            for parameter, value in start:
                parameter.copy_(value)
        for name, part in fitted.by_task().items():
            lessons, _ = before[name]
            keep_head(part, choose_head(part, lessons, context.in_memory()), lessons, context.in_memory())
    for name, (history, kept) in courses.items():
        fitted.outcomes[name].history, fitted.outcomes[name].kept = history, kept if helped else 0


def narrowed(pipeline: Pipeline) -> Pipeline:
    """Returns the same tokenizers and trunk behind new linear heads of few features, to train through.

    Means over a grid become one mean beside the summary token.
    """
    return _with_linear_heads(
        pipeline, lambda own: replace(own, pool="both" if own.pool in ("grid", "columns") else own.pool), solved=True
    )


def in_front(pipeline: Pipeline) -> Pipeline:
    """Returns the same tokenizers behind new linear heads that read the tokens before any block of the trunk."""
    return _with_linear_heads(pipeline, lambda own: replace(own, read=(0,)), solved=False)


def _with_linear_heads(pipeline: Pipeline, changed: Callable[[HeadOptions], HeadOptions], *, solved: bool) -> Pipeline:
    heads = {}
    for name, task in pipeline.tasks.items():
        options = replace(changed(pipeline.recipe.head_of(name)), centres=0)
        seen = {given: pipeline.model.tokenizer(given) for given in pipeline.recipe.inputs_of(name)}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(pipeline.recipe.run.seed)
            readout = readout_of(options, seen, trunk=pipeline.trunk)
            heads[name] = make_head(options, readout, task, plan=HeadPlan(solved, 0))
    sets = {name: replace(own, head=replace(own.head, centres=0)) for name, own in pipeline.recipe.sets.items()}
    recipe = replace(pipeline.recipe, head=replace(pipeline.recipe.head, centres=0), sets=sets)
    return replace(pipeline, recipe=recipe, model=pipeline.model.with_heads(heads))


def constant_losses(fitted: Fitted) -> dict[str, float]:
    """Returns the training loss of the best constant answer of each task, near which fresh heads start."""
    found = {}
    for name, part in fitted.by_task().items():
        target = part.loaders["train"].target
        assert target is not None
        found[name] = float(part.pipeline.task.loss(part.pipeline.task.constant().expand(len(target), -1), target))
    return found


def _units(fitted: Fitted) -> dict[str, float]:
    """Returns what each task's loss is counted in: of several data sets, what its constant answer loses."""
    return constant_losses(fitted) if fitted.pipeline.recipe.sets else {}


def _parameters_below(pipeline: Pipeline) -> list[tuple[torch.nn.Parameter, torch.Tensor]]:
    """Returns what learns below the heads, with its values now."""
    heads = {id(parameter) for parameter in pipeline.model.heads.parameters()}
    learning = [p for p in pipeline.model.parameters() if p.requires_grad and id(p) not in heads]
    return [(parameter, parameter.detach().clone()) for parameter in learning]


def _train(
    fitted: Fitted, pipeline: Pipeline, context: Context, *, start_loss: float | None, fresh: bool = False
) -> None:
    """Trains by epochs and leaves the weights of the best one in the model."""
    units = _units(fitted)
    trainer = Trainer(
        pipeline,
        Supervised(pipeline.tasks, units=units),
        train=fitted.loaders["train"],
        val=fitted.loaders["val"],
        start_loss=start_loss,
        fresh=fresh,
        units=units,
        context=context,
    )
    progress = trainer.fit()
    for name, outcome in fitted.outcomes.items():
        outcome.history, outcome.kept = [_of_task(line, name) for line in progress.history], progress.kept


def _of_task(line: Mapping[str, Any], task: str) -> dict[str, Any]:
    """Returns a line of the log with a task's own scores also under their plain names, as where it is the only one."""
    prefix = f"val_{task}_"
    own = {f"val_{key.removeprefix(prefix)}": value for key, value in line.items() if key.startswith(prefix)}
    return {**line, **own}


def _solved(part: Fitted, context: Context) -> tuple[Lessons, Choice]:
    """Returns what the heads of one task learn from, and the best of them by the validation split."""
    lessons = lessons_of(part, context.in_memory())
    return lessons, choose_head(part, lessons, context.in_memory(), by_split=True)


def _solve_narrow(narrow: Pipeline, fitted: Fitted, context: Context) -> float:
    """Solves the heads that are trained through, and returns their loss on the training samples."""
    total, units = 0.0, _units(fitted)
    for name, part in Fitted(narrow, fitted.loaders).by_task().items():
        readout = part.pipeline.head.readout
        context.console.note(f"the head that is trained through ({readout.facts.pool}, {readout.features:,} features):")
        lessons, choice = _solved(part, context)
        head, known = choice.head(part.pipeline, lessons.known), lessons.known
        take(part.pipeline, head)
        outputs, target = known.whole(head.outputs(known.features)), known.whole(known.target)
        total += float(part.pipeline.tasks[name].loss(outputs, target)) / units.get(name, 1.0)
    return total


def _keep_tuned(fitted: Fitted, before: Mapping[str, tuple[Lessons, Choice]], context: Context) -> bool:
    """Solves the heads on tuned features and keeps them where that is a gain for every task, of several data sets for
    their losses together, in their units; returns whether it is.
    """
    context.console.note("the head on what the trunk gives tuned:")
    parts = fitted.by_task()
    tuned = {name: _solved(part, context) for name, part in parts.items()}
    helped = [_is_gain(parts[name], tuned[name][1], before[name][1], context) for name in parts]
    gains = all(helped)
    if units := _units(fitted):
        sums = [sum(found[name][1].loss / units[name] for name in parts) for found in (tuned, before)]
        told = f"tuned {sums[0]:.4f}, untuned {sums[1]:.4f}"
        context.console.note(f"validation losses of all tasks, each in units of its constant answer's: {told}")
        gains = sums[0] < sums[1]
    if gains:
        for name, part in parts.items():
            lessons, choice = tuned[name]
            keep_head(part, choice, lessons, context.in_memory())
    return gains


def _is_gain(part: Fitted, tuned: Choice, untuned: Choice, context: Context) -> bool:
    task = part.pipeline.task
    score, score_before = tuned.scores[task.primary], untuned.scores[task.primary]
    context.console.note(f"validation {task.primary} tuned {score:.4f}, untuned {score_before:.4f}")
    # Both: of a few samples that are all right the loss alone, and of many the score alone, is soon a bit better.
    return task.is_better(score, score_before) and tuned.loss <= untuned.loss
