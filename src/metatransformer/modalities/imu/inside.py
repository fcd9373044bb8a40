"""Seeing inside recordings of motion: stretches of time of each axis."""

from collections.abc import Callable
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen
from metatransformer.core.samples import View
from metatransformer.modalities._recording.inside import COVERED, curve_places, paint_channels, without


def _curves(seen: Seen) -> np.ndarray:
    """Returns the columns of all pictures one after the other, ``[t, axes]``."""
    motion = seen.view.inputs["motion"]
    return motion.reshape(-1, motion.shape[-1])


def _begun(seen: Seen) -> tuple[np.ndarray, str]:
    """Returns when each column begins and the last one ends, and the unit."""
    _, times = seen.transform.select(seen.raw)
    unit = "s" if seen.transform.is_timed(seen.raw) else "steps"
    return np.linspace(times[0], times[-1], len(_curves(seen)) + 1), unit


def _names(seen: Seen) -> list[str]:
    return list(seen.transform.names_ or seen.raw.inputs["names"])


def _places(seen: Seen, most: int) -> Places:
    steps, (begun, unit) = len(_curves(seen)), _begun(seen)
    parts = max(1, steps // seen.transform.patch)
    return curve_places(_names(seen), steps=steps, parts=parts, most=most, begun=begun, unit=unit)


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    curves, shape = _curves(seen), seen.view.inputs["motion"].shape

    def covered(hidden: np.ndarray) -> View:
        return seen.view.with_inputs({**seen.view.inputs, "motion": without(curves, places, hidden).reshape(shape)})

    return covered


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    (begun, unit), worth = _begun(seen), places.spread(values).T
    paint_channels(axes, begun[:-1], _curves(seen), worth, names=_names(seen), below=unit)


MOTION_INSIDE = Inside(places=_places, cover=_cover, paint=_paint, covered=COVERED, left_out=True, paints_raw=True)
