"""Infrared pictures as the values that the file holds: counts, or degrees where it is radiometric.

TIFF goes through tifffile, which reads 16-bit colour, floating-point values, tiles and every usual compression; PNG of
16-bit colour through imagecodecs; all else through the reader of pictures.
Sources: TIFF 6.0 for the photometric interpretations; RFC 2083 (PNG) for the header.
Limits: a TIFF of several pages is refused, because no one of them is the picture.
A radiometric JPEG is read as the picture that it shows, not as the counts in its metadata.
"""

from pathlib import Path

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.modalities._picture.read import FORMATS, open_picture, read_image, require_content
from metatransformer.modalities._picture.tiff import TIFF_SUFFIXES, Tiff, read_tiff, upright

_TYPES = ("uint8", "uint16", "int8", "int16", "float16", "float32", "float64")
_CHANNELS = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}
_COLOUR16 = "RGB;16B"  # as Pillow calls a PNG that it would cut to 8 bits
_ORIENTATION = 274  # of EXIF


def read_thermal(path: str | Path) -> tuple[np.ndarray, float | None]:
    """Returns ``[h, w, 1 or 3]`` of whole numbers or float32, as stored, small is cold; and the value that stands for
    "not measured", None where the file states none (NaN always does).

    Raises:
        DataError: no such file, no picture, a damaged one, several pages, a palette, an alpha channel, another type of
            number.
        MissingDependencyError: tifffile, or a decoder that it needs, is not installed.
    """
    path = Path(path)
    require_content(path)
    if path.suffix.lower() in TIFF_SUFFIXES:
        tiff = read_tiff(path, extra="infrared")
        return _plain(tiff, path=path), tiff.no_data
    with path.open("rb") as file:
        image = open_picture(file, path=path, formats=FORMATS)
        if image is None or not image.tile or image.tile[0][3] != _COLOUR16:
            return read_image(path), None
        with foreign(path, "Pillow", must="be a whole picture", do="Remove it or copy it again."):
            turned = image.getexif().get(_ORIENTATION)
    return _read_colour16(path, turned=turned), None


def _read_colour16(path: Path, *, turned: int | None) -> np.ndarray:
    """Returns a PNG of 16-bit colour; ``turned`` is its orientation as EXIF numbers it."""
    try:
        from imagecodecs import png_decode
    except ImportError as error:
        purpose = f"reading {path}: colour of 16 bits"
        raise MissingDependencyError("imagecodecs", extra="infrared", purpose=purpose) from error
    with foreign(path, "libpng", must="be a whole picture", do="Remove it or copy it again."):
        pixels = png_decode(path.read_bytes())
    return upright(pixels, turned)


def _plain(tiff: Tiff, *, path: Path) -> np.ndarray:
    """Returns grey or RGB values; the inverted ones of MINISWHITE the other way round."""
    array = tiff.pixels
    if _CHANNELS.get(tiff.kind) != array.shape[2]:
        must, found = "be grey or RGB, without alpha or palette", f"{tiff.kind} with {array.shape[2]} channels"
        raise DataError(path, must=must, found=found, do="Save it as grey values.")
    if array.dtype.name not in _TYPES:
        raise DataError(path, must=f"hold numbers of type {', '.join(_TYPES)}", found=array.dtype.name)
    if tiff.kind == "MINISWHITE":
        if array.dtype.kind == "f":
            raise DataError(path, must="show small values dark", found="floating-point MINISWHITE")
        ends = np.iinfo(array.dtype)
        array = ends.min + ends.max - array
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(array.dtype.type)
