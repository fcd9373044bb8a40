"""Infrared: counts or degrees C, grey or false colour, from 24 x 40 pixels up, by the image tokenizer.

File: PNG, JPEG, BMP, TIFF of 8 or 16 bits, 1 or 3 channels; TIFF of floating-point degrees C (``unit=celsius``; whole
numbers, with or without a sign, become degrees by ``scale`` and ``offset``). In memory: an array [h, w], [h, w, 1] or
[h, w, 3] of whole numbers of 8 or 16 bits or of floating-point numbers.
Pixels without a measurement (NaN, or the value that GDAL's tag names) count as the mean of their picture.
Tokens: each picture is standardised, by itself or by the training pictures (``window``), resized to whole patches in
its own aspect; the trunk's patch kernel, summed over RGB where there is one channel; positions resampled to the real
grid; the summary token starts as the class token.
Sources: Meta-Transformer section 3.2 (arXiv 2307.10802): infrared by the image tokenizer.
Errors: floating-point values without a unit, whole numbers without a scale, degrees that no body has, colour where
training saw grey, 8 beside 16 bits under one window, damaged or empty file, several pages, no pixel that was measured,
an aspect ratio beyond 16.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metatransformer.core.errors import DataError, NotFittedError, UsageError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Stem, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Settings
from metatransformer.data.records import counted
from metatransformer.modalities._picture.boxes import picture_boxed
from metatransformer.modalities._picture.inside import picture_inside
from metatransformer.modalities._picture.masks import picture_dense
from metatransformer.modalities._picture.pixels import (
    RULES,
    TILES,
    is_number,
    require_picture,
    spread,
    standardise,
    thumbnail,
)
from metatransformer.modalities._picture.sets import picture_source
from metatransformer.modalities._picture.transform import DEFAULTS_FOR, PictureTransform, load_picture
from metatransformer.modalities.infrared.thermal import read_thermal
from metatransformer.nn.image import PictureTokenizer, level_stem

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
COLDEST, HOTTEST = -273.15, 3000.0  # degrees C: absolute zero, and beyond every thermal camera
_GAPS = "pictures with pixels without a measurement (NaN or no data): these count as the mean of their picture"
LOOKED_AT = 1024  # pixels of each training picture whose mean and deviation are learned

# Measured on solar modules (validation part of 3,899 training pictures, balanced least squares on
# frozen focus-s14): balanced accuracy .633 on the grid of block 6 of 12, .623 on those of blocks 4,
# 6 and 8, .574 on that of block 4. On a third of the pictures the window by mean and deviation
# gave .561, by percentiles .541, none .510 (blocks 4, 6, 8).
# A kernel instead of a linear head, block 6: .633 -> .653 (gamma .25) and .658 (.5); by three folds
# .618 -> .650 (.35) and .656 (.8).
DEFAULTS = {
    "tune": "head",
    "head.pool": "grid",
    "head.read": (0.5,),
    "head.centres": 4096,
    "head.gamma": 0.8,
}


@dataclass(frozen=True)
class InfraredOptions(Settings):
    """``size``: side in pixels of a square picture with as many tokens; "auto" learns it from the
    training pictures (four times their median side, within 112..224).

    ``unit``: what the values mean. With "celsius" floating-point values are degrees already, and
    whole numbers become degrees as value * ``scale`` + ``offset`` (``scale`` 0 = not stated).
    ``window``: "picture" standardises each picture by its own mean and deviation; "training" by
    those of all training pictures, which keeps how hot one is against another.
    ``flip``, ``upside_down``: training pictures may be mirrored left to right, top to bottom;
    ``crop``: the smallest share of a side that a training crop keeps. ``tiles``: as for photographs.
    """

    size: int | Literal["auto"] = "auto"
    tiles: int | Literal["auto"] = 1
    unit: Literal["counts", "celsius"] = "counts"
    scale: float = 0.0
    offset: float = 0.0
    window: Literal["picture", "training"] = "picture"
    flip: bool = True
    upside_down: bool = True
    crop: float = 0.8

    rules = (*RULES, TILES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit == "counts" and (self.scale or self.offset):
            raise UsageError(
                "input.scale / input.offset",
                must="stay 0 where input.unit=counts",
                found=f"{self.scale:g} / {self.offset:g}",
                do="Set input.unit=celsius, or leave them out.",
            )


class InfraredTransform(PictureTransform):
    """Unit, standardisation, whole patches.

    Learns ``side_``, ``channels_`` (1 where every training picture is grey, else 3) and, for
    ``window=training``, ``mean_``, ``std_`` and the ``type_`` of number that they hold for.
    """

    def __init__(self, options: InfraredOptions, stem: Stem) -> None:
        super().__init__(options, stem)
        self.channels_ = 3  # before any training: a grey picture fits as well, three times over
        self.mean_, self.std_, self.type_ = 0.0, 1.0, ""
        self._seen, self._with_gaps = 0, 0
        self._doubted: set[str] = set()

    def fit(self, views: Iterable[View]) -> None:
        """Learns channels, side and window.

        Raises:
            DataError: ``window=training`` over numbers of several types.
        """
        learned = self.options.window == "training"
        self.channels_, self.type_, self._seen, self._with_gaps = 1, "", 0, 0
        shapes, values = [], []
        for view in views:
            pixels = _pixels(view)
            self._seen, self._with_gaps = self._seen + 1, self._with_gaps + bool(_gaps(view).any())
            self.channels_ = max(self.channels_, pixels.shape[2])
            shapes.append(pixels.shape)
            if learned:
                self.type_ = self.type_ or self._type(view)
                self._require_type(view)
                flat = self._values(view, channels=3)[~_gaps(view)].reshape(-1)
                values.append(flat[:: max(1, flat.size // LOOKED_AT)])
        self.learn_side(shapes)
        if values:
            self.mean_, self.std_ = spread(np.concatenate(values))

    def __call__(self, view: View) -> View:
        """Returns ``pixels`` [h, w, c] float32 in deviations, whose sides are whole patches.

        Raises:
            DataError: the values do not fit unit, channels or window.
            NotFittedError: ``window=training`` before ``fit``.
        """
        pixels, gaps = self._values(view, channels=self.channels_), _gaps(view)
        if gaps.any():
            self._doubted.add(view.key)
            pixels[gaps] = pixels[~gaps].mean(axis=0)
        if self.options.window == "picture":
            mean, std = spread(pixels[~gaps])
        else:
            self._require_type(view)
            mean, std = self.mean_, self.std_
        standard = standardise(pixels, mean=mean, std=std)
        pixels = self.patches(standard, where=view.key)
        shape = (*pixels.shape[:2], self.channels_)
        return view.with_inputs({"pixels": np.ascontiguousarray(np.broadcast_to(pixels, shape))})

    def _values(self, view: View, *, channels: int) -> np.ndarray:
        """Returns [h, w, 1 or 3] in the unit, at most ``channels``; what gaps hold has no meaning."""
        pixels, there = _pixels(view), ~_gaps(view)
        if not there.any():
            found = "none, only NaN or the value for no data"
            raise DataError(view.key, must="hold a pixel that was measured", found=found, do="Leave it out.")
        if pixels.shape[2] > channels:
            raise DataError(
                view.key,
                must="have one channel, as every training picture has",
                found="3 that differ (false colour?)",
                do="Export it as grey values.",
            )
        if self.options.unit == "counts":
            return _counts(pixels, where=view.key)
        return _degrees(pixels, self.options, there=there, where=view.key)

    def _type(self, view: View) -> str:
        celsius = self.options.unit == "celsius"
        return "degrees C" if celsius else view.inputs["pixels"].dtype.name

    def _require_type(self, view: View) -> None:
        """Refuses numbers of another type than the window was learned on: their scale is another."""
        if not self.type_:
            raise NotFittedError(
                "infrared transform",
                must="have learned its window",
                found="none",
                do="Fit first, or set input.window=picture.",
            )
        if (kind := self._type(view)) != self.type_:
            raise DataError(
                view.key,
                must=f"hold {self.type_}, as all pictures under one window",
                found=kind,
                do="Convert it, or set input.window=picture.",
            )

    @property
    def mirrors(self) -> tuple[int, ...]:
        """The axes along which a training picture may be mirrored: 0 = upside down, 1 = left to right."""
        return (0,) * self.options.upside_down + (1,) * self.options.flip

    @property
    def notes(self) -> tuple[str, ...]:
        """How the pictures were understood."""
        kind = "grey" if self.channels_ == 1 else "colour"
        text = f"{kind} pictures, side {self.side_}"
        if self.type_:
            text += f", window {self.mean_:.4g} +- {self.std_:.4g} ({self.type_})"
        gaps = (f"{self._with_gaps} of {self._seen} {_GAPS}",) if self._with_gaps else ()
        return (text, *gaps, *self.tiled)

    def doubts(self) -> tuple[str, ...]:
        """Returns how many pictures had gaps."""
        count, self._doubted = len(self._doubted), set()
        return (f"{counted(count, 'picture')} {_GAPS.partition(' ')[2]}",) if count else ()

    def state(self) -> dict[str, Any]:
        """Returns side, channels and window."""
        window = {"mean": self.mean_, "std": self.std_, "type": self.type_}
        return {**super().state(), "channels": self.channels_, **window}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back side, channels and window."""
        super().load_state(state)
        self.channels_ = int(state["channels"])
        self.mean_, self.std_ = float(state["mean"]), float(state["std"])
        self.type_ = str(state["type"])


def _pixels(view: View) -> np.ndarray:
    """Returns [h, w, 1 or 3] as read; three channels that are the same become one."""
    pixels = require_picture(view.inputs["pixels"], where=view.key)
    if pixels.shape[2] == 3 and (pixels == pixels[:, :, :1]).all():
        return pixels[:, :, :1]
    return pixels


def _gaps(view: View) -> np.ndarray:
    """Returns which pixels [h, w] hold no measurement: NaN, or the value that the file names."""
    pixels, no_data = require_picture(view.inputs["pixels"], where=view.key), view.inputs.get("no_data")
    gaps = np.isnan(pixels) if pixels.dtype.kind == "f" else np.zeros(pixels.shape, dtype=bool)
    gaps = gaps if no_data is None else gaps | is_number(pixels, float(no_data))
    return np.asarray(gaps.any(axis=2))


def _counts(pixels: np.ndarray, *, where: str) -> np.ndarray:
    if pixels.dtype.kind not in "iu" or pixels.dtype.itemsize > 2:
        raise DataError(
            f"{where}: pixels",
            must="be counts, whole numbers of 8 or 16 bits",
            found=str(pixels.dtype),
            do="Set input.unit=celsius where the values are degrees C.",
        )
    return pixels.astype(np.float32)


def _degrees(pixels: np.ndarray, options: InfraredOptions, *, there: np.ndarray, where: str) -> np.ndarray:
    """Returns degrees C; ``there`` [h, w] says which pixels were measured and must be possible."""
    if pixels.shape[2] != 1:
        raise DataError(
            f"{where}: pixels",
            must="have one channel where input.unit=celsius",
            found="3 that differ (false colour?)",
            do="Export the temperatures as grey values.",
        )
    if pixels.dtype.kind in "iu":
        if not options.scale:
            raise DataError(
                f"{where}: pixels",
                must="be floating-point degrees C, or have their scale stated",
                found=f"{pixels.dtype} and input.scale=0",
                do="Set input.scale and input.offset as the camera's manual says.",
            )
        pixels = pixels * options.scale + options.offset
    low, high = pixels[there].min(), pixels[there].max()
    if not COLDEST <= low <= high <= HOTTEST:
        raise DataError(
            f"{where}: pixels",
            must=f"be finite and lie in {COLDEST:g}..{HOTTEST:g} degrees C",
            found=f"values from {low:g} to {high:g}",
            do="Check input.unit, input.scale and input.offset; a value for no data belongs into the tag GDAL_NODATA.",
        )
    return pixels.astype(np.float32)


def tokenizer(options: InfraredOptions, transform: Transform, width: int, stem: Stem) -> PictureTokenizer:
    """Returns the tokenizer of standardised pictures, with as many channels as training had."""
    del options
    assert isinstance(transform, InfraredTransform)
    return PictureTokenizer(name="infrared", channels=transform.channels_, width=width, stem=level_stem(stem))


def load(record: Record) -> Mapping[str, np.ndarray]:
    """Returns ``pixels`` as the file or the array has them, and the value ``no_data`` where a file names one."""
    return load_picture(record, _read)


def _read(path: Path) -> dict[str, np.ndarray]:
    pixels, no_data = read_thermal(path)
    return {"pixels": pixels} if no_data is None else {"pixels": pixels, "no_data": np.array(no_data)}


def features(view: View) -> np.ndarray:
    """Returns the 32 x 32 thumbnail, flat: the plain baseline's vector."""
    return thumbnail(view.inputs["pixels"], side=32)


def draw(axes: Any, view: View) -> None:
    """Paints the picture, hot bright, over its own range."""
    pixels = view.inputs["pixels"]
    grey = pixels.mean(axis=2)
    axes.imshow(grey, cmap="inferno")
    axes.axis("off")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """Returns noisy 8-bit counts of a module with one hot cell, above (even) or below (odd label)."""
    h, w = int(rng.integers(24, 41)), int(rng.integers(22, 37))
    counts = 110 + np.linspace(0, 20, w) + rng.normal(0, 4, size=(h, w))
    top, left = h // 8 + (h // 2) * (label % 2), int(rng.integers(2, w - 10))
    counts[top : top + h // 4, left : left + 7] += 70
    return {"pixels": np.clip(counts, 0, 255).astype(np.uint8)[:, :, None]}


MODALITY = Modality(
    name="infrared",
    summary="thermal and near-infrared pictures, counts or degrees C",
    source=picture_source(SUFFIXES),
    fields={"pixels": Field("h* w* c", "float32", unit="deviations", summary="whole patches, c 1 or 3")},
    options=InfraredOptions,
    load=load,
    transform=InfraredTransform,
    tokenizer=tokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel (summed over RGB where grey), positions and class token of the trunk",
    units="counts of 8 or 16 bits, or degrees C",
    metric="balanced_accuracy",
    defaults=DEFAULTS,
    defaults_for=DEFAULTS_FOR,
    before={"tiles": 1},
    dense=picture_dense(SUFFIXES),
    boxed=picture_boxed(SUFFIXES, load=load),
    inside=picture_inside(draw),
    requires=("tifffile",),
    extra="infrared",
)
