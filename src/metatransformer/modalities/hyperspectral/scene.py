"""Scenes and lists of spectra as records: which file is the cube, which the labels, one record a pixel.

Labels of a scene are a map ``[h, w]`` of whole numbers, 0 = unlabelled; labels of spectra ``[n, bands]`` are n whole
numbers, each of which counts. Cube and labels find each other by shape, and by name where the shape leaves a
choice: SalinasA_corrected.mat and SalinasA_gt.mat, Train_X.mat and TrLabel.mat. Names that say train or test (also TR,
TE) split the data.
"""

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from metatransformer.core.errors import DataError, UnlabelledError
from metatransformer.core.samples import Record
from metatransformer.data.records import Index, Records, counted, listing, natural_key, split_name
from metatransformer.modalities.hyperspectral.arrays import (
    Entry,
    is_array_file,
    is_envi,
    is_envi_data,
    list_arrays,
    read_array,
)
from metatransformer.modalities.hyperspectral.cube import Cube, find_cube, read_cube
from metatransformer.modalities.hyperspectral.envi import open_envi
from metatransformer.modalities.hyperspectral.plots import Cut, block_names, cut_scene

SLACK = 0.05  # by which shares of end-members may miss 0 and 1
FAR_MORE = 10  # bands for each spectrum: a matrix [bands, pixels] looks like that
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_SPLITS = {"tr": "train", "te": "test", "ts": "test"}


@dataclass(frozen=True, eq=False)
class Origin:
    """Where a record's pixel comes from: the file's variable, or a cube in memory; and how its scene was split."""

    variable: str = ""
    cube: Cube | None = None
    split: str = ""


@dataclass(frozen=True)
class Pair:
    """A cube (or matrix of spectra) and its labels; ``split`` is what their names say, None for nothing."""

    cube: Entry
    labels: Entry | None
    split: str | None = None


def index_folder_of_scenes(root: Path, *, variable: str, target: str, labelled: bool, cut: Cut) -> Index:
    """Returns the pixels of all scenes, or all spectra, in a folder.

    ``target`` names the labels where several could be meant: their file or variable.

    Raises:
        DataError: no cube and no spectra; labels that fit several or none of them; none with labels where ``labelled``.
    """
    files = sorted((p for p in root.iterdir() if p.is_file() and is_array_file(p)), key=lambda p: natural_key(p.name))
    files = [p for p in files if not p.name.startswith(".") and not is_envi_data(p)]
    found = [list_arrays(path) for path in files]
    cubes, others = _cubes(found, variable=variable)
    if not cubes:
        names = listing(path.name for path in root.iterdir()) or "nothing"
        raise DataError(root, must="hold a cube [rows, columns, bands] or spectra [pixels, bands]", found=names)
    if target:
        named = [entry for entry in others if target in (entry.name, entry.path.name, str(entry.path))]
        if not named:
            raise DataError("--target", must=f"name labels in {root}: {listing(others) or 'none there'}", found=target)
        others = named
    pairs, notes = pair(cubes, others, where=root, shares=bool(target))
    if labelled:
        bare = [one.cube for one in pairs if one.labels is None]
        pairs = [one for one in pairs if one.labels is not None]
        if not pairs:
            raise _no_labels(root, cube=bare[0], others=others, given=others)
        notes += [f"no labels for {listing(bare)}: not used"] if bare else []
    return join(pairs, root=root, labelled=labelled, cut=cut, notes=notes)


def index_scene(path: Path, *, variable: str, target: str, labelled: bool, cut: Cut) -> Index:
    """Returns the pixels of one cube or the spectra of one matrix.

    ``target`` names the labels: another file, or a variable of the same; empty takes the only array of the file that
    has the shape of labels.

    Raises:
        DataError: no cube; labels that are missing where ``labelled``, or that do not fit.
    """
    entries = list_arrays(path)
    cube = find_cube(entries, variable=variable)
    others = [entry for entry in entries if entry != cube and entry.name != cube.name]
    if target:
        named = _named(target, beside=path, entries=others)
        if not _fits(cube, named, shares=True):
            raise DataError(named.path, must=_shape_of_labels(cube), found=str(named))
        labels = [named]
    else:
        fitting = [entry for entry in others if _fits(cube, entry)]
        labels = [entry for entry in fitting if _are_whole(entry)] or (fitting if labelled else [])
    if labelled and not labels:
        raise _no_labels(path, cube=cube, others=[*others, *_beside(path, cube=cube)], given=others)
    pairs, notes = pair([cube], labels, where=path, shares=bool(target))
    return join(pairs, root=path.parent, labelled=labelled, cut=cut, notes=notes)


def _named(target: str, *, beside: Path, entries: Sequence[Entry]) -> Entry:
    """Returns the labels that ``target`` names: a file here or beside the cube, or a variable in the cube's file."""
    for entry in entries:
        if entry.name == target:
            return entry
    for path in (Path(target), beside.parent / target):
        if path.is_file():
            return only_array(path)
    names = [entry.name for entry in entries if entry.name]
    has = f"a file, or a variable of {beside.name}" + (f" ({', '.join(names)})" if names else "")
    raise DataError("--target", must=f"name the labels of {beside.name}: {has}", found=f"'{target}'")


def only_array(path: Path) -> Entry:
    """Returns the one array of a file of labels.

    Raises:
        DataError: several.
    """
    first, *others = list_arrays(path)
    if others:
        raise DataError(path, must="hold one array, the labels", found=listing([first, *others]))
    return first


def _cubes(found: Sequence[Sequence[Entry]], *, variable: str) -> tuple[list[Entry], list[Entry]]:
    """Returns cubes (or, where no file has one, matrices of spectra) and all other arrays."""
    everything = [entry for entries in found for entry in entries]
    axes = 3 if any(_is_cube(entry) for entry in everything) else 2
    cubes = []
    for entries in found:
        big = [entry for entry in entries if len(entry.shape) == axes and min(entry.shape) > 1]
        big = [entry for entry in big if (_is_cube(entry) if axes == 3 else not entry.picture)]
        if big:
            chosen = variable if any(entry.name == variable for entry in entries) else ""
            cubes.append(find_cube(big if not chosen else entries, variable=chosen))
    return cubes, [entry for entry in everything if entry not in cubes]


def _is_cube(entry: Entry) -> bool:
    # A PNG of three axes is a picture in colours.
    return len(entry.shape) == 3 and min(entry.shape) > 1 and entry.path.suffix.lower() != ".png"


def pair(
    cubes: Sequence[Entry], labels: Sequence[Entry], *, where: Path, shares: bool = False
) -> tuple[list[Pair], list[str]]:
    """Returns each cube with its labels (once for each split that labels are of), and notes on what fits nowhere;
    ``shares``: they may be shares of end-members.

    Raises:
        DataError: labels that fit several cubes alike, or several labels that fit one.
    """
    owners: dict[Entry, list[Entry]] = {cube: [] for cube in cubes}
    notes: list[str] = []
    for entry in labels:
        fitting = [cube for cube in cubes if _fits(cube, entry, shares=shares) and _agree(cube, entry)]
        if not fitting:
            notes.append(f"not used, since it is neither cube nor labels: {entry}")
            continue
        owners[_by_name(fitting, entry, where=where)].append(entry)
    pairs = []
    for cube, own in owners.items():
        splits = [name_split(entry) or name_split(cube) for entry in own]
        if len(own) > 1 and (None in splits or len(set(splits)) < len(splits)):
            do = "Name the right one as target (--target), or list cube and labels in a manifest (path,label)."
            raise DataError(where, must=f"hold one array of labels for {cube}", found=listing(own), do=do)
        pairs += [Pair(cube, entry, split) for entry, split in zip(own, splits, strict=True)]
        pairs += [] if own else [Pair(cube, None, name_split(cube))]
    return pairs, notes


def name_split(entry: Entry) -> str | None:
    """Returns the split that a variable's or a file's name says, None for none: TrLabel, X_test, TE."""
    for text in (entry.name, entry.path.stem):
        for word in _WORDS.findall(text):
            split = _SPLITS.get(word.lower()) or split_name(word)
            if split:
                return split
    return None


def _agree(cube: Entry, labels: Entry) -> bool:
    one, two = name_split(cube), name_split(labels)
    return one is None or two is None or one == two


def _by_name(cubes: Sequence[Entry], labels: Entry, *, where: Path) -> Entry:
    """Returns the cube whose name begins as the labels' does, for the longest stretch."""
    if same := [cube for cube in cubes if cube.path == labels.path]:
        cubes = same
    shared = [len(os.path.commonprefix([cube.path.stem.lower(), labels.path.stem.lower()])) for cube in cubes]
    best = [cube for cube, length in zip(cubes, shared, strict=True) if length == max(shared)]
    if len(best) > 1:
        do = "Begin both names alike (a.mat, a_gt.mat), or list them in a manifest with the columns path,label."
        raise DataError(where, must=f"say whose labels {labels} are", found=listing(best), do=do)
    return best[0]


def _fits(cube: Entry, labels: Entry, *, shares: bool = False) -> bool:
    """Returns whether an array has the shape of a cube's labels, or of shares ``[h, w, C]`` where these are meant."""
    if len(cube.shape) == 3:
        layers = labels.shape[2:]
        return labels.shape[:2] == cube.shape[:2] and (not layers or (shares and 1 < layers[0] < cube.shape[2]))
    return sorted(labels.shape)[:-1] in ([], [1]) and max(labels.shape, default=0) == cube.shape[0]


def _are_whole(entry: Entry) -> bool:
    """Returns whether all numbers of an array are whole: wavelengths and weights have the shape of labels at times."""
    values = read_array(entry.path, name=entry.name)
    return values.dtype.kind != "f" or bool((values == np.round(values)).all())


def _shape_of_labels(cube: Entry) -> str:
    if len(cube.shape) == 3:
        return f"have the shape {cube.shape[0]} x {cube.shape[1]}, as {cube.path.name}"
    return f"have {cube.shape[0]} entries, as {cube.path.name} has spectra"


def _beside(path: Path, *, cube: Entry) -> list[Entry]:
    """Returns the arrays in files beside a cube that may be meant as labels, of whatever shape."""
    found: list[Entry] = []
    for other in sorted(path.parent.iterdir()):
        if other != path and other.is_file() and other.suffix.lower() == path.suffix.lower():
            with suppress(DataError):  # this is not about a damaged file beside it
                found += [entry for entry in list_arrays(other) if not _is_cube(entry)]
    return found


def _no_labels(where: Path, *, cube: Entry, others: Sequence[Entry], given: Sequence[Entry]) -> DataError:
    """Returns the error for a cube without labels; only where one of those ``given`` with it may be meant as labels,
    and has another shape, it is more than data without labels."""
    meant = [one for one in given if len(one.shape) == 2 and min(one.shape) > 1 and _are_whole(one)]
    kind = DataError if meant and len(cube.shape) == 3 else UnlabelledError
    fitting = [entry for entry in others if _fits(cube, entry)]
    turned = [entry for entry in others if entry.shape == cube.shape[1::-1]]
    do = "Put them into one folder with the cube, or name them with --target."
    if fitting:
        do += f" {fitting[0].path.name} has the right shape: --target {fitting[0].path.name}."
    elif turned:
        do = f"{turned[0].path.name} has rows and columns swapped: transpose it."
    elif others:
        do = "Take the labels of this cube, uncropped."
    must = f"bring labels: an array that must {_shape_of_labels(cube)}"
    return kind(where, must=must, found=f"only {listing(others)}" if others else "none", do=do)


def join(pairs: Sequence[Pair], *, root: Path, labelled: bool, cut: Cut, notes: Sequence[str]) -> Index:
    """Returns the records of all pairs; scenes that bring no split are cut by ``cut`` where labels are wanted."""
    records: list[Record] = []
    told = list(notes)
    given = {one.split for one in pairs if one.split}
    lists = all(len(one.cube.shape) < 3 for one in pairs)
    asked = bool(cut.train_pixels) or cut.kind != "random"
    drawn = (
        cut.kind == "random" and cut.train_pixels > 0 and given <= {"train"}
    )  # needs no places, and no test is there
    idle = ()
    if labelled and asked and not drawn and (given or lists):
        why = "the data brings its split" if given else "these are spectra without places"
        idle = (("input.split and input.train_pixels", why),)
    for one in pairs:
        cube = read_cube(one.cube.path, variable=one.cube.name)
        if cube.bands > FAR_MORE * len(cube.values) and not cube.neighbours:
            told.append(
                f"{one.cube}: {len(cube.values)} spectra of {cube.bands} bands; transpose it if these are pixels"
            )
        known = None if one.labels is None else read_labels(one.labels, cube=cube)
        if one.labels is not None and len(one.labels.shape) == 3:
            told.append(f"{one.labels}: shares of end-members; a pixel's class is the largest one, numbered from 1")
        own = cut if drawn or (cube.neighbours and not given) else None
        origin = Origin(one.cube.name, split=own.words if labelled and own else "")
        base = Record(_key(one.cube.path, root=root), path=one.cube.path, value=origin, split=one.split)
        if not labelled:
            found = every_pixel(base, cube, known, notes=told)
        else:
            found = labelled_pixels(base, cube, known, cut=own, notes=told)
        names = () if one.labels is None else class_names(one.labels)
        records += [replace(r, target=names[r.target]) if names and r.target is not None else r for r in found]
    return Index(Records.of(_once(records, notes=told)), tuple(told), root, idle=idle)


def _key(path: Path, *, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def _once(records: list[Record], *, notes: list[str]) -> list[Record]:
    """Returns the records with each pixel once, where several maps of a cube name it: as training where one says so."""
    first = {record.key: record for record in reversed(records)}
    first |= {record.key: record for record in reversed(records) if record.split == "train"}
    if twice := len(records) - len(first):
        torn = {(r.key, r.split) for r in records}
        shared = len(torn) - len(first)
        notes.append(
            f"{counted(twice, 'pixel')} labelled by a second map of the same cube: used once"
            + (f", {shared:,} of them in training and not in the test" if shared else "")
        )
    kept = dict.fromkeys(record.key for record in records)
    return [first[key] for key in kept]


def read_labels(entry: Entry, *, cube: Cube) -> np.ndarray:
    """Returns labels: ``[h, w]`` whole numbers with 0 = unlabelled for a scene, ``[n, 1]`` for a list of spectra.

    Raises:
        DataError: labels that are no whole numbers, below 0, or not of the cube's shape; shares that are none.
    """
    labels = read_array(entry.path, name=entry.name)
    where = f"{entry.path}{f', {entry.name!r}' if entry.name else ''}"
    shape = cube.values.shape[:2]
    if labels.ndim == 3 and cube.neighbours:
        labels = _largest(labels.astype(np.float64), where=where)
    if (labels.shape != shape) if cube.neighbours else (labels.size != shape[0]):
        raise DataError(where, must=f"be labels of the shape {shape}", found=f"the shape {labels.shape}")
    if labels.dtype.kind == "f":
        if not (np.isfinite(labels).all() and (labels == np.round(labels)).all()):
            raise DataError(where, must="hold whole numbers, one a class", found="fractions, infinities or NaN")
    labels = labels.astype(np.int64).reshape(shape)
    if labels.min() < 0:
        raise DataError(where, must="number the classes from 1, with 0 = unlabelled", found=str(labels.min()))
    if cube.neighbours and not labels.any():
        raise DataError(where, must="label at least one pixel", found="only 0")
    return labels


def _largest(shares: np.ndarray, *, where: str) -> np.ndarray:
    """Returns the number of the largest of the shares ``[h, w, C]`` of each pixel, from 1; 0 where all are 0."""
    total = shares.sum(axis=2)
    known = total != 0
    if not np.isfinite(shares).all() or shares.min() < -SLACK or (np.abs(total[known] - 1) > SLACK).any():
        found = f"values from {np.nanmin(shares):.4g} to {np.nanmax(shares):.4g}, sums to {np.nanmax(total):.4g}"
        raise DataError(where, must="hold shares of end-members that add up to 1, or one number a pixel", found=found)
    return np.where(known, shares.argmax(axis=2) + 1, 0)


def class_names(entry: Entry) -> tuple[str, ...]:
    """Returns the names of the classes by number, "unclassified" first, as an ENVI map brings them; else nothing.

    Raises:
        DataError: fewer names than classes.
    """
    if not is_envi(entry.path):
        return ()
    names = tuple(str(name) for name in open_envi(entry.path).fields.get("class names", ()))
    if names and (most := int(read_array(entry.path, name=entry.name).max())) >= len(names):
        raise DataError(entry.path, must=f"name its {most} classes in 'class names'", found=f"{len(names) - 1} names")
    return names


def labelled_pixels(
    base: Record, cube: Cube, labels: np.ndarray | None, *, cut: Cut | None, notes: list[str]
) -> list[Record]:
    """Returns one record a labelled pixel with a measurement, with split and tile where ``cut`` says how."""
    assert labels is not None
    known = labels > 0 if cube.neighbours else np.ones_like(labels, bool)
    gone = int((known & ~cube.valid).sum())
    if gone:
        notes.append(f"{base.key}: {counted(gone, 'labelled pixel')} without data left out")
    rows, columns = np.nonzero(known & cube.valid)
    classes = labels[rows, columns]
    if len(classes) == 0:
        raise DataError(cube.where, must="hold data where the labels are", found="none")
    records = _records(base, cube, rows, columns, classes)
    if cut is None and cube.neighbours:  # what is held out of the training part to choose by shall lie apart
        tiles = block_names(rows, columns)
        return [replace(r, group=f"{base.key} {r.split} {tile}") for r, tile in zip(records, tiles, strict=True)]
    if cut is None:
        return records
    plots = cut_scene(rows, columns, classes, cut=cut, where=base.key)
    alone = f"split: {cut.train_pixels} random spectra a class for training, draw {cut.draw}"
    notes += plots.notes if cube.neighbours else [alone]
    parts = zip(records, plots.used, plots.splits, plots.groups, strict=True)
    return [
        replace(record, split=split, group=None if group is None else f"{base.key} {group}")
        for record, used, split, group in parts
        if used
    ]


def every_pixel(base: Record, cube: Cube, labels: np.ndarray | None, *, notes: list[str]) -> list[Record]:
    """Returns one record a pixel with a measurement, its label where it has one."""
    gone = int((~cube.valid).sum())
    if gone == cube.valid.size:
        raise DataError(cube.where, must="hold a measurement", found="only zeros, NaN or the no-data value")
    if gone:
        notes.append(f"{base.key}: {counted(gone, 'pixel')} of {cube.valid.size:,} without data left out")
    rows, columns = np.nonzero(cube.valid)
    return _records(base, cube, rows, columns, None if labels is None else labels[rows, columns])


def _records(
    base: Record, cube: Cube, rows: np.ndarray, columns: np.ndarray, classes: np.ndarray | None
) -> list[Record]:
    targets = [None] * len(rows) if classes is None else classes.tolist()
    if classes is not None and cube.neighbours:
        targets = [target or None for target in targets]
    places = zip(rows.tolist(), columns.tolist(), targets, strict=True)
    return [_record(base, f"{row},{column}" if cube.neighbours else row, target) for row, column, target in places]


def _record(base: Record, part: int | str, target: int | None) -> Record:
    return replace(base, key=f"{base.key}#{part}", part=part, target=target)
