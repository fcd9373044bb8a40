"""Made examples that the page fills in: the modality's own made-up sample, as a person would hand it in."""

import base64
import io
import json
import wave
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from metatransformer.pipeline import Reader
from metatransformer.serve.hosted import Hosted

LABEL = 1  # of the two kinds of made-up samples


def example_of(hosted: Hosted, name: str) -> dict[str, str] | None:
    """Returns a made sample of an input of a model: a ``text``, or the ``base64`` of a file with its ``name`` and
    ``type``; None where its modality has none.
    """
    reader = hosted.pipeline.route[name]
    make = MAKERS.get(reader.modality.name)
    return None if make is None else make(reader, np.random.default_rng(0))


def _made(reader: Reader, rng: np.random.Generator) -> Any:
    return reader.modality.synthesize(rng, LABEL)


def _learned(reader: Reader) -> Any:
    """Returns the transform, whose learned names and means examples follow."""
    return reader.transform


def _file(name: str, kind: str, content: bytes) -> dict[str, str]:
    return {"name": name, "type": kind, "base64": base64.b64encode(content).decode("ascii")}


def _picture(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    pixels, file = np.squeeze(_made(reader, rng)["pixels"]), io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return _file("example.png", "image/png", file.getvalue())


def _film(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    frames, file = [Image.fromarray(frame) for frame in _made(reader, rng)["frames"]], io.BytesIO()
    frames[0].save(file, format="GIF", save_all=True, append_images=frames[1:], duration=100)
    return _file("example.gif", "image/gif", file.getvalue())


def _sound(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    samples, file = (32767 * _made(reader, rng)["wave"]).astype("<i2"), io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(16_000)
        sound.writeframes(samples.tobytes())
    return _file("example.wav", "audio/wav", file.getvalue())


def _cloud(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    points = _made(reader, rng)["points"]
    return _file("example.xyz", "text/plain", "\n".join("{:.3f} {:.3f} {:.3f}".format(*p) for p in points).encode())


def _motion(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    """A recording of the axes that the model knows."""
    transform, times = _learned(reader), np.arange(96) / 50.0
    names, units = transform.names_, transform.units_
    head = [f"{name} [{unit}]" if unit else name for name, unit in zip(names, units, strict=True)]
    values = transform.mean_ + transform.scale_ * np.sin(6 * times[:, None] + rng.uniform(0, 6, len(names)))
    timed = transform.timed_
    lines = [",".join((["time"] if timed else []) + head)]
    for time, row in zip(times, values, strict=True):
        lines.append(",".join([f"{time:.2f}"] * timed + [f"{value:.4f}" for value in row]))
    return _file("example.csv", "text/csv", "\n".join(lines).encode())


def _series(reader: Reader, rng: np.random.Generator) -> dict[str, str] | None:
    """A whole series of the channels that the model knows; a forecast needs the columns of its own table."""
    names = _learned(reader).names_
    if not names:
        return None
    values = np.sin(0.4 * np.arange(64)[:, None] + rng.uniform(0, 6, len(names)))
    lines = [",".join(names), *(",".join(f"{value:.4f}" for value in row) for row in values)]
    return _file("example.csv", "text/csv", "\n".join(lines).encode())


def _spectrum(reader: Reader, rng: np.random.Generator) -> dict[str, str] | None:
    """The mean of the training spectra; none where a pixel's neighbours count."""
    del rng
    if _learned(reader).options.window > 1:
        return None
    bands, mean = _learned(reader).bands_, _learned(reader).mean_
    if bands is None or len(bands.taken) != bands.count:
        return None
    values = [round(float(value), 5) for value in mean]
    return {"text": json.dumps(dict(zip(bands.names, values, strict=True)) if bands.names else values)}


def _row(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    """A row of the columns that the model knows: means, and words that training saw most."""
    del rng
    columns = _learned(reader).columns_
    row = {one.name: (one.words or ("",))[0] if one.kind == "category" else round(one.mean, 3) for one in columns}
    dated = {one.name for one in columns if one.part}
    return {"text": json.dumps({name: None if name in dated else cell for name, cell in row.items()})}


def _text(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    text = _made(reader, rng)["row"]["text"]
    names = _learned(reader).columns_
    return {"text": text if len(names) < 2 else json.dumps(dict.fromkeys(names, text))}


def _molecule(reader: Reader, rng: np.random.Generator) -> dict[str, str]:
    return {"text": _made(reader, rng)["smiles"]}


MAKERS: dict[str, Callable[[Reader, np.random.Generator], dict[str, str] | None]] = {
    "audio": _sound,
    "graph": _molecule,
    "hyperspectral": _spectrum,
    "image": _picture,
    "imu": _motion,
    "infrared": _picture,
    "pointcloud": _cloud,
    "tabular": _row,
    "text": _text,
    "timeseries": _series,
    "video": _film,
    "xray": _picture,
}
