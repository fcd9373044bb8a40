"""Audio: the log-mel spectrum as a picture of one channel, in patches over time and frequency.

File: WAV, FLAC, MP3, OGG, Opus, AIFF, AU, CAF, W64; by FFmpeg M4A, AAC, AMR, 3GP, WMA, APE, WV, SPX, MKA, WEBA; any
rate, any number of channels (averaged), any length; the sound of a film (MP4, MOV, MKV, WebM and
others) that a table or a list names; or an array in memory, ``[t]`` or ``[t, channels]``.
Tokens: 16 kHz mono, scaled to its own peak, without silent ends; log-mel energies of 25 ms windows
every 10 ms, or more densely where a clip is short; the loudest 80 dB are kept and standardised by
the training clips; a recording of more than ``max_seconds`` in windows of equal length, without regard to silence;
S x S patches with the trunk's kernel summed over RGB; positions resampled to the real grid; the
summary token starts as the class token.
Sources: AST (arXiv 2104.01778) for log-mel patches under an image transformer; Meta-Transformer
section 3.2 (arXiv 2307.10802); SpecAugment (arXiv 1904.08779) and vocal tract length perturbation
(Jaitly and Hinton 2013) for augmentation.
Errors: unreadable, truncated or empty file, NaN, an array that is not floating point.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field
from metatransformer.core.modality import (
    Modality,
    Source,
    Stem,
    SummaryToken,
    Tokenizer,
    Transform,
)
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM
from metatransformer.data.records import counted, listing
from metatransformer.modalities.audio.ffmpeg import CONTAINERS, FILMS, has_sound
from metatransformer.modalities.audio.inside import audio_inside
from metatransformer.modalities.audio.read import MOST_SECONDS, read_audio, resample
from metatransformer.nn.patch import GridPositions, PatchEmbedding
from metatransformer.nn.pool import fold_rows
from metatransformer.nn.spectrogram import heard, log_mel
from metatransformer.nn.spectrum_augment import (
    mask_stripe,
    shift_time,
    warp_frequency,
    warp_time,
)

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aiff", ".aif", ".aifc", ".au", ".snd", ".caf", ".w64")
SUFFIXES += tuple(CONTAINERS)
RATE_HZ = 16_000  # speech and most sound sets: the trunk sees 0 to 8 kHz
LOW_HZ = 20.0
PATCHES = 8  # rows of patches over all frequencies: 128 mels with patches of 16, as in AST
BANDS = 40  # in which silence is looked for
MOST = 0.3  # of each augmentation: beyond it a clip is no longer the same sound
NEPERS_PER_DB = float(np.log(10) / 10)


def _within(name: str, least: float, most: float) -> Rule:
    """Returns the rule of a number, or of "auto"."""
    return Rule(
        name,
        f"lie in {least:g}..{most:g}",
        lambda own: (value := getattr(own, name)) == "auto" or least <= value <= most,
    )


@dataclass(frozen=True)
class AudioOptions(Settings):
    """What of a clip the trunk sees.

    ``mels``: frequency bins; "auto" = 8 patches high. ``window_s``, ``hop_s``: length and distance
    of the frames in seconds. ``frames``: the least number of frames of a clip; a shorter one gets a
    finer hop until it has them ("auto" = 8 patches wide, 1 = always ``hop_s``). ``range_db``: how
    far below its loudest value a clip is heard. ``silence_db``: how far below its loudest moment the
    ends of a clip are cut off as silent (0 = never). ``max_seconds``: a longer recording is read in
    windows of that length, ``max_windows`` evenly spaced ones where more would be needed (1 = it is
    refused); the mean over them stands for the recording.

    Augmentation, each drawn anew up to: ``shift``, ``warp``: share of the length by which the ends
    and an inner moment move; ``pitch``: logarithm of the factor on all frequencies; ``noise_db``:
    how far the floor of what is heard rises; ``mask``: share of an axis that a stripe hides.
    """

    mels: int | Literal["auto"] = "auto"
    window_s: float = 0.025
    hop_s: float = 0.010
    frames: int | Literal["auto"] = "auto"
    range_db: float = 80.0
    silence_db: float = 35.0
    max_seconds: float = 30.0
    max_windows: int = 16
    shift: float = 0.1
    warp: float = 0.1
    pitch: float = 0.05
    noise_db: float = 20.0
    mask: float = 0.1

    # Beyond these a clip has more values than a memory, or less than one sample.
    rules = (
        _within("mels", 1, 1024),
        _within("window_s", 1e-3, 10),
        _within("hop_s", 1e-3, 10),
        _within("frames", 1, 65536),
        _within("range_db", 1, 1000),
        _within("silence_db", 0, 1000),
        _within("max_seconds", 1e-3, MOST_SECONDS),
        _within("max_windows", 1, 10_000),
        *(_within(name, 0, MOST) for name in ("shift", "warp", "pitch", "mask")),
        Rule("noise_db", "lie between 0 and input.range_db", lambda own: 0 <= own.noise_db <= own.range_db),
    )


class AudioTransform(Transform):
    """Wave -> standardised log-mel spectrum.

    Learns ``mean_`` and ``std_`` of all its values, and the standardised mean of each band, ``bands_`` [mels] (none in
    models of before).
    """

    def __init__(self, options: AudioOptions, stem: Stem) -> None:
        self.options = options
        side = PATCHES * stem.patch_size
        self.mels = side if options.mels == "auto" else options.mels
        self.frames = side if options.frames == "auto" else options.frames
        # Of speech at 80 dB, near enough for embedding without any training data.
        self.mean_, self.std_ = 0.5, 0.25
        self.bands_ = np.zeros(0, dtype=np.float32)
        self._notes: tuple[str, ...] = ()
        self._long: set[str] = set()  # keys of recordings that were not read whole

    def fit(self, views: Iterable[View]) -> None:
        """Learns the mean and deviation over every value of every training clip, and the mean of each band."""
        count, total, squares, bands = 0, 0.0, 0.0, np.zeros(self.mels)
        for view in views:
            level = np.concatenate(self._levels(view)).astype(np.float64)
            count, total = count + level.size, total + level.sum()
            squares, bands = squares + float(np.square(level).sum()), bands + level.sum(axis=0)
        if count:
            self.mean_ = float(total / count)
            self.std_ = float(np.sqrt(max(squares / count - self.mean_**2, 1e-6)))
            self.bands_ = ((bands * self.mels / count - self.mean_) / self.std_).astype(np.float32)
        self._notes = self.doubts()

    def __call__(self, view: View) -> View:
        """Returns ``spectrum`` [t, mels] float32, about zero mean and unit deviation, and of how many ``windows`` of
        equal length it is, one behind the other.
        """
        levels = self._levels(view)
        spectrum = (np.concatenate(levels) - self.mean_) / self.std_
        return view.with_inputs(
            {"spectrum": spectrum.astype(np.float32), "windows": np.array(len(levels), dtype=np.float32)}
        )

    def _levels(self, view: View) -> list[np.ndarray]:
        """Returns the level [t, mels] of each window, of 0 (inaudible) to 1 (the loudest value of all)."""
        options, wave = self.options, view.inputs["wave"]
        loudest = max(wave.max(), -wave.min())
        waves = [wave[stretch] / (loudest or 1) for stretch in self.stretches(wave, where=view.key)]
        energies = [
            log_mel(
                wave,
                rate_hz=RATE_HZ,
                mels=self.mels,
                window_s=options.window_s,
                hop_s=options.hop_s,
                least=self.frames,
                low_hz=LOW_HZ,
            )
            for wave in waves
        ]
        if loudest == 0:
            return [np.zeros_like(energy) for energy in energies]
        span, top = options.range_db * NEPERS_PER_DB, max(energy.max() for energy in energies)
        return [np.maximum(0.0, 1.0 + (energy - top) / span) for energy in energies]

    def stretches(self, wave: np.ndarray, *, where: str) -> list[slice]:
        """Returns which samples of a recording are seen: all but silent ends, of a long one windows.

        Raises:
            DataError: it is long, and there may be one window alone.
        """
        if len(wave) > self.options.max_seconds * RATE_HZ:
            return self._windows(wave, where=where)
        loudest = max(wave.max(), -wave.min())
        return [self._heard(wave / loudest) if loudest > 0 else slice(0, len(wave))]

    def _windows(self, wave: np.ndarray, *, where: str) -> list[slice]:
        """Returns as few windows of equal length as hold a long recording, or ``max_windows`` evenly spaced ones.

        Raises:
            DataError: there may be one window alone.
        """
        size, most = round(self.options.max_seconds * RATE_HZ), self.options.max_windows
        count = -(-len(wave) // size)
        if most == 1:
            must, found = f"last at most {self.options.max_seconds:g} s", f"{len(wave) / RATE_HZ:.1f} s"
            do = "Cut it into clips, or set input.max_windows, or input.max_seconds (memory grows with its square)."
            raise DataError(where, must=must, found=found, do=do)
        if count > most:
            self._long.add(where)
        else:
            size, most = -(-len(wave) // count), count
        return [slice(at, at + size) for at in np.linspace(0, len(wave) - size, most).round().astype(int).tolist()]

    def doubts(self) -> tuple[str, ...]:
        """Returns how many recordings were not read whole."""
        count, self._long = len(self._long), set()
        options = self.options
        longest = options.max_windows * options.max_seconds
        read = f"read in {options.max_windows} evenly spaced windows of {options.max_seconds:g} s (input.max_windows)"
        return (f"{counted(count, 'recording')} of more than {longest:g} s {read}",) if count else ()

    def _heard(self, wave: np.ndarray) -> slice:
        """Returns the samples of a clip from its first heard window to its last."""
        options = self.options
        if not options.silence_db:
            return slice(0, len(wave))
        energy = log_mel(wave, rate_hz=RATE_HZ, mels=BANDS, window_s=options.window_s, hop_s=options.hop_s)
        frames = heard(energy, depth=options.silence_db * NEPERS_PER_DB)
        hop, window = (round(seconds * RATE_HZ) for seconds in (options.hop_s, options.window_s))
        end = len(wave) if frames.stop == len(energy) else (frames.stop - 1) * hop + window
        return slice(frames.start * hop, end)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is cut off."""
        silence = self.options.silence_db
        cut = (f"silent ends are cut off, {silence:g} dB below the loudest (input.silence_db)",) if silence else ()
        return (*cut, *self._notes)

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns the clip, or each window, moved and warped in time, of another pitch, noisier, with two masks.

        There is no random gain, since ``__call__`` scales every clip to its own peak.
        """
        parts = np.split(view.inputs["spectrum"], int(view.inputs["windows"]))
        spectrum = np.concatenate([self._varied(part, rng) for part in parts])
        return view.with_inputs({**view.inputs, "spectrum": spectrum.astype(np.float32)})

    def _varied(self, x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        options, floor = self.options, -self.mean_ / self.std_
        x = shift_time(x, rng=rng, most=options.shift, silence=floor)
        x = warp_time(x, rng=rng, most=options.warp)
        x = warp_frequency(x, rng=rng, most=options.pitch, low_hz=LOW_HZ, high_hz=RATE_HZ / 2)
        x = np.maximum(x, floor + rng.uniform(0, options.noise_db / options.range_db) / self.std_)
        for axis in (0, 1):
            x = mask_stripe(x, rng=rng, most=options.mask, axis=axis, value=0.0)  # 0 = the mean
        return x

    def state(self) -> dict[str, Any]:
        """Returns the learned statistics."""
        return {"mean": self.mean_, "std": self.std_, "bands": self.bands_.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back the learned statistics."""
        self.mean_, self.std_ = float(state["mean"]), float(state["std"])
        self.bands_ = np.array(state.get("bands", ()), dtype=np.float32)


class AudioTokenizer(Tokenizer):
    """Cut the spectrum into patches, add positions, put the summary token in front."""

    axes = 2

    def __init__(self, options: AudioOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        del options, transform
        self.native = stem.patch is not None
        side = stem.patch_size
        self.patches = PatchEmbedding(width=width, channels=1, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and the grid (time, frequency), of each window; spectrum is ``[S, t, m]``."""
        spectrum, real, samples = inputs["spectrum"], masks["spectrum"], None
        if UNIFORM.get():
            (spectrum, samples), real = fold_rows(spectrum, real[:, :, 0]), real.flatten(0, 1)
        elif (inputs["windows"] > 1).any():
            spectrum, real, samples = _rows(spectrum, real, inputs["windows"].long())
        # Frequency runs down the picture and time to the right, as the kernel was trained on
        # pictures that stand upright.
        picture = spectrum.transpose(1, 2)[:, None]  # [B, 1, m, t]
        mask = real[:, None, :].expand(-1, picture.shape[2], -1)  # [B, m, t]
        x, real = self.patches(picture, mask)
        x = x + self.positions(real).to(x.dtype)
        x, real = x.transpose(1, 2), real.transpose(1, 2)  # [B, t, f, D], [B, t, f]
        grid = (x.shape[1], x.shape[2])
        x, mask = self.summary(x.flatten(1, 2), real.flatten(1, 2))
        return Tokens(x, mask, (Span("audio", 0, x.shape[1], summary=0, grid=grid),), samples)

    def uniform_fields(self, fields: Mapping[str, Field]) -> Mapping[str, Field]:
        """Returns ``spectrum`` with an axis of windows."""
        return {"spectrum": replace(fields["spectrum"], axes="w* t* m", summary="standardised log-mel of each window")}

    def uniform_inputs(self, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Returns the windows of each recording, of which all have as many."""
        return {"spectrum": inputs["spectrum"].unflatten(1, (int(inputs["windows"][0]), -1))}


def _rows(
    spectrum: Float[Tensor, "S t m"], real: Bool[Tensor, "S t"], windows: Int[Tensor, " S"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns each window of each sample as a row ``[B, t, m]``, what of it is real, and whose it is."""
    device, lengths = spectrum.device, real.sum(dim=1) // windows
    samples = torch.repeat_interleave(torch.arange(len(windows), device=device), windows)
    number = torch.arange(len(samples), device=device) - (windows.cumsum(0) - windows)[samples]
    length, frames = lengths[samples][:, None], torch.arange(int(lengths.max()), device=device)
    inside = frames < length
    places = torch.where(inside, number[:, None] * length + frames, 0)
    return spectrum[samples[:, None], places] * inside[..., None], inside, samples


def load(record: Record) -> dict[str, np.ndarray]:
    """Returns ``wave`` [t] float32 at 16 kHz.

    In memory a clip is an array of samples at 16 kHz, or a pair of such an array and its rate, or a mapping that holds
    both as ``array`` and ``sampling_rate``.

    Raises:
        DataError: a mapping with other names.
    """
    if record.path is not None:
        return {"wave": read_audio(record.path, rate_hz=RATE_HZ)}
    value, rate = record.value if isinstance(record.value, tuple) else (record.value, RATE_HZ)
    if isinstance(value, Mapping):
        if not {"array", "sampling_rate"} <= value.keys():
            found = f"the names {listing(value)}"
            raise DataError(record.key, must="hold its samples as array and their rate as sampling_rate", found=found)
        value, rate = value["array"], value["sampling_rate"]
    wave = resample(np.asarray(value), from_hz=int(rate), rate_hz=RATE_HZ, where=record.key)
    return {"wave": wave}


def features(view: View) -> np.ndarray:
    """Returns the mean and the deviation over time of each mel bin: the plain baseline's vector."""
    spectrum = view.inputs["spectrum"]
    return np.concatenate([spectrum.mean(axis=0), spectrum.std(axis=0)])


def draw(axes: Any, view: View) -> None:
    """Paints the spectrum, low frequencies below."""
    axes.imshow(view.inputs["spectrum"].T, origin="lower", aspect="auto", cmap="magma")
    axes.set_xlabel("frame")
    axes.set_ylabel("mel bin")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, np.ndarray]:
    """Returns a noisy tone of 0.2 to 0.5 s that rises (even label) or falls (odd label)."""
    t = np.arange(int(rng.integers(3_203, 8_009))) / RATE_HZ
    slope = 4_000.0 if label % 2 == 0 else -4_000.0
    phase = 2 * np.pi * ((2_000.0 - slope * t[-1] / 2) * t + slope * t**2 / 2)
    wave = 0.3 * np.sin(phase) + rng.normal(0, 0.01, size=len(t))
    return {"wave": wave.astype(np.float32)}


MODALITY = Modality(
    name="audio",
    summary="sounds and speech of any rate and length",
    source=Source(kind="files", suffixes=SUFFIXES, inside=tuple(FILMS), holds=has_sound),
    fields={
        "spectrum": Field("t* m", "float32", unit="deviations", summary="standardised log-mel"),
        "windows": Field("", low=1, summary="how many windows of equal length that is"),
    },
    options=AudioOptions,
    load=load,
    transform=AudioTransform,
    tokenizer=AudioTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel (summed over RGB), positions (resampled) and class token of the trunk",
    units="16 kHz mono, -1 to 1",
    defaults={"tune": "head", "head.pool": "grid", "head.read": [0.5]},
    before={"max_windows": 1},
    inside=audio_inside(draw, rate_hz=RATE_HZ, low_hz=LOW_HZ),
    requires=("soundfile", "soxr"),
    extra="audio",
)
