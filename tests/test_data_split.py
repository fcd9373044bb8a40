"""Splits: what is given is kept; what is made is stratified, grouped, seeded and said."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Record
from metatransformer.data.index import split_records
from metatransformer.data.split import cross_folds


def records(labels, *, groups=None, splits=None) -> list[Record]:
    count = len(labels)
    columns = zip(labels, groups or [None] * count, splits or [None] * count, strict=True)
    return [Record(f"k{i}", target=label, group=group, split=split) for i, (label, group, split) in enumerate(columns)]


def counts(found) -> dict[str, int]:
    return dict(Counter(r.split for r in found.records))


def test_nothing_given_makes_all_three():
    found = split_records(records(["a"] * 60 + ["b"] * 40), stratify=True)
    assert counts(found) == {"train": 70, "val": 15, "test": 15}
    for split in ("val", "test"):
        assert Counter(r.target for r in found.split(split)) == {"a": 9, "b": 6}
    assert found.notes == (
        "no split found: 70/15/15 % train/val/test made (train 70, val 15, test 15), stratified by label, seed 0",
    )


def test_files_without_groups_are_said_to_be_split_one_by_one():
    files = [replace(record, path=Path(record.key)) for record in records(["a"] * 60 + ["b"] * 40)]
    assert "files are split one by one: a manifest's column 'group'" in split_records(files, stratify=True).notes[-1]
    grouped = [replace(record, group=f"g{number % 20}") for number, record in enumerate(files)]
    assert not any("one by one" in note for note in split_records(grouped, stratify=True).notes)


def test_val_is_cut_from_train_and_test_is_kept():
    given = records([0.5] * 30, splits=["train"] * 20 + ["test"] * 10)
    found = split_records(given, stratify=False, seed=3)
    assert counts(found) == {"train": 17, "val": 3, "test": 10}
    assert all(r.split == "test" for r in found.records[20:])
    assert found.notes == ("no val split found: 15 % of train made val (train 17, val 3, test 10), seed 3",)


def test_what_was_drawn_is_marked():
    whole = split_records(records(["a"] * 60), stratify=True)
    assert {(r.split, r.drawn) for r in whole.records} == {("train", False), ("val", True), ("test", True)}
    given = split_records(records(["a"] * 20, splits=["train"] * 15 + ["test"] * 5), stratify=True)
    assert {(r.split, r.drawn) for r in given.records} == {("train", False), ("val", True), ("test", False)}
    complete = split_records(records(["a"] * 9, splits=["train", "val", "test"] * 3), stratify=True)
    assert not any(r.drawn for r in complete.records)


@pytest.mark.parametrize("classes", [None, np.arange(60) % 3])
def test_cross_folds_hold_every_item_once_and_whole_groups(classes):
    groups = [f"g{place // 4}" for place in range(60)]
    folds = cross_folds(groups, classes=classes, count=5)
    assert len(folds) == 5
    assert sorted(np.concatenate([fold for _, fold in folds])) == list(range(60))
    for others, fold in folds:
        assert len(others) + len(fold) == 60 and not {groups[i] for i in others} & {groups[i] for i in fold}
        if classes is not None:
            assert np.bincount(classes[fold], minlength=3).min() >= 3  # of 4, were there no groups


def test_cross_folds_are_fewer_where_there_are_few_groups():
    assert len(cross_folds(["a", "b", "c"] * 9, classes=None, count=5)) == 3
    assert len(cross_folds([None] * 9, classes=np.arange(9) % 3, count=5)) == 3
    assert cross_folds(["a"] * 9, classes=None, count=5) == []


def test_given_splits_and_zero_fractions_change_nothing():
    given = records(["a"] * 3, splits=["train", "val", "test"])
    found = split_records(given, stratify=True)
    assert found.records == tuple(given) and found.notes == ()
    alone = split_records(records(["a"] * 3), val_fraction=0.0, test_fraction=0.0, stratify=True)
    assert counts(alone) == {"train": 3} and alone.notes == ()


def test_small_classes_stay_in_train_and_are_named():
    found = split_records(records(["a"] * 20 + ["b"] * 20 + ["rare"]), stratify=True)
    assert found.records[-1].split == "train"
    assert "kept in train: 'rare' (1)" in found.notes[1]


def test_mixed_labels_can_be_split():
    found = split_records(records([1, "1", None or 2.5] * 9), stratify=True)
    assert {type(r.target) for r in found.split("test")} == {int, str, float}


@pytest.mark.parametrize("stratify", [False, True])
def test_groups_stay_whole(stratify):
    groups = [f"g{i % 13}" for i in range(130)]
    labels = ["a" if i % 3 else "b" for i in range(130)]
    found = split_records(records(labels, groups=groups), stratify=stratify)
    places = {}
    for record in found.records:
        places.setdefault(record.group, set()).add(record.split)
    assert all(len(splits) == 1 for splits in places.values())
    # 13 groups of 10: whole groups come within one group of 15 %.
    assert all(10 <= counts(found)[split] <= 30 for split in ("val", "test"))
    assert "whole groups together" in found.notes[0]


def test_a_fold_that_takes_a_class_away_is_avoided():
    # The class 'b' stands in two groups only; neither val nor test may take both.
    groups = [f"g{i // 5}" for i in range(50)]
    labels = ["b" if group in ("g0", "g1", "g2") else "a" for group in groups]
    for seed in range(5):
        found = split_records(records(labels, groups=groups), stratify=True, seed=seed)
        assert {"a", "b"} == {r.target for r in found.split("train")}


def test_torn_groups_are_told():
    given = records(["a"] * 3, groups=["x", "x", "y"], splits=["train", "test", "val"])
    note = "1 group in more than one split (x): scores may be too good"
    assert split_records(given, stratify=True).notes == (note,)


@settings(max_examples=30)  # each example runs the splitter twice
@given(
    st.lists(st.sampled_from("abc"), min_size=12, max_size=60).filter(lambda labels: min(Counter(labels).values()) > 3),
    st.integers(0, 3),
    st.randoms(use_true_random=False),
)
def test_split_does_not_depend_on_the_order(labels, seed, shuffle: random.Random):
    given = records(labels)
    shuffled = given.copy()
    shuffle.shuffle(shuffled)
    one = split_records(given, stratify=True, seed=seed)
    two = split_records(shuffled, stratify=True, seed=seed)
    assert {r.key: r.split for r in one.records} == {r.key: r.split for r in two.records}
    assert [r.key for r in two.records] == [r.key for r in shuffled]
    assert {r.target for r in one.split("train")} == set(labels)
    assert one.split("val") and one.split("test")


def test_seed_changes_the_split():
    given = records(["a", "b"] * 20)
    splits = {tuple(r.split for r in split_records(given, stratify=True, seed=seed).records) for seed in range(3)}
    assert len(splits) == 3


def test_class_seen_only_in_test_is_refused():
    given = records([">50K", "<=50K", ">50K."], splits=["train", "train", "test"])
    words = "the test split: must hold classes that train has too; found '>50K.', for instance k2"
    with pytest.raises(DataError, match=f"{words}.*'>50K.' differs from '>50K' .* punctuation only"):
        split_records(given, val_fraction=0.0, stratify=True)


@pytest.mark.parametrize(
    "given, words",
    [
        ([], "at least one item"),
        (records(["a"] * 3, splits=["train", None, None]), "found 2 items without one"),
        (records(["a"] * 2, splits=["val", "test"]), "must have a train split; found only test"),
        (records(["a"] * 2), "enough to cut a val split"),
        (records(["a", "b"]), "enough to cut a test split"),
        (records(["a"] * 9, groups=["x"] * 9), "found 1 group in train"),
        (records(["a"] * 3, groups=["x", "y", None]), "found 1 item without one, k2 first"),
        (records(["a", None, "a"]), "k1: must have a label"),
        ([replace(r, key="same") for r in records(["a"] * 2)], "'same' as items 1 and 2"),
    ],
)
def test_what_cannot_be_split_is_refused(given, words):
    with pytest.raises(DataError, match=words):
        split_records(given, stratify=True)


def test_fractions_must_leave_a_train():
    with pytest.raises(UsageError, match="must stay below 1; found 1.2"):
        split_records(records(["a"]), val_fraction=0.6, test_fraction=0.6, stratify=True)
    with pytest.raises(UsageError, match=r"val_fraction: must lie in \[0, 1\); found -0.1"):
        split_records(records(["a"]), val_fraction=-0.1, stratify=True)
