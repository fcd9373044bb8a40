"""Heads: a readout, a normalisation, a small network.

The features of a frozen tokenizer and trunk can be computed once where the readout has no parameters, and many heads be
fitted on them.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import reduce

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metatransformer.core.batch import Batch
from metatransformer.core.readout import Readout
from metatransformer.core.tokens import Tokens
from metatransformer.core.uniform import UNIFORM
from metatransformer.nn.beside import Beside, Standardise
from metatransformer.nn.kernel import KernelLayer


class Head(nn.Module):
    """Read out, normalise, then a linear layer, a two-layer MLP with GELU and dropout (``hidden`` > 0), or a kernel on
    ``centres`` training samples.

    ``solved`` says that it is fitted on features that were computed once: then it standardises by statistics of the
    training split (neutral until they are set). Others normalise the vector by a LayerNorm, which leaves the readout's
    direct features alone. What ``beside`` says is added, by ``SOURCE:INPUT``: each reads the ``plain`` features of an
    input, or the ``trunk``'s of that input alone; a head that does not read ``through`` all of the trunk's has these
    alone. ``lacking`` holds by input what answers for samples without it in the same way; of several that a sample
    lacks the last one counts.
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
        self.beside = nn.ModuleDict()
        self.lacking = nn.ModuleDict()
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
        with torch.autocast(features.device.type, enabled=False) if not UNIFORM.get() else nullcontext():
            direct = self.readout.direct
            if not direct or self.solved:
                return self.net(self.norm(self.readout.gaps(features) if self.solved else features))
            through, beside = features[:, :-direct], features[:, -direct:]
            return self.net(torch.cat([self.norm(through), beside], dim=-1))

    def answer(self, batch: Batch, features: Callable[[], Tensor]) -> Float[Tensor, "B C"]:
        """Returns the task's outputs for a batch whose ``features`` are computed where they are needed."""
        reads_trunk = self.through or any(key.startswith("trunk:") for key in self.keys)
        found = features() if reads_trunk else None
        parts = [self.predict(found)] if self.through and found is not None else []
        outputs = reduce(torch.add, [*parts, *self._answers(self.beside, batch, found)])
        for name, others in self.lacking.items():
            absent = batch.lacks(name)
            if absent.any():
                assert isinstance(others, nn.ModuleDict)
                without = reduce(torch.add, self._answers(others, batch, found))
                outputs = torch.where(absent.to(outputs.device)[:, None], without, outputs)
        return outputs

    @property
    def keys(self) -> list[str]:
        """What is read beside all of the trunk's features, by ``SOURCE:INPUT``."""
        return [key for parts in (self.beside, *self.lacking.children()) for key, _ in parts.named_children()]

    def _answers(self, parts: nn.ModuleDict, batch: Batch, features: Tensor | None) -> Iterator[Tensor]:
        for key, beside in parts.items():
            assert isinstance(beside, Beside)
            source, _, name = key.partition(":")
            if source == "plain":
                x = batch.plain(name, size=beside.facts.features).to(beside.last.weight.device)
            else:
                assert features is not None
                # Heads of older revisions did not read what an input hands over beside the trunk, which comes last.
                x = self.readout.gaps(features)[:, self.columns(name)[: beside.facts.features]]
            yield beside(x)

    def columns(self, name: str) -> Tensor:
        """Returns the places of the features that came of one input."""
        owners = self.readout.owners
        assert owners is not None, name
        return (owners == list(self.readout.facts.axes).index(name)).nonzero().flatten()

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
