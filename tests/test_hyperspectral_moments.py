"""Mean and covariance in parts against numpy, half whitening against scipy's power of a matrix."""

import numpy as np
from scipy.linalg import fractional_matrix_power

from metatransformer.modalities.hyperspectral.moments import NOISE, Moments, half_whitening


def test_moments_in_parts_are_those_of_all_rows():
    rows = np.random.default_rng(0).normal(size=(103, 7)) * np.arange(1, 8) + 1e7  # a level far above the spread
    moments = Moments()
    for part in np.array_split(rows, 5):
        moments.add(part)
    assert moments.count == 103
    np.testing.assert_allclose(moments.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, np.cov(rows.T, bias=True), rtol=1e-9)


def test_half_whitening_takes_the_root_of_deviations():
    mixed = np.random.default_rng(1).normal(size=(11, 11)) * 10.0 ** -np.arange(11)[:, None]
    covariance = mixed.T @ mixed
    found = half_whitening(covariance)
    floor = NOISE * covariance.trace() / 11 * np.eye(11)
    np.testing.assert_allclose(found, fractional_matrix_power(covariance + floor, -0.25), rtol=1e-6, atol=1e-9)
    before, after = np.linalg.eigvalsh(covariance)[-2:], np.linalg.eigvalsh(found @ covariance @ found)[-2:]
    np.testing.assert_allclose(after, np.sqrt(before), rtol=0.02)


def test_nothing_that_varies_stays_finite():
    assert np.isfinite(half_whitening(np.zeros((3, 3)))).all()
    single = Moments()
    single.add(np.full((1, 3), 5.0))
    assert not single.covariance.any()
