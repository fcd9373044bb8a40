"""Pictures -> the inputs of the graph, as the model was trained: numpy and Pillow.

``pixels`` [h, w, 3] uint8, RGB: the picture upright, transparency on white, resized (bicubic, antialiased) to whole
patches in its own aspect, about ``(side / patch) ** 2`` of them. ``plain``, where the head reads it: the 32 x 32
thumbnail, flat, 0..1. Pictures of 16 bits are shown over 0..``top``, the brightest that training saw.
"""

import numpy as np
from PIL import Image, ImageOps


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    pixels = to_patches(as_rgb(read(path), settings["top"]), settings["side"], settings["patch"])
    yield str(path), {"pixels": pixels, **({"plain": thumbnail(pixels)} if settings["plain"] else {})}


def read(path):
    """Returns the picture [h, w] or [h, w, 3], uint8, or grey of 16 bits."""
    with Image.open(path) as file:
        if file.format == "PNG" and file.tile and "16B" in str(file.tile[0][3]) and "RGB" in str(file.tile[0][3]):
            raise ValueError("must have 8 bits a colour; found 16, which Pillow would cut. Save it with 8.")
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith("I") or image.mode == "F":
            return np.array(image)
        grey = image.mode in ("1", "L", "LA", "La")
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
        return np.array(image.convert("L" if grey else "RGB"))


def as_rgb(pixels, top):
    """Returns [h, w, 3] uint8; of whole numbers beyond 8 bits ``top`` and more become 255, of others 0..1 is 0..255."""
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    if pixels.dtype.kind in "iu" and pixels.dtype != np.uint8:
        pixels = (np.clip(pixels, 0, top).astype(np.uint32) * 255 // top).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        pixels = np.rint(pixels.astype(np.float32) * 255).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def to_patches(pixels, side, patch):
    """Returns the picture [h, w, c] resized to whole patches, in its own aspect."""
    aspect = pixels.shape[0] / pixels.shape[1]
    if not 1 / 16 <= aspect <= 16:
        raise ValueError(f"a picture must have an aspect ratio of at most 16; found {pixels.shape[:2]}")
    root = max(side / patch, 1.0)
    rows, columns = max(1, round(root * aspect**0.5)), max(1, round(root / aspect**0.5))
    return resized(pixels, (columns * patch, rows * patch), Image.Resampling.BICUBIC)


def resized(pixels, size, method):
    """Returns the picture at ``size`` = (width, height): uint8 of 3 channels, or float32, each channel by itself."""
    if pixels.dtype == np.uint8:
        return np.asarray(Image.fromarray(pixels).resize(size, method))
    planes = [Image.fromarray(np.ascontiguousarray(plane)).resize(size, method) for plane in np.moveaxis(pixels, -1, 0)]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], axis=-1), pixels.min(), pixels.max())


def thumbnail(pixels, side=32):
    """Returns the picture at ``side`` x ``side``, flat, float32."""
    small = resized(pixels, (side, side), Image.Resampling.BOX).astype(np.float32).reshape(-1)
    return small / 255 if pixels.dtype == np.uint8 else small
