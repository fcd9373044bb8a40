"""Seeing inside: the places of a sample that can be covered, to see what an answer loses without them.

A modality says where the places of a sample are, what the sample is with some of them covered, and how values at places
are painted. What is covered is covered for everything that a head reads: tokens, numbers beside the trunk, and plain
features. Source: Zeiler and Fergus 2014 (arXiv 1311.2901), section 4.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from metatransformer.core.samples import View

ALIKE = 1.5  # times as many cells as along the finest axis: halved together, so that cells stay square
NEAR = 6  # cells of an axis from which on neighbours are covered together: one of so many tells little


class Seen(NamedTuple):
    """One input of a sample as it was loaded and as it was transformed, with the transform that did it."""

    raw: View
    view: View
    transform: Any


@dataclass(frozen=True, eq=False)
class Places:
    """The places of a sample.

    ``names`` [n] are what people call them; ``where`` [n, k] are numbers that say where they lie, which ``columns``
    name with their units (``from_s``, ``top_px``), NaN where one does not apply. The first ones are the cells of a
    grid, row-major, whose ``edges`` along each axis are steps of the transformed sample; () = they lie in no order.
    ``reach`` is, by axis, how many neighbours on each side are covered together with a place.
    """

    names: Sequence[str]
    columns: Sequence[str]
    where: np.ndarray
    edges: Sequence[np.ndarray] = ()
    reach: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many cells lie along each axis."""
        return tuple(len(own) - 1 for own in self.edges)

    def spread(self, values: np.ndarray, *, size: Sequence[int] = ()) -> np.ndarray:
        """Returns the value of its cell at each step of the grid's axes; of a sample of another ``size``, at its."""
        cells = values[: int(np.prod(self.grid))].reshape(self.grid)
        for axis, own in enumerate(self.edges):
            steps = (own * (size[axis] / own[-1])).round().astype(int) if size else own
            cells = np.repeat(cells, np.diff(steps), axis=axis)
        return cells

    def covers(self) -> np.ndarray:
        """Returns which places each copy of the sample has covered ``[m, n]``: each place once, with its neighbours."""
        found = np.eye(len(self), dtype=bool)
        if not self.edges:
            return found
        steps = np.indices(self.grid).reshape(len(self.grid), -1).T  # [cells, axes]
        apart = np.abs(steps[:, None] - steps[None])
        cells = len(steps)
        found[:cells, :cells] = (apart <= np.array(self.reach)).all(axis=-1)
        return found


@dataclass(frozen=True, kw_only=True)
class Inside:
    """What a modality has for seeing inside.

    ``places(seen, most)`` are those of a sample, about ``most`` of them. ``cover(seen, places)`` returns what makes the
    transformed sample with the places covered that are True in ``[n]``; ``cover_raw`` makes the raw one where a plain
    model sees that (``Modality.raw_features``). ``paint(axes, seen, places, values)`` paints the sample with values at
    its places on matplotlib axes. ``covered`` says in words what stands in a covered place. ``left_out``: the trunk
    does not see at all the tokens that changed, which misleads it less than patches of one colour (Jain et al. 2022,
    arXiv 2204.08945). ``paints_raw``: ``paint`` looks at the raw sample too.
    """

    places: Callable[[Seen, int], Places]
    cover: Callable[[Seen, Places], Callable[[np.ndarray], View]]
    paint: Callable[[Any, Seen, Places, np.ndarray], None]
    covered: str
    cover_raw: Callable[[Seen, Places], Callable[[np.ndarray], View]] | None = None
    left_out: bool = False
    paints_raw: bool = False


def few_cells(sizes: Sequence[int], *, most: int) -> list[np.ndarray]:
    """Returns the edges, in whole steps, of cells along each axis: the finest axes are halved until there are at most
    ``most`` cells (or one).
    """
    counts = list(sizes)
    while np.prod(counts) > most and max(counts) > 1:
        fine = max(counts) / ALIKE
        counts = [-(-count // 2) if count > fine else count for count in counts]
    return [np.linspace(0, size, n + 1).round().astype(int) for size, n in zip(sizes, counts, strict=True)]


def reach_of(edges: Sequence[np.ndarray]) -> tuple[int, ...]:
    """Returns how many neighbours are covered together with a cell along each axis."""
    return tuple(int(len(own) > NEAR) for own in edges)
