"""Heads: from the trunk's tokens to a task's outputs.

A head pools the tokens of one or more blocks without parameters, normalises the pooled features, and applies a small
network. The pooled features of a frozen tokenizer and trunk can therefore be computed once, and many heads trained on
them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metatransformer.core.tokens import Tokens
from metatransformer.nn.kernel import KernelLayer
from metatransformer.nn.pool import pool, pooled_width


class Head(nn.Module):
    """Pool, normalise, then a linear layer, a two-layer MLP with GELU and dropout (``hidden`` > 0), or a kernel on
    ``centres`` training samples.

    ``kind`` and ``cells`` say how tokens are pooled, ``axes`` on a grid of how many axes they lie. ``norm``
    is ``standard``, by statistics of the training split (neutral until they are set: where features are
    computed once), or ``layer``, a LayerNorm over the pooled vector (where they change while training).
    ``direct`` more features come beside the tokens; a LayerNorm leaves them alone.
    """

    def __init__(
        self,
        *,
        width: int,
        outputs: int,
        kind: str,
        cells: int,
        axes: int,
        blocks: Sequence[int],
        norm: str,
        hidden: int = 0,
        dropout: float = 0.0,
        direct: int = 0,
        centres: int = 0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        self.direct = direct
        self.kind, self.cells = kind, cells
        self.blocks = tuple(blocks)
        pooled = pooled_width(width, kind=kind, cells=cells, axes=axes) * len(self.blocks)
        self.features = pooled + direct
        self.norm = Standardise(self.features) if norm == "standard" else nn.LayerNorm(pooled)
        self.net = _network(self.features, outputs, hidden=hidden, dropout=dropout)
        if centres:
            self.net = nn.Sequential(KernelLayer(self.features, outputs, centres=centres, gamma=gamma))

    @property
    def centres(self) -> int:
        """How many training samples the head compares with; 0 for a linear layer or an MLP."""
        last = self.net[-1]
        return len(last.centres) if isinstance(last, KernelLayer) else 0

    def pooled(self, layers: Sequence[Tokens]) -> Float[Tensor, "B F"]:
        """Returns the pooled features of the blocks that the head reads, side by side, in float32, then the direct."""
        kind, cells = self.kind, self.cells
        parts = [pool(tokens, kind=kind, cells=cells).float() for tokens in layers]
        direct = layers[0].direct
        return torch.cat(parts if direct is None else [*parts, direct.float()], dim=-1)

    def predict(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B C"]:
        """Returns the task's outputs for pooled features, in float32 throughout: 8 bits of an output are too few."""
        with torch.autocast(features.device.type, enabled=False):
            if not self.direct or isinstance(self.norm, Standardise):
                return self.net(self.norm(features))
            pooled, direct = features[:, : -self.direct], features[:, -self.direct :]
            return self.net(torch.cat([self.norm(pooled), direct], dim=-1))

    @torch.no_grad()
    def take(self, *, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, centres: Tensor | None) -> None:
        """Takes over a head that was fitted elsewhere, with the statistics that it standardises by."""
        last = self.net[-1]
        if centres is not None:
            assert isinstance(last, KernelLayer)
            last = KernelLayer(self.features, len(bias), centres=len(centres), gamma=last.gamma).to(last.weight.device)
            last.centres.copy_(centres)
            self.net = nn.Sequential(last)
        assert isinstance(self.norm, Standardise) and isinstance(last, nn.Linear | KernelLayer)
        for own, given in ((self.norm.mean, mean), (self.norm.scale, scale), (last.weight, weight), (last.bias, bias)):
            own.copy_(given)

    def forward(self, layers: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Returns the task's outputs for the tokens after each of ``blocks``."""
        return self.predict(self.pooled(layers))


class Standardise(nn.Module):
    """``(x - mean) / scale`` with fixed statistics; changes nothing until they are set."""

    mean: Tensor
    scale: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def forward(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B F"]:
        """Returns the standardised features."""
        return (x - self.mean) / self.scale


def _network(features: int, outputs: int, *, hidden: int, dropout: float) -> nn.Sequential:
    last = nn.Linear(hidden or features, outputs)
    # Small weights: a fresh head starts near the constant answer, and the first steps do not shake the tokenizer.
    nn.init.trunc_normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), last)
    first = nn.Linear(features, hidden)
    nn.init.trunc_normal_(first.weight, std=0.02)
    nn.init.zeros_(first.bias)
    return nn.Sequential(first, nn.GELU(), nn.Dropout(dropout), last)
