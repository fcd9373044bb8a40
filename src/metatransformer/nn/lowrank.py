"""Low-rank adapters: a small learned correction beside a frozen linear layer.

Source: Hu et al. 2021, LoRA (arXiv 2106.09685), section 4.1. The correction is added by a hook, so that neither the
names nor the bytes of the frozen layer change.
"""

from collections.abc import Mapping

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


class Adapters(nn.Module):
    """One ``LowRank`` beside each linear layer of ``trunk`` whose own name is in ``TARGETS``, up to block ``depth``."""

    def __init__(self, trunk: nn.Module, *, rank: int, depth: int) -> None:
        super().__init__()
        self.rank = rank
        self.layers = nn.ModuleDict()
        for name, module in trunk.named_modules():
            parts = name.split(".")
            if isinstance(module, nn.Linear) and parts[-1] in TARGETS and int(parts[1]) < depth:
                adapter = LowRank(module, rank=rank)
                self.layers[name.replace(".", "/")] = adapter
                module.register_forward_hook(_Adds(adapter))

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


class _Adds:
    """The hook that adds an adapter's correction: an object, since pickle and ``deepcopy`` do not follow closures."""

    def __init__(self, adapter: LowRank) -> None:
        self.adapter = adapter

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        del module
        return output + self.adapter(inputs[0])
