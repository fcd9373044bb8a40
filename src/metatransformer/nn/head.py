"""Heads: a readout, a normalisation, a small network.

The features of a frozen tokenizer and trunk can be computed once where the readout has no parameters, and many heads be
fitted on them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metatransformer.core.readout import Readout
from metatransformer.core.tokens import Tokens
from metatransformer.nn.beside import Beside, Standardise
from metatransformer.nn.kernel import KernelLayer


class Head(nn.Module):
    """Read out, normalise, then a linear layer, a two-layer MLP with GELU and dropout (``hidden`` > 0), or a kernel on
    ``centres`` training samples.

    ``solved`` says that it is fitted on features that were computed once: then it standardises by statistics of the
    training split (neutral until they are set). Others normalise the vector by a LayerNorm, which leaves the readout's
    direct features alone. ``beside``, where there is one, reads the modality's plain features, and what it says is
    added; a head that does not read ``through`` the trunk has it alone.
    """

    def __init__(
        self,
        readout: Readout,
        *,
        outputs: int,
        solved: bool,
        hidden: int = 0,
        dropout: float = 0.0,
        centres: int = 0,
        gamma: float = 1.0,
    ) -> None:
        super().__init__()
        self.readout = readout
        self.solved = solved
        self.through = True
        self.beside: Beside | None = None
        features = readout.features
        self.norm = Standardise(features) if solved else nn.LayerNorm(features - readout.direct)
        self.net = _network(features, outputs, hidden=hidden, dropout=dropout)
        if centres:
            self.net = nn.Sequential(KernelLayer(features, outputs, centres=centres, gamma=gamma))

    @property
    def centres(self) -> int:
        """How many training samples the head compares with; 0 for a linear layer or an MLP."""
        last = self.net[-1] if self.through else None
        return len(last.centres) if isinstance(last, KernelLayer) else 0

    def leave_trunk(self) -> None:
        """Drops what reads the trunk's features."""
        self.through, self.norm, self.net = False, nn.Identity(), nn.Sequential()

    def predict(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B C"]:
        """Returns the task's outputs for features, in float32 throughout: 8 bits of an output are too few."""
        with torch.autocast(features.device.type, enabled=False):
            direct = self.readout.direct
            if not direct or self.solved:
                return self.net(self.norm(features))
            through, beside = features[:, :-direct], features[:, -direct:]
            return self.net(torch.cat([self.norm(through), beside], dim=-1))

    @torch.no_grad()
    def take(self, *, mean: Tensor, scale: Tensor, weight: Tensor, bias: Tensor, centres: Tensor | None) -> None:
        """Takes over a head that was fitted elsewhere, with the statistics that it standardises by."""
        last = self.net[-1]
        if centres is not None:
            assert isinstance(last, KernelLayer)
            features = self.readout.features
            last = KernelLayer(features, len(bias), centres=len(centres), gamma=last.gamma).to(last.weight.device)
            last.centres.copy_(centres)
            self.net = nn.Sequential(last)
        assert isinstance(self.norm, Standardise) and isinstance(last, nn.Linear | KernelLayer)
        for own, given in ((self.norm.mean, mean), (self.norm.scale, scale), (last.weight, weight), (last.bias, bias)):
            own.copy_(given)

    def forward(self, layers: Sequence[Tokens]) -> Float[Tensor, "B C"]:
        """Returns the task's outputs for the tokens after each block that is read."""
        return self.predict(self.readout(layers))


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
