"""A data set of pictures in one NPZ file: arrays whose names say split and meaning, as train_images and train_labels.

Pictures are ``[n, h, w]``, ``[n, h, w, 1 or 3]`` or ``[n, 1 or 3, h, w]``; of volumes ``[n, d, h, w]`` and ``[n, d, h,
w, 1 or 3]`` the middle slice is taken, and that is said. Labels are ``[n]`` or ``[n, 1]``; ``[n, k]`` are k answers of
yes or no each. Without a word for a split the whole file is one.
Sources: MedMNIST v2 (Yang et al. 2023) for train_images, val_labels, ...; Keras for x_train, y_test.
"""

import re
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.core.modality import Source
from metatransformer.data.given import Files, Folder, recognise
from metatransformer.data.index import index_files
from metatransformer.data.numpy_files import list_npz, read_npz
from metatransformer.data.records import Index, Records, counted, listing, split_name

_IMAGES = {"images", "image", "imgs", "img", "x", "pictures", "volumes"}
_LABELS = {"labels", "label", "y", "targets", "target"}
_Arrays = dict[str | None, str]  # the name of an array by split


def picture_source(suffixes: tuple[str, ...]) -> Source:
    """Returns what a person may hand in as pictures: files that end so, or a data set in one NPZ file."""
    return Source(kind="files", suffixes=suffixes, index=partial(index_pictures, suffixes=suffixes))


def index_pictures(
    data: Any, *, suffixes: tuple[str, ...], target: str, labelled: bool, header: bool, options: Any
) -> Index:
    """Returns one record a file or array, as ``index_files`` does, or one a picture of a data set in an NPZ file.

    The data set is named by its path, or by that of a folder that holds it alone.

    Raises:
        DataError: what ``index_files`` raises, or no pictures in the file.
    """
    del header, options
    given = recognise(data)
    path = given.one if isinstance(given, Files) else _only_set(given.path) if isinstance(given, Folder) else None
    if path is not None and path.suffix.lower() == ".npz":
        return _index_set(path, labelled=labelled)
    return index_files(given, suffixes=suffixes, label_column=target or "label", require_labels=labelled)


def _only_set(folder: Path) -> Path | None:
    """Returns the NPZ file of a folder that holds nothing else."""
    first, *others = [path for path in folder.iterdir() if not path.name.startswith(".")] or [folder]
    return first if not others else None


def _index_set(path: Path, *, labelled: bool) -> Index:
    shapes = {name: shape for name, (shape, _) in list_npz(path).items()}
    images, labels = _named(path, shapes, words=_IMAGES), _named(path, shapes, words=_LABELS)
    if not images:
        must = f"hold pictures under a name such as 'train_images' or 'x_test' ({', '.join(sorted(_IMAGES))})"
        raise DataError(path, must=must, found=listing(shapes) or "no array")
    columns: dict[str, Any] = {name: [] for name in ("keys", "parts", "targets", "splits")}
    depths: set[int] = set()
    for split, name in images.items():
        count, depth = _layout(path, name, shapes[name])
        depths |= {depth} - {0}
        if labelled and split not in labels:
            raise UnlabelledError(path, must=f"hold labels beside '{name}'", found=listing(shapes))
        columns["parts"] += [f"{name}/{row}" for row in range(count)]
        columns["targets"] += _targets(path, labels[split], count=count) if split in labels else [None] * count
        columns["splits"] += [split] * count
    columns["keys"] = [f"{path.name}#{part}" for part in columns["parts"]]
    rest = listing(name for name in shapes if name not in {*images.values(), *labels.values()})
    notes = [f"{counted(len(columns['keys']), 'picture')} in {path.name}: {listing(images.values())}"]
    notes += [f"volumes of {', '.join(map(str, sorted(depths)))} slices: the middle one of each"] if depths else []
    notes += [f"not used: {rest}"] if rest else []
    return Index(Records(paths=[path] * len(columns["keys"]), **columns), tuple(notes), path.parent)


def _named(path: Path, names: Any, *, words: set[str]) -> _Arrays:
    """Returns the arrays whose names hold one of ``words``, by the split that another word of theirs says."""
    found: _Arrays = {}
    for name in names:
        parts = re.split(r"[_\W]+", name.lower())
        if words.isdisjoint(parts):
            continue
        split = next(filter(None, map(split_name, parts)), None)
        if split in found:
            do = "Name them train_images, val_images, test_images; train_labels, ..."
            raise DataError(
                path, must="hold one array of a kind a split", found=f"'{found[split]}' and '{name}'", do=do
            )
        found[split] = name
    return found


def _layout(path: Path, name: str, shape: tuple[int, ...]) -> tuple[int, int]:
    """Returns how many pictures an array holds, and of how many slices each is: 0 where they are pictures.

    Raises:
        DataError: another number of axes, or none.
    """
    inner = shape[1:]
    flat = len(inner) == 2 or (len(inner) == 3 and (inner[2] in (1, 3) or inner[0] in (1, 3)))
    volume = (len(inner) == 3 and min(inner) > 4) or (len(inner) == 4 and inner[3] in (1, 3))
    if 0 in shape or not (flat or volume):
        must = "have the shape [n, h, w], [n, h, w, 1 or 3] or, of volumes, [n, d, h, w]"
        raise DataError(f"{path}, '{name}'", must=must, found=str(shape))
    return shape[0], 0 if flat else inner[0]


def _targets(path: Path, name: str, *, count: int) -> list[Any]:
    labels = read_npz(path, name)
    if labels.ndim not in (1, 2) or len(labels) != count or labels.size < count:
        must = f"have the shape [{count}], [{count}, 1] or [{count}, labels]"
        raise DataError(f"{path}, '{name}'", must=must, found=str(labels.shape))
    return (labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels).tolist()


def read_part(path: Path, part: str) -> np.ndarray:
    """Returns a picture ``[h, w]`` or ``[h, w, 1 or 3]`` of a data set; ``part`` is its array's name and its place."""
    name, _, row = part.rpartition("/")
    about = path.stat()
    array = _array(path, name, (about.st_mtime_ns, about.st_size))
    _, depth = _layout(path, name, array.shape)
    picture = array[int(row)]
    if depth:
        return picture[depth // 2]
    return np.moveaxis(picture, 0, -1) if picture.ndim == 3 and picture.shape[2] not in (1, 3) else picture


@lru_cache(maxsize=3)  # the splits of one data set
def _array(path: Path, name: str, stamp: tuple[int, int]) -> np.ndarray:
    del stamp  # a file that changed is read anew
    return read_npz(path, name)
