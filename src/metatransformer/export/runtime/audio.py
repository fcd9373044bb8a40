"""Recordings -> the inputs of the graph, as the model was trained: numpy, and what reads the files.

``spectrum`` [w, t, m] float32: 16 kHz mono in -1..1, scaled to its own peak, without silent ends; log-mel energies
(Kaldi's filter bank) of which the loudest ``range_db`` are kept, standardised by the training clips. ``w`` is 1, or
the windows that a long recording is read in. ``plain``, where the head reads it: mean and deviation over time of each
mel bin. WAV of 16 bits is read by Python itself, everything else by the package soundfile; another rate than 16 kHz
takes soxr.
"""

import wave as wav

import numpy as np

from metatransformer.nn.spectrogram import heard, log_mel

RATE_HZ, LOW_HZ, BANDS = 16_000, 20.0, 40
NEPERS_PER_DB = float(np.log(10) / 10)


def prepare(path, settings):
    """Yields one sample: (key, its arrays by name)."""
    levels = levels_of(read(path), settings)
    spectrum = ((np.stack(levels) - settings["mean"]) / settings["std"]).astype(np.float32)
    flat = spectrum.reshape(-1, spectrum.shape[2])
    plain = {"plain": np.concatenate([flat.mean(axis=0), flat.std(axis=0)])} if settings["plain"] else {}
    yield str(path), {"spectrum": spectrum, **plain}


def read(path):
    """Returns samples [t] float32 at 16 kHz, channels averaged."""
    try:
        with wav.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise wav.Error("not 16 bits")
            rate, channels = file.getframerate(), file.getnchannels()
            samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2").astype(np.float32) / 32768
            samples = samples.reshape(-1, channels)
    except (wav.Error, EOFError):
        import soundfile

        samples, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    if not samples.size:
        raise ValueError("must hold at least one sample; found none")
    mono = samples.mean(axis=1).astype(np.float32)
    if rate != RATE_HZ:
        import soxr

        mono = soxr.resample(mono, rate, RATE_HZ, quality="HQ")
    return np.clip(mono, -1.0, 1.0)


def levels_of(wave, settings):
    """Returns the level [t, mels] of each window, of 0 (inaudible) to 1 (the loudest value of all)."""
    loudest, longest = max(wave.max(), -wave.min()), settings["max_seconds"] * RATE_HZ
    if len(wave) > longest:
        waves = [window / (loudest or 1) for window in windows(wave, round(longest), settings["max_windows"])]
    else:
        waves = [without_silence(wave / loudest, settings) if loudest > 0 else wave]
    frames = {"rate_hz": RATE_HZ, "window_s": settings["window_s"], "hop_s": settings["hop_s"]}
    energies = [log_mel(one, mels=settings["mels"], least=settings["frames"], low_hz=LOW_HZ, **frames) for one in waves]
    if loudest == 0:
        return [np.zeros_like(energy) for energy in energies]
    span, top = settings["range_db"] * NEPERS_PER_DB, max(energy.max() for energy in energies)
    return [np.maximum(0.0, 1.0 + (energy - top) / span) for energy in energies]


def windows(wave, size, most):
    """Returns as few windows of equal length as hold a long recording, or ``most`` evenly spaced ones."""
    if most == 1:
        raise ValueError(f"a recording must last at most {size / RATE_HZ:g} s; found {len(wave) / RATE_HZ:.1f} s")
    count = -(-len(wave) // size)
    if count <= most:
        size, most = -(-len(wave) // count), count
    return [wave[start : start + size] for start in np.linspace(0, len(wave) - size, most).round().astype(int)]


def without_silence(wave, settings):
    """Returns the clip from its first heard window to its last."""
    if not settings["silence_db"]:
        return wave
    frames = {"window_s": settings["window_s"], "hop_s": settings["hop_s"]}
    energy = log_mel(wave, rate_hz=RATE_HZ, mels=BANDS, **frames)
    sounds = heard(energy, depth=settings["silence_db"] * NEPERS_PER_DB)
    hop, window = round(settings["hop_s"] * RATE_HZ), round(settings["window_s"] * RATE_HZ)
    end = None if sounds.stop == len(energy) else (sounds.stop - 1) * hop + window
    return wave[sounds.start * hop : end]
