"""Two towers: a picture and a text become vectors of one space, by the trunk's own blocks.

Axes: B samples, N tokens, t places of a text, D width, E width of the common space, p patch side in pixels.
Sources: CLIP (arXiv 2103.00020) for both towers and their start; FLIP (arXiv 2212.00794) for patches that are left out;
SigLIP (arXiv 2303.15343) for the sigmoid loss's bias and the pooling by attention.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metatransformer.core.modality import Stem
from metatransformer.nn.block import MLP, Mask
from metatransformer.nn.image import PictureTokenizer
from metatransformer.trunk.encoder import EncoderConfig, Trunk

MOST_SCALE = 100.0  # CLIP: beyond it training became unstable
START = {"infonce": (1 / 0.07, None), "sigmoid": (10.0, -10.0)}  # scale and bias of each loss, as published


@dataclass(frozen=True)
class VisionConfig:
    """``size`` and ``patch`` are sides in pixels; ``outputs`` is E. ``pool`` is how tokens become a vector.

    "summary" maps the class token (CLIP); "attention" asks all patches with one learned query and has no class token
    and no map (SigLIP).
    """

    trunk: EncoderConfig
    patch: int
    size: int
    outputs: int
    pool: Literal["summary", "attention"] = "summary"


@dataclass(frozen=True)
class TextConfig:
    """``words`` numbers are known, ``context`` places can be read; ``end`` is the number that ends every text.

    ``causal`` lets no token see what follows it. ``pool`` "end" takes the first ``end`` of a text, "last" its last
    place, padding and all (SigLIP). ``bias`` is that of the map to E.
    """

    trunk: EncoderConfig
    words: int
    context: int
    outputs: int
    end: int
    causal: bool = True
    pool: Literal["end", "last"] = "end"
    bias: bool = False


def through(trunk: Trunk, x: Float[Tensor, "B N D"], mask: Mask | None, *, saving: bool) -> Float[Tensor, "B N D"]:
    """Returns the normalised tokens after all blocks; ``saving`` computes each block again in the backward pass."""
    x = trunk.norm_pre(x)
    for block in trunk.blocks:
        x = checkpoint(block, x, mask, use_reentrant=False) if saving else block(x, mask)
    return trunk.norm(x)


class AttentionPool(nn.Module):
    """One learned query over all patches, then an MLP beside it (SigLIP); the names are those of transformers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, config.width) * config.width**-0.5)
        self.attention = nn.MultiheadAttention(config.width, config.heads, batch_first=True)
        self.layernorm = nn.LayerNorm(config.width, eps=config.eps)
        self.mlp = MLP(width=config.width, hidden=config.hidden, activation=config.activation)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B D"]:
        """Returns a vector a sample."""
        x, _ = self.attention(self.probe.expand(len(x), -1, -1), x, x, need_weights=False)
        return (x + self.mlp(self.layernorm(x)))[:, 0]


class VisionTower(nn.Module):
    """The picture front end of every image model here, the trunk (a new one unless one is given), and E numbers."""

    def __init__(self, config: VisionConfig, *, stem: Stem, trunk: Trunk | None = None) -> None:
        super().__init__()
        self.config = config
        width = config.trunk.width
        self.front = PictureTokenizer(name="image", channels=3, width=width, stem=stem)
        self.trunk = Trunk(config.trunk) if trunk is None else trunk
        summary = config.pool == "summary"
        self.out = nn.Linear(width, config.outputs, bias=False) if summary else AttentionPool(config.trunk)

    def forward(
        self, pixels: UInt8[Tensor, "B H W 3"], *, kept: Int[Tensor, "B k"] | None = None, saving: bool = False
    ) -> Float[Tensor, "B E"]:
        """Returns a vector a picture; of its patches only those of the numbers ``kept`` are looked at."""
        real = torch.ones(pixels.shape[:3], dtype=torch.bool, device=pixels.device)
        x = self.front({"pixels": pixels}, {"pixels": real}).x  # [B, 1 + N, D]
        if kept is not None:
            patches = x[:, 1:].gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
            x = torch.cat([x[:, :1], patches], dim=1)
        if isinstance(self.out, AttentionPool):
            return self.out(through(self.trunk, x[:, 1:], None, saving=saving))
        return self.out(through(self.trunk, x, None, saving=saving)[:, 0])

    def stem(self) -> Stem:
        """Returns the front end as it is saved with a trunk."""
        front = self.front
        token = front.summary.token.detach() if self.config.pool == "summary" else None
        return Stem(
            patch=front.patches.weight.detach(),
            bias=front.patches.bias.detach(),
            positions=front.positions.table.detach(),
            class_token=token,
            mean=_three(front.mean),
            std=_three(front.std),
        )


def _three(values: Tensor) -> tuple[float, float, float]:
    red, green, blue = (round(value, 8) for value in values.flatten().tolist())
    return red, green, blue


class TextTower(nn.Module):
    """Numbers of sub-words -> embeddings + places -> blocks -> the vector where the text ends."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.words = nn.Embedding(config.words, config.trunk.width)
        self.places = nn.Parameter(torch.empty(config.context, config.trunk.width))
        self.trunk = Trunk(config.trunk)
        self.out = nn.Linear(config.trunk.width, config.outputs, bias=config.bias)

    def forward(self, ids: Int[Tensor, "B t"], *, saving: bool = False) -> Float[Tensor, "B E"]:
        """Returns a vector a text. What stands behind the first ``end`` changes nothing, unless ``pool`` is "last"."""
        b, t = ids.shape
        x = self.words(ids) + self.places[:t]
        to_end = self.config.pool == "end"
        ends = (ids == self.config.end).int().argmax(dim=1) if to_end else ids.new_full((b,), t - 1)
        places = torch.arange(t, device=ids.device)
        mask = None
        if self.config.causal:
            mask = (places[:, None] >= places).expand(b, t, t)
        elif to_end:
            mask = places <= ends[:, None]
        x = through(self.trunk, x, mask, saving=saving)
        return self.out(x[torch.arange(b, device=ids.device), ends])


class Towers(nn.Module):
    """Both towers, and what turns cosines into similarities: a scale and, for the sigmoid loss, a bias."""

    def __init__(self, vision: VisionTower, text: TextTower, *, loss: str = "infonce") -> None:
        super().__init__()
        self.vision, self.text = vision, text
        scale, bias = START[loss]
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.bias = None if bias is None else nn.Parameter(torch.tensor(bias))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied by."""
        return self.log_scale.clamp(max=math.log(MOST_SCALE)).exp()

    def of_pictures(
        self, pixels: UInt8[Tensor, "B H W 3"], *, kept: Int[Tensor, "B k"] | None = None, saving: bool = False
    ) -> Float[Tensor, "B E"]:
        """Returns a vector of length 1 a picture, in float32."""
        return F.normalize(self.vision(pixels, kept=kept, saving=saving).float(), dim=1)

    def of_texts(self, ids: Int[Tensor, "B t"], *, saving: bool = False) -> Float[Tensor, "B E"]:
        """Returns a vector of length 1 a text, in float32."""
        return F.normalize(self.text(ids, saving=saving).float(), dim=1)


def draw_towers(vision: VisionConfig, text: TextConfig, *, pixels: Stem, loss: str, seed: int) -> Towers:
    """Returns new towers as CLIP begins them; ``pixels`` lends mean and deviation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width, side = vision.trunk.width, vision.size // vision.patch
        stem = Stem(
            patch=torch.randn(width, 3, vision.patch, vision.patch) * (3 * vision.patch**2) ** -0.5,
            positions=torch.randn(side, side, width) * width**-0.5,
            class_token=torch.randn(width) * width**-0.5,
            mean=pixels.mean,
            std=pixels.std,
        )
        towers = Towers(VisionTower(vision, stem=stem), TextTower(text), loss=loss)
        for trunk in (towers.vision.trunk, towers.text.trunk):
            _draw_blocks(trunk)
        nn.init.normal_(towers.text.words.weight, std=0.02)
        nn.init.normal_(towers.text.places, std=0.01)
        for out in (towers.vision.out, towers.text.out):
            if isinstance(out, nn.Linear):
                nn.init.normal_(out.weight, std=out.in_features**-0.5)
    return towers


def _draw_blocks(trunk: Trunk) -> None:
    """Draws the blocks: what adds to the stream is less, the more there is to add."""
    width, deep = trunk.config.width**-0.5, (2 * max(1, trunk.config.depth)) ** -0.5
    stds = {"attn.qkv": width, "attn.proj": width * deep, "mlp.fc1": width * 2**-0.5, "mlp.fc2": width * deep}
    for name, layer in trunk.blocks.named_modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=stds[name.partition(".")[2]])
            nn.init.zeros_(layer.bias)
