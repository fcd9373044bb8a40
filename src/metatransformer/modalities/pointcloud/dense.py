"""A class for every point: where labels stand, what each point is known by, and what is written.

Labels are a column of a cloud's own file (``label``, ``class``, ``classification`` of LAS, or as ``task.target`` says),
or the layout of S3DIS: a folder a place with ``Annotations/CLASS_n.txt``, one file an object. A point is known by what
the trunk makes of the pictures that the cloud is drawn as, at the pixels where the point stands in each, and by its
neighbourhood: heights in columns of several widths, and the shape of its 10 and 40 nearest neighbours (Weinmann et al.
2015, "Semantic point cloud interpretation based on optimal neighborhoods").
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from metatransformer.core.errors import DataError, UnlabelledError, nearest
from metatransformer.core.labels import Colour, Legend, PlaceLabels
from metatransformer.core.modality import Answer
from metatransformer.core.samples import View
from metatransformer.data.folder import index_names
from metatransformer.data.given import Folder, Sheet, recognise
from metatransformer.data.index import index_files
from metatransformer.data.legend import find_legend, read_legend
from metatransformer.data.manifest import FOLDER, index_manifest
from metatransformer.data.records import Index, Records, listing
from metatransformer.data.write import atomic_file
from metatransformer.modalities.pointcloud.las import LAS_SUFFIXES, write_classes
from metatransformer.modalities.pointcloud.read import CLOUD_SUFFIXES, Cloud, read_cloud

ROOM = "Annotations"  # of S3DIS: the folder of a place's objects
LABELS = ("label", "labels", "class", "classification", "scalar_label", "scalar_classification", "semantic")
LABELS += ("scalar_class", "semantic_label", "category", "class_id", "label_id")
WIDTHS = (0.02, 0.06, 0.16)  # of columns, in shares of the longest side: 1, 3 and 8 m of a plot of 50 m
NEIGHBOURS = (10, 40)
SHAPES = 11  # numbers of a neighbourhood
PLAIN = 4 * len(WIDTHS) + SHAPES * len(NEIGHBOURS) + 1
TINY = 1e-9


def read_room(path: Path) -> Cloud:
    """Returns the points of all objects of a place, in the order of their files.

    Raises:
        DataError: no object, or what ``read_cloud`` raises of one.
    """
    clouds = [read_cloud(file) for file in _objects(path)]
    width = min(cloud.extras.shape[1] for cloud in clouds)
    names = ("red", "green", "blue") if width == 3 else ("",) * width
    points, extras = (
        np.concatenate(parts) for parts in ([c.points for c in clouds], [c.extras[:, :width] for c in clouds])
    )
    return Cloud(points, extras, names, total=len(points), gaps=sum(cloud.gaps for cloud in clouds))


def _objects(path: Path) -> list[Path]:
    found = sorted(file for file in (path / ROOM).glob("*.txt") if file.is_file())
    if not found:
        raise DataError(path, must=f"hold {ROOM}/CLASS_n.txt, a file for each object", found="none")
    return found


def _class_of(file: Path) -> str:
    return file.stem.rpartition("_")[0] or file.stem


def read_room_labels(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Returns the place of its class in ``names`` for each point of ``read_room``."""
    files = _objects(path)
    return np.concatenate([np.full(len(read_cloud(file).points), names.index(_class_of(file))) for file in files])


def read_column(path: Path, column: str) -> np.ndarray:
    """Returns the labels of a cloud's points, a column of its file ("" = the one that is called as labels are).

    Raises:
        DataError: there is no such column, or it holds fractions.
    """
    cloud = read_cloud(path)
    found = [name for name in cloud.names if name == column.lower() or (not column and name in LABELS)]
    if len(found) != 1:
        listed = listing(name or "a column without a name" for name in cloud.names) or "none"
        must = f"have a column '{column}'" if column else f"have one column of labels ({', '.join(LABELS[:4])}, ...)"
        do = nearest(column, cloud.names) if column else "Name it with --target."
        raise DataError(path, must=f"{must} behind x, y, z", found=listing(found) or listed, do=do)
    values = cloud.extras[:, cloud.names.index(found[0])]
    if not (np.isfinite(values) & (values == np.rint(values))).all():
        raise DataError(f"{path}, column '{found[0]}'", must="hold whole numbers", found="fractions or NaN")
    return values.astype(np.int64)


def index_points(data: Any, *, options: Any, labelled: bool, labels: str = "", target: str = "") -> Index:
    """Returns one record a cloud with the labels of its points as target.

    Raises:
        DataError: what ``index_files`` raises, or a damaged label map.
        UnlabelledError: arrays, which bring no labels.
    """
    del options
    given = recognise(data)
    if isinstance(given, Folder) and (rooms := _rooms(given.path)):
        index = index_names(given.path, names=rooms, notes=[], require_labels=False)
    elif isinstance(given, Sheet) and given.lists_files:
        suffixes = (*CLOUD_SUFFIXES, FOLDER)
        index = index_manifest(given, suffixes=suffixes, label_column="label", require_labels=False)
    else:
        index = index_files(given, suffixes=CLOUD_SUFFIXES, require_labels=False)
    records = index.records.replace(targets=[None] * len(index.records))
    if not labelled:
        return replace(index, records=records)
    paths = [path for path in records.paths if path is not None]
    if len(paths) < len(records):
        raise UnlabelledError("the data", must="be files whose points have labels", found="arrays")
    root = index.root or paths[0].parent
    legend = read_legend(Path(labels)) if labels else find_legend(root)
    return replace(index, records=_with_labels(records, paths, legend, target=target))


def _rooms(root: Path) -> list[str]:
    """Returns the folders below ``root`` that are places as S3DIS has them."""
    found = []
    for folder, names, _ in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith((".", "__")))
        if ROOM in names:
            found.append(Path(folder).relative_to(root).as_posix())
            names[:] = []
    return [] if found == ["."] else found


def _with_labels(records: Records, paths: Sequence[Path], legend: Legend, *, target: str) -> Records:
    rooms = [path for path in paths if path.is_dir()]
    names = tuple(sorted({_class_of(file) for path in rooms for file in _objects(path)}))
    named = Legend(dict(enumerate(names)), legend.colours)
    found = []
    for path in paths:
        about = path.stat()
        read = partial(read_room_labels, path, names) if path.is_dir() else partial(read_column, path, target)
        stamp = f"{about.st_size} {about.st_mtime_ns}"
        found.append(PlaceLabels(str(path), read, named if path.is_dir() else legend, stamp))
    return records.replace(targets=found)


# --- what a point is known by -----------------------------------------------------------------------------------------


def neighbourhoods(points: np.ndarray) -> np.ndarray:
    """Returns ``[n, PLAIN]`` of points ``[n, 3]``, z up, in half sides of the cloud."""
    from scipy.spatial import KDTree

    height = points[:, 2] - points[:, 2].min()
    columns: list[np.ndarray] = [height]
    for width in WIDTHS:
        cells = np.floor((points[:, :2] - points[:, :2].min(axis=0)) / (2 * width)).astype(np.int64)
        column = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
        low, high = np.full(column.max() + 1, np.inf), np.full(column.max() + 1, -np.inf)
        np.minimum.at(low, column, height)
        np.maximum.at(high, column, height)
        above = height - low[column]
        columns += [above, np.log(above + 0.002), high[column] - height, np.log(np.bincount(column)[column])]
    tree = KDTree(points)
    for count in NEIGHBOURS:
        distance, near = tree.query(points, min(count, len(points)))
        columns += [*_shapes(points, near).T, np.log(distance[:, -1] + 1e-6)]
    return np.stack(columns, axis=1).astype(np.float32)


def _shapes(points: np.ndarray, near: np.ndarray) -> np.ndarray:
    """Returns how lines, planes and balls the neighbours ``near`` [n, k] of each point make, and which way they lie."""
    around = points[near] - points[near].mean(axis=1, keepdims=True)
    spread, axes = np.linalg.eigh(np.einsum("nki,nkj->nij", around, around) / near.shape[1])
    small, middle, large = np.maximum(spread, 1e-12).T
    total = small + middle + large
    upright, along = np.abs(axes[:, 2, 0]), np.abs(axes[:, 2, 2])
    forms = [(large - middle) / large, (middle - small) / large, small / large, small / total, upright, along]
    sizes = [np.log(total + TINY), around[..., 2].max(axis=1), around[..., 2].min(axis=1)]
    return np.stack([*forms, *sizes, np.log(around[..., 2].std(axis=1) + 1e-6)], axis=1)


def places_of(points: np.ndarray, *, frames: Tensor, rows: int, sheets: int) -> np.ndarray:
    """Returns ``[n, 2 V + PLAIN]``: where each point stands on the sheet of V views, -1..1 across and down, and its
    neighbourhood. ``points`` are in half sides; a sheet has ``rows`` rows of views, ``sheets`` lie below each other.
    """
    seen = np.clip(np.einsum("nj,vij->nvi", points, frames.numpy()), -1, 1)
    views = np.arange(len(frames))
    across = len(frames) // rows
    x = (views % across + (1 + seen[..., 0]) / 2) / across
    y = (views // across + (1 - seen[..., 1]) / 2) / (rows * sheets)
    where = np.stack([2 * x - 1, 2 * y - 1], axis=-1).reshape(len(points), -1)
    return np.concatenate([where, neighbourhoods(points)], axis=1).astype(np.float32)


def at_points(values: Tensor, places: np.ndarray, chosen: np.ndarray | None) -> Tensor:
    """Returns values on the sheet's tokens ``[r, c, F]`` at points ``[m, F]``: the mean over the views."""
    where = torch.from_numpy(places[:, :-PLAIN] if chosen is None else places[chosen, :-PLAIN]).to(values)
    spots = where.reshape(1, len(where), -1, 2)  # [1, m, V, 2]
    grid = values.permute(2, 0, 1)[None]
    found = F.grid_sample(grid, spots, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0].mean(dim=2).T


def plain_of(places: np.ndarray) -> np.ndarray:
    """Returns the neighbourhoods ``[n, PLAIN]``."""
    return places[:, -PLAIN:]


def local_points(raw: View, places: np.ndarray, chosen: np.ndarray | None) -> np.ndarray:
    """Returns the neighbourhoods of some points, or of all ``[m, PLAIN]``."""
    del raw
    found = plain_of(places)
    return found if chosen is None else found[chosen]


# --- what is written --------------------------------------------------------------------------------------------------


def write_points(path: Path, raw: Callable[[], View], answer: Answer) -> Path:
    """Writes the points with the numbers of their classes as ``label``, and their colours, as a binary PLY; of a LAS or
    LAZ file a copy with the codes of their classes.
    """
    numbers, names, colours, codes, source = answer
    if source is not None and source.suffix.lower() in LAS_SUFFIXES:
        named = {code: name for code, name in zip(codes, names, strict=True) if name != str(code)}
        own, points = path.with_suffix(source.suffix.lower()), np.asarray(raw().inputs["points"])
        write_classes(own, source=source, points=points, codes=np.array(codes)[numbers], names=named)
        return own
    kinds = [("x", "<f8"), ("y", "<f8"), ("z", "<f8"), ("red", "u1"), ("green", "u1"), ("blue", "u1"), ("label", "<i4")]
    table = np.zeros(len(numbers), dtype=kinds)
    for axis, values in zip("xyz", np.asarray(raw().inputs["points"]).T, strict=True):
        table[axis] = values
    for channel, values in zip(("red", "green", "blue"), np.array(colours)[numbers].T, strict=True):
        table[channel] = values
    table["label"] = numbers
    words = {"<f8": "double", "u1": "uchar", "<i4": "int"}
    told = [f"comment label {number} {' '.join(name.split())}" for number, name in enumerate(names)]
    lines = ["ply", "format binary_little_endian 1.0", *told, f"element vertex {len(table)}"]
    lines += [*(f"property {words[kind]} {name}" for name, kind in kinds), "end_header", ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_bytes("\n".join(lines).encode("utf-8") + table.tobytes())
    return path


def paint_points(axes: Any, raw: View, numbers: np.ndarray, colours: Sequence[Colour]) -> None:
    """Paints the points from a corner above on matplotlib axes, in grey where ``numbers`` is -1."""
    points = np.asarray(raw.inputs["points"], dtype=np.float64)
    points = points - points.mean(axis=0)
    turn = np.deg2rad(40)
    across = np.cos(turn) * points[:, 0] + np.sin(turn) * points[:, 1]
    depth = np.cos(turn) * points[:, 1] - np.sin(turn) * points[:, 0]
    up = points[:, 2] * np.cos(turn / 2) + depth * np.sin(turn / 2)
    order = np.argsort(-depth)
    shades = np.array([*colours, (150, 150, 150)])[numbers] / 255
    size = float(np.clip(6000 / len(points), 0.3, 20))
    axes.scatter(across[order], up[order], c=shades[order], s=size, linewidths=0)
    axes.set_aspect("equal")
    axes.axis("off")


def shape_of(places: np.ndarray) -> tuple[int, ...]:
    """Returns the number of points."""
    return (len(places),)


FILES = "a label a point (a column of PLY, TXT, NPY, LAS; S3DIS folders), out as PLY, of LAS as LAS"
DEFAULTS: dict[str, Any] = {
    "tune": "head",
    "input.side": 16,
    "input.points": 32768,
    "head.read": [0.5],
    "head.centres": 1024,
    "data.batch_size": 1,
}
