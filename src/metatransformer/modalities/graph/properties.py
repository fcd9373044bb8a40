"""Properties of nodes, edges and whole graphs: which columns hold words, which hold numbers, and their scales."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError
from metatransformer.data.columns import Column
from metatransformer.modalities.graph.graphs import Graph, Word, degrees

DEGREE = "edges at the node"
MOST_WORDS = 40  # different whole numbers up to which a column of them is taken for words


class PropertyCells:
    """Cells of training graphs by column, in the order of their first appearance."""

    def __init__(self) -> None:
        self.cells: dict[str, list[Word]] = {}

    def add(self, columns: Mapping[str, Sequence[Word]]) -> None:
        """Takes in the columns of one graph."""
        for name, cells in columns.items():
            self.cells.setdefault(name, []).extend(cells)

    def learn(self, *, spread: Any) -> tuple[Column, ...]:
        """Returns what each column is, words by frequency; a column without any known value is left out.

        Text is words, and so are whole numbers of few kinds (labels); other numbers are numbers. ``spread`` makes the
        edges of bins from standardised numbers.
        """
        found = []
        for name, cells in self.cells.items():
            known = [cell for cell in cells if cell is not None and cell == cell]
            if not known:
                continue
            if name == DEGREE or (all(isinstance(cell, float) for cell in known) and not _few(known)):
                found.append(_number(name, known, spread=spread))
            else:
                words = Counter(as_word(cell) for cell in known)
                order = sorted(words, key=lambda word: (-words[word], word))
                found.append(Column(name, "category", words=tuple(order)))
        return tuple(found)

    def learn_numbers(self, *, spread: Any) -> tuple[Column, ...]:
        """Returns every column as numbers; one without any known value is left out."""
        known = {name: [cell for cell in cells if cell == cell] for name, cells in self.cells.items()}
        return tuple(_number(name, cells, spread=spread) for name, cells in known.items() if cells)


def _few(cells: Sequence[Any]) -> bool:
    distinct = set(cells)
    return len(distinct) <= MOST_WORDS and all(cell == int(cell) for cell in distinct)


def _number(name: str, cells: Sequence[Any], *, spread: Any) -> Column:
    values = np.array(cells, dtype=np.float64)
    column = Column(name, "number", mean=float(values.mean()), scale=float(values.std()) or 1.0)
    return replace(column, edges=tuple(spread((values - column.mean) / column.scale)))


def as_word(cell: Word) -> str:
    """Returns a cell of a column of words as it is looked up; a gap is a word of its own, the empty one."""
    if cell is None:
        return ""
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def node_columns(graph: Graph) -> dict[str, Sequence[Word]]:
    """Returns the columns of a graph's nodes, before them their degree, which every graph has."""
    return {DEGREE: degrees(graph).astype(float).tolist(), **graph.nodes}


def standardised(cells: Sequence[Word], column: Column, *, where: str) -> np.ndarray:
    """Returns the standardised numbers of a column, NaN in gaps, float32.

    Raises:
        DataError: a text in a column that held numbers in training.
    """
    if odd := next((cell for cell in cells if isinstance(cell, str)), None):
        raise DataError(where, must="hold numbers, as in training", found=repr(odd))
    values = np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)
    # Far outside every bin the code does not change any more; float32 must not overflow on the way.
    return np.clip((values - column.mean) / column.scale, -1e30, 1e30).astype(np.float32)
