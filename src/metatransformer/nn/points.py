"""Sets of points: farthest-point centres, nearest neighbours, and one token for each neighbourhood.

Nothing depends on the order of the points: the first centre is the point farthest from the middle of all, every later
one the point farthest from the centres before it, and a neighbourhood is read by a maximum.

Sources: Qi et al. 2017 (PointNet++, arXiv 1706.02413) for the sampling; Meta-Transformer section 3.2 (arXiv 2307.10802)
for centres + neighbours as the tokenizer.

Axes: B batch, P points, G groups, K neighbours, C channels, D width.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metatransformer.core.modality import Stem, SummaryToken, Tokenizer
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM

# Per channel: a norm of 2.5 at width 384, as the patch embeddings of focus-s14 have on photographs.
DEVIATION = 0.13


def farthest_points(
    points: Float[Tensor, "B P 3"], mask: Bool[Tensor, "B P"], *, count: int
) -> tuple[Int[Tensor, "B G"], Bool[Tensor, "B G"]]:
    """Returns the indices of ``count`` points, far from each other, and which of these are real.

    A cloud with fewer different points than ``count`` has as many real centres as it has different points. Where two
    points are equally far, the first is taken.
    """
    weights = mask.to(points.dtype).unsqueeze(-1)
    middle = (points * weights).sum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    away = (points - middle).square().sum(dim=-1).masked_fill(~mask, -1.0)  # [B, P]
    rows = torch.arange(points.shape[0], device=points.device)
    chosen, real = [], []
    nearest = torch.full_like(away, torch.inf).masked_fill(~mask, -1.0)
    for number in range(count):
        index = (away if number == 0 else nearest).argmax(dim=1)  # [B]
        # A distance of 0 means that every point is a centre already, or lies upon one.
        real.append(nearest[rows, index] > 0)
        chosen.append(index)
        step = (points - points[rows, index].unsqueeze(1)).square().sum(dim=-1)
        nearest = torch.minimum(nearest, step.masked_fill(~mask, -1.0))
    return torch.stack(chosen, dim=1), torch.stack(real, dim=1)


def nearest_points(
    points: Float[Tensor, "B P 3"], mask: Bool[Tensor, "B P"], centres: Float[Tensor, "B G 3"], *, count: int
) -> tuple[Int[Tensor, "B G K"], Bool[Tensor, "B G K"]]:
    """Returns the indices of the ``count`` real points nearest to each centre, nearest first, and which are real.

    Where a cloud has fewer points than ``count``, the rest is not real.
    """
    # Plain differences: the expansion |a|^2 - 2ab + |b|^2 loses the small distances that matter here.
    distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
    distance = distance.masked_fill(~mask.unsqueeze(1), torch.inf)
    count = count if UNIFORM.get() else min(count, points.shape[1])  # a graph is given as many at least
    found = distance.topk(count, dim=-1, largest=False)
    return found.indices, found.values.isfinite()


def take(values: Float[Tensor, "B P C"], index: Int[Tensor, "B ..."]) -> Float[Tensor, "B ... C"]:
    """Returns the rows of each sample that ``index`` names."""
    rows = torch.arange(values.shape[0], device=values.device).view(-1, *[1] * (index.ndim - 1))
    return values[rows, index]


class GroupEmbedding(nn.Module):
    """Neighbourhoods -> one token each: a shared network, the maximum beside each neighbour, again, the maximum.

    The two steps of PointNet as Point-BERT (Yu et al. 2022, arXiv 2111.14819) stacks them. LayerNorm stands in place of
    batch statistics, so that a cloud's tokens do not depend on its batch, and the last layer behind the maximum, where
    it is computed once a group.
    """

    def __init__(self, *, channels: int, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, 2 * hidden)
        )
        self.own = nn.Linear(2 * hidden, 2 * hidden)
        self.shared = nn.Linear(2 * hidden, 2 * hidden, bias=False)
        self.second = nn.Sequential(nn.LayerNorm(2 * hidden), nn.GELU())
        self.last = nn.Linear(2 * hidden, width)

    def forward(self, x: Float[Tensor, "B G K C"], mask: Bool[Tensor, "B G K"]) -> Float[Tensor, "B G D"]:
        """Returns one token a group; every group must have a real neighbour."""
        x = self.first(x)
        top = self.shared(_maximum(x, mask)).unsqueeze(2)  # [B, G, 1, 2 hidden]
        return self.last(_maximum(self.second(self.own(x) + top), mask))


def _maximum(x: Tensor, mask: Tensor) -> Tensor:
    return x.masked_fill(~mask.unsqueeze(-1), -torch.inf).amax(dim=2)


class GroupTokenizer(Tokenizer):
    """Groups around farthest-point centres, one token each, with the centre's place added.

    ``groups`` is the largest number of tokens, ``neighbours`` how many points a group has, its centre among them.
    """

    hides = True

    def __init__(self, *, groups: int, neighbours: int, channels: int, width: int, stem: Stem) -> None:
        super().__init__()
        self.groups, self.neighbours = groups, neighbours
        self.embedding = GroupEmbedding(channels=3 + channels, width=width)
        self.place = nn.Sequential(nn.Linear(3, 128), nn.GELU(), nn.Linear(128, width))
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, DEVIATION)
        self.summary = SummaryToken(width=width, stem=stem)

    @property
    def lengths(self) -> Mapping[str, range]:
        """A cloud has as many points as a group, at least."""
        return {"p": range(self.neighbours, 2**20)}

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and the groups; ``cloud`` is ``[B, P, 3 + channels]``."""
        cloud, mask = inputs["cloud"], masks["cloud"]
        points, values = cloud[..., :3], cloud[..., 3:]
        with torch.no_grad():
            index, real = farthest_points(points, mask, count=self.groups)
            centres = take(points, index)  # [B, G, 3]
            near, known = nearest_points(points, mask, centres, count=self.neighbours)
        # Groups of a surface shrink with the root of their number; so enlarged, their size is near 1.
        away = (take(points, near) - centres.unsqueeze(2)) * self.groups**0.5
        x = self.embedding(torch.cat([away, take(values, near)], dim=-1), known)
        x, real = self.summary(self.norm(x + self.place(centres)), real)
        return Tokens(x, real, (Span("pointcloud", 0, x.shape[1], summary=0),))
