"""Hyperspectral fixtures: one tiny scene in every format, spectra as a table, and what goes wrong with them."""

from pathlib import Path

import h5py
import numpy as np
import scipy.io
import tifffile

ROWS, COLUMNS, BANDS = 5, 7, 11
NM = np.linspace(450.0, 950.0, BANDS)
GDAL = '<GDALMetadata>{}<Item name="AREA_OR_POINT">Area</Item></GDALMetadata>'


def make(folder: Path) -> None:
    """Writes two materials side by side, as reflectance, in every format; and broken files."""
    cube, labels = scene()
    about = {"wavelength": NM}
    scipy.io.savemat(folder / "good.mat", {"cube": cube, **about})
    make_matlab73(folder / "good_v73.mat", cube)
    np.save(folder / "good.npy", (cube * 10_000).astype(np.int16))
    np.savez(folder / "good.npz", cube=cube, labels=labels, **about)
    tifffile.imwrite(folder / "good_pages.tif", np.moveaxis(cube, -1, 0), photometric="minisblack")
    make_geotiff(folder / "good_gdal.tif", cube)
    make_envi(folder / "good_envi", cube)
    spectra = cube.reshape(-1, BANDS)
    scipy.io.savemat(folder / "good_spectra.mat", {"X": spectra})
    make_table(folder / "good.csv", spectra, labels=labels.reshape(-1))
    make_broken(folder, cube)


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Returns reflectance ``[5, 7, 11]`` and its labels: 1 falls with wavelength, 2 rises, 0 between them."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.array([[1, 1, 1, 0, 2, 2, 2]], dtype=np.uint8), ROWS, axis=0)
    rise = np.linspace(0.2, 0.6, BANDS)
    cube = np.where(labels[..., None] == 1, rise[::-1], rise) + rng.normal(0, 0.01, size=(ROWS, COLUMNS, BANDS))
    return cube.round(4).astype(np.float32), labels


def make_matlab73(path: Path, cube: np.ndarray) -> None:
    """Writes HDF5 as MATLAB does: axes backwards, its class as an attribute, 512 bytes before the file."""
    with h5py.File(path, "w", userblock_size=512) as file:
        item = file.create_dataset("cube", data=cube.T)
        item.attrs["MATLAB_class"] = np.bytes_("single")


def make_geotiff(path: Path, cube: np.ndarray) -> None:
    """Writes a TIFF with bands inside a pixel, GDAL's no-data value in a corner, and wavelengths per band."""
    cube = cube.copy()
    cube[0, 0] = -9999
    items = "".join(f'<Item name="wavelength" sample="{i}">{value:g}</Item>' for i, value in enumerate(NM))
    tags = [(42112, 2, 0, GDAL.format(items), True), (42113, 2, 0, "-9999", True)]
    tifffile.imwrite(path, cube, photometric="minisblack", planarconfig="contig", extratags=tags)


def make_envi(path: Path, cube: np.ndarray, *, more: str = "", data: bool = True) -> None:
    """Writes an ENVI header, and beside it bands one after the other, line by line."""
    names = ", ".join(f"{value / 1000:g}" for value in NM)
    path.with_suffix(".hdr").write_text(
        f"ENVI\nsamples = {COLUMNS}\nlines = {ROWS}\nbands = {BANDS}\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 4\ninterleave = bil\nbyte order = 0\nwavelength units = Micrometers\nwavelength = {{ {names} }}\n"
        + more
    )
    if data:
        path.with_suffix(".dat").write_bytes(np.moveaxis(cube, 2, 1).astype("<f4").tobytes())


def make_table(path: Path, spectra: np.ndarray, *, labels: np.ndarray) -> None:
    """Writes one row a spectrum, one column a band called by its wavelength, and a label."""
    lines = [",".join(["site", *(f"{value:g}" for value in NM), "label"])]
    for number, (row, label) in enumerate(zip(spectra, labels, strict=True)):
        lines.append(",".join([f"s{number}", *(f"{value:.4f}" for value in row), "bare grass grass".split()[label]]))
    path.write_text("\n".join(lines) + "\n")


def make_broken(folder: Path, cube: np.ndarray) -> None:
    """Writes what goes wrong."""
    np.save(folder / "broken_four_axes.npy", cube[None])
    np.save(folder / "broken_vector.npy", cube[0, 0])
    np.save(folder / "broken_nothing.npy", np.full_like(cube, np.nan))
    np.save(folder / "broken_zero.npy", np.zeros_like(cube))
    np.savez(folder / "broken_two_cubes.npz", a=cube, b=cube)
    scipy.io.savemat(folder / "broken_no_array.mat", {"title": "a scene"})
    (folder / "broken_foreign.mat").write_text("This is a text file.\n" * 9)
    (folder / "broken_empty.tif").write_bytes(b"")
    make_envi(folder / "broken_no_file", cube, data=False)
    make_envi(folder / "broken_short", cube[:3])
    make_envi(folder / "broken_unit", cube, more="wavelength units = Furlongs\n")
    (folder / "broken_no_header.bsq").write_bytes(cube.tobytes())
    for name in ("good.mat", "good_v73.mat", "good.npy", "good.npz", "good_pages.tif"):
        data = (folder / name).read_bytes()
        (folder / name.replace("good", "broken_truncated")).write_bytes(data[: len(data) // 2])
    lines = (folder / "good.csv").read_text().splitlines()
    (folder / "broken_text.csv").write_text("\n".join([*lines[:3], lines[3].replace("0.", "zero", 1)]) + "\n")
    gap = lines[3].split(",")
    gap[4] = ""
    (folder / "broken_gap.csv").write_text("\n".join([*lines[:3], ",".join(gap)]) + "\n")
