"""Makes the small files of graphs: tables of SMILES, SD files, GraphML, edge lists, a folder in TU format."""

import gzip
from pathlib import Path

# Chains with an oxygen (a) and rings (b), with a number and three yes-or-no columns with gaps.
MOLECULES = (
    ("CCO", "a", -0.31, "0,1,"),
    ("c1ccccc1", "b", -1.64, "1,0,0"),
    ("CCCCO", "a", -0.02, "0,,1"),
    ("Cc1ccccc1", "b", -2.21, "1,0,0"),
    ("OCC(O)CO", "a", 1.12, "0,1,1"),
    ("Oc1ccccc1", "b", 0.0, ",1,0"),
    ("CC(C)O", "a", 0.43, "0,1,0"),
    ("Clc1ccc(Cl)cc1", "b", -3.27, "1,0,1"),
    ("CO", "a", 1.57, "0,,0"),
    ("c1ccc2ccccc2c1", "b", -3.6, "1,0,1"),
    ("C[N+](C)(C)CCO.[Cl-]", "a", 0.95, "0,1,0"),
    ("N[C@@H](Cc1ccccc1)C(=O)O", "b", -0.92, "0,1,1"),
    ("O", "a", 1.74, "0,1,0"),
)
HEAD = "smiles,label,solubility,toxic,polar,large"

# Ethanol as a V2000 connection table, hydrogens implicit.
ETHANOL = """ethanol
  made by hand

  3  2  0  0  0  0  0  0  0  0999 V2000
    0.0000    0.0000    0.0000 C   0  0
    1.2990    0.7500    0.0000 C   0  0
    2.5981    0.0000    0.0000 O   0  0
  1  2  1  0
  2  3  1  0
M  END
"""
BENZENE = """benzene
  made by hand

  6  6  0  0  0  0  0  0  0  0999 V2000
    1.0000    0.0000    0.0000 C   0  0
    0.5000    0.8660    0.0000 C   0  0
   -0.5000    0.8660    0.0000 C   0  0
   -1.0000    0.0000    0.0000 C   0  0
   -0.5000   -0.8660    0.0000 C   0  0
    0.5000   -0.8660    0.0000 C   0  0
  1  2  2  0
  2  3  1  0
  3  4  2  0
  4  5  1  0
  5  6  2  0
  6  1  1  0
M  END
"""
GRAPHML = """<?xml version="1.0" encoding="utf-8"?>
<graphml xmlns="http://graphml.graphdrawing.org/xmlns">
  <key id="d0" for="node" attr.name="kind" attr.type="string" />
  <key id="d1" for="node" attr.name="load" attr.type="double" />
  <key id="d2" for="edge" attr.name="length" attr.type="double" />
  <graph id="net" edgedefault="{direction}">
    <node id="a"><data key="d0">pump</data><data key="d1">1.5</data></node>
    <node id="b"><data key="d0">tank</data></node>
    <node id="c"><data key="d0">tank</data><data key="d1">0.25</data></node>
    <edge source="a" target="b"><data key="d2">3.5</data></edge>
    <edge source="b" target="c"><data key="d2">0.5</data></edge>
  </graph>
</graphml>
"""


def make(folder: Path) -> None:
    """Writes good and broken files of every format."""
    _make_tables(folder)
    blocks = [f"{ETHANOL}> <logS>\n1.1\n\n$$$$\n", f"{BENZENE}> <logS>\n-1.64\n\n$$$$\n"]
    (folder / "good.sdf").write_text("".join(blocks))
    (folder / "good.mol").write_text(ETHANOL)
    (folder / "broken_truncated.sdf").write_text(blocks[0][: len(ETHANOL) // 2])
    (folder / "broken_empty.sdf").write_text("")
    (folder / "broken_foreign.sdf").write_bytes(b"\x89PNG\r\n\x1a\n\x00\xff")
    (folder / "good.graphml").write_text(GRAPHML.format(direction="undirected"))
    (folder / "good_directed.graphml").write_text(GRAPHML.format(direction="directed"))
    (folder / "broken_truncated.graphml").write_text(GRAPHML[:500])
    (folder / "broken_foreign.graphml").write_text("This is a text file.\n")
    (folder / "broken_no_node.graphml").write_text(GRAPHML.split("    <node")[0] + "  </graph>\n</graphml>\n")
    (folder / "good.edgelist").write_text("# a triangle with a tail\na b 1.0\nb c 2.5\nc a 0.5\nc d 1.0\n")
    (folder / "good_commas.edges").write_text("source,target\n1,2\n2,3\n")
    (folder / "broken_fields.edgelist").write_text("a b 1.0 x y\n")
    (folder / "broken_weight.edgelist").write_text("a b heavy\n")
    (folder / "broken_infinite.edgelist").write_text("a b inf\n")
    (folder / "broken_empty.edgelist").write_text("# nothing\n")
    _make_tu(folder)


def _make_tables(folder: Path) -> None:
    rows = [f"{smiles},{label},{number},{answers}" for smiles, label, number, answers in MOLECULES]
    (folder / "good.csv").write_text("\n".join([HEAD, *rows]) + "\n")
    with (folder / "good_packed.csv.gz").open("wb") as file:
        file.write(gzip.compress("\n".join([HEAD, *rows]).encode(), mtime=0))
    broken = {
        "syntax": "CC(",
        "valence": "C(C)(C)(C)(C)C",
        "ring": "c1cccc",
        "no_cell": "",
    }
    for why, smiles in broken.items():
        (folder / f"broken_{why}.csv").write_text(f"smiles,label\nCCO,a\n{smiles},b\n")
    (folder / "broken_no_smiles.csv").write_text("name,label\nethanol,a\n")


def _make_tu(folder: Path) -> None:
    """Writes a triangle, a path, and one node alone, with labels of nodes, edges and graphs, and attributes."""
    edges = ["1, 2", "2, 1", "2, 3", "3, 2", "3, 1", "1, 3", "4, 5", "5, 4", "5, 6", "6, 5"]
    good = {
        "A": edges,
        "graph_indicator": ["1"] * 3 + ["2"] * 3 + ["3"],
        "graph_labels": ["1", "-1", "1"],
        "graph_attributes": ["0.5", "-1.5", "2.25"],
        "node_labels": list("0110010"),
        "node_attributes": [f"{i / 7:.3f}, {i % 3}" for i in range(7)],
        "edge_labels": ["0", "0", "1", "1", "0", "0", "1", "1", "1", "1"],
    }
    torn = {**good, "A": [*edges[:-2], "3, 4", "4, 3"]}
    short = {**good, "node_labels": good["node_labels"][:-1]}
    for name, files in (("good_tu", good), ("broken_torn_tu", torn), ("broken_short_tu", short)):
        place = folder / name
        place.mkdir(exist_ok=True)
        for what, lines in files.items():
            (place / f"TOY_{what}.txt").write_text("\n".join(lines) + "\n")
