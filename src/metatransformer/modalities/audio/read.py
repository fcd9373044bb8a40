"""Recordings as one channel of samples at the wanted rate.

Channels are averaged; the rate is changed by soxr's HQ filter, whose delay it removes itself.
Sources: WAV, FLAC, OGG, MP3 and others through libsndfile, AAC and others through FFmpeg (``ffmpeg.py``); values are
scaled to -1..1 as these do (full scale = 1).
"""

import io
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.records import listing
from metatransformer.modalities.audio.ffmpeg import container_of, read_blocks
from metatransformer.modalities.audio.mp3 import mp3_length

MOST_SECONDS = 3600  # of one recording
# Decoders and resamplers overshoot full scale a little (clipped to 1); beyond this the file has another scale.
_LOUDEST = 2.0
_LEAST_HZ, _MOST_HZ = 500, 4_000_000  # what is outside is no rate of a recording, and takes forever to resample
_MOST_TIMES = 40  # as many bits a second has the fastest MP3 as the slowest
_BLOCK = 1 << 17  # values read at a time
_UNKNOWN = (1 << 63) - 1  # libsndfile's length of a stream that states none
# libsndfile's log of a WAV whose data chunk promises more bytes than the file has.
_SHORT = re.compile(r"^data\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# Lengths that programs write which stream a WAV to a pipe and cannot go back to fill it in.
_STREAMED = (0, 0x7FFFFFFF, 0xFFFFFFFF)
# MP3 has no exact length in its header: decoders add or drop up to two frames of 1152 samples.
_SPARE = 2 * 1152


def read_audio(path: str | Path, *, rate_hz: int) -> np.ndarray:
    """Returns the recording as float32 ``[t]`` in -1..1 at ``rate_hz``, its channels averaged. Silence is allowed.

    Raises:
        DataError: no such file, no recording, a truncated one, no sample, NaN or infinite samples, samples beyond twice
            full scale, more than ``MOST_SECONDS``.
        MissingDependencyError: soundfile, soxr or PyAV is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, must="be a recording", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a recording", found="a file of 0 bytes", do="Remove it.")
    if container := container_of(path):
        rate, mono = _gathered(read_blocks(path, container=container), path=path)
    else:
        rate, mono = _by_libsndfile(path)
    return _at_rate(mono, from_hz=rate, rate_hz=rate_hz, where=path)


def _by_libsndfile(path: Path) -> tuple[int, np.ndarray]:
    """Returns rate and samples of a file; some cannot be asked where they end, of others that is an estimate."""
    with _opened(path, path) as file:
        announced, (rate, mono) = file.frames, _gathered(_blocks(file, path=path), path=path)
        about, is_mp3 = file.extra_info, file.format in ("MP3", "MPEG")
    if is_mp3:
        length, stated = mp3_length(path)
        if not stated and announced < length - _SPARE:
            mono = _read_longer(path, by=length / max(1, announced))
        announced = announced if stated else length
    short = _SHORT.search(about)
    if short and int(short[1]) > int(short[2]) and int(short[1]) not in _STREAMED:
        raise _damaged(path, found=f"{short[2]} bytes of samples where {short[1]} are announced")
    if len(mono) < announced - _SPARE and announced != _UNKNOWN:
        raise _damaged(path, found=f"{len(mono):,} samples where {announced:,} are announced")
    return rate, mono


def _opened(source: Any, path: Path) -> Any:
    """Returns a file of libsndfile that is read forward only: in some it finds no place again, a FLAC behind a tag or
    one that was streamed and states no length."""
    soundfile = _soundfile()

    class Forward(soundfile.SoundFile):
        def seekable(self) -> bool:
            return False

    with _border(path):
        return Forward(source)


def _blocks(file: Any, *, path: Path) -> Iterator[tuple[int, np.ndarray]]:
    """Yields the rate and samples ``[t, channels]``, some at a time."""
    rows, count = max(1, _BLOCK // file.channels), -1
    while count:
        with _border(path):  # not into a buffer: where that fails, Python's garbage collector stumbles over its view
            block = file.read(rows, dtype="float32", always_2d=True)
        count = len(block)
        yield file.samplerate, block


def _gathered(blocks: Iterable[tuple[int, np.ndarray]], *, path: Path) -> tuple[int, np.ndarray]:
    """Returns rate and samples, channels averaged. A header may announce more than a file holds, and few bytes may
    unpack to hours: what is too long is refused while it is read."""
    parts, length, rates = [np.zeros(0, dtype=np.float32)], 0, set()
    for rate, block in blocks:
        rates.add(rate)
        if len(rates) > 1 or rate <= 0:
            raise DataError(path, must="have one sampling rate above 0 Hz", found=listing([f"{r} Hz" for r in rates]))
        parts.append(_mono(block, where=path))
        length += len(block)
        if length > MOST_SECONDS * rate:
            must, found = f"last at most {MOST_SECONDS:,} s", f"more, at {rate:,} Hz"
            raise DataError(path, must=must, found=found, do="Cut it into clips.")
    if not length:
        raise DataError(path, must="hold at least one sample", found="none", do="Remove it.")
    return rates.pop(), np.concatenate(parts)


def _read_longer(path: Path, *, by: float) -> np.ndarray:
    """Returns the samples of an MP3 whose length libsndfile would estimate too short, where it then stops.

    It estimates from the size of the file; behind a tag of zeros that makes it longer ``by`` this factor it goes on to
    the end.
    """
    data = path.read_bytes()
    size = min(int(len(data) * min(by, _MOST_TIMES) * 1.5), (1 << 28) - 1)
    tag = b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)
    with _opened(io.BytesIO(tag + data), path) as file:
        return _gathered(_blocks(file, path=path), path=path)[1]


def _border(path: Path) -> foreign:
    return foreign(
        path, "libsndfile", must="be a whole recording (WAV, FLAC, OGG, MP3 or another that libsndfile reads)"
    )


def resample(samples: np.ndarray, *, from_hz: int, rate_hz: int, where: object) -> np.ndarray:
    """Returns floating-point samples ``[t]`` or ``[t, channels]`` as float32 ``[t']`` in -1..1 at ``rate_hz``.

    Raises:
        DataError: no sample, or too few for one at the new rate; NaN or infinite samples; samples beyond twice full
            scale; a rate that is not positive.
        MissingDependencyError: soxr is not installed.
    """
    if samples.ndim not in (1, 2) or samples.dtype.kind != "f":
        raise DataError(
            where,
            must="be floating-point samples [t] or [t, channels]",
            found=f"{samples.dtype} of shape {samples.shape}",
            do="Divide 16-bit samples by 32768.",
        )
    if samples.size == 0:
        raise DataError(where, must="hold at least one sample", found="none", do="Remove it.")
    if samples.ndim == 2 and samples.shape[0] < samples.shape[1]:
        found = f"the shape {samples.shape}, more channels than samples"
        raise DataError(where, must="be samples [t, channels]", found=found, do="Transpose it.")
    return _at_rate(_mono(samples, where=where), from_hz=from_hz, rate_hz=rate_hz, where=where)


def _at_rate(mono: np.ndarray, *, from_hz: int, rate_hz: int, where: object) -> np.ndarray:
    if not _LEAST_HZ <= from_hz <= _MOST_HZ:
        must = f"have a sampling rate of {_LEAST_HZ} to {_MOST_HZ:,} Hz"
        raise DataError(where, must=must, found=f"{from_hz:,} Hz", do="Correct the rate in its header.")
    count = len(mono)
    if from_hz != rate_hz:
        mono = _soxr().resample(mono, from_hz, rate_hz, quality="HQ")
    if mono.size == 0:
        raise DataError(
            where,
            must=f"be long enough for one sample at {rate_hz} Hz",
            found=f"{count} samples at {from_hz} Hz",
            do="Remove it.",
        )
    return np.clip(mono, -1.0, 1.0)


def _mono(samples: np.ndarray, *, where: object) -> np.ndarray:
    if not samples.size:
        return np.zeros(0, dtype=np.float32)
    _check_values(samples, where=where)
    return (samples if samples.ndim == 1 else samples.mean(axis=1)).astype(np.float32)


def _check_values(samples: np.ndarray, *, where: object) -> None:
    bad = int((~np.isfinite(samples)).sum())
    if bad:
        raise DataError(
            where,
            must="hold finite samples",
            found=f"{bad} NaN or infinite of {samples.size}",
            do="Repair or remove it.",
        )
    peak = float(np.abs(samples).max())
    if peak > _LOUDEST:
        raise DataError(
            where,
            must="have samples in -1..1",
            found=f"a peak of {peak:g}",
            do="Divide the samples by their full scale (32768 for 16 bits).",
        )


def _damaged(path: Path, *, found: str) -> DataError:
    return DataError(path, must="be a whole recording", found=found, do="Remove it or copy it again.")


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package is there, its library is not
        raise MissingDependencyError("soundfile", extra="audio", purpose="reading audio") from error
    return soundfile


def _soxr() -> Any:
    try:
        import soxr
    except ImportError as error:
        raise MissingDependencyError("soxr", extra="audio", purpose="resampling audio") from error
    return soxr
