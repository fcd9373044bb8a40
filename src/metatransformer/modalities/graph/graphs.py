"""Graphs: GraphML, edge lists and TU text folders as nodes, edges and their properties.

A property is a column of words (looked up) or of numbers (coded); what it is, training decides. Parallel edges and
loops stay as they are.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph

from metatransformer.core.errors import DataError

MOST = 1_000_000  # nodes or edges: what is said of more costs minutes, and no sequence of tokens holds them
RADIUS = 2  # rounds of Weisfeiler-Lehman refinement: neighbourhoods of up to two steps
Word = str | float | None


@dataclass(frozen=True)
class Graph:
    """One graph: ``count`` nodes numbered from 0, ``edges`` [m, 2].

    ``nodes`` and ``links`` are columns of properties, one entry a node or an edge: text or numbers, None where unknown.
    ``environments`` counts kinds of neighbourhood by an identifier of 32 bits, ``around`` [k, 3] says where each is:
    its kind, the node in its middle, how many steps it reaches. ``whole`` holds numbers of the graph as a whole (NaN =
    unknown). For pictures only: ``places`` [count, 2] where nodes lie, and ``marks``, atomic number,
    hydrogens and charge of each atom and then ten times the order of each bond with two zeros. ``title`` is what to
    call it: its SMILES.
    """

    count: int
    edges: np.ndarray
    nodes: Mapping[str, Sequence[Word]] = field(default_factory=dict)
    links: Mapping[str, Sequence[Word]] = field(default_factory=dict)
    directed: bool = False
    environments: Mapping[int, int] = field(default_factory=dict)
    whole: Mapping[str, float] = field(default_factory=dict)
    places: np.ndarray | None = None
    marks: Sequence[tuple[int, int, int]] = ()
    title: str = ""
    around: np.ndarray = field(default_factory=lambda: np.zeros((0, 3), dtype=np.int64))


def make_graph(
    count: int,
    edges: Any,
    *,
    nodes: Mapping[str, Sequence[Any]] | None = None,
    links: Mapping[str, Sequence[Any]] | None = None,
    directed: bool = False,
    title: str = "",
    where: object,
) -> Graph:
    """Returns a general graph with its neighbourhoods counted and its shape in numbers.

    Raises:
        DataError: no node, edges that are no pairs of nodes, a column of another length, an infinite number.
    """
    if count < 1:
        raise DataError(where, must="have at least one node", found="an empty graph")
    if count > MOST:
        raise DataError(where, must=f"have at most {MOST:,} nodes", found=f"{count:,}", do="Cut it into parts.")
    pairs = _pairs(edges, count=count, where=where)
    columns = [
        {str(name): _cells(values, size=size, where=f"{where}, {kind} property '{name}'") for name, values in given}
        for kind, size, given in (
            ("node", count, (nodes or {}).items()),
            ("edge", len(pairs), (links or {}).items()),
        )
    ]
    graph = Graph(count, pairs, columns[0], columns[1], directed, title=title)
    around = neighbourhoods(graph)
    return replace(graph, environments=dict(Counter(around[:, 0].tolist())), whole=shape_numbers(graph), around=around)


def _pairs(edges: Any, *, count: int, where: object) -> np.ndarray:
    try:
        pairs = np.asarray(edges, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(where, must="have edges as pairs of node numbers", found=str(error)) from error
    pairs = pairs.reshape(-1, 2) if pairs.size == 0 else pairs
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise DataError(where, must="have edges as pairs of node numbers", found=f"an array of shape {pairs.shape}")
    whole = np.isfinite(pairs) & (pairs == np.round(pairs)) & (pairs >= 0) & (pairs < count)
    if not whole.all():
        bad = pairs[~whole.all(axis=1)][0]
        raise DataError(
            where,
            must=f"join nodes numbered 0 to {count - 1}",
            found=f"the edge {bad[0]:g} - {bad[1]:g}",
        )
    return pairs.astype(np.int64)


def _cells(values: Any, *, size: int, where: str) -> list[Word]:
    cells = [_cell(value, where=where) for value in values]
    if len(cells) != size:
        raise DataError(where, must=f"have {size} entries", found=str(len(cells)))
    return cells


def _cell(value: Any, *, where: str) -> Word:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if not abs(value) <= 1e30:
            raise DataError(where, must="hold finite numbers", found=str(value)[:40])
        return float(value)
    if isinstance(value, str):
        return value
    raise DataError(where, must="hold words or numbers", found=f"a {type(value).__name__}")


def degrees(graph: Graph) -> np.ndarray:
    """Returns at how many edge ends each node stands, ``[count]``; a loop counts twice."""
    return np.bincount(graph.edges.ravel(), minlength=graph.count)


def neighbourhoods(graph: Graph) -> np.ndarray:
    """Returns the neighbourhoods of all nodes, of 0 to ``RADIUS`` steps ``[k, 3]``: the kind by a stable 32-bit
    identifier, the node, the steps.

    A node's kind is its words (its degree where it has none), then, round by round, its kind with the sorted kinds of
    the edges and nodes next to it: Weisfeiler-Lehman, Shervashidze et al. 2011 (JMLR 12). Numbers play no part.
    """
    words = [values for _, values in sorted(graph.nodes.items()) if any(isinstance(v, str) for v in values)]
    ties = [values for _, values in sorted(graph.links.items()) if any(isinstance(v, str) for v in values)]
    degree = degrees(graph)
    kinds = [_hash(0, *(column[i] for column in words)) if words else _hash(0, degree[i]) for i in range(graph.count)]
    joins: list[list[tuple[int, int]]] = [[] for _ in range(graph.count)]
    for number, (a, b) in enumerate(graph.edges.tolist()):
        tie = _hash(1, *(column[number] for column in ties))
        joins[a].append((b, _hash(2, tie) if graph.directed else tie))
        joins[b].append((a, _hash(3, tie) if graph.directed else tie))
    found = [kinds]
    for step in range(RADIUS):
        kinds = [_hash(4 + step, kinds[i], *sorted((t, kinds[j]) for j, t in joins[i])) for i in range(graph.count)]
        found.append(kinds)
    nodes, steps = np.tile(np.arange(graph.count), 1 + RADIUS), np.repeat(np.arange(1 + RADIUS), graph.count)
    return np.stack([np.array(found, dtype=np.int64).ravel(), nodes, steps], axis=1)


def _hash(*parts: Any) -> int:
    return zlib.crc32(repr(parts).encode("utf-8"))


def shape_numbers(graph: Graph) -> dict[str, float]:
    """Returns a graph's size and shape in numbers: nodes, edges, degrees, components, independent cycles, triangles."""
    degree = degrees(graph)
    a, b = graph.edges.T
    joined = sparse.coo_array((np.ones(len(a)), (a, b)), shape=(graph.count, graph.count))
    components = csgraph.connected_components(joined, directed=False)[0]
    return {
        "nodes": float(graph.count),
        "edges": float(len(graph.edges)),
        "mean degree": float(degree.mean()),
        "largest degree": float(degree.max()),
        "deviation of degrees": float(degree.std()),
        "leaves": float(np.mean(degree == 1)),
        "components": float(components),
        "cycles": float(len(graph.edges) - graph.count + components),
        "triangles": _triangles(graph, degree),
    }


def _triangles(graph: Graph, degree: np.ndarray) -> float:
    """Returns how many triples of nodes are joined to each other.

    Every edge goes from the end with fewer edges to the other, so that no node of a star has many ways out and the
    product of the sparse matrices stays small.
    """
    pairs = np.unique(np.sort(graph.edges, axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    rank = np.argsort(np.argsort(degree, kind="stable"))
    a, b = np.where((rank[pairs[:, 0]] < rank[pairs[:, 1]])[:, None], pairs, pairs[:, ::-1]).T
    up = sparse.csr_array((np.ones(len(a)), (a, b)), shape=(graph.count, graph.count))
    return float(((up @ up) * up).sum())  # of sparse arrays, * goes entry by entry
