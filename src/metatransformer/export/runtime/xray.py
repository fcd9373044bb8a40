"""X-rays as ordinary pictures (PNG, JPEG) -> the inputs of the graph, as the model was trained: numpy and Pillow.

``pixels`` [h, w, 1] float32: light as a share of the full scale of 8 or 16 bits, in deviations, by the picture's own
mean and deviation or by the trunk's (``mean``, ``std``), at most 6; resized to whole patches in its own aspect.
``plain``, where the head reads it: the 48 x 48 thumbnail of the light, flat. DICOM takes its library: turn it into
PNG of 16 bits first.
"""

import numpy as np

from metatransformer.export.runtime.image import read, thumbnail, to_patches


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    light = luminance(share(read(path)))
    mean, std = spread(light) if settings["window"] == "picture" else (settings["mean"], settings["std"])
    standard = np.clip((light - mean) / std, -6, 6).astype(np.float32)[:, :, None]
    plain = {"plain": thumbnail(light[:, :, None], side=48)} if settings["plain"] else {}
    yield str(path), {"pixels": to_patches(standard, settings["side"], settings["patch"]), **plain}


def share(pixels):
    """Returns [h, w, c] float32 of 0..1."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype.kind in "iu":
        return pixels.astype(np.float32) / np.float32(255 if pixels.dtype == np.uint8 else 65535)
    return pixels.astype(np.float32)


def luminance(pixels):
    """Returns [h, w]; RGB weighted by ITU-R BT.601."""
    if pixels.shape[2] == 1:
        return pixels[:, :, 0]
    return pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def spread(values):
    """Returns mean and deviation; values that are all the same get the deviation 1."""
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return mean, std if std > 1e-6 * max(1.0, abs(mean)) else 1.0
