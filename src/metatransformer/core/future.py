"""The future of a series: what a forecast should have said."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Future:
    """``values`` [H] in the unit of their series, and what its last rows say of their size.

    ``level`` and ``spread`` are what values are measured by, ``(value - level) / spread``; ``relative`` is that spread
    in deviations of the series' training rows. ``where`` names it in messages.
    """

    values: np.ndarray
    level: float
    spread: float
    relative: float
    where: Any

    @property
    def scaled(self) -> np.ndarray:
        """``[H + 2]``: the values in spreads from the level, then the spread, relative and in the series' unit."""
        return np.concatenate([(self.values - self.level) / self.spread, [self.relative, self.spread]])

    def __repr__(self) -> str:
        return f"Future({self.where!r})"
