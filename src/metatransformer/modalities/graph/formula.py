"""Pictures of graphs: structural formulas, and nodes with lines between them."""

from typing import Any

import numpy as np

from metatransformer.modalities._shown import shades


def paint_graph(
    axes: Any, *, places: np.ndarray, ends: np.ndarray, marks: np.ndarray, worth: np.ndarray | None = None
) -> None:
    """Paints a graph on matplotlib axes without a frame.

    ``places`` [n, 2] are the nodes' places; ``ends`` [n + m, 2] and ``marks`` [n + m, 3] hold the nodes first, then the
    edges: of a molecule atomic number, hydrogens and charge, and ten times the bond order with two zeros; of another
    graph zeros, and its places are only a start. ``worth`` [n + m] are values of nodes and edges, painted behind them.
    """
    count = len(places)
    pairs, orders = ends[count:], marks[count:, 0]
    molecule = bool(marks.any())
    if not molecule:
        places = _spread(places, pairs=pairs)
    if worth is not None:
        _shade(axes, places, pairs=pairs, colours=shades(worth))
    joined: list[list[int]] = [[] for _ in range(count)]  # by aromatic bonds
    for a, b in pairs[orders == 15].tolist():
        joined[a].append(b)
        joined[b].append(a)
    for (a, b), order in zip(pairs.tolist(), orders.tolist(), strict=True):
        near = places[[node for node in (*joined[a], *joined[b]) if node not in (a, b)]]
        _draw_edge(axes, places[a], places[b], order=order, inside=near)
    if molecule:
        _draw_atoms(axes, places, atoms=marks[:count])
    else:
        axes.plot(*places.T, "o", color="tab:blue", markersize=4)
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.1)
    axes.set_axis_off()


def _shade(axes: Any, places: np.ndarray, *, pairs: np.ndarray, colours: np.ndarray) -> None:
    axes.scatter(*places.T, c=colours[: len(places)], s=330, linewidths=0, zorder=0)
    for (a, b), colour in zip(pairs.tolist(), colours[len(places) :], strict=True):
        axes.plot(*places[[a, b]].T, color=colour, linewidth=8, solid_capstyle="butt", zorder=-1)


def _draw_edge(axes: Any, a: np.ndarray, b: np.ndarray, *, order: int, inside: np.ndarray) -> None:
    """Paints a line; a double or triple bond as several, an aromatic one with a dashed line beside it, on the side of
    its ring: where the places ``inside`` [k, 2] lie.
    """
    along = b - a
    aside = np.array([-along[1], along[0]]) / max(float(np.hypot(*along)), 1e-9)
    if float(((inside - (a + b) / 2) @ aside).sum()) < 0:
        aside = -aside
    styles = {20: ((-0.06, "-"), (0.06, "-")), 30: ((-0.1, "-"), (0.0, "-"), (0.1, "-")), 15: ((0.0, "-"), (0.14, ":"))}
    for shift, style in styles.get(order, ((0.0, "-"),)):
        line = np.stack([a, b]) + shift * aside
        axes.plot(*line.T, style, color="0.35", linewidth=1, zorder=1)


def _draw_atoms(axes: Any, places: np.ndarray, *, atoms: np.ndarray) -> None:
    """Writes the symbol of every atom with its hydrogens and charge; a neutral carbon stands where lines meet."""
    from rdkit.Chem import GetPeriodicTable

    table = GetPeriodicTable()
    colours = {7: "tab:blue", 8: "tab:red", 9: "tab:green", 16: "#a07800", 17: "tab:green", 35: "#8c3a1c"}
    box = {"boxstyle": "circle,pad=0.12", "facecolor": "white", "edgecolor": "none"}
    for place, (number, hydrogens, charge) in zip(places, atoms.tolist(), strict=True):
        if number == 6 and charge == 0 and len(places) > 1:
            axes.plot(*place, ".", color="0.35", markersize=1)
            continue
        text = (table.GetElementSymbol(number) if number else "*") + _with("H", hydrogens) + _charged(charge)
        colour = colours.get(number, "0.2")
        axes.text(*place, text, ha="center", va="center", fontsize=7, color=colour, bbox=box, zorder=2)


def _with(symbol: str, count: int) -> str:
    """Returns H, or its number below it, as mathematical text; nothing for 0."""
    return "" if not count else symbol if count == 1 else f"{symbol}$_{{{count}}}$"


def _charged(charge: int) -> str:
    sign = "+" if charge > 0 else "-"
    return "" if not charge else f"$^{{{abs(charge) if abs(charge) > 1 else ''}{sign}}}$"


def _spread(places: np.ndarray, *, pairs: np.ndarray) -> np.ndarray:
    """Returns places at which joined nodes are near and the others apart, started from ``places``."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(len(places)))
    graph.add_edges_from(pairs.tolist())
    # Nodes that mean the same lie at the same place, from which no force could part them.
    start = places + np.random.default_rng(0).normal(0, 0.03, size=places.shape)
    found = networkx.spring_layout(graph, pos=dict(enumerate(start)), iterations=60, seed=0)
    return np.stack([found[i] for i in range(len(places))])
