"""Makes the small videos in ``tests/fixtures/video``: a square that moves right, and what goes wrong with films."""

import struct
import tempfile
import wave
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

FRAMES, SIDE, RATE_HZ = 11, 32, 10


def make(folder: Path) -> None:
    """Writes 11 frames of 32 x 32 at 10 Hz in every kind of file, and broken ones."""
    frames = square(FRAMES)
    for ending, codec, pixels in (
        ("mp4", "mpeg4", "yuv420p"),
        ("avi", "mpeg4", "yuv420p"),
        ("mov", "mjpeg", "yuvj420p"),
        ("mkv", "ffv1", "bgr0"),
        ("webm", "libvpx-vp9", "yuv420p"),
    ):
        write_film(folder / f"good.{ending}", frames, codec=codec, pixels=pixels)
    write_film(folder / "good.mpeg", frames, codec="mpeg2video", pixels="yuv420p", rate_hz=25)
    write_film(folder / "good_grey.mkv", frames, codec="ffv1", pixels="gray16le")
    write_film(folder / "good_one_frame.mp4", frames[:1], codec="mpeg4", pixels="yuv420p")
    write_gif(folder / "good.gif", frames, step_ms=100)
    write_turned(folder / "good_turned.mp4", (folder / "good.mp4").read_bytes())
    for name in ("good.mp4", "good.avi", "good.mkv", "good.webm", "good.gif"):
        data = (folder / name).read_bytes()
        (folder / f"broken_truncated{Path(name).suffix}").write_bytes(data[: len(data) // 2])
    write_fragment(folder / "broken_end.mp4", frames)
    write_sound(folder / "broken_sound_only.avi")
    (folder / "broken_foreign.mp4").write_text("This is a text file.\n")
    (folder / "broken_empty.mp4").write_bytes(b"")


def square(count: int) -> np.ndarray:
    """Returns ``[count, 32, 32, 3]`` uint8: a bright square that moves two pixels a frame."""
    frames = np.full((count, SIDE, SIDE, 3), (40, 50, 60), dtype=np.uint8)
    for number in range(count):
        frames[number, 4:12, 2 * number : 2 * number + 8] = (220, 200, 180)
    return frames


def write_film(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str,
    pixels: str,
    rate_hz: int = RATE_HZ,
    options: Mapping[str, str] | None = None,
) -> None:
    """Writes frames ``[t, h, w, 3]`` as a film; ``options`` are those of its container."""
    import av

    with av.open(str(path), "w", options=dict(options or {})) as container:
        stream = container.add_stream(codec, rate=rate_hz)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], pixels
        stream.codec_context.thread_count = 1  # the same bytes on every machine
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def write_gif(path: Path, frames: np.ndarray, *, step_ms: int) -> None:
    """Writes an animated GIF whose last frame stays three times as long."""
    pictures = [Image.fromarray(frame) for frame in frames]
    steps = [step_ms] * (len(pictures) - 1) + [3 * step_ms]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=steps, loop=0)


def write_turned(path: Path, film: bytes) -> None:
    """Writes an MP4 whose header says that it is to be shown turned by a quarter to the right."""
    start = film.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other values
    matrix = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, SIDE << 16, 0, 1 << 30)
    path.write_bytes(film[:start] + matrix + film[start + 36 :])


def write_fragment(path: Path, frames: np.ndarray) -> None:
    """Writes an MP4 with its index in front and half of the frames missing, as a broken download leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "film.mp4"
        write_film(whole, frames, codec="mpeg4", pixels="yuv420p", options={"movflags": "faststart"})
        data = whole.read_bytes()
    start = data.index(b"mdat")
    path.write_bytes(data[: start + (len(data) - start) // 2])


def write_sound(path: Path) -> None:
    """Writes a sound of 0.1 s under the ending of a film."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1600))
