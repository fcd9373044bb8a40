"""Seeing inside sounds: cells of time and frequency that become the training mean of their frequencies.

The mean of all frequencies is nothing neutral: in a band that no training clip fills, as those above 4 kHz of telephone
speech, a plain model takes it for the loudest sound that it ever met.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells, reach_of
from metatransformer.core.samples import View
from metatransformer.modalities._shown import paint_over
from metatransformer.nn.spectrogram import hz_to_mel

PATCHES = 8  # rows of patches over all frequencies


def audio_inside(draw: Callable[[Any, View], None], *, rate_hz: int, low_hz: float) -> Inside:
    """Returns the hook of sounds of this rate whose lowest frequency is ``low_hz``."""
    return Inside(
        places=partial(_places, rate_hz, low_hz),
        cover=_cover,
        paint=partial(_paint, draw),
        covered="the mean of the training clips at its frequencies",
        left_out=True,
    )


def _places(rate_hz: int, low_hz: float, seen: Seen, most: int) -> Places:
    t, mels = seen.view.inputs["spectrum"].shape
    side = max(1, mels // PATCHES)
    cells = few_cells([max(1, round(t / side)), max(1, mels // side)], most=most)
    edges = [(axis * size // axis[-1]).astype(int) for axis, size in zip(cells, (t, mels), strict=True)]
    seconds = _seconds(seen, t, rate_hz=rate_hz)
    low, high = hz_to_mel(np.array([low_hz, rate_hz / 2]))
    hertz = 700 * np.expm1((low + (high - low) * np.arange(mels + 1) / mels) / 1127)  # of hz_to_mel
    where, names = [], []
    for (start, stop), (bottom, top) in product(*map(pairwise, edges)):
        where.append((seconds[start, 0], seconds[stop - 1, 1], hertz[bottom], hertz[top]))
        names.append("{:.2f}-{:.2f} s, {:.0f}-{:.0f} Hz".format(*where[-1]))
    columns = ("from_s", "to_s", "from_hz", "to_hz")
    return Places(names, columns, np.array(where), edges, reach_of(edges))


def _paint(draw: Callable[[Any, View], None], axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    draw(axes, seen.view)
    paint_over(axes, places.spread(values).T)


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    spectrum, bands = seen.view.inputs["spectrum"], seen.transform.bands_
    mean = bands if len(bands) else spectrum.mean(axis=0)  # of a model of before its own, where no time stands out

    def covered(hidden: np.ndarray) -> View:
        changed = np.where(places.spread(hidden), mean, spectrum)
        return seen.view.with_inputs({**seen.view.inputs, "spectrum": changed})

    return covered


def _seconds(seen: Seen, frames: int, *, rate_hz: int) -> np.ndarray:
    """Returns when each frame of the spectrum begins and ends ``[t, 2]``, in seconds of the recording."""
    stretches = seen.transform.stretches(seen.raw.inputs["wave"], where=seen.raw.key)
    each = frames // len(stretches)
    edges = [np.linspace(one.start, one.stop, each + 1) / rate_hz for one in stretches]
    return np.concatenate([np.stack([own[:-1], own[1:]], axis=1) for own in edges])
