"""Arrays in files: MATLAB (v4 to v7.3), HDF5, NumPy, TIFF, ENVI, PNG; what a file holds, and the values as stored.

An array of MATLAB keeps its axes in every version of the format: v7.3 is HDF5, which stores them backwards; a field
``b`` of a structure ``a`` is called ``a.b``. A TIFF of several pages is ``[h, w, pages]``. ENVI is named by its header
or by the data file beside it.
Sources: MAT-file format (MathWorks); TIFF 6.0; GDAL's TIFF tags 42112, 42113.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError, UsageError, nearest
from metatransformer.data.limits import DEFLATE, Bounded, require_room
from metatransformer.data.numpy_files import list_npz, map_npy, read_npz
from metatransformer.modalities._picture.read import open_picture
from metatransformer.modalities._picture.tiff import open_tiff, require_tiff_room
from metatransformer.modalities.hyperspectral.envi import ENVI_DATA, envi_header, open_envi
from metatransformer.modalities.hyperspectral.matlab import require_whole

HDF5 = (".h5", ".hdf5", ".he5", ".nc")
ARRAY_SUFFIXES = (".mat", *HDF5, ".npy", ".npz", ".tif", ".tiff", ".hdr", ".png")
PICTURES = (".tif", ".tiff", ".png")
_NUMBERS = "fiub"
_MATLAB = {"double": "f", "single": "f", "logical": "b", "uint8": "u", "uint16": "u", "uint32": "u", "uint64": "u"}
_MATLAB |= {"int8": "i", "int16": "i", "int32": "i", "int64": "i"}
_CLASSES = {"float64": "double", "float32": "single", "bool": "logical"} | {name: name for name in _MATLAB}
_ROWS = ("nrow", "nrows", "row", "rows", "line", "lines", "height", "h")
_COLUMNS = ("ncol", "ncols", "col", "cols", "column", "columns", "sample", "samples", "width", "w")
_Found = Mapping[str, tuple[tuple[int, ...], str]]  # shape and kind of number by name


@dataclass(frozen=True)
class Entry:
    """One array of a file: the variable's name (empty where the file holds only one), its shape, its kind of numbers as
    numpy writes it (f, i, u, b), and whether it is a picture, whose rows are places and never spectra.
    """

    path: Path
    name: str
    shape: tuple[int, ...]
    kind: str
    picture: bool = False

    def __str__(self) -> str:
        size = " x ".join(map(str, self.shape))
        return f"{self.path.name}{f':{self.name}' if self.name else ''} ({size})"


def is_array_file(path: Path) -> bool:
    """Returns whether a file's ending says that it holds arrays; data of ENVI has its header beside it."""
    return path.suffix.lower() in ARRAY_SUFFIXES or (is_envi_data(path) and envi_header(path) is not None)


def is_envi_data(path: Path) -> bool:
    """Returns whether a file's ending, or that it has none, says that it may be data of ENVI."""
    return path.suffix.lower() in ("", *ENVI_DATA)


def is_envi(path: Path) -> bool:
    """Returns whether a file is a header or the data of ENVI."""
    return path.suffix.lower() == ".hdr" or is_envi_data(path)


def list_arrays(path: Path) -> tuple[Entry, ...]:
    """Returns the arrays of numbers in a file, in its order; only what says their shape is read.

    Raises:
        DataError: no such file, no ending of an array file, a damaged or foreign file, no array of numbers in it.
        MissingDependencyError: the library for this format is not installed.
    """
    lister, _ = _format(path)
    found = dict(lister(path))
    if fold := _fold(path, found):
        found[fold.name] = (fold.shape, found[fold.name][1])
    picture = path.suffix.lower() in PICTURES or (is_envi(path) and not open_envi(path).is_library)
    numbers = {name: about for name, about in found.items() if about[1] in _NUMBERS}
    if not numbers:
        others = f"only {', '.join(found)}" if found else "nothing"
        raise DataError(path, must="hold an array of numbers", found=others)
    return tuple(Entry(path, name, shape, kind, picture) for name, (shape, kind) in numbers.items())


def read_array(path: Path, *, name: str) -> np.ndarray:
    """Returns an array of numbers of a file; ``name`` is that of ``list_arrays``.

    Raises:
        DataError: what ``list_arrays`` raises, or no array of that name.
        MissingDependencyError: the library for this format is not installed.
    """
    lister, reader = _format(path)
    array = np.array(reader(path, name))
    if (fold := _fold(path, lister(path))) and fold.name == name:
        array = (array.T if fold.turned else array).reshape(fold.shape, order="F")
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


def _format(path: Path) -> tuple[Callable[[Path], _Found], Callable[[Path, str], np.ndarray]]:
    """Returns the functions that list and read the arrays of a file of this ending."""
    if not path.is_file():
        raise DataError(path, must="be a file", found="a folder" if path.is_dir() else "nothing there")
    if path.stat().st_size == 0:
        raise DataError(path, must="hold an array of numbers", found="an empty file")
    suffix = path.suffix.lower()
    formats = {
        ".mat": (_list_hdf5, _read_hdf5) if _is_hdf5(path) else (_list_matlab, _read_matlab),
        ".h5": (_list_hdf5, _read_hdf5),
        ".npy": (_list_single(map_npy), _read_single(map_npy)),
        ".npz": (_list_npz, read_npz),
        ".tif": (_list_tiff, _read_single(_read_tiff)),
        ".png": (_list_single(_read_png), _read_single(_read_png)),
        ".hdr": (_list_single(_read_envi), _read_single(_read_envi)),
    }
    suffix = ".h5" if suffix in HDF5 else ".tif" if suffix == ".tiff" else suffix
    if is_envi_data(path):
        open_envi(path)  # or says that its header is missing
        suffix = ".hdr"
    if suffix not in formats:
        endings = ", ".join((*ARRAY_SUFFIXES, *ENVI_DATA))
        raise DataError(path, must=f"end in {endings}", found=f"'{path.suffix}'" if suffix else "no ending")
    return formats[suffix]


def _list_single(read: Callable[[Path], np.ndarray]) -> Callable[[Path], _Found]:
    def lister(path: Path) -> _Found:
        array = read(path)
        return {"": (array.shape, array.dtype.kind)}

    return lister


def _read_single(read: Callable[[Path], np.ndarray]) -> Callable[[Path, str], np.ndarray]:
    return lambda path, name: read(path)


def _list_npz(path: Path) -> _Found:
    return {name: (shape, kind.kind) for name, (shape, kind) in list_npz(path).items()}


# --- MATLAB -----------------------------------------------------------------------------------------------------------


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        # MATLAB puts 512 bytes of its own before the HDF5 signature; other programs begin with it.
        return b"\x89HDF" in file.read(516)


def _list_matlab(path: Path) -> _Found:
    import scipy.io

    require_whole(path)
    with Bounded(path) as file, _border(path, "scipy"):
        try:
            listed = scipy.io.whosmat(file)
        except TypeError:  # it stumbles over objects (text, tables, dates), which loadmat passes over
            file.seek(0)
            held = {name: array for name, array in scipy.io.loadmat(file).items() if not name.startswith("__")}
            listed = [(name, array.shape, _CLASSES.get(array.dtype.name, "object")) for name, array in held.items()]
    found = {}
    for name, shape, kind in listed:
        # A number of any class may be stored in a byte, and that compressed.
        require_room(path, shape=shape, bytes_each=1, what=f"values of '{name}'", ratio=DEFLATE)
        if kind == "struct":
            fields = _fields(_load(path, name), name=name)
            found |= {field: (array.shape, array.dtype.kind) for field, array in fields}
        else:
            found[name] = (shape, _MATLAB.get(kind, kind))
    return found


def _read_matlab(path: Path, name: str) -> np.ndarray:
    array = _load(path, name.partition(".")[0])
    return dict(_fields(array, name=name.partition(".")[0]))[name] if "." in name else array


def _load(path: Path, name: str) -> np.ndarray:
    import scipy.io

    require_whole(path)
    with Bounded(path) as file, _border(path, "scipy"):
        return scipy.io.loadmat(file, variable_names=[name])[name]


def _fields(array: np.ndarray, *, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the arrays inside a structure ``[1, 1]``, and inside its structures, by their dotted names."""
    if array.dtype.names is None:
        yield name, array
    elif array.size == 1:
        for field in array.dtype.names:
            yield from _fields(np.asarray(array[field].item()), name=f"{name}.{field}")


def _list_hdf5(path: Path) -> _Found:
    h5py = _h5py(path)
    found = {}
    with _border(path, "h5py"), h5py.File(path, "r") as file:
        groups, seen = [("", file)], set()
        while groups:
            prefix, group = groups.pop()
            if (place := h5py.h5o.get_info(group.id).addr) in seen:  # a group may hold one that holds it
                continue
            seen.add(place)
            for name, item in group.items():
                if isinstance(item, h5py.Dataset):
                    if item.attrs.get("MATLAB_class") == b"char":  # kept as the numbers of its letters
                        continue
                    found[prefix + name] = (
                        item.shape[::-1] if "MATLAB_class" in item.attrs else item.shape,
                        item.dtype,
                    )
                elif isinstance(item, h5py.Group) and not name.startswith("#"):
                    groups.append((f"{prefix}{name}.", item))
    for name, (shape, kind) in found.items():
        require_room(path, shape=shape or (), bytes_each=kind.itemsize, what=f"values of '{name}'", ratio=DEFLATE)
    return {name: (shape, kind.kind) for name, (shape, kind) in found.items() if shape is not None}


def _read_hdf5(path: Path, name: str) -> np.ndarray:
    h5py = _h5py(path)
    with _border(path, "h5py"), h5py.File(path, "r") as file:
        item = file[name.replace(".", "/")]
        return item[()].T if "MATLAB_class" in item.attrs else item[()]


def _h5py(path: Path) -> Any:
    try:
        import h5py
    except ImportError as error:
        purpose = f"{path}: HDF5, as MATLAB's version 7.3"
        raise MissingDependencyError("h5py", extra="hyperspectral", purpose=purpose) from error
    return h5py


@dataclass(frozen=True)
class _Fold:
    """How a matrix becomes a scene of ``shape``; ``turned`` says that it is ``[bands, pixels]``."""

    name: str
    shape: tuple[int, int, int]
    turned: bool


def _fold(path: Path, found: _Found) -> _Fold | None:
    """Returns which matrix is a scene, pixels column by column, as files for unmixing have it with its sides beside."""
    if path.suffix.lower() != ".mat":
        return None
    rows, columns = (_side(path, found, names) for names in (_ROWS, _COLUMNS))
    pixels = rows * columns
    fitting = [(name, shape) for name, (shape, _) in found.items() if len(shape) == 2 and pixels in shape]
    if min(rows, columns) < 2 or not fitting:
        return None
    name, shape = max(fitting, key=lambda one: one[1][0] * one[1][1])
    turned = shape[1] == pixels
    return _Fold(name, (rows, columns, shape[0] if turned else shape[1]), turned)


def _side(path: Path, found: _Found, names: tuple[str, ...]) -> int:
    """Returns the number that stands under one of these names, 0 where there is none or several."""
    there = [
        name for name, (shape, _) in found.items() if name.rpartition(".")[2].lower() in names and set(shape) <= {1}
    ]
    if len(there) != 1:
        return 0
    values = np.ravel(_format(path)[1](path, there[0]))
    value = float(values[0]) if values.dtype.kind in _NUMBERS else 0.0
    return int(value) if 0 < value < 1e9 and value == int(value) else 0


def _border(path: Path, library: str) -> foreign:
    return foreign(path, library, must=f"be a whole {'MATLAB' if path.suffix.lower() == '.mat' else 'HDF5'} file")


# --- pictures ---------------------------------------------------------------------------------------------------------


def _read_png(path: Path) -> np.ndarray:
    """Returns grey values, or the numbers of a palette's colours; a coloured picture as its channels."""
    with Bounded(path) as file:
        picture = open_picture(file, path=path, formats=("PNG",))
        if picture is None:
            raise DataError(path, must="be a PNG", found="something else", do="Remove it.")
        with foreign(path, "Pillow", must="be a whole picture"):
            return np.array(picture)


def _read_envi(path: Path) -> np.ndarray:
    return open_envi(path).array()


def _list_tiff(path: Path) -> _Found:
    with open_tiff(path, extra="hyperspectral") as file:
        series = _series(file, path=path)
        shape = tuple(series.shape[axis] for axis in _tiff_axes(series))
        return {"": (shape, series.dtype.kind)}


def _read_tiff(path: Path) -> np.ndarray:
    with open_tiff(path, extra="hyperspectral") as file:
        series = _series(file, path=path)
        with _tiff_border(path):
            array = series.asarray()
        if array.shape != series.shape:
            wanted, found = (" x ".join(map(str, shape)) for shape in (series.shape, array.shape))
            raise DataError(path, must=f"hold {wanted} values, as it says", found=found, do="Copy or write it again.")
        return array.transpose(_tiff_axes(series))


def _series(file: Any, *, path: Path) -> Any:
    """Returns the first series of pages, once it is a cube that the file can hold."""
    with _tiff_border(path):
        series = file.series[0]
        axes, page = series.axes, series.keyframe
    if len(series.shape) > 3 or not {"Y", "X"} <= set(axes) or series.dtype is None:
        found = f"axes {axes} of {' x '.join(map(str, series.shape))}"
        raise DataError(path, must="hold a cube [rows, columns, bands]", found=found, do="Save one cube a file.")
    require_tiff_room(path, page, shape=series.shape)
    return series


def _tiff_axes(series: Any) -> tuple[int, ...]:
    """Returns the order in which the axes become rows, columns, bands."""
    picture = [series.axes.index("Y"), series.axes.index("X")]
    return (*picture, *(i for i in range(len(series.axes)) if i not in picture))


def _tiff_border(path: Path) -> foreign:
    return foreign(path, "tifffile", must="be a whole TIFF", needs=("imagecodecs", "hyperspectral"))


def tiff_facts(path: Path) -> dict[str, Any]:
    """Returns what GDAL wrote into a TIFF: ``no_data``, and per band the items of its metadata, by lower-case name.

    ``{"no_data": "-9999", "wavelength": ["450.1", "460.2"], "wavelength_units": [...]}``; what is absent is left out.
    """
    with open_tiff(path, extra="hyperspectral") as file, _tiff_border(path):
        tags = file.pages[0].tags
        texts = {code: str(tags[code].value) for code in (42112, 42113) if code in tags}
    facts: dict[str, Any] = {}
    items = re.findall(r'<Item\s+name="([^"]+)"([^>]*)>([^<]*)</Item>', texts.get(42112, ""))
    for name, attributes, value in items:
        if "sample=" in attributes:
            facts.setdefault(name.lower(), []).append(value.strip())
    if 42113 in texts:
        facts["no_data"] = texts[42113].strip("\0 ")
    return facts
