"""Words as vectors: a stored table of known words under a learned map, and learned vectors.

Axes: B rows, t places in a row, V words of a vocabulary, S words that training saw, E D widths.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

LEVELS = 127  # of a stored component: half a step is 0.4 % of a vector's largest component
# How fast a word that has a stored vector moves away from it, against all else that learns: at 1 the
# training phrases of SST-2 are known by heart after two epochs.
PACE = 0.1


class StoredVectors(nn.Module):
    """Fixed vectors ``[V, E]`` in 8 bits a component with one scale a word: a quarter of float32.

    They are part of the state, so that a saved model needs no second file.
    """

    levels: Tensor
    scales: Tensor

    def __init__(self, vectors: Float[Tensor, "V E"], *, norm: float) -> None:
        super().__init__()
        centred = vectors.float() - vectors.float().mean(dim=0)
        length = centred.norm(dim=1).mean().clamp(min=1e-12)
        centred = centred * (norm / length)
        scales = centred.abs().amax(dim=1).clamp(min=1e-12) / LEVELS
        self.register_buffer("levels", (centred / scales[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales)

    def forward(self, ids: Int[Tensor, "..."]) -> Float[Tensor, "... E"]:
        """Returns the words' vectors: centred over the vocabulary, of mean length ``norm``."""
        return self.levels[ids].to(self.scales.dtype) * self.scales[ids][..., None]


class WordVectors(nn.Module):
    """A token a word: its stored vector under a learned linear map, plus what is learned of it alone.

    ``seen`` are the numbers of the words that training saw; each has a learned vector, which starts
    at zero where there is a stored one and at random of length ``norm`` where there is none. All
    other words share one. The map starts as the identity, or, where the widths differ, as a random
    matrix with orthogonal rows or columns that keeps the mean length.
    """

    rows: Tensor

    def __init__(self, *, words: int, seen: Sequence[int], width: int, stored: Tensor | None, norm: float) -> None:
        super().__init__()
        rows = torch.zeros(words, dtype=torch.long)
        rows[torch.tensor(list(seen), dtype=torch.long)] = torch.arange(1, len(seen) + 1)
        self.register_buffer("rows", rows, persistent=False)
        self.stored = None if stored is None else StoredVectors(stored, norm=norm)
        self.map = None if stored is None else _start_map(stored.shape[1], width)
        start = torch.zeros(1 + len(seen), width)
        if stored is None:
            nn.init.normal_(start, std=norm / math.sqrt(width))
            start[0] = 0  # a word that training never saw must not carry a random meaning
        self.own = nn.Parameter(start)
        self.pace = 1.0 if stored is None else PACE

    def forward(self, ids: Int[Tensor, "B t"]) -> Float[Tensor, "B t D"]:
        """Returns a vector a word."""
        x = self.own[self.rows[ids]] * self.pace
        if self.stored is None or self.map is None:
            return x
        return x + self.map(self.stored(ids))


def _start_map(inside: int, outside: int) -> nn.Linear:
    linear = nn.Linear(inside, outside)
    nn.init.zeros_(linear.bias)
    if inside == outside:
        nn.init.eye_(linear.weight)
    else:
        # Columns or rows are orthonormal; a wider space keeps lengths, a narrower one loses some.
        nn.init.orthogonal_(linear.weight, gain=max(1.0, math.sqrt(inside / outside)))
    return linear


def sinusoids(count: int, width: int) -> Float[Tensor, "count width"]:
    """Returns sines and cosines of places, wavelengths from 6 to 6,000 places, each row of length 1."""
    pairs = (width + 1) // 2
    speeds = torch.exp(-math.log(1000.0) * torch.arange(pairs) / pairs)
    angles = torch.arange(count)[:, None] * speeds
    waves = torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)[:, :width]
    return waves / waves.norm(dim=1, keepdim=True)
