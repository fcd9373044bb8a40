"""Files of graphs as people have them: packed, in other encodings, every form of edge list, and what only claims."""

import gzip
import time
from pathlib import Path

import networkx
import numpy as np
import pandas as pd
import pytest
from common import FIXTURES
from rdkit import Chem
from test_graph_index import indexed

from metatransformer.core.errors import DataError
from metatransformer.core.samples import Record
from metatransformer.data import limits
from metatransformer.modalities.graph.graphs import MOST, make_graph
from metatransformer.modalities.graph.index import load_graph
from metatransformer.modalities.graph.molecule import read_sdf, read_smiles
from metatransformer.modalities.graph.networks import read_edge_list, read_graphml, read_tu

FILES = FIXTURES / "graph"
BLOCK = (FILES / "good.sdf").read_text().split("M  END")[0] + "M  END\n"


def written(path: Path, text: str, encoding: str = "utf-8") -> Path:
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


# --- SD files


PROPERTIES = [
    ">  <IC50>\n>100\n\n",
    ">  <IC50>  (7)\n><b>\n\n> <next>\n1\n\n",
    "> <a>\n1\n2\n3\n\n",
    "> <a>\nfirst\n \nthird\n\n",
    "> 25 <a b>\n-5.5\n\n> <c>\n\n> <d>\n> 3\n>  <e>\n\n",
    "> <twice>\n1\n\n> <twice>\n2\n\n",
]


@pytest.mark.parametrize("text", PROPERTIES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_properties_are_those_that_rdkit_reads(text: str, end: str, tmp_path: Path):
    path = tmp_path / "a.sdf"
    path.write_bytes(((BLOCK + text + "$$$$\n") * 2).replace("\n", end).encode())
    molecules = Chem.SDMolSupplier(str(path), strictParsing=False)
    expected = [{name: molecule.GetProp(name) for name in molecule.GetPropNames()} for molecule in molecules]
    assert [block.properties for block in read_sdf(path)] == expected


def test_a_property_without_a_name_is_passed_over(tmp_path: Path):
    path = written(tmp_path / "a.sdf", BLOCK + "> DT12\n> 5\n\n> <a>\n1\n\n$$$$\n")
    assert read_sdf(path)[0].properties == {"a": "1"}


@pytest.mark.parametrize("ending", [".sdf", ".sdf.gz", ".sd.gz", ".mol.gz"])
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_sd_files_are_packed_and_in_latin_letters(ending: str, encoding: str, tmp_path: Path):
    text = BLOCK.replace("ethanol", "éthanol") + "> <goût>\nbrûlé\n\n$$$$\n"
    path = written(tmp_path / f"a{ending}", text, encoding)
    (record,) = indexed(path, target="goût", labelled=True).records
    assert record.target == "brûlé" and load_graph(record).count == 3


# --- tables and lists of SMILES


@pytest.mark.parametrize("name", ["#SMILES", "Compound SMILES", " smiles_string", "SMILES "])
def test_columns_of_smiles_are_found_by_that_word(name: str, tmp_path: Path):
    path = tmp_path / "a.csv"
    pd.DataFrame({name: ["CCO", "C"], "y": [1, 2]}).to_csv(path, index=False)
    assert [load_graph(record).count for record in indexed(path, target="y", labelled=True).records] == [3, 1]


@pytest.mark.parametrize("ending", [".smi", ".smi.gz"])
@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("CCO ethanol\nC methane gas\n", ["ethanol", "methane gas"]),
        ("CCO\tethanol\nC\tmethane gas\n", ["ethanol", "methane gas"]),
        ("smiles name\n\nCCO ethanol\nC methane\n", ["ethanol", "methane"]),
        ("#SMILES\tname\tlogS\nCCO\tethanol\t1.5\nC\tmethane\t2\n", ["ethanol", "methane"]),
        ("CCO\nC\n", ["", ""]),
    ],
)
def test_lists_of_smiles_name_their_molecules(ending: str, text: str, names: list[str], tmp_path: Path):
    path = written(tmp_path / f"a{ending}", text)
    assert [properties.get("name", "") for _, properties in read_smiles(path)] == names
    index = indexed(path)
    assert [load_graph(record).count for record in index.records] == [3, 1]
    if "logS" in text:
        assert [record.target for record in indexed(path, target="logS", labelled=True).records] == ["1.5", "2"]
    (tmp_path / "c").mkdir()
    path.rename(tmp_path / "c" / path.name)
    assert [record.target for record in indexed(tmp_path, labelled=True).records] == ["c", "c"]


# --- edge lists


def test_what_networkx_writes_is_read(tmp_path: Path):
    net = networkx.Graph([("a", "b", {"weight": 2.5, "kind": "road"}), ("b", "c", {"weight": 1})])
    path = tmp_path / "a.edgelist"
    networkx.write_edgelist(net, path)
    graph = read_edge_list(path)
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    assert graph.links == {"weight": [2.5, 1.0], "kind": ["road", None]}
    networkx.write_edgelist(networkx.path_graph(5), path)  # 0 1 {}
    assert read_edge_list(path).edges.tolist() == [[0, 1], [1, 2], [2, 3], [3, 4]] and not read_edge_list(path).links
    networkx.write_weighted_edgelist(net, path)
    assert read_edge_list(path).links == {"weight": [2.5, 1.0]}


@pytest.mark.parametrize(
    ("text", "links"),
    [
        ("1 2 0.5 1082040961\n2 3 1 1082040962\n", {"weight": [0.5, 1.0], "time": [1082040961.0, 1082040962.0]}),
        ("source,target,kind,length\n1,2,7,0.5\n2,3,8,1\n", {"kind": [7.0, 8.0], "length": [0.5, 1.0]}),
        ("from;to;time\n1;2;5\n2;3;6\n", {"time": [5.0, 6.0]}),
        ("% sym unweighted\n1 2\n2 3\n", {}),
    ],
)
def test_edges_have_a_weight_and_a_time_or_what_their_header_says(text: str, links: dict, tmp_path: Path):
    graph = read_edge_list(written(tmp_path / "a.edges", text))
    assert graph.edges.tolist() == [[0, 1], [1, 2]] and graph.links == links


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("a b {'w': 1\n", "line 1: must end in a Python dictionary"),
        ("a b {'w': f()}\n", "line 1: must end in a Python dictionary"),
        ("a b {'w': [1]}\n", "must hold words or numbers; found a list"),
        ("a b 1 2 3\n", "line 1: must hold two node names and at most a weight and a time; found 5 fields"),
        ("a b " + "{" * 3000 + "\n", "line 1: must end in a Python dictionary"),
    ],
)
def test_other_edges_are_refused_with_their_line(text: str, match: str, tmp_path: Path):
    with pytest.raises(DataError, match=match):
        read_edge_list(written(tmp_path / "a.edgelist", text))


def test_latin_letters_are_names(tmp_path: Path):
    graph = read_edge_list(written(tmp_path / "a.edgelist", "a café\ncafé b\n", "latin-1"))
    assert graph.edges.tolist() == [[0, 1], [1, 2]]
    with pytest.raises(DataError, match="must be text; found a binary file"):
        read_edge_list(written(tmp_path / "b.edgelist", "a \0 b\n"))


@pytest.mark.parametrize("name", ["good.graphml", "good.edgelist"])
def test_networks_are_packed(name: str, tmp_path: Path):
    path = tmp_path / f"{name}.gz"
    path.write_bytes(gzip.compress((FILES / name).read_bytes()))
    (found,), (plain,) = (indexed(file).records for file in (path, FILES / name))
    assert load_graph(found).edges.tolist() == load_graph(plain).edges.tolist()
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DataError, match=rf"{name}.gz: must be a readable file"):
        load_graph(indexed(path).records[0])


# --- a header is a claim


def test_a_packed_file_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "MOST_BYTES", 1000)
    with pytest.raises(DataError, match="must unpack to at most [0-9,]* bytes"):
        read_edge_list(written(tmp_path / "a.edgelist.gz", "a b\n" * 25_000))
    assert read_edge_list(written(tmp_path / "b.edgelist.gz", "a b\n" * 250)).count == 2


def test_large_networks_cost_as_much_as_they_have_edges(tmp_path: Path):
    pairs = "".join(f"{i} {(i + 1) % 12_000}\n{i} {(i + 2) % 12_000}\n" for i in range(12_000))
    start = time.process_time()
    graph = read_edge_list(written(tmp_path / "ring.edgelist", pairs))
    assert time.process_time() - start < 10  # a matrix of 12,000 x 12,000 takes minutes
    assert (graph.count, graph.whole["triangles"], graph.whole["components"]) == (12_000, 12_000, 1)
    star = make_graph(50_001, [(0, i) for i in range(1, 50_001)], where="x")
    assert (star.whole["triangles"], star.whole["leaves"]) == (0, 50_000 / 50_001)


@pytest.mark.parametrize("seed", range(5))
def test_triangles_agree_with_networkx_whatever_the_edges(seed: int):
    rng = np.random.default_rng(seed)
    edges = rng.integers(0, 13, size=(53, 2))  # loops and parallel edges, too
    graph = make_graph(13, edges, where="x")
    net = networkx.Graph([pair for pair in edges.tolist() if pair[0] != pair[1]])
    net.add_nodes_from(range(13))
    assert graph.whole["triangles"] == sum(networkx.triangles(net).values()) / 3
    assert graph.whole["components"] == networkx.number_connected_components(net)


def test_numbers_of_nodes_are_believed_up_to_a_limit():
    with pytest.raises(DataError, match=f"item 0: must have at most {MOST:,} nodes; found 1,000,000,000,000"):
        load_graph(Record("0", value={"nodes": 10**12, "edges": []}))


def test_a_tu_set_cannot_announce_graphs_that_it_has_not(tmp_path: Path):
    for path in (FILES / "good_tu").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (path,) = tmp_path.glob("*_graph_indicator.txt")
    lines = path.read_text().split()
    path.write_text("\n".join([*lines[:-1], "1000000000000"]))
    with pytest.raises(DataError, match="must number the graphs 1, 2, ... in rising order; found gaps"):
        read_tu(tmp_path)


# --- whatever a library raises


@pytest.mark.parametrize(
    "value",
    [
        {"nodes": "many", "edges": []},
        {"nodes": 2, "edges": [[0, 1]], "node_columns": ["a"]},
        {"nodes": 2, "edges": [[0, 1]], "node_columns": {"a": 5}},
        {"nodes": None, "edges": []},
        {"smiles": "C\ud800"},
        {"block": "\n\n\n  1  1  0  0  0  0            999 V2000\n" + "x" * 70 + "\nM  END\n"},
    ],
)
def test_nothing_in_memory_ends_the_program(value: dict):
    with pytest.raises(DataError, match="item 0"):
        load_graph(Record("0", value=value))


def test_words_of_graphml_may_have_spaces_around_them(tmp_path: Path):
    key = '<key id="a" for="node" attr.name="a" attr.type="boolean"><default> false\n</default></key>'
    nodes = '<node id="x"><data key="a">  true </data></node><node id="y"/>'
    text = f'<graphml xmlns="http://graphml.graphdrawing.org/xmlns">{key}<graph edgedefault="undirected">{nodes}'
    ((graph, _),) = read_graphml(written(tmp_path / "a.graphml", f"{text}</graph></graphml>"))
    assert list(graph.nodes["a"]) == ["yes", None]
    with pytest.raises(DataError, match="whole GraphML"):
        read_graphml(written(tmp_path / "a.graphml", f"{text}</graph></graphml>".replace(" true ", "perhaps")))


def test_entities_of_graphml_do_not_swell(tmp_path: Path):
    lol = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10 if i else "lol"}">' for i in range(12))
    text = f'<?xml version="1.0"?><!DOCTYPE graphml [{lol}]><graphml><graph><node id="&l11;"/></graph></graphml>'
    with pytest.raises(DataError, match="a.graphml: must be whole GraphML"):
        read_graphml(written(tmp_path / "a.graphml", text))


def test_smi_loses_no_field(tmp_path: Path) -> None:
    """Without a header all behind the SMILES is the name; with one, a field that it does not name is refused."""
    bare = tmp_path / "bare.smi"
    bare.write_text("CCO\tethanol\t0.5\nCC methyl methane\n")
    assert [own["name"] for _, own in read_smiles(bare)] == ["ethanol\t0.5", "methyl methane"]
    named = tmp_path / "named.smi"
    named.write_text("smiles\tname\nCCO\tethanol\t\nCC\tethane\t0.5\n")
    with pytest.raises(DataError, match="line 3.*at most 2 fields"):
        read_smiles(named)


# --- further formats and names


def test_formats_of_networkx(tmp_path: Path):
    net = networkx.Graph(name="roads")
    net.add_edges_from([("a", "b"), ("b", "c")], kind="road", length=2.5)
    networkx.set_node_attributes(net, {"a": "north", "b": "south", "c": "south"}, "side")
    net.add_node("d", side="alone", graphics={"x": 1.0})
    for name in ("a.gml", "a.gml.gz"):
        networkx.write_gml(net, tmp_path / name)
        (record,) = indexed(tmp_path / name).records
        graph = load_graph(record)
        assert (graph.count, graph.edges.tolist()) == (4, [[0, 1], [1, 2]])
        assert graph.links == {"kind": ["road", "road"], "length": [2.5, 2.5]}
        assert list(graph.nodes["side"]) == ["north", "south", "south", "alone"] and "graphics" not in graph.nodes
    text = '*Vertices 3\n1 "a" 0.1 0.2\n2 "b c" 0.3 0.4\n3 "d" 0.5 0.6\n*Edges\n1 2 1.5\n2 3 2\n'
    graph = load_graph(indexed(written(tmp_path / "a.net", text)).records[0])
    assert sorted(graph.edges.tolist()) == [[0, 1], [1, 2]] and not graph.directed
    assert sorted(float(weight) for weight in graph.links["weight"]) == [1.5, 2]
    for name, content in (("b.gml", "graph [ node [ id 1 "), ("b.net", "*Vertices x\n"), ("c.gml", "nonsense")):
        with pytest.raises(DataError, match=f"{name}: must"):
            load_graph(indexed(written(tmp_path / name, content)).records[0])


@pytest.mark.parametrize("ending", [".smiles", ".ism", ".can.gz"])
def test_other_endings_of_lists_of_smiles(ending: str, tmp_path: Path):
    records = indexed(written(tmp_path / f"a{ending}", "CCO ethanol\nC methane\n")).records
    assert [load_graph(record).count for record in records] == [3, 1]


def test_lines_of_old_macintoshes_end_in_a_carriage_return(tmp_path: Path):
    (tmp_path / "a.sdf").write_bytes((BLOCK + "> <a>\n1\n\n$$$$\n").replace("\n", "\r").encode())
    (block,) = read_sdf(tmp_path / "a.sdf")
    assert block.properties == {"a": "1"} and load_graph(Record("0", value={"block": block.text})).count == 3


def test_one_bad_file_does_not_hide_the_others(tmp_path: Path):
    contents = {"a.sdf": BLOCK, "b.sdf": "\0\0", "c.smi": "", "d.graphml": "<graphml>", "e.smi": "C\n"}
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    bad, good = [], []
    for record in indexed(tmp_path).records:
        try:
            good.append(load_graph(record).count)
        except DataError as error:
            bad.append(str(error))
    assert good == [3, 1]
    assert [name for name in contents if any(f"/{name}: must" in message for message in bad)] == [*contents][1:4]


def test_long_labels_stay_different(tmp_path: Path):
    for path in (FILES / "good_tu").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (path,) = tmp_path.glob("*_graph_labels.txt")
    count = len(path.read_text().split())
    path.write_text("\n".join(str(10_000_000 + i) for i in range(count)))
    assert read_tu(tmp_path).labels == tuple(str(10_000_000 + i) for i in range(count))
