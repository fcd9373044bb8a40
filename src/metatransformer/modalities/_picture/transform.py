"""What the transforms of photographs, X-rays and infrared pictures share, and how their records are loaded."""

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.modality import Stem, Transform
from metatransformer.core.samples import Record, View
from metatransformer.modalities._picture.pixels import (
    LOOKED_AT,
    random_crop,
    random_mirror,
    to_patches,
    typical_side,
)
from metatransformer.modalities._picture.sets import read_part
from metatransformer.modalities._picture.tiles import covered, learned_tiles

# By task. Where a stroke or a stripe is tells one identity from another. Two held-out alphabets of Omniglot at 112
# pixels, frozen focus-s14, mAP of grids: block 6 .524, block 8 .568, blocks 6 and 9 .577, in 1000 directions .585.
DEFAULTS_FOR = {"retrieve": {"head.pool": "grid", "head.read": [0.5, 0.75]}}


class PictureTransform(Transform):
    """Whole patches, training crops and mirror images; ``options`` has ``size``, ``crop`` and ``flip``.

    Learns ``side_``, the pixel side of a square picture, unless the options fix it, and ``tile_``, the side of the
    overlapping tiles that it is read in, 0 = it is read at once.
    """

    def __init__(self, options: Any, stem: Stem) -> None:
        self.options = options
        self.patch = stem.patch_size
        self.side_ = 224 if options.size == "auto" else options.size
        self.tile_ = 0

    def learn_side(self, shapes: Iterable[tuple[int, ...]]) -> None:
        """Learns side and tiles from the shapes of training pictures."""
        first = list(islice(shapes, LOOKED_AT))
        side = typical_side(first, default=224) if self.options.size == "auto" else self.options.size
        across = learned_tiles(self.options.tiles, first, side=side)
        self.side_, self.tile_ = covered(across, side=side), side if across > 1 else 0

    @property
    def tiled(self) -> tuple[str, ...]:
        """Says that pictures are read in tiles, where they are."""
        if not self.tile_:
            return ()
        told = f"pictures are read at a side of {self.side_} pixels in overlapping tiles of {self.tile_} (input.tiles)"
        return (told,)

    def patches(self, pixels: np.ndarray, *, where: str) -> np.ndarray:
        """Returns the picture ``[h, w, c]`` resized to whole patches."""
        return to_patches(pixels, side=self.side_, patch=self.patch, where=where)

    @property
    def mirrors(self) -> tuple[int, ...]:
        """The axes along which a training picture may be mirrored: 1 = left to right."""
        return (1,) if self.options.flip else ()

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns a random crop, resized back, mirrored half of the time along each allowed axis."""
        pixels = random_crop(view.inputs["pixels"], rng, least=self.options.crop)
        return view.with_inputs({"pixels": random_mirror(pixels, rng, axes=self.mirrors)})

    def state(self) -> dict[str, Any]:
        """Returns the learned side, and that of a tile."""
        return {"side": self.side_, "tile": self.tile_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes them back; older models read every picture at once."""
        self.side_, self.tile_ = int(state["side"]), int(state.get("tile", 0))


def load_picture(record: Record, read: Callable[[Path], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """Returns ``pixels`` of an array, of a data set in a file, or what ``read`` makes of a picture's file."""
    if record.path is None:
        return {"pixels": np.asarray(record.value)}
    if record.part is not None:
        return {"pixels": read_part(record.path, str(record.part))}
    return read(record.path)
