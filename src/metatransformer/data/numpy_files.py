"""NPY and NPZ files: what their arrays are, and the arrays, of numbers only (pickles are never loaded)."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError
from metatransformer.data.limits import DEFLATE, Bounded, require_room

_HEADERS: dict[tuple[int, int], Callable[..., Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def map_npy(path: Path) -> np.ndarray:
    """Returns the array of a file as a map: what of it is used is read, nothing is held.

    Raises:
        DataError: damaged, shorter than its header says, or not an array of plain values.
    """
    with foreign(
        path, "numpy", must="be a whole NPY file of numbers", do="Copy it again, or save it anew with numpy.save."
    ):
        with Bounded(path) as file:  # numpy sets memory aside for as long a header as is claimed
            _HEADERS.get(np.lib.format.read_magic(file), np.lib.format.read_array_header_2_0)(file)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    _require_bytes(path, array.dtype)
    return array


def list_npz(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Returns shape and type of each array of a file by its name, in their order; only headers are read.

    Raises:
        DataError: damaged, or an array that announces more than the file can hold.
    """
    found = {}
    with _border(path, "NPZ"):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as file:
                    shape, _, kind = _HEADERS[np.lib.format.read_magic(file)](file)
                found[name.removesuffix(".npy")] = (shape, kind)
    for name, (shape, kind) in found.items():
        _require_bytes(f"{path}, '{name}'", kind)
        require_room(path, shape=shape, bytes_each=kind.itemsize, what=f"values of '{name}'", ratio=DEFLATE)
    return found


def read_npz(path: Path, name: str) -> np.ndarray:
    """Returns an array of a file by its name.

    Raises:
        DataError: what ``list_npz`` raises, or an array of objects.
    """
    list_npz(path)
    with _border(path, "NPZ"), path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return archive[name]


def _require_bytes(where: object, kind: np.dtype[Any]) -> None:
    """Raises DataError for values of no bytes, of which a file of any size can announce billions."""
    if not kind.itemsize:
        raise DataError(where, must="hold numbers", found=f"values of the type {kind}, which have no bytes")


def _border(path: Path, kind: str) -> foreign:
    do = "Copy it again, or save it anew with numpy."
    return foreign(path, "numpy", must=f"be a whole {kind} file of numbers", do=do)
