"""Series as a plot: several axes of a recording as coloured lines in bands, for an image trunk.

Axes: B batch, t time steps or columns, c axes of the sensor, h w pixels.
"""

import re
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

COLOURS = 3  # red, green, blue: as many lines as one band can tell apart
REACH = 3.0  # deviations from a band's middle to its edge; what lies beyond runs along the edge
LINE = 1.0  # deviation of a line's thickness, in pixels
_LAST = re.compile(r"[ _.\-]*(?:[xyzw]|\d+)$", re.IGNORECASE)


def axis_bands(names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Returns which axes share a band: those of one name but for x, y, z, w or a number at its end.

    Bands come in the order of their first axes; what has more than three axes fills several.
    """
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        groups.setdefault(_LAST.sub("", name.strip()).lower(), []).append(place)
    return tuple(
        tuple(group[start : start + COLOURS]) for group in groups.values() for start in range(0, len(group), COLOURS)
    )


def draw_curves(
    motion: Float[Tensor, "B t c"], *, bands: Sequence[Sequence[int]], height: int
) -> Float[Tensor, "B 3 h t"]:
    """Returns the bands below each other, ``height`` pixels each, one column a time step.

    ``motion`` is in deviations; up is positive. The ground is -1, a line +1, as an image's values
    are once they are normalised; a band's first axis is red, the second green, the third blue.
    """
    middle = (height - 1) / 2
    rows = middle - torch.arange(height, device=motion.device, dtype=motion.dtype)  # [height]
    level = motion.clamp(-REACH, REACH) * ((height / 2 - 1) / REACH)
    away = (level.transpose(1, 2)[:, :, None] - rows[:, None]) / LINE  # [B, c, height, t]
    lines = 2 * torch.exp(-away.square() / 2) - 1
    picture = lines.new_full((motion.shape[0], COLOURS, len(bands), height, motion.shape[1]), -1.0)
    for place, band in enumerate(bands):
        picture[:, : len(band), place] = lines[:, list(band)]
    return picture.flatten(2, 3)  # [B, 3, bands, height, t] -> [B, 3, h, t]
