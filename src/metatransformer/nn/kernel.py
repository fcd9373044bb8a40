"""A Gaussian kernel on pooled features: what a linear head on them cannot say, still in closed form.

Sources: Schoelkopf and Smola 2002, "Learning with Kernels" (kernel ridge regression); Williams and Seeger 2001 (a part
of the samples as centres, after Nystroem).
"""

from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metatransformer.core.uniform import UNIFORM

ROWS = 4096  # at once: what is computed in float64 would fill the memory where there are many samples


def nearness(x: Float[Tensor, "B F"], centres: Float[Tensor, "M F"], *, gamma: float) -> Float[Tensor, "B M"]:
    """Returns ``F exp(-gamma d^2 / F)`` with ``d`` the distance between each row and each centre.

    For standardised features ``d^2 / F`` is about 2, whatever their number, so one ``gamma`` suits all. The factor
    ``F`` gives the kernel the size of the linear one, so that the same penalties suit both.
    """
    features = x.shape[1]
    squares = x.square().sum(dim=1)[:, None] + centres.square().sum(dim=1) - 2 * (x @ centres.T)
    return features * torch.exp(squares.clamp(min=0) * (-gamma / features))


class KernelLayer(nn.Module):
    """``nearness(x, centres) @ weight.T + bias``; the centres are features of training samples, in half precision."""

    centres: Tensor

    def __init__(self, features: int, outputs: int, *, centres: int, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("centres", torch.zeros(centres, features, dtype=torch.half))
        self.weight = nn.Parameter(torch.zeros(outputs, centres))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B C"]:
        """Returns the outputs, in float32 throughout: differences of large numbers do not survive bfloat16."""
        with torch.autocast(x.device.type, enabled=False) if not UNIFORM.get() else nullcontext():
            near = nearness(x.float(), self.centres.float(), gamma=self.gamma)
            return near @ self.weight.T + self.bias


def drawn(count: int, *, most: int, seed: int) -> Tensor:
    """Returns the places, rising, of up to ``most`` of ``count`` rows."""
    if count <= most:
        return torch.arange(count)
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most].sort().values


class Landmarks:
    """The kernel as features: ``map(x) @ map(y).T`` is the kernel between the centres, and approximates it elsewhere.

    Up to ``most`` rows of ``x`` [n, F] are the centres, drawn by ``seed``; with all rows nothing is approximated.
    """

    def __init__(self, x: Float[Tensor, "N F"], *, most: int, gamma: float, seed: int) -> None:
        self.gamma = gamma
        self.centres = x[drawn(len(x), most=most, seed=seed)].half()
        # In float64: rounding would leave directions of negative length, of which there are no roots. Samples that are
        # there twice would leave one without any.
        self._rows = self.centres.double()
        between = nearness(self._rows, self._rows, gamma=gamma)
        between.diagonal().add_(1e-6 * x.shape[1])
        self._root = torch.linalg.cholesky(between)

    def map(self, x: Float[Tensor, "B F"]) -> Float[Tensor, "B M"]:
        """Returns the features that stand for the kernel."""
        return torch.cat([self._map(rows) for rows in x.split(ROWS)])

    def _map(self, x: Tensor) -> Tensor:
        near = nearness(x.double(), self._rows, gamma=self.gamma)
        return torch.linalg.solve_triangular(self._root, near.T, upper=False).T.float()

    def unmap(self, weight: Float[Tensor, "C M"]) -> Float[Tensor, "C M"]:
        """Returns weights on ``nearness`` that answer as ``weight`` does on ``map``."""
        return torch.linalg.solve_triangular(self._root.T, weight.double().T, upper=True).T.float()
