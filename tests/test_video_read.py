"""Videos: every kind of file shows the same frames at the same times, and damage is refused by name."""

import importlib.util
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from common import FIXTURES
from PIL import Image

from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data import limits
from metatransformer.modalities.video import read as module
from metatransformer.modalities.video.read import FILM_SUFFIXES, open_video, video_of_array

FOLDER = FIXTURES / "video"
av = pytest.importorskip("av")


def _maker():
    spec = importlib.util.spec_from_file_location("make_video", Path(__file__).parent / "makers" / "video.py")
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


MAKER = _maker()


def all_frames(path: Path) -> np.ndarray:
    video = open_video(path)
    return np.stack(list(video.pick(range(len(video)))))


@pytest.mark.parametrize("name", ["mp4", "avi", "mov", "mkv", "webm", "gif", "mpeg"])
def test_every_format_shows_the_same_frames(name: str):
    found = all_frames(FOLDER / f"good.{name}")
    expected = MAKER.square(11)
    assert found.shape == expected.shape and found.dtype == np.uint8
    away = np.abs(found.astype(float)[:, None] - expected[None]).mean(axis=(2, 3, 4))  # [found, expected]
    assert (away.argmin(axis=1) == np.arange(11)).all()
    # Lossy codecs at their default quality lose up to 6 grey levels here; frames differ by 5 to 40.
    assert away.diagonal().max() < (0.01 if name == "mkv" else 7)


@pytest.mark.parametrize(
    ("name", "step", "duration"),
    [("mp4", 0.1, 1.1), ("avi", 0.1, 1.1), ("webm", 0.1, 1.1), ("gif", 0.1, 1.3), ("mpeg", 0.04, 0.44)],
)
def test_times_are_those_of_the_file(name: str, step: float, duration: float):
    video = open_video(FOLDER / f"good.{name}")
    assert video.timed and video.duration_s == pytest.approx(duration)  # the GIF's last frame stays 0.3 s
    np.testing.assert_allclose(video.times_s, np.arange(11) * step, atol=1e-9)


def test_a_film_without_any_compression(tmp_path: Path):
    levels = (16, 126, 235)  # black, grey and white of video
    frames = b"".join(b"FRAME\n" + bytes([level]) * 128 + bytes([128]) * 256 for level in levels)
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H8 F10:1 Ip A1:1 C444\n" + frames)
    assert all(name in FILM_SUFFIXES for name in (".y4m", ".mts", ".m2ts", ".3g2", ".asf"))
    found = all_frames(tmp_path / "a.y4m")
    assert found.shape == (3, 8, 16, 3)
    np.testing.assert_allclose(found[:, 0, 0, 0], [0, 128, 255], atol=1)  # rounded
    assert open_video(tmp_path / "a.y4m").duration_s == pytest.approx(0.3)


def test_grey_of_16_bits_and_a_single_frame_are_read():
    expected = MAKER.square(11)
    luma = expected @ np.array([0.299, 0.587, 0.114])
    grey = all_frames(FOLDER / "good_grey.mkv")
    assert grey.shape == (11, 32, 32, 3)
    assert np.abs(grey - luma[..., None]).max() < 3  # rounding on the way to 16 bits of luma and back
    one = open_video(FOLDER / "good_one_frame.mp4")
    assert len(one) == 1 and one.duration_s == pytest.approx(0.1)


def test_a_turned_film_is_shown_upright():
    plain, turned = all_frames(FOLDER / "good.mp4"), all_frames(FOLDER / "good_turned.mp4")
    assert np.array_equal(turned, np.rot90(plain, k=-1, axes=(1, 2)))  # a quarter to the right


def test_frames_of_uneven_length_are_found_by_time(tmp_path: Path):
    path = tmp_path / "uneven.mkv"
    steps = [0, 1, 2, 30, 31]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgr0"
        stream.codec_context.time_base = Fraction(1, 10)
        for frame, step in zip(MAKER.square(5), steps, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = step, Fraction(1, 10)
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    video = open_video(path)
    np.testing.assert_allclose(video.times_s, [0, 0.1, 0.2, 3.0, 3.1])
    assert [video.frame_at(t) for t in (-1, 0, 0.15, 2.9, 3.05, 99)] == [0, 0, 1, 2, 3, 4]
    assert np.array_equal(next(iter(video.pick([3]))), MAKER.square(5)[3])


@pytest.fixture
def long_film(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """A film of 97 frames, each of another grey, with a key frame at every twelfth and frames that look ahead."""
    path, frames = tmp_path / "long.mp4", np.repeat(np.arange(97, dtype=np.uint8) * 2 + 20, 32 * 32 * 3)
    frames = frames.reshape(97, 32, 32, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, 2
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path, frames


def test_jumps_give_the_same_frames_as_reading_through(long_film: tuple[Path, np.ndarray]):
    path, frames = long_film
    whole = all_frames(path)
    assert np.abs(whole.mean(axis=(1, 2, 3)) - frames.mean(axis=(1, 2, 3))).max() < 5  # of 192: a lossy codec
    wanted = [0, 3, 41, 42, 60, 95, 96]
    assert np.array_equal(np.stack(list(open_video(path).pick(wanted))), whole[wanted])


def test_a_jump_that_misses_falls_back_to_reading_through(
    long_film: tuple[Path, np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    path, _ = long_film
    expected = all_frames(path)[[41, 60]]
    real = module._Cursor.jump
    jumps = []

    def beyond(self: module._Cursor, wanted: int) -> None:
        real(self, wanted + 24 * 1024)  # two key frames too far
        jumps.append(self.jumped)

    monkeypatch.setattr(module._Cursor, "jump", beyond)
    assert np.array_equal(np.stack(list(open_video(path).pick([41, 60]))), expected)
    assert any(jumps)


def test_pixels_that_are_not_square_are_stretched(tmp_path: Path):
    path = tmp_path / "wide.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)
        for frame in MAKER.square(3):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    assert all_frames(path).shape == (3, 32, 48, 3)


def test_transparent_frames_lie_on_white(tmp_path: Path):
    pictures = [Image.new("RGBA", (16, 16), (0, 0, 0, 0)) for _ in range(2)]
    for number, picture in enumerate(pictures):
        picture.paste((200, 0, 0, 255), (number, 0, number + 8, 8))
    pictures[0].save(tmp_path / "clear.gif", save_all=True, append_images=pictures[1:], duration=100, disposal=2)
    found = all_frames(tmp_path / "clear.gif")
    assert found[0, 12, 12].tolist() == [255, 255, 255] and found[0, 4, 4, 0] > 190 and found[0, 4, 4, 1] < 10


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("broken_empty.mp4", "must be a video; found a file of 0 bytes"),
        ("broken_foreign.mp4", "a damaged one .FFmpeg: .*Invalid data found.*ffmpeg -i"),
        ("broken_sound_only.avi", "must hold a stream of pictures; found audio"),
        ("broken_end.mp4", "must be a whole video of 1.1 s, .*found 0.2 s, so it was cut off"),
        ("broken_truncated.mkv", "must be a whole video of 1.1 s"),
        ("broken_truncated.gif", "must end with the end mark of a GIF"),
        ("missing.mp4", "must be a video; found nothing there"),
    ],
)
def test_what_is_no_whole_film_is_refused_in_words(name: str, words: str):
    with pytest.raises(DataError, match=f"{name}: .*{words}|{name}: {words}"):
        all_frames(FOLDER / name)


@pytest.mark.parametrize("name", ["good.mp4", "good.avi", "good.mkv", "good.webm", "good.gif"])
def test_no_cut_file_is_read_as_if_it_were_whole(name: str, tmp_path: Path):
    data = (FOLDER / name).read_bytes()
    expected = all_frames(FOLDER / name)
    path = tmp_path / name
    for length in range(1, len(data), max(1, len(data) // 53)):
        path.write_bytes(data[:length])
        try:
            found = all_frames(path)
        except DataError as error:
            assert name in str(error)
            continue
        # What comes after the last frame (an index) may be missing, and up to three frames (``_require_whole``).
        assert len(found) >= len(expected) - 3, length


@pytest.mark.parametrize("name", ["good.mp4", "good.avi", "good.mkv", "good.webm", "good.gif", "good.mpeg"])
def test_wrong_bytes_raise_nothing_but_ours(name: str, tmp_path: Path):
    rng = np.random.default_rng(0)
    path = tmp_path / name
    for _ in range(37):
        data = bytearray((FOLDER / name).read_bytes())
        for place in rng.integers(0, len(data), size=5):
            data[place] = rng.integers(0, 256)
        path.write_bytes(data)
        try:
            all_frames(path)
        except DataError as error:
            assert name in str(error)


def test_a_folder_of_frames_is_read_in_natural_order(tmp_path: Path):
    for number in (10, 9, 1):
        Image.new("RGB", (4, 3), (number, 0, 0)).save(tmp_path / f"f{number}.png")
    (tmp_path / "notes.txt").write_text("no frame")
    (tmp_path / ".hidden.png").write_bytes(b"")
    video = open_video(tmp_path)
    assert len(video) == 3 and not video.timed and video.duration_s == 3
    assert [frame[0, 0, 0] for frame in video.pick([0, 1, 2])] == [1, 9, 10]
    fast = video.at_rate(20.0)
    assert fast.timed and fast.duration_s == pytest.approx(0.15) and fast.frame_at(0.11) == 2


def test_a_folder_of_several_sizes_or_none_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="must hold the frames of a video as pictures; found none"):
        open_video(tmp_path)
    Image.new("L", (4, 3)).save(tmp_path / "1.png")
    Image.new("L", (5, 3)).save(tmp_path / "2.png")
    with pytest.raises(DataError, match="2.png: must have 3 x 4 pixels, as the frames before it; found 3 x 5"):
        list(open_video(tmp_path).pick([0, 1]))


def test_arrays_become_colour():
    grey = np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 257
    grey[1, 2, 3] = 65535  # all 16 bits are in use
    video = video_of_array(grey, rate_hz=5.0, where="x")
    assert video.timed and video.duration_s == pytest.approx(0.4)
    assert np.array_equal(np.stack(list(video.pick([0, 1])))[..., 1], grey // 257)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((3, 4), np.uint8), r"must have the shape .*found \(3, 4\)"),
        (np.zeros((0, 3, 4), np.uint8), "with at least one frame"),
        (np.zeros((2, 3, 4, 2), np.uint8), r"found \(2, 3, 4, 2\)"),
        (np.zeros((2, 3, 4), np.float32), "must be uint8 .*found float32"),
    ],
)
def test_other_arrays_are_refused(frames: np.ndarray, words: str):
    with pytest.raises(DataError, match=f"clip 7: frames: .*{words}|clip 7: frames: {words}"):
        video_of_array(frames, where="clip 7")


def test_giant_frames_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "MOST_PIXELS", 1000)
    with pytest.raises(DataError, match="good.mp4: must have at most 0 million pixels; found 32 x 32"):
        open_video(FOLDER / "good.mp4")


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_values_of_few_bits_in_16_are_shown_over_their_own_range(bits: int, tmp_path: Path):
    full = 2**bits - 1
    frames = np.linspace(0, full, 11 * 5 * 7).reshape(11, 5, 7).astype(np.uint16)
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{number}.png")
    expected = frames[[2, 9]].astype(int) * 255 // full
    for video in (open_video(tmp_path), video_of_array(frames, where="x")):
        found = np.stack(list(video.pick([2, 9])))
        np.testing.assert_array_equal(found[:, :, :, 0], expected)


def test_a_gif_without_a_palette_is_grey(tmp_path: Path):
    frames = [Image.fromarray((np.arange(35).reshape(5, 7) * 7 + step * 3).astype(np.uint8)) for step in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=100)
    data = (tmp_path / "a.gif").read_bytes()
    size = 3 << ((data[10] & 7) + 1)
    (tmp_path / "a.gif").write_bytes(data[:10] + bytes([data[10] & 0x7F]) + data[11:13] + data[13 + size :])
    video = open_video(tmp_path / "a.gif")
    (first,) = video.pick([0])
    assert len(video) == 3
    np.testing.assert_array_equal(first[:, :, 0], np.arange(35).reshape(5, 7))  # the numbers of its colours


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"metatransformer\[video\]"):
        open_video(FOLDER / "good.mp4")
