"""ENVI: a header of text beside a file of plain numbers.

Read here rather than by a library: the header is ten lines to parse, and the libraries refuse what many programs leave
out (the byte order) or put in (text that is no UTF-8).
Source: ENVI header files (L3Harris Geospatial).
"""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError

ENVI_DATA = (".dat", ".img", ".raw", ".bsq", ".bil", ".bip", ".sli", ".hyspex")
_TYPES = {1: "u1", 2: "i2", 3: "i4", 4: "f4", 5: "f8", 6: "c8", 9: "c16", 12: "u2", 13: "u4", 14: "i8", 15: "u8"}
# Axes of the file by its interleave; y rows, x columns, b bands.
_AXES = {"bsq": "byx", "bil": "ybx", "bip": "yxb"}
_FIELD = re.compile(r"^[ \t]*([^=;{}\n]+?)[ \t]*=[ \t]*(\{[^}]*\}|[^\n]*)", re.MULTILINE)
_MOST_BYTES = 1 << 24  # of a header: far beyond 10,000 bands with their names


@dataclass(frozen=True)
class Envi:
    """A header with its data file: ``fields`` by lower-case name, texts or lists of texts."""

    header: Path
    data: Path
    fields: dict[str, Any]

    def number(self, name: str, default: int | None = None) -> int:
        """Returns a field as a whole number from 0 on."""
        text = self.fields.get(name, default)
        if text is None or not re.fullmatch(r"[0-9]{1,18}", str(text)):
            found = "nothing" if text is None else f"'{text}'"
            raise DataError(self.header, must=f"state '{name}' as a whole number", found=found)
        return int(text)

    @property
    def is_library(self) -> bool:
        """Whether the data is a list of spectra, and no picture."""
        return "library" in str(self.fields.get("file type", "")).lower()

    def array(self) -> np.ndarray:
        """Returns the data as a map: ``[h, w, bands]``, ``[h, w]`` of a single band, ``[n, bands]`` of a library.

        Raises:
            DataError: a field is missing or unknown, or the data is shorter than the header says.
        """
        code, order = self.number("data type"), str(self.fields.get("interleave", "bsq")).lower()
        axes, kind = _AXES.get(order), _TYPES.get(code)
        if axes is None or kind is None:
            found, most = (f"data type {code}", _TYPES) if axes else (f"interleave '{order}'", _AXES)
            raise DataError(self.header, must=f"state one of {', '.join(map(str, most))}", found=found)
        known = {"y": self.number("lines"), "x": self.number("samples"), "b": self.number("bands", 1)}
        shape, offset = tuple(known[axis] for axis in axes), self.number("header offset", 0)
        values = np.dtype(kind).newbyteorder(">" if self.number("byte order", 0) else "<")
        need, have = offset + prod(shape) * values.itemsize, self.data.stat().st_size
        if have < need:
            must = f"stand beside {need:,} bytes of data"
            raise DataError(self.header, must=must, found=f"{have:,} in {self.data.name}", do="Copy both again.")
        if 0 in shape:
            raise DataError(self.header, must="announce some pixels", found=f"{shape} ({', '.join(axes)})")
        if any(set("".join(self.fields.get(f"{name} frame offsets", ""))) - {"0"} for name in ("major", "minor")):
            raise DataError(self.header, must="have no frame offsets", found="some")
        array = np.memmap(self.data, dtype=values, mode="r", offset=offset, shape=shape)
        array = array.transpose([axes.index(axis) for axis in "yxb"])
        return array[:, :, 0] if array.shape[2] == 1 else array


def envi_header(path: Path) -> Path | None:
    """Returns the ENVI header of a data file (``a.hdr`` or ``a.dat.hdr`` beside ``a.dat``), None without one."""
    names = (path.with_suffix(".hdr"), path.with_name(f"{path.name}.hdr"))
    return next((name for name in names if name.is_file()), None)


def open_envi(path: Path) -> Envi:
    """Returns the header and the data of an ENVI file, which is named by either.

    Raises:
        DataError: one of both is missing, or no ENVI header.
    """
    header = path if path.suffix.lower() == ".hdr" else envi_header(path)
    if header is None:
        raise DataError(path, must="have its ENVI header beside it", found=f"no {path.stem}.hdr")
    with header.open(encoding="latin-1") as file:  # what is no ASCII there is a comment or a name
        text = file.read(_MOST_BYTES)
    if not text.lstrip().startswith("ENVI"):
        raise DataError(header, must="be an ENVI header, with 'ENVI' as its first line", found=f"{text[:20]!r}")
    text = re.sub(r"^;.*$", "", text, flags=re.MULTILINE)
    fields = {name.lower(): _value(value) for name, value in _FIELD.findall(text)}
    data = path if header != path else _data_file(header, order=str(fields.get("interleave", "")))
    return Envi(header, data, fields)


def _value(text: str) -> str | list[str]:
    """Returns a text, or the list that stands in braces."""
    text = text.strip()
    return [part.strip() for part in text[1:-1].split(",")] if text.startswith("{") else text


def _data_file(header: Path, *, order: str) -> Path:
    """Returns the data beside a header: its name without .hdr, or with an ending of data in either case."""
    bare = header.with_suffix("")
    endings = ["", *ENVI_DATA, *([f".{order.lower()}"] if order.isalnum() and len(order) < 9 else [])]
    names = [bare.with_name(bare.name + ending) for end in endings for ending in (end, end.upper())]
    found = next((name for name in names if name.is_file()), None)
    if found is None:
        must = f"stand beside its data: {bare.name}, or with one of {', '.join(ENVI_DATA)}"
        raise DataError(header, must=must, found="none of these")
    return found
