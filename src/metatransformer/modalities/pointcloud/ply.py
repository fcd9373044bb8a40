"""PLY, the Stanford polygon format: ASCII or binary of either byte order; bare points, or a mesh.

Read here rather than by trimesh, which refuses binary meshes of triangles and squares, takes text that was cut off, and
holds the whole of a file whose points are to be thinned.
Source: G. Turk, "The PLY Polygon File Format" (1994). A header in ASCII names elements (vertex, face, others), how many
there are, and the properties of each: numbers, or lists with their length in front. Vertices become rows of numbers,
faces triangles; other elements are skipped.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError

Order = Literal["<", ">", ""]
_ORDERS: dict[str, Order] = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_KINDS = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"}
_KINDS |= {"float": "f4", "double": "f8", "float32": "f4", "float64": "f8"}
_KINDS |= {f"{sign}int{8 * size}": f"{sign or 'i'}{size}" for sign in ("", "u") for size in (1, 2, 4, 8)}
_CORNERS = ("vertex_indices", "vertex_index")
_LONGEST = 1 << 16  # bytes of a header line, and lines of a header: far beyond any real file
_ROWS = 1 << 18  # read at a time, so that memory follows what is kept


@dataclass(frozen=True)
class _Property:
    """A column; ``count`` is the type of a list's length, "" for a single number."""

    name: str
    kind: str
    count: str = ""


@dataclass(frozen=True)
class _Element:
    name: str
    rows: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def flat(self) -> bool:
        """Whether every row has the same length."""
        return not any(prop.count for prop in self.properties)

    def row(self, order: Order) -> np.dtype[Any]:
        """Returns the type of a row without lists."""
        parts = [(str(i), order + prop.kind) for i, prop in enumerate(self.properties)]
        return np.dtype(parts)


@dataclass(frozen=True)
class _Numbers:
    """Numbers one after the other: the bytes of a binary file, or what stands in lines of text (``order`` "")."""

    data: np.ndarray
    order: Order

    def size(self, kind: str) -> int:
        """How many items of ``data`` a number takes."""
        return np.dtype(kind).itemsize if self.order else 1

    def take(self, starts: np.ndarray, kind: str, count: int) -> np.ndarray:
        """Returns ``count`` numbers from each of ``starts`` [m] on, ``[m, count]``; all must lie inside."""
        steps, item = np.diff(starts[:2]), np.dtype(self.order + kind if self.order else self.data.dtype)
        if (np.diff(starts) == steps).all():  # one after the other, as in most meshes: no copy
            unit, step = self.data.itemsize, int(steps[0]) if steps.size else 0
            place, strides = int(starts[0]) * unit, (step * unit, item.itemsize)
            return np.ndarray((len(starts), count), item, buffer=self.data.data, offset=place, strides=strides)
        return self.data[starts[:, None] + np.arange(count * self.size(kind))].view(item)

    def count_at(self, place: int, kind: str) -> float:
        """Returns the length of a list, NaN behind the end."""
        if place + self.size(kind) > len(self.data):
            return float("nan")
        form = self.order + np.dtype(kind).char
        return struct.unpack_from(form, self.data.data, place)[0] if self.order else float(self.data[place])


@dataclass(frozen=True)
class Ply:
    """An open PLY file: ``names`` and numpy ``kinds`` of the vertices' columns, and whether there are faces.

    ``start`` is the byte where the header ends, ``order`` the byte order, "" for text.
    """

    path: Path
    order: Order
    elements: tuple[_Element, ...]
    start: int

    @property
    def vertex(self) -> _Element:
        """The element that holds the points."""
        return next(element for element in self.elements if element.name == "vertex")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the vertices' columns."""
        return tuple(prop.name for prop in self.vertex.properties)

    @property
    def kinds(self) -> tuple[str, ...]:
        """Types of the vertices' columns as numpy spells them: u1, f4, ..."""
        return tuple(prop.kind for prop in self.vertex.properties)

    @property
    def is_mesh(self) -> bool:
        """Whether faces follow."""
        return any(element.name == "face" and element.rows for element in self.elements)

    def vertices(self) -> Iterator[np.ndarray]:
        """Yields the vertices as float64 ``[rows, columns]``, some at a time.

        Raises:
            DataError: the file ends too early, or a field is no number.
        """
        element, kinds = self.vertex, self.vertex.row(self.order)
        place = self.place("vertex") if self.order else self.start
        if self.order:
            self._end(element, place)
        with self.path.open("rb") as file:
            lines = iter(()) if self.order else self._lines(element, file)
            file.seek(place)
            for first in range(0, element.rows, _ROWS):
                rows = min(_ROWS, element.rows - first)
                if not self.order:
                    yield self._table(list(islice(lines, rows)), rows=rows, first=first)
                    continue
                table = np.frombuffer(file.read(rows * kinds.itemsize), kinds)
                with np.errstate(invalid="ignore"):  # NaN is counted later
                    yield np.stack([table[name].astype(np.float64) for name in kinds.names or ()], axis=1)

    def faces(self) -> np.ndarray:
        """Returns the faces as triangles ``[m, 3]``; a polygon is cut into a fan around its first corner.

        Raises:
            DataError: the file ends too early, or a face is no list of at least three corners.
        """
        element = next(element for element in self.elements if element.name == "face")
        corners = next((prop for prop in element.properties if prop.count and prop.name in _CORNERS), None)
        if corners is None:
            must = "give each face a list 'vertex_indices'"
            raise DataError(self.path, must=must, found=", ".join(prop.name for prop in element.properties))
        if self.order:
            numbers, place = _Numbers(self._bytes, self.order), self.place("face")
        else:
            with self.path.open("rb") as file:
                words = b" ".join(self._lines(element, file)).split()
            with foreign(self.path, "numpy", must="be numbers in every face"):
                numbers, place = _Numbers(np.array(words, dtype=np.float64), ""), 0
        starts, counts, _ = self._walk(numbers, place, element, corners)
        if (short := np.flatnonzero(counts < 3)).size:
            where, found = f"{self.path}, face {short[0]}", str(counts[short[0]])
            raise DataError(where, must="have at least 3 corners", found=found)
        groups = []
        for count in np.unique(counts).tolist():
            rows = np.flatnonzero(counts == count)
            with np.errstate(invalid="ignore"):  # what is no number is beyond the vertices
                groups.append((rows, numbers.take(starts[rows], corners.kind, count).astype(np.int64)))
        return fans(groups)

    def place(self, name: str) -> int:
        """Returns the byte of a binary file where an element begins, or, for another name, where the last one ends."""
        place = self.start
        for element in self.elements:
            if element.name == name:
                break
            place = self._end(element, place)
        return place

    @property
    def _bytes(self) -> np.ndarray:
        return np.fromfile(self.path, dtype=np.uint8)

    def _end(self, element: _Element, place: int) -> int:
        """Returns the byte where an element ends that begins at ``place``."""
        if not element.flat:
            return self._walk(_Numbers(self._bytes, self.order), place, element, element.properties[0])[2]
        size, room = element.row(self.order).itemsize, self.path.stat().st_size - place
        if element.rows * size > room:
            raise self._short(element, room // size)
        return place + element.rows * size

    def _walk(
        self, numbers: _Numbers, place: int, element: _Element, wanted: _Property
    ) -> tuple[np.ndarray, np.ndarray, int]:
        """Returns where the values of ``wanted`` begin in each row, how many they are, and where the element ends.

        Nearly every mesh is of triangles alone: where all rows are as long as the first, they are not walked through.
        """
        starts, counts, lists, first = [], [], [], place
        for row in range(element.rows):  # each takes a byte or more, so a false number ends with the file
            for prop in element.properties:
                count = numbers.count_at(place, prop.count) if prop.count else 1
                if not 0 <= count <= len(numbers.data):
                    raise self._short(element, row)
                if prop.count:
                    lists += [(place - first, prop.count, count)] if row == 0 else []
                    place += numbers.size(prop.count)
                if prop is wanted:
                    starts.append(place)
                    counts.append(int(count))
                place += int(count) * numbers.size(prop.kind)
            if place > len(numbers.data):
                raise self._short(element, row)
            width = place - first
            if row == 0 and first + element.rows * width <= len(numbers.data):
                rows = first + np.arange(element.rows) * width
                if all((numbers.take(rows + at, kind, 1) == count).all() for at, kind, count in lists):
                    return rows + (starts[0] - first), np.full(element.rows, counts[0]), first + element.rows * width
        return np.array(starts, dtype=np.int64), np.array(counts, dtype=np.int64), place

    def _lines(self, wanted: _Element, file: BinaryIO) -> Iterator[bytes]:
        """Yields the lines of an element of a text file."""
        file.seek(self.start)
        for element in self.elements:
            lines = islice((line for line in file if line.strip()), element.rows)
            if element is wanted:
                yield from lines
                return
            for _ in lines:
                pass

    def _table(self, lines: list[bytes], *, rows: int, first: int) -> np.ndarray:
        """Returns lines of text as numbers; ``first`` is the row of the first of them."""
        if len(lines) < rows:
            raise self._short(self.vertex, first + len(lines))
        must = f"have {len(self.names)} numbers in every vertex"
        with foreign(self.path, "numpy", must=must):
            table = np.loadtxt(lines, dtype=np.float64, ndmin=2, comments=None, encoding="latin-1")
        if table.shape[1] != len(self.names):
            raise DataError(self.path, must=must, found=f"{table.shape[1]} in vertex {first}")
        return table

    def _short(self, element: _Element, row: int) -> DataError:
        return DataError(
            self.path,
            must=f"hold {element.rows:,} rows of '{element.name}', as its header says",
            found=f"that row {row:,} (counted from 0) is cut off or malformed",
            do="Copy or export the file again.",
        )


def fans(groups: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Returns polygons as triangles ``[m, 3]`` around their first corners, in the order of the polygons.

    A group is the places [n] of polygons of the same length, and their corners ``[n, k]``.
    """
    triangles, owners = [np.zeros((0, 3), dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for rows, corners in groups:
        thirds = [corners[:, [0, i, i + 1]] for i in range(1, corners.shape[1] - 1)]
        triangles.append(np.stack(thirds, axis=1).reshape(-1, 3))
        owners.append(np.repeat(rows, len(thirds)))
    return np.concatenate(triangles)[np.argsort(np.concatenate(owners), kind="stable")]


def open_ply(path: Path) -> Ply:
    """Returns a PLY file whose header has been read.

    Raises:
        DataError: no PLY header, an unknown format or type, or no vertex with plain columns.
    """
    with path.open("rb") as file:
        lines = [file.readline(_LONGEST).strip()]
        if lines[0] != b"ply":
            raise DataError(path, must="begin with the line 'ply'", found=repr(lines[0][:20]))
        while (line := file.readline(_LONGEST)).strip() != b"end_header":
            if not line.endswith(b"\n") or len(lines) > _LONGEST:
                do = "Export the file again."
                raise DataError(path, must="have a header that ends in 'end_header'", found="none", do=do)
            lines.append(line.strip())
        start = file.tell()
    # What is no ASCII there is a comment or a name.
    order, elements, stray = _declared([line.decode("latin-1") for line in lines[1:]], path=path)
    if bare := [element.name for element in elements if not element.properties]:
        raise DataError(path, must="give every element a property", found=f"none of '{bare[0]}'")
    vertex = [element for element in elements if element.name == "vertex"]
    if len(vertex) != 1 or not vertex[0].flat or not vertex[0].properties:
        found = "none" if not vertex else "several, or lists among its properties, or no property"
        raise DataError(path, must="have one element 'vertex' of plain numbers", found=found)
    ply = Ply(path, order, elements, start)
    if stray and order and ply.place("") != path.stat().st_size:
        raise _unknown(stray, path=path)  # no comment of an old exporter, but a property that was misspelt
    return ply


def _declared(lines: list[str], *, path: Path) -> tuple[Order, tuple[_Element, ...], str]:
    """Returns byte order and elements of a header, and the last line that says neither and is not marked as comment."""
    order: Order | None = None
    elements: list[_Element] = []
    stray = ""
    for line in lines:
        words = line.split()
        if words[:1] == ["format"] and words[1:2] and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[:1] == ["element"] and len(words) == 3 and re.fullmatch(r"[0-9]{1,18}", words[2]):
            elements.append(_Element(words[1], int(words[2])))
        elif words[:1] == ["property"] and elements and (prop := _property(words[1:])) is not None:
            elements[-1].properties.append(prop)
        elif words[:1] in (["format"], ["element"], ["property"]):
            raise _unknown(line, path=path)
        elif words[:1] not in ([], ["comment"], ["obj_info"]):
            stray = line
    if order is None:
        raise DataError(path, must=f"state its format, one of {', '.join(_ORDERS)}", found="none")
    return order, tuple(elements), stray


def _unknown(line: str, *, path: Path) -> DataError:
    must = "name formats, elements and properties of known types in its header"
    return DataError(path, must=must, found=f"'{line}'")


def _property(words: list[str]) -> _Property | None:
    if len(words) == 2 and words[0] in _KINDS:
        return _Property(words[1], _KINDS[words[0]])
    if len(words) == 4 and words[0] == "list" and words[1] in _KINDS and words[2] in _KINDS:
        count = _KINDS[words[1]]
        return _Property(words[3], _KINDS[words[2]], count) if count[0] in "iu" else None
    return None
