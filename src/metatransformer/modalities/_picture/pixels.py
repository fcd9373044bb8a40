"""Pixel arrays on their way to patches: channels, size, crops. What all pictures share, in numpy.

Axes: h w pixels, c channels. Photographs are uint8; pictures of intensity are float32.
"""

from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
from PIL import Image

from metatransformer.core.errors import DataError
from metatransformer.core.settings import Rule

MAX_ASPECT = 16.0  # beyond it one side would have less than one patch at the default sizes
LOOKED_AT = 256  # pictures whose median size is taken: it is stable long before
ENLARGE = 4  # small pictures gain from it: no trunk has seen a patch that holds half a picture
CLIP = 6.0  # deviations: a dead pixel must not outweigh the picture
LEAST_SIDE, MOST_SIDE = 112, 224  # beyond 224 pixels costs more than it brings on a laptop
DEPTHS = (10, 12, 14, 16)  # bits in use of 16, by kinds of camera
LARGEST_SIDE = 4096  # attention over more patches than that fits into no machine's memory

# Of the settings that all pictures have.
RULES = (
    Rule(
        "size",
        f"be 'auto' or lie in 1..{LARGEST_SIDE}",
        lambda own: own.size == "auto" or 1 <= own.size <= LARGEST_SIDE,
    ),
    Rule("crop", "lie above 0, up to 1", lambda own: 0 < own.crop <= 1),
)
TILES = Rule("tiles", "be 'auto' or lie in 1..32", lambda own: own.tiles == "auto" or 1 <= own.tiles <= 32)


def typical_side(shapes: Iterable[tuple[int, ...]], *, default: int) -> int:
    """Returns four times the median side of the first 256 pictures, within 112..224 pixels.

    The side of a picture is the root of its area; ``default`` is returned where there is none.
    """
    firsts = islice(shapes, LOOKED_AT)
    sides = [(shape[0] * shape[1]) ** 0.5 for shape in firsts if len(shape) >= 2]  # others are refused later, by name
    if not sides:
        return default
    return int(np.clip(ENLARGE * np.median(sides), LEAST_SIDE, MOST_SIDE))


def require_picture(pixels: np.ndarray, *, where: str) -> np.ndarray:
    """Returns ``[h, w, 1 or 3]``; a missing channel axis is added.

    Raises:
        DataError: another shape, or a side of zero.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"{where}: pixels",
            must="have the shape [h, w], [h, w, 1] or [h, w, 3]",
            found=str(pixels.shape),
        )
    return pixels


def as_rgb(pixels: np.ndarray, *, where: str, top: int = 65535) -> np.ndarray:
    """Returns ``[h, w, 3]`` uint8 from grey or RGB of 8 or 16 bit, or floating-point of 0..1; of 16 bits ``top`` and
    beyond become 255.

    Raises:
        DataError: another shape or type, values outside their range, or a side of zero.
    """
    pixels = require_picture(pixels, where=where)
    if pixels.dtype == np.uint16:
        pixels = (np.minimum(pixels, top).astype(np.uint32) * 255 // top).astype(np.uint8)
    if pixels.dtype != np.uint8:
        pixels = np.rint(as_share(pixels, where=where) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def full_scale(brightest: int) -> int:
    """Returns the value that stands for white in 16-bit pictures whose brightest pixel is given: 1023, 4095, ..."""
    return next(2**bits - 1 for bits in DEPTHS if brightest < 2**bits) if brightest else 65535


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Returns ``[h, w]`` float32 from ``[h, w, 1 or 3]``; RGB weighted by ITU-R BT.601."""
    values = pixels.astype(np.float32)
    if values.shape[2] == 1:
        return values[:, :, 0]
    return values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def patch_grid(height: int, width: int, *, side: int, patch: int, where: str) -> tuple[int, int]:
    """Returns rows and columns of patches: about ``(side / patch) ** 2``, in the picture's aspect.

    Raises:
        DataError: one side is more than 16 times the other.
    """
    aspect = height / width
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        raise DataError(
            where,
            must=f"have an aspect ratio of at most {MAX_ASPECT:g}",
            found=f"{height} x {width} pixels",
            do="Cut it into pieces.",
        )
    root = max(side / patch, 1.0)
    return max(1, round(root * aspect**0.5)), max(1, round(root / aspect**0.5))


def to_patches(pixels: np.ndarray, *, side: int, patch: int, where: str) -> np.ndarray:
    """Returns the picture ``[h, w, c]`` resized to whole patches, in its own aspect.

    Raises:
        DataError: one side is more than 16 times the other.
    """
    h, w = pixels.shape[:2]
    rows, columns = patch_grid(h, w, side=side, patch=patch, where=where)
    return resize(pixels, size=(rows * patch, columns * patch))


def resize(
    pixels: np.ndarray,
    *,
    size: tuple[int, int],
    box: tuple[float, float, float, float] | None = None,
    smooth: bool = True,
) -> np.ndarray:
    """Returns ``[h', w', c]`` at ``size`` = (h', w'), antialiased.

    Takes uint8 with 3 channels, or float32 with any number. ``box`` is the part to take, as (left,
    top, right, bottom) in pixels. ``smooth`` False takes means instead of cubic splines.
    """
    method = Image.Resampling.BICUBIC if smooth else Image.Resampling.BOX
    shape = (size[1], size[0])
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(shape, method, box=box))
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(shape, method, box=box))
        for plane in np.moveaxis(pixels, -1, 0)
    ]
    # Cubic splines overshoot at edges; no pixel may leave the range of its picture.
    return np.clip(np.stack(planes, axis=-1), pixels.min(), pixels.max())


def random_crop(pixels: np.ndarray, rng: np.random.Generator, *, least: float) -> np.ndarray:
    """Returns a part of ``least`` to 1 of each side, at a random place, resized back."""
    h, w = pixels.shape[:2]
    keep = rng.uniform(least, 1.0)
    top, left = rng.uniform(0, 1 - keep, size=2)
    box = (left * w, top * h, (left + keep) * w, (top + keep) * h)
    return resize(pixels, size=(h, w), box=box)


def random_mirror(pixels: np.ndarray, rng: np.random.Generator, *, axes: Sequence[int]) -> np.ndarray:
    """Returns the picture mirrored along each of ``axes`` (0 = upside down, 1 = left to right)
    half of the time.
    """
    for axis in axes:
        if rng.random() < 0.5:
            pixels = np.flip(pixels, axis)
    return np.ascontiguousarray(pixels)


def thumbnail(pixels: np.ndarray, *, side: int) -> np.ndarray:
    """Returns the picture at ``side`` x ``side``, flat, float32 of 0..1: for plain baselines."""
    small = resize(pixels, size=(side, side), smooth=False)
    values = small.astype(np.float32).reshape(-1)
    return values / 255 if pixels.dtype == np.uint8 else values


def as_share(pixels: np.ndarray, *, where: str) -> np.ndarray:
    """Returns ``[h, w, 1 or 3]`` float32 of 0..1: whole numbers as a share of their full scale.

    Raises:
        DataError: another shape or type, or floating-point values that are not within 0..1.
    """
    pixels = require_picture(pixels, where=where)
    if pixels.dtype in (np.uint8, np.uint16):
        return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)
    if pixels.dtype.kind != "f":
        raise DataError(
            f"{where}: pixels",
            must="be uint8, uint16, or floating-point values of 0..1",
            found=str(pixels.dtype),
            do="Scale them to 0..1 and convert them with astype('float32').",
        )
    if not ((pixels >= 0) & (pixels <= 1)).all():
        gaps, must = int(np.isnan(pixels).sum()), "be finite and lie in 0..1 where they are floating-point"
        found = f"{gaps:,} NaN" if gaps else f"values from {pixels.min():g} to {pixels.max():g}"
        raise DataError(f"{where}: pixels", must=must, found=found, do="Divide them by their full scale; fill NaN.")
    return pixels.astype(np.float32)


def is_number(values: np.ndarray, number: float) -> np.ndarray:
    """Returns which values are ``number``; floating-point ones to five digits, for files write it with few decimals."""
    if values.dtype.kind != "f" or not np.isfinite(number):
        return values == number
    most = np.finfo(values.dtype).max
    low, high = np.clip(sorted((number * (1 - 1e-5), number * (1 + 1e-5))), -most, most).tolist()
    return (values >= low) & (values <= high)


def spread(values: np.ndarray) -> tuple[float, float]:
    """Returns mean and deviation; values that are all the same get the deviation 1."""
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return mean, std if std > 1e-6 * max(1.0, abs(mean)) else 1.0


def standardise(values: np.ndarray, *, mean: float, std: float) -> np.ndarray:
    """Returns float32 values in deviations from ``mean``, clipped to 6."""
    return np.clip((values - mean) / std, -CLIP, CLIP).astype(np.float32)
