"""Cutting samples of many shapes into batches that hold little padding.

In a batch every ragged axis is as long as its longest sample, so a 100 x 400 picture beside one of 400 x 100 costs
400 x 400 twice, although both are equally large. So samples are not sorted by size: the whole set is cut in two along
the axis, and at the place, where the halves together are padded least, and each half is cut again.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from metatransformer.core.fields import Field
from metatransformer.core.samples import Sample

WASTE = 2.0  # padded / real cells; a batch with more is cut further, so that one giant does not make giants of others


def lengths_of(samples: Sequence[Sample], *, fields: Mapping[str, Mapping[str, Field]]) -> list[np.ndarray]:
    """Returns ``[n, ragged axes]`` for each field of each input, 0 where a sample does not have the input."""
    found = []
    for given, declared in fields.items():
        views = [sample.views[given] for sample in samples]
        for name, field in declared.items():
            absent = [0] * len(field.ragged)
            rows = [absent if v is None else [v.inputs[name].shape[axis] for axis in field.ragged] for v in views]
            found.append(np.array(rows, dtype=float).reshape(len(samples), len(field.ragged)))
    return found


def cut_batches(lengths: Sequence[np.ndarray], *, batch_size: int) -> list[np.ndarray]:
    """Returns the places of each batch's samples, at most ``batch_size`` and of like shape; every sample is in one.

    ``lengths`` is as of ``lengths_of``. Each field counts alike, whatever a cell of it costs: its cells are divided by
    their mean over all samples.
    """
    scales = [max(field.prod(axis=1).mean(), 1e-9) for field in lengths]
    cut, pending = [], [np.arange(len(lengths[0]))]
    while pending:
        places = pending.pop()
        own = [field[places] for field in lengths]
        real = _cells(own, scales)
        (widest,) = _cells([field.max(axis=0, keepdims=True) for field in own], scales)
        if len(places) <= batch_size and len(places) * widest <= WASTE * real.sum():
            cut.append(places)
        else:
            first, second = _halves(own, scales, keys=[real, *np.hstack(own).T], step=batch_size)
            pending += [places[second], places[first]]
    return cut


def _halves(
    lengths: Sequence[np.ndarray], scales: Sequence[float], *, keys: Sequence[np.ndarray], step: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the two parts, along one of ``keys``, that are padded least; the first fills whole batches if it can."""
    count = len(keys[0])
    sizes = np.arange(step, count, step) if count > step else np.arange(1, count)  # of the first part
    best, parts = np.inf, (np.arange(0), np.arange(0))
    for key in keys:
        order = np.argsort(key, kind="stable")
        rising = _cells([np.maximum.accumulate(field[order]) for field in lengths], scales)
        falling = _cells([np.maximum.accumulate(field[order[::-1]])[::-1] for field in lengths], scales)
        padded = sizes * rising[sizes - 1] + (count - sizes) * falling[sizes]
        place = int(padded.argmin())
        if padded[place] < best:
            best, parts = padded[place], (order[: sizes[place]], order[sizes[place] :])
    return parts


def _cells(lengths: Sequence[np.ndarray], scales: Sequence[float]) -> np.ndarray:
    """Returns how many cells each row of lengths spans, in units of the mean sample, summed over the fields."""
    return np.sum([field.prod(axis=-1) / scale for field, scale in zip(lengths, scales, strict=True)], axis=0)
