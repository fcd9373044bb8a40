"""Meshes as vertices and triangles: OFF, OBJ and STL, and GLB by trimesh.

The plain formats are read here because a truncated file, an OBJ file of bare points and the ModelNet fault below must
each be told from a good mesh. Of all four the shape alone is taken: no colours, no materials, nothing beside the file.
"""

import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.modalities.pointcloud.ply import fan

MESH_SUFFIXES = (".off", ".obj", ".stl", ".glb")
_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
# ModelNet has files whose first line runs on: "OFF490 518 0".
_OFF = re.compile(r"\s*(?:ST)?(?:C)?(?:N)?OFF(?![a-z])", re.IGNORECASE)


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the vertices ``[n, 3]`` of a mesh file and its triangles ``[m, 3]``, None where it has no face.

    Raises:
        DataError: damaged or foreign.
        MissingDependencyError: GLB without trimesh.
    """
    suffix = path.suffix.lower()
    if suffix == ".stl":
        vertices, faces = _read_stl(path.read_bytes(), path=path)
    elif suffix in (".off", ".obj"):
        try:
            text = path.read_text(encoding="utf-8", errors="strict")
        except UnicodeDecodeError as error:
            raise DataError(path, must=f"be {suffix[1:].upper()} text", found=f"'{error}'") from error
        vertices, faces = _read_off(text, path=path) if suffix == ".off" else _read_obj(text, path=path)
    else:
        vertices, faces = _read_by_trimesh(path)
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


def _read_off(text: str, *, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and triangles; what follows the corners on a face's line (a colour) is left out."""
    start = _OFF.match(text)
    if start is None:
        raise DataError(path, must="begin with 'OFF'", found=repr(text[:20]))
    lines = _fields(text[start.end() :])
    counts = _integers(next(lines, []), path=path)
    if len(counts) not in (2, 3) or min(counts) < 0:
        raise DataError(path, must="state the numbers of vertices and faces", found=f"{counts}")
    vertices = [next(lines, []) for _ in range(counts[0])]
    faces = [_integers(next(lines, []), path=path) for _ in range(counts[1])]
    if not all(vertices) or not all(faces):
        found = f"{sum(map(bool, vertices))} and {sum(map(bool, faces))}"
        must = f"hold {counts[0]} vertices and {counts[1]} faces, as its header says"
        raise DataError(path, must=must, found=found, do="Copy the file again.")
    corners = [face[1 : 1 + face[0]] for face in faces]
    wrong = next((i for i, face in enumerate(faces) if len(corners[i]) != face[0]), None)
    if wrong is not None:
        must, found = f"have {faces[wrong][0]} corners", str(len(corners[wrong]))
        raise DataError(f"{path}, face {wrong}", must=must, found=found)
    return _vertices(vertices, path=path), _triangles(corners)


def _read_obj(text: str, *, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices and triangles; a corner is ``v``, ``v/t``, ``v//n`` or ``v/t/n``, negative = from the end."""
    vertices: list[list[str]] = []
    corners: list[list[int]] = []
    for words in _fields(text.replace("\\\n", " ")):
        if words[0] == "v":
            vertices.append(words[1:])
        elif words[0] == "f":
            numbers = _integers([word.split("/")[0] for word in words[1:]], path=path)
            corners.append([n - 1 if n > 0 else len(vertices) + n if n < 0 else -1 for n in numbers])
    if not vertices:
        raise DataError(path, must="have vertices, lines such as 'v 0 0 1'", found="none")
    return _vertices(vertices, path=path), _triangles(corners)


def _read_stl(data: bytes, *, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns vertices, three for each triangle, and triangles, of a binary or an ASCII file."""
    announced = int.from_bytes(data[80:84], "little")
    if len(data) >= 84 and len(data) == 84 + 50 * announced:
        rows = np.frombuffer(data, dtype=_STL, offset=84)
        vertices = rows["corners"].astype(np.float64).reshape(-1, 3)
    elif data.lstrip()[:5].lower() == b"solid" and data.isascii() and b"endsolid" in data.lower():
        words = [line[1:] for line in _fields(data.decode("ascii").lower()) if line[0] == "vertex"]
        vertices = _vertices(words, path=path)
    else:
        must = "be an STL file: 50 bytes a triangle behind their number, or text from 'solid' to 'endsolid'"
        raise DataError(path, must=must, found=f"{len(data):,} bytes of something else", do="Export the mesh again.")
    if not len(vertices) or len(vertices) % 3:
        raise DataError(path, must="hold three vertices a triangle", found=f"{len(vertices)} vertices")
    return vertices, np.arange(len(vertices)).reshape(-1, 3)


def _fields(text: str) -> Iterator[list[str]]:
    """Yields the words of each line that has any, comments left out."""
    for line in text.splitlines():
        if words := line.split("#", maxsplit=1)[0].split():
            yield words


def _integers(words: list[str], *, path: Path) -> list[int]:
    """Returns the whole numbers that a line begins with: a colour behind them may be fractional."""
    try:
        return [int(float(word)) for word in words]
    except ValueError as error:
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
    parts = [fan(np.array(face)[None]) for face in corners if len(face) >= 3]
    return np.concatenate([np.zeros((0, 3), dtype=np.int64), *parts])


def _read_by_trimesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import trimesh
    except ImportError as error:
        raise MissingDependencyError("trimesh", extra="pointcloud", purpose="GLB files") from error
    try:
        mesh = trimesh.load_mesh(path, process=False, skip_materials=True)  # nothing is merged or repaired
    except (ValueError, IndexError, KeyError, TypeError, NameError, OSError, struct.error) as error:
        raise DataError(path, must="be a whole GLB file", found=f"'{error}'", do="Export the mesh again.") from error
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise DataError(path, must="hold a mesh", found="no face")
    return np.asarray(mesh.vertices, dtype=np.float64), np.asarray(mesh.faces, dtype=np.int64)
