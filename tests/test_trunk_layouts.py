"""Conversion of foreign state dicts: equal to transformers, and every key accounted for."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from metatransformer.core.errors import WeightsError
from metatransformer.core.modality import Stem
from metatransformer.core.tokens import Span, Tokens
from metatransformer.trunk.convert import Converted, convert
from metatransformer.trunk.encoder import Encoder, EncoderConfig
from metatransformer.trunk.layouts import LAYOUTS, detect

transformers = pytest.importorskip("transformers")

SIZE, PATCH, GRID = 15, 5, 3
SHAPE = {
    "hidden_size": 21,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": SIZE,
    "patch_size": PATCH,
}
# Float32 sums in another order, on values of order 1.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def randomize(model: nn.Module) -> nn.Module:
    """Gives every parameter its own value: fresh models have zeros and ones that hide swaps."""
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.2)
    return model.eval()


def pixels() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(13))


def native(stem: Stem, images: Tensor) -> Tokens:
    """The stem's own tokens: class token, then row-major patches with their positions."""
    assert stem.patch is not None and stem.positions is not None and stem.class_token is not None
    x = F.conv2d(images, stem.patch, stem.bias, stride=stem.patch.shape[-1])
    x = x.flatten(2).transpose(1, 2) + stem.positions.flatten(0, 1)  # [B, h*w, D]
    x = torch.cat([stem.class_token.expand(len(x), 1, -1), x], dim=1)
    mask = torch.ones(x.shape[:2], dtype=torch.bool)
    return Tokens(x, mask, (Span("image", 0, x.shape[1], 0, stem.positions.shape[:2]),))


def run(converted: Converted, **settings: object) -> Tensor:
    encoder = Encoder(EncoderConfig(**converted.shape, **settings))
    encoder.load_state_dict(converted.trunk)
    with torch.no_grad():
        return encoder.eval().encode(native(converted.stem, pixels())).x


def vit() -> nn.Module:
    return randomize(transformers.ViTModel(transformers.ViTConfig(**SHAPE, intermediate_size=29, qkv_bias=True)))


def dinov2() -> nn.Module:
    return randomize(transformers.Dinov2Model(transformers.Dinov2Config(**SHAPE, mlp_ratio=2)))


def clip(activation: str = "quick_gelu") -> nn.Module:
    config = transformers.CLIPVisionConfig(**SHAPE, intermediate_size=29, hidden_act=activation)
    return randomize(transformers.CLIPVisionModel(config))


@pytest.mark.parametrize(("build", "eps"), [(vit, 1e-12), (dinov2, 1e-6)])
def test_vit_and_dinov2_equal_transformers(build, eps):
    model = build()
    converted = convert(model.state_dict(), where="test")
    assert converted.layout.name == build.__name__ and converted.layout.eps == eps
    with torch.no_grad():
        expected = model(pixels()).last_hidden_state
    torch.testing.assert_close(run(converted, heads=3, eps=eps), expected, **TOLERANCE)


@pytest.mark.parametrize("activation", ["gelu", "quick_gelu"])
def test_clip_equals_transformers(activation):
    model = clip(activation)
    converted = convert(model.state_dict(), where="test")
    assert converted.layout.activation == "quick_gelu" and converted.shape["pre_norm"]
    with torch.no_grad():
        # transformers normalises only the pooled token of this model at the end; the trunk all.
        expected = model.post_layernorm(model(pixels()).last_hidden_state)
        found = run(converted, heads=3, eps=1e-5, activation=activation)
        torch.testing.assert_close(found, expected, **TOLERANCE)
        torch.testing.assert_close(found[:, 0], model(pixels()).pooler_output, **TOLERANCE)


@pytest.mark.parametrize("build", [vit, dinov2, clip])
def test_saved_files_have_other_names_and_equal_weights(build, tmp_path):
    """transformers 5 renames what it reads and writes; both spellings give the same tensors."""
    from safetensors.torch import load_file

    model = build()
    model.save_pretrained(tmp_path)
    saved = convert(load_file(tmp_path / "model.safetensors"), where="test")
    live = convert(model.state_dict(), where="test")
    assert saved.trunk.keys() == live.trunk.keys()
    assert all(torch.equal(saved.trunk[name], live.trunk[name]) for name in live.trunk)
    assert torch.equal(saved.stem.positions, live.stem.positions)


def test_a_classifier_is_dropped_by_name():
    config = transformers.ViTConfig(**SHAPE, num_labels=5)
    state = transformers.ViTForImageClassification(config).state_dict()
    assert set(convert(state, where="test").dropped) == {"classifier.weight", "classifier.bias"}
    assert set(convert(vit().state_dict(), where="test").dropped) == {
        "pooler.dense.weight",
        "pooler.dense.bias",
    }
    assert convert(dinov2().state_dict(), where="test").dropped == ("embeddings.mask_token",)


def test_a_whole_clip_gives_its_image_tower():
    text = {"hidden_size": 14, "num_hidden_layers": 3, "num_attention_heads": 2, "vocab_size": 17}
    vision = {**SHAPE, "intermediate_size": 29}
    model = randomize(transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision)))
    converted = convert(model.state_dict(), where="test")
    assert converted.width == 21 and converted.depth == 2
    assert all(not name.startswith("vision_model.") for name in converted.dropped)
    assert {"logit_scale", "visual_projection.weight"} <= set(converted.dropped)
    with torch.no_grad():
        tower = model.vision_model
        expected = tower.post_layernorm(tower(pixels()).last_hidden_state)
    found = run(converted, heads=3, eps=1e-5, activation="quick_gelu")
    torch.testing.assert_close(found, expected, **TOLERANCE)


def test_padding_equals_transformers_layers_without_padding():
    model = vit()
    converted = convert(model.state_dict(), where="test")
    encoder = Encoder(EncoderConfig(**converted.shape, heads=3, eps=1e-12))
    encoder.load_state_dict(converted.trunk)
    x = torch.randn(2, 11, 21, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    with torch.no_grad():
        found = encoder.encode(Tokens(x, mask, (Span("probe", 0, 11),))).x
        for row, length in enumerate((11, 7)):
            y = x[row : row + 1, :length]
            for layer in model.layers:
                y = layer(y)
            torch.testing.assert_close(found[row, :length], model.layernorm(y)[0], **TOLERANCE)


def blocks_only() -> dict[str, Tensor]:
    """The published Meta-Transformer layout, from a timm-like one: no stem and no norm."""
    state = convert(vit().state_dict(), where="test").trunk
    return {k.removeprefix("blocks."): v for k, v in state.items() if k.startswith("blocks.")}


def test_published_blocks_come_without_a_stem():
    converted = convert(blocks_only(), where="test")
    assert converted.layout.name == "meta-transformer" and converted.layout.eps == 1e-5
    assert converted.stem == Stem()
    expected = {"width": 21, "depth": 2, "hidden": 29}
    absent = {"pre_norm": False, "layer_scale": False, "final_norm": False}
    assert converted.shape == {**expected, **absent}


def test_half_precision_becomes_float32():
    state = {name: tensor.half() for name, tensor in blocks_only().items()}
    assert {t.dtype for t in convert(state, where="test").trunk.values()} == {torch.float32}


def refused(state: dict[str, Tensor]) -> str:
    with pytest.raises(WeightsError) as caught:
        convert(state, where="w.pth")
    return str(caught.value)


def test_missing_and_unexpected_keys_are_listed():
    state = blocks_only()
    state.pop("1.attn.proj.bias")
    state["0.attn.q_norm.weight"] = torch.ones(7)
    message = refused(state)
    assert message.startswith("w.pth: must hold a plain vision transformer with biases")
    assert "unexpected: 0.attn.q_norm.weight" in message
    assert "missing: blocks.1.attn.proj.bias" in message


@pytest.mark.parametrize("letter", ["q", "k", "v"])
def test_a_missing_projection_is_named(letter):
    state = vit().state_dict()
    state.pop(f"layers.1.attention.{letter}_proj.bias")
    assert "missing: blocks.1.attn.qkv.bias" in refused(state)


def test_a_gap_between_blocks_is_missing():
    state = {re.sub(r"^1\.", "2.", name): tensor for name, tensor in blocks_only().items()}
    assert "missing: blocks.1.attn.proj.bias, blocks.1.attn.proj.weight" in refused(state)


def test_register_tokens_are_refused_not_ignored():
    state = {**dinov2().state_dict(), "embeddings.register_tokens": torch.zeros(1, 4, 21)}
    message = refused(state)
    assert "unexpected: embeddings.register_tokens" in message
    assert "Register tokens, distillation tokens and gated MLPs are not supported" in message


def test_an_image_tower_of_another_family_is_refused():
    """SigLIP's keys look like CLIP's, but it has no class token and no norm before the blocks."""
    state = clip().state_dict()
    for name in ("pre_layrnorm.weight", "pre_layrnorm.bias", "embeddings.class_embedding"):
        state.pop(name)
    message = refused(state)
    assert "norm_pre.weight" in message and "stem.class_token" in message


def test_positions_that_fill_no_square_and_odd_kernels_are_refused():
    state = {**vit().state_dict(), "embeddings.position_embeddings": torch.zeros(1, 8, 21)}
    assert "must have positions for a square grid" in refused(state)
    name = "embeddings.patch_embeddings.projection.weight"
    state = {**vit().state_dict(), name: torch.zeros(21, 1, 5, 5)}
    assert "must have a patch kernel [D, 3, p, p]; found [21, 1, 5, 5]" in refused(state)


def test_an_unknown_layout_lists_the_known_ones():
    message = refused({"conv.weight": torch.zeros(3), "fc.bias": torch.zeros(2)})
    assert "known layout (canonical, timm-siglip, timm-clip, timm, meta-transformer, open_clip" in message
    assert "found 2 tensors named like conv.weight, fc.bias" in message


def test_each_layout_is_detected_by_one_mark_only():
    keys = {
        "canonical": "stem.patch",
        "timm-siglip": "attn_pool.latent",
        "timm-clip": "norm_pre.weight",
        "timm": "blocks.0.attn.qkv.weight",
        "meta-transformer": "0.attn.qkv.weight",
        "open_clip": "visual.transformer.resblocks.0.attn.in_proj_weight",
        "vit": "vit.encoder.layer.0.layernorm_before.weight",
        "dinov2": "backbone.encoder.layer.0.layer_scale1.lambda1",
        "siglip": "vision_model.head.probe",
        "clip": "vision_model.encoder.layers.0.self_attn.q_proj.weight",
    }
    assert keys.keys() == {layout.name for layout in LAYOUTS}
    for name, key in keys.items():
        assert detect([key], where="test")[0].name == name
        assert sum(bool(re.match(layout.mark, key)) for layout in LAYOUTS) == 1


def test_the_image_tower_is_found_behind_a_text_tower_of_the_same_names():
    keys = ["transformer.resblocks.0.attn.in_proj_weight"]
    assert detect(keys, where="test")[1] == ""
    assert detect([*keys, f"visual.{keys[0]}"], where="test")[1] == "visual."


def test_the_text_tower_alone_is_no_image_tower():
    assert "known layout" in refused({"text_model.encoder.layers.0.self_attn.q_proj.weight": torch.zeros(3)})
