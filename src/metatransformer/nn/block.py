"""The transformer block of the trunk: pre-LN attention and MLP, with layer scale where known weights need it.

Axes: B batch, N tokens, D width, H heads. The mask is a key-padding mask ``[B, N]``, True = real token, or
``[B, N, N]``, which says of each token (the middle axis) what it may see.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metatransformer.nn.lowrank import Corrections


def quick_gelu(x: Tensor) -> Tensor:
    """Returns ``x * sigmoid(1.702 x)``, the activation of OpenAI's original CLIP weights."""
    return x * torch.sigmoid(1.702 * x)


def tanh_gelu(x: Tensor) -> Tensor:
    """Returns GELU in its tanh approximation."""
    return F.gelu(x, approximate="tanh")


Mask = Bool[Tensor, "B N"] | Bool[Tensor, "B N N"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": tanh_gelu,
    "quick_gelu": quick_gelu,
}


def attend(q: Tensor, k: Tensor, v: Tensor, keys: Tensor | None) -> Tensor:
    """Returns ``softmax(q k / sqrt(d)) v`` over ``[B, H, N, d]``; ``keys`` ``[B, 1, 1 or N, N]`` is True for real keys.

    The fused kernel everywhere, except where gradients flow on a CPU: there its backward pass in bfloat16 takes about
    ten times as long as the three plain products (15 tokens x 256 samples: 232 ms against 24 ms; torch 2.13).
    """
    if not (q.requires_grad and q.device.type == "cpu"):
        return F.scaled_dot_product_attention(q, k, v, attn_mask=keys)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, H, N, N]
    if keys is not None:
        scores = scores.masked_fill(~keys, float("-inf"))
    return scores.softmax(dim=-1).to(v.dtype) @ v


class Attention(nn.Module):
    """Multi-head self-attention with one fused projection for query, key and value."""

    def __init__(self, *, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Mask | None, low_rank: Corrections | None = None
    ) -> Float[Tensor, "B N D"]:
        """Returns the attended tokens; ``mask`` None means that every token is real."""
        b, n, d = x.shape
        qkv = self.qkv(x) if low_rank is None else self.qkv(x) + low_rank.qkv(x)
        q, k, v = qkv.reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # [3, B, H, N, D/H]
        keys = None if mask is None else mask.reshape(b, 1, -1, n)  # [B, 1, 1 or N, N]
        x = attend(q, k, v, keys).transpose(1, 2).reshape(b, n, d)
        return self.proj(x) if low_rank is None else self.proj(x) + low_rank.proj(x)


class MLP(nn.Module):
    """Two linear layers with the activation between them."""

    def __init__(self, *, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = ACTIVATIONS[activation]
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Returns the transformed tokens, each on its own."""
        return self.fc2(self.activation(self.fc1(x)))


class LayerScale(nn.Module):
    """One learned factor per channel on a residual branch (DINOv2)."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        """Returns the scaled branch."""
        return x * self.gamma


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))`` (PAPER equations 8 and 9)."""

    def __init__(
        self,
        *,
        width: int,
        heads: int,
        hidden: int,
        eps: float,
        activation: str,
        layer_scale: bool,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width=width, heads=heads)
        self.ls1 = LayerScale(width=width) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width=width, hidden=hidden, activation=activation)
        self.ls2 = LayerScale(width=width) if layer_scale else nn.Identity()

    def forward(
        self, x: Float[Tensor, "B N D"], mask: Mask | None, low_rank: Corrections | None = None
    ) -> Float[Tensor, "B N D"]:
        """Returns the tokens after this block."""
        x = x + self.ls1(self.attn(self.norm1(x), mask, low_rank))
        return x + self.ls2(self.mlp(self.norm2(x)))
