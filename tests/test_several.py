"""One model of several inputs and several tasks: joined, fitted, scored, saved and loaded on the tiny trunk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from common import SMALL, make_values

from metatransformer.core.errors import DataError, UsageError
from metatransformer.core.samples import Record
from metatransformer.core.tokens import Span, Tokens
from metatransformer.data.examples import Examples
from metatransformer.fit.fit import fit
from metatransformer.fit.fitted import Fitted
from metatransformer.infer.embed import embed, embedding
from metatransformer.infer.evaluate import compute_outputs
from metatransformer.infer.loader import Loader
from metatransformer.infer.predict import predict
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.recipe import Recipe, make_recipe, to_dict
from metatransformer.saved import load_pipeline

QUIET = Console(quiet=True)
COUNT = 40
SETTINGS: dict[str, Any] = {
    **{key: value for key, value in SMALL.items() if key != "task.name"},
    "inputs.photo.size": 16,
    "tasks.sort": {"name": "classify"},
    "tasks.size": {"name": "regress", "inputs": ["rest"], "head": {"pool": "mean"}},
}


def recipe_of(**more: Any) -> Recipe:
    overrides = {**SETTINGS, **{key.replace("__", "."): value for key, value in more.items()}}
    return make_recipe({"photo": "image", "rest": "tabular"}, base={}, overrides=overrides)


def make_examples(*, photos: range = range(COUNT), rows: range = range(COUNT)) -> Examples:
    """Returns samples of a picture and a row; the class is in both, the number in the row alone."""
    splits = ["train"] * 24 + ["val"] * 8 + ["test"] * 8
    pictures, labels = make_values(get_modality("image"), COUNT)
    cells, _ = make_values(get_modality("tabular"), COUNT, seed=1)
    keys = [f"s{number}" for number in range(COUNT)]
    known = {
        "photo": [Record(keys[i], value=pictures[i], split=splits[i]) for i in photos],
        "rest": [Record(keys[i], value=cells[i], split=splits[i]) for i in rows],
    }
    sizes = {keys[i]: float(cells[i]["visits"]) for i in rows}
    return Examples.join(known, targets={"sort": dict(zip(keys, labels, strict=True)), "size": sizes})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Fitted, Path]:
    out = tmp_path_factory.mktemp("several") / "run"
    return fit(make_examples(), recipe_of(tune="head"), out=out, console=QUIET), out


def test_the_default_picture_joins_with_a_table(fitted: tuple[Fitted, Path]):
    made, _ = fitted
    assert made.pipeline.recipe.inputs["photo"].options.mirrored  # two rows a sample beside one
    assert made.outcomes["sort"].metrics["test"]["accuracy"] >= 0.85
    assert made.outcomes["size"].metrics["test"]["r2"] > 0.5
    head = made.pipeline.model.head("sort").readout
    assert head.features == 2 * (2 * 32 + 2 * 32) + 2  # two blocks of summary and mean of two inputs; two bits
    assert made.pipeline.model.head("size").readout.features == 2 * 32  # its own inputs and pooling


def test_the_run_folder_tells_of_each_task(fitted: tuple[Fitted, Path]):
    made, out = fitted
    told = json.loads((out / "metrics.json").read_text(encoding="utf-8"))
    assert told["metrics"] == {name: outcome.metrics for name, outcome in made.outcomes.items()}
    for name in ("sort", "size"):
        assert (out / f"predictions-{name}.parquet").is_file() and (out / f"report-{name}.html").is_file()
    assert {path.name for path in (out / "model" / "tokenizers").iterdir()} == {
        "photo.safetensors",
        "rest.safetensors",
    }


def test_a_loaded_model_answers_and_embeds_as_before(fitted: tuple[Fitted, Path]):
    made, out = fitted
    again, examples = load_pipeline(out / "model"), make_examples().split("test")
    assert to_dict(again.recipe)["tasks"] == to_dict(made.pipeline.recipe)["tasks"]
    for name in again.tasks:
        loader = Loader(again.route, examples, cache_mb=0, tasks={})
        answers = compute_outputs(again.of_task(name), loader, console=QUIET, title="")
        torch.testing.assert_close(answers, made.outcomes[name].outputs["test"], atol=1e-4, rtol=1e-4)
        table = predict(again.of_task(name), examples, console=QUIET)
        assert table["key"].tolist() == list(examples.keys)
    vectors = embed(embedding(again, pool="mean"), examples, console=QUIET)
    assert vectors.shape == (8, 2 * 32 + 2)  # one mean an input, and whether it is there


@pytest.mark.parametrize("tune", ["ends", "lora:2", "all"])
def test_several_tasks_are_trained_by_epochs(tune: str):
    recipe = recipe_of(tune=tune, optim__epochs=2, data__batch_size=8)
    made = fit(make_examples(rows=range(3, COUNT)), recipe, console=QUIET)
    lines = made.outcomes["sort"].history
    assert [line["epoch"] for line in lines] == [1, 2] and {"val_loss", "val_sort_accuracy"} <= lines[0].keys()
    learning = {name for name, p in made.pipeline.model.named_parameters() if p.requires_grad}
    assert {"origins.photo", "origins.rest"} <= learning


def test_an_absent_input_is_no_token_and_a_zero_with_its_bit():
    examples = make_examples(photos=range(0, COUNT, 2))
    made = fit(examples, recipe_of(tune="head"), console=QUIET).pipeline
    chosen = examples.take([list(examples.keys).index(f"s{number}") for number in range(4)])
    loader = Loader(made.route, chosen, cache_mb=0, tasks={})
    ((order, batch),) = loader.in_order(batch_size=4)
    places = np.argsort(order)
    with torch.no_grad():
        tokens, features = made.model.eval().tokenize(batch), made.model.features(batch, task="sort")[places]
    part = tokens.part("photo")
    assert part is not None and tokens.samples is not None
    there = torch.stack([part.mask[tokens.samples == place].any() for place in range(4)])[places]
    assert there.tolist() == [True, False, True, False]
    assert features[:, -2:].tolist() == [[1, 1], [0, 1], [1, 1], [0, 1]]
    assert not features[1, : 2 * 32].any() and features[0, : 2 * 32].any()
    # In a batch with others, or alone: the same.
    one = Loader(made.route, loader.examples.take([1]), cache_mb=0, tasks={})
    ((_, single),) = one.in_order(batch_size=1)
    with torch.no_grad():
        alone = made.model.features(single, task="sort")
    torch.testing.assert_close(alone[0], features[1], atol=2e-6, rtol=2e-5)


def test_rows_of_a_sample_stand_beside_each_row_of_the_others():
    mask = torch.ones(3, 2, dtype=torch.bool)
    several = Tokens(torch.arange(12.0).reshape(3, 2, 2), mask, (Span("text", 0, 2),), torch.tensor([0, 0, 1]))
    clips = Tokens(
        torch.arange(20.0).reshape(5, 2, 2),
        torch.ones(5, 2, dtype=torch.bool),
        (Span("video", 0, 2),),
        torch.tensor([0, 0, 1, 1, 1]),
    )
    both = Tokens.cat([several, clips])
    assert both.samples is not None and both.samples.tolist() == [0, 0, 1, 1, 1]
    assert both.x[:, 0, 0].tolist() == [0, 4, 8, 8, 8]
    assert both.x[:, 2, 0].tolist() == [0, 4, 8, 12, 16]


def test_samples_that_disagree_and_recipes_that_cannot_be_are_refused():
    rows = {"a": [Record("x", split="train")], "b": [Record("x", split="test")]}
    with pytest.raises(DataError, match="sample 'x': must have one split in all its inputs; found test, train"):
        Examples.join(rows, targets={})
    with pytest.raises(UsageError, match="recipe key 'input.size': must be of the one input.*inputs.photo.size"):
        make_recipe({"photo": "image", "rest": "tabular"}, base={}, overrides={"input.size": 3})
    with pytest.raises(UsageError, match="the model: must have one input here; found photo, rest"):
        _ = make_recipe({"photo": "image", "rest": "tabular"}, base={}, overrides={}).input
    with pytest.raises(UsageError, match=r"'tasks.a.inputs': must name inputs.*found 'foto'. Did you mean 'photo'"):
        make_recipe({"photo": "image"}, base={}, overrides={"tasks.a.inputs": ["foto"]})
    with pytest.raises(UsageError, match="'tasks.a.head.pol'.*Did you mean 'tasks.a.head.pool'"):
        make_recipe({"photo": "image"}, base={}, overrides={"tasks.a.head.pol": "mean"})
