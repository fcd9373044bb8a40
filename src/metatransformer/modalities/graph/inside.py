"""Seeing inside graphs: a node or edge of which nothing is said, without the neighbourhoods that hold it.

So Riniker and Landrum 2013 (J. Cheminf. 5:43) draw what atoms mean to a fingerprint. The graph's own numbers, which no
atom holds, are a place by themselves.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from metatransformer.core.inside import Inside, Places, Seen, few_cells
from metatransformer.core.samples import View
from metatransformer.modalities.graph.formula import paint_graph
from metatransformer.modalities.graph.graphs import Graph

COLUMNS = ("node", "to_node")  # numbers counted from 0; of an edge both its ends, of a group its first and last node


def _places(seen: Seen, most: int) -> Places:
    """Returns nodes, and edges where there is room for them (of many nodes groups of neighbouring numbers); then the
    numbers of the whole.
    """
    graph: Graph = seen.raw.inputs["graph"]
    symbols = graph.nodes.get("element", [""] * graph.count)
    named = [f"{symbol or 'node '}{number + 1}" for number, symbol in enumerate(symbols)]
    ends = graph.edges.tolist() if graph.count + len(graph.edges) < most else []
    spans = [(a, b - 1) for a, b in pairwise(few_cells([graph.count], most=most)[0].tolist())]
    names = [named[a] if a == b else f"{named[a]} to {named[b]}" for a, b in spans]
    names += [f"{named[a]}-{named[b]}" for a, b in ends]
    what = "the molecule" if any(symbols) else "the graph"
    where = [*((a, a if a == b else b) for a, b in spans), *ends, (np.nan, np.nan)]
    return Places([*names, f"numbers of {what} as a whole"], COLUMNS, np.array(where, dtype=float))


def _owners(graph: Graph, places: Places) -> tuple[np.ndarray, np.ndarray]:
    """Returns the place of each node and of each edge, -1 for edges that have none."""
    edges, alone = len(graph.edges), len(places) - 1
    spans = graph.count if alone == graph.count + edges else alone
    nodes = np.searchsorted(places.where[:spans, 0], np.arange(graph.count), side="right") - 1
    return nodes, np.arange(spans, alone) if alone > spans else np.full(edges, -1)


def _cover(seen: Seen, places: Places) -> Callable[[np.ndarray], View]:
    graph: Graph = seen.raw.inputs["graph"]
    inputs, (nodes, edges) = seen.view.inputs, _owners(graph, places)
    far = _steps(graph)

    def covered(hidden: np.ndarray) -> View:
        gone = np.concatenate([hidden[nodes], (edges >= 0) & hidden[edges]])
        codes, numbers = inputs["codes"].copy(), inputs["numbers"].copy()
        codes[gone, 1:], numbers[gone] = 0, np.nan  # its kind, a node or an edge, is still known
        kinds = seen.transform.environments(_left(graph, gone, far))
        whole = np.full_like(inputs["whole"], np.nan) if hidden[-1] else inputs["whole"]
        changed = {"codes": codes, "numbers": numbers, "environments": kinds, "whole": whole}
        return seen.view.with_inputs({**inputs, **changed})

    return covered


def _left(graph: Graph, gone: np.ndarray, far: np.ndarray) -> Graph:
    """Returns the graph without the neighbourhoods that hold a node or an edge that is gone ``[n + m]``."""
    nodes, (first, second) = np.flatnonzero(gone[: graph.count]), graph.edges[gone[graph.count :]].T
    counts: Counter[int] = Counter()
    for kind, middle, radius in graph.around.tolist():
        near = far[middle]
        # An edge is of a neighbourhood where one end is nearer to its middle than its rim.
        if not ((near[nodes] <= radius).any() or (np.minimum(near[first], near[second]) < radius).any()):
            counts[kind] += 1
    return replace(graph, environments=dict(counts))


def _steps(graph: Graph) -> np.ndarray:
    """Returns how many edges lie between each two nodes ``[n, n]``, infinity where there is no way."""
    from scipy import sparse
    from scipy.sparse import csgraph

    a, b = graph.edges.T
    joined = sparse.csr_array((np.ones(len(a)), (a, b)), shape=(graph.count, graph.count))
    return csgraph.shortest_path(joined, directed=False, unweighted=True)


def _paint(axes: Any, seen: Seen, places: Places, values: np.ndarray) -> None:
    nodes, edges = _owners(seen.raw.inputs["graph"], places)
    inputs = {name: seen.view.inputs[name] for name in ("places", "ends", "marks")}
    worth = np.where(edges < 0, 0.0, values[edges]) if len(edges) else np.zeros(0)
    paint_graph(axes, **inputs, worth=np.concatenate([values[nodes], worth]))
    axes.set_title(f"{places.names[-1]}: {values[-1]:+.2g}", fontsize=8)


GRAPH_INSIDE = Inside(
    places=_places,
    cover=_cover,
    paint=_paint,
    covered="a node or edge of which nothing is known",
    paints_raw=True,
)
