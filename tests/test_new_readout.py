"""Readouts of somebody else's package: one module and one entry point each, and everything works with them."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import CLI_IMAGE, CLI_SETTINGS, Run, assert_one_message, make_values, settings_of, tiny_pipeline

import metatransformer as mt
from metatransformer.infer.embed import embedding
from metatransformer.modalities import get_modality
from metatransformer.readouts import READOUTS
from metatransformer.saved import load_pipeline

BORDERS = '''"""The first and the last real token of each block."""

import torch

from metatransformer.core.readout import Readout


class Borders(Readout):
    name = "borders"

    @property
    def features(self):
        return 2 * self.facts.width * len(self.blocks) + self.direct

    def forward(self, layers):
        found = []
        for tokens in layers:
            assert tokens.samples is None, "one row a sample"
            last = tokens.mask.long().cumsum(dim=1).argmax(dim=1)
            found += [tokens.x[:, 0], tokens.x[torch.arange(len(last)), last]]
        direct = layers[0].direct
        return torch.cat(found if direct is None else [*found, direct], dim=1).float()


READOUT = Borders
'''
QUERY = '''"""What one learned query attends to in the last block."""

import torch

from metatransformer.core.readout import Readout


class Query(Readout):
    name = "query"
    fixed = False

    def __init__(self, facts):
        super().__init__(facts)
        self.query = torch.nn.Parameter(torch.randn(facts.width) / facts.width**0.5)

    @property
    def features(self):
        return self.facts.width + self.direct

    def forward(self, layers):
        tokens = layers[-1]
        assert tokens.samples is None, "one row a sample"
        share = (tokens.x.float() @ self.query).masked_fill(~tokens.mask, -torch.inf).softmax(dim=1)
        found = torch.einsum("bn,bnd->bd", share, tokens.x.float())
        return found if tokens.direct is None else torch.cat([found, tokens.direct.float()], dim=1)


READOUT = Query
'''


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Installs a package with two readouts in a folder of its own."""
    about = tmp_path / "site" / "their_readouts-1.0.dist-info"
    about.mkdir(parents=True)
    (about.parent / "their_borders.py").write_text(BORDERS, encoding="utf-8")
    (about.parent / "their_query.py").write_text(QUERY, encoding="utf-8")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: their-readouts\nVersion: 1.0\n", encoding="utf-8")
    announced = "[metatransformer.readouts]\nborders = their_borders\nquery = their_query\n"
    (about / "entry_points.txt").write_text(announced, encoding="utf-8")
    monkeypatch.syspath_prepend(str(about.parent))
    importlib.invalidate_caches()
    yield
    for name in ("their_borders", "their_query"):
        sys.modules.pop(name, None)


PLAIN = "input.mirrored=false"


@pytest.mark.parametrize(
    ("readout", "tune"), [("borders", "head"), ("borders", "ends"), ("query", "ends"), ("query", "lora")]
)
def test_the_command_line_fits_scores_and_predicts_with_it(
    pictures: Path, tmp_path: Path, call: Run, readout: str, tune: str
):
    out, epochs = tmp_path / "run", [] if tune == "head" else ["--epochs", 2]
    words = ["fit", pictures, *CLI_IMAGE, "--tune", tune, *epochs, "--out", out, *CLI_SETTINGS]
    status, result, err = call([*words, f"head.readout={readout}", PLAIN])
    assert status == 0, err
    pipeline = load_pipeline(out / "model")
    assert pipeline.head.readout.name == readout and pipeline.head.solved == (readout == "borders")
    status, scored, err = call(["evaluate", out, pictures])
    assert status == 0 and 0 <= scored["metrics"]["accuracy"] <= 1, err
    status, _, err = call(["predict", out, pictures / "a", "--out", tmp_path / "p.csv"])
    assert status == 0, err
    assert pd.read_csv(tmp_path / "p.csv").prediction.isin(["a", "b"]).all()
    status, embedded, err = call(["embed", pictures, "--model", out, "--out", tmp_path / "v.parquet"])
    assert status == 0 and embedded["width"] == pipeline.head.readout.features, err


@pytest.mark.parametrize(("readout", "tune"), [("borders", "head"), ("query", "ends")])
def test_an_estimator_learns_saves_and_loads_it(tmp_path: Path, readout: str, tune: str):
    values, labels = make_values(get_modality("tabular"), 40)
    settings = settings_of("tabular", {"head.readout": readout, "optim.lr": 1e-2})
    epochs = {} if tune == "head" else {"epochs": 10}
    model = mt.Classifier("tabular", encoder="test", tune=tune, precision="float32", recipe=settings, **epochs)
    model.fit(values, labels)
    assert model.score(values, labels) >= 0.8
    model.save(tmp_path / "model")
    again = mt.load(tmp_path / "model")
    np.testing.assert_array_equal(again.predict_proba(values), model.predict_proba(values))
    np.testing.assert_array_equal(again.transform(values), model.transform(values))


def test_its_parameters_learn_and_are_part_of_what_a_vector_is():
    pipeline = tiny_pipeline("tabular", {"tune": "ends", "head.readout": "query"})
    model = embedding(pipeline, pool="features")
    before = model.identity()
    (query,) = pipeline.head.readout.parameters()
    assert query.requires_grad and pipeline.model.parameter_counts()["head"]["trainable"] > query.numel()
    with torch.no_grad():
        query.add_(1)
    assert model.identity() != before


def test_one_with_parameters_is_refused_where_heads_are_solved(pictures: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", tmp_path / "run", *CLI_SETTINGS]
    status, _, err = call([*words, "head.readout=query"])
    assert status == 2 and not (tmp_path / "run").exists()
    assert_one_message(err, "head.readout: must have no parameters of its own in tune mode 'head'.*'query'.*tune=ends")


def test_an_unknown_one_is_named(pictures: Path, tmp_path: Path, call: Run):
    words = ["fit", pictures, *CLI_IMAGE, "--tune", "head", "--out", tmp_path / "run", *CLI_SETTINGS]
    status, _, err = call([*words, "head.readout=qwery"])
    assert status == 2 and READOUTS.names() == ["borders", "dense", "pooled", "query"]
    assert_one_message(err, r"readout: must be a known one; found 'qwery'. Did you mean 'query'\?")
