"""Views: where a point falls in a picture, what colours say, and that the order of points says nothing."""

import numpy as np
import pytest
import torch

from metatransformer.core.modality import Stem
from metatransformer.nn.views import Dots, ViewTokenizer, draw_depth, draw_values, lay_out, view_frames

FRONT, SIDE, TOP, CORNER = (-90.0, 0.0, 1.0), (0.0, 0.0, 1.0), (-90.0, 90.0, 1.0), (-50.0, 30.0, 0.5)


def dots(points: list[list[float]], *, views=(FRONT,), side: int = 21, copies: int = 997) -> Dots:
    """The points once, and so often again that dots are one pixel wide and a plus around it."""
    x = torch.tensor([points * (copies // len(points))])
    return Dots(x, torch.ones(x.shape[:2], dtype=torch.bool), frames=view_frames(views), side=side)


def test_frames_are_right_handed():
    frames = view_frames([FRONT, SIDE, TOP, CORNER])
    zoom = torch.tensor([1, 1, 1, 0.5])
    torch.testing.assert_close(frames @ frames.mT, torch.eye(3) * zoom.square()[:, None, None], atol=1e-6, rtol=0)
    torch.testing.assert_close(torch.linalg.det(frames), zoom**3)
    # From the front (the -y side): x to the right, z up, the viewer at -y.
    torch.testing.assert_close(frames[0], torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]), atol=1e-6, rtol=0)
    # From above: x to the right, y up.
    torch.testing.assert_close(frames[2], torch.eye(3), atol=1e-6, rtol=0)


def test_a_point_falls_where_it_stands():
    picture = draw_depth(dots([[1.0, 0.0, 0.5]]))[0, 0]
    assert picture.shape == (3, 21, 21)
    hit = picture[0] > 0
    assert hit[5, 20] and hit[4, 20] and hit[5, 19] and not hit[4, 19] and hit.sum() == 4  # a plus at the edge
    above = draw_depth(dots([[0.0, 1.0, 0.5]], views=(TOP,)))[0, 0]
    assert above[0, 0, 10] > 0


def test_red_is_near_green_is_far_blue_is_many():
    # Seen from the front, one place at depths 1 (y = -1) and 0.25 (y = 0.5).
    red, green, blue = draw_depth(dots([[0, -1.0, 0], [0, 0.5, 0]]))[0, 0, :, 10, 10].tolist()
    assert red == pytest.approx(1.0)
    assert green == pytest.approx(1 - 0.75 * 0.25)
    assert blue == 1
    empty = draw_depth(dots([[0, -1.0, 0]]))[0, 0, :, 0, 0]
    assert empty.tolist() == [0, 0, 0]


def test_what_lies_outside_is_drawn_at_the_edge():
    picture = draw_depth(dots([[7.0, 0.0, -9.0]]))[0, 0, 0]
    assert picture[20, 20] > 0 and (picture > 0).sum() == 3


def test_dots_are_larger_where_points_are_few():
    few = draw_depth(dots([[0.0, 0, 0]], copies=16, side=41))[0, 0, 0]
    assert (few > 0).sum() == sum(x * x + y * y <= 36 for x in range(-6, 7) for y in range(-6, 7))


def test_values_of_the_nearest_points_are_drawn():
    points = [[0, -1.0, 0], [0, 0.5, 0], [0.5, 0, 0.0]]
    one = dots(points, copies=999)
    values = torch.tensor([[0.3], [0.9], [0.7]]).repeat(333, 1)[None]
    picture = draw_values(one, values)[0, 0]
    torch.testing.assert_close(picture[:, 10, 10], torch.full((3,), 0.3))
    torch.testing.assert_close(picture[:, 10, 15], torch.full((3,), 0.7))
    colours = torch.eye(3).repeat(333, 1)[None]
    torch.testing.assert_close(draw_values(one, colours)[0, 0, :, 10, 10], torch.tensor([1.0, 0, 0]))


def test_views_lie_row_by_row():
    pictures = torch.arange(4.0).reshape(1, 4, 1, 1, 1).expand(1, 4, 3, 2, 5)
    sheet = lay_out(pictures, rows=2)
    assert sheet.shape == (1, 3, 4, 10)
    np.testing.assert_array_equal(sheet[0, 0, ::2, ::5], [[0, 1], [2, 3]])


def tokenizer(*channels: int) -> ViewTokenizer:
    torch.manual_seed(0)
    return ViewTokenizer(views=(FRONT, SIDE, TOP, CORNER), rows=2, patches=3, channels=channels, width=19, stem=Stem())


def test_a_sheet_is_cut_into_tokens_that_follow_no_order():
    x = torch.rand(2, 61, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    order = torch.randperm(61, generator=torch.Generator().manual_seed(1))
    one, two = (tokenizer()({"cloud": y}, {"cloud": torch.ones(2, 61, dtype=torch.bool)}) for y in (x, x[:, order]))
    assert one.x.shape == (2, 37, 19) and one.spans[0].grid == (6, 6) and one.spans[0].summary == 0
    torch.testing.assert_close(one.x, two.x, atol=0, rtol=0)


def test_each_feature_adds_a_sheet_below():
    x = torch.rand(1, 61, 7, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 61, dtype=torch.bool)
    sheet = tokenizer(3, 1).sheet(x, mask)
    assert sheet.shape == (1, 3, 3 * 96, 96)
    torch.testing.assert_close(sheet[:, :, :96], tokenizer().sheet(x[..., :3], mask))
    assert (sheet[:, 0, 192:] == sheet[:, 1, 192:]).all()  # one channel is grey


def test_places_are_not_rounded_by_autocast():
    x = torch.rand(1, 61, 3, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(1, 61, dtype=torch.bool)
    plain = tokenizer().sheet(x, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(tokenizer().sheet(x, mask), plain, atol=0, rtol=0)


def test_padding_is_not_drawn():
    x = torch.rand(1, 61, 3, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([x, torch.full((1, 7, 3), 0.5)], dim=1)
    alone = tokenizer().sheet(x, torch.ones(1, 61, dtype=torch.bool))
    torch.testing.assert_close(tokenizer().sheet(padded, torch.arange(68)[None] < 61), alone, atol=0, rtol=0)
