"""Pooled: one vector a sample, without parameters.

Each input is pooled by itself over each block that is read, and the vectors stand side by side: block by block, in
each the inputs in their order. Where there are several inputs, one bit an input says whether the sample has it; the
vector of an absent one is 0. What inputs hand over beside the trunk comes last.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.readout import Readout
from metatransformer.core.tokens import Tokens
from metatransformer.nn.pool import pool, pooled_width


class Pooled(Readout):
    """Summary, mean, largest values, or means in the cells of a grid, as ``nn.pool`` has them."""

    name = "pooled"

    @property
    def features(self) -> int:
        """How many numbers a sample's vector has."""
        bits = len(self.facts.axes) if len(self.facts.axes) > 1 else 0
        return sum(self._widths().values()) * len(self.blocks) + bits + self.direct

    def _widths(self) -> dict[str, int]:
        kind, cells, width = self.facts.pool, self.facts.cells, self.facts.width
        return {name: pooled_width(width, kind=kind, cells=cells, axes=axes) for name, axes in self.facts.axes.items()}

    @property
    def owners(self) -> torch.Tensor | None:
        """For each feature the place of its input."""
        inputs = len(self.facts.axes)
        if inputs == 1:
            return None
        widths = torch.tensor([*self._widths().values()])
        beside = torch.tensor([self.facts.direct.get(name, 0) for name in self.facts.axes])
        each = torch.arange(inputs).repeat_interleave(widths).repeat(len(self.blocks))
        return torch.cat([each, torch.full((inputs,), -1), torch.arange(inputs).repeat_interleave(beside)])

    def gaps(self, features: torch.Tensor) -> torch.Tensor:
        """Returns the features with NaN for those of an input whose bit is 0."""
        if (owners := self.owners) is None:
            return features
        owners = owners.to(features.device)
        bits = features[:, owners < 0]
        there = (owners < 0) | (bits[:, owners.clamp(min=0)] > 0)
        return torch.where(there, features, torch.nan)

    def forward(self, layers: Sequence[Tokens]) -> Float[Tensor, "S F"]:
        """Returns the vectors in float32."""
        vectors = [self._vector(tokens, name) for tokens in layers for name in self.facts.axes]
        if len(self.facts.axes) > 1:
            vectors.append(torch.stack([_present(layers[0], name) for name in self.facts.axes], dim=1).float())
        direct = layers[0].direct
        return torch.cat(vectors if direct is None else [*vectors, direct.float()], dim=-1)

    def _vector(self, tokens: Tokens, name: str) -> Float[Tensor, "S F"]:
        """Returns the pooled tokens of one input, 0 for samples without it."""
        part = tokens.part(name)
        if part is None:
            return tokens.x.new_zeros(tokens.count, self._widths()[name]).float()
        kind, cells = self.facts.pool, self.facts.cells
        there = _present(tokens, name)
        if there.all():
            return pool(part, kind=kind, cells=cells).float()
        vectors = tokens.x.new_zeros(tokens.count, self._widths()[name]).float()
        if there.any():
            rows = there if part.samples is None else there[part.samples]
            vectors[there] = pool(part.rows(rows), kind=kind, cells=cells).float()
        return vectors


def _present(tokens: Tokens, name: str) -> Tensor:
    """Returns which samples have an input ``[S]``."""
    part = tokens.part(name)
    if part is None:
        return torch.zeros(tokens.count, dtype=torch.bool, device=tokens.x.device)
    real = part.mask.any(dim=1)
    if part.samples is None:
        return real
    found = torch.zeros(tokens.count, dtype=torch.bool, device=real.device)
    found[part.samples] = real
    return found


READOUT = Pooled
