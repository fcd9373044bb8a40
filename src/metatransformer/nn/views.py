"""Points as pictures: a cloud seen from several sides without perspective, for an image trunk.

Sources: MVCNN (Su et al. 2015, arXiv 1505.00880) for views; P2P (Wang et al. 2022, arXiv 2208.02812) for a cloud drawn
as pictures for a pretrained vision transformer.

Axes: B batch, V views, P points, C channels, h w pixels. World coordinates are right-handed, z up.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metatransformer.core.modality import Stem, SummaryToken, Tokenizer
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM
from metatransformer.nn.patch import GridPositions, PatchEmbedding

# The radius of a dot is this share of the picture's side over the root of the number of points: a surface of a few
# picture areas then looks closed at any number of points.
SPREAD = 1.0
LARGEST = 6.0  # pixels: beyond it a cloud of a few points only smears
FRONT = 0.03  # of the depth of the picture: what lies so close behind the nearest point shines through


def view_frames(views: Sequence[tuple[float, float, float]]) -> Float[Tensor, "V 3 3"]:
    """Returns for each ``(turn, height, zoom)`` the axes right, up and towards the viewer, as rows of length ``zoom``.

    Angles are in degrees. The viewer stands at ``(cos turn cos height, sin turn cos height, sin height)`` and looks at
    the origin. From straight above (height 90), up in the picture is where a viewer of that turn looks to.
    """
    turn, height, zoom = torch.tensor(views, dtype=torch.float64).reshape(-1, 3).unbind(dim=1)
    turn, height = turn.deg2rad(), height.deg2rad()
    right = torch.stack([-turn.sin(), turn.cos(), torch.zeros_like(turn)], dim=1)
    viewer = torch.stack([turn.cos() * height.cos(), turn.sin() * height.cos(), height.sin()], dim=1)
    up = torch.linalg.cross(viewer, right)
    return (torch.stack([right, up, viewer], dim=1) * zoom[:, None, None]).float()


class Dots:
    """The points of a batch as dots on the pixels of each view.

    What lies outside -1..1 is drawn at the edge. Dots are the larger the fewer points a cloud has.
    """

    def __init__(
        self, points: Float[Tensor, "B P 3"], mask: Bool[Tensor, "B P"], *, frames: Float[Tensor, "V 3 3"], side: int
    ) -> None:
        # No matrix product: autocast would round places to 8 bits.
        seen = (points[:, None, :, None, :] * frames.to(points)[None, :, None]).sum(dim=-1).clamp(-1, 1)
        self.mask, self.side = mask, side
        self.x = ((1 + seen[..., 0]) * ((side - 1) / 2)).round().long()  # [B, V, P]
        self.y = ((1 - seen[..., 1]) * ((side - 1) / 2)).round().long()
        self.depth = (seen[..., 2] + 1) / 2  # 1 is nearest
        count = mask.sum(dim=1).to(points.dtype)
        self.radius = (SPREAD * side / count.sqrt()).clamp(1.0, LARGEST)  # [B]

    def pixels(self) -> Iterator[Int[Tensor, "B V P"]]:
        """Yields which pixel each point fills, for each pixel of the largest dot; ``side ** 2`` is none.

        A dot is walked through pixel by pixel, so that memory follows the number of points alone; in a graph all of it
        is one step, up to the largest dot that there is, ``[B, V, k P]``.
        """
        reach = int(LARGEST if UNIFORM.get() else self.radius.max())
        places = range(-reach, reach + 1)
        if UNIFORM.get():
            dy, dx = torch.cartesian_prod(torch.tensor(places), torch.tensor(places)).T[..., None]  # [k, 1]
            inside = self.mask[:, None] & (dx * dx + dy * dy <= self.radius.square()[:, None, None])  # [B, k, P]
            x, y = ((at[:, :, None] + by).clamp(0, self.side - 1) for at, by in ((self.x, dx), (self.y, dy)))
            yield torch.where(inside[:, None], y * self.side + x, self.side**2).flatten(2)
            return
        for dy in places:
            for dx in places:
                inside = self.mask & (dx * dx + dy * dy <= self.radius.square()).unsqueeze(1)  # [B, P]
                x, y = (self.x + dx).clamp(0, self.side - 1), (self.y + dy).clamp(0, self.side - 1)
                yield torch.where(inside.unsqueeze(1), y * self.side + x, self.side**2)

    def at(self, index: Int[Tensor, "B V n"], values: Float[Tensor, "B V P"]) -> Float[Tensor, "B V n"]:
        """Returns the points' values for each of the pixels that ``pixels`` yielded."""
        return values.repeat(1, 1, (2 * int(LARGEST) + 1) ** 2) if UNIFORM.get() else values

    def empty(self, value: float) -> Float[Tensor, "B V n"]:
        """Returns pictures of one value, flat, with a last place for what is not drawn."""
        return self.depth.new_full((*self.depth.shape[:2], self.side**2 + 1), value)

    def nearest(self) -> Float[Tensor, "B V n"]:
        """Returns the depth of the nearest point on each pixel, -1 where there is none."""
        near = self.empty(-1.0)
        for index in self.pixels():
            near.scatter_reduce_(2, index, self.at(index, self.depth), "amax")
        return near


def draw_depth(dots: Dots) -> Float[Tensor, "B V 3 h w"]:
    """Returns pictures, 0..1, of the shape: red is how near the nearest point of a pixel is, green how far the farthest
    is (both from 1/4 to 1, 0 where there is none), blue how many dots lie behind each other there."""
    near, far, many = dots.nearest(), dots.empty(2.0), dots.empty(0.0)
    one = torch.ones_like(dots.depth)
    for index in dots.pixels():
        far.scatter_reduce_(2, index, dots.at(index, dots.depth), "amin")
        many.scatter_add_(2, index, dots.at(index, one))
    area = torch.pi * dots.radius.square()[:, None, None]
    red = torch.where(many > 0, 0.25 + 0.75 * near, 0.0)
    green = torch.where(many > 0, 1 - 0.75 * far, 0.0)
    blue = (many / (3 * area)).clamp(max=1).sqrt()
    return _pictures([red, green, blue], side=dots.side)


def draw_values(dots: Dots, values: Float[Tensor, "B P C"]) -> Float[Tensor, "B V 3 h w"]:
    """Returns pictures of what the nearest points of each pixel carry, on average: one value (grey) or three (RGB)."""
    near, weight = dots.nearest(), dots.empty(0.0)
    total = [dots.empty(0.0) for _ in range(values.shape[2])]
    for index in dots.pixels():
        front = (dots.at(index, dots.depth) >= near.gather(2, index) - FRONT).to(values.dtype)
        weight.scatter_add_(2, index, front)
        for channel, picture in enumerate(total):
            picture.scatter_add_(2, index, front * dots.at(index, values[:, None, :, channel].expand_as(dots.depth)))
    return _pictures([picture / weight.clamp(min=1) for picture in total], side=dots.side)


def _pictures(channels: list[Tensor], *, side: int) -> Tensor:
    """Returns flat channels, one or three, as RGB."""
    channels = channels * 3 if len(channels) == 1 else channels
    return torch.stack([channel[..., :-1] for channel in channels], dim=2).unflatten(-1, (side, side))


def lay_out(pictures: Float[Tensor, "B V 3 h w"], *, rows: int) -> Float[Tensor, "B 3 H W"]:
    """Returns a sample's pictures as one sheet of ``rows`` rows, filled row by row."""
    grid = pictures.unflatten(1, (rows, -1))  # [B, r, c, 3, h, w]
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(4, 5).flatten(2, 3)


class ViewTokenizer(Tokenizer):
    """Draw the views, lay them out on one sheet, cut it into patches, add positions, put the summary in front.

    ``channels`` lists the number of channels (1 or 3) of each feature behind the coordinates; each adds a sheet of its
    own below that of the shape. ``patches`` is the side of one view.
    """

    axes = 2
    frames: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        views: Sequence[tuple[float, float, float]],
        rows: int,
        patches: int,
        channels: Sequence[int],
        width: int,
        stem: Stem,
    ) -> None:
        super().__init__()
        self.native = stem.patch is not None
        side = stem.patch_size
        self.side, self.rows, self.channels = patches * side, rows, tuple(channels)
        self.patches = PatchEmbedding(width=width, channels=3, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)
        self.register_buffer("frames", view_frames(views), persistent=False)
        for name, values in (("mean", stem.mean), ("std", stem.std)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and the grid of the sheet; ``cloud`` is ``[B, P, 3 + channels]``."""
        sheet = (self.sheet(inputs["cloud"], masks["cloud"]) - self.mean) / self.std
        x, real = self.patches(sheet, torch.ones_like(sheet[:, 0], dtype=torch.bool))
        x = x + self.positions(real).to(x.dtype)
        grid = (x.shape[1], x.shape[2])
        x, mask = self.summary(x.flatten(1, 2), real.flatten(1, 2))
        return Tokens(x, mask, (Span("pointcloud", 0, x.shape[1], summary=0, grid=grid),))

    def sheet(self, cloud: Float[Tensor, "B P C"], mask: Bool[Tensor, "B P"]) -> Float[Tensor, "B 3 H W"]:
        """Returns the picture that is cut, 0..1."""
        dots = Dots(cloud[..., :3], mask, frames=self.frames, side=self.side)
        _, *values = cloud.split([3, *self.channels], dim=2)
        drawn = [draw_depth(dots), *(draw_values(dots, value) for value in values)]
        return torch.cat([lay_out(pictures, rows=self.rows) for pictures in drawn], dim=2)
