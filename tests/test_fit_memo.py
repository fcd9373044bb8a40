"""A memo changes how often something is computed and never what."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from common import loader_of, make_records, tiny_pipeline, tiny_recipe
from PIL import Image

import metatransformer as mt
from metatransformer.fit import memo as memo_module
from metatransformer.fit import store as store_module
from metatransformer.fit.fit import fit
from metatransformer.fit.memo import Memo
from metatransformer.fit.store import FeatureStore
from metatransformer.infer.evaluate import Features
from metatransformer.infer.joined import read_dataset
from metatransformer.infer.sources import split_dataset
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality

QUIET = Console(quiet=True)


@pytest.fixture
def computed(monkeypatch) -> list[int]:
    """Returns the list that gets the number of samples of every pass through a model."""
    passes: list[int] = []
    real = memo_module.compute_features

    def counting(pipeline, loader, *, console, title):
        passes.append(len(loader))
        return real(pipeline, loader, console=console, title=title)

    monkeypatch.setattr(memo_module, "compute_features", counting)
    return passes


def swapped(records):
    """Returns the records with the splits train and test exchanged, as another fold has them."""
    other = {"train": "test", "test": "train", "val": "val"}
    return [dataclasses.replace(record, split=other[record.split]) for record in records]


def test_another_fold_computes_nothing_again_and_scores_the_same(computed):
    modality = get_modality("image")
    recipe = tiny_recipe(modality, {"tune": "head", "input.size": 16})
    records = make_records(modality, train=11, val=5, test=7)
    memo = Memo(most_mb=10)
    fit(records, recipe, memo=memo, console=QUIET)
    assert sum(computed) == 23
    again = fit(swapped(records), recipe, memo=memo, console=QUIET)
    assert sum(computed) == 23
    alone = fit(swapped(records), recipe, console=QUIET)
    torch.testing.assert_close(again.outputs["test"], alone.outputs["test"], atol=1e-4, rtol=1e-4)  # other batches


def test_another_trunk_pool_or_transform_finds_nothing(computed):
    modality = get_modality("image")
    records = make_records(modality, train=11, val=5)
    memo = Memo(most_mb=10)
    base = {"tune": "head", "input.size": 16, "head.pool": "mean"}
    changes = ({}, {"encoder": "random:3:test"}, {"head.pool": "summary"}, {"input.size": 32}, {"head.read": [1]})
    for number, change in enumerate(changes, start=1):
        fit(records, tiny_recipe(modality, base | change), memo=memo, console=QUIET)
        assert sum(computed) == 16 * number, change
    fit(records, tiny_recipe(modality, base | {"optim.l2": [0.1], "run.seed": 3}), memo=memo, console=QUIET)
    assert sum(computed) == 16 * len(changes), "the penalty and the seed change no feature of a native tokenizer"


@pytest.mark.parametrize("part", ["tokenizers", "adapters"])
def test_features_are_of_the_parameters_that_they_came_through(computed, part: str):
    pipeline = tiny_pipeline("image", {"tune": "lora", "input.size": 16})
    loader, memo = loader_of(pipeline, make_records(pipeline.modality, train=5)), Memo(most_mb=0)

    def features() -> torch.Tensor:
        return memo.features(pipeline, loader, console=QUIET, title="features").trunk

    before = features()
    assert torch.equal(before, features()) and sum(computed) == 5
    with torch.no_grad():
        for parameter in getattr(pipeline.model, part).parameters():
            parameter.add_(0.1)
    assert not torch.allclose(before, features()) and sum(computed) == 10


def test_only_the_last_models_are_kept(computed, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memo_module, "MODELS", 2)
    modality, memo = get_modality("image"), Memo(most_mb=10)
    records = make_records(modality, train=11, val=5, test=7)
    base = tiny_recipe(modality, {"tune": "head", "input.size": 16})
    for seed in (1, 2, 3, 2, 1):
        fit(records, dataclasses.replace(base, encoder=f"random:{seed}:test"), memo=memo, console=QUIET)
    assert len(memo._features) == 2 and sum(computed) == 4 * 23  # the first one was dropped


def test_samples_beyond_the_limit_are_read_again():
    modality = get_modality("image")
    recipe = tiny_recipe(modality, {"tune": "head", "input.size": 16})
    records = make_records(modality, train=11, val=5)
    memo = Memo(most_mb=0)
    fitted = fit(records, recipe, memo=memo, console=QUIET)
    reader = fitted.loaders["val"].route["image"]
    assert reader.view(records[-1]) is not reader.view(records[-1])


@pytest.fixture
def stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder in which features are kept from one fit to the next."""
    monkeypatch.setenv("METATRANSFORMER_FEATURES_GB", "0.01")
    monkeypatch.setattr(store_module, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache" / "features"


@pytest.mark.parametrize("name", ["image", "text", "timeseries", "tabular"])
def test_a_second_fit_computes_its_head_alone(name: str, computed: list[int], stored: Path, tmp_path: Path):
    modality = get_modality(name)
    records = make_records(modality, train=11, val=5, test=4)
    recipe = tiny_recipe(modality, {"tune": "head", "head.features": "auto"})
    first = fit(records, recipe, out=tmp_path / "one", console=QUIET)
    assert sum(computed) == 20 and list(stored.glob("*/*.safetensors")) and not list(tmp_path.glob("one/**/features-*"))
    again = fit(records, recipe, console=QUIET)
    other = fit(
        records, tiny_recipe(modality, {"tune": "head", "head.features": "auto", "optim.l2": [0.3]}), console=QUIET
    )
    assert sum(computed) == 20 and torch.equal(again.outputs["test"], first.outputs["test"])
    assert not torch.equal(other.outputs["test"], first.outputs["test"])
    fit(records, tiny_recipe(modality, {"tune": "head", "head.features": "auto", "head.read": [2]}), console=QUIET)
    assert sum(computed) == 40


def test_a_file_is_known_by_what_it_holds(computed: list[int], stored: Path, pictures: Path, tmp_path: Path):
    recipe = tiny_recipe(get_modality("image"), {"tune": "head", "input.size": 16})

    def learn() -> int:
        computed.clear()
        fit(split_dataset(read_dataset(str(pictures), recipe, labelled=True), console=QUIET)[0], recipe, console=QUIET)
        return sum(computed)

    total = learn()
    assert total > 0 and learn() == 0
    moved = shutil.move(pictures, tmp_path / "elsewhere")
    shutil.copytree(moved, pictures)
    assert learn() == 0
    changed = sorted(pictures.rglob("*.png"))[0]
    Image.fromarray(255 - np.asarray(Image.open(changed))).save(changed)
    assert learn() == 1
    damaged = max(stored.glob("*/*.safetensors"), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert 0 < learn() < total + 1 and learn() == 0


def test_what_was_not_used_for_longest_makes_room(stored: Path):
    tables = [Features(torch.randn(64, 4096)) for _ in range(14)]  # 1 MB each, of 10
    store = FeatureStore.usual()
    assert store is not None
    for number, table in enumerate(tables):
        store.add("model", [bytes([number, row]) * 8 for row in range(64)], table, console=QUIET)
    kept = [bool(store.find("model", [bytes([number, 0]) * 8], columns={})) for number in range(14)]
    assert kept == [False] * 4 + [True] * 10
    found = store.find("model", [bytes([13, row]) * 8 for row in range(64)], columns={})
    assert all(torch.equal(table.trunk[row], tables[13].trunk[row]) for table, row in found.values())


def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("METATRANSFORMER_FEATURES_GB", "much")
    with pytest.raises(mt.UsageError, match="METATRANSFORMER_FEATURES_GB: must be a number of gigabytes"):
        FeatureStore.usual()
