"""The whole model: what learns in which mode, what is counted, and which blocks a head reads."""

import copy
import json
import pickle
from dataclasses import replace

import pytest
import torch
from common import batch_of as collated
from common import make_records, make_views, tiny_pipeline, tiny_recipe

from metatransformer.core.batch import Batch
from metatransformer.core.errors import DataError, MetaTransformerError, UsageError, WeightsError
from metatransformer.fit.by_epochs import narrowed
from metatransformer.fit.fit import fit, say_what_learns
from metatransformer.infer.evaluate import compute_outputs
from metatransformer.machine.console import Console
from metatransformer.modalities import get_modality
from metatransformer.model import MetaTransformer
from metatransformer.pipeline import Pipeline, read_blocks
from metatransformer.saved import load_pipeline
from metatransformer.trunk import load_encoder

NAME = "image"


def batch_of(pipeline: Pipeline, *, count: int = 3) -> Batch:
    return collated(pipeline, make_views(pipeline.modality, count))


ENDS = {"tokenizers", "heads"}


@pytest.mark.parametrize(
    ("mode", "learning"),
    [
        ("head", {"heads"}),
        ("ends", ENDS),
        ("norm", ENDS | {"encoder"}),
        ("lora", ENDS | {"adapters"}),
        ("last:2", ENDS | {"encoder"}),
        ("all", ENDS | {"encoder"}),
    ],
)
def test_modes_choose_what_learns(mode: str, learning: set[str]):
    model = tiny_pipeline(NAME, {"tune": mode}).model
    found = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert found == learning
    assert model.encoder.is_frozen == (mode != "all")


def test_modes_between_the_ends_count_by_hand():
    # Width 32, six blocks with an MLP of 64, the head reads up to the fourth.
    block = 2 * 2 * 32 + (3 * 32 * 32 + 3 * 32) + (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32)
    sizes = {
        "norm": 6 * 2 * 2 * 32 + 2 * 32,
        "lora:3": 4 * 3 * ((32 + 96) + (32 + 32)),
        "last:2": 2 * block + 2 * 32,
    }
    for mode, size in sizes.items():
        model = tiny_pipeline(NAME, {"tune": mode, "head.read": [2, 4]}).model
        assert model.parameter_counts()["trunk"]["trainable"] == size, mode


def test_a_saved_model_answers_as_fit_said_also_in_bfloat16(tmp_path):
    modality = get_modality(NAME)
    recipe = tiny_recipe(modality, {"tune": "head", "run.precision": "bfloat16"})
    records = make_records(modality, train=20, val=9, test=9)
    fitted = fit(records, recipe, out=tmp_path / "run", console=Console(quiet=True))
    loader = fitted.loaders["test"]
    again = compute_outputs(load_pipeline(tmp_path / "run" / "model"), loader, console=Console(quiet=True), title="")
    # A head in bfloat16 would be off by 1e-2; differences of near weights leave 3e-5 of outputs of 3 in float32.
    torch.testing.assert_close(again, fitted.outputs["test"], atol=2e-4, rtol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_adapters_of_its_own(copied):
    pipeline = tiny_pipeline(NAME, {"tune": "lora:3", "head.read": [1]})
    model, batch = pipeline.model.eval(), batch_of(pipeline)
    other, before = copied(model), model.features(batch, task="classify")
    assert torch.equal(other.features(batch, task="classify"), before)
    with torch.no_grad():
        for layer in other.adapters.layers.values():
            layer.up.fill_(1.0)
    assert torch.equal(model.features(batch, task="classify"), before)
    assert not torch.equal(other.features(batch, task="classify"), before)


def test_adapters_start_without_effect_and_then_add_their_product():
    own = load_encoder("test").own_copy()
    plain = tiny_pipeline(NAME, {"tune": "ends", "head.read": [1]}, trunk=own)
    adapted = tiny_pipeline(NAME, {"tune": "lora:3", "head.read": [1]})
    batch = batch_of(plain)
    before = plain.model.eval().features(batch, task="classify")
    assert torch.equal(adapted.model.eval().features(batch, task="classify"), before)
    assert adapted.model.adapters is not None
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, layer in adapted.model.adapters.layers.items():
            layer.up.copy_(torch.randn(layer.up.shape, generator=draw))
            # What low-rank adapters mean: W x + 2 B A x, as if the weight itself had been changed.
            linear = plain.model.encoder.get_submodule(name.replace("/", "."))
            linear.weight += 2.0 * layer.up @ layer.down
    after = adapted.model.features(batch, task="classify")
    assert not torch.allclose(after, before, atol=1e-2)
    torch.testing.assert_close(
        after, plain.model.features(batch, task="classify"), atol=1e-5, rtol=1e-5
    )  # float32 sums
    assert adapted.trunk.encoder.bytes_hash() != plain.trunk.encoder.bytes_hash()


def test_models_with_different_adapters_and_without_share_one_trunk():
    trunk = load_encoder("test")
    modes = ("lora:3", "lora:3", "ends")
    one, other, plain = (tiny_pipeline(NAME, {"tune": mode, "head.read": [1, 3]}, trunk=trunk) for mode in modes)
    models = [pipeline.model.eval() for pipeline in (one, other, plain)]
    batch = batch_of(one)
    before = plain.model.features(batch, task="classify")
    for number, model in enumerate(models[:2]):
        draw = torch.Generator().manual_seed(number)
        for layer in model.adapters.layers.values():
            layer.up.data = torch.randn(layer.up.shape, generator=draw)
    alone = [copy.deepcopy(model).features(batch, task="classify") for model in models]
    for number in (0, 2, 1, 1, 0):
        assert models[number].encoder is trunk.encoder
        assert torch.equal(models[number].features(batch, task="classify"), alone[number])
    assert torch.equal(alone[2], before)
    assert not torch.allclose(alone[0], alone[1], atol=1e-2) and not torch.allclose(alone[0], before, atol=1e-2)


def test_more_blocks_than_the_head_reads_are_refused():
    with pytest.raises(UsageError, match="'tune': must name at most 2 blocks, as the head reads; found last:3"):
        tiny_pipeline(NAME, {"tune": "last:3", "head.read": [2]})


def test_parameters_are_counted_on_the_whole_model():
    pipeline = tiny_pipeline(NAME, {"tune": "ends", "head.read": [-1], "head.pool": "both", "head.centres": 0})
    counts = pipeline.model.parameter_counts()
    # The trunk: 6 blocks of width 32 with an MLP of 64, and the final norm; by hand from the shapes.
    block = 2 * 2 * 32 + (3 * 32 * 32 + 3 * 32) + (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32)
    assert counts["trunk"] == {"trainable": 0, "total": 6 * block + 2 * 32}
    # Kernel, bias, 8 x 8 positions, class token.
    size = 32 * 3 * 4 * 4 + 32 + 8 * 8 * 32 + 32
    assert counts["tokenizer"] == {"trainable": size, "total": size}
    assert counts["head"]["total"] == 2 * 64 + 2  # it is solved first, on standardised features
    fresh = tiny_pipeline(NAME, {"tune": "ends", "head.read": [-1], "head.pool": "both", "head.hidden": 3})
    assert fresh.model.parameter_counts()["head"]["total"] == (64 * 3 + 3) + (3 * 2 + 2) + 2 * 64  # and its LayerNorm


def test_an_unknown_mode_is_refused():
    for mode in ("frozen", "lora:0", "last", "last:x", "ends:1"):
        with pytest.raises(UsageError, match=f"'tune': must be head, tokens, ends, norm, lora, .*; found '{mode}'"):
            tiny_pipeline(NAME, {"tune": mode})


@pytest.mark.parametrize("read", [[-1], [1, -1], [-2], [0]])
def test_blocks_are_counted_from_both_ends(read: list[int]):
    pipeline = tiny_pipeline(NAME, {"head.read": read, "head.pool": "both"})
    depth = pipeline.trunk.encoder.config.depth
    blocks = tuple({-1: depth, -2: depth - 1}.get(number, number) for number in read)
    assert pipeline.head.readout.blocks == blocks
    width = pipeline.trunk.encoder.config.width
    features = pipeline.model.eval().features(batch_of(pipeline), task="classify")
    assert features.shape == (3, 2 * width * len(blocks))


def test_a_block_beyond_the_trunk_is_refused():
    with pytest.raises(UsageError, match=r"head.read: must lie in -(\d)..\1 for this trunk; found 99"):
        tiny_pipeline(NAME, {"head.read": [99]})
    with pytest.raises(UsageError, match="recipe key 'head.read': must name at least one block"):
        tiny_pipeline(NAME, {"head.read": []})


def test_no_trunk_has_only_what_comes_before_it():
    pipeline = tiny_pipeline(NAME, {"encoder": "identity:test", "head.read": [1, -1]})
    assert pipeline.head.readout.blocks == (0,) == read_blocks(pipeline.recipe.head.read, depth=0)
    tokens = pipeline.model.tokenize(batch_of(pipeline))
    assert torch.equal(pipeline.model.encoder.encode(tokens).x, tokens.x)


def test_the_forward_pass_is_the_sum_of_its_parts():
    pipeline = tiny_pipeline(NAME, {"head.read": [-1]})
    model, batch = pipeline.model.eval(), batch_of(pipeline)
    part = batch.parts[NAME]
    tokens = model.encoder.encode(model.tokenizers[NAME](part.inputs, part.masks).named(NAME))
    torch.testing.assert_close(model(batch, task="classify"), model.heads["classify"]([tokens]))


def test_modalities_of_one_sample_stand_side_by_side():
    one = tiny_pipeline(NAME, {"input.mirrored": False})
    model = MetaTransformer(
        tokenizers={"left": one.model.tokenizers[NAME], "right": one.model.tokenizers[NAME]},
        encoder=one.model.encoder,
        heads={},
    ).eval()
    batch = batch_of(one)
    alone, part = one.model.tokenize(batch), batch.parts[NAME]
    both = model.tokenize(replace(batch, parts={"left": part, "right": part}))
    assert both.x.shape[1] == 2 * alone.x.shape[1]
    assert [span.input for span in both.spans] == ["left", "right"]
    for name in ("left", "right"):
        assert torch.equal(both.part(name).x, alone.x)


# --- the saved folder -------------------------------------------------------------------------------------------------


def test_a_folder_with_its_trunk_needs_no_other(tmp_path, monkeypatch: pytest.MonkeyPatch):
    pipeline = tiny_pipeline(NAME, {"tune": "ends"})
    pipeline.save(tmp_path, metrics={"val": {"accuracy": 1.0}}, standalone=True)
    monkeypatch.setattr("metatransformer.saved.load_encoder", None)
    batch = batch_of(pipeline)
    again = load_pipeline(tmp_path).model(batch, task="classify")
    assert torch.equal(again, pipeline.model.eval()(batch, task="classify"))


def test_a_kernel_head_comes_back_with_its_centres(tmp_path, capsys: pytest.CaptureFixture[str]):
    modality = get_modality(NAME)
    recipe = tiny_recipe(modality, {"tune": "head", "head.centres": 1000})
    fitted = fit(make_records(modality, train=11, val=6), recipe, console=Console())
    assert "compares with" not in capsys.readouterr().err
    assert fitted.pipeline.head.centres == 17  # the refit is on train and val
    counts = fitted.pipeline.model.parameter_counts()["head"]
    assert counts["trainable"] == 2 * (17 + 1)
    fitted.pipeline.save(tmp_path, metrics={})
    batch = batch_of(fitted.pipeline)
    again = load_pipeline(tmp_path).model(batch, task="classify")
    assert torch.equal(again, fitted.pipeline.model.eval()(batch, task="classify"))


def test_a_kernel_head_says_that_it_leaves_samples_out(capsys: pytest.CaptureFixture[str]):
    modality = get_modality(NAME)
    recipe = tiny_recipe(modality, {"tune": "head", "head.centres": 7})
    fitted = fit(make_records(modality, train=11, val=6), recipe, console=Console())
    assert fitted.pipeline.head.centres == 7
    assert "the kernel head compares with 7 of 11 training samples" in capsys.readouterr().err


def test_a_head_that_starts_fresh_is_no_kernel(capsys: pytest.CaptureFixture[str]):
    pipeline = tiny_pipeline("graph", {"tune": "ends", "head.centres": 5})
    say_what_learns(pipeline, Console())
    assert pipeline.head.centres == 0
    assert "the head is linear here, not a kernel (head.centres)" in capsys.readouterr().err
    assert tiny_pipeline("image", {"tune": "ends", "head.centres": 5}).head.centres == 5


def test_a_narrow_head_stands_beside_the_own_one_and_takes_no_random_numbers():
    pipeline = tiny_pipeline("image", {"tune": "ends", "head.pool": "grid", "head.centres": 5})
    numbers = torch.get_rng_state()
    narrow = narrowed(pipeline)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert narrow.head is narrow.model.head("classify") is not pipeline.head
    assert narrow.model.encoder is pipeline.model.encoder and narrow.model.adapters is pipeline.model.adapters
    assert (narrow.head.readout.facts.pool, narrow.head.centres, narrow.head.solved) == ("both", 0, True)
    assert narrow.head.readout.features == 2 * 32 * len(narrow.head.readout.blocks)


def test_a_model_from_before_heads_were_solved_in_every_mode_loads(tmp_path):
    """It has a LayerNorm, and no word on that."""
    pipeline = tiny_pipeline("image", {"tune": "ends", "head.hidden": 3})  # so has this one
    pipeline.save(tmp_path, metrics={})
    path = tmp_path / "model.json"
    now = json.loads(path.read_text(encoding="utf-8"))
    assert now["tasks"]["classify"]["solved"] is False
    before = {key: now[key] for key in ("recipe", "encoder", "metrics")} | {"format": 1}
    before |= {"transform": now["inputs"]["image"]["transform"], "task": now["tasks"]["classify"]["state"]}
    path.write_text(json.dumps(before), encoding="utf-8")
    batch = batch_of(pipeline)
    with torch.no_grad():
        again = load_pipeline(tmp_path).model(batch, task="classify")
        assert torch.equal(again, pipeline.model.eval()(batch, task="classify"))


@pytest.mark.parametrize(
    ("file", "damage", "kind", "message"),
    [
        ("model.json", None, DataError, "must be a saved model .a folder with model.json.; found no model.json"),
        ("model.json", b"{", DataError, "model.json: must be valid JSON"),
        ("model.json", b"[1]", DataError, "model.json: must have a format of 1 to 2; found None"),
        ("model.json", b'{"format": 1}', DataError, "model.json: must be as it was saved; found .*KeyError: 'recipe'"),
        ("model.json", b'{"format": 99}', DataError, "model.json: must have a format of 1 to 2; found 99"),
        ("heads/classify.safetensors", None, DataError, "must hold the parameters that model.json describes"),
        ("heads/classify.safetensors", b"x", DataError, "must hold the parameters that model.json describes"),
        ("tokenizers/image.safetensors", b"x" * 99, DataError, "Copy the whole model folder again"),
        ("encoder.safetensors", b"x" * 99, DataError, "Copy the whole model folder again"),
    ],
)
def test_a_damaged_folder_is_named(tmp_path, file: str, damage: bytes | None, kind: type, message: str):
    tiny_pipeline(NAME, {"tune": "all"}).save(tmp_path, metrics={})
    if damage is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(damage)
    with pytest.raises(kind, match=message):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("inputs.tabular.tokenizer", None),
        ("inputs.tabular.transform", 7),
        ("inputs.tabular.transform.columns.0.edges", "x"),
        ("inputs.tabular.transform.columns.0.edges", []),
        ("tasks.classify.head", 0.5),
        ("tasks.classify.centres", "many"),
        ("tasks.classify.state", []),
        ("encoder.name", None),
        ("encoder.fingerprint", {"a": 1}),
        ("recipe.head", "wide"),
    ],
)
def test_damaged_values_are_told_as_such(tmp_path, key: str, value: object):
    tiny_pipeline("tabular").save(tmp_path, metrics={})
    path = tmp_path / "model.json"
    description = place = json.loads(path.read_text(encoding="utf-8"))
    *way, last = [int(part) if part.isdigit() else part for part in key.split(".")]
    for part in way:
        place = place[part]
    place[last] = value
    path.write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(MetaTransformerError, match="must be as it was saved; found|must .*hold keys"):
        load_pipeline(tmp_path)


def test_a_model_from_before_a_setting_is_refused(tmp_path):
    tiny_pipeline(NAME).save(tmp_path, metrics={})
    path = tmp_path / "model.json"
    description = json.loads(path.read_text(encoding="utf-8"))
    del description["recipe"]["input"]["size"]
    path.write_text(json.dumps(description), encoding="utf-8")
    with pytest.raises(DataError, match="model.json: must say input.size; found a model from before it. Fit it again"):
        load_pipeline(tmp_path)


def test_a_trunk_whose_bytes_changed_is_refused(tmp_path):
    tiny_pipeline(NAME, {"tune": "all"}).save(tmp_path, metrics={})
    tiny_pipeline(NAME, {"tune": "all", "encoder": "random:3:test"}).save(tmp_path / "other", metrics={})
    (tmp_path / "other" / "encoder.safetensors").replace(tmp_path / "encoder.safetensors")
    with pytest.raises(WeightsError, match="must hold the trunk that model.json describes; found other bytes"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(("share", "block"), [(0.5, 3), (0.33, 2), (0.01, 1)])
def test_a_share_of_the_depth_names_a_block(share: float, block: int):
    assert tiny_pipeline(NAME, {"head.read": [share]}).head.readout.blocks == (block,)


def test_a_share_beyond_the_depth_is_refused():
    with pytest.raises(UsageError, match="head.read: must hold shares between 0 and 1, or whole numbers; found 1.5"):
        tiny_pipeline(NAME, {"head.read": [1.5]})
