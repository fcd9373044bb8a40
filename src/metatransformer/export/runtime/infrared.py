"""Infrared pictures (PNG, JPEG, BMP; counts of 8 or 16 bits) -> the inputs of the graph: numpy and Pillow.

``pixels`` [h, w, c] float32, c = ``channels``: values in deviations, by the picture's own mean and deviation or by
those of training, at most 6; resized to whole patches in its own aspect. With ``unit`` celsius, degrees C = value *
``scale`` + ``offset``. ``plain``, where the head reads it: the 32 x 32 thumbnail of these, flat. TIFF that Pillow
reads is fine.
"""

import numpy as np

from metatransformer.export.runtime.image import read, thumbnail, to_patches
from metatransformer.export.runtime.xray import spread


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    values = read(path)
    values = values[:, :, None] if values.ndim == 2 else values
    if values.shape[2] == 3 and (values == values[:, :, :1]).all():
        values = values[:, :, :1]
    if values.shape[2] > settings["channels"]:
        raise ValueError("must have one channel, as every training picture; found 3 that differ")
    if settings["unit"] == "celsius" and values.dtype.kind in "iu":
        values = values * settings["scale"] + settings["offset"]
    values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("must hold a measurement in every pixel; found NaN")
    mean, std = spread(values) if settings["window"] == "picture" else (settings["mean"], settings["std"])
    standard = np.clip((values - mean) / std, -6, 6).astype(np.float32)
    pixels = to_patches(standard, settings["side"], settings["patch"])
    pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], settings["channels"])))
    yield str(path), {"pixels": pixels, **({"plain": thumbnail(pixels)} if settings["plain"] else {})}
