"""Pictures as arrays, as a person sees them: orientation applied, palette resolved, alpha laid on white.

Sources: EXIF 2.3 (CIPA DC-008) for the orientation tag; RFC 2083 (PNG) for tRNS transparency.
Limits: colour at 16 bits a channel is read at 8, which is what Pillow offers; grey keeps its 16 bits. Colour profiles
are not applied. Of an animation the first frame is read. TIFF that Pillow does not read is left to tifffile.
"""

from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from metatransformer.core.border import foreign, words
from metatransformer.core.errors import DataError
from metatransformer.data.limits import require_pixels, too_many_pixels
from metatransformer.modalities._picture.tiff import Tiff, read_tiff

# Named when a file is opened: Pillow would hand an EPS, whatever it is called, to another program.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF")
_border = partial(foreign, library="Pillow", must="be a whole picture", do="Remove it or copy it again.")
_WHITE = (255, 255, 255, 255)
_SAMPLE_FORMAT, _SIGNED = 339, 2  # of TIFF
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # what its files begin with


def read_image(path: str | Path) -> np.ndarray:
    """Returns ``[h, w, 1]`` for grey and ``[h, w, 3]`` for colour (RGB); uint8, or uint16 for 16-bit grey.

    Raises:
        DataError: no such file, an empty, truncated or foreign file, a picture of more than 179 million pixels, or of
            floating-point, negative or 32-bit values.
        MissingDependencyError: a TIFF that takes tifffile, which is not installed.
    """
    path = Path(path)
    require_content(path)
    # A file object: named by its path, a TIFF would be mapped into memory with its sides already turned.
    with path.open("rb") as file:
        image = open_picture(file, path=path, formats=FORMATS)
        if image is not None:
            signed = _SIGNED in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
            with _border(path):
                image.load()
                image = ImageOps.exif_transpose(image)
            return _pixels(image, signed=signed, where=path)
        file.seek(0)
        start = file.read(8)
    if start[:4] in _TIFF:
        return _as_shown(read_tiff(path, extra="infrared"), where=path)
    raise DataError(
        path,
        must=f"be a picture ({', '.join(FORMATS)})",
        found=f"no known format (it begins with {repr(start)[1:]})",
        do="Remove it, or save it in one of these formats.",
    )


def open_picture(file: BinaryIO, *, path: Path, formats: list[str] | tuple[str, ...]) -> ImageFile.ImageFile | None:
    """Returns an open picture, none of its pixels decoded, or None when it is of none of Pillow's ``formats``.

    Raises:
        DataError: a damaged header, or more pixels than are allowed.
    """
    with _border(path):
        try:
            image = Image.open(file, formats=formats)
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as error:
            raise too_many_pixels(path, found=words(error)) from error
    require_pixels(path, height=image.height, width=image.width)
    return image


def require_content(path: Path) -> None:
    """Raises DataError where there is no file, or an empty one."""
    if not path.is_file():
        raise DataError(path, must="be a picture", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a picture", found="a file of 0 bytes", do="Remove it.")


def _pixels(image: Image.Image, *, signed: bool, where: Path) -> np.ndarray:
    """Returns the pixels as shown; ``signed`` says that 8 bits hold a sign, which Pillow does not see."""
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode.startswith("I") or image.mode == "F" or signed:
        with _border(where):
            array, clear = np.array(image), image.info.get("transparency")
        array = array.view(np.int8) if signed and array.dtype == np.uint8 else array
        found = _whole(array[:, :, None], where=where)
        return np.where(found == clear, np.uint16(65535), found) if isinstance(clear, int) else found
    with _border(where):
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, _WHITE), image)
        array = np.array(image.convert("L" if grey else "RGB"))
    return array[:, :, None] if grey else array


def _whole(array: np.ndarray, *, where: Path) -> np.ndarray:
    """Returns whole numbers as uint8 where they are stored in 8 bits, else as uint16.

    Raises:
        DataError: floating-point numbers, or some outside 0..65535.
    """
    if array.dtype.kind not in "iu":
        raise DataError(
            where,
            must="hold whole numbers of 8 or 16 bits",
            found="floating-point values",
            do="Scale them to 0..65535 and save them as 16-bit grey.",
        )
    if array.min() < 0 or array.max() > 65535:
        found = f"values from {array.min()} to {array.max()}"
        raise DataError(where, must="hold values of 0..65535", found=found, do="Save it as 16-bit grey.")
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16)


def _as_shown(tiff: Tiff, *, where: Path) -> np.ndarray:
    """Returns a TIFF as a person sees it: full scale at any depth, small values black, alpha laid on white."""
    channels = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}.get(tiff.kind, 0)
    have = tiff.pixels.shape[2]
    if not channels or have < channels or (channels == 1 and have > 1 + tiff.alpha):
        must, do = "be grey or RGB", "Save it so, or choose --modality hyperspectral for its bands."
        raise DataError(where, must=must, found=f"{tiff.kind} with {have} channels", do=do)
    values = _whole(tiff.pixels, where=where).astype(np.float64)
    top = 2.0 ** min(tiff.bits, 16) - 1
    shown = top - values[:, :, :1] if tiff.kind == "MINISWHITE" else values[:, :, :channels]
    if tiff.alpha:
        share = values[:, :, -1:] / top
        shown = shown * share + top * (1 - share)
    full = 255 if tiff.bits <= 8 else 65535
    return np.rint(shown * (full / top)).astype(np.uint8 if full == 255 else np.uint16)
