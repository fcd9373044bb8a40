"""Hyperspectral: the spectrum of a place as a small picture, each band a cell of it.

File: a cube ``[rows, columns, bands]`` as .mat (all versions), HDF5, ENVI (.hdr beside .dat, .img, .raw, .bsq, .bil,
.bip), (Geo)TIFF with bands or pages, .npy, .npz; spectra ``[n, bands]`` as .mat, .npy, .npz, or a table (CSV, TSV,
JSON lines, Parquet) with one column a band. Labels of a cube are a map
``[rows, columns]`` of class numbers, 0 = unlabelled, as any of these or PNG, or shares of end-members
``[rows, columns, C]`` that ``--target`` names, of which the largest is the class; labels of spectra are a vector of n.
Hand in a folder that holds both (a.mat and a_gt.mat, Train_X.mat
and TrLabel.mat; they find each other by shape and name, and names with train or test split the data), one cube with
``--target`` = the labels' file or variable, or a manifest with the columns path, label (the labels' file), split. In
memory: ``{"cube": array, "labels": map}``, spectra ``[n, bands]``, windows. A scene without labels gives every pixel;
``predict`` then paints the label map beside its table and writes the classes as .npy.
Split: ``input.split=random`` draws pixels, which leaks, since neighbours are alike and their windows overlap;
``disjoint`` keeps places apart. The run says which it was. ``input.train_pixels`` labels so many a class and tests on
the rest.
Tokens: the spectrum, averaged over those pixels of the window that are most like the one in the middle (so that nothing
is mixed across a border), in deviations of each band from the training pixels (at most 50: a glitch of the detector is
cut), a little smoothed, is folded into a grey picture of cells, one a band, in reading order. S x S patches of it with
the trunk's kernel are groups of neighbouring bands; positions resampled to the real grid; the summary token starts as
the class token. Any number of bands; none is resampled. Beside the trunk, in every control as well, the head gets the
spectrum half whitened, its principal axes brought to the square root of their deviations: alike crops differ by little.
Sources: Meta-Transformer sections 3.2 and 4 (arXiv 2307.10802) for spectral tokens; SpectralFormer (arXiv 2107.02988)
for groups of neighbouring bands and the fixed Indian Pines split.
Errors: no or several cubes in a file, labels that are missing or of another shape, another number of bands, other
wavelengths or units than training, values on another scale, a band or pixel without data, a class in too few places.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from metatransformer.core.errors import DataError
from metatransformer.core.fields import Field
from metatransformer.core.modality import Modality, Source, Stem, SummaryToken, Tokenizer, Transform
from metatransformer.core.samples import Record, View
from metatransformer.core.settings import Rule, Settings
from metatransformer.core.tokens import Span, Tokens
from metatransformer.core.uniform import UNIFORM
from metatransformer.data.records import Index
from metatransformer.modalities.hyperspectral.bands import Bands, bands_from, learn_bands, smooth_bands
from metatransformer.modalities.hyperspectral.cube import cube_in_memory, read_cube, three_bands
from metatransformer.modalities.hyperspectral.inside import SPECTRA_INSIDE
from metatransformer.modalities.hyperspectral.label_map import Scene, write_label_maps
from metatransformer.modalities.hyperspectral.moments import Moments, half_whitening
from metatransformer.modalities.hyperspectral.plots import Cut
from metatransformer.modalities.hyperspectral.scene import Origin
from metatransformer.modalities.hyperspectral.spectra import SPECTRA_SUFFIXES, cube_from_row, index_pixels
from metatransformer.nn.folded import fold_spectra
from metatransformer.nn.patch import GridPositions, PatchEmbedding

FAR = 50.0  # deviations; another unit puts a spectrum farther out
MOST = 200  # features of the plain baseline
MANY = 50  # bands, from which on neighbours tell nearly the same: smoothing brings Indian Pines from 0.802 to 0.833

# By five folds of a training part of Indian Pines, three times / on five draws of Salinas-A (100 to 104): a line on the
# trunk's features 0.826 / 0.969, beside the half-whitened spectrum 0.832 / 0.984; a kernel 0.848 / 0.991, a narrower
# one (gamma 0.2, direct 2) 0.857 / 0.971.
DEFAULTS = {
    "tune": "head",
    "head.pool": "grid",
    "head.read": [0.33, 0.5],
    "head.centres": 4096,
    "head.gamma": 0.05,
    "head.direct": 4.0,
}


@dataclass(frozen=True)
class HyperspectralOptions(Settings):
    """Which bands and places count, and how a scene is split.

    ``variable``: the cube's name where a file holds several. ``window``: the side of the neighbourhood in pixels, odd;
    1 = the pixel alone. ``alike``: the share of the window's pixels that are averaged, those most like the pixel in the
    middle; 1 = all. ``skip_bands``: bands to leave out, counted from 1; ``skip_nm``: ranges to leave out, as
    [[1340, 1460], [1790, 1960]] for the water of the atmosphere. ``split``: random pixels, or disjoint places;
    ``train_pixels``: labelled pixels a class for training and validation, the rest is test (0 = shares, by
    ``data.val_fraction`` and ``data.test_fraction``); ``draw``: the number of that random draw; ``tile``: the side in
    pixels of the tiles that disjoint places are made of (0 = chosen by the classes). ``smooth``: by how many bands (the
    deviation of a Gaussian) a spectrum is smoothed; "auto" = 1 where there are 50 bands or more, else 0. ``noise``,
    ``level``: by how many deviations a training copy's bands are moved, each alone and all together.
    """

    variable: str = ""
    window: int = 9
    alike: float = 0.5
    skip_bands: tuple[int, ...] = ()
    skip_nm: tuple[tuple[float, float], ...] = ()
    split: Literal["random", "disjoint"] = "random"
    train_pixels: int = 0
    draw: int = 0
    tile: int = 0
    smooth: float | Literal["auto"] = "auto"
    noise: float = 0.1
    level: float = 0.1

    rules = (
        Rule("window", "be odd and at least 1", lambda own: own.window >= 1 and own.window % 2 == 1),
        Rule("alike", "lie above 0, up to 1", lambda own: 0 < own.alike <= 1),
        Rule("skip_bands", "count bands from 1", lambda own: all(band >= 1 for band in own.skip_bands)),
        Rule("skip_nm", "list ranges [low, high]", lambda own: all(low <= high for low, high in own.skip_nm)),
        Rule("train_pixels", "be at least 1, or 0 = by shares", lambda own: own.train_pixels >= 0),
        Rule("draw", "lie in 0..4294967295", lambda own: 0 <= own.draw < 2**32),
        Rule("tile", "be at least the window, or 0 = chosen", lambda own: own.tile == 0 or own.tile >= own.window),
        Rule("smooth", "be 'auto' or at least 0", lambda own: own.smooth == "auto" or own.smooth >= 0),
        Rule("noise", "be at least 0", lambda own: own.noise >= 0),
        Rule("level", "be at least 0", lambda own: own.level >= 0),
    )

    @property
    def cut(self) -> Cut:
        """How a scene is split."""
        return Cut(self.split, self.train_pixels, self.draw, self.tile, self.window // 2)


class HyperspectralTransform(Transform):
    """Pixel of a cube -> spectra of its neighbourhoods, in deviations.

    Learns ``bands_`` (which count, what training files look like), ``mean_`` and ``scale_`` of each. Before that, a
    spectrum is standardised by itself. ``whitening`` [b, b], learned too, becomes part of the tokenizer.
    """

    def __init__(self, options: HyperspectralOptions, stem: Stem) -> None:
        del stem
        self.options = options
        self.bands_: Bands | None = None
        self.mean_ = self.scale_ = np.zeros(0)
        self.whitening = np.zeros((0, 0), dtype=np.float32)

    def fit(self, views: Iterable[View]) -> None:
        """Learns bands, means and deviations; the first sample's file says what the bands are.

        Raises:
            DataError: see the module.
        """
        largest, options, moments = 0.0, self.options, Moments()
        for view in views:
            cube, names = view.inputs["cube"], view.inputs["names"]
            if not moments.count:
                self.bands_ = learn_bands(cube, names, skip_bands=options.skip_bands, skip_nm=options.skip_nm)
            largest = max(largest, cube.largest)
            # Every pixel that is averaged counts: a few labels alone would say too little of how bands vary.
            moments.add(self._around(view))
        if self.bands_ is None or not moments.count:
            return
        self.bands_ = replace(self.bands_, largest=largest)
        self.mean_, covariance = moments.mean, moments.covariance
        spread = np.sqrt(np.maximum(covariance.diagonal(), 0.0))
        # A band that never changes carries nothing: leave its scale alone.
        self.scale_ = np.where(spread > 1e-7 * np.abs(self.mean_), spread, 1.0)
        smoothing = smooth_bands(np.eye(len(spread)), width=smoothing_of(options, bands=len(spread)))
        correlation = covariance / np.outer(self.scale_, self.scale_)
        self.whitening = half_whitening(smoothing.T @ correlation @ smoothing).astype(np.float32)

    def __call__(self, view: View) -> View:
        """Returns in deviations ``spectrum`` [b] of the neighbourhood and ``pixel`` [b] of the pixel alone; ``nm`` [b],
        NaN where unknown, and ``window`` [h, w, 3] for people.

        Raises:
            DataError: see the module.
        """
        around = self._around(view)
        nm = self.bands_.nm if self.bands_ is not None and self.bands_.nm else np.full(around.shape[1], np.nan)
        spectra = {"spectrum": self._standard(around.mean(axis=0)), "pixel": self._standard(around[0])}
        inputs = {**spectra, "nm": np.array(nm, dtype=np.float32)}
        return view.with_inputs({**inputs, "window": self._colours(view)})

    def _standard(self, spectrum: np.ndarray) -> np.ndarray:
        """Returns a spectrum in deviations, smoothed over neighbouring bands."""
        mean, scale = (self.mean_, self.scale_) if self.mean_.size else _own_statistics(spectrum)
        standard = (spectrum - mean) / scale
        # Far out in a few bands is a glitch of the detector (the Salinas scene has two); in most bands, another unit.
        if np.median(np.abs(standard)) <= FAR:
            standard = np.clip(standard, -FAR, FAR)
        return smooth_bands(standard, width=smoothing_of(self.options, bands=len(standard))).astype(np.float32)

    def augment(self, view: View, rng: np.random.Generator) -> View:
        """Returns the spectrum a little brighter or darker, each band a little off."""
        spectrum = view.inputs["spectrum"]
        moved = spectrum + rng.normal(0, self.options.level) + rng.normal(0, self.options.noise, size=spectrum.shape)
        return view.with_inputs({**view.inputs, "spectrum": np.clip(moved, -FAR, FAR).astype(np.float32)})

    def _window(self, view: View) -> tuple[slice, slice]:
        """Returns the rows and columns of the window, as far as it lies in the scene."""
        raw, reach = view.inputs, self.options.window // 2
        rows, columns = (slice(max(0, raw[name] - reach), raw[name] + reach + 1) for name in ("row", "column"))
        return rows, columns

    def _colours(self, view: View) -> np.ndarray:
        """Returns the window in three bands, uint8, dark to bright over two deviations of the training pixels."""
        cube, (rows, columns) = view.inputs["cube"], self._window(view)
        places = self._places(view)
        chosen = three_bands(len(places), nm=() if self.bands_ is None else self.bands_.nm)
        values = cube.values[rows, columns][:, :, places[chosen]]
        values = np.where(cube.is_measured(values), values, 0).astype(np.float64)
        if self.mean_.size:
            level = (values - self.mean_[chosen]) / self.scale_[chosen]
        else:
            mean, scale = _own_statistics(values)
            level = (values - mean) / scale
        return np.clip(127.5 + 63.75 * level, 0, 255).astype(np.uint8)

    def _places(self, view: View) -> np.ndarray:
        """Returns where the bands that count stand in the sample's file."""
        if self.bands_ is None:
            return np.arange(view.inputs["cube"].bands)
        return self.bands_.places(view.inputs["names"])

    def _around(self, view: View) -> np.ndarray:
        """Returns the spectra [k, b] of a pixel, first, and of the pixels of its window that are most like it."""
        raw, reach = view.inputs, self.options.window // 2
        cube, row, column = raw["cube"], raw["row"], raw["column"]
        if self.bands_ is not None:
            self.bands_.require_same(cube, raw["names"], key=view.key, alone=reach == 0)
        places = self._places(view)
        own = cube.values[row, column, places]
        if (gaps := np.flatnonzero(~cube.is_measured(own))).size:
            raise DataError(
                view.key,
                must="hold a number in every band",
                found=f"{own[gaps[0]]:g} in band {places[gaps[0]] + 1}",
                do="Leave the pixel out, or the band by input.skip_bands.",
            )
        own = own.astype(np.float64)
        if not cube.neighbours or reach == 0:
            return own[None]
        rows, columns = self._window(view)
        around = cube.values[rows, columns][cube.valid[rows, columns]][:, places].astype(np.float64)  # [pixels, b]
        # Across a border lies another material: the nearest spectra come from this side.
        near = np.argsort(np.square(around - own).sum(axis=1), kind="stable")
        return around[near[: math.ceil(self.options.alike * len(around))]]

    def state(self) -> dict[str, Any]:
        """Returns bands and statistics."""
        bands = None if self.bands_ is None else self.bands_.state()
        return {"bands": bands, "mean": self.mean_.tolist(), "scale": self.scale_.tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes back bands and statistics."""
        self.bands_ = None if state["bands"] is None else bands_from(state["bands"])
        self.mean_, self.scale_ = np.array(state["mean"]), np.array(state["scale"])
        # The values come with the tokenizer's saved state; here only their shape counts.
        self.whitening = np.zeros((self.mean_.size, self.mean_.size), dtype=np.float32)

    @property
    def notes(self) -> tuple[str, ...]:
        """How the bands were understood, and what becomes of them."""
        if self.bands_ is None:
            return ()
        width = smoothing_of(self.options, bands=len(self.bands_.taken))
        smoothed = (f"spectra smoothed over neighbouring bands, deviation {width:g} (input.smooth)",) if width else ()
        told = self.bands_.notes(window=self.options.window)
        return (*told, *smoothed, "half whitened to the head too, beside the trunk (head.direct)")


def smoothing_of(options: HyperspectralOptions, *, bands: int) -> float:
    """Returns the width of the smoothing in bands: few bands lie too far apart to be averaged."""
    return float(bands >= MANY) if options.smooth == "auto" else options.smooth


def _own_statistics(values: np.ndarray) -> tuple[float, float]:
    spread = float(values.std())
    return float(values.mean()), spread if spread > 0 else 1.0


class HyperspectralTokenizer(Tokenizer):
    """Fold the spectrum into a picture, cut it into patches, add positions, put the summary token in front.

    The half-whitened spectrum goes beside the trunk, once the transform has learned how bands vary.
    """

    axes = 2
    whitening: Tensor

    def __init__(self, options: HyperspectralOptions, transform: Transform, width: int, stem: Stem) -> None:
        super().__init__()
        del options
        assert isinstance(transform, HyperspectralTransform)
        self.direct = len(transform.whitening)
        self.register_buffer("whitening", torch.from_numpy(transform.whitening))
        self.native = stem.patch is not None
        self.patch = side = stem.patch_size
        self.patches = PatchEmbedding(width=width, channels=3, stem=stem, size=(side, side))
        self.positions = GridPositions(width=width, stem=stem)
        self.summary = SummaryToken(width=width, stem=stem)

    def forward(self, inputs: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Tokens:
        """Returns the summary token and a square grid in the order of the bands; ``spectrum`` is ``[B, b]``."""
        del masks
        picture = fold_spectra(inputs["spectrum"][:, None], patch=self.patch)  # [B, 3, h, w]
        x, real = self.patches(picture, torch.ones_like(picture[:, 0], dtype=torch.bool))
        x = x + self.positions(real).to(x.dtype)
        grid = (x.shape[1], x.shape[2])
        x, mask = self.summary(x.flatten(1, 2), real.flatten(1, 2))
        beside = self._whitened(inputs["spectrum"]) if self.direct else None
        return Tokens(x, mask, (Span("hyperspectral", 0, x.shape[1], summary=0, grid=grid),), direct=beside)

    def _whitened(self, spectrum: Tensor) -> Tensor:
        """Returns the spectrum along its principal axes evened out, in float32: 8 bits are too few for the small."""
        with torch.autocast(spectrum.device.type, enabled=False) if not UNIFORM.get() else nullcontext():
            return spectrum.float() @ self.whitening


def load(record: Record) -> dict[str, Any]:
    """Returns ``cube`` (shared by all records of a file), ``row`` and ``column`` of the pixel, and a table's ``names``.

    ``record.value`` is an ``Origin``, a table's row, a spectrum ``[b]``, a window ``[w, w, b]`` whose middle counts, or
    a mapping that holds one of these arrays as ``values``.
    """
    value = record.value
    if isinstance(value, Mapping) and "values" not in value:
        file = "" if record.path is None else f"{record.path.name}, "
        cube, names = cube_from_row(value, where=f"{file}row {record.key}")
        return {"cube": cube, "row": 0, "column": 0, "names": names}
    if not isinstance(value, Origin):
        cube, row, column = cube_in_memory(value, where=record.key)
        return {"cube": cube, "row": row, "column": column, "names": ()}
    cube = read_cube(record.path, variable=value.variable) if value.cube is None and record.path else value.cube
    row, _, column = str(record.part).partition(",")
    return {"cube": cube, "row": int(row), "column": int(column or 0), "names": ()}


def index(data: Any, *, target: str, labelled: bool, header: bool, options: HyperspectralOptions) -> Index:
    """Returns one record a pixel or spectrum; see ``spectra.index_pixels``."""
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
    parts, stems = [], [Path(name).stem for name in scenes]
    for name, places in scenes.items():
        own = [records[place] for place in places]
        title = f"split: {own[0].value.split}" if own[0].value.split else ""
        # Scenes of one name in several folders, or of several formats, must not overwrite each other's map.
        short = Path(name).stem if stems.count(Path(name).stem) == 1 else name.strip("/").replace("/", "_")
        parts.append(Scene(short, load(own[0])["cube"], own, title))
    order = [place for places in scenes.values() for place in places]
    return write_label_maps(parts, table.iloc[order], folder)


def features(view: View) -> np.ndarray:
    """Returns the pixel's own standardised spectrum, neighbouring bands averaged where there are more than 200.

    Beyond 200 the plain baseline whitens principal components, which ruins it on a handful of spectra.
    """
    spectrum = view.inputs["pixel"]
    size = math.ceil(len(spectrum) / MOST)
    return np.array([spectrum[start : start + size].mean() for start in range(0, len(spectrum), size)])


def draw(axes: Any, view: View) -> None:
    """Paints the spectrum over wavelength where it is known, else over the number of the band, and the window."""
    spectrum, nm, window = (view.inputs[name] for name in ("spectrum", "nm", "window"))
    known = not np.isnan(nm).any()
    axes.plot(nm if known else np.arange(1, len(nm) + 1), spectrum, linewidth=0.8)
    axes.set(xlabel="nm" if known else "band", ylabel="deviations")
    if window.shape[0] * window.shape[1] > 1:
        low, high = float(spectrum.min()), float(spectrum.max())
        axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.75 * (high - low or 1))  # room, so that none is hidden
        inset = axes.inset_axes((0.72, 0.62, 0.28, 0.36))
        inset.imshow(window, interpolation="nearest")
        inset.set(xticks=[], yticks=[])


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
        "spectrum": Field("b", low=-FAR, high=FAR, unit="deviations", summary="one number a band"),
        "pixel": Field("b", low=-FAR, high=FAR, unit="deviations", summary="the same of the pixel alone"),
        "nm": Field("b", unit="nm", low=0.0, missing=True, summary="wavelength of each band"),
        "window": Field("h* w* 3", "uint8", summary="false colours around the pixel, for people only"),
    },
    options=HyperspectralOptions,
    load=load,
    transform=HyperspectralTransform,
    tokenizer=HyperspectralTokenizer,
    features=features,
    draw=draw,
    synthesize=synthesize,
    example="scene/",
    threads=False,
    native="patch kernel, positions (resampled) and class token of the trunk",
    units="reflectance, radiance or counts, the same in every file; wavelengths in nm where the file knows them",
    defaults=DEFAULTS,
    requires=("h5py", "tifffile", "imagecodecs"),
    extra="hyperspectral",
    illustrate=illustrate,
    inside=SPECTRA_INSIDE,
)
