"""Log-mel spectra in numpy, as Kaldi computes filter banks.

A short-time power spectrum is summed under triangles that are equally wide on the mel scale, and
its logarithm is taken. Everything is numpy, so that a loader can compute and cache spectra without
torch.

Axes: t frames, f FFT bins, m mel bins.
"""

from functools import lru_cache

import numpy as np

# Kaldi's constants: a first-order high-pass, and float32's epsilon as the floor of the energy.
PRE_EMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Returns Kaldi's mel scale, ``1127 ln(1 + hz / 700)``."""
    return 1127.0 * np.log1p(hz / 700.0)


@lru_cache(maxsize=16)
def mel_filters(*, rate_hz: int, size: int, mels: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Returns the weights ``[f, m]`` of ``mels`` triangles over an FFT of ``size`` points."""
    bins = hz_to_mel(np.arange(size // 2 + 1) * (rate_hz / size))  # [f]
    low, high = hz_to_mel(np.array([low_hz, high_hz]))
    edges = np.linspace(low, high, mels + 2)  # [m + 2]
    rise = (bins[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rise, fall))
    weights.flags.writeable = False  # the cache hands the same array to every caller
    return weights


def frames(wave: np.ndarray, *, window: int, hop: int, least: int = 1) -> np.ndarray:
    """Returns every window of ``wave`` that lies in it completely, ``[t, window]``.

    A clip that holds fewer than ``least`` windows at this hop gives ``least``, evenly spread; one
    shorter than a window is first filled up with zeros to one.
    """
    if len(wave) < window:
        wave = np.pad(wave, (0, window - len(wave)))
    last = len(wave) - window
    starts = np.arange(0, last + 1, hop)
    if len(starts) < least:
        starts = np.linspace(0, last, least).round().astype(int)
    return np.lib.stride_tricks.sliding_window_view(wave, window)[starts]


def log_mel(
    wave: np.ndarray,
    *,
    rate_hz: int,
    mels: int = 128,
    window_s: float = 0.025,
    hop_s: float = 0.010,
    least: int = 1,
    low_hz: float = 20.0,
    high_hz: float | None = None,
) -> np.ndarray:
    """Returns the natural logarithm of the mel energies, ``[t, m]`` float32.

    Kaldi's filter bank without dither and energy, with a symmetric Hann window: remove each
    window's mean, pre-emphasise, window, power spectrum on the next power of two. ``least`` is the
    smallest number of frames (see ``frames``); ``high_hz`` None means half the sampling rate. It is
    what AST (arXiv 2104.01778) feeds its transformer, before its normalisation.
    """
    window, hop = round(window_s * rate_hz), max(1, round(hop_s * rate_hz))
    size = 1 << (window - 1).bit_length()
    rows = frames(wave.astype(np.float64), window=window, hop=hop, least=least)
    rows = rows - rows.mean(axis=1, keepdims=True)
    before = np.concatenate([rows[:, :1], rows[:, :-1]], axis=1)
    rows = (rows - PRE_EMPHASIS * before) * np.hanning(window)
    power = np.abs(np.fft.rfft(rows, n=size, axis=1)) ** 2  # [t, f]
    filters = mel_filters(
        rate_hz=rate_hz,
        size=size,
        mels=mels,
        low_hz=low_hz,
        high_hz=rate_hz / 2 if high_hz is None else high_hz,
    )
    return np.log(np.maximum(power @ filters, FLOOR)).astype(np.float32)


def heard(energy: np.ndarray, *, depth: float) -> slice:
    """Returns the frames of ``energy`` [t, m] without silent ends.

    Silent is a frame whose loudest band lies more than ``depth`` nepers of energy below that of the loudest frame.
    """
    loud = energy.max(axis=1)
    places = np.flatnonzero(loud > loud.max() - depth)
    return slice(int(places[0]), int(places[-1]) + 1)
