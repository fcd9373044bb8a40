"""Seeing inside recordings and series: stretches of a channel that become a straight line between their ends."""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Any

import numpy as np

from metatransformer.core.inside import NEAR, Places, few_cells
from metatransformer.modalities._shown import paint_lines

COVERED = "a straight line between its ends"
APART = 5.0  # deviations from one painted channel to the next
NAMED = 8  # channels that have room for their names


def curve_places(names: Sequence[str], *, steps: int, parts: int, most: int, begun: np.ndarray, unit: str) -> Places:
    """Returns stretches of channels: about ``parts`` of the ``steps`` of each.

    ``begun`` [steps + 1] is when each step begins and the last one ends.
    """
    channels, times = few_cells([len(names), min(parts, steps)], most=most)
    edges = [channels, times * steps // times[-1]]
    told, where = [], []
    for (first, last), (start, stop) in product(pairwise(channels), pairwise(edges[1])):
        name = names[first] if last == first + 1 else f"{names[first]} to {names[last - 1]}"
        told.append(f"{name}, {begun[start]:.4g} to {begun[stop]:.4g} {unit}")
        where.append((first + 1, last, begun[start], begun[stop]))
    columns = ("from_channel", "to_channel", f"from_{unit}", f"to_{unit}")
    return Places(told, columns, np.array(where, dtype=float), edges, (0, int(len(times) > NEAR)))


def without(values: np.ndarray, places: Places, hidden: np.ndarray) -> np.ndarray:
    """Returns ``values`` [t, c] with straight lines where they are covered; of a channel with nothing left, its mean.

    A covered end stays at the nearest value that is left.
    """
    mask, found = places.spread(hidden).T, values.copy()
    steps = np.arange(len(values))
    for column, gone in zip(found.T, mask.T, strict=True):
        if gone.all():
            column[:] = column.mean()
        elif gone.any():
            column[gone] = np.interp(steps[gone], steps[~gone], column[~gone])
    return found


def paint_channels(
    axes: Any, x: np.ndarray, values: np.ndarray, worth: np.ndarray, *, names: Sequence[str], below: str
) -> None:
    """Paints channels ``[t, c]`` below each other in their own deviations, each stretch coloured by its worth."""
    spread = values.std(axis=0)
    own = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    middles = -APART * np.arange(values.shape[1])
    paint_lines(axes, x, (own + middles).T, worth.T)
    few = len(names) <= NAMED
    axes.set_yticks(middles if few else [], names if few else [], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(below)
