"""What is no motion, though it is numbers, and what is far from all that training held."""

from collections.abc import Sequence

import numpy as np

from metatransformer.data.records import counted

FAR = 50.0  # deg/s instead of rad/s puts a value 57 times too far out
MARK = "one value in each recording: it tells which one it is"


class Still:
    """Finds the axes that never move within any of several recordings, but differ between them."""

    def __init__(self) -> None:
        self._first = np.zeros(0)
        self._moves = self._differs = np.zeros(0, dtype=bool)

    def add(self, values: np.ndarray) -> None:
        """Looks at one recording ``[t, axes]``."""
        if not self._first.size:
            self._first = values[0]
            self._moves = self._differs = np.zeros(len(values[0]), dtype=bool)
        self._moves = self._moves | (values != values[0]).any(axis=0)
        self._differs = self._differs | (values[0] != self._first)

    @property
    def marks(self) -> np.ndarray:
        """True for each such axis; none where nothing moves at all."""
        return self._differs & ~self._moves & self._moves.any()


class Doubts:
    """What was read, although it is far from what training held."""

    def __init__(self) -> None:
        self.unstated = 0
        self._far: dict[str, tuple[float, str]] = {}  # by recording: the largest deviation and its axis

    def see(self, key: str, motion: np.ndarray, *, names: Sequence[str]) -> None:
        """Looks at one recording ``[t, axes]`` in deviations."""
        largest = np.abs(motion).max(axis=0)
        axis = int(largest.argmax())
        if largest[axis] > FAR:
            self._far[key] = (float(largest[axis]), names[axis] if names else f"axis {axis + 1}")

    def told(self) -> tuple[str, ...]:
        """Returns a sentence for each doubt."""
        told = []
        if self._far:
            key = max(self._far, key=lambda key: self._far[key])
            size, axis = self._far[key]
            told.append(
                f"{counted(len(self._far), 'recording')} with values beyond {FAR:g} deviations of training, clipped "
                f"there (the farthest: {size:,.0f} in '{axis}' of {key}). Where they are many, check the unit"
            )
        if self.unstated:
            told.append(
                f"{counted(self.unstated, 'recording')} and training do not state the same units: taken to be equal"
            )
        return tuple(told)
