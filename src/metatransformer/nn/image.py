"""The tokenizer of pictures: photographs, X-rays, infrared; one channel or three.

Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929) for patches; Meta-Transformer section 3.2 (arXiv
2307.10802) for one tokenizer of RGB, infrared and X-ray pictures.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from metatransformer.core.modality import Stem, SummaryToken, Tokenizer
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM
from metatransformer.nn.patch import GridPositions, PatchEmbedding


def level_statistics(stem: Stem) -> tuple[float, float]:
    """Returns one mean and one deviation of pixels (0..1) for all channels: the means over RGB."""
    return sum(stem.mean) / 3, sum(stem.std) / 3


def level_stem(stem: Stem) -> Stem:
    """Returns the same front end for pixels that ``level_statistics`` have normalised already.

    What made the channels differ moves into the kernel and its bias. After it, the kernel summed
    over RGB gives a grey picture exactly the tokens that the picture has in RGB.
    """
    ready = replace(stem, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    if stem.patch is None:
        return ready
    mean, std = torch.tensor(stem.mean), torch.tensor(stem.std)
    one_mean, one_std = level_statistics(stem)
    patch = stem.patch * (one_std / std)[:, None, None]
    shift = (stem.patch.sum(dim=(2, 3)) * ((one_mean - mean) / std)).sum(dim=1)  # [D]
    return replace(ready, patch=patch, bias=shift if stem.bias is None else stem.bias + shift)


class PictureTokenizer(Tokenizer):
    """Normalise as the trunk was trained, cut into patches, add positions, put the class token in
    front.

    ``channels`` is 3 for RGB; with 1 the kernel is summed over RGB. ``name`` is the modality of the
    span. ``mirrored`` makes two rows of a sample: the picture, and its mirror image.
    """

    axes = 2
    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, channels: int, width: int, stem: Stem, mirrored: bool = False) -> None:
        super().__init__()
        self.name = name
        self.mirrored = mirrored
        self.native = stem.patch is not None
        side = stem.patch_size
        self.patches = PatchEmbedding(width=width, channels=channels, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)
        for name_, values in (("mean", stem.mean), ("std", stem.std)):
            each = torch.tensor(values[:channels])[:, None, None]
            self.register_buffer(name_, each, persistent=False)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the class token and ``h x w`` patch tokens; ``pixels`` is ``[B, H, W, C]``.

        They are uint8, or floating-point numbers on the scale of the stem's statistics.
        """
        pixels = inputs["pixels"].permute(0, 3, 1, 2)  # [B, C, H, W]
        if pixels.dtype == torch.uint8:
            pixels = pixels.float().div_(255)
        mask, samples = masks["pixels"], None
        if self.mirrored:
            samples = torch.arange(pixels.shape[0], device=pixels.device).repeat_interleave(2)
            pixels = torch.stack([pixels, mirror(pixels, mask)], dim=1).flatten(0, 1)  # [2 B, C, H, W]
            mask = mask.repeat_interleave(2, dim=0)
        x, real = self.patches((pixels - self.mean).div_(self.std), mask)
        grid = (x.shape[1], x.shape[2])
        x = (x + self.positions(real)).flatten(1, 2)  # [B, h, w, D] -> [B, h w, D]
        x, mask = self.summary(x, real.flatten(1, 2))
        return Tokens(x, mask, (Span(self.name, 0, x.shape[1], summary=0, grid=grid),), samples)


def mirror(pixels: Tensor, mask: Tensor) -> Tensor:
    """Returns pictures ``[B, C, H, W]`` left to right, each inside its own width; ``mask`` is ``[B, H, W]``."""
    if UNIFORM.get():
        return pixels.flip(3)
    columns = mask.any(dim=1).sum(dim=1)[:, None]  # [B, 1]
    width = pixels.shape[-1]
    places = (columns - 1 - torch.arange(width, device=pixels.device)) % width  # the padding stays on the right
    return pixels.gather(3, places[:, None, None, :].expand_as(pixels))
