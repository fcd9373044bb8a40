"""The sound of films: read as a recording, beside the pictures of the same file, and absent where there is none."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from common import Run, words_of

import metatransformer as mt
from metatransformer.core.errors import DataError
from metatransformer.modalities.audio.ffmpeg import FILMS, has_sound
from metatransformer.modalities.audio.read import read_audio
from metatransformer.modalities.video.read import FILM_SUFFIXES, open_video

RATE = 16_000
INPUTS = {"pictures": "video(path)", "sound": "audio(path)"}
SETTINGS = {
    "inputs.pictures.size": 32,
    "inputs.pictures.frames": 2,
    "inputs.sound.mels": 32,
    "inputs.sound.frames": 32,
    "head.read": [-1],
    "head.features": "trunk",
    "optim.folds": 0,
    "optim.l2": [0.01],
    "data.test_fraction": 0.0,
    "run.device": "cpu",
    "run.precision": "float32",
}
CODECS = {".mp4": ("mpeg4", "aac"), ".mov": ("mpeg4", "aac"), ".mkv": ("mpeg4", "flac"), ".webm": ("libvpx", "libopus")}


def make_film(path: Path, *, hz: float | None, seconds: float = 0.6, light: int = 128) -> Path:
    """Writes five grey pictures a second, and a tone beside them where ``hz`` is given."""
    pictures, sound = CODECS[path.suffix]
    rate = 48_000 if sound == "libopus" else RATE
    with av.open(str(path), "w") as container:
        shown = container.add_stream(pictures, rate=5)
        shown.width, shown.height, shown.pix_fmt = 32, 32, "yuv420p"
        heard = None if hz is None else container.add_stream(sound, rate=rate, layout="mono")
        noise = np.random.default_rng(light).integers(0, 9, (round(5 * seconds), 32, 32, 3))
        for picture in noise + light:
            container.mux(shown.encode(av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")))
        container.mux(shown.encode())
        if heard is not None:
            wave = 0.5 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)
            step = heard.codec_context.frame_size or 1024
            for start in range(0, len(wave), step):
                part = (wave[None, start : start + step] * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(part, format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
                container.mux(heard.encode(frame))
            container.mux(heard.encode())
    return path


@pytest.mark.parametrize("suffix", CODECS)
def test_a_film_is_a_recording_too(tmp_path: Path, suffix: str):
    path = make_film(tmp_path / f"a{suffix}", hz=1000.0)
    wave = read_audio(path, rate_hz=RATE)
    # A codec may put a block in front and behind.
    assert abs(len(wave) - 0.6 * RATE) < 0.08 * RATE
    loudest = np.abs(np.fft.rfft(wave)).argmax() * RATE / len(wave)
    assert abs(loudest - 1000) < 5 and len(open_video(path)) == 3


def test_every_kind_of_film_is_known_to_both():
    assert {suffix for suffix in FILM_SUFFIXES if suffix != ".3gp"} == set(FILMS)


def test_a_film_without_sound_is_one_error_alone(tmp_path: Path):
    film = make_film(tmp_path / "mute.mp4", hz=None)
    assert not has_sound(film) and not has_sound(tmp_path / "x.gif") and has_sound(tmp_path / "x.wav")
    with pytest.raises(DataError, match=r"mute.mp4: must hold a stream of sound; found none"):
        mt.embed(film, modality="audio", encoder="test")
    (tmp_path / "damaged.mp4").write_bytes(film.read_bytes()[:40])
    assert has_sound(tmp_path / "damaged.mp4")
    with pytest.raises(DataError, match="damaged.mp4: must (be a whole recording|hold a stream of sound)"):
        mt.embed([tmp_path / "damaged.mp4"], modality="audio", encoder="test")
    with pytest.raises(DataError, match="row 0: must have at least one of the inputs sound; found none"):
        mt.embed(pd.DataFrame({"path": [film]}), modality={"sound": "audio(path)"}, encoder="test")


def test_films_give_pictures_and_sound(tmp_path: Path, call: Run):
    rows, mute = [], (3, 8)
    for number in range(12):
        name = f"{number}{list(CODECS)[number % 4]}"
        make_film(tmp_path / name, hz=None if number in mute else (300.0, 3000.0)[number % 2], light=60 + 9 * number)
        rows.append({"path": name, "kind": "ab"[number % 2]})
    data, run = tmp_path / "films.csv", tmp_path / "run"
    pd.DataFrame(rows).to_csv(data, index=False)
    inputs = ["--inputs", ",".join(f"{name}={kind}" for name, kind in INPUTS.items())]
    words = ["fit", data, *inputs, "--target", "kind", "--encoder", "test", "--out", run, *words_of(SETTINGS)]
    status, result, err = call(words)
    assert status == 0 and "sound: none in 2 files, where it is absent" in err, err
    assert "sound: absent in 2 rows of 12" in err and set(result["inputs"]) == set(INPUTS)
    status, result, err = call(["predict", run, data, "--out", tmp_path / "p.csv"])
    made = pd.read_csv(tmp_path / "p.csv")
    assert status == 0 and made["p(a)"].between(0, 1).all(), err
    heard = [number for number in range(12) if number not in mute]
    assert (made["prediction"] == pd.DataFrame(rows)["kind"])[heard].all()
