"""Rows of unlike length through the layers: their real tokens side by side, rows of like length together.

Tokens know their places themselves, so a row may be put together anew: padding in the middle of a grid goes, and what
is left of it at the ends is little, however a batch was cut. The shape of what comes out is that of what went in.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

# Tokens that run through the blocks at once. On a CPU what lies between two layers is to stay in its caches: ViT-B/16
# in bfloat16 is 1.3 times faster so than in batches of 32 pictures. Elsewhere many windows of long texts would take
# gigabytes.
MOST_TOKENS = {"cpu": 2400}
MOST_ELSEWHERE = 2**16
WASTE = 1.1  # padded / real tokens of rows that run together
# From how many tokens on one part is no slower than a larger one; below it padding costs less than another part.
LEAST_TOKENS = {"cpu": 2048}
LEAST_ELSEWHERE = 2**15

Layers = Callable[[Tensor, Tensor | None], list[Tensor]]


class Part(NamedTuple):
    """Rows that run together: which ``[b]``, which of their tokens ``[b, n]`` (None: all), and which are real."""

    rows: Tensor
    places: Tensor | None
    mask: Tensor | None


def run_ragged(layers: Layers, x: Tensor, mask: Tensor, *, streams: int = 1) -> list[Tensor]:
    """Returns what ``layers`` makes of tokens ``[B, N, D]`` whose real ones ``mask`` tells; padding comes out as 0.

    ``streams``: how many pieces ``layers`` makes of the rows that it is given, to compute them side by side.
    """
    parts = list(parts_of(mask, most=streams * MOST_TOKENS.get(x.device.type, MOST_ELSEWHERE)))
    if len(parts) == 1 and parts[0].places is None:
        return layers(x, parts[0].mask)
    found: list[Tensor] = []
    for rows, places, real in parts:
        index = (rows,) if places is None else (rows[:, None], places)
        out = layers(x[index], real)
        found = found or [x.new_zeros(x.shape, dtype=layer.dtype) for layer in out]
        for whole, layer in zip(found, out, strict=True):
            whole[index] = layer if real is None else layer.masked_fill(~real[..., None], 0)
    return found


def run_in_one(layers: Layers, x: Tensor, mask: Tensor) -> list[Tensor]:
    """Returns what ``run_ragged`` does, by one call of the layers whatever the rows: processes that hold parts of the
    layers must call them equally often.
    """
    return [layer.masked_fill(~mask[..., None], 0) for layer in layers(x, mask)]


def parts_of(mask: Tensor, *, most: int) -> Iterator[Part]:
    """Yields the parts of a batch of which ``mask`` ``[B, N]`` tells the real tokens.

    Each has one row, or at most ``most`` tokens.
    """
    counts = mask.sum(dim=1)
    rows, longest = torch.arange(len(mask), device=mask.device), mask.shape[1]
    if bool((counts == longest).all()):
        count = -(-len(rows) // max(1, most // longest))
        yield from (Part(own, None, None) for own in rows.tensor_split(count))
        return
    least = LEAST_TOKENS.get(mask.device.type, LEAST_ELSEWHERE)
    order = counts.argsort(stable=True)
    for first, last in _cuts(counts[order].tolist(), least=least, most=most):
        own = order[first:last]
        places = (~mask[own]).to(torch.uint8).argsort(dim=1, stable=True)[:, : int(counts[own[-1]])]
        real = mask[own].gather(1, places)
        yield Part(own, places, None if bool(real.all()) else real)


def _cuts(counts: list[int], *, least: int, most: int) -> Iterator[tuple[int, int]]:
    """Yields where parts of rows of rising length begin and end."""
    first = real = 0
    for row, count in enumerate(counts):
        padded = (row - first + 1) * count
        wasteful = padded > WASTE * (real + count) and (row - first) * counts[row - 1] >= least
        if row > first and (padded > most or wasteful):
            yield first, row
            first, real = row, 0
        real += count
    yield first, len(counts)
