"""Dense: the tokens themselves, without their summary, for tasks that answer for every place of a sample.

The blocks that are read stand side by side. Without parameters.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metatransformer.core.errors import UsageError
from metatransformer.core.readout import Facts, Readout
from metatransformer.core.tokens import Tokens


class Dense(Readout):
    """Each token of one input; what a tokenizer hands over beside the trunk is of whole samples and left out.

    ``features`` and ``direct`` count what places bring besides, which ``forward`` does not know.
    """

    name = "dense"

    def __init__(self, facts: Facts) -> None:
        super().__init__(facts)
        self.direct = facts.at_places
        if len(facts.axes) != 1:
            found = ", ".join(facts.axes)
            raise UsageError("head.readout 'dense'", must="read one input", found=found, do="Set the task's 'inputs'.")

    @property
    def features(self) -> int:
        """How many numbers a place has: those of a token, and its own."""
        return self.facts.width * len(self.blocks) + self.direct

    def forward(self, layers: Sequence[Tokens]) -> Float[Tensor, "B N F"]:
        """Returns the features of every token but the summary, in float32."""
        return torch.cat([tokens.x[:, ~tokens.summaries()] for tokens in layers], dim=-1).float()


READOUT = Dense
