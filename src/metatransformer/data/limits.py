"""Limits on what is read: a header is a claim, and nothing is allocated or looped over by a claim alone.

Compressed data cannot grow without bound: each method has a greatest ratio of what comes out to what goes in. A header
that announces more than the bytes of its file can hold is damaged, cut off, or made to exhaust the memory.
Sources: zlib's technical notes (DEFLATE, 1032:1); TIFF 6.0 for PackBits and LZW.
"""

import gzip
import io
import operator
import os
import zlib
from collections.abc import Iterable
from math import prod
from pathlib import Path

from metatransformer.core.errors import DataError, UsageError

MOST_SIDE = 300_000  # of one picture; a strip of millions x 20 is a damaged header, and half a gigabyte
MOST_PIXELS = 178_956_970  # of one picture: 13,377 x 13,377; in RGB half a gigabyte

MOST_VALUE = 1e30  # of a measured value: beyond it nothing was measured, and its square leaves single precision

# A packed text may unpack to this many bytes in any case, and to a hundred times its own: real tables and texts come to
# 3 to 30 times, one of zeros to 200, a bomb to 1032. A variable of the environment allows more, in MB.
MOST_BYTES = 2**28
USUAL = 100
VARIABLE = "METATRANSFORMER_UNPACKED_MB"

# The most bytes that can come out of one byte of a file, a little rounded up.
STORED = 1
PACKBITS = 64  # a run of 128 out of two bytes
DEFLATE = 1032
LZMA, ZSTD = 2**13, 2**16  # of zeros, measured: 6,900 and (blocks of 128 KiB) 32,700
GIF = 4096  # pixels a byte: a code of 12 bits stands for fewer
LZW = 1400  # codes of 12 bits for runs that grow by one with each code, up to the 4096th


class Bounded(io.BufferedReader):
    """An open file that is never asked for more bytes than are left in it, however many a header claims.

    Python sets memory aside for as many bytes as are asked for, before it sees that the file ends.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next bytes, at most ``size``; all that are left where it is negative or None.

        Raises:
            DataError: a decoder asks for a number of bytes that is no whole one, as a header claimed it.
        """
        left = max(0, self._size - self.tell())
        try:
            wanted = left if size is None else operator.index(size)
        except TypeError as error:
            raise DataError(self.name, must="state lengths as whole numbers", found=repr(size)) from error
        return super().read(left if wanted < 0 else min(wanted, left))


def require_pixels(where: object, *, height: int, width: int) -> None:
    """Raises DataError for a picture of more pixels than ``MOST_PIXELS``, or ``MOST_SIDE`` on a side, before it is
    decoded.
    """
    if max(height, width) > MOST_SIDE:
        must, found = f"have sides of at most {MOST_SIDE:,} pixels", f"{width:,} x {height:,}"
        raise DataError(where, must=must, found=found, do="Cut it into pieces.")
    if height * width > MOST_PIXELS:
        raise too_many_pixels(where, found=f"{width:,} x {height:,}")


def too_many_pixels(where: object, *, found: str) -> DataError:
    """Returns the error for a picture of more than ``MOST_PIXELS``."""
    must = f"have at most {MOST_PIXELS / 1e6:,.0f} million pixels"
    return DataError(where, must=must, found=f"{found}, perhaps a decompression bomb", do="Cut or shrink it.")


def read_bytes(path: Path) -> bytes:
    """Returns a whole file, unpacked where its name ends in .gz.

    Raises:
        DataError: it cannot be read, is damaged, or unpacks to more than its size lets expect.
    """
    try:
        if path.suffix.lower() != ".gz":
            return path.read_bytes()
        with gzip.open(path) as file:
            data = file.read(_most_unpacked(path) + 1)
    except (OSError, EOFError, zlib.error) as error:
        found = f"'{getattr(error, 'strerror', '') or error}'"
        raise DataError(path, must="be a readable file", found=found) from error
    require_unpacked(path, size=len(data))
    return data


def require_unpacked(path: Path, *, size: int) -> None:
    """Raises DataError for a file that unpacks to more bytes than its own number lets expect."""
    if size > (most := _most_unpacked(path)):
        do = f"If that is right, unpack it first, or set {VARIABLE} to the number of megabytes to allow."
        raise DataError(path, must=f"unpack to at most {most:,} bytes", found="more, perhaps a bomb", do=do)


def _most_unpacked(path: Path) -> int:
    most = max(MOST_BYTES, USUAL * path.stat().st_size)
    told = os.environ.get(VARIABLE, "")
    if told and not told.isdecimal():
        raise UsageError(VARIABLE, must="be a whole number of megabytes", found=repr(told))
    return max(most, int(told or 0) * 10**6)


def require_room(path: Path, *, shape: Iterable[int], bytes_each: float, what: str, ratio: float = STORED) -> None:
    """Raises DataError when ``shape`` items of ``bytes_each`` are more than a file can hold.

    ``ratio`` is the greatest by which the file's compression can shrink them; ``what`` names the items in the plural.
    """
    shape, size = tuple(shape), path.stat().st_size
    if min(shape, default=1) < 0 or prod(shape) * bytes_each > size * ratio:
        raise DataError(
            path,
            must="hold what its header announces",
            found=f"{' x '.join(f'{n:,}' for n in shape)} {what} announced in a file of {size:,} bytes",
            do="It is cut off or damaged: copy or write it again.",
        )
