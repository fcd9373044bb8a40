"""The whole model: what learns in which mode, what is counted, and which blocks a head reads."""

import pytest
import torch
from common import make_samples, tiny_pipeline

from metatransformer.core.batch import Batch, collate
from metatransformer.core.errors import DataError, UsageError, WeightsError
from metatransformer.model import MetaTransformer
from metatransformer.pipeline import Pipeline, load_pipeline, read_blocks

NAME = "image"


def batch_of(pipeline: Pipeline, *, count: int = 3) -> dict[str, Batch]:
    samples = [pipeline.transform(sample) for sample in make_samples(pipeline.modality, count)]
    return {NAME: collate(samples, fields=pipeline.modality.fields)}


@pytest.mark.parametrize(("mode", "learning"), [("head", {"heads"}), ("ends", {"tokenizers", "heads"}), ("all", None)])
def test_modes_choose_what_learns(mode: str, learning: set[str] | None):
    model = tiny_pipeline(NAME, {"tune": mode}).model
    found = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert found == (learning or {"tokenizers", "encoder", "heads"})
    assert model.encoder.is_frozen == (mode != "all")


def test_parameters_are_counted_on_the_whole_model():
    pipeline = tiny_pipeline(NAME, {"tune": "ends", "head.read": [-1], "head.pool": "both"})
    counts = pipeline.model.parameter_counts()
    # The trunk: 6 blocks of width 32 with an MLP of 64, and the final norm; by hand from the shapes.
    block = 2 * 2 * 32 + (3 * 32 * 32 + 3 * 32) + (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32)
    assert counts["trunk"] == {"trainable": 0, "total": 6 * block + 2 * 32}
    # Kernel, bias, 8 x 8 positions, class token.
    size = 32 * 3 * 4 * 4 + 32 + 8 * 8 * 32 + 32
    assert counts["tokenizer"] == {"trainable": size, "total": size}
    assert counts["head"]["total"] == 2 * (64 * 2) // 2 + 2 + 2 * 64  # linear layer, and its LayerNorm


def test_an_unknown_mode_is_refused():
    model = tiny_pipeline(NAME).model
    with pytest.raises(UsageError, match="tune: must be head, ends or all; found 'frozen'"):
        model.tune("frozen")


@pytest.mark.parametrize("read", [[-1], [1, -1], [-2], [0]])
def test_blocks_are_counted_from_both_ends(read: list[int]):
    pipeline = tiny_pipeline(NAME, {"head.read": read, "head.pool": "both"})
    depth = pipeline.trunk.encoder.config.depth
    blocks = tuple({-1: depth, -2: depth - 1}.get(number, number) for number in read)
    assert pipeline.head.blocks == blocks
    width = pipeline.trunk.encoder.config.width
    features = pipeline.model.eval().pooled(batch_of(pipeline), head="classify")
    assert features.shape == (3, 2 * width * len(blocks))


def test_a_block_beyond_the_trunk_is_refused():
    with pytest.raises(UsageError, match=r"head.read: must lie in -(\d)..\1 for this trunk; found 99"):
        tiny_pipeline(NAME, {"head.read": [99]})
    with pytest.raises(UsageError, match="recipe key 'head.read': must name at least one block"):
        tiny_pipeline(NAME, {"head.read": []})


def test_no_trunk_has_only_what_comes_before_it():
    pipeline = tiny_pipeline(NAME, {"encoder": "identity:test", "head.read": [1, -1]})
    assert pipeline.head.blocks == (0,) == read_blocks(pipeline.recipe, depth=0)
    tokens = pipeline.model.tokenize(batch_of(pipeline))
    assert torch.equal(pipeline.model.encoder(tokens).x, tokens.x)


def test_the_forward_pass_is_the_sum_of_its_parts():
    pipeline = tiny_pipeline(NAME, {"head.read": [-1]})
    model, batch = pipeline.model.eval(), batch_of(pipeline)
    tokens = model.encoder(model.tokenizers[NAME](batch[NAME].inputs, batch[NAME].masks))
    torch.testing.assert_close(model(batch, head="classify"), model.heads["classify"]([tokens]))


def test_modalities_of_one_sample_stand_side_by_side():
    one = tiny_pipeline(NAME)
    model = MetaTransformer(
        tokenizers={"left": one.model.tokenizers[NAME], "right": one.model.tokenizers[NAME]},
        encoder=one.model.encoder,
        heads=dict(one.model.heads),
    ).eval()
    batch = batch_of(one)[NAME]
    alone = one.model.tokenize({NAME: batch})
    both = model.tokenize({"left": batch, "right": batch})
    assert both.x.shape[1] == 2 * alone.x.shape[1] and len(both.spans) == 2
    assert model({"left": batch, "right": batch}, head="classify").shape == (3, 2)


# --- the saved folder -------------------------------------------------------------------------------------------------


def test_a_folder_with_its_trunk_needs_no_other(tmp_path, monkeypatch: pytest.MonkeyPatch):
    pipeline = tiny_pipeline(NAME, {"tune": "ends"})
    pipeline.save(tmp_path, metrics={"val": {"accuracy": 1.0}}, standalone=True)
    monkeypatch.setattr("metatransformer.pipeline.load_encoder", None)
    batch = batch_of(pipeline)
    again = load_pipeline(tmp_path).model(batch, head="classify")
    assert torch.equal(again, pipeline.model.eval()(batch, head="classify"))


@pytest.mark.parametrize(
    ("file", "damage", "kind", "message"),
    [
        ("model.json", None, DataError, "must be a saved model .a folder with model.json.; found no model.json"),
        ("model.json", b"{", DataError, "model.json: must be valid JSON"),
        ("model.json", b"[1]", DataError, "model.json: must have format 1; found None"),
        ("model.json", b'{"format": 1}', DataError, "model.json: must be as it was saved; found .*KeyError: 'recipe'"),
        ("model.json", b'{"format": 99}', DataError, "model.json: must have format 1; found 99"),
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


def test_a_trunk_whose_bytes_changed_is_refused(tmp_path):
    tiny_pipeline(NAME, {"tune": "all"}).save(tmp_path, metrics={})
    tiny_pipeline(NAME, {"tune": "all", "encoder": "random:3:test"}).save(tmp_path / "other", metrics={})
    (tmp_path / "other" / "encoder.safetensors").replace(tmp_path / "encoder.safetensors")
    with pytest.raises(WeightsError, match="must hold the trunk that model.json describes; found other bytes"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize(("share", "block"), [(0.5, 3), (0.33, 2), (0.01, 1)])
def test_a_share_of_the_depth_names_a_block(share: float, block: int):
    assert tiny_pipeline(NAME, {"head.read": [share]}).head.blocks == (block,)


def test_a_share_beyond_the_depth_is_refused():
    with pytest.raises(UsageError, match="head.read: must hold shares between 0 and 1, or whole numbers; found 1.5"):
        tiny_pipeline(NAME, {"head.read": [1.5]})
