"""Weight files: the canonical one, foreign ones with what stands beside them, and damaged ones."""

import json
import os
import stat
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from metatransformer.core.errors import UsageError, WeightsError
from metatransformer.trunk import load_encoder
from metatransformer.trunk.catalog import CLIP, HALF, IMAGENET
from metatransformer.trunk.encoder import digest
from metatransformer.trunk.files import (
    read_canonical,
    read_tensors,
    read_torch,
    stem_tensors,
    write_canonical,
)
from metatransformer.trunk.made import make_test

REMEDY = "Copy it again."


def timm_like(*, width: int = 128, pre_norm: bool = False) -> dict[str, torch.Tensor]:
    """A tiny random state dict in timm's names; 128 wide, so that the convention says 2 heads."""
    draw = torch.Generator().manual_seed(3)
    shapes = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 10, width),
        "patch_embed.proj.weight": (width, 3, 5, 5),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "head.weight": (7, width),
    }
    if pre_norm:
        shapes |= {"norm_pre.weight": (width,), "norm_pre.bias": (width,)}
    linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (2, 1), "mlp.fc2": (1, 2)}
    for n in range(2):
        for name, (out, into) in linear.items():
            shapes[f"blocks.{n}.{name}.weight"] = (out * width, into * width)
            shapes[f"blocks.{n}.{name}.bias"] = (out * width,)
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{n}.{name}.{leaf}": (width,) for leaf in ("weight", "bias")}
    return {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in shapes.items()}


@pytest.fixture
def timm_file(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(timm_like(), path)
    return path


@pytest.fixture
def canonical(tmp_path):
    path = tmp_path / "test.safetensors"
    fingerprint = load_encoder("test").fingerprint
    write_canonical(path, replace(make_test(), fingerprint=fingerprint, source_sha256="ab"))
    return path


def test_the_digest_by_hand_and_its_properties():
    import hashlib

    one = {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3.0]])}
    by_hand = hashlib.sha256()
    by_hand.update(b"a(1, 1)torch.float32" + torch.tensor([3.0]).numpy().tobytes())
    by_hand.update(b"b(2,)torch.float32" + torch.tensor([1.0, 2.0]).numpy().tobytes())
    assert digest(one) == by_hand.hexdigest()
    assert digest(dict(reversed(one.items()))) == digest(one)
    assert digest({**one, "a": torch.tensor([3.0])}) != digest(one)
    transposed = torch.arange(6.0).reshape(2, 3).T
    assert digest({"a": transposed}) == digest({"a": transposed.contiguous()})


def test_the_canonical_file_returns_what_was_written(canonical):
    state, record = read_tensors(canonical, remedy=REMEDY)
    back, made = read_canonical(canonical, state, record, remedy=REMEDY), make_test()
    assert back.trunk.keys() == made.trunk.keys()
    assert all(torch.equal(back.trunk[name], made.trunk[name]) for name in made.trunk)
    both = stem_tensors(back.stem), stem_tensors(made.stem)
    assert all(torch.equal(both[0][name], both[1][name]) for name in both[1])
    assert (back.config, back.size, back.sha256) == (made.config, made.size, made.sha256)
    assert (back.stem.mean, back.stem.std) == (made.stem.mean, made.stem.std)
    names = {"stem.patch", "stem.bias", "stem.positions", "stem.class_token"}
    assert set(load_file(canonical)) == made.trunk.keys() | names
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(canonical.stat().st_mode) == 0o666 & ~umask


def test_a_canonical_file_is_a_weight_file_like_any_other(canonical):
    there, made = load_encoder(str(canonical)), load_encoder("test")
    assert (there.sha256, there.fingerprint) == (made.sha256, made.fingerprint)
    assert not there.verified
    with pytest.raises(UsageError, match="must stand without options"):
        load_encoder(f"{canonical}?heads=2")
    with pytest.raises(WeightsError, match="must hold 'meta-b16'"):
        load_encoder(f"{canonical}?like=meta-b16")


@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.999])
def test_a_truncated_safetensors_file_is_named_with_the_remedy(canonical, share):
    content = canonical.read_bytes()
    canonical.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(WeightsError, match="test.safetensors: must be a complete safetensors file"):
        load_encoder(str(canonical))


def test_a_flipped_bit_shows(canonical):
    content = bytearray(canonical.read_bytes())
    content[-5] ^= 1
    canonical.write_bytes(content)
    with pytest.raises(WeightsError, match="must hold the tensors with digest .*Copy or download"):
        load_encoder(str(canonical))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"config": {"width": 32}},
        {"config": None},
        {"mean": [0.5]},
        {"fingerprint": None},
        "not JSON",
    ],
    ids=str,
)
def test_a_header_that_is_not_understood(canonical, change):
    tensors, record = read_tensors(canonical, remedy=REMEDY)
    record = json.dumps({**json.loads(record), **change}) if isinstance(change, dict) else change
    with pytest.raises(WeightsError, match=r"must be a complete converted weight file.*again\.$"):
        read_canonical(canonical, tensors, record, remedy=REMEDY)


def test_a_changed_setting_in_the_header_is_refused_by_the_fingerprint(canonical):
    tensors, record = read_tensors(canonical, remedy=REMEDY)
    told = json.loads(record)
    told["config"]["heads"] = 8
    save_file(tensors, canonical, metadata={"metatransformer": json.dumps(told)})
    with pytest.raises(WeightsError, match="their fingerprint"):
        load_encoder(str(canonical))


def test_conventions_are_used_and_said(timm_file):
    there = load_encoder(str(timm_file))
    config = there.encoder.config
    assert (config.width, config.depth, config.heads, config.hidden) == (128, 2, 2, 256)
    assert (config.eps, config.activation, there.size) == (1e-6, "gelu", 15)
    assert (there.stem.mean, there.stem.std) == HALF and not there.verified
    assert there.note.startswith("heads 2 (convention); eps 1e-06 (convention)")
    assert there.encoder.is_frozen


def test_clip_in_timms_names_has_its_own_eps_and_pixels(tmp_path):
    save_file(timm_like(pre_norm=True), tmp_path / "clip.safetensors")
    there = load_encoder(str(tmp_path / "clip.safetensors"))
    assert there.encoder.config.eps == 1e-5 and there.encoder.config.pre_norm
    assert (there.stem.mean, there.stem.std) == CLIP


def test_options_come_before_the_convention(timm_file):
    options = "heads=4&eps=1e-7&activation=quick_gelu&pixels=imagenet"
    there = load_encoder(f"{timm_file}?{options}")
    config = there.encoder.config
    assert (config.heads, config.eps, config.activation) == (4, 1e-7, "quick_gelu")
    assert (there.stem.mean, there.stem.std) == IMAGENET
    assert "heads 4 (the option)" in there.note


def test_an_unusual_width_needs_a_head_count(tmp_path):
    save_file(timm_like(width=42), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"found width 42.*as in w.safetensors\?heads=4"):
        load_encoder(str(tmp_path / "w.safetensors"))
    with pytest.raises(UsageError, match="encoder.heads: must divide the width 42; found 4"):
        load_encoder(str(tmp_path / "w.safetensors?heads=4"))
    assert load_encoder(str(tmp_path / "w.safetensors?heads=3")).encoder.config.heads == 3


def write(path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def test_transformers_configuration_beside_the_file(timm_file):
    config = {"num_attention_heads": 8, "layer_norm_eps": 1e-12, "hidden_act": "gelu_new"}
    write(timm_file.with_name("config.json"), {**config, "hidden_size": 128})
    processor = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1]}
    write(timm_file.with_name("preprocessor_config.json"), processor)
    there = load_encoder(str(timm_file))
    found = there.encoder.config
    assert (found.heads, found.eps, found.activation) == (8, 1e-12, "gelu_tanh")
    assert (there.stem.mean, there.stem.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert "heads 8 (config.json)" in there.note
    assert load_encoder(f"{timm_file}?heads=4").encoder.config.heads == 4


def test_timm_configuration_beside_the_file(timm_file):
    pretrained = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7], "license": "mit"}
    config = {"architecture": "vit_base_patch16_clip_quickgelu_224", "num_features": 128}
    write(timm_file.with_name("config.json"), {**config, "pretrained_cfg": pretrained})
    there = load_encoder(str(timm_file))
    assert there.stem.mean == (0.1, 0.2, 0.3) and there.licence == "mit"
    assert there.encoder.config.activation == "quick_gelu" and there.encoder.config.heads == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"hidden_size": 768}, "whose hidden_size is 128; found hidden_size 768. Move"),
        ({"num_hidden_layers": 12}, "whose num_hidden_layers is 2"),
        ({"hidden_size": 128, "hidden_act": "silu"}, "found 'silu'"),
        ({"hidden_size": 128, "num_attention_heads": "many"}, "must be the JSON configuration"),
        ([1], "must be the JSON configuration"),
    ],
)
def test_a_configuration_of_something_else_is_refused(timm_file, content, message):
    write(timm_file.with_name("config.json"), content)
    with pytest.raises(WeightsError, match=message) as caught:
        load_encoder(str(timm_file))
    assert "config.json: must" in str(caught.value)


def test_a_state_dict_may_be_wrapped_and_parallel(tmp_path):
    plain, wrapped = tmp_path / "plain.pth", tmp_path / "wrapped.pt"
    state = timm_like()
    torch.save(state, plain)
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, wrapped)
    assert load_encoder(str(plain)).sha256 == load_encoder(str(wrapped)).sha256


class Payload:
    def __reduce__(self):
        return os.mkdir, ("should-not-exist",)


def test_no_code_is_run_from_a_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"blocks.0.attn.qkv.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(WeightsError, match="evil.pth: must be a file of tensors only"):
        load_encoder("evil.pth")
    assert not (tmp_path / "should-not-exist").exists()


@pytest.mark.parametrize("new_format", [True, False])
def test_a_truncated_torch_file_is_named_with_the_remedy(tmp_path, new_format):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(31)}, path, _use_new_zipfile_serialization=new_format)
    content = path.read_bytes()
    for length in range(0, len(content) - 1, 61):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="w.pth: must be"):
            read_torch(path, remedy=REMEDY)


def test_other_things_in_a_torch_file(tmp_path):
    for content, message in (
        (torch.zeros(3), "must hold a state dict; found a Tensor"),
        ({}, "must hold a state dict; found a dict"),
        ({"a": 3}, "other values, as 'a'"),
    ):
        torch.save(content, tmp_path / "w.pth")
        with pytest.raises(WeightsError, match=message):
            read_torch(tmp_path / "w.pth", remedy=REMEDY)


def test_not_a_number_in_the_weights_is_refused(timm_file):
    state = timm_like()
    state["blocks.1.mlp.fc2.bias"][5] = float("nan")
    save_file(state, timm_file)
    with pytest.raises(WeightsError, match="must compute finite numbers; found .*nan"):
        load_encoder(str(timm_file))


def test_shapes_that_do_not_fit_together_are_named(timm_file):
    state = timm_like()
    state["blocks.1.mlp.fc2.weight"] = torch.zeros(128, 255)
    save_file(state, timm_file)
    with pytest.raises(WeightsError, match=r"'blocks.1.mlp.fc2.weight' with shape \(128, 256\)"):
        load_encoder(str(timm_file))
    state = timm_like()
    state["patch_embed.proj.weight"] = torch.zeros(64, 3, 5, 5)
    save_file(state, timm_file)
    with pytest.raises(WeightsError, match=r"'stem.patch' with shape \(128, 3, 5, 5\)"):
        load_encoder(str(timm_file))


def test_a_folder_that_may_not_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="METATRANSFORMER_CACHE"):
        write_canonical(tmp_path / "file" / "test.safetensors", make_test())
