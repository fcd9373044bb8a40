"""Contrastive losses that never hold the similarities of all pairs at once.

Axes: b pairs of this process, B pairs of all processes, E width of the common space. Each process has the rows of its
own pairs against the columns of all; the mean over processes is the loss of the whole batch, and so are the gradients
when they are averaged. Rows are taken in chunks whose similarities are computed again in the backward pass, so memory
grows with B. Pairs of equal ``labels`` (the same caption) are all right answers to each other.

Sources: InfoNCE as in CLIP (arXiv 2103.00020, figure 3), local loss and gathering as in OpenCLIP; the sigmoid loss of
SigLIP (arXiv 2303.15343, algorithm 1).
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from metatransformer.infer.loader import Place

LossName = Literal["infonce", "sigmoid"]
RowLoss = Callable[[Tensor, Bool[Tensor, "c B"]], Tensor]  # similarities and which are right -> sum over rows


def contrast(
    left: Float[Tensor, "b E"],
    right: Float[Tensor, "b E"],
    *,
    kind: LossName,
    scale: Float[Tensor, ""],
    bias: Float[Tensor, ""] | None,
    labels: Int[Tensor, " b"],
    chunk: int,
    place: Place,
) -> Float[Tensor, ""]:
    """Returns this process's part of the loss of unit vectors; similarities are ``scale * cosine + bias``.

    InfoNCE looks both ways, from left to right and back; the sigmoid loss is the same both ways.
    """
    everyone, rights = gather(labels, place), gather(right, place)
    row_loss = _infonce if kind == "infonce" else _sigmoid
    loss = _by_rows(left, rights, labels, everyone, scale, bias, row_loss, chunk)
    if kind == "sigmoid":
        return loss
    return (loss + _by_rows(right, gather(left, place), labels, everyone, scale, bias, row_loss, chunk)) / 2


def _by_rows(
    rows: Tensor,
    columns: Tensor,
    own: Tensor,
    everyone: Tensor,
    scale: Tensor,
    bias: Tensor | None,
    row_loss: RowLoss,
    chunk: int,
) -> Tensor:
    """Returns the mean over rows of what ``row_loss`` says of them, a chunk at a time."""

    def part(some: Tensor, labels: Tensor, columns: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        near = scale * some @ columns.T  # [c, B]
        return row_loss(near if bias is None else near + bias, labels[:, None] == everyone)

    total = torch.zeros((), device=rows.device)
    for some, labels in zip(rows.split(chunk), own.split(chunk), strict=True):
        given = (some, labels, columns, scale, bias)
        total = total + checkpoint(part, *given, use_reentrant=False, preserve_rng_state=False)
    return total / len(rows)


def _infonce(near: Tensor, right: Tensor) -> Tensor:
    """Cross entropy with the right answers alike: log of the sum over all, less the mean over the right ones."""
    mean = (near * right).sum(dim=1) / right.sum(dim=1)
    return (near.logsumexp(dim=1) - mean).sum()


def _sigmoid(near: Tensor, right: Tensor) -> Tensor:
    """Each pair for itself: is it right or not."""
    return -F.logsigmoid(torch.where(right, near, -near)).sum()


def gather(x: Tensor, place: Place) -> Tensor:
    """Returns what all processes have, in their order; gradients find their way back to where each part is from."""
    if place.world == 1:
        return x
    if x.requires_grad:
        return _Gather.apply(x, place)
    return _gathered(x, place)


def _gathered(x: Tensor, place: Place) -> Tensor:
    parts = [torch.empty_like(x) for _ in range(place.world)]
    dist.all_gather(parts, x.contiguous())
    return torch.cat(parts)


class _Gather(torch.autograd.Function):
    """Gathers; the gradient of a part is the sum of what all processes say of it (gloo cannot reduce and scatter)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, place: Place) -> Tensor:
        ctx.place = place
        return _gathered(x, place)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total.chunk(ctx.place.world)[ctx.place.rank], None
