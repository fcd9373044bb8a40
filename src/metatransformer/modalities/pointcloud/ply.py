"""PLY, the Stanford polygon format: ASCII or binary of either byte order; bare points, or a mesh.

Source: G. Turk, "The PLY Polygon File Format" (1994). A header in ASCII names elements (vertex, face, others), how many
there are, and the properties of each: numbers, or lists with their length in front. Vertices become rows of numbers,
faces triangles; other elements are skipped.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from metatransformer.core.errors import DataError

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": ""}
_LONGEST = 1 << 16  # bytes of a header line, and corners of a face: far beyond any real file
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
    properties: tuple[_Property, ...]

    @property
    def flat(self) -> bool:
        """Whether every row has the same length."""
        return not any(prop.count for prop in self.properties)


@dataclass(frozen=True)
class Ply:
    """An open PLY file: ``names`` and numpy ``kinds`` of the vertices' columns, and whether there are faces."""

    path: Path
    order: str
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
        with self.path.open("rb") as file:
            file.seek(self.start)
            for element in self.elements:
                if element.name == "vertex":
                    yield from self._flat(file, element)
                    return
                self._skip(file, element)

    def faces(self) -> np.ndarray:
        """Returns the faces as triangles ``[m, 3]``; a polygon is cut into a fan around its first corner.

        Raises:
            DataError: the file ends too early, or a face is no list of at least three corners.
        """
        with self.path.open("rb") as file:
            file.seek(self.start)
            for element in self.elements:
                if element.name == "face":
                    return self._faces(file, element)
                self._skip(file, element)
        raise AssertionError("a mesh has faces")

    def _skip(self, file: BinaryIO, element: _Element) -> None:
        if element.flat:
            for _ in self._flat(file, element):
                pass
        else:
            for _ in self._rows(file, element):
                pass

    def _flat(self, file: BinaryIO, element: _Element) -> Iterator[np.ndarray]:
        """Yields rows of numbers that all have the same length."""
        kinds = np.dtype([(str(i), self.order + prop.kind) for i, prop in enumerate(element.properties)])
        for first in range(0, element.rows, _ROWS):
            rows = min(_ROWS, element.rows - first)
            if self.order:
                data = file.read(rows * kinds.itemsize)
                if len(data) < rows * kinds.itemsize:
                    raise self._short(element, first + len(data) // kinds.itemsize)
                table = np.frombuffer(data, dtype=kinds)
                with np.errstate(invalid="ignore"):  # NaN is counted and refused later
                    columns = [table[name].astype(np.float64) for name in kinds.names or ()]
                yield np.stack(columns, axis=1)
            else:
                yield self._text(file, element, first=first, rows=rows)

    def _text(self, file: BinaryIO, element: _Element, *, first: int, rows: int) -> np.ndarray:
        lines = list(islice(file, rows))
        fields = [line.split() for line in lines]
        if len(fields) < rows or not fields[-1]:
            raise self._short(element, first + len(fields) - (not fields[-1] if fields else 0))
        width = len(element.properties)
        for row, values in enumerate(fields, start=first):
            if len(values) != width:
                must, found = f"have {width} numbers", f"{len(values)} fields"
                raise DataError(f"{self.path}, {element.name} {row}", must=must, found=found)
        try:
            return np.array(fields, dtype=np.float64)
        except ValueError as error:
            must = f"be numbers in every {element.name}"
            raise DataError(self.path, must=must, found=f"'{error}'") from error

    def _rows(self, file: BinaryIO, element: _Element) -> Iterator[dict[str, tuple[float, ...]]]:
        """Yields rows with lists one by one, as values by the name of their property."""
        for row in range(element.rows):
            try:
                yield self._text_row(file, element) if not self.order else self._binary_row(file, element)
            except (ValueError, IndexError, OverflowError, struct.error) as error:
                raise self._short(element, row) from error

    def _text_row(self, file: BinaryIO, element: _Element) -> dict[str, tuple[float, ...]]:
        fields = [float(field) for field in file.readline().split()]
        values: dict[str, tuple[float, ...]] = {}
        place = 0
        for prop in element.properties:
            count = 1
            if prop.count:
                count, place = int(fields[place]), place + 1
            values[prop.name] = tuple(fields[place : place + count])
            if len(values[prop.name]) != count:
                raise ValueError(prop.name)
            place += count
        return values

    def _binary_row(self, file: BinaryIO, element: _Element) -> dict[str, tuple[float, ...]]:
        values = {}
        for prop in element.properties:
            count = self._numbers(file, prop.count, count=1)[0] if prop.count else 1
            values[prop.name] = self._numbers(file, prop.kind, count=count)
        return values

    def _numbers(self, file: BinaryIO, kind: str, *, count: int) -> tuple[Any, ...]:
        if not 0 <= count <= _LONGEST:
            raise ValueError(count)
        letter = np.dtype(kind).char
        form = f"{self.order}{count}{letter}"
        return struct.unpack(form, file.read(struct.calcsize(form)))

    def _faces(self, file: BinaryIO, element: _Element) -> np.ndarray:
        lists = [prop.name for prop in element.properties if prop.count]
        name = next((one for one in lists if one in ("vertex_indices", "vertex_index")), "")
        if not name:
            must = "give each face a list 'vertex_indices'"
            raise DataError(self.path, must=must, found=", ".join(p.name for p in element.properties))
        triangles = self._uniform(file, element, name) if self.order else None
        if triangles is not None:
            return fan(triangles)
        corners = [np.array(values[name]) for values in self._rows(file, element)]
        short = next((i for i, face in enumerate(corners) if len(face) < 3), None)
        if short is not None:
            must = "have at least 3 corners"
            raise DataError(f"{self.path}, face {short}", must=must, found=str(len(corners[short])))
        return np.concatenate([fan(face[None]) for face in corners]).astype(np.int64)

    def _uniform(self, file: BinaryIO, element: _Element, name: str) -> np.ndarray | None:
        """Returns the corners ``[m, k]`` when every list has as many entries as in the first row, else None.

        Nearly every mesh is of triangles alone; it is then one table, read at once.
        """
        start = file.tell()
        first = next(self._rows(file, element))
        width = file.tell() - start
        parts: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for prop in element.properties:
            if prop.count:
                parts.append((f"{prop.name}#", self.order + prop.count))
            parts.append((prop.name, self.order + prop.kind, (len(first[prop.name]),)))
        kinds = np.dtype(parts)
        assert kinds.itemsize == width, (kinds, width)
        file.seek(start)
        # A header may announce more than memory holds.
        if start + element.rows * width > self.path.stat().st_size or len(first[name]) < 3:
            return None
        data = file.read(element.rows * width)
        file.seek(start)
        table = np.frombuffer(data, dtype=kinds)
        lists = [prop.name for prop in element.properties if prop.count]
        if any((table[f"{one}#"] != len(first[one])).any() for one in lists):
            return None
        return table[name].astype(np.int64)

    def _short(self, element: _Element, row: int) -> DataError:
        return DataError(
            self.path,
            must=f"hold {element.rows:,} rows of '{element.name}', as its header says",
            found=f"that row {row:,} (counted from 0) is cut off or malformed",
            do="Copy or export the file again.",
        )


def fan(corners: np.ndarray) -> np.ndarray:
    """Returns polygons ``[m, k]`` as triangles ``[m (k - 2), 3]`` around their first corners."""
    count = corners.shape[1]
    thirds = [corners[:, [0, i, i + 1]] for i in range(1, count - 1)]
    return np.stack(thirds, axis=1).reshape(-1, 3)


def open_ply(path: Path) -> Ply:
    """Returns a PLY file whose header has been read.

    Raises:
        DataError: no PLY header, an unknown format or type, or no vertex with plain columns.
    """
    with path.open("rb") as file:
        lines = list(_header(file, path=path))
        start = file.tell()
    order, elements = _declared(lines, path=path)
    if bare := [element.name for element in elements if not element.properties]:
        raise DataError(path, must="give every element a property", found=f"none of '{bare[0]}'")
    vertex = [element for element in elements if element.name == "vertex"]
    if len(vertex) != 1 or not vertex[0].flat:
        found = "none" if not vertex else "several, or lists among its properties"
        raise DataError(path, must="have one element 'vertex' of plain numbers", found=found)
    return Ply(path, order, elements, start)


def _header(file: io.BufferedReader, *, path: Path) -> Iterator[str]:
    for number in range(_LONGEST):
        line = file.readline(_LONGEST)
        if number == 0 and line.strip() != b"ply":
            raise DataError(path, must="begin with the line 'ply'", found=repr(line[:20]))
        if not line.endswith(b"\n") or not line.isascii():
            break
        if line.strip() == b"end_header":
            return
        yield line.decode("ascii").strip()
    raise DataError(path, must="have a header that ends in 'end_header'", found="none", do="Export the file again.")


def _declared(lines: list[str], *, path: Path) -> tuple[str, tuple[_Element, ...]]:
    """Returns the byte order ("" = ASCII) and the elements of a header."""
    order, elements = None, []
    for line in lines[1:]:
        words = line.split()
        if not words or words[0] in ("comment", "obj_info"):
            continue
        if words[0] == "format" and len(words) == 3 and words[1] in _ORDERS:
            order = _ORDERS[words[1]]
        elif words[0] == "element" and len(words) == 3 and re.fullmatch(r"\d+", words[2]):
            elements.append(_Element(words[1], int(words[2]), ()))
        elif words[0] == "property" and elements and (prop := _property(words[1:])) is not None:
            last = elements[-1]
            elements[-1] = _Element(last.name, last.rows, (*last.properties, prop))
        else:
            must = "name formats, elements and properties of known types in its header"
            raise DataError(path, must=must, found=f"'{line}'")
    if order is None:
        raise DataError(path, must=f"state its format, one of {', '.join(_ORDERS)}", found="none")
    return order, tuple(elements)


def _property(words: list[str]) -> _Property | None:
    if len(words) == 2 and words[0] in _TYPES:
        return _Property(words[1], _TYPES[words[0]])
    if len(words) == 4 and words[0] == "list" and words[1] in _TYPES and words[2] in _TYPES:
        return _Property(words[3], _TYPES[words[2]], _TYPES[words[1]])
    return None
