"""Records, views and samples: where one item of data stands, what was read from there, and what belongs together.

A ``Record`` is cheap and holds no data of a file; a modality's ``load`` turns it into a ``View``, its ``Transform``
into the arrays that its tokenizer takes. A ``Sample`` has a view for each named input. Everything here is numpy, so
that reading and checking need no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SPLITS = ("train", "val", "test")
ROLES = ("query", "gallery")  # what a test of retrieval is made of, where its data says it


@dataclass(frozen=True)
class Record:
    """One item of a data set.

    ``key`` names it uniquely and is what people see (a path relative to the data's root, a row number); ``path`` is its
    file; ``part`` says which part of the file (row, pixel, window); ``value`` holds in-memory input (an array, a table
    row) where there is no file to read; ``target`` is the label or number to learn, None when unknown; ``split`` one of
    train, val, test, or None, and query or gallery until its task receives it; ``group`` joins items that must not be
    torn apart by a split (speaker, patient, subject).
    ``drawn`` says that nobody gave the split: it was drawn by a seed, and another one would do as well.
    """

    key: str
    path: Path | None = None
    part: int | str | None = None
    value: Any = None
    target: Any = None
    split: str | None = None
    group: str | None = None
    drawn: bool = False


class Counts(NamedTuple):
    """A plain vector of which nearly all numbers are 0: ``values`` at ``places``, rising, of ``size`` numbers."""

    places: np.ndarray
    values: np.ndarray
    size: int


@dataclass(frozen=True)
class View:
    """The arrays of one record: raw after ``load``, ready for the tokenizer after ``Transform.__call__``.

    ``key`` is the record's, for messages. ``plain`` are its modality's plain features, where a head reads them.
    ``places`` says where the places of the whole sample lie, where a task answers for each of them (``Dense.places``).
    """

    key: str
    inputs: Mapping[str, Any]
    plain: np.ndarray | Counts | None = None
    places: np.ndarray | None = None

    def with_inputs(self, inputs: Mapping[str, Any]) -> "View":
        """Returns the same view with other arrays."""
        return replace(self, inputs=inputs)

    @property
    def nbytes(self) -> int:
        """How many bytes its arrays take."""
        plain = self.plain
        beside = plain[:2] if isinstance(plain, Counts) else () if plain is None else (plain,)
        beside += () if self.places is None else (self.places,)
        return sum(array.nbytes for array in (*self.inputs.values(), *beside))


@dataclass(frozen=True)
class Sample:
    """What a model sees of one sample: a view for each named input, None where the sample does not have it."""

    key: str
    views: Mapping[str, View | None]

    @property
    def nbytes(self) -> int:
        """How many bytes its arrays take."""
        return sum(view.nbytes for view in self.views.values() if view is not None)
