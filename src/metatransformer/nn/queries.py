"""Masks from queries over frozen tokens: a small trained decoder for segmentation.

Each class has a query, which looks at all tokens of a picture and at the other queries; the mask of a class is how well
its query goes with the tokens on a grid twice as fine (Strudel et al. 2021, arXiv 2105.05633; Zhang et al. 2022, arXiv
2210.05844). With one query a class nothing has to be matched, as Cheng et al. 2022 (arXiv 2112.01527) match theirs.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metatransformer.core.readout import Readout
from metatransformer.nn.grid import GridHead, Mix, doubled


class Asking(nn.Module):
    """One round: queries look at the tokens, then at each other, then think for themselves."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.at_tokens = nn.MultiheadAttention(width, heads, batch_first=True)
        self.at_each_other = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.think = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(
        self, queries: Float[Tensor, "B C D"], tokens: Float[Tensor, "B N D"], padding: Bool[Tensor, "B N"]
    ) -> Float[Tensor, "B C D"]:
        """Returns the queries; ``padding`` is True where there is no token."""
        first, second, third = self.norms
        asked = first(queries)
        queries = queries + self.at_tokens(asked, tokens, tokens, key_padding_mask=padding, need_weights=False)[0]
        asked = second(queries)
        queries = queries + self.at_each_other(asked, asked, asked, need_weights=False)[0]
        return queries + self.think(third(queries))


class Decoder(nn.Module):
    """``features`` numbers a token in, log odds of ``classes`` on a grid twice as fine out."""

    def __init__(
        self, features: int, classes: int, *, width: int = 128, depth: int = 2, heads: int = 4, dropout: float = 0.1
    ) -> None:
        super().__init__()
        width = heads * max(1, width // heads)
        self.dropout = nn.Dropout(dropout)
        self.start = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.GELU())
        self.mixes = nn.ModuleList(Mix(width) for _ in range(depth))
        self.queries = nn.Parameter(torch.randn(classes, width) * 0.02)
        self.rounds = nn.ModuleList(Asking(width, heads=heads) for _ in range(depth))
        self.finer = nn.Linear(width, 4 * width)
        self.norm = nn.LayerNorm(width)
        self.masks = nn.Linear(width, width)
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, tokens: Float[Tensor, "B h w F"], real: Bool[Tensor, "B h w"]) -> Float[Tensor, "B h2 w2 C"]:
        """Returns the log odds; ``real`` is False in the padding, to the right and below."""
        mask = real[..., None].to(tokens.dtype)
        x = self.start(self.dropout(tokens))
        for mix in self.mixes:
            x = mix(x, mask)
        queries, padding = self.queries.expand(len(x), -1, -1), ~real.flatten(1)
        for asking in self.rounds:
            queries = asking(queries, x.flatten(1, 2), padding)
        fine = F.gelu(self.norm(doubled(self.finer(x))))
        scale = fine.shape[-1] ** -0.5
        return torch.einsum("bhwd,bcd->bhwc", fine, self.masks(queries)) * scale + self.bias


class QueryHead(GridHead):
    """A head whose answers are maps of classes, through a ``Decoder``."""

    net: Decoder

    def __init__(self, readout: Readout, *, classes: int, width: int) -> None:
        super().__init__(readout, outputs=classes)
        self.net = Decoder(self.kept, classes, width=width)

    def maps(self, tokens: Float[Tensor, "B h w K"], real: Bool[Tensor, "B h w"]) -> Float[Tensor, "B h2 w2 C"]:
        """Returns log odds of ``reduced`` tokens, in float32 throughout."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.net(tokens.float(), real)

    def map_of(self, features: Float[Tensor, "h w F"]) -> Float[Tensor, "h2 w2 C"]:
        """Returns log odds for all tokens of one sample."""
        tokens = self.reduced(features)[None]
        return self.maps(tokens, torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device))[0]
