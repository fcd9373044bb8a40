"""Graphs as tokens: identifiers that say which nodes an edge joins, and the part of a token that carries them.

A transformer sees a set. Each node gets an identifier, a node's token carries its own and an edge's token those of both
its nodes, so that attention can find who is joined to whom (TokenGT: Kim et al. 2022, arXiv 2207.02505).

Axes: B batch, N tokens, V nodes, K components of an identifier, D width.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metatransformer.core.modality import Stem, SummaryToken, Tokenizer
from metatransformer.core.tokens import Span, Tokens
from metatransformer.nn.numeric import PiecewiseLinear

STD = 0.128  # per channel of a whole token: what focus-s14's patch embeddings measure on photographs
PARTS = 3  # words, numbers, identifiers: what a token of a node or edge is summed from
NAME_STD, VALUE_STD = 0.10, 0.08  # together again 0.128: what a number or neighbourhood is, and how much of it
COUNTS = 8  # occurrences of a neighbourhood that are told apart


def adjacency(edges: np.ndarray, *, count: int) -> np.ndarray:
    """Returns the symmetric 0/1 matrix ``[count, count]`` of who is joined to whom, without loops."""
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
    """Returns the chances that a random walk from each node is back after 1 to ``size`` steps, ``[count, size]``.

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
    """Returns unit rows, orthogonal up to ``size`` nodes and nearly so beyond, ``[count, size]`` float32."""
    rows, _ = np.linalg.qr(rng.normal(size=(max(count, size), size)))
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
        rows = torch.arange(ends.shape[0], device=ends.device)[:, None]
        first, second = identifiers[rows, ends[..., 0]], identifiers[rows, ends[..., 1]]
        return (first + second) @ self.both + (directed[:, None, None] * (first - second)) @ self.apart


class GraphTokenizer(Tokenizer):
    """The summary token, then numbers of the whole, nodes and edges, kinds of neighbourhood.

    ``rows`` counts the rows of the table of words (row 0 is "nothing" and stays zero), ``words`` the columns that are
    summed in one token. ``numbers`` and ``whole`` are bins of numbers by column; ``groups`` says which token each
    number of the whole stands in (0, 1, ...), and all of them stand in the summary token. ``kinds`` counts the
    neighbourhoods that have a token (None = no such tokens), ``size`` the components of an identifier.
    """

    members: Tensor

    def __init__(
        self,
        *,
        rows: int,
        words: int,
        numbers: Sequence[Sequence[float]],
        whole: Sequence[Sequence[float]],
        groups: Sequence[int],
        kinds: int | None,
        size: int,
        width: int,
        stem: Stem,
    ) -> None:
        super().__init__()
        part = STD / PARTS**0.5
        table = torch.randn(rows, width) * part / words**0.5
        table[0] = 0
        self.table = nn.Parameter(table)
        self.number = PiecewiseLinear(numbers, width=width, std=part / len(numbers) ** 0.5)
        self.ends = EndEmbedding(size, width=width, std=part)
        self.whole = PiecewiseLinear(whole, width=width, std=VALUE_STD) if whole else None
        if whole:
            members = F.one_hot(torch.tensor(groups)).float()  # [W, G]: equal lengths, however many numbers share one
            self.register_buffer("members", members / members.sum(dim=0) ** 0.5, persistent=False)
            self.names = nn.Parameter(torch.randn(members.shape[1], width) * NAME_STD)
        self.kinds = None if kinds is None else nn.Parameter(torch.randn(1 + kinds, width) * NAME_STD)
        self.count = None if kinds is None else nn.Parameter(torch.randn(1 + COUNTS, width) * VALUE_STD)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the tokens of a batch; see the fields of the modality for its arrays."""
        parts = [(self._nodes_and_edges(inputs, masks["codes"]), masks["codes"])]
        if self.kinds is not None and self.count is not None:
            mask = masks["environments"]
            kind, count = inputs["environments"].masked_fill(~mask[..., None], 0).unbind(dim=-1)
            counted = F.embedding(count.clamp(max=COUNTS), self.count)
            parts.append((F.embedding(kind, self.kinds) + counted, mask))
        values = None
        if self.whole is not None:
            gone = inputs["whole"].isnan()
            values = self.whole(inputs["whole"].masked_fill(gone, 0)).masked_fill(gone[..., None], 0)  # [B, W, D]
            grouped = torch.einsum("bwd,wg->bgd", values, self.members) + self.names
            parts.insert(0, (grouped, torch.ones(grouped.shape[:2], dtype=torch.bool, device=gone.device)))
        x, mask = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
        x, mask = self.summary(x, mask)
        if values is not None:
            # The graph's own token carries all numbers of the graph, where no other token dilutes them.
            x = torch.cat([x[:, :1] + values.sum(dim=1, keepdim=True) / values.shape[1] ** 0.5, x[:, 1:]], dim=1)
        return Tokens(x, mask, (Span("graph", 0, x.shape[1], summary=0),))

    def _nodes_and_edges(self, inputs: Mapping[str, Tensor], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B N D"]:
        codes = inputs["codes"].masked_fill(~mask[..., None], 0)
        ends = inputs["ends"].masked_fill(~mask[..., None], 0)
        numbers = inputs["numbers"]
        gone = numbers.isnan() | ~mask[..., None]
        coded = self.number(numbers.masked_fill(gone, 0).flatten(0, 1)).unflatten(0, numbers.shape[:2])
        x = F.embedding(codes, self.table, padding_idx=0).sum(dim=2)
        x = x + coded.masked_fill(gone[..., None], 0).sum(dim=2)
        return x + self.ends(inputs["identifiers"], ends, inputs["directed"])
