"""Arrays and cubes in files: every format gives the same numbers; what is missing or damaged is named."""

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
import tifffile
from common import FIXTURES
from PIL import Image

from metatransformer.core.errors import DataError, UsageError
from metatransformer.modalities.hyperspectral.arrays import (
    choose_entry,
    is_array_file,
    list_arrays,
    read_array,
    tiff_facts,
)
from metatransformer.modalities.hyperspectral.cube import Cube, cube_from_array, find_cube, read_cube, wavelengths_nm
from metatransformer.modalities.hyperspectral.envi import envi_header

FOLDER = FIXTURES / "hyperspectral"
NM = np.linspace(450, 950, 11)


def test_every_format_gives_the_same_cube():
    expected = read_cube(FOLDER / "good.mat", variable="").values
    assert expected.shape == (5, 7, 11) and expected.dtype == np.float32
    for name in ("good_v73.mat", "good.npz", "good_pages.tif", "good_envi.hdr", "good_envi.dat"):
        np.testing.assert_array_equal(read_cube(FOLDER / name, variable="").values, expected)
    counts = read_cube(FOLDER / "good.npy", variable="").values
    np.testing.assert_allclose(counts / 1e4, expected, atol=1e-4)  # whole numbers


def test_wavelengths_come_in_nanometres_from_where_a_format_keeps_them():
    for name in ("good.mat", "good.npz", "good_gdal.tif", "good_envi.hdr"):  # ENVI has micrometres
        np.testing.assert_allclose(read_cube(FOLDER / name, variable="").wavelengths_nm, NM)
    assert read_cube(FOLDER / "good_v73.mat", variable="").wavelengths_nm is None


def test_the_no_data_value_marks_pixels():
    assert tiff_facts(FOLDER / "good_gdal.tif")["no_data"] == "-9999"
    cube = read_cube(FOLDER / "good_gdal.tif", variable="")
    assert cube.no_data == -9999 and not cube.valid[0, 0] and cube.valid.sum() == 34
    assert cube.alive.all() and cube.largest < 1


def test_arrays_of_a_file_are_listed_without_being_read():
    entries = list_arrays(FOLDER / "good.npz")
    assert [(entry.name, entry.shape, entry.kind) for entry in entries] == [
        ("cube", (5, 7, 11), "f"),
        ("labels", (5, 7), "u"),
        ("wavelength", (11,), "f"),
    ]
    assert str(entries[0]) == "good.npz:cube (5 x 7 x 11)"
    assert choose_entry(entries, name="labels", option="x").shape == (5, 7)
    with pytest.raises(UsageError, match="input.variable: must name an array of good.npz; found lables"):
        choose_entry(entries, name="lables", option="input.variable")


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize("names", [("nRow", "nCol"), ("lines", "cols")])
def test_a_matrix_with_its_sides_beside_it_is_a_scene(tmp_path: Path, names: tuple[str, str], turned: bool):
    cube = np.random.default_rng(0).uniform(size=(3, 5, 7))
    pixels = np.array([cube[row, column] for column in range(5) for row in range(3)])  # column by column
    sides = {names[0]: 3.0, names[1]: 5.0, "nBand": 7.0}
    scipy.io.savemat(tmp_path / "u.mat", {"V": pixels.T if turned else pixels, "A": np.ones((2, 15)), **sides})
    assert list_arrays(tmp_path / "u.mat")[0].shape == (3, 5, 7)
    np.testing.assert_array_equal(read_cube(tmp_path / "u.mat", variable="").values, cube)


def test_a_cube_inside_a_structure_is_named_by_its_path(tmp_path: Path):
    cube = np.random.default_rng(0).uniform(size=(3, 5, 7))
    scipy.io.savemat(tmp_path / "s.mat", {"scene": {"data": cube, "info": {"sensor": "x", "wavelength": NM[:7]}}})
    with h5py.File(tmp_path / "s73.mat", "w", userblock_size=512) as file:
        item = file.create_group("scene").create_dataset("data", data=cube.T)
        item.attrs["MATLAB_class"] = np.bytes_("double")
    for name in ("s.mat", "s73.mat"):
        assert "scene.data" in [entry.name for entry in list_arrays(tmp_path / name)]
        np.testing.assert_array_equal(read_cube(tmp_path / name, variable="").values, cube)


def test_sides_inside_a_structure_fold_its_matrix(tmp_path: Path):
    cube = np.random.default_rng(0).uniform(size=(3, 5, 7))
    pixels = np.array([cube[row, column] for column in range(5) for row in range(3)])
    scipy.io.savemat(tmp_path / "u.mat", {"scene": {"Y": pixels.T, "nRow": 3.0, "nCol": 5.0}})
    np.testing.assert_array_equal(read_cube(tmp_path / "u.mat", variable="").values, cube)


def test_objects_of_matlab_beside_a_cube_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    scipy.io.savemat(tmp_path / "a.mat", {"cube": np.ones((3, 5, 7), np.float32), "note": "text", "n": np.int16(4)})

    def fail(path: Path) -> None:  # as it does where a variable is a table or a date
        raise TypeError("'NoneType' object is not iterable")

    expected = list_arrays(tmp_path / "a.mat")
    monkeypatch.setattr(scipy.io, "whosmat", fail)
    assert list_arrays(tmp_path / "a.mat") == expected
    with h5py.File(tmp_path / "b.mat", "w", userblock_size=512) as file:
        file.create_dataset("text", data=np.ones((9, 3), np.uint16)).attrs["MATLAB_class"] = np.bytes_("char")
        file.create_dataset("cube", data=np.ones((7, 5, 3))).attrs["MATLAB_class"] = np.bytes_("double")
    assert [entry.name for entry in list_arrays(tmp_path / "b.mat")] == ["cube"]


@pytest.mark.parametrize("ending", ["h5", "he5", "nc"])
def test_hdf5_keeps_its_order_of_axes(tmp_path: Path, ending: str):
    cube = np.random.default_rng(0).uniform(size=(3, 5, 7))
    with h5py.File(tmp_path / f"a.{ending}", "w") as file:
        file.create_dataset("SITE/Reflectance/Data", data=cube)
        file.create_dataset("SITE/Reflectance/Spectral/Wavelength", data=NM[:7])
    found = read_cube(tmp_path / f"a.{ending}", variable="")
    np.testing.assert_array_equal(found.values, cube)
    np.testing.assert_allclose(found.wavelengths_nm, NM[:7])
    (tmp_path / f"a.{ending}").write_bytes(b"no HDF5")
    with pytest.raises(DataError, match=f"a.{ending}: must be a whole HDF5 file"):
        list_arrays(tmp_path / f"a.{ending}")


def test_a_map_of_labels_alone_is_no_list_of_spectra(tmp_path: Path):
    labels = np.random.default_rng(0).integers(0, 17, size=(40, 50))
    scipy.io.savemat(tmp_path / "a_gt.mat", {"gt": labels.astype(np.uint8), "real": np.ones((2, 2)) / 3})
    with pytest.raises(DataError, match="a_gt.mat, 'gt': must hold a cube or spectra; found a map of labels"):
        read_cube(tmp_path / "a_gt.mat", variable="")
    np.testing.assert_array_equal(read_cube(tmp_path / "a_gt.mat", variable="gt").values[:, 0], labels)


def test_more_bands_than_can_be_whitened_are_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).uniform(size=(2, 8193)))
    with pytest.raises(DataError, match="a.npy: must have at most 8,192 bands; found 8,193. Average"):
        read_cube(tmp_path / "a.npy", variable="")


def test_no_data_is_found_although_the_file_writes_it_with_few_decimals():
    lowest = np.finfo(np.float32).min
    values = np.array([[[lowest, lowest], [1, 2]]], np.float32)
    assert cube_from_array(values, where="x", about={"no_data": -3.40282e38}).valid.tolist() == [[False, True]]
    counts = np.array([[[1_000_001, 1_000_001], [1_000_000, 1_000_000]]])
    assert cube_from_array(counts, where="x", about={"no_data": 1e6}).valid.tolist() == [[True, False]]


@pytest.mark.parametrize("name", ["one.tif", "one.png", "one.hdr"])
def test_a_picture_of_one_band_is_no_table_of_spectra(tmp_path: Path, name: str):
    values = np.random.default_rng(0).integers(0, 256, size=(12, 14), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "one.tif", values)
    Image.fromarray(values).save(tmp_path / "one.png")
    (tmp_path / "one.hdr").write_text("ENVI\nsamples=14\nlines = 12\nbands = 1\ndata type = 1\ninterleave = bsq\n")
    (tmp_path / "one.dat").write_bytes(values.tobytes())
    np.testing.assert_array_equal(read_array(tmp_path / name, name=""), values)
    with pytest.raises(DataError, match=rf"must hold a cube .*found {name} \(12 x 14\)"):
        read_cube(tmp_path / name, variable="")


def test_headers_that_announce_too_much_are_refused_before_anything_is_decoded(tmp_path: Path):
    (tmp_path / "bomb.png").write_bytes((FIXTURES / "image" / "broken_bomb.png").read_bytes())
    with pytest.raises(DataError, match="bomb.png: must have at most 179 million pixels"):
        list_arrays(tmp_path / "bomb.png")
    (tmp_path / "a.hdr").write_text("ENVI\nsamples=90000\nlines=90000\nbands=90000\ndata type=4\ninterleave=bil\n")
    (tmp_path / "a.dat").write_bytes(bytes(44))
    with pytest.raises(
        DataError, match="a.hdr: must stand beside 2,916,000,000,000,000 bytes of data; found 44 in a.dat"
    ):
        list_arrays(tmp_path / "a.hdr")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive, archive.open("cube.npy", "w") as file:
        about = {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6, 7)}
        np.lib.format.write_array_header_1_0(file, about)
    with pytest.raises(DataError, match="found 1,000,000 x 1,000,000 x 7 values of 'cube' announced in a file of"):
        list_arrays(tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("cube", shape=(10**6, 10**6, 7), dtype="f8", chunks=True)
    with pytest.raises(DataError, match="found 1,000,000 x 1,000,000 x 7 values of 'cube' announced"):
        list_arrays(tmp_path / "a.mat")
    tifffile.imwrite(tmp_path / "a.tif", np.ones((5, 7), np.uint8))
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        place = file.pages[0].tags[256].valueoffset
    data[place : place + 4] = (2_000_000).to_bytes(4, "little")
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(DataError, match="a.tif: must hold what its header announces; found 5 x 2,000,000 values"):
        list_arrays(tmp_path / "a.tif")


def test_a_tiff_of_more_axes_is_not_called_damaged(tmp_path: Path):
    tifffile.imwrite(tmp_path / "a.tif", np.ones((2, 3, 5, 7), np.uint8), photometric="minisblack")
    with pytest.raises(DataError, match=r"must hold a cube .*; found axes \w+ of 2 x 3 x 5 x 7. Save one cube a file."):
        list_arrays(tmp_path / "a.tif")


def test_envi_is_read_without_byte_order_and_with_any_text(tmp_path: Path):
    cube = np.arange(3 * 5 * 7, dtype="<i2").reshape(3, 5, 7)  # rows, columns, bands
    about = "samples = 5\nlines = 3\nbands = 7\ndata type = 2\n"
    for order, axes in (("bsq", (2, 0, 1)), ("bil", (0, 2, 1)), ("BIP", (0, 1, 2))):
        text = f"ENVI\r\ndescription = {{\n caf\xe9, a = b\n}}\n; a comment = 3\n{about}interleave = {order}\n"
        (tmp_path / "scene.hdr").write_bytes(text.encode("latin-1"))
        (tmp_path / "scene").write_bytes(cube.transpose(axes).tobytes())
        for name in ("scene.hdr", "scene"):  # the data may have no ending
            np.testing.assert_array_equal(read_cube(tmp_path / name, variable="").values, cube)
    waves = np.linspace(4000, 1000, 7)
    more = f"wavelength units = Wavenumber\nwavelength = {{{', '.join(map(str, waves))}}}\nbyte order = 0\n"
    (tmp_path / "scene.hdr").write_text(text + more)
    np.testing.assert_allclose(read_cube(tmp_path / "scene.hdr", variable="").wavelengths_nm, 1e7 / waves)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("data type = 4", "data type = 99", "a.hdr: must state one of 1, 2, .*; found data type 99"),
        ("interleave = bil", "interleave = diagonal", "found interleave 'diagonal'"),
        ("lines = 5", "lines = five", "must state 'lines' as a whole number; found 'five'"),
        ("lines = 5", "", "must state 'lines' as a whole number; found nothing"),
        ("lines = 5", "lines = 0", "must announce some pixels"),
        ("ENVI", "envy", "must be an ENVI header"),
        ("lines = 5", "lines = 5\nmajor frame offsets = {8, 8}", "must have no frame offsets"),
    ],
)
def test_envi_headers_that_make_no_sense_say_why(tmp_path: Path, old: str, new: str, message: str):
    (tmp_path / "a.hdr").write_text((FOLDER / "good_envi.hdr").read_text().replace(old, new))
    (tmp_path / "a.dat").write_bytes((FOLDER / "good_envi.dat").read_bytes())
    with pytest.raises(DataError, match=message):
        read_cube(tmp_path / "a.hdr", variable="")


def test_pngs_are_numbers_not_colours(tmp_path: Path):
    picture = Image.fromarray(np.array([[0, 1], [2, 1], [0, 0]], dtype=np.uint8))
    picture.putpalette([9, 9, 9, 250, 0, 0, 0, 250, 0])
    picture.save(tmp_path / "map.png")
    (entry,) = list_arrays(tmp_path / "map.png")
    assert entry.shape == (3, 2)
    np.testing.assert_array_equal(read_array(tmp_path / "map.png", name=""), [[0, 1], [2, 1], [0, 0]])


def test_envi_files_are_known_by_their_header(tmp_path: Path):
    assert envi_header(FOLDER / "good_envi.dat") == FOLDER / "good_envi.hdr"
    assert is_array_file(FOLDER / "good_envi.dat")
    assert not is_array_file(FOLDER / "broken_no_header.bsq")


def test_bad_bands_of_a_header_are_left_out(tmp_path: Path):
    header = (FOLDER / "good_envi.hdr").read_text()
    marks = ", ".join("0" if band in (2, 7) else "1" for band in range(11))
    (tmp_path / "a.hdr").write_text(f"{header}bbl = {{ {marks} }}\nreflectance scale factor = 10000\n")
    (tmp_path / "a.dat").write_bytes((FOLDER / "good_envi.dat").read_bytes())
    cube = read_cube(tmp_path / "a.hdr", variable="")
    assert np.flatnonzero(~cube.alive).tolist() == [2, 7] and cube.unit == "reflectance x 10000"


def test_a_spectral_library_is_a_list_of_spectra(tmp_path: Path):
    (tmp_path / "a.hdr").write_text(
        "ENVI\nsamples = 11\nlines = 3\nbands = 1\nheader offset = 0\nfile type = ENVI Spectral Library\n"
        "data type = 4\ninterleave = bsq\nbyte order = 0\n"
    )
    spectra = np.arange(33, dtype="<f4").reshape(3, 11)
    (tmp_path / "a.sli").write_bytes(spectra.tobytes())
    cube = read_cube(tmp_path / "a.hdr", variable="")
    np.testing.assert_array_equal(cube.values[:, 0], spectra)
    assert not cube.neighbours


def test_a_file_is_read_once_until_it_changes(tmp_path: Path):
    np.save(tmp_path / "a.npy", np.ones((3, 5, 7)))
    first = read_cube(tmp_path / "a.npy", variable="")
    assert read_cube(tmp_path / "a.npy", variable="") is first
    np.save(tmp_path / "a.npy", np.ones((3, 5, 11)))
    assert read_cube(tmp_path / "a.npy", variable="").bands == 11


def test_dead_bands_and_unmeasured_pixels():
    values = np.random.default_rng(0).uniform(1, 2, size=(3, 5, 7))
    values[:, :, 4] = np.nan
    values[1, 2] = 0
    values[2, 3, 1] = np.inf
    cube = cube_from_array(values, where="x", about={})
    assert np.flatnonzero(~cube.alive).tolist() == [4]
    assert [tuple(place) for place in np.argwhere(~cube.valid).tolist()] == [(1, 2), (2, 3)]
    assert 1 < cube.largest < 2


def test_spectra_have_no_neighbours():
    assert not cube_from_array(np.ones(7), where="x", about={}).neighbours
    two = cube_from_array(np.ones((3, 7)), where="x", about={})
    assert two.values.shape == (3, 1, 7) and not two.neighbours and two.valid.all()
    for bad in (np.ones((2, 2, 2, 2)), np.ones((0, 7)), np.array(["a"])):
        with pytest.raises(DataError, match=r"must be numbers \[bands\]"):
            cube_from_array(bad, where="x", about={})
    with pytest.raises(DataError, match="one entry for each of 7 bands; found 3. Correct the list"):
        cube_from_array(np.ones(7), where="x", about={"wavelengths_nm": [1, 2, 3]})


def test_units_of_wavelengths():
    assert wavelengths_nm(np.array([0.4, 2.5]), unit="", where="x").tolist() == [400, 2500]
    assert wavelengths_nm(np.array([400.0, 2500]), unit="", where="x").tolist() == [400, 2500]
    assert wavelengths_nm(np.array([0.4]), unit="Micrometers", where="x").tolist() == [400]
    with pytest.raises(DataError, match="must be in one of nm, .*found 'Furlongs'"):
        wavelengths_nm(np.array([1.0]), unit="Furlongs", where="x")
    with pytest.raises(DataError, match="must be wavelengths of 100 to 100,000 nm"):
        wavelengths_nm(np.array([1.0, 2.0]), unit="nm", where="x")


def test_which_array_is_the_cube(tmp_path: Path):
    path = tmp_path / "scene.mat"
    scipy.io.savemat(path, {"a": np.ones((3, 5, 7)), "b": np.ones((3, 5, 2)), "gt": np.ones((3, 5))})
    scipy.io.savemat(tmp_path / "shares.mat", {"S": np.ones((3, 5, 2)), "Y": np.ones((3, 5, 16))})
    assert find_cube(list_arrays(tmp_path / "shares.mat"), variable="").name == "Y"
    with pytest.raises(DataError, match="must hold one cube .*found scene.mat:a .*input.variable"):
        find_cube(list_arrays(path), variable="")
    assert find_cube(list_arrays(path), variable="b").shape == (3, 5, 2)
    scipy.io.savemat(path, {"X": np.ones((31, 7)), "y": np.ones((31, 1)), "extra": np.ones((2, 2))})
    assert find_cube(list_arrays(path), variable="").name == "X"
    assert isinstance(read_cube(path, variable=""), Cube)


@pytest.mark.parametrize("size", [1, 77, 200, 400])
@pytest.mark.parametrize(
    "name", ["good.mat", "good_v73.mat", "good.npy", "good.npz", "good_pages.tif", "good_envi.hdr"]
)
def test_cut_files_are_refused_with_their_name(name: str, size: int, tmp_path: Path):
    path = tmp_path / name
    path.write_bytes((FOLDER / name).read_bytes()[:size])
    with pytest.raises(DataError, match=name):
        read_cube(path, variable="")


@pytest.mark.parametrize("value", [1e31, 3e38, float("inf"), float("nan")])
def test_a_number_beyond_all_measures_was_not_measured(value: float):
    cube = cube_from_array(np.array([[[0.5, value]]], dtype=np.float32), where="a.tif", about={})
    assert cube.is_measured(cube.values).tolist() == [[[True, False]]] and cube.largest == 0.5


def test_wavelengths_beyond_all_numbers_are_refused():
    with pytest.raises(DataError, match="must be wavelengths of 100 to 100,000 nm; found 0.45 to 1e.308"):
        wavelengths_nm(np.array([0.45, 1e308]), unit="micrometers", where="a.hdr")
