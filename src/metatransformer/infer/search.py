"""Search in embeddings on disk: the nearest to new samples, and pairs that are nearly the same.

Exact, by cosine, and block by block: memory holds two blocks of vectors and one of similarities, whatever the number.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
import torch

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.stored import Stored
from metatransformer.infer.embed import Embedding, embedding, remade
from metatransformer.machine.console import Console
from metatransformer.nn import near as blocks
from metatransformer.saved import load_pipeline

ABOVE = 0.95  # cosine from which on two samples are told as nearly the same
MOST_PAIRS = 10_000  # that are listed, the most similar ones
Mapped = Callable[[torch.Tensor], torch.Tensor]


@runtime_checkable
class Nearest(Protocol):
    """A search: ``nearest_rows``, or ``infer.approximate.nearest_approximately``."""

    def __call__(
        self, stored: Stored, queries: torch.Tensor, *, count: int, console: Console
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns cosines and rows ``[q, count]`` of the nearest vectors, nearest first."""
        ...


def require_settings(
    *, paths: Sequence[str], texts: Sequence[str], duplicates: bool, above: float | None, k: int
) -> None:
    """Raises UsageError for options of a search that do not go together."""
    asked = [name for name, given in (("PATH", paths), ("--text", texts), ("--duplicates", duplicates)) if given]
    if len(asked) != 1:
        do = "Similarities within and across kinds of data have no common scale." if len(asked) > 1 else ""
        found = " and ".join(asked) or "none of them"
        raise UsageError("search", must="get one of PATH, --text and --duplicates", found=found, do=do)
    if k < 1:
        raise UsageError("--k", must="be at least 1", found=str(k))
    if above is not None and not duplicates:
        raise UsageError("--above", must="go with --duplicates", found=f"{above:g}")
    if above is not None and not -1 <= above < 1:
        raise UsageError("--above", must="lie in [-1, 1)", found=f"{above:g}")


def model_of(stored: Stored, *, run: str, device: str, console: Console) -> Embedding:
    """Returns the model that made the vectors, as their manifest tells it; ``run`` is where it lies now.

    Raises:
        DataError: the manifest does not tell it.
        UsageError: what is found there is another model.
    """
    manifest, place = stored.manifest, run or str(stored.manifest.get("run", ""))
    if place:
        pipeline = load_pipeline(Path(place), device=device).asked(str(manifest.get("task", "")))
    elif "recipe" in manifest:
        try:
            pipeline = remade(manifest["recipe"], device=device, console=console)
        except (KeyError, TypeError) as error:
            do = "Embed again."
            raise DataError(stored.place, must="tell the recipe of its model", found=repr(error), do=do) from error
    else:
        do = "Name the model with --model, or embed again."
        raise DataError(stored.place, must="tell its model", found="vectors of an older revision, which did not", do=do)
    model = embedding(pipeline, pool=manifest["pooling"], run=place)
    require_same(stored, model.identity(), where=place or f"encoder '{manifest.get('encoder')}'")
    return model


def require_same(stored: Stored, made: str, *, where: str) -> None:
    """Raises UsageError unless ``made`` is the digest of what made the vectors."""
    if made != (known := stored.manifest["model"]):
        raise UsageError(
            where,
            must=f"be the model that made {stored.place}, {known[:12]}",
            found=f"another one, {made[:12]}: fitted again, or with other settings",
            do="Embed again with this model, or name the right one with --model.",
        )


def find(
    stored: Stored, keys: Sequence[str], vectors: torch.Tensor, *, nearest: Nearest, count: int, console: Console
) -> pd.DataFrame:
    """Returns the ``count`` nearest to each of ``vectors`` ``[q, D]``, called ``keys``: ``query``, ``rank`` from 1,
    ``id``, ``similarity``, ``path``.
    """
    cosines, rows = nearest(stored, vectors, count=count, console=console)
    ids, paths = stored.about(rows.flatten().numpy())
    queries, ranks = len(vectors), cosines.shape[1]
    return pd.DataFrame(
        {
            "query": np.repeat(np.array(list(keys), dtype=object), ranks),
            "rank": np.tile(np.arange(1, ranks + 1), queries),
            "id": ids,
            "similarity": cosines.flatten().double().numpy().round(6),
            "path": paths,
        }
    )


def nearest_rows(
    stored: Stored, queries: torch.Tensor, *, count: int, console: Console, mapped: Mapped | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns cosines and rows ``[q, count]`` of the nearest vectors to ``queries`` ``[q, D]``, nearest first."""
    best, begun = (torch.empty(len(queries), 0), torch.empty(len(queries), 0, dtype=torch.int64)), time.monotonic()
    with console.bar("searching", total=len(stored)) as bar:
        for first, block in stored.large_blocks():
            vectors = torch.from_numpy(block.copy())
            found, places = blocks.nearest(queries, vectors if mapped is None else mapped(vectors), count=count)
            cosines = torch.cat([best[0], found], dim=1)
            rows = torch.cat([best[1], places + first], dim=1)
            kept, order = cosines.topk(min(count, cosines.shape[1]), dim=1)
            best = kept, rows.gather(1, order)
            bar.advance(len(block))
    console.note(f"{len(stored):,} vectors of width {stored.width} searched in {time.monotonic() - begun:.1f} s")
    return best


def find_duplicates(stored: Stored, *, above: float | None, console: Console) -> tuple[pd.DataFrame, int]:
    """Returns pairs of a cosine of at least ``above``, the most similar first (``id``, ``twin``, ``similarity``,
    ``path``, ``path_of_twin``), and how many there are; at most 10,000 are listed, and it is said.
    """
    above = ABOVE if above is None else above
    total, kept = 0, np.zeros((0, 3))
    with console.bar("comparing", total=len(stored)) as bar:
        for first, block in stored.large_blocks():
            own = blocks.unit(torch.from_numpy(block.copy()))
            for start, others in stored.large_blocks(start=first):
                found = _alike(own, torch.from_numpy(others.copy()), first=first, start=start, above=above)
                total += len(found)
                kept = np.concatenate([kept, found])
                kept = kept[np.argsort(-kept[:, 2], kind="stable")][:MOST_PAIRS]
            bar.advance(len(block))
    if total > len(kept):
        console.warn(f"{total:,} pairs; the {len(kept):,} most similar ones are listed (--above asks for fewer)")
    ids, paths = stored.about(kept[:, :2].flatten())
    table: dict[str, Any] = {"id": ids[::2], "twin": ids[1::2], "similarity": kept[:, 2].round(6)}
    return pd.DataFrame(table | {"path": paths[::2], "path_of_twin": paths[1::2]}), total


def _alike(own: torch.Tensor, others: torch.Tensor, *, first: int, start: int, above: float) -> np.ndarray:
    """Returns row, later row and cosine of pairs ``[n, 3]`` of two blocks."""
    found = []
    for block, near in blocks.similarities(own, others):
        pairs = (near >= above).nonzero()
        rows, later = pairs[:, 0] + first + block.start, pairs[:, 1] + start
        ahead = later > rows
        cosines = near[pairs[:, 0], pairs[:, 1]].clamp(max=1).double()
        found.append(torch.stack([rows.double(), later.double(), cosines], dim=1)[ahead])
    return torch.cat(found).numpy()
