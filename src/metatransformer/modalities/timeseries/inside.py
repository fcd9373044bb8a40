"""Seeing inside series: stretches of a look-back, or of a whole series, and what is known of the future."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen
from metatransformer.core.samples import View
from metatransformer.modalities._recording.inside import COVERED, curve_places, paint_channels, without
from metatransformer.modalities.timeseries.windows import Window

PARTS = 16  # of the time, where there are not too many channels
FUTURE = "what is known of the future"


@dataclass(frozen=True, eq=False)
class Kept(Window):
    """A window that is measured by the scale of another one, so that two forecasts can be compared."""

    of: tuple[float, float] = (0.0, 1.0)

    @property
    def scale(self) -> tuple[float, float]:
        """Level and spread of the other one."""
        return self.of


def _values(seen: Seen) -> np.ndarray:
    inputs = seen.raw.inputs
    return inputs["window"].past if "window" in inputs else inputs["values"]


def _names(seen: Seen) -> list[str]:
    inputs = seen.raw.inputs
    if "window" not in inputs:
        return list(inputs["names"])
    series = inputs["window"].series
    return [series.column or series.name, *series.covariates]


def _begun(seen: Seen, steps: int) -> tuple[np.ndarray, str]:
    """Returns when each row begins and the last one ends: in rows, of a look-back from now, or in seconds."""
    inputs = seen.raw.inputs
    if "window" in inputs:
        return np.arange(steps + 1) - steps, "rows"
    times = inputs["times_s"]
    if times is None:
        return np.arange(steps + 1), "rows"
    return np.append(times, 2 * times[-1] - times[-2]), "s"


def _places(seen: Seen, most: int) -> Places:
    steps = len(_values(seen))
    begun, unit = _begun(seen, steps)
    found = curve_places(_names(seen), steps=steps, parts=PARTS, most=most, begun=begun, unit=unit)
    if "window" not in seen.raw.inputs or not seen.raw.inputs["window"].series.known.shape[1]:
        return found
    where = np.append(found.where, [[np.nan, np.nan, 0, seen.raw.inputs["window"].horizon]], axis=0)
    return replace(found, names=[*found.names, FUTURE], where=where)


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    values, inputs = _values(seen), seen.raw.inputs

    def covered(hidden: np.ndarray) -> View:
        left = without(values.astype(np.float64), places, hidden)
        ahead = bool(len(hidden) > np.prod(places.grid) and hidden[-1])
        raw = {"window": _window(inputs["window"], left, ahead=ahead)} if "window" in inputs else {"values": left}
        return seen.transform(seen.raw.with_inputs({**inputs, **raw}))

    return covered


def _window(window: Window, left: np.ndarray, *, ahead: bool) -> Kept:
    """Returns a window with other values ``[L, 1 + P + K]``; ``ahead``: covariates stay what they last were."""
    series = window.series
    own, past, known = series.values.copy(), series.past.copy(), series.known.copy()
    rows, middle = slice(window.start, window.now), 1 + past.shape[1]
    own[rows], past[rows], known[rows] = left[:, 0], left[:, 1:middle], left[:, middle:]
    if ahead:
        known[window.now : window.now + window.horizon] = known[window.now - 1]
    series = replace(series, values=own, past=past, known=known)
    return Kept(series, window.start, window.lookback, window.horizon, window.mean, window.spread, of=window.scale)


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    begun, unit = _begun(seen, len(_values(seen)))
    below = "rows before the forecast" if "window" in seen.raw.inputs else unit
    worth = places.spread(values).T
    paint_channels(axes, begun[:-1], _values(seen), worth, names=_names(seen), below=below)
    if len(values) > np.prod(places.grid):
        axes.set_title(f"{FUTURE}: {values[-1]:+.2g}", fontsize=8)


SERIES_INSIDE = Inside(places=_places, cover=_cover, paint=_paint, covered=COVERED, left_out=True, paints_raw=True)
