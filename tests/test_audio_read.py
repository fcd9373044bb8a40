"""Recordings: scale, channels, rate; and what is wrong with a bad one."""

import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.core.samples import Record
from metatransformer.modalities.audio import SUFFIXES, load
from metatransformer.modalities.audio.mp3 import mp3_length
from metatransformer.modalities.audio.read import read_audio, resample

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


@pytest.mark.parametrize("ending", ["oga", "opus", "aiff", "aif", "au", "snd", "caf", "w64"])
def test_other_endings_of_libsndfile(tmp_path, ending):
    formats = {"oga": "OGG", "opus": "OGG", "aif": "AIFF", "snd": "AU"}
    subtype = "OPUS" if ending == "opus" else None
    samples = tone(rate_hz=16_000, count=16_001)
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, samples, 16_000, format=formats.get(ending, ending.upper()), subtype=subtype)
    assert path.suffix in SUFFIXES
    found = read_audio(path, rate_hz=16_000)
    assert len(found) == 16_001 and np.std(found) == pytest.approx(np.std(samples), rel=0.1)


def test_a_recording_that_cannot_be_asked_for_its_end(tmp_path):  # it ends with a whole block of 320 samples
    samples = tone(rate_hz=8000, count=8000)
    soundfile.write(tmp_path / "a.wav", samples, 8000, subtype="GSM610")
    assert not soundfile.SoundFile(tmp_path / "a.wav").seekable()
    found = read_audio(tmp_path / "a.wav", rate_hz=8000)
    assert 8000 <= len(found) <= 8320 and np.std(found) == pytest.approx(np.std(samples), rel=0.1)


@pytest.mark.parametrize("tag", [0, 60_000])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_an_mp3_without_an_index_is_read_to_its_end(tmp_path, mode, tag):
    quiet = np.concatenate([np.zeros(32_000), np.random.default_rng(0).normal(0, 0.2, size=48_000)])
    path = tmp_path / "a.mp3"
    soundfile.write(path, quiet, 16_000, bitrate_mode=mode, compression_level=0.5)
    data = path.read_bytes()
    whole, stated = mp3_length(path)
    assert stated and whole - 4 * 576 <= 80_000 <= whole
    second = data.index(data[:2], 10)  # frames begin alike
    front = b"ID3\4\0\0" + bytes(tag >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(tag)
    path.write_bytes((front if tag else b"") + data[second:])
    assert mp3_length(path) == (whole - 576, False)
    found = read_audio(path, rate_hz=16_000)
    assert abs(len(found) - 80_000) <= 3 * 576
    assert np.std(found[-40_000:]) == pytest.approx(0.2, rel=0.1)


def test_an_mp3_that_states_its_length_and_was_cut_is_refused(tmp_path):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(rate_hz=16_000, count=80_000), 16_000)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(
        DataError, match=r"a.mp3: must be a whole recording; found [\d,]+ samples where 80,000 are announ"
    ):
        read_audio(path, rate_hz=16_000)


def test_a_header_that_announces_too_much_takes_no_memory(tmp_path):
    data = bytearray((FIXTURES / "good.flac").read_bytes())
    data[21:26] = bytes([data[21] | 15, 255, 255, 255, 255])  # 36 bits of STREAMINFO: 6.9e10 samples
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.raises(DataError, match="a.flac: must be a whole recording"):
        read_audio(tmp_path / "a.flac", rate_hz=8000)


def with_tag(data: bytes) -> bytes:
    return b"ID3\4\0\0\0\0\7\x68" + bytes(1000) + data  # 7 * 128 + 104 bytes


def without_length(data: bytes) -> bytes:
    return data[:21] + bytes([data[21] & 0xF0, 0, 0, 0, 0]) + data[26:]  # 36 bits of STREAMINFO


@pytest.mark.parametrize("change", [with_tag, without_length])
def test_a_flac_with_a_tag_or_without_a_length_is_read(tmp_path, change):
    (tmp_path / "a.flac").write_bytes(change((FIXTURES / "good.flac").read_bytes()))
    found = read_audio(tmp_path / "a.flac", rate_hz=8000)
    np.testing.assert_array_equal(found, read_audio(FIXTURES / "good.flac", rate_hz=8000))


CODECS = {"m4a": "aac", "3gp": "aac", "aac": "aac", "wma": "wmav2", "wv": "wavpack", "mka": "flac", "weba": "libopus"}


def encoded(path: Path, samples: np.ndarray, *, codec: str) -> Path:
    """Writes samples [channels, t] at 48 kHz by FFmpeg."""
    with av.open(str(path), "w", format=FORMATS.get(path.suffix)) as file:
        stream = file.add_stream(codec, rate=48_000, layout="stereo", bit_rate=128_000)
        stream.codec_context.open()
        kind, size = stream.codec_context.format.name, stream.codec_context.frame_size or 1024
        plain = av.AudioResampler(format=kind, layout="stereo", rate=48_000, frame_size=size)
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 48_000
        for part in [*plain.resample(frame), *plain.resample(None), None]:
            for packet in stream.encode(part):
                file.mux([packet] if packet.size else [])
    return path


FORMATS = {".m4a": "mp4", ".wma": "asf", ".aac": "adts", ".mka": "matroska", ".weba": "webm"}


@pytest.mark.parametrize(("ending", "codec"), [*CODECS.items(), ("ogg", "flac"), ("oga", "flac")])
def test_formats_of_ffmpeg(tmp_path, ending, codec):
    left = tone(rate_hz=48_000, count=48_000)
    path = encoded(tmp_path / f"a.{ending}", np.stack([left, -left / 2]), codec=codec)
    assert path.suffix in SUFFIXES
    found = read_audio(path, rate_hz=16_000)
    assert abs(len(found) - 16_000) <= 2 * 2048 / 3  # what encoders put in front and behind
    assert np.std(found[2000:14_000]) == pytest.approx(np.std(left) / 4, rel=0.05)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if ending not in ("aac", "wma", "ogg", "oga"):  # of these FFmpeg knows no length but that of what is there
        with pytest.raises(DataError, match=f"a.{ending}: must be a whole recording"):
            read_audio(path, rate_hz=16_000)


def test_no_file_of_sound_sends_the_reader_to_others(tmp_path):
    soundfile.write(tmp_path / "b.wav", np.zeros(7), 8000)
    (tmp_path / "a.m4a").write_text(f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'b.wav'}\n#EXT-X-ENDLIST\n")
    with pytest.raises(DataError, match=r"a.m4a: must be a whole recording.*FFmpeg"):
        read_audio(tmp_path / "a.m4a", rate_hz=8000)
    with av.open(str(tmp_path / "c.mka"), "w", format="matroska") as file:
        stream = file.add_stream("mpeg4", rate=25, width=16, height=16)
        for packet in [*stream.encode(av.VideoFrame(16, 16, "yuv420p")), *stream.encode(None)]:
            file.mux(packet)
    with pytest.raises(DataError, match=r"c.mka: must hold a stream of sound; found none"):
        read_audio(tmp_path / "c.mka", rate_hz=8000)


def test_few_bytes_do_not_become_hours(tmp_path):
    """A rate of 1 Hz makes hours of a few samples, and silence is packed 10,000 to 1."""
    soundfile.write(tmp_path / "a.wav", np.zeros(4000), 1)
    with pytest.raises(DataError, match=r"a.wav: must last at most 3,600 s; found more, at 1 Hz"):
        read_audio(tmp_path / "a.wav", rate_hz=16_000)
    soundfile.write(tmp_path / "a.flac", np.zeros(3_700_000, dtype=np.int16), 1000)
    assert (tmp_path / "a.flac").stat().st_size < 20_000
    with pytest.raises(DataError, match=r"a.flac: must last at most 3,600 s; found more, at 1,000 Hz"):
        read_audio(tmp_path / "a.flac", rate_hz=16_000)


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
        ("broken_foreign.wav", "a damaged one .libsndfile: .*Format not recognised"),
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
