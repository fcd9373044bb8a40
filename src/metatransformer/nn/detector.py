"""Detector: boxes from the tokens of a plain trunk, without anchors.

Tokens on one grid become a simple pyramid, finer and coarser by single layers (Li et al. 2022, arXiv 2203.16527): what
a plain trunk gives at every token has seen the whole picture already. Each cell of each level says how sure it is of
every class, and how far the four edges of its object are (Tian et al. 2019, arXiv 1904.01355); its own answers decide
which cells learn an object (Feng et al. 2021, arXiv 2108.07755). Lengths are in tokens: the grid is ``w`` wide and
``h`` high.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metatransformer.core.readout import Readout
from metatransformer.nn.boxes import generous_overlap, inside, overlap, suppress
from metatransformer.nn.grid import GridHead, Mix, doubled

STRIDES = (0.5, 1.0, 2.0, 4.0)  # tokens that a cell of each level is wide
REACH = 2.0  # cells from the middle to each edge of a box before anything is learned
LIKELY = 0.01  # what a fresh head says of every class, so that the many empty cells do not swamp the first steps
TOP = 10  # cells that learn an object
SHARP = 6.0  # how much more a cell's overlap counts than its score when cells are chosen
BOX_WEIGHT = 2.0  # of the loss of boxes beside that of classes
LOOKED_AT = 1000  # answers of a sample that are compared with each other


class Cells(NamedTuple):
    """What all cells of all levels say: log odds of classes ``[B, n, C]``, boxes ``[B, n, 4]`` and which of them are
    real ``[B, n]``; ``middles`` ``[n, 2]`` are where they stand, ``widths`` ``[n]`` how wide they are.
    """

    logits: Tensor
    boxes: Tensor
    real: Tensor
    middles: Tensor
    widths: Tensor


@dataclass(frozen=True)
class Truth:
    """The objects of one picture: boxes ``[m, 4]`` with the numbers of their classes ``[m]``, and regions ``[r, 4]`` of
    which nothing is known.
    """

    boxes: Tensor
    classes: Tensor
    unknown: Tensor


class Detector(nn.Module):
    """``features`` numbers a token in, ``classes`` log odds and a box for each cell of each level out.

    Neighbours speak to each other at the tokens' own grid alone: a finer one has four times the cells, and nothing to
    add that its token has not.
    """

    def __init__(self, features: int, classes: int, *, width: int = 128, depth: int = 2, dropout: float = 0.1) -> None:
        super().__init__()
        narrow = max(1, width // 2)
        self.dropout = nn.Dropout(dropout)
        self.start = nn.Sequential(nn.Linear(features, width), nn.LayerNorm(width), nn.GELU())
        self.mixes = nn.ModuleList(Mix(width) for _ in range(depth))
        self.finer = nn.Linear(width, 4 * narrow)
        self.others = nn.ModuleList(nn.Linear(width, narrow) for _ in STRIDES[1:])
        self.norms = nn.ModuleList(nn.LayerNorm(narrow) for _ in STRIDES)
        self.classes = nn.Linear(narrow, classes)
        self.edges = nn.Linear(narrow, 4)
        self.scales = nn.Parameter(torch.ones(len(STRIDES)))
        nn.init.trunc_normal_(self.classes.weight, std=0.01)
        nn.init.constant_(self.classes.bias, math.log(LIKELY / (1 - LIKELY)))
        nn.init.trunc_normal_(self.edges.weight, std=0.01)
        nn.init.zeros_(self.edges.bias)

    def forward(self, tokens: Float[Tensor, "B h w F"], real: Bool[Tensor, "B h w"]) -> Cells:
        """Returns what every cell says; ``real`` is False in the padding, to the right and below."""
        mask = real[..., None].to(tokens.dtype)
        x = self.start(self.dropout(tokens))
        for mix in self.mixes:
            x = mix(x, mask)
        parts = [self._level(doubled(self.finer(x)), doubled(mask.expand(*mask.shape[:3], 4)), level=0)]
        for level, layer in enumerate(self.others, start=1):
            if level > 1:
                x, mask = _halved(x, mask)
            parts.append(self._level(layer(x), mask, level=level))
        logits, boxes, kept, middles, widths = (list(column) for column in zip(*parts, strict=True))
        return Cells(
            torch.cat(logits, dim=1),
            torch.cat(boxes, dim=1),
            torch.cat(kept, dim=1),
            torch.cat(middles),
            torch.cat(widths),
        )

    def _level(self, x: Tensor, mask: Tensor, *, level: int) -> Cells:
        stride, (height, width) = STRIDES[level], x.shape[1:3]
        x = F.gelu(self.norms[level](x)).flatten(1, 2)  # [B, h, w, C] -> [B, n, C]
        logits, edges = self.classes(x).float(), self.edges(x).float()
        reach = REACH * stride * torch.exp((self.scales[level] * edges).clamp(-5, 5))
        rows, columns = (torch.arange(side, device=x.device, dtype=torch.float32) for side in (height, width))
        down, across = torch.meshgrid((rows + 0.5) * stride, (columns + 0.5) * stride, indexing="ij")
        middles = torch.stack([across.flatten(), down.flatten()], dim=1)  # [n, 2]
        boxes = torch.cat([middles - reach[..., :2], middles + reach[..., 2:]], dim=-1)
        widths = torch.full_like(middles[:, 0], stride)
        return Cells(logits, boxes, mask.flatten(1) > 0, middles, widths)


def _halved(x: Float[Tensor, "B h w C"], mask: Float[Tensor, "B h w 1"]) -> tuple[Tensor, Tensor]:
    """Returns means over 2 x 2 real places, and where there were any."""
    total, share = (
        F.avg_pool2d(y.permute(0, 3, 1, 2), 2, ceil_mode=True).permute(0, 2, 3, 1) for y in (x * mask, mask)
    )
    return total / share.clamp(min=1e-6), (share > 0).to(x)


@torch.no_grad()
def assign(
    scores: Float[Tensor, "n C"], boxes: Float[Tensor, "n 4"], cells: Cells, truth: Truth, real: Bool[Tensor, " n"]
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Returns for each cell the number of the object that it learns, -1 for none, and how sure it should be of it.

    An object is learned by the cells inside it that answer it best; of several objects a cell learns the one that its
    box overlaps most. The best cell of an object should be as sure as its overlap, the others in proportion.
    """
    count, many = len(truth.boxes), len(boxes)
    nothing = torch.full((many,), -1, device=boxes.device), torch.zeros(many, device=boxes.device)
    if not count:
        return nothing
    within = inside(cells.middles, truth.boxes) & real  # [m, n]
    gaps = ((truth.boxes[:, :2] + truth.boxes[:, 2:]) / 2)[:, None] - cells.middles
    distance = gaps.norm(dim=-1) + 1e6 * (~real | (cells.widths > cells.widths.min()))
    within[torch.arange(count), distance.argmin(dim=1)] = True  # an object between the middles of cells
    iou = overlap(truth.boxes[:, None], boxes[None]).clamp(0, 1)  # [m, n]
    fit = scores[:, truth.classes].T * iou**SHARP * within + 1e-12 * within
    best = fit.topk(min(TOP, many), dim=1)
    chosen = torch.zeros_like(fit, dtype=torch.bool).scatter_(1, best.indices, best.values > 0)
    owner = (iou * chosen + chosen).argmax(dim=0)
    taken = chosen.any(dim=0)
    chosen &= torch.nn.functional.one_hot(owner, count).T.bool()
    fit, iou = fit * chosen, iou * chosen
    sure = fit / fit.amax(dim=1, keepdim=True).clamp(min=1e-12) * iou.amax(dim=1, keepdim=True)
    return torch.where(taken, owner, -1), sure.amax(dim=0)


def loss_of(cells: Cells, truths: list[Truth]) -> Tensor:
    """Returns the mean loss of pictures: quality focal loss of classes (Li et al. 2020, arXiv 2006.04388) and
    generalised IoU of boxes, in units of how sure all cells should be together.
    """
    scores = cells.logits.sigmoid()
    classes_loss, boxes_loss, total = cells.logits.new_zeros(()), cells.logits.new_zeros(()), cells.logits.new_zeros(())
    for row, truth in enumerate(truths):
        real = cells.real[row]
        owner, sure = assign(scores[row].detach(), cells.boxes[row].detach(), cells, truth, real)
        wanted, taken = torch.zeros_like(scores[row]), owner >= 0
        wanted[taken, truth.classes[owner[taken]]] = sure[taken]
        counts = real & (taken | ~inside(cells.middles, truth.unknown).any(dim=0))
        focus = (scores[row].detach() - wanted).abs() ** 2
        each = F.binary_cross_entropy_with_logits(cells.logits[row], wanted, reduction="none") * focus
        classes_loss = classes_loss + each[counts].sum()
        if taken.any():
            apart = 1 - generous_overlap(cells.boxes[row][taken], truth.boxes[owner[taken]])
            boxes_loss = boxes_loss + (apart * sure[taken]).sum()
        total = total + sure.sum()
    return (classes_loss + BOX_WEIGHT * boxes_loss) / total.clamp(min=1.0)


class BoxHead(GridHead):
    """A head whose answers are boxes: the tokens of a readout, along few directions, through a ``Detector``."""

    net: Detector

    def __init__(self, readout: Readout, *, classes: int, width: int) -> None:
        super().__init__(readout, outputs=classes)
        self.net = Detector(self.kept, classes, width=width)

    def cells(self, tokens: Float[Tensor, "B h w K"], real: Bool[Tensor, "B h w"]) -> Cells:
        """Returns what every cell says of ``reduced`` tokens, in float32 throughout."""
        with torch.autocast(tokens.device.type, enabled=False):
            return self.net(tokens.float(), real)


def answers_of(
    cells: Cells, row: int, *, most: int, least: float, above: float, soft: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns up to ``most`` boxes ``[k, 4]`` of one sample in tokens, best first, scores and numbers of classes."""
    scores = (cells.logits[row].sigmoid() * cells.real[row][:, None]).flatten()  # [n C]
    top = scores.topk(min(LOOKED_AT, len(scores)))
    sure = top.values >= least
    many = cells.logits.shape[-1]
    places, classes = top.indices[sure] // many, top.indices[sure] % many
    boxes = cells.boxes[row][places]
    kept, told = suppress(boxes, top.values[sure], classes, most=most, above=above, soft=soft)
    good = told >= least
    return boxes[kept[good]], told[good], classes[kept[good]]
