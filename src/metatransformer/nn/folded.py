"""Spectra as pictures: one number a band, folded row by row into a square, for an image trunk.

Axes: B batch, b bands, s spectra of one sample (red, green, blue), n cells a side, p pixels a side.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

REACH = 3.0  # deviations; a value beyond them is drawn like one at the edge


def fold_spectra(spectra: Float[Tensor, "B s b"], *, pixels: int) -> Float[Tensor, "B 3 p p"]:
    """Returns each spectrum as a square of cells in reading order, enlarged to ``pixels`` a side.

    Three spectra are red, green and blue; one is grey. ``spectra`` are in deviations; the square has the fewest cells
    that hold all bands, and those behind the last band are 0, the mean.
    """
    count = spectra.shape[2]
    side = math.ceil(math.sqrt(count))
    cells = F.pad(spectra.clamp(-REACH, REACH), (0, side * side - count))
    squares = cells.unflatten(2, (side, side))  # [B, s, n, n]
    if squares.shape[1] == 1:
        squares = squares.expand(-1, 3, -1, -1)
    return F.interpolate(squares.float(), size=(pixels, pixels), mode="nearest-exact")
