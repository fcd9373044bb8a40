"""Seeing inside spectra: groups of bands that become a straight line, and the neighbours of the pixel.

Neighbouring bands of real spectra are nearly alike. With a step between them, as the training mean would make, any
covered spectrum is equally far from all that training saw, and every group of bands seems to carry the whole answer.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells, reach_of
from metatransformer.core.samples import View
from metatransformer.modalities._shown import paint_lines

GROUPS = 32  # of bands: fewer than the usual places, for a spectrum is smooth
NEIGHBOURS = "the neighbours of the pixel"


def _places(seen: Seen, most: int) -> Places:
    """Returns groups of bands; behind them, where pixels around are averaged, these."""
    inputs = seen.view.inputs
    nm, bands = inputs["nm"], len(inputs["spectrum"])
    edges = few_cells([bands], most=min(most, GROUPS))
    where = [(a + 1, b, nm[a], nm[b - 1]) for a, b in pairwise(edges[0])]
    known = not np.isnan(nm).any()
    names = [f"{c:.0f}-{d:.0f} nm" if known else f"bands {a}-{b}" for a, b, c, d in where]
    if not np.array_equal(inputs["spectrum"], inputs["pixel"]):
        names, where = [*names, NEIGHBOURS], [*where, (np.nan,) * 4]
    columns = ("from_band", "to_band", "from_nm", "to_nm")
    return Places(names, columns, np.array(where, dtype=float), edges, reach_of(edges))


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    inputs = seen.view.inputs

    def covered(hidden: np.ndarray) -> View:
        alone = len(hidden) > places.grid[0] and hidden[-1]
        bands = np.asarray(places.spread(hidden), dtype=bool)
        spectra = {"spectrum": inputs["pixel" if alone else "spectrum"], "pixel": inputs["pixel"]}
        return seen.view.with_inputs({**inputs, **{name: _bridged(x, bands) for name, x in spectra.items()}})

    return covered


def _bridged(spectrum: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Returns a spectrum whose hidden bands lie on a line between those beside them; the training mean if all are."""
    bands = np.arange(len(spectrum))
    if hidden.all():
        return np.zeros_like(spectrum)
    return np.interp(bands, bands[~hidden], spectrum[~hidden]).astype(np.float32)


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    spectrum, nm = seen.view.inputs["spectrum"], seen.view.inputs["nm"]
    known = not np.isnan(nm).any()
    x = nm if known else np.arange(1, len(nm) + 1)
    paint_lines(axes, x, spectrum[None], places.spread(values)[None])
    axes.set(xlabel="nm" if known else "band", ylabel="deviations")
    if len(values) > places.grid[0]:
        axes.set_title(f"{NEIGHBOURS}: {values[-1]:+.2g}", fontsize=8)


SPECTRA_INSIDE = Inside(
    places=_places, cover=_cover, paint=_paint, covered="a line between the bands beside them", left_out=True
)
