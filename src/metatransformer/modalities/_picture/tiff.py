"""TIFF by tifffile: the picture as its numbers are stored, upright, with what the file says of them.

For what Pillow does not read: 16-bit colour, floating-point values, odd depths, more than four channels, JPEG 2000.
Sources: TIFF 6.0 (photometric interpretation, orientation, extra samples); GDAL's tag 42113 for "no data".
"""

import io
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data import limits
from metatransformer.data.limits import Bounded

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # what its files begin with
_AGAIN = "It is damaged: copy or write it again."
_ORIENTATION, _NO_DATA = 274, 42113  # codes of tags
_CODED = ("JPEG", "JPEG2000", "PNG", "WEBP")
_HEAD = 1 << 16  # bytes in which a coded picture says its size
_CODESTREAM = b"\xff\x4f\xff\x51"  # what a JPEG 2000 begins with
# The most bytes out of one, by the code of the compression; what is not here has no useful bound.
_RATIOS = {1: limits.STORED, 5: limits.LZW, 8: limits.DEFLATE, 32773: limits.PACKBITS, 32946: limits.DEFLATE}
_RATIOS |= {34925: limits.LZMA, 34926: limits.ZSTD, 50000: limits.ZSTD}
_OF_COLOURS, _MOST_COLOURS = (6, 7, 34933, 50001), 5  # JPEG, PNG, WebP


@dataclass(frozen=True)
class Tiff:
    """The one picture of a file.

    ``pixels`` is ``[h, w, channels]`` of the file's own numbers, ``bits`` how many of each count. ``kind`` is the
    photometric interpretation (MINISBLACK, RGB, ...), ``alpha`` whether the last channel is transparency. ``no_data``
    is the value that stands for "not measured", None where the file states none.
    """

    pixels: np.ndarray
    kind: str
    bits: int
    alpha: bool
    no_data: float | None


def read_tiff(path: Path, *, extra: str, first: bool = False) -> Tiff:
    """Returns the picture of a file, the ``first`` of several where that is wanted; ``extra`` installs tifffile.

    Raises:
        DataError: damaged or foreign, several pages, more pixels than are allowed, no pixel, no picture.
        MissingDependencyError: tifffile, or a decoder that it needs, is not installed.
    """
    border = partial(foreign, path, "tifffile", must="be a whole TIFF", needs=("imagecodecs", extra))
    with open_tiff(path, extra=extra) as file:
        with border():
            pages = [page for page in file.pages if not page.is_reduced]
        if len(pages) != 1 and not (first and pages):
            do = "Save each as a file of its own."
            raise DataError(path, must="hold one picture", found=f"{len(pages)} pages", do=do)
        page = pages[0]
        with border():  # tags may hold anything
            height, width = int(page.imagelength), int(page.imagewidth)
        limits.require_pixels(path, height=height, width=width)
        require_tiff_room(path, page, shape=page.shape)
        with border():
            array, tags = page.asarray(), {tag.code: tag.value for tag in page.tags}
            alpha = bool(page.extrasamples) and page.extrasamples[-1] in (1, 2)
    if page.axes not in ("YX", "YXS", "SYX") or 0 in array.shape:
        raise DataError(
            path, must="hold a picture", found=f"an array of shape {array.shape} ({page.axes or 'no axes'})"
        )
    array = np.moveaxis(array, 0, -1) if page.axes == "SYX" else array
    return Tiff(
        pixels=upright(array.reshape(*array.shape[:2], -1), tags.get(_ORIENTATION, 1)),
        kind=getattr(page.photometric, "name", str(page.photometric)),
        bits=_bits(page),
        alpha=alpha,
        no_data=_number(tags.get(_NO_DATA)),
    )


@contextmanager
def open_tiff(path: Path, *, extra: str) -> Iterator[Any]:
    """Opens a TIFF whose directories follow each other to an end.

    Raises:
        DataError: damaged or foreign, or directories in a circle.
        MissingDependencyError: tifffile is not installed.
    """
    tifffile = import_tifffile(extra=extra, purpose=f"reading {path}")
    with Bounded(path) as raw:
        with foreign(path, "tifffile", must="be a whole TIFF", needs=("imagecodecs", extra)):
            file = tifffile.TiffFile(raw)
        _require_end(raw, file.tiff, path=path)
        with file:
            yield file


def _require_end(raw: Bounded, form: Any, *, path: Path) -> None:
    """Raises DataError for directories that follow each other in a circle: tifffile would go round for ever."""
    place: int | None = 8 if form.is_bigtiff else 4  # where the header says which one is the first
    seen = set()
    while place is not None:
        if place in seen:
            found = "directories that follow each other in a circle"
            raise DataError(path, must="be a whole TIFF", found=found, do=_AGAIN)
        seen.add(place)
        place = _behind(raw, form, place)


def _behind(raw: Bounded, form: Any, place: int) -> int | None:
    """Returns where a directory says which one comes next, as tifffile finds it; ``place`` says where it begins."""
    end = raw.seek(0, os.SEEK_END)
    with suppress(struct.error, OSError, ValueError, OverflowError):  # tifffile says what is missing
        raw.seek(place)
        (start,) = struct.unpack(form.offsetformat, raw.read(form.offsetsize))
        if 0 < start < end:
            raw.seek(start)
            (tags,) = struct.unpack(form.tagnoformat, raw.read(form.tagnosize))
            # Of one that is cut off tifffile takes the last bytes of the file.
            return min(raw.tell() + tags * form.tagsize, end - form.offsetsize)
    return None


def require_tiff_room(path: Path, page: Any, *, shape: Sequence[int]) -> None:
    """Raises DataError when pages like ``page`` cannot hold an array of this shape; those with tiles left out may.

    A strip or tile that is a coded picture of its own must say no other size than the page.
    """
    with foreign(path, "tifffile", must="be a whole TIFF"):
        ratio, sizes = _RATIOS.get(int(page.compression)), tuple(page.databytecounts)
        counted = page.dtype is not None and all(sizes) and not page.is_subsampled
        parts, part = prod(page.chunked), tuple(page.chunks)
        height = int(page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength))
        width = int(page.tilewidth if page.is_tiled else page.imagewidth)
        end = path.stat().st_size
        there = [(int(place), int(size)) for place, size in zip(page.dataoffsets, sizes, strict=False)]
    limits.require_room(path, shape=(parts,), bytes_each=1, what="strips or tiles")
    bounded = ratio is not None and counted
    if bounded:
        for what, sides in (("values", shape), ("values of a strip or tile", part)):
            limits.require_room(path, shape=sides, bytes_each=_bits(page) / 8, what=what, ratio=ratio)
    # How small others may be nobody knows, so they may have as many values as the largest picture in RGB.
    if not bounded and (found := max(prod(shape), prod(part))) > 3 * limits.MOST_PIXELS:
        must = f"hold at most {3 * limits.MOST_PIXELS:,} values, coded as they are"
        raise DataError(path, must=must, found=f"{found:,}", do=_AGAIN)
    if ratio is None:
        limits.require_pixels(path, height=height, width=width)
        if int(page.compression) in _OF_COLOURS and page.samplesperpixel > _MOST_COLOURS:
            must = f"have at most {_MOST_COLOURS} channels in its {page.compression.name} strips or tiles"
            raise DataError(path, must=must, found=f"{page.samplesperpixel:,}", do=_AGAIN)
        with path.open("rb") as file:
            for place, size in there:
                if 0 <= place < end and size > 0:
                    file.seek(place)
                    require_coded_size(path, file.read(min(size, _HEAD)), height=height, width=width)


def require_coded_size(path: Path, coded: bytes, *, height: int, width: int) -> None:
    """Raises DataError where a picture inside a file (JPEG, JPEG 2000, PNG, WebP) says that it is larger.

    Decoders set memory aside for as much as it says. What is coded otherwise is left to its decoder.
    """
    with foreign(path, "Pillow", must="hold a picture that can be decoded"):
        try:
            with Image.open(io.BytesIO(coded), formats=_CODED) as image:
                found = image.size
        except Image.UnidentifiedImageError:
            if _CODESTREAM not in coded[:256]:
                return
            found = None
    if not found or found[0] > width or found[1] > height:
        size = f"{found[0]:,} x {found[1]:,}" if found else "a damaged one, or one of more than four channels"
        must = f"hold a picture of {width:,} x {height:,} pixels, as its header says"
        raise DataError(path, must=must, found=size, do=_AGAIN)


def _bits(page: Any) -> int:
    """Returns the bits of a value; channels of different depths, as 5-6-5, are unpacked to whole bytes."""
    return page.bitspersample if isinstance(page.bitspersample, int) else 8 * page.dtype.itemsize


def import_tifffile(*, extra: str, purpose: str) -> ModuleType:
    """Returns tifffile, or raises MissingDependencyError."""
    try:
        import tifffile
    except ImportError as error:
        raise MissingDependencyError("tifffile", extra=extra, purpose=purpose) from error
    return tifffile


def upright(pixels: np.ndarray, orientation: Any) -> np.ndarray:
    """Returns a picture as a person sees it; ``orientation`` says at which corner the stored rows begin."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _number(text: Any) -> float | None:
    """Returns what GDAL's tag says, None where it says nothing that is a number."""
    try:
        return float(str(text).strip("\0 "))
    except ValueError:
        return None
