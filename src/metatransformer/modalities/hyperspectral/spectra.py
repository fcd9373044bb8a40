"""From what a user hands in to one record a pixel or spectrum: folders, manifests, files, tables, arrays."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Record
from metatransformer.data.given import Array, Files, Folder, Items, Sheet, recognise
from metatransformer.data.index import index_files
from metatransformer.data.manifest import index_manifest
from metatransformer.data.records import Index, Records, listing
from metatransformer.data.rows import index_table
from metatransformer.data.table import TABLE_SUFFIXES
from metatransformer.modalities.hyperspectral.arrays import ARRAY_SUFFIXES, is_array_file, list_arrays
from metatransformer.modalities.hyperspectral.cube import Cube, cube_from_array, find_cube, wavelengths_nm
from metatransformer.modalities.hyperspectral.envi import ENVI_DATA, open_envi
from metatransformer.modalities.hyperspectral.plots import Cut
from metatransformer.modalities.hyperspectral.scene import (
    Origin,
    Pair,
    every_pixel,
    index_folder_of_scenes,
    index_scene,
    join,
    labelled_pixels,
    only_array,
)

SCENES = (*ARRAY_SUFFIXES, *ENVI_DATA)
SPECTRA_SUFFIXES = (*SCENES, *TABLE_SUFFIXES)
# B1, band_17, 450, 450.5, 450.5nm, wl_1.2um, column_3
_BAND = re.compile(r"(?P<word>[a-zµ_ ]*?)[ _.\-]*(?P<number>\d+(\.\d+)?)[ _]*(?P<unit>nm|um|µm)?", re.IGNORECASE)
_FACTS = ("wavelengths_nm", "no_data", "unit")


def index_pixels(data: Any, *, target: str, labelled: bool, header: bool, variable: str, cut: Cut) -> Index:
    """Returns one record a pixel of a scene, or one a spectrum.

    ``data`` is a folder of cubes or matrices of spectra with their labels; a manifest (columns path, label = the file
    of the labels, perhaps split); one such file; a table of spectra, or a folder with train.csv and test.csv; in memory
    a mapping ``{"cube": [h, w, bands], "labels": [h, w]}``, spectra ``[n, bands]`` or a list of single samples. Without
    ``labelled`` a scene gives every pixel with a measurement.

    Raises:
        DataError: nothing that can be read, or labels that are missing or do not fit.
        UsageError: a table to learn from without ``target``.
    """
    if isinstance(data, Mapping):
        return _index_memory(data, labelled=labelled, cut=cut)
    given = recognise(data)
    if isinstance(given, Files):
        parts = [
            _index_file(path, target=target, labelled=labelled, header=header, variable=variable, cut=cut)
            for path in given.paths
        ]
        return _together(parts, paths=given.paths)
    if isinstance(given, Folder) and any(is_array_file(file) for file in given.path.iterdir()):
        return index_folder_of_scenes(given.path, variable=variable, target=target, labelled=labelled, cut=cut)
    if isinstance(given, Folder) and not given.tables:
        raise DataError(
            given.path,
            must=f"hold cubes or spectra, or a table of them ({', '.join(SPECTRA_SUFFIXES)})",
            found=listing(sorted(file.name for file in given.path.iterdir())) or "an empty folder",
            do="Name the folder that holds the files themselves.",
        )
    if isinstance(given, Sheet) and (header or given.path is None) and given.lists_files:
        return _index_manifest(given, variable=variable, label_column=target, labelled=labelled, cut=cut)
    rows = isinstance(given, Items) and given.are(Mapping) and not any("values" in item for item in given.items)
    if rows or isinstance(given, Folder | Sheet):
        return _index_table(given, target=target, labelled=labelled, header=header)
    if isinstance(given, Array) and given.values.ndim == 3:
        raise DataError(
            "the data",
            must="be spectra [n, bands], windows [n, rows, columns, bands], or a mapping that holds a scene",
            found=f"an array of shape {given.values.shape}",
            do="Hand in a scene as {'cube': array, 'labels': map}.",
        )
    return index_files(given, suffixes=SCENES, require_labels=labelled)


def _index_file(path: Path, *, target: str, labelled: bool, header: bool, variable: str, cut: Cut) -> Index:
    """Returns the pixels of one file, or of what else stands in a list of paths."""
    given = recognise(path)
    if not isinstance(given, Files):
        return index_pixels(given, target=target, labelled=labelled, header=header, variable=variable, cut=cut)
    if not is_array_file(path):
        if path.suffix.lower() in ENVI_DATA:
            open_envi(path)  # says that its header is missing
        raise DataError(path, must=f"end in {', '.join(SPECTRA_SUFFIXES)}", found=f"'{path.suffix}'")
    return index_scene(path, variable=variable, target=target, labelled=labelled, cut=cut)


def _index_table(data: Any, *, target: str, labelled: bool, header: bool) -> Index:
    if labelled and not target:
        raise UsageError("--target", must="name the column to learn for a table of spectra", found="nothing")
    index = index_table(data, target=target or None, header=header)
    # Bands named by their wavelengths look like numbers, and beside the target's name like data.
    return replace(index, notes=tuple(note for note in index.notes if "looks like data" not in note))


def _index_manifest(sheet: Sheet, *, variable: str, label_column: str, labelled: bool, cut: Cut) -> Index:
    """Returns the pixels of the cubes that a manifest lists; its labels are the files of the maps."""
    column = label_column or "label"
    listed = index_manifest(sheet, suffixes=SCENES, label_column=column, require_labels=labelled)
    where = "the DataFrame" if sheet.path is None else sheet.path
    root = listed.root
    assert root is not None
    pairs = []
    for record in listed.records:
        assert record.path is not None
        labels = None
        if record.target is not None:
            file = root / str(record.target)
            if not file.is_file():
                must = f"name the file of the labels in column '{column}'"
                raise DataError(f"{where}, {record.key}", must=must, found=f"'{record.target}', which is not there")
            labels = only_array(file)
        pairs.append(Pair(find_cube(list_arrays(record.path), variable=variable), labels, record.split))
    return join(pairs, root=root, labelled=labelled, cut=cut, notes=listed.notes)


def _index_memory(data: Mapping[str, Any], *, labelled: bool, cut: Cut) -> Index:
    known = {"cube", "labels", *_FACTS}
    other = sorted(str(name) for name in data.keys() - known)
    if "cube" not in data or other:
        found = f"'{other[0]}'" if "cube" in data else f"only {listing(data)}"
        raise DataError("the data", must=f"hold 'cube' and nothing but {', '.join(sorted(known))}", found=found)
    about = {name: data[name] for name in _FACTS if data.get(name) is not None}
    cube = cube_from_array(np.asarray(data["cube"]), where="the cube", about=about)
    if not cube.neighbours:
        raise DataError("the cube", must="be [rows, columns, bands]", found=f"the shape {np.shape(data['cube'])}")
    labels = data.get("labels")
    if labels is not None:
        labels = np.asarray(labels)
        if labels.shape != cube.values.shape[:2] or labels.dtype.kind not in "iub":
            must = f"be whole numbers of the shape {cube.values.shape[:2]}, 0 = unlabelled"
            raise DataError("the labels", must=must, found=f"{labels.dtype} of shape {labels.shape}")
    elif labelled:
        raise DataError("the data", must="hold 'labels' beside 'cube'", found="none")
    base, notes = Record("cube", value=Origin(cube=cube, split=cut.words if labelled else "")), []
    if labelled:
        records = labelled_pixels(base, cube, labels, cut=cut, notes=notes)
    else:
        records = every_pixel(base, cube, labels, notes=notes)
    return Index(Records.of(records), tuple(notes))


def _together(parts: Sequence[Index], *, paths: Sequence[Path]) -> Index:
    """Returns several files as one index; a table stands alone, since its keys are row numbers."""
    if len(parts) > 1 and any(part.columns for part in parts):
        names = listing(path.name for path in paths)
        raise DataError("the data", must="be one table, or cubes only", found=names)
    notes = [note for part in parts for note in part.notes]
    columns = parts[0].columns if len(parts) == 1 else ()
    idle = tuple(item for part in parts for item in part.idle)
    return Index(Records.joined([part.records for part in parts]), tuple(notes), parts[0].root, columns, idle=idle)


def cube_from_row(row: Mapping[str, Any], *, where: str) -> tuple[Cube, tuple[str, ...]]:
    """Returns a table's row as a spectrum, and the names of its bands.

    Bands are the columns whose names end in a number (450, 450.5 nm, B1, band_2); where there are none, all columns
    that hold numbers. Names that are wavelengths (without a word before the number, from 100 on, or with a unit) give
    the bands their nanometres.

    Raises:
        DataError: no band, or one that is missing or holds a text.
    """
    found = {name: _BAND.fullmatch(str(name).strip()) for name in row}
    numbers = {name: _number(cell) for name, cell in row.items()}
    names = [name for name, match in found.items() if match]
    names = names or [name for name, number in numbers.items() if number is not None]
    if not names:
        raise DataError(where, must="have a column a band", found=f"the columns {listing(row)}")
    for name in names:
        if numbers[name] is None:
            has = "an empty cell" if row[name] is None else f"'{row[name]}'"
            raise DataError(f"{where}, column '{name}'", must="hold a number for this band", found=has)
    about: dict[str, Any] = {}
    waves = [_wavelength(found[name]) for name in names]
    if all(wave is not None for wave in waves):
        about["wavelengths_nm"] = wavelengths_nm(np.array(waves), unit="nm", where=f"{where}: names of the bands")
    cube = cube_from_array(np.array([numbers[name] for name in names]), where=where, about=about)
    return cube, tuple(str(name) for name in names)


def _number(cell: Any) -> float | None:
    """Returns a cell as a number, None for what is none; in a column with one stray text all cells are text."""
    if isinstance(cell, bool) or not isinstance(cell, str | int | float | np.integer | np.floating):
        return None
    try:
        return float(cell)
    except ValueError:
        return None


def _wavelength(match: re.Match[str] | None) -> float | None:
    """Returns the nanometres that a column's name says, None for a mere number of a band."""
    if match is None:
        return None
    number, unit = float(match["number"]), (match["unit"] or "").lower()
    if unit:
        return number if unit == "nm" else 1e3 * number
    return number if not match["word"] and number >= 100 else None
