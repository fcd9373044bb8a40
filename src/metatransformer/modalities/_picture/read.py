"""Pictures as arrays, as a person sees them: orientation applied, palette resolved, alpha laid on white.

Sources: EXIF 2.3 (CIPA DC-008) for the orientation tag; RFC 2083 (PNG) for tRNS transparency.
Limits: colour profiles are not applied; grey with alpha is read at 8 bits. Of an animation, and of a TIFF of several
pages, the first is read. TIFF that Pillow does not read, or not with all its bits, is left to tifffile.
"""

import io
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, ImageOps

from metatransformer.core.border import foreign, words
from metatransformer.core.errors import DataError
from metatransformer.data.limits import GIF, Bounded, require_pixels, too_many_pixels
from metatransformer.modalities._picture.tiff import TIFF_STARTS, Tiff, read_tiff

# Named when a file is opened: Pillow would hand an EPS, whatever it is called, to another program.
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM", "JPEG2000")
PICTURE_SUFFIXES = (".jpg", ".jpeg", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif")
PICTURE_SUFFIXES += (".ppm", ".pgm", ".pbm", ".pnm", ".jp2")
_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WEBP"}
_border = partial(foreign, library="Pillow", must="be a whole picture", do="Remove it or copy it again.")
_WHITE = (255, 255, 255, 255)
_BITS, _KIND, _RGB = 258, 262, 2  # of TIFF
_TILE, _LARGE_TILE = (323, 322), 2**22  # height and width; pixels
_SAMPLE_FORMAT, _SIGNED = 339, 2
_COLOUR16 = ("RGB;16B", "RGBA;16B")  # of PNG, as Pillow calls what it would cut to 8 bits


def read_image(path: str | Path) -> np.ndarray:
    """Returns ``[h, w, 1]`` for grey and ``[h, w, 3]`` for colour (RGB): uint8, uint16 where the file has more bits, or
    float32 as stored.

    Raises:
        DataError: no such file, an empty, truncated or foreign file, a picture of more than 179 million pixels, or of
            whole numbers that are negative or beyond 16 bits.
        MissingDependencyError: a TIFF that takes tifffile, which is not installed.
    """
    path = Path(path)
    require_content(path)
    # A file object: named by its path, a TIFF would be mapped into memory with its sides already turned.
    with Bounded(path) as file:
        image = open_picture(file, path=path, formats=FORMATS)
        if image is not None and image.format == "PNG" and image.tile and image.tile[0][3] in _COLOUR16:
            return _png16(image, file, where=path)
        if image is not None and not _is_deep(image, where=path):
            signed = _SIGNED in getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
            return _pixels(_upright(image, where=path), signed=signed, where=path)
        file.seek(0)
        start = file.read(8)
    if start[:4] in TIFF_STARTS:
        return _as_shown(read_tiff(path, extra="infrared", first=True), where=path)
    damaged = next((name for mark, name in _STARTS.items() if start.startswith(mark)), "")
    raise DataError(
        path,
        must=f"be a {'whole ' * bool(damaged)}picture ({', '.join(FORMATS)})",
        found=f"a damaged {damaged}" if damaged else f"no known format (it begins with {repr(start)[1:]})",
        do="Remove it, copy it again, or save it in one of these formats.",
    )


def decode_image(data: bytes, *, where: Path, least: int) -> np.ndarray:
    """Returns the pixels of a picture in memory, as ``read_image`` does; a JPEG that is
    much larger than ``least`` pixels a side at a half, a quarter or an eighth of it, which is faster.

    Raises:
        DataError: bytes that are no whole picture of a known format, or too many pixels.
    """
    image = open_picture(io.BytesIO(data), path=where, formats=FORMATS)
    if image is None:
        raise DataError(
            where, must=f"be a picture ({', '.join(FORMATS)})", found=f"{len(data)} bytes of no known format"
        )
    with _border(where):
        image.draft(None, (least, least))
    return _pixels(_upright(image, where=where), signed=False, where=where)


def open_picture(
    file: BinaryIO | io.BytesIO, *, path: Path, formats: list[str] | tuple[str, ...]
) -> ImageFile.ImageFile | None:
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
    if image.format in ("GIF", "TIFF"):
        _require_room(image, file, path=path)
    return image


def _require_room(image: ImageFile.ImageFile, file: BinaryIO | io.BytesIO, *, path: Path) -> None:
    """Raises DataError for a GIF of more pixels than its bytes can stand for, and a TIFF of tiles that are far larger
    than its picture: decoders set memory aside for both.
    """
    do = "Remove it, or copy or write it again."
    if image.format == "GIF":
        here = file.tell()
        end = file.seek(0, io.SEEK_END)
        file.seek(here)
        if image.height * image.width > GIF * end:
            must, found = (
                "hold what its header announces",
                f"{image.width:,} x {image.height:,} pixels in {end:,} bytes",
            )
            raise DataError(path, must=must, found=found, do=do)
    with _border(path):  # tags may hold anything
        height, width = (int(getattr(image, "tag_v2", {}).get(code, 0)) for code in _TILE)
    if height * width > max(_LARGE_TILE, 4 * image.height * image.width):
        must, found = "have tiles of about the size of its picture", f"one of {width:,} x {height:,} pixels"
        raise DataError(path, must=must, found=found, do=do)


def require_content(path: Path) -> None:
    """Raises DataError where there is no file, or an empty one."""
    if not path.is_file():
        raise DataError(path, must="be a picture", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a picture", found="a file of 0 bytes", do="Remove it.")


def _is_deep(image: ImageFile.ImageFile, *, where: Path) -> bool:
    """Returns whether a picture is a TIFF of colours with more than 8 bits, which Pillow would cut."""
    with _border(where):
        tags = getattr(image, "tag_v2", {})
        return tags.get(_KIND) == _RGB and bool(np.max(tags.get(_BITS, 1)) > 8)


def _upright(image: ImageFile.ImageFile, *, where: Path) -> Image.Image:
    with _border(where):
        image.load()
        return ImageOps.exif_transpose(image)


def _png16(image: ImageFile.ImageFile, file: BinaryIO, *, where: Path) -> np.ndarray:
    """Returns a PNG of 16-bit colour, read twice: once the upper bytes, once as if in the other order, the lower."""
    file.seek(0)
    lower = open_picture(file, path=where, formats=("PNG",))
    assert lower is not None
    with _border(where):
        lower.tile = [tile._replace(args=str(tile.args).replace("16B", "16L")) for tile in lower.tile]
    low = np.array(_upright(lower, where=where), dtype=np.uint16)
    file.seek(0)
    upper = open_picture(file, path=where, formats=("PNG",))
    assert upper is not None
    found = np.array(_upright(upper, where=where), dtype=np.uint16) << 8 | low
    clear = image.info.get("transparency")
    if found.shape[2] == 4:
        return np.rint(_on_white(found[:, :, :3], found[:, :, 3:], top=65535.0)).astype(np.uint16)
    if isinstance(clear, tuple):
        found[(found == clear).all(axis=2)] = 65535
    return found


def _on_white(values: np.ndarray, alpha: np.ndarray, *, top: float) -> np.ndarray:
    """Returns values of 0..top laid on white, floating-point."""
    share = alpha / top
    return values * share + top * (1 - share)


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


@np.errstate(invalid="ignore", over="ignore")  # of floating-point pixels, which are judged where they are used
def _whole(array: np.ndarray, *, where: Path) -> np.ndarray:
    """Returns whole numbers as uint8 where they are stored in 8 bits, else as uint16; others as float32.

    Raises:
        DataError: whole numbers outside 0..65535, or complex ones.
    """
    if array.dtype.kind == "c":
        raise DataError(where, must="hold real numbers", found="complex ones", do="Save their absolute values.")
    if array.dtype.kind not in "iu":
        return array.astype(np.float32)
    if array.min() < 0 or array.max() > 65535:
        found = f"values from {array.min()} to {array.max()}"
        raise DataError(where, must="hold values of 0..65535", found=found, do="Save it as 16-bit grey.")
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16)


@np.errstate(invalid="ignore", over="ignore")
def _as_shown(tiff: Tiff, *, where: Path) -> np.ndarray:
    """Returns a TIFF as a person sees it: full scale at any depth, small values black, alpha laid on white."""
    channels = {"MINISBLACK": 1, "MINISWHITE": 1, "RGB": 3, "YCBCR": 3}.get(tiff.kind, 0)
    have = tiff.pixels.shape[2]
    if not channels or have < channels or (channels == 1 and have > 1 + tiff.alpha):
        must, do = "be grey or RGB", "Save it so, or choose --modality hyperspectral for its bands."
        raise DataError(where, must=must, found=f"{tiff.kind} with {have} channels", do=do)
    stored = _whole(tiff.pixels, where=where)
    floating = stored.dtype.kind == "f"
    values, top = stored.astype(np.float64), 1.0 if floating else 2.0 ** min(tiff.bits, 16) - 1
    shown = top - values[:, :, :1] if tiff.kind == "MINISWHITE" else values[:, :, :channels]
    if tiff.alpha:
        shown = _on_white(shown, values[:, :, -1:], top=top)
    full = 1 if floating else 255 if tiff.bits <= 8 else 65535
    scaled = shown * (full / top)
    return scaled.astype(np.float32) if floating else np.rint(scaled).astype(np.uint8 if full == 255 else np.uint16)
