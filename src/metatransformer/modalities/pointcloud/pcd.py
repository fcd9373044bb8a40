"""PCD, the format of the Point Cloud Library: text, binary or compressed; and KITTI's bare floats.

Sources: the PCD file format, version 0.7 (pointclouds.org); the KITTI Vision Benchmark's devkit (x, y, z, reflectance
as float32), and nuScenes', which adds the ring.
"""

from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.limits import require_room

_SIZES = {"I": (1, 2, 4, 8), "U": (1, 2, 4, 8), "F": (2, 4, 8)}
_LINES = 64  # of a header, which has ten
LZF = 256  # the most bytes that come out of one: a run of 264 out of three


def read_pcd(path: Path) -> np.ndarray:
    """Returns the points of a file as a table with named columns [n]; a colour becomes red, green and blue.

    Raises:
        DataError: no PCD header, a field of an unknown type, fewer bytes than announced.
        MissingDependencyError: a compressed file without imagecodecs.
    """
    with path.open("rb") as file:
        header: dict[str, list[str]] = {}
        while "DATA" not in header:
            line = file.readline(1 << 16)
            if not line or len(header) > _LINES:
                must = "have a header that ends with the line DATA"
                raise DataError(path, must=must, found=repr(line[:20]), do="Export it again.")
            words = line.decode("latin-1").split()
            if words and not words[0].startswith("#"):
                header[words[0].upper()] = words[1:]
        start = file.tell()
    kinds, points = _kinds(header, path=path)
    form = " ".join(header["DATA"]).lower()
    if form == "ascii":
        table = _read_text(path, kinds, points=points, start=start)
    elif form == "binary":
        require_room(path, shape=(points, kinds.itemsize), bytes_each=1, what="bytes of points")
        if start + points * kinds.itemsize > path.stat().st_size:
            raise _cut(path, points=points)
        table = np.memmap(path, dtype=kinds, mode="r", offset=start, shape=(points,))
    elif form == "binary_compressed":
        table = _unpacked(path, kinds, points=points, start=start)
    else:
        raise DataError(path, must="hold DATA ascii, binary or binary_compressed", found=f"'{form}'")
    return _with_colours(table)


def read_floats(path: Path) -> np.ndarray:
    """Returns the points of a file of bare float32 as a table with named columns [n].

    Raises:
        DataError: bytes that make no whole points.
    """
    names = ("x", "y", "z", "intensity")
    names = (*names, "ring") if path.name.lower().endswith(".pcd.bin") else names
    size = path.stat().st_size
    if size % (4 * len(names)):
        must = f"hold {len(names)} numbers of 4 bytes a point ({', '.join(names)})"
        raise DataError(path, must=must, found=f"{size:,} bytes", do="Copy it again, or save it as NPY.")
    return np.memmap(path, dtype=[(name, "<f4") for name in names], mode="r")


def _kinds(header: dict[str, list[str]], *, path: Path) -> tuple[np.dtype[Any], int]:
    """Returns the type of a point, and how many points there are."""
    fields = header.get("FIELDS", header.get("COLUMNS", []))
    sizes, types = header.get("SIZE", []), header.get("TYPE", [])
    counts = header.get("COUNT", ["1"] * len(fields))
    points = header.get("POINTS") or header.get("WIDTH", [])
    numbers = [*sizes, *counts, *points]
    if not fields or {len(sizes), len(types), len(counts)} != {len(fields)} or len(points) != 1:
        raise DataError(path, must="state FIELDS, SIZE, TYPE and POINTS, as many of each", found=f"{header}"[:200])
    if not all(number.isascii() and number.isdecimal() and len(number) < 19 for number in numbers):
        raise DataError(path, must="state whole numbers as SIZE, COUNT and POINTS", found=f"{numbers}"[:200])
    parts = []
    for place, (name, size, kind, count) in enumerate(zip(fields, sizes, types, counts, strict=True)):
        if int(size) not in _SIZES.get(kind, ()) or not 1 <= int(count) <= 4096:
            must = f"have fields of the types {', '.join(_SIZES)} and usual sizes"
            raise DataError(path, must=must, found=f"'{name}' as {kind}{size} x {count}")
        # "_" is padding, and several fields may be called so.
        name = f"_{place}" if name == "_" or name in fields[:place] else name
        parts.append((name, f"<{kind.lower()}{size}", (int(count),) if int(count) > 1 else ()))
    return np.dtype(parts), int(points[0])


def _read_text(path: Path, kinds: np.dtype[Any], *, points: int, start: int) -> np.ndarray:
    with path.open("rb") as file:
        file.seek(start)
        lines = [line for line in file if line.strip()]
    if len(lines) != points:
        raise _cut(path, points=points, found=len(lines))
    with foreign(path, "numpy", must=f"have a number for each of {', '.join(kinds.names or ())} in every line"):
        return np.loadtxt(lines, dtype=kinds, ndmin=1, comments=None, encoding="latin-1")


def _unpacked(path: Path, kinds: np.dtype[Any], *, points: int, start: int) -> np.ndarray:
    """Returns compressed points: one column after the other, packed by LZF behind the two sizes."""
    try:
        from imagecodecs import lzf_decode
    except ImportError as error:
        purpose = f"reading {path}: compressed points"
        raise MissingDependencyError("imagecodecs", extra="pointcloud", purpose=purpose) from error
    data = path.read_bytes()[start:]
    packed, size = (int.from_bytes(data[place : place + 4], "little") for place in (0, 4))
    if len(data) < 8 + packed or size != points * kinds.itemsize:
        raise _cut(path, points=points)
    require_room(path, shape=(points, kinds.itemsize), bytes_each=1, what="bytes of points", ratio=LZF)
    with foreign(path, "liblzf", must="be a whole PCD file"):
        flat = lzf_decode(data[8 : 8 + packed], out=size)
    if len(flat) != size:
        raise _cut(path, points=points)
    table, place = np.empty(points, dtype=kinds), 0
    for name in kinds.names or ():
        column = kinds[name]
        table[name] = np.frombuffer(flat, column, points, place)
        place += points * column.itemsize
    return table


def _with_colours(table: np.ndarray) -> np.ndarray:
    """Returns the columns of single numbers; "rgb", three bytes inside a float or a whole number, as three columns."""
    columns: dict[str, np.ndarray] = {}
    for name in table.dtype.names or ():
        column = table[name]
        if name.lower() in ("rgb", "rgba") and column.ndim == 1 and column.dtype.itemsize == 4:
            packed = np.ascontiguousarray(column).view(np.uint32)
            for colour, shift in (("red", 16), ("green", 8), ("blue", 0)):
                columns[colour] = ((packed >> shift) & 255).astype(np.uint8)
        elif column.ndim == 1 and not name.startswith("_"):
            columns[name] = column
    found = np.empty(len(table), dtype=[(name, column.dtype) for name, column in columns.items()])
    for name, column in columns.items():
        found[name] = column
    return found


def _cut(path: Path, *, points: int, found: int | None = None) -> DataError:
    has = "fewer bytes" if found is None else f"{found:,}"
    return DataError(path, must=f"hold {points:,} points, as its header says", found=has, do="Copy the file again.")
