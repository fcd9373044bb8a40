"""Linear layers whose weights are whole numbers of 8 bits.

Torch computes them in floating point, as accurate as what is left of the weights. OpenVINO knows the pattern (whole
numbers, converted, times a scale) and multiplies in 8 bits what a token brings, too, in groups that have a scale each.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

LARGEST = 127  # -128 is left out, so that the numbers lie alike on both sides of 0


class Int8Linear(nn.Module):
    """``x @ (scales * levels).T + bias``; ``levels`` [out, in] int8, ``scales`` [out, 1], one for each output."""

    levels: Tensor
    scales: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight = linear.weight.detach()
        scales = weight.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(weight.dtype).tiny) / LARGEST
        self.register_buffer("levels", (weight / scales).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.bias = linear.bias

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        """Returns the outputs, by the weights that the levels stand for."""
        return nn.functional.linear(x, self.levels.to(x.dtype) * self.scales, self.bias)


def with_int8(layers: nn.Module) -> nn.Module:
    """Returns a copy of layers whose linear ones hold 8-bit weights."""
    layers = copy.deepcopy(layers)
    for module in list(layers.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return layers
