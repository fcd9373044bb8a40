"""Overlapping tiles of a picture that is too large to be read at once: each goes through the trunk by itself."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Literal

import numpy as np
from torch import Tensor

from metatransformer.core.modality import Cut

STEP = 0.75  # of a tile's side, from one to the next
MOST = 4  # tiles across, that are taken unasked: 3.25 times as many patches along each side


def covered(tiles: int, *, side: int) -> int:
    """Returns the side of a square picture that so many tiles lie across."""
    return round(side * (1 + STEP * (tiles - 1)))


def tiles_across(shapes: Sequence[tuple[int, ...]], *, side: int) -> int:
    """Returns how many tiles of a side suit pictures: as many, up to 4, as enlarge none of median size."""
    median = float(np.median([(shape[0] * shape[1]) ** 0.5 for shape in shapes])) if shapes else 0.0
    return max(n for n in range(1, MOST + 1) if n == 1 or covered(n, side=side) <= median)


def learned_tiles(given: int | Literal["auto"], shapes: Sequence[tuple[int, ...]], *, side: int) -> int:
    """Returns the number of tiles across: the one that is given, or what suits the pictures."""
    return tiles_across([s for s in shapes if len(s) >= 2], side=side) if given == "auto" else given


def cut_pixels(inputs: Mapping[str, Tensor], *, tile: int, patch: int) -> list[Cut]:
    """Returns tiles of whole patches of one picture, ``pixels`` [1, h, w, c], that cover it, all of one size."""
    pixels = inputs["pixels"]
    across = [_starts(size // patch, most=max(1, round(tile / patch))) for size in pixels.shape[1:3]]
    found = []
    for rows, columns in product(*across):
        top, left, bottom, right = (patch * end for end in (rows.start, columns.start, rows.stop, columns.stop))
        found.append(Cut((rows, columns), {"pixels": pixels[:, top:bottom, left:right]}))
    return found


def _starts(size: int, *, most: int) -> list[slice]:
    """Returns stretches of up to ``most`` of ``size`` patches, evenly apart, that overlap by a quarter or more."""
    length = min(size, most)
    count = 1 + int(np.ceil((size - length) / max(1, int(STEP * length))))
    return [slice(start, start + length) for start in np.linspace(0, size - length, count).round().astype(int).tolist()]
