"""Seeing inside rows: a number becomes the training mean, a word the bare column."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells
from metatransformer.core.samples import View
from metatransformer.data.columns import UNKNOWN
from metatransformer.modalities._shown import paint_bars


def _numbers(seen: Seen) -> tuple[list[str], np.ndarray]:
    """Returns the different names of columns, and which of them each column has: a date is several of one name."""
    names = [column.name for column in seen.transform.columns_]
    different = list(dict.fromkeys(names))
    return different, np.array([different.index(name) for name in names])


def _places(seen: Seen, most: int) -> Places:
    """Returns columns; of a wide table groups of neighbouring ones."""
    names, _ = _numbers(seen)
    where = list(pairwise(few_cells([len(names)], most=most)[0]))
    told = [_told(seen, names[start:stop]) for start, stop in where]
    return Places(told, ("from_column", "to_column"), np.array(where, dtype=float) + (1, 0))


def _told(seen: Seen, names: Sequence[str]) -> str:
    """Returns a column with its cell, or the first and last of several."""
    if len(names) > 1:
        return f"{names[0]} to {names[-1]}"
    cell = seen.raw.inputs["row"].get(names[0])
    return f"{names[0]} = {'missing' if cell is None else f'{cell:.5g}' if isinstance(cell, float) else cell}"


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    place = np.searchsorted(places.where[:, 0] - 1, _numbers(seen)[1], side="right") - 1
    cells, choices = seen.view.inputs["cells"], seen.view.inputs["choices"]

    def covered(hidden: np.ndarray) -> View:
        changed = np.where(hidden[place], np.where(choices > 0, UNKNOWN, 0), cells)
        return seen.view.with_inputs({**seen.view.inputs, "cells": changed.astype(np.float32)})

    return covered


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    del seen
    paint_bars(axes, places.names, values)


ROW_INSIDE = Inside(
    places=_places, cover=_cover, paint=_paint, covered="a number: the training mean; a word: one never seen"
)
