"""Tokens: spans, joining, and pooling."""

from dataclasses import replace

import pytest
import torch

from metatransformer.core.errors import UsageError
from metatransformer.core.tokens import Span, Tokens


def make(modality: str, *, count: int, summary: int | None = 0, width: int = 5, grid: tuple[int, ...] = ()) -> Tokens:
    x = torch.arange(2 * count * width, dtype=torch.float32).reshape(2, count, width)
    mask = torch.ones(2, count, dtype=torch.bool)
    return Tokens(x, mask, (Span(modality, 0, count, summary=summary, grid=grid),))


def test_joined_modalities_keep_their_places():
    joined = Tokens.cat([make("image", count=7, grid=(2, 3)), make("audio", count=3, summary=1)])
    assert joined.spans == (Span("image", 0, 7, 0, (2, 3)), Span("audio", 7, 10, 8))
    assert joined.summaries().nonzero().flatten().tolist() == [0, 8]
    assert joined.x.shape == (2, 10, 5) and joined.mask.shape == (2, 10)


def test_direct_features_stand_side_by_side():
    """Those of each sample: 2 of the first part, none of the second, 3 of the third."""
    first, third = torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([[5.0, 6, 7], [8, 9, 10]])
    parts = [replace(make("a", count=3), direct=first), make("b", count=2), replace(make("c", count=5), direct=third)]
    expected = torch.tensor([[1.0, 2, 5, 6, 7], [3, 4, 8, 9, 10]])
    assert torch.equal(Tokens.cat(parts).direct, expected)
    assert Tokens.cat([make("a", count=3), make("b", count=2)]).direct is None


def test_one_part_stays_as_it_is():
    part = make("image", count=3)
    assert Tokens.cat([part]) is part


def test_parts_of_different_width_are_refused():
    with pytest.raises(UsageError, match=r"Tokens.cat: must get parts of one width; found widths \[5, 7\]"):
        Tokens.cat([make("a", count=2), make("b", count=2, width=7)])
    with pytest.raises(UsageError, match=r"found widths \[\]"):
        Tokens.cat([])


def test_a_mask_of_another_shape_is_a_bug():
    # By jaxtyping while the tests run, by the assertion otherwise.
    with pytest.raises((AssertionError, TypeError)):
        Tokens(torch.zeros(2, 3, 5), torch.ones(2, 4, dtype=torch.bool), (Span("a", 0, 3),))


def test_other_embeddings_keep_the_layout():
    part = make("a", count=3, summary=None)
    other = replace(part, x=part.x + 1)
    assert other.spans == part.spans and not other.summaries().any()
