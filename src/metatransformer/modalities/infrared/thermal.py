"""Infrared pictures as the values that the file holds: counts, or degrees where it is radiometric.

TIFF goes through tifffile, which reads 16-bit colour, floating-point values, tiles and every usual
compression; all else goes through the reader of pictures.
Sources: TIFF 6.0 for the photometric interpretations.
Limits: a TIFF of several pages is refused, because no one of them is the picture.
A radiometric JPEG is read as the picture that it shows, not as the counts in its metadata.
"""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.modalities._picture.read import read_image

TIFF = (".tif", ".tiff")
# What damaged files make tifffile and its decoders raise, besides TiffFileError (a ValueError).
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_TYPES = ("uint8", "uint16", "float32", "float64")


def read_thermal(path: str | Path) -> np.ndarray:
    """Returns ``[h, w, 1 or 3]`` of uint8, uint16 or float32, as stored; small is cold.

    Raises:
        DataError: no such file, no picture, a damaged one, several pages, a palette, an alpha
            channel, another type of number.
        MissingDependencyError: tifffile, or a decoder that it needs, is not installed.
    """
    path = Path(path)
    if not path.name.lower().endswith(TIFF) or not path.is_file() or path.stat().st_size == 0:
        return read_image(path)
    tifffile = _tifffile()
    try:
        with tifffile.TiffFile(path) as file:
            _require_one_page(file, path=path)
            page = file.pages[0]
            kind = page.photometric.name
            _require_grey_or_rgb(page, path=path)
            array = page.asarray()
    except DataError:
        raise
    except _BROKEN as error:
        if "imagecodecs" in str(error):
            raise MissingDependencyError("imagecodecs", extra="infrared", purpose=f"{path}: its compression") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        do = "Remove it or copy it again."
        raise DataError(path, must="be a whole TIFF", found=f"a damaged one ({reason})", do=do) from error
    return _plain(array, inverted=kind == "MINISWHITE", path=path)


def _require_one_page(file: Any, *, path: Path) -> None:
    count = sum(1 for page in file.pages if not page.is_reduced)
    if count != 1:
        raise DataError(
            path,
            must="hold one picture",
            found=f"{count} pages",
            do="Save each as a file of its own.",
        )


def _require_grey_or_rgb(page: Any, *, path: Path) -> None:
    kind, channels = page.photometric.name, page.samplesperpixel
    good = {"MINISBLACK": (1,), "MINISWHITE": (1,), "RGB": (3,), "YCBCR": (3,)}
    if channels not in good.get(kind, ()):
        raise DataError(
            path,
            must="be grey or RGB, without alpha or palette",
            found=f"{kind} with {channels} channels",
            do="Save it as grey values.",
        )


def _plain(array: np.ndarray, *, inverted: bool, path: Path) -> np.ndarray:
    if array.dtype.name not in _TYPES:
        raise DataError(path, must=f"hold numbers of type {', '.join(_TYPES)}", found=array.dtype.name)
    if inverted:
        if array.dtype.kind == "f":
            raise DataError(path, must="show small values dark", found="floating-point MINISWHITE")
        array = np.iinfo(array.dtype).max - array
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = np.moveaxis(array, 0, -1)  # planes one after the other
    array = array.reshape(*array.shape[:2], -1)  # [h, w] -> [h, w, 1]
    return array.astype(np.float32) if array.dtype.kind == "f" else array.astype(array.dtype.type)


def _tifffile() -> Any:
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependencyError("tifffile", extra="infrared", purpose="reading TIFF") from error
    return tifffile
