"""Pictures as arrays, as a person sees them: orientation applied, palette resolved, alpha laid on
white.

Sources: EXIF 2.3 (CIPA DC-008) for the orientation tag; RFC 2083 (PNG) for tRNS transparency.
Limits: colour at 16 bits a channel is read at 8, which is what the library offers; grey keeps its
16 bits. Colour profiles are not applied. Of an animation the first frame is read.
"""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from metatransformer.core.errors import DataError

# What broken pictures make the library raise, besides its own errors, which are OSErrors.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    struct.error,
    zlib.error,
)
_WHITE = (255, 255, 255, 255)


def read_image(path: str | Path) -> np.ndarray:
    """Returns ``[h, w, 1]`` for grey and ``[h, w, 3]`` for colour (RGB); uint8, or uint16 for
    16-bit grey.

    Raises:
        DataError: no such file, an empty, truncated or foreign file, a picture of more than 179
            million pixels, or of floating-point or 32-bit values outside 0..65535.
    """
    path = Path(path)
    _require_content(path)
    try:
        with Image.open(path) as image:
            image.load()
            return _pixels(ImageOps.exif_transpose(image), where=path)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(
            path,
            must="have at most 179 million pixels",
            found="more, perhaps a decompression bomb",
            do="Cut or shrink it.",
        ) from error
    except Image.UnidentifiedImageError as error:
        raise DataError(
            path,
            must="be a picture (JPEG, PNG, WebP, TIFF, BMP, GIF)",
            found=f"no known format (it begins with {_beginning(path)})",
            do="Remove it, or save it in one of these formats.",
        ) from error
    except DataError:
        raise
    except _BROKEN as error:
        raise DataError(
            path,
            must="be a whole picture",
            found=f"a damaged one ('{error}')",
            do="Remove it or copy it again.",
        ) from error


def _require_content(path: Path) -> None:
    if not path.is_file():
        raise DataError(path, must="be a picture", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a picture", found="a file of 0 bytes", do="Remove it.")


def _pixels(image: Image.Image, *, where: Path) -> np.ndarray:
    if image.mode.startswith("I"):
        return _sixteen_bit(np.asarray(image), where=where)
    if image.mode == "F":
        raise DataError(
            where,
            must="hold whole numbers of 8 or 16 bits",
            found="floating-point values",
            do="Scale them to 0..65535 and save them as 16-bit grey.",
        )
    grey = image.mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
    image = image.convert("L" if grey else "RGB")
    array = np.array(image)
    return array[:, :, None] if grey else array


def _sixteen_bit(array: np.ndarray, *, where: Path) -> np.ndarray:
    if array.min() < 0 or array.max() > 65535:
        raise DataError(
            where,
            must="hold values of 0..65535",
            found=f"values from {array.min()} to {array.max()}",
            do="Save it as 16-bit grey.",
        )
    return array.astype(np.uint16)[:, :, None]


def _beginning(path: Path) -> str:
    with open(path, "rb") as file:
        return repr(file.read(8))[1:]
