"""The nearest of many vectors, by cosine: exact, block by block, so that memory does not grow with their number."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

BLOCK = 16_000_000  # similarities that are in memory at a time


def unit(vectors: Float[Tensor, "n D"]) -> Float[Tensor, "n D"]:
    """Returns the vectors with length 1, in float32; one of length 0 stays."""
    return F.normalize(vectors.float(), dim=1)


def similarities(queries: Float[Tensor, "q D"], gallery: Float[Tensor, "g D"]) -> Iterator[tuple[slice, Tensor]]:
    """Yields blocks of queries with their cosine to every vector of the gallery, ``[b, g]``."""
    gallery = unit(gallery).T.contiguous()
    rows = max(1, BLOCK // max(1, gallery.shape[1]))
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        yield block, unit(queries[block]) @ gallery


def nearest(
    queries: Float[Tensor, "q D"],
    gallery: Float[Tensor, "g D"],
    *,
    count: int,
    barred: Callable[[slice], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the ``count`` nearest of the gallery to each query, nearest first: cosines and places, ``[q, count]``.

    ``barred`` tells which of the gallery do not count for a block of queries, ``[b, g]``. Where fewer are left, the
    last ones have a cosine of -inf.
    """
    count = min(count, len(gallery))
    values, places = torch.empty(len(queries), count), torch.empty(len(queries), count, dtype=torch.int64)
    for block, near in similarities(queries, gallery):
        if barred is not None:
            near = near.masked_fill(barred(block), -torch.inf)
        values[block], places[block] = near.topk(count, dim=1)
    return values, places
