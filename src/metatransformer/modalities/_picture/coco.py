"""Polygons of COCO files as masks: each shape is drawn in its category, later ones over earlier ones.

File: JSON with ``images`` (file_name, id, width, height), ``annotations`` (image_id, category_id, segmentation as
polygons or counts of runs) and ``categories`` (id, name). What no shape covers is the class background. Category ids
are taken as they are. Source: the format of COCO (Lin et al. 2014, arXiv 1405.0312), cocodataset.org/#format-data.
"""

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from metatransformer.core.errors import DataError
from metatransformer.core.labels import Legend, PlaceLabels
from metatransformer.data.records import Index, Records, counted, listing, split_name

BACKGROUND = -1  # no category is called so
_KEYS = ("images", "annotations", "categories")


def coco_files(folder: Path) -> list[Path]:
    """Returns the COCO files of a folder, directly inside or in ``annotations``."""
    found = [path for place in (folder, folder / "annotations") for path in sorted(place.glob("*.json"))]
    return [path for path in found if all(f'"{key}"' in path.read_text("utf-8", errors="replace") for key in _KEYS)]


def index_coco(files: Sequence[Path], *, labelled: bool) -> Index:
    """Returns one record a picture of COCO files, the split from a file's name.

    Raises:
        DataError: a damaged file, a picture that is not there, a category or picture without an entry.
    """
    keys: list[str] = []
    paths: list[Path] = []
    targets: list[Any] = []
    splits: list[str | None] = []
    root = files[0].parent.parent if files[0].parent.name == "annotations" else files[0].parent
    for file in files:
        content = _content(file)
        shapes: dict[Any, list[tuple[int, Any]]] = {entry["id"]: [] for entry in content["images"]}
        names = {int(entry["id"]): str(entry["name"]) for entry in content["categories"]}
        for entry in content["annotations"]:
            if entry["image_id"] not in shapes or entry["category_id"] not in names:
                found = f"image {entry['image_id']}, category {entry['category_id']} of annotation {entry.get('id')}"
                raise DataError(file, must="list the picture and the category of every annotation", found=found)
            shapes[entry["image_id"]].append((int(entry["category_id"]), entry.get("segmentation")))
        named = names if "background" in names.values() else {BACKGROUND: "background", **names}
        legend = Legend(named, {}, str(file))
        split = next(filter(None, map(split_name, re.split(r"[\W_\d]+", file.stem))), None)
        for entry in content["images"]:
            path = _picture(file, root, str(entry["file_name"]))
            size, where = (int(entry["height"]), int(entry["width"])), f"{file}, {entry['file_name']}"
            read = partial(draw_shapes, size, tuple(shapes[entry["id"]]), where)
            keys.append(path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path))
            paths.append(path)
            targets.append(PlaceLabels(where, read, legend) if labelled else None)
            splits.append(split)
    notes = (f"{counted(len(keys), 'picture')} of {listing(file.name for file in files)}",)
    return Index(Records(keys, paths=paths, targets=targets, splits=splits), notes, root)


def _content(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        assert all(isinstance(content[key], list) for key in _KEYS)
        assert all(entry.keys() >= {"id", "file_name", "height", "width"} for entry in content["images"])
        assert all(entry.keys() >= {"image_id", "category_id"} for entry in content["annotations"])
        assert all(entry.keys() >= {"id", "name"} for entry in content["categories"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError) as error:
        do = "See cocodataset.org/#format-data."
        raise DataError(file, must=f"be a COCO file with {', '.join(_KEYS)}", found="another", do=do) from error
    if not content["images"] or not content["annotations"]:
        raise DataError(file, must="list pictures and annotations", found="none")
    return content


def _picture(file: Path, root: Path, name: str) -> Path:
    places = [file.parent / name, root / name, root / "images" / name, *(root / part / name for part in _beside(root))]
    for path in places:
        if path.is_file():
            return path
    found = f"'{name}', which is not in {root} or a folder in it"
    raise DataError(file, must="name pictures that are there", found=found)


def _beside(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.is_dir())


def draw_shapes(size: tuple[int, int], shapes: Sequence[tuple[int, Any]], where: str) -> np.ndarray:
    """Returns the category of each pixel ``[h, w]``, ``BACKGROUND`` where no shape is.

    Raises:
        DataError: a shape that is neither polygons nor counts of runs.
    """
    codes = np.full(size, BACKGROUND, dtype=np.int64)
    for category, shape in shapes:
        inside = Image.new("1", (size[1], size[0]))
        if isinstance(shape, list) and all(isinstance(part, list) and len(part) >= 6 for part in shape):
            for polygon in shape:
                ImageDraw.Draw(inside).polygon([float(value) for value in polygon], fill=1)
            codes[np.asarray(inside)] = category
        elif isinstance(shape, dict) and "counts" in shape:
            codes[_runs(shape["counts"], size, where)] = category
        else:
            must = "have a segmentation of polygons (x, y, x, y, ...) or counts of runs for each annotation"
            raise DataError(where, must=must, found=repr(shape)[:60])
    return codes


def _runs(counts: Any, size: tuple[int, int], where: str) -> np.ndarray:
    """Returns a mask from lengths of runs, of 0 and 1 in turn, down the columns; packed as text where it is one."""
    runs = _unpacked(counts) if isinstance(counts, str) else list(counts)
    if sum(runs) != size[0] * size[1]:
        raise DataError(where, must=f"have runs over {size[1]} x {size[0]} pixels", found=f"{sum(runs):,} pixels")
    values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return values.reshape(size[1], size[0]).T


def _unpacked(text: str) -> list[int]:
    """Returns the runs of a text: six bits a letter from "0", five of the number and one that says whether more follow;
    from the fourth on a number is the difference to that two before (pycocotools, maskApi.c)."""
    runs: list[int] = []
    number = shift = 0
    for letter in text:
        bits = ord(letter) - 48
        number |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            number -= 1 << shift
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = shift = 0
    return runs
