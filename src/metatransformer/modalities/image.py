"""Image: S x S patches by the trunk's own kernel and positions, at any size, with the aspect kept.

File: JPEG, JPEG 2000, PNG, WebP, TIFF, BMP, PPM, AVIF, GIF (first frame); 8 or 16 bit, or floating-point of 0..1; grey,
RGB, palette, alpha or CMYK; or a data set of them in one NPZ (train_images, train_labels, ..., as MedMNIST's). 10, 12
or 14 bits in a 16-bit file are shown over their own range, after the brightest value in training.
Tokens: the picture is resized to whole patches (their number near ``(size / S) ** 2``), normalised as the trunk was
trained, cut by the patch kernel; positions are resampled to the real grid; the summary token is the class token.
The mirror image (``mirrored``) is a row of its own, and pooling averages both.
Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929) for patches; Meta-Transformer section 3.2 (arXiv 2307.10802).
Errors: unreadable or truncated file, zero side, an aspect ratio beyond 16, an array that is not [h, w], [h, w, 1 or 3].
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import numpy as np

from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Stem, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Settings
from metatransformer.data.records import counted
from metatransformer.modalities._picture.boxes import picture_boxed
from metatransformer.modalities._picture.inside import picture_inside
from metatransformer.modalities._picture.masks import picture_dense
from metatransformer.modalities._picture.pixels import (
    LOOKED_AT,
    RULES,
    TILES,
    as_rgb,
    full_scale,
    thumbnail,
)
from metatransformer.modalities._picture.read import PICTURE_SUFFIXES, read_image
from metatransformer.modalities._picture.sets import picture_source
from metatransformer.modalities._picture.transform import DEFAULTS_FOR, PictureTransform, load_picture
from metatransformer.nn.image import PictureTokenizer

# CIFAR-10 (frozen focus-s14, 5 folds of the training part): a line on the summaries of the last four blocks .778, with
# mirror images .790; without them a kernel .785, on summaries and means .793. At 168 instead of 112 pixels a line .776;
# both sizes averaged, with mirror images, .798 at six times the cost.
DEFAULTS = {
    "tune": "head",
    "head.pool": "both",
    "head.read": [-4, -3, -2, -1],
    "input.mirrored": True,
    "head.centres": 4096,
}


@dataclass(frozen=True)
class ImageOptions(Settings):
    """``size``: side in pixels of a square picture with as many tokens; "auto" learns it from the training pictures.

    "auto" takes four times their median side, at least 112 and at most 224 pixels: small pictures gain from being
    enlarged, and more than 224 costs more than it brings on a laptop. ``mirrored``: the features of a picture are the
    mean over it and its mirror image, at twice the cost; not for letters and the like. ``flip``: training pictures may
    be mirrored; ``crop``: the smallest share of a side that a training crop keeps (1 = no cropping). ``tiles``: how
    many overlapping tiles of ``size`` lie across a square picture, for a class for every pixel; "auto": as many, up to
    4, as enlarge no training picture of median size.
    """

    size: int | Literal["auto"] = "auto"
    tiles: int | Literal["auto"] = 1
    mirrored: bool = False
    flip: bool = True
    crop: float = 0.8

    rules = (*RULES, TILES)


class ImageTransform(PictureTransform):
    """Resizes to whole patches.

    Learns ``side_``, the pixel side of a square picture, unless the options fix it; and ``top_``, the brightest value
    of 16-bit pictures, which hold 10 or 12 bits as often as 16.
    """

    def __init__(self, options: ImageOptions, stem: Stem) -> None:
        super().__init__(options, stem)
        self.top_ = 65535
        self._brighter: set[str] = set()

    def fit(self, views: Iterable[View]) -> None:
        """Learns side and brightest value from at most the first 256 pictures: their median is stable long before."""
        shapes, brightest = [], 0
        for view in islice(views, LOOKED_AT):
            pixels = view.inputs["pixels"]
            shapes.append(pixels.shape)
            if pixels.dtype == np.uint16 and pixels.size:
                brightest = max(brightest, int(pixels.max()))
        self.learn_side(shapes)
        self.top_ = full_scale(brightest)

    def __call__(self, view: View) -> View:
        """Returns ``pixels`` [h, w, 3] uint8 whose sides are whole patches."""
        raw = view.inputs["pixels"]
        if raw.dtype == np.uint16 and raw.size and raw.max() > self.top_:
            self._brighter.add(view.key)
        pixels = as_rgb(raw, where=view.key, top=self.top_)
        return view.with_inputs({"pixels": self.patches(pixels, where=view.key)})

    @property
    def notes(self) -> tuple[str, ...]:
        """How values of 16 bits were understood, where they use fewer; and tiles."""
        told = f"16-bit pictures are shown over 0..{self.top_}, after the brightest in training"
        return (*((told,) if self.top_ < 65535 else ()), *self.tiled)

    def doubts(self) -> tuple[str, ...]:
        """Returns how many pictures were brighter than those of training."""
        count, self._brighter = len(self._brighter), set()
        if not count:
            return ()
        return (f"{counted(count, 'picture')} with values beyond {self.top_}, the brightest in training: shown white",)

    def state(self) -> dict[str, Any]:
        """Returns what was learned."""
        return {**super().state(), "top": self.top_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the learned side and brightest value; models of before it was learned took all 16 bits."""
        self.side_, self.tile_ = int(state["side"]), int(state.get("tile", 0))
        self.top_ = int(state.get("top", 65535))


def tokenizer(options: ImageOptions, transform: Transform, width: int, stem: Stem) -> PictureTokenizer:
    """Returns the tokenizer of RGB pictures."""
    del transform
    return PictureTokenizer(name="image", channels=3, width=width, stem=stem, mirrored=options.mirrored)


def load(record: Record) -> Mapping[str, np.ndarray]:
    """Returns ``pixels`` as the file or the array has them."""
    return load_picture(record, lambda path: {"pixels": read_image(path)})


def features(view: View) -> np.ndarray:
    """Returns the 32 x 32 grey-and-colour thumbnail, flat: the raw pixels of the plain baseline."""
    return thumbnail(view.inputs["pixels"], side=32)


def draw(axes: Any, view: View) -> None:
    """Paints the picture."""
    axes.imshow(view.inputs["pixels"])
    axes.axis("off")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """Returns a noisy picture of odd size whose stripes run across (even label) or down (odd label)."""
    h, w = int(rng.integers(19, 32)), int(rng.integers(17, 30))
    wave = np.sin(np.arange(h)[:, None] * 0.9 + np.zeros(w))
    if label % 2:
        wave = np.sin(np.arange(w)[None, :] * 0.9 + np.zeros((h, 1)))
    noise = rng.normal(0, 12, size=(h, w, 3))
    return {"pixels": np.clip(128 + 90 * wave[:, :, None] + noise, 0, 255).astype(np.uint8)}


MODALITY = Modality(
    name="image",
    summary="photographs and other RGB or grey pictures of any size",
    source=picture_source(PICTURE_SUFFIXES),
    fields={"pixels": Field("h* w* 3", "uint8", unit="grey levels", summary="whole patches")},
    options=ImageOptions,
    load=load,
    transform=ImageTransform,
    tokenizer=tokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel, positions and class token of the trunk",
    units="8 or 16 bit per channel, or 0..1",
    defaults=DEFAULTS,
    defaults_for={"retrieve": {**DEFAULTS_FOR["retrieve"], "input.mirrored": False}},  # another letter, another logo
    before={"tiles": 1},
    dense=picture_dense(PICTURE_SUFFIXES, more={"input.mirrored": False}),
    boxed=picture_boxed(PICTURE_SUFFIXES, load=load, more={"input.mirrored": False}),
    inside=picture_inside(draw),
)
