"""Pairs of pictures and texts on disk: WebDataset shards as img2dataset writes them, a manifest, or Parquet.

File: .tar with ``key.jpg`` (png, webp), ``key.txt`` and, for filters, ``key.json`` one behind the other; a table with
the columns path and text (also file, image; caption); Parquet with a column of pictures' bytes instead of paths.
A folder of .tar or .parquet, a pattern (``shards/*.tar``) and a range (``{00000..00041}.tar``) are taken in order.
What is looked at beforehand are names, texts and, where a filter asks, columns; a picture is read when its turn comes.
Errors: no pair at all; no such column. Single broken pairs are counted and left out.
"""

import glob
import hashlib
import json
import os
import re
import tarfile
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, UsageError, nearest
from metatransformer.data.limits import read_bytes
from metatransformer.data.table import read_table
from metatransformer.machine.device import processors
from metatransformer.pairs.scans import Scan, Scans

PATHS = ("path", "file", "filepath", "file_path", "image_path", "filename", "image")
TEXTS = ("text", "caption", "captions", "sentence", "title")
BYTES = ("image", "jpg", "jpeg", "png", "webp", "bytes", "image_bytes", "picture")
PICTURES = ("jpg", "jpeg", "png", "webp", "gif", "bmp")
TOLD = 3  # broken pairs that are named
EDGE = 2048  # bytes from both ends of a picture that tell it from others of its size
GROUPS = 32  # of rows of a Parquet file that are mixed; twice as many are held in memory


class Pair(NamedTuple):
    """One pair before it is kept: ``picture`` gives size and both ends of its file; ``columns`` what else is known."""

    item: int
    text: str
    picture: Callable[[], bytes]
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which pairs are kept; see ``PretrainOptions``."""

    least_words: int = 1
    most_words: int = 0
    language: str = ""
    language_column: str = "language"
    similarity: float = 0.0
    similarity_column: str = "similarity"
    duplicates: str = "all"

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that filters ask for."""
        asked = ((self.language, self.language_column), (self.similarity, self.similarity_column))
        return tuple(column for value, column in asked if value)

    def why_not(self, pair: Pair, *, where: str) -> str:
        """Returns why a pair is left out, "" where it is kept.

        Raises:
            UsageError: a filter asks for what the pair does not have.
        """
        count = len(pair.text.split())
        if count < max(1, self.least_words):
            return "too short a text"
        if self.most_words and count > self.most_words:
            return "too long a text"
        if self.language and str(_column(pair, self.language_column, where)).lower() != self.language.lower():
            return "another language"
        if self.similarity and not _number(_column(pair, self.similarity_column, where)) >= self.similarity:
            return "too little similarity"
        return ""


def _column(pair: Pair, name: str, where: str) -> Any:
    found = {key.lower(): value for key, value in pair.columns.items()}
    if name.lower() not in found:
        do = nearest(name, found) if found else ""
        raise UsageError(where, must=f"have '{name}', which a filter asks for", found="a pair without it", do=do)
    return found[name.lower()]


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


class Shards:
    """Where pairs lie. ``look`` goes through one shard; ``read`` returns bytes and text of one pair.

    ``whole`` says that pictures lie in the shards, whose size and time then tell whether anything changed.
    """

    whole = True

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def look(self, shard: int, *, columns: Sequence[str]) -> tuple[list[Pair], list[str]]:
        """Returns the pairs of a shard with the columns that are asked for, and what cannot be used."""
        raise NotImplementedError

    def part(self, shard: int) -> int:
        """Returns which part of its file a shard is."""
        del shard
        return 0

    def known(self, shard: int) -> dict[str, np.ndarray]:
        """Returns what ``look`` found out beside the pairs, which ``read`` needs."""
        del shard
        return {}

    def remember(self, shard: int, known: Mapping[str, np.ndarray]) -> None:
        """Takes what an earlier ``look`` found out."""

    def read(self, shard: int, item: int) -> tuple[bytes, str, Path]:
        """Returns picture, text, and what to call the pair."""
        raise NotImplementedError


class Tars(Shards):
    """Shards of WebDataset; of each pair it is kept where picture and text begin and how long they are."""

    def __init__(self, paths: Sequence[Path]) -> None:
        super().__init__(paths)
        self.places: dict[int, np.ndarray] = {}

    def look(self, shard: int, *, columns: Sequence[str]) -> tuple[list[Pair], list[str]]:
        """Returns the pairs of a shard with the columns that are asked for, and what cannot be used."""
        path, places, pairs, broken = self.paths[shard], [], [], list[str]()
        handle = os.open(path, os.O_RDONLY)
        try:
            for key, parts in _samples(path, broken):
                picture = next((parts[kind] for kind in PICTURES if kind in parts), None)
                if picture is None or "txt" not in parts:
                    broken.append(f"{path}, {key}: no {'picture' if picture is None else 'text'}")
                    continue
                try:
                    text = os.pread(handle, parts["txt"][1], parts["txt"][0]).decode("utf-8").strip()
                    told = json.loads(os.pread(handle, *reversed(parts["json"]))) if columns and "json" in parts else {}
                except ValueError as error:
                    broken.append(f"{path}, {key}: {error}")
                    continue
                pairs.append(Pair(len(places), text, _later(path, picture), told if isinstance(told, dict) else {}))
                places.append((*picture, *parts["txt"]))
        finally:
            os.close(handle)
        self.places[shard] = np.array(places, dtype=np.int64).reshape(-1, 4)
        return pairs, broken

    def known(self, shard: int) -> dict[str, np.ndarray]:
        """Returns where the pairs of a shard lie."""
        return {"places": self.places[shard]}

    def remember(self, shard: int, known: Mapping[str, np.ndarray]) -> None:
        """Takes where the pairs of a shard lie."""
        self.places[shard] = known["places"]

    def read(self, shard: int, item: int) -> tuple[bytes, str, Path]:
        """Returns picture, text, and what to call the pair."""
        path, place = self.paths[shard], self.places[shard][item].tolist()
        handle = os.open(path, os.O_RDONLY)
        try:
            picture, text = os.pread(handle, place[1], place[0]), os.pread(handle, place[3], place[2])
        finally:
            os.close(handle)
        return picture, text.decode("utf-8").strip(), path / str(item)


def _samples(path: Path, broken: list[str]) -> Iterator[tuple[str, dict[str, tuple[int, int]]]]:
    """Yields key and parts (offset and size by ending) of the members that stand together."""
    key, parts = "", dict[str, tuple[int, int]]()
    for member in _members(path, broken):
        folder, _, name = member.name.rpartition("/")
        stem, _, kind = name.partition(".")
        if f"{folder}/{stem}" != key:
            if parts:
                yield key, parts
            key, parts = f"{folder}/{stem}", {}
        parts[kind.lower()] = member.offset_data, member.size
    if parts:
        yield key, parts


def _members(path: Path, broken: list[str]) -> Iterator[tarfile.TarInfo]:
    """Yields files; what stands behind a damaged place is counted as one broken thing."""
    try:
        with foreign(path, "tarfile", must="be a whole .tar file"):
            tar = tarfile.open(path, "r:")
    except DataError as error:
        broken.append(str(error))
        return
    size = path.stat().st_size
    with tar:
        while True:
            try:
                with foreign(path, "tarfile", must="be a whole .tar file"):
                    member = tar.next()
            except DataError as error:
                broken.append(str(error))
                return
            if member is None:
                return
            if member.offset_data + member.size > size:
                broken.append(f"{path}, {member.name}: cut off")
                return
            if member.isfile():
                yield member


class Listed(Shards):
    """A table with the paths of pictures, which lie beside it, and their texts."""

    whole = False

    def __init__(self, path: Path, frame: pd.DataFrame) -> None:
        super().__init__([path])
        paths, texts = column_among(frame.columns, PATHS, path), column_among(frame.columns, TEXTS, path)
        self.frame, self.files, self.texts = frame, frame[paths].tolist(), frame[texts].tolist()

    def look(self, shard: int, *, columns: Sequence[str]) -> tuple[list[Pair], list[str]]:
        """Returns the pairs of a shard with the columns that are asked for, and what cannot be used."""
        folder, pairs, broken = self.paths[shard].parent, [], list[str]()
        asked = {name.lower() for name in columns}
        names = [name for name in self.frame.columns if str(name).lower() in asked]
        rows = self.frame[names].to_dict("records") if names else [{}] * len(self.files)
        for item, (file, text, row) in enumerate(zip(self.files, self.texts, rows, strict=True)):
            if pd.isna(file) or pd.isna(text) or not (folder / str(file)).is_file():
                broken.append(f"{self.paths[shard]}, row {item}: no text, or no such file as '{file}'")
                continue
            told = {str(name): value for name, value in row.items()}
            pairs.append(Pair(item, str(text).strip(), _later(folder / str(file), None), told))
        return pairs, broken

    def read(self, shard: int, item: int) -> tuple[bytes, str, Path]:
        """Returns picture, text, and what to call the pair."""
        path = self.paths[shard].parent / str(self.files[item])
        return read_bytes(path), str(self.texts[item]).strip(), path


class Packed(Shards):
    """Parquet with the bytes of pictures: a group of rows is a shard, and a few groups are held in memory."""

    def __init__(self, paths: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        groups = []
        for path in paths:
            with foreign(path, "pyarrow", must="be a whole Parquet file"):
                file = pq.ParquetFile(path)
                groups += [(path, group) for group in range(file.metadata.num_row_groups)]
                names = file.schema_arrow.names
        super().__init__([path for path, _ in groups])
        self.groups = [group for _, group in groups]
        self.picture, self.text = column_among(names, BYTES, paths[0]), column_among(names, TEXTS, paths[0])
        self._held: OrderedDict[int, tuple[list[Any], list[Any]]] = OrderedDict()
        self._lock = threading.Lock()

    def _columns(self, shard: int, names: Sequence[str]) -> dict[str, list[Any]]:
        import pyarrow.parquet as pq

        with foreign(self.paths[shard], "pyarrow", must="be a whole Parquet file"):
            table = pq.ParquetFile(self.paths[shard]).read_row_group(self.groups[shard], columns=list(names))
            return {name: table.column(name).to_pylist() for name in names}

    def look(self, shard: int, *, columns: Sequence[str]) -> tuple[list[Pair], list[str]]:
        """Returns the pairs of a shard with the columns that are asked for, and what cannot be used."""
        import pyarrow.parquet as pq

        asked = {name.lower() for name in columns}
        names = [name for name in pq.ParquetFile(self.paths[shard]).schema_arrow.names if name.lower() in asked]
        found = self._columns(shard, [self.text, *names])
        pairs, broken = [], list[str]()
        for item, text in enumerate(found[self.text]):
            if text is None:
                broken.append(f"{self.paths[shard]}, group {self.groups[shard]}, row {item}: no text")
                continue
            told = {name: found[name][item] for name in names}
            pairs.append(Pair(item, str(text).strip(), lambda item=item: self._ends(shard, item), told))
        return pairs, broken

    def part(self, shard: int) -> int:
        """Returns which group of rows a shard is."""
        return self.groups[shard]

    def _ends(self, shard: int, item: int) -> bytes:
        data = self.read(shard, item)[0]
        return str(len(data)).encode() + data[:EDGE] + data[-EDGE:]

    def read(self, shard: int, item: int) -> tuple[bytes, str, Path]:
        """Returns picture, text, and what to call the pair."""
        with self._lock:
            if shard not in self._held:
                found = self._columns(shard, [self.picture, self.text])
                self._held[shard] = found[self.picture], found[self.text]
                if len(self._held) > 2 * GROUPS:
                    self._held.popitem(last=False)
            self._held.move_to_end(shard)
            pictures, texts = self._held[shard]
        value, where = pictures[item], self.paths[shard] / str(item)
        value = value.get("bytes") if isinstance(value, dict) else value  # as the library datasets writes it
        if not isinstance(value, bytes):
            raise DataError(where, must="hold a picture's bytes", found=f"a {type(value).__name__}")
        return value, str(texts[item]).strip(), where


def _edges(handle: int, start: int, size: int) -> bytes:
    first, last = (
        os.pread(handle, min(EDGE, size), start),
        os.pread(handle, min(EDGE, size), start + max(0, size - EDGE)),
    )
    return str(size).encode() + first + last


def _later(path: Path, place: tuple[int, int] | None) -> Callable[[], bytes]:
    """Returns what reads size and both ends of a picture, if it is asked."""

    def read() -> bytes:
        handle = os.open(path, os.O_RDONLY)
        try:
            return _edges(handle, *(place or (0, os.fstat(handle).st_size)))
        finally:
            os.close(handle)

    return read


def column_among(columns: Iterable[object], known: Sequence[str], path: Path) -> str:
    """Returns the first of the known names that a table has, whatever its capitals.

    Raises:
        DataError: it has none.
    """
    names = {str(name).lower(): str(name) for name in columns}
    found = next((names[name] for name in known if name in names), None)
    if found is None:
        raise DataError(path, must=f"have a column {' or '.join(known[:3])}", found=", ".join(names.values()) or "none")
    return found


@dataclass(frozen=True, eq=False)
class Pairs:
    """The pairs that are kept, by columns: ``shard`` and ``item`` [n] say where each lies, ``label`` [n] int64 is equal
    for equal texts. ``left_out`` counts what filters took, by reason; ``broken`` names what could not be used.
    """

    source: Shards
    shard: np.ndarray
    item: np.ndarray
    label: np.ndarray
    left_out: Mapping[str, int]
    broken: Sequence[str]

    def __len__(self) -> int:
        return len(self.label)

    def read(self, row: int) -> tuple[bytes, str, Path]:
        """Returns picture, text, and what to call the pair."""
        return self.source.read(int(self.shard[row]), int(self.item[row]))

    def take(self, rows: np.ndarray) -> "Pairs":
        """Returns some of the pairs."""
        return replace(self, shard=self.shard[rows], item=self.item[rows], label=self.label[rows])

    def identity(self) -> str:
        """Returns a digest of which pairs these are, in their order."""
        digest = hashlib.sha256()
        for column in (self.shard, self.item, self.label):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()

    @property
    def window(self) -> int:
        """How many pairs may be mixed: of Parquet only as many as are held in memory."""
        if not isinstance(self.source, Packed):
            return 2**16
        return int(GROUPS * np.median(np.unique(self.shard, return_counts=True)[1]))

    def apart(self, share: float, most: int) -> tuple["Pairs", "Pairs"]:
        """Returns pairs to learn from and held-out ones: no text is on both sides."""
        labels = self.label.view(np.uint64)
        count = min(round(share * len(self)), most)
        held = labels < np.sort(labels)[count] if count else np.zeros(len(self), dtype=bool)
        return self.take(np.flatnonzero(~held)), self.take(np.flatnonzero(held))


def label_of(text: str) -> int:
    """Returns a number that equal texts share, whatever their capitals and spaces."""
    told = " ".join(text.lower().split()).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little", signed=True)


def read_pairs(
    place: str, wanted: Wanted, *, workers: int = 0, scans: Scans | None = None, first: float = 0.0
) -> Pairs:
    """Returns the pairs that lie at a place and pass the filters.

    ``scans`` holds what an earlier call found, and gets what this one does; ``first`` is the share of the shards behind
    which it begins, so that several processes do not all look at the same ones.

    Raises:
        DataError: nothing there, an unknown kind of file, or no pair that is kept.
        UsageError: a filter asks for a column that is not there.
    """
    source = _open(place)
    order = np.roll(np.arange(len(source)), -round(first * len(source))).tolist()
    with ThreadPoolExecutor(workers or processors()) as pool:
        found = dict(zip(order, pool.map(lambda shard: _scanned(source, shard, wanted, scans), order), strict=True))
    shards = [found[shard] for shard in range(len(source))]
    columns = [np.concatenate([one.columns[name] for one in shards]) for name in ("item", "label", "twin")]
    own = np.repeat(np.arange(len(shards)), [len(one.columns["item"]) for one in shards])
    left_out = sum((Counter(one.left_out) for one in shards), Counter[str]())
    broken = tuple(message for one in shards for message in one.broken)
    keep = np.arange(len(own))
    if wanted.duplicates != "all":
        keep = np.sort(np.unique(columns[2], return_index=True)[1])
        left_out["duplicates"] = len(own) - len(keep)
    pairs = Pairs(source, *(column[keep] for column in (own, *columns[:2])), +left_out, broken)
    if not len(pairs):
        reasons = ", ".join(f"{count:,} {name}" for name, count in pairs.left_out.items()) or "none at all"
        reasons += f"; {len(broken):,} broken, as {broken[0]}" if broken else ""
        raise DataError(place, must="hold pairs of a picture and a text", found=reasons)
    return pairs


def _scanned(source: Shards, shard: int, wanted: Wanted, scans: Scans | None) -> Scan:
    """Returns what is kept of a shard: as an earlier start found it, else looked through now."""
    if scans is None or not source.whole:
        return _kept(source, shard, wanted)
    path = scans.path(source.paths[shard], part=source.part(shard), wanted=wanted)
    scan = scans.read(path)
    if scan is None:
        scan = _kept(source, shard, wanted)
        scans.write(path, replace(scan, columns={**scan.columns, **source.known(shard)}))
    else:
        source.remember(shard, scan.columns)
    return scan


def _kept(source: Shards, shard: int, wanted: Wanted) -> Scan:
    """Returns what is kept of a shard, and how much was left out, by reason."""
    items, labels, twins, reasons = [], [], [], Counter[str]()
    pairs, broken = source.look(shard, columns=wanted.columns)
    for pair in pairs:
        if reason := wanted.why_not(pair, where=str(source.paths[shard])):
            reasons[reason] += 1
            continue
        items.append(pair.item)
        labels.append(label_of(pair.text))
        twins.append(_twin(pair, labels[-1]) if wanted.duplicates == "pairs" else labels[-1])
    arrays = {"item": items, "label": labels, "twin": twins}
    return Scan({name: np.array(values, dtype=np.int64) for name, values in arrays.items()}, reasons, broken)


def _twin(pair: Pair, label: int) -> int:
    told = pair.picture() + label.to_bytes(8, "little", signed=True)
    return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little", signed=True)


def _open(place: str) -> Shards:
    paths = _paths(place)
    kinds = {path.suffix.lower() for path in paths}
    if kinds == {".tar"}:
        return Tars(paths)
    if kinds == {".parquet"} and _holds_pictures(paths[0]):
        return Packed(paths)
    if packed := [path for path in paths if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))]:
        do = "Unpack it: pairs are read from the middle of a shard."
        raise DataError(packed[0], must="be an uncompressed .tar", found="a compressed one", do=do)
    if len(paths) == 1:
        return Listed(paths[0], read_table(paths[0], header=True))
    found = f"{len(paths)} files ({', '.join(sorted(kinds))})" if paths else "nothing there"
    must = "be .tar shards, Parquet, a table with path and text, or a folder of .tar or .parquet"
    raise DataError(place, must=must, found=found)


def _paths(place: str) -> list[Path]:
    """Returns the files of a folder, a pattern or a range, in order."""
    path = Path(place)
    if path.is_dir():
        return sorted(path.glob("*.tar")) or sorted(path.glob("*.parquet"))
    if path.is_file():
        return [path]
    if span := re.search(r"\{(\d+)\.\.(\d+)\}", place):
        first, last = span[1], span[2]
        names = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
        files = [Path(place[: span.start()] + name + place[span.end() :]) for name in names]
        if missing := [file for file in files if not file.is_file()]:
            raise DataError(place, must="name files that are there", found=f"no {missing[0]}")
        return files
    return [Path(name) for name in sorted(glob.glob(place))]


def _holds_pictures(path: Path) -> bool:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with foreign(path, "pyarrow", must="be a whole Parquet file"):
        schema = pq.ParquetFile(path).schema_arrow
    kinds = {field.name.lower(): field.type for field in schema}
    kind = next((kinds[name] for name in BYTES if name in kinds), None)
    return kind is not None and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_struct(kind))
