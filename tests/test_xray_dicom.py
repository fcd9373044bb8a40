"""DICOM: stored values become light as the standard says; what is no single grey picture is refused."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from make_fixtures import write_dicom
from PIL import Image
from pydicom.encaps import encapsulate

from metatransformer.core.errors import DataError
from metatransformer.data.index import index_files
from metatransformer.modalities.xray import MODALITY, load
from metatransformer.modalities.xray.dicom import read_dicom

FIXTURES = Path(__file__).parent / "fixtures" / "xray"
PIXELS = np.array([[0, 100, 200, 300, 400], [500, 600, 700, 800, 900], [1000, 1500, 2000, 3000, 4095]], np.uint16)


def shown(path: Path, pixels: np.ndarray = PIXELS, **elements: object) -> np.ndarray:
    """Returns what ``read_dicom`` makes of a file with these pixels and elements."""
    write_dicom(path, pixels, **elements)
    return light(path)


def light(path: Path) -> np.ndarray:
    """Returns the picture of a file, 0..1."""
    return read_dicom(path)[0]


def rewritten(path: Path, change) -> Path:
    """Writes the good fixture after ``change(dataset)``."""
    dataset = pydicom.dcmread(FIXTURES / "good.dcm")
    change(dataset)
    dataset.save_as(path)
    return path


def test_without_a_window_the_picture_takes_its_own_range(tmp_path):
    half = PIXELS // 2
    found = shown(tmp_path / "a.dcm", half + np.uint16(7))
    assert found.dtype == np.float32 and found.shape == (3, 5)
    np.testing.assert_allclose(found, half / 2047, atol=1e-6)  # float32


def test_window_functions_give_the_values_of_the_standard(tmp_path):
    window = {"WindowCenter": 500, "WindowWidth": 401}
    linear = shown(tmp_path / "a.dcm", **window)
    # C.11.2.1.2.1: ((x - (c - 0.5)) / (w - 1)) + 0.5, for 600: 100.5 / 400 + 0.5
    assert linear[1, 1] == pytest.approx(0.75125, abs=1e-6)
    assert linear[0, 0] == 0 and linear[2, 4] == 1
    exact = shown(tmp_path / "b.dcm", VOILUTFunction="LINEAR_EXACT", **window)
    assert exact[1, 1] == pytest.approx(100 / 401 + 0.5, abs=1e-6)
    sigmoid = shown(tmp_path / "c.dcm", VOILUTFunction="SIGMOID", **window)
    assert sigmoid[1, 1] == pytest.approx(1 / (1 + np.exp(-4 * 100 / 401)), abs=1e-6)


def test_window_equals_that_of_the_library(tmp_path):
    window = {"WindowCenter": [1200, 7], "WindowWidth": [1777, 9], "RescaleSlope": 0.5, "RescaleIntercept": -11}
    found = shown(tmp_path / "a.dcm", **window)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    values = pydicom.pixels.apply_modality_lut(dataset.pixel_array, dataset)
    low, high = -11.0, 4095 * 0.5 - 11  # the library spreads the window over the range of 12 rescaled bits
    expected = (pydicom.pixels.apply_windowing(values, dataset) - low) / (high - low)
    np.testing.assert_allclose(found, expected, atol=1e-6)  # float32


def test_rescaled_values_meet_the_window(tmp_path):
    found = shown(tmp_path / "a.dcm", RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1100, WindowWidth=401)
    assert found[1, 1] == pytest.approx((2 * 600 - 100 - 1099.5) / 400 + 0.5, abs=1e-6)


def test_table_is_looked_up(tmp_path):
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 100, 8]  # entries, first value, bits
    table.LUTData = [0, 51, 102, 255]
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "US"
    values = np.array([[99, 100, 101], [102, 103, 4000]], np.uint16)
    found = shown(tmp_path / "a.dcm", values, VOILUTSequence=[table])
    np.testing.assert_allclose(found, [[0, 0, 0.2], [0.4, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}])
def test_monochrome1_is_inverted(tmp_path, window):
    plain = shown(tmp_path / "a.dcm", **window)
    inverted = shown(tmp_path / "b.dcm", PhotometricInterpretation="MONOCHROME1", **window)
    np.testing.assert_allclose(inverted, 1 - plain, atol=1e-6)


@pytest.mark.parametrize("window", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}])
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_under_any_window(tmp_path, kind, window):
    found = shown(tmp_path / "a.dcm", PixelPaddingValue=4095, PhotometricInterpretation=kind, **window)
    assert found[2, 4] == 0 and (found > 0).any()
    rest = shown(tmp_path / "b.dcm", PhotometricInterpretation=kind, **window)
    if window:
        np.testing.assert_array_equal(found.ravel()[:-1], rest.ravel()[:-1])


@pytest.mark.parametrize("value", [b"\x30\xf8\x00\x00", b"\x30\xf8\xff\xff"])
def test_padding_is_found_with_the_sign_written_either_way(tmp_path, value):
    pixels = PIXELS.astype(np.int16)
    pixels[0, 0] = -2000
    number = int.from_bytes(value, "little", signed=True)
    about = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15}
    write_dicom(tmp_path / "a.dcm", pixels.view(np.uint16), **about)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.add_new("PixelPaddingValue", "US" if number > 0 else "SS", number)
    dataset.save_as(tmp_path / "a.dcm")
    found = light(tmp_path / "a.dcm")
    assert found[0, 0] == 0 and found[0, 1] == 0 and found[2, 4] == 1  # 100 is the least that was measured


def test_tables_without_anything_in_them_are_no_tables(tmp_path):
    empty = {"ModalityLUTSequence": [pydicom.Dataset()], "VOILUTSequence": [pydicom.Dataset()]}
    np.testing.assert_array_equal(shown(tmp_path / "a.dcm", **empty), shown(tmp_path / "b.dcm"))


@pytest.mark.parametrize("method", ["JPEGLSLossless", "HTJ2KLossless", "DeflatedExplicitVRLittleEndian"])
def test_other_transfer_syntaxes(tmp_path, method):
    write_dicom(tmp_path / "a.dcm", PIXELS)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, method)
    if method == "JPEGLSLossless":
        dataset.PixelData = encapsulate([imagecodecs.jpegls_encode(PIXELS)])
    elif method == "HTJ2KLossless":
        wide = np.tile(PIXELS, (16, 16))
        body = imagecodecs.htj2k_encode(wide) if imagecodecs.HTJ2K.available else pytest.skip("no HTJ2K encoder")
        dataset.Rows, dataset.Columns, dataset.PixelData = *wide.shape, encapsulate([body])
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_allclose(light(tmp_path / "a.dcm")[:3, :5], PIXELS / 4095, atol=1e-6)  # float32


def test_pixels_of_32_bits_and_of_one(tmp_path):
    wide = PIXELS.astype(np.uint32) * 1000
    found = shown(tmp_path / "a.dcm", wide, BitsStored=32, HighBit=31)
    np.testing.assert_allclose(found, PIXELS / 4095, atol=1e-6)  # float32
    bits = np.packbits(np.arange(16).reshape(4, 4) % 3 == 0, bitorder="little")
    about = {"Rows": 4, "Columns": 4, "BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}
    np.testing.assert_array_equal(shown(tmp_path / "a.dcm", bits[None], **about), np.arange(16).reshape(4, 4) % 3 == 0)


def test_padding_is_black_and_sets_no_range(tmp_path):
    pixels = PIXELS.copy()
    pixels[0, :2] = 4095
    pixels[2, 4] = 3000
    for kind, light in (("MONOCHROME2", 0.0), ("MONOCHROME1", 1.0)):
        found = shown(tmp_path / "a.dcm", pixels, PixelPaddingValue=4095, PhotometricInterpretation=kind)
        assert (found[0, :2] == 0).all()
        assert found[0, 2] == light and found[2, 4] == 1 - light  # 200 and 3000


def test_eight_bits_and_a_picture_of_one_value(tmp_path):
    assert (shown(tmp_path / "a.dcm", np.full((3, 5), 77, np.uint8)) == 0).all()


def test_compressed_pixels(tmp_path):
    dataset = pydicom.dcmread(FIXTURES / "good.dcm")
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(tmp_path / "a.dcm")
    np.testing.assert_array_equal(light(tmp_path / "a.dcm"), light(FIXTURES / "good.dcm"))


@pytest.mark.parametrize("method", ["JPEG2000Lossless", "JPEGBaseline8Bit"])
def test_pixels_compressed_as_a_picture(tmp_path, method):
    grey = np.linspace(0, 255, 16 * 24).reshape(16, 24).astype(np.uint8)
    body = io.BytesIO()
    if method == "JPEG2000Lossless":
        Image.fromarray(grey).save(body, format="JPEG2000", no_jp2=True)
    else:
        Image.fromarray(grey).save(body, format="JPEG", quality=95)
    write_dicom(tmp_path / "a.dcm", grey)
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.file_meta.TransferSyntaxUID = getattr(pydicom.uid, method)
    dataset.PixelData = encapsulate([body.getvalue()])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    dataset.save_as(tmp_path / "a.dcm")
    # JPEG rounds each coefficient: a few grey levels of 255.
    np.testing.assert_allclose(light(tmp_path / "a.dcm"), grey / 255, atol=0.02)


@pytest.mark.parametrize("count, middle", [(2, 1), (3, 1)])
def test_of_several_frames_the_middle_one_is_read(tmp_path, count, middle):
    frames = np.stack([np.roll(PIXELS, place) for place in range(count)])
    write_dicom(tmp_path / "a.dcm", frames, NumberOfFrames=count)
    found, number = read_dicom(tmp_path / "a.dcm")
    assert number == count
    np.testing.assert_allclose(found, frames[middle] / 4095, atol=1e-6)  # float32


def test_colour_is_read_as_its_luminance(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, size=(3, 5, 3), dtype=np.uint8)
    about = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "BitsStored": 8, "HighBit": 7, "Rows": 3, "Columns": 5}
    found = shown(tmp_path / "a.dcm", colours, PhotometricInterpretation="RGB", **about)
    np.testing.assert_allclose(found, colours / 255 @ [0.299, 0.587, 0.114], atol=1e-6)  # float32


@pytest.mark.parametrize("full", [255, 65535])
def test_a_palette_is_looked_up_whatever_its_entries_go_to(tmp_path, full):
    numbers = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    # Red, green, blue of 0, 1, 2.
    entries = np.array([[0, 255, 51], [0, 255, 102], [0, 255, 153]], np.uint16) * np.uint16(full // 255)
    about: dict[str, object] = {}
    for colour, row in zip(("Red", "Green", "Blue"), entries, strict=True):
        about[f"{colour}PaletteColorLookupTableDescriptor"] = [3, 0, 16]
        about[f"{colour}PaletteColorLookupTableData"] = row.tobytes()
    found = shown(tmp_path / "a.dcm", numbers, PhotometricInterpretation="PALETTE COLOR", **about)
    last = (51 * 0.299 + 102 * 0.587 + 153 * 0.114) / 255
    np.testing.assert_allclose(found, [[0, 1, last], [last, 1, 0]], atol=1e-6)  # float32


@pytest.mark.parametrize("name", ["IM000001", "1.2.840.5", "SCAN.IMA", "bare.dcm"])
def test_files_as_archives_export_them(tmp_path, name):
    whole = (FIXTURES / "good.dcm").read_bytes()
    (tmp_path / name).write_bytes(whole)
    if name == "bare.dcm":  # neither preamble nor the group of facts about the file
        dataset = pydicom.dcmread(FIXTURES / "good.dcm")
        del dataset.file_meta
        dataset.preamble = None
        dataset.save_as(tmp_path / name, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert (tmp_path / name).read_bytes()[:2] == b"\x08\x00"
    index = index_files(tmp_path, suffixes=MODALITY.source.suffixes, require_labels=False)
    (record,) = index.records
    found = load(record)["pixels"]
    np.testing.assert_array_equal(found, light(FIXTURES / "good.dcm"))


@pytest.mark.parametrize(
    "name, found",
    [
        ("broken_window.dcm", "found 0. Repair or remove the window"),
        ("broken_colour.dcm", "a damaged one"),
        ("broken_no_pixels.dcm", r"found none \(modality CR\)"),
        ("broken_truncated.dcm", "a damaged one"),
        ("broken_foreign.dcm", "no mark 'DICM'"),
        ("broken_empty.dcm", "a file of 0 bytes"),
        ("absent.dcm", "nothing there"),
    ],
)
def test_broken_fixtures_say_why(name, found):
    with pytest.raises(DataError, match=f"{name}: must .*{found}"):
        read_dicom(FIXTURES / name)


def test_elements_that_contradict_each_other_are_refused(tmp_path):
    for change, text in (
        (lambda d: setattr(d, "BitsAllocated", 24), "1, 8, 16 or 32 bits a pixel; found 24"),
        (lambda d: setattr(d, "Rows", 50), "a damaged one"),
        (lambda d: d.__delitem__("Columns"), "a damaged one"),
        (lambda d: setattr(d, "Rows", 65535) or setattr(d, "Columns", 65535), "have at most 179 million pixels"),
        (lambda d: setattr(d, "PhotometricInterpretation", "HSV"), "must be grey or colour .* found HSV"),
    ):
        with pytest.raises(DataError, match=text):
            read_dicom(rewritten(tmp_path / "a.dcm", change))


def test_a_number_of_frames_that_is_none_is_refused(tmp_path):
    write_dicom(tmp_path / "a.dcm", PIXELS, NumberOfFrames="1")
    data = (tmp_path / "a.dcm").read_bytes()
    place = data.index(b"\x28\x00\x08\x00IS\x02\x00") + 8
    (tmp_path / "a.dcm").write_bytes(data[:place] + b"x " + data[place + 2 :])
    with pytest.raises(DataError, match=r"a.dcm: must be a whole DICOM file; found a damaged one \(pydicom"):
        read_dicom(tmp_path / "a.dcm")


def test_a_file_that_does_not_name_its_transfer_syntax_is_read_as_it_was_parsed(tmp_path):
    data = (FIXTURES / "good.dcm").read_bytes()
    place = data.index(b"\x02\x00\x10\x00UI")
    end = place + 8 + int.from_bytes(data[place + 6 : place + 8], "little")
    length = int.from_bytes(data[140:144], "little") - (end - place)
    (tmp_path / "a.dcm").write_bytes(data[:140] + length.to_bytes(4, "little") + data[144:place] + data[end:])
    np.testing.assert_array_equal(light(tmp_path / "a.dcm"), light(FIXTURES / "good.dcm"))


def test_any_cut_of_a_file_is_refused(tmp_path):
    data = (FIXTURES / "good.dcm").read_bytes()
    for size in range(1, len(data) - 2, 131):
        (tmp_path / "a.dcm").write_bytes(data[:size])
        with pytest.raises(DataError):
            read_dicom(tmp_path / "a.dcm")
