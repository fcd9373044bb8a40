"""Files of general graphs: GraphML, edge lists, folders in the text format of TU Dortmund."""

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.border import foreign
from metatransformer.core.errors import DataError, MissingDependencyError
from metatransformer.data.delimited import decode
from metatransformer.data.limits import read_bytes
from metatransformer.data.records import counted
from metatransformer.modalities.graph.graphs import Graph, make_graph

_MARKS = str.maketrans(",;\t", "   ")
HEADERS = ({"source", "target"}, {"from", "to"}, {"src", "dst"}, {"node1", "node2"})


def read_graphml(path: Path) -> list[tuple[Graph, dict[str, Any]]]:
    """Returns the graphs of a GraphML file in order, each with its own attributes.

    Raises:
        DataError: no GraphML, no graph, or an empty one.
    """
    try:
        from networkx.readwrite.graphml import GraphMLReader
    except ImportError as error:
        raise MissingDependencyError("networkx", extra="graph", purpose=f"reading {path}") from error
    data = BytesIO(read_bytes(path))
    with foreign(path, "networkx", must="be whole GraphML", do="Write it again, for instance with networkx."):
        reader = GraphMLReader(node_type=str)
        reader.convert_bool = _Spaced(reader.convert_bool, where=path)
        found = list(reader(path=data))
    if not found:
        raise DataError(path, must="hold a graph", found="none")
    several = len(found) > 1
    return [
        (from_networkx(graph, where=f"{path}, graph {i}" if several else path), dict(graph.graph))
        for i, graph in enumerate(found)
    ]


class _Spaced(dict[str | int, bool]):
    """Words of XML, which may have spaces and line ends around them."""

    def __init__(self, known: Mapping[str | int, bool], *, where: Path) -> None:
        super().__init__(known)
        self._where = where

    def __missing__(self, word: str | int) -> bool:
        found = self.get(str(word).strip())
        if found is None:
            raise DataError(self._where, must="be whole GraphML: true or false where it says boolean", found=repr(word))
        return found


NETWORKX = (".gml", ".net", ".paj")  # formats of one graph that networkx reads
_NAMES = {"id", "label", "graphics", "x", "y", "shape"}  # what a node is called there, and where it is drawn


def read_by_networkx(path: Path) -> Graph:
    """Returns the graph of a GML or Pajek file, without its nodes' names and how it is drawn.

    Raises:
        DataError: damaged, another format, an empty graph, or an attribute that is no word or number.
    """
    try:
        import networkx
    except ImportError as error:
        raise MissingDependencyError("networkx", extra="graph", purpose=f"reading {path}") from error
    name = path.name.lower().removesuffix(".gz")
    lines = decode(read_bytes(path), path=path, latin=True).splitlines()
    if name.endswith(".gml"):
        with foreign(path, "networkx", must="be whole GML"):
            graph = networkx.parse_gml(lines, label="id")
    else:
        with foreign(path, "networkx", must="be a whole Pajek network"):
            graph = networkx.parse_pajek(lines)
    for _, data in graph.nodes(data=True):
        for name in _NAMES & data.keys():
            del data[name]
    for *_, data in graph.edges(data=True):
        for name in ("id", "graphics"):
            data.pop(name, None)
    return from_networkx(graph, where=path)


def from_networkx(graph: Any, *, where: object) -> Graph:
    """Returns a networkx graph; attributes of nodes and edges become columns, absent ones gaps.

    Raises:
        DataError: an empty graph, or an attribute that is no word or number.
    """
    number = {name: i for i, name in enumerate(graph.nodes)}
    edges = [(number[a], number[b]) for a, b in graph.edges()]
    return make_graph(
        len(number),
        edges,
        nodes=_columns([data for _, data in graph.nodes(data=True)]),
        links=_columns([data for _, _, data in graph.edges(data=True)]),
        directed=bool(graph.is_directed()),
        title=str(graph.name or ""),
        where=where,
    )


def _columns(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {str(name): [row.get(name) for row in rows] for name in names}


def read_edge_list(path: Path) -> Graph:
    """Returns the undirected graph of an edge list: two node names a line, then perhaps a weight and a time.

    Fields are separated by spaces, tabs, commas or semicolons. Lines that begin with ``#`` or ``%`` are comments; a
    first line ``source target`` (also from to, src dst, node1 node2) names the columns, any number of them. Instead of
    numbers a line may end in a Python dictionary, as networkx writes it. A line of one name is a node without an edge.
    networkx's own reader loses parallel edges, lone nodes and the number of a line that is wrong.

    Raises:
        DataError: not text, no line, a line of more fields than have a name, or a property that is no number.
    """
    names: dict[str, int] = {}
    edges: list[tuple[int, int]] = []
    properties: list[dict[str, Any]] = []
    titles = ["weight", "time"]
    for place, (number, line) in enumerate(_lines(path)):
        text, mark, more = line.partition("{")
        fields = text.translate(_MARKS).split()
        where = f"{path}, line {number}"
        if place == 0 and {field.lower() for field in fields[:2]} in HEADERS:
            titles = fields[2:]
            continue
        if len(fields) > 2 + len(titles):
            must = f"hold two node names and at most {' and '.join(f'a {title}' for title in titles) or 'nothing else'}"
            raise DataError(where, must=must, found=counted(len(fields), "field"))
        ends = [names.setdefault(name, len(names)) for name in fields[:2]]
        if len(ends) == 2:
            edges.append((ends[0], ends[1]))
            own = {title: _number(text, where=where) for title, text in zip(titles, fields[2:], strict=False)}
            properties.append(own | (_dictionary(mark + more, where=where) if mark else {}))
    if not names:
        raise DataError(path, must="hold at least one edge or node", found="none")
    return make_graph(len(names), edges, links=_columns(properties), title=path.stem, where=path)


def _dictionary(text: str, *, where: str) -> dict[str, Any]:
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:  # all that its documentation lists
        raise DataError(where, must="end in a Python dictionary", found=repr(text[:40])) from error
    if not isinstance(found, dict):
        raise DataError(where, must="end in a Python dictionary", found=repr(text[:40]))
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """Returns number and text of every line that is neither empty nor a comment."""
    lines = decode(read_bytes(path), path=path, latin=True).splitlines()
    found = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [(number, line) for number, line in found if line and line[0] not in "#%"]


def _number(text: str, *, where: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise DataError(where, must="hold a number", found=repr(text)) from error
    if not abs(value) <= 1e30:  # beyond that the sums of the readers overflow
        raise DataError(where, must="hold a finite number", found=text)
    return value


@dataclass(frozen=True)
class TuSet:
    """The graphs of a TU folder in order, with their labels and numbers to learn (None where there is no such file)."""

    name: str
    graphs: tuple[Graph, ...]
    labels: tuple[str, ...] | None
    values: tuple[tuple[float, ...], ...] | None


def is_tu(folder: Path) -> bool:
    """Returns whether a folder is in TU format: it holds ``DS_graph_indicator.txt``."""
    return any(folder.glob("*_graph_indicator.txt"))


def read_tu(folder: Path) -> TuSet:
    """Returns the graphs of a folder ``DS_A.txt``, ``DS_graph_indicator.txt``, ``DS_graph_labels.txt``, ...

    ``A`` lists every undirected edge in both directions; one of them is kept. Format: Morris et al. 2020
    (arXiv 2007.08663).

    Raises:
        DataError: a file is missing, holds something else than numbers, or lines that do not fit the others.
    """
    names = [path.name.removesuffix("_graph_indicator.txt") for path in folder.glob("*_graph_indicator.txt")]
    if len(names) != 1:
        raise DataError(folder, must="hold one set in TU format", found=", ".join(sorted(names)) or "none")
    name = names[0]
    owner = _whole(folder / f"{name}_graph_indicator.txt", width=1)[:, 0] - 1
    ends = _whole(folder / f"{name}_A.txt", width=2) - 1
    _check_ends(ends, owner=owner, where=folder / f"{name}_A.txt")
    columns = {
        kind: _properties(folder, f"{name}_{kind}", rows=rows)
        for kind, rows in (("node", len(owner)), ("edge", len(ends)))
    }
    count = int(owner.max()) + 1
    if not np.isin(np.diff(owner, prepend=-1), (0, 1)).all() or owner[0] != 0:
        where = folder / f"{name}_graph_indicator.txt"
        raise DataError(where, must="number the graphs 1, 2, ... in rising order", found="gaps or another order")
    nodes = np.split(np.arange(len(owner)), np.cumsum(np.bincount(owner))[:-1])
    order = np.argsort(owner[ends[:, 0]], kind="stable")
    lines = np.split(order, np.cumsum(np.bincount(owner[ends[:, 0]], minlength=count))[:-1])
    graphs = tuple(
        _graph(nodes[i], lines[i], ends=ends, columns=columns, where=f"{folder}, graph {i + 1}") for i in range(count)
    )
    labels = _optional(folder / f"{name}_graph_labels.txt", rows=count)
    values = _optional(folder / f"{name}_graph_attributes.txt", rows=count)
    return TuSet(
        name,
        graphs,
        labels=None if labels is None else tuple(f"{row[0]:.15g}" for row in labels),
        values=None if values is None else tuple(map(tuple, values.tolist())),
    )


def _check_ends(ends: np.ndarray, *, owner: np.ndarray, where: Path) -> None:
    outside = ((ends < 0) | (ends >= len(owner))).any(axis=1)
    torn = ~outside & (owner[ends[:, 0].clip(0, len(owner) - 1)] != owner[ends[:, 1].clip(0, len(owner) - 1)])
    if (bad := np.flatnonzero(outside | torn)).size:
        a, b = ends[bad[0]] + 1
        raise DataError(
            f"{where}, line {bad[0] + 1}",
            must=f"join two nodes of one graph, numbered 1 to {len(owner)}",
            found=f"{a}, {b}",
        )


def _properties(folder: Path, stem: str, *, rows: int) -> dict[str, list[Any]]:
    """Returns labels as words and attributes as numbers, by column."""
    found: dict[str, list[Any]] = {}
    tables: tuple[tuple[str, Callable[[float], Any]], ...] = (("label", lambda v: f"{v:g}"), ("attribute", float))
    for what, make in tables:
        table = _optional(folder / f"{stem}_{what}s.txt", rows=rows)
        for column, values in enumerate(() if table is None else table.T, start=1):
            found[f"{what} {column}"] = [make(value) for value in values.tolist()]
    return found


def _graph(
    own: np.ndarray, rows: np.ndarray, *, ends: np.ndarray, columns: dict[str, dict[str, list[Any]]], where: str
) -> Graph:
    """Returns the graph of the nodes ``own``, whose edges stand in the lines ``rows``, each in both directions."""
    kept: dict[tuple[int, int], int] = {}
    for row in rows.tolist():
        a, b = ends[row]
        kept.setdefault((min(a, b), max(a, b)), row)
    lines = list(kept.values())
    return make_graph(
        len(own),
        ends[lines] - own[0] if lines else [],
        nodes={name: [cells[i] for i in own.tolist()] for name, cells in columns["node"].items()},
        links={name: [cells[i] for i in lines] for name, cells in columns["edge"].items()},
        where=where,
    )


def _optional(path: Path, *, rows: int) -> np.ndarray | None:
    if not path.is_file():
        return None
    table = _table(path, width=0)
    if len(table) != rows:
        raise DataError(path, must=f"have {rows} lines", found=str(len(table)))
    return table


def _whole(path: Path, *, width: int) -> np.ndarray:
    table = _table(path, width=width)
    if (bad := np.argwhere((table != np.round(table)) | (np.abs(table) > 2**53))).size:
        row, column = bad[0]
        raise DataError(f"{path}, row {row + 1}", must="hold whole numbers", found=f"{table[row, column]:g}")
    return table.astype(int)


def _table(path: Path, *, width: int) -> np.ndarray:
    """Returns the comma-separated numbers of a file ``[lines, width]``; ``width`` 0 takes the first line's."""
    if not path.is_file():
        raise DataError(path, must="be there, as the TU format demands", found="no such file")
    lines = [(f"{path}, line {number}", line.translate(_MARKS).split()) for number, line in _lines(path)]
    rows = [[_number(text, where=where) for text in fields] for where, fields in lines]
    if not rows:
        raise DataError(path, must="hold numbers", found="an empty file")
    wanted = width or len(rows[0])
    odd = next((place for place, row in enumerate(rows) if len(row) != wanted), None)
    if odd is not None:
        raise DataError(f"{path}, row {odd + 1}", must=f"hold {wanted} numbers", found=str(len(rows[odd])))
    return np.array(rows)
