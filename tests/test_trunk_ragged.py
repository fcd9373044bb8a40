"""Rows of unlike length through the trunk: what comes out is what each row has alone, at little padding."""

import pytest
import torch
from test_trunk_encoder import TOLERANCE, draw, tokens, trained

from metatransformer.trunk import ragged
from metatransformer.trunk.ragged import WASTE, parts_of


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ragged.MOST_TOKENS, "cpu", 23)
    monkeypatch.setitem(ragged.LEAST_TOKENS, "cpu", 4)


def ragged_mask(rows: int = 9, count: int = 11) -> torch.Tensor:
    mask = torch.rand(rows, count, generator=torch.Generator().manual_seed(3)) < 0.6
    mask[:, 4] = True
    mask[2] = True
    return mask


@pytest.mark.usefixtures("narrow")
def test_each_row_has_what_it_has_alone_wherever_its_padding_stands():
    encoder, x, mask = trained(), draw(9, 11, 21), ragged_mask()
    with torch.no_grad():
        found = encoder.read(tokens(x, mask), after=(0, 2))
        for row in range(9):
            alone = encoder.read(tokens(x[row : row + 1, mask[row]]), after=(0, 2))
            for whole, one in zip(found, alone, strict=True):
                torch.testing.assert_close(whole.x[row, mask[row]], one.x[0], **TOLERANCE)
    assert all(not layer.x[~mask].any() for layer in found)


@pytest.mark.usefixtures("narrow")
def test_gradients_are_those_of_the_padded_batch():
    encoder, mask = trained(), ragged_mask()
    one, other = draw(9, 11, 21).requires_grad_(), draw(9, 11, 21).requires_grad_()
    encoder.encode(tokens(one, mask)).x[mask].square().sum().backward()
    encoder(other, mask, after=(3,))[0][mask].square().sum().backward()
    torch.testing.assert_close(one.grad, other.grad, atol=1e-3, rtol=1e-4)


@pytest.mark.usefixtures("narrow")
def test_parts_hold_every_row_once_and_few_tokens():
    parts = list(parts_of(ragged_mask(), most=23))
    assert sorted(torch.cat([part.rows for part in parts]).tolist()) == list(range(9))
    assert all(part.places is None or part.places.numel() <= 23 for part in parts)


def test_full_rows_run_in_parts_of_bounded_and_like_size():
    full = torch.ones(7, 11, dtype=torch.bool)
    assert [part.places for part in parts_of(full, most=100)] == [None]
    assert [len(part.rows) for part in parts_of(full, most=35)] == [3, 2, 2]
    assert [len(part.rows) for part in parts_of(full, most=5)] == [1] * 7


def test_little_padding_is_left_of_texts_of_many_lengths():
    draws = torch.randn(256, generator=torch.Generator().manual_seed(0))
    counts = (draws * 0.8 + 4).exp().clamp(8, 512).int()  # 55 in the middle
    mask = torch.arange(int(counts.max()))[None] < counts[:, None]
    parts = list(parts_of(mask, most=2400))
    padded = sum(part.places.numel() for part in parts if part.places is not None)
    assert int(counts.sum()) <= padded <= 1.1 * WASTE * int(counts.sum())
    assert mask.numel() > 3 * padded  # as it would have run
    assert len(parts) < 20


def test_grids_that_are_as_large_lose_all_padding():
    mask = torch.zeros(2, 4, 4, dtype=torch.bool)
    mask[0, :2], mask[1, :, :2] = True, True  # one lies, one stands
    (part,) = parts_of(mask.flatten(1), most=2400)
    assert part.mask is None and part.places is not None and part.places.shape == (2, 8)
