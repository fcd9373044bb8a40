"""Infrared: counts or degrees C, one channel or three, standardised by the picture or by the training pictures."""

import struct
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from common import FIXTURES, run
from PIL import Image

from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError, MissingDependencyError, NotFittedError, UsageError
from metatransformer.core.samples import Record, View
from metatransformer.modalities.infrared import MODALITY, InfraredOptions, InfraredTransform, features, load
from metatransformer.modalities.infrared.thermal import read_thermal
from metatransformer.trunk import load_encoder

FOLDER = FIXTURES / "infrared"
STEM = load_encoder("test").stem
PATCH = STEM.patch_size
WIDTH = STEM.class_token.shape[0]
CELSIUS = {"unit": "celsius"}


def in_memory(value: np.ndarray, *, key: str = "sample 3") -> View:
    return View(key, load(Record(key, value=value)))


def transform(**options: object) -> InfraredTransform:
    return InfraredTransform(InfraredOptions(**{"size": 2 * PATCH} | options), STEM)


def square(seed: int = 0, *, high: int = 256, dtype: type = np.uint8) -> np.ndarray:
    """Returns counts of exactly two by two patches, so that nothing is resized."""
    return np.random.default_rng(seed).integers(0, high, size=(2 * PATCH, 2 * PATCH)).astype(dtype)


# --- files ------------------------------------------------------------------------------------------------------------


def test_counts_come_as_the_file_has_them(tmp_path):
    eight, sixteen = square(), square(1, high=65536, dtype=np.uint16)
    for array in (eight, sixteen):
        for ending in ("png", "tif"):
            Image.fromarray(array).save(tmp_path / f"a.{ending}")
            found, _ = read_thermal(tmp_path / f"a.{ending}")
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array[:, :, None])


@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_tiff_of_every_kind(tmp_path, compression):
    path, colour = tmp_path / "a.tif", np.random.default_rng(0).integers(0, 65536, size=(5, 7, 3)).astype(np.uint16)
    tifffile.imwrite(path, colour, photometric="rgb", compression=compression)
    np.testing.assert_array_equal(read_thermal(path)[0], colour)
    planes = np.moveaxis(colour, -1, 0)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", compression=compression)
    np.testing.assert_array_equal(read_thermal(path)[0], colour)
    degrees = np.linspace(-20, 90, 35).reshape(5, 7)
    tifffile.imwrite(path, degrees, compression=compression)
    assert read_thermal(path)[0].dtype == np.float32
    np.testing.assert_allclose(read_thermal(path)[0][:, :, 0], degrees, atol=1e-5)  # float32


def test_white_is_small_where_the_file_says_so(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", square(), photometric="miniswhite")
    np.testing.assert_array_equal(read_thermal(tmp_path / "a.tif")[0][:, :, 0], 255 - square())


def test_small_white_values_of_an_odd_depth_are_turned_within_it(tmp_path: Path):
    """Four bits, stored 1 and 15 of 0..15; tags 256, 257, 258, 262, 273, 278, 279 of TIFF 6.0."""
    tags = ((256, 2), (257, 1), (258, 4), (259, 1), (262, 0), (273, 8), (277, 1), (278, 1), (279, 1))
    entries = b"".join(struct.pack("<HHII", code, 3, 1, value) for code, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 10) + b"\x1f\0" + directory)
    assert read_thermal(tmp_path / "a.tif")[0].ravel().tolist() == [14, 0]


@pytest.mark.parametrize(
    "name, found",
    [
        ("broken_pages.tif", "2 pages"),
        ("broken_alpha.tif", "MINISBLACK with 2 channels"),
        ("broken_truncated.tif", "40 x 24 values announced in a file of 541 bytes"),
        ("broken_foreign.tif", "no known format"),
        ("broken_empty.tif", "a file of 0 bytes"),
        ("absent.tif", "nothing there"),
    ],
)
def test_broken_fixtures_say_why(name, found):
    with pytest.raises(DataError, match=f"{name}: must .*{found}"):
        read_thermal(FOLDER / name)


def test_no_data_is_found_where_white_is_small_and_where_it_is_written_short(tmp_path):
    counts = square()
    counts[0, 0] = 255
    tifffile.imwrite(tmp_path / "a.tif", counts, photometric="miniswhite", extratags=[(42113, "s", 0, "255", True)])
    pixels, no_data = read_thermal(tmp_path / "a.tif")
    assert pixels[0, 0, 0] == no_data == 0
    degrees = square().astype(np.float32) / 10
    degrees[:3] = np.finfo(np.float32).min
    tifffile.imwrite(tmp_path / "b.tif", degrees, extratags=[(42113, "s", 0, "-3.40282e+38", True)])
    found = transform(**CELSIUS)(View("a", load(Record("a", path=tmp_path / "b.tif")))).inputs["pixels"]
    np.testing.assert_allclose(found[:3], 0, atol=1e-5)


def test_a_tiff_is_known_by_its_bytes(tmp_path):
    tifffile.imwrite(tmp_path / "a.png", square().astype(np.float32))
    np.testing.assert_array_equal(read_thermal(tmp_path / "a.png")[0][:, :, 0], square())


def test_other_numbers_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", square().astype(np.int32))
    with pytest.raises(DataError, match="must hold numbers of type uint8, .*float64; found int32"):
        read_thermal(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "b.tif", np.ones((5, 7), np.float32), photometric="miniswhite")
    with pytest.raises(DataError, match="found floating-point MINISWHITE"):
        read_thermal(tmp_path / "b.tif")


@pytest.mark.parametrize("package", ["tifffile", "imagecodecs"])
def test_a_missing_reader_names_the_extra(tmp_path, monkeypatch, package):
    tifffile.imwrite(tmp_path / "a.tif", square(), compression="lzw")
    if package == "tifffile":
        monkeypatch.setitem(sys.modules, package, None)
    else:  # as tifffile says it where its codecs are missing

        def fail(self: tifffile.TiffPage) -> None:
            raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")

        monkeypatch.setattr(tifffile.TiffPage, "asarray", fail)
    with pytest.raises(MissingDependencyError, match=rf"'{package}' .*pip install 'metatransformer\[infrared\]'"):
        read_thermal(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_tiff_is_obeyed_as_that_of_a_png(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    for ending in ("tif", "png"):
        Image.fromarray(square()[:5, :7]).save(tmp_path / f"a.{ending}", exif=exif)
    found, expected = (read_thermal(tmp_path / f"a.{ending}")[0] for ending in ("tif", "png"))
    np.testing.assert_array_equal(found, expected)


def test_colour_of_16_bits_keeps_them_in_a_png(tmp_path):
    colour = np.random.default_rng(0).integers(0, 65536, size=(5, 7, 3)).astype(np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(colour))
    np.testing.assert_array_equal(read_thermal(tmp_path / "a.png")[0], colour)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:90])
    with pytest.raises(DataError, match=r"a.png: must be a whole picture; found a damaged one \(Pillow"):
        read_thermal(tmp_path / "a.png")


def test_headers_that_announce_too_much_are_refused_before_anything_is_decoded(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", square())
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        places = [file.pages[0].tags[code].valueoffset for code in (256, 257)]
    for side, found in (
        (2_000_000, "2,000,000 x 2,000,000"),
        (9_000, "(9,000 x 9,000 values|1,125 strips or tiles) announced in a file of"),
        (0, "(an array of shape|a damaged one)"),
    ):
        for place in places:
            data[place : place + 4] = side.to_bytes(4, "little")
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(DataError, match=f"a.tif: must .*{found}"):
            read_thermal(tmp_path / "a.tif")


# --- window and unit --------------------------------------------------------------------------------------------------


def test_each_picture_is_standardised_by_itself():
    found = transform()(in_memory(square())).inputs["pixels"]
    again = transform()(in_memory(square().astype(np.uint16) * 200)).inputs["pixels"]
    expected = (square() - square().mean()) / square().std()
    np.testing.assert_allclose(found[:, :, 0], expected, atol=1e-5)  # float32
    np.testing.assert_allclose(again, found, atol=1e-5)


def test_training_window_is_learned_and_keeps_which_picture_is_hotter():
    cold, hot = square() // 4, square() // 4 + 100
    ready = transform(window="training")
    ready.fit([in_memory(cold), in_memory(hot)])
    both = np.stack([cold, hot])
    assert (ready.mean_, ready.std_) == pytest.approx((both.mean(), both.std()))
    found = [ready(in_memory(x)).inputs["pixels"].mean() for x in (cold, hot)]
    assert found[0] < -0.5 and found[1] > 0.5
    other = transform(window="training")
    other.load_state(ready.state())
    np.testing.assert_array_equal(other(in_memory(hot)).inputs["pixels"], ready(in_memory(hot)).inputs["pixels"])
    assert ready.notes == (f"grey pictures, side {2 * PATCH}, window {both.mean():.4g} +- {both.std():.4g} (uint8)",)


def test_training_window_refuses_another_scale_and_use_before_fit():
    ready = transform(window="training")
    with pytest.raises(NotFittedError, match="must have learned its window"):
        ready(in_memory(square()))
    ready.fit([in_memory(square())])
    wide = square().astype(np.uint16)
    with pytest.raises(DataError, match="sample 3: must hold uint8, as all pictures under one window; found uint16"):
        ready(in_memory(wide))
    with pytest.raises(DataError, match="found uint16"):
        transform(window="training").fit([in_memory(square()), in_memory(wide)])


def test_degrees_are_the_same_from_floats_and_from_scaled_counts():
    # A common radiometric coding: 0.04 kelvin a count.
    counts = (square() / 255 * 2000 + 7000).astype(np.uint16)
    degrees = counts * 0.04 - 273.15
    options = {"window": "training", **CELSIUS}
    scaled, plain = transform(scale=0.04, offset=-273.15, **options), transform(**options)
    scaled.fit([in_memory(counts)])
    plain.fit([in_memory(degrees)])
    assert scaled.mean_ == pytest.approx(degrees.mean(), abs=1e-3) and scaled.type_ == "degrees C"
    one, two = scaled(in_memory(counts)).inputs["pixels"], plain(in_memory(degrees)).inputs["pixels"]
    np.testing.assert_allclose(one, two, atol=1e-4)  # float32 of temperatures


@pytest.mark.parametrize(
    "options, value, text",
    [
        (
            {},
            np.ones((5, 7), np.float32),
            "must be counts, whole numbers of 8 or 16 bits; found float32. Set input.unit=celsius",
        ),
        (CELSIUS, np.full((5, 7), 7000, np.uint16), "or have their scale stated; found uint16 and input.scale=0"),
        (CELSIUS, np.full((5, 7), 300 + 7000.0), r"lie in -273.15..3000 degrees C; found values from 7300"),
        (CELSIUS, np.full((5, 7), np.nan), "must hold a pixel that was measured; found none, only NaN"),
        (CELSIUS, np.random.default_rng(0).uniform(size=(5, 7, 3)), "must have one channel where input.unit=celsius"),
        ({}, np.zeros((5, 7, 2), np.uint8), "must have the shape"),
        ({}, np.zeros((7, 119), np.uint8), "must have an aspect ratio of at most 16"),
    ],
)
def test_wrong_arrays_say_why(options, value, text):
    with pytest.raises(DataError, match=f"^sample 3.*{text}"):
        transform(**options)(in_memory(value))


@pytest.mark.parametrize("dtype", [np.int16, np.float16])
def test_degrees_of_drone_kits(tmp_path, dtype):
    tenths = np.linspace(-150, 450, 35).reshape(5, 7).round().astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", tenths if dtype == np.int16 else tenths / dtype(10))
    sample = View("a", load(Record("a", path=tmp_path / "a.tif")))
    ready = transform(scale=0.1 if dtype == np.int16 else 0.0, window="training", **CELSIUS)
    ready.fit([sample])
    assert ready.mean_ == pytest.approx(15, abs=0.05) and ready.type_ == "degrees C"


@pytest.mark.parametrize("gap", [np.nan, -9999.0])
def test_pixels_without_a_measurement_count_as_the_mean(tmp_path, gap):
    degrees = square().astype(np.float32) / 10
    whole = transform(**CELSIUS)(in_memory(degrees)).inputs["pixels"]
    degrees[:3] = gap
    tifffile.imwrite(tmp_path / "a.tif", degrees, extratags=[(42113, "s", 0, str(gap), True)])
    sample = View("a", load(Record("a", path=tmp_path / "a.tif")))
    ready = transform(**CELSIUS)
    ready.fit([sample, in_memory(square() / 10)])
    assert ready.notes[1].startswith("1 of 2 pictures with pixels without a measurement (NaN or no data)")
    found = ready(sample).inputs["pixels"]
    assert ready.doubts()[0].startswith("1 picture with pixels without a measurement") and not ready.doubts()
    rest = degrees[3:]
    np.testing.assert_allclose(found[3:, :, 0], (rest - rest.mean()) / rest.std(), atol=1e-4)  # float32
    np.testing.assert_allclose(found[:3], 0, atol=1e-5)
    assert not np.allclose(whole[3:], found[3:])
    degrees[:] = gap
    tifffile.imwrite(tmp_path / "a.tif", degrees, extratags=[(42113, "s", 0, str(gap), True)])
    with pytest.raises(DataError, match="a: must hold a pixel that was measured; found none"):
        ready(View("a", load(Record("a", path=tmp_path / "a.tif"))))


def test_a_scale_without_degrees_is_refused():
    with pytest.raises(
        UsageError, match=r"input.scale / input.offset: must stay 0 where input.unit=counts; found 0.04"
    ):
        InfraredOptions(scale=0.04)


def test_the_celsius_fixture_is_read_where_the_unit_is_stated(capsys):
    words = ["check", FOLDER / "celsius.tif", "--modality", "infrared"]
    status, result, _ = run([*words, "input.unit=celsius"], capsys)
    assert (status, result["bad"]) == (0, 0)
    status, result, _ = run(words, capsys)
    assert (status, result["bad"]) == (2, 1) and "Set input.unit=celsius" in result["problems"][0]["problem"]


# --- channels ---------------------------------------------------------------------------------------------------------


def test_channels_are_learned_and_colour_is_refused_where_training_was_grey():
    grey, colour = square(), np.stack([square(), square(1), square(2)], axis=-1)
    saved_as_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    one, three = transform(), transform()
    one.fit([in_memory(grey), in_memory(saved_as_rgb)])
    three.fit([in_memory(grey), in_memory(colour)])
    assert (one.channels_, three.channels_) == (1, 3)
    np.testing.assert_array_equal(one(in_memory(grey)).inputs["pixels"], one(in_memory(saved_as_rgb)).inputs["pixels"])
    assert three(in_memory(grey)).inputs["pixels"].shape == (2 * PATCH, 2 * PATCH, 3)
    with pytest.raises(DataError, match=r"sample 3: must have one channel, .*; found 3 that differ \(false colour\?\)"):
        one(in_memory(colour))


def test_one_channel_and_three_equal_ones_give_the_same_tokens():
    tokens = []
    for training in (square(), np.stack([square(), square(1), square(2)], axis=-1)):
        ready = transform()
        ready.fit([in_memory(training)])
        batch = stack_views([ready(in_memory(square(5)))], fields=MODALITY.fields)
        tokenizer = MODALITY.tokenizer(ready.options, ready, WIDTH, STEM)
        assert tokenizer.patches.weight.shape[1] == ready.channels_ and tokenizer.native
        with torch.no_grad():
            tokens.append(tokenizer(batch.inputs, batch.masks).x)
    # The same products, summed in another order, in float32.
    torch.testing.assert_close(tokens[0], tokens[1], atol=1e-5, rtol=1e-4)


def test_tiny_pictures_keep_their_aspect():
    ready = InfraredTransform(InfraredOptions(), STEM)
    ready.fit([in_memory(np.zeros((40, 24), np.uint8))] * 3)
    assert ready.side_ == int(4 * (40 * 24) ** 0.5)
    h, w = ready(in_memory(np.zeros((40, 24), np.uint8))).inputs["pixels"].shape[:2]
    assert h % PATCH == w % PATCH == 0 and h / w == pytest.approx(40 / 24, rel=0.25)  # rounded to whole patches


def test_augmentation_mirrors_along_the_allowed_axes():
    corner = np.zeros((2 * PATCH, 2 * PATCH), np.uint8)
    corner[:PATCH, :PATCH] = 200
    for options, places in (
        ({}, {(0, 0), (0, 1), (1, 0), (1, 1)}),
        ({"upside_down": False}, {(0, 0), (0, 1)}),
        ({"upside_down": False, "flip": False}, {(0, 0)}),
    ):
        ready = transform(crop=1.0, **options)
        sample, seen = ready(in_memory(corner)), set()
        for seed in range(31):
            found = ready.augment(sample, np.random.default_rng(seed)).inputs["pixels"][:, :, 0]
            top, left = np.unravel_index(found.argmax(), found.shape)
            seen.add((int(top >= PATCH), int(left >= PATCH)))
        assert seen == places


def test_features_are_a_thumbnail():
    vector = features(transform()(View("a", load(Record("a", path=FOLDER / "good.png")))))
    assert vector.shape == (32 * 32 * 3,) and vector.dtype == np.float32


def test_check_lists_every_broken_file(capsys):
    status, result, _ = run(["check", FOLDER, "--modality", "infrared"], capsys)
    assert status == 2
    broken = sorted(path.name for path in FOLDER.iterdir() if not path.name.startswith("good"))
    assert sorted(Path(problem["key"]).name for problem in result["problems"]) == broken
