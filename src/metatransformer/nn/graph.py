"""Graphs as tokens: identifiers that say which nodes an edge joins, and the part of a token that carries them.

A transformer sees a set. Each node gets an identifier, a node's token carries its own and an edge's token those of both
its nodes, so that attention can find who is joined to whom (TokenGT: Kim et al. 2022, arXiv 2207.02505).

Axes: B batch, N tokens, V nodes, K components of an identifier, D width.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

SAME = 1e-6  # eigenvalues closer than this span one space, whose basis is arbitrary


def adjacency(edges: np.ndarray, *, count: int) -> np.ndarray:
    """Returns the symmetric 0/1 matrix ``[count, count]`` of who is joined to whom; loops and directions are left out."""
    joined = np.zeros((count, count))
    a, b = edges.T
    joined[a, b] = joined[b, a] = 1.0
    np.fill_diagonal(joined, 0.0)
    return joined


def laplacian_identifiers(edges: np.ndarray, *, count: int, size: int) -> np.ndarray:
    """Returns for each node its entries in the ``size`` smoothest eigenvectors of the normalised Laplacian.

    ``[count, size]`` float32, zero where there are fewer eigenvectors. The sign of an eigenvector means nothing: it is
    fixed so that the sum of cubes is positive, and training should flip it at random. Inside a space of equal
    eigenvalues, frequent in symmetric graphs, the basis is arbitrary and follows the numbering of the nodes.
    """
    joined = adjacency(edges, count=count)
    scale = 1 / np.sqrt(np.maximum(joined.sum(axis=1), 1.0))
    laplacian = np.eye(count) - scale[:, None] * joined * scale
    _, vectors = np.linalg.eigh(laplacian)
    found = vectors[:, :size]
    signs = np.where((found**3).sum(axis=0) < 0, -1.0, 1.0)
    return _padded(found * signs, size=size)


def walk_identifiers(edges: np.ndarray, *, count: int, size: int) -> np.ndarray:
    """Returns the chance that a random walk from each node is back after 1 to ``size`` steps, ``[count, size]`` float32.

    They follow the nodes however these are numbered, but equal nodes get equal identifiers (Dwivedi et al. 2022,
    arXiv 2110.07875).
    """
    joined = adjacency(edges, count=count)
    step = joined / np.maximum(joined.sum(axis=1, keepdims=True), 1.0)
    power, back = np.eye(count), []
    for _ in range(size):
        power = power @ step
        back.append(np.diag(power))
    return np.stack(back, axis=1).astype(np.float32)


def random_identifiers(*, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns rows that are orthonormal up to ``size`` nodes, and nearly orthogonal beyond, ``[count, size]`` float32."""
    square = rng.normal(size=(max(count, size), size))
    frame, _ = np.linalg.qr(square)
    rows = frame[rng.permutation(len(frame))[:count]] if count > size else np.linalg.qr(rng.normal(size=(size, size)))[0]
    rows = rows[:count]
    return (rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _padded(found: np.ndarray, *, size: int) -> np.ndarray:
    wide = np.zeros((len(found), size), dtype=np.float32)
    wide[:, : found.shape[1]] = found
    return wide


class EndEmbedding(nn.Module):
    """The part of a token that says where in the graph it is: both ends' identifiers through linear maps.

    Sum and difference have a map each: in an undirected graph, where neither end comes first, only the sum counts. A
    node is an edge from itself to itself.
    """

    def __init__(self, size: int, *, width: int, std: float) -> None:
        super().__init__()
        self.both = nn.Parameter(torch.randn(size, width) * std / 2)
        self.apart = nn.Parameter(torch.randn(size, width) * std / 2)

    def forward(
        self,
        identifiers: Float[Tensor, "B V K"],
        ends: Int[Tensor, "B N 2"],
        directed: Float[Tensor, " B"],
    ) -> Float[Tensor, "B N D"]:
        """Returns one vector a token; ``ends`` are rows of ``identifiers``, ``directed`` is 1 where order counts."""
        rows = torch.arange(len(ends), device=ends.device)[:, None]
        first, second = identifiers[rows, ends[..., 0]], identifiers[rows, ends[..., 1]]
        return (first + second) @ self.both + (directed[:, None, None] * (first - second)) @ self.apart
