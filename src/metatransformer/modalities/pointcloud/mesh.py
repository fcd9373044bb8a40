"""Meshes as vertices and triangles: OFF, OBJ and STL, and glTF by trimesh.

The plain formats are read here: trimesh takes an OFF file that was cut off for a whole one, leaves out vertices of an
OBJ file, counts its negative corners from the end of the file, and needs a further package for text that is no UTF-8.
Of all four the shape alone is taken: no colours, no materials.
"""

import json
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.modalities.pointcloud.ply import fans

MESH_SUFFIXES = (".off", ".obj", ".stl", ".glb", ".gltf")
_PACKED = 64  # values of a glTF accessor that a byte of the file may hold at most; Draco comes to a tenth of it
_STL: Any = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# ModelNet has files whose first line runs on: "OFF490 518 0".
_OFF = re.compile(r"\s*(?:ST)?(?:C)?(?:N)?OFF(?![a-z])", re.IGNORECASE)


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the vertices ``[n, 3]`` of a mesh file and its triangles ``[m, 3]``, None where it has no face.

    Raises:
        DataError: damaged or foreign.
        MissingDependencyError: glTF without trimesh.
    """
    readers = {".off": _read_off, ".obj": _read_obj, ".stl": _read_stl}
    vertices, faces = readers.get(path.suffix.lower(), _read_by_trimesh)(path)
    return vertices, faces if len(faces) else None


def require_vertices(faces: np.ndarray, *, count: int, where: object) -> None:
    """Raises DataError when a triangle names a vertex outside ``0..count - 1``."""
    bad = np.flatnonzero(((faces < 0) | (faces >= count)).any(axis=1))
    if len(bad):
        wrong = faces[bad[0]]
        raise DataError(
            where,
            must=f"have faces among its vertices 0..{count - 1}",
            found=f"vertex {wrong[(wrong < 0) | (wrong >= count)][0]}",
            do="Export the mesh again.",
        )


def _read_off(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and triangles; what follows the corners on a face's line (a colour) is left out."""
    text = _text(path)
    start = _OFF.match(text)
    if start is None:
        raise DataError(path, must="begin with 'OFF'", found=repr(text[:20]))
    lines = list(_fields(text[start.end() :]))
    counts = _integers(lines[0] if lines else [], path=path)
    if len(counts) not in (2, 3) or min(counts) < 0:
        raise DataError(path, must="state the numbers of vertices and faces", found=f"{counts}")
    vertices, faces = lines[1 : 1 + counts[0]], lines[1 + counts[0] : 1 + counts[0] + counts[1]]
    if len(vertices) < counts[0] or len(faces) < counts[1]:
        must = f"hold {counts[0]} vertices and {counts[1]} faces, as its header says"
        raise DataError(path, must=must, found=f"{len(vertices)} and {len(faces)}", do="Copy the file again.")
    corners = []
    for number, words in enumerate(faces):
        (wanted,) = _integers(words[:1], path=path)
        corners.append(_integers(words[1 : 1 + max(0, wanted)], path=path))
        if len(corners[-1]) != wanted:
            raise DataError(f"{path}, face {number}", must=f"have {wanted} corners", found=str(len(corners[-1])))
    return _vertices(vertices, path=path), _triangles(corners)


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and triangles; a corner is ``v``, ``v/t``, ``v//n`` or ``v/t/n``, negative = from the end."""
    vertices: list[list[str]] = []
    corners: list[list[int]] = []
    for words in _fields(_text(path).replace("\\\n", " ")):
        if words[0] == "v":
            vertices.append(words[1:])
        elif words[0] == "f":
            numbers = _integers([word.partition("/")[0] for word in words[1:]], path=path)
            corners.append([n - 1 if n > 0 else len(vertices) + n if n < 0 else -1 for n in numbers])
    if not vertices:
        raise DataError(path, must="have vertices, lines such as 'v 0 0 1'", found="none")
    return _vertices(vertices, path=path), _triangles(corners)


def _read_stl(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices, three for each triangle, and triangles, of a binary or an ASCII file."""
    data = path.read_bytes()
    announced = int.from_bytes(data[80:84], "little")
    if len(data) >= 84 and len(data) == 84 + 50 * announced:
        with np.errstate(invalid="ignore"):  # NaN of a kind that signals
            vertices = np.frombuffer(data, dtype=_STL, offset=84)["corners"].astype(np.float64).reshape(-1, 3)
    elif data.lstrip()[:5].lower() == b"solid" and b"endsolid" in data.lower():
        words = [line[1:] for line in _fields(_text(path).lower()) if line[0] == "vertex"]
        vertices = _vertices(words, path=path)
    else:
        must = "be an STL file: 50 bytes a triangle behind their number, or text from 'solid' to 'endsolid'"
        raise DataError(path, must=must, found=f"{len(data):,} bytes of something else", do="Export the mesh again.")
    if not len(vertices) or len(vertices) % 3:
        raise DataError(path, must="hold three vertices a triangle", found=f"{len(vertices)} vertices")
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


def _read_by_trimesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import trimesh
    except ImportError as error:
        raise MissingDependencyError("trimesh", extra="pointcloud", purpose=f"reading {path}") from error
    if fault := _fault(path):
        raise DataError(path, must="be a whole glTF file", found=fault, do="Export the mesh again.")
    with foreign(path, "trimesh", must="be a whole glTF file", do="Export the mesh again."):
        mesh = trimesh.load_mesh(path, process=False, skip_materials=True)  # nothing is merged or repaired
        vertices, faces = np.array(mesh.vertices, dtype=np.float64), np.array(mesh.faces, dtype=np.int64)
    if not len(faces):
        raise DataError(path, must="hold a mesh", found="no face")
    return vertices, faces


def _fault(path: Path) -> str:
    """Returns what a glTF file claims to hold and cannot; empty where it claims nothing of the kind.

    trimesh reserves memory for as many bytes as a chunk claims, and fills accessors without data with zeros. Source:
    glTF 2.0, sections 4.4 (binary layout) and 3.6 (accessors).
    """
    text, size = path.read_bytes(), path.stat().st_size
    if path.suffix.lower() == ".glb":
        data, place, text = text, 12, b""
        while len(head := data[place : place + 8]) == 8:
            (length,) = struct.unpack("<I4x", head)
            if place + 8 + length > size:
                return f"a chunk of {length:,} bytes at byte {place} of {size:,}"
            text = text or data[place + 8 : place + 8 + length]
            place += 8 + length
    else:
        size += sum(file.stat().st_size for file in path.parent.glob("*.bin"))
    try:
        counts = [one["count"] for one in json.loads(text)["accessors"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""  # trimesh says what is wrong
    return next((f"an accessor of {n:,} values" for n in counts if isinstance(n, int) and n > _PACKED * size), "")


def _text(path: Path) -> str:
    """Returns the text of a file: what is no ASCII there is a comment or a name, and carries no data."""
    return path.read_text(encoding="latin-1")


def _fields(text: str) -> Iterator[list[str]]:
    """Yields the words of each line that has any, comments left out."""
    for line in text.split("\n"):  # splitlines would also split at bytes inside a comment
        if words := line.partition("#")[0].split():
            yield words


def _integers(words: list[str], *, path: Path) -> list[int]:
    """Returns whole numbers, which some programs write as 3.0."""
    try:
        numbers = [int(word) if word.isdecimal() else int(float(word)) for word in words]
        return np.array(numbers, dtype=np.int64).tolist()
    except (ValueError, OverflowError) as error:
        raise DataError(path, must="name its vertices by whole numbers", found=f"'{' '.join(words)[:60]}'") from error


def _vertices(rows: list[list[str]], *, path: Path) -> np.ndarray:
    short = next((i for i, row in enumerate(rows) if len(row) < 3), None)
    if short is not None:
        raise DataError(f"{path}, vertex {short}", must="have x, y and z", found=f"'{' '.join(rows[short])}'")
    try:
        return np.array([row[:3] for row in rows], dtype=np.float64).reshape(-1, 3)
    except ValueError as error:
        raise DataError(path, must="have numbers as coordinates", found=f"'{error}'") from error


def _triangles(corners: list[list[int]]) -> np.ndarray:
    """Returns polygons as triangles; an edge or a point that a file calls a face has no surface and is left out."""
    counts = np.array([len(face) for face in corners], dtype=np.int64)
    groups = [np.flatnonzero(counts == count) for count in np.unique(counts[counts >= 3])]
    return fans((rows, np.array([corners[row] for row in rows], dtype=np.int64)) for rows in groups)
