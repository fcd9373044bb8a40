"""Tubelets: a still video is its picture, clips are rows of their own, and padding never shows."""

import numpy as np
import pytest
import torch
from torch import Tensor

from metatransformer.core.modality import Stem
from metatransformer.nn.image import PictureTokenizer
from metatransformer.nn.tubelet import TimePositions, TubeletTokenizer, inflate
from metatransformer.trunk import load_encoder

STEM = load_encoder("test").stem
WIDTH, SIDE = 32, STEM.patch_size


def tokenizer(*, joint: bool = True, steps: int = 3, stem: Stem = STEM) -> TubeletTokenizer:
    return TubeletTokenizer(name="video", steps=steps, joint=joint, width=WIDTH, stem=stem)


def clips_of(*shape: int) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, size=(*shape, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def tokens_of(net: TubeletTokenizer, clips: Tensor, mask: Tensor | None = None):
    mask = torch.ones(clips.shape[:-1], dtype=torch.bool) if mask is None else mask
    return net({"clips": clips}, {"clips": mask})


def test_inflated_kernel_answers_a_still_video_as_the_picture_by_hand():
    kernel = torch.arange(24.0).reshape(2, 3, 2, 2)
    found = inflate(kernel, frames=2)
    assert found.shape == (2, 6, 2, 2) and torch.equal(found[:, :3], kernel / 2)
    picture = torch.ones(3, 2, 2)
    assert torch.equal((found * torch.cat([picture, picture])).sum(dim=(1, 2, 3)), torch.tensor([66.0, 210.0]))


@pytest.mark.parametrize("joint", [True, False])
def test_a_still_video_begins_with_exactly_the_tokens_of_its_picture(joint: bool):
    picture = clips_of(1, 3 * SIDE, 2 * SIDE)
    image = PictureTokenizer(name="image", channels=3, width=WIDTH, stem=STEM)
    expected = image({"pixels": picture}, {"pixels": torch.ones(picture.shape[:-1], dtype=torch.bool)})
    still = picture[:, None, None].expand(1, 1, 4, 3 * SIDE, 2 * SIDE, 3)
    found = tokens_of(tokenizer(joint=joint), still)
    assert found.spans[0].grid == ((2, 3, 2) if joint else (3, 2))
    steps = found.x[0, 1:].reshape(2, 6, WIDTH) if joint else found.x[:, 1:]
    for step in steps:  # float32 sums in another order
        torch.testing.assert_close(step, expected.x[0, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found.x[:, 0], expected.x[:1, 0].expand(len(found.x), -1))


def test_clips_are_rows_and_grids_lie_in_time_height_width():
    clips = clips_of(2, 3, 4, SIDE, 2 * SIDE)
    mask = torch.ones(clips.shape[:-1], dtype=torch.bool)
    mask[0, 2] = False  # the first sample has two clips
    mask[1, 1, 2:] = False  # one clip of the second has only two frames
    joint = tokens_of(tokenizer(), clips, mask)
    assert joint.samples is not None and joint.samples.tolist() == [0, 0, 1, 1, 1]
    assert joint.spans[0].grid == (2, 1, 2) and joint.x.shape == (5, 5, WIDTH)
    assert joint.mask.sum(dim=1).tolist() == [5, 5, 5, 3, 5]
    apart = tokens_of(tokenizer(joint=False), clips, mask)
    assert apart.samples is not None and apart.samples.tolist() == [0] * 4 + [1] * 5
    assert apart.spans[0].grid == (1, 2) and apart.mask.all()


def test_padding_in_time_and_space_changes_no_token():
    clips = clips_of(1, 1, 2, SIDE, SIDE)
    big = torch.full((1, 2, 4, 2 * SIDE, 3 * SIDE, 3), 77, dtype=torch.uint8)
    mask = torch.zeros(big.shape[:-1], dtype=torch.bool)
    big[:, :1, :2, :SIDE, :SIDE], mask[:, :1, :2, :SIDE, :SIDE] = clips, True
    net = tokenizer()
    torch.nn.init.normal_(net.times.table)
    alone, padded = tokens_of(net, clips), tokens_of(net, big, mask)
    assert padded.mask.sum() == 2
    torch.testing.assert_close(padded.x[padded.mask], alone.x[alone.mask], atol=1e-6, rtol=1e-6)


def test_times_start_at_zero_and_stretch_to_each_length():
    times = TimePositions(width=2, steps=3)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert torch.equal(times(mask), torch.zeros(2, 3, 2))
    with torch.no_grad():
        times.table.copy_(torch.tensor([[0.0, 1.0], [3.0, 4.0], [6.0, 7.0]]))
    found = times(mask)
    assert torch.equal(found[0], times.table)
    assert found[1].tolist() == [[3.0, 4.0], [0.0, 0.0], [0.0, 0.0]]  # one step stands in the middle


def test_without_a_kernel_the_tokenizer_is_not_native():
    net = tokenizer(stem=Stem())
    assert not net.native and net.patches.weight.shape == (WIDTH, 6, 16, 16)
    assert tokenizer().native
