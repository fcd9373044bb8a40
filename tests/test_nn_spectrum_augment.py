"""Random changes of a spectrum: exact where nothing may move, seeded, and of the promised size."""

import numpy as np
import pytest

from metatransformer.nn.spectrogram import hz_to_mel
from metatransformer.nn.spectrum_augment import (
    mask_stripe,
    resample_axis,
    shift_time,
    warp_frequency,
    warp_time,
)

T, M = 23, 17


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def spectrum() -> np.ndarray:
    return rng(9).normal(size=(T, M)).astype(np.float32)


def test_resampling_by_hand():
    x = np.array([[0.0], [10.0], [20.0]], dtype=np.float32)
    found = resample_axis(x, places=np.array([-3.0, 0.5, 1.25, 9.0]), axis=0)
    assert found[:, 0].tolist() == [0.0, 5.0, 12.5, 20.0]
    assert np.array_equal(resample_axis(x.T, places=np.array([0.5]), axis=1), [[5.0]])


CHANGES = {
    "shift": lambda x, g, most: shift_time(x, rng=g, most=most, silence=-9.0),
    "warp": lambda x, g, most: warp_time(x, rng=g, most=most),
    "pitch": lambda x, g, most: warp_frequency(x, rng=g, most=most, low_hz=20.0, high_hz=8_000.0),
    "frames": lambda x, g, most: mask_stripe(x, rng=g, most=most, axis=0, value=0.0),
    "bins": lambda x, g, most: mask_stripe(x, rng=g, most=most, axis=1, value=0.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_follows_its_generator_and_is_none_at_zero(name):
    x = spectrum()
    once, again = (CHANGES[name](x, rng(5), 0.3) for _ in range(2))
    assert np.array_equal(once, again) and once.shape == x.shape and once.dtype == x.dtype
    assert not np.array_equal(once, x) and np.array_equal(x, spectrum())
    # Places on the mel scale come from an exponential and a logarithm: not exactly whole numbers.
    assert np.allclose(CHANGES[name](x, rng(5), 0.0), x, atol=1e-5)


@pytest.mark.parametrize("name", CHANGES)
def test_one_frame_is_enough(name):
    assert CHANGES[name](spectrum()[:1], rng(), 0.1).shape == (1, M)


def test_shifting_outwards_adds_silence_at_the_end():
    class Outwards(np.random.Generator):
        def uniform(self, low, high, size):
            return np.array([0.0, high])[:size]

    draw = Outwards(np.random.PCG64())
    found = shift_time(np.ones((5, 2), np.float32), rng=draw, most=1.0, silence=-9.0)
    assert found[:, 0].tolist() == [1.0, 1.0, 1.0, -9.0, -9.0]  # places 0, 2.25, 4.5, 6.75, 9


def test_frequencies_move_by_the_drawn_factor():
    class Up(np.random.Generator):
        def uniform(self, low, high):
            return high

    edges = hz_to_mel(np.array([20.0, 8_000.0]))
    centres = 700 * np.expm1(np.linspace(*edges, 203)[1:-1] / 1127)
    x = np.exp(-(((centres - 1_000.0) / 100.0) ** 2))[None].astype(np.float32)  # a peak at 1 kHz
    draw = Up(np.random.PCG64())
    found = warp_frequency(x, rng=draw, most=np.log(1.5), low_hz=20.0, high_hz=8_000.0)
    peak = centres[found[0].argmax()]
    assert abs(peak / 1_500.0 - 1) < 0.02  # bins are 1.5 % apart there


def test_a_stripe_is_no_wider_than_asked():
    for seed in range(7):
        hidden = (mask_stripe(spectrum(), rng=rng(seed), most=0.3, axis=1, value=7.0) == 7.0).all(0)
        assert hidden.sum() <= 0.3 * M
