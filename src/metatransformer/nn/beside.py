"""What of a head reads plain features, beside what reads the trunk's: a line, a kernel, or a line on counted words."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from metatransformer.core.uniform import UNIFORM
from metatransformer.nn.kernel import KernelLayer


@dataclass(frozen=True)
class BesideFacts:
    """``features`` plain numbers a sample, compared with ``centres`` training samples (0: a line on them).

    ``words`` > 0: the features are counts, nearly all of them 0, of which so many are read.
    """

    features: int
    centres: int = 0
    words: int = 0


def standardised(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Returns ``(x - mean) / scale``, 0 for NaN: what a sample lacks says as little as the mean."""
    return ((x - mean) / scale).nan_to_num(nan=0.0)


class Standardise(nn.Module):
    """``standardised`` with fixed statistics; changes nothing until they are set."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the standardised features ``[B, F]``."""
        return standardised(x, self.mean, self.scale)


class WordWeights(nn.Module):
    """Counts ``[B, features]`` (sparse) -> TF-IDF of the ``words`` columns that are read, each row of length 1.

    ``columns`` are their places, rising; ``idf`` their weights. A count c becomes (1 + log c) idf: sublinear TF-IDF as
    scikit-learn's ``TfidfTransformer`` has it.
    """

    columns: Tensor
    idf: Tensor

    def __init__(self, words: int) -> None:
        super().__init__()
        self.register_buffer("columns", torch.zeros(words, dtype=torch.int32))
        self.register_buffer("idf", torch.zeros(words))

    @classmethod
    def of(cls, counts: Tensor, *, most: int) -> "WordWeights":
        """Returns the weights of the columns that at least two rows of ``counts`` have, of the ``most`` frequent."""
        rows = torch.bincount(counts.coalesce().indices()[1], minlength=counts.shape[1])
        often = torch.where(rows >= 2, rows, torch.zeros_like(rows))
        chosen = torch.argsort(often, descending=True, stable=True)[: min(most, int((often > 0).sum()))].sort().values
        weights = cls(len(chosen))
        weights.columns.copy_(chosen)
        weights.idf.copy_(torch.log((1 + len(counts)) / (1 + rows[chosen])) + 1)
        return weights

    def forward(self, counts: Tensor) -> Tensor:
        """Returns the weighed words ``[B, words]``, sparse."""
        counts = counts.coalesce()
        (rows, places), values = counts.indices(), counts.values().float()
        found = torch.searchsorted(self.columns, places.int()).clamp(max=max(len(self.columns) - 1, 0))
        read = self.columns[found] == places if len(self.columns) else torch.zeros_like(places, dtype=torch.bool)
        rows, found = rows[read], found[read]
        weighed = (1 + values[read].log()) * self.idf[found]
        length = torch.zeros(len(counts), device=weighed.device).index_add(0, rows, weighed.square()).sqrt()
        shape = (len(counts), len(self.columns))
        where = torch.stack([rows, found])
        return torch.sparse_coo_tensor(where, weighed / length[rows], shape, is_coalesced=True, check_invariants=False)


class Beside(nn.Module):
    """Plain features ``[B, features]`` -> outputs ``[B, outputs]``, in float32 throughout."""

    def __init__(self, facts: BesideFacts, *, outputs: int, gamma: float) -> None:
        super().__init__()
        self.facts = facts
        read = facts.words or facts.features
        self.norm: Standardise | WordWeights = WordWeights(read) if facts.words else Standardise(read)
        self.last: nn.Linear | KernelLayer = nn.Linear(read, outputs)
        if facts.centres:
            self.last = KernelLayer(read, outputs, centres=facts.centres, gamma=gamma)

    def forward(self, plain: Tensor) -> Tensor:
        """Returns what plain features add to the outputs."""
        with torch.autocast(plain.device.type, enabled=False) if not UNIFORM.get() else nullcontext():
            x = self.norm(plain)
            return torch.sparse.mm(x, self.last.weight.T) + self.last.bias if self.facts.words else self.last(x)
