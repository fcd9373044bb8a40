"""Low-rank adapters: a small learned correction beside a frozen linear layer.

Source: Hu et al. 2021, LoRA (arXiv 2106.09685), section 4.1. The trunk gets them with each call and knows nothing of
them in between, so that models with different adapters share one trunk.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

TARGETS = ("qkv", "proj")  # the two projections of attention, which the source adapts
ALPHA = 2.0  # the correction's scale is alpha * rank / rank: as common, alpha is twice the rank


class LowRank(nn.Module):
    """``x -> scale * up(down(x))``; ``up`` starts at zero, so that nothing changes before training."""

    def __init__(self, linear: nn.Linear, *, rank: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, linear.in_features))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the correction ``[..., out]`` for the layer's input ``[..., in]``."""
        return ALPHA * nn.functional.linear(nn.functional.linear(x, self.down), self.up)


class Corrections(NamedTuple):
    """What is added in one block, by the name in ``TARGETS`` of the layer that it is added to."""

    qkv: LowRank
    proj: LowRank


class Adapters(nn.Module):
    """One ``LowRank`` for each layer in ``TARGETS`` of the first ``depth`` blocks of ``trunk``."""

    def __init__(self, trunk: nn.Module, *, rank: int, depth: int) -> None:
        super().__init__()
        self.rank = rank
        self.depth = depth
        self.layers = nn.ModuleDict()
        for name in (f"blocks.{number}.attn.{target}" for number in range(depth) for target in TARGETS):
            linear = trunk.get_submodule(name)
            assert isinstance(linear, nn.Linear)
            self.layers[name.replace(".", "/")] = LowRank(linear, rank=rank)

    def of_block(self, number: int) -> Corrections | None:
        """Returns what is added in a block, counted from 0; None behind the last one that is adapted."""
        if number >= self.depth:
            return None
        qkv, proj = (self.layers[f"blocks/{number}/attn/{target}"] for target in TARGETS)
        assert isinstance(qkv, LowRank) and isinstance(proj, LowRank)
        return Corrections(qkv, proj)

    def tensors(self) -> dict[str, Tensor]:
        """Returns the parameters under the names of PEFT's file format."""
        found = {}
        for name, layer in self.layers.items():
            assert isinstance(layer, LowRank)
            base = f"base_model.model.{name.replace('/', '.')}"
            found |= {f"{base}.lora_A.weight": layer.down.data, f"{base}.lora_B.weight": layer.up.data}
        return found

    @torch.no_grad()
    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies what ``tensors`` returned; the names and shapes must be these adapters' own.

        Raises:
            ValueError: they are not.
        """
        own = self.tensors()
        shapes = {name: tuple(t.shape) for name, t in tensors.items()}
        if shapes != {name: tuple(t.shape) for name, t in own.items()}:
            raise ValueError("other adapters than the recipe's")
        for name, tensor in own.items():
            tensor.copy_(tensors[name])

    def config(self) -> dict[str, object]:
        """Returns PEFT's description of these adapters."""
        return {
            "peft_type": "LORA",
            "r": self.rank,
            "lora_alpha": ALPHA * self.rank,
            "target_modules": list(TARGETS),
            "bias": "none",
        }
