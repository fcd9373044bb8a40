"""Image: S x S patches by the trunk's own kernel and positions, at any size, with the aspect kept.

File: JPEG, PNG, WebP, TIFF, BMP, GIF (first frame); 8 or 16 bit; grey, RGB, palette, alpha or CMYK.
Tokens: the picture is resized to whole patches (their number near ``(size / S) ** 2``), normalised as the trunk was
trained, cut by the patch kernel; positions are resampled to the real grid; the summary token is the class token.
Sources: Dosovitskiy et al. 2021 (arXiv 2010.11929) for patches; Meta-Transformer section 3.2 (arXiv 2307.10802).
Errors: unreadable or truncated file, zero side, an aspect ratio beyond 16, an array that is not [h, w], [h, w, 1 or 3].
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field
from metatransformer.core.modality import (
    Modality,
    Source,
    Stem,
    SummaryToken,
    Tokenizer,
    Transform,
)
from metatransformer.core.samples import Record, Sample
from metatransformer.core.tokens import Span, Tokens
from metatransformer.nn.patch import GridPositions, PatchEmbedding

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
MAX_ASPECT = 16.0  # beyond it one side would have less than one patch at the default sizes


@dataclass(frozen=True)
class ImageOptions:
    """``size``: side in pixels of a square picture with as many tokens; "auto" learns it from the training pictures.

    ``flip``: training pictures may be mirrored; ``crop``: the smallest share of a side that a training crop keeps
    (1 = no cropping). "auto" takes four times the median side of the training pictures, at least 112 and at most 224
    pixels: small pictures gain from being enlarged, and more than 224 costs more than it brings on a laptop.
    """

    size: int | Literal["auto"] = "auto"
    flip: bool = True
    crop: float = 0.8


class ImageTransform(Transform):
    """Resizes to whole patches. Learns ``side_``, the pixel side of a square picture, unless the options fix it."""

    def __init__(self, options: ImageOptions, stem: Stem) -> None:
        self.options = options
        self.patch = stem.patch_size
        self.side_ = 224 if options.size == "auto" else options.size

    def fit(self, samples: Iterable[Sample]) -> None:
        """Learns the side from at most the first 256 pictures: their median is stable long before."""
        if self.options.size != "auto":
            return
        sides = []
        for sample, _ in zip(samples, range(256), strict=False):
            h, w = sample.inputs["pixels"].shape[:2]
            sides.append((h * w) ** 0.5)
        self.side_ = int(np.clip(4 * np.median(sides), 112, 224))

    def __call__(self, sample: Sample) -> Sample:
        """Returns ``pixels`` [h, w, 3] uint8 whose sides are whole patches."""
        pixels = as_rgb(sample.inputs["pixels"], where=sample.key)
        rows, columns = patch_grid(
            pixels.shape[0], pixels.shape[1], side=self.side_, patch=self.patch, where=sample.key
        )
        size = (columns * self.patch, rows * self.patch)
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)
        return sample.with_inputs({"pixels": np.asarray(resized)})

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Returns a random crop, resized back, mirrored half of the time."""
        pixels = sample.inputs["pixels"]
        h, w = pixels.shape[:2]
        keep = rng.uniform(self.options.crop, 1.0)
        top, left = rng.uniform(0, 1 - keep, size=2)
        box = (left * w, top * h, (left + keep) * w, (top + keep) * h)
        image = Image.fromarray(pixels).resize((w, h), Image.Resampling.BICUBIC, box=box)
        if self.options.flip and rng.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return sample.with_inputs({"pixels": np.asarray(image)})

    def state(self) -> dict[str, Any]:
        """Returns the learned side."""
        return {"side": self.side_}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the learned side."""
        self.side_ = int(state["side"])


def as_rgb(pixels: np.ndarray, *, where: str) -> np.ndarray:
    """Returns ``[h, w, 3]`` uint8 from grey or RGB of 8 or 16 bit; 16 bit is divided by 257.

    Raises:
        DataError: another shape or type, or a side of zero.
    """
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or 0 in pixels.shape:
        raise DataError(
            f"{where}: pixels",
            must="have the shape [h, w], [h, w, 1] or [h, w, 3]",
            found=str(pixels.shape),
        )
    if pixels.dtype == np.uint16:
        pixels = (pixels // 257).astype(np.uint8)
    if pixels.dtype != np.uint8:
        raise DataError(
            f"{where}: pixels",
            must="be uint8 (0..255) or uint16 (0..65535)",
            found=str(pixels.dtype),
            do="Scale the values to 0..255 and convert them with astype('uint8').",
        )
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))


def patch_grid(height: int, width: int, *, side: int, patch: int, where: str) -> tuple[int, int]:
    """Returns rows and columns of patches: about ``(side / patch) ** 2`` in all, in the picture's aspect.

    Raises:
        DataError: one side is more than 16 times the other.
    """
    aspect = height / width
    if not 1 / MAX_ASPECT <= aspect <= MAX_ASPECT:
        raise DataError(
            where,
            must=f"have an aspect ratio of at most {MAX_ASPECT:g}",
            found=f"{height} x {width} pixels",
            do="Cut it into pieces.",
        )
    root = max(side / patch, 1.0)
    return max(1, round(root * aspect**0.5)), max(1, round(root / aspect**0.5))


class ImageTokenizer(Tokenizer):
    """Normalise, cut into patches, add positions, put the class token in front."""

    def __init__(
        self, options: ImageOptions, transform: Transform, width: int, stem: Stem
    ) -> None:
        super().__init__()
        del options, transform
        self.native = stem.patch is not None
        side = stem.patch_size
        self.patches = PatchEmbedding(width=width, channels=3, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)
        self.register_buffer("mean", torch.tensor(stem.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(stem.std)[:, None, None], persistent=False)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the class token and ``h x w`` patch tokens; ``pixels`` is ``[B, H, W, 3]`` uint8."""
        pixels = inputs["pixels"].permute(0, 3, 1, 2).float() / 255  # [B, 3, H, W]
        x, real = self.patches((pixels - self.mean) / self.std, masks["pixels"])
        grid = (x.shape[1], x.shape[2])
        x = (x + self.positions(real)).flatten(1, 2)  # [B, h, w, D] -> [B, h w, D]
        x, mask = self.summary(x, real.flatten(1, 2))
        return Tokens(x, mask, (Span("image", 0, x.shape[1], summary=0, grid=grid),))


def load(record: Record) -> dict[str, np.ndarray]:
    """Returns ``pixels`` as the file or the array has them."""
    if record.path is None:
        return {"pixels": np.asarray(record.value)}
    from metatransformer.io.image import read_image

    return {"pixels": read_image(record.path)}


def features(sample: Sample) -> np.ndarray:
    """Returns the 32 x 32 grey-and-colour thumbnail, flat: the raw pixels of the plain baseline."""
    image = Image.fromarray(sample.inputs["pixels"]).resize((32, 32), Image.Resampling.BOX)
    return np.asarray(image, dtype=np.float32).reshape(-1) / 255


def draw(axes: Any, sample: Sample) -> None:
    """Paints the picture."""
    axes.imshow(sample.inputs["pixels"])
    axes.axis("off")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """Returns a noisy picture of odd size whose stripes run across (even label) or down (odd label)."""
    h, w = int(rng.integers(19, 32)), int(rng.integers(17, 30))
    wave = np.sin(np.arange(h)[:, None] * 0.9 + np.zeros(w))
    if label % 2:
        wave = np.sin(np.arange(w)[None, :] * 0.9 + np.zeros((h, 1)))
    noise = rng.normal(0, 12, size=(h, w, 3))
    return {"pixels": np.clip(128 + 90 * wave[:, :, None] + noise, 0, 255).astype(np.uint8)}


MODALITY = Modality(
    name="image",
    summary="photographs and other RGB or grey pictures of any size",
    source=Source(kind="files", suffixes=SUFFIXES),
    fields={"pixels": Field("h* w* 3", "uint8", unit="grey levels", summary="whole patches")},
    options=ImageOptions,
    load=load,
    transform=ImageTransform,
    tokenizer=ImageTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel, positions and class token of the trunk",
    units="8 or 16 bit per channel",
    defaults={"tune": "head"},
)
