"""Seeing inside videos: cells of a few frames, rows and columns that become the mean of the video."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells, reach_of
from metatransformer.core.samples import View
from metatransformer.modalities._picture.inside import CORNERS
from metatransformer.modalities._shown import paint_over
from metatransformer.modalities.video.read import Video
from metatransformer.nn.tubelet import DEPTH

SHOWN = 4  # frames of a picture, in two rows
GAP = 2  # pixels between them


def _frames(seen: Seen) -> np.ndarray:
    """Returns the frames of all clips, one behind the other."""
    clips = seen.view.inputs["clips"]
    return clips.reshape(-1, *clips.shape[2:])


def _numbers(seen: Seen) -> np.ndarray:
    """Returns which frames of the video these are."""
    return seen.transform.numbers(seen.raw.inputs["video"], where=seen.view.key).ravel()


def _places(seen: Seen, most: int) -> Places:
    frames, video = _frames(seen), seen.transform.timing(seen.raw.inputs["video"])
    size = (DEPTH, seen.transform.patch, seen.transform.patch)
    cells = few_cells([side // step for side, step in zip(frames.shape[:3], size, strict=True)], most=most)
    edges = [step * axis for step, axis in zip(size, cells, strict=True)]
    begun, unit = [*video.times_s[_numbers(seen)], video.duration_s], "s" if video.timed else "frames"
    where, names = [], []
    for (start, stop), (top, low), (left, right) in product(*map(pairwise, edges)):
        where.append((begun[start], begun[stop], top, left, low, right))
        names.append(f"{begun[start]:.3g}-{begun[stop]:.3g} {unit}, rows {top}-{low}, columns {left}-{right} as seen")
    columns = (f"from_{unit}", f"to_{unit}", *CORNERS)
    return Places(names, columns, np.array(where, dtype=float), edges, reach_of(edges))


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    frames, shape = _frames(seen), seen.view.inputs["clips"].shape
    fill = frames.mean(axis=(0, 1, 2)).astype(frames.dtype)

    def covered(hidden: np.ndarray) -> View:
        clips = np.where(places.spread(hidden)[..., None], fill, frames).reshape(shape)
        return seen.view.with_inputs({**seen.view.inputs, "clips": clips})

    return covered


def _cover_raw(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    """Covers a frame as that frame of the clips is covered that is nearest to it in time."""
    video: Video = seen.raw.inputs["video"]
    picked = _numbers(seen)
    fill = _frames(seen).mean(axis=(0, 1, 2)).astype(np.uint8)
    known: dict[int, np.ndarray] = {}  # decoded once

    def covered(hidden: np.ndarray) -> View:
        def pick(numbers: Sequence[int]) -> Iterator[np.ndarray]:
            new = [number for number in numbers if number not in known]
            known.update(zip(new, video.pick(new), strict=True))
            for number in numbers:
                frame = known[number]
                masks = places.spread(hidden, size=(len(picked), *frame.shape[:2]))
                yield np.where(masks[np.abs(picked - number).argmin()][..., None], fill, frame)

        return seen.raw.with_inputs({**seen.raw.inputs, "video": replace(video, pick=pick)})

    return covered


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    """Paints frames from the first to the last, in two rows."""
    frames, worth = _frames(seen), places.spread(values)
    chosen = np.linspace(0, len(frames) - 1, SHOWN).round().astype(int)
    axes.imshow(_sheet(frames[chosen], 255))
    axes.set_axis_off()
    axes.set_xlabel("four frames from the first to the last, row by row")
    paint_over(axes, _sheet(worth[chosen], 0))


def _sheet(parts: np.ndarray, empty: float) -> np.ndarray:
    parts = np.pad(parts, ((0, 0), (0, GAP), (0, GAP), *((0, 0),) * (parts.ndim - 3)), constant_values=empty)
    rows = parts[: SHOWN // 2], parts[SHOWN // 2 :]
    return np.concatenate([np.concatenate([*row], axis=1) for row in rows])[:-GAP, :-GAP]


VIDEO_INSIDE = Inside(
    places=_places,
    cover=_cover,
    cover_raw=_cover_raw,
    paint=_paint,
    covered="the video's mean colour",
    left_out=True,
)
