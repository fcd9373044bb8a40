"""LAS and LAZ, the formats of laser scanning, by laspy: coordinates in their unit, colours, intensity, classes."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.limits import Bounded
from metatransformer.data.write import atomic_file

LAS_SUFFIXES = (".las", ".laz")
_ROWS = 1 << 18  # points read at a time
_ROWS_BYTES = 2**26
_LASZIP = b"laszip encoded", 22204
_CHUNK = 2**20  # points that a chunk may hold in any case; 50,000 are usual
_VARIABLE = 2**32 - 1  # each chunk says itself how many it holds
_RECORD = 54  # bytes of the smallest variable length record
_MOST, _MOST_OLD, _NEW = 255, 31, 6  # the largest class; that of point formats before the sixth
_LETTERS = 15  # of a class's name
_COMPRESSED = 0xC0  # the bits of the point format that say LAZ
_COLUMNS = ("red", "green", "blue", "intensity", "nx", "ny", "nz", "classification")


def read_las(path: Path) -> tuple[tuple[str, ...], Iterator[np.ndarray]]:
    """Returns the names of the columns and the rows ``[n, columns]``, some at a time.

    The columns are x, y, z, then what the file has of red, green, blue, intensity, nx, ny, nz, classification.

    Raises:
        DataError: damaged, foreign, or with another number of points than its header says.
        MissingDependencyError: laspy is not installed.
    """
    with _opened(path) as file:
        with _border(path):
            known = {name.lower(): name for name in file.header.point_format.dimension_names}
    names = [name for name in _COLUMNS if name in known]
    return ("x", "y", "z", *names), _rows(path, [known[name] for name in names])


def _rows(path: Path, names: Sequence[str]) -> Iterator[np.ndarray]:
    total = 0
    with _opened(path) as file:
        with _border(path):
            each = max(1, file.header.point_format.size)  # bytes, as the header claims
            announced, chunks = file.header.point_count, file.chunk_iterator(max(1, min(_ROWS, _ROWS_BYTES // each)))
        while True:
            with _border(path):
                points = next(chunks, {})
                columns = [
                    np.asarray(points[name], dtype=np.float64) for name in ("x", "y", "z", *names) if len(points)
                ]
            if not columns:
                break
            total += len(columns[0])
            yield np.stack(columns, axis=1)
    if total != announced:
        raise DataError(path, must=f"hold {announced:,} points, as its header says", found=f"{total:,}")


def _opened(path: Path) -> Any:
    """Returns a file opened by laspy."""
    try:
        import laspy
    except ImportError as error:
        raise MissingDependencyError("laspy[lazrs]", extra="pointcloud", purpose="LAS and LAZ files") from error
    if fault := _fault(path):
        raise DataError(path, must="be a whole LAS or LAZ file", found=f"'{fault}'", do="Copy it again.")
    with _border(path):
        return laspy.open(Bounded(path))


def write_classes(path: Path, *, source: Path, points: np.ndarray, codes: np.ndarray, names: Mapping[int, str]) -> None:
    """Writes a copy of ``source``, LAS or LAZ, whose points have the classes ``codes`` [n], with their names.

    ``points`` [n, 3] are those of the source in its order, or some of them; then only places and classes are written.

    Raises:
        DataError: a class beyond 255, which the format does not have.
    """
    import laspy

    if codes.max() > _MOST:
        must, do = f"be codes up to {_MOST} for LAS", "Number them so, or predict for a PLY file."
        raise DataError("classes", must=must, found=str(codes.max()), do=do)
    with _border(source):
        las = laspy.read(source)
    if len(las.points) != len(codes):
        las = laspy.LasData(las.header, laspy.ScaleAwarePointRecord.zeros(len(codes), header=las.header))
        las.x, las.y, las.z = points.T
    if codes.max() > _MOST_OLD and las.header.point_format.id < _NEW:
        las = laspy.convert(las, point_format_id=_NEW + ("red" in las.point_format.dimension_names))
    las.classification = codes.astype(np.uint8)
    if names:
        lookup = laspy.vlrs.known.ClassificationLookupVlr()
        for code, name in names.items():
            lookup[code] = name.encode("ascii", "replace").decode()[:_LETTERS]
        las.vlrs.append(lookup)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        las.write(file, do_compress=path.suffix.lower() == ".laz")


def _border(path: Path) -> foreign:
    return foreign(path, "laspy", must="be a whole LAS or LAZ file", do="Copy it again.")


def _fault(path: Path) -> str:
    """Returns how header or table of chunks announce more than the file can hold; empty where they do not.

    laspy walks through as many records as the header announces, and the decompressor of LAZ reserves memory for as many
    chunks as its table announces; where that fails it ends the whole process. Sources: LAS 1.4 specification, public
    header block; the LASzip format as lazrs reads it (the point data begin with the place of the table, -1 = it stands
    in the last 8 bytes; the table begins with its version and the number of chunks; the record "laszip encoded" holds
    the points of a chunk, for which memory is reserved).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(105)
        if len(head) < 105 or head[:4] != b"LASF":
            return "no LAS header"
        length, points, records, form = struct.unpack_from("<HIIB", head, 94)
        if length + records * _RECORD > points or points > size:
            return f"a header with {records} records before byte {points}"
        if not form & _COMPRESSED:
            return ""
        if fault := _chunk_fault(file, records=records, at=length, most=max(size, _CHUNK)):
            return fault
        place = _whole_number(file, at=points)
        place = _whole_number(file, at=max(0, size - 8)) if place == -1 else place
        if not 0 <= place <= size - 8:
            return f"a table of chunks at byte {place}"
        file.seek(place)
        _, chunks = struct.unpack("<II", file.read(8))
        return f"a table of {chunks} chunks" if chunks > size else ""


def _chunk_fault(file: Any, *, records: int, at: int, most: int) -> str:
    """Returns that a chunk of LAZ announces more than ``most`` points; empty where it does not."""
    for _ in range(records):
        file.seek(at)
        user, kind, length = struct.unpack("<2x16sHH32x", file.read(_RECORD).ljust(_RECORD, b"\0"))
        if (user.rstrip(b"\0"), kind) == _LASZIP:
            points = int.from_bytes(file.read(16)[12:], "little")
            return f"chunks of {points:,} points" if most < points < _VARIABLE else ""
        at += _RECORD + length
    return ""


def _whole_number(file: Any, *, at: int) -> int:
    """Returns the 8 bytes there as a number, -2 where the file ends before."""
    file.seek(at)
    data = file.read(8)
    return int.from_bytes(data, "little", signed=True) if len(data) == 8 else -2
