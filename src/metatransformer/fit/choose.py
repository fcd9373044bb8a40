"""Which head is kept in tune mode ``head``: penalties are compared on samples that their heads did not learn from.

Tried are the trunk's features, the modality's plain ones (``Modality.features``), on which a line and a kernel compete,
and averages of the best of both. A validation split that was given decides. One that was merely drawn from few samples
would decide by chance; there the answers of cross-validation over training and validation samples do, and the reach of
a kernel is chosen with them. Of the heads whose score is within one standard error of the best the one of least loss is
taken: the loss of a few samples tells heads apart that are all right on them (the rule of one standard error, with the
loss for the size: Breiman et al. 1984, "Classification and Regression Trees").
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.task import Task
from metatransformer.data.split import cross_folds
from metatransformer.fit.closed_form import Basis, Probe, WordBasis, cross_outputs, fit_probes, sharpness
from metatransformer.fit.shares import Held
from metatransformer.infer.evaluate import Features
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


MOST_LIKELY = 2_000_000  # plain numbers, up to which a line by likelihood is tried on them: it has no closed form
CENTRES = 4096  # of a kernel on plain features, where the trunk's features have none
SHARES = (0.75, 0.5, 0.25)  # of the trunk, where both answer
MOST_HEADS = 5  # that are averaged, of several inputs
# Of counted words: on rows of length 1, and of the sum over samples.
WORDS_L2 = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03)


@dataclass(frozen=True)
class Known:
    """Features with their targets; ``share``: only those of the samples that this one of several processes holds."""

    features: Features
    target: Tensor
    share: Held | None = None

    def __len__(self) -> int:
        return len(self.target) if self.share is None else self.share.count

    def whole(self, rows: Tensor) -> Tensor:
        """Returns what all samples have, of what these have."""
        return rows if self.share is None else self.share.whole(rows)

    def of(self, share: Held) -> "Known":
        """Returns what one process holds of these samples."""
        return Known(self.features.take(share.places), self.target[share.places], share)

    def with_more(self, others: "Known") -> "Known":
        """Returns these samples and others, of which every process knows all."""
        share = None
        if self.share is not None:
            theirs = Held.of(len(others), self.share.place)
            share, others = self.share.behind(theirs), others.of(theirs)
        return Known(Features.cat([self.features, others.features]), torch.cat([self.target, others.target]), share)


@dataclass(frozen=True)
class Part:
    """One way to answer: a line or a ``kernel``, on the trunk's features or on ``plain`` ones.

    Plain ones are of an ``input``; the trunk's are of all inputs together, or of one. ``likely``: solved by likelihood
    where the recipe solves by squares.
    """

    plain: bool = False
    kernel: bool = False
    input: str = ""
    several: bool = False
    likely: bool = False

    @property
    def words(self) -> str:
        """What it is, for people."""
        name = f"{self.input or 'all'}: " if self.several else ""
        form = "kernel" if self.kernel else "line by likelihood" if self.likely else "line"
        return f"{name}{'plain' if self.plain else 'trunk'}, {form}"

    def solver(self, recipe: Recipe) -> str:
        """Returns how it is solved."""
        return "likelihood" if self.likely else recipe.optim.solver

    @property
    def key(self) -> str:
        """What it is called in a head, "" for all of the trunk's features."""
        return f"{'plain' if self.plain else 'trunk'}:{self.input}" if self.input else ""

    def of(self, features: Features) -> Tensor:
        """Returns the features that it reads."""
        if self.plain:
            return features.plain[self.input]
        return features.trunk[:, features.columns[self.input]] if self.input else features.trunk


@dataclass(frozen=True)
class Share:
    """What a part has in a head: its penalty, the reach of its kernel, and how much it counts, at which scale."""

    part: Part
    l2: float
    stretch: float
    weight: float = 1.0
    scale: float = 1.0


class Solved(NamedTuple):
    """A solved head: what each part adds to the outputs, and by input what answers for samples that are ``lacking``
    it, the last one for those that lack several.
    """

    probes: tuple[tuple[Part, Probe], ...]
    lacking: Mapping[str, "Solved"] = MappingProxyType({})

    def outputs(self, features: Features) -> Tensor:
        """Returns the outputs ``[n, C]``."""
        first, *others = (probe.outputs(part.of(features)) for part, probe in self.probes)
        outputs = sum(others, start=first)
        for name, without in self.lacking.items():
            rows = features.lacks(name).nonzero().flatten()
            if len(rows):
                outputs = outputs.index_copy(0, rows, without.outputs(features.take(rows)))
        return outputs


@dataclass(frozen=True)
class Choice:
    """One part, or two averaged: what they answered, multiplied with ``factor``, scored on samples not learned from.

    ``on`` says which: "val", or "folds". ``outputs`` are the answers before the factor.
    """

    shares: tuple[Share, ...]
    factor: float
    scores: dict[str, float]
    loss: float
    on: str = "val"
    outputs: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def features(self) -> str:
        """What it reads, as ``head.features`` has it."""
        plain = [share.part.plain for share in self.shares]
        return "plain" if all(plain) else "both" if any(plain) else "trunk"

    @property
    def words(self) -> str:
        """What it is, for people."""
        first = self.shares[0]
        if len(self.shares) == 1:
            return first.part.words
        if not first.part.several:
            return f"both ({first.weight:.0%} trunk)"
        return " + ".join(f"{share.weight:.0%} {share.part.words}" for share in self.shares)

    def line(self, recipe: Recipe) -> dict[str, Any]:
        """Returns it for the history of a run."""
        scores = {f"{self.on}_{name}": value for name, value in self.scores.items()}
        if len(self.shares) > 1:
            several = self.shares[0].part.several
            return {"reads": self.words, **scores} if several else {
                "reads": "both", "trunk_share": self.shares[0].weight, **scores}  # fmt: skip
        share = self.shares[0]
        reads = {"reads": share.part.words} if share.part.key else {}
        reach = {"gamma": recipe.head.gamma * share.stretch} if share.part.kernel else {}
        return {**reads, "l2": share.l2, **reach, **scores}

    def head(self, pipeline: Pipeline, known: Known) -> Solved:
        """Returns this head fitted on ``known``."""
        found = []
        for share in self.shares:
            tried = penalties(pipeline, share.part, known.features)
            # Weaker penalties start from stronger ones where there is no closed form.
            closed = is_closed(pipeline.recipe, pipeline.task) and not share.part.likely
            path = [share.l2] if closed else [l2 for l2 in tried if l2 >= share.l2]
            *_, last = probes(pipeline, share.part, known, l2=path, stretch=share.stretch)
            found.append((share.part, last.times(share.weight * share.scale * self.factor)))
        return Solved(tuple(found))


def parts_of(pipeline: Pipeline, features: Features) -> list[Part]:
    """Returns the ways to answer that are tried, the trunk's first."""
    head, closed = pipeline.recipe.head, is_closed(pipeline.recipe, pipeline.task)
    several = bool(features.columns)
    inputs, compares = ("", *features.columns) if pipeline.recipe.tune == "head" else ("",), pipeline.task.compares
    kernel = head.centres > 0 and not compares
    trunk = [] if head.features == "plain" else [Part(False, kernel, name, several) for name in inputs]
    found = list(trunk)
    for name, x in features.plain.items():
        if x.is_sparse and compares:
            continue
        kernels = (False,) if x.is_sparse or compares else (False, True) if closed else (head.centres > 0,)
        if closed or not x.is_sparse:
            found += [Part(True, kernel, name, several) for kernel in kernels]
        # Squares pass over a class of few samples between larger ones; the likelihood does not.
        if closed and pipeline.task.ranks and not x.is_sparse and x.numel() <= MOST_LIKELY:
            found.append(Part(True, False, name, several, likely=True))
    return found or [Part(kernel=kernel)]


def by_validation(pipeline: Pipeline, part: Part, known: Known, held_out: Known) -> Iterator[Choice]:
    """Yields heads of ``known`` as they answer ``held_out``, strongest penalty first, until that brings no more."""
    path = probes(pipeline, part, known, l2=penalties(pipeline, part, known.features))
    answers = ((probe.l2, probe.outputs(part.of(held_out.features))) for probe in path)
    yield from _path(pipeline, part, answers, held_out.target, stretch=1.0, on="val")


def by_folds(
    pipeline: Pipeline,
    part: Part,
    known: Known,
    *,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    console: Console,
) -> Iterator[Choice]:
    """Yields penalties, and reaches of a kernel, as heads of the other folds answer each one of ``known``."""
    stretches = STRETCHES if part.kernel else (1.0,)
    tried = penalties(pipeline, part, known.features)
    with console.bar(f"paths of heads, by folds ({part.words})", total=len(stretches)) as bar:
        for stretch in stretches:
            x = _basis(pipeline, part, known.features, stretch=stretch).map(part.of(known.features))
            solver = part.solver(pipeline.recipe)
            answers = cross_outputs(pipeline.task, x, known.target, l2=tried, folds=folds, solver=solver)
            yield from _path(pipeline, part, answers, known.target, stretch=stretch, on="folds")
            bar.advance()


def averaged(pipeline: Pipeline, one: Choice, other: Choice, target: Tensor) -> Iterator[Choice]:
    """Yields averages of two heads, as they answer ``target``, at several shares."""
    assert one.outputs is not None and other.outputs is not None
    for weight in SHARES:
        shares = []
        for head, part in ((one, weight), (other, 1 - weight)):  # each at the scale at which it is a probability
            shares += [replace(s, weight=part * s.weight, scale=head.factor * s.scale) for s in head.shares]
        outputs = weight * one.factor * one.outputs + (1 - weight) * other.factor * other.outputs
        yield _scored(pipeline, tuple(shares), outputs, target, on=one.on)


def stacked(pipeline: Pipeline, heads: Sequence[Choice], target: Tensor) -> Iterator[Choice]:
    """Yields averages of ever more heads: the best one, and with it whichever helps it most, until none does.

    Each is chosen forward by what it answers on samples that it did not learn from (Caruana et al. 2004, "Ensemble
    selection from libraries of models").
    """
    task, samples = pipeline.task, len(target)
    best = best_of(task, heads, samples=samples)
    for _ in range(MOST_HEADS - 1):
        known = [share.part.key for share in best.shares]
        others = [head for head in heads if head.shares[0].part.key not in known]
        tried = [choice for head in others for choice in averaged(pipeline, best, head, target)]
        if not tried:
            return
        yield from tried
        found = min([best, *tried], key=lambda choice: choice.loss)
        if found is best:
            return
        best = found


def _scored(pipeline: Pipeline, shares: tuple[Share, ...], outputs: Tensor, target: Tensor, *, on: str) -> Choice:
    task = pipeline.task
    # Least squares ranks classes; their probabilities are had at the scale that suits them best.
    ranks = task.ranks and pipeline.recipe.optim.solver == "squares"
    factor = sharpness(task, outputs, target) if ranks else 1.0
    sharp = outputs * factor
    mixed = len(pipeline.route) > 1 or any(reader.plain for reader in pipeline.route.values())
    kept = outputs if mixed else None
    return Choice(shares, factor, task.metrics(sharp, target), float(task.loss(sharp, target)), on, kept)


def _path(
    pipeline: Pipeline,
    part: Part,
    answers: Iterable[tuple[float, Tensor]],
    target: Tensor,
    *,
    stretch: float,
    on: str,
) -> Iterator[Choice]:
    """Yields what ``answers``, outputs by penalty, are worth, until neither score nor loss gain."""
    task = pipeline.task
    best, least, stale = task.worst, math.inf, 0
    for l2, outputs in answers:
        choice = _scored(pipeline, (Share(part, l2, stretch),), outputs, target, on=on)
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


def probes(
    pipeline: Pipeline, part: Part, known: Known, *, l2: Sequence[float], stretch: float = 1.0
) -> Iterator[Probe]:
    """Yields a head for each penalty, as the recipe has it, fitted on ``known``."""
    basis = _basis(pipeline, part, known.features, stretch=stretch, share=known.share)
    solver, features = part.solver(pipeline.recipe), part.of(known.features)
    yield from fit_probes(
        pipeline.task, features=features, target=known.target, l2=l2, solver=solver, basis=basis, share=known.share
    )


def penalties(pipeline: Pipeline, part: Part, features: Features) -> tuple[float, ...]:
    """Returns the penalties to try: the recipe's, or those that suit its solver."""
    if part.of(features).is_sparse:
        return WORDS_L2
    if pipeline.recipe.optim.l2 != "auto":
        return pipeline.recipe.optim.l2
    return SQUARES_L2 if is_closed(pipeline.recipe, pipeline.task) and not part.likely else LIKELIHOOD_L2


def is_closed(recipe: Recipe, task: Task) -> bool:
    """Returns whether heads are solved by least squares, each penalty by itself."""
    return task.squared or task.compares or (task.ranks and recipe.optim.solver == "squares")


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


def _basis(
    pipeline: Pipeline, part: Part, features: Features, *, stretch: float, share: Held | None = None
) -> Basis | WordBasis:
    head, x = pipeline.recipe.head, part.of(features)
    if x.is_sparse:
        return WordBasis.of(x, outputs=pipeline.task.outputs)
    readout = pipeline.head.readout
    return Basis.of(
        x,
        direct=0 if part.plain else readout.facts.direct[part.input] if part.input else readout.direct,
        weight_of_direct=head.direct,
        centres=(head.centres or CENTRES) if part.kernel else 0,
        gamma=head.gamma,
        stretch=stretch,
        seed=pipeline.recipe.run.seed,
        share=share,
    )
