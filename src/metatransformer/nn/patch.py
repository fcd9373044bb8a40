"""Patches of a 2-D grid (an image, a spectrogram), started from a trunk's own kernel and positions.

A trunk's patch embedding knows RGB pixels, one patch size and one grid of positions. Here its
kernel is adapted to any number of channels and any patch shape, and its positions to the grid that
each sample really has. Samples of different size share a batch: a sample's tokens never depend on
how far it was padded.

Axes: B batch, C channels, H W pixels, h w patches, D width, p patch side.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.uniform import UNIFORM

# For a trunk that came without positions: the grid of the usual ViT, 224 pixels in patches of 16.
DEFAULT_GRID = 14


def adapt_kernel(kernel: Float[Tensor, "D 3 p p"], *, channels: int, size: tuple[int, int]) -> Float[Tensor, "D C h w"]:
    """Returns an RGB kernel for other channels and another patch shape, or a copy where it fits.

    Every new channel gets the sum over RGB divided by the number of channels, so that a grey
    picture gives the same response in any number of channels. A new size is the pseudo-inverse of
    bilinear resizing: where patches grow, a resized patch and the resized kernel give the response
    of the originals (PI-resize of FlexiViT, arXiv 2212.08013, section 3.4).
    """
    if channels != kernel.shape[1]:
        grey = kernel.sum(dim=1, keepdim=True) / channels
        kernel = grey.expand(-1, channels, -1, -1)
    if size == tuple(kernel.shape[-2:]):
        return kernel.clone()
    sides = [_inverse_resize(old, new) for old, new in zip(kernel.shape[-2:], size, strict=True)]
    resized = torch.einsum("dcij,hi,wj->dchw", kernel.double(), *sides)
    return resized.to(kernel.dtype)


def _inverse_resize(old: int, new: int) -> Float[Tensor, "new old"]:
    basis = torch.eye(old, dtype=torch.float64)[:, None]  # [old, 1, old]: one unit pulse a row
    resize = F.interpolate(basis, size=new, mode="linear", align_corners=False)[:, 0]  # [old, new]
    return torch.linalg.pinv(resize)


def resample_positions(positions: Float[Tensor, "h w D"], *, size: tuple[int, int]) -> Float[Tensor, "h2 w2 D"]:
    """Returns position vectors on another grid over the same picture, by bicubic interpolation."""
    known = all(isinstance(side, int) for side in size)  # and no symbols of a graph
    if known and size == tuple(positions.shape[:2]):
        return positions
    picture = positions.permute(2, 0, 1)[None]  # [1, D, h, w]
    picture = F.interpolate(picture, size=size, mode="bicubic", align_corners=False)
    return picture[0].permute(1, 2, 0)


class PatchEmbedding(nn.Module):
    """Patches -> one token each: a convolution, started from the trunk's kernel if it has one."""

    def __init__(
        self,
        *,
        width: int,
        channels: int,
        stem: Stem,
        size: tuple[int, int],
        stride: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        self.size = size
        self.stride = size if stride is None else stride
        if any(not 1 <= step <= side for step, side in zip(self.stride, size, strict=True)):
            raise UsageError(
                "patch stride",
                must=f"lie between 1 and the patch {size}, so that every value is seen",
                found=str(self.stride),
            )
        if stem.patch is None:
            weight = torch.empty(width, channels, *size)
            nn.init.trunc_normal_(weight, std=(channels * size[0] * size[1]) ** -0.5)
        else:
            weight = adapt_kernel(stem.patch, channels=channels, size=size)
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(width) if stem.bias is None else stem.bias.clone())

    def counts(self, lengths: Int[Tensor, " B"], *, axis: int) -> Int[Tensor, " B"]:
        """Returns how many patches, at least one, cover these lengths on axis 0 (h) or 1 (w)."""
        beyond = (lengths - self.size[axis]).clamp(min=0)
        return 1 + torch.div(beyond + self.stride[axis] - 1, self.stride[axis], rounding_mode="floor")

    def forward(
        self, x: Float[Tensor, "B C H W"], mask: Bool[Tensor, "B H W"]
    ) -> tuple[Float[Tensor, "B h w D"], Bool[Tensor, "B h w"]]:
        """Returns a token for each patch that touches a real pixel, and which these are.

        The real pixels are the upper left rectangle of each picture, as ``Field.stack`` pads.
        Whatever stands in the padding counts as 0, and so does what a last, incomplete patch lacks.
        """
        if UNIFORM.get():
            return self._of_whole(x)
        extents = [mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)]
        counts = [self.counts(extent, axis=axis) for axis, extent in enumerate(extents)]
        grid = [int(count.max()) for count in counts]
        needed = [s * (n - 1) + p for s, n, p in zip(self.stride, grid, self.size, strict=True)]
        x = x.masked_fill(~mask[:, None], 0.0)
        grow = [max(0, n - have) for n, have in zip(needed, x.shape[2:], strict=True)]
        x = F.pad(x, (0, grow[1], 0, grow[0]))[:, :, : needed[0], : needed[1]]
        y = F.conv2d(x, self.weight, self.bias, stride=self.stride)  # [B, D, h, w]
        return y.permute(0, 2, 3, 1), rectangles(counts, grid=grid)

    def _of_whole(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the same for pictures without padding, whose sides may be symbols of a graph."""
        grow = []
        for have, step, side in zip(x.shape[2:], self.stride, self.size, strict=True):
            beyond = have - side if step == side else torch.sym_max(have - side, 0)  # no patch begins before the first
            grow.append(side + step * ((beyond + step - 1) // step) - have)
        if any(not isinstance(more, int) or more for more in grow):
            x = F.pad(x, (0, grow[1], 0, grow[0]))
        y = F.conv2d(x, self.weight, self.bias, stride=self.stride).permute(0, 2, 3, 1)
        return y, torch.ones_like(y[..., 0], dtype=torch.bool)


def rectangles(counts: Sequence[Int[Tensor, " B"]], *, grid: Sequence[int]) -> Bool[Tensor, "B h w"]:
    """Returns masks of the upper left ``counts[0] x counts[1]`` entries of each sample's grid."""
    rows, columns = (
        torch.arange(n, device=count.device)[None] < count[:, None] for n, count in zip(grid, counts, strict=True)
    )
    return rows[:, :, None] & columns[:, None, :]


class GridPositions(nn.Module):
    """Learnable positions ``[h, w, D]`` that are resampled to the real grid of each sample."""

    def __init__(self, *, width: int, stem: Stem) -> None:
        super().__init__()
        start = torch.empty(DEFAULT_GRID, DEFAULT_GRID, width)
        if stem.positions is None:
            nn.init.trunc_normal_(start, std=0.02)
        else:
            start = stem.positions.clone()
        self.table = nn.Parameter(start)

    def forward(self, mask: Bool[Tensor, "B h w"]) -> Float[Tensor, "B h w D"]:
        """Returns the positions of each sample's own grid, 0 where the batch pads it."""
        if UNIFORM.get():
            table = resample_positions(self.table, size=(mask.shape[1], mask.shape[2]))
            return table.expand(mask.shape[0], -1, -1, -1)
        sizes = torch.stack([mask.any(dim=2).sum(dim=1), mask.any(dim=1).sum(dim=1)], dim=1)
        kinds, which = torch.unique(sizes.cpu(), dim=0, return_inverse=True)  # not there on every device
        height, width = mask.shape[1:]
        tables = []
        for h, w in kinds.tolist():
            table = resample_positions(self.table, size=(h, w))
            tables.append(F.pad(table, (0, 0, 0, width - w, 0, height - h)))
        return torch.stack(tables)[which.to(self.table.device)]
