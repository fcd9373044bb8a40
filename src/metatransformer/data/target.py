"""Whether a column to learn holds classes or numbers, from its values alone."""

import math
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np

FEW = 20  # different whole numbers, up to which they are classes
OFTEN = 10  # samples a value in the mean, from which on even more of them may be classes


class Kind(NamedTuple):
    """``kind`` is "" where both would do; ``words`` say what the column holds."""

    kind: Literal["classes", "numbers", ""]
    words: str


def kind_of(targets: Iterable[Any]) -> Kind:
    """Returns whether known targets, each one text, number or truth value, are classes or numbers.

    Texts and truth values are classes, and so are few different whole numbers that repeat; fractions are numbers, and
    so are many different whole numbers that hardly repeat, and many texts that all are numbers with fractions.
    """
    known = [target for target in targets if target is not None]
    texts = [target for target in known if isinstance(target, str)]
    values = [_number(target) for target in known]
    if None in values or (texts and (len(set(known)) <= FEW or _are_whole(values))):
        return Kind("classes", f"{len(set(map(str, known))):,} different texts")
    count = len(set(values))
    if not _are_whole(values):
        return Kind("numbers", "numbers with fractions")
    words = f"{count:,} different whole numbers"
    if count <= FEW and (count <= 2 or len(known) >= 2 * count):
        return Kind("classes", words)
    return Kind("numbers" if len(known) < OFTEN * count else "", words)


def _are_whole(values: Iterable[float | None]) -> bool:
    return all(value is not None and float(value).is_integer() for value in values)


def _number(target: Any) -> float | None:
    """Returns a target as a finite number, None for what is none: a truth value is a class."""
    if isinstance(target, bool | np.bool_):
        return None
    try:
        value = float(target)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None
