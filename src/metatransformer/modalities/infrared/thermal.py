"""Infrared pictures as the values that the file holds: counts, or degrees where it is radiometric.

TIFF, whatever the file is called, goes through tifffile, which reads 16-bit colour, floating-point values, tiles and
every usual compression; all else through the reader of pictures.
Sources: TIFF 6.0 for the photometric interpretations.
Limits: a TIFF of several pages is refused, because no one of them is the picture.
A radiometric JPEG is read as the picture that it shows, not as the counts in its metadata.
"""

from pathlib import Path

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.modalities._picture.read import read_image, require_content
from metatransformer.modalities._picture.tiff import TIFF_STARTS, Tiff, read_tiff

_TYPES = ("uint8", "uint16", "int8", "int16", "float16", "float32", "float64")
_CHANNELS = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}


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
    with path.open("rb") as file:
        is_tiff = file.read(4) in TIFF_STARTS
    return _plain(read_tiff(path, extra="infrared"), path=path) if is_tiff else (read_image(path), None)


def _plain(tiff: Tiff, *, path: Path) -> tuple[np.ndarray, float | None]:
    """Returns grey or RGB values and that of no data; the inverted ones of MINISWHITE the other way round."""
    array, no_data = tiff.pixels, tiff.no_data
    if _CHANNELS.get(tiff.kind) != array.shape[2]:
        must, found = "be grey or RGB, without alpha or palette", f"{tiff.kind} with {array.shape[2]} channels"
        raise DataError(path, must=must, found=found, do="Save it as grey values.")
    if array.dtype.name not in _TYPES:
        raise DataError(path, must=f"hold numbers of type {', '.join(_TYPES)}", found=array.dtype.name)
    if tiff.kind == "MINISWHITE":
        if array.dtype.kind == "f":
            raise DataError(path, must="show small values dark", found="floating-point MINISWHITE")
        top = array.dtype.type(-1 if array.dtype.kind == "i" else 2**tiff.bits - 1)  # of signed ones: least and most
        array, no_data = top - array, None if no_data is None else int(top) - no_data
    return array.astype(np.float32 if array.dtype.kind == "f" else array.dtype.type), no_data
