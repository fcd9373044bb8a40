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
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.remote import Store, is_url
from metatransformer.data.write import atomic_file, write_json

_FORMAT = 1
# Schema metadata keys are bytes in Parquet; ours carry a prefix so that they never meet another
# library's.
PREFIX = "metatransformer."
SHARD_ROWS = 1024  # of width 768 are 3 MiB: little enough to lose in a kill, enough to read fast
_LEFT_OUT = f"{PREFIX}left_out"
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


def left_out_of(path: Path) -> int:
    """Returns how many rows of a file of embeddings could not be read when it was written; 0 of a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return int((pq.read_schema(path).metadata or {}).get(_LEFT_OUT.encode(), b"0"))
    except (pa.ArrowInvalid, OSError):  # whoever reads its rows will say so
        return 0


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

    def write(
        self, shard: int, *, found: np.ndarray | pd.DataFrame, errors: Mapping[int, str] = MappingProxyType({})
    ) -> None:
        """Writes one shard, atomically; ``found`` is ``[rows of the shard, d]``, or a table where d is 0, without rows
        that have ``errors``: what is wrong with each of these goes into a file of its own, first.

        Raises:
            DataError: the disk is full or may not be written to; finished shards stay usable.
        """
        if errors:
            self._write(self._errors(errors), f"errors-{shard:05d}-of-{self.count:05d}.parquet")
        vectors = isinstance(found, np.ndarray)
        table = self._vectors(shard, found, errors) if vectors else self._frame(shard, found, errors)
        self._write(table, self.path(shard).name)

    def _write(self, table: Any, name: str) -> None:
        import pyarrow.parquet as pq

        with atomic_file(self.folder / name) as temporary:
            pq.write_table(table, temporary)

    def _frame(self, shard: int, found: pd.DataFrame, errors: Mapping[int, str]) -> Any:
        import pyarrow as pa

        assert len(found) == len(self.rows(shard)) - len(errors), (shard, len(found))
        table = pa.Table.from_pandas(found, preserve_index=False)
        return table.replace_schema_metadata(self._schema(left_out=len(errors)).metadata)

    def _vectors(self, shard: int, embeddings: np.ndarray, errors: Mapping[int, str]) -> Any:
        import pyarrow as pa

        rows = [row for row in self.rows(shard) if row not in errors]
        assert embeddings.shape == (len(rows), self.width), (embeddings.shape, len(rows), self.width)
        flat = np.ascontiguousarray(embeddings, dtype=np.float32).reshape(-1)
        columns = [
            pa.array([self.ids[row] for row in rows], type=pa.string()),
            pa.array([self.modality] * len(rows), type=pa.string()),
            pa.array([self.paths[row] for row in rows], type=pa.string()),
            pa.FixedSizeListArray.from_arrays(pa.array(flat), self.width),
        ]
        return pa.Table.from_arrays(columns, schema=self._schema(left_out=len(errors)))

    def _errors(self, errors: Mapping[int, str]) -> Any:
        import pyarrow as pa

        told = {"id": [self.ids[row] for row in errors], "path": [self.paths[row] for row in errors]}
        schema = pa.schema([(name, pa.string()) for name in ("id", "path", "error")])
        return pa.table({**told, "error": [*errors.values()]}, schema=schema)

    def abandon(self) -> None:
        """Removes what ``open_shards`` made, where no shard is finished: bad data leaves nothing behind."""
        if self._is_merged() or _has_shards(self.folder):
            return
        (self.folder / "manifest.json").unlink(missing_ok=True)
        if self.folder != self.out:
            self.folder.rmdir()

    def finish(self) -> Path:
        """Returns ``out``, complete: shards are merged when ``out`` is one file, and their folder
        is removed. What was left out is told in one file ``errors.parquet``, or ``OUT.errors.parquet``.

        Raises:
            DataError: a shard is damaged, or the disk is full; the shards stay, and a second run
                only merges.
        """
        assert not self.missing(), self.missing()
        self._merge_errors()
        if self.folder != self.out:
            if not self._is_merged():
                self._merge()
            shutil.rmtree(self.folder, ignore_errors=True)  # a rest of it harms nobody
        return self.out

    @property
    def errors(self) -> Path:
        """The file that says what was left out."""
        return self.folder / "errors.parquet" if self.folder == self.out else self.out.with_suffix(".errors.parquet")

    def _merge_errors(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        parts = sorted(self.folder.glob("errors-*.parquet")) if self.folder.is_dir() else []
        if parts:
            with atomic_file(self.errors) as temporary:
                pq.write_table(pa.concat_tables([pq.read_table(part) for part in parts]), temporary)

    def _merge(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        left_out = sum(left_out_of(self.path(shard)) for shard in range(self.count))
        with atomic_file(self.out) as temporary:
            with pq.ParquetWriter(temporary, self._whole_schema(left_out)) as writer:
                for shard in range(self.count):
                    try:
                        with pq.ParquetFile(self.path(shard)) as file:
                            for group in range(file.num_row_groups if file.metadata.num_rows else 0):
                                writer.write_table(file.read_row_group(group).cast(writer.schema))
                    except pa.ArrowInvalid as error:
                        raise DataError(
                            self.path(shard),
                            must="be a whole Parquet file",
                            found=str(error).splitlines()[0].rstrip("."),
                            do="Remove this file and run again: only it is made anew.",
                        ) from error

    def _whole_schema(self, left_out: int) -> Any:
        """Returns the schema of all shards; of tables that of the first one with rows."""
        import pyarrow.parquet as pq

        schema = self._schema(left_out=left_out)
        if self.width:
            return schema
        full = (shard for shard in range(self.count) if pq.read_metadata(self.path(shard)).num_rows)
        return pq.read_schema(self.path(next(full, 0))).with_metadata(schema.metadata)

    def _is_merged(self) -> bool:
        return self.folder != self.out and self.out.is_file()

    def _schema(self, *, left_out: int) -> Any:
        import pyarrow as pa

        metadata = {f"{PREFIX}{name}": value for name, value in self.metadata.items()}
        metadata |= {_LEFT_OUT: str(left_out)} if left_out else {}
        return pa.schema(
            [
                pa.field("id", pa.string()),
                pa.field("modality", pa.string()),
                pa.field("path", pa.string()),
                *([pa.field("embedding", pa.list_(pa.float32(), self.width))] if self.width else []),
            ],
            metadata={**metadata, f"{PREFIX}manifest": json.dumps(self.manifest, sort_keys=True)},
        )


@dataclass(frozen=True)
class RemoteShards(EmbeddingShards):
    """Shards behind a URL: a folder of them, of which each is there when it is complete."""

    store: Store = field(kw_only=True)

    def missing(self) -> tuple[int, ...]:
        """Returns the shards that no process has finished yet."""
        names = self.store.names()
        return tuple(shard for shard in range(self.count) if self.path(shard).name not in names)

    def _write(self, table: Any, name: str) -> None:
        import pyarrow.parquet as pq

        content = BytesIO()
        pq.write_table(table, content)
        self.store.write(name, content.getvalue())

    def abandon(self) -> None:
        """Removes the manifest where no shard is finished."""
        names = self.store.names()
        if "manifest.json" in names and not any(name.startswith("part-") for name in names):
            self.store.remove("manifest.json")

    def finish(self) -> Path:
        """Tells in one file what was left out; the shards stay as they are."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        assert not self.missing(), self.missing()
        parts = sorted(name for name in self.store.names() if name.startswith("errors-"))
        if parts:
            tables = [pq.read_table(BytesIO(self.store.read(name))) for name in parts]
            self._write(pa.concat_tables(tables), self.errors.name)
        return self.out

    def claim(self) -> None:
        """Writes the manifest where nothing stands; refuses a place with another one."""
        names, found = self.store.names(), None
        if "manifest.json" in names:
            try:
                found = json.loads(self.store.read("manifest.json"))
            except ValueError as error:
                raise _no_manifest(f"{self.store.url}/manifest.json") from error
        elif any(not name.startswith(".") for name in names):
            must = "be new, empty or an earlier run's folder"
            raise UsageError(self.store.url, must=must, found="other files", do=_GO_ON)
        if found is not None and not any(name.startswith("part-") for name in names):
            found = None  # nothing was finished: there is nothing to continue, and nothing to lose
        if found is None:
            self.store.write("manifest.json", json.dumps(self.manifest, indent=2).encode())
        else:
            _require_same(found, self.manifest, place=self.store.url)


def open_shards(
    out: str | os.PathLike[str],
    *,
    ids: Sequence[str],
    paths: Sequence[str | os.PathLike[str] | None],
    modality: str,
    width: int,
    metadata: Mapping[str, str],
    shard_rows: int = SHARD_ROWS,
    part: Part = WHOLE,
) -> EmbeddingShards:
    """Starts an embedding run, or finds the one that was interrupted.

    ``part`` is the share of it that this process makes, beside others that share the folder. ``metadata`` holds what
    makes two embeddings comparable: encoder, sha256, fingerprint, pooling, dtype.

    Raises:
        DataError: ids that are not unique, or no row at all.
        UsageError: ``out`` ends like another kind of file, or holds something else, or embeddings of other items or by
            another model.
    """
    _check_ids(ids)
    files = tuple(None if path is None else os.fspath(path) for path in paths)
    told = {"ids": tuple(ids), "paths": files, "modality": modality, "width": width, "shard_rows": shard_rows}
    if is_url(out):
        return _open_remote(str(out), told, metadata=metadata, part=part)
    target = Path(out)
    if target.suffix.lower() in _FILES:
        must, found = "end in .parquet, or be a folder for shards", f"the ending '{target.suffix}'"
        raise UsageError(target, must=must, found=found, do="pandas.read_parquet reads the file.")
    folder = target.with_name(target.name + ".parts") if target.suffix == ".parquet" else target
    shards = EmbeddingShards(out=target, folder=folder, metadata=dict(metadata), part=part, **told)
    if part == WHOLE:
        _remove_torn(folder)
    _claim(target, folder=folder, manifest=shards.manifest)
    return shards


def _open_remote(url: str, told: Mapping[str, Any], *, metadata: Mapping[str, str], part: Part) -> RemoteShards:
    place, store = Path(url), Store.of(url)
    if place.suffix:
        must = "name a folder for shards"
        raise UsageError(url, must=must, found=f"the ending '{place.suffix}'", do="pandas.read_parquet joins them.")
    shards = RemoteShards(out=place, folder=place, metadata=dict(metadata), part=part, store=store, **told)
    shards.claim()
    return shards


def _claim(target: Path, *, folder: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest where nothing stands; refuses a place with another one."""
    found = _existing(target, folder=folder)
    if found is not None and found != manifest and not (target.is_file() or _has_shards(folder)):
        found = None  # nothing was finished: there is nothing to continue, and nothing to lose
    if found is None:
        write_json(folder / "manifest.json", manifest)
    else:
        _require_same(found, manifest, place=target if target.exists() else folder)


def _require_same(found: Mapping[str, Any], manifest: Mapping[str, Any], *, place: object) -> None:
    names = [name for name in {**found, **manifest} if found.get(name) != manifest.get(name)]
    if not set(names) <= LOCAL:
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
        raise _no_manifest(manifest) from error


def _no_manifest(place: object) -> UsageError:
    return UsageError(place, must="be the manifest of an earlier run", found="no JSON", do=_GO_ON)


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
        place = "" if path is None else path if is_url(path) else os.path.abspath(path)
        digest.update(json.dumps([name, place]).encode())
    return digest.hexdigest()


def _check_ids(ids: Sequence[str]) -> None:
    if not ids:
        raise DataError("embeddings", must="have at least one item", found="none")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))
        raise DataError("embeddings", must="have unique ids", found=f"'{twice}' more than once")
