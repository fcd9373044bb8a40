"""How far two models that answered the same test samples may differ by chance.

Both get most samples right or wrong together, so the error of their difference is smaller than that of two scores from
different test sets would be (the idea of McNemar's test, 10.1007/BF02295996).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Line = Mapping[str, Any]
SEVERAL = 3  # folds whose differences say by themselves how far these scatter


def pairs(ours: Sequence[Line], others: Sequence[Line]) -> Iterator[tuple[Line, Line]]:
    """Yields our lines with another model's of the same fold and seed; a baseline's answers are those of every seed."""
    for other in others:
        for own in ours:
            if own["fold"] == other["fold"] and ("method" in other or own["seed"] == other["seed"]):
                yield own, other


def paired_error(ours: Sequence[Line], others: Sequence[Line], *, metric: str) -> float | None:
    """Returns the standard error of the mean difference over folds, from what each line says of each test sample.

    Runs of the same fold (seeds, random trunks) answered the same samples: their differences are averaged first. Of
    several folds it is not less than what their own differences scatter, for folds may share test samples, and each
    has its training samples. None for a metric that is no share of right answers, and for lines without ``hits``.
    """
    if metric not in ("accuracy", "balanced_accuracy"):
        return None
    folds: dict[int, list[list[np.ndarray]]] = {}
    gains: dict[int, list[float]] = {}
    for own, other in pairs(ours, others):
        if "hits" not in own or "hits" not in other:
            return None
        folds.setdefault(own["fold"], []).append(_differences(own["hits"], other["hits"]))
        gains.setdefault(own["fold"], []).append(own["scores"][metric] - other["scores"][metric])
    if not folds:
        return None
    squares = [_square([np.mean(runs, axis=0) for runs in zip(*runs, strict=True)], metric) for runs in folds.values()]
    within = np.sqrt(np.sum(squares)) / len(squares)
    if len(folds) < SEVERAL:
        return float(within)
    means = [np.mean(values) for values in gains.values()]
    return float(max(within, np.std(means, ddof=1) / np.sqrt(len(means))))


def _differences(ours: Sequence[str], other: Sequence[str]) -> list[np.ndarray]:
    """Returns -1, 0 or 1 for each sample, by class."""
    return [_numbers(a) - _numbers(b) for a, b in zip(ours, other, strict=True)]


def _numbers(hits: str) -> np.ndarray:
    return np.array([float(hit) for hit in hits])


def _square(classes: Sequence[np.ndarray], metric: str) -> float:
    """Returns the squared error of the mean of all differences, or of the mean of the classes' means.

    As in McNemar's test about 0, where no model is better; with one more sample on which they differ, so that a class
    of one sample is not taken for certain.
    """
    classes = [one for one in classes if len(one)]
    parts = classes if metric == "balanced_accuracy" else [np.concatenate(classes)]
    return sum(((one**2).sum() + 1) / (len(one) + 1) / len(one) for one in parts) / len(parts) ** 2
