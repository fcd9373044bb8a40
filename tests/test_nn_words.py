"""Word vectors: stored in 8 bits, under a map, beside learned ones."""

import math

import pytest
import torch

from metatransformer.nn.words import StoredVectors, WordVectors, sinusoids


def vectors(words: int = 11, width: int = 7) -> torch.Tensor:
    return torch.randn(words, width, generator=torch.Generator().manual_seed(0))


def test_stored_vectors_are_centred_and_of_the_wanted_length():
    given = vectors()
    stored = StoredVectors(given, norm=2.5)
    centred = given - given.mean(dim=0)
    wanted = centred * 2.5 / centred.norm(dim=1).mean()
    found = stored(torch.arange(11))
    # Half a level of the largest component of each vector.
    assert ((found - wanted).abs() <= wanted.abs().amax(dim=1, keepdim=True) / 254 + 1e-6).all()
    assert found.norm(dim=1).mean().item() == pytest.approx(2.5, rel=0.01)
    assert stored.levels.dtype == torch.int8 and [*stored.parameters()] == []


def test_a_map_between_equal_widths_starts_as_the_identity():
    words = WordVectors(words=11, seen=(2, 3, 5), width=7, stored=vectors(), norm=2.5)
    assert words.stored is not None
    ids = torch.tensor([[0, 2], [5, 10]])
    torch.testing.assert_close(words(ids), words.stored(ids))
    assert words.own.shape == (4, 7) and not words.own.any()


@pytest.mark.parametrize("width", [5, 13])
def test_another_width_keeps_the_length(width: int):
    words = WordVectors(words=997, seen=(), width=width, stored=vectors(997), norm=2.5)
    lengths = words(torch.arange(997)[None]).norm(dim=2)
    assert lengths.mean().item() == pytest.approx(2.5, rel=0.05)  # 997 random vectors


def test_without_stored_vectors_words_are_learned_and_unseen_ones_are_nothing():
    torch.manual_seed(0)
    words = WordVectors(words=997, seen=range(1, 997), width=23, stored=None, norm=2.5)
    assert words(torch.arange(1, 997)[None]).norm(dim=2).mean().item() == pytest.approx(2.5, rel=0.05)
    assert not words(torch.tensor([[0]])).any()


def test_seen_words_learn_on_their_own_and_unseen_ones_together():
    words = WordVectors(words=11, seen=(2, 5), width=7, stored=vectors(), norm=2.5)
    words(torch.tensor([[5, 7, 9]])).sum().backward()
    assert words.own.grad is not None
    # Two unseen, word 2 absent, word 5 once; a tenth, because there are stored vectors.
    assert words.own.grad[:, 0].tolist() == pytest.approx([0.2, 0.0, 0.1])


def test_the_state_brings_the_vectors_back():
    one = WordVectors(words=11, seen=(2,), width=5, stored=vectors(), norm=2.5)
    two = WordVectors(words=11, seen=(2,), width=5, stored=torch.zeros(11, 7), norm=2.5)
    two.load_state_dict(one.state_dict())
    ids = torch.arange(11)[None]
    assert torch.equal(one(ids), two(ids))


@pytest.mark.parametrize("width", [6, 7])
def test_places_by_hand(width: int):
    table = sinusoids(5, width)
    assert table.shape == (5, width)
    torch.testing.assert_close(table.norm(dim=1), torch.ones(5))
    wanted = torch.tensor([math.sin(3.0), math.cos(3.0)])
    torch.testing.assert_close(table[3, :2] / table[3, :2].norm(), wanted)  # the fastest wave turns 1 a place
    assert torch.cdist(table, table).fill_diagonal_(9).min() > 0.1
