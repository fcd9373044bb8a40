"""The class of every place of a sample (a pixel, a point): what a dense task learns.

A sample's labels are as large as the sample, so its target is where they lie and how to read them, and nobody holds
those of a whole data set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from metatransformer.core.errors import DataError

Colour = tuple[int, int, int]  # RGB, 0..255
IGNORED = 255  # the code of what is not labelled, where nobody says otherwise
# Names of what is not labelled, as data sets spell them, lower case without anything but letters.
NO_CLASS = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "notlabelled", "notlabeled", "dontcare", "nodata"}


@dataclass(frozen=True)
class Legend:
    """What the codes of a data set's labels mean: ``names`` and ``colours`` by code, where somebody says them.

    ``where`` is the file that says it, empty where there is none: then every code is a class that is called by it.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, Colour] = field(default_factory=dict)
    where: str = ""


@dataclass(frozen=True)
class PlaceLabels:
    """The labels of one sample: ``read`` returns the code of each place, whole numbers in the sample's own shape, which
    is ``[h, w]`` for a picture and ``[n]`` for a cloud.

    ``where`` names them in messages; ``stamp`` changes when the file does.
    """

    where: str
    read: Callable[[], np.ndarray]
    legend: Legend = field(default_factory=Legend)
    stamp: str = ""

    def __str__(self) -> str:
        return self.where

    @cached_property
    def _known(self) -> tuple[tuple[int, ...], dict[int, int]]:
        """Its shape, and how many places have each code: what is kept once it was read."""
        found = self.read()
        values, counts = np.unique(found, return_counts=True)
        return found.shape, dict(zip(values.tolist(), counts.tolist(), strict=True))

    @property
    def counts(self) -> dict[int, int]:
        """How many places have each code.

        Raises:
            DataError: the file is bad.
        """
        return self._known[1]

    def require(self, shape: tuple[int, ...]) -> None:
        """Raises DataError where the file is bad, or of another shape than the sample."""
        own = self._known[0]
        if own != shape:
            do = "Give each sample labels of its own size."
            raise DataError(self.where, must=f"label {_size(shape)}, as its sample has", found=_size(own), do=do)


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[1]} x {shape[0]} pixels" if len(shape) == 2 else f"{shape[0]:,} points"


def is_no_class(name: str) -> bool:
    """Returns whether a class is called as what nobody has labelled."""
    return "".join(letter for letter in name.lower() if letter.isalpha()) in NO_CLASS
