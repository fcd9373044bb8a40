"""Arrays in files: MATLAB (v4 to v7.3), NumPy, TIFF, ENVI, PNG; what a file holds, and the values as they are stored.

An array of MATLAB keeps its axes in every version of the format: v7.3 is HDF5, which stores them backwards. A TIFF of
several pages is ``[h, w, pages]``. ENVI is named by its header or by the data file beside it.
Sources: MAT-file format (MathWorks); ENVI header files (L3Harris Geospatial); TIFF 6.0; GDAL's TIFF tags 42112, 42113.
"""

import re
import struct
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, MissingDependencyError, UsageError, nearest

ENVI_DATA = (".dat", ".img", ".raw", ".bsq", ".bil", ".bip")
ARRAY_SUFFIXES = (".mat", ".npy", ".npz", ".tif", ".tiff", ".hdr", ".png")
_NUMBERS = "fiub"
_MATLAB = {"double": "f", "single": "f", "logical": "b", "uint8": "u", "uint16": "u", "uint32": "u", "uint64": "u"}
_MATLAB |= {"int8": "i", "int16": "i", "int32": "i", "int64": "i"}
# What damaged files make the libraries raise.
BROKEN = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    RuntimeError,
    NotImplementedError,
    MemoryError,
    ArithmeticError,
    AssertionError,
    SyntaxError,
    tokenize.TokenError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class Entry:
    """One array of a file: the variable's name (empty where the file holds only one), its shape, and its kind of
    numbers as numpy writes it (f, i, u, b).
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: str

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"{self.path.name}{f':{self.name}' if self.name else ''} ({size})"


def is_array_file(path: Path) -> bool:
    """Returns whether a file's ending says that it holds arrays."""
    return path.suffix.lower() in ARRAY_SUFFIXES or (path.suffix.lower() in ENVI_DATA and envi_header(path) is not None)


def envi_header(path: Path) -> Path | None:
    """Returns the ENVI header of a data file (``a.hdr`` or ``a.dat.hdr`` beside ``a.dat``), None without one."""
    names = (path.with_suffix(".hdr"), path.with_name(f"{path.name}.hdr"))
    return next((name for name in names if name.is_file()), None)


def list_arrays(path: Path) -> tuple[Entry, ...]:
    """Returns the arrays of numbers in a file, in its order; only what says their shape is read.

    Raises:
        DataError: no such file, no ending of an array file, a damaged or foreign file, no array of numbers in it.
        MissingDependencyError: the library for this format is not installed.
    """
    lister, _ = _format(path)
    found = _guard(lister, path)
    entries = tuple(Entry(path, name, shape, kind) for name, (shape, kind) in found.items() if kind in _NUMBERS)
    if not entries:
        others = f"only {', '.join(found)}" if found else "nothing"
        raise DataError(path, must="hold an array of numbers", found=others)
    return entries


def read_array(path: Path, *, name: str) -> np.ndarray:
    """Returns an array of numbers of a file; ``name`` is that of ``list_arrays``.

    Raises:
        DataError: what ``list_arrays`` raises, or no array of that name.
        MissingDependencyError: the library for this format is not installed.
    """
    _, reader = _format(path)
    array = np.asarray(_guard(lambda file: reader(file, name), path))
    if array.dtype.kind not in _NUMBERS:
        raise DataError(f"{path}, '{name}'", must="hold real numbers", found=str(array.dtype))
    return array


def choose_entry(entries: tuple[Entry, ...], *, name: str, option: str) -> Entry:
    """Returns the entry called ``name``.

    Raises:
        UsageError: there is none; ``option`` is the setting that named it.
    """
    for entry in entries:
        if entry.name == name:
            return entry
    names = [entry.name for entry in entries if entry.name] or ["(nameless)"]
    raise UsageError(option, must=f"name an array of {entries[0].path.name}", found=name, do=nearest(name, names))


def _format(path: Path) -> tuple[Callable[[Path], Mapping[str, Any]], Callable[[Path, str], Any]]:
    """Returns the functions that list and read the arrays of a file of this ending."""
    if not path.is_file():
        raise DataError(path, must="be a file", found="a folder" if path.is_dir() else "nothing there")
    if path.stat().st_size == 0:
        raise DataError(path, must="hold an array of numbers", found="an empty file")
    suffix = path.suffix.lower()
    if suffix == ".hdr" or suffix in ENVI_DATA:
        return _list_envi, _read_envi
    formats = {
        ".mat": (_list_matlab, _read_matlab),
        ".npy": (_list_npy, _read_npy),
        ".npz": (_list_npz, _read_npz),
        ".tif": (_list_tiff, _read_tiff),
        ".tiff": (_list_tiff, _read_tiff),
        ".png": (_list_png, _read_png),
    }
    if suffix not in formats:
        endings = ", ".join((*ARRAY_SUFFIXES, *ENVI_DATA))
        raise DataError(path, must=f"end in {endings}", found=f"'{path.suffix}'" if suffix else "no ending")
    return formats[suffix]


def _guard(read: Callable[[Path], Any], path: Path) -> Any:
    """Returns what ``read`` returns; what a damaged file makes a library raise becomes our error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd but readable files; the libraries write them to the console
            return read(path)
    except (DataError, MissingDependencyError, UsageError):
        raise
    except BROKEN as error:
        if "imagecodecs" in str(error):
            raise missing("imagecodecs", purpose=f"{path}: its compression") from error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        do = "Remove it, or write or copy it again."
        raise DataError(path, must="be a whole file of its format", found=f"a damaged one ({reason})", do=do) from error


def missing(package: str, *, purpose: str) -> MissingDependencyError:
    """Returns the error for an optional library of this modality that is not installed."""
    return MissingDependencyError(package, extra="hyperspectral", purpose=purpose)


def _list_npy(path: Path) -> dict[str, Any]:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return {"": (array.shape, array.dtype.kind)}


def _read_npy(path: Path, name: str) -> np.ndarray:
    del name
    return np.load(path, allow_pickle=False)


def _list_npz(path: Path) -> dict[str, Any]:
    with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
        return {name: (file[name].shape, file[name].dtype.kind) for name in file.files}


def _read_npz(path: Path, name: str) -> np.ndarray:
    with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
        return file[name]


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        # MATLAB puts 512 bytes of its own before the HDF5 signature; other programs begin with it.
        return b"\x89HDF" in file.read(516)


def _list_matlab(path: Path) -> dict[str, Any]:
    if not _is_hdf5(path):
        with _scipy() as scipy_io:
            return {name: (shape, _MATLAB.get(kind, kind)) for name, shape, kind in scipy_io.whosmat(path)}
    h5py = _h5py(path)
    with h5py.File(path, "r") as file:
        return {
            name: (item.shape[::-1] if _by_matlab(item) else item.shape, item.dtype.kind)
            for name, item in file.items()
            if isinstance(item, h5py.Dataset) and not name.startswith("#")
        }


def _read_matlab(path: Path, name: str) -> np.ndarray:
    if not _is_hdf5(path):
        with _scipy() as scipy_io:
            return scipy_io.loadmat(path, variable_names=[name])[name]
    with _h5py(path).File(path, "r") as file:
        array = file[name][()]
        return array.T if _by_matlab(file[name]) else array


@contextmanager
def _scipy() -> Iterator[ModuleType]:
    """Gives scipy.io; its own error, which is none of Python's, becomes a ValueError."""
    import scipy.io
    from scipy.io.matlab import MatReadError

    try:
        yield scipy.io
    except MatReadError as error:
        raise ValueError(str(error)) from error


def _by_matlab(item: Any) -> bool:
    return "MATLAB_class" in item.attrs


def _h5py(path: Path) -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise missing("h5py", purpose=f"{path}: a MATLAB file of version 7.3") from error
    return h5py


def _list_png(path: Path) -> dict[str, Any]:
    array = _read_png(path, "")
    return {"": (array.shape, array.dtype.kind)}


def _read_png(path: Path, name: str) -> np.ndarray:
    """Returns grey values, or the numbers of a palette's colours; a coloured picture as its channels."""
    del name
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as picture:
        picture.load()
        return np.array(picture)


def _list_tiff(path: Path) -> dict[str, Any]:
    with _tifffile(path).TiffFile(path) as file:
        series = file.series[0]
        shape = tuple(series.shape[i] for i in _tiff_axes(series))
        return {"": (shape, series.dtype.kind)}


def _read_tiff(path: Path, name: str) -> np.ndarray:
    del name
    with _tifffile(path).TiffFile(path) as file:
        series = file.series[0]
        return series.asarray().transpose(_tiff_axes(series))


def _tiff_axes(series: Any) -> tuple[int, ...]:
    """Returns the order in which the axes become rows, columns, bands."""
    axes = series.axes
    if len(series.shape) > 3 or not {"Y", "X"} <= set(axes):
        raise ValueError(f"axes {axes} of {series.shape} are no cube")
    picture = [axes.index("Y"), axes.index("X")]
    return (*picture, *(i for i in range(len(axes)) if i not in picture))


def tiff_facts(path: Path) -> dict[str, Any]:
    """Returns what GDAL wrote into a TIFF: ``no_data``, and per band the items of its metadata, by lower-case name.

    ``{"no_data": "-9999", "wavelength": ["450.1", "460.2"], "wavelength_units": [...]}``; what is absent is left out.
    """

    def read(file: Path) -> dict[int, str]:
        with _tifffile(file).TiffFile(file) as tiff:
            tags = tiff.pages[0].tags
            return {code: str(tags[code].value) for code in (42112, 42113) if code in tags}

    tags = _guard(read, path)
    facts: dict[str, Any] = {}
    items = re.findall(r'<Item\s+name="([^"]+)"([^>]*)>([^<]*)</Item>', tags.get(42112, ""))
    for name, attributes, value in items:
        if "sample=" in attributes:
            facts.setdefault(name.lower(), []).append(value.strip())
    if 42113 in tags:
        facts["no_data"] = tags[42113].strip("\0 ")
    return facts


def _tifffile(path: Path) -> ModuleType:
    try:
        import tifffile
    except ImportError as error:
        raise missing("tifffile", purpose=f"{path}: a TIFF") from error
    return tifffile


def envi_facts(path: Path) -> dict[str, Any]:
    """Returns the fields of an ENVI header by lower-case name: text, or a list of texts."""
    return dict(_guard(lambda file: _open_envi(file).metadata, path))


def _open_envi(path: Path) -> Any:
    try:
        from spectral.io import envi
    except ImportError as error:
        raise missing("spectral", purpose=f"{path}: an ENVI file") from error
    header, data = path, None
    if path.suffix.lower() != ".hdr":
        found = envi_header(path)
        if found is None:
            raise DataError(path, must="have its ENVI header beside it", found=f"no {path.stem}.hdr")
        header, data = found, path
    try:
        image: Any = envi.open(str(header), None if data is None else str(data))
    except envi.SpyException as error:
        raise ValueError(str(error)) from error
    if hasattr(image, "spectra"):  # a library of spectra, which is read whole
        return image
    need = image.offset + image.sample_size * int(np.prod(image.shape))
    have = Path(image.filename).stat().st_size
    if have < need:
        must = f"stand beside {need:,} bytes of data"
        raise DataError(header, must=must, found=f"{have:,} in {Path(image.filename).name}")
    return image


def _list_envi(path: Path) -> dict[str, Any]:
    image = _open_envi(path)
    if hasattr(image, "spectra"):
        return {"": (image.spectra.shape, image.spectra.dtype.kind)}
    shape = image.shape if image.shape[2] > 1 else image.shape[:2]
    return {"": (tuple(int(n) for n in shape), np.dtype(image.dtype).kind)}


def _read_envi(path: Path, name: str) -> np.ndarray:
    """Returns the stored numbers; a single band is ``[h, w]``, a library of spectra ``[n, bands]``."""
    del name
    image = _open_envi(path)
    if hasattr(image, "spectra"):
        return image.spectra
    array = np.array(image.open_memmap(interleave="bip"))
    return array if array.shape[2] > 1 else array[:, :, 0]
