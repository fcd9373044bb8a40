"""The promises that every modality keeps: each test runs on every file in ``modalities`` the moment it exists.

A new modality needs nothing here but its folder ``fixtures/<name>/`` with ``good*`` and ``broken_*`` files.
"""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from common import (
    FIXTURES,
    SMALL,
    TINY,
    batch_of,
    make_records,
    make_values,
    make_views,
    run,
    run_alone,
    settings_of,
    tiny_pipeline,
    tiny_recipe,
    words_of,
)

import metatransformer.fit.fit as fit_module
import metatransformer.pipeline as pipeline_module
from metatransformer import Classifier, DataError, NotFittedError, WeightsError
from metatransformer.core.samples import View
from metatransformer.infer.sources import read_index
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality, modality_module, modality_names
from metatransformer.pipeline import Pipeline, fit_reader
from metatransformer.report.controls import dense_row
from metatransformer.saved import load_pipeline
from metatransformer.trunk import load_encoder

QUIET = Console(quiet=True)
every_modality = pytest.mark.parametrize("name", modality_names())


def same(a: View, b: View) -> bool:
    """Returns whether two transformed samples hold the same bytes."""
    return a.inputs.keys() == b.inputs.keys() and all(
        a.inputs[name].dtype == b.inputs[name].dtype
        and np.array_equal(a.inputs[name], b.inputs[name], equal_nan=a.inputs[name].dtype.kind == "f")
        for name in a.inputs
    )


def outputs_of(pipeline: Pipeline, samples: list[View]) -> torch.Tensor:
    with torch.no_grad():
        return pipeline.model.eval()(batch_of(pipeline, samples), task=pipeline.task_name)


# --- files and arrays -------------------------------------------------------------------------------------------------


@every_modality
def test_docstring_says_file_tokens_sources_errors(name: str):
    text = modality_module(name).__doc__ or ""
    for heading in ("File:", "Tokens:", "Sources:", "Errors:"):
        assert f"\n{heading}" in text, heading


@every_modality
def test_good_files_are_read(name: str):
    modality = get_modality(name)
    files = sorted((FIXTURES / name).glob("good*"))
    assert files, f"tests/make_fixtures.py makes no good file for '{name}'"
    for file in files:
        read_file(modality, file)


@every_modality
def test_broken_files_are_refused_with_their_name(name: str):
    files = sorted((FIXTURES / name).glob("broken*"))
    assert files, f"tests/make_fixtures.py makes no broken file for '{name}'"
    for file in files:
        with pytest.raises(DataError) as caught:
            read_file(get_modality(name), file)
        assert file.name in str(caught.value), str(caught.value)


def read_file(modality, file: Path):
    recipe, trunk = tiny_recipe(modality), load_encoder("test")
    index = read_index(modality, file, options=recipe.input, labelled=False)
    reader = fit_reader(recipe, modality.name, trunk=trunk, records=index.records)
    for record in index.records:
        reader.view(record)


@every_modality
def test_synthetic_samples_satisfy_the_fields(name: str):
    pipeline = tiny_pipeline(name)
    for sample in make_views(pipeline.modality, 5, seed=1):
        ready = pipeline.transform(sample)
        assert ready.inputs.keys() == pipeline.modality.fields.keys()
        for field, declared in pipeline.modality.fields.items():
            declared.check(ready.inputs[field], where=field)
        seen = sample if pipeline.modality.raw_features else ready
        assert dense_row(pipeline.modality.features(seen)).ndim == 1


@every_modality
def test_wrong_arrays_are_refused_with_sample_and_field(name: str):
    pipeline = tiny_pipeline(name)
    ready = pipeline.transform(make_views(pipeline.modality, 1)[0])
    for field, declared in pipeline.modality.fields.items():
        good = ready.inputs[field]
        bad = {
            "type": good.astype(np.float64),
            "axes": good[None],
            "no array": good.tolist(),
            "empty": good[..., :0] if good.ndim else good[None],
        }
        if good.dtype.kind == "f":
            bad["infinite"] = np.full_like(good, np.inf)
            bad["missing"] = good[None] if declared.missing else np.full_like(good, np.nan)
        if declared.high is not None:
            bad["high"] = np.full_like(good, declared.high + 1)
        if declared.low is not None and good.dtype.kind != "u":
            bad["low"] = np.full_like(good, declared.low - 1)
        for array in bad.values():
            with pytest.raises(DataError, match=f"^sample 3: {field}: must "):
                declared.check(array, where=f"sample 3: {field}")


# --- the transform ----------------------------------------------------------------------------------------------------


@every_modality
def test_transform_is_deterministic_and_leaves_its_input_alone(name: str):
    pipeline = tiny_pipeline(name)
    for sample in make_views(pipeline.modality, 3, seed=2):
        before = copy.deepcopy(dict(sample.inputs))
        first, second = pipeline.transform(sample), pipeline.transform(sample)
        assert same(first, second)
        assert str(before) == str(dict(sample.inputs))
        assert first.key == sample.key


@every_modality
def test_augmentation_follows_its_generator_and_stays_in_the_fields(name: str):
    pipeline = tiny_pipeline(name)
    ready = pipeline.transform(make_views(pipeline.modality, 1)[0])
    before = copy.deepcopy(dict(ready.inputs))
    one, two = (pipeline.transform.augment(ready, np.random.default_rng(5)) for _ in range(2))
    assert same(one, two)
    assert same(ready, ready.with_inputs(before))
    for field, declared in pipeline.modality.fields.items():
        declared.check(one.inputs[field], where=field)


@every_modality
def test_transform_state_goes_through_json(name: str):
    pipeline = tiny_pipeline(name)
    state = json.loads(json.dumps(pipeline.transform.state()))
    other = pipeline.modality.transform(pipeline.recipe.input, pipeline.trunk.stem)
    other.load_state(state)
    assert json.loads(json.dumps(other.state())) == state
    for sample in make_views(pipeline.modality, 3, seed=2):
        assert same(pipeline.transform(sample), other(sample))


@every_modality
def test_only_training_samples_are_learned_from(name: str, monkeypatch: pytest.MonkeyPatch):
    modality = get_modality(name)
    seen: list[str] = []

    def watched(options, stem):
        transform = modality.transform(options, stem)
        learn = transform.fit

        def fit(samples):
            samples = list(samples)
            seen.extend(sample.key for sample in samples)
            learn(samples)

        transform.fit = fit
        return transform

    monkeypatch.setattr(pipeline_module, "get_modality", lambda _: replace(modality, transform=watched))
    records = make_records(modality, train=7, val=4, test=3)
    fit_module.fit(records, tiny_recipe(modality, {"tune": "head"}), console=QUIET)
    assert seen == [record.key for record in records if record.split == "train"]


# --- tokens and model -------------------------------------------------------------------------------------------------


@every_modality
def test_tokens_have_the_trunks_width_and_one_span(name: str):
    pipeline = tiny_pipeline(name)
    batch = batch_of(pipeline, make_views(pipeline.modality, 5))
    tokens = pipeline.model.tokenize(batch)
    count = tokens.x.shape[1]
    rows = list(range(5)) if tokens.samples is None else tokens.samples.tolist()
    assert sorted(set(rows)) == list(range(5))
    assert tokens.x.shape == (len(rows), count, pipeline.trunk.encoder.config.width)
    assert tokens.x.dtype == torch.float32 and tokens.mask.dtype == torch.bool
    assert tokens.x[tokens.mask].isfinite().all()
    (span,) = tokens.spans
    assert (span.modality, span.input, span.start, span.stop) == (name, name, 0, count)
    assert span.summary is not None and tokens.mask[:, span.summary].all()
    assert len(span.grid) == pipeline.model.tokenizers[name].axes
    assert not span.grid or np.prod(span.grid) == count - 1


@every_modality
@pytest.mark.parametrize("pool", ["both", "max", "grid"])
def test_a_sample_alone_equals_itself_in_a_batch(name: str, pool: str):
    if pool == "grid" and not tiny_pipeline(name).model.tokenizers[name].axes:
        pytest.skip("tokens in no order lie on no grid")
    pipeline = tiny_pipeline(name, {"head.pool": pool})
    samples = make_views(pipeline.modality, 5, seed=3)
    together = outputs_of(pipeline, samples)
    alone = torch.cat([outputs_of(pipeline, [sample]) for sample in samples])
    # Float32 sums in another order: 1e-6 relative on outputs of size 1; a leak of padding is larger by far.
    torch.testing.assert_close(together, alone, atol=2e-6, rtol=2e-5)


@every_modality
def test_padding_that_holds_something_else_changes_nothing(name: str):
    pipeline = tiny_pipeline(name)
    if not any(declared.ragged for declared in pipeline.modality.fields.values()):
        pytest.skip("no field of this modality is ever padded")
    batch = batch_of(pipeline, make_views(pipeline.modality, 5, seed=3))
    part, other = batch.parts[name], {}
    if all(part.masks[field].all() for field in part.inputs):
        pytest.skip("made-up samples of this modality are all of one size")
    for field, x in part.inputs.items():
        mask = part.masks[field]
        ragged = pipeline.modality.fields[field].ragged
        shape = [len(x)] + [x.shape[axis + 1] if axis in ragged else 1 for axis in range(x.ndim - 1)]
        real = mask.reshape(shape) if ragged else torch.ones(1, dtype=torch.bool)
        other[field] = torch.where(real, x, torch.full_like(x, 77))
    changed = replace(batch, parts={name: replace(part, inputs=other)})
    model = pipeline.model.eval()
    with torch.no_grad():
        before, after = model(batch, task="classify"), model(changed, task="classify")
    torch.testing.assert_close(before, after, atol=2e-6, rtol=2e-5)


@every_modality
def test_outputs_follow_the_order_of_the_batch(name: str):
    pipeline = tiny_pipeline(name)
    samples = make_views(pipeline.modality, 5, seed=4)
    order = [3, 0, 4, 1, 2]
    shuffled = outputs_of(pipeline, [samples[i] for i in order])
    torch.testing.assert_close(outputs_of(pipeline, samples)[order], shuffled, atol=2e-6, rtol=2e-5)


@every_modality
def test_gradients_reach_tokenizer_and_head_and_leave_the_trunk_alone(name: str):
    pipeline = tiny_pipeline(name, {"tune": "ends", "head.centres": 0})  # training goes through linear heads
    model = pipeline.model.train()
    assert not model.encoder.training and not any(block.training for block in model.encoder.blocks)
    model(batch_of(pipeline, make_views(pipeline.modality, 5)), task="classify").square().sum().backward()
    for part in (model.tokenizers, model.heads):
        assert [key for key, p in part.named_parameters() if p.grad is None] == []
    assert sum(p.grad.abs().sum() for p in model.tokenizers.parameters()) > 0
    assert [key for key, p in model.encoder.named_parameters() if p.grad is not None] == []


@every_modality
def test_eight_samples_are_learned_by_heart_on_an_untouched_trunk(name: str):
    modality = get_modality(name)
    known = make_records(modality, train=8)
    again = [replace(record, key=f"again {record.key}", split="val") for record in known]
    settings = {"tune": "ends", "optim.epochs": 40, "optim.lr": 1e-2, "data.batch_size": 8, "data.augment": False}
    untouched = load_encoder("test").encoder.bytes_hash()
    fitted = fit_module.fit([*known, *again], tiny_recipe(modality, settings), console=QUIET)
    assert fitted.metrics["val"]["accuracy"] == 1.0
    assert fitted.history[-1]["epoch"] == 40 and fitted.pipeline.model.encoder.bytes_hash() == untouched


@every_modality
def test_the_same_seed_gives_the_same_result(name: str):
    modality = get_modality(name)
    records = make_records(modality, train=11, val=5)
    settings = {"tune": "ends", "optim.epochs": 2, "data.batch_size": 4, "head.hidden": 13, "head.dropout": 0.1}
    one, two = (fit_module.fit(records, tiny_recipe(modality, settings), console=QUIET) for _ in range(2))
    assert torch.equal(one.outputs["val"], two.outputs["val"])
    assert one.history == two.history


# --- saved models -----------------------------------------------------------------------------------------------------


@every_modality
@pytest.mark.parametrize("tune", ["head", "ends", "lora", "last:1", "all"])
def test_a_loaded_model_gives_identical_outputs(name: str, tune: str, tmp_path: Path):
    pipeline = tiny_pipeline(name, {"tune": tune})
    samples = make_views(pipeline.modality, 5, seed=6)
    pipeline.save(tmp_path, metrics={})
    assert (tmp_path / "encoder.safetensors").exists() == (tune in ("last:1", "all"))
    assert (tmp_path / "adapters").exists() == (tune == "lora")
    assert torch.equal(outputs_of(load_pipeline(tmp_path), samples), outputs_of(pipeline, samples))


@every_modality
def test_a_model_on_another_trunk_is_refused(name: str, tmp_path: Path):
    tiny_pipeline(name, {"tune": "ends"}).save(tmp_path, metrics={})
    with pytest.raises(WeightsError, match="fingerprint"):
        load_pipeline(tmp_path, encoder="random:1:test")


# --- the public faces -------------------------------------------------------------------------------------------------


@every_modality
def test_nothing_is_predicted_before_fit(name: str):
    with pytest.raises(NotFittedError, match="Classifier.predict: must be called on a fitted estimator"):
        Classifier(name, encoder="test").predict(make_values(get_modality(name), 1)[0])


@every_modality
def test_one_sample_is_enough_and_none_is_refused(name: str):
    modality = get_modality(name)
    values, labels = make_values(modality, 12)
    classifier = Classifier(name, encoder="test", tune="head", precision="float32", recipe=settings_of(name))
    classifier.fit(values, labels)
    assert classifier.predict(values[:1]).shape == (1,)
    with pytest.raises(DataError):
        classifier.predict([])


@every_modality
def test_command_line_gives_one_row_for_each_input_in_order(name: str, tmp_path: Path, capsys):
    modality = get_modality(name)
    data, inputs, target = labelled_files(modality.source.kind, FIXTURES / name, tmp_path)
    settings = {key: value for key, value in SMALL.items() if key != "encoder"}
    settings |= dict(modality.synthetic) | TINY.get(name, {})
    words = ["fit", data, "--modality", name, "--encoder", "test", "--tune", "ends", "--epochs", 2, "--out"]
    status, result, err = run([*words, tmp_path / "run", *target, *words_of(settings)], capsys)
    assert status == 0, err
    assert {"run", "metrics", "parameters"} <= result.keys()
    status, result, err = run(["predict", tmp_path / "run", *inputs, "--out", tmp_path / "p.csv"], capsys)
    assert status == 0, err
    table = pd.read_csv(tmp_path / "p.csv", dtype=str)
    expected = [Path(path).name for path in inputs] if len(inputs) > 1 else [str(i) for i in range(len(table))]
    assert [Path(key).name for key in table["key"]] == expected and result["rows"] == len(table) > 1


def labelled_files(kind: str, fixtures: Path, folder: Path) -> tuple[Path, list[Path], list[str]]:
    """Returns data to train on, inputs to predict in an order that is not sorted, and the option for the target."""
    good = sorted(fixtures.glob("good*"))
    if kind == "table":
        table = next(file for file in good if file.suffix == ".csv")
        return table, [table], ["--target", "label"]
    for number in range(12):
        place = folder / "data" / "ab"[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        source = good[number % len(good)]
        shutil.copy(source, place / f"{number}{source.suffix}")
    files = sorted((folder / "data").rglob("*.*"))
    return folder / "data", [files[i] for i in (7, 0, 11, 3)], []


def test_a_modality_module_imports_no_optional_library():
    code = """
import json, sys
from metatransformer.modalities import get_modality, modality_names
wanted = {package for name in modality_names() for package in get_modality(name).requires}
print(json.dumps(sorted(wanted & sys.modules.keys())))
"""
    done = run_alone(["-c", code])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []
