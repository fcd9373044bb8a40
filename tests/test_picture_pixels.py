"""Pixel arrays: channels, scale, size and crops that all pictures share."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metatransformer.core.errors import DataError, UsageError
from metatransformer.modalities._picture.pixels import (
    as_rgb,
    as_share,
    luminance,
    patch_grid,
    random_crop,
    random_mirror,
    resize,
    spread,
    standardise,
    thumbnail,
    to_patches,
    typical_side,
)
from metatransformer.modalities.image import ImageOptions

RAMP = np.linspace(0, 1, 11 * 13, dtype=np.float32).reshape(11, 13, 1)


def test_whole_numbers_are_a_share_of_their_full_scale():
    for dtype, full in ((np.uint8, 255), (np.uint16, 65535)):
        found = as_share(np.array([[0, full // 5, full]], dtype), where="a")
        assert found.dtype == np.float32 and found.shape == (1, 3, 1)
        np.testing.assert_allclose(found[0, :, 0], [0, 0.2, 1], atol=1e-7)
    with pytest.raises(DataError, match="a: pixels: must be finite and lie in 0..1 .* found values from 0 to 2"):
        as_share(np.array([[0.0, 2.0]]), where="a")


def test_grey_becomes_rgb_and_16_bits_become_8():
    found = as_rgb(np.array([[0, 257, 65535]], np.uint16), where="a")
    assert found.tolist() == [[[0] * 3, [1] * 3, [255] * 3]]
    found = as_rgb(np.array([[0, 341, 1023, 1024]], np.uint16), where="a", top=1023)
    assert found[0, :, 0].tolist() == [0, 85, 255, 255]
    assert as_rgb(np.array([[0, 0.5, 1]]), where="a")[0, :, 0].tolist() == [0, 128, 255]
    with pytest.raises(DataError, match=r"a: pixels: must be uint8, uint16, or floating-point values of 0..1"):
        as_rgb(np.zeros((3, 5), np.int64), where="a")


def test_luminance_weighs_green_most():
    assert luminance(np.array([[[0, 1, 0]]], np.uint8))[0, 0] == pytest.approx(0.587)
    assert luminance(np.full((1, 1, 3), 7, np.uint8))[0, 0] == pytest.approx(7)


@settings(max_examples=50, deadline=None)
@given(h=st.integers(1, 500), w=st.integers(1, 500), side=st.integers(14, 448))
def test_patch_grid_keeps_area_and_aspect(h, w, side):
    if not 1 / 16 <= h / w <= 16:
        with pytest.raises(DataError, match="aspect ratio of at most 16"):
            patch_grid(h, w, side=side, patch=14, where="a")
        return
    rows, columns = patch_grid(h, w, side=side, patch=14, where="a")
    ideal = side / 14 * (h / w) ** 0.5, side / 14 / (h / w) ** 0.5
    for count, real in zip((rows, columns), ideal, strict=True):
        assert count == max(1, round(real))


def test_typical_side_is_four_medians_within_limits():
    assert typical_side([(37, 37)] * 3, default=5) == 148
    assert typical_side([(3, 3)] * 3, default=5) == 112
    assert typical_side([(997, 997)] * 3, default=5) == 224
    assert typical_side([(37, 37)] * 256 + [(997, 997)] * 900, default=5) == 148  # the first 256 count
    assert typical_side([], default=5) == 5


def test_resizing_keeps_a_ramp_and_the_range():
    found = resize(RAMP, size=(22, 26))
    assert found.shape == (22, 26, 1) and found.dtype == np.float32
    assert RAMP.min() <= found.min() <= found.max() <= RAMP.max()
    # Twice as fine, the middle of the picture has the same slope: 1 / 142 a column before, half of it after.
    np.testing.assert_allclose(np.diff(found[11, 6:20, 0]), 1 / 142 / 2, atol=1e-5)
    edge = np.zeros((8, 8, 2), np.float32)
    edge[:, 4:, 1] = 1
    found = resize(edge, size=(24, 24))
    assert (found[:, :, 0] == 0).all() and found.min() == 0 and found.max() == 1


def test_to_patches_gives_whole_patches():
    assert to_patches(RAMP, side=28, patch=7, where="a").shape == (28, 28, 1)  # 4 x 4 patches: 11 / 13 is nearly 1


def test_crop_of_everything_changes_nothing():
    rng = np.random.default_rng(0)
    np.testing.assert_allclose(random_crop(RAMP, rng, least=1.0), RAMP, atol=1e-6)
    cropped = random_crop(RAMP, rng, least=0.5)
    assert cropped.shape == RAMP.shape and np.ptp(cropped) < np.ptp(RAMP)


def test_mirror_follows_its_generator():
    seen = {
        tuple(random_mirror(RAMP, np.random.default_rng(seed), axes=(0, 1))[[0, 0], [0, -1], 0]) for seed in range(31)
    }
    corners = RAMP[0, 0, 0], RAMP[0, -1, 0], RAMP[-1, 0, 0], RAMP[-1, -1, 0]
    a, b, c, d = corners
    assert seen == {(a, b), (b, a), (c, d), (d, c)}
    np.testing.assert_array_equal(random_mirror(RAMP, np.random.default_rng(0), axes=()), RAMP)


def test_standardised_values():
    mean, std = spread(RAMP)
    assert (mean, std) == pytest.approx((0.5, RAMP.std()))
    found = standardise(RAMP, mean=mean, std=std)
    assert found.mean() == pytest.approx(0, abs=1e-6) and found.std() == pytest.approx(1, abs=1e-6)
    assert spread(np.full((3, 5), 7.0)) == (7.0, 1.0)
    assert standardise(np.array([1e9, -1e9]), mean=0.0, std=1.0).tolist() == [6.0, -6.0]


def test_thumbnail_takes_means():
    found = thumbnail(np.array([[0, 100], [200, 100]], np.uint8)[:, :, None].repeat(3, axis=2), side=1)
    np.testing.assert_allclose(found, [100 / 255] * 3)
    assert thumbnail(RAMP, side=3).shape == (9,)


@pytest.mark.parametrize("options", [{"size": 0, "crop": 1.0}, {"size": "auto", "crop": 0.0}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match="input.(size|crop): must"):
        ImageOptions(**options)
