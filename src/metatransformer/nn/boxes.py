"""Boxes: how much they overlap, and which of those that say the same thing stay.

A box is ``x1, y1, x2, y2``: its left, upper, right and lower edge, in any unit, with ``x1 <= x2`` and ``y1 <= y2``.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

SIGMA = 0.5  # of Soft-NMS: how fast a score falls with the overlap


def areas(boxes: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Returns the area of each box."""
    return (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).prod(dim=-1)


def shared(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Returns the area that boxes have in common, pair by pair."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    return (high - low).clamp(min=0).prod(dim=-1)


def overlap(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Returns intersection over union, pair by pair; 0 where neither box has an area."""
    both = shared(first, second)
    return both / (areas(first) + areas(second) - both).clamp(min=1e-9)


def generous_overlap(first: Float[Tensor, "... 4"], second: Float[Tensor, "... 4"]) -> Float[Tensor, "..."]:
    """Returns the generalised IoU in (-1, 1], which tells boxes that do not touch how far apart they are.

    Source: Rezatofighi et al. 2019 (arXiv 1902.09630).
    """
    both = shared(first, second)
    union = (areas(first) + areas(second) - both).clamp(min=1e-9)
    low, high = torch.minimum(first[..., :2], second[..., :2]), torch.maximum(first[..., 2:], second[..., 2:])
    hull = (high - low).prod(dim=-1).clamp(min=1e-9)
    return both / union - (hull - union) / hull


def suppress(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    classes: Int[Tensor, " n"],
    *,
    most: int,
    above: float,
    soft: bool = False,
) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
    """Returns up to ``most`` boxes, best first, and their scores.

    Of boxes of one class whose IoU is beyond ``above`` the best stays; ``soft`` lowers the scores of the others
    instead, the more the larger the overlap (Soft-NMS, Bodla et al. 2017, arXiv 1704.04503).
    """
    order = scores.argsort(descending=True, stable=True)
    boxes, left = boxes[order], scores[order].clone()
    alike = classes[order][:, None] == classes[order][None, :]
    iou = overlap(boxes[:, None], boxes[None]) * alike
    factor = torch.exp(-(iou**2) / SIGMA) if soft else (iou <= above).to(left)
    kept, told = [], []
    while len(kept) < min(most, len(left)):
        place = int(left.argmax())
        if left[place] <= 0:
            break
        kept.append(place)
        told.append(left[place].clone())
        left *= factor[place]
        left[place] = -1
    if not kept:
        return order[:0], scores[:0]
    return order[torch.tensor(kept)], torch.stack(told)


def inside(points: Float[Tensor, "n 2"], boxes: Float[Tensor, "m 4"]) -> Bool[Tensor, "m n"]:
    """Returns which points lie in which boxes."""
    low, high = points[None] >= boxes[:, None, :2], points[None] <= boxes[:, None, 2:]
    return (low & high).all(dim=-1)
