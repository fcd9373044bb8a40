"""What a user hands in as graphs, as records: tables of SMILES, SD files, GraphML, edge lists, TU folders, objects.

A record of a molecule carries its text (``{"smiles": ...}`` or ``{"block": ...}``), so that a molecule that cannot be
understood is named where it stands and the others can go on; a record of a general graph carries the graph or its file.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from metatransformer.core.errors import DataError, UsageError, nearest
from metatransformer.core.samples import Record
from metatransformer.data.given import Array, Files, Folder, Given, Items, Sheet, accepts, recognise
from metatransformer.data.index import index_files
from metatransformer.data.records import Index, Records, counted, listing
from metatransformer.data.rows import index_table, split_target
from metatransformer.data.table import TABLE_SUFFIXES
from metatransformer.modalities.graph.graphs import Graph, make_graph
from metatransformer.modalities.graph.molecule import (
    SMILES_NAMES,
    parse_molecule,
    read_molecule,
    read_sdf,
    read_smiles,
    scaffold,
)
from metatransformer.modalities.graph.networks import (
    NETWORKX,
    from_networkx,
    is_tu,
    read_by_networkx,
    read_edge_list,
    read_graphml,
    read_tu,
)

SDF_SUFFIXES = (".sdf", ".sd", ".mol")
EDGE_SUFFIXES = (".edgelist", ".edges")
SDF_SUFFIXES += tuple(f"{suffix}.gz" for suffix in SDF_SUFFIXES)
EDGE_SUFFIXES += tuple(f"{suffix}.gz" for suffix in EDGE_SUFFIXES)
SMI_SUFFIXES = tuple(f"{suffix}{end}" for suffix in (".smi", ".smiles", ".ism", ".can") for end in ("", ".gz"))
SEVERAL = (*SDF_SUFFIXES, *SMI_SUFFIXES, ".graphml", ".graphml.gz")  # may hold several graphs
NET_SUFFIXES = tuple(f"{suffix}{end}" for suffix in NETWORKX for end in ("", ".gz"))
FILE_SUFFIXES = (*SEVERAL, *EDGE_SUFFIXES, *NET_SUFFIXES)
GRAPH_SUFFIXES = (*TABLE_SUFFIXES, *FILE_SUFFIXES)


def index_graphs(data: Any, *, target: str, labelled: bool, header: bool, options: Any) -> Index:
    """Returns one record a graph; ``options`` are the modality's settings ``column``, ``unparsed`` and ``split``.

    ``data`` is a table with a column of SMILES (or a folder of train, val and test tables), an SD file (``target``
    names a property), a folder in TU format (graph labels, or with ``target`` "attribute" or "attribute 2" a number),
    a GraphML file (``target`` names an attribute of the graph), an edge list, a folder per class or a manifest of
    such files, or a list: of SMILES, files, ``Graph``, networkx graphs, or mappings with ``nodes`` and ``edges``.

    Raises:
        DataError: no such data, column or property; a target that is missing; what the readers raise.
        UsageError: a table or SD file to learn from without ``target``; scaffolds of graphs that are no molecules;
            molecules in memory of which some would be skipped.
    """
    must = "be a path, or a table, or a list with its labels beside it" if labelled else "be a path or a list"
    given = recognise(data, must=must, do="", strings=True)
    one = given.one if isinstance(given, Files) else None
    if _is_table(given):
        index = _table(given, target=target, labelled=labelled, header=header, column=options.column)
    elif isinstance(given, Folder) and is_tu(given.path):
        index = _tu(given.path, target=target, labelled=labelled)
    elif one is not None and accepts(one.name, suffixes=SEVERAL):  # of graphs with targets of their own
        index = _parts(one, target=target, labelled=labelled)
    elif one is not None or isinstance(given, Folder | Sheet):
        index = _files(given, target=target, labelled=labelled)
    elif labelled:
        raise DataError("the data", must=must, found=f"a {type(data).__name__}")
    else:
        index = _items(given.paths if isinstance(given, Files) else _as_list(given))
    if options.unparsed == "skip":
        index = _parsable(index, beside=not labelled)
    return _with_scaffolds(index) if options.split == "scaffold" else index


def _is_table(given: Given) -> bool:
    """Returns whether data is a table of molecules: neither files, nor a table that lists files."""
    if isinstance(given, Sheet):
        return not given.lists_files
    if isinstance(given, Items):
        return given.are(Mapping) and not any(_is_graph(row) for row in given.items)
    return isinstance(given, Folder) and bool(given.sheets)


def _as_list(given: Items | Array) -> Sequence[Any]:
    return given.items if isinstance(given, Items) else [*given.values]


def _table(given: Given, *, target: str, labelled: bool, header: bool, column: str) -> Index:
    if labelled and not target:
        raise UsageError("--target", must="name the column to learn for a table", found="nothing")
    index = index_table(given, target=target or None, header=header)
    where = given.path if isinstance(given, Folder) else given.where if isinstance(given, Sheet) else "the table"
    name = _smiles_column(index.columns, column=column, where=where)
    assert index.records.table is not None
    records = index.records.replace(values=index.records.table.select({name: "smiles"}))
    # Of the other columns nothing is read, so what they lack concerns nobody.
    notes = [note for note in index.notes if "missing value" not in note]
    return Index(records, (*notes, f"molecules from the column '{name}'"), index.root)


def _smiles_column(names: Sequence[str], *, column: str, where: object) -> str:
    if column != "auto":
        if column not in names:
            raise DataError(where, must=f"have a column '{column}'", found="none", do=nearest(column, names))
        return column
    found = [name for name in names if name.strip().lower().lstrip("#") in SMILES_NAMES]
    found = found or [name for name in names if "smiles" in name.lower()]
    if len(found) != 1:
        raise DataError(
            where,
            must="have one column of SMILES, with a name like smiles, mol or structure",
            found=f"the columns {listing(found or names, most=9)}",
            do="Name it with input.column=NAME.",
        )
    return found[0]


def _parts(path: Path, *, target: str, labelled: bool) -> Index:
    """Returns one record a molecule of an SD file, or a graph of a GraphML file."""
    if labelled and not target:
        raise UsageError("--target", must=f"name what to learn of {path.name}", found="nothing", do=_offer(path))
    records = []
    for number, (value, properties) in enumerate(_contents(path)):
        answer = _answer(properties, target)
        if labelled and answer is None:
            raise DataError(
                f"{path}, graph {number}",
                must=f"have the property '{target}'",
                found=listing(properties) or "none",
            )
        records.append(Record(str(number), path=path, part=number, value=value, target=answer))
    return Index(Records.of(records), (), path.parent)


def _answer(properties: Mapping[str, Any], target: str) -> Any:
    """Returns a property, None where it is absent or empty; of several, named with commas, a tuple with gaps."""
    names = (target,) if target in properties else split_target(target)
    found = tuple(None if properties.get(name) in (None, "") else properties[name] for name in names)
    return found if len(found) > 1 else next(iter(found), None)


def _contents(path: Path) -> list[tuple[Any, Mapping[str, Any]]]:
    if accepts(path.name, suffixes=SDF_SUFFIXES):
        return [({"block": block.text}, block.properties) for block in read_sdf(path)]
    if accepts(path.name, suffixes=SMI_SUFFIXES):
        return list(read_smiles(path))
    return list(read_graphml(path))


def _offer(path: Path) -> str:
    names = dict.fromkeys(name for _, properties in _contents(path) for name in properties)
    return f"It has {listing(names, most=9)}." if names else "It has no properties."


def _tu(folder: Path, *, target: str, labelled: bool) -> Index:
    found = read_tu(folder)
    word, _, place = target.partition(" ")
    targets: list[Any] = [None] * len(found.graphs)
    if word == "attribute":
        column = int(place or 1) - 1 if re.fullmatch(r"[0-9]{0,9}", place) else -1
        if found.values is None or not 0 <= column < len(found.values[0]):
            raise DataError(folder, must=f"have the graph {target}", found="no such file or column")
        targets = [row[column] for row in found.values]
    elif target not in ("", "label"):
        raise UsageError("--target", must="be 'label' or 'attribute N' for a TU folder", found=repr(target))
    elif found.labels is not None:
        targets = list(found.labels)
    elif labelled:
        raise DataError(folder, must="have graph labels", found="no such file", do="Try --target attribute.")
    numbers = range(len(found.graphs))
    records = Records(
        [*map(str, numbers)], paths=[folder] * len(numbers), parts=numbers, values=found.graphs, targets=targets
    )
    note = f"TU set '{found.name}': {counted(len(records), 'graph')}"
    if word != "attribute" and found.labels is not None:
        note += f" of the labels {listing(sorted(set(found.labels)))} (classes: --task classify)"
    return Index(records, (note,), folder)


def _files(data: Any, *, target: str, labelled: bool) -> Index:
    """Returns the graphs of a folder per class, a manifest, or single files; an SD file there may hold several."""
    index = index_files(data, suffixes=FILE_SUFFIXES, label_column=target or "label", require_labels=labelled)
    records: list[Record] = []
    for record in index.records:
        assert record.path is not None
        if not accepts(record.path.name, suffixes=SEVERAL):
            records.append(record)
            continue
        try:
            contents = _contents(record.path)
        except DataError:  # raised again when this file is loaded, so that the others are read or named, too
            records.append(record)
            continue
        for number, (value, _) in enumerate(contents):
            key = record.key if len(contents) == 1 else f"{record.key}:{number}"
            records.append(replace(record, key=key, part=number, value=value))
    return replace(index, records=Records.of(records))


def _items(items: Sequence[Any]) -> Index:
    if not items:
        raise DataError("the data", must="hold at least one item", found="an empty list")
    if all(isinstance(item, os.PathLike) or (isinstance(item, str) and _is_file(item)) for item in items):
        if table := next((str(item) for item in items if accepts(str(item), suffixes=TABLE_SUFFIXES)), ""):
            must, found = "be files of graphs, or one table", f"the table {table} among {len(items)} files"
            raise DataError("the data", must=must, found=found, do="Name a table alone, or join the tables.")
        return _files([str(item) for item in items], target="", labelled=False)
    values = [{"smiles": item} if isinstance(item, str) else item for item in items]
    return Index(Records([str(row) for row in range(len(items))], values=values))


def _is_file(text: str) -> bool:
    return accepts(text, suffixes=GRAPH_SUFFIXES) and Path(text).exists()


def _is_molecule(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and ("smiles" in value or "block" in value))


def _is_graph(value: Mapping[str, Any]) -> bool:
    return "edges" in value or "block" in value


def load_graph(record: Record) -> Graph:
    """Returns the graph of a record.

    Raises:
        DataError: what the readers raise; a value that is no graph.
    """
    value, where = record.value, _place(record)
    if isinstance(value, Graph):
        return value
    if _is_molecule(value):
        return read_molecule(value, where=where)
    if isinstance(value, Mapping):
        return _from_mapping(value, where=where)
    if hasattr(value, "is_directed") and hasattr(value, "nodes"):
        return from_networkx(value, where=where)
    if value is None and record.path is not None:
        return _from_file(record, record.path)
    raise DataError(
        where,
        must="be a SMILES, a Graph, a networkx graph, or a mapping with nodes and edges",
        found=f"a {type(value).__name__}",
    )


def _place(record: Record) -> str:
    if record.path is None:
        return f"item {record.key}"
    if record.part is None:
        return str(record.path)
    what = "row" if accepts(record.path.name, suffixes=TABLE_SUFFIXES) else "graph"
    return f"{record.path}, {what} {record.part}"


def _from_mapping(value: Mapping[str, Any], *, where: str) -> Graph:
    known = {"nodes", "edges", "node_columns", "edge_columns", "directed"}
    if not {"nodes", "edges"} <= value.keys() or value.keys() - known:
        must = f"have nodes and edges, and nothing but {', '.join(sorted(known))}"
        raise DataError(where, must=must, found=f"the keys {listing(value)}")
    if not isinstance(value["nodes"], int | np.integer):
        raise DataError(where, must="have a number of nodes", found=repr(value["nodes"])[:40])
    return make_graph(
        int(value["nodes"]),
        value["edges"],
        nodes=_lists(value, "node_columns", where=where),
        links=_lists(value, "edge_columns", where=where),
        directed=bool(value.get("directed", False)),
        where=where,
    )


def _lists(value: Mapping[str, Any], key: str, *, where: str) -> dict[str, list[Any]]:
    columns = value.get(key) or {}
    if not isinstance(columns, Mapping):
        raise DataError(where, must=f"have {key} by their names", found=f"a {type(columns).__name__}")
    if odd := next((name for name, cells in columns.items() if not isinstance(cells, list | tuple | np.ndarray)), None):
        raise DataError(where, must="have lists as columns", found=f"a {type(columns[odd]).__name__} as '{odd}'")
    return {str(name): list(cells) for name, cells in columns.items()}


def _from_file(record: Record, path: Path) -> Graph:
    if accepts(path.name, suffixes=EDGE_SUFFIXES):
        return read_edge_list(path)
    if accepts(path.name, suffixes=NET_SUFFIXES):
        return read_by_networkx(path)
    value, _ = _contents(path)[int(record.part or 0)]
    return load_graph(replace(record, value=value))


def _parsable(index: Index, *, beside: bool) -> Index:
    """Returns the index without the molecules that cannot be read, and says how many these were.

    ``beside``: labels or predictions of data in memory stand beside it, without keys, and would slide by one.
    """
    good = index.records.take([place for place, record in enumerate(index.records) if _can_be_read(record)])
    gone = len(index.records) - len(good)
    if gone and beside and index.root is None:
        bad = next(record for record in index.records if not _can_be_read(record))
        must = "be 'refuse' for data in memory, where nothing may be left out"
        found = f"'skip' and {counted(gone, 'molecule')} that RDKit does not understand, {_place(bad)} first"
        raise UsageError("input.unparsed", must=must, found=found, do="Take them out of the data and its labels.")
    if not good:
        raise DataError("the data", must="hold a molecule that RDKit understands", found=f"{gone} that it does not")
    note = f"left out {counted(gone, 'molecule')} that RDKit does not understand (input.unparsed=skip)"
    return replace(index, records=good, notes=(*index.notes, *([note] if gone else [])))


def _can_be_read(record: Record) -> bool:
    if not _is_molecule(record.value):
        return True
    try:
        parse_molecule(record.value, where=record.key)
    except DataError:
        return False
    return True


def _with_scaffolds(index: Index) -> Index:
    """Returns the records in groups of one scaffold each, which a split keeps together."""
    if odd := next((record for record in index.records if not _is_molecule(record.value)), None):
        load_graph(odd)  # a damaged file says so itself
        must = "be random for graphs that are no molecules"
        raise UsageError("input.split", must=must, found=f"scaffold, for graph {odd.key}")
    groups = [scaffold(record.value, where=_place(record)) for record in index.records]
    note = f"groups by Bemis-Murcko scaffold: {counted(len(set(groups)), 'scaffold')}"
    return replace(index, records=index.records.replace(groups=groups), notes=(*index.notes, note))
