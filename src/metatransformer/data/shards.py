"""Embeddings on disk: Parquet shards that survive a kill and go on where they stopped.

Columns: ``id`` (string), ``modality`` (string), ``path`` (string, null for in-memory data),
``embedding`` (fixed-size list of d float32). Each shard is written atomically, so a shard that
exists is finished. A manifest says what the folder is about; a folder of something else is never
continued.

Files: ``out/part-00000-of-00016.parquet`` beside ``out/manifest.json``; or, when ``out`` ends in
``.parquet``, the same inside ``out.parts/`` until the last shard is there, then one file ``out``.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.write import atomic_file, write_json

_FORMAT = 1
# Schema metadata keys are bytes in Parquet; ours carry a prefix so that they never meet another
# library's.
PREFIX = "metatransformer."
_FILES = (".csv", ".tsv", ".json", ".jsonl", ".npy", ".npz", ".txt", ".pq", ".feather", ".h5", ".xlsx")
# What may differ between two parts of one run: "model" is the digest that says that vectors are alike. The fingerprint
# is measured anew on each machine; "run", "task", "space" and "recipe" say how to load the model, older revisions did
# not.
LOCAL = {"fingerprint", "run", "task", "space", "recipe"}
_DIGESTS = {
    "items": "other items, or the same in another order",
    "data": "files or values that changed since",
    "model": "another model or other settings",
}
_GO_ON = "Choose another --out, or remove it to start again."


class Part(NamedTuple):
    """The share of a run that one of several processes makes: every ``of``-th shard from the ``number``-th, from 1."""

    number: int
    of: int


WHOLE = Part(1, 1)


def parse_part(text: str) -> Part:
    """Returns the part that ``I/N`` means.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    part = Part(*map(int, found.groups())) if found else None
    if part is None or not 1 <= part.number <= part.of:
        raise UsageError("--shard", must="be I/N with 1 <= I <= N, as 3/8", found=repr(text))
    return part


@dataclass(frozen=True)
class EmbeddingShards:
    """Where the rows of one embedding run go; made by ``open_shards``.

    ``ids`` and ``paths`` are the rows in order, ``width`` is the length d of a vector, ``metadata``
    is stored in every file's schema. ``folder`` holds the shards, of which this process makes those of ``part``.
    """

    out: Path
    folder: Path
    ids: tuple[str, ...]
    paths: tuple[str | None, ...]
    modality: str
    width: int
    shard_rows: int
    metadata: Mapping[str, str]
    part: Part = WHOLE

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What a later run must agree with to go on here."""
        return {
            **self.metadata,
            "format": _FORMAT,
            "items": _digest(self.ids, self.paths),
            "rows": len(self.ids),
            "width": self.width,
            "shard_rows": self.shard_rows,
            "modality": self.modality,
        }

    @property
    def count(self) -> int:
        """The number of shards."""
        return -(-len(self.ids) // self.shard_rows)

    def rows(self, shard: int) -> range:
        """Returns the rows of one shard."""
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, len(self.ids)))

    def path(self, shard: int) -> Path:
        """Returns the file of one shard."""
        return self.folder / f"part-{shard:05d}-of-{self.count:05d}.parquet"

    def pending(self) -> tuple[int, ...]:
        """Returns the shards of this process that are still to be made, in order."""
        return tuple(shard for shard in self.missing() if shard % self.part.of == self.part.number - 1)

    def missing(self) -> tuple[int, ...]:
        """Returns the shards that no process has finished yet."""
        if self._is_merged():
            return ()
        return tuple(shard for shard in range(self.count) if not self.path(shard).is_file())

    def write(self, shard: int, *, embeddings: np.ndarray) -> None:
        """Writes one shard, atomically; ``embeddings`` is ``[rows of the shard, d]``.

        Raises:
            DataError: the disk is full or may not be written to; finished shards stay usable.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = self.rows(shard)
        assert embeddings.shape == (len(rows), self.width), (embeddings.shape, rows, self.width)
        flat = np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1)
        columns = [
            pa.array(self.ids[rows.start : rows.stop], type=pa.string()),
            pa.array([self.modality] * len(rows), type=pa.string()),
            pa.array(self.paths[rows.start : rows.stop], type=pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(flat), self.width),
        ]
        table = pa.Table.from_arrays(columns, schema=self._schema())
        with atomic_file(self.path(shard)) as temporary:
            pq.write_table(table, temporary)

    def abandon(self) -> None:
        """Removes what ``open_shards`` made, where no shard is finished: bad data leaves nothing behind."""
        if self._is_merged() or _has_shards(self.folder):
            return
        (self.folder / "manifest.json").unlink(missing_ok=True)
        if self.folder != self.out:
            self.folder.rmdir()

    def finish(self) -> Path:
        """Returns ``out``, complete: shards are merged when ``out`` is one file, and their folder
        is removed.

        Raises:
            DataError: a shard is damaged, or the disk is full; the shards stay, and a second run
                only merges.
        """
        assert not self.missing(), self.missing()
        if self.folder != self.out:
            if not self._is_merged():
                self._merge()
            shutil.rmtree(self.folder, ignore_errors=True)  # a rest of it harms nobody
        return self.out

    def _merge(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        with atomic_file(self.out) as temporary:
            with pq.ParquetWriter(temporary, self._schema()) as writer:
                for shard in range(self.count):
                    try:
                        with pq.ParquetFile(self.path(shard)) as file:
                            for group in range(file.num_row_groups):
                                writer.write_table(file.read_row_group(group))
                    except pa.ArrowInvalid as error:
                        raise DataError(
                            self.path(shard),
                            must="be a whole Parquet file",
                            found=str(error).splitlines()[0].rstrip("."),
                            do="Remove this file and run again: only it is made anew.",
                        ) from error

    def _is_merged(self) -> bool:
        return self.folder != self.out and self.out.is_file()

    def _schema(self) -> Any:
        import pyarrow as pa

        metadata = {f"{PREFIX}{name}": value for name, value in self.metadata.items()}
        return pa.schema(
            [
                pa.field("id", pa.string()),
                pa.field("modality", pa.string()),
                pa.field("path", pa.string()),
                pa.field("embedding", pa.list_(pa.float32(), self.width)),
            ],
            metadata={**metadata, f"{PREFIX}manifest": json.dumps(self.manifest, sort_keys=True)},
        )


def open_shards(
    out: str | os.PathLike[str],
    *,
    ids: Sequence[str],
    paths: Sequence[str | os.PathLike[str] | None],
    modality: str,
    width: int,
    metadata: Mapping[str, str],
    shard_rows: int = 1024,
    part: Part = WHOLE,
) -> EmbeddingShards:
    """Starts an embedding run, or finds the one that was interrupted.

    ``part`` is the share of it that this process makes, beside others that share the folder. ``metadata`` holds what
    makes two embeddings comparable: encoder, sha256, fingerprint, pooling, dtype. 1024 rows of width 768 are 3 MiB:
    little enough to lose in a kill, enough to read fast.

    Raises:
        DataError: ids that are not unique, or no row at all.
        UsageError: ``out`` ends like another kind of file, or holds something else, or embeddings of other items or by
            another model.
    """
    _check_ids(ids)
    target = Path(out)
    if target.suffix.lower() in _FILES:
        must, found = "end in .parquet, or be a folder for shards", f"the ending '{target.suffix}'"
        raise UsageError(target, must=must, found=found, do="pandas.read_parquet reads the file.")
    folder = target.with_name(target.name + ".parts") if target.suffix == ".parquet" else target
    files = [None if path is None else os.fspath(path) for path in paths]
    shards = EmbeddingShards(
        out=target,
        folder=folder,
        ids=tuple(ids),
        paths=tuple(files),
        modality=modality,
        width=width,
        shard_rows=shard_rows,
        metadata=dict(metadata),
        part=part,
    )
    if part == WHOLE:
        _remove_torn(folder)
    _claim(target, folder=folder, manifest=shards.manifest)
    return shards


def _claim(target: Path, *, folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest where nothing stands; refuses a place with another one."""
    found = _existing(target, folder=folder)
    if found is not None and found != manifest and not (target.is_file() or _has_shards(folder)):
        found = None  # nothing was finished: there is nothing to continue, and nothing to lose
    if found is None:
        write_json(folder / "manifest.json", manifest)
    elif names := [name for name in {**found, **manifest} if found.get(name) != manifest.get(name)]:
        if set(names) <= LOCAL:
            return
        place = target if target.exists() else folder
        raise UsageError(place, must=_difference(found, manifest, names=names), found="another run's", do=_GO_ON)


def _is_torn(place: Path) -> bool:
    """Returns whether a file is one that is being written, or that a killed run left."""
    return place.match(".*.tmp.*")


def _remove_torn(folder: Path) -> None:
    """Removes what a killed run left; a run in parts leaves it, for another process may be writing it."""
    for place in folder.iterdir() if folder.is_dir() else ():
        if _is_torn(place):
            place.unlink()


def _has_shards(folder: Path) -> bool:
    return any(folder.glob("part-*.parquet"))


def _existing(target: Path, *, folder: Path) -> dict[str, Any] | None:
    """Returns the manifest of what stands at ``target`` already, None when nothing does."""
    if folder != target and target.exists():
        return _manifest_of_file(target)
    if folder.is_file():
        raise UsageError(folder, must="be a folder or end in .parquet", found="a file", do=_GO_ON)
    if not folder.is_dir():
        return None
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        if any(not _is_torn(place) for place in folder.iterdir()):
            raise UsageError(
                folder,
                must="be new, empty or an earlier run's folder",
                found="other files",
                do=_GO_ON,
            )
        return None
    try:
        return json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(manifest, must="be the manifest of an earlier run", found="no JSON", do=_GO_ON) from error


def _manifest_of_file(path: Path) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_schema(path).metadata or {}
        return json.loads(metadata[f"{PREFIX}manifest".encode()])
    except (pa.ArrowInvalid, OSError, KeyError) as error:
        raise UsageError(path, must="be new, or embeddings of this run", found="another file", do=_GO_ON) from error


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any], *, names: Sequence[str]) -> str:
    """Returns what differs; of digests in words, since they tell a reader nothing."""
    if "items" in names:
        names = [name for name in names if name not in ("data", "rows")]
    pairs = (_DIGESTS.get(name) or f"{name} {wanted.get(name)} (there: {found.get(name)})" for name in names)
    return f"continue the same run; this one has {', '.join(pairs)}"


def _digest(ids: Sequence[str], paths: Sequence[str | None]) -> str:
    digest = hashlib.sha256()
    for name, path in zip(ids, paths, strict=True):
        place = "" if path is None else os.path.abspath(path)
        digest.update(json.dumps([name, place]).encode())
    return digest.hexdigest()


def _check_ids(ids: Sequence[str]) -> None:
    if not ids:
        raise DataError("embeddings", must="have at least one item", found="none")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))
        raise DataError("embeddings", must="have unique ids", found=f"'{twice}' more than once")
