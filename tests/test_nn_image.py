"""The tokenizer of pictures: grey and RGB see the same through a levelled front end."""

import pytest
import torch

from metatransformer.core.modality import Stem
from metatransformer.nn.image import PictureTokenizer, level_statistics, level_stem, mirror

WIDTH, PATCH = 11, 5


def make_stem() -> Stem:
    generator = torch.Generator().manual_seed(0)
    return Stem(
        patch=torch.randn(WIDTH, 3, PATCH, PATCH, generator=generator),
        bias=torch.randn(WIDTH, generator=generator),
        positions=torch.randn(3, 3, WIDTH, generator=generator),
        class_token=torch.randn(WIDTH, generator=generator),
        mean=(0.1, 0.5, 0.7),
        std=(0.2, 0.3, 0.5),
    )


def tokens(pixels: torch.Tensor, *, stem: Stem) -> torch.Tensor:
    tokenizer = PictureTokenizer(name="a", channels=pixels.shape[-1], width=WIDTH, stem=stem)
    mask = torch.ones(pixels.shape[:3], dtype=torch.bool)
    found = tokenizer({"pixels": pixels}, {"pixels": mask})
    assert found.spans[0].grid == (2, 3) and found.spans[0].modality == "a"
    return found.x


def test_a_levelled_front_end_gives_grey_pictures_the_tokens_of_rgb():
    stem = make_stem()
    grey = torch.randint(0, 256, (2, 2 * PATCH, 3 * PATCH, 1), generator=torch.Generator().manual_seed(1))
    expected = tokens(grey.expand(-1, -1, -1, 3).to(torch.uint8), stem=stem)
    mean, std = level_statistics(stem)
    assert (mean, std) == pytest.approx((1.3 / 3, 1.0 / 3))
    ready = (grey / 255 - mean) / std
    # Sums of 75 float32 products of size 1 in another order.
    for channels in (1, 3):
        found = tokens(ready.expand(-1, -1, -1, channels), stem=level_stem(stem))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_without_kernel_or_bias_only_the_statistics_change():
    assert level_stem(Stem()) == Stem(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    stem = make_stem()
    bare = Stem(patch=stem.patch, mean=stem.mean, std=stem.std)
    torch.testing.assert_close(level_stem(stem).bias, level_stem(bare).bias + stem.bias)


def test_mirrored_pictures_are_two_rows_each_inside_its_own_width():
    stem = make_stem()
    tokenizer = PictureTokenizer(name="a", channels=3, width=WIDTH, stem=stem, mirrored=True)
    pixels = torch.randn(2, 2 * PATCH, 3 * PATCH, 3, generator=torch.Generator().manual_seed(2))
    mask = torch.ones(pixels.shape[:3], dtype=torch.bool)
    mask[1, :, 2 * PATCH :] = False  # the second picture is two patches wide
    found = tokenizer({"pixels": pixels}, {"pixels": mask})
    assert found.samples is not None and found.samples.tolist() == [0, 0, 1, 1]
    narrow = pixels[1:, :, : 2 * PATCH]
    alone = PictureTokenizer(name="a", channels=3, width=WIDTH, stem=stem)
    alone.load_state_dict(tokenizer.state_dict())
    expected = alone({"pixels": narrow.flip(2)}, {"pixels": mask[1:, :, : 2 * PATCH]}).x[0]
    real = found.x[3][found.mask[3]]
    torch.testing.assert_close(real, expected)
    assert found.mask.sum(dim=1).tolist() == [7, 7, 5, 5]


def test_a_mirror_image_by_hand():
    pixels = torch.tensor([[1.0, 2.0, 3.0, 0.0, 0.0]]).expand(1, 1, 1, 5)
    mask = torch.tensor([[[True, True, True, False, False]]])
    assert mirror(pixels, mask).flatten().tolist() == [3.0, 2.0, 1.0, 0.0, 0.0]
