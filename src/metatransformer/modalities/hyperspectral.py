"""Hyperspectral: the spectrum of a place as a small picture, each band a cell of it.

File: a cube ``[rows, columns, bands]`` as .mat (all versions), ENVI (.hdr beside .dat, .img, .raw, .bsq, .bil, .bip),
(Geo)TIFF with bands or pages, .npy, .npz; spectra ``[n, bands]`` as .mat, .npy, .npz, or a table (CSV, TSV, JSON lines,
Parquet) with one column a band. Labels of a cube are a map ``[rows, columns]`` of class numbers, 0 = unlabelled, as any
of these or PNG; labels of spectra are a vector of n. Hand in a folder that holds both (a.mat and a_gt.mat, Train_X.mat
and TrLabel.mat; they find each other by shape and name, and names with train or test split the data), one cube with
``--target`` = the labels' file or variable, or a manifest with the columns path, label (the labels' file), split. In
memory: ``{"cube": array, "labels": map}``, spectra ``[n, bands]``, or windows. A scene without labels gives every pixel;
``predict`` then paints the label map beside its table and writes the classes as .npy.
Split: ``input.split=random`` draws pixels, which leaks, since neighbours are alike and their windows overlap;
``disjoint`` keeps places apart. The run says which it was. ``input.train_pixels`` labels so many a class and tests on
the rest.
Tokens: the spectra averaged over the window around the pixel, band by band in deviations from the training mean, are
folded into a square of cells, band after band (a window's sizes are red, green and blue; a spectrum without
neighbours is grey); S x S patches with the trunk's kernel, so that a patch is a group of neighbouring bands; positions
resampled to the real grid; the summary token starts as the class token.
Sources: Meta-Transformer sections 3.2 and 4 (arXiv 2307.10802) for spectral tokens; SpectralFormer (arXiv 2107.02988)
for groups of neighbouring bands and the fixed Indian Pines split.
Errors: no or several cubes in a file, labels that are missing or of another shape, another number of bands, other
wavelengths or units than training, values on another scale, a band or pixel without data, a class in too few places.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, SummaryToken, Tokenizer, Transform
from metatransformer.core.samples import Record, Sample
from metatransformer.core.tokens import Span, Tokens
from metatransformer.io.cube import Cube, cube_from_array, read_cube
from metatransformer.io.label_map import write_label_maps
from metatransformer.io.plots import Cut
from metatransformer.io.records import Index, listing
from metatransformer.io.spectra import SPECTRA_SUFFIXES, cube_from_row, index_pixels
from metatransformer.nn.folded import fold_spectra
from metatransformer.nn.patch import GridPositions, PatchEmbedding

PATCHES = 8  # a side of the folded spectrum: 112 pixels for patches of 14
FAR = 50.0  # deviations; another unit puts a spectrum farther out
SCALE = 60.0  # times the largest training value, or a part of it: reflectance of 0..1 against 0..100 or 0..10,000
WATER_NM = ((1340.0, 1460.0), (1790.0, 1960.0))  # where the atmosphere lets no light through

DEFAULTS = {
    "tune": "head",
    "head.pool": "grid",
    "head.read": [0.33],
    "optim.l2": [0.1, 0.03, 0.01, 0.003],
    "optim.solver": "likelihood",  # the new default "squares" (ridge on class indicators) with optim.l2=auto: try it
}


@dataclass(frozen=True)
class HyperspectralOptions:
    """Which bands and places count, and how a scene is split.

    ``variable``: the cube's name where a file holds several. ``window``: the side of the neighbourhood in pixels, odd;
    1 = the pixel alone. ``skip_bands``: bands to leave out, counted from 1; ``skip_nm``: ranges to leave out, as
    [[1340, 1460], [1790, 1960]] for the water of the atmosphere. ``split``: random pixels, or disjoint places;
    ``train_pixels``: labelled pixels a class for training and validation, the rest is test (0 = shares, by
    ``data.val_fraction`` and ``data.test_fraction``); ``draw``: the number of that random draw; ``tile``: the side in
    pixels of the tiles that disjoint places are made of (0 = chosen by the classes). ``noise``, ``level``: by how many
    deviations a training copy's bands are moved, each alone and all together.
    """

    variable: str = ""
    window: int = 9
    skip_bands: tuple[int, ...] = ()
    skip_nm: tuple[tuple[float, float], ...] = ()
    split: Literal["random", "disjoint"] = "random"
    train_pixels: int = 0
    draw: int = 0
    tile: int = 0
    noise: float = 0.1
    level: float = 0.1

    def __post_init__(self) -> None:
        for name, good, must in (
            ("window", self.window >= 1 and self.window % 2 == 1, "be odd and at least 1"),
            ("skip_bands", all(band >= 1 for band in self.skip_bands), "count bands from 1"),
            ("skip_nm", all(low <= high for low, high in self.skip_nm), "list ranges [low, high]"),
            ("train_pixels", self.train_pixels >= 0, "be at least 1, or 0 = by shares"),
            ("draw", 0 <= self.draw < 2**32, "lie in 0..4294967295"),
            ("tile", self.tile == 0 or self.tile >= self.window, "be at least the window, or 0 = chosen"),
            ("noise", self.noise >= 0, "be at least 0"),
            ("level", self.level >= 0, "be at least 0"),
        ):
            if not good:
                raise UsageError(f"input.{name}", must=must, found=str(getattr(self, name)))

    @property
    def cut(self) -> Cut:
        """How a scene is split."""
        return Cut(self.split, self.train_pixels, self.draw, self.tile, self.window // 2)


class HyperspectralTransform(Transform):
    """Pixel of a cube -> spectra of its neighbourhoods, in deviations.

    Learns ``count_`` (bands of a file), ``bands_`` (those taken, from 0), ``nm_`` (their wavelengths, NaN = unknown),
    ``names_`` (of a table's columns), ``unit_``, ``largest_`` (value of the training files), ``spatial_`` (whether
    pixels have neighbours), ``mean_`` and ``scale_`` of each band. Before that, a spectrum is standardised by itself.
    """

    def __init__(self, options: HyperspectralOptions, stem: Stem) -> None:
        del stem
        self.options = options
        self.count_, self.bands_ = 0, np.zeros(0, dtype=np.int64)
        self.nm_ = self.mean_ = self.scale_ = np.zeros(0)
        self.names_: tuple[str, ...] = ()
        self.unit_, self.largest_, self.spatial_ = "", 0.0, False

    def fit(self, samples: Iterable[Sample]) -> None:
        """Learns bands, means and deviations; the first sample's cube says what the bands are.

        Raises:
            DataError: see the module.
        """
        spectra = []
        for sample in samples:
            if not spectra:
                self._learn_bands(sample)
            self.largest_ = max(self.largest_, sample.inputs["cube"].largest)
            spectra.append(self._spectra(sample)[-1])
        if not spectra:
            return
        found = np.stack(spectra)
        self.mean_, spread = found.mean(axis=0), found.std(axis=0)
        # A band that never changes carries nothing: leave its scale alone.
        self.scale_ = np.where(spread > 1e-7 * np.abs(self.mean_), spread, 1.0)

    def _learn_bands(self, sample: Sample) -> None:
        cube: Cube = sample.inputs["cube"]
        self.count_, self.names_ = cube.bands, tuple(sample.inputs["names"])
        self.unit_, self.spatial_ = cube.unit, cube.neighbours
        nm = np.full(cube.bands, np.nan) if cube.wavelengths_nm is None else cube.wavelengths_nm
        if self.options.skip_nm and cube.wavelengths_nm is None:
            raise UsageError("input.skip_nm", must="stand beside data with wavelengths", found=f"none in {cube.where}")
        if beyond := [band for band in self.options.skip_bands if band > cube.bands]:
            raise UsageError("input.skip_bands", must=f"lie in 1..{cube.bands}", found=str(beyond[0]))
        take = cube.alive.copy()
        take[[band - 1 for band in self.options.skip_bands]] = False
        for low, high in self.options.skip_nm:
            take &= ~((nm >= low) & (nm <= high))
        if not take.any():
            raise DataError(cube.where, must="keep at least one band", found="none of them left")
        self.bands_ = np.flatnonzero(take)
        self.nm_ = nm[self.bands_]

    def __call__(self, sample: Sample) -> Sample:
        """Returns ``spectra`` [s, b] float32 in deviations, and ``nm`` [b] float32.

        Raises:
            DataError: see the module.
        """
        if self.count_:
            self._require_same(sample)
        spectra = self._spectra(sample)
        mean, scale = (self.mean_, self.scale_) if self.mean_.size else _own_statistics(spectra)
        nm = self.nm_ if self.count_ else np.full(spectra.shape[1], np.nan)
        standard = ((spectra - mean) / scale).astype(np.float32)
        return sample.with_inputs({"spectra": standard, "nm": nm.astype(np.float32)})

    def augment(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Returns the spectra a little brighter or darker, each band a little off."""
        spectra = sample.inputs["spectra"]
        moved = spectra + rng.normal(0, self.options.level)
        moved = moved + rng.normal(0, self.options.noise, size=spectra.shape[1])
        return sample.with_inputs({**sample.inputs, "spectra": np.clip(moved, -FAR, FAR).astype(np.float32)})

    def _spectra(self, sample: Sample) -> np.ndarray:
        """Returns the mean spectra [s, b] of the neighbourhoods, the largest last."""
        raw, options = sample.inputs, self.options
        cube, row, column = raw["cube"], raw["row"], raw["column"]
        bands = self.bands_ if self.count_ else np.arange(cube.bands)
        if self.names_ and raw["names"] != self.names_:
            bands = np.array([raw["names"].index(self.names_[band]) for band in bands])
        own = cube.values[row, column, bands].astype(np.float64)
        if not cube.is_measured(own).all():
            band = int(np.flatnonzero(~cube.is_measured(own))[0])
            raise DataError(
                sample.key,
                must="hold a number in every band",
                found=f"{own[band]:g} in band {bands[band] + 1}",
                do="Leave the pixel out, or the band by input.skip_bands.",
            )
        if not cube.neighbours or options.window == 1:
            return own[None]
        reach = options.window // 2
        return np.stack([self._mean(cube, row, column, reach=reach, bands=bands)])

    def _mean(self, cube: Cube, row: int, column: int, *, reach: int, bands: np.ndarray) -> np.ndarray:
        """Returns the mean spectrum of the measured pixels around a pixel, inside the scene."""
        rows = slice(max(0, row - reach), row + reach + 1)
        columns = slice(max(0, column - reach), column + reach + 1)
        around = cube.values[rows, columns][cube.valid[rows, columns]]  # [pixels, bands]
        return around[:, bands].mean(axis=0, dtype=np.float64)

    def _require_same(self, sample: Sample) -> None:
        """Raises DataError when a sample's bands, unit or scale are not those of training."""
        cube, names = sample.inputs["cube"], sample.inputs["names"]
        if self.names_ and (missing := [name for name in self.names_ if name not in names]):
            raise DataError(sample.key, must="have the bands of training", found=f"no column {listing(missing)}")
        if not self.names_ and cube.bands != self.count_:
            raise DataError(
                sample.key,
                must=f"have {self.count_} bands, as training",
                found=str(cube.bands),
                do="Take the same sensor and the same bands.",
            )
        if cube.neighbours != self.spatial_ and self.options.window > 1:
            kinds = ("spectra without neighbours", "pixels of a scene, whose neighbours count")
            do = "Set input.window=1 in training to learn from pixels alone."
            raise DataError(sample.key, must=f"be {kinds[self.spatial_]}", found=kinds[cube.neighbours], do=do)
        if cube.wavelengths_nm is not None and not self.names_:
            self._require_same_wavelengths(cube.wavelengths_nm[self.bands_], key=sample.key)
        if cube.unit and self.unit_ and cube.unit != self.unit_:
            raise DataError(sample.key, must=f"be in {self.unit_}, as training", found=cube.unit)
        ratio = cube.largest / self.largest_ if self.largest_ and cube.values.shape[:2] != (1, 1) else 1.0
        if not 1 / SCALE < ratio < SCALE:
            raise DataError(
                sample.key,
                must=f"be on the scale of training, where the largest value is {self.largest_:g}",
                found=f"at most {cube.largest:g} in the whole file",
                do="Bring both to one unit, such as reflectance of 0..1.",
            )

    def _require_same_wavelengths(self, nm: np.ndarray, *, key: str) -> None:
        step = np.nanmedian(np.abs(np.diff(self.nm_))) if len(self.nm_) > 1 else 0.0
        off = np.abs(nm - self.nm_) > max(step / 2, 1.0)  # NaN, where training knew none, is never off
        if off.any():
            band = int(np.flatnonzero(off)[0])
            raise DataError(
                f"{key}, band {self.bands_[band] + 1}",
                must=f"lie at {self.nm_[band]:g} nm, as in training",
                found=f"{nm[band]:g} nm",
                do="Resample the file to the bands of training.",
            )

    def state(self) -> dict[str, Any]:
        """Returns bands and statistics."""
        return {
            "count": self.count_,
            "bands": self.bands_.tolist(),
            "nm": [None if np.isnan(value) else value for value in self.nm_.tolist()],
            "names": list(self.names_),
            "unit": self.unit_,
            "largest": self.largest_,
            "spatial": self.spatial_,
            "mean": self.mean_.tolist(),
            "scale": self.scale_.tolist(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back bands and statistics."""
        self.count_, self.bands_ = int(state["count"]), np.array(state["bands"], dtype=np.int64)
        self.nm_ = np.array([np.nan if value is None else value for value in state["nm"]])
        self.names_, self.unit_ = tuple(state["names"]), str(state["unit"])
        self.largest_, self.spatial_ = float(state["largest"]), bool(state["spatial"])
        self.mean_, self.scale_ = np.array(state["mean"]), np.array(state["scale"])

    @property
    def notes(self) -> tuple[str, ...]:
        """How the bands were understood."""
        if not self.count_:
            return ()
        known = ~np.isnan(self.nm_)
        span = f", {self.nm_[known].min():g} to {self.nm_[known].max():g} nm" if known.any() else ", wavelengths unknown"
        unit = f" in {self.unit_}" if self.unit_ else ", unit not stated"
        window = self.options.window if self.spatial_ else 1
        notes = [f"{len(self.bands_)} bands{span}; values up to {self.largest_:g}{unit}; window {window} x {window}"]
        if len(self.bands_) < self.count_:
            gone = np.setdiff1d(np.arange(self.count_), self.bands_) + 1
            notes.append(f"bands left out (no data, marked as bad, or skipped): {listing(gone.tolist(), most=12)}")
        water = sum(int(((self.nm_ >= low) & (self.nm_ <= high)).sum()) for low, high in WATER_NM)
        if water and self.spatial_:
            ranges = [list(pair) for pair in WATER_NM]
            notes.append(f"{water} bands where water vapour absorbs; input.skip_nm={ranges} leaves them out")
        return tuple(notes)


def _own_statistics(spectra: np.ndarray) -> tuple[float, float]:
    spread = float(spectra.std())
    return float(spectra.mean()), spread if spread > 0 else 1.0


class HyperspectralTokenizer(Tokenizer):
    """Fold the spectra into a picture, cut it into patches, add positions, put the summary token in front."""

    axes = 2

    def __init__(self, options: HyperspectralOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        del options, transform
        self.native = stem.patch is not None
        side = stem.patch_size
        self.pixels = PATCHES * side
        self.patches = PatchEmbedding(width=width, channels=3, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and a square grid in the order of the bands; spectra are ``[B, s, b]``."""
        del masks
        picture = fold_spectra(inputs["spectra"], pixels=self.pixels)  # [B, 3, p, p]
        x, real = self.patches(picture, torch.ones_like(picture[:, 0], dtype=torch.bool))
        x = x + self.positions(real).to(x.dtype)
        grid = (x.shape[1], x.shape[2])
        x, mask = self.summary(x.flatten(1, 2), real.flatten(1, 2))
        return Tokens(x, mask, (Span("hyperspectral", 0, x.shape[1], summary=0, grid=grid),))


def load(record: Record) -> dict[str, Any]:
    """Returns ``cube`` (shared by all records of a file), ``row`` and ``column`` of the pixel, and a table's ``names``.

    ``record.value`` is the name of the file's variable, a table's row, a ``Cube``, a spectrum ``[b]``, a window
    ``[w, w, b]`` whose middle counts, or a mapping that holds one of them as ``values``.
    """
    value, names = record.value, ()
    if isinstance(value, Cube):
        cube = value
    elif isinstance(value, Mapping) and "values" not in value:
        file = "" if record.path is None else f"{record.path.name}, "
        cube, names = cube_from_row(value, where=f"{file}row {record.key}")
    elif record.path is not None:
        cube = read_cube(record.path, variable=value or "")
    else:
        return _in_memory(record)
    place = str(0 if cube.values.shape[0] == 1 and record.part is None else record.part or 0)
    row, _, column = (place if not names else "0").partition(",")
    return {"cube": cube, "row": int(row), "column": int(column or 0), "names": names}


def _in_memory(record: Record) -> dict[str, Any]:
    about = record.value if isinstance(record.value, Mapping) else {"values": record.value}
    cube = cube_from_array(np.asarray(about["values"]), where=record.key, about=about)
    h, w = cube.values.shape[:2]
    if not cube.neighbours and h > 1:
        raise DataError(record.key, must="be one spectrum or one window", found=f"{h} spectra")
    if cube.neighbours and (h % 2 == 0 or w % 2 == 0):
        raise DataError(record.key, must="be a window with a pixel in the middle", found=f"{h} x {w} pixels")
    return {"cube": cube, "row": h // 2, "column": w // 2, "names": ()}


def index(data: Any, *, target: str, labelled: bool, header: bool, options: HyperspectralOptions) -> Index:
    """Returns one record a pixel or spectrum; see ``io.spectra.index_pixels``."""
    return index_pixels(
        data, target=target, labelled=labelled, header=header, variable=options.variable, cut=options.cut
    )


def illustrate(records: Sequence[Record], table: Any, folder: Path) -> Sequence[Path]:
    """Writes a label map for each scene; spectra without places have none."""
    scenes: dict[str, list[int]] = {}
    for place, record in enumerate(records):
        if isinstance(record.part, str):
            scenes.setdefault(record.key.rpartition("#")[0], []).append(place)
    if not scenes:
        return []
    parts = []
    for name, places in scenes.items():
        own = [records[place] for place in places]
        parts.append((Path(name).stem, load(own[0])["cube"], own))
    order = [place for places in scenes.values() for place in places]
    return write_label_maps(parts, table.iloc[order], folder)


def features(sample: Sample) -> np.ndarray:
    """Returns the standardised spectra, side by side."""
    return sample.inputs["spectra"].reshape(-1)


def draw(axes: Any, sample: Sample) -> None:
    """Paints the spectra over wavelength where it is known, else over the number of the band."""
    spectra, nm = sample.inputs["spectra"], sample.inputs["nm"]
    known = not np.isnan(nm).any()
    axes.plot(nm if known else np.arange(1, len(nm) + 1), spectra.T, linewidth=0.8)
    axes.set(xlabel="nm" if known else "band", ylabel="deviations")


def synthesize(rng: np.random.Generator, label: int) -> dict[str, Any]:
    """Returns a window of 5 x 5 pixels and 31 bands with a hump at the blue (even label) or the red end (odd label)."""
    bands = np.linspace(0, 1, 31)
    hump = np.exp(-(((bands - (0.25, 0.7)[label % 2]) / 0.15) ** 2) / 2)
    values = rng.uniform(0.8, 1.2) * (0.2 + 0.5 * hump) + rng.normal(0, 0.03, size=(5, 5, 31))
    return {"values": values, "wavelengths_nm": np.linspace(410, 890, 31), "unit": "reflectance"}


MODALITY = Modality(
    name="hyperspectral",
    summary="pixels of hyperspectral and multispectral scenes, with their neighbourhood; spectra in tables",
    source=Source(kind="table", suffixes=SPECTRA_SUFFIXES, index=index),
    fields={
        "spectra": Field("s b", low=-FAR, high=FAR, unit="deviations", summary="s neighbourhoods, b bands"),
        "nm": Field("b", unit="nm", low=0.0, missing=True, summary="wavelength of each band"),
    },
    options=HyperspectralOptions,
    load=load,
    transform=HyperspectralTransform,
    tokenizer=HyperspectralTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    native="patch kernel, positions (resampled) and class token of the trunk",
    units="reflectance, radiance or counts, the same in every file; wavelengths in nm where the file knows them",
    defaults=DEFAULTS,
    requires=("h5py", "spectral", "tifffile", "imagecodecs"),
    extra="hyperspectral",
    illustrate=illustrate,
)
