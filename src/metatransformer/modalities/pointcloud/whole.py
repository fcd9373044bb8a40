"""Numbers of a cloud as a whole: where it lies, how large it is, how it is spread, what its other columns hold.

The pictures of a cloud show its shape alone; where place, size or a further column (intensity, speed) carry the class,
these numbers do. They are plain features, not tokens: training samples decide whether they are used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

MOST = 10.0  # deviations from the training clouds: beyond it a cloud is only said to be far away
LARGEST = 1e30  # beyond it squares overflow: such a number counts as missing
AXES = ("x", "y", "z")


def whole_numbers(points: np.ndarray, extras: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Returns the numbers of a cloud by name, in the file's units.

    They are log(1 + number of points); mean, deviation, skewness, least and largest value of x, y, z; the correlations
    of x, y, z; mean, deviation, least and largest value of each further column, NaN where it has no value. What has no
    spread has neither skewness nor correlation: 0.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        found = _numbers(points, extras, names)
    return {name: value if abs(value) <= LARGEST else np.nan for name, value in found.items()}


def _numbers(points: np.ndarray, extras: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    middle, deviation = points.mean(axis=0), points.std(axis=0)
    unit = (points - middle) / np.where(deviation > 0, deviation, 1.0)
    skewness = (unit**3).mean(axis=0)
    numbers = {"points": float(np.log1p(len(points)))}
    for axis, name in enumerate(AXES):
        numbers |= _spread(name, points[:, axis]) | {f"{name} skewness": float(skewness[axis])}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        numbers[f"{AXES[a]}{AXES[b]} correlation"] = float((unit[:, a] * unit[:, b]).mean())
    for column, name in enumerate(names):
        values = extras[:, column]
        numbers |= _spread(name or f"column {column + 4}", values[np.isfinite(values)])
    return numbers


def _spread(name: str, values: np.ndarray) -> dict[str, float]:
    found = (values.mean(), values.std(), values.min(), values.max()) if len(values) else (np.nan,) * 4
    words = ("mean", "deviation", "least", "largest")
    return {f"{name} {word}": float(value) for word, value in zip(words, found, strict=True)}


@dataclass(frozen=True)
class Scale:
    """The numbers that all training clouds have, with their means and deviations there (0 = all are equal)."""

    names: tuple[str, ...] = ("points",)
    means: tuple[float, ...] = (0.0,)
    deviations: tuple[float, ...] = (0.0,)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns whose numbers these are: x, y, z and those that all training clouds have."""
        return tuple(name.removesuffix(" mean") for name in self.names if name.endswith(" mean"))

    @classmethod
    def of(cls, clouds: Sequence[Mapping[str, float]]) -> "Scale":
        """Returns the scale of training clouds; a number that one of them lacks is left out."""
        names = [name for name in clouds[0] if all(np.isfinite(cloud.get(name, np.nan)) for cloud in clouds)]
        table = np.array([[cloud[name] for name in names] for cloud in clouds])
        means, spread = table.mean(axis=0), np.ptp(table, axis=0) > 0
        return cls(tuple(names), tuple(means.tolist()), tuple((table.std(axis=0) * spread).tolist()))

    def __call__(self, numbers: Mapping[str, float]) -> np.ndarray:
        """Returns a cloud's numbers as deviations from the training clouds, float32; 0 for one that it lacks, and for
        one that was the same in all training clouds."""
        values = np.array([numbers.get(name, np.nan) for name in self.names])
        deviations = np.array(self.deviations)
        with np.errstate(over="ignore", invalid="ignore"):
            found = (values - self.means) / np.where(deviations > 0, deviations, np.inf)
        return np.nan_to_num(np.clip(found, -MOST, MOST)).astype(np.float32)
