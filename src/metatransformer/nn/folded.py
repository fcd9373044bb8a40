"""Spectra as pictures: one number a band, folded row by row into a square, for an image trunk.

Axes: B batch, b bands, s spectra of one sample (red, green, blue), h w pixels.
"""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

REACH = 3.0  # deviations; a value beyond them is drawn like one at the edge
# A cell is 4/7 of a patch, 8 pixels of 14, so that a patch sees parts of four to nine bands. Validation folds of Indian
# Pines, before smoothing: cells of 8 pixels 0.82, of 7 (four a patch) 0.79 to 0.80, of 14 (one a patch) 0.77.
CELL = 4 / 7
PATCHES = 8  # at least so many patches a side: few bands get larger cells


def fold_spectra(spectra: Float[Tensor, "B s b"], *, patch: int) -> Float[Tensor, "B 3 h w"]:
    """Returns each spectrum as cells in reading order, about as many in a row as there are rows.

    Three spectra are red, green and blue; one is grey. ``spectra`` are in deviations; cells behind the last band are 0,
    the mean. ``patch`` is the side of the trunk's patches in pixels.
    """
    count = spectra.shape[2]
    columns = max(1, round(math.sqrt(count)))
    rows = math.ceil(count / columns)
    side = max(round(CELL * patch), round(PATCHES * patch / columns))
    cells = F.pad(spectra.clamp(-REACH, REACH), (0, rows * columns - count)).unflatten(2, (rows, columns))
    picture = cells.repeat_interleave(side, dim=2).repeat_interleave(side, dim=3)  # [B, s, h, w]
    return picture.expand(-1, 3, -1, -1) if picture.shape[1] == 1 else picture
