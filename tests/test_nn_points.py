"""Points: farthest-point centres, neighbours, and groups that follow no order."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from metatransformer.core.modality import Stem
from metatransformer.nn.points import GroupTokenizer, farthest_points, nearest_points, take


def cloud(count: int, *, batch: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed))


def everything(points: torch.Tensor) -> torch.Tensor:
    return torch.ones(points.shape[:2], dtype=torch.bool)


def test_centres_by_hand():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [5, 0, 0], [9, 0, 0], [4, 0, 0]]])
    index, real = farthest_points(points, everything(points), count=4)
    # The middle is 3.8: 9 is farthest; then 0; then 5 and 4 are 4 away from 9 and 0, and the first of them is taken.
    assert index.tolist() == [[3, 0, 2, 1]] and real.all()


def test_centres_against_a_plain_loop():
    points = cloud(53)
    index, real = farthest_points(points, everything(points), count=17)
    for row, x in zip(index, points.double().numpy(), strict=True):
        chosen = [int(np.linalg.norm(x - x.mean(axis=0), axis=1).argmax())]
        while len(chosen) < 17:
            chosen.append(int(np.linalg.norm(x[:, None] - x[chosen], axis=2).min(axis=1).argmax()))
        assert row.tolist() == chosen
    assert real.all()


def test_padding_is_never_a_centre_nor_a_neighbour():
    points = torch.cat([cloud(11), torch.full((2, 7, 3), 99.0)], dim=1)
    mask = torch.arange(18).expand(2, 18) < 11
    index, real = farthest_points(points, mask, count=13)
    assert real[:, :11].all() and not real[:, 11:].any()
    assert sorted(index[0, :11].tolist()) == list(range(11))
    near, known = nearest_points(points, mask, take(points, index[:, :5]), count=13)
    assert known.sum(dim=-1).eq(11).all() and (near[known] < 11).all()


def test_points_upon_each_other_are_one_centre():
    points = cloud(5).repeat(1, 4, 1)
    index, real = farthest_points(points, everything(points), count=9)
    assert real.sum(dim=1).tolist() == [5, 5]
    same = torch.zeros(1, 7, 3)
    assert farthest_points(same, everything(same), count=3)[1].tolist() == [[True, False, False]]


def test_neighbours_against_a_tree():
    points = cloud(97) + 300  # far from the origin, where products would lose the differences
    centres = points[:, :13]
    near, known = nearest_points(points, everything(points), centres, count=11)
    assert known.all()
    for row, x, c in zip(near, points.double().numpy(), centres.double().numpy(), strict=True):
        np.testing.assert_array_equal(np.sort(row.numpy()), np.sort(cKDTree(x).query(c, k=11)[1]))


def test_take_follows_the_index():
    values = torch.arange(30.0).reshape(2, 5, 3)
    np.testing.assert_array_equal(take(values, torch.tensor([[4], [0]]))[:, 0], [[12, 13, 14], [15, 16, 17]])
    assert take(values, torch.zeros(2, 7, 11, dtype=torch.long)).shape == (2, 7, 11, 3)


def test_groups_do_not_depend_on_the_order_of_points():
    torch.manual_seed(0)
    tokenizer = GroupTokenizer(groups=13, neighbours=7, channels=2, width=19, stem=Stem())
    x = torch.cat([cloud(61), cloud(61, seed=1)[..., :2]], dim=2)
    order = torch.randperm(61, generator=torch.Generator().manual_seed(2))
    one, two = (tokenizer({"cloud": y}, {"cloud": everything(y)}) for y in (x, x[:, order]))
    assert one.x.shape == (2, 14, 19) and one.mask.all() and one.spans[0].grid == ()
    torch.testing.assert_close(one.x, two.x, atol=1e-6, rtol=1e-5)  # the middle is a sum in another order


def test_groups_of_a_small_cloud_are_padded():
    tokenizer = GroupTokenizer(groups=23, neighbours=7, channels=0, width=19, stem=Stem())
    x = cloud(11)
    tokens = tokenizer({"cloud": x}, {"cloud": everything(x)})
    assert tokens.mask.sum(dim=1).tolist() == [12, 12]
    assert tokens.x.isfinite().all()


def test_tokens_have_the_size_that_the_trunk_knows():
    torch.manual_seed(0)
    tokenizer = GroupTokenizer(groups=13, neighbours=7, channels=0, width=384, stem=Stem())
    x = cloud(61)
    norms = tokenizer({"cloud": x}, {"cloud": everything(x)}).x[:, 1:].norm(dim=-1)
    assert norms.mean().item() == pytest.approx(2.5, abs=0.1)
