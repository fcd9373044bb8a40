"""Seeing inside texts: words that are blotted out, in the sub-words as in training copies, and in the letters."""

import re
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells
from metatransformer.core.samples import View
from metatransformer.modalities._shown import paint_words

WORD = re.compile(r"\w+|[^\w\s]")


def text_inside(*, dropped: int) -> Inside:
    """Returns the hook of texts; ``dropped`` is the number of a piece that was blotted out."""

    return Inside(places=_places, cover=partial(_cover, dropped), paint=_paint, covered="nothing: blotted out")


def _cover(dropped: int, seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    texts, inputs = seen.transform.texts(seen.raw), seen.view.inputs
    owner = seen.transform.windows(_owners(seen, texts, places))

    def covered(hidden: np.ndarray) -> View:
        gone = np.concatenate([[False], hidden])[owner]
        letters = seen.transform.letters(_blanked(texts, places.where[hidden].astype(int)))
        return seen.view.with_inputs(
            {**inputs, "pieces": np.where(gone, dropped, inputs["pieces"]), "letters": letters}
        )

    return covered


def _places(seen: Seen, most: int) -> Places:
    """Returns words with their text (0 or 1) and their offsets in it; of a long text groups of neighbouring words."""
    texts = seen.transform.texts(seen.raw)
    words = [(number, *word.span()) for number, text in enumerate(texts) for word in WORD.finditer(text)]
    names, where = [], []
    for start, stop in pairwise(few_cells([len(words)], most=most)[0]):
        # No group reaches from one text into the other: such a one ends with its first text.
        own = [word for word in words[start:stop] if word[0] == words[start][0]]
        for part in (own, words[start + len(own) : stop]):
            if part:
                where.append((part[0][0], part[0][1], part[-1][2]))
                names.append(texts[part[0][0]][part[0][1] : part[-1][2]])
    return Places(names, ("text", "begin", "end"), np.array(where, dtype=float).reshape(-1, 3))


def _owners(seen: Seen, texts: Sequence[str], places: Places) -> np.ndarray:
    """Returns for each piece of the texts, the separator with them, its place counted from 1; 0 = none."""
    owners = []
    for number, text in enumerate(texts):
        own = np.flatnonzero(places.where[:, 0] == number)
        begins = [begin for begin, _ in seen.transform.subwords_.offsets(text)]
        after = np.searchsorted(places.where[own, 1], begins, side="right")
        owners.append(1 + own[np.maximum(after - 1, 0)] if len(own) else np.zeros(len(begins), dtype=int))
    return np.concatenate(owners if len(owners) == 1 else [owners[0], [0], *owners[1:]]).astype(int)


def _blanked(texts: Sequence[str], where: np.ndarray) -> list[str]:
    """Returns texts with spaces in the stretches ``[n, 3]``: text, begin, end."""
    found = list(texts)
    for number, begin, end in where.tolist():
        found[number] = found[number][:begin] + " " * (end - begin) + found[number][end:]
    return found


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    """Writes single words, those of a group on one colour."""
    del seen
    words = [name.split() for name in places.names]
    paint_words(axes, [word for group in words for word in group], np.repeat(values, [len(group) for group in words]))
