"""The objects in a sample: a box and a category each, as a data set's own file has them.

Boxes are ``x1, y1, x2, y2`` in pixels from the picture's upper left corner. Ids are the user's: of categories and of
pictures, whatever they are, and what is written about a sample has them again.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np

from metatransformer.core.errors import DataError


@dataclass(frozen=True, eq=False)
class BoxLabels:
    """The objects of one sample: ``boxes`` [n, 4], the ids of their ``categories`` [n], their ``areas`` [n] (of their
    shapes, where these are known), and which of them stand for a ``crowd`` [n], objects that nobody has told apart.

    ``names`` are those of all categories of the data set by id; ``image`` is the sample's id there, ``size`` its
    ``(h, w)``; ``where`` names the labels in messages.
    """

    where: str
    boxes: np.ndarray
    categories: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray
    image: int | str
    size: tuple[int, int]
    names: Mapping[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.where

    def require(self, shape: tuple[int, ...]) -> None:
        """Raises DataError where the sample has another size than its labels say."""
        if shape != self.size:
            (own_h, own_w), (h, w) = self.size, shape
            turned = " The picture may have been turned after it was labelled." if (own_w, own_h) == (h, w) else ""
            do = f"Label the pictures as they are.{turned}"
            raise DataError(
                self.where, must=f"be of {w} x {h} pixels, as the picture", found=f"{own_w} x {own_h}", do=do
            )


def named_ids(keys: Sequence[str]) -> list[int | str]:
    """Returns ids for pictures that have none: the number that each name ends with, the names or the keys, whichever
    tells all apart.
    """
    stems = [PurePosixPath(key).stem for key in keys]
    ends = [re.search(r"(\d{1,15})$", stem, re.ASCII) for stem in stems]
    numbers: list[int | str] = [int(end[1]) for end in ends if end]
    ways: list[list[int | str]] = [numbers, [*stems], [*keys]]
    return next(way for way in ways if len(way) == len(keys) and max(Counter(way).values()) == 1)
