"""Videos as frames: a film file, a folder of pictures, an array; read one frame at a time.

Opening a film reads the times of its frames without decoding any. Frames are then decoded in order,
with a jump to the last key frame before a wanted one, and shown as a person sees them: turned as
the file says, with square pixels, transparency on white. What is in memory is one frame of full
size, however long the film is.

Sources: the display matrix and the edit list of ISO/IEC 14496-12; FFmpeg through PyAV for the rest.
Limits: the first stream of pictures is read; HDR is shown without tone mapping. A film whose file
states no length (MPEG streams) may have been cut off without a sign.
"""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.limits import require_pixels
from metatransformer.data.records import natural_key
from metatransformer.modalities._picture.pixels import as_rgb, full_scale, resize
from metatransformer.modalities._picture.read import PICTURE_SUFFIXES, read_image

FILM_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".avi",
    ".mkv",
    ".webm",
    ".gif",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
)
FILM_SUFFIXES += (".3g2", ".asf", ".divx", ".f4v", ".m2ts", ".mts", ".mxf", ".vob", ".y4m")
FRAME_SUFFIXES = tuple(ending for ending in PICTURE_SUFFIXES if ending != ".gif")  # which is a film
LOOKED_AT = 8  # frames of a folder whose brightest value says how many of 16 bits are used
# A file's own length is rounded, and the last frame may last shorter than the others.
TOLERANCE = 0.02
SPARED = 16  # frames to decode that a jump must spare: a jump costs as much as a few of them
_CONVERT = "Convert it, for instance with: ffmpeg -i FILE -c:v libx264 NEW.mp4"


@dataclass(frozen=True)
class Video:
    """The frames of one video, still unread.

    ``times_s`` [n] says when each frame begins, the first at 0, and ``duration_s`` when the last one ends; without a
    known rate (``timed`` False) they count frames. ``pick(numbers)`` yields the frames of these numbers, which must
    rise, as RGB uint8 ``[h, w, 3]`` with square pixels; sizes differ only where the film itself changes its size.
    """

    where: str
    times_s: np.ndarray
    duration_s: float
    timed: bool
    pick: Callable[[Sequence[int]], Iterator[np.ndarray]]

    def __len__(self) -> int:
        return len(self.times_s)

    def at_rate(self, rate_hz: float) -> "Video":
        """Returns a video of unknown rate with the times that this rate gives its frames."""
        assert not self.timed
        times = self.times_s / rate_hz
        return replace(self, times_s=times, duration_s=self.duration_s / rate_hz, timed=True)

    def frame_at(self, time_s: float) -> int:
        """Returns the number of the frame that is shown at this time; the first before the start."""
        return max(0, int(np.searchsorted(self.times_s, time_s, side="right")) - 1)


def open_video(path: Path) -> Video:
    """Returns a film file, or a folder of pictures of unknown rate, as a video.

    Raises:
        DataError: no pictures in it; a damaged, truncated or foreign file.
        MissingDependencyError: PyAV is not installed and the path is a film.
    """
    return _open_folder(path) if path.is_dir() else _open_film(path)


def video_of_array(frames: np.ndarray, *, rate_hz: float = 0.0, where: str) -> Video:
    """Returns an array ``[t, h, w]``, ``[t, h, w, 1]`` or ``[t, h, w, 3]`` of uint8 or uint16 as a video.

    Of 16 bits as many are shown as the brightest value uses: 10, 12, 14 or all.

    Raises:
        DataError: another shape or type, or no frame.
    """
    if frames.ndim not in (3, 4) or 0 in frames.shape or (frames.ndim == 4 and frames.shape[3] not in (1, 3)):
        raise DataError(
            f"{where}: frames",
            must="have the shape [t, h, w], [t, h, w, 1] or [t, h, w, 3] with at least one frame",
            found=str(frames.shape),
        )
    if frames.dtype not in (np.uint8, np.uint16):
        raise DataError(
            f"{where}: frames",
            must="be uint8 (0..255) or uint16 (0..65535)",
            found=str(frames.dtype),
            do="Scale the values to 0..255 and convert them with astype('uint8').",
        )
    top = full_scale(int(frames.max())) if frames.dtype == np.uint16 else 255
    pick = partial(_pick_from_array, frames, where, top)
    return _steady(len(frames), rate_hz=rate_hz, pick=pick, where=where)


def _pick_from_array(frames: np.ndarray, where: str, top: int, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    for number in numbers:
        yield as_rgb(frames[number], where=where, top=top)


def _steady(count: int, *, rate_hz: float, pick: Callable[..., Any], where: str) -> Video:
    """Returns a video whose frames follow each other at one rate."""
    step = 1 / rate_hz if rate_hz else 1.0
    return Video(where, np.arange(count) * step, count * step, bool(rate_hz), pick)


# --- folders of pictures ----------------------------------------------------------------------------------------------


def frame_files(folder: Path) -> list[Path]:
    """Returns the pictures that stand directly in a folder, in natural order, hidden ones left out."""
    names = [path.name for path in folder.iterdir() if path.suffix.lower() in FRAME_SUFFIXES]
    return [folder / name for name in sorted(names, key=natural_key) if not name.startswith(".")]


def _open_folder(folder: Path) -> Video:
    files = frame_files(folder)
    if not files:
        raise DataError(
            folder,
            must="hold the frames of a video as pictures",
            found="none",
            do=f"Frames end in {', '.join(FRAME_SUFFIXES)}.",
        )
    return _steady(len(files), rate_hz=0.0, pick=partial(_pick_from_folder, files), where=str(folder))


def _pick_from_folder(files: Sequence[Path], numbers: Sequence[int]) -> Iterator[np.ndarray]:
    first: tuple[int, ...] = ()
    top = 0
    for number in numbers:
        raw = read_image(files[number])
        if raw.dtype == np.uint16 and not top:  # few cameras use all 16 bits
            some = files[:: math.ceil(len(files) / LOOKED_AT)]
            top = full_scale(max(int(read_image(file).max()) for file in some))
        pixels = as_rgb(raw, where=str(files[number]), top=top)
        first = first or pixels.shape
        if pixels.shape != first:
            raise DataError(
                files[number],
                must=f"have {first[0]} x {first[1]} pixels, as the frames before it",
                found=f"{pixels.shape[0]} x {pixels.shape[1]}",
                do="Put pictures that are no frames of one video elsewhere.",
            )
        yield pixels


# --- films ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Film:
    """A film file with the times of its frames and key frames, in units of its stream."""

    path: Path
    times: np.ndarray
    keys: np.ndarray


def _open_film(path: Path) -> Video:
    container, stream = _opened(path)
    with container:
        if stream.codec_context is None:
            raise DataError(path, must="have a codec that FFmpeg knows", found="another one, or damage", do=_CONVERT)
        require_pixels(path, height=stream.codec_context.height, width=stream.codec_context.width)
        times, keys, end = _read_times(container, stream, path=path)
        base = float(stream.time_base)
    pick = partial(_pick_from_film, _Film(path, times, keys))
    return Video(str(path), (times - times[0]) * base, float(end - times[0]) * base, True, pick)


def _opened(path: Path) -> tuple[Any, Any]:
    """Returns the open container of a film and its first stream of pictures."""
    try:
        import av
        from av.stream import Disposition
    except ImportError as error:
        raise MissingDependencyError("av", extra="video", purpose="reading video files") from error
    if not path.is_file() or path.stat().st_size == 0:
        found = "a file of 0 bytes" if path.is_file() else "nothing there"
        raise DataError(path, must="be a video", found=found, do="Remove it or copy it again.")
    source = _with_palette(path) if path.suffix.lower() == ".gif" else str(path)
    with _border(path):
        container = av.open(source, metadata_errors="replace")
        shown = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        others = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
    if not shown:
        container.close()
        do = "Remove it, or copy it again: a truncated file can look like that."
        raise DataError(path, must="hold a stream of pictures", found=others, do=do)
    return container, shown[0]


def _with_palette(path: Path) -> str | io.BytesIO:
    """Returns what is to be opened of a GIF: where it has no palette of its own, a copy with all grey levels."""
    with path.open("rb") as file:
        start = file.read(13)
        if start[:3] != b"GIF" or len(start) < 13 or start[10] & 0x80:
            return str(path)
        greys = bytes(level for number in range(256) for level in (number, number, number))
        return io.BytesIO(start[:10] + bytes([start[10] | 0x87]) + start[11:] + greys + file.read())


def _border(path: Path) -> foreign:
    return foreign(path, "FFmpeg", must="be a whole video", do=f"Copy it again. {_CONVERT}")


def _read_times(container: Any, stream: Any, *, path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    """Returns when each frame and each key frame is shown, in order, and when the last one ends.

    Raises:
        DataError: no frame, frames without times, or fewer than the file announces.
    """
    times, keys, step, last = [], [], 0, 0.0
    with _border(path):
        packets = [
            (
                packet.dts if packet.pts is None else packet.pts,
                packet.duration or 0,
                packet.time_base,
                packet.stream.index == stream.index and not packet.is_discard,
                packet.is_keyframe,
            )
            for packet in container.demux()
            if packet.size and packet.time_base is not None
        ]
    for time, duration, base, counts, is_key in packets:
        if time is not None:
            last = max(last, float((time + duration) * base))
        if not counts:
            continue
        if time is None:
            raise _no_time(path)
        times.append(time)
        keys += [time] if is_key else []
        step = duration or step
    if not times:
        raise DataError(path, must="hold at least one frame", found="none", do="Remove it.")
    shown = np.unique(np.array(times, dtype=np.int64))
    step = step or (int(np.median(np.diff(shown))) if len(shown) > 1 else 1)
    end = int(shown[-1]) + step
    _require_whole(container, stream, end=end, last=last, step=step, path=path)
    return shown, np.unique(np.array(keys, dtype=np.int64)), end


def _require_whole(container: Any, stream: Any, *, end: int, last: float, step: int, path: Path) -> None:
    """Raises DataError when a file ends before its end mark or before the time that its header announces."""
    if container.format.name == "gif" and not _tail(path).rstrip(b"\0").endswith(b";"):
        must, found = "end with the end mark of a GIF", "none, so it was cut off"
        raise DataError(path, must=must, found=found, do="Copy it again.")
    base = float(stream.time_base)
    if stream.duration:
        promised, found = stream.duration * base, (end - (stream.start_time or 0)) * base
    elif container.duration:
        promised, found = container.duration / 1e6, last - (container.start_time or 0) / 1e6
    else:
        return
    if found < promised * (1 - TOLERANCE) - 3 * step * base:
        raise DataError(
            path,
            must=f"be a whole video of {promised:.4g} s, as its header says",
            found=f"{found:.4g} s, so it was cut off",
            do="Copy it again.",
        )


def _tail(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 4096))
        return file.read()


def _pick_from_film(film: _Film, numbers: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields the frames of rising numbers, by jumps to key frames; in one go where a jump misses."""
    done = 0
    try:
        for picture in _decoded(film, numbers, jump=True):
            done += 1
            yield picture
    except _Missed:
        yield from _decoded(film, numbers[done:], jump=False)


class _Missed(Exception):
    """A jump in a film ended behind the wanted frame."""


def _decoded(film: _Film, numbers: Sequence[int], *, jump: bool) -> Iterator[np.ndarray]:
    container, stream = _opened(film.path)
    with container:
        ratio = stream.sample_aspect_ratio
        cursor = _Cursor(container, stream, film)
        for wanted in film.times[list(numbers)].tolist():
            if jump:
                cursor.jump(wanted)
            yield _picture(cursor.at(wanted), ratio=float(ratio) if ratio else 1.0, path=film.path)


class _Cursor:
    """A place in a film: ``held`` is the last frame that was passed, ``ahead`` one that is known to come."""

    def __init__(self, container: Any, stream: Any, film: _Film) -> None:
        self.container, self.stream, self.film = container, stream, film
        self.frames = container.decode(stream)
        self.held = self.ahead = None
        self.jumped = False

    def jump(self, wanted: int) -> None:
        """Goes to the last key frame before ``wanted`` where that spares the decoding of many frames."""
        times, keys = self.film.times, self.film.keys
        newest = self.held if self.ahead is None else self.ahead
        here = times[0] if newest is None else self._time(newest)
        place = int(np.searchsorted(keys, wanted, side="right"))
        if place == 0 or np.searchsorted(times, keys[place - 1]) - np.searchsorted(times, here) < SPARED:
            return
        with _border(self.film.path):
            self.container.seek(int(keys[place - 1]), stream=self.stream)
            self.frames = self.container.decode(self.stream)
        self.held = self.ahead = None
        self.jumped = True

    def at(self, wanted: int) -> Any:
        """Returns the frame that is shown at ``wanted``, which must not fall; the first one before the start.

        Raises:
            _Missed: the last jump ended behind it.
            DataError: no frame can be decoded.
        """
        while self.held is None or self._time(self.held) < wanted:
            if self.ahead is None:
                with _border(self.film.path):
                    self.ahead = next(self.frames, None)
            late = self.ahead is None or self._time(self.ahead) > wanted
            if late and self.held is not None:
                break
            if late and self.jumped:
                raise _Missed
            if self.ahead is None:
                raise DataError(self.film.path, must="hold frames that can be decoded", found="none", do=_CONVERT)
            self.held, self.ahead = self.ahead, None
        return self.held

    def _time(self, frame: Any) -> int:
        time = frame.dts if frame.pts is None else frame.pts
        if time is None:
            raise _no_time(self.film.path)
        return time


def _no_time(path: Path) -> DataError:
    return DataError(path, must="say when each frame is shown", found="frames without a time", do=_CONVERT)


def _picture(frame: Any, *, ratio: float, path: Path) -> np.ndarray:
    """Returns a decoded frame as a person sees it; ``ratio`` is the width of a pixel to its height.

    Raises:
        DataError: the decoder marked it as damaged.
    """
    if frame.is_corrupt:
        raise DataError(
            path,
            must="be undamaged",
            found=f"a damaged frame at {float(frame.time or 0):.4g} s",
            do=f"Copy it again. {_CONVERT}",
        )
    clear = any(component.is_alpha for component in frame.format.components)
    with _border(path):
        pixels = frame.to_ndarray(format="rgba" if clear else "rgb24")
    if clear:
        rgba = pixels.astype(np.uint16)
        alpha = rgba[:, :, 3:]
        pixels = ((rgba[:, :, :3] * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
    if ratio != 1:
        height, width = pixels.shape[:2]
        pixels = resize(pixels, size=(height, max(1, round(width * ratio))))
    return np.ascontiguousarray(np.rot90(pixels, k=round(frame.rotation / 90)))
