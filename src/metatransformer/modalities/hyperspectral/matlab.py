"""What a file of MATLAB 5 to 7 claims, checked before SciPy reads it.

SciPy looks up the type of an element in a table without asking whether it stands there, and sets memory aside for as
many bytes or cells as are announced: a damaged file ends the process. So each element's type and size is read first.
Source: MAT-File Format (MathWorks), level 5.
"""

import struct
import zlib
from functools import lru_cache
from math import prod
from pathlib import Path

from metatransformer.core.errors import DataError
from metatransformer.data.limits import Bounded

_HEAD, _PIECE = 128, 1 << 20  # bytes of the file's header; bytes that are unpacked at a time
_INTS, _MATRIX, _PACKED = (5, 6), 14, 15
_VALUES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18)  # types of numbers and letters
_CELL, _STRUCT, _OBJECT, _TEXT, _SPARSE, _FUNCTION, _OPAQUE = 1, 2, 3, 4, 5, 16, 17  # classes
_HOLDERS = (_CELL, _STRUCT, _OBJECT, _FUNCTION, _OPAQUE)  # of other matrices
_COMPLEX = 1 << 11  # a flag
_MOST_SIDES, _DEEPEST = 32, 50  # of a matrix; matrices inside each other


class _Torn(Exception):
    """Something announced that cannot be."""


class _Elements:
    """The bytes of a file, or of one packed element of it, from front to back."""

    def __init__(self, file: Bounded, *, order: str, packed: int) -> None:
        self._file, self.order, self._left = file, order, packed
        self._unpack, self._ready = zlib.decompressobj() if packed else None, b""

    def tag(self) -> tuple[int, int, bytes | None]:
        """Returns type, number of bytes and, where they stand within the tag, the values of the next element."""
        raw = self.take(8)
        kind, size = struct.unpack(f"{self.order}II", raw)
        if not kind >> 16:
            return kind, size, None
        if kind >> 16 > 4:
            raise _Torn(f"{kind >> 16} bytes in an element of 4")
        return kind & 0xFFFF, kind >> 16, raw[4 : 4 + (kind >> 16)]

    def values(self, most: int) -> int:
        """Passes over the next element, which holds values, and returns its number of bytes."""
        kind, size, inside = self.tag()
        if kind not in _VALUES:
            raise _Torn(f"an element of type {kind} where values must stand")
        if size > most:
            raise _Torn(f"an element of {size:,} bytes in a matrix of {most:,}")
        if inside is None:
            self.skip(size)
            self.skip(-size % 8, filled=False)
        return size

    def integers(self, most: int) -> tuple[int, ...]:
        """Returns the values of the next element, whole numbers of 32 bits."""
        kind, size, inside = self.tag()
        if kind not in _INTS or size > min(most, 4 * _MOST_SIDES):
            raise _Torn(f"an element of type {kind} and {size:,} bytes where sides must stand")
        raw = inside if inside is not None else self.take(size + -size % 8)[:size]
        return struct.unpack(f"{self.order}{size // 4}i", raw[: size // 4 * 4])

    def take(self, size: int) -> bytes:
        """Returns the next bytes, fewer where there are no more."""
        if self._unpack is None:
            return self._file.read(size)
        while len(self._ready) < size:
            tail = self._unpack.unconsumed_tail
            new = tail or self._file.read(min(_PIECE, self._left))
            self._left -= 0 if tail else len(new)
            piece = self._unpack.decompress(new, _PIECE)
            if not new and not piece:
                break
            self._ready += piece
        taken, self._ready = self._ready[:size], self._ready[size:]
        return taken

    def skip(self, size: int, *, filled: bool = True) -> None:
        """Passes over bytes; where they are packed, ``filled`` says that they must be there."""
        if self._unpack is None:
            self._file.seek(size, 1)
            return
        while size:
            passed = len(self.take(min(size, _PIECE)))
            if not passed:
                if not filled:  # behind the last element
                    return
                raise _Torn("an element that ends behind the end of the file")
            size -= passed


def require_whole(path: Path) -> None:
    """Raises DataError where an element of a MATLAB file has a type that there is not, or more bytes or cells than the
    file can hold. Level 4 has none of these: it is left to SciPy.
    """
    about = path.stat()
    _require_whole(path, about.st_size, about.st_mtime_ns)


@lru_cache(maxsize=16)  # what is asked for the arrays of a file, and then for one of them, is checked once
def _require_whole(path: Path, end: int, _: int) -> None:
    with Bounded(path) as file:
        head = file.read(_HEAD)
        if len(head) < _HEAD or 0 in head[:4]:
            return
        order, place = "<" if head[126:] == b"IM" else ">", _HEAD
        try:
            while place + 8 <= end:
                file.seek(place)
                kind, size = struct.unpack(f"{order}II", file.read(8))
                place += 8 + size
                if place > end:
                    raise _Torn("an element that ends behind the end of the file")
                _variable(file, kind=kind, size=size, order=order)
        except (_Torn, struct.error, zlib.error) as error:
            found, do = f"a damaged one ({error})", "Remove it, or copy or write it again."
            raise DataError(path, must="be a whole MATLAB file", found=found, do=do) from error


def _variable(file: Bounded, *, kind: int, size: int, order: str) -> None:
    parts = _Elements(file, order=order, packed=size if kind == _PACKED else 0)
    if kind == _PACKED:
        kind, size, _ = parts.tag()
    if kind != _MATRIX:
        raise _Torn(f"an element of type {kind} where a matrix must stand")
    _matrix(parts, size=size, most=size, depth=0)


def _matrix(parts: _Elements, *, size: int, most: int, depth: int) -> None:
    """Passes over the elements of a matrix as SciPy does, in the order that its class has; the file holds at most
    ``most`` bytes of its kind.
    """
    if not size and depth:  # an empty cell; of a variable SciPy does not look at it
        return
    if depth > _DEEPEST:
        raise _Torn(f"more than {_DEEPEST} matrices inside each other")
    flags = parts.take(16)
    about = int.from_bytes(flags[8:12], "little" if parts.order == "<" else "big")
    kind, is_complex, cells = about & 255, bool(about & _COMPLEX), 1
    if kind != _OPAQUE:
        cells = prod(parts.integers(most))
        parts.values(most)  # its name
    if kind not in _HOLDERS:
        for _ in range(1 if kind == _TEXT else 1 + is_complex + 2 * (kind == _SPARSE)):
            parts.values(most)
        return
    for _ in range({_OBJECT: 1, _OPAQUE: 3}.get(kind, 0)):  # names of its class
        parts.values(most)
    if kind in (_STRUCT, _OBJECT):
        length = max(1, prod(parts.integers(most)))  # of one name of a field
        cells *= parts.values(most) // length
    if not 0 <= cells * 8 <= most:
        raise _Torn(f"{cells:,} cells in {most:,} bytes")
    for _ in range(cells if kind in (_CELL, _STRUCT, _OBJECT) else 1):
        inner, length, _ = parts.tag()
        if inner != _MATRIX:
            raise _Torn(f"an element of type {inner} where a matrix must stand")
        _matrix(parts, size=length, most=most, depth=depth + 1)
