"""The bands of the training files: which of them count, and whether another file has the same."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UsageError
from metatransformer.data.records import listing
from metatransformer.modalities.hyperspectral.cube import Cube

SCALE = 60.0  # times the largest training value, or a part of it: reflectance of 0..1 against 0..100 or 0..10,000
WATER_NM = ((1340.0, 1460.0), (1790.0, 1960.0))  # where water vapour lets hardly any light through


@dataclass(frozen=True)
class Bands:
    """What training files look like.

    ``count``: bands of a file; ``taken``: those that count, from 0; ``nm``: their wavelengths, empty = unknown;
    ``names``: of a table's columns, empty elsewhere; ``unit``: empty where the files are silent; ``largest``: their
    largest value; ``spatial``: whether their pixels have neighbours.
    """

    count: int
    taken: tuple[int, ...]
    nm: tuple[float, ...] = ()
    names: tuple[str, ...] = ()
    unit: str = ""
    largest: float = 0.0
    spatial: bool = False

    def state(self) -> dict[str, Any]:
        """Returns the values for JSON."""
        return asdict(self)

    def places(self, names: Sequence[str]) -> np.ndarray:
        """Returns where the bands stand in a file whose columns are ``names`` (empty for a file without names)."""
        if not self.names or tuple(names) == self.names:
            return np.array(self.taken)
        return np.array([names.index(self.names[band]) for band in self.taken])

    def require_same(self, cube: Cube, names: Sequence[str], *, key: str, alone: bool) -> None:
        """Compares a file with training; ``alone`` says that neighbours do not count.

        Raises:
            DataError: other bands, wavelengths, unit or scale, or spectra in place of a scene.
        """
        if missing := [name for name in self.names if name not in names]:
            raise DataError(key, must="have the bands of training", found=f"no column {listing(missing)}")
        if not self.names and cube.bands != self.count:
            do = "Take the same sensor and the same bands."
            raise DataError(key, must=f"have {self.count} bands, as training", found=str(cube.bands), do=do)
        if cube.neighbours != self.spatial and not alone:
            kinds = ("spectra without neighbours", "pixels of a scene, whose neighbours count")
            do = "Set input.window=1 in training to learn from pixels alone."
            raise DataError(key, must=f"be {kinds[self.spatial]}", found=kinds[cube.neighbours], do=do)
        if cube.wavelengths_nm is not None and self.nm and not self.names:
            self._require_same_wavelengths(cube.wavelengths_nm[list(self.taken)], key=key)
        if cube.unit and self.unit and cube.unit != self.unit:
            raise DataError(key, must=f"be in {self.unit}, as training", found=cube.unit)
        single = cube.values.shape[:2] == (1, 1)  # one spectrum may be dark
        if self.largest and not single and not 1 / SCALE < cube.largest / self.largest < SCALE:
            raise DataError(
                key,
                must=f"be on the scale of training, where the largest value is {self.largest:g}",
                found=f"at most {cube.largest:g} in the whole file",
                do="Bring both to one unit, such as reflectance of 0..1.",
            )

    def _require_same_wavelengths(self, nm: np.ndarray, *, key: str) -> None:
        step = float(np.median(np.abs(np.diff(self.nm)))) if len(self.nm) > 1 else 0.0
        off = np.flatnonzero(np.abs(nm - np.array(self.nm)) > max(step / 2, 1.0))
        if off.size:
            band = int(off[0])
            raise DataError(
                f"{key}, band {self.taken[band] + 1}",
                must=f"lie at {self.nm[band]:g} nm, as in training",
                found=f"{nm[band]:g} nm",
                do="Resample the file to the bands of training.",
            )

    def notes(self, *, window: int) -> tuple[str, ...]:
        """Returns how the bands were understood; ``window`` is the side of the neighbourhood."""
        span = f", {min(self.nm):g} to {max(self.nm):g} nm" if self.nm else ", wavelengths unknown"
        unit = f" in {self.unit}" if self.unit else ", unit not stated"
        side = window if self.spatial else 1
        notes = [f"{len(self.taken)} bands{span}; values up to {self.largest:g}{unit}; window {side} x {side}"]
        gone = sorted({*range(self.count)} - {*self.taken})
        if gone:
            numbers = listing((band + 1 for band in gone), most=12)
            notes.append(f"bands left out (no data, marked as bad, or skipped): {numbers}")
        water = sum(low <= nm <= high for nm in self.nm for low, high in WATER_NM)
        if water and self.spatial:
            ranges = [list(pair) for pair in WATER_NM]
            notes.append(f"{water} bands where water vapour absorbs; input.skip_nm={ranges} leaves them out")
        return tuple(notes)


def bands_from(state: Mapping[str, Any]) -> Bands:
    """Returns what ``Bands.state`` returned."""
    lists: dict[str, Any] = {name: tuple(state[name]) for name in ("taken", "nm", "names")}
    return Bands(**{**state, **lists})


def learn_bands(
    cube: Cube, names: Sequence[str], *, skip_bands: Sequence[int], skip_nm: Sequence[tuple[float, float]]
) -> Bands:
    """Returns the bands of the first training file without the dead ones and those to skip (numbers from 1).

    Raises:
        UsageError: a band to skip that is not there, or wavelengths to skip where none are known.
        DataError: no band is left.
    """
    nm = cube.wavelengths_nm
    if skip_nm and nm is None:
        raise UsageError("input.skip_nm", must="stand beside data with wavelengths", found=f"none in {cube.where}")
    if beyond := [band for band in skip_bands if band > cube.bands]:
        raise UsageError("input.skip_bands", must=f"lie in 1..{cube.bands}", found=str(beyond[0]))
    take, known = cube.alive.copy(), np.zeros(cube.bands) if nm is None else nm
    take[[band - 1 for band in skip_bands]] = False
    for low, high in skip_nm:
        take &= ~((known >= low) & (known <= high))
    if not take.any():
        raise DataError(cube.where, must="keep at least one band", found="none of them left")
    taken = np.flatnonzero(take)
    wavelengths = () if nm is None else tuple(nm[taken].tolist())
    return Bands(cube.bands, tuple(taken.tolist()), wavelengths, tuple(names), cube.unit, cube.largest, cube.neighbours)


def smooth_bands(spectra: np.ndarray, *, width: float) -> np.ndarray:
    """Returns spectra ``[..., b]`` averaged over neighbouring bands by a Gaussian of that deviation (0 = none)."""
    from scipy.ndimage import gaussian_filter1d

    return gaussian_filter1d(spectra, width, mode="nearest") if width else spectra
