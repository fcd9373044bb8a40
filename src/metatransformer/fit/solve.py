"""Heads that are solved: features once, a path of heads on them, the best fitted again on all that may be learned.

Tune mode ``head`` is this alone; modes that change what is below the head end with it (``by_epochs.py``). Everything
here is about one task.
"""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Literal, NamedTuple

import numpy as np
import torch

from metatransformer.core.errors import UsageError
from metatransformer.core.task import Task
from metatransformer.data.write import atomic_file
from metatransformer.fit.choose import (
    FOLDS,
    Choice,
    Known,
    Solved,
    averaged,
    best_of,
    by_folds,
    by_validation,
    drawn_from_few,
    folds_of,
    is_closed,
    parts_of,
    rule,
    stacked,
)
from metatransformer.fit.closed_form import Probe
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted, refits
from metatransformer.fit.pace import HEADS
from metatransformer.fit.shares import Held, are_shared
from metatransformer.infer.evaluate import Features, compute_features
from metatransformer.nn.beside import Beside, BesideFacts, Standardise
from metatransformer.nn.kernel import KernelLayer
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe

PARTS = 10  # of the held-out samples, whose losses tell the error of a mean


class Lessons(NamedTuple):
    """What heads learn from, and what they are measured on where no folds are."""

    known: Known
    held_out: Known


class Tried(NamedTuple):
    """The best head of each part that was tried, and the targets that they were scored on."""

    best: Sequence[Choice]
    target: torch.Tensor
    log: "_Log"


def fit_head(fitted: Fitted, context: Context) -> None:
    """Solves heads on features that are computed once, and keeps the best on what they did not learn from."""
    if fitted.pipeline.recipe.fusion == "choose" and len(fitted.pipeline.route) > 1:
        choose_fusion(fitted, context)
    lessons = lessons_of(fitted, context)
    tried = _try_parts(fitted, lessons, context, by_split=False)
    choice, others = _among(fitted, tried), _without_each(fitted, tried)
    solved = keep_head(fitted, choice, lessons, context, without=others)
    if len(fitted.pipeline.route) > 1:
        fitted.outcome.inputs = _contributions(fitted, tried.best, others, solved, lessons, context)


def choose_fusion(fitted: Fitted, context: Context) -> None:
    """Lets the inputs meet where the best head answers best what it did not learn from: as tokens, or behind the trunk.

    ``fitted.outcome.fusion`` holds the score of each way.
    """
    pipeline, found = fitted.pipeline, {}
    for way in ("features", "tokens"):
        context.console.note(f"fusion={way}:")
        meet(pipeline, way)
        found[way] = choose_head(fitted, lessons_of(fitted, context.in_memory()), context.in_memory())
    samples = sum(
        len(fitted.loaders[name]) for name in (("train", "val") if found["tokens"].on == "folds" else ("val",))
    )
    best = best_of(pipeline.task, list(found.values()), samples=samples)
    kept = next(way for way, choice in found.items() if choice is best)
    meet(pipeline, kept)
    primary = pipeline.task.primary
    fitted.outcome.fusion = {way: choice.scores[primary] for way, choice in found.items()}
    told = ", ".join(f"{way} {score:.4f}" for way, score in fitted.outcome.fusion.items())
    context.console.note(f"{pipeline.task.words(primary)} by fusion: {told}; kept: fusion={kept}")


def meet(pipeline: Pipeline, way: Literal["features", "tokens"]) -> None:
    """Changes where the inputs of a pipeline meet."""
    pipeline.recipe = replace(pipeline.recipe, fusion=way)
    pipeline.model.apart = frozenset(pipeline.recipe.apart)


def lessons_of(fitted: Fitted, context: Context) -> Lessons:
    """Computes the features of train and val, of several processes each a share of both.

    Where what is summed over all training samples is enough to solve heads, their features stay where they are.
    """
    held_out = Known(_features(fitted, "val", context), _target(fitted, "val"))
    return Lessons(_known(fitted, context), held_out)


def _known(fitted: Fitted, context: Context) -> Known:
    target, place = _target(fitted, "train"), context.place
    if not (are_shared(len(target), place) and _by_sums(fitted)):
        return Known(_features(fitted, "train", context), target)
    share = Held.of(len(target), place)
    return Known(_own_features(fitted, "train", context), target[share.places], share)


def _by_sums(fitted: Fitted) -> bool:
    """Returns whether heads need no more of the training samples than sums over them: lines and kernels by squares on
    the trunk's features of one input, chosen by the validation split. Of fewer samples than features all are gathered:
    their own Gram matrix is the smaller one.
    """
    pipeline, samples = fitted.pipeline, len(fitted.loaders["train"])
    recipe, task = pipeline.recipe, pipeline.task
    plain = len(pipeline.route) > 1 or any(reader.plain for reader in pipeline.route.values())
    small = not recipe.head.centres and samples < pipeline.head.readout.features
    return is_closed(recipe, task) and not (task.compares or plain or small or _folds(fitted))


def _target(fitted: Fitted, split: str) -> torch.Tensor:
    target = fitted.loaders[split].target
    assert target is not None
    return target


def choose_head(fitted: Fitted, lessons: Lessons, context: Context, *, by_split: bool = False) -> Choice:
    """Returns the best head of all that are tried, each logged as it comes; ``by_split``: folds do not choose."""
    return _among(fitted, _try_parts(fitted, lessons, context, by_split=by_split))


def _try_parts(fitted: Fitted, lessons: Lessons, context: Context, *, by_split: bool) -> Tried:
    pipeline, (known, held_out) = fitted.pipeline, lessons
    if 0 < pipeline.recipe.head.centres < len(known) and not pipeline.task.compares:
        count = f"{pipeline.recipe.head.centres:,} of {len(known):,}"
        context.console.note(f"the kernel head compares with {count} training samples (head.centres)")
    folds = [] if by_split else _folds(fitted)
    scored = known.with_more(held_out) if folds else held_out
    log = _Log(fitted, context, samples=len(scored), how=f"{len(folds)} folds of train and val" if folds else "")
    best = []
    for part in parts_of(pipeline, known.features):
        tried = (
            by_folds(pipeline, part, scored, folds=folds, console=context.console)
            if folds
            else by_validation(pipeline, part, known, held_out)
        )
        best.append(log.best_of(tried))
    return Tried(best, scored.target, log)


def _among(fitted: Fitted, tried: Tried) -> Choice:
    """Returns the best head on the trunk's features, on plain ones, or on several, as the recipe lets it choose."""
    pipeline, (best, target, log) = fitted.pipeline, tried
    if pipeline.task.compares:  # a sum of two vectors of different spaces is none of either
        return log.keep(best)
    trunk, plain = ([one for one in best if one.shares[0].part.plain == kind] for kind in (False, True))
    if len(pipeline.route) > 1:
        return log.keep([*best, *(log.add(choice) for choice in stacked(pipeline, best, target))])
    if not (trunk and plain):
        return log.keep(best)
    other = best_of(pipeline.task, plain, samples=len(target))
    both = [log.add(choice) for choice in averaged(pipeline, trunk[0], other, target)]
    return log.keep(both if pipeline.recipe.head.features == "both" else [*best, *both])


def _without_each(fitted: Fitted, tried: Tried) -> dict[str, Choice]:
    """Returns by input the best head that never saw it, of more than one input; the least accurate one last."""
    pipeline, found = fitted.pipeline, {}
    for name in pipeline.route if len(pipeline.route) > 1 and not pipeline.task.compares else ():
        others = [choice for choice in tried.best if choice.shares[0].part.input not in ("", name)]
        if others:
            mixed = [*others, *stacked(pipeline, others, tried.target)]
            found[name] = best_of(pipeline.task, mixed, samples=len(tried.target))
    return dict(sorted(found.items(), key=lambda item: item[1].loss))


def keep_head(
    fitted: Fitted,
    choice: Choice,
    lessons: Lessons,
    context: Context,
    *,
    without: Mapping[str, Choice] = MappingProxyType({}),
) -> Solved:
    """Fits the chosen head on what it may learn from, leaves it in the model, and its answers in ``fitted``.

    ``without`` are heads for samples that lack an input, each kept where it answers held-out samples clearly better
    than the chosen one does as if they lacked it.
    """
    pipeline, (known, held_out) = fitted.pipeline, lessons
    best = choice.head(pipeline, known)
    best = best._replace(lacking=_helpful(pipeline, best, without, lessons))
    fitted.outputs["val"] = best.outputs(held_out.features)
    if refits(pipeline):
        known = known.with_more(held_out)
        lacking = {name: without[name].head(pipeline, known) for name in best.lacking}
        best = choice.head(pipeline, known)._replace(lacking=lacking)
        context.console.note("fitted again with this choice on train and val together")
    if "test" in fitted.loaders:
        fitted.outputs["test"] = best.outputs(_features(fitted, "test", context))
    take(pipeline, best)
    return best


def _helpful(pipeline: Pipeline, best: Solved, without: Mapping[str, Choice], lessons: Lessons) -> dict[str, Solved]:
    """Returns the heads of training samples that lose less than ``best`` where held-out samples lack an input, by more
    than the standard error of the difference.
    """
    task, known, features, target = pipeline.task, lessons.known, lessons.held_out.features, lessons.held_out.target
    parts = [torch.arange(start, len(target), PARTS) for start in range(min(PARTS, len(target)))]
    found = {}
    for name, choice in without.items():
        absent, other = features.without(name), choice.head(pipeline, known)
        pairs = [head.outputs(absent) for head in (best, other)]
        lost = torch.tensor([[float(task.loss(x[part], target[part])) for part in parts] for x in pairs])
        gain = lost[0] - lost[1]
        if len(parts) > 1 and gain.mean() > gain.std() / len(parts) ** 0.5:
            found[name] = other
    return found


def _contributions(
    fitted: Fitted,
    best: Sequence[Choice],
    without: Mapping[str, Choice],
    solved: Solved,
    lessons: Lessons,
    context: Context,
) -> dict[str, dict[str, float]]:
    """Returns what each input brings, by the primary metric on the test split (without one: on the validation split).

    ``alone``: the best head on this input only. ``without``: the best on the others, by late fusion, fitted without it.
    ``absent``: the model itself where every sample lacks the input.
    """
    pipeline, task = fitted.pipeline, fitted.pipeline.task
    split = "test" if "test" in fitted.loaders else "val"
    features, target = _features(fitted, split, context), _target(fitted, split)
    known = lessons.known.with_more(lessons.held_out) if split == "test" and refits(pipeline) else lessons.known

    def scored(outputs: torch.Tensor) -> float:
        return task.metrics(outputs, target)[task.primary]

    found = {}
    for name in features.columns:
        own = [choice for choice in best if choice.shares[0].part.input == name]
        by = len(lessons.held_out.target)
        alone = best_of(task, own, samples=by).head(pipeline, known)
        row = {"alone": scored(alone.outputs(features)), "absent": scored(solved.outputs(features.without(name)))}
        if name in without:
            kept = solved.lacking.get(name) if split == "test" else None  # of train and val
            other = kept or without[name].head(pipeline, known)
            row["without"] = scored(other.outputs(features))
        found[name] = row
    return found


def take(pipeline: Pipeline, best: Solved) -> None:
    """Leaves a solved head in the model."""
    head = pipeline.head
    gamma, probes = pipeline.recipe.head.gamma, {part.key: probe for part, probe in best.probes}
    trunk = probes.pop("", None)
    if trunk is not None:
        head.take(mean=trunk.mean, scale=trunk.scale, weight=trunk.weight, bias=trunk.bias, centres=trunk.centres)
    else:
        head.leave_trunk()
    head.beside = _module(probes, gamma=gamma)
    lacking = {
        name: _module({part.key: probe for part, probe in other.probes}, gamma=gamma)
        for name, other in best.lacking.items()
    }
    head.lacking = torch.nn.ModuleDict(lacking)


def _module(probes: Mapping[str, Probe], *, gamma: float) -> torch.nn.ModuleDict:
    return torch.nn.ModuleDict({key: _beside(probe, gamma=gamma) for key, probe in probes.items()})


@torch.no_grad()
def _beside(probe: Probe, *, gamma: float) -> Beside:
    """Returns a solved head on features of one input as a module."""
    centres = 0 if probe.centres is None else len(probe.centres)
    words = 0 if probe.words is None else len(probe.words.columns)
    facts = BesideFacts(len(probe.mean), centres, words)
    beside = Beside(facts, outputs=len(probe.bias), gamma=gamma)
    if probe.words is not None:
        beside.norm = probe.words
    else:
        assert isinstance(beside.norm, Standardise)
        beside.norm.mean.copy_(probe.mean)
        beside.norm.scale.copy_(probe.scale)
    if probe.centres is not None:
        assert isinstance(beside.last, KernelLayer)
        beside.last.centres.copy_(probe.centres)
    beside.last.weight.copy_(probe.weight)
    beside.last.bias.copy_(probe.bias)
    return beside


def _folds(fitted: Fitted) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the folds of train and val that choose the head, none where the validation split does."""
    recipe, task = fitted.pipeline.recipe, fitted.pipeline.task
    count = recipe.optim.folds
    if count == "auto":
        count = FOLDS if not task.compares and drawn_from_few(fitted.loaders) and is_closed(recipe, task) else 0
    return folds_of(fitted.loaders, task, count=count, seed=recipe.run.seed) if count else []


class _Log:
    """What was tried so far, and what of it is kept, for the history of a run and for people."""

    def __init__(self, fitted: Fitted, context: Context, *, samples: int, how: str) -> None:
        self.fitted, self.context = fitted, context
        self.samples, self.how = samples, how or "validation"
        self.choices: list[Choice] = []
        fitted.outcome.history = []  # of the last path alone

    def add(self, choice: Choice) -> Choice:
        """Writes down one head that was tried, and returns it."""
        history = self.fitted.outcome.history
        history.append({"step": len(self.choices), **choice.line(self.fitted.pipeline.recipe)})
        self.choices.append(choice)
        if self.context.run is not None:
            self.context.run.log(history[-1])
        return choice

    def best_of(self, tried: Iterable[Choice]) -> Choice:
        """Returns the best of a path of heads; all are written down as they come."""
        task, found = self.fitted.pipeline.task, self.context.clock.while_left(tried, share=HEADS)
        return best_of(task, [self.add(choice) for choice in found], samples=self.samples)

    def keep(self, finalists: Sequence[Choice]) -> Choice:
        """Returns the best of several heads, says how they scored, and writes down which one is kept."""
        task, outcome = self.fitted.pipeline.task, self.fitted.outcome
        best = best_of(task, finalists, samples=self.samples)
        outcome.kept = next(place for place, choice in enumerate(self.choices) if choice is best)
        kept, primary = outcome.history[outcome.kept], task.primary
        if len(finalists) > 1:
            told = ", ".join(f"{choice.words} {choice.scores[primary]:.4f}" for choice in finalists)
            self.context.console.note(f"by {self.how}, {task.words(primary)} of heads on the features of: {told}")
        settings = [f"{name} {kept[name]:g}" for name in ("l2", "gamma") if name in kept]
        score = f"{self.how} {primary} {best.scores[primary]:.4f}"
        told = ", ".join([best.words, *settings, score] if len(finalists) > 1 else [*settings, score])
        self.context.console.note(f"kept of {len(self.choices)} heads: {told}; {rule(task, what='heads')}")
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
    if task.compares and asked not in ("auto", 0):
        must = f"be 'auto' or 0 for the task '{task.name}': vectors of heads of different folds cannot be compared"
        raise UsageError("optim.folds", must=must, found=str(asked))
    if asked not in ("auto", 0) and not is_closed(recipe, task):
        must = "be 'auto' or 0 for heads by likelihood"
        raise UsageError("optim.folds", must=must, found=str(asked), do="Or use optim.solver=squares.")


def _features(fitted: Fitted, split: str, context: Context) -> Features:
    """Returns the features of a split; of several processes each computes a share of them."""
    own, count, place = _own_features(fitted, split, context), len(fitted.loaders[split]), context.place
    return Held.of(count, place).features(own) if are_shared(count, place) else own


def _own_features(fitted: Fitted, split: str, context: Context) -> Features:
    """Returns the features of this process's share of a split, from the run folder where a killed run left them."""
    name, console, place = fitted.pipeline.task_name, context.console, context.place
    loader, suffix = fitted.loaders[split], ""
    if are_shared(len(loader), place):
        loader = loader.part(Held.of(len(loader), place).places.tolist(), tasks=loader.tasks)
        suffix = f"-{place.rank}-of-{place.world}"
    path = None
    stored = context.memo is not None and context.memo.store is not None
    if context.run is not None and (context.run.writes or suffix) and not stored:
        path = context.run.checkpoint.parent / f"features-{name}-{split}{suffix}.pt"
    if path is not None and path.is_file():
        try:
            return Features(*torch.load(path, weights_only=True))
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, TypeError):
            console.note(f"{path} is damaged: computed again")
    compute = compute_features if context.memo is None else context.memo.features
    features = compute(fitted.pipeline, loader, console=console, title=f"features, {split}")
    if path is not None:
        with atomic_file(path) as temporary:
            torch.save(tuple(features), temporary)
    return features
