"""The promises that models of two inputs keep: every modality beside a table, in both fusions, with absent cells."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from common import SMALL, TINY, make_values

import metatransformer as mt
from metatransformer.data.examples import Examples
from metatransformer.fit.fit import fit
from metatransformer.fit.run import RunFolder
from metatransformer.infer.embed import embed, embedding
from metatransformer.infer.evaluate import compute_outputs
from metatransformer.infer.joined import read_joined
from metatransformer.infer.loader import Loader
from metatransformer.infer.predict import predict
from metatransformer.infer.sources import split_dataset
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_names
from metatransformer.pipeline import Pipeline, build_pipeline
from metatransformer.recipe import Recipe, make_recipe, parse_inputs
from metatransformer.saved import load_pipeline
from metatransformer.trunk import load_encoder

QUIET = Console(quiet=True)
COUNT = 12
LACKS, ALONE = 3, 5  # rows without the modality, and without the table
FUSIONS = ("tokens", "features")
every_pair = pytest.mark.parametrize(("name", "fusion"), [(n, f) for n in modality_names() for f in FUSIONS])
# Each modality once, the fusions in turn: what follows takes a fit.
each_once = pytest.mark.parametrize(
    ("name", "fusion"), [(name, FUSIONS[place % 2]) for place, name in enumerate(modality_names())]
)
# Float32 sums in another order: 1e-6 relative on outputs of size 1; a leak of padding or of a gap is larger by far.
ALIKE: dict[str, float] = {"atol": 5e-6, "rtol": 5e-5}


@functools.cache
def frame_of(name: str) -> pd.DataFrame:
    """Returns rows of a table with a sample of the modality in the cell ``it``, or in columns of its own."""
    values, labels = make_values(get_modality(name), COUNT)
    if get_modality(name).source.rows:
        own = pd.DataFrame(values).add_prefix("it_").astype(object)
    else:  # a text is its words
        values = [value["text"] if name == "text" else value for value in values]
        own = pd.DataFrame({"it": pd.Series(values, dtype=object)})
    own.loc[LACKS, :] = None
    rest = pd.DataFrame({"x": np.arange(COUNT) / 7, "z": list("uvw" * (COUNT // 3)), "label": labels})
    rest.loc[ALONE, ["x", "z"]] = None
    return pd.concat([own, rest], axis=1)


def inputs_of(name: str) -> dict[str, Any]:
    own = [column for column in frame_of(name) if column.startswith("it")]
    return {"it": (name, own), "rest": ("tabular", ["x", "z"])}


def settings_of(name: str, fusion: str) -> dict[str, Any]:
    own = {**get_modality(name).synthetic, **TINY.get(name, {})}
    inner = {f"inputs.it.{key[6:]}": value for key, value in own.items() if key.startswith("input.")}
    return {"head.read": [1, -1], "head.features": "trunk", "fusion": fusion, **inner}


def recipe_of(name: str, fusion: str, **more: Any) -> Recipe:
    settings = {**SMALL, **settings_of(name, fusion), "task.target": "label", **more}
    return make_recipe(base={"inputs": parse_inputs(inputs_of(name))}, overrides=settings)


@functools.cache
def untrained(name: str, fusion: str) -> tuple[Pipeline, Examples]:
    """Returns a pipeline whose tokenizers and head learn, before they have, and its samples."""
    data = read_joined(frame_of(name), recipe_of(name, fusion, tune="ends"), labelled=True)
    trunk = load_encoder("test")
    return build_pipeline(data.recipe, trunk=trunk, examples=data.examples), data.examples


def outputs_of(pipeline: Pipeline, examples: Examples) -> torch.Tensor:
    loader = Loader(pipeline.route, examples, cache_mb=0, tasks={}, workers=1)
    return compute_outputs(pipeline, loader, console=QUIET, title="")


@every_pair
def test_a_sample_is_answered_alike_alone_and_in_any_order(name: str, fusion: str):
    pipeline, examples = untrained(name, fusion)
    together = outputs_of(pipeline, examples)
    assert together.shape == (COUNT, 2) and together.isfinite().all()
    rows = [LACKS, 0, ALONE]
    torch.testing.assert_close(outputs_of(pipeline, examples.take(rows)), together[rows], **ALIKE)
    for row in rows:
        torch.testing.assert_close(outputs_of(pipeline, examples.take([row])), together[[row]], **ALIKE)


@every_pair
def test_a_loaded_model_answers_and_embeds_alike(name: str, fusion: str, tmp_path: Path):
    pipeline, examples = untrained(name, fusion)
    few = examples.take([LACKS, 0, ALONE])
    pipeline.save(tmp_path, metrics={}, standalone=True)
    again = load_pipeline(tmp_path)
    assert bool(again.model.apart) == (fusion == "features") and again.recipe.fusion == fusion
    assert torch.equal(outputs_of(again, few), outputs_of(pipeline, few))
    vectors = embed(embedding(again, pool="summary"), few, console=QUIET)
    bits, beside = vectors[:, 64:66], vectors[:, 66:]  # behind them what goes to the head beside the trunk
    assert bits.tolist() == [[0, 1], [1, 1], [1, 0]] and beside.shape[1] == again.model.tokenizer("it").direct
    assert not vectors[0, :32].any() and not vectors[2, 32:64].any() and not beside[0].any()


@every_pair
def test_gradients_reach_both_tokenizers_and_leave_the_trunk_alone(name: str, fusion: str):
    pipeline, examples = untrained(name, fusion)
    model = pipeline.model.train()
    ((_, batch),) = Loader(pipeline.route, examples, cache_mb=0, tasks={}, workers=1).in_order(batch_size=COUNT)
    model.zero_grad()
    model(batch, task="classify").square().sum().backward()
    for tokenizer in model.tokenizers.values():
        assert sum(p.grad.abs().sum() for p in tokenizer.parameters() if p.grad is not None) > 0
    assert [key for key, p in model.encoder.named_parameters() if p.grad is not None] == []


@each_once
def test_a_fit_answers_for_every_row_and_is_saved(name: str, fusion: str, tmp_path: Path):
    frame, settings = frame_of(name), {**settings_of(name, fusion), "optim.l2": [0.1], "optim.folds": 0}
    made = mt.Classifier(
        inputs_of(name), encoder="test", tune="head", target="label", device="cpu", precision="float32", recipe=settings
    ).fit(frame)
    probability = made.predict_proba(frame)
    assert np.isfinite(probability).all()
    made.save(tmp_path)
    few = frame.iloc[[LACKS, 0, ALONE]].drop(columns="label")
    np.testing.assert_allclose(mt.load(tmp_path).predict_proba(few), probability[[LACKS, 0, ALONE]], atol=1e-5)
    with pytest.raises(mt.DataError, match="must have at least one row"):
        made.predict(frame.iloc[:0])


def test_an_interrupted_run_ends_as_a_whole_one(tmp_path: Path):
    recipe = recipe_of("image", "features", tune="ends", **{"optim.epochs": 2, "data.batch_size": 5})
    examples, recipe = split_dataset(read_joined(frame_of("image"), recipe, labelled=True), console=QUIET)
    whole = fit(examples, recipe, console=QUIET)
    with pytest.raises(KeyboardInterrupt), pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "finish", _interrupted)
        fit(examples, recipe, out=tmp_path / "run", console=QUIET)
    again = fit(examples, recipe, out=tmp_path / "run", console=QUIET)
    assert torch.equal(again.outputs["test"], whole.outputs["test"]) and again.history == whole.history
    table = predict(again.pipeline, examples.split("test"), console=QUIET)
    assert (table["prediction"] == table["target"]).mean() == again.metrics["test"]["accuracy"]


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("fusion", FUSIONS)
def test_an_input_that_training_never_lacked_is_told_once(
    fusion: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    frame = frame_of("image").drop(index=[LACKS, ALONE])
    recipe = {**settings_of("image", fusion), "optim.l2": [0.1]}
    made = mt.Classifier(inputs_of("image"), encoder="test", target="label", device="cpu", recipe=recipe).fit(frame)
    made.save(tmp_path)
    assert not caplog.records
    for model in (made, mt.load(tmp_path)):
        answers = model.predict_proba(frame_of("image"))
        assert answers.shape == (COUNT, 2) and np.isfinite(answers).all()
        told = [record.getMessage() for record in caplog.records]
        assert [line.split(":")[0] for line in told] == [
            "input 'it' is absent in 1 of 12 samples, in training never",
            "input 'rest' is absent in 1 of 12 samples, in training never",
        ]
        caplog.clear()
