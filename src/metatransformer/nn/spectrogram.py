"""Log-mel spectra in numpy, as Kaldi computes filter banks.

A short-time power spectrum is summed under triangles that are equally wide on the mel scale, and its
logarithm is taken. Everything is numpy, so that a loader can compute and cache spectra without torch.

Axes: t frames, f FFT bins, m mel bins.
"""

from functools import lru_cache

import numpy as np

# Kaldi's constants: first-order high-pass, and the smallest float32 step as the floor of the energy.
PRE_EMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)


def hz_to_mel(hz: np.ndarray) -> np.ndarray:
    """Returns Kaldi's mel scale, ``1127 ln(1 + hz / 700)``."""
    return 1127.0 * np.log1p(hz / 700.0)


@lru_cache(maxsize=64)
def mel_filters(
    *, rate_hz: int, size: int, mels: int, low_hz: float, high_hz: float, warp: float = 1.0
) -> np.ndarray:
    """Returns the weights ``[f, m]`` of ``mels`` triangles over an FFT of ``size`` points.

    ``warp`` multiplies the frequency of every triangle: above 1 it reads a voice as one with a
    shorter vocal tract would sound (vocal tract length perturbation, Jaitly and Hinton 2013).
    """
    bins = hz_to_mel(np.arange(size // 2 + 1) * (rate_hz / size) / warp)  # [f]
    edges = np.linspace(*hz_to_mel(np.array([low_hz, high_hz])), mels + 2)  # [m + 2]
    rise = (bins[:, None] - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[None, 2:] - bins[:, None]) / (edges[2:] - edges[1:-1])
    weights = np.maximum(0.0, np.minimum(rise, fall))
    weights.flags.writeable = False  # the cache hands the same array to every caller
    return weights


def frames(wave: np.ndarray, *, window: int, hop: int) -> np.ndarray:
    """Returns every window of ``wave`` that lies in it completely, ``[t, window]``.

    A clip shorter than one window is filled up with zeros to one.
    """
    if len(wave) < window:
        wave = np.pad(wave, (0, window - len(wave)))
    return np.lib.stride_tricks.sliding_window_view(wave, window)[::hop]


def log_mel(
    wave: np.ndarray,
    *,
    rate_hz: int,
    mels: int = 128,
    window_s: float = 0.025,
    hop_s: float = 0.010,
    low_hz: float = 20.0,
    high_hz: float | None = None,
    warp: float = 1.0,
) -> np.ndarray:
    """Returns the natural logarithm of the mel energies, ``[t, m]`` float32.

    Kaldi's filter bank without dither and energy, with a symmetric Hann window: remove each
    window's mean, pre-emphasise, window, power spectrum on the next power of two. ``high_hz`` None
    means half the sampling rate. It is what AST (arXiv 2104.01778) feeds its transformer, before
    its normalisation.
    """
    window, hop = round(window_s * rate_hz), round(hop_s * rate_hz)
    size = 1 << (window - 1).bit_length()
    rows = frames(wave.astype(np.float64), window=window, hop=hop)
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
        warp=warp,
    )
    return np.log(np.maximum(power @ filters, FLOOR)).astype(np.float32)
