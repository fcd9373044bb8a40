"""X-ray: one channel of light, from DICOM or ordinary pictures, by the image tokenizer.

File: DICOM (.dcm, .dicom, .ima, or no ending as archives export it, with or without the preamble; modality and VOI
tables applied, MONOCHROME1 inverted, of several frames the middle one), or a picture as the image modality takes it;
colour is read as its luminance; or a data set in one NPZ (train_images, train_labels, ..., as MedMNIST's). In memory:
an array [h, w] of uint8, uint16, or floating-point values of 0 (black) to 1 (white).
Tokens: each picture is standardised by itself or by the trunk's pixel statistics (``window``) and resized to whole
patches in its own aspect; the trunk's patch kernel summed over RGB; positions resampled to the real grid; the summary
token starts as the class token. With ``window=full`` a grey picture gets the tokens that the image tokenizer would give
it.
Sources: Meta-Transformer section 3.2 (arXiv 2307.10802): X-rays by the image tokenizer; DICOM PS3.3 C.7.6.3, C.11.1,
C.11.2 for what the stored values mean.
Errors: no DICOM, no pixels, damaged or empty file, a window without width, values outside 0..1, an aspect ratio beyond
16.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Stem, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Settings
from metatransformer.data.folder import accepts
from metatransformer.data.records import counted
from metatransformer.modalities._picture.boxes import picture_boxed
from metatransformer.modalities._picture.inside import picture_inside
from metatransformer.modalities._picture.masks import picture_dense
from metatransformer.modalities._picture.pixels import (
    RULES,
    TILES,
    as_share,
    luminance,
    spread,
    standardise,
    thumbnail,
)
from metatransformer.modalities._picture.read import PICTURE_SUFFIXES, read_image
from metatransformer.modalities._picture.sets import picture_source
from metatransformer.modalities._picture.transform import DEFAULTS_FOR, PictureTransform, load_picture
from metatransformer.modalities.xray.dicom import read_dicom
from metatransformer.nn.image import PictureTokenizer, level_statistics, level_stem

DICOM = (".dcm", ".dicom", ".ima", "")
SUFFIXES = (*DICOM, *PICTURE_SUFFIXES)

# Measured on chest X-rays (5 folds of 922 training pictures, patients apart, frozen focus-s14):
# balanced accuracy .885 read after block 6 of 12, .884 after 6 and 8, and without class weights
# .873, by likelihood; .867 to .881 by squares; by a kernel .881 (gamma .35), .884 (.8), .859 (2).
DEFAULTS = {
    "tune": "head",
    "head.pool": "grid",
    "head.read": (0.5,),
    "head.centres": 4096,
    "head.gamma": 0.8,
}


@dataclass(frozen=True)
class XrayOptions(Settings):
    """``size``: side in pixels of a square picture with as many tokens; "auto" learns it from the
    training pictures (four times their median side, within 112..224).

    ``window``: "picture" standardises each picture by its own mean and deviation, which brings
    exposures, and 12-bit values in 16-bit files, together; "full" takes the values as the file
    shows them. ``flip``: training pictures may be mirrored left to right (off: a heart has its
    side); ``crop``: the smallest share of a side that a training crop keeps. ``tiles``: as for
    photographs.
    """

    size: int | Literal["auto"] = "auto"
    tiles: int | Literal["auto"] = 1
    window: Literal["picture", "full"] = "picture"
    flip: bool = False
    crop: float = 0.8

    rules = (*RULES, TILES)


class XrayTransform(PictureTransform):
    """Windows and resizes to whole patches. Learns ``side_`` unless the options fix it."""

    def __init__(self, options: XrayOptions, stem: Stem) -> None:
        super().__init__(options, stem)
        self.level = level_statistics(stem)
        self._films: set[str] = set()

    def fit(self, views: Iterable[View]) -> None:
        """Learns the side from the first 256 pictures."""
        if "auto" in (self.options.size, self.options.tiles):
            self.learn_side(view.inputs["pixels"].shape for view in views)
        else:
            self.learn_side(())

    @property
    def notes(self) -> tuple[str, ...]:
        """That pictures are read in tiles."""
        return self.tiled

    def __call__(self, view: View) -> View:
        """Returns ``pixels`` [h, w, 1] float32 in deviations, whose sides are whole patches."""
        if "frames" in view.inputs:
            self._films.add(view.key)
        light = luminance(as_share(view.inputs["pixels"], where=view.key))
        mean, std = spread(light) if self.options.window == "picture" else self.level
        light = standardise(light, mean=mean, std=std)[:, :, None]
        return view.with_inputs({"pixels": self.patches(light, where=view.key)})

    def doubts(self) -> tuple[str, ...]:
        """Returns how many files held several pictures."""
        count, self._films = len(self._films), set()
        return (f"{counted(count, 'file')} with several frames, of which the middle one was taken",) if count else ()


def tokenizer(options: XrayOptions, transform: Transform, width: int, stem: Stem) -> PictureTokenizer:
    """Returns the tokenizer of pictures with one channel."""
    del options, transform
    return PictureTokenizer(name="xray", channels=1, width=width, stem=level_stem(stem))


def load(record: Record) -> Mapping[str, np.ndarray]:
    """Returns ``pixels``: of a DICOM file what it shows as 0..1, with the number of its ``frames`` where there are
    several; else as the file or array has them.
    """
    return load_picture(record, _read)


def _read(path: Path) -> dict[str, np.ndarray]:
    if accepts(path.name, suffixes=PICTURE_SUFFIXES):
        return {"pixels": read_image(path)}
    pixels, frames = read_dicom(path)
    return {"pixels": pixels} if frames == 1 else {"pixels": pixels, "frames": np.array(frames)}


def features(view: View) -> np.ndarray:
    """Returns the 48 x 48 thumbnail of a picture as loaded, flat: exposure and all."""
    light = luminance(as_share(view.inputs["pixels"], where=view.key))
    return thumbnail(light[:, :, None], side=48)


def draw(axes: Any, view: View) -> None:
    """Paints the picture as light on black."""
    axes.imshow(view.inputs["pixels"][:, :, 0], cmap="gray")
    axes.axis("off")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """Returns a noisy 12-bit "chest": two dark fields, one of them with a bright spot (odd label)."""
    h, w = int(rng.integers(29, 42)), int(rng.integers(27, 40))
    y, x = np.mgrid[0:h, 0:w] / np.array([h, w])[:, None, None]
    light = np.full((h, w), 0.8)
    for centre in (0.3, 0.7):
        light[((x - centre) / 0.16) ** 2 + ((y - 0.5) / 0.35) ** 2 < 1] = 0.25
    if label % 2:
        light[(x - 0.7) ** 2 + (y - 0.6) ** 2 < 0.1**2] = 0.9
    light += rng.normal(0, 0.02, size=(h, w))
    return {"pixels": (np.clip(light, 0, 1) * 4095).astype(np.uint16)}


MODALITY = Modality(
    name="xray",
    title="X-ray",
    summary="radiographs, from DICOM or ordinary pictures",
    source=picture_source(SUFFIXES),
    fields={"pixels": Field("h* w* 1", "float32", unit="deviations", summary="whole patches")},
    options=XrayOptions,
    load=load,
    transform=XrayTransform,
    tokenizer=tokenizer,
    features=features,
    raw_features=True,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel (summed over RGB), positions and class token of the trunk",
    units="DICOM values through their tables, or 8 or 16 bits; 0 is black",
    metric="balanced_accuracy",
    defaults=DEFAULTS,
    defaults_for=DEFAULTS_FOR,
    before={"tiles": 1},
    dense=picture_dense(SUFFIXES),
    boxed=picture_boxed(SUFFIXES, load=load),
    inside=picture_inside(draw, raw=True),
    requires=("pydicom", "pylibjpeg"),
    extra="xray",
)
