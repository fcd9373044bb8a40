"""Equal outputs with timm and OpenCLIP on tiny random models of the layouts that they write.

They need torchvision, whose builds do not import beside a CPU build of torch, and a broken
torchvision breaks other libraries; so they have an environment of their own, and this file is
skipped elsewhere: beside the test extra ``pip install --no-deps timm==1.0.31
open_clip_torch==3.3.0 torchvision==0.28.0 ftfy wcwidth``, then ``pytest tests/parity``.
"""

import importlib.util

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from metatransformer.core.tokens import Span, Tokens
from metatransformer.trunk import KNOWN, Pretrained, load_encoder
from metatransformer.trunk.convert import convert
from metatransformer.trunk.encoder import Encoder, EncoderConfig

pytestmark = pytest.mark.parity
if any(importlib.util.find_spec(name) is None for name in ("timm", "open_clip", "torchvision")):
    pytest.skip("needs timm, open_clip_torch and torchvision", allow_module_level=True)
if torch.version.cuda is None:
    # A CUDA build of torchvision declares its operators in a library that does not load here; the
    # models never call them. The object must stay alive.
    DECLARED = torch.library.Library("torchvision", "DEF")
    _BOXES = "Tensor dets, Tensor scores, float iou_threshold"
    _ROI = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
    DECLARED.define(f"nms({_BOXES}) -> Tensor")
    DECLARED.define(f"qnms({_BOXES}) -> Tensor")
    DECLARED.define(f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor")

import open_clip  # noqa: E402
import timm  # noqa: E402

SIZE, PATCH = 15, 5
# Float32 sums in another order, on values of order 1.
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}


def randomize(model: nn.Module) -> nn.Module:
    """Gives every parameter its own value: fresh models have zeros and ones that hide swaps."""
    draw = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw), alpha=0.2)
    return model.eval()


def tiny_timm(name: str, **changes: object) -> nn.Module:
    shape = {"embed_dim": 21, "depth": 2, "num_heads": 3, "img_size": SIZE, "patch_size": PATCH}
    return randomize(timm.create_model(name, pretrained=False, **shape, **changes))


def pixels() -> Tensor:
    return torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(13))


def through(pretrained: Pretrained) -> Tensor:
    """The trunk's output for the pixels behind its own front end, as ``load_encoder`` gave it."""
    stem = pretrained.stem
    x = F.conv2d(pixels(), stem.patch, stem.bias, stride=PATCH)
    x = x.flatten(2).transpose(1, 2) + stem.positions.flatten(0, 1)  # [B, h*w, D]
    x = torch.cat([stem.class_token.expand(len(x), 1, -1), x], dim=1)
    tokens = Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool), (Span("image", 0, x.shape[1]),))
    with torch.no_grad():
        return pretrained.encoder.encode(tokens).x


@pytest.mark.parametrize(
    ("name", "eps", "activation"),
    [
        ("vit_base_patch16_clip_224.laion2b", 1e-5, "gelu"),
        ("vit_large_patch14_clip_224.laion2b", 1e-5, "gelu"),
        ("vit_base_patch16_clip_quickgelu_224.openai", 1e-5, "quick_gelu"),
        ("vit_base_patch16_224.augreg_in21k", 1e-6, "gelu"),
        ("vit_small_patch14_dinov2.lvd142m", 1e-6, "gelu"),
    ],
)
def test_timm(name, eps, activation, tmp_path):
    model = tiny_timm(name)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    found = load_encoder(f"{tmp_path}/model.safetensors?heads=3&activation={activation}")
    assert found.encoder.config.eps == eps == model.blocks[0].norm1.eps
    with torch.no_grad():
        expected = model.forward_features(pixels())
    torch.testing.assert_close(through(found), expected, **TOLERANCE)


@pytest.mark.parametrize("name", ["meta-b16", "meta-l14"])
def test_the_table_is_timms_definition(name):
    """Built without memory or weights: shapes, eps and pixel statistics as timm has them."""
    known = KNOWN[name]
    with torch.device("meta"):
        model = timm.create_model(known.sources[0].address.removeprefix("timm/"), pretrained=False)
        ours = Encoder(known.config).state_dict()
    block, config = model.blocks[0], model.pretrained_cfg
    assert block.attn.num_heads == known.config.heads
    assert block.norm1.eps == model.norm_pre.eps == model.norm.eps == known.config.eps
    assert isinstance(block.mlp.act, nn.GELU) and block.mlp.act.approximate == "none"
    assert (config["mean"], config["std"]) == (known.mean, known.std)
    assert config["input_size"] == (3, known.size, known.size)
    assert config["license"] == known.licence.lower()
    theirs = {k: v.shape for k, v in model.state_dict().items() if k in ours}
    assert theirs == {name: tensor.shape for name, tensor in ours.items()}
    assert model.patch_embed.proj.bias is None
    assert model.patch_embed.proj.kernel_size == (known.patch, known.patch)


def test_timm_blocks_without_a_stem_and_with_padding():
    """The published Meta-Transformer layout: a plain sequence of timm's blocks."""
    blocks = nn.Sequential(*tiny_timm("vit_base_patch16_224").blocks)
    converted = convert(blocks.state_dict(), where="test")
    assert converted.layout.name == "meta-transformer"
    encoder = Encoder(EncoderConfig(**converted.shape, heads=3, eps=1e-6))
    encoder.load_state_dict(converted.trunk)
    x = torch.randn(2, 11, 21, generator=torch.Generator().manual_seed(1))
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[1, 7:] = False
    with torch.no_grad():
        found = encoder.encode(Tokens(x, mask, (Span("probe", 0, 11),))).x
        torch.testing.assert_close(found[:1], blocks(x[:1]), **TOLERANCE)
        torch.testing.assert_close(found[1:, :7], blocks(x[1:, :7]), **TOLERANCE)


def test_registers_of_timm_are_refused():
    from metatransformer.core.errors import WeightsError

    state = tiny_timm("vit_small_patch14_reg4_dinov2.lvd142m").state_dict()
    with pytest.raises(WeightsError, match="unexpected: reg_token"):
        convert(state, where="test")


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("tower_only", [False, True])
def test_open_clip(quick, tower_only, tmp_path):
    vision = {"layers": 2, "width": 21, "head_width": 7, "patch_size": PATCH, "image_size": SIZE}
    text = {"layers": 3, "width": 14, "heads": 2, "context_length": 5, "vocab_size": 17}
    model = open_clip.CLIP(13, {**vision, "ls_init_value": 0.5}, text, quick_gelu=quick, output_dict=True)
    visual = randomize(model).visual
    state = visual.state_dict() if tower_only else model.state_dict()
    save_file({name: t.contiguous() for name, t in state.items()}, tmp_path / "model.safetensors")
    activation = "quick_gelu" if quick else "gelu"
    found = load_encoder(f"{tmp_path}/model.safetensors?heads=3&activation={activation}")
    assert found.encoder.config.layer_scale and found.encoder.config.pre_norm
    visual.output_tokens = True
    ends = []
    visual.ln_post.register_forward_hook(lambda _, __, output: ends.append(output))
    with torch.no_grad():
        visual(pixels())
    torch.testing.assert_close(through(found), ends[0], **TOLERANCE)
