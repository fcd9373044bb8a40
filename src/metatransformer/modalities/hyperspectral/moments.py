"""Mean and covariance of rows that come a few at a time, and half whitening by them."""

import numpy as np

NOISE = 1e-4  # of the mean variance, added to all: directions that hold next to nothing are not blown up


class Moments:
    """Sums of rows ``[k, b]`` and of their products, from the first row on, so that no level cancels digits."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, rows: np.ndarray) -> None:
        """Takes in rows."""
        if not self.count:
            self._origin = rows[0].astype(np.float64)
            self._total = np.zeros_like(self._origin)
            self._cross = np.zeros((len(self._origin), len(self._origin)))
        moved = rows - self._origin
        self.count += len(rows)
        self._total += moved.sum(axis=0)
        self._cross += moved.T @ moved

    @property
    def mean(self) -> np.ndarray:
        """The mean ``[b]``."""
        return self._origin + self._total / self.count

    @property
    def covariance(self) -> np.ndarray:
        """The covariance ``[b, b]``, over the number of rows."""
        mean = self._total / self.count
        return self._cross / self.count - np.outer(mean, mean)


def half_whitening(covariance: np.ndarray) -> np.ndarray:
    """Returns ``C^(-1/4)`` ``[b, b]``: rows times it have the square root of C's deviations along its principal axes.

    Small differences, which tell alike materials apart, come closer to the large ones of brightness; full whitening
    (``C^(-1/2)``) would put noise on a level with both.
    """
    size, axes = np.linalg.eigh(covariance)
    size = np.maximum(size, 0.0) + NOISE * (float(size.mean()) or 1.0)
    return axes * size**-0.25 @ axes.T
