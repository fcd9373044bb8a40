"""Cutting into batches: like shapes together, no giant made of others, every sample in one."""

import numpy as np
import pytest

from metatransformer.infer.cut import WASTE, cut_batches


def cut(*fields: list, batch_size: int) -> list[list[int]]:
    return [
        places.tolist() for places in cut_batches([np.array(f, dtype=float) for f in fields], batch_size=batch_size)
    ]


def test_wide_and_tall_pictures_of_one_area_do_not_meet():
    shapes = [[100, 400], [400, 100], [100, 400], [400, 100], [200, 200], [200, 200]]
    assert sorted(cut(shapes, batch_size=2)) == [[0, 2], [1, 3], [4, 5]]


def test_samples_of_one_shape_stay_in_order():
    assert cut([[3, 5]] * 7, batch_size=3) == [[0, 1, 2], [3, 4, 5], [6]]
    assert cut([[]] * 5, batch_size=2) == [[0, 1], [2, 3], [4]]


def test_a_giant_stands_alone():
    assert sorted(cut([[2], [2], [900], [3], [2]], batch_size=5)) == [[0, 1, 4, 3], [2]]


def test_an_input_that_a_sample_lacks_counts_as_nothing():
    assert sorted(cut([[0, 0], [7, 7], [0, 0], [7, 7]], [[5], [0], [5], [0]], batch_size=2)) == [[0, 2], [1, 3]]


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_sample_is_in_one_batch_that_is_mostly_real(batch_size: int):
    shapes = np.exp(np.random.default_rng(3).uniform(0, 6, (211, 2))).round() + 1
    found = cut_batches([shapes], batch_size=batch_size)
    assert sorted(np.concatenate(found)) == list(range(211)) and max(map(len, found)) <= batch_size
    padded = [len(places) * shapes[places].max(axis=0).prod() for places in found]
    real = [shapes[places].prod(axis=1).sum() for places in found]
    assert all(p <= WASTE * r for p, r in zip(padded, real, strict=True))
