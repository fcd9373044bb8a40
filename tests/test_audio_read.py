"""Recordings: scale, channels, rate; and what is wrong with a bad one."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.core.samples import Record
from metatransformer.modalities.audio import load
from metatransformer.modalities.audio.read import audio_info, read_audio, resample

FIXTURES = Path(__file__).parent / "fixtures" / "audio"
# 16-bit samples are rounded to 1 / 32768.
STEP = 1 / 32768


def tone(*, rate_hz: int, count: int, hz: float = 443.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hz * np.arange(count) / rate_hz)


def test_channels_before_samples_are_refused_and_a_rate_may_be_told():
    wave = tone(rate_hz=8000, count=800)
    with pytest.raises(DataError, match=r"must be samples \[t, channels\]; found the shape \(2, 800\)"):
        resample(np.stack([wave, wave]), from_hz=8000, rate_hz=8000, where="x")
    told = load(Record("x", value={"array": wave, "sampling_rate": 8000}))["wave"]
    np.testing.assert_array_equal(told, load(Record("x", value=(wave, 8000)))["wave"])
    with pytest.raises(DataError, match="as array and their rate as sampling_rate; found the names array"):
        load(Record("x", value={"array": wave}))


def test_channels_are_averaged():
    found = read_audio(FIXTURES / "good.wav", rate_hz=8000)
    assert found.dtype == np.float32
    # left is the tone, right is minus half of it: the mean is a quarter of it
    np.testing.assert_allclose(found, tone(rate_hz=8000, count=809) / 4, atol=STEP)


@pytest.mark.parametrize("rate_hz", [16_000, 11_025])
def test_resampled_tone_is_the_tone_at_the_new_rate(rate_hz):
    found = read_audio(FIXTURES / "good.flac", rate_hz=rate_hz)
    assert len(found) == round(809 * rate_hz / 8000)
    expected = tone(rate_hz=rate_hz, count=len(found))
    inside = slice(len(found) // 5, -len(found) // 5)
    # Beyond the filter's edges, what differs is its ripple.
    np.testing.assert_allclose(found[inside], expected[inside], atol=2e-3)


@pytest.mark.parametrize("suffix", ["ogg", "mp3"])
def test_lossy_formats_have_length_and_level(tmp_path, suffix):
    samples = tone(rate_hz=16_000, count=16_001)
    soundfile.write(tmp_path / f"a.{suffix}", samples, 16_000)
    found = read_audio(tmp_path / f"a.{suffix}", rate_hz=16_000)
    # An MP3 frame has up to 1152 samples; the codecs keep the level of a pure tone within a tenth.
    assert abs(len(found) - 16_001) <= 1152
    assert np.std(found) == pytest.approx(np.std(samples), rel=0.1)


def test_info_reads_the_header():
    info = audio_info(FIXTURES / "good.wav")
    assert (info.rate_hz, info.channels, info.frames, info.format) == (8000, 2, 809, "WAV")
    assert info.seconds == pytest.approx(0.101125)


def test_silence_and_a_single_sample_are_allowed(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(7), 8000)
    assert not read_audio(tmp_path / "a.wav", rate_hz=16_000).any()
    soundfile.write(tmp_path / "b.wav", np.full(1, 0.5), 8000)
    np.testing.assert_allclose(read_audio(tmp_path / "b.wav", rate_hz=8000), [0.5], atol=STEP)


def test_overshoot_is_clipped():
    found = resample(np.array([1.5, -1.5, 0.5]), from_hz=8000, rate_hz=8000, where="x")
    np.testing.assert_array_equal(found, np.float32([1.0, -1.0, 0.5]))


@pytest.mark.parametrize(
    "samples, found",
    [
        (np.zeros(0), "found none"),
        (np.zeros((0, 2)), "found none"),
        (np.zeros(3, dtype=np.int16), "Divide 16-bit samples by 32768"),
        (np.array([0.0, np.nan, np.inf]), "found 2 NaN or infinite of 3"),
        (np.array([0.0, 300.0]), "a peak of 300"),
    ],
)
def test_bad_samples_are_refused(samples, found):
    with pytest.raises(DataError, match=f"item 3: must .*{found}"):
        resample(samples, from_hz=8000, rate_hz=16_000, where="item 3")


def test_too_short_for_the_new_rate():
    with pytest.raises(DataError, match="long enough for one sample at 100 Hz; found 1 samples"):
        resample(np.zeros(1), from_hz=48_000, rate_hz=100, where="x")


@pytest.mark.parametrize(
    "name, found",
    [
        ("broken_no_samples.wav", "found none"),
        ("broken_nan.wav", "2 NaN or infinite of 809"),
        ("broken_scale.wav", "a peak of 16383"),
        ("broken_truncated.wav", "1596 bytes of samples where 3236 are announced"),
        ("broken_truncated.flac", "must be a whole recording"),
        ("broken_foreign.wav", "cannot be opened as one"),
        ("broken_empty.wav", "a file of 0 bytes"),
        ("absent.wav", "nothing there"),
    ],
)
def test_broken_fixtures_say_why(name, found):
    with pytest.raises(DataError, match=f"{name}: must .*{found}|{name}: {found}"):
        read_audio(FIXTURES / name, rate_hz=16_000)


def test_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'metatransformer\[audio\]'"):
        read_audio(FIXTURES / "good.wav", rate_hz=16_000)
