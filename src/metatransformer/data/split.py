"""Train, val and test: what the data brings is kept, what is missing is made, seeded, and said.

Scores are honest only when nothing of the test items was seen in training: items of one group (a
speaker, a patient) stay together, and every class of val and test exists in train. The result does
not depend on the order of the records.
scikit-learn is imported where it splits: it takes a second, and indexing alone needs none of it.
"""

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import SPLITS, Record
from metatransformer.data.records import (
    Index,
    Records,
    counted,
    listing,
    natural_key,
    natural_order,
    objects,
    require_unique,
)


def split_records(
    records: Sequence[Record],
    *,
    val_fraction: float = 0.15,
    test_fraction: float = 0.15,
    seed: int = 0,
    stratify: bool,
) -> Index:
    """Returns the records in their order, each with a split, and notes that say what was made.

    Without any split, val and test are cut from everything; with train but no val, val is cut from
    train; test is never cut from a given train. A fraction of 0 makes none. ``stratify`` says that
    targets are classes: every split gets its share of each, and a class that is too small to be cut
    stays in train. Records with groups are cut by whole groups.

    Raises:
        UsageError: fractions that leave no train.
        DataError: a key twice; splits for some records only; no train; too few records or groups to
            cut; a class in val or test that train does not have.
    """
    _check_fractions(val_fraction, test_fraction)
    records = Records.of(records)
    given = _given(records)
    splits = objects([split or "train" for split in records.splits])
    notes: list[str] = []
    wanted = {} if given else {"test": test_fraction}
    if "val" not in given:
        wanted["val"] = val_fraction
    wanted = {name: fraction for name, fraction in wanted.items() if fraction > 0}
    if wanted:
        train = np.flatnonzero(splits == "train")
        cutter = _Cutter(records, train=train, seed=seed, stratify=stratify)
        for name, fraction in wanted.items():
            # Fractions are of the whole, also for the second cut.
            splits[cutter.cut(fraction * len(train), name=name)] = name
        notes += [_made(Counter(splits.tolist()), given=given, cutter=cutter, seed=seed), *cutter.notes]
        if not cutter.grouped and all(map(_is_file, records.paths, records.values)):
            notes.append("files are split one by one: a manifest's column 'group' keeps those of one person together")
    done = records.replace(splits=splits.tolist(), drawn=frozenset(wanted))
    if stratify:
        _require_known_classes(done)
    return Index(done, (*notes, *_torn_groups(done)))


def _is_file(path: Path | None, value: Any) -> bool:
    return path is not None and value is None


def cross_folds(
    groups: Sequence[str | None], *, classes: np.ndarray | None, count: int, seed: int = 0
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns ``(others, fold)`` for up to ``count`` folds, positions of items; each item is in one fold.

    Items of one group stay together, an item without one stands by itself. ``classes`` [n] are shared out evenly;
    without them the folds do not depend on ``seed``. Fewer groups, or fewer items of every class, make fewer folds;
    where there are less than two, none.
    """
    from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

    names = np.array([str(place) if group is None else group for place, group in enumerate(groups)], dtype=str)
    count = min(count, len(set(names)))
    if classes is not None:
        count = min(count, int(np.unique(classes, return_counts=True)[1].max()))
    if count < 2:
        return []
    if classes is None:
        cutter, labels = GroupKFold(count), np.zeros(len(names))
    else:
        cutter, labels = StratifiedGroupKFold(count, shuffle=True, random_state=seed), classes
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer members than folds
        return [(others, fold) for others, fold in cutter.split(labels, labels, names) if len(fold) and len(others)]


class _Cutter:
    """Cuts one part after the other from ``train``, positions in ``records``."""

    def __init__(self, records: Records, *, train: np.ndarray, seed: int, stratify: bool) -> None:
        self.train = train[natural_order(records.take(train).keys)]
        self.seed, self.stratify = seed, stratify
        self.grouped = any(records.groups[i] is not None for i in train.tolist())
        self.small: set[str] = set()
        lonely = [i for i in train.tolist() if records.groups[i] is None] if self.grouped else []
        if lonely:
            raise DataError(
                "the data",
                must="have a group for every item, or for none",
                found=f"{counted(len(lonely), 'item')} without one, {records.keys[lonely[0]]} first",
                do="Give an item that belongs to no group one of its own.",
            )
        if stratify and (bare := [i for i in train.tolist() if records.targets[i] is None]):
            raise DataError(records.keys[bare[0]], must="have a label, to be split by classes", found="none")
        nothing = np.zeros(len(records), dtype=np.int64)
        self.classes, self.labels = _codes(records.targets) if stratify else ([], nothing)
        self.groups = _codes(records.groups)[1] if self.grouped else nothing

    @property
    def notes(self) -> list[str]:
        """What a person should know about the cuts."""
        if not self.small:
            return []
        return [f"too few items to be in every split, so kept in train: {listing(sorted(self.small))}"]

    def cut(self, size: float, *, name: str) -> np.ndarray:
        """Returns about ``size`` positions and takes them from ``train``."""
        chosen = self._by_groups(size, name=name) if self.grouped else self._by_items(size, name=name)
        self.train = self.train[~np.isin(self.train, chosen)]
        return chosen

    def _by_items(self, size: float, *, name: str) -> np.ndarray:
        from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

        counts = np.bincount(self.labels[self.train])
        pool, classes = self.train, 1
        if self.stratify:
            self.small |= {f"{self.classes[code]!r} (1)" for code in np.flatnonzero(counts == 1)}
            pool = pool[counts[self.labels[pool]] > 1]
            classes = int((counts > 1).sum())
        # At least one item of every class on both sides of the cut.
        count = min(max(round(size), classes), len(pool) - classes)
        if count < classes or not len(pool):
            raise self._too_few(len(self.train), noun="item", name=name)
        kind = StratifiedShuffleSplit if self.stratify else ShuffleSplit
        splitter = kind(n_splits=1, test_size=count, random_state=self.seed)
        ((_, places),) = splitter.split(pool, self.labels[pool])
        return pool[places]

    def _by_groups(self, size: float, *, name: str) -> np.ndarray:
        from sklearn.model_selection import GroupShuffleSplit

        pool = self.train
        groups = self.groups[pool]
        count = len(np.unique(groups))
        if count < 2:
            raise self._too_few(count, noun="group", name=name)
        share = size / len(pool)
        if not self.stratify:
            number = min(max(round(share * count), 1), count - 1)
            splitter = GroupShuffleSplit(n_splits=1, test_size=number, random_state=self.seed)
            ((_, places),) = splitter.split(pool, groups=groups)
        else:
            places = _best_fold(self.labels[pool], groups=groups, share=share, seed=self.seed)
        return pool[places]

    def _too_few(self, count: int, *, noun: str, name: str) -> DataError:
        return DataError(
            "the data",
            must=f"be enough to cut a {name} split from it",
            found=f"{counted(count, noun)} in train",
            do="Add data, or bring the splits (folders train, val, test or a column 'split').",
        )


def _best_fold(labels: np.ndarray, *, groups: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Returns the fold that takes no class from train if there is one, then the one of the wanted
    size."""
    from sklearn.model_selection import StratifiedGroupKFold

    count = len(np.unique(groups))
    folds = min(max(round(1 / share), 2), count, int(np.bincount(labels).max()))
    splitter = StratifiedGroupKFold(n_splits=folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # It warns of classes with fewer members than folds; the choice below deals with them.
        warnings.simplefilter("ignore", UserWarning)
        found = [test for _, test in splitter.split(labels, labels, groups) if 0 < len(test) < len(labels)]

    def badness(places: np.ndarray) -> tuple[int, float]:
        rest = np.delete(labels, places)
        return len(np.setdiff1d(labels[places], rest)), abs(len(places) - share * len(labels))

    return min(found, key=badness)


def _codes(values: Sequence[Any]) -> tuple[list[Any], np.ndarray]:
    """Returns the different values, of any type, and the place of each value among them; the order of the items does
    not matter."""
    order = sorted(set(values), key=lambda value: (str(type(value)), natural_key(str(value))))
    number = {value: i for i, value in enumerate(order)}
    return order, np.array([number[value] for value in values], dtype=np.int64)


def _check_fractions(val: float, test: float) -> None:
    for name, value in (("val_fraction", val), ("test_fraction", test)):
        if not 0 <= value < 1:
            raise UsageError(name, must="lie in [0, 1)", found=f"{value:g}")
    if val + test >= 1:
        raise UsageError("val_fraction + test_fraction", must="stay below 1", found=f"{val + test:g}")


def _given(records: Records) -> set[str]:
    """Returns the splits that the data brings, after a look at what cannot be split at all."""
    if not records:
        raise DataError("the data", must="hold at least one item", found="none")
    require_unique(records.keys, where="the data")
    given = set(records.splits)
    if None in given and len(given) > 1:
        bare = [key for key, split in zip(records.keys, records.splits, strict=True) if split is None]
        raise DataError(
            "the data",
            must="have a split for every item, or for none",
            found=f"{counted(len(bare), 'item')} without one ({listing(bare, most=3)})",
            do="Fill them with train, val or test.",
        )
    names = {name for name in given if name is not None}
    if names and "train" not in names:
        raise DataError(
            "the data",
            must="have a train split",
            found=f"only {' and '.join(sorted(names))}",
            do="Name the folder above, which holds train too.",
        )
    return names


def _made(found: Mapping[str, int], *, given: set[str], cutter: _Cutter, seed: int) -> str:
    counts = {name: found.get(name, 0) for name in SPLITS}
    how = [f"seed {seed}"]
    if cutter.grouped:
        how.insert(0, "whole groups together")
    if cutter.stratify:
        how.insert(0, "stratified by label")
    numbers = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    if given:
        whole = counts["train"] + counts["val"]
        share = f"{100 * counts['val'] / whole:.0f} % of train made val"
        return f"no val split found: {share} ({numbers}), {', '.join(how)}"
    shares = "/".join(f"{100 * c / sum(counts.values()):.0f}" for c in counts.values() if c)
    names = "/".join(name for name, count in counts.items() if count)
    return f"no split found: {shares} % {names} made ({numbers}), {', '.join(how)}"


def _require_known_classes(records: Records) -> None:
    known = {target for target, split in zip(records.targets, records.splits, strict=True) if split == "train"}
    first: dict[Any, int] = {}  # of every class that train does not have
    for place, target in enumerate(records.targets):
        if target is not None and target not in known:
            first.setdefault(target, place)
    if not first:
        return
    name, place = next(iter(first.items()))
    similar = {_letters(label): label for label in known if label is not None}.get(_letters(name))
    hint = f" '{name}' differs from '{similar}' of train in punctuation only." if similar else ""
    raise DataError(
        f"the {records.splits[place]} split",
        must="hold classes that train has too",
        found=f"{listing(map(repr, first))}, for instance {records.keys[place]}",
        do=f"Correct the labels, add training items, or leave the class out.{hint}",
    )


def _letters(label: object) -> str:
    return "".join(c for c in str(label).casefold() if c.isalnum() or c in "<>+-=")


def _torn_groups(records: Records) -> list[str]:
    """Returns a note when a group stands in more than one split."""
    places: dict[str, set[str]] = defaultdict(set)
    for group, split in zip(records.groups, records.splits, strict=True):
        if group is not None and split is not None:
            places[group].add(split)
    torn = sorted(group for group, splits in places.items() if len(splits) > 1)
    if not torn:
        return []
    groups = counted(len(torn), "group")
    return [f"{groups} in more than one split ({listing(torn)}): scores may be too good"]
