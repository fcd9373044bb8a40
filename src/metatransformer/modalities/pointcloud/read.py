"""Point clouds: points in space with what was measured at each, one cloud a file.

PLY, XYZ text, LAS, PCD, KITTI's floats and NPY hold points; OFF, OBJ, STL, glTF and a PLY with faces hold a mesh
(``mesh.py``, ``ply.py``). Nothing is scaled here. A file of more than ``LIMIT`` points is thinned while it is read, so
that memory does not follow the file. Points without coordinates (NaN, where a scanner got nothing back) are left out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.data.numpy_files import list_npz, map_npy, read_npz
from metatransformer.data.records import counted, listing
from metatransformer.modalities.pointcloud.las import LAS_SUFFIXES, read_las
from metatransformer.modalities.pointcloud.mesh import MESH_SUFFIXES, read_mesh, require_vertices
from metatransformer.modalities.pointcloud.pcd import read_floats, read_pcd
from metatransformer.modalities.pointcloud.ply import open_ply
from metatransformer.modalities.pointcloud.points_text import read_points_text

TEXT_SUFFIXES = (".xyz", ".txt", ".pts", ".csv")
CLOUD_SUFFIXES = (".ply", *MESH_SUFFIXES, *TEXT_SUFFIXES, *LAS_SUFFIXES, ".pcd", ".bin", ".npy", ".npz")
MOST_COLUMNS = 64  # more are points that stand in the place of columns
_ROWS = 1 << 18  # of an array, looked at in one piece
LIMIT = 1 << 20  # points of one file that are kept while reading: some 60 MB with normals and colours

# Other spellings of columns, lower case; CloudCompare's and PCL's among them.
_NAMES = {
    "normal_x": "nx",
    "normal_y": "ny",
    "normal_z": "nz",
    "r": "red",
    "g": "green",
    "b": "blue",
    "diffuse_red": "red",
    "diffuse_green": "green",
    "diffuse_blue": "blue",
    "i": "intensity",
    "scalar_intensity": "intensity",
    "reflectance": "intensity",
}
_PLACE = ("x", "y", "z")
_GROUPS = {
    "points": _PLACE,
    "xyz": _PLACE,
    "pos": _PLACE,
    "normals": ("nx", "ny", "nz"),
    "colors": ("red", "green", "blue"),
    "intensity": ("intensity",),
}
_WHOLE = {"u1": 255.0, "u2": 65535.0}  # the brightest value of a colour by its type


@dataclass(frozen=True)
class Cloud:
    """One cloud or mesh as its file has it.

    ``points`` is ``[n, 3]`` in the file's unit; ``extras`` ``[n, k]`` holds the other columns, named by ``names``: nx,
    ny, nz, red, green, blue, intensity, or what the file calls them, "" where it does not say. ``top`` is the brightest
    value that a colour can have, 0 when the file does not state it. ``faces`` are triangles ``[m, 3]``, None for bare
    points. ``total`` counts the points in the file, of which at most ``LIMIT`` are kept, ``gaps`` those of the kept
    that had no coordinates and were left out.
    """

    points: np.ndarray
    extras: np.ndarray
    names: tuple[str, ...] = ()
    top: float = 0.0
    faces: np.ndarray | None = None
    total: int = 0
    gaps: int = 0


def read_cloud(path: str | Path) -> Cloud:
    """Returns the cloud or mesh of a file.

    Raises:
        DataError: no such file, damaged, another layout, no point with coordinates, a face that names a vertex that is
            not there.
        MissingDependencyError: LAS or LAZ without laspy, glTF without trimesh, a compressed PCD without imagecodecs.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, must="be a point cloud", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a point cloud", found="a file of 0 bytes", do="Remove it.")
    suffix = path.suffix.lower()
    if suffix == ".ply":
        return _read_ply(path)
    if suffix in MESH_SUFFIXES:
        points, faces = read_mesh(path)
        return make_cloud(points, names=_PLACE, faces=faces, where=path)
    if suffix in TEXT_SUFFIXES:
        names, chunks = read_points_text(path)
        return _gathered(chunks, names=names, where=path)
    if suffix in LAS_SUFFIXES:
        # The standard says 16 bit; many writers put 8-bit colours there, so nothing is stated.
        names, chunks = read_las(path)
        return _gathered(chunks, names=names, where=path)
    if suffix in (".pcd", ".bin"):
        return _from_columns(read_pcd(path) if suffix == ".pcd" else read_floats(path), where=path)
    if suffix in (".npy", ".npz"):
        return _read_numpy(path)
    raise DataError(path, must=f"end in {', '.join(CLOUD_SUFFIXES)}", found=f"the ending '{path.suffix}'")


def make_cloud(
    table: np.ndarray,
    *,
    names: Sequence[str],
    where: object,
    top: float = 0.0,
    faces: np.ndarray | None = None,
    total: int = 0,
) -> Cloud:
    """Returns a cloud of a table ``[n, columns]``; without names, the first three columns are x, y, z.

    Raises:
        DataError: another shape, no number, no x, y or z, two columns of one name, no point with coordinates, a mesh
            with a vertex that has none, a face that names a vertex that is not there.
    """
    if table.ndim != 2 or not 3 <= table.shape[1] <= MOST_COLUMNS or table.dtype.kind not in "iuf":
        must = f"be numbers [points, columns], with 3 to {MOST_COLUMNS} columns"
        raise DataError(where, must=must, found=f"{table.dtype} of shape {table.shape}")
    if len(table) == 0:
        raise DataError(where, must="hold at least one point", found="none")
    names = [_canonical(name) for name in names] or [*_PLACE, *[""] * (table.shape[1] - 3)]
    if missing := [name for name in _PLACE if name not in names]:
        raise DataError(where, must="have the columns x, y, z", found=f"no '{missing[0]}' among {listing(names)}")
    if twice := [name for name in names if name and names.count(name) > 1]:
        raise DataError(where, must="name every column differently", found=f"'{twice[0]}' more than once")
    with np.errstate(invalid="ignore"):  # NaN is counted here
        table = table.astype(np.float64)
    place, count = [names.index(name) for name in _PLACE], len(table)
    there = np.isfinite(table[:, place]).all(axis=1)
    if (bad := int((~there).sum())) and (faces is not None or bad == count):
        must, found = "have finite coordinates", f"{counted(bad, 'point')} of {count:,} with NaN or infinity"
        raise DataError(where, must=must, found=found, do="Export it again.")
    if faces is not None:
        require_vertices(faces, count=count, where=where)
    rest = [i for i, name in enumerate(names) if name not in _PLACE]
    table = table[there] if bad else table
    return Cloud(table[:, place], table[:, rest], tuple(names[i] for i in rest), top, faces, total or count, bad)


def cloud_in_memory(value: Any, *, where: object) -> Cloud:
    """Returns the cloud of an array ``[n, 3 or more]``, or of a mapping with ``points`` and any of ``normals``,
    ``colors``, ``intensity``, or of what ``load`` made of a file.

    Raises:
        DataError: an unknown key, no points, arrays of different length, or what ``make_cloud`` raises.
    """
    if not isinstance(value, Mapping):
        return _from_arrays({"points": np.asarray(value)}, where=where)
    if "extras" in value and value.keys() <= {field.name for field in fields(Cloud)}:
        loaded = Cloud(**value)
        table = np.concatenate([loaded.points, loaded.extras], axis=1)
        names = (*_PLACE, *loaded.names)
        cloud = make_cloud(table, names=names, where=where, top=loaded.top, faces=loaded.faces, total=loaded.total)
        return replace(cloud, gaps=loaded.gaps + cloud.gaps)
    return _from_arrays({name: np.asarray(array) for name, array in value.items()}, where=where)


def gather(chunks: Iterable[np.ndarray], *, limit: int) -> tuple[np.ndarray, int]:
    """Returns at most ``limit`` rows of a table that comes in pieces, in their order, and how many there were.

    Each row draws a number, seeded by its place; those with the smallest are kept, so every row has the same chance.
    """
    rng = np.random.default_rng(0)
    rows: list[np.ndarray] = []
    keys: list[np.ndarray] = []
    total = held = 0
    for chunk in chunks:
        rows.append(chunk)
        keys.append(rng.random(len(chunk)))
        total, held = total + len(chunk), held + len(chunk)
        if held > 2 * limit:
            rows, keys = _smallest(rows, keys, limit=limit)
            held = limit
    if not rows:
        return np.zeros((0, 3)), 0
    if held > limit:
        rows, keys = _smallest(rows, keys, limit=limit)
    return np.concatenate(rows), total


def _smallest(
    rows: list[np.ndarray], keys: list[np.ndarray], *, limit: int
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    table, drawn = np.concatenate(rows), np.concatenate(keys)
    kept = np.sort(np.argpartition(drawn, limit)[:limit])
    return [table[kept]], [drawn[kept]]


def _gathered(chunks: Iterable[np.ndarray], *, names: Sequence[str], where: object, top: float = 0.0) -> Cloud:
    table, total = gather(chunks, limit=LIMIT)
    return make_cloud(table, names=names, where=where, top=top, total=total)


def _canonical(name: str) -> str:
    name = name.strip().lower()
    return _NAMES.get(name, name)


def _top(kinds: Iterable[np.dtype[Any]]) -> float:
    """Returns the brightest colour of columns of these types, 0 where they leave it open."""
    tops = {_WHOLE.get(kind.str[1:], 0.0) for kind in kinds}
    return tops.pop() if len(tops) == 1 else 0.0


def _read_ply(path: Path) -> Cloud:
    ply = open_ply(path)
    names = [_canonical(name) for name in ply.names]
    colours = ("red", "green", "blue")
    top = _top([np.dtype(kind) for name, kind in zip(names, ply.kinds, strict=True) if name in colours])
    if not ply.is_mesh:
        return _gathered(ply.vertices(), names=names, where=path, top=top)
    table = np.concatenate([np.zeros((0, len(names))), *ply.vertices()])
    return make_cloud(table, names=names, where=path, top=top, faces=ply.faces())


def _read_numpy(path: Path) -> Cloud:
    with path.open("rb") as file:
        packed = file.read(2) == b"PK"
    # A map, so that only the rows that are kept are held.
    arrays = {name: read_npz(path, name) for name in list_npz(path)} if packed else {"points": map_npy(path)}
    if len(arrays) == 1:
        arrays = {"points": next(iter(arrays.values()))}
    return _from_arrays(arrays, where=path)


def _from_columns(table: np.ndarray, *, where: object) -> Cloud:
    """Returns the cloud of a structured array, whose columns have names; those that are no numbers are left out."""
    kinds = {name: kind for name, (kind, *_) in (table.dtype.fields or {}).items() if kind.kind in "iuf"}
    names = [_canonical(name) for name in kinds]
    top = _top([kind for name, kind in zip(names, kinds.values(), strict=True) if name in _GROUPS["colors"]])
    flat = table.reshape(-1)
    count = len(flat) if kinds else 0  # rows of nothing can be billions in a file of a few bytes
    parts = (flat[i : i + _ROWS] for i in range(0, count, _ROWS))
    chunks = (_beside([part[name] for name in kinds]) for part in parts)
    return _gathered(chunks, names=names, where=where, top=top)


def _beside(columns: Sequence[np.ndarray]) -> np.ndarray:
    """Returns columns as one table of float64."""
    with np.errstate(invalid="ignore"):  # NaN of a kind that signals
        return np.stack([column.astype(np.float64) for column in columns], axis=1)


def _from_arrays(arrays: Mapping[str, np.ndarray], *, where: object) -> Cloud:
    """Returns the cloud of arrays that are named points, normals, colors, intensity."""
    places = [name for name in arrays if _GROUPS.get(name) is _PLACE]
    if len(places) != 1 or not arrays.keys() <= _GROUPS.keys():
        must = f"have points and any of {', '.join(list(_GROUPS)[3:])}"
        raise DataError(where, must=must, found=listing(arrays))
    points = arrays[places[0]]
    if points.dtype.names and len(arrays) == 1:
        return _from_columns(points, where=where)
    if not points.ndim:
        raise DataError(f"{where}, {places[0]}", must="be [n, 3], one row a point", found="a single number")
    if points.ndim == 3 and points.shape[2] >= 3:  # rows and columns of a depth camera
        arrays = {name: array.reshape(-1, *array.shape[2:]) for name, array in arrays.items()}
        points = arrays[places[0]]
    if points.ndim == 2 and len(arrays) == 1:
        chunks = (points[i : i + _ROWS] for i in range(0, len(points), _ROWS))
        table, total = gather(chunks, limit=LIMIT)
        return make_cloud(table, names=(), where=where, top=_top([points.dtype]), total=total)
    tables, names = [], []
    for name, array in arrays.items():
        table = array[:, None] if array.ndim == 1 else array
        if table.ndim != 2 or len(table) != len(points) or table.shape[1] != len(_GROUPS[name]):
            must = f"be [{len(points)}, {len(_GROUPS[name])}], one row a point"
            raise DataError(f"{where}, {name}", must=must, found=f"shape {array.shape}")
        tables.append(table)
        names += _GROUPS[name]
    top = _top([arrays["colors"].dtype]) if "colors" in arrays else 0.0
    table, total = gather([np.concatenate(tables, axis=1)], limit=LIMIT)
    return make_cloud(table, names=names, where=where, top=top, total=total)


def sampled(cloud: Cloud, *, count: int, seed: int, where: object) -> Cloud:
    """Returns ``count`` points drawn evenly over the surface of a mesh, with its vertices' columns in between.

    The normal of its triangle (counter-clockwise seen from outside) becomes nx, ny, nz.

    Raises:
        DataError: the surface has no area.
    """
    assert cloud.faces is not None
    corners = cloud.points[cloud.faces]  # [m, 3 corners, 3]
    with np.errstate(over="ignore", invalid="ignore"):
        cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        double = np.linalg.norm(cross, axis=1)
        whole = float(double.sum())
    if not 0 < whole < np.inf:
        found = "none" if whole == 0 else f"corners at up to {np.abs(cloud.points).max():g}"
        raise DataError(where, must="have faces with an area", found=found)
    rng = np.random.default_rng(seed)
    which = rng.choice(len(double), size=count, p=double / double.sum())
    u, v = rng.random((2, count, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)  # fold the square onto the triangle
    weights = np.concatenate([1 - u - v, u, v], axis=1)  # [count, 3]
    points = np.einsum("nc,ncd->nd", weights, corners[which])
    extras = np.einsum("nc,ncd->nd", weights, cloud.extras[cloud.faces[which]])
    kept = [i for i, name in enumerate(cloud.names) if name not in ("nx", "ny", "nz")]
    normals = cross[which] / double[which, None]
    return replace(
        cloud,
        points=points,
        extras=np.concatenate([extras[:, kept], normals], axis=1),
        names=(*(cloud.names[i] for i in kept), "nx", "ny", "nz"),
        faces=None,
        total=count,
    )
