"""Which samples an evaluation scores: those that were kept apart from training."""

from collections import Counter
from dataclasses import replace

import pandas as pd

from metatransformer.core.errors import UsageError
from metatransformer.core.samples import SPLITS
from metatransformer.data.examples import Examples
from metatransformer.data.kept import FILE, NEW, splits_of
from metatransformer.machine.console import Console

ALL = "all"


def kept_apart(
    examples: Examples, table: pd.DataFrame | None, *, split: str, learns_val: bool, console: Console
) -> tuple[Examples, str]:
    """Returns the samples to score and the split that they are, "" for all; says what is scored.

    ``split`` is the one that is asked for, "all" for all, "" for what was kept apart: ``test``, else ``val``. Splits
    are those of the data; where it brings none, or not the one that is asked for, those of the run (``table``, see
    ``data.kept``). ``learns_val``: the model has learned from ``val`` too, once that had chosen its head.

    Raises:
        UsageError: there is no such split.
    """
    known = set(examples.splits) - {None}
    runs_own = table is not None and (not known or split in {*SPLITS, NEW} - known)
    if runs_own and table is not None:
        found = splits_of(examples, table)
        runs_own = set(found) != {NEW}
        examples = replace(examples, splits=found) if runs_own else examples
    names = {name for name in examples.splits if name}
    apart = ("test", "val", NEW) if runs_own or "train" in names else ("test",)
    split = split or next((name for name in apart if name in names), "")
    split = "" if split == ALL else split
    chosen = examples.take([row for row, own in enumerate(examples.splits) if not split or own == split])
    if not len(chosen):
        listed = ", ".join(name for name in (*SPLITS, NEW, ALL) if name in {*names, ALL})
        must = f"be one of {listed}" if names else "be left out for data without splits, which is none of the run's"
        raise UsageError("--split", must=must, found=repr(split))
    _say(examples, split, console, runs_own=runs_own, compared=table is not None)
    console.note(f"scoring {len(chosen):,} samples" + (f" of split '{split}'" if split else ""))
    if split == "val" and learns_val:
        console.warn("the head was fitted again on train and val together, so a score on 'val' flatters")
    return chosen, split


def _say(examples: Examples, split: str, console: Console, *, runs_own: bool, compared: bool) -> None:
    """Says where the splits come from, and what a score over training samples is."""
    counts = Counter(examples.splits)
    if runs_own:
        listed = ", ".join(f"{name} {counts[name]:,}" for name in (*SPLITS, NEW) if counts[name])
        console.note(f"split as the run was, by key ({FILE}): {listed}")
        if counts[NEW] and split != NEW:
            console.note(f"{counts[NEW]:,} samples are not of the run: --split {NEW} scores them")
    elif not any(examples.splits):
        told = "none of these samples is one of the run's: all are scored"
        unknown = "this data brings no splits: the score flatters if the model has learned from some of it"
        console.note(told if compared else unknown)
    if split == "train" or (not split and "train" in counts):
        console.warn("the model has learned from the split 'train', so this score flatters")
