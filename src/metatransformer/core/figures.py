"""What a report shows of a task's answers, as data: a report knows how each kind of figure is painted, and no task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True, eq=False)
class Confusion:
    """``counts`` [C, C]: how many samples of each class (rows) were taken for each class (columns), by ``names``."""

    counts: np.ndarray
    names: Sequence[str]


@dataclass(frozen=True, eq=False)
class Scatter:
    """Predictions against true values, ``[n]`` each."""

    truth: np.ndarray
    guess: np.ndarray


@dataclass(frozen=True, eq=False)
class Lines:
    """``values`` [T] by name, at 1 .. T; the first is the one that counts. ``across`` and ``up`` say what axes show."""

    values: Mapping[str, np.ndarray]
    across: str
    up: str


@dataclass(frozen=True)
class Rows:
    """A table: texts, counts, and scores as floats."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


Figure = Confusion | Scatter | Lines | Rows


@dataclass(frozen=True)
class Section:
    """A title, and figures or paragraphs side by side below it."""

    title: str
    parts: Sequence[Figure | str]


class Neighbour(NamedTuple):
    """A sample that is shown beside another: its key, whether it is a right answer, and what is said of it."""

    key: str
    right: bool
    words: str


@dataclass(frozen=True, eq=False)
class Cards:
    """What is told of single samples, in their order.

    ``guesses`` and ``truths`` are texts, ``sure`` [n] shares where the task has them. ``badness`` [n] is largest for
    what should be seen first, which ``worst`` names; ``wrong`` [n] says what is a mistake, None where answers are only
    more or less off. ``beside`` are other samples that answer each, the first one best; ``asked`` [n] says which
    samples are questions at all, None where all are.
    """

    guesses: Sequence[str]
    truths: Sequence[str]
    badness: np.ndarray
    worst: str = "the largest errors"
    wrong: np.ndarray | None = None
    sure: np.ndarray | None = None
    beside: Sequence[Sequence[Neighbour]] = ()
    asked: np.ndarray | None = None
