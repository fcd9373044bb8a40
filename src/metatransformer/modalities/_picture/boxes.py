"""Boxes of objects in pictures, as people keep them: COCO, Pascal VOC, YOLO.

COCO: JSON files with ``images``, ``annotations`` (bbox = x, y, width, height) and ``categories``; a word for a split
in a file's name is obeyed. VOC: an XML file a picture, perhaps with ``ImageSets/Main/train.txt`` and the like; names
get the ids 1, 2, ... in their order. YOLO: a text file a picture with lines ``class x y width height``, middles and
sides as shares of the picture, and ``data.yaml``, ``classes.txt`` or ``obj.names``. Ids are taken as they are, 0 too.
Pictures without boxes are negatives. A box that reaches beyond its picture is cut there, one without an area is left
out, and both are told.
Sources: cocodataset.org/#format-data; Everingham et al. 2010 (VOC development kit); docs.ultralytics.com/datasets.
"""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from metatransformer.core.boxes import BoxLabels, named_ids
from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.core.modality import Boxed
from metatransformer.core.samples import Record
from metatransformer.data.folder import scan
from metatransformer.data.given import Files, Folder, accepts, recognise
from metatransformer.data.index import index_files
from metatransformer.data.limits import Bounded
from metatransformer.data.records import Index, Records, counted, listing, natural_key, require_unique, split_name
from metatransformer.modalities._picture.masks import NOTHING, paint_grey, picture_shape, picture_sides
from metatransformer.modalities._picture.read import FORMATS, open_picture, require_content

Size = Callable[[Path], tuple[int, int]]  # (h, w) of a picture
BEYOND = 1.0  # pixels over the edge of a picture that a box may reach without a word: labels count from 0 or from 1
WHOLE = re.compile(r"[0-9]{1,18}")
_YOLO_LISTS = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt")
# BCCD (frozen focus-s14, validation split); docs/log.md.
DEFAULTS: dict[str, Any] = {
    "tune": "head",
    "input.size": 518,
    "head.read": (0.25, 0.5, 0.67, 0.83),
    "head.centres": 0,
    "optim.lr": 2e-3,
    "optim.average": 0.995,
    "data.batch_size": 8,
}


@dataclass
class Found:
    """What was read of one picture: boxes in pixels as they stand in the file, with the words for messages."""

    key: str
    path: Path
    split: str | None
    image: int | str | None
    size: tuple[int, int]
    where: str
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    categories: list[int] = field(default_factory=list)
    areas: list[float] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)

    def add(self, box: Sequence[float], category: int, *, area: float | None = None, crowd: bool = False) -> None:
        """Adds a box ``x1, y1, x2, y2``."""
        x1, y1, x2, y2 = (float(value) for value in box)
        self.boxes.append((x1, y1, x2, y2))
        self.categories.append(category)
        self.areas.append((x2 - x1) * (y2 - y1) if area is None else area)
        self.crowd.append(crowd)


@dataclass
class Oddities:
    """What is mended and told."""

    cut: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)

    def notes(self) -> Iterator[str]:
        """Yields a sentence for each kind."""
        if self.empty:
            yield f"{counted(len(self.empty), 'box', 'boxes')} without an area left out: {listing(self.empty, most=3)}"
        if self.cut:
            told = f"{counted(len(self.cut), 'box', 'boxes')} cut at the edge of the picture"
            yield f"{told}: {listing(self.cut, most=3)}"


def index_boxes(
    data: Any,
    *,
    suffixes: tuple[str, ...],
    size_of: Size,
    options: Any,
    labelled: bool,
    labels: str = "",
    target: str = "",
) -> Index:
    """Returns one record a picture with its boxes as target: of a folder, or of one COCO file.

    Without ``labelled`` boxes are left out where there are none, and whatever ``index_files`` takes is taken.

    Raises:
        DataError: what ``index_files`` raises, damaged labels, a picture that is not there or is named twice.
    """
    del options, labels, target
    given = recognise(data)
    if isinstance(given, Files) and given.one is not None and given.one.suffix.lower() == ".json":
        return _index(read_coco([given.one], size_of=size_of, labelled=labelled), given.one.parent, labelled=labelled)
    if isinstance(given, Folder):
        root = given.path
        read = _reader(root, suffixes=suffixes, size_of=size_of, labelled=labelled)
        if read is not None:
            return _index(read, root, labelled=labelled)
    if labelled:
        must = "be a folder with a COCO file, with VOC's XML files or YOLO's text files beside the pictures"
        do = "See 'metatransformer modalities NAME'."
        raise UnlabelledError(given.path if isinstance(given, Folder) else "the data", must=must, found="none", do=do)
    return index_files(given, suffixes=suffixes, require_labels=False)


Read = tuple[list[Found], Mapping[int, str], tuple[str, ...]]  # pictures, names of categories by id, notes


def _reader(root: Path, *, suffixes: tuple[str, ...], size_of: Size, labelled: bool) -> Read | None:
    """Returns what a folder holds by the first form that it has, None where it has none."""
    if files := coco_files(root):
        return read_coco(files, size_of=size_of, labelled=labelled)
    names, _ = scan(root, suffixes=(*suffixes, ".xml", ".txt", ".yaml", ".yml", ".names", ".labels"))
    pictures = [name for name in names if accepts(name, suffixes=suffixes)]
    if xml := [name for name in names if name.lower().endswith(".xml")]:
        return read_voc(root, pictures, xml, [name for name in names if name.endswith(".txt")])
    if is_yolo(root, pictures, names):
        return read_yolo(root, pictures, names, size_of=size_of)
    return None


def _index(read: Read, root: Path, *, labelled: bool) -> Index:
    """Returns the records of what was read, with boxes mended and told."""
    found, names, notes = read
    if not found:
        raise DataError(root, must="list pictures", found="none")
    require_unique([one.key for one in found], where=root)
    if all(one.image is None for one in found):
        for one, image in zip(found, named_ids([one.key for one in found]), strict=True):
            one.image = image
    odd = Oddities()
    targets = [_mended(one, names, odd) for one in found]
    if labelled and not any(len(target.boxes) for target in targets):
        raise DataError(root, must="hold boxes", found=f"none in {counted(len(found), 'picture')}")
    records = Records(
        [one.key for one in found],
        paths=[one.path for one in found],
        targets=targets,
        splits=[one.split for one in found],
    )
    free = sum(not len(target.boxes) for target in targets)
    told = (
        f"{counted(sum(len(target.boxes) for target in targets), 'box', 'boxes')} in {counted(len(found), 'picture')}"
    )
    told += f", {free:,} of them without any" * bool(free)
    return Index(records, (told, *notes, *odd.notes()), root)


def _mended(found: Found, names: Mapping[int, str], odd: Oddities) -> BoxLabels:
    """Returns the labels of a picture, boxes cut at its edges and those without an area left out.

    Raises:
        DataError: a box of no numbers, turned inside out, or wholly outside the picture.
    """
    h, w = found.size
    boxes = np.array(found.boxes, dtype=np.float64).reshape(-1, 4)
    for row, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        where, told = f"{found.where}, box {row + 1}", f"x {x1:g} to {x2:g}, y {y1:g} to {y2:g}"
        if not all(math.isfinite(value) for value in (x1, y1, x2, y2)):
            raise DataError(where, must="be of finite numbers", found=told)
        if x2 < x1 or y2 < y1:
            do = "COCO writes x, y, width, height, and VOC the least corner first."
            raise DataError(where, must="have sides of at least 0", found=told, do=do)
        if x1 >= w or y1 >= h or x2 <= 0 or y2 <= 0:
            do = "Look whether coordinates are pixels of this picture, and in the order x, y."
            raise DataError(where, must=f"lie in the picture of {w} x {h} pixels", found=told, do=do)
    inside = np.clip(boxes, 0, [w, h, w, h])
    odd.cut += [found.key] * int((np.abs(boxes - inside) > BEYOND).any(axis=1).sum())
    assert found.image is not None, found.key
    kept = ((inside[:, 2:] - inside[:, :2]) > 0).all(axis=1)
    odd.empty += [found.key] * int((~kept).sum())
    return BoxLabels(
        found.where,
        inside[kept],
        np.array(found.categories, dtype=np.int64)[kept],
        np.array(found.areas, dtype=np.float64)[kept],
        np.array(found.crowd, dtype=bool)[kept],
        found.image,
        found.size,
        names,
    )


# --- COCO -------------------------------------------------------------------------------------------------------------

_KEYS = ("images", "annotations", "categories")


def coco_files(folder: Path) -> list[Path]:
    """Returns the COCO files of a folder, directly inside or in ``annotations`` or in the folders of splits."""
    places = [folder, folder / "annotations", *(path for path in sorted(folder.iterdir()) if split_name(path.name))]
    texts = {
        path: path.read_text("utf-8", errors="replace")
        for place in places
        if place.is_dir()
        for path in sorted(place.glob("*.json"))
    }
    found = [path for path, text in texts.items() if all(f'"{key}"' in text for key in _KEYS)]
    # Beside others an empty one is a damaged one.
    return [path for path, text in texts.items() if path in found or (found and not text.strip())]


def read_coco(files: Sequence[Path], *, size_of: Size, labelled: bool) -> Read:
    """Returns the pictures of COCO files; without ``labelled`` files need no annotations.

    Raises:
        DataError: a damaged file, files that call categories differently, a picture that is not there, an annotation of
            a picture or category that is not listed.
    """
    own = {"annotations", "train", "val", "valid", "test"}
    root = files[0].parent.parent if files[0].parent.name in own and len(files) > 1 else files[0].parent
    names: dict[int, str] = {}
    found: list[Found] = []
    for file in files:
        content = _content(file, labelled=labelled)
        for entry in content["categories"]:
            number, name = _whole(entry["id"], file, "category id"), str(entry["name"])
            if names.setdefault(number, name) != name:
                told = f"'{names[number]}' and '{name}' for {number}"
                raise DataError(file, must="call each category by one name", found=told)
        split = _split_of(file)
        places = _places(file, root)
        pictures = {entry["id"]: _picture(entry, file, places, root, split, size_of) for entry in content["images"]}
        if len(pictures) < len(content["images"]):
            ids = Counter(entry["id"] for entry in content["images"])
            raise DataError(file, must="give every picture an id of its own", found=f"{ids.most_common(1)[0][0]} twice")
        for entry in content["annotations"]:
            _annotate(pictures, entry, names, file)
        found += pictures.values()
    return found, names, (f"of {listing(file.name for file in files)}",) if len(files) > 1 else ()


def _split_of(file: Path) -> str | None:
    words = re.split(r"[\W_\d]+", file.stem)
    return next(filter(None, map(split_name, [*words, file.parent.name])), None)


def _content(file: Path, *, labelled: bool) -> dict[str, Any]:
    """Returns a COCO file's content, its lists checked."""
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        do = "See cocodataset.org/#format-data."
        raise DataError(file, must="be a COCO file, in JSON", found=f"'{error}'", do=do) from error
    if isinstance(content, dict) and not labelled:
        content = {"annotations": [], "categories": [], **content}
    needed = {
        "images": ("id", "file_name"),
        "annotations": ("image_id", "category_id", "bbox"),
        "categories": ("id", "name"),
    }
    for key, parts in needed.items():
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(file, must=f"be a COCO file with {', '.join(_KEYS)}", found=f"no list '{key}'")
        for row, entry in enumerate(entries):
            if not isinstance(entry, dict) or not entry.keys() >= set(parts):
                told = f"entry {row + 1} of '{key}': {str(entry)[:60]}"
                raise DataError(file, must=f"say {', '.join(parts)} in '{key}'", found=told)
    if not content["images"] or (labelled and not content["annotations"]):
        must = "list pictures, and annotations in at least one"
        raise DataError(file, must=must, found=f"{len(content['images'])} and {len(content['annotations'])}")
    return content


def _places(file: Path, root: Path) -> list[Path]:
    """Returns the folders in which a COCO file's pictures may lie."""
    near = [file.parent, root, root / "images", root / "JPEGImages"]
    below = [path for place in dict.fromkeys((file.parent, root)) for path in sorted(place.iterdir()) if path.is_dir()]
    deeper = [path for place in below for path in sorted(place.iterdir()) if path.is_dir()]
    return list(dict.fromkeys([*near, *below, *deeper]))


def _picture(
    entry: Mapping[str, Any], file: Path, places: Sequence[Path], root: Path, split: str | None, size_of: Size
) -> Found:
    name = str(entry["file_name"])
    path = next((place / name for place in places if (place / name).is_file()), None)
    if path is None:
        raise DataError(file, must="name pictures that are there", found=f"'{name}', which is not in {root}")
    h, w = entry.get("height"), entry.get("width")
    size = (_whole(h, file, f"height of '{name}'"), _whole(w, file, f"width of '{name}'")) if h and w else size_of(path)
    key = path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)
    image = entry["id"]
    if not isinstance(image, int | str) or isinstance(image, bool):
        raise DataError(file, must="have ids of pictures that are whole numbers or texts", found=repr(image))
    return Found(key, path, split, image, size, f"{file}, {name}")


def _annotate(pictures: Mapping[Any, Found], entry: Mapping[str, Any], names: Mapping[int, str], file: Path) -> None:
    where = f"{file}, annotation {entry.get('id', '')}".rstrip()
    if entry["image_id"] not in pictures:
        raise DataError(where, must="be of a picture that is listed", found=f"the image_id {entry['image_id']!r}")
    if entry["category_id"] not in names:
        listed = ", ".join(f"{number} {name}" for number, name in list(names.items())[:12])
        raise DataError(where, must=f"be of a category that is listed ({listed})", found=repr(entry["category_id"]))
    x, y, w, h = _numbers(entry["bbox"], where, must="have a bbox of four numbers: x, y, width, height")
    area = entry.get("area")
    pictures[entry["image_id"]].add(
        (x, y, x + w, y + h),
        int(entry["category_id"]),
        area=float(area) if isinstance(area, int | float) else None,
        crowd=bool(entry.get("iscrowd", 0)),
    )


def _numbers(values: Any, where: str, *, must: str) -> list[float]:
    try:
        found = [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        found = []
    if len(found) != 4:
        raise DataError(where, must=must, found=repr(values)[:60])
    return found


def _whole(value: Any, where: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -(2**53) < value < 2**53 or value % 1:
        raise DataError(where, must=f"have a whole number as {what}", found=repr(value))
    return int(value)


# --- Pascal VOC -------------------------------------------------------------------------------------------------------


def read_voc(root: Path, pictures: Sequence[str], xml: Sequence[str], lists: Sequence[str]) -> Read:
    """Returns the pictures that XML files describe; a picture without one is left out and told.

    Raises:
        DataError: a damaged file, a picture that is not there, two XML files of one picture.
    """
    by_stem: dict[str, list[str]] = {}
    for name in pictures:
        by_stem.setdefault(Path(name).stem, []).append(name)
    splits = _voc_splits(root, lists)
    read = [_voc_file(root / name, name, root, by_stem, splits) for name in sorted(xml, key=natural_key)]
    known = sorted({name for _, objects in read for name, _ in objects}, key=natural_key)
    ids = {name: number for number, name in enumerate(known, start=1)}
    for found, objects in read:
        for name, box in objects:
            found.add(box, ids[name])
    named = {found.key for found, _ in read}
    free = [name for name in pictures if name not in named]
    notes = [f"{counted(len(free), 'picture')} without an XML file left out: {listing(free, most=3)}"] if free else []
    return [found for found, _ in read], {number: name for name, number in ids.items()}, tuple(notes)


def _voc_splits(root: Path, lists: Sequence[str]) -> dict[str, str]:
    """Returns the split of a picture by the stem of its name, as ``ImageSets/Main`` says it."""
    found: dict[str, str] = {}
    for name in lists:
        split = split_name(Path(name).stem)
        if split and "ImageSets" in Path(name).parts:
            for line in (root / name).read_text(encoding="utf-8", errors="replace").split():
                if found.setdefault(line, split) != split:
                    raise DataError(root / name, must="put a picture into one split", found=f"'{line}' in two")
    return found


def _voc_file(
    file: Path, name: str, root: Path, by_stem: Mapping[str, Sequence[str]], splits: Mapping[str, str]
) -> tuple[Found, list[tuple[str, list[float]]]]:
    """Returns the picture of an XML file, and its objects: a name and a box each."""
    try:
        tree = ET.parse(file).getroot()
    except (ET.ParseError, UnicodeDecodeError, OSError) as error:
        raise DataError(file, must="be an XML file of Pascal VOC", found=f"'{error}'") from error
    if tree.tag != "annotation":
        raise DataError(file, must="be an XML file of Pascal VOC, <annotation>", found=f"<{tree.tag}>")
    wanted = by_stem.get(file.stem) or by_stem.get(Path((tree.findtext("filename") or "").strip()).stem, ())
    near = [one for one in wanted if Path(one).parent == Path(name).parent] or list(wanted)
    if len(near) != 1:
        told = f"{counted(len(near), 'picture')} called '{file.stem}'"
        raise DataError(file, must="have one picture of its name", found=told)
    size = []
    for side in ("height", "width"):
        text = tree.findtext(f"size/{side}") or ""
        if not WHOLE.fullmatch(text.strip()) or not int(text):
            raise DataError(file, must=f"say the picture's size/{side} in pixels", found=repr(text))
        size.append(int(text))
    objects = []
    for row, entry in enumerate(tree.iter("object")):
        where = f"{file}, object {row + 1}"
        called = (entry.findtext("name") or "").strip()
        if not called:
            raise DataError(where, must="have a name", found="none")
        corners = [entry.findtext(f"bndbox/{part}") for part in ("xmin", "ymin", "xmax", "ymax")]
        objects.append((called, _numbers(corners, where, must="have a bndbox with xmin, ymin, xmax and ymax")))
    split = splits.get(file.stem) or next(filter(None, map(split_name, Path(near[0]).parts[:-1])), None)
    found = Found(near[0], root / near[0], split, None, (size[0], size[1]), str(file))
    return found, objects


# --- YOLO -------------------------------------------------------------------------------------------------------------


def is_yolo(root: Path, pictures: Sequence[str], names: Sequence[str]) -> bool:
    """Returns whether text files lie where YOLO looks for them."""
    texts = {name for name in names if name.endswith(".txt")}
    return any(label_of(picture) in texts for picture in pictures) or any(
        name in ("data.yaml", "data.yml") for name in names
    )


def label_of(picture: str) -> str:
    """Returns where YOLO looks for the labels of a picture: beside it, or in ``labels`` for ``images``."""
    parts = list(Path(picture).with_suffix(".txt").parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            break
    return Path(*parts).as_posix()


def read_yolo(root: Path, pictures: Sequence[str], names: Sequence[str], *, size_of: Size) -> Read:
    """Returns all pictures with what their text files say; a picture without one, or with an empty one, is a negative.

    Raises:
        DataError: a class that the list of classes does not have, a damaged line, values that are no shares.
    """
    classes, where = _yolo_classes(root, names)
    there = set(names)
    found, free = [], []
    for name in sorted(pictures, key=natural_key):
        split = next(filter(None, map(split_name, Path(name).parts[:-1])), None)
        path, label = root / name, root / label_of(name)
        one = Found(name, path, split, None, size_of(path), str(label))
        if label_of(name) in there:
            _yolo_file(one, label, classes, where)
        else:
            free.append(name)
        found.append(one)
    if not classes:
        used = sorted({category for one in found for category in one.categories})
        classes = {number: str(number) for number in used}
    notes = ()
    if free:
        notes = (
            f"{counted(len(free), 'picture')} without a text file count as without objects: {listing(free, most=3)}",
        )
    return found, classes, notes


def _yolo_classes(root: Path, names: Sequence[str]) -> tuple[dict[int, str], str]:
    """Returns the names of classes by number and the file that says them, nothing where there is none."""
    for name in names:
        if Path(name).suffix in (".yaml", ".yml"):
            try:
                content = yaml.safe_load((root / name).read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                raise DataError(root / name, must="be valid YAML in UTF-8", found=str(error)) from error
            listed = content.get("names") if isinstance(content, dict) else None
            if isinstance(listed, list):
                return {number: str(one) for number, one in enumerate(listed)}, str(root / name)
            if isinstance(listed, dict):
                return {_whole(number, root / name, "class"): str(one) for number, one in listed.items()}, str(
                    root / name
                )
    for name in names:
        if Path(name).name in _YOLO_LISTS:
            lines = (root / name).read_text(encoding="utf-8-sig").splitlines()
            listed = [line.strip() for line in lines if line.strip()]
            return dict(enumerate(listed)), str(root / name)
    return {}, ""


def _yolo_file(found: Found, label: Path, classes: Mapping[int, str], source: str) -> None:
    h, w = found.size
    for row, line in enumerate(label.read_text(encoding="utf-8-sig", errors="replace").splitlines()):
        cells = line.split()
        if not cells:
            continue
        where = f"{label}, line {row + 1}"
        if not WHOLE.fullmatch(cells[0]):
            raise DataError(where, must="begin with the number of a class", found=repr(line[:60]))
        category = int(cells[0])
        if classes and category not in classes:
            must = f"name one of the {len(classes)} classes of {source}"
            raise DataError(where, must=must, found=str(category))
        values = _floats(cells[1:], where)
        if len(values) > 4 and len(values) % 2 == 0:  # a polygon
            x, y = values[0::2], values[1::2]
            values = [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]
        if len(values) != 4:
            raise DataError(where, must="be class x y width height", found=repr(line[:60]))
        if max(values) > 1.5:
            do = "Divide x and width by the picture's width, y and height by its height."
            raise DataError(where, must="hold shares of the picture, 0 to 1", found=repr(line[:60]), do=do)
        x, y, width, height = values
        if width < 0 or height < 0:
            raise DataError(where, must="have sides of at least 0", found=repr(line[:60]))
        box = (x - width / 2) * w, (y - height / 2) * h, (x + width / 2) * w, (y + height / 2) * h
        found.add(box, category)


def _floats(cells: Iterable[str], where: str) -> list[float]:
    try:
        return [float(cell) for cell in cells]
    except ValueError as error:
        raise DataError(where, must="hold numbers", found=f"'{error}'") from error


# --- pictures ---------------------------------------------------------------------------------------------------------


def picture_size(path: Path, *, load: Callable[[Record], Mapping[str, np.ndarray]]) -> tuple[int, int]:
    """Returns ``(h, w)`` of a picture as it is shown, of its header where that says it."""
    require_content(path)
    with Bounded(path) as file:
        image = open_picture(file, path=path, formats=FORMATS)
        if image is not None:
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # on its side (EXIF 2.3)
            return (image.width, image.height) if turned else (image.height, image.width)
    height, width = load(Record(path.name, path))["pixels"].shape[:2]
    return int(height), int(width)


def picture_boxed(
    suffixes: tuple[str, ...], *, load: Callable[[Record], Mapping[str, np.ndarray]], more: Mapping[str, Any] = NOTHING
) -> Boxed:
    """Returns what pictures of files that end so have for finding objects, with ``more`` defaults."""
    return Boxed(
        index=partial(index_boxes, suffixes=suffixes, size_of=partial(picture_size, load=load)),
        places=picture_sides,
        shape=picture_shape,
        paint=paint_grey,
        files="boxes (COCO JSON, Pascal VOC XML or YOLO text in, COCO results out)",
        defaults=DEFAULTS | dict(more),
    )
