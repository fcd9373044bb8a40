"""Embeddings that ``embed`` wrote, read back block by block, so that memory does not grow with their number."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.shards import PREFIX, left_out_of

BLOCK_BYTES = 64 * 2**20  # of vectors that are read at a time
WRITTEN = "be embeddings that 'metatransformer embed' wrote: a .parquet file or a folder of shards"


@dataclass(frozen=True)
class Stored:
    """A file, or a folder of shards: ``files`` in order, and what their ``manifest`` says of all."""

    place: Path
    files: tuple[Path, ...]
    manifest: dict[str, Any]

    @property
    def width(self) -> int:
        """The length of a vector."""
        return int(self.manifest["width"])

    def __len__(self) -> int:
        return int(self.manifest["rows"])

    def blocks(self, *, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yields the first row and the vectors, float32 ``[n, D]``, of blocks from row ``start`` on.

        Raises:
            DataError: a file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows, first = max(1, BLOCK_BYTES // (4 * self.width)), 0
        for path in self.files:
            try:
                with pq.ParquetFile(path) as file:
                    if first + file.metadata.num_rows <= start:
                        first += file.metadata.num_rows
                        continue
                    for batch in file.iter_batches(rows, columns=["embedding"]):
                        vectors = batch.column(0).flatten().to_numpy(zero_copy_only=False).reshape(-1, self.width)
                        skipped = max(0, start - first)
                        if skipped < len(vectors):
                            yield first + skipped, vectors[skipped:]
                        first += len(vectors)
            except (pa.ArrowInvalid, OSError, KeyError, ValueError) as error:
                raise _damaged(path, error) from error

    def large_blocks(self, *, start: int = 0) -> Iterator[tuple[int, np.ndarray]]:
        """Yields what ``blocks`` does with small ones joined, since a shard may hold few rows."""
        rows, parts, first = max(1, BLOCK_BYTES // (4 * self.width)), [], start
        for begin, vectors in self.blocks(start=start):
            first = first if parts else begin
            parts.append(vectors)
            if sum(map(len, parts)) >= rows:
                yield first, np.concatenate(parts)
                parts = []
        if parts:
            yield first, np.concatenate(parts)

    def about(self, rows: Sequence[int] | np.ndarray) -> tuple[list[str], list[str | None]]:
        """Returns ids and paths of some rows."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        tables = [pq.read_table(path, columns=["id", "path"]) for path in self.files]
        found = pa.concat_tables(tables).take(pa.array(np.asarray(rows, dtype=np.int64)))
        return found.column("id").to_pylist(), found.column("path").to_pylist()


def open_stored(place: Path) -> Stored:
    """Returns finished embeddings.

    Raises:
        UsageError: nothing there, or something else.
        DataError: an unfinished run, one without rows, or a damaged file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if place.is_dir():
        path, files = place / "manifest.json", tuple(sorted(place.glob("part-*.parquet")))
        if not path.is_file():
            raise UsageError(place, must=WRITTEN, found="a folder without a manifest.json")
    elif place.is_file():
        path, files = place, (place,)
    else:
        unfinished = place.with_name(place.name + ".parts").is_dir()
        found = "an unfinished run beside it" if unfinished else "nothing"
        raise UsageError(place, must=WRITTEN, found=found, do="Run 'metatransformer embed' to its end first.")
    try:
        if place.is_dir():
            manifest = json.loads(path.read_text(encoding="utf-8"))
        else:
            manifest = json.loads((pq.read_schema(place).metadata or {})[f"{PREFIX}manifest".encode()])
        stored = Stored(place, files, manifest)
        rows = [pq.read_metadata(file).num_rows for file in files]
        left_out = sum(left_out_of(file) for file in files)
        known = stored.width, len(stored), str(manifest["modality"]), str(manifest["model"]), str(manifest["pooling"])
    except (pa.ArrowInvalid, OSError, KeyError, ValueError, TypeError) as error:
        raise UsageError(path, must=WRITTEN, found=f"another file ({type(error).__name__})") from error
    if not sum(rows) or not known[0]:
        raise DataError(place, must="hold at least one vector", found="none", do="Run 'metatransformer embed' first.")
    if sum(rows) + left_out != len(stored):
        do = "Run the same 'metatransformer embed' again: it continues."
        raise DataError(place, must=f"hold all of its {len(stored):,} vectors", found=f"{sum(rows):,}", do=do)
    return Stored(place, files, manifest | {"rows": sum(rows)})


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(path, must="be a whole Parquet file of embeddings", found=str(error).splitlines()[0].rstrip("."))
