"""Tubelets: patches of a video over two frames, by an image trunk's own kernel inflated over time.

Sources: Arnab et al. 2021 (ViViT, arXiv 2103.15691), section 3.2 for tubelets and section 3.4 for inflation; Carreira
and Zisserman 2017 (arXiv 1705.07750) for inflated kernels.

Axes: S samples, W clips, R rows (clips of all samples), T frames, t tubelets over time, H V pixels, h w patches,
D width, p patch side.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from metatransformer.core.modality import Stem, SummaryToken, Tokenizer
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM
from metatransformer.nn.patch import GridPositions, PatchEmbedding
from metatransformer.nn.pool import fold_rows

DEPTH = 2  # frames in a tubelet, as in ViViT and VideoMAE


def inflate(kernel: Float[Tensor, "D 3 p p"], *, frames: int) -> Float[Tensor, "D C p p"]:
    """Returns the kernel over several frames whose colours lie side by side, frame after frame.

    Every frame gets the image's kernel divided by their number, so that a still video gives exactly the picture's
    tokens.
    """
    return torch.cat([kernel / frames] * frames, dim=1)


class TimePositions(nn.Module):
    """Learnable positions ``[t, D]`` that start at zero and are stretched to the length of each clip.

    Zero, because the trunk has never seen a position in time: a still video begins with the picture's own tokens.
    """

    def __init__(self, *, width: int, steps: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(steps, width))

    def forward(self, mask: Bool[Tensor, "R t"]) -> Float[Tensor, "R t D"]:
        """Returns the positions of each row's own length, 0 where the batch pads it."""
        if UNIFORM.get():
            return self._stretched(mask.shape[1]).expand(mask.shape[0], -1, -1)
        lengths, which = torch.unique(mask.sum(dim=1), return_inverse=True)
        tables = [F.pad(self._stretched(n), (0, 0, 0, mask.shape[1] - n)) for n in lengths.tolist()]
        return torch.stack(tables)[which]

    def _stretched(self, length: int) -> Float[Tensor, "n D"]:
        table = self.table.T[None]  # [1, D, steps]
        if not isinstance(length, int) or length != table.shape[2]:  # a symbol of a graph may be any
            table = F.interpolate(table, size=length, mode="linear", align_corners=False)
        return table[0].T


class TubeletTokenizer(Tokenizer):
    """Normalise as the trunk was trained, cut into tubelets, add positions in the picture and in time.

    ``joint`` puts all tubelets of a clip into one row, where they attend to each other, behind one class token, on a
    grid of time, height and width; otherwise each step of time is a row of its own on a grid of height and width, and
    pooling averages. ``steps`` is the usual number of steps.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, *, name: str, steps: int, joint: bool, width: int, stem: Stem) -> None:
        super().__init__()
        self.name, self.joint = name, joint
        self.axes = 3 if joint else 2
        self.native = stem.patch is not None
        side = stem.patch_size
        self.patches = PatchEmbedding(width=width, channels=3 * DEPTH, stem=stem, size=(side, side))
        if stem.patch is not None:
            self.patches.weight = nn.Parameter(inflate(stem.patch, frames=DEPTH))
        self.positions = GridPositions(width=width, stem=stem)
        self.times = TimePositions(width=width, steps=steps)
        self.summary = SummaryToken(width=width, stem=stem)
        for name_, values in (("mean", stem.mean), ("std", stem.std)):
            self.register_buffer(name_, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def lengths(self) -> Mapping[str, range]:
        """A clip is whole tubelets."""
        return {"frames": range(DEPTH, 2**20, DEPTH)}

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the class token and the tubelet tokens of each row; ``clips`` is ``[S, W, T, H, V, 3]`` uint8."""
        mask = masks["clips"]
        clips = mask.flatten(2).any(dim=2)
        rows, samples = fold_rows(inputs["clips"], clips)
        x, real = self.cut(rows, fold_rows(mask, clips)[0])
        if not self.joint:
            steps = real.flatten(2).any(dim=2)  # [R, t]
            real, _ = fold_rows(real, steps)
            x, owners = fold_rows(x, steps)  # [rows, h, w, D]
            samples = samples[owners]
        grid = tuple(x.shape[1:-1])
        x, real = self.summary(x.flatten(1, -2), real.flatten(1))
        return Tokens(x, real, (Span(self.name, 0, x.shape[1], summary=0, grid=grid),), samples)

    def cut(
        self, rows: UInt8[Tensor, "R T H V 3"], mask: Bool[Tensor, "R T H V"]
    ) -> tuple[Float[Tensor, "R t h w D"], Bool[Tensor, "R t h w"]]:
        """Returns a token for each tubelet of clips with an even number of frames, and which are real."""
        count, frames, height, width = mask.shape
        pixels = (rows.permute(0, 1, 4, 2, 3).float() / 255 - self.mean) / self.std  # [R, T, 3, H, V]
        pixels = pixels.reshape(-1, 3 * DEPTH, height, width)  # [R t, 2 x 3, H, V]
        firsts = mask[:, ::DEPTH]
        steps = firsts.flatten(2).any(dim=2)  # [R, t]
        x, real = self.patches(pixels, firsts.reshape(-1, height, width))
        x = (x + self.positions(real)).unflatten(0, (count, frames // DEPTH))
        x = x + self.times(steps)[:, :, None, None]
        return x, real.unflatten(0, (count, frames // DEPTH)) & steps[:, :, None, None]
