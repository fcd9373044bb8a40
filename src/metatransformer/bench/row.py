"""One row of the benchmark: every model, control and baseline of one data set, each fit kept when it is done.

``python -m metatransformer.bench.row NAME --data DIR --out DIR`` runs it in a process of its own. The results stand one
a line in ``OUT/row-NAME.jsonl``; a call that was interrupted continues behind the last line.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from metatransformer.bench.datasets import DATA_SETS, DataSet, Fold
from metatransformer.bench.strong import strong_baseline
from metatransformer.bench.unet import unet_answers
from metatransformer.core.errors import MetaTransformerError, UsageError
from metatransformer.core.samples import ROLES, Record
from metatransformer.data.examples import Examples
from metatransformer.data.index import Index
from metatransformer.data.records import Records
from metatransformer.data.write import append_bytes
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted, stays_untuned
from metatransformer.fit.memo import Memo
from metatransformer.infer.sources import prepared
from metatransformer.machine.about import revision
from metatransformer.machine.clock import memory_gb
from metatransformer.machine.console import Console
from metatransformer.recipe import Recipe, make_recipe, with_tune
from metatransformer.report.controls import (
    baseline_words,
    control_outputs,
    scores_beside,
    with_random_trunk,
    without_trunk,
)

BASELINES = ("constant", "baseline", "strong", "unet")
QUICK_RECORDS = {"train": 600, "test": 300, "val": 200}  # at most that many of each split with --quick
QUICK_IDENTITIES = 20  # of those to learn from, and of those to find

MEMO_MB = 2000  # transformed samples that the fits of a row share


@dataclass(frozen=True)
class Plan:
    """What is run for a row: ``trunks`` random trunks a fold, ``seeds`` runs, ``quick`` on a part of the data."""

    encoder: str
    seeds: int
    trunks: int
    quick: bool
    overrides: tuple[str, ...] = ()


class Results:
    """The lines of a row's file; one that is there is not computed again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # A line without an end was being written when the machine went down: its result is computed again.
        whole, end, _ = (path.read_bytes() if path.is_file() else b"").rpartition(b"\n")
        self._whole = len(whole + end)
        self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]

    def has(self, variant: str, *, fold: int, seed: int) -> bool:
        """Returns whether a result is there."""
        return any((x["variant"], x["fold"], x["seed"]) == (variant, fold, seed) for x in self.lines)

    def add(self, variant: str, *, fold: int, seed: int, scores: Mapping[str, float], more: Mapping[str, Any]) -> None:
        """Appends one result."""
        line = {"variant": variant, "fold": fold, "seed": seed, "scores": dict(scores), "revision": revision(), **more}
        self.lines.append(line)
        content = (json.dumps(line) + "\n").encode()
        if self.path.is_file():
            os.truncate(self.path, self._whole)
        append_bytes(self.path, content)
        self._whole += len(content)


def run_row(data_set: DataSet, *, data: Path, plan: Plan, results: Results, console: Console) -> None:
    """Runs what is missing of a row.

    Raises:
        MetaTransformerError: the data is not there, or something in it cannot be learned from.
    """
    folds = data_set.folds(data)
    memo = Memo(most_mb=MEMO_MB)
    for number, records in enumerate(folds[:1] if plan.quick else folds):
        part = _fewer(records) if plan.quick else records
        for seed in range(plan.seeds):
            recipe = _recipe(data_set, plan, seed=seed)
            examples, _ = prepared(Index(Records.of(part)), recipe, console=console)
            _run_models(data_set, examples, recipe, plan=plan, fold=number, results=results, memo=memo, console=console)


def _run_models(
    data_set: DataSet,
    examples: Examples,
    recipe: Recipe,
    *,
    plan: Plan,
    fold: int,
    results: Results,
    memo: Memo,
    console: Console,
) -> None:
    seed = recipe.run.seed
    for variant, changed in _variants(data_set, recipe, plan, fold=fold):
        # Baselines need the data of a fit, not its model: the cheapest one gives it.
        absent = {"strong" if not data_set.strong else "", "unet" if not data_set.unet else ""}
        beside = [name for name in BASELINES if name not in absent]
        names = [variant, *(beside if variant == "identity" and seed == 0 else ())]
        if all(results.has(name, fold=fold, seed=seed) for name in names):
            continue
        console.note(f"{data_set.name}, fold {fold + 1}, seed {seed}: {variant}")
        start = time.monotonic()
        fitted = fit(examples, changed, memo=memo, console=console)
        more = _about(fitted, seconds=time.monotonic() - start)
        if not results.has(variant, fold=fold, seed=seed):
            results.add(variant, fold=fold, seed=seed, scores=fitted.metrics["test"], more=more)
        for name in names[1:]:
            if not results.has(name, fold=fold, seed=seed):
                _run_baseline(data_set, fitted, name, plan=plan, fold=fold, results=results, console=console)


def _run_baseline(
    data_set: DataSet, fitted: Fitted, name: str, *, plan: Plan, fold: int, results: Results, console: Console
) -> None:
    start = time.monotonic()
    if name == "strong":
        method, answers = strong_baseline(data_set.strong, fitted, quick=plan.quick, console=console)
        scores, outputs = scores_beside(fitted, answers, split="test")
    elif name == "unet":
        seconds = next(x["seconds"] for x in results.lines if (x["variant"], x["fold"]) == ("pretrained", fold))
        method, outputs = unet_answers(fitted, seconds=seconds, console=console)
        scores, outputs = scores_beside(fitted, lambda split: outputs, split="test")
    else:
        method = name if name == "constant" else baseline_words(fitted.pipeline)
        scores, outputs = scores_beside(fitted, partial(control_outputs, fitted, name, console=console), split="test")
    more = {"method": method, "seconds": time.monotonic() - start, **_answers(fitted, outputs)}
    results.add(name, fold=fold, seed=0, scores=scores, more=more)


def _variants(data_set: DataSet, recipe: Recipe, plan: Plan, *, fold: int) -> Iterator[tuple[str, Recipe]]:
    """Yields the models of one seed. Random trunks differ by seed, by fold where it has one, else by number."""
    yield "pretrained", recipe
    yield "identity", without_trunk(recipe)
    seed = recipe.run.seed
    if plan.seeds > 1:
        trunks = [seed]
    elif plan.trunks == 1:
        trunks = [fold]
    else:
        trunks = list(range(plan.trunks))
    for number, trunk in enumerate(trunks):
        yield f"random#{number}" if number else "random", with_random_trunk(recipe, seed=trunk)
    if seed == 0 and not plan.quick:
        for mode in data_set.modes:
            yield f"tune:{mode}", with_tune(recipe, mode)


def _recipe(data_set: DataSet, plan: Plan, *, seed: int) -> Recipe:
    defaults = {"encoder": plan.encoder, **data_set.overrides, "run.seed": seed}
    overrides = [*([f"task.name={data_set.task}"] if data_set.task else []), *plan.overrides]
    return make_recipe(data_set.modality, base={}, overrides=overrides, defaults=defaults)


def _about(fitted: Fitted, *, seconds: float) -> dict[str, Any]:
    """Returns what a fit cost: seconds, parameters, peak memory of the process so far in MiB."""
    known = fitted.loaders["test"].target
    assert known is not None
    return {
        "seconds": round(seconds, 1),
        "validation": fitted.metrics["val"],
        "parameters": fitted.pipeline.model.parameter_counts(),
        "samples": {name: len(loader) for name, loader in fitted.loaders.items()},
        "independent": fitted.pipeline.task.independent(known),
        "peak_mib": round(1024 * memory_gb()),
        "tune": fitted.pipeline.recipe.tune,
        "untuned": stays_untuned(fitted),
        **_answers(fitted, fitted.outputs["test"]),
    }


def _answers(fitted: Fitted, outputs: Tensor) -> dict[str, Any]:
    """Returns what folds can be pooled and models compared sample by sample from."""
    target = fitted.loaders["test"].target
    assert target is not None
    return fitted.pipeline.task.tally(outputs, target)


def _fewer(records: Fold) -> list[Record]:
    """Returns a seeded part of each split, in the order of the records; of identities to be found, some as a whole."""
    rng = np.random.default_rng(0)
    if any(record.split in ROLES for record in records):
        seen = [sorted({r.target for r in records if (r.split in ROLES) == asked}) for asked in (False, True)]
        some = {name for names in seen for name in rng.permutation(names)[:QUICK_IDENTITIES].tolist()}
        return [record for record in records if record.target in some]
    kept: set[int] = set()
    for split, most in QUICK_RECORDS.items():
        places = [i for i, record in enumerate(records) if record.split == split]
        kept |= set(rng.permutation(places)[:most].tolist())
    return [record for i, record in enumerate(records) if i in kept]


def main() -> int:
    """Runs one row; the exit status is 2 for what the user must change."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=sorted(DATA_SETS))
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--seeds", required=True, type=int)
    parser.add_argument("--trunks", required=True, type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args()
    try:
        with _alone(options.out / f"row-{options.name}.jsonl"):
            _run(options)
    except MetaTransformerError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Holds a row's file: of two writers each would compute, and append, every line.

    Raises:
        UsageError: another process has it.
    """
    with open(path, "a", encoding="utf-8") as file:
        if os.name == "posix":  # elsewhere nobody watches
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                do = "Wait for it, or end it."
                raise UsageError(path, must="be written by one process", found="another call's", do=do) from error
        yield


def _run(options: argparse.Namespace) -> None:
    plan = Plan(options.encoder, options.seeds, options.trunks, options.quick, tuple(options.set))
    results = Results(options.out / f"row-{options.name}.jsonl")
    run_row(DATA_SETS[options.name], data=options.data, plan=plan, results=results, console=Console())


if __name__ == "__main__":
    sys.exit(main())
