"""What networks on a grid of frozen tokens share: few directions of them, layers that mix neighbours, a head."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metatransformer.core.readout import Readout
from metatransformer.nn.head import Head

KEPT = 192  # directions of a token's features that a network is given


class Mix(nn.Module):
    """What neighbours say (a depthwise convolution), then two layers at each place, beside the input itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 2 * width)
        self.back = nn.Linear(2 * width, width)

    def forward(self, x: Float[Tensor, "B h w C"], mask: Float[Tensor, "B h w 1"]) -> Float[Tensor, "B h w C"]:
        """Returns the places; ``mask`` is 0 in the padding."""
        near = self.near((x * mask).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return x + self.back(F.gelu(self.wide(self.norm(near))))


def doubled(x: Float[Tensor, "B h w C"]) -> Tensor:
    """Returns each place as 2 x 2 places of a quarter of its channels, ``[B, 2 h, 2 w, C / 4]``."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height, width, 2, 2, channels // 4).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, 2 * height, 2 * width, channels // 4)


class Directions(nn.Module):
    """Features along the directions in which training tokens varied most, each of deviation 1."""

    mean: Tensor
    axes: Tensor

    def __init__(self, features: int, *, kept: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("axes", torch.eye(features, kept))

    def forward(self, x: Float[Tensor, "... F"]) -> Float[Tensor, "... K"]:
        """Returns the coordinates."""
        return (x - self.mean) @ self.axes

    @torch.no_grad()
    def learn(self, x: Float[Tensor, "n F"]) -> float:
        """Learns mean and directions from tokens, and returns which share of their variance is kept."""
        x = x.double()
        mean = x.mean(dim=0)
        values, vectors = torch.linalg.eigh((x - mean).T @ (x - mean) / len(x))
        kept = self.axes.shape[1]
        self.mean.copy_(mean)
        # What hardly varies is noise: it is not blown up to the size of the rest.
        scale = values[-kept:].clamp(min=1e-4 * float(values[-1])).sqrt()
        self.axes.copy_((vectors[:, -kept:] / scale).flip(1))
        return float(values[-kept:].sum() / values.sum().clamp(min=1e-12))


class GridHead(Head):
    """A head that is trained on the whole grid of a readout's tokens, along few directions."""

    norm: Directions

    def __init__(self, readout: Readout, *, outputs: int) -> None:
        super().__init__(readout, outputs=outputs, solved=False)
        self.kept = min(KEPT, readout.features)
        self.norm = Directions(readout.features, kept=self.kept)

    @property
    def centres(self) -> int:
        """None: it compares with no training samples."""
        return 0

    def reduced(self, features: Float[Tensor, "... F"]) -> Float[Tensor, "... K"]:
        """Returns what the network is given of tokens, in half precision, as it is kept for training."""
        return self.norm(features).half()
