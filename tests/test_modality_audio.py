"""Audio: wave -> spectrum -> tokens."""

import json

import numpy as np
import pytest
import torch

from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.modalities.audio import (
    MODALITY,
    RATE_HZ,
    AudioOptions,
    AudioTokenizer,
    AudioTransform,
    features,
    load,
    synthesize,
)
from metatransformer.nn.patch import adapt_kernel
from metatransformer.nn.spectrogram import log_mel

WIDTH, PATCH = 13, 5


def stem() -> Stem:
    draw = torch.Generator().manual_seed(3)
    return Stem(
        patch=torch.randn(WIDTH, 3, PATCH, PATCH, generator=draw),
        bias=torch.randn(WIDTH, generator=draw),
        positions=torch.randn(7, 7, WIDTH, generator=draw),
        class_token=torch.randn(WIDTH, generator=draw),
    )


def noise(samples: int, *, seed: int = 1) -> View:
    wave = np.random.default_rng(seed).normal(0, 0.1, size=samples)
    return View(f"noise {samples}", {"wave": wave.astype(np.float32)})


def transform(**options) -> AudioTransform:
    return AudioTransform(AudioOptions(**options), stem())


def spectrum(sample: View, **options) -> np.ndarray:
    return transform(**options)(sample).inputs["spectrum"]


def test_auto_sizes_are_eight_patches():
    assert spectrum(noise(2_003)).shape == (40, 40)
    assert spectrum(noise(16_001), mels=23).shape == (98, 23)
    assert spectrum(noise(2_003), mels=23, frames=1).shape == (11, 23)


def test_the_spectrum_is_the_log_mel_of_the_scaled_wave():
    sample = noise(9_001)
    found = spectrum(sample, mels=17, frames=1)
    wave = sample.inputs["wave"]
    energy = log_mel(wave / np.abs(wave).max(), rate_hz=RATE_HZ, mels=17)
    decibel = 10 * energy / np.log(10)
    level = np.clip(1 + (decibel - decibel.max()) / 80, 0, 1)  # white noise has no 80 dB of range
    assert np.allclose(found, (level - 0.5) / 0.25, atol=1e-5)  # float32 logarithms


def test_loudness_does_not_matter():
    sample = noise(5_003)
    quiet = sample.with_inputs({"wave": sample.inputs["wave"] / 1_000})
    assert np.allclose(spectrum(sample), spectrum(quiet), atol=1e-4)  # float32 logarithms


def test_silence_is_inaudible_everywhere():
    silence = View("silence", {"wave": np.zeros(1_009, np.float32)})
    assert np.allclose(spectrum(silence), (0 - 0.5) / 0.25)


def test_silent_ends_are_cut_off_and_pauses_stay():
    word = noise(8_000).inputs["wave"]
    word[3_200:5_200] *= 1e-4  # a pause
    hiss = 1e-4 * noise(4_800, seed=2).inputs["wave"]
    around = View("around", {"wave": np.concatenate([hiss, word, hiss[:3_200]])})
    alone, heard = spectrum(View("word", {"wave": word}), frames=1), spectrum(around, frames=1)
    # At either end a window that holds a part of the word is heard, too.
    assert 0 <= len(heard) - len(alone) <= 4
    assert np.allclose(heard[2 : 2 + len(alone)], alone, atol=1e-4)
    assert len(spectrum(around, frames=1, silence_db=0.0)) == (16_000 - 400) // 160 + 1
    assert len(spectrum(around, frames=1, silence_db=90.0)) == (16_000 - 400) // 160 + 1
    assert "35 dB below the loudest (input.silence_db)" in transform().notes[0] and not transform(silence_db=0.0).notes


def test_statistics_make_the_training_spectra_standard():
    samples = [noise(3_001 + 500 * i, seed=i) for i in range(5)]
    fitted = transform()
    fitted.fit(samples)
    values = np.concatenate([fitted(s).inputs["spectrum"].ravel() for s in samples])
    assert abs(values.mean()) < 1e-4 and abs(values.std() - 1) < 1e-4  # float32 values
    other = transform()
    other.load_state(json.loads(json.dumps(fitted.state())))
    again = other(samples[0]).inputs["spectrum"]
    assert np.array_equal(again, fitted(samples[0]).inputs["spectrum"])


def test_a_long_recording_is_refused_where_one_window_is_asked_for():
    with pytest.raises(DataError, match=r"noise 20000: must last at most 1 s; found 1.2 s. Cut it"):
        transform(max_seconds=1.0, max_windows=1)(noise(20_000))


def test_a_long_recording_is_windows_of_equal_length():
    change, view = transform(max_seconds=1.0), noise(40_000)
    found = change(view)
    assert found.inputs["windows"] == 3 and len(found.inputs["spectrum"]) % 3 == 0 and change.doubts() == ()
    wave, size = view.inputs["wave"], 13_334  # samples of a third, rounded up
    top = max(np.abs(wave).max(), 1e-9)
    settings = {"rate_hz": 16_000, "mels": change.mels, "least": change.frames}
    energies = [log_mel(wave[s : s + size] / top, **settings) for s in (0, 13_333, 26_666)]
    loudest = max(energy.max() for energy in energies)
    levels = np.maximum(0, 1 + (np.concatenate(energies) - loudest) / (80 * np.log(10) / 10))
    np.testing.assert_allclose(found.inputs["spectrum"], (levels - 0.5) / 0.25, atol=1e-4)
    varied = change.augment(found, np.random.default_rng(0)).inputs
    assert varied["spectrum"].shape == found.inputs["spectrum"].shape and varied["windows"] == 3


def test_what_of_a_very_long_recording_is_read_is_said():
    change = transform(max_seconds=0.5, max_windows=2)
    found = change(noise(40_000)).inputs["spectrum"]
    ends = [change(noise(40_000)).inputs["spectrum"], found]
    assert np.array_equal(*ends) and change(noise(16_000)).inputs["windows"] == 2
    words = "1 recording of more than 1 s read in 2 evenly spaced windows of 0.5 s (input.max_windows)"
    assert change.doubts() == (words,) and change.doubts() == ()


def test_each_window_is_a_row_of_its_own():
    change = transform(max_seconds=0.5)
    tokenizer = AudioTokenizer(AudioOptions(), change, WIDTH, stem())
    samples = [change(noise(length)) for length in (6_001, 20_000, 7_000)]
    together = tokenizer(*parts(samples))
    assert together.samples is not None and together.samples.tolist() == [0, 1, 1, 1, 2] and together.count == 3
    pieces = np.split(samples[1].inputs["spectrum"], 3)
    for row, piece in enumerate(pieces, start=1):
        alone = tokenizer(*parts([View("", {"spectrum": piece, "windows": np.array(1, dtype=np.float32)})]))
        count = alone.x.shape[1]
        assert alone.samples is None and together.mask[row].sum() == count
        assert torch.allclose(together.x[row, :count], alone.x[0], atol=1e-5)


@pytest.mark.parametrize("lengths", [(1_601, 40_009), (3_001, 16_001, 24_007)])
def test_a_clip_alone_equals_itself_in_a_padded_batch(lengths):
    change = transform()
    tokenizer = AudioTokenizer(AudioOptions(), change, WIDTH, stem())
    samples = [change(noise(length)) for length in lengths]
    together = tokenizer(*parts(samples))
    for row, sample in enumerate(samples):
        alone = tokenizer(*parts([sample]))
        count = alone.x.shape[1]  # time comes first, so that padding stands behind
        assert together.mask[row].tolist() == [True] * count + [False] * (together.mask.shape[1] - count)
        assert torch.allclose(together.x[row, :count], alone.x[0], atol=1e-5)


def parts(samples: list[View]) -> tuple[dict, dict]:
    batch = stack_views(samples, fields=MODALITY.fields)
    return batch.inputs, batch.masks


def test_a_token_is_the_kernel_on_its_patch_and_its_position():
    start, change = stem(), transform(mels=40, frames=15)
    tokenizer = AudioTokenizer(AudioOptions(), change, WIDTH, start)
    sample = change(noise(1_999))
    tokens = tokenizer(*parts([sample]))
    assert tokens.spans[0].grid == (3, 8) and tokens.spans[0].summary == 0
    assert torch.equal(tokens.x[0, 0], start.class_token)
    t, f = 2, 3
    patch = sample.inputs["spectrum"][t * PATCH : (t + 1) * PATCH, f * PATCH : (f + 1) * PATCH]
    kernel = adapt_kernel(start.patch, channels=1, size=(PATCH, PATCH))[:, 0]
    by_hand = (kernel * torch.from_numpy(patch).T).sum(dim=(1, 2)) + start.bias
    places = tokenizer.positions(torch.ones(1, 8, 3, dtype=torch.bool))
    by_hand = by_hand + places[0, f, t]
    assert torch.allclose(tokens.x[0, 1 + t * 8 + f], by_hand, atol=1e-4)  # sum of 25 products


def test_an_array_is_taken_with_its_rate():
    wave = np.sin(np.arange(1_601) * 0.1)
    assert load(Record("a", value=wave))["wave"].shape == (1_601,)
    stereo = np.stack([wave, wave], axis=1)
    assert load(Record("a", value=(stereo, 8_000)))["wave"].shape == (3_202,)
    with pytest.raises(DataError, match=r"a: must be floating-point samples"):
        load(Record("a", value=np.ones(7, np.int16)))


def test_the_baseline_sees_mean_and_deviation_of_each_bin():
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    found = features(View("a", {"spectrum": values}))
    assert np.allclose(found, [2, 3, values[:, 0].std(), values[:, 1].std()])


def test_synthetic_tones_rise_and_fall():
    for label, sign in ((0, 1), (1, -1)):
        sample = View("tone", synthesize(np.random.default_rng(7), label))
        pitch = spectrum(sample, mels=61).argmax(axis=1)
        assert sign * (float(pitch[-1]) - float(pitch[0])) > 5


def test_augmentation_changes_the_clip_and_keeps_its_shape():
    change = transform()
    sample = change(noise(5_003))
    before = sample.inputs["spectrum"].copy()
    after = change.augment(sample, np.random.default_rng(3)).inputs["spectrum"]
    assert after.shape == before.shape and after.dtype == before.dtype
    assert np.abs(after - before).mean() > 0.1
    assert np.array_equal(sample.inputs["spectrum"], before)


def test_augmentation_can_be_switched_off():
    change = transform(shift=0.0, warp=0.0, pitch=0.0, noise_db=0.0, mask=0.0)
    sample = change(noise(5_003))
    after = change.augment(sample, np.random.default_rng(3)).inputs["spectrum"]
    assert np.allclose(after, sample.inputs["spectrum"], atol=1e-5)  # the mel scale and back


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hop_s": 0.0}, r"input.hop_s: must lie in 0.001..10; found 0\."),
        ({"mels": -3}, r"input.mels: must lie in 1..1024; found -3\."),
        ({"warp": 0.5}, r"input.warp: must lie in 0..0.3; found 0.5\."),
    ],
)
def test_options_without_sense_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        AudioOptions(**options)
