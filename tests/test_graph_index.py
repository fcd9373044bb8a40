"""Graphs and molecules as they are read: what becomes a column, what is refused, and in which words."""

import os
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import networkx
import numpy as np
import pandas as pd
import pytest
from common import FIXTURES

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Record
from metatransformer.data.split import split_records
from metatransformer.modalities.graph.graphs import Graph, make_graph, neighbourhoods, shape_numbers
from metatransformer.modalities.graph.index import index_graphs, load_graph
from metatransformer.modalities.graph.molecule import parse_molecule, read_molecule, read_sdf, scaffold
from metatransformer.modalities.graph.networks import read_edge_list, read_graphml, read_tu
from metatransformer.modalities.graph.properties import PropertyCells, as_word, node_columns, standardised

FILES = FIXTURES / "graph"
OPTIONS = SimpleNamespace(column="auto", unparsed="refuse", split="random")


def kinds_of(graph: Graph) -> dict[int, int]:
    return dict(Counter(neighbourhoods(graph)[:, 0].tolist()))


def indexed(data, *, target="", labelled=False, **options):
    chosen = SimpleNamespace(**{**vars(OPTIONS), **options})
    return index_graphs(data, target=target, labelled=labelled, header=True, options=chosen)


# --- molecules --------------------------------------------------------------------------------------------------------


def test_a_molecule_is_a_graph_of_atoms_and_bonds():
    graph = read_molecule("C[C@H](N)C(=O)[O-]", where="x")
    assert graph.count == 6 and graph.edges.tolist() == [[0, 1], [1, 2], [1, 3], [3, 4], [3, 5]]
    assert graph.nodes["element"] == ["C", "C", "N", "C", "O", "O"]
    assert graph.nodes["charge"] == ["+0"] * 5 + ["-1"]
    assert graph.nodes["hydrogens"] == ["3", "1", "2", "0", "0", "0"]
    assert graph.nodes["chirality"].count("CHI_UNSPECIFIED") == 5
    assert graph.links["bond"] == ["SINGLE", "SINGLE", "SINGLE", "DOUBLE", "SINGLE"]
    assert graph.whole["charge"] == -1 and graph.whole["fragments"] == 1
    assert graph.whole["MolWt"] == pytest.approx(88.086, abs=0.01)  # 3 C, 6 H, N, 2 O
    assert [mark[0] for mark in graph.marks] == [6, 6, 7, 6, 8, 8, 10, 10, 10, 20, 10]
    assert [mark[1:] for mark in graph.marks[:6]] == [(3, 0), (1, 0), (2, 0), (0, 0), (0, 0), (0, -1)]
    assert graph.places.shape == (6, 2)


def test_rings_salts_single_atoms_and_isotopes():
    ring = read_molecule("c1ccccc1", where="x")
    assert ring.nodes["ring"] == ["6"] * 6 and set(ring.links["bond"]) == {"AROMATIC"}
    assert sum(ring.environments.values()) == 18  # radius 0, 1 and 2 around each of six equal atoms
    assert len(ring.environments) == 3
    salt = read_molecule("[Na+].[Cl-]", where="x")
    assert salt.count == 2 and len(salt.edges) == 0 and salt.whole["fragments"] == 2
    assert read_molecule("O", where="x").count == 1


@pytest.mark.parametrize(
    "smiles, reason",
    [
        ("CC(", "found the SMILES 'CC(': syntax error while parsing: CC(; check"),
        ("c1ccc1c", "found the SMILES 'c1ccc1c': non-ring atom 4 marked aromatic. Correct"),
        ("C(C)(C)(C)(C)C", "Explicit valence for atom # 0 C, 5, is greater than permitted"),
        ("c1cccc", "unclosed ring"),
        ("c1cccc1", "kekulize"),
        ("", "an empty cell"),
        ("  ", "an empty cell"),
    ],
)
def test_what_is_no_molecule_is_refused_with_the_reason(smiles: str, reason: str, capfd):
    with pytest.raises(DataError) as caught:
        parse_molecule(smiles, where="row 7")
    text = str(caught.value)
    assert text.startswith("row 7: must ") and reason.lower() in text.lower(), text
    if smiles.strip():
        assert repr(smiles) in text
    assert "input.unparsed=skip" in text
    assert capfd.readouterr().err == ""  # RDKit keeps quiet


def test_scaffolds_are_what_rings_share():
    assert scaffold("Cc1ccccc1", where="x") == scaffold("OC(=O)c1ccccc1Cl", where="x") == "c1ccccc1"
    assert scaffold("CCO", where="x") == "CCO"  # no ring: for itself


def test_sd_files_hold_several_molecules_with_properties(tmp_path: Path):
    blocks = read_sdf(FILES / "good.sdf")
    assert [block.name for block in blocks] == ["ethanol", "benzene"]
    assert [block.properties for block in blocks] == [{"logS": "1.1"}, {"logS": "-1.64"}]
    graph = read_molecule({"block": blocks[1].text}, where="x")
    assert graph.count == 6 and graph.title == "c1ccccc1"
    windows = tmp_path / "w.sdf"
    windows.write_bytes((FILES / "good.sdf").read_bytes().replace(b"\n", b"\r\n"))
    assert [block.properties for block in read_sdf(windows)] == [block.properties for block in blocks]


# --- general graphs ---------------------------------------------------------------------------------------------------


def test_neighbourhoods_do_not_depend_on_the_numbering():
    rng = np.random.default_rng(0)
    edges = np.array([[0, 1], [1, 2], [2, 0], [2, 3], [3, 4]])
    kinds, ties = list("aabab"), list("xyxyx")
    graph = make_graph(5, edges, nodes={"kind": kinds}, links={"tie": ties}, where="x")
    order = rng.permutation(5)
    other = make_graph(
        5,
        order[edges][::-1],
        nodes={"kind": [kinds[i] for i in np.argsort(order)]},
        links={"tie": ties[::-1]},
        where="x",
    )
    assert kinds_of(graph) == kinds_of(other) == graph.environments
    assert sum(graph.environments.values()) == 15  # each node's kind of 0, 1 and 2 steps
    changed = make_graph(5, edges, nodes={"kind": list("aabaa")}, links={"tie": ties}, where="x")
    assert kinds_of(changed) != graph.environments
    away = make_graph(2, [[0, 1]], directed=True, where="x")
    assert kinds_of(away) != kinds_of(make_graph(2, [[0, 1]], where="x"))


def test_shape_numbers_agree_with_networkx():
    net = networkx.gnm_random_graph(17, 29, seed=3)
    found = shape_numbers(make_graph(17, list(net.edges), where="x"))
    assert found["triangles"] == sum(networkx.triangles(net).values()) / 3
    assert found["components"] == networkx.number_connected_components(net)
    assert found["cycles"] == len(networkx.cycle_basis(net))
    assert found["largest degree"] == max(dict(net.degree).values())


@pytest.mark.parametrize(
    "arguments, match",
    [
        ({"count": 0, "edges": []}, "x: must have at least one node"),
        ({"count": 2, "edges": [[0, 2]]}, "must join nodes numbered 0 to 1; found the edge 0 - 2"),
        ({"count": 2, "edges": [[0, 0.5]]}, "found the edge 0 - 0.5"),
        ({"count": 2, "edges": [[0, 1, 1]]}, "pairs of node numbers"),
        ({"count": 2, "edges": [["a", "b"]]}, "pairs of node numbers"),
        ({"count": 2, "edges": [[0, 1]], "nodes": {"w": [1.0]}}, "node property 'w': must have 2 entries; found 1"),
        ({"count": 1, "edges": [], "nodes": {"w": [np.inf]}}, "must hold finite numbers; found inf"),
        ({"count": 1, "edges": [], "nodes": {"w": [[1]]}}, "must hold words or numbers; found a list"),
    ],
)
def test_broken_graphs_are_refused(arguments, match: str):
    with pytest.raises(DataError, match=match):
        make_graph(arguments["count"], arguments["edges"], nodes=arguments.get("nodes"), where="x")


def test_a_large_molecule_is_read_without_a_drawing():
    graph = read_molecule("C" * 992, where="x")
    assert graph.count == 992 and graph.places is None


def test_graphml_keeps_attributes_and_directions(tmp_path: Path):
    ((graph, own),) = read_graphml(FILES / "good.graphml")
    assert graph.nodes == {"kind": ["pump", "tank", "tank"], "load": [1.5, None, 0.25]}
    assert graph.links == {"length": [3.5, 0.5]} and not graph.directed
    assert read_graphml(FILES / "good_directed.graphml")[0][0].directed
    net = networkx.path_graph(5, create_using=networkx.MultiGraph)
    net.graph["score"] = 2.5
    networkx.write_graphml(net, tmp_path / "path.graphml")
    ((again, own),) = read_graphml(tmp_path / "path.graphml")
    assert again.count == 5 and len(again.edges) == 4 and own["score"] == 2.5


def test_edge_lists_name_their_nodes():
    graph = read_edge_list(FILES / "good.edgelist")
    assert graph.count == 4 and graph.edges.tolist() == [[0, 1], [1, 2], [2, 0], [2, 3]]
    assert graph.links == {"weight": [1.0, 2.5, 0.5, 1.0]}
    assert read_edge_list(FILES / "good_commas.edges").edges.tolist() == [[0, 1], [1, 2]]


def test_tu_folders_hold_many_graphs():
    found = read_tu(FILES / "good_tu")
    assert [graph.count for graph in found.graphs] == [3, 3, 1]
    assert [len(graph.edges) for graph in found.graphs] == [3, 2, 0]  # each edge stood there twice
    assert found.labels == ("1", "-1", "1") and found.values == ((0.5,), (-1.5,), (2.25,))
    assert found.graphs[1].nodes["label 1"] == ["0", "0", "1"]
    assert found.graphs[1].nodes["attribute 2"] == [0.0, 1.0, 2.0]
    assert found.graphs[0].links["label 1"] == ["0", "1", "0"]


# --- columns ----------------------------------------------------------------------------------------------------------


def test_columns_are_words_or_numbers():
    cells = PropertyCells()
    first = make_graph(2, [[0, 1]], nodes={"label": [1, 2], "text": ["a", None], "size": [0.5, None]}, where="x")
    cells.add(node_columns(first))
    cells.add({"label": [3.0], "text": ["b"], "size": [2.5], "never": [None]})
    found = {column.name: column for column in cells.learn(spread=lambda values: [0.0, 1.0])}
    assert found["label"].words == ("1", "2", "3") and found["text"].words == ("a", "b")
    assert (found["size"].mean, found["size"].scale) == (1.5, 1.0)
    assert "never" not in found and found["edges at the node"].kind == "number"
    values = standardised([2.5, None], found["size"], where="x")
    assert values[0] == 1.0 and np.isnan(values[1])
    with pytest.raises(DataError, match="x: must hold numbers, as in training; found 'big'"):
        standardised(["big"], found["size"], where="x")
    assert as_word(2.0) == "2" and as_word(None) == ""


# --- the index --------------------------------------------------------------------------------------------------------


def test_tables_of_molecules():
    index = indexed(FILES / "good.csv", target="solubility", labelled=True)
    assert len(index.records) == 13 and index.records[0].value == {"smiles": "CCO"}
    assert index.records[0].target == -0.31
    packed = indexed(FILES / "good_packed.csv.gz", target="toxic,polar", labelled=True)
    assert packed.records[5].target == (None, 1)
    frame = pd.DataFrame({"mol": ["C"], "SMILES": ["CC"]})
    with pytest.raises(DataError, match="must have one column of SMILES.*input.column=NAME"):
        indexed(frame)
    assert indexed(frame, column="mol").records[0].value == {"smiles": "C"}
    with pytest.raises(DataError, match="must have a column 'molecul'; found none. Did you mean 'mol'"):
        indexed(frame, column="molecul")
    with pytest.raises(UsageError, match="--target"):
        indexed(FILES / "good.csv", labelled=True)


def test_split_tables_and_sd_properties(tmp_path: Path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text("smiles,y\nC,1\nCC,2\n")
    index = indexed(tmp_path, target="y", labelled=True)
    assert [record.split for record in index.records] == ["train", "train", "test", "test"]
    index = indexed(FILES / "good.sdf", target="logS", labelled=True)
    assert [record.target for record in index.records] == ["1.1", "-1.64"]
    assert load_graph(index.records[1]).count == 6
    assert [record.target for record in indexed(FILES / "good.sdf", target="logS,mass").records][0] == ("1.1", None)
    with pytest.raises(UsageError, match="It has logS"):
        indexed(FILES / "good.sdf", labelled=True)
    with pytest.raises(DataError, match="good.sdf, graph 0: must have the property 'mass'; found logS"):
        indexed(FILES / "good.sdf", target="mass", labelled=True)


def test_folders_of_classes_and_manifests(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.edgelist").write_text("1 2\n")
        (tmp_path / name / "2.sdf").write_bytes((FILES / "good.sdf").read_bytes())
    index = indexed(tmp_path, labelled=True)
    assert [record.key for record in index.records][:3] == ["a/1.edgelist", "a/2.sdf:0", "a/2.sdf:1"]
    assert [record.target for record in index.records] == list("aaabbb")
    assert [load_graph(record).count for record in index.records][:3] == [2, 3, 6]
    (tmp_path / "list.csv").write_text("path,label\na/1.edgelist,0.5\n")
    assert float(indexed(tmp_path / "list.csv", labelled=True).records[0].target) == 0.5


def test_tu_targets():
    assert [r.target for r in indexed(FILES / "good_tu", labelled=True).records] == ["1", "-1", "1"]
    assert [r.target for r in indexed(FILES / "good_tu", target="attribute").records] == [0.5, -1.5, 2.25]
    with pytest.raises(DataError, match="must have the graph attribute 2"):
        indexed(FILES / "good_tu", target="attribute 2")
    with pytest.raises(UsageError, match="must be 'label' or 'attribute N'"):
        indexed(FILES / "good_tu", target="size")


def test_lists_in_memory():
    net = networkx.cycle_graph(5)
    items = ["CCO", net, make_graph(3, [[0, 1]], where="x"), {"nodes": 2, "edges": [[0, 1]]}]
    graphs = [load_graph(record) for record in indexed(items).records]
    assert [graph.count for graph in graphs] == [3, 5, 3, 2] and all(isinstance(g, Graph) for g in graphs)
    paths = [FILES / "good.edgelist", str(FILES / "good.sdf")]
    assert [record.key for record in indexed(paths).records] == ["good.edgelist", "good.sdf:0", "good.sdf:1"]
    assert len(indexed(pd.Series(["C", "CC"])).records) == 2
    with pytest.raises(DataError, match="at least one item"):
        indexed([])
    with pytest.raises(DataError, match="item 0: must be a SMILES, a Graph"):
        load_graph(indexed([7]).records[0])
    with pytest.raises(DataError, match="item 0: must have nodes and edges.*found the keys nodes, weights"):
        load_graph(Record("0", value={"nodes": 1, "weights": []}))
    with pytest.raises(DataError, match="must exist"):
        indexed(Path("nowhere") / "x.sdf")


def test_molecules_that_are_not_understood_are_skipped_only_when_asked():
    frame = pd.DataFrame({"smiles": ["CCO", "CC(", None, "O"], "y": [1, 2, 3, 4]})
    index = indexed(frame, target="y", labelled=True)
    assert len(index.records) == 4
    with pytest.raises(DataError, match="'CC\\('"):
        load_graph(index.records[1])
    index = indexed(frame, target="y", labelled=True, unparsed="skip")
    assert [record.key for record in index.records] == ["0", "3"]
    assert "left out 2 molecules that RDKit does not understand (input.unparsed=skip)" in index.notes
    with pytest.raises(DataError, match="must hold a molecule that RDKit understands; found 1"):
        indexed(pd.DataFrame({"smiles": ["CC("], "y": [1]}), target="y", labelled=True, unparsed="skip")
    # Labels and predictions of a list have no keys: one molecule less, and each would stand beside another.
    with pytest.raises(UsageError, match="input.unparsed: must be 'refuse' for data in memory.*1 mol.*item 1 first"):
        indexed(["CCO", "CC(", "O"], unparsed="skip")
    assert len(indexed(["CCO", "O"], unparsed="skip").records) == 2


def test_a_table_among_files_is_refused_with_the_way_out(tmp_path: Path):
    (tmp_path / "a.csv").write_text("smiles\nC\n")
    with pytest.raises(
        DataError, match=r"must be files of graphs, or one table; found the table .*a.csv among 2 files"
    ):
        indexed([str(tmp_path / "a.csv"), str(FILES / "good.sdf")])


def test_a_tu_set_numbers_in_whole_numbers_and_says_what_its_labels_are(tmp_path: Path):
    for path in (FILES / "good_tu").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert "of the labels -1, 1 (classes: --task classify)" in indexed(tmp_path, labelled=True).notes[0]
    (path,) = tmp_path.glob("*_graph_indicator.txt")
    rest = path.read_text().split("\n", 1)[1]
    for text, found in (("1.5", "1.5"), ("1e30", r"1e\+30")):
        path.write_text(f"{text}\n{rest}")
        with pytest.raises(DataError, match=f"_graph_indicator.txt, row 1: must hold whole numbers; found {found}"):
            indexed(tmp_path)


def test_scaffold_split_keeps_scaffolds_together():
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "c1ccsc1", "c1ccoc1", "C1CCNCC1", "C1CCOC1"]
    smiles = [f"{'C' * n}{ring}" for ring in rings for n in range(1, 6)]
    index = indexed(smiles, split="scaffold")
    assert "groups by Bemis-Murcko scaffold: 7 scaffolds" in index.notes
    done = split_records(index.records, seed=1, stratify=False)
    places = {(record.group, record.split) for record in done.records}
    assert len(places) == 7 and {split for _, split in places} == {"train", "val", "test"}
    with pytest.raises(UsageError, match="input.split: must be random for graphs that are no molecules"):
        indexed(FILES / "good_tu", split="scaffold")


@pytest.mark.parametrize("name", ["good.sdf", "good.graphml", "good.edgelist", "good.csv"])
def test_damaged_bytes_give_clear_errors(name: str, tmp_path: Path):
    data, rng = (FILES / name).read_bytes(), np.random.default_rng(0)
    for number in range(23):
        path = tmp_path / f"{number}{os.path.splitext(name)[1]}"
        if number < 11:
            path.write_bytes(data[: int(rng.integers(0, len(data)))])
        else:
            broken = bytearray(data)
            for place in rng.integers(0, len(data), size=5):
                broken[place] = int(rng.integers(0, 256))
            path.write_bytes(bytes(broken))
        try:
            for record in indexed(path).records:
                load_graph(record)
        except DataError as error:
            assert path.name in str(error)
