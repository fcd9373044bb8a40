"""Random changes of a spectrum that leave its meaning alone: in time, in frequency, by masks.

All work on the finished spectrum, so that a loader reads and transforms a clip only once.

Axes: t frames, m mel bins.
"""

import numpy as np

from metatransformer.nn.spectrogram import hz_to_mel


def resample_axis(spectrum: np.ndarray, *, places: np.ndarray, axis: int) -> np.ndarray:
    """Returns the spectrum read at fractional ``places`` of one axis, linear between entries.

    Places before the first or behind the last entry give that entry.
    """
    rows = np.moveaxis(spectrum, axis, 0)
    places = np.clip(places, 0, len(rows) - 1)
    before = np.floor(places).astype(int)
    after = np.minimum(before + 1, len(rows) - 1)
    share = (places - before).astype(spectrum.dtype)[:, None]
    return np.moveaxis(rows[before] * (1 - share) + rows[after] * share, 0, axis)


def shift_time(spectrum: np.ndarray, *, rng: np.random.Generator, most: float, silence: float) -> np.ndarray:
    """Returns the clip with each end moved by up to ``most`` of its length, in as many frames.

    Ends that move inwards cut, ends that move outwards add ``silence``; so the clip is shifted and
    played slower or faster.
    """
    count = len(spectrum)
    first, last = rng.uniform(-most, most, size=2) * count
    places = np.linspace(first, count - 1 + last, count)
    result = resample_axis(spectrum, places=places, axis=0)
    result[(places < -0.5) | (places > count - 0.5)] = silence
    return result


def warp_time(spectrum: np.ndarray, *, rng: np.random.Generator, most: float) -> np.ndarray:
    """Returns the clip with one inner moment moved by up to ``most`` of its length.

    The parts before and after it are played faster and slower (SpecAugment, section 2.1).
    """
    end = len(spectrum) - 1
    moment = rng.uniform(0.3, 0.7)
    moved = moment + rng.uniform(-most, most)
    places = np.interp(np.arange(len(spectrum)), [0, moment * end, end], [0, moved * end, end])
    return resample_axis(spectrum, places=places, axis=0)


def warp_frequency(
    spectrum: np.ndarray, *, rng: np.random.Generator, most: float, low_hz: float, high_hz: float
) -> np.ndarray:
    """Returns the clip with every frequency multiplied by up to ``exp(most)``, or divided.

    A factor above 1 sounds like a shorter vocal tract (Jaitly and Hinton 2013). ``low_hz`` and
    ``high_hz`` are the ends of the mel scale.
    """
    low, high = hz_to_mel(np.array([low_hz, high_hz]))
    mel = np.linspace(low, high, spectrum.shape[1] + 2)[1:-1]
    hz = 700.0 * np.expm1(mel / 1127.0)
    source = hz_to_mel(hz / np.exp(rng.uniform(-most, most)))
    places = (source - mel[0]) / (mel[1] - mel[0])
    return resample_axis(spectrum, places=places, axis=1)


def mask_stripe(spectrum: np.ndarray, *, rng: np.random.Generator, most: float, axis: int, value: float) -> np.ndarray:
    """Returns the clip with one stripe of up to ``most`` of an axis set to ``value``."""
    size = spectrum.shape[axis]
    width = int(rng.uniform(0, most) * size)
    start = int(rng.integers(0, size - width + 1))
    result = spectrum.copy()
    np.moveaxis(result, axis, 0)[start : start + width] = value
    return result
