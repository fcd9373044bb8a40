"""Recordings as one channel of samples at the wanted rate.

Channels are averaged; the rate is changed by soxr's HQ filter, whose delay it removes itself.
Sources: WAV, FLAC, OGG, MP3 through libsndfile; values are scaled to -1..1 as it does (full scale =
1).
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, MissingDependencyError

# Decoders and resamplers overshoot full scale a little (clipped to 1); beyond this the file has
# another scale.
_LOUDEST = 2.0
# libsndfile's log of a WAV whose data chunk promises more bytes than the file has.
_SHORT = re.compile(r"^data\s*:\s*(\d+) \(should be (\d+)\)", re.MULTILINE)
# Lengths that programs write which stream a WAV to a pipe and cannot go back to fill it in.
_STREAMED = (0, 0x7FFFFFFF, 0xFFFFFFFF)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a recording says; ``frames`` counts samples of one channel."""

    rate_hz: int
    channels: int
    frames: int
    format: str

    @property
    def seconds(self) -> float:
        """The length in seconds."""
        return self.frames / self.rate_hz


def audio_info(path: str | Path) -> AudioInfo:
    """Returns what the header says, without decoding the recording.

    Raises:
        DataError: no such file, an empty one, or no recording.
        MissingDependencyError: soundfile is not installed.
    """
    with _open(Path(path)) as file:
        return AudioInfo(file.samplerate, file.channels, file.frames, file.format)


def read_audio(path: str | Path, *, rate_hz: int) -> np.ndarray:
    """Returns the recording as float32 ``[t]`` in -1..1 at ``rate_hz``, its channels averaged.
    Silence is allowed.

    Raises:
        DataError: no such file, no recording, a truncated one, no sample, NaN or infinite samples,
            samples beyond twice full scale.
        MissingDependencyError: soundfile or soxr is not installed.
    """
    path = Path(path)
    soundfile = _soundfile()
    with _open(path) as file:
        try:
            samples = file.read(dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise _damaged(path, found=f"'{_reason(error)}'") from error
        _require_whole(file, path=path, read=len(samples))
        rate = file.samplerate
    return resample(samples, from_hz=rate, rate_hz=rate_hz, where=path)


def resample(samples: np.ndarray, *, from_hz: int, rate_hz: int, where: object) -> np.ndarray:
    """Returns floating-point samples ``[t]`` or ``[t, channels]`` as float32 ``[t']`` in -1..1 at
    ``rate_hz``.

    Raises:
        DataError: no sample, or too few for one at the new rate; NaN or infinite samples; samples
            beyond twice full scale; a rate that is not positive.
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
    if from_hz <= 0:
        raise DataError(where, must="have a sampling rate above 0 Hz", found=f"{from_hz} Hz")
    _check_values(samples, where=where)
    mono = samples if samples.ndim == 1 else samples.mean(axis=1)
    mono = mono.astype(np.float32)
    if from_hz != rate_hz:
        mono = _soxr().resample(mono, from_hz, rate_hz, quality="HQ")
    if mono.size == 0:
        raise DataError(
            where,
            must=f"be long enough for one sample at {rate_hz} Hz",
            found=f"{len(samples)} samples at {from_hz} Hz",
            do="Remove it.",
        )
    return np.clip(mono, -1.0, 1.0)


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


def _open(path: Path) -> Any:
    """Returns an open ``soundfile.SoundFile``."""
    soundfile = _soundfile()
    if not path.is_file():
        raise DataError(path, must="be a recording", found="nothing there or a folder")
    if path.stat().st_size == 0:
        raise DataError(path, must="be a recording", found="a file of 0 bytes", do="Remove it.")
    try:
        return soundfile.SoundFile(path)
    except soundfile.LibsndfileError as error:
        raise DataError(
            path,
            must="be a recording (WAV, FLAC, OGG, MP3)",
            found=f"a file that cannot be opened as one ('{_reason(error)}')",
            do="Remove it or convert it to WAV.",
        ) from error


def _require_whole(file: Any, *, path: Path, read: int) -> None:
    short = _SHORT.search(file.extra_info)
    if short and int(short[1]) > int(short[2]) and int(short[1]) not in _STREAMED:
        raise _damaged(path, found=f"{short[2]} bytes of samples where {short[1]} are announced")
    # MP3 has no exact length in its header: decoders add or drop up to two frames of 1152 samples.
    if read < file.frames - 2 * 1152:
        raise _damaged(path, found=f"{read:,} samples where {file.frames:,} are announced")


def _damaged(path: Path, *, found: str) -> DataError:
    return DataError(path, must="be a whole recording", found=found, do="Remove it or copy it again.")


def _reason(error: Any) -> str:
    return error.error_string.strip().removeprefix("Error : ").rstrip(".")


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
