"""An approximate index of embeddings (faiss, an optional library): a search looks at some of many lists of vectors.

It pays beyond about a million vectors, once it is built. It lies beside the embeddings and is used as long as they stay
as they were; half-precision vectors in it are read from disk as they are needed.
"""

import hashlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from metatransformer.core.errors import DataError, MissingDependencyError, UsageError
from metatransformer.data.stored import Stored
from metatransformer.data.write import atomic_file
from metatransformer.machine.console import Console
from metatransformer.nn.near import unit

LEARNED = 64  # vectors a list that their middles are learned from
LEAST = 39  # vectors a list; faiss warns of fewer
LOOKED_AT = 32  # lists at least that a query looks at, and a sixteenth of them


def nearest_approximately(
    stored: Stored, queries: torch.Tensor, *, count: int, console: Console
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns about what ``infer.search.nearest_rows`` does: some of the nearest may be missing.

    Raises:
        MissingDependencyError: faiss is not installed.
        DataError: the index cannot be written, or is damaged.
    """
    index = _opened(stored, console)
    index.nprobe = max(LOOKED_AT, index.nlist // 16)
    while True:
        cosines, rows = index.search(unit(queries).numpy(), min(count, len(stored)))
        if (rows >= 0).all():
            return torch.from_numpy(cosines), torch.from_numpy(rows)
        index.nprobe *= 2  # the lists held fewer than were asked for


def require_index(*, duplicates: bool) -> None:
    """Raises UsageError where pairs are asked for, and MissingDependencyError where faiss is not installed."""
    if duplicates:
        raise UsageError("--approximate", must="go with PATH", found="--duplicates")
    _faiss()


def _faiss() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of the wrapper it was made with
            import faiss
    except ImportError as error:
        raise MissingDependencyError("faiss-cpu", extra="index", purpose="an approximate search") from error
    return faiss


def _opened(stored: Stored, console: Console) -> Any:
    """Returns the index of these very embeddings, built where it is not there yet."""
    faiss, path = _faiss(), place_of(stored)
    try:
        if not path.is_file():
            _build(faiss, stored, path, console)
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
    except OSError as error:
        do = "Make room, or search exactly: leave --approximate out."
        raise DataError(path, must="be written there", found=f"'{error.strerror}'", do=do) from error
    except RuntimeError as error:  # faiss's own
        do = "Remove the file: it is built again."
        raise DataError(path, must="be an index", found=str(error).splitlines()[-1][:80], do=do) from error


def place_of(stored: Stored) -> Path:
    """Returns where the index lies: its name follows from the files of the embeddings, their sizes and times."""
    about = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in stored.files]
    digest = hashlib.sha256(repr(about).encode()).hexdigest()[:12]
    folder = stored.place if stored.place.is_dir() else stored.place.parent
    return folder / f"{stored.place.name}.{digest}.faiss"


def _build(faiss: Any, stored: Stored, path: Path, console: Console) -> None:
    """Writes the index, and removes those of earlier embeddings of this name."""
    lists = max(1, min(round(4 * len(stored) ** 0.5), len(stored) // LEAST))
    index = faiss.index_factory(stored.width, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    with console.bar("building the index", total=2 * len(stored)) as bar:
        rng, some = np.random.default_rng(0), []
        share = min(1.0, LEARNED * lists / len(stored))
        for _, block in stored.large_blocks():
            some.append(block[rng.random(len(block)) <= share])
            bar.advance(len(block))
        index.train(unit(torch.from_numpy(np.concatenate(some))).numpy())
        for _, block in stored.large_blocks():
            index.add(unit(torch.from_numpy(block.copy())).numpy())
            bar.advance(len(block))
    with atomic_file(path) as temporary:
        faiss.write_index(index, str(temporary))
    for other in path.parent.glob(f"{stored.place.name}.*.faiss"):
        if other != path:
            other.unlink()
    console.note(f"an index of {len(stored):,} vectors in {lists:,} lists written to {path}")
