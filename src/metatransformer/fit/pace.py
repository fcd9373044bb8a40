"""What a fit is going to take, told before it is spent, and how one that was given a time (``run.minutes``) keeps it.

Samples are taken in a random order that begins with one of each class, so that those that were reached when the time
was up are a fair part of all. Each part of the work ends when its share of the time is gone; what is done by then is
learned from, scored and saved as always.
"""

import time
from collections.abc import Mapping

import numpy as np

from metatransformer.core.samples import SPLITS
from metatransformer.core.task import BoxTask, DenseTask
from metatransformer.data.examples import Examples
from metatransformer.fit.context import Context
from metatransformer.fit.fitted import Fitted
from metatransformer.fit.shares import share_sizes
from metatransformer.infer.evaluate import compute_features, compute_outputs
from metatransformer.infer.loader import Loader
from metatransformer.machine.clock import Clock, duration, memory_gb
from metatransformer.machine.console import Console
from metatransformer.pipeline import Pipeline
from metatransformer.recipe import Recipe

# Shares of the time by which parts of the work end; the rest is for predictions, report and saving.
FEATURES, HEADS, SCORES = 0.6, 0.8, 0.9  # of tune mode 'head'; scores of the others
READ, UNTUNED, TRAINED = 0.25, 0.2, 0.6  # of modes that train by epochs; UNTUNED where heads are solved besides
FIRST = 16  # samples of a split that are always reached
PILOT = 64  # samples by which time and memory are told
PILOT_OF_PARTS = 8  # of a task that answers for parts of samples: each is large
WORTH = 20.0  # seconds from which on they are


def in_random_order(examples: Examples, *, seed: int, stratified: bool) -> Examples:
    """Returns the samples in a random order that begins with one of each class."""
    order = np.random.default_rng(seed).permutation(len(examples))
    if stratified:
        (targets,) = examples.targets.values()
        names = np.array([str(targets[place]) for place in order.tolist()])
        first = np.zeros(len(order), dtype=bool)
        first[np.unique(names, return_index=True)[1]] = True
        order = np.concatenate([order[first], order[~first]])
    return examples.take(order)


def foretell(fitted: Fitted, context: Context) -> None:
    """Says how long reading, and in tune mode ``head`` features, will take, and how much memory; by a few samples."""
    pipeline, train = fitted.pipeline, fitted.loaders["train"]
    total = sum(len(loader) for loader in fitted.loaders.values())
    if total < 4 * PILOT or context.clock.limited:
        return
    solved = pipeline.recipe.tune == "head" and len(pipeline.tasks) == 1
    parts = solved and bool(pipeline.task.kit)
    if solved and isinstance(pipeline.task, BoxTask):
        total += pipeline.task.copies * len(train)
    size = min(len(train), PILOT_OF_PARTS if parts else PILOT)
    places = np.random.default_rng(0).choice(len(train), size=size, replace=False)
    each = _seconds_each(fitted, places, solved=solved)
    if total * each > WORTH:
        what = "features" if solved else "samples, before training"
        size = f" and {_memory(fitted, total, solved=solved):.1f} GB of memory" if memory_gb() else ""
        sooner = "" if any(task.kit for task in pipeline.tasks.values()) else "; --minutes N ends sooner"
        context.console.note(f"about {duration(total * each)}{size} for {total:,} {what}{sooner}")


def _seconds_each(fitted: Fitted, places: np.ndarray, *, solved: bool) -> float:
    """Returns how long one sample takes; the first quarter of the places is not counted."""
    train, start, quiet = fitted.loaders["train"], 0.0, Console(quiet=True)
    warm = max(1, len(places) // 4)
    for some in (places[:warm], places[warm:]):
        start = time.monotonic()
        for place in some.tolist():
            train.sample(place)
        if solved:
            compute = compute_outputs if fitted.pipeline.task.kit else compute_features
            compute(fitted.pipeline, train.part(some.tolist(), tasks={}), console=quiet, title="")
    return (time.monotonic() - start) / max(1, len(places) - warm)


def _memory(fitted: Fitted, total: int, *, solved: bool) -> float:
    """Returns about how much memory there will have been: what was taken, features, and what solves heads on them."""
    pipeline, gb = fitted.pipeline, memory_gb()
    kept = sum(loader.mean_bytes * len(loader) for loader in fitted.loaders.values())
    gb += min(kept, pipeline.recipe.data.cache_mb * 2**20) / 2**30
    if not solved:
        return gb
    total = pipeline.task.drawn if isinstance(pipeline.task, DenseTask) else total
    width, centres = pipeline.head.readout.features, min(pipeline.recipe.head.centres, total)
    side = centres or min(width, total)
    return gb + (8 * total * width + 4 * total * centres + 24 * side**2) / 2**30


def features_in_time(fitted: Fitted, context: Context, *, until: float) -> None:
    """Computes features of as many samples, of all splits alike, as a share of the time allows; ``fitted`` is narrowed
    to these. ``context.memo`` keeps the features.
    """
    assert context.memo is not None
    pipeline, memo, quiet = fitted.pipeline, context.memo, Console(quiet=True)
    done = dict.fromkeys(fitted.loaders, 0)
    share, start = 0.0, time.monotonic()
    while share < 1 and (not share or not context.clock.gone(until)):
        share = _next_share(share, time.monotonic() - start, context.clock.left(until))
        for name, loader in fitted.loaders.items():
            stop = _stop(loader, share)
            part = loader.part(range(done[name], stop), tasks=loader.tasks)
            for task in pipeline.tasks if stop > done[name] else ():
                memo.features(pipeline.of_task(task), part.of_task(task), console=quiet, title="")
            done[name] = max(stop, done[name])
    narrow(fitted, done, context)


def _next_share(share: float, spent: float, left: float) -> float:
    """Returns the share of all samples to have next: what a quarter of the time that is left brings, by the rate so
    far, and at first very few.
    """
    if not share:
        return 1e-9
    rate = share / max(spent, 1e-3) if share > 1e-6 else 0.0
    return min(1.0, share + (rate * max(left / 4, 1.0) if rate else 0.01))


def _stop(loader: Loader, share: float) -> int:
    classes = max((task.outputs for task in loader.tasks.values() if task.stratified), default=0)
    return min(len(loader), max(FIRST, classes, round(share * len(loader))))


def read_in_time(fitted: Fitted, context: Context, *, until: float) -> None:
    """Reads every sample once, or as many of each split as a share of the time allows; ``fitted`` is narrowed to them.

    Raises:
        DataError: the first bad sample.
    """
    total, before = sum(map(len, fitted.loaders.values())), 0
    done = {}
    for name, loader in fitted.loaders.items():
        before += len(loader)
        least, share = _stop(loader, 0.0), until * before / total
        done[name] = loader.prepare(
            context.console,
            title=f"{name} samples",
            stop=lambda count, least=least, share=share: count >= least and context.clock.gone(share),
            place=context.place,
        )
        if context.place.world > 1:
            share_sizes(loader)
    narrow(fitted, done, context)


def scores_in_time(fitted: Fitted, context: Context, *, until: float) -> None:
    """Narrows val and test to as many samples as can be scored in a share of the time, by the rate of a few."""
    outputs = {name: outcome.outputs for name, outcome in fitted.outcomes.items()}
    rest = [
        name for name in ("val", "test") if name in fitted.loaders and any(name not in own for own in outputs.values())
    ]
    total = sum(len(fitted.loaders[name]) for name in rest)
    if not total:
        return
    first = fitted.loaders[rest[0]]
    first = first.part(range(min(len(first), FIRST)), tasks=first.tasks)
    start = time.monotonic()
    for name, part in Fitted(fitted.pipeline, {rest[0]: first}).by_task().items():
        compute_outputs(part.pipeline, part.loaders[rest[0]], console=Console(quiet=True), title=name)
    each = (time.monotonic() - start) / len(first)
    share = max(context.clock.left(until), 0.0) / max(each * total, 1e-9)
    done = {name: len(loader) for name, loader in fitted.loaders.items()}
    narrow(fitted, done | {name: _stop(fitted.loaders[name], share) for name in rest}, context)


def narrow(fitted: Fitted, done: Mapping[str, int], context: Context) -> None:
    """Leaves the first ``done`` samples of each split, and says so where these are not all."""
    told = [f"{name} {done[name]:,} of {len(fitted.loaders[name]):,}" for name in SPLITS if name in done]
    if all(done[name] == len(loader) for name, loader in fitted.loaders.items()):
        return
    context.console.warn(f"the time (run.minutes) is enough for {', '.join(told)}")
    for name, loader in fitted.loaders.items():
        if done[name] < len(loader):
            fitted.loaders[name] = loader.part(range(done[name]), tasks=loader.tasks)


def clock_of(recipe: Recipe, begun: float | None) -> Clock:
    """Returns the clock of a fit that began at ``begun`` (of ``time.monotonic``; None = now)."""
    seconds = 60 * recipe.run.minutes if recipe.run.minutes else float("inf")
    return Clock(seconds, time.monotonic() if begun is None else begun)


def stratified(pipeline: Pipeline) -> bool:
    """Returns whether the one task has classes."""
    return len(pipeline.tasks) == 1 and pipeline.task.stratified
