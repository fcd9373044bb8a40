"""Recordings that libsndfile does not read, by FFmpeg (PyAV).

These are AAC, AMR, WMA, Monkey's Audio, WavPack, Speex, FLAC inside Ogg, and the sound of films. The container is
named, not guessed, so that no playlist under such a name sends FFmpeg to other files.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MetaTransformerError, MissingDependencyError

CONTAINERS = {
    ".m4a": "mov",
    ".3gp": "mov",
    ".aac": "aac",
    ".amr": "amr",
    ".wma": "asf",
    ".ape": "ape",
    ".wv": "wv",
    ".spx": "ogg",
    ".mka": "matroska",
    ".weba": "matroska",
}
FILMS = {
    **dict.fromkeys((".mp4", ".m4v", ".mov", ".f4v", ".3g2"), "mov"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".avi", ".divx"), "avi"),
    **dict.fromkeys((".mpg", ".mpeg", ".vob"), "mpeg"),
    **dict.fromkeys((".mts", ".m2ts"), "mpegts"),
    **dict.fromkeys((".wmv", ".asf"), "asf"),
    ".flv": "flv",
    ".ogv": "ogg",
    ".mxf": "mxf",
    **dict.fromkeys((".gif", ".y4m"), ""),  # which have no sound
}
_ESTIMATED = ("aac", "amr", "mpeg", "mpegts")  # containers without a length: FFmpeg's is a guess from the size
_SPARE_S = 0.2  # a length may count what encoders put in front and behind


def container_of(path: Path) -> str:
    """Returns FFmpeg's name of the container of a file, empty for one that libsndfile reads."""
    with path.open("rb") as file:
        if b"\x7fFLAC" in file.read(64) and path.suffix.lower() in (".ogg", ".oga"):
            return "ogg"
    return (CONTAINERS | FILMS).get(path.suffix.lower(), "")


def has_sound(path: Path) -> bool:
    """Returns whether a file has sound: a film may have none. One that cannot be opened is said to have it, so that
    reading it says what is wrong.
    """
    container = (CONTAINERS | FILMS).get(path.suffix.lower())
    if path.is_dir() or container == "":
        return False
    if container is None:
        return True
    try:
        with _opened(path, container=container) as file:
            return bool(file.streams.audio) or not file.streams
    except MetaTransformerError:
        return True


def read_blocks(path: Path, *, container: str) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rate in Hz and samples ``[t, channels]`` float32, some at a time, of the first stream of sound.

    Raises:
        DataError: damaged, no sound in it, or cut off: shorter than its header says.
        MissingDependencyError: PyAV is not installed.
    """
    with _opened(path, container=container) as file:
        if not file.streams.audio:
            raise DataError(path, must="hold a stream of sound", found="none", do="Remove it.")
        stream, seconds = file.streams.audio[0], 0.0
        with _border(path):
            frames, plain = file.decode(stream), _av(path).AudioResampler(format="fltp")
        frame: Any = stream
        while frame is not None:
            with _border(path):
                frame = next(frames, None)
                blocks = [(part.sample_rate, part.to_ndarray().T) for part in plain.resample(frame)]
            for rate, block in blocks:
                seconds += len(block) / rate
                yield rate, block
        _require_whole(path, file, stream, seconds=seconds)


def _opened(path: Path, *, container: str) -> Any:
    av = _av(path)
    with _border(path):
        return av.open(str(path), format=container, metadata_errors="replace")


def _av(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError("av", extra="audio", purpose=f"reading {path}") from error
    return av


def _require_whole(path: Path, file: Any, stream: Any, *, seconds: float) -> None:
    if file.format.name in _ESTIMATED:
        return
    whole = 0 if file.streams.video else (file.duration or 0) / 1e6  # pictures may last longer than sound
    announced = float(stream.duration * stream.time_base) if stream.duration else whole
    if seconds < 0.98 * announced - _SPARE_S:
        must, found = f"be a whole recording of {announced:.4g} s, as its header says", f"{seconds:.4g} s"
        raise DataError(path, must=must, found=found, do="Remove it or copy it again.")


def _border(path: Path) -> foreign:
    return foreign(path, "FFmpeg", must="be a whole recording of the format that its ending says")
