"""Patches of ragged 2-D grids: adapted kernels, resampled positions, masks."""

import pytest
import torch
import torch.nn.functional as F

from metatransformer.core.errors import UsageError
from metatransformer.core.modality import Stem
from metatransformer.nn.patch import (
    GridPositions,
    PatchEmbedding,
    adapt_kernel,
    rectangles,
    resample_positions,
)

WIDTH = 11


def stem(*, patch: int = 5, grid: int = 7) -> Stem:
    draw = torch.Generator().manual_seed(3)
    return Stem(
        patch=torch.randn(WIDTH, 3, patch, patch, generator=draw),
        bias=torch.randn(WIDTH, generator=draw),
        positions=torch.randn(grid, grid, WIDTH, generator=draw),
    )


def full(batch: int, height: int, width: int) -> torch.Tensor:
    return torch.ones(batch, height, width, dtype=torch.bool)


def test_a_fitting_kernel_is_copied():
    kernel = stem().patch
    copy = adapt_kernel(kernel, channels=3, size=(5, 5))
    assert torch.equal(copy, kernel) and copy.data_ptr() != kernel.data_ptr()


@pytest.mark.parametrize("channels", [1, 2, 7])
def test_a_grey_picture_gives_the_same_response_in_any_number_of_channels(channels):
    kernel = stem().patch
    grey = torch.randn(2, 1, 5, 5, generator=torch.Generator().manual_seed(5))
    rgb = F.conv2d(grey.expand(-1, 3, -1, -1), kernel)
    other = F.conv2d(grey.expand(-1, channels, -1, -1), adapt_kernel(kernel, channels=channels, size=(5, 5)))
    assert torch.allclose(other, rgb, atol=1e-5)  # float32 sums of 75 products in another order


def test_a_larger_kernel_answers_to_a_resized_patch_like_the_original():
    kernel = stem().patch
    patch = torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(5))
    larger = F.interpolate(patch, size=(7, 11), mode="bilinear", align_corners=False)
    found = F.conv2d(larger, adapt_kernel(kernel, channels=3, size=(7, 11)))
    assert torch.allclose(found, F.conv2d(patch, kernel), atol=1e-4)  # pseudo-inverse in float32


def test_positions_of_the_same_grid_are_untouched_and_a_plane_stays_a_plane():
    positions = stem().positions
    assert resample_positions(positions, size=(7, 7)) is positions
    flat = torch.full((7, 7, WIDTH), 2.5)
    assert torch.allclose(resample_positions(flat, size=(3, 13)), torch.full((3, 13, WIDTH), 2.5))


def test_a_patch_is_the_product_of_kernel_and_pixels():
    start = stem()
    embed = PatchEmbedding(width=WIDTH, channels=3, stem=start, size=(5, 5))
    x = torch.randn(1, 3, 10, 15, generator=torch.Generator().manual_seed(2))
    tokens, mask = embed(x, full(1, 10, 15))
    assert tokens.shape == (1, 2, 3, WIDTH) and mask.all()
    by_hand = (start.patch * x[0, :, 5:10, 10:15]).sum(dim=(1, 2, 3)) + start.bias
    assert torch.allclose(tokens[0, 1, 2], by_hand, atol=1e-4)  # float32 sum of 75 products


@pytest.mark.parametrize(("length", "expected"), [(1, 1), (5, 1), (6, 2), (8, 2), (9, 3), (11, 3), (12, 4)])
def test_counts_with_overlap(length, expected):
    embed = PatchEmbedding(width=WIDTH, channels=1, stem=stem(), size=(5, 5), stride=(3, 3))
    assert embed.counts(torch.tensor([length]), axis=0).tolist() == [expected]


@pytest.mark.parametrize("stride", [(5, 5), (3, 2)])
def test_padding_does_not_change_a_sample(stride):
    embed = PatchEmbedding(width=WIDTH, channels=1, stem=stem(), size=(5, 5), stride=stride)
    place = GridPositions(width=WIDTH, stem=stem())
    x = torch.randn(1, 1, 13, 8, generator=torch.Generator().manual_seed(2))
    alone, alone_mask = embed(x, full(1, 13, 8))
    padded = torch.full((2, 1, 29, 23), 9.0)  # nonsense in the padding must not matter
    padded[0, 0, :13, :8] = x[0, 0]
    mask = full(2, 29, 23)
    mask[0, 13:], mask[0, :, 8:] = False, False
    batch, batch_mask = embed(padded, mask)
    h, w = alone.shape[1:3]
    assert torch.equal(batch_mask[0].sum(), torch.tensor(h * w)) and batch_mask[0, :h, :w].all()
    assert torch.allclose(batch[0, :h, :w], alone[0], atol=1e-5)
    assert torch.equal(place(batch_mask)[0, :h, :w], place(alone_mask)[0])
    assert not place(batch_mask)[0, h:].any()


def test_without_a_front_end_everything_is_drawn():
    embed = PatchEmbedding(width=WIDTH, channels=2, stem=Stem(), size=(7, 7))
    tokens, mask = embed(torch.randn(3, 2, 7, 14), full(3, 7, 14))
    assert tokens.shape == (3, 1, 2, WIDTH)
    positions = GridPositions(width=WIDTH, stem=Stem())(mask)
    assert positions.shape == tokens.shape and positions.std() > 0.01


def test_everything_learns():
    embed = PatchEmbedding(width=WIDTH, channels=1, stem=stem(), size=(5, 5))
    place = GridPositions(width=WIDTH, stem=stem())
    tokens, mask = embed(torch.randn(2, 1, 11, 13), full(2, 11, 13))
    (tokens + place(mask)).square().sum().backward()
    for parameter in [*embed.parameters(), *place.parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0


def test_rectangles():
    found = rectangles([torch.tensor([1, 2]), torch.tensor([3, 1])], grid=[2, 3])
    assert found.tolist() == [
        [[True, True, True], [False, False, False]],
        [[True, False, False], [True, False, False]],
    ]


def test_a_stride_that_skips_values_is_refused():
    with pytest.raises(UsageError, match=r"patch stride: must lie between 1 and the patch"):
        PatchEmbedding(width=WIDTH, channels=1, stem=stem(), size=(5, 5), stride=(6, 5))
