"""X-ray: DICOM and pictures meet as standardised light, and become the image tokenizer's tokens."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from common import FIXTURES, run
from PIL import Image

from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.modalities import get_modality
from metatransformer.modalities.xray import MODALITY, XrayOptions, XrayTransform, dicom, features, load
from metatransformer.trunk import load_encoder

STEM = load_encoder("test").stem
PATCH = STEM.patch_size


def loaded(name: str) -> View:
    return View(name, load(Record(name, path=FIXTURES / "xray" / name)))


def in_memory(value: np.ndarray) -> View:
    return View("sample 3", load(Record("sample 3", value=value)))


def transform(**options: object) -> XrayTransform:
    return XrayTransform(XrayOptions(**{"size": 2 * PATCH} | options), STEM)


def test_every_format_shows_the_same_picture():
    ready = transform()
    expected = ready(loaded("good.png")).inputs["pixels"]
    assert expected.shape[2] == 1
    # Two grey levels. Rounding to 8 bits and, for JPEG, to its coefficients costs some percent of a deviation.
    for name, most in (("good.dcm", 0.02), ("good_inverted.dcm", 0.02), ("good_12bit.png", 0.02), ("good.jpg", 0.3)):
        assert np.abs(ready(loaded(name)).inputs["pixels"] - expected).max() < most, name


def test_each_picture_is_standardised_by_itself():
    light = np.random.default_rng(0).uniform(0.2, 0.3, size=(2 * PATCH, 2 * PATCH))
    found = transform()(in_memory(light)).inputs["pixels"]
    assert found.dtype == np.float32
    # The size is already right, so nothing is interpolated; float32 sums.
    assert found.mean() == pytest.approx(0, abs=1e-5) and found.std() == pytest.approx(1, abs=1e-5)
    brighter = transform()(in_memory(light * 2 + 0.1)).inputs["pixels"]
    np.testing.assert_allclose(brighter, found, atol=1e-4)


def test_full_window_gives_the_tokens_of_the_image_tokenizer():
    grey = np.random.default_rng(0).integers(0, 256, size=(3 * PATCH, 2 * PATCH), dtype=np.uint8)
    results = []
    for name, options in (("image", {}), ("xray", {"window": "full"})):
        modality = get_modality(name)
        chosen = modality.options(size=2 * PATCH, **options)
        ready = modality.transform(chosen, STEM)
        batch = stack_views([ready(in_memory(grey))], fields=modality.fields)
        tokenizer = modality.tokenizer(chosen, ready, STEM.class_token.shape[0], STEM)
        assert tokenizer.native
        with torch.no_grad():
            results.append(tokenizer(batch.inputs, batch.masks))
    image, xray = results
    assert image.spans[0].grid == xray.spans[0].grid
    # The same linear map of the same numbers, summed in another order, and rounded to 8 bits by the image's resize.
    torch.testing.assert_close(xray.x, image.x, atol=0.02 * float(image.x.abs().max()), rtol=0)


def test_a_trunk_without_a_kernel_is_served():
    ready = XrayTransform(XrayOptions(size=32), Stem())
    torch.manual_seed(0)
    tokenizer = MODALITY.tokenizer(XrayOptions(size=32), ready, 24, Stem())
    assert not tokenizer.native and tokenizer.patches.weight.shape == (24, 1, 16, 16)


def test_side_is_learned_from_training_pictures_only_where_it_is_free():
    samples = [in_memory(np.zeros((35, 35), np.uint8))] * 3
    free, fixed = XrayTransform(XrayOptions(), STEM), XrayTransform(XrayOptions(size=57), STEM)
    for each in (free, fixed):
        each.fit(samples)
    assert (free.side_, fixed.side_) == (140, 57)
    assert free.state() == {"side": 140, "tile": 0}


def test_augmentation_mirrors_only_where_it_is_allowed():
    left = np.zeros((2 * PATCH, 2 * PATCH), np.float32)
    left[:, :PATCH] = 1
    ready = transform(flip=True, crop=1.0)
    sample = ready(in_memory(left))
    turned = [ready.augment(sample, np.random.default_rng(seed)).inputs["pixels"][0, 0, 0] < 0 for seed in range(23)]
    assert any(turned) and not all(turned)
    still = transform(crop=1.0)
    for seed in range(7):
        found = still.augment(sample, np.random.default_rng(seed)).inputs["pixels"]
        np.testing.assert_allclose(found, sample.inputs["pixels"], atol=1e-6)


def test_colour_is_read_as_its_luminance(tmp_path):
    colour = np.zeros((5, 7, 3), np.uint8)
    colour[:, 3:] = (200, 100, 50)  # 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2
    Image.fromarray(colour).save(tmp_path / "a.png")
    ready = transform(window="full", size=PATCH)
    found = ready(View("a", load(Record("a", path=tmp_path / "a.png")))).inputs["pixels"]
    mean, std = ready.level
    assert found.max() == pytest.approx((124.2 / 255 - mean) / std, abs=1e-4)


@pytest.mark.parametrize(
    "value, text",
    [
        (np.full((5, 7), 1.5), "must be finite and lie in 0..1 where they are floating-point; found values from 1.5"),
        (np.full((5, 7), np.nan), "must be finite"),
        (np.zeros((5, 7), np.int32), "must be uint8, uint16, or floating-point values of 0..1; found int32"),
        (np.zeros((5, 7, 2), np.uint8), r"must have the shape .*; found \(5, 7, 2\)"),
        (np.zeros((0, 7), np.uint8), "must have the shape"),
        (np.zeros((7, 119), np.uint8), "must have an aspect ratio of at most 16"),
    ],
)
def test_wrong_arrays_say_why(value, text):
    with pytest.raises(DataError, match=f"^sample 3.*{text}"):
        transform()(in_memory(value))


def test_features_are_a_thumbnail():
    vector = features(loaded("good.dcm"))
    assert vector.shape == (48 * 48,) and vector.dtype == np.float32
    bright = features(in_memory(np.full((30, 40), 51, dtype=np.uint8)))  # exposure is not taken out
    np.testing.assert_allclose(bright, 0.2, atol=1e-6)


def test_a_missing_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'metatransformer\[xray\]'"):
        dicom.read_dicom(FIXTURES / "xray" / "good.dcm")


def test_check_lists_every_broken_file(capsys: pytest.CaptureFixture[str]):
    status, result, _ = run(["check", FIXTURES / "xray", "--modality", "xray"], capsys)
    assert status == 2
    broken = sorted(path.name for path in (FIXTURES / "xray").glob("broken*"))
    assert sorted(Path(problem["key"]).name for problem in result["problems"]) == broken
