"""Cubes: a scene as ``[h, w, bands]`` in the file's own numbers, with what the file says of its bands.

A file is read once and shared by all records that name its pixels. Wavelengths come from an ENVI header, from GDAL's
metadata in a TIFF, or from a variable of a ``.mat`` or ``.npz`` that is called wave... or wl...; they become nm.
Axes: h rows, w columns, b bands; row and column count from 0.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.data.limits import MOST_VALUE
from metatransformer.data.records import listing
from metatransformer.modalities._picture.pixels import is_number
from metatransformer.modalities.hyperspectral.arrays import (
    HDF5,
    Entry,
    choose_entry,
    is_envi,
    list_arrays,
    read_array,
    tiff_facts,
)
from metatransformer.modalities.hyperspectral.envi import open_envi

KEPT = 4  # files kept in memory at a time
MOST_BANDS = 8192  # the covariance of more takes half a gigabyte and minutes
_WAVES = re.compile(r"(.*\.)?(wave|wl|lambda)[^.]*", re.IGNORECASE)
FEWER = 8  # times more bands than shares of end-members that lie beside a cube
_CLASSES = 64  # so few different whole numbers over a whole matrix are labels
# Nanometres in one unit.
_LENGTHS = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometers": 1.0,
    "nanometres": 1.0,
    "um": 1e3,
    "µm": 1e3,
    "micrometer": 1e3,
    "micrometers": 1e3,
    "micrometres": 1e3,
    "microns": 1e3,
}
_WAVENUMBERS = ("wavenumber", "wavenumbers", "cm-1", "1/cm")  # waves in a centimetre


@dataclass(frozen=True, eq=False)
class Cube:
    """A scene, or a list of spectra ``[n, 1, b]`` without neighbours.

    ``good`` marks the bands that the file does not call bad; ``no_data`` is the number that stands for "not measured"
    (NaN always does); ``unit`` is empty where the file is silent.
    """

    values: np.ndarray
    where: str
    wavelengths_nm: np.ndarray | None = None
    good: np.ndarray | None = None
    no_data: float | None = None
    unit: str = ""
    neighbours: bool = True

    @property
    def bands(self) -> int:
        """The number of bands."""
        return self.values.shape[2]

    @np.errstate(over="ignore")  # of half precision: no such number is beyond all measures
    def is_measured(self, values: np.ndarray) -> np.ndarray:
        """Returns which of some values are measurements: neither NaN nor beyond all measures nor the number for "no
        data".
        """
        known = np.abs(values) <= MOST_VALUE if values.dtype.kind == "f" else np.ones(values.shape, dtype=bool)
        return known if self.no_data is None else known & ~is_number(values, self.no_data)

    @cached_property
    def alive(self) -> np.ndarray:
        """Which bands [b] were measured: not called bad by the file, and with a number other than 0 somewhere."""
        some = (self.is_measured(self.values) & (self.values != 0)).any(axis=(0, 1))
        # A single spectrum may well be 0 in a band.
        some |= self.values.shape[0] * self.values.shape[1] == 1
        return some if self.good is None else some & self.good

    @cached_property
    def valid(self) -> np.ndarray:
        """Which pixels ``[h, w]`` of a scene were measured in every live band, and are not 0 in all of them."""
        values = self.values[:, :, self.alive]
        measured = self.is_measured(values).all(axis=2)
        return measured & (values != 0).any(axis=2) if self.neighbours else np.ones(measured.shape, dtype=bool)

    @cached_property
    def largest(self) -> float:
        """The largest absolute value of the measured pixels, 0 where there is none."""
        values = self.values[:, :, self.alive]
        values = values[self.is_measured(values)]
        return float(np.abs(values.astype(np.float64)).max()) if values.size else 0.0


def cube_from_array(array: np.ndarray, *, where: str, about: Mapping[str, Any]) -> Cube:
    """Returns an array ``[b]``, ``[n, b]`` or ``[h, w, b]`` as a cube; the first two have no neighbours.

    ``about`` may hold ``wavelengths_nm``, ``no_data``, ``unit``, ``good``.

    Raises:
        DataError: another number of axes, an empty axis, no numbers, wavelengths or marks of another length.
    """
    if not 1 <= array.ndim <= 3 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise DataError(
            where,
            must="be numbers [bands], [pixels, bands] or [rows, columns, bands]",
            found=f"{array.dtype} of shape {array.shape}",
        )
    if array.shape[-1] > MOST_BANDS:
        do = "Average neighbouring bands; where these are pixels, transpose it."
        raise DataError(where, must=f"have at most {MOST_BANDS:,} bands", found=f"{array.shape[-1]:,}", do=do)
    flat = array.ndim < 3
    values = array.reshape(-1, 1, array.shape[-1]) if flat else array
    for name in ("wavelengths_nm", "good"):
        given = about.get(name)
        if given is not None and len(given) != values.shape[2]:
            must = f"have one entry for each of {values.shape[2]} bands"
            raise DataError(f"{where}: {name}", must=must, found=str(len(given)), do="Correct the list, or remove it.")
    waves = about.get("wavelengths_nm")
    return Cube(
        values,
        where,
        wavelengths_nm=None if waves is None else np.asarray(waves, dtype=float),
        good=about.get("good"),
        no_data=about.get("no_data"),
        unit=about.get("unit", ""),
        neighbours=not flat,
    )


def three_bands(count: int, *, nm: Sequence[float] | np.ndarray) -> list[int]:
    """Returns the bands to show as red, green and blue: nearest to 650, 550, 450 nm, else spread over the range."""
    if len(nm):
        return [int(np.abs(np.asarray(nm) - wanted).argmin()) for wanted in (650, 550, 450)]
    return [round(share * (count - 1)) for share in (0.75, 0.5, 0.25)]


def read_cube(path: Path, *, variable: str) -> Cube:
    """Returns the cube (or matrix of spectra) of a file; files that were read last are kept in memory.

    ``variable`` names one of several arrays; empty takes the only one of three axes, or else the only one of two.

    Raises:
        DataError: no cube, several that could be it, damaged or foreign bytes, wavelengths that make no sense.
    """
    about = path.stat() if path.is_file() else None
    stamp = (0, 0) if about is None else (about.st_mtime_ns, about.st_size)
    return _read_cube(path, variable, stamp)


@lru_cache(maxsize=KEPT)
def _read_cube(path: Path, variable: str, stamp: tuple[int, int]) -> Cube:
    del stamp  # only part of what the cache goes by: a file that changed is read anew
    entries = list_arrays(path)
    entry = find_cube(entries, variable=variable)
    array = read_array(path, name=entry.name)
    where = str(path) if len(entries) == 1 else f"{path}, '{entry.name}'"
    if not variable and _are_labels(array):
        do = "Name the cube, or this array in input.variable if these are spectra after all."
        raise DataError(where, must="hold a cube or spectra", found="a map of labels, as it seems", do=do)
    return cube_from_array(array, where=where, about=_about(path, entries, bands=entry.shape[-1]))


def _are_labels(array: np.ndarray) -> bool:
    """Returns whether a matrix holds so few different numbers, all whole, that they must be classes."""
    if array.ndim != 2 or array.size < 1000 or array.dtype.kind == "f" and not (array == np.round(array)).all():
        return False
    return array.min() >= 0 and len(np.unique(array)) <= _CLASSES


def find_cube(entries: Sequence[Entry], *, variable: str) -> Entry:
    """Returns the entry that is the cube, or the matrix of spectra where there is no cube.

    Raises:
        DataError: none or several could be it.
        UsageError: ``variable`` names none.
    """
    if variable:
        return choose_entry(tuple(entries), name=variable, option="input.variable")
    for axes in (3, 2):
        found = [entry for entry in entries if len(entry.shape) == axes and min(entry.shape) > 1]
        found = [entry for entry in found if axes == 3 or not entry.picture]
        if axes == 2 and len(found) > 1:  # beside spectra stand wavelengths and labels, never a larger matrix
            largest = max(np.prod(entry.shape) for entry in found)
            found = [entry for entry in found if np.prod(entry.shape) == largest]
        if axes == 3 and len({entry.shape[:2] for entry in found}) == 1:  # shares of end-members may lie beside it
            *others, most = sorted(found, key=lambda entry: entry.shape[2])
            found = [most] if all(FEWER * entry.shape[2] <= most.shape[2] for entry in others) else found
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                entries[0].path,
                must="hold one cube [rows, columns, bands]",
                found=listing(found),
                do="Name its variable in input.variable.",
            )
    raise DataError(
        entries[0].path,
        must="hold a cube [rows, columns, bands] or spectra [pixels, bands]",
        found=listing(entries),
    )


def _about(path: Path, entries: Sequence[Entry], *, bands: int) -> dict[str, Any]:
    """Returns what a file says of its bands."""
    suffix = path.suffix.lower()
    if is_envi(path):
        return _about_envi(path)
    if suffix in (".mat", ".npz", *HDF5):
        waves = [e for e in entries if _WAVES.fullmatch(e.name) and int(np.prod(e.shape)) == bands]
        if not waves:
            return {}
        values = read_array(path, name=waves[0].name).reshape(-1)
        return {"wavelengths_nm": wavelengths_nm(values, unit="", where=f"{path}, '{waves[0].name}'")}
    if suffix in (".tif", ".tiff"):
        return _about_tiff(path, bands=bands)
    return {}


def _about_tiff(path: Path, *, bands: int) -> dict[str, Any]:
    facts = tiff_facts(path)
    about: dict[str, Any] = {}
    if "no_data" in facts:
        about["no_data"] = _number(facts["no_data"], where=f"{path}, GDAL_NODATA")
    for name in ("wavelength", "wavelengths", "center_wavelength"):
        if len(facts.get(name, ())) == bands:
            values = [_number(text, where=f"{path}, {name}") for text in facts[name]]
            unit = next(iter(facts.get("wavelength_units", facts.get("wavelength_unit", [""]))))
            about["wavelengths_nm"] = wavelengths_nm(np.array(values), unit=unit, where=f"{path}, {name}")
            break
    return about


def _about_envi(path: Path) -> dict[str, Any]:
    facts = open_envi(path).fields
    about: dict[str, Any] = {}
    where = f"{path}, field"
    if "data ignore value" in facts:
        about["no_data"] = _number(facts["data ignore value"], where=f"{where} 'data ignore value'")
    unit = str(facts.get("wavelength units", ""))
    if "wavelength" in facts and unit.lower() not in ("index", "unknown"):
        values = np.array([_number(text, where=f"{where} 'wavelength'") for text in facts["wavelength"]])
        about["wavelengths_nm"] = wavelengths_nm(values, unit=unit, where=f"{where} 'wavelength'")
    if "bbl" in facts:
        about["good"] = np.array([_number(text, where=f"{where} 'bbl'") for text in facts["bbl"]]) != 0
    if "reflectance scale factor" in facts:
        about["unit"] = f"reflectance x {_number(facts['reflectance scale factor'], where=where):g}"
    elif "data units" in facts:
        about["unit"] = str(facts["data units"])
    return about


def wavelengths_nm(values: np.ndarray, *, unit: str, where: str) -> np.ndarray:
    """Returns wavelengths in nanometres; without a unit, values below 100 are micrometres. Wavenumbers are turned over.

    Raises:
        DataError: an unknown unit, or values that are no wavelengths of 100 nm to 100 um.
    """
    known = unit.strip().lower()
    if known and known not in (*_LENGTHS, *_WAVENUMBERS):
        raise DataError(where, must=f"be in one of {', '.join((*_LENGTHS, *_WAVENUMBERS))}", found=f"'{unit}'")
    values = np.asarray(values, dtype=float)
    with np.errstate(divide="ignore", over="ignore"):
        if known in _WAVENUMBERS:
            found = 1e7 / values
        else:
            factor = _LENGTHS[known] if known else 1e3 if values.size and np.nanmax(values) < 100 else 1.0
            found = values * factor
    if not np.isfinite(found).all() or found.min() < 100 or found.max() > 1e5:
        raise DataError(
            where, must="be wavelengths of 100 to 100,000 nm", found=f"{values.min():g} to {values.max():g}"
        )
    return found


def _number(text: Any, *, where: str) -> float:
    try:
        return float(text)
    except (TypeError, ValueError) as error:
        raise DataError(where, must="be a number", found=f"'{text}'") from error


def cube_in_memory(value: Any, *, where: str) -> tuple[Cube, int, int]:
    """Returns the cube of one spectrum ``[b]`` or window ``[w, w, b]``, with row and column of the pixel that counts.

    ``value`` is the array, or a mapping that holds it as ``values``.

    Raises:
        DataError: several spectra, a window without a middle, bands where columns should be.
    """
    about = value if isinstance(value, Mapping) else {"values": value}
    cube = cube_from_array(np.asarray(about["values"]), where=where, about=about)
    h, w = cube.values.shape[:2]
    if not cube.neighbours and h > 1:
        raise DataError(where, must="be one spectrum or one window", found=f"{h} spectra")
    if cube.neighbours and h > w == cube.bands > 1:
        raise DataError(where, must="be a window [rows, columns, bands]", found=f"the shape {cube.values.shape}")
    if cube.neighbours and (h % 2 == 0 or w % 2 == 0):
        raise DataError(where, must="be a window with a pixel in the middle", found=f"{h} x {w} pixels")
    return cube, h // 2, w // 2
