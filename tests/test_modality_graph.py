"""Graph: what becomes of molecules and general graphs on their way to tokens, and which are refused."""

import json
from pathlib import Path

import networkx
import numpy as np
import pandas as pd
import pytest
import torch
from common import FIXTURES, batch_of, run, tiny_pipeline
from matplotlib.figure import Figure

from metatransformer import Regressor
from metatransformer.core.batch import stack_views
from metatransformer.core.errors import DataError, NotFittedError, UsageError
from metatransformer.core.modality import Stem
from metatransformer.core.samples import Record, View
from metatransformer.modalities.graph import (
    FINGERPRINT,
    MODALITY,
    GraphOptions,
    GraphTransform,
    draw,
    features,
    load,
    synthesize,
)
from metatransformer.modalities.graph.graphs import make_graph
from metatransformer.modalities.graph.molecule import parse_molecule

FILES = FIXTURES / "graph"
SMALL = ["head.read=[1]", "data.test_fraction=0.3", "data.val_fraction=0.3", "run.device=cpu"]


def raw(value, key: str = "x") -> View:
    return View(key, load(Record(key, value=value)))


def fitted(*values, **options) -> GraphTransform:
    transform = GraphTransform(GraphOptions(**options), Stem())
    transform.fit([raw(value) for value in values])
    return transform


# --- the transform


def test_nodes_and_edges_are_rows_of_words():
    transform = fitted("CCO", "c1ccccc1", "CCN")
    ready = transform(raw("CO")).inputs
    assert ready["ends"].tolist() == [[0, 0], [1, 1], [0, 1]]  # two atoms, one bond
    assert ready["codes"][:, 0].tolist() == [1, 1, 2]
    assert (ready["codes"][:2, 1:8] > 0).sum() and (ready["codes"][2, 1:8] == 0).all()
    assert ready["numbers"].shape == (3, 1) and np.isnan(ready["numbers"][2, 0])  # an edge has no degree
    strange = transform(raw("CBr")).inputs  # no bromine in training: nothing is looked up
    element = 1 + [column.name for column in transform.words].index("element")
    assert strange["codes"][1, element] == 0 and strange["codes"][0, element] > 0


def test_neighbourhoods_that_several_graphs_have_get_a_token():
    transform = fitted("CCO", "CCN", "c1ccccc1")
    found = transform(raw("CCO")).inputs["environments"]
    assert found[0, 0] == 0 and (found[1:, 0] > 0).all()
    assert found[:, 1].sum() == 6  # three atoms of radius 0 and 1; radius 2 adds no bond that was not seen
    assert not len(fitted("CCO", "c1ccccc1", environments=0).kinds_)
    only = fitted("CCO", "CCN", environments=1)
    assert len(only.kinds_) == 1 and only(raw("CCO")).inputs["environments"].shape == (2, 2)


def test_general_graphs_bring_their_own_columns():
    graphs = [
        make_graph(3, [[0, 1], [1, 2]], nodes={"kind": ["a", "b", "a"], "size": [0.1, 2.5, None]}, where="x"),
        make_graph(2, [[0, 1]], nodes={"kind": ["b", "b"], "size": [1.0, 0.5]}, where="x"),
    ]
    transform = fitted(*graphs)
    ready = transform(raw(graphs[0])).inputs
    assert [column.name for column in transform.numbers] == ["edges at the node", "size"]
    assert np.isnan(ready["numbers"][2, 1]) and ready["numbers"].shape == (5, 2)
    assert not ready["marks"].any()
    with pytest.raises(DataError, match="net: must have the node property 'kind', as in training"):
        transform(raw(make_graph(2, [[0, 1]], where="x"), key="net"))
    with pytest.raises(DataError, match="must be a molecule, as in training; found a general graph"):
        fitted("CCO", "CCN")(raw(graphs[0]))
    with pytest.raises(DataError, match="must be a general graph, as in training; found a molecule"):
        transform(raw("CCO"))


def test_graphs_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="x: must have at most 4 nodes and edges; found 5"):
        fitted("C", "CC", max_tokens=4)(raw("CCO"))
    with pytest.raises(NotFittedError, match="Fit first"):
        GraphTransform(GraphOptions(), Stem())(raw("C"))
    with pytest.raises(UsageError, match="input.size: must be at least 1; found 0"):
        GraphOptions(size=0)


def test_signs_of_eigenvectors_are_flipped_in_training_only():
    transform = fitted("CCO", "CCCCO", identifiers="laplacian")
    ready = transform(raw("CCCCO"))
    other = transform.augment(ready, np.random.default_rng(1))
    before, after = ready.inputs["identifiers"], other.inputs["identifiers"]
    np.testing.assert_array_equal(np.abs(before), np.abs(after))
    assert (before != after).any()
    drawn = fitted("CCO", "CCCCO", identifiers="random")
    ready = drawn(raw("CCCCO"))
    assert not np.array_equal(
        ready.inputs["identifiers"], drawn.augment(ready, np.random.default_rng(1)).inputs["identifiers"]
    )
    walk = fitted("CCO", identifiers="walk")
    ready = walk(raw("CCO"))
    assert walk.augment(ready, np.random.default_rng(1)).inputs["identifiers"] is ready.inputs["identifiers"]


def test_numbers_that_rdkit_cannot_compute_are_gaps():
    transform = fitted("CCO", "CCN", "c1ccccc1")
    ready = transform(raw("[Na+].[Cl-]")).inputs
    assert np.isfinite(ready["whole"]).sum() > 50
    assert np.isfinite(features(transform(raw("[Na+].[Cl-]")))).all()


# --- the model


def outputs(pipeline, *values) -> torch.Tensor:
    batch = batch_of(pipeline, [raw(value) for value in values])
    with torch.no_grad():
        return pipeline.model.eval()(batch, task=pipeline.task_name)


@pytest.mark.parametrize(
    "identifiers, spellings",
    [
        # Symmetric rings too: return chances need no basis.
        ("walk", ("Cc1ccccc1CC(=O)O", "OC(=O)Cc1ccccc1C", "c1ccc(CC(O)=O)c(C)c1")),
        # No double eigenvalue, and no eigenvector that is its own mirror image: a ring of three with a tail.
        ("laplacian", ("C1CC1(O)CCN", "NCCC1(O)CC1", "OC1(CC1)CCN")),
    ],
)
def test_the_numbering_of_atoms_changes_nothing(identifiers: str, spellings: tuple[str, ...]):
    pipeline = tiny_pipeline("graph", {"input.identifiers": identifiers, "head.centres": 0})
    found = outputs(pipeline, *spellings)
    # Float32 sums in another order, through four blocks.
    torch.testing.assert_close(found, found[:1].expand_as(found), atol=2e-5, rtol=2e-4)
    other = outputs(pipeline, "CCC(N)CO")
    assert (other - found[:1]).abs().max() > 1e-4


def test_directions_count_where_they_are_known():
    there, back = ([[0, 1], [1, 2], [0, 2]], [[0, 1], [1, 2], [2, 0]])
    kinds = ((True, there), (True, back), (False, there), (False, back))
    graphs = [make_graph(3, edges, directed=directed, where="x") for directed, edges in kinds]
    # Return chances are the same for the equal corners of a triangle: only eigenvectors tell them apart.
    pipeline = tiny_pipeline("graph", {"input.identifiers": "laplacian"})
    pipeline.transform.fit([raw(graph) for graph in graphs])
    tokenizer = MODALITY.tokenizer(pipeline.recipe.input, pipeline.transform, 32, pipeline.trunk.stem)
    batch = stack_views([pipeline.transform(raw(graph)) for graph in graphs], fields=MODALITY.fields)
    edge = tokenizer(batch.inputs, batch.masks).x[:, 1 + len(pipeline.transform.whole_) + 3 + 2]  # the third edge
    assert not torch.allclose(edge[0], edge[1]) and torch.allclose(edge[2], edge[3])


def test_the_baseline_gets_descriptors_and_counts():
    transform = fitted("CCO", "CCN", "c1ccccc1")
    vector = features(transform(raw("CCO")))
    whole = len(transform.whole_)
    assert vector.shape == (whole + FINGERPRINT,)
    assert np.expm1(vector[whole:]).sum() == pytest.approx(6, abs=1e-4)


@pytest.mark.parametrize("value", ["CC(=O)Oc1ccccc1C(=O)O", "C#N", "O", "[Na+].[Cl-]", "*C"])
def test_molecules_are_drawn(value: str):
    axes = Figure().add_subplot()
    draw(axes, fitted(value)(raw(value)))
    texts = [text.get_text() for text in axes.texts]
    assert all(text != "C" for text in texts) and (len(axes.lines) or texts)


def test_a_formula_shows_hydrogens_charges_and_its_rings_from_inside():
    axes = Figure().add_subplot()
    value = "c1ccccc1C([O-])=O.[NH3+]CO.[Ca+2]"
    ready = fitted(value)(raw(value))
    draw(axes, ready)
    assert sorted(text.get_text() for text in axes.texts) == sorted(
        ["O", "O$^{-}$", "NH$_{3}$$^{+}$", "OH", "Ca$^{2+}$"]
    )
    dotted = np.stack([line.get_xydata().mean(axis=0) for line in axes.lines if line.get_linestyle() == ":"])
    ring = ready.inputs["places"][:6]
    centre = ring.mean(axis=0)
    height = np.linalg.norm((ring + np.roll(ring, -1, axis=0)) / 2 - centre, axis=1).min()  # from centre to a bond
    assert len(dotted) == 6 and (np.linalg.norm(dotted - centre, axis=1) < height).all()


def test_general_graphs_are_drawn():
    axes = Figure().add_subplot()
    net = networkx.karate_club_graph()
    draw(axes, fitted(net)(raw(net)))
    assert len(axes.lines) == net.number_of_edges() + 1


def test_synthetic_molecules_differ_by_class():
    rng = np.random.default_rng(0)
    for label in (0, 1):
        graph = load(Record("x", value=synthesize(rng, label)))["graph"]
        assert bool(graph.whole["NumAromaticRings"]) == bool(label)


# --- from the outside


def test_command_line_learns_a_number(tmp_path: Path, capsys):
    table, out = FILES / "good.csv", tmp_path / "run"
    words = ["--modality", "graph", "--encoder", "test", "--target", "solubility", "--out", out]
    status, result, err = run(["fit", table, *words, *SMALL, "input.split=scaffold"], capsys)
    assert status == 0, err
    assert result["metrics"]["test"].keys() == {"rmse", "mae", "r2"}
    assert "scaffolds" in err and "whole groups together" in err
    status, result, err = run(["predict", out, FILES / "good_tu", "--out", tmp_path / "p.csv"], capsys)
    assert status == 2 and "must be random for graphs that are no molecules" in err
    status, result, err = run(["fit", table, *words, *SMALL, "--overwrite"], capsys)
    assert status == 0 and "no split found" in err, err
    status, result, err = run(["predict", out, FILES / "good.sdf", "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    assert list(pd.read_csv(tmp_path / "p.csv").columns) == ["key", "prediction"]
    status, result, err = run(["predict", out, FILES / "good.graphml", "--out", tmp_path / "p.csv"], capsys)
    assert status == 2 and "must be a molecule, as in training; found a general" in err
    status, result, err = run(["embed", FILES / "good.mol", "--model", out, "--out", tmp_path / "e.parquet"], capsys)
    assert status == 0 and result["rows"] == 1, err


def test_a_reason_that_rdkit_cannot_hand_over_is_left_out(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def parse(text: str) -> None:
        calls.append(text)
        if len(calls) == 2:  # for the reason; its log line is no text
            raise SystemError("returned a result with an exception set")

    monkeypatch.setattr("rdkit.Chem.MolFromSmiles", parse)
    with pytest.raises(DataError, match="must be a molecule that RDKit understands; found the SMILES 'C': no reason"):
        parse_molecule("C", where="row 1")
    assert calls == ["C", "C"]


def test_check_lists_every_molecule_that_is_not_understood(tmp_path: Path, capfd):
    table = tmp_path / "some.csv"
    table.write_text("smiles,y\nCCO,1\nCC(,2\nO,3\nc1cccc,4\n,5\n")
    status, result, err = run(["check", table, "--modality", "graph", "--target", "y"], capfd)
    assert status == 2 and result["bad"] == 3
    assert [problem["key"] for problem in result["problems"]] == ["1", "3", "4"]
    assert "some.csv, row 1: must be a molecule that RDKit understands; found the SMILES 'CC('" in err
    fit = ["fit", table, "--modality", "graph", "--target", "y", "--encoder", "test", "--out", tmp_path / "run"]
    status, result, err = run([*fit, *SMALL], capfd)
    assert status == 2 and "input.unparsed=skip" in err
    status, result, err = run([*fit, *SMALL, "input.unparsed=skip"], capfd)
    assert status == 2 and "must be enough to cut a" in err  # two molecules are left
    table.write_text(table.read_text() + "C,6\nCC,7\nCCC,8\nCCCC,9\nCN,10\n")
    status, result, err = run([*fit, *SMALL, "input.unparsed=skip"], capfd)
    assert status == 0 and "left out 3 molecules" in err, err


def test_general_graphs_are_classified_from_a_tu_folder(tmp_path: Path, capsys):
    rng = np.random.default_rng(0)
    folder = tmp_path / "TOY"
    folder.mkdir()
    lines: dict[str, list[str]] = {"A": [], "graph_indicator": [], "graph_labels": []}
    first = 1
    for number in range(24):
        count = int(rng.integers(5, 8))
        ring = number % 2
        for i in range(count if ring else count - 1):
            a, b = first + i, first + (i + 1) % count
            lines["A"] += [f"{a}, {b}", f"{b}, {a}"]
        lines["graph_indicator"] += [str(number + 1)] * count
        lines["graph_labels"].append(str(ring))
        first += count
    for name, rows in lines.items():
        (folder / f"TOY_{name}.txt").write_text("\n".join(rows) + "\n")
    words = ["--modality", "graph", "--encoder", "test", "--task", "classify", "--out", tmp_path / "run"]
    status, result, err = run(["fit", folder, *words, "head.read=[1]", "run.device=cpu"], capsys)
    assert status == 0, err
    assert result["metrics"]["test"]["accuracy"] == 1.0  # rings have no leaves
    assert "auroc" in result["metrics"]["test"]


def test_regressor_takes_smiles_and_keeps_its_state(tmp_path: Path):
    smiles = ["C" * n + "O" for n in range(1, 14)]
    model = Regressor("graph", encoder="test", recipe={"head.read": [1]})
    model.fit(smiles, [float(len(s)) for s in smiles])
    guess = model.predict(["CCO", "CCCCCCCCCO"])
    model.save(tmp_path / "m")
    state = json.loads((tmp_path / "m" / "model.json").read_text())["inputs"]["graph"]["transform"]
    assert {"nodes", "links", "whole", "kinds"} == state.keys()
    from metatransformer import load as load_model

    np.testing.assert_array_equal(load_model(tmp_path / "m").predict(["CCO", "CCCCCCCCCO"]), guess)
