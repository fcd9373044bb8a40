"""Log-mel spectra against an independent implementation and by hand."""

import numpy as np
import pytest
from transformers import ASTFeatureExtractor
from transformers.audio_utils import spectrogram

from metatransformer.nn.spectrogram import FLOOR, frames, hz_to_mel, log_mel, mel_filters

RATE = 16_000


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(5).normal(0, 0.1, size=samples).astype(np.float32)


# Kaldi's 512 points leave the lowest of 128 filters empty, and that implementation says so.
@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("samples", [400, 5_171, 16_001])
def test_parity_with_the_extractor_of_ast(samples):
    other = ASTFeatureExtractor()
    wave = noise(samples)
    expected = spectrogram(
        wave,
        other.window,
        frame_length=400,
        hop_length=160,
        fft_length=512,
        power=2.0,
        center=False,
        preemphasis=0.97,
        mel_filters=other.mel_filters,
        log_mel="log",
        mel_floor=FLOOR,
        remove_dc_offset=True,
    ).T
    # That implementation agrees with Kaldi to 2.5e-4; with ours only float32 rounding differs.
    assert np.allclose(log_mel(wave, rate_hz=RATE), expected, atol=1e-4)


def test_a_tone_is_loudest_in_its_own_bin():
    tone = np.sin(2 * np.pi * 1_000 * np.arange(4_001) / RATE).astype(np.float32)
    found = log_mel(tone, rate_hz=RATE, mels=61)
    centres = np.linspace(*hz_to_mel(np.array([20.0, 8_000.0])), 63)[1:-1]
    nearest = int(np.abs(centres - hz_to_mel(np.array([1_000.0]))).argmin())
    assert found.shape == (23, 61) and found.dtype == np.float32
    assert (found.argmax(axis=1) == nearest).all()


def test_a_louder_wave_shifts_the_spectrum():
    wave = noise(3_001)
    louder = log_mel(10 * wave, rate_hz=RATE, mels=31)
    # Ten times the amplitude is a hundred times the energy.
    assert np.allclose(louder - log_mel(wave, rate_hz=RATE, mels=31), np.log(100), atol=1e-4)


def test_silence_is_the_floor():
    found = log_mel(np.zeros(1_201, np.float32), rate_hz=RATE, mels=31)
    assert np.allclose(found, np.log(FLOOR))


@pytest.mark.parametrize(
    ("samples", "least", "expected"),
    [(399, 1, 1), (400, 1, 1), (560, 1, 2), (1, 7, 7), (700, 7, 7)],
)
def test_how_many_frames(samples, least, expected):
    found = frames(np.ones(samples), window=400, hop=160, least=least)
    assert found.shape == (expected, 400)
    assert found[0].sum() == min(samples, 400)


def test_spread_frames_run_from_the_first_to_the_last_window():
    found = frames(np.arange(700.0), window=400, hop=160, least=5)
    assert found[:, 0].tolist() == [0, 75, 150, 225, 300]


def test_filters_overlap_by_half_and_are_shared_read_only():
    filters = mel_filters(rate_hz=RATE, size=4_096, mels=23, low_hz=20.0, high_hz=8_000.0)
    inner = filters[200:1_500]  # between the first and the last centre two triangles add up to 1
    assert np.allclose(inner.sum(axis=1), 1.0)
    with pytest.raises(ValueError, match="read-only"):
        filters[0, 0] = 1.0
