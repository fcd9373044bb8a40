"""What the transforms of photographs, X-rays and infrared pictures share, and how their records are loaded."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.modality import Stem, Transform
from metatransformer.core.samples import Record, View
from metatransformer.modalities._picture.pixels import random_crop, random_mirror, to_patches, typical_side
from metatransformer.modalities._picture.sets import read_part

# By task. Where a stroke or a stripe is tells one identity from another. Two held-out alphabets of Omniglot at 112
# pixels, frozen focus-s14, mAP of grids: block 6 .524, block 8 .568, blocks 6 and 9 .577, in 1000 directions .585.
DEFAULTS_FOR = {"retrieve": {"head.pool": "grid", "head.read": [0.5, 0.75]}}


class PictureTransform(Transform):
    """Whole patches, training crops and mirror images; ``options`` has ``size``, ``crop`` and ``flip``.

    Learns ``side_``, the pixel side of a square picture, unless the options fix it.
    """

    def __init__(self, options: Any, stem: Stem) -> None:
        self.options = options
        self.patch = stem.patch_size
        self.side_ = 224 if options.size == "auto" else options.size

    def learn_side(self, shapes: Iterable[tuple[int, ...]]) -> None:
        """Learns the side from the shapes of training pictures."""
        if self.options.size == "auto":
            self.side_ = typical_side(shapes, default=self.side_)

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
        """Returns the learned side."""
        return {"side": self.side_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the learned side."""
        self.side_ = int(state["side"])


def load_picture(record: Record, read: Callable[[Path], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
    """Returns ``pixels`` of an array, of a data set in a file, or what ``read`` makes of a picture's file."""
    if record.path is None:
        return {"pixels": np.asarray(record.value)}
    if record.part is not None:
        return {"pixels": read_part(record.path, str(record.part))}
    return read(record.path)
