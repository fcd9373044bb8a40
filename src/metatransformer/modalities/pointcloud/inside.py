"""Seeing inside clouds: groups of points that lie together are left out, and the numbers of the whole are covered."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from metatransformer.core.inside import Inside, Places, Seen
from metatransformer.core.samples import View
from metatransformer.modalities._shown import shades
from metatransformer.nn.points import farthest_points

GROUPS = 32  # so that each holds enough of the points to be missed
WHOLE = "place, size and spread of the whole cloud"


def cloud_inside(seen_from: np.ndarray) -> Inside:
    """Returns the hook of clouds; ``seen_from`` [3, 3] has the axes right, up and towards the viewer of a picture."""
    return Inside(
        places=_places,
        cover=_cover,
        paint=partial(_paint, seen_from),
        covered="nothing: points are left out",
    )  # the trunk sees all tokens: most of them look at the same points from elsewhere, and change with any of them


def _paint(seen_from: np.ndarray, axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    points = seen.view.inputs["cloud"][:, :3] @ seen_from.T
    worth = values[_groups(seen, places)]
    order = np.argsort(points[:, 2])  # what is near is painted last
    points, colours = points[order], shades(worth)[order]
    size = float(np.clip(6000 / len(points), 0.5, 30))
    axes.scatter(points[:, 0], points[:, 1], c="0.85", s=size, linewidths=0)
    axes.scatter(points[:, 0], points[:, 1], c=colours, s=size, linewidths=0)
    axes.set_aspect("equal")
    axes.axis("off")
    axes.set_xlabel("the cloud from a corner above")
    if np.isnan(places.where[-1, 0]):
        axes.set_title(f"{WHOLE}: {values[-1]:+.2g}", fontsize=8)


def _places(seen: Seen, most: int) -> Places:
    """Returns groups by their middles, in half sides from the middle of the cloud; then the numbers of the whole."""
    points = torch.from_numpy(seen.view.inputs["cloud"][:, :3])[None]
    count = min(most, GROUPS, max(1, points.shape[1] // 4))
    chosen, real = farthest_points(points, torch.ones(points.shape[:2], dtype=torch.bool), count=count)
    centres = points[0, chosen[0, real[0]]].numpy().astype(float)
    names = ["points around ({:.2f}, {:.2f}, {:.2f})".format(*centre) for centre in centres]
    return Places([*names, WHOLE], ("x", "y", "z"), np.concatenate([centres, np.full((1, 3), np.nan)]))


def _groups(seen: Seen, places: Places) -> np.ndarray:
    """Returns the place of each point: the nearest middle."""
    points = seen.view.inputs["cloud"][:, None, :3]
    return np.square(points - places.where[None, :-1]).sum(axis=-1).argmin(axis=1)


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    inputs, groups = seen.view.inputs, _groups(seen, places)

    def covered(hidden: np.ndarray) -> View:
        left = ~hidden[groups]
        cloud = inputs["cloud"][left] if left.any() else inputs["cloud"][:1]
        whole = np.zeros_like(inputs["whole"]) if hidden[-1] else inputs["whole"]
        return seen.view.with_inputs({**inputs, "cloud": cloud, "whole": whole})

    return covered
