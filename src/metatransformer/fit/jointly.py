"""Several data sets that learn something in common: adapters, norms or blocks of the trunk that they share.

Batches are of one data set at a time. How many of them an epoch has grows with the root of its size (p ~ n^(1/T),
T = 2: Arivazhagan et al. 2019, arXiv 1907.05019), so that small ones are heard, and each task's loss counts in units of
what its constant answer loses. Before and after, each task solves its own head, as it would alone.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import UsageError
from metatransformer.core.task import Task
from metatransformer.data.examples import Examples
from metatransformer.data.kept import split_table, write_split
from metatransformer.data.write import write_json
from metatransformer.fit.by_epochs import fit_by_epochs
from metatransformer.fit.context import Context
from metatransformer.fit.fit import parts_of, require_backend, require_unchanged, say_what_learns, score_part, write_run
from metatransformer.fit.fitted import Fitted
from metatransformer.fit.memo import Memo
from metatransformer.fit.run import RunFolder
from metatransformer.fit.trackers import require_trackers
from metatransformer.infer.loader import Batches, Loader, Place
from metatransformer.machine.console import Console
from metatransformer.machine.device import choose_device
from metatransformer.pipeline import HeadPlan, Pipeline, assemble, fit_reader, make_task
from metatransformer.recipe import Recipe, keeps_trunk
from metatransformer.trunk import Pretrained, load_encoder


class Alternating(Loader):
    """The loaders of several data sets as one: an epoch has batches of each, mixed by ``(seed, epoch)`` alone."""

    def __init__(self, loaders: Mapping[str, Loader]) -> None:
        self.loaders = dict(loaders)
        self.route = {name: reader for loader in loaders.values() for name, reader in loader.route.items()}
        self.tasks: dict[str, Task] = {name: task for loader in loaders.values() for name, task in loader.tasks.items()}

    def __len__(self) -> int:
        return sum(map(len, self.loaders.values()))

    def of_task(self, name: str) -> Loader:
        """Returns the loader of a task's own data set."""
        return next(loader for loader in self.loaders.values() if name in loader.tasks).of_task(name)

    def counts(self, *, batch_size: int, place: Place) -> dict[str, int]:
        """Returns how many batches of each data set an epoch has: as many in all as they have, shared out by roots."""
        whole = sum(loader.steps(batch_size=batch_size, place=place) for loader in self.loaders.values())
        roots = {name: len(loader) ** 0.5 for name, loader in self.loaders.items()}
        return {name: max(1, round(whole * root / sum(roots.values()))) for name, root in roots.items()}

    def steps(self, *, batch_size: int, place: Place) -> int:
        """Returns how many batches an epoch has."""
        return sum(self.counts(batch_size=batch_size, place=place).values())

    def order(self, *, batch_size: int, seed: int, epoch: int, place: Place) -> list[str]:
        """Returns the data set of each batch of one epoch."""
        order = [name for name, count in self.counts(batch_size=batch_size, place=place).items() for _ in range(count)]
        return [order[at] for at in np.random.default_rng([seed, epoch]).permutation(len(order))]

    def epoch(
        self, *, batch_size: int, seed: int, epoch: int, augment: bool, drop: float = 0.0, place: Place, skip: int
    ) -> Batches:
        """Yields the training batches of one epoch, the first ``skip`` left out."""
        order = self.order(batch_size=batch_size, seed=seed, epoch=epoch, place=place)
        done, counts = Counter(order[:skip]), Counter(order)
        given = {"batch_size": batch_size, "seed": seed, "augment": augment, "drop": drop, "place": place}
        streams = {
            name: self._stream(loader, count=counts[name], epoch=epoch, skip=done[name], given=given)
            for name, loader in self.loaders.items()
        }
        try:
            for name in order[skip:]:
                yield next(streams[name])
        finally:
            for stream in streams.values():
                stream.close()

    def _stream(self, loader: Loader, *, count: int, epoch: int, skip: int, given: Mapping[str, Any]) -> Batches:
        """Yields batches of one data set: of as many rounds through it as an epoch needs."""
        size = loader.steps(batch_size=given["batch_size"], place=given["place"])
        rounds = -(-count // size)
        for own in range(rounds):
            if skip < size:
                yield from loader.epoch(epoch=epoch * rounds + own, skip=skip, **given)
            skip = max(0, skip - size)


def fit_jointly(
    sets: Mapping[str, Examples],
    recipe: Recipe,
    *,
    out: Path,
    overwrite: bool,
    sources: Mapping[str, str],
    console: Console,
) -> Fitted:
    """Trains what the tune mode of a recipe of several sets says, on all of them; each is split, ``sources`` say where
    each lies. An unfinished run in ``out`` is continued.

    Raises:
        MetaTransformerError: whatever the user must change.
    """
    choose_device(recipe.run.device)
    require_backend(recipe)
    if recipe.run.minutes:
        raise UsageError("run.minutes", must="be 0 where data sets learn in common", found=f"{recipe.run.minutes:g}")
    parts = {name: parts_of(examples, recipe.of_set(name)) for name, examples in sets.items()}
    trunk = load_encoder(recipe.encoder)
    identity = {f"data of {name}": examples.identity() for name, examples in sets.items()} | {"weights": trunk.sha256}
    require_trackers(recipe.log, out)
    run = RunFolder(out, place=Place())
    run.check(recipe, identity=identity, overwrite=overwrite)
    pipeline = joint_pipeline(recipe, trunk=trunk, train={name: own["train"] for name, own in parts.items()})
    before = pipeline.trunk.encoder.bytes_hash()
    context = Context(run, Place(), Memo(most_mb=0), console)
    say_what_learns(pipeline, console)
    fitted = Fitted(pipeline, _loaders(pipeline, parts, console))
    if run.open(recipe, identity=identity, source="", overwrite=overwrite):
        console.note(f"continuing the unfinished run in {out}")
    for name, examples in sets.items():
        folder = out / "tasks" / name
        folder.mkdir(parents=True, exist_ok=True)
        write_split(folder, split_table(examples))
        write_json(folder / "run.json", {"status": "done", "data": sources[name]})
    fit_by_epochs(fitted, context)
    if keeps_trunk(recipe.tune):
        require_unchanged(pipeline.trunk.encoder, before)
    for part in fitted.by_task().values():
        score_part(part, context)
    write_run(fitted, run)
    return fitted


def joint_pipeline(recipe: Recipe, *, trunk: Pretrained, train: Mapping[str, Examples]) -> Pipeline:
    """Returns an untrained pipeline whose transforms and tasks have learned from each data set's training samples.

    Raises:
        UsageError: tokens of an input do not come with the trunk.
        MetaTransformerError: what the data or the recipe must change.
    """
    route, tasks, plans = {}, {}, {}
    for name, examples in train.items():
        own = recipe.of_set(name)
        for given in own.inputs:
            route[given] = fit_reader(recipe, given, trunk=trunk, records=examples.inputs[given].records)
        for task in own.tasks:
            rows = examples.known(task)
            tasks[task] = make_task(recipe, task)
            tasks[task].fit([examples.targets[task][row] for row in rows])
            plans[task] = HeadPlan(None, min(recipe.head_of(task).centres, len(rows)))
    pipeline = assemble(recipe, trunk=trunk, route=route, tasks=tasks, plans=plans)
    if foreign := [name for name in route if not pipeline.model.tokenizer(name).native]:
        must, do = "bring tokens that come with the trunk where it is tuned in common", "Leave this data set out."
        raise UsageError(f"input '{foreign[0]}'", must=must, found=recipe.inputs[foreign[0]].modality, do=do)
    pipeline.model.tune(recipe.tune)
    return pipeline


def _loaders(pipeline: Pipeline, parts: Mapping[str, Mapping[str, Examples]], console: Console) -> dict[str, Loader]:
    """Returns the loaders of each split, all samples read once."""
    total = sum(len(examples) for own in parts.values() for examples in own.values())
    loaders: dict[str, Loader] = {}
    for split in next(iter(parts.values())):
        found = {}
        for name, own in parts.items():
            if len(own[split]):
                part = pipeline.of_set(name)
                cache = part.recipe.data.cache_mb * len(own[split]) // total
                found[name] = Loader(part.route, own[split], cache_mb=cache, tasks=part.tasks)
                found[name].prepare(console, title=f"{split} samples of '{name}'")
        if found:
            loaders[split] = Alternating(found)
    return loaders
