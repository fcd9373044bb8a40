"""Seeing inside pictures: cells of whole patches that become the mean of the picture."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells, reach_of
from metatransformer.core.samples import View
from metatransformer.modalities._shown import paint_over

CORNERS = ("top_px", "left_px", "bottom_px", "right_px")


def picture_inside(draw: Callable[[Any, View], None], *, raw: bool = False) -> Inside:
    """Returns the hook of pictures that ``draw`` paints; ``raw``: plain models see them as they were loaded."""
    return Inside(
        places=_places,
        cover=_cover_view,
        cover_raw=_cover_raw if raw else None,
        paint=partial(_paint, draw),
        covered="the picture's mean colour",
        left_out=True,
    )


def _places(seen: Seen, most: int) -> Places:
    """Returns cells whose corners are told in the picture's own pixels."""
    patch = seen.transform.patch
    own, made = (np.asarray(view.inputs["pixels"]).shape[:2] for view in (seen.raw, seen.view))
    edges = [patch * axis for axis in few_cells([side // patch for side in made], most=most)]
    rows, columns = (axis * side // axis[-1] for axis, side in zip(edges, own, strict=True))
    where = [(top, left, low, right) for (top, low), (left, right) in product(pairwise(rows), pairwise(columns))]
    names = [f"rows {top}-{low}, columns {left}-{right}" for top, left, low, right in where]
    return Places(names, CORNERS, np.array(where, dtype=float), edges, reach_of(edges))


def _cover_view(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    return _cover(seen.view, places)


def _cover_raw(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    return _cover(seen.raw, places)


def _cover(view: View, places: Places) -> Callable[[np.ndarray], View]:
    pixels = np.asarray(view.inputs["pixels"])
    fill = np.nanmean(pixels, axis=(0, 1)).astype(pixels.dtype)

    def covered(hidden: np.ndarray) -> View:
        mask = places.spread(hidden, size=pixels.shape[:2]).reshape(*pixels.shape[:2], *(1,) * (pixels.ndim - 2))
        return view.with_inputs({**view.inputs, "pixels": np.where(mask, fill, pixels)})

    return covered


def _paint(draw: Callable[[Any, View], None], axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    draw(axes, seen.view)
    paint_over(axes, places.spread(values))
