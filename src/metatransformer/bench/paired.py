"""How far two models that answered the same test samples may differ by chance.

Both get most samples right or wrong together, so the error of their difference is smaller than that of two scores from
different test sets would be (the idea of McNemar's test, 10.1007/BF02295996).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Line = Mapping[str, Any]


def paired_error(ours: Sequence[Line], others: Sequence[Line], *, metric: str) -> float | None:
    """Returns the standard error of the mean difference over folds, from what each line says of each test sample.

    Runs of the same fold (seeds, random trunks) answered the same samples: their differences are averaged first. None
    for a metric that is no share of right answers, and for lines that do not keep their ``hits``.
    """
    if metric not in ("accuracy", "balanced_accuracy"):
        return None
    own = {(line["fold"], line["seed"]): line for line in ours}
    folds: dict[int, list[list[np.ndarray]]] = {}
    for line in others:
        mate = own.get((line["fold"], line["seed"]))
        if mate is None:
            continue
        if "hits" not in line or "hits" not in mate:
            return None
        folds.setdefault(line["fold"], []).append(_differences(mate["hits"], line["hits"]))
    if not folds:
        return None
    variances = [
        _variance([np.mean(runs, axis=0) for runs in zip(*pairs, strict=True)], metric) for pairs in folds.values()
    ]
    return float(np.sqrt(np.sum(variances)) / len(variances))


def _differences(ours: Sequence[str], other: Sequence[str]) -> list[np.ndarray]:
    """Returns -1, 0 or 1 for each sample, by class."""
    return [_numbers(a) - _numbers(b) for a, b in zip(ours, other, strict=True)]


def _numbers(hits: str) -> np.ndarray:
    return np.array([float(hit) for hit in hits])


def _variance(classes: Sequence[np.ndarray], metric: str) -> float:
    """Returns the variance of the weighted mean of the differences of all classes."""
    classes = [one for one in classes if len(one)]
    total = sum(len(one) for one in classes)
    balanced = metric == "balanced_accuracy"
    shares = [1 / len(classes) if balanced else len(one) / total for one in classes]
    return sum(share**2 * one.var() / len(one) for share, one in zip(shares, classes, strict=True))
