"""Numbers as vectors: a piecewise-linear and a periodic embedding, each column with its own
weights.

A bare ``weight * value`` forces every later layer to build steps and bumps out of one straight
line, and an outlier becomes an outlier of the token. Both embeddings here first spread a number
over many bounded components and only then project it, after the ideas of Gorishniy, Rubachev and
Babenko, "On Embeddings for Numerical Features in Tabular Deep Learning", NeurIPS 2022 (arXiv
2203.05556).

Axes: B batch, C columns, T components of one number's code, D width. Both modules give every value
a start of the same length: deviation ``std`` in each of the D channels, whatever the number is and
however many components it has.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn


def bin_edges(values: np.ndarray, *, bins: int) -> list[float]:
    """Returns at most ``bins + 1`` ascending edges, distinct in float32, that spread ``values``
    over the bins.

    A value that fills a bin's share by itself (the zeros of a mostly-zero column) becomes an edge,
    and the quantiles are taken of what is left; with plain quantiles it would swallow the edges of
    all the others. Up to ``bins + 1`` distinct values are all edges. ``values`` are finite and not
    empty; one distinct value ``v`` gives ``[v, v + max(1, |v|)]``.
    """
    distinct, counts = np.unique(np.asarray(values, dtype=np.float32), return_counts=True)
    if len(distinct) == 1:
        # Relative, so that the second edge stays distinct in float32 however large the value is.
        return [float(distinct[0]), float(distinct[0] + max(1.0, abs(distinct[0])))]
    if len(distinct) <= bins + 1:
        return [float(v) for v in distinct]
    ends = np.isin(np.arange(len(distinct)), (0, len(distinct) - 1))
    heavy = (counts > counts.sum() / bins) | ends
    rest = np.repeat(distinct[~heavy], counts[~heavy])
    free = bins + 1 - int(heavy.sum())
    # free >= 0: fewer than `bins` values can each hold more than 1 / bins of the rows; two ends.
    middles = (np.arange(free) + 0.5) / max(1, free)
    inner = np.quantile(rest, middles, method="nearest")
    return [float(v) for v in np.unique(np.concatenate([distinct[heavy], inner]))]


class PiecewiseLinear(nn.Module):
    """Each number as a thermometer over its column's bins, then one linear map a column.

    Component t is -1 below bin t, +1 above it and linear inside, divided by ``sqrt(T)``: every
    number's code has about the same length, and two numbers are the further apart the more bins lie
    between them. Beyond the outer edges the code stays as it is at the edge.
    """

    left: Tensor
    size: Tensor
    factor: Tensor

    def __init__(self, edges: Sequence[Sequence[float]], *, width: int, std: float) -> None:
        super().__init__()
        longest = max(len(column) for column in edges) - 1
        # A bin that a column does not have: never reached, and switched off by a zero factor.
        left = torch.full((len(edges), longest), torch.finfo(torch.float32).max)
        size = torch.ones(len(edges), longest)
        factor = torch.zeros(len(edges), longest)
        for row, column in enumerate(edges):
            line = torch.tensor(column, dtype=torch.float32)
            bins = len(column) - 1
            left[row, :bins] = line[:-1]
            size[row, :bins] = line.diff()
            factor[row, :bins] = 1 / math.sqrt(bins)
        self.register_buffer("left", left, persistent=False)
        self.register_buffer("size", size, persistent=False)
        self.register_buffer("factor", factor, persistent=False)
        self.weight = nn.Parameter(torch.randn(len(edges), longest, width) * std)

    def encode(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C T"]:
        """Returns the thermometer code of finite numbers in the edges' unit."""
        inside = ((x[..., None] - self.left) / self.size).clamp(0, 1)
        return (2 * inside - 1) * self.factor

    def forward(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C D"]:
        """Returns one vector a number."""
        return torch.einsum("bct,ctd->bcd", self.encode(x), self.weight)


class Periodic(nn.Module):
    """Each number as sines and cosines of learned frequencies, then one linear map a column.

    Frequencies start from a normal distribution of deviation ``sigma`` (cycles per unit of the
    standardised number); ``components`` counts sines plus cosines.
    """

    def __init__(self, columns: int, *, components: int, sigma: float, width: int, std: float) -> None:
        super().__init__()
        self.frequency = nn.Parameter(torch.randn(columns, components // 2) * sigma)
        # sin^2 + cos^2 sum to components / 2, so this factor gives the code length 1.
        self.factor = math.sqrt(2 / (2 * (components // 2)))
        self.weight = nn.Parameter(torch.randn(columns, 2 * (components // 2), width) * std)

    def encode(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C T"]:
        """Returns the sines, then the cosines, of finite standardised numbers."""
        angle = 2 * math.pi * x[..., None] * self.frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1) * self.factor

    def forward(self, x: Float[Tensor, "B C"]) -> Float[Tensor, "B C D"]:
        """Returns one vector a number."""
        return torch.einsum("bct,ctd->bcd", self.encode(x), self.weight)
