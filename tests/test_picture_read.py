"""Pictures: every mode becomes what a person sees; every damage becomes a DataError."""

import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from metatransformer.core.errors import DataError
from metatransformer.modalities._picture.pixels import as_rgb
from metatransformer.modalities._picture.read import PICTURE_SUFFIXES, read_image

FIXTURES = Path(__file__).parent / "fixtures" / "image"
PIXELS = np.random.default_rng(1).integers(0, 256, size=(5, 7, 3), dtype=np.uint8)


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_lossless_formats_return_the_pixels(tmp_path, suffix):
    found = read_image(saved(Image.fromarray(PIXELS), tmp_path / f"a.{suffix}"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, PIXELS)


def test_grey_keeps_one_channel_and_its_depth(tmp_path):
    wide = PIXELS[:, :, 0].astype(np.uint16) * 257
    for array in (PIXELS[:, :, 0], wide):
        for suffix in ("png", "tiff"):
            found = read_image(saved(Image.fromarray(array), tmp_path / f"a.{suffix}"))
            assert found.dtype == array.dtype
            np.testing.assert_array_equal(found, array[:, :, None])


def test_black_and_white_becomes_0_and_255(tmp_path):
    found = read_image(saved(Image.fromarray(PIXELS[:, :, 0] > 127), tmp_path / "a.png"))
    np.testing.assert_array_equal(found[:, :, 0], np.where(PIXELS[:, :, 0] > 127, 255, 0))


def test_alpha_lies_on_white(tmp_path):
    rgba = np.zeros((2, 3, 4), dtype=np.uint8)
    rgba[:, 0] = (200, 100, 0, 255)
    rgba[:, 1] = (200, 100, 0, 51)  # one fifth: 0.2 * 200 + 0.8 * 255 = 244
    found = read_image(saved(Image.fromarray(rgba), tmp_path / "a.png"))
    np.testing.assert_array_equal(found[0], [[200, 100, 0], [244, 224, 204], [255, 255, 255]])


def test_palette_with_a_transparent_colour(tmp_path):
    image = Image.new("P", (3, 2), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0)
    found = read_image(saved(image, tmp_path / "a.png", transparency=0))
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[1, 2].tolist() == [10, 20, 30]


@pytest.mark.parametrize("mode, ending", [("CMYK", "jpg"), ("YCbCr", "jpg"), ("LAB", "tiff")])
def test_other_colour_spaces_become_rgb(tmp_path, mode, ending):
    white = {"CMYK": (0, 0, 0, 0), "YCbCr": (255, 128, 128), "LAB": (255, 128, 128)}[mode]
    found = read_image(saved(Image.new(mode, (7, 5), white), tmp_path / f"a.{ending}"))
    assert found.shape == (5, 7, 3)
    # JPEG and the conversion each round once.
    assert int(found.min()) >= 250


def test_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    path = saved(Image.fromarray(PIXELS), tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(path), np.rot90(PIXELS, k=-1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["L", "P", "I;16", "RGB"])
def test_orientation_of_a_tiff_is_that_of_a_png(tmp_path, kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = Image.fromarray((np.arange(2400) % 251).astype(np.uint8).reshape(40, 60))
    image = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200) if kind == "I;16" else grey.convert(kind)
    found = read_image(saved(image, tmp_path / "a.tif", exif=exif))
    assert found.shape[:2] == ((40, 60) if orientation < 5 else (60, 40))
    np.testing.assert_array_equal(found, read_image(saved(image, tmp_path / "a.png", exif=exif)))


def test_an_avif_is_a_picture(tmp_path):
    found = read_image(saved(Image.new("RGB", (7, 5), (200, 100, 50)), tmp_path / "a.avif", quality=100))
    np.testing.assert_allclose(found, np.broadcast_to([200, 100, 50], (5, 7, 3)), atol=3)  # chroma is rounded


def test_no_other_format_is_opened_whatever_the_name_says(tmp_path):
    saved(Image.fromarray(PIXELS), tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png: must be a picture \(JPEG, PNG, .*found no known format.*'%!PS-Ado"):
        read_image(tmp_path / "a.png")


def test_a_transparent_grey_of_16_bits_is_white(tmp_path):
    wide = np.array([[0, 700, 65535]], dtype=np.uint16)
    found = read_image(saved(Image.fromarray(wide), tmp_path / "a.png", transparency=700))
    assert found[0, :, 0].tolist() == [0, 65535, 65535]


def test_numbers_with_a_sign_are_no_grey_levels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.array([[1, 127]], dtype=np.int8))
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [1, 127]
    tifffile.imwrite(tmp_path / "a.tif", np.array([[-1, 127]], dtype=np.int8))
    with pytest.raises(DataError, match=r"must hold values of 0\.\.65535; found values from -1 to 127"):
        read_image(tmp_path / "a.tif")


def test_tiff_that_pillow_does_not_read(tmp_path):
    rng = np.random.default_rng(0)
    colour = rng.integers(0, 65536, size=(5, 7, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", colour.astype(np.uint32), photometric="rgb")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colour)
    for method in ("jpeg2000", "lerc"):
        tifffile.imwrite(tmp_path / "a.tif", colour[:, :, 0], compression=method)
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), colour[:, :, :1])
    deep = np.array([[0, 341, 1023]], dtype=np.uint16)  # ten bits: full scale is 1023
    tifffile.imwrite(tmp_path / "a.tif", deep, bitspersample=10)
    assert read_image(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 21845, 65535]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floating_point_tiff_is_a_share_of_white(tmp_path, dtype):
    shares = np.linspace(0, 1, 35).reshape(5, 7).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", shares)
    found = read_image(tmp_path / "a.tif")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:, :, 0], shares.astype(np.float32))
    np.testing.assert_array_equal(as_rgb(found, where="a")[:, :, 1], np.rint(shares.astype(np.float32) * 255))
    for wrong, text in ((shares * 2, "values from 0 to 2"), (np.where(shares > 0.5, np.nan, shares), "17 NaN")):
        tifffile.imwrite(tmp_path / "a.tif", wrong.astype(dtype))
        with pytest.raises(DataError, match=rf"a: pixels: must be finite and lie in 0\.\.1 .*; found {text}"):
            as_rgb(read_image(tmp_path / "a.tif"), where="a")


def test_bands_that_are_no_colours_are_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 7, 4), np.uint16), photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match="must be grey or RGB; found MINISBLACK with 4 channels.*hyperspectral"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("ending", ["png", "tif"])
def test_colour_of_16_bits_keeps_them(tmp_path, ending, orientation):
    colour = np.random.default_rng(0).integers(0, 4096, size=(5, 7, 3), dtype=np.uint16)
    if ending == "png":
        data = imagecodecs.png_encode(colour)
        exif = Image.Exif()
        exif[274] = orientation
        chunk = b"eXIf" + exif.tobytes()[6:]  # behind the header, 33 bytes; without the mark "Exif\0\0" of a JPEG
        body = (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        (tmp_path / "a.png").write_bytes(data[:33] + body + data[33:])
    else:
        tags = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb", extratags=tags)
    found = read_image(tmp_path / f"a.{ending}")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, np.rot90(colour, k=-1) if orientation == 6 else colour)


def test_alpha_of_16_bits_lies_on_white(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 65536, size=(5, 7, 4), dtype=np.uint16)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(rgba))
    share = rgba[:, :, 3:] / 65535
    expected = rgba[:, :, :3] * share + 65535 * (1 - share)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=0.5)  # rounded
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    np.testing.assert_allclose(read_image(tmp_path / "a.tif"), expected, atol=0.5)


def test_of_a_tiff_of_several_pages_the_first_is_read_at_any_depth(tmp_path):
    for dtype in (np.uint8, np.uint16):
        pages = np.random.default_rng(0).integers(0, 200, size=(3, 5, 7, 3)).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb")
        np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), pages[0])


@pytest.mark.parametrize("ending", ["ppm", "pgm", "pbm", "jp2", "jfif"])
def test_formats_of_older_data_sets(tmp_path, ending):
    image = Image.fromarray(PIXELS).convert({"pgm": "L", "pbm": "1"}.get(ending, "RGB"))
    kinds = {"jfif": "JPEG", "jp2": "JPEG2000"}
    found = read_image(saved(image, tmp_path / f"a.{ending}", format=kinds.get(ending, "PPM")))
    expected = np.asarray(image.convert("L" if ending in ("pgm", "pbm") else "RGB")).reshape(found.shape)
    np.testing.assert_allclose(found, expected, atol=255 if ending == "jfif" else 0)  # JPEG of noise is not noise
    assert f".{ending}" in PICTURE_SUFFIXES


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.gif", "a.bmp"])
def test_a_damaged_picture_is_not_called_unknown(tmp_path, name):
    path = saved(Image.fromarray(PIXELS), tmp_path / name)
    path.write_bytes(path.read_bytes()[:6] + bytes(60))
    with pytest.raises(DataError, match=f"{name}: must be a whole picture.*found a damaged"):
        read_image(path)


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (3, 2), value) for value in (10, 200)]
    path = saved(frames[0], tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert set(read_image(path).ravel().tolist()) == {10}


def test_values_beyond_16_bits_are_refused(tmp_path):
    path = saved(Image.fromarray(np.full((2, 3), 70_000, dtype=np.int32)), tmp_path / "a.tiff")
    with pytest.raises(DataError, match="values of 0..65535; found values from 70000"):
        read_image(path)


def test_good_fixtures_load():
    assert read_image(FIXTURES / "good.png").shape == (13, 17, 3)
    assert read_image(FIXTURES / "good.jpg").shape == (13, 17, 3)
    assert read_image(FIXTURES / "good_grey16.png").dtype == np.uint16


@pytest.mark.parametrize(
    "name, found",
    [
        ("broken_truncated.png", "a damaged one"),
        ("broken_truncated.jpg", "a damaged one"),
        ("broken_byte.png", "a damaged one"),
        ("broken_foreign.png", "no known format"),
        ("broken_empty.png", "a file of 0 bytes"),
        ("broken_bomb.png", "a decompression bomb"),
        ("absent.png", "nothing there"),
    ],
)
def test_broken_fixtures_say_why(name, found):
    with pytest.raises(DataError, match=f"{name}: must .*{found}"):
        read_image(FIXTURES / name)


def test_any_cut_of_a_picture_is_refused(tmp_path):
    data = (FIXTURES / "good.png").read_bytes()
    # The last 12 bytes are the end mark, which no decoder misses.
    for size in range(1, len(data) - 12, 41):
        (tmp_path / "a.png").write_bytes(data[:size])
        with pytest.raises(DataError):
            read_image(tmp_path / "a.png")
